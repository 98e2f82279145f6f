#!/usr/bin/env python3
"""truth.py: over every 64th instruction of real programs (C, C++, Rust; gcc and clang; DWARF 4 and
5) the chain of functions is that of llvm-symbolizer or of addr2line for 99.9% of the addresses, and
so are the lines for 99%. (The two disagree with each other.) In .text: only cprof names PLT stubs.

    truth.py [all]    all: other pairs of compiler and version too, and cprof itself by clang
"""

import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "compile"))
from checks import ROOT, check, done, note, skip  # noqa: E402

EVM = sorted(glob.glob(os.path.join(ROOT, "examples/evm/*.c")))
# The file that holds cprof, four fifths of the program, is in one of them. The others are not run, so
# they may lack functions.
LESS = [path for path in EVM if os.path.basename(path) != "profile.c"] + ["-Wl,--unresolved-symbols=ignore-all"]
C_FLAGS = ["-O2", "-I.", "-pthread", "-w"]
PROGRAMS = [
    ("EVM, gcc, DWARF 5", ["gcc", "-gdwarf-5"] + C_FLAGS + EVM),
    ("EVM without cprof, gcc, DWARF 4", ["gcc", "-gdwarf-4"] + C_FLAGS + LESS),
    ("EVM without cprof, clang, DWARF 5", ["clang", "-gdwarf-5"] + C_FLAGS + LESS),
    ("EVM without cprof, clang, DWARF 4", ["clang", "-gdwarf-4"] + C_FLAGS + LESS),
    ("C++, gcc, DWARF 5", ["g++", "-gdwarf-5", "-O2", "tests/e2e/truth.cpp"]),
    ("C++, clang, DWARF 4", ["clang++", "-gdwarf-4", "-O2", "tests/e2e/truth.cpp"]),
    ("Rust", ["rustc", "--edition", "2021", "-O", "-g", "tests/unit/rust_crate/symbols.rs"]),
]

MORE = [
    ("EVM, clang, DWARF 4", ["clang", "-gdwarf-4"] + C_FLAGS + EVM),
    ("C++, gcc, DWARF 4", ["g++", "-gdwarf-4", "-O3", "tests/e2e/truth.cpp"]),
    ("C++, clang, DWARF 5", ["clang++", "-gdwarf-5", "-O2", "tests/e2e/truth.cpp"]),
]


