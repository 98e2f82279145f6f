/* inlines_part: a second unit, which link-time optimisation inlines into the first. */
#include <stdint.h>

uint64_t part_fold(uint64_t x);

static inline __attribute__((always_inline)) uint64_t part_mix(uint64_t x)
{
    for (int i = 0; i < 400; i++) {
        x += x << 7 | 1;
        x ^= x >> 11;
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}

uint64_t part_fold(uint64_t x)
{
    x = part_mix(x + 1); /* -> part_mix */
    return x ^ x >> 32;
}
