#!/usr/bin/env python3
"""handler_stack.py: what the signal handler takes of the stack, 1.5 KB at most, so that small
alternate stacks hold.

The compiler's -fstack-usage gives each function's frame, the object file's relocations and calls
give the call graph, and the deepest chain from the handler is summed: 8 bytes of return address a
call and, in a function whose size depends on its data, a failure. A call through a pointer or into
libc counts as a leaf of LIBC bytes (the handler calls system call wrappers only).

"""

import os
import re
import shutil
import subprocess
import sys

from checks import ROOT, check, done, note, run, skip
sys.path.insert(0, os.path.join(ROOT, "tests"))
from implementation import LINUX_FLAGS, implementation  # noqa: E402

LIMIT = 1536
LIBC = 128


def graph(object_file):
    """{function: set of called names}; local calls are resolved by address."""
    status, text = run(["objdump", "-dr", "--no-show-raw-insn", object_file])
    if status != 0:
        return None
    calls, current, pending = {}, None, None
    for line in text.splitlines():
        head = re.match(r"^[0-9a-f]+ <([^>]+)>:$", line)
        if head:
            current, pending = head.group(1), None
            calls.setdefault(current, set())
            continue
        if current is None:
            continue
        relocation = re.match(r"^\s+[0-9a-f]+: R_X86_64_(PLT32|PC32|GOTPCRELX?|REX_GOTPCRELX)\s+([^\s+-]+)", line)
        if relocation and pending:
            name = relocation.group(2)
            if name.startswith(".text"):
                offset = re.search(r"([+-]0x[0-9a-f]+)", line)
                pending_target = int(offset.group(1), 16) + 4 if offset else 4
                calls[current].add("%s@%x" % (name, pending_target))
            else:
                calls[current].add(name)
            pending = None
            continue
        instruction = re.match(r"^\s*([0-9a-f]+):\s+(call|jmp)\s+(.*)$", line)
        pending = None
        if instruction:
            target = re.search(r"<([^>+]+)(\+0x[0-9a-f]+)?>", instruction.group(3))
            pending = instruction.group(2)
            if target and target.group(1) != current and not target.group(2):
                calls[current].add(target.group(1))
            elif instruction.group(2) == "call" and "*" in instruction.group(3):
                calls[current].add("(pointer)")
    return calls


def usage(su_file):
    frames = {}
    with open(su_file) as file:
        for line in file:
            where, size, kind = line.rstrip("\n").split("\t")
            name = where.split(":")[-1]
            frames[name] = (int(size), kind)
    return frames


def handler_names(text):
    """What is installed by sigaction, marked or not."""
    return sorted(set(re.findall(r"sa_(?:sigaction|handler)\s*=\s*&?\s*(cprofi_\w+)", text)))


def plain(name):
    return name.split(".")[0]


def frame_of(name, frames):
    """(bytes, kind); gcc drops the number of a clone: f.isra.0 is listed as f.isra."""
    for alias in (name, re.sub(r"\.\d+$", "", name), plain(name)):
        if alias in frames:
            return frames[alias]
    return None, None


def deepest(name, calls, frames, seen, problems):
    """(bytes, chain) of the deepest chain that begins in name."""
    if name not in calls:
        return (LIBC if name != "__stack_chk_fail" else 0), [name]
    if name in seen:
        problems.add("recursion through " + name)
        return 0, [name]
    size, kind = frame_of(name, frames)
    if size is None:
        problems.add("no stack usage of " + name)
        size = 0
    elif kind != "static" and "bounded" not in kind:
        problems.add("the frame of %s depends on data" % name)
    best, chain = 0, []
    for called in sorted(calls[name]):
        # A cold part runs on the frame of its function.
        if plain(called) == plain(name) and called.endswith(".cold"):
            continue
        below, below_chain = deepest(called, calls, frames, seen | {name}, problems)
        if below + 8 > best:
            best, chain = below + 8, below_chain
    return size + best, [name] + chain


def externals(name, calls):
    """What the handler can reach that is not in the object. Its first call would go through the
    dynamic linker, which binds lazily: kilobytes of stack, and the loader's lock."""
    seen, pending, found = set(), [name], set()
    while pending:
        at = pending.pop()
        if at in seen:
            continue
        seen.add(at)
        if at not in calls:
            if at not in ("(pointer)", "__stack_chk_fail"):
                found.add(at)
        else:
            pending += calls[at]
    return sorted(found)


def main():
    with open(os.path.join(ROOT, "cprof.h")) as file:
        text = file.read()
    handlers = handler_names(text)
    check(handlers, "the handler is found in the source", "nothing is assigned to sa_sigaction")
    for compiler in ("gcc", "clang"):
        if not shutil.which(compiler):
            skip(compiler, "not installed")
            continue
        for level in ("-O2", "-O0"):
            try:
                base = implementation([compiler], [level] + LINUX_FLAGS[1:])[:-len(".o")]
            except subprocess.CalledProcessError as error:
                check(False, "%s %s: compiles with -fstack-usage" % (compiler, level), error.stdout.decode(errors="replace"))
                continue
            calls, frames = graph(base + ".o"), usage(base + ".su")
            for handler in handlers:
                name = next((n for n in calls if plain(n) == handler), None)
                if not check(name, "%s %s: %s is in the object" % (compiler, level, handler), "not found"):
                    continue
                problems = set()
                size, chain = deepest(name, calls, frames, set(), problems)
                note("%s %s: %d bytes: %s" % (compiler, level, size, " > ".join(
                    "%s %s" % (n, frame_of(n, frames)[0] or "libc") for n in chain)))
                what = "%s %s: %s takes at most %d bytes of stack" % (compiler, level, handler, LIMIT)
                if level == "-O0":
                    # Unoptimised builds are told apart, not promised: no more than twice.
                    check(size <= 2 * LIMIT, "%s %s: %s takes at most %d bytes of stack" % (compiler, level, handler, 2 * LIMIT), "%d" % size)
                else:
                    check(size <= LIMIT, what, "%d: %s" % (size, " > ".join(chain)))
                check(not problems, "%s %s: the chain is static" % (compiler, level), "; ".join(sorted(problems)))
                # Without optimisation the compiler itself puts calls to these for assignments.
                own = {"memcpy", "memset"}    # a compiler may call these anywhere; start binds them
                foreign = [f for f in externals(name, calls) if f not in own]
                check(not foreign, "%s %s: the handler calls nothing outside the header" % (compiler, level), " ".join(foreign))
    done()


if __name__ == "__main__":
    main()
