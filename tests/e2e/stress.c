/* stress: a program that does whatever is hard on a profiler that works by signals, in many threads at
   once, while it is sampled at 10,000 Hz. Each kind of trouble is a worker, which checks its own work:
   nothing of what it does may come out otherwise than without a profile.

       stress storm SECONDS PLUGIN0 PLUGIN1 [WORKER...]     all workers, or these
       stress exhaustion SECONDS                            descriptors and room for signals are used up, and
                                                            threads get new user ids

   A hang is found by stress.py, which has the patience. */
#include "e2e.h"
#include <dlfcn.h>
#include <link.h>
#include <malloc.h>
#include <poll.h>
#include <semaphore.h>
#include <setjmp.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>

int exceptions_catch(int depth);
int exceptions_destroyed(void);

extern char **environ;

enum { HZ = 10000 };

/* ---- what is known of everybody ---- */

typedef struct worker {
    const char *kind;                      /* and the thread's name */
    const char *root;                      /* function that every stack of it holds; NULL: not judged */
    void (*round)(struct worker *w);
    pthread_t thread;
    volatile bool started;
    volatile uint64_t rounds;
    uint32_t random;
    /* what went wrong */
    const char *volatile wrong;
    volatile long got, expected;
} worker;

static volatile bool stopping, releasing;
static const char *plugins[2];
static volatile uint64_t children, lives, naps, naps_interrupted, queued, opened;

static uint32_t next(worker *w)
{
    w->random = w->random * 1664525u + 1013904223u;
    return w->random >> 8;
}

/* The first thing that goes wrong is kept. */
static void same(worker *w, const char *what, long got, long expected)
{
    if (got == expected || w->wrong) return;
    w->got = got;
    w->expected = expected;
    w->wrong = what;
}

SPIN(fn_spin)

/* ---- the workers: one round each ---- */

E2E_NOINLINE static void worker_heap(worker *w)
{
    enum { PIECES = 64 };
    static const size_t big = 200000;      /* comes from mmap, and goes back at once */
    unsigned char *piece[PIECES] = { NULL };
    size_t size[PIECES] = { 0 };
    for (int i = 0; i < 300; i++) {
        uint32_t at = next(w) % PIECES;
        size_t old = size[at];
        size[at] = next(w) % 50 == 0 ? big : 16u << next(w) % 10;
        if (next(w) % 4 == 0) {
            piece[at] = (unsigned char *)realloc(piece[at], size[at]);
            if (piece[at] && old && old <= size[at]) same(w, "realloc kept the bytes", piece[at][old - 1], (long)at);
        } else {
            if (piece[at]) same(w, "a piece has its bytes", piece[at][old - 1], (long)at);
            free(piece[at]);
            piece[at] = (unsigned char *)malloc(size[at]);
        }
        if (!piece[at]) { size[at] = 0; continue; }
        memset(piece[at], (int)at, size[at]);
    }
    for (uint32_t i = 0; i < PIECES; i++) free(piece[i]);
}

E2E_NOINLINE static void worker_exceptions(worker *w)
{
    for (int i = 0; i < 5; i++) {
        int depth = (int)(next(w) % 60), caught = exceptions_catch(depth);
        same(w, "an exception is caught", caught, 4242);
        same(w, "destructors run", exceptions_destroyed(), depth + 1);
    }
}

E2E_NOINLINE static void jump_from(jmp_buf out, volatile int depth)
{
    if (depth == 0) longjmp(out, 77);
    jump_from(out, depth - 1);
    E2E_NO_TAIL();
}

E2E_NOINLINE static void worker_longjmp(worker *w)
{
    for (volatile int i = 0; i < 200; i++) {
        jmp_buf out;
        volatile int depth = (int)(next(w) % 50);
        int came = setjmp(out);
        if (came == 0) jump_from(out, depth);
        same(w, "longjmp arrives", came, 77);
    }
}

/* Coroutines on stacks from the heap, which are freed, and used again, all the time. */
typedef struct { ucontext_t self, back; unsigned turns; } coroutine;

E2E_NOINLINE static void coroutine_main(unsigned high, unsigned low)
{
    coroutine *c = (coroutine *)(uintptr_t)((uint64_t)high << 32 | low);
    for (;;) {
        fn_spin(2000);
        c->turns++;
        swapcontext(&c->self, &c->back);
    }
}

