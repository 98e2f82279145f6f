/* workloads.c: programs whose truth is known, run by bench.py under each profiler. Each prints one
   line of JSON: what is true, and what the profiler says of itself.

     busy THREADS SECONDS          threads that never sleep
     fair THREADS SECONDS          the same, each with a root function of its own (at most 16)
     shares SECONDS                eight functions that get 40, 25, 15, 10, 5, 3, 1.5 and 0.5%
     bursts A_US B_US NAP_US SECONDS   burst_a, nap, burst_b, nap
     aligned SECONDS               aligned_0..3, each only in its own quarter of every 4 ms
     recursion DEPTH SECONDS       a function that calls itself DEPTH times
     malloc ROUNDS / syscall ROUNDS  fixed work in the allocator / in the kernel
     cost PAIRS THREADS DEPTH MS   fixed work in pairs of blocks: profile paused, running
     latency ROUNDS                how long begin and end take, and what memory the profiler takes
     distinct STACKS SECONDS       as many different stacks */
#include <fcntl.h>
#include <sys/resource.h>
#include "workload.h"

static char truth[65536];

/* ---- busy, fair ---- */

typedef struct {
    pthread_t thread;
    pthread_barrier_t *barrier;
    uint64_t until, cpu, a, b;
    long rounds;
    int number, depth;
} worker;

static worker workers[1024];

NOINLINE static uint64_t busy_loop(long rounds)
{
    uint64_t x = spin(1, rounds);
    NO_TAIL();
    return x;
}

static inline __attribute__((always_inline)) void *busy_body(worker *w, uint64_t seed)
{
    uint64_t before, x = seed;
    bench_thread();
    before = thread_cpu();
    while (wall() < w->until) x = spin(x, 100000);
    __asm__ volatile("" : : "r"(x));
    w->cpu = thread_cpu() - before;
    return NULL;
}

static void *busy_main(void *argument) { return busy_body((worker *)argument, 1); }

static double run_workers(int threads, double seconds, void *(*body)(void *))
{
    double cpu = 0;
    uint64_t until = wall() + (uint64_t)(seconds * 1e9);
    for (int i = 0; i < threads; i++) {
        workers[i].until = until;
        workers[i].number = i;
        if (pthread_create(&workers[i].thread, NULL, body, &workers[i])) exit(3);
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
        cpu += (double)workers[i].cpu / 1e9;
    }
    return cpu;
}

static int busy(int threads, double seconds)
{
    bench_start();
    snprintf(truth, sizeof truth, "\"cpu_s\": %.6f", run_workers(threads, seconds, busy_main));
    return bench_stop(truth);
}

#define FAIR(n) NOINLINE static void *fair_##n(void *w) { return busy_body((worker *)w, 1##n); }
FAIR(00) FAIR(01) FAIR(02) FAIR(03) FAIR(04) FAIR(05) FAIR(06) FAIR(07)
FAIR(08) FAIR(09) FAIR(10) FAIR(11) FAIR(12) FAIR(13) FAIR(14) FAIR(15)

static void *fair_main(void *argument)
{
    static void *(*const bodies[16])(void *) = {
        fair_00, fair_01, fair_02, fair_03, fair_04, fair_05, fair_06, fair_07,
        fair_08, fair_09, fair_10, fair_11, fair_12, fair_13, fair_14, fair_15 };
    void *result = bodies[((worker *)argument)->number % 16](argument);
    NO_TAIL();
    return result;
}

static int fair(int threads, double seconds)
{
    size_t at = 0;
    if (threads > 16) threads = 16;
    bench_start();
    run_workers(threads, seconds, fair_main);
    at += (size_t)snprintf(truth, sizeof truth, "\"functions\": {");
    for (int i = 0; i < threads; i++)
        at += (size_t)snprintf(truth + at, sizeof truth - at, "%s\"fair_%02d\": %.6f", i ? ", " : "", i,
                               (double)workers[i].cpu / 1e9);
    snprintf(truth + at, sizeof truth - at, "}");
    return bench_stop(truth);
}

