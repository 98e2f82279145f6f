"""peers.py: the profilers that bench.py compares: builds their agents, reads their profiles.

A profile becomes {(root, ..., leaf): count}, names of functions as the profiler gives them, in units
of one period (1/hz seconds). What a profiler cannot name stays an address.
"""

import bisect
import collections
import json
import os
import re
import shutil
import struct
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.join(ROOT, "tests", "bench")
BUILD = os.path.join(ROOT, "build", "bench")
CC = os.environ.get("CC", "cc").split()
FLAGS = ["-std=gnu11", "-O2", "-g", "-I.", "-Itests/bench", "-pthread"]


def command(arguments, **options):
    """(exit status, output with errors)"""
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    return done.returncode, done.stdout.decode(errors="replace")


# ---- names for addresses, where the profiler gives none ----

class Symbols:
    """Functions of one program that is not position independent, by nm."""

    def __init__(self, program):
        found = {}
        for line in command(["nm", "-S", program])[1].splitlines():
            fields = line.split()
            if len(fields) == 4 and fields[2] in "tTwW":
                found[int(fields[0], 16)] = (int(fields[0], 16) + int(fields[1], 16), fields[3])
        self.starts = sorted(found)
        self.functions = [found[start] for start in self.starts]

    def name(self, address):
        at = bisect.bisect_right(self.starts, address) - 1
        if at >= 0 and address < self.functions[at][0]:
            return self.functions[at][1]
        return "%#x" % address


def read_folded(path, program):
    profile = collections.Counter()
    with open(path, errors="replace") as file:
        for line in file:
            stack, _, count = line.rstrip("\n").rpartition(" ")
            frames = stack.split(";")
            if frames[0] != "[cprof]":
                profile[tuple(frames[1:])] += int(count)
    return profile


