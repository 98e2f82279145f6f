#!/usr/bin/env python3
"""matrix.py: cprof.h compiles without a warning, whatever the compiler, the standard, the language
and the order of includes, exports only cprof_ names, and vanishes under CPROF_DISABLE.

    matrix.py BUILD-DIRECTORY        with gcc and clang, as part of `make test`
    matrix.py BUILD-DIRECTORY all    with every gcc and clang that is installed, every standard of theirs,
                                     GNU's variants of them too; some minutes. All that Debian 12 has:
        apt-get install gcc-11 g++-11 gcc-12 g++-12 clang-13 clang-14 clang-15 clang-16 clang-19 clang-22 tcc
"""

import concurrent.futures
import os
import re
import shutil
import sys

from checks import ROOT, check, done, note, run, skip

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Werror"]
C_STANDARDS = ["c99", "c11", "c17"]
CXX_STANDARDS = ["c++11", "c++20"]

# clang's -Weverything less what is not for this header:
EVERYTHING = ["-Weverything", "-Werror", "-Wno-unknown-warning-option",
              "-Wno-padded",                        # says of each struct how it is laid out
              "-Wno-declaration-after-statement",   # C99 has them
              "-Wno-c++98-compat-pedantic",         # C++11 is the oldest,
              "-Wno-pre-c23-compat",                # and C99, where bool comes from a header
              "-Wno-old-style-cast", "-Wno-zero-as-null-pointer-constant",    # it is C, too
              "-Wno-unsafe-buffer-usage", "-Wno-unsafe-buffer-usage-in-libc-call",
              "-Wno-unsafe-buffer-usage-in-format-attr-call",    # the same: C has pointers
              "-Wno-disabled-macro-expansion",      # si_pid, sa_handler: how glibc defines them
              "-Wno-bad-function-cast",             # a pointer from a built-in to uintptr_t
              "-Wno-switch-default",                # -Wcovered-switch-default wants the contrary
              "-Wno-nrvo",                          # a copy of two words when returned
              "-Wno-format-nonliteral", "-Wno-missing-format-attribute", "-Wno-format"]    # cprofi_rust_format passes one on

USES_ALL = """
static bool take(void *user, const void *data, size_t size) { (void)user; (void)data; return size > 0; }
int use_all(int argc);
int use_all(int argc)
{
    cprof_desc desc;
    cprof_stats stats;
    cprof_result result;
    desc = zero_desc;
    desc.hz = 100;
    desc.clock = CPROF_CPU;
    desc.max_depth = 128;
    desc.max_stacks = 16384;
    desc.output = "x.folded";
    desc.format = CPROF_AUTO;
    desc.quiet = true;
    if (argc > 100) {
        result = cprof_start(&desc);
        if (result == CPROF_OK) result = cprof_pause();
        if (result == CPROF_OK) result = cprof_resume();
        if (result == CPROF_OK) result = cprof_reset();
        if (result == CPROF_OK) result = cprof_write("x", CPROF_FOLDED);
        if (result == CPROF_OK) result = cprof_write_to(take, (void *)0, CPROF_FOLDED);
        if (result == CPROF_OK) result = cprof_stop();
        cprof_get_stats(&stats);
        return (int)stats.samples + (int)(cprof_result_string(result)[0]);
    }
    CPROF_BEGIN("x.folded");
    CPROF_THREAD_NAME("x");
    CPROF_END();
    return 0;
}
"""

SOURCES = {
    # Declarations twice, nothing before them: the header brings the types it needs.
    "declarations": '#include "cprof.h"\n#include "cprof.h"\nstatic const cprof_desc zero_desc = @ZERO@;\n' + USES_ALL,
    "declarations after system headers":
        '#include <stdio.h>\n#include <stdlib.h>\n#include <pthread.h>\n#include <signal.h>\n#include <unistd.h>\n'
        '#include "cprof.h"\nstatic const cprof_desc zero_desc = @ZERO@;\n' + USES_ALL,
    "implementation": '#define CPROF_IMPLEMENTATION\n#include "cprof.h"\n#include "cprof.h"\n'
                      'static const cprof_desc zero_desc = @ZERO@;\n' + USES_ALL,
    "declarations first, then implementation":
        '#ifndef _GNU_SOURCE\n#define _GNU_SOURCE\n#endif\n#include "cprof.h"\n#define CPROF_IMPLEMENTATION\n#include "cprof.h"\n'
        'static const cprof_desc zero_desc = @ZERO@;\n' + USES_ALL,
    "implementation after system headers, _GNU_SOURCE set":
        '#ifndef _GNU_SOURCE\n#define _GNU_SOURCE\n#endif\n#include <stdio.h>\n#include <string.h>\n#include <pthread.h>\n'
        '#include <signal.h>\n#include <dlfcn.h>\n#define CPROF_IMPLEMENTATION\n#include "cprof.h"\n'
        'static const cprof_desc zero_desc = @ZERO@;\n' + USES_ALL,
}

