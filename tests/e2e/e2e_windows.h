/* e2e_windows.h: the Windows half of e2e.h, for MinGW, whose winpthreads has the threads.

   GetThreadTimes advances in steps of 10 ms under Wine (16 ms on Windows), too coarse to judge a
   profile by. Under Wine the thread's CPU clock is that of the Linux below, which a system call
   made from here reaches; on Windows it is the thread's cycle count, calibrated once. */
#include <windows.h>

#include <process.h>
#include <psapi.h>
#include <tlhelp32.h>

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../windows/linux.h"

#define E2E_SLEEP_FRAME "NtDelayExecution"

E2E_HELPER FARPROC e2e_function(const char *library, const char *name)
{
    HMODULE module = GetModuleHandleA(library);
    return module ? GetProcAddress(module, name) : NULL;
}

/* UTF-16 of UTF-8, in a ring of buffers. */
E2E_HELPER const WCHAR *e2e_wide(const char *text)
{
    static WCHAR ring[4][1024];
    static unsigned next;
    WCHAR *to = ring[next++ % 4];
    if (!MultiByteToWideChar(CP_UTF8, 0, text, -1, to, 1024)) abort();
    return to;
}

/* ---- clocks ---- */

E2E_HELPER bool e2e_under_wine(void)
{
    static int known; /* 1: no, 2: yes */
    if (!known) known = e2e_function("ntdll.dll", "wine_get_version") ? 2 : 1;
    return known == 2;
}

E2E_HELPER uint64_t wall(void)
{
    LARGE_INTEGER f, t;
    QueryPerformanceFrequency(&f);
    QueryPerformanceCounter(&t);
    return (uint64_t)((double)t.QuadPart * 1e9 / (double)f.QuadPart);
}

E2E_HELPER double e2e_cycles_per_ns(void)
{
    static double best;
    for (int i = 0; best == 0 || (i && i < 5); i++) {
        ULONG64 before, after;
        uint64_t start = wall(), end;
        double rate;
        QueryThreadCycleTime(GetCurrentThread(), &before);
        do end = wall(); while (end - start < 1000000);
        QueryThreadCycleTime(GetCurrentThread(), &after);
        rate = (double)(after - before) / (double)(end - start);
        if (rate > best) best = rate;
    }
    return best;
}

static inline uint64_t thread_cpu(void)
{
    ULONG64 cycles;
    if (e2e_under_wine()) return linux_clock(LINUX_THREAD_CPUTIME);
    QueryThreadCycleTime(GetCurrentThread(), &cycles);
    return (uint64_t)((double)cycles / e2e_cycles_per_ns());
}

E2E_HELPER uint64_t process_cpu(void)
{
    FILETIME created, ended, kernel, user;
    if (e2e_under_wine()) return linux_clock(LINUX_PROCESS_CPUTIME);
    GetProcessTimes(GetCurrentProcess(), &created, &ended, &kernel, &user);
    return ((uint64_t)kernel.dwHighDateTime << 32 | kernel.dwLowDateTime) * 100
           + ((uint64_t)user.dwHighDateTime << 32 | user.dwLowDateTime) * 100;
}

/* Naps shorter than a millisecond do not exist here. */
E2E_HELPER bool nap_ns(uint64_t ns)
{
    Sleep((DWORD)((ns + 999999) / 1000000));
    return true; /* nothing interrupts it */
}

E2E_HELPER int cores(void)
{
    DWORD_PTR ours = 0, all = 0;
    int count = 0;
    GetProcessAffinityMask(GetCurrentProcess(), &ours, &all);
    for (; ours; ours &= ours - 1) count++;
    return count ? count : 1;
}

/* Binds the process to its first core, or to all again. */
E2E_HELPER void e2e_pin(bool to_one)
{
    static DWORD_PTR all;
    DWORD_PTR system;
    if (!all) GetProcessAffinityMask(GetCurrentProcess(), &all, &system);
    SetProcessAffinityMask(GetCurrentProcess(), to_one ? all & (~all + 1) : all);
}

E2E_HELPER void name_thread(const char *name)
{
    HRESULT (WINAPI *set)(HANDLE, PCWSTR);
    FARPROC found = e2e_function("kernelbase.dll", "SetThreadDescription");
    if (!found) found = e2e_function("kernel32.dll", "SetThreadDescription");
    memcpy(&set, &found, sizeof set);
    if (set) set(GetCurrentThread(), e2e_wide(name));
}

/* ---- files ---- */

E2E_HELPER FILE *e2e_open(const char *path, const char *mode) { return _wfopen(e2e_wide(path), e2e_wide(mode)); }
E2E_HELPER bool e2e_exists(const char *path) { return GetFileAttributesW(e2e_wide(path)) != INVALID_FILE_ATTRIBUTES; }
E2E_HELPER void e2e_delete(const char *path) { DeleteFileW(e2e_wide(path)); }

/* A new directory for scratch files; its name has spaces and more than ASCII. */
E2E_HELPER bool e2e_directory_make(char *path, size_t size)
{
    WCHAR place[MAX_PATH], whole[MAX_PATH + 64];
    if (!GetTempPathW(MAX_PATH, place)) return false;
    _snwprintf(whole, MAX_PATH + 63, L"%lscprof e2e \u00e9\u6f22 %lu", place, GetCurrentProcessId());
    return CreateDirectoryW(whole, NULL) && WideCharToMultiByte(CP_UTF8, 0, whole, -1, path, (int)size, NULL, NULL);
}

E2E_HELPER bool e2e_directory_remove(const char *path) { return RemoveDirectoryW(e2e_wide(path)) != 0; }

