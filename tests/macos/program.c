/* A program for macOS that profiles itself: two threads that spend three times as much in `three` as in
   `one`, one that sleeps, one that comes and goes. Run on Linux by host.c; prints what cprof_stats says.

   program OUTPUT cpu|wall */
#define CPROF_IMPLEMENTATION
#include "cprof.h"

static volatile int over;
static volatile unsigned sink;

__attribute__((noinline)) static unsigned spin(unsigned n, unsigned x) {
    for (unsigned i = 0; i < n; i++) x = x * 1664525u + (x >> 7) + i;
    return x;
}

/* Inlined into its callers. */
static inline __attribute__((always_inline)) unsigned mixed(unsigned n) { return spin(n, sink) ^ spin(n, 7); }

__attribute__((noinline)) static void three(void) { sink += mixed(30000); }
__attribute__((noinline)) static void one(void) { sink += mixed(10000); }

/* Needs many registers, so that without frame pointers it has a use for rbp too. */
__attribute__((noinline)) static unsigned deep(unsigned n, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e) {
    unsigned x = a ^ sink, y = b + sink, z = c - sink;
    if (n) x += deep(n - 1, b, c, d, e, a);
    else {
        three();
        one();
    }
    sink += x + y * z + a + b * c + d * e;
    return x ^ y ^ z ^ a ^ b ^ c ^ d ^ e;
}

static void *worker(void *unused) {
    cprof_thread_name("worker");
    while (!over) sink += deep(5, 1, 2, 3, 4, 5);
    return unused;
}

static void *sleeper(void *unused) {
    cprof_thread_name("sleeper");
    while (!over) {
        struct timespec t = {0, 20000000};
        nanosleep(&t, NULL);
    }
    return unused;
}

static void *brief(void *unused) {
    sink += spin(1000000, 1);
    return unused;
}

int main(int argc, char **argv) {
    cprof_desc desc;
    cprof_stats stats;
    cprof_result result;
    pthread_t threads[3], short_lived;
    char text[400];
    uint64_t end;
    int n;
    memset(&desc, 0, sizeof desc);
    desc.hz = 500;
    desc.output = argc > 1 ? argv[1] : NULL;
    desc.clock = argc > 2 && strcmp(argv[2], "wall") == 0 ? CPROF_WALL : CPROF_CPU;
    result = cprof_start(&desc);
    if (result != CPROF_OK) return 2;
    pthread_create(&threads[0], NULL, worker, NULL);
    pthread_create(&threads[1], NULL, worker, NULL);
    pthread_create(&threads[2], NULL, sleeper, NULL);
    end = cprofi_os_now() + 2000000000u;
    memset(&stats, 0, sizeof stats);
    while (cprofi_os_now() < end || (stats.samples < 200 && cprofi_os_now() < end + 60000000000u)) {
        struct timespec t = {0, 10000000};
        nanosleep(&t, NULL);
        pthread_create(&short_lived, NULL, brief, NULL);
        pthread_join(short_lived, NULL);
        cprof_get_stats(&stats);
    }
    over = 1;
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    result = cprof_stop();
    cprof_get_stats(&stats);
    n = snprintf(text, sizeof text, "result %d samples %llu truncated %llu suspensions %llu threads %llu weight %llu unsampled %llu cpu %llu sampler %llu suspended %llu ticks %llu late %llu\n",
                 (int)result, (unsigned long long)stats.samples, (unsigned long long)stats.truncated,
                 (unsigned long long)stats.suspensions, (unsigned long long)stats.threads_seen,
                 (unsigned long long)(stats.weight_ns / 1000000), (unsigned long long)(stats.unsampled_ns / 1000000),
                 (unsigned long long)(stats.cpu_ns / 1000000), (unsigned long long)(stats.sampler_cpu_ns / 1000000),
                 (unsigned long long)(stats.suspended_ns / 1000000), (unsigned long long)stats.ticks,
                 (unsigned long long)(stats.late_ns / 1000));
    return write(1, text, (size_t)n) == n && result == CPROF_OK ? 0 : 3;
}
