#!/usr/bin/env python3
"""names.py: C++ names are readable however the demangler is linked, and without one as far as the
debug information tells; code made at run time has the names that its maker lists; damaged and
foreign debug information costs names, never the profile; a program for Windows is read as well.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "compile"),
                os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")]
from checks import ROOT, check, done, note, skip  # noqa: E402
from implementation import implementation  # noqa: E402

HERE = "tests/e2e/"
READABLE = ["vm::work", "vm::Stack<long>::step", "vm::(anonymous namespace)::hidden"]

# Inlined functions for the program that is made for Windows.
WINDOWS_SOURCE = """
#include <cstdio>
#include <cstdlib>
namespace vm {
static inline unsigned mix(unsigned x) { return (x ^ x >> 7) * 2654435761u; }
template <typename T> struct Stack {
    T items[16];
    unsigned top = 0;
    void push(T x) { items[top++ & 15] = mix(x); }
    T pop() { return items[--top & 15]; }
};
}
int main(int argc, char **argv) {
    vm::Stack<unsigned> stack;
    unsigned count = argc > 1 ? atoi(argv[1]) : 100, sum = 0;
    for (unsigned i = 0; i < count; i++) stack.push(i);
    for (unsigned i = 0; i < count; i++) sum += vm::mix(stack.pop());
    return printf("%u\\n", sum) < 0;
}
"""


class Trouble(Exception):
    pass


def command(argv, **options):
    result = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, **options)
    if result.returncode != 0:
        raise Trouble("%s\n%s" % (" ".join(argv), result.stdout.decode(errors="replace")))
    return result.stdout.decode(errors="replace")


class Profile:
    """A run of a program: what it wrote, and what it said."""

    def __init__(self, lab, argv, **environment):
        folded = lab + "/out.folded"
        if os.path.exists(folded):
            os.unlink(folded)
        result = subprocess.run(argv, cwd=lab, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, timeout=120,
                                env=dict(os.environ, CPROF_OUTPUT=folded, CPROF_HZ="1000", **environment))
        self.status = result.returncode
        self.said = result.stderr.decode(errors="replace")
        self.names = {}
        self.total = 0
        if os.path.exists(folded):
            with open(folded, encoding="utf-8", errors="replace") as file:
                for line in file:
                    stack, count = line.rsplit(" ", 1)
                    self.total += int(count)
                    for name in set(stack.split(";")):
                        self.names[name] = self.names.get(name, 0) + int(count)

    def share(self, name):
        return self.names.get(name, 0) / max(self.total, 1)


def build(lab, name, link, flags=("-g",), linker="gcc"):
    """names.c and names_cxx.cpp as one program."""
    command(["gcc", "-O2", *flags, "-I.", "-pthread", "-c", HERE + "names.c", "-o", lab + "/names.o"])
    command(["g++", "-O2", *flags, "-fno-exceptions", "-fno-rtti", "-c", HERE + "names_cxx.cpp",
             "-o", lab + "/names_cxx.o"])
    command([linker, "-pthread", lab + "/names.o", lab + "/names_cxx.o", implementation(), "-o", lab + "/" + name, *link])
    return lab + "/" + name


def readable(profile):
    names = {name.replace("long int", "long") for name in profile.names if profile.share(name) > 0.08}
    return names.issuperset(READABLE) and not any("_Z" in n for n in profile.names)


def test_demangler(lab):
    library = lab + "/libnames.so"
    command(["g++", "-O2", "-g", "-fPIC", "-shared", "-Wl,--no-as-needed", HERE + "names_cxx.cpp", "-o", library])
    ways = [("shared C++ library", ["-Wl,--no-as-needed", "-lstdc++"], "gcc", ("-g",)),
            ("static C++ library", ["-static-libstdc++", "-static-libgcc", "-Wl,-u,__cxa_demangle"], "g++", ("-g0",)),
            ("static program", ["-static", "-Wl,-u,__cxa_demangle"], "g++", ("-g0",)),
            ("no C++ library, with -g", [], "gcc", ("-g",))]
    for what, link, linker, flags in ways:
        profile = Profile(lab, [build(lab, "demangler", link, flags, linker), "200"])
        check(readable(profile), "C++ names are readable: " + what, sorted(profile.names.items(), key=lambda x: -x[1])[:8])
    profile = Profile(lab, [build(lab, "mangled", [], ("-g0",)), "200"])
    check(profile.share("_ZN2vm4workEj") > 0.1, "no C++ library and no -g: names as in the file, not lost", profile.names)
    check(profile.said.count("compile with -g") == 1, "no -g: said once", profile.said)
    # a plug-in brings the demangler, invisible to everybody else
    profile = Profile(lab, [build(lab, "plugin", ["-ldl"], ("-g0",)), "200", library])
    check(readable(profile), "C++ names are readable: the library of a plug-in", profile.names)


def test_no_line(lab):
    """Code to which the compiler gives line 0: the file, and no line."""
    if not shutil.which("clang"):
        return skip("code without a line", "no clang")
    with open(lab + "/zero.c", "w") as file:
        file.write("""unsigned long work(unsigned long n) {
    unsigned long x = 1;
    __asm__ volatile(".loc 1 0\\n1: imul %0, %0\\n add $3, %0\\n dec %1\\n jnz 1b" : "+r"(x), "+r"(n));
    return x;
}
""")
    with open(lab + "/main.c", "w") as file:
        file.write("""#include "cprof.h"
