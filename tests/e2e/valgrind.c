/* valgrind: what valgrind.py runs under memcheck: profiles are begun and ended by both clocks while three
   threads work, sleep, or come and go; they are reset, written in every format, and refused. Each returns
   what it has taken.

       valgrind DIRECTORY [leak|unset]     or the program itself leaks memory, or uses what was never set,
                                           while a profile is written: that has to be found */
#include "e2e.h"

SPIN(fn_work)

static volatile bool quit;
static volatile unsigned kept;

/* Valgrind 3.19 does not let the stack of the first thread grow for a handler with SA_ONSTACK, but ends
   the program. So it grows here. */
static void grow(void)
{
    volatile char room[1 << 20];
    for (size_t at = sizeof room; at >= 4096; at -= 4096) room[at - 4096] = 1;
    kept = (unsigned)room[0];
}

static void *works(void *unused)
{
    (void)unused;
    CPROF_THREAD_NAME("works");
    while (!quit) {
        CPROF_SCOPE_BEGIN(cprof_intern(e2e_format("scope %u", kept++ % 50)));
        fn_work(20000);
        CPROF_SCOPE_SET("inner");
        fn_work(20000);
        CPROF_SCOPE_END();
    }
    return NULL;
}

static void *sleeps(void *unused)
{
    (void)unused;
    CPROF_THREAD_NAME("sleeps");
    while (!quit) nap_ns(5000000);
    return NULL;
}

static void *ends(void *unused)
{
    (void)unused;
    fn_work(100000);
    return NULL;
}

static void *starts(void *unused)
{
    (void)unused;
    CPROF_THREAD_NAME("starts");
    while (!quit) {
        pthread_t one;
        if (pthread_create(&one, NULL, ends, NULL) == 0) pthread_join(one, NULL);
        nap_ns(1000000);
    }
    return NULL;
}

/* Until there are as many samples: under valgrind only one thread runs at a time, and slowly. */
static bool sampled(uint64_t samples)
{
    uint64_t until = wall() + 60000000000u;
    while (!e2e_enough(samples) && wall() < until) nap_ns(5000000);
    return wall() < until;
}

static bool leak(void *user, const void *data, size_t size)
{
    (void)data;
    *(size_t *)user += size;
    kept += malloc(100) != NULL;
    return true;
}

static bool unset(void *user, const void *data, size_t size)
{
    unsigned *memory = (unsigned *)malloc(sizeof *memory);
    (void)data;
    *(size_t *)user += size;
    if (memory && *memory == 12345) kept++;
    free(memory);
    return true;
}

static void cycle(const char *directory, cprof_clock clock, const char *file, cprof_write_fn more)
{
    static void *(*const mains[])(void *) = { works, sleeps, starts };
    const char *name = e2e_format("%s clock, %s", clock == CPROF_WALL ? "wall" : "CPU", file);
    char path[600];
    pthread_t thread[3];
    cprof_desc desc;
    cprof_result result;
    size_t size = 0;
    bool good;
    memset(&desc, 0, sizeof desc);
    snprintf(path, sizeof path, "%s/%s", directory, file);
    desc.hz = 200;
    desc.clock = clock;
    desc.output = path;
    desc.quiet = true;
    desc.lines = clock == CPROF_WALL;
    result = cprof_start(&desc);
    quit = false;
    for (int i = 0; i < 3; i++) if (pthread_create(&thread[i], NULL, mains[i], NULL)) exit(2);
    if (more) good = sampled(1) && cprof_write_to(more, &size, CPROF_FOLDED) == CPROF_OK && size > 0;
    else good = sampled(20) && cprof_write("/dev/null", CPROF_PERF_SCRIPT) == CPROF_OK && cprof_reset() == CPROF_OK && sampled(20);
    quit = true;
    for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
    if (result == CPROF_OK) result = cprof_stop();
    check(result == CPROF_OK && good && e2e_exists(path), name, "%s, good %d", cprof_result_string(result), good);
    e2e_delete(path);
}

int main(int argc, char **argv)
{
    const char *directory = argc > 1 ? argv[1] : ".", *planted = argc > 2 ? argv[2] : "";
    cprof_desc desc;
    grow();
    if (*planted) {
        cycle(directory, CPROF_CPU, "planted.folded", strcmp(planted, "leak") == 0 ? leak : unset);
        return 0;
    }
    cycle(directory, CPROF_CPU, "cpu.folded", NULL);
    cycle(directory, CPROF_WALL, "wall.folded", NULL);
    memset(&desc, 0, sizeof desc);
    desc.output = "/nonexistent/directory/x.folded";
    desc.quiet = true;
    check(cprof_start(&desc) == CPROF_ERROR_OUTPUT, "a start is refused", "it is not");
    cycle(directory, CPROF_CPU, "cpu.pb", NULL);
    cycle(directory, CPROF_WALL, "wall.pb.gz", NULL);
    return e2e_done();
}
