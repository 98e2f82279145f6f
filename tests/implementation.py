"""implementation.py: the implementation of cprof.h as an object file, compiled once for each compiler
and its flags and linked with all programs that call the public functions only: it is most of what
each of them would compile. A program that looks at private things includes the implementation
itself; and a program with an implementation of its own does not link with this one.

The object's name holds a hash of all it is made of. So whichever of the suites that run at the same
time needs it first makes it, and the others, and the next run, find it.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCE = "tests/implementation.c"
MINGW = "x86_64-w64-mingw32-gcc"
# Position-independent, so that it fits into every kind of program; with a file of the stack that each
# function takes beside it, for handler_stack.py.
LINUX_FLAGS = ["-O2", "-g0", "-fPIE", "-fomit-frame-pointer", "-pthread", "-fstack-usage"]
WINDOWS_FLAGS = ["-O2", "-g0", "-fomit-frame-pointer", "-pthread"]


def directory():
    return os.path.join(ROOT, os.environ.get("CPROF_TEST_BUILD", "build"), "implementation")


def same_program(a, b):
    """Two names of one file, as cc and gcc mostly are."""
    a, b = shutil.which(a), shutil.which(b)
    return a and b and os.path.realpath(a) == os.path.realpath(b)


def implementation(compiler=("gcc",), flags=None):
    """The object's path. Raises OSError, or CalledProcessError with what the compiler said."""
    if same_program(compiler[0], "gcc"):
        compiler = ["gcc"] + list(compiler[1:])
    if flags is None:
        flags = WINDOWS_FLAGS if compiler[0] == MINGW else LINUX_FLAGS
        if "-linux-" in compiler[0] or "musl" in compiler[0]:  # whose programs are what is looked at
            flags = ["-O1"] + flags[1:]
    argv = list(compiler) + ["-std=gnu11", "-I."] + list(flags)
    key = hashlib.sha256("\0".join(argv).encode())
    key.update(subprocess.run(list(compiler) + ["--version"], stdout=subprocess.PIPE, check=True).stdout)
    for name in (SOURCE, "cprof.h"):
        with open(os.path.join(ROOT, name), "rb") as file:
            key.update(file.read())
    name = re.sub(r"[^\w.-]+", "-", os.path.basename(compiler[0]) + "".join(flags))[:80]
    base = os.path.join(directory(), "%s-%s" % (name, key.hexdigest()[:16]))
    os.makedirs(directory(), exist_ok=True)
    with open(os.path.join(directory(), name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(base + ".o"):
            subprocess.run(argv + ["-c", SOURCE, "-o", base + ".new.o"], cwd=ROOT, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
            for ending in (".su", ".o"):
                if os.path.exists(base + ".new" + ending):
                    os.rename(base + ".new" + ending, base + ending)
    return base + ".o"
