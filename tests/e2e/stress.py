#!/usr/bin/env python3
"""stress.py: stress.c and refusals.c for about SECONDS (12) together. Each scenario is a process that has
to end by itself, with the profile it promises; one that stands still is ended, and fails.

    stress.py BUILD-DIRECTORY [SECONDS] [--only build|run]
"""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "compile"))
from checks import check, done, run, staged

FLAGS = ["-std=gnu99", "-O1", "-g", "-Wall", "-Wextra", "-Wno-infinite-recursion", "-Werror", "-I.", "-DE2E_IMPLEMENTATION"]
SCENARIOS = ["memory", "calls", "places", "quota", "stopped", "clock"]


def build(directory):
    commands = [["gcc", "-O2", "-shared", "-fPIC", "-DPLUGIN=%d" % i, "tests/e2e/stress_lib.c", "-o", "%s/stress%d.so" % (directory, i)]
                for i in range(2)]
    commands.append(["g++", "-O2", "-c", "tests/e2e/stress_cxx.cpp", "-o", directory + "/stress_cxx.o"])
    commands.append(["gcc"] + FLAGS + ["-c", "tests/e2e/stress.c", "-o", directory + "/stress.o"])
    commands.append(["g++", directory + "/stress.o", directory + "/stress_cxx.o", "-o", directory + "/stress", "-pthread", "-ldl"])
    commands.append(["gcc"] + FLAGS + ["tests/e2e/refusals.c", "-o", directory + "/refusals", "-pthread", "-ldl"])
    for command in commands:
        status, output = run(command, timeout=300)
        if not check(status == 0, "builds: " + command[-1], output):
            return False
    return True


def scenario(command, seconds):
    status, output = run(command, timeout=20 * seconds + 300)
    print(output.rstrip())
    said = re.findall(r"^not ok", output, re.M)
    check(status == (1 if said else 0) and re.search(r"^ok", output, re.M), " ".join(command[1:3]) + ": ends by itself", "status %d" % status)


def main():
    directory, seconds = staged(build, "e2e")
    scenario([directory + "/stress", "storm", "%g" % (seconds / 2), directory + "/stress0.so", directory + "/stress1.so"], seconds)
    scenario([directory + "/stress", "exhaustion", "%g" % (seconds / 6)], seconds)
    for name in SCENARIOS:
        scenario([directory + "/refusals", name, "%g" % (seconds / 2 / len(SCENARIOS))], seconds)
    done()


if __name__ == "__main__":
    main()
