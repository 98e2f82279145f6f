#!/usr/bin/env python3
"""suspended.py: what the Windows sampler calls while a thread is suspended. That thread may hold the
lock of the heap, of the loader, of anything: GetThreadContext, VirtualQuery and memcpy take none.

Read from the machine code: in the function that calls SuspendThread, all instructions that lie on a
way from there to the call of ResumeThread; what they call, and what that calls in turn. Functions of
the header among them are marked [signal]. The same for two faults put in on purpose, which have to be
found.
"""

import os
import re
import shutil
import subprocess
import sys

from checks import ROOT, check, done, run, skip
from signal_safety import marks
sys.path.insert(0, os.path.join(ROOT, "tests"))
from implementation import WINDOWS_FLAGS, implementation  # noqa: E402

ALLOWED = {"GetThreadContext", "VirtualQuery", "memcpy"}
FAULTS = {"HeapAlloc": "HeapFree(GetProcessHeap(), 0, HeapAlloc(GetProcessHeap(), 0, 1))", "GetModuleHandleW": "GetModuleHandleW(NULL)"}

# As objdump of binutils or of LLVM prints them.
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s*\t(.*)$")
RELOCATION = re.compile(r"^\s+[0-9a-f]+: +(?:IMAGE_REL_\w+|R_\w+|DISP\w*|\w+)\s+(\S+)$")
REGISTER = re.compile(r"%r\w+")


class Function:
    def __init__(self):
        self.code = []      # (address, mnemonic, operands)
        self.symbol = {}    # address of an instruction: the symbol it refers to


def functions(objdump, path):
    status, text = run([objdump, "-dr", "--no-show-raw-insn", path])
    found, current, at = {}, None, None
    if status != 0:
        return found
    for line in text.splitlines():
        head = re.match(r"^[0-9a-f]+ <([^>]+)>:$", line)
        if head:
            current = found.setdefault(head.group(1), Function())
            continue
        instruction = INSTRUCTION.match(line)
        if instruction and current:
            at = int(instruction.group(1), 16)
            words = instruction.group(2).split(None, 1)
            current.code.append((at, words[0], words[1].strip() if len(words) > 1 else ""))
            continue
        relocation = RELOCATION.match(line)
        if relocation and current and at is not None:
            current.symbol.setdefault(at, re.sub(r"[+-]0x[0-9a-f]+$", "", relocation.group(1)))
    return found


def plain(symbol):
    return re.sub(r"^__imp_", "", symbol)


def calls(function):
    """{address: what is called there}; a pointer of unknown value is "(pointer)"."""
    found, holds = {}, {}
    for at, name, operands in function.code:
        if name.startswith("mov") and at in function.symbol and function.symbol[at].startswith("__imp_"):
            holds[REGISTER.findall(operands)[-1]] = plain(function.symbol[at])
        elif name.startswith("mov") and "," in operands:
            target, source = operands.rsplit(",", 1)[1], operands.rsplit(",", 1)[0]
            if REGISTER.fullmatch(target):
                holds[target] = holds.get(source) if REGISTER.fullmatch(source) else None
        if not name.startswith("call") and not (name == "jmp" and "*" in operands):
            continue
        local = re.search(r"<([^>+]+)>", operands)
        if at in function.symbol:
            found[at] = plain(function.symbol[at])
        elif local:
            found[at] = local.group(1)
        else:
            found[at] = holds.get(operands.lstrip("*")) or "(pointer)"
    return found


def successors(function):
    addresses = [code[0] for code in function.code]
    inside, after = set(addresses), dict(zip(addresses, addresses[1:]))
    found = {}
    for at, name, operands in function.code:
        targets = []
        jump = re.match(r"^(?:0x)?([0-9a-f]+)\b", operands) if name.startswith("j") else None
        if jump and int(jump.group(1), 16) in inside:
            targets.append(int(jump.group(1), 16))
        if not name.startswith(("ret", "jmp", "ud2")) and at in after:
            targets.append(after[at])
        found[at] = targets
    return found


def reach(start, edges, stop):
    seen, pending = set(), list(start)
    while pending:
        at = pending.pop()
        if at in seen or at in stop:
            continue
        seen.add(at)
        pending += edges.get(at, [])
    return seen


def closure(names, table, seen):
    """What is called outside of the object."""
    outside = set()
    for name in names:
        if name in seen:
            continue
        seen.add(name)
        if name in table:
            outside |= closure(set(calls(table[name]).values()), table, seen)
        else:
            outside.add(name)
    return outside


def while_suspended(table, suspend="SuspendThread", resume="ResumeThread"):
    """What is called outside of the object and in it, both None if no function has both calls."""
    outside, inside = None, None
    for function in table.values():
        called = calls(function)
        begin = {at for at, name in called.items() if name == suspend}
        end = {at for at, name in called.items() if name == resume}
        if not begin:
            continue
        if not end:
            return {"a function that suspends and does not resume"}, set()
        forward = successors(function)
        backward = {}
        for at, targets in forward.items():
            for target in targets:
                backward.setdefault(target, []).append(at)
        between = reach([t for at in begin for t in forward[at]], forward, end)
        between &= reach([t for at in end for t in backward.get(at, [])], backward, begin)
        seen = set()
        outside = (outside or set()) | closure({called[at] for at in between if at in called}, table, seen)
        inside = (inside or set()) | {name for name in seen if name in table}
    return outside, inside


def main():
    compiler, objdump = "x86_64-w64-mingw32-gcc", "x86_64-w64-mingw32-objdump"
    if not shutil.which(compiler) or not shutil.which(objdump):
        skip("MinGW", "not installed")
        done()
    with open(os.path.join(ROOT, "cprof.h")) as file:
        marked = marks(file.read())
    faults = "-DCPROFI_TEST_WHILE_SUSPENDED(tid)=(void)(tid), " + ", ".join(FAULTS.values())
    for what, level, more in (("-O0, as it is", "-O0", []), ("-O2, as it is", "-O2", []), ("-O2, with faults", "-O2", [faults])):
        try:
            path = implementation([compiler], [level] + WINDOWS_FLAGS[1:] + more)
        except subprocess.CalledProcessError as error:
            check(False, what + ": compiles", error.stdout.decode(errors="replace"))
            continue
        found, inside = while_suspended(functions(objdump, path))
        if not check(found is not None, what + ": the place is found", "no SuspendThread"):
            continue
        for fault in sorted(FAULTS) if more else ():
            check(fault in found, "a call of %s is found" % fault, " ".join(sorted(found)))
        if not more:
            check({"GetThreadContext", "VirtualQuery"} <= found <= ALLOWED,
                  "%s: only %s are called while a thread is suspended" % (level, ", ".join(sorted(ALLOWED))),
                  " ".join(sorted(found)))
            unmarked = sorted(name for name in inside if not marked.get(name, True))
            check(not unmarked and (inside or level != "-O0"), level + ": functions that run then are marked [signal]",
                  " ".join(unmarked) or "none are found")
    done()


if __name__ == "__main__":
    main()