unsigned long work(unsigned long n);
int main(void) {
    CPROF_BEGIN(0);
    work(400000000);
    CPROF_END();
    return 0;
}
""")
    command(["clang", "-O1", "-gdwarf-4", "-I.", "-pthread", lab + "/main.c", lab + "/zero.c", implementation(),
             "-o", lab + "/zero"])
    profile = Profile(lab, [lab + "/zero"], CPROF_LINES="1")
    check(profile.share("work (zero.c)") > 0.9 and profile.share("main (main.c:5)") > 0.9,
          "code without a line has its file", profile.names)


def test_jit(lab):
    profile = Profile(lab, [build(lab, "jit", []), "200"])
    made = "made at run time:first"
    check(profile.share(made) > 0.15, "code made at run time has the name listed for perf", profile.names)
    check(profile.share("[jit]") > 0.15, "what is not listed is [jit]", profile.names)
    check("burn" in profile.names and profile.share("main") > 0.97, "frames below code made at run time are there",
          profile.names)


def test_trouble(lab):
    """Debug information that is damaged, truncated, or in another file."""
    program = build(lab, "whole", ["-Wl,--no-as-needed", "-lstdc++"])
    sections = {}
    for line in command(["readelf", "-SW", program]).splitlines():
        found = re.match(r" *\[ *\d+\] (\.debug_\w+) +\w+ +\w+ (\w+) (\w+)", line)
        if found:
            sections[found.group(1)] = int(found.group(2), 16), int(found.group(3), 16)
    with open(program, "rb") as file:
        whole = file.read()
    rng = random.Random(1)
    bad = []
    for name in (".debug_info", ".debug_abbrev", ".debug_line", ".debug_str", ".debug_rnglists", "all"):
        damaged = bytearray(whole)
        for section, (offset, size) in sections.items():
            if name in (section, "all"):
                for _ in range(max(size // 20, 20)):
                    damaged[offset + rng.randrange(size)] = rng.randrange(256)
        path = lab + "/damaged"
        if os.path.exists(path):
            os.unlink(path)
        with open(path, "wb") as file:
            file.write(damaged)
        os.chmod(path, 0o755)
        profile = Profile(lab, [path, "50"])
        if profile.status != 0 or profile.total < 80 or profile.share("main") < 0.9:
            bad.append((name, profile.status, profile.total, profile.said))
    check(not bad, "damaged debug information costs neither the profile nor the names of functions", bad)
    if shutil.which("dwz"):
        other = build(lab, "other", ["-Wl,--no-as-needed", "-lstdc++"], ("-g", "-DOTHER"))
        command(["dwz", "-m", lab + "/common.dwz", program, other])
        profile = Profile(lab, [program, "50"])
        check(profile.said.count("dwz") == 1 and profile.share("main") > 0.9 and profile.share("vm::work") > 0.1, "a supplementary file is told of, once, and functions have names", profile.said)
    else:
        skip("a supplementary file is told of", "dwz is not installed")


def test_windows_file(lab):
    """A MinGW program, read on this system, against llvm-symbolizer."""
    if not shutil.which("x86_64-w64-mingw32-g++") or not shutil.which("llvm-symbolizer"):
        skip("a program for Windows is read", "MinGW or llvm-symbolizer is not installed")
        return
    driver = lab + "/symbolize"
    command(["gcc", "-O0", "-g", "-fsanitize=address,undefined", "-I.", "-pthread", "tests/bench/symbolize.c", "-o", driver])
    for version in ("4", "5"):
        program = lab + "/windows%s.exe" % version
        with open(lab + "/windows.cpp", "w") as file:
            file.write(WINDOWS_SOURCE)
        command(["x86_64-w64-mingw32-g++", "-O2", "-gdwarf-" + version, lab + "/windows.cpp", "-static", "-o", program])
        addresses = []
        for line in command(["x86_64-w64-mingw32-objdump", "-d", "--no-show-raw-insn", program]).splitlines():
            found = re.match(r" *([0-9a-f]+):\t", line)
            if found:
                addresses.append(found.group(1))
        addresses = addresses[::max(len(addresses) // 4000, 1)]
        asked = "".join("0x%s\n" % a for a in addresses)
        ours = subprocess.run([driver, "--raw", program], input=asked.encode(), stdout=subprocess.PIPE, cwd=ROOT)
        theirs = subprocess.run(["llvm-symbolizer", "--inlines", "--no-demangle", "--output-style=GNU", "--addresses", "-e", program],
                                input=asked.encode(), stdout=subprocess.PIPE, cwd=ROOT).stdout.decode()
        theirs = re.split(r"^0x[0-9a-f]+\n", theirs, flags=re.M)[1:]
        frames = re.split(r"^0x[0-9a-f]+\n", ours.stdout.decode(), flags=re.M)[1:]
        same = known = 0
        examples = []
        for address, mine, other in zip(addresses, frames, theirs):
            other = other.strip("\n").split("\n")
            chain = list(zip(other[0::2], [o.split(" (")[0] for o in other[1::2]]))
            if not chain or chain[0][0] == "??" or chain[0][1].endswith(":0") or chain[0][1].startswith("??"):
                continue
            known += 1
            got = [tuple(line.split("\t")[:2]) for line in mine.strip("\n").split("\n")]
            if [(f, p.rsplit("/", 1)[-1]) for f, p in got] == [(f, p.rsplit("/", 1)[-1]) for f, p in chain]:
                same += 1
            elif len(examples) < 3:
                examples.append((address, got, chain))
        note("MinGW, DWARF %s: %d of %d addresses with their inlined functions and lines as llvm-symbolizer has them"
             % (version, same, known))
        check(ours.returncode == 0 and known > 300 and same >= 0.97 * known, "a MinGW program with DWARF %s is read" % version,
              str(examples)[:1500])


def main():
    lab = tempfile.mkdtemp(prefix="cprof-names-")
    try:
        for test in (test_demangler, test_no_line, test_jit, test_trouble, test_windows_file):
            try:
                test(lab)
            except Trouble as trouble:
                check(False, test.__name__, str(trouble)[-600:])
    finally:
        shutil.rmtree(lab, ignore_errors=True)


if __name__ == "__main__":
    main()
    done()