/* ---- shares ---- */

enum { SHARES = 8, QUANTUM = 200 };

/* Parts of QUANTUM: how often each is called in a round. */
static const int share_parts[SHARES] = { 80, 50, 30, 20, 10, 6, 3, 1 };

#define SHARE(n) \
    NOINLINE static uint64_t share_##n(long rounds) { uint64_t x = spin(n + 10, rounds); NO_TAIL(); return x; }
SHARE(0) SHARE(1) SHARE(2) SHARE(3) SHARE(4) SHARE(5) SHARE(6) SHARE(7)

static uint64_t (*const share_functions[SHARES])(long) = {
    share_0, share_1, share_2, share_3, share_4, share_5, share_6, share_7 };

/* All run the same loop equally often a call, so the calls tell the share of instructions; the
   thread's CPU clock, read around each run of calls, tells the share of time. */
static int shares(double seconds)
{
    uint64_t until, ns[SHARES] = { 0 }, calls[SHARES] = { 0 }, random = 88172645463325252u;
    uint64_t total_ns = 0, total_calls = 0;
    long rounds = spin_calibrate() * 20; /* 20 us */
    size_t at = 0;
    bench_start();
    until = wall() + (uint64_t)(seconds * 1e9);
    while (wall() < until) {
        for (int i = 0; i < QUANTUM; i++) { /* in random order, a quantum in all */
            int pick = 0, left;
            uint64_t before;
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            left = (int)(random % QUANTUM);
            while (left >= share_parts[pick]) left -= share_parts[pick++];
            before = thread_cpu();
            share_functions[pick](rounds);
            ns[pick] += thread_cpu() - before;
            calls[pick]++;
        }
    }
    for (int i = 0; i < SHARES; i++) total_ns += ns[i], total_calls += calls[i];
    at += (size_t)snprintf(truth, sizeof truth, "\"functions\": {");
    for (int i = 0; i < SHARES; i++)
        at += (size_t)snprintf(truth + at, sizeof truth - at, "%s\"share_%d\": %.9f", i ? ", " : "", i, (double)ns[i] / 1e9);
    at += (size_t)snprintf(truth + at, sizeof truth - at, "}, \"instructions\": {");
    for (int i = 0; i < SHARES; i++)
        at += (size_t)snprintf(truth + at, sizeof truth - at, "%s\"share_%d\": %.6f", i ? ", " : "", i,
                               (double)calls[i] / (double)total_calls);
    snprintf(truth + at, sizeof truth - at, "}");
    return bench_stop(truth);
}

/* ---- bursts, aligned ---- */

#define BURST(name, seed)                                                                 \
    NOINLINE static uint64_t name(uint64_t ns)                                      \
    {                                                                               \
        uint64_t begin = thread_cpu(), now, x = seed;                               \
        do { x = spin(x, 200); now = thread_cpu(); } while (now - begin < ns);      \
        __asm__ volatile("" : : "r"(x));                                            \
        return now - begin;                                                         \
    }
BURST(burst_a, 1) BURST(burst_b, 2)
BURST(aligned_0, 3) BURST(aligned_1, 4) BURST(aligned_2, 5) BURST(aligned_3, 6)

static uint64_t burst_a_ns, burst_b_ns, nap_length;

static void *bursts_main(void *argument)
{
    worker *w = (worker *)argument;
    bench_thread();
    while (wall() < w->until) {
        w->a += burst_a(burst_a_ns);
        nap_until(wall() + nap_length);
        w->b += burst_b(burst_b_ns);
        nap_until(wall() + nap_length);
    }
    return NULL;
}

static int bursts(double a_us, double b_us, double nap_us, double seconds)
{
    burst_a_ns = (uint64_t)(a_us * 1e3);
    burst_b_ns = (uint64_t)(b_us * 1e3);
    nap_length = (uint64_t)(nap_us * 1e3);
    bench_start();
    run_workers(2, seconds, bursts_main);
    snprintf(truth, sizeof truth, "\"functions\": {\"burst_a\": %.9f, \"burst_b\": %.9f}",
             (double)(workers[0].a + workers[1].a) / 1e9, (double)(workers[0].b + workers[1].b) / 1e9);
    return bench_stop(truth);
}

