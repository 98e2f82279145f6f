#!/usr/bin/env python3
"""stress.py: stress.c under Wine for SECONDS (12): no hang, no crash, every stack rooted. Then
twice with a sampler that does what it must not: that it hangs, and that the watchdog says where.

    stress.py BUILD-DIRECTORY [SECONDS] [--only build|run]
"""

import concurrent.futures
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "compile"))
from checks import check, done, run, staged

GCC, GXX = "x86_64-w64-mingw32-gcc", "x86_64-w64-mingw32-g++"
FLAGS = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-I."]
LIBRARIES = 6
PROBES = ["HeapAlloc", "GetModuleHandleExW"]


def build(directory):
    """Each pair of libraries wants one address, so that one of the two is moved."""
    commands = []
    for i in range(LIBRARIES):
        base = 0x6a000000 + i // 2 * 0x1000000
        commands.append([GCC, "-O2", "-shared", "-DNUMBER=%d" % i, "-Wl,--image-base=%d,--disable-dynamicbase" % base,
                         "tests/windows/stress_dll.c", "-o", "%s/stress_dll%d.dll" % (directory, i)])
    commands.append([GXX, "-O2", "-c", "tests/windows/stress_cxx.cpp", "-o", directory + "/stress_cxx.o"])
    base = directory + "/stress"
    commands.append([GCC] + FLAGS + ["-c", "tests/windows/stress.c", "-o", base + ".o"])
    commands.append([GXX, "-static", base + ".o", directory + "/stress_cxx.o", "-o", base + ".exe"])
    for command in commands:
        status, output = run(command)
        if not check(status == 0, "builds: " + command[-1], output) and status:
            return False
    return True


def main():
    directory, seconds = staged(build, "windows")
    status, output = run(["wine", directory + "/stress.exe", "%d" % seconds, directory], timeout=6 * seconds + 120)
    print(output.replace("\r", "").rstrip())
    said = re.findall(r"^not ok", output, re.M)
    check(status == (1 if said else 0) and "no hang, no crash" in output, "stress.exe ends by itself", "status %d" % status)
    # Long enough to hang on any machine; it ends some seconds after it does.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        ran = list(pool.map(lambda probe: run(["wine", directory + "/stress.exe", "100", directory, probe], timeout=240), PROBES))
    for function, (status, output) in zip(PROBES, ran):
        stands = re.search(r"stands in %s while thread (\d+) is suspended" % function, output)
        check(status == 3 and stands and "not ok - no hang: " in output,
              "a sampler that calls %s while a thread is suspended hangs, and the watchdog says so" % function,
              "status %d\n%s" % (status, output))
        if stands:
            # A thread of the workers' own is not on the list.
            listed = re.search(r"\(thread %s\): .*" % stands.group(1), output)
            check(not listed or "suspended 1 times" in listed.group(0), "and who is suspended meanwhile (%s)" % function, output)
    done()


if __name__ == "__main__":
    main()
