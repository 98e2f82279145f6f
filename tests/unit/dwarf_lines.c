/* Line number tables: the reader against tables made here byte by byte, against a slow and obvious
   implementation of the same rules on random programs, against llvm-symbolizer and addr2line for
   every byte of code that gcc and clang make in many ways; damaged and hostile tables.

   Run:   cc -g -O1 -I. tests/unit/dwarf_lines.c -o dwarf_lines -lpthread && ./dwarf_lines
   Best with -fsanitize=address,undefined. CPROF_TEST_FUZZ=n: n times as many damaged tables;
   CPROF_TEST_LARGE may name a large ELF file with DWARF to time. */
#include "unit.h"

#include <elf.h>

/* ---- an assembler of line tables ---- */

typedef struct {
    uint8_t *data;
    size_t size, capacity;
    size_t unit, header; /* where unit_length and header_length stand */
    unsigned version;
    bool wide;
} assembler;

static void emit(assembler *a, uint64_t value, size_t size) {
    if (a->size + size > a->capacity) {
        a->capacity = 2 * a->capacity + size + 64;
        a->data = (uint8_t *)realloc(a->data, a->capacity);
        if (!a->data) abort();
    }
    for (size_t i = 0; i < size; i++)
        a->data[a->size++] = i < 8 ? (uint8_t)(value >> (8 * i)) : 0;
}

static void emit_text(assembler *a, const char *text) {
    do emit(a, (uint8_t)*text, 1);
    while (*text++);
}

static void emit_uleb(assembler *a, uint64_t v) {
    for (; v >= 0x80; v >>= 7) emit(a, (v & 0x7f) | 0x80, 1);
    emit(a, v, 1);
}

static void emit_sleb(assembler *a, int64_t v) {
    for (; v < -64 || v > 63; v >>= 7) emit(a, (uint64_t)(v & 0x7f) | 0x80, 1);
    emit(a, (uint64_t)v & 0x7f, 1);
}

static void emit_offset(assembler *a, uint64_t v) { emit(a, v, a->wide ? 8 : 4); }

static void patch(assembler *a, size_t at, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; i++) a->data[at + i] = (uint8_t)(value >> (8 * i));
}

/* How the machine of a table is made; zero: the usual. */
typedef struct {
    unsigned version, address_size, instruction, operations, range, opcode_base;
    int base;
    bool wide;
} machine;

static machine usual(unsigned version, bool wide) {
    machine m = {version, 8, 1, 1, 14, 13, -5, wide};
    return m;
}

static const uint8_t standard_lengths[] = {0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1};

/* Up to where the directories begin. */
static void begin_bare(assembler *a, machine m) {
    a->version = m.version;
    a->wide = m.wide;
    if (m.wide) emit(a, 0xffffffff, 4);
    a->unit = a->size;
    emit_offset(a, 0);
    emit(a, m.version, 2);
    if (m.version >= 5) emit(a, m.address_size, 1), emit(a, 0, 1);
    a->header = a->size;
    emit_offset(a, 0);
    emit(a, m.instruction, 1);
    if (m.version >= 4) emit(a, m.operations, 1);
    emit(a, 1, 1);
    emit(a, (uint64_t)m.base, 1);
    emit(a, m.range, 1);
    emit(a, m.opcode_base, 1);
    for (unsigned i = 1; i < m.opcode_base; i++)
        emit(a, i < sizeof standard_lengths ? standard_lengths[i] : i - 12, 1);
}

static void begin_program(assembler *a) {
    size_t word = a->wide ? 8 : 4;
    patch(a, a->header, a->size - a->header - word, word);
}

/* The usual names: directories 1 "inc" and 2 "/usr/include"; files 1 "main.c" where the unit is,
   2 "one.h" in "inc", 3 "two.h" in "/usr/include". In version 5 file 0 is "main.c" again. */
static void begin(assembler *a, machine m) {
    begin_bare(a, m);
    if (m.version < 5) {
        emit_text(a, "inc");
        emit_text(a, "/usr/include");
        emit(a, 0, 1);
        for (unsigned i = 0; i < 3; i++) {
            emit_text(a, i == 0 ? "main.c" : i == 1 ? "one.h" : "two.h");
            emit_uleb(a, i);
            emit_uleb(a, 1700000000);
            emit_uleb(a, 300);
        }
        emit(a, 0, 1);
    } else {
        emit(a, 1, 1);
        emit_uleb(a, 1);
        emit_uleb(a, 0x08);
        emit_uleb(a, 3);
        emit_text(a, "/home/unit");
        emit_text(a, "inc");
        emit_text(a, "/usr/include");
        emit(a, 2, 1);
        emit_uleb(a, 1), emit_uleb(a, 0x08);
        emit_uleb(a, 2), emit_uleb(a, 0x0b);
        emit_uleb(a, 4);
        emit_text(a, "main.c"), emit(a, 0, 1);
        emit_text(a, "main.c"), emit(a, 0, 1);
        emit_text(a, "one.h"), emit(a, 1, 1);
        emit_text(a, "two.h"), emit(a, 2, 1);
    }
    begin_program(a);
}

static void finish(assembler *a) {
    size_t word = a->wide ? 8 : 4;
    patch(a, a->unit, a->size - a->unit - word, word);
}

static void set_address(assembler *a, uint64_t address, size_t size) {
    emit(a, 0, 1);
    emit_uleb(a, size + 1);
    emit(a, 2, 1);
    emit(a, address, size);
}

static void end_sequence(assembler *a) { emit(a, 0x010100, 3); }
static void advance_pc(assembler *a, uint64_t n) { emit(a, 2, 1), emit_uleb(a, n); }
static void advance_line(assembler *a, int64_t n) { emit(a, 3, 1), emit_sleb(a, n); }
static void set_file(assembler *a, uint64_t n) { emit(a, 4, 1), emit_uleb(a, n); }
static void copy(assembler *a) { emit(a, 1, 1); }

static void special(assembler *a, machine m, unsigned advance, int line) {
    unsigned op = (unsigned)(line - m.base) + m.range * advance + m.opcode_base;
    if (line < m.base || line >= m.base + (int)m.range || op > 255) abort();
    emit(a, op, 1);
}

/* A sequence [lo, hi) all of which is at `line`. */
static void sequence(assembler *a, uint64_t lo, uint64_t hi, int line) {
    set_address(a, lo, 8);
    advance_line(a, line - 1);
    copy(a);
    advance_pc(a, hi - lo);
    end_sequence(a);
}

/* ---- asking ---- */

static cprofi_dwarf dwarf_of(const assembler *a) {
    cprofi_dwarf d;
    cprofi_span span = {a->data, a->size};
    memset(&d, 0, sizeof d);
    d.sections[CPROFI_DWARF_LINE] = cprofi_source_of(span);
    return d;
}

static cprofi_source text_section(const char *text, size_t size) {
    cprofi_span span = {(const uint8_t *)text, size};
    return cprofi_source_of(span);
}

/* "file:line file:line ..." of addresses, "-" where nothing is known. */
static const char *answers(cprofi_dwarf_lines *t, const uint64_t *addresses, size_t n) {
    static char out[4096];
    cprofi_dwarf_row rows[64];
    size_t used = 0;
    for (size_t i = 0; i < n; i++) rows[i].address = addresses[i];
    cprofi_dwarf_lines_find(t, rows, n);
    out[0] = 0;
    for (size_t i = 0; i < n; i++) {
        if (i) used += (size_t)sprintf(out + used, " ");
        if (!rows[i].line && rows[i].file == 0xffffffff) used += (size_t)sprintf(out + used, "-");
        else used += (size_t)sprintf(out + used, "%u:%u", rows[i].file, rows[i].line);
    }
    return out;
}

/* Asks the table at 0 of what was assembled, which is freed. */
static void expect(const char *name, assembler *a, const uint64_t *addresses, size_t n,
                   const char *expected) {
    cprofi_dwarf d = dwarf_of(a);
    cprofi_dwarf_lines t;
    const char *got = "the table does not open";
    memset(&t, 0, sizeof t);
    finish(a);
    if (cprofi_dwarf_lines_open(&t, &d, 0, 8, "/home/unit")) got = answers(&t, addresses, n);
    check(strcmp(got, expected) == 0, name, "%s, not %s", got, expected);
    cprofi_dwarf_lines_close(&t);
    free(a->data);
    memset(a, 0, sizeof *a);
}

#define EXPECT(name, a, expected, ...) \
    do { \
        static const uint64_t list[] = {__VA_ARGS__}; \
        expect(name, a, list, sizeof list / sizeof list[0], expected); \
    } while (0)

static char label[200];

static const char *labelled(const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(label, sizeof label, format, list);
    va_end(list);
    return label;
}

/* ---- programs ---- */

