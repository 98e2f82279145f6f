#!/usr/bin/env python3
"""formats.py: the profiles that formats.cpp writes in every format say the same: stacks, threads and
times of profile.proto, decoded here by the wire format alone, and of perf script's text agree with the
folded file to the last period; addresses, mappings, build ids, functions, lines and inlined functions
are those that binutils and the system know. Then the programs that people read them with are asked:
pprof (of Go) and speedscope (of npm).

    formats.py [BUILD-DIRECTORY]
"""

import collections
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "compile"))
import checks  # noqa: E402
from checks import ROOT, check, done, note, run, skip  # noqa: E402

MS = "150"  # CPU time of a thread, 1000 samples a second
SPEEDSCOPE = "speedscope@1.25.0"
CHAIN = ["evm::repeat<3>", "checked", "mix"]  # what is inlined into what
PROFILES = ("all", "reused", "odd", "full", "wall", "empty")


def relay(text):
    """Check lines of a program become ours."""
    for line in text.splitlines():
        if line.startswith("not ok - "):
            checks.failures += 1
        if re.match(r"(ok|not ok) - ", line):
            print(line)
    sys.stdout.flush()


# ---- protobuf's wire format ----

class Malformed(Exception):
    pass


def varint(data, at):
    value, shift = 0, 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed("a varint does not end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7f) << shift
        shift += 7
        if byte < 0x80:
            if byte == 0 and shift > 7:
                raise Malformed("a varint is longer than it need be")
            return value, at


def message(data, kinds):
    """{field: [values]}; kinds: field -> int, bytes, or list for packed integers."""
    found, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        field, wire = key >> 3, key & 7
        if field not in kinds or wire != (0 if kinds[field] is int else 2):
            raise Malformed("field %d of type %d" % (field, wire))
        value, at = varint(data, at)
        if wire == 2:
            if value > len(data) - at:
                raise Malformed("field %d is longer than its message" % field)
            value, at = data[at:at + value], at + value
            if kinds[field] is list:
                numbers, inner = [], 0
                while inner < len(value):
                    number, inner = varint(value, inner)
                    numbers.append(number)
                value = numbers
        found.setdefault(field, []).append(value)
    return found


VALUE_TYPE = {1: int, 2: int}
SAMPLE = {1: list, 2: list, 3: bytes}
LABEL = {1: int, 2: int, 3: int}
MAPPING = {field: int for field in range(1, 11)}
LOCATION = {1: int, 2: int, 3: int, 4: bytes}
LINE = {1: int, 2: int}
FUNCTION = {field: int for field in range(1, 6)}
PROFILE = {1: bytes, 2: bytes, 3: bytes, 4: bytes, 5: bytes, 6: bytes, 9: int, 10: int, 11: bytes, 12: int}

Mapping = collections.namedtuple("Mapping", "id start limit offset file build_id functions files lines inlines")
Function = collections.namedtuple("Function", "name system file start_line")
Location = collections.namedtuple("Location", "id mapping address lines")  # lines: [(Function, line)], innermost first
Sample = collections.namedtuple("Sample", "locations count ns thread tid")


class Pprof:
    def __init__(self, data):
        top = message(data, PROFILE)
        self.strings = [s.decode("utf-8") for s in top.get(6, [])]
        if not self.strings or self.strings[0] or len(set(self.strings)) != len(self.strings):
            raise Malformed("strings: the first is not empty, or one is there twice")
        self.types = [self.type(m) for m in top[1]]
        self.time, self.duration, self.period = (top.get(f, [0])[0] for f in (9, 10, 12))
        self.period_type = self.type(top[11][0])
        self.mappings = self.table(top.get(3, []), MAPPING, lambda m: Mapping(
            *[m[1], m[2], m[3], m[4], self.strings[m[5]], self.strings[m[6]], m[7], m[8], m[9], m[10]]))
        self.functions = self.table(top.get(5, []), FUNCTION, lambda m: Function(
            self.strings[m[2]], self.strings[m[3]], self.strings[m[4]], m[5]))
        self.locations = self.table(top.get(4, []), LOCATION, self.location)
        self.samples = [self.sample(m) for m in top.get(2, [])]
        self.used = set(f for location in self.locations.values() for f, _ in location.lines)

    def type(self, data):
        m = self.single(data, VALUE_TYPE)
        return self.strings[m[1]], self.strings[m[2]]

    @staticmethod
    def single(data, kinds):
        """Fields that may be there once; 0 if they are not."""
        m = message(data, kinds)
        if any(len(v) > 1 for f, v in m.items() if kinds[f] is int):
            raise Malformed("a field is there twice")
        return {f: m.get(f, [0])[0] if kinds[f] is int else m.get(f, []) for f in kinds}

    def table(self, messages, kinds, make):
        found = {}
        for data in messages:
            m = self.single(data, kinds)
            if not m[1] or m[1] in found:
                raise Malformed("an id is zero or there twice")
            found[m[1]] = make(m)
        return found

    def location(self, m):
        lines = []
        for data in m[4]:
            line = self.single(data, LINE)
            lines.append((self.functions[line[1]], line[2]))
        if not lines or (m[2] and not m[3]):
            raise Malformed("a location without a function, or in a mapping without an address")
        return Location(m[1], self.mappings[m[2]] if m[2] else None, m[3], lines)

    def sample(self, data):
        m = message(data, SAMPLE)
        (ids,), (values,), labels = m[1], m[2], {}
        for label in m[3]:
            label = self.single(label, LABEL)
            key = self.strings[label[1]]
            if key in labels or bool(label[2]) == bool(label[3]):
                raise Malformed("a label is there twice, or is not of one kind")
            labels[key] = self.strings[label[2]] if label[2] else label[3]
        if len(values) != len(self.types) or set(labels) - {"thread", "thread_id"}:
            raise Malformed("%d values, labels %s" % (len(values), " ".join(labels)))
        return Sample([self.locations[i] for i in ids], values[0], values[1], labels["thread"], labels.get("thread_id", 0))

    def stack(self, sample, lines=False):
        """As a folded line has it: the thread, then root to leaf."""
        frames = [sample.thread]
        for location in reversed(sample.locations):
            for function, line in reversed(location.lines):
                name = function.name
                if lines and function.file:
                    name += " (%s%s)" % (os.path.basename(function.file), ":%d" % line if line else "")
                frames.append(name)
        return tuple(frame.replace(";", ":") for frame in frames)


# ---- the other files ----

def clean(raw):
    """Bytes of a folded file as a string of profile.proto has them."""
    text, at = "", 0
    while at < len(raw):
        try:
            return text + raw[at:].decode("utf-8")
        except UnicodeDecodeError as error:
            text += raw[at:at + error.start].decode("utf-8") + "?" * (error.end - error.start)
            at += error.end
    return text


def replaced(raw):
    """The same as browsers do it."""
    return raw.decode("utf-8", "replace")


def read_folded(path, decode=clean):
    found = {}
    with open(path, "rb") as file:
        for line in file.read().split(b"\n")[:-1]:
            stack, count = line.rsplit(b" ", 1)
            found[tuple(decode(frame) for frame in stack.split(b";"))] = int(count)
    return found


HEADER = re.compile(rb"(\S+(?: |  )?) (\d+)/(\d+) (\d+\.\d{9}): +(\d+) (cpu|wall)-clock: \Z")
FRAME = re.compile(rb"\t *([0-9a-f]+) (.+) \(([^\s()]+)\)\Z")
Event = collections.namedtuple("Event", "comm pid tid time period clock frames")  # frames: (address, name, module), leaf first


def read_perf(path, decode=clean):
    """Its events, by the grammar that is documented, which is narrower than any reader's."""
    with open(path, "rb") as file:
        data = file.read()
    head, _, body = data.partition(b"#\n\n")
    if not head.startswith(b"# ========\n") or not all(line.startswith(b"#") for line in head.splitlines()):
        raise Malformed("the head is not of comments")
    events = []
    for text in body.split(b"\n\n")[:-1]:
        first, *rest = text.split(b"\n")
        header, frames = HEADER.match(first), [FRAME.match(line) for line in rest]
        if not header or not frames or None in frames:
            raise Malformed("an event: %r" % text[:300])
        comm, pid, tid, time, period, clock = header.groups()
        events.append(Event(decode(comm.rstrip()), int(pid), int(tid), int(time.replace(b".", b"")), int(period), clock.decode(),
                            tuple((int(f.group(1), 16), decode(f.group(2)), decode(f.group(3))) for f in frames)))
    if body and not body.endswith(b"\n\n"):
        raise Malformed("the last event does not end")
    return events


def perf_thread(name):
    """A thread's name as perf script's text has it."""
    name = re.sub(r"[\x00-\x20\x7f]", "_", name)
    return "_" + name[1:] if name[0] in "#:-{" else name


def perf_name(name):
    return "::" + name if name.startswith("(") else name


def unzipped(path):
    """Also checks the CRC and the length."""
    try:
        with gzip.open(path) as file:
            return file.read()
    except (OSError, EOFError, zlib.error) as error:
        return repr(error)


class Facts:
    def __init__(self, path):
        self.threads = []
        with open(path, "rb") as file:
            for line in file.read().split(b"\n")[:-1]:
                key, value = line.split(b" ", 1)
                if key == b"thread":
                    tid, name = value.split(b" ", 1)
                    self.threads.append((int(tid), name))
                else:
                    setattr(self, key.decode(), int(value))
        self.period = 1e9 / self.hz


# ---- the same in every format ----

def rounding(exact, whole):
    """Why `whole` is not `exact` ({line: (periods, tolerance)}) rounded by largest remainders, or None."""
    total = sum(e for e, _ in exact.values())
    slack = sum(t for _, t in exact.values())
    if abs(sum(whole.values()) - total) > 0.5 + slack:
        return "%d periods, should be %.6f" % (sum(whole.values()), total)
    if set(whole) - set(exact):
        return "not in the pprof file: %r" % (sorted(set(whole) - set(exact))[0][-3:],)
    up, down = [], []
    for line, (periods, tolerance) in exact.items():
        count = whole.get(line, 0)
        if not periods - 1 - tolerance < count < periods + 1 + tolerance:
            return "%r: %d periods, should be %.6f" % (line, count, periods)
        # at a whole number of periods both are right
        if abs(periods - count) > tolerance:
            (up if count > periods else down).append((periods % 1, tolerance, line))
    for remainder, tolerance, line in down:
        for other, more, winner in up:
            if remainder - tolerance > other + more:
                return "%r has %.6f left, %r was rounded up from %.6f" % (line, remainder, winner, other)
    return None


def compare_folded(name, profile, folded, facts, lines):
    exact = collections.defaultdict(lambda: [0, 0])
    for sample in profile.samples:
        entry = exact[profile.stack(sample, lines)]
        entry[0] += sample.ns
        entry[1] += 1  # each was rounded to a whole ns
    why = rounding({k: (ns / facts.period, (n + 1) / facts.period) for k, (ns, n) in exact.items()}, folded)
    check(why is None, name + ": pprof's stacks and times, in whole periods, are the folded file", why)


def compare_totals(name, profile, facts, windows):
    samples, ns = (sum(s[i] for s in profile.samples) for i in (1, 2))
    check(samples == facts.samples, name + ": all samples are in the pprof file", "%d of %d" % (samples, facts.samples))
    check(abs(ns - facts.weight_ns - facts.unsampled_ns) <= 2, name + ": so is all the time, to the ns",
          "%d of %d + %d" % (ns, facts.weight_ns, facts.unsampled_ns))
    special = {s.locations[0].lines[0][0].name: s for s in profile.samples if s.thread == "[cprof]"}
    lost, unsampled = special.get("[lost]"), special.get("[unsampled]")
    check((lost.count if lost else 0) == facts.lost and not (facts.lost and not lost.ns), name + ": what was lost is [lost]", facts.lost)
    check(abs((unsampled.ns if unsampled else 0) - facts.unsampled_ns) <= 2, name + ": what was not sampled is [unsampled]",
          facts.unsampled_ns)
    truncated = sum(s.count for s in profile.samples if s.locations[-1].lines[0][0].name == "[truncated]")
    # what was lost may have been truncated too; so may, on Windows, what turned out to be asleep
    least = min(1, facts.truncated) if windows else facts.truncated - facts.lost
    check(least <= truncated <= facts.truncated, name + ": what was cut is [truncated]",
          "%d of %d" % (truncated, facts.truncated))


def compare_head(name, profile, facts):
    clock = ("wall" if name == "wall" else "cpu", "nanoseconds")
    check(profile.types == [("samples", "count"), clock] and profile.period_type == clock and profile.period == round(facts.period),
          name + ": types and period", "%s, %d %s" % (profile.types, profile.period, profile.period_type))
    check(facts.before <= profile.time <= facts.after and abs(profile.duration - facts.duration_ns) <= 1,
          name + ": when it began and how long it took", "%d in %d..%d, %d of %d" % (
              profile.time, facts.before, facts.after, profile.duration, facts.duration_ns))
    wrong = [l for l in profile.locations.values() if l.mapping and not l.mapping.start <= l.address < l.mapping.limit]
    check(not wrong, name + ": addresses are in their mappings", wrong[:1])
    check(set(profile.functions.values()) - profile.used <= {Function(n, "", "", 0) for n in ("[lost]", "[unsampled]")} and
          len(set(profile.functions.values())) == len(profile.functions), name + ": each function once, none for nothing")


def compare_threads(name, profile, facts, windows):
    """Threads by id. Linux keeps 15 bytes of a name; Windows has the program's for want of one, and what is
    not UTF-8 it makes something else of."""
    expected, found = collections.defaultdict(set), collections.defaultdict(set)
    for tid, raw in facts.threads:
        thread = clean(raw if windows else raw[:15]).translate({i: " " for i in range(32)})
        expected[tid].add(thread or ("formats" if windows else "[unnamed]"))
    for s in profile.samples:
        if s.tid and s.tid != facts.main_tid:
            found[s.tid].add(s.thread)
    wrong = [tid for tid, names in expected.items()
             if found.get(tid) != names and not (windows and tid in found and "?" in "".join(names))]
    check(expected.keys() <= found.keys() and not wrong, name + ": labels name each thread and its id", "%s, should be %s" % (dict(found), dict(expected)))


def compare_perf(name, profile, events, folded, facts, lines):
    times, wrong = {}, 0
    for event in events:
        times[event.tid] = times.get(event.tid, 0) + round(facts.period)
        wrong += event.time != times[event.tid] or event.period != round(facts.period) or event.pid != facts.pid \
            or event.clock != ("wall" if name == "wall" else "cpu")
    check(not wrong, name + ": perf script's events are periods, numbered within each thread", "%d are not" % wrong)
    stacks = collections.Counter((e.comm,) + tuple(n for _, n, _ in reversed(e.frames)) for e in events)
    expected = collections.Counter()
    for stack, count in folded.items():
        expected[(perf_thread(stack[0]),) + tuple(map(perf_name, stack[1:]))] += count
    check(stacks == expected, name + ": perf script's events, counted by names, are the folded file",
          list(((stacks - expected) + (expected - stacks)).items())[:2])
    exact, counted = collections.Counter(), collections.Counter()
    for s in profile.samples:
        exact[s.tid, tuple(l.address for l in s.locations for _ in l.lines)] += s.ns / facts.period
    for e in events:
        counted[e.tid, tuple(a for a, _, _ in e.frames)] += 1
    off = [key for key in set(exact) | set(counted) if abs(exact[key] - counted[key]) > 1.01]
    check(not off, name + ": and by thread and addresses the pprof file, give or take a period",
          [(key[0], exact[key], counted[key]) for key in off[:2]])


def compare(directory, name, windows=False):
    """All formats of one profile; the decoded pprof file."""
    path = os.path.join(directory, name)
    facts, folded = Facts(path + ".facts"), read_folded(path + ".folded")
    with open(path + ".pb", "rb") as file:
        raw = file.read()
    try:
        profile, events = Pprof(raw), read_perf(path + ".perf.txt")
    except (Malformed, KeyError, ValueError, IndexError) as error:
        check(False, name + ": the files can be decoded", repr(error))
        return None
    check(True, name + ": the files can be decoded")
    check(unzipped(path + ".pb.gz") == raw, name + ": .pb.gz is .pb for gzip")
    compare_head(name, profile, facts)
    compare_totals(name, profile, facts, windows)
    compare_folded(name, profile, folded, facts, name == "wall")
    compare_threads(name, profile, facts, windows)
    compare_perf(name, profile, events, folded, facts, name == "wall")
    return profile


def compare_again(directory):
    """Files of one profile that were written in another way."""
    def data(name):
        with open(os.path.join(directory, name), "rb") as file:
            return file.read()
    for ending in (".folded", ".pb", ".pb.gz", ".perf.txt"):
        check(data("whole" + ending) == data("argument" + ending) == data("all" + ending),
              ending + ": by name, by argument and through a function, equal bytes")
    running = Pprof(data("running.pb"))
    check(running.samples and unzipped(os.path.join(directory, "running.pb.gz")), "a file written while running can be decoded")
    beginning = Pprof(data("begin.pb"))
    check(any("plain_c" in beginning.stack(s) for s in beginning.samples), "CPROF_BEGIN with .pb writes one")


def check_names(profile):
    stacks = [profile.stack(s) for s in profile.samples]
    check(any(all(stack[i + k] == frame for k, frame in enumerate(CHAIN)) for stack in stacks for i in range(len(stack) - 2)),
          "inlined functions are lines of one location, the innermost first")
    inlined = [l for l in profile.locations.values() if [f.name for f, _ in l.lines] == CHAIN[::-1]]
    check(inlined and all(l.lines[0][0].file.endswith("formats.cpp") and l.lines[0][1] > l.lines[0][0].start_line > 0 for l in inlined),
          "with file, line and the line where the function begins", inlined[:1])
    names = {f.name: f.system for f in profile.functions.values()}
    for name, system in (("evm::repeat<3>", "_ZN3evm6repeatILi3EEEmm"), ("(anonymous namespace)::hidden", "_ZN12_GLOBAL__N_16hiddenEm"),
                         ("plain_c", "plain_c"), ("evm::Stack::operator<<", "_ZN3evm5StacklsEm"), ("[unsampled]", "")):
        # Windows' long has 32 bits, its uint64_t another letter
        check(names.get(name) in (system, re.sub("mm$", "yy", system), re.sub("m$", "y", system)), name + ": has the name that the file has, too",
              names.get(name))


# ---- what others know of the process ----

def output(argv, **options):
    return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True,
                          **options).stdout.decode(errors="replace")


