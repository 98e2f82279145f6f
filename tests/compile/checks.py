"""checks.py: the test protocol for scripts: one line per check, nonzero exit when one failed."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile

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
    """Returns (status, output of both streams). Through a file: a pipe would be open as long as something
    lives that argv has started in the background, as Wine does."""
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                       env=env, start_new_session=True)
        except OSError as error:
            return 127, str(error)
        late = ""
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status, late = 124, "\ntimeout"
        output.seek(0)
        return status, output.read().decode(errors="replace") + late


def staged(build, place, seconds=12):
    """For a script that may be told BUILD-DIRECTORY [SECONDS] [--only build|run]: builds in the directory `place`
    there, unless it is only to run, and ends if that fails or is all. Returns that directory and the seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("seconds", type=float, nargs="?", default=seconds)
    parser.add_argument("--only", choices=["build", "run"])
    options = parser.parse_args()
    directory = os.path.join(options.directory, place)
    os.makedirs(os.path.join(ROOT, directory), exist_ok=True)
    if (options.only != "run" and not build(directory)) or options.only == "build":
        done()
    return directory, options.seconds


def done():
    sys.exit(1 if failures else 0)
