#!/usr/bin/env python3
"""Builds and runs the test suites of cprof.

    tests/run.py               all suites
    tests/run.py NAME...       those whose name is, or begins with, NAME
    tests/run.py --list        the names
    tests/run.py --install     installs the packages the suites use that are missing (as root),
                               or says with which line to do it

A suite is a program or script that prints one line per check on stdout: "ok - name",
"not ok - name: why" or "skip - name: why", and exits nonzero when a check failed. Lines that begin
with "# " are figures; they are shown too. A suite that cannot be built, prints no check, runs too
long or dies counts as a failure. The last line is "N passed, N failed", with ", N skipped" when
something was. With CPROF_TEST_NO_SKIP=1 a skip is a failure.

Suites whose statistics suffer from company run alone, the others two at a time.
"""

import concurrent.futures
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import implementation as shared_implementation  # noqa: E402
import wine  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get("CPROF_TEST_BUILD", "build")  # relative to ROOT
NO_SKIP = os.environ.get("CPROF_TEST_NO_SKIP", "") not in ("", "0")

CC = os.environ.get("CC", "cc").split()
CXX = os.environ.get("CXX", "c++").split()

# -g0: these tell frames of the machine; what is inlined is the subject of inlines.py and names.py.
E2E_FLAGS = ["-O2", "-g0", "-fomit-frame-pointer", "-Wall", "-Wextra", "-I.", "-pthread"]

# What the suites use beyond cc, make and python3: the Debian package, and how to tell it is there.
PACKAGES = [
    ("gcc", lambda: shutil.which("gcc")),
    ("g++", lambda: shutil.which("g++")),
    ("libc6-dev", lambda: has_library("libc.a")),
    ("binutils", lambda: shutil.which("nm") and shutil.which("objdump") and shutil.which("strip")),
    ("clang", lambda: shutil.which("clang") and shutil.which("clang++")),
    ("gcc-mingw-w64-x86-64", lambda: shutil.which("x86_64-w64-mingw32-gcc")),
    ("g++-mingw-w64-x86-64", lambda: shutil.which("x86_64-w64-mingw32-g++")),
    ("gcc-mingw-w64-i686", lambda: shutil.which("i686-w64-mingw32-gcc")),
    ("g++-mingw-w64-i686", lambda: shutil.which("i686-w64-mingw32-g++")),
    ("wine", lambda: not wine.missing()),
    ("wine64", wine.has_64_bit),
    ("llvm", lambda: shutil.which("llvm-symbolizer")),
    ("tcc", lambda: shutil.which("tcc")),
    ("lld", lambda: shutil.which("ld.lld")),
    ("dwz", lambda: shutil.which("dwz")),
    ("cargo", lambda: shutil.which("cargo")),
    ("rustc", lambda: shutil.which("rustc")),
    ("golang-go", lambda: shutil.which("go")),
    ("gcc-aarch64-linux-gnu", lambda: shutil.which("aarch64-linux-gnu-gcc")),
    ("g++-aarch64-linux-gnu", lambda: shutil.which("aarch64-linux-gnu-g++")),
    ("libc6-dev-arm64-cross", lambda: os.path.exists("/usr/aarch64-linux-gnu/include/stdio.h")),
    ("gcc-i686-linux-gnu", lambda: shutil.which("i686-linux-gnu-gcc")),
    ("libc6-dev-i386-cross", lambda: os.path.exists("/usr/i686-linux-gnu/include/stdio.h")),
    ("gcc-arm-linux-gnueabihf", lambda: shutil.which("arm-linux-gnueabihf-gcc")),
    ("libc6-dev-armhf-cross", lambda: os.path.exists("/usr/arm-linux-gnueabihf/include/stdio.h")),
    ("musl-tools", lambda: shutil.which("musl-gcc")),
    ("qemu-user", lambda: shutil.which("qemu-aarch64")),
    ("valgrind", lambda: shutil.which("valgrind")),
    ("nodejs", lambda: shutil.which("node")),
    ("npm", lambda: shutil.which("npm")),
]
if glob.glob(os.path.join(ROOT, "tests/flamegraph/*.py")):
    PACKAGES.append(("chromium", lambda: any(map(shutil.which, (
        "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")))))


def has_library(name):
    try:
        path = subprocess.run(["gcc", "-print-file-name=" + name], stdout=subprocess.PIPE,
                              stdin=subprocess.DEVNULL).stdout.decode().strip()
    except OSError:
        return False
    return os.path.isabs(path)


