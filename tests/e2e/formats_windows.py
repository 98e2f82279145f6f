#!/usr/bin/env python3
"""formats_windows.py: formats.py's program for Windows, run under Wine: its files say the same as each
other, name the image, its place and its PDB's id, by which its functions are found, and pprof reads them.

    formats_windows.py [BUILD-DIRECTORY]
"""

import bisect
import os
import re
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "compile"), os.path.join(HERE, "..")]
import formats  # noqa: E402
import wine  # noqa: E402
from checks import check, done, note, run, skip  # noqa: E402
from formats import PROFILES, Go, check_names, compare, compare_again, output, pprof_missing, pprof_raw, pprof_top, pprof_traces, relay  # noqa: E402

GXX = "x86_64-w64-mingw32-g++"
MS = "400"  # looks are seldom under Wine


def check_image(program, profile):
    text = output(["x86_64-w64-mingw32-objdump", "-p", program])
    size = int(re.search(r"SizeOfImage\s+([0-9a-f]+)", text).group(1), 16)
    first = profile.mappings[1]
    check(first.file.endswith("\\formats.exe") and first.limit - first.start == size and first.offset == 0 and first.start % 65536 == 0,
          "the first mapping is the program's image", first)
    pdb = re.search(r"RSDS,? signature ([0-9a-f]+),? age (\d+)", text)
    check(pdb and first.build_id.lower() == pdb.group(1) + "%x" % int(pdb.group(2)), "its build id is that of the PDB: GUID and age",
          "%s, should be %s" % (first.build_id, pdb and pdb.groups()))
    check(first.functions and first.files and first.lines and first.inlines, "it has functions, files, lines, inlined functions")
    check(any(m.file.lower().endswith("\\ntdll.dll") for m in profile.mappings.values()), "others are those of DLLs")


def check_symbols(program, profile):
    """Each location in the image, from its address by way of the mapping, is in the function that the file's table has there.
    Where an object file begins without a name, its functions have none: libstdc++'s are stripped of static ones."""
    text = output(["x86_64-w64-mingw32-objdump", "-p", program])
    base = int(re.search(r"ImageBase\s+([0-9a-f]+)", text).group(1), 16)
    table = []
    for line in output(["x86_64-w64-mingw32-nm", "-n", program]).splitlines():
        part = line.split()
        if len(part) == 3 and part[1] in "tT" and (part[2] == ".text" or not part[2].startswith(".")):
            table.append((int(part[0], 16), part[2]))
    wrong, seen = [], 0
    for l in profile.locations.values():
        if l.mapping and l.mapping.id == 1:
            address = l.address - l.mapping.start + base
            at = bisect.bisect(table, (address, chr(0x10ffff)))
            there = {name for place, name in table if at and place == table[at - 1][0]}
            outer = l.lines[-1][0]
            seen += 1
            there |= {re.sub(r"\.(isra|constprop|part|cold)(\.\d+)*", "", name) for name in there}  # gcc's copies
            nameless = there == {".text"} and outer.name.startswith("[formats.exe+0x")
            if not nameless and not there & {outer.system, outer.name, re.sub(r"\(.*", "", outer.name)}:
                wrong.append((there, outer))
    check(seen > 20 and not wrong, "functions are those of the image's symbol table, by way of the mapping", "%d of %d: %s" % (len(wrong), seen, wrong[:2]))


def main():
    scratch = os.path.realpath(tempfile.mkdtemp(prefix="cprof-formats-"))
    try:
        program = os.path.join(scratch, "formats.exe")
        status, text = run([GXX, "-std=gnu++11", "-O2", "-g", "-Wall", "-Wextra", "-I.", "-pthread", "-static", "-Wl,--build-id",
                            "tests/e2e/formats.cpp", "-o", program])
        if not check(status == 0, "formats.cpp compiles", text):
            return
        directory = os.path.join(scratch, "profiles")
        os.makedirs(directory)
        status, text = run(["wine", program, "Z:" + directory, MS], env=wine.environment())
        relay(text)
        if not check(status in (0, 1), "formats.exe runs", text):
            return
        profiles = {name: compare(directory, name, windows=True) for name in PROFILES}
        compare_again(directory)
        if profiles["all"]:
            check_names(profiles["all"])
            check_image(program, profiles["all"])
            check_symbols(program, profiles["all"])
            note("%d samples" % sum(s.count for s in profiles["all"].samples))
        if pprof_missing():
            skip("pprof", pprof_missing())
        elif profiles["all"]:
            go, path = Go(scratch), os.path.join(directory, "all.pb")
            for name in PROFILES:
                if profiles[name]:
                    pprof_raw(go, os.path.join(directory, name + ".pb"), profiles[name], name)
            pprof_top(go, path, profiles["all"])
            pprof_traces(go, path, profiles["all"])
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
    done()
