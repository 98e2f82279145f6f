/* linux.h: what the tests for Windows ask of the Linux below Wine, by bare system calls. */
#ifndef TESTS_WINDOWS_LINUX_H
#define TESTS_WINDOWS_LINUX_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LINUX_READ = 0,
    LINUX_OPEN = 2,
    LINUX_CLOSE = 3,
    LINUX_PREAD = 17,
    LINUX_GETTID = 186,
    LINUX_GETDENTS64 = 217,
    LINUX_CLOCK_GETTIME = 228,
    LINUX_SCHED_SETATTR = 314
};
enum { LINUX_PROCESS_CPUTIME = 2, LINUX_THREAD_CPUTIME = 3 };

static inline long linux_call(long number, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d)
{
    long result;
    register uintptr_t r10 __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

static inline uint64_t linux_clock(long id)
{
    int64_t t[2] = { 0, 0 };
    if (linux_call(LINUX_CLOCK_GETTIME, (uintptr_t)id, (uintptr_t)t, 0, 0) != 0) return 0;
    return (uint64_t)t[0] * 1000000000u + (uint64_t)t[1];
}

/* Asks for a short slice for every thread in `directory` whose name begins with `prefix`; returns
   how many got it. */
static inline int linux_make_prompt(const char *directory, const char *prefix)
{
    struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t slice, deadline, period; }
        attr = { 48, 0, 0, 0, 0, 100000, 0, 0 };
    char entries[8192], path[64], name[16];
    long dir = linux_call(LINUX_OPEN, (uintptr_t)directory, 0200000 /* O_DIRECTORY */, 0, 0), n;
    int done = 0;
    while (dir >= 0 && (n = linux_call(LINUX_GETDENTS64, (uintptr_t)dir, (uintptr_t)entries, sizeof entries, 0)) > 0) {
        uint16_t size;
        for (long at = 0; at < n; at += size) {
            const char *tid = entries + at + 19;
            long file;
            memcpy(&size, entries + at + 16, sizeof size);
            snprintf(path, sizeof path, "%s/%.20s/comm", directory, tid);
            if (*tid < '0' || *tid > '9' || (file = linux_call(LINUX_OPEN, (uintptr_t)path, 0, 0, 0)) < 0) continue;
            memset(name, 0, sizeof name);
            linux_call(LINUX_READ, (uintptr_t)file, (uintptr_t)name, sizeof name - 1, 0);
            linux_call(LINUX_CLOSE, (uintptr_t)file, 0, 0, 0);
            if (strncmp(name, prefix, strlen(prefix)) != 0) continue;
            done += linux_call(LINUX_SCHED_SETATTR, strtoul(tid, NULL, 10), (uintptr_t)&attr, 0, 0) == 0;
        }
    }
    if (dir >= 0) linux_call(LINUX_CLOSE, (uintptr_t)dir, 0, 0, 0);
    return done;
}

/* The sampler's priority is time-critical: Windows runs it, and suspends for it, at once. Wine has no
   priorities; the sampler, and the server that suspends for it, would wait until a thread of the
   test leaves its CPU, and see naps, not bursts. Short slices, for which the Linux half of cprof
   asks too, come near. False: there is no sampler, no server, or the kernel refused. */
static inline bool linux_prompt_sampler(void)
{
    return linux_make_prompt("/proc/self/task", "cprof") && linux_make_prompt("/proc", "wineserver");
}

#endif /* TESTS_WINDOWS_LINUX_H */