MAIN = 'int use_all(int argc);\nint main(int argc, char **argv) { (void)argv; return use_all(argc); }\n'
ZERO = {"c": "{ 0 }", "c++": "{}"}


def directory():
    script = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    path = os.path.join(ROOT, sys.argv[1] if len(sys.argv) > 1 else "build", "compile", script)
    os.makedirs(path, exist_ok=True)
    return path


def put(name, text):
    path = os.path.join(directory(), name)
    with open(path, "w") as file:
        file.write(text)
    return path


def source(key, language):
    name = re.sub(r"[^a-z]+", "-", key) + (".c" if language == "c" else ".cpp")
    text = SOURCES[key].replace("@ZERO@", ZERO[language])
    if language == "c++":
        text = text.replace("static bool take", 'static bool take').replace("(void *)0", "static_cast<void *>(nullptr)")
    return put(name, text)


def symbols(path, *flags):
    return run(["nm", "--format=posix"] + list(flags) + [path])[1]


def compilers():
    for name, language in (("gcc", "c"), ("clang", "c"), ("g++", "c++"), ("clang++", "c++")):
        if shutil.which(name):
            yield name, language
        else:
            skip(name, "not installed")


def matrix():
    jobs = []
    for compiler, language in compilers():
        standards = C_STANDARDS if language == "c" else CXX_STANDARDS
        for standard in standards:
            # One standard takes all orders of includes, the others that of most programs.
            for key in SOURCES if standard == standards[0] else ("declarations", "implementation"):
                path = source(key, language)
                output = os.path.join(directory(), "%s-%s-%s.o" % (compiler, standard, os.path.basename(path)))
                # One standard makes an object, optimised: some warnings come with the flow analysis.
                whole = standard in ("c11", "c++11") and key == "implementation"
                make = ["-O2", "-c", path, "-o", output] if whole else ["-fsyntax-only", path]
                jobs.append(("%s %s: %s" % (compiler, standard, key),
                             [compiler, "-std=" + standard, "-I."] + WARNINGS + make, output, whole))
        if compiler.startswith("clang"):
            jobs += everything(compiler, language, standards[0])
    jobs += tcc() + arm()
    compile_all(jobs)


def everything(compiler, language, standard):
    # The program that uses it is a test's, and not under these rules.
    text = put("everything" + (".c" if language == "c" else ".cpp"), '#define CPROF_IMPLEMENTATION\n#include "cprof.h"\n')
    return [("%s %s: -Weverything" % (compiler, standard),
             [compiler, "-std=" + standard, "-fsyntax-only", "-I."] + EVERYTHING + [text], None, False)]


def tcc():
    if not shutil.which("tcc"):
        skip("tcc", "not installed")
        return []
    return [("tcc: " + key, ["tcc", "-Wall", "-Werror", "-I.", "-c", source(key, "c"), "-o", os.path.join(directory(), "tcc.o")], None, False)
            for key in SOURCES if "implementation" not in key]


def arm():
    """Linux on 32-bit ARM: by gcc for each instruction set, by clang with the headers of gcc's package."""
    if not shutil.which("arm-linux-gnueabihf-gcc"):
        skip("32-bit ARM", "arm-linux-gnueabihf-gcc is not installed")
        return []
    commands = [["arm-linux-gnueabihf-gcc", "-marm"], ["arm-linux-gnueabihf-gcc", "-mthumb"]]
    if shutil.which("clang"):
        commands += [["clang", "--target=arm-linux-gnueabihf"] + mode for mode in (["-marm"], ["-mthumb"], ["-nostdinc++", "-x", "c++"])]
    return [(" ".join(command) + ": implementation",
             command + ["-std=" + ("c++11" if "c++" in command else "c99"), "-fsyntax-only", "-I."] + WARNINGS
             + [source("implementation", "c++" if "c++" in command else "c")], None, False) for command in commands]


