#!/usr/bin/env python3
r"""wpa2folded.py: turn CPU samples exported by Windows Performance Analyzer into folded stacks.

    python3 wpa2folded.py cpu.csv --process '^evm\.exe' -o evm.folded
    python3 flamegraph.py evm.folded --countname us -o evm.svg

The input is the table "CPU Usage (Sampled)" as CSV, with at least the column Stack; Process, Thread
ID or Thread Name, Count and Weight (in view) are used if they are there. Two forms are read, also
mixed:

- what wpaexporter writes of a table without groups: one row a sample, or some of them, the whole
  stack in one cell: `[Root]/ntdll.dll!RtlUserThreadStart/.../evm.exe!step`;
- what WPA copies of an expanded table: one row a frame, with the total of all that is below it,
  drawn as a tree: `  |    |- evm.exe!step`. What was not expanded cannot be told from a function's
  own time, so expand all of it.

Each output line is `process;thread;root;...;leaf N`; the process is left out if --process was given
and leaves one. N is in microseconds, or samples with --count. Each stack is right to 1 us, and the
sum is the sum of the table. What is left out, and how much that was, is said on stderr.

The delimiter is the one under which the header makes most sense (tab, `;`, `, ` or `,`), the
decimal sign what the numbers show. The text is UTF-8 or UTF-16, with or without a byte order mark.

Exit code: 0 done; 1 it could not be written; 2 wrong usage or nothing usable: nothing is written.
Python 3.8 or later, standard library only. Tested on made input, not yet on an export made here.

Contents: >>records  >>numbers  >>columns  >>stacks  >>table  >>output  >>main
"""
import argparse
import io
import itertools
import os
import re
import sys

PROG = 'wpa2folded.py'
QUOTED_ROWS = 5         # bad rows shown on stderr; the rest are only counted
HEADER_LINES = 50       # the header is looked for in these
LOOK_AHEAD = 1000       # rows from which the decimal sign is learned
MOST_LINES = 300        # a quoted field goes on for at most so many; ETW stacks are shorter
DELIMITERS = ('\t', ';', ', ', ',')


class Failure(Exception):
    """Ends the run with a sentence on stderr and an exit code."""

    def __init__(self, sentence, code=2):
        super().__init__(sentence)
        self.code = code


class BadRow(Exception):
    """Why a row cannot be used."""


def say(sentence):
    line = '%s: %s\n' % (PROG, sentence)
    try:
        sys.stderr.write(line.encode('ascii', 'backslashreplace').decode('ascii'))
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody is listening


def plural(n, word):
    return '{:,} {}{}'.format(n, word, '' if n == 1 else 's')


# >>records: bytes to rows of fields
#
# Not the csv module: it has no delimiter ", ", which is how WPA copies a table, unquoted and with
# decimal commas inside; and to it one stray quote is a field that ends with the file.

def text_lines(stream):
    head = stream.peek(4)[:4]
    if head[:3] == b'\xef\xbb\xbf':
        encoding = 'utf-8-sig'
    elif head[:2] in (b'\xff\xfe', b'\xfe\xff'):
        encoding = 'utf-16'
    elif head[1:2] == b'\0':        # no mark, but ASCII in it
        encoding = 'utf-16-le'
    elif head[:1] == b'\0':
        encoding = 'utf-16-be'
    else:
        encoding = 'utf-8'
    return io.TextIOWrapper(stream, encoding, errors='backslashreplace', newline='\n')


QUOTED = re.compile(r' *"([^"]*(?:""[^"]*)*)"(?!")')
OPENS = re.compile(r' *"')


def split_fields(text, delimiter):
    """The fields, or None if a quote is still open. A quote counts at the start of a field only."""
    if '"' not in text:
        return text.split(delimiter)
    fields, at = [], 0
    while True:
        quoted, value = QUOTED.match(text, at), ''
        if quoted:
            value, at = quoted.group(1).replace('""', '"'), quoted.end()
        elif OPENS.match(text, at):
            return None
        end = text.find(delimiter, at)
        fields.append(value + (text[at:] if end < 0 else text[at:end]))
        if end < 0:
            return fields
        at = end + len(delimiter)