def check_mappings(directory, program, profile):
    with open(os.path.join(directory, "maps")) as file:
        maps = set()
        for line in file:
            part = line.rstrip("\n").split(None, 5)
            if "x" in part[1]:
                low, high = part[0].split("-")
                maps.add((int(low, 16), int(high, 16), int(part[2], 16), part[5] if len(part) > 5 else ""))
    mine = {(m.start, m.limit, m.offset, os.path.realpath(m.file) if m.file[0] == "/" else m.file) for m in profile.mappings.values()}
    check(mine <= maps, "mappings are lines of /proc/self/maps", sorted(mine - maps)[:2])
    first = profile.mappings[1]
    ids = re.findall(r"Build ID: ([0-9a-f]+)", output(["readelf", "-n", program]))
    check(first.file == program and first.build_id in ids and ids, "the first is the program, with its build id",
          "%s %s, should be %s %s" % (first.file, first.build_id, program, ids))
    check(first.functions and first.files and first.lines and first.inlines, "it has functions, files, lines, inlined functions")
    for m in profile.mappings.values():
        places = [l for l in profile.locations.values() if l.mapping and l.mapping.id == m.id]
        lines = any(line for l in places for _, line in l.lines)
        named = any(not f.name.startswith("[") for l in places for f, _ in l.lines)
        check(bool(m.functions) == named and bool(m.lines) == lines == bool(m.inlines), "%s: is marked as what it has" % os.path.basename(m.file))


