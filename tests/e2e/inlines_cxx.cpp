/* inlines_cxx: what inlines_c.c is, in C++: a namespace, templates, a lambda, a nameless namespace. */
#include "cprof.h"
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <vector>

#define ALWAYS __attribute__((always_inline))

namespace evm {

namespace {
inline ALWAYS std::uint64_t mix(std::uint64_t x)
{
    for (int i = 0; i < 400; i++) {
        x ^= x >> 29;
        x *= 0xbf58476d1ce4e5b9u;
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}
}

template <typename Word> struct Stack {
    Word top;
    inline ALWAYS void push(Word x)
    {
        top = static_cast<Word>(mix(x)); /* -> mix */
        top = top ? top : x;
    }
};

template <int Times, typename Op> inline ALWAYS void repeat(Op op)
{
    for (int i = 0; i < Times; i++) op(i); /* -> operator() */
}

__attribute__((noinline)) std::uint64_t interpret(std::uint64_t x)
{
    Stack<unsigned> narrow{1};
    Stack<std::uint64_t> stack{x};
    repeat<3>([&](int i) ALWAYS {
        stack.push(stack.top + static_cast<unsigned>(i)); /* -> push */
        narrow.push(narrow.top + 1);                      /* -> push */
    });
    return stack.top + narrow.top;
}

}

static double cpu_ms()
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return 1e3 * static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_nsec);
}

int main(int argc, char **argv)
{
    double end = argc > 1 ? std::atof(argv[1]) : 300;
    std::vector<std::uint64_t> results; // wants the C++ library, and so its demangler
    CPROF_BEGIN("inlines.folded");
    end += cpu_ms();
    while (cpu_ms() < end) {
        std::uint64_t x = results.size() + 1;
        for (int i = 0; i < 2000; i++)
            x = evm::interpret(x); /* -> interpret */
        results.push_back(x);
    }
    CPROF_END();
    return results.size() == 0;
}
