/* The readers of >>macho and >>compact: macho/code.c compiled for macOS by clang and linked by lld,
   against what llvm-nm, llvm-symbolizer and llvm-objdump say of it; its x86-64 code executed here one
   instruction at a time, and unwound at each; functions of ARM64 made at random and executed by a
   machine simulated here; tables by hand; damaged files.

   Run:   cc -g -O1 -I. tests/unit/macho.c -o macho -lpthread && ./macho [FILE...]
   Best with -fsanitize=address,undefined. Given Mach-O files (such as zig's), it compares what it reads
   of them with the same tools. CPROF_TEST_ROUNDS: how many damaged inputs of each kind (2000). */
#include "unit.h"

static uint32_t below(uint32_t n) { return (uint32_t)(random_next() >> 16) % n; }

static char scratch[256];

static FILE *output_of(const char *format, ...) {
    char command[4096];
    va_list list;
    va_start(list, format);
    vsnprintf(command, sizeof command, format, list);
    va_end(list);
    return popen(command, "r");
}

static const char *labelled(const char *format, ...) {
    static char text[400];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return text;
}

typedef struct {
    uint8_t *data;
    size_t size;
    cprofi_source source;
    cprofi_macho macho;
} file;

/* Reads a file, and opens it if it is a Mach-O file. */
static bool load(const char *path, file *f) {
    FILE *in = fopen(path, "rb");
    cprofi_span span;
    memset(f, 0, sizeof *f);
    if (!in) return false;
    fseek(in, 0, SEEK_END);
    f->size = (size_t)ftell(in);
    rewind(in);
    f->data = (uint8_t *)malloc(f->size + 1);
    if (!f->data || fread(f->data, 1, f->size, in) != f->size) f->size = 0;
    fclose(in);
    span.data = f->data;
    span.size = f->size;
    f->source = cprofi_source_of(span);
    return cprofi_macho_open(&f->source, NULL, &f->macho);
}

static void unload(file *f) {
    cprofi_macho_close(&f->macho);
    free(f->data);
}

static const cprofi_macho_section *section(const cprofi_macho *m, const char *name) {
    for (size_t i = 0; i < m->section_count; i++)
        if (strcmp(m->sections[i].name, name) == 0) return &m->sections[i];
    return NULL;
}

static cprofi_span content(const file *f, const char *name) {
    const cprofi_macho_section *s = section(&f->macho, name);
    cprofi_span whole = {f->data + f->macho.image.base, (size_t)f->macho.image.size};
    return cprofi_span_part(whole, s ? s->offset : 0, s ? s->size : 0);
}

static size_t starts_of(const file *f, uint32_t *to, size_t max) {
    cprofi_span bytes = {f->data + f->macho.starts.base, (size_t)f->macho.starts.size};
    return cprofi_compact_starts(bytes, to, max);
}

/* ---- symbols, against llvm-nm ---- */

enum { MOST = 200000 };
static cprofi_macho_want wants[MOST];
static uint64_t told_at[MOST];
static char *told[MOST]; /* strings of the tool that is compared with */
static size_t told_count;

static void told_clear(void) {
    while (told_count) free(told[--told_count]);
}

static void tell(uint64_t at, const char *text) {
    if (told_count == MOST) return;
    told_at[told_count] = at;
    told[told_count++] = strdup(text);
}

/* Every few bytes of the code: the function that the name before it names. `hidden`: the name of one
   that was stripped. */
static void compare_symbols(const char *what, const char *path, const char *stripped, const char *hidden) {
    file f;
    cprofi_text text;
    size_t n = 0, wrong = 0, named = 0;
    char line[4096], name[2048], first[300] = "";
    const cprofi_macho_section *code;
    FILE *nm = output_of("llvm-nm -n --defined-only '%s'", path);
    memset(&text, 0, sizeof text);
    told_clear();
    while (nm && fgets(line, sizeof line, nm)) {
        unsigned long long at;
        char type;
        if (sscanf(line, "%llx %c %2000s", &at, &type, name) != 3 || (type != 't' && type != 'T')) continue;
        tell(at, name[0] == '_' ? name + 1 : name);
    }
    if (nm) pclose(nm);
    if (!load(stripped, &f) || (code = section(&f.macho, "__text")) == NULL) {
        check(false, labelled("%s: it opens", what), "it does not");
        return;
    }
    for (uint64_t at = 0, step = code->size / MOST + 1; at < code->size && n < MOST; at += step) {
        wants[n].address = code->address + (at * 7919) % code->size; /* in any order */
        wants[n].index = (uint32_t)n;
        n++;
    }
    cprofi_macho_lookup(&f.macho, wants, n, &text);
    for (size_t i = 0; i < n; i++) {
        const char *best = "?";
        bool fits = false;
        size_t low = 0, high = told_count;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (told_at[middle] <= wants[i].address) low = middle + 1;
            else high = middle;
        }
        for (size_t k = low; k-- && told_at[k] == told_at[low - 1];) { /* any of those at one place */
            best = told[k];
            fits = fits || (wants[i].name && strcmp(best, wants[i].name) == 0);
        }
        if (low && hidden && strcmp(best, hidden) == 0) fits = !wants[i].name;
        if (!low) fits = !wants[i].name;
        named += wants[i].name != NULL;
        if (!fits && !wrong++)
            snprintf(first, sizeof first, "%llx is %s, not %s", (unsigned long long)wants[i].address,
                     wants[i].name ? wants[i].name : "nothing", best);
    }
    check(!wrong && named > n / 2, labelled("%s: names as llvm-nm has them, %zu addresses", what, n), "%zu wrong, %zu named: %s",
          wrong, named, first);
    cprofi_text_free(&text);
    unload(&f);
}

/* ---- inlined functions and lines, against llvm-symbolizer ---- */

