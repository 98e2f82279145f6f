/* names: a program for names.py. Burns CPU in names_step (names_cxx.cpp), in code it makes at run
   time, and in a library that is loaded as argv[1] says.

       names MILLISECONDS [library] */
#define _GNU_SOURCE
#include "cprof.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

unsigned names_step(unsigned x);

typedef unsigned (*step_fn)(unsigned);

static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static volatile unsigned sink;

__attribute__((noinline)) static void burn(step_fn step, uint64_t ns) {
    uint64_t end = cpu_ns() + ns;
    unsigned x = 1;
    while (cpu_ns() < end)
        for (int i = 0; i < 200; i++) x = step(x);
    sink = x;
}

/* Two functions made at run time: push rbp; mov rbp, rsp; a loop of 255; pop rbp; ret. The first is
   listed in /tmp/perf-PID.map if asked for. */
static const uint8_t code[] = {0x55, 0x48, 0x89, 0xe5, 0xb9, 0xff, 0x00, 0x00, 0x00,
                               0x8d, 0x7c, 0x3f, 0x01, 0xff, 0xc9, 0x75, 0xf8, 0x89,
                               0xf8, 0x5d, 0xc3};

int main(int argc, char **argv) {
    uint64_t ns = argc > 1 ? strtoull(argv[1], NULL, 10) * 1000000u : 100000000u;
    char *page = (char *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                              0);
    char path[64];
    step_fn made[2], loaded = NULL;
    FILE *map;
    if (page == MAP_FAILED) return 1;
    memcpy(page, code, sizeof code);
    memcpy(page + 1024, code, sizeof code);
    mprotect(page, 4096, PROT_READ | PROT_EXEC);
    for (int i = 0; i < 2; i++) {
        void *at = page + 1024 * i;
        memcpy(&made[i], &at, sizeof at);
    }
    snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
    map = fopen(path, "w");
    if (!map) return 1;
    fprintf(map, "%llx %x made at run time;first\n", (unsigned long long)(uintptr_t)page,
            (unsigned)sizeof code);
    fclose(map);
    if (argc > 2) {
        void *library = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL);
        void *at = library ? dlsym(library, "names_step") : NULL;
        if (!at) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        memcpy(&loaded, &at, sizeof at);
    }
    cprof_thread_name("names");
    CPROF_BEGIN("names.folded");
    burn(names_step, ns);
    burn(made[0], ns / 2);
    burn(made[1], ns / 2);
    if (loaded) burn(loaded, ns);
    CPROF_END();
    unlink(path);
    return 0;
}