# ---- building: each output is made once, whoever asks first ----

class BuildError(Exception):
    pass


_made = {}
_made_lock = threading.Lock()


def command(argv, timeout=600):
    try:
        done = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=timeout)
    except OSError as error:
        raise BuildError(str(error))
    except subprocess.TimeoutExpired:
        raise BuildError("timeout: " + " ".join(argv))
    if done.returncode != 0:
        raise BuildError("%s\n%s" % (" ".join(argv), done.stdout.decode(errors="replace")))


def make(output, argv, *needs):
    """Runs argv once to make output, after the makers in needs; returns output."""
    with _made_lock:
        entry = _made.get(output)
        mine = entry is None
        if mine:
            entry = _made[output] = concurrent.futures.Future()
    if not mine:
        return entry.result()
    try:
        for need in needs:
            need()
        os.makedirs(os.path.join(ROOT, os.path.dirname(output)), exist_ok=True)
        command(argv)
        entry.set_result(output)
    except BaseException as error:  # whoever waits for it must hear of it
        entry.set_exception(error)
        raise
    return output


def compile_c(source, output, flags, compiler=None, libraries=(), std="-std=gnu11"):
    return make(output, (compiler or CC) + [std] + flags + [source, "-o", output] + list(libraries))


def implementation(compiler):
    """The object with the implementation of cprof.h."""
    try:
        return shared_implementation.implementation(compiler)
    except subprocess.CalledProcessError as error:
        raise BuildError("%s\n%s" % (" ".join(error.cmd), (error.stdout or b"").decode(errors="replace")))
    except OSError as error:
        raise BuildError(str(error))


def windows_missing():
    if not shutil.which("x86_64-w64-mingw32-gcc") or not shutil.which("x86_64-w64-mingw32-g++"):
        return "MinGW is not installed"
    return wine.missing()


_wine = None
_wine_lock = threading.Lock()


def wine_session():
    """Makes Wine's prefix and services, once."""
    global _wine
    with _wine_lock:
        if _wine is None:
            try:
                _wine = wine.Session()
            except (OSError, subprocess.SubprocessError) as error:
                raise BuildError("Wine does not start: %s" % error)


class Suite:
    def __init__(self, name, build=None, run=None, alone=False, timeout=240, unavailable=None,
                 windows=False):
        self.name = name
        self.build = build          # called once, may raise BuildError
        self.run = run              # argv, with paths relative to ROOT
        self.alone = alone
        self.timeout = timeout
        self.windows = windows      # it runs programs under Wine, or is one
        self.unavailable = unavailable or (windows and windows_missing()) or None  # why it cannot run here


# ---- the suites ----

def script(path, *arguments, **options):
    name = os.path.splitext(os.path.relpath(path, "tests"))[0]
    return Suite(name, run=[sys.executable, path] + list(arguments), **options)


def stress_suite(path, **options):
    """It builds while others do, and runs alone."""
    return script(path, BUILD, "--only", "run", alone=True, timeout=900,
                  build=lambda: command([sys.executable, path, BUILD, "--only", "build"]), **options)


# What these count does not depend on how much CPU they get.
IN_COMPANY = ("table", "live", "select", "process")


def e2e_program(name, output, compiler, flags=()):
    """One that looks at private things includes the implementation, unoptimised for want of time."""
    source = "tests/e2e/%s.c" % name
    with open(source) as file:
        whole = "#define E2E_IMPLEMENTATION" in file.read()
    if whole:
        compile_c(source, output, E2E_FLAGS + ["-O0"] + list(flags), compiler, ["-lm"])
    else:
        compile_c(source, output, E2E_FLAGS + list(flags) + [implementation(compiler)], compiler, ["-lm"])


def e2e_suites():
    suites = []
    for name in ("split", "bursty", "totals", "eintr", "threads", "table", "wall", "lifecycle", "live", "select", "process"):
        output = BUILD + "/e2e/" + name
        suites.append(Suite(
            "e2e/" + name, run=[output], alone=name not in IN_COMPANY,
            build=lambda name=name, output=output: e2e_program(name, output, CC)))
    loads = BUILD + "/e2e/loads"
    suites.append(Suite("e2e/loads", run=[loads, loads + ".so"], build=lambda: (
        e2e_program("loads", loads, CC), shared(loads + ".so", "tests/e2e/roots_lib.c", []))))
    suites.append(stress_suite("tests/e2e/stress.py"))
    suites.append(script("tests/e2e/valgrind.py", BUILD, timeout=600))
    race = BUILD + "/e2e/race"
    suites.append(Suite("e2e/race", run=[race], timeout=400, build=lambda: compile_c(
        "tests/e2e/race.c", race, sanitizer_flags("thread") + ["-O1", "-g0", "-Wall", "-Wextra", "-I.", "-pthread"])))
    return suites + scopes_suites() + symbols_suites() + roots_suites() + windows_suites()


