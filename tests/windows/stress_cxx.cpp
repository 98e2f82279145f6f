/* stress_cxx.cpp: the exceptions of stress.c. */
extern "C" int exception_catch(void (*call)(void *), void *argument);
extern "C" void exception_throw(int depth);

/* A destructor on the way makes the second phase of unwinding run code in each frame. */
namespace {
volatile int destroyed;
struct Guard {
    ~Guard() { destroyed = destroyed + 1; }
};
} // namespace

extern "C" void exception_throw(int depth) {
    Guard guard;
    if (depth == 0) throw 42;
    exception_throw(depth - 1);
    destroyed = destroyed - 1;
}

extern "C" int exception_catch(void (*call)(void *), void *argument) {
    try {
        call(argument);
    } catch (int value) {
        return value;
    }
    return 0;
}
