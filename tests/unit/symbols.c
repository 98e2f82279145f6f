/* Names for addresses: the ELF reader against images made here byte by byte, against a slow and
   obvious implementation of the same rules, and against binutils on files that $CC makes at run
   time; the trimming of C++ names; damaged input.

   Run:   cc -g -O1 -I. tests/unit/symbols.c -o symbols -lpthread && ./symbols
   Best with -fsanitize=address,undefined. CPROF_TEST_LARGE may name a large ELF file to time. */
#include "unit.h"

#include <elf.h>

/* There is nothing to check here: not a check left out. */
static void note(const char *name, const char *why) { printf("# %s: %s\n", name, why); }

/* The functions that hold the code at n addresses, without what was inlined into them. */
static bool resolve(cprofi_symbols *s, const cprofi_module *m, const uintptr_t *pcs, size_t n,
                    const char **names) {
    cprofi_place *places = (cprofi_place *)malloc((n + 1) * sizeof *places);
    bool ok = places && cprofi_symbols_resolve(s, m, pcs, n, places);
    for (size_t i = 0; i < n && ok; i++) names[i] = places[i].sites[places[i].count - 1].function;
    free(places);
    return ok;
}

/* ---- images made here ----

   One segment that maps the whole file to address `base`, so that offset and address differ by
   `base` only. */

enum {
    TEXT = 0x1000, PLT = 0x2000, PLT_SEC = 0x2100, PLT_GOT = 0x2200, STRINGS = 0x3000,
    DYNAMIC_STRINGS = 0x3800, SYMBOLS = 0x4000, DYNAMIC_SYMBOLS = 0x5000, RELA_PLT = 0x6000,
    RELA_DYN = 0x6800, GOT = 0x7200,
    NOTES = 0x7400, SECTION_NAMES = 0x7700, SECTIONS = 0x7800, IMAGE_SIZE = 0x8000
};

typedef struct {
    uint8_t *data;
    uint64_t base;
    size_t symbols, dynamic_symbols, rela_plt, rela_dyn, sections;
    size_t strings, dynamic_strings, names;
} image;

static void put(image *m, size_t at, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; i++) m->data[at + i] = (uint8_t)(value >> (8 * i));
}

static size_t put_string(image *m, size_t table, size_t *used, const char *text) {
    size_t at = *used;
    memcpy(m->data + table + at, text, strlen(text) + 1);
    *used += strlen(text) + 1;
    return at;
}

static void put_symbol(image *m, size_t at, uint64_t name, unsigned info, unsigned section,
                       uint64_t value, uint64_t size) {
    put(m, at, name, 4);
    put(m, at + 4, info, 1);
    put(m, at + 6, section, 2);
    put(m, at + 8, value, 8);
    put(m, at + 16, size, 8);
}

static unsigned info_of(unsigned binding, unsigned type) { return binding << 4 | type; }

static void add_symbol(image *m, const char *name, unsigned info, unsigned section, uint64_t value,
                       uint64_t size) {
    size_t text = put_string(m, STRINGS, &m->strings, name);
    put_symbol(m, SYMBOLS + m->symbols++ * 24, text, info, section, m->base + value, size);
}

static void add_function(image *m, const char *name, uint64_t value, uint64_t size) {
    add_symbol(m, name, info_of(STB_GLOBAL, STT_FUNC), 1, value, size);
}

static void add_dynamic_symbol(image *m, const char *name, unsigned info, unsigned section,
                               uint64_t value, uint64_t size) {
    size_t text = put_string(m, DYNAMIC_STRINGS, &m->dynamic_strings, name);
    put_symbol(m, DYNAMIC_SYMBOLS + m->dynamic_symbols++ * 24, text, info, section,
               section ? m->base + value : 0, size);
}

static void add_rela(image *m, bool plt, uint64_t slot, unsigned type, uint64_t symbol,
                     uint64_t addend) {
    size_t at = plt ? RELA_PLT + 24 * m->rela_plt++ : RELA_DYN + 24 * m->rela_dyn++;
    put(m, at, m->base + slot, 8);
    put(m, at + 8, symbol << 32 | type, 8);
    put(m, at + 16, addend, 8);
}

static void add_section(image *m, const char *name, unsigned type, uint64_t flags, uint64_t at,
                        uint64_t size, unsigned link, uint64_t entry) {
    size_t to = SECTIONS + m->sections++ * 64;
    put(m, to, put_string(m, SECTION_NAMES, &m->names, name), 4);
    put(m, to + 4, type, 4);
    put(m, to + 8, flags, 8);
    put(m, to + 16, flags & SHF_ALLOC ? m->base + at : 0, 8);
    put(m, to + 24, at, 8);
    put(m, to + 32, size, 8);
    put(m, to + 40, link, 4);
    put(m, to + 56, entry, 8);
}

static void put_segment(image *m, size_t i, unsigned type, unsigned flags, uint64_t at,
                        uint64_t size) {
    size_t to = 64 + i * 56;
    put(m, to, type, 4);
    put(m, to + 4, flags, 4);
    put(m, to + 8, at, 8);
    put(m, to + 16, m->base + at, 8);
    put(m, to + 24, m->base + at, 8);
    put(m, to + 32, size, 8);
    put(m, to + 40, size, 8);
}

static image image_new(uint64_t base) {
    image m;
    memset(&m, 0, sizeof m);
    m.data = (uint8_t *)calloc(1, IMAGE_SIZE);
    m.base = base;
    m.symbols = m.dynamic_symbols = 1;
    m.strings = m.dynamic_strings = m.names = 1;
    memcpy(m.data, "\177ELF", 4);
    m.data[4] = ELFCLASS64;
    m.data[5] = ELFDATA2LSB;
    m.data[6] = 1;
    put(&m, 16, ET_DYN, 2);
    put(&m, 18, EM_X86_64, 2);
    put(&m, 32, 64, 8);
    put(&m, 54, 56, 2);
    put(&m, 56, 1, 2);
    put_segment(&m, 0, PT_LOAD, PF_R | PF_X, 0, IMAGE_SIZE);
    return m;
}

/* Adds the section headers for what the image has. */
static void image_sections(image *m) {
    uint64_t code = SHF_ALLOC | SHF_EXECINSTR;
    add_section(m, "", SHT_NULL, 0, 0, 0, 0, 0);
    add_section(m, ".text", SHT_PROGBITS, code, TEXT, PLT - TEXT, 0, 0);
    add_section(m, ".plt", SHT_PROGBITS, code, PLT, 0x100, 0, 16);
    add_section(m, ".plt.sec", SHT_PROGBITS, code, PLT_SEC, 0x100, 0, 16);
    add_section(m, ".plt.got", SHT_PROGBITS, code, PLT_GOT, 0x100, 0, 8);
    add_section(m, ".strtab", SHT_STRTAB, 0, STRINGS, m->strings, 0, 0);
    add_section(m, ".dynstr", SHT_STRTAB, SHF_ALLOC, DYNAMIC_STRINGS, m->dynamic_strings, 0, 0);
    if (m->symbols > 1)
        add_section(m, ".symtab", SHT_SYMTAB, 0, SYMBOLS, m->symbols * 24, 5, 24);
    if (m->dynamic_symbols > 1)
        add_section(m, ".dynsym", SHT_DYNSYM, SHF_ALLOC, DYNAMIC_SYMBOLS,
                    m->dynamic_symbols * 24, 6, 24);
    if (m->rela_plt)
        add_section(m, ".rela.plt", SHT_RELA, SHF_ALLOC, RELA_PLT, m->rela_plt * 24, 0, 24);
    if (m->rela_dyn)
        add_section(m, ".rela.dyn", SHT_RELA, SHF_ALLOC, RELA_DYN, m->rela_dyn * 24, 0, 24);
    add_section(m, ".shstrtab", SHT_STRTAB, 0, SECTION_NAMES, 0x100, 0, 0);
    put(m, 40, SECTIONS, 8);
    put(m, 58, 64, 2);
    put(m, 60, m->sections, 2);
    put(m, 62, m->sections - 1, 2);
}

