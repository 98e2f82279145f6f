"""programs.py - seeded random EVM programs for ../differential.py.

Three kinds: mostly well-formed programs whose operands hit the edges of each opcode, storage programs
that write few slots again and again, and plain random bytes.
"""
import random

WORD = 1 << 256
EDGES = [0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 257, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 32,
         (1 << 63), (1 << 64) - 1, 1 << 64, (1 << 64) + 1, (1 << 127), (1 << 128) - 1, 1 << 128, (1 << 192) - 1,
         1 << 192, (1 << 255) - 1, 1 << 255, (1 << 255) + 1, WORD - 1, WORD - 2, WORD - 32, WORD - (1 << 64)]

ARITHMETIC = {0x01: 2, 0x02: 2, 0x03: 2, 0x04: 2, 0x05: 2, 0x06: 2, 0x07: 2, 0x08: 3, 0x09: 3, 0x0A: 2, 0x0B: 2,
              0x10: 2, 0x11: 2, 0x12: 2, 0x13: 2, 0x14: 2, 0x15: 1, 0x16: 2, 0x17: 2, 0x18: 2, 0x19: 1, 0x1A: 2,
              0x1B: 2, 0x1C: 2, 0x1D: 2}
ENVIRONMENT = [0x30, 0x32, 0x33, 0x34, 0x36, 0x38, 0x3A, 0x3D, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x58,
               0x59, 0x5A]


class Program:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.code = bytearray()
        self.depth = 0  # as far as known: jumps make it a guess
        self.targets = []  # positions of PUSH2 operands waiting for a forward label

    def word(self):
        r = self.random
        kind = r.randrange(6)
        if kind < 2:
            return r.choice(EDGES)
        if kind == 2:
            return r.getrandbits(256)
        if kind == 3:
            return r.getrandbits(r.randrange(1, 257))
        if kind == 4:
            return (WORD - 1) ^ r.getrandbits(r.randrange(1, 257))
        # limbs of all zeros and all ones provoke the rare steps of long division
        return int.from_bytes(b"".join(r.choice([b"\0" * 8, b"\xff" * 8, b"\x80" + b"\0" * 7, r.getrandbits(64).to_bytes(8, "big")])
                                       for _ in range(4)), "big")

    def push(self, value, width=None):
        shortest = (value.bit_length() + 7) // 8
        if width is None:
            width = shortest if self.random.random() < 0.9 else self.random.randrange(shortest, 33)
        self.code.append(0x5F + width)
        self.code += value.to_bytes(width, "big")
        self.depth += 1

    def op(self, byte, takes, gives):
        self.code.append(byte)
        self.depth += gives - takes

    def offset(self):
        r = self.random
        return r.randrange(0, 300) if r.random() < 0.985 else self.word()

    def size(self):
        r = self.random
        return r.choice([0, 1, 31, 32, 33, 64, r.randrange(0, 300)]) if r.random() < 0.985 else self.word()

    def small_word(self):
        return self.random.choice([0, 0, 1, 2, 3, self.word()])

    def arithmetic(self):
        byte = self.random.choice(list(ARITHMETIC))
        takes = ARITHMETIC[byte]
        for i in range(takes):
            last = i == takes - 1  # the top: shift, byte index, sign extension index
            if last and byte in (0x0B, 0x1A, 0x1B, 0x1C, 0x1D) and self.random.random() < 0.7:
                self.push(self.random.randrange(0, 300))
            elif self.depth < takes or self.random.random() < 0.7:
                self.push(self.word())
        self.op(byte, takes, 1)

    def memory(self):
        r = self.random
        kind = r.randrange(8)
        if kind == 0:
            self.push(self.offset())
            self.op(0x51, 1, 1)
        elif kind in (1, 2):
            self.push(self.word())
            self.push(self.offset())
            self.op(0x52 + kind - 1, 2, 0)
        elif kind == 3:
            self.push(self.size())
            self.push(self.offset())
            self.op(0x20, 2, 1)
        elif kind in (4, 5, 6):
            self.push(self.size())
            self.push(self.offset())
            self.push(self.offset())
            self.op(0x37 if kind < 6 else 0x39, 3, 0)
        else:
            topics = r.randrange(5)
            for _ in range(topics):
                self.push(self.word())
            self.push(self.size())
            self.push(self.offset())
            self.op(0xA0 + topics, 2 + topics, 0)

    def storage(self):
        if self.random.random() < 0.7:
            self.push(self.small_word())
            self.push(self.random.choice([0, 1, 2, WORD - 1]))
            self.op(0x55, 2, 0)
        else:
            self.push(self.random.choice([0, 1, 2, WORD - 1, 5]))
            self.op(0x54, 1, 1)

    def environment(self):
        r = self.random
        kind = r.randrange(5)
        if kind == 0:
            self.push(self.offset())
            self.op(0x35, 1, 1)
        elif kind == 1:
            self.push(r.choice([0, 1, 500, 743, 744, 999, 1000, 1001, self.word()]))
            self.op(0x40, 1, 1)
        elif kind == 2:
            self.op(0x30, 0, 1)
            self.op(0x31, 1, 1)
        else:
            self.op(r.choice(ENVIRONMENT), 0, 1)

    def stack(self):
        r = self.random
        n = r.randrange(1, 17)
        if r.random() < 0.97:
            while self.depth < n + 1:
                self.push(self.word())
        if r.random() < 0.15 and self.depth > 1:
            self.op(0x50, 1, 0)
        elif r.random() < 0.5:
            self.op(0x7F + n, 0, 1)
        else:
            self.op(0x8F + n, 0, 0)

    def jump(self):
        r = self.random
        if r.random() < 0.03:
            self.push(r.choice([0, 1, len(self.code), self.word()]))
            self.op(0x56, 1, 0)
            return
        if r.random() < 0.8:
            self.push(r.choice([0, 1, self.word()]))
            self.code += b"\x61\0\0\x57"
            self.depth -= 1
            self.targets.append(len(self.code) - 3)
        else:
            self.code += b"\x61\0\0\x56"
            self.targets.append(len(self.code) - 3)
            self.code += bytes(r.choice([0x5B, 0x60, 0x7F, 0xFE, 0x00]) for _ in range(r.randrange(4)))
            # a wrong guess about PUSH data just makes the jump fail, on both sides

    def label(self):
        if not self.targets:
            return
        position = self.targets.pop(self.random.randrange(len(self.targets)))
        self.code[position:position + 2] = len(self.code).to_bytes(2, "big")
        self.code.append(0x5B)

    def loop(self, body):
        """body a few times: a counter is kept below what the body leaves, which is popped."""
        self.push(self.random.randrange(1, 6))
        start = len(self.code)
        self.code.append(0x5B)
        before = self.depth
        body()
        while self.depth > before:
            self.op(0x50, 1, 0)
        if self.depth < before:
            return
        self.code += b"\x60\x01\x90\x03\x80\x61" + start.to_bytes(2, "big") + b"\x57"  # counter - 1, again if not 0
        self.op(0x50, 1, 0)

    def finish(self):
        r = self.random
        while self.targets:
            self.label()
        kind = r.random()
        if kind < 0.1:
            return
        if kind < 0.15:
            self.code.append(r.choice([0x00, 0xFE, 0x60, 0x7F]))
            return
        for i in range(min(max(self.depth, 0), 12)):
            self.push(32 * i)
            self.op(0x52, 2, 0)
        self.push(self.size() if r.random() < 0.2 else 384)
        self.push(0)
        self.op(0xF3 if kind < 0.9 else 0xFD, 2, 0)