E2E_NOINLINE static void worker_coroutines(worker *w)
{
    enum { COROUTINES = 4, TURNS = 25, STACK = 64 * 1024 };
    static __thread coroutine all[COROUTINES];
    void *stack[COROUTINES];
    for (int i = 0; i < COROUTINES; i++) {
        uint64_t self = (uint64_t)(uintptr_t)&all[i];
        stack[i] = malloc(STACK);
        if (!stack[i] || getcontext(&all[i].self)) abort();
        all[i].turns = 0;
        all[i].self.uc_stack.ss_sp = stack[i];
        all[i].self.uc_stack.ss_size = STACK;
        all[i].self.uc_link = NULL;
        makecontext(&all[i].self, (void (*)(void))(uintptr_t)coroutine_main, 2, (unsigned)(self >> 32), (unsigned)self);
    }
    for (int turn = 0; turn < TURNS; turn++)
        for (int i = 0; i < COROUTINES; i++) swapcontext(&all[i].back, &all[i].self);
    for (int i = 0; i < COROUTINES; i++) {
        same(w, "a coroutine's turns", (long)all[i].turns, TURNS);
        free(stack[i]);
    }
    (void)w;
}

static __thread volatile uintptr_t altstack_seen;

static void altstack_handler(int number)
{
    volatile char here = 0;
    (void)number;
    altstack_seen = (uintptr_t)&here;
    fn_spin(20000);
}

/* A new alternate stack each time, and a handler that works on it. */
E2E_NOINLINE static void worker_altstacks(worker *w)
{
    enum { SIZE = 32 * 1024 };
    stack_t stack, old;
    memset(&stack, 0, sizeof stack);
    stack.ss_size = SIZE;
    stack.ss_sp = malloc(SIZE);
    if (!stack.ss_sp || sigaltstack(&stack, NULL)) abort();
    for (int i = 0; i < 10; i++) {
        altstack_seen = 0;
        raise(SIGUSR2);
        same(w, "the handler ran on the alternate stack", altstack_seen - (uintptr_t)stack.ss_sp < SIZE, true);
        fn_spin(10000);
    }
    sigaltstack(NULL, &old);
    same(w, "the alternate stack is what it was", old.ss_sp == stack.ss_sp && old.ss_size == SIZE, true);
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, NULL);
    free(stack.ss_sp);
}

static unsigned plugin_callback(unsigned x)
{
    fn_spin(30000);
    return x * 2;
}

E2E_NOINLINE static void worker_plugins(worker *w)
{
    unsigned which = next(w) % 2, depth = next(w) % 20, expected, room, x = 9;
    unsigned (*work)(unsigned, unsigned (*)(unsigned), unsigned) = NULL;
    void *library = dlopen(plugins[which], next(w) % 2 ? RTLD_NOW | RTLD_LOCAL : RTLD_LAZY | RTLD_GLOBAL);
    void *found = library ? dlsym(library, "plugin_work") : NULL;
    same(w, "a plug-in loads", found != NULL, true);
    if (!found) return;
    memcpy(&work, &found, sizeof work);
    expected = (x + depth) * 2;
    for (unsigned i = 0; i <= depth; i++) {
        room = x + depth - i;
        expected = (which ? expected * 3 + 1 : expected * 5 + 2) + room;
    }
    same(w, "a plug-in's result", work(depth, plugin_callback, x), (long)expected);
    dlclose(library);
}

/* Ends with status 1; nothing of the profile may be left in it. */
static pid_t child_start(worker *w, uint32_t way)
{
    char *const args[] = { (char *)(uintptr_t)"false", NULL };
    static const char target[] = "/bin/false";
    pid_t pid = -1;
    switch (way) {
    case 0:
        pid = fork();
        if (pid == 0) { execv(target, args); _exit(127); }
        break;
    case 1:
        pid = vfork();
        if (pid == 0) { execv(target, args); _exit(127); }
        break;
    case 2:
        if (posix_spawn(&pid, target, NULL, NULL, args, environ) != 0) pid = -1;
        break;
    default:
        pid = fork();                      /* which goes on to work, with the heap, too */
        if (pid == 0) {
            free(malloc(1000));
            fn_spin(100000);
            _exit(cprof_stop() == CPROF_OK || e2e_entries("/proc/self/task") != 1 ? 3 : w->wrong ? 4 : 1);
        }
    }
    return pid;
}