static void compare_sites(const char *what, const char *path) {
    enum { ASKED = 4000 };
    static uintptr_t pcs[ASKED];
    static cprofi_place places[ASKED];
    cprofi_symbols symbols;
    cprofi_module m;
    file f;
    const cprofi_macho_section *code;
    char line[4096], first[600] = "", list[300];
    size_t n = 0, wrong = 0, inlined = 0, lines = 0;
    const uintptr_t slide = 0x10000000;
    FILE *out;
    if (!load(path, &f) || (code = section(&f.macho, "__text")) == NULL) return;
    snprintf(list, sizeof list, "%s/ask", scratch);
    out = fopen(list, "w");
    if (!out) return;
    for (uint64_t at = 0, step = code->size / ASKED + 1; at < code->size && n < ASKED; at += step) {
        fprintf(out, "0x%llx\n", (unsigned long long)(code->address + at));
        pcs[n++] = (uintptr_t)(code->address + at) + slide;
    }
    fclose(out);
    memset(&m, 0, sizeof m);
    m.path = path;
    m.name = "code";
    m.slide = slide;
    m.lo = (uintptr_t)f.macho.base + slide;
    m.hi = (uintptr_t)f.macho.end + slide;
    m.build_id_size = 16;
    memcpy(m.build_id, f.macho.uuid, 16);
    if (!cprofi_symbols_init(&symbols, NULL)) return;
    if (!cprofi_symbols_resolve(&symbols, &m, pcs, n, places)) {
        check(false, labelled("%s: places", what), "no memory");
        return;
    }
    out = output_of("llvm-symbolizer --obj='%s' --demangle < '%s'", path, list);
    for (size_t i = 0; i < n; i++) {
        for (uint32_t k = 0;; k++) {
            const cprofi_site *site = k < places[i].count ? &places[i].sites[k] : NULL;
            char function[2048];
            unsigned number = 0;
            char *colon;
            if (!out || !fgets(function, sizeof function, out)) {
                wrong++;
                break;
            }
            function[strcspn(function, "\n")] = 0;
            if (!function[0]) {
                if (site && !wrong++) snprintf(first, sizeof first, "%lx: %s too many", (long)pcs[i], site->function);
                break;
            }
            if (!fgets(line, sizeof line, out)) break;
            colon = strrchr(line, ':');
            if (colon) *colon = 0;
            colon = strrchr(line, ':');
            if (colon) number = (unsigned)atoi(colon + 1);
            inlined += k > 0;
            lines += number > 0;
            if ((!site || strcmp(site->function, function) != 0 || site->line != number) && !wrong++)
                snprintf(first, sizeof first, "%lx: %.200s:%u, not %.200s:%u", (long)pcs[i], site ? site->function : "nothing",
                         site ? site->line : 0, function, number);
        }
    }
    if (out) pclose(out);
    check(!wrong && lines > n / 2 && inlined, labelled("%s: inlined functions and lines as llvm-symbolizer says, %zu addresses", what, n),
          "%zu wrong, %zu inlined, %zu lines: %s", wrong, inlined, lines, first);
    m.build_id[3] ^= 1;
    cprofi_symbols_free(&symbols);
    if (cprofi_symbols_init(&symbols, NULL)) {
        cprofi_symbols_resolve(&symbols, &m, pcs, n, places);
        check(symbols.remarks.modules[CPROFI_REMARK_REPLACED] && places[0].sites[0].function[0] == '[',
              labelled("%s: a file with another UUID is not used", what), "%s", places[0].sites[0].function);
        cprofi_symbols_free(&symbols);
    }
    unload(&f);
}

/* ---- the tables of unwinding, against llvm-objdump ---- */

static void compare_tables(const char *what, const char *path) {
    file f;
    cprofi_span info;
    char line[1024], first[300] = "";
    size_t wrong = 0, entries = 0;
    uint64_t end = 0;
    FILE *dump;
    if (!load(path, &f)) return;
    info = content(&f, "__unwind_info");
    dump = output_of("llvm-objdump --macho --unwind-info '%s'", path);
    told_clear();
    while (dump && fgets(line, sizeof line, dump)) {
        unsigned begin, index, encoding;
        char *at = strstr(line, "function offset=");
        if (!at) continue;
        if (sscanf(at, "function offset=0x%x, encoding[%u]=0x%x", &begin, &index, &encoding) == 3 ||
            sscanf(at, "function offset=0x%x, encoding=0x%x", &begin, &encoding) == 2)
            tell(begin, labelled("%x", encoding));
        else if (strstr(line, "2nd level page offset=0x00000000") && sscanf(at, "function offset=0x%x", &begin) == 1)
            end = begin;
    }
    if (dump) pclose(dump);
    for (size_t i = 0; i < told_count; i++) {
        uint64_t next = i + 1 < told_count ? told_at[i + 1] : end;
        for (uint64_t at = told_at[i]; at < next; at += next - 1 > at ? next - 1 - at : 1) {
            cprofi_compact_entry e;
            bool found = cprofi_compact_find(info, at, &e);
            entries++;
            if (found && e.begin == told_at[i] && e.end == next && e.encoding == (uint32_t)strtoul(told[i], NULL, 16)) continue;
            if (!wrong++)
                snprintf(first, sizeof first, "%llx: %x-%x %x, not %llx-%llx %s", (unsigned long long)at, e.begin, e.end, e.encoding,
                         (unsigned long long)told_at[i], (unsigned long long)next, told[i]);
        }
    }
    if (told_count) {
        cprofi_compact_entry e;
        wrong += cprofi_compact_find(info, told_at[0] - 1, &e) || cprofi_compact_find(info, end, &e);
    }
    check(!wrong && told_count > 0, labelled("%s: encodings as llvm-objdump shows them, %zu functions", what, told_count),
          "%zu of %zu wrong: %s", wrong, entries, first);
    unload(&f);
}

/* ---- tables by hand ---- */

static void put(uint8_t *to, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; i++) to[i] = (uint8_t)(value >> (8 * i));
}

