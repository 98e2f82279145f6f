#!/usr/bin/env python3
"""autostart.py: a program that only contains cprof, with CPROF_AUTOSTART defined, and never calls it
is profiled when the environment says so: from its start, or between two signals. Also under Wine.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "compile"))
sys.path.insert(0, os.path.join(HERE, ".."))
from checks import ROOT, check, done, run, skip  # noqa: E402
import wine  # noqa: E402

PROGRAM = r"""
#define CPROF_IMPLEMENTATION
#define CPROF_AUTOSTART
#include "cprof.h"
#include <stdio.h>
#include <stdlib.h>

__attribute__((noinline)) static unsigned work(unsigned n) {
    volatile unsigned x = 1;
    for (unsigned i = 0; i < n; i++) x = x * 1664525u + 1013904223u;
    return x;
}

int main(int argc, char **argv) {
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 1, x = 0;
    puts("begun");
    fflush(stdout);
    for (unsigned i = 0; i < rounds; i++) x += work(100000000);
    return x == 1;
}
"""


def folded(directory):
    return sorted(name for name in os.listdir(directory) if name.endswith(".folded"))


def periods(path):
    with open(path) as file:
        return sum(int(line.rsplit(" ", 1)[1]) for line in file if ";work" in line)


def environment(**variables):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CPROF_")}
    return {**clean, **variables}


def linux(directory, program):
    status, text = run([program], cwd=directory, env=environment())
    check(status == 0 and text == "begun\n" and not folded(directory), "without a word in the environment nothing happens",
          "%d %s %s" % (status, text, folded(directory)))
    status, text = run([program], cwd=directory, env=environment(CPROF_AUTOSTART="1"))
    names = folded(directory)
    check(status == 0 and len(names) == 1 and re.fullmatch(r"cprof\.\d+\.1\.folded", names[0]),
          "CPROF_AUTOSTART=1 profiles until exit", "%d %s %s" % (status, text, names))
    for name in names:
        check(periods(os.path.join(directory, name)) >= 5, "and the work is in it", open(os.path.join(directory, name)).read())
        os.unlink(os.path.join(directory, name))
    status, text = run([program], cwd=directory, env=environment(CPROF_AUTOSTART="1", CPROF_OUTPUT="mine.folded", CPROF_HZ="1000"))
    check(status == 0 and folded(directory) == ["mine.folded"] and "-> mine.folded" in text,
          "CPROF_OUTPUT and CPROF_HZ are obeyed", "%d %s" % (status, text))
    os.unlink(os.path.join(directory, "mine.folded"))
    status, text = run([program], cwd=directory, env=environment(CPROF_SIGNAL="NOPE"))
    check(status == 0 and "CPROF_SIGNAL=NOPE" in text and not folded(directory), "a signal that is none is told, and the program runs",
          "%d %s" % (status, text))
    by_signal(directory, program)


def by_signal(directory, program):
    child = subprocess.Popen([program, "1000"], cwd=directory, env=environment(CPROF_SIGNAL="SIGUSR2", CPROF_HZ="1000"),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        child.stdout.readline()
        for turn in (1, 2):
            child.send_signal(signal.SIGUSR2)
            time.sleep(1)
            child.send_signal(signal.SIGUSR2)
            deadline = time.time() + 60
            while len(folded(directory)) < turn and time.time() < deadline:
                time.sleep(0.05)
        names = folded(directory)
        check(names == ["cprof.%d.%d.folded" % (child.pid, n) for n in (1, 2)],
              "CPROF_SIGNAL=SIGUSR2: every second signal writes a file", names)
        check(child.poll() is None, "and the program goes on", child.poll())
    finally:
        child.kill()
        child.communicate()
    for name in folded(directory):
        check(periods(os.path.join(directory, name)) >= 20, "with the work between the signals", name)
        os.unlink(os.path.join(directory, name))


def windows(directory, source):
    missing = wine.missing() or (None if shutil.which("x86_64-w64-mingw32-gcc") else "MinGW is not installed")
    name = "CPROF_AUTOSTART=1 works in a Windows program"
    if missing:
        skip(name, missing)
        return
    status, text = run(["x86_64-w64-mingw32-gcc", "-std=gnu11", "-O0", "-g", "-Wall", "-Wextra", "-Werror", "-I" + ROOT, source,
                        "-o", directory + "/auto.exe"])
    if not check(status == 0, "it compiles for Windows", text):
        return
    status, text = run(["wine", directory + "/auto.exe", "3"], cwd=directory, timeout=200,
                       env={**wine.environment(), "CPROF_AUTOSTART": "1", "CPROF_OUTPUT": "windows.folded"})
    path = os.path.join(directory, "windows.folded")
    check(status == 0 and os.path.exists(path) and periods(path) >= 5, name, "%d %s" % (status, text))


def main():
    directory = tempfile.mkdtemp(prefix="cprof-autostart-")
    try:
        source = os.path.join(directory, "auto.c")
        with open(source, "w") as file:
            file.write(PROGRAM)
        compiler = os.environ.get("CC", "cc").split()
        status, text = run(compiler + ["-std=gnu11", "-O0", "-g", "-Wall", "-Wextra", "-Werror", "-I" + ROOT, "-pthread", source,
                                       "-o", directory + "/auto"])
        if check(status == 0, "it compiles", text):
            linux(directory, directory + "/auto")
        windows(directory, source)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
    done()