def bare(name):
    """Without what the one shows and the other does not: parameters, return types, template arguments."""
    name = re.sub(r"\(anonymous namespace\)::|\{lambda.*\}::|<.*>", "", name)
    return re.sub(r".*[: ]", "", re.sub(r"\(.*", "", name))


def check_symbolizer(program, profile):
    """Each location in the program, from its address by way of mapping and segment, is what llvm-symbolizer says."""
    segments = []
    for line in output(["readelf", "-lW", program]).splitlines():
        part = line.split()
        if part and part[0] == "LOAD" and "E" in "".join(part[6:-1]):
            segments.append([int(x, 16) for x in part[1:6]])
    locations, addresses = [], []
    for l in profile.locations.values():
        if l.mapping and l.mapping.id == 1:
            offset = l.address - l.mapping.start + l.mapping.offset
            locations.append(l)
            addresses.append("0x%x" % next(vaddr + offset - off for off, vaddr, _, size, _ in segments if off <= offset < off + size))
    entries = output(["llvm-symbolizer", "--obj=" + program] + addresses).strip().split("\n\n")
    wrong = []
    for l, entry in zip(locations, entries):
        lines = entry.splitlines()
        theirs = [(bare(n),) + re.match(r".*?([^/:]+):(\d+):\d+$", w).groups() for n, w in zip(lines[::2], lines[1::2])]
        ours = [(bare(f.name), os.path.basename(f.file) or "??", str(line)) for f, line in l.lines]
        # Where there is no DWARF (_start) there is no file.
        if ours != theirs and not (theirs[0][1] == "??" and ours[0][1] == "??"):
            wrong.append((ours, theirs))
    check(len(entries) == len(locations) > 20 and len(wrong) * 100 <= len(locations),
          "functions, files and lines are llvm-symbolizer's, by way of the mapping", "%d of %d: %s" % (len(wrong), len(locations), wrong[:2]))


