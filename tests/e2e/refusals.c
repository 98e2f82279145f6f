/* refusals: what a system may refuse to a profiler, one thing at a time, each in a process of its own:
   memory, system calls (seccomp), /proc, a CPU; and what it may do to the process meanwhile: stop it, set
   the clock. Either there is a profile all the same, or cprof_start says in one sentence that there is
   none, and the program goes on as if nothing had been asked. It never crashes, and never hangs.

       refusals memory|calls|places|quota|stopped|clock [SECONDS] */
#include "e2e.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/mount.h>

enum { HZ = 2000, PATIENCE_S = 120 };

/* ---- the clock that can be set ---- */

static volatile int64_t clock_offset;      /* seconds */
static volatile bool clock_jumps;
static volatile long clock_calendar, clock_other;

/* This program's own, and so cprof's: the calendar jumps by years at every look. */
int clock_gettime(clockid_t id, struct timespec *t)
{
    long result = syscall(SYS_clock_gettime, id, t);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) {
        __atomic_add_fetch(&clock_calendar, 1, __ATOMIC_RELAXED);
        if (clock_jumps && result == 0) t->tv_sec += clock_offset = -clock_offset + (clock_offset < 0 ? 86400 : 3600);
    } else {
        __atomic_add_fetch(&clock_other, 1, __ATOMIC_RELAXED);
    }
    return (int)result;
}

/* ---- one case in one process ---- */

/* What became of it; in memory that both processes see. */
typedef struct {
    cprof_result start, stop;
    cprof_stats stats;
    uint64_t count, work, lost;            /* periods in the profile; those in fn_work */
    uint64_t inner, outer;                 /* wall time between start and stop, and around both */
    bool malformed, written, worked, ended;
    char said[512];
} outcome;

static outcome *now;

SPIN(fn_work)

static volatile bool quit;
static volatile int helper_rounds;

static void *helper_main(void *unused)
{
    (void)unused;
    while (!quit) { fn_work(100000); helper_rounds++; }
    return NULL;
}

typedef struct {
    bool (*before)(const void *argument);  /* false: it cannot be done here */
    void (*during)(const void *argument);
    const void *argument;
    int work;                              /* millions of rounds; some 2 ms each */
    cprof_clock clock;
    bool to_file;
} test_case;

static void case_run(const test_case *c)
{
    char path[64] = "";
    cprof_desc desc;
    e2e_profile p;
    pthread_t helper;
    memset(&desc, 0, sizeof desc);
    desc.hz = HZ;
    desc.clock = c->clock;
    desc.max_stacks = 4096;
    desc.quiet = true;
    snprintf(path, sizeof path, "/tmp/cprof-refusals-%d.folded", (int)getpid());
    if (c->to_file) desc.output = path;
    if (pthread_create(&helper, NULL, helper_main, NULL)) _exit(2);
    while (!helper_rounds) {}
    if (c->before && !c->before(c->argument)) _exit(77);
    now->outer = wall();
    now->start = cprof_start(&desc);
    now->inner = wall();
    if (c->during) c->during(c->argument);
    for (int i = 0; i < c->work; i++) fn_work(1000000);
    now->worked = true;
    now->inner = wall() - now->inner;
    if (now->start == CPROF_OK) now->stop = cprof_stop();
    now->outer = wall() - now->outer;
    cprof_get_stats(&now->stats);
    if (now->start == CPROF_OK) {
        memset(&p, 0, sizeof p);
        now->written = cprof_write_to(e2e_receive, &p, CPROF_FOLDED) == CPROF_OK;
        cprof_get_stats(&now->stats); /* by now files were read, or could not be */
        e2e_parse(&p);
        now->malformed = p.malformed != NULL;
        now->count = p.count;
        now->work = profile_total(&p, NULL, "fn_work");
        profile_free(&p);
    } else if (cprof_stop() == CPROF_OK || cprof_write("/dev/null", CPROF_FOLDED) == CPROF_OK) {
        _exit(3);                          /* nothing may be left of it */
    }
    quit = true;
    pthread_join(helper, NULL);
    if (c->to_file) unlink(path);
    now->ended = true;
    _exit(0);
}