def run(argv, text=None):
    result = subprocess.run(argv, cwd=ROOT, input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return result.stdout.decode(errors="replace")


def plain(name):
    """What compilers add to a function's name goes; constructors have several names for one."""
    name = name.split("@")[0]
    while re.search(r"\.(cold|part|constprop|isra|lto_priv|llvm|localalias|warm)(\.\d+)*$", name):
        name = re.sub(r"\.(cold|part|constprop|isra|lto_priv|llvm|localalias|warm)(\.\d+)*$", "", name)
    return re.sub(r"([CD])[0-9](E)", r"\1_\2", name)


def same_name(ours, theirs):
    """Of names without a linkage name the others know only the last part."""
    ours, theirs = plain(ours), plain(theirs)
    return ours == theirs or ours.endswith("::" + theirs) or (ours[0] == "[" and theirs == "??")


def place(text):
    """File and line of `path:12 (discriminator 3)`; no line: None."""
    path, line = text.split(" (")[0].rsplit(":", 1)
    return (os.path.basename(path), int(line)) if line.isdigit() and int(line) else None


def answers(output, tabs=False):
    """Frames by address: [(function, place)], the innermost first."""
    found = []
    for block in re.split(r"^0x[0-9a-f]+\n", output, flags=re.M)[1:]:
        lines = block.strip("\n").split("\n")
        if tabs:
            found.append([(parts[0], place(parts[1])) for parts in (line.split("\t") for line in lines)])
        else:
            found.append([(f, place(p)) for f, p in zip(lines[0::2], lines[1::2])])
    return found


def same_functions(ours, theirs):
    return len(ours) == len(theirs) and all(same_name(a[0], b[0]) for a, b in zip(ours, theirs))


def same_lines(ours, theirs):
    return len(ours) == len(theirs) and all(a[1] == b[1] or not b[1] for a, b in zip(ours, theirs))


def kind(ours, llvm, gnu):
    """What sort of disagreement: for a reader to decide who is right."""
    if len(ours) == len(llvm) and all(same_name(a[0], b[0]) for a, b in zip(ours[:-1], llvm[:-1])):
        return "only the outermost name differs"
    if llvm[0][0] == "??" or gnu[0][0] == "??":
        return "one of the others has no name"
    return "%d frames, llvm-symbolizer %d, addr2line %d" % (len(ours), len(llvm), len(gnu))


def compare(lab, driver, name, argv):
    program = os.path.join(lab, re.sub(r"\W+", "-", name))
    built = subprocess.run(argv + ["-o", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if not check(built.returncode == 0, "builds: " + name, built.stdout.decode(errors="replace")[-500:]):
        return 0, 0, 0
    addresses = re.findall(r"^ *([0-9a-f]+):\t", run(["objdump", "-d", "-j", ".text", "--no-show-raw-insn", program]), re.M)[::64]
    text = "".join("0x%s\n" % a for a in addresses).encode()
    ours = answers(run([driver, "--raw", program], text), tabs=True)
    llvm = answers(run(["llvm-symbolizer", "--inlines", "--no-demangle", "--output-style=GNU", "--addresses",
                        "-e", program], text))
    gnu = answers(run(["addr2line", "-aif", "-e", program], text))
    if not check(len(ours) == len(llvm) == len(gnu) == len(addresses), "all answer: " + name,
                 "%d, %d, %d of %d" % (len(ours), len(llvm), len(gnu), len(addresses))):
        return 0, 0, 0
    functions = lines = 0
    classes, examples = {}, []
    for address, mine, a, b in zip(addresses, ours, llvm, gnu):
        if same_functions(mine, a) or same_functions(mine, b):
            functions += 1
            lines += same_lines(mine, a) or same_lines(mine, b)
        else:
            sort = kind(mine, a, b)
            classes[sort] = classes.get(sort, 0) + 1
            if len(examples) < 4:
                examples.append("0x%s: %s | %s | %s" % (address, [f for f, _ in mine], [f for f, _ in a], [f for f, _ in b]))
    both = sum(same_functions(a, b) for a, b in zip(llvm, gnu))
    note("%s: %d addresses: functions agree at %d, lines at %d; the other two with each other at %d"
         % (name, len(addresses), functions, lines, both))
    for sort, count in sorted(classes.items()):
        note("  %d times: %s" % (count, sort))
    for example in examples:
        note("  e.g. " + example[:400])
    return len(addresses), functions, lines


def main():
    missing = [tool for tool in ("llvm-symbolizer", "addr2line", "objdump") if not shutil.which(tool)]
    if missing:
        skip("names and lines are those of other symbolizers", "not installed: " + " ".join(missing))
        return
    lab = tempfile.mkdtemp(prefix="cprof-truth-")
    try:
        driver = lab + "/symbolize"
        built = subprocess.run(["gcc", "-O1", "-I.", "-pthread", "tests/bench/symbolize.c", "-o", driver], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if not check(built.returncode == 0, "the driver builds", built.stdout.decode(errors="replace")[-500:]):
            return
        total = functions = lines = 0
        for name, argv in PROGRAMS + (MORE if "all" in sys.argv[1:] else []):
            if not shutil.which(argv[0]):
                skip("names and lines: " + name, argv[0] + " is not installed")
                continue
            one = compare(lab, driver, name, argv)
            total, functions, lines = total + one[0], functions + one[1], lines + one[2]
        check(total > 3000 and functions >= 0.999 * total, "the chain of functions is that of another symbolizer for 99.9%",
              "%d of %d" % (functions, total))
        check(total > 3000 and lines >= 0.99 * total, "and so are the lines for 99%", "%d of %d" % (lines, total))
        note("in all: functions %.3f%%, lines %.3f%% of %d addresses" % (100 * functions / max(total, 1),
                                                                        100 * lines / max(total, 1), total))
    finally:
        shutil.rmtree(lab, ignore_errors=True)


if __name__ == "__main__":
    main()
    done()