def read_gperftools(path, program):
    """Words of the machine: header, records of count, depth and addresses from the leaf, trailer."""
    symbols, profile = Symbols(program), collections.Counter()
    with open(path, "rb") as file:
        data = file.read()
    words = struct.unpack("=%dQ" % (len(data) // 8), data[:len(data) // 8 * 8])
    at = 2 + words[1]
    while at + 2 <= len(words):
        count, depth = words[at], words[at + 1]
        if count == 0 or at + 2 + depth > len(words):
            break
        pcs = words[at + 2:at + 2 + depth]
        profile[tuple(symbols.name(pc - (i > 0)) for i, pc in reversed(list(enumerate(pcs))))] += count
        at += 2 + depth
    return profile


def read_perf(path, program):
    profile, frames = collections.Counter(), []
    run = subprocess.Popen(["perf", "script", "-i", path, "-F", "comm,tid,ip,sym", "--no-inline"], stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    for raw in run.stdout:
        line = raw.decode(errors="replace").rstrip("\n")
        if not line:
            if frames:
                profile[tuple(reversed(frames))] += 1
            frames = []
        elif line[0] in " \t" and re.match(r"^\s+[0-9a-f]+ ", line):
            address, name = line.split(None, 1)
            frames.append(address if name == "[unknown]" else name)
    if frames:
        profile[tuple(reversed(frames))] += 1
    run.wait()
    return profile


def read_addresses(path, program):
    symbols, profile = Symbols(program), collections.Counter()
    with open(path) as file:
        for line in file:
            profile[(symbols.name(int(line, 16)),)] += 1
    return profile


# ---- the agents ----

class Peer:
    def __init__(self, name, agent, read, **environment):
        self.name, self.agent, self.read, self.environment = name, agent, read, environment

    def samples(self, path, said):
        """How many samples there are: what the profiler says of itself, or what it has written."""
        if "samples" in said:
            return said["samples"]
        found = re.search(r"SAMPLE events:\s+(\d+)", command(["perf", "report", "-i", path, "--stats"])[1])
        return int(found.group(1)) if found else 0


def shared(name, *sources):
    output = os.path.join(BUILD, name + ".so")
    status, text = command(CC + FLAGS + ["-shared", "-fPIC"] + list(sources) + ["-o", output, "-ldl", "-lrt"], cwd=ROOT)
    return (output, None) if status == 0 else (None, text)


def rust_agent(feature):
    if not shutil.which("cargo"):
        return None, "cargo is not installed"
    target = os.path.join(BUILD, "pprof" + ("-" + feature if feature else ""))
    arguments = ["cargo", "build", "--release", "--locked", "--target-dir", target] + (["--features", feature] if feature else [])
    status, text = command(arguments, cwd=os.path.join(HERE, "agents", "pprof"))
    output = os.path.join(target, "release", "libagent_pprof.so")
    return (output, None) if status == 0 else (None, text[-2000:])


def build(want=None):
    """{name: Peer} of all that can be had, and [(name, why)] of the others; `want`: names only."""
    os.makedirs(BUILD, exist_ok=True)
    peers, missing = {}, []

    def add(name, made, read, **environment):
        agent, why = made() if want is None or name in want else (None, None)
        if agent:
            peers[name] = Peer(name, agent, read, **environment)
        elif why:
            missing.append((name, why.strip().splitlines()[-1]))

    def perf_agent():
        # Not to /dev/null: perf moves a file that it finds out of its way.
        status, text = command(["perf", "record", "-q", "-e", "cpu-clock", "-o", os.path.join(BUILD, "perf.probe"), "true"]) if shutil.which("perf") else (1, "perf is not installed")
        return shared("perf", "tests/bench/agents/perf.c") if status == 0 else (None, text or "perf record fails")

    def gperftools_agent():
        output = os.path.join(BUILD, "gperftools.so")
        status, text = command(CC + FLAGS + ["-shared", "-fPIC", "tests/bench/agents/gperftools.c", "-o", output,
                                             "-Wl,--no-as-needed", "-lprofiler"], cwd=ROOT)
        return (output, None) if status == 0 else (None, "libgoogle-perftools-dev is not installed")

    add("cprof", lambda: shared("cprof", "tests/bench/agents/cprof.c"), read_folded)
    if "cprof" in peers: # the sampler may use a whole core, not a quarter
        peers["cprof uncapped"] = Peer("cprof uncapped", peers["cprof"].agent, read_folded, BENCH_PERCENT="100")
    add("empty", lambda: shared("empty", "-DCPROF_TEST_EMPTY_HANDLER", "tests/bench/agents/cprof.c"), read_folded)
    add("floor", lambda: shared("floor", "tests/bench/agents/floor.c"), read_addresses)
    add("timer", lambda: shared("timer", "tests/bench/agents/timer.c"), read_addresses)
    add("gperftools", gperftools_agent, read_gperftools)
    add("pprof-rs", lambda: rust_agent(None), read_folded)
    add("pprof-rs fp", lambda: rust_agent("frame-pointer"), read_folded)
    add("pprof-rs framehop", lambda: rust_agent("framehop"), read_folded)
    add("perf fp", perf_agent, read_perf, BENCH_PERF_GRAPH="fp")
    add("perf dwarf", perf_agent, read_perf, BENCH_PERF_GRAPH="dwarf,8192")
    return peers, missing


def program(name, *flags, cc=None, source=None):
    """Builds a workload; None if that fails."""
    output = os.path.join(BUILD, name)
    status, text = command((cc or CC) + ["-g", "-I.", "-Itests/bench", "-pthread"] + list(flags)
                           + [source or "tests/bench/" + name + ".c", "-o", output], cwd=ROOT)
    if status:
        print("%s is not built: %s" % (name, text.strip()[-600:]))
        return None
    return output


def run(peer, hz, binary, *arguments, output="profile", timeout=600, **environment):
    """What the workload and the profiler say, {} if that failed; and the path of the profile.
    `peer` None: without a profiler."""
    path = os.path.join(BUILD, output)
    values = dict(os.environ, BENCH_HZ=str(hz), CPUPROFILE_FREQUENCY=str(hz), BENCH_OUTPUT=path, BENCH_AGENT=peer.agent if peer else "", **environment)
    values.update(peer.environment if peer else {})
    if os.path.exists(path):
        os.unlink(path)
    try:
        done = subprocess.run([binary] + [str(a) for a in arguments], cwd=BUILD, env=values, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout)
    except subprocess.TimeoutExpired:
        print("   %s %s under %s: does not end" % (os.path.basename(binary), " ".join(map(str, arguments)), peer.name if peer else "nothing"))
        return {}, path
    lines = done.stdout.decode().splitlines()
    if done.returncode or not lines:
        print("   %s %s under %s: exit status %d %s" % (os.path.basename(binary), " ".join(map(str, arguments)),
                                                     peer.name if peer else "nothing", done.returncode,
                                                     done.stderr.decode(errors="replace")[-200:].strip()))
        return {}, path
    return json.loads(lines[-1]), path