def records(lines, number, delimiter):
    """(number of the first line, its text, fields or None) for each row; blank lines are none."""
    back = []
    while True:
        line = back.pop() if back else next(lines, None)
        if line is None:
            return
        number += 1
        text, taken, first = line.rstrip('\r\n'), [], number
        fields = split_fields(text, delimiter)
        while fields is None and len(taken) < MOST_LINES:
            more = back.pop() if back else next(lines, None)
            if more is None:
                break
            taken.append(more)
            if '"' in more:
                fields = split_fields((line + ''.join(taken)).rstrip('\r\n'), delimiter)
        if fields is None:          # this line is lost, those after it are not
            back.extend(reversed(taken))
        else:
            number += len(taken)
        if text.strip():
            yield first, text, fields


# >>numbers: as the exporting machine's locale writes them
#
# Weights are whole numbers of attoseconds, so that sums are exact: WPA shows milliseconds with six
# decimals, and no sum of such is exact in binary fractions.

ATTO = {'s': 18, 'ms': 15, 'us': 12, '\u00b5s': 12, '\u03bcs': 12, 'ns': 9}
MICROSECOND = 10 ** 12
GROUPING = dict.fromkeys(map(ord, ' \u00a0\u2007\u2009\u202f\'\u2019'))
MOST_DIGITS = 40
AMOUNT = re.compile(r'([0-9.,]+) *(s|ms|us|\u00b5s|\u03bcs|ns)?')
# Groups of three; of two before the last one in India.
GROUPED = {sign: re.compile(r'[0-9]{1,3}(?:%s[0-9]{2,3})*%s[0-9]{3}|[0-9]*'
                            % (re.escape(sign), re.escape(sign))) for sign in '.,'}


def whole_number(text, sign):
    if not GROUPED[sign].fullmatch(text):
        raise ValueError
    return int(text.replace(sign, '') or '0')


def parse_count(cell):
    text = cell.strip().translate(GROUPING)
    if not text or len(text) > MOST_DIGITS:
        raise ValueError
    return whole_number(text, ',' if ',' in text else '.')


def parse_weight(cell, decimal, unit):
    """Attoseconds."""
    m = AMOUNT.fullmatch(cell.strip().translate(GROUPING))
    if not m or len(m.group(1)) > MOST_DIGITS:
        raise ValueError
    digits = ATTO[m.group(2) or unit]
    whole, point, fraction = m.group(1).partition(decimal)
    fraction = fraction.rstrip('0')
    if not (whole or fraction) or len(fraction) > digits or not re.fullmatch('[0-9]*', fraction):
        raise ValueError
    return whole_number(whole, ',' if decimal == '.' else '.') * 10 ** digits \
        + int(fraction.ljust(digits, '0') or '0')


def decimal_vote(cell):
    """The decimal sign, if this number can be read in one way only."""
    text = cell.strip().translate(GROUPING)
    if re.fullmatch(r'[0-9.,]*[0-9]', text):
        signs = re.findall('[.,]', text)
        if len(set(signs)) == 2:
            return signs[-1]
        if len(signs) == 1 and len(re.split('[.,]', text)[1]) != 3:
            return signs[0]
        if len(signs) > 1:
            return ',' if signs[0] == '.' else '.'
    return None


# >>columns: what the header says

ROLES = (
    ('line', 'line #'), ('process', 'process'), ('process name', 'process name'),
    ('tid', 'thread id'), ('thread name', 'thread name'), ('stack', 'stack'),
    ('count', r'(?:sum(?: of|:)? )?count(?: ?[(\[:].*)?'),
    ('weight', r'(?:sum(?: of|:)? )?weight(?: \(in view\))?(?: ?\((?P<unit>[mun\u00b5\u03bc]?s)\))?'
               r'(?: ?[(\[:].*)?'),
    ('percent', '% ?weight.*'), ('timestamp', 'timestamp.*'),
    ('other', 'dpc/isr|module|function|cpu|address|priority|rank|thread activity tag|annotation'),
)
ROLES = tuple((role, re.compile(pattern)) for role, pattern in ROLES)


class Columns:
    def __init__(self, fields):
        self.cells = [re.sub(r'\s+', ' ', f.strip().strip('"')) for f in fields]
        self.width = len(fields)
        self.at = {}
        self.unit = None
        self.known = 0
        for i, cell in enumerate(self.cells):
            for role, pattern in ROLES:
                m = pattern.fullmatch(cell.casefold())
                if m:
                    self.known += 1
                    self.at[role] = i       # of several the last: the one that is really the stack
                    if role == 'weight':
                        self.unit = m.group('unit')
                    break
        if 'process' not in self.at and 'process name' in self.at:
            self.at['process'] = self.at['process name']
        self.stack = self.at.get('stack')
        # Rows are grouped by the columns left of the totals.
        measures = [self.at[r] for r in ('count', 'weight', 'percent') if r in self.at]
        end = min(measures, default=self.width)
        roles = ('process', 'tid', 'thread name', 'stack')
        if self.stack is not None and self.stack < end:
            self.keys = [i for i in range(end) if i != self.at.get('line')]
        else:
            self.keys = sorted(self.at[r] for r in roles if r in self.at)


