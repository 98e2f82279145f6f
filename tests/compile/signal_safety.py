#!/usr/bin/env python3
"""signal_safety.py: what can run in a signal handler of the header, read from the compiler's output.
Every function that a handler reaches is marked [signal] (see layout.py); outside of the header only
what is in OUTSIDE is called, through pointers only what is in POINTERS, and nothing is thread-local.

An object with a section for each function and each variable is the call graph: a relocation in a
section is a use of another one. So whatever function is named counts, called or not, and so do those
whose addresses stand in a table that is used. Without optimisation nothing is inlined away.

The same is done with copies of the header in which one fault each was planted; each must be found.

    signal_safety.py BUILD-DIRECTORY
"""

import concurrent.futures
import os
import re
import shutil
import sys

from checks import ROOT, check, done, note, run, skip
from layout import functions, strip

# Functions outside of the header that a handler may call. Compilers call these two by themselves, for
# assignments; POSIX lists both as async-signal-safe, and cprofi_signal_bind has the dynamic linker
# bind them before. System calls need no entry: the handler makes them itself, as libc's wrappers
# write errno, which is thread-local.
OUTSIDE = {"memcpy", "memset"}

# Calls through pointers: what the host had installed for the signal before is the host's own handler.
POINTERS = {"cprofi_signal_chain": 2}

# Called when the stack was found to be smashed; the process ends there.
ENDS = {"__stack_chk_fail"}

# Sections of one function or variable each, by the compilers' names for them.
SECTION = re.compile(r"^\.(text|data\.rel\.ro\.local|data\.rel\.ro|data\.rel\.local|data\.rel|data|rodata|bss)\.(?=\w)")


class Graph:
    def __init__(self):
        self.uses = {}       # function or variable -> others of the object
        self.outside = {}    # function -> names that are not in the object
        self.local = set()   # functions that use thread-local storage
        self.pointers = {}   # function -> calls through pointers


def graph_of(compiler, header, base):
    """None and what the compiler says if that does not compile."""
    with open(base + ".c", "w") as file:
        file.write('#define CPROF_IMPLEMENTATION\n#include "%s"\n' % os.path.abspath(header))
    # Jump tables are tables too, of places in functions.
    status, text = run([compiler, "-O0", "-g0", "-fPIC", "-fno-jump-tables", "-ffunction-sections", "-fdata-sections",
                        "-w", "-c", base + ".c", "-o", base + ".o"])
    if status != 0:
        return None, text
    graph, current = Graph(), None
    inside = {line.split()[0] for line in run(["nm", "--format=posix", "--defined-only", base + ".o"])[1].splitlines()}
    for line in run(["objdump", "-r", base + ".o"])[1].splitlines():
        head = re.match(r"RELOCATION RECORDS FOR \[(\S+)\]:", line)
        if head:
            current = SECTION.sub("", head.group(1))
            continue
        entry = re.match(r"^[0-9a-f]+\s+(R_\w+)\s+(\S+?)([+-]0x[0-9a-f]+)?$", line)
        if not entry or current is None or entry.group(2) == "_GLOBAL_OFFSET_TABLE_":
            continue
        if re.search(r"TLS|TPOFF|TPREL", entry.group(1)):
            graph.local.add(current)
        elif entry.group(2).startswith(".") or entry.group(2) in inside:
            graph.uses.setdefault(current, set()).add(SECTION.sub("", entry.group(2)))
        else:
            graph.outside.setdefault(current, set()).add(entry.group(2))
    current = None
    for line in run(["objdump", "-d", "--no-show-raw-insn", base + ".o"])[1].splitlines():
        if line.endswith(">:"):
            current = re.match(r"^[0-9a-f]+ <([^>]+)>:$", line).group(1)
            graph.uses.setdefault(current, set())
        # Not those through the global offset table: they have a relocation.
        elif "*" in line and re.match(r"^\s*[0-9a-f]+:\s+(notrack )?(call|jmp)q?\s+\*(?!.*\(%rip\))", line):
            graph.pointers[current] = graph.pointers.get(current, 0) + 1
    return graph, ""


def handlers(text):
    """What is assigned to a member of struct sigaction."""
    return sorted(set(re.findall(r"\bsa_(?:sigaction|handler)\s*=\s*&?\s*(cprofi_\w+)", strip(text))))


def marks(text):
    """{function: whether it is marked, all of its definitions if there are several}."""
    marked = {}
    for name, head, _, _ in functions(text, strip(text)):
        marked[name] = marked.get(name, True) and "[signal]" in head
    return marked


def reached(graph, roots):
    """{function or variable: the chain that leads there}, shortest chains."""
    chains, pending = {}, [(root,) for root in roots]
    while pending:
        chain = pending.pop(0)
        if chain[-1] not in chains:
            chains[chain[-1]] = chain
            pending += [chain + (used,) for used in sorted(graph.uses.get(chain[-1], ()))]
    return chains


