/* The PE reader against images made here byte by byte, against binutils and llvm-readobj on files
   that the cross compilers make at run time, and on damaged input.

   Run:   cc -g -O1 -I. tests/unit/pe.c -o pe -lpthread && ./pe
   Best with -fsanitize=address,undefined. -DFUZZ_ROUNDS=n for a longer fuzz. */
#include "unit.h"

#ifndef FUZZ_ROUNDS
#define FUZZ_ROUNDS 20000
#endif

static char scratch[256];

/* ---- images made here ----

   Sections, each at RVA = file offset + 0x1000 so that one is not taken for the other: .text,
   .cold (code too), .rdata with everything the directories lead to, and more by add_section. */

enum {
    HEADERS = 0x80, TEXT = 0x1000, COLD = 0x2000, RDATA = 0x3000, RDATA_SIZE = 0x1000,
    /* RVAs in .rdata */
    PDATA = 0x3000, UNWIND = 0x3400, EXPORTS = 0x3800, CODEVIEW = 0x3c00,
    SYMBOLS = 0x3000 /* file offset */, IMAGE_SIZE = 0x5000
};

typedef struct {
    uint8_t *data;
    uint32_t machine;
    uint64_t base;
    size_t sections, symbols, entries, names, strings;
    char string_table[2048];
    size_t optional, table; /* where the headers are */
} image;

static void put(image *m, size_t at, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; i++) m->data[at + i] = (uint8_t)(value >> (8 * i));
}

/* At an RVA. */
static void put_rva(image *m, size_t rva, uint64_t value, size_t size) {
    put(m, rva - 0x1000, value, size);
}

static uint32_t put_string(image *m, const char *text) {
    size_t at = m->strings;
    memcpy(m->string_table + at, text, strlen(text) + 1);
    m->strings += strlen(text) + 1;
    return (uint32_t)at;
}

static size_t add_section(image *m, const char *name, uint32_t rva, uint32_t size, uint32_t offset,
                          uint32_t file_size, uint32_t flags) {
    size_t at = m->table + 40 * m->sections++;
    memcpy(m->data + at, name, strlen(name));
    put(m, at + 8, size, 4);
    put(m, at + 12, rva, 4);
    put(m, at + 16, file_size, 4);
    put(m, at + 20, offset, 4);
    put(m, at + 36, flags, 4);
    put(m, HEADERS + 6, m->sections, 2);
    return at;
}

static void directory(image *m, size_t i, uint32_t rva, uint32_t size) {
    put(m, m->optional + (m->machine == 0x14c ? 96 : 112) + 8 * i, rva, 4);
    put(m, m->optional + (m->machine == 0x14c ? 96 : 112) + 8 * i + 4, size, 4);
}

static image image_new(uint32_t machine) {
    image m;
    bool wide = machine != 0x14c;
    memset(&m, 0, sizeof m);
    m.data = (uint8_t *)calloc(1, IMAGE_SIZE);
    m.machine = machine;
    m.base = wide ? 0x7ff712340000u : 0x400000;
    m.strings = 4;
    m.optional = HEADERS + 24;
    m.table = m.optional + (wide ? 240 : 224);
    memcpy(m.data, "MZ", 2);
    put(&m, 60, HEADERS, 4);
    memcpy(m.data + HEADERS, "PE\0\0", 4);
    put(&m, HEADERS + 4, machine, 2);
    put(&m, HEADERS + 8, 0x65432100, 4);
    put(&m, HEADERS + 20, wide ? 240 : 224, 2);
    put(&m, m.optional, wide ? 0x20b : 0x10b, 2);
    put(&m, m.optional + 16, 0x1010, 4);
    put(&m, m.optional + (wide ? 24 : 28), m.base, wide ? 8 : 4);
    put(&m, m.optional + 56, 0x123000, 4);
    put(&m, m.optional + (wide ? 108 : 92), 16, 4);
    add_section(&m, ".text", TEXT, 0x800, 0x400, 0x800, 0x60000020);
    add_section(&m, ".cold", COLD, 0x200, 0x1000, 0x200, 0x60000020);
    add_section(&m, ".rdata", RDATA, RDATA_SIZE, RDATA - 0x1000, RDATA_SIZE, 0x40000040);
    return m;
}

static void add_symbol_raw(image *m, const char *name, uint32_t value, unsigned section,
                           unsigned type, unsigned class, unsigned aux) {
    size_t at = SYMBOLS + 18 * m->symbols;
    memset(m->data + at, 0, 18); /* an earlier string table may be there */
    if (strlen(name) <= 8) memcpy(m->data + at, name, strlen(name));
    else put(m, at + 4, put_string(m, name), 4);
    put(m, at + 8, value, 4);
    put(m, at + 12, section, 2);
    put(m, at + 14, type, 2);
    put(m, at + 16, class, 1);
    put(m, at + 17, aux, 1);
    m->symbols += 1 + aux;
}

/* A function in .text (1) or .cold (2), by RVA. */
static void add_function(image *m, const char *name, uint32_t rva) {
    unsigned section = rva >= COLD ? 2 : 1;
    add_symbol_raw(m, name, rva - (section == 2 ? COLD : TEXT), section, 0x20, 2, 0);
}

/* x64: begin, end, unwind information; ARM64: begin, second word. */
static void add_entry(image *m, uint32_t begin, uint32_t second, uint32_t third) {
    size_t size = m->machine == 0xaa64 ? 8 : 12, at = PDATA + size * m->entries++;
    put_rva(m, at, begin, 4);
    put_rva(m, at + 4, second, 4);
    if (size == 12) put_rva(m, at + 8, third, 4);
    directory(m, 3, PDATA, (uint32_t)(size * m->entries));
}

/* name NULL: an address without name. */
static void add_export(image *m, const char *name, uint32_t rva) {
    size_t functions = EXPORTS + 0x40, names = EXPORTS + 0x100, ordinals = EXPORTS + 0x180;
    size_t i = cprofi_get32(m->data + EXPORTS - 0x1000 + 20);
    size_t n = cprofi_get32(m->data + EXPORTS - 0x1000 + 24);
    directory(m, 0, EXPORTS, 0x400);
    put_rva(m, EXPORTS + 20, i + 1, 4);
    put_rva(m, EXPORTS + 28, functions, 4);
    put_rva(m, EXPORTS + 32, names, 4);
    put_rva(m, EXPORTS + 36, ordinals, 4);
    put_rva(m, functions + 4 * i, rva, 4);
    if (!name) return;
    put_rva(m, EXPORTS + 24, n + 1, 4);
    put_rva(m, names + 4 * n, EXPORTS + 0x200 + m->names, 4);
    put_rva(m, ordinals + 2 * n, i, 2);
    memcpy(m->data + EXPORTS - 0x1000 + 0x200 + m->names, name, strlen(name) + 1);
    m->names += strlen(name) + 1;
}

