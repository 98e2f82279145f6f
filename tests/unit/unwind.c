/* The unwinder reaches the root from every instruction, agrees with a shadow stack, and takes no
   harm from corrupt tables. Includes the implementation to test its private parts. */
#include "unit.h"

#include <execinfo.h>

enum { DEPTH = 512 };

static cprofi_modules modules;
static cprofi_unwinder unwinder;
static cprofi_scratch scratch;

static size_t walk(const void *context, uintptr_t *frames, size_t max, cprofi_end *end) {
    cprofi_regs regs;
    cprofi_view view = {0, 0, 0, true};
    cprofi_regs_from_ucontext(&regs, context);
    return cprofi_unwind(&unwinder, &modules, &regs, &view, &scratch, frames, max, end, NULL);
}

/* ---- every instruction: the trap flag, a handler after each instruction, a shadow stack */

enum { TRAIL = 64, SHADOW = 1024, MISMATCHES = 12 };

static struct {
    uintptr_t base; /* SP on entry */
    uintptr_t tail[DEPTH];
    size_t tail_count;
    uintptr_t ra[SHADOW], at[SHADOW]; /* calls made since stepping began */
    size_t depth;
    uintptr_t pc, sp;
    size_t steps, rooted, exact;
    bool on, armed;
    struct { uintptr_t pc; size_t n, want; cprofi_end end; } bad[MISMATCHES];
    size_t bad_count;
} step;

static uintptr_t frames[DEPTH];

static bool step_compare(size_t n) {
    if (n != step.depth + step.tail_count + 1) return false;
    for (size_t i = 0; i < step.depth; i++)
        if (frames[1 + i] != step.ra[step.depth - 1 - i] - 1) return false;
    return memcmp(frames + 1 + step.depth, step.tail, step.tail_count * sizeof *frames) == 0;
}

static void on_trap(int sig, siginfo_t *info, void *context) {
    cprofi_regs regs;
    cprofi_end end;
    int saved_errno = errno;
    (void)sig;
    (void)info;
    cprofi_regs_from_ucontext(&regs, context);
    uintptr_t pc = regs.r[CPROFI_PC], sp = regs.r[CPROFI_SP];
    if (step.pc && sp == step.sp - 8) {
        uintptr_t ra = *(uintptr_t *)sp;
        if (ra - step.pc >= 2 && ra - step.pc <= 8 && step.depth < SHADOW) {
            step.ra[step.depth] = ra;
            step.at[step.depth++] = sp;
        }
    }
    while (step.depth && step.at[step.depth - 1] < sp) step.depth--;
    step.pc = pc;
    step.sp = sp;
    if (step.on) {
        size_t n = walk(context, frames, DEPTH, &end);
        if (!step.armed) { /* the first instruction after popf: the reference */
            step.armed = true;
            step.tail_count = n - 1;
            memcpy(step.tail, frames + 1, step.tail_count * sizeof *frames);
            step.depth = 0;
            step.base = sp;
        } else {
            bool good = step_compare(n);
            if (sp > step.base) { /* back in step_through */
                step.on = false;
                errno = saved_errno;
                return;
            }
            step.steps++;
            step.rooted += end == CPROFI_END_ROOT;
            step.exact += good;
            if ((!good || end != CPROFI_END_ROOT) && step.bad_count < MISMATCHES) {
                size_t i = step.bad_count++;
                step.bad[i].pc = pc;
                step.bad[i].n = n;
                step.bad[i].want = step.depth + step.tail_count + 1;
                step.bad[i].end = end;
            }
        }
    }
    errno = saved_errno;
}

/* Macros, because popf must not be followed by a return from a helper. */
#define TRAP_ON() __asm__ volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::: "cc", "memory")
#define TRAP_OFF() __asm__ volatile("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::: "cc", "memory")

/* Runs `what` instruction by instruction; frames of this function and its callers are the tail. */
__attribute__((noinline)) static void step_through(const char *name, void (*what)(void)) {
    struct sigaction action, old;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_trap;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGTRAP, &action, &old);
    memset(&step, 0, sizeof step);
    step.on = true;
    TRAP_ON();
    what();
    step.on = false; /* TRAP_OFF pushes the flags behind the tables' back */
    __asm__ volatile("" ::: "memory");
    TRAP_OFF();
    sigaction(SIGTRAP, &old, NULL);
    for (size_t i = 0; i < step.bad_count; i++) {
        uint32_t id = cprofi_modules_find(&modules, step.bad[i].pc);
        printf("# %s: pc %s+0x%zx: %zu frames, not %zu, end %d\n", name,
               id ? modules.records[id].name : "?",
               (size_t)(step.bad[i].pc - modules.records[id].slide), step.bad[i].n,
               step.bad[i].want, (int)step.bad[i].end);
    }
    printf("# %s: %zu instructions, %zu to the root, %zu exact\n", name, step.steps, step.rooted,
           step.exact);
    check(step.steps > 0 && step.exact == step.steps && step.rooted == step.steps, name,
          "%zu of %zu instructions wrong", step.steps - step.exact, step.steps);
}

static char text[4096];

