#!/usr/bin/env python3
"""Checks tools/wpa2folded.py against a model, and tools/profile_with_wpt.ps1 as text.

    python3 tests/tools/test_wpa.py [part of a check's name]

Prints one line per check: `ok - name`, `not ok - name: why` or `# not checked here - name: why`. Exit code 1 if
any failed. Python 3.8 or later, standard library only. All input is made here, in the forms that
these public sources show; nothing here comes from a Windows of ours:

- wpaexporter's CSV, one row a sample, columns Process, Thread ID, Stack with `/` between frames,
  `n/a` where there is no stack, names with commas not always quoted:
  https://github.com/google/UIforETW/blob/main/bin/xperf_to_collapsedstacks.py
  https://github.com/google/UIforETW/blob/main/bin/ExportCPUUsageSampled.wpaProfile
- wpaexporter exports a table as WPA shows it, with any delimiter:
  https://learn.microsoft.com/windows-hardware/test/wpt/exporter
  https://randomascii.wordpress.com/2013/11/04/exporting-arbitrary-data-from-xperf-etl-files/
- an expanded table as WPA copies it: `Line #, Process, Stack, Count, Weight (in view) (ms), ...`,
  `, ` between fields and no quotes, a tree of `|- `, chains without a branch of their own, decimal
  commas of a German Windows (`8.526,518000`):
  https://github.com/winsiderss/systeminformer/issues/641
  https://superuser.com/questions/527401/troubleshoot-high-cpu-usage-by-the-system-process
- thread columns, and rows that carry a thread and [Root] at once; `[Idle]`, counts like 29,815:
  https://devblogs.microsoft.com/oldnewthing/20181112-00/?p=100185
"""
import contextlib
import importlib.util
import io
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parent.parent / 'tools'
TOOL = TOOLS / 'wpa2folded.py'
SCRIPT = TOOLS / 'profile_with_wpt.ps1'
CHECKS = []


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