/* A kernel that ticks every 4 ms (CONFIG_HZ=250) finds at most one of the four at work, always the
   same one; with 1000 ticks a second it finds none or all of them. */
static int aligned(double seconds)
{
    static uint64_t (*const functions[4])(uint64_t) = { aligned_0, aligned_1, aligned_2, aligned_3 };
    uint64_t ns[4] = { 0 }, until, slot;
    bench_start();
    until = wall() + (uint64_t)(seconds * 1e9);
    for (slot = wall() / 1000000u + 2; wall() < until; slot++) {
        nap_until(slot * 1000000u + 300000u);
        if (wall() > slot * 1000000u + 400000u) { /* woken too late: it would run into the next quarter */
            slot = wall() / 1000000u + 1;
            continue;
        }
        ns[slot % 4] += functions[slot % 4](400000u);
    }
    snprintf(truth, sizeof truth, "\"functions\": {\"aligned_0\": %.9f, \"aligned_1\": %.9f, \"aligned_2\": %.9f, "
             "\"aligned_3\": %.9f}", (double)ns[0] / 1e9, (double)ns[1] / 1e9, (double)ns[2] / 1e9, (double)ns[3] / 1e9);
    return bench_stop(truth);
}

/* ---- recursion ---- */

NOINLINE static uint64_t recurse(int depth, long rounds)
{
    uint64_t x;
    char frame[48];
    __asm__ volatile("" : : "r"(frame) : "memory");
    x = depth > 0 ? recurse(depth - 1, rounds) : busy_loop(rounds);
    NO_TAIL();
    return x + (uint64_t)depth;
}

NOINLINE static uint64_t recursion_root(int depth, long rounds)
{
    uint64_t x = recurse(depth, rounds);
    NO_TAIL();
    return x;
}

static int recursion(int depth, double seconds)
{
    uint64_t until, cpu;
    bench_start();
    until = wall() + (uint64_t)(seconds * 1e9);
    cpu = thread_cpu();
    while (wall() < until) recursion_root(depth, 1000000);
    snprintf(truth, sizeof truth, "\"cpu_s\": %.6f, \"root\": \"recursion_root\"", (double)(thread_cpu() - cpu) / 1e9);
    return bench_stop(truth);
}

/* ---- malloc, syscall ---- */

NOINLINE static uint64_t allocate(uint64_t *random)
{
    static void *blocks[4096];
    for (int i = 0; i < 1000; i++) {
        uint32_t at;
        size_t size;
        *random ^= *random << 13, *random ^= *random >> 7, *random ^= *random << 17;
        at = (uint32_t)(*random % 4096);
        size = (size_t)(*random >> 40) % ((*random >> 20) % 16 ? 512 : 65536) + 1;
        free(blocks[at]);
        blocks[at] = malloc(size);
        if (blocks[at]) memset(blocks[at], 1, size < 64 ? size : 64);
    }
    return *random;
}

NOINLINE static uint64_t call_kernel(int file)
{
    char buffer[64];
    uint64_t x = 0;
    for (int i = 0; i < 1000; i++) {
        if (pread(file, buffer, sizeof buffer, (off_t)(i * 64)) > 0) x += (unsigned char)buffer[0];
        x += (uint64_t)lseek(file, i, SEEK_SET);
    }
    return x;
}

NOINLINE static uint64_t work_root(bool kernel, int rounds)
{
    uint64_t random = 88172645463325252u, x = 0;
    int file = kernel ? open("/proc/self/exe", O_RDONLY) : -1;
    for (int i = 0; i < rounds; i++) x += kernel ? call_kernel(file) : allocate(&random);
    if (file >= 0) close(file);
    return x;
}

