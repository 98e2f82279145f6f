#!/usr/bin/env python3
"""benchmark.py: run a command many times and say how long it takes; compare two, in turns.

    benchmark.py -b 1000 -e 2000 --runs 10 -- ./evm --datadir DIR           # one command
    benchmark.py -b 1000 -e 2000 -- ./evm-old --datadir DIR --vs ./evm-new --datadir DIR
    benchmark.py -b 1000 -e 2000 --profile -- ./evm --datadir DIR           # what profiling costs
    benchmark.py --runs 30 --csv runs.csv --json runs.json -- sort big.txt  # any command

The first `--` ends the options. What follows is a command, word by word as your shell passes it on:
nothing is quoted twice, and no shell is started (if you want one: `-- sh -c '...'`). A word `--vs`
begins the second command. They run in turns, A B B A A B B A ..., so that a machine that becomes
slower or faster does it to both; --shuffle tosses a coin for each pair instead.

-b and -e are passed on: `-b FIRST -e LAST` is put at the end of each command. If the output has
figures like `1635.9 blocks/s` or `512.3 Mgas/s`, the last ones count; else blocks/s is the number
of blocks by wall time, and Mgas/s the gas used, if that is printed, by wall time.

--profile compares the command (A) with itself and `--profile --profile-output FILE` at its end (B);
FILE is temporary. For programs that have no such options but call cprof themselves, --profile-env
changes the environment only: CPROF_ENABLE=0 for A, CPROF_ENABLE=1 and CPROF_OUTPUT=FILE for B. With
either, a run of B that leaves no profile is an error: nothing would have been compared.

Wall time is from before the start of the process to its end. CPU time is user and system time of
the process and of those it has waited for (on Windows, of the process alone); peak memory is that
of the largest of them, and unknown where Python itself takes more. Standard input is empty, output
goes to a temporary file. What a run leaves in its process group (Windows: its job) is ended.

Exit code: 0 all runs are done; 1 a run failed, or results could not be written; 2 wrong usage;
130 Ctrl-C (128 + N for signal N). No child is left, but for one that has left its process group, or
if this script itself is killed the hard way. What was measured before a failure or a signal is
still shown and written, marked as incomplete.
Python 3.8 or later, standard library only. Run with --help for the options.

Contents: >>statistics  >>figures  >>process  >>runs  >>report  >>main
"""
import argparse
import contextlib
import csv
import datetime
import json
import math
import os
import platform
import random
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

try:
    import resource
except ImportError:
    resource = None  # Windows

PROG = 'benchmark.py'


class Failure(Exception):
    """Ends the benchmark with a sentence on stderr and an exit code."""

    def __init__(self, sentence, code=1):
        super().__init__(sentence)
        self.code = code


class Interrupted(Exception):
    """A signal asked to end."""


class Late(Exception):
    """A run took longer than --timeout."""


def say(sentence):
    """On stderr, in ASCII, so that no terminal encoding can make it fail."""
    text = '%s: %s\n' % (PROG, sentence)
    try:
        sys.stderr.write(text.encode('ascii', 'backslashreplace').decode('ascii'))
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody is listening


# >>statistics
#
# Pure functions of lists of numbers.

def percentile(values, percent):
    """Between the two nearest values, linearly, the smallest being 0% and the largest 100%."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summary(values):
    """stddev is that of a sample (n - 1), None for a single value."""
    return {'n': len(values), 'min': min(values), 'median': percentile(values, 50),
            'mean': math.fsum(values) / len(values), 'p95': percentile(values, 95),
            'max': max(values),
            'stddev': statistics.stdev(values) if len(values) > 1 else None}


def histogram(samples, most=12):
    """(edges, one list of counts per sample): bins of equal width over all samples together. Their
    number is Sturges' rule for the largest sample; the last bin holds its upper edge too."""
    low, high = min(map(min, samples)), max(map(max, samples))
    bins = min(most, 1 + math.ceil(math.log2(max(map(len, samples)))))
    if high <= low:
        return [low, high], [[len(values)] for values in samples]
    edges = [low + (high - low) * i / bins for i in range(bins)] + [high]
    counts = [[0] * bins for _ in samples]
    for row, values in zip(counts, samples):
        for value in values:
            row[min(bins - 1, int((value - low) / (high - low) * bins))] += 1
    return edges, counts


