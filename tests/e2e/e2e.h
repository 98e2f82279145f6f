/* e2e.h: what the end-to-end programs share: check lines, clocks, busy loops of known CPU time,
   and a parser of folded output with sums per thread and function.

   Every program includes this file first and links with implementation.py's object; one that looks at
   private things defines E2E_IMPLEMENTATION instead. It profiles a workload whose truth it measures
   itself with the thread CPU clock, and compares. Output: one line per check, "ok - name", "not ok - name: why",
   "skip - name: why"; lines that begin with "# " are figures worth reading.

   The programs that run.py lists for it are built for Windows too, see e2e_windows.h. */
#ifndef E2E_H
#define E2E_H

#ifdef E2E_IMPLEMENTATION
#define CPROF_IMPLEMENTATION
#else
#define _GNU_SOURCE
#endif
#include "cprof.h"

#if defined(__clang__)
#define E2E_NOINLINE __attribute__((noinline, unused))
#else
#define E2E_NOINLINE __attribute__((noinline, noclone, unused))
#endif
#define E2E_HELPER __attribute__((unused)) static

/* Keeps a call from becoming a jump: the caller has something left to do after it. */
#define E2E_NO_TAIL() __asm__ volatile("" ::: "memory")

#ifdef _WIN32
#include "e2e_windows.h"
#else
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#endif

/* ---- checks ---- */

static int e2e_failures;

__attribute__((format(printf, 3, 4), unused))
static bool check(bool good, const char *name, const char *why, ...)
{
    va_list args;
    if (good) {
        printf("ok - %s\n", name);
    } else {
        e2e_failures++;
        printf("not ok - %s: ", name);
        va_start(args, why);
        vprintf(why, args);
        va_end(args);
        printf("\n");
    }
    fflush(stdout);
    return good;
}

__attribute__((format(printf, 1, 2), unused))
static void note(const char *text, ...)
{
    va_list args;
    printf("# ");
    va_start(args, text);
    vprintf(text, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
}

E2E_HELPER void skip(const char *name, const char *why)
{
    printf("skip - %s: %s\n", name, why);
    fflush(stdout);
}

E2E_HELPER bool check_ok(cprof_result result, const char *name)
{
    return check(result == CPROF_OK, name, "%s", cprof_result_string(result));
}

E2E_HELPER int e2e_done(void)
{
    return e2e_failures ? 1 : 0;
}

E2E_HELPER const char *e2e_format(const char *format, ...)
{
    static _Thread_local char ring[8][256];
    static _Thread_local unsigned next;
    char *text = ring[next++ % 8];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof ring[0], format, args);
    va_end(args);
    return text;
}

#ifndef _WIN32
#define E2E_SLEEP_FRAME "nanosleep"

/* ---- clocks ---- */

static inline uint64_t e2e_clock(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t thread_cpu(void) { return e2e_clock(CLOCK_THREAD_CPUTIME_ID); }
E2E_HELPER uint64_t process_cpu(void) { return e2e_clock(CLOCK_PROCESS_CPUTIME_ID); }
E2E_HELPER uint64_t wall(void) { return e2e_clock(CLOCK_MONOTONIC); }

/* Returns false when interrupted. */
E2E_HELPER bool nap_ns(uint64_t ns)
{
    struct timespec t = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
    return nanosleep(&t, NULL) == 0;
}

E2E_HELPER int cores(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    return CPU_COUNT(&set);
}

/* Binds the calling thread, and those it will create, to its first core, or to all again. */
E2E_HELPER void e2e_pin(bool to_one)
{
    static cpu_set_t all;
    cpu_set_t first;
    int cpu = 0;
    if (to_one) {
        sched_getaffinity(0, sizeof all, &all);
        while (!CPU_ISSET(cpu, &all)) cpu++;
        CPU_ZERO(&first);
        CPU_SET(cpu, &first);
    }
    sched_setaffinity(0, sizeof all, to_one ? &first : &all);
}

E2E_HELPER void name_thread(const char *name)
{
    pthread_setname_np(pthread_self(), name);
}

/* ---- files ---- */

E2E_HELPER FILE *e2e_open(const char *path, const char *mode) { return fopen(path, mode); }
E2E_HELPER bool e2e_exists(const char *path) { return access(path, F_OK) == 0; }
E2E_HELPER void e2e_delete(const char *path) { unlink(path); }

/* A new directory for scratch files; its name has spaces and more than ASCII. */
E2E_HELPER bool e2e_directory_make(char *path, size_t size)
{
    snprintf(path, size, "/tmp/cprof e2e \303\251\346\274\242 XXXXXX");
    return mkdtemp(path) != NULL;
}

E2E_HELPER bool e2e_directory_remove(const char *path) { return rmdir(path) == 0; }

E2E_HELPER int e2e_entries(const char *directory)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;
    int count = 0;
    if (!dir) return -1;
    while ((entry = readdir(dir)) != NULL) if (entry->d_name[0] != '.') count++;
    closedir(dir);
    return count;
}

