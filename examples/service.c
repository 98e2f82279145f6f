/* service.c: profiles of a program that goes on, without an end to wait for:

   - a file a minute, while it runs: cprof_rotate, and %t for the time in the file's name
   - kill -USR2 starts a profile, and the next one stops it: cprof_toggle_on_signal
   - CPROF_AUTOSTART=1 in the environment profiles from the start, without any call in the program
   - kill (SIGTERM) or Ctrl-C ends it in an orderly way: the last profile is written too

       cc -O1 -g -pthread -I. examples/service.c -o service
       CPROF_AUTOSTART=1 CPROF_OUTPUT=service-%t-%n.folded ./service 60

   The argument is how many seconds a file covers. Without CPROF_AUTOSTART nothing is profiled, and
   nothing costs time, until the first kill -USR2. For POSIX systems. */

#define CPROF_IMPLEMENTATION
#define CPROF_AUTOSTART
#include "cprof.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WORKERS 2
#define FILES "service-%t-%n.folded"

static volatile int ending; /* set once, by the main thread */

/* What the service does: requests come, are hashed, and their order is kept. */

static unsigned hash_request(unsigned id) {
    unsigned hash = 2166136261u;
    for (unsigned i = 0; i < 20000; i++) hash = (hash ^ ((id + i) & 255u)) * 16777619u;
    return hash;
}

static int by_value(const void *a, const void *b) {
    unsigned left = *(const unsigned *)a, right = *(const unsigned *)b;
    return (left > right) - (left < right);
}

static void sort_requests(unsigned first) {
    unsigned values[2000];
    for (unsigned i = 0; i < 2000; i++) values[i] = (first + i) * 2654435761u;
    qsort(values, 2000, sizeof values[0], by_value);
}

static void *serve(void *number) {
    const struct timespec wait = {0, 200000};
    unsigned id = (unsigned)(size_t)number;
    char name[16];
    snprintf(name, sizeof name, "serve-%u", id);
    CPROF_THREAD_NAME(name);
    for (; !ending; id += WORKERS) {
        sort_requests(hash_request(id));
        nanosleep(&wait, NULL); /* until the next request comes */
    }
    return NULL;
}

/* Writes what was sampled since the last file, and tells about it. */
static void write_profile(void) {
    cprof_stats stats;
    cprof_result result;
    cprof_get_stats(&stats); /* rotating begins them anew */
    result = cprof_rotate(FILES, CPROF_AUTO);
    if (result == CPROF_OK)
        printf("written: %lu samples of %lu threads, the sampler took %.2f%% of a core\n",
               (unsigned long)stats.samples, (unsigned long)stats.threads_seen,
               100 * (double)stats.sampler_cpu_ns / (double)stats.duration_ns);
    else if (result == CPROF_ERROR_NOT_RUNNING)
        printf("not profiling: kill -USR2 begins\n");
    else
        printf("not written: %s\n", cprof_result_string(result));
    fflush(stdout);
}

int main(int argc, char **argv) {
    const struct timespec interval = {argc > 1 ? atoi(argv[1]) : 60, 0};
    pthread_t workers[WORKERS];
    sigset_t stop_signals;
    cprof_desc desc;
    cprof_result result;
    int got;

    memset(&desc, 0, sizeof desc);
    desc.hz = 200;
    desc.output = FILES; /* what the second signal writes */
    result = cprof_toggle_on_signal(SIGUSR2, &desc);
    if (result != CPROF_OK) fprintf(stderr, "SIGUSR2: %s\n", cprof_result_string(result));

    /* These end the program in the loop below, and nowhere else: threads inherit the mask. */
    sigemptyset(&stop_signals);
    sigaddset(&stop_signals, SIGTERM);
    sigaddset(&stop_signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &stop_signals, NULL);
    for (size_t i = 0; i < WORKERS; i++)
        if (pthread_create(&workers[i], NULL, serve, (void *)i) != 0) return 1;

    for (;;) {
        got = sigtimedwait(&stop_signals, NULL, &interval);
        if (got > 0) break;
        if (errno != EAGAIN) continue; /* another signal: the interval begins anew */
        write_profile();
    }

    ending = 1;
    for (int i = 0; i < WORKERS; i++) pthread_join(workers[i], NULL);
    result = cprof_stop(); /* writes what the last file does not have */
    return result == CPROF_OK || result == CPROF_ERROR_NOT_RUNNING ? 0 : 1;
}
