// profile.h - how the example EVM uses cprof. profile.c holds cprof's implementation.
//
// Part of the example EVM that cprof profiles. Build from the repository root:
//     cc -O2 -pthread -I. examples/evm/*.c -o evm
#ifndef EVM_PROFILE_H
#define EVM_PROFILE_H

#include "cprof.h"

#include <stdbool.h>
#include <stdint.h>

/* What the profile shows besides functions. */
typedef enum profile_scopes {
    PROFILE_SCOPES_OFF,
    PROFILE_SCOPES_BLOCK,  /* "block 1001" above execute_block */
    PROFILE_SCOPES_TX,     /* and "tx 3" above execute_transaction */
    PROFILE_SCOPES_OPCODE  /* [SLOAD] above interpret, and no blocks */
} profile_scopes;

/* Set once, before threads are started. */
extern profile_scopes profile_scopes_wanted;

/* "WHAT NUMBER", to be the name of a scope, if scopes of this kind are wanted; else NULL. */
const char *profile_scope_name(profile_scopes kind, const char *what, uint64_t number);

/* Starts sampling; hz 0 takes cprof's default. Explains on stderr and gives false on failure. */
bool profile_start(const char *output, int hz);

/* Stops, writes the output and prints cprof's summary on stderr. */
bool profile_stop(void);

/* Names the calling thread in the profile. The name must outlive the profile. */
void profile_thread_name(const char *name);

#endif /* EVM_PROFILE_H */
