/* roots: a program mixed in C and C++, without frame pointers, in every way of linking: at least
   99.5% of its stacks must reach the root. Each kind of code that is hard to unwind is a category
   of its own (cat_...), profiled apart so that a cut stack still counts against its category.

   How it is counted: a stack reaches the root when it holds the category's function and, outside
   of it, `main` (or `worker_start` in a second thread) with at most four frames of the C library
   below that and no [truncated] mark. Weights count, not distinct stacks. The clock is read about
   once a millisecond: a signal on its way arrives at the end of the next system call, and would be
   seen nowhere else.

   32-bit ARM is unwound without tables: there the callers of a function that never returns are
   missing. Of its category each stack must reach the root or be marked so; it is not part of the 99.5%.

   run.py builds this file with roots_cxx.cpp and roots_lib.c (a shared library, or linked in) with
   gcc and clang as PIE, non-PIE, static, static-pie and -fno-plt; and with MinGW at all levels, where
   the root is the function of the system that starts a thread. */
#include "e2e.h"
#include <setjmp.h>
#ifdef _WIN32
#include <malloc.h>
#else
#include <alloca.h>
#include <sys/time.h>
#endif

int lib_tiny(int x);
int lib_calls_back(int (*fn)(int), int times);
void cat_exceptions(uint64_t until);
void cat_cxx_library(uint64_t until);
uint64_t roots_cpu(void);
uint64_t roots_cpu(void) { return thread_cpu(); }

enum { HZ = 4000, LEVELS = 40 };

/* ---- deep calls, small frames and large, the way a compiler saves registers ---- */

E2E_NOINLINE static int deep_a(int n, int x);
E2E_NOINLINE static int deep_b(int n, int x)
{
    char filler[300];
    int i, sum = 0;
    __asm__ volatile("" : : "r"(filler) : "memory");
    if (n > 0) x = deep_a(n - 1, x + 1);
    for (i = 0; i < 20; i++) sum += filler[i * 7] ^ x;
    E2E_NO_TAIL();
    return sum;
}
E2E_NOINLINE static int deep_a(int n, int x)
{
    int a = x * 3, b = x ^ 5, c = x + 7, d = x - 9, e = x * 11, f = x ^ 13;
    __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f));
    if (n > 0) x = deep_b(n - 1, x + 1);
    else x = (int)e2e_spin((uint64_t)x, 300);
    E2E_NO_TAIL();
    return a + b + c + d + e + f + x;
}
E2E_NOINLINE void cat_deep(uint64_t until)
{
    volatile int sum = 0;
    while (thread_cpu() < until) for (int i = 0; i < 500; i++) sum += deep_a(LEVELS, i);
}

/* ---- tiny functions: nearly every instruction is prologue or epilogue ---- */

E2E_NOINLINE static int tiny_leaf(int x) { __asm__ volatile("" : "+r"(x)); return x + 1; }
#if defined(__aarch64__)
#define SAVED "x19", "x20", "x21", "x24", "x27", "x28"
#elif defined(__i386__)
#define SAVED "esi", "edi"
#elif defined(__arm__)
#define SAVED "r4", "r5", "r8"
#else
#define SAVED "rbx", "rbp", "r12", "r13", "r14", "r15"
#endif
E2E_NOINLINE static int tiny_saves(int x)
{
    register int a = x, b = x + 1, c = x + 2;
    __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c) : : SAVED, "memory");
    return a + b + c;
}
E2E_NOINLINE static int tiny_calls(int x)
{
    int a = tiny_leaf(x), b = tiny_saves(a), c = tiny_leaf(b);
    E2E_NO_TAIL();
    return a + b + c;
}
E2E_NOINLINE void cat_prologues(uint64_t until)
{
    volatile int sum = 0;
    while (thread_cpu() < until) for (int i = 0; i < 50000; i++) sum += tiny_calls(i);
}

/* ---- calls through the PLT, and back ---- */

E2E_NOINLINE static int called_back(int x) { __asm__ volatile("" : "+r"(x)); return x ^ 1; }
E2E_NOINLINE void cat_plt(uint64_t until)
{
    volatile int sum = 0;
    while (thread_cpu() < until) {
        for (int i = 0; i < 50000; i++) sum += lib_tiny(i);
        sum += lib_calls_back(called_back, 20000);
    }
}

