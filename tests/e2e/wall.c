/* wall: in wall-clock mode every thread weighs the time that passes, a sleeping one on the stack it
   sleeps in, and still none is woken. */
#include "e2e.h"
#include <poll.h>

BURN(fn_busy)

static volatile bool quit;
static volatile pid_t tid_sleep, tid_poll, tid_cond;
static volatile int interrupted;
static int pipe_fd[2];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;

E2E_NOINLINE static void sleep_here(uint64_t ns)
{
    if (!nap_ns(ns)) interrupted++;
    E2E_NO_TAIL();
}

static void *sleep_main(void *argument)
{
    (void)argument;
    name_thread("w-sleep");
    tid_sleep = (pid_t)syscall(SYS_gettid);
    sleep_here(4000000000u);
    E2E_NO_TAIL();
    return NULL;
}

E2E_NOINLINE static void poll_here(void)
{
    struct pollfd p = { pipe_fd[0], POLLIN, 0 };
    if (poll(&p, 1, 60000) < 0) interrupted++;
    E2E_NO_TAIL();
}

static void *poll_main(void *argument)
{
    (void)argument;
    name_thread("w-poll");
    tid_poll = (pid_t)syscall(SYS_gettid);
    poll_here();
    E2E_NO_TAIL();
    return NULL;
}

E2E_NOINLINE static void wait_here(void)
{
    pthread_mutex_lock(&mutex);
    while (!quit) pthread_cond_wait(&condition, &mutex);
    pthread_mutex_unlock(&mutex);
    E2E_NO_TAIL();
}

static void *cond_main(void *argument)
{
    (void)argument;
    name_thread("w-cond");
    tid_cond = (pid_t)syscall(SYS_gettid);
    wait_here();
    E2E_NO_TAIL();
    return NULL;
}

static void *busy_main(void *argument)
{
    (void)argument;
    name_thread("w-busy");
    while (!quit) fn_busy(1000000);
    E2E_NO_TAIL();
    return NULL;
}

/* The share of a thread's stacks that have both its start function and the given frame. */
static double share(const e2e_profile *p, const char *thread, const char *start, const char *frame)
{
    uint64_t sum = 0, all = profile_thread(p, thread);
    for (int i = 0; i < p->stacks; i++) {
        const e2e_stack *s = &p->stack[i];
        bool found = !frame;
        if (!stack_of(s, thread) || !stack_has(s, start)) continue;
        for (int k = 1; frame && k < s->frames; k++) if (strstr(s->frame[k], frame)) found = true;
        if (found) sum += s->count;
    }
    return all ? (double)sum / (double)all : 0;
}

int main(void)
{
    enum { HZ = 200 };
    static const char *const names[] = { "w-sleep", "w-poll", "w-cond", "w-busy" };
    cprof_desc desc;
    e2e_profile p;
    pthread_t thread[4];
    long before[3], after[3];
    uint64_t start, elapsed;
    char byte = 0;

    if (pipe(pipe_fd)) return 1;
    if (pthread_create(&thread[0], NULL, sleep_main, NULL) || pthread_create(&thread[1], NULL, poll_main, NULL)
        || pthread_create(&thread[2], NULL, cond_main, NULL) || pthread_create(&thread[3], NULL, busy_main, NULL)) return 1;
    while (!tid_sleep || !tid_poll || !tid_cond) nap_ns(1000000);
    nap_ns(200000000);
    before[0] = e2e_switches(tid_sleep);
    before[1] = e2e_switches(tid_poll);
    before[2] = e2e_switches(tid_cond);

    memset(&desc, 0, sizeof desc);
    desc.hz = HZ;
    desc.clock = CPROF_WALL;
    desc.quiet = true;
    check_ok(cprof_start(&desc), "start");
    start = wall();
    nap_ns(2500000000u);
    elapsed = wall() - start;
    after[0] = e2e_switches(tid_sleep);
    after[1] = e2e_switches(tid_poll);
    after[2] = e2e_switches(tid_cond);
    check_ok(cprof_stop(), "stop");
    p = profile_take();

    for (int i = 0; i < 4; i++) {
        double found = (double)profile_thread(&p, names[i]) / HZ * 1e9;
        check(fabs(found / (double)elapsed - 1) < 0.03, e2e_format("%s weighs the time that passed", names[i]),
              "%.0f ms of %.0f ms", found / 1e6, (double)elapsed / 1e6);
    }
    for (int i = 0; i < 3; i++) {
        check(before[i] >= 0 && before[i] == after[i], e2e_format("%s never runs", names[i]),
              "%ld context switches", after[i] - before[i]);
    }
    check(share(&p, "w-sleep", "sleep_main", "nanosleep") > 0.98, "a sleeping thread is on its sleep stack", "%.1f%%",
          100 * share(&p, "w-sleep", "sleep_main", "nanosleep"));
    check(share(&p, "w-sleep", "sleep_main", "sleep_here") > 0.98, "with the function that called sleep", "%.1f%%",
          100 * share(&p, "w-sleep", "sleep_main", "sleep_here"));
    check(share(&p, "w-poll", "poll_main", "poll_here") > 0.98, "poll: the whole stack", "%.1f%%",
          100 * share(&p, "w-poll", "poll_main", "poll_here"));
    check(share(&p, "w-cond", "cond_main", "wait_here") > 0.98, "pthread_cond_wait: the whole stack", "%.1f%%",
          100 * share(&p, "w-cond", "cond_main", "wait_here"));
    check(share(&p, "w-busy", "busy_main", "fn_busy") > 0.95, "a busy thread is in its function", "%.1f%%",
          100 * share(&p, "w-busy", "busy_main", "fn_busy"));
    if (e2e_failures) profile_print(&p);
    profile_free(&p);

    quit = true;
    if (write(pipe_fd[1], &byte, 1) != 1) return 1;
    pthread_mutex_lock(&mutex);
    pthread_cond_broadcast(&condition);
    pthread_mutex_unlock(&mutex);
    for (int i = 0; i < 4; i++) pthread_join(thread[i], NULL);
    check(interrupted == 0, "no EINTR", "%d calls", interrupted);
    return e2e_done();
}
