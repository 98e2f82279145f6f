#!/usr/bin/env python3
"""vectors.py - opcode by opcode, the EVM example gives the known answer.

    python3 tests/evm/vectors.py path/to/evm

Expected words are computed here with Python's integers, hashes with the Python Keccak-256 (itself
checked against published vectors), gas from the Yellow Paper's appendix G and the EIPs, term by term.
"""
import sys

sys.dont_write_bytecode = True  # before the first import of ours
from evmlib import (ADDRESS, BALANCE, CALLER, COINBASE, NUMBER, RANDAO, TIMESTAMP, WORD, Report, assemble,
                    check_keccak, keccak256, run_case)

MIN = 1 << 255
MAX = WORD - 1
VECTORS = []  # dictionaries: name, code, optional gas/input/storage/..., and expect


def vector(name, source, expect, **options):
    """source is assembly text or bytes; expect maps fields of the result to values."""
    code = source if isinstance(source, bytes) else assemble(source)
    VECTORS.append(dict(options, name=name, code=code, expect=expect))


def returns(name, source, word, **options):
    """The program leaves `word` on the stack."""
    vector(name, source + " PUSH0 MSTORE PUSH 32 PUSH0 RETURN",
           {"status": "success", "output": "0x%064x" % (word % WORD)}, **options)


def costs(name, source, used, **options):
    """The program halts with success after using exactly this much gas."""
    vector(name, source, {"status": "success", "gas_used": used}, **options)


def fails(name, source, status, **options):
    """An exceptional halt: all gas is gone, nothing is returned, storage is what it was."""
    vector(name, source, {"status": status, "gas_left": 0, "output": "0x", "logs": [],
                          "storage": options.get("storage", {})}, **options)


def signed(x):
    return x - WORD if x >= MIN else x


def push_all(arguments):
    return " ".join("PUSH %d" % (a % WORD) for a in reversed(arguments))


def short(x):
    """A word for a test's name."""
    x %= WORD
    if x == MIN:
        return "-2^255"
    if x == MIN - 1:
        return "2^255-1"
    if x >= WORD - 1000:
        return str(x - WORD)
    text = hex(x)
    return text if len(text) <= 14 else "%s..%s" % (text[:8], text[-4:])


# ---- arithmetic, comparisons, bits ----

def sdiv(a, b):
    a, b = signed(a), signed(b)
    return 0 if b == 0 else (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1)


def smod(a, b):
    a, b = signed(a), signed(b)
    return 0 if b == 0 else (abs(a) % abs(b)) * (-1 if a < 0 else 1)


def signextend(k, x):
    if k > 30:
        return x
    bits = 8 * (k + 1)
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x


MODELS = {
    "ADD": lambda a, b: a + b,
    "MUL": lambda a, b: a * b,
    "SUB": lambda a, b: a - b,
    "DIV": lambda a, b: a // b if b else 0,
    "SDIV": sdiv,
    "MOD": lambda a, b: a % b if b else 0,
    "SMOD": smod,
    "ADDMOD": lambda a, b, n: (a + b) % n if n else 0,
    "MULMOD": lambda a, b, n: (a * b) % n if n else 0,
    "EXP": lambda a, b: pow(a, b, WORD),
    "SIGNEXTEND": signextend,
    "LT": lambda a, b: int(a < b),
    "GT": lambda a, b: int(a > b),
    "SLT": lambda a, b: int(signed(a) < signed(b)),
    "SGT": lambda a, b: int(signed(a) > signed(b)),
    "EQ": lambda a, b: int(a == b),
    "ISZERO": lambda a: int(a == 0),
    "AND": lambda a, b: a & b,
    "OR": lambda a, b: a | b,
    "XOR": lambda a, b: a ^ b,
    "NOT": lambda a: ~a,
    "BYTE": lambda i, x: (x >> (8 * (31 - i))) & 0xFF if i < 32 else 0,
    "SHL": lambda s, x: x << s if s < 256 else 0,
    "SHR": lambda s, x: x >> s if s < 256 else 0,
    "SAR": lambda s, x: signed(x) >> min(s, 256),
}