MINGW_FLAGS = E2E_FLAGS + ["-static"]


def windows_suites():
    """The same programs for Windows, run by Wine. Not there: what is about signals, fork and exec."""
    suites, cc, here = [], ["x86_64-w64-mingw32-gcc"], BUILD + "/e2e/windows/"
    for name in ("split", "totals", "threads", "table", "wall", "lifecycle", "live", "select"):
        output = here + name + ".exe"
        suites.append(Suite(
            "windows/" + name, run=["wine", output], alone=name not in IN_COMPANY, windows=True, timeout=400,
            build=lambda name=name, output=output: e2e_program(name, output, cc, ["-static"])))
    loads = here + "loads"
    suites.append(Suite("windows/loads", run=["wine", loads + ".exe", loads + ".dll"], windows=True, timeout=400, build=lambda: (
        e2e_program("loads", loads + ".exe", cc, ["-static"]),
        make(loads + ".dll", cc + ["-O2", "-g0", "-shared", "tests/e2e/roots_lib.c", "-o", loads + ".dll"]))))
    suites.append(Suite("windows/clocks", run=["wine", here + "clocks.exe"], alone=True, windows=True, timeout=400,
                        build=lambda: compile_c("tests/windows/clocks.c", here + "clocks.exe", MINGW_FLAGS + ["-O1"], cc)))
    for level in ("-O0", "-O2", "-O3"):
        suites.append(Suite("windows/roots" + level, build=lambda level=level: build_windows_roots(level), windows=True,
                            run=["wine", BUILD + "/e2e/windows/roots" + level + ".exe"], timeout=400))
    suites.append(script("tests/windows/endings.py", BUILD, windows=True, timeout=900))
    suites.append(stress_suite("tests/windows/stress.py", windows=True))
    return suites


def build_windows_roots(level):
    here = BUILD + "/e2e/windows/"
    flags = MINGW_FLAGS + [level]
    cc, cxx = ["x86_64-w64-mingw32-gcc"], ["x86_64-w64-mingw32-g++"]
    base = here + "roots" + level
    library = make(here + "roots.dll", cc + ["-O2", "-g0", "-shared", "tests/e2e/roots_lib.c", "-o", here + "roots.dll"])
    compile_c("tests/e2e/roots.c", base + ".o", flags + ["-c"], cc)
    make(base + "_cxx.o", cxx + ["-std=gnu++11"] + flags + ["-c", "tests/e2e/roots_cxx.cpp", "-o", base + "_cxx.o"])
    make(base + ".exe", cxx + ["-static", "-pthread", base + ".o", base + "_cxx.o", implementation(cc), library, "-lm",
                               "-o", base + ".exe"])


def shared(output, source, flags, compiler=None):
    return make(output, (compiler or CC) + ["-O2", "-g0", "-fomit-frame-pointer", "-fPIC", "-shared", "-I."]
                + flags + [source, "-o", output])


def scopes_suites():
    """Optimised and not, by GCC and Clang, and for Windows."""
    suites = []
    for name, cc, cxx, level, more in (
            ("e2e/scopes-gcc", ["gcc"], ["g++"], "-O2", []), ("e2e/scopes-O0", ["gcc"], ["g++"], "-O0", []),
            ("e2e/scopes-clang", ["clang"], ["clang++"], "-O2", []),
            ("windows/scopes", ["x86_64-w64-mingw32-gcc"], ["x86_64-w64-mingw32-g++"], "-O2",
             ["-static", "-gdwarf-4"])):
        base, windows = BUILD + "/e2e/" + name.replace("/", "-"), name.startswith("windows")
        program = base + (".exe" if windows else "")

        def build(base=base, program=program, cc=cc, cxx=cxx, level=level, more=more):
            flags = E2E_FLAGS + more + [level] + ([] if more else ["-g"])
            compile_c("tests/e2e/scopes.c", base + ".o", flags + ["-c"], cc)
            make(base + "_cxx.o", cxx + ["-std=gnu++11"] + flags
                 + ["-c", "tests/e2e/scopes_cxx.cpp", "-o", base + "_cxx.o"])
            make(program, cxx + more + ["-pthread", base + ".o", base + "_cxx.o", implementation(cc), "-lm", "-o", program])

        missing = None if windows or shutil.which(cc[0]) and shutil.which(cxx[0]) else cc[0] + " is not installed"
        suites.append(Suite(name, build=build, run=["wine", program] if windows else [program], windows=windows,
                            unavailable=missing, timeout=300))
    return suites