def find_header(lines, forced):
    """(delimiter, Columns, how many lines that took, those before the header)."""
    for n, line in enumerate(itertools.islice(lines, HEADER_LINES), 1):
        best = None
        for delimiter in [forced] if forced else DELIMITERS:
            columns = Columns(split_fields(line.rstrip('\r\n'), delimiter) or [])
            if columns.stack is not None and (not best or columns.known > best[1].known):
                best = delimiter, columns, n
        if best:
            return best
    return None


# >>stacks: cells to frames
#
# A frame is `module!function` or in brackets, and functions may contain the separator: operator/,
# or all of a Go package's path. So the separator counts only where what follows it is a frame. No
# file name has :*"<>|\ in it.

A_FRAME = r'(?=[^/;\n!:*"<>|\\]+!|\[[^\]/;\n]*\](?:[/;\n]|\Z)|0x[0-9A-Fa-f]+(?:[/;\n]|\Z))'
SPLIT = {sign: re.compile(sign + A_FRAME) for sign in ('\n', '/', ';')}
TREE = re.compile(r'(\s*)((?:\|\s*)*)(-\s)?\s*(.*)', re.S)
EXPANDERS = '\u25b6\u25b7\u25b8\u25b9\u25bc\u25bd\u25be\u25bf '     # triangles of a copied picture
ITSELF = '<itself>'
NO_STACK, HIDDEN = '[no stack]', '[not expanded]'


def split_stack(cell, separator):
    cell = cell.strip()
    if cell.casefold() == 'n/a':
        return (NO_STACK,)
    if separator:
        parts = cell.split(separator)
    elif '\n' in cell:
        parts = cell.split('\n')
    else:
        parts = next((p for p in (SPLIT['/'].split(cell), SPLIT[';'].split(cell)) if len(p) > 1),
                     [cell])
    return tuple(p.strip() for p in parts if p.strip())


# >>table: rows to weights of stacks
#
# One way for both forms. A row begins at its first filled key column and, in a tree of frames, at a
# depth; it closes all rows that are not left of that. What is open then is its parent, and its
# total is no longer its parent's own. So what all rows own adds up to the outermost rows' totals.

class Row:
    __slots__ = ('end', 'process', 'thread', 'frames', 'own')


