/* Functions and inline chains from DWARF: units made here byte by byte for the corners of every
   version, programs that compilers make at run time against llvm-symbolizer, and damaged input.

   Run:   cc -g -O1 -I. tests/unit/dwarf.c -o dwarf -lpthread && ./dwarf
   Best with -fsanitize=address,undefined. */
#include "unit.h"

/* ---- sections made here ---- */

typedef struct {
    uint8_t *data;
    size_t size, capacity;
} section;

static section made[CPROFI_DWARF_SECTIONS];
static unsigned version, address_size;
static bool wide;

enum {
    INFO = CPROFI_DWARF_INFO, ABBREV = CPROFI_DWARF_ABBREV, STR = CPROFI_DWARF_STR,
    LINE_STR = CPROFI_DWARF_LINE_STR, STR_OFFSETS = CPROFI_DWARF_STR_OFFSETS,
    ADDR = CPROFI_DWARF_ADDR, RANGES = CPROFI_DWARF_RANGES, RNGLISTS = CPROFI_DWARF_RNGLISTS,
    ARANGES = CPROFI_DWARF_ARANGES
};

static void begin(unsigned v, bool w, unsigned a) {
    for (unsigned i = 0; i < CPROFI_DWARF_SECTIONS; i++) made[i].size = 0;
    version = v;
    wide = w;
    address_size = a;
}

static void put(unsigned to, uint64_t value, size_t size) {
    section *s = &made[to];
    if (s->size + size > s->capacity) {
        s->capacity = 2 * s->capacity + 256;
        s->data = (uint8_t *)realloc(s->data, s->capacity);
        if (!s->data) abort();
    }
    for (size_t i = 0; i < size; i++)
        s->data[s->size++] = (uint8_t)(i < 8 ? value >> (8 * i) : 0);
}

static void put_uleb(unsigned to, uint64_t value) {
    for (; value > 0x7f; value >>= 7) put(to, value | 0x80, 1);
    put(to, value, 1);
}

static void put_string(unsigned to, const char *text) {
    do put(to, (uint8_t)*text, 1);
    while (*text++);
}

static void put_address(unsigned to, uint64_t value) { put(to, value, address_size); }
static void put_offset(unsigned to, uint64_t value) { put(to, value, wide ? 8 : 4); }

/* One abbreviation: code, tag, children, then pairs of attribute and form up to 0. */
static void abbrev(unsigned code, unsigned tag, unsigned children, ...) {
    va_list list;
    unsigned attribute;
    va_start(list, children);
    put_uleb(ABBREV, code);
    put_uleb(ABBREV, tag);
    put(ABBREV, children, 1);
    while ((attribute = va_arg(list, unsigned)) != 0) {
        put_uleb(ABBREV, attribute);
        put_uleb(ABBREV, va_arg(list, unsigned));
    }
    put(ABBREV, 0, 2);
    va_end(list);
}

static size_t unit_start; /* of the unit begun last */

static void unit_begin(unsigned type, uint64_t abbrevs) {
    unit_start = made[INFO].size;
    if (wide) put(INFO, 0xffffffff, 4);
    put_offset(INFO, 0);
    put(INFO, version, 2);
    if (version >= 5) {
        put(INFO, type, 1);
        put(INFO, address_size, 1);
        put_offset(INFO, abbrevs);
        if (type == 4) put(INFO, 0x1122334455667788, 8);
    } else {
        put_offset(INFO, abbrevs);
        put(INFO, address_size, 1);
    }
}

static void unit_end(void) {
    size_t at = unit_start + (wide ? 4 : 0), length = wide ? 8 : 4;
    uint64_t size = made[INFO].size - at - length;
    for (size_t i = 0; i < length; i++) made[INFO].data[at + i] = (uint8_t)(size >> (8 * i));
}

/* Where the next entry will be, in the unit. */
static size_t here(void) { return made[INFO].size - unit_start; }

static cprofi_dwarf_answer last; /* what the last look-up counted */

static cprofi_dwarf made_dwarf(void) {
    cprofi_dwarf d;
    for (unsigned i = 0; i < CPROFI_DWARF_SECTIONS; i++) {
        cprofi_span span = {made[i].data, made[i].size};
        d.sections[i] = cprofi_source_of(span);
    }
    return d;
}

/* The frames of one address as "name:line name:line ...", valid until the next call. */
static const char *frames_of(uint64_t address) {
    static char out[8192];
    cprofi_dwarf d = made_dwarf();
    cprofi_dwarf_want want = {address, 7, 0, 0};
    cprofi_text text = {NULL, 0};
    size_t used = 0;
    out[0] = 0;
    if (!cprofi_dwarf_lookup(&d, &want, 1, &text, &last)) abort();
    for (uint32_t i = 0; i < want.count; i++) {
        const cprofi_dwarf_frame *f = &last.frames[want.first + i];
        if (f->inlined != (i + 1 < want.count) || used + 300 > sizeof out) return "wrong";
        used += (size_t)snprintf(out + used, sizeof out - used, "%s%s:%u", i ? " " : "",
                                 f->function ? f->function : "?", f->line);
    }
    cprofi_text_free(&text);
    free(last.frames);
    last.frames = NULL;
    return out;
}

static void expect(const char *name, uint64_t address, const char *frames) {
    const char *is = frames_of(address);
    check(strcmp(is, frames) == 0, name, "0x%llx is \"%s\", not \"%s\"",
          (unsigned long long)address, is, frames);
}

/* namespace ns { class K { void method(); } } and an unnamed namespace, an abstract function that
   is inlined twice over into K::method, and a C function behind them. */
static void make_program(bool constant_high) {
    const unsigned high = constant_high ? 0x06 : 0x01;
    size_t method, inl, deep;
    abbrev(1, 0x11, 1, 0x03, 0x08, 0x13, 0x0b, 0x11, 0x01, 0x12, high, 0);
    abbrev(2, 0x39, 1, 0x03, 0x08, 0);                         /* namespace */
    abbrev(3, 0x39, 1, 0);                                     /* without a name */
    abbrev(4, 0x02, 1, 0x01, 0x13, 0x03, 0x08, 0);             /* class, sibling */
    abbrev(5, 0x2e, 0, 0x03, 0x08, 0x3c, 0x0c, 0);             /* declaration */
    abbrev(6, 0x2e, 1, 0x47, 0x13, 0x11, 0x01, 0x12, high, 0); /* definition */
    abbrev(7, 0x1d, 1, 0x31, 0x13, 0x11, 0x01, 0x12, high, 0x58, 0x0b, 0x59, 0x05, 0);
    abbrev(8, 0x2e, 0, 0x03, 0x08, 0x3b, 0x0b, 0);             /* abstract */
    abbrev(9, 0x34, 0, 0x03, 0x08, 0x02, 0x0a, 0);             /* variable with a block */
    abbrev(10, 0x2e, 0, 0x03, 0x08, 0x6e, 0x08, 0x11, 0x01, 0x12, high, 0);
    put(ABBREV, 0, 1);
    unit_begin(1, 0);
    put(INFO, 1, 1);
    put_string(INFO, "unit");
    put(INFO, 4, 1);
    put_address(INFO, 0x1000);
    put(INFO, constant_high ? 0x1000 : 0x2000, constant_high ? 4 : address_size);
    put(INFO, 2, 1);
    put_string(INFO, "ns");
    put(INFO, 4, 1);
    put(INFO, 0, 4); /* a sibling that cannot be */
    put_string(INFO, "K");
    method = here();
    put(INFO, 5, 1);
    put_string(INFO, "method");
    put(INFO, 1, 1);
    put(INFO, 0, 1);
    put(INFO, 3, 1);
    inl = here();
    put(INFO, 8, 1);
    put_string(INFO, "inl");
    put(INFO, 33, 1);
    put(INFO, 0, 1);
    put(INFO, 0, 1);
    deep = here();
    put(INFO, 8, 1);
    put_string(INFO, "deep");
    put(INFO, 34, 1);
    put(INFO, 6, 1);
    put(INFO, method, 4);
    put_address(INFO, 0x1100);
    put(INFO, constant_high ? 0x100 : 0x1200, constant_high ? 4 : address_size);
    put(INFO, 9, 1);
    put_string(INFO, "v");
    put(INFO, 3, 1);
    put(INFO, 0, 3);
    put(INFO, 7, 1);
    put(INFO, inl, 4);
    put_address(INFO, 0x1110);
    put(INFO, constant_high ? 0x20 : 0x1130, constant_high ? 4 : address_size);
    put(INFO, 1, 1);
    put(INFO, 501, 2);
    put(INFO, 7, 1);
    put(INFO, deep, 4);
    put_address(INFO, 0x1118);
    put(INFO, constant_high ? 8 : 0x1120, constant_high ? 4 : address_size);
    put(INFO, 1, 1);
    put(INFO, 502, 2);
    put(INFO, 0, 3);
    put(INFO, 10, 1);
    put_string(INFO, "plain");
    put_string(INFO, "_Zplain");
    put_address(INFO, 0x1200);
    put(INFO, constant_high ? 0x10 : 0x1210, constant_high ? 4 : address_size);
    put(INFO, 0, 1);
    unit_end();
}

