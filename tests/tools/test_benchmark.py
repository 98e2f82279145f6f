#!/usr/bin/env python3
"""Checks tools/benchmark.py: its statistics against independent calculations, its runs with
commands that log how they were called, and the real EVM.

    python3 tests/tools/test_benchmark.py [part of a check's name]

Prints one line per check: `ok - name`, `not ok - name: why` or `skip - name: why`. Exit code 1 if
any failed. No check depends on how fast this machine is: times are only known to be at least what a
command sleeps or burns. Python 3.8 or later, standard library only; the EVM needs a C compiler.
"""
import ast
import csv
import glob
import importlib.util
import io
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOOL = ROOT / 'tools' / 'benchmark.py'
POSIX = os.name == 'posix'
CHECKS = []

spec = importlib.util.spec_from_file_location('benchmark', str(TOOL))
benchmark = importlib.util.module_from_spec(spec)
sys.dont_write_bytecode = True
spec.loader.exec_module(benchmark)


def check(name):
    def add(f):
        CHECKS.append((name, f))
        return f
    return add


def same(got, want, what=''):
    if got != want:
        raise AssertionError('%s: got %r, expected %r' % (what, got, want))


def true(condition, why):
    if not condition:
        raise AssertionError(why)


def near(got, want, what, relative=1e-9):
    if not math.isclose(got, want, rel_tol=relative, abs_tol=1e-12):
        raise AssertionError('%s: got %r, expected %r' % (what, got, want))


# A command that logs how it was called (a line of JSON) and then does what its words say. `N:word`
# is done from its Nth start on only.

FAKE = r'''
import json, os, signal, subprocess, sys, time
log = sys.argv[1]
words = sys.argv[2:]
sleepers = []
if 'child' in words:
    sleepers.append(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)
with open(log, 'a') as file:
    file.write(json.dumps({
        'words': words, 'pids': [os.getpid()] + sleepers, 'stdin': sys.stdin.read(),
        'environment': {k: v for k, v in os.environ.items() if k.startswith('CPROF_')}}) + '\n')
with open(log) as file:
    starts = len(file.read().splitlines())
for word in words:
    head, _, rest = word.partition(':')
    if head.isdigit():
        if starts < int(head):
            continue
        head, _, rest = rest.partition(':')
    if head == 'print':
        sys.stdout.buffer.write((rest.replace('|', '\n') + '\n').encode('utf-8'))
        sys.stdout.buffer.flush()
    elif head == 'complain':
        print(rest, file=sys.stderr, flush=True)
    elif head == 'sleep':
        time.sleep(float(rest))
    elif head == 'burn':
        while time.process_time() < float(rest):
            sum(range(10000))   # asking for the time is the system's work, this is the user's
    elif head == 'take':
        block = bytearray(int(rest) << 20)
        block[::4096] = b'x' * len(block[::4096])
    elif head == 'exit':
        sys.exit(int(rest))
    elif head == 'kill':
        os.kill(os.getpid(), int(rest))
output = os.environ.get('CPROF_OUTPUT')
if '--profile-output' in words:
    output = words[words.index('--profile-output') + 1]
if output and 'no-profile' not in words and os.environ.get('CPROF_ENABLE') != '0':
    with open(output, 'w') as file:
        file.write('main;work 1\n')
'''


