"""checks.py: the test protocol for scripts: one line per check, nonzero exit when one failed."""

import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
failures = 0


def check(good, name, why=""):
    global failures
    if good:
        print("ok - " + name)
    else:
        failures += 1
        lines = str(why).strip().splitlines() or [""]
        print("not ok - %s: %s" % (name, lines[0]))
        for line in lines[1:30]:
            print("  " + line)
    sys.stdout.flush()
    return bool(good)


def skip(name, why):
    print("skip - %s: %s" % (name, why))
    sys.stdout.flush()


def note(text):
    print("# " + text)
    sys.stdout.flush()


def run(argv, cwd=ROOT, timeout=300, env=None):
    """Returns (status, output of both streams)."""
    try:
        done = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=timeout, env=env)
    except OSError as error:
        return 127, str(error)
    except subprocess.TimeoutExpired as late:
        return 124, (late.stdout or b"").decode(errors="replace") + "\ntimeout"
    return done.returncode, done.stdout.decode(errors="replace")


def done():
    sys.exit(1 if failures else 0)