def faults(graph, text):
    """{what is wrong: the chain that leads there}."""
    marked, found = marks(text), {}
    for name, chain in reached(graph, [h for h in handlers(text) if h in graph.uses]).items():
        wrong = ["%s calls %s" % (name, called) for called in graph.outside.get(name, set()) - OUTSIDE - ENDS]
        if not marked.get(name, True):
            wrong.append(name + " is not marked")
        if name in graph.local:
            wrong.append(name + " uses thread-local storage")
        if graph.pointers.get(name, 0) > POINTERS.get(name, 0):
            wrong.append(name + " calls through a pointer")
        found.update((fault, " > ".join(chain)) for fault in wrong)
    return found


# What is planted: before the function, in its body, and what has to be said of it. The functions are
# chosen by how many calls they are from a handler.
PLANTED = [
    ("malloc", 3, "#include <stdlib.h>\n", "free(malloc(16));", ["@ calls malloc", "@ calls free"]),
    ("an unmarked function", 2, "static void cprofi_planted(void) { }\n", "cprofi_planted();", ["cprofi_planted is not marked"]),
    ("stdio", 1, "", 'fputs("", stderr);', ["@ calls fputs", "@ calls stderr"]),
    ("a thread-local variable", 4, "static __thread int cprofi_planted;\n", "cprofi_planted = 1;", ["@ uses thread-local storage", "@ calls __tls_get_addr"]),
    ("errno", 0, "", "errno = 0;", ["@ calls __errno_location"]),
    ("a lock", 2, "static pthread_mutex_t cprofi_planted;\n", "pthread_mutex_lock(&cprofi_planted);", ["@ calls pthread_mutex_lock"]),
    ("a table of unmarked functions", 1,
     "static int cprofi_planted(void) { return 1; }\nstatic int (*volatile cprofi_planted_table[])(void) = {cprofi_planted};\n",
     "(void)cprofi_planted_table[0]();", ["cprofi_planted is not marked", "@ calls through a pointer"]),
]


def plant(text, function, before, statement):
    """The header with the statement at the begin of the function, and something before that."""
    at = None
    for name, head, _, line in functions(text, strip(text)):
        if name == function and at is None:
            at = sum(len(l) + 1 for l in text.split("\n")[:line - 1])
    brace = strip(text).index("{", at) + 1
    comment = text.rfind("/*", 0, at)
    return text[:comment] + before + text[comment:brace] + statement + text[brace:]


def main():
    directory = os.path.join(ROOT, sys.argv[1] if len(sys.argv) > 1 else "build", "compile", "signal_safety")
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(ROOT, "cprof.h")) as file:
        text = file.read()
    graph = None
    for compiler in ("gcc", "clang"):
        if not shutil.which(compiler):
            skip(compiler, "not installed")
            continue
        found, words = graph_of(compiler, os.path.join(ROOT, "cprof.h"), os.path.join(directory, compiler))
        if not check(found, compiler + ": compiles", words):
            continue
        graph = found
        roots = [h for h in handlers(text) if h in graph.uses]
        marked = marks(text)
        chains = [c for c in reached(graph, roots).values() if c[-1] in marked]
        note("%s: %s reach %d functions" % (compiler, ", ".join(roots), len(chains)))
        check(len(roots) >= 2 and len(chains) > 30, compiler + ": handlers and what they reach are found",
              "%s: %d" % (" ".join(roots), len(chains)))
        wrong = faults(graph, text)
        check(not wrong, compiler + ": what handlers reach is marked and safe",
              "\n".join("%s (%s)" % item for item in sorted(wrong.items())))
    if graph:
        planted(text, graph, compiler, directory)
    done()


def planted(text, graph, compiler, directory):
    chains = reached(graph, [h for h in handlers(text) if h in graph.uses])
    known = [name for name, _, _, _ in functions(text, strip(text))]

    def one(number):
        what, calls, before, statement, expected = PLANTED[number]
        function = sorted(n for n, c in chains.items() if len(c) == calls + 1 and known.count(n) == 1)[0]
        here = os.path.join(directory, "planted-%d" % number)
        with open(here + ".h", "w") as file:
            file.write(plant(text, function, before, statement))
        with open(here + ".h") as file:
            changed = file.read()
        found, words = graph_of(compiler, here + ".h", here)
        if not found:
            return what, function, words
        said, wanted = faults(found, changed), {e.replace("@", function) for e in expected}
        return what, function, "" if set(said) == wanted else "%s instead of %s" % (sorted(said), sorted(wanted))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for what, function, wrong in pool.map(one, range(len(PLANTED))):
            check(not wrong, "%s in %s is found" % (what, function), wrong)


if __name__ == "__main__":
    main()
