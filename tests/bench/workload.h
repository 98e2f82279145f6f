/* workload.h: what the workloads share: the profiler they are run under, clocks, loops of known
   length. With BENCH_LINKED the agent is linked in; else it is the shared object that BENCH_AGENT
   names, or none. */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "agents/agent.h"

#define NOINLINE __attribute__((noinline, noclone))
#ifdef __clang__
#undef NOINLINE
#define NOINLINE __attribute__((noinline))
#endif

/* Keeps a call from becoming a jump. */
#define NO_TAIL() __asm__ volatile("" ::: "memory")

/* ---- the agent ---- */

#ifdef BENCH_LINKED
static int (*const bench_begin)(int, const char *) = agent_begin;
static int (*const bench_end)(char *, size_t) = agent_end;
static void (*const bench_pause)(void) = agent_pause;
static void (*const bench_resume)(void) = agent_resume;
static uint64_t (*const bench_cpu)(void) = agent_cpu;
static void (*const bench_thread)(void) = agent_thread;
static inline void bench_load(void) {}
#else
#include <dlfcn.h>

static int none_begin(int hz, const char *path) { (void)hz, (void)path; return 0; }
static int none_end(char *json, size_t size) { if (size) *json = 0; return 0; }
static void none_void(void) {}
static uint64_t none_cpu(void) { return 0; }

static int (*bench_begin)(int, const char *) = none_begin;
static int (*bench_end)(char *, size_t) = none_end;
static void (*bench_pause)(void) = none_void;
static void (*bench_resume)(void) = none_void;
static uint64_t (*bench_cpu)(void) = none_cpu;
static void (*bench_thread)(void) = none_void;

static inline void bench_load(void)
{
    const char *path = getenv("BENCH_AGENT");
    struct { const char *name; void *at; } wanted[] = {
        { "agent_begin", &bench_begin }, { "agent_end", &bench_end }, { "agent_pause", &bench_pause },
        { "agent_resume", &bench_resume }, { "agent_cpu", &bench_cpu }, { "agent_thread", &bench_thread } };
    void *library;
    if (!path || !*path) return;
    library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(3);
    }
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = dlsym(library, wanted[i].name);
        if (!found) exit(3);
        memcpy(wanted[i].at, &found, sizeof found);
    }
}
#endif

static inline void bench_start(void)
{
    const char *hz = getenv("BENCH_HZ"), *output = getenv("BENCH_OUTPUT");
    bench_load();
    if (bench_begin(hz ? atoi(hz) : 100, output && *output ? output : NULL)) {
        fprintf(stderr, "the profiler does not start\n");
        exit(3);
    }
}

/* Ends the profile, and prints what the workload knows (members of a JSON object) and what the
   profiler says. */
static inline int bench_stop(const char *truth)
{
    char json[1024] = "";
    int result = bench_end(json, sizeof json);
    printf("{%s%s%s}\n", truth, *truth && *json ? ", " : "", json);
    return result ? 3 : 0;
}

/* ---- clocks ---- */

static inline uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t thread_cpu(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }
static inline uint64_t process_cpu(void) { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }
static inline uint64_t wall(void) { return clock_ns(CLOCK_MONOTONIC); }

static inline void nap_until(uint64_t ns)
{
    struct timespec t = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {}
}

/* ---- work ---- */

static inline __attribute__((always_inline)) uint64_t spin(uint64_t x, long rounds)
{
    for (long i = 0; i < rounds; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}

/* Rounds of spin in a microsecond of CPU, about. */
static inline long spin_calibrate(void)
{
    uint64_t before, after, x = 1;
    long rounds = 1000;
    do {
        rounds *= 2;
        before = thread_cpu();
        x = spin(x, rounds);
        after = thread_cpu();
    } while (after - before < 20000000u);
    __asm__ volatile("" : : "r"(x));
    return rounds * 1000 / (long)(after - before) + 1;
}

#endif
