/* The unwinder on AArch64: right after every instruction, as a shadow stack tells, of code compiled
   in many ways, libc's and assembly without tables; as glibc's backtrace() tells; and its compact
   rules say what the interpreter of the tables says, everywhere in all that is loaded.

   Nothing steps a program on AArch64 from inside it, so this does: it puts a breakpoint (brk) where
   the next instruction will be, which it works out from the present one and the registers. All that
   is loaded is made writable for that. On a real processor, too; but a loop of load-exclusive and
   store-exclusive would never end under it, so those are passed in one go. */
#include "../unit/unit.h"

#include <execinfo.h>

enum { DEPTH = 512, SHADOW = 1024, MISMATCHES = 12 };

static cprofi_modules modules;
static cprofi_unwinder unwinder;
static cprofi_scratch scratch;
static uintptr_t frames[DEPTH];

static size_t walk(const void *context, uintptr_t *to, size_t max, cprofi_end *end) {
    cprofi_regs regs;
    cprofi_view view = {0, 0, 0, true};
    cprofi_regs_from_ucontext(&regs, context);
    return cprofi_unwind(&unwinder, &modules, &regs, &view, &scratch, to, max, end, NULL);
}

/* ---- stepping ---- */

static struct {
    uintptr_t end, base; /* where the function returns to, and SP then */
    uintptr_t tail[DEPTH];
    size_t tail_count;
    uintptr_t ra[SHADOW], at[SHADOW]; /* calls made since stepping began */
    size_t depth;
    uintptr_t planted; /* where the breakpoint is */
    uint32_t word;     /* and what it replaces */
    bool lands;
    size_t steps, rooted, exact, excused, signed_addresses;
    struct { uintptr_t pc; size_t n, want; cprofi_end end; } bad[MISMATCHES];
    size_t bad_count;
} step;

static void put(uintptr_t at, uint32_t word) {
    *(volatile uint32_t *)at = word;
    __builtin___clear_cache((char *)at, (char *)at + 4);
}

static void plant(uintptr_t at) {
    step.planted = at;
    step.word = *(volatile uint32_t *)at;
    put(at, 0xd4200000);
}

static bool holds(uint32_t condition, uint64_t pstate) {
    const bool n = pstate >> 31 & 1, z = pstate >> 30 & 1, c = pstate >> 29 & 1, v = pstate >> 28 & 1;
    bool yes = true;
    switch (condition >> 1) {
    case 0: yes = z; break;
    case 1: yes = c; break;
    case 2: yes = n; break;
    case 3: yes = v; break;
    case 4: yes = c && !z; break;
    case 5: yes = n == v; break;
    case 6: yes = n == v && !z; break;
    default: return true;
    }
    return yes != (condition & 1);
}

static uintptr_t relative(uintptr_t pc, uint32_t word, unsigned at, unsigned bits) {
    const uint32_t sign = 1u << (bits - 1);
    const int32_t n = (int32_t)((word >> at & (2 * sign - 1)) ^ sign) - (int32_t)sign;
    return pc + (uintptr_t)(4 * (intptr_t)n);
}

