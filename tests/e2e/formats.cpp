/* formats: takes profiles of threads and functions whose names are traps for readers, and writes each in
   every format from the same state; formats.py reads the files. What only this process can check, how
   writing fails, is checked here.

   Usage: formats DIRECTORY MILLISECONDS [begin], with a line on stdout for each check; figures go to DIRECTORY. */
#define CPROF_IMPLEMENTATION
#include "cprof.h"

#include <pthread.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#ifndef _WIN32
#include <sys/stat.h>
#endif

#if defined(__clang__)
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE __attribute__((noinline, noclone))
#endif

/* ---- checks ---- */

static int failures;
static std::string directory;
static double burn_ms;

static void check(bool good, const std::string &name, const std::string &why = "") {
    if (good) {
        printf("ok - %s\n", name.c_str());
    } else {
        failures++;
        printf("not ok - %s: %s\n", name.c_str(), why.c_str());
    }
    fflush(stdout);
}

static void check_result(cprof_result got, cprof_result expected, const std::string &name) {
    check(got == expected, name, cprof_result_string(got));
}

static std::string in(const std::string &name) { return directory + "/" + name; }

static bool exists(const std::string &path) {
    FILE *file = fopen(path.c_str(), "rb");
    if (file) fclose(file);
    return file != nullptr;
}

