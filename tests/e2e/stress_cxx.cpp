// stress_cxx.cpp: the exceptions of stress.c, through frames with destructors.
extern "C" int exceptions_catch(int depth);
extern "C" int exceptions_destroyed(void);

namespace {

thread_local int destroyed;

struct Guard {
    ~Guard() { destroyed++; }
};

__attribute__((noinline)) void throw_through(int depth)
{
    Guard guard;
    if (depth == 0) throw depth + 4242;
    throw_through(depth - 1);
    __asm__ volatile("" ::: "memory");
}

}  // namespace

// The value that was thrown.
extern "C" int exceptions_catch(int depth)
{
    destroyed = 0;
    try {
        throw_through(depth);
    } catch (int value) {
        return value;
    }
    return 0;
}

extern "C" int exceptions_destroyed(void) { return destroyed; }