/* Two pages, the first regular and the second compressed with encodings of its own. Returns its size. */
static size_t make_tables(uint8_t *b) {
    static const uint32_t words[] = {
        1, 28, 1, 32, 0, 32, 3,             /* header */
        0x0400aaaa,                         /* the common encodings */
        0x1000, 68, 0, 0x2000, 92, 0, 0x3000, 0, 0, /* index */
        2, 8 | 2u << 16, 0x1000, 0x01000001, 0x1800, 0x01000002,
        3, 12 | 3u << 16, 24 | 1u << 16, 0x000000, 0x01000100, 0x02000200, 0x0400bbbb};
    for (size_t i = 0; i < CPROFI_COUNT(words); i++) put(b + 4 * i, words[i], 4);
    return sizeof words;
}

static void tables_by_hand(void) {
    static const uint32_t expect[][4] = {{0x1000, 0x1000, 0x1800, 0x01000001}, {0x17ff, 0x1000, 0x1800, 0x01000001},
                                         {0x1800, 0x1800, 0x2000, 0x01000002}, {0x2000, 0x2000, 0x2100, 0x0400aaaa},
                                         {0x21ff, 0x2100, 0x2200, 0x0400bbbb}, {0x2fff, 0x2200, 0x3000, 0}};
    uint8_t b[256];
    cprofi_span info = {b, make_tables(b)};
    cprofi_compact_entry e;
    bool ok = true;
    for (size_t i = 0; i < CPROFI_COUNT(expect); i++)
        ok = ok && cprofi_compact_find(info, expect[i][0], &e) && e.begin == expect[i][1] && e.end == expect[i][2] &&
             e.encoding == expect[i][3];
    check(ok, "regular and compressed pages, encodings of all and of one page, an unknown one", "%x-%x %x", e.begin, e.end, e.encoding);
    check(!cprofi_compact_find(info, 0xfff, &e) && !cprofi_compact_find(info, 0x3000, &e), "nothing is known outside of all functions",
          "something is");
    ok = true;
    for (size_t size = 0; size < info.size; size++) {
        cprofi_span part = {(uint8_t *)malloc(size + 1), size};
        memcpy((uint8_t *)(uintptr_t)part.data, b, size);
        for (uint64_t at = 0; at < 0x3100; at += 0x7f)
            if (cprofi_compact_find(part, at, &e) && at < 0x1000) ok = false;
        free((void *)(uintptr_t)part.data);
    }
    check(ok, "tables cut short do no harm", "they do");
}

/* ---- x86-64, live ---- */

#if defined(__x86_64__)
static uint8_t *live_image; /* where the code is */
static file live_file;
static cprofi_seh_part live_part;
static cprofi_span live_info;
static uint32_t live_starts[1000];
static size_t live_start_count;
static struct { uintptr_t slot, returns; } live_shadow[64];
static size_t live_depth, live_steps, live_wrong, live_frames;
static uintptr_t live_call; /* the place behind the call that is being executed */
static char live_first[400];
static uintptr_t live_outside; /* where `everything` returns to */

static bool live_find(void *user, uint64_t address, cprofi_seh_image *image) {
    (void)user;
    if (address - (uintptr_t)live_image >= live_file.macho.end - live_file.macho.base) return false;
    image->base = (uintptr_t)live_image;
    image->pdata = live_info;
    image->parts = &live_part;
    image->part_count = 1;
    image->starts = live_starts;
    image->start_count = live_start_count;
    return true;
}

static const cprofi_seh_images live_images = {live_find, NULL};

/* Before each instruction: what the stack is, told by calls and returns alone, and what the unwinder
   makes of it. */
static void live_step(int number, siginfo_t *info, void *context) {
    ucontext_t *u = (ucontext_t *)context;
    const greg_t *g = u->uc_mcontext.gregs;
    uintptr_t pc = (uintptr_t)g[REG_RIP], sp = (uintptr_t)g[REG_RSP], top;
    cprofi_seh_registers regs;
    cprofi_seh_stack stack;
    uint64_t pcs[64];
    bool truncated;
    uint32_t n;
    (void)number, (void)info;
    if (pc - (uintptr_t)live_image >= live_file.macho.end - live_file.macho.base) return;
    memcpy(&top, (const void *)sp, sizeof top);
    if (!live_depth) {
        live_shadow[live_depth].slot = sp;
        live_shadow[live_depth++].returns = live_outside = top;
    } else if (live_call && top == live_call) {
        live_shadow[live_depth].slot = sp;
        live_shadow[live_depth++].returns = top;
    }
    while (live_depth > 1 && live_shadow[live_depth - 1].slot < sp) live_depth--;
    live_call = *(const uint8_t *)pc == 0xe8 ? pc + 5 : 0;
    memset(&regs, 0, sizeof regs);
    regs.pc = pc;
    regs.r[CPROFI_SEH_X64_SP] = sp;
    regs.r[CPROFI_SEH_X64_BP] = (uint64_t)g[REG_RBP];
    stack.data = (const uint8_t *)sp;
    stack.lo = sp;
    stack.hi = sp + 32768;
    n = cprofi_seh_walk(cprofi_compact_x64_step, &live_images, &stack, &regs, pcs, 64, &truncated, CPROFI_SEH_X64_SP, NULL);
    live_steps++;
    live_frames += live_depth;
    for (size_t i = 0; i <= live_depth; i++) {
        uintptr_t want = i ? live_shadow[live_depth - i].returns - 1 : pc;
        if (i < n && pcs[i] == want) continue;
        if (!live_wrong++)
            snprintf(live_first, sizeof live_first, "at %lx frame %zu of %zu is %lx, not %lx", (long)(pc - (uintptr_t)live_image), i,
                     live_depth, i < n ? (long)(pcs[i] - (uintptr_t)live_image) : 0, (long)(want - (uintptr_t)live_image));
        break;
    }
}