enum { CASE_DONE, CASE_SKIPPED, CASE_BAD };

/* Whether the process came to its end; says so if it did not. */
static int case_start(const char *name, const test_case *c)
{
    pid_t pid, got = 0;
    int status = -1;
    uint64_t until = wall() + PATIENCE_S * 1000000000ull;
    memset(now, 0, sizeof *now);
    fflush(stdout);
    pid = fork();
    if (pid == 0) case_run(c);
    while ((got = waitpid(pid, &status, WNOHANG)) == 0 && wall() < until) nap_ns(2000000);
    if (got == 0) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        check(false, name, "it hangs: start %d, worked %d", (int)now->start, now->worked);
        return CASE_BAD;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) return CASE_SKIPPED;
    if (status == 0 && now->ended) return CASE_DONE;
    check(false, name, "status %#x, start %d", (unsigned)status, (int)now->start);
    return CASE_BAD;
}

/* There are samples, and everything is accounted for. */
static bool profile_good(void)
{
    bool names = now->work > 0 || now->stats.poor_modules > 0;
    double periods = (double)(now->stats.weight_ns + now->stats.unsampled_ns) / 1e9 * HZ;
    return now->start == CPROF_OK && now->written && !now->malformed && now->stats.samples > 0 && names &&
           fabs((double)now->count - periods) < 3;
}

static const char *outcome_text(void)
{
    return e2e_format("start %d, stop %d, %llu samples, %llu periods of work in %llu, %.0f weighed, written %d, malformed %d", (int)now->start,
                      (int)now->stop, (unsigned long long)now->stats.samples, (unsigned long long)now->work, (unsigned long long)now->count,
                      (double)(now->stats.weight_ns + now->stats.unsampled_ns) / 1e9 * HZ, now->written, now->malformed);
}

/* ---- memory ---- */

static bool memory_before(const void *argument)
{
    struct rlimit limit;
    e2e_profile file;
    unsigned long pages;
    if (!e2e_read_file("/proc/self/statm", &file)) return false;
    pages = strtoul(file.text, NULL, 10);
    free(file.text);
    limit.rlim_cur = limit.rlim_max = (rlim_t)pages * 4096 + (rlim_t)*(const long *)argument * 1024;
    return setrlimit(RLIMIT_AS, &limit) == 0;
}

static void memory(double seconds)
{
    uint64_t until = wall() + (uint64_t)(seconds * 1e9), random = 1;
    long refused = 0, taken = 0, half = 0, bad = 0, most_refused = 0, least_taken = LONG_MAX;
    while (wall() < until || !taken || !refused) {
        long kb = (long)(e2e_jitter(&random, 1 << 20) % 131072);
        test_case c = { memory_before, NULL, &kb, 6, CPROF_CPU, true };
        if (case_start("less memory", &c) != CASE_DONE) { bad++; break; }
        if (now->start != CPROF_OK) {
            refused++;
            if (kb > most_refused) most_refused = kb;
            if (now->start != CPROF_ERROR_MEMORY && now->start != CPROF_ERROR_THREAD) {
                check(false, "without memory, start says so", "%ld KB: %s", kb, outcome_text());
                bad++;
                break;
            }
        } else if (now->written) {
            taken++;
            if (kb < least_taken) least_taken = kb;
            if (!profile_good()) { check(false, "less memory: a profile is a whole one", "%ld KB: %s", kb, outcome_text()); bad++; break; }
        } else {
            half++;
        }
    }
    check(bad == 0 && refused > 0 && taken > 0, "RLIMIT_AS at random: refused or right", "%ld refused, %ld taken", refused, taken);
    note("RLIMIT_AS: %ld refused (up to %ld KB more than there was), %ld taken (from %ld KB on), %ld not written", refused, most_refused,
         taken, least_taken, half);
}