/* Writes the string table; the size of the file. */
static size_t image_end(image *m) {
    size_t at = SYMBOLS + 18 * m->symbols;
    put(m, HEADERS + 12, SYMBOLS, 4);
    put(m, HEADERS + 16, m->symbols, 4);
    put(m, at, m->strings, 4);
    memcpy(m->data + at + 4, m->string_table + 4, m->strings - 4);
    return at + m->strings;
}

static uint64_t reads; /* how often counting_read was called */

static bool counting_read(const cprofi_source *source, uint64_t offset, void *to, size_t size) {
    reads++;
    memcpy(to, source->memory.data + (size_t)offset, size);
    return true;
}

static cprofi_source source_of(const uint8_t *data, size_t size) {
    cprofi_span span = {data, size};
    cprofi_source source = cprofi_source_of(span);
    source.read = counting_read;
    return source;
}

/* "NAME+start" of one address, both numbers RVAs; "-" for no name, 0 for no start. */
static const char *told(image *m, uint32_t rva) {
    static char text[300];
    cprofi_source source = source_of(m->data, image_end(m));
    cprofi_text strings = {NULL, 0};
    cprofi_pe_want want;
    cprofi_pe pe;
    memset(&want, 0xaa, sizeof want);
    want.address = m->base + rva;
    want.index = 77;
    if (!cprofi_pe_open(&source, &pe)) return "(not opened)";
    if (!cprofi_pe_lookup(&pe, &want, 1, &strings)) return "(out of memory)";
    snprintf(text, sizeof text, "%s %llx", want.name ? want.name : "-",
             (unsigned long long)(want.start ? want.start - m->base : 0));
    cprofi_text_free(&strings);
    cprofi_pe_close(&pe);
    return text;
}

static void expect(image *m, const char *what, uint32_t rva, const char *wanted) {
    const char *got = told(m, rva);
    check(strcmp(got, wanted) == 0, what, "0x%x is \"%s\", not \"%s\"", rva, got, wanted);
}

static void test_headers(void) {
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const uint32_t machines[] = {0x8664, 0xaa64, 0x14c};
    for (size_t i = 0; i < 3; i++) {
        image m = image_new(machines[i]);
        cprofi_source source;
        cprofi_pe pe;
        cprofi_source part;
        char name[64], base64[16];
        size_t s;
        put_string(&m, "so many characters that what follows has two digits to base 64");
        snprintf(name, sizeof name, "/%u", (unsigned)put_string(&m, ".debug_str_offsets"));
        add_section(&m, name, 0x5000, 0x30, 0x2c00, 0x200, 0x42000040);
        s = put_string(&m, ".debug_line_str");
        snprintf(base64, sizeof base64, "//AAAA%c%c", (int)('A' + s / 64), digits[s % 64]);
        add_section(&m, base64, 0x6000, 0x300, 0x2e00, 0x200, 0x42000040);
        add_section(&m, "eight888", 0x7000, 0x300, 0x3c00, 0x200, 0x42000040);
        source = source_of(m.data, image_end(&m));
        check(cprofi_pe_open(&source, &pe), "the headers are read", "machine 0x%x", machines[i]);
        check(pe.machine == machines[i] && pe.wide == (i != 2) && pe.image_base == m.base &&
                  pe.size_of_image == 0x123000 && pe.entry == 0x1010 &&
                  pe.time_date_stamp == 0x65432100 && pe.section_count == 6,
              "what they say", "base 0x%llx", (unsigned long long)pe.image_base);
        part = cprofi_pe_content(&pe, 0x1210);
        check(part.size == 0x5f0 && part.base == 0x610, "an RVA becomes a file offset",
              "0x%llx bytes at 0x%llx", (unsigned long long)part.size,
              (unsigned long long)part.base);
        part = cprofi_pe_content(&pe, 0x61f0);
        check(part.size == 0x10 && part.base == 0x2ff0,
              "up to the end of what the file has of a section", "0x%llx bytes at 0x%llx",
              (unsigned long long)part.size, (unsigned long long)part.base);
        check(cprofi_pe_content(&pe, 0x5030).size == 0, "padding in the file is not loaded",
              "it is");
        check(cprofi_pe_content(&pe, 0x1800).size == 0 && cprofi_pe_content(&pe, 0xfff).size == 0 &&
                  cprofi_pe_content(&pe, 0x7000).size == 0,
              "no offset outside of the sections and of the file", "there is one");
        cprofi_pe_section_name(&pe, &pe.sections[3], name, sizeof name);
        check(!strcmp(name, ".debug_str_offsets"), "a long section name", "%s", name);
        cprofi_pe_section_name(&pe, &pe.sections[4], name, sizeof name);
        check(!strcmp(name, ".debug_line_str"), "a long section name in base 64", "%s", name);
        cprofi_pe_section_name(&pe, &pe.sections[5], name, sizeof name);
        check(!strcmp(name, "eight888"), "a section name of 8 characters", "%s", name);
        {
            cprofi_debug debug;
            cprofi_debug_result result = cprofi_pe_debug(&pe, &debug);
            const cprofi_source *offsets = &debug.dwarf.sections[CPROFI_DWARF_STR_OFFSETS];
            const cprofi_source *line = &debug.dwarf.sections[CPROFI_DWARF_LINE_STR];
            check(result == CPROFI_DEBUG_OK && offsets->base == 0x2c00 && offsets->size == 0x30 &&
                      line->base == 0x2e00 && line->size == 0x200,
                  "DWARF sections without the padding of the file", "%d, 0x%llx, 0x%llx",
                  (int)result, (unsigned long long)offsets->size, (unsigned long long)line->size);
            cprofi_debug_close(&debug);
        }
        cprofi_pe_close(&pe);
        put(&m, HEADERS + 4, 0x1c4, 2);
        check(!cprofi_pe_open(&source, &pe), "another machine is refused", "it is not");
        put(&m, HEADERS + 4, machines[i], 2);
        put(&m, m.optional, 0x107, 2);
        check(!cprofi_pe_open(&source, &pe), "a ROM image is refused", "it is not");
        free(m.data);
    }
}