/* Where the program goes from pc. *call: by calling. */
static uintptr_t next_of(const uint64_t *r, uint64_t pstate, uintptr_t pc, bool *call) {
    const uint32_t w = *(volatile uint32_t *)pc;
    uint64_t v = (w & 31) == 31 ? 0 : r[w & 31];
    *call = false;
    if ((w & 0x7c000000) == 0x14000000) {
        *call = w >> 31;
        return relative(pc, w, 0, 26);
    }
    if ((w & 0xff000010) == 0x54000000) return holds(w & 15, pstate) ? relative(pc, w, 5, 19) : pc + 4;
    if ((w & 0x7e000000) == 0x34000000) {
        if (!(w >> 31)) v &= 0xffffffff;
        return (v == 0) != (w >> 24 & 1) ? relative(pc, w, 5, 19) : pc + 4;
    }
    if ((w & 0x7e000000) == 0x36000000)
        return (v >> ((w >> 31) << 5 | (w >> 19 & 31)) & 1) == (w >> 24 & 1) ? relative(pc, w, 5, 14) : pc + 4;
    if ((w & 0xfe000000) == 0xd6000000) { /* br, blr, ret, and those that authenticate */
        const uint32_t by = (w & 0xfffffbff) == 0xd65f0bff ? 30 : w >> 5 & 31;
        *call = (w >> 21 & 7) == 1;
        return (uintptr_t)(r[by] & 0xffffffffffff);
    }
    if ((w & 0x3fc00000) == 0x08400000) /* load-exclusive: on to behind the loop */
        for (uintptr_t at = pc + 4; at < pc + 64; at += 4)
            if ((*(volatile uint32_t *)at & 0x3fc00000) == 0x08000000) return at + 8;
    return pc + 4;
}

static bool step_compare(size_t n) {
    if (n != step.depth + step.tail_count + 1) return false;
    for (size_t i = 0; i < step.depth; i++)
        if (frames[1 + i] != step.ra[step.depth - 1 - i] - 1) return false;
    return memcmp(frames + 1 + step.depth, step.tail, step.tail_count * sizeof *frames) == 0;
}

/* Places where the tables, or the stack itself, do not say what is so:
   - longjmp describes the jmp_buf as its frame, in which the return address is scrambled;
   - glibc's resolver of PLT entries says at its first instruction that nothing was pushed before;
   - while an exception lands, libgcc overwrites what its frames have saved with what the handler's
     function shall find. */
static bool excused(uintptr_t pc) {
    for (size_t i = 0; i < 4 && i <= step.depth; i++) {
        const uintptr_t at = i ? step.ra[step.depth - i] - 4 : pc;
        const cprofi_module_range *range = cprofi_modules_range(modules.index, at);
        if (!range || cprofi_cfi_row(range->tables, at, &scratch) <= 0) continue;
        const uint8_t reg = scratch.row.cfa_register;
        const uintptr_t start = scratch.fde.start, end = start + scratch.fde.size;
        if (!i && reg != CPROFI_SP && reg != CPROFI_FP) return true;
        for (uintptr_t k = start; k < end; k += 4)
            if (*(volatile uint32_t *)k == 0x8b2463ff) return true;
        if (!i && start == pc && cprofi_cfi_row(range->tables, pc + 4, &scratch) > 0 &&
            scratch.row.kind[CPROFI_RA] == CPROFI_CFI_AT && scratch.row.value[CPROFI_RA] == 8)
            return true;
    }
    return false;
}

static void on_trap(int sig, siginfo_t *info, void *context) {
    ucontext_t *uc = (ucontext_t *)context;
    const uint64_t *r = (const uint64_t *)uc->uc_mcontext.regs;
    const uintptr_t pc = (uintptr_t)uc->uc_mcontext.pc, sp = (uintptr_t)uc->uc_mcontext.sp;
    const int saved_errno = errno;
    cprofi_end end;
    bool call;
    (void)sig;
    (void)info;
    if (pc != step.planted) abort();
    put(pc, step.word);
    step.planted = 0;
    if (pc == step.end && sp == step.base) return;
    /* A call is over when SP is above it, or where it was and the program behind the call. Or in a
       handler of exceptions, or where longjmp went: then SP has just been set, or x4 added to it. */
    while (step.depth && (step.at[step.depth - 1] < sp || (step.at[step.depth - 1] == sp &&
                                                           (step.ra[step.depth - 1] == pc || step.lands))))
        step.depth--;
    step.lands = step.word == 0x8b2463ff || ((step.word & 0xfffffc1f) == 0x9100001f && (step.word >> 5 & 31) < 29);
    size_t n = walk(context, frames, DEPTH, &end);
    if (!step.steps++) { /* the function's first instruction: what is below it stays so */
        step.tail_count = n - 1;
        memcpy(step.tail, frames + 1, step.tail_count * sizeof *frames);
        step.base = sp;
        step.end = (uintptr_t)(r[30] & 0xffffffffffff);
    }
    bool good = step_compare(n);
    if ((!good || end != CPROFI_END_ROOT) && excused(pc)) {
        step.excused++;
        good = true;
        end = CPROFI_END_ROOT;
    }
    step.rooted += end == CPROFI_END_ROOT;
    step.exact += good;
    step.signed_addresses += r[30] >> 48 != 0;
    if ((!good || end != CPROFI_END_ROOT) && step.bad_count < MISMATCHES) {
        size_t i = step.bad_count++;
        step.bad[i].pc = pc;
        step.bad[i].n = n;
        step.bad[i].want = step.depth + step.tail_count + 1;
        step.bad[i].end = end;
    }
    uintptr_t next = next_of(r, uc->uc_mcontext.pstate, pc, &call);
    if (call && step.depth < SHADOW) {
        step.ra[step.depth] = pc + 4;
        step.at[step.depth++] = sp;
    }
    errno = saved_errno;
    plant(next);
}