static void test_program(unsigned version, bool wide) {
    machine m = usual(version, wide);
    assembler a = {0};
    m.opcode_base = 15; /* 13 takes one operand, 14 two; nobody knows what they do */
    begin(&a, m);
    set_address(&a, 0x1000, 8);
    advance_line(&a, 9);
    copy(&a);                                          /* 1000: 1:10 */
    special(&a, m, 4, 3);                              /* 1004: 1:13 */
    emit(&a, 5, 1), emit_uleb(&a, 77);                 /* column */
    emit(&a, 6, 1);                                    /* negate_stmt */
    emit(&a, 7, 1);                                    /* basic_block */
    advance_line(&a, -8);
    advance_pc(&a, 300);
    set_file(&a, 2);
    copy(&a);                                          /* 1130: 2:5 */
    emit(&a, 8, 1);                                    /* const_add_pc: (255 - 15) / 14 = 17 */
    special(&a, m, 0, 1);                              /* 1141: 2:6 */
    emit(&a, 9, 1), emit(&a, 0x1234, 2);               /* fixed_advance_pc */
    emit(&a, 10, 1), emit(&a, 11, 1);                  /* prologue_end, epilogue_begin */
    emit(&a, 12, 1), emit_uleb(&a, 1000);              /* isa */
    emit(&a, 13, 1), emit_uleb(&a, 200);
    emit(&a, 14, 1), emit_uleb(&a, 1), emit_uleb(&a, 70000);
    emit(&a, 0, 1), emit_uleb(&a, 3), emit(&a, 4, 1), emit_uleb(&a, 200); /* discriminator */
    emit(&a, 0, 1), emit_uleb(&a, 6), emit(&a, 0x80, 1), emit(&a, 0x0101010101, 5); /* vendor's */
    emit(&a, 0, 1), emit_uleb(&a, 0);                  /* nothing */
    special(&a, m, 1, -5);                             /* 2376: 2:1 */
    advance_pc(&a, 2);
    end_sequence(&a);                                  /* 2378 */
    set_address(&a, 0x9000, 4);
    copy(&a);                                          /* 9000: the registers were reset */
    advance_pc(&a, 1);
    end_sequence(&a);
    EXPECT(labelled("every opcode, version %u, %s-bit format", version, wide ? "64" : "32"), &a,
           "- 1:10 1:10 1:13 1:13 2:5 2:5 2:6 2:6 2:1 2:1 - 1:1 -",
           0xfff, 0x1000, 0x1003, 0x1004, 0x112f, 0x1130, 0x1140, 0x1141, 0x2375, 0x2376, 0x2377,
           0x2378, 0x9000, 0x9001);
}

static void test_machines(void) {
    assembler a = {0};
    machine m = usual(2, false);
    m.opcode_base = 10; /* DWARF 2: 10 to 12 are special opcodes then */
    begin(&a, m);
    set_address(&a, 0x1000, 8);
    emit(&a, 10, 1); /* line 1 - 5 */
    advance_line(&a, 10);
    emit(&a, 12, 1); /* line 6 - 3 */
    emit(&a, 10 + 14 + 5, 1);
    emit(&a, 8, 1); /* (255 - 10) / 14 = 17 */
    end_sequence(&a);
    EXPECT("an opcode_base of 10 makes 10 to 12 special", &a, "1:3 1:3 1:3 -", 0x1000, 0x1001,
           0x1011, 0x1012);

    m = usual(4, false);
    m.opcode_base = 1;
    begin(&a, m);
    set_address(&a, 0x1000, 8);
    special(&a, m, 0, 4);
    special(&a, m, 3, 1);
    special(&a, m, 1, 0);
    end_sequence(&a);
    EXPECT("an opcode_base of 1 leaves no standard opcodes", &a, "1:5 1:5 1:6 -", 0x1000, 0x1002,
           0x1003, 0x1004);

    m = usual(3, false);
    m.instruction = 4;
    begin(&a, m);
    set_address(&a, 0x1000, 8);
    copy(&a);
    special(&a, m, 3, 1);
    advance_pc(&a, 2);
    copy(&a);
    emit(&a, 8, 1);
    special(&a, m, 0, 1);
    emit(&a, 9, 1), emit(&a, 2, 2);
    end_sequence(&a);
    EXPECT("min_inst_length scales all but fixed_advance_pc", &a, "1:1 1:2 1:2 1:2 1:3 1:3 -",
           0x100b, 0x100c, 0x1013, 0x1057, 0x1058, 0x1059, 0x105a);

    m = usual(4, false);
    m.instruction = 16;
    m.operations = 3;
    begin(&a, m);
    set_address(&a, 0x1000, 8);
    copy(&a);
    special(&a, m, 2, 1); /* operation 2 of 1000 */
    special(&a, m, 2, 1); /* operation 1 of 1010 */
    advance_pc(&a, 2);    /* 1020 */
    copy(&a);
    emit(&a, 8, 1);       /* 17 operations: 1070, operation 2 */
    special(&a, m, 1, 1); /* 1080, operation 0 */
    special(&a, m, 1, 1); /* the same address, operation 1 */
    set_address(&a, 0x1100, 8);
    special(&a, m, 2, 1); /* set_address set the operation to 0 */
    special(&a, m, 1, 1);
    end_sequence(&a);
    EXPECT("three operations in an instruction", &a, "1:2 1:3 1:3 1:3 1:5 1:5 1:6 1:6 -", 0x1000,
           0x1010, 0x1020, 0x107f, 0x1080, 0x10ff, 0x1100, 0x110f, 0x1110);

    m = usual(5, false);
    m.address_size = 4;
    begin(&a, m);
    set_address(&a, 0xfffff000, 4);
    copy(&a);
    advance_pc(&a, 0x10);
    end_sequence(&a);
    set_address(&a, 0xfffffffe, 4); /* dropped */
    advance_pc(&a, 0);
    copy(&a);
    advance_pc(&a, 0x1000);
    end_sequence(&a);
    EXPECT("addresses of 4 bytes", &a, "1:1 - -", 0xfffff00f, 0xfffff010, 0x100000001);
}

static void test_rules(void) {
    machine m = usual(5, false);
    assembler a = {0};
    begin(&a, m);
    set_address(&a, 0x1000, 8);
    copy(&a);
    special(&a, m, 0, 1);
    special(&a, m, 0, 2);
    special(&a, m, 8, 1);
    special(&a, m, 0, 1);
    end_sequence(&a);
    EXPECT("of several rows at one address the last counts", &a, "1:4 -", 0x1000, 0x1008);

    begin(&a, m);
    set_address(&a, 0x1000, 8);
    copy(&a);
    special(&a, m, 8, -1);
    special(&a, m, 8, 2);
    advance_pc(&a, 8);
    end_sequence(&a);
    sequence(&a, 0x1009, 0x100b, 50);
    EXPECT("line 0: the file is known, and no other sequence asked", &a, "1:1 1:0 1:0 1:0 1:0 1:2",
           0x1007, 0x1008, 0x1009, 0x100a, 0x100b, 0x1010);

    begin(&a, m);
    sequence(&a, 0x1010, 0x1020, 10);
    sequence(&a, 0x1000, 0x1030, 20);
    sequence(&a, 0x1008, 0x1018, 30);
    EXPECT("where sequences overlap the first counts", &a, "1:20 1:20 1:10 1:10 1:20 -", 0x1000,
           0x100f, 0x1010, 0x101f, 0x1020, 0x1030);

    begin(&a, m);
    sequence(&a, 0x3000, 0x3010, 3);
    sequence(&a, 0x1000, 0x1010, 1);
    sequence(&a, 0x4000, 0x4010, 4);
    sequence(&a, 0x2000, 0x2010, 2);
    EXPECT("sequences come in any order", &a, "1:1 - 1:2 1:3 - 1:4 -", 0x100f, 0x1010, 0x2000,
           0x3008, 0x3010, 0x400f, 0x4010);

    begin(&a, m);
    sequence(&a, 0, 0x5000, 7);
    sequence(&a, ~(uint64_t)0, 0x5000, 8);
    sequence(&a, ~(uint64_t)1, 0x5000, 9);
    sequence(&a, 0x1000, 0x1004, 10);
    EXPECT("code that the linker dropped covers nothing", &a, "- 1:10 -", 0xfff, 0x1000, 0x1004);

    begin(&a, m);
    sequence(&a, 0, 0x5000, 7);
    sequence(&a, 0x1000, 0x1004, 10);
    EXPECT("code at 0 is known when 0 is wanted", &a, "1:7 1:7 -", 0, 0x1000, 0x5000);

    begin(&a, m);
    set_address(&a, 0x1000, 8);
    copy(&a);
    special(&a, m, 8, 1); /* 1008: 2 */
    set_address(&a, 0x0f00, 8);
    special(&a, m, 0, 1); /* f00: 3 */
    special(&a, m, 8, 1); /* f08: 4 */
    set_address(&a, 0x1010, 8);
    special(&a, m, 0, 1); /* 1010: 5 */
    special(&a, m, 4, 1);
    end_sequence(&a);
    EXPECT("a program that goes backwards", &a, "- 1:3 1:4 1:1 1:4 1:5 -", 0xeff, 0xf00, 0xf08,
           0x1000, 0x1008, 0x1010, 0x1014);

    begin(&a, m);
    sequence(&a, 0x1000, 0x1010, 1);
    set_address(&a, 0x2000, 8);
    copy(&a);
    special(&a, m, 4, 1);
    EXPECT("the last row of a program that just stops covers nothing", &a, "1:1 1:1 - -", 0x100f,
           0x2003, 0x2004, 0x2005);

    begin(&a, m);
    sequence(&a, 0x1000, 0x1010, 1);
    EXPECT("addresses asked for twice", &a, "- - 1:1 1:1 1:1 1:1 - -", 0xfff, 0xfff, 0x1000,
           0x1000, 0x100f, 0x100f, 0x1010, 0x1010);

    begin(&a, m);
    set_address(&a, 0x1000, 8);
    emit(&a, 3, 1); /* advance_line 3, in 12 bytes */
    emit(&a, 0x83, 1);
    for (int i = 0; i < 10; i++) emit(&a, 0x80, 1);
    emit(&a, 0, 1);
    copy(&a);
    emit(&a, 2, 1); /* advance_pc 5, in 22 */
    emit(&a, 0x85, 1);
    for (int i = 0; i < 20; i++) emit(&a, 0x80, 1);
    emit(&a, 0, 1);
    end_sequence(&a);
    EXPECT("numbers with more bytes than they need", &a, "1:4 1:4 -", 0x1000, 0x1004, 0x1005);
}

