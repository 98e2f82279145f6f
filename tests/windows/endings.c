/* endings.c: beginning and ending, in every way that may go wrong. One case a process:

       endings CASE [DIRECTORY]
       endings repeat CASE TIMES DIRECTORY

   endings.py knows the cases and says what has to come of each; those that end the process in the
   middle of a profile are repeated there. */
#include <stdint.h>

static void test_while_suspended(uint32_t tid);
#define CPROFI_TEST_WHILE_SUSPENDED(tid) test_while_suspended(tid)

#include "test.h"

#include <process.h>

static volatile DWORD held_tid; /* this thread is suspended for longer, */
static volatile LONG holding;   /* it is at the moment */

static void test_while_suspended(uint32_t tid) {
    if (!held_tid || tid != held_tid) return;
    holding = 1;
    Sleep(300);
    holding = 0;
}

static volatile LONG64 spun; /* work done by the busy threads */
static volatile LONG quit;

static DWORD WINAPI busy(void *argument) {
    (void)argument;
    while (!quit) {
        spun += (LONG64)(spin(1, 10000) & 1) + 1;
        if (spun % 64 == 0) Sleep(0);
    }
    return 0;
}

static DWORD busy_tid[2];
static HANDLE busy_thread[2];

static void busy_begin(void) {
    quit = 0;
    for (int i = 0; i < 2; i++)
        busy_thread[i] = CreateThread(NULL, 0, busy, NULL, 0, &busy_tid[i]);
}

static void busy_end(void) {
    quit = 1;
    for (int i = 0; i < 2; i++) {
        WaitForSingleObject(busy_thread[i], INFINITE);
        CloseHandle(busy_thread[i]);
    }
}

static cprof_result start(void) {
    cprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.hz = CPROFI_MAX_HZ;
    desc.max_sampler_percent = 100;
    desc.max_stacks = 4096;
    desc.quiet = true;
    return cprof_start(&desc);
}

/* Waits until the sampler has looked `n` times. */
static void looks(uint64_t n) {
    const volatile uint64_t *ticks = &cprofi.session->ticks;
    while (*ticks < n) Sleep(1);
}

static DWORD handles(void) {
    DWORD n = 0;
    GetProcessHandleCount(GetCurrentProcess(), &n);
    return n;
}

/* Bytes of address space in use: what VirtualAlloc gave, stacks, images. */
static size_t reserved(void) {
    MEMORY_BASIC_INFORMATION m;
    size_t sum = 0;
    for (uintptr_t at = 0; VirtualQuery((void *)at, &m, sizeof m);
         at = (uintptr_t)m.BaseAddress + m.RegionSize)
        if (m.State != MEM_FREE) sum += m.RegionSize;
    return sum;
}

/* ---- in one process ---- */

static void cycles(void) {
    DWORD handles_before = 0;
    size_t bytes_before = 0;
    int bad = 0, suspended = 0;
    busy_begin();
    for (int i = 0; i < 220; i++) {
        if (i == 20) { /* what is made once has been made */
            handles_before = handles();
            bytes_before = reserved();
        }
        if (start() != CPROF_OK) bad++;
        if (i % 4 == 0) looks(1);
        if (cprof_stop() != CPROF_OK) bad++;
        for (int k = 0; k < 2; k++) suspended += suspend_count(busy_tid[k]) != 0;
    }
    check(bad == 0, "220 times start and stop", "%d calls failed", bad);
    check(suspended == 0, "no thread stays suspended", "%d times one did", suspended);
    say("# 200 cycles: %+ld handles, %+ld KB", (long)handles() - (long)handles_before,
        ((long)reserved() - (long)bytes_before) / 1024);
    check(handles() <= handles_before + 4, "200 cycles leave no handles", "%lu became %lu",
          handles_before, handles());
    /* the heap may have grown by a segment */
    check(reserved() <= bytes_before + (4u << 20), "200 cycles leave no memory",
          "%lu KB became %lu", (unsigned long)(bytes_before / 1024),
          (unsigned long)(reserved() / 1024));
    busy_end();
}

static unsigned __stdcall stopper(void *argument) {
    *(cprof_result *)argument = cprof_stop();
    return 0;
}