static bool make_writable(void) {
    for (uint32_t id = 1; id < modules.count; id++)
        for (uint32_t i = 0; i < modules.records[id].code_count; i++) {
            uintptr_t lo = modules.records[id].code_lo[i] & ~(uintptr_t)4095;
            if (strcmp(modules.records[id].name, "[vdso]") != 0 &&
                mprotect((void *)lo, modules.records[id].code_hi[i] - lo, PROT_READ | PROT_WRITE | PROT_EXEC) != 0)
                return false;
        }
    return true;
}

static void step_through(const char *name, void (*what)(void), bool signs) {
    struct sigaction action, old;
    uintptr_t at;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_trap;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGTRAP, &action, &old);
    memset(&step, 0, sizeof step);
    memcpy(&at, &what, sizeof at);
    plant(at);
    what();
    sigaction(SIGTRAP, &old, NULL);
    for (size_t i = 0; i < step.bad_count; i++) {
        uint32_t id = cprofi_modules_find(&modules, step.bad[i].pc);
        printf("# %s: pc %s+0x%zx: %zu frames, not %zu, end %d\n", name, id ? modules.records[id].name : "?",
               (size_t)(step.bad[i].pc - modules.records[id].slide), step.bad[i].n, step.bad[i].want, (int)step.bad[i].end);
    }
    printf("# %s: %zu instructions, %zu excused, %zu with a signed return address\n", name, step.steps, step.excused,
           step.signed_addresses);
    if (step.planted) {
        uint32_t id = cprofi_modules_find(&modules, step.planted);
        printf("# %s: lost on the way to %s+0x%zx\n", name, id ? modules.records[id].name : "?",
               (size_t)(step.planted - modules.records[id].slide));
    }
    check(step.planted == 0 && step.steps > 100 && step.exact == step.steps && step.rooted == step.steps, name,
          "%zu of %zu instructions wrong", step.steps - step.exact, step.steps);
    if (step.excused > 40 && step.excused * 20 > step.steps)
        check(false, "few instructions are excused", "%zu of %zu in %s", step.excused, step.steps, name);
    if (signs) {
        char text[128];
        snprintf(text, sizeof text, "%s: return addresses are signed", name);
        check(step.signed_addresses > 0, text, "none is");
    }
}

/* steps.c, in all the ways that run.py compiles it. */
#define VARIANTS(each) each(gcc_O0) each(gcc_O2) each(gcc_no_fp) each(gcc_pauth) each(gcc_pauth_leaf) each(gcc_cxx) each(clang_O2) each(clang_pauth)
#define DECLARE(name) void steps_##name(void);
VARIANTS(DECLARE)

static char text[4096];

