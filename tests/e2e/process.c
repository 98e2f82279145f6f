/* process: the hostile corners of a POSIX process. fork, exec storms, a host handler on the same
   signal, no room for queued signals, a thread that blocks the signal, tiny alternate stacks. */
#include "e2e.h"
#include <spawn.h>
#include <sys/auxv.h>
#include <sys/mman.h>

BURN(fn_parent)
BURN(fn_child)
BURN(fn_blocked)
BURN(fn_open)
SPIN(fn_small)

extern char **environ;

static cprof_desc at(int hz)
{
    cprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.hz = hz;
    desc.quiet = true;
    return desc;
}

static volatile bool quit;

static void *busy_main(void *argument)
{
    (void)argument;
    name_thread("p-busy");
    while (!quit) fn_parent(1000000);
    return NULL;
}

/* ---- fork ---- */

enum { CHILD_THREADS = 1, CHILD_STOP = 2, CHILD_START = 4, CHILD_PROFILE = 8, CHILD_FILE = 16, CHILD_CPU = 32 };

static int child_of_fork(bool own, const char *path)
{
    cprof_desc desc = at(1000);
    e2e_profile p;
    int bad = 0;
    uint64_t used = fn_child(20000000);
    if (used < 20000000) bad |= CHILD_CPU;
    if (e2e_entries("/proc/self/task") != 1) bad |= CHILD_THREADS;
    if (!own) {
        if (cprof_stop() == CPROF_OK) bad |= CHILD_STOP;
        return bad;
    }
    desc.output = path;
    if (cprof_start(&desc) != CPROF_OK) return bad | CHILD_START;
    fn_child(200000000);
    if (cprof_stop() != CPROF_OK) bad |= CHILD_STOP;
    if (!profile_read(path, &p)) return bad | CHILD_FILE;
    if (profile_total(&p, NULL, "fn_child") < 180 || profile_total(&p, NULL, "fn_child") > 220
        || profile_total(&p, NULL, "fn_parent") > 0) bad |= CHILD_PROFILE;
    unlink(path);
    return bad;
}

static void forks(void)
{
    cprof_desc desc = at(10000);
    e2e_profile p;
    pthread_t thread;
    int plain = 0, own = 0;
    uint64_t cpu, before;
    double found;

    quit = false;
    before = process_cpu();
    if (pthread_create(&thread, NULL, busy_main, NULL)) exit(1);
    check_ok(cprof_start(&desc), "fork: start at 10,000 Hz");
    for (int i = 0; i < 20; i++) {
        int status = -1;
        pid_t pid = fork();
        if (pid == 0) _exit(child_of_fork(i % 4 == 3, e2e_format("/tmp/cprof-fork-%d.folded", (int)getpid())));
        waitpid(pid, &status, 0);
        if (i % 4 == 3) own |= status; else plain |= status;
    }
    quit = true;
    pthread_join(thread, NULL);
    check_ok(cprof_stop(), "fork: stop in the parent");
    check(plain == 0, "fork: an unprofiled child is healthy", "exit status %#x", (unsigned)plain);
    check(own == 0, "fork: a child may begin and write its own profile", "exit status %#x", (unsigned)own);
    p = profile_take();
    cpu = process_cpu() - before;
    found = (double)profile_thread(&p, "p-busy") / 10000 * 1e9;
    check(profile_total(&p, NULL, "fn_child") == 0, "fork: nothing of the children is in the parent's profile", "%llu",
          (unsigned long long)profile_total(&p, NULL, "fn_child"));
    check(found > 0.5 * (double)cpu && profile_total(&p, "p-busy", "fn_parent") > 0, "fork: the parent's profile is intact",
          "%.0f ms of %.0f ms", found / 1e6, (double)cpu / 1e6);
    profile_free(&p);
}

/* ---- exec ---- */

enum { STORM = 2000, STORM_THREADS = 2 };
static int storm_bad, storm_killed;
static const char *storm_target;

E2E_NOINLINE static pid_t child_by_fork(char *const *args)
{
    pid_t pid = fork();
    if (pid == 0) { execv(storm_target, args); _exit(127); }
    return pid;
}

E2E_NOINLINE static pid_t child_by_vfork(char *const *args)
{
    pid_t pid = vfork();
    if (pid == 0) { execv(storm_target, args); _exit(127); }
    return pid;
}

