#!/usr/bin/env python3
"""symbols.py: the symbol layer against addr2line and llvm-symbolizer on a program with more than
100 MB of debug information (tests/bench/bigprogram, built by cargo under build/). It fails nothing.

a. time, CPU and memory for 1, 100, 5,000 and 50,000 addresses spread evenly over .text; the tools
   in turns, on the same addresses; medians. A tool that takes over a minute runs once.
b. agreement: of every address, the chain of functions (linkage names), and of every frame file and
   line, against llvm-symbolizer; of the demangled names, against the addr2line of the Rust project.

    symbols.py [--quick] [--agree FILE...]

--agree compares the answers for other ELF files and measures nothing.
"""

import collections
import json
import os
import posixpath
import re
import shutil
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build", "symbols")
DRIVER = os.path.join(BUILD, "symbolize")
BIG_SOURCE = os.path.join(ROOT, "tests", "bench", "bigprogram")
BIG_BUILD = os.path.join(ROOT, "build", "bigprogram")
RUST_ADDR2LINE = "0.27.1"  # the version of the crate
SIZES = (1, 100, 5000, 50000)
ROUNDS = 5
SLOW = 60.0      # seconds; a tool that takes longer runs once
HOPELESS = 600.0


# ---- building ----

def build():
    os.makedirs(BUILD, exist_ok=True)
    cc = os.environ.get("CC", "cc").split()
    subprocess.run(cc + ["-std=gnu11", "-O2", "-g", "-I.", "-pthread", "tests/bench/symbolize.c", "-o", DRIVER], cwd=ROOT, check=True)