/* ---- system calls ---- */

typedef struct { long number[2]; int error; } refusal;

#if defined(__x86_64__)
#define REFUSAL_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define REFUSAL_ARCH AUDIT_ARCH_AARCH64
#else
#define REFUSAL_ARCH 0
#endif

static bool calls_before(const void *argument)
{
    const refusal *r = (const refusal *)argument;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, REFUSAL_ARCH, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)r->number[0], 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)r->number[1], 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)r->error),
    };
    struct sock_fprog program = { sizeof code / sizeof *code, code };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}

/* What must become of it: p: there is a profile; n: one without names, and it says so; w: one, but it
   cannot be written to a file; else start fails, and says what: s: SYSTEM, m: MEMORY, t: THREAD, g: SIGNAL, o: OUTPUT. */
#define CALL(name, eperm, enosys) { #name, { SYS_##name, SYS_##name }, eperm, enosys }
static const struct { const char *name; long number[2]; char eperm, enosys; } calls_list[] = {
    CALL(process_vm_readv, 'p', 'p'), CALL(perf_event_open, 'p', 'p'), CALL(timer_create, 'p', 'p'), CALL(sched_setattr, 'p', 'p'),
    CALL(sched_getscheduler, 'p', 'p'), CALL(getpriority, 'p', 'p'), CALL(prctl, 'p', 'p'), CALL(getrusage, 'p', 'p'),
    CALL(prlimit64, 'p', 'p'), CALL(ptrace, 'p', 'p'), CALL(pread64, 'n', 'n'), CALL(read, 'p', 'p'), CALL(lseek, 'p', 'p'),
    CALL(close, 'w', 'w'), CALL(madvise, 'p', 'p'), CALL(munmap, 'p', 'p'), CALL(readlink, 'p', 'p'), CALL(getcwd, 'p', 'p'),
    CALL(clock_nanosleep, 'p', 'p'), CALL(rt_sigprocmask, 'p', 'p'), CALL(tgkill, 'p', 'p'), CALL(geteuid, 'p', 'p'),
    CALL(unlink, 'p', 'p'), CALL(access, 'p', 'p'), CALL(set_robust_list, 'p', 'p'), CALL(rename, 'w', 'w'), CALL(write, 'w', 'w'),
    CALL(rt_tgsigqueueinfo, 's', 's'), CALL(getdents64, 's', 's'), CALL(clock_gettime, 's', 's'), CALL(newfstatat, 's', 's'),
    CALL(gettid, 's', 's'), CALL(openat, 'o', 'o'), CALL(rt_sigaction, 'g', 'g'), CALL(mmap, 'm', 'm'), CALL(mprotect, 't', 't'),
    CALL(clone3, 't', 'p'), { "clone and clone3", { SYS_clone, SYS_clone3 }, 't', 't' },
    { "process_vm_readv and rt_sigprocmask", { SYS_process_vm_readv, SYS_rt_sigprocmask }, 's', 's' },
};

static bool call_as_expected(char expected)
{
    switch (expected) {
    case 'p': return profile_good() && now->work > 0 && now->stop == CPROF_OK;
    case 'n': return profile_good() && now->stop == CPROF_OK && now->stats.poor_modules > 0 && now->work == 0;
    case 'w': return profile_good() && now->stop == CPROF_ERROR_OUTPUT;
    case 's': return now->start == CPROF_ERROR_SYSTEM;
    case 'm': return now->start == CPROF_ERROR_MEMORY;
    case 't': return now->start == CPROF_ERROR_THREAD;
    case 'g': return now->start == CPROF_ERROR_SIGNAL;
    case 'o': return now->start == CPROF_ERROR_OUTPUT;
    }
    return false;
}

