/* totals: what the profile says in sum is the CPU time the kernel charged. Weights plus unsampled
   equal the threads' own CPU clocks within 1%, at any rate, with more threads than cores, and on
   one core. */
#include "e2e.h"

BURN(fn_total)

enum { MOST = 512 };

typedef struct { pthread_t thread; char name[16]; uint64_t cpu_ns, used; } worker;

static pthread_barrier_t gate;
static worker workers[MOST];

static void *worker_main(void *argument)
{
    worker *w = (worker *)argument;
    uint64_t before;
    name_thread(w->name);
    pthread_barrier_wait(&gate);
    before = thread_cpu();
    fn_total(w->cpu_ns);
    w->used = thread_cpu() - before;
    pthread_barrier_wait(&gate);
    return NULL;
}

static void run(const char *what, int hz, int threads, double seconds, bool pinned)
{
    cprof_desc desc;
    cprof_stats stats;
    e2e_profile p;
    double truth = 0, weight, unsampled, covered, period = 1e9 / hz, worst = 0;
    uint64_t main_before, began, took;
    int worst_at = 0;

    if (threads > MOST) threads = MOST;
    memset(&desc, 0, sizeof desc);
    desc.hz = hz;
    desc.quiet = true;
    if (pinned) e2e_pin(true);
    pthread_barrier_init(&gate, NULL, (unsigned)threads + 1);
    for (int k = 0; k < threads; k++) {
        snprintf(workers[k].name, sizeof workers[k].name, "total-%d", k);
        workers[k].cpu_ns = (uint64_t)(seconds * 1e9);
        if (pthread_create(&workers[k].thread, NULL, worker_main, &workers[k])) exit(1);
    }
    if (!check_ok(cprof_start(&desc), e2e_format("%s: start", what))) exit(1);
    main_before = thread_cpu();
    began = wall();
    pthread_barrier_wait(&gate);
    pthread_barrier_wait(&gate);
    took = wall() - began;
    truth += (double)(thread_cpu() - main_before);
    check_ok(cprof_stop(), e2e_format("%s: stop", what));
    for (int k = 0; k < threads; k++) {
        pthread_join(workers[k].thread, NULL);
        truth += (double)workers[k].used;
    }
    if (pinned) e2e_pin(false);
    pthread_barrier_destroy(&gate);

    cprof_get_stats(&stats);
    p = profile_take();
    weight = (double)stats.weight_ns;
    unsampled = (double)stats.unsampled_ns;
    covered = weight + unsampled;
    note("%s: weights + unsampled off by %+.3f%%; unsampled %.2f%%; %.1f%% of the samples asked; sampler %.1f%% of a core",
         what, 100 * (covered / truth - 1), 100 * unsampled / truth,
         100 * (double)stats.samples * period / truth,
         100 * (double)stats.sampler_cpu_ns / (double)took);
    check(fabs(covered / truth - 1) <= 0.01 + e2e_steps(threads) / truth, e2e_format("%s: weights + unsampled are the CPU used", what),
          "%.1f ms + %.1f ms, true %.1f ms (%+.2f%%)", weight / 1e6, unsampled / 1e6, truth / 1e6,
          100 * (covered / truth - 1));
    check(unsampled <= 0.02 * truth + e2e_gap(&stats) * threads, e2e_format("%s: at most 2%% unsampled, but for the time until the first look", what), "%.2f%%",
          100 * unsampled / truth);
    check(fabs((double)p.count * period - covered) <= 0.001 * covered + 2 * period,
          e2e_format("%s: the file says what the stats say", what), "%.1f ms in the file, %.1f ms",
          (double)p.count * period / 1e6, covered / 1e6);
    for (int k = 0; k < threads; k++) {
        double off = ((double)profile_thread(&p, workers[k].name) * period) / (double)workers[k].used - 1;
        if (fabs(off) > fabs(worst)) { worst = off; worst_at = k; }
    }
    /* A thread's first moments before it was found may be unsampled: 1% + what is unsampled. */
    check(fabs(worst) <= 0.01 + unsampled / truth + (e2e_steps(1) + e2e_gap(&stats)) / (seconds * 1e9), e2e_format("%s: each thread has its own CPU", what),
          "%s is off by %+.2f%%", workers[worst_at].name, 100 * worst);
    profile_free(&p);
}

#ifdef _WIN32 /* the steps of its clocks count for less */
enum { SECONDS = 2 };
#else
enum { SECONDS = 1 };
#endif

int main(void)
{
    int n = cores();
    run("one thread, 100 Hz", 100, 1, 2, false);
    run("one thread, 1000 Hz", 1000, 1, SECONDS, false);
    run("one thread, 5000 Hz", 5000, 1, SECONDS, false);
    run("threads = cores, 1000 Hz", 1000, n, SECONDS, false);
    run("threads = cores, 5000 Hz", 5000, n, SECONDS, false);
    run("threads = 4 x cores, 1000 Hz", 1000, 4 * n, SECONDS, false);
    run("two threads on one core, 100 Hz", 100, 2, 2, true);
    run("two threads on one core, 1000 Hz", 1000, 2, SECONDS, true);
    return e2e_done();
}
