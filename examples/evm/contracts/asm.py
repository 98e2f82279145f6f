#!/usr/bin/env python3
"""asm.py - a small EVM assembler for the contracts of the EVM example.

    python3 examples/evm/contracts/asm.py            write contracts.h from every *.evmasm beside this file
    python3 examples/evm/contracts/asm.py --check    fail when contracts.h is not what the sources give
    python3 examples/evm/contracts/asm.py FILE       print one source's bytecode as hex

Python 3.8 or later, standard library only.

Source language: words separated by blanks, as many to a line as you like.

    ; comment                     to the end of the line
    ADD                           a mnemonic of the Shanghai fork
    PUSH 1000                     the shortest PUSH that holds the value (PUSH0 for zero)
    PUSH20 0xff                   exactly that PUSH, zeros in front
    PUSH @name                    the position of a label, always as PUSH2
    PUSH selector(f(uint256))     the first 4 bytes of the signature's Keccak-256, as PUSH4
    PUSH keccak(text)             the Keccak-256 of the text, as PUSH32
    PUSH $NAME                    a constant, the shortest PUSH
    name:                         a label; assembles to JUMPDEST
    .const NAME value             defines a constant
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

# ---- Keccak-256 (also used by the tests as the independent implementation) ----

_MASK = (1 << 64) - 1


def _rotl(v, n):
    return ((v << n) | (v >> (64 - n))) & _MASK if n else v


def _constants():
    """Rotation offsets and round constants, computed as the Keccak reference defines them."""
    rotation = [[0] * 5 for _ in range(5)]
    x, y = 1, 0
    for t in range(24):
        rotation[x][y] = (t + 1) * (t + 2) // 2 % 64
        x, y = y, (2 * x + 3 * y) % 5
    rounds, lfsr = [], 1
    for _ in range(24):
        value = 0
        for j in range(7):
            if lfsr & 1:
                value |= 1 << ((1 << j) - 1)
            lfsr = ((lfsr << 1) ^ (0x171 if lfsr & 0x80 else 0)) & 0xFF
        rounds.append(value)
    return rotation, rounds


_ROTATION, _ROUNDS = _constants()


def _keccak_f(a):
    for constant in _ROUNDS:
        c = [a[x][0] ^ a[x][1] ^ a[x][2] ^ a[x][3] ^ a[x][4] for x in range(5)]
        d = [c[x - 1] ^ _rotl(c[(x + 1) % 5], 1) for x in range(5)]
        b = [[0] * 5 for _ in range(5)]
        for x in range(5):
            for y in range(5):
                b[y][(2 * x + 3 * y) % 5] = _rotl(a[x][y] ^ d[x], _ROTATION[x][y])
        a = [[b[x][y] ^ (~b[(x + 1) % 5][y] & _MASK & b[(x + 2) % 5][y]) for y in range(5)] for x in range(5)]
        a[0][0] ^= constant
    return a


def keccak256(data, padding=0x01):
    """Keccak-256 as Ethereum uses it; padding=0x06 gives NIST's SHA3-256."""
    rate = 136
    data = bytearray(data) + bytearray([padding])
    data += bytes(-len(data) % rate)
    data[-1] |= 0x80
    a = [[0] * 5 for _ in range(5)]
    for start in range(0, len(data), rate):
        for i in range(rate // 8):
            a[i % 5][i // 5] ^= int.from_bytes(data[start + 8 * i:start + 8 * i + 8], "little")
        a = _keccak_f(a)
    return b"".join(a[i][0].to_bytes(8, "little") for i in range(4))


# ---- opcodes ----

OPCODES = {}


def _define(first, names):
    for i, name in enumerate(names.split()):
        OPCODES[name] = first + i


_define(0x00, "STOP ADD MUL SUB DIV SDIV MOD SMOD ADDMOD MULMOD EXP SIGNEXTEND")
_define(0x10, "LT GT SLT SGT EQ ISZERO AND OR XOR NOT BYTE SHL SHR SAR")
_define(0x20, "KECCAK256")
_define(0x30, "ADDRESS BALANCE ORIGIN CALLER CALLVALUE CALLDATALOAD CALLDATASIZE CALLDATACOPY CODESIZE CODECOPY "
              "GASPRICE EXTCODESIZE EXTCODECOPY RETURNDATASIZE RETURNDATACOPY EXTCODEHASH")
_define(0x40, "BLOCKHASH COINBASE TIMESTAMP NUMBER PREVRANDAO GASLIMIT CHAINID SELFBALANCE BASEFEE")
_define(0x50, "POP MLOAD MSTORE MSTORE8 SLOAD SSTORE JUMP JUMPI PC MSIZE GAS JUMPDEST")
_define(0x5f, " ".join("PUSH%d" % n for n in range(33)))
_define(0x80, " ".join("DUP%d" % n for n in range(1, 17)))
_define(0x90, " ".join("SWAP%d" % n for n in range(1, 17)))
_define(0xa0, "LOG0 LOG1 LOG2 LOG3 LOG4")
_define(0xf0, "CREATE CALL CALLCODE RETURN DELEGATECALL CREATE2")
_define(0xfa, "STATICCALL")
_define(0xfd, "REVERT INVALID SELFDESTRUCT")


class AsmError(Exception):
    pass


def assemble(text, name="<text>"):
    """The bytecode of a source text."""
    constants, labels, references = {}, {}, []
    code = bytearray()

    def push(value, width=None):
        shortest = (value.bit_length() + 7) // 8
        width = shortest if width is None else width
        if value < 0 or width > 32 or shortest > width:
            raise AsmError("%d does not fit in PUSH%d" % (value, width))
        code.append(0x5f + width)
        code.extend(value.to_bytes(width, "big"))

    for number, line in enumerate(text.split("\n"), 1):
        words = line.split(";", 1)[0].split()
        try:
            while words:
                word = words.pop(0)
                if word == ".const":
                    constant = words.pop(0)
                    constants[constant] = int(words.pop(0), 0)
                elif word.endswith(":"):
                    if word[:-1] in labels:
                        raise AsmError("label %s defined twice" % word[:-1])
                    labels[word[:-1]] = len(code)
                    code.append(OPCODES["JUMPDEST"])
                elif word.startswith("PUSH") and word != "PUSH0":
                    operand = words.pop(0)
                    width = int(word[4:]) if word[4:] else None
                    if operand.startswith("@"):
                        code.append(OPCODES["PUSH2"])
                        references.append((len(code), operand[1:], number))
                        code.extend(b"\0\0")
                    elif operand.startswith("selector(") and operand.endswith(")"):
                        push(int.from_bytes(keccak256(operand[9:-1].encode())[:4], "big"), 4)
                    elif operand.startswith("keccak(") and operand.endswith(")"):
                        push(int.from_bytes(keccak256(operand[7:-1].encode()), "big"), 32)
                    elif operand.startswith("$"):
                        push(constants[operand[1:]], width)
                    else:
                        push(int(operand, 0), width)
                else:
                    code.append(OPCODES[word])
        except (AsmError, IndexError, KeyError, ValueError) as error:
            raise AsmError("%s:%d: %s: %s" % (name, number, type(error).__name__, error))
    for position, label, number in references:
        if label not in labels:
            raise AsmError("%s:%d: no label %s" % (name, number, label))
        code[position:position + 2] = labels[label].to_bytes(2, "big")
    return bytes(code)


def sources():
    """Contract name -> path, in the order of the generated header."""
    names = sorted(n[:-len(".evmasm")] for n in os.listdir(HERE) if n.endswith(".evmasm"))
    return [(n, os.path.join(HERE, n + ".evmasm")) for n in names]


def assemble_file(path):
    with open(path, encoding="utf-8") as file:
        return assemble(file.read(), os.path.basename(path))


def header():
    """The text of contracts.h."""
    out = ["// contracts.h - the bytecode of the *.evmasm sources beside it, for `evm gen`.",
           "// Generated by asm.py: do not edit; run python3 examples/evm/contracts/asm.py instead.",
           "#ifndef EVM_CONTRACTS_H", "#define EVM_CONTRACTS_H", "", "#include <stddef.h>", "#include <stdint.h>"]
    names = [name for name, _ in sources()]
    for name, path in sources():
        code = assemble_file(path)
        out += ["", "static const uint8_t contract_%s[%d] = {" % (name, len(code))]
        for start in range(0, len(code), 16):
            out.append("    " + ", ".join("0x%02x" % b for b in code[start:start + 16]) + ",")
        out.append("};")
    out += ["", "enum { " + ", ".join("CONTRACT_" + n.upper() for n in names) + ", CONTRACT_COUNT };", "",
            "static const struct {", "    const char *name;", "    const uint8_t *code;", "    size_t size;",
            "} contract_list[CONTRACT_COUNT] = {"]
    out += ['    {"%s", contract_%s, sizeof contract_%s},' % (n, n, n) for n in names]
    out += ["};", "", "#endif /* EVM_CONTRACTS_H */", ""]
    return "\n".join(out)


def main(arguments):
    target = os.path.join(HERE, "contracts.h")
    try:
        if arguments == ["--check"]:
            with open(target, encoding="utf-8") as file:
                if file.read() != header():
                    sys.stderr.write("contracts.h is not what the sources give: run asm.py\n")
                    return 1
        elif len(arguments) == 1 and not arguments[0].startswith("-"):
            print(assemble_file(arguments[0]).hex())
        elif not arguments:
            text = header()
            with open(target, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
        else:
            sys.stderr.write(__doc__)
            return 2
    except (AsmError, OSError) as error:
        sys.stderr.write("asm.py: %s\n" % error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