static void live(const char *what, const char *path) {
    struct sigaction action, before;
    uint64_t entry = 0;
    cprofi_macho *m = &live_file.macho;
    size_t size;
    char line[1024];
    int result, again;
    int (*function)(int);
    const cprofi_macho_section *text;
    uint32_t sentinel;
    FILE *nm = output_of("llvm-nm '%s'", path);
    while (nm && fgets(line, sizeof line, nm))
        if (strstr(line, " _everything")) entry = strtoull(line, NULL, 16);
    if (nm) pclose(nm);
    if (!entry || !load(path, &live_file)) {
        check(false, labelled("%s: it can be run", what), "it cannot");
        return;
    }
    /* all of it is one piece of memory: data is referred to relative to the code */
    size = (size_t)(m->end - m->base) + (1 << 20);
    live_image = (uint8_t *)mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (live_image == MAP_FAILED) {
        skip(labelled("%s: unwound at each instruction", what), "no memory may be both written and executed");
        return;
    }
    for (size_t i = 0; i < m->section_count; i++) {
        const cprofi_macho_section *s = &m->sections[i];
        if (s->content && s->offset && s->address - m->base + s->size < size)
            memcpy(live_image + (s->address - m->base), live_file.data + s->offset, (size_t)s->size);
    }
    live_info = content(&live_file, "__unwind_info");
    /* where all functions have the same word, lld 14 gets the end of the table wrong */
    text = section(m, "__text");
    sentinel = cprofi_get32(live_info.data + 20) + 12 * (cprofi_get32(live_info.data + 24) - 1);
    put((uint8_t *)(uintptr_t)live_info.data + sentinel, text->address + text->size - m->base, 4);
    live_start_count = starts_of(&live_file, live_starts, CPROFI_COUNT(live_starts));
    live_part.bytes.data = live_image;
    live_part.bytes.size = (size_t)(m->end - m->base);
    live_part.rva = 0;
    live_depth = live_steps = live_wrong = live_frames = 0;
    live_call = 0;
    live_first[0] = 0;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = live_step;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    entry += (uint64_t)(uintptr_t)live_image - m->base;
    memcpy(&function, &entry, sizeof function);
    result = function(11);
    sigaction(SIGTRAP, &action, &before);
    __asm__ volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc");
    again = function(11);
    __asm__ volatile("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc");
    sigaction(SIGTRAP, &before, NULL);
    check(!live_wrong && live_steps > 1000 && result == again,
          labelled("%s: unwound right at each of %zu instructions executed, %zu frames", what, live_steps, live_frames),
          "%zu wrong: %s", live_wrong, live_first);
    munmap(live_image, size);
    unload(&live_file);
}
#else
static void live(const char *what, const char *path) {
    (void)path;
    skip(labelled("%s: unwound at each instruction", what), "this is no x86-64 machine");
}
#endif

/* ---- ARM64, simulated ---- */

enum { ARM_BASE = 0x10000, ARM_STACK = 1 << 20 };

static uint8_t arm_code[4096], arm_memory[ARM_STACK], arm_info[256];
static const uint64_t arm_image = 0x100000000, arm_stack = 0x16f000000, arm_return = 0x100042424;
static cprofi_seh_part arm_part;
static cprofi_span arm_tables;

static bool arm_find(void *user, uint64_t address, cprofi_seh_image *image) {
    (void)user;
    if (address - arm_image >= 0x100000) return false;
    image->base = arm_image;
    image->pdata = arm_tables;
    image->parts = &arm_part;
    image->part_count = 1;
    image->starts = NULL;
    image->start_count = 0;
    return true;
}

static const cprofi_seh_images arm_images = {arm_find, NULL};

/* A program: words, and after which the frame pointer, sp and lr are what. */
typedef struct {
    uint32_t words[256];
    size_t count;
} arm_program;

static void arm_add(arm_program *p, uint32_t word) { p->words[p->count++] = word; }

/* Executes what touches sp, x29, x30 and the stack; false at a return. */
static bool arm_execute(uint32_t i, uint64_t *sp, uint64_t *fp, uint64_t *lr) {
    uint64_t at = *sp;
    int64_t pair = (int64_t)((i >> 15 & 0x7f) ^ 0x40) - 0x40, single = (int64_t)((i >> 12 & 0x1ff) ^ 0x100) - 0x100;
    unsigned first = i & 31, second = i >> 10 & 31;
    if (i == 0xd65f03c0 || i == 0xd65f0fff) return false;
    switch (i >> 22) {
    case 0xd1000000u >> 22: /* sub */
    case 0x91000000u >> 22: { /* add */
        uint64_t constant = i >> 10 & 0xfff, value;
        if ((i >> 5 & 31) != 31) return true;
        value = i >> 30 & 1 ? *sp - constant : *sp + constant;
        if (first == 31) *sp = value;
        if (first == 29) *fp = value;
        return true;
    }
    case 0xa9000000u >> 22: case 0xa9800000u >> 22: /* stp */
    case 0x6d000000u >> 22: case 0x6d800000u >> 22:
        at += (uint64_t)(8 * pair);
        if (i >> 23 & 1) *sp = at;
        if (i >> 26 & 1) return true;
        put(arm_memory + (at - arm_stack), first == 29 ? *fp : first == 30 ? *lr : 1, 8);
        put(arm_memory + (at - arm_stack) + 8, second == 30 ? *lr : 2, 8);
        return true;
    case 0xa9400000u >> 22: case 0xa8c00000u >> 22: /* ldp */
    case 0x6d400000u >> 22: case 0x6cc00000u >> 22:
        if (i >> 24 & 1) at += (uint64_t)(8 * pair);
        else *sp += (uint64_t)(8 * pair);
        if (i >> 26 & 1) return true;
        if (first == 29) memcpy(fp, arm_memory + (at - arm_stack), 8);
        if (second == 30) memcpy(lr, arm_memory + (at - arm_stack) + 8, 8);
        return true;
    case 0xf8000000u >> 22: /* str, pre-indexed */
        if ((i & 0xc00) == 0xc00) *sp += (uint64_t)single;
        return true;
    case 0xf8400000u >> 22: /* ldr, post-indexed */
        if ((i & 0xc00) == 0x400) *sp += (uint64_t)single;
        return true;
    case 0x94000000u >> 22: *lr = 0xdead0000; return true; /* bl: lr is not the caller's any more */
    default: return true;
    }
}