VERSIONS = {"gcc": range(4, 30), "clang": range(3, 40)}
STANDARDS = {"c": ["c99", "c11", "c17", "c2x"], "c++": ["c++11", "c++14", "c++17", "c++20", "c++2b"]}


def every_compiler():
    """Strict and GNU; the implementation in all, the orders of includes in the strict ones."""
    found, jobs = [], []
    for family, versions in VERSIONS.items():
        for version in versions:
            for name, language in ((family + "-%d" % version, "c"), (family.replace("gcc", "g") + "++-%d" % version, "c++")):
                if shutil.which(name):
                    found.append((name, language))
    check(found, "compilers are found", "none is called gcc-N or clang-N")
    note("%d compilers: %s" % (len(found), " ".join(name for name, _ in found)))
    for compiler, language in found:
        for standard in STANDARDS[language]:
            for name in (standard, standard.replace("c", "gnu", 1)):
                keys = [key for key in SOURCES if not name.startswith("gnu") or key == "implementation"]
                jobs += [("%s %s: %s" % (compiler, name, key),
                          [compiler, "-std=" + name, "-fsyntax-only", "-I."] + WARNINGS + [source(key, language)], None, False)
                         for key in keys]
            if compiler.startswith("clang"):
                jobs += everything(compiler, language, standard)
        # Once optimised, for the warnings that come with the flow analysis, and for the names.
        output = os.path.join(directory(), compiler + ".o")
        jobs.append(("%s -O2: implementation" % compiler, [compiler, "-O2", "-I."] + WARNINGS + ["-c", source("implementation", language),
                     "-o", output], output, True))
    compile_all(jobs + tcc())