static void *storm_main(void *argument)
{
    char *const args[] = { (char *)(uintptr_t)"true", NULL };
    (void)argument;
    for (int i = 0; i < STORM / STORM_THREADS; i++) {
        int status = -1;
        pid_t pid = -1;
        if (i % 3 == 0) {
            if (posix_spawn(&pid, storm_target, NULL, NULL, args, environ) != 0) pid = -1;
        } else {
            pid = i % 3 == 1 ? child_by_fork(args) : child_by_vfork(args);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
            __atomic_add_fetch(&storm_bad, 1, __ATOMIC_SEQ_CST);
            if (pid > 0 && WIFSIGNALED(status)) __atomic_add_fetch(&storm_killed, 1, __ATOMIC_SEQ_CST);
        }
    }
    return NULL;
}

static void exec_storm(void)
{
    cprof_desc desc = at(10000);
    cprof_stats stats;
    pthread_t thread[STORM_THREADS + 1];
    uint64_t start = wall();

    storm_target = access("/bin/true", X_OK) == 0 ? "/bin/true" : "/usr/bin/true";
    quit = false;
    check_ok(cprof_start(&desc), "exec storm: start at 10,000 Hz");
    if (pthread_create(&thread[STORM_THREADS], NULL, busy_main, NULL)) exit(1);
    for (int i = 0; i < STORM_THREADS; i++) if (pthread_create(&thread[i], NULL, storm_main, NULL)) exit(1);
    for (int i = 0; i < STORM_THREADS; i++) pthread_join(thread[i], NULL);
    quit = true;
    pthread_join(thread[STORM_THREADS], NULL);
    check_ok(cprof_stop(), "exec storm: stop");
    cprof_get_stats(&stats);
    note("exec storm: %d children in %.1f s, %llu samples meanwhile", STORM, (double)(wall() - start) / 1e9,
         (unsigned long long)stats.samples);
    check(storm_bad == 0, "exec storm: 2000 children, none killed", "%d failed, %d of them by a signal", storm_bad, storm_killed);
    check(stats.samples > 1000, "exec storm: sampled all the while", "%llu", (unsigned long long)stats.samples);
}

/* ---- a host handler on our signal ---- */

static volatile int host_calls, host_values, host_strange;

static void host_handler(int sig, siginfo_t *info, void *context)
{
    (void)context;
    if (sig != SIGURG || !info) { host_strange++; return; }
    host_calls++;
    if (info->si_code == SI_QUEUE && info->si_value.sival_int == 42 && info->si_pid == getpid()) host_values++;
    else if (info->si_code != SI_USER && info->si_code != SI_TKILL) host_strange++;
}

static void host_signal(void)
{
    enum { TIMES = 100 };
    cprof_desc desc = at(100);
    struct sigaction action, now;
    union sigval value;
    cprof_stats stats;
    int got;

    memset(&action, 0, sizeof action);
    action.sa_sigaction = host_handler;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaddset(&action.sa_mask, SIGUSR1);
    sigaction(SIGURG, &action, NULL);
    check_ok(cprof_start(&desc), "host handler: start");
    fn_parent(500000000);
    check(host_calls == 0 && host_strange == 0, "host handler: it does not see our signals", "%d calls", host_calls + host_strange);
    /* One of ours may be pending in the very moment of the host's, and a pending standard signal
       swallows the next: that is the kernel's rule, and rare. */
    for (int i = 0; i < TIMES; i++) { raise(SIGURG); fn_parent(100000); }
    got = host_calls;
    check(got >= TIMES - 2 && got <= TIMES, "host handler: raise arrives", "%d of %d", got, TIMES);
    host_calls = 0;
    for (int i = 0; i < TIMES; i++) { kill(getpid(), SIGURG); fn_parent(100000); }
    got = host_calls;
    check(got >= TIMES - 2 && got <= TIMES, "host handler: kill arrives", "%d of %d", got, TIMES);
    host_calls = 0;
    value.sival_int = 42;
    for (int i = 0; i < TIMES; i++) { sigqueue(getpid(), SIGURG, value); fn_parent(100000); }
    got = host_values;
    check(got >= TIMES - 2 && got == host_calls, "host handler: sigqueue arrives with its value", "%d of %d, %d with the value",
          host_calls, TIMES, got);
    check(host_strange == 0, "host handler: nothing strange arrives", "%d", host_strange);
    check_ok(cprof_stop(), "host handler: stop");
    cprof_get_stats(&stats);
    check(stats.samples > 30, "host handler: sampled all the while", "%llu", (unsigned long long)stats.samples);
    sigaction(SIGURG, NULL, &now);
    check(now.sa_sigaction == host_handler && (now.sa_flags & SA_SIGINFO) && sigismember(&now.sa_mask, SIGUSR1) == 1,
          "host handler: it is in place again after stop", "flags %#x", (unsigned)now.sa_flags);
    host_calls = 0;
    raise(SIGURG);
    check(host_calls == 1, "host handler: and works", "%d calls", host_calls);

    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    sigaction(SIGURG, &action, NULL);
    desc.signal = SIGUSR2;                       /* another signal by the desc */
    check_ok(cprof_start(&desc), "other signal: start with SIGUSR2");
    fn_parent(300000000);
    check_ok(cprof_stop(), "other signal: stop");
    cprof_get_stats(&stats);
    check(stats.samples > 15, "other signal: samples arrive", "%llu", (unsigned long long)stats.samples);
}