P = (1 << 255) - 19
Q = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
A = 0x123456789ABCDEF0FEDCBA9876543210DEADBEEFCAFEBABE0011223344556677
B = 0x8877665544332211EBABEFACFEEBDAED
C = 0xFEDCBA98_00000000_00000000_00000001
# Operands that reach the rare steps of long division (found with a model of the algorithm that tells
# which step runs): a trial digit one or two too large, a divisor added back, a trial digit at its maximum.
DIVISION = [
    (0x7FFFFFFFFFFFFFFF00000000000000017C240D4969D495DD, 0x80000000000000017FFFFFFFFFFFFFFF),
    (0x800000000000000000000000000000008000000000000000FFFFFFFFFFFFFFFF, 0x8000000000000000FFFFFFFFFFFFFFFF),
    (0xFFFFFFFFFFFFFFFF7FFFFFFFFFFFFFFFB573F61AF7FBC2210000000100000000, 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFE0000000000000001),
    (0xFFFFFFFFFFFFFFFE000000010000000080000000000000010000000000000001, 0x8000000000000000FFFFFFFFFFFFFFFF),
    (0x8000000000000000000000000000000100000001000000000000000100000000,
     0x800000000000000000000000000000018000000000000001FFFFFFFFFFFFFFFF),
    (0xFFFFFFFFFFFFFFFE800000000000000000000000000000000000000000000001, 0xFFFFFFFFFFFFFFFE8000000000000000FE20830FDDAFBA85),
    (0x80000000000000018000000000000000FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF, 0x100000000FFFFFFFFFFFFFFFF),
    (0xFFFFFFFFFFFFFFFF000000010000000000000001000000000000000000000001, 0x8000000000000001),
    (0x800000000D53EAC2FFFFFFFFFFFFFFFF, 0x800000000D53EAC4),
    (0x8000000000007784FFFFFFFFFFFFFCE8, 0x8000000000007865),
]

OPERANDS = {
    "ADD": [(1, 2), (MAX, 1), (MAX, MAX), (A, B), ((1 << 64) - 1, 1), ((1 << 192) - 1, 1)],
    "MUL": [(3, 5), (MAX, MAX), (A, B), (1 << 128, 1 << 128), (1 << 127, 1 << 128), (P, Q)],
    "SUB": [(5, 3), (3, 5), (0, 1), (A, B), (1 << 64, 1), (1 << 192, 1), (0, MIN)],
    "DIV": [(7, 2), (7, 0), (0, 7), (MAX, 1), (MAX, MAX), (MAX, 2), (A, B), (A, C), (B, A), (MAX, (1 << 64) - 1),
            (A, 0x8000000000000000), (MAX, 1 << 128), (MAX, (1 << 128) + 1), (MAX, 3 << 190),
            (P, 0xFFFFFFFFFFFFFFFFFFFFFFFF), (MIN, MAX >> 1)] + DIVISION,
    "SDIV": [(7, 2), (-7, 2), (7, -2), (-7, -2), (MIN, -1), (MIN, 1), (MIN, MIN), (MIN, 2), (5, 0), (-5, 0),
             (-1, MIN), (MIN - 1, -1)],
    "MOD": [(7, 3), (7, 0), (MAX, 10), (A, B), (A, C), (B, A), (MAX, MAX), (MAX, 1 << 64),
            (MAX, (1 << 192) - 1)] + DIVISION,
    "SMOD": [(8, 3), (-8, 3), (8, -3), (-8, -3), (-8, 0), (MIN, -1), (MIN, 3), (MIN, MIN), (-1, MIN)],
    "ADDMOD": [(10, 10, 8), (MAX, 2, 2), (MAX, MAX, MAX), (MAX, MAX, 0), (MAX, MAX, MAX - 1), (A, B, C), (MAX, 1, P),
               (5, 6, 1), (1, 2, MAX)],
    "MULMOD": [(10, 10, 8), (MAX, MAX, 12), (MAX, MAX, 0), (MAX, MAX, MAX), (MAX, MAX, MAX - 1), (A, B, C), (A, A, P),
               (MAX - 1, MAX - 2, Q), (MAX, MAX, (1 << 128) - 1), (MAX, MAX, 1), (1 << 255, 2, MAX), (0, MAX, P),
               (MAX, MAX, (1 << 192) + 1), (A, MAX, (1 << 64) - 59)],
    "EXP": [(2, 10), (0, 0), (0, 5), (7, 1), (2, 255), (2, 256), (3, MAX), (A, B), (MAX, MAX), (10, 77)],
    "SIGNEXTEND": [(0, 0x7F), (0, 0x80), (0, 0xFF80), (1, 0x8000), (1, 0x7FFF), (30, A | (1 << 247)),
                   (30, A & ~(1 << 247)), (31, MIN), (32, 0xFF), (MAX, 0xFF), (7, 1 << 63), (8, 0xFF << 64)],
    "LT": [(1, 2), (2, 1), (2, 2), (MAX, 0), (0, MAX), (1 << 64, 1 << 128)],
    "GT": [(1, 2), (2, 1), (2, 2), (MAX, 0), (1 << 128, (1 << 128) - 1)],
    "SLT": [(-1, 0), (0, -1), (MIN, MIN - 1), (MIN - 1, MIN), (-2, -1), (3, 3)],
    "SGT": [(-1, 0), (0, -1), (MIN, MIN - 1), (MIN - 1, MIN), (-1, -2), (3, 3)],
    "EQ": [(A, A), (A, A ^ (1 << 200)), (0, 0)],
    "ISZERO": [(0,), (1,), (1 << 255,)],
    "AND": [(A, B), (MAX, A)],
    "OR": [(A, B), (0, A)],
    "XOR": [(A, B), (A, A)],
    "NOT": [(0,), (A,), (MAX,)],
    "BYTE": [(0, A), (31, A), (15, A), (16, A), (32, A), (1 << 64, A), (MAX, A), (8, MAX)],
    "SHL": [(0, A), (1, A), (63, A), (64, A), (65, A), (255, A), (256, A), (MAX, A), (1 << 64, A), (128, A)],
    "SHR": [(0, A), (1, A), (63, A), (64, A), (65, A), (255, MAX), (256, MAX), (MAX, A), (1 << 64, A), (192, A)],
    "SAR": [(0, -8), (1, -8), (1, 8), (255, MIN), (256, MIN), (256, MIN - 1), (MAX, -1), (1 << 64, -5), (64, MIN),
            (4, A), (63, -(1 << 200)), (192, MIN + A)],
}

