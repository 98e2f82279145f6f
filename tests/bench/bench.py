#!/usr/bin/env python3
"""bench.py: measured ratios, as a table and, in build/bench.json, for machines. It fails nothing.

a. delivered: distinct samples that arrive, as a share of CPU seconds x 1000 Hz, with as many busy
   threads as cores; cprof and gperftools in turns.
b. cost: CPU of the whole process, sampler included, for fixed work at depth 30 and 1000 Hz beyond
   what it takes without a profiler: cprof, and the same sampler sending the same signals to a
   handler that returns at once. Interleaved; medians, with the quartiles.
c. bursty: the error of A:B on A 0.9 ms, nap 1 ms, B 0.1 ms, nap 1 ms.

    bench.py [--quick]
"""

import json
import os
import platform
import statistics
import struct
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build", "bench")
FLAGS = ["-std=gnu11", "-O2", "-g", "-fomit-frame-pointer", "-fno-pie", "-no-pie", "-I.", "-pthread"]
CC = os.environ.get("CC", "cc").split()


def build():
    """(program, program with an empty handler, whether gperftools is in)"""
    os.makedirs(BUILD, exist_ok=True)
    program, empty = os.path.join(BUILD, "bench"), os.path.join(BUILD, "bench-empty")
    source = "tests/bench/bench.c"
    with_peer = subprocess.run(CC + FLAGS + ["-DWITH_GPERFTOOLS", source, "-o", program, "-Wl,--no-as-needed", "-lprofiler", "-lm"],
                               cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    if not with_peer:
        subprocess.run(CC + FLAGS + [source, "-o", program, "-lm"], cwd=ROOT, check=True)
    # The cost is measured without the peer's library in the process.
    cost = os.path.join(BUILD, "bench-cost")
    subprocess.run(CC + FLAGS + [source, "-o", cost, "-lm"], cwd=ROOT, check=True)
    subprocess.run(CC + FLAGS + ["-DCPROF_TEST_EMPTY_HANDLER", source, "-o", empty, "-lm"], cwd=ROOT, check=True)
    return program, cost, empty, with_peer


def run(program, *arguments, **environment):
    done = subprocess.run([program] + [str(a) for a in arguments], cwd=BUILD, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          stdin=subprocess.DEVNULL, env=dict(os.environ, **environment))
    if done.returncode != 0:
        print("%s %s: exit status %d" % (os.path.basename(program), " ".join(map(str, arguments)), done.returncode))
        return None
    return json.loads(done.stdout.decode().splitlines()[-1])


def spread(values):
    """median, lower and upper quartile"""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4)
    return middle, low, high


# ---- a. delivered ----

def delivered(program, peers, seconds, turns):
    threads = len(os.sched_getaffinity(0))
    print("a. delivered: distinct samples, as a share of CPU seconds x 1000 Hz; %d busy threads" % threads)
    result = {"threads": threads}
    shares = {peer: [] for peer in peers}
    for _ in range(turns):
        for peer in peers:
            got = run(program, "delivered", peer, threads, seconds, CPUPROFILE_FREQUENCY="1000",
                      BENCH_PROFILE=os.path.join(BUILD, "delivered.prof"))
            if got:
                shares[peer].append(got["share"])
    for peer in peers:
        if shares[peer]:
            result[peer] = shares[peer]
            print("   %-12s %6.1f%%   (%s)" % (peer, 100 * statistics.median(shares[peer]),
                                              " ".join("%.1f%%" % (100 * s) for s in shares[peer])))
    return result


# ---- b. cost ----

def overheads(pairs):
    """Of each pair: CPU with the profile running beyond CPU with it paused, as a share of the latter."""
    return [running / paused - 1 for paused, running in pairs]


