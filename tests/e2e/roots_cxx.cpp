/* roots_cxx.cpp: the C++ half of roots: exceptions in flight through frames with destructors, and
   the standard library's templates. */
#include <algorithm>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#define NOINLINE __attribute__((noinline))

extern "C" uint64_t roots_cpu(void);

namespace {

volatile int destroyed;

struct Guard {
    int value;
    explicit Guard(int v) : value(v) {}
    NOINLINE ~Guard() { destroyed = destroyed + value; }
};

NOINLINE int thrower(int n)
{
    if (n >= 0) throw std::runtime_error("out we go");
    return n;
}

NOINLINE int through(int depth, int n)
{
    Guard guard(depth);
    int got = depth > 0 ? through(depth - 1, n) : thrower(n);
    __asm__ volatile("" : "+r"(got));
    return got + guard.value;
}

NOINLINE int rethrower(int n)
{
    try {
        return through(6, n);
    } catch (const std::exception &) {
        throw;
    }
}

}  // namespace

extern "C" NOINLINE void cat_exceptions(uint64_t until)
{
    int caught = 0;
    while (roots_cpu() < until) {
        for (int i = 0; i < 100; i++) {
            try {
                caught += rethrower(i);
            } catch (const std::runtime_error &error) {
                caught += error.what()[0];
            }
        }
    }
    destroyed = destroyed + caught;
}

extern "C" NOINLINE void cat_cxx_library(uint64_t until)
{
    unsigned seed = 7;
    while (roots_cpu() < until) {
        std::map<std::string, int> words;
        std::vector<std::string> order;
        for (int i = 0; i < 300; i++) {
            seed = seed * 1103515245u + 12345u;
            order.push_back("a word with a number: " + std::to_string(seed % 1000));
            words[order.back()]++;
        }
        std::sort(order.begin(), order.end(), [](const std::string &a, const std::string &b) { return a > b; });
        destroyed = destroyed + static_cast<int>(words.size());
    }
}
