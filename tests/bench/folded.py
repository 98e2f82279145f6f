#!/usr/bin/env python3
"""Writes large folded files for speed tests: the same bytes from the same arguments, everywhere.

    python3 tests/bench/folded.py [--lines 1000000] [--stacks 200000] [--threads 8] > big.folded

The stacks are walks down a random call graph whose functions call few others often and many rarely,
as in real programs; lines repeat them in random order, as a tool that does not merge writes them.
With the defaults: 1,000,000 lines, 200,000 different stacks, 19 frames deep in the mean, 280 MB.
Python 3.8 or later, standard library only.
"""
import argparse
import random
import sys

FUNCTIONS = 3000
CALLEES = 12
DEEPEST = 30
WORDS = ('parse read write get set find make node tree list hash block page cache lock queue frame '
         'value key index name state copy merge split visit check emit load store send recv map '
         'push pop init free scan sort join bind call eval step next iter').split()


def whole(r, bound):
    """0 to bound - 1. Only random() is the same in every version of Python."""
    return int(r.random() * bound)


def skewed(r, bound):
    """The same, small ones far more often."""
    return int(bound * r.random() ** 3)


def function_names(r):
    names = []
    for i in range(FUNCTIONS):
        parts = [WORDS[whole(r, len(WORDS))] for _ in range(2 + whole(r, 2))]
        names.append('%s_%d' % ('_'.join(parts), i) if i % 4 else
                     '%s::%s' % (parts[0].title(), '_'.join(parts[1:])))
    return names


def stacks(r, most, threads):
    """Different ones: each leaves an earlier one near its leaf and goes on by itself."""
    names = function_names(r)
    calls = [[skewed(r, FUNCTIONS) for _ in range(CALLEES)] for _ in range(FUNCTIONS)]
    every, seen = [], set()
    while len(every) < most:
        if every and r.random() < 0.999:
            path = every[whole(r, len(every))]
            path = path[:max(3, len(path) - skewed(r, 8))]
        else:
            path = (-1 - whole(r, threads), -1, whole(r, 8))
        for _ in range(1 + skewed(r, 9)):
            path += (calls[path[-1]][skewed(r, CALLEES)],)
        if path in seen or len(path) > DEEPEST:
            continue
        seen.add(path)
        every.append(path)
    return [';'.join(['worker-%d' % -path[0], 'start_thread'] + [names[f] for f in path[2:]])
            for path in every]


def main():
    p = argparse.ArgumentParser(description='Writes a large folded file.')
    p.add_argument('--lines', type=int, default=1000000)
    p.add_argument('--stacks', type=int, default=200000)
    p.add_argument('--threads', type=int, default=8)
    p.add_argument('--seed', type=int, default=1)
    o = p.parse_args()
    r = random.Random(o.seed)
    every = stacks(r, min(o.stacks, o.lines), o.threads)
    out = sys.stdout
    for i in range(o.lines):
        # each stack once, then any
        stack = every[i if i < len(every) else skewed(r, len(every))]
        out.write('%s %d\n' % (stack, 1 + skewed(r, 2000)))


if __name__ == '__main__':
    main()