for op, model in MODELS.items():
    for operands in OPERANDS[op]:
        words = [x % WORD for x in operands]
        answer = model(*words) % WORD
        returns("%s(%s) = %s" % (op, ", ".join(short(x) for x in words), short(answer)),
                push_all(words) + " " + op, answer)

BASIC_GAS = {"ADD": 3, "MUL": 5, "SUB": 3, "DIV": 5, "SDIV": 5, "MOD": 5, "SMOD": 5, "ADDMOD": 8, "MULMOD": 8,
             "SIGNEXTEND": 5, "LT": 3, "GT": 3, "SLT": 3, "SGT": 3, "EQ": 3, "ISZERO": 3, "AND": 3, "OR": 3, "XOR": 3,
             "NOT": 3, "BYTE": 3, "SHL": 3, "SHR": 3, "SAR": 3}
for op, gas in BASIC_GAS.items():
    arity = len(OPERANDS[op][0])
    costs("%s costs %d gas" % (op, gas), push_all([1] * arity) + " " + op, 3 * arity + gas)
    fails("%s with %d operand(s) missing underflows" % (op, 1), "PUSH0 " * (arity - 1) + op, "stack_underflow")

for exponent in (0, 1, 255, 256, 65535, 65536, 1 << 248, MAX):
    size = (exponent.bit_length() + 7) // 8
    push = 2 if exponent == 0 else 3
    costs("EXP with an exponent of %d byte(s) costs 10 + 50 * %d (%s)" % (size, size, short(exponent)),
          "PUSH %d PUSH 3 EXP" % exponent, push + 3 + 10 + 50 * size)

# ---- Keccak-256 ----

for size in (0, 1, 31, 32, 33, 64, 135, 136, 137, 200, 272, 273):
    data = bytes((7 * i + size) % 256 for i in range(size))
    returns("KECCAK256 of %d bytes" % size,
            "PUSH %d PUSH0 PUSH0 CALLDATACOPY PUSH %d PUSH0 KECCAK256" % (size, size),
            int.from_bytes(keccak256(data), "big"), input=data)
returns("KECCAK256 of nothing is the published constant", "PUSH0 PUSH0 KECCAK256",
        0xC5D2460186F7233C927E7DB2DCC703C0E500B653CA82273B7BFAD8045D85A470)
costs("KECCAK256 of nothing at a huge offset expands no memory", "PUSH0 PUSH32 0x%064x KECCAK256" % MAX, 2 + 3 + 30)
costs("KECCAK256 of 33 bytes costs 30 + 2 * 6 and two words of memory", "PUSH 33 PUSH0 KECCAK256",
      3 + 2 + 30 + 12 + 6)
