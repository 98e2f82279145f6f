#!/usr/bin/env python3
"""scopes.py of the bench: what the EVM's scope for each opcode costs, in profiled runs.

    python3 tests/bench/scopes.py [--quick]

Compared with the same program and `--profile-scopes off` (which stores each name too, where nobody
looks), and with a build whose opcodes store nothing. Pairs of runs in turns by tools/benchmark.py;
CPU time; on Linux, and as MinGW builds under Wine where both are there. It fails nothing.
"""
import glob
import json
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests"))
import wine                                                                  # noqa: E402

LAB = os.path.join(ROOT, "build", "bench", "scopes")
STORE = 'cprof_scope_set(scope, "[" #name "]");'


def build(compiler, name, stores):
    """The EVM; without the store in each opcode if `stores` is false."""
    sources = sorted(glob.glob(os.path.join(ROOT, "examples", "evm", "*.c")))
    if not stores:
        at = next(i for i, path in enumerate(sources) if path.endswith("interpreter.c"))
        with open(sources[at]) as file:
            text = file.read()
        if text.count(STORE) != 1:
            raise SystemExit("interpreter.c stores the names of scopes in another way now")
        sources[at] = os.path.join(LAB, "interpreter.c")
        with open(sources[at], "w") as file:
            file.write(text.replace(STORE, ""))
    output = os.path.join(LAB, name)
    subprocess.run(compiler + ["-O2", "-g", "-fomit-frame-pointer", "-I" + ROOT, "-I" + os.path.join(ROOT, "examples", "evm")]
                   + sources + ["-o", output], check=True)
    return output


def compare(title, first, second, runs, environment=None):
    report = os.path.join(LAB, "report.json")
    status = subprocess.run([sys.executable, os.path.join(ROOT, "tools", "benchmark.py"), "--shuffle", "--warmup", "1", "--runs", str(runs),
                             "--json", report, "--"] + first + ["--vs"] + second, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            cwd=LAB, env=environment).returncode
    if status:
        print("%-50s failed" % title)
        return
    with open(report) as file:
        ratio = json.load(file)["ratios"]["cpu_s"]
    print("%-50s %+.1f%%   95%%: %+.1f .. %+.1f   %d pairs" % (
        title, 100 * (ratio["medians"] - 1), 100 * (ratio["low"] - 1), 100 * (ratio["high"] - 1), ratio["pairs"]), flush=True)


def main():
    runs = 5 if "--quick" in sys.argv[1:] else 60
    os.makedirs(LAB, exist_ok=True)
    evm, bare = build(["cc", "-pthread"], "evm", True), build(["cc", "-pthread"], "evm-bare", False)
    subprocess.run([evm, "gen", "--datadir", "chain", "-b", "1000", "-e", "1150"], cwd=LAB, check=True, stdout=subprocess.DEVNULL)

    def arguments(last, scopes):
        return ["-b", "1000", "-e", str(last), "--datadir", "chain", "--threads", "1", "--profile", "--profile-output", "evm.folded",
                "--profile-scopes", scopes]

    print("a scope for each opcode of the EVM, profiled at 100 Hz: CPU time more (medians; interval of the pairs)")
    compare("Linux, than the same build with scopes off", [evm] + arguments(1100, "off"), [evm] + arguments(1100, "opcode"), runs)
    compare("Linux, than a build without", [bare] + arguments(1100, "off"), [evm] + arguments(1100, "opcode"), runs)
    mingw = shutil.which("x86_64-w64-mingw32-gcc")
    if not mingw or wine.missing():
        print("Windows: MinGW or Wine is not installed")
        return
    evm, bare = build([mingw, "-static"], "evm.exe", True), build([mingw, "-static"], "evm-bare.exe", False)
    session = wine.Session()
    compare("MinGW under Wine, than the same with scopes off", ["wine", evm] + arguments(1150, "off"), ["wine", evm] + arguments(1150, "opcode"),
            runs, wine.environment())
    compare("MinGW under Wine, than a build without", ["wine", bare] + arguments(1150, "off"), ["wine", evm] + arguments(1150, "opcode"),
            runs, wine.environment())
    session.close()


if __name__ == "__main__":
    main()
