#!/usr/bin/env python3
"""windows.py: cprof.h compiles for Windows without a warning: by MinGW's gcc and by clang, for x64,
x86 and ARM64, before and after windows.h; what it asks of the linker and of the system.

    windows.py BUILD-DIRECTORY

The Microsoft compiler is not at hand. Its branches are compiled by clang, for its ABI, in its
dialect, without the names that tell clang and gcc; the system's headers are those of MinGW, which
need such names, so they come before. What else cl.exe minds is told by other means: the functions
that it calls unsafe are poisoned, an unused function counts. zig.py links for ARM64.
"""

import os
import re
import shutil
import sys

import matrix
from checks import ROOT, check, done, note, run, skip
from matrix import WARNINGS, directory, put
sys.path.insert(0, os.path.join(ROOT, "tests"))
from implementation import implementation  # noqa: E402

GCC, GXX = "x86_64-w64-mingw32-gcc", "x86_64-w64-mingw32-g++"
HEADERS = "/usr/share/mingw-w64/include"
IMPLEMENTATION = '#define CPROF_IMPLEMENTATION\n#include "cprof.h"\n'

# A host's own way to include windows.h, and when. Without WIN32_LEAN_AND_MEAN and NOMINMAX it
# defines small, interface, min, max and thousands more.
ALL_OF_IT = "#define UNICODE\n#define _UNICODE\n#include <windows.h>\n#include <objbase.h>\n"
ORDERS = {
    "declarations, then all of windows.h": '#include "cprof.h"\n' + ALL_OF_IT,
    "all of windows.h, then declarations": ALL_OF_IT + '#include "cprof.h"\n',
    "all of windows.h, then implementation": ALL_OF_IT + IMPLEMENTATION,
    "a lean windows.h, then implementation":
        "#define WIN32_LEAN_AND_MEAN\n#define NOMINMAX\n#include <windows.h>\n" + IMPLEMENTATION,
    "winsock2.h and windows.h, then implementation":
        "#include <winsock2.h>\n#include <windows.h>\n" + IMPLEMENTATION,
    "declarations, all of windows.h, implementation": '#include "cprof.h"\n' + ALL_OF_IT + IMPLEMENTATION,
    "implementation, then all of windows.h": IMPLEMENTATION + ALL_OF_IT + "#include <winsock2.h>\n",
}

# What stands in for the Microsoft compiler: its system headers have been read.
MICROSOFT = """
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>
#include <dbghelp.h>
#include <intrin.h>
#include <tlhelp32.h>
#undef __GNUC__
#undef __clang__
#undef __MINGW32__
#undef __MINGW64__
/* C4996, "unsafe": a warning that is on by default */
#pragma GCC poison getenv strcpy strcat strncpy strncat strtok sprintf vsprintf sscanf fopen freopen
#pragma GCC poison wcscpy wcscat wcsncpy wcsncat wcstok swprintf _snprintf _snwprintf strerror
#pragma GCC poison localtime gmtime ctime asctime tmpfile tmpnam getpid strdup stricmp strnicmp
#define CPROF_IMPLEMENTATION
#include "cprof.h"
#ifdef CPROFI_GNU
#error "these are not the branches of the Microsoft compiler"
#endif
"""

# Imports of the implementation from kernel32 and since which Windows they are there, where that is
# not since XP. What is newer has to be asked for by GetProcAddress.
SINCE_VISTA = {"CreateWaitableTimerExW", "GetThreadId"}
SINCE_XP = set("""
    CloseHandle CreateEventW CreateFileW CreateMutexA CreateThread CreateToolhelp32Snapshot
    CreateWaitableTimerW DeleteFileW DuplicateHandle FreeLibrary FreeLibraryAndExitThread
    GetCurrentProcess GetCurrentProcessId GetCurrentThread GetCurrentThreadId
    GetEnvironmentVariableW GetFileAttributesW GetFileSizeEx GetFileType GetFullPathNameW
    GetLastError GetModuleFileNameW GetModuleHandleExW GetModuleHandleW GetProcAddress
    GetProcessTimes GetStdHandle GetSystemTimeAsFileTime GetThreadContext LoadLibraryW LocalFree Module32FirstW
    Module32NextW MoveFileExW MultiByteToWideChar OpenThread QueryPerformanceCounter
    QueryPerformanceFrequency ReadFile ReadProcessMemory ReleaseMutex ResumeThread SetEvent SetThreadPriority
    SetWaitableTimer Sleep SuspendThread Thread32First Thread32Next TlsAlloc TlsFree TlsGetValue
    TlsSetValue VirtualAlloc VirtualFree
    VirtualQuery WaitForMultipleObjects WaitForSingleObject WideCharToMultiByte WriteFile
    """.split())

PROGRAM = IMPLEMENTATION + """
int main(void)
{
    CPROF_BEGIN("x.folded");
    CPROF_END();
    return 0;
}
"""


def out(name):
    return os.path.join(directory(), re.sub(r"[^a-z0-9_]+", "-", name.lower()) + ".o")


