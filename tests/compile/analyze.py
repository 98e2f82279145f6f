#!/usr/bin/env python3
"""analyze.py: static analysis of the implementation: clang-tidy, cppcheck, gcc -fanalyzer. Each finding
is either mended, or stands in ACCEPTED with the reason why it is none; a new one fails, and so does an
entry that nothing is found for. A null pointer that is used and memory that is leaked, planted in a
copy, have to be found.

    analyze.py BUILD-DIRECTORY [TOOL...]

Not part of `make test`: it takes minutes. Debian packages: clang-tidy, cppcheck, gcc.
"""

import os
import re
import shutil
import sys

from checks import ROOT, check, done, note, run, skip
from layout import functions, strip

# Checks that are left out, and why. Each finding of theirs was read.
OFF = {
    "bugprone-easily-swappable-parameters": "half of all functions have two numbers",
    "bugprone-narrowing-conversions": "-Wconversion and -Wsign-conversion say the same, and are clean",
    "bugprone-implicit-widening-of-multiplication-result": "the factors are constants, bytes and other bounded fields",
    "bugprone-branch-clone": "one line a case, in the order of the specification, is easier to check",
    "bugprone-not-null-terminated-result": "the zero is put behind the second part, or counted by its length",
    "bugprone-reserved-identifier": "_GNU_SOURCE is for programs to define",
    "cert-dcl37-c": "the same",
    "cert-dcl51-cpp": "the same",
    "cert-err33-c": "results of snprintf and close that do not matter",
    "clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling": "it asks for Annex K, which no system has",
}
CLANG_TIDY = "-*,bugprone-*,clang-analyzer-*,cert-*" + "".join(",-" + name for name in OFF)

# (tool, check, function): why it is right as it is.
ACCEPTED = {
    ("clang-tidy", "cert-flp30-c", "cprofi_lines_round"): "a double counts whole numbers far below 2 to the 53rd",
    ("clang-tidy", "clang-analyzer-core.UndefinedBinaryOperatorResult", "cprofi_demangled_group"):
        "the first character is a bracket, by contract, and the loop ends when none is open: open[depth - 1] is there",
    ("clang-tidy", "clang-analyzer-core.UndefinedBinaryOperatorResult", "cprofi_signal_pushed"):
        "a system call made by assembly writes the time, which the analyzer does not see",
    ("clang-tidy", "clang-analyzer-core.UndefinedBinaryOperatorResult", "cprofi_hash_bytes"):
        "the words of an array that is set are read byte by byte; the analyzer knows the first byte of a word only",
    ("clang-tidy", "clang-analyzer-core.UndefinedBinaryOperatorResult", "cprofi_step_full"):
        "good, which is shifted by less than 64, is set in every case of the switch",
    ("clang-tidy", "clang-analyzer-core.NonNullParamChecker", "cprofi_writer_put"):
        "in cprofi_write_perf `room` is 0 as long as there is no memory for the stack, and no stack's size + 1 is 0",
    ("clang-tidy", "clang-analyzer-core.NullDereference", "cprofi_get32"):
        "cprofi_elf_load sets the count of sections to 0 where it sets the table to NULL; cprofi_elf_section_at asks for the count",
    ("clang-tidy", "clang-analyzer-core.uninitialized.Assign", "cprofi_inflate_block"):
        "`from` is behind `at` by a distance that is 1 at least, and everything before `at` was written",
    ("clang-tidy", "clang-analyzer-core.uninitialized.Assign", "cprofi_pprof_strings"):
        "cprofi_pprof_map fills in each mapping that it counts, and counts from 0",
    ("clang-tidy", "clang-analyzer-core.uninitialized.Branch", "cprofi_write_perf"):
        "the name of a thread is never empty (cprofi_name_clean), so thread[1] is its second character or the zero",
    ("clang-tidy", "clang-analyzer-optin.portability.UnixAPI", "cprofi_names_module"):
        "it is given one word at least: words[from] has its own module, so cprofi_names_init finds `to` behind it",
    ("cppcheck", "ctuuninitvar", "cprofi_os_cpu"): "of a thread that is only probed its id is used, and that is set",
    ("cppcheck", "invalidLifetime", "cprofi_symbols_show"): "what the demangler returns is from malloc, and has nothing to do with the status",
    ("cppcheck", "selfAssignment", "cprofi_rule_return"): "CPROFI_CODE is for AArch64: x86 has no signatures in return addresses",
    ("cppcheck", "selfAssignment", "cprofi_step_pointer"): "the same",
    ("cppcheck", "selfAssignment", "cprofi_unwind_outermost"): "the same",
    ("gcc", "-Wanalyzer-possible-null-dereference", "cprofi_file_open"):
        "its callers test the pointer, one of them together with another",
}