E2E_NOINLINE static void worker_children(worker *w)
{
    pid_t pid = child_start(w, next(w) % 4);
    int status = -1;
    same(w, "a child is started", pid > 0, true);
    if (pid <= 0) return;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    same(w, "a child's status", status, 1 << 8);
    __atomic_add_fetch(&children, 1, __ATOMIC_RELAXED);
}

static void *life_main(void *argument)
{
    fn_spin((int)(uintptr_t)argument);
    __atomic_add_fetch(&lives, 1, __ATOMIC_RELAXED);
    return argument;
}

E2E_NOINLINE static void worker_threads(worker *w)
{
    enum { TOGETHER = 16 };
    pthread_t thread[TOGETHER];
    for (uintptr_t i = 0; i < TOGETHER; i++)
        if (pthread_create(&thread[i], NULL, life_main, (void *)(i * 1000)) != 0) abort();
    for (uintptr_t i = 0; i < TOGETHER; i++) {
        void *result = NULL;
        pthread_join(thread[i], &result);
        same(w, "a thread's result", (long)(uintptr_t)result, (long)i * 1000);
    }
}

/* Blocks all signals, some, none; what it has set it finds again. */
E2E_NOINLINE static void worker_masks(worker *w)
{
    sigset_t set, old;
    for (int i = 0; i < 20; i++) {
        int some = (int)(next(w) % 3);
        if (some == 2) sigfillset(&set);
        else sigemptyset(&set);
        if (some == 1) sigaddset(&set, SIGUSR1);
        pthread_sigmask(SIG_SETMASK, &set, NULL);
        fn_spin(20000);
        pthread_sigmask(SIG_SETMASK, NULL, &old);
        same(w, "SIGUSR1 in the mask", sigismember(&old, SIGUSR1), some > 0);
        same(w, "SIGURG in the mask", sigismember(&old, SIGURG), some == 2);
    }
    sigemptyset(&set);
    pthread_sigmask(SIG_SETMASK, &set, NULL);
}

/* What a signal handler must leave alone: errno, integer and vector registers. */
E2E_NOINLINE static void worker_registers(worker *w)
{
    enum { LANES = 8 };
    static uint64_t once_integer;
    static double once_real;
    uint64_t integer = 1;
    double lane[LANES], real = 0;
    errno = 1234;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    for (int round = 0; round < 20000; round++) {
        integer = integer * 6364136223846793005u + 1442695040888963407u;
        for (int i = 0; i < LANES; i++) lane[i] = lane[i] * 0.75 + (double)(round % 100);
    }
    same(w, "errno", errno, 1234);
    for (int i = 0; i < LANES; i++) real += lane[i];
    if (!once_integer) { once_integer = integer; once_real = real; }
    same(w, "a sum of integers", (long)integer, (long)once_integer);
    same(w, "a sum of reals", memcmp(&real, &once_real, sizeof real), 0);
}

/* glibc sends a signal of its own to every thread, and waits until all have answered. */
E2E_NOINLINE static void worker_setxid(worker *w)
{
    same(w, "setresuid", setresuid(getuid(), geteuid(), (uid_t)-1), 0);
    nap_ns(3000000);
}

static int count_image(struct dl_phdr_info *info, size_t size, void *user)
{
    (void)info, (void)size;
    ++*(int *)user;
    return 0;
}

/* Takes the loader's lock again and again, which the sampler takes too. */
E2E_NOINLINE static void worker_images(worker *w)
{
    for (int i = 0; i < 20; i++) {
        int count = 0;
        dl_iterate_phdr(count_image, &count);
        same(w, "images are there", count >= 3, true);
    }
}

/* ---- sleepers: they must not be woken ----

   Nor are they by others: they block SIGCHLD. While posix_spawn blocks all signals, a child that has ended
   already makes the kernel wake another thread, as a signal is not ignored by a thread that blocks it.
   epoll_wait then returns EINTR without any profiler; poll is restarted, unless it meets a look on its way. */

