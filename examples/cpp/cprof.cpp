// cprof.cpp: the one source file with the implementation. It may be C or C++, and needs none of the
// program's flags but -pthread.

#define CPROF_IMPLEMENTATION
#include "cprof.h"