E2E_HELPER int e2e_entries(const char *directory)
{
    WIN32_FIND_DATAW entry;
    WCHAR pattern[1100];
    HANDLE find;
    int count = 0;
    _snwprintf(pattern, 1099, L"%ls\\*", e2e_wide(directory));
    find = FindFirstFileW(pattern, &entry);
    if (find == INVALID_HANDLE_VALUE) return -1;
    do count += entry.cFileName[0] != '.';
    while (FindNextFileW(find, &entry));
    FindClose(find);
    return count;
}

/* ---- what goes to stderr ---- */

typedef struct { HANDLE saved, file; } e2e_capture;

E2E_HELPER e2e_capture capture_stderr(void)
{
    SECURITY_ATTRIBUTES inherited = { sizeof inherited, NULL, TRUE };
    WCHAR place[MAX_PATH], path[MAX_PATH];
    e2e_capture c;
    GetTempPathW(MAX_PATH, place);
    GetTempFileNameW(place, L"cpr", 0, path);
    c.file = CreateFileW(path, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                         &inherited, CREATE_ALWAYS, FILE_FLAG_DELETE_ON_CLOSE, NULL);
    if (c.file == INVALID_HANDLE_VALUE) abort();
    c.saved = GetStdHandle(STD_ERROR_HANDLE);
    SetStdHandle(STD_ERROR_HANDLE, c.file);
    return c;
}

E2E_HELPER char *capture_end(e2e_capture c)
{
    DWORD size = GetFileSize(c.file, NULL), got = 0;
    char *text = (char *)calloc(1, size + 1);
    if (!text) abort();
    SetStdHandle(STD_ERROR_HANDLE, c.saved);
    SetFilePointer(c.file, 0, NULL, FILE_BEGIN);
    ReadFile(c.file, text, size, &got, NULL);
    CloseHandle(c.file);
    return text;
}

/* ---- other processes: this program again; it sees its part by e2e_variable("E2E_CHILD") ---- */

typedef HANDLE e2e_child;

E2E_HELPER const char *e2e_variable(const char *name)
{
    static char value[2048];
    WCHAR wide[1024];
    DWORD length = GetEnvironmentVariableW(e2e_wide(name), wide, 1024);
    if (length == 0 || length >= 1024) return NULL;
    return WideCharToMultiByte(CP_UTF8, 0, wide, -1, value, sizeof value, NULL, NULL) ? value : NULL;
}

E2E_HELPER e2e_child e2e_spawn(const char *part, const char *path, const char *name, const char *value)
{
    WCHAR program[MAX_PATH], line[MAX_PATH + 2];
    STARTUPINFOW start;
    PROCESS_INFORMATION process;
    memset(&start, 0, sizeof start);
    start.cb = sizeof start;
    start.dwFlags = STARTF_USESTDHANDLES;
    start.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    start.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    program[GetModuleFileNameW(NULL, program, MAX_PATH - 1)] = 0;
    _snwprintf(line, MAX_PATH + 1, L"\"%ls\"", program);
    SetEnvironmentVariableW(L"E2E_CHILD", e2e_wide(part));
    SetEnvironmentVariableW(L"E2E_PATH", path ? e2e_wide(path) : NULL);
    if (name) SetEnvironmentVariableW(e2e_wide(name), e2e_wide(value));
    if (!CreateProcessW(program, line, NULL, NULL, TRUE, 0, NULL, NULL, &start, &process)) process.hProcess = NULL;
    else CloseHandle(process.hThread);
    SetEnvironmentVariableW(L"E2E_CHILD", NULL);
    if (name) SetEnvironmentVariableW(e2e_wide(name), NULL);
    return process.hProcess;
}

/* Its exit status; -1 if it was not started. */
E2E_HELPER int e2e_wait(e2e_child child)
{
    DWORD status = 0;
    if (!child) return -1;
    WaitForSingleObject(child, INFINITE);
    GetExitCodeProcess(child, &status);
    CloseHandle(child);
    return (int)status;
}

E2E_HELPER void e2e_kill(e2e_child child) { if (child) TerminateProcess(child, 1); }

/* ---- what the process has ---- */

E2E_HELPER long resident_kb(void)
{
    PROCESS_MEMORY_COUNTERS memory;
    memset(&memory, 0, sizeof memory);
    if (!GetProcessMemoryInfo(GetCurrentProcess(), &memory, sizeof memory)) return -1;
    return (long)(memory.WorkingSetSize / 1024);
}

E2E_HELPER long mappings(void)
{
    MEMORY_BASIC_INFORMATION region;
    const char *at = NULL;
    long count = 0;
    for (; VirtualQuery(at, &region, sizeof region); at = (const char *)region.BaseAddress + region.RegionSize) {
        count += region.State != MEM_FREE;
    }
    return count;
}

/* Wine does not count handles, but knows which are valid. */
E2E_HELPER int descriptors(void)
{
    int count = 0;
    DWORD flags;
    for (uintptr_t handle = 4; handle < 16384; handle += 4) count += GetHandleInformation((HANDLE)handle, &flags) != 0;
    return count;
}

E2E_HELPER int tasks(void)
{
    HANDLE list = CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0);
    THREADENTRY32 entry;
    int count = 0;
    entry.dwSize = sizeof entry;
    for (BOOL more = Thread32First(list, &entry); more; more = Thread32Next(list, &entry)) {
        count += entry.th32OwnerProcessID == GetCurrentProcessId();
    }
    CloseHandle(list);
    return count;
}