/* Several threads stop at once: one does, the others are told that nothing runs. */
static void stop_anywhere(void) {
    int wrong = 0, rounds = 30;
    busy_begin();
    for (int i = 0; i < rounds; i++) {
        cprof_result results[4];
        HANDLE threads[4];
        int good = 0, refused = 0;
        if (start() != CPROF_OK) wrong++;
        for (int k = 0; k < 4; k++)
            threads[k] = (HANDLE)_beginthreadex(NULL, 0, stopper, &results[k], 0, NULL);
        for (int k = 0; k < 4; k++) {
            WaitForSingleObject(threads[k], INFINITE);
            CloseHandle(threads[k]);
            good += results[k] == CPROF_OK;
            refused += results[k] == CPROF_ERROR_NOT_RUNNING;
        }
        if (good != 1 || refused != 3) wrong++;
    }
    check(wrong == 0, "of four threads that stop, one does", "%d of %d rounds were wrong", wrong,
          rounds);
    busy_end();
}

static DWORD WINAPI nothing(void *argument) {
    (void)argument;
    spin(1, 2000);
    return 0;
}

/* Threads that end while somebody tries to suspend them. */
static void churn(void) {
    DWORD before;
    cprof_stats stats;
    int made = 0;
    start();
    cprof_stop();
    before = handles();
    if (!check(start() == CPROF_OK, "start", "refused")) return;
    for (int i = 0; i < 5000; i += 10) {
        HANDLE threads[10];
        for (int k = 0; k < 10; k++) {
            threads[k] = CreateThread(NULL, 0, nothing, NULL, 0, NULL);
            made += threads[k] != NULL;
        }
        for (int k = 0; k < 10; k++) {
            if (!threads[k]) continue;
            WaitForSingleObject(threads[k], INFINITE);
            CloseHandle(threads[k]);
        }
    }
    check(cprof_stop() == CPROF_OK, "stop after 5000 threads", "refused");
    cprof_get_stats(&stats);
    say("# %d threads made, %llu seen, %llu looks, %+ld handles", made,
        (unsigned long long)stats.threads_seen, (unsigned long long)stats.ticks,
        (long)handles() - (long)before);
    check(made == 5000, "5000 threads could be made", "%d", made);
    check(stats.threads_seen > 10, "some of them were seen", "%llu",
          (unsigned long long)stats.threads_seen);
    check(handles() <= before + 4, "threads that ended leave no handles", "%lu became %lu", before,
          handles());
}

/* ---- the profiler in a library ---- */

typedef struct {
    HMODULE module;
    int (*start)(int hz);
    int (*stop)(void);
    unsigned (*samples)(void);
} library;

static library library_load(const char *directory) {
    library l;
    char path[MAX_PATH];
    FARPROC f;
    memset(&l, 0, sizeof l);
    snprintf(path, sizeof path, "%s/endings_dll.dll", directory);
    l.module = LoadLibraryA(path);
    if (!l.module) {
        say("not ok - the library can be loaded: %lu", GetLastError());
        end_now(2);
    }
    f = GetProcAddress(l.module, "library_start");
    memcpy(&l.start, &f, sizeof f);
    f = GetProcAddress(l.module, "library_stop");
    memcpy(&l.stop, &f, sizeof f);
    f = GetProcAddress(l.module, "library_samples");
    memcpy(&l.samples, &f, sizeof f);
    return l;
}

static bool library_there(void) { return GetModuleHandleA("endings_dll.dll") != NULL; }

/* A library that is unloaded is gone soon after its sampler has ended. */
static bool library_gone(void) {
    for (int i = 0; i < 2000 && library_there(); i++) Sleep(5);
    return !library_there();
}

static void in_library(const char *directory) {
    int bad = 0, stays = 0;
    DWORD before = 0;
    busy_begin();
    for (int i = 0; i < 30; i++) {
        library l = library_load(directory);
        if (i == 5) before = handles();
        if (l.start(10000) != CPROF_OK) bad++;
        while (l.samples() < 1) Sleep(1);
        if (l.stop() != CPROF_OK) bad++;
        FreeLibrary(l.module);
        stays += !library_gone();
    }
    check(bad == 0, "a library is loaded, profiles, and is unloaded, 30 times", "%d calls failed",
          bad);
    check(stays == 0, "it goes when it is unloaded", "%d times it stayed", stays);
    check(handles() <= before + 4, "it leaves no handles", "%lu became %lu", before, handles());
    busy_end();
}