static int compare(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static void steps_libc(void) {
    int numbers[32], key = 17;
    struct timespec now;
    void *p[8];
    for (int i = 0; i < 32; i++) numbers[i] = (i * 37) % 32;
    qsort(numbers, 32, sizeof *numbers, compare);
    if (!bsearch(&key, numbers, 32, sizeof key, compare)) abort();
    snprintf(text, sizeof text, "%d %s %.10g %p %-20s|", 42, "hello", 3.14159265358979, (void *)text, "x");
    for (size_t i = 0; i < 8; i++) p[i] = malloc(i * i * 40 + 1);
    for (size_t i = 0; i < 8; i++) free(p[i]);
    memset(text, 1, sizeof text);
    memmove(text + 3, text, 200);
    if (strtod("1.2345678901234567890123e-200", NULL) > 1) abort();
    clock_gettime(CLOCK_MONOTONIC, &now);
    getenv("NOTHING");
    setenv("SOMETHING", "else", 1);
    close(-1);
}

/* ---- assembly without tables ---- */

__asm__(".text\n"
        ".balign 16\n"
        "no_tables_frame:\n" /* calls its argument three times */
        "    stp x29, x30, [sp, #-48]!\n    mov x29, sp\n    stp x19, x20, [sp, #16]\n"
        "    mov x19, x0\n    mov w20, #3\n    sub sp, sp, #64\n"
        "1:  blr x19\n    subs w20, w20, #1\n    b.ne 1b\n"
        "    add sp, sp, #64\n    ldp x19, x20, [sp, #16]\n    ldp x29, x30, [sp], #48\n    ret\n"
        ".balign 16\n"
        "no_tables_plain:\n" /* the same without a frame pointer, registers apart, two ways out */
        "    cbz x0, 3f\n"
        "    sub sp, sp, #96\n    str x30, [sp, #8]\n    str x19, [sp, #72]\n"
        "    mov x19, x0\n    blr x19\n    blr x19\n    cbz x19, 2f\n"
        "    ldr x19, [sp, #72]\n    ldr x30, [sp, #8]\n    add sp, sp, #96\n    ret\n"
        "2:  ldr x30, [sp, #8]\n    add sp, sp, #96\n"
        "3:  ret\n"
        ".balign 16\n"
        "no_tables_aligned:\n" /* a stack it cannot know */
        "    stp x29, x30, [sp, #-32]!\n    str x19, [sp, #16]\n    mov x29, sp\n    mov x19, x0\n"
        "    sub x9, sp, #128\n    and sp, x9, #-64\n    blr x19\n"
        "    mov sp, x29\n    ldr x19, [sp, #16]\n    ldp x29, x30, [sp], #32\n    ret\n"
        ".balign 16\n"
        "no_tables_leaf:\n"
        "    mov w1, #5\n    cbz x0, 5f\n    stp x19, x20, [sp, #-16]!\n"
        "4:  mul x19, x1, x1\n    subs w1, w1, #1\n    b.ne 4b\n    ldp x19, x20, [sp], #16\n"
        "5:  ret\n"
        ".balign 16\n"
        "no_tables_jumps:\n" /* a tail call */
        "    str x30, [sp, #-16]!\n    blr x0\n    ldr x30, [sp], #16\n    mov x0, xzr\n    b no_tables_leaf\n");
extern void no_tables_frame(void (*call)(void)) __asm__("no_tables_frame");
extern void no_tables_plain(void (*call)(void)) __asm__("no_tables_plain");
extern void no_tables_aligned(void (*call)(void)) __asm__("no_tables_aligned");
extern void no_tables_leaf(void *p) __asm__("no_tables_leaf");
extern void no_tables_jumps(void (*call)(void)) __asm__("no_tables_jumps");

static volatile int called;

__attribute__((noinline)) static void count_call(void) { called++; }
__attribute__((noinline)) static void call_frame(void) {
    no_tables_frame(count_call);
    no_tables_aligned(count_call);
    called++;
}
__attribute__((noinline)) static void call_leaf(void) {
    no_tables_leaf(NULL);
    no_tables_leaf(text);
    called++;
}

static void steps_no_tables(void) {
    no_tables_frame(count_call);
    no_tables_plain(count_call);
    no_tables_plain(NULL);
    no_tables_aligned(count_call);
    no_tables_plain(call_frame);
    no_tables_frame(call_leaf);
    no_tables_aligned(call_leaf);
    no_tables_jumps(call_leaf);
    called++;
}

/* ---- known stacks, compared with glibc's own unwinder ---- */

static struct {
    size_t checks, same;
    size_t ours, theirs, at;
} truth;

__attribute__((noinline)) static void truth_check(void) {
    void *theirs[DEPTH];
    ucontext_t context;
    cprofi_end end;
    getcontext(&context);
    size_t n = walk(&context, frames, DEPTH, &end), i = 1;
    int m = backtrace(theirs, DEPTH);
    bool same = end == CPROFI_END_ROOT && m > 1 && n == (size_t)m;
    for (; same && i < n; i++) { /* frame 0 is this function, at different calls */
        uintptr_t their = (uintptr_t)theirs[i] & 0xffffffffffff;
        same = frames[i] + 1 == their || frames[i] == their;
    }
    truth.checks++;
    truth.same += same;
    if (!same && truth.same + 1 == truth.checks) {
        truth.ours = n;
        truth.theirs = (size_t)m;
        truth.at = i;
    }
    __asm__ volatile("" ::: "memory");
}

static void truth_report(const char *name) {
    check(truth.checks > 0 && truth.same == truth.checks, name,
          "%zu of %zu differ, the first at frame %zu of %zu, backtrace has %zu", truth.checks - truth.same, truth.checks,
          truth.at, truth.ours, truth.theirs);
    memset(&truth, 0, sizeof truth);
}

static volatile char *volatile sink;

__attribute__((noinline)) static int recurse_odd(int n) {
    volatile char aligned[64] __attribute__((aligned(64)));
    volatile char *p = (volatile char *)__builtin_alloca((size_t)(n * 131 % 3000) + 1);
    p[0] = aligned[0] = 1;
    sink = p;
    if (n == 0) truth_check();
    return (n ? recurse_odd(n - 1) : 0) + p[0] + aligned[0];
}

static int compare_checking(const void *a, const void *b) {
    truth_check();
    return compare(a, b);
}

static void on_signal(int sig) {
    if (sig == SIGUSR1) raise(SIGUSR2);
    truth_check();
}

static void test_truth(void) {
    int numbers[8] = {5, 3, 8, 1, 9, 2, 7, 4}, key = 9;
    static char stack[65536];
    struct sigaction action;
    stack_t alternate;
    for (int n = 0; n < 100; n += 7) recurse_odd(n);
    truth_report("frames with alloca have backtrace's frames");
    qsort(numbers, 8, sizeof key, compare_checking);
    if (!bsearch(&key, numbers, 8, sizeof key, compare_checking)) abort();
    truth_report("callbacks from qsort and bsearch have backtrace's frames");
    memset(&alternate, 0, sizeof alternate);
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof stack;
    sigaltstack(&alternate, NULL);
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGUSR2, &action, NULL);
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    alternate.ss_flags = SS_DISABLE;
    sigaltstack(&alternate, NULL);
    truth_report("nested handlers on an alternate stack have backtrace's frames");
}