static int fixed(bool kernel, int rounds)
{
    uint64_t cpu;
    bench_start();
    cpu = thread_cpu();
    work_root(kernel, rounds);
    snprintf(truth, sizeof truth, "\"cpu_s\": %.6f, \"root\": \"work_root\"", (double)(thread_cpu() - cpu) / 1e9);
    return bench_stop(truth);
}

/* ---- cost ---- */

static void *cost_main(void *argument)
{
    worker *w = (worker *)argument;
    bench_thread();
    for (;;) {
        pthread_barrier_wait(w->barrier); /* begin */
        if (!w->rounds) return NULL;
        recursion_root(w->depth, w->rounds);
        pthread_barrier_wait(w->barrier); /* done */
    }
}

static uint64_t all_cpu(void) { return process_cpu() + bench_cpu(); }

/* One block: the CPU and the wall time of fixed work in all threads. */
static void cost_block(int threads, pthread_barrier_t *barrier, long rounds, uint64_t out[2])
{
    for (int i = 0; i < threads; i++) workers[i].rounds = rounds;
    out[0] = all_cpu();
    out[1] = wall();
    pthread_barrier_wait(barrier);
    pthread_barrier_wait(barrier);
    out[0] = all_cpu() - out[0];
    out[1] = wall() - out[1];
}

/* Blocks in turns with the profile paused and running, the order changing from pair to pair: the
   speed of the machine drifts more in a second than what is measured here. Before each block a short
   one, for what turning the profile on costs is not meant. */
static int cost(int pairs, int threads, int depth, double ms)
{
    pthread_barrier_t barrier;
    long rounds = (long)((double)spin_calibrate() * 1e3 * ms);
    uint64_t resumed_ns = 0, resumed_at;
    pthread_barrier_init(&barrier, NULL, (unsigned)threads + 1);
    bench_start();
    resumed_at = wall();
    for (int i = 0; i < threads; i++) {
        workers[i].barrier = &barrier;
        workers[i].depth = depth;
        if (pthread_create(&workers[i].thread, NULL, cost_main, &workers[i])) return 3;
    }
    for (int i = 0; i < 10; i++) {
        uint64_t unused[2];
        cost_block(threads, &barrier, rounds, unused);
    }
    bench_pause();
    resumed_ns += wall() - resumed_at;
    printf("{\"pairs\": [");
    for (int pair = 0; pair < pairs; pair++) {
        uint64_t got[2][2], unused[2];
        for (int turn = 0; turn < 2; turn++) {
            int with = (turn + pair) % 2;
            if (with) {
                bench_resume();
                resumed_at = wall();
            }
            cost_block(threads, &barrier, rounds / 10 + 1, unused);
            cost_block(threads, &barrier, rounds, got[with]);
            if (with) {
                resumed_ns += wall() - resumed_at;
                bench_pause();
            }
        }
        printf("%s[%llu, %llu, %llu, %llu]", pair ? ", " : "", (unsigned long long)got[0][0], (unsigned long long)got[1][0],
               (unsigned long long)got[0][1], (unsigned long long)got[1][1]);
    }
    bench_resume();
    for (int i = 0; i < threads; i++) workers[i].rounds = 0;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < threads; i++) pthread_join(workers[i].thread, NULL);
    {
        char json[1024] = "";
        int result = bench_end(json, sizeof json);
        printf("], \"resumed_s\": %.6f%s%s}\n", (double)resumed_ns / 1e9, *json ? ", " : "", json);
        return result ? 3 : 0;
    }
}

/* ---- latency and memory ---- */