fails("KECCAK256 of 2^64 bytes runs out of gas", "PUSH 0x10000000000000000 PUSH0 KECCAK256", "out_of_gas")

# ---- memory ----


def memory_gas(size):
    words = (size + 31) // 32
    return 3 * words + words * words // 512


returns("MLOAD reads what MSTORE wrote", "PUSH %d PUSH 5 MSTORE PUSH 5 MLOAD" % A, A)
returns("MLOAD at an odd offset spans two words", "PUSH %d PUSH0 MSTORE PUSH 1 MLOAD" % A, A << 8)
returns("MLOAD of fresh memory is zero", "PUSH 1000 MLOAD", 0)
returns("MSTORE8 writes the lowest byte only", "PUSH 0x1234 PUSH 3 MSTORE8 PUSH0 MLOAD", 0x34 << 224)
returns("MSIZE is zero at the start", "MSIZE", 0)
returns("MSIZE rounds up to words", "PUSH 1 PUSH 32 MSTORE8 MSIZE", 64)
returns("MLOAD expands memory too", "PUSH 33 MLOAD POP MSIZE", 96)
for offset in (0, 1, 31, 32, 1000, 22 * 32, 23 * 32, 100000, 1000000):
    costs("MSTORE at %d costs 3 and the expansion to %d bytes" % (offset, offset + 32),
          "PUSH 1 PUSH4 %d MSTORE" % offset, 3 + 3 + 3 + memory_gas(offset + 32), gas=100000000)
costs("MSTORE8 at 31 expands one word", "PUSH 1 PUSH 31 MSTORE8", 9 + memory_gas(32))
costs("memory is paid for once", "PUSH 1 PUSH 64 MSTORE PUSH 1 PUSH 32 MSTORE PUSH 64 MLOAD",
      9 + memory_gas(96) + 9 + 6)
costs("memory grown in two steps costs what one step does", "PUSH 1 PUSH4 3200 MSTORE PUSH 1 PUSH4 64000 MSTORE",
      18 + memory_gas(64032))
fails("MSTORE at 2^256-1 runs out of gas", "PUSH 1 PUSH %d MSTORE" % MAX, "out_of_gas")
fails("MLOAD at 2^64-1 runs out of gas", "PUSH 0xffffffffffffffff MLOAD", "out_of_gas")
fails("MSTORE at 2^32 runs out of gas", "PUSH 1 PUSH 0x100000000 MSTORE", "out_of_gas", gas=10 ** 9)
fails("RETURN of 2^63 bytes runs out of gas", "PUSH 0x8000000000000000 PUSH0 RETURN", "out_of_gas")
fails("memory that costs one gas too much runs out of gas", "PUSH 1 PUSH4 1000 MSTORE", "out_of_gas",
      gas=9 + memory_gas(1032) - 1)
costs("memory that costs just the gas there is works", "PUSH 1 PUSH4 1000 MSTORE", 9 + memory_gas(1032),
      gas=9 + memory_gas(1032))

# ---- storage ----

returns("SLOAD of an unknown slot is zero", "PUSH 7 SLOAD", 0)
returns("SLOAD reads the given storage", "PUSH 7 SLOAD", A, storage={7: A})
costs("a cold SLOAD costs 2100", "PUSH 7 SLOAD", 3 + 2100)
costs("a second, warm SLOAD costs 100", "PUSH 7 SLOAD PUSH 7 SLOAD", 3 + 2100 + 3 + 100)
costs("warmth is per slot", "PUSH 7 SLOAD PUSH 8 SLOAD", 2 * (3 + 2100))
costs("SSTORE warms the slot for SLOAD", "PUSH 1 PUSH 7 SSTORE PUSH 7 SLOAD", 6 + 22100 + 3 + 100)
costs("SLOAD warms the slot for SSTORE", "PUSH 7 SLOAD PUSH 1 PUSH 7 SSTORE", 3 + 2100 + 6 + 20000)
vector("SSTORE is seen in the storage", "PUSH 5 PUSH 1 SSTORE PUSH %d PUSH %d SSTORE" % (A, MAX),
       {"status": "success", "storage": {1: 5, MAX: A}})
vector("a slot set to zero is gone", "PUSH0 PUSH 1 SSTORE", {"status": "success", "storage": {2: 2}, "refund": 4800},
       storage={1: 5, 2: 2})

