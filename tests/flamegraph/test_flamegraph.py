#!/usr/bin/env python3
"""Checks tools/flamegraph.py against a brute-force model and its promises about hostile input.

    python3 tests/flamegraph/test_flamegraph.py [part of a check's name]

Prints one line per check: `ok - name`, `not ok - name: why` or `skip - name: why`. Exit code 1 if
any failed. Python 3.8 or later, standard library only. All input is made here.
"""
import colorsys
import gzip
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOL = HERE.parent.parent / 'tools' / 'flamegraph.py'
SVG = '{http://www.w3.org/2000/svg}'
PAD = 16
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


# Running the script and reading its picture back.

class Run:
    def __init__(self, *arguments, text=b'', env=None, cwd=None):
        text = text.encode('utf-8') if isinstance(text, str) else text
        p = subprocess.run([sys.executable, str(TOOL)] + list(arguments), input=text, cwd=cwd,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300,
                           env={**os.environ, **(env or {})})
        self.code, self.out, self.err = p.returncode, p.stdout, p.stderr.decode('utf-8', 'replace')


class Box:
    pass


class Picture:
    """The frames of an SVG in file order, with the path that nesting by depth gives each."""

    def __init__(self, data):
        self.text = data.decode('utf-8')
        self.root = ET.fromstring(data)
        self.graph = next(g for g in self.root.iter(SVG + 'g') if g.get('class') == 'frames')
        self.inner = int(self.root.get('width')) - 2 * PAD
        self.total = int(self.root.get('data-total'))
        aside = self.root.find(SVG + 'metadata')
        self.views = None if aside is None else json.loads(aside.text)
        self.boxes, path = [], []
        for g in self.graph:
            b = Box()
            lines = g.find(SVG + 'title').text.split('\n')
            same(len(lines), 3, 'lines in a title')
            b.name, b.kind = lines[0], g.get('class').split()[1:]
            b.total, b.total_percent = self.fact(lines[1], 'total')
            b.own, b.own_percent = self.fact(lines[2], 'self')
            b.depth, b.x, b.w = (int(v) for v in g.get('data-p').split())
            r = g.find(SVG + 'rect')
            b.rect = {k: float(r.get(k)) for k in ('x', 'y', 'width', 'height')}
            b.fill = r.get('fill')
            t = g.find(SVG + 'text')
            b.label = t.text if t is not None else ''
            true(b.depth <= len(path), 'a frame is deeper than its parent allows')
            path = path[:b.depth] + [b.name]
            b.path = tuple(path[1:])
            self.boxes.append(b)

    @staticmethod
    def fact(line, word):
        if line == word + ' 0':
            return Fraction(0), '0.00%'
        m = re.fullmatch(word + r' (\S+) (.*) \((\S+)\)', line)
        true(m, 'unexpected title line %r' % line)
        return Fraction(m.group(1).replace(',', '')), m.group(3)

    def tree(self):
        out = {}
        for b in self.boxes:
            true(b.path not in out, 'path drawn twice: %r' % (b.path,))
            out[b.path] = (b.total, b.own)
        return out

    def listed(self, flat):
        """path -> (total, self) of a tree in self.views, without its root."""
        out, path = {}, []
        for k in range(0, len(flat), 4):
            depth, name, total, own = flat[k:k + 4]
            path = path[:depth - 1] + [self.views['names'][name][0]] if depth else []
            true(tuple(path) not in out, 'listed twice: %r' % (path,))
            out[tuple(path)] = total, own
        return out

    def notes(self):
        return ' | '.join(t.get('data-full') or t.text for t in self.root.iter(SVG + 'text')
                          if 'muted' in (t.get('class') or ''))

    def names(self):
        return {b.name for b in self.boxes}


def draw(text, *arguments, **more):
    r = Run(*arguments, text=text, **more)
    true(r.code == 0, 'exit code %d, %s' % (r.code, r.err))
    return Picture(r.out)


# The model: nested dictionaries, written to be obviously right.

def model(lines, reverse=False):
    root = {'name': None, 'total': Fraction(0), 'own': Fraction(0), 'kids': {}}
    for stack, count in lines:
        frames = list(reversed(stack)) if reverse else list(stack)
        node = root
        node['total'] += Fraction(count)
        for f in frames:
            node = node['kids'].setdefault(f,
                                           {'total': Fraction(0), 'own': Fraction(0), 'kids': {}})
            node['total'] += Fraction(count)
        node['own'] += Fraction(count)
    return root


def expected(lines, reverse=False):
    """path -> (total, own, left edge), parents first, children by the bytes of their names."""
    out, pending = {}, [((), model(lines, reverse), Fraction(0))]
    while pending:
        path, node, x = pending.pop()
        out[path] = (node['total'], node['own'], x)
        later = []
        for name in sorted(node['kids'], key=lambda s: s.encode('utf-8')):
            later.append((path + (name,), node['kids'][name], x))
            x += node['kids'][name]['total']
        pending.extend(reversed(later))
    return out


def compare(picture, lines, reverse=False, inverted=False):
    want = expected(lines, reverse)
    whole = want[()][0]
    same([b.path for b in picture.boxes], list(want), 'frames in order')
    levels = max(map(len, want)) + 1
    for b in picture.boxes:
        total, own, x = want[b.path]
        same((b.total, b.own), (total, own), 'total and self of %r' % (b.path,))
        same((Fraction(b.x, picture.total), Fraction(b.w, picture.total)),
             (x / whole, total / whole),
             'place of %r' % (b.path,))
        scale = picture.inner / whole
        true(abs(b.rect['x'] - x * scale) < 0.011, 'x of %r is %s' % (b.path, b.rect['x']))
        gap = total * scale - Fraction(b.rect['width'])
        true(-0.021 < gap < 0.7, 'width of %r is off by %s' % (b.path, float(gap)))
        row = b.depth if inverted else levels - 1 - b.depth
        same(b.rect['y'], row * 18.0, 'y of %r' % (b.path,))
        for part, said in ((total, b.total_percent), (own, b.own_percent)):
            exact = 100 * part / whole
            if said == '<0.01%':
                true(0 < exact < Fraction(1, 200), 'percentage %s of %s' % (said, float(exact)))
            else:
                true(abs(Fraction(said[:-1]) - exact) <= Fraction(1, 200), 'percentage %s' % said)


