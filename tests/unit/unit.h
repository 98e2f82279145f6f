/* unit.h: what the tests of the implementation's parts share. Each includes the implementation, prints
   one line per check and returns failures != 0. */
#ifndef UNIT_H
#define UNIT_H

#define CPROF_IMPLEMENTATION
#include "cprof.h"

#include <stdarg.h>

static int failures;

static inline void check(bool ok, const char *name, const char *why, ...) {
    va_list list;
    va_start(list, why);
    if (ok) {
        printf("ok - %s\n", name);
    } else {
        failures++;
        printf("not ok - %s: ", name);
        vprintf(why, list);
        printf("\n");
    }
    va_end(list);
    fflush(stdout);
}

static inline void skip(const char *name, const char *why) { printf("skip - %s: %s\n", name, why); }

/* The same numbers in every run. */
static uint64_t random_state = 88172645463325252u;

static inline uint64_t random_next(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static inline size_t random_below(size_t n) { return (size_t)(random_next() % n); }

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline double milliseconds(void) { return (double)now_ns() / 1e6; }

/* A shell command; whether it succeeded. */
static inline bool run(const char *format, ...) {
    char command[4096];
    va_list list;
    va_start(list, format);
    vsnprintf(command, sizeof command, format, list);
    va_end(list);
    return system(command) == 0;
}

static inline bool have(const char *program) { return run("command -v %s >/dev/null 2>&1", program); }

#endif