static void test_versions(void) {
    for (unsigned v = 2; v <= 5; v++) {
        for (unsigned form = 0; form < 8; form++) {
            const bool w = form & 1, constant = form & 2;
            const unsigned a = form & 4 ? 4 : 8;
            char name[80];
            if (w && v < 3) continue;
            begin(v, w, a);
            make_program(constant);
            snprintf(name, sizeof name, "DWARF %u, %d-bit format, %u-byte addresses, high_pc %s", v,
                     w ? 64 : 32, a, constant ? "offset" : "address");
            bool ok = strcmp(frames_of(0x1100), "ns::K::method:0") == 0 &&
                      strcmp(frames_of(0x1117), "ns::(anonymous namespace)::inl:0 "
                                                "ns::K::method:501") == 0 &&
                      strcmp(frames_of(0x111f), "deep:0 ns::(anonymous namespace)::inl:502 "
                                                "ns::K::method:501") == 0 &&
                      strcmp(frames_of(0x1120), "ns::(anonymous namespace)::inl:0 "
                                                "ns::K::method:501") == 0 &&
                      strcmp(frames_of(0x120f), "_Zplain:0") == 0 && !*frames_of(0x1210) &&
                      !*frames_of(0x10ff) && !*frames_of(0x999);
            check(ok && last.damaged_units == 0, name, "0x1118 is \"%s\"", frames_of(0x1118));
        }
    }
    begin(4, false, 8);
    make_program(true);
    for (size_t i = 0; i + 4 < made[INFO].size; i++) /* DW_LANG_C_plus_plus to C99 */
        if (memcmp(made[INFO].data + i, "unit\0\4", 6) == 0) made[INFO].data[i + 5] = 0x0c;
    expect("a C function has no scopes", 0x1150, "method:0");
}

/* ---- ranges ---- */

/* A unit with one function "f", whose ranges are at `at` of their section. */
static void make_ranged(unsigned form, uint64_t at, uint64_t low) {
    abbrev(1, 0x11, 1, 0x11, 0x01, 0x73, 0x17, 0x55, form, 0);
    abbrev(2, 0x2e, 0, 0x03, 0x08, 0x55, form, 0);
    put(ABBREV, 0, 1);
    unit_begin(1, 0);
    for (unsigned i = 1; i <= 2; i++) {
        put(INFO, i, 1);
        if (i == 1) put_address(INFO, low);
        if (i == 1) put_offset(INFO, wide ? 16 : 8);
        if (i == 2) put_string(INFO, "f");
        if (form == 0x17) put_offset(INFO, at);
        else put_uleb(INFO, at);
    }
    put(INFO, 0, 1);
    unit_end();
}

static void put_pair(unsigned to, uint64_t low, uint64_t high) {
    put_address(to, low);
    put_address(to, high);
}

static void test_ranges(void) {
    for (unsigned form = 0; form < 4; form++) {
        const unsigned a = form & 1 ? 4 : 8;
        const bool w = form & 2;
        char name[80];
        bool ok = true;
        begin(4, w, a);
        put_pair(RANGES, 0, 0); /* what comes before */
        put_pair(RANGES, 0x10, 0x20);
        put_pair(RANGES, 0x20, 0x20);
        put_pair(RANGES, ~(uint64_t)0, 0x9000);
        put_pair(RANGES, 0x1, 0x2);
        put_pair(RANGES, ~(uint64_t)0, ~(uint64_t)0);
        put_pair(RANGES, 0x5001, 0x5010); /* discarded: nothing may wrap around to 0x5000 */
        put_pair(RANGES, ~(uint64_t)0, 0);
        put_pair(RANGES, 0, 0x4000); /* discarded */
        put_pair(RANGES, 0x6000, 0x6010);
        put_pair(RANGES, 0, 0);
        put_pair(RANGES, 0x7000, 0x7010);
        make_ranged(0x17, 2 * a, 0x8000);
        ok = *frames_of(0x8010) && *frames_of(0x801f) && !*frames_of(0x8020) &&
             *frames_of(0x9001) && !*frames_of(0x9000) && !*frames_of(0x5005) &&
             !*frames_of(0x3000) &&
             *frames_of(0x600f) && !*frames_of(0x7000);
        snprintf(name, sizeof name, ".debug_ranges, %d-bit format, %u-byte addresses",
                 w ? 64 : 32, a);
        check(ok, name, "a range is wrong");

        begin(5, w, a);
        put(ADDR, 0, w ? 16 : 8);
        for (uint64_t i = 0; i < 8; i++) put_address(ADDR, 0x10000 + 0x100 * i);
        put(RNGLISTS, 0, w ? 20 : 12);
        put_offset(RNGLISTS, 0); /* entry 0 of the table of offsets; then entry 1 */
        put_offset(RNGLISTS, w ? 16 : 8);
        put(RNGLISTS, 4, 1); /* offset_pair, from low_pc of the unit */
        put_uleb(RNGLISTS, 0x10);
        put_uleb(RNGLISTS, 0x20);
        put(RNGLISTS, 1, 1); /* base_addressx */
        put_uleb(RNGLISTS, 1);
        put(RNGLISTS, 4, 1);
        put_uleb(RNGLISTS, 0x80);
        put_uleb(RNGLISTS, 0x90);
        put(RNGLISTS, 2, 1); /* startx_endx */
        put_uleb(RNGLISTS, 2);
        put_uleb(RNGLISTS, 3);
        put(RNGLISTS, 3, 1); /* startx_length */
        put_uleb(RNGLISTS, 4);
        put_uleb(RNGLISTS, 0x10);
        put(RNGLISTS, 5, 1); /* base_address: discarded code */
        put_address(RNGLISTS, ~(uint64_t)0);
        put(RNGLISTS, 4, 1);
        put_uleb(RNGLISTS, 0x5001);
        put_uleb(RNGLISTS, 0x5010);
        put(RNGLISTS, 6, 1); /* start_end */
        put_pair(RNGLISTS, 0x20000, 0x20010);
        put(RNGLISTS, 7, 1); /* start_length */
        put_address(RNGLISTS, 0x30000);
        put_uleb(RNGLISTS, 0x10);
        put(RNGLISTS, 0, 1);
        put(RNGLISTS, 7, 1);
        put_address(RNGLISTS, 0x40000);
        put_uleb(RNGLISTS, 0x10);
        make_ranged(0x23, 1, 0x8000);
        ok = *frames_of(0x8010) && !*frames_of(0x8020) && *frames_of(0x10180) &&
             !*frames_of(0x10190) && !*frames_of(0x5005) && *frames_of(0x10200) &&
             *frames_of(0x102ff) && !*frames_of(0x10300) && *frames_of(0x1040f) &&
             !*frames_of(0x10410) && *frames_of(0x20000) && !*frames_of(0x20010) &&
             *frames_of(0x3000f) && !*frames_of(0x30010) && !*frames_of(0x40000);
        snprintf(name, sizeof name,
                 ".debug_rnglists and rnglistx, %d-bit format, %u-byte addresses", w ? 64 : 32, a);
        check(ok, name, "a range is wrong");
    }
}

