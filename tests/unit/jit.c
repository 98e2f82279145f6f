/* Names of code made at run time: the map JIT compilers write for perf, against a slow and obvious
   implementation of the same rules.

   Run:   cc -g -O1 -I. tests/unit/jit.c -o jit -lpthread && ./jit
   Best with -fsanitize=address,undefined. CPROF_TEST_ROUNDS: how many damaged maps (4000). */
#include "unit.h"

#include <ctype.h>

/* ---- a map that grows ---- */

typedef struct {
    char *data;
    size_t size, capacity;
} map;

static void map_bytes(map *m, const char *bytes, size_t size) {
    if (m->size + size >= m->capacity) {
        m->capacity = 2 * (m->size + size) + 16;
        m->data = (char *)realloc(m->data, m->capacity);
        if (!m->data) abort();
    }
    memcpy(m->data + m->size, bytes, size);
    m->size += size;
}

static void map_print(map *m, const char *format, ...) {
    char line[512];
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    map_bytes(m, line, strlen(line));
}

static void map_fill(map *m, char c, size_t count) {
    while (count--) map_bytes(m, &c, 1);
}

static bool piece_read(const cprofi_source *source, uint64_t offset, void *to, size_t size) {
    if (offset > source->memory.size || size > source->memory.size - offset) abort();
    memcpy(to, source->memory.data + offset, size);
    return true;
}

/* Looks addresses up in a copy of exactly the right size. */
static void lookup(const char *data, size_t size, const uint64_t *addresses, size_t n,
                   const char **names, cprofi_text *text) {
    uint8_t *exact = (uint8_t *)malloc(size ? size : 1);
    cprofi_span span = {exact, size};
    cprofi_source source = cprofi_source_of(span);
    if (!exact) abort();
    memcpy(exact, data, size);
    if (size & 1) source.read = piece_read;
    memset(text, 0, sizeof *text);
    if (!cprofi_jit_lookup(&source, addresses, n, names, text)) abort();
    free(exact);
}

/* ---- slow and obvious ---- */

static bool slow_number(const char *line, size_t size, size_t *at, uint64_t *value) {
    size_t digits = 0;
    *value = 0;
    if (size - *at > 2 && line[*at] == '0' && tolower(line[*at + 1]) == 'x') *at += 2;
    while (*at < size && isxdigit((unsigned char)line[*at])) {
        int c = tolower(line[*at]);
        if (*value > UINT64_MAX / 16) return false;
        *value = *value * 16 + (uint64_t)(isdigit(c) ? c - '0' : c - 'a' + 10);
        ++*at;
        digits++;
    }
    if (!digits || *at == size || (line[*at] != ' ' && line[*at] != '\t')) return false;
    while (*at < size && (line[*at] == ' ' || line[*at] == '\t')) ++*at;
    return true;
}

/* The name of one address, or NULL, in a buffer that the next call overwrites. */
static const char *slow_lookup(const char *data, size_t size, uint64_t address) {
    static char name[8192];
    bool found = false;
    for (size_t i = 0; i < size;) {
        size_t end = i, length, at = 0;
        uint64_t start, bytes;
        while (end < size && data[end] != '\n') end++;
        if (end == size) break;
        length = end - i;
        if (length && data[end - 1] == '\r') length--;
        if (slow_number(data + i, length, &at, &start) &&
            slow_number(data + i, length, &at, &bytes) && at < length && data[i + at] &&
            address >= start && address - start < bytes) {
            size_t n = length - at;
            if (n > 4096) n = 4096;
            memcpy(name, data + i + at, n);
            name[n] = 0;
            found = true;
        }
        i = end + 1;
    }
    return found ? name : NULL;
}