/* ---- libc's assembly, and its callbacks ---- */

static char buffer_a[1 << 16], buffer_b[1 << 16];
E2E_NOINLINE void cat_libc(uint64_t until)
{
    volatile size_t sum = 0;
    size_t (*volatile length)(const char *) = strlen;
    void *(*volatile copy)(void *, const void *, size_t) = memcpy;
    void *(*volatile set)(void *, int, size_t) = memset;
    int (*volatile compare)(const void *, const void *, size_t) = memcmp;
    memset(buffer_a, 'x', sizeof buffer_a - 1);
    while (thread_cpu() < until) {
        for (int i = 0; i < 300; i++) {
            sum += length(buffer_a + sizeof buffer_a - 1 - (i * 131 & 4095));
            copy(buffer_b, buffer_a, (size_t)(i * 977 & 0x7fff));
            set(buffer_b, i, (size_t)(i * 577 & 0x3fff));
            sum += (size_t)compare(buffer_a, buffer_b, (size_t)(i * 31));
        }
    }
}

static int compare_ints(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return x < y ? -1 : x > y;
}
E2E_NOINLINE void cat_qsort(uint64_t until)
{
    static int data[3000];
    unsigned seed = 1;
    while (thread_cpu() < until) {
        for (int i = 0; i < 3000; i++) data[i] = (int)(seed = seed * 1103515245u + 12345u);
        qsort(data, 3000, sizeof *data, compare_ints);
    }
}

/* ---- frames of run-time size ---- */

E2E_NOINLINE static int with_alloca(int size)
{
    char *room = (char *)alloca((size_t)size);
    int sum;
    memset(room, size, (size_t)size);
    sum = tiny_calls(room[size / 2]) + deep_a(3, size);
    __asm__ volatile("" : : "r"(room) : "memory");
    return sum + room[0];
}
E2E_NOINLINE void cat_alloca(uint64_t until)
{
    volatile int sum = 0;
    while (thread_cpu() < until) for (int i = 1; i < 2000; i++) sum += with_alloca((i & 63) * 37 + 1);
}

#ifndef _WIN32 /* no signals there */
/* ---- signal handlers: on an alternate stack, and on top of any instruction ---- */

static void handler_works(int sig) { (void)sig; (void)e2e_spin(1, 20000); E2E_NO_TAIL(); }

E2E_NOINLINE void cat_sigaltstack(uint64_t until)
{
    struct sigaction action;
    stack_t stack;
    memset(&stack, 0, sizeof stack);
    stack.ss_size = 65536;
    stack.ss_sp = malloc(stack.ss_size);
    sigaltstack(&stack, NULL);
    memset(&action, 0, sizeof action);
    action.sa_handler = handler_works;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR1, &action, NULL);
    while (thread_cpu() < until) raise(SIGUSR1);
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, NULL);
}

E2E_NOINLINE void cat_interrupted(uint64_t until)
{
    struct sigaction action;
    struct itimerval every = { { 0, 500 }, { 0, 500 } }, never = { { 0, 0 }, { 0, 0 } };
    volatile int sum = 0;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler_works;
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    while (thread_cpu() < until) for (int i = 0; i < 50000; i++) sum += tiny_calls(i);
    setitimer(ITIMER_REAL, &never, NULL);
}
#endif

/* ---- a function that ends in a call which never returns ---- */

static jmp_buf way_out;
__attribute__((noreturn)) E2E_NOINLINE static void works_and_leaves(int x)
{
    volatile int sum = 0;
    for (int i = 0; i < 30; i++) sum += (int)e2e_spin((uint64_t)x, 1000);
    longjmp(way_out, 1);
}
__attribute__((noreturn)) E2E_NOINLINE static void ends_in_call(int x)
{
    char filler[64];
    __asm__ volatile("" : : "r"(filler) : "memory");
    tiny_calls(x);
    works_and_leaves(x + filler[3]);
}
E2E_NOINLINE void cat_noreturn(uint64_t until)
{
    volatile int round = 0;
    while (thread_cpu() < until) {
        round++;
        if (setjmp(way_out) == 0) ends_in_call(round);
    }
}

/* ---- system calls and the vdso ---- */