/* ---- forms ---- */

static void test_forms(void) {
    begin(5, false, 8);
    put_string(STR, "");
    put_string(STR, "from_strp");
    put_string(LINE_STR, "from_line_strp");
    put(STR_OFFSETS, 0, 8);
    put(STR_OFFSETS, 0, 4);
    put(STR_OFFSETS, 1, 4);
    put(ADDR, 0, 8);
    for (uint64_t i = 0; i < 8; i++) put_address(ADDR, 0x1000 * i);
    abbrev(1, 0x11, 1, 0x72, 0x17, 0x73, 0x17, 0x11, 0x1b, 0x12, 0x06, 0);
    for (unsigned i = 0; i < 5; i++) { /* addrx and strx of all sizes */
        static const unsigned addrx[] = {0x1b, 0x29, 0x2a, 0x2b, 0x2c};
        static const unsigned strx[] = {0x1a, 0x25, 0x26, 0x27, 0x28};
        abbrev(2 + i, 0x2e, 0, 0x03, strx[i], 0x11, addrx[i], 0x12, 0x0f, 0);
    }
    abbrev(7, 0x2e, 0, 0x03, 0x0e, 0x11, 0x16, 0x12, 0x16, 0);
    abbrev(8, 0x2e, 0, 0x03, 0x1f, 0x11, 0x01, 0x12, 0x0d, 0);
    /* Attributes nobody knows, in every form there is. */
    put_uleb(ABBREV, 300);
    put_uleb(ABBREV, 0x2e);
    put(ABBREV, 0, 1);
    for (unsigned form = 0x01; form <= 0x2c; form++) {
        if (form == 0x02 || form == 0x16) continue;
        put_uleb(ABBREV, 0x3000 + form);
        put_uleb(ABBREV, form);
        if (form == 0x21) put(ABBREV, 0x7f, 1); /* -1 */
    }
    for (unsigned i = 0; i < 4; i++) {
        static const unsigned gnu[] = {0x1f01, 0x1f02, 0x1f20, 0x1f21};
        put_uleb(ABBREV, 0x3100 + i);
        put_uleb(ABBREV, gnu[i]);
    }
    put_uleb(ABBREV, 0x3b); /* decl_line */
    put_uleb(ABBREV, 0x21);
    put_uleb(ABBREV, 42);
    put_uleb(ABBREV, 0x11);
    put_uleb(ABBREV, 0x01);
    put_uleb(ABBREV, 0x12);
    put_uleb(ABBREV, 0x21);
    put_uleb(ABBREV, 0x30);
    put(ABBREV, 0, 2);
    put(ABBREV, 0, 1);
    unit_begin(1, 0);
    put(INFO, 1, 1);
    put_offset(INFO, 8);
    put_offset(INFO, 8);
    put_uleb(INFO, 1);
    put(INFO, 0x10000, 4);
    for (unsigned i = 0; i < 5; i++) {
        put(INFO, 2 + i, 1);
        put(INFO, 1, i ? i : 1);
        put(INFO, 1 + i, i ? i : 1);
        put_uleb(INFO, 0x200);
    }
    put(INFO, 7, 1);
    put_offset(INFO, 1);
    put_uleb(INFO, 0x01);
    put_address(INFO, 0x6000);
    put_uleb(INFO, 0x05);
    put(INFO, 0x10, 2);
    put(INFO, 8, 1);
    put_offset(INFO, 0);
    put_address(INFO, 0x6100);
    put_uleb(INFO, 0x20);
    put_uleb(INFO, 300);
    for (unsigned form = 0x01; form <= 0x2c; form++) {
        switch (form) {
        case 0x02: case 0x16: case 0x19: case 0x21: break;
        case 0x01: case 0x07: case 0x14: case 0x20: case 0x24:
            put(INFO, 0x0101010101010101, 8);
            break;
        case 0x03: put(INFO, 3, 2); put(INFO, 0x010101, 3); break;
        case 0x04: put(INFO, 3, 4); put(INFO, 0x010101, 3); break;
        case 0x05: case 0x12: case 0x26: case 0x2a: put(INFO, 0x0101, 2); break;
        case 0x06: case 0x0e: case 0x10: case 0x13: case 0x17: case 0x1c: case 0x1d: case 0x1f:
        case 0x28: case 0x2c: put(INFO, 0x01010101, 4); break;
        case 0x08: put_string(INFO, "text"); break;
        case 0x09: case 0x0a: case 0x18: put(INFO, 3, 1); put(INFO, 0x010101, 3); break;
        case 0x0b: case 0x0c: case 0x11: case 0x25: case 0x29: put(INFO, 1, 1); break;
        case 0x1e: put(INFO, 1, 16); break;
        case 0x27: case 0x2b: put(INFO, 1, 3); break;
        default: put_uleb(INFO, 0x1234);
        }
    }
    put_uleb(INFO, 300);
    put_uleb(INFO, 300);
    put(INFO, 0, 8);
    put_address(INFO, 0x7000);
    put(INFO, 2, 1); /* what follows is found again */
    put(INFO, 1, 1);
    put_uleb(INFO, 7);
    put_uleb(INFO, 0x10);
    put(INFO, 0, 1);
    unit_end();
    bool ok = true;
    for (uint64_t i = 0; i < 5; i++)
        ok = ok && strcmp(frames_of(0x1000 * (i + 1) + 0x1ff), "from_strp:0") == 0 &&
             !*frames_of(0x1000 * (i + 1) + 0x200);
    check(ok, "addrx and strx of all sizes", "0x1000 is \"%s\"", frames_of(0x1000));
    expect("DW_FORM_indirect and strp", 0x600f, "from_strp:0");
    expect("DW_FORM_line_strp, udata and sdata", 0x611f, "from_line_strp:0");
    expect("attributes nobody knows are skipped in all forms", 0x702f, "?:0");
    check(last.damaged_units == 0 && last.supplementary == 0, "no form counts as damage",
          "%u damaged, %u supplementary", last.damaged_units, last.supplementary);

    begin(4, false, 8);
    abbrev(1, 0x11, 1, 0x11, 0x01, 0x12, 0x06, 0);
    abbrev(2, 0x2e, 0, 0x11, 0x01, 0x12, 0x06, 0x03, 0x08, 0);
    abbrev(3, 0x34, 0, 0x03, 0x33, 0);
    put(ABBREV, 0, 1);
    unit_begin(1, 0);
    put(INFO, 1, 1);
    put_address(INFO, 0x1000);
    put(INFO, 0x1000, 4);
    for (unsigned i = 0; i < 2; i++) {
        put(INFO, 2, 1);
        put_address(INFO, 0x1000 + 0x100 * i);
        put(INFO, 0x100, 4);
        put_string(INFO, i ? "after" : "before");
        if (!i) put(INFO, 3, 1);
    }
    put(INFO, 0, 1);
    unit_end();
    expect("an unknown form ends the unit", 0x1100, "");
    check(last.damaged_units == 1, "and counts as damage", "%u", last.damaged_units);
    expect("what came before it stays", 0x1000, "before:0");
}