/* The name of one address, which is relative to the image; valid until the next call. */
static const char *name_in(const uint8_t *data, size_t size, uint64_t base, uint64_t address) {
    static cprofi_symbols s;
    static bool live;
    const char *name = NULL;
    cprofi_module m;
    uintptr_t pc;
    memset(&m, 0, sizeof m);
    m.slide = 0x7f0000000000u;
    m.name = "image";
    m.image.data = data;
    m.image.size = size;
    pc = m.slide + (uintptr_t)(base + address);
    if (live) cprofi_symbols_free(&s);
    live = cprofi_symbols_init(&s, NULL);
    if (!live || !resolve(&s, &m, &pc, 1, &name)) return "(out of memory)";
    return name;
}

static void expect(const image *m, const char *what, uint64_t address, const char *wanted) {
    const char *got = name_in(m->data, IMAGE_SIZE, m->base, address);
    check(strcmp(got, wanted) == 0, what, "0x%llx is %s, not %s", (unsigned long long)address, got,
          wanted);
}

static void test_rules(void) {
    image m = image_new(0);
    unsigned local = info_of(STB_LOCAL, STT_FUNC), weak = info_of(STB_WEAK, STT_FUNC);
    unsigned global = info_of(STB_GLOBAL, STT_FUNC), label = info_of(STB_GLOBAL, STT_NOTYPE);
    add_function(&m, "first", 0x1000, 0x40);
    add_function(&m, "padded", 0x1050, 0x10);
    add_symbol(&m, "unsized", label, 1, 0x1100, 0);
    add_symbol(&m, "undefined", global, 0, 0x1200, 0x40);
    add_symbol(&m, "object", info_of(STB_GLOBAL, STT_OBJECT), 1, 0x1200, 0x40);
    add_symbol(&m, "file.c", info_of(STB_LOCAL, STT_FILE), 0xfff1, 0x1200, 0x40);
    add_symbol(&m, "constant", label, 0xfff1, 0x1210, 0);
    add_symbol(&m, "local_alias", local, 1, 0x1300, 0x20);
    add_symbol(&m, "weak_alias", weak, 1, 0x1300, 0x20);
    add_symbol(&m, "the_alias", global, 1, 0x1300, 0x20);
    add_symbol(&m, "__nanosleep", global, 1, 0x1340, 0x20);
    add_symbol(&m, "nanosleep", weak, 1, 0x1340, 0x20);
    add_symbol(&m, "__nanosleep_local", local, 1, 0x1340, 0x20);
    add_function(&m, "outer", 0x1400, 0x100);
    add_function(&m, "inner", 0x1440, 0x20);
    add_symbol(&m, "label_in_outer", label, 1, 0x1480, 0);
    add_symbol(&m, "assembly", label, 1, 0x1500, 0x20);
    add_symbol(&m, "no_size", global, 1, 0x1540, 0);
    add_symbol(&m, "chosen", info_of(STB_GLOBAL, STT_GNU_IFUNC), 1, 0x1600, 0x20);
    add_function(&m, "versioned@@GLIBC_2.14", 0x1640, 0x10);
    add_symbol(&m, "split.part.0.cold.1", local, 1, 0x1680, 0x10);
    add_symbol(&m, "last", global, 1, 0x1f00, 0);
    add_dynamic_symbol(&m, "dynamic_only", global, 1, 0x1700, 0x10);
    add_dynamic_symbol(&m, "fourth", global, 1, 0x1000, 0x40);
    image_sections(&m);
    expect(&m, "first byte of a function", 0x1000, "first");
    expect(&m, "last byte of a function", 0x103f, "first");
    expect(&m, "padding after a function", 0x104f, "first");
    expect(&m, "the next function begins", 0x1050, "padded");
    expect(&m, "more than padding", 0x1070, "[image+0x1070]");
    expect(&m, "before the first symbol", 0xfff, "[image+0xfff]");
    expect(&m, "unsized label extends", 0x12ff, "unsized");
    expect(&m, "global alias before weak and local", 0x1310, "the_alias");
    expect(&m, "fewer underscores", 0x1350, "nanosleep");
    expect(&m, "nested: before", 0x143f, "outer");
    expect(&m, "nested: inside", 0x1440, "inner");
    expect(&m, "nested: after", 0x1460, "outer");
    expect(&m, "a label inside a function is not a function", 0x1490, "outer");
    expect(&m, "sized label", 0x1510, "assembly");
    expect(&m, "function without size", 0x1570, "no_size");
    expect(&m, "IFUNC", 0x1601, "chosen");
    expect(&m, "version is cut", 0x1640, "versioned");
    expect(&m, "clone suffixes are cut", 0x1681, "split");
    expect(&m, "what .symtab lacks comes from .dynsym", 0x1708, "dynamic_only");
    expect(&m, "unsized up to the end of the section", 0x1fff, "last");
    expect(&m, "and not beyond", 0x2000, "[image+0x2000]");
    expect(&m, "outside of the image", 0x123456, "[image+0x123456]");
    free(m.data);
}

static void test_plt(uint64_t base) {
    static const uint8_t classic[16] = {0xff, 0x25, 0, 0, 0, 0, 0x68, 0, 0, 0, 0, 0xe9};
    static const uint8_t second[16] = {0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25};
    image m = image_new(base);
    unsigned global = info_of(STB_GLOBAL, STT_FUNC);
    add_dynamic_symbol(&m, "puts", global, 0, 0, 0);
    add_dynamic_symbol(&m, "malloc", global, 0, 0, 0);
    add_dynamic_symbol(&m, "free", global, 0, 0, 0);
    add_dynamic_symbol(&m, "exported", global, 1, 0x1000, 0x10);
    add_symbol(&m, "exported", global, 1, 0x1000, 0x10);
    add_symbol(&m, "copy_resolver", info_of(STB_GLOBAL, STT_GNU_IFUNC), 1, 0x1800, 0x40);
    add_rela(&m, true, GOT, R_X86_64_JUMP_SLOT, 1, 0);
    add_rela(&m, true, GOT + 8, R_X86_64_JUMP_SLOT, 2, 0);
    add_rela(&m, true, GOT + 24, R_X86_64_IRELATIVE, 0, base + 0x1810);
    add_rela(&m, false, GOT + 16, R_X86_64_GLOB_DAT, 3, 0);
    memcpy(m.data + PLT + 0x10, classic, 16);
    put(&m, PLT + 0x12, GOT - (PLT + 0x16), 4);
    memcpy(m.data + PLT + 0x30, classic, 16);
    put(&m, PLT + 0x32, GOT + 24 - (PLT + 0x36), 4);
    memcpy(m.data + PLT_SEC, second, 16);
    put(&m, PLT_SEC + 7, GOT + 8 - (PLT_SEC + 11), 4);
    memcpy(m.data + PLT_GOT + 8, classic, 6);
    put(&m, PLT_GOT + 10, GOT + 16 - (PLT_GOT + 14), 4);
    image_sections(&m);
    expect(&m, "PLT entry: first byte", PLT + 0x10, "puts@plt");
    expect(&m, "PLT entry: last byte", PLT + 0x1f, "puts@plt");
    expect(&m, "entry of a split PLT", PLT_SEC + 5, "malloc@plt");
    expect(&m, "a function is not taken for a PLT entry", 0x1008, "exported");
    expect(&m, "stub of 8 bytes", PLT_GOT + 9, "free@plt");
    expect(&m, "stub of an IFUNC", PLT + 0x33, "copy_resolver@plt");
    expect(&m, "PLT0 has no name", PLT + 4, base ? "[image+0x402004]" : "[image+0x2004]");
    expect(&m, "nor has what is not a stub", PLT_SEC + 0x50,
           base ? "[image+0x402150]" : "[image+0x2150]");
    free(m.data);
}

