/* wall: in wall-clock mode every thread weighs the time that passes, a sleeping one on the stack it
   sleeps in, and still none is woken. */
#include "e2e.h"
#ifdef _WIN32 /* its poll is for sockets; a pipe is waited for in read */
#define pipe(fds) _pipe(fds, 16, _O_BINARY)
#else
#include <poll.h>
#endif

BURN(fn_busy)

static volatile bool quit;
static volatile int tid[3];  /* of w-sleep, w-poll and w-cond */
static volatile int interrupted;
static int pipe_fd[2];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;

static int this_thread(void)
{
#ifdef _WIN32
    return (int)GetCurrentThreadId();
#else
    return (int)syscall(SYS_gettid);
#endif
}

E2E_NOINLINE static void sleep_here(uint64_t ns)
{
    if (!nap_ns(ns)) interrupted++;
    E2E_NO_TAIL();
}

static void *sleep_main(void *argument)
{
    (void)argument;
    name_thread("w-sleep");
    tid[0] = this_thread();
    sleep_here(4000000000u);
    E2E_NO_TAIL();
    return NULL;
}

E2E_NOINLINE static void poll_here(void)
{
#ifdef _WIN32
    char byte;
    if (read(pipe_fd[0], &byte, 1) != 1) interrupted++;
#else
    struct pollfd p = { pipe_fd[0], POLLIN, 0 };
    if (poll(&p, 1, 60000) < 0) interrupted++;
#endif
    E2E_NO_TAIL();
}