# The test table of EIP-3529 (gas used and refund, with the slot warm; here it is cold: 2100 more).
EIP_3529 = [
    (0, (0, 0), 212, 0), (0, (0, 1), 20112, 0), (0, (1, 0), 20112, 19900), (0, (1, 2), 20112, 0),
    (0, (1, 1), 20112, 0), (1, (0, 0), 3012, 4800), (1, (0, 1), 3012, 2800), (1, (0, 2), 3012, 0),
    (1, (2, 0), 3012, 4800), (1, (2, 3), 3012, 0), (1, (2, 1), 3012, 2800), (1, (2, 2), 3012, 0),
    (1, (1, 0), 3012, 4800), (1, (1, 2), 3012, 0), (1, (1, 1), 212, 0), (0, (1, 0, 1), 40118, 19900),
    (1, (0, 1, 0), 5918, 7600),
]
for original, writes, gas, refund in EIP_3529:
    vector("EIP-3529: slot %d, then SSTORE %s: %d gas and refund %d" % (original, ", ".join(map(str, writes)),
                                                                       gas + 2100, refund),
           " ".join("PUSH1 %d PUSH1 0 SSTORE" % w for w in writes),
           {"status": "success", "gas_used": gas + 2100, "refund": refund,
            "storage": {0: writes[-1]} if writes[-1] else {}},
           storage={0: original} if original else {})
fails("SSTORE with exactly the stipend of 2300 left fails", "PUSH1 7 SLOAD PUSH1 7 SSTORE", "out_of_gas",
      gas=3 + 2100 + 3 + 2300)
vector("SSTORE with one gas more than the stipend works", "PUSH1 7 SLOAD PUSH1 7 SSTORE",
       {"status": "success", "gas_left": 2301 - 100}, gas=3 + 2100 + 3 + 2301)
vector("REVERT undoes storage and keeps gas and output",
       "PUSH 9 PUSH 1 SSTORE PUSH 9 PUSH 2 SSTORE PUSH %d PUSH0 MSTORE PUSH 32 PUSH0 REVERT" % A,
       {"status": "revert", "output": "0x%064x" % A, "storage": {1: 4}, "refund": 0,
        "gas_left": 1000000 - (6 + 2900 + 2100) - (6 + 22100) - 5 - 6 - 5}, storage={1: 4})
fails("running out of gas undoes storage and logs",
      "PUSH 9 PUSH 1 SSTORE PUSH0 PUSH0 LOG0 loop: PUSH @loop JUMP", "out_of_gas", storage={1: 4})
vector("REVERT drops logs", "PUSH0 PUSH0 LOG0 PUSH0 PUSH0 REVERT", {"status": "revert", "logs": []})

# ---- flow ----

returns("JUMP skips to the JUMPDEST", "PUSH 1 PUSH @end JUMP POP PUSH 2 end:", 1)
returns("JUMPI with zero goes on", "PUSH0 PUSH @other JUMPI PUSH 1 PUSH @end JUMP other: PUSH 2 end:", 1)
returns("JUMPI with any nonzero word jumps",
        "PUSH %d PUSH @other JUMPI PUSH 1 PUSH @end JUMP other: PUSH 2 end:" % (1 << 255), 2)
