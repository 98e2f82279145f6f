// profile.h - how the example EVM uses cprof. profile.c holds cprof's implementation.
//
// Part of the example EVM that cprof profiles. Build from the repository root:
//     cc -O2 -pthread -I. examples/evm/*.c -o evm
#ifndef EVM_PROFILE_H
#define EVM_PROFILE_H

#include <stdbool.h>

/* Starts sampling; hz 0 takes cprof's default. Explains on stderr and gives false on failure. */
bool profile_start(const char *output, int hz);

/* Stops, writes the output and prints cprof's summary on stderr. */
bool profile_stop(void);

/* Names the calling thread in the profile. The name must outlive the profile. */
void profile_thread_name(const char *name);

#endif /* EVM_PROFILE_H */
