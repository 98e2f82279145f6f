#!/usr/bin/env python3
"""layout.py: the header keeps its own rules: each section marker is listed once in the contents of
the doc block, in order; lines stay within 100 columns; no private name leaks out of its prefix;
what is marked [signal] calls no malloc, lock, stdio or unmarked function. A function is marked by
its own comment or, where all of a section is safe, by "[signal] section" in the section's comment.

    layout.py [BUILD-DIRECTORY]
"""

import os
import re

from checks import ROOT, check, done, note

# What a signal handler of this header must never call.
FORBIDDEN = ["malloc", "calloc", "realloc", "free", "printf", "fprintf", "snprintf", "vsnprintf", "fopen", "fwrite", "fclose",
             "pthread_mutex_lock", "pthread_cond_wait", "pthread_once", "dl_iterate_phdr", "dladdr", "dlopen", "dlsym",
             "mmap", "munmap", "exit", "abort", "pthread_getspecific", "pthread_setspecific"]


def strip(text):
    """Comments, strings and characters become spaces; lengths and lines stay."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


def functions(text, code):
    """(name, comment and head before the body, body, line) of every function definition at file level."""
    # A head begins in column 0 or after CPROF_API; its '{' stands in column 0 or ends the head.
    pattern = re.compile(r"^(?![ \t#}])([^\n;{}=]*?\b(\w+)\s*\([^;{}]*\)[^;{}()=]*)\{", re.M)
    at = 0
    while True:
        match = pattern.search(code, at)
        if not match:
            return
        depth, end = 0, match.end() - 1
        while end < len(code):
            if code[end] == "{":
                depth += 1
            elif code[end] == "}":
                depth -= 1
                if depth == 0:
                    break
            end += 1
        before = text[:match.start()].rstrip()
        comment = ""
        if before.endswith("*/"):
            comment = before[before.rfind("/*"):]
        yield match.group(2), comment + text[match.start():match.end()], code[match.end():end], text.count("\n", 0, match.start()) + 1
        at = match.end()


def main():
    with open(os.path.join(ROOT, "cprof.h")) as file:
        text = file.read()
    code = strip(text)
    lines = text.splitlines()

    markers = re.findall(r"^/\* >>([\w-]+):", text, re.M)
    block = text[:text.find("*/", text.find("/*") if not text.startswith("/*") else 0)]
    listed = re.findall(r">>([\w-]+)", block)
    if not listed:
        # Contents without the arrows: the names in a list under a heading.
        heading = re.search(r"^\W*contents\b.*$", block, re.I | re.M)
        listed = re.findall(r"^\W*([\w-]+)\s{2,}\S", block[heading.end():], re.M) if heading else []
    check(markers, "sections have markers", "no /* >>name: title")
    check(len(set(markers)) == len(markers), "each section marker is there once",
          " ".join(sorted(set(m for m in markers if markers.count(m) > 1))))
    check([name for name in listed if name in markers] == markers and set(listed) >= set(markers),
          "the contents list each section once, in order", "contents: %s; sections: %s" % (" ".join(listed), " ".join(markers)))
    ghosts = [name for name in re.findall(r">>([\w-]+)", block) if name not in markers]
    check(not ghosts, "the contents list nothing else", " ".join(ghosts))

    long = [str(number) for number, line in enumerate(lines, 1) if len(line) > 100]
    check(not long, "lines are at most 100 columns", "lines " + " ".join(long[:20]))
    blank = [str(number) for number, line in enumerate(lines, 1) if line != line.rstrip() or "\t" in line]
    check(not blank, "no tabs, no blanks at line ends", "lines " + " ".join(blank[:20]))
    under = sorted(set(re.findall(r"\b(_?_?cprofi?__\w+|__?cprof\w*|__?CPROF\w*)\b", code)))
    check(not under, "no leading or double underscores in our names", " ".join(under))
    first = text.find("*/")
    check(text.startswith("/*") and text.count("\n", 0, first) <= 300, "the doc block has at most 300 lines",
          "%d" % text.count("\n", 0, first))

    starts = [(m.start(), "[signal] section" in m.group(0)) for m in re.finditer(r"^/\* >>.*?\*/", text, re.M | re.S)]
    table = {}
    for name, head, body, line in functions(text, code):
        at = sum(len(l) + 1 for l in lines[:line - 1])
        whole = [safe for start, safe in starts if start <= at]
        marked = "[signal]" in head or bool(whole and whole[-1])
        known = table.setdefault(name, {"marked": marked, "calls": set(), "line": line})
        known["marked"] = known["marked"] or marked
        known["calls"] |= set(re.findall(r"\b([A-Za-z_]\w*)\s*\(", body))
    signal = sorted(name for name, entry in table.items() if entry["marked"])
    check(signal, "functions of the signal handler are marked [signal]", "none of %d functions" % len(table))
    note("%d functions, %d of them marked [signal]" % (len(table), len(signal)))
    for name in signal:
        calls = table[name]["calls"]
        bad = sorted(call for call in calls if call in FORBIDDEN)
        bad += sorted(call for call in calls if call in table and not table[call]["marked"])
        if bad:
            check(False, "[signal] %s calls only what is safe" % name, "line %d calls %s" % (table[name]["line"], " ".join(bad)))
    check(True, "[signal] functions were read")
    done()


if __name__ == "__main__":
    main()
