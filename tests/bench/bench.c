/* bench.c: the workloads that bench.py measures; each prints one line of JSON.

     bench delivered PROFILER THREADS SECONDS   busy threads: samples that arrive, CPU used
     bench cost HZ PAIRS ROUNDS                 CPU of fixed work at depth 30, profile paused and running
     bench bursty PROFILER SECONDS              A 0.9 ms, nap 1 ms, B 0.1 ms, nap 1 ms

   PROFILER is cprof or gperftools (when built with WITH_GPERFTOOLS). Built a second time with
   CPROF_TEST_EMPTY_HANDLER, `cost` measures the same sampler sending the same signals to a handler
   that returns at once. */
#include "../e2e/e2e.h"
#ifdef WITH_GPERFTOOLS
#include <gperftools/profiler.h>
#endif

BURN(burst_a)
BURN(burst_b)
BURN(fn_busy)

static cprof_desc desc_at(int hz)
{
    cprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.hz = hz;
    desc.quiet = true;
    return desc;
}

/* ---- which profiler ---- */

static bool peer_start(const char *name, const char *file)
{
    if (strcmp(name, "cprof") == 0) {
        cprof_desc desc = desc_at(1000);
        return cprof_start(&desc) == CPROF_OK;
    }
#ifdef WITH_GPERFTOOLS
    if (strcmp(name, "gperftools") == 0) return ProfilerStart(file) != 0;
#endif
    (void)file;
    return false;
}

static unsigned long long peer_stop(const char *name)
{
    if (strcmp(name, "cprof") == 0) {
        cprof_stats stats;
        cprof_stop();
        cprof_get_stats(&stats);
        return (unsigned long long)stats.samples;
    }
#ifdef WITH_GPERFTOOLS
    {
        struct ProfilerState state;
        ProfilerGetCurrentState(&state);
        ProfilerStop();
        return (unsigned long long)state.samples_gathered;
    }
#else
    return 0;
#endif
}

/* ---- delivered ---- */

typedef struct { pthread_t thread; uint64_t until, cpu, a_ns, b_ns; } worker;

static void *busy_main(void *argument)
{
    worker *w = (worker *)argument;
    uint64_t before = thread_cpu();
    while (wall() < w->until) fn_busy(1000000);
    w->cpu = thread_cpu() - before;
    return NULL;
}

static int delivered(const char *peer, int threads, double seconds, const char *file)
{
    worker w[256];
    unsigned long long samples;
    double cpu = 0;
    if (threads > 256) threads = 256;
    if (!peer_start(peer, file)) return 1;
    for (int i = 0; i < threads; i++) {
        w[i].until = wall() + (uint64_t)(seconds * 1e9);
        if (pthread_create(&w[i].thread, NULL, busy_main, &w[i])) return 1;
    }
    for (int i = 0; i < threads; i++) { pthread_join(w[i].thread, NULL); cpu += (double)w[i].cpu / 1e9; }
    samples = peer_stop(peer);
    printf("{\"samples\": %llu, \"cpu_s\": %.4f, \"share\": %.4f}\n", samples, cpu, (double)samples / (cpu * 1000));
    return 0;
}

/* ---- bursty ---- */

static void *bursty_main(void *argument)
{
    worker *w = (worker *)argument;
    w->a_ns = w->b_ns = 0;
    while (wall() < w->until) {
        w->a_ns += burst_a(900000);
        nap_ns(1000000);
        w->b_ns += burst_b(100000);
        nap_ns(1000000);
    }
    return NULL;
}

static int bursty(const char *peer, double seconds, const char *file)
{
    worker w[2];
    double a = 0, b = 0;
    unsigned long long samples;
    if (!peer_start(peer, file)) return 1;
    for (int i = 0; i < 2; i++) {
        w[i].until = wall() + (uint64_t)(seconds * 1e9);
        if (pthread_create(&w[i].thread, NULL, bursty_main, &w[i])) return 1;
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(w[i].thread, NULL);
        a += (double)w[i].a_ns;
        b += (double)w[i].b_ns;
    }
    samples = peer_stop(peer);
    printf("{\"samples\": %llu, \"a_true\": %.0f, \"b_true\": %.0f", samples, a, b);
    if (strcmp(peer, "cprof") == 0) {
        e2e_profile p = profile_take();
        printf(", \"a\": %llu, \"b\": %llu", (unsigned long long)profile_total(&p, NULL, "burst_a"),
               (unsigned long long)profile_total(&p, NULL, "burst_b"));
        profile_free(&p);
    }
    printf("}\n");
    return 0;
}

/* ---- cost ---- */

E2E_NOINLINE static uint64_t descend(int depth, int rounds)
{
    uint64_t x;
    char frame[48];
    __asm__ volatile("" : : "r"(frame) : "memory");
    x = depth > 0 ? descend(depth - 1, rounds) : e2e_spin((uint64_t)rounds, rounds);
    E2E_NO_TAIL();
    return x + (uint64_t)depth;
}

/* Fixed work, nearly all of it at depth 30: returns the CPU of the whole process meanwhile. */
static double fixed_work(int rounds)
{
    uint64_t before = process_cpu();
    for (int i = 0; i < 100; i++) descend(29, rounds / 100);
    return (double)(process_cpu() - before);
}

static double block(bool profiled, int rounds)
{
    double used;
    if (profiled) cprof_resume();
    fixed_work(rounds / 20);                    /* what waking the sampler costs is not meant */
    used = fixed_work(rounds);
    if (profiled) cprof_pause();
    return used;
}

/* Blocks of about 60 ms, in turns with the profile paused and running: the speed of the machine
   drifts more in a second than what is measured here. */
static int cost(int hz, int pairs, int rounds)
{
    cprof_desc desc = desc_at(hz);
    cprof_stats stats;
    if (cprof_start(&desc) != CPROF_OK) return 1;
    fixed_work(rounds * 5);                     /* the tables are built, the rules cached */
    cprof_pause();
    cprof_reset();
    printf("{\"pairs\": [");
    for (int i = 0; i < pairs; i++) {
        double without = 0, with = 0;
        if (i % 2) with = block(true, rounds);
        without = block(false, rounds);
        if (i % 2 == 0) with = block(true, rounds);
        printf("%s[%.0f, %.0f]", i ? ", " : "", without, with);
    }
    cprof_stop();
    cprof_get_stats(&stats);
    printf("], \"samples\": %llu, \"ticks\": %llu, \"sampler_ns\": %llu}\n", (unsigned long long)stats.samples,
           (unsigned long long)stats.ticks, (unsigned long long)stats.sampler_cpu_ns);
    return 0;
}

int main(int argc, char **argv)
{
    const char *file = getenv("BENCH_PROFILE") ? getenv("BENCH_PROFILE") : "/dev/null";
    if (argc == 5 && strcmp(argv[1], "delivered") == 0) return delivered(argv[2], atoi(argv[3]), atof(argv[4]), file);
    if (argc == 5 && strcmp(argv[1], "cost") == 0) return cost(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
    if (argc == 4 && strcmp(argv[1], "bursty") == 0) return bursty(argv[2], atof(argv[3]), file);
    return 2;
}