def t_within(t, degrees):
    """The probability that Student's t is within -t .. t: the finite series in the sine and cosine
    of atan(t / sqrt(degrees)), Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(degrees))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = degrees % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for k in range(2 + odd, degrees + 1, 2):
        total += term
        term *= square * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def t_quantile(confidence, degrees):
    """The t within which it is with this probability."""
    low, high = 0.0, 1.0
    while t_within(high, degrees) < confidence:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, degrees) < confidence else (low, middle)
    return high


def compare(a, b, confidence):
    """How many times A is B? a[i] and b[i] are a pair, run one right after the other. The ratios of
    the medians and of the means; and the typical ratio of a pair, with the interval in which it is.

    The interval is Student's, of the mean of the logarithms of the pairs' ratios. What slows down
    both runs of a pair by the same factor cancels. Runs are skewed to the slow side, but if both
    commands are skewed alike the difference of their logarithms is not, and that is what Student's
    t wants. In simulations (see the test) it holds the true ratio as often as promised from 2 pairs
    on, with normal, exponential and contaminated noise. The paired bootstrap was tried too: with 10
    pairs the 95% interval of the means held it in 87 to 91% of cases, and that of the medians was
    40% wider than this one where noise is normal. An outlier makes the interval wider, not the
    claim bolder."""
    n = len(a)
    result = {'pairs': n, 'medians': percentile(b, 50) / percentile(a, 50),
              'means': math.fsum(b) / math.fsum(a), 'typical': None, 'low': None, 'high': None}
    logs = [math.log(y / x) for x, y in zip(a, b)]
    mean = math.fsum(logs) / n
    result['typical'] = math.exp(mean)
    if n > 1:
        reach = t_quantile(confidence, n - 1) * statistics.stdev(logs) / math.sqrt(n)
        if reach < 100:     # beyond, exp() may not know the number, and nobody needs it
            result['low'], result['high'] = math.exp(mean - reach), math.exp(mean + reach)
    return result


# >>figures
#
# What the command itself says of blocks and gas, in whatever words: `1635.9 blocks/s`,
# `512.3 Mgas/s`, `mgasps=98.1`, `"blocks_per_second": 1635.9`, `gas used: 21,000`.

# It begins where digits begin, or a megabyte of digits would be read from each of them again.
NUMBER = r'(?<!\d)(?<!\d[.,])(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:e[+-]?\d\d?)?)'
PER_SECOND = r'(?:\s*/\s*|[\s_]*per[\s_]*|p)s(?:ec(?:ond)?s?)?(?![a-z])'
MULTIPLES = {'': 1.0, 'k': 1e3, 'm': 1e6, 'g': 1e9}  # `mgas` are millions, never thousandths


def rate_pattern(unit):
    unit = r'(?<![a-z])(?:(k|m|g)(?:ilo|ega|iga)?\s*)?' + unit + PER_SECOND
    before = NUMBER + r'\s*' + unit
    after = unit + r'"?\s*[:=]\s*"?' + NUMBER
    return re.compile(before + '|' + after, re.IGNORECASE)


BLOCK_RATE = rate_pattern('blocks?')
GAS_RATE = rate_pattern('gas')
GAS_USED = re.compile(r'gas[\s_]*used"?\s*[:=]?\s*"?' + NUMBER, re.IGNORECASE)


def to_number(text):
    return float(text.replace(',', ''))


def last_rate(pattern, text):
    """Of all rates in the text the last one, per second; None if there is none."""
    last = None
    for match in pattern.finditer(text):
        value, multiple = match.group(1), match.group(2)
        if value is None:
            multiple, value = match.group(3), match.group(4)
        last = to_number(value) * MULTIPLES[(multiple or '').lower()]
    return last


def figures(text, blocks, wall):
    """blocks/s, Mgas/s (None: unknown), and for each whether the command itself has said it."""
    block_rate, gas_rate = last_rate(BLOCK_RATE, text), last_rate(GAS_RATE, text)
    said = block_rate is not None, gas_rate is not None
    if block_rate is None and blocks:
        block_rate = blocks / wall
    used = None
    for used in GAS_USED.finditer(text):
        pass
    if gas_rate is None and used:
        gas_rate = to_number(used.group(1)) / wall
    return block_rate, gas_rate if gas_rate is None else gas_rate / 1e6, said


# >>process
#
# On POSIX a child leads a session, and so a process group, of its own. Its end is waited for
# without reaping it: its number still means this group when the group is killed. Elsewhere waiting
# is cut in slices, because Ctrl-C does not end a wait on Windows; the child's end ends a slice too,
# so that costs no accuracy.

CAN_WAIT = hasattr(os, 'waitid') and hasattr(os, 'wait4')
WINDOWS = os.name == 'nt'
SLICE = 0.1
RSS_UNIT = 1 if sys.platform == 'darwin' else 1024


class Signals:
    """Turns signals into exceptions, but only inside listening(): nowhere else can one come between
    the start of a child and the variable that holds it, or into the middle of its end."""

    def __init__(self):
        self.number = 0
        self.open = False
        self.before = {}
        for name in ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGBREAK', 'SIGALRM'):
            number = getattr(signal, name, None)
            # What nohup or a shell has set to be ignored stays so.
            if number is not None and (name == 'SIGALRM'
                                       or signal.getsignal(number) != signal.SIG_IGN):
                self.before[number] = signal.signal(number, self.handle)

    def handle(self, number, _frame):
        late = number == getattr(signal, 'SIGALRM', None)
        if not late:
            self.number = number
        if self.open:
            self.open = False
            raise Late if late else Interrupted

    @contextlib.contextmanager
    def listening(self, seconds):
        timer = getattr(signal, 'setitimer', lambda *_: None)
        alarm = getattr(signal, 'ITIMER_REAL', None)
        self.open = True
        try:
            timer(alarm, seconds or 0)
            if self.number:
                raise Interrupted
            yield
        finally:
            self.open = False
            timer(alarm, 0)

    def restore(self):
        for number, handler in self.before.items():
            signal.signal(number, handler)


class Job:
    """A process of Windows and all that it starts. They end with this program."""

    def __init__(self, process):
        import ctypes
        self.ctypes, self.kernel = ctypes, ctypes.WinDLL('kernel32')
        self.process = ctypes.c_void_p(int(process._handle))
        self.kernel.CreateJobObjectW.restype = ctypes.c_void_p
        self.job = ctypes.c_void_p(self.kernel.CreateJobObjectW(None, None))
        # JOBOBJECT_EXTENDED_LIMIT_INFORMATION (9), zero but for LimitFlags, which is at 16:
        # JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE.
        limits = ctypes.create_string_buffer(144 if sys.maxsize > 1 << 32 else 112)
        limits[16:20] = (0x2000).to_bytes(4, 'little')
        self.kernel.SetInformationJobObject(self.job, 9, limits, len(limits))
        self.kernel.AssignProcessToJobObject(self.job, self.process)

    def end(self):
        self.kernel.TerminateJobObject(self.job, 1)
        self.kernel.CloseHandle(self.job)

    def usage(self):
        """Of the process alone: (user seconds, system seconds, peak bytes)."""
        # FILETIMEs of 100 ns: creation, exit, kernel, user. PROCESS_MEMORY_COUNTERS: two numbers of
        # 4 bytes, then eight as wide as a pointer, the first of which is the peak working set.
        times = [self.ctypes.c_uint64() for _ in range(4)]
        memory = (self.ctypes.c_size_t * 10)()
        width = self.ctypes.sizeof(self.ctypes.c_size_t)
        user = system = peak = None
        if self.kernel.GetProcessTimes(self.process, *map(self.ctypes.byref, times)):
            user, system = times[3].value / 1e7, times[2].value / 1e7
        if self.kernel.K32GetProcessMemoryInfo(self.process, memory, 8 + 8 * width):
            peak = memory[8 // width] or None
        return user, system, peak


def own_peak():
    """Bytes. The kernel counts what a process was before exec, a copy of this one, as its own: a
    child's peak that is not above ours may be ours."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT if resource else 0


