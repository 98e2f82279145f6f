/* timer.c: what a kernel timer can do: one timer for each thread on its CPU clock, with a handler
   that only notes the program counter. Not a profiler: a measure of the trigger. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include "agent.h"

enum { TIMERS = 1024, PCS = 1 << 20 };

static struct itimerspec period;
static timer_t timers[TIMERS];
static uint32_t timer_count, pc_count;
static uintptr_t pcs[PCS];
static char file[4096];
static int running;

static void handler(int number, siginfo_t *info, void *context)
{
    uint32_t at = __atomic_fetch_add(&pc_count, 1, __ATOMIC_RELAXED);
    (void)number, (void)info;
    if (at < PCS) pcs[at] = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
}

static void set_all(int on)
{
    static const struct itimerspec never;
    running = on;
    for (uint32_t i = 0; i < timer_count && i < TIMERS; i++) timer_settime(timers[i], 0, on ? &period : &never, NULL);
}

void agent_thread(void)
{
    struct sigevent event;
    uint32_t at;
    if (!period.it_interval.tv_sec && !period.it_interval.tv_nsec) return;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGURG;
#ifdef sigev_notify_thread_id
    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
#else
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
#endif
    at = __atomic_fetch_add(&timer_count, 1, __ATOMIC_RELAXED);
    if (at >= TIMERS || timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timers[at])) abort();
    if (running) timer_settime(timers[at], 0, &period, NULL);
}

int agent_begin(int hz, const char *path)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    if (sigaction(SIGURG, &action, NULL)) return -1;
    snprintf(file, sizeof file, "%s", path ? path : "");
    period.it_interval.tv_sec = hz == 1;
    period.it_interval.tv_nsec = hz == 1 ? 0 : 1000000000 / hz;
    period.it_value = period.it_interval;
    running = 1;
    agent_thread();
    return 0;
}

void agent_pause(void) { set_all(0); }

void agent_resume(void) { set_all(1); }

/* One address a line. */
int agent_end(char *json, size_t size)
{
    FILE *out = *file ? fopen(file, "w") : NULL;
    set_all(0);
    for (uint32_t i = 0; out && i < pc_count && i < PCS; i++) fprintf(out, "%llx\n", (unsigned long long)pcs[i]);
    if (out) fclose(out);
    snprintf(json, size, "\"samples\": %u", pc_count);
    return 0;
}

uint64_t agent_cpu(void) { return 0; }