def cost(program, empty, hz, turns, pairs, rounds):
    runs = {"cprof": [], "empty": []}
    for _ in range(turns):
        for name, binary in (("cprof", program), ("empty", empty)):
            got = run(binary, "cost", hz, pairs, rounds)
            if got:
                runs[name].append(got)
    if not all(runs.values()):
        return None
    every = {name: [pair for got in runs[name] for pair in got["pairs"]] for name in runs}
    base = statistics.median(paused for pairs_ in every.values() for paused, _ in pairs_)
    result = {"hz": hz, "block_ns": base}
    print("b. cost: CPU beyond that of fixed work at depth 30, %d Hz; blocks of %.0f ms, in pairs" % (hz, base / 1e6))
    for name, text in (("cprof", "cprof"), ("empty", "empty handler")):
        middle, low, high = spread(overheads(every[name]))
        samples = sum(got["samples"] for got in runs[name])
        sampler = sum(got["sampler_ns"] for got in runs[name]) / max(1, sum(got["ticks"] for got in runs[name]))
        result[name] = {"median": middle, "quartiles": [low, high], "pairs": len(every[name]), "samples": samples,
                        "us_per_period": middle * 1e6 / hz, "sampler_us_per_tick": sampler / 1e3}
        print("   %-14s %+6.2f%%   quartiles %+.2f%% %+.2f%%, %d pairs; %.1f us a period, %.1f of them the sampler's" % (
            text, 100 * middle, 100 * low, 100 * high, len(every[name]), middle * 1e6 / hz, sampler / 1e3))
    below = result["empty"]["median"]
    result["ratio"] = result["cprof"]["median"] / below if below > 0 else None
    # The spread of the ratio: of the turns' own ratios.
    result["ratios"] = sorted(
        statistics.median(overheads(a["pairs"])) / statistics.median(overheads(b["pairs"]))
        for a, b in zip(runs["cprof"], runs["empty"]) if statistics.median(overheads(b["pairs"])) > 0)
    if result["ratio"]:
        print("   cprof / empty handler: %.2f   (by turns: %s)" % (result["ratio"], " ".join("%.2f" % r for r in result["ratios"])))
    return result


# ---- c. bursty ----

def read_legacy_profile(path):
    """[(count, [pc...])] of a gperftools CPU profile: words of the machine, header, records, trailer."""
    with open(path, "rb") as file:
        data = file.read()
    words = struct.unpack("=%dQ" % (len(data) // 8), data[:len(data) // 8 * 8])
    at, records = 2 + words[1], []
    while at + 2 <= len(words):
        count, depth = words[at], words[at + 1]
        if count == 0 or at + 2 + depth > len(words):
            break
        records.append((count, words[at + 2:at + 2 + depth]))
        at += 2 + depth
    return records


def function_ranges(program):
    out = subprocess.run(["nm", "-S", program], stdout=subprocess.PIPE).stdout.decode()
    ranges = {}
    for line in out.splitlines():
        fields = line.split()
        if len(fields) == 4:
            ranges[fields[3]] = (int(fields[0], 16), int(fields[0], 16) + int(fields[1], 16))
    return ranges


def bursty(program, peers, seconds, turns):
    print("c. bursty: error of A:B on A 0.9 ms, nap 1 ms, B 0.1 ms, nap 1 ms; 1000 Hz, two threads")
    ranges = function_ranges(program)
    result = {}
    for peer in peers:
        totals = {"a": 0, "b": 0, "a_true": 0, "b_true": 0}
        for _ in range(turns):
            path = os.path.join(BUILD, "bursty.prof")
            got = run(program, "bursty", peer, seconds, CPUPROFILE_FREQUENCY="1000", BENCH_PROFILE=path)
            if not got:
                continue
            if peer == "gperftools":
                records = read_legacy_profile(path)
                for key in ("a", "b"):
                    low, high = ranges["burst_" + key]
                    got[key] = sum(count for count, pcs in records if any(low <= pc <= high for pc in pcs))
            for key in totals:
                totals[key] += got[key]
        if totals["a_true"] and totals["b"]:
            error = (totals["a"] / totals["b"]) / (totals["a_true"] / totals["b_true"]) - 1
            result[peer] = {"error": error, "hits_a": totals["a"], "hits_b": totals["b"]}
            print("   %-12s %+6.1f%%   A %d, B %d, true ratio %.2f" % (peer, 100 * error, totals["a"], totals["b"],
                                                                  totals["a_true"] / totals["b_true"]))
        elif totals["a_true"]:
            result[peer] = {"error": None, "hits_a": totals["a"], "hits_b": totals["b"]}
            print("   %-12s no estimate: A %d, B %d" % (peer, totals["a"], totals["b"]))
    return result


def cpu_name():
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def main():
    quick = "--quick" in sys.argv
    program, cost_program, empty, with_peer = build()
    peers = ["cprof"] + (["gperftools"] if with_peer else [])
    print("%s, %d cores, %s %s" % (cpu_name(), len(os.sched_getaffinity(0)), platform.system(), platform.release()))
    if not with_peer:
        print("gperftools is not installed (libgoogle-perftools-dev): its columns are missing")
    result = {"cpu": cpu_name(), "kernel": platform.release()}
    result["delivered"] = delivered(program, peers, 2 if quick else 5, 1 if quick else 3)
    # 6e7 rounds of a multiplication and an addition: about 60 ms.
    result["cost"] = cost(cost_program, empty, 1000, 3 if quick else 8, 60, 60000000)
    result["bursty"] = bursty(program, peers, 5 if quick else 10, 1 if quick else 2)
    path = os.path.join(ROOT, "build", "bench.json")
    with open(path, "w") as file:
        json.dump(result, file, indent=1)
    print(json.dumps(result))
    print("written to " + os.path.relpath(path, ROOT))


if __name__ == "__main__":
    main()
