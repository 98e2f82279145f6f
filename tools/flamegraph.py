#!/usr/bin/env python3
r"""flamegraph.py: turn folded stacks into one interactive SVG flame graph.

    python3 flamegraph.py app.folded > app.svg        # then open app.svg in a browser
    python3 flamegraph.py a.folded b.folded -o ab.svg # several profiles, merged
    other-tool | python3 flamegraph.py - > out.svg    # standard input

Each input line is `thread;root;...;leaf COUNT`. The count is the last space-separated token, so
names may contain spaces; it may be fractional (`0.25`, `1.5e3`) and of any size. Blank lines and
comments are skipped. A comment starts with `#` and either goes on with a space, `#` or `!`, or is
no `frames;separated;like-this COUNT` (a thread may well be called `#3`). Lines that make no sense
are counted, and the first few are quoted on stderr. Input may be gzipped, CRLF or UTF-16.

The SVG needs nothing but itself. With scripts: click (or Enter) zooms and marks every frame of that
name, Escape goes back, arrow keys walk, `/` searches by regular expression, Enter and Shift+Enter
(or n and N) go from match to match, c copies a frame's name and C its stack, s shows what calls its
function and what it calls. The other views are callers first and a table of the hottest functions.
Without scripts (an <img> in a README) it is a complete static picture. The same input gives the
same bytes, on every machine and in every line order.

Exit code: 0 a picture was made; 1 it could not be written; 2 wrong usage or nothing to draw.
Python 3.8 or later, standard library only. Run with --help for the options.

Contents: >>input  >>layout  >>functions  >>diff  >>colours  >>text  >>svg  >>style  >>script  >>main
"""
import argparse
import colorsys
import contextlib
import gc
import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import zlib
from decimal import Decimal
from fractions import Fraction

PROG = 'flamegraph.py'


class Failure(Exception):
    """Ends the run with a sentence on stderr and an exit code."""

    def __init__(self, sentence, code=2):
        super().__init__(sentence)
        self.code = code


def say(sentence):
    """One line on stderr, in ASCII, so that no terminal encoding can make it fail."""
    line = '%s: %s\n' % (PROG, sentence)
    try:
        sys.stderr.write(line.encode('ascii', 'backslashreplace').decode('ascii'))
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody is listening


# >>input: folded text to a list of (key, count)
#
# A key is the stack as bytes with NUL between frames. NUL is the smallest byte and never part of a
# name, so plain sorting of keys is a depth-first walk of the tree with sorted children: a stack
# comes right before the stacks that extend it, and everything under one parent is adjacent. (Sorted
# *lines* do not have this property: `;` is larger than a space, and `a b;c` would split `a;c`.)
# So no tree is ever built; memory is the distinct stacks and nothing else.

NUMBER = re.compile(rb'\+?(\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?\Z')
TWO_COUNTS = re.compile(rb'[;\s]\S*\s+\d+\.?\d*\Z')
MAX_DIGITS = 400        # longer tokens are no counts, and quadratic conversions are no fun
QUOTED_LINES = 5        # bad lines shown on stderr; the rest are only counted


def parse_count(token):
    """int, Fraction (exact: 0.1 + 0.2 is 0.3, in whatever order), or None if it is no count."""
    if len(token) > MAX_DIGITS:
        return None
    if token.isdigit():
        return int(token)
    if not NUMBER.match(token):
        return None
    value = Fraction(token.decode('ascii'))
    return value.numerator if value.denominator == 1 else value


class Input:
    """Accumulates folded lines from any number of streams."""

    def __init__(self, options):
        self.options = options
        self.keep = [re.compile(p) for p in options.filter]
        self.drop = [re.compile(p) for p in options.exclude]
        self.counts = {}        # stack as read -> count
        self.order = []         # --flamechart: (stack, count) as read
        self.bad = 0
        self.stacks = 0         # usable lines
        self.filtered = 0       # their count, if --filter or --exclude took them out
        self.match_memo = {}

    def wanted(self, frames):
        """Whether --filter and --exclude let this stack pass. Each name meets each regex once."""
        memo = self.match_memo
        left = (1 << len(self.keep)) - 1
        for frame in frames:
            bits = memo.get(frame)
            if bits is None:
                name = display_name(frame)
                bits = -1 if any(r.search(name) for r in self.drop) else \
                    sum(1 << i for i, r in enumerate(self.keep) if r.search(name))
                memo[frame] = bits
            if bits < 0:
                return False
            left &= ~bits
        return not left

    def reject(self, where, number, line, why):
        self.bad += 1
        if self.bad <= QUOTED_LINES:
            text = line.decode('utf-8', 'backslashreplace').strip()
            text = text if len(text) <= 80 else text[:77] + '...'
            say('%s:%d: %s: "%s"' % (where, number, why, visible(text)))

    def read(self, where, lines):
        counts, usable, plain = self.counts, 0, not self.options.flamechart
        known = counts.get
        for number, line in enumerate(lines, 1):
            parts = line.rsplit(None, 1)
            if plain and len(parts) == 2 and parts[1].isdigit() and len(parts[1]) < 19 \
                    and line[0] != 35:      # not #
                stack = parts[0]
                counts[stack] = known(stack, 0) + int(parts[1])
                usable += 1
            elif parts:
                self.read_odd(where, number, line, parts)
        self.stacks += usable

    def read_odd(self, where, number, line, parts):
        """Whatever is not simply a stack and a whole number."""
        count = parse_count(parts[-1])
        stack = parts[0] if len(parts) == 2 else b''
        if line[:1] == b'#' and (count is None or b';' not in stack or line[1:2] in b'#! \t'):
            return
        if count is None:
            self.reject(where, number, line, 'the count is too long' if len(parts[-1]) > MAX_DIGITS
                        else 'the line does not end in a count')
        elif not stack:
            self.reject(where, number, line, 'there is no stack before the count')
        else:
            self.stacks += 1
            if self.options.flamechart:
                self.order.append((stack, count))
            else:
                self.counts[stack] = self.counts.get(stack, 0) + count

    def finish(self):
        """(keys and integer counts in drawing order, divisor of the counts)."""
        chart, reverse = self.options.flamechart, self.options.reverse
        selective = bool(self.keep or self.drop)
        pending = self.order if chart else self.counts
        two = len(pending) > 1 and all(TWO_COUNTS.search(entry[0] if chart else entry)
                                    for entry in pending)
        if two:
            say('Every line ends in two counts: the last is used; --diff draws both.')
        items = []
        if chart:
            pending.reverse()
        while pending:
            stack, count = pending.pop() if chart else pending.popitem()
            if not count:
                continue
            if two:
                stack = stack.rsplit(None, 1)[0]
            if b'\0' in stack:
                stack = stack.replace(b'\0', b'\\x00')
            key = stack.replace(b';', b'\0')
            if selective or reverse:
                frames = key.split(b'\0')
                if selective and not self.wanted(frames):
                    self.filtered += count
                    continue
                if reverse:
                    key = b'\0'.join(reversed(frames))
            items.append((key, count))
        divisor = 1
        for _, count in items:
            if type(count) is not int:
                divisor = divisor // gcd(divisor, count.denominator) * count.denominator
        if divisor > 1:
            items = [(key, int(count * divisor)) for key, count in items]
        if not chart:
            items.sort(key=lambda item: item[0])
        return items, divisor


def gcd(a, b):
    while b:
        a, b = b, a % b
    return a


def decoded_lines(stream):
    """Lines as UTF-8 bytes, whatever the stream starts with: gzip, a byte order mark."""
    if stream.peek(2)[:2] == b'\x1f\x8b':
        stream = gzip.GzipFile(fileobj=stream)
    first = stream.readline()
    if first[:2] in (b'\xff\xfe', b'\xfe\xff'):     # UTF-16: what a PowerShell `>` writes
        text = (first + stream.read()).decode('utf-16', 'backslashreplace')
        yield from text.encode('utf-8').split(b'\n')
        return
    yield first[3:] if first[:3] == b'\xef\xbb\xbf' else first
    yield from stream


class Function:
    __slots__ = ('name', 'own', 'total', 'stacks', 'open', 'sandwich')

    def __init__(self, name):
        self.name = name            # bytes
        self.own = self.total = 0   # counts
        self.stacks = 0             # in how many it is
        self.open = 0               # frames of it that are open while Functions counts
        self.sandwich = None        # (what it calls, what calls it): lists of grow()


class Names(dict):
    def __missing__(self, name):
        function = self[name] = Function(name)
        return function


class Stacks:
    """The keys as lists of Functions, one for each name. Empties `items`."""

    def __init__(self, items):
        self.list = []              # (Functions, count)
        self.shared = []            # leading frames each has in common with the one before
        function = Names().__getitem__
        before, frames = b'', []
        items.reverse()
        while items:
            key, count = items.pop()
            key += b'\0'
            # Most of a stack is as before. What is not is looked for from its end.
            size, step = min(len(before), len(key)), 32
            while not key.startswith(before[:size]):
                size, step = max(0, size - step), 2 * step
            kept = key.count(b'\0', 0, size)
            more = key[key.rfind(b'\0', 0, size) + 1:-1].split(b'\0') if size < len(key) else []
            more = list(map(function, more))
            shared = kept
            for a, b in zip(frames[kept:], more):
                if a is not b:
                    break
                shared += 1
            frames = frames[:kept] + more
            self.list.append((frames, count))
            self.shared.append(shared)
            before = key


# >>layout: sorted stacks to the frames worth drawing
#
# One pass with a stack of open frames. A frame opens at the first line that has it and closes at
# the first that has not; its total is what went by in between. Narrow frames vanish as they close;
# a line too narrow by itself never opens what its two neighbours do not share. So the cost is
# linear in the input, and the memory that of the frames that are drawn. Nothing recurses.
#
# Measured with 1,000,000 lines of 40 frames (0.8 GB), all different, on two cores of a virtual
# machine: 11 to 17 s and 0.95 GB.
#
# Within a frame the children come first and its own count after them (to the right). As sorting
# brings a stack before those that extend it, a child is moved left by its ancestors' own counts.

MINWIDTH = Fraction(1, 10)  # px; slivers that are seen only when one zooms
MOST_FRAMES = 7000          # more make a picture over 2 MB, which is slow to open and to zoom


class Frame:
    __slots__ = ('name', 'depth', 'x', 'total', 'own', 'shift', 'pruned', 'first', 'last')

    def __init__(self, name, depth, x, start, shift, first):
        self.name = name        # bytes; None for the root
        self.depth = depth      # 0 for the root
        self.x = x              # left edge, in counts
        self.total = start      # while open: where it started; then its total
        self.own = 0
        self.shift = shift      # own counts of the ancestors and this frame
        self.pruned = 0         # counts of its pruned children
        self.first = first      # its stacks are those from here
        self.last = first       # up to there


