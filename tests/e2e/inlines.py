#!/usr/bin/env python3
"""inlines.py: a profile of an optimised program shows its inlined functions, in the right order,
below the right root, with readable names, and with CPROF_LINES=1 with file and line: whatever the
compiler, the level, the version of DWARF, and wherever the debug information is.
"""

import concurrent.futures
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "compile"),
                os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")]
from checks import ROOT, check, done, note, run, skip  # noqa: E402
from implementation import implementation  # noqa: E402

HERE = os.path.join("tests", "e2e")
MS = "200"   # CPU time of a run, 1000 samples a second
ENOUGH = 0.9  # of all samples show a whole chain; the rest is the program's start and end
INLINED = {"mix", "part_mix", "checked", "op_mul", "op_add"}  # by all compilers, at all levels

C_CHAINS = [["main", "interpret", "op_mul", "checked", "mix"],
            ["main", "interpret", "op_add", "checked", "mix"],
            ["main", "interpret", "plain"],
            ["main", "interpret", "part_fold", "part_mix"]]
CXX_CHAINS = [[r"main", r"evm::interpret", r"evm::repeat<3.*>", r"(evm::interpret.*::)?.*(lambda|\$_0|'unnamed).*",
               r"evm::Stack<(?:%s)>::push" % word, r"evm::\(anonymous namespace\)::mix"] for word in ("unsigned int|unsigned", "unsigned long")]
RUST_CHAINS = [[r"main", r"rust_run", r"inlines_rust::vm::interpret(::<.*>)?", r"inlines_rust::vm::interpret.*\{\{?closure.*",
                r"<inlines_rust::vm::Mul as inlines_rust::vm::Op>::apply", r"inlines_rust::vm::mix(::<u32>)?"]]


class Trouble(Exception):
    pass


def command(argv, cwd=ROOT):
    done_ = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done_.returncode != 0:
        raise Trouble("%s\n%s" % (" ".join(argv), done_.stdout.decode(errors="replace")))
    return done_.stdout.decode(errors="replace")


# ---- what the sources say ----

class Source:
    """Where the functions of a file begin and end, and from which lines which calls which."""

    def __init__(self, name):
        self.functions, self.calls = {}, {}
        opened = {}  # indentation -> (name, line) of the function begun there
        with open(os.path.join(ROOT, HERE, name)) as file:
            for number, line in enumerate(file, 1):
                indent = len(line) - len(line.lstrip())
                head = re.match(r"^ *(?:(?:pub |extern \"C\" )*fn|[\w:<>* ]*(?:__attribute__\(\(\w+\)\) [\w: ]*)?[\w>*]) +\**(\w+)(?:<[^(]*>)?\(.*[^;]$", line.rstrip())
                if head and head.group(1) not in ("if", "while", "for", "switch") and "->" not in line.split("fn ")[0]:
                    opened[indent] = (head.group(1), number)
                if line.strip().startswith("}") and indent in opened:
                    function, start = opened.pop(indent)
                    self.functions[function] = (start, number)
                called = re.search(r"(?:/\*|//) -> (\S+)(?: \*/)?$", line.rstrip())
                if called:
                    self.calls.setdefault(called.group(1), set()).add(number)


# ---- building and running ----

class Lab:
    def __init__(self, directory):
        self.directory = directory
        self.cprof = self.implementation()

    def path(self, name):
        return os.path.join(self.directory, name)

    def implementation(self):
        return implementation()

    def c_program(self, name, cc, flags, link=()):
        os.makedirs(self.path(name + ".d"))
        objects = []
        for source in ("c", "part"):
            objects.append(self.path(name + ".d/" + source + ".o"))
            command([cc] + flags + ["-I.", "-pthread", "-c", HERE + "/inlines_%s.c" % source, "-o", objects[-1]])
        program = self.path(name + ".d/inlines")
        command([cc] + flags + ["-pthread"] + objects + [self.cprof] + list(link) + ["-o", program])
        return program

    def cxx_program(self, name, cxx, flags):
        os.makedirs(self.path(name + ".d"))
        program = self.path(name + ".d/inlines")
        command([cxx] + flags + ["-I.", "-pthread", HERE + "/inlines_cxx.cpp", self.cprof, "-o", program])
        return program

    def rust_program(self, name, flags):
        os.makedirs(self.path(name + ".d"))
        library, program = self.path(name + ".d/libinlines_rust.a"), self.path(name + ".d/inlines")
        # Newer compilers have the legacy names only for those who insist.
        command(["env", "RUSTC_BOOTSTRAP=1", "rustc", "--edition", "2021", "-Z", "unstable-options", "-g", "-C", "opt-level=2",
                 "-C", "panic=abort"] + flags + [HERE + "/inlines_rust.rs", "-o", library])
        command(["cc", "-O2", "-g", "-I.", "-pthread", HERE + "/inlines_rust_main.c", self.cprof, library, "-lm", "-ldl", "-o", program])
        return program


