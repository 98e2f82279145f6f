/* names_cxx: C++ functions for names.py, called from C; needs no C++ library. */
namespace vm {
template <typename T> struct Stack {
    __attribute__((noinline)) unsigned step(unsigned x) {
        for (int i = 0; i < 50; i++) x = x * 2654435761u + sizeof(T);
        return x;
    }
};
namespace {
__attribute__((noinline)) unsigned hidden(unsigned x) {
    for (int i = 0; i < 50; i++) x = (x ^ x >> 3) * 5;
    return x;
}
} // namespace
__attribute__((noinline)) unsigned work(unsigned x) {
    Stack<long> stack;
    return stack.step(x) + hidden(x);
}
} // namespace vm

extern "C" unsigned names_step(unsigned x) { return vm::work(x) + 1; }