static void test_refused(void) {
    image m = image_new(0);
    cprofi_elf elf;
    cprofi_source source;
    cprofi_span span = {m.data, IMAGE_SIZE};
    add_function(&m, "first", 0x1000, 0x40);
    image_sections(&m);
    source = cprofi_source_of(span);
    check(cprofi_elf_open(&source, &elf), "an ELF file opens", "it does not");
    cprofi_elf_close(&elf);
    m.data[5] = ELFDATA2MSB;
    check(!cprofi_elf_open(&source, &elf), "big endian is refused", "no");
    m.data[5] = ELFDATA2LSB;
    m.data[4] = ELFCLASS32;
    check(!cprofi_elf_open(&source, &elf), "32 bits are refused", "no");
    m.data[4] = ELFCLASS64;
    m.data[0] = 'M';
    check(!cprofi_elf_open(&source, &elf), "not ELF is refused", "no");
    m.data[0] = 127;
    put(&m, 40, 0xffffffffffffff00u, 8);
    put(&m, 32, 0, 8);
    check(!cprofi_elf_open(&source, &elf), "no tables: refused", "no");
    span.size = 20;
    source = cprofi_source_of(span);
    check(!cprofi_elf_open(&source, &elf), "20 bytes are refused", "no");
    expect(&m, "nameless, not crashed", 0x1000, "[image+0x1000]");
    free(m.data);
}

/* ---- the same rules, slow and obvious ---- */

typedef struct {
    char name[16];
    uint64_t value, size;
    unsigned binding, type;
} plain_symbol;

static size_t bars(const char *s) { return strspn(s, "_"); }

static bool plain_nicer(const plain_symbol *a, const plain_symbol *b) {
    bool function[2] = {a->type == STT_FUNC, b->type == STT_FUNC};
    if (function[0] != function[1]) return function[0];
    if (!a->size != !b->size) return a->size != 0;
    if ((a->binding == STB_LOCAL) != (b->binding == STB_LOCAL)) return b->binding == STB_LOCAL;
    if (bars(a->name) != bars(b->name)) return bars(a->name) < bars(b->name);
    if (a->binding != b->binding) return b->binding == STB_WEAK;
    if (strlen(a->name) != strlen(b->name)) return strlen(a->name) < strlen(b->name);
    return strcmp(a->name, b->name) < 0;
}

static const plain_symbol *plain_find(const plain_symbol *list, size_t n, uint64_t address) {
    const plain_symbol *function = NULL, *label = NULL, *before = NULL;
    static const uint64_t sections[] = {TEXT, PLT, PLT_SEC, PLT_GOT};
    uint64_t floor = 0;
    if (address >= PLT_GOT + 0x100) return NULL;
    for (size_t i = 0; i < 4; i++)
        if (address >= sections[i]) floor = sections[i];
    if (!floor) return NULL; /* no section is there */
    for (size_t i = 0; i < n; i++) {
        const plain_symbol *s = &list[i], **best = s->type == STT_FUNC ? &function : &label;
        if (s->value > address) continue;
        if (address - s->value < s->size &&
            (!*best || s->value > (*best)->value ||
             (s->value == (*best)->value && plain_nicer(s, *best))))
            *best = s;
        if (!before || s->value > before->value ||
            (s->value == before->value && plain_nicer(s, before)))
            before = s;
    }
    if (function && function->value >= floor) return function;
    if (!function && label && label->value >= floor) return label;
    if (before && before->value >= floor &&
        (!before->size || address - before->value - before->size < 16)) return before;
    return NULL;
}

static void test_reference(void) {
    enum { ROUNDS = 300, SYMBOL_COUNT = 40, ADDRESSES = 100 };
    size_t wrong = 0;
    for (int round = 0; round < ROUNDS; round++) {
        image m = image_new(0);
        plain_symbol list[SYMBOL_COUNT];
        uintptr_t pcs[ADDRESSES];
        const char *names[ADDRESSES];
        size_t n = 0, range = round % 3 ? 0x300 : 0x1200;
        cprofi_symbols s;
        cprofi_module module;
        for (size_t i = 0; i < SYMBOL_COUNT; i++) {
            plain_symbol *p = &list[i];
            snprintf(p->name, sizeof p->name, "%.*sf%u", (int)random_below(3), "__",
                     (unsigned)random_below(1000));
            p->value = TEXT - 0x40 + random_below(range) / 4 * 4;
            p->size = random_below(3) ? random_below(random_below(2) ? 0x20 : 0x200) : 0;
            p->binding = (unsigned)random_below(3);
            p->type = random_below(3) ? STT_FUNC : STT_NOTYPE;
            add_symbol(&m, p->name, info_of(p->binding, p->type), 1, p->value, p->size);
        }
        image_sections(&m);
        for (uintptr_t at = TEXT - 0x20; n < ADDRESSES; at += 1 + random_below(range / 40))
            pcs[n++] = at;
        memset(&module, 0, sizeof module);
        module.name = "image";
        module.image.data = m.data;
        module.image.size = IMAGE_SIZE;
        if (!cprofi_symbols_init(&s, NULL) || !resolve(&s, &module, pcs, n, names)) break;
        for (size_t i = 0; i < n; i++) {
            const plain_symbol *p = plain_find(list, SYMBOL_COUNT, pcs[i]);
            if (strcmp(p ? p->name : "[", p ? names[i] : names[i][0] == '[' ? "[" : "") == 0)
                continue;
            if (!wrong++)
                printf("# round %d, 0x%llx: %s, not %s\n", round, (unsigned long long)pcs[i],
                       names[i], p ? p->name : "nameless");
        }
        cprofi_symbols_free(&s);
        free(m.data);
    }
    check(wrong == 0, "30000 random addresses agree with a linear search", "%zu differ", wrong);
}

/* ---- readable names ---- */