def wait_for_end(process, timeout):
    if CAN_WAIT:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        return
    deadline = time.monotonic() + (timeout or math.inf)
    while True:
        try:
            process.wait(timeout=SLICE)
            return
        except subprocess.TimeoutExpired:
            if time.monotonic() >= deadline:
                raise Late


def end_and_reap(process, job):
    """Ends what is left of it; (user seconds, system seconds, peak bytes), None where unknown."""
    if job:
        job.end()
    elif hasattr(os, 'killpg'):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    if not CAN_WAIT:
        process.kill()
        process.wait()
        return job.usage() if job else (None, None, None)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    peak = usage.ru_maxrss * RSS_UNIT
    return usage.ru_utime, usage.ru_stime, peak if peak > own_peak() else None


def execute(argv, environment, output, timeout, signals):
    """Runs it once: (exit code, wall seconds, user, system, peak bytes)."""
    group = ({'creationflags': subprocess.CREATE_NEW_PROCESS_GROUP} if WINDOWS
             else {'start_new_session': True})
    environment = dict(os.environ, **environment)
    start = time.perf_counter()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                               env=environment, **group)
    job = usage = None
    try:
        job = Job(process) if WINDOWS else None
        with signals.listening(timeout):
            wait_for_end(process, timeout)
            wall = time.perf_counter() - start
    finally:
        usage = end_and_reap(process, job)
    return (process.returncode, wall) + usage


