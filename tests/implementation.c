/* implementation: cprof.h's implementation alone, for implementation.py. */
#define CPROF_IMPLEMENTATION
#include "cprof.h"
