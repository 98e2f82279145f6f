/* symbols_cxx.cpp: C++ names for symbols: a method in a namespace and a template. */
#include <time.h>
#include <cstdint>

namespace shapes {

static uint64_t now()
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec);
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

struct Circle {
    uint64_t area(uint64_t ns, double radius) const;
};

__attribute__((noinline)) uint64_t Circle::area(uint64_t ns, double radius) const
{
    uint64_t used = burn(ns);
    __asm__ volatile("# area" : : "m"(radius) : "memory");
    return used;
}

template <typename T>
__attribute__((noinline)) T twice(T ns)
{
    T used = burn(ns / 2) + burn(ns / 2);
    __asm__ volatile("# twice" ::: "memory");
    return used;
}

template unsigned long twice<unsigned long>(unsigned long);

}  // namespace shapes

extern "C" __attribute__((noinline)) uint64_t cxx_entry(uint64_t ns)
{
    shapes::Circle circle;
    uint64_t used = circle.area(ns / 2, 2.0) + shapes::twice<unsigned long>(ns / 2);
    __asm__ volatile("" ::: "memory");
    return used;
}