static void test_trim(void) {
    static const char *const table[][2] = {
        {"f(int)", "f"},
        {"f", "f"},
        {"ns::f(int, char const*)", "ns::f"},
        {"void ns::f<int>(int)", "ns::f<int>"},
        {"unsigned long f<int>(int)", "f<int>"},
        {"std::map<int, std::vector<int> >& ns::get<1>(ns::T const&)", "ns::get<1>"},
        {"char const* const f<int>()", "f<int>"},
        {"ns::Class<int>::method(int) const", "ns::Class<int>::method"},
        {"ns::Class::method() &&", "ns::Class::method"},
        {"ns::Class::method() const volatile &", "ns::Class::method"},
        {"ns::Class::~Class()", "ns::Class::~Class"},
        {"A::f[abi:cxx11](int)", "A::f[abi:cxx11]"},
        {"(anonymous namespace)::f(int)", "(anonymous namespace)::f"},
        {"void (anonymous namespace)::f<int>(int)", "(anonymous namespace)::f<int>"},
        {"ns::(anonymous namespace)::C::f((anonymous namespace)::T)",
         "ns::(anonymous namespace)::C::f"},
        {"C::operator()(int) const", "C::operator()"},
        {"void C::operator()<int>(int) const", "C::operator()<int>"},
        {"C::operator[](unsigned long)", "C::operator[]"},
        {"C::operator->()", "C::operator->"},
        {"C::operator->*(int)", "C::operator->*"},
        {"operator<(A const&, A const&)", "operator<"},
        {"bool operator< <int>(A<int> const&, A<int> const&)", "operator< <int>"},
        {"bool operator<<int>(A<int> const&)", "operator<<int>"},
        {"std::ostream& std::operator<< <std::char_traits<char> >(std::ostream&, char const*)",
         "std::operator<< <std::char_traits<char> >"},
        {"std::ostream& std::operator<<<char>(std::ostream&)", "std::operator<<<char>"},
        {"std::ostream& ns::operator<<(std::ostream&, ns::T)", "ns::operator<<"},
        {"C::operator<<=(int)", "C::operator<<="},
        {"C::operator<=>(C const&) const", "C::operator<=>"},
        {"bool operator> <int>(A<int>, A<int>)", "operator> <int>"},
        {"C::operator>>(int)", "C::operator>>"},
        {"C::operator,(int)", "C::operator,"},
        {"C::operator&&(bool)", "C::operator&&"},
        {"C::operator*() const", "C::operator*"},
        {"C::operator=(C const&)", "C::operator="},
        {"C::operator bool() const", "C::operator bool"},
        {"C::operator int&() const", "C::operator int&"},
        {"C::operator std::vector<int, std::allocator<int> >() const",
         "C::operator std::vector<int, std::allocator<int> >"},
        {"C::operator void (*)(int)()", "C::operator void (*)(int)"},
        {"C::operator int (&) [3]()", "C::operator int (&) [3]"},
        {"main::{lambda(int)#1}::operator void (*)(int)() const",
         "main::{lambda(int)#1}::operator void (*)(int)"},
        {"operator new(unsigned long)", "operator new"},
        {"operator delete[](void*, unsigned long)", "operator delete[]"},
        {"C::operator newtype() const", "C::operator newtype"},
        {"operator\"\" _kb(unsigned long long)", "operator\"\" _kb"},
        {"operator_table(int)", "operator_table"},
        {"my_operator(int)", "my_operator"},
        {"my_operator<int>(int)", "my_operator<int>"},
        {"main::{lambda(int)#1}::operator()(int) const", "main::{lambda(int)#1}::operator()"},
        {"f(int)::{lambda(int)#1}::operator()(int) const", "f::{lambda(int)#1}::operator()"},
        {"A::f(int) const::{lambda()#2}::operator()() const", "A::f::{lambda()#2}::operator()"},
        {"auto f(int)::{lambda(auto:1)#1}::operator()<int>(int) const",
         "f::{lambda(auto:1)#1}::operator()<int>"},
        {"f(int)::'lambda'(char)::operator()(char) const", "f::'lambda'::operator()"},
        {"f()::$_0::operator()(int) const", "f::$_0::operator()"},
        {"main::{lambda(int)#1}::_FUN(int)", "main::{lambda(int)#1}::_FUN"},
        {"A::f(int)::Local::g()", "A::f::Local::g"},
        {"f({unnamed type#1})", "f"},
        {"A<void (*)(int)>::f(int)", "A<void (*)(int)>::f"},
        {"void std::__invoke_impl<void, main::{lambda()#1}>(std::__invoke_other, "
         "main::{lambda()#1}&&)",
         "std::__invoke_impl<void, main::{lambda()#1}>"},
        {"std::function<int (int, char)>::operator()(int, char) const",
         "std::function<int (int, char)>::operator()"},
        {"void (*f(int))(char)", "f"},
        {"void (*ns::f<int>(int))(char)", "ns::f<int>"},
        {"void (*(*f(int))(char))(double)", "f"},
        {"int A::*f<int>()", "f<int>"},
        {"void (A::*get(int))(char)", "get"},
        {"int (&f<int>())[3]", "f<int>"},
        {"decltype (a(b)) f<int>(int)", "f<int>"},
        {"decltype(a(b)) f<int>(int)", "f<int>"},
        {"decltype (auto) f<int>(int)", "f<int>"},
        {"decltype ((({parm#1}.g)())->h) ns::f<int>(int)", "ns::f<int>"},
        {"std::enable_if<((1)>(2)), int>::type f<int>(int)", "f<int>"},
        {"A<((1)<(2))>::f(int)", "A<((1)<(2))>::f"},
        {"A<(2 >> 1)>::f(int)", "A<(2 >> 1)>::f"},
        {"A<&(B::operator<(int))>::f(int)", "A<&(B::operator<(int))>::f"},
        {"A<&B::operator<>::f(int)", "A<&B::operator<>::f"},
        {"A<&(B::operator->())>::f()", "A<&(B::operator->())>::f"},
        {"A<(char)40>::f()", "A<(char)40>::f"},
        {"non-virtual thunk to A::f(int)", "non-virtual thunk to A::f"},
        {"virtual thunk to A::~A()", "virtual thunk to A::~A"},
        {"TLS init function for ns::x", "TLS init function for ns::x"},
        {"ns::f(int) [clone .avx2]", "ns::f [clone .avx2]"},
        {"void ns::f<int>(int) const [clone ._omp_fn.0]", "ns::f<int> [clone ._omp_fn.0]"},
        {"ns::f(int) (.resolver)", "ns::f (.resolver)"},
        {"f() [clone .a] [clone .b]", "f [clone .a] [clone .b]"},
        {"A<int", NULL},
        {"f(int", NULL},
        {"f)", NULL},
        {"", NULL},
        {"A<(int>)", NULL},
        {"C::operator bool", NULL},
        {"int ", NULL},
    };
    size_t wrong = 0, count = sizeof table / sizeof table[0];
    for (size_t i = 0; i < count; i++) {
        char out[512];
        bool ok = cprofi_demangled_trim(table[i][0], out);
        if (ok ? table[i][1] && strcmp(out, table[i][1]) == 0 : !table[i][1]) continue;
        wrong++;
        printf("# %s: %s, not %s\n", table[i][0], ok ? out : "(refused)",
               table[i][1] ? table[i][1] : "(refused)");
    }
    check(wrong == 0, "C++ names lose parameters and return type, nothing else",
          "%zu of %zu are wrong", wrong, count);
}

static void test_cut(void) {
    static const char *const table[][2] = {
        {"foo", "foo"},
        {"foo.cold", "foo"},
        {"foo.cold.12", "foo"},
        {"foo.part.0", "foo"},
        {"foo.warm", "foo"},
        {"foo.constprop.0.isra.0.cold", "foo"},
        {"_ZN1A1fEv.llvm.1234567890", "_ZN1A1fEv"},
        {"foo.lto_priv.3", "foo"},
        {"foo.__uniq.123.llvm.4", "foo"},
        {"foo.localalias", "foo"},
        {"foo.avx2", "foo.avx2"},
        {"foo._omp_fn.0", "foo._omp_fn.0"},
        {"foo.1", "foo.1"},
        {".cold", ".cold"},
        {".part.1", ".part.1"},
        {"cold", "cold"},
        {"foo_cold", "foo_cold"},
        {"memcpy@@GLIBC_2.14", "memcpy"},
        {"memcpy@GLIBC_2.2.5", "memcpy"},
        {"foo.cold@@V1", "foo"},
        {"@x", "@x"},
        {"12345", "12345"},
        {".5", ".5"},
        {"", ""},
    };
    size_t wrong = 0;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s", table[i][0]);
        cprofi_name_cut(name);
        if (strcmp(name, table[i][1]) == 0) continue;
        wrong++;
        printf("# %s: %s, not %s\n", table[i][0], name, table[i][1]);
    }
    check(wrong == 0, "versions and clone suffixes are cut", "%zu are wrong", wrong);
}

static char *fake_demangle(const char *name, char *buffer, size_t *size, int *status) {
    (void)buffer;
    (void)size;
    *status = strcmp(name, "_Z3fooi") == 0 ? 0 : -2;
    return *status ? NULL : strdup("int foo<char>(int) [clone .avx2]");
}

static void test_show(void) {
    cprofi_symbols s;
    char cpp[] = "_Z3fooi.cold", bad[] = "_Znonsense", c[] = "bar@@V";
    char rust[] = "_ZN4core3fmt5write17h0123456789abcdefE";
    if (!cprofi_symbols_init(&s, NULL)) return;
    s.demangle = fake_demangle;
    check(strcmp(cprofi_symbols_plt(&s, cprofi_symbols_show(&s, cpp)), "foo<char> [clone .avx2]@plt") == 0,
          "a C++ name is demangled, trimmed and marked", "it is not");
    check(strcmp(cprofi_symbols_show(&s, bad), "_Znonsense") == 0,
          "what the demangler refuses stays", "it does not");
    check(strcmp(cprofi_symbols_show(&s, c), "bar") == 0, "a C name loses its version", "wrong");
    check(strcmp(cprofi_symbols_show(&s, rust), "core::fmt::write") == 0,
          "Rust names are not the C++ demangler's", "it is");
    cprofi_symbols_free(&s);
}