/* ---- rules against the interpreter ---- */

/* One frame from the same registers by both. */
static bool same_step(const cprofi_module_range *range, uintptr_t pc, cprofi_rule rule, uint64_t seed) {
    static uintptr_t memory[8192];
    cprofi_regs a, b;
    cprofi_view view = {(uintptr_t)memory, (uintptr_t)memory + sizeof memory, 0, false};
    cprofi_module_index index;
    uintptr_t cfa, ra = 0;
    memset(&index, 0, sizeof index);
    index.count = 1;
    index.ranges = (cprofi_module_range *)(uintptr_t)range;
    for (size_t i = 0; i < CPROFI_COUNT(memory); i++) memory[i] = (i * 0x9e3779b97f4a7c15u) ^ seed;
    for (size_t i = 0; i < CPROFI_REGS; i++) a.r[i] = 0x1000 * (i + 1) + seed % 256;
    a.r[CPROFI_SP] = (uintptr_t)(memory + 4000);
    a.r[CPROFI_FP] = (uintptr_t)(memory + 4100);
    a.known = CPROFI_ALL_KNOWN;
    b = a;
    if (cprofi_step_full(&unwinder, &index, &a, &view, &scratch, pc, true) != CPROFI_STEP_ON) return false;
    cfa = b.r[rule.cfa >> 32 & 0xff] + (uintptr_t)(intptr_t)(int32_t)(uint32_t)rule.cfa;
    if (!cprofi_rule_return(&unwinder, rule, &b, &view, cfa, &ra)) return false;
    cprofi_rule_restore(&unwinder, rule, &b, &view, cfa);
    b.r[CPROFI_SP] = cfa;
    b.r[CPROFI_PC] = ra;
    for (size_t i = 0; i < CPROFI_REGS; i++)
        if (((i >= 19 && i <= 31) || i == CPROFI_PC) && (a.r[i] != b.r[i] || (a.known ^ b.known) >> i & 1)) return false;
    return true;
}