static int compare(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static void steps_libc(void) {
    int numbers[64];
    for (int i = 0; i < 64; i++) numbers[i] = (i * 37) % 64;
    qsort(numbers, 64, sizeof *numbers, compare);
    int key = 17;
    if (!bsearch(&key, numbers, 64, sizeof key, compare)) abort();
    snprintf(text, sizeof text, "%d %s %.10g %p %-20s|", 42, "hello", 3.14159265358979, text, "x");
    void *p[16];
    for (size_t i = 0; i < 16; i++) p[i] = malloc(i * i * 40 + 1);
    for (size_t i = 0; i < 16; i++) free(p[i]);
    memset(text, 1, sizeof text);
    memmove(text + 3, text, 2000);
    if (strtod("1.2345678901234567890123e-200", NULL) > 1) abort();
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    time_t t = time(NULL);
    struct tm tm;
    localtime_r(&t, &tm);
    getenv("NOTHING");
    setenv("SOMETHING", "else", 1);
    close(-1);
}

/* ---- code without tables: assembly, and code made at run time */

__asm__(".text\n"
        ".balign 16\n"
        "no_tables_pushes:\n" /* calls its argument twice, on a frame no table describes */
        "    push %rbx\n    push %rbp\n    push %r12\n    sub $0x20, %rsp\n"
        "    mov %rdi, %rbx\n    mov $3, %ebp\n"
        "1:  dec %ebp\n    jz 2f\n    call *%rbx\n    jmp 1b\n"
        "2:  lea 0x20(%rsp), %rsp\n    pop %r12\n    pop %rbp\n    pop %rbx\n    ret\n"
        ".balign 16\n"
        "no_tables_frame:\n" /* the same with a frame pointer and a stack it cannot know */
        "    push %rbp\n    mov %rsp, %rbp\n    push %rbx\n    push %rbx\n"
        "    mov %rdi, %rbx\n    and $-64, %rsp\n    call *%rbx\n"
        "    mov -8(%rbp), %rbx\n    leave\n    ret\n"
        ".balign 16\n"
        "no_tables_leaf:\n"
        "    mov $5, %ecx\n    test %rdi, %rdi\n    je 3f\n    push %rcx\n"
        "4:  vpxor %xmm0, %xmm0, %xmm0\n    pxor %xmm1, %xmm1\n    imul $77777, %rcx, %rax\n"
        "    movabs $0x1122334455667788, %rdx\n    dec %rcx\n    jnz 4b\n    pop %rcx\n"
        "3:  xor %eax, %eax\n    ret\n");
extern void no_tables_pushes(void (*call)(void)) __asm__("no_tables_pushes");
extern void no_tables_frame(void (*call)(void)) __asm__("no_tables_frame");
extern void no_tables_leaf(void *p) __asm__("no_tables_leaf");

static volatile int called;

__attribute__((noinline)) static void count_call(void) { called++; }
__attribute__((noinline)) static void call_frame(void) {
    no_tables_frame(count_call);
    called++; /* no tail call: from generated code into assembly without tables is a known gap */
}
__attribute__((noinline)) static void call_leaf(void) {
    no_tables_leaf(NULL);
    no_tables_leaf(text);
}

static void steps_no_tables(void) {
    no_tables_pushes(count_call);
    no_tables_frame(count_call);
    no_tables_pushes(call_frame);
    no_tables_pushes(call_leaf);
    call_leaf();
    called++;
}

static void (*generated)(void (*call)(void));

static void steps_generated(void) {
    generated(count_call);
    generated(call_frame);
    called++;
}

static bool make_generated(void) {
    static const uint8_t code[] = {0x55,             /* push %rbp */
                                   0x48, 0x89, 0xe5, /* mov %rsp, %rbp */
                                   0x53, 0x53,       /* push %rbx, twice */
                                   0x31, 0xdb,       /* xor %ebx, %ebx */
                                   0xff, 0xd7,       /* call *%rdi */
                                   0x90,             /* nop */
                                   0x5b, 0x5b,       /* pop %rbx, twice */
                                   0x5d, 0xc3};      /* pop %rbp; ret */
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return false;
    memcpy(page, code, sizeof code);
    if (mprotect(page, 4096, PROT_READ | PROT_EXEC) != 0) return false;
    memcpy(&generated, &page, sizeof page);
    return true;
}

/* ---- known stacks, compared with glibc's own unwinder */

static struct {
    size_t checks, same;
    size_t ours, theirs, at;
} truth;

__attribute__((noinline)) static void truth_check(void) {
    void *theirs[DEPTH];
    uintptr_t ours[DEPTH];
    ucontext_t context;
    cprofi_end end;
    getcontext(&context);
    size_t n = walk(&context, ours, DEPTH, &end);
    int m = backtrace(theirs, DEPTH);
    /* a sanitizer's backtrace adds its own frame */
    size_t extra = m > 0 && (size_t)m == n + 1;
    bool same = end == CPROFI_END_ROOT && m > 1 && n + extra == (size_t)m;
    size_t i = 1;
    for (; same && i < n; i++) { /* frame 0 is this function, at different calls */
        uintptr_t their = (uintptr_t)theirs[i + extra];
        same = ours[i] + 1 == their || ours[i] == their;
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
          "%zu of %zu differ, the first at frame %zu of %zu, backtrace has %zu",
          truth.checks - truth.same, truth.checks, truth.at, truth.ours, truth.theirs);
    memset(&truth, 0, sizeof truth);
}

static volatile char *volatile sink;

__attribute__((noinline)) static int recurse_plain(int n) {
    if (n == 0) {
        truth_check();
        return 0;
    }
    return recurse_plain(n - 1) + 1;
}

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
    for (int n = 0; n < 300; n += 7) recurse_plain(n);
    truth_report("plain recursion has backtrace's frames");
    for (int n = 0; n < 300; n += 7) recurse_odd(n);
    truth_report("realigned frames with alloca have backtrace's frames");
    qsort(numbers, 8, sizeof key, compare_checking);
    if (!bsearch(&key, numbers, 8, sizeof key, compare_checking)) abort();
    truth_report("callbacks from qsort and bsearch have backtrace's frames");
    stack_t alternate = {stack, 0, sizeof stack};
    sigaltstack(&alternate, NULL);
    struct sigaction action;
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

/* ---- a copied stack of which only SP and PC are known */

static struct {
    int pipe[2];
    pid_t tid;
    uintptr_t sp, pc, frames[DEPTH];
} sleeper;

__attribute__((noinline)) static int sleep_deep(int n) {
    char c = 0;
    if (n > 0) return sleep_deep(n - 1) + 1;
    return (int)read(sleeper.pipe[0], &c, 1);
}

static void *sleeper_main(void *unused) {
    (void)unused;
    __atomic_store_n(&sleeper.tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
    sleep_deep(20);
    return NULL;
}

static void test_copy(void) {
    const char *name = "a copied stack of a sleeping thread, SP and PC known only";
    pthread_t thread;
    char path[64], line[256];
    cprofi_regs regs;
    cprofi_end end = CPROFI_END_LOST;
    size_t n = 0, size = 16384;
    static char copy[16384];
#ifdef __SANITIZE_ADDRESS__
    printf("# %s: a sanitizer's frame hides rbp\n", name);
    return;
#endif
    if (pipe(sleeper.pipe) != 0 || pthread_create(&thread, NULL, sleeper_main, NULL) != 0) return;
    while (!__atomic_load_n(&sleeper.tid, __ATOMIC_ACQUIRE)) sched_yield();
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)sleeper.tid);
    memset(&regs, 0, sizeof regs);
    for (int tries = 0; tries < 1000 && !regs.r[CPROFI_PC]; tries++) {
        usleep(1000);
        FILE *f = fopen(path, "r");
        if (!f) break;
        unsigned long sp, pc;
        if (fgets(line, sizeof line, f) &&
            sscanf(line, "0 %*s %*s %*s %*s %*s %*s %lx %lx", &sp, &pc) == 2) {
            regs.r[CPROFI_SP] = sp;
            regs.r[CPROFI_PC] = pc;
        }
        fclose(f);
    }
    if (regs.r[CPROFI_PC]) {
        regs.known = 1u << CPROFI_SP | 1u << CPROFI_PC;
        struct iovec local = {copy, size}, remote = {(void *)regs.r[CPROFI_SP], size};
        ssize_t got = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
        cprofi_view view = {regs.r[CPROFI_SP], regs.r[CPROFI_SP] + (uintptr_t)(got > 0 ? got : 0),
                            (intptr_t)((uintptr_t)copy - regs.r[CPROFI_SP]), false};
        n = cprofi_unwind(&unwinder, &modules, &regs, &view, &scratch, sleeper.frames, DEPTH,
                          &end, NULL);
        check(end == CPROFI_END_ROOT && n >= 5, name, "%zu frames, end %d", n, (int)end);
    } else {
        printf("skip - %s: /proc does not tell\n", name);
    }
    if (write(sleeper.pipe[1], "", 1) != 1) abort();
    pthread_join(thread, NULL);
}