static void test_trim_fuzz(void) {
    static const char *const words[] = {"operator", "<",  ">", "(", ")",  "::",        " ",
                                        "f",        "{",  "}", "[", "]",  "decltype ", "*",
                                        "&",        "->", "~", ",", "\"", " [clone ",  "'",
                                        "(anonymous namespace)", " const", "$", "1", "operator "};
    for (int round = 0; round < 200000; round++) {
        char text[256];
        size_t n = 0, count = 1 + random_below(16);
        char *in, *out;
        for (size_t i = 0; i < count; i++) {
            const char *w = words[random_below(sizeof words / sizeof words[0])];
            memcpy(text + n, w, strlen(w) + 1);
            n += strlen(w);
        }
        in = (char *)malloc(n + 1);
        out = (char *)malloc(n + 1);
        memcpy(in, text, n + 1);
        if (cprofi_demangled_trim(in, out) && strlen(out) > n) abort();
        cprofi_name_cut(in);
        free(in);
        free(out);
    }
    check(true, "200000 random token sequences are trimmed or refused", "");
}

/* ---- real files, against binutils ---- */

static char scratch[256];

static bool write_text(const char *name, const char *text) {
    char path[512];
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    f = fopen(path, "w");
    if (!f) return false;
    fputs(text, f);
    return fclose(f) == 0;
}

/* The record a loaded module would have, made from the file; the path is not copied. */
static bool module_of(const char *path, uintptr_t slide, cprofi_module *m) {
    cprofi_source source;
    cprofi_elf elf;
    memset(m, 0, sizeof *m);
    m->path = path;
    m->name = "module";
    m->slide = slide;
    m->lo = UINTPTR_MAX;
    if (!cprofi_source_open(path, &source)) return false;
    if (cprofi_elf_open(&source, &elf)) {
        m->build_id_size = cprofi_elf_build_id(&elf, m->build_id);
        for (size_t i = 0; i < elf.segment_count; i++) {
            cprofi_elf_segment s = cprofi_elf_segment_at(&elf, i);
            if (s.type != CPROFI_PT_LOAD) continue;
            if (slide + s.address < m->lo) m->lo = slide + (uintptr_t)s.address;
            if (slide + s.address + s.memory_size > m->hi)
                m->hi = slide + (uintptr_t)(s.address + s.memory_size);
        }
        cprofi_elf_close(&elf);
    }
    cprofi_source_close(&source);
    return m->lo < m->hi;
}

typedef struct {
    uint64_t value, size;
    char name[232];
} binutils_symbol;

static int compare_addresses(const void *a, const void *b) {
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return x < y ? -1 : x > y;
}

/* Drops what is twice in a sorted list; the new length. */
static size_t distinct(uintptr_t *list, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (!kept || list[i] != list[kept - 1]) list[kept++] = list[i];
    return kept;
}

/* The functions nm lists. */
static binutils_symbol *nm(const char *path, const char *options, size_t *count) {
    char command[1024], line[4096];
    binutils_symbol *list = NULL;
    size_t capacity = 0;
    FILE *f;
    *count = 0;
    snprintf(command, sizeof command, "nm -S --defined-only %s '%s' 2>/dev/null", options, path);
    f = popen(command, "r");
    if (!f) return NULL;
    while (fgets(line, sizeof line, f)) {
        unsigned long long value, size;
        char type, name[232];
        if (sscanf(line, "%llx %llx %c %231s", &value, &size, &type, name) != 4) continue;
        if (!strchr("tTwWi", type) || !size) continue;
        if (*count == capacity) {
            capacity = capacity ? capacity * 2 : 256;
            list = (binutils_symbol *)realloc(list, capacity * sizeof *list);
            if (!list) abort();
        }
        cprofi_name_cut(name);
        list[*count].value = value;
        list[*count].size = size;
        snprintf(list[(*count)++].name, sizeof name, "%s", name);
    }
    pclose(f);
    return list;
}

/* Whether `name` is that of a function over `address`, and where that begins. */
static bool covers(const binutils_symbol *list, size_t count, uint64_t address, const char *name,
                   uint64_t start, uint64_t *found) {
    for (size_t i = 0; i < count; i++) {
        if (address - list[i].value >= list[i].size || strcmp(list[i].name, name) != 0) continue;
        if (found) *found = list[i].value;
        else if (list[i].value != start) continue;
        return true;
    }
    return false;
}

/* Start, middle and last byte of every function: our name is one nm gives to a function there, and
   that function begins where the one addr2line names begins. */
static void test_binutils(const char *what, const char *path, const char *options,
                          uintptr_t slide) {
    size_t count, n = 0, unknown = 0, wrong = 0, disagree = 0, silent = 0;
    binutils_symbol *list = nm(path, options, &count);
    uintptr_t *pcs = (uintptr_t *)malloc((count * 3 + 1) * sizeof *pcs);
    const char **names = (const char **)malloc((count * 3 + 1) * sizeof *names);
    char command[1024], line[4096], place[4096];
    cprofi_symbols s;
    cprofi_module m;
    FILE *f;
    if (!count || !module_of(path, slide, &m)) {
        note(what, "nm finds nothing in the file");
        free(list);
        free(pcs);
        free(names);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        pcs[n++] = slide + (uintptr_t)list[i].value;
        pcs[n++] = slide + (uintptr_t)(list[i].value + list[i].size / 2);
        pcs[n++] = slide + (uintptr_t)(list[i].value + list[i].size - 1);
    }
    qsort(pcs, n, sizeof *pcs, compare_addresses);
    n = distinct(pcs, n);
    snprintf(command, sizeof command, "%s/addresses", scratch);
    f = fopen(command, "w");
    for (size_t i = 0; f && i < n; i++) fprintf(f, "%llx\n", (unsigned long long)(pcs[i] - slide));
    if (f) fclose(f);
    snprintf(command, sizeof command, "addr2line -f -e '%s' <'%s/addresses' 2>/dev/null", path,
             scratch);
    f = popen(command, "r");
    if (!f || !cprofi_symbols_init(&s, NULL) || !resolve(&s, &m, pcs, n, names)) abort();
    for (size_t i = 0; i < n; i++) {
        uint64_t address = pcs[i] - slide, start = 0;
        bool answered = fgets(line, sizeof line, f) && fgets(place, sizeof place, f);
        if (names[i][0] == '[') unknown++;
        else if (!covers(list, count, address, names[i], 0, &start)) {
            if (!wrong++)
                printf("# 0x%llx: %s is not there\n", (unsigned long long)address, names[i]);
            continue;
        }
        if (!answered || line[0] == '?') {
            silent++;
            continue;
        }
        line[strcspn(line, "\n")] = 0;
        cprofi_name_cut(line);
        if (strcmp(line, names[i]) == 0) continue;
        if (!covers(list, count, address, line, start, NULL) && !disagree++)
            printf("# 0x%llx: %s, addr2line says %s\n", (unsigned long long)address, names[i],
                   line);
    }
    pclose(f);
    printf("# %s: %zu functions, %zu addresses, addr2line silent at %zu\n", what, count, n, silent);
    check(!unknown && !wrong && !disagree, what, "%zu unnamed, %zu wrong, %zu not addr2line's",
          unknown, wrong, disagree);
    cprofi_symbols_free(&s);
    free(list);
    free(pcs);
    free(names);
}

static const char program_text[] =
    "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
    "int exported(int x) { return x * 3 + VALUE; }\n"
    "static __attribute__((noinline)) int hidden(int x) { if (x > 9) abort(); return x + 2; }\n"
    "__attribute__((weak)) int weak_one(int x) { return hidden(x) + 1; }\n"
    "int strong(int x) __attribute__((alias(\"weak_one\")));\n"
    "static __attribute__((noinline)) int compare(const void *a, const void *b)\n"
    "{ return *(const char *)a - *(const char *)b; }\n"
    "__asm__(\".text\\nassembly_label:\\n nop\\n nop\\n ret\\n\");\n"
    "int work(char *s) { qsort(s, strlen(s), 1, compare); return printf(\"%s\\n\", s); }\n"
    "int main(int argc, char **argv) {\n"
    "    char *s = strdup(argv[0]);\n"
    "    int n = work(s) + exported(argc) + weak_one(argc);\n"
    "    free(s);\n    return n == 0;\n}\n";

