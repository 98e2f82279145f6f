// os.c - threads, clock, directories and large files, for POSIX and for Windows.
//
// Part of the example EVM that cprof profiles. Build from the repository root:
//     cc -O2 -pthread -I. examples/evm/*.c -o evm

#if defined(_WIN32)
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <direct.h>
#include <windows.h>
#else
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#ifndef _DARWIN_C_SOURCE
#define _DARWIN_C_SOURCE
#endif
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64
#endif
#include <pthread.h>
#include <time.h>
#include <unistd.h>
#endif
#include <sys/stat.h>
#include <sys/types.h>

#include "os.h"

#include <stdlib.h>

struct os_thread {
    void (*run)(void *);
    void *argument;
#if defined(_WIN32)
    HANDLE handle;
#else
    pthread_t handle;
#endif
};

static bool is_directory(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && (s.st_mode & S_IFMT) == S_IFDIR;
}

#if defined(_WIN32)

static DWORD WINAPI thread_main(LPVOID p)
{
    os_thread *t = p;
    t->run(t->argument);
    return 0;
}

os_thread *os_thread_start(void (*run)(void *), void *argument)
{
    os_thread *t = malloc(sizeof *t);
    if (t == NULL) return NULL;
    t->run = run;
    t->argument = argument;
    t->handle = CreateThread(NULL, 0, thread_main, t, 0, NULL);
    if (t->handle != NULL) return t;
    free(t);
    return NULL;
}

void os_thread_join(os_thread *t)
{
    WaitForSingleObject(t->handle, INFINITE);
    CloseHandle(t->handle);
    free(t);
}

int64_t os_atomic_add(os_atomic *a, int64_t amount)
{
    return InterlockedExchangeAdd64((volatile LONG64 *)&a->value, amount);
}

unsigned os_cpu_count(void)
{
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return info.dwNumberOfProcessors > 0 ? (unsigned)info.dwNumberOfProcessors : 1;
}

double os_seconds(void)
{
    LARGE_INTEGER frequency, now;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&now);
    return (double)now.QuadPart / (double)frequency.QuadPart;
}

bool os_make_directory(const char *path)
{
    return _mkdir(path) == 0 || is_directory(path);
}

bool os_seek(FILE *file, uint64_t position)
{
    return position <= INT64_MAX && _fseeki64(file, (int64_t)position, SEEK_SET) == 0;
}

bool os_file_size(FILE *file, uint64_t *size)
{
    if (_fseeki64(file, 0, SEEK_END) != 0) return false;
    int64_t n = _ftelli64(file);
    *size = (uint64_t)n;
    return n >= 0;
}

#else /* POSIX */

static void *thread_main(void *p)
{
    os_thread *t = p;
    t->run(t->argument);
    return NULL;
}

os_thread *os_thread_start(void (*run)(void *), void *argument)
{
    os_thread *t = malloc(sizeof *t);
    if (t == NULL) return NULL;
    t->run = run;
    t->argument = argument;
    if (pthread_create(&t->handle, NULL, thread_main, t) == 0) return t;
    free(t);
    return NULL;
}

void os_thread_join(os_thread *t)
{
    pthread_join(t->handle, NULL);
    free(t);
}

#if defined(__GNUC__)
int64_t os_atomic_add(os_atomic *a, int64_t amount)
{
    return __atomic_fetch_add(&a->value, amount, __ATOMIC_SEQ_CST);
}
#else
int64_t os_atomic_add(os_atomic *a, int64_t amount)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    int64_t before = a->value;
    a->value = before + amount;
    pthread_mutex_unlock(&lock);
    return before;
}
#endif

unsigned os_cpu_count(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 && n < 4096 ? (unsigned)n : 1;
}

double os_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

bool os_make_directory(const char *path)
{
    return mkdir(path, 0777) == 0 || is_directory(path);
}

bool os_seek(FILE *file, uint64_t position)
{
    return position <= INT64_MAX && fseeko(file, (off_t)position, SEEK_SET) == 0;
}

bool os_file_size(FILE *file, uint64_t *size)
{
    if (fseeko(file, 0, SEEK_END) != 0) return false;
    off_t n = ftello(file);
    *size = (uint64_t)n;
    return n >= 0;
}

#endif /* _WIN32 */