/* ---- names ---- */

/* Paths of files 0 to count - 1, with "|" between. */
static const char *paths_of(cprofi_dwarf_lines *t, uint32_t count) {
    static char out[16384];
    cprofi_text text = {0};
    size_t used = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < count; i++) {
        const char *path = cprofi_dwarf_lines_file(t, i, &text);
        const char *again = cprofi_dwarf_lines_file(t, i, &text);
        if (again != path) path = "(not the same again)";
        used += (size_t)snprintf(out + used, sizeof out - used, "%s%s", i ? "|" : "",
                                 path ? path : "-");
        if (used >= sizeof out) abort();
    }
    cprofi_text_free(&text);
    return out;
}

static void expect_paths_in(const char *name, assembler *a, cprofi_dwarf *d, const char *comp_dir,
                            uint32_t count, const char *expected) {
    cprofi_dwarf_lines t;
    const char *got = "the table does not open";
    cprofi_dwarf line;
    memset(&t, 0, sizeof t);
    finish(a);
    line = dwarf_of(a);
    d->sections[CPROFI_DWARF_LINE] = line.sections[CPROFI_DWARF_LINE];
    if (cprofi_dwarf_lines_open(&t, d, 0, 8, comp_dir)) got = paths_of(&t, count);
    check(strcmp(got, expected) == 0, name, "%s, not %s", got, expected);
    cprofi_dwarf_lines_close(&t);
    free(a->data);
    memset(a, 0, sizeof *a);
}

static void expect_paths(const char *name, assembler *a, const char *comp_dir, uint32_t count,
                         const char *expected) {
    cprofi_dwarf d;
    memset(&d, 0, sizeof d);
    expect_paths_in(name, a, &d, comp_dir, count, expected);
}

/* A table of version 4 with one directory and one file in it, or of version 5 with these behind
   "/dir0". */
static void one_name(assembler *a, unsigned version, const char *directory, const char *file,
                     unsigned index) {
    begin_bare(a, usual(version, false));
    if (version < 5) {
        emit_text(a, directory);
        emit(a, 0, 1);
        emit_text(a, file), emit_uleb(a, index), emit(a, 0, 2);
        emit(a, 0, 1);
    } else {
        emit(a, 0x080101, 3); /* path, string */
        emit(a, 2, 1);
        emit_text(a, "/dir0");
        emit_text(a, directory);
        emit(a, 0x0b02080102, 5); /* path, string; directory, data1 */
        emit(a, 1, 1);
        emit_text(a, file), emit(a, index, 1);
    }
    begin_program(a);
}

static void test_paths(void) {
    static const struct {
        const char *comp_dir, *directory, *file, *expected;
        unsigned index;
    } cases[] = {
        {"/home/unit", "inc", "a.h", "/home/unit/inc/a.h", 1},
        {"/home/unit/", "inc/", "a.h", "/home/unit/inc/a.h", 1},
        {"/home/unit", "./inc", "./a.h", "/home/unit/inc/a.h", 1},
        {"/home/unit", ".", "a.h", "/home/unit/a.h", 1},
        {"/home/unit", "..", "a.h", "/home/unit/../a.h", 1},
        {"/home/unit", ".hidden", ".a.h", "/home/unit/.hidden/.a.h", 1},
        {"/home/unit", "/inc", "a.h", "/inc/a.h", 1},
        {"/home/unit", "inc", "/a.h", "/a.h", 1},
        {"/home/unit", "/inc", "sub/a.h", "/inc/sub/a.h", 1},
        {"/", "inc", "a.h", "/inc/a.h", 1},
        {"C:\\unit", "inc", "a.h", "C:\\unit\\inc\\a.h", 1},
        {"C:\\unit\\", "inc\\sub", "a.h", "C:\\unit\\inc\\sub\\a.h", 1},
        {"C:\\unit", "D:/inc", "a.h", "D:/inc/a.h", 1},
        {"C:\\unit", "D:\\inc/x", "a.h", "D:\\inc/x/a.h", 1},
        {"C:\\unit", "\\\\server\\share", "a.h", "\\\\server\\share\\a.h", 1},
        {"/home/unit", "c:\\inc", "a.h", "c:\\inc\\a.h", 1},
        {"/home/unit", "inc", "C:\\a.h", "C:\\a.h", 1},
        {"/home/unit", "inc", ".\\a.h", "/home/unit/inc/a.h", 1},
        {"/home/unit", "inc", "<stdin>", "/home/unit/inc/<stdin>", 1},
        {"/home/unit", "inc", "odd name: x", "/home/unit/inc/odd name: x", 1},
        {"/home/unit", "inc", "a.h", "/home/unit/a.h", 7}, /* no such directory */
        {NULL, "/inc", "a.h", "/inc/a.h", 1},
    };
    assembler a = {0};
    cprofi_dwarf_lines t;
    char longest[5000];
    for (unsigned version = 4; version <= 5; version++) {
        char expected[300];
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            one_name(&a, version, cases[i].directory, cases[i].file, cases[i].index);
            snprintf(expected, sizeof expected, "%s%s%s", version < 5 ? "-|" : "",
                     cases[i].expected, version < 5 ? "" : "|-");
            expect_paths(labelled("version %u: %s + %s + %s", version, cases[i].comp_dir ?
                                  cases[i].comp_dir : "(none)", cases[i].directory, cases[i].file),
                         &a, cases[i].comp_dir, 2, expected);
        }
    }
    one_name(&a, 4, "inc", "a.h", 0);
    expect_paths("version 4, directory 0 is that of the unit", &a, "/home/unit", 3,
                 "-|/home/unit/a.h|-");
    one_name(&a, 4, "inc", "a.h", 0);
    expect_paths("version 4, no directory at all", &a, NULL, 2, "-|a.h");
    one_name(&a, 4, "inc", "a.h", 1);
    expect_paths("version 4, a relative directory and no other", &a, NULL, 2, "-|inc/a.h");
    one_name(&a, 5, "inc", "a.h", 0);
    expect_paths("version 5, directory 0 is in the list", &a, "/home/unit", 2, "/dir0/a.h|-");
    one_name(&a, 5, "inc", "a.h", 1);
    expect_paths("version 5, directory 0 stands in for that of the unit", &a, NULL, 2,
                 "/dir0/inc/a.h|-");

    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = 0;
    one_name(&a, 4, "inc", longest, 1);
    expect_paths("a name that is too long is none", &a, "/home/unit", 2, "-|-");
    longest[4085] = 0;
    one_name(&a, 4, "inc", longest, 1);
    expect_paths("a path that gets too long is none", &a, "/home/unit", 2, "-|-");

    memset(&t, 0, sizeof t);
    begin(&a, usual(4, false));
    set_address(&a, 0x1000, 8);
    for (int i = 4; i < 6; i++) {
        const char *name = i == 4 ? "four.h" : "five.h";
        emit(&a, 0, 1);
        emit_uleb(&a, 1 + strlen(name) + 1 + 3);
        emit(&a, 3, 1);
        emit_text(&a, name), emit_uleb(&a, 6 - (unsigned)i), emit(&a, 0, 2);
    }
    set_file(&a, 4);
    copy(&a);
    set_file(&a, 5);
    special(&a, usual(4, false), 4, 0);
    advance_pc(&a, 4);
    end_sequence(&a);
    finish(&a);
    {
        static const uint64_t two[] = {0x1000, 0x1004};
        cprofi_dwarf d = dwarf_of(&a);
        bool ok = cprofi_dwarf_lines_open(&t, &d, 0, 8, "/home/unit");
        ok = ok && strcmp(answers(&t, two, 2), "4:1 5:1") == 0;
        ok = ok && strcmp(answers(&t, two, 2), "4:1 5:1") == 0; /* defines them once only */
        const char *paths = paths_of(&t, 7);
        check(ok && strcmp(paths, "-|/home/unit/main.c|/home/unit/inc/one.h|/usr/include/two.h|"
                           "/usr/include/four.h|/home/unit/inc/five.h|-") == 0,
              "define_file adds to the files of the header", "%d %s", ok, paths);
    }
    cprofi_dwarf_lines_close(&t);
    free(a.data);
}