/* Every stub of the PLT that objdump names has our name. */
static void test_stubs(const char *what, const char *path) {
    char command[1024], line[1024];
    size_t count = 0, wrong = 0;
    cprofi_module m;
    FILE *f;
    snprintf(command, sizeof command, "objdump -d '%s' 2>/dev/null | grep '@plt.*>:$'", path);
    f = popen(command, "r");
    if (!f || !module_of(path, 0, &m)) {
        if (f) pclose(f);
        skip(what, "cannot be read");
        return;
    }
    while (fgets(line, sizeof line, f)) {
        unsigned long long address;
        char name[256];
        const char *got[1];
        uintptr_t pc;
        cprofi_symbols s;
        if (sscanf(line, "%llx <%255[^>]>", &address, name) != 2 || name[0] == '*') continue;
        if (strlen(name) < 4 || strcmp(name + strlen(name) - 4, "@plt") != 0) continue; /* PLT0 */
        pc = (uintptr_t)address + 1;
        if (!cprofi_symbols_init(&s, NULL) || !resolve(&s, &m, &pc, 1, got)) abort();
        count++;
        if (strcmp(got[0], name) != 0 && !wrong++) printf("# %s, not %s\n", got[0], name);
        cprofi_symbols_free(&s);
    }
    pclose(f);
    if (!count) note(what, "objdump names no stub");
    else check(!wrong, what, "%zu of %zu are wrong", wrong, count);
}

static void test_compiled(void) {
    static const char *const kinds[][2] = {
        {"pie", "-O2 -pie -fPIE"},
        {"nonpie", "-O2 -no-pie -fno-pie"},
        {"static", "-O1 -static"},
        {"cet", "-O2 -fcf-protection=full -Wl,-z,lazy"},
        {"noplt", "-O2 -fno-plt"},
        {"split", "-Os -ffunction-sections -falign-functions=64"},
        {"prelinked.so", "-O2 -shared -fPIC -Wl,-Ttext-segment=0x30000000"},
        {"library.so", "-O2 -shared -fPIC"},
        {"noid", "-O2 -Wl,--build-id=none"},
        {"oldhash", "-O2 -Wl,--hash-style=sysv"},
        {"gnuhash", "-O2 -rdynamic -Wl,--hash-style=gnu"},
    };
    const char *cc = getenv("CC") ? getenv("CC") : "cc";
    char path[512], what[128];
    if (!write_text("program.c", program_text)) return;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        uintptr_t slide = i % 2 ? 0 : 0x550000000000u;
        snprintf(path, sizeof path, "%s/%s", scratch, kinds[i][0]);
        snprintf(what, sizeof what, "compiled: %s", kinds[i][0]);
        if (!run("%s -g0 -DVALUE=1 %s -Wl,--build-id=sha1 -o '%s' '%s/program.c' %s 2>/dev/null",
                 cc, kinds[i][1], path, scratch,
                 strcmp(kinds[i][0], "noid") ? "" : "-Wl,--build-id=none")) {
            skip(what, "does not compile here");
            continue;
        }
        test_binutils(what, path, "", slide);
        snprintf(what, sizeof what, "stubs: %s", kinds[i][0]);
        test_stubs(what, path);
        if (!run("strip '%s' 2>/dev/null", path)) continue;
        snprintf(what, sizeof what, "stripped: %s", kinds[i][0]);
        test_binutils(what, path, "-D", slide);
        snprintf(what, sizeof what, "stripped stubs: %s", kinds[i][0]);
        test_stubs(what, path);
    }
}

/* ---- C++ ---- */

static const char cpp_text[] =
    "#include <ostream>\n#include <vector>\n#include <functional>\n"
    "namespace ns {\n"
    "template <class T> struct Box {\n"
    "    T v;\n"
    "    __attribute__((noinline)) T get(int x) const { return T(v + x); }\n"
    "    __attribute__((noinline)) operator bool() const { return v != 0; }\n"
    "    __attribute__((noinline)) T operator()(T a) { return T(a * v); }\n"
    "    __attribute__((noinline)) bool operator<(const Box &o) const { return v < o.v; }\n"
    "};\n"
    "template <class T> __attribute__((noinline)) std::vector<T> make(T x, int n)\n"
    "{ return std::vector<T>((size_t)n, x); }\n"
    "template <class T> __attribute__((noinline)) bool operator>(Box<T> a, Box<T> b)\n"
    "{ return b < a; }\n"
    "__attribute__((noinline)) std::ostream &operator<<(std::ostream &o, Box<int> b)\n"
    "{ return o << b.v; }\n"
    "template struct Box<int>;\n"
    "template std::vector<int> make<int>(int, int);\n"
    "template bool operator><int>(Box<int>, Box<int>);\n"
    "}\n"
    "namespace { __attribute__((noinline, used)) int secret(void (*f)(int))\n"
    "{ f(1); return 1; } }\n"
    "void (*returns_function(int x))(char) { return x ? (void (*)(char))0 : 0; }\n"
    "std::function<int(int)> closure(int x) { return [x](int y) { return x + y; }; }\n";

static void test_cpp(void) {
    static const char *const wanted[] = {
        "ns::Box<int>::get",     "ns::Box<int>::operator bool",  "ns::Box<int>::operator()",
        "ns::operator<<",        "ns::Box<int>::operator<",      "ns::make<int>",
        "returns_function",      "(anonymous namespace)::secret", "ns::operator><int>",
        "closure",
    };
    const char *cxx = getenv("CXX") ? getenv("CXX") : "c++";
    size_t count, n = 0;
    char path[512];
    cprofi_symbols s;
    cprofi_module m;
    cprofi_dlopen_fn open_library = NULL;
    void *library = NULL;
    if (cprofi_dl_find(NULL, "dlopen", &open_library, sizeof open_library))
        library = open_library("libstdc++.so.6", RTLD_LAZY | RTLD_LOCAL);
    snprintf(path, sizeof path, "%s/cpp.so", scratch);
    if (!library || !write_text("cpp.cc", cpp_text) ||
        !run("%s -g0 -O1 -std=c++11 -shared -fPIC -o '%s' '%s/cpp.cc' 2>/dev/null", cxx, path,
             scratch) ||
        !module_of(path, 0, &m)) {
        skip("C++", "no libstdc++ or no compiler");
        return;
    }
    binutils_symbol *list = nm(path, "", &count);
    uintptr_t *pcs = (uintptr_t *)malloc((count + 1) * sizeof *pcs);
    const char **names = (const char **)malloc((count + 1) * sizeof *names);
    for (size_t i = 0; i < count; i++) pcs[n++] = (uintptr_t)list[i].value;
    qsort(pcs, n, sizeof *pcs, compare_addresses);
    n = distinct(pcs, n);
    if (!cprofi_symbols_init(&s, NULL) || !resolve(&s, &m, pcs, n, names)) abort();
    for (size_t w = 0; w < sizeof wanted / sizeof wanted[0]; w++) {
        size_t seen = 0;
        char alternative[64], what[96];
        snprintf(alternative, sizeof alternative, "%s", wanted[w]);
        if (strstr(wanted[w], "><")) /* libiberty writes a space there */
            snprintf(alternative, sizeof alternative, "ns::operator> <int>");
        for (size_t i = 0; i < n; i++)
            seen += strcmp(names[i], wanted[w]) == 0 || strcmp(names[i], alternative) == 0;
        snprintf(what, sizeof what, "C++: %s", wanted[w]);
        check(seen == 1, what, "seen %zu times", seen);
    }
    {
        size_t lambdas = 0, mangled = 0;
        for (size_t i = 0; i < n; i++) {
            lambdas += strncmp(names[i], "closure::{lambda(int)#1}", 23) == 0 ||
                       strstr(names[i], "closure(int)::{lambda(int)#1}") != NULL ||
                       strstr(names[i], "closure(int)::$_") != NULL;
            mangled += strncmp(names[i], "_Z", 2) == 0;
        }
        check(lambdas > 0 && !mangled, "C++: a lambda, and no name stays mangled",
              "%zu lambdas, %zu mangled", lambdas, mangled);
    }
    cprofi_symbols_free(&s);
    cprofi_demangler_close(library);
    free(list);
    free(pcs);
    free(names);
}

/* ---- is it the right file ---- */

__attribute__((noinline)) int symbols_test_target(int x);
int symbols_test_target(int x) { return x * 7 + failures; }