returns("JUMPI with zero ignores a bad destination", "PUSH0 PUSH %d JUMPI PUSH 1" % MAX, 1)
returns("PC is the position of the opcode", "PUSH0 POP PC", 2)
returns("GAS is what is left after itself", "PUSH0 GAS", 1000000 - 4)
costs("JUMP costs 8, JUMPDEST 1", "PUSH @end JUMP end:", 3 + 8 + 1)
costs("JUMPI costs 10", "PUSH 1 PUSH @end JUMPI end:", 3 + 3 + 10 + 1)
costs("an empty program succeeds", b"", 0)
costs("running off the end of the code is STOP", "PUSH 1", 3)
costs("STOP stops", "STOP PUSH 1 PUSH 2", 0)
fails("JUMP to a byte that is no JUMPDEST", "PUSH 0 JUMP", "bad_jump")
fails("JUMP to a 0x5b inside a PUSH operand", bytes.fromhex("600456605b00"), "bad_jump")
fails("JUMP to a 0x5b inside a PUSH32 operand", bytes.fromhex("600a567f" + "5b" * 32 + "00"), "bad_jump")
costs("JUMP to the JUMPDEST right after a PUSH32 operand", bytes.fromhex("602456" + "7f" + "5b" * 32 + "5b00"), 12)
fails("JUMP to a 0x5b in a PUSH operand cut off by the end", bytes.fromhex("600456615b"), "bad_jump")
fails("JUMP beyond the code", "PUSH 100 JUMP", "bad_jump")
fails("JUMP to the code's length", bytes.fromhex("600356"), "bad_jump")
fails("JUMP to 2^64 + a valid position", "PUSH 0x1000000000000000c JUMP JUMPDEST JUMPDEST JUMPDEST", "bad_jump")
fails("JUMP to 2^256-1", "PUSH %d JUMP" % MAX, "bad_jump")
fails("JUMPI to a bad destination", "PUSH 1 PUSH 1 JUMPI", "bad_jump")
fails("JUMP without an operand", "JUMP", "stack_underflow")
fails("INVALID consumes all gas", "INVALID", "invalid_opcode")
for byte in (0x0C, 0x0F, 0x1E, 0x1F, 0x21, 0x2F, 0x49, 0x4A, 0x4F, 0x5C, 0x5D, 0x5E, 0xA5, 0xB0, 0xEF, 0xF6, 0xFB, 0xFC):
    fails("byte 0x%02x is no Shanghai opcode" % byte, bytes([0x5F] * 8 + [byte]), "invalid_opcode")
for name in ("CREATE", "CALL", "CALLCODE", "DELEGATECALL", "CREATE2", "STATICCALL", "SELFDESTRUCT", "EXTCODESIZE",
             "EXTCODECOPY", "EXTCODEHASH"):
    fails("%s halts as unsupported" % name, "PUSH0 " * 8 + name, "unsupported")
fails("BALANCE of another account halts as unsupported", "PUSH 1 BALANCE", "unsupported")
fails("an infinite loop runs out of gas", "loop: PUSH @loop JUMP", "out_of_gas")
fails("one gas too little", "PUSH 1 PUSH 2 ADD", "out_of_gas", gas=8)
costs("exactly enough gas", "PUSH 1 PUSH 2 ADD", 9, gas=9)
fails("no gas at all", "PUSH 1", "out_of_gas", gas=0)

# ---- stack ----

for n in range(33):
    operand = bytes(range(1, n + 1))
    returns("PUSH%d pushes its %d byte(s)" % (n, n), "PUSH%d%s" % (n, " 0x" + operand.hex() if n else ""),
            int.from_bytes(operand, "big"))
for n in range(1, 17):
    stack = list(range(100, 117))  # 116 on top
    returns("DUP%d copies element %d" % (n, n), push_all(list(reversed(stack))) + " DUP%d" % n, stack[-n])
    returns("SWAP%d brings up element %d" % (n, n + 1), push_all(list(reversed(stack))) + " SWAP%d" % n, stack[-n - 1])
    returns("SWAP%d puts the top below" % n,
            push_all(list(reversed(stack))) + " SWAP%d " % n + "POP " * n, stack[-1])
    fails("DUP%d on %d elements underflows" % (n, n - 1), "PUSH0 " * (n - 1) + "DUP%d" % n, "stack_underflow")
    fails("SWAP%d on %d elements underflows" % (n, n), "PUSH0 " * n + "SWAP%d" % n, "stack_underflow")
costs("PUSH0 costs 2", "PUSH0", 2)
costs("DUP, SWAP and POP cost 3, 3 and 2", "PUSH0 DUP1 SWAP1 POP", 2 + 3 + 3 + 2)
costs("1024 elements fit on the stack", "PUSH0 " * 1024, 2048)
fails("the 1025th element overflows", "PUSH0 " * 1025, "stack_overflow")
fails("DUP1 on a full stack overflows", "PUSH0 " * 1024 + "DUP1", "stack_overflow")
fails("PC on a full stack overflows", "PUSH0 " * 1024 + "PC", "stack_overflow")
costs("SWAP16 on a full stack works", "PUSH0 " * 1024 + "SWAP16", 2051)
fails("POP of an empty stack underflows", "POP", "stack_underflow")
costs("PUSH2 with one byte before the end", bytes.fromhex("61ff"), 3)
costs("PUSH32 as the last byte", bytes.fromhex("7f"), 3)
costs("PUSH1 as the last byte", bytes.fromhex("60"), 3)

# ---- environment ----

