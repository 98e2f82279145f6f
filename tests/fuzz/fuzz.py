#!/usr/bin/env python3
"""fuzz.py: a short run of each fuzz target (see fuzz.c) over the corpus and damage to it, under the
sanitizers. With clang's libFuzzer a longer one: see the head of fuzz.c.
"""

import glob
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "compile"))
from checks import ROOT, check, done, note  # noqa: E402

SECONDS = os.environ.get("CPROF_FUZZ_SECONDS", "2")


def main():
    with tempfile.TemporaryDirectory(prefix="cprof-fuzz-") as lab:
        program = os.path.join(lab, "fuzz")
        built = subprocess.run(["gcc", "-g", "-O0", "-w", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
                                "-I.", "tests/fuzz/fuzz.c", "-o", program, "-pthread"],
                               cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if not check(built.returncode == 0, "builds", built.stdout.decode(errors="replace")[-600:]):
            return
        for target in ("image", "map", "rust", "zlib", "cfi", "seh", "compact"):
            files = sorted(glob.glob(os.path.join(ROOT, "tests/fuzz/corpus", target, "*")))
            ran = subprocess.run([program, target, SECONDS] + files, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=3600)
            text = ran.stdout.decode(errors="replace")
            check(files and ran.returncode == 0 and int(text.split()[-1]) >= 20 * len(files),
                  "damaged input does no harm: " + target, text[-1500:])
            note("%s: %s damaged inputs" % (target, text.split()[-1] if text.split() else "no"))


if __name__ == "__main__":
    main()
    done()