static uint32_t arm_pair(uint32_t op, unsigned a, unsigned b, int words) {
    return op | (uint32_t)(words & 0x7f) << 15 | b << 10 | 31u << 5 | a;
}

/* One function at random, in one of the shapes that clang makes; with the encoding it has. */
static uint32_t arm_function(arm_program *p) {
    unsigned shape = below(5), pairs = below(4), room = 16 * below(20);
    uint32_t encoding = 0x04000000 | ((1u << pairs) - 1);
    bool sign = below(3) == 0;
    memset(p, 0, sizeof *p);
    if (shape == 0) { /* a leaf with room on the stack, or without */
        if (room) arm_add(p, 0xd10003ff | room << 10);
        arm_add(p, 0x8b020021); /* add x1, x1, x2 */
        if (below(2)) arm_add(p, below(2) ? 0x540000a0 : 0x14000002); /* b.eq, b */
        arm_add(p, 0x8b020021);
        if (room) arm_add(p, 0x910003ff | room << 10);
        arm_add(p, 0xd65f03c0);
        return room || below(2) ? 0x02000000 | room / 16 << 12 : 0;
    }
    if (shape == 1) { /* needed on one path only */
        arm_add(p, 0xb4000040); /* cbz */
        arm_add(p, 0x8b020021);
    }
    if (sign) arm_add(p, 0xd503237f); /* pacibsp */
    if (shape == 4) { /* all of it at once */
        unsigned size = 16 * pairs + room + 16;
        arm_add(p, 0xd10003ff | size << 10);
        for (unsigned i = 0; i < pairs; i++) arm_add(p, arm_pair(0xa9000000, 20 + 2 * i, 19 + 2 * i, (int)(2 * i + room / 8)));
        arm_add(p, arm_pair(0xa9000000, 29, 30, (int)(size / 8 - 2)));
        arm_add(p, 0x910003fd | (size - 16) << 10); /* add x29, sp, #n */
        arm_add(p, 0x94000100);                      /* bl */
        arm_add(p, 0x8b020021);
        arm_add(p, arm_pair(0xa9400000, 29, 30, (int)(size / 8 - 2)));
        for (unsigned i = pairs; i--;) arm_add(p, arm_pair(0xa9400000, 20 + 2 * i, 19 + 2 * i, (int)(2 * i + room / 8)));
        arm_add(p, 0x910003ff | size << 10);
    } else {
        unsigned size = 16 * pairs + 16;
        bool floats = below(2) == 0;
        if (floats) arm_add(p, arm_pair(0x6d800000, 9, 8, -2));
        for (unsigned i = 0; i < pairs; i++) {
            arm_add(p, i == 0 ? arm_pair(0xa9800000, 20, 19, -(int)size / 8) : arm_pair(0xa9000000, 20 + 2 * i, 19 + 2 * i, (int)(2 * i)));
        }
        arm_add(p, pairs ? arm_pair(0xa9000000, 29, 30, (int)(2 * pairs)) : arm_pair(0xa9800000, 29, 30, -2));
        arm_add(p, 0x910003fd | (16 * pairs) << 10);
        if (room) arm_add(p, 0xd10003ff | room << 10);
        arm_add(p, 0x94000100);
        arm_add(p, 0x8b020021);
        if (room) arm_add(p, 0x910003ff | room << 10);
        arm_add(p, pairs ? arm_pair(0xa9400000, 29, 30, (int)(2 * pairs)) : arm_pair(0xa8c00000, 29, 30, 2));
        for (unsigned i = pairs; i--;)
            arm_add(p, i ? arm_pair(0xa9400000, 20 + 2 * i, 19 + 2 * i, (int)(2 * i)) : arm_pair(0xa8c00000, 20, 19, (int)size / 8));
        if (floats) arm_add(p, arm_pair(0x6cc00000, 9, 8, 2));
    }
    if (sign && below(2)) arm_add(p, 0xd65f0fff); /* retab */
    else {
        if (sign) arm_add(p, 0xd50323ff); /* autibsp */
        arm_add(p, shape == 3 ? 0x14000200 : 0xd65f03c0); /* b, or ret */
    }
    return encoding;
}