static void test_codeview(void) {
    image m = image_new(0x8664);
    cprofi_source source;
    cprofi_pe pe;
    uint8_t guid[16];
    uint32_t age = 0;
    char path[64], small[8];
    bool found, again;
    directory(&m, 6, CODEVIEW, 28 * 3);
    put_rva(&m, CODEVIEW + 12, 16, 4);                /* /Brepro */
    put_rva(&m, CODEVIEW + 28 + 12, 2, 4);            /* an old CodeView record */
    put_rva(&m, CODEVIEW + 28 + 16, 0x40, 4);
    put_rva(&m, CODEVIEW + 28 + 24, CODEVIEW - 0x1000 + 0x100, 4);
    memcpy(m.data + CODEVIEW - 0x1000 + 0x100, "NB10", 4);
    put_rva(&m, CODEVIEW + 56 + 12, 2, 4);
    put_rva(&m, CODEVIEW + 56 + 16, 24 + 10, 4);
    put_rva(&m, CODEVIEW + 56 + 24, CODEVIEW - 0x1000 + 0x200, 4);
    memcpy(m.data + CODEVIEW - 0x1000 + 0x200, "RSDS0123456789abcdef\7\0\0\0c:\\x\\y.pdb", 34);
    source = source_of(m.data, image_end(&m));
    if (!cprofi_pe_open(&source, &pe)) abort();
    found = cprofi_pe_pdb(&pe, guid, &age, path, sizeof path);
    check(found && !memcmp(guid, "0123456789abcdef", 16) && age == 7 &&
              !strcmp(path, "c:\\x\\y.pdb"),
          "GUID, age and path of the PDB", "%d, age %u, %s", found, (unsigned)age, path);
    found = cprofi_pe_pdb(&pe, guid, &age, small, sizeof small);
    check(found && !strcmp(small, "c:\\x\\y."), "a path that does not fit is cut", "%s", small);
    put_rva(&m, CODEVIEW + 56 + 16, 23, 4);
    again = cprofi_pe_pdb(&pe, guid, &age, path, sizeof path);
    check(!again, "a record too short is none", "it is one");
    cprofi_pe_close(&pe);
    free(m.data);
}

/* Rules that do not depend on the machine; no exception directory. */
static void test_symbols(uint32_t machine) {
    image m = image_new(machine);
    const char *u = machine == 0x14c ? "_" : "";
    char name[64];
    add_symbol_raw(&m, ".file", 0, 0xfffe, 0, 103, 1);
    put(&m, SYMBOLS + 18, 0x20202020, 4); /* a file name that looks like a symbol */
    put(&m, SYMBOLS + 18 + 8, 0x40, 4);
    put(&m, SYMBOLS + 18 + 12, 0x200001, 4);
    put(&m, SYMBOLS + 18 + 16, 2, 1);
    snprintf(name, sizeof name, "%smain", u);
    add_function(&m, name, TEXT + 0x20);
    add_symbol_raw(&m, ".text", 0x20, 1, 0, 3, 1);
    add_symbol_raw(&m, ".l_start", 0x28, 1, 0, 6, 0);
    add_symbol_raw(&m, ".text", 0x2c, 1, 0, 3, 0);
    snprintf(name, sizeof name, "%sa_rather_long_name", u);
    add_function(&m, name, TEXT + 0x100);
    add_symbol_raw(&m, "object", 0x104, 3, 0, 2, 0);
    add_symbol_raw(&m, "absolute", 0x104, 0xffff, 0x20, 2, 0);
    add_symbol_raw(&m, "undef", 0x104, 0, 0x20, 2, 0);
    add_symbol_raw(&m, "beyond", 0x1010, 1, 0x20, 2, 0);
    add_symbol_raw(&m, "nosuch", 0x10, 99, 0x20, 2, 0);
    snprintf(name, sizeof name, "%slabel", u);
    add_symbol_raw(&m, name, 0x200, 1, 0, 2, 0);
    snprintf(name, sizeof name, "%stypedst", u);
    add_symbol_raw(&m, name, 0x200, 1, 0x20, 3, 0);
    snprintf(name, sizeof name, "%stypedex", u);
    add_symbol_raw(&m, name, 0x200, 1, 0x20, 2, 1);
    snprintf(name, sizeof name, "%ssecond", u);
    add_function(&m, name, TEXT + 0x200);
    snprintf(name, sizeof name, ".weak.%sweak1.main", u);
    add_symbol_raw(&m, name, 0x300, 1, 0, 2, 0);
    snprintf(name, sizeof name, ".weak.%sweak2.default.main.x", u);
    add_symbol_raw(&m, name, 0x340, 1, 0x20, 2, 0);
    add_symbol_raw(&m, ".text.startup", 0x34, 1, 0, 3, 1);
    snprintf(name, sizeof name, "%slate", u);
    add_symbol_raw(&m, name, 0x700, 1, 0, 2, 0);
    snprintf(name, sizeof name, "%searlier", u);
    add_function(&m, name, TEXT + 0x680);
    snprintf(name, sizeof name, "%ssplit.part.0.cold", u);
    add_symbol_raw(&m, name, 0x40, 2, 0x20, 3, 0);
    expect(&m, "before the first symbol", TEXT + 0x1f, "- 0");
    expect(&m, "a symbol covers its first byte", TEXT + 0x20, "main 1020");
    expect(&m, "labels, section symbols and auxiliary records name nothing", TEXT + 0x50,
           "main 1020");
    expect(&m, "up to the next symbol", TEXT + 0xff, "main 1020");
    expect(&m, "a long name; symbols elsewhere do not count", TEXT + 0x180,
           "a_rather_long_name 1100");
    expect(&m, "external function before static before label, first before second", TEXT + 0x240,
           "typedex 1200");
    expect(&m, "a weak function of gas", TEXT + 0x33f, "weak1 1300");
    expect(&m, "a weak function of LLVM", TEXT + 0x340, "weak2 1340");
    expect(&m, "the nearest, up to the end of the section", TEXT + 0x7ff, "late 1700");
    expect(&m, "not beyond the section", TEXT + 0x800, "- 0");
    expect(&m, "nor into the next", COLD + 0x3f, "- 0");
    expect(&m, "another section, suffixes stay", COLD + 0x41, "split.part.0.cold 2040");
    expect(&m, "data has no function name", RDATA + 0x200, "- 0");
    expect(&m, "far outside", 0xfffffff0, "- 0");
    free(m.data);
}

static void test_i386_names(void) {
    static const char *const names[][2] = {
        {"_plain", "plain"}, {"__two", "_two"}, {"_std@12", "std"}, {"@fast@8", "fast"},
        {"vector@@16", "vector"}, {"__ZN2ns1fEi", "_ZN2ns1fEi"}, {"?f@@YAXH@Z", "?f@@YAXH@Z"},
        {"_at@", "at@"}, {"_at@1x", "at@1x"}, {"@", "@"}, {"_", "-"}, {"nothing", "nothing"}};
    image m = image_new(0x14c), x64 = image_new(0x8664);
    char wanted[64];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        uint32_t at = TEXT + 0x20 * (uint32_t)i;
        add_function(&m, names[i][0], at);
        snprintf(wanted, sizeof wanted, "%s %x", names[i][1], at);
        expect(&m, "i386: decoration is taken off", at, wanted);
        add_function(&x64, names[i][0], at);
        snprintf(wanted, sizeof wanted, "%s %x", names[i][0], at);
        expect(&x64, "x64: there is none", at, wanted);
    }
    free(m.data);
    free(x64.data);
}

