/* stacks.c: a program that knows every chain of calls it ever made, so that stacks with a wrong
   middle are told from right ones, not only those that miss the root.

     stacks THREADS SECONDS CHAINS-FILE

   Functions sh_LAYER_NUMBER call only functions of the next layer, so a chain that misses a frame
   never happened; one that recurses does so to a fixed depth. Each keeps a shadow stack: a place in
   a tree of all chains of its thread, which a child is added to when a function is entered for the
   first time that way. At the end the tree is written, a chain a line, root first. What the
   functions are like: with and without stack arrays, alloca, many live registers, calls through
   pointers, a callback from qsort, functions that end in calls that do not return to them. */
#include <alloca.h>
#include <setjmp.h>
#include "workload.h"

enum { LAYERS = 6, EACH = 4, NODES = 1 << 16, RECURSION = 12 };

typedef struct { const char *name; uint32_t parent, child, next; } node;

typedef struct {
    pthread_t thread;
    node *nodes;
    uint32_t count, at;
    uint64_t random, until, cpu, sink;
} shadow;

static __thread shadow *self;

static inline __attribute__((always_inline)) void enter(const char *name)
{
    shadow *s = self;
    uint32_t i = s->nodes[s->at].child;
    while (i && s->nodes[i].name != name) i = s->nodes[i].next;
    if (!i) {
        if (s->count == NODES) abort();
        i = s->count++;
        s->nodes[i].name = name;
        s->nodes[i].parent = s->at;
        s->nodes[i].next = s->nodes[s->at].child;
        s->nodes[s->at].child = i;
    }
    s->at = i;
}

static inline __attribute__((always_inline)) void leave(void) { self->at = self->nodes[self->at].parent; }

static inline __attribute__((always_inline)) uint64_t draw(void)
{
    uint64_t r = self->random;
    r ^= r << 13, r ^= r >> 7, r ^= r << 17;
    return self->random = r;
}

typedef uint64_t (*function)(uint64_t);
static function next_of(int layer);

/* Names are kept as pointers: each function has one string of its own. */
#define ENTER(name) static const char own[] = name; enter(own)