static void test_rules(void) {
    size_t rows = 0, simple = 0, same = 0, full = 0, based = 0, huge = 0;
    for (size_t i = 0; i < modules.index->count; i++) {
        const cprofi_module_range *range = &modules.index->ranges[i];
        for (uintptr_t pc = range->lo & ~(uintptr_t)3; pc < range->hi; pc += 20) {
            if (cprofi_cfi_row(range->tables, pc, &scratch) <= 0) continue;
            cprofi_rule rule = cprofi_rule_from_row(&scratch);
            unsigned kind = rule.cfa >> 40 & 0xff;
            rows++;
            full += kind == CPROFI_RULE_FULL;
            if (kind != CPROFI_RULE_SIMPLE) continue;
            simple++;
            based += rule.cfa >> 48 != 0;
            if ((uint32_t)rule.cfa > 28000) { /* no stack so large here */
                huge++;
                same++;
                continue;
            }
            same += same_step(range, pc, rule, pc * 77);
        }
    }
    printf("# %zu rows: %zu are rules (%zu with a base, %zu of huge frames), %zu are interpreted\n", rows, simple, based, huge, full);
    check(simple > 1000 && same == simple && based > 100, "rules say what the interpreter says",
          "%zu of %zu differ", simple - same, simple);
    check(full * 50 < rows, "nearly all rows fit a rule", "%zu of %zu do not", full, rows);
}

int main(int argc, char **argv) {
    void *warm_up[4];
    setvbuf(stdout, NULL, _IONBF, 0);
    backtrace(warm_up, 4); /* loads libgcc */
    if (!cprofi_modules_init(&modules)) return 1;
    cprofi_modules_refresh(&modules);
    if (!cprofi_unwind_init(&unwinder)) return 1;
    check(unwinder.probe != CPROFI_PROBE_NONE, "pages can be verified", "no way works");
    printf("# pages are verified in way %u\n", unwinder.probe);
    test_rules();
    test_truth();
    if (!make_writable()) {
        printf("skip - stepping: code cannot be made writable\n");
        return failures ? 1 : 0;
    }
#define STEP(name) \
    if (argc < 2 || strcmp(argv[1], #name) == 0) \
        step_through("every instruction of " #name, steps_##name, strstr(#name, "pauth") != NULL);
    VARIANTS(STEP)
    STEP(libc)
    STEP(no_tables)
    return failures ? 1 : 0;
}
