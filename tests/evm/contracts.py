#!/usr/bin/env python3
"""contracts.py - the example's contracts do what their sources say, and contracts.h is made from them.

    python3 tests/evm/contracts.py path/to/evm

Every contract's result is compared with a model in Python.
"""
import random
import sys

sys.dont_write_bytecode = True  # before the first import of ours
from evmlib import CALLER, WORD, Report, asm, assemble, call_data, check_keccak, keccak256, run_case

CODE = {name: asm.assemble_file(path) for name, path in asm.sources()}


def run(binary, contract, data, **options):
    return run_case(binary, dict({"code": CODE[contract], "input": data, "gas": 50000000}, **options))


def integer(data):
    return int.from_bytes(data, "big")


def slot_of(owner):
    return integer(keccak256(owner.to_bytes(32, "big") + bytes(32)))


def check_assembler(report):
    with open(asm.os.path.join(asm.HERE, "contracts.h"), encoding="utf-8") as file:
        report.check("the assembler reproduces the committed contracts.h", file.read() == asm.header(),
                     "run asm.py and commit contracts.h")
    report.equal("the assembler picks the shortest PUSH and resolves labels forward and back",
                 assemble("PUSH 0 PUSH 255 PUSH 256 a: PUSH @a PUSH @b JUMP b: PUSH4 1 .const X 7\nPUSH $X").hex(),
                 "5f60ff6101005b61000661000e565b63000000016007")
    report.equal("selector() is Solidity's", assemble("PUSH selector(transfer(address,uint256))").hex(), "63a9059cbb")
    for name, text in (("an unknown word", "ADDD"), ("an unknown label", "PUSH @x"), ("an operand too big", "PUSH1 256"),
                       ("a label defined twice", "a: a:"), ("a missing operand", "PUSH")):
        try:
            assemble(text)
            report.check("the assembler rejects " + name, False, "it accepted %r" % text)
        except asm.AsmError:
            report.check("the assembler rejects " + name, True)


def check_token(report, binary):
    to, amount, supply = 0xB0B, 1234, 10 ** 20
    before = {slot_of(CALLER): 5000, slot_of(to): 7, 1: supply}
    r = run(binary, "token", call_data("transfer(address,uint256)", to, amount), storage=before)
    report.equal("token: transfer moves the amount and returns true",
                 (r["status"], integer(bytes.fromhex(r["output"][2:])), r["storage"]),
                 ("success", 1, {slot_of(CALLER): 5000 - amount, slot_of(to): 7 + amount, 1: supply}))
    report.equal("token: transfer logs Transfer(from, to, amount)", [(x["topics"], x["data"]) for x in r["logs"]],
                 [(["0x" + keccak256(b"Transfer(address,address,uint256)").hex(), "0x%064x" % CALLER, "0x%064x" % to],
                   "0x%064x" % amount)])
    r = run(binary, "token", call_data("transfer(address,uint256)", CALLER, 5000), storage=before)
    report.equal("token: a transfer to oneself changes nothing", (r["status"], r["storage"]), ("success", before))
    r = run(binary, "token", call_data("transfer(address,uint256)", to, 5000), storage=before)
    report.equal("token: the whole balance can be sent", r["storage"], {slot_of(to): 5007, 1: supply})
    r = run(binary, "token", call_data("transfer(address,uint256)", to, 5001), storage=before)
    report.equal("token: sending more than one has reverts with InsufficientBalance()",
                 (r["status"], r["output"], r["storage"]),
                 ("revert", "0x" + keccak256(b"InsufficientBalance()")[:4].hex(), before))
    r = run(binary, "token", call_data("transfer(address,uint256)", to | 1 << 160, 1), storage=before)
    report.equal("token: an address of more than 20 bytes reverts", r["status"], "revert")
    r = run(binary, "token", call_data("balanceOf(address)", to), storage=before)
    report.equal("token: balanceOf", integer(bytes.fromhex(r["output"][2:])), 7)
    r = run(binary, "token", call_data("totalSupply()"), storage=before)
    report.equal("token: totalSupply", integer(bytes.fromhex(r["output"][2:])), supply)
    balances, rnd, good = {0xA0 + i: 1000 for i in range(4)}, random.Random(5), True
    for _ in range(25):
        sender, to, amount = rnd.choice(list(balances)), rnd.choice(list(balances) + [0xFF]), rnd.randrange(900)
        r = run(binary, "token", call_data("transfer(address,uint256)", to, amount), caller=sender,
                storage={slot_of(k): v for k, v in balances.items() if v})
        good &= r["status"] == ("success" if balances[sender] >= amount else "revert")
        if balances[sender] >= amount:
            balances[sender] -= amount
            balances[to] = balances.get(to, 0) + amount
        good &= r["storage"] == {slot_of(k): v for k, v in balances.items() if v}
    report.check("token: 25 random transfers leave the balances of the model", good)


