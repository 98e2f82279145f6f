/* inlines_c: a dispatch loop of which compilers leave one function. The four cases take as long as
   each other. inlines.py builds it in many ways and knows what has to come out; "-> f" ends the
   lines that call f.

   Usage: inlines MILLISECONDS OUTPUT, with inlines_part.c and implementation.c. */
#define _GNU_SOURCE
#include "cprof.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ALWAYS static inline __attribute__((always_inline))

#include "inlines_mix.c"

uint64_t part_fold(uint64_t x);
uint64_t dead_code(uint64_t x);
uint64_t interpret(const unsigned char *code, uint64_t x);

ALWAYS uint64_t checked(uint64_t x)
{
    uint64_t y = mix(x); /* -> mix */
    return y ? y : x;
}

ALWAYS uint64_t op_mul(uint64_t x)
{
    return 3 * checked(x | 1); /* -> checked */
}

ALWAYS uint64_t op_add(uint64_t x)
{
    x = checked(x + 3); /* -> checked */
    return x + 1;
}

static inline uint64_t plain(uint64_t x)
{
    for (int i = 0; i < 400; i++) {
        x -= x << 5 | 1;
        x ^= x >> 13;
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}

/* Nobody calls it: with --gc-sections its debug information describes code at address 0. */
uint64_t dead_code(uint64_t x)
{
    return op_mul(op_add(x)); /* -> op_mul */
}

__attribute__((noinline)) uint64_t interpret(const unsigned char *code, uint64_t x)
{
    for (;;) {
        switch (*code++) {
        case 'm': x = op_mul(x); break;    /* -> op_mul */
        case 'a': x = op_add(x); break;    /* -> op_add */
        case 'p': x = plain(x); break;     /* -> plain */
        case 'f': x = part_fold(x); break; /* -> part_fold */
        default: return x;
        }
    }
}

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    double end = argc > 1 ? atof(argv[1]) : 300;
    uint64_t x = 1;
    CPROF_BEGIN("inlines.folded");
    end += cpu_ms();
    while (cpu_ms() < end) {
        for (int i = 0; i < 1000; i++)
            x = interpret((const unsigned char *)"mapfmapfmapfmapf", x); /* -> interpret */
    }
    CPROF_END();
    return x == 42;
}