class Table:
    def __init__(self, options):
        self.options = options
        self.totals = {}        # (process, thread, frames) -> attoseconds or samples
        self.left_out = {}      # why -> how much
        self.open = []
        self.rows = self.bad = self.stacks = 0
        self.excess = self.excess_rows = 0
        self.measure = None     # 'weight', 'count' or 'row', the same for all files
        self.memo = {}

    def reject(self, where, number, text, why):
        self.bad += 1
        if self.bad <= QUOTED_ROWS:
            text = text.strip()
            say('%s:%d: %s: "%s"' % (where, number, why, text if len(text) <= 80 else
                                     text[:77] + '...'))

    def read(self, where, stream):
        lines = iter(text_lines(stream))
        found = find_header(lines, self.options.delimiter)
        if not found:
            raise Failure('%s: no header with a column "Stack" in the first %d lines.'
                          % (where, HEADER_LINES))
        delimiter, columns, number = found
        self.choose_measure(where, columns)
        rows = records(lines, number, delimiter)
        ahead = list(itertools.islice(rows, LOOK_AHEAD))
        decimal = self.options.decimal or self.learn_decimal(ahead, columns, delimiter)
        for number, text, fields in itertools.chain(ahead, rows):
            try:
                if fields is None:
                    raise BadRow('a quote is not closed')
                self.take(self.fit(fields, columns, delimiter), columns, decimal)
            except BadRow as e:
                self.reject(where, number, text, e)
        self.close(0)

    def choose_measure(self, where, columns):
        wanted, at = self.options.measure, columns.at
        for role, name in (('process', 'Process'), ('thread', 'Thread ID" or "Thread Name')):
            if getattr(self.options, role) and not (
                    role in at or role == 'thread' and ('tid' in at or 'thread name' in at)):
                raise Failure('%s: --%s needs a column "%s".' % (where, role, name))
        measure = wanted or next((r for r in ('weight', 'count') if r in at), 'row')
        if measure not in at and measure != 'row':
            if measure == 'weight' or 'weight' in at:
                raise Failure('%s: there is no column "%s".' % (
                    where, 'Count' if measure == 'count' else 'Weight (in view)'))
            measure = 'row'
        if measure == 'row':
            say('%s: neither "Weight" nor "Count": each row counts as one sample.' % where)
        if measure == 'weight' and not columns.unit:
            say('%s: the column "Weight" has no unit; milliseconds are assumed.' % where)
            columns.unit = 'ms'
        if self.measure and (self.measure == 'weight') != (measure == 'weight'):
            raise Failure('%s: some files have weights and some only counts: use --count.' % where)
        self.measure = columns.measure = measure

    @staticmethod
    def learn_decimal(rows, columns, delimiter):
        votes = {'.': 0, ',': 0}
        places = [columns.at[r] for r in ('weight', 'percent', 'timestamp') if r in columns.at]
        for _, _, fields in rows:
            if fields and len(fields) == columns.width:
                for i in places:
                    vote = decimal_vote(fields[i])
                    if vote:
                        votes[vote] += 1
        if votes[','] == votes['.']:
            return ',' if delimiter == ';' else '.'
        return max(votes, key=votes.get)

    @staticmethod
    def fit(fields, columns, delimiter):
        """As many fields as columns. Names with delimiters are not always quoted."""
        extra = len(fields) - columns.width
        if extra > 0:
            end = columns.stack + extra + 1
            # A number there means that it is a number that was cut in two, or nothing was.
            if not re.fullmatch(r'[\s0-9.,]*', fields[end - 1]):
                name = delimiter.join(fields[columns.stack:end])
                return fields[:columns.stack] + [name] + fields[end:]
            if any(f.strip() for f in fields[columns.width:]):
                raise BadRow('there are more fields than columns')
        return fields + [''] * -extra

    def value(self, fields, columns, decimal):
        if columns.measure == 'row':
            return 1
        cell = fields[columns.at[columns.measure]]
        try:
            return parse_count(cell) if columns.measure == 'count' else \
                parse_weight(cell, decimal, columns.unit)
        except ValueError:
            raise BadRow('no number in "%s"' % columns.cells[columns.at[columns.measure]])

    def take(self, fields, columns, decimal):
        at, stack = columns.at, columns.stack
        if fields[stack].strip() == columns.cells[stack] and \
                [re.sub(r'\s+', ' ', f.strip()) for f in fields] == columns.cells:
            self.close(0)           # exports put one after the other
            return
        filled = [i for i in columns.keys if fields[i].strip()]
        if not filled:
            raise BadRow('neither process nor thread nor stack')
        value = self.value(fields, columns, decimal)

        def cell(role):
            return fields[at[role]].strip().lstrip(EXPANDERS) if role in at else ''

        row, last = Row(), filled[-1]
        row.process, row.own = cell('process'), value
        tid, name = cell('tid').translate(GROUPING), cell('thread name')
        if re.fullmatch(r'[0-9.,]+', tid):
            tid = re.sub('[.,]', '', tid)
        row.thread = (tid, name) if tid or name else None
        space, bars, branch, text = TREE.fullmatch(fields[stack]).groups()
        nested = filled[0] == stack and bool(bars or space and self.open)
        level = bars.count('|') if nested else 0
        if columns.measure == 'row' and (nested or not text.strip()):
            raise BadRow('one row of a tree, but its column "Count" is missing')
        # A frame without its own branch goes on where the row above it is.
        self.close((filled[0], level + (nested and not branch)))
        parent = self.open[-1] if self.open else None
        if parent:
            row.process = row.process or parent.process
            row.thread = row.thread or parent.thread
        row.frames = parent.frames if parent else ()
        if fields[stack].strip():
            self.stacks += 1
            row.frames = self.below(row.frames, text.strip()) if nested else \
                self.split(text.lstrip(EXPANDERS))
        row.end = (last, level if last == stack else 0)
        if parent:
            parent.own -= value
        self.open.append(row)
        self.rows += 1

    def split(self, cell):
        frames = self.memo.get(cell)
        if frames is None:
            frames = self.memo[cell] = split_stack(cell, self.options.separator)
        return frames

    @staticmethod
    def below(frames, name):
        if name.endswith(ITSELF):
            name = name[:-len(ITSELF)]
            if frames and frames[-1] == name:
                return frames
        return frames + (name,)

    def close(self, start):
        """Closes rows from the innermost, up to the one that contains `start`. 0: all."""
        while self.open and (not start or self.open[-1].end >= start):
            row = self.open.pop()
            if row.own < 0:
                self.excess -= row.own
                self.excess_rows += 1
            elif row.own:
                self.emit(row)

    def emit(self, row):
        o = self.options
        idle = row.frames in (('[Idle]',), ('[Root]', '[Idle]')) or \
            re.fullmatch(r'Idle(?: *\(0\))?', row.process)
        why = None
        if o.process and not o.process.search(row.process):
            why = 'of other processes'
        elif o.thread and not any(o.thread.search(part) for part in row.thread or ('',)):
            why = 'of other threads'
        elif idle and not o.idle:
            why = 'of the Idle process (--idle keeps it)'
        if why:
            self.left_out[why] = self.left_out.get(why, 0) + row.own
            return
        key = row.process, row.thread, row.frames
        self.totals[key] = self.totals.get(key, 0) + row.own


