#define CPROF_IMPLEMENTATION
#include "cprof.h"