static int sleep_pipe[2];
static sem_t sleep_semaphore;

static void sleeper_ends(worker *w, long result)
{
    int error = errno;
    if (!releasing) same(w, "a sleeper came back", result < 0 ? -error : result, 0);
    w->rounds++;
    while (!stopping) nap_ns(10000000);
}

static void sleeper_poll(worker *w)
{
    struct pollfd one = { sleep_pipe[0], POLLIN, 0 };
    sleeper_ends(w, poll(&one, 1, -1));
}

static void sleeper_epoll(worker *w)
{
    struct epoll_event event, out;
    int fd = epoll_create1(EPOLL_CLOEXEC);
    memset(&event, 0, sizeof event);
    event.events = EPOLLIN;
    epoll_ctl(fd, EPOLL_CTL_ADD, sleep_pipe[0], &event);
    sleeper_ends(w, epoll_wait(fd, &out, 1, -1));
    close(fd);
}

static void sleeper_semaphore(worker *w) { sleeper_ends(w, sem_wait(&sleep_semaphore)); }

static void sleeper_nanosleep(worker *w)
{
    struct timespec t = { 1000000, 0 };
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);              /* ends it, see storm_end() */
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    sleeper_ends(w, nanosleep(&t, NULL));
}

/* Works and naps: it may be caught on its way to sleep, and is told how often. */
E2E_NOINLINE static void worker_naps(worker *w)
{
    (void)w;
    fn_spin(20000);
    naps++;
    if (!nap_ns(300000)) naps_interrupted++;
}

/* ---- exhausters ---- */

static volatile bool full;

