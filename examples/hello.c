/* hello.c: the least a program needs to be profiled: two macros around its work. All threads are in
   the profile, by name, whether cprof was told of them or not.

       cc -O2 -g -pthread -I. examples/hello.c -o hello
       ./hello
       python3 tools/flamegraph.py hello.folded -o hello.svg */

#define CPROF_IMPLEMENTATION
#include "cprof.h"

#include <pthread.h>
#include <stdio.h>

static double series(long n) {
    double sum = 0;
    for (long i = 1; i <= n; i++) sum += 1.0 / ((double)i * (double)i);
    return sum;
}

static int primes(int n) {
    int count = 0;
    for (int i = 2; i <= n; i++) {
        int divisor = 2;
        while (divisor * divisor <= i && i % divisor != 0) divisor++;
        count += divisor * divisor > i;
    }
    return count;
}

static void *worker(void *unused) {
    (void)unused;
    CPROF_THREAD_NAME("worker");
    printf("primes below a million: %d\n", primes(1000000));
    return NULL;
}

int main(void) {
    pthread_t thread;
    CPROF_BEGIN("hello.folded");
    if (pthread_create(&thread, NULL, worker, NULL) != 0) return 1;
    printf("pi * pi / 6 = %.8f\n", series(200000000));
    pthread_join(thread, NULL);
    CPROF_END();
    return 0;
}
