#!/usr/bin/env python3
"""flamegraph.py of the bench: the script against flamegraph.pl and inferno on a large folded file.

    python3 tests/bench/flamegraph.py [--quick]

1,000,000 lines of 200,000 different stacks (tests/bench/folded.py), the tools in turns, three
rounds; time, peak memory and size of the picture of each, and the ratio of times in each round. The
peers are found on the PATH, or named by FLAMEGRAPH_PL and INFERNO_FLAMEGRAPH; without them only the
script is measured. It fails nothing.
"""
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROUNDS = 3


def run(command, output):
    """(seconds, peak MB, bytes of the picture)"""
    started = time.monotonic()
    with open(output, "wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = status       # it is waited for already
    if status:
        raise SystemExit("%s failed" % command[0])
    return time.monotonic() - started, usage.ru_maxrss / 1024, os.path.getsize(output)


def main():
    size = ["--lines", "100000", "--stacks", "20000"] if "--quick" in sys.argv[1:] else []
    with tempfile.TemporaryDirectory() as lab:
        folded, picture = os.path.join(lab, "big.folded"), os.path.join(lab, "big.svg")
        with open(folded, "wb") as out:
            subprocess.run([sys.executable, os.path.join(ROOT, "tests/bench/folded.py")] + size,
                           stdout=out, check=True)
        tools = {"flamegraph.py": [sys.executable, os.path.join(ROOT, "tools/flamegraph.py"), folded]}
        for name, variable, before in (("flamegraph.pl", "FLAMEGRAPH_PL", ["perl"]),
                                       ("inferno-flamegraph", "INFERNO_FLAMEGRAPH", [])):
            path = os.environ.get(variable) or shutil.which(name)
            if path:
                tools[name] = before + [path, folded]
            else:
                print("%s is not installed: not compared (%s may name it)" % (name, variable))
        seen = {name: [] for name in tools}
        for _ in range(ROUNDS):
            for name, command in tools.items():
                seen[name].append(run(command, picture))
        print("%-20s %9s %9s %9s   time over flamegraph.py, per round" % ("", "seconds", "peak MB", "SVG kB"))
        for name, results in seen.items():
            ratios = [r[0] / mine[0] for r, mine in zip(results, seen["flamegraph.py"])]
            print("%-20s %9.1f %9.0f %9.0f   %s" % (
                name, statistics.median(r[0] for r in results), max(r[1] for r in results),
                results[0][2] / 1000, " ".join("%.1f" % r for r in ratios)))


if __name__ == "__main__":
    main()