returns("ADDRESS", "ADDRESS", ADDRESS)
returns("ORIGIN", "ORIGIN", CALLER)
returns("CALLER", "CALLER", CALLER)
returns("CALLER as given", "CALLER", (1 << 160) - 2, caller=(1 << 160) - 2)
returns("CALLVALUE", "CALLVALUE", A, value=A)
returns("SELFBALANCE", "SELFBALANCE", BALANCE)
returns("BALANCE of itself", "ADDRESS BALANCE", B, balance=B)
returns("BALANCE ignores the upper 12 bytes", "PUSH %d BALANCE" % ((0xFF << 160) | ADDRESS), BALANCE)
costs("BALANCE of itself is warm: 100", "ADDRESS BALANCE", 2 + 100)
costs("SELFBALANCE costs 5", "SELFBALANCE", 5)
returns("GASPRICE", "GASPRICE", 10 * 10 ** 9)
returns("COINBASE", "COINBASE", COINBASE)
returns("TIMESTAMP", "TIMESTAMP", TIMESTAMP)
returns("NUMBER", "NUMBER", NUMBER)
returns("NUMBER as given", "NUMBER", 123456789, number=123456789)
returns("PREVRANDAO", "PREVRANDAO", RANDAO)
returns("GASLIMIT", "GASLIMIT", 30000000)
returns("CHAINID", "CHAINID", 1)
returns("BASEFEE", "BASEFEE", 7 * 10 ** 9)
for name in ("ADDRESS", "ORIGIN", "CALLER", "CALLVALUE", "CALLDATASIZE", "CODESIZE", "GASPRICE", "COINBASE",
             "TIMESTAMP", "NUMBER", "PREVRANDAO", "GASLIMIT", "CHAINID", "BASEFEE", "RETURNDATASIZE", "PC", "MSIZE",
             "GAS"):
    costs("%s costs 2" % name, name, 2)


def block_hash(n):
    return int.from_bytes(keccak256(n.to_bytes(32, "big")), "big")


returns("BLOCKHASH of the parent", "PUSH 999 BLOCKHASH", block_hash(999))
returns("BLOCKHASH of the 256th ancestor", "PUSH 744 BLOCKHASH", block_hash(744))
returns("BLOCKHASH of the 257th ancestor is zero", "PUSH 743 BLOCKHASH", 0)
returns("BLOCKHASH of the block itself is zero", "PUSH 1000 BLOCKHASH", 0)
returns("BLOCKHASH of 2^64 + 999 is zero", "PUSH %d BLOCKHASH" % ((1 << 64) + 999), 0)
costs("BLOCKHASH costs 20", "PUSH 999 BLOCKHASH", 3 + 20)

DATA = bytes(range(1, 41))
returns("CALLDATASIZE", "CALLDATASIZE", 40, input=DATA)
returns("CALLDATASIZE without data", "CALLDATASIZE", 0)
returns("CALLDATALOAD at 0", "PUSH0 CALLDATALOAD", int.from_bytes(DATA[:32], "big"), input=DATA)
returns("CALLDATALOAD at 8 takes the last whole word", "PUSH 8 CALLDATALOAD", int.from_bytes(DATA[8:], "big"), input=DATA)
returns("CALLDATALOAD across the end is padded with zeros", "PUSH 30 CALLDATALOAD",
        int.from_bytes(DATA[30:] + bytes(22), "big"), input=DATA)
returns("CALLDATALOAD of the last byte", "PUSH 39 CALLDATALOAD", 40 << 248, input=DATA)
returns("CALLDATALOAD at the end is zero", "PUSH 40 CALLDATALOAD", 0, input=DATA)
returns("CALLDATALOAD at 2^64 is zero", "PUSH 0x10000000000000000 CALLDATALOAD", 0, input=DATA)
returns("CALLDATALOAD at 2^256-1 is zero", "PUSH %d CALLDATALOAD" % MAX, 0, input=DATA)
returns("CALLDATACOPY copies and pads", "PUSH 32 PUSH 20 PUSH0 CALLDATACOPY PUSH0 MLOAD",
        int.from_bytes(DATA[20:] + bytes(12), "big"), input=DATA)
returns("CALLDATACOPY overwrites memory with the padding",
        "PUSH %d PUSH0 MSTORE PUSH 32 PUSH %d PUSH0 CALLDATACOPY PUSH0 MLOAD" % (A, MAX), 0, input=DATA)
