/* stress_lib.c: a plug-in of stress: its functions are on the stacks while it is loaded and unloaded
   under the profiler. Built twice, with PLUGIN 0 and 1, so that one's code comes to lie where the
   other's was. */
#if PLUGIN
#define RESULT(x) ((x) * 3 + 1)
#else
#define RESULT(x) ((x) * 5 + 2)
#endif

unsigned plugin_work(unsigned depth, unsigned (*call)(unsigned), unsigned x);

static __attribute__((noinline)) unsigned deeper(unsigned depth, unsigned (*call)(unsigned), unsigned x)
{
    volatile unsigned room[PLUGIN ? 40 : 6];
    room[depth % 6] = x;
    x = depth ? deeper(depth - 1, call, x + 1) : call(x);
    return RESULT(x) + room[depth % 6];
}

unsigned plugin_work(unsigned depth, unsigned (*call)(unsigned), unsigned x)
{
    unsigned result = deeper(depth, call, x);
    __asm__ volatile("" ::: "memory");
    return result;
}