/* ---- references ---- */

/* A unit that begins with a function of this name at an offset that is returned. */
static size_t make_named(const char *name, unsigned language) {
    size_t at;
    unit_begin(1, 0);
    put(INFO, 1, 1);
    put(INFO, language, 1);
    put(INFO, 2, 1);
    put_string(INFO, "far");
    at = made[INFO].size;
    put(INFO, 3, 1);
    put_string(INFO, name);
    put(INFO, 0, 2);
    unit_end();
    return at;
}

static void test_references(unsigned v) {
    const size_t wide_reference = v < 3 ? 8 : 4; /* DW_FORM_ref_addr */
    size_t a, b, cycle;
    begin(v, false, 8);
    abbrev(1, 0x11, 1, 0x13, 0x0b, 0);
    abbrev(2, 0x39, 1, 0x03, 0x08, 0);
    abbrev(3, 0x2e, 0, 0x03, 0x08, 0);
    abbrev(4, 0x11, 1, 0x13, 0x0b, 0x11, 0x01, 0x12, 0x06, 0);
    abbrev(5, 0x2e, 1, 0x31, 0x10, 0x11, 0x01, 0x12, 0x06, 0);
    abbrev(6, 0x1d, 0, 0x31, 0x10, 0x11, 0x01, 0x12, 0x06, 0x59, 0x0b, 0);
    abbrev(7, 0x2e, 0, 0x31, 0x13, 0);
    abbrev(8, 0x2e, 0, 0x31, 0x1f20, 0x11, 0x01, 0x12, 0x06, 0);
    abbrev(9, 0x2e, 0, 0x31, 0x20, 0x11, 0x01, 0x12, 0x06, 0x03, 0x08, 0);
    abbrev(10, 0x2e, 0, 0x31, 0x10, 0);
    put(ABBREV, 0, 1);
    a = make_named("one", 4);
    unit_begin(1, 0);
    put(INFO, 4, 1);
    put(INFO, 4, 1);
    put_address(INFO, 0x1000);
    put(INFO, 0x1000, 4);
    cycle = here();
    put(INFO, 7, 1);
    put(INFO, cycle + 5, 4);
    put(INFO, 7, 1);
    put(INFO, cycle, 4);
    for (unsigned i = 0; i < 4; i++) {
        static const size_t none = 0x7fffffff;
        /* The unit behind this one begins where it ends; its length is known beforehand. */
        b = unit_start + 300 + a;
        put(INFO, 5, 1);
        put(INFO, i == 0 ? a : i == 1 ? b : i == 2 ? unit_start + cycle : none, wide_reference);
        put_address(INFO, 0x1100 + 0x100 * i);
        put(INFO, 0x100, 4);
        put(INFO, 6, 1);
        put(INFO, i == 0 ? b : a, wide_reference);
        put_address(INFO, 0x1110 + 0x100 * i);
        put(INFO, 0x10, 4);
        put(INFO, 9, 1);
        put(INFO, 0, 1);
    }
    put(INFO, 8, 1);
    put(INFO, 77, 4);
    put_address(INFO, 0x1600);
    put(INFO, 0x10, 4);
    put(INFO, 9, 1);
    put(INFO, 77, 8);
    put_address(INFO, 0x1700);
    put(INFO, 0x10, 4);
    put_string(INFO, "typed");
    put(INFO, 0, 300 - (made[INFO].size - unit_start));
    unit_end();
    b = make_named("two", 12);
    check(b == unit_start + a, "the units of this test are where they should be", "%zu", b);
    expect("DW_FORM_ref_addr into units before and behind", 0x1110, "two:0 far::one:9");
    expect("and the other way round", 0x1210, "far::one:0 two:9");
    expect("a cycle of references ends", 0x1300, "?:0");
    expect("a reference to nowhere leaves the function without a name", 0x1400, "?:0");
    expect("and what is inlined into it with one", 0x1410, "far::one:0 ?:9");
    expect("a reference into a supplementary file is not followed", 0x1600, "?:0");
    check(last.supplementary == 1, "but counted", "%u", last.supplementary);
    expect("a reference to a type unit is not followed", 0x1700, "typed:0");
    check(last.supplementary == 0 && last.damaged_units == 0, "and not counted", "%u, %u",
          last.supplementary, last.damaged_units);
}

/* ---- units ---- */

static void make_simple(const char *name, uint64_t low, uint64_t size, unsigned type) {
    unit_begin(type, 0);
    put(INFO, 1, 1);
    put_address(INFO, low);
    put(INFO, size, 4);
    put(INFO, 2, 1);
    put_string(INFO, name);
    put_address(INFO, low);
    put(INFO, size, 4);
    put(INFO, 0, 1);
    unit_end();
}

static void put_aranges(uint64_t unit, uint64_t low, uint64_t size) {
    put(ARANGES, 12 + 16 + 16 * 3, 4);
    put(ARANGES, 2, 2);
    put(ARANGES, unit, 4);
    put(ARANGES, 8, 1);
    put(ARANGES, 0, 5);
    put_pair(ARANGES, 0, 0x8000); /* discarded */
    put_pair(ARANGES, low, size);
    put_pair(ARANGES, ~(uint64_t)0 - 1, 1);
    put_pair(ARANGES, 0, 0);
}

static void test_units(void) {
    uint64_t second;
    begin(4, false, 8);
    abbrev(1, 0x11, 1, 0x11, 0x01, 0x12, 0x06, 0);
    abbrev(2, 0x2e, 0, 0x03, 0x08, 0x11, 0x01, 0x12, 0x06, 0);
    put(ABBREV, 0, 1);
    make_simple("first", 0x1000, 0x100, 1);
    second = made[INFO].size;
    make_simple("dropped", 0, 0x5000, 1);
    make_simple("second", 0x2000, 0x100, 1);
    make_simple("high", ~(uint64_t)0 - 1, 1, 1);
    expect("units without aranges are found by their root entry", 0x20ff, "second:0");
    put_aranges(0, 0x1000, 0x100);
    expect("an incomplete .debug_aranges", 0x2000, "second:0");
    expect("an address that the complete part has", 0x1010, "first:0");
    put_aranges(second, 0x2000, 0x100);
    expect("a .debug_aranges that is wrong", 0x2000, "second:0");
    put_aranges(77777777, 0x3000, 0x100);
    expect("aranges to a unit that is not there", 0x3000, "");
    expect("code that was discarded covers nothing", 0x4fff, "");

    begin(4, false, 8);
    abbrev(1, 0x11, 1, 0x11, 0x01, 0x12, 0x06, 0);
    abbrev(2, 0x2e, 1, 0x03, 0x08, 0x11, 0x01, 0x12, 0x06, 0);
    abbrev(3, 0x1d, 0, 0x03, 0x08, 0x11, 0x01, 0x12, 0x06, 0x59, 0x0b, 0);
    abbrev(4, 0x48, 1, 0x01, 0x13, 0); /* call_site, sibling */
    put(ABBREV, 0, 1);
    unit_begin(1, 0);
    put(INFO, 1, 1);
    put_address(INFO, 0x1000);
    put(INFO, 0x1000, 4);
    put(INFO, 2, 1);
    put_string(INFO, "f");
    put_address(INFO, 0x1000);
    put(INFO, 0x100, 4);
    put(INFO, 4, 1);
    put(INFO, 11, 4); /* the root */
    put(INFO, 0, 1);
    for (unsigned i = 0; i < 2; i++) {
        put(INFO, 3, 1);
        put_string(INFO, i ? "second" : "first");
        put_address(INFO, 0x1010);
        put(INFO, 0x10 + 0x10 * i, 4);
        put(INFO, 5, 1);
    }
    put(INFO, 0, 2);
    unit_end();
    expect("a sibling that leads back is not followed", 0x1020, "f::second:0 f:5");
    expect("of two that hold an address at one depth the first counts", 0x1010, "f::first:0 f:5");

    begin(5, false, 8);
    abbrev(1, 0x4a, 1, 0x11, 0x01, 0x12, 0x06, 0x76, 0x08, 0);
    put(ABBREV, 0, 1);
    unit_begin(4, 0);
    put(INFO, 1, 1);
    put_address(INFO, 0x1000);
    put(INFO, 0x100, 4);
    put_string(INFO, "x.dwo");
    put(INFO, 0, 1);
    unit_end();
    put_aranges(0, 0x1000, 0x100);
    expect("a skeleton unit has no functions", 0x1010, "");
    check(last.split_units == 1, "a skeleton unit is counted once", "%u", last.split_units);
    expect("and one that is not asked", 0x5000, "");
    check(last.split_units == 0, "is not", "%u", last.split_units);
}

