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
(or n and N) go from match to match, c copies a frame's name and C its stack. Without scripts (an
<img> in a README) it is a complete static picture. The same input gives the same bytes, on every
machine and in every line order.

Exit code: 0 a picture was made; 1 it could not be written; 2 wrong usage or nothing to draw.
Python 3.8 or later, standard library only. Run with --help for the options.

Contents: >>input  >>layout  >>top  >>diff  >>colours  >>text  >>svg  >>style  >>script  >>main
"""
import argparse
import colorsys
import contextlib
import gzip
import hashlib
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
        self.reverse = options.reverse
        self.keep = [re.compile(p) for p in options.filter]
        self.drop = [re.compile(p) for p in options.exclude]
        self.counts = None if options.flamechart else {}
        self.order = []         # --flamechart: (key, count) as read
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
        counts, order = self.counts, self.order
        selective = bool(self.keep or self.drop)
        special = self.reverse or selective
        for number, line in enumerate(lines, 1):
            parts = line.rsplit(None, 1)
            if len(parts) == 2 and parts[1].isdigit() and len(parts[1]) < 19:
                stack, count = parts[0], int(parts[1])
            elif not parts:
                continue
            else:
                count = parse_count(parts[-1])
                stack = parts[0] if len(parts) == 2 else b''
            if line[:1] == b'#' and (count is None or b';' not in stack or line[1:2] in b'#! \t'):
                continue
            if count is None:
                huge = len(parts[-1]) > MAX_DIGITS
                self.reject(where, number, line, 'the count is too long' if huge else
                            'the line does not end in a count')
                continue
            if not stack:
                self.reject(where, number, line, 'there is no stack before the count')
                continue
            self.stacks += 1
            if not count:
                continue
            if b'\0' in stack:
                stack = stack.replace(b'\0', b'\\x00')
            key = stack.replace(b';', b'\0')
            if special:
                frames = key.split(b'\0')
                if selective and not self.wanted(frames):
                    self.filtered += count
                    continue
                if self.reverse:
                    frames.reverse()
                    key = b'\0'.join(frames)
            if counts is None:
                order.append((key, count))
            else:
                counts[key] = counts.get(key, 0) + count

    def finish(self):
        """(keys and integer counts in drawing order, divisor of the counts)."""
        items = self.order if self.counts is None else self.counts.items()
        divisor = 1
        for _, count in items:
            if type(count) is not int:
                d = count.denominator
                divisor = divisor // gcd(divisor, d) * d
        items = list(items) if divisor == 1 else [(k, int(c * divisor)) for k, c in items]
        if self.counts is not None:
            self.counts = {}
            items.sort()
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
        self.first = first      # its items are those from here
        self.last = first       # up to there


class Layout:
    def __init__(self, items, pixels, minwidth, maxdepth, ordered):
        total = self.total = sum(count for _, count in items)
        # Counts below this are narrower than minwidth: ceil(minwidth / pixels * total).
        self.threshold = max(1, -(-(minwidth * total) // pixels))
        self.narrow = 0             # frames hidden for their width
        self.narrow_counts = 0      # what they stand for, each count once
        self.deep = 0               # frames hidden by --depth
        self.deep_counts = 0
        self.frames = []            # those to draw, parents before children
        self.run(items, maxdepth, ordered)
        self.levels = 1 + max(f.depth for f in self.frames)

    def run(self, items, maxdepth, ordered):
        out, threshold = self.frames, self.threshold
        root = Frame(None, 0, 0, 0, 0, 0)
        out.append(root)
        stack = [root]
        at = 0                      # counts gone by
        frames = items[0][0].split(b'\0')
        shared = 0                  # leading frames in common with the line before
        for i, (_, count) in enumerate(items):
            if i + 1 < len(items):
                following = items[i + 1][0].split(b'\0')
                ahead = 0
                for a, b in zip(frames, following):
                    if a != b:
                        break
                    ahead += 1
            else:
                following, ahead = None, 0
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
                frame = Frame(frames[depth - 1], depth, x, at, parent.shift, i)
                stack.append(frame)
                out.append(frame)
            if end < limit:
                stack[-1].pruned += count
            elif limit == size:
                stack[size].own += count
                stack[size].shift += count
            at += count
            frames, shared = following, ahead
        self.close(stack, 0, at, len(items))
        root.total = at
        root.last = len(items)
        self.narrow_counts += root.pruned

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


# >>top: the hottest functions
#
# A count inside several frames of one name counts once for it: only the outermost open one is
# timed. Threads are not functions.

class Top:
    def __init__(self, items, threads, reverse):
        self.own, self.total, self.all = {}, {}, 0
        opened = {}                 # name -> [open frames of that name, where the first began]
        stack, at = [], 0
        for key, count in items:
            frames = key.split(b'\0')
            if threads:
                del frames[-1 if reverse else 0]
            shared = 0
            for a, b in zip(stack, frames):
                if a != b:
                    break
                shared += 1
            self.close(stack, shared, at, opened)
            for name in frames[shared:]:
                stack.append(name)
                state = opened.setdefault(name, [0, at])
                if not state[0]:
                    state[1] = at
                state[0] += 1
            if frames:
                leaf = frames[0 if reverse else -1]
                self.own[leaf] = self.own.get(leaf, 0) + count
            at += count
        self.close(stack, 0, at, opened)
        self.all = at

    def close(self, stack, keep, at, opened):
        while len(stack) > keep:
            name = stack.pop()
            state = opened[name]
            state[0] -= 1
            if not state[0]:
                self.total[name] = self.total.get(name, 0) + at - state[1]

    def hottest(self, by_self, most):
        """[(name, self, total)], the greatest first; ties in the order of names."""
        key = self.own if by_self else self.total
        names = sorted((n for n in self.total if key.get(n)), key=lambda n: (-key[n], n))
        return [(n, self.own.get(n, 0), self.total[n]) for n in names[:most]]

    def text(self, most, unit, countname):
        out = []
        for by_self in (True, False):
            rows = [('self', '', 'total', '', 'function')]
            for name, own, total in self.hottest(by_self, most):
                rows.append((number(own * unit), percent(own, self.all), number(total * unit),
                             percent(total, self.all), display_name(name)))
            wide = [max(len(row[i]) for row in rows) for i in range(4)]
            out.append('By %s, of %s %s:\n' % ('self' if by_self else 'total',
                                               number(self.all * unit), visible(countname)))
            for row in rows:
                cells_of = [cell.rjust(w) for cell, w in zip(row, wide)]
                out.append('  '.join(cells_of + [row[4]]) + '\n')
            out.append('\n')
        return ''.join(out[:-1])


# >>diff: two profiles in one picture
#
# Both are laid out together, and the width of a frame is the mean of its two totals: so what has
# gone is still there, and what is new is already. Which of its counts came after is a difference of
# running sums, because a frame is a run of items.

class Diff:
    def __init__(self, before, after, normalise):
        (old, old_divisor), (new, new_divisor) = before, after
        old, new = dict(old), dict(new)
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
# it needs from the picture itself: data-d (depth), data-x and data-w (place in counts) of each
# frame and the lines of its <title>. There are no other ids, and no references that could clash.

PAD = 16                # left and right margin, px
HEADER = 72             # title and summary, px
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
MUTED = '#6b645d'
PAPER = '#fffdfa'
EXACT = 1 << 53         # beyond this, JavaScript numbers skip integers


def decimal2(hundredths):
    """1/100ths in decimal, without idle zeros. Geometry is integers all the way to here."""
    return ('%d.%02d' % divmod(hundredths, 100)).rstrip('0').rstrip('.')


class Picture:
    def __init__(self, options, layout, unit, filtered, diff=None):
        self.diff = diff
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

    def look(self, frame):
        if frame.name is None:
            return 'all', 'root', ROOT_FILL
        # The first frame of a line is its thread. Under --reverse lines end with it, so that all
        # it has is its own.
        thread = self.options.threads and (
            frame.own == frame.total if self.options.reverse else frame.depth == 1)
        key = frame.name, thread
        if key not in self.memo:
            name = display_name(frame.name)
            kind, colour = classify(name)
            if kind == 'code' and thread:
                kind, colour = 'thread', THREAD_FILL
            elif kind == 'code':
                colour = function_colour(name, self.options.colors)
            self.memo[key] = name, kind, colour
        return self.memo[key]

    def frame(self, frame):
        options, total = self.options, self.layout.total
        name, kind, colour = self.look(frame)
        self.kinds.add(kind)
        if self.diff:
            facts = [self.changed(word, of(frame)) for word, of in
                     (('total', self.diff.totals), ('self', self.diff.selfs))]
            if frame.depth:
                colour = self.change_colour(*self.diff.totals(frame))
        else:
            facts = ['%s %s %s (%s)' % (word, self.amount(part), self.countname,
                                        xml(percent(part, total)))
                     for word, part in (('total', frame.total), ('self', frame.own))]
        x, end = frame.x, frame.x + frame.total
        if total < EXACT:
            data_x, data_w = x, frame.total
        else:
            data_x = x * EXACT // total
            data_w = end * EXACT // total - data_x
        level = frame.depth if options.inverted else self.layout.levels - 1 - frame.depth
        y = level * self.row
        scale = 200 * self.inner
        left = (x * scale + total) // (2 * total)           # 1/100 px, half up
        wide = (end * scale + total) // (2 * total) - left
        gap = 60 if wide > 300 else 0
        parts = ['<g class="f%s" data-d="%d" data-x="%d" data-w="%d"><title>%s\n%s\n%s</title>'
                 '<rect x="%s" y="%d" width="%s" height="%d" fill="%s"%s/>'
                 % ('' if kind == 'code' or self.diff and frame.depth else ' f-' + kind,
                    frame.depth, data_x, data_w, xml(name),
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
                            number(self.options.minwidth)))
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
        threads = {f.name for f in self.layout.frames if self.look(f)[1] == 'thread'}
        words = [visible(self.options.subtitle)] if self.options.subtitle else []
        if self.diff:
            before, after = self.diff.totals(self.layout.frames[0])
            words.append('%s \u2192 %s %s (%s)' % (self.amount(before), self.amount(after),
                                                  visible(self.options.countname),
                                                  change(before, after)))
        else:
            words.append('%s %s' % (self.amount(self.layout.total),
                                    visible(self.options.countname)))
        if threads and not self.options.reverse:
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
            '<g class="head" font-family="%s">\n' % SANS, *head, '</g>\n'])
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
  --hit: #d977f2; --dim: #ece7e0; --dimink: #625b54; --ring: #1d4ed8; --warn: #b42318;
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
#ID .bar { display: flex; gap: 8px; justify-content: flex-end; align-items: center;
  margin: 0;
  padding: 4px 3px 4px 0; font: 13px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans',
  sans-serif; }
#ID .bar input, #ID .bar button { font: inherit; box-sizing: border-box; height: 30px; margin: 0;
  color: var(--ink); background: var(--field); border: 1px solid var(--line); border-radius: 7px; }
#ID .bar input { width: 100px; flex: 1 1 auto; max-width: 230px; padding: 0 10px; }
#ID .bar input::placeholder { color: var(--muted); opacity: 1; }
#ID .bar button { padding: 0 11px; cursor: pointer; white-space: nowrap; flex: none; }
#ID .bar button:hover { border-color: var(--muted); }
#ID .bar button[aria-pressed=true] { background: var(--ink); color: var(--paper); }
#ID .bar button[hidden] { display: none; }
#ID .bar input:focus-visible, #ID .bar button:focus-visible { outline: 2px solid var(--ring);
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
@media (prefers-color-scheme: dark) {
  #ID { --paper: #181614; --ink: #f3eee8; --muted: #a79f96; --line: #494239; --field: #25211e;
    --hit: #d977f2; --dim: #35302b; --dimink: #b9b0a6; --ring: #8ab4ff; --warn: #ff8f85;
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

# >>script: zoom, search, keyboard, address
#
# Frames arrive in depth-first order, so a subtree is an index range [i, end[i]). The state is three
# things: the frame zoomed to, the frame that has the keyboard, and the search. The address holds
# zoom as the path of names and search as text, so it survives a new profile and another window
# size; a path that is not there is ignored. Parts of the address that are not ours stay.
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
var icicle = svg.dataset.kind === 'icicle';
var font = +svg.dataset.font, total = +svg.dataset.total;
var staticWidth = +svg.getAttribute('width'), staticHeight = +svg.getAttribute('height');
var unseen = svg.dataset.unseen;
var graph = svg.querySelector('.frames'), head = svg.querySelector('.head');
var foot = svg.querySelector('.foot');

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

// The frames, from the picture.
var g = Array.prototype.slice.call(graph.children), n = g.length;
var rects = [], labels = [], names = [], facts = [], depth = [], x = [], w = [], end = [], up = [];
(function () {
  var open = [];
  for (var i = 0; i < n; i++) {
    var e = g[i], title = e.firstChild, lines = title.textContent.split('\n');
    rects.push(e.querySelector('rect'));
    labels.push(e.querySelector('text'));
    names.push(lines[0]);
    facts.push(lines.slice(1));
    depth.push(+e.dataset.d);
    x.push(+e.dataset.x);
    w.push(+e.dataset.w);
    end.push(n);
    while (open.length && depth[open[open.length - 1]] >= depth[i]) end[open.pop()] = i;
    up.push(open.length ? open[open.length - 1] : -1);
    open.push(i);
    e.removeChild(title);          // the tooltip takes over; two would overlap
    e.setAttribute('role', 'treeitem');
    e.setAttribute('aria-level', depth[i] + 1);
    e.setAttribute('aria-label', lines.join(', '));
    e.setAttribute('data-i', i);
  }
})();

svg.classList.add('live');
svg.setAttribute('role', 'group');
graph.setAttribute('role', 'tree');
graph.setAttribute('aria-label', 'Frames. Arrow keys move, Enter zooms, Escape goes back, ' +
                                 'slash searches, n and N go to the next and previous match, ' +
                                 'c copies the name, C the stack.');
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
var reset = make(HTML, 'button', {type: 'button', hidden: '', class: 'reset'}, bar);
reset.textContent = 'Reset zoom';
var field = make(HTML, 'input', {type: 'text', placeholder: 'Search (regex)', spellcheck: 'false',
  autocomplete: 'off', 'aria-label': 'Search frames by regular expression'}, bar);
var exact = make(HTML, 'button', {type: 'button', 'aria-pressed': 'false', title: 'Match case',
  'aria-label': 'Match case', class: 'case'}, bar);
exact.textContent = 'Aa';
var found = make(SVG, 'text', {class: 'found', 'text-anchor': 'end', 'font-size': 12.5,
  role: 'status', 'aria-live': 'polite'}, head);
var tip = make(SVG, 'foreignObject', {class: 'tip', x: 0, y: 0, width: 1, height: 1,
  display: 'none', 'aria-hidden': 'true'}, svg);
var card = make(HTML, 'div', {class: 'card'}, tip);

var focus = 0, current = 0, query = '', width = 0, height = 0, hits = null;

// Layout.
function within(i, j) { return i >= j && i < end[j]; }
function draw() {
  var inner = width - 2 * PAD, scale = inner / w[focus], origin = x[focus];
  var mono = face(graph), monoBold = face(graph, true);
  for (var i = 0; i < n; i++) {
    var above = within(focus, i), e = g[i];
    if (!above && !within(i, focus)) { e.setAttribute('display', 'none'); continue; }
    e.removeAttribute('display');
    e.classList.toggle('dim', above && i !== focus);
    var left = above ? 0 : (x[i] - origin) * scale, wide = above ? inner : w[i] * scale;
    var r = rects[i];
    r.setAttribute('x', left.toFixed(2));
    r.setAttribute('width', Math.max(0.1, wide > 3 ? wide - 0.6 : wide).toFixed(2));
    if (wide > 6) r.setAttribute('rx', 2); else r.removeAttribute('rx');
    var bold = i === 0 || e.classList.contains('f-thread');
    var s = fit(names[i], wide - 8, bold ? monoBold : mono), t = labels[i];
    if (!t) {
      if (!s) continue;
      t = labels[i] = make(SVG, 'text', {y: +r.getAttribute('y') +
        ((+svg.dataset.row - 1) / 2 + font * 0.36)}, e);
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
function chrome() {
  var narrow = width < 700, top = narrow ? 44 : 0;
  var tools = narrow ? width - 2 * PAD : 390, room = narrow ? tools : width - 2 * PAD - tools - 16;
  box.setAttribute('x', width - PAD - tools + 3);
  box.setAttribute('y', narrow ? 60 : 10);
  box.setAttribute('width', tools);
  found.setAttribute('x', width - PAD);
  found.setAttribute('y', narrow ? 32 : 60);
  cover.setAttribute('width', width);
  cover.setAttribute('height', HEADER + top - 6);
  graph.setAttribute('transform', 'translate(' + PAD + ',' + (HEADER + top) + ')');
  foot.setAttribute('transform', 'translate(0,' + top + ')');
  height = staticHeight + top + key();
  svg.setAttribute('width', width);
  svg.setAttribute('height', height);
  svg.setAttribute('viewBox', '0 0 ' + width + ' ' + height);
  svg.querySelectorAll('text[data-full]').forEach(function (t) {
    var r = width - 2 * PAD;
    if (t.parentNode === head) r = room - (narrow && t.matches('.title') ? 150 : 0);
    t.textContent = fit(t.dataset.full, r, face(t, t.matches('.title')));
  });
}
function resize() {
  var v = Math.max(200, available() || staticWidth);
  if (v === width) return;
  hide();
  width = v;
  chrome();
  draw();
}

// Tooltip.
function tell(i, clientX, clientY) {
  card.textContent = '';
  var lines = facts[i].slice();
  if (focus && within(i, focus) && i !== focus)
    lines.push(percent(w[i], w[focus]) + ' of the view');
  if (up[i] > 0) lines.push(percent(w[i], w[up[i]]) + ' of ' + fit(names[up[i]], 260, face(card)));
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
  if (i === focus) return;
  focus = i;
  hide();
  draw();
  if (!within(current, focus)) select(focus);
  score();
  if (!quiet) remember(true);
}
function select(i, take) {
  g[current].removeAttribute('tabindex');
  current = i;
  g[i].setAttribute('tabindex', '0');
  if (take) g[i].focus();
}
function search(text, quiet) {
  query = text;
  var match = null, bad = false;
  if (text) {
    try { match = new RegExp(text, exact.getAttribute('aria-pressed') === 'true' ? '' : 'i'); }
    catch (_) { bad = true; }
  }
  hits = match ? [] : null;
  for (var i = 1; i < n; i++) {
    var hit = !!match && match.test(names[i]);
    if (hit) hits.push(i);
    g[i].classList.toggle('hit', hit);
  }
  field.setAttribute('aria-invalid', bad);
  found.classList.toggle('bad', bad);
  if (bad) found.textContent = 'Not a regular expression';
  else score();
  if (!quiet) remember(false);
}
// A count inside several matching frames counts once: only the outermost ones are added.
// The next or previous match from the frame that has the keyboard, around the ends.
function go(way) {
  if (!hits || !hits.length) return;
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
function copy(i, whole) {
  var text = names[i];
  if (whole) for (var j = up[i]; j > 0; j = up[j]) text = names[j] + ';' + text;
  var done = function () { found.textContent = whole ? 'Stack copied' : 'Name copied'; };
  if (navigator.clipboard) {
    navigator.clipboard.writeText(text).then(done, function () { byHand(text, done); });
  } else byHand(text, done);
}
function byHand(text, done) {      // where the clipboard's interface is not allowed
  var area = make(HTML, 'textarea', {style: 'position:absolute;opacity:0'}, bar);
  area.value = text;
  area.select();
  try { if (document.execCommand('copy')) done(); } catch (_) { }
  bar.removeChild(area);
  g[current].focus();
}
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
  // Frames that were not drawn cannot be searched; if they matter, the figure is a lower bound.
  var least = unseen === '0.00%' || unseen === '<0.01%' ? '' : '\u2265 ';
  found.textContent = 'Matched ' + least + percent(share(0), total) +
    (focus ? ' \u00b7 ' + least + percent(share(focus), w[focus]) + ' of the view' : '');
}

// Address. Names cannot contain ';' nor control characters, so both can separate.
var peers = Array.prototype.slice.call(document.querySelectorAll('svg.cprof-flamegraph'));
var prefix = alone ? '' : 'flamegraph' + (peers.indexOf(svg) + 1) + '-';
function twin(i) {                 // same-named earlier siblings: only --flamechart has any
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
    for (i = 1; i < n; i++) if (depth[i] > 9 && end[i] >= i && pathOf(i) === path) return i;
    return -1;
  }
  var parts = path.split(';');
  for (i = 0, j = 0; j < parts.length; j++) {
    var want = parts[j].split('\x01'), skip = +want[1] || 0, next = -1;
    for (var c = i + 1; c < end[i]; c = end[c])
      if (names[c] === want[0] && skip-- === 0) { next = c; break; }
    if (next < 0) return -1;
    i = next;
  }
  return i;
}
function pieces() { return location.hash.slice(1).split('&').filter(Boolean); }
function mine(piece) {
  var key = piece.split('=')[0];
  return key === prefix + 'zoom' || key === prefix + 'search' || key === prefix + 'case';
}
function remember(step) {
  var out = pieces().filter(function (p) { return !mine(p); });
  if (focus) out.push(prefix + 'zoom=' + encodeURIComponent(pathOf(focus)));
  if (query) {
    try { out.push(prefix + 'search=' + encodeURIComponent(query)); }
    catch (_) { /* half a surrogate pair */ }
    if (exact.getAttribute('aria-pressed') === 'true') out.push(prefix + 'case=1');
  }
  var url = location.href.split('#')[0] + (out.length ? '#' + out.join('&') : '');
  try {
    if (step && alone && window === window.top) history.pushState(null, '', url);
    else history.replaceState(null, '', url);
  } catch (_) { /* an address that may not change, as in a sandbox: do without */ }
}
function recall() {
  var state = {};
  pieces().filter(mine).forEach(function (p) {
    var cut = p.indexOf('=');
    try { state[p.slice(prefix.length, cut)] = decodeURIComponent(p.slice(cut + 1)); } catch (_) { }
  });
  exact.setAttribute('aria-pressed', state.case === '1');
  if ((state.search || '') !== query || state.search) {
    field.value = state.search || '';
    search(field.value, true);
  }
  var i = state.zoom ? frameAt(state.zoom) : 0;
  zoom(i > 0 ? i : 0, true);
}

// Events.
function frameOf(e) {
  var f = e.target.closest ? e.target.closest('.f') : null;
  return f && graph.contains(f) ? +f.dataset.i : -1;
}
graph.addEventListener('click', function (e) {
  var i = frameOf(e);
  if (i < 0) return;
  select(i, true);
  mark(i);
  zoom(i);
});
graph.addEventListener('mousemove', function (e) {
  var i = frameOf(e);
  if (i < 0) hide(); else tell(i, e.clientX, e.clientY);
});
graph.addEventListener('mouseleave', hide);
graph.addEventListener('focusin', function (e) {
  var i = frameOf(e);
  if (i < 0) return;
  current = i;
  if (g[i].matches(':focus-visible')) tellAtFrame(i);
});
graph.addEventListener('focusout', hide);
reset.addEventListener('click', function () { zoom(0); select(0, true); });
exact.addEventListener('click', function () {
  exact.setAttribute('aria-pressed', exact.getAttribute('aria-pressed') !== 'true');
  search(field.value);
});
var timer = 0;
field.addEventListener('input', function () {
  clearTimeout(timer);
  if (n < 20000) search(field.value);
  else timer = setTimeout(function () { search(field.value); }, 150);
});

function shown(i) { return !g[i].hasAttribute('display'); }
function step(i, key) {
  var j, best = i;
  if (key === 'ArrowLeft') {
    for (j = i - 1; j > 0; j--) if (depth[j] === depth[i] && shown(j)) return j;
  } else if (key === 'ArrowRight') {
    for (j = i + 1; j < n; j++) if (depth[j] === depth[i] && shown(j)) return j;
  } else if ((key === 'ArrowUp') === !icicle) {        // away from the root: the widest child
    for (j = i + 1; j < end[i]; j = end[j])
      if (shown(j) && (best === i || w[j] > w[best])) best = j;
    return best;
  } else if (up[i] >= 0) return up[i];
  return i;
}
function clear() { field.value = ''; search(''); }
function back() {                  // one step: the zoom first, then the search
  hide();
  mark(0);
  if (focus) zoom(0); else if (query) clear();
}
svg.addEventListener('keydown', function (e) {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.key === 'Escape') {
    if (e.target !== field) back();
    else if (field.value) clear();
    else field.blur();
    e.preventDefault();
    return;
  }
  if (e.target === field && e.key === 'Enter') {
    go(e.shiftKey ? -1 : 1);
    e.preventDefault();
  }
  if (e.target === field || e.target === reset || e.target === exact) return;
  var i = frameOf(e);
  if (e.key === '/') { field.focus(); e.preventDefault(); }
  if (i < 0) return;
  if (/^Arrow/.test(e.key)) select(step(i, e.key), true);
  else if (e.key === 'Home') select(0, true);
  else if (e.key === 'Enter' || e.key === ' ') { mark(i); zoom(i); tellAtFrame(i); }
  else if (e.key === 'n') go(1);
  else if (e.key === 'N') go(-1);
  else if (e.key === 'c' || e.key === 'C') copy(i, e.key === 'C');
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

select(0);
resize();
recall();
// A very tall flame shows nothing but tips at its top: begin at the root.
if (alone && !icicle && height > 2.5 * window.innerHeight) window.scrollTo(0, height);
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
    p.add_argument('--minwidth', type=decimal(False), default=Fraction(1, 10), metavar='PX',
                   help='leave out frames narrower than this at full view (0.1)')
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
    if options.top:
        table = Top(items, options.threads, options.reverse)
        write_output('-', table.text(options.top, unit, options.countname))
        if options.output == '-':
            return
    layout = Layout(items, options.width - 2 * PAD, options.minwidth, options.depth,
                    options.flamechart)
    del items
    if diff:
        diff.measure(layout.frames)
    picture = Picture(options, layout, unit, filtered, diff)
    write_output(options.output, picture.render())


def main():
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
