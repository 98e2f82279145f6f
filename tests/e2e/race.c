/* race: everything at once, under ThreadSanitizer, which ends the program with an error if two threads
   touch something of cprof's without an order between them: threads at work with scopes, others that write,
   rotate, reset, pause, ask and name meanwhile; at 10,000 Hz.

       race [ROUNDS]     default 4, which is everything once; each takes some 2 s, several where the
                         machine is busy, for the names of ThreadSanitizer's own functions are looked up

   ThreadSanitizer keeps signals back until a thread calls into the C library, so these threads read
   clocks all the time. What it cannot do is told in README.md. It needs no suppressions. */
#define CPROF_IMPLEMENTATION
#include "cprof.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__has_feature) /* Clang */
#if __has_feature(thread_sanitizer)
#define RACE_SANITIZED
#endif
#elif defined(__SANITIZE_THREAD__)
#define RACE_SANITIZED
#endif

static int failed, quit;

static void check(int good, const char *name, unsigned long value)
{
    if (good) printf("ok - %s\n", name);
    else printf("not ok - %s: %lu\n", name, value);
    failed |= !good;
}

static int quits(void) { return __atomic_load_n(&quit, __ATOMIC_RELAXED); }

static void clocks(int times)
{
    struct timespec now;
    while (times-- > 0) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
}

static void *scoped(void *unused)
{
    unsigned number = 0;
    (void)unused;
    CPROF_THREAD_NAME("scoped");
    while (!quits()) {
        char name[32];
        snprintf(name, sizeof name, "scope %u", number++ % 50);
        CPROF_SCOPE_BEGIN(cprof_intern(name));
        clocks(50);
        CPROF_SCOPE_SET("inner");
        clocks(50);
        CPROF_SCOPE_END();
    }
    return NULL;
}

static void *short_lived(void *unused)
{
    (void)unused;
    clocks(2000);
    return NULL;
}

static bool take(void *user, const void *data, size_t size)
{
    (void)data;
    *(size_t *)user += size;
    return true;
}

static void *asks(void *unused)
{
    (void)unused;
    while (!quits()) {
        const struct timespec nap = {0, 3000000};
        cprof_stats stats;
        cprof_get_stats(&stats);
        cprof_pause();
        cprof_resume();
        nanosleep(&nap, NULL);
    }
    return NULL;
}

static void run(int rounds, uint64_t *samples)
{
    pthread_t threads[3], one;
    void *(*const mains[])(void *) = {scoped, scoped, asks};
    cprof_desc desc;
    cprof_stats stats;
    size_t size = 0;
    memset(&desc, 0, sizeof desc);
    desc.hz = 10000;
    desc.quiet = true;
    __atomic_store_n(&quit, 0, __ATOMIC_RELAXED);
    if (cprof_start(&desc) != CPROF_OK) return;
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, mains[i], NULL);
    for (int round = 0; round < rounds; round++) {
        clocks(3000);
        cprof_get_stats(&stats);
        if (round % 4 == 0) cprof_write("/dev/null", CPROF_PERF_SCRIPT);
        if (round % 4 == 1) cprof_write_to(take, &size, CPROF_PPROF);
        *samples += round % 4 >= 2 ? stats.samples : 0; /* these rounds forget them */
        if (round % 4 == 2) cprof_rotate("/dev/null", CPROF_FOLDED);
        if (round % 4 == 3) cprof_reset();
        if (pthread_create(&one, NULL, short_lived, NULL) == 0) pthread_join(one, NULL);
    }
    check(cprof_stop() == CPROF_OK && size > 0, "profiles are written meanwhile", (unsigned long)size);
    __atomic_store_n(&quit, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
    uint64_t samples = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
#ifndef RACE_SANITIZED
    printf("skip - everything at once: this compiler has no ThreadSanitizer\n");
    return 0;
#endif
    run(argc > 1 ? atoi(argv[1]) : 4, &samples);
    printf("# %lu samples\n", (unsigned long)samples);
    check(samples > 0, "samples arrive", (unsigned long)samples);
    return failed;
}
