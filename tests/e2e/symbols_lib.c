/* symbols_lib.c: shared objects for symbols. LIBRARY: exported and static functions side by side;
   PRELINKED: linked at an address that is not zero; PLUGIN_A, PLUGIN_B: the same layout, two names. */
#include <stdint.h>
#include <time.h>

#define NOINLINE __attribute__((noinline))

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline __attribute__((always_inline)) uint64_t burn(uint64_t ns)
{
    uint64_t start = now(), at, x = start;
    do {
        for (int i = 0; i < 1500; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            __asm__ volatile("" : "+r"(x));
        }
        at = now();
    } while (at - start < ns);
    return at - start;
}

#define FUNCTION(linkage, name)                          \
    linkage uint64_t name(uint64_t ns);                  \
    NOINLINE linkage uint64_t name(uint64_t ns)          \
    {                                                    \
        uint64_t used;                                   \
        __asm__ volatile("# " #name ::: "memory");       \
        used = burn(ns);                                 \
        __asm__ volatile("" ::: "memory");               \
        return used;                                     \
    }

#if defined(LIBRARY)
FUNCTION(extern, lib_before)
FUNCTION(static, lib_hidden)
FUNCTION(extern, lib_visible)
uint64_t lib_through(uint64_t ns);
NOINLINE uint64_t lib_through(uint64_t ns)
{
    uint64_t used = lib_hidden(ns);
    __asm__ volatile("" ::: "memory");
    return used;
}
const void *lib_hidden_address(void);
const void *lib_hidden_address(void) { return (const void *)(uintptr_t)lib_hidden; }
#elif defined(PRELINKED)
FUNCTION(extern, prelinked_visible)
#elif defined(PLUGIN_A)
FUNCTION(extern, plugin_a_work)
#elif defined(PLUGIN_B)
FUNCTION(extern, plugin_b_work)
#endif