static void arm64(void) {
    size_t wrong = 0, steps = 0;
    char first[300] = "";
    for (int round = 0; round < 20000; round++) {
        arm_program p;
        uint32_t encoding = arm_function(&p);
        uint32_t words[] = {1, 28, 1, 32, 0, 32, 2, encoding, ARM_BASE, 56, 0, 0, 0, 0, 3, 12 | 1u << 16, 16, 0};
        uint64_t sp = arm_stack + ARM_STACK - 4096 - 16 * below(64), fp = arm_stack + ARM_STACK - 64, lr = arm_return;
        const uint64_t entry_sp = sp, entry_fp = fp;
        bool alive = true;
        words[11] = ARM_BASE + 4 * (uint32_t)p.count;
        for (size_t i = 0; i < CPROFI_COUNT(words); i++) put(arm_info + 4 * i, words[i], 4);
        arm_tables.data = arm_info;
        arm_tables.size = sizeof words;
        memset(arm_code, 0, sizeof arm_code);
        for (size_t i = 0; i < p.count; i++) put(arm_code + 4 * i, p.words[i], 4);
        arm_part.bytes.data = arm_code;
        arm_part.bytes.size = 4 * p.count;
        arm_part.rva = ARM_BASE;
        for (size_t at = 0; alive && at < p.count; at++) {
            for (int exact = 1; exact >= 0; exact--) {
                cprofi_seh_frame f;
                cprofi_seh_result result;
                /* a caller stands behind a call */
                if (!exact && (at == 0 || (p.words[at - 1] & 0xfc000000) != 0x94000000)) continue;
                memset(&f, 0, sizeof f);
                f.images = &arm_images;
                f.stack.data = arm_memory + (sp - arm_stack);
                f.stack.lo = sp;
                f.stack.hi = arm_stack + ARM_STACK;
                f.regs.pc = arm_image + ARM_BASE + 4 * at;
                f.regs.r[CPROFI_SEH_ARM64_SP] = sp;
                f.regs.r[CPROFI_SEH_ARM64_FP] = fp;
                f.regs.r[CPROFI_SEH_ARM64_LR] = lr == arm_return && below(2) ? lr | 0x00aa000000000000u : lr;
                f.exact = exact;
                result = cprofi_compact_arm64_step(&f);
                steps++;
                /* where there is a frame pointer, the caller's sp is right above its frame, which is
                   not that of what was saved before */
                if (result == CPROFI_SEH_FRAME && f.regs.pc == arm_return && f.regs.r[CPROFI_SEH_ARM64_FP] == entry_fp &&
                    (f.regs.r[CPROFI_SEH_ARM64_SP] == entry_sp || f.regs.r[CPROFI_SEH_ARM64_SP] == fp + 16))
                    continue;
                if (!wrong++)
                    snprintf(first, sizeof first, "encoding %x, word %zu of %zu (%08x): %d, pc %llx, fp %llx, sp %llx of %llx", encoding, at,
                             p.count, p.words[at], (int)result, (unsigned long long)f.regs.pc, (unsigned long long)f.regs.r[29],
                             (unsigned long long)f.regs.r[31], (unsigned long long)entry_sp);
            }
            alive = arm_execute(p.words[at], &sp, &fp, &lr);
        }
        if (alive && (sp != entry_sp || fp != entry_fp || lr != arm_return) && (p.words[p.count - 1] >> 26) == 5 && !wrong++)
            snprintf(first, sizeof first, "the machine is wrong");
    }
    check(!wrong && steps > 100000, labelled("ARM64: %zu steps out of functions made at random", steps), "%zu wrong: %s", wrong, first);
}

/* ---- roots, stubs, no tables ---- */

static void corners(void) {
    cprofi_seh_frame f;
    memset(&f, 0, sizeof f);
    memset(arm_memory, 0, sizeof arm_memory);
    f.images = &arm_images;
    f.stack.data = arm_memory;
    f.stack.lo = arm_stack;
    f.stack.hi = arm_stack + ARM_STACK;
    arm_tables.size = 0;
    f.regs.pc = arm_image + 0x500;
    f.regs.r[CPROFI_SEH_ARM64_SP] = arm_stack + 64;
    check(cprofi_compact_arm64_step(&f) == CPROFI_SEH_END, "ARM64: a frame pointer of 0 is the root's", "it is not");
    f.exact = true;
    f.regs.pc = arm_image + 0x500;
    f.regs.r[CPROFI_SEH_ARM64_LR] = arm_return;
    check(cprofi_compact_arm64_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == arm_return && !f.exact,
          "ARM64: code without an entry returns to the link register", "to %llx", (unsigned long long)f.regs.pc);
    memset(&f.regs, 0, sizeof f.regs);
    f.exact = false;
    f.regs.pc = 0x200000000;
    f.regs.r[CPROFI_SEH_X64_SP] = arm_stack + 64;
    f.regs.r[CPROFI_SEH_X64_BP] = arm_stack + 128;
    put(arm_memory + 128, arm_stack + 256, 8);
    put(arm_memory + 136, 0x100000777, 8);
    check(cprofi_compact_x64_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == 0x100000777 && f.regs.r[CPROFI_SEH_X64_SP] == arm_stack + 144 &&
              f.regs.r[CPROFI_SEH_X64_BP] == arm_stack + 256,
          "x64: code of no image is left by its frame pointer", "%llx", (unsigned long long)f.regs.pc);
    f.regs.r[CPROFI_SEH_X64_BP] = arm_stack + 8;
    check(cprofi_compact_x64_step(&f) == CPROFI_SEH_BROKEN, "x64: a frame pointer below the stack pointer is none", "it is one");
}

/* ---- fat files ---- */

static void big(uint8_t *to, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; i++) to[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
}

static void fat(const char *a, const char *b) {
    file one, two;
    bool ok = load(a, &one) && load(b, &two);
    size_t at = 4096, next = at + (one.size + 4095) / 4096 * 4096;
    uint8_t *data = (uint8_t *)calloc(1, next + two.size), none[16] = {1};
    cprofi_span span = {data, next + two.size};
    cprofi_source source = cprofi_source_of(span);
    cprofi_macho m;
    for (int wide = 0; ok && wide < 2; wide++) {
        size_t entry = wide ? 32 : 20, word = wide ? 8 : 4;
        memset(data, 0, at);
        big(data, wide ? 0xcafebabf : 0xcafebabe, 4);
        big(data + 4, 2, 4);
        for (size_t i = 0; i < 2; i++) {
            big(data + 8 + i * entry, i ? two.macho.processor : one.macho.processor, 4);
            big(data + 16 + i * entry, i ? next : at, word);
            big(data + 16 + word + i * entry, i ? two.size : one.size, word);
        }
        memcpy(data + at, one.data, one.size);
        memcpy(data + next, two.data, two.size);
        ok = cprofi_macho_open(&source, NULL, &m) && m.processor == one.macho.processor;
        cprofi_macho_close(&m);
        ok = ok && cprofi_macho_open(&source, two.macho.uuid, &m) && m.processor == two.macho.processor && m.image.base == next &&
             m.section_count == two.macho.section_count && m.symbols.size == two.macho.symbols.size && m.strings.base == next + two.macho.strings.base;
        cprofi_macho_close(&m);
        ok = ok && !cprofi_macho_open(&source, none, &m);
        check(ok, labelled("a fat file of %zu bits: the image is found by its UUID", 8 * word), "it is not");
    }
    free(data);
    unload(&one);
    unload(&two);
}

/* ---- an image by hand ---- */