def profile(seed, lines=120, names=6, depth=7):
    r = random.Random(seed)
    pool = ['f%d' % i for i in range(names)] + ['a', 'a b', 'a-b', 'ab', 'A', 'é', '日本', 'z z z']
    return [(tuple(r.choice(pool) for _ in range(r.randint(1, depth))), r.randint(1, 40))
            for _ in range(lines)]


def folded(lines):
    return ''.join('%s %s\n' % (';'.join(s), c) for s, c in lines)


# Correctness.

@check('totals, self counts and places of all frames agree with a brute-force model')
def _():
    for seed in range(12):
        lines = profile(seed)
        compare(draw(folded(lines), '--minwidth', '0'), lines)


@check('--reverse merges from the leaf, as the model does')
def _():
    for seed in range(4):
        lines = profile(seed)
        compare(draw(folded(lines), '--minwidth', '0', '--reverse'), lines, reverse=True)


@check('--inverted puts the root at the top and changes no number')
def _():
    lines = profile(3)
    compare(draw(folded(lines), '--minwidth', '0', '--inverted'), lines, inverted=True)


def function_model(lines, threads):
    """name -> [self, total, what it calls, what calls it]; the trees from its outermost frame."""
    out = {}
    for stack, count in lines:
        code = stack[1:] if threads else stack
        for name in set(code):
            row = out.setdefault(name, [0, 0, [], []])
            row[1] += count
            row[0] += count if code[-1] == name else 0
            at = stack.index(name, 1 if threads else 0)
            row[2].append((stack[at:], count))
            row[3].append((stack[at::-1], count))
    return out


