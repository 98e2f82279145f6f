/* eintr: a sleeper is never woken. Threads that stay blocked in system calls while others are
   sampled at 5000 Hz see no EINTR and no early return, and the kernel's count of their context
   switches does not move. For a thread that wakes and sleeps 200 times a second the number of
   interrupted naps is reported beside that of a sampler built on thread CPU timers. */
#include "e2e.h"
#include <poll.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

BURN(fn_busy)

static volatile bool quit;
static volatile bool release_waiters;      /* set before anything that may wake a sleeper */

typedef struct sleeper {
    const char *name;
    void (*block)(struct sleeper *s);
    pthread_t thread;
    volatile pid_t tid;
    int error;                             /* errno of the call that came back */
    bool early;                            /* it came back before it was meant to */
} sleeper;

static int poll_pipe[2], read_pipe[2], epoll_pipe[2], listener;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static sem_t semaphore;

static void came_back(sleeper *s, bool failed)
{
    if (!release_waiters) s->early = true;
    if (failed) s->error = errno;
}

static void block_nanosleep(sleeper *s)
{
    struct timespec t = { 3, 0 };
    uint64_t start = wall();
    if (nanosleep(&t, NULL) != 0) s->error = errno;
    s->early = wall() - start < 3000000000u;
}

static void block_poll(sleeper *s)
{
    struct pollfd p = { poll_pipe[0], POLLIN, 0 };
    came_back(s, poll(&p, 1, 60000) < 0);
}

static void block_read(sleeper *s)
{
    char byte;
    came_back(s, read(read_pipe[0], &byte, 1) < 0);
}

static void block_epoll(sleeper *s)
{
    struct epoll_event event, out;
    int fd = epoll_create1(EPOLL_CLOEXEC);
    memset(&event, 0, sizeof event);
    event.events = EPOLLIN;
    epoll_ctl(fd, EPOLL_CTL_ADD, epoll_pipe[0], &event);
    came_back(s, epoll_wait(fd, &out, 1, 60000) < 0);
    close(fd);
}

static void block_cond(sleeper *s)
{
    pthread_mutex_lock(&mutex);
    pthread_cond_wait(&condition, &mutex);
    came_back(s, false);
    pthread_mutex_unlock(&mutex);
}

static void block_sem(sleeper *s)
{
    came_back(s, sem_wait(&semaphore) != 0);
}

static void block_accept(sleeper *s)
{
    int fd = accept(listener, NULL, NULL);
    came_back(s, fd < 0);
    if (fd >= 0) close(fd);
}

static sleeper sleepers[] = {
    { "nanosleep", block_nanosleep, 0, 0, 0, false },
    { "poll", block_poll, 0, 0, 0, false },
    { "read", block_read, 0, 0, 0, false },
    { "epoll_wait", block_epoll, 0, 0, 0, false },
    { "pthread_cond_wait", block_cond, 0, 0, 0, false },
    { "sem_wait", block_sem, 0, 0, 0, false },
    { "accept", block_accept, 0, 0, 0, false },
};
enum { SLEEPERS = sizeof sleepers / sizeof *sleepers };

static void *sleeper_main(void *argument)
{
    sleeper *s = (sleeper *)argument;
    name_thread(s->name);
    s->tid = (pid_t)syscall(SYS_gettid);
    s->block(s);
    return NULL;
}

static void *busy_main(void *argument)
{
    (void)argument;
    name_thread("busy");
    while (!quit) fn_busy(1000000);
    return NULL;
}

/* ---- the thread that wakes and sleeps ---- */

typedef struct { pthread_t thread; uint64_t until, naps, interrupted; bool timer; } napper;

static volatile unsigned long timer_hits;

static void on_timer(int sig)
{
    (void)sig;
    timer_hits++;
}

static void *napper_main(void *argument)
{
    napper *n = (napper *)argument;
    timer_t timer;
    name_thread("napper");
    if (n->timer) {
        struct sigevent event;
        struct itimerspec every = { { 0, 200000 }, { 0, 200000 } };
        clockid_t clock;
        memset(&event, 0, sizeof event);
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = SIGUSR2;
        event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
        pthread_getcpuclockid(pthread_self(), &clock);
        if (timer_create(clock, &event, &timer) != 0) return NULL;
        timer_settime(timer, 0, &every, NULL);
    }
    while (wall() < n->until) {
        fn_busy(200000);
        n->naps++;
        if (!nap_ns(4800000)) n->interrupted++;
    }
    if (n->timer) timer_delete(timer);
    return NULL;
}