def build_symbols_program(base, cc, cxx, flags, link):
    """The program, in a directory of its own with its libraries; returns all these files."""
    directory = base + ".d/"
    files = {
        "libsymbols.so": ["-DLIBRARY"],
        "libprelinked.so": ["-DPRELINKED", "-Wl,-Ttext-segment=0x6a0000000"],
        "plugin_a.so": ["-DPLUGIN_A"],
        "plugin_b.so": ["-DPLUGIN_B"],
    }
    for file, how in files.items():
        shared(directory + file, "tests/e2e/symbols_lib.c", how, cc)
    program = directory + os.path.basename(base)
    compile_c("tests/e2e/symbols.c", program + ".o", flags + link[:1] + ["-c"], cc)
    make(program + "_cxx.o", cxx + ["-std=gnu++11"] + flags + link[:1]
         + ["-c", "tests/e2e/symbols_cxx.cpp", "-o", program + "_cxx.o"])
    # The C++ library must be in the process for names to be demangled.
    make(program, cxx + link + ["-pthread", program + ".o", program + "_cxx.o", implementation(cc), "-L" + directory,
                                "-Wl,--no-as-needed", "-lsymbols", "-lprelinked", "-Wl,-rpath,$ORIGIN", "-ldl", "-lm", "-o", program])
    return [program] + [directory + f for f in files]


def symbols_suites():
    suites = []
    here = BUILD + "/e2e/"
    for name, mode, link in (("symbols-pie", "full", ["-fPIE", "-pie"]),
                             ("symbols-nopie", "full", ["-fno-pie", "-no-pie"]),
                             ("symbols-stripped", "stripped", ["-fPIE", "-pie"])):
        directory = here + name + ".d/"

        def build(name=name, mode=mode, link=link):
            files = build_symbols_program(here + name, CC, CXX, E2E_FLAGS, link)
            if mode == "stripped":
                command(["strip", "-s"] + files)

        suites.append(Suite("e2e/" + name, build=build, alone=True,
                            run=[directory + name, mode, "./" + directory + "plugin_a.so", "./" + directory + "plugin_b.so"]))
    return suites


def roots_suites():
    suites = []
    here = BUILD + "/e2e/roots/"
    # How it is linked: flags to compile, flags to link, whether the library is a shared one.
    kinds = {
        "pie": ("pie", ["-fPIE"], ["-pie"], True),
        "nopie": ("nopie", ["-fno-pie"], ["-no-pie"], True),
        "noplt": ("noplt", ["-fPIE", "-fno-plt"], ["-pie"], True),
        "static": ("nopie", ["-fno-pie"], ["-static"], False),
        "static-pie": ("pie", ["-fPIE"], ["-static-pie"], False),
    }
    for family, cc, cxx in (("gcc", ["gcc"], ["g++"]), ("clang", ["clang"], ["clang++"])):
        for kind, (objects, compile_flags, link_flags, is_shared) in kinds.items():
            def build(family=family, cc=cc, cxx=cxx, kind=kind, objects=objects, compile_flags=compile_flags,
                      link_flags=link_flags, is_shared=is_shared):
                base = here + family + "-" + objects
                program = here + "roots-" + family + "-" + kind
                flags = E2E_FLAGS + compile_flags
                compile_c("tests/e2e/roots.c", base + ".o", flags + ["-c"], cc)
                make(base + "_cxx.o", cxx + ["-std=gnu++11"] + flags
                     + ["-c", "tests/e2e/roots_cxx.cpp", "-o", base + "_cxx.o"])
                if is_shared:
                    directory = here + family + ".d/"
                    shared(directory + "libroots.so", "tests/e2e/roots_lib.c", [], cc)
                    library = ["-L" + directory, "-lroots", "-Wl,-rpath,$ORIGIN/" + family + ".d"]
                else:
                    library = [compile_c("tests/e2e/roots_lib.c", base + "_lib.o", flags + ["-c"], cc)]
                make(program, cxx + link_flags + ["-pthread", base + ".o", base + "_cxx.o", implementation(cc)] + library
                     + ["-lm", "-o", program])

            missing = None if shutil.which(cc[0]) and shutil.which(cxx[0]) else family + " is not installed"
            suites.append(Suite("e2e/roots-%s-%s" % (family, kind), build=build, unavailable=missing,
                                run=[here + "roots-" + family + "-" + kind]))
    return suites