/* ---- no room for queued signals ---- */

static int sigpending_child(void)
{
    cprof_desc desc = at(1000);
    struct rlimit none = { 0, 0 };
    union sigval value;
    cprof_stats stats;
    e2e_profile p;
    if (getuid() == 0 && (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))) return 2;
    if (setrlimit(RLIMIT_SIGPENDING, &none)) return 3;
    /* The limit bites: a real-time signal cannot be queued. */
    signal(SIGRTMIN, SIG_IGN);
    {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGRTMIN);
        sigprocmask(SIG_BLOCK, &set, NULL);
        signal(SIGRTMIN, SIG_DFL);
        value.sival_int = 1;
        if (sigqueue(getpid(), SIGRTMIN, value) == 0 || errno != EAGAIN) return 4;
    }
    if (cprof_start(&desc) != CPROF_OK) return 5;
    fn_parent(500000000);
    if (cprof_stop() != CPROF_OK) return 6;
    cprof_get_stats(&stats);
    p = profile_take();
    if (stats.samples < 350) { printf("# %llu samples\n", (unsigned long long)stats.samples); return 7; }
    if (profile_total(&p, NULL, "fn_parent") < 475 || profile_total(&p, NULL, "fn_parent") > 525) return 8;
    return 0;
}

static void no_room(void)
{
    static const char *const why[] = { "", "", "cannot become another user", "no rlimit", "the limit does not bite",
        "start", "stop", "few samples", "wrong weight" };
    int status = -1, code;
    pid_t pid;
    fflush(stdout);
    pid = fork();
    if (pid == 0) { code = sigpending_child(); fflush(stdout); _exit(code); }
    waitpid(pid, &status, 0);
    code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    check(status == 0, "RLIMIT_SIGPENDING of 0: samples still arrive", "status %#x: %s", (unsigned)status,
          code >= 0 && code <= 8 ? why[code] : "");
}

/* ---- a thread that blocks the signal ---- */

static void *blocked_main(void *argument)
{
    sigset_t set;
    uint64_t before = thread_cpu();
    name_thread("p-blocked");
    sigemptyset(&set);
    sigaddset(&set, SIGURG);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    fn_blocked(700000000);
    *(uint64_t *)argument = thread_cpu() - before;
    return NULL;
}

static void *open_main(void *argument)
{
    uint64_t before = thread_cpu();
    name_thread("p-open");
    fn_open(700000000);
    *(uint64_t *)argument = thread_cpu() - before;
    return NULL;
}

static void blocked(void)
{
    cprof_desc desc = at(1000);
    cprof_stats stats;
    e2e_profile p;
    e2e_capture capture;
    pthread_t thread[2];
    uint64_t cpu[2] = { 0, 0 };
    char *text, *newline;
    double unsampled;

    capture = capture_stderr();
    desc.quiet = false;
    desc.output = "/tmp/cprof-blocked.folded";
    cprof_start(&desc);
    if (pthread_create(&thread[0], NULL, blocked_main, &cpu[0]) || pthread_create(&thread[1], NULL, open_main, &cpu[1])) exit(1);
    for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
    cprof_stop();
    text = capture_end(capture);
    cprof_get_stats(&stats);
    p = profile_take();
    unlink(desc.output);
    unsampled = (double)stats.unsampled_ns;
    newline = strchr(text, '\n');
    check(count_lines(text) == 1, "blocked signal: one end line", "%s", text);
    if (newline) *newline = 0;
    note("end line: %s", text);
    check(strstr(text, "p-blocked") != NULL, "blocked signal: the end line names the thread", "%s", text);
    check(strstr(text, "p-open") == NULL, "blocked signal: and no other", "%s", text);
    check(fabs(unsampled / (double)cpu[0] - 1) < 0.05, "blocked signal: its CPU is unsampled", "%.1f ms of %.1f ms",
          unsampled / 1e6, (double)cpu[0] / 1e6);
    check(profile_total(&p, NULL, "fn_blocked") == 0 && profile_thread(&p, "p-blocked") == 0,
          "blocked signal: it has no stacks", "%llu", (unsigned long long)profile_thread(&p, "p-blocked"));
    check(fabs((double)profile_total(&p, "[cprof]", "[unsampled]") * 1e6 / unsampled - 1) < 0.01,
          "blocked signal: [cprof];[unsampled] shows it", "%llu periods",
          (unsigned long long)profile_total(&p, "[cprof]", "[unsampled]"));
    check(fabs((double)profile_total(&p, "p-open", "fn_open") * 1e6 / (double)cpu[1] - 1) < 0.02,
          "blocked signal: the other thread is whole", "%llu periods", (unsigned long long)profile_total(&p, "p-open", "fn_open"));
    free(text);
    profile_free(&p);
}

