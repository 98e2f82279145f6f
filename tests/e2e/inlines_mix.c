/* inlines_mix: the innermost helper, in a file of its own; inlines_c.c includes it. */
static inline __attribute__((always_inline)) uint64_t mix(uint64_t x)
{
    for (int i = 0; i < 400; i++) {
        x ^= x >> 29;
        x *= 0xbf58476d1ce4e5b9u;
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}