def compile_all(jobs):
    """Jobs: (name, command, its output, whether that holds the implementation)."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for (name, argv, output, implementation), (status, text) in zip(jobs, pool.map(lambda j: run(j[1]), jobs)):
            if check(status == 0, name, text) and implementation:
                exported(name, output)


def exported(name, output):
    defined = [line.split()[0] for line in symbols(output, "--defined-only", "--extern-only").splitlines() if line]
    foreign = [symbol for symbol in defined
               if not re.match(r"^(cprof_|use_all$|main$|_Z7use_alli$|DW\.ref\.)", symbol)
               # MinGW's stdio.h has these as inline functions of C++
               and not re.match(r"^_Z[89]v?snprintf", symbol)]
    check(defined and not foreign, name + ": exports only cprof_ names", " ".join(foreign) or "exports nothing")


def two_units():
    for compiler, language in compilers():
        standard = "c99" if language == "c" else "c++11"
        ending = ".c" if language == "c" else ".cpp"
        one = put("unit-implementation" + ending, '#define CPROF_IMPLEMENTATION\n#include "cprof.h"\n')
        two = source("declarations", language)
        main = put("unit-main" + ending, MAIN)
        program = os.path.join(directory(), "two-units-" + compiler)
        status, text = run([compiler, "-std=" + standard, "-O0", "-I."] + WARNINGS
                           + [one, two, main, "-pthread", "-o", program])
        if check(status == 0, compiler + ": two translation units, -pthread alone", text):
            status, text = run([program], cwd=directory())
            check(status == 0, compiler + ": and the program runs", "status %d: %s" % (status, text))

    # C implementation, C++ user.
    objects = [os.path.join(directory(), "mixed-c.o"), os.path.join(directory(), "mixed-cxx.o")]
    one = put("unit-implementation.c", '#define CPROF_IMPLEMENTATION\n#include "cprof.h"\n')
    status, text = run(["gcc", "-O0", "-I.", "-c", one, "-o", objects[0]])
    if status == 0:
        status, text = run(["g++", "-O0", "-I.", "-c", source("declarations", "c++"), "-o", objects[1]])
    if status == 0:
        status, text = run(["g++", put("unit-main.cpp", MAIN)] + objects + ["-pthread", "-o", os.path.join(directory(), "mixed")])
    check(status == 0, "implementation in C, use from C++", text)

    # Two implementations are refused when linking, not at run time.
    status, text = run(["gcc", "-O0", "-I.", one, put("unit-again.c", '#define CPROF_IMPLEMENTATION\n#include "cprof.h"\n'),
                        put("unit-nothing.c", "int main(void) { return 0; }\n"), "-pthread",
                        "-o", os.path.join(directory(), "twice")])
    check(status != 0 and "multiple definition" in text, "two implementations in one program do not link", text or "they do")


def include_order():
    late = put("late.c", '#include <stdio.h>\n#include <pthread.h>\n#define CPROF_IMPLEMENTATION\n#include "cprof.h"\n')
    status, text = run(["gcc", "-std=c99", "-I.", "-fsyntax-only", late])
    check(status != 0 and re.search(r"#error.*_GNU_SOURCE", text),
          "system headers first without _GNU_SOURCE: #error says what to do", text or "it compiles")
    text = put("minimal.c", '#include "cprof.h"\n')
    status, output = run(["gcc", "-std=c99", "-I.", "-M", text])
    # The declarations bring stddef, stdint and stdbool and nothing of the system.
    heavy = [name for name in ("stdio.h", "stdlib.h", "pthread.h", "signal.h", "unistd.h", "windows.h")
             if re.search(r"/" + re.escape(name) + r"\b", output)]
    check(status == 0 and not heavy, "declarations include only stddef, stdint and stdbool", " ".join(heavy) or output)


DISABLED = """
@FIRST@
#include "cprof.h"
int work(int x);
int work(int x)
{
    CPROF_BEGIN("x.folded");
    CPROF_THREAD_NAME("x");
    if (x)
        CPROF_THREAD_NAME("statement");
    else
        CPROF_END();
    x++;
    CPROF_END();
    return x;
}
"""


def disabled():
    for compiler, language in compilers():
        ending = ".c" if language == "c" else ".cpp"
        for what, first in (("", ""), (" with the implementation", "#define CPROF_IMPLEMENTATION")):
            path = put("disabled" + ending, DISABLED.replace("@FIRST@", first))
            output = os.path.join(directory(), "disabled-%s.o" % compiler)
            status, text = run([compiler, "-DCPROF_DISABLE", "-O0", "-I."] + WARNINGS + ["-c", path, "-o", output])
            if check(status == 0, "%s: CPROF_DISABLE compiles%s" % (compiler, what), text):
                listed = symbols(output)
                check("cprof" not in listed.lower() and "x.folded" not in open(output, "rb").read().decode("latin-1"),
                      "%s: CPROF_DISABLE leaves nothing behind%s" % (compiler, what), listed)
    # The macros are statements: they can stand alone after an if, enabled too.
    path = put("enabled.c", DISABLED.replace("@FIRST@", ""))
    status, text = run(["gcc", "-O0", "-I."] + WARNINGS + ["-c", path, "-o", os.path.join(directory(), "enabled.o")])
    check(status == 0, "the macros are statements", text)


def documents():
    """Every complete program in README.md compiles with the flags it is told to, and without warnings."""
    path = os.path.join(ROOT, "README.md")
    if not check(os.path.exists(path), "there is a README.md", "missing"):
        return
    with open(path) as file:
        text = file.read()
    blocks = [b for b in re.findall(r"^```(?:c|C)\s*\n(.*?)^```", text, re.S | re.M) if re.search(r"\bmain\s*\(", b)]
    check(blocks, "README.md has a complete program", "no ```c block with a main")
    for number, block in enumerate(blocks):
        path = put("readme-%d.c" % number, block)
        status, output = run(["gcc", "-O0", "-I.", "-Wall", "-Wextra", "-Werror", path, "-pthread", "-o", path[:-2]])
        check(status == 0, "README.md program %d compiles" % (number + 1), output)
    # Built by their own lines and run by e2e/examples.py; here: no warning.
    for path in ("hello.c", "service.c", "cpp/main.cpp", "cpp/cprof.cpp"):
        language = ["gcc", "-std=c99", "-D_DEFAULT_SOURCE"] if path.endswith(".c") else ["g++", "-std=c++11"]
        status, output = run(language + ["-fsyntax-only", "-I."] + WARNINGS + [os.path.join("examples", path)])
        check(status == 0, "examples/%s compiles without a warning" % path, output)


if __name__ == "__main__":
    if "all" in sys.argv[2:]:
        every_compiler()
        done()
    matrix()
    two_units()
    include_order()
    disabled()
    documents()
    done()
