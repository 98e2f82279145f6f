/* Records of threads: used again when their threads have ended without a sample; after a reset all
   are, so that a service which has started more threads than there are records goes on to see new
   ones. Includes the implementation. */
#include "unit.h"

static volatile int quit;

static void nap(long ms) {
    struct timespec t = {0, ms * 1000000};
    nanosleep(&t, NULL);
}

static void *sleeper(void *unused) {
    nap(30);
    return unused;
}

static void *worker(void *name) {
    cprof_thread_name((const char *)name);
    while (!quit) {}
    return NULL;
}

static bool keep(void *user, const void *data, size_t size) {
    char *to = (char *)user;
    strncat(to, (const char *)data, size);
    return true;
}

static void start(pthread_t *thread, void *(*body)(void *), const char *name) {
    if (pthread_create(thread, NULL, body, (void *)(uintptr_t)name) == 0) return;
    printf("not ok - no thread\n");
    exit(1);
}

/* Whether the profile so far has samples of a thread. */
static bool shown(const char *name) {
    static char text[1 << 20];
    text[0] = 0;
    cprof_write_to(keep, text, CPROF_FOLDED);
    return strstr(text, name) != NULL;
}

int main(void) {
    cprof_desc desc;
    cprof_stats stats;
    pthread_t threads[100], late;
    cprofi_session *s;
    uint32_t most = 0;

    memset(&desc, 0, sizeof desc);
    desc.hz = 1000;
    desc.quiet = true;
    check(cprof_start(&desc) == CPROF_OK, "start", "it fails");
    s = cprofi.session;

    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 100; i++) start(&threads[i], sleeper, NULL);
        for (int i = 0; i < 100; i++) pthread_join(threads[i], NULL);
        nap(20);
    }
    cprof_get_stats(&stats);
    most = s->thread_count;
    check(stats.threads_seen >= 400, "threads that only sleep are seen", "%lu", (unsigned long)stats.threads_seen);
    check(most < 250, "and share their records", "%lu", (unsigned long)most);

    /* as if so many threads had been sampled and had ended; those that really have must be known to */
    cprofi_lock(s);
    while (s->live_count > 1) {
        cprofi_unlock(s);
        nap(5);
        cprofi_lock(s);
    }
    for (; s->thread_count < CPROFI_THREADS; s->thread_count++) {
        s->threads[s->thread_count].slot = -1;
        s->threads[s->thread_count].samples = 1;
    }
    s->spare_count = 0;
    cprofi_unlock(s);
    start(&late, worker, "too-late");
    nap(300);
    cprof_get_stats(&stats);
    check(!shown("too-late"), "without a record a thread is not sampled", "it is");
    check(stats.unsampled_ns > 100000000, "but its time is told", "%lu ms", (unsigned long)(stats.unsampled_ns / 1000000));
    cprof_reset();
    for (int i = 0; i < 100 && !shown("too-late"); i++) nap(50); /* the next full scan finds it */
    check(shown("too-late"), "after a reset it is", "not in 5 s");
    quit = 1;
    pthread_join(late, NULL);
    check(cprof_stop() == CPROF_OK, "stop", "it fails");
    return failures != 0;
}
