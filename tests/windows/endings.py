#!/usr/bin/env python3
"""endings.py: endings.c under Wine, case by case; those that end the process in the middle of a
profile several times each.

    endings.py BUILD-DIRECTORY
"""

import os
import re
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "compile"))
from checks import ROOT, check, done, run
sys.path.insert(0, os.path.join(ROOT, "tests"))
from implementation import implementation  # noqa: E402

GCC = "x86_64-w64-mingw32-gcc"
FLAGS = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-I."]
TIMEOUT = 120   # only what hangs takes as long
REPEAT = 5

# What the program prints besides check lines, and its status. The library's DllMain speaks last.
ENDS = {
    "return": 7, "exit": 7, "ExitProcess": 7, "TerminateProcess": 7, "other": 7, "other-exit": 7,
    "library-return": 7, "library-exit": 7, "library-ExitProcess": 7, "library-TerminateProcess": 7,
    "library-stop": 7, "exit-while-suspended": 7, "crash": 0xe0000043,
}


def case(directory, name):
    return run(["wine", directory + "/endings.exe", name, directory], timeout=TIMEOUT)


def ends(directory):
    for name, expected in ENDS.items():
        status, output = run(["wine", directory + "/endings.exe", "repeat", name, str(REPEAT), directory],
                             timeout=REPEAT * 60 + TIMEOUT)
        statuses = [int(s, 16) for s in re.findall(r"^status (\w+)", output, re.M)]
        if "wine left it suspended" in output:
            print("# %s: Wine left it suspended (see endings.c)" % name)
        check(statuses == [expected] * REPEAT, "a process that ends in the middle of a profile ends: " + name,
              "%s\n%s" % (statuses, output))
        if name == "library-stop":
            check(output.count("detach: not running") == REPEAT,
                  "cprof_stop in DllMain, when all other threads are gone, says that nothing runs", output)
        if name == "exit-while-suspended":
            check(output.count("detach: nobody is suspended") == REPEAT,
                  "ExitProcess waits until nobody is suspended", output)


def ended_from_outside(directory):
    """The last word is of another process."""
    process = subprocess.Popen(["wine", directory + "/endings.exe", "wait", directory], cwd=ROOT, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    seen = ""
    while "waiting to be ended" not in seen:
        line = process.stdout.readline().decode(errors="replace")
        if not line:
            break
        seen += line
    status, output = run(["wine", "taskkill", "/f", "/im", "endings.exe"], timeout=TIMEOUT)
    try:
        process.communicate(timeout=TIMEOUT)
        ended = True
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the session started above
        ended = False
    check("waiting to be ended" in seen and ended, "a process that another one ends in the middle of a profile ends",
          "%s\ntaskkill: %d %s" % (seen, status, output))


def main():
    directory = os.path.join(sys.argv[1] if len(sys.argv) > 1 else "build", "windows")
    os.makedirs(os.path.join(ROOT, directory), exist_ok=True)
    for command in ([GCC] + FLAGS + ["-shared", "tests/windows/endings_dll.c", implementation([GCC]), "-o", directory + "/endings_dll.dll"],
                    [GCC] + FLAGS + ["tests/windows/endings.c", "-o", directory + "/endings.exe"]):
        status, output = run(command)
        if not check(status == 0, "builds: " + command[-1], output):
            done()
    for name in ("cycles", "stop", "churn", "library", "unload", "two", "dllmain"):
        status, output = case(directory, name)
        output = output.replace("\r", "").rstrip()
        print(output)
        said = re.findall(r"^not ok", output, re.M)
        check(re.search(r"^ok - ", output, re.M) and status == (1 if said else 0), "%s ends by itself" % name,
              "hangs" if status == 124 else "status %d" % status)
        if name == "dllmain":
            check("attach: start was refused" in output, "a start in DllMain is refused", output)
    ends(directory)
    ended_from_outside(directory)
    done()


if __name__ == "__main__":
    main()