# ---- pprof ----

def pprof_missing():
    if not shutil.which("go"):
        return "go is not installed"
    return None


class Go:
    """`go tool pprof`, away from anybody's settings."""

    def __init__(self, scratch):
        self.timeout = 500  # of the first call: from Go 1.25 on it is compiled then
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("PPROF") and k not in ("GOOS", "GOARCH")}
        self.environment.update(PPROF_TMPDIR=scratch, XDG_CONFIG_HOME=scratch, GOTOOLCHAIN="local", HOME=os.environ.get("HOME", scratch))

    def ask(self, *arguments):
        """Its output, and what it says beside it if there is none."""
        timeout, self.timeout = self.timeout, 60
        argv = ["go", "tool", "pprof"] + list(arguments)
        try:
            answer = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                    env=self.environment, timeout=timeout)
        except subprocess.TimeoutExpired:
            return "timeout: " + " ".join(argv)
        text = answer.stdout.decode(errors="replace")
        return text if answer.returncode == 0 and text else "exit status %d: %s" % (answer.returncode, answer.stderr.decode(errors="replace"))


def nanoseconds(text):
    number, unit = re.match(r"(-?[\d.]+)(\D*)$", text).groups()
    return float(number) * {"ns": 1, "": 1, "us": 1e3, "ms": 1e6, "s": 1e9, "mins": 60e9}[unit]