/* Opens until nothing is left, and a little later closes all. */
E2E_NOINLINE static void worker_descriptors(worker *w)
{
    int fd[1024], count = 0;
    while (count < 1024 && (fd[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) count++;
    same(w, "descriptors run out", count < 1024 && errno == EMFILE, true);
    full = true;
    fn_spin(3000000);
    while (count > 0) same(w, "close", close(fd[--count]), 0);
    full = false;
    opened++;
    fn_spin(1000000);
}

/* Queues real-time signals until there is no room, and a little later takes them all, in order. */
E2E_NOINLINE static void worker_pending(worker *w)
{
    struct timespec now = { 0, 0 };
    sigset_t set;
    siginfo_t info;
    union sigval value;
    int count = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    for (; count < 100000; count++) {
        value.sival_int = count;
        if (pthread_sigqueue(pthread_self(), SIGRTMIN + 1, value) != 0) break;
    }
    same(w, "room for signals runs out", count < 100000, true);
    fn_spin(3000000);
    for (int i = 0; i < count; i++) {
        if (sigtimedwait(&set, &info, &now) < 0) { same(w, "a queued signal arrives", i, count); break; }
        same(w, "queued signals keep their values", info.si_value.sival_int, i);
    }
    queued += (uint64_t)count;
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    fn_spin(1000000);
}

/* ---- all of them ---- */

static worker workers[] = {
    { .kind = "heap", .root = "worker_main", .round = worker_heap },
    { .kind = "heap", .root = "worker_main", .round = worker_heap },
    { .kind = "exceptions", .root = "worker_main", .round = worker_exceptions },
    { .kind = "longjmp", .root = "worker_main", .round = worker_longjmp },
    { .kind = "coroutines", .root = "worker_main", .round = worker_coroutines },
    { .kind = "altstacks", .root = "worker_main", .round = worker_altstacks },
    { .kind = "plugins", .root = "worker_main", .round = worker_plugins },
    { .kind = "plugins", .root = "worker_main", .round = worker_plugins },
    { .kind = "children", .root = NULL, .round = worker_children },
    { .kind = "threads", .root = NULL, .round = worker_threads },
    { .kind = "masks", .root = "worker_main", .round = worker_masks },
    { .kind = "registers", .root = "worker_main", .round = worker_registers },
    { .kind = "setxid", .root = NULL, .round = worker_setxid },
    { .kind = "images", .root = "worker_main", .round = worker_images },
    { .kind = "naps", .root = "worker_main", .round = worker_naps },
    { .kind = "poll", .root = NULL, .round = sleeper_poll },
    { .kind = "epoll", .root = NULL, .round = sleeper_epoll },
    { .kind = "semaphore", .root = NULL, .round = sleeper_semaphore },
    { .kind = "nanosleep", .root = NULL, .round = sleeper_nanosleep },
    { .kind = "descriptors", .root = "worker_main", .round = worker_descriptors },
    { .kind = "pending", .root = "worker_main", .round = worker_pending },
};
enum { WORKERS = sizeof workers / sizeof *workers };

static bool is_sleeper(const worker *w)
{
    return w->round == sleeper_poll || w->round == sleeper_epoll || w->round == sleeper_semaphore || w->round == sleeper_nanosleep;
}

/* Whoever has used up all descriptors is no company for those who want some; and setxid's signals wake
   sleepers. */
static bool is_exhauster(const worker *w)
{
    return w->round == worker_descriptors || w->round == worker_pending || w->round == worker_setxid;
}

E2E_NOINLINE static void *worker_main(void *argument)
{
    worker *w = (worker *)argument;
    sigset_t set, mask;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    if (is_sleeper(w)) sigaddset(&set, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    name_thread(w->kind);
    w->random = (uint32_t)(w - workers + 1) * 0x9e3779b9u;
    w->started = true;
    while (!stopping) {
        pthread_sigmask(SIG_SETMASK, NULL, &mask);
        w->round(w);
        if (w->round != worker_masks && !is_sleeper(w)) {
            pthread_sigmask(SIG_SETMASK, NULL, &set);
            for (int i = 1; i < NSIG; i++) same(w, "the mask is what it was", sigismember(&set, i), sigismember(&mask, i));
        }
        w->rounds++;
    }
    return NULL;
}

static void ignore(int number) { (void)number; }

static bool chosen(const worker *w, char **names)
{
    if (!names || !*names) return true;
    while (*names && strcmp(*names, w->kind) != 0) names++;
    return *names != NULL;
}

static void storm_begin(bool exhausters, char **names)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = altstack_handler;
    action.sa_flags = SA_ONSTACK | SA_RESTART;
    sigaction(SIGUSR2, &action, NULL);
    action.sa_handler = ignore;
    action.sa_flags = 0;
    sigaction(SIGUSR1, &action, NULL);
    if (pipe2(sleep_pipe, O_CLOEXEC) || sem_init(&sleep_semaphore, 0, 0)) exit(2);
    stopping = releasing = false;
    for (int i = 0; i < WORKERS; i++) {
        worker *w = &workers[i];
        w->started = false;
        w->wrong = NULL;
        w->rounds = 0;
        if (exhausters ? !is_exhauster(w) && w->round != worker_heap && w->round != worker_registers && w->round != worker_masks
                           && w->round != worker_threads
                       : is_exhauster(w) || !chosen(w, names)) continue;
        if (pthread_create(&w->thread, NULL, worker_main, w)) exit(2);
        while (!w->started) nap_ns(100000);
    }
    nap_ns(500000000);                     /* the sleepers sleep, however busy the others are */
}

static void storm_end(void)
{
    char byte = 0;
    releasing = true;
    stopping = true;
    if (write(sleep_pipe[1], &byte, 1) != 1) exit(2);
    sem_post(&sleep_semaphore);
    for (int i = 0; i < WORKERS; i++) {
        worker *w = &workers[i];
        if (!w->started) continue;
        if (w->round == sleeper_nanosleep) while (w->rounds == 0) { pthread_kill(w->thread, SIGUSR1); nap_ns(1000000); }
        pthread_join(w->thread, NULL);
    }
    close(sleep_pipe[0]);
    close(sleep_pipe[1]);
    sem_destroy(&sleep_semaphore);
}

/* Each kind once, and what was wrong, if anything. */
static void check_workers(void)
{
    uint64_t rounds = 0;
    for (int i = 0; i < WORKERS; i++) {
        worker *w = &workers[i];
        if (!w->started) continue;
        rounds += w->rounds;
        check(!w->wrong && w->rounds > 0, e2e_format("%s: works as ever", w->kind), "%s: %ld instead of %ld, %llu rounds",
              w->wrong ? w->wrong : "no round", w->got, w->expected, (unsigned long long)w->rounds);
    }
    note("%llu rounds, %llu children, %llu threads, %llu times all descriptors, %llu signals queued; %llu of %llu naps interrupted",
         (unsigned long long)rounds, (unsigned long long)children, (unsigned long long)lives, (unsigned long long)opened,
         (unsigned long long)queued, (unsigned long long)naps_interrupted, (unsigned long long)naps);
}

static cprof_desc at_full_speed(cprof_clock clock)
{
    cprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.hz = HZ;
    desc.clock = clock;
    desc.quiet = true;
    desc.max_sampler_percent = 100;
    return desc;
}

/* What the stats and the profile must agree on, however much was lost. */
static void check_totals(const e2e_profile *p, const cprof_stats *stats)
{
    double periods = (double)(stats->weight_ns + stats->unsampled_ns) / 1e9 * stats->hz;
    double lost = (double)profile_total(p, "[cprof]", "[lost]");
    check(!p->malformed && fabs((double)p->count - periods) < 3, "the profile's counts are what the stats say",
          "%llu periods, not %.0f", (unsigned long long)p->count, periods);
    check((stats->lost > 0) >= (lost > 0), "no loss is shown that the stats do not have", "%.0f periods", lost);
    check((stats->truncated > 0) >= (profile_total(p, NULL, "[truncated]") > 0), "nor a truncated stack", "%llu periods",
          (unsigned long long)profile_total(p, NULL, "[truncated]"));
}

/* Every thread that works is in the profile, and its stacks lead to where it began. */
static void check_roots(const e2e_profile *p)
{
    for (int i = 0; i < WORKERS; i++) {
        const worker *w = &workers[i];
        uint64_t all = 0, rooted = 0, cut = 0, elsewhere = 0;
        if (!w->started || !w->root || (i && w->round == workers[i - 1].round)) continue;
        for (int k = 0; k < p->stacks; k++) {
            const e2e_stack *s = &p->stack[k];
            if (!stack_of(s, w->kind)) continue;
            all += s->count;
            if (stack_has(s, w->root) || stack_has(s, "coroutine_main")) rooted += s->count;
            else if (stack_has(s, "[truncated]")) cut += s->count;
            else elsewhere += s->count;
            if (rooted + cut == all || getenv("STRESS_PRINT") == NULL) continue;
            printf("#   ");
            for (int f = 0; f < s->frames; f++) printf("%s;", s->frame[f]);
            printf(" %llu\n", (unsigned long long)s->count);
        }
        check(all > 0, e2e_format("%s: sampled", w->kind), "no sample");
        note("%s: %llu periods, %llu truncated, %llu elsewhere", w->kind, (unsigned long long)all, (unsigned long long)cut,
             (unsigned long long)elsewhere);
    }
}

typedef struct { uint64_t outer, inner; } bracket;

static cprof_result bracket_start(bracket *b, const cprof_desc *desc)
{
    cprof_result result;
    b->outer = process_cpu();
    result = cprof_start(desc);
    b->inner = process_cpu();
    return result;
}

/* What was counted lies between the CPU time used between the two calls and that around them. */
static cprof_result bracket_stop(bracket *b)
{
    cprof_result result;
    b->inner = process_cpu() - b->inner;
    result = cprof_stop();
    b->outer = process_cpu() - b->outer;
    return result;
}

static void check_bracket(const bracket *b, const cprof_stats *stats)
{
    check(stats->cpu_ns >= b->inner && stats->cpu_ns <= b->outer, "all CPU time is counted",
          "%.3f s, not between %.3f and %.3f", (double)stats->cpu_ns / 1e9, (double)b->inner / 1e9, (double)b->outer / 1e9);
    if (stats->cpu_ns > stats->sampler_cpu_ns)
        check(stats->weight_ns + stats->unsampled_ns >= stats->cpu_ns - stats->sampler_cpu_ns,
              "and is either sampled or said to be unsampled", "%.3f + %.3f s of %.3f", (double)stats->weight_ns / 1e9,
              (double)stats->unsampled_ns / 1e9, (double)(stats->cpu_ns - stats->sampler_cpu_ns) / 1e9);
}

static void storm(double seconds, bool exhausters, cprof_clock clock, char **names)
{
    cprof_desc desc = at_full_speed(clock);
    cprof_stats stats;
    cprof_result result;
    e2e_profile p;
    bracket b;
    uint64_t until;
    desc.max_stacks = 1 << 18;
    storm_begin(exhausters, names);
    until = wall() + 60000000000u;
    do result = bracket_start(&b, &desc); /* it is refused as long as there is no descriptor */
    while (exhausters && result == CPROF_ERROR_SYSTEM && wall() < until);
    if (!check_ok(result, "start in the storm")) exit(1);
    until = wall() + (uint64_t)(seconds * 1e9);
    while (wall() < until) nap_ns(50000000);
    check_ok(bracket_stop(&b), "stop in the storm");
    cprof_get_stats(&stats);
    p = profile_take();
    storm_end();
    if (exhausters) {                      /* when that was written there may have been no descriptor for names */
        profile_free(&p);
        p = profile_take();
    }
    check_workers();
    check_totals(&p, &stats);
    if (clock == CPROF_CPU) check_bracket(&b, &stats);
    check_roots(&p);
    note("%.0f Hz, %llu samples, %llu truncated, %llu lost, %llu unanswered, %llu discarded, %llu threads, %llu stacks, %.2f of %.2f s unsampled",
         stats.hz_achieved, (unsigned long long)stats.samples, (unsigned long long)stats.truncated, (unsigned long long)stats.lost,
         (unsigned long long)stats.unanswered, (unsigned long long)stats.discarded, (unsigned long long)stats.threads_seen,
         (unsigned long long)stats.unique_stacks, (double)stats.unsampled_ns / 1e9, (double)stats.cpu_ns / 1e9);
    profile_free(&p);
}

static void limit_to(int resource, rlim_t most)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0) exit(2);
    if (limit.rlim_cur < most) return;
    limit.rlim_cur = most;
    if (setrlimit(resource, &limit) != 0) exit(2);
}