/* Without symbols, and with some that the exports do not replace. */
static void test_exports(void) {
    image m = image_new(0x14c);
    add_export(&m, "_first", TEXT + 0x10);
    add_export(&m, NULL, TEXT + 0x20);
    add_export(&m, "second@4", TEXT + 0x40);
    add_export(&m, "forwarded", EXPORTS + 0x300);
    add_export(&m, "data", RDATA + 0x10);
    expect(&m, "an export names; its underscore is its own", TEXT + 0x18, "_first 1010");
    expect(&m, "a decorated export", TEXT + 0x60, "second 1040");
    expect(&m, "exported data names no code", COLD, "- 0");
    put(&m, m.table + 80 + 36, 0x60000020, 4); /* .rdata merged with code */
    expect(&m, "a forwarded export is not here", EXPORTS + 0x304, "data 3010");
    add_symbol_raw(&m, "_symbol@4", 0x40, 1, 0, 3, 0);
    expect(&m, "a symbol of COFF comes before an export", TEXT + 0x60, "symbol 1040");
    add_entry(&m, TEXT + 0x50, 1 | 0x20 << 2, 0);
    expect(&m, "i386 has no exception directory", TEXT + 0x60, "symbol 1040");
    put_rva(&m, EXPORTS + 0x180, 5, 2);
    put_rva(&m, EXPORTS + 0x40 + 4 * 5, TEXT + 0x10, 4);
    expect(&m, "an ordinal out of range", TEXT + 0x18, "- 0");
    free(m.data);
}

/* Several addresses at once, of which the chains change the order. */
static void test_together(image *m) {
    static const uint32_t at[5] = {COLD + 0x48, TEXT + 0x40, COLD + 0x1f, TEXT + 0xb9, TEXT + 0x11};
    static const char *const names[5] = {"entry", "asm", "entry", "leaf", "entry"};
    cprofi_source source = source_of(m->data, image_end(m));
    cprofi_text text = {NULL, 0};
    cprofi_pe_want wants[5];
    cprofi_pe pe;
    size_t wrong = 0;
    for (uint32_t i = 0; i < 5; i++) {
        wants[i].address = m->base + at[i];
        wants[i].index = i;
    }
    if (!cprofi_pe_open(&source, &pe) || !cprofi_pe_lookup(&pe, wants, 5, &text)) abort();
    for (uint32_t i = 0; i < 5; i++)
        wrong += wants[i].index != i || wants[i].address != m->base + at[i] || !wants[i].name ||
                 strcmp(wants[i].name, names[i]) != 0;
    check(!wrong, "pieces and functions asked for together", "%zu wrong", wrong);
    check(wants[0].name == wants[2].name && wants[0].name == wants[4].name,
          "a name is kept once", "it is kept again");
    cprofi_text_free(&text);
    cprofi_pe_close(&pe);
}

static void test_x64(void) {
    image m = image_new(0x8664);
    add_function(&m, "entry", TEXT + 0x10);
    add_function(&m, "inside", TEXT + 0x18);
    add_symbol_raw(&m, "asm", 0x40, 1, 0, 2, 0);
    add_function(&m, "not_here", TEXT + 0x88);
    add_function(&m, "leaf", TEXT + 0xb8);
    add_function(&m, "leaf2", TEXT + 0xc0);
    add_entry(&m, TEXT + 0x10, TEXT + 0x40, UNWIND);
    add_entry(&m, TEXT + 0x40, TEXT + 0x60, UNWIND);
    add_entry(&m, TEXT + 0x80, TEXT + 0xb0, UNWIND);
    add_entry(&m, TEXT + 0x100, TEXT + 0x120, UNWIND);
    put_rva(&m, UNWIND, 1, 1); /* version 1, no flags, no codes */
    expect(&m, "a function from the directory", TEXT + 0x10, "entry 1010");
    expect(&m, "an entry point inside does not split it", TEXT + 0x3f, "entry 1010");
    expect(&m, "assembly without type, with an entry", TEXT + 0x5f, "asm 1040");
    expect(&m, "the end is the end", TEXT + 0x60, "- 0");
    expect(&m, "no symbol at the start: no name but a start", TEXT + 0x90, "- 1080");
    expect(&m, "a symbol before the end of an entry does not name what is behind it", TEXT + 0xb0,
           "- 0");
    expect(&m, "a leaf function", TEXT + 0xb9, "leaf 10b8");
    expect(&m, "up to the next", TEXT + 0xc0, "leaf2 10c0");
    expect(&m, "up to the next entry", TEXT + 0xff, "leaf2 10c0");
    expect(&m, "not into it", TEXT + 0x100, "- 1100");
    add_entry(&m, TEXT + 0x780, COLD + 0x20, UNWIND);
    expect(&m, "a section of its own", COLD + 0x10, "- 0");
    /* .cold: pieces of `entry` (chained twice, with an odd number of codes), of a function without
       symbol, and by a reference to an entry. */
    add_entry(&m, COLD + 0x00, COLD + 0x20, UNWIND + 0x20);
    add_entry(&m, COLD + 0x20, COLD + 0x40, UNWIND + 0x40);
    add_entry(&m, COLD + 0x40, COLD + 0x60, (PDATA + 5 * 12) | 1);
    add_entry(&m, COLD + 0x60, COLD + 0x80, UNWIND + 0x80);
    put_rva(&m, UNWIND + 0x20, 4 << 3 | 1, 1);
    put_rva(&m, UNWIND + 0x20 + 2, 3, 1);
    put_rva(&m, UNWIND + 0x20 + 4 + 8, TEXT + 0x300, 4);
    put_rva(&m, UNWIND + 0x20 + 4 + 16, UNWIND + 0x60, 4);
    put_rva(&m, UNWIND + 0x60, 4 << 3 | 2, 1);
    put_rva(&m, UNWIND + 0x60 + 4, TEXT + 0x10, 4);
    put_rva(&m, UNWIND + 0x60 + 12, UNWIND, 4);
    put_rva(&m, UNWIND + 0x40, 4 << 3 | 1, 1);
    put_rva(&m, UNWIND + 0x40 + 4, TEXT + 0x80, 4);
    put_rva(&m, UNWIND + 0x40 + 12, UNWIND, 4);
    put_rva(&m, UNWIND + 0x80, 4 << 3 | 1, 1); /* a circle */
    put_rva(&m, UNWIND + 0x80 + 4, TEXT + 0x10, 4);
    put_rva(&m, UNWIND + 0x80 + 12, UNWIND + 0x80, 4);
    expect(&m, "a piece belongs to the function its chain leads to", COLD + 0x1f, "entry 1010");
    expect(&m, "even if that has no name", COLD + 0x20, "- 1080");
    expect(&m, "an entry that refers to another", COLD + 0x48, "entry 1010");
    expect(&m, "a circle of chains ends", COLD + 0x60, "- 2060");
    test_together(&m);
    put_rva(&m, UNWIND + 0x80 + 12, 0x8000000, 4);
    expect(&m, "a chain that leads out of the file ends", COLD + 0x60, "entry 1010");
    free(m.data);
}

