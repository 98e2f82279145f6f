"""evmlib.py - what the EVM tests share: the report, running the binary, the assembler and Keccak-256.

Every test prints one line per check ("ok - name", "not ok - name: why", "skip - name: why") and exits
nonzero when one failed. Python 3.8 or later, standard library only.
"""
import hashlib
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CONTRACTS = os.path.join(ROOT, "examples", "evm", "contracts")
sys.dont_write_bytecode = True
sys.path.insert(0, CONTRACTS)
import asm  # noqa: E402

keccak256 = asm.keccak256
assemble = asm.assemble

WORD = 1 << 256
ADDRESS = 0xC0DE
CALLER = 0xCA11E4
COINBASE = 0xC01BBA5E
BALANCE = 10 ** 18
NUMBER = 1000
TIMESTAMP = 1681338455
RANDAO = int("2a" * 32, 16)


class Report:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def check(self, name, good, why=""):
        if good:
            self.passed += 1
            print("ok - " + name)
        else:
            self.failed += 1
            print("not ok - %s: %s" % (name, " ".join(str(why).split()) or "condition is false"))
        return good

    def equal(self, name, got, want):
        return self.check(name, got == want, "got %r, expected %r" % (got, want))

    def skip(self, name, why):
        self.skipped += 1
        print("skip - %s: %s" % (name, " ".join(why.split())))

    def exit(self):
        sys.stdout.flush()
        sys.exit(1 if self.failed else 0)


def command(arguments, cwd=None, timeout=600):
    """Exit code, stdout and stderr. A crash gives a negative exit code on POSIX."""
    p = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, timeout=timeout)
    return p.returncode, p.stdout.decode("utf-8", "replace"), p.stderr.decode("utf-8", "replace")


def run_arguments(case):
    """The arguments of `evm run` for a case: code and input are bytes, storage a dictionary of integers."""
    a = ["run", "--json", "--code", "0x" + case["code"].hex(), "--gas", str(case.get("gas", 1000000))]
    if case.get("input"):
        a += ["--input", case["input"].hex()]
    for key, value in sorted(case.get("storage", {}).items()):
        a += ["--storage", "%x=%x" % (key, value)]
    for name in ("value", "balance", "caller"):
        if name in case:
            a += ["--" + name, "%x" % case[name]]
    if "number" in case:
        a += ["--number", str(case["number"])]
    return a


def run_case(binary, case):
    """The result of `evm run` as a dictionary; storage with integer keys and values."""
    code, out, err = command([binary] + run_arguments(case), timeout=60)
    if code != 0:
        raise RuntimeError("evm run gave exit code %d: %s" % (code, err.strip()))
    result = json.loads(out)
    result["storage"] = {int(k, 16): int(v, 16) for k, v in result["storage"].items()}
    return result


def call_data(signature, *arguments):
    return keccak256(signature.encode())[:4] + b"".join((a % WORD).to_bytes(32, "big") for a in arguments)


def check_keccak(report):
    """The Python Keccak-256 is right: published vectors, and hashlib's SHA3-256 with the other padding."""
    published = {b"": "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470",
                 b"abc": "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45",
                 b"The quick brown fox jumps over the lazy dog":
                     "4d741b6f1eb29cb2a9b9911c82f56fa8d73b04959d3d9d222895df6c0b28aa15"}
    for message, digest in published.items():
        report.equal("the tests' keccak256(%r) is the published one" % message.decode(), keccak256(message).hex(),
                     digest)
    lengths = (0, 1, 31, 32, 64, 135, 136, 137, 271, 272, 273)
    report.check("the tests' Keccak permutation agrees with hashlib's SHA3-256",
                 all(keccak256(bytes(range(n % 256)) * 2, 0x06) == hashlib.sha3_256(bytes(range(n % 256)) * 2).digest()
                     for n in lengths))
