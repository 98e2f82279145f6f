#!/usr/bin/env python3
"""chain.py - the EVM example's block replay: deterministic, checked, and safe with bad files and arguments.

    python3 tests/evm/chain.py path/to/evm [path/to/evm built with -DEVM_NO_COMPUTED_GOTO]
"""
import os
import random
import re
import shutil
import struct
import sys
import tempfile

sys.dont_write_bytecode = True  # before the first import of ours
from evmlib import Report, check_keccak, command, keccak256, run_case

HEAD, ENTRY, SUM_AT = 56, 32, 48  # sizes in the format of chain.h
FIRST, LAST = 1000, 1019


def fnv(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return h


class ChainFile:
    """A chain file taken apart, to build wrong ones with right checksums."""

    def __init__(self, data):
        self.data = bytearray(data)
        self.count, self.first, self.last = struct.unpack_from("<IQQ", data, 12)
        self.index = struct.unpack_from("<Q", data, 40)[0]

    def where(self, number):
        return struct.unpack_from("<QI", self.data, self.index + (number - self.first) * ENTRY)

    def record(self, number):
        position, length = self.where(number)
        return bytes(self.data[position:position + length])

    def put_record(self, number, record):
        """Replaces a record by one of the same length or shorter."""
        position, length = self.where(number)
        assert len(record) <= length
        self.data[position:position + len(record)] = record
        entry = struct.pack("<QIIQ", position, len(record), 0, fnv(record))
        at = self.index + (number - self.first) * ENTRY
        self.data[at:at + ENTRY] = entry + struct.pack("<Q", fnv(entry))
        return self

    def mend_head(self):
        struct.pack_into("<Q", self.data, SUM_AT, 0)
        struct.pack_into("<Q", self.data, SUM_AT, fnv(self.data[:self.index]))
        return self

    def contracts(self):
        at, out = HEAD, []
        for _ in range(self.count):
            size = struct.unpack_from("<I", self.data, at + 20)[0]
            out.append(bytes(self.data[at + 24:at + 24 + size]))
            at += 24 + size
        return out


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def bytes(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def integer(self, n):
        return int.from_bytes(self.bytes(n), "little")

    def word(self):
        return int.from_bytes(self.bytes(self.integer(1)), "big")


def execute_in_python(binary, chain, number):
    """Gas used and digest of a block, by `evm run` for each transaction and everything else done here.
    Also gives what the record says."""
    r, codes = Reader(chain.record(number)), chain.contracts()
    r.bytes(8 * 4 + 20 + 32)
    r.word()
    balances, storage, receipts, logs, gas_used = [], [], b"", b"", 0
    for _ in range(r.integer(4)):
        balances.append(r.word())
        storage.append({})
        for _ in range(r.integer(4)):
            key = r.word()
            storage[-1][key] = r.word()
    for _ in range(r.integer(4)):
        c, sender, gas = r.integer(4), int.from_bytes(r.bytes(20), "big"), r.integer(8)
        r.word()
        value, data = r.word(), r.bytes(r.integer(4))
        intrinsic = 21000 + sum(16 if b else 4 for b in data)
        result = run_case(binary, {"code": codes[c], "input": data, "gas": gas - intrinsic, "caller": sender,
                                   "value": value, "storage": storage[c], "number": number})
        used = gas - result["gas_left"]
        used -= min(result["refund"], used // 5)
        good = result["status"] == "success"
        if good:
            balances[c] += value
            storage[c] = result["storage"]
            for log in result["logs"]:
                payload = bytes.fromhex(log["data"][2:])
                logs += struct.pack(">II", c, len(log["topics"]))
                logs += bytes.fromhex("".join(t[2:] for t in log["topics"])) + struct.pack(">Q", len(payload)) + payload
        output = bytes.fromhex(result["output"][2:])
        receipts += struct.pack(">BQQ", good, used, len(output)) + output
        gas_used += used
    state = b"".join(b.to_bytes(32, "big") for b in balances)
    for c, slots in enumerate(storage):
        for key in sorted(slots):
            state += struct.pack(">I", c) + key.to_bytes(32, "big") + slots[key].to_bytes(32, "big")
    recorded = (r.integer(8), r.bytes(32).hex())
    return (gas_used, keccak256(receipts + logs + state).hex()), recorded


class Test:
    def __init__(self, binary, folder):
        self.binary, self.folder, self.report = binary, folder, Report()

    def run(self, *arguments, binary=None):
        return command([binary or self.binary] + [str(a) for a in arguments], cwd=self.folder)

    def replay(self, directory, first=FIRST, last=LAST, *options, binary=None):
        return self.run("-b", first, "-e", last, "--datadir", os.path.join(self.folder, directory), *options,
                        binary=binary)

    def gen(self, directory, first, last, *options):
        path = os.path.join(self.folder, directory)
        code, out, err = self.run("gen", "--datadir", path, "-b", first, "-e", last, *options)
        if code != 0:
            raise RuntimeError("evm gen failed: " + err)
        with open(os.path.join(path, "chain.evm"), "rb") as file:
            return file.read()

    def write(self, data, directory="bad"):
        os.makedirs(os.path.join(self.folder, directory), exist_ok=True)
        with open(os.path.join(self.folder, directory, "chain.evm"), "wb") as file:
            file.write(data)
        return directory

    def rejects(self, name, arguments, status=2, says=""):
        code, out, err = self.run(*arguments)
        self.report.check(name, code == status and out == "" and err.startswith("evm: ") and says in err,
                          "exit code %d, stdout %r, stderr %r" % (code, out[:200], err[:300]))

    def rejects_file(self, name, data, says="", first=FIRST, last=LAST):
        code, out, err = self.replay(self.write(data), first, last, "--threads", 1)
        self.report.check(name, code == 1 and "blocks ok" not in out and err.startswith("evm: ") and says in err,
                          "exit code %d, stdout %r, stderr %r" % (code, out[:200], err[:300]))

    # ---- what works ----

    def check_replay(self, second):
        report, data = self.report, self.gen("data", FIRST, LAST)
        report.check("two runs of gen write the same bytes", self.gen("again", FIRST, LAST) == data)
        report.check("another seed writes other blocks", self.gen("seed", FIRST, LAST, "--seed", 7) != data)
        report.equal("seed 0 is the default", self.gen("again", FIRST, LAST, "--seed", 0) == data, True)
        self.gen("data", FIRST, LAST)
        for threads in (1, 2, 4):
            code, out, err = self.replay("data", FIRST, LAST, "--threads", threads)
            report.check("%d thread(s) replay all blocks with the recorded results" % threads,
                         code == 0 and out.endswith("20 blocks ok\n") and err == "", (code, out, err))
        code, out, _ = self.replay("data")
        report.check("the default number of threads works", code == 0 and "20 blocks ok" in out, (code, out))
        report.check("the replay prints blocks/s and Mgas/s", re.search(r"[\d.]+ blocks/s, [\d.]+ Mgas/s", out), out)
        code, out, _ = self.replay("seed", FIRST, LAST)
        report.check("a chain of another seed replays", code == 0 and "20 blocks ok" in out, (code, out))
        code, out, _ = self.run("run-range", "-b", FIRST, "-e", LAST, "--datadir", "data")
        report.check("run-range is the same command", code == 0 and "20 blocks ok" in out, (code, out))
        for first, last in ((FIRST, FIRST), (LAST, LAST), (1005, 1011)):
            code, out, _ = self.replay("data", first, last, "--threads", 2)
            report.check("the range %d..%d of the file replays alone" % (first, last),
                         code == 0 and "%d blocks ok" % (last - first + 1) in out, (code, out))
        code, out, _ = self.replay("data", FIRST, FIRST + 1, "--threads", 16)
        report.check("more threads than blocks work", code == 0 and "2 blocks ok" in out, (code, out))
        small = self.gen("small", 1, 5)
        code, out, _ = self.replay("small", 1, 5)
        report.check("a chain that starts at block 1 works", code == 0 and "5 blocks ok" in out, (code, out))
        self.gen("zero", 0, 0)
        code, out, _ = self.replay("zero", 0, 0)
        report.check("a chain of block 0 alone works", code == 0 and "1 blocks ok" in out, (code, out))
        report.check("a block depends only on seed and number, not on the range generated",
                     ChainFile(self.gen("part", 3, 4)).record(4) == ChainFile(small).record(4))
        for number in (2, 5):
            got, recorded = execute_in_python(self.binary, ChainFile(small), number)
            report.equal("block %d: gas and digest recorded are those computed from single `evm run`s" % number,
                         recorded, got)
        if second is None:
            report.skip("the switch build replays the chain of the computed-goto build", "no second binary given")
        else:
            code, out, err = self.replay("data", FIRST, LAST, binary=second)
            report.check("the switch build replays the chain of the computed-goto build",
                         code == 0 and "20 blocks ok" in out and "switch" in out, (code, out, err))
        return data, small

    def check_profile(self):
        path = os.path.join(self.folder, "flamegraph.folded")
        code, out, err = self.replay("data", FIRST, LAST, "--threads", 2, "--profile", "--profile-hz", 500)
        self.report.check("--profile replays as without", code == 0 and "20 blocks ok" in out, (code, out, err))
        lines = []
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        self.report.check("--profile writes flamegraph.folded with lines of stack and count",
                          lines and all(re.match(r".* \d+$", line) for line in lines), (err, lines[:3]))
        self.report.check("the profile names the workers", any(line.startswith("evm-worker-0;") for line in lines) and
                          any(line.startswith("evm-worker-1;") for line in lines), (err, lines[:3]))
        other = os.path.join(self.folder, "other.folded")
        code, out, err = self.replay("data", FIRST, LAST, "--profile", "--profile-output", other)
        self.report.check("--profile-output chooses the file", code == 0 and os.path.exists(other), (code, out, err))
        code, out, err = self.replay("data", FIRST, FIRST, "--profile", "--profile-output",
                                     os.path.join(self.folder, "missing", "x.folded"))
        self.report.check("a profile that cannot be written is an error", code == 1 and "evm: " in err, (code, out, err))

    # ---- wrong results and damaged files ----

    def check_wrong_results(self, data):
        def changed(number, at, xor=1):
            chain = ChainFile(data)
            record = bytearray(chain.record(number))
            record[at] ^= xor
            return chain.put_record(number, bytes(record))
        self.rejects_file("a wrong recorded gas fails with the block's number", changed(1007, -40).data,
                          "block 1007: used ")
        self.rejects_file("a wrong recorded digest fails with the block's number", changed(1008, -1).data,
                          "block 1008: the state digest is ")
        two = changed(1012, -1)
        data_two = two.put_record(1004, changed(1004, -1).record(1004)).data
        self.write(data_two)
        found = set()
        for threads in (1, 2, 4):
            code, out, err = self.replay("bad", FIRST, LAST, "--threads", threads)
            found.add((code, "blocks ok" in out, err.split(":")[1]))
        self.report.equal("of two wrong blocks the first is reported, with any number of threads", found,
                          {(1, False, " block 1004")})
        code, out, _ = self.replay("bad", 1005, 1011)
        self.report.check("a range without the wrong blocks replays", code == 0 and "7 blocks ok" in out, (code, out))
        chain = ChainFile(data)
        record = bytearray(chain.record(1003))
        self.rejects_file("a record of another block is noticed",
                          chain.put_record(1003, (struct.pack("<Q", 1004) + record[8:])).data,
                          "block 1003: the record is that of block 1004")

    def check_damage(self, small):
        """small: blocks 1..5."""
        def flip(at):
            bad = bytearray(small)
            bad[at] ^= 0x10
            return bad
        rnd = random.Random(3)
        index = ChainFile(small).index
        places = list(range(0, HEAD)) + list(range(index, index + 5 * ENTRY, 3))
        places += [rnd.randrange(len(small)) for _ in range(60)] + [len(small) - 1]
        missed = []
        for at in places:
            code, out, err = self.replay(self.write(flip(at)), 1, 5, "--threads", 1)
            if code != 1 or not err.startswith("evm: "):
                missed.append((at, code, out, err))
        self.report.check("a changed byte anywhere in the file is noticed (%d places)" % len(places), not missed,
                          missed[:3])
        missed = []
        lengths = [0, 1, 7, 8, 12, HEAD - 1, HEAD, HEAD + 10, index - 1, index, index + 1, index + ENTRY,
                   index + 5 * ENTRY, len(small) // 2, len(small) - 1] + [rnd.randrange(len(small)) for _ in range(20)]
        for length in lengths:
            code, out, err = self.replay(self.write(small[:length]), 1, 5, "--threads", 2)
            if code != 1 or not err.startswith("evm: "):
                missed.append((length, code, out, err))
        self.report.check("a truncated file is noticed (%d lengths)" % len(lengths), not missed, missed[:3])
        self.rejects_file("a file of another kind", b"hello, world\n" * 100, "not a chain file", 1, 5)
        self.rejects_file("an empty file", b"", "too short", 1, 5)
        newer = ChainFile(small)
        struct.pack_into("<I", newer.data, 8, 2)
        self.rejects_file("a newer format version is named", newer.mend_head().data, "format version 2", 1, 5)

    def check_hostile(self, small):
        """Right checksums, wrong contents: whatever the file says, an error or a result, not a crash."""
        rnd, bad, seen = random.Random(4), [], set()
        for _ in range(120):
            chain = ChainFile(small)
            number = rnd.randrange(1, 6)
            record = bytearray(chain.record(number))
            end = len(record) if rnd.random() < 0.5 else 200  # half of them near the start, where the counts are
            for _ in range(rnd.choice([1, 1, 2, 8])):
                record[rnd.randrange(end)] = rnd.choice([0, 1, 0x7F, 0x80, 0xFF, rnd.randrange(256)])
            if rnd.random() < 0.2:
                record = record[:rnd.randrange(1, len(record))]
            code, out, err = self.replay(self.write(chain.put_record(number, bytes(record)).data), 1, 5, "--threads", 1)
            seen.add(code)
            if code not in (0, 1) or (code == 1) != err.startswith("evm: block %d: " % number):
                bad.append((number, code, out, err))
        self.report.check("120 hostile records with right checksums give an error, not a crash", not bad and 1 in seen,
                          bad[:3])
        bad = []
        for _ in range(80):
            chain = ChainFile(small)
            for _ in range(rnd.choice([1, 2, 4])):
                chain.data[rnd.randrange(8, chain.index)] = rnd.choice([0, 1, 0x7F, 0x80, 0xFF, rnd.randrange(256)])
            code, out, err = self.replay(self.write(chain.mend_head().data), 1, 5, "--threads", 1)
            if code not in (0, 1) or (code == 1) != err.startswith("evm: "):
                bad.append((code, out, err))
        self.report.check("80 hostile heads with right checksums give an error, not a crash", not bad, bad[:3])

    # ---- arguments ----

    def check_arguments(self):
        report, data = self.report, ["--datadir", "data"]
        code, out, err = self.run("--help")
        report.check("--help explains on stdout", code == 0 and "usage:" in out and "--datadir" in out and err == "",
                     (code, err))
        code, out, err = self.run()
        report.check("no arguments: usage on stderr, exit code 2", code == 2 and "usage:" in err and out == "", code)
        self.rejects("an unknown command", ["frobnicate"])
        self.rejects("an unknown option", ["-b", 1, "-e", 2] + data + ["--fast"], says="--fast")
        self.rejects("a stray word", ["-b", 1, "-e", 2] + data + ["word"], says="word")
        self.rejects("no data directory", ["-b", 1, "-e", 2], says="--datadir")
        self.rejects("no first block", ["-e", 2] + data, says="-b")
        self.rejects("no last block", ["-b", 2] + data, says="-e")
        self.rejects("a first block after the last", ["-b", 5, "-e", 4] + data, says="after")
        for bad in ("x", "", "-1", "1.5", "1e3", "99999999999999999999", "18446744073709551616", "0x10", " 5"):
            self.rejects("block number %r" % bad, ["-b", bad, "-e", 2000] + data, says="-b")
        for bad in ("0", "257", "-2", "many", "4294967297"):
            self.rejects("%s threads" % bad, ["-b", 1000, "-e", 1001] + data + ["--threads", bad], says="--threads")
        for bad in ("0", "10001", "fast"):
            self.rejects("a rate of %s Hz" % bad, ["-b", 1000, "-e", 1001] + data + ["--profile", "--profile-hz", bad],
                         says="--profile-hz")
        self.rejects("a profile that does not end in .folded",
                     ["-b", 1000, "-e", 1001] + data + ["--profile", "--profile-output", "x.svg"], says=".svg")
        for bad in ("", "opcodes", "BLOCK", "1"):
            self.rejects("scopes %r" % bad, ["-b", 1000, "-e", 1001] + data + ["--profile", "--profile-scopes", bad],
                         says="--profile-scopes")
        self.rejects("--profile-scopes without --profile", ["-b", 1000, "-e", 1001] + data + ["--profile-scopes", "tx"],
                     says="--profile")
        self.rejects("--profile-hz without --profile", ["-b", 1000, "-e", 1001] + data + ["--profile-hz", 100],
                     says="--profile")
        for option in ("-b", "-e", "--datadir", "--threads", "--profile-hz", "--profile-output", "--profile-scopes"):
            self.rejects("%s without a value" % option, [option], says=option)
        self.rejects("a range before the file's", ["-b", FIRST - 1, "-e", LAST] + data, 1, "1000..1019")
        self.rejects("a range beyond the file's", ["-b", FIRST, "-e", LAST + 1] + data, 1, "1000..1019")
        self.rejects("a data directory that does not exist", ["-b", 1, "-e", 2, "--datadir", "nowhere"], 1, "nowhere")
        self.rejects("an empty data directory name", ["-b", 1, "-e", 2, "--datadir", ""])
        self.rejects("a very long data directory name", ["-b", 1, "-e", 2, "--datadir", "d" * 5000], 1, "too long")
        os.makedirs(os.path.join(self.folder, "directory", "chain.evm"))
        self.rejects("a directory instead of the file", ["-b", 1, "-e", 2, "--datadir", "directory"], 1)
        self.rejects("gen without a directory", ["gen", "-b", 1, "-e", 2], says="--datadir")
        self.rejects("gen into a directory whose parent is missing",
                     ["gen", "-b", 1, "-e", 2, "--datadir", os.path.join("no", "such")], 1)
        self.rejects("gen where a file is in the way", ["gen", "-b", 1, "-e", 2, "--datadir",
                                                        os.path.join("data", "chain.evm")], 1)
        self.rejects("gen of too many blocks", ["gen", "-b", 0, "-e", 10 ** 9] + data, says="1000000")
        self.rejects("gen with a bad seed", ["gen", "-b", 1, "-e", 2, "--seed", "x"] + data, says="--seed")
        self.rejects("gen with an option of the replay", ["gen", "-b", 1, "-e", 2, "--threads", 1] + data)

    def check_run_arguments(self):
        code = ["run", "--code", "00"]
        self.rejects("run without code", ["run"], says="--code")
        for bad in ("0", "0x0", "abc", "zz", "0xgg", "00 00", "0x0x00", "6\xe9"):
            self.rejects("code %r" % bad, ["run", "--code", bad], says="--code")
            self.rejects("input %r" % bad, code + ["--input", bad], says="--input")
        for bad in ("", "-1", "x", "1000000000001", "18446744073709551616"):
            self.rejects("gas %r" % bad, code + ["--gas", bad], says="--gas")
        for bad in ("", "1", "1=", "=1", "g=1", "1=g", "1=2=3", "0" * 65 + "=1", "0x=1"):
            self.rejects("storage %r" % bad, code + ["--storage", bad], says="--storage")
        self.rejects("a caller of 21 bytes", code + ["--caller", "1" + "0" * 40], says="--caller")
        self.rejects("a value of 257 bits", code + ["--value", "1" + "0" * 64], says="--value")
        self.rejects("a bad block number", code + ["--number", "x"], says="--number")
        self.rejects("an unknown option of run", code + ["--fast"], says="--fast")
        for option in ("--code", "--input", "--gas", "--storage", "--value", "--caller", "--number"):
            self.rejects("run %s without a value" % option, ["run", option], says=option)
        status, out, err = self.run("run", "--code", "0X5F5F", "--input", "0xAbCd", "--gas", 100)
        self.report.check("0X and capital digits are accepted", status == 0 and '"gas_left":96' in out, (status, out, err))
        status, out, _ = self.run("run", "--code", "")
        self.report.check("empty code succeeds", status == 0 and '"status":"success"' in out, (status, out))
        status, out, _ = self.run("run", "--code", "fe")
        self.report.check("a failing program is a result, not an error", status == 0 and "invalid_opcode" in out,
                          (status, out))


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    binary = os.path.abspath(sys.argv[1])
    second = os.path.abspath(sys.argv[2]) if len(sys.argv) == 3 else None
    folder = tempfile.mkdtemp(prefix="evm-chain-")
    try:
        test = Test(binary, folder)
        check_keccak(test.report)
        data, small = test.check_replay(second)
        test.check_profile()
        test.check_wrong_results(data)
        test.check_damage(small)
        test.check_hostile(small)
        test.check_arguments()
        test.check_run_arguments()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    test.report.exit()


if __name__ == "__main__":
    main()