# pauth-impdef: the real function takes most of the time otherwise.
QEMU_ARM64 = ["qemu-aarch64", "-cpu", "max,pauth-impdef=on", "-L", "/usr/aarch64-linux-gnu"]

# How tests/arm64/steps.c is compiled: see the list in unwind.c.
ARM64_STEPS = {
    "gcc_O0": ["-O0"], "gcc_O2": ["-O2"], "gcc_no_fp": ["-O2", "-fomit-frame-pointer"],
    "gcc_pauth": ["-O2", "-mbranch-protection=standard"],
    "gcc_pauth_leaf": ["-O1", "-mbranch-protection=pac-ret+leaf+b-key"],
    "gcc_cxx": ["-x", "c++", "-O2", "-mbranch-protection=standard"],
    "clang_O2": ["-O2"], "clang_pauth": ["-O2", "-fomit-frame-pointer", "-mbranch-protection=standard"],
}


def arm64_suites():
    """Linux on AArch64, run by qemu-user."""
    here = BUILD + "/arm64/"
    cc, cxx = ["aarch64-linux-gnu-gcc"], ["aarch64-linux-gnu-g++"]
    missing = next((tool + " is not installed" for tool in cc + cxx + QEMU_ARM64[:1] + ["clang"] if not shutil.which(tool)), None)
    flags = ["-O1" if flag == "-O2" else flag for flag in E2E_FLAGS] + ["-fPIE"]

    def build_unwind():
        steps = []
        for name, variant in ARM64_STEPS.items():
            compiler = ["clang", "--target=aarch64-linux-gnu"] if name.startswith("clang") else cc
            steps.append(make(here + name + ".o", compiler + variant + ["-DSTEPS=steps_" + name, "-c", "tests/arm64/steps.c",
                                                                        "-o", here + name + ".o"]))
        compile_c("tests/arm64/unwind.c", here + "unwind.o", ["-O1", "-g", "-Wall", "-Wextra", "-I.", "-pthread", "-c"], cc)
        make(here + "unwind", cxx + ["-pthread", here + "unwind.o"] + steps + ["-o", here + "unwind"])

    def build_roots():
        compile_c("tests/e2e/roots.c", here + "roots.o", flags + ["-c"], cc)
        make(here + "roots_cxx.o", cxx + ["-std=gnu++11"] + flags + ["-c", "tests/e2e/roots_cxx.cpp", "-o", here + "roots_cxx.o"])
        shared(here + "libroots.so", "tests/e2e/roots_lib.c", [], cc)
        make(here + "roots", cxx + ["-pie", "-pthread", here + "roots.o", here + "roots_cxx.o", implementation(cc), "-L" + here, "-lroots",
                                    "-Wl,-rpath,$ORIGIN", "-lm", "-o", here + "roots"])

    def build_symbols():
        build_symbols_program(here + "symbols", cc, cxx, flags, ["-fPIE", "-pie"])

    def build_evm():
        make(here + "evm", cc + ["-O1", "-g", "-pthread", "-I."] + sorted(glob.glob("examples/evm/*.c")) + ["-o", here + "evm"])

    symbols = here + "symbols.d/"
    return [Suite("arm64/unwind", build=build_unwind, run=QEMU_ARM64 + [here + "unwind"], unavailable=missing),
            Suite("arm64/roots", build=build_roots, run=QEMU_ARM64 + [here + "roots"], unavailable=missing),
            Suite("arm64/symbols", build=build_symbols, unavailable=missing,
                  run=QEMU_ARM64 + [symbols + "symbols", "full", "./" + symbols + "plugin_a.so", "./" + symbols + "plugin_b.so"]),
            script("tests/arm64/evm.py", here + "evm", *QEMU_ARM64, build=build_evm, unavailable=missing)]