static double cpu_ms() {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* ---- the work ---- */

/* formats.py looks for this line in pprof's listing of the source. */
static inline __attribute__((always_inline)) uint64_t mix(uint64_t x) {
    for (int i = 0; i < 20000; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u; /* the hottest line */
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}

static inline __attribute__((always_inline)) uint64_t checked(uint64_t x) {
    uint64_t y = mix(x);
    return y ? y : x;
}

namespace evm {

template <int n> NOINLINE uint64_t repeat(uint64_t x) {
    for (int i = 0; i < n; i++) x = checked(x);
    return x + 1;
}

struct Stack {
    uint64_t top;
    NOINLINE Stack &operator<<(uint64_t x) {
        top += mix(x);
        __asm__ volatile("" ::: "memory");
        return *this;
    }
};

}

namespace {

/* Begins with '(' when it is demangled. */
NOINLINE uint64_t hidden(uint64_t x) {
    x = mix(x);
    __asm__ volatile("" : "+r"(x));
    return x + 2;
}

}

extern "C" NOINLINE uint64_t plain_c(uint64_t x) {
    x = mix(x);
    __asm__ volatile("" : "+r"(x));
    return x + 3;
}

/* An address of its own for each depth, and one function. */
extern "C" NOINLINE uint64_t descend(uint64_t x, int depth) {
    if (depth > 0) x = descend(x, depth - 1);
    else x = plain_c(x);
    __asm__ volatile("" : "+r"(x));
    return x + 4;
}

static volatile uint64_t sink;

/* Burns this thread's CPU time in fn; the clock, dear under Wine, is read once a millisecond or so. */
template <class F> static inline void burn(double ms, F fn) {
    double end = cpu_ms() + ms;
    uint64_t x = 1;
    while (cpu_ms() < end)
        for (int i = 0; i < 40; i++) x = fn(x);
    sink = x;
}

struct Job {
    const char *name;
    void (*body)();
    uint32_t tid;
    pthread_t thread;
};

static void body_repeat() { burn(burn_ms * 3, [](uint64_t x) { return evm::repeat<3>(x); }); }
static void body_hidden() { burn(burn_ms, hidden); }
static void body_plain() { burn(burn_ms, plain_c); }
static void body_stack() {
    evm::Stack stack = {1};
    burn(burn_ms, [&](uint64_t x) { return (stack << x).top; });
}
static void body_descend() {
    for (int depth = 0; depth < 40; depth++)
        burn(burn_ms / 20, [=](uint64_t x) { return descend(x, depth); });
}

static uint32_t own_tid() {
#ifdef _WIN32
    return GetCurrentThreadId();
#else
    return (uint32_t)syscall(SYS_gettid);
#endif
}

static void *job_main(void *argument) {
    Job *job = (Job *)argument;
    job->tid = own_tid();
    cprof_thread_name(job->name);
    job->body();
    return nullptr;
}

static void run_jobs(std::vector<Job> &jobs) {
    for (Job &job : jobs) pthread_create(&job.thread, nullptr, job_main, &job);
    for (Job &job : jobs) pthread_join(job.thread, nullptr);
}

/* ---- what is written ---- */

struct Format {
    const char *ending;
    cprof_format format;
};
static const Format formats[] = {{".folded", CPROF_FOLDED},
                                 {".pb", CPROF_PPROF},
                                 {".pb.gz", CPROF_PPROF_GZ},
                                 {".perf.txt", CPROF_PERF_SCRIPT}};

/* Every format by the ending of its name; and what formats.py compares with. */
static void write_all(const std::string &name, const std::vector<Job> &jobs, uint64_t before) {
    cprof_stats stats;
    FILE *facts;
    for (const Format &f : formats)
        check_result(cprof_write(in(name + f.ending).c_str(), CPROF_AUTO), CPROF_OK,
                     name + f.ending + " is written");
    cprof_get_stats(&stats);
    facts = fopen(in(name + ".facts").c_str(), "wb");
    if (!facts) abort();
    fprintf(facts, "samples %" PRIu64 "\nlost %" PRIu64 "\ntruncated %" PRIu64 "\n", stats.samples, stats.lost,
            stats.truncated);
    fprintf(facts, "weight_ns %" PRIu64 "\nunsampled_ns %" PRIu64 "\nduration_ns %" PRIu64 "\n", stats.weight_ns,
            stats.unsampled_ns, stats.duration_ns);
    fprintf(facts, "hz %.0f\npid %lu\nbefore %" PRIu64 "\nafter %" PRIu64 "\n", stats.hz,
#ifdef _WIN32
            (unsigned long)GetCurrentProcessId(),
#else
            (unsigned long)getpid(),
#endif
            before, cprofi_os_calendar());
    fprintf(facts, "main_tid %lu\n", (unsigned long)own_tid());
    for (const Job &job : jobs) fprintf(facts, "thread %lu %s\n", (unsigned long)job.tid, job.name);
    fclose(facts);
}

static uint64_t start(cprof_desc *desc) {
    uint64_t now = cprofi_os_calendar();
    desc->quiet = true;
    if (!desc->hz) desc->hz = 1000;
    if (cprof_start(desc) != CPROF_OK) abort();
    return now;
}

/* ---- writing that fails ---- */

struct Refusal {
    long calls, refuse_at;
    std::string data;
};

static bool refuse(void *user, const void *data, size_t size) {
    Refusal *r = (Refusal *)user;
    r->data.append((const char *)data, size);
    return ++r->calls != r->refuse_at;
}

static void check_refusals() {
    for (const Format &f : formats) {
        Refusal whole = {0, 0, ""}, again = {0, 0, ""};
        bool good = cprof_write_to(refuse, &whole, f.format) == CPROF_OK;
        std::string why = "not written whole";
        for (long k = 1; good && k <= whole.calls; k += k < 4 || k >= whole.calls - 2 ? 1 : whole.calls - 2 - k) {
            Refusal r = {0, k, ""};
            cprof_result result = cprof_write_to(refuse, &r, f.format);
            good = result == CPROF_ERROR_WRITE && r.calls == k && whole.data.compare(0, r.data.size(), r.data) == 0;
            why = "call " + std::to_string(k) + ": " + cprof_result_string(result) + ", " + std::to_string(r.calls) + " calls";
        }
        check(good, std::string(f.ending) + ": what a write function refuses is an error and ends the writing", why);
        check(cprof_write_to(refuse, &again, f.format) == CPROF_OK && again.data == whole.data,
              std::string(f.ending) + ": written twice, equal bytes");
        FILE *file = fopen(in("whole" + std::string(f.ending)).c_str(), "wb");
        if (!file || fwrite(whole.data.data(), 1, whole.data.size(), file) != whole.data.size()) abort();
        fclose(file);
    }
}

static void check_arguments() {
    std::string nowhere = in("no-such-directory/x"), other = in("named.anything");
    for (const Format &f : formats) {
        check_result(cprof_write((nowhere + f.ending).c_str(), CPROF_AUTO), CPROF_ERROR_OUTPUT,
                     std::string(f.ending) + ": a path that cannot be written is an error");
        check_result(cprof_write(other.c_str(), f.format), CPROF_OK,
                     std::string(f.ending) + ": chosen by the argument");
        remove(in("argument" + std::string(f.ending)).c_str());
        check(rename(other.c_str(), in("argument" + std::string(f.ending)).c_str()) == 0 && !exists(other),
              std::string(f.ending) + ": under the name that was asked for");
    }
    check_result(cprof_write(other.c_str(), (cprof_format)(CPROF_PERF_SCRIPT + 1)), CPROF_ERROR_ARGUMENT,
                 "a format that does not exist is refused");
    check(!exists(other), "and leaves no file");
#ifdef __linux__
    check_result(cprof_write("/dev/full", CPROF_PPROF_GZ), CPROF_ERROR_OUTPUT, "a full disk is an error");
#endif
}

static void check_no_profile() {
    for (const Format &f : formats) {
        Refusal r = {0, 0, ""};
        check(cprof_write_to(refuse, &r, f.format) == CPROF_ERROR_NO_PROFILE && r.calls == 0,
              std::string(f.ending) + ": no profile, no file");
        check_result(cprof_write(in("none" + std::string(f.ending)).c_str(), CPROF_AUTO), CPROF_ERROR_NO_PROFILE,
                     std::string(f.ending) + ": no profile, an error");
        check(!exists(in("none" + std::string(f.ending))), std::string(f.ending) + ": and no file");
    }
}

/* ---- profiles ---- */

#ifdef __linux__
static void copy_maps() {
    char buffer[65536];
    size_t n;
    FILE *from = fopen("/proc/self/maps", "rb"), *to = fopen(in("maps").c_str(), "wb");
    if (!from || !to) abort();
    while ((n = fread(buffer, 1, sizeof buffer, from)) > 0) fwrite(buffer, 1, n, to);
    fclose(from);
    fclose(to);
}

/* Code made at run time that counts down from its argument, named as its compiler pleases. */
typedef uint64_t (*Jit)(uint64_t);
static Jit jit;

static void jit_make(const std::string &name) {
    static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5,  /* push rbp; mov rbp, rsp */
                                         0x48, 0xff, 0xcf,        /* dec rdi */
                                         0x75, 0xfb,              /* jnz there */
                                         0x48, 0x89, 0xf8, 0x5d, 0xc3}; /* mov rax, rdi; pop rbp; ret */
    std::string path = "/tmp/perf-" + std::to_string(getpid()) + ".map";
    void *page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    FILE *map = fopen(path.c_str(), "wb");
    if (page == MAP_FAILED || !map) abort();
    memcpy(page, code, sizeof code);
    memcpy(&jit, &page, sizeof jit);
    fprintf(map, "%lx %lx %s\n", (unsigned long)(uintptr_t)page, (unsigned long)sizeof code, name.c_str());
    fclose(map);
}

static void body_jit() { burn(burn_ms, [](uint64_t x) { return jit(20000) + x; }); }
#endif

/* A long file name, and names as no reader expects them. */
static void profile_odd() {
    cprof_desc desc;
    memset(&desc, 0, sizeof desc);
    std::vector<Job> jobs = {{"#1 12/34 5.6: ", body_plain, 0, pthread_t()},
                             {"", body_plain, 0, pthread_t()},
                             {"\xc3\xa9\xe6\xbc\xa2\xff;\t\xe6", body_hidden, 0, pthread_t()}};
#ifdef __linux__
    jit_make("(js) " + std::string(3900, 'x') + "; [\xe6\xbc\xa2\xff] \x01+0x12 (a b) end");
    jobs.push_back({"jit", body_jit, 0, pthread_t()});
#endif
    uint64_t before = start(&desc);
    run_jobs(jobs);
    cprof_stop();
    write_all("odd", jobs, before);
#ifdef __linux__
    remove(("/tmp/perf-" + std::to_string(getpid()) + ".map").c_str());
#endif
}

/* A table that is soon full, and stacks that are cut. */
static void profile_full() {
    cprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.max_stacks = 8;
    desc.max_depth = 3;
    std::vector<Job> jobs = {{"full", body_descend, 0, pthread_t()}, {"full", body_stack, 0, pthread_t()}};
    uint64_t before = start(&desc);
    run_jobs(jobs);
    cprof_stop();
    write_all("full", jobs, before);
}

static void profile_wall() {
    cprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.clock = CPROF_WALL;
    desc.lines = true;
    std::vector<Job> jobs = {{"walker", body_stack, 0, pthread_t()}};
    uint64_t before = start(&desc);
    run_jobs(jobs);
    cprof_stop();
    write_all("wall", jobs, before);
}

/* Nothing in it but what could not be sampled, if that. */
static void profile_empty() {
    cprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.hz = 1;
    uint64_t before = start(&desc);
    cprof_pause();
    cprof_reset();
    cprof_stop();
    write_all("empty", std::vector<Job>(), before);
}

/* The same profile again, as if the threads after the first had had one id, one after the other. */
static void reuse_id(const std::vector<Job> &jobs, uint64_t before) {
    cprofi_session *s = cprofi.session;
    std::vector<Job> others = jobs;
    std::vector<uint32_t> tids;
    for (uint32_t i = 0; i < s->thread_count; i++) {
        tids.push_back(s->threads[i].tid);
        for (size_t k = 1; k < jobs.size(); k++)
            if (s->threads[i].tid == jobs[k].tid) others[k].tid = s->threads[i].tid = jobs[1].tid;
    }
    write_all("reused", others, before);
    for (uint32_t i = 0; i < s->thread_count; i++) s->threads[i].tid = tids[i];
}

static void profile_main() {
    cprof_desc desc;
    memset(&desc, 0, sizeof desc);
    /* Two of one name; a name that ends in a number; one of a single letter. */
    std::vector<Job> jobs = {{"worker 12", body_repeat, 0, pthread_t()}, {"b", body_hidden, 0, pthread_t()},
                             {"twin", body_plain, 0, pthread_t()},       {"twin", body_descend, 0, pthread_t()},
                             {"stack", body_stack, 0, pthread_t()}};
    uint64_t before = start(&desc);
    run_jobs(jobs);
    for (const Format &f : formats)
        check_result(cprof_write(in("running" + std::string(f.ending)).c_str(), CPROF_AUTO), CPROF_OK,
                     std::string(f.ending) + ": while running");
    burn(burn_ms, plain_c);
    cprof_stop();
    write_all("all", jobs, before);
    reuse_id(jobs, before);
    check_refusals();
    check_arguments();
#ifdef __linux__
    copy_maps();
#endif
}

static void profile_ending() {
    CPROF_BEGIN(in("begin.pb").c_str());
    burn(burn_ms * 2, plain_c); /* at 100 Hz, and under Wine not every look finds it */
    CPROF_END();
    check(exists(in("begin.pb")), "CPROF_BEGIN with .pb");
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    directory = argv[1];
    burn_ms = atof(argv[2]);
    if (argc > 3) { /* "begin": only this */
        profile_ending();
        return failures != 0;
    }
    check_no_profile();
    profile_main();
    profile_odd();
    profile_full();
    profile_wall();
    profile_empty();
    profile_ending();
    return failures != 0;
}
