#!/usr/bin/env python3
"""bench.py: cprof against the profilers people use now, side by side, in one run. It prints tables,
writes build/bench.json, and fails nothing. How to read it: README.md beside this file.

    bench.py [--quick] [SECTION...]

Sections: delivered accuracy stacks cost real unwind latency scale; all of them without arguments.
Peers: gperftools (libgoogle-perftools-dev), pprof-rs (cargo fetches it), perf record; those that are
missing are named, and the rest is measured.
"""

import argparse
import json
import math
import os
import platform
import random
import re
import statistics
import sys
import time

import peers
from peers import BUILD, ROOT, command, run

CORES = len(os.sched_getaffinity(0))
QUICK = False
PLAIN = ["-std=gnu11", "-O2", "-fomit-frame-pointer", "-fno-pie", "-no-pie"]
# Frame pointers, for those that need them: what is measured is when they look, not what they see.
FRAMED = ["-std=gnu11", "-O2", "-fno-omit-frame-pointer", "-fno-pie", "-no-pie"]


def say(text=""):
    print(text)
    sys.stdout.flush()


def percent(value, digits=1):
    return "-" if value is None else "%.*f%%" % (digits, 100 * value)


def table(head, rows):
    rows = [[str(cell) for cell in row] for row in [head] + rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        say("   " + "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(row, widths))).rstrip())


def bootstrap(values, middle=statistics.median, rounds=2000):
    """The 95% confidence interval of the median, by resampling."""
    generator = random.Random(1)
    found = sorted(middle(generator.choices(values, k=len(values))) for _ in range(rounds))
    return found[rounds // 40], found[rounds - 1 - rounds // 40]


def chosen(all_peers, *names):
    return [all_peers[name] for name in names if name in all_peers]


# ---- delivered ----

def delivered(all_peers):
    say("delivered: distinct samples (and, if it differs, total weight), as a share of CPU time x rate")
    workload = peers.program("workloads", *PLAIN)
    seconds, result, rows = 1 if QUICK else 4, [], []
    columns = chosen(all_peers, "cprof", "cprof uncapped", "gperftools", "pprof-rs", "perf fp")
    for hz in (100, 1000, 10000):
        for threads in sorted({1, CORES, 4 * CORES}):
            row = ["%5d Hz, %d thread%s" % (hz, threads, "s" if threads > 1 else "")]
            for peer in columns:
                said, path = run(peer, hz, workload, "busy", threads, seconds)
                if not said:
                    row.append("failed")
                    continue
                share = peer.samples(path, said) / (said["cpu_s"] * hz)
                weight = said["weight_s"] / said["cpu_s"] if "weight_s" in said else share
                row.append(percent(share) + (" (%s)" % percent(weight) if abs(weight - share) > 0.0005 else ""))
                result.append({"hz": hz, "threads": threads, "peer": peer.name, "distinct": share, "weight": weight})
            rows.append(row)
    table(["%d cores" % CORES] + [peer.name for peer in columns], rows)
    return result


# ---- accuracy ----

def totals(profile, names):
    """Of each function, the counts of all stacks that it is on."""
    sums = dict.fromkeys(names, 0)
    for stack, count in profile.items():
        for name in {re.sub(r"\..*", "", frame) for frame in stack}:
            if name in sums:
                sums[name] += count
    return sums


def errors(truth, sums, samples):
    """Per function (true share, estimate, error in sigma): sigma of a fair poll of so many samples."""
    all_true, all_found = sum(truth.values()), sum(sums.values())
    found = {}
    for name, value in truth.items():
        p, estimate = value / all_true, sums[name] / all_found if all_found else 0
        sigma = math.sqrt(p * (1 - p) / samples) if samples else None
        found[name] = (p, estimate, (estimate - p) / sigma if sigma else None)
    return found


def accuracy(all_peers):
    say("accuracy at 1000 Hz: per function, the error of its share in points and in sigma, the standard")
    say("deviation of a fair poll with as many samples. A profiler that sees nothing has no sigma.")
    workload = peers.program("workloads-framed", *FRAMED, source="tests/bench/workloads.c")
    seconds = 3 if QUICK else 12
    columns = chosen(all_peers, "cprof", "gperftools", "pprof-rs", "perf fp", "timer")
    patterns = [("shares", ["shares", seconds]), ("fair, 4 x cores threads", ["fair", min(16, 4 * CORES), seconds]),
                ("bursts 30 us, 90 us, naps 200 us", ["bursts", 30, 90, 200, seconds]),
                ("bursts 900 us, 100 us, naps 1 ms", ["bursts", 900, 100, 1000, seconds]),
                ("bursts 2 ms, 500 us, naps 3 ms", ["bursts", 2000, 500, 3000, seconds]),
                ("aligned to a tick of 4 ms", ["aligned", seconds])]
    result = []
    for title, arguments in patterns:
        rows = []
        for peer in columns:
            said, path = run(peer, 1000, workload, *arguments)
            if not said:
                continue
            truth, profile = said["functions"], peer.read(path, workload)
            sums = totals(profile, truth)
            counted, written = sum(sums.values()), sum(profile.values())
            # Samples of which the sums are made: those of cprof weigh more or less than a period each.
            samples = counted if "samples" not in said or not written else said["samples"] * counted / written
            by_function = errors(truth, sums, samples)
            worst = max(by_function.values(), key=lambda e: abs(e[1] - e[0]))
            sigmas = [e[2] for e in by_function.values() if e[2] is not None]
            row = [peer.name, "%.0f" % samples, "%.2f" % (100 * max(abs(e[1] - e[0]) for e in by_function.values()))]
            row += ["%.1f" % max(map(abs, sigmas)), "%.2f" % math.sqrt(sum(s * s for s in sigmas) / len(sigmas))] if sigmas else ["-", "-"]
            row.append("%s true %s" % (percent(worst[1]), percent(worst[0])))
            rows.append(row)
            result.append({"pattern": title, "peer": peer.name, "samples": samples,
                           "functions": {n: {"true": e[0], "found": e[1], "sigma": e[2]} for n, e in by_function.items()}})
            if "instructions" in said:
                total = sum(truth.values())
                result[-1]["instructions"] = max(abs(said["instructions"][n] - truth[n] / total) for n in truth)
        say("  " + title)
        table(["", "samples", "worst, points", "worst, sigma", "rms sigma", "that one"], rows)
    said = [entry["instructions"] for entry in result if "instructions" in entry]
    if said:
        say("   shares by instructions and by the thread's clock differ by %.2f points at most" % (100 * max(said)))
    return result


# ---- stacks ----

FP, NO_FP = ["-fno-omit-frame-pointer"], ["-fomit-frame-pointer"]
AT = ["-std=gnu11", "-fno-pie", "-no-pie"]


def flavours():
    """(name, compiler, flags, whether the peers are measured too, whether the agent is linked in)"""
    for cc in ("gcc", "clang"):
        for level in ("-O0", "-O1", "-O2", "-O3"):
            yield "%s %s" % (cc, level), [cc], AT + [level] + NO_FP, level == "-O2", False
        yield "%s -O2, frame pointers" % cc, [cc], AT + ["-O2"] + FP, True, False
        yield "%s -O2 -flto" % cc, [cc], AT + ["-O2", "-flto"] + NO_FP, False, False
    yield "gcc -O2, PIE", ["gcc"], ["-std=gnu11", "-O2", "-fPIE", "-pie"] + NO_FP, False, False
    yield "gcc -O2 -static", ["gcc"], AT + ["-O2", "-static"] + NO_FP, False, True
    yield "musl -O2", ["musl-gcc"], AT + ["-O2"] + NO_FP, False, True
    yield "musl -O2 -static", ["musl-gcc"], AT + ["-O2", "-static"] + NO_FP, False, True


def judge(profile, chains):
    """Counts: right, without the root, with a wrong middle; and an example of the latter two."""
    counts, examples = [0, 0, 0], {}
    for stack, count in profile.items():
        ours = tuple(re.sub(r"\..*", "", frame) for frame in stack if frame.startswith("sh_"))
        if ours in chains:
            verdict = 0
        elif not ours and ("main" in stack or any(frame.startswith(("start_thread", "clone", "__clone", "start")) for frame in stack)):
            continue # the main thread, and threads that begin or end
        else:
            verdict = 2 if ours and ours[0] == "sh_root" else 1
            examples.setdefault(verdict, stack)
        counts[verdict] += count
    return counts, examples


def stacks(all_peers):
    say("stacks at 1000 Hz: of all samples, those whose chain of functions did happen / that miss the root /")
    say("that have the root and a middle that never happened")
    result, rows = [], []
    names = ["cprof", "gperftools", "pprof-rs", "pprof-rs fp", "pprof-rs framehop", "perf fp", "perf dwarf"]
    columns = chosen(all_peers, *names)
    seconds, chains_path = 1 if QUICK else 3, os.path.join(BUILD, "chains")
    for title, cc, flags, with_peers, linked in flavours():
        if command(["which", cc[0]])[0]:
            say("   %s is not installed: %s is left out" % (cc[0], title))
            continue
        name = "stacks-" + re.sub(r"\W+", "-", title)
        extra = ["-DBENCH_LINKED", "tests/bench/agents/cprof.c"] if linked else []
        binary = peers.program(name, *(flags + extra), cc=cc, source="tests/bench/stacks.c")
        row = [title]
        for peer in columns if binary else []:
            if peer.name != "cprof" and not with_peers:
                row.append("")
                continue
            said, path = run(peer, 1000, binary, 2, seconds, chains_path, BENCH_STACKS="262144")
            if not said:
                row.append("failed")
                continue
            with open(chains_path) as file:
                chains = {tuple(line.rstrip("\n").split(";")) for line in file}
            counts, examples = judge(peer.read(path, binary), chains)
            total = sum(counts)
            row.append(" / ".join(percent(c / total, 2) for c in counts) if total else "no samples")
            result.append({"flavour": title, "peer": peer.name, "right": counts[0], "rootless": counts[1], "wrong": counts[2],
                           "examples": {("rootless", "wrong")[v - 1]: ";".join(s) for v, s in examples.items()}})
        rows.append(row)
    # By peers, for the table would be too wide.
    table(["cprof", "right / no root / wrong"], [row[:2] for row in rows])
    for at, peer in enumerate(columns[1:], 2):
        table([peer.name, "right / no root / wrong"], [[row[0], row[at]] for row in rows if len(row) > at and row[at]])
    return result


# ---- cost ----

def cost_of(said, peer, path, threads, hz):
    """Medians over the pairs, with confidence intervals, of the CPU and the wall time that the
    profiler adds; and microseconds a sample."""
    cpu = [with_ / without - 1 for without, with_, _, _ in said["pairs"]]
    slower = [with_ / without - 1 for _, _, without, with_ in said["pairs"]]
    samples = peer.samples(path, said) if peer else 0
    per_second = samples / (said["resumed_s"] * min(threads, CORES)) if said["resumed_s"] else 0
    middle = statistics.median(cpu)
    return {"cpu": middle, "cpu_interval": bootstrap(cpu), "wall": statistics.median(slower), "wall_interval": bootstrap(slower),
            "pairs": len(cpu), "samples_per_cpu_second": per_second, "us_per_sample": middle * 1e6 / per_second if per_second else None}


def measure(workload, peer, hz, pairs, threads, depth, ms, turns):
    """Several runs' pairs together."""
    together, path = None, None
    for _ in range(turns):
        said, path = run(peer, hz, workload, "cost", max(2, pairs // turns), threads, depth, ms)
        if not said:
            return None
        if peer and "samples" not in said:
            said["samples"] = peer.samples(path, said)
        if together is None:
            together = said
            continue
        together["pairs"] += said["pairs"]
        for key in ("resumed_s", "samples", "sampler_s", "ticks"):
            if key in said:
                together[key] += said[key]
    found = cost_of(together, peer, path, threads, hz)
    if together.get("ticks"):
        found["sampler_us_per_look"] = together["sampler_s"] * 1e6 / together["ticks"]
    return found


def cost_row(title, found):
    if not found:
        return [title, "failed"]
    low, high = found["cpu_interval"]
    wall_low, wall_high = found["wall_interval"]
    return [title, percent(found["cpu"], 2), "%s .. %s" % (percent(low, 2), percent(high, 2)),
            "%s .. %s" % (percent(wall_low, 2), percent(wall_high, 2)), "%.0f" % found["samples_per_cpu_second"],
            "-" if found["us_per_sample"] is None else "%.1f" % found["us_per_sample"],
            "%.1f" % found["sampler_us_per_look"] if "sampler_us_per_look" in found else ""]


TITLES = {"empty": "cprof, empty handler", "floor": "a thread that only signals", "timer": "kernel timer, notes the PC"}
COST_HEAD = ["", "CPU more", "95% interval", "wall, 95% interval", "samples/CPU s", "us a sample", "sampler us a look"]


def cost(all_peers):
    say("cost: fixed work at depth 30, CPU of the process and of the profiler's own, beyond the same work with")
    say("the profile paused; pairs of blocks in turns, medians. us a sample: that CPU for a delivered sample.")
    workload = peers.program("workloads", *PLAIN)
    result = {"grid": []}
    for hz in (100, 1000, 10000):
        for threads in sorted({1, CORES, 4 * CORES}):
            rows = []
            for peer in chosen(all_peers, "cprof", "gperftools", "pprof-rs", "perf fp"):
                found = measure(workload, peer, hz, 10 if QUICK else 60, threads, 30, 50.0 * CORES / max(threads, CORES), 1)
                rows.append(cost_row(peer.name, found))
                if found:
                    result["grid"].append(dict(found, hz=hz, threads=threads, peer=peer.name))
            say("  %d Hz, %d thread%s" % (hz, threads, "s" if threads > 1 else ""))
            table(COST_HEAD, rows)
    say("  target, 100 Hz, 1 thread: the interval's upper end is below 0.5%; and a kernel timer as trigger")
    rows = []
    for name in ("cprof", "empty", "floor", "timer"):
        found = measure(workload, all_peers[name], 100, 20 if QUICK else 320, 1, 30, 100.0, 4)
        rows.append(cost_row(TITLES.get(name, name), found))
        result["100 Hz " + name] = found
    table(COST_HEAD, rows)
    found = result["100 Hz cprof"]
    if found:
        say("   upper end %s: target %s" % (percent(found["cpu_interval"][1], 2), "met" if found["cpu_interval"][1] < 0.005 else "MISSED"))
    say("  target, 1000 Hz, depth 30: at most 1.3 times the same sampler with an empty handler")
    runs = {"cprof": [], "empty": []}
    for _ in range(2 if QUICK else 8):
        for name in runs:
            found = measure(workload, all_peers[name], 1000, 10 if QUICK else 40, 1, 30, 50.0, 1)
            if found:
                runs[name].append(found["cpu"])
    if all(runs.values()):
        ratios = [a / b for a, b in zip(runs["cprof"], runs["empty"]) if b > 0]
        low, high = bootstrap(ratios)
        result["ratio"] = {"median": statistics.median(ratios), "interval": (low, high), "cprof": runs["cprof"], "empty": runs["empty"]}
        say("   cprof %s, empty handler %s, ratio %.2f (95%%: %.2f .. %.2f): target %s" % (
            percent(statistics.median(runs["cprof"]), 2), percent(statistics.median(runs["empty"]), 2),
            result["ratio"]["median"], low, high, "met" if result["ratio"]["median"] <= 1.3 else "MISSED"))
    return result


# ---- real programs ----

def whole(arguments, environment):
    """(CPU, wall) seconds of a program and of what it has waited for."""
    begin = time.monotonic()
    pid = os.posix_spawnp(arguments[0], arguments, environment,
                          file_actions=[(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)])
    _, status, usage = os.wait4(pid, 0)
    return (usage.ru_utime + usage.ru_stime, time.monotonic() - begin) if status == 0 else None


def programs():
    """(name, command, what the root of its samples is called)"""
    status, text = command(["make", "build/evm", "build/chain/.complete"], cwd=ROOT)
    if status == 0:
        evm = [os.path.join(ROOT, "build", "evm"), "-b", "1000", "-e", "1100" if QUICK else "1300", "--datadir", os.path.join(ROOT, "build", "chain")]
        for threads in sorted({1, CORES, 4 * CORES}):
            yield "EVM, %d thread%s" % (threads, "s" if threads > 1 else ""), evm + ["--threads", str(threads)], ("main", "worker_main")
    else:
        say("   the EVM example is not built: " + text.strip()[-200:])
    templates = peers.program("templates", "-O2", "-fomit-frame-pointer", cc=["g++"], source="tests/bench/templates.cpp")
    if templates:
        yield "C++, nested templates", [templates, "100" if QUICK else "800"], ("main",)
    workload = peers.program("workloads", *PLAIN)
    yield "malloc", [workload, "malloc", "4000" if QUICK else "12000"], ("work_root",)
    yield "system calls", [workload, "syscall", "300" if QUICK else "1000"], ("work_root",)
    yield "recursion 1,000 deep", [workload, "recursion", "1000", "1" if QUICK else "2"], ("recursion_root",)


def real(all_peers):
    say("real programs at 1000 Hz, profiled from before main to exit, writing the profile included: CPU and wall")
    say("time more than without (median of pairs of runs), samples for each CPU second, share that reaches main")
    preload, why = peers.shared("preload", "tests/bench/agents/preload.c")
    if not preload:
        say(why)
        return None
    result, turns = [], 2 if QUICK else 3
    for title, arguments, roots in programs():
        rows = []
        for peer in chosen(all_peers, "cprof", "gperftools", "pprof-rs", "perf fp", "perf dwarf"):
            path = os.path.join(BUILD, "real.profile")
            plain = {k: v for k, v in os.environ.items() if k not in ("BENCH_AGENT", "LD_PRELOAD")}
            profiled = dict(plain, LD_PRELOAD=preload, BENCH_AGENT=peer.agent, BENCH_HZ="1000", CPUPROFILE_FREQUENCY="1000", BENCH_OUTPUT=path,
                            BENCH_DEPTH="1100", **peer.environment)
            pairs = []
            for turn in range(turns):
                order = (plain, profiled) if turn % 2 else (profiled, plain)
                got = {id(environment): whole(arguments, environment) for environment in order}
                if all(got.values()):
                    pairs.append((got[id(plain)], got[id(profiled)]))
            if not pairs or not os.path.exists(path + ".json"):
                rows.append([peer.name, "failed"])
                continue
            with open(path + ".json") as file:
                said = json.load(file)
            cpu = statistics.median(b[0] / a[0] - 1 for a, b in pairs)
            slower = statistics.median(b[1] / a[1] - 1 for a, b in pairs)
            samples = peer.samples(path, said) / pairs[-1][1][0]
            profile = peer.read(path, arguments[0]) if peer.name != "perf dwarf" or QUICK is False else {}
            rooted = sum(c for s, c in profile.items() if set(roots) & {re.sub(r"[.(@].*", "", f) for f in s})
            share = rooted / sum(profile.values()) if profile else None
            os.unlink(path + ".json")
            rows.append([peer.name, percent(cpu), percent(slower), "%.0f" % samples, percent(share)])
            result.append({"program": title, "peer": peer.name, "cpu": cpu, "wall": slower, "samples_per_s": samples, "rooted": share})
        say("  " + title)
        table(["", "CPU more", "wall more", "samples/s", "with its root"], rows)
    return result


# ---- the unwinder ----

def unwind(all_peers):
    say("unwinding alone: ns a frame, and warm also in hops of a pointer chase through the first-level cache (4 or")
    say("5 cycles; 15 ns at 3 GHz are 9 of them). warm: rules cached. verified: and the kernel asked for each page of the")
    say("stack whether it can be read, as in the handler. cold: verified, and nothing cached of rules and tables.")
    binary = peers.program("unwinding", *PLAIN)
    if not binary:
        return None
    rounds = [json.loads(command([binary])[1].splitlines()[-1]) for _ in range(2 if QUICK else 7)]
    rows, result = [], {}
    hop = statistics.median(r["hop_ns"] for r in rounds)
    for depth in rounds[0]["depths"]:
        warm = statistics.median(r["depths"][depth]["warm_ns"] for r in rounds)
        verified = statistics.median(r["depths"][depth]["verified_ns"] for r in rounds)
        cold = statistics.median(r["depths"][depth]["cold_ns"] for r in rounds)
        hops = statistics.median(r["depths"][depth]["warm_ns"] / r["hop_ns"] for r in rounds)
        rows.append([depth + " deep", "%.1f" % warm, "%.1f" % hops, "%.1f" % verified, "%.0f" % cold])
        result[depth] = {"warm_ns": warm, "hops": hops, "verified_ns": verified, "cold_ns": cold}
    table(["", "warm ns", "hops", "verified ns", "cold ns"], rows)
    worst = max(entry["hops"] for entry in result.values())
    say("   a hop takes %.2f ns; at most %.1f hops a frame: target %s" % (hop, worst, "met" if worst <= 9 else "MISSED"))
    return {"hop_ns": hop, "depths": result}


# ---- latency, memory ----

def latency(all_peers):
    say("begin, end with writing the profile (of 0.2 s at 1000 Hz, the first and the median of the others), and memory")
    say("touched meanwhile; for perf that of its own process is not in it")
    workload, rows, result = peers.program("workloads", *PLAIN), [], {}
    for peer in chosen(all_peers, "cprof", "gperftools", "pprof-rs", "perf fp"):
        said, _ = run(peer, 1000, workload, "latency", 3 if QUICK else 10)
        if not said:
            continue
        begin, end = said["begin_us"], said["end_us"]
        rows.append([peer.name, "%.2f, %.2f" % (begin[0] / 1e3, statistics.median(begin[1:]) / 1e3),
                     "%.2f, %.2f" % (end[0] / 1e3, statistics.median(end[1:]) / 1e3), str(said["memory_kb"])])
        result[peer.name] = said
    table(["", "begin, ms", "end, ms", "memory, KB"], rows)
    return result


# ---- scale ----

def scale(all_peers):
    result = {"threads": []}
    workload = peers.program("workloads", *PLAIN)
    say("scale: threads that all want to run, 1000 Hz: weight and samples as a share of CPU time x rate")
    rows = []
    for threads in (1, 8, 64, 512):
        said, _ = run(all_peers["cprof"], 1000, workload, "busy", threads, 2 if QUICK else 6)
        if not said:
            continue
        rows.append([str(threads), percent(said["weight_s"] / said["cpu_s"]), percent(said["samples"] / said["cpu_s"] / 1000),
                     percent(said["unsampled_s"] / said["cpu_s"], 2), percent(said["sampler_s"] / said["cpu_s"]), "%.0f" % said["late_us"]])
        result["threads"].append(dict(said, threads=threads))
    table(["threads", "weight", "samples", "unsampled", "sampler's CPU", "late, us"], rows)
    binary = peers.program("scale", *PLAIN)
    for what in ("table", "hour") if binary else ():
        status, text = command([binary, what] + (["1000"] if QUICK and what == "hour" else []), cwd=BUILD)
        for line in text.splitlines():
            say("   " + line if not line.startswith("{") else "   " + line)
            if line.startswith("{"):
                result.setdefault(what, []).append(json.loads(line))
        if status:
            say("   scale %s: exit status %d" % (what, status))
    result["large"] = large(all_peers)
    return result


def large(all_peers):
    """A program of 500 MB: one unit with debug information, copied under other names."""
    copies = 20 if QUICK else 220
    source = os.path.join(BUILD, "unit.c")
    with open(source, "w") as file:
        for i in range(4000):
            file.write("static inline __attribute__((always_inline)) int in_%d(int x) { return x * %d + (x >> 3); }\n" % (i, i * 7 + 3))
            file.write("__attribute__((noinline)) int unit_%d(int x) { int s = 0; for (int i = 0; i < x; i++) s += in_%d(s + i); return s; }\n" % (i, i))
    unit, objects = os.path.join(BUILD, "unit.o"), []
    if command(["gcc", "-O2", "-g", "-c", source, "-o", unit])[0]:
        return None
    for i in range(copies):
        objects.append(os.path.join(BUILD, "unit%d.o" % i))
        command(["objcopy", "--prefix-symbols=u%d_" % i, unit, objects[-1]])
    main, binary = os.path.join(BUILD, "large.c"), os.path.join(BUILD, "large")
    with open(main, "w") as file:
        calls = [(random.Random(i).randrange(copies), random.Random(-i - 1).randrange(4000)) for i in range(500)]
        file.write("#include <stdio.h>\n#include \"workload.h\"\n")
        file.write("".join("int u%d_unit_%d(int);\n" % call for call in calls))
        file.write("int main(void) { int s = 0; uint64_t until; bench_start(); until = wall() + 3000000000u;\n while (wall() < until) {\n")
        file.write("".join("s += u%d_unit_%d(20000);\n" % call for call in calls))
        file.write("} printf(\"%s\", s == 42 ? \" \" : \"\"); return bench_stop(\"\\\"ok\\\": 1\"); }\n")
    response = os.path.join(BUILD, "objects")
    with open(response, "w") as file:
        file.write("\n".join(objects))
    status, text = command(["gcc", "-O2", "-g", "-I" + os.path.join(ROOT, "tests", "bench"), "-pthread", main, "@" + response, "-o", binary])
    for path in objects:
        os.unlink(path)
    if status:
        say("   the large program is not linked: " + text.strip()[-300:])
        return None
    size = os.path.getsize(binary) / 1e6
    before = time.monotonic()
    said, path = run(all_peers["cprof"], 1000, binary)
    took = time.monotonic() - before - 3
    named = inlined = total = 0
    for stack, count in all_peers["cprof"].read(path, binary).items() if said else ():
        total += count
        named += count if any(re.match(r"u\d+_unit_\d+", frame) for frame in stack) else 0
        inlined += count if re.match(r"in_\d+", stack[-1]) else 0
    os.unlink(binary)
    if not total:
        return None
    say("   program of %.0f MB: %d samples, %s named, %s in an inlined function; beginning, writing and names took %.2f s" % (
        size, said["samples"], percent(named / total), percent(inlined / total), took))
    return {"mb": size, "named": named / total, "inlined": inlined / total, "extra_s": took}


SECTIONS = {"delivered": delivered, "accuracy": accuracy, "stacks": stacks, "cost": cost, "real": real, "unwind": unwind,
            "latency": latency, "scale": scale}


def machine():
    name = platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), name)
    except OSError:
        pass
    return {"cpu": name, "cores": CORES, "kernel": platform.release(), "quick": QUICK}


def main():
    global QUICK
    parser = argparse.ArgumentParser(description="cprof beside other profilers: tables, and build/bench.json. README.md beside this explains them.")
    parser.add_argument("--quick", action="store_true", help="a quarter of the time, wider intervals")
    parser.add_argument("section", nargs="*", help="of: " + " ".join(SECTIONS) + "; default all")
    options = parser.parse_args()
    unknown = [name for name in options.section if name not in SECTIONS]
    if unknown:
        parser.error("no such section: " + " ".join(unknown))
    QUICK, wanted = options.quick, options.section or list(SECTIONS)
    result = {"machine": machine()}
    say("%(cpu)s, %(cores)d cores, Linux %(kernel)s" % result["machine"])
    all_peers, missing = peers.build()
    for name, why in missing:
        say("%s is left out: %s" % (name, why))
    result["missing"] = [name for name, _ in missing]
    for name in wanted:
        begin = time.monotonic()
        result[name] = SECTIONS[name](all_peers)
        say("   (%s: %.0f s)" % (name, time.monotonic() - begin))
        say()
    path = os.path.join(ROOT, "build", "bench.json")
    with open(path, "w") as file:
        json.dump(result, file, indent=1)
    say("written to " + os.path.relpath(path, ROOT))


if __name__ == "__main__":
    main()