/* A version 5 table whose file 0 has a name in this form, with everything a table might tell. */
static void test_forms(bool wide) {
    static const unsigned path_forms[] = {0x08, 0x0e, 0x1f, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x1d};
    static const unsigned index_forms[] = {0x0f, 0x0b, 0x05, 0x06, 0x07};
    static const char str[] = "zero\0strp.c\0dirs", line_str[] = "\0line.c\0/lines";
    uint8_t offsets[64] = {0};
    for (size_t i = 0; i < sizeof path_forms / sizeof path_forms[0]; i++) {
        for (size_t k = 0; k < sizeof index_forms / sizeof index_forms[0]; k++) {
            unsigned form = path_forms[i], index = index_forms[k];
            assembler a = {0};
            cprofi_dwarf d;
            char expected[200];
            const char *file = form == 0x08 ? "in.c" : form == 0x1f ? "line.c" : "strp.c";
            memset(&d, 0, sizeof d);
            begin_bare(&a, usual(5, wide));
            emit(&a, 1, 1);
            emit_uleb(&a, 1), emit_uleb(&a, 0x1f); /* directories: path, line_strp */
            emit_uleb(&a, 2);
            emit_offset(&a, 8), emit_offset(&a, 9); /* "/lines", "lines" */
            emit(&a, 11, 1);
            emit_uleb(&a, 3), emit_uleb(&a, 0x0f);      /* timestamp, udata */
            emit_uleb(&a, 2), emit_uleb(&a, index);     /* directory index */
            emit_uleb(&a, 5), emit_uleb(&a, 0x1e);      /* MD5, data16 */
            emit_uleb(&a, 0x2001), emit_uleb(&a, 0x1f); /* LLVM's source, line_strp */
            emit_uleb(&a, 0x3fff), emit_uleb(&a, 0x09); /* anything, block */
            emit_uleb(&a, 0x2fff), emit_uleb(&a, 0x0a); /* block1 */
            emit_uleb(&a, 0x2fff), emit_uleb(&a, 0x03); /* block2 */
            emit_uleb(&a, 0x2fff), emit_uleb(&a, 0x04); /* block4 */
            emit_uleb(&a, 0x2fff), emit_uleb(&a, 0x17); /* sec_offset */
            emit_uleb(&a, 1), emit_uleb(&a, form);      /* path */
            emit_uleb(&a, 4), emit_uleb(&a, 0x06);      /* size, data4 */
            emit_uleb(&a, 2);
            for (unsigned n = 0; n < 2; n++) {
                emit_uleb(&a, 1700000000);
                if (index == 0x0f) emit_uleb(&a, n);
                else emit(&a, n, index == 0x0b ? 1 : index == 0x05 ? 2 : index == 0x06 ? 4 : 8);
                emit(&a, ~(uint64_t)0, 16);
                emit_offset(&a, 1);
                emit_uleb(&a, 3), emit(&a, 0x010203, 3);
                emit(&a, 2, 1), emit(&a, 0x0102, 2);
                emit(&a, 1, 2), emit(&a, 0x01, 1);
                emit(&a, 0, 4);
                emit_offset(&a, 77);
                if (form == 0x08) emit_text(&a, "in.c");
                else if (form == 0x0e) emit_offset(&a, 5);
                else if (form == 0x1f) emit_offset(&a, 1);
                else if (form == 0x1a) emit_uleb(&a, 1);
                else if (form == 0x1d) emit_offset(&a, 1);
                else emit(&a, 1, form - 0x24);
                emit(&a, 12345, 4);
            }
            begin_program(&a);
            offsets[wide ? 24 : 12] = 5; /* number 1, behind the header of the section */
            d.sections[CPROFI_DWARF_STR] = text_section(str, sizeof str);
            d.sections[CPROFI_DWARF_LINE_STR] = text_section(line_str, sizeof line_str);
            d.sections[CPROFI_DWARF_STR_OFFSETS] =
                text_section((const char *)offsets, sizeof offsets);
            snprintf(expected, sizeof expected, "/lines/%s|/home/lines/%s|-", file, file);
            if (form == 0x1d) strcpy(expected, "-|-|-"); /* in a supplementary file */
            expect_paths_in(labelled("version 5, %s-bit: a path in form %#x, a directory in %#x",
                                     wide ? "64" : "32", form, index),
                            &a, &d, "/home", 3, expected);
        }
    }
}

static void test_names_damaged(void) {
    assembler a = {0};
    cprofi_dwarf d;
    cprofi_dwarf_lines t;
    static const uint64_t one[] = {0x1000};
    static const char str[] = "not ended", zeros[64];
    memset(&t, 0, sizeof t);
    memset(&d, 0, sizeof d);

    begin_bare(&a, usual(5, false));
    emit(&a, 0, 1), emit_uleb(&a, ~(uint64_t)0); /* no format, very many directories */
    emit(&a, 0, 1), emit_uleb(&a, ~(uint64_t)0);
    begin_program(&a);
    sequence(&a, 0x1000, 0x1001, 5);
    EXPECT("entries of no bytes are not counted", &a, "1:5", 0x1000);

    begin_bare(&a, usual(5, false));
    emit(&a, 0x080101, 3), emit_uleb(&a, 1), emit_text(&a, "/x");
    emit(&a, 0x080101, 3), emit_uleb(&a, ~(uint64_t)0), emit_text(&a, "a"), emit_text(&a, "b");
    begin_program(&a);
    sequence(&a, 0x1000, 0x1001, 5);
    expect_paths("more files promised than there are", &a, NULL, 3, "/x/a|/x/b|-");

    begin_bare(&a, usual(5, false));
    emit(&a, 0x080101, 3), emit_uleb(&a, 1), emit_text(&a, "/x");
    emit(&a, 0x7f02080102, 5), emit_uleb(&a, 1), emit_text(&a, "a"), emit(&a, 0, 1);
    begin_program(&a);
    sequence(&a, 0x1000, 0x1001, 5);
    finish(&a);
    d = dwarf_of(&a);
    check(cprofi_dwarf_lines_open(&t, &d, 0, 8, NULL) && strcmp(answers(&t, one, 1), "1:5") == 0 &&
              strcmp(paths_of(&t, 2), "-|-") == 0,
          "an unknown form costs the names, not the lines", "%s", answers(&t, one, 1));
    free(a.data);
    memset(&a, 0, sizeof a);
    cprofi_dwarf_lines_close(&t);

    begin_bare(&a, usual(5, false));
    emit(&a, 0x080101, 3), emit_uleb(&a, 1), emit_text(&a, "/x");
    emit(&a, 0x0e0101, 3), emit_uleb(&a, 3);
    emit(&a, 0, 4), emit(&a, 9, 4), emit(&a, 0xffffffff, 4);
    begin_program(&a);
    memset(&d, 0, sizeof d);
    d.sections[CPROFI_DWARF_STR] = text_section(str, 9);
    expect_paths_in("strings that leave their section", &a, &d, NULL, 4, "/x/not ended|-|-|-");

    begin_bare(&a, usual(5, true));
    emit(&a, 0x080101, 3), emit_uleb(&a, 1), emit_text(&a, "/x");
    emit(&a, 0x1a0101, 3), emit_uleb(&a, 3);
    emit_uleb(&a, ~(uint64_t)0), emit_uleb(&a, (uint64_t)1 << 61), emit_uleb(&a, 100);
    begin_program(&a);
    d.sections[CPROFI_DWARF_STR_OFFSETS] = text_section(zeros, sizeof zeros);
    expect_paths_in("string numbers that leave their section", &a, &d, NULL, 3, "-|-|-");
}

static void test_refused(void) {
    assembler a = {0};
    cprofi_dwarf_lines t;
    cprofi_dwarf d;
    static const uint64_t one[] = {0x1000};
    static const struct {
        const char *name;
        size_t at, size;
        uint64_t value;
    } cases[] = {
        {"version 1", 4, 2, 1}, {"version 6", 4, 2, 6}, {"version 0x104", 4, 2, 0x104},
        {"a reserved length", 0, 4, 0xfffffff0}, {"a header longer than the table", 8, 4, 0xffff},
        {"a header shorter than its fields", 8, 4, 5}, {"an opcode_base of 0", 17, 1, 0},
        {"a line_range of 0", 16, 1, 0},
        {"no length", 0, 4, 0}, {"a huge 64-bit length of nothing", 0, 8, 0xffffffff},
    };
    memset(&t, 0, sizeof t);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t saved[8];
        bool before, after;
        memset(&a, 0, sizeof a);
        begin(&a, usual(5, false));
        sequence(&a, 0x1000, 0x1001, 5);
        finish(&a);
        d = dwarf_of(&a);
        memcpy(saved, a.data, sizeof saved);
        before = cprofi_dwarf_lines_open(&t, &d, 0, 8, NULL);
        patch(&a, cases[i].at, cases[i].value, cases[i].size);
        after = cprofi_dwarf_lines_open(&t, &d, 0, 8, NULL);
        check(before && !after && strcmp(answers(&t, one, 1), "-") == 0 &&
                  strcmp(paths_of(&t, 2), "-|-") == 0,
              labelled("%s is refused, and nothing is found then", cases[i].name), "%d %d", before,
              after);
        free(a.data);
    }
    memset(&a, 0, sizeof a);
    begin(&a, usual(4, false));
    sequence(&a, 0x1000, 0x1001, 5);
    finish(&a);
    {
        size_t second = a.size;
        bool ok;
        begin(&a, usual(5, true));
        sequence(&a, 0x1000, 0x1001, 6);
        finish(&a);
        d = dwarf_of(&a);
        ok = cprofi_dwarf_lines_open(&t, &d, second, 8, "/u") &&
             strcmp(answers(&t, one, 1), "1:6") == 0 &&
             strcmp(paths_of(&t, 2), "/home/unit/main.c|/home/unit/main.c") == 0;
        ok = ok && cprofi_dwarf_lines_open(&t, &d, 0, 8, "/u") &&
             strcmp(answers(&t, one, 1), "1:5") == 0 && strcmp(paths_of(&t, 2), "-|/u/main.c") == 0;
        ok = ok && !cprofi_dwarf_lines_open(&t, &d, a.size, 8, "/u") &&
             !cprofi_dwarf_lines_open(&t, &d, ~(uint64_t)0, 8, "/u");
        cprofi_dwarf_lines_close(&t);
        ok = ok && cprofi_dwarf_lines_open(&t, &d, second, 8, "/u") &&
             strcmp(answers(&t, one, 1), "1:6") == 0;
        check(ok, "one reader reads table after table", "%s", answers(&t, one, 1));
    }
    cprofi_dwarf_lines_close(&t);
    free(a.data);
}

