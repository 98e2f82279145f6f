// profile.c - the one file of the example EVM that holds cprof's implementation, and all uses of it.
//
// Build from the repository root:
//     cc -O2 -pthread -I. examples/evm/*.c -o evm
#define CPROF_IMPLEMENTATION
#include "cprof.h"

#include "profile.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

profile_scopes profile_scopes_wanted;

const char *profile_scope_name(profile_scopes kind, const char *what, uint64_t number)
{
    char name[64];
    if (profile_scopes_wanted < kind || profile_scopes_wanted == PROFILE_SCOPES_OPCODE) return NULL;
    snprintf(name, sizeof name, "%s %" PRIu64, what, number);
    return cprof_intern(name);
}

bool profile_start(const char *output, int hz)
{
    cprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.hz = hz;
    desc.output = output;
    cprof_result r = cprof_start(&desc);
    if (r == CPROF_OK) return true;
    fprintf(stderr, "evm: cannot start the profile: %s\n", cprof_result_string(r));
    return false;
}

bool profile_stop(void)
{
    cprof_result r = cprof_stop();
    if (r == CPROF_OK) return true;
    fprintf(stderr, "evm: cannot write the profile: %s\n", cprof_result_string(r));
    return false;
}

void profile_thread_name(const char *name)
{
    (void)name; /* with CPROF_DISABLE the macro vanishes */
    CPROF_THREAD_NAME(name);
}