E2E_NOINLINE void cat_syscalls(uint64_t until)
{
    volatile long sum = 0;
    while (thread_cpu() < until) {
#ifdef _WIN32
        for (int i = 0; i < 200; i++) sum += (long)WaitForSingleObject(GetCurrentProcess(), 0);
#else
        for (int i = 0; i < 200; i++) sum += getppid();
#endif
        for (int i = 0; i < 200; i++) sum += (long)wall();
    }
}

/* ---- recursion that is not deep enough to be cut ---- */

E2E_NOINLINE static unsigned fibonacci(unsigned n)
{
    unsigned a, b;
    if (n < 2) return n;
    a = fibonacci(n - 1);
    b = fibonacci(n - 2);
    E2E_NO_TAIL();
    return a + b;
}
E2E_NOINLINE void cat_recursion(uint64_t until)
{
    volatile unsigned sum = 0;
    while (thread_cpu() < until) sum += fibonacci(21);
}

typedef struct { const char *name; void (*run)(uint64_t until); } category;
static const category categories[] = {
    { "cat_deep", cat_deep }, { "cat_prologues", cat_prologues }, { "cat_plt", cat_plt }, { "cat_libc", cat_libc },
    { "cat_qsort", cat_qsort }, { "cat_alloca", cat_alloca }, 
#ifndef _WIN32
    { "cat_sigaltstack", cat_sigaltstack }, { "cat_interrupted", cat_interrupted },
#endif
    { "cat_noreturn", cat_noreturn }, { "cat_syscalls", cat_syscalls },
    { "cat_recursion", cat_recursion }, { "cat_exceptions", cat_exceptions }, { "cat_cxx_library", cat_cxx_library },
};
enum { CATEGORIES = sizeof categories / sizeof *categories };

E2E_NOINLINE static void run_category(const category *c)
{
    uint64_t begin = thread_cpu();
    while (e2e_goes_on(thread_cpu() - begin, 130000000u, 150)) c->run(thread_cpu() + 130000000u);
    E2E_NO_TAIL();
}

static void *worker_start(void *argument)
{
    name_thread("worker");
    run_category((const category *)argument);
    E2E_NO_TAIL();
    return NULL;
}

static bool reaches(const e2e_stack *s, const char *root, const char *cat)
{
    int at = 1;
    while (at < s->frames && !e2e_is(s->frame[at], root)) at++;
    if (at >= s->frames || at > 5 || strcmp(s->frame[1], "[truncated]") == 0) return false;
#ifdef _WIN32 /* Wine has debug information: what is inlined into its RtlUserThreadStart shows, and not always it itself */
    if (!strstr(s->frame[1], "UserThreadStart") && !strstr(s->frame[1], "BaseThreadInitThunk")) return false;
#endif
    for (; at < s->frames; at++) if (e2e_is(s->frame[at], cat)) return true;
    return false;
}

/* With 32 bits there cannot be the largest table that may be asked for. */
static void largest_table(void)
{
    cprof_desc desc;
    cprof_result result;
    memset(&desc, 0, sizeof desc);
    desc.hz = HZ;
    desc.quiet = true;
    desc.max_stacks = 4194304;
    desc.max_depth = 4096;
    result = cprof_start(&desc);
    if (result == CPROF_OK) cprof_stop();
    check(result == CPROF_ERROR_MEMORY || (sizeof(void *) > 4 && result == CPROF_OK),
          "the largest table is there, or refused", "%s", cprof_result_string(result));
}