/* KB that the process has touched: the second number in statm, in pages. */
static long resident_kb(void)
{
    long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%ld %ld", &total, &resident) != 2) resident = 0;
    if (file) fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static int latency(int rounds)
{
    const char *output = getenv("BENCH_OUTPUT"), *hz = getenv("BENCH_HZ");
    char json[1024] = "";
    long begin_kb, running_kb = 0;
    bench_load();
    busy_loop(10000000);
    begin_kb = resident_kb();
    printf("{\"begin_us\": [");
    for (int i = 0; i < rounds; i++) {
        uint64_t before = wall();
        if (bench_begin(hz ? atoi(hz) : 100, output)) return 3;
        printf("%s%.1f", i ? ", " : "", (double)(wall() - before) / 1e3);
        recursion_root(30, spin_calibrate() * 200000);
        running_kb = resident_kb();
        before = wall();
        if (bench_end(json, sizeof json)) return 3;
        workers[i].cpu = wall() - before;
    }
    printf("], \"end_us\": [");
    for (int i = 0; i < rounds; i++) printf("%s%.1f", i ? ", " : "", (double)workers[i].cpu / 1e3);
    printf("], \"memory_kb\": %ld%s%s}\n", running_kb - begin_kb, *json ? ", " : "", json);
    return 0;
}

/* ---- distinct stacks ---- */

NOINLINE static uint64_t branch_0(uint64_t path, int left, long rounds);
NOINLINE static uint64_t branch_1(uint64_t path, int left, long rounds);

/* The bits of `path` decide which of the two is called at each level: 2^levels stacks. */
#define BRANCH(n)                                                                     \
    NOINLINE static uint64_t branch_##n(uint64_t path, int left, long rounds)         \
    {                                                                                 \
        uint64_t x;                                                                   \
        if (!left) x = busy_loop(rounds);                                             \
        else if (path & 1) x = branch_1(path >> 1, left - 1, rounds);                 \
        else x = branch_0(path >> 1, left - 1, rounds);                               \
        NO_TAIL();                                                                    \
        return x + n;                                                                 \
    }
BRANCH(0) BRANCH(1)

static int distinct(long stacks, double seconds)
{
    uint64_t until, cpu, path = 0;
    long rounds = spin_calibrate() * 10;
    int levels = 0;
    while ((1L << levels) < stacks) levels++;
    bench_start();
    until = wall() + (uint64_t)(seconds * 1e9);
    cpu = thread_cpu();
    while (wall() < until) {
        path = (path * 6364136223846793005u + 1442695040888963407u);
        branch_0((path >> 20) % (uint64_t)stacks, levels, rounds);
    }
    snprintf(truth, sizeof truth, "\"cpu_s\": %.6f, \"resident_kb\": %ld", (double)(thread_cpu() - cpu) / 1e9, resident_kb());
    return bench_stop(truth);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    double v[4] = { 0 };
    for (int i = 2; i < argc && i < 6; i++) v[i - 2] = atof(argv[i]);
    if (v[0] < 0 || v[1] < 0) return 2;
    if (strcmp(what, "busy") == 0 && argc == 4) return busy(v[0] > 1024 ? 1024 : (int)v[0], v[1]);
    if (strcmp(what, "fair") == 0 && argc == 4) return fair((int)v[0], v[1]);
    if (strcmp(what, "shares") == 0 && argc == 3) return shares(v[0]);
    if (strcmp(what, "bursts") == 0 && argc == 6) return bursts(v[0], v[1], v[2], v[3]);
    if (strcmp(what, "aligned") == 0 && argc == 3) return aligned(v[0]);
    if (strcmp(what, "recursion") == 0 && argc == 4) return recursion((int)v[0], v[1]);
    if (strcmp(what, "malloc") == 0 && argc == 3) return fixed(false, (int)v[0]);
    if (strcmp(what, "syscall") == 0 && argc == 3) return fixed(true, (int)v[0]);
    if (strcmp(what, "cost") == 0 && argc == 6) return cost((int)v[0], v[1] > 512 ? 512 : (int)v[1], (int)v[2], v[3]);
    if (strcmp(what, "latency") == 0 && argc == 3) return latency(v[0] > 1024 ? 1024 : (int)v[0]);
    if (strcmp(what, "distinct") == 0 && argc == 4) return distinct((long)v[0], v[1]);
    fprintf(stderr, "see the beginning of workloads.c\n");
    return 2;
}