static bool same(const char *a, const char *b) {
    return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

/* ---- tests ---- */

static void expect(const char *what, const char *data, uint64_t address, const char *wanted) {
    const char *name = NULL;
    cprofi_text text;
    lookup(data, strlen(data), &address, 1, &name, &text);
    check(same(name, wanted), what, "%s", name ? name : "(none)");
    cprofi_text_free(&text);
}

static void test_lines(void) {
    expect("an empty map names nothing", "", 1, NULL);
    expect("a line names its first byte", "1000 20 f\n", 0x1000, "f");
    expect("a line names its last byte", "1000 20 f\n", 0x101f, "f");
    expect("a line does not name the byte after it", "1000 20 f\n", 0x1020, NULL);
    expect("a line does not name the byte before it", "1000 20 f\n", 0xfff, NULL);
    expect("names have spaces", "1000 20 void f (int, char)  x\n", 0x1000,
           "void f (int, char)  x");
    expect("numbers may have 0x", "0x1000 0X20 f\n", 0x1000, "f");
    expect("numbers may be upper case", "7FABCDEF0000 A0 f\n", 0x7fabcdef009f, "f");
    expect("numbers may have leading zeros", "00000000000000001000 0000020 f\n", 0x1000, "f");
    expect("CRLF", "1000 20 f\r\n2000 20 g\r\n", 0x1000, "f");
    expect("tabs and several blanks", "1000\t20  \t f\n", 0x1000, "f");
    expect("UTF-8", "1000 20 Zo\xc3\xab::r\xc3\xa9sum\xc3\xa9\n", 0x1000,
           "Zo\xc3\xab::r\xc3\xa9sum\xc3\xa9");
    expect("a later line overrides an earlier one", "1000 20 f\n1010 20 g\n", 0x1010, "g");
    expect("what a later line leaves stays", "1000 20 f\n1010 20 g\n", 0x100f, "f");
    expect("a later line around an earlier one", "1010 4 f\n1000 20 g\n", 0x1012, "g");
    expect("a line without size names nothing", "1000 20 f\n1000 0 g\n", 0x1000, "f");
    expect("the end of the address space", "fffffffffffffff0 ffffffffffffffff f\n",
           0xffffffffffffffffu, "f");
    expect("the whole address space", "0 ffffffffffffffff f\n", 0xfffffffffffffffeu, "f");
    expect("an unfinished last line does not count", "1000 20 f\n1000 20 ga", 0x1000, "f");
    expect("an unfinished only line does not count", "1000 20 ga", 0x1000, NULL);
    expect("garbage is skipped",
           "\n# comment\n1000\n1000 20\n1000 20 \n1000 20 \r\n1000, 20 f\ng 20 f\n0x 20 f\n"
           "10000000000000000 20 f\n-1000 20 f\n 1000 20 f\n1000 20 f\n",
           0x1000, "f");
}

static void test_long_names(void) {
    static const size_t lengths[] = {1,      4095,   4096,   4097,   4098,   4099,
                                     262100, 262133, 262134, 262135, 262136, 262137,
                                     262143, 262144, 262145, 524288, 1000000};
    size_t good = 0, count = 0;
    for (size_t i = 0; i < CPROFI_COUNT(lengths); i++) {
        for (int variant = 0; variant < 4; variant++) {
            uint64_t addresses[3] = {0x1000, 0x2000, 0x3000};
            const char *names[3];
            map m = {NULL, 0, 0};
            cprofi_text text;
            size_t wanted = lengths[i] < 4096 ? lengths[i] : 4096;
            if (variant & 2) map_print(&m, "1000 10 before\n");
            map_print(&m, "2000 10 ");
            map_fill(&m, 'x', lengths[i]);
            map_print(&m, variant & 1 ? "\r\n3000 10 after\n" : "\n3000 10 after\n");
            lookup(m.data, m.size, addresses, 3, names, &text);
            count++;
            good += same(names[0], variant & 2 ? "before" : NULL) && same(names[2], "after") &&
                    names[1] && strlen(names[1]) == wanted && strspn(names[1], "x") == wanted;
            cprofi_text_free(&text);
            /* the same, unfinished */
            m.size = m.size - strlen("3000 10 after\n") - (variant & 1 ? 2 : 1);
            lookup(m.data, m.size, addresses, 3, names, &text);
            count++;
            good += !names[1] && same(names[0], variant & 2 ? "before" : NULL);
            cprofi_text_free(&text);
            free(m.data);
        }
    }
    check(good == count, "names of any length, cut at 4096 bytes", "%zu of %zu", good, count);
    {
        uint64_t address = 0x1000;
        const char *name;
        map m = {NULL, 0, 0};
        cprofi_text text;
        map_print(&m, "1000 10 ");
        map_fill(&m, 'x', 4095);
        map_print(&m, "\xc3\xa9tail\n");
        lookup(m.data, m.size, &address, 1, &name, &text);
        check(name && strlen(name) == 4095, "a name is not cut in the middle of a character",
              "%zu bytes", name ? strlen(name) : 0);
        cprofi_text_free(&text);
        free(m.data);
    }
}

static int compare_addresses(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Random lines, damaged here and there; every address against the slow implementation. */
static void test_reference(void) {
    const char *wanted_rounds = getenv("CPROF_TEST_ROUNDS");
    int rounds = wanted_rounds ? atoi(wanted_rounds) : 4000;
    size_t compared = 0, named = 0, wrong = 0;
    for (int round = 0; round < rounds; round++) {
        static const char nasty[] = "\n\n\r 0xffffffffffffffff\t-gG";
        uint64_t addresses[40];
        const char *names[40];
        size_t n = 0, kept = 0, lines = random_below(60);
        cprofi_text text;
        map m = {NULL, 0, 0};
        map_bytes(&m, "", 0);
        for (size_t i = 0; i < lines; i++)
            map_print(&m, random_below(4) ? "%llx %llx name %zu of %d%s" : "0x%llX\t%llx n%zu %d%s",
                      (unsigned long long)(0x1000 + random_below(200)),
                      (unsigned long long)(random_below(5) ? random_below(20) : random_below(200)),
                      i, round, random_below(5) ? "\n" : "\r\n");
        for (size_t i = random_below(4) ? 0 : random_below(30); i && m.size; i--)
            m.data[random_below(m.size)] = random_below(2)
                                               ? nasty[random_below(sizeof nasty)]
                                               : (char)random_next();
        if (m.size && !random_below(3)) m.size = random_below(m.size);
        while (n < 40) addresses[n++] = random_below(20) ? 0x1000 + random_below(220)
                                                         : random_next() >> random_below(64);
        qsort(addresses, n, sizeof *addresses, compare_addresses);
        for (size_t i = 0; i < n; i++)
            if (!kept || addresses[i] != addresses[kept - 1]) addresses[kept++] = addresses[i];
        n = random_below(10) ? kept : random_below(kept + 1);
        lookup(m.data, m.size, addresses, n, names, &text);
        for (size_t i = 0; i < n; i++) {
            const char *slow = slow_lookup(m.data, m.size, addresses[i]);
            compared++;
            named += slow != NULL;
            wrong += !same(names[i], slow);
        }
        cprofi_text_free(&text);
        free(m.data);
    }
    printf("# %d damaged maps: %zu addresses compared, %zu of them with a name\n", rounds, compared,
           named);
    check(!wrong && named, "the same names as the slow implementation", "%zu differ", wrong);
}

static void test_large(void) {
    enum { LINES = 60000, ADDRESSES = 3000 };
    map m = {NULL, 0, 0};
    uint64_t *addresses = (uint64_t *)malloc(ADDRESSES * sizeof *addresses);
    const char **names = (const char **)malloc(ADDRESSES * sizeof *names);
    char wanted[64];
    size_t wrong = 0;
    cprofi_text text;
    if (!addresses || !names) abort();
    for (unsigned i = 0; i < LINES; i++) /* the second half covers the first, shifted by half */
        map_print(&m, "%x 10 function %u%.*s\n",
                  0x10000 + i % (LINES / 2) * 16 + (i >= LINES / 2) * 8, i, (int)(i % 23),
                  "abcdefghijklmnopqrstuvw");
    for (unsigned i = 0; i < ADDRESSES; i++) addresses[i] = 0x10000 + i * 160 + i % 16;
    lookup(m.data, m.size, addresses, ADDRESSES, names, &text);
    for (unsigned i = 0; i < ADDRESSES; i++) {
        unsigned line = (unsigned)(addresses[i] - 0x10000 + 8) / 16 - 1 + LINES / 2;
        if (addresses[i] < 0x10008) line = 0;
        snprintf(wanted, sizeof wanted, "function %u%.*s", line, (int)(line % 23),
                 "abcdefghijklmnopqrstuvw");
        wrong += !same(names[i], wanted);
    }
    check(!wrong, "a large map", "%zu of %d names are wrong", wrong,
          ADDRESSES);
    cprofi_text_free(&text);
    free(m.data);
    free(addresses);
    free(names);
}

/* Every line over every address, and the names as long as they may be. */
static void test_hostile(void) {
    enum { LINES = 200000, ADDRESSES = 5000 };
    map m = {NULL, 0, 0};
    uint64_t *addresses = (uint64_t *)malloc(ADDRESSES * sizeof *addresses);
    const char **names = (const char **)malloc(ADDRESSES * sizeof *names);
    size_t wrong = 0;
    double start;
    cprofi_text text;
    if (!addresses || !names) abort();
    for (unsigned i = 0; i < LINES; i++) map_print(&m, "%x ffffffff name %u\n", i % 2, i);
    map_print(&m, "2 ffffffffffffffff ");
    map_fill(&m, 'x', 5000);
    map_print(&m, "\n");
    for (unsigned i = 0; i < ADDRESSES / 2; i++) map_print(&m, "%x 1 odd\n", 32 * i + 16);
    for (unsigned i = 0; i < ADDRESSES; i++) addresses[i] = 16 * i;
    start = milliseconds();
    lookup(m.data, m.size, addresses, ADDRESSES, names, &text);
    printf("# %d lines over all of %d addresses: %.0f ms, %zu KB of names\n", LINES, ADDRESSES,
           milliseconds() - start, text.memory / 1024);
    for (unsigned i = 1; i < ADDRESSES; i++)
        wrong += i % 2 ? !same(names[i], "odd") : !names[i] || strlen(names[i]) != 4096;
    check(!wrong && same(names[0], "name 199998"), "all lines over all addresses",
          "%zu names are wrong", wrong);
    check(text.memory < 1 << 18, "one name for many addresses is kept once", "%zu bytes",
          text.memory);
    cprofi_text_free(&text);
    free(m.data);
    free(addresses);
    free(names);
}

/* A file that became shorter after it was opened. */
static uint64_t shorter;

static bool shrunk_read(const cprofi_source *source, uint64_t offset, void *to, size_t size) {
    if (offset + size > shorter) return false;
    memcpy(to, source->memory.data + offset, size);
    return true;
}

static void test_shrunk(void) {
    map m = {NULL, 0, 0};
    uint64_t addresses[2] = {0x1000, 0x1008};
    const char *names[2] = {"untouched", "untouched"};
    cprofi_text text;
    cprofi_span span;
    cprofi_source source;
    bool ok = true;
    while (m.size < 600000) map_print(&m, "1000 10 some name\n");
    span.data = (const uint8_t *)m.data;
    span.size = m.size;
    source = cprofi_source_of(span);
    source.read = shrunk_read;
    memset(&text, 0, sizeof text);
    for (shorter = 0; shorter < m.size && ok; shorter += 50000)
        ok = cprofi_jit_lookup(&source, addresses, 2, names, &text) &&
             (!names[0] || same(names[0], "some name")) && same(names[0], names[1]);
    check(ok, "a map that became shorter", "%s", names[0] ? names[0] : "(none)");
    cprofi_text_free(&text);
    free(m.data);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_lines();
    test_long_names();
    test_reference();
    test_large();
    test_hostile();
    test_shrunk();
    return failures != 0;
}