/* A small frame. */
#define PLAIN(layer, n)                                             \
    NOINLINE static uint64_t sh_##layer##_##n(uint64_t x)           \
    {                                                               \
        ENTER("sh_" #layer "_" #n);                                 \
        x = spin(x, 20);                                            \
        x += next_of(layer + 1)(x);                                 \
        x = spin(x, 20);                                            \
        leave();                                                    \
        NO_TAIL();                                                  \
        return x + n;                                               \
    }

/* Many values live across the call: all registers that a callee must keep are saved. */
#define CROWDED(layer, n)                                                            \
    NOINLINE static uint64_t sh_##layer##_##n(uint64_t x)                            \
    {                                                                                \
        ENTER("sh_" #layer "_" #n);                                                  \
        uint64_t a = spin(x, 3), b = spin(a, 4), c = spin(b, 5), d = spin(c, 6);     \
        uint64_t e = spin(d, 7), f = spin(e, 8), g = spin(f, 9), h = spin(g, 10);    \
        x += next_of(layer + 1)(a + h);                                              \
        x = spin(x ^ a ^ b * c ^ d * e ^ f * g ^ h, 20);                             \
        leave();                                                                     \
        NO_TAIL();                                                                   \
        return x;                                                                    \
    }

/* A frame of a size known at run time only. */
#define DYNAMIC(layer, n)                                              \
    NOINLINE static uint64_t sh_##layer##_##n(uint64_t x)              \
    {                                                                  \
        ENTER("sh_" #layer "_" #n);                                    \
        size_t size = 16 + (size_t)(draw() % 200);                     \
        volatile unsigned char *bytes = (volatile unsigned char *)alloca(size); \
        bytes[size - 1] = (unsigned char)x;                            \
        x = spin(x, 20);                                               \
        x += next_of(layer + 1)(x) + bytes[size - 1];                  \
        leave();                                                       \
        NO_TAIL();                                                     \
        return x;                                                      \
    }

/* A large array, so that the stack is probed or grows by a big step. */
#define LARGE(layer, n)                                                \
    NOINLINE static uint64_t sh_##layer##_##n(uint64_t x)              \
    {                                                                  \
        ENTER("sh_" #layer "_" #n);                                    \
        volatile unsigned char bytes[9000];                            \
        bytes[x % 9000] = 1;                                           \
        x = spin(x, 20);                                               \
        x += next_of(layer + 1)(x) + bytes[x % 9000];                  \
        leave();                                                       \
        NO_TAIL();                                                     \
        return x;                                                      \
    }

#define LAYER(layer) PLAIN(layer, 0) CROWDED(layer, 1) DYNAMIC(layer, 2) LARGE(layer, 3)
LAYER(1) LAYER(2) LAYER(3) LAYER(4) LAYER(5)

/* The innermost: a leaf without any frame, a callback from the C library, recursion, a jump. */

NOINLINE static uint64_t sh_6_0(uint64_t x)
{
    ENTER("sh_6_0");
    x = spin(x, 150);
    leave();
    return x;
}

NOINLINE static int sh_compare(const void *a, const void *b)
{
    ENTER("sh_compare");
    uint64_t x = spin(*(const uint32_t *)a, 5), y = spin(*(const uint32_t *)b, 5);
    leave();
    return (x > y) - (x < y);
}

NOINLINE static uint64_t sh_6_1(uint64_t x)
{
    ENTER("sh_6_1");
    uint32_t values[12];
    for (int i = 0; i < 12; i++) values[i] = (uint32_t)draw();
    qsort(values, 12, sizeof values[0], sh_compare);
    leave();
    NO_TAIL();
    return x + values[3];
}

NOINLINE static uint64_t sh_bottom(uint64_t x)
{
    ENTER("sh_bottom");
    x = spin(x, 100);
    leave();
    return x;
}

NOINLINE static uint64_t sh_recurse(uint64_t x, int left)
{
    ENTER("sh_recurse");
    x = left ? sh_recurse(spin(x, 5), left - 1) : sh_bottom(x);
    leave();
    NO_TAIL();
    return x + 1;
}

NOINLINE static uint64_t sh_6_2(uint64_t x)
{
    ENTER("sh_6_2");
    x = sh_recurse(x, RECURSION);
    leave();
    NO_TAIL();
    return x;
}

NOINLINE static void sh_throw(jmp_buf *to, uint64_t x)
{
    ENTER("sh_throw");
    spin(x, 50);
    leave();
    longjmp(*to, 1);
}

NOINLINE static uint64_t sh_6_3(uint64_t x)
{
    ENTER("sh_6_3");
    jmp_buf here;
    if (setjmp(here) == 0) sh_throw(&here, x);
    leave();
    NO_TAIL();
    return x;
}

static function next_of(int layer)
{
#define ROW(n) { sh_##n##_0, sh_##n##_1, sh_##n##_2, sh_##n##_3 }
    static function const table[LAYERS + 1][EACH] = {
        { NULL, NULL, NULL, NULL }, ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6) };
    return table[layer][draw() >> 33 & (EACH - 1)];
}

NOINLINE static void *sh_root(void *argument)
{
    uint64_t x = 1, before;
    self = (shadow *)argument;
    bench_thread();
    before = thread_cpu();
    ENTER("sh_root");
    while (wall() < self->until)
        for (int i = 0; i < 100; i++) x = next_of(1)(x);
    leave();
    self->sink = x;
    self->cpu = thread_cpu() - before;
    NO_TAIL();
    return NULL;
}

static void chains_write(FILE *out, const shadow *s)
{
    for (uint32_t i = 1; i < s->count; i++) {
        const char *names[64];
        int depth = 0;
        for (uint32_t at = i; at && depth < 64; at = s->nodes[at].parent) names[depth++] = s->nodes[at].name;
        while (depth-- > 0) fprintf(out, "%s%s", names[depth], depth ? ";" : "\n");
    }
}

int main(int argc, char **argv)
{
    static shadow threads[64];
    static char truth[256];
    int count = argc == 4 ? atoi(argv[1]) : 0;
    double cpu = 0;
    FILE *out;
    if (count < 1 || count > 64) return 2;
    bench_start();
    for (int i = 0; i < count; i++) {
        threads[i].nodes = (node *)calloc(NODES, sizeof(node));
        threads[i].count = 1;
        threads[i].random = 88172645463325252u + (uint64_t)i * 77777;
        threads[i].until = wall() + (uint64_t)(atof(argv[2]) * 1e9);
        if (!threads[i].nodes || pthread_create(&threads[i].thread, NULL, sh_root, &threads[i])) return 3;
    }
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i].thread, NULL);
        cpu += (double)threads[i].cpu / 1e9;
    }
    snprintf(truth, sizeof truth, "\"cpu_s\": %.6f", cpu);
    if (bench_stop(truth)) return 3;
    out = fopen(argv[3], "w");
    if (!out) return 3;
    for (int i = 0; i < count; i++) chains_write(out, &threads[i]);
    return fclose(out) ? 3 : 0;
}