static void test_arm64(void) {
    image m = image_new(0xaa64);
    add_function(&m, "packed", TEXT + 0x10);
    add_function(&m, "fragment", TEXT + 0x60);
    add_function(&m, "inside", TEXT + 0x64);
    add_function(&m, "xdata", TEXT + 0x100);
    add_entry(&m, TEXT + 0x10, 1 | 5 << 2 | 0x7fu << 13, 0);
    add_entry(&m, TEXT + 0x60, 2 | 0x11 << 2, 0);
    add_entry(&m, TEXT + 0x100, UNWIND, 0);
    add_entry(&m, TEXT + 0x400, UNWIND + 0x100000, 0);
    add_function(&m, "large", TEXT + 0x500);
    add_entry(&m, TEXT + 0x500, 1 | 0x405 << 2, 0);
    put_rva(&m, UNWIND, 0x20 | 0x3fffu << 18, 4);
    expect(&m, "packed length of 11 bits", TEXT + 0x7ff, "large 1500");
    expect(&m, "packed unwind data", TEXT + 0x10, "packed 1010");
    expect(&m, "its last byte", TEXT + 0x23, "packed 1010");
    expect(&m, "its end", TEXT + 0x24, "- 0");
    expect(&m, "packed fragment", TEXT + 0x60 + 0x43, "fragment 1060");
    expect(&m, "its end; the symbol inside is not behind it", TEXT + 0x60 + 0x44, "- 0");
    expect(&m, "length in .xdata", TEXT + 0x17f, "xdata 1100");
    expect(&m, "and its end", TEXT + 0x180, "- 0");
    expect(&m, ".xdata that is not there", TEXT + 0x404, "- 0");
    free(m.data);
}

/* ---- real files ---- */

typedef struct {
    uint64_t value, end; /* end: of entries of the exception directory */
    char name[1000];
} record;

typedef struct {
    record *list;
    size_t count, capacity;
} records;

static void keep(records *r, uint64_t value, uint64_t end, const char *name) {
    if (r->count == r->capacity) {
        r->capacity = r->capacity ? 2 * r->capacity : 256;
        r->list = (record *)realloc(r->list, r->capacity * sizeof *r->list);
        if (!r->list) abort();
    }
    r->list[r->count].value = value;
    r->list[r->count].end = end;
    snprintf(r->list[r->count++].name, sizeof r->list->name, "%s", name);
}

static int compare_records(const void *a, const void *b) {
    const record *x = (const record *)a, *y = (const record *)b;
    return x->value < y->value ? -1 : x->value > y->value;
}

static FILE *tool(const char *format, ...) {
    char command[1024];
    FILE *f;
    va_list list;
    va_start(list, format);
    vsnprintf(command, sizeof command, format, list);
    va_end(list);
    f = popen(command, "r");
    if (!f) abort();
    return f;
}

/* Code sections as [value, end), entries of .pdata, symbols, and the exports by name. */
static void binutils(const char *prefix, const char *path, records *code, records *pdata,
                     records *symbols, records *sections) {
    char line[2048], name[1000], type;
    unsigned long long a, b, c, base = 0;
    records exported = {NULL, 0, 0};
    FILE *f = tool("%s-objdump -h '%s'", prefix, path);
    while (fgets(line, sizeof line, f)) {
        unsigned i;
        unsigned long long lma, offset;
        if (sscanf(line, " %u %999s %llx %llx %llx %llx", &i, name, &a, &b, &lma, &offset) == 6) {
            keep(sections, offset, offset + a, name);
            if (fgets(line, sizeof line, f) && strstr(line, "CODE")) keep(code, b, b + a, name);
        }
    }
    pclose(f);
    f = tool("%s-objdump -p '%s'", prefix, path);
    for (bool names = false; fgets(line, sizeof line, f);) {
        unsigned i, n;
        if (sscanf(line, "ImageBase %llx", &base) == 1) continue;
        if (sscanf(line, " %llx: %llx %llx %llx", &a, &b, &c, &a) == 4 && strchr(line, ':'))
            keep(pdata, b, c, "");
        if (strstr(line, "[Ordinal/Name Pointer]")) names = true;
        if (sscanf(line, " [%u] +base[%u] %llx Export RVA", &i, &n, &a) == 3)
            keep(&exported, a + base, i, "");
        if (names && sscanf(line, " [%u] %999s", &i, name) == 2)
            for (size_t e = 0; e < exported.count; e++)
                if (exported.list[e].end == i) keep(symbols, exported.list[e].value, 0, name);
    }
    pclose(f);
    free(exported.list);
    f = tool("%s-nm -n '%s' 2>/dev/null", prefix, path);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "%llx %c %999s", &a, &type, name) == 3 && strchr("tT", type) &&
            (name[0] != '.' || strncmp(name, ".weak.", 6) == 0))
            keep(symbols, a, 0, name);
    pclose(f);
    if (symbols->count) qsort(symbols->list, symbols->count, sizeof(record), compare_records);
    if (pdata->count) qsort(pdata->list, pdata->count, sizeof(record), compare_records);
}

/* Whether a name is one binutils has at a value; i386: after taking off the decoration. */
static bool named(const records *symbols, size_t last, const char *name, bool decorated) {
    uint64_t value = symbols->list[last].value;
    for (size_t i = last + 1; i-- > 0 && symbols->list[i].value == value;) {
        const char *full = symbols->list[i].name;
        char weak[1010];
        size_t length = strlen(name);
        if (strcmp(full, name) == 0) return true;
        if (decorated && (*full == '_' || *full == '@') && !strncmp(full + 1, name, length) &&
            (!full[1 + length] || full[1 + length] == '@'))
            return true;
        if (decorated && !strncmp(full, name, length) && full[length] == '@') return true;
        snprintf(weak, sizeof weak, ".weak.%s%s.", decorated ? "_" : "", name);
        if (!strncmp(full, weak, strlen(weak))) return true;
    }
    return false;
}