class Profile:
    runner, ms = [], MS

    def __init__(self, program, **environment):
        output = program + ".folded"
        if os.path.exists(output):
            os.remove(output)
        clean = {k: v for k, v in os.environ.items() if not k.startswith("CPROF_")}
        status, text = run(self.runner + [program, self.ms], cwd=os.path.dirname(program),
                           env=dict(clean, CPROF_HZ="1000", CPROF_OUTPUT=output, **environment))
        self.text = text.replace(os.path.dirname(program) + os.sep, "")
        if status != 0 or not os.path.exists(output):
            raise Trouble("exit status %d\n%s" % (status, self.text))
        self.stacks = []
        with open(output) as file:
            for line in file:
                frames, count = line.rstrip("\n").rsplit(" ", 1)
                frames = frames.split(";")
                if frames[0] == "[cprof]":
                    continue
                # A frame is (name, file, line); ("f", None, 0) without lines.
                split = [re.match(r"^(.*?)(?: \(([^():; ]+\.\w+)(?::([0-9]+))?\))?$", frame).groups() for frame in frames]
                self.stacks.append(([(name, file_, int(number or 0)) for name, file_, number in split], int(count)))
        self.total = sum(count for _, count in self.stacks)

    def share(self, chain):
        """Of all samples, those whose stack has this chain, from main on; patterns match whole names."""
        found = 0
        for frames, count in self.stacks:
            names = [name for name, _, _ in frames]
            if "main" in names:
                names = names[names.index("main"):]
                found += count * (len(names) >= len(chain) and all(re.fullmatch(p, n) for p, n in zip(chain, names)))
        return found / max(1, self.total)

    def names(self):
        return {name for frames, _ in self.stacks for name, _, _ in frames[1:]}

    def show(self):
        top = sorted(self.stacks, key=lambda s: -s[1])[:5]
        return "\n".join(["%d samples; the heaviest stacks:" % self.total]
                         + ["%5d %s" % (count, ";".join("%s%s" % (n, " (%s:%d)" % (f, l) if f else "") for n, f, l in frames)) for frames, count in top]
                         + [self.text])


def wrong_chains(profile, chains):
    shares = [profile.share(chain) for chain in chains]
    if profile.total < 0.5 * int(profile.ms):
        return "only %d samples" % profile.total
    if min(shares) < 0.3 / len(chains) or sum(shares) < ENOUGH:
        return "shares of the chains: %s\n%s" % (" ".join("%.2f" % share for share in shares), profile.show())
    unreadable = [n for n in profile.names() if re.match(r"^_?_[ZR]", n) or n.startswith("dead_code")]
    return "names: " + " ".join(unreadable) if unreadable else None


def function_of(name):
    """The plain name: evm::Stack<unsigned>::push -> push"""
    plain = re.sub(r"::<[^<>]*>$", "", name)
    while re.search(r"<[^<>]*>", plain.replace("->", "")):
        plain = re.sub(r"<[^<>]*>", "", plain)
    return plain.rsplit("::", 1)[-1]


def wrong_lines(profile, sources):
    """None if all frames of these sources lie in their functions and, where they call, at the call.
    Compilers give line 0 to some code, of which they do not know what it belongs to."""
    seen = located = 0
    for frames, count in profile.stacks:
        for k, (name, file, line) in enumerate(frames):
            plain = function_of(name)
            homes = [source for source in sources if plain in sources[source].functions]
            if not homes or k == 0:
                continue
            seen += count
            if file is None or line == 0:
                continue
            if file not in homes:
                return "%s is said to be in %s\n%s" % (name, file, profile.show())
            start, end = sources[file].functions[plain]
            if not start <= line <= end:
                return "%s (%s:%d) is not between %d and %d\n%s" % (name, file, line, start, end, profile.show())
            if k + 1 < len(frames):
                callee = function_of(frames[k + 1][0])
                calls = {call for call in sources[file].calls.get(callee, set()) if start <= call <= end}
                if calls and line not in calls:
                    return "%s (%s:%d) calls %s in line %s\n%s" % (name, file, line, callee, sorted(calls), profile.show())
            located += count
    if not seen or located < 0.9 * seen:
        return "%d of %d frames have a line\n%s" % (located, seen, profile.show())
    return None


