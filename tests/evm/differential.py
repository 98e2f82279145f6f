#!/usr/bin/env python3
"""differential.py - the EVM example agrees with an independent EVM, @ethereumjs/evm, on status, gas,
refund, output, storage and logs: for every vector of vectors.py and for seeded random programs.

    python3 tests/evm/differential.py path/to/evm [--programs N] [--seed N] [--build DIR]

Needs node and npm; installs the pinned packages below into DIR (default: a directory beside the
temporary files that is kept, so that only the first run needs the network). Without npm it is skipped.

Both EVMs halt an instruction that lacks gas and operands at once, but test in different order, which the
Yellow Paper leaves open: two exceptional halts of which one is "out of gas" count as equal.
"""
import argparse
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # before the first import of ours
from evmlib import BALANCE, CALLER, HERE, NUMBER, Report, command, run_case
from vectors import VECTORS

sys.path.insert(0, os.path.join(HERE, "differential"))
import programs  # noqa: E402

PACKAGES = ["@ethereumjs/evm@10.1.1", "@ethereumjs/common@10.1.1", "@ethereumjs/statemanager@10.1.1",
            "@ethereumjs/util@10.1.1"]
FIELDS = ("status", "gas_left", "refund", "output", "storage", "logs")
EXCEPTIONS = ("out_of_gas", "stack_underflow", "stack_overflow", "bad_jump", "invalid_opcode",
              "return_data_out_of_bounds")
UNSUPPORTED = {0x3B, 0x3C, 0x3F, 0xF0, 0xF1, 0xF2, 0xF4, 0xF5, 0xFA, 0xFF, 0x31}


def install(build):
    """Why the packages cannot be had, or None."""
    stamp = os.path.join(build, "installed.json")
    if os.path.exists(stamp):
        with open(stamp) as file:
            if json.load(file) == PACKAGES:
                return None
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        return "node and npm are not installed"
    shutil.rmtree(build, ignore_errors=True)
    os.makedirs(build)
    with open(os.path.join(build, "package.json"), "w") as file:
        file.write('{"private": true}\n')
    try:
        code, _, err = command([npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"] + PACKAGES,
                               cwd=build, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "npm install failed: %s" % error
    if code != 0:
        return "npm install failed: %s" % err.strip()[-300:]
    with open(stamp, "w") as file:
        json.dump(PACKAGES, file)
    return None


def oracle(build, cases):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "cases.jsonl")
        with open(path, "w") as file:
            for c in cases:
                file.write(json.dumps({
                    "code": c["code"].hex(), "input": c.get("input", b"").hex(), "gas": str(c.get("gas", 1000000)),
                    "storage": {"%x" % k: "%x" % v for k, v in c.get("storage", {}).items()},
                    "value": "%x" % c.get("value", 0), "balance": "%x" % c.get("balance", BALANCE),
                    "caller": "%x" % c.get("caller", CALLER), "number": c.get("number", NUMBER)}) + "\n")
        code, out, err = command(["node", os.path.join(HERE, "differential", "oracle.mjs"), build, path], timeout=1800)
    if code != 0:
        raise RuntimeError("the oracle failed: " + err[-1000:])
    results = [json.loads(line) for line in out.splitlines()]
    for r in results:
        r["storage"] = {int(k, 16): int(v, 16) for k, v in r.get("storage", {}).items()}
    return results


def difference(mine, theirs):
    """Empty when the results agree."""
    ours, other = dict(mine), dict(theirs)
    if ours["status"] != other["status"] and "out_of_gas" in (ours["status"], other["status"]) and \
            ours["status"] in EXCEPTIONS and other["status"] in EXCEPTIONS:
        other["status"] = ours["status"]
    return "; ".join("%s: %r, oracle %r" % (f, ours.get(f), other.get(f)) for f in FIELDS
                     if ours.get(f) != other.get(f))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--programs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--build", default=os.path.join(tempfile.gettempdir(), "evm-differential"))
    options = parser.parse_args()
    report = Report()
    why = install(os.path.abspath(options.build))
    if why is not None:
        report.skip("the EVM example agrees with @ethereumjs/evm", why)
        report.exit()

    cases = [(v["name"], v) for v in VECTORS]
    cases += [("seed %d" % s, programs.make(s)) for s in range(options.seed, options.seed + options.programs)]
    theirs = oracle(os.path.abspath(options.build), [c for _, c in cases])
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        ours = list(pool.map(lambda c: run_case(options.binary, c[1]), cases))

    vectors = len(VECTORS)
    statuses, unsupported, failures = {}, 0, [[], []]
    for i, ((name, case), mine, other) in enumerate(zip(cases, ours, theirs)):
        if mine["status"] == "unsupported":
            unsupported += 1
            if not UNSUPPORTED & set(case["code"]):
                failures[i >= vectors].append("%s: unsupported without such an opcode" % name)
            continue
        if i >= vectors:
            statuses[mine["status"]] = statuses.get(mine["status"], 0) + 1
        found = difference(mine, other)
        if found:
            failures[i >= vectors].append("%s (code %s): %s" % (name, case["code"].hex(), found))
    for failed in failures:
        for line in failed[:10]:
            sys.stderr.write(line + "\n")
    report.check("all %d vectors agree with @ethereumjs/evm" % vectors, not failures[0],
                 "%d differ, first: %s" % (len(failures[0]), failures[0][0][:600] if failures[0] else ""))
    report.check("%d random programs agree with @ethereumjs/evm" % options.programs, not failures[1],
                 "%d differ, first: %s" % (len(failures[1]), failures[1][0][:600] if failures[1] else ""))
    summary = ", ".join("%s %d" % s for s in sorted(statuses.items()))
    report.check("at least a third of the random programs succeed (%s; unsupported with vectors %d)"
                 % (summary, unsupported), 3 * statuses.get("success", 0) >= options.programs)
    report.exit()


if __name__ == "__main__":
    main()
