/* What unwind.c steps through, instruction by instruction: frames of every kind that compilers make
   for AArch64. Compiled several ways, STEPS being the name of the entry. As C++ it throws too. */
#include <alloca.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NOINLINE __attribute__((noinline))
#define KEEP() __asm__ volatile("" ::: "memory")

static volatile int sink;

NOINLINE static int leaf(int x) {
    __asm__ volatile("" : "+r"(x));
    return x + 1;
}

NOINLINE static int saves_one(int x) {
    int y = leaf(x);
    return y + leaf(y) + x;
}

NOINLINE static int saves_all(int x) {
    __asm__ volatile("" : "+r"(x) : : "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "d8", "d9",
                     "d15", "memory");
    x = leaf(x) + saves_one(x);
    __asm__ volatile("" : "+r"(x) : : "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "memory");
    return x;
}

/* Saves registers and calls nothing: the return address stays in its register all along. */
NOINLINE static int saves_and_is_leaf(int x) {
    __asm__ volatile("" : "+r"(x) : : "x19", "x23", "x28", "d8", "memory");
    return x * 3;
}

/* Saves on one of its ways only. */
NOINLINE static int saves_seldom(int x) {
    if (x & 1) return x + 7;
    x = leaf(x) + saves_one(x) * 2;
    KEEP();
    return x;
}

NOINLINE static int frame_large(int x) {
    volatile char room[5000];
    room[x] = (char)leaf(x);
    KEEP();
    return room[x] + saves_one(x);
}

NOINLINE static int frame_huge(int x) {
    volatile char room[300000];
    room[x] = (char)saves_all(x);
    KEEP();
    return room[x] + saves_one(x);
}

NOINLINE static int frame_aligned(int x) {
    volatile char room[256] __attribute__((aligned(128)));
    room[x] = (char)leaf(x);
    sink = room[x];
    return room[x] + saves_all(x);
}

NOINLINE static int frame_alloca(int x) {
    char *room = (char *)alloca((size_t)x * 37 + 1);
    memset(room, x, (size_t)x);
    KEEP();
    sink = room[0];
    return saves_all(room[x / 2]) + frame_aligned(x);
}

NOINLINE static int many_arguments(int a, int b, int c, int d, int e, int f, int g, int h, int i, int j, int k, long l) {
    int sum = leaf(a) + b + c + d + e + f + g + h + i + j + k + (int)l;
    KEEP();
    return sum + leaf(k);
}

NOINLINE static int variadic(int count, ...) {
    va_list list;
    int sum = 0;
    va_start(list, count);
    for (int i = 0; i < count; i++) sum += leaf(va_arg(list, int));
    va_end(list);
    return sum;
}

NOINLINE static int table(int x) {
    switch (x) {
    case 0: return leaf(x);
    case 1: return saves_one(x) + 3;
    case 2: sink = x; return 9;
    case 3: return saves_all(x) + leaf(3);
    case 4: sink = 2; return leaf(x) * 5;
    case 5: return many_arguments(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
    default: return x;
    }
}

typedef int (*function)(int);
static function volatile functions[] = {leaf, saves_one, saves_all, frame_large, saves_seldom, saves_and_is_leaf};

NOINLINE static int by_pointer(int x) { return functions[x % 6](x); } /* a jump, when optimised */

NOINLINE static double floats(double x) {
    double a = x * 3, b = x + 5, c = x - 7;
    int n = leaf((int)x);
    KEEP();
    return a * b + c * n + leaf(n);
}

NOINLINE static int recursion(int n) {
    int below = n > 0 ? recursion(n - 1) : saves_all(n);
    KEEP();
    return below + n;
}

static jmp_buf way_out;

NOINLINE __attribute__((noreturn)) static void leaves(int x) {
    sink = leaf(x);
    longjmp(way_out, 1);
}

NOINLINE static int left(int x) {
    if (setjmp(way_out) == 0) leaves(saves_one(x));
    return leaf(x);
}

#ifdef __cplusplus
struct shape {
    virtual ~shape() {}
    virtual int area(int x) const = 0;
};
struct square : shape {
    int side;
    explicit square(int n) : side(n) {}
    int area(int x) const { return saves_one(side) * side + x; }
};

struct guard {
    ~guard() { sink = leaf(sink); }
};

NOINLINE static int throws(int x) {
    guard here;
    if (x > 2) throw saves_one(x);
    return x ? throws(x + 1) + 1 : 0;
}

NOINLINE static int catches(int x) {
    try {
        return throws(x);
    } catch (int thrown) {
        return leaf(thrown);
    }
}

extern "C" void STEPS(void);
#else
void STEPS(void);
#endif

void STEPS(void) {
    char text[64];
    int sum = saves_all(1) + saves_one(2) + saves_seldom(3) + saves_seldom(4) + saves_and_is_leaf(5);
    sum += frame_large(6) + frame_huge(7) + frame_aligned(8) + frame_alloca(9) + variadic(4, 1, 2, 3, 4);
    for (int i = 0; i < 7; i++) sum += table(i) + by_pointer(i);
    sum += (int)floats(2.5) + recursion(6) + left(3);
    sum += snprintf(text, sizeof text, "%d %s %.3g", sum, "text", 1.5);
#ifdef __cplusplus
    square s(4);
    const shape *volatile virtually = &s;
    sum += virtually->area(3) + catches(1);
#endif
    sink = sum;
}