def symbols_of(program):
    return set(line.split()[-1] for line in command(["nm", program]).splitlines() if line.strip())


# ---- the cases; each returns a list of (name, why or None) ----

def c_case(lab, name, cc, flags, link=(), lines=True, gone=INLINED):
    program = lab.c_program(re.sub(r"\W+", "-", name), cc, flags, link)
    left = gone & symbols_of(program)
    profile = Profile(program, **({"CPROF_LINES": "1"} if lines else {}))
    results = [(name + ": the chains", "not inlined, so this proves nothing: " + " ".join(left) if left else wrong_chains(profile, C_CHAINS))]
    if lines:
        sources = {"inlines_%s.c" % s: Source("inlines_%s.c" % s) for s in ("c", "mix", "part")}
        results.append((name + ": files and lines", wrong_lines(profile, sources)))
    return results


def cxx_case(lab, name, cxx, flags):
    program = lab.cxx_program(re.sub(r"\W+", "-", name), cxx, flags)
    profile = Profile(program)
    with_lines = Profile(program, CPROF_LINES="1")
    return [(name + ": the chains, names qualified and demangled", wrong_chains(profile, CXX_CHAINS)),
            (name + ": files and lines", wrong_lines(with_lines, {"inlines_cxx.cpp": Source("inlines_cxx.cpp")}))]


def rust_case(lab, mangling):
    program = lab.rust_program("rust-" + mangling, ["-C", "symbol-mangling-version=" + mangling])
    profile = Profile(program)
    with_lines = Profile(program, CPROF_LINES="1")
    sources = {name: Source(name) for name in ("inlines_rust.rs", "inlines_rust_main.c")}
    return [("rust, %s names: the chains, names demangled" % mangling, wrong_chains(profile, RUST_CHAINS)),
            ("rust, %s names: files and lines" % mangling, wrong_lines(with_lines, sources))]


def stripped_is_bare(profile):
    """What a stripped program without its debug file shows."""
    ours = {}
    for frames, count in profile.stacks:
        for name in {name for name, _, _ in frames[1:] if name.startswith("[inlines+0x")}:
            ours[name] = ours.get(name, 0) + count
    if not ours or profile.share(C_CHAINS[0]) > 0:
        return "no [inlines+0x...]\n" + profile.show()
    # main, interpret, part_fold, and what of cprof's start and end was seen; the leaf once.
    leaves = {frames[-1][0] for frames, count in profile.stacks if count > 0.02 * profile.total and "[inlines+0x" in frames[-1][0]}
    if len(leaves) > 2 or max(ours.values()) < ENOUGH * profile.total:
        return "not merged by function\n" + profile.show()
    return None


def separate_case(lab):
    """The debug information in a file of its own, in all places where it is looked for."""
    results = []
    whole = lab.c_program("separate", "cc", ["-O2", "-g", "-Wl,--build-id=sha1"])
    debug = whole + ".debug"
    command(["objcopy", "--only-keep-debug", whole, debug])

    def program(name, link):
        directory = lab.path("separate-" + name)
        os.makedirs(directory)
        stripped = os.path.join(directory, "inlines")
        command(["strip", "-o", stripped, whole])
        if link:
            command(["objcopy", "--add-gnu-debuglink=" + debug, stripped], cwd=directory)
        return stripped

    def judge(what, program_, judge_=lambda p: wrong_chains(p, C_CHAINS), **environment):
        results.append(("separate debug file: " + what, judge_(Profile(program_, **environment))))

    beside = program("beside", True)
    shutil.copy(debug, os.path.dirname(beside))
    judge("beside the program", beside)
    below = program("below", True)
    os.makedirs(os.path.join(os.path.dirname(below), ".debug"))
    shutil.copy(debug, os.path.join(os.path.dirname(below), ".debug"))
    judge("in .debug", below)

    build_id = re.search(r"Build ID: ([0-9a-f]+)", command(["readelf", "-n", whole])).group(1)
    tree = lab.path("tree")
    os.makedirs(os.path.join(tree, ".build-id", build_id[:2]))
    shutil.copy(debug, os.path.join(tree, ".build-id", build_id[:2], build_id[2:] + ".debug"))
    by_id = program("id", False)
    judge("by build id, below CPROF_DEBUG_DIR", by_id, CPROF_DEBUG_DIR=tree)

    bare = program("bare", False)
    judge("none: [program+0x...], merged by function", bare, stripped_is_bare)
    wrong = program("wrong", True)
    other = lab.c_program("separate-other", "cc", ["-O3", "-g", "-Wl,--build-id=sha1"])
    command(["objcopy", "--only-keep-debug", other, os.path.join(os.path.dirname(wrong), "inlines.debug")])
    judge("that of another build is not used", wrong, stripped_is_bare)
    return results