static void calls(double seconds)
{
    uint64_t until = wall() + (uint64_t)(seconds * 1e9);
    int failures = 0, cases = 0;
    do {
        for (size_t i = 0; i < sizeof calls_list / sizeof *calls_list; i++) {
            for (int way = 0; way < 4; way += seconds > 1 ? 1 : 3) { /* in short: one of each */
                refusal r = { { calls_list[i].number[0], calls_list[i].number[1] }, way % 2 ? ENOSYS : EPERM };
                test_case c = { calls_before, NULL, &r, 8, way < 2 ? CPROF_CPU : CPROF_WALL, true };
                char expected = way % 2 ? calls_list[i].enosys : calls_list[i].eperm;
                const char *name = e2e_format("%s gives %s%s", calls_list[i].name, way % 2 ? "ENOSYS" : "EPERM", way < 2 ? "" : ", wall clock");
                int done = case_start(name, &c);
                if (done == CASE_SKIPPED) { skip("seccomp", "no filter can be set here"); return; }
                cases++;
                if (done == CASE_DONE && call_as_expected(expected)) continue;
                failures++;
                if (done == CASE_DONE) check(false, name, "expected %c: %s", expected, outcome_text());
            }
        }
    } while (wall() < until && !failures);
    check(failures == 0, "system calls refused by seccomp: a profile or an error, as it should be", "%d of %d are not", failures, cases);
    note("%d cases with system calls refused", cases);
}

/* ---- places ---- */

/* With a user name space of its own anybody is root in it; where that is forbidden and this is not root,
   it cannot be tried. */
static bool enter(int flags)
{
    return unshare(flags) == 0 || unshare(flags | CLONE_NEWUSER) == 0;
}

static bool chroot_before(const void *unused)
{
    char path[] = "/tmp/cprof-refusals-XXXXXX";
    (void)unused;
    if (geteuid() != 0 && unshare(CLONE_NEWUSER) != 0) return false;
    if (!mkdtemp(path) || chroot(path) != 0) return false;
    return chdir("/") == 0;
}

static void chroot_during(const void *unused) { if (!chroot_before(unused)) _exit(77); }

static bool no_proc_before(const void *unused)
{
    (void)unused;
    return enter(CLONE_NEWNS) && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("none", "/proc", "tmpfs", 0, NULL) == 0;
}

/* In a pid name space of its own, with the /proc of the outer one, or with its own where nobody sees the
   processes of others, as a user who may not be looked at. Makes the first process of it, whose status is
   that of this one; such a case has no second thread. */
static bool pids_before(const void *argument)
{
    pid_t pid;
    int status = -1;
    if (!enter(CLONE_NEWPID | CLONE_NEWNS)) return false;
    pid = fork();
    if (pid != 0) {
        waitpid(pid, &status, 0);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 4);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (*(const char *)argument == 'o') return true;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || mount("proc", "/proc", "proc", 0, "hidepid=2") != 0) return false;
    return geteuid() != 0 || (setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0 && prctl(PR_GET_DUMPABLE) == 0) ||
           prctl(PR_SET_DUMPABLE, 0) == 0;
}

static void no_dump_during(const void *unused)
{
    (void)unused;
    prctl(PR_SET_DUMPABLE, 0);
}

static void place(const char *name, const test_case *c, char expected)
{
    switch (case_start(name, c)) {
    case CASE_SKIPPED: skip(name, "not permitted here"); break;
    case CASE_DONE:
        check(expected == 'e' ? profile_good() && now->stop == CPROF_OK : call_as_expected(expected), name, "%s", outcome_text());
    }
}