costs("CALLDATACOPY of 33 bytes costs 3 + 2 * 3 and memory", "PUSH 33 PUSH0 PUSH0 CALLDATACOPY", 7 + 3 + 6 + 6)
costs("CALLDATACOPY of nothing to 2^256-1 costs 3", "PUSH0 PUSH0 PUSH %d CALLDATACOPY" % MAX, 7 + 3)
fails("CALLDATACOPY of 2^255 bytes runs out of gas", "PUSH %d PUSH0 PUSH0 CALLDATACOPY" % MIN, "out_of_gas")
returns("CODESIZE", "CODESIZE", 7)
returns("CODECOPY copies the code and pads", "PUSH 32 PUSH0 PUSH0 CODECOPY PUSH0 MLOAD",
        int.from_bytes(assemble("PUSH 32 PUSH0 PUSH0 CODECOPY PUSH0 MLOAD PUSH0 MSTORE PUSH 32 PUSH0 RETURN")
                       .ljust(32, b"\0")[:32], "big"))
returns("CODECOPY beyond the code gives zeros", "PUSH 32 PUSH 0xffffffffffffffffff PUSH0 CODECOPY PUSH0 MLOAD", 0)
costs("CODECOPY of 64 bytes costs 3 + 2 * 3 and memory", "PUSH 64 PUSH0 PUSH0 CODECOPY", 7 + 3 + 6 + 6)
returns("RETURNDATASIZE is zero without calls", "RETURNDATASIZE", 0)
costs("RETURNDATACOPY of nothing at 0 works", "PUSH0 PUSH0 PUSH0 RETURNDATACOPY", 6 + 3)
fails("RETURNDATACOPY of one byte is out of bounds", "PUSH 1 PUSH0 PUSH0 RETURNDATACOPY", "return_data_out_of_bounds")
fails("RETURNDATACOPY of nothing at 1 is out of bounds", "PUSH0 PUSH 1 PUSH0 RETURNDATACOPY",
      "return_data_out_of_bounds")

# ---- logs, return ----

for n in range(5):
    vector("LOG%d keeps %d topic(s) in order and the data" % (n, n),
           "PUSH 0x1122334455 PUSH0 MSTORE " + " ".join("PUSH %d" % (0xA0 + i) for i in reversed(range(n))) +
           " PUSH 5 PUSH 27 LOG%d" % n,
           {"status": "success", "logs": [{"address": "0x%040x" % ADDRESS, "data": "0x1122334455",
                                           "topics": ["0x%064x" % (0xA0 + i) for i in range(n)]}],
            "gas_used": 3 + 2 + 3 + 3 + 3 * n + 6 + 375 * (n + 1) + 8 * 5})
    fails("LOG%d with an operand missing underflows" % n, "PUSH0 " * (n + 1) + "LOG%d" % n, "stack_underflow")
vector("logs keep their order", "PUSH 1 PUSH0 PUSH0 LOG1 PUSH 2 PUSH0 PUSH0 LOG1",
       {"logs": [{"address": "0x%040x" % ADDRESS, "data": "0x", "topics": ["0x%064x" % i]} for i in (1, 2)]})
vector("RETURN of nothing", "PUSH0 PUSH0 RETURN", {"status": "success", "output": "0x", "gas_used": 4})
vector("RETURN of part of a word", "PUSH %d PUSH0 MSTORE PUSH 3 PUSH 1 RETURN" % A,
       {"status": "success", "output": "0x345678"})
vector("RETURN of fresh memory gives zeros and pays for it", "PUSH 40 PUSH 10 RETURN",
       {"status": "success", "output": "0x" + "00" * 40, "gas_used": 6 + memory_gas(50)})
vector("RETURN of nothing at 2^256-1 costs nothing", "PUSH0 PUSH %d RETURN" % MAX, {"status": "success", "gas_used": 5})
vector("REVERT of nothing", "PUSH0 PUSH0 REVERT", {"status": "revert", "output": "0x", "gas_used": 4})
fails("REVERT with an operand missing underflows", "PUSH0 REVERT", "stack_underflow")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    report = Report()
    check_keccak(report)
    for v in VECTORS:
        try:
            result = run_case(sys.argv[1], v)
        except Exception as error:  # a crash or broken JSON fails this vector only
            report.check(v["name"], False, error)
            continue
        got = {field: result.get(field) for field in v["expect"]}
        report.equal(v["name"], got, v["expect"])
    report.check("at least 150 vectors were run", len(VECTORS) >= 150, len(VECTORS))
    report.exit()


if __name__ == "__main__":
    main()
