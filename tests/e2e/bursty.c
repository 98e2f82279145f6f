/* bursty: threads that work in short bursts between naps. Such a thread is where designs that save
   up CPU credit until a tick finds the thread running go wrong: they book one burst's time on
   another and are off by 28% to 94% in A:B.

   The truth comes from the thread CPU clock around each burst. The bound on the error of A:B is 4
   sigma of the hit counts plus SYSTEMATIC for what the sampler's window between look and signal
   does to a burst: some of them end in it, and the sample shows the nap. `window` tells how many
   microseconds of naps were sampled for each, the CPU time that the nap itself takes included. Each
   run goes on until B has hits enough for the bound to be below 28%, and that is checked. */
#include "e2e.h"

#define SYSTEMATIC 0.08
#define B_HITS 600                          /* sigma of A:B is then about 4.5% */

BURN(burst_a)
BURN(burst_b)

enum { THREADS = 3, SECONDS_MOST = 25 };

typedef struct { const char *name; uint64_t a_ns, b_ns; int b_times; } pattern;
static uint64_t a_sum, b_sum;               /* CPU that A and B have had in all threads */
static volatile bool quit;
static const pattern patterns[] = {
    { "A 0.3 ms, B 0.1 ms, naps of 1 ms", 300000, 100000, 1 },
    { "A 0.9 ms, B 0.1 ms, naps of 1 ms", 900000, 100000, 1 },
    { "A 2 ms, ten times B 0.03 ms, naps of 1 ms", 2000000, 30000, 10 },
};

typedef struct {
    pthread_t thread;
    const pattern *pattern;
    uint64_t a_ns, b_ns, naps, interrupted;
} worker;

E2E_NOINLINE static void take_nap(worker *w)
{
    w->interrupted += !nap_ns(1000000);
    w->naps++;
}

static void *worker_main(void *argument)
{
    worker *w = (worker *)argument;
    const pattern *p = w->pattern;
    while (!quit) {
        uint64_t a = burst_a(p->a_ns), b = 0;
        take_nap(w);
        for (int i = 0; i < p->b_times; i++) {
            b += burst_b(p->b_ns);
            take_nap(w);
        }
        w->a_ns += a;
        w->b_ns += b;
        __atomic_add_fetch(&a_sum, a, __ATOMIC_RELAXED);
        __atomic_add_fetch(&b_sum, b, __ATOMIC_RELAXED);
    }
    return NULL;
}

static bool enough_hits_of_b(void)
{
    double a = (double)__atomic_load_n(&a_sum, __ATOMIC_RELAXED), b = (double)__atomic_load_n(&b_sum, __ATOMIC_RELAXED);
    return b > 0 && e2e_enough((uint64_t)(B_HITS * (a + b) / b));
}

static bool run(const pattern *pat, const cprof_desc *desc, bool final)
{
    worker w[THREADS];
    double a_true = 0, b_true = 0, a, b, window, hits_a, hits_b, p_a, p_b, sigma, bound, error, thin;
    uint64_t naps = 0, interrupted = 0, start;
    double took;
    bool slow;
    cprof_stats stats;
    e2e_profile p;
    const char *s = e2e_format("%s", pat->name);

    memset(w, 0, sizeof w);
    a_sum = b_sum = 0;
    quit = false;
    if (!check_ok(cprof_start(desc), e2e_format("%s: start", s))) return false;
    start = wall();
    for (int k = 0; k < THREADS; k++) {
        w[k].pattern = pat;
        if (pthread_create(&w[k].thread, NULL, worker_main, &w[k])) exit(1);
    }
    while (wall() - start < SECONDS_MOST * 1000000000ull && !enough_hits_of_b()) nap_ns(50000000);
    quit = true;
    for (int k = 0; k < THREADS; k++) {
        pthread_join(w[k].thread, NULL);
        a_true += (double)w[k].a_ns;
        b_true += (double)w[k].b_ns;
        naps += w[k].naps;
        interrupted += w[k].interrupted;
    }
    took = (double)(wall() - start) * THREADS;
    check_ok(cprof_stop(), e2e_format("%s: stop", s));
    slow = a_true + b_true + (double)naps * 1.15e6 < 0.9 * took;
    p = profile_take();
    cprof_get_stats(&stats);

    a = (double)profile_total(&p, NULL, "burst_a");
    b = (double)profile_total(&p, NULL, "burst_b");
    window = (double)profile_total(&p, NULL, "take_nap") / (double)desc->hz * 1e6;
    thin = p.count ? (double)stats.samples / (double)p.count : 0;
    if (thin > 1) thin = 1;
    /* Hits expected by the truth; a burst of length L < period is hit with probability L, so the
       variance of the count is n L (1 - L), and of a longer one at most that of its remainder. */
    hits_a = a_true / 1e9 * desc->hz * thin + 1;
    hits_b = b_true / 1e9 * desc->hz * thin + 1;
    p_a = (double)pat->a_ns / 1e9 * desc->hz;
    p_b = (double)pat->b_ns / 1e9 * desc->hz;
    sigma = sqrt((p_a < 1 ? 1 - 0.9 * p_a : 0.25) / hits_a + (p_b < 1 ? 1 - 0.9 * p_b : 0.25) / hits_b);
    bound = 4 * sigma + SYSTEMATIC;
    error = b > 0 && a > 0 ? (a / b) / (a_true / b_true) - 1 : 1e9;
    /* Crowded: a thread often waited for a CPU when its nap was over. */
    if (!final && fabs(error) > bound && slow) {
        profile_free(&p);
        return true;
    }
    note("%s: error of A:B %+.1f%%, bound %.1f%% (4 sigma %.1f%% + %.0f%%); true %.3f, found %.3f; "
         "%.0f samples; total off %+.1f%%; window %.1f us; naps interrupted %llu of %llu",
         s, 100 * error, 100 * bound, 400 * sigma, 100 * SYSTEMATIC, a_true / b_true, b > 0 ? a / b : 0,
         (double)stats.samples, 100 * ((a + b) / (double)desc->hz * 1e9 / (a_true + b_true) - 1),
         window / (double)naps, (unsigned long long)interrupted, (unsigned long long)naps);
    check(bound < 0.28, e2e_format("%s: the bound tells a credit saver", s),
          "bound %.1f%%: too few samples arrived (%.0f)", 100 * bound, (double)stats.samples);
    check(fabs(error) <= bound, e2e_format("%s: error of A:B", s), "%+.1f%%, bound %.1f%%",
          100 * error, 100 * bound);
    profile_free(&p);
    return false;
}

int main(void)
{
    cprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.hz = 1000;
    desc.quiet = true;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        for (int k = 1; k <= E2E_TRIES; k++) if (!run(&patterns[i], &desc, k == E2E_TRIES)) break;
    }
    return e2e_done();
}