class Place:
    """A directory with the fake command in it and its log."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix='test-benchmark-')
        self.fake = self.file('fake.py')
        with open(self.fake, 'w') as file:
            file.write(FAKE)
        return self

    def __exit__(self, *_):
        for pid in self.pids():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.path)

    def file(self, name):
        return os.path.join(self.path, name)

    def command(self, *words):
        return [sys.executable, self.fake, self.file('log')] + list(words)

    def log(self):
        if not os.path.exists(self.file('log')):
            return []
        with open(self.file('log')) as file:
            return [json.loads(line) for line in file.read().splitlines()]

    def pids(self):
        return [pid for entry in self.log() for pid in entry['pids']]

    def read_json(self, name='out.json'):
        with open(self.file(name), encoding='utf-8') as file:
            return json.load(file)

    def read_csv(self, name='out.csv'):
        with open(self.file(name), encoding='utf-8', newline='') as file:
            return list(csv.DictReader(file))


def alive(pid):
    """A process that runs; one that nobody has reaped yet does not."""
    try:
        with open('/proc/%d/stat' % pid) as file:
            return file.read().rpartition(')')[2].split()[0] not in 'ZX'
    except OSError:
        return False


def gone(pids):
    """SIGKILL acts when the kernel gets round to it."""
    for _ in range(600):
        left = [pid for pid in pids if alive(pid)]
        if not left:
            return
        time.sleep(0.05)
    raise AssertionError('still running: %r' % left)


def environment():
    clean = {k: v for k, v in os.environ.items() if not k.startswith('CPROF_')}
    return dict(clean, PYTHONDONTWRITEBYTECODE='1')


def run(*arguments, code=0, **more):
    done = subprocess.run([sys.executable, str(TOOL)] + [str(a) for a in arguments],
                          env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=300, universal_newlines=True, **more)
    same(done.returncode, code, 'exit code (%s)' % done.stderr.strip())
    true('Traceback' not in done.stderr, done.stderr)
    return done


# Statistics.

def samples(seed, sizes=(1, 2, 3, 4, 5, 9, 10, 11, 37, 100, 101)):
    r = random.Random(seed)
    return [[r.lognormvariate(0, 0.5) for _ in range(n)] for n in sizes]


@check('percentiles are those of statistics.quantiles, method inclusive, whatever the order')
def _():
    for values in samples(1):
        if len(values) > 1:
            cuts = statistics.quantiles(values, n=100, method='inclusive')
            for percent, want in enumerate(cuts, 1):
                near(benchmark.percentile(values, percent), want, '%d%%' % percent)
        same(benchmark.percentile(values, 0), min(values), '0%')
        same(benchmark.percentile(values, 100), max(values), '100%')
        near(benchmark.percentile(values, 50), statistics.median(values), 'median')
        same(benchmark.percentile(values[::-1], 95), benchmark.percentile(values, 95), 'reversed')


@check('mean and standard deviation agree with exact rational arithmetic')
def _():
    for values in samples(2):
        exact = [Fraction(v) for v in values]
        mean = sum(exact) / len(exact)
        s = benchmark.summary(values)
        near(s['mean'], float(mean), 'mean')
        same((s['n'], s['min'], s['max']), (len(values), min(values), max(values)), 'n, min, max')
        if len(values) == 1:
            same(s['stddev'], None, 'of one value')
        else:
            variance = sum((v - mean) ** 2 for v in exact) / (len(exact) - 1)
            near(s['stddev'], math.sqrt(variance), 'stddev')
    big = [1e9 + i for i in range(5)]
    near(benchmark.summary(big)['stddev'], math.sqrt(2.5), 'far from zero')


@check('a histogram counts every run once, in the bin between whose edges it is')
def _():
    for values in samples(3):
        for columns in ([values], [values, [v * 1.1 for v in values]], [values, values[:1]]):
            edges, counts = benchmark.histogram(columns)
            same(len(counts), len(columns), 'columns')
            same((edges[0], edges[-1]), (min(map(min, columns)), max(map(max, columns))), 'range')
            true(edges == sorted(edges), 'edges rise')
            for column, row in zip(columns, counts):
                same(sum(row), len(column), 'sum')
                if edges[0] == edges[-1]:
                    continue
                same(len(row), len(edges) - 1, 'bins')
                slack = 1e-9 * edges[-1]
                for low, high, count in zip(edges, edges[1:], row):
                    surely = sum(low + slack < v < high - slack for v in column)
                    maybe = sum(low - slack <= v <= high + slack for v in column)
                    true(surely <= count <= maybe, '%d in %r .. %r' % (count, low, high))
    same(benchmark.histogram([[2.0] * 7])[1], [[7]], 'all the same')


@check('the printed histogram adds up to the number of runs')
def _():
    a, b = samples(4, (30,))[0], samples(5, (30,))[0]
    for columns in ({'A': a}, {'A': a, 'B': b}):
        lines = benchmark.histogram_lines(columns)
        totals = [0] * len(columns)
        for line in lines[1:]:
            bars = line.split('|')[1:]
            same(len(bars), len(columns), 'bars in %r' % line)
            for i, bar in enumerate(bars):
                marks, number = re.fullmatch(r'(#*) ?(\d*) *', bar).groups()
                totals[i] += int(number or 0)
                true(bool(marks) == bool(number), 'a bar for each number and none for 0: %r' % line)
        same(totals, [30] * len(columns), 'total')


@check("quantiles of Student's t agree with the integral of its density, and with printed tables")
def _():
    def within(t, degrees, steps=2000):  # Simpson's rule over -t .. t
        def density(x):
            scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2))
            return (scale / math.sqrt(math.pi * degrees)
                    * math.exp(-(degrees + 1) / 2 * math.log1p(x * x / degrees)))

        h = t / steps
        return 2 * h / 3 * sum((1 if i in (0, steps) else 4 if i % 2 else 2) * density(i * h)
                               for i in range(steps + 1))

    for degrees in (1, 2, 3, 4, 7, 8, 30, 99, 500):
        for confidence in (0.5, 0.8, 0.95, 0.99):
            t = benchmark.t_quantile(confidence, degrees)
            near(within(t, degrees), confidence, '%d, %g' % (degrees, confidence), 1e-6)
    for degrees, want in ((1, 12.706), (2, 4.303), (5, 2.571), (10, 2.228), (30, 2.042),
                          (120, 1.980)):
        same(round(benchmark.t_quantile(0.95, degrees), 3), want, '%d' % degrees)


# What the output says.

EVM_OUTPUT = '''blocks 1000..2000: 41234 transactions, 2 threads, computed goto dispatch
0.612 s, 1635.9 blocks/s, 512.3 Mgas/s
1001 blocks ok
'''


@check('blocks/s and Mgas/s are found as the EVM prints them, and in other words')
def _():
    same(benchmark.figures(EVM_OUTPUT, 1001, 0.7), (1635.9, 512.3, (True, True)), 'EVM')
    for text, blocks, gas in (
            ('12 blocks/s', 12, None), ('1,234.5 blocks / sec', 1234.5, None),
            ('2.5k blocks per second', 2500, None), ('blocks/s: 7', 7, None),
            ('{"blocks_per_second": 99.5, "mgas_per_second": 1e3}', 99.5, 1000),
            ('imported mgasps=98.25 number=17', None, 98.25), ('1.25 Ggas/s', None, 1250),
            ('throughput 3 gigagas/second', None, 3000), ('250000 gas/s', None, 0.25),
            ('500 kgas/s', None, 0.5), ('44.1Mgas/s', None, 44.1), ('MGAS/S = 2', None, 2),
            ('1 blocks/s\n2 blocks/s\nblocks/s=3\n', 3, None),
            ('10 Mgas/s, at the end 20 Mgas/s', None, 20),
            ('12 more blocks/s', None, None), ('17 blocks, 5 seconds', None, None),
            ('biogas/s: 5', None, None), ('12 blocks/step', None, None), ('gas/s', None, None),
            ('0.6s,1635.9 blocks/s,512 Mgas/s', 1635.9, 512), ('', None, None)):
        got = benchmark.figures(text, None, 2.0)
        for part, want in zip(got, (blocks, gas)):
            if want is None:
                same(part, None, text)
            else:
                true(part is not None, 'nothing found in %r' % text)
                near(part, want, text)


@check('without rates in the output they are the blocks, and the gas used, by wall time')
def _():
    same(benchmark.figures('done', 500, 2.0), (250.0, None, (False, False)), 'blocks')
    same(benchmark.figures('{"gas_used":3000000}', None, 2.0), (None, 1.5, (False, False)), 'JSON')
    same(benchmark.figures('gas used: 5,000,000\n', 10, 2.0), (5.0, 2.5, (False, False)), 'text')
    same(benchmark.figures('8 blocks/s', 10, 2.0), (8.0, None, (True, False)), 'said comes first')


@check('256 KB of anything are searched in linear time')
def _():
    # Quadratic, each of these would take until the suite's time is up.
    for piece in ('7', '1,', '123,', '1.', '5 ', 'm ', 'gas', 'gas ', 'blocks', 'gas used', '1e',
                  '_'):
        text = piece * ((1 << 18) // len(piece))
        same(benchmark.figures(text + ' 8 blocks/s', None, 1.0)[0], 8.0, piece)


# Order and comparison.

@check('the order of turns is ABBA; shuffled, each pair has both, in an order that a seed decides')
def _():
    same(''.join(benchmark.order(5, True)), 'ABBAABBAAB', 'ABBA')
    same(benchmark.order(3, False), ['A'] * 3, 'one command')
    shuffled = benchmark.order(200, True, True, 7)
    same(shuffled, benchmark.order(200, True, True, 7), 'the same seed')
    true(shuffled != benchmark.order(200, True, True, 8), 'another seed, the same order')
    pairs = [''.join(shuffled[i:i + 2]) for i in range(0, 400, 2)]
    same(set(pairs), {'AB', 'BA'}, 'pairs')
    true(60 <= pairs.count('BA') <= 140, '%d of 200 swapped' % pairs.count('BA'))
    # A drift that is a straight line adds the same to both.
    turns = benchmark.order(10, True)
    same(*[sum(i for i, label in enumerate(turns) if label == which) for which in 'AB'], 'drift')


def noises(r):
    """Named sources of run times around 1, as skewed as run times are."""
    return {
        'normal': lambda: 1 + r.gauss(0, 0.03),
        'lognormal': lambda: math.exp(r.gauss(0, 0.05)),
        'exponential': lambda: 1 + r.expovariate(20),
        'outliers': lambda: 1 + abs(r.gauss(0, 0.02)) + (r.random() < 0.15) * r.expovariate(5)}


@check('the 95% interval of a comparison holds the true ratio in 95% of simulated benchmarks')
def _():
    true_ratio, rounds = 1.05, 1000
    for kind in noises(None):
        for pairs in (2, 3, 5, 10, 30):
            r = random.Random('%s %d' % (kind, pairs))
            noise = noises(r)[kind]
            held = above = 0
            for _ in range(rounds):
                drift = [1 + 0.3 * i / pairs for i in range(pairs)]
                a = [d * noise() for d in drift]
                b = [true_ratio * d * noise() for d in drift]
                c = benchmark.compare(a, b, 0.95)
                held += c['low'] <= true_ratio <= c['high']
                above += c['low'] > true_ratio
            share = held / rounds
            # Never clearly less than promised (0.93 is three standard errors below); exactly that
            # where the noise is what Student's t assumes; the misses evenly on both sides.
            true(share >= 0.93, '%s, %d pairs: only %.3f' % (kind, pairs, share))
            if kind in ('normal', 'lognormal'):
                true(share <= 0.97, '%s, %d pairs: %.3f' % (kind, pairs, share))
            missed = rounds - held
            true(abs(above - missed / 2) <= 1.5 * math.sqrt(missed) + 1,
                 '%s, %d pairs: %d of %d misses above' % (kind, pairs, above, missed))


@check('a comparison is that of a textbook: ratios, and the t interval of the logarithms')
def _():
    a, b = [1.0, 2.0, 4.0], [1.5, 2.0, 8.0]
    c = benchmark.compare(a, b, 0.95)
    same((c['pairs'], c['medians'], c['means']), (3, 1.0, 11.5 / 7), 'points')
    near(c['typical'], 3 ** (1 / 3), 'geometric mean of 1.5, 1 and 2')
    logs = [math.log(1.5), 0.0, math.log(2)]
    mean = sum(logs) / 3
    error = math.sqrt(sum((x - mean) ** 2 for x in logs) / 2 / 3)
    near(c['low'], math.exp(mean - 4.302653 * error), 'low', 1e-6)
    near(c['high'], math.exp(mean + 4.302653 * error), 'high', 1e-6)
    wider = benchmark.compare(a, b, 0.99)
    true(wider['low'] < c['low'] < c['high'] < wider['high'], '99% is not wider')
    back = benchmark.compare(b, a, 0.95)
    near(back['low'], 1 / c['high'], 'A by B')
    scaled = benchmark.compare([1e-6 * x for x in a], [1e-6 * x for x in b], 0.95)
    near(scaled['high'], c['high'], 'in other units')
    one = benchmark.compare([2.0], [3.0], 0.95)
    same((one['typical'] is not None, one['low'], one['high']), (True, None, None), 'one pair')
    even = benchmark.compare([1.0, 2.0], [2.0, 4.0], 0.95)
    near(even['low'], 2, 'no spread')
    near(even['high'], 2, 'no spread')
    wild = benchmark.compare([1.0, 1.0], [1e-9, 1e9], 0.999)
    same(wild['low'], None, 'two pairs that say nothing')


@check('doubtful times get a note, steady ones none')
def _():
    def has(times, words, warmup=0):
        said = benchmark.doubts(times, warmup)
        true(any(words in note for note in said), '%r: %r' % (times, said))
        return said

    same(benchmark.doubts([1.0, 1.01, 0.99, 1.0, 1.02, 1.0], 0), [], 'steady')
    same(benchmark.doubts([1.0] * 9 + [1.0001], 0), [], 'a tiny deviation among equals')
    same(benchmark.doubts([1.0], 0), [], 'one run')
    has([2.0, 1.0, 1.01, 0.99, 1.0], 'the first run took 2.00 times')
    has([2.0, 1.0, 1.01, 0.99, 1.0], '--warmup 1')
    said = has([2.0, 1.0, 1.01, 0.99, 1.0], 'the first run', warmup=1)
    true(not any('--warmup' in note for note in said), 'it advises what was done')
    true(not any('far from' in note for note in said), 'the first run is told twice')
    has([1.0, 1.01, 0.99, 1.5, 1.0], 'far from the others: run 4 (1.5 s)')
    has([0.5, 1.01, 0.99, 1.0, 1.0], 'far from the others: run 1')
    has([1.0, 1.3, 0.8, 1.2, 0.9, 1.1], 'standard deviation is 18% of the mean')
    has([0.002, 0.002, 0.002], 'start of a process')


# Runs.

@check('JSON, CSV and the report tell the same of known runs, and leave out what is unknown')
def _():
    with Place() as place:
        command = place.command('sleep:0.05', 'print:12.5 blocks/s, 3 Mgas/s')
        out = run('--runs', 4, '--json', place.file('out.json'), '--csv', place.file('out.csv'),
                  '--', *command).stdout
        data, rows = place.read_json(), place.read_csv()
        same((data['complete'], data['ended_by'], data['format']), (True, None, 1), 'JSON')
        same(data['commands']['A']['argv'], command, 'argv')
        same(len(data['runs']), 4, 'runs')
        same(len(rows), 4, 'rows')
        for row, record in zip(rows, data['runs']):
            same(list(row), list(record), 'columns')
            for key, value in record.items():
                same(row[key], '' if value is None else str(value), key)
        same([r['run'] for r in data['runs']], [1, 2, 3, 4], 'numbers')
        same(set(r['blocks_per_s'] for r in data['runs']), {12.5}, 'blocks/s')
        same(set(r['mgas_per_s'] for r in data['runs']), {3.0}, 'Mgas/s')
        walls = [r['wall_s'] for r in data['runs']]
        true(min(walls) >= 0.05, 'less than it slept: %r' % walls)
        s = data['summary']['A']['wall_s']
        near(s['median'], statistics.median(walls), 'median')
        near(s['mean'], statistics.fmean(walls), 'mean')
        near(s['stddev'], statistics.stdev(walls), 'stddev')
        near(s['p95'], statistics.quantiles(walls, n=20, method='inclusive')[-1], 'p95')
        same((s['min'], s['max'], s['n']), (min(walls), max(walls), 4), 'min, max, n')
        same(data['ratios'], {}, 'ratios of one command')
        cells = re.search('wall time, s' + 5 * r' +(\S+)' + r' \(\S+%\)\n', out).groups()
        for cell, key in zip(cells, ('min', 'median', 'mean', 'p95', 'stddev')):
            true(abs(float(cell) - s[key]) <= 0.51 * 10.0 ** -len(cell.partition('.')[2]),
                 '%s is %s, printed %s' % (key, s[key], cell))
        true('4 runs\n' in out, out)
        same(sum(map(int, re.findall(r'\|#+ (\d+)', out))), 4, 'histogram')
        for entry in place.log():
            same(entry['stdin'], '', 'standard input')


@check('without figures in the output their columns are missing, and that is said')
def _():
    with Place() as place:
        out = run('--runs', 2, '--json', place.file('out.json'), '--',
                  *place.command('print:hello')).stdout
        true('\n  blocks/s' not in out and '\n  Mgas/s' not in out, out)
        true('has no blocks/s' in out and 'has no Mgas/s' in out, out)
        same(sorted(k for k in place.read_json()['summary']['A'] if '_per_s' in k), [], 'summary')
        out = run('-b', 5, '-e', 14, '--runs', 2, '--json', place.file('out.json'), '--',
                  *place.command('2:print:7 Mgas/s')).stdout
        data = place.read_json()
        for r in data['runs']:
            near(r['blocks_per_s'], 10 / r['wall_s'], 'blocks by wall time')
        true('blocks/s is the number of blocks by wall time' in out, out)
    with Place() as place:
        out = run('--runs', 3, '--', *place.command('2:print:7 Mgas/s')).stdout
        true('Mgas/s: only 2 of 3 outputs have it' in out and '\n  Mgas/s' not in out, out)


@check('one run is enough for a report')
def _():
    with Place() as place:
        out = run('--runs', 1, '--', *place.command()).stdout
        true(re.search(r'wall time, s .* -\n', out) and '1 run\n' in out, out)
        out = run('--runs', 1, '--', *place.command('--vs'), *place.command()).stdout
        true('does not tell a difference from chance' in out, out)


@check('CPU time and peak memory are those of the command')
def _():
    if not POSIX:
        return 'only with wait4'
    with Place() as place:
        run('--runs', 2, '--json', place.file('out.json'), '--', *place.command('burn:0.5'))
        for r in place.read_json()['runs']:
            true(r['cpu_s'] >= 0.5, 'CPU %r' % r['cpu_s'])
            near(r['cpu_s'], r['user_s'] + r['system_s'], 'sum')
            true(r['user_s'] > r['system_s'], 'user and system, swapped? %r' % r)
        run('--runs', 2, '--json', place.file('out.json'), '--', *place.command('take:200'))
        for r in place.read_json()['runs']:
            true(200 * 1.048 <= r['peak_mb'] < 2000, 'peak %r' % r['peak_mb'])
        # Less than Python takes cannot be told from Python's own.
        out = run('--runs', 2, '--json', place.file('out.json'), '--', 'true').stdout
        same([r['peak_mb'] for r in place.read_json()['runs']], [None, None], 'peak of true')
        true('peak memory: under' in out and '\n  peak' not in out, out)


@check('two commands run ABBA, warm-ups first, each with -b and -e at its end')
def _():
    with Place() as place:
        out = run('-b', 7, '-e', 9, '--runs', 3, '--warmup', 2, '--json', place.file('out.json'),
                  '--csv', place.file('out.csv'), '--', *place.command('one', '--datadir', 'a b'),
                  '--vs', *place.command('two', 'sleep:0.2')).stdout
        log = place.log()
        same([e['words'][0] for e in log],
             ['one', 'two'] * 2 + ['one', 'two', 'two', 'one', 'one', 'two'], 'order')
        for entry in log:
            same(entry['words'][-4:], ['-b', '7', '-e', '9'], 'range')
        same(log[0]['words'][1:3], ['--datadir', 'a b'], 'words')
        data, rows = place.read_json(), place.read_csv()
        same([r['command'] for r in data['runs']], list('ABBAAB'), 'JSON')
        same(' '.join(r['command'] + r['number'] for r in rows), 'A1 B1 B2 A2 A3 B3', 'CSV')
        same(data['options']['blocks'], 3, 'blocks')
        a, b = ([r['wall_s'] for r in data['runs'] if r['command'] == label] for label in 'AB')
        ratio = data['ratios']['wall_s']
        near(ratio['medians'], statistics.median(b) / statistics.median(a), 'medians')
        near(ratio['means'], statistics.fmean(b) / statistics.fmean(a), 'means')
        near(ratio['typical'], math.exp(statistics.fmean(
            math.log(y / x) for x, y in zip(a, b))), 'pairs')
        true(ratio['low'] <= ratio['typical'] <= ratio['high'], 'interval')
        true('3 and 3 runs in turns, after 2 to warm up' in out, out)
        true(('contains 1' in out) == (ratio['low'] <= 1 <= ratio['high']), out)
        for key in ratio:
            if key not in ('pairs', 'low', 'high'):
                true('%.4f' % ratio[key] in out, key)


@check('--shuffle runs in the order of its seed')
def _():
    with Place() as place:
        run('--runs', 6, '--shuffle', '--seed', 3, '--', *place.command('A'), '--vs',
            *place.command('B'))
        same([e['words'][0] for e in place.log()], benchmark.order(6, True, True, 3), 'order')


@check('--profile and --profile-env: A without a profile, B with one in a temporary file')
def _():
    with Place() as place:
        run('-b', 1, '-e', 2, '--runs', 2, '--profile', '--', *place.command('x'))
        off, on = place.log()[:2]
        same(off['words'], ['x', '-b', '1', '-e', '2'], 'A')
        same(off['environment'], {}, "A's environment")
        same(on['words'][:7], ['x', '-b', '1', '-e', '2', '--profile', '--profile-output'], 'B')
        true(on['words'][7].endswith('.folded') and len(on['words']) == 8, 'file')
        same(on['environment'], {'CPROF_ENABLE': '1'}, "B's environment")
        true(not os.path.exists(os.path.dirname(on['words'][7])), 'the temporary directory is left')
        same(len(place.log()), 4, 'runs')
    with Place() as place:
        out = run('--runs', 2, '--profile-env', '--', *place.command('x')).stdout
        off, on = place.log()[:2]
        same((off['words'], on['words']), (['x'], ['x']), 'words')
        same(off['environment'], {'CPROF_ENABLE': '0'}, 'A')
        same(on['environment']['CPROF_ENABLE'], '1', 'B')
        true(on['environment']['CPROF_OUTPUT'].endswith('.folded'), 'file')
        true('CPROF_ENABLE=0' in out and 'CPROF_ENABLE=1' in out, out)
    for option in ('--profile', '--profile-env'):
        with Place() as place:
            error = run('--runs', 2, option, '--', *place.command('no-profile'), code=1).stderr
            true('run 1 of B wrote no profile' in error, error)


# Failure.

@check('a run that fails ends it: which, its exit code, its last lines; earlier runs are kept')
def _():
    with Place() as place:
        lines = '|'.join('line %d' % i for i in range(1, 31))
        done = run('--runs', 5, '--csv', place.file('out.csv'), '--json', place.file('out.json'),
                   '--', *place.command('print:' + lines, '3:complain:it broke', '3:exit:7'),
                   code=1)
        true('run 3 failed with exit code 7: ' in done.stderr, done.stderr)
        true('fake.py' in done.stderr and 'it broke' in done.stderr, done.stderr)
        true('line 30' in done.stderr and 'line 5\n' not in done.stderr, done.stderr)
        same(len(place.log()), 3, 'starts')
        same(len(place.read_csv()), 2, 'rows')
        data = place.read_json()
        same((data['complete'], len(data['runs'])), (False, 2), 'JSON')
        true('exit code 7' in data['ended_by'], data['ended_by'])
        true('INCOMPLETE: 5 were asked for' in done.stdout, done.stdout)
    with Place() as place:
        done = run('--runs', 2, '--warmup', 1, '--json', place.file('out.json'), '--',
                   *place.command('fine'), '--vs', *place.command('exit:3'), code=1)
        same((place.read_json()['runs'], place.read_json()['complete']), ([], False), 'JSON')
        true('warm-up run 1 of B failed with exit code 3' in done.stderr, done.stderr)
        true('it printed nothing' in done.stderr, done.stderr)
        same(done.stdout, '', 'a report of nothing')


@check('death by a signal, a missing program and one that cannot be run are told apart')
def _():
    with Place() as place:
        if POSIX:
            error = run('--runs', 2, '--', *place.command('kill:11'), code=1).stderr
            true('was killed by SIGSEGV' in error, error)
            with open(place.file('plain'), 'w') as file:
                file.write('no program\n')
            error = run('--', place.file('plain'), code=1).stderr
            true('could not be started' in error and 'ermission' in error, error)
        error = run('--', place.file('absent'), '--option', code=1).stderr
        true('run 1 could not be started: ' in error and 'absent --option' in error, error)
        error = run('--', *place.command(), '--vs', place.file('absent'), code=1).stderr
        true('run 1 of B could not be started' in error, error)


@check('--timeout ends a run and its children')
def _():
    with Place() as place:
        error = run('--runs', 3, '--timeout', 2, '--',
                    *place.command('child', 'print:so far', 'sleep:600'), code=1).stderr
        true('run 1 was still running after 2 s (--timeout)' in error and 'so far' in error, error)
        same(len(place.log()), 1, 'starts')
        same(len(place.pids()), 2, 'processes')
        gone(place.pids())
        run('--runs', 2, '--timeout', 200, '--', *place.command())


@check('what a good run leaves running is ended before the next one')
def _():
    with Place() as place:
        run('--runs', 2, '--', *place.command('child'))
        same(len(place.pids()), 4, 'processes')
        gone(place.pids())


@check('without waitid, rusage and timers, as on Windows, all is there but those figures')
def _():
    if not POSIX:
        return 'this system is such a one'
    bare = ('import importlib.util, signal, sys\n'
            'spec = importlib.util.spec_from_file_location("benchmark", sys.argv[1])\n'
            'b = importlib.util.module_from_spec(spec)\n'
            'spec.loader.exec_module(b)\n'
            'b.CAN_WAIT, b.resource = False, None\n'
            'del signal.setitimer, signal.SIGALRM\n'
            'try:\n    sys.exit(b.main(sys.argv[2:]))\n'
            'except b.Failure as failure:\n    b.say(str(failure))\n    sys.exit(failure.code)\n')

    def go(*arguments):
        done = subprocess.run([sys.executable, '-c', bare, str(TOOL)] + list(arguments),
                              env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=120, universal_newlines=True)
        true('Traceback' not in done.stderr, done.stderr)
        return done.returncode, done.stdout, done.stderr

    with Place() as place:
        code, out, err = go('--runs', '3', '--json', place.file('out.json'), '--timeout', '300',
                            '--', *place.command('sleep:0.3', 'child'))
        same(code, 0, err)
        data = place.read_json()
        true(all(r['wall_s'] >= 0.3 for r in data['runs']), 'wall time')
        same([r['cpu_s'] for r in data['runs']], [None] * 3, 'CPU time')
        true('CPU time: the system does not tell' in out and '\n  CPU' not in out, out)
        true('peak memory: the system does not tell' in out, out)
        same(len(place.pids()), 6, 'processes')
        gone(place.pids())
    with Place() as place:
        code, out, err = go('--timeout', '2', '--', *place.command('child', 'sleep:600'))
        true(code == 1 and 'still running after 2 s' in err, err)
        same(len(place.pids()), 2, 'processes')
        gone(place.pids())
        code, out, err = go('--', *place.command('exit:9'))
        true(code == 1 and 'exit code 9' in err, err)


def interrupt(place, number, *arguments):
    """Sends a signal while the third run sleeps."""
    process = subprocess.Popen(
        [sys.executable, str(TOOL)] + list(arguments), env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
        # A shell may have started this test with SIGINT ignored.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))
    try:
        for _ in range(1200):
            if len(place.log()) == 3 or process.poll() is not None:
                break
            time.sleep(0.05)
        same(len(place.log()), 3, 'runs before the signal')
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


@check('Ctrl-C and SIGTERM end it with the results so far and without children')
def _():
    if not POSIX:
        return 'needs POSIX signals'
    for number, name in ((signal.SIGINT, 'SIGINT'), (signal.SIGTERM, 'SIGTERM')):
        with Place() as place:
            code, out, err = interrupt(
                place, number, '--runs', '9', '--json', place.file('out.json'), '--csv',
                place.file('out.csv'), '--', *place.command('child', '3:sleep:600'))
            same(code, 128 + number, 'exit code (%s)' % err)
            true('ended by %s after 2 of 9 runs' % name in err and 'Traceback' not in err, err)
            true('2 runs\nINCOMPLETE: 9 were asked for' in out, out)
            same((place.read_json()['complete'], len(place.read_csv())), (False, 2), 'files')
            same(len(place.pids()), 6, 'processes')
            gone(place.pids())
    with Place() as place:
        code, out, err = interrupt(place, signal.SIGINT, '--runs', '9', '--', *place.command(),
                                   '--vs', *place.command('3:sleep:600'))
        same(code, 130, 'exit code')
        true('1 and 1 runs' in out and 'does not tell a difference from chance' in out, out)


# The command line.

@check('wrong usage is exit code 2 and a sentence, and nothing is run')
def _():
    with Place() as place:
        c = place.command()
        for arguments, words in (
                ([], 'a command is missing after --'), (['--'], 'a command is missing after --'),
                (['--', '--vs'] + c, 'missing after --'),
                (['--'] + c + ['--vs'], 'missing after --vs'),
                (['--'] + c + ['--vs'] + c + ['--vs'] + c, '--vs can be given once'),
                (c, 'the command begins after --'), (['--vs', 'x', '--'] + c, '--vs comes after'),
                (['--runs', '0', '--'] + c, "'0' is no number"),
                (['--runs', 'x', '--'] + c, "'x' is no number"),
                (['--timeout', '0', '--'] + c, 'number of seconds'),
                (['--timeout', 'nan', '--'] + c, 'number of seconds'),
                (['-b', '1', '--'] + c, '-b and -e belong together'),
                (['-b', '5', '-e', '4', '--'] + c, 'after the last'),
                (['-b', '-5', '-e', '4', '--'] + c, '-b'),
                (['--confidence', '100', '--'] + c, 'percentage'),
                (['--profile', '--'] + c + ['--vs'] + c, 'only one of'),
                (['--profile', '--profile-env', '--'] + c, 'only one of'),
                (['--json', '-', '--csv', '-', '--'] + c, 'cannot both'),
                (['--nonsense', '--'] + c, 'unknown option: --nonsense')):
            error = run(*arguments, code=2).stderr
            true(words in error, '%r: %s' % (arguments, error))
        same(place.log(), [], 'runs')
        text = run('--help').stdout
        for option in re.findall(r"add_argument\('(-[^']*)'", TOOL.read_text()):
            true(option in text, option + ' is not in --help')


@check('a result file that cannot be written is found before the first run')
def _():
    with Place() as place:
        for option in ('--json', '--csv'):
            error = run(option, place.file('no/such/file'), '--', *place.command(), code=1).stderr
            true('cannot write results' in error, error)
        same(place.log(), [], 'runs')


@check('- is standard output, the report then goes to stderr')
def _():
    with Place() as place:
        done = run('--runs', 2, '--json', '-', '--', *place.command())
        same(len(json.loads(done.stdout)['runs']), 2, 'JSON')
        true('wall time, s' in done.stderr, done.stderr)
        done = run('--runs', 2, '--csv', '-', '--', *place.command())
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        same([r['run'] for r in rows], ['1', '2'], 'CSV')
        true('wall time, s' in done.stderr, done.stderr)


@check('a reader of the report that goes away is no stack trace')
def _():
    if not POSIX:
        return 'needs a POSIX pipe'
    with Place() as place:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([sys.executable, str(TOOL), '--runs', '2', '--'] + place.command(),
                              env=environment(), stdout=writer, stderr=subprocess.PIPE, timeout=120,
                              universal_newlines=True)
        os.close(writer)
        true('Traceback' not in done.stderr and 'ignored' not in done.stderr, done.stderr)
        same(done.returncode, 1, 'exit code')


@check('names that a terminal cannot show and spaces in words do no harm')
def _():
    with Place() as place:
        done = subprocess.run(
            [sys.executable, str(TOOL), '--runs', '2', '--json', place.file('out.json'), '--']
            + place.command('print:\u00e9 \u65e5', 'a b', "it's", '\u65e5\u672c', 'exit:0'),
            env=dict(environment(), PYTHONIOENCODING='ascii', PYTHONUTF8='1'),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
        same(done.returncode, 0, done.stderr)
        same(place.log()[0]['words'][1:4], ['a b', "it's", '\u65e5\u672c'], 'words')
        same(place.read_json()['commands']['A']['argv'][-2], '\u65e5\u672c', 'JSON')


@check('a progress bar is drawn on a terminal and nowhere else')
def _():
    with Place() as place:
        done = run('--runs', 3, '--warmup', 1, '--', *place.command())
        same(done.stderr, '', 'stderr that is no terminal')
        true('\r' not in done.stdout and '[#' not in done.stdout, done.stdout)
        try:
            import pty
        except ImportError:
            return 'no pseudo-terminals here'
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, str(TOOL), '--runs', '3', '--warmup', '1', '--'] + place.command(),
            env=dict(environment(), COLUMNS='70'), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=slave)
        os.close(slave)
        out, drawn = process.stdout.read().decode(), b''
        try:
            while True:
                piece = os.read(master, 4096)
                if not piece:
                    break
                drawn += piece
        except OSError:
            pass        # Linux says so that the other side is closed
        os.close(master)
        process.stdout.close()
        same(process.wait(60), 0, 'exit code')
        states = drawn.decode().split('\r')
        shown = [re.search(r'\[(#*)\.*\] (\d)/4', s).groups() for s in states if '[' in s]
        same(shown, [('#' * 5 * i, str(i)) for i in range(5)], 'states')
        true(all(len(s) < 70 for s in states), 'wider than the terminal')
        same(states[-1], '', 'left on the screen')
        true('wall time, s' in out, out)


@check('its syntax is that of Python 3.8, and it runs under every other Python 3.8+ found here')
def _():
    ast.parse(TOOL.read_text(), feature_version=(3, 8))
    tried = 0
    with Place() as place:
        for minor in range(8, 20):
            python = shutil.which('python3.%d' % minor)
            if not python or os.path.realpath(python) == os.path.realpath(sys.executable):
                continue
            if subprocess.run([python, '-c', ''], stderr=subprocess.DEVNULL).returncode:
                continue        # a launcher without an interpreter behind it
            tried += 1
            done = subprocess.run([python, str(TOOL), '--runs', '2', '--'] + place.command(),
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
            true(done.returncode == 0 and b'2 runs' in done.stdout, '%s: %r' % (python, done))
    if not tried:
        print('# no other Python here to run it with')


# The real thing.

@check('the EVM: its own blocks/s and Mgas/s, alone and with --profile')
def _():
    cc = os.environ.get('CC', 'cc').split()
    built = os.environ.get('CPROF_TEST_EVM')    # by run.py
    if not built and not shutil.which(cc[0]):
        return cc[0] + ' is not installed'
    with Place() as place:
        evm = built or place.file('evm')
        if not built:
            sources = sorted(glob.glob(str(ROOT / 'examples' / 'evm' / '*.c')))
            subprocess.run(cc + ['-O1', '-pthread', '-I' + str(ROOT)] + sources + ['-o', evm],
                           check=True)
        data = place.file('data')
        subprocess.run([evm, 'gen', '--datadir', data, '-b', '1000', '-e', '1019'], check=True,
                       stdout=subprocess.DEVNULL)
        out = run('-b', 1000, '-e', 1019, '--runs', 3, '--json', place.file('out.json'), '--', evm,
                  '--datadir', data).stdout
        for r in place.read_json()['runs']:
            # It leaves its own start and end out of the time, so it is faster than wall time says.
            true(r['blocks_per_s'] >= 20 / r['wall_s'] - 0.06, 'blocks/s %r' % r)
            true(r['mgas_per_s'] > 0, 'Mgas/s %r' % r)
        true('\n  blocks/s' in out and '\n  Mgas/s' in out and 'has no' not in out, out)
        run('-b', 1000, '-e', 1019, '--runs', 2, '--profile', '--json', place.file('out.json'),
            '--', evm, '--datadir', data)
        result = place.read_json()
        same([r['command'] for r in result['runs']], list('ABBA'), 'order')
        for key in ('wall_s', 'cpu_s', 'blocks_per_s', 'mgas_per_s'):
            true(key in result['ratios'], 'no ratio of ' + key)
        error = run('-b', 1000, '-e', 1099, '--', evm, '--datadir', data, code=1).stderr
        true('run 1 failed with exit code 1' in error and 'asked for' in error, error)


def main():
    failed = 0
    for name, f in CHECKS:
        if len(sys.argv) > 1 and sys.argv[1] not in name:
            continue
        try:
            skipped = f()
            print('skip - %s: %s' % (name, skipped) if skipped else 'ok - ' + name, flush=True)
        except Exception as e:      # a check must not take the others down with it
            failed += 1
            why = ' '.join(('%s: %s' % (type(e).__name__, e)).split())
            why = why.encode('ascii', 'backslashreplace').decode()[:600]
            print('not ok - %s: %s' % (name, why), flush=True)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