static void places(void)
{
    const test_case changed = { chroot_before, NULL, NULL, 20, CPROF_CPU, false }, changing = { NULL, chroot_during, NULL, 20, CPROF_CPU, false },
                    no_proc = { no_proc_before, NULL, NULL, 20, CPROF_CPU, false }, outer = { pids_before, NULL, "outer", 20, CPROF_CPU, false },
                    hidden = { pids_before, NULL, "hidden", 20, CPROF_CPU, false }, wall_hidden = { pids_before, NULL, "hidden", 20, CPROF_WALL, false },
                    closed = { NULL, no_dump_during, NULL, 20, CPROF_CPU, true };
    place("chroot to an empty directory: start says that /proc is missing, the program goes on", &changed, 's');
    place("chroot in the middle of a profile: it goes on, at worst without names", &changing, 'e');
    place("no /proc: start says so, the program goes on", &no_proc, 's');
    place("the /proc of another pid name space: start says so", &outer, 's');
    place("/proc mounted with hidepid, a user who may not be looked at: a whole profile", &hidden, 'p');
    place("the same by the wall clock", &wall_hidden, 'p');
    place("not dumpable from the middle of a profile on", &closed, 'p');
    check(strstr(cprof_result_string(CPROF_ERROR_SYSTEM), "/proc") != NULL, "the sentence for it names /proc", "%s",
          cprof_result_string(CPROF_ERROR_SYSTEM));
}

/* ---- a fraction of a CPU ---- */

static char group[128];

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0) close(fd);
    return good;
}

/* A control group, of either version, that gets 20 ms of CPU time each 100 ms. */
static bool quota_make(void)
{
    snprintf(group, sizeof group, "/sys/fs/cgroup/cpu/cprof-stress-%d", (int)getpid());
    if (mkdir(group, 0755) == 0)
        return write_text(e2e_format("%s/cpu.cfs_period_us", group), "100000") && write_text(e2e_format("%s/cpu.cfs_quota_us", group), "20000");
    snprintf(group, sizeof group, "/sys/fs/cgroup/cprof-stress-%d", (int)getpid());
    write_text("/sys/fs/cgroup/cgroup.subtree_control", "+cpu");
    return mkdir(group, 0755) == 0 && write_text(e2e_format("%s/cpu.max", group), "20000 100000");
}

static bool quota_before(const void *unused)
{
    (void)unused;
    return write_text(e2e_format("%s/cgroup.procs", group), "0");
}

static void quota(void)
{
    const test_case c = { quota_before, NULL, NULL, 60, CPROF_CPU, true };
    const char *name = "20% of a CPU: a whole profile";
    if (!quota_make()) {
        skip(name, "no control group can be made here");
    } else {
        int done = case_start(name, &c);
        if (done == CASE_SKIPPED) skip(name, "the control group cannot be entered");
        if (done == CASE_DONE) {
            check(profile_good() && now->stop == CPROF_OK && now->work > 0, name, "%s", outcome_text());
            check(now->stats.duration_ns >= now->inner && now->stats.duration_ns <= now->outer, "its duration is right", "%.3f s, not %.3f to %.3f",
                  (double)now->stats.duration_ns / 1e9, (double)now->inner / 1e9, (double)now->outer / 1e9);
            /* else it was not throttled, and nothing was tried */
            check((double)now->stats.cpu_ns < 0.6 * (double)now->inner, "and it was held back", "%.3f s of CPU in %.3f s",
                  (double)now->stats.cpu_ns / 1e9, (double)now->inner / 1e9);
            note("20%% of a CPU: %s, %.0f Hz, %.1f ms late at worst", outcome_text(), now->stats.hz_achieved, (double)now->stats.late_max_ns / 1e6);
        }
    }
    rmdir(group);
}

/* ---- stopped and continued ---- */

static volatile long poll_interrupted;
static int poll_pipe[2];

static void *poll_main(void *unused)
{
    struct pollfd one = { poll_pipe[0], POLLIN, 0 };
    (void)unused;
    while (poll(&one, 1, -1) < 0 && errno == EINTR) poll_interrupted++;
    return NULL;
}

/* Another process stops this one, and lets it go on, as often as the argument says. Then CPU time, and not
   the time it stood still, must be in the profile. SIGCONT makes every thread run for some microseconds, also
   those that sleep: who is looked at just then is interrupted, as the README's limits say. At worst that is
   one look each time. */