/* ---- hand-made tables */

static uint8_t eh[2048];
static size_t eh_size;
static cprofi_tables made;

static void eh_u32(uint32_t v) {
    for (int i = 0; i < 4; i++) eh[eh_size++] = (uint8_t)(v >> (8 * i));
}

static void eh_u64(uint64_t v) {
    for (int i = 0; i < 8; i++) eh[eh_size++] = (uint8_t)(v >> (8 * i));
}

static void eh_bytes(const void *data, size_t size) {
    memcpy(eh + eh_size, data, size);
    eh_size += size;
}

static void eh_close(size_t start) {
    uint32_t size = (uint32_t)(eh_size - start - 4);
    memcpy(eh + start, &size, 4);
}

enum { MADE_START = 0x10000, MADE_SIZE = 0x1000 };

/* A CIE (CFA = rsp + 8, return address at CFA - 8, augmentation as given) and one FDE. */
static void make_tables(uint8_t version, const char *augmentation, const void *data,
                        size_t data_size, const uint8_t *code, size_t code_size) {
    static const uint8_t initial[] = {0x0c, 7, 8, 0x90, 1};
    eh_size = 0;
    eh_u32(0);
    eh_u32(0);
    eh[eh_size++] = version;
    eh_bytes(augmentation, strlen(augmentation) + 1);
    if (version == 4) eh_bytes("\x08\0", 2);
    eh_bytes("\x01\x78\x10", 3); /* code align 1, data align -8, return address 16 */
    if (*augmentation == 'z') {
        eh[eh_size++] = (uint8_t)data_size;
        eh_bytes(data, data_size);
    }
    eh_bytes(initial, sizeof initial);
    eh_close(0);
    size_t fde = eh_size;
    eh_u32(0);
    eh_u32((uint32_t)(fde + 4));
    eh_u64(MADE_START);
    eh_u64(MADE_SIZE);
    if (*augmentation == 'z') eh[eh_size++] = 0;
    eh_bytes(code, code_size);
    eh_close(fde);
    eh_u32(0);
    memset(&made, 0, sizeof made);
    made.frame.data = eh;
    made.frame.size = eh_size;
    made.frame_address = 0x20000;
}

