// The C++ part of scopes.c: guards, and exceptions that leave them.
#include "cprof.h"

extern "C" void cxx_guard(void (*burn)(void));
extern "C" void cxx_throw(void (*burn)(void), void (*then)(void));

extern "C" __attribute__((noinline)) void cxx_guard(void (*burn)(void))
{
    cprof_scope_guard scope(cprof_scope_begin("unset"));
    scope.set("guarded");
    burn();
}

extern "C" __attribute__((noinline)) void cxx_thrower(void (*burn)(void))
{
    cprof_scope_guard scope(cprof_scope_begin("thrown out of"));
    burn();
    throw 1;
}

extern "C" __attribute__((noinline)) void cxx_throw(void (*burn)(void), void (*then)(void))
{
    try {
        cxx_thrower(burn);
    } catch (int) {
    }
    then();
}
