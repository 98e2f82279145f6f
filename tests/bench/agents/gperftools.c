/* gperftools.c: gperftools' CPU profiler as an agent (setitimer, SIGPROF). Its rate is read from
   CPUPROFILE_FREQUENCY when the library is loaded, so whoever starts the program sets it. */
#include <gperftools/profiler.h>
#include <stdio.h>
#include "agent.h"

static char file[4096];
static long samples;

int agent_begin(int hz, const char *path)
{
    (void)hz;
    snprintf(file, sizeof file, "%s", path ? path : "/dev/null");
    return ProfilerStart(file) ? 0 : -1;
}

static void end(void)
{
    struct ProfilerState state;
    ProfilerGetCurrentState(&state);
    samples += state.samples_gathered;
    ProfilerStop();
}

void agent_pause(void) { end(); }

void agent_resume(void) { ProfilerStart(file); }

int agent_end(char *json, size_t size)
{
    end();
    snprintf(json, size, "\"samples\": %ld", samples);
    samples = 0;
    return 0;
}

uint64_t agent_cpu(void) { return 0; }

void agent_thread(void) { ProfilerRegisterThread(); }