def load(path):
    """The tool as a module: a process for each of some hundred runs would take minutes."""
    spec = importlib.util.spec_from_file_location(path.stem, str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sys.dont_write_bytecode = True
MODULE = load(TOOL)


class Run:
    """The converter on files of the given contents (bytes or text), in a folder of its own."""

    def __init__(self, *files, options=(), out=None):
        here = os.getcwd()
        with tempfile.TemporaryDirectory() as folder:
            names = []
            for i, data in enumerate(files):
                names.append('%d.csv' % i)
                Path(folder, names[-1]).write_bytes(
                    data if isinstance(data, bytes) else data.encode('utf-8'))
            target = Path(folder, 'out.folded')
            if out is not None:
                target.write_text(out)
            err = io.StringIO()
            os.chdir(folder)
            try:
                with contextlib.redirect_stderr(err):
                    sys.argv[1:], saved = names + list(options) + ['-o', 'out.folded'], sys.argv[1:]
                    try:
                        self.code = MODULE.main()
                    except SystemExit as e:         # argparse
                        self.code = e.code
            finally:
                sys.argv[1:] = saved
                os.chdir(here)
            self.err = err.getvalue()
            self.text = target.read_text(encoding='utf-8') if target.exists() else None
            self.left = sorted(os.listdir(folder))

    @property
    def stacks(self):
        return unfolded(self.text)


def unfolded(text):
    stacks = {}
    for line in (text or '').splitlines():
        stack, _, n = line.rpartition(' ')
        true(stack not in stacks, 'twice in the output: %r' % stack)
        stacks[stack] = int(n)
    return stacks


def convert(*files, **more):
    r = Run(*files, **more)
    true(r.code == 0, 'exit code %d: %s' % (r.code, r.err))
    return r


def flat(rows, head='Process,Thread ID,Stack,Count,Weight (in view) (ms)'):
    return '\n'.join([head] + list(rows)) + '\n'


# The model: samples, and the tables that WPA would make of them.

MODULES = ['ntdll.dll', 'evm.exe', 'ntoskrnl.exe', 'kernel32.dll', 'win32kfull.sys']
FUNCTIONS = ['RtlUserThreadStart', 'main', 'operator/', 'operator/=', 'step<int,8>', 'f(a, b)',
             'core::ops::{{closure}}', '<lambda_1>::operator()', '`2\'::run', 'a b',
             'github.com/x/vm.(*EVM).Call', 'std::_Invoke<std::tuple<A,B>,0>']


def samples(seed, n=60):
    """[(process, thread id, thread name, frames, weight in 100 ns)]"""
    r = random.Random(seed)
    threads = [('evm.exe (1234)', 5320, 'worker 0'), ('evm.exe (1234)', 12008, 'worker 1'),
               ('evm.exe (77)', 90, ''), ('System (4)', 8, ''), ('my app.exe (31000)', 31004, 'ui')]
    names = ['%s!%s' % (r.choice(MODULES), f) for f in FUNCTIONS]
    out = []
    for _ in range(n):
        depth = r.choice([0, 1, 2, 3, 3, 4, 5, 8])
        frames = ['[Root]'] + [names[min(int(r.expovariate(0.4)), len(names) - 1)]
                               for _ in range(depth)]
        out.append(r.choice(threads) + (tuple(frames) if depth else ('n/a',),
                                        r.choice([10000, 9997, 12345, 1, 99999])))
    return out


def expected(data, threads='both', unit='us', modules=True):
    exact = {}
    for process, tid, name, frames, weight in data:
        thread = {'both': '%s (%d)' % (name, tid) if name else 'thread %d' % tid,
                  'id': 'thread %d' % tid, 'none': None}[threads]
        parts = [process] + ([thread] if thread else [])
        for f in frames:
            if f == 'n/a':
                parts.append('[no stack]')
            elif f != '[Root]':
                module, _, function = f.partition('!')
                parts.append((module.rsplit('.', 1)[0] + '!' if modules else '') + function)
        key = ';'.join(parts)
        exact[key] = exact.get(key, 0) + (1 if unit == 'samples' else Fraction(weight, 10))
    return exact


def close_to(got, want, what):
    """Each within 1, the sum exact (rounded half up)."""
    same(set(got) | {k for k in want if want[k] < 1}, set(want), what + ': the stacks')
    for k, v in want.items():
        true(abs(got.get(k, 0) - v) < 1, '%s: %s is %s, not %s' % (what, k, got.get(k, 0), v))
    same(sum(got.values()), int(sum(want.values()) + Fraction(1, 2)), what + ': the sum')


def number(value, decimals, decimal, thousands):
    """As .NET's N format writes it. value: a whole number of the last decimal."""
    whole, rest = divmod(value, 10 ** decimals)
    text = '{:,}'.format(whole).replace(',', thousands)
    return text + (decimal + '%0*d' % (decimals, rest) if decimals else '')


def quoted(cell, delimiter):
    if delimiter in cell or '"' in cell or '\n' in cell:
        return '"' + cell.replace('"', '""') + '"'
    return cell


def as_flat(data, delimiter=',', decimal='.', thousands=',', joint='/', grouped=False):
    """One row a sample, or a row for each different stack."""
    if grouped:
        sums = {}
        for process, tid, name, frames, weight in data:
            s = sums.setdefault((process, tid, name, frames), [0, 0])
            s[0] += 1
            s[1] += weight
        rows = [k + tuple(v) for k, v in sums.items()]
    else:
        rows = [d[:4] + (1, d[4]) for d in data]
    lines = [['Process', 'Thread ID', 'Thread Name', 'Stack', 'Count', 'Weight (in view) (ms)',
              '% Weight']]
    for process, tid, name, frames, count, weight in rows:
        lines.append([process, number(tid, 0, decimal, thousands if grouped else ''), name,
                      joint.join(frames),
                      number(count, 0, decimal, thousands),
                      number(weight * 100, 6, decimal, thousands), number(413, 2, decimal, '')])
    return ''.join(delimiter.join(quoted(c, delimiter) for c in line) + '\r\n' for line in lines)


def as_tree(data, delimiter=', ', decimal=',', thousands='.', quote=False):
    """The expanded table: groups, then a tree whose chains have no branches of their own."""
    lines = ['Line #, Process, Thread ID, Stack, Count, Weight (in view) (ms), TimeStamp (s), '
             '% Weight'.replace(', ', delimiter)]

    def row(process, tid, stack, inside):
        cells = [str(len(lines)), process, tid, stack, number(len(inside), 0, decimal, thousands),
                 number(sum(d[4] for d in inside) * 100, 6, decimal, thousands), '',
                 number(413, 2, decimal, '')]
        lines.append(delimiter.join(quoted(c, delimiter) if quote else c for c in cells))

    def below(inside, depth, level):
        kids = {}
        for d in inside:
            if len(d[3]) > depth:
                kids.setdefault(d[3][depth], []).append(d)
        ends = [d for d in inside if len(d[3]) == depth]
        alone = len(kids) == 1 and not ends
        if ends and kids:
            row('', '', '  ' + '|    ' * level + '|- ' + ends[0][3][-1] + '<itself>', ends)
        for name, part in kids.items():
            bars = '|    ' * level + ('' if alone else '|- ')
            row('', '', '  ' + bars + name, part)
            below(part, depth + 1, level if alone else level + 1)

    def groups(inside, key):
        out = {}
        for d in inside:
            out.setdefault(key(d), []).append(d)
        return out.items()

    for process, part in groups(data, lambda d: d[0]):
        row(process, '', '', part)
        for tid, of_thread in groups(part, lambda d: d[1]):
            tops = list(groups(of_thread, lambda d: d[3][0]))
            if len(tops) > 1:
                row('', str(tid), '', of_thread)
            for top, of_top in tops:        # a single one shares its thread's row
                row('', str(tid) if len(tops) == 1 else '', top, of_top)
                below(of_top, 1, 0)
    return '\r\n'.join(lines) + '\r\n'


@check('one row a sample: every stack, thread and weight as in the model')
def _():
    for seed in range(4):
        data = samples(seed)
        for grouped in (False, True):
            text = as_flat(data, grouped=grouped)
            close_to(convert(text).stacks, expected(data), 'weights, %d' % seed)
            same(convert(text, options=['--count']).stacks, expected(data, unit='samples'),
                 'counts, %d' % seed)


@check('the expanded table: every stack as in the model, chains, <itself>, shared rows included')
def _():
    for seed in range(6):
        data = samples(100 + seed, 5 + 30 * seed)
        text = as_tree(data)
        true('<itself>' in text or seed == 0, 'the example is too simple')
        close_to(convert(text).stacks, expected(data, threads='id'), 'weights, %d' % seed)
        same(convert(text, options=['--count']).stacks,
             expected(data, threads='id', unit='samples'), 'counts, %d' % seed)


LOCALES = [('.', ','), (',', '.'), (',', '\u00a0'), (',', '\u202f'), ('.', '\u2019'), ('.', "'"),
           (',', ' '), ('.', '')]


@check('numbers of every locale and every delimiter give the same output')
def _():
    data = [d[:4] + (d[4] * 1237,) for d in samples(7, 40)]
    want = convert(as_flat(data, grouped=True)).text
    for decimal, thousands in LOCALES:
        for delimiter in (',', ';', '\t'):
            text = as_flat(data, delimiter, decimal, thousands, grouped=True)
            same(convert(text).text, want, 'flat %r %r %r' % (decimal, thousands, delimiter))
    want = convert(as_tree(data)).text
    for decimal, thousands in LOCALES:
        for delimiter, quote in ((', ', False), (', ', True), (',', True), (';', True),
                                 ('\t', False)):
            text = as_tree(data, delimiter, decimal, thousands, quote)
            same(convert(text).text, want, 'tree %r %r %r' % (decimal, thousands, delimiter))


@check('a number with one sign and three digits is read as the other numbers are')
def _():
    row = 'p (1)\t1\t[Root]/a!b\t1\t%s\t%s'
    head = 'Process\tThread ID\tStack\tCount\tWeight (in view) (ms)\t% Weight'
    for percent, options, want in (('5.25', [], 1234), ('5,25', [], 1234000), ('7', [], 1234),
                                   ('7', ['--decimal', ','], 1234000)):
        same(convert(flat([row % ('1.234', percent)], head), options=options).stacks,
             {'p (1);thread 1;a!b': want}, 'with %s %s' % (percent, options))
    head = head.replace('\t% Weight', '').replace('\t', ';')
    same(convert(flat(['p (1);1;[Root]/a!b;1;1,234'], head)).stacks, {'p (1);thread 1;a!b': 1234},
         'a file with ; has decimal commas')
    for text, want in (('12,34,567.5', 1234567500), ('0.000001', None), ('.5', 500)):
        r = Run(flat(['p;1;[Root]/a!b;1;%s' % text], head), options=['--decimal', '.'])
        same(r.stacks, {'p;thread 1;a!b': want} if want else {}, text)


@check('units of the weight column, and of a cell')
def _():
    for unit, cell, want in (('(ms)', '2.5', 2500), ('(s)', '2.5', 2500000),
                             ('(us)', '2500.0', 2500), ('(\u00b5s)', '2500.0', 2500),
                             ('(\u03bcs)', '2500.0', 2500), ('(ns)', '2500000.0', 2500),
                             ('', '2.5', 2500), ('', '2.5 s', 2500000)):
        text = flat(['p,1,[Root]/a!b,1,' + cell], 'Process,Thread ID,Stack,Count,Weight (in view) '
                    + unit)
        r = convert(text)
        same(r.stacks, {'p;thread 1;a!b': want}, unit + cell)
        same('no unit' in r.err, not unit, 'said that the unit was assumed')


@check('UTF-8 and UTF-16, with and without a mark, CRLF or LF')
def _():
    text = as_flat(samples(8, 20) + [('\u65e5\u672c.exe (5)', 1, '\u00e9',
                                      ('[Root]', 'm.dll!\u00fc'), 10000)])
    want = convert(text).text
    true('\u65e5\u672c.exe (5);\u00e9 (1);m!\u00fc 1000' in want, 'names are not as they were')
    for end in ('\r\n', '\n'):
        t = text.replace('\r\n', end)
        for data in (t.encode('utf-8-sig'), t.encode('utf-16'), t.encode('utf-16-le'),
                     t.encode('utf-16-be'), b'\xff\xfe' + t.encode('utf-16-le'),
                     b'\xfe\xff' + t.encode('utf-16-be')):
            same(convert(data).text, want, repr(data[:6]))
    same(Run(flat(['p,1,[Root]/a!\xe9,1,1.0']).encode('latin-1')).stacks,
         {'p;thread 1;a!\\xe9': 1000}, 'bytes that are no UTF-8')


@check('the separator of frames is found, also where names contain it')
def _():
    def frames(stack, *options):
        text = 'Stack;Count\n"%s";1\n' % stack.replace('"', '""')
        return list(convert(text, options=['--delimiter', ';'] + list(options)).stacks)[0]
    for joint in ('/', '\n', ';'):
        names = ['[Root]', 'a.dll!operator/', 'b.exe!x', 'c!operator/=', 'd!go/x/y.(*T).f', '?!?',
                 'e!<PDB not found>', '[Unknown]', '0x7ffa0b', 'f!operator/']
        if joint == ';':
            names = [n.replace('/', '.') for n in names]
        want = ';'.join(n.replace('.dll', '').replace('.exe', '') for n in names[1:])
        same(frames(joint.join(names)), want, 'between them %r' % joint)
    same(frames('[Root]/a!b -> c/d!e', '--separator', ' -> '), '[Root]/a!b;c/d!e', 'forced')
    same(frames('[Root]/a!b/c', '--separator', '/'), 'a!b;c', 'forced, no frame')
    same(frames('a!b'), 'a!b', 'one frame')
    same(frames('a!b\nc!d', '--separator', '\\n'), 'a!b;c!d', 'newline in words')


@check('quotes: delimiters, quotes and newlines in fields; an open one costs its own row only')
def _():
    text = flat(['"a, ""b"".exe (1)",1,"[Root]/a!f<int,8>/b!g\n",2,1.0',
                 '"open,1,[Root]/a!x,1,1.0',
                 'p (1),1,[Root]/a!operator"" _x,1,1.0', 'p (1),2,[Root]/a!y,1,1.0'])
    r = convert(text)
    same(r.stacks, {'a, "b".exe (1);thread 1;a!f<int,8>;b!g': 1000,
                    'p (1);thread 1;a!operator"" _x': 1000, 'p (1);thread 2;a!y': 1000}, 'rows')
    true('0.csv:4: a quote is not closed: "' in r.err and 'Skipped 1 bad row.' in r.err, r.err)
    good = ['p,1,[Root]/a!f,1,1.0']
    many = flat(good * 400 + ['"open,1,x,1,1'] + good * 2000)
    same(convert(many).stacks, {'p;thread 1;a!f': 2400000}, 'rows after an open quote')


@check('delimiters in names without quotes stay in names; of a number cut in two none is taken')
def _():
    same(convert(flat(['p (1),1,[Root]/a!f<int,8>/b!g(x, y)'], 'Process,Thread ID,Stack')).stacks,
         {'p (1);thread 1;a!f<int,8>;b!g(x, y)': 1}, 'the last column')
    same(convert(flat(['p (1),1,[Root]/a!f<int,8>,3,2.5', 'p (1),1,[Root]/a!g,3,2.5,'])).stacks,
         {'p (1);thread 1;a!f<int,8>': 2500, 'p (1);thread 1;a!g': 2500}, 'in the middle')
    r = Run(flat(['p,1,[Root]/a!f,8,572,1.5', 'p,1,[Root]/a!f<x,y>,8,572,1.5',
                  'p,1,[Root]/a!h,1,2.0']))
    same(r.stacks, {'p;thread 1;a!h': 2000}, 'cut numbers')
    same(r.err.count('more fields than columns'), 2, r.err)


@check('the header is found behind other lines; what is not there, is said')
def _():
    text = 'Exported by hand\n\n"Table","CPU"\n' + as_flat(samples(9, 5))
    true(convert(text).stacks, 'nothing found')
    for text, words in (('', 'no header'), ('a,b,c\n1,2,3\n', 'no header'),
                        (flat(['p,5'], 'Process,Count'), 'no header'),
                        ('Process,Stack,Count\n', 'No row has a stack'),
                        (flat(['p,1,,5,1.0', 'q,1,,5,1.0']), 'No row has a stack')):
        r = Run(text)
        same((r.code, r.text), (2, None), words)
        true(words in r.err, r.err)
    twice = as_flat(samples(9, 5))
    same(convert(twice + twice).text, convert(twice, twice).text, 'two exports in one file')
    same(convert('Stack\n[Root]/a!b\n[Root]/a!b\n').stacks, {'a!b': 2}, 'only stacks')
    for a in ('Count,Stack,Process,Thread ID\n2,[Root]/a!b,p,1\n3,[Root]/a!b,p,1\n',
              'Line #,TimeStamp (s),CPU,Process,Thread ID,Stack,Count\n1,0.5,3,p,1,[Root]/a!b,2\n'
              '2,0.6,,p,1,[Root]/a!b,3\n',
              'Thread ID,Process,Stack,Count\n1,p,[Root]/a!b,2\n1,p,[Root]/a!b,3\n',
              'DPC/ISR,Process Name,Thread ID,Stack,Count (Sum)\nDPC,p,1,[Root]/a!b,2\n'
              ',p,1,[Root]/a!b,3\n'):
        same(convert(a).stacks, {'p;thread 1;a!b': 5}, a)


@check('groups that are not Process, Thread or Stack, and threads below stacks')
def _():
    text = ('Line #, DPC/ISR, Process, Stack, Thread ID, Count\n'
            '1, None, , , , 10\n2, , p (1), , , 10\n3, , , [Root], , 10\n'
            '4, , ,   |- a!b, , 7\n5, , , , 11, 4\n6, , , , 12, 3\n7, , ,   |- a!c, , 3\n'
            '8, DPC, p (1), n/a, , 2\n')
    r = convert(text)
    same(r.stacks, {'p (1);thread 11;a!b': 4, 'p (1);thread 12;a!b': 3, 'p (1);a!c': 3,
                    'p (1);[no stack]': 2}, 'stacks')
    same(sum(r.stacks.values()), 12, 'the outermost rows')


@check('rows that were not expanded, or add up to more than their parent, are said; the sum stays')
def _():
    text = ('Line #, Process, Stack, Count\n1, p (1), , 100\n2, , [Root], 95\n3, ,   |- a!b, 60\n'
            '4, ,   |- a!c, 30\n5, q (2), , 7\n')
    r = convert(text)
    same(r.stacks, {'p (1);a!b': 60, 'p (1);a!c': 30, 'p (1);[not expanded]': 10,
                    'q (2);[not expanded]': 7}, 'stacks')
    true('17 samples below rows that were not expanded' in r.err, r.err)
    r = convert(text.replace('a!c, 30', 'a!c, 36'))
    same(sum(r.stacks.values()), 108, 'the sum with too much below')
    true('1 row whose parts are more than the whole, by 1 sample' in r.err, r.err)


@check('weights below 1 us: sums are exact, stacks right to 1 us, and order does not matter')
def _():
    r = random.Random(11)
    rows = ['p,%d,[Root]/a!f%d,1,0.%06d' % (r.randrange(3), r.randrange(9), r.randrange(3000))
            for _ in range(500)]
    exact = {}
    for row in rows:
        _, tid, stack, _, weight = row.split(',')
        key = 'p;thread %s;%s' % (tid, stack[7:])
        exact[key] = exact.get(key, 0) + Fraction(weight) * 1000
    got = convert(flat(rows))
    close_to(got.stacks, exact, 'rows')
    r.shuffle(rows)
    same(convert(flat(rows)).text, got.text, 'in another order')
    same(Run(flat(['p,1,[Root]/a!b,1,0.000400'])).code, 2, 'less than half a microsecond in all')
    same(convert(flat(['p,1,[Root]/a!b,1,0.000500'])).stacks, {'p;thread 1;a!b': 1}, 'half of one')
    # In binary fractions these do not add up.
    same(convert(flat(['p,1,[Root]/a!b,1,0.1'] * 30000)).stacks, {'p;thread 1;a!b': 3000000}, '0.1')


@check('--process and --thread: by name or id; what they leave out is said, and nothing is lost')
def _():
    data = samples(12, 80)
    text, total = as_flat(data), int(sum(Fraction(d[4], 10) for d in data) + Fraction(1, 2))

    def left(r):
        return sum(int(n.replace(',', '')) for n in re.findall(
            r'([0-9,]+) us of (?:other|the Idle)', r.err))
    for options, keep in ((['--process', '^EVM'], lambda d: d[0].startswith('evm')),
                          (['--process', r'\(1234\)'], lambda d: '1234' in d[0]),
                          (['--thread', '^5320$'], lambda d: d[1] == 5320),
                          (['--thread', 'worker'], lambda d: 'worker' in d[2]),
                          (['--thread', '^ui$', '--process', 'app'], lambda d: d[2] == 'ui')):
        r = convert(text, options=options)
        kept = [d for d in data if keep(d)]
        want = expected(kept)
        if len({d[0] for d in kept}) == 1 and '--process' in options:
            want = {k.split(';', 1)[1]: v for k, v in want.items()}
        close_to(r.stacks, want, options[1])
        true(abs(sum(r.stacks.values()) + left(r) - total) <= 1, 'kept and left out: %s' % r.err)
        tree = convert(as_tree(data), options=[o for o in options if 'worker' not in o]) \
            if 'worker' not in options[1] and 'ui' not in options[1] else None
        true(tree is None or sum(tree.stacks.values()) == sum(r.stacks.values()), 'in a tree')
    r = Run(text, options=['--process', 'nobody'])
    same((r.code, r.text), (2, None), 'nobody')
    true('Left out' in r.err and 'Nothing is left' in r.err, r.err)
    for option, name in (('--process', 'Process'), ('--thread', 'Thread')):
        r = Run('Stack,Count\na!b,1\n', options=[option, 'x'])
        true(r.code == 2 and 'needs a column "%s' % name in r.err, r.err)


@check('a process alone is left out of the stacks only if --process was given')
def _():
    text = flat(['evm.exe (1),1,[Root]/a!b,1,1.0'])
    same(convert(text).stacks, {'evm.exe (1);thread 1;a!b': 1000}, 'without')
    same(convert(text, options=['--process', 'evm']).stacks, {'thread 1;a!b': 1000}, 'with')
    two = text + 'evm.exe (2),1,[Root]/a!b,1,1.0\n'
    same(len(convert(two, options=['--process', 'evm']).stacks), 2, 'two of that name')


@check('--modules, --root-frame and --idle')
def _():
    text = flat(['p,1,[Root]/ntdll.dll!NtX/K.SYS!f/noext!g/x.y.exe!<PDB not found>/?!?,1,1.0',
                 'Idle (0),0,[Idle],1,2.0', 'Idle (0),0,n/a,1,3.0', 'q,1,[Root],1,4.0'])
    r = convert(text)
    same(r.stacks, {'p;thread 1;ntdll!NtX;K!f;noext!g;x.y!<PDB not found>;?!?': 1000,
                    'q;thread 1;[not expanded]': 4000}, 'as it is')
    true('Left out: 5,000 us of the Idle process' in r.err, r.err)
    r = convert(text, options=['--modules', 'off', '--root-frame', '--idle'])
    same(r.stacks, {'p;thread 1;[Root];NtX;f;g;x.y!<PDB not found>;?!?': 1000,
                    'Idle (0);thread 0;[Idle]': 2000, 'Idle (0);thread 0;[no stack]': 3000,
                    'q;thread 1;[not expanded]': 4000}, 'otherwise')
    data = samples(13)
    close_to(convert(as_flat(data), options=['--modules', 'off']).stacks,
             expected(data, modules=False), 'functions alone')


@check('bad rows are counted, the first five quoted with file and line; good ones still count')
def _():
    good = 'p,1,[Root]/a!b,1,1.0'
    bad = ['p,1,[Root]/a!b,1,x', 'p,1,[Root]/a!b,1,-1.0', 'p,1,[Root]/a!b,1,', 'rubbish',
           ',,,1,1.0', 'p,1,[Root]/a!b,1,1e3', 'p,1,[Root]/a!b,1,NaN']
    rows = [line for b in bad for line in (b, good)]
    r = convert(flat(rows), flat(['p,1,[Root]/a!b,1,1.0', 'p,1,[Root]/a!b,1,']))
    same(r.stacks, {'p;thread 1;a!b': 8000}, 'good rows')
    for i, b in enumerate(bad[:5]):
        true('0.csv:%d: ' % (2 + 2 * i) in r.err and '"%s"' % b in r.err, 'not quoted: ' + b)
    true('0.csv:12:' not in r.err and '3 more rows like these.' in r.err
         and 'Skipped 8 bad rows.' in r.err, r.err)
    r = Run(flat(bad))
    same((r.code, r.text), (2, None), 'only bad rows')
    r = convert(flat(['p,1,[Root]/a!b,1.5,1.0', 'p,1,[Root]/a!b,"1,000",1.0']), options=['--count'])
    same(r.stacks, {'p;thread 1;a!b': 1000}, 'half a sample')


@check('nothing usable: exit code 2 and no output; an output that was there stays as it was')
def _():
    for text in ('', 'x\n', flat([]), flat(['p,1,[Root]/a!b,1,0.0']), flat(['p,1,,1,1.0']),
                 flat(['Idle (0),0,[Idle],1,1.0'])):
        same((Run(text).code, Run(text).left), (2, ['0.csv']), text)
        r = Run(text, out='old 1\n')
        same((r.code, r.text, r.left), (2, 'old 1\n', ['0.csv', 'out.folded']), text)
    same(convert(as_flat(samples(1)), out='old 1\n').left, ['0.csv', 'out.folded'], 'leftovers')


@check('--weight and --count: what is missing is said; files with weights and without do not mix')
def _():
    counts = 'Process,Thread ID,Stack,Count\np,1,[Root]/a!b,2\n'
    weights = 'Process,Thread ID,Stack,Weight (in view) (ms)\np,1,[Root]/a!b,2.5\n'
    neither = 'Process,Thread ID,Stack\np,1,[Root]/a!b\n'
    same(convert(counts).stacks, {'p;thread 1;a!b': 2}, 'counts')
    same(convert(weights, options=['--weight']).stacks, {'p;thread 1;a!b': 2500}, 'weights')
    same(convert(neither, counts, options=['--count']).stacks, {'p;thread 1;a!b': 3}, 'samples')
    for files, options in (([counts], ['--weight']), ([weights], ['--count']),
                           ([neither], ['--weight']), ([weights, counts], []),
                           ([counts, weights], [])):
        r = Run(*files, options=options)
        same((r.code, r.text), (2, None), '%r %r' % (files, options))
    r = Run('Line #, Process, Stack\n1, p, [Root]\n2, ,   |- a!b\n')
    true('its column "Count" is missing' in r.err, 'a tree without numbers: %s' % r.err)


@check('what would break a folded line is replaced; comments are not made')
def _():
    text = flat(['"# p;q",1,"[Root]/a!b;c \x01 d/e!f",1,1.0', '"x\ny",2,[Root]/a!b,1,1.0'])
    r = convert(text)
    same(r.stacks, {'_# p:q;thread 1;a!b:c   d;e!f': 1000, 'x y;thread 2;a!b': 1000}, 'lines')
    p = subprocess.run([sys.executable, str(TOOLS / 'flamegraph.py'), '--top', '9'],
                       input=r.text.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    true(p.returncode == 0 and not p.stderr and b'2,000' in p.stdout, p.stderr.decode()[-200:])


@check('standard input and output; an input is not overwritten; what cannot be written is said')
def _():
    text = flat(['p,1,[Root]/a!b,1,1.0'])
    p = subprocess.run([sys.executable, str(TOOL)], input=text.encode(), stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE)
    same((p.returncode, p.stdout), (0, b'p;thread 1;a!b 1000\n'), 'a pipe')
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, 'in.csv')
        source.write_text(text)
        for target, code in ((source, 2), (Path(folder, 'no', 'out'), 1), (Path(folder), 1)):
            p = subprocess.run([sys.executable, str(TOOL), str(source), '-o', str(target)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            same(p.returncode, code, str(target))
            true(b'Traceback' not in p.stderr, p.stderr.decode())
        same((source.read_text(), os.listdir(folder)), (text, ['in.csv']), 'afterwards')
        p = subprocess.run([sys.executable, str(TOOL), str(Path(folder, 'none.csv'))],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        true(p.returncode == 2 and b'Cannot read' in p.stderr, p.stderr.decode())
    for bad in (['--process', '('], ['--separator', ''], ['--modules', 'maybe'], ['--what']):
        same(Run(text, options=bad).code, 2, str(bad))
    for n in (1, 20000):
        p = subprocess.run('"%s" "%s" | true' % (sys.executable, TOOL), shell=True, input=(
            flat('p,1,[Root]/a!f%d,1,1.0' % i for i in range(n))).encode(), stderr=subprocess.PIPE)
        true(b'Traceback' not in p.stderr and b'Exception' not in p.stderr, p.stderr[-200:])


@check('random and damaged input: no traceback, and exit code 0 or 2')
def _():
    r = random.Random(14)
    seeds = [as_flat(samples(15, 12)).encode(), as_tree(samples(16, 12)).encode(),
             as_flat(samples(17, 9), ';', ',', '.', '\n').encode('utf-16')]
    bits = [b'"', b'\n', b'|- ', b'  |    ', b'/', b',', b', ', b';', b'\0', b'\xff', b'[Root]',
            b'!', b'1,5', b'Stack', b'<itself>', b'9' * 60, b'\xf0\x9f\x98\x80', b'n/a', b'\t']
    codes = set()
    for i in range(150):
        if i % 3 == 0:
            data = bytes(r.randrange(256) for _ in range(r.randrange(400)))
            data = r.choice([b'', b'Stack,Count\n', b'Process, Stack, Count\n', b'\xff\xfe']) + data
        else:
            data = bytearray(r.choice(seeds))
            for _ in range(r.randrange(1, 30)):
                at = r.randrange(len(data))
                data[at:at + r.randrange(4)] = r.choice(bits)
            data = bytes(data)
        x = Run(data, options=r.choice([[], ['--count'], ['--separator', '/'],
                                        ['--modules', 'off']]))
        codes.add(x.code)
        true(x.code in (0, 2), 'exit code %d: %s' % (x.code, x.err[-300:]))
        for line in (x.text or '').split('\n')[:-1]:
            true(re.fullmatch(r'\S.* [1-9][0-9]*', line), 'a bad line: %r' % line)
    same(codes, {0, 2}, 'the input was too easy or too hard')


@check('hostile sizes: a long line, a deep tree, many open quotes take no more than their length')
def _():
    deep = ['Stack, Count', '[Root], 1'] + ['  %s|- a!f%d, 1' % ('|    ' * i, i)
                                            for i in range(400)]
    same(max(len(k.split(';')) for k in convert('\n'.join(deep)).stacks), 400, 'depth')
    long = '/'.join('a!f%d' % i for i in range(20000))
    same(len(list(convert('Stack\n' + long + '\n').stacks)[0].split(';')), 20000, 'a long stack')
    Run('Stack\n' + 'a/' * 100000 + '\n')
    Run('Stack\n"' + '""' * 100000 + '\n')
    Run(flat(['"' for _ in range(3000)]))
    Run('Stack,Count\n' + '|' * 50000 + ',1\n')


@check('flamegraph.py draws the result, with the same total')
def _():
    with tempfile.TemporaryDirectory() as folder:
        csv, out, svg = (str(Path(folder, n)) for n in ('cpu.csv', 'evm.folded', 'evm.svg'))
        Path(csv).write_text(as_tree(samples(18, 200)), encoding='utf-8')
        for command in ([str(TOOL), csv, '--process', r'^evm\.exe', '-o', out],
                        [str(TOOLS / 'flamegraph.py'), out, '--countname', 'us', '-o', svg]):
            p = subprocess.run([sys.executable] + command, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
            same(p.returncode, 0, p.stderr.decode()[-200:])
        same(p.stderr, b'', 'flamegraph.py complains')
        total = sum(unfolded(Path(out).read_text(encoding='utf-8')).values())
        same(int(ET.parse(svg).getroot().get('data-total')), total, 'total')


@check('the same output under every other Python 3.8+ found here')
def _():
    text, tried = as_tree(samples(19)), 0
    want = convert(text).text.encode()
    for minor in range(8, 20):
        python = shutil.which('python3.%d' % minor)
        if not python or os.path.realpath(python) == os.path.realpath(sys.executable) or \
                subprocess.run([python, '-c', ''], stderr=subprocess.DEVNULL).returncode:
            continue
        tried += 1
        p = subprocess.run([python, str(TOOL)], input=text.encode(), stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
        same(p.stdout, want, python)
    return None if tried else 'no other Python here'


# The PowerShell script, as text: there is no Windows here. What follows knows as much of the
# language as that script uses, and is itself checked on damaged copies.

class Tokens:
    """Splits PowerShell into tokens: (kind, text, line). Kinds: comment, string, word, sign."""

    def __init__(self, text):
        self.text, self.found, self.errors = text, [], []
        self.read(0, len(text), 1)

    def read(self, at, end, line):
        pairs, opened = {')': '(', '}': '{', ']': '['}, []
        while at < end:
            rest = self.text[at:end]
            m = re.match(r'\s+|<#.*?#>|#[^\n]*', rest, re.S)
            kind = None
            if m:
                kind = 'comment' if '#' in m.group() else None
            elif rest.startswith('<#'):
                self.errors.append('line %d: a comment without an end' % line)
                return
            elif re.match(r'@["\']', rest):
                self.errors.append('line %d: a here-string, which this does not know' % line)
                return
            elif rest[0] == "'":
                m, kind = re.match(r"'(?:[^']|'')*'", rest), 'string'
            elif rest[0] == '"':
                m, kind = self.double(rest), 'string'
            else:
                m = re.match(r'\$\{[^}]*\}|\$[\w:]+|[A-Za-z_][\w-]*|-[A-Za-z]\w*|\d[\w.]*|`.|'
                             r'\+=|-=|::|[^\w\s]', rest, re.S)
                kind = 'word' if re.match(r'[\w$-]', m.group()) and len(m.group()) > 1 \
                    or m.group().isalnum() else 'sign'
            if not m:
                self.errors.append('line %d: a string without an end' % line)
                return
            if kind == 'sign':
                if m.group() in '({[':
                    opened.append((m.group(), line))
                elif m.group() in pairs:
                    if not opened or opened.pop()[0] != pairs[m.group()]:
                        self.errors.append('line %d: %s closes nothing' % (line, m.group()))
                        return
            if kind:
                self.found.append((kind, m.group(), line))
            line += m.group().count('\n')
            at += m.end()
        self.errors += ['line %d: %s is not closed' % (n, sign) for sign, n in opened]

    @staticmethod
    def double(text):
        """A double-quoted string with $( ) in it, which may hold strings of either kind."""
        at = 1
        while at < len(text):
            if text[at] == '`':
                at += 2
            elif text.startswith('""', at):
                at += 2
            elif text.startswith('$(', at):
                depth, at = 1, at + 2
                while at < len(text) and depth:
                    m = re.compile(r"'[^']*'|.", re.S).match(text, at)
                    depth += (m.group() == '(') - (m.group() == ')')
                    at = m.end()
            elif text[at] == '"':
                return re.compile('.{%d}' % (at + 1), re.S).match(text)
            else:
                at += 1
        return None


CMDLETS = {'Get-Command', 'Get-Date', 'Get-Location', 'Join-Path', 'New-Object', 'Set-StrictMode',
           'Split-Path', 'Write-Host', 'ForEach-Object'}
KEYWORDS = {'param', 'function', 'if', 'else', 'elseif', 'foreach', 'in', 'while', 'try', 'catch',
            'finally', 'throw', 'return', 'continue', 'exit'}
# Of wpr and wpaexporter, as documented; -instancename as Microsoft's own scripts use it:
# https://learn.microsoft.com/windows-hardware/test/wpt/wpr-command-line-options
# https://github.com/microsoft/MSO-Scripts/blob/main/src/INCLUDE.ps1
WPR_OPTIONS = {'-start', '-filemode', '-recordtempto', '-instancename', '-stop', '-cancel',
               '-status', '-i', '-profile', '-outputfolder', '-symbols'}
EVM_OPTIONS = {'-b', '-e', '--datadir', '--threads'}


def complaints(text):
    """What is wrong with the script."""
    out = []
    if not text.isascii():
        out.append('not ASCII: Windows PowerShell 5.1 reads files in the code page of the machine')
    out += ['line %d has over 100 columns' % n for n, line in enumerate(text.split('\n'), 1)
            if len(line) > 100]
    tokens = Tokens(text)
    out += tokens.errors
    code = [t for t in tokens.found if t[0] != 'comment']
    texts = [t[1] for t in code]
    help_text = next((t[1] for t in tokens.found if t[0] == 'comment'), '')
    for part in ('.SYNOPSIS', '.DESCRIPTION', '.EXAMPLE', 'Not run here'):
        if part not in help_text:
            out.append('the help lacks ' + part)
    listed = re.findall(r'^\.PARAMETER (\w+)', help_text, re.M)
    block = text[text.find('\nparam('):text.find('\n)\n')]
    params = re.findall(r'^    .*\] \$(\w+)', block, re.M)
    if listed != params:
        out.append('the help has parameters %r, the script %r' % (listed, params))
    defined = [texts[i + 1] for i, t in enumerate(texts[:-1]) if t == 'function']
    interpolated = ' '.join(t for t in texts if t.startswith('"'))
    for name in defined:
        if texts.count(name) < 2:
            out.append('function %s is not used' % name)
    for kind, word, line in code:
        if kind == 'word' and re.fullmatch(r'[A-Z][a-z]+-[A-Z]\w+', word) and \
                word not in CMDLETS and word not in defined:
            out.append('line %d: what is %s?' % (line, word))
    for i, (kind, word, line) in enumerate(code):
        # A bare word where a command begins is a keyword, a known command, or an alias.
        before = texts[i - 1] if i else ';'
        starts = before in ('{', ';', '|', '}') or \
            code[i - 1][2] < line and before not in ('+', ',', '(', '-f', '-and')
        if kind == 'word' and starts and re.fullmatch(r'[A-Za-z]\w*', word) and \
                word.lower() not in KEYWORDS and texts[i + 1:i + 2] != ['=']:
            out.append('line %d: an alias or unknown command %s' % (line, word))
        if kind == 'sign' and word in '%?' and texts[i - 1] in ('|', '{'):
            out.append('line %d: the alias %s' % (line, word))
    for sign in ('&&', '||', '??', '?.', '?['):
        if re.search(re.escape(sign), re.sub(r'\s', '', ''.join(
                t[1] if t[0] == 'sign' else ' ' for t in code))):
            out.append('%s is not in PowerShell 5.1' % sign)
    used = {t[1:-1] for t in texts if re.fullmatch(r"'--?[a-z]+'", t)}
    if used != WPR_OPTIONS | EVM_OPTIONS:
        out.append('options of wpr, wpaexporter and evm: %r' % sorted(
            used ^ (WPR_OPTIONS | EVM_OPTIONS)))
    variables = {v.lower() for v in re.findall(r'\$(?:script:)?(\w+) =(?!=)', text)} | \
        {v.lower() for v in re.findall(r'\] \$(\w+)', text)} | \
        {v.lower() for v in re.findall(r'[(,] ?\$(\w+)(?=[,)])', ' '.join(re.findall(
            r'^function [^{]*', text, re.M)))} | \
        {v.lower() for v in re.findall(r'foreach \(\$(\w+) in', text)} | \
        {'true', 'false', 'null', 'pid', 'psscriptroot', '_', 'executioncontext',
         'erroractionpreference'}
    for v in re.findall(r'\$(\w+)', ' '.join(t for t in texts if not t.startswith("'"))):
        if v.lower() not in variables and v not in ('env', 'script'):
            out.append('$%s is nowhere set' % v)
    return out


@check('profile_with_wpt.ps1: balanced, documented, no aliases, nothing unused or unknown')
def _():
    same(complaints(SCRIPT.read_text(encoding='ascii')), [], 'complaints')


@check('profile_with_wpt.ps1: these checks notice what they are for')
def _():
    text = SCRIPT.read_text(encoding='ascii')
    for old, new, words in (
            ("    } finally {\n", "    finally {\n", 'not closed|closes nothing'),
            ("@('-status')", "@('-status)", 'without an end|closes nothing|not closed'),
            ('$process.Kill()', '$proces.Kill()', '$proces is nowhere set'),
            ('    Write-Host $Text', '    echo $Text', 'an alias or unknown command echo'),
            ('    Write-Host $Text', '    Write-Hots $Text', 'what is Write-Hots?'),
            ('        $process.Kill()', '        $process.Kill() | % { $_ }', 'the alias %'),
            ('.PARAMETER Threads\n', '.PARAMETER Thread\n', 'the help has parameters'),
            ('Not run here', 'Run here', 'the help lacks Not run here'),
            ('Write-NextStep $plan $tables', '$null = $plan', 'Write-NextStep is not used'),
            ("'-instancename'", "'-instance'", 'options of wpr'),
            ('<#', '# <', '.SYNOPSIS|the help'),
            ('Write-Step ', 'Write-Step \u2026', 'not ASCII'),
            ('$table = \'\'', '$table = $Evm ?? \'\'', '?? is not in PowerShell 5.1')):
        true(old in text, 'not in the script: %r' % old)
        found = ' | '.join(complaints(text.replace(old, new, 1)))
        true(any(w in found for w in words.split('|')), '%r: %s' % (new, found or 'not noticed'))


@check('profile_with_wpt.ps1: the order of start, run, stop and cancel')
def _():
    text = SCRIPT.read_text(encoding='ascii')
    body = text[text.index('function Invoke-Recording'):text.index('function Export-Table')]
    order = ['try {', '$recording = $true', "'-start'", '$began = $true', '::Start($info)',
             'Wait-Program', "'-stop'", '$recording = $false\n', 'return $code', '} finally {',
             '.Kill()', 'if ($recording)', "'-cancel'", '[IO.Directory]::Delete']
    at = [body.index(o, body.index('try {')) for o in order]
    same(at, sorted(at), 'order')
    for verb in ('start', 'stop', 'cancel'):
        call = body[body.index("'-%s'" % verb):]
        true("'-instancename', $Plan.Instance)" in call[:call.index(' if ')],
             '-%s without the name of the recording' % verb)
    true('if ($cancelled' in body and body.count('Invoke-Tool') == 3, 'calls of wpr')


@check('profile_with_wpt.ps1: what it prints to do next are options that exist')
def _():
    text = SCRIPT.read_text(encoding='ascii')
    steps = text[text.index('function Write-NextStep'):text.index('function Invoke-Main')]
    for tool in ('wpa2folded.py', 'flamegraph.py'):
        help_text = subprocess.run([sys.executable, str(TOOLS / tool), '--help'],
                                   stdout=subprocess.PIPE).stdout.decode()
        part = steps[steps.index("'%s')" % tool):]
        part = part[:part.index('-o evm')]
        options = re.findall(r' (--\w+)', part)
        true(options or tool == 'flamegraph.py', 'no options found')
        for option in options:
            true(option in help_text, '%s has no %s' % (tool, option))


@check('profile_with_wpt.ps1: PowerShell itself finds no fault in it')
def _():
    pwsh = shutil.which('pwsh') or shutil.which('powershell')
    if not pwsh:
        return 'there is no PowerShell here'
    command = ("$e = $null; [void] [System.Management.Automation.Language.Parser]::ParseFile("
               "'%s', [ref] $null, [ref] $e); $e | ForEach-Object { $_.ToString() }; "
               "exit $e.Count" % SCRIPT)
    p = subprocess.run([pwsh, '-NoProfile', '-NonInteractive', '-Command', command],
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    same(p.returncode, 0, p.stdout.decode('utf-8', 'replace')[-400:])


def main():
    failed = 0
    for name, f in CHECKS:
        if len(sys.argv) > 1 and sys.argv[1] not in name:
            continue
        try:
            skipped = f()
            print('# not checked here - %s: %s' % (name, skipped) if skipped else 'ok - ' + name, flush=True)
        except Exception as e:      # a check must not take the others down with it
            failed += 1
            why = ' '.join(('%s: %s' % (type(e).__name__, e)).split())
            print('not ok - %s: %s' % (name,
                                       why.encode('ascii', 'backslashreplace').decode()[:400]),
                  flush=True)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