/* FreeLibrary in the middle of a profile: the sampler keeps the library until it is stopped. */
static void unload(const char *directory) {
    int bad = 0, gone_early = 0, stays = 0;
    busy_begin();
    for (int i = 0; i < 10; i++) {
        library l = library_load(directory);
        if (l.start(10000) != CPROF_OK) bad++;
        while (l.samples() < 1) Sleep(1);
        FreeLibrary(l.module);
        gone_early += !library_there();
        if (!library_there()) continue;
        /* held meanwhile: else the code would go while we are in it */
        l = library_load(directory);
        if (l.stop() != CPROF_OK) bad++;
        FreeLibrary(l.module);
        stays += !library_gone();
    }
    check(bad == 0 && gone_early == 0, "a library that is unloaded while it profiles stays until it is stopped",
          "%d calls failed, %d times it was gone", bad, gone_early);
    check(stays == 0, "and goes then", "%d times it stayed", stays);
    busy_end();
}

/* Two copies of the profiler at once: their samplers must not suspend each other for good. */
static void two_copies(const char *directory) {
    library l = library_load(directory);
    unsigned before;
    busy_begin();
    check(start() == CPROF_OK && l.start(10000) == CPROF_OK, "two copies profile at once", "refused");
    before = l.samples();
    looks(50);
    while (l.samples() < before + 50) Sleep(1);
    check(cprof_stop() == CPROF_OK && l.stop() == CPROF_OK, "both go on looking, and stop", "refused");
    FreeLibrary(l.module);
    busy_end();
}

static void dllmain(const char *directory) {
    SetEnvironmentVariableA("START_IN_DLLMAIN", "1");
    library l = library_load(directory); /* says what came of it */
    SetEnvironmentVariableA("START_IN_DLLMAIN", NULL);
    check(l.start(1000) == CPROF_OK && l.stop() == CPROF_OK, "afterwards it can start", "it cannot");
    FreeLibrary(l.module);
    check(library_gone(), "and is unloaded", "it stays");
}

/* ---- ends in the middle ---- */

static DWORD WINAPI exit_other(void *argument) {
    (void)argument;
    Sleep(5);
    ExitProcess(7);
}

static DWORD WINAPI exit_crt(void *argument) {
    (void)argument;
    Sleep(5);
    exit(7);
}

/* ExitProcess while a thread is suspended: had the sampler been ended there and the suspended thread
   been the one that ends the process, it would never end. */
static void exit_while_suspended(const char *directory) {
    library l = library_load(directory);
    FARPROC f = GetProcAddress(l.module, "library_watch");
    const volatile LONG *watch = &holding;
    memcpy((void *)(uintptr_t)f, &watch, sizeof watch);
    busy_begin();
    if (start() != CPROF_OK) return;
    held_tid = busy_tid[0];
    while (!holding) Sleep(1);
    ExitProcess(7); /* DllMain says what it found */
}

/* Ends the process as an unhandled exception does, without starting Wine's debugger, which takes a
   minute on a busy machine. */
static LONG WINAPI crashed(EXCEPTION_POINTERS *e) {
    (void)e;
    return EXCEPTION_EXECUTE_HANDLER;
}