@check('callers, table and sandwiches agree with a model of every stack')
def _():
    for seed in range(3):
        for options in ([], ['--no-threads'], ['--reverse'], ['--reverse', '--no-threads']):
            lines = profile(seed, 150)
            p = draw(folded(lines), '--minwidth', '0', *options)
            v, reverse = p.views, '--reverse' in options
            want = {k: t[:2] for k, t in expected(lines, reverse=not reverse).items()}
            same(p.listed(v['other']), want, 'the tree from the other end')
            model = function_model(lines, '--no-threads' not in options)
            same(v['functions'], len(model), 'number of functions')
            rows = {v['names'][r[0]][0]: r for r in v['rows']}
            same({k: r[1:3] for k, r in rows.items()}, {k: m[:2] for k, m in model.items()}, 'table')
            for name, row in rows.items():
                for got, stacks in zip(row[3:5], model[name][2:]):
                    least = max(1, model[name][1] // 300)
                    want = {k: t[:2] for k, t in expected(stacks).items() if k and t[0] >= least}
                    same(p.listed(got), want, 'sandwich of ' + name)
            hottest = sorted(model, key=lambda k: (-model[k][0], k.encode()))
            same([v['names'][r[0]][0] for r in v['rows'] if r[1]],
                 [k for k in hottest if model[k][0]], 'order of the table')


@check('what is too narrow to draw is whole in the other views, or disclosed there')
def _():
    text = ''.join('t;caller_%d;malloc 1\n' % i for i in range(20000)) + 't;main 20000\n'
    p = draw(text)
    true(('malloc',) not in {b.path[-1:] for b in p.boxes}, 'malloc was not to be drawn')
    v = p.views
    same(p.listed(v['other'])[('malloc',)], (20000, 0), 'callers')
    same(v['lost'], '50.00%', 'left out of the callers')
    row = next(r for r in v['rows'] if v['names'][r[0]][0] == 'malloc')
    same(row[1:3], [20000, 20000], 'table')
    same(p.listed(row[4]), {('malloc',): (20000, 0)}, 'sandwich')
    same(len(v['rows']), 100, 'rows')


@check('the trees of --diff and --flamechart have no other views')
def _():
    same(draw('t;a 1\nt;b 2\n', '--flamechart').views, None, 'chart')
    with tempfile.TemporaryDirectory() as d:
        Path(d, 'a').write_text('t;a 1\n')
        same(b'<metadata' in Run('--diff', 'a', 'a', cwd=d).out, False, 'diff')


@check('colours and names in the other views are those of the picture')
def _():
    p = draw('t;a<b>&"\'é;[lost] 3\nt;x;[unknown] 4\nt;x;\U0001f600 2\n')
    drawn = {b.name: b.fill for b in p.boxes}
    for name, kind, colour in p.views['names']:
        same(colour, drawn[name], 'colour of ' + name)
    true({'a<b>&"\'é', '\U0001f600'} <= {n for n, _, _ in p.views['names']}, 'names')
    raw = p.text[p.text.index('<metadata>') + 10:p.text.index('</metadata>')]
    same([c for c in '<>&' if c in raw], [], 'markup in the data')


@check('the order of lines does not change a byte')
def _():
    lines = profile(5)
    first = Run(text=folded(lines)).out
    for seed in range(5):
        mixed = lines[:]
        random.Random(seed).shuffle(mixed)
        same(Run(text=folded(mixed)).out == first, True, 'identical output')


@check('names that sort around the separator still merge: "a;x", "a b;x", "a-b", "a!"')
def _():
    lines = [(('a', 'x'), 1), (('a b', 'x'), 2), (('a', 'y'), 3), (('a!', 'x'), 4), (('a-b',), 5),
             (('a',), 6), (('a b',), 7), (('a\x7f'.replace('\x7f', '~'), 'x'), 8), (('a', 'x'), 9)]
    compare(draw(folded(lines), '--minwidth', '0'), lines)


@check('several files merge into one graph, in either order, with - for standard input')
def _():
    a, b = profile(1, 30), profile(2, 30)
    with tempfile.TemporaryDirectory() as d:
        Path(d, 'a').write_text(folded(a), encoding='utf-8')
        Path(d, 'b').write_text(folded(b), encoding='utf-8')
        one = Run('a', 'b', cwd=d)
        two = Run('b', '-', cwd=d, text=folded(a))
        same(one.code, 0, one.err)
        same(one.out == two.out, True, 'same bytes')
    compare(draw(folded(a + b), '--minwidth', '0'), a + b)


@check('hash seed, locale, time zone and stdout encoding do not change a byte')
def _():
    text = folded(profile(7))
    runs = [Run(text=text, env=e).out for e in (
        {'PYTHONHASHSEED': '0'}, {'PYTHONHASHSEED': '1'}, {'PYTHONHASHSEED': '4242'},
        {'LC_ALL': 'C', 'PYTHONIOENCODING': 'ascii', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'},
        {'TZ': 'Asia/Tokyo', 'LC_ALL': 'C.UTF-8'})]
    true(runs[0] and all(r == runs[0] for r in runs), 'outputs differ')


@check('-o writes the bytes that standard output gets')
def _():
    text = folded(profile(8))
    with tempfile.TemporaryDirectory() as d:
        same(Run('-o', 'x.svg', text=text, cwd=d).code, 0, 'exit code')
        same(Path(d, 'x.svg').read_bytes() == Run(text=text).out, True, 'same bytes')
        same(os.listdir(d), ['x.svg'], 'files')


@check('--flamechart keeps the order of lines and merges only neighbours')
def _():
    p = draw('t;b;x 2\nt;a 3\nt;a;c 1\nt;b;x 4\nt 5\n', '--flamechart')
    same([(b.path, b.x, b.w, b.own) for b in p.boxes],
         [((), 0, 15, 0), (('t',), 0, 15, 5), (('t', 'b'), 0, 2, 0), (('t', 'b', 'x'), 0, 2, 2),
          (('t', 'a'), 2, 4, 3), (('t', 'a', 'c'), 5, 1, 1), (('t', 'b'), 6, 4, 0),
          (('t', 'b', 'x'), 6, 4, 4)], 'chart')


@check('frames narrower than --minwidth are left out, and exactly those')
def _():
    r = random.Random(11)
    lines = [(s, c * r.choice([1, 1, 50])) for s, c in profile(11, 400, 20, 9)]
    want = expected(lines)
    whole = want[()][0]
    for minwidth in ('0.1', '0.5', '3', '20'):
        p = draw(folded(lines), '--minwidth', minwidth)
        keep = [k for k, v in want.items() if v[0] * p.inner >= Fraction(minwidth) * whole]
        same([b.path for b in p.boxes], keep, 'frames at %s px' % minwidth)
        for b in p.boxes:
            same((b.total, b.own, b.x), want[b.path], 'facts of %r' % (b.path,))
        gone = [k for k in want if k not in set(keep)]
        tops = sum(want[k][0] for k in gone if k[:-1] in set(keep))
        share = '%.2f%%' % (100 * tops / whole)
        if gone:
            true('%s frame%s, %s, hidden' % ('{:,}'.format(len(gone)), 's' * (len(gone) > 1), share)
                 in p.notes(), 'not disclosed: %d, %s in %s' % (len(gone), share, p.notes()))
    true('hidden' not in draw(folded(lines), '--minwidth', '0').notes(), 'nothing was hidden')


@check('of very many frames the widest 7,000 are drawn, and the others disclosed; --minwidth is obeyed')
def _():
    r = random.Random(4)
    lines = [(('t', 'g%d' % (i // 60), 'f%d' % i, 'x', 'y'), r.randint(60, 99)) for i in range(4000)]
    want = expected(lines)
    whole, totals = want[()][0], sorted((t for t, _, _ in want.values()), reverse=True)
    p = draw(folded(lines))
    keep = [k for k, v in want.items() if v[0] > totals[7000]]
    kept = set(keep)
    true(len(keep) > 6000, 'the model keeps %d' % len(keep))
    same([b.path for b in p.boxes], keep, 'frames')
    gone = sum(v[0] for k, v in want.items() if k not in kept and k[:-1] in kept)
    px = (totals[7000] + 1) * p.inner / whole
    true('{:,} frames, {:.2f}%, hidden: narrower than {:.2g} px'.format(
        len(want) - len(keep), float(100 * gone / whole), float(px)) in p.notes(), p.notes())
    same(len(draw(folded(lines), '--minwidth', '0.1').boxes), len(want), 'frames with --minwidth 0.1')


@check('--depth cuts deeper levels, discloses them and keeps totals')
def _():
    lines = profile(13)
    want = expected(lines)
    p = draw(folded(lines), '--minwidth', '0', '--depth', '3')
    same([b.path for b in p.boxes], [k for k in want if len(k) <= 3], 'frames')
    for b in p.boxes:
        same((b.total, b.own, b.x), want[b.path], 'facts of %r' % (b.path,))
    deep = sum(len(k) > 3 for k in want)
    counts = sum(v[0] for k, v in want.items() if len(k) == 4)
    true('%d frames, %.2f%%, hidden: deeper than 3 levels' % (deep, 100 * counts / want[()][0])
         in p.notes(), p.notes())


@check('--filter and --exclude choose stacks by frame name, and say what they took')
def _():
    text = 't;a;b 1\nt;a;bb 2\nt;c 4\nu;a;b 8\n'
    same(draw(text, '--filter', '^b$').total, 9, 'filter')
    same(draw(text, '--filter', '^b', '--filter', '^t$').total, 3, 'two filters')
    same(draw(text, '--exclude', '^b$').total, 6, 'exclude')
    p = draw(text, '--filter', 'a', '--exclude', 'u')
    same(p.total, 3, 'both')
    true('12 samples, 80.00%, filtered out' in p.notes(), p.notes())


@check('--factor scales what is shown and nothing else; --countname names it')
def _():
    p = draw('t;a 3\nt;b 1\n', '--factor', '0.25', '--countname', 'ms & <more>')
    same([(b.total, b.w) for b in p.boxes],
         [(1, 4), (1, 4), (Fraction(3, 4), 3), (Fraction(1, 4), 1)],
         'scaled')
    true('ms &amp; &lt;more&gt;' in p.text, 'the name of the count')


@check('--title, --subtitle, --notes, --width, --height and --colors reach the picture')
def _():
    p = draw('t;a 3\n', '--title', 'T<1>', '--subtitle', 'S&2', '--notes', 'N"3', '--width', '640',
             '--height', '30', '--colors', 'io')
    same(p.root.find(SVG + 'title').text, 'T<1>', 'title')
    true('S&2' in p.notes() and 'N"3' in p.notes(), p.notes())
    same(p.root.get('width'), '640', 'width')
    same({b.rect['height'] for b in p.boxes}, {29.0}, 'frame height')
    true(p.boxes[2].fill != draw('t;a 3\n').boxes[2].fill, 'another palette')


# Numbers.

@check('--top prints self and total of each function, recursion counted once, threads left out')
def _():
    dice = random.Random(5)
    lines = [('t%d;' % dice.randrange(3) + ';'.join('f%d' % dice.randrange(12)
              for _ in range(dice.randrange(1, 9))), dice.randrange(1, 50)) for _ in range(500)]
    own, total = {}, {}
    for stack, count in lines:
        frames = stack.split(';')[1:]
        own[frames[-1]] = own.get(frames[-1], 0) + count
        for name in set(frames):
            total[name] = total.get(name, 0) + count
    text = '\n'.join('%s %d' % line for line in lines)
    for arguments in ([], ['--reverse'], ['--flamechart']):
        run = Run('--top', '50', *arguments, text=text)
        same(run.code, 0, 'exit code')
        tables = run.out.decode().split('\n\n')
        same(len(tables), 2, 'tables')
        for table, key in zip(tables, (own, total)):
            rows = [line.split() for line in table.strip().split('\n')[2:]]
            got = [(name, int(a.replace(',', '')), int(b.replace(',', '')))
                   for a, _, b, _, name in rows]
            want = sorted(((n, own.get(n, 0), total[n]) for n in total if key.get(n)),
                          key=lambda row: (-key[row[0]], row[0]))
            same(got, want, 'rows')
    same(Run('--top', '3', text=text).out.count(b' f'), 2 * (3 + 1), 'rows of --top 3')
    true(b'<svg' not in Run('--top', '3', text=text).out, 'a picture came too')


def changed_titles(data):
    """{path: ((total before, after), (self before, after), fill, change, width)} of --diff."""
    graph = next(g for g in ET.fromstring(data).iter(SVG + 'g') if g.get('class') == 'frames')
    out, path = {}, []
    for g in graph:
        name, total, own = g.find(SVG + 'title').text.split('\n')
        path = path[:int(g.get('data-p').split()[0])] + [name]
        facts = []
        for word, line in (('total', total), ('self', own)):
            m = re.fullmatch(word + r' (\S+) \u2192 (\S+) samples \((.*)\)', line)
            true(m, 'unexpected line %r' % line)
            facts += [tuple(Fraction(m.group(i).replace(',', '')) for i in (1, 2)), m.group(3)]
        out[tuple(path[1:])] = (facts[0], facts[2], g.find(SVG + 'rect').get('fill'), facts[1],
                                int(g.get('data-p').split()[2]))
    return out


@check('--diff: totals and selfs of both sides agree with a model; what has gone is there')
def _():
    dice = random.Random(9)
    sides = []
    for _ in range(2):
        sides.append([('t;' + ';'.join('f%d' % dice.randrange(4)
                                       for _ in range(dice.randrange(1, 6))),
                       dice.randrange(1, 60)) for _ in range(150)])
    sides[0].append(('t;gone', 7))
    sides[1].append(('t;fresh;leaf', 9))
    texts = ['\n'.join('%s %d' % line for line in side) for side in sides]
    want = {}
    for side, lines in enumerate(sides):
        for stack, count in lines:
            frames = tuple(stack.split(';'))
            for depth in range(len(frames) + 1):
                row = want.setdefault(frames[:depth], [[0, 0], [0, 0]])
                row[0][side] += count
                if depth == len(frames):
                    row[1][side] += count
    with tempfile.TemporaryDirectory() as lab:
        paths = [str(Path(lab, name)) for name in ('before', 'after')]
        for path, text in zip(paths, texts):
            Path(path).write_text(text)
        got = changed_titles(Run('--diff', '--minwidth', '0', *paths).out)
        same({k: [list(v[0]), list(v[1])] for k, v in got.items()}, want, 'counts')
        same(got[('t', 'gone')][3], 'gone', 'what became of t;gone')
        same(got[('t', 'fresh')][3], 'new', 'what became of t;fresh')
        for path, (total, _, fill, _, width) in got.items():
            same(width, total[0] + total[1], 'width of %r' % (path,))
            if path and abs(total[1] - total[0]) >= 12:
                same(int(fill[1:3], 16) > int(fill[5:7], 16), total[1] > total[0],
                     'red more than blue, of %r' % (path,))
        swapped = changed_titles(Run('--diff', '--negate', '--minwidth', '0', *paths).out)
        true(swapped[('t', 'gone')][2] != got[('t', 'gone')][2], '--negate changed no colour')
        scaled = changed_titles(Run('--diff', '--normalize', '--minwidth', '0', *paths).out)
        same(scaled[()][0][0], scaled[()][0][1], 'totals of --normalize')
        same(scaled[()][0][1], want[()][0][1], 'total after')
        same(scaled[('t', 'fresh')][0], (0, 9), 'counts after')
        merged = '\n'.join('%s %d %d' % (stack, b, a) for stack, b, a in
                           [(s, c, 0) for s, c in sides[0]] + [(s, 0, c) for s, c in sides[1]])
        columns = Run('--diff', '--minwidth', '0', text=merged + '\nt;one 5\n')
        same(changed_titles(columns.out), got, 'two counts a line')
        true('t;one 5 (two counts are wanted)' in columns.err, columns.err)
        one = Run('--diff', paths[0], os.devnull)
        same(one.code, 2, 'exit code with nothing after')


@check('fractional counts add exactly: 0.1 + 0.2 is 0.3')
def _():
    lines = [(('t', 'a'), '0.1'), (('t', 'a'), '0.2'), (('t', 'b'), '1.5e-3'), (('t', 'c'), '2.'),
             (('t', 'c'), '.25'), (('t', 'd'), '1e3'), (('t', 'e'), '+7')]
    compare(draw(folded(lines), '--minwidth', '0'), lines)


@check('counts beyond 64 bits stay exact in the text and right in the geometry')
def _():
    big = 3 * 10 ** 20 + 1
    p = draw('t;a %d\nt;b %d\n' % (big, 2 * big))
    same([b.total for b in p.boxes], [3 * big, 3 * big, big, 2 * big], 'totals')
    true(p.total <= 2 ** 53 and abs(p.boxes[2].w * 3 - p.total) < 4, 'geometry')
    for b in p.boxes:
        true(b.x + b.w <= p.total, 'inside its parent')
    p = draw('t;a 1%s\nt;b 1%s\n' % ('0' * 350, '0' * 350))
    same([b.rect['width'] for b in p.boxes[2:]], [583.4, 583.4], 'widths')
    same(p.boxes[2].total, Fraction(10) ** 350, 'total')
    p = draw('t;a 1e-300\nt;b 3e-300\n')
    same(p.boxes[2].total_percent, '25.00%', 'tiny')


@check('lines with a count of zero are no error and draw nothing')
def _():
    r = Run(text='t;a 1\nt;b 0\nt;c 0.0\n')
    same((r.code, r.err), (0, ''), 'run')
    same(Picture(r.out).names(), {'all', 't', 'a'}, 'names')


# Input.

@check('CRLF, a byte order mark, blank lines, comments and a missing last newline change nothing')
def _():
    plain = Run(text='t;a b 1\nt;c 2\nt 3\n').out
    for text in (b't;a b 1\r\nt;c 2\r\nt 3\r\n', b'\xef\xbb\xbft;a b 1\nt;c 2\nt 3\n',
                 b'\n\n# comment\nt;a b 1\n  \n\t\n#! 5\n## a;b 7\n# x;y 4\n#note 8\nt;c 2\nt 3',
                 b't;a b 1 \nt;c  2\nt\t3\n#\n'):
        r = Run(text=text)
        same((r.code, r.err, r.out == plain), (0, '', True), 'for %r' % text)


@check('UTF-16 with a byte order mark, as PowerShell writes it, reads like UTF-8')
def _():
    text = 't;é;日本 1\r\nt;c 2\r\n'
    for codec in ('utf-16-le', 'utf-16-be'):
        r = Run(text=('\ufeff' + text).encode(codec))
        same(r.out == Run(text=text).out, True, codec)


@check('gzipped input reads like the text in it; of damaged data, what comes before is used')
def _():
    text = b''.join(b'main;f%d;g%d %d\n' % (i % 7, i * i % 1000, i) for i in range(1, 20000))
    packed = gzip.compress(text)
    same(Run(text=packed).out, Run(text=text).out, 'standard input')
    with tempfile.TemporaryDirectory() as lab:
        path = Path(lab, 'x.folded.gz')
        path.write_bytes(packed)
        same(Run(str(path)).out, Run(text=text).out, 'a file')
    cut = Run(text=packed[:len(packed) // 2])
    same(cut.code, 0, 'exit code of damaged data')
    true('gzipped data are damaged' in cut.err, cut.err)
    whole = [line for line in text.split(b'\n')[:-1]]
    total = Picture(cut.out).total
    sums = [0]
    for line in whole:
        sums.append(sums[-1] + int(line.split()[-1]))
    true(total in sums[1:-1], 'a line was cut: total %s is no sum of whole lines' % total)
    none = Run(text=packed[:12])
    same(none.code, 2, 'exit code when nothing is left')


@check('a thread called #3 is a thread, not a comment')
def _():
    true('#3' in draw('#3;main 5\n').names(), 'lost')


@check('only the last space-separated token is the count')
def _():
    same(draw('t;operator new (unsigned 8) 7 3\n').boxes[-1].path,
         ('t', 'operator new (unsigned 8) 7'),
         'path')


@check('if every line has two counts, the last is used and the user is told; one such line is a name')
def _():
    r = Run(text='t;a 3 5\nt;a 1 2\nt;b 0 7.5\n')
    p = Picture(r.out)
    same({b.path: b.total for b in p.boxes if len(b.path) == 2},
         {('t', 'a'): 7, ('t', 'b'): Fraction(15, 2)}, 'counts')
    true('Every line ends in two counts' in r.err, r.err)
    same(draw('t;phase 3 5\nt;b 7\n').names(), {'all', 't', 'phase 3', 'b'}, 'names')
    same(draw('t;phase 3 5\n').names(), {'all', 't', 'phase 3'}, 'a single line')


@check('the generator of large profiles writes the same bytes everywhere, and what it promises')
def _():
    command = [sys.executable, str(HERE.parent / 'bench' / 'folded.py'), '--lines', '3000', '--stacks', '1000']
    a, b = (subprocess.run(command, stdout=subprocess.PIPE, check=True,
                           env={**os.environ, 'PYTHONHASHSEED': seed}).stdout for seed in '12')
    same(a == b, True, 'same bytes')
    lines = a.decode().splitlines()
    same([len(lines), len({line.rsplit(' ', 1)[0] for line in lines})], [3000, 1000], 'lines, stacks')
    mean = sum(line.count(';') + 1 for line in lines) / 3000
    true(12 < mean < 24, 'mean depth %.1f' % mean)


@check('real profiles of other tools are drawn: every count and every function of them')
def _():
    folder = HERE.parents[2] / 'shared' / 'data' / 'folded'
    for path in sorted(folder.glob('*.folded')):
        total, leaves, functions = 0, {}, set()
        for line in path.read_text(encoding='utf-8').splitlines():
            stack, count = line.rsplit(' ', 1)
            frames = stack.rstrip().split(';')      # spaces before the count are no name
            total += int(count)
            leaves[frames[-1]] = leaves.get(frames[-1], 0) + int(count)
            functions |= set(frames)
        r = Run('--minwidth', '0', '--no-threads', str(path))
        same([r.code, r.err], [0, ''], path.name)
        p = Picture(r.out)
        same(p.total, total, 'total of ' + path.name)
        own = {}
        for b in p.boxes:
            own[b.name] = own.get(b.name, 0) + b.own
        same({k: v for k, v in own.items() if v}, {k or '[empty]': v for k, v in leaves.items()},
             'self of ' + path.name)
        same(p.names() - {'all'}, {f or '[empty]' for f in functions}, 'functions of ' + path.name)
    if not list(folder.glob('*.folded')):
        print('# no such profiles here: nothing compared')


@check('bad lines are counted and the first five quoted with file and line')
def _():
    with tempfile.TemporaryDirectory() as d:
        bad = ['no count', '12', 'a;b -3', 'a;b nan', 'a;b 1_000', 'a;b 0x10', 'a;b inf',
               'a 1e9999',
               'a;b ' + '9' * 500, 'a;b \u0663', 'a;b 1\ufeff']
        Path(d, 'in').write_text('t;a 1\n' + '\n'.join(bad) + '\nt;b 2\n', encoding='utf-8')
        r = Run('in', cwd=d)
        same(r.code, 0, r.err)
        same(Picture(r.out).total, 3, 'what is left')
        lines = r.err.splitlines()
        same([re.search(r'in:(\d+):', x).group(1) for x in lines[:5]], list('23456'),
             'line numbers')
        true('"no count"' in lines[0] and '"a;b -3"' in lines[2], lines[:3])
        same(len(lines), 7, 'lines on stderr')
        true('6 more' in lines[5] and '11 lines' in lines[6], lines[5:])
        true(all(x.endswith(('.', '"')) for x in lines), 'sentences')


@check('empty frames are drawn under a name of their own and do not vanish')
def _():
    same([b.path for b in draw('t;;a 1\n').boxes][-1], ('t', '[empty]', 'a'), 'path')


HOSTILE = [b'a b  c', b'"quoted"', b"it's", b'<script>alert(1)</script>', b'a&b', b'&amp;', b']]>',
           b'<!--',
           b'-->', b'\x00', b'\x01\x02\x1b[31m', b'tab\there', b'\x7f', b'\xc2\x85', b'\xc3',
           b'\xff\xfe',
           b'\xed\xa0\x80', b'\xed\xbf\xbf', b'\xf4\x90\x80\x80', b'\xef\xbf\xbe', b'\xef\xbf\xbf',
           b'\xc0\x80', '\u202eevil'.encode(), '\u2028'.encode(), '😀 é 日本語'.encode(), b'%s %d %%',
           b'@STYLE@',
           b'{0}', b'#ID', b'\\x01', b'$&', b'a' * 5000, '\U0001F600'.encode() * 300, b'__proto__',
           b'constructor', b'\x0b\x0c', b'a=b', 'e\u0301'.encode(), b'&#0;', b'&#x1;', b'<![CDATA[',
           b'?>']


@check('hostile names always give well-formed XML, and each stays a frame of its own')
def _():
    text = b''.join(b't;x' + n + b'y;leaf %d\n' % (i + 1) for i, n in enumerate(HOSTILE))
    p = draw(text, '--minwidth', '0')
    same(len([b for b in p.boxes if b.depth == 2]), len(HOSTILE), 'frames')
    true('x<script>alert(1)</script>y' in p.names() and "xit'sy" in p.names(), 'names survive')
    true('x\\x00y' in p.names() and 'x\\xc3y' in p.names() and 'x\\xed\\xa0\\x80y' in p.names(),
         'escapes')
    same(sorted(set(b.total for b in p.boxes if b.depth == 2)), list(range(1, len(HOSTILE) + 1)),
         'totals')


@check('random bytes never break the XML or the run')
def _():
    r = random.Random(99)
    for _ in range(40):
        pool = b'\x00\x01\x09\x0b\x0d\x1f ;;;<>&"\'#\xc3\xa9\xed\xa0\x80\xff\xef\xbb\xbfab]\\'
        raw = bytes(r.choice(pool) for _ in range(600))
        text = raw.replace(b';', b' 3\n;', 10) + b'\nok;fine 1\n'
        x = Run(text=text)
        same(x.code, 0, x.err)
        Picture(x.out)
        true('Traceback' not in x.err, x.err)


@check('hostile titles, notes and count names stay well-formed too')
def _():
    for s in ('<>&"\'', ']]>', '\x01\x1b', 'a\nb', '\udcff', '\ufffe', '%s', '\u202e', ''):
        Picture(Run('--title', s, '--subtitle', s, '--notes', s, '--countname', s or 'x',
                    text='t;a 1\n').out)


@check('stacks 5,000 frames deep are drawn without recursion')
def _():
    deep = ';'.join('f%d' % i for i in range(5000))
    for option in ([], ['--reverse'], ['--flamechart']):
        p = draw('t;%s 1\nt;%s;g 2\n' % (deep, deep), *option)
        same(max(b.depth for b in p.boxes), 5002, 'depth')


@check('of 50,000 different deep stacks the picture holds only what is visible')
def _():
    r = random.Random(5)
    names = ['function_%d' % i for i in range(200)]
    text = ''.join('t%d;%s 1\n' % (i % 4, ';'.join(r.choices(names, k=39))) for i in range(50000))
    start = time.monotonic()
    x = Run(text=text)
    took = time.monotonic() - start
    same(x.code, 0, x.err)
    print('# 50,000 stacks of 40 frames: %.1f s' % took)
    p = Picture(x.out)
    true(all(b.w * p.inner >= 0.1 * p.total for b in p.boxes), 'invisible frames')
    true(len(x.out) < 5000000, '%d bytes' % len(x.out))


# Exit codes and output files.

@check('nothing usable: exit code 2, a sentence, no output file and no leftovers')
def _():
    for text, more in (('', []), ('junk\n', []), ('# only\n\n', []), ('t;a 0\n', []),
                       ('t;a 1\n', ['--filter', 'zzz']), (b'\xef\xbb\xbf', [])):
        with tempfile.TemporaryDirectory() as d:
            r = Run('-o', 'x.svg', *more, text=text, cwd=d)
            same((r.code, os.listdir(d), r.out), (2, [], b''), 'for %r' % text)
            last = r.err.splitlines()[-1]
            true(re.match(r'flamegraph\.py: [A-Z-].*\.$', last) and 'Traceback' not in r.err, r.err)


@check('a failing run leaves an existing output file as it was')
def _():
    with tempfile.TemporaryDirectory() as d:
        Path(d, 'x.svg').write_text('precious')
        same(Run('-o', 'x.svg', text='', cwd=d).code, 2, 'exit code')
        same(Run('missing', '-o', 'x.svg', cwd=d).code, 2, 'exit code')
        same(Path(d, 'x.svg').read_text(), 'precious', 'content')
        same(os.listdir(d), ['x.svg'], 'files')


@check('an unreadable input, an unwritable output and a bad option are sentences, not tracebacks')
def _():
    with tempfile.TemporaryDirectory() as d:
        Path(d, 'in').write_text('t;a 1\n')
        for arguments, code in ((['missing'], 2), (['in', 'missing'], 2), (['.'], 2),
                                (['in', '-o', 'no/such/dir.svg'], 1), (['in', '-o', '.'], 1),
                                (['--width', 'wide'], 2), (['--filter', '('], 2),
                                (['--nonsense'], 2),
                                (['--minwidth', '-1'], 2), (['--factor', '0'], 2),
                                (['--colors', 'x'], 2),
                                (['in', '-o', 'in'], 2), (['--height', '0'], 2)):
            r = Run(*arguments, cwd=d)
            same(r.code, code, '%s: %s' % (arguments, r.err))
            true(r.err.strip() and 'Traceback' not in r.err, r.err)
            same(r.out, b'', 'output for %s' % arguments)
        same(Path(d, 'in').read_text(), 't;a 1\n', 'the input')
        same(os.listdir(d), ['in'], 'files')


@check('an output that is a symbolic link is written through, and its mode is kept')
def _():
    if os.name != 'posix':
        return 'POSIX only'
    with tempfile.TemporaryDirectory() as d:
        Path(d, 'real.svg').write_text('old')
        os.chmod(os.path.join(d, 'real.svg'), 0o640)
        os.symlink('real.svg', os.path.join(d, 'link.svg'))
        same(Run('-o', 'link.svg', text='t;a 1\n', cwd=d).code, 0, 'exit code')
        true(os.path.islink(os.path.join(d, 'link.svg')), 'the link is gone')
        true(b'<svg' in Path(d, 'real.svg').read_bytes(), 'not written through')
        same(os.stat(os.path.join(d, 'real.svg')).st_mode & 0o777, 0o640, 'mode')


@check('a reader that hangs up is no traceback')
def _():
    if os.name != 'posix':
        return 'POSIX only'
    text = ''.join('t;function_%d 1\n' % i for i in range(5000)).encode()
    p = subprocess.Popen([sys.executable, str(TOOL)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    p.stdout.close()
    p.stdin.write(text)
    p.stdin.close()
    err = p.stderr.read()
    p.stderr.close()
    same((p.wait(), err), (141, b''), 'exit code and stderr')


# Looks.

def luminance(colour):
    out = 0
    for i, k in ((1, 0.2126), (3, 0.7152), (5, 0.0722)):
        c = int(colour[i:i + 2], 16) / 255
        out += k * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
    return out


@check('text on the colours of --diff has a contrast of 4.5:1 or better')
def _():
    text = ''.join('t;f%d %d %d\n' % (i, 1000 - i * i, 1000 + i * i) for i in range(-31, 32))
    text += ''.join('t;g%d %d %d\n' % (i, 1000 + i * i, 1000 - i * i) for i in range(-31, 32))
    fills = {row[2] for row in changed_titles(Run('--diff', text=text).out).values()}
    true(len(fills) > 50, 'only %d colours' % len(fills))
    for fill in fills:
        ratio = (luminance(fill) + 0.05) / (luminance('#1c1917') + 0.05)
        true(ratio >= 4.5, '%s: %.2f' % (fill, ratio))


@check('text on every frame colour has a contrast of 4.5:1 or better, in every palette')
def _():
    text = ''.join('t;name_%d 1\n' % i for i in range(1500))
    text += 't;[lost] 1\nt;[jit] 1\nt;[x+0x1] 1\nt;[truncated] 1\n[cprof];[unsampled] 1\n'
    for palette in ('hot', 'mem', 'io', 'hash', 'red', 'orange', 'yellow', 'green', 'aqua', 'blue',
                    'purple', 'java', 'module', 'grey'):
        p = draw(text, '--colors', palette)
        ink = luminance(p.graph.get('fill'))
        for fill in {b.fill for b in p.boxes}:
            ratio = (luminance(fill) + 0.05) / (ink + 0.05)
            true(ratio >= 4.5,
                 '%s on %s in %s is %.2f' % (p.graph.get('fill'), fill, palette, ratio))
        true(palette == 'grey' or len({b.fill for b in p.boxes}) > 50, 'few colours in ' + palette)


@check('--colors java tells kinds of code apart, module tells modules; --hash and --cp are known')
def _():
    names = ['java/lang/Object:.x', 'foo_[j]', 'Foo::bar', 'read_[k]', 'f_[i]', 'memcpy']
    text = ''.join('t;%s 1\n' % name for name in names)
    fill = {b.name: b.fill for b in draw(text, '--colors', 'java').boxes}

    def hue(name):
        return round(6 * colorsys.rgb_to_hls(*(int(fill[name][i:i + 2], 16) for i in (1, 3, 5)))[0])
    same([hue(name) for name in names], [2, 2, 1, 0, 3, 0], 'sixths of the colour wheel')
    text = 't;unix`read 1\nt;unix`write 1\nt;core::fmt::write 1\nt;core::ptr 1\nt;plain 1\n'
    fill = {b.name: b.fill for b in draw(text, '--colors', 'module').boxes}
    exact = {name: round(100 * colorsys.rgb_to_hls(*(int(fill[name][i:i + 2], 16)
                                                     for i in (1, 3, 5)))[0]) for name in fill}
    true(abs(exact['unix`read'] - exact['unix`write']) <= 2, 'one module, two hues: %r' % exact)
    true(abs(exact['core::fmt::write'] - exact['core::ptr']) <= 2, 'one crate, two hues: %r' % exact)
    true(abs(exact['unix`read'] - exact['core::ptr']) > 4, 'two modules, one hue: %r' % exact)
    same(Run('--hash', '--cp', text=text).out, Run('--colors', 'hash', text=text).out, '--hash --cp')


@check('a function has the same colour in every place, thread and graph')
def _():
    a = draw('t;f;g 1\nu;g;f 2\n', '--minwidth', '0')
    b = draw('q;w;e;g 5\nq;f 1\n', '--inverted', '--title', 'other')
    colours = {}
    for x in a.boxes + b.boxes:
        if x.name in 'fg':
            colours.setdefault(x.name, set()).add(x.fill)
    same([len(colours[k]) for k in 'fg'], [1, 1], 'colours')
    true(colours['f'] != colours['g'], 'f and g look alike')


@check('special frames and threads have colours of their own, in every palette alike')
def _():
    special = ['[lost]', '[unsampled]', '[truncated]', '[jit]', '[cprof]', '[libc.so.6+0x1f3a]']
    text = 'main;main 1\n' + ''.join('main;%s 1\n' % s for s in special)
    seen = []
    for palette in ('hot', 'io'):
        p = draw(text, '--colors', palette)
        fills = {b.name: b.fill for b in p.boxes if b.depth == 2}
        thread = next(b for b in p.boxes if b.depth == 1)
        true(thread.fill != fills['main'], 'the thread looks like the function of its name')
        own = [fills[s] for s in special] + [thread.fill, p.boxes[0].fill]
        same(len(set(own)), 8, 'different colours')
        seen.append(own)
        for s in special:
            true('f-' in ' '.join(b.kind[0] for b in p.boxes if b.name == s), 'no class for ' + s)
    same(seen[0], seen[1], 'palette')
    reverse = draw('main;f 1\n', '--reverse')
    same([b.kind for b in reverse.boxes], [['f-root'], [], ['f-thread']], 'kinds when reversed')
    scope = draw('t;[SLOAD] 1\n').boxes[-1]
    same(scope.kind, [], 'a scope in brackets is code')


@check('labels fit their frames and are cut between code points')
def _():
    names = ['abcdefghij' * 10, '日本語' * 40, '😀' * 80, 'éà' * 60]
    for width in range(200, 1400, 93):
        text = ''.join('t;%s %d\n' % (n, 5 * i + 1) for i, n in enumerate(names))
        for b in draw(text, '--width', str(width)).boxes:
            cells = sum(2 if ord(c) > 0x1100 and c != '…' else 1 for c in b.label)
            true(cells * 12 * 0.6 <= b.rect['width'],
                 '%r is wider than %s' % (b.label, b.rect['width']))
            true(b.name.startswith(b.label.rstrip('…')), 'label %r' % b.label)
            true(not b.label or b.label == b.name or b.label.endswith('…'),
                 'no ellipsis: %r' % b.label)
    wide = next(b for b in draw('t;short 1\n').boxes if b.depth == 2)
    same(wide.label, 'short', 'label')


@check('the file is self-contained and complete without scripts and style sheets')
def _():
    p = draw('main;a;[lost] 5\nmain;b 1\n')
    bare = re.sub(r'<script>.*</script>|<style>.*</style>', '', p.text, flags=re.S)
    same(re.findall(r'https?://[^"\s]+', bare), ['http://www.w3.org/2000/svg'], 'addresses')
    true(not re.search(r'href=|url\(|@import|@font-face|style="| on[a-z]+="', bare), 'references')
    same(re.findall(r'url\(|@import|https?:',
                    ''.join(re.findall(r'<style>.*</style>', p.text, re.S))), [],
         'references in style')
    same(re.findall(r'<(?:foreignObject|input|button|html)', bare), [], 'controls without a script')
    for e in p.root.iter(SVG + 'rect'):
        true(e.get('fill') and e.get('width') and e.get('height'), 'a rectangle without attributes')
    for e in p.root.iter(SVG + 'text'):
        true(e.get('font-size') or e in list(p.graph.iter()), 'text without a size')
    same(p.root.get('role'), 'img', 'role')
    true(p.root.find(SVG + 'desc').text, 'no description')
    true(p.root.get('viewBox') == '0 0 %s %s' % (p.root.get('width'), p.root.get('height')),
         'viewBox')


@check('graphs in one page share no id and style nothing but themselves')
def _():
    a, b = draw('t;a 1\n'), draw('t;b 1\n')
    true(a.root.get('id') != b.root.get('id'), 'same id')
    for p in (a, b):
        same([e.get('id') for e in p.root.iter() if e.get('id')], [p.root.get('id')], 'ids')
        css = p.root.find(SVG + 'style').text
        css = re.sub(r'@media[^{]*\{', '', re.sub(r'/\*.*?\*/', '', css, flags=re.S))
        for rule in re.findall(r'([^{}]+)\{', css):
            for selector in rule.split(','):
                true(selector.strip().startswith('#' + p.root.get('id')),
                     'selector %r' % selector.strip())


@check('the script starts with a docstring that tells how to use it, and --help works')
def _():
    text = TOOL.read_text(encoding='utf-8')
    true(text.startswith('#!') and 'flamegraph.py app.folded > app.svg' in text[:700], 'docstring')
    r = Run('--help')
    same(r.code, 0, r.err)
    options = ('--title --subtitle --notes --width --height --minwidth --countname --factor --colors '
               '--inverted --reverse --flamechart --depth --filter --exclude --output')
    for option in options.split():
        true(option.encode() in r.out, 'missing ' + option)


@check('the contents line of the script lists its sections, in order')
def _():
    text = TOOL.read_text(encoding='utf-8')
    listed = re.findall(r'>>(\w+)', re.search(r'Contents:(.*?)"""', text, re.S).group(1))
    same(re.findall(r'^# >>(\w+):', text, re.M), listed, 'sections')


@check('it draws the same bytes again, also under every other Python 3.8+ found here')
def _():
    text = folded(profile(21)) + ''.join('t;%s 3\n' % n for n in ('日本', '😀', 'é'))
    mine, tried = Run(text=text).out, 0
    same(Run(text=text).out, mine, 'a second run')
    for minor in range(8, 20):
        python = shutil.which('python3.%d' % minor)
        if not python or os.path.realpath(python) == os.path.realpath(sys.executable):
            continue
        p = subprocess.run([python, str(TOOL)], input=text.encode(), stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
        if p.returncode and not p.stdout and subprocess.run(
                [python, '-c', ''], stderr=subprocess.DEVNULL).returncode:
            continue        # a launcher without an interpreter behind it
        tried += 1
        true(p.stdout == mine, 'python3.%d differs: %s' % (minor, p.stderr.decode()[-200:]))
    if not tried:
        print('# no other Python here to compare with')


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
            print('not ok - %s: %s' % (name,
                                       why.encode('ascii', 'backslashreplace').decode()[:400]),
                  flush=True)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