def musl_suites():
    """Linux x86-64 with musl, which has no unwind tables: its functions are unwound by reading their code."""
    here = BUILD + "/musl/"
    cc = ["musl-gcc"]
    flags = ["-O1" if flag == "-O2" else flag for flag in E2E_FLAGS] + ["-fno-pie"]
    suites = []
    for kind, link in (("static", ["-static"]), ("dynamic", ["-no-pie"])):
        def build(kind=kind, link=link):
            parts = [compile_c("tests/e2e/%s.c" % name, here + name + ".o", flags + ["-c"], cc)
                     for name in ("roots", "roots_plain", "roots_lib")]
            make(here + kind, cc + link + ["-pthread"] + parts + [implementation(cc), "-lm", "-o", here + kind])

        suites.append(Suite("musl/roots-" + kind, build=build, run=[here + kind],
                            unavailable=None if shutil.which("musl-gcc") else "musl-gcc is not installed"))
    return suites


def x86_suites():
    """Linux on 32-bit x86, which x86-64 runs too."""
    program, cc = BUILD + "/x86/roots", ["i686-linux-gnu-gcc"]
    return [Suite("x86/roots", run=[program], unavailable=None if shutil.which("i686-linux-gnu-gcc") else "no cross compiler",
                  build=lambda: make(program, cc + ["-std=gnu11", "-static", "-Werror"] + E2E_FLAGS
                                     + ["tests/e2e/%s.c" % name for name in ("roots", "roots_plain", "roots_lib")]
                                     + [implementation(cc), "-lm", "-o", program]))]


QEMU_ARM = ["qemu-arm", "-L", "/usr/arm-linux-gnueabihf"]


def arm_suites():
    """Linux on 32-bit ARM, both instruction sets, run by qemu-user."""
    here = BUILD + "/arm/"
    cc = ["arm-linux-gnueabihf-gcc"]
    missing = next((tool + " is not installed" for tool in cc + QEMU_ARM[:1] if not shutil.which(tool)), None)

    def build_ahead():
        make(here + "ahead", cc + ["-std=gnu11", "-O0", "-Wall", "-Wextra", "-Werror", "-I.", "-pthread", "tests/arm/ahead.c",
                                   "-o", here + "ahead"])

    suites = [Suite("arm/ahead", build=build_ahead, run=QEMU_ARM + [here + "ahead"], unavailable=missing)]
    for kind, flags in (("arm", ["-marm", "-fno-pie", "-no-pie"]), ("thumb", ["-mthumb", "-static"])):
        def build(kind=kind, flags=flags):
            parts = ["tests/e2e/%s.c" % name for name in ("roots", "roots_plain", "roots_lib")]
            make(here + "roots-" + kind, cc + ["-std=gnu11", "-Werror"] + E2E_FLAGS + flags + parts
                 + [implementation(cc), "-lm", "-o", here + "roots-" + kind])

        suites.append(Suite("arm/roots-" + kind, build=build, alone=True, unavailable=missing, run=QEMU_ARM + [here + "roots-" + kind]))
    return suites


def compile_suites():
    return [script("tests/compile/matrix.py", BUILD, timeout=600),
            script("tests/compile/windows.py", BUILD, timeout=600),
            script("tests/compile/layout.py", BUILD),
            script("tests/compile/signal_safety.py", BUILD),
            script("tests/compile/handler_stack.py"),
            script("tests/compile/suspended.py")]


_sanitizers = {}


def sanitizer_flags(kind="address,undefined"):
    """-fsanitize=... if this compiler can link and run it, else nothing."""
    if kind not in _sanitizers:
        flags = ["-fsanitize=" + kind, "-fno-sanitize-recover=undefined"]
        probe = BUILD + "/sanitize-probe-" + kind
        os.makedirs(os.path.join(ROOT, BUILD), exist_ok=True)
        with open(os.path.join(ROOT, probe + ".c"), "w") as file:
            file.write("int main(void) { return 0; }\n")
        try:
            command(CC + flags + [probe + ".c", "-o", probe])
            command([os.path.join(ROOT, probe)])
            _sanitizers[kind] = flags
        except BuildError:
            _sanitizers[kind] = []
    return _sanitizers[kind]


def unit_suites():
    """Each under the sanitizers, and optimised too where some checks are at home only there."""
    suites = []
    for source in sorted(glob.glob("tests/unit/*.c")):
        for kind in ("sanitized", "optimised"):
            name = os.path.splitext(os.path.basename(source))[0] + "-" + kind
            if kind == "optimised" and name not in ("unwind-optimised", "modules-optimised", "rust-optimised"):
                continue
            output = BUILD + "/unit/" + name

            def build(source=source, output=output, kind=kind):
                flags = ["-O0", "-g"] + sanitizer_flags() if kind == "sanitized" else \
                    ["-O2" if "unwind" in source else "-O1"]
                compile_c(source, output, flags + ["-Wall", "-Wextra", "-I.", "-pthread"],
                          libraries=["-lm"])

            suites.append(Suite("unit/" + name, run=[output], build=build))
    for path in sorted(glob.glob("tests/unit/*.py")):
        suites.append(script(path))
    return suites