# >>runs

TEXT_READ = 1 << 20     # of a long output only the end is looked at
LINES_QUOTED = 8


class Command:
    def __init__(self, label, argv, environment=None, profile=None):
        self.label = label
        self.argv = argv
        self.environment = environment or {}
        self.profile = profile      # the file that each run must write, if any

    def __str__(self):
        join = subprocess.list2cmdline if WINDOWS else shlex.join
        return join(self.argv)


def order(runs, two, shuffle=False, seed=1):
    """Whose turn it is: runs times A, or that many pairs of A and B. In ABBA, a drift that is a
    straight line adds the same to both if the number of runs is even. What comes and goes in that
    rhythm does not: shuffle."""
    if not two:
        return ['A'] * runs
    toss = random.Random(seed)
    turns = []
    for pair in range(runs):
        swapped = toss.random() < 0.5 if shuffle else pair % 2 == 1
        turns += ['B', 'A'] if swapped else ['A', 'B']
    return turns


def signal_name(number):
    return {s.value: s.name for s in signal.Signals}.get(number, 'signal %d' % number)


def ending(code):
    if code < 0:
        return 'was killed by ' + signal_name(-code)
    return 'failed with exit code ' + ('0x%08X' % code if code >= 1 << 31 else str(code))


def end_of(output):
    """The text at the end of a run's output."""
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - TEXT_READ))
    return output.read().decode('utf-8', 'replace')