/* The rule text at MADE_START + offset: "r7+16 r6@-16 ..." */
static const char *row_text(const uint8_t *code, size_t size, uintptr_t offset) {
    static char out[512];
    static const char *const kinds[] = {"same", "undefined", "@", "=", "r", "*", "v"};
    make_tables(1, "zR", "\0", 1, code, size);
    memset(&scratch, 0x55, sizeof scratch);
    int found = cprofi_cfi_row(&made, MADE_START + offset, &scratch);
    if (found <= 0) return found < 0 ? "corrupt" : "none";
    const cprofi_row *row = &scratch.row;
    int n = row->cfa_kind == CPROFI_CFI_REGISTER
                ? snprintf(out, sizeof out, "r%d%+lld", row->cfa_register,
                           (long long)row->cfa_value)
                : snprintf(out, sizeof out, "expression");
    for (int i = 0; i < CPROFI_REGS; i++) {
        if (row->kind[i] == CPROFI_CFI_SAME || (i == 16 && row->value[i] == -8)) continue;
        n += snprintf(out + n, sizeof out - (size_t)n, " r%d%s", i, kinds[row->kind[i]]);
        if (row->kind[i] >= CPROFI_CFI_AT && row->kind[i] <= CPROFI_CFI_REGISTER)
            n += snprintf(out + n, sizeof out - (size_t)n, "%lld", (long long)row->value[i]);
    }
    return out;
}

#define ROW(name, offset, want, ...)                                              \
    do {                                                                          \
        const uint8_t code[] = {__VA_ARGS__};                                     \
        const char *got = row_text(code, sizeof code, offset);                    \
        check(strcmp(got, want) == 0, "DW_CFA_" name, "%s, not %s", got, want);  \
    } while (0)

static void test_rows(void) {
    ROW("advance_loc, before", 3, "r7+8", 0x44, 0x0e, 16);
    ROW("advance_loc, at", 4, "r7+16", 0x44, 0x0e, 16);
    ROW("advance_loc1", 0x80, "r7+16", 0x02, 0x80, 0x0e, 16, 0x02, 1, 0x0e, 24);
    ROW("advance_loc2", 0x200, "r7+16", 0x03, 0, 2, 0x0e, 16);
    ROW("advance_loc4", 0x200, "r7+16", 0x04, 0, 2, 0, 0, 0x0e, 16);
    ROW("advance_loc4, before", 0x1ff, "r7+8", 0x04, 0, 2, 0, 0, 0x0e, 16);
    ROW("MIPS_advance_loc8", 0x200, "r7+16", 0x1d, 0, 2, 0, 0, 0, 0, 0, 0, 0x0e, 16);
    ROW("set_loc", 0x10, "r7+16", 0x01, 0x10, 0, 1, 0, 0, 0, 0, 0, 0x0e, 16);
    ROW("set_loc, before", 0xf, "r7+8", 0x01, 0x10, 0, 1, 0, 0, 0, 0, 0, 0x0e, 16);
    ROW("nop", 0, "r7+8", 0, 0, 0);
    ROW("offset", 0, "r7+8 r6@-16", 0x86, 2);
    ROW("offset_extended", 0, "r7+8 r6@-16", 0x05, 6, 2);
    ROW("offset_extended_sf", 0, "r7+8 r6@16", 0x11, 6, 0x7e);
    ROW("GNU_negative_offset_extended", 0, "r7+8 r6@16", 0x2f, 6, 2);
    ROW("offset of an unknown register", 0, "r7+8", 0x05, 0xd1, 0x01, 2, 0x99, 2);
    ROW("restore", 0, "r7+8", 0x86, 2, 0xc6);
    ROW("restore_extended", 0, "r7+8", 0x86, 2, 0x06, 6);
    ROW("restore of the return address", 0, "r7+8", 0x90, 3, 0xd0);
    ROW("undefined", 0, "r7+8 r3undefined", 0x07, 3);
    ROW("same_value", 0, "r7+8", 0x83, 4, 0x08, 3);
    ROW("register", 0, "r7+8 r3r12", 0x09, 3, 12);
    ROW("remember_state, restore_state", 9, "r7+8 r3@-16", 0x83, 2, 0x0a, 0x44, 0x0a, 0x0e, 32,
        0x86, 3, 0x44, 0x0b, 0x0b);
    ROW("remember_state, 8 deep", 0, "r7+16", 0x0e, 16, 10, 10, 10, 10, 10, 10, 10, 10, 0x0e, 24,
        11, 11, 11, 11, 11, 11, 11, 11);
    ROW("remember_state, too deep", 0, "corrupt", 10, 10, 10, 10, 10, 10, 10, 10, 10);
    ROW("restore_state of nothing", 0, "corrupt", 11);
    ROW("def_cfa", 0, "r10+300", 0x0c, 10, 0xac, 2);
    ROW("def_cfa_register", 0, "r6+8", 0x0d, 6);
    ROW("def_cfa_offset", 0, "r7+300", 0x0e, 0xac, 2);
    ROW("def_cfa_sf", 0, "r6+16", 0x12, 6, 0x7e);
    ROW("def_cfa_offset_sf", 0, "r7-8", 0x13, 1);
    ROW("def_cfa_expression", 0, "expression", 0x0f, 2, 0x77, 8);
    ROW("expression", 0, "r7+8 r3*", 0x10, 3, 2, 0x76, 0x78);
    ROW("val_expression", 0, "r7+8 r3v", 0x16, 3, 2, 0x76, 0x78);
    ROW("val_offset", 0, "r7+8 r7=-16", 0x14, 7, 2);
    ROW("val_offset_sf", 0, "r7+8 r7=16", 0x15, 7, 0x7e);
    ROW("GNU_args_size", 0, "r7+24", 0x2e, 0x90, 1, 0x0e, 24);
    ROW("unknown operation", 0, "corrupt", 0x3c);
    ROW("operand beyond the end", 0, "corrupt", 0x0e);
    ROW("def_cfa_expression beyond the end", 0, "corrupt", 0x0f, 0x70, 0x77);
    ROW("address outside of the FDE", MADE_SIZE, "none", 0);
}

