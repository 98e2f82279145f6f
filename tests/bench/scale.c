/* scale.c: sizes that cannot be waited for.

     scale table           1 to 1,000,000 distinct stacks in tables that hold them, or do not: what an
                           insert costs, how long writing takes, what the profile says was lost
     scale hour [SECONDS]  a profile of an hour at 100 Hz, with clocks that run 40 times too fast

   Each prints lines of JSON, and exits with 1 if a sum is wrong. All clocks, and the time to which the
   sampler sleeps, go through the macros below. Not so what the handler asks the kernel about threads
   that were pushed off their CPU; there are few of them, with as many threads as cores. */
#define _GNU_SOURCE
#define clock_gettime bench_clock
#define syscall bench_syscall
#define CPROF_IMPLEMENTATION
#include "cprof.h"

static uint64_t speed = 1;

long real_syscall(long number, ...) __asm__("syscall");

int bench_clock(clockid_t id, struct timespec *t)
{
    long result = real_syscall(SYS_clock_gettime, id, t);
    uint64_t ns = ((uint64_t)t->tv_sec * 1000000000u + (uint64_t)t->tv_nsec) * speed;
    if (result == 0) {
        t->tv_sec = (time_t)(ns / 1000000000u);
        t->tv_nsec = (long)(ns % 1000000000u);
    }
    return (int)result;
}