/* Every byte of every code section. At least `least` functions are to have a name. */
static void compare_all(const char *what, const char *prefix, const char *path, size_t least) {
    records code = {NULL, 0, 0}, pdata = {NULL, 0, 0}, symbols = {NULL, 0, 0}, all = {NULL, 0, 0};
    size_t n = 0, wrong = 0, name_count = 0, s = 0, p = 0, at = 0, starts = 0;
    cprofi_source source;
    cprofi_text text = {NULL, 0};
    cprofi_pe_want *wants;
    cprofi_pe pe;
    char first[300] = "";
    binutils(prefix, path, &code, &pdata, &symbols, &all);
    if (!cprofi_source_open(path, &source) || !cprofi_pe_open(&source, &pe)) {
        check(false, what, "not opened");
        return;
    }
    for (size_t i = 0; i < code.count; i++) n += (size_t)(code.list[i].end - code.list[i].value);
    wants = (cprofi_pe_want *)calloc(n + 1, sizeof *wants);
    if (!wants) abort();
    for (size_t i = 0; i < code.count; i++)
        for (uint64_t a = code.list[i].value; a < code.list[i].end; a++) wants[at++].address = a;
    if (!cprofi_pe_lookup(&pe, wants, n, &text)) abort();
    at = 0;
    for (size_t i = 0; i < code.count; i++) {
        for (uint64_t a = code.list[i].value; a < code.list[i].end; a++, at++) {
            uint64_t floor = code.list[i].value, key = a, start = 0;
            bool symbol, good;
            while (p < pdata.count && pdata.list[p].value <= a) p++;
            if (p && pdata.list[p - 1].end > a) floor = key = start = pdata.list[p - 1].value;
            else if (p && pdata.list[p - 1].end > floor) floor = pdata.list[p - 1].end;
            while (s < symbols.count && symbols.list[s].value <= key) s++;
            symbol = s && symbols.list[s - 1].value >= floor;
            if (symbol) start = symbols.list[s - 1].value;
            good = symbol ? wants[at].name && named(&symbols, s - 1, wants[at].name, !pe.wide)
                          : !wants[at].name;
            if (!good || wants[at].start != start) {
                if (!wrong++)
                    snprintf(first, sizeof first, "0x%llx is %.80s+0x%llx, not %.80s+0x%llx",
                             (unsigned long long)a, wants[at].name ? wants[at].name : "-",
                             (unsigned long long)wants[at].start,
                             symbol ? symbols.list[s - 1].name : "-", (unsigned long long)start);
            }
            starts += wants[at].start == a;
            name_count += wants[at].start == a && wants[at].name;
        }
    }
    printf("# %s: %zu bytes of code, %zu functions, %zu named, %zu entries of .pdata\n", what, n,
           starts, name_count, pdata.count);
    check(!wrong && name_count >= least, what, "%zu of %zu bytes wrong, first %s; %zu names", wrong,
          n, first, name_count);
    for (size_t i = 0; i < all.count; i++) { /* .debug_info as binutils finds it */
        cprofi_debug debug;
        cprofi_debug_result result;
        const cprofi_source *info = &debug.dwarf.sections[CPROFI_DWARF_INFO];
        if (strcmp(all.list[i].name, ".debug_info") != 0) continue;
        result = cprofi_pe_debug(&pe, &debug);
        check(result == CPROFI_DEBUG_OK && info->base == all.list[i].value &&
                  info->size == all.list[i].end - all.list[i].value,
              ".debug_info is where objdump finds it", "%s: 0x%llx bytes at 0x%llx", what,
              (unsigned long long)info->size, (unsigned long long)info->base);
        cprofi_debug_close(&debug);
    }
    cprofi_text_free(&text);
    cprofi_pe_close(&pe);
    cprofi_source_close(&source);
    free(wants);
    free(code.list);
    free(pdata.list);
    free(symbols.list);
    free(all.list);
}

static void write_text(const char *name, const char *text) {
    char path[512];
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    f = fopen(path, "w");
    if (!f) abort();
    fputs(text, f);
    fclose(f);
}

static void write_sources(void) {
    write_text("a.c",
               "#include <stdio.h>\n#include <stdlib.h>\n"
               "#define N __attribute__((noinline))\n"
               "static N int local(int a) { return a * 3 + 1; }\n"
               "N int leaf_function_with_a_long_name(int a) { return a ^ 77; }\n"
               "__attribute__((weak)) N int weak_function(int a) { return a + local(a); }\n"
               "N __attribute__((cold)) int rare(int a) { if (a == 5) abort(); return a / 3; }\n"
               "N int work(int a) {\n"
               "    char b[9000];\n"
               "    sprintf(b, \"%d\", a);\n"
               "    if (__builtin_expect(a == 17, 0)) { puts(b); rare(a); abort(); }\n"
               "    return b[0] + local(a) + weak_function(a);\n"
               "}\n"
               "int main(int c, char **v) { (void)v;"
               " printf(\"%d\\n\", work(c) + leaf_function_with_a_long_name(c)); return 0; }\n");
    write_text("b.cc",
               "#include <map>\n#include <stdexcept>\n#include <string>\n#include <cstdio>\n"
               "namespace ns {\n"
               "struct base { virtual ~base() {} virtual int f(int) = 0; };\n"
               "template <class T> struct derived : base { T t; int f(int a) override\n"
               "    { if (a > 7) throw std::runtime_error(\"x\"); return a + (int)sizeof t; } };\n"
               "}\n"
               "int main(int c, char **) {\n"
               "    std::map<std::string, int> m;\n"
               "    ns::derived<long> d; ns::base *b = &d;\n"
               "    try { for (int i = 0; i < c; i++) m[std::to_string(i)] = b->f(i); }\n"
               "    catch (std::exception &e) { puts(e.what()); }\n"
               "    return (int)m.size();\n"
               "}\n");
    write_text("d.c",
               "#include <stdlib.h>\n"
               "#define E __declspec(dllexport)\n#define N __attribute__((noinline))\n"
               "static N int local(int a) { return abs(a) * 3; }\n"
               "N int hidden(int a) { char b[100]; for (int i = 0; i < 100; i++) b[i] = (char)i;\n"
               "    return b[a % 100] + local(a); }\n"
               "E int exported_plain(int a) { return hidden(a) + hidden(a + 1); }\n"
               "E int exported_variable = 3;\n"
               "E int __stdcall exported_stdcall(int a) { return hidden(a); }\n"
               "E int __fastcall exported_fastcall(int a) { return hidden(a); }\n"
               "E int exported_leaf(int a) { return a ^ 5; }\n");
}