class Benchmark:
    def __init__(self, commands, options, signals):
        self.commands = {command.label: command for command in commands}
        self.options = options
        self.signals = signals
        self.runs = []          # one dictionary per run that was good
        self.ended_by = None    # the sentence, if it ended early
        self.code = 0
        self.started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')
        self.output = tempfile.TemporaryFile(buffering=0)

    def go(self):
        o = self.options
        turns = order(o.runs, len(self.commands) > 1, o.shuffle, o.seed)
        warmups = list(self.commands) * o.warmup
        progress = Progress(len(warmups) + len(turns))
        try:
            for i, label in enumerate(warmups):
                which = 'warm-up run %d' % (i // len(self.commands) + 1)
                progress.step(label, self.once(label, which))
            for i, label in enumerate(turns):
                number = sum(run['command'] == label for run in self.runs) + 1
                run = self.once(label, 'run %d' % number)
                self.runs.append(dict({'run': i + 1, 'command': label, 'number': number}, **run))
                progress.step(label, run)
        except Interrupted:
            self.code = 128 + self.signals.number
            self.ended_by = 'ended by %s after %d of %d runs' % (
                signal_name(self.signals.number), len(self.runs), len(turns))
        except Failure as failure:
            self.code = failure.code
            self.ended_by = str(failure)
        finally:
            progress.clear()

    def once(self, label, which):
        command = self.commands[label]
        name = which + (' of ' + label if len(self.commands) > 1 else '')
        self.output.seek(0)
        self.output.truncate()
        if command.profile and os.path.exists(command.profile):
            os.remove(command.profile)
        timeout = self.options.timeout
        try:
            code, wall, user, system, peak = execute(
                command.argv, command.environment, self.output, timeout, self.signals)
        except Late:
            raise Failure('%s was still running after %g s (--timeout) and has been ended: %s%s'
                          % (name, timeout, command, self.last_lines()))
        except OSError as error:
            raise Failure('%s could not be started: %s: %s'
                          % (name, command, error.strerror or error))
        if code != 0:
            raise Failure('%s %s: %s%s' % (name, ending(code), command, self.last_lines()))
        if command.profile and not (os.path.exists(command.profile)
                                    and os.path.getsize(command.profile)):
            raise Failure('%s wrote no profile; is cprof in it? %s%s'
                          % (name, command, self.last_lines()))
        blocks, gas, said = figures(end_of(self.output), self.options.blocks, wall)
        cpu = None if user is None else round(user + system, 9)
        return {'wall_s': round(wall, 9), 'cpu_s': cpu, 'user_s': user, 'system_s': system,
                'peak_mb': None if peak is None else peak / 1e6,
                'blocks_per_s': blocks, 'mgas_per_s': gas,
                'blocks_said': said[0], 'gas_said': said[1]}

    def last_lines(self):
        lines = [line[:200].rstrip() for line in end_of(self.output).splitlines() if line.strip()]
        return '; the end of its output:' + ''.join(
            '\n    ' + line for line in lines[-LINES_QUOTED:]) if lines else '; it printed nothing'

    def values(self, label, metric):
        return [run[metric] for run in self.runs
                if run['command'] == label and run[metric] is not None]


class Progress:
    """A line on a terminal, drawn between runs and never during one."""

    def __init__(self, total):
        self.total, self.done, self.seconds = total, 0, 0.0
        self.shown = sys.stderr is not None and sys.stderr.isatty()
        self.draw('')

    def draw(self, text):
        if not self.shown:
            return
        width = shutil.get_terminal_size().columns - 1
        full = 20 * self.done // self.total
        line = '[%s%s] %d/%d%s' % ('#' * full, '.' * (20 - full), self.done, self.total, text)
        sys.stderr.write('\r' + line[:width].ljust(width))
        sys.stderr.flush()

    def step(self, label, run):
        self.done += 1
        self.seconds += run['wall_s']
        left = self.seconds / self.done * (self.total - self.done)
        self.draw('  %s %.3f s, about %.0f s left' % (label, run['wall_s'], left))

    def clear(self):
        if self.shown:
            sys.stderr.write('\r' + ' ' * (shutil.get_terminal_size().columns - 1) + '\r')
            sys.stderr.flush()


# >>report

METRICS = (('wall_s', 'wall time, s'), ('cpu_s', 'CPU time, s'), ('peak_mb', 'peak memory, MB'),
           ('blocks_per_s', 'blocks/s'), ('mgas_per_s', 'Mgas/s'))
BAR = 24
SPREAD = 0.10           # a standard deviation of this part of the mean is worth a note
FAR, FAR_LEAST = 5, 0.05    # so is a run this many (robust) deviations and 5% off the median
SHORT = 0.005           # and runs under this many seconds


def rounded(values):
    """As text, all with as many decimals as give the largest four digits."""
    largest = max(map(abs, values))
    decimals = max(0, min(6, 3 - math.floor(math.log10(largest)))) if largest > 0 else 0
    return ['%.*f' % (decimals, value) for value in values]


def analyse(benchmark):
    """summary[label][metric], of the metrics that all runs have; ratios[metric]; notes."""
    o, values, notes = benchmark.options, {}, {}
    for label in benchmark.commands:
        runs = [run for run in benchmark.runs if run['command'] == label]
        values[label] = {key: [run[key] for run in runs] for key, _ in METRICS
                         if runs and all(run[key] is not None for run in runs)}
        if runs:
            for note in figures_notes(runs) + doubts(values[label]['wall_s'], o.warmup):
                notes.setdefault(note, []).append(label)
    ratios = {}
    for key in (key for key, _ in METRICS if all(key in of for of in values.values())):
        # The first n of both are the runs of the first n pairs, in whichever order those were run.
        n = min(len(of[key]) for of in values.values())
        a, b = (values[label][key][:n] for label in (min(values), max(values)))
        if len(values) > 1 and min(a + b) > 0:
            ratios[key] = compare(a, b, o.confidence / 100)
    several = len(values) > 1
    return {'summary': {label: {key: summary(v) for key, v in of.items()}
                        for label, of in values.items()},
            'ratios': ratios,
            'notes': [(' and '.join(labels) + ': ' if several else '') + note
                      for note, labels in notes.items()]}


def figures_notes(runs):
    said = []
    for key, name, source, calculated in (
            ('blocks_per_s', 'blocks/s', 'blocks_said', 'the number of blocks by wall time'),
            ('mgas_per_s', 'Mgas/s', 'gas_said', 'the gas used by wall time')):
        have = sum(run[key] is not None for run in runs)
        if not have:
            said.append('the output has no %s' % name)
        elif have < len(runs):
            said.append('%s: only %d of %d outputs have it' % (name, have, len(runs)))
        elif not all(run[source] for run in runs):
            said.append('%s is %s' % (name, calculated))
    if runs[0]['cpu_s'] is None:
        said.append('CPU time: the system does not tell')
    if any(run['peak_mb'] is None for run in runs):
        said.append('peak memory: %s' % (
            'under %.0f MB, where the system does not tell it from that of Python itself'
            % (own_peak() / 1e6) if CAN_WAIT else 'the system does not tell'))
    return said


def doubts(times, warmup):
    """What makes these times doubtful. Limits are relative to the median, too: a steady program's
    tiny deviations are many standard deviations, and nobody's concern."""
    said, s = [], summary(times)
    deviations = [abs(t - s['median']) for t in times]
    limit = max(FAR * 1.4826 * percentile(deviations, 50), FAR_LEAST * s['median'])
    far = [i for i, d in enumerate(deviations) if d > limit] if len(times) > 2 else []
    if far and far[0] == 0 and times[0] == s['max']:
        del far[0]
        said.append('the first run took %.2f times as long as the median%s' % (
            times[0] / s['median'], '' if warmup else '; --warmup 1 would leave it out'))
    if far:
        said.append('far from the others: run %s' % ', '.join(
            '%d (%.3g s)' % (i + 1, times[i]) for i in far[:4]) + (', ...' if len(far) > 4 else ''))
    if s['stddev'] is not None and s['stddev'] > SPREAD * s['mean']:
        said.append('the standard deviation is %.0f%% of the mean: a busy machine? More --runs help'
                    % (100 * s['stddev'] / s['mean']))
    if s['median'] < SHORT:
        said.append('a run takes less than %g ms: much of it is the start of a process'
                    % (1000 * SHORT))
    return said


def table(title, of):
    """A row per metric."""
    lines = ['%-18s' % title + '%11s' * 4 % ('min', 'median', 'mean', 'p95') + '   stddev']
    for key, heading in METRICS:
        if key in of:
            s = of[key]
            *cells, spread = rounded([s['min'], s['median'], s['mean'], s['p95'], s['stddev'] or 0])
            if s['stddev'] is None:
                spread = '-'
            elif s['mean'] > 0:
                spread += ' (%.1f%%)' % (100 * s['stddev'] / s['mean'])
            lines.append('  %-16s' % heading + '%11s' * 4 % tuple(cells) + '   ' + spread)
    return lines


def comparison(ratios, confidence):
    """A row per metric, and what that means for wall time."""
    lines = ['%-18s%11s%11s%11s%23s' % ('B / A', 'medians', 'means', 'pairs', '%g%% interval'
                                        % confidence)]
    for key, heading in METRICS:
        if key in ratios:
            r = ratios[key]
            lines.append('  %-16s%11.4f%11.4f%11.4f%23s' % (
                heading.split(',')[0], r['medians'], r['means'], r['typical'],
                '-' if r['low'] is None else '%.4f .. %.4f' % (r['low'], r['high'])))
    wall = ratios['wall_s']
    if wall['low'] is None:
        lines.append('One pair of runs does not tell a difference from chance.')
    elif wall['low'] <= 1 <= wall['high']:
        lines.append('No difference in wall time is shown: the interval contains 1.')
    else:
        ends = sorted(100 * abs(wall[end] - 1) for end in ('low', 'high'))
        lines.append('B takes %.1f%% %s wall time than A (%g%% confidence: %.1f%% to %.1f%%).' % (
            100 * abs(wall['typical'] - 1), 'more' if wall['low'] > 1 else 'less', confidence,
            ends[0], ends[1]))
    return lines


def histogram_lines(samples):
    """A row per bin, a column of bars per command."""
    edges, counts = histogram(list(samples.values()))
    most, names = max(map(max, counts)), rounded(edges)
    pad = max(map(len, names))
    lines = ['%-*s' % (2 * pad + 8, 'wall time, s')
             + ''.join('%-*s' % (BAR + 8, label) for label in samples if len(samples) > 1)]
    for i in range(len(counts[0])):
        row = '  %*s .. %*s  ' % (pad, names[i], pad, names[i + 1])
        for column in counts:
            bar = '#' * math.ceil(BAR * column[i] / most)
            row += '%-*s' % (BAR + 8, '|%s %s' % (bar, column[i] or ''))
        lines.append(row)
    return [line.rstrip() for line in lines]


def text_report(benchmark):
    o, found, commands = benchmark.options, analyse(benchmark), benchmark.commands
    two = len(commands) > 1
    lines = []
    for label, command in commands.items():
        setting = ''.join('%s=%s ' % item for item in sorted(command.environment.items()))
        lines.append((label + ': ' if two else '') + setting + str(command))
    times = {label: benchmark.values(label, 'wall_s') for label in commands}
    lines.append('%s run%s%s%s' % (
        ' and '.join(str(len(t)) for t in times.values()), '' if len(benchmark.runs) == 1 else 's',
        ' in turns' if two else '', ', after %d to warm up' % o.warmup if o.warmup else ''))
    if benchmark.ended_by:
        lines.append('INCOMPLETE: %d were asked for' % (o.runs * len(commands)))
    for label, of in found['summary'].items():
        if of:
            lines += [''] + table(label if two else '', of)
    if found['ratios']:
        lines += [''] + comparison(found['ratios'], o.confidence)
    lines += [''] + histogram_lines({label: t for label, t in times.items() if t}) + ['']
    lines += ['note: ' + note for note in found['notes']]
    return '\n'.join(lines).rstrip('\n') + '\n'


CSV_COLUMNS = ('run', 'command', 'number', 'wall_s', 'cpu_s', 'user_s', 'system_s', 'peak_mb',
               'blocks_per_s', 'mgas_per_s')


def write_csv(file, benchmark):
    """A row per run, in the order of time; what is unknown is empty."""
    writer = csv.DictWriter(file, CSV_COLUMNS, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    writer.writerows(benchmark.runs)


def write_json(file, benchmark):
    o = benchmark.options
    json.dump({
        'tool': PROG, 'format': 1, 'started': benchmark.started,
        'complete': benchmark.ended_by is None, 'ended_by': benchmark.ended_by,
        'host': {'system': platform.system(), 'release': platform.release(),
                 'machine': platform.machine(), 'cpus': os.cpu_count(),
                 'python': platform.python_version()},
        'options': {k: getattr(o, k) for k in ('runs', 'warmup', 'timeout', 'shuffle', 'seed',
                                               'confidence', 'first', 'last', 'blocks')},
        'commands': {c.label: {'argv': c.argv, 'environment': c.environment}
                     for c in benchmark.commands.values()},
        'runs': [{k: run[k] for k in CSV_COLUMNS} for run in benchmark.runs],
        **analyse(benchmark)}, file, indent=1)
    file.write('\n')


# >>main

def number(convert, low, high, what):
    def parse(text):
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError('%r is no %s from %s to %s' % (text, what, low, high))
        return value
    return parse


def parse_options(arguments):
    """(options, [command, ...]); the commands are lists of words."""
    p = argparse.ArgumentParser(
        prog=PROG, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage='%(prog)s [options] -- COMMAND... [--vs COMMAND...]',
        description=__doc__.split('Contents:')[0].split('\n', 2)[2])
    block = number(int, 0, 10 ** 18, 'number')
    p.add_argument('-b', dest='first', type=block, metavar='FIRST', help='first block, passed on')
    p.add_argument('-e', dest='last', type=block, metavar='LAST', help='last block, passed on')
    p.add_argument('--runs', type=number(int, 1, 10 ** 6, 'number'), default=10, metavar='N',
                   help='runs of each command (10)')
    p.add_argument('--warmup', type=number(int, 0, 10 ** 6, 'number'), default=0, metavar='N',
                   help='runs of each command before, which do not count (0)')
    p.add_argument('--timeout', type=number(float, 0.001, 1e7, 'number of seconds'),
                   metavar='SECONDS', help='end a run, and the benchmark, after this time')
    p.add_argument('--profile', action='store_true',
                   help="compare with the command's own --profile --profile-output FILE")
    p.add_argument('--profile-env', action='store_true',
                   help='compare CPROF_ENABLE=0 with CPROF_ENABLE=1 in the environment')
    p.add_argument('--shuffle', action='store_true', help='each pair in random order, not ABBA')
    p.add_argument('--seed', type=number(int, 0, 10 ** 18, 'number'), default=1, metavar='N',
                   help='of --shuffle (1)')
    p.add_argument('--confidence', type=number(float, 50, 99.9, 'percentage'), default=95.0,
                   metavar='PERCENT', help='of the intervals (95)')
    p.add_argument('--json', metavar='FILE', help='everything, as JSON; - is standard output')
    p.add_argument('--csv', metavar='FILE', help='a row per run, as CSV; - is standard output')
    place = arguments.index('--') if '--' in arguments else len(arguments)
    o, extra = p.parse_known_args(arguments[:place])
    if '--vs' in extra:
        p.error('--vs comes after the first command: -- COMMAND... --vs COMMAND...')
    if extra and place == len(arguments) and not extra[0].startswith('-'):
        p.error('the command begins after --: -- ' + ' '.join(extra))
    if extra:
        p.error('unknown option: ' + ' '.join(extra))
    commands = [[]]
    for word in arguments[place + 1:]:
        if word == '--vs':
            commands.append([])
        else:
            commands[-1].append(word)
    if len(commands) > 2:
        p.error('--vs can be given once')
    if not all(commands):
        p.error('a command is missing after ' + ('--' if not commands[0] else '--vs'))
    if (o.first is None) != (o.last is None):
        p.error('-b and -e belong together')
    if o.first is not None and o.first > o.last:
        p.error('the first block (-b) is after the last (-e)')
    if o.profile + o.profile_env + len(commands) > 2:
        p.error('only one of --vs, --profile, --profile-env')
    if o.json == o.csv == '-':
        p.error('--json and --csv cannot both be standard output')
    o.blocks = None if o.first is None else o.last - o.first + 1
    return o, commands


def make_commands(o, words, directory):
    if o.first is not None:
        words = [w + ['-b', str(o.first), '-e', str(o.last)] for w in words]
    a = Command('A', words[0])
    if len(words) > 1:
        return [a, Command('B', words[1])]
    profile = os.path.join(directory, 'profile.folded')
    if o.profile:
        # The variable is set, for it may be 0 where this runs.
        return [a, Command('B', words[0] + ['--profile', '--profile-output', profile],
                           {'CPROF_ENABLE': '1'}, profile)]
    if o.profile_env:
        a.environment = {'CPROF_ENABLE': '0'}
        return [a, Command('B', words[0], {'CPROF_ENABLE': '1', 'CPROF_OUTPUT': profile}, profile)]
    return [a]


def write_results(benchmark):
    o = benchmark.options
    for path, write in ((o.json, write_json), (o.csv, write_csv)):
        if path == '-':
            write(sys.stdout, benchmark)
        elif path:
            with open(path, 'w', encoding='utf-8', newline='\n') as file:
                write(file, benchmark)
    report = sys.stderr if '-' in (o.json, o.csv) else sys.stdout
    if benchmark.runs:
        report.write(text_report(benchmark))
    sys.stdout.flush()


def main(arguments):
    o, words = parse_options(arguments)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors='backslashreplace')
    try:
        for path in (o.json, o.csv):    # better now than after an hour
            if path not in (None, '-'):
                open(path, 'a').close()
        signals = Signals()
        with tempfile.TemporaryDirectory(prefix='benchmark-') as directory:
            benchmark = Benchmark(make_commands(o, words, directory), o, signals)
            benchmark.go()
        signals.restore()
        write_results(benchmark)
    except OSError as error:
        raise Failure('cannot write results: %s' % error)
    if benchmark.ended_by:
        raise Failure(benchmark.ended_by, benchmark.code)
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main(sys.argv[1:]))
    except Failure as failure:
        say(str(failure))
        sys.exit(failure.code)
    except KeyboardInterrupt:       # while the report was written; nothing is running any more
        sys.exit(130)
