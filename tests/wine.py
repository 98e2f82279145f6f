"""wine.py: runs Windows programs under Wine, in a prefix of their own, without a display.

Session() makes the prefix in the build directory if it is not there, and starts a `cmd` that
waits for its standard input to end. As long as it lives, Wine's services do, so that those that
a program would start do not inherit that program's output, and keep whoever reads it waiting; and
a start takes half a second instead of three. It ends with this process, however that ends.

    environment()        for a child that calls wine
    Session.close()      ends the services; nothing of the prefix runs on afterwards
"""

import os
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def missing():
    """Why Windows programs cannot be run here, or None."""
    for program in ("wine", "wineserver"):
        if not shutil.which(program):
            return program + " is not installed"
    return None


def has_64_bit():
    return shutil.which("wine64") or any(map(os.path.exists, (
        "/usr/lib/wine/wine64", "/usr/lib64/wine/wine64", "/opt/wine-stable/bin/wine64")))


def prefix():
    """Absolute; that of the environment if a caller has set up one."""
    build = os.path.join(ROOT, os.environ.get("CPROF_TEST_BUILD", "build"))
    return os.environ.get("CPROF_TEST_WINEPREFIX", os.path.join(build, "wine"))


def environment():
    clean = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY") and not k.startswith("WINE")}
    # No offer to download Mono and Gecko, no entries in the user's menus.
    return dict(clean, WINEPREFIX=prefix(), CPROF_TEST_WINEPREFIX=prefix(), WINEDEBUG="-all", WINEARCH="win64",
                WINEDLLOVERRIDES="mscoree,mshtml=d;winemenubuilder.exe=d")


class Session:
    def __init__(self):
        quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
        stamp = os.path.join(prefix(), ".complete")
        if not os.path.exists(stamp):
            shutil.rmtree(prefix(), ignore_errors=True)
            os.makedirs(prefix())
            subprocess.run(["wine", "wineboot", "--init"], timeout=300, check=True, **quiet)
            subprocess.run(["wineserver", "-w"], timeout=300, check=True, **quiet)
            with open(stamp, "w"):
                pass
        quiet["stdin"] = subprocess.PIPE
        self.keeper = subprocess.Popen(["wine", "cmd"], start_new_session=True, **quiet)
        quiet["stdin"] = subprocess.DEVNULL
        # It ends when the services are there.
        subprocess.run(["wine", "cmd", "/c", "exit"], timeout=300, check=True, **quiet)

    def close(self):
        self.keeper.stdin.close()
        subprocess.run(["wineserver", "-k"], env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=60)
        self.keeper.wait(60)