def pprof_raw(go, path, profile, name):
    """-raw prints the whole file: samples with labels, locations, mappings."""
    text = go.ask("-raw", "-symbolize=none", path)
    if not check("Samples:\n" in text and "Locations\n" in text, name + ": pprof reads it", text):
        return
    body = text.split("Samples:\n")[1].split("Locations\n")[0].splitlines()[1:]
    theirs, values = [], None
    for line in body:
        sample = re.match(r" *(\d+) +(\d+): ([\d ]*)$", line)
        label = re.match(r" +(thread|thread_id):\[?(.*?)\]?$", line)
        if sample:
            values = [int(sample.group(1)), int(sample.group(2)), [int(i) for i in sample.group(3).split()], {}]
            theirs.append(values)
        elif label and values:
            values[3][label.group(1)] = label.group(2)
        else:
            check(False, name + ": a line of pprof -raw", line)
            return
    check([v[:2] for v in theirs] == [[s.count, s.ns] for s in profile.samples], name + ": pprof has all samples and their values",
          "%d of %d" % (len(theirs), len(profile.samples)))
    check([v[3].get("thread") for v in theirs] == [s.thread for s in profile.samples] and
          [v[3].get("thread_id", "0") for v in theirs] == [str(s.tid) for s in profile.samples], name + ": pprof has their threads",
          [v[3] for v in theirs][:3])