def formats_suites():
    """Compared on both systems; and once more all of it is written under the sanitizers."""
    base = BUILD + "/e2e/formats-sanitized"

    def build():
        os.makedirs(os.path.join(ROOT, base + ".d"), exist_ok=True)
        make(base, CXX + ["-std=gnu++11", "-O0", "-g"] + sanitizer_flags() + ["-I.", "-pthread", "tests/e2e/formats.cpp", "-o", base])

    return [Suite("e2e/formats-sanitized", build=build, run=[base, base + ".d", "30"]),
            script("tests/e2e/formats.py", BUILD, timeout=900),
            script("tests/e2e/formats_windows.py", BUILD, windows=True, timeout=900)]


def build_evm(binary, flags=()):
    """The flags are for the interpreter; all else is compiled once."""
    objects, compiler = [], CC + ["-O2", "-g", "-fomit-frame-pointer", "-pthread", "-I.", "-c"]
    for source in sorted(glob.glob("examples/evm/*.c")):
        own = list(flags) if source.endswith("/interpreter.c") else []
        output = BUILD + "/evm.d/" + os.path.basename(source)[:-2] + "".join(own) + ".o"
        objects.append(make(output, compiler + own + [source, "-o", output]))
    make(binary, CC + ["-pthread"] + objects + ["-o", binary])


def evm_suites():
    binary, switch = BUILD + "/evm", BUILD + "/evm-switch"

    def build():
        build_evm(binary)
        build_evm(switch, ["-DEVM_NO_COMPUTED_GOTO"])

    suites = []
    for path in sorted(glob.glob("tests/evm/*.py")):
        if is_suite(path):
            # chain.py also compares with the build that dispatches by a switch.
            binaries = [binary, switch] if path.endswith("/chain.py") else [binary]
            suites.append(script(path, *binaries, build=build, timeout=600))
    return suites


def flamegraph_suites():
    return [script(path, timeout=600) for path in sorted(glob.glob("tests/flamegraph/*.py"))
            if is_suite(path)]


def tools_suites():
    os.environ["CPROF_TEST_EVM"] = os.path.abspath(BUILD + "/evm")
    return [script(path, timeout=600, build=lambda: build_evm(BUILD + "/evm"))
            for path in sorted(glob.glob("tests/tools/*.py")) if is_suite(path)]


def is_suite(path):
    """Helpers that a suite imports are not suites; suites can be run."""
    with open(path) as file:
        return "__main__" in file.read()


def all_suites():
    """Those that take long come first, so that in the end no core has to wait for one of them."""
    suites = formats_suites()
    suites.append(script("tests/e2e/demo.py", timeout=900, build=None if windows_missing() else wine_session))
    suites.append(script("tests/e2e/truth.py", timeout=600))
    suites += compile_suites() + flamegraph_suites()
    suites.append(script("tests/e2e/examples.py", timeout=600))
    suites += unit_suites() + tools_suites()
    suites.append(script("tests/fuzz/fuzz.py", timeout=600))
    suites.append(script("tests/e2e/inlines.py", timeout=600))
    suites.append(script("tests/e2e/inlines_windows.py", windows=True, timeout=600))
    suites.append(script("tests/e2e/names.py", timeout=600))
    suites += e2e_suites() + arm64_suites() + musl_suites() + x86_suites() + arm_suites() + evm_suites()
    suites.append(script("tests/e2e/autostart.py", windows=True, timeout=300))
    return suites


# ---- running ----

class Result:
    def __init__(self, suite):
        self.suite = suite
        self.passed = 0
        self.failed = []
        self.skipped = []
        self.notes = []
        self.seconds = 0.0
        self.text = ""


CHECK = re.compile(r"^(ok|not ok|skip) - (.*)$")


