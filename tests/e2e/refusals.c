/* refusals: what a system may refuse to a profiler, one thing at a time, each in a process of its own:
   memory, system calls (seccomp), /proc, a CPU; and what it may do to the process meanwhile: stop it, set
   the clock. Either there is a profile all the same, or cprof_start says in one sentence that there is
   none, and the program goes on as if nothing had been asked. It never crashes, and never hangs.

       refusals memory|calls|places|quota|stopped|clock|traced [SECONDS] */
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
    return now->start == CPROF_OK && now->written && !now->malformed && now->stats.samples > 10 && names &&
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

static bool empty_root(void)
{
    char path[] = "/tmp/cprof-refusals-XXXXXX";
    bool good = mkdtemp(path) && chroot(path) == 0 && chdir("/") == 0;
    if (good) return true;
    rmdir(path);
    return false;
}

static bool chroot_before(const void *unused)
{
    char path[] = "/tmp/cprof-refusals-XXXXXX";
    int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)unused, (void)here;
    if (!mkdtemp(path)) return false;
    return chroot(path) == 0 && chdir("/") == 0;
}

static void chroot_during(const void *unused) { if (!chroot_before(unused)) _exit(77); }

static bool no_proc_before(const void *unused)
{
    (void)unused;
    return enter(CLONE_NEWNS) && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("none", "/proc", "tmpfs", 0, NULL) == 0;
}

int main(int argc, char **argv)
{
    const char *scenario = argc > 1 ? argv[1] : "";
    double seconds = argc > 2 ? atof(argv[2]) : 0;
    now = (outcome *)mmap(NULL, sizeof *now, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (now == MAP_FAILED) return 2;
    (void)empty_root, (void)chroot_during, (void)no_proc_before;
    if (strcmp(scenario, "memory") == 0) memory(seconds);
    else if (strcmp(scenario, "calls") == 0) calls(seconds);
    else return 2;
    return e2e_done();
}