def mingw():
    """Standards, languages, levels of optimisation."""
    jobs = []
    for compiler, standards, language in ((GCC, matrix.C_STANDARDS, "c"), (GXX, matrix.CXX_STANDARDS, "c++")):
        for standard in standards:
            for key in ("declarations", "implementation"):
                levels = {"c99": ("-O0", "-O2"), "c++11": ("-O2",)}.get(standard, ())
                objects = levels if key == "implementation" else ()
                for level in objects:
                    name = "%s %s %s: %s" % (compiler, standard, level, key)
                    jobs.append((name, [compiler, "-std=" + standard, level, "-I."] + WARNINGS
                                 + ["-c", matrix.source(key, language), "-o", out(name)], out(name), True))
                if not objects:
                    jobs.append(("%s %s: %s" % (compiler, standard, key),
                                 [compiler, "-std=" + standard, "-fsyntax-only", "-I."] + WARNINGS
                                 + [matrix.source(key, language)], None, False))
    matrix.compile_all(jobs)
    path = put("disabled.c", matrix.DISABLED.replace("@FIRST@", "#define CPROF_IMPLEMENTATION"))
    status, text = run([GCC, "-DCPROF_DISABLE", "-I."] + WARNINGS + ["-c", path, "-o", out("disabled")])
    check(status == 0, GCC + ": CPROF_DISABLE compiles", text)


def orders():
    jobs = []
    for compiler, standard, ending in ((GCC, "c99", ".c"), (GXX, "c++20", ".cpp")):
        for key, text in ORDERS.items():
            path = put(re.sub(r"[^a-z]+", "-", key) + ending, text)
            jobs.append(("%s: %s" % (compiler, key),
                         [compiler, "-std=" + standard, "-fsyntax-only", "-I."] + WARNINGS + [path], None, False))
    matrix.compile_all(jobs)


def clang():
    """clang with MinGW's headers, and as near to the Microsoft compiler as it goes."""
    gnu = {"c99": put("implementation.c", IMPLEMENTATION), "c++20": put("implementation.cpp", IMPLEMENTATION)}
    microsoft = {"c11": put("microsoft.c", MICROSOFT), "c++20": put("microsoft.cpp", MICROSOFT)}
    jobs = []
    for processor in ("x86_64", "i686", "aarch64"):
        for standard, path in gnu.items():
            jobs.append(("clang %s-w64-mingw32 %s: implementation" % (processor, standard),
                         ["clang", "--target=%s-w64-mingw32" % processor, "-std=" + standard, "-fsyntax-only",
                          "-I.", "-isystem", HEADERS] + WARNINGS + [path], None, False))
        for standard, path in microsoft.items():
            jobs.append(("clang %s-pc-windows-msvc %s: the branches of the Microsoft compiler" % (processor, standard),
                         ["clang", "--target=%s-pc-windows-msvc" % processor, "-std=" + standard, "-fsyntax-only",
                          "-I.", "-fms-compatibility-version=19.30", "-D__GNUC__=4", "-D__GNUC_MINOR__=2",
                          "-isystem", HEADERS, "-Wno-reserved-macro-identifier"]
                         + (["-D__i386", "-D_X86_"] if processor == "i686" else [])
                         + WARNINGS + ["-Wgnu", "-Wmicrosoft", "-Wunreachable-code", "-Wconditional-uninitialized",
                                       path], None, False))
    matrix.compile_all(jobs)


def imports(path):
    """{DLL: [function]} of an executable."""
    dlls, dll = {}, None
    for line in run(["objdump", "-p", path])[1].splitlines():
        name = re.match(r"\s*DLL Name: (\S+)", line)
        entry = re.match(r"\s+[0-9a-f]+\s+(?:<none>|[0-9a-f]+)\s+(?:[0-9a-f]+\s+)?([A-Za-z_]\w*)$", line)
        if name:
            dll = name.group(1).lower()
            dlls[dll] = []
        elif entry and dll:
            dlls[dll].append(entry.group(1))
    return dlls


def linking():
    program = os.path.join(directory(), "program.exe")
    status, text = run([GCC, "-O0", "-I."] + WARNINGS + [put("program.c", PROGRAM), "-o", program])
    if not check(status == 0, "a program links without any -l", text):
        return
    dlls = imports(program)
    check("kernel32.dll" in dlls and set(dlls) <= {"kernel32.dll", "msvcrt.dll", "ucrtbase.dll"}
          or all(d.startswith("api-ms-win-crt-") for d in set(dlls) - {"kernel32.dll"}),
          "a program imports from kernel32 and the C library only", " ".join(sorted(dlls)))
    # Of the object, not of the program: MinGW's start-up code has imports of its own.
    wanted = {line.split()[0][len("__imp_"):] for line in matrix.symbols(implementation([GCC]), "--undefined-only").splitlines()
              if line.startswith("__imp_")} & set(dlls.get("kernel32.dll", []))
    unknown = sorted(wanted - SINCE_XP - SINCE_VISTA)
    check(len(wanted) > 30 and not unknown, "imports from kernel32 are all of Windows Vista or older",
          " ".join(unknown) or "hardly any: %d" % len(wanted))
    note("%d imports from kernel32; since Vista: %s" % (len(wanted), " ".join(sorted(wanted & SINCE_VISTA))))


def main():
    if shutil.which(GCC) and shutil.which(GXX):
        mingw()
        orders()
        linking()
    else:
        skip("MinGW", "x86_64-w64-mingw32-gcc or -g++ is not installed")
    if shutil.which("clang") and os.path.isdir(HEADERS):
        clang()
    else:
        skip("clang for Windows", "clang or MinGW's headers are not installed")
    done()


if __name__ == "__main__":
    main()