/* ---- random programs against the obvious ---- */

typedef struct {
    uint64_t address;
    uint32_t file, line;
    bool end;
} reference_row;

typedef struct {
    reference_row *rows;
    size_t count, capacity;
} reference;

static void reference_add(reference *r, uint64_t address, uint32_t file, uint32_t line, bool end) {
    reference_row row = {address, file, line, end};
    if (r->count == r->capacity) {
        r->capacity = 2 * r->capacity + 64;
        r->rows = (reference_row *)realloc(r->rows, r->capacity * sizeof *r->rows);
        if (!r->rows) abort();
    }
    r->rows[r->count++] = row;
}

/* A random program, and its rows as the specification tells them in so many words. */
static void random_program(assembler *a, machine m, reference *r) {
    uint64_t address = 0, operation = 0, file = 1, line = 1;
    size_t length = 1 + random_below(400);
    uint64_t n;
#define ADVANCE(ops) \
    do { \
        uint64_t by = (ops); \
        uint64_t most = m.version >= 4 ? m.operations : 1; \
        if (most < 2) { \
            address += m.instruction * by; \
        } else { \
            address += m.instruction * ((operation + by) / most); \
            operation = (operation + by) % most; \
        } \
    } while (0)
    for (size_t i = 0; i < length; i++) {
        switch (random_below(16)) {
        case 0: case 1: case 2: case 3: case 4: case 5: case 6: {
            unsigned op = m.opcode_base + (unsigned)random_below(256 - m.opcode_base);
            unsigned adjusted = op - m.opcode_base;
            emit(a, op, 1);
            line += (uint64_t)(int64_t)(m.base + (int)(adjusted % m.range));
            ADVANCE(adjusted / m.range);
            reference_add(r, address, (uint32_t)file, (uint32_t)line, false);
            break;
        }
        case 7:
            copy(a);
            reference_add(r, address, (uint32_t)file, (uint32_t)line, false);
            break;
        case 8:
            n = random_below(random_below(8) ? 40 : 5000);
            advance_pc(a, n);
            ADVANCE(n);
            break;
        case 9: {
            int64_t by = (int64_t)random_below(300) - 150;
            if (random_below(4) == 0) by = -(int64_t)(line & 0xff); /* line 0, often */
            advance_line(a, by);
            line += (uint64_t)by;
            break;
        }
        case 10: set_file(a, file = random_below(400)); break;
        case 11:
            emit(a, 8, 1);
            ADVANCE((255 - m.opcode_base) / m.range);
            break;
        case 12:
            n = random_below(random_below(4) ? 30 : 0x10000);
            emit(a, 9, 1), emit(a, n, 2);
            address += n;
            operation = 0;
            break;
        case 13:
            if (random_below(3)) break;
            address = random_below(8) ? 0x1000 + random_below(0x4000)
                                      : random_below(2) ? 0 : ~(uint64_t)0 - random_below(4);
            set_address(a, address, 8);
            operation = 0;
            break;
        case 14:
            if (random_below(3)) break;
            reference_add(r, address, (uint32_t)file, (uint32_t)line, true);
            end_sequence(a);
            address = operation = 0;
            file = line = 1;
            break;
        default: {
            unsigned op = (unsigned)random_below(m.opcode_base + 4);
            if (op >= m.opcode_base) { /* something extended that is not known */
                n = random_below(6);
                emit(a, 0, 1), emit_uleb(a, 1 + n), emit(a, 4 + random_below(200), 1);
                while (n--) emit(a, random_next(), 1);
            } else if (op > 12 || op == 5 || op == 6 || op == 7 || (op >= 10 && op <= 12)) {
                emit(a, op, 1);
                n = op < sizeof standard_lengths ? standard_lengths[op] : op - 12;
                while (n--) emit_uleb(a, random_next() >> random_below(64));
            }
        }
        }
    }
#undef ADVANCE
}

static bool reference_dropped(uint64_t start, bool zero_wanted) {
    return start == ~(uint64_t)0 || start == ~(uint64_t)1 || (start == 0 && !zero_wanted);
}

static reference_row reference_find(const reference *r, uint64_t address, bool zero_wanted) {
    reference_row none = {0, 0xffffffff, 0, false};
    for (size_t i = 0, start = 0; i + 1 < r->count; i++) {
        if (r->rows[i].end) {
            start = i + 1;
            continue;
        }
        if (!reference_dropped(r->rows[start].address, zero_wanted) &&
            r->rows[i].address <= address && address < r->rows[i + 1].address)
            return r->rows[i];
    }
    return none;
}

static void test_random(void) {
    enum { ROUNDS = 3000 };
    size_t wrong = 0, found = 0, asked = 0;
    cprofi_dwarf_lines t;
    memset(&t, 0, sizeof t);
    for (int round = 0; round < ROUNDS; round++) {
        machine m = usual(2 + (unsigned)random_below(4), random_below(4) == 0);
        assembler a = {0};
        reference r = {0};
        cprofi_dwarf d;
        cprofi_dwarf_row rows[64];
        size_t n = 1 + random_below(64);
        bool zero_wanted = random_below(4) == 0;
        uint64_t at = zero_wanted ? 0 : 1 + random_below(0x1000);
        m.instruction = random_below(3) ? 1 : (unsigned)random_below(9);
        m.operations = random_below(3) ? 1 : (unsigned)random_below(6);
        m.range = 1 + (unsigned)random_below(random_below(4) ? 20 : 255);
        m.base = (int)random_below(random_below(4) ? 20 : 255) - 128;
        if (random_below(2)) m.base = -(int)random_below(10);
        m.opcode_base = random_below(2) ? 13 : 13 + (unsigned)random_below(8);
        begin(&a, m);
        random_program(&a, m, &r);
        finish(&a);
        d = dwarf_of(&a);
        for (size_t i = 0; i < n; i++) {
            rows[i].address = at;
            at += random_below(random_below(3) ? 8 : 0x400);
        }
        if (!cprofi_dwarf_lines_open(&t, &d, 0, 8, NULL)) {
            wrong++;
        } else {
            cprofi_dwarf_lines_find(&t, rows, n);
            for (size_t i = 0; i < n; i++) {
                reference_row e = reference_find(&r, rows[i].address, rows[0].address == 0);
                wrong += rows[i].file != e.file || rows[i].line != e.line;
                found += rows[i].line != 0;
                asked++;
            }
        }
        t.spent = 0;
        free(a.data);
        free(r.rows);
    }
    cprofi_dwarf_lines_close(&t);
    check(wrong == 0 && found > asked / 20, "random programs, as the obvious reader reads them",
          "%zu wrong, %zu found of %zu", wrong, found, asked);
    printf("# %zu of %zu addresses found\n", found, asked);
}

/* ---- damaged and hostile tables ---- */

/* Uses a table in every way; the section is copied, so that a read past its end is seen. */
static size_t use_table(const uint8_t *data, size_t size, uint64_t offset) {
    static const char str[] = "name\0dir";
    uint8_t *copy_of = (uint8_t *)malloc(size ? size : 1);
    cprofi_span span = {copy_of, size};
    cprofi_dwarf_lines t;
    cprofi_dwarf d;
    cprofi_dwarf_row rows[40];
    cprofi_text text = {0};
    size_t found = 0;
    if (!copy_of) abort();
    memcpy(copy_of, data, size);
    memset(&t, 0, sizeof t);
    memset(&d, 0, sizeof d);
    d.sections[CPROFI_DWARF_LINE] = cprofi_source_of(span);
    d.sections[CPROFI_DWARF_STR] = text_section(str, sizeof str);
    d.sections[CPROFI_DWARF_LINE_STR] = text_section(str, sizeof str);
    d.sections[CPROFI_DWARF_STR_OFFSETS] = text_section(str, sizeof str);
    for (size_t i = 0; i < 40; i++) rows[i].address = 0xff8 + 8 * i;
    for (size_t i = 30; i < 40; i++) rows[i].address = 0x1000 + ((uint64_t)1 << (i + 6));
    if (cprofi_dwarf_lines_open(&t, &d, offset, 8, "/home/unit")) {
        cprofi_dwarf_lines_find(&t, rows, 40);
        for (size_t i = 0; i < 40; i++) {
            found += rows[i].line != 0;
            (void)cprofi_dwarf_lines_file(&t, rows[i].file, &text);
        }
        for (uint32_t i = 0; i < 8; i++) (void)cprofi_dwarf_lines_file(&t, i, &text);
    }
    cprofi_dwarf_lines_close(&t);
    cprofi_text_free(&text);
    free(copy_of);
    return found;
}

