/* floor.c: the least that a sampler thread can do: it sleeps until the next instant and signals the
   first thread that registered, whose handler returns at once. No clock is read, no thread looked
   for. What this costs is the price of waking a thread and of interrupting another on this machine;
   no profiler that looks at instants of its own choosing can be cheaper. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "agent.h"

static pthread_t sampler;
static uint32_t target, paused, bell, quit;
static uint64_t period, looks, cpu_ns;

static void handler(int number) { (void)number; }

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *sampler_main(void *argument)
{
    uint64_t next = clock_ns(CLOCK_MONOTONIC);
    prctl(PR_SET_TIMERSLACK, 1);
    while (!__atomic_load_n(&quit, __ATOMIC_ACQUIRE)) {
        uint32_t rang = __atomic_load_n(&bell, __ATOMIC_ACQUIRE), who = __atomic_load_n(&target, __ATOMIC_ACQUIRE);
        struct timespec t;
        if (__atomic_load_n(&paused, __ATOMIC_ACQUIRE) || !who) {
            /* Without a time limit: the paused half of a pair must not pay for wakes too. */
            syscall(SYS_futex, &bell, 0 | 128, rang, NULL, NULL, 0); /* FUTEX_WAIT_PRIVATE */
            next = clock_ns(CLOCK_MONOTONIC);
            continue;
        }
        next += period;
        t.tv_sec = (time_t)(next / 1000000000u), t.tv_nsec = (long)(next % 1000000000u);
        syscall(SYS_futex, &bell, 9 | 128, rang, &t, NULL, 0xffffffffu);
        syscall(SYS_tgkill, getpid(), who, SIGURG);
        looks++;
    }
    cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    return argument;
}

int agent_begin(int hz, const char *path)
{
    (void)path;
    signal(SIGURG, handler);
    period = 1000000000u / (unsigned)hz;
    return pthread_create(&sampler, NULL, sampler_main, NULL) ? -1 : 0;
}

static void ring(void)
{
    __atomic_fetch_add(&bell, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &bell, 1 | 128, 1, NULL, NULL, 0); /* FUTEX_WAKE_PRIVATE */
}

static void set_paused(uint32_t on)
{
    __atomic_store_n(&paused, on, __ATOMIC_RELEASE);
    ring();
}

void agent_pause(void) { set_paused(1); }

void agent_resume(void) { set_paused(0); }

int agent_end(char *json, size_t size)
{
    __atomic_store_n(&quit, 1, __ATOMIC_RELEASE);
    set_paused(0);
    pthread_join(sampler, NULL);
    snprintf(json, size, "\"samples\": %llu, \"ticks\": %llu, \"sampler_s\": %.6f", (unsigned long long)looks,
             (unsigned long long)looks, (double)cpu_ns / 1e9);
    return 0;
}

uint64_t agent_cpu(void) { return 0; }

void agent_thread(void)
{
    uint32_t none = 0;
    if (__atomic_compare_exchange_n(&target, &none, (uint32_t)syscall(SYS_gettid), 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        ring();
}
