/* agent.h: how the benchmark drives a profiler. Each agent is a shared object with these functions;
   a workload loads the one that BENCH_AGENT names (workload.h), any other program has it started
   and ended by preload.c. The same source can be linked into a static program. */
#ifndef AGENT_H
#define AGENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Starts to profile, `hz` samples a second. The profile goes to `path` in the profiler's own format,
   when agent_end is called; NULL: nowhere. Returns 0, or -1. */
int agent_begin(int hz, const char *path);

/* For the measurement of costs. A profiler that cannot pause is stopped and started again. */
void agent_pause(void);
void agent_resume(void);

/* Writes the profile. Stores members of a JSON object, without braces, at `json`. */
int agent_end(char *json, size_t size);

/* CPU time in ns that the profiler has used in other processes. */
uint64_t agent_cpu(void);

/* Every thread of a workload calls it when it begins: some profilers must be told. */
void agent_thread(void);

#ifdef __cplusplus
}
#endif
#endif