/* ---- what goes to stderr ---- */

typedef struct { int saved; int file; } e2e_capture;

E2E_HELPER e2e_capture capture_stderr(void)
{
    char path[] = "/tmp/cprof-e2e-XXXXXX";
    e2e_capture c;
    c.file = mkstemp(path);
    unlink(path);
    c.saved = dup(2);
    dup2(c.file, 2);
    return c;
}

E2E_HELPER char *capture_end(e2e_capture c)
{
    off_t size;
    char *text;
    ssize_t got;
    dup2(c.saved, 2);
    close(c.saved);
    size = lseek(c.file, 0, SEEK_END);
    text = (char *)calloc(1, (size_t)size + 1);
    if (!text) abort();
    got = pread(c.file, text, (size_t)size, 0);
    if (got < size) text[got > 0 ? got : 0] = 0;
    close(c.file);
    return text;
}

/* ---- other processes: this program again; it sees its part by e2e_variable("E2E_CHILD") ---- */

typedef pid_t e2e_child;

E2E_HELPER const char *e2e_variable(const char *name) { return getenv(name); }

E2E_HELPER e2e_child e2e_spawn(const char *part, const char *path, const char *name, const char *value)
{
    pid_t pid = fork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setenv("E2E_CHILD", part, 1);
    if (path) setenv("E2E_PATH", path, 1);
    if (name) setenv(name, value, 1);
    execl("/proc/self/exe", "child", (char *)NULL);
    _exit(127);
}