static void test_mingw(const char *arch) {
    static const struct {
        const char *what, *compiler, *arguments;
        size_t names, names_i386;
    } cases[] = {
        {"C, -O2", "gcc", "-g -O2 a.c", 60, 60},
        {"C, -O0", "gcc", "-g -O0 a.c", 60, 60},
        {"C, stripped", "gcc", "-O2 -s a.c", 0, 0},
        {"C++", "g++", "-g -O2 -static b.cc", 500, 500},
        {"a library", "gcc", "-g -O2 -shared d.c", 30, 30},
        {"a stripped library", "gcc", "-O2 -s -shared d.c", 4, 4},
    };
    char prefix[64], what[128], path[512];
    snprintf(prefix, sizeof prefix, "%s-w64-mingw32", arch);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[100];
        snprintf(what, sizeof what, "every byte as nm and .pdata say: %s, %s", arch, cases[i].what);
        snprintf(name, sizeof name, "%s-%s", prefix, cases[i].compiler);
        if (!have(name)) {
            snprintf(path, sizeof path, "no %s", name);
            skip(what, path);
            continue;
        }
        snprintf(path, sizeof path, "%s/%s-%zu.exe", scratch, arch, i);
        if (!run("cd '%s' && %s %s -o '%s' 2>/dev/null", scratch, name, cases[i].arguments, path))
            check(false, what, "the compiler fails");
        else
            compare_all(what, prefix, path, arch[0] == 'i' ? cases[i].names_i386 : cases[i].names);
    }
}