def by_function(profile, leaf_only):
    found = collections.Counter()
    for s in profile.samples:
        names = [f.name for l in s.locations for f, _ in l.lines]
        for function in names[:1] if leaf_only else set(names):
            found[function] += s.ns
    return found


def pprof_top(go, path, profile):
    text = go.ask("-top", "-symbolize=none", "-unit=ns", "-nodecount=0", "-nodefraction=0", "-edgefraction=0", path)
    theirs = {}
    for line in text.splitlines():
        row = re.match(r" *(\S+) +\S+% +\S+% +(\S+) +\S+% +(.*?)( \(inline\)| \(partial-inline\))?$", line)
        if row:
            theirs[row.group(3)] = (nanoseconds(row.group(1)), nanoseconds(row.group(2)))
    flat, total = by_function(profile, True), by_function(profile, False)
    ours = {n: (flat[n], total[n]) for n in total}
    check(theirs == ours and ours, "pprof -top has every function, and its flat and cumulated ns",
          [(n, theirs.get(n), ours.get(n)) for n in sorted(set(theirs) | set(ours)) if theirs.get(n) != ours.get(n)][:3] or text)
    text = go.ask("-top", "-symbolize=none", "-sample_index=samples", "-nodecount=0", "-nodefraction=0", path)
    check(re.findall(r"of (\d+) total", text) == [str(sum(s.count for s in profile.samples))],
          "pprof -sample_index=samples counts samples", text)


def pprof_traces(go, path, profile):
    """Stacks, values and threads of -traces are those of the file."""
    blocks = re.split(r"-{5,}\+-{5,}\n", go.ask("-traces", "-symbolize=none", "-unit=ns", path))[1:-1]
    theirs = collections.Counter()
    for block in blocks:
        thread, value, names = "", 0, []
        for line in block.splitlines():
            label = re.match(r" *(thread|thread_id): +(.*)$", line)
            if label and not names:
                thread = label.group(2) if label.group(1) == "thread" else thread
                continue
            first = re.match(r" *(-?[\d.]+[a-z]*)   (.*)$", line)
            if first and not names:
                value = nanoseconds(first.group(1))
            names.append(re.sub(r" \(inline\)$", "", (first.group(2) if first and len(names) == 0 else line).strip()))
        theirs[(thread,) + tuple(reversed(names))] += value
    ours = collections.Counter()
    for s in profile.samples:
        ours[tuple(f.replace(":", ";") for f in profile.stack(s))] += s.ns
    theirs = collections.Counter({tuple(f.replace(":", ";") for f in k): v for k, v in theirs.items()})
    check(theirs == ours, "pprof -traces has every stack, its thread and its ns",
          list((theirs - ours).items())[:1] + list((ours - theirs).items())[:1])