def make(seed):
    """One case, as evmlib.run_case and the oracle take it."""
    p = Program(seed)
    r = p.random
    kind = r.random()
    if kind < 0.08:
        p.code += bytes(r.randrange(256) for _ in range(r.randrange(1, 80)))
    elif kind < 0.25:
        for _ in range(r.randrange(1, 25)):
            p.storage()
        p.finish()
    else:
        parts = [p.arithmetic] * 8 + [p.memory] * 4 + [p.environment] * 2 + [p.stack] * 3 + [p.storage, p.jump, p.label]
        for _ in range(r.randrange(1, 40)):
            if r.random() < 0.05:
                p.loop(r.choice([p.arithmetic, p.memory, p.storage]))
            else:
                r.choice(parts)()
        p.finish()
    gas = r.choice([1000000, 1000000, 1000000, 100000, 30000, 5000, r.randrange(0, 3000), r.randrange(0, 60000)])
    case = {"name": "random program %d" % seed, "code": bytes(p.code), "gas": gas,
            "input": bytes(r.randrange(256) for _ in range(r.choice([0, 1, 4, 32, 68, r.randrange(200)]))),
            "storage": {}, "value": r.choice([0, 0, 1, r.getrandbits(256)])}
    for key in (0, 1, 2, WORD - 1):
        if r.random() < 0.4:
            case["storage"][key] = r.choice([1, 2, 3, r.getrandbits(256) | 1])
    return case