class Layout:
    def __init__(self, stacks, pixels, minwidth, maxdepth, ordered):
        total = self.total = sum(count for _, count in stacks.list)
        self.pixels = pixels
        self.minwidth = MINWIDTH if minwidth is None else minwidth
        # Counts below this are narrower than minwidth: ceil(minwidth / pixels * total).
        self.threshold = max(1, -(-(self.minwidth * total) // pixels))
        self.narrow = 0             # frames hidden for their width
        self.narrow_counts = 0      # what they stand for, each count once
        self.deep = 0               # frames hidden by --depth
        self.deep_counts = 0
        self.frames = []            # those to draw, parents before children
        self.run(stacks, maxdepth, ordered)
        if minwidth is None and len(self.frames) > MOST_FRAMES:
            self.thin()
        self.levels = 1 + max(f.depth for f in self.frames)

    def run(self, stacks, maxdepth, ordered):
        out, threshold = self.frames, self.threshold
        root = Frame(None, 0, 0, 0, 0, 0)
        out.append(root)
        stack = [root]              # those that are open
        at = 0                      # counts gone by
        ends = stacks.shared[1:] + [0]
        for i, ((frames, count), shared, ahead) in enumerate(zip(stacks.list, stacks.shared, ends)):
            size = len(frames)
            if maxdepth and size > maxdepth:
                self.deep += size - max(shared, maxdepth)
                self.deep_counts += count
                limit = maxdepth
            else:
                limit = size
            if shared + 1 < len(stack):
                self.close(stack, shared, at, i)
            end = limit
            if count < threshold:
                end = min(limit, max(shared, ahead))
                self.narrow += limit - end
            while len(stack) <= end:
                depth, parent = len(stack), stack[-1]
                x = at if ordered else at - parent.shift
                frame = Frame(frames[depth - 1].name, depth, x, at, parent.shift, i)
                stack.append(frame)
                out.append(frame)
            if end < limit:
                stack[-1].pruned += count
            elif limit == size:
                stack[size].own += count
                stack[size].shift += count
            at += count
        self.close(stack, 0, at, len(ends))
        root.total = at
        root.last = len(ends)
        self.narrow_counts += root.pruned

    def thin(self):
        """Raises the threshold until there are no more than MOST_FRAMES."""
        totals = sorted((f.total for f in self.frames), reverse=True)
        self.threshold = totals[MOST_FRAMES] + 1
        self.minwidth = Fraction(round(Fraction(100 * self.threshold * self.pixels, self.total)), 100)
        every, self.frames, self.narrow_counts = self.frames, [], 0
        path = [0] * (1 + max(f.depth for f in every))      # totals of f and its ancestors
        for f in every:
            path[f.depth] = f.total
            if f.total >= self.threshold:
                self.frames.append(f)
                self.narrow_counts += f.pruned
            else:
                self.narrow += 1
                if path[f.depth - 1] >= self.threshold:
                    self.narrow_counts += f.total

    def close(self, stack, keep, at, item):
        """Closes the open frames deeper than `keep`, dropping those that came out too narrow."""
        while len(stack) > keep + 1:
            frame = stack.pop()
            frame.total = at - frame.total
            frame.last = item
            if frame.total < self.threshold:
                self.frames.pop()       # its children were narrower, so it is the last one
                self.narrow += 1
                stack[-1].pruned += frame.total
            else:
                self.narrow_counts += frame.pruned


# >>functions: the hottest ones, and who calls whom
#
# All of this is computed from every stack, before any frame is left out for its width. A stack that
# has a function several times counts once for it. Threads are not functions.

MOST_ROWS = 100             # of the table: the hottest by self, and as many by total
SANDWICH_STACKS = 60000     # so many stacks are gone through for sandwiches, ...
SANDWICH_FRAMES = 20000     # ... which have so many frames together
SANDWICH_PARTS = 300        # and none of less than this part of the function


class Functions:
    def __init__(self, stacks, threads, reverse):
        self.stacks = stacks.list
        self.leaf, self.towards_leaf = (0, -1) if reverse else (-1, 1)
        self.code = slice(None, -1 if threads else None) if reverse else \
            slice(1 if threads else 0, None)
        self.used = []
        opened, at = [], 0          # frames that are open, counts gone by
        skip = self.code.start or 0
        for i, (frames, count) in enumerate(self.stacks):
            code = frames[self.code]
            self.close(opened, min(stacks.shared[i] - skip, len(code)), at, i)
            for f in code[len(opened):]:
                opened.append(f)
                if not f.open:      # the outermost frame of it: from here on its counts go by
                    if not f.stacks:
                        self.used.append(f)
                    f.total -= at
                    f.stacks -= i
                f.open += 1
            if code:
                code[self.leaf].own += count
            at += count
        self.close(opened, 0, at, len(self.stacks))
        self.all = at               # counts

    def close(self, opened, keep, at, i):
        while len(opened) > max(0, keep):
            f = opened.pop()
            f.open -= 1
            if not f.open:
                f.total += at
                f.stacks += i

    def hottest(self, by_self, most):
        """The greatest first; ties in the order of names."""
        key = (lambda f: f.own) if by_self else (lambda f: f.total)
        return sorted(filter(key, self.used), key=lambda f: (-key(f), f.name))[:most]

    def text(self, most, unit, countname):
        out = []
        for by_self in (True, False):
            rows = [('self', '', 'total', '', 'function')]
            for f in self.hottest(by_self, most):
                rows.append((number(f.own * unit), percent(f.own, self.all),
                             number(f.total * unit), percent(f.total, self.all),
                             display_name(f.name)))
            wide = [max(len(row[i]) for row in rows) for i in range(4)]
            out.append('By %s, of %s %s:\n' % ('self' if by_self else 'total',
                                               number(self.all * unit), visible(countname)))
            for row in rows:
                cells_of = [cell.rjust(w) for cell, w in zip(row, wide)]
                out.append('  '.join(cells_of + [row[4]]) + '\n')
            out.append('\n')
        return ''.join(out[:-1])

    def merged(self, least):
        """All stacks in a tree from the other end than the one they begin with."""
        return grow([(frames, len(frames) - 1, count) for frames, count in self.stacks], -1, least)

    def table(self):
        """Those for the table, those of much self first, with sandwiches for as many as can be."""
        rows = self.hottest(True, MOST_ROWS)
        rows += [f for f in self.hottest(False, MOST_ROWS) if f not in set(rows)]
        left, chosen = SANDWICH_STACKS, {}
        for f in sorted(rows, key=lambda f: (f.stacks, f.name)):    # the most that can be had
            left -= f.stacks
            if left < 0:
                break
            chosen[f] = []
        wanted, outward = set(chosen), self.towards_leaf
        for frames, count in self.stacks:
            for f in wanted.intersection(frames[self.code]):
                if outward > 0:     # the call of it that is nearest to the root
                    at = frames.index(f, self.code.start)
                else:
                    at = len(frames) - 1 - frames[::-1].index(f, -(self.code.stop or 0))
                chosen[f].append((frames, at, count))
        left = SANDWICH_FRAMES
        for f, stacks in chosen.items():
            least = max(1, f.total // SANDWICH_PARTS)
            calls, callers = (grow(stacks, way, least)[0] for way in (outward, -outward))
            left -= len(calls) + len(callers)
            if left < 0:
                break
            f.sandwich = calls[1:], callers[1:]
        return rows


def grow(stacks, way, least):
    """Merges stacks into a tree, from a frame of each, forwards (way 1) or backwards (-1).

    A stack is (Functions, index of that frame, count). Returns the frames of at least `least` counts
    as (depth, Function, total, self), parents before children and those by name, and the counts of
    what was left out. The first frame has no function: it is everything.
    """
    out, lost = [], 0
    pending = [(0, None, sum(count for _, _, count in stacks), stacks)]
    while pending:
        depth, function, total, group = pending.pop()
        step, own, sums = way * depth, total, {}
        for frames, at, count in group:
            at += step
            if 0 <= at < len(frames):
                f = frames[at]
                sums[f] = sums.get(f, 0) + count
                own -= count
        out.append((depth, function, total, own))
        wide = {f: [] for f, part in sums.items() if part >= least}
        lost += total - own - sum(map(sums.get, wide))
        if wide:
            for stack in group:
                at = stack[1] + step
                if 0 <= at < len(stack[0]) and stack[0][at] in wide:
                    wide[stack[0][at]].append(stack)
            for f in sorted(wide, key=lambda f: f.name, reverse=True):
                pending.append((depth + 1, f, sums[f], wide[f]))
    return out, lost


# >>diff: two profiles in one picture
#
# Both are laid out together, and the width of a frame is the mean of its two totals: so what has
# gone is still there, and what is new is already. Which of its counts came after is a difference of
# running sums, because a frame is a run of items.

def added_up(items):
    out = {}
    for key, count in items:
        out[key] = out.get(key, 0) + count
    return out


class Diff:
    def __init__(self, before, after, normalise):
        (old, old_divisor), (new, new_divisor) = before, after
        old, new = added_up(old), added_up(new)
        self.divisor = old_divisor * new_divisor
        scales = new_divisor, old_divisor
        old_all, new_all = (sum(side.values()) * scale for side, scale in zip((old, new), scales))
        if normalise and old_all and new_all:       # both get the product of the totals
            self.divisor *= old_all
            scales = scales[0] * new_all, scales[1] * old_all
        self.scales = scales[0] * old_divisor, scales[1] * new_divisor
        self.sums = [0]             # counts after, of the items so far
        self.items = []
        for key in sorted(set(old) | set(new)):
            a = new.get(key, 0) * scales[1]
            self.sums.append(self.sums[-1] + a)
            self.items.append((key, old.get(key, 0) * scales[0] + a))
        self.greatest = 1           # change of a frame

    def totals(self, frame):
        after = self.sums[frame.last] - self.sums[frame.first]
        return frame.total - after, after

    def selfs(self, frame):
        """Its own item, if it has one, is the first of its items."""
        if not frame.own:
            return 0, 0
        after = self.sums[frame.first + 1] - self.sums[frame.first]
        return frame.own - after, after

    def measure(self, frames):
        self.greatest = max([1] + [abs(a - b) for b, a in map(self.totals, frames[1:])])


def change(before, after):
    if before == after:
        return 'unchanged'
    if not before or not after:
        return 'gone' if before else 'new'
    return ('+' if after > before else '\u2212') + percent(abs(after - before), before)


# >>colours: a name always has the same colour, in every graph
#
# Hue and lightness come from a CRC of the name, inside the chosen palette's range. Frames that are
# not code (threads, losses, unknown addresses) have muted colours of their own. Text is one dark
# ink everywhere; a colour too dark for it is lightened until the WCAG contrast is 4.5:1 or better.

INK = '#1c1917'
ROOT_FILL = '#e8e2da'
THREAD_FILL = '#cfdbe8'
CONTRAST = 4.6

PALETTES = {            # hue range (degrees, may pass 360), saturation, lightness range
    'hot':    (8, 49, 0.87, 0.64, 0.73),
    'mem':    (85, 155, 0.42, 0.60, 0.74),
    'io':     (190, 221, 0.68, 0.68, 0.80),
    'hash':   (0, 360, 0.60, 0.70, 0.78),
    'red':    (352, 372, 0.80, 0.67, 0.80),
    'orange': (18, 38, 0.90, 0.62, 0.75),
    'yellow': (44, 58, 0.85, 0.58, 0.74),
    'green':  (105, 140, 0.42, 0.62, 0.77),
    'aqua':   (168, 190, 0.45, 0.60, 0.75),
    'blue':   (205, 225, 0.72, 0.70, 0.82),
    'purple': (262, 290, 0.55, 0.73, 0.83),
    'grey':   (30, 40, 0.06, 0.68, 0.84),
}

# What kind of code a name is, by the marks that perf's converters and JIT maps leave.
JAVA = (
    (re.compile(r'.*_\[k\]', re.S), 'orange'),                   # kernel
    (re.compile(r'.*_\[i\]', re.S), 'aqua'),                     # inlined
    (re.compile(r'.*_\[j\]|L?(?:java|javax|jdk|sun|net|com|org|io|scala|kotlin)[/.].*', re.S),
     'green'),
    (re.compile(r'.*::.*', re.S), 'yellow'),                     # C++
)
MODULE = re.compile(r'([^`!(<:]+)(?:`|!|::).*', re.S)            # unix`read, ntdll!Nt, core::fmt

SPECIALS = (            # kind, what the whole name looks like, colour, word for the legend
    ('lost',      re.compile(r'\[lost\]'),                  '#dcb9b6', '[lost]'),
    ('unsampled', re.compile(r'\[unsampled\]'),             '#d2d0cd', '[unsampled]'),
    ('truncated', re.compile(r'\[truncated\]'),             '#cfc6a4', '[truncated]'),
    ('jit',       re.compile(r'\[jit\]'),                   '#aecbc4', '[jit]'),
    ('cprof',     re.compile(r'\[cprof\]'),                 '#b9bcc4', '[cprof]'),
    ('unknown',   re.compile(r'\[unknown\]|\[.*\+0x[0-9a-fA-F]+\]|0x[0-9a-fA-F]+', re.S),
     '#c9bcdf', 'no symbol'),
)


SAME_FILL, GREW_FILL, SHRANK_FILL = '#efe9e1', '#f4796b', '#6fa6e6'


def change_colour(part, grew):
    """`part` of the greatest change, as a step from no change to that."""
    towards = GREW_FILL if grew else SHRANK_FILL
    mix = [(int(SAME_FILL[i:i + 2], 16), int(towards[i:i + 2], 16)) for i in (1, 3, 5)]
    return '#%02x%02x%02x' % tuple(round(a + (b - a) * part) for a, b in mix)


def luminance(rgb):
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
               for c in (int(rgb[i:i + 2], 16) / 255 for i in (1, 3, 5)))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def scatter(name):
    """32 bits of a name; those of similar names differ."""
    bits = zlib.crc32(name.encode('utf-8', 'surrogatepass'))
    return (bits * 0x9E3779B1 ^ bits >> 15) & 0xFFFFFFFF


def function_colour(name, colors):
    bits = hue_bits = scatter(name)
    palette = colors
    if colors == 'java':
        palette = next((hues for pattern, hues in JAVA if pattern.fullmatch(name)), 'red')
    elif colors == 'module':
        m = MODULE.fullmatch(name)
        palette, hue_bits = ('hash', scatter(m.group(1))) if m else ('grey', bits)
    low, high, saturation, dark, light = PALETTES[palette]
    hue = low + (high - low) * (hue_bits >> 16) / 0xFFFF
    lightness = dark + (light - dark) * (bits & 0xFF) / 0xFF
    while True:
        rgb = colorsys.hls_to_rgb(hue % 360 / 360, lightness, saturation)
        colour = '#%02x%02x%02x' % tuple(round(255 * c) for c in rgb)
        if contrast(colour, INK) >= CONTRAST:
            return colour
        lightness += 0.02


def classify(name):
    """(kind, fixed colour or None) of a displayed name."""
    for kind, pattern, colour, _ in SPECIALS:
        if pattern.fullmatch(name):
            return kind, colour
    return 'code', None


# >>text: names, numbers, and how much of them fits

# What XML forbids, and what would reorder or break the line it is shown in.
UNSHOWABLE = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069'
                        '\ufeff\ufffe\uffff\ud800-\udfff]')
WIDE = ((0x1100, 0x115F), (0x2E80, 0xA4CF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFE30, 0xFE6F),
        (0xFF00, 0xFF60), (0xFFE0, 0xFFE6), (0x1F300, 0x1FAFF), (0x20000, 0x3FFFD))
MONO_EM = 0.615         # advance of common monospaced fonts is 0.55 to 0.602 em
SANS_EM = 0.56          # generous mean of proportional ones


def visible(text):
    """The text with unshowable characters as escapes: still distinct, never harmful."""
    def escape(m):
        code = ord(m.group())
        return '\\x%02x' % code if code < 256 else '\\u%04x' % code
    return UNSHOWABLE.sub(escape, text)


def display_name(raw):
    return visible(raw.decode('utf-8', 'backslashreplace')) or '[empty]'


def xml(text):
    return (text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')
            .replace('"', '&quot;'))


def cells(char):
    code = ord(char)
    return 2 if code >= 0x1100 and any(a <= code <= b for a, b in WIDE) else 1


def fit(text, pixels, cell):
    """As many code points as fit, with an ellipsis if some do not; '' if it is not worth it."""
    room = int(pixels / cell)
    if len(text) * 2 <= room or sum(map(cells, text)) <= room:
        return text
    used, out = 1, []
    for char in text:
        used += cells(char)
        if used > room:
            break
        out.append(char)
    return ''.join(out) + '\u2026' if len(out) >= 2 else ''


def percent(part, whole):
    """Exact, half up, two places; what is not nothing never reads as nothing."""
    hundredths = (part * 20000 + whole) // (2 * whole)
    if part and not hundredths:
        return '<0.01%'
    return '%d.%02d%%' % divmod(hundredths, 100)


def number(value):
    """A Fraction as 1,234.5, exact to nine places; what is huge or tiny as 1.500000e+30."""
    if not value:
        return '0'
    if not Fraction(1, 10 ** 9) <= value < 10 ** 24:
        return '{:.6e}'.format(Decimal(value.numerator) / Decimal(value.denominator))
    whole, rest = divmod((value.numerator * 2 * 10 ** 9 + value.denominator)
                         // (2 * value.denominator), 10 ** 9)
    return '{:,}'.format(whole) + (('.%09d' % rest).rstrip('0') if rest else '')


def plural(n, word):
    return '{:,} {}{}'.format(n, word, '' if n == 1 else 's')


# >>svg: the picture
#
# Everything essential is an attribute; <style> only adds hover, focus and the dark scheme, under
# the root's own id so that several graphs in one page leave each other alone. The script reads what
# it needs from the picture itself: data-p (depth, place and width in counts) of each frame and the
# lines of its <title>; the other views, which need a script to be seen, are JSON in <metadata>.
# There are no other ids, and no references that could clash.

PAD = 16                # left and right margin, px
HEADER = 72             # title and summary, px
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
MUTED = '#6b645d'
PAPER = '#fffdfa'
EXACT = 1 << 53         # beyond this, JavaScript numbers skip integers
LARGEST = 10 ** 300     # what a script can still count to


def decimal2(hundredths):
    """1/100ths in decimal, without idle zeros. Geometry is integers all the way to here."""
    return ('%d.%02d' % divmod(hundredths, 100)).rstrip('0').rstrip('.')


class Picture:
    def __init__(self, options, layout, unit, filtered, diff=None, functions=None):
        self.diff = diff
        self.functions = functions
        self.options = options
        self.layout = layout
        self.unit = unit                    # what one integer count stands for
        self.filtered = filtered
        self.width = options.width
        self.inner = options.width - 2 * PAD
        self.row = options.height
        self.font = max(6, min(12, options.height - 6))
        self.kinds = set()
        self.memo = {}                      # (raw name, is a thread) -> (name, kind, colour)

    def amount(self, counts):
        return number(counts * self.unit)

    def small(self, counts):
        """Counts for the script, scaled down where they are too large for it."""
        total = self.layout.total
        return counts if total < EXACT else counts * EXACT // total

    def is_thread(self, depth, total, own, callers):
        """The first frame of a line is. Trees from the leaf end with it: all it has is its own."""
        return self.options.threads and depth > 0 and (own == total if callers else depth == 1)

    def look(self, name, thread):
        """(name, kind, colour) of a frame."""
        if name is None:
            return 'all', 'root', ROOT_FILL
        key = name, thread
        if key not in self.memo:
            name = display_name(name)
            kind, colour = classify(name)
            if kind == 'code' and thread:
                kind, colour = 'thread', THREAD_FILL
            elif kind == 'code':
                colour = function_colour(name, self.options.colors)
            self.memo[key] = name, kind, colour
        return self.memo[key]

    def frame(self, frame):
        options, total = self.options, self.layout.total
        name, kind, colour = self.look(frame.name, self.is_thread(
            frame.depth, frame.total, frame.own, options.reverse))
        self.kinds.add(kind)
        if self.diff:
            facts = [self.changed(word, of(frame)) for word, of in
                     (('total', self.diff.totals), ('self', self.diff.selfs))]
            if frame.depth:
                colour = self.change_colour(*self.diff.totals(frame))
        else:
            facts = ['%s %s %s (%s)' % (word, self.amount(part), self.countname,
                                        xml(percent(part, total))) if part else word + ' 0'
                     for word, part in (('total', frame.total), ('self', frame.own))]
        x, end = frame.x, frame.x + frame.total
        data_x = self.small(x)
        level = frame.depth if options.inverted else self.layout.levels - 1 - frame.depth
        y = level * self.row
        scale = 200 * self.inner
        left = (x * scale + total) // (2 * total)           # 1/100 px, half up
        wide = (end * scale + total) // (2 * total) - left
        gap = 60 if wide > 300 else 0
        parts = ['<g class="f%s" data-p="%d %d %d"><title>%s\n%s\n%s</title>'
                 '<rect x="%s" y="%d" width="%s" height="%d" fill="%s"%s/>'
                 % ('' if kind == 'code' or self.diff and frame.depth else ' f-' + kind,
                    frame.depth, data_x, self.small(end) - data_x, xml(name),
                    facts[0], facts[1], decimal2(left), y, decimal2(max(1, wide - gap)),
                    self.row - 1, colour,
                    ' rx="2"' if wide > 600 else '')]
        label = fit(name, wide / 100 - 8, self.font * MONO_EM)
        if label:
            bold = ' font-weight="600"' if kind in ('thread', 'root') else ''
            parts.append('<text x="%s" y="%s"%s>%s</text>'
                         % (decimal2(left + 400), decimal2(100 * y + self.baseline), bold,
                            xml(label)))
        parts.append('</g>\n')
        return ''.join(parts)

    def changed(self, word, counts):
        before, after = counts
        return '%s %s \u2192 %s %s (%s)' % (word, self.amount(before), self.amount(after),
                                           self.countname, xml(change(before, after)))

    def change_colour(self, before, after):
        grew = after > before
        self.kinds.add('grew' if grew else 'same' if after == before else 'shrank')
        # the square root: small changes are to be seen, and are many
        return change_colour((abs(after - before) / self.diff.greatest) ** 0.5,
                             grew != self.options.negate)

    def hidden_notes(self):
        """What the picture does not show, in words."""
        lay, notes = self.layout, []
        if self.diff:
            notes.append('a width is the mean of before and after'
                         + (', before scaled to the total after' if self.options.normalize else ''))
        if lay.narrow:
            notes.append('%s, %s, hidden: narrower than %s px'
                         % (plural(lay.narrow, 'frame'), percent(lay.narrow_counts, lay.total),
                            number(lay.minwidth)))
        if lay.deep:
            notes.append('%s, %s, hidden: deeper than %s'
                         % (plural(lay.deep, 'frame'), percent(lay.deep_counts, lay.total),
                            plural(self.options.depth, 'level')))
        if self.filtered:
            before = lay.total + self.filtered
            notes.append('%s %s, %s, filtered out'
                         % (self.amount(self.filtered), self.options.countname,
                            percent(self.filtered, before)))
        return notes

    def summary(self):
        threads = {f.name for f in self.layout.frames
                   if f.depth == 1 and self.options.threads and not self.options.reverse
                   and classify(display_name(f.name))[0] == 'code'}
        words = [visible(self.options.subtitle)] if self.options.subtitle else []
        if self.diff:
            before, after = self.diff.totals(self.layout.frames[0])
            words.append('%s \u2192 %s %s (%s)' % (self.amount(before), self.amount(after),
                                                  visible(self.options.countname),
                                                  change(before, after)))
        else:
            words.append('%s %s' % (self.amount(self.layout.total),
                                    visible(self.options.countname)))
        if threads:
            words.append(plural(len(threads), 'thread'))
        return ' \u00b7 '.join(words)

    def legend(self, y):
        """(svg, last baseline) of swatches for the frames that are not ordinary code."""
        if self.diff:
            fills = (GREW_FILL, SHRANK_FILL)
            entries = [('grew', fills[self.options.negate], 'grew'),
                       ('same', SAME_FILL, 'unchanged'),
                       ('shrank', fills[not self.options.negate], 'shrank')]
            entries = [e for e in entries if e[0] in self.kinds]
        else:
            entries = [(kind, colour, word) for kind, _, colour, word in SPECIALS
                       if kind in self.kinds]
        if not entries:
            return [], y
        if 'thread' in self.kinds and not self.diff:
            entries.insert(0, ('thread', THREAD_FILL, 'thread'))
        out, x = ['<g class="legend" data-y="%d" data-last="%d">\n'], PAD
        first = y
        for kind, colour, word in entries:
            wide = 36 + round(len(word) * 11.5 * SANS_EM)
            if x > PAD and x + wide > self.width:
                x, y = PAD, y + 20
            out.append('<g transform="translate(%d,%d)"><rect class="k-%s" y="-10" width="11" '
                       'height="11" rx="2" fill="%s"/><text class="muted" x="16" '
                       'font-size="11.5" fill="%s">%s</text></g>\n'
                       % (x, y, kind, colour, MUTED, word))
            x += wide
        out[0] %= first, y
        out.append('</g>\n')
        return out, y

    def views(self):
        """The other views, as JSON. Frames are depth, index of the name, total and self in a row."""
        names, places = [], {}

        def index(look):
            if look not in places:
                places[look] = len(names)
                names.append(look)
            return places[look]

        def flat(frames, callers, whole):
            out = []
            for depth, f, total, own in frames:
                thread = (whole or callers) and self.is_thread(depth, total, own, callers)
                out += [depth, index(self.look(f and f.name, thread)),
                        self.small(total), self.small(own)]
            return out

        functions, callers = self.functions, not self.options.reverse
        other, lost = functions.merged(self.layout.threshold)
        other = flat(other, callers, True)
        rows = [[index(self.look(f.name, False)), self.small(f.own), self.small(f.total)]
                + [flat(frames, way, False) for way, frames in enumerate(f.sandwich or ())]
                for f in functions.table()]
        data = {'unit': float(self.unit * max(1, Fraction(self.layout.total, EXACT))),
                'count': visible(self.options.countname), 'names': names, 'other': other,
                'callers': callers, 'lost': percent(lost, self.layout.total) if lost else '',
                'rows': rows, 'functions': len(functions.used)}
        text = json.dumps(data, separators=(',', ':'))
        for char in '<>&':          # neither XML nor HTML may see markup here
            text = text.replace(char, '\\u%04x' % ord(char))
        return '<metadata>%s</metadata>\n' % text

    def line(self, css, y, size, fill, text, weight=''):
        """A line of chrome: cut to the width here, and by the script again from data-full."""
        text = visible(text)
        short = fit(text, self.inner, size * (SANS_EM + (0.06 if weight else 0)))
        return ('<text class="%s" x="%d" y="%d" font-size="%s" fill="%s"%s data-full="%s">%s'
                '</text>\n' % (css, PAD, y, size, fill, weight, xml(text), xml(short)))

    def render(self):
        """The whole document, as str."""
        options, lay = self.options, self.layout
        self.countname = xml(visible(options.countname))
        self.baseline = (self.row - 1) * 50 + self.font * 36             # 1/100 px below the top
        title = visible(options.title)
        frames = [self.frame(f) for f in lay.frames]
        graph_h = lay.levels * self.row

        foot = []
        y = HEADER + graph_h + 24
        texts = self.hidden_notes()
        if texts:
            foot.append(self.line('muted hidden', y, 11.5, MUTED, ' \u00b7 '.join(texts)))
            y += 20
        if options.notes:
            foot.append(self.line('muted notes', y, 11.5, MUTED, options.notes))
            y += 20
        legend, last = self.legend(y)
        if legend:
            foot += legend
            y = last + 20
        height = y if foot else HEADER + graph_h + 16

        head = [self.line('title', 32, 18, INK, title, ' font-weight="600"'),
                self.line('muted summary', 53, 12.5, MUTED, self.summary())]
        kind = 'icicle' if options.inverted else 'flame'
        desc = ('%s. Each box is a function; its width is its share of the %s, and the boxes %s '
                'it are what %s.'
                % (self.summary(), visible(options.countname),
                   'below' if options.inverted else 'above',
                   'called it' if options.reverse else 'it called'))
        words = '<title>%s</title>\n<desc>%s</desc>\n' % (xml(title), xml(desc))
        body = ''.join([
            '<rect class="paper" width="100%%" height="100%%" fill="%s"/>\n' % PAPER,
            '<g class="frames" transform="translate(%d,%d)" font-family="%s" font-size="%d" '
            'fill="%s">\n' % (PAD, HEADER, MONO, self.font, INK),
            *frames, '</g>\n',
            '<g class="foot" font-family="%s">\n' % SANS, *foot, '</g>\n',
            '<g class="head" font-family="%s">\n' % SANS, *head, '</g>\n',
            self.views() if self.functions and lay.total * self.unit < LARGEST else ''])
        attributes = ('width="%d" height="%d" viewBox="0 0 %d %d" role="img" data-kind="%s" '
                      'data-total="%d" data-row="%d" data-font="%d" data-unseen="%s"'
                      % (self.width, height, self.width, height, kind, min(lay.total, EXACT),
                         self.row, self.font,
                         xml(percent(lay.narrow_counts + lay.deep_counts, lay.total))))
        everything = attributes + words + body + STYLE + SCRIPT
        ident = 'cprof-' + hashlib.sha256(everything.encode('utf-8')).hexdigest()[:10]
        return ''.join([
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<svg xmlns="http://www.w3.org/2000/svg" id="%s" class="cprof-flamegraph" %s>\n'
            % (ident, attributes), words,
            '<style><![CDATA[%s]]></style>\n' % STYLE.replace('#ID', '#' + ident), body,
            '<script><![CDATA[%s]]></script>\n</svg>\n' % SCRIPT])


# >>style: what scripts, pointers and dark rooms add; #ID becomes the id of the root
STYLE = r"""
#ID { --paper: #fffdfa; --ink: #1c1917; --muted: #6b645d; --line: #d9d0c5; --field: #ffffff;
  --hit: #d977f2; --dim: #ece7e0; --dimink: #625b54; --ring: #1d4ed8; --warn: #b42318; --bar: #f7c98b;
  color-scheme: light; background: var(--paper); }
#ID.live .f { cursor: pointer; outline: none; }
#ID.live text { pointer-events: none; user-select: none; -webkit-user-select: none; }
#ID .f:hover rect { stroke: #1c1917; stroke-opacity: .65; stroke-width: 1; }
#ID .f.hit rect { fill: var(--hit); }
#ID .f.hit text { fill: #1c1917; }
#ID .f.dim rect { fill: var(--dim); }
#ID .f.dim text { fill: var(--dimink); }
#ID .f.twin rect { stroke: var(--ink); stroke-width: 1.5; stroke-opacity: 1; }
#ID .f.dim.hit rect { stroke: var(--hit); stroke-width: 1.5; stroke-opacity: 1; }
#ID .f:focus-visible rect { stroke: var(--ring); stroke-width: 2.5; stroke-opacity: 1; }
#ID .bar { display: flex; flex-wrap: wrap; gap: 8px; justify-content: flex-end;
  align-items: center; margin: 0;
  padding: 4px 3px 4px 0; font: 13px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans',
  sans-serif; }
#ID .bar input, #ID .bar button, #ID .bar select { font: inherit; box-sizing: border-box; height: 30px; margin: 0;
  color: var(--ink); background: var(--field); border: 1px solid var(--line); border-radius: 7px; }
#ID .bar input { width: 110px; flex: 1 1 auto; max-width: 230px; padding: 0 10px; }
#ID .bar select { padding: 0 6px; }
#ID .bar input::placeholder { color: var(--muted); opacity: 1; }
#ID .bar button { padding: 0 11px; cursor: pointer; white-space: nowrap; flex: none; }
#ID .bar button:hover { border-color: var(--muted); }
#ID .bar button[aria-pressed=true] { background: var(--ink); color: var(--paper); }
#ID .bar [hidden] { display: none; }
#ID .bar :focus-visible, #ID .hot :focus-visible { outline: 2px solid var(--ring);
  outline-offset: 1px; }
#ID .bar input[aria-invalid=true] { border-color: var(--warn); outline-color: var(--warn); }
#ID .found { fill: var(--ink); font-variant-numeric: tabular-nums; }
#ID .found.bad { fill: var(--warn); }
#ID .tip { pointer-events: none; overflow: visible; }
#ID .tip div { margin: 0; }
#ID .tip .card { display: inline-block; box-sizing: border-box; max-width: 100%; padding: 8px 11px;
  color: var(--ink); background: var(--field); border: 1px solid var(--line); border-radius: 8px;
  box-shadow: 0 3px 14px rgba(0,0,0,.22); font: 12px/1.5 system-ui, -apple-system, 'Segoe UI',
  Roboto, 'DejaVu Sans', sans-serif; }
#ID .tip .name { font: 600 12px/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas,
  'DejaVu Sans Mono', monospace; overflow-wrap: anywhere; margin-bottom: 3px; }
#ID .tip .fact { color: var(--muted); font-variant-numeric: tabular-nums; }
#ID .hot { margin: 0; color: var(--ink); font: 12.5px/1.5 system-ui, -apple-system, 'Segoe UI',
  Roboto, 'DejaVu Sans', sans-serif; font-variant-numeric: tabular-nums; }
#ID .hot table { width: 100%; border-collapse: collapse; }
#ID .hot caption { position: absolute; width: 1px; height: 1px; overflow: hidden; }
#ID .hot td, #ID .hot th { padding: 2px 10px; text-align: right; font-weight: 400; }
#ID .hot thead th { border-bottom: 1px solid var(--line); }
#ID .hot th:last-child { width: 100%; text-align: left; overflow-wrap: anywhere; }
#ID .hot tbody th { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas,
  'DejaVu Sans Mono', monospace; }
#ID .hot tbody tr:hover { background: var(--dim); }
#ID .hot .part { min-width: 76px; background: linear-gradient(var(--bar), var(--bar)) no-repeat; }
#ID .hot button { margin: 0; padding: 0; border: 0; color: inherit; background: none; font: inherit;
  text-align: left; cursor: pointer; text-decoration: underline dotted; }
#ID .hot thead button { font-weight: 600; text-decoration: none; }
#ID .hot th[aria-sort=ascending] button::after { content: ' \2191'; }
#ID .hot th[aria-sort=descending] button::after { content: ' \2193'; }
@media (prefers-color-scheme: dark) {
  #ID { --paper: #181614; --ink: #f3eee8; --muted: #a79f96; --line: #494239; --field: #25211e;
    --hit: #d977f2; --dim: #35302b; --dimink: #b9b0a6; --ring: #8ab4ff; --warn: #ff8f85; --bar: #6b4a1d;
    color-scheme: dark; }
  #ID .paper, #ID .cover { fill: #181614; }
  #ID .title { fill: #f3eee8; }
  #ID .muted { fill: #a79f96; }
  #ID .f:hover rect { stroke: #ffffff; }
  #ID .f-root rect { fill: #3a342e; }
  #ID .f-root text { fill: #f3eee8; }
  #ID .f-thread rect, #ID .k-thread { fill: #37475a; }
  #ID .f-thread text { fill: #eef3f8; }
  #ID .f.hit rect { fill: var(--hit); }
  #ID .f.hit text { fill: #1c1917; }
  #ID .f.dim rect { fill: var(--dim); }
  #ID .f.dim text { fill: var(--dimink); }
}
@media (forced-colors: active) { #ID .f { forced-color-adjust: none; } }
"""

# >>script: views, zoom, search, keyboard, address
SCRIPT = r"""
(function () {
'use strict';
var me = document.currentScript;
var svg = me && me.closest ? me.closest('svg.cprof-flamegraph') :
          document.querySelector('svg.cprof-flamegraph:not(.live)');
if (!svg || svg.classList.contains('live')) return;

var SVG = 'http://www.w3.org/2000/svg', HTML = 'http://www.w3.org/1999/xhtml';
var PAD = 16, HEADER = 72;
var alone = svg === document.documentElement;
var font = +svg.dataset.font, row = +svg.dataset.row;
var staticWidth = +svg.getAttribute('width'), staticHeight = +svg.getAttribute('height');
var head = svg.querySelector('.head'), foot = svg.querySelector('.foot');
var summary = svg.querySelector('.summary'), aside = svg.querySelector('metadata');
var data = aside && JSON.parse(aside.textContent);

function make(ns, tag, attributes, parent) {
  var e = document.createElementNS(ns, tag);
  for (var k in attributes) e.setAttribute(k, attributes[k]);
  if (parent) parent.appendChild(e);
  return e;
}
function percent(part, whole) {
  var p = 100 * part / whole;
  return part && p < 0.005 ? '<0.01%' : p.toFixed(2) + '%';
}
var digits = new Intl.NumberFormat('en-US', {maximumFractionDigits: 9});
function amount(counts) {
  var v = counts * data.unit;
  return !v || v >= 1e-9 && v < 1e15 ? digits.format(v) : v.toExponential(6);
}

// A view is a tree of frames in depth-first order, so a subtree is an index range [i, end[i]).
// Callers of a sandwich have levels below zero.
function View(graph, kind) {
  this.graph = graph;
  this.kind = kind;
  this.g = []; this.rects = []; this.labels = []; this.names = []; this.facts = [];
  this.level = []; this.x = []; this.w = []; this.end = []; this.up = []; this.on = [];
  this.left = []; this.wide = [];  // as drawn last, px
  this.open = [];                  // while frames are added: those that still may get children
  this.low = this.high = 0;        // levels
  this.told = summary.dataset.full;
  graph.setAttribute('role', 'tree');
  graph.setAttribute('aria-label', 'Frames. Arrow keys move, Enter zooms, Escape goes back, ' +
    'slash searches, n and N go to the next and previous match, s shows who calls a function and ' +
    'what it calls, c copies the name, C the stack.');
}
View.prototype.add = function (e, lines, level, x, w) {
  var i = this.g.length, depth = Math.abs(level), open = this.open, v = this;
  open.splice(depth).forEach(function (j) { v.end[j] = i; });
  this.up.push(depth ? open[depth - 1] : -1);
  open.push(i);
  this.g.push(e);
  this.rects.push(e.querySelector('rect'));
  this.labels.push(e.querySelector('text'));
  this.names.push(lines[0]);
  this.facts.push(lines.slice(1));
  this.level.push(level);
  this.x.push(x);
  this.w.push(w);
  this.on.push(true);
  this.low = Math.min(this.low, level);
  this.high = Math.max(this.high, level);
  e.setAttribute('role', 'treeitem');
  e.setAttribute('aria-level', depth + 1);
  e.setAttribute('aria-label', lines.join(', '));
  e.setAttribute('data-i', i);
};
View.prototype.done = function () {
  var v = this, n = this.g.length;
  this.open.forEach(function (j) { v.end[j] = n; });
  this.asRead = this.x.slice();
  this.order = '';
  return this;
};
function drawnView() {             // the view that is there without scripts
  var v = new View(svg.querySelector('.frames'), 'drawn');
  Array.prototype.slice.call(v.graph.children).forEach(function (e) {
    var title = e.firstChild, p = e.dataset.p.split(' ');
    e.removeChild(title);          // the tooltip takes over; two would overlap
    v.add(e, title.textContent.split('\n'), +p[0], +p[1], +p[2]);
  });
  return v.done();
}
function addList(v, list, from, sign, level0) {
  for (var k = from * 4; k < list.length; k += 4) {
    var look = data.names[list[k + 1]], total = list[k + 2], own = list[k + 3];
    var e = make(SVG, 'g', {'class': 'f' + (look[1] === 'code' ? '' : ' f-' + look[1])}, v.graph);
    make(SVG, 'rect', {height: row - 1, fill: look[2]}, e);
    var lines = [look[0], 'total ' + amount(total) + ' ' + data.count + ' (' +
                 percent(total, whole) + ')'];
    if (sign > 0) lines.push('self ' + amount(own) + (own ? ' ' + data.count + ' (' +
                             percent(own, whole) + ')' : ''));
    v.add(e, lines, sign * (list[k] - level0), 0, total);
  }
}
function emptyView(kind) {
  var graph = drawn.graph.cloneNode(false);
  return new View(graph, kind);
}
function otherView() {             // from the leaf where the drawn one is from the root
  var v = emptyView('other');
  addList(v, data.other, 0, data.callers ? -1 : 1, 0);
  v.level = v.level.map(Math.abs);
  v.high = Math.max(v.high, -v.low);
  v.low = 0;
  v.told = (data.callers ? 'From the leaf: each function is followed by what called it' :
            'From the root: each function is followed by what it called') +
           (data.lost ? ' \u00b7 ' + data.lost + ' in frames too narrow to draw' : '');
  return v.done();
}
function rowOf(name) {
  return data && data.rows.find(function (r) { return data.names[r[0]][0] === name; });
}
function sandwichView(name) {
  var v = emptyView('sandwich'), r = rowOf(name);
  v.of = name;
  addList(v, r[3].slice(0, 4), 0, 1, 1);
  addList(v, r[4], 1, -1, 1);
  addList(v, r[3], 1, 1, 1);
  v.told = 'What calls ' + name + ' on one side, what it calls on the other \u00b7 ' +
           'without parts below 1/300 of it';
  return v.done();
}
function tableView() {
  var v = emptyView('table');
  v.told = (data.rows.length < data.functions ? 'The ' + data.rows.length + ' hottest of ' :
            'All ') + data.functions + ' functions \u00b7 one that is underlined has a sandwich: ' +
           'who calls it, and what it calls';
  return v;
}

var drawn = drawnView(), whole = drawn.w[0], views = {drawn: drawn};
svg.classList.add('live');
svg.setAttribute('role', 'group');
if (!alone) {                      // inside a page a root <title> would be a tooltip everywhere
  var own = svg.querySelector('title');
  svg.setAttribute('aria-label', own.textContent);
  svg.removeChild(own);
}

// Text fitted by code point, measured once per code point and font.
var pen = make(HTML, 'canvas', {}).getContext('2d'), measured = {};
function advance(face, c) {
  var known = measured[face] || (measured[face] = new Map()), v = known.get(c);
  if (v === undefined) {
    if (pen) { pen.font = face; v = pen.measureText(c).width; } else v = parseFloat(face) * 0.62;
    known.set(c, v);
  }
  return v;
}
function fit(text, room, face) {
  if (room < 12) return '';
  var dots = advance(face, '\u2026'), used = 0, cut = 0, kept = 0, at = 0;
  for (var c of text) {
    used += advance(face, c);
    if (used > room) return kept >= 2 ? text.slice(0, cut) + '\u2026' : '';
    at += c.length;
    if (used + dots <= room) { cut = at; kept++; }
  }
  return text;
}
function face(element, bold) {
  var s = getComputedStyle(element);
  return (bold ? '600 ' : '') + s.fontSize + ' ' + s.fontFamily;
}

// Controls: real form controls, which only exist when a script does.
var cover = make(SVG, 'rect', {class: 'cover', x: 0, y: 0, fill: '#fffdfa'});
head.insertBefore(cover, head.firstChild);
var box = make(SVG, 'foreignObject', {height: 40}, head);
var bar = make(HTML, 'div', {class: 'bar', role: 'search'}, box);
function button(css, text, label, act) {
  var b = make(HTML, 'button', {type: 'button', class: css, title: label, 'aria-label': label}, bar);
  b.textContent = text;
  b.addEventListener('click', act);
  return b;
}
function pressed(b) { return b.getAttribute('aria-pressed') === 'true'; }
function press(b, yes) { b.setAttribute('aria-pressed', !!yes); }
var back = button('back', 'Back', 'Undo the last zoom or change of view', function () { undo(); });
var reset = button('reset', 'Reset zoom', 'Reset zoom', function () { zoom(0); select(0, true); });
var choice = make(HTML, 'select', {class: 'view', 'aria-label': 'View'}, bar);
[['drawn', data && !data.callers ? 'Callers' : 'Flame graph'],
 ['other', data && !data.callers ? 'From the root' : 'Callers'],
 ['sandwich', 'Sandwich'], ['table', 'Table']].forEach(function (o) {
  make(HTML, 'option', {value: o[0]}, choice).textContent = o[1];
});
var flip = button('flip', 'Flip', 'Turn upside down', function () { turn(flip); });
var weight = button('weight', 'By weight', 'Widest first, instead of by name',
                    function () { turn(weight); });
var field = make(HTML, 'input', {type: 'text', placeholder: 'Search (regex)', spellcheck: 'false',
  autocomplete: 'off', 'aria-label': 'Search frames by regular expression'}, bar);
var exact = button('case', 'Aa', 'Match case', function () {
  press(exact, !pressed(exact));
  search(field.value);
});
var last = button('last', '\u2039', 'Previous match', function () { go(-1); });
var next = button('next', '\u203a', 'Next match', function () { go(1); });
[flip, weight, exact].forEach(function (b) { press(b, false); });
back.hidden = reset.hidden = last.hidden = next.hidden = true;
choice.hidden = !data;
var found = make(SVG, 'text', {class: 'found', 'text-anchor': 'end', 'font-size': 12.5,
  role: 'status', 'aria-live': 'polite'}, head);
var panel = make(SVG, 'foreignObject', {class: 'panel', x: PAD, display: 'none'});
svg.insertBefore(panel, head);
var tip = make(SVG, 'foreignObject', {class: 'tip', x: 0, y: 0, width: 1, height: 1,
  display: 'none', 'aria-hidden': 'true'}, svg);
var card = make(HTML, 'div', {class: 'card'}, tip);

// The state: a view, which way it is drawn, the frame zoomed to, the one that has the keyboard, and
// the search. The arrays of the view that is shown have short names.
var shown, g, rects, labels, names, facts, level, x, w, end, up, n;
var focus = 0, current = 0, query = '', hits = null, width = 0, height = 0;

function show(v) {
  hide();
  if (shown) mark(0);
  drawn.graph.parentNode || shown.graph.parentNode.replaceChild(drawn.graph, shown.graph);
  if (v !== drawn) drawn.graph.parentNode.replaceChild(v.graph, drawn.graph);
  shown = v;
  g = v.g; rects = v.rects; labels = v.labels; names = v.names; facts = v.facts;
  level = v.level; x = v.x; w = v.w; end = v.end; up = v.up; n = g.length;
  focus = current = 0;
  if (n) select(0);
  choice.value = v.kind;
  summary.setAttribute('data-full', v.told);
}
function look(kind, of) {          // changes the view; false if there is no such view
  if (!data || kind === 'drawn') show(drawn);
  else if (kind === 'sandwich') {
    var r = rowOf(of);
    if (!r || !r[3]) return false;
    show(shown.of === of ? shown : sandwichView(of));
  } else if (kind === 'other') show(views.other || (views.other = otherView()));
  else if (kind === 'table') show(views.table || (views.table = tableView()));
  else return false;
  return true;
}
function go_to(kind, of) {         // the same, for a user
  if (kind === shown.kind && (kind !== 'sandwich' || of === shown.of)) return;
  if (look(kind, of)) {
    refresh();
    remember(true);
    if (n) { g[0].focus(); g[0].scrollIntoView({block: 'nearest', inline: 'nearest'}); }
  } else {
    choice.value = shown.kind;
    found.textContent = of ? 'No sandwich of ' + of : 'First choose a function';
  }
}
function turn(b) {
  press(b, !pressed(b));
  draw();
  remember(true);
}

// Layout.
function within(i, j) { return i >= j && i < end[j]; }
function place() {                 // siblings beside each other, as read or the widest first
  var order = pressed(weight) ? 'weight' : 'name';
  if (shown.order === order) return;
  shown.order = order;
  if (order === 'name' && shown === drawn) {
    for (var k = 0; k < n; k++) x[k] = drawn.asRead[k];
    return;
  }
  for (var i = 0; i < n; i++) {
    var kids = [], at = [x[i], x[i]];
    for (var j = i + 1; j < end[i]; j = end[j]) kids.push(j);
    if (order === 'weight') kids.sort(function (a, b) { return w[b] - w[a] || a - b; });
    kids.forEach(function (j) {
      var side = level[j] < 0 ? 1 : 0;
      x[j] = at[side];
      at[side] += w[j];
    });
  }
}
function draw() {
  if (shown.kind === 'table') { fill(); return; }
  place();
  var inner = width - 2 * PAD, scale = inner / w[focus], origin = x[focus];
  var mono = face(shown.graph), monoBold = face(shown.graph, true);
  var icicle = (svg.dataset.kind === 'icicle') !== pressed(flip), on = shown.on;
  var turned = shown.icicle !== icicle;
  shown.icicle = icicle;
  for (var i = 0; i < n; i++) {
    var above = within(focus, i), e = g[i], r = rects[i], t = labels[i];
    var y = (icicle ? level[i] - shown.low : shown.high - level[i]) * row;
    var base = y + (row - 1) / 2 + font * 0.36;
    if (turned) {
      r.setAttribute('y', y);
      if (t) t.setAttribute('y', base);
    }
    if (!above && !within(i, focus)) {
      if (on[i]) e.setAttribute('display', 'none');
      on[i] = false;
      continue;
    }
    if (!on[i]) e.removeAttribute('display');
    on[i] = true;
    e.classList.toggle('dim', above && i !== focus);
    var left = above ? 0 : (x[i] - origin) * scale, wide = above ? inner : w[i] * scale;
    if (left === shown.left[i] && wide === shown.wide[i]) continue;
    shown.left[i] = left;
    shown.wide[i] = wide;
    r.setAttribute('x', left.toFixed(2));
    r.setAttribute('width', Math.max(0.1, wide > 3 ? wide - 0.6 : wide).toFixed(2));
    if (wide > 6) r.setAttribute('rx', 2); else r.removeAttribute('rx');
    var bold = i === 0 || e.classList.contains('f-thread');
    var s = fit(names[i], wide - 8, bold ? monoBold : mono);
    if (!t) {
      if (!s) continue;
      t = labels[i] = make(SVG, 'text', {y: base}, e);
      if (bold) t.setAttribute('font-weight', 600);
    }
    if (t.textContent !== s) t.textContent = s;
    t.setAttribute('x', (left + 4).toFixed(2));
  }
  reset.hidden = focus === 0;
}
function available() {
  if (alone) {
    var v = window.visualViewport;
    return Math.round(v ? v.width * v.scale : window.innerWidth);
  }
  var p = svg.parentNode, s = p && p.nodeType === 1 ? getComputedStyle(p) : null;
  return s ? Math.floor(p.clientWidth - parseFloat(s.paddingLeft) - parseFloat(s.paddingRight)) : 0;
}
function key() {                   // lays out the legend; returns what it grew by
  var legend = svg.querySelector('.legend');
  if (!legend) return 0;
  var y = +legend.dataset.y, at = PAD;
  Array.prototype.forEach.call(legend.children, function (e) {
    var wide = 16 + e.lastElementChild.getComputedTextLength();
    if (at > PAD && at + wide > width - PAD) { at = PAD; y += 20; }
    e.setAttribute('transform', 'translate(' + at.toFixed(1) + ',' + y + ')');
    at += wide + 20;
  });
  return y - legend.dataset.last;
}
function tall(e) {                 // of HTML, in units of the picture
  return Math.ceil(e.getBoundingClientRect().height / (svg.getScreenCTM() || {d: 1}).d);
}
function chrome() {
  var narrow = width < 1100, tools = narrow ? width - 2 * PAD : 740;
  var room = narrow ? tools : width - 2 * PAD - tools - 16;
  svg.setAttribute('width', width);
  svg.setAttribute('viewBox', '0 0 ' + width + ' ' + svg.getAttribute('height'));
  box.setAttribute('x', width - PAD - tools + 3);
  box.setAttribute('y', narrow ? 60 : 10);
  box.setAttribute('width', tools);
  box.setAttribute('height', tall(bar));
  var top = narrow ? tall(bar) + 4 : 0;
  found.setAttribute('x', width - PAD);
  found.setAttribute('y', narrow ? 32 : 60);
  cover.setAttribute('width', width);
  cover.setAttribute('height', HEADER + top - 6);
  shown.graph.setAttribute('transform', 'translate(' + PAD + ',' + (HEADER + top) + ')');
  panel.setAttribute('y', HEADER + top);
  panel.setAttribute('width', width - 2 * PAD);
  if (shown.kind === 'table') panel.removeAttribute('display');
  else panel.setAttribute('display', 'none');
  var more = (shown.high - shown.low - drawn.high) * row;
  if (shown.kind === 'table') {
    panel.setAttribute('height', tall(panel.firstChild));
    more = tall(panel.firstChild) - (drawn.high + 1) * row;
  }
  foot.setAttribute('transform', 'translate(0,' + (top + more) + ')');
  svg.querySelectorAll('.foot .hidden').forEach(function (t) {
    t.setAttribute('visibility', shown === drawn ? 'visible' : 'hidden');
  });
  height = staticHeight + top + key() + more;
  svg.setAttribute('height', height);
  svg.setAttribute('viewBox', '0 0 ' + width + ' ' + height);
  svg.querySelectorAll('text[data-full]').forEach(function (t) {
    var r = width - 2 * PAD;
    if (t.parentNode === head) r = room - (narrow && t.matches('.title') ? 150 : 0);
    t.textContent = fit(t.dataset.full, r, face(t, t.matches('.title')));
  });
}
function refresh() {
  draw();
  chrome();
  search(field.value, true);
}
function resize() {
  var v = Math.max(200, available() || staticWidth);
  if (v === width) return;
  hide();
  width = v;
  refresh();
}

// The table.
var sorted = 'self';
function fill() {
  var columns = [['self', 'Self', 2], ['total', 'Total', 2], ['name', 'Function', 1]];
  var cell = {self: 1, total: 2}, had = panel.contains(document.activeElement);
  panel.textContent = '';
  var table = make(HTML, 'table', {}, make(HTML, 'div', {class: 'hot'}, panel));
  make(HTML, 'caption', {}, table).textContent = 'Hottest functions';
  var tr = make(HTML, 'tr', {}, make(HTML, 'thead', {}, table));
  columns.forEach(function (c) {
    var th = make(HTML, 'th', {scope: 'col', colspan: c[2], 'aria-sort': c[0] !== sorted ? 'none' :
                               c[0] === 'name' ? 'ascending' : 'descending'}, tr);
    var b = make(HTML, 'button', {type: 'button'}, th);
    b.textContent = c[1];
    b.addEventListener('click', function () { sorted = c[0]; draw(); });
    if (had && c[0] === sorted) b.focus();
  });
  var body = make(HTML, 'tbody', {}, table);
  data.rows.slice().sort(function (a, b) {
    var s = data.names[a[0]][0], t = data.names[b[0]][0];
    return (b[cell[sorted]] - a[cell[sorted]]) || (s < t ? -1 : s > t ? 1 : 0);
  }).forEach(function (r) {
    var name = data.names[r[0]][0];
    tr = make(HTML, 'tr', {}, body);
    [r[1], r[2]].forEach(function (counts) {
      make(HTML, 'td', {}, tr).textContent = amount(counts);
      var part = 100 * counts / whole;
      make(HTML, 'td', {style: 'background-size:' + part.toFixed(2) + '% 100%', class: 'part'}, tr)
        .textContent = percent(counts, whole);
    });
    var th = make(HTML, 'th', {scope: 'row'}, tr);
    if (!r[3]) { th.textContent = name; return; }
    var b = make(HTML, 'button', {type: 'button', title: 'Sandwich of ' + name}, th);
    b.textContent = name;
    b.addEventListener('click', function () { go_to('sandwich', name); });
  });
}

// Tooltip.
function tell(i, clientX, clientY) {
  card.textContent = '';
  var lines = facts[i].slice();
  if (focus && within(i, focus) && i !== focus)
    lines.push(percent(w[i], w[focus]) + ' of the view');
  if (up[i] > 0 || up[i] === 0 && shown.of)
    lines.push(percent(w[i], w[up[i]]) + ' of ' + fit(names[up[i]], 260, face(card)));
  make(HTML, 'div', {class: 'name'}, card).textContent = names[i];
  lines.forEach(function (s) { make(HTML, 'div', {class: 'fact'}, card).textContent = s; });
  tip.removeAttribute('display');
  var wide = Math.min(520, width - 2 * PAD);
  tip.setAttribute('width', wide);
  var m = svg.getScreenCTM(), size = card.getBoundingClientRect();
  var cw = size.width / m.a, ch = size.height / m.d;
  var px = (clientX - m.e) / m.a, py = (clientY - m.f) / m.d;
  var low = Math.min(height, (window.innerHeight - m.f) / m.d), high = Math.max(0, -m.f / m.d);
  var tx = Math.max(4, Math.min(px + 14, width - cw - 6));
  var ty = py + 18 + ch > low - 4 ? py - ch - 12 : py + 18;
  tip.setAttribute('height', Math.ceil(ch));
  tip.setAttribute('x', tx);
  tip.setAttribute('y', Math.max(high + 2, ty));
}
function hide() { tip.setAttribute('display', 'none'); }
function tellAtFrame(i) {
  var b = rects[i].getBoundingClientRect();
  tell(i, Math.max(0, b.left) + Math.min(40, b.width / 2), b.bottom - 8);
}

// Zoom, search.
function zoom(i, quiet) {
  if (i === focus || !n) return;
  focus = i;
  hide();
  draw();
  if (!within(current, focus)) select(focus);
  score();
  if (!quiet) remember(true);
}
function select(i, take) {
  if (g[current]) g[current].removeAttribute('tabindex');
  current = i;
  g[i].setAttribute('tabindex', '0');
  if (take) g[i].focus();
}
function search(text, quiet) {
  query = text;
  var match = null, bad = false;
  if (text) {
    try { match = new RegExp(text, pressed(exact) ? '' : 'i'); }
    catch (_) { bad = true; }
  }
  hits = match ? [] : null;
  for (var i = shown.of ? 0 : 1; i < n; i++) {
    var hit = !!match && match.test(names[i]);
    if (hit) hits.push(i);
    g[i].classList.toggle('hit', hit);
  }
  if (shown.kind === 'table') panel.querySelectorAll('tbody tr').forEach(function (tr) {
    var hit = !match || match.test(tr.lastChild.textContent);
    tr.hidden = !hit;
    if (match && hit) hits.push(0);
  });
  last.hidden = next.hidden = !n || !hits || !hits.length;
  field.setAttribute('aria-invalid', bad);
  found.classList.toggle('bad', bad);
  if (bad) found.textContent = 'Not a regular expression';
  else score();
  if (!quiet) remember(false);
}
function go(way) {                 // to the next or previous match, around the ends
  if (!n || !hits || !hits.length) return;
  var k = hits.indexOf(current), m = hits.length;
  if (k >= 0) k += way;
  else {
    for (k = 0; k < m && hits[k] < current; ) k++;
    if (way < 0) k--;
  }
  var i = hits[(k + m) % m];
  if (!within(i, focus)) zoom(0);
  select(i);
  g[i].scrollIntoView({block: 'nearest', inline: 'nearest'});
  tellAtFrame(i);
  score();
  found.textContent = hits.indexOf(i) + 1 + ' of ' + m + ' \u00b7 ' + found.textContent;
}
// Every occurrence of the name that was clicked.
function mark(i) {
  for (var j = 0; j < n; j++) g[j].classList.toggle('twin', i > 0 && names[j] === names[i]);
}
function copy(i, entire) {
  var text = names[i];
  if (entire) for (var j = up[i]; j >= (shown.of ? 0 : 1); j = up[j]) {
    // from the root to the leaf, whatever grows from what here
    text = fromLeaf(i) ? text + ';' + names[j] : names[j] + ';' + text;
  }
  var done = function () { found.textContent = entire ? 'Stack copied' : 'Name copied'; };
  if (navigator.clipboard) {
    navigator.clipboard.writeText(text).then(done, function () { byHand(text, done); });
  } else byHand(text, done);
}
function fromLeaf(i) {
  return shown.of ? level[i] < 0 : !!data && (shown === drawn) !== data.callers;
}
function byHand(text, done) {      // where the clipboard's interface is not allowed
  var area = make(HTML, 'textarea', {style: 'position:absolute;opacity:0'}, bar);
  area.value = text;
  area.select();
  try { if (document.execCommand('copy')) done(); } catch (_) { }
  bar.removeChild(area);
  g[current].focus();
}
// A count inside several matching frames counts once: only the outermost ones are added.
function share(root) {
  var sum = 0, until = 0;
  for (var k = 0; k < hits.length; k++) {
    var i = hits[k];
    if (within(root, i)) return w[root];
    if (i < until || !within(i, root)) continue;
    sum += w[i];
    until = end[i];
  }
  return sum;
}
function score() {
  if (!hits) { if (!found.classList.contains('bad')) found.textContent = ''; return; }
  if (!n || shown.of) {            // callers and callees overlap: no sum makes sense
    found.textContent = hits.length + (n ? hits.length === 1 ? ' frame' : ' frames' :
                                       hits.length === 1 ? ' function' : ' functions');
    return;
  }
  // Frames that were not drawn cannot be searched; if they matter, the figure is a lower bound.
  var unseen = shown === drawn ? svg.dataset.unseen : data.lost || '0.00%';
  var least = unseen === '0.00%' || unseen === '<0.01%' ? '' : '\u2265 ';
  found.textContent = 'Matched ' + least + percent(share(0), whole) +
    (focus ? ' \u00b7 ' + least + percent(share(focus), w[focus]) + ' of the view' : '');
}

// Address: the view, the path of names zoomed to and the search, so it survives a new profile and
// another window size; what is not there is ignored. Parts of the address that are not ours stay.
// Names cannot contain ';' nor control characters, so both can separate.
var peers = Array.prototype.slice.call(document.querySelectorAll('svg.cprof-flamegraph'));
var prefix = alone ? '' : 'flamegraph' + (peers.indexOf(svg) + 1) + '-';
var KEYS = ['view', 'of', 'zoom', 'search', 'case', 'order', 'flip'];
var now = [], trail = [];          // the state in pieces, and those before it
function twin(i) {                 // same-named earlier siblings: --flamechart and sandwiches
  var k = 0;
  for (var j = up[i] + 1; j < i; j = end[j]) if (names[j] === names[i]) k++;
  return k;
}
function pathOf(i) {
  var parts = [];
  for (; i > 0; i = up[i]) { var k = twin(i); parts.push(names[i] + (k ? '\x01' + k : '')); }
  parts = parts.reverse().join(';');
  return parts.length > 4000 ? digest(parts) : parts;
}
function digest(s) {               // of paths too long for an address
  var a = 0x811c9dc5, b = 0x2545f491;
  for (var i = 0; i < s.length; i++) {
    a = Math.imul(a ^ s.charCodeAt(i), 16777619);
    b = Math.imul(b + s.charCodeAt(i), 0x5bd1e995) ^ b >>> 13;
  }
  return '\x02' + (a >>> 0).toString(36) + '.' + (b >>> 0).toString(36);
}
function frameAt(path) {
  var i, j;
  if (path.charAt(0) === '\x02') {
    for (i = 1; i < n; i++) if (Math.abs(level[i]) > 9 && pathOf(i) === path) return i;
    return -1;
  }
  var parts = path.split(';');
  for (i = 0, j = 0; j < parts.length; j++) {
    var want = parts[j].split('\x01'), skip = +want[1] || 0, at = -1;
    for (var c = i + 1; c < end[i]; c = end[c])
      if (names[c] === want[0] && skip-- === 0) { at = c; break; }
    if (at < 0) return -1;
    i = at;
  }
  return i;
}
function pieces() { return location.hash.slice(1).split('&').filter(Boolean); }
function mine(piece) {
  var key = piece.split('=')[0];
  return key.slice(0, prefix.length) === prefix && KEYS.indexOf(key.slice(prefix.length)) >= 0;
}
function pack() {
  var values = [shown === drawn ? '' : shown.kind, shown.of || '', focus ? pathOf(focus) : '', query,
                query && pressed(exact) ? '1' : '', pressed(weight) ? 'weight' : '',
                pressed(flip) ? '1' : ''];
  return values.map(function (v, k) {
    try { return v && prefix + KEYS[k] + '=' + encodeURIComponent(v); }
    catch (_) { return ''; }       // half a surrogate pair
  }).filter(Boolean);
}
function remember(step) {
  if (step) trail.push(now);
  now = pack();
  back.hidden = !trail.length;
  var out = pieces().filter(function (p) { return !mine(p); }).concat(now);
  var url = location.href.split('#')[0] + (out.length ? '#' + out.join('&') : '');
  try {
    if (step && alone && window === window.top) history.pushState(null, '', url);
    else history.replaceState(null, '', url);
  } catch (_) { /* an address that may not change, as in a sandbox: do without */ }
}
function become(list) {
  var state = {};
  list.forEach(function (p) {
    var cut = p.indexOf('=');
    try { state[p.slice(prefix.length, cut)] = decodeURIComponent(p.slice(cut + 1)); } catch (_) { }
  });
  press(exact, state.case === '1');
  press(weight, state.order === 'weight');
  press(flip, state.flip === '1');
  field.value = state.search || '';
  if (!look(state.view || 'drawn', state.of)) show(drawn);
  var i = state.zoom && n ? frameAt(state.zoom) : 0;
  focus = Math.max(0, i);
  if (n) select(focus);
  refresh();
  now = pack();
  if (shown.of) g[0].scrollIntoView({block: 'center', inline: 'nearest'});
}
function recall() {
  var before = trail[trail.length - 1], wanted = pieces().filter(mine);
  if (before && before.join('&') === wanted.join('&')) trail.pop();
  back.hidden = !trail.length;
  become(wanted);
}
function undo() {
  if (!trail.length) return;
  become(trail.pop());
  remember(false);
}

// Events.
function frameOf(e) {
  var f = e.target.closest ? e.target.closest('.f') : null;
  return f && shown.graph.contains(f) ? +f.dataset.i : -1;
}
svg.addEventListener('click', function (e) {
  var i = frameOf(e);
  if (i < 0) return;
  select(i, true);
  mark(i);
  zoom(i);
});
svg.addEventListener('mousemove', function (e) {
  var i = frameOf(e);
  if (i < 0) hide(); else tell(i, e.clientX, e.clientY);
});
svg.addEventListener('mouseleave', hide);
svg.addEventListener('focusin', function (e) {
  var i = frameOf(e);
  if (i < 0) return;
  current = i;
  if (g[i].matches(':focus-visible')) tellAtFrame(i);
});
svg.addEventListener('focusout', hide);
choice.addEventListener('change', function () {
  var at = shown.of || (current > 0 ? names[current] : '');
  go_to(choice.value, at);
});
var timer = 0;
field.addEventListener('input', function () {
  clearTimeout(timer);
  if (n < 20000) search(field.value);
  else timer = setTimeout(function () { search(field.value); }, 150);
});

function beside(i, way) {          // the nearest frame of the same level to the left or right
  var best = i;
  for (var j = 0; j < n; j++)
    if (level[j] === level[i] && shown.on[j] && (x[j] - x[i] || j - i) * way > 0 &&
        (best === i || (x[j] - x[best] || j - best) * way < 0)) best = j;
  return best;
}
function step(i, key) {
  if (key === 'ArrowLeft' || key === 'ArrowRight') return beside(i, key === 'ArrowLeft' ? -1 : 1);
  var to = level[i] + ((key === 'ArrowUp') === !shown.icicle ? 1 : -1), best = i;
  if (up[i] >= 0 && level[up[i]] === to) return up[i];
  for (var j = i + 1; j < end[i]; j = end[j])          // the widest child
    if (level[j] === to && shown.on[j] && (best === i || w[j] > w[best])) best = j;
  return best;
}
function clear() { field.value = ''; search(''); }
function leave() {                 // one step: the zoom first, then the search, then the view
  hide();
  mark(0);
  if (focus) zoom(0);
  else if (query) clear();
  else go_to('drawn');
}
svg.addEventListener('keydown', function (e) {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.key === 'Escape') {
    if (e.target !== field) leave();
    else if (field.value) clear();
    else field.blur();
    e.preventDefault();
    return;
  }
  if (e.target === field && e.key === 'Enter') {
    go(e.shiftKey ? -1 : 1);
    e.preventDefault();
  }
  if (e.target === field || e.target === choice) return;
  var i = frameOf(e);
  if (e.key === '/') { field.focus(); e.preventDefault(); }
  if (e.key === 'Backspace') { undo(); e.preventDefault(); }
  if (i < 0) return;
  if (/^Arrow/.test(e.key)) select(step(i, e.key), true);
  else if (e.key === 'Home') select(0, true);
  else if (e.key === 'Enter' || e.key === ' ') { mark(i); zoom(i); tellAtFrame(i); }
  else if (e.key === 'n') go(1);
  else if (e.key === 'N') go(-1);
  else if (e.key === 'c' || e.key === 'C') copy(i, e.key === 'C');
  else if (e.key === 's' && data) go_to('sandwich', i ? names[i] : '');
  else return;
  e.preventDefault();
});
if (alone) {
  document.addEventListener('keydown', function (e) {
    if (e.defaultPrevented || e.target === field) return;
    if ((e.ctrlKey || e.metaKey) && e.key === 'f') {
      field.focus();
      field.select();
      e.preventDefault();
    }
  });
  window.addEventListener('scroll', function () {      // the controls stay in sight
    var y = Math.max(0, Math.min(window.scrollY, height - HEADER));
    head.setAttribute('transform', 'translate(0,' + y + ')');
    hide();
  });
}
window.addEventListener('resize', resize);
window.addEventListener('load', resize);
window.addEventListener('hashchange', recall);

show(drawn);
width = Math.max(200, available() || staticWidth);
recall();
// A very tall flame shows nothing but tips at its top: begin at the root.
if (alone && !shown.icicle && n && height > 2.5 * window.innerHeight) window.scrollTo(0, height);
})();
"""


# >>main: options, files, exit codes

def whole(low, high):
    def parse(text):
        if not re.fullmatch(r'\d{1,9}', text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError('it must be a whole number from %d to %d.'
                                             % (low, high))
        return int(text)
    return parse


def decimal(positive):
    def parse(text):
        value = parse_count(os.fsencode(text))
        if value is None or (positive and not value):
            raise argparse.ArgumentTypeError('it must be a number %s.'
                                             % ('above zero' if positive else 'from zero up'))
        return Fraction(value)
    return parse


def regex(text):
    try:
        re.compile(text)
    except re.error as e:
        raise argparse.ArgumentTypeError('it is not a regular expression: %s.' % e)
    except (RecursionError, OverflowError):
        raise argparse.ArgumentTypeError('it is too large a regular expression.')
    return text


def parse_options(arguments):
    p = argparse.ArgumentParser(
        prog=PROG, allow_abbrev=False, description='Turns folded stacks into an SVG flame graph.')
    p.add_argument('inputs', nargs='*', metavar='FILE',
                   help='folded stacks; - or none: standard input')
    p.add_argument('-o', '--output', metavar='FILE', default='-',
                   help='where to write (standard output)')
    p.add_argument('--title', help='heading (Flame graph)')
    p.add_argument('--subtitle', default='', help='second line, before the totals')
    p.add_argument('--notes', default='', help='a line below the picture')
    p.add_argument('--width', type=whole(200, 20000), default=1200, metavar='PX',
                   help='width of the static picture (1200); scripts fit it to the window')
    p.add_argument('--height', type=whole(8, 100), default=18, metavar='PX',
                   help='height of a frame (18)')
    p.add_argument('--minwidth', type=decimal(False), metavar='PX',
                   help='leave out frames narrower than this at full view (0.1, more if that would '
                        'be over %d frames)' % MOST_FRAMES)
    p.add_argument('--depth', type=whole(0, 10 ** 6), default=0, metavar='N',
                   help='draw at most N levels above the root (0: all)')
    p.add_argument('--countname', default='samples', metavar='WORD',
                   help='what is counted (samples)')
    p.add_argument('--factor', type=decimal(True), default=Fraction(1), metavar='N',
                   help='multiply the counts that are shown by N (1)')
    p.add_argument('--colors', choices=sorted(PALETTES) + ['java', 'module'], default='hot',
                   help='palette (hot); java: by kind of code; module: by the part before ` or ::')
    p.add_argument('--hash', dest='colors', action='store_const', const='hash',
                   help='the same as --colors hash')
    p.add_argument('--cp', action='store_true',
                   help='accepted for scripts that have it: colours are always consistent')
    p.add_argument('--inverted', action='store_true', help='icicle: root at the top')
    p.add_argument('--reverse', action='store_true', help='merge from the leaf: who calls it?')
    p.add_argument('--flamechart', action='store_true',
                   help='keep the order of lines, left to right')
    p.add_argument('--filter', type=regex, action='append', default=[], metavar='REGEX',
                   help='only stacks with a frame that matches (repeatable: all must)')
    p.add_argument('--exclude', type=regex, action='append', default=[], metavar='REGEX',
                   help='no stacks with a frame that matches (repeatable)')
    p.add_argument('--diff', action='store_true',
                   help='two files, before and after (or one with two counts a line): what changed')
    p.add_argument('--normalize', action='store_true',
                   help='--diff: scale the counts before to the total after')
    p.add_argument('--negate', action='store_true',
                   help='--diff: swap the colours of what grew and what shrank')
    p.add_argument('--top', type=whole(1, 10 ** 6), default=0, metavar='N',
                   help='print the N hottest functions as text; a picture only with --output')
    p.add_argument('--no-threads', dest='threads', action='store_false',
                   help='the first frame of a line is code like the others, not a thread')
    options = p.parse_args(arguments)
    if options.title is None:
        options.title = ('Differential flame graph' if options.diff else
                         'Flame chart' if options.flamechart else
                         'Icicle graph' if options.inverted else 'Flame graph')
    options.inputs = options.inputs or ['-']
    if options.diff and (len(options.inputs) > 2 or options.flamechart or options.top):
        p.error('--diff takes two files or one, and neither --flamechart nor --top.')
    return options


def two_counts(lines):
    """Lines of two counts as lines before and lines after. Others are for the first to refuse."""
    before, after = [], []
    for line in lines:
        parts = line.rsplit(None, 2)
        if len(parts) == 3 and None not in (parse_count(parts[1]), parse_count(parts[2])):
            before.append(parts[0] + b' ' + parts[1])
            after.append(parts[0] + b' ' + parts[2])
        else:
            comment = not parts or line[:1] == b'#'
            before.append(line if comment else line.rstrip() + b' (two counts are wanted)')
            after.append(b'')
    return before, after


def read_inputs(options, paths, sources):
    """Reads files into one source, or one of two counts a line into two."""
    for path in paths:
        where = '(standard input)' if path == '-' else path
        try:
            if path == '-' and sys.stdin is None:
                raise Failure('There is no standard input to read.')
            with (contextlib.nullcontext(sys.stdin.buffer) if path == '-' else
                  open(path, 'rb')) as stream:
                lines = decoded_lines(stream)
                for source, part in zip(sources, [lines] if len(sources) == 1 else
                                        two_counts(lines)):
                    source.read(where, part)
        except (EOFError, gzip.BadGzipFile, zlib.error) as e:
            say('%s: the gzipped data are damaged (%s); what comes before that is used.'
                % (visible(where), e))
        except (OSError, ValueError) as e:
            raise Failure('Cannot read %s: %s.' % (path, getattr(e, 'strerror', None) or e))
    bad = sum(source.bad for source in sources)
    if bad > QUOTED_LINES:
        say('%d more lines like these.' % (bad - QUOTED_LINES))
    if bad:
        say('Skipped %s that %s no stack with a count.'
            % (plural(bad, 'line'), 'is' if bad == 1 else 'are'))


def write_output(path, document):
    data = document.encode('utf-8')
    if path == '-':
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            # The reader has seen enough. Keep the interpreter from flushing into the pipe again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Failure('', 141)
        except OSError as e:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Failure('Cannot write to standard output: %s.' % (e.strerror or e), 1)
        return
    target = os.path.realpath(path)
    temporary = None
    try:
        if os.path.exists(target) and not stat.S_ISREG(os.stat(target).st_mode):
            if os.path.isdir(target):
                raise IsADirectoryError(0, 'it is a directory')
            with open(target, 'wb') as f:       # a device or a pipe: no renaming over that
                f.write(data)
            return
        name = os.path.join(os.path.dirname(target),
                            '.%s.%d.tmp' % (os.path.basename(target)[:200], os.getpid()))
        with open(name, 'xb') as f:
            temporary = name
            f.write(data)
        if os.path.exists(target):
            shutil.copymode(target, name)
        os.replace(name, target)
        temporary = None
    except OSError as e:
        raise Failure('Cannot write %s: %s.' % (path, e.strerror or e), 1)
    finally:
        if temporary:
            os.unlink(temporary)


def refuse_overwriting(options):
    for path in options.inputs:
        if path != '-' and options.output != '-' and os.path.exists(path) \
                and os.path.isfile(path) and os.path.exists(options.output) \
                and os.path.samefile(path, options.output):
            raise Failure('The output %s is also an input; it was left alone.' % options.output)


def nothing(sources):
    """Why there is nothing to draw."""
    if not any(source.stacks for source in sources):
        return 'There is no usable line in the input'
    if any(source.filtered for source in sources):
        return '--filter and --exclude leave nothing to draw'
    return 'All counts are zero'


def run(arguments):
    options = parse_options(arguments)
    refuse_overwriting(options)
    diff = None
    if options.diff:
        sources = [Input(options), Input(options)]
        if len(options.inputs) == 1:
            read_inputs(options, options.inputs, sources)
        else:
            for path, source in zip(options.inputs, sources):
                read_inputs(options, [path], [source])
        for source, what in zip(sources, ('before', 'after')):
            if not source.stacks:
                raise Failure('There is no usable line in what came %s; no picture was made.'
                              % what)
        left_out = [source.filtered for source in sources]
        diff = Diff(sources[0].finish(), sources[1].finish(), options.normalize)
        items, divisor = diff.items, diff.divisor
        filtered = sum(f * s for f, s in zip(left_out, diff.scales))
    else:
        sources = [Input(options)]
        read_inputs(options, options.inputs, sources)
        items, divisor = sources[0].finish()
        filtered = sources[0].filtered * divisor
    if not items:
        raise Failure(nothing(sources) + '; no picture was made.')
    unit = options.factor / divisor
    stacks, functions = Stacks(items), None
    if options.top or not (diff or options.flamechart):
        functions = Functions(stacks, options.threads, options.reverse)
    if options.top:
        write_output('-', functions.text(options.top, unit, options.countname))
        if options.output == '-':
            return
    layout = Layout(stacks, options.width - 2 * PAD, options.minwidth, options.depth,
                    options.flamechart)
    if diff:
        diff.measure(layout.frames)
    picture = Picture(options, layout, unit, filtered, diff,
                      None if options.flamechart else functions)
    write_output(options.output, picture.render())


def main():
    gc.disable()        # nothing here goes in circles, and looking for them costs a fifth
    try:
        run(sys.argv[1:])
        return 0
    except Failure as e:
        if str(e):
            say(str(e))
        return e.code
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        say('Out of memory.')
        return 1


if __name__ == '__main__':
    sys.exit(main())