/* The 32 hexadecimal digits after PDBGUID, in the order of the file. */
static bool llvm_guid(const char *line, uint8_t guid[16]) {
    static const int mixed[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    const char *at = strstr(line, "PDBGUID:");
    uint8_t raw[16];
    bool text;
    if (!at) return false;
    at += 8;
    text = strchr(at, '{') != NULL;
    for (int i = 0; i < 16; i++) {
        unsigned v;
        at += strcspn(at, "0123456789abcdefABCDEF");
        if (sscanf(at, "%2x", &v) != 1) return false;
        raw[i] = (uint8_t)v;
        at += 2;
    }
    for (int i = 0; i < 16; i++) guid[i] = raw[text ? mixed[i] : i];
    return true;
}

static void test_guid(const char *what, const char *path) {
    char line[1024], named_path[1024] = "", ours[1024] = "";
    uint8_t wanted[16], guid[16];
    unsigned wanted_age = 0;
    uint32_t age = 0;
    bool known = false, found = false;
    cprofi_source source;
    cprofi_pe pe;
    FILE *f = tool("llvm-readobj --coff-debug-directory '%s'", path);
    while (fgets(line, sizeof line, f)) {
        known = llvm_guid(line, wanted) || known;
        sscanf(line, " PDBAge: %u", &wanted_age);
        sscanf(line, " PDBFileName: %1023[^\n]", named_path);
    }
    pclose(f);
    if (cprofi_source_open(path, &source)) {
        if (cprofi_pe_open(&source, &pe)) {
            found = cprofi_pe_pdb(&pe, guid, &age, ours, sizeof ours);
            cprofi_pe_close(&pe);
        }
        cprofi_source_close(&source);
    }
    check(known && found && !memcmp(guid, wanted, 16) && age == wanted_age &&
              !strcmp(named_path, ours),
          what, "known %d, found %d, age %u, path %s, not %s", known, found, (unsigned)age, ours,
          named_path);
}

static void test_lld(void) {
    static const char *const build =
        "cd '%s' && clang --target=x86_64-w64-mingw32 -fuse-ld=lld "
        "-L$(dirname $(x86_64-w64-mingw32-gcc -print-libgcc-file-name)) %s >/dev/null 2>&1";
    char path[512];
    if (!have("clang") || !have("ld.lld") || !have("x86_64-w64-mingw32-gcc")) {
        skip("images linked by lld", "no clang, lld or x86_64-w64-mingw32-gcc");
        return;
    }
    snprintf(path, sizeof path, "%s/lld.exe", scratch);
    if (!run(build, scratch, "-g -O2 a.c -o lld.exe"))
        skip("images linked by lld", "clang does not link for Windows here");
    else
        compare_all("every byte as nm and .pdata say: lld", "x86_64-w64-mingw32", path, 50);
    if (!have("llvm-readobj")) {
        skip("the GUID llvm-readobj tells", "no llvm-readobj");
        return;
    }
    if (run(build, scratch, "-g -gcodeview -Wl,--pdb=lld.pdb a.c -o pdb.exe")) {
        snprintf(path, sizeof path, "%s/pdb.exe", scratch);
        test_guid("the GUID llvm-readobj tells: lld's PDB", path);
    } else skip("the GUID llvm-readobj tells: lld's PDB", "lld makes none");
    if (run("cd '%s' && x86_64-w64-mingw32-gcc -Wl,--build-id a.c -o id.exe", scratch)) {
        snprintf(path, sizeof path, "%s/id.exe", scratch);
        test_guid("the GUID llvm-readobj tells: the build id of ld", path);
    } else skip("the GUID llvm-readobj tells: the build id of ld", "ld makes none");
}

/* ---- damaged input ---- */

/* Everything the reader does; the number of names. */
static size_t use(const uint8_t *data, size_t size, uint64_t base) {
    uint8_t *exact = (uint8_t *)malloc(size ? size : 1), guid[16];
    cprofi_source source;
    cprofi_pe pe;
    size_t names = 0;
    memcpy(exact, data, size);
    source = source_of(exact, size);
    if (cprofi_pe_open(&source, &pe)) {
        cprofi_text text = {NULL, 0};
        cprofi_pe_want wants[96];
        cprofi_debug debug;
        uint32_t age;
        char path[40];
        size_t n = 0;
        for (uint32_t a = TEXT - 8; n < 96; a += n < 64 ? 0x17 : 0x81, n++)
            wants[n].address = base + a;
        if (!cprofi_pe_lookup(&pe, wants, n, &text)) abort();
        for (size_t i = 0; i < n; i++) names += wants[i].name && *wants[i].name;
        cprofi_pe_pdb(&pe, guid, &age, path, sizeof path);
        cprofi_pe_debug(&pe, &debug);
        cprofi_debug_close(&debug);
        cprofi_text_free(&text);
        cprofi_pe_close(&pe);
    }
    free(exact);
    return names;
}

/* Something of everything. */
static image seed(uint32_t machine) {
    image m = image_new(machine);
    char name[32];
    for (uint32_t i = 0; i < 12; i++) {
        snprintf(name, sizeof name, i % 2 ? "_f%u" : "_function%u@4", i);
        add_symbol_raw(&m, name, 0x40 * i, 1 + i % 3 / 2, i % 4 ? 0x20 : 0, 2 + i % 2, i % 3);
        add_export(&m, i % 5 ? name : NULL, TEXT + 0x50 * i);
        if (machine == 0xaa64)
            add_entry(&m, TEXT + 0x60 * i, i % 2 ? 1 | (4 + i) << 2 : UNWIND + 16 * i, 0);
        else
            add_entry(&m, TEXT + 0x60 * i, TEXT + 0x60 * i + 0x30,
                      i % 6 == 4 ? (PDATA + 12 * (i - 3)) | 1 : UNWIND + 16 * i);
        put_rva(&m, UNWIND + 16 * i, machine == 0xaa64 ? 0x10 : i % 3 ? 1 : 4 << 3 | 1, 4);
        put_rva(&m, UNWIND + 16 * i + 4, TEXT + 0x60 * (i / 2), 4);
        put_rva(&m, UNWIND + 16 * i + 12, UNWIND + 16 * (i / 2), 4);
    }
    directory(&m, 6, CODEVIEW, 28);
    put_rva(&m, CODEVIEW + 12, 2, 4);
    put_rva(&m, CODEVIEW + 16, 40, 4);
    put_rva(&m, CODEVIEW + 24, CODEVIEW - 0x1000 + 0x40, 4);
    memcpy(m.data + CODEVIEW - 0x1000 + 0x40, "RSDS0123456789abcdef\7\0\0\0c:\\x\\y.pdb", 34);
    snprintf(name, sizeof name, "/%u", (unsigned)put_string(&m, ".debug_info"));
    add_section(&m, name, 0x5000, 0x30, 0x1800, 0x200, 0x42000040);
    snprintf(name, sizeof name, "/%u", (unsigned)put_string(&m, ".zdebug_line"));
    add_section(&m, name, 0x6000, 0x30, 0x1900, 0x200, 0x42000040);
    memcpy(m.data + 0x1900, "ZLIB\0\0\0\0\0\0\0\20\170\234", 14);
    return m;
}

static const uint32_t seed_machines[3] = {0x8664, 0x14c, 0xaa64};

static void test_truncation(void) {
    for (size_t i = 0; i < 3; i++) {
        image m = seed(seed_machines[i]);
        size_t size = image_end(&m), whole = use(m.data, size, m.base), most = 0;
        for (size_t cut = 0; cut < size; cut++) {
            size_t names = use(m.data, cut, m.base);
            if (names > most) most = names;
        }
        check(whole && most <= whole, "cut at every byte: fewer answers, no harm", "%zu, whole %zu",
              most, whole);
        free(m.data);
    }
}

static void test_fuzz(void) {
    static const uint64_t nasty[] = {0, 1, 0x7f, 0xff, 0xffff, 0x7fffffff, 0xffffffff, 0x80000000,
                                     0xffffffffffffffffu, 0x1000, 0x3000, IMAGE_SIZE, 0xfffffff0};
    size_t names = 0;
    for (int round = 0; round < FUZZ_ROUNDS; round++) {
        image m = seed(seed_machines[round % 3]);
        size_t size = image_end(&m);
        const size_t areas[][2] = {
            {0, 64}, {HEADERS, 264}, {m.table, 240}, {m.table, 240}, {PDATA - 0x1000, 144},
            {UNWIND - 0x1000, 192}, {EXPORTS - 0x1000, 0x280}, {CODEVIEW - 0x1000, 0x60},
            {SYMBOLS, size - SYMBOLS}, {SYMBOLS, size - SYMBOLS}};
        for (size_t i = 1 + random_below(6); i; i--) {
            size_t area = random_below(sizeof areas / sizeof areas[0]);
            size_t at = areas[area][0] + random_below(areas[area][1]);
            uint64_t value = nasty[random_below(sizeof nasty / sizeof nasty[0])];
            if (random_below(2)) m.data[at] = (uint8_t)random_below(256);
            else if (random_below(2)) m.data[at] ^= (uint8_t)(1u << random_below(8));
            else put(&m, at & ~(size_t)3, value, random_below(2) ? 4 : 2);
        }
        names += use(m.data, random_below(8) ? size : random_below(size), m.base);
        free(m.data);
    }
    check(names > FUZZ_ROUNDS, "damaged images neither crash nor hang", "%zu names only", names);
}

/* Many symbols and many addresses: each table is read once, in large pieces, and each name once. */
static void test_economy(void) {
    enum { COUNT = 100000, ADDRESSES = 5000 };
    image m = image_new(0x14c);
    size_t size = SYMBOLS + 18 * (size_t)COUNT + 4, wrong = 0;
    uint8_t *data = (uint8_t *)calloc(1, size);
    static cprofi_pe_want wants[ADDRESSES];
    cprofi_text text = {NULL, 0};
    cprofi_source source;
    cprofi_pe pe;
    put(&m, HEADERS + 12, SYMBOLS, 4);
    put(&m, HEADERS + 16, COUNT, 4);
    put(&m, m.table + 8, 0x10000000, 4); /* .text is large in memory */
    put(&m, m.table + 40 + 12, 0x20000000, 4);
    memcpy(data, m.data, SYMBOLS);
    for (size_t i = 0; i < COUNT; i++) {
        uint8_t *p = data + SYMBOLS + 18 * i;
        size_t value = 16 * (i * 7919 % COUNT); /* not in order */
        char name[20];
        memcpy(p, name, (size_t)snprintf(name, sizeof name, "_%zx", value));
        for (int b = 0; b < 4; b++) p[8 + b] = (uint8_t)(value >> 8 * b);
        p[12] = 1;
        p[14] = 0x20;
        p[16] = 2;
    }
    for (size_t i = 0; i < ADDRESSES; i++) /* nor these */
        wants[i].address = m.base + TEXT + i * 1009 % ADDRESSES * 100 + 5;
    source = source_of(data, size);
    reads = 0;
    if (!cprofi_pe_open(&source, &pe) || !cprofi_pe_lookup(&pe, wants, ADDRESSES, &text)) abort();
    for (size_t i = 0; i < ADDRESSES; i++) {
        uint64_t value = (wants[i].address - m.base - TEXT) / 16 * 16;
        char name[20];
        snprintf(name, sizeof name, "%llx", (unsigned long long)value);
        wrong += !wants[i].name || strcmp(name, wants[i].name) != 0 ||
                 wants[i].start != m.base + TEXT + value;
    }
    check(!wrong, "addresses and symbols in any order", "%zu wrong", wrong);
    check(reads < 40, "tables are read in large pieces", "%llu reads", (unsigned long long)reads);
    cprofi_text_free(&text);
    cprofi_pe_close(&pe);
    free(data);
    free(m.data);
}

int main(void) {
    const char *tmp = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_headers();
    test_codeview();
    test_symbols(0x8664);
    test_symbols(0x14c);
    test_symbols(0xaa64);
    test_i386_names();
    test_exports();
    test_x64();
    test_arm64();
    test_economy();
    snprintf(scratch, sizeof scratch, "%s/cprof-pe-XXXXXX", tmp);
    if (!mkdtemp(scratch)) {
        skip("real files", "no directory for them");
    } else {
        write_sources();
        test_mingw("x86_64");
        test_mingw("i686");
        test_lld();
        run("rm -rf '%s'", scratch);
    }
    test_truncation();
    test_fuzz();
    return failures != 0;
}