static napper nap_run(bool timer)
{
    napper n;
    memset(&n, 0, sizeof n);
    n.timer = timer;
    n.until = wall() + 3000000000u;
    if (pthread_create(&n.thread, NULL, napper_main, &n)) exit(1);
    pthread_join(n.thread, NULL);
    return n;
}

int main(void)
{
    cprof_desc desc;
    cprof_stats stats;
    e2e_profile p;
    struct sockaddr_un address;
    struct sigaction action;
    pthread_t busy[2];
    long before[SLEEPERS];
    napper ours, theirs;
    int client;
    char byte = 0;

    if (pipe(poll_pipe) || pipe(read_pipe) || pipe(epoll_pipe) || sem_init(&semaphore, 0, 0)) return 1;
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "cprof-e2e-%d", (int)getpid());
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1)) return 1;

    for (int i = 0; i < 2; i++) if (pthread_create(&busy[i], NULL, busy_main, NULL)) return 1;
    for (int i = 0; i < SLEEPERS; i++) {
        if (pthread_create(&sleepers[i].thread, NULL, sleeper_main, &sleepers[i])) return 1;
    }
    for (int i = 0; i < SLEEPERS; i++) while (!sleepers[i].tid) nap_ns(1000000);
    nap_ns(300000000);                     /* all are blocked now */
    for (int i = 0; i < SLEEPERS; i++) before[i] = e2e_switches(sleepers[i].tid);

    memset(&desc, 0, sizeof desc);
    desc.hz = 5000;
    desc.quiet = true;
    check_ok(cprof_start(&desc), "start");
    wait_ns(2000000000);
    for (int i = 0; i < SLEEPERS; i++) {
        long now = e2e_switches(sleepers[i].tid);
        check(before[i] >= 0 && now == before[i],
              e2e_format("%s: the sleeper never runs", sleepers[i].name),
              "%ld context switches in 2 s of profiling", now - before[i]);
    }
    check_ok(cprof_stop(), "stop");
    cprof_get_stats(&stats);
    p = profile_take();
    check(stats.samples >= 2000, "the busy threads were sampled meanwhile", "%llu samples, %llu discarded, %llu looks",
          (unsigned long long)stats.samples, (unsigned long long)stats.discarded, (unsigned long long)stats.ticks);
    for (int i = 0; i < SLEEPERS; i++) {
        check(profile_thread(&p, sleepers[i].name) == 0, e2e_format("%s: not in a CPU profile", sleepers[i].name),
              "%llu periods", (unsigned long long)profile_thread(&p, sleepers[i].name));
    }
    profile_free(&p);

    pthread_join(sleepers[0].thread, NULL);    /* its time runs out by itself */
    release_waiters = true;
    sem_post(&semaphore);
    pthread_mutex_lock(&mutex);
    pthread_cond_signal(&condition);
    pthread_mutex_unlock(&mutex);
    if (write(epoll_pipe[1], &byte, 1) != 1) return 1;
    if (write(poll_pipe[1], &byte, 1) != 1) return 1;
    if (write(read_pipe[1], &byte, 1) != 1) return 1;
    client = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(client, (struct sockaddr *)&address, sizeof address)) return 1;
    for (int i = 1; i < SLEEPERS; i++) pthread_join(sleepers[i].thread, NULL);
    for (int i = 0; i < SLEEPERS; i++) {
        check(sleepers[i].error == 0, e2e_format("%s: no EINTR", sleepers[i].name), "%s",
              strerror(sleepers[i].error));
        check(!sleepers[i].early, e2e_format("%s: no early return", sleepers[i].name), "it came back");
    }
    quit = true;
    for (int i = 0; i < 2; i++) pthread_join(busy[i], NULL);

    check_ok(cprof_start(&desc), "start for the napper");
    ours = nap_run(false);
    check_ok(cprof_stop(), "stop for the napper");
    memset(&action, 0, sizeof action);
    action.sa_handler = on_timer;
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR2, &action, NULL);
    theirs = nap_run(true);
    note("a thread that naps 200 times a second, at 5000 Hz: cprof interrupted %llu of %llu naps, "
         "a thread CPU timer %llu of %llu (%lu hits)",
         (unsigned long long)ours.interrupted, (unsigned long long)ours.naps,
         (unsigned long long)theirs.interrupted, (unsigned long long)theirs.naps, timer_hits);
    /* Not a promise of zero, but a sampler that signals sleepers would interrupt nearly all. */
    check(ours.interrupted * 20 <= ours.naps, "at most 5% of the naps of a napping thread are interrupted",
          "%llu of %llu", (unsigned long long)ours.interrupted, (unsigned long long)ours.naps);
    return e2e_done();
}