PLANTED = """
static int cprofi_planted_null(int size) {
    char *memory = (char *)malloc(16);
    int *nothing = NULL;
    free(memory);
    return size > 3 ? *nothing : 0;
}

static int cprofi_planted_leak(int size) {
    char *memory = (char *)malloc(16);
    if (!memory) return 0;
    memory[0] = (char)size;
    if (size < -3) return memory[0]; /* elsewhere than the other one: a path ends at its first fault */
    free(memory);
    return 1;
}

int cprof_planted(int size);
int cprof_planted(int size) { return cprofi_planted_null(size) + cprofi_planted_leak(size); }
"""


def clang_tidy(path):
    return run(["clang-tidy", path, "--quiet", "--checks=" + CLANG_TIDY, "--", "-std=c99", "-DCPROF_IMPLEMENTATION"], timeout=1800)[1], \
        r"^(\S+?):(\d+):\d+: (?:warning|error): (.*) \[([\w.,-]+)\]$"


def cppcheck(path):
    return run(["cppcheck", "--enable=warning,performance,portability", "--inconclusive", "--std=c99", "--platform=unix64", "--quiet",
                "--max-configs=1", "-D__linux__=1", "-D__x86_64__=1", "-D__LP64__=1", "-D__GNUC__=12", "-DCPROF_IMPLEMENTATION",
                "--template={file}:{line}:{column}: warning: {message} [{id}]", path], timeout=1800)[1], \
        r"^(\S+?):(\d+):\d+: warning: (.*) \[([\w-]+)\]$"


def gcc_analyzer(path):
    return run(["gcc", "-std=c99", "-O1", "-fanalyzer", "-DCPROF_IMPLEMENTATION", "-c", path, "-o", path[:-2] + ".o"], timeout=1800)[1], \
        r"^(\S+?):(\d+):\d+: warning: (.*) \[.*(-Wanalyzer[\w-]+).*\]$"


TOOLS = [("clang-tidy", clang_tidy), ("cppcheck", cppcheck), ("gcc", gcc_analyzer)]


def findings(tool, path):
    """{(check, function): [line: message]}, and all that the tool says."""
    with open(path) as file:
        text = file.read()
    places = [(line, line + (head + body).count("\n"), name) for name, head, body, line in functions(text, strip(text))]
    words, pattern = tool(path)
    found = {}
    for line in words.splitlines():
        match = re.match(pattern, line)
        if match:
            at = int(match.group(2))
            where = ([name for first, last, name in places if first <= at <= last] or ["-"])[-1]
            found.setdefault((match.group(4), where), []).append("%d: %s" % (at, match.group(3)))
    return found, words


def main():
    directory = os.path.join(ROOT, sys.argv[1] if len(sys.argv) > 1 else "build", "compile", "analyze")
    os.makedirs(directory, exist_ok=True)
    # The header as a source file, as clang's analyzer looks at no function of a header.
    own, planted = os.path.join(directory, "cprof.c"), os.path.join(directory, "planted.c")
    with open(os.path.join(ROOT, "cprof.h")) as file:
        text = file.read()
    with open(own, "w") as file:
        file.write(text)
    at = text.index("/* >>api:")
    with open(planted, "w") as file:
        file.write(text[:at] + PLANTED + text[at:])
    for name, tool in TOOLS:
        if len(sys.argv) > 2 and name not in sys.argv[2:]:
            continue
        if not shutil.which(name):
            skip(name, "not installed")
            continue
        found, _ = findings(tool, own)
        new = {key: what for key, what in found.items() if (name,) + key not in ACCEPTED}
        check(not new, name + ": nothing new is found", "\n".join("%s in %s: %s" % (key + (w,)) for key, what in sorted(new.items()) for w in what))
        stale = [key for key in ACCEPTED if key[0] == name and key[1:] not in found]
        check(not stale, name + ": what is accepted is found", "\n".join(" ".join(key) for key in stale))
        note("%s: %d findings are accepted" % (name, sum(len(what) for key, what in found.items() if key not in new)))
        found, words = findings(tool, planted)
        for fault in ("cprofi_planted_null", "cprofi_planted_leak"):
            check([key for key in found if key[1] == fault], "%s: %s is found" % (name, fault), words[-1000:])
    done()


if __name__ == "__main__":
    main()
