"""demo_windows.py: for demo.py: after `make demo` in a copy of the tree `make demo-windows` shows the
same, of the same blocks: both threads, the interpreter, opcode helpers, keccak and big-number
functions, little unknown, and the hottest functions with the shares they have on Linux.

Compared is the time in functions that both programs have as machine code; what is inlined belongs
to the function that holds it, because where instructions of one inlined function end and those of
the next begin is each compiler's choice. They may differ by 4 sigma of the samples, and by 10% of
the share, for the code is not the same: other registers to save and other ways to pass arguments.
"""

import math
import os
import re
import subprocess
import time

import demo
import wine
from checks import check, note, run

SHOWN = 10
UNEVEN = 1.4  # samples under Wine have uneven weights: so much more variance, measured in split.c
CODE = 0.10  # of a share: what other machine code may make


def functions(program):
    text = subprocess.run(["nm", program], stdout=subprocess.PIPE).stdout.decode()
    return {line.split()[-1] for line in text.splitlines() if re.search(r" [Tt] ", line)}


def self_shares(stacks, known=None):
    """Per function; with `known`, what none of those holds in itself goes to the nearest that does."""
    found, total = {}, 0
    for frames, count in stacks:
        if frames[0] == "[cprof]":
            continue
        total += count
        leaf = next((f for f in reversed(frames[1:]) if known is None or f in known), frames[-1])
        found[leaf] = found.get(leaf, 0) + count
    return {name: count / total for name, count in found.items()}


def samples(text):
    return int(re.search(r"cprof: (\d+) samples", text).group(1))


def compare(linux, windows, n_linux, n_windows, known):
    all_linux, all_windows = self_shares(linux), self_shares(windows)

    def sigma(p, q):
        share = max(p, q)  # of a function that was missed one may have expected some samples
        return math.sqrt(share * (1 - share) * (1 / n_linux + UNEVEN / n_windows))

    note("the %d hottest functions, self time: Linux (%d samples), Windows (%d samples), difference in sigma" % (
        SHOWN, n_linux, n_windows))
    for name in sorted(all_linux, key=all_linux.get, reverse=True)[:SHOWN]:
        p, q = all_linux[name], all_windows.get(name, 0)
        note("  %-24s %6.2f%% %6.2f%% %+5.1f" % (name, 100 * p, 100 * q, (q - p) / sigma(p, q)))
    held_linux, held_windows = self_shares(linux, known), self_shares(windows, known)
    note("the same with what is inlined")
    for name in sorted(held_linux, key=held_linux.get, reverse=True)[:SHOWN]:
        p, q = held_linux[name], held_windows.get(name, 0)
        bound = 4 * sigma(p, q) + CODE * p
        note("  %-24s %6.2f%% %6.2f%% %+5.1f" % (name, 100 * p, 100 * q, (q - p) / sigma(p, q)))
        check(abs(q - p) <= bound, "%s: as hot as on Linux, but for statistics and other machine code" % name,
              "%.2f%% and %.2f%%, bound +-%.2f%%" % (100 * p, 100 * q, 100 * bound))


def windows(copy, linux_text):
    """`linux_text` is what `make demo` said, which wrote the flamegraph.folded that is there."""
    environment = {k: v for k, v in wine.environment().items() if not k.startswith(("MAKE", "MFLAGS", "CPROF_"))}
    start = time.time()
    status, text = run(["make", "demo-windows"], cwd=copy, timeout=400, env=environment)
    note("make demo-windows took %.1f s" % (time.time() - start))
    if not check(status == 0, "make demo-windows", text):
        return
    for line in text.splitlines():
        if "samples" in line or "blocks/s" in line:
            note(line)
    linux = demo.read_folded(os.path.join(copy, "flamegraph.folded"))
    found = demo.read_folded(os.path.join(copy, "flamegraph-windows.folded"))
    # CPU times come in steps of 10 ms, of which each thread may lose one at either end.
    demo.examine(found, os.path.join(copy, "flamegraph-windows.svg"), more_unknown=3 * 2 * 10)
    known = functions(os.path.join(copy, "build", "evm")) & functions(os.path.join(copy, "build", "evm.exe"))
    compare(linux, found, samples(linux_text), samples(text), known)