def pprof_tags(go, path, profile):
    text = go.ask("-tags", "-symbolize=none", "-unit=ns", path)
    theirs, key = {}, None
    for line in text.splitlines():
        head, row = re.match(r" *(\w+): Total", line), re.match(r" *(\S+) \( *\S+%\): (.*)$", line)
        if head:
            key = head.group(1)
        elif row:
            # a number without a unit gets the one that was asked for
            tag = re.sub("ns$", "", row.group(2)) if key == "thread_id" else row.group(2)
            theirs[key, tag] = nanoseconds(row.group(1))
    ours = collections.Counter()
    for s in profile.samples:
        ours["thread", s.thread] += s.ns
        if s.tid:
            ours["thread_id", str(s.tid)] += s.ns
    check(theirs == ours, "pprof -tags has every thread and thread_id and their ns",
          "%s, should be %s" % (theirs, dict(ours)))


def pprof_list(go, path, profile):
    text = go.ask("-list", "^mix$", "-symbolize=none", "-unit=ns", path)
    with open(os.path.join(HERE, "formats.cpp")) as file:
        source = file.read().splitlines()
    flat = collections.Counter()
    for s in profile.samples:
        function, line = s.locations[0].lines[0]
        if function.name == "mix":
            flat[line] += s.ns
    theirs = {}
    for row in re.finditer(r"^ *(\S+) +(\S+) +(\d+): ?(.*)$", text, re.M):
        if row.group(1) != ".":
            theirs[int(row.group(3))] = (nanoseconds(row.group(1)), row.group(4).strip())
    check(theirs == {line: (ns, source[line - 1].strip()) for line, ns in flat.items()} and theirs,
          "pprof -list has the ns of each line of a function, beside its source", "%s, should be %s" % (theirs, dict(flat)))
    # Compilers give the loop's time to its body and to its head.
    hottest = max(theirs, key=lambda n: theirs[n][0])
    check("hottest line" in source[hottest - 1] or "for (" in source[hottest - 1], "its hottest line is in the loop", theirs[hottest])


def pprof_stripped(go, scratch, program):
    """A stripped program's functions have no names; pprof takes them from the file that still has them."""
    place = os.path.join(scratch, "stripped")
    directory, full, stripped = (os.path.join(place, name) for name in ("profile", "full", "formats"))
    os.makedirs(directory)
    # llvm-symbolizer, if pprof uses that, cannot be told a path with blanks, and pprof waits for ever.
    shutil.copy(program, full)
    output(["strip", "-s", "-o", stripped, program])
    status, text = run([stripped, directory, "60", "begin"])
    path = os.path.join(directory, "begin.pb")
    if not check(status == 0 and os.path.exists(path), "a stripped program writes a profile", text):
        return
    with open(path, "rb") as file:
        profile = Pprof(file.read())
    names = {f.name for l in profile.locations.values() for f, _ in l.lines if l.mapping and l.mapping.id == 1}
    check(profile.mappings[1].file == stripped and not profile.mappings[1].functions and all(n.startswith("[formats+") for n in names),
          "a mapping without names is marked so", names)
    text = go.ask("-top", "-symbolize=local", "-nodefraction=0", full, path)
    # Go's own reader of symbols leaves out some, such as main.
    check("plain_c" in text and "profile_ending" in text, "pprof takes names from the program that has them", text)


def check_pprof(scratch, directory, program, profiles):
    missing = pprof_missing()
    if missing:
        return skip("pprof", missing)
    go = Go(scratch)
    for name in PROFILES:
        if profiles[name]:
            pprof_raw(go, os.path.join(directory, name + (".pb.gz" if name == "odd" else ".pb")), profiles[name], name)
    if not profiles["all"]:
        return None
    path, profile = os.path.join(directory, "all.pb"), profiles["all"]
    pprof_top(go, path, profile)
    pprof_traces(go, path, profile)
    pprof_tags(go, path, profile)
    pprof_list(go, path, profile)
    pprof_stripped(go, scratch, program)
    return None


# ---- speedscope ----

def npm_install(directory):
    """Why the package cannot be had, or None."""
    stamp = os.path.join(directory, "installed")
    if os.path.exists(stamp) and open(stamp).read() == SPEEDSCOPE:
        return None
    if not shutil.which("npm") or not shutil.which("node"):
        return "node and npm are not installed"
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    with open(os.path.join(directory, "package.json"), "w") as file:
        file.write('{"private": true}\n')
    status, text = run(["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent", "--ignore-scripts", SPEEDSCOPE],
                       cwd=directory)
    if status != 0:
        return "npm install failed: " + text.strip()[-300:]
    with open(stamp, "w") as file:
        file.write(SPEEDSCOPE)
    return None


def same_weights(ours, theirs):
    """Why two of {stack: weight} differ, or None."""
    for stack in sorted(set(ours) | set(theirs)):
        a, b = ours.get(stack, 0), theirs.get(stack, 0)
        if abs(a - b) > 1e-6 * max(1e-3, abs(a)):
            return "%r: %.9g, should be %.9g" % (stack[-4:], b, a)
    return None