/* ---- alternate stacks ---- */

typedef struct { unsigned char *base, *stack; size_t size, guard; } alternate;

static alternate alternate_make(size_t size)
{
    alternate a;
    stack_t s;
    a.guard = 16384;
    a.size = size;
    a.base = (unsigned char *)mmap(NULL, a.guard + ((size + 4095) & ~(size_t)4095), PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (a.base == MAP_FAILED) exit(1);
    memset(a.base, 0xA5, a.guard);
    a.stack = a.base + a.guard;
    memset(&s, 0, sizeof s);
    s.ss_sp = a.stack;
    s.ss_size = size;
    if (sigaltstack(&s, NULL) != 0) exit(1);
    return a;
}

static bool alternate_intact(const alternate *a)
{
    for (size_t i = 0; i < a->guard; i++) if (a->base[i] != 0xA5) return false;
    return true;
}

static void alternate_drop(alternate *a)
{
    stack_t s;
    memset(&s, 0, sizeof s);
    s.ss_flags = SS_DISABLE;
    sigaltstack(&s, NULL);
    munmap(a->base, a->guard + ((a->size + 4095) & ~(size_t)4095));
}

static void on_usr1(int sig)
{
    (void)sig;
    fn_small(10000000);
}

static int altstack_child(void)
{
    cprof_desc desc = at(2000);
    cprof_stats stats;
    e2e_profile p;
    struct sigaction action;
    alternate a;
    size_t frame = (size_t)getauxval(AT_MINSIGSTKSZ);
    if (frame == 0) frame = 2048;
    note("alternate stacks: a signal frame is %zu bytes here", frame);

    /* Our handler runs on the host's alternate stack, of the smallest size plus 2 KB. */
    a = alternate_make(frame + 2048);
    check_ok(cprof_start(&desc), "alternate stack of minimum + 2 KB: start");
    fn_parent(500000000);
    check_ok(cprof_stop(), "alternate stack of minimum + 2 KB: stop");
    cprof_get_stats(&stats);
    check(stats.samples > 500, "alternate stack of minimum + 2 KB: samples arrive", "%llu", (unsigned long long)stats.samples);
    check(alternate_intact(&a), "alternate stack of minimum + 2 KB: nothing below it is touched", "the canary is damaged");
    alternate_drop(&a);

    /* A handler of the host runs there while we sample: two signal frames must fit. */
    a = alternate_make(2 * frame + 2048);
    memset(&action, 0, sizeof action);
    action.sa_handler = on_usr1;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR1, &action, NULL);
    name_thread("p-alt");
    check_ok(cprof_start(&desc), "host handler on an alternate stack: start");
    for (int i = 0; i < 40; i++) raise(SIGUSR1);
    check_ok(cprof_stop(), "host handler on an alternate stack: stop");
    p = profile_take();
    {
        uint64_t all = profile_total(&p, "p-alt", "fn_small"), rooted = 0;
        for (int i = 0; i < p.stacks; i++) {
            if (stack_has(&p.stack[i], "fn_small") && stack_has(&p.stack[i], "main")) rooted += p.stack[i].count;
        }
        check(all > 200 && rooted * 200 >= all * 199, "host handler on an alternate stack: its samples reach main",
              "%llu of %llu", (unsigned long long)rooted, (unsigned long long)all);
    }
    check(alternate_intact(&a), "host handler on an alternate stack: nothing below it is touched", "the canary is damaged");
    profile_free(&p);
    alternate_drop(&a);
    return e2e_done();
}

static void altstack(void)
{
    int status = -1;
    pid_t pid;
    fflush(stdout);
    pid = fork();                                /* it may crash: then it does so alone */
    if (pid == 0) { int code = altstack_child(); fflush(stdout); _exit(code); }
    waitpid(pid, &status, 0);
    check(status == 0, "alternate stacks: survived", "status %#x", (unsigned)status);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    altstack();
    no_room();
    forks();
    host_signal();
    blocked();
    exec_storm();
    return e2e_done();
}
