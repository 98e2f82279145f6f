/* cprof.c: cprof as an agent. With CPROF_TEST_EMPTY_HANDLER: the same sampler sends the same signals
   to a handler that returns at once. */
#define CPROF_IMPLEMENTATION
#include "cprof.h"
#include "agent.h"

int agent_begin(int hz, const char *path)
{
    cprof_desc desc;
    const char *stacks = getenv("BENCH_STACKS"), *depth = getenv("BENCH_DEPTH");
    const char *percent = getenv("BENCH_PERCENT");
    memset(&desc, 0, sizeof desc);
    desc.hz = hz;
    desc.output = path;
    desc.quiet = true;
    desc.max_stacks = stacks ? atoi(stacks) : 0;
    desc.max_depth = depth ? atoi(depth) : 0;
    desc.max_sampler_percent = percent ? atoi(percent) : 0;
    return cprof_start(&desc) == CPROF_OK ? 0 : -1;
}

void agent_pause(void) { cprof_pause(); }

void agent_resume(void) { cprof_resume(); }

int agent_end(char *json, size_t size)
{
    cprof_stats s;
    int result = cprof_stop() == CPROF_OK ? 0 : -1;
    cprof_get_stats(&s);
    snprintf(json, size, "\"samples\": %llu, \"weight_s\": %.6f, \"unsampled_s\": %.6f, \"lost\": %llu, "
             "\"truncated\": %llu, \"ticks\": %llu, \"sampler_s\": %.6f, \"stacks\": %llu, \"late_us\": %.1f, \"discarded\": %llu, \"unanswered\": %llu",
             (unsigned long long)s.samples, (double)s.weight_ns / 1e9, (double)s.unsampled_ns / 1e9,
             (unsigned long long)s.lost, (unsigned long long)s.truncated, (unsigned long long)s.ticks,
             (double)s.sampler_cpu_ns / 1e9, (unsigned long long)s.unique_stacks, (double)s.late_ns / 1e3, (unsigned long long)s.discarded, (unsigned long long)s.unanswered);
    return result;
}

uint64_t agent_cpu(void) { return 0; }

void agent_thread(void) {}
