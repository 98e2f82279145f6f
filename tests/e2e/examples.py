#!/usr/bin/env python3
"""examples.py: each example builds by exactly the line that its first lines tell, runs by the ones after
it, and its profile shows what it is to demonstrate: functions, threads, inlined frames.

In a copy of the tree, as the lines are for its top directory.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "compile"))
from checks import ROOT, check, done, run, skip  # noqa: E402

# More samples than by default, so that a second of work is enough; and cargo's cc, which would say
# -O3, takes flags from here: cprof itself compiles in a third of the time.
ENVIRONMENT = dict({k: v for k, v in os.environ.items() if not k.startswith("CPROF_")}, CPROF_HZ="1000", CFLAGS="-O1")


def told(path):
    """The command lines in the comment at the top: what is indented there and begins with a program."""
    with open(os.path.join(ROOT, path)) as file:
        comment = re.match(r"/\*(.*?)\*/|((?:\s*//[^\n]*\n)+)", file.read(), re.S)
    lines = re.sub(r"(?m)^//!?", "", comment.group(1) or comment.group(2)).splitlines()
    return [line.strip() for line in lines if re.match(r"    +(cc|c\+\+|cargo|python3|\./|examples/|CPROF_)", line)]


def folded(path):
    stacks = []
    with open(path) as file:
        for line in file:
            frames, count = line.rstrip("\n").rsplit(" ", 1)
            stacks.append((frames.split(";"), int(count)))
    return stacks


def chain(stacks, *wanted):
    """Periods of stacks that have frames like these, in this order, from the thread on."""
    total = 0
    for frames, count in stacks:
        rest = list(wanted)
        for frame in frames:
            if rest and re.fullmatch(rest[0], frame):
                rest.pop(0)
        total += count if not rest else 0
    return total


class Copy:
    def __init__(self):
        self.path = tempfile.mkdtemp(prefix="cprof-examples-")
        shutil.copy(os.path.join(ROOT, "cprof.h"), self.path)
        for name in ("examples", "tools"):
            shutil.copytree(os.path.join(ROOT, name), os.path.join(self.path, name),
                            ignore=shutil.ignore_patterns("target", "__pycache__"))

    def shell(self, line, name):
        status, text = run(["sh", "-c", line], cwd=self.path, env=ENVIRONMENT)
        return check(status == 0, "%s: %s" % (name, line), text)

    def example(self, path, chains):
        """Builds, runs, draws; the profile has each chain."""
        lines = told(path)
        if not check(len(lines) == 3, path + ": its first lines tell how to build, run and draw it", str(lines)):
            return
        if all(self.shell(line, path) for line in lines):
            output = re.search(r"(\S+\.folded) -o (\S+\.svg)", lines[2])
            self.expect(path, folded(os.path.join(self.path, output.group(1))), chains)
            check("</svg>" in open(os.path.join(self.path, output.group(2))).read(), path + ": the picture is drawn")

    def expect(self, path, stacks, chains):
        total = sum(count for _, count in stacks)
        for wanted in chains:
            check(chain(stacks, *wanted) >= 10, "%s: %s" % (path, " > ".join(wanted)),
                  "%d of %d\n%s" % (chain(stacks, *wanted), total, "\n".join(";".join(f[:1] + f[-8:]) for f, _ in stacks)))


def service(copy):
    path = "examples/service.c"
    lines = told(path)
    if not check(len(lines) == 2, path + ": its first lines tell how to build and run it", str(lines)) or not copy.shell(lines[0], path):
        return
    program, wanted = os.path.join(copy.path, "service"), [["serve-[01]", "serve", "hash_request"], ["serve-[01]", "serve", "sort_requests"]]
    # As told, but for the seconds: a minute is long.
    check(lines[1].endswith(" ./service 60"), path + ": it is told how to run it for a file a minute", lines[1])
    live = os.path.join(copy.path, "live")
    profiles, status, text = serve(live, lines[1].replace("./service 60", "exec %s 1" % program), lambda child: wait_for(live, 2))
    check(status == 0, path + ": SIGTERM ends it in an orderly way", "status %d: %s" % (status, text))
    check(len(profiles) >= 3 and all(re.fullmatch(r"service-\d{8}-\d{6}-\d+\.folded", name) for name in profiles),
          path + ": a file each second, and the last one at the end", "%s\n%s" % (profiles, text))
    copy.expect(path, [stack for name in profiles for stack in folded(os.path.join(live, name))], wanted)
    check(all(chain(folded(os.path.join(live, name)), "serve-[01]") for name in profiles[:2]), path + ": work is in each file", text)
    check("samples of" in text, path + ": it tells of samples while it runs", text)

    toggled = os.path.join(copy.path, "toggled")

    def toggle(child):
        os.kill(child.pid, signal.SIGUSR2)
        time.sleep(0.7)
        os.kill(child.pid, signal.SIGUSR2)
        wait_for(toggled, 1)
    profiles, status, text = serve(toggled, "exec %s 600" % program, toggle)
    check(status == 0 and len(profiles) == 1, path + ": two SIGUSR2 make one profile", "%s\n%s" % (profiles, text))
    copy.expect(path + " by signal", [s for name in profiles for s in folded(os.path.join(toggled, name))], wanted)
    profiles, status, text = serve(os.path.join(copy.path, "off"), "exec %s 600" % program, lambda child: None)
    check(status == 0 and not profiles, path + ": without a signal there is none", "%s\n%s" % (profiles, text))


def wait_for(directory, files):
    """Until there are so many, half a minute at most."""
    for _ in range(600):
        if len([name for name in os.listdir(directory) if name.endswith(".folded")]) >= files:
            return
        time.sleep(0.05)


def serve(directory, line, meanwhile):
    """(profiles in the order they were written, status, output) of a service that is ended after meanwhile."""
    os.makedirs(directory)
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(["sh", "-c", line], cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                 env=ENVIRONMENT)
        # It is ready for signals when its last thread is there: the one that waits for them, and two that serve.
        for _ in range(600):
            if child.poll() is not None or len(os.listdir("/proc/%d/task" % child.pid)) >= 4:
                break
            time.sleep(0.05)
        if child.poll() is None:
            meanwhile(child)
            child.send_signal(signal.SIGTERM)
        try:
            status = child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            status = child.wait()
        output.seek(0)
        names = sorted(os.listdir(directory), key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
        return names, status, output.read().decode(errors="replace")


def rust(copy):
    path = "examples/rust/src/main.rs"
    if not shutil.which("cargo"):
        return skip(path, "cargo is not installed")
    status, text = run(["cargo", "fetch", "--locked", "--manifest-path", "examples/rust/Cargo.toml"], cwd=copy.path, env=ENVIRONMENT)
    if status != 0:
        return skip(path, "crates cannot be fetched: " + " ".join(text.split())[-300:])
    copy.example(path, [
        ["words", "main", "words::main", r"words::checksum(::<.*>)?", "words::mix"],
        ["count-[12]", r"words::main::\{.*", "words::count", ".*HashMap<.*"],
        ["count-[12]", "words::count", r"<words::Words as .*Iterator>::next", "words::Words::step|.*String>?::push"]])
    with open(os.path.join(ROOT, "README.md")) as file:
        readme = file.read()
    for name in ("src/cprof.rs", "src/cprof.c", "build.rs"):
        with open(os.path.join(ROOT, "examples/rust", name)) as file:
            check(file.read().strip() in readme, "README.md has examples/rust/%s as it is" % name, "it differs")


def main():
    copy = Copy()
    try:
        copy.example("examples/hello.c", [["hello", "main", "series"], ["worker", "worker", "primes"]])
        service(copy)
        copy.example("examples/cpp/main.cpp", [
            ["numbers", r".*inventory::sorter<unsigned long>.*", r".*inventory::order<unsigned long>.*", r"(void )?std::sort<.*"],
            ["strings", r".*inventory::order<std::.*string.*>.*"],
            ["inventory", "main", r"inventory::take_all.*", "order", r"inventory::take.*"],
            ["inventory", r"inventory::take_all.*", "order of many", r"inventory::take\(.*|inventory::take"],
            ["inventory", r"inventory::take_all.*", r"__cxa_throw|_Unwind_.*"]])
        rust(copy)
        shown(copy)
    finally:
        shutil.rmtree(copy.path)
    done()


def shown(copy):
    """README.md names each example."""
    with open(os.path.join(ROOT, "README.md")) as file:
        readme = file.read()
    for path in ("examples/hello.c", "examples/service.c", "examples/cpp", "examples/rust", "examples/evm"):
        check("(%s)" % path in readme and os.path.exists(os.path.join(ROOT, path)), "README.md leads to " + path, "not there")


if __name__ == "__main__":
    main()