static void test_identity(void) {
    const char *cc = getenv("CC") ? getenv("CC") : "cc";
    char path[512], other[512];
    const char *name;
    cprofi_module m;
    cprofi_symbols s;
    size_t count;
    binutils_symbol *list;
    uintptr_t pc;
    snprintf(path, sizeof path, "%s/rebuilt", scratch);
    if (!run("%s -g0 -O2 -DVALUE=1 -Wl,--build-id=sha1 -o '%s' '%s/program.c'", cc, path,
             scratch) || !module_of(path, 0, &m)) {
        skip("build ids", "does not compile here");
        return;
    }
    list = nm(path, "", &count);
    pc = count ? (uintptr_t)list[0].value : 0;
    free(list);
    if (!cprofi_symbols_init(&s, NULL)) abort();
    if (!resolve(&s, &m, &pc, 1, &name)) abort();
    check(m.build_id_size == 20 && name[0] != '[' && !s.remarks.modules[CPROFI_REMARK_REPLACED], "the same build id is used",
          "it is %s", name);
    if (!run("%s -g0 -O2 -DVALUE=2 -Wl,--build-id=sha1 -o '%s' '%s/program.c'", cc, path, scratch))
        abort();
    if (!resolve(&s, &m, &pc, 1, &name)) abort();
    check(name[0] == '[' && s.remarks.modules[CPROFI_REMARK_REPLACED] == 1 &&
              strcmp(s.remarks.first[CPROFI_REMARK_REPLACED], m.name) == 0,
          "a rebuilt file is not used, and counted", "it is %s", name);
    m.path = "/nonexistent/file";
    if (!resolve(&s, &m, &pc, 1, &name)) abort();
    check(name[0] == '[' && s.remarks.modules[CPROFI_REMARK_MISSING] == 1, "a deleted file is counted", "it is %s", name);
    m.path = scratch;
    if (!resolve(&s, &m, &pc, 1, &name)) abort();
    check(name[0] == '[', "a directory is no image", "it is %s", name);
    snprintf(other, sizeof other, "%s/fifo", scratch);
    m.path = other;
    if (run("mkfifo '%s'", other)) {
        if (!resolve(&s, &m, &pc, 1, &name)) abort();
        check(name[0] == '[', "a FIFO does not block", "it is %s", name);
    }
    cprofi_symbols_free(&s);

    /* Our own program, whose path is gone. */
    if (module_of("/proc/self/exe", 0, &m)) {
        uintptr_t headers = (uintptr_t)getauxval(AT_PHDR), lo = m.lo, hi = m.hi;
        cprofi_source source;
        cprofi_elf elf;
        if (!cprofi_source_open("/proc/self/exe", &source) ||
            !cprofi_elf_open(&source, &elf))
            abort();
        for (size_t i = 0; i < elf.segment_count; i++) {
            cprofi_elf_segment g = cprofi_elf_segment_at(&elf, i);
            if (g.type == PT_PHDR) m.slide = headers - (uintptr_t)g.address;
        }
        cprofi_elf_close(&elf);
        cprofi_source_close(&source);
        m.path = "/nonexistent/program";
        m.lo = lo + m.slide;
        m.hi = hi + m.slide;
        pc = (uintptr_t)&symbols_test_target;
        if (!cprofi_symbols_init(&s, NULL) || !resolve(&s, &m, &pc, 1, &name)) abort();
        check(strcmp(name, "symbols_test_target") == 0, "the program itself, its file gone",
              "it is %s", name);
        m.build_id_size = 3;
        if (!resolve(&s, &m, &pc, 1, &name)) abort();
        check(name[0] == '[', "but not another program's", "it is %s", name);
        cprofi_symbols_free(&s);
    }
}

/* ---- what is loaded here ---- */

static int find_library(struct dl_phdr_info *info, size_t size, void *user) {
    (void)size;
    if (!info->dlpi_name || !strstr(info->dlpi_name, "libc.so")) return 0;
    snprintf((char *)user, 512, "%s", info->dlpi_name);
    return 1;
}

static void test_loaded(void) {
    char libc[512] = "", path[512];
    uintptr_t base = (uintptr_t)getauxval(AT_SYSINFO_EHDR);
    cprofi_module m;
    cprofi_symbols s;
    dl_iterate_phdr(find_library, libc);
    /* addr2line would find installed debug information, and with it other aliases */
    snprintf(path, sizeof path, "%s/libc.so", scratch);
    if (!libc[0]) skip("libc", "not a shared library here");
    else if (!run("objcopy -R .gnu_debuglink -R .note.gnu.build-id '%s' '%s'", libc, path))
        skip("libc", "cannot be copied");
    else test_binutils("libc", path, "-D", 0x7f1234560000u);

    memset(&m, 0, sizeof m);
    if (!base) {
        skip("vdso", "there is none");
        return;
    }
    m.name = "[vdso]";
    m.path = "";
    m.slide = base;
    m.lo = base;
    m.image.data = (const uint8_t *)base;
    for (const ElfW(Ehdr) *e = (const ElfW(Ehdr) *)base; e; e = NULL) {
        const ElfW(Phdr) *p = (const ElfW(Phdr) *)(base + e->e_phoff);
        for (size_t i = 0; i < e->e_phnum; i++)
            if (p[i].p_type == PT_LOAD) m.image.size = (p[i].p_memsz + 4095) & ~(size_t)4095;
    }
    m.hi = base + m.image.size;
    {
        size_t n = 0, known = 0, gettime = 0;
        uintptr_t *pcs = (uintptr_t *)malloc(m.image.size * sizeof *pcs);
        const char **names = (const char **)malloc(m.image.size * sizeof *names);
        for (; n < m.image.size; n++) pcs[n] = base + n;
        if (!cprofi_symbols_init(&s, NULL) || !resolve(&s, &m, pcs, n, names)) abort();
        for (size_t i = 0; i < n; i++) {
            known += names[i][0] != '[';
            gettime += strstr(names[i], "clock_gettime") != NULL;
        }
        printf("# vdso: %zu of %zu bytes have names, %zu are clock_gettime's\n", known, n, gettime);
        check(gettime > 0, "vdso: clock_gettime has a name", "it has not");
        cprofi_symbols_free(&s);
        free(pcs);
        free(names);
    }
}

/* ---- damage ---- */

static image fuzz_seed(int kind) {
    image m = image_new(kind % 3 ? 0 : 0x400000);
    unsigned global = info_of(STB_GLOBAL, STT_FUNC);
    for (unsigned i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof name, "function_%u", i);
        add_symbol(&m, name, info_of(i % 3, i % 5 ? STT_FUNC : STT_NOTYPE), 1, TEXT + i * 0x40,
                   i % 4 ? 0x38 : 0);
        add_dynamic_symbol(&m, name, global, i % 2, TEXT + i * 0x40, 0x30);
    }
    for (unsigned i = 0; i < 6; i++) {
        m.data[PLT + 16 * i] = 0xff;
        m.data[PLT + 16 * i + 1] = 0x25;
        put(&m, PLT + 16 * i + 2, GOT + 8 * i - (PLT + 16 * i + 6), 4);
        m.data[PLT + 16 * i + 6] = 0x68;
        add_rela(&m, i % 2 != 0, GOT + 8 * i, i == 5 ? R_X86_64_IRELATIVE : R_X86_64_JUMP_SLOT,
                 i + 1, m.base + TEXT + 0x40);
    }
    if (kind & 2) image_sections(&m);
    put_segment(&m, 1, PT_NOTE, PF_R, NOTES, 0x40);
    put(&m, 56, 2, 2);
    put(&m, NOTES, 4, 4);
    put(&m, NOTES + 4, 20, 4);
    put(&m, NOTES + 8, NT_GNU_BUILD_ID, 4);
    put(&m, NOTES + 12, 0x554e47, 4); /* GNU */
    return m;
}

