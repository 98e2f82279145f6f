/* What macho.c compiles for macOS. No C library; `outside` is undefined, and so called through a
   stub. Each function is written to make the compiler lay out its frame in another way. */
typedef unsigned long word;

int outside(int x);
extern volatile int sink;
volatile int sink;

__attribute__((noinline)) static int leaf(int x) { return x * 3 + 1; }

static inline __attribute__((always_inline)) int innermost(int x) {
    sink = x;
    return x ^ sink;
}

static inline __attribute__((always_inline)) int inlined(int x) {
    return innermost(x + 1) + leaf(x);
}

__attribute__((noinline)) int calls_inlined(int x) { return inlined(x) * inlined(x + 2); }

/* Keeps all registers there are. */
__attribute__((noinline)) int crowded(int a, int b, int c) {
    int v[6], t = 0;
    v[0] = leaf(a), v[1] = leaf(b), v[2] = leaf(c);
    v[3] = leaf(v[0] + b), v[4] = leaf(v[1] - c), v[5] = leaf(v[2] ^ a);
    for (int i = 0; i < 3; i++) t += leaf(v[0] + t) * v[1] + leaf(v[2]) * v[3] + leaf(v[4]) * v[5] + a * b - c;
    return t;
}

/* A frame that is too large for the encodings without indirection. */
__attribute__((noinline)) int large(int n) {
    volatile char room[5000];
    for (int i = 0; i < 5000; i += 500) room[i] = (char)leaf(n + i);
    return room[500 * (n & 7)] + leaf(room[0]);
}

__attribute__((noinline)) int variable(int n) {
    volatile char *room = __builtin_alloca((word)n + 16);
    room[n] = (char)leaf(n);
    return leaf(room[n]);
}

/* A frame pointer, and a callee that needs the register for something else. */
__attribute__((noinline)) int framed(int n) {
    volatile char *room = __builtin_alloca((word)n + 16);
    room[n] = (char)n;
    return crowded(n, room[n], 3) + room[n];
}

#ifdef __AVX__
typedef int vector __attribute__((vector_size(32)));
extern volatile vector wide_sink;
volatile vector wide_sink;

/* Leaves the upper halves of registers to be cleared at the end. */
__attribute__((noinline)) static int wide(int x) {
    vector v = wide_sink;
    x = leaf(x) + leaf(x + 1) * x;
    wide_sink = v + x;
    return x;
}
#else
#define wide(x) leaf(x)
#endif

__attribute__((noinline)) int tail(int x) { return leaf(crowded(x, x + 1, x + 2)); }

/* Needs its frame on one path only. */
__attribute__((noinline)) int seldom(int x) {
    if (x < 10) return x;
    return crowded(x, x, x) + leaf(sink) * x;
}

__attribute__((noinline)) int many(int a, int b, int c, int d, int e, int f, int g, int h, int i, int j) {
    return leaf(a + b + c + d + e) + leaf(f + g + h + i + j) + a;
}

__attribute__((noinline)) int switched(int x) {
    switch (x & 7) {
    case 0: return leaf(x);
    case 1: return crowded(x, 1, 2);
    case 2: return many(x, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    case 3: return sink + 3;
    case 4: return leaf(x) + leaf(4);
    case 5: return tail(x);
    default: return x;
    }
}

__attribute__((noinline)) int recursive(int n, int x) { return n ? recursive(n - 1, switched(x + n)) * 2 + n : leaf(x); }

__attribute__((noinline)) double floats(double x, double y) {
    double a = x * leaf((int)y), b = y * leaf((int)x), c = a - b;
    return a * leaf((int)b) + b * leaf((int)c) + c;
}

int calls_outside(int x) { return outside(x) + 1; }

/* All of it but what is outside. */
int everything(int x) {
    int t = calls_inlined(x) + crowded(x, 2, 3) + large(x) + variable(x & 63) + framed(x & 31) + wide(x) + tail(x) + seldom(x & 15) + seldom(20);
    for (int i = 0; i < 8; i++) t += switched(x + i);
    return t + recursive(5, x) + (int)floats(x, 2.5) + many(1, 2, 3, 4, 5, 6, 7, 8, 9, x);
}