static assembler good_table(unsigned version, bool wide) {
    assembler a = {0};
    machine m = usual(version, wide);
    begin(&a, m);
    set_address(&a, 0x1000, 8);
    advance_line(&a, 200);
    copy(&a);
    for (unsigned i = 0; i < 8; i++) {
        set_file(&a, 1 + i % 3);
        special(&a, m, 8, (int)i - 2);
        advance_pc(&a, 20 * i);
        emit(&a, 9, 1), emit(&a, 16, 2);
        emit(&a, 8, 1);
        emit(&a, 0, 1), emit_uleb(&a, 3), emit(&a, 4, 1), emit_uleb(&a, 200);
    }
    if (version < 5) {
        emit(&a, 0, 1), emit_uleb(&a, 6), emit(&a, 3, 1), emit(&a, 'x', 2), emit(&a, 0, 3);
    }
    advance_pc(&a, 0x2000);
    end_sequence(&a);
    sequence(&a, 0xff0, 0x1010, 7);
    finish(&a);
    return a;
}

static void test_truncated(void) {
    for (unsigned version = 2; version <= 5; version++) {
        assembler a = good_table(version, version % 2 == 0);
        size_t found = 0, most = 0, all = use_table(a.data, a.size, 0);
        for (size_t n = 0; n < a.size; n++) {
            size_t some = use_table(a.data, n, 0);
            found += some;
            if (some > most) most = some;
        }
        check(found && most <= all, labelled("version %u, cut at every byte", version),
              "found %zu, at most %zu of %zu", found, most, all);
        free(a.data);
    }
}

static size_t mutate_and_use(const uint8_t *data, size_t size, uint64_t offset, size_t length) {
    static const uint8_t odd[] = {0, 1, 2, 3, 4, 9, 0x1f, 0x7f, 0x80, 0xff};
    uint8_t *copy_of = (uint8_t *)malloc(size);
    size_t found, times = 1 + random_below(6);
    if (!copy_of) abort();
    memcpy(copy_of, data, size);
    while (times--) {
        size_t at = offset + random_below(random_below(2) && length > 64 ? 64 : length);
        size_t run = random_below(8) ? 1 : random_below(12);
        for (size_t i = at; i < at + run && i < size; i++)
            copy_of[i] = random_below(2) ? odd[random_below(sizeof odd)] : (uint8_t)random_next();
    }
    found = use_table(copy_of, size, offset);
    free(copy_of);
    return found;
}

static size_t fuzz_rounds(size_t n) {
    const char *times = getenv("CPROF_TEST_FUZZ");
    return times && atoi(times) > 0 ? n * (size_t)atoi(times) : n;
}

static void test_fuzz(void) {
    size_t found = 0, rounds = fuzz_rounds(4000);
    for (unsigned version = 2; version <= 5; version++) {
        for (int wide = 0; wide < 2; wide++) {
            assembler a = good_table(version, wide);
            for (size_t i = 0; i < rounds; i++) found += mutate_and_use(a.data, a.size, 0, a.size);
            free(a.data);
        }
    }
    check(found > 0, labelled("%zu damaged tables neither crash nor hang", 8 * rounds), "none");
}

/* Opcodes whose operands end behind the table, or say they do. */
static void test_past_the_end(void) {
    static const uint8_t tails[][14] = {
        /* how many bytes, then the bytes */
        {3, 0, 9, 2},                                                        /* set_address */
        {5, 0, 20, 3, 'x', 'y'},                                             /* define_file */
        {5, 0, 0xff, 0xff, 0x7f, 1},                                         /* end_sequence */
        {12, 0, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 3}, /* size -16 */
        {2, 0, 0x80}, {1, 0}, {2, 2, 0xff}, {2, 3, 0xc0}, {1, 9}, {2, 9, 1}, {1, 13}, {1, 4},
        {3, 13, 0x80, 0x80}, {2, 254, 1},
    };
    static const uint64_t two[] = {0x1000, 0x1001};
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        assembler a = {0};
        cprofi_dwarf d;
        cprofi_dwarf_lines t;
        machine m = usual(4, false);
        m.opcode_base = 255; /* 254 takes 242 operands */
        memset(&t, 0, sizeof t);
        begin(&a, m);
        sequence(&a, 0x1000, 0x1001, 5);
        set_address(&a, 0x1001, 8);
        copy(&a);
        for (size_t k = 1; k <= tails[i][0]; k++) emit(&a, tails[i][k], 1);
        finish(&a);
        d = dwarf_of(&a);
        check(cprofi_dwarf_lines_open(&t, &d, 0, 8, NULL) &&
                  strcmp(answers(&t, two, 2), "1:5 -") == 0 && strcmp(paths_of(&t, 6),
                  "-|main.c|inc/one.h|/usr/include/two.h|-|-") == 0,
              labelled("an opcode that leaves the table ends the program, %zu", i), "%s",
              answers(&t, two, 2));
        (void)use_table(a.data, a.size, 0);
        cprofi_dwarf_lines_close(&t);
        free(a.data);
    }
}

/* Many sequences over all of many addresses: each costs a search, not a walk. */
static void test_hostile(void) {
    enum { WANTS = 20000, SEQUENCES = 200000 };
    cprofi_dwarf_row *rows = (cprofi_dwarf_row *)malloc(WANTS * sizeof *rows);
    cprofi_dwarf_lines t;
    cprofi_dwarf d;
    assembler a = {0};
    size_t known = 0, times = 0;
    double start;
    if (!rows) abort();
    memset(&t, 0, sizeof t);
    for (size_t i = 0; i < WANTS; i++) rows[i].address = 0x1000 + 4 * i;
    begin(&a, usual(4, false));
    for (size_t i = 0; i < SEQUENCES; i++) /* the last address is never covered */
        sequence(&a, 0x1000, 0x1000 + 4 * (WANTS - 1), i ? 6 : 5);
    finish(&a);
    d = dwarf_of(&a);
    start = milliseconds();
    if (!cprofi_dwarf_lines_open(&t, &d, 0, 8, NULL)) abort();
    cprofi_dwarf_lines_find(&t, rows, WANTS);
    printf("# %d sequences, each over %d addresses: %.0f ms\n", SEQUENCES, WANTS,
           milliseconds() - start);
    for (size_t i = 0; i < WANTS; i++) known += rows[i].line == 5;
    check(known == WANTS - 1, "all sequences over all addresses", "%zu", known);
    for (int i = 0; i < 100; i++) times += cprofi_dwarf_lines_open(&t, &d, 0, 8, NULL);
    check(times >= CPROFI_LINE_AGAIN - 1 && times <= CPROFI_LINE_AGAIN + 1,
          "a large table is not read for every unit of a hostile file", "%zu times", times);
    cprofi_dwarf_lines_close(&t);
    free(a.data);
    free(rows);
}

/* ---- real files, against llvm-symbolizer and addr2line ---- */

static char scratch[256];

static FILE *scratch_file(const char *name, const char *mode) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    return fopen(path, mode);
}

static void write_text(const char *name, const char *text) {
    FILE *f = scratch_file(name, "w");
    if (!f || fputs(text, f) < 0 || fclose(f)) abort();
}