/* A place that matters: the tables, not the zeros between them. */
static size_t fuzz_place(void) {
    static const size_t areas[][2] = {
        {0, 176}, {0, 64}, {NOTES, 16}, {PLT, 96}, {STRINGS, 200}, {DYNAMIC_STRINGS, 200},
        {SYMBOLS, 400},
        {DYNAMIC_SYMBOLS, 400}, {RELA_PLT, 72}, {RELA_DYN, 72}, {SECTIONS, 700}, {SECTIONS, 700}};
    size_t area = random_below(sizeof areas / sizeof areas[0]);
    return areas[area][0] + random_below(areas[area][1]);
}

static void test_fuzz(void) {
    enum { ROUNDS = 40000 };
    static const uint64_t nasty[] = {0, 1, 0x7f, 0xff, 0xffff, 0x7fffffff, 0xffffffff, 0x80000000,
                                     0xffffffffffffffffu, 0x8000000000000000u,
                                     0xfffffffffffff000u, IMAGE_SIZE, IMAGE_SIZE - 1};
    size_t named = 0, total = 0, identified = 0;
    double start = milliseconds(), worst = 0;
    for (int round = 0; round < ROUNDS; round++) {
        image m = fuzz_seed((int)random_below(12));
        size_t size = random_below(8) ? (size_t)IMAGE_SIZE : random_below(IMAGE_SIZE), n = 0;
        uintptr_t pcs[48];
        const char *names[48];
        cprofi_symbols s;
        cprofi_module module;
        uint8_t *exact;
        double before;
        for (size_t i = 1 + random_below(6); i; i--) {
            size_t at = fuzz_place();
            uint64_t value = nasty[random_below(sizeof nasty / sizeof nasty[0])];
            if (random_below(2)) m.data[at] = (uint8_t)random_next();
            else if (random_below(2)) m.data[at] ^= (uint8_t)(1u << random_below(8));
            else put(&m, at & ~(size_t)3, value, random_below(2) ? 4 : 8);
        }
        exact = (uint8_t *)malloc(size ? size : 1);
        memcpy(exact, m.data, size);
        memset(&module, 0, sizeof module);
        module.name = "image";
        module.slide = 0x7f0000000000u;
        module.image.data = exact;
        module.image.size = size;
        for (uintptr_t at = 0xff0; n < 48; at += n < 40 ? 0x20 : 0xaf3, n++)
            pcs[n] = module.slide + (uintptr_t)m.base + at;
        qsort(pcs, n, sizeof *pcs, compare_addresses);
        before = milliseconds();
        if (!cprofi_symbols_init(&s, NULL) || !resolve(&s, &module, pcs, n, names))
            abort();
        {
            cprofi_span span = {exact, size};
            cprofi_source source = cprofi_source_of(span);
            cprofi_elf elf;
            uint8_t id[CPROFI_BUILD_ID_MAX];
            if (cprofi_elf_open(&source, &elf)) {
                identified += cprofi_elf_build_id(&elf, id) == 20;
                cprofi_elf_close(&elf);
            }
        }
        if (milliseconds() - before > worst) worst = milliseconds() - before;
        for (size_t i = 0; i < n; i++) {
            total += strlen(names[i]) > 0;
            named += names[i][0] != '[';
        }
        cprofi_symbols_free(&s);
        free(exact);
        free(m.data);
    }
    printf("# %d damaged images in %.0f ms, slowest %.1f ms; %zu of %zu addresses named, %zu ids\n",
           ROUNDS, milliseconds() - start, worst, named, total, identified);
    check(total > 0, "damaged images neither crash nor hang", "no names at all");
}

/* A file that promises everything to every address. */
static void test_hostile(void) {
    enum { COUNT = 1000000, ADDRESSES = 5000 };
    size_t size = 0x10000 + (size_t)COUNT * 24;
    image m = image_new(0);
    uintptr_t *pcs = (uintptr_t *)malloc(ADDRESSES * sizeof *pcs);
    const char **names = (const char **)malloc(ADDRESSES * sizeof *names);
    cprofi_symbols s;
    cprofi_module module;
    double start;
    add_function(&m, "everywhere", TEXT, 0x1000);
    image_sections(&m);
    m.data = (uint8_t *)realloc(m.data, size);
    if (!m.data || !pcs || !names) abort();
    memset(m.data + IMAGE_SIZE, 0, size - IMAGE_SIZE);
    for (size_t i = 0; i < COUNT; i++)
        put_symbol(&m, 0x10000 + i * 24, 1, info_of(STB_GLOBAL, STT_FUNC), 1, 0, ~(uint64_t)0);
    put(&m, SECTIONS + 64 * 7 + 24, 0x10000, 8); /* .symtab */
    put(&m, SECTIONS + 64 * 7 + 32, (uint64_t)COUNT * 24, 8);
    put(&m, SECTIONS + 64 + 16, 0, 8); /* .text: everything, too */
    put(&m, SECTIONS + 64 + 32, ~(uint64_t)0, 8);
    memset(&module, 0, sizeof module);
    module.name = "image";
    module.image.data = m.data;
    module.image.size = size;
    for (size_t i = 0; i < ADDRESSES; i++) pcs[i] = 16 * i;
    start = milliseconds();
    if (!cprofi_symbols_init(&s, NULL) || !resolve(&s, &module, pcs, ADDRESSES, names))
        abort();
    printf("# %d symbols over all of %d addresses: %.0f ms\n", COUNT, ADDRESSES,
           milliseconds() - start);
    check(strcmp(names[0], "everywhere") == 0 && strcmp(names[4999], "everywhere") == 0,
          "all symbols over all addresses", "%s", names[0]);
    cprofi_symbols_free(&s);
    free(m.data);
    free(pcs);
    free(names);
}

static void test_large(void) {
    const char *path = getenv("CPROF_TEST_LARGE");
    enum { ADDRESSES = 5000 };
    static uintptr_t pcs[ADDRESSES];
    static const char *names[ADDRESSES];
    cprofi_source source;
    cprofi_elf elf;
    cprofi_module m;
    cprofi_symbols s;
    struct rusage before, after;
    uint64_t lo = 0, size = 0;
    size_t named = 0;
    double start;
    if (!path || !module_of(path, 0, &m)) {
        note("timing on a large file", "CPROF_TEST_LARGE is not set");
        return;
    }
    if (!cprofi_source_open(path, &source) || !cprofi_elf_open(&source, &elf))
        abort();
    for (size_t i = 0; i < elf.segment_count; i++) {
        cprofi_elf_segment g = cprofi_elf_segment_at(&elf, i);
        if (g.type == CPROFI_PT_LOAD && (g.flags & CPROFI_PF_X) && g.memory_size > size) {
            lo = g.address;
            size = g.memory_size;
        }
    }
    cprofi_elf_close(&elf);
    cprofi_source_close(&source);
    for (size_t i = 0; i < ADDRESSES; i++) pcs[i] = (uintptr_t)(lo + size / ADDRESSES * i + i % 7);
    for (int round = 0; round < 2; round++) {
        getrusage(RUSAGE_SELF, &before);
        start = milliseconds();
        named = 0;
        if (!cprofi_symbols_init(&s, NULL) || !resolve(&s, &m, pcs, ADDRESSES, names))
            abort();
        for (size_t i = 0; i < ADDRESSES; i++) named += names[i][0] != '[';
        getrusage(RUSAGE_SELF, &after);
        printf("# %s: %zu of %d addresses named in %.1f ms, strings %zu KB, peak grew %ld KB\n",
               path, named, ADDRESSES, milliseconds() - start, s.text.memory / 1024,
               after.ru_maxrss - before.ru_maxrss);
        cprofi_symbols_free(&s);
    }
}

int main(void) {
    const char *tmp = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_large(); /* first: it reports how far the peak of memory rises */
    test_rules();
    test_plt(0);
    test_plt(0x400000);
    test_refused();
    test_reference();
    test_cut();
    test_trim();
    test_trim_fuzz();
    test_show();
    snprintf(scratch, sizeof scratch, "%s/cprof-symbols-XXXXXX", tmp);
    if (!mkdtemp(scratch)) {
        skip("real files", "no directory for them");
    } else {
        test_compiled();
        test_cpp();
        test_identity();
        test_loaded();
        run("rm -rf '%s'", scratch);
    }
    test_fuzz();
    test_hostile();
    return failures != 0;
}