int main(void)
{
    cprof_desc desc;
    uint64_t all = 0, good = 0, samples = 0, wrong_depth = 0, bottom = 0;

    memset(&desc, 0, sizeof desc);
    desc.hz = HZ;
    desc.quiet = true;
    name_thread("rooted");
    for (int i = 0; i < 2 * CATEGORIES; i++) {
        const category *c = &categories[i / 2];
        bool in_thread = i % 2 == 1;
        const char *thread = in_thread ? "worker" : "rooted", *root = in_thread ? "worker_start" : "main";
        uint64_t cat_all = 0, cat_good = 0, worst = 0;
        double allowed, thin;
#ifdef __arm__
        const bool may_be_cut = c->run == cat_noreturn;
#else
        const bool may_be_cut = false;
#endif
        cprof_stats stats;
        const e2e_stack *worst_stack = NULL;
        e2e_profile p;
        /* The second thread: the first few kinds are enough. */
        if (in_thread && c->run != cat_deep && c->run != cat_plt && c->run != cat_exceptions) continue;
        if (cprof_start(&desc) != CPROF_OK) return 1;
        if (in_thread) {
            pthread_t other;
            if (pthread_create(&other, NULL, worker_start, (void *)(uintptr_t)c)) return 1;
            pthread_join(other, NULL);
        } else {
            run_category(c);
        }
        if (cprof_stop() != CPROF_OK) return 1;
        p = profile_take();
        cprof_get_stats(&stats);
        thin = (double)stats.samples / (double)(p.count + 1); /* a sample may stand for several periods */
        if (thin > 1) thin = 1;
        samples += stats.samples;
        for (int k = 0; k < p.stacks; k++) {
            const e2e_stack *s = &p.stack[k];
            int levels = 0;
            if (strcmp(s->frame[0], "[cprof]") == 0) continue;
            /* The samples outside run_category() are start and stop themselves, and a thread's birth. */
            if (!in_thread && (stack_has(s, "cprof_start") || stack_has(s, "cprof_stop"))) continue;
            if (stack_has(s, "e2e_goes_on") || stack_has(s, "cprof_get_stats") || (in_thread && strcmp(s->frame[0], thread) != 0)) continue;
            cat_all += s->count;
            if (reaches(s, root, c->name)) cat_good += s->count;
            else if (may_be_cut && s->frames > 1 && strcmp(s->frame[1], "[truncated]") == 0) cat_good += s->count;
            else if (s->count > worst) { worst = s->count; worst_stack = s; }
            if (c->run == cat_deep && strcmp(s->frame[0], thread) == 0) {
                for (int f = 1; f < s->frames; f++) levels += e2e_is(s->frame[f], "deep_a") || e2e_is(s->frame[f], "deep_b");
                if (e2e_is(s->frame[s->frames - 1], "deep_a") && s->frames > LEVELS) {
                    bottom += s->count;
                    for (int f = s->frames - 1; f > s->frames - levels; f--) {
                        if (strncmp(s->frame[f], s->frame[f - 1], 6) == 0) { wrong_depth += s->count; break; }
                    }
                }
            }
        }
        all += may_be_cut ? 0 : cat_all;
        good += may_be_cut ? 0 : cat_good;
        if (cat_good * 1000 < cat_all * 995 || cat_all == 0) {
            note("%s in %s: %.2f%% of %llu reach the root", c->name, root, 100.0 * (double)cat_good / (double)(cat_all + !cat_all),
                 (unsigned long long)cat_all);
            if (worst_stack) {
                printf("#   e.g.");
                for (int f = 0; f < worst_stack->frames; f++) printf("%s%s", f ? ";" : " ", worst_stack->frame[f]);
                printf(" %llu\n", (unsigned long long)worst);
            }
        }
        /* Of 500 samples 0.5% and 4 sigma may miss. While an exception lands, libgcc overwrites saved
           registers and return addresses of the frames it leaves: there 7% may. */
        allowed = c->run == cat_exceptions ? 0.07 : 0.005;
        check((double)cat_all * thin > 100 && (double)(cat_all - cat_good) <= allowed * (double)cat_all + (4 * sqrt(allowed * (double)cat_all * thin) + 1) / thin,
              e2e_format("%s in %s", c->name, root), "%llu of %llu stacks do not reach the root",
              (unsigned long long)(cat_all - cat_good), (unsigned long long)cat_all);
        profile_free(&p);
    }
    note("%.3f%% of %llu periods reach the root", 100 * (double)good / (double)all, (unsigned long long)all);
    /* The promise is of the share itself; a sample of it may stray by 4 sigma. */
    check((double)(all - good) <= 0.005 * (double)all + 4 * sqrt(0.005 / (double)(samples + 1)) * (double)all,
          "99.5% of all stacks reach the root", "%.2f%% of %llu", 100 * (double)good / (double)all,
          (unsigned long long)all);
    largest_table();
    check(bottom > 100 && wrong_depth * 200 <= bottom, "a chain of alternating calls alternates in the stack", "%llu of %llu do not",
          (unsigned long long)wrong_depth, (unsigned long long)bottom);
    return e2e_done();
}