enum { HAND_TEXT = 0x1000, HAND_STUBS = 0x1200, HAND_DATA = 0x2000, HAND_SYMBOLS = 0x3000, HAND_STRINGS = 0x3400, HAND_INDIRECT = 0x3800,
       HAND_SIZE = 0x4000 };

static size_t hand_section(uint8_t *to, const char *name, uint64_t address, uint64_t size, uint32_t flags, uint32_t first, uint32_t entry) {
    memset(to, 0, 80);
    memcpy(to, name, strlen(name) < 16 ? strlen(name) : 16);
    put(to + 32, address, 8);
    put(to + 40, size, 8);
    put(to + 48, address, 4); /* also where it is in the file */
    put(to + 64, flags, 4);
    put(to + 68, first, 4);
    put(to + 72, entry, 4);
    return 80;
}

static void by_hand(void) {
    static const struct { uint64_t value; uint8_t type, section; uint16_t desc; const char *name; } symbols[] = {
        {0x1008, 0x2e, 1, 0, "_stab"},       {0x1000, 0x0e, 1, 0, "_first_local"}, {0x1000, 0x0f, 1, 0, "_first"},
        {0x1000, 0x0f, 1, 0, "_first_too"},  {0x1010, 0x02, 0, 0, "_absolute"},    {0x1020, 0x0f, 1, 0x200, "_alternative"},
        {0x1020, 0x0e, 1, 0, "_second"},     {0x1040, 0x0e, 1, 0, "<redacted>"},
        {0x2004, 0x0f, 3, 0, "_data"},       {0, 0x01, 0, 0, "_undefined"},        {0, 0x01, 0, 0, "_imported"},
        {0x1060, 0x0e, 1, 0, "third"}};
    static const struct { uint64_t address; const char *name; bool thunk; } expect[] = {
        {0x1000, "first", false}, {0x1009, "first", false}, {0x1011, "first", false},   {0x1020, "second", false}, {0x102f, "second", false},
        {0x1044, NULL, false},    {0x1064, "third", false}, {0x1201, "undefined", true}, {0x1206, "imported", true}, {0x2005, NULL, false},
        {0x4000, NULL, false}};
    uint8_t *b = (uint8_t *)calloc(1, HAND_SIZE), *c = b + 32;
    cprofi_span span = {b, HAND_SIZE};
    cprofi_source source = cprofi_source_of(span);
    cprofi_macho m;
    cprofi_debug debug;
    cprofi_text text;
    cprofi_macho_want want[CPROFI_COUNT(expect)];
    size_t strings = 1, n = CPROFI_COUNT(expect);
    memset(&text, 0, sizeof text);
    put(b, 0xfeedfacf, 4);
    put(b + 4, CPROFI_MACHO_X64, 4);
    put(b + 16, 3, 4);
    put(c, 0x19, 4);
    put(c + 4, 72 + 5 * 80, 4);
    memcpy(c + 8, "__TEXT", 6);
    put(c + 24, 0, 8);
    put(c + 32, 0x3000, 8);
    put(c + 64, 5, 4);
    c += 72;
    c += hand_section(c, "__text", HAND_TEXT, 0x100, 0x80000400, 0, 0);
    c += hand_section(c, "__stubs", HAND_STUBS, 12, 0x80000408, 1, 6);
    c += hand_section(c, "__data", HAND_DATA, 0x100, 0, 0, 0);
    c += hand_section(c, "__debug_str_offs", 0x2100, 0x20, 0x02000000, 0, 0);
    c += hand_section(c, "__debug_str", 0x2200, 0x30, 0x02000001, 0, 0); /* as zeros: not in the file */
    put(c, 2, 4);
    put(c + 4, 24, 4);
    put(c + 8, HAND_SYMBOLS, 4);
    put(c + 12, CPROFI_COUNT(symbols), 4);
    put(c + 16, HAND_STRINGS, 4);
    put(c + 20, 0x400, 4);
    c += 24;
    put(c, 0xb, 4);
    put(c + 4, 80, 4);
    put(c + 56, HAND_INDIRECT, 4);
    put(c + 60, 3, 4);
    c += 80;
    put(b + 20, (uint64_t)(c - b) - 32, 4);
    put(b + HAND_INDIRECT, 8, 4);
    put(b + HAND_INDIRECT + 4, 9, 4);
    put(b + HAND_INDIRECT + 8, 10, 4);
    for (size_t i = 0; i < CPROFI_COUNT(symbols); i++) {
        uint8_t *s = b + HAND_SYMBOLS + 16 * i;
        put(s, strings, 4);
        s[4] = symbols[i].type;
        s[5] = symbols[i].section;
        put(s + 6, symbols[i].desc, 2);
        put(s + 8, symbols[i].value, 8);
        strcpy((char *)b + HAND_STRINGS + strings, symbols[i].name);
        strings += strlen(symbols[i].name) + 1;
    }
    if (!cprofi_macho_open(&source, NULL, &m)) {
        check(false, "an image by hand opens", "it does not");
        return;
    }
    for (size_t i = 0; i < n; i++) want[i].address = expect[i].address;
    cprofi_macho_lookup(&m, want, n, &text);
    for (size_t i = 0; i < n; i++)
        check(want[i].thunk == expect[i].thunk && (want[i].name && expect[i].name ? strcmp(want[i].name, expect[i].name) == 0 : want[i].name == expect[i].name),
              labelled("an image by hand: what is at %llx", (unsigned long long)expect[i].address), "%s, not %s", want[i].name ? want[i].name : "nothing",
              expect[i].name ? expect[i].name : "nothing");
    check(cprofi_macho_debug(&m, &debug) == CPROFI_DEBUG_OK && debug.dwarf.sections[CPROFI_DWARF_STR_OFFSETS].size == 0x20 &&
              !debug.dwarf.sections[CPROFI_DWARF_STR].size,
          "a debug section with a long name, and one that is not in the file", "wrong");
    cprofi_debug_close(&debug);
    cprofi_text_free(&text);
    cprofi_macho_close(&m);
    free(b);
}