def weights(imported):
    found = collections.Counter()
    for names, weight in imported["stacks"]:
        found[tuple(names)] += weight
    return found


def scope_pprof(name, imported, profile):
    """It shows one function a location, the outermost."""
    ours = collections.Counter()
    for s in profile.samples:
        ours[tuple(l.lines[-1][0].name for l in reversed(s.locations))] += s.ns
    why = same_weights(ours, weights(imported[0])) if imported and len(imported) == 1 else "not read: %r" % imported
    check(why is None and imported[0]["unit"] == "nanoseconds", name + ": speedscope reads the pprof file: stacks and ns", why)


def scope_perf(name, imported, events, period):
    """A profile a thread. What an event weighs it takes from the times: half the way to its neighbours."""
    threads, found = {}, {p["name"]: p for p in imported or []}
    for e in events:
        name_ = "%s%s pid: %d%s" % (e.comm, " " if len(e.comm) == 1 else "", e.pid, " tid: %d" % e.tid if e.tid else "")
        threads.setdefault(name_, []).append(e)
    if not check(set(found) == set(threads), name + ": speedscope reads perf script's text: each thread is a profile",
                 "%s, should be %s" % (sorted(found), sorted(threads))):
        return
    for thread, mine in threads.items():
        ours = collections.Counter()
        for i, e in enumerate(mine):
            stack = tuple(n for _, n, _ in reversed(e.frames))
            if len(mine) == 1:
                ours[stack] += 1
            else:
                ours[stack] += period * (0.5 if i in (0, len(mine) - 1) else 1)
        why = same_weights(ours, weights(found[thread]))
        check(why is None, "%s: speedscope has the stacks of %r and their times" % (name, thread), why)


def scope_folded(name, imported, folded):
    why = same_weights(folded, weights(imported[0])) if imported and len(imported) == 1 else "not read: %r" % imported
    check(why is None, name + ": speedscope reads the folded file", why)


def check_speedscope(directory, installed, profiles):
    missing = npm_install(installed)
    if missing:
        return skip("speedscope", missing)
    names = [n for n in PROFILES if profiles[n] and n != "empty"]
    endings = (".pb", ".pb.gz", ".perf.txt", ".folded")
    answer = subprocess.run(["node", os.path.join(HERE, "formats_speedscope.js"), installed]
                            + [os.path.join(directory, n + e) for n in names for e in endings],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
    if not check(answer.returncode == 0, "speedscope's importers run", answer.stderr.decode(errors="replace")):
        return None
    answers = json.loads(answer.stdout.decode("utf-8"))
    for i, name in enumerate(names):
        pprof, zipped, perf, folded = answers[i * len(endings):(i + 1) * len(endings)]
        path = os.path.join(directory, name)
        scope_pprof(name, pprof, profiles[name])
        check(zipped and pprof and zipped[0]["stacks"] == pprof[0]["stacks"], name + ": and .pb.gz as well")
        scope_perf(name, perf, read_perf(path + ".perf.txt", replaced), 1 / Facts(path + ".facts").hz)
        scope_folded(name, folded, read_folded(path + ".folded", replaced))
    return None


# ---- the suite ----

def build(scratch):
    """In a place whose name is a trap for readers of text."""
    place = os.path.join(scratch, "a (b) c")
    os.makedirs(place)
    program = os.path.join(place, "formats")
    status, text = run(["g++", "-std=gnu++11", "-O2", "-g", "-Wall", "-Wextra", "-I.", "-pthread", "-Wl,--build-id",
                        "tests/e2e/formats.cpp", "-o", program])
    return program if check(status == 0, "formats.cpp compiles", text) else None


def main():
    built = os.path.join(ROOT, sys.argv[1] if len(sys.argv) > 1 else "build")
    scratch = os.path.realpath(tempfile.mkdtemp(prefix="cprof-formats-"))
    try:
        program = build(scratch)
        if not program:
            return
        directory = os.path.join(scratch, "profiles")
        os.makedirs(directory)
        status, text = run([program, directory, MS])
        relay(text)
        if not check(status in (0, 1), "formats runs", text):
            return
        profiles = {name: compare(directory, name) for name in PROFILES}
        compare_again(directory)
        if profiles["all"]:
            check_names(profiles["all"])
            check_mappings(directory, program, profiles["all"])
            check_symbolizer(program, profiles["all"])
        for name in PROFILES:
            sizes = [os.path.getsize(os.path.join(directory, name + ending)) for ending in (".folded", ".pb", ".perf.txt")]
            note("%s: %d bytes folded, %d pprof, %d perf script" % tuple([name] + sizes))
        check_pprof(scratch, directory, program, profiles)
        check_speedscope(directory, os.path.join(built, "speedscope"), profiles)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
    done()
