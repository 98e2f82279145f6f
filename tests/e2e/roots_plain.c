/* Stands for roots_cxx.cpp where there is no C++: these two only spin. */
#include <stdint.h>

uint64_t roots_cpu(void);
void cat_exceptions(uint64_t until);
void cat_cxx_library(uint64_t until);

#define SPIN(name) \
    __attribute__((noinline)) void name(uint64_t until) { \
        while (roots_cpu() < until) __asm__ volatile(""); \
        __asm__ volatile("" ::: "memory"); \
    }
SPIN(cat_exceptions)
SPIN(cat_cxx_library)