static void stopped_during(const void *argument)
{
    pid_t parent = getpid(), pid;
    pthread_t sleeper;
    int status = -1;
    char byte = 0;
    if (pipe(poll_pipe) || pthread_create(&sleeper, NULL, poll_main, NULL)) _exit(5);
    pid = fork();
    if (pid == 0) {
        for (int i = 0; i < *(const int *)argument; i++) {
            nap_ns(5000000);
            kill(parent, SIGSTOP);
            nap_ns(i % 10 == 9 ? 100000000 : 5000000);
            kill(parent, SIGCONT);
        }
        _exit(0);
    }
    while (waitpid(pid, &status, WNOHANG) == 0) fn_work(100000);
    snprintf(now->said, sizeof now->said, "%ld", poll_interrupted);
    if (write(poll_pipe[1], &byte, 1) != 1) _exit(6);
    pthread_join(sleeper, NULL);
}

static void stopped(double seconds)
{
    int times = 20 + (int)(seconds * 40);
    const test_case c = { NULL, stopped_during, &times, 1, CPROF_CPU, true };
    const char *name = "SIGSTOP and SIGCONT: a whole profile";
    if (case_start(name, &c) != CASE_DONE) return;
    check(profile_good() && now->stop == CPROF_OK && now->work > 0, name, "%s", outcome_text());
    check(atol(now->said) <= times, "a sleeper is interrupted once each time at most", "%s of %d times it was interrupted", now->said, times);
    note("of %d times a sleeper was interrupted %s times", times, now->said);
    check(now->stats.duration_ns >= now->inner && now->stats.duration_ns <= now->outer, "the duration is right", "%.3f s, not %.3f to %.3f",
          (double)now->stats.duration_ns / 1e9, (double)now->inner / 1e9, (double)now->outer / 1e9);
    note("%d times stopped: %s", times, outcome_text());
}

/* ---- the clock is set ---- */

static bool clock_before(const void *argument)
{
    clock_offset = 1;
    clock_jumps = *(const bool *)argument;
    clock_calendar = 0;
    return true;
}

static void clock_during(const void *unused)
{
    (void)unused;
    snprintf(now->said, sizeof now->said, "%ld", clock_calendar);
}

static void clock_set(double seconds)
{
    const bool jumps = true;
    const test_case cases[2] = { { clock_before, clock_during, &jumps, 60 + (int)(seconds * 200), CPROF_CPU, true },
                                 { clock_before, clock_during, &jumps, 60, CPROF_WALL, true } };
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "the clock is set, wall clock: a whole profile" : "the clock is set: a whole profile";
        if (case_start(name, &cases[i]) != CASE_DONE) continue;
        check(profile_good() && now->stop == CPROF_OK && now->work > 0, name, "%s", outcome_text());
        check(now->stats.duration_ns >= now->inner && now->stats.duration_ns <= now->outer, "its duration is right", "%.3f s, not %.3f to %.3f",
              (double)now->stats.duration_ns / 1e9, (double)now->inner / 1e9, (double)now->outer / 1e9);
        check(atol(now->said) > 0, "and the clock that jumps is the one that cprof reads", "it does not read this one");
    }
}

int main(int argc, char **argv)
{
    const char *scenario = argc > 1 ? argv[1] : "";
    double seconds = argc > 2 ? atof(argv[2]) : 0;
    now = (outcome *)mmap(NULL, sizeof *now, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (now == MAP_FAILED) return 2;
    if (strcmp(scenario, "memory") == 0) memory(seconds);
    else if (strcmp(scenario, "calls") == 0) calls(seconds);
    else if (strcmp(scenario, "places") == 0) places();
    else if (strcmp(scenario, "quota") == 0) quota();
    else if (strcmp(scenario, "stopped") == 0) stopped(seconds);
    else if (strcmp(scenario, "clock") == 0) clock_set(seconds);
    else return 2;
    return e2e_done();
}