/* ---- depth and number ---- */

static void test_deep(void) {
    enum { BLOCKS = 100000, INLINED = 3000 };
    uint32_t frames;
    cprofi_dwarf d;
    cprofi_dwarf_want want = {0x1000, 0, 0, 0};
    cprofi_text text = {NULL, 0};
    begin(4, false, 8);
    abbrev(1, 0x11, 1, 0x11, 0x01, 0x12, 0x06, 0);
    abbrev(2, 0x2e, 1, 0x03, 0x08, 0x11, 0x01, 0x12, 0x06, 0);
    abbrev(3, 0x0b, 1, 0);
    abbrev(4, 0x1d, 1, 0x11, 0x01, 0x12, 0x06, 0x59, 0x0b, 0);
    put(ABBREV, 0, 1);
    unit_begin(1, 0);
    put(INFO, 1, 1);
    put_address(INFO, 0x1000);
    put(INFO, 0x100, 4);
    put(INFO, 2, 1);
    put_string(INFO, "f");
    put_address(INFO, 0x1000);
    put(INFO, 0x100, 4);
    for (unsigned i = 0; i < BLOCKS; i++) put(INFO, 3, 1);
    for (unsigned i = 0; i < INLINED; i++) {
        put(INFO, 4, 1);
        put_address(INFO, 0x1000);
        put(INFO, 0x80, 4);
        put(INFO, i & 0x7f, 1);
    }
    unit_end();
    d = made_dwarf();
    if (!cprofi_dwarf_lookup(&d, &want, 1, &text, &last)) abort();
    frames = want.count;
    check(frames == CPROFI_DWARF_CHAIN, "inlining deeper than any compiler's is cut", "%u frames",
          frames);
    check(want.count && last.frames[want.first + want.count - 1].function &&
              strcmp(last.frames[want.first + want.count - 1].function, "f") == 0,
          "the function around it stays", "another one");
    cprofi_dwarf_answer_free(&last);
    cprofi_text_free(&text);
    expect("behind a hundred thousand nested blocks", 0x10ff, "f:0");
}

/* Work that a file asks for without paying in bytes: it would take hours if it were all done. */
static void test_shared_list(void) {
    enum { FUNCTIONS = 20000, RANGES_EACH = 30000, FLAGS = 20000 };
    begin(4, false, 8);
    for (uint64_t i = 0; i < RANGES_EACH; i++) put_pair(RANGES, 0x10000 + 4 * i, 0x10002 + 4 * i);
    put_pair(RANGES, 0, 0);
    abbrev(1, 0x11, 1, 0x11, 0x01, 0x12, 0x06, 0);
    abbrev(2, 0x2e, 0, 0x55, 0x17, 0);
    put(ABBREV, 0, 1);
    unit_begin(1, 0);
    put(INFO, 1, 1);
    put_address(INFO, 0x1000);
    put(INFO, 0x1000, 4);
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        put(INFO, 2, 1);
        put_offset(INFO, 0);
    }
    unit_end();
    expect("many functions that share one long list of ranges", 0x1000, "");
    check(last.damaged_units == 1, "are given up as damage", "%u", last.damaged_units);

    begin(4, false, 8);
    abbrev(1, 0x11, 1, 0x11, 0x01, 0x12, 0x06, 0);
    put_uleb(ABBREV, 2);
    put_uleb(ABBREV, 0x2e);
    put(ABBREV, 0, 1);
    for (unsigned i = 0; i < FLAGS; i++) put(ABBREV, 0x1955, 2); /* DW_AT_ranges, flag_present */
    put(ABBREV, 0, 3);
    unit_begin(1, 0);
    put(INFO, 1, 1);
    put_address(INFO, 0x1000);
    put(INFO, 0x1000, 4);
    for (unsigned i = 0; i < 100 * FUNCTIONS; i++) put(INFO, 2, 1);
    unit_end();
    expect("many entries of many attributes without bytes", 0x1000, "");
    check(last.damaged_units == 1, "are given up too", "%u", last.damaged_units);
}

/* Everything cut off anywhere, and every byte changed: no crash is all that is asked. */
static void test_cut(void) {
    size_t answers = 0, cuts = 0;
    for (unsigned v = 2; v <= 5; v++) {
        begin(v, v == 4, 8);
        make_program(v & 1);
        for (unsigned s = 0; s < 2; s++) {
            const size_t size = made[s].size;
            for (size_t i = 0; i < size; i++, cuts++) {
                uint8_t *all = made[s].data, byte = all[i];
                made[s].data = (uint8_t *)malloc(i + 1); /* so that a read behind it is seen */
                if (!made[s].data) abort();
                memcpy(made[s].data, all, i);
                made[s].size = i;
                answers += *frames_of(0x1118) != 0;
                free(made[s].data);
                made[s].data = all;
                made[s].size = size;
                all[i] = (uint8_t)random_below(256);
                answers += *frames_of(0x1118) != 0;
                all[i] = byte;
            }
        }
    }
    check(answers > 0 && answers < 2 * cuts, "cut and damaged sections", "%zu answers of %zu",
          answers, 2 * cuts);
}

/* ---- compiled programs ---- */

static char scratch[200];

static void write_source(const char *name, const char *text) {
    char path[300];
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0) abort();
}

static const char source_c[] =
    "#include <stdio.h>\n#include <stdlib.h>\n"
    "static inline __attribute__((always_inline)) int third(int x) { return x * 3 + rand(); }\n"
    "static inline __attribute__((always_inline)) int second(int x) {\n"
    "  int s = 0;\n  for (int i = 0; i < x; i++)\n    s += third(i) ^\n      third(s);\n"
    "  return s;\n}\n"
    "static inline int first(int x) {\n  if (x > 3)\n    return second(x) +\n"
    "      second(x + 1);\n  return third(x);\n}\n"
    "int shared(int x);\n"
    "__attribute__((noinline)) static int cold(const char *s) { puts(s); abort(); }\n"
    "__attribute__((noinline)) int work(int x) {\n  if (x < 0) cold(\"negative\");\n"
    "  return first(x) +\n    first(x * 2) + shared(x);\n}\n"
    "int unused(int x) { return first(x) + 1; }\n"
    "int nested(int x) {\n"
    "#ifndef __clang__\n"
    "  __attribute__((noinline)) int inner(int y) { return y * x + third(y); }\n"
    "  return inner(x) + inner(x + 1);\n#else\n  return x;\n#endif\n}\n"
    "int main(int argc, char **argv) {\n  int t = 0;\n"
    "  for (int i = 0; i < argc + 5; i++) t += work(i) + nested(i);\n"
    "  printf(\"%d %s\\n\", t, argv[0]);\n  return 0;\n}\n";