def run_suite(suite):
    result = Result(suite)
    start = time.time()
    # Into a file: a pipe would be open as long as something that the suite has started lives.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(suite.run, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=subprocess.STDOUT, start_new_session=True,
                                       env=wine.environment() if suite.windows else None)
        except OSError as error:
            result.failed.append("start: %s" % error)
            return result
        try:
            process.wait(timeout=suite.timeout)
            late = False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the session started above, and nothing else
            process.wait()
            late = True
        result.seconds = time.time() - start
        output.seek(0)
        result.text = output.read().decode(errors="replace")
    for line in result.text.splitlines():
        match = CHECK.match(line)
        if match and match.group(1) == "ok":
            result.passed += 1
        elif match and match.group(1) == "not ok":
            result.failed.append(match.group(2))
        elif match:
            result.skipped.append(match.group(2))
        elif line.startswith("# "):
            result.notes.append(line)
    status = process.returncode
    said = len(result.failed)
    if late:
        result.failed.append("timeout after %d s" % suite.timeout)
    elif status < 0:
        result.failed.append("killed by signal %d" % -status)
    elif status != 0 and not said:
        result.failed.append("exit status %d without a failed check" % status)
    elif status == 0 and said:
        result.failed.append("exit status 0 with failed checks")
    if not result.passed and not said and not result.skipped:
        result.failed.append("no check was printed")
    return result


def build_suite(suite):
    if suite.windows:
        wine_session()
    if suite.build:
        suite.build()


def report(result):
    if NO_SKIP:
        result.failed += ["skipped: " + reason for reason in result.skipped]
        result.skipped = []
    print("%s %-28s %3d passed%s%s  %.1f s" % (
        "FAIL" if result.failed else "pass", result.suite.name, result.passed,
        ", %d failed" % len(result.failed) if result.failed else "",
        ", %d skipped" % len(result.skipped) if result.skipped else "", result.seconds))
    for note in result.notes:
        print("    " + note)
    for reason in result.skipped:
        print("    skip - " + reason)
    for reason in result.failed:
        print("    not ok - " + reason.replace("\n", "\n        "))
    if result.failed:
        other = [line for line in result.text.splitlines() if not CHECK.match(line) and not line.startswith("# ")]
        for line in other[-40:]:
            print("    | " + line)
    sys.stdout.flush()
    return result


def install():
    missing = [package for package, present in PACKAGES if not present()]
    if not missing:
        return 0
    line = "apt-get update && apt-get install -y --no-install-recommends " + " ".join(missing)
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("apt-get"):
        print("Some tests will be skipped. To run them all, as root:\n    " + line)
        return 0
    print("installing " + " ".join(missing))
    sys.stdout.flush()
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    done = subprocess.run(["sh", "-c", line], env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        print(done.stdout.decode(errors="replace")[-3000:])
        print("The packages could not be installed; tests that need them are skipped.")
    return 0


def run_all(suites, results):
    ready = []
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        builds = []
        for suite in suites:
            if suite.unavailable:
                result = Result(suite)
                result.skipped.append("%s: %s" % (suite.name, suite.unavailable))
                results.append(report(result))
            elif suite.build or suite.windows:
                builds.append((suite, pool.submit(build_suite, suite)))
            else:
                ready.append(suite)
        for suite, build in builds:
            try:
                build.result()
                ready.append(suite)
            except BuildError as error:
                result = Result(suite)
                result.failed.append("build: %s" % error)
                results.append(report(result))
        ready.sort(key=suites.index)
        together = [s for s in ready if not s.alone]
        for result in pool.map(run_suite, together):
            results.append(report(result))
    for suite in [s for s in ready if s.alone]:
        results.append(report(run_suite(suite)))


def main():
    os.chdir(ROOT)
    arguments = sys.argv[1:]
    if "--install" in arguments:
        return install()
    suites = all_suites()
    if "--list" in arguments:
        for suite in suites:
            print(suite.name)
        return 0
    for argument in arguments:
        if not any(suite.name.startswith(argument) for suite in suites):
            print("no suite is called %s; --list names them" % argument)
            return 2
    if arguments:
        exact = [s for s in suites if s.name in arguments]
        suites = [s for s in suites if s in exact
                  or any(s.name.startswith(a) and a not in [e.name for e in exact] for a in arguments)]

    start = time.time()
    results = []
    os.makedirs(BUILD, exist_ok=True)
    try:
        run_all(suites, results)
    finally:
        if _wine:
            _wine.close()

    passed = sum(result.passed for result in results)
    failed = sum(len(result.failed) for result in results)
    skipped = sum(len(result.skipped) for result in results)
    print("%d suites in %.0f s" % (len(results), time.time() - start))
    summary = "%d passed, %d failed%s" % (passed, failed, ", %d skipped" % skipped if skipped else "")
    with open(os.path.join(BUILD, "test-summary"), "w") as file:
        file.write(summary + "\n")
    print(summary)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
