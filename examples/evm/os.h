// os.h - the few things the example EVM needs from the operating system.
//
// Part of the example EVM that cprof profiles. Build from the repository root:
//     cc -O2 -pthread -I. examples/evm/*.c -o evm
#ifndef EVM_OS_H
#define EVM_OS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Opaque here, so that no other file sees a system header. */
typedef struct os_thread os_thread;

/* NULL when the thread could not be started. */
os_thread *os_thread_start(void (*run)(void *argument), void *argument);
void os_thread_join(os_thread *thread); /* and frees it */

/* An integer that threads share. */
typedef struct os_atomic {
    volatile int64_t value;
} os_atomic;

int64_t os_atomic_add(os_atomic *a, int64_t amount); /* gives the value before */

unsigned os_cpu_count(void);
double os_seconds(void);                      /* monotonic */
bool os_make_directory(const char *path);     /* true when it exists afterwards */
bool os_seek(FILE *file, uint64_t position);  /* from the start, beyond 2 GB too */
bool os_file_size(FILE *file, uint64_t *size); /* leaves the position at the end */

#endif /* EVM_OS_H */