/* The same moment for the sampler is met by chance: endings.py repeats these. */
static int end_by(const char *how, const char *directory) {
    library l;
    memset(&l, 0, sizeof l);
    busy_begin();
    if (strncmp(how, "library-", 8) == 0) {
        how += 8;
        if (strcmp(how, "stop") == 0) SetEnvironmentVariableA("STOP_IN_DLLMAIN", "1");
        l = library_load(directory);
        if (l.start(10000) != CPROF_OK) return 1;
        while (l.samples() < 1) Sleep(1);
    } else {
        if (start() != CPROF_OK) return 1;
        looks(1);
    }
    Sleep(GetTickCount() % 20);
    say("ending by %s", how);
    if (strcmp(how, "return") == 0) return 7;
    if (strcmp(how, "exit") == 0) exit(7);
    if (strcmp(how, "ExitProcess") == 0 || strcmp(how, "stop") == 0) ExitProcess(7);
    if (strcmp(how, "TerminateProcess") == 0) TerminateProcess(GetCurrentProcess(), 7);
    if (strcmp(how, "crash") == 0) SetUnhandledExceptionFilter(crashed);
    if (strcmp(how, "crash") == 0) RaiseException(0xe0000043, EXCEPTION_NONCONTINUABLE, 0, NULL);
    if (strcmp(how, "other") == 0) CreateThread(NULL, 0, exit_other, NULL, 0, NULL);
    if (strcmp(how, "other-exit") == 0) CreateThread(NULL, 0, exit_crt, NULL, 0, NULL);
    if (strcmp(how, "wait") == 0) say("waiting to be ended");
    for (;;) spin(1, 1000);
}

/* Wine ends a process by its server: that ends all other threads, and a thread that calls
   TerminateProcess while it is suspended stays suspended, with nobody left to resume it. It happens
   to whoever suspends threads of his own process; Windows ends suspended threads too. Resumed from
   here, the process ends as it should. */
static bool ended(PROCESS_INFORMATION child, bool by_server) {
    bool wine = GetProcAddress(GetModuleHandleA("ntdll.dll"), "wine_get_version") != NULL;
    if (by_server && wine && WaitForSingleObject(child.hProcess, 20000) != WAIT_OBJECT_0 &&
        ResumeThread(child.hThread) == 1)
        say("wine left it suspended");
    return WaitForSingleObject(child.hProcess, 60000) == WAIT_OBJECT_0;
}

/* Runs a case again and again, as a child: what it ends with is asked of the system, not of the
   shell that Wine was begun from, which may hear of another thread's end. */
static void repeat(const char *name, int times, const char *directory) {
    for (int i = 0; i < times; i++) {
        STARTUPINFOA startup;
        PROCESS_INFORMATION child;
        char path[MAX_PATH], line[3 * MAX_PATH];
        DWORD status = 0;
        memset(&startup, 0, sizeof startup);
        startup.cb = sizeof startup;
        GetModuleFileNameA(NULL, path, sizeof path);
        snprintf(line, sizeof line, "\"%s\" %s \"%s\"", path, name, directory);
        /* Wine on a busy machine sometimes gives up on a new process (ERROR_INTERNAL_ERROR). */
        for (int tries = 0; !CreateProcessA(path, line, NULL, NULL, TRUE, 0, NULL, NULL, &startup, &child); tries++) {
            if (GetLastError() != ERROR_INTERNAL_ERROR || tries == 5) {
                say("cannot run: %lu", GetLastError());
                return;
            }
            Sleep(500);
        }
        if (!ended(child, strstr(name, "TerminateProcess") != NULL)) {
            say("it hangs");
            TerminateProcess(child.hProcess, 1);
            return;
        }
        GetExitCodeProcess(child.hProcess, &status);
        say("status 0x%lx", status);
        CloseHandle(child.hProcess);
        CloseHandle(child.hThread);
    }
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "", *directory = argc > 2 ? argv[2] : ".";
    if (argc > 4 && strcmp(name, "repeat") == 0) {
        repeat(argv[2], atoi(argv[3]), argv[4]);
        return 0;
    }
    if (strcmp(name, "cycles") == 0) cycles();
    else if (strcmp(name, "stop") == 0) stop_anywhere();
    else if (strcmp(name, "churn") == 0) churn();
    else if (strcmp(name, "library") == 0) in_library(directory);
    else if (strcmp(name, "unload") == 0) unload(directory);
    else if (strcmp(name, "two") == 0) two_copies(directory);
    else if (strcmp(name, "dllmain") == 0) dllmain(directory);
    else if (strcmp(name, "exit-while-suspended") == 0) exit_while_suspended(directory);
    else return end_by(name, directory);
    return test_failures ? 1 : 0;
}
