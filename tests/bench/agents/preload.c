/* preload.c: profiles a program that knows nothing of agents: LD_PRELOAD=preload.so with BENCH_AGENT,
   BENCH_HZ and BENCH_OUTPUT. What the agent says goes to BENCH_OUTPUT.json. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int (*end)(char *, size_t);

static void find(void *library, const char *name, void *function)
{
    void *found = library ? dlsym(library, name) : NULL;
    memcpy(function, &found, sizeof found);
}

__attribute__((constructor)) static void begin_profile(void)
{
    const char *agent = getenv("BENCH_AGENT"), *hz = getenv("BENCH_HZ");
    int (*begin)(int, const char *) = NULL;
    void *library = agent && *agent ? dlopen(agent, RTLD_NOW | RTLD_GLOBAL) : NULL;
    unsetenv("LD_PRELOAD"); /* not its children, */
    unsetenv("BENCH_AGENT"); /* nor a program that knows of agents a second time */
    if (agent && *agent && !library) fprintf(stderr, "bench: %s\n", dlerror());
    find(library, "agent_begin", &begin);
    find(library, "agent_end", &end);
    if (begin && begin(hz ? atoi(hz) : 100, getenv("BENCH_OUTPUT"))) end = NULL;
}

__attribute__((destructor)) static void end_profile(void)
{
    char json[1024] = "", path[4096];
    FILE *out;
    if (!end || end(json, sizeof json)) return;
    snprintf(path, sizeof path, "%s.json", getenv("BENCH_OUTPUT"));
    out = fopen(path, "w");
    if (!out) return;
    fprintf(out, "{%s}\n", json);
    fclose(out);
}