static const char source_c2[] =
    "#include <stdlib.h>\n"
    "static inline int help(int x) { return x ? x / 3 + rand() : 7; }\n"
    "int shared(int x) {\n  int s = help(x);\n  switch (x) {\n  case 1: s += help(s); break;\n"
    "  case 2: s -= help(2); break;\n  default: for (; x > 0; x--) s += help(x);\n  }\n"
    "  return s;\n}\n";
static const char source_cpp[] =
    "#include <algorithm>\n#include <map>\n#include <string>\n#include <vector>\n"
    "#include <stdio.h>\n#include <stdlib.h>\n"
    "namespace outer {\nnamespace {\n"
    "struct Hidden { int v; __attribute__((noinline)) int twice() const { return v * rand(); } };\n"
    "static int helper(int x) { Hidden h; h.v = x; return h.twice() + h.twice(); }\n}\n"
    "template <class T> struct Box {\n  T t;\n  Box(T x) : t(x) {}\n"
    "  T get() { return t + (T)helper((int)t); }\n  ~Box() { puts(\"gone\"); }\n};\n"
    "int run(int n) { Box<int> b(n); Box<double> c(n); return b.get() + (int)c.get(); }\n}\n"
    "extern \"C\" int plain(int x) {\n  std::vector<int> v;\n"
    "  for (int i = 0; i < x; i++) v.push_back(rand());\n"
    "  std::sort(v.begin(), v.end(), [](int a, int b) { return a % 100 < b % 100; });\n"
    "  return v[0];\n}\n"
    "int main(int argc, char **argv) {\n  std::map<std::string, int> m;\n"
    "  for (int i = 0; i < argc; i++) m[argv[i]]++;\n"
    "  auto f = [&](int x) {\n    struct Local {\n"
    "      static __attribute__((noinline)) int go(int y) { return y + rand(); }\n    };\n"
    "    return Local::go(x) + (int)m.size();\n  };\n"
    "  try { printf(\"%d %d %d\\n\", outer::run(argc), plain(10), f(3)); }\n"
    "  catch (...) { puts(\"x\"); }\n  return 0;\n}\n";
static const char source_rust[] =
    "use std::collections::HashMap;\n"
    "mod inner {\n  pub struct S<T> { pub v: Vec<T> }\n"
    "  impl<T: Copy + std::ops::Add<Output = T>> S<T> {\n    pub fn sum(&self, z: T) -> T {\n"
    "      fn helper<U>(x: U) -> U { x }\n"
    "      self.v.iter().fold(helper(z), |a, b| a + *b)\n    }\n  }\n}\n"
    "fn main() {\n  let mut m: HashMap<String, usize> = HashMap::new();\n"
    "  for a in std::env::args() { *m.entry(a).or_insert(0) += 1; }\n"
    "  let s = inner::S { v: m.values().cloned().collect::<Vec<_>>() };\n"
    "  println!(\"{}\", s.sum(3));\n}\n";

/* The program that is looked at. */
static cprofi_source program;
static cprofi_dwarf dwarf;
static uint64_t text_start, text_size;

static bool program_open(const char *path) {
    static const char *const names[CPROFI_DWARF_SECTIONS] = {
        ".debug_info", ".debug_abbrev", ".debug_line", ".debug_str", ".debug_line_str",
        ".debug_str_offsets", ".debug_addr", ".debug_ranges", ".debug_rnglists", ".debug_aranges"};
    cprofi_elf elf;
    memset(&dwarf, 0, sizeof dwarf);
    text_size = 0;
    if (!cprofi_source_open(path, &program)) return false;
    if (cprofi_elf_open(&program, &elf)) {
        for (size_t i = 0; i < elf.section_count; i++) {
            cprofi_elf_section s = cprofi_elf_section_at(&elf, i);
            for (unsigned k = 0; k < CPROFI_DWARF_SECTIONS; k++)
                if (cprofi_elf_section_is(&elf, &s, names[k]))
                    dwarf.sections[k] = cprofi_source_part(&program, s.offset, s.size);
            if (!cprofi_elf_section_is(&elf, &s, ".text")) continue;
            text_start = s.address;
            text_size = s.size;
        }
        cprofi_elf_close(&elf);
    }
    if (dwarf.sections[INFO].size && text_size) return true;
    cprofi_source_close(&program);
    return false;
}

/* Removes "/./", "/x/../" and "//". */
static void normalise(char *path) {
    char out[4096], *to = out;
    if (path[0] != '/') return;
    for (const char *p = path; *p;) {
        size_t n = 1 + strcspn(p + 1, "/");
        if (n == 3 && p[1] == '.' && p[2] == '.') {
            while (to > out && *--to != '/') continue;
        } else if (n > 2 || (n == 2 && p[1] != '.')) {
            memcpy(to, p, n);
            to += n;
        }
        p += n;
    }
    *to = 0;
    strcpy(path, out);
}

/* llvm-symbolizer knows no scopes: of a name that is no linkage name it has the last part; and it
   has the linkage names of C, which end in what the compiler did to a copy of the function. */
static bool same_name(const cprofi_dwarf_frame *f, const char *his) {
    size_t mine_length, length = strlen(his);
    char cut[1024];
    if (!f->function) return strcmp(his, "??") == 0;
    if (strcmp(f->function, his) == 0) return true;
    snprintf(cut, sizeof cut, "%s", his);
    cprofi_name_cut(cut);
    if (!f->linkage && strcmp(f->function, cut) == 0) return true;
    mine_length = strlen(f->function);
    return !f->linkage && mine_length > length + 2 &&
           strcmp(f->function + mine_length - length, his) == 0 &&
           f->function[mine_length - length - 1] == ':';
}

static char difference[1000];

/* Reads the frames of one address from llvm-symbolizer, to the empty line behind them; true if they
   are the same. */
static bool same_frames(FILE *f, const cprofi_dwarf_want *want, const cprofi_dwarf_answer *answer) {
    static char name[100000], place[100000];
    bool same = true;
    uint32_t i = 0;
    while (fgets(name, sizeof name, f) && name[0] != '\n') {
        const cprofi_dwarf_frame *frame = &answer->frames[want->first + i];
        unsigned line;
        char *colon;
        if (!fgets(place, sizeof place, f)) return false;
        name[strcspn(name, "\n")] = 0;
        colon = strrchr(place, ':'); /* of the column */
        if (!colon) return false;
        *colon = 0;
        colon = strrchr(place, ':');
        if (!colon) return false;
        *colon = 0;
        line = (unsigned)strtoul(colon + 1, NULL, 10);
        if (!same) continue;
        if (i >= want->count) { /* his "??" or a symbol stands for my nothing */
            same = i == 0 && line == 0;
        } else {
            char path[4096] = "??";
            if (frame->file) snprintf(path, sizeof path, "%s", frame->file);
            normalise(path);
            normalise(place);
            same = same_name(frame, name) && frame->line == line &&
                   (strcmp(path, place) == 0 || (line == 0 && strcmp(place, "??") == 0));
            if (!same)
                snprintf(difference, sizeof difference, "0x%llx: %.200s %.200s:%u, not %.200s "
                         "%.200s:%u", (unsigned long long)want->address,
                         frame->function ? frame->function : "??", path, frame->line, name, place,
                         line);
        }
        i++;
    }
    if (same && want->count && i != want->count) same = false;
    if (!same && !difference[0])
        snprintf(difference, sizeof difference, "0x%llx: %u frames, not %u",
                 (unsigned long long)want->address, want->count, i);
    return same;
}