/* With so few descriptors left, a profile is refused, or it is one; either way none is lost. */
static void few_descriptors(int left)
{
    static int fd[1024];
    cprof_desc desc = at_full_speed(CPROF_WALL);
    cprof_stats stats;
    cprof_result result, stopped = CPROF_OK;
    int count = 0, before, again;
    while (count < 1024 && (fd[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) count++;
    for (int i = 0; i < left; i++) close(fd[--count]);
    memset(&stats, 0, sizeof stats);
    desc.output = "/dev/shm/cprof-stress.folded";
    result = cprof_start(&desc);
    fn_spin(20000000);
    if (result == CPROF_OK) {
        stopped = cprof_stop();
        cprof_get_stats(&stats);
    }
    for (before = count; (fd[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) count++;
    again = count - before;
    while (count > 0) close(fd[--count]);
    unlink(desc.output);
    check(result == CPROF_OK ? stats.samples > 0 && (stopped == CPROF_OK || stopped == CPROF_ERROR_OUTPUT)
                             : left < 3 && (result == CPROF_ERROR_SYSTEM || result == CPROF_ERROR_OUTPUT),
          e2e_format("%d descriptors left: a profile, or it is refused", left), "%s, %s, %llu samples", cprof_result_string(result),
          cprof_result_string(stopped), (unsigned long long)stats.samples);
    check(again == left, "and as many are left", "%d", again);
}

static void exhaustion(double seconds)
{
    limit_to(RLIMIT_NOFILE, 256);
    limit_to(RLIMIT_SIGPENDING, 1000);
    for (int left = 0; left <= 4; left++) few_descriptors(left);
    storm(seconds / 2, true, CPROF_CPU, NULL);
    storm(seconds / 2, true, CPROF_WALL, NULL);
}

int main(int argc, char **argv)
{
    const char *scenario = argc > 1 ? argv[1] : "";
    double seconds = argc > 2 ? atof(argv[2]) : 1;
    char **rest = argc > 3 ? argv + 3 : NULL;
    if (rest && argc > 4) {
        plugins[0] = rest[0];
        plugins[1] = rest[1];
        rest += 2;
    }
    if (strcmp(scenario, "storm") == 0) {
        storm(seconds / 2, false, CPROF_CPU, rest);
        storm(seconds / 2, false, CPROF_WALL, rest);
    } else if (strcmp(scenario, "exhaustion") == 0) {
        exhaustion(seconds);
    } else return 2;
    return e2e_done();
}
