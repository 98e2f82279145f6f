#!/usr/bin/env python3
"""inlines_windows.py: inlines.py's programs for Windows, run under Wine: by the DWARF of MinGW's gcc
and g++, which cprof reads itself, and by a PDB of clang and lld, which DbgHelp reads (Wine's own; that
of Windows is not run here).
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "compile"), os.path.join(HERE, "..")]
import inlines  # noqa: E402
from checks import check, done, note, skip  # noqa: E402
from implementation import MINGW, SOURCE, implementation  # noqa: E402
from inlines import C_CHAINS, CXX_CHAINS, Lab, Profile, Source, Trouble, command, wrong_chains, wrong_lines  # noqa: E402

GCC, GXX = "x86_64-w64-mingw32-gcc", "x86_64-w64-mingw32-g++"
# Looks are seldom under Wine: seconds are needed for samples enough of each chain.
SECONDS = 3


class WindowsProfile(Profile):
    runner, ms = ["wine"], str(1000 * SECONDS)


class WindowsLab(Lab):
    def implementation(self):
        return implementation([MINGW])

    def gcc_program(self, name, cc, flags, sources):
        directory = self.path(name + ".d")
        os.makedirs(directory)
        objects = []
        for source in sources:
            objects.append(os.path.join(directory, source + ".o"))
            command([cc] + flags + ["-I.", "-pthread", "-c", inlines.HERE + "/" + source, "-o", objects[-1]])
        program = os.path.join(directory, "inlines.exe")
        command([cc] + flags + ["-static", "-pthread"] + objects + [self.cprof, "-o", program])
        return program

    def pdb_program(self, name):
        """All of it by clang: what the linker puts into the PDB is what compilers wrote as CodeView."""
        directory = self.path(name + ".d")
        os.makedirs(directory)
        libgcc = subprocess.run([GCC, "-print-libgcc-file-name"], stdout=subprocess.PIPE, check=True).stdout.decode().strip()
        program = os.path.join(directory, "inlines.exe")
        sources = [inlines.HERE + "/inlines_%s.c" % s for s in ("c", "part")]
        clang = ["clang", "--target=x86_64-w64-mingw32", "-g", "-gcodeview", "-I.", "-pthread"]
        command(clang + ["-O0", "-c", SOURCE, "-o", os.path.join(directory, "cprof.o")])
        command(clang + ["-O2", "-static", "-fuse-ld=lld", "-L" + os.path.dirname(libgcc), "-Wl,--pdb=" + os.path.join(directory, "inlines.pdb"),
                         os.path.join(directory, "cprof.o")] + sources + ["-o", program])
        return program


def gcc_case(lab, level, version):
    name = "MinGW gcc %s DWARF %s" % (level, version)
    program = lab.gcc_program(re.sub(r"\W+", "-", name), GCC, [level, "-g", "-gdwarf-" + version], ["inlines_c.c", "inlines_part.c"])
    profile = WindowsProfile(program, CPROF_LINES="1")
    sources = {"inlines_%s.c" % s: Source("inlines_%s.c" % s) for s in ("c", "mix", "part")}
    return [(name + ": the chains", wrong_chains(profile, C_CHAINS)), (name + ": files and lines", wrong_lines(profile, sources))]


def gxx_case(lab):
    name = "MinGW g++ -O2"
    program = lab.gcc_program("mingw-cxx", GXX, ["-std=c++11", "-O2", "-g"], ["inlines_cxx.cpp"])
    # An unsigned long has 32 bits there; uint64_t is another type.
    chains = [[pattern.replace("unsigned long", "unsigned long long") for pattern in chain] for chain in CXX_CHAINS]
    profile = WindowsProfile(program, CPROF_LINES="1")
    return [(name + ": the chains, names qualified and demangled", wrong_chains(profile, chains)),
            (name + ": files and lines", wrong_lines(profile, {"inlines_cxx.cpp": Source("inlines_cxx.cpp")}))]


def pdb_case(lab):
    program = lab.pdb_program("pdb")
    profile = WindowsProfile(program, CPROF_LINES="1")
    sources = {"inlines_%s.c" % s: Source("inlines_%s.c" % s) for s in ("c", "mix", "part")}
    dwarf = "DWARF in main's unit" if "inlines_c.c" in command(["objdump", "--dwarf=info", program]) else None
    return [("clang, PDB by DbgHelp: there is no DWARF to read instead", dwarf), ("clang, PDB by DbgHelp: the chains", wrong_chains(profile, C_CHAINS)),
            ("clang, PDB by DbgHelp: files and lines", wrong_lines(profile, sources))]


def cases(lab):
    every = [lambda level=level, version=version: gcc_case(lab, level, version)
             for level, version in (("-O1", "5"), ("-O2", "4"), ("-O2", "5"), ("-O3", "5"))]
    every.append(lambda: gxx_case(lab))
    if shutil.which("clang") and shutil.which("ld.lld"):
        every.append(lambda: pdb_case(lab))
    else:
        skip("PDB", "clang and lld are not installed")
    return every


def main():
    lab = WindowsLab(tempfile.mkdtemp(prefix="cprof-inlines-"))
    try:
        for case in cases(lab):
            try:
                for what, why in case():
                    check(why is None, what, why)
            except (Trouble, OSError, subprocess.SubprocessError) as trouble:
                check(False, "it can be built and run", trouble)
    finally:
        if os.environ.get("INLINES_KEEP"):
            note("kept in " + lab.directory)
        else:
            shutil.rmtree(lab.directory)


if __name__ == "__main__":
    main()
    done()