/* Compares many addresses of the program just built. */
static void compare(const char *name) {
    enum { MOST = 3000 };
    static cprofi_dwarf_want wants[MOST];
    char path[600];
    cprofi_text text = {NULL, 0};
    cprofi_dwarf_answer answer = {0};
    size_t n = 0, same = 0, framed = 0;
    FILE *f;
    difference[0] = 0;
    snprintf(path, sizeof path, "%s/program", scratch);
    /* Without symbols, which would stand in for names llvm-symbolizer does not find. */
    if (!run("objcopy -w --strip-symbol='*' %s 2>/dev/null", path) || !program_open(path)) {
        check(false, name, "no such program");
        return;
    }
    for (; n < MOST && n < text_size; n++) {
        memset(&wants[n], 0, sizeof wants[n]);
        wants[n].address = text_start + (text_size < MOST ? n : text_size / MOST * n + n % 7);
        if (n && wants[n].address <= wants[n - 1].address)
            wants[n].address = wants[n - 1].address + 1;
    }
    if (!cprofi_dwarf_lookup(&dwarf, wants, n, &text, &answer)) abort();
    snprintf(path, sizeof path, "%s/addresses", scratch);
    f = fopen(path, "w");
    if (!f) abort();
    for (size_t i = 0; i < n; i++) fprintf(f, "0x%llx\n", (unsigned long long)wants[i].address);
    fclose(f);
    snprintf(path, sizeof path,
             "llvm-symbolizer --inlines --no-demangle -e %s/program <%s/addresses", scratch,
             scratch);
    f = popen(path, "r");
    if (!f) abort();
    for (size_t i = 0; i < n; i++) {
        same += same_frames(f, &wants[i], &answer);
        framed += wants[i].count > 0;
    }
    pclose(f);
    check(same == n && framed > n / 20, name, "%zu of %zu agree, %zu with frames; %s", same, n,
          framed, difference);
    printf("# %s: %zu of %zu addresses agree, %zu known, %zu frames\n", name, same, n, framed,
           answer.count);
    cprofi_dwarf_answer_free(&answer);
    cprofi_text_free(&text);
    cprofi_source_close(&program);
}

/* Builds sources with a compiler and options; false after a skip. */
static bool build(const char *name, const char *compiler, const char *options) {
    char word[40];
    const bool cpp = strstr(compiler, "++") != NULL;
    const char *sources = strcmp(compiler, "rustc") == 0 ? "r.rs" : cpp ? "t.cpp" : "a.c b.c";
    snprintf(word, sizeof word, "%.*s", (int)strcspn(compiler, " "), compiler);
    if (!have(word)) {
        skip(name, "no such compiler here");
        return false;
    }
    if (run("cd %s && rm -f program && %s %s %s -o program >log 2>&1", scratch, compiler, options,
            sources))
        return true;
    skip(name, "this compiler has no such option here");
    return false;
}

static void test_compiled(void) {
    static const char *const compilers[] = {"gcc", "clang", "g++", "clang++"};
    static const struct {
        unsigned compilers; /* by bit */
        const char *options;
    } sets[] = {
        {15, "-O0 -gdwarf-4"}, {15, "-O0 -gdwarf-5"}, {15, "-O2 -gdwarf-2"}, {15, "-O2 -gdwarf-3"},
        {15, "-O2 -gdwarf-4"}, {15, "-O2 -gdwarf-5"}, {15, "-O3 -gdwarf-5"},
        {1, "-O2 -gdwarf-2 -gstrict-dwarf"}, {5, "-O2 -gdwarf-3 -gdwarf64"},
        {15, "-O2 -gdwarf-5 -gdwarf64"}, {5, "-O2 -gdwarf-4 -flto"}, {5, "-O2 -gdwarf-5 -flto"},
        {1, "-O2 -gdwarf-4 -flto -flto-partition=max"},
        {10, "-O2 -gdwarf-4 -flto -fuse-ld=lld"}, {10, "-O2 -gdwarf-5 -flto -fuse-ld=lld"},
        {15, "-O2 -gdwarf-4 -ffunction-sections -Wl,--gc-sections"},
        {15, "-O2 -gdwarf-5 -ffunction-sections -Wl,--gc-sections"},
        {10, "-O2 -gdwarf-5 -ffunction-sections -fuse-ld=lld -Wl,--gc-sections -Wl,--icf=all"},
        {12, "-O2 -gdwarf-4 -fdebug-types-section"}, {12, "-O2 -gdwarf-5 -fdebug-types-section"},
        {10, "-O2 -gdwarf-5 -gmlt"}, {8, "-O2 -gdwarf-5 -gsimple-template-names"}};
    char name[200];
    if (!have("llvm-symbolizer") || !have("objcopy")) {
        skip("compiled programs", "no llvm-symbolizer or objcopy to compare with (Debian: llvm)");
        return;
    }
    write_source("a.c", source_c);
    write_source("b.c", source_c2);
    write_source("t.cpp", source_cpp);
    write_source("r.rs", source_rust);
    for (size_t i = 0; i < CPROFI_COUNT(sets); i++) {
        for (unsigned c = 0; c < CPROFI_COUNT(compilers); c++) {
            if (!(sets[i].compilers >> c & 1)) continue;
            snprintf(name, sizeof name, "%s %s", compilers[c], sets[i].options);
            if (build(name, compilers[c], sets[i].options)) compare(name);
        }
    }
    for (unsigned optimised = 0; optimised < 2; optimised++) {
        snprintf(name, sizeof name, "rustc -g%s", optimised ? " -O" : "");
        if (build(name, "rustc", optimised ? "-g -O" : "-g")) compare(name);
    }
}

/* The names of the functions around all addresses of the program, one a line, once each. */
static bool program_has(const char *function) {
    cprofi_text text = {NULL, 0};
    cprofi_dwarf_answer answer = {0};
    bool found = false;
    cprofi_dwarf_want *wants =
        (cprofi_dwarf_want *)calloc((size_t)text_size + 1, sizeof *wants);
    if (!wants) abort();
    for (size_t i = 0; i < text_size; i++) wants[i].address = text_start + i;
    if (!cprofi_dwarf_lookup(&dwarf, wants, (size_t)text_size, &text, &answer)) abort();
    for (size_t i = 0; i < answer.count && !found; i++)
        found = answer.frames[i].function && strcmp(answer.frames[i].function, function) == 0;
    cprofi_dwarf_answer_free(&answer);
    cprofi_text_free(&text);
    free(wants);
    return found;
}

static void test_names(void) {
    static const char *const names[] = {
        "main", "plain", "_ZN5outer3runEi", "plain::{lambda}::operator()",
        "outer::(anonymous namespace)::helper", "outer::(anonymous namespace)::Hidden::twice",
        "main::{lambda}::operator()::Local::go"};
    char path[400], why[300];
    if (!build("names with their scopes", "g++", "-O1 -gdwarf-5")) return;
    snprintf(path, sizeof path, "%s/program", scratch);
    if (!program_open(path)) abort();
    why[0] = 0;
    for (size_t i = 0; i < CPROFI_COUNT(names); i++)
        if (!program_has(names[i])) snprintf(why, sizeof why, "no %s", names[i]);
    check(!why[0], "names with their scopes", "%s", why);
    cprofi_source_close(&program);
}

/* Where a function of the program begins; 0: it has none. */
static uint64_t program_function(const char *name) {
    char command[400];
    unsigned long long address = 0;
    FILE *f;
    snprintf(command, sizeof command, "nm %s/program | sed -n 's/ [tT] %s$//p'", scratch, name);
    f = popen(command, "r");
    if (!f || fscanf(f, "%llx", &address) != 1) address = 0;
    if (f) pclose(f);
    return address;
}

/* Code of the second unit is inlined from the first, and .debug_aranges has led to it: nobody has gone
   through the units before the name is looked for. */
