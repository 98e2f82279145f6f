#!/usr/bin/env python3
"""valgrind.py: profiles are begun and ended under memcheck (see valgrind.c): it finds no error, and no block
that nobody has any more. What valgrind.supp says is no fault it has to find, and what is planted.

    valgrind.py BUILD-DIRECTORY

Debian package: valgrind.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "..", "compile")]
from checks import ROOT, check, done, note, run, skip  # noqa: E402
from implementation import implementation  # noqa: E402

FAULTS = 9  # exit status; the program's own are 0 to 2


def memcheck(program, directory, *planted):
    """Status, what the program says, what memcheck says."""
    log = os.path.join(directory, "memcheck")
    status, output = run(["valgrind", "-q", "--error-exitcode=%d" % FAULTS, "--leak-check=full", "--show-leak-kinds=definite,indirect,possible",
                          "--errors-for-leak-kinds=definite,indirect,possible", "--suppressions=tests/e2e/valgrind.supp", "-s", "--log-file=" + log,
                          program, directory] + list(planted), timeout=300)
    with open(log, errors="replace") as file:
        # Without its remarks on every odd address that the kernel is asked about.
        return status, output, "".join(line for line in file if not re.match(r"--\d+-- (sigprocmask|Warning: Bad set)", line))


def main():
    if not shutil.which("valgrind"):
        skip("memcheck", "valgrind is not installed")
        done()
    program = os.path.join(sys.argv[1] if len(sys.argv) > 1 else "build", "e2e", "valgrind")
    os.makedirs(os.path.join(ROOT, os.path.dirname(program)), exist_ok=True)
    try:
        with_cprof = implementation(["gcc"])
    except subprocess.CalledProcessError as error:
        with_cprof = ""
        print(error.stdout.decode(errors="replace"))
    status, output = run(["gcc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-I.", "-pthread", "tests/e2e/valgrind.c", with_cprof, "-lm",
                          "-o", program])
    if not check(status == 0, "builds", output):
        done()
    with tempfile.TemporaryDirectory() as directory:
        status, output, said = memcheck(program, directory)
        print(output.rstrip())
        check(status != FAULTS, "memcheck finds no fault", said)
        check(status in (0, FAULTS), "the program comes to its end", "status %d: %s" % (status, said))
        check(re.search(r"^used_suppression: +\d+ cprof", re.sub(r"(?m)^--\d+-- ", "", said), re.M), "the suppression is used", said)
        check(not os.listdir(directory) or os.listdir(directory) == ["memcheck"], "nothing is left of the output", os.listdir(directory))
        for planted, words in (("leak", "definitely lost"), ("unset", "uninitialised value")):
            status, output, said = memcheck(program, directory, planted)
            check(status == FAULTS and words in said and planted in said, "a planted fault is found: " + planted, "status %d\n%s%s" % (status, output, said))
            note("memcheck: " + (re.findall("==[0-9]+== (.*%s.*)" % words, said) or ["nothing"])[0])
    done()


if __name__ == "__main__":
    main()