def split_case(lab, cc):
    program = lab.c_program("split-" + cc, cc, ["-O2", "-g", "-gsplit-dwarf"])
    profile = Profile(program)
    remarks = [line for line in profile.text.splitlines() if re.search(r"split DWARF", line, re.I)]
    return [("split DWARF, %s: names from the symbol table" % cc, None if profile.share(["main", "interpret"]) >= ENOUGH else profile.show()),
            ("split DWARF, %s: one remark says that it is not read" % cc, None if len(remarks) == 1 else "%d remarks\n%s" % (len(remarks), profile.text))]


def zstd_case(lab):
    program = lab.c_program("zstd", "cc", ["-O2", "-g"])
    command(["objcopy", "--compress-debug-sections=zstd", program])
    profile = Profile(program)
    remarks = [line for line in profile.text.splitlines() if re.search(r"compress", line, re.I)]
    return [("zstd sections: names from the symbol table", None if profile.share(["main", "interpret"]) >= ENOUGH else profile.show()),
            ("zstd sections: one remark says that they are not read", None if len(remarks) == 1 else "%d remarks\n%s" % (len(remarks), profile.text))]


def cases(lab):
    """(name, function)"""
    every = []

    def add(name, function, *arguments, **more):
        every.append((name, lambda: function(lab, *arguments, **more)))

    compilers = [(cc, cxx) for cc, cxx in (("gcc", "g++"), ("clang", "clang++")) if shutil.which(cc) and shutil.which(cxx)]
    for cc, cxx in compilers:
        # All versions at one level, all levels in the versions that compilers have as default.
        for level, versions in (("-O1", "45"), ("-O2", "2345"), ("-O3", "5")):
            for version in versions:
                name = "%s %s DWARF %s" % (cc, level, version)
                add(name, c_case, name, cc, [level, "-g", "-gdwarf-" + version], gone=INLINED | {"plain"} if level != "-O1" else INLINED)
        for version in "45":
            name = "%s DWARF %s" % (cxx, version)
            add(name, cxx_case, name, cxx, ["-std=c++11", "-O2", "-g", "-gdwarf-" + version])
        name = cc + " --gc-sections"
        add(name, c_case, name, cc, ["-O2", "-g", "-ffunction-sections"], ["-Wl,--gc-sections"])
        add(cc + " -no-pie", c_case, cc + " -no-pie", cc, ["-O2", "-g", "-fno-pie"], ["-no-pie"], lines=False)
        for kind in ("zlib", "zlib-gnu") if cc == "gcc" else ("zlib",):
            name = "%s -gz=%s" % (cc, kind)
            add(name, c_case, name, cc, ["-O2", "-g", "-gz=" + kind])
        add("split DWARF, " + cc, split_case, cc)
        lld = ["-fuse-ld=lld"] if cc == "clang" else []
        if not lld or shutil.which("ld.lld"):
            name = cc + " -flto"
            add(name, c_case, name, cc, ["-O2", "-g", "-flto"] + lld, gone=INLINED | {"plain", "part_fold"})
    if shutil.which("clang") and shutil.which("ld.lld"):
        name = "clang, lld --gc-sections"
        add(name, c_case, name, "clang", ["-O2", "-g", "-ffunction-sections"], ["-fuse-ld=lld", "-Wl,--gc-sections"])
    else:
        skip("clang with lld", "they are not installed")
    add("separate debug files", separate_case)
    if "zstd" in command(["objcopy", "--help"]):
        add("zstd sections", zstd_case)
    if shutil.which("rustc"):
        add("rust, legacy names", rust_case, "legacy")
        add("rust, v0 names", rust_case, "v0")
    else:
        skip("rust", "rustc is not installed")
    return every


def attempt(function):
    try:
        return function()
    except (Trouble, OSError, subprocess.SubprocessError, struct.error) as trouble:
        return trouble


def main():
    only = sys.argv[1:]
    lab = Lab(tempfile.mkdtemp(prefix="cprof-inlines-"))
    try:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            work = [(name, pool.submit(attempt, function)) for name, function in cases(lab) if not only or any(o in name for o in only)]
            for name, future in work:
                results = future.result()
                if isinstance(results, Exception):
                    check(False, name, results)
                    continue
                for what, why in results:
                    check(why is None, what, why)
    finally:
        if os.environ.get("INLINES_KEEP"):
            note("kept in " + lab.directory)
        else:
            shutil.rmtree(lab.directory)


if __name__ == "__main__":
    main()
    done()