static void write_sources(void) {
    run("mkdir -p '%s/inc' '%s/sub' '%s/sys'", scratch, scratch, scratch);
    write_text("inc/one.h",
        "static inline int one(int x) {\n    int s = 0;\n    for (int i = 0; i < x; i++)\n"
        "        s += i * x ^ s;\n    return s;\n}\n"
        "int from_header(int x) {\n    return one(x) +\n        7;\n}\n");
    write_text("sys/two.h",
        "static inline int two(volatile int *p) {\n    *p += 3;\n    if (*p & 1) *p = *p / 7;\n"
        "\n\n\n    return *p;\n}\n");
    write_text("main.c",
        "#include \"inc/one.h\"\n#include <two.h>\nint other(int), far_away(int);\n"
        "volatile int v;\n"
        "__attribute__((noinline)) int first(int x) {\n    v = x;\n"
        "    return two(&v) + one(x);\n}\n"
        "#line 1000 \"odd name (x), y.z\"\nint odd(int x) {\n    v += x;\n    return one(v);\n}\n"
        "#line 7 \"/absolute/generated.c\"\nint generated(int x) {\n    v -= x;\n    return v;\n}\n"
        "#line 30000 \"sub/../up.c\"\nint up(int x) {\n    v *= x;\n\n\n    return two(&v);\n}\n"
        "#line 3 \"./dot.c\"\nint dot(int x) {\n    v ^= x;\n    return v + 1;\n}\n"
        "#line 60 \"main.c\"\nint unused_code(int x) {\n    v ^= 2 * x;\n    return v + 100;\n}\n"
        "int main(void) {\n    int s = 0;\n    for (int i = 0; i < 10; i++) {\n"
        "        s += first(i) + odd(i);\n        s += generated(i);\n"
        "        s ^= up(i) + dot(i); switch (s & 7) { case 1: v++; break; case 2: s += other(s);\n"
        "        break; case 3: s -= far_away(v); break; case 4: return 3; default: v--; }\n"
        "    }\n    return s + from_header(s);\n}\n");
    write_text("sub/other.c",
        "#include \"two.h\"\nvolatile int w;\n"
        "static int helper(int x) { w = x; return two(&w) + x; }\n"
        "int other(int x) {\n    int r = helper(x);\n    if (r > 1000000) __builtin_trap();\n"
        "    return r + helper(x + 1);\n}\n"
        "__attribute__((cold, noinline)) static int never(int x) {\n    w = x;\n    return w;\n}\n"
        "int far_away(int x) {\n    if (__builtin_expect(x == 12345, 0)) return never(x);\n"
        "    return x ? far_away(x / 2) + 1 : 0;\n}\n");
}

/* What is asked of a linked file: its code, all of its line tables. */
typedef struct {
    uint8_t *file;
    size_t size;
    cprofi_dwarf d;
    uint64_t text, text_size;
} linked;

static void linked_section(linked *l, const char *name, uint64_t address, uint64_t offset,
                           uint64_t size) {
    static const struct {
        const char *name;
        cprofi_dwarf_section section;
    } known[] = {{".debug_line", CPROFI_DWARF_LINE}, {".debug_str", CPROFI_DWARF_STR},
                 {".debug_line_str", CPROFI_DWARF_LINE_STR},
                 {".debug_str_offsets", CPROFI_DWARF_STR_OFFSETS}};
    cprofi_span span = {l->file, l->size};
    span = cprofi_span_part(span, offset, size);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0)
            l->d.sections[known[i].section] = cprofi_source_of(span);
    if (strcmp(name, ".text") == 0) l->text = address, l->text_size = size;
}

/* Files of 32 bits, which cprof.h does not read, made here a moment ago. */
static void linked_elf32(linked *l) {
    const Elf32_Ehdr *head = (const Elf32_Ehdr *)(const void *)l->file;
    const Elf32_Shdr *s = (const Elf32_Shdr *)(const void *)(l->file + head->e_shoff);
    const char *names = (const char *)l->file + s[head->e_shstrndx].sh_offset;
    for (unsigned i = 0; i < head->e_shnum; i++)
        linked_section(l, names + s[i].sh_name, s[i].sh_addr, s[i].sh_offset, s[i].sh_size);
}

static void linked_elf(linked *l) {
    cprofi_span span = {l->file, l->size};
    cprofi_source source = cprofi_source_of(span);
    cprofi_elf elf;
    if (!cprofi_elf_open(&source, &elf)) return;
    for (size_t i = 0; i < elf.section_count; i++) {
        cprofi_elf_section s = cprofi_elf_section_at(&elf, i);
        char name[64];
        cprofi_elf_section_name(&elf, &s, name);
        linked_section(l, name, s.address, s.offset, s.size);
    }
    cprofi_elf_close(&elf);
}

/* Sections of a PE file that was made here a moment ago, so nothing is checked. */
static void linked_pe(linked *l) {
    const uint8_t *pe = l->file + cprofi_get32(l->file + 60) + 4;
    const uint8_t *optional = pe + 20, *section = optional + cprofi_get16(pe + 16);
    const uint8_t *strings = l->file + cprofi_get32(pe + 8) + 18 * cprofi_get32(pe + 12);
    uint64_t base = cprofi_get16(optional) == 0x20b ? cprofi_get64(optional + 24)
                                                    : cprofi_get32(optional + 28);
    for (unsigned i = 0; i < cprofi_get16(pe + 2); i++, section += 40) {
        char name[64] = "";
        uint32_t size = cprofi_get32(section + 8), raw = cprofi_get32(section + 16);
        memcpy(name, section, 8);
        if (name[0] == '/') {
            strncpy(name, (const char *)strings + atoi(name + 1), 63);
        }
        linked_section(l, name, base + cprofi_get32(section + 12), cprofi_get32(section + 20),
                       size < raw ? size : raw);
    }
}

static bool linked_open(linked *l, const char *name) {
    FILE *f = scratch_file(name, "rb");
    long size;
    memset(l, 0, sizeof *l);
    if (!f) return false;
    fseek(f, 0, SEEK_END);
    size = ftell(f);
    rewind(f);
    l->size = (size_t)size;
    l->file = (uint8_t *)malloc(l->size + 1);
    if (!l->file || fread(l->file, 1, l->size, f) != l->size) abort();
    fclose(f);
    if (l->size > 64 && memcmp(l->file, "MZ", 2) == 0) linked_pe(l);
    else if (l->file[4] == ELFCLASS32) linked_elf32(l);
    else linked_elf(l);
    return l->text_size && l->d.sections[CPROFI_DWARF_LINE].size;
}

typedef struct {
    const char *path; /* NULL: unknown */
    uint32_t line;
} place;

/* The answer for every byte of .text, from the first table that has one. */
static place *linked_places(const linked *l, const char *comp_dir, uint8_t address_size,
                            cprofi_text *text, unsigned *versions) {
    size_t n = (size_t)l->text_size;
    place *places = (place *)calloc(n, sizeof *places);
    cprofi_dwarf_row *rows = (cprofi_dwarf_row *)malloc(n * sizeof *rows);
    const cprofi_source *section = &l->d.sections[CPROFI_DWARF_LINE];
    cprofi_dwarf_lines t;
    memset(&t, 0, sizeof t);
    if (!places || !rows) abort();
    for (size_t i = 0; i < n; i++) rows[i].address = l->text + i;
    for (uint64_t offset = 0; offset < section->size;) {
        uint8_t head[12] = {0};
        uint64_t length;
        cprofi_source_read(section, offset, head, section->size - offset < 12 ? 4 : 12);
        length = cprofi_get32(head) == 0xffffffff ? 12 + cprofi_get64(head + 4)
                                                  : 4 + (uint64_t)cprofi_get32(head);
        if (cprofi_dwarf_lines_open(&t, &l->d, offset, address_size, comp_dir)) {
            *versions |= 1u << t.unit.version | (t.unit.offset_size == 8 ? 1u : 0u);
            cprofi_dwarf_lines_find(&t, rows, n);
            for (size_t i = 0; i < n; i++) {
                if (places[i].line || !rows[i].line) continue;
                places[i].line = rows[i].line;
                places[i].path = cprofi_dwarf_lines_file(&t, rows[i].file, text);
            }
        }
        offset += length;
    }
    cprofi_dwarf_lines_close(&t);
    free(rows);
    return places;
}

/* "/./" and "//" say nothing. */
static const char *plain(const char *path, char *out) {
    size_t n = 0;
    for (const char *p = path; *p && n < 1000; p++) {
        if (*p == '/' && p[1] == '/') continue;
        if (*p == '/' && p[1] == '.' && p[2] == '/') {
            p++;
            continue;
        }
        out[n++] = *p;
    }
    out[n] = 0;
    return out;
}

static const char *base_of(const char *path) {
    const char *slash = strrchr(path, '/'), *back = strrchr(path, '\\');
    if (back > slash || !slash) slash = back;
    return slash ? slash + 1 : path;
}

/* Compares with what a tool prints, a line an address: path:line[:column][ (discriminator n)].
   Where neither path is below `top` the unit was compiled elsewhere, so the names must do. */
static void compare(const char *what, const char *tool, const linked *l, const place *places,
                    const char *top, bool column) {
    char line[2048], first[3000] = "", a[1024], b[1024];
    size_t wrong = 0, known = 0, at = 0;
    FILE *f = scratch_file("answer", "r");
    if (!f) abort();
    while (at < l->text_size && fgets(line, sizeof line, f)) {
        const place *ours = &places[at];
        char *colon;
        uint32_t number;
        bool ok;
        line[strcspn(line, "\r\n")] = 0;
        if (!line[0]) continue;
        at++;
        if (strstr(line, " (discriminator")) *strstr(line, " (discriminator") = 0;
        colon = strrchr(line, ':');
        if (!colon) break;
        *colon = 0;
        if (column) {
            colon = strrchr(line, ':');
            if (!colon) break;
            *colon = 0;
        }
        number = (uint32_t)strtoul(colon + 1, NULL, 10);
        ok = number == ours->line;
        if (ok && number) {
            const char *mine = ours->path ? plain(ours->path, a) : "(none)", *his = plain(line, b);
            known++;
            if (strncmp(his, top, strlen(top)) == 0 || strncmp(mine, top, strlen(top)) != 0)
                ok = strcmp(mine, his) == 0;
            else
                ok = strcmp(base_of(mine), base_of(his)) == 0;
        }
        if (!ok && !wrong++)
            snprintf(first, sizeof first, "%#llx: %.500s:%u, %s says %s:%u",
                     (unsigned long long)(l->text + at - 1), ours->path ? ours->path : "(none)",
                     ours->line, tool, line, number);
    }
    fclose(f);
    check(!wrong && known > 100 && at == l->text_size, labelled("%s: as %s says", what, tool),
          "%zu of %zu wrong (%zu known, %llu asked): %s", wrong, at, known,
          (unsigned long long)l->text_size, first);
}

