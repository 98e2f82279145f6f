/* endings_dll.c: a library with the profiler inside, for endings.c. What DllMain does on
   DLL_PROCESS_DETACH and ATTACH is told by environment variables. */
#include "cprof.h"

#include <string.h>
#include <windows.h>

__declspec(dllexport) int library_start(int hz) {
    cprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.hz = hz;
    desc.max_sampler_percent = 100;
    desc.quiet = true;
    return cprof_start(&desc);
}

__declspec(dllexport) int library_stop(void) { return cprof_stop(); }

__declspec(dllexport) unsigned library_samples(void) {
    cprof_stats stats;
    cprof_get_stats(&stats);
    return (unsigned)stats.ticks;
}

/* Whether the program's own sampler has somebody suspended. */
__declspec(dllexport) const volatile LONG *library_watch;

static bool told(const WCHAR *name) { return GetEnvironmentVariableW(name, NULL, 0) != 0; }

static void say(const char *text) {
    DWORD done;
    WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), text, (DWORD)strlen(text), &done, NULL);
}

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, LPVOID reserved) {
    (void)self, (void)reserved;
    if (reason == DLL_PROCESS_ATTACH && told(L"START_IN_DLLMAIN"))
        say(cprof_start(NULL) == CPROF_ERROR_SYSTEM ? "attach: start was refused\n"
                                                    : "attach: start was not refused\n");
    if (reason == DLL_PROCESS_DETACH && library_watch)
        say(*library_watch ? "detach: the sampler went while a thread was suspended\n"
                           : "detach: nobody is suspended\n");
    if (reason == DLL_PROCESS_DETACH && told(L"STOP_IN_DLLMAIN")) {
        cprof_result result = cprof_stop();
        say(result == CPROF_OK ? "detach: stopped\n"
            : result == CPROF_ERROR_NOT_RUNNING ? "detach: not running\n"
                                                : "detach: another error\n");
    }
    return TRUE;
}
