/* test.h: what the test programs for Windows share. Check lines as in tests/e2e/e2e.h, written
   without stdio: a program that hangs may hang with stdio's locks held.

   Every program includes this file first; it includes the implementation of cprof.h. */
#ifndef TESTS_WINDOWS_TEST_H
#define TESTS_WINDOWS_TEST_H

#define CPROF_IMPLEMENTATION
#include "cprof.h"

#define TEST_HELPER __attribute__((unused)) static
#define TEST_NOINLINE __attribute__((noinline, unused))

static volatile LONG test_failures;

__attribute__((format(gnu_printf, 1, 2), unused)) static void say(const char *format, ...) {
    char text[1024];
    DWORD done;
    int n;
    va_list args;
    va_start(args, format);
    n = vsnprintf(text, sizeof text - 1, format, args);
    va_end(args);
    if (n < 0) return;
    if (n > (int)sizeof text - 2) n = (int)sizeof text - 2;
    text[n++] = '\n';
    WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), text, (DWORD)n, &done, NULL);
}

__attribute__((format(gnu_printf, 3, 4), unused)) static bool check(bool good, const char *name,
                                                                    const char *why, ...) {
    char text[800];
    va_list args;
    va_start(args, why);
    vsnprintf(text, sizeof text, why, args);
    va_end(args);
    if (good) say("ok - %s", name);
    else {
        InterlockedIncrement(&test_failures);
        say("not ok - %s: %s", name, text);
    }
    return good;
}

TEST_HELPER uint64_t now_ms(void) { return GetTickCount64(); }

/* Ends the process whatever is locked: ExitProcess would wait for the loader's lock. */
TEST_HELPER void end_now(int status) { TerminateProcess(GetCurrentProcess(), (UINT)status); }

/* A handle that knows no more than a thread's number; NULL: it has ended. */
TEST_HELPER HANDLE open_thread(DWORD tid) {
    return OpenThread(THREAD_SUSPEND_RESUME | THREAD_GET_CONTEXT | THREAD_QUERY_INFORMATION, FALSE,
                      tid);
}

/* How often a thread is suspended; -1: it has ended. */
TEST_HELPER int suspend_count(DWORD tid) {
    HANDLE thread = open_thread(tid);
    DWORD count;
    if (!thread) return -1;
    count = SuspendThread(thread);
    if (count != (DWORD)-1) ResumeThread(thread);
    CloseHandle(thread);
    return count == (DWORD)-1 ? -1 : (int)count;
}

static inline uint64_t spin(uint64_t x, unsigned rounds) {
    for (unsigned i = 0; i < rounds; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}

#endif /* TESTS_WINDOWS_TEST_H */
