/* inlines_cprof: the implementation, built once for all the programs of inlines.py. */
#define CPROF_IMPLEMENTATION
#include "cprof.h"