static void test_headers(void) {
    static const struct {
        uint8_t version;
        const char *augmentation, *data;
        size_t size;
        int found;
    } cases[] = {{1, "", "", 0, 1},       {3, "", "", 0, 1},
                 {4, "", "", 0, 1},       {1, "zR", "\0", 1, 1},
                 {1, "zPLR", "\x1b\1\2\3\4\x1b\0", 7, 1},
                 {1, "zRS", "\0", 1, 1},  {1, "zRB", "\0", 1, 1},
                 {1, "zRX", "\0", 1, 0},  {2, "", "", 0, 0},
                 {1, "eh", "", 0, 0},     {1, "zR", "\x80", 1, 0},
                 {1, "zR", "\xff", 1, 0}, {1, "zPLR", "\x1b\1", 2, 0}};
    for (size_t i = 0; i < CPROFI_COUNT(cases); i++) {
        char name[64];
        make_tables(cases[i].version, cases[i].augmentation, cases[i].data, cases[i].size,
                    (const uint8_t *)"\x0e\x10", 2);
        int found = cprofi_cfi_row(&made, MADE_START, &scratch);
        snprintf(name, sizeof name, "CIE version %d, augmentation \"%s\", case %zu",
                 cases[i].version, cases[i].augmentation, i);
        check(found == cases[i].found && (!found || scratch.row.cfa_value == 16), name, "%d",
              found);
    }
}

static uintptr_t memory[16] = {0x1122334455667788, 2, 3, 4};

static bool expression(const uint8_t *code, size_t size, uintptr_t *v) {
    cprofi_regs regs;
    cprofi_view view = {0x7000, 0x7000 + sizeof memory, (intptr_t)memory - 0x7000, false};
    for (size_t i = 0; i < CPROFI_REGS; i++) regs.r[i] = 0x7000 + i;
    regs.known = 0x1fffe; /* all but r0 */
    memset(&made, 0, sizeof made);
    eh[0] = (uint8_t)size;
    memcpy(eh + 1, code, size);
    made.frame.data = eh;
    made.frame.size = size + 1;
    *v = 0;
    return cprofi_expression(&unwinder, &made, 0, &regs, &view, &scratch, 0, v);
}

#define EXPR(name, want, ...)                                                           \
    do {                                                                                \
        const uint8_t code[] = {__VA_ARGS__};                                           \
        uintptr_t got;                                                                  \
        bool good = expression(code, sizeof code, &got);                                \
        check(good && got == (uintptr_t)(want), "DW_OP_" name, "%d, %zx", good, got);  \
    } while (0)

#define EXPR_BAD(name, ...)                                                       \
    do {                                                                          \
        const uint8_t code[] = {__VA_ARGS__};                                     \
        uintptr_t got;                                                            \
        check(!expression(code, sizeof code, &got), "DW_OP_" name, "accepted");  \
    } while (0)