def cargo(*arguments):
    if not shutil.which("cargo"):
        return "cargo is not installed"
    done = subprocess.run(["cargo"] + list(arguments), cwd=BIG_SOURCE, env=dict(os.environ, CARGO_TARGET_DIR=BIG_BUILD),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return None if done.returncode == 0 else "cargo %s:\n%s" % (arguments[0], done.stdout.decode(errors="replace")[-2000:])


def big_program():
    program = os.path.join(BIG_BUILD, "release", "bigprogram")
    if not os.path.exists(program):
        print("building tests/bench/bigprogram, which takes some minutes")
        sys.stdout.flush()
    trouble = cargo("build", "--release", "--locked")
    if trouble:
        print(trouble)
    return None if trouble else program


def rust_addr2line():
    """The addr2line of gimli, from crates.io; None if it cannot be had."""
    program = os.path.join(BUILD, "bin", "addr2line")
    if not os.path.exists(program):
        trouble = cargo("install", "addr2line", "--version", RUST_ADDR2LINE, "--locked", "--features", "bin", "--root", BUILD)
        if trouble:
            print(trouble)
            return None
    return program


# ---- the file ----

def sections(path):
    """{name: (address, size)}; sizes as in the file, so compressed where they are."""
    out = subprocess.run(["readelf", "-SW", path], stdout=subprocess.PIPE, check=True).stdout.decode()
    found = {}
    for line in out.splitlines():
        match = re.match(r"\s*\[\s*\d+\]\s+(\S+)\s+\S+\s+([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)", line)
        if match:
            found[match.group(1)] = (int(match.group(2), 16), int(match.group(3), 16))
    return found


def spread(path, n):
    """n addresses at even distances over .text, and where to read them from"""
    start, size = sections(path)[".text"]
    addresses = [start + (2 * i + 1) * size // (2 * n) for i in range(n)]
    name = os.path.join(BUILD, "addresses-%d" % n)
    with open(name, "w") as file:
        file.writelines("0x%x\n" % address for address in addresses)
    return addresses, name


# ---- the tools: how to run each, how to read its answer ----

def tools(path, rust):
    every = {"cprof": [DRIVER, path]}
    if shutil.which("addr2line"):
        every["addr2line"] = ["addr2line", "-aifC", "-e", path]
    if shutil.which("llvm-symbolizer"):
        every["llvm-symbolizer"] = ["llvm-symbolizer", "--inlines", "--demangle", "-e", path]
    if rust:
        every["rust addr2line"] = [rust, "-aifC", "-e", path]
    return every


def answer(command, addresses_file):
    with open(addresses_file) as stdin:
        done = subprocess.run(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.stderr:
        print("   %s says: %s" % (os.path.basename(command[0]), done.stderr.decode(errors="replace").strip()[:300]))
    if done.returncode != 0:
        print("   %s: exit status %d" % (os.path.basename(command[0]), done.returncode))
    return done.stdout.decode(errors="replace").split("\n")


def place(text):
    """(file, line) of `file:line`, `file:line:column`, `file:line (discriminator 3)`"""
    match = re.match(r"^(.*?):([0-9]+|\?)(:[0-9]+)?( \(discriminator [0-9]+\))?$", text)
    if not match:
        return text, 0
    file = "??" if match.group(1) in ("", "??") else posixpath.normpath(match.group(1))
    return file, int(match.group(2)) if match.group(2) != "?" else 0


def read_ours(lines):
    chains = []
    for line in lines:
        if re.match(r"^0x[0-9a-f]+$", line):
            chains.append([])
        elif line:
            function, where, _ = line.split("\t")
            chains[-1].append((function,) + place(where))
    return chains


def read_llvm(lines):
    """Blocks of pairs of lines, each followed by an empty line."""
    chains, block = [], []
    for line in lines:
        if line:
            block.append(line)
        elif block:
            chains.append([(block[i],) + place(block[i + 1]) for i in range(0, len(block) - 1, 2)])
            block = []
    return chains


def read_addr2line(lines):
    """With -a: the address, then pairs of lines."""
    chains, block = [], []
    for line in lines + ["0x0"]:
        if re.match(r"^0x[0-9a-f]+$", line):
            if block:
                chains.append([(block[i],) + place(block[i + 1]) for i in range(0, len(block) - 1, 2)])
            block = []
            chains_open = True
        elif line and chains_open:
            block.append(line)
    return chains


# ---- a. time ----

def measure(command, addresses_file):
    with open(addresses_file) as stdin:
        try:
            done = subprocess.run([DRIVER, "--run"] + command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=HOPELESS)
        except subprocess.TimeoutExpired:
            return None
    return json.loads(done.stdout.decode()) if done.returncode == 0 else None


def times(path, every, sizes, rounds):
    result = {}
    print("a. medians of up to %d rounds, the tools in turns" % rounds)
    print("   %9s  %-16s %9s %9s %9s   %s" % ("addresses", "", "wall s", "CPU s", "peak MB", "of cprof's: wall, CPU, peak"))
    for n in sizes:
        file = spread(path, n)[1]
        runs = {name: [] for name in every}
        for round_ in range(rounds):
            for name, command in every.items():
                if round_ and (not runs[name] or runs[name][0]["wall"] > SLOW):
                    continue
                got = measure(command, file)
                if got:
                    runs[name].append(got)
        row = result[str(n)] = {}
        for name in every:
            if not runs[name]:
                print("   %9d  %-16s failed, or took over %.0f s" % (n, name, HOPELESS))
                continue
            one = {key: statistics.median(run[key] for run in runs[name]) for key in ("wall", "cpu", "peak_kb")}
            one["runs"] = len(runs[name])
            row[name] = one
            ratios = ""
            if name != "cprof" and "cprof" in row:
                ratios = "%.1f  %.1f  %.1f" % tuple(one[key] / max(row["cprof"][key], 1e-9) for key in ("wall", "cpu", "peak_kb"))
            print("   %9d  %-16s %9.3f %9.3f %9.1f   %s%s" % (n, name, one["wall"], one["cpu"], one["peak_kb"] / 1024, ratios,
                                                            "   (%d run%s)" % (one["runs"], "s" * (one["runs"] > 1)) if one["runs"] < rounds else ""))
            sys.stdout.flush()
    return result


# ---- b. agreement ----

def bare(name):
    """A name without what tools differ in: hash, suffix of a clone, parameters, template arguments, white space."""
    name = re.sub(r"::h[0-9a-f]{16}$", "", name)
    name = re.sub(r"17h[0-9a-f]{16}E\b", "E", name)
    if name.startswith("_ZN"):  # constructors and destructors have several names for one piece of code
        name = re.sub(r"([CD])[1245](?=E)", r"\1", name)
    name = re.sub(r"\[[0-9a-f]{8,16}\]", "", name)
    name = re.sub(r"( \[clone [^]]*\])+$|(\.(constprop|isra|part|cold|lto_priv|llvm)[.0-9]*)+$", "", name)
    return name.replace(" ", "")


def last(name):
    """What follows the enclosing scopes."""
    depth, cut = 0, 0
    for i, c in enumerate(name):
        depth += (c in "<({[") - (c in ">)}]")
        if name[i:i + 2] == "::" and depth <= 0:
            cut = i + 2
    return name[cut:]


def same_name(ours, theirs):
    if bare(ours) == bare(theirs):
        return True
    # Without a linkage name there is only the plain one, and ours then has its scopes before it.
    return last(bare(ours)) == last(bare(theirs)) and (bare(ours).endswith(bare(theirs)) or bare(theirs).endswith(bare(ours)))


def unknown(name):
    return name.startswith("[") or name == "??"


NO_LINE = "no line there (0), and no file from one of the two"
NOTHING = "nothing from them (mostly bytes between functions; not in the shares)"


def nothing(chain):
    return len(chain) == 1 and unknown(chain[0][0]) and chain[0][1] == "??"


def classify(ours, theirs):
    """Why two answers for an address differ; None: they do not."""
    if nothing(theirs):
        return None if nothing(ours) else NOTHING
    if len(ours) != len(theirs):
        if all(file == "??" for _, file, _ in ours) and any(file != "??" for _, file, _ in theirs):
            return "nothing but a symbol from us"
        if all(file == "??" for _, file, _ in theirs) and any(file != "??" for _, file, _ in ours):
            return "nothing but a symbol from them"
        return "depth: %s frames than theirs" % ("fewer" if len(ours) < len(theirs) else "more")
    for k, (a, b) in enumerate(zip(ours, theirs)):
        which = "outermost" if k == len(ours) - 1 else "inlined"
        if not same_name(a[0], b[0]):
            if unknown(a[0]) != unknown(b[0]):
                return "no name from %s" % ("us" if unknown(a[0]) else "them")
            return "name of the %s function" % which
    for k, (a, b) in enumerate(zip(ours, theirs)):
        if a[1] != b[1] and a[2] == b[2] == 0 and "??" in (a[1], b[1]):
            return NO_LINE
        if a[1] != b[1]:
            return "no file from %s" % ("us" if a[1] == "??" else "them") if "??" in (a[1], b[1]) else "file"
        if a[2] != b[2]:
            return "line of %s" % ("the address" if k == 0 else "a call")
    return None


def show(chain):
    return "".join("\n          %s  %s:%d" % frame for frame in chain)


def compare(title, addresses, ours, theirs, reference, examples):
    if not (len(addresses) == len(ours) == len(theirs)):
        print("   %-34s cannot be compared: %d addresses, %d and %d answers" % (title, len(addresses), len(ours), len(theirs)))
        return None
    kinds, first = collections.Counter(), {}
    exact = chains = 0
    for address, a, b in zip(addresses, ours, theirs):
        kind = classify(a, b)
        exact += kind is None
        chains += kind != NOTHING and len(a) == len(b) and all(same_name(x[0], y[0]) for x, y in zip(a, b))
        if kind:
            kinds[kind] += 1
            first.setdefault(kind, []).append((address, a, b))
    n = len(addresses) - kinds[NOTHING]
    exact_or_nearly = exact + kinds[NO_LINE]
    print("   %-34s %7.3f%% all the same (%.3f%% but for the file of line 0); %7.3f%% the same functions"
          % (title, 100.0 * exact / n, 100.0 * exact_or_nearly / n, 100.0 * chains / n))
    for kind, count in kinds.most_common():
        print("      %6d  %s" % (count, kind))
        for address, a, b in first[kind][:examples]:
            print("        0x%x%s\n         %s:%s" % (address, show(a), reference, show(b)))
    sys.stdout.flush()
    return {"addresses": n, "same": exact / n, "same_but_line_0": exact_or_nearly / n, "same_functions": chains / n, "differences": dict(kinds)}


def agreement(path, rust, n, slow, examples=2):
    print("b. agreement, %d addresses of %s" % (n, os.path.basename(path)))
    addresses, file = spread(path, n)
    result = {}
    ours = read_ours(answer([DRIVER, "--raw", path], file))
    llvm = None
    if shutil.which("llvm-symbolizer"):
        llvm = read_llvm(answer(["llvm-symbolizer", "--inlines", "--no-demangle", "-e", path], file))
        frames = sum(map(len, llvm))
        print("   %.2f frames an address" % (frames / max(1, len(llvm))))
        result["cprof, llvm-symbolizer"] = compare("cprof with llvm-symbolizer", addresses, ours, llvm, "llvm-symbolizer", examples)
    if rust:
        theirs = read_addr2line(answer([rust, "-aif", "-e", path], file))
        result["cprof, rust addr2line"] = compare("cprof with rust addr2line", addresses, ours, theirs, "rust addr2line", 0)
        if llvm:
            result["rust addr2line, llvm-symbolizer"] = compare("rust addr2line with llvm-symbolizer", addresses, theirs, llvm, "llvm-symbolizer", 0)
        nice = read_ours(answer([DRIVER, path], file))
        theirs = read_addr2line(answer([rust, "-aifC", "-e", path], file))
        result["demangled"] = compare("demangled, with rust addr2line", addresses, nice, theirs, "rust addr2line", examples)
    if shutil.which("addr2line") and not slow:
        theirs = read_addr2line(answer(["addr2line", "-aif", "-e", path], file))
        result["cprof, addr2line"] = compare("cprof with addr2line", addresses, ours, theirs, "addr2line", 0)
        if llvm:
            result["addr2line, llvm-symbolizer"] = compare("addr2line with llvm-symbolizer", addresses, theirs, llvm, "llvm-symbolizer", 0)
    return result


def main():
    arguments = sys.argv[1:]
    build()
    if "--agree" in arguments:
        for path in arguments[arguments.index("--agree") + 1:]:
            agreement(path, None, min(20000, sections(path)[".text"][1] // 3), False, 3)
        return
    program = big_program()
    if not program:
        return
    rust = rust_addr2line()
    debug = {name: size for name, (_, size) in sections(program).items() if name.startswith(".debug_")}
    print("%s: %.0f MB of debug information, .text %.1f MB" % (os.path.relpath(program, ROOT), sum(debug.values()) / 1e6,
                                                              sections(program)[".text"][1] / 1e6))
    print("   " + ", ".join("%s %.1f" % (name, size / 1e6) for name, size in sorted(debug.items(), key=lambda d: -d[1])))
    quick = "--quick" in arguments
    timed = times(program, tools(program, rust), SIZES[:3] if quick else SIZES, 2 if quick else ROUNDS)
    slow = timed["5000"].get("addr2line", {"wall": HOPELESS})["wall"] > 2 * SLOW
    agreed = agreement(program, rust, 5000, slow)
    result = {"debug_bytes": sum(debug.values()), "sections": debug, "times": timed, "agreement": agreed}
    with open(os.path.join(BUILD, "symbols.json"), "w") as file:
        json.dump(result, file, indent=1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
