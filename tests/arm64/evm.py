#!/usr/bin/env python3
"""evm.py: the example EVM, built for AArch64 Linux and run by qemu-aarch64, is profiled: both threads are
there, rooted, and with the right names.

    evm.py PROGRAM QEMU...
"""

import os
import re
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "compile"))
from checks import ROOT, check, done, note, run  # noqa: E402


def main():
    program, qemu = os.path.join(ROOT, sys.argv[1]), sys.argv[2:]
    with tempfile.TemporaryDirectory(prefix="cprof-arm64-") as here:
        status, text = run(qemu + [program, "gen", "--datadir", "data", "-b", "1000", "-e", "1030"], cwd=here)
        if not check(status == 0, "evm gen", text):
            return
        status, text = run(qemu + [program, "-b", "1000", "-e", "1030", "--datadir", "data", "--threads", "2", "--profile",
                                   "--profile-hz", "1000", "--profile-output", "arm64.folded"], cwd=here)
        if not check(status == 0, "evm --profile", text):
            return
        note(next((line for line in text.splitlines() if line.startswith("cprof:")), "no end line"))
        total = rooted = named = workers = 0
        threads, names = set(), set()
        with open(os.path.join(here, "arm64.folded")) as file:
            for line in file:
                frames, count = line.rstrip("\n").rsplit(" ", 1)
                frames, count = frames.split(";"), int(count)
                if frames[0] == "[cprof]":
                    continue
                total += count
                rooted += count * (frames[1] in ("_start", "thread_start", "__clone", "clone") or "[libc.so.6" in frames[1])
                named += count * (not re.match(r"\[(evm|jit)", frames[-1]))
                if "interpret" in " ".join(frames):
                    workers += count
                    threads.add(frames[0])
                names |= set(frames)
        check(total > 100, "there are samples", "%d" % total)
        check(rooted >= 0.99 * total, "stacks reach the root", "%d of %d" % (rooted, total))
        check(named >= 0.99 * total, "functions have names", "%d of %d" % (named, total))
        check(len(threads) == 2 and workers > total / 2, "two threads interpret", "%s, %d of %d" % (threads, workers, total))
        check("op_keccak256" in names or "keccak256" in names, "an opcode's helper is there", sorted(names)[:40])


if __name__ == "__main__":
    main()
    done()