static void test_first_unit(void) {
    static const char name[] = "a function inlined from the first unit, by way of .debug_aranges";
    cprofi_dwarf_want wants[16];
    cprofi_text text = {NULL, 0};
    cprofi_dwarf_answer answer = {0};
    uint64_t work;
    unsigned named = 0;
    char path[400];
    write_source("first.c", "#include <stdlib.h>\n"
                            "int shared(int x) { int s = 0; while (x--) s += rand() ^ x; return s; }\n"
                            "__attribute__((noinline)) int other(int x) { return x * rand(); }\n");
    write_source("second.c", "#include <stdlib.h>\nint shared(int), other(int);\n"
                             "__attribute__((noinline)) int work(int x) { return shared(x) * 3 + rand(); }\n"
                             "int main(int argc, char **argv) {\n"
                             "  (void)argv;\n  return work(argc) + other(argc);\n}\n");
    if (!have("clang") || !have("ld.lld") ||
        !run("cd %s && clang -O2 -gdwarf-4 -flto -fuse-ld=lld -Wl,-mllvm,-generate-arange-section "
             "first.c second.c -o program >log 2>&1", scratch)) {
        skip(name, "no clang with lld that has these options");
        return;
    }
    work = program_function("work");
    memset(wants, 0, sizeof wants);
    for (unsigned i = 0; i < CPROFI_COUNT(wants); i++) wants[i].address = work + i;
    snprintf(path, sizeof path, "%s/program", scratch);
    if (!program_open(path)) abort();
    if (!cprofi_dwarf_lookup(&dwarf, wants, CPROFI_COUNT(wants), &text, &answer)) abort();
    for (size_t i = 0; i < answer.count; i++)
        named += answer.frames[i].inlined && answer.frames[i].function &&
                 strcmp(answer.frames[i].function, "shared") == 0;
    check(dwarf.sections[CPROFI_DWARF_ARANGES].size && named, name, "%u of %zu frames have its name",
          named, answer.count);
    cprofi_dwarf_answer_free(&answer);
    cprofi_text_free(&text);
    cprofi_source_close(&program);
}

static void test_split(void) {
    static const char *const compilers[] = {"g++", "clang++"};
    for (unsigned i = 0; i < 4; i++) {
        char name[100], path[400];
        cprofi_text text = {NULL, 0};
        cprofi_dwarf_answer answer = {0};
        cprofi_dwarf_want want = {0, 0, 0, 0};
        snprintf(name, sizeof name, "%s -gdwarf-%u -gsplit-dwarf: counted, with file and line",
                 compilers[i & 1], 4 + i / 2);
        if (!build(name, compilers[i & 1], i / 2 ? "-O0 -gdwarf-5 -gsplit-dwarf"
                                                 : "-O0 -gdwarf-4 -gsplit-dwarf"))
            continue;
        snprintf(path, sizeof path, "%s/program", scratch);
        if (!program_open(path)) abort();
        want.address = program_function("plain");
        if (!cprofi_dwarf_lookup(&dwarf, &want, 1, &text, &answer)) abort();
        check(answer.split_units == 1 && want.count == 1 && !answer.frames[0].function &&
                  answer.frames[0].line == 20 && answer.frames[0].file &&
                  strstr(answer.frames[0].file, "t.cpp"),
              name, "%u units, %u frames, line %u", answer.split_units, want.count,
              want.count ? answer.frames[0].line : 0);
        cprofi_dwarf_answer_free(&answer);
        cprofi_text_free(&text);
        cprofi_source_close(&program);
    }
}

/* ---- damage ---- */

/* Changes some bytes of the sections, and looks up addresses of the whole text. */
static void test_fuzz(const char *name, const char *compiler, const char *options) {
    enum { WANTS = 200 };
    const char *rounds_text = getenv("CPROF_TEST_FUZZ");
    const size_t rounds = rounds_text ? strtoul(rounds_text, NULL, 10) : 50;
    char path[300];
    size_t sizes[CPROFI_DWARF_SECTIONS], answered = 0, damaged = 0;
    uint8_t *original[CPROFI_DWARF_SECTIONS], *copy[CPROFI_DWARF_SECTIONS];
    if (!build(name, compiler, options)) return;
    snprintf(path, sizeof path, "%s/program", scratch);
    if (!program_open(path)) abort();
    for (unsigned s = 0; s < CPROFI_DWARF_SECTIONS; s++) {
        sizes[s] = (size_t)dwarf.sections[s].size;
        original[s] = (uint8_t *)malloc(sizes[s] + 1);
        copy[s] = (uint8_t *)malloc(sizes[s] + 1);
        if (!original[s] || !copy[s] ||
            !cprofi_source_read(&dwarf.sections[s], 0, original[s], sizes[s]))
            abort();
    }
    for (size_t round = 0; round < rounds; round++) {
        cprofi_dwarf d;
        cprofi_dwarf_want wants[WANTS];
        cprofi_text text = {NULL, 0};
        cprofi_dwarf_answer answer = {0};
        const unsigned mostly = (unsigned)random_below(CPROFI_DWARF_SECTIONS);
        for (unsigned s = 0; s < CPROFI_DWARF_SECTIONS; s++) {
            const size_t changes = s == mostly || s < 2 ? random_below(12) : 0;
            cprofi_span span = {copy[s], sizes[s]};
            memcpy(copy[s], original[s], sizes[s]);
            for (size_t i = 0; i < changes && sizes[s]; i++) {
                size_t near = random_below(2) ? 400 : sizes[s];
                size_t at = random_below(near < sizes[s] ? near : sizes[s]);
                static const uint8_t bytes[] = {0, 1, 0x7f, 0x80, 0xff, 0x16, 0x21};
                copy[s][at] = random_below(2) ? bytes[random_below(sizeof bytes)]
                                              : (uint8_t)random_below(256);
            }
            if (random_below(40) == 0) span.size = random_below(sizes[s] + 1);
            d.sections[s] = cprofi_source_of(span);
        }
        for (size_t i = 0; i < WANTS; i++) {
            memset(&wants[i], 0, sizeof wants[i]);
            wants[i].address = text_start + text_size / WANTS * i;
        }
        if (!cprofi_dwarf_lookup(&d, wants, WANTS, &text, &answer)) abort();
        for (size_t i = 0; i < WANTS; i++) {
            if (wants[i].first + wants[i].count > answer.count) abort();
            answered += wants[i].count > 0;
        }
        damaged += answer.damaged_units > 0;
        cprofi_dwarf_answer_free(&answer);
        cprofi_text_free(&text);
    }
    for (unsigned s = 0; s < CPROFI_DWARF_SECTIONS; s++) {
        free(original[s]);
        free(copy[s]);
    }
    cprofi_source_close(&program);
    check(answered > 0 && (damaged > 0 || rounds < 50), name, "%zu answers, %zu damaged", answered,
          damaged);
    printf("# %s: %zu files, %zu with damaged units, %zu answers\n", name, rounds, damaged,
           answered);
}

int main(void) {
    const char *tmp = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_versions();
    test_ranges();
    test_forms();
    test_references(4);
    test_references(2);
    test_units();
    test_deep();
    test_shared_list();
    test_cut();
    snprintf(scratch, sizeof scratch, "%s/cprof-dwarf-XXXXXX", tmp);
    if (!mkdtemp(scratch)) {
        skip("compiled programs", "no directory for them");
    } else {
        test_compiled();
        test_names();
        test_first_unit();
        test_split();
        test_fuzz("damaged DWARF 5 of g++", "g++", "-O2 -gdwarf-5");
        test_fuzz("damaged DWARF 4 of g++", "g++", "-O1 -gdwarf-4 -ffunction-sections");
        test_fuzz("damaged DWARF 5 of clang", "clang++", "-O2 -gdwarf-5");
        test_fuzz("damaged link-time optimised DWARF", "gcc", "-O2 -gdwarf-4 -flto");
        run("rm -rf '%s'", scratch);
    }
    for (unsigned i = 0; i < CPROFI_DWARF_SECTIONS; i++) free(made[i].data);
    return failures != 0;
}