/* Its exit status; -1 if it was not started, or died. */
E2E_HELPER int e2e_wait(e2e_child child)
{
    int status;
    if (child <= 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}

E2E_HELPER void e2e_kill(e2e_child child) { if (child > 0) kill(child, SIGKILL); }
#endif /* !_WIN32 */

/* Sleeps that long, whatever interrupts it: a thread that goes to sleep just when it is asked for its stack
   is woken. */
E2E_HELPER void wait_ns(uint64_t ns)
{
    uint64_t until = wall() + ns;
    for (uint64_t now; (now = wall()) < until;) nap_ns(until - now);
}

/* ---- busy loops ---- */

static inline __attribute__((always_inline)) uint64_t e2e_spin(uint64_t x, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}

/* Rounds of e2e_spin in a microsecond, measured once, roughly. */
static double e2e_rounds_per_us = 500;

__attribute__((constructor)) static void e2e_calibrate(void)
{
    for (int i = 0; i < 5; i++) {
        uint64_t start = thread_cpu(), took;
        __asm__ volatile("" : : "r"(e2e_spin(start, 100000)));
        took = thread_cpu() - start;
        if (i == 0 || 1e8 / (double)took > e2e_rounds_per_us) e2e_rounds_per_us = 1e8 / (double)took;
    }
}

/* Burns until the thread's own CPU clock advanced by ns; returns by how much it did. Reading that
   clock is a system call, and a signal on its way is delivered at the end of the next one: many of
   them would draw the samples to themselves. So a burst is done in one piece, nearly always. */
static inline __attribute__((always_inline)) uint64_t e2e_burn(uint64_t ns)
{
    uint64_t start = thread_cpu(), now, x = start, piece = ns < 10000000 ? ns : 10000000;
    do {
        x = e2e_spin(x, (int)((double)piece / 1000 * e2e_rounds_per_us));
        now = thread_cpu();
        if (ns - (now - start) < piece) piece = (ns - (now - start)) / 2 + 1000;
    } while (now - start < ns);
    return now - start;
}

/* BURN(name) defines a function of that name. The text in the asm keeps the compiler from folding
   two such functions into one. */
#define BURN(name)                                                  \
    E2E_NOINLINE static uint64_t name(uint64_t ns)                  \
    {                                                               \
        uint64_t used;                                              \
        __asm__ volatile("# burn " #name ::: "memory");             \
        used = e2e_burn(ns);                                        \
        E2E_NO_TAIL();                                              \
        return used;                                                \
    }

/* The same with a fixed amount of work: no clock is read, so the leaf is the function itself. */
#define SPIN(name)                                                  \
    E2E_NOINLINE static uint64_t name(int rounds)                   \
    {                                                               \
        uint64_t x;                                                 \
        __asm__ volatile("# spin " #name ::: "memory");             \
        x = e2e_spin((uint64_t)rounds, rounds);                     \
        E2E_NO_TAIL();                                              \
        return x;                                                   \
    }

/* Uniform in [0.5, 1.5) x mean: keeps a workload from marching in step with the sampler. */
E2E_HELPER uint64_t e2e_jitter(uint64_t *state, uint64_t mean)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return mean / 2 + (uint64_t)((double)(*state >> 33) / 2147483648.0 * (double)mean);
}

/* Samples of the profile being taken. Under Wine a look takes some 0.4 ms a thread, and more when the
   machine is busy, so few come of those asked for: a workload goes on until it has enough, at most
   E2E_MOST times as long as it was meant to. Elsewhere it ends on time. */
#ifdef _WIN32
enum { E2E_MOST = 20 };
/* Until the first look a thread is unsampled: ns. */
E2E_HELPER double e2e_gap(const cprof_stats *stats) { return 1e9 / (stats->hz_achieved + 0.001); }
/* What n threads' CPU times may be off in sum, ns. User and kernel time each come in steps of 10 ms; the
   difference of two readings has a sigma of 10 / sqrt(6) ms, of both 5.8 ms. */
E2E_HELPER double e2e_steps(int n) { return 4 * 5.8e6 * sqrt(n); }
#else
enum { E2E_MOST = 1 };
E2E_HELPER double e2e_gap(const cprof_stats *stats) { (void)stats; return 0; }
E2E_HELPER double e2e_steps(int n) { (void)n; return 0; }
#endif
E2E_HELPER bool e2e_enough(uint64_t samples)
{
    cprof_stats stats;
    cprof_get_stats(&stats);
    return stats.samples >= samples;
}

/* Whether the workload goes on, which has had `used` of `planned`. Asked seldom: whoever waits for the
   stats goes on when a look is over, and would march in step with the sampler. */
E2E_HELPER bool e2e_goes_on(uint64_t used, uint64_t planned, uint64_t samples)
{
    static uint64_t asked;
    uint64_t before = __atomic_load_n(&asked, __ATOMIC_RELAXED), now;
    if (used < planned || E2E_MOST == 1) return used < planned;
    if (used >= E2E_MOST * planned) return false;
    now = wall();
    if (now - before < 500000000 || !__atomic_compare_exchange_n(&asked, &before, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        return true;
    }
    return !e2e_enough(samples);
}

/* Whether other processes took the CPU away meanwhile: `threads` busy ones had less than 95% of
   what they could have. Statistics of such a run are poor: it is repeated, a few times at most, and
   the last run counts whatever it was. Real faults show in every run. */
E2E_HELPER bool e2e_disturbed(uint64_t cpu_ns, uint64_t wall_ns, int threads)
{
    int most = threads < cores() ? threads : cores();
    return (double)cpu_ns < 0.95 * (double)wall_ns * most;
}
enum { E2E_TRIES = 3 };

/* ---- folded profiles ---- */

typedef struct { char **frame; int frames; uint64_t count; } e2e_stack;   /* frame[0]: the thread */
typedef struct {
    char *text; size_t size, capacity;
    e2e_stack *stack; int stacks;
    uint64_t count;                         /* sum of all stacks */
    const char *malformed;                  /* what is wrong, or NULL */
} e2e_profile;

E2E_HELPER void e2e_append(e2e_profile *p, const void *data, size_t size)
{
    if (p->size + size + 1 > p->capacity) {
        p->capacity = (p->size + size + 1) * 2;
        p->text = (char *)realloc(p->text, p->capacity);
        if (!p->text) abort();
    }
    memcpy(p->text + p->size, data, size);
    p->size += size;
    p->text[p->size] = 0;
}

/* Splits p->text in place. The format: frames joined by ';', one space, a count, a newline. */
E2E_HELPER void e2e_parse(e2e_profile *p)
{
    char *line = p->text, *end;
    int capacity = 0;
    if (p->size && p->text[p->size - 1] != '\n') p->malformed = "no newline at the end";
    for (; line && *line; line = end + 1) {
        e2e_stack s = { NULL, 0, 0 };
        char *space, *digit;
        int semicolons = 0;
        end = strchr(line, '\n');
        if (!end) break;
        *end = 0;
        space = strrchr(line, ' ');
        if (!space || space == line || !space[1]) { p->malformed = "line without a count"; continue; }
        for (digit = space + 1; *digit; digit++) {
            if (*digit < '0' || *digit > '9') p->malformed = "count is not a number";
        }
        s.count = strtoull(space + 1, NULL, 10);
        if (s.count == 0) p->malformed = "count of zero";
        if (space[-1] == ' ') p->malformed = "two spaces before the count";
        *space = 0;
        for (char *c = line; *c; c++) {
            if ((unsigned char)*c < 32) p->malformed = "control character";
            if (*c == ';') semicolons++;
        }
        s.frame = (char **)malloc(sizeof(char *) * (size_t)(semicolons + 1));
        if (!s.frame) abort();
        for (char *f = line; f;) {
            char *semicolon = strchr(f, ';');
            if (semicolon) *semicolon = 0;
            if (!*f) p->malformed = "empty frame";
            s.frame[s.frames++] = f;
            f = semicolon ? semicolon + 1 : NULL;
        }
        if (p->stacks == capacity) {
            capacity = capacity ? capacity * 2 : 256;
            p->stack = (e2e_stack *)realloc(p->stack, sizeof(e2e_stack) * (size_t)capacity);
            if (!p->stack) abort();
        }
        p->stack[p->stacks++] = s;
        p->count += s.count;
    }
}

E2E_HELPER void profile_free(e2e_profile *p)
{
    for (int i = 0; i < p->stacks; i++) free(p->stack[i].frame);
    free(p->stack);
    free(p->text);
    memset(p, 0, sizeof *p);
}

E2E_HELPER bool e2e_receive(void *user, const void *data, size_t size)
{
    e2e_append((e2e_profile *)user, data, size);
    return true;
}

/* The profile in memory, now. Complains in a check line when it is refused or malformed. */
E2E_HELPER e2e_profile profile_take(void)
{
    e2e_profile p;
    cprof_result result;
    memset(&p, 0, sizeof p);
    result = cprof_write_to(e2e_receive, &p, CPROF_FOLDED);
    if (result != CPROF_OK) {
        check(false, "cprof_write_to", "%s", cprof_result_string(result));
    }
    e2e_parse(&p);
    if (p.malformed) check(false, "folded output is well formed", "%s", p.malformed);
    return p;
}

E2E_HELPER bool e2e_read_file(const char *path, e2e_profile *p)
{
    char block[65536];
    size_t got;
    FILE *file = e2e_open(path, "rb");
    memset(p, 0, sizeof *p);
    if (!file) return false;
    while ((got = fread(block, 1, sizeof block, file)) > 0) e2e_append(p, block, got);
    fclose(file);
    return true;
}

E2E_HELPER bool profile_read(const char *path, e2e_profile *p)
{
    memset(p, 0, sizeof *p);
    if (!e2e_read_file(path, p)) return false;
    e2e_parse(p);
    return !p->malformed;
}

/* foo matches foo, and the compiler's clones foo.part.0, foo.cold. */
E2E_HELPER bool e2e_is(const char *frame, const char *name)
{
    size_t n = strlen(name);
    return strncmp(frame, name, n) == 0 && (frame[n] == 0 || frame[n] == '.');
}

E2E_HELPER bool stack_has(const e2e_stack *s, const char *name)
{
    for (int i = 1; i < s->frames; i++) if (e2e_is(s->frame[i], name)) return true;
    return false;
}

E2E_HELPER bool stack_of(const e2e_stack *s, const char *thread)
{
    return !thread || strcmp(s->frame[0], thread) == 0;
}

/* Sums; thread NULL means any. total counts a stack once however often the name is on it. */
E2E_HELPER uint64_t profile_total(const e2e_profile *p, const char *thread, const char *name)
{
    uint64_t sum = 0;
    for (int i = 0; i < p->stacks; i++) {
        if (stack_of(&p->stack[i], thread) && stack_has(&p->stack[i], name)) sum += p->stack[i].count;
    }
    return sum;
}

E2E_HELPER uint64_t profile_self(const e2e_profile *p, const char *thread, const char *name)
{
    uint64_t sum = 0;
    for (int i = 0; i < p->stacks; i++) {
        const e2e_stack *s = &p->stack[i];
        if (stack_of(s, thread) && s->frames > 1 && e2e_is(s->frame[s->frames - 1], name)) sum += s->count;
    }
    return sum;
}

E2E_HELPER uint64_t profile_thread(const e2e_profile *p, const char *thread)
{
    uint64_t sum = 0;
    for (int i = 0; i < p->stacks; i++) if (stack_of(&p->stack[i], thread)) sum += p->stack[i].count;
    return sum;
}

E2E_HELPER void profile_print(const e2e_profile *p)
{
    for (int i = 0; i < p->stacks; i++) {
        printf("#   ");
        for (int k = 0; k < p->stack[i].frames; k++) printf("%s%s", k ? ";" : "", p->stack[i].frame[k]);
        printf(" %llu\n", (unsigned long long)p->stack[i].count);
    }
    fflush(stdout);
}

E2E_HELPER int count_lines(const char *text)
{
    int lines = 0;
    for (; *text; text++) if (*text == '\n') lines++;
    return lines;
}

#ifndef _WIN32
/* ---- the kernel's own counts ---- */

/* How often the thread went to sleep or was taken off the CPU; -1 when unknown. */
E2E_HELPER long e2e_switches(pid_t tid)
{
    e2e_profile file;
    long sum = -1;
    if (!e2e_read_file(e2e_format("/proc/self/task/%d/status", (int)tid), &file)) return -1;
    for (char *at = file.text; at && (at = strstr(at, "ctxt_switches:")) != NULL; at++) {
        if (sum < 0) sum = 0;
        sum += strtol(at + strlen("ctxt_switches:"), NULL, 10);
    }
    free(file.text);
    return sum;
}

/* ---- what the process has ---- */

E2E_HELPER long resident_kb(void)
{
    e2e_profile file;
    long kb = -1;
    char *at;
    if (!e2e_read_file("/proc/self/status", &file)) return -1;
    at = strstr(file.text, "VmRSS:");
    if (at) kb = strtol(at + 6, NULL, 10);
    free(file.text);
    return kb;
}

E2E_HELPER long mappings(void)
{
    e2e_profile file;
    long lines;
    if (!e2e_read_file("/proc/self/maps", &file)) return -1;
    lines = count_lines(file.text);
    free(file.text);
    return lines;
}

E2E_HELPER int descriptors(void) { return e2e_entries("/proc/self/fd"); }
E2E_HELPER int tasks(void) { return e2e_entries("/proc/self/task"); }
#endif

#endif /* E2E_H */