# >>output

EXTENSION = re.compile(r'\.(?:exe|dll|sys)\Z', re.I)
UNKNOWN = re.compile(r'\??|<[^<>]*>')      # <PDB not found>, as WPA says
HARMFUL = re.compile('[\x00-\x1f\x7f\x85\u2028\u2029]+')


def clean(name):
    return HARMFUL.sub(' ', name.replace(';', ':')).strip() or '[unnamed]'


def frame_name(frame, modules):
    module, mark, function = frame.partition('!')
    if mark and not modules and not UNKNOWN.fullmatch(function):
        return clean(function)
    return clean(EXTENSION.sub('', module) + mark + function)


def thread_name(thread):
    tid, name = thread
    return clean('%s (%s)' % (name, tid) if tid and name else name or 'thread ' + tid)


def rounded(amount):
    return (2 * amount + MICROSECOND) // (2 * MICROSECOND)


def apportion(totals):
    """Microseconds, rounded by largest remainder: their sum is the rounded sum."""
    units = {line: amount // MICROSECOND for line, amount in totals.items()}
    short = rounded(sum(totals.values())) - sum(units.values())
    for line in sorted(totals, key=lambda l: (-(totals[l] % MICROSECOND), l))[:short]:
        units[line] += 1
    return units


def folded(table, options):
    alone = options.process and len({process for process, _, _ in table.totals}) == 1
    memo, lines, hidden = {}, {}, 0
    for (process, thread, frames), amount in table.totals.items():
        if frames[:1] == ('[Root]',) and not options.root_frame:
            frames = frames[1:]
        if not frames or frames == ('[Root]',):
            frames = (HIDDEN,)
            hidden += amount
        parts = [clean(process)] if process and not alone else []
        if thread:
            parts.append(thread_name(thread))
        for frame in frames:
            if frame not in memo:
                memo[frame] = frame_name(frame, options.modules)
            parts.append(memo[frame])
        line = ';'.join(parts)
        line = '_' + line if line.startswith('#') else line       # not a comment
        lines[line] = lines.get(line, 0) + amount
    return lines, hidden


def report(table, lines, hidden):
    weights = table.measure == 'weight'

    def amount(n):
        return '{:,} us'.format(rounded(n)) if weights else plural(n, 'sample')

    say('%s in %s, from %s.' % (amount(sum(table.totals.values())),
                                plural(sum(map(bool, lines.values())), 'stack'),
                                plural(table.rows, 'row')))
    if table.left_out:
        say('Left out: %s.' % ', '.join('%s %s' % (amount(n), why)
                                        for why, n in sorted(table.left_out.items())))
    if hidden:
        say('%s below rows that were not expanded when the table was exported.' % amount(hidden))
    if table.excess:
        say('%s whose parts are more than the whole, by %s: the numbers are rounded, or not of one '
            'table.' % (plural(table.excess_rows, 'row'), amount(table.excess)))


def write_output(path, data):
    if path == '-':
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError as e:
            # Keep the interpreter from flushing into a closed pipe again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Failure('Cannot write to standard output: %s.' % (e.strerror or e), 1)
        return
    temporary = '%s.%d.tmp' % (path, os.getpid())
    try:
        with open(temporary, 'xb') as f:
            f.write(data)
        os.replace(temporary, path)
    except (OSError, ValueError) as e:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise Failure('Cannot write %s: %s.' % (path, getattr(e, 'strerror', None) or e), 1)


# >>main

def regex(text):
    try:
        return re.compile(text, re.I)       # Windows does not tell case in names either
    except (re.error, RecursionError, OverflowError) as e:
        raise argparse.ArgumentTypeError('it is not a regular expression: %s.' % e)


def sign(text):
    text = text.replace('\\t', '\t').replace('\\n', '\n')
    if not text or '"' in text:
        raise argparse.ArgumentTypeError('it must be some characters, not quotes.')
    return text


def parse_options(arguments):
    p = argparse.ArgumentParser(
        prog=PROG, allow_abbrev=False,
        description='Turns CPU samples that Windows Performance Analyzer exported into folded '
                    'stacks.')
    p.add_argument('inputs', nargs='*', metavar='FILE', default=['-'],
                   help='CSV of "CPU Usage (Sampled)"; several are added up; - or none: standard '
                        'input')
    p.add_argument('-o', '--output', metavar='FILE', default='-',
                   help='where to write (standard output)')
    p.add_argument('--process', type=regex, metavar='REGEX',
                   help='only processes that match, as "evm.exe (1234)"; case is ignored')
    p.add_argument('--thread', type=regex, metavar='REGEX',
                   help='only threads of which the id or the name matches')
    p.add_argument('--weight', dest='measure', action='store_const', const='weight',
                   help='N is CPU time in microseconds (the default, if there are weights)')
    p.add_argument('--count', dest='measure', action='store_const', const='count',
                   help='N is a number of samples')
    p.add_argument('--modules', choices=('on', 'off'), default='on',
                   help='ntdll!NtClose (on) or NtClose (off); unknown functions keep their module')
    p.add_argument('--root-frame', action='store_true', help='keep the frame [Root] of each stack')
    p.add_argument('--idle', action='store_true', help='keep the time when CPUs were idle')
    p.add_argument('--separator', type=sign, metavar='TEXT',
                   help='between the frames of a stack (/, ; or newline, where a frame follows)')
    p.add_argument('--delimiter', type=sign, metavar='TEXT',
                   help=r'between fields (\t, ";", ", " or "," by the header)')
    p.add_argument('--decimal', choices=('.', ','), help='decimal sign (by the numbers)')
    options = p.parse_args(arguments)
    options.inputs = options.inputs or ['-']
    options.modules = options.modules == 'on'
    return options


def run(arguments):
    options = parse_options(arguments)
    table = Table(options)
    for path in options.inputs:
        where = '(standard input)' if path == '-' else path
        if path == '-' and (sys.stdin is None or sys.stdin.closed):
            raise Failure('There is no standard input to read.')
        try:
            if path != '-' and options.output != '-' and os.path.exists(options.output) \
                    and os.path.samefile(path, options.output):
                raise Failure('The output %s is also an input; it was left alone.' % path)
            with sys.stdin.buffer if path == '-' else open(path, 'rb') as stream:
                table.read(where, stream)
        except OSError as e:
            raise Failure('Cannot read %s: %s.' % (where, e.strerror or e))
    if table.bad > QUOTED_ROWS:
        say('%d more rows like these.' % (table.bad - QUOTED_ROWS))
    if table.bad:
        say('Skipped %s.' % plural(table.bad, 'bad row'))
    lines, hidden = folded(table, options)
    if table.measure == 'weight':
        lines = apportion(lines)
    if not table.stacks:
        raise Failure('No row has a stack; nothing was written. Exported totals of groups are not '
                      'enough: show the column Stack and expand it, or ungroup the table.')
    if not any(lines.values()):
        if table.left_out:
            report(table, lines, hidden)
        raise Failure('Nothing is left; nothing was written.' if table.left_out else
                      'All numbers are zero; nothing was written.')
    report(table, lines, hidden)
    text = ''.join('%s %d\n' % item for item in sorted(lines.items()) if item[1])
    write_output(options.output, text.encode('utf-8', 'backslashreplace'))


def main():
    try:
        run(sys.argv[1:])
        return 0
    except Failure as e:
        say(str(e))
        return e.code
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        say('Out of memory.')
        return 1


if __name__ == '__main__':
    sys.exit(main())