static void *poll_main(void *argument)
{
    (void)argument;
    name_thread("w-poll");
    tid[1] = this_thread();
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
    tid[2] = this_thread();
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

/* Has its name only when it has some samples, then sleeps, and is gone before the profile ends. */
static void *late_main(void *argument)
{
    uint64_t until = thread_cpu() + 100000000u;
    while (thread_cpu() < until) fn_busy(10000);
    name_thread("w-late");
    wait_ns(1000000000u);
    return argument;
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

/* No time is lost where a span ends between two looks. There is one thread, and it sleeps. */
static void test_ends(void)
{
    enum { SPANS = 20 };
    cprof_desc desc;
    cprof_stats stats;
    char directory[500], path[600];
    uint64_t begun, asleep, periods = 0, random = 1;
    memset(&desc, 0, sizeof desc);
    desc.hz = 20;
    desc.clock = CPROF_WALL;
    desc.quiet = true;
    if (!e2e_directory_make(directory, sizeof directory)) exit(2);
    snprintf(path, sizeof path, "%s/part.folded", directory);
    if (!check_ok(cprof_start(&desc), "start at 20 Hz") || !check_ok(cprof_pause(), "pause")) return;
    for (int i = 0; i < SPANS; i++) {
        cprof_resume();
        wait_ns(110000000);
        cprof_pause();
    }
    cprof_get_stats(&stats);
    check(fabs((double)stats.weight_ns / (double)stats.duration_ns - 1) < 0.12, "what follows the last look before a pause counts",
          "%.0f ms of %.0f ms", (double)stats.weight_ns / 1e6, (double)stats.duration_ns / 1e6);
    check_ok(cprof_reset(), "reset");
    cprof_resume();
    begun = wall();
    for (int i = 0; i < SPANS; i++) { /* numbers of periods are rounded up as often as down */
        e2e_profile p;
        wait_ns(e2e_jitter(&random, 150000000));
        check_ok(cprof_rotate(path, CPROF_AUTO), "rotate");
        if (!profile_read(path, &p)) exit(2);
        periods += p.count;
        profile_free(&p);
        e2e_delete(path);
    }
    asleep = wall() - begun;
    check(fabs((double)periods * 1e9 / desc.hz / (double)asleep - 1) < 0.1, "and before a rotation", "%.0f ms of %.0f ms",
          (double)periods * 1e3 / desc.hz, (double)asleep / 1e6);
    check_ok(cprof_stop(), "stop");
    e2e_directory_remove(directory);
}

/* Wakes up often, also while it is looked at. */
static void *napping_main(void *argument)
{
    name_thread("w-nap");
    while (!quit) nap_ns(100000);
    return argument;
}

/* Goes to sleep with every signal blocked, and perhaps with a request for its stack. */
static void *masked_main(void *argument)
{
    name_thread("w-mask");
    fn_busy(50000000);
#ifndef _WIN32
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
#endif
    fn_busy(10000000);
    wait_here();
    E2E_NO_TAIL();
    return argument;
}

int main(void)
{
    enum { HZ = 200 };
    static const char *const names[] = { "w-sleep", "w-poll", "w-cond", "w-busy", "w-nap", "w-mask" };
    cprof_desc desc;
    cprof_stats stats;
    e2e_profile p;
    pthread_t thread[7];
#ifndef _WIN32 /* which stops a thread to see where it is, and does not count switches */
    long before[3];
#endif
    uint64_t start, elapsed;
    char byte = 0;

    test_ends();
    if (pipe(pipe_fd)) return 1;
    if (pthread_create(&thread[0], NULL, sleep_main, NULL) || pthread_create(&thread[1], NULL, poll_main, NULL)
        || pthread_create(&thread[2], NULL, cond_main, NULL) || pthread_create(&thread[3], NULL, busy_main, NULL)
        || pthread_create(&thread[6], NULL, napping_main, NULL)) return 1;
    while (!tid[0] || !tid[1] || !tid[2]) nap_ns(1000000);
    nap_ns(200000000);
#ifndef _WIN32
    for (int i = 0; i < 3; i++) before[i] = e2e_switches(tid[i]);
#endif

    memset(&desc, 0, sizeof desc);
    desc.hz = HZ;
    desc.clock = CPROF_WALL;
    desc.quiet = true;
    check_ok(cprof_start(&desc), "start");
    start = wall();
    if (pthread_create(&thread[4], NULL, late_main, NULL) || pthread_create(&thread[5], NULL, masked_main, NULL)) return 1;
    wait_ns(2500000000u);
    elapsed = wall() - start;
#ifndef _WIN32
    for (int i = 0; i < 3; i++) {
        long after = e2e_switches(tid[i]);
        check(before[i] >= 0 && before[i] == after, e2e_format("%s never runs", names[i]), "%ld context switches", after - before[i]);
    }
#endif
    check_ok(cprof_stop(), "stop");
    p = profile_take();
    cprof_get_stats(&stats);

    for (int i = 0; i < 6; i++) {
        double found = (double)profile_thread(&p, names[i]) / HZ * 1e9;
        check(fabs(found / (double)elapsed - 1) < 0.03 + e2e_gap(&stats) / (double)elapsed, e2e_format("%s weighs the time that passed", names[i]),
              "%.0f ms of %.0f ms", found / 1e6, (double)elapsed / 1e6);
    }
    check(share(&p, "w-sleep", "sleep_main", E2E_SLEEP_FRAME) > 0.98, "a sleeping thread is on its sleep stack", "%.1f%%",
          100 * share(&p, "w-sleep", "sleep_main", E2E_SLEEP_FRAME));
    check(share(&p, "w-sleep", "sleep_main", "sleep_here") > 0.98, "with the function that called sleep", "%.1f%%",
          100 * share(&p, "w-sleep", "sleep_main", "sleep_here"));
    check(share(&p, "w-poll", "poll_main", "poll_here") > 0.98, "poll: the whole stack", "%.1f%%",
          100 * share(&p, "w-poll", "poll_main", "poll_here"));
    check(share(&p, "w-cond", "cond_main", "wait_here") > 0.98, "pthread_cond_wait: the whole stack", "%.1f%%",
          100 * share(&p, "w-cond", "cond_main", "wait_here"));
    check(share(&p, "w-busy", "busy_main", "fn_busy") > 0.95, "a busy thread is in its function", "%.1f%%",
          100 * share(&p, "w-busy", "busy_main", "fn_busy"));
    check(share(&p, "w-mask", "masked_main", "wait_here") > 0.7, "a thread that blocks signals and sleeps: the whole stack", "%.1f%%",
          100 * share(&p, "w-mask", "masked_main", "wait_here"));
    check(profile_thread(&p, "w-late") > HZ * 0.9, "a thread that got its name late has it when it slept ever since",
          "%llu periods", (unsigned long long)profile_thread(&p, "w-late"));
    if (e2e_failures) profile_print(&p);
    profile_free(&p);

    quit = true;
    if (write(pipe_fd[1], &byte, 1) != 1) return 1;
    pthread_mutex_lock(&mutex);
    pthread_cond_broadcast(&condition);
    pthread_mutex_unlock(&mutex);
    for (int i = 0; i < 7; i++) pthread_join(thread[i], NULL);
    check(interrupted == 0, "no EINTR", "%d calls", interrupted);
    return e2e_done();
}
