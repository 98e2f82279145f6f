/* inlines_rust_main: profiles the static library made of inlines_rust.rs. */
#define _GNU_SOURCE
#include "cprof.h"
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

uint64_t rust_run(uint64_t x);

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
        for (int i = 0; i < 5000; i++) x = rust_run(x); /* -> rust_run */
    }
    CPROF_END();
    return x == 42;
}
