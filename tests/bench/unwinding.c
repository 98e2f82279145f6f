/* unwinding.c: what a frame costs to unwind, by itself: no signal, no sampler. Prints one line of
   JSON. warm: rules cached, the stack known to be readable. verified: as in the handler, which asks
   the kernel for each page of the stack, one system call a page. cold: verified, and the cache of
   rules emptied before each walk, so that each frame is found in the tables anew. A hop: one load
   that depends on the one before, all of them in the first-level cache. The best of many short
   batches, since whatever else runs on the machine only ever adds: a neighbour on the other thread of
   a core made warm frames 1.7 times as dear for a tenth of a second and more, so it takes longer. */
#define CPROF_IMPLEMENTATION
#include "cprof.h"

enum { DEEPEST = 256, BATCHES = 20000, COLD_BATCHES = 2000, BATCH = 20 };

static cprofi_modules modules;
static cprofi_unwinder unwinder;
static cprofi_scratch scratch;
static uintptr_t frames[DEEPEST + 64];
static struct link { struct link *next; } links[512];

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

typedef enum { WARM, VERIFIED, COLD } how;

static double walk(const ucontext_t *context, how kind, size_t *n)
{
    double best = 1e9;
    bool cold = kind == COLD;
    int batches = cold ? COLD_BATCHES : BATCHES, batch = cold ? 1 : BATCH;
    cprofi_regs first, regs;
    cprofi_end end = CPROFI_END_LOST;
    cprofi_view known = { 0, 0, 0, true };
    cprofi_regs_from_ucontext(&first, context);
    if (kind == WARM) { /* what a walk verifies */
        regs = first;
        cprofi_unwind(&unwinder, &modules, &regs, &known, &scratch, frames, DEEPEST + 64, &end, NULL);
    }
    for (int i = 0; i < batches; i++) {
        double each;
        uint64_t start;
        if (cold) memset(unwinder.rules, 0, sizeof(cprofi_rule_slot) * CPROFI_RULES);
        start = now_ns();
        for (int k = 0; k < batch; k++) {
            cprofi_view view = known;
            regs = first;
            *n = cprofi_unwind(&unwinder, &modules, &regs, &view, &scratch, frames, DEEPEST + 64, &end, NULL);
        }
        each = (double)(now_ns() - start) / batch;
        if (each < best) best = each;
    }
    if (end != CPROFI_END_ROOT) exit(1);
    return best / (double)*n;
}

static double hop(void)
{
    double best = 1e9;
    struct link *p = links;
    for (size_t i = 0; i < 512; i++) links[i * 77 % 512].next = &links[(i + 1) * 77 % 512];
    for (int i = 0; i < BATCHES; i++) {
        uint64_t start = now_ns();
        double each;
        for (int k = 0; k < 5120; k++) p = p->next;
        __asm__ volatile("" : : "r"(p) : "memory");
        each = (double)(now_ns() - start) / 5120;
        if (each < best) best = each;
    }
    return best;
}

static void measure(int depth)
{
    static int printed;
    ucontext_t context;
    size_t n = 0;
    double warm, verified, cold;
    getcontext(&context);
    walk(&context, VERIFIED, &n);
    warm = walk(&context, WARM, &n);
    verified = walk(&context, VERIFIED, &n);
    cold = walk(&context, COLD, &n);
    printf("%s\"%d\": {\"frames\": %zu, \"warm_ns\": %.3f, \"verified_ns\": %.3f, \"cold_ns\": %.3f}", printed++ ? ", " : "",
           depth, n, warm, verified, cold);
}

/* Sixteen functions with frames of different sizes and different kept registers, in turns: a
   recursion of one function would need a single rule. */
typedef uint64_t (*step)(int left, int depth, uint64_t a, uint64_t b);
static const step steps[16];

#define STEP(n, words)                                                                                  \
    __attribute__((noinline)) static uint64_t step_##n(int left, int depth, uint64_t a, uint64_t b)     \
    {                                                                                                   \
        volatile uint64_t local[words];                                                                 \
        uint64_t x;                                                                                     \
        local[0] = a;                                                                                   \
        if (left <= 0) { measure(depth); return a; }                                                    \
        x = steps[left & 15](left - 1, depth, a + n, b ^ a);                                            \
        return x + local[0] + (n & 1 ? a : 0) + (n & 2 ? b : 0) + (n & 4 ? (uint64_t)depth : 0);        \
    }
STEP(0, 1) STEP(1, 2) STEP(2, 3) STEP(3, 4) STEP(4, 5) STEP(5, 6) STEP(6, 7) STEP(7, 8)
STEP(8, 9) STEP(9, 10) STEP(10, 11) STEP(11, 12) STEP(12, 13) STEP(13, 14) STEP(14, 15) STEP(15, 16)

static const step steps[16] = { step_0, step_1, step_2, step_3, step_4, step_5, step_6, step_7,
                                step_8, step_9, step_10, step_11, step_12, step_13, step_14, step_15 };

int main(void)
{
    if (!cprofi_modules_init(&modules)) return 1;
    cprofi_modules_refresh(&modules);
    if (!cprofi_unwind_init(&unwinder)) return 1;
    printf("{\"hop_ns\": %.4f, \"depths\": {", hop());
    step_1(8, 10, 1, 2);
    step_1(48, 50, 1, 2);
    step_1(198, 200, 1, 2);
    printf("}}\n");
    return 0;
}