/* Stubs are called what they jump to. */
static void stubs(const char *what, const char *path) {
    file f;
    cprofi_text text;
    cprofi_macho_want want;
    const cprofi_macho_section *s;
    memset(&text, 0, sizeof text);
    memset(&want, 0, sizeof want);
    if (!load(path, &f)) return;
    s = section(&f.macho, "__stubs");
    want.address = s ? s->address + 2 : 0;
    cprofi_macho_lookup(&f.macho, &want, 1, &text);
    check(want.thunk && want.name && strcmp(want.name, "outside") == 0, labelled("%s: a stub is named", what), "%s", want.name ? want.name : "not");
    cprofi_text_free(&text);
    unload(&f);
}

/* ---- damage ---- */

static void damage(const char *what, const char *path) {
    file f;
    const char *wanted = getenv("CPROF_TEST_ROUNDS");
    int rounds = wanted ? atoi(wanted) : 2000;
    uint8_t *copy;
    size_t opened = 0;
    if (!load(path, &f)) return;
    copy = (uint8_t *)malloc(f.size);
    for (int round = 0; copy && round < rounds; round++) {
        cprofi_span span = {copy, below(4) ? f.size : below((uint32_t)f.size)};
        cprofi_source source = cprofi_source_of(span);
        cprofi_text text;
        cprofi_macho m;
        cprofi_debug debug;
        memcpy(copy, f.data, f.size);
        for (uint32_t n = 1 + below(8); n; n--) {
            uint32_t at = below(below(2) ? 2000 : (uint32_t)f.size), size = 1u << below(4);
            if (at + size <= f.size) put(copy + at, below(3) ? random_state : below(2) ? UINT64_MAX : 0, size);
        }
        memset(&text, 0, sizeof text);
        if (!cprofi_macho_open(&source, NULL, &m)) continue;
        opened++;
        for (size_t i = 0; i < 50; i++) wants[i].address = f.macho.base + below((uint32_t)(f.macho.end - f.macho.base));
        cprofi_macho_lookup(&m, wants, 50, &text);
        cprofi_macho_debug(&m, &debug);
        cprofi_debug_close(&debug);
        cprofi_text_free(&text);
        cprofi_macho_close(&m);
    }
    check(opened > (size_t)rounds / 10, labelled("%s: damaged files do no harm", what), "only %zu could be opened", opened);
    free(copy);
    unload(&f);
}

/* ---- */

static bool build(const char *target, const char *flags, const char *name) {
    return run("clang -target %s-apple-macos11 %s -g -fno-builtin -fno-stack-protector -c tests/unit/macho/code.c -o %s/%s.o 2>%s/log && "
               "clang -target %s-apple-macos11 -fuse-ld=lld -nostdlib -dynamiclib -Wl,-undefined,dynamic_lookup %s/%s.o -o %s/%s "
               "2>>%s/log && dsymutil %s/%s 2>>%s/log",
               target, flags, scratch, name, scratch, target, scratch, name, scratch, name, scratch, scratch, name, scratch);
}

static void compiled(void) {
    static const struct { const char *target, *flags, *name; } programs[] = {
        {"x86_64", "-O2 -fomit-frame-pointer", "x64-O2-frameless"}, {"x86_64", "-O1", "x64-O1"},
        {"x86_64", "-O0", "x64-O0"}, {"x86_64", "-O3 -mavx2 -fomit-frame-pointer", "x64-O3"},
        {"arm64", "-O2", "arm64-O2"}, {"arm64", "-O0", "arm64-O0"}};
    char path[2][400];
    if (!run("command -v clang >/dev/null && command -v dsymutil >/dev/null && command -v llvm-nm >/dev/null")) {
        skip("programs made by clang", "clang or llvm is not installed");
        return;
    }
    for (size_t i = 0; i < CPROFI_COUNT(programs); i++) {
        const char *name = programs[i].name;
        snprintf(path[0], sizeof path[0], "%s/%s", scratch, name);
        if (!build(programs[i].target, programs[i].flags, name)) {
            skip(labelled("%s: clang and lld make it", name), "they do not");
            run("sed 's/^/# /' %s/log", scratch);
            continue;
        }
        compare_symbols(name, path[0], path[0], NULL);
        compare_sites(name, path[0]);
        stubs(name, path[0]);
        if (!strstr(name, "x64-O0")) compare_tables(name, path[0]); /* see `live` */
        if (programs[i].target[0] == 'x' && !(strstr(programs[i].flags, "avx") && !__builtin_cpu_supports("avx2"))) live(name, path[0]);
    }
    snprintf(path[0], sizeof path[0], "%s/x64-O2-frameless", scratch);
    snprintf(path[1], sizeof path[1], "%s/stripped", scratch);
    if (run("llvm-strip -x %s -o %s 2>/dev/null", path[0], path[1])) compare_symbols("stripped", path[0], path[1], "leaf");
    else skip("stripped: names as llvm-nm has them", "llvm-strip does not do it");
    damage("image", path[0]);
    snprintf(path[0], sizeof path[0], "%s/x64-O1.dSYM/Contents/Resources/DWARF/x64-O1", scratch);
    damage("dSYM", path[0]);
    snprintf(path[0], sizeof path[0], "%s/x64-O1", scratch);
    snprintf(path[1], sizeof path[1], "%s/arm64-O2", scratch);
    fat(path[0], path[1]);
}

int main(int argc, char **argv) {
    snprintf(scratch, sizeof scratch, "/tmp/cprof-macho-XXXXXX");
    if (!mkdtemp(scratch)) return 2;
    for (int i = 1; i < argc; i++) {
        compare_symbols(argv[i], argv[i], argv[i], NULL);
        compare_tables(argv[i], argv[i]);
    }
    if (argc == 1) {
        tables_by_hand();
        by_hand();
        arm64();
        corners();
        compiled();
    }
    if (!getenv("KEEP")) run("rm -rf '%s'", scratch);
    return failures != 0;
}