long bench_syscall(long number, ...)
{
    va_list args;
    uintptr_t a[6];
    struct timespec real;
    va_start(args, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(args, uintptr_t);
    va_end(args);
    if (number == SYS_futex && a[3]) {
        const struct timespec *t = (const struct timespec *)a[3];
        uint64_t ns = ((uint64_t)t->tv_sec * 1000000000u + (uint64_t)t->tv_nsec) / speed;
        real.tv_sec = (time_t)(ns / 1000000000u);
        real.tv_nsec = (long)(ns % 1000000000u);
        a[3] = (uintptr_t)&real;
    }
    return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static long resident_kb(void)
{
    long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%ld %ld", &total, &resident) != 2) resident = 0;
    if (file) fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* What a written profile adds up to: lines, their sum, and [lost]. */
static void sums(const char *path, unsigned long long *lines, unsigned long long *sum, unsigned long long *lost)
{
    static char line[1 << 16];
    FILE *file = fopen(path, "r");
    *lines = *sum = *lost = 0;
    while (file && fgets(line, sizeof line, file)) {
        const char *space = strrchr(line, ' ');
        unsigned long long count = space ? strtoull(space, NULL, 10) : 0;
        if (strstr(line, "[cprof];[lost]")) *lost += count;
        else if (!strstr(line, "[cprof];")) ++*lines, *sum += count;
    }
    if (file) fclose(file);
}

/* Books stacks as the sampler would: 20 frames of this program's code, each stack one period. */
static int table(int stacks, int room)
{
    const char *path = "scale.folded";
    cprof_desc desc;
    cprofi_session *s;
    cprofi_thread *t;
    unsigned long long lines, sum, lost;
    uint64_t before, after, begun, period;
    double cpu_before;
    bool right;
    memset(&desc, 0, sizeof desc);
    desc.hz = 100;
    desc.max_stacks = room;
    desc.output = path;
    desc.quiet = true;
    if (cprof_start(&desc) != CPROF_OK) return 1;
    cprof_pause();
    cprof_reset();
    s = cprofi.session;
    period = s->period;
    cprofi_lock(s);
    t = &s->threads[s->live[0]];
    cpu_before = (double)resident_kb();
    before = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < stacks; i++) {
        uint32_t bits = (uint32_t)i, entry;
        for (uint32_t k = 0; k < 20; k++, bits >>= 1) /* two functions for each bit, and different places in them */
            s->keys[k] = cprofi_key(s, (uintptr_t)(bits & 1 ? (uintptr_t)sums : (uintptr_t)clock_ns) + 4 + k);
        entry = cprofi_table_add(&s->table, (uint32_t)(t - s->threads), s->keys, 20, 0);
        t->cpu = t->window_cpu + ((uint64_t)t->window_count + 1) * period;
        cprofi_window_add(s, t, entry, (double)period);
    }
    after = clock_ns(CLOCK_MONOTONIC);
    cprofi_unlock(s);
    begun = clock_ns(CLOCK_MONOTONIC);
    if (cprof_stop() != CPROF_OK) return 1;
    begun = clock_ns(CLOCK_MONOTONIC) - begun;
    sums(path, &lines, &sum, &lost);
    unlink(path);
    right = sum + lost + 2 >= (unsigned long long)stacks && sum + lost <= (unsigned long long)stacks + 2 &&
            lost == (unsigned long long)(stacks > room ? stacks - room : 0);
    printf("{\"stacks\": %d, \"room\": %d, \"book_ns\": %.0f, \"write_s\": %.3f, \"lines\": %llu, \"periods\": %llu, "
           "\"lost\": %llu, \"resident_kb\": %.0f, \"right\": %s}\n", stacks, room, (double)(after - before) / stacks,
           (double)begun / 1e9, lines, sum, lost, (double)resident_kb() - cpu_before, right ? "true" : "false");
    return right ? 0 : 1;
}

/* ---- an hour ---- */

static volatile bool quit;
static uint64_t shares[2];

#define PART(n)                                                            \
    __attribute__((noinline)) static void part_##n(uint64_t ns)            \
    {                                                                      \
        uint64_t begin = clock_ns(CLOCK_THREAD_CPUTIME_ID), now;           \
        do now = clock_ns(CLOCK_THREAD_CPUTIME_ID); while (now - begin < ns); \
        __atomic_fetch_add(&shares[n], now - begin, __ATOMIC_RELAXED);     \
    }
PART(0) PART(1)

static void *hour_main(void *argument)
{
    while (!quit) {
        part_0(75 * 1000000u);
        part_1(25 * 1000000u);
    }
    return argument;
}

static int hour(double seconds)
{
    enum { THREADS = 2 };
    static char line[1 << 16];
    cprof_desc desc;
    cprof_stats stats;
    pthread_t thread[THREADS];
    uint64_t begin;
    double sum[2] = { 0 }, truth, found, weight;
    long early_kb = 0, late_kb;
    FILE *file;
    bool right;
    speed = 40;
    memset(&desc, 0, sizeof desc);
    desc.hz = 100;
    desc.output = "scale.folded";
    desc.quiet = true;
    if (cprof_start(&desc) != CPROF_OK) return 1;
    for (int i = 0; i < THREADS; i++) if (pthread_create(&thread[i], NULL, hour_main, NULL)) return 1;
    begin = clock_ns(CLOCK_MONOTONIC);
    while ((double)(clock_ns(CLOCK_MONOTONIC) - begin) < seconds * 1e9) {
        usleep(100000);
        if (!early_kb && (double)(clock_ns(CLOCK_MONOTONIC) - begin) > seconds * 1e8) early_kb = resident_kb();
    }
    late_kb = resident_kb();
    quit = true;
    for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
    if (cprof_stop() != CPROF_OK) return 1;
    cprof_get_stats(&stats);
    file = fopen("scale.folded", "r");
    while (file && fgets(line, sizeof line, file))
        for (int i = 0; i < 2; i++)
            if (strstr(line, i ? ";part_1" : ";part_0")) sum[i] += strtod(strrchr(line, ' '), NULL);
    if (file) fclose(file);
    unlink("scale.folded");
    truth = (double)shares[0] / (double)(shares[0] + shares[1]);
    found = sum[0] / (sum[0] + sum[1]);
    weight = (double)(stats.weight_ns + stats.unsampled_ns) / (double)(stats.cpu_ns - stats.sampler_cpu_ns);
    right = found - truth < 0.02 && truth - found < 0.02 && weight > 0.999 && weight < 1.001;
    printf("{\"profiled_s\": %.0f, \"cpu_s\": %.0f, \"samples\": %llu, \"hz\": %.1f, \"weight_and_unsampled\": %.5f, \"unsampled\": %.5f, "
           "\"share\": %.4f, \"true_share\": %.4f, \"stacks\": %llu, \"grown_kb\": %ld, \"right\": %s}\n",
           (double)stats.duration_ns / 1e9, (double)stats.cpu_ns / 1e9, (unsigned long long)stats.samples, stats.hz_achieved,
           weight, (double)stats.unsampled_ns / (double)stats.cpu_ns, found, truth, (unsigned long long)stats.unique_stacks,
           late_kb - early_kb, right ? "true" : "false");
    return right ? 0 : 1;
}

int main(int argc, char **argv)
{
    int wrong = 0;
    if (argc >= 2 && strcmp(argv[1], "hour") == 0) return hour(argc > 2 ? atof(argv[2]) : 3600);
    if (argc != 2 || strcmp(argv[1], "table") != 0) return 2;
    for (int stacks = 1; stacks <= 1000000; stacks *= 10) {
        wrong |= table(stacks, 16384);
        if (stacks > 16384) wrong |= table(stacks, 1048576);
    }
    return wrong;
}
