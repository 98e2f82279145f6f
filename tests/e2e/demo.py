#!/usr/bin/env python3
"""demo.py: `make demo` in a copy of the tree: it ends in a flame graph of a two-thread EVM run that
shows both threads, the interpreter, opcode helpers, keccak and big-number functions, and less than
0.5% unknown. Then `make demo-windows` there, see demo_windows.py.
"""

import os
import re
import shutil
import sys
import tempfile
import time
import xml.etree.ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "compile"), os.path.join(HERE, "..")]
import demo_windows  # noqa: E402
import wine  # noqa: E402
from checks import ROOT, check, done, note, run, skip  # noqa: E402


def read_folded(path):
    stacks = []
    with open(path) as file:
        for line in file:
            frames, count = line.rstrip("\n").rsplit(" ", 1)
            stacks.append((frames.split(";"), int(count)))
    return stacks


def main():
    copy = tempfile.mkdtemp(prefix="cprof-demo-")
    try:
        for name in ("cprof.h", "Makefile"):
            shutil.copy(os.path.join(ROOT, name), copy)
        for name in ("examples", "tools"):
            shutil.copytree(os.path.join(ROOT, name), os.path.join(copy, name))
        # As from a shell: nothing of the make that may have started the tests.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "CPROF_"))}
        start = time.time()
        status, text = run(["make", "demo"], cwd=copy, timeout=240, env=environment)
        note("make demo took %.1f s" % (time.time() - start))
        if not check(status == 0, "make demo", text):
            return
        for line in text.splitlines():
            if "samples" in line or "blocks/s" in line:
                note(line)
        svg, folded = (os.path.join(copy, "flamegraph." + e) for e in ("svg", "folded"))
        if not check(os.path.exists(svg) and os.path.exists(folded), "it writes flamegraph.folded and flamegraph.svg", "missing"):
            return
        examine(read_folded(folded), svg)
        status, text = run(["build/evm", "-b", "1000", "-e", "2000", "--datadir", "build/chain", "--profile",
                            "--profile-hz", "1000", "--profile-scopes", "opcode"], cwd=copy, timeout=240, env=environment)
        if check(status == 0, "evm --profile-scopes opcode", text):
            examine_opcodes(read_folded(folded))
        status, text = run(["make", "demo"], cwd=copy, timeout=240, env=environment)
        check(status == 0 and " gen " not in text, "a second make demo uses the chain that is there", text)
        missing = wine.missing() or (None if shutil.which("x86_64-w64-mingw32-gcc") else "MinGW is not installed")
        if missing:
            skip("make demo-windows", missing)
        else:
            demo_windows.windows(copy, text)
    finally:
        shutil.rmtree(copy)


# Each helper is called by one opcode only.
HELPERS = {"op_keccak256": ("[KECCAK256]",), "op_mulmod": ("[MULMOD]",), "op_sload": ("[SLOAD]",),
           "op_sstore": ("[SSTORE]",), "op_log": tuple("[LOG%d]" % n for n in range(5))}


def examine_opcodes(stacks):
    """Of a run with --profile-scopes opcode: every helper stands on its own opcode, and that on interpret."""
    right, wrong, others = 0, 0, {}
    for frames, count in stacks:
        for helper, opcodes in HELPERS.items():
            if helper not in frames:
                continue
            at = frames.index(helper)
            if at >= 2 and frames[at - 1] in opcodes and frames[at - 2] == "interpret":
                right += count
            else:
                wrong += count
                others[";".join(frames[-5:])] = count
    check(right >= 300 and wrong == 0, "the helpers of opcodes stand between interpret and what they call",
          "%d right, %d wrong: %s" % (right, wrong, others))
    named = sum(c for frames, c in stacks if "interpret" in frames and frames[-1] != "interpret"
                and frames[frames.index("interpret") + 1].startswith("["))
    inside = sum(c for frames, c in stacks if "interpret" in frames and "jumpdest_analyse" not in frames)  # comes before
    note("%d of %d periods in interpret show an opcode" % (named, inside))
    check(named > 0.99 * inside, "nearly all time in the interpreter is that of an opcode", "%d of %d" % (named, inside))


def examine(stacks, svg, more_unknown=0):
    """`more_unknown`: periods, beyond 0.5%."""
    total = sum(count for _, count in stacks)
    threads = {}
    for frames, count in stacks:
        threads[frames[0]] = threads.get(frames[0], 0) + count
    busy = sorted((name for name, count in threads.items() if count > 0.2 * total), key=threads.get)
    check(len(busy) >= 2, "both worker threads are in it, with a fair share each", str(threads))

    names = {}
    for frames, count in stacks:
        for name in set(frames[1:]):
            names[name] = names.get(name, 0) + count
    shown = []
    for what, pattern in (("the interpreter", r"interpret|execute|evm_run"), ("keccak", r"keccak"),
                          ("big-number functions", r"u256|mulmod|addmod|divmod"), ("opcode helpers", r"\b_?op_|storage|sstore|sload")):
        found = [name for name in names if re.search(pattern, name, re.I)]
        share = max([names[name] for name in found] or [0]) / total
        if check(share > 0.002, "%s can be seen" % what, "functions: " + " ".join(sorted(names, key=names.get, reverse=True)[:30])):
            best = max(found, key=names.get)
            shown.append(best)
            note("%s: %s with %.1f%%" % (what, best, 100 * share))
    # Unknown: a stack with a frame that has no name, or that is cut or lost.
    unknown = {}
    for frames, count in stacks:
        bracketed = [f for f in frames[1:] if re.match(r"^\[.*\]$", f)]
        leaf = frames[-1]
        # A C library without symbols below main is not ours to name; what hides work is.
        work = [f for f in bracketed if f == leaf or f in ("[lost]", "[unsampled]", "[truncated]")
                or not re.match(r"^\[(libc|ld-linux|libpthread)[^\]]*\]$", f)]
        if work:
            unknown[work[0]] = unknown.get(work[0], 0) + count
    share = sum(unknown.values()) / total
    note("%d periods in %d stacks, %.2f%% unknown" % (total, len(stacks), 100 * share))
    check(sum(unknown.values()) < 0.005 * total + more_unknown, "less than 0.5%% is unknown%s" % (", beside %d periods" % more_unknown if more_unknown else ""), "%.2f%%: %s" % (100 * share, sorted(unknown.items(), key=lambda i: -i[1])[:5]))

    try:
        tree = xml.etree.ElementTree.parse(svg)
    except xml.etree.ElementTree.ParseError as error:
        check(False, "flamegraph.svg is well-formed XML", error)
        return
    check(tree.getroot().tag.endswith("svg"), "flamegraph.svg is well-formed XML", tree.getroot().tag)
    with open(svg) as file:
        text = file.read()
    missing = [name for name in shown + busy if name not in text]
    check(shown and not missing, "the picture has those names", " ".join(missing))


if __name__ == "__main__":
    main()
    done()