def check_hasher(report, binary):
    for seed, n in ((0, 0), (1, 1), (WORD - 5, 10), (integer(keccak256(b"seed")), 300)):
        h = seed.to_bytes(32, "big")
        for i in range(n, 0, -1):
            h = keccak256(h + i.to_bytes(32, "big"))
        r = run(binary, "hasher", call_data("run(bytes32,uint256)", seed, n))
        report.equal("hasher: %d rounds give the model's hash, also in storage" % n,
                     (r["status"], r["output"], r["storage"]),
                     ("success", "0x" + h.hex(), {0: integer(h)} if integer(h) else {}))


def check_modexp(report, binary):
    rnd, good = random.Random(6), True
    cases = [(2, 10, 1000), (0, 0, 7), (0, 0, 1), (5, 0, 1), (5, 3, 0), (WORD - 1, WORD - 1, WORD - 1),
             (3, WORD - 1, 1 << 255), (7, 1, 2 ** 256 - 189)]
    cases += [tuple(rnd.getrandbits(rnd.choice([8, 64, 200, 256])) for _ in range(3)) for _ in range(20)]
    for base, exponent, modulus in cases:
        want = pow(base, exponent, modulus) if modulus else 0
        r = run(binary, "modexp", call_data("modexp(uint256,uint256,uint256)", base, exponent, modulus), storage={0: 9})
        if (r["status"], int(r["output"], 16), r["storage"]) != ("success", want, {0: (9 + want) % WORD} if (9 + want) % WORD else {}):
            good = False
            print("# modexp(%d, %d, %d): %r" % (base, exponent, modulus, r))
    report.check("modexp: %d cases equal Python's pow(base, exponent, modulus)" % len(cases), good)


def check_sorter(report, binary):
    for seed, n in ((1, 0), (1, 1), (2, 2), (3, 3), (4, 64), (WORD - 1, 257), (integer(keccak256(b"x")), 1024)):
        x, words = seed, []
        for _ in range(n):
            x = (x * 6364136223846793005 + 1442695040888963407) % WORD
            words.append(x)
        r = run(binary, "sorter", call_data("sort(uint256,uint256)", seed, n))
        got = bytes.fromhex(r["output"][2:])
        report.check("sorter: %d words come back sorted" % n, r["status"] == "success" and
                     [integer(got[i:i + 32]) for i in range(0, len(got), 32)] == sorted(words), r["status"])
    r = run(binary, "sorter", call_data("sort(uint256,uint256)", 1, 1025))
    report.equal("sorter: more than 1024 words revert", r["status"], "revert")


def check_ledger(report, binary):
    base = integer(keccak256(b"ledger.accounts"))

    def slot(i, field):
        return (base + 2 * i + field) % WORD
    before = {slot(i, 0): 10 ** 15 + 12345 * i for i in range(6)}
    for first, count, rounds in ((0, 6, 1), (1, 3, 10), (4, 4, 7), (2, 0, 3), (0, 6, 0)):
        model, total = dict(before), 0
        for _ in range(rounds):
            for i in range(first, first + count):
                interest = model.get(slot(i, 0), 0) * 25 // 10000
                model[slot(i, 0)] = model.get(slot(i, 0), 0) + interest
                model[slot(i, 1)] = model.get(slot(i, 1), 0) + interest
                total += interest
        model[0] = total
        r = run(binary, "ledger", call_data("accrue(uint256,uint256,uint256)", first, count, rounds), storage=before)
        logs = [(["0x" + keccak256(b"Accrued(uint256)").hex(), "0x%064x" % rounds], "0x%064x" % total)]
        report.equal("ledger: accrue(%d, %d, %d) pays the model's interest and logs it" % (first, count, rounds),
                     (r["status"], r["storage"], [(x["topics"], x["data"]) for x in r["logs"]]),
                     ("success", {k: v for k, v in model.items() if v}, logs))
    r = run(binary, "ledger", call_data("deposit(uint256)", 3), storage=before, value=777)
    report.equal("ledger: deposit adds the value sent", (r["status"], r["storage"]),
                 ("success", {k: v + (777 if k == slot(3, 0) else 0) for k, v in before.items()}))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    report = Report()
    check_keccak(report)
    check_assembler(report)
    for check in (check_token, check_hasher, check_modexp, check_sorter, check_ledger):
        check(report, sys.argv[1])
    for name in CODE:
        r = run(sys.argv[1], name, b"\xde\xad\xbe\xef")
        report.equal("%s: an unknown function reverts" % name, r["status"], "revert")
    report.exit()


if __name__ == "__main__":
    main()