/* Compiles, and asks about every byte. True when the compiler could. */
static bool differential(const char *compiler, const char *flags, const char *comp_dir,
                         uint8_t address_size, unsigned *versions) {
    char what[512], top[300];
    cprofi_text text = {0};
    linked l;
    place *places;
    FILE *f;
    bool windows = strstr(compiler, "mingw") != NULL;
    unsigned seen = 0;
    snprintf(what, sizeof what, "%s %s", compiler, flags);
    snprintf(top, sizeof top, "%s", comp_dir ? comp_dir : scratch);
    remove(labelled("%s/program.out", scratch));
    if (!run("cd '%s' && %s %s -Isys -o program.out main.c sub/../sub/other.c > log 2>&1", scratch,
             compiler, flags) || !linked_open(&l, "program.out")) {
        skip(what, "it does not compile here");
        return false;
    }
    places = linked_places(&l, comp_dir, address_size, &text, &seen);
    *versions |= seen;
    f = scratch_file("ask", "w");
    if (!f) abort();
    for (uint64_t i = 0; i < l.text_size; i++)
        fprintf(f, "0x%llx\n", (unsigned long long)(l.text + i));
    fclose(f);
    if (!have("llvm-symbolizer"))
        skip(labelled("%s: as llvm-symbolizer says", what), "there is none");
    else if (run("cd '%s' && llvm-symbolizer --obj=program.out --functions=none --no-inlines < ask "
                 "> answer 2> log", scratch))
        compare(what, "llvm-symbolizer", &l, places, top, true);
    else
        check(false, labelled("%s: llvm-symbolizer runs", what), "it fails");
    /* binutils 2.40 takes file n of version 5 for file n - 1 at times: only up to version 4. */
    if (!have(windows ? "x86_64-w64-mingw32-addr2line" : "addr2line"))
        skip(labelled("%s: as addr2line says", what), "there is none");
    else if (seen >> 5 == 0 &&
             run("cd '%s' && %saddr2line -e program.out < ask > answer 2> log", scratch,
                 windows ? "x86_64-w64-mingw32-" : ""))
        compare(what, "addr2line", &l, places, top, false);
    else if (seen >> 5 == 0)
        check(false, labelled("%s: addr2line runs", what), "it fails");

    /* The real tables, damaged. */
    for (size_t i = 0, n = fuzz_rounds(50); i < n && l.d.sections[CPROFI_DWARF_LINE].size; i++) {
        cprofi_span table = l.d.sections[CPROFI_DWARF_LINE].memory;
        (void)mutate_and_use(table.data, table.size, 0, table.size);
    }
    free(places);
    free(l.file);
    cprofi_text_free(&text);
    return true;
}

static void test_compilers(void) {
    static const char *const compilers[] = {"gcc", "clang"};
    static const struct {
        const char *compiler, *flags, *comp_dir;
        uint8_t address_size;
    } more[] = {
        {"gcc", "-gdwarf-5 -gdwarf64 -O2", NULL, 8},
        {"clang", "-gdwarf-5 -gdwarf64 -O2", NULL, 8},
        {"gcc", "-gdwarf-3 -gdwarf64 -O1", scratch, 8},
        {"gcc", "-g -O2 -gno-as-loc-support", scratch, 8},
        {"gcc", "-g -O2 -gno-as-locview-support -fno-inline", scratch, 8},
        {"gcc", "-g -O2 -flto", scratch, 8},
        {"gcc", "-gdwarf-4 -O2 -ffunction-sections -Wl,--gc-sections", scratch, 8},
        {"clang", "-gdwarf-5 -O2 -ffunction-sections -Wl,--gc-sections", scratch, 8},
        {"clang", "-gdwarf-4 -O2 -ffunction-sections -fuse-ld=lld -Wl,--gc-sections", scratch, 8},
        {"gcc", "-gdwarf-5 -O2 -ffunction-sections -fuse-ld=gold -Wl,--gc-sections,--icf=all",
         scratch, 8},
        {"gcc", "-gdwarf-5 -O2 -fdebug-prefix-map=\"$PWD\"=/mapped", "/mapped", 8},
        {"gcc", "-gdwarf-4 -O2 -fdebug-prefix-map=\"$PWD\"=/mapped", "/mapped", 8},
        {"clang", "-gdwarf-5 -O2 -fdebug-prefix-map=\"$PWD\"=/mapped", "/mapped", 8},
        {"clang", "-gdwarf-4 -O2 -I\"$PWD\"/inc/../sys", scratch, 8},
        {"gcc", "-gdwarf-4 -O2 -m32 -static -nostdlib -fno-pie -no-pie -Wl,-emain", scratch, 4},
        {"clang", "-gdwarf-5 -O2 -m32 -static -nostdlib -fno-pie -no-pie -Wl,-emain", scratch, 4},
        {"x86_64-w64-mingw32-gcc", "-gdwarf-4 -O2", scratch, 8},
        {"x86_64-w64-mingw32-gcc", "-gdwarf-5 -O0 -ffunction-sections", scratch, 8},
    };
    unsigned versions = 0;
    bool all = true;
    char *real = realpath(scratch, NULL), made[256];
    strcpy(made, scratch);
    if (real && strlen(real) < sizeof scratch) strcpy(scratch, real);
    free(real);
    write_sources();
    for (size_t c = 0; c < 2; c++) {
        if (!have(compilers[c])) {
            skip(labelled("every byte of code from %s", compilers[c]), "it is not there");
            all = false;
            continue;
        }
        for (unsigned version = 2; version <= 5; version++) {
            for (unsigned level = 0; level <= 2; level += 2) {
                char flags[64];
                snprintf(flags, sizeof flags, "-gdwarf-%u -O%u", version, level);
                all = differential(compilers[c], flags, version == 5 && level ? NULL : scratch, 8,
                                   &versions) && all;
            }
        }
    }
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++) {
        if (!have(more[i].compiler))
            skip(labelled("%s %s", more[i].compiler, more[i].flags), "it is not there");
        else
            (void)differential(more[i].compiler, more[i].flags, more[i].comp_dir,
                               more[i].address_size, &versions);
    }
    if (all)
        check((versions & 0x3c) == 0x3c, "tables of all four versions were seen", "%#x", versions);
    printf("# tables in the 64-bit format were %sseen\n", versions & 1 ? "" : "not ");
    strcpy(scratch, made);
}

/* How fast the program runs by. */
static void test_large(void) {
    const char *path = getenv("CPROF_TEST_LARGE");
    enum { WANTS = 5000 };
    static cprofi_dwarf_row rows[WANTS];
    cprofi_dwarf_lines t;
    linked l;
    memset(&t, 0, sizeof t);
    if (!path) {
        printf("# timing on a large file: CPROF_TEST_LARGE is not set\n");
        return;
    }
    strcpy(scratch, "");
    if (!linked_open(&l, path[0] == '/' ? path + 1 : path)) return;
    for (size_t i = 0; i < WANTS; i++) rows[i].address = l.text + l.text_size * i / WANTS;
    for (int round = 0; round < 4; round++) {
        const cprofi_source *section = &l.d.sections[CPROFI_DWARF_LINE];
        size_t found = 0;
        double start = milliseconds();
        for (uint64_t offset = 0; offset + 4 <= section->size;) {
            if (cprofi_dwarf_lines_open(&t, &l.d, offset, 8, "/"))
                cprofi_dwarf_lines_find(&t, rows, WANTS);
            for (size_t i = 0; i < WANTS; i++) found += rows[i].line != 0;
            offset += 4 + (uint64_t)cprofi_get32(l.file + (section->memory.data - l.file) + offset);
        }
        printf("# %s: %llu KB of line tables in %.1f ms, %zu found\n", path,
               (unsigned long long)section->size / 1024, milliseconds() - start, found);
    }
    cprofi_dwarf_lines_close(&t);
    free(l.file);
}

int main(void) {
    const char *tmp = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_large();
    for (unsigned version = 2; version <= 5; version++) {
        test_program(version, false);
        test_program(version, true);
    }
    test_machines();
    test_rules();
    test_paths();
    test_forms(false);
    test_forms(true);
    test_names_damaged();
    test_refused();
    test_random();
    test_truncated();
    test_past_the_end();
    test_fuzz();
    test_hostile();
    snprintf(scratch, sizeof scratch, "%s/cprof-lines-XXXXXX", tmp);
    if (!mkdtemp(scratch)) {
        skip("real files", "no directory for them");
    } else {
        test_compilers();
        run("rm -rf '%s'", scratch);
    }
    return failures != 0;
}