static void test_expressions(void) {
    EXPR("addr", 0x0807060504030201, 0x03, 1, 2, 3, 4, 5, 6, 7, 8);
    EXPR("const1u", 0xfe, 0x08, 0xfe);
    EXPR("const1s", -2, 0x09, 0xfe);
    EXPR("const2u", 0xfeff, 0x0a, 0xff, 0xfe);
    EXPR("const2s", -257, 0x0b, 0xff, 0xfe);
    EXPR("const4u", 0xfffffffe, 0x0c, 0xfe, 0xff, 0xff, 0xff);
    EXPR("const4s", -2, 0x0d, 0xfe, 0xff, 0xff, 0xff);
    EXPR("const8u", 0xff00000000000001, 0x0e, 1, 0, 0, 0, 0, 0, 0, 0xff);
    EXPR("const8s", -2, 0x0f, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
    EXPR("constu", 300, 0x10, 0xac, 2);
    EXPR("consts", -2, 0x11, 0x7e);
    EXPR("lit0", 0, 0x30);
    EXPR("lit31", 31, 0x4f);
    EXPR("breg7", 0x7007 - 8, 0x77, 0x78);
    EXPR("bregx", 0x700c + 8, 0x92, 12, 8);
    EXPR("deref", 0x1122334455667788, 0x0a, 0, 0x70, 0x06);
    EXPR("deref_size 1", 0x66, 0x0a, 2, 0x70, 0x94, 1);
    EXPR("deref_size 4", 0x11223344, 0x0a, 4, 0x70, 0x94, 4);
    EXPR("deref_size 8", 2, 0x0a, 8, 0x70, 0x94, 8);
    EXPR("dup", 10, 0x35, 0x12, 0x22);
    EXPR("drop", 5, 0x35, 0x36, 0x13);
    EXPR("drop the last, push", 6, 0x35, 0x13, 0x36);
    EXPR("over", 5, 0x35, 0x36, 0x14);
    EXPR("pick", 5, 0x35, 0x36, 0x37, 0x15, 2);
    EXPR("swap", 1, 0x35, 0x36, 0x16, 0x1c);
    EXPR("rot", 6, 0x35, 0x36, 0x37, 0x17);
    EXPR("rot, below", 7, 0x35, 0x36, 0x37, 0x17, 0x13, 0x13);
    EXPR("abs", 2, 0x09, 0xfe, 0x19);
    EXPR("and", 4, 0x36, 0x35, 0x1a);
    EXPR("div", -3, 0x09, 0xfa, 0x32, 0x1b);
    EXPR("div, most negative", (uintptr_t)1 << 63, 0x31, 0x08, 63, 0x24, 0x09, 0xff, 0x1b);
    EXPR("minus", -1, 0x35, 0x36, 0x1c);
    EXPR("mod", 2, 0x37, 0x35, 0x1d);
    EXPR("mul", 42, 0x36, 0x37, 0x1e);
    EXPR("neg", -5, 0x35, 0x1f);
    EXPR("not", ~(uintptr_t)5, 0x35, 0x20);
    EXPR("or", 7, 0x36, 0x35, 0x21);
    EXPR("plus", 11, 0x36, 0x35, 0x22);
    EXPR("plus_uconst", 305, 0x35, 0x23, 0xac, 2);
    EXPR("shl", 20, 0x35, 0x32, 0x24);
    EXPR("shl by 64", 0, 0x35, 0x08, 64, 0x24);
    EXPR("shr", 1, 0x35, 0x32, 0x25);
    EXPR("shra", -2, 0x09, 0xf8, 0x32, 0x26);
    EXPR("xor", 3, 0x36, 0x35, 0x27);
    EXPR("eq", 0, 0x36, 0x35, 0x29);
    EXPR("ge", 1, 0x36, 0x35, 0x2a);
    EXPR("gt, signed", 0, 0x09, 0xfe, 0x35, 0x2b);
    EXPR("le", 0, 0x36, 0x35, 0x2c);
    EXPR("lt, signed", 1, 0x09, 0xfe, 0x35, 0x2d);
    EXPR("ne", 1, 0x36, 0x35, 0x2e);
    EXPR("bra taken", 5, 0x35, 0x31, 0x28, 1, 0, 0x36);
    EXPR("bra not taken", 6, 0x35, 0x30, 0x28, 1, 0, 0x36);
    EXPR("skip", 5, 0x35, 0x2f, 1, 0, 0x36);
    EXPR("nop", 5, 0x35, 0x96);
    EXPR("breg in a PLT's", 0x7007 + 16, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x30, 0x2a, 0x33, 0x24,
         0x22);
    EXPR_BAD("breg of an unknown register", 0x70, 0);
    EXPR_BAD("deref outside", 0x30, 0x06);
    EXPR_BAD("div by zero", 0x35, 0x30, 0x1b);
    EXPR_BAD("mod by zero", 0x35, 0x30, 0x1d);
    EXPR_BAD("skip for ever", 0x2f, 0xfd, 0xff);
    EXPR_BAD("skip outside", 0x35, 0x2f, 0x10, 0);
    EXPR_BAD("plus of one word", 0x35, 0x22);
    EXPR_BAD("pick too deep", 0x35, 0x15, 1);
    EXPR_BAD("stack overflow", 0x35, 0x12, 0x2f, 0xfc, 0xff);
    EXPR_BAD("nothing left", 0x35, 0x13);
    EXPR_BAD("unknown", 0x35, 0xe0);
    EXPR_BAD("operand beyond the end", 0x0c, 1);
}

/* The compact rule and the interpreter must say the same. */
static void test_step_full(void) {
    static const uint8_t code[] = {0x0c, 6, 32, 0x86, 4, 0x83, 3, 0x8c, 2};
    cprofi_module_range range = {MADE_START, MADE_START + MADE_SIZE, &made, 1};
    cprofi_module_index index;
    cprofi_regs regs;
    memset(&index, 0, sizeof index);
    index.count = 1;
    index.ranges = &range;
    make_tables(1, "zR", "\0", 1, code, sizeof code);
    for (size_t i = 0; i < CPROFI_REGS; i++) regs.r[i] = 0x7000 + 8 * i;
    for (size_t i = 0; i < 16; i++) memory[i] = 0x100 + i;
    regs.r[6] = 0x7000;
    regs.known = (1u << CPROFI_SP | 1u << CPROFI_FP | 1u << CPROFI_PC);
    cprofi_view view = {0x7000, 0x7000 + sizeof memory, (intptr_t)memory - 0x7000, false};
    int step_kind = cprofi_step_full(&unwinder, &index, &regs, &view, &scratch, MADE_START, true);
    cprofi_rule rule = cprofi_rule_from_row(&scratch);
    check(step_kind == CPROFI_STEP_ON && regs.r[CPROFI_SP] == 0x7020 && regs.r[6] == 0x100 &&
               regs.r[3] == 0x101 && regs.r[12] == 0x102 && regs.r[CPROFI_PC] == 0x103 &&
               regs.known == (1u << 7 | 1u << 6 | 1u << 3 | 1u << 12 | 1u << 16),
           "the interpreter restores registers, known ones only", "known %x", regs.known);
    check(rule.cfa == ((uint64_t)CPROFI_RULE_SIMPLE << 40 | 6ull << 32 | 32) &&
               rule.saved == (4 | 3 << 8 | 2 << 16),
           "the row fits a rule", "%llx %llx", (unsigned long long)rule.cfa,
           (unsigned long long)rule.saved);
}

/* ---- corrupt tables */

/* Mutates the tables of a loaded module, in copies of exact size so that a sanitizer sees a read
   beyond, and asks for rows and steps everywhere. */
static void fuzz_module(const cprofi_module *module, size_t rounds, size_t *rows) {
    const cprofi_tables *t = module->tables;
    cprofi_tables bad = *t;
    size_t search = t->search && t->hdr.size ? (size_t)(t->search - t->hdr.data) : 0;
    uint8_t *hdr = (uint8_t *)malloc(t->hdr.size + 1);
    uint8_t *frame = (uint8_t *)malloc(t->frame.size + 1);
    cprofi_module_range range = {0, UINTPTR_MAX, &bad, 1};
    cprofi_module_index index;
    memset(&index, 0, sizeof index);
    index.count = 1;
    index.ranges = &range;
    for (size_t round = 0; round < rounds; round++) {
        uint8_t *h = hdr + (round & 1), *f = frame + (round & 1); /* exact size: odd rounds */
        memcpy(h, t->hdr.data, t->hdr.size);
        memcpy(f, t->frame.data, t->frame.size);
        bad.hdr.data = h;
        bad.frame.data = f;
        bad.search = round % 4 == 0 ? NULL : search ? h + search : t->search; /* NULL: walk */
        size_t dirt = 1 + random_next() % (1 + t->frame.size / 16);
        for (size_t i = 0; i < dirt; i++) f[random_next() % t->frame.size] = (uint8_t)random_next();
        for (size_t i = 0; i < 4 && search && t->hdr.size > search; i++)
            h[search + random_next() % (t->hdr.size - search)] = (uint8_t)random_next();
        for (size_t i = 0; i < (bad.search ? 400u : 20u); i++) {
            uintptr_t pc = t->code_lo[0] + random_next() % (t->code_hi[0] - t->code_lo[0]);
            cprofi_regs regs;
            cprofi_view view = {0x7000, 0x7000 + sizeof memory, (intptr_t)memory - 0x7000, false};
            for (size_t k = 0; k < CPROFI_REGS; k++) regs.r[k] = 0x7000 + 8 * (random_next() % 20);
            regs.known = random_next();
            *rows += cprofi_cfi_row(&bad, pc, &scratch) > 0;
            (void)cprofi_rule_from_row(&scratch);
            (void)cprofi_step_full(&unwinder, &index, &regs, &view, &scratch, pc, false);
        }
    }
    free(hdr);
    free(frame);
}

static void test_fuzz(void) {
    size_t rows = 0;
    for (uint32_t id = 1; id < modules.count; id++)
        if (modules.records[id].tables && modules.records[id].tables->frame.size)
            fuzz_module(&modules.records[id], 40, &rows);
    check(rows > 0, "mutated tables do no harm", "no row was found at all");
    /* pure noise as code of the FDE */
    size_t accepted = 0;
    for (size_t i = 0; i < 100000; i++) {
        uint8_t code[24];
        for (size_t k = 0; k < sizeof code; k++) code[k] = (uint8_t)random_next();
        make_tables(1, "zR", "\0", 1, code, random_next() % sizeof code);
        accepted += cprofi_cfi_row(&made, MADE_START + random_next() % MADE_SIZE, &scratch) > 0;
    }
    check(accepted > 0, "noise as unwind code does no harm", "nothing was accepted");
    for (size_t i = 0; i < 100000; i++) {
        uint8_t code[24];
        uintptr_t v;
        for (size_t k = 0; k < sizeof code; k++) code[k] = (uint8_t)random_next();
        (void)expression(code, random_next() % sizeof code, &v);
    }
    check(true, "noise as an expression does no harm", "");
    /* a walk from garbage registers over a stack of code addresses */
    static uintptr_t garbage[512];
    size_t total = 0;
    for (size_t i = 0; i < 20000; i++) {
        cprofi_regs regs;
        cprofi_end end;
        const cprofi_module_range *r = &modules.index->ranges[random_next() % modules.index->count];
        for (size_t k = 0; k < CPROFI_COUNT(garbage); k++)
            garbage[k] = random_next() % 3 ? r->lo + random_next() % (r->hi - r->lo)
                                           : (uintptr_t)garbage + 8 * (random_next() % 512);
        for (size_t k = 0; k < CPROFI_REGS; k++)
            regs.r[k] = (uintptr_t)garbage + 8 * (random_next() % 512);
        regs.r[CPROFI_PC] = r->lo + random_next() % (r->hi - r->lo);
        regs.known = (1u << CPROFI_REGS) - 1;
        cprofi_view view = {0, 0, 0, true};
        total += cprofi_unwind(&unwinder, &modules, &regs, &view, &scratch, frames, DEPTH, &end, NULL);
    }
    check(total > 20000, "a walk over garbage does no harm", "%zu frames", total);
}

/* ---- how long it takes; never fails */

enum { BATCHES = 200, BATCH = 100 };

static struct link { struct link *next; uintptr_t value; } links[DEPTH];

/* The best of many batches: whatever else runs on the machine only ever adds. */
static double measure_walk(const ucontext_t *context, bool cold, bool probe, size_t *n) {
    double best = 1e9;
    int batch = cold ? 1 : BATCH;
    cprofi_regs first, regs;
    cprofi_end end;
    cprofi_regs_from_ucontext(&first, context);
    const cprofi_view none = {0, 0, 0, true};
    const cprofi_view all = {first.r[CPROFI_SP], UINTPTR_MAX >> 17, 0, false};
    for (int i = 0; i < BATCHES; i++) {
        if (cold) memset(unwinder.rules, 0, sizeof(cprofi_rule_slot) * CPROFI_RULES);
        uint64_t start = now_ns();
        for (int k = 0; k < batch; k++) {
            cprofi_view view = probe ? none : all;
            regs = first;
            *n = cprofi_unwind(&unwinder, &modules, &regs, &view, &scratch, frames, DEPTH, &end, NULL);
        }
        double each = (double)(now_ns() - start) / batch;
        if (each < best) best = each;
    }
    return best / (double)*n;
}

static double measure_chase(size_t n) {
    double best = 1e9;
    for (size_t i = 0; i < n; i++) links[i * 7 % DEPTH].next = &links[(i + 1) * 7 % DEPTH];
    for (int i = 0; i < BATCHES; i++) {
        uint64_t start = now_ns();
        for (int k = 0; k < BATCH; k++) {
            struct link *p = links;
            for (size_t j = 0; j < n; j++, p = p->next) frames[j] = p->value;
            __asm__ volatile("" ::: "memory");
        }
        double each = (double)(now_ns() - start) / BATCH / (double)n;
        if (each < best) best = each;
    }
    return best;
}

__attribute__((noinline)) static void measure_here(void) {
    ucontext_t context;
    size_t n = 0;
    getcontext(&context);
    double probed = measure_walk(&context, false, true, &n);
    double warm = measure_walk(&context, false, false, &n);
    double cold = measure_walk(&context, true, false, &n);
    printf("# %zu frames: %.1f ns per frame warm, %.1f with pages to verify, %.0f with an empty "
           "cache; a pointer chase takes %.1f\n", n, warm, probed, cold, measure_chase(n));
}

__attribute__((noinline)) static int recurse_measure(int n) {
    volatile int here = n;
    if (n == 0) measure_here();
    else here += recurse_measure(n - 1);
    return here;
}

int main(void) {
    void *warm_up[4];
    setvbuf(stdout, NULL, _IONBF, 0);
    backtrace(warm_up, 4); /* loads libgcc */
    if (!cprofi_modules_init(&modules)) return 1;
    cprofi_modules_refresh(&modules);
    signal(SIGURG, on_signal); /* a handler, so that there is a restorer to learn */
    if (!cprofi_unwind_init(&unwinder)) return 1;
    check(unwinder.probe == CPROFI_PROBE_SIGPROCMASK, "pages are verified by rt_sigprocmask", "%u",
          unwinder.probe);
    test_headers();
    test_rows();
    test_expressions();
    test_step_full();
    test_truth();
    test_copy();
    step_through("every instruction of libc calls", steps_libc);
    step_through("every instruction of assembly without tables", steps_no_tables);
    if (make_generated())
        step_through("every instruction of generated code", steps_generated);
    else
        printf("skip - every instruction of generated code: no executable memory\n");
    test_fuzz();
    recurse_measure(30);
    recurse_measure(200);
    return failures ? 1 : 0;
}
