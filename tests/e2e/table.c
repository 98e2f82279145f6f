/* table: the stack table has a fixed size; what does not fit is counted and shown, and nothing
   that is in it is lost. Stacks deeper than max_depth say so. */
#include "e2e.h"

SPIN(fn_leaf)
SPIN(fn_other)

/* Each path through left/right is a stack of its own: 2^10 of them. */
E2E_NOINLINE static void go(int depth, unsigned path);
E2E_NOINLINE static void left(int depth, unsigned path)
{
    __asm__ volatile("# left" ::: "memory");
    go(depth, path);
    E2E_NO_TAIL();
}
E2E_NOINLINE static void right(int depth, unsigned path)
{
    __asm__ volatile("# right" ::: "memory");
    go(depth, path);
    E2E_NO_TAIL();
}
E2E_NOINLINE static void go(int depth, unsigned path)
{
    if (depth == 0) fn_leaf(200000);
    else if (path & 1) left(depth - 1, path >> 1);
    else right(depth - 1, path >> 1);
    E2E_NO_TAIL();
}

E2E_NOINLINE static int deep(int depth)
{
    int got = depth > 0 ? deep(depth - 1) : 0;
    if (depth == 0) fn_other(400000000);
    E2E_NO_TAIL();
    return got + 1;
}

E2E_NOINLINE static int shallow(int depth)
{
    int got = depth > 0 ? shallow(depth - 1) : 0;
    if (depth == 0) fn_leaf(400000000);
    E2E_NO_TAIL();
    return got + 1;
}

static uint64_t frame_count(const e2e_profile *p, const char *frame)
{
    uint64_t sum = 0;
    for (int i = 0; i < p->stacks; i++) {
        if (p->stack[i].frames > 1 && strcmp(p->stack[i].frame[1], frame) == 0) sum += p->stack[i].count;
    }
    return sum;
}

int main(void)
{
    cprof_desc desc;
    cprof_stats stats;
    e2e_profile p;
    uint64_t before, cpu, lost, lost_before;
    int longest = 0, unmarked = 0;
    double distinct;

    name_thread("table");
    memset(&desc, 0, sizeof desc);
    desc.hz = 2000;
    desc.quiet = true;
    desc.max_stacks = 64;
    check_ok(cprof_start(&desc), "start with 64 stacks");
    before = thread_cpu();
    for (unsigned i = 0; thread_cpu() - before < 1500000000u; i++) go(10, i * 2654435761u >> 10);
    cpu = thread_cpu() - before;
    check_ok(cprof_stop(), "stop");
    cprof_get_stats(&stats);
    p = profile_take();
    lost = frame_count(&p, "[lost]");
    note("64 stacks: %llu samples, %llu lost, %llu unique, [cprof];[lost] %llu of %llu periods",
         (unsigned long long)stats.samples, (unsigned long long)stats.lost,
         (unsigned long long)stats.unique_stacks, (unsigned long long)lost, (unsigned long long)p.count);
    check(stats.lost > 0, "lost samples are counted", "stats.lost is 0");
    check(lost > 0 && lost == profile_total(&p, "[cprof]", "[lost]"), "and shown as [cprof];[lost]", "%llu",
          (unsigned long long)lost);
    check(stats.unique_stacks <= 64 && stats.unique_stacks >= 32, "the table is used to its capacity, not beyond",
          "%llu", (unsigned long long)stats.unique_stacks);
    check(p.stacks <= 70, "the file has no more stacks than fit", "%d", p.stacks);
    check(fabs((double)p.count / 2000 * 1e9 / (double)cpu - 1) < 0.02, "with the lost ones the sum is still the CPU used",
          "%.1f ms of %.1f ms", (double)p.count / 2000 * 1e3, (double)cpu / 1e6);
    check(profile_total(&p, NULL, "go") > 0, "what came first is still there", "no stack with go");
    profile_free(&p);

    desc.max_stacks = 0;
    check_ok(cprof_start(&desc), "start with the default size");
    before = thread_cpu();
    for (unsigned i = 0; thread_cpu() - before < 1000000000u; i++) go(10, i * 2654435761u >> 10);
    check_ok(cprof_stop(), "stop");
    cprof_get_stats(&stats);
    p = profile_take();
    check(stats.lost == 0 && frame_count(&p, "[lost]") == 0, "16384 stacks hold a thousand", "%llu lost",
          (unsigned long long)stats.lost);
    /* Of 1024 leaves that many are met by n samples that take any of them; some meet what is above the leaves;
       under Wine some also find a thread that waits for a CPU where they left it. */
    distinct = (E2E_MOST > 1 ? 0.6 : 0.8) * 1024 * (1 - exp(-(double)stats.samples / 1024));
    check(stats.samples > 20 && (double)stats.unique_stacks >= distinct, "distinct stacks stay distinct", "%llu, expected are %.0f",
          (unsigned long long)stats.unique_stacks, distinct);
    profile_free(&p);

    desc.max_depth = 8;
    check_ok(cprof_start(&desc), "start with max_depth 8");
    deep(100);
    check_ok(cprof_stop(), "stop");
    cprof_get_stats(&stats);
    p = profile_take();
    for (int i = 0; i < p.stacks; i++) {
        const e2e_stack *s = &p.stack[i];
        if (!stack_has(s, "fn_other")) continue;
        if (s->frames > longest) longest = s->frames;
        if (strcmp(s->frame[1], "[truncated]") != 0) unmarked++;
    }
    check(longest >= 8 && longest <= 8 + 2, "no stack is deeper than max_depth", "%d frames with the thread and the mark",
          longest);
    check(unmarked == 0 && profile_self(&p, "table", "fn_other") > 100, "cut stacks begin with [truncated]",
          "%d do not; %llu periods", unmarked, (unsigned long long)profile_self(&p, "table", "fn_other"));
    check(stats.truncated > 0, "and are counted", "stats.truncated is 0");
    profile_free(&p);

    desc.max_depth = 0;
    check_ok(cprof_start(&desc), "start with the default depth");
    shallow(100);
    check_ok(cprof_stop(), "stop");
    cprof_get_stats(&stats);
    p = profile_take();
    lost_before = 0;
    for (int i = 0; i < p.stacks; i++) {
        int levels = 0;
        if (!stack_has(&p.stack[i], "fn_leaf")) continue;
        for (int k = 1; k < p.stack[i].frames; k++) levels += e2e_is(p.stack[i].frame[k], "shallow");
        if (levels != 101) lost_before += p.stack[i].count;
    }
    check(frame_count(&p, "[truncated]") == 0 && stats.truncated == 0, "100 levels fit the default depth", "%llu truncated",
          (unsigned long long)stats.truncated);
    check(lost_before * 200 <= p.count, "all 101 levels of a recursion are there", "not in %llu of %llu periods",
          (unsigned long long)lost_before, (unsigned long long)p.count);
    profile_free(&p);
    return e2e_done();
}
