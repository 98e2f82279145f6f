/* The unwinder of >>seh against machines simulated here: prologues, bodies and epilogues made at
   random, encoded by the documentation and executed one instruction at a time; each step back must
   give the registers at entry. Then corners by hand, damaged data, loops.
   seh_wine.c has the same for compiled programs.

   Run:   cc -g -O1 -I. tests/unit/seh.c -o seh -lpthread && ./seh
   Best with -fsanitize=address,undefined. CPROF_TEST_FUZZ: seconds to fuzz, 1 if not set. */
#include "unit.h"

static uint32_t below(uint32_t n) { return (uint32_t)(random_next() >> 16) % n; }

/* ---- an image, a stack, a machine ---- */

enum { CODE = 0x1000, XDATA = 0x4000, IMAGE = 0x6000, STACK = 3 << 20, NO_ENTRY = 0x3000 };

static const uint64_t base = 0x140000000, stack_lo = 0x7ff000000, return_address = 0x150001234;

static uint8_t image_bytes[IMAGE], pdata[512], memory[STACK];
static size_t pdata_size, xdata_at, code_at;
static cprofi_seh_part part;
static cprofi_seh_image image;
static uint64_t entry[32];    /* registers when the function was entered */
static uint64_t machine[32];
static const char *complaint; /* the first difference */
static unsigned long long verified;

static bool find(void *user, uint64_t address, cprofi_seh_image *out) {
    (void)user;
    if (address - base >= IMAGE) return false;
    *out = image;
    return true;
}

static const cprofi_seh_images images = {find, NULL};

static void put(uint8_t *to, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; i++) to[i] = (uint8_t)(value >> (8 * i));
}

static void store(uint64_t address, uint64_t value) { put(memory + (address - stack_lo), value, 8); }

static uint64_t load(uint64_t address) {
    uint64_t v;
    memcpy(&v, memory + (address - stack_lo), 8);
    return v;
}

static void reset(void) {
    memset(image_bytes, 0x90, sizeof image_bytes);
    pdata_size = 0;
    xdata_at = XDATA;
    code_at = CODE;
    part.bytes.data = image_bytes;
    part.bytes.size = sizeof image_bytes;
    part.rva = 0;
    image.base = base;
    image.pdata.data = pdata;
    image.pdata.size = 0;
    image.parts = &part;
    image.part_count = 1;
}

static void add_entry(uint32_t a, uint32_t b, uint32_t c, size_t size) {
    put(pdata + pdata_size, a, 4);
    put(pdata + pdata_size + 4, b, 4);
    if (size == 12) put(pdata + pdata_size + 8, c, 4);
    pdata_size += size;
    image.pdata.size = pdata_size;
}

static cprofi_seh_frame frame_at(uint64_t pc, bool exact) {
    cprofi_seh_frame f;
    memset(&f, 0, sizeof f);
    f.images = &images;
    f.stack.data = memory;
    f.stack.lo = stack_lo;
    f.stack.hi = stack_lo + STACK;
    memcpy(f.regs.r, machine, sizeof machine);
    f.regs.pc = pc;
    f.exact = exact;
    return f;
}

static void complain(const char *what, uint64_t got, uint64_t want) {
    static char text[200];
    if (complaint) return;
    snprintf(text, sizeof text, "%s is %llx, not %llx, after %llu steps", what,
             (unsigned long long)got, (unsigned long long)want, verified);
    complaint = text;
}

/* ---- x64 ---- */

static const uint8_t kept[8] = {3, 5, 6, 7, 12, 13, 14, 15};

static void verify_x64(const char *where, bool exact) {
    cprofi_seh_frame f = frame_at(base + code_at, exact);
    cprofi_seh_result result = cprofi_seh_x64_step(&f);
    verified++;
    if (result != CPROFI_SEH_FRAME) complain(where, (uint64_t)result, CPROFI_SEH_FRAME);
    if (f.regs.pc != return_address) complain(where, f.regs.pc, return_address);
    if (f.regs.r[4] != entry[4] + 8) complain(where, f.regs.r[4], entry[4] + 8);
    if (f.exact) complain(where, 1, 0);
    for (size_t i = 0; i < 8; i++)
        if (f.regs.r[kept[i]] != entry[kept[i]]) complain(where, f.regs.r[kept[i]], entry[kept[i]]);
}

typedef struct {
    uint8_t codes[256][2];
    size_t n; /* slots, in the order of the prologue; turned round when written */
    size_t starts[128], count;
} code_list;

static void add_code(code_list *l, uint32_t offset, unsigned op, unsigned operand, uint64_t number,
                     size_t slots) {
    l->starts[l->count++] = l->n;
    l->codes[l->n][0] = (uint8_t)offset;
    l->codes[l->n++][1] = (uint8_t)(op | operand << 4);
    for (size_t i = 0; i < slots; i++, number >>= 16) put(l->codes[l->n++], number & 0xffff, 2);
}

/* Writes an unwind info; returns its RVA. */
static uint32_t write_info(const code_list *l, unsigned version, unsigned flags, uint32_t prologue,
                           unsigned reg, unsigned offset, const uint8_t (*epilogues)[2],
                           size_t epilogue_count) {
    uint32_t rva = (uint32_t)xdata_at;
    uint8_t *p = image_bytes + rva;
    p[0] = (uint8_t)(version | flags << 3);
    p[1] = (uint8_t)prologue;
    p[2] = (uint8_t)(l->n + epilogue_count);
    p[3] = (uint8_t)(reg | offset << 4);
    p += 4;
    for (size_t i = 0; i < epilogue_count; i++, p += 2) memcpy(p, epilogues[i], 2);
    for (size_t i = l->count; i > 0; i--) {
        size_t end = i < l->count ? l->starts[i] : l->n;
        memcpy(p, l->codes[l->starts[i - 1]], 2 * (end - l->starts[i - 1]));
        p += 2 * (end - l->starts[i - 1]);
    }
    xdata_at = ((size_t)(p - image_bytes) + 3) & ~(size_t)3;
    return rva;
}

/* The state of the function being made: instructions are written and executed twice, first to know
   where they are, then, with the tables in place, to verify at each. */
static bool verifying;

static void at_boundary(const char *where) {
    if (!verifying) return;
    verify_x64(where, true);
}

static void code(const char *bytes, size_t n) {
    memcpy(image_bytes + code_at, bytes, n);
    code_at += n;
}

static void emit_pop(unsigned reg) {
    at_boundary("before a pop");
    if (reg >= 8) image_bytes[code_at++] = 0x41;
    image_bytes[code_at++] = (uint8_t)(0x58 | (reg & 7));
    machine[reg] = load(machine[4]);
    machine[4] += 8;
}

static void emit_end(unsigned kind, uint32_t other) {
    at_boundary("at the end of an epilogue");
    switch (kind) {
    case 0: code("\xc3", 1); break;
    case 1: code("\xf3\xc3", 2); break;
    case 2: code("\xc2\x10\x00", 3); break;
    case 3: code("\xf2\xc3", 2); break;
    case 4: code("\xe9", 1); put(image_bytes + code_at, other - (code_at + 4), 4), code_at += 4; break;
    case 5: code("\xff\x25\x10\x00\x00\x00", 6); break;
    case 6: code("\x48\xff\xe0", 3); break;
    case 7: code("\x49\xff\x63\x08", 4); break;
    case 8: code("\xe9", 1); put(image_bytes + code_at, NO_ENTRY - (code_at + 4), 4), code_at += 4; break;
    default:
        if (code_at + 2 - other > 128) { /* too far for a short one */
            code("\xc3", 1);
            break;
        }
        code("\xeb\x00", 2); image_bytes[code_at - 1] = (uint8_t)(other - code_at); break;
    }
}

typedef struct {
    unsigned version, pushes, push[8], saves, save[8], frame, frame_offset, junk, ends, end[2];
    uint32_t alloc, dynamic;
    bool chained, indirect, xmm, late /* the frame register is set behind the saves */, tail;
    uint32_t gap;
} shape;

static void set_frame(const shape *s, code_list *l, uint32_t begin) {
    at_boundary("before the frame register is set");
    code_at += 5;
    machine[s->frame] = machine[4] + 16 * s->frame_offset;
    add_code(l, (uint32_t)code_at - begin, 3, 0, 0, 0);
}

/* One function of a given shape. */
static void function_x64(const shape *s, bool verify) {
    code_list list = {{{0}}, 0, {0}, 0}, second = {{{0}}, 0, {0}, 0};
    uint8_t epilogues[6][2] = {{0}};
    uint32_t begin, prologue, middle, ends[2], sizes[2];
    code_list *l = &list;
    verifying = verify;
    code_at = CODE;
    memcpy(machine, entry, sizeof machine);
    store(machine[4], return_address);
    begin = (uint32_t)code_at;
    for (unsigned i = 0; i < s->pushes; i++) {
        at_boundary("before a push");
        code_at += s->push[i] >= 8 ? 2 : 1;
        machine[4] -= 8;
        store(machine[4], machine[s->push[i]]);
        add_code(l, (uint32_t)code_at - begin, 0, s->push[i], 0, 0);
    }
    if (s->junk == 1) add_code(l, (uint32_t)code_at - begin, 6, 3, 0x1234, s->version == 1 ? 1 : 0);
    if (s->junk == 2) add_code(l, (uint32_t)code_at - begin, 7, 3, 0x12345678, 2);
    if (s->alloc) {
        at_boundary("before the allocation");
        code_at += s->alloc < 128 ? 4 : 7;
        machine[4] -= s->alloc;
        uint32_t at = (uint32_t)code_at - begin;
        if (s->alloc <= 128) add_code(l, at, 2, s->alloc / 8 - 1, 0, 0);
        else if (s->alloc < 512 * 1024) add_code(l, at, 1, 0, s->alloc / 8, 1);
        else add_code(l, at, 1, 1, s->alloc, 2);
    }
    uint64_t bottom = machine[4];
    if (s->frame && !s->late) set_frame(s, l, begin);
    middle = (uint32_t)code_at;
    uint32_t origin = begin;
    if (s->chained) {
        l = &second;
        origin = middle;
    }
    for (unsigned i = 0; i < s->saves; i++) {
        at_boundary("before a register is saved");
        code_at += 5;
        uint32_t offset = 8 * i + (s->alloc > 600000 ? 540000 : 0);
        store(bottom + offset, machine[s->save[i]]);
        if (offset < 512 * 1024) add_code(l, (uint32_t)code_at - origin, 4, s->save[i], offset / 8, 1);
        else add_code(l, (uint32_t)code_at - origin, 5, s->save[i], offset, 2);
    }
    if (s->frame && s->late) set_frame(s, l, begin);
    if (s->xmm) {
        add_code(l, (uint32_t)code_at - origin, 8, 6, 2, 1);
        add_code(l, (uint32_t)code_at - origin, 9, 7, 0x20, 2);
    }
    prologue = (uint32_t)code_at - origin;
    at_boundary("behind the prologue");
    for (unsigned i = 0; i < s->pushes; i++)
        if (s->push[i] != s->frame) machine[s->push[i]] = random_next();
    for (unsigned i = 0; i < s->saves; i++) machine[s->save[i]] = random_next();
    if (s->frame) machine[4] -= s->dynamic;
    code_at += 8;
    uint64_t body[32];
    memcpy(body, machine, sizeof body);
    for (unsigned e = 0; e < s->ends; e++) {
        memcpy(machine, body, sizeof body);
        at_boundary("in the body");
        if (verifying) verify_x64("at a return address", false);
        for (unsigned i = 0; i < s->saves; i++) machine[s->save[i]] = load(bottom + 8 * i +
                                                         (s->alloc > 600000 ? 540000 : 0));
        at_boundary("behind the loads");
        if (s->frame) {
            uint32_t distance = s->alloc - 16 * s->frame_offset;
            image_bytes[code_at] = s->frame >= 8 ? 0x49 : 0x48;
            image_bytes[code_at + 1] = 0x8d;
            image_bytes[code_at + 2] = (uint8_t)(0xa0 | (s->frame & 7));
            put(image_bytes + code_at + 3, distance, 4);
            code_at += 7;
            machine[4] = machine[s->frame] + (uint64_t)(int64_t)(int32_t)distance;
        } else if (s->alloc) {
            code("\x48\x81\xc4", 3);
            put(image_bytes + code_at, s->alloc, 4);
            code_at += 4;
            machine[4] += s->alloc;
        }
        ends[e] = (uint32_t)code_at;
        for (unsigned i = s->pushes; i > 0; i--) emit_pop(s->push[i - 1]);
        unsigned kind = s->version == 2 ? 0 : s->end[e];
        emit_end(kind, begin - 64);
        sizes[e] = (uint32_t)code_at - ends[e];
        code_at += 3 + s->gap;
    }
    if (s->version == 2 && !s->tail) code_at -= 3 + s->gap; /* the last one is at the end */
    uint32_t end = (uint32_t)code_at;
    if (s->version == 2 && s->tail) {
        memcpy(machine, body, sizeof body);
        code_at = end - 1;
        at_boundary("in the body behind the epilogues");
        code_at = end;
    }
    if (verifying) return;
    size_t n = 0;
    if (s->version == 2 && s->ends) {
        epilogues[n][0] = (uint8_t)sizes[0];
        epilogues[n++][1] = s->tail ? 6 : 6 | 16;
        for (unsigned e = 0; e + !s->tail < s->ends; e++) {
            epilogues[n][0] = (uint8_t)(end - ends[e]);
            epilogues[n++][1] = (uint8_t)(6 | (end - ends[e]) >> 8 << 4);
        }
        if (n % 2 && !s->indirect) epilogues[n++][1] = 6; /* padding; do without, too */
    }
    xdata_at = XDATA;
    pdata_size = 0;
    code_list none = {{{0}}, 0, {0}, 0};
    uint32_t other = write_info(&none, 1, 0, 0, 0, 0, NULL, 0);
    add_entry(begin - 64, begin, other, 12);
    uint32_t info = write_info(&list, s->version, 0, s->chained ? middle - begin : prologue, s->frame,
                               s->frame_offset, epilogues, s->chained ? 0 : n);
    if (s->indirect) { /* by way of another entry, at an odd address */
        put(image_bytes + xdata_at, begin, 4);
        put(image_bytes + xdata_at + 4, s->chained ? middle : end, 4);
        put(image_bytes + xdata_at + 8, info, 4);
        info = (uint32_t)xdata_at + 1;
        xdata_at += 12;
    }
    add_entry(begin, s->chained ? middle : end, info, 12);
    if (!s->chained) return;
    info = write_info(&second, s->version, 4, prologue, s->frame, s->frame_offset, epilogues, n);
    memcpy(image_bytes + xdata_at, pdata + 12, 12);
    xdata_at += 12;
    add_entry(middle, end, info, 12);
}

static shape random_shape(void) {
    shape s;
    unsigned order[8];
    memset(&s, 0, sizeof s);
    for (unsigned i = 0; i < 8; i++) order[i] = kept[i];
    for (unsigned i = 7; i > 0; i--) {
        unsigned j = below(i + 1), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    s.version = 1 + below(2);
    s.pushes = below(9);
    for (unsigned i = 0; i < s.pushes; i++) s.push[i] = order[i];
    switch (below(5)) {
    case 0: s.alloc = 0; break;
    case 1: s.alloc = 8 + 8 * below(16); break;
    case 2: s.alloc = 136 + 8 * below(1000); break;
    case 3: s.alloc = 0x10000 + 8 * below(50000); break;
    default: s.alloc = 620000 + 8 * below(100000); break;
    }
    if (s.alloc >= 64 && s.pushes < 8) {
        s.saves = below(9 - s.pushes);
        for (unsigned i = 0; i < s.saves; i++) s.save[i] = order[s.pushes + i];
    }
    if (s.pushes && below(2)) { /* r12 needs another form of lea, and rsp cannot be one */
        s.frame = s.push[below(s.pushes)];
        if (s.frame == 12) s.frame = 0;
        if (s.frame) {
            uint32_t most = s.alloc / 16 > 15 ? 15 : s.alloc / 16;
            s.frame_offset = most ? below(most + 1) : 0;
            s.dynamic = 16 * below(1000);
        }
    }
    s.xmm = below(4) == 0;
    s.junk = below(6);
    if (s.version == 2 && s.junk == 1) s.junk = 0;
    s.chained = s.alloc && below(3) == 0;
    s.indirect = below(4) == 0;
    s.late = !s.chained && below(2);
    s.tail = below(2);
    s.gap = below(2) ? below(500) : 0;
    s.ends = 1 + below(2);
    for (unsigned i = 0; i < 2; i++) s.end[i] = below(10);
    return s;
}

static void test_random_x64(void) {
    enum { ROUNDS = 20000 };
    complaint = NULL;
    verified = 0;
    reset();
    for (int round = 0; round < ROUNDS && !complaint; round++) {
        shape s = random_shape();
        memset(image_bytes, 0x90, sizeof image_bytes);
        for (size_t i = 0; i < 16; i++) entry[i] = random_next();
        entry[4] = stack_lo + STACK - 4096 - 8 + 16 * below(100);
        uint64_t state = random_state;
        function_x64(&s, false);
        random_state = state;
        function_x64(&s, true);
    }
    check(!complaint, "x64: every boundary of random functions leads to the registers at entry",
          "%s", complaint);
    printf("# x64: %llu steps of %d functions\n", verified, ROUNDS);
}

/* An info with the given codes over [CODE, CODE + size). */
static void one_info(const char *header, const char *codes, size_t n, uint32_t size) {
    reset();
    memcpy(image_bytes + XDATA, header, 4);
    memcpy(image_bytes + XDATA + 4, codes, n);
    add_entry(CODE, CODE + size, XDATA, 12);
    memset(machine, 0, sizeof machine);
    memset(memory, 0, sizeof memory);
    machine[4] = stack_lo + 4096;
}

static void test_corners_x64(void) {
    cprofi_seh_frame f;
    const uint64_t sp = stack_lo + 4096;
    for (unsigned error = 0; error < 2; error++) {
        one_info("\x01\x00\x02\x00", error ? "\x00\x12\x00\x1a" : "\x00\x12\x00\x0a", 4, 64);
        uint64_t at = sp + 16 + 8 * error;
        store(at, base + NO_ENTRY);
        store(at + 24, sp + 4096);
        store(sp + 4096, return_address);
        f = frame_at(base + CODE + 32, true);
        bool good = cprofi_seh_x64_step(&f) == CPROFI_SEH_FRAME && f.exact &&
                    f.regs.pc == base + NO_ENTRY && f.regs.r[4] == sp + 4096;
        good = good && cprofi_seh_x64_step(&f) == CPROFI_SEH_FRAME && !f.exact &&
               f.regs.pc == return_address;
        check(good, error ? "x64: a machine frame with an error code interrupts exactly"
                          : "x64: a machine frame interrupts exactly",
              "pc %llx exact %d", (unsigned long long)f.regs.pc, f.exact);
    }
    one_info("\x01\x04\x01\x00", "\x04\x42\0\0", 4, 64); /* 40 bytes */
    f = frame_at(base + CODE + 32, false);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_END, "x64: a return address of 0 is the root", "no");
    machine[4] = stack_lo + STACK - 40;
    f = frame_at(base + CODE + 32, false);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_END, "x64: nothing above the frame is the root",
          "no");
    machine[4] = stack_lo + STACK - 36;
    f = frame_at(base + CODE + 32, false);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_BROKEN,
          "x64: a frame beyond the copy is not the root", "it is");
    machine[4] = sp;
    store(sp + 40, stack_lo + 64);
    f = frame_at(base + CODE + 32, false);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_BROKEN, "x64: code on the stack is not believed",
          "it is");

    /* behind a call that never returns comes another function */
    store(sp + 40, return_address);
    store(sp, 0);
    f = frame_at(base + CODE + 64, false);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == return_address,
          "x64: a return address behind the function belongs to the call", "no");
    memcpy(image_bytes + CODE + 63, "\xc3", 1);
    f = frame_at(base + CODE + 64, false);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == return_address,
          "x64: a caller is never in an epilogue", "it is");

    /* a part of the function elsewhere: its frame is there from its first instruction on */
    memcpy(image_bytes + XDATA + 16, "\x01\x00\x01\x00\x00\x42\x00\x00", 8);
    add_entry(CODE + 128, CODE + 160, XDATA + 16, 12);
    memcpy(image_bytes + CODE + 16, "\xe9\x6b\x00\x00\x00", 5);
    f = frame_at(base + CODE + 16, true);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == return_address,
          "x64: a jump to the cold part is not the end of the function", "pc %llx",
          (unsigned long long)f.regs.pc);
    memcpy(image_bytes + CODE + 140, "\xe9\x8b\xff\xff\xff", 5); /* back to CODE + 28 */
    f = frame_at(base + CODE + 140, true);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == return_address,
          "x64: a jump back from the cold part is not the end of the function", "pc %llx",
          (unsigned long long)f.regs.pc);
    memcpy(image_bytes + CODE + 16, "\xff\xe0", 2);
    f = frame_at(base + CODE + 16, true);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == return_address,
          "x64: the jump of a switch statement is not the end of the function", "no");

    /* no entry */
    store(sp, return_address);
    f = frame_at(base + NO_ENTRY, true);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == return_address &&
              f.regs.r[4] == sp + 8,
          "x64: code without an entry returns to what is on top", "no");
    memcpy(image_bytes + CODE + 10, "\xe8\x00\x00\x00\x00", 5);
    store(sp, 0x70000000000);
    store(sp + 16, base + CODE + 15);
    f = frame_at(base + NO_ENTRY, true);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == base + CODE + 15 &&
              f.regs.r[4] == sp + 24,
          "x64: __chkstk, which pushes two registers, returns to its caller", "pc %llx",
          (unsigned long long)f.regs.pc);
    part.bytes.data = image_bytes + XDATA; /* as in a profile: the caller's code is not at hand */
    part.bytes.size -= XDATA;
    part.rva = XDATA;
    f = frame_at(base + NO_ENTRY, true);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == base + CODE + 15 &&
              f.regs.r[4] == sp + 24,
          "x64: __chkstk without its caller's code", "pc %llx", (unsigned long long)f.regs.pc);
    store(sp + 16, base + NO_ENTRY + 1);
    f = frame_at(base + NO_ENTRY, true);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_FRAME && f.regs.r[4] == sp + 8,
          "x64: what is in no function is no caller of __chkstk", "sp %llx",
          (unsigned long long)f.regs.r[4]);
    part.bytes.data = image_bytes;
    part.bytes.size = sizeof image_bytes;
    part.rva = 0;

    /* no image */
    machine[5] = sp + 64;
    store(sp + 64, sp + 128);
    store(sp + 72, return_address);
    store(sp + 16, 0);
    f = frame_at(0x200000000, false);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == return_address &&
              f.regs.r[5] == sp + 128 && f.regs.r[4] == sp + 80,
          "x64: code of no image is left by its frame pointer", "no");
    store(sp + 64, sp + 32); /* goes down */
    f = frame_at(0x200000000, false);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_BROKEN, "x64: a frame pointer that goes down ends it",
          "no");
    store(sp, base + CODE + 15);
    f = frame_at(0x200000000, true);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == base + CODE + 15,
          "x64: code of no image, just called, returns to what is on top", "no");

    /* chains */
    one_info("\x21\x00\x00\x00", "", 0, 64);
    memcpy(image_bytes + XDATA + 4, pdata, 12);
    f = frame_at(base + CODE + 32, true);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_BROKEN, "x64: an info chained to itself ends", "no");
    one_info("\x01\x00\x00\x00", "", 0, 64);
    put(pdata + 8, XDATA + 33, 4);
    memcpy(image_bytes + XDATA + 32, pdata, 12);
    f = frame_at(base + CODE + 32, true);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_BROKEN, "x64: an entry that stands for itself ends",
          "no");
    one_info("\x03\x00\x00\x00", "", 0, 64);
    f = frame_at(base + CODE + 32, true);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_BROKEN, "x64: an unknown version is refused", "no");
    one_info("\x01\x04\x02\x00", "\x04\x0b\x04\x42", 4, 64);
    f = frame_at(base + CODE + 32, true);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_BROKEN, "x64: an unknown operation is refused", "no");

    /* version 2 does not read code */
    one_info("\x02\x01\x04\x00", "\x02\x16\x00\x06\x04\x02\x01\x30", 8, 64);
    memcpy(image_bytes + CODE + 20, "\x5b\xc3", 2);
    store(sp + 8, 77);
    store(sp + 16, return_address);
    f = frame_at(base + CODE + 20, true);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_FRAME && f.regs.r[3] == 77 &&
              f.regs.pc == return_address,
          "x64: version 2 looks for epilogues in its list, not in the code", "no");
    /* parts: the code alone is missing, then everything */
    cprofi_seh_part parts[2];
    one_info("\x01\x01\x01\x00", "\x01\x30\x00\x00", 4, 64);
    memcpy(image_bytes + CODE + 20, "\xc3", 1);
    store(sp, return_address);
    parts[0].rva = XDATA;
    parts[0].bytes.data = image_bytes + XDATA;
    parts[0].bytes.size = 8;
    parts[1].rva = CODE + 20;
    parts[1].bytes.data = image_bytes + CODE + 20;
    parts[1].bytes.size = 1;
    image.parts = parts;
    image.part_count = 2;
    f = frame_at(base + CODE + 20, true);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == return_address,
          "x64: the code at pc may be a part of its own", "no");
    image.part_count = 0;
    f = frame_at(base + CODE + 20, true);
    check(cprofi_seh_x64_step(&f) == CPROFI_SEH_BROKEN, "x64: without unwind infos there is no way on",
          "there is");
}

/* ---- ARM64 ---- */

typedef enum {
    ALLOC, PUSH, SAVE, /* registers `reg` up, `count` of them, at `offset` or by a push of it */
    FLOAT_PUSH, FLOAT_SAVE, SET_FP, ADD_FP, NOP, SIGN
} op_kind;

typedef struct {
    op_kind kind;
    uint32_t reg, count, offset;
    uint8_t code[4];
    size_t size;
    bool prologue_only; /* not in the epilogue */
    uint32_t reg2;      /* the second register of a pair that is not reg + 1; 0: it is */
} arm_op;

static arm_op ops[64];
static size_t op_count;
static const uint64_t signature = (uint64_t)0x5a << 56 | (uint64_t)0x2d << 48;

static arm_op *add_op(op_kind kind, uint32_t reg, uint32_t count, uint32_t offset, uint64_t code,
                      size_t size) {
    arm_op *o = &ops[op_count++];
    memset(o, 0, sizeof *o);
    o->kind = kind;
    o->reg = reg;
    o->count = count;
    o->offset = offset;
    o->size = size;
    for (size_t i = 0; i < size; i++) o->code[i] = (uint8_t)(code >> (8 * (size - 1 - i)));
    return o;
}

static uint32_t op_reg(const arm_op *o, uint32_t i) {
    return i == 1 && o->reg2 ? o->reg2 : o->reg + i;
}

static void execute(const arm_op *o, bool back) {
    uint64_t *sp = &machine[31];
    if (!back && (o->kind == ALLOC || o->kind == PUSH || o->kind == FLOAT_PUSH)) *sp -= o->offset;
    uint64_t at = *sp + (o->kind == SAVE ? o->offset : 0);
    if (o->kind == PUSH || o->kind == SAVE)
        for (uint32_t i = 0; i < o->count; i++) {
            if (back) machine[op_reg(o, i)] = load(at + 8 * i);
            else store(at + 8 * i, machine[op_reg(o, i)]);
        }
    if (back && (o->kind == ALLOC || o->kind == PUSH || o->kind == FLOAT_PUSH)) *sp += o->offset;
    if (o->kind == SET_FP || o->kind == ADD_FP) {
        if (back) *sp = machine[29] - o->offset;
        else machine[29] = *sp + o->offset;
    }
    if (o->kind == SIGN) machine[30] ^= signature;
}

static void verify_arm64(const char *where, uint32_t at, bool exact) {
    cprofi_seh_frame f = frame_at(base + CODE + 4 * (uint64_t)at, exact);
    cprofi_seh_result result = cprofi_seh_arm64_step(&f);
    verified++;
    if (result != CPROFI_SEH_FRAME) complain(where, (uint64_t)result, CPROFI_SEH_FRAME);
    if (f.regs.pc != return_address) complain(where, f.regs.pc, return_address);
    if (f.exact) complain(where, 1, 0);
    for (size_t i = 19; i < 32; i++)
        if (i != 30 && f.regs.r[i] != entry[i]) complain(where, f.regs.r[i], entry[i]);
}

/* Executes the function of `ops`: prologue, body, and epilogues where `ends` says, each to be
   verified at every instruction. fixed: the epilogue does not take sp from the frame pointer. */
static void run_arm64(const uint32_t *ends, size_t end_count, bool fixed, uint32_t length) {
    bool framed = false, saved[32] = {false};
    uint64_t body[32];
    memcpy(machine, entry, sizeof machine);
    for (size_t i = 0; i < op_count; i++) {
        verify_arm64("before an instruction of the prologue", (uint32_t)i, true);
        execute(&ops[i], false);
        framed |= ops[i].kind == SET_FP || ops[i].kind == ADD_FP;
        if (ops[i].kind == PUSH || ops[i].kind == SAVE)
            for (uint32_t k = 0; k < ops[i].count; k++) saved[op_reg(&ops[i], k)] = true;
    }
    verify_arm64("behind the prologue", (uint32_t)op_count, true);
    for (size_t i = 19; i < 31; i++)
        if (saved[i] && !(i == 29 && framed)) machine[i] = random_next();
    if (framed && !fixed) machine[31] -= 16 * below(100);
    memcpy(body, machine, sizeof body);
    verify_arm64("in the body", (uint32_t)op_count + 1, true);
    if (saved[30]) verify_arm64("at a return address", (uint32_t)op_count + 2, false);
    for (size_t e = 0; e < end_count; e++) {
        uint32_t at = ends[e];
        memcpy(machine, body, sizeof body);
        verify_arm64("before an epilogue", at - 1, true);
        for (size_t i = op_count; i > 0; i--) {
            if (ops[i - 1].prologue_only) continue;
            verify_arm64("in an epilogue", at++, true);
            execute(&ops[i - 1], true);
        }
        verify_arm64("at the return", at++, true);
        memcpy(machine, body, sizeof body);
        if (at < length) verify_arm64("behind an epilogue", at, true);
    }
}

/* Whether the slots from `offset` above sp are allocated and free; then takes them. */
static bool take(uint8_t *used, uint32_t depth, uint32_t offset, uint32_t count) {
    if (offset / 8 + count > depth) return false;
    for (uint32_t i = 0; i < count; i++)
        if (used[depth - 1 - offset / 8 - i]) return false;
    for (uint32_t i = 0; i < count; i++) used[depth - 1 - offset / 8 - i] = 1;
    return true;
}

static void random_ops(void) {
    static uint8_t used[1 << 18];
    uint32_t depth = 0, pair = 0; /* depth in words; pair: the pair save_next would follow */
    bool framed = false, fp = false;
    uint32_t n = 1 + below(12);
    memset(used, 0, sizeof used);
    op_count = 0;
    if (below(3) == 0) add_op(SIGN, 0, 0, 0, 0xfc, 1);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t kind = below(26), z = below(64), x = below(10), before = depth, next = 0;
        arm_op *o = NULL;
        /* behind the frame pointer nothing is saved: sp may move then */
        if (framed && (kind < 11 ? kind > 2 : kind > 17 && kind < 24)) continue;
        switch (kind) {
        case 0: z &= 31, add_op(ALLOC, 0, 0, 16 * z, z, 1), depth += 2 * z; break;
        case 1: z = below(2048), add_op(ALLOC, 0, 0, 16 * z, 0xc000 | z, 2), depth += 2 * z; break;
        case 2: z = below(9000), add_op(ALLOC, 0, 0, 16 * z, 0xe0000000 | z, 4), depth += 2 * z; break;
        case 3: z = 2 + below(30), o = add_op(PUSH, 19, 2, 8 * z, 0x20 | z, 1), depth += z; next = 19; break;
        case 4: if (take(used, depth, 8 * z, 2)) o = add_op(SAVE, 29, 2, 8 * z, 0x40 | z, 1), fp = true; break;
        case 5: z |= 1, o = add_op(PUSH, 29, 2, 8 * (z + 1), 0x80 | z, 1), depth += z + 1, fp = true; break;
        case 6: if (take(used, depth, 8 * z, 2)) o = add_op(SAVE, 19 + x % 9, 2, 8 * z, 0xc800 | x % 9 << 6 | z, 2), next = 19 + x % 9; break;
        case 7: z |= 1, o = add_op(PUSH, 19 + x % 9, 2, 8 * (z + 1), 0xcc00 | x % 9 << 6 | z, 2), depth += z + 1, next = 19 + x % 9; break;
        case 8: if (take(used, depth, 8 * z, 1)) o = add_op(SAVE, 19 + x, 1, 8 * z, 0xd000 | x << 6 | z, 2); break;
        case 9: z &= 31, o = add_op(PUSH, 19 + x, 1, 8 * (z + 1), 0xd400 | x << 5 | z, 2), depth += z + 1; break;
        case 10: x %= 5; if (take(used, depth, 8 * z, 2)) o = add_op(SAVE, 19 + 2 * x, 2, 8 * z, 0xd600 | x << 6 | z, 2), o->reg2 = 30; break;
        case 11: add_op(FLOAT_SAVE, 0, 0, 0, 0xd800 | x % 7 << 6 | z, 2); break;
        case 12: add_op(FLOAT_PUSH, 0, 0, 8 * (z + 1), 0xda00 | x % 7 << 6 | z, 2), depth += z + 1; break;
        case 13: add_op(FLOAT_SAVE, 0, 0, 0, 0xdc00 | x % 8 << 6 | z, 2); break;
        case 14: z &= 31, add_op(FLOAT_PUSH, 0, 0, 8 * (z + 1), 0xde00 | x % 8 << 5 | z, 2), depth += z + 1; break;
        case 15: if (fp && !framed) add_op(SET_FP, 0, 0, 0, 0xe1, 1), framed = true; break;
        case 16: z = below(depth < 255 ? depth + 1 : 256); if (fp && !framed) add_op(ADD_FP, 0, 0, 8 * z, 0xe200 | z, 2), framed = true; break;
        case 17: add_op(NOP, 0, 0, 0, 0xe3, 1); break;
        case 18: case 19: /* the pair behind the one before */
            if (!pair || pair + 3 > 28 || op_count == 0) break;
            z = ops[op_count - 1].kind == PUSH ? 16 : ops[op_count - 1].offset + 16;
            if (take(used, depth, z, 2)) o = add_op(SAVE, pair + 2, 2, z, 0xe6, 1), next = pair + 2;
            break;
        case 20: if (take(used, depth, 8 * z, 1)) o = add_op(SAVE, 19 + x, 1, 8 * z, 0xe70000 | (19 + x) << 8 | z, 3); break;
        case 21: x %= 9; if (take(used, depth, 16 * z, 2)) o = add_op(SAVE, 19 + x, 2, 16 * z, 0xe74000 | (19 + x) << 8 | z, 3), next = 19 + x; break;
        case 22: o = add_op(PUSH, 19 + x, 1, 16 * (z + 1), 0xe72000 | (19 + x) << 8 | z, 3), depth += 2 * (z + 1); break;
        case 23: x %= 9, o = add_op(PUSH, 19 + x, 2, 16 * (z + 1), 0xe76000 | (19 + x) << 8 | z, 3), depth += 2 * (z + 1), next = 19 + x; break;
        case 24: add_op(FLOAT_PUSH, 0, 0, 16 * (z + 1), (below(2) ? 0xe76040 : 0xe76080) | x << 8 | z, 3), depth += 2 * (z + 1); break;
        default: add_op(FLOAT_SAVE, 0, 0, 0, (below(2) ? 0xe74040 : 0xe700c0) | x << 8 | z, 3); break;
        }
        if (o && o->kind == PUSH && depth > before) take(used, depth, 0, o->count);
        if (o || kind >= 18) pair = next;
        else if (kind != 18 && kind != 19) pair = 0;
    }
}

/* An .xdata record of `ops`: one epilogue in the header, or a list of scopes; with or without the
   second header word; epilogues by the codes of the prologue or by their own. */
static void write_arm64(uint32_t length, const uint32_t *ends, size_t end_count, bool single,
                        bool extended, bool own) {
    uint8_t codes[600];
    size_t n = 0, index = 0;
    for (size_t i = op_count; i > 0; i--)
        for (size_t k = 0; k < ops[i - 1].size; k++) codes[n++] = ops[i - 1].code[k];
    codes[n++] = 0xe4;
    if (own) {
        index = n;
        for (size_t i = op_count; i > 0; i--)
            for (size_t k = 0; k < ops[i - 1].size; k++) codes[n++] = ops[i - 1].code[k];
        codes[n++] = 0xe4;
    }
    while (n % 4) codes[n++] = 0xe3;
    uint32_t field = (uint32_t)(single ? index : end_count), words = (uint32_t)(n / 4);
    if (field > 31 || words > 31 || (!field && !words)) extended = true;
    uint8_t *p = image_bytes + XDATA;
    put(p, length | (uint32_t)single << 21 | (extended ? 0 : field << 22 | words << 27), 4);
    p += 4;
    if (extended) put(p, field | words << 16, 4), p += 4;
    for (size_t i = 0; i < end_count && !single; i++, p += 4)
        put(p, ends[i] | (uint64_t)index << 22, 4);
    memcpy(p, codes, n);
}

static void enter_arm64(void) {
    for (size_t i = 0; i < 32; i++) entry[i] = random_next();
    entry[30] = return_address;
    entry[31] = stack_lo + STACK - 4096 + 16 * below(100);
}

static void test_random_arm64(void) {
    enum { ROUNDS = 20000 };
    complaint = NULL;
    verified = 0;
    for (int round = 0; round < ROUNDS && !complaint; round++) {
        random_ops();
        enter_arm64();
        reset();
        uint32_t size = (uint32_t)op_count + 1, ends[2], length;
        bool single = below(2);
        ends[0] = (uint32_t)op_count + 5;
        ends[1] = ends[0] + size + 1 + below(3);
        length = ends[1] + size + (single ? 0 : below(3));
        if (single) ends[0] = length - size;
        write_arm64(length, ends, single ? 1 : 2, single, below(3) == 0, below(2));
        add_entry(CODE, XDATA, 0, 8);
        run_arm64(ends, single ? 1 : 2, false, length);
    }
    check(!complaint, "arm64: every boundary of random functions leads to the registers at entry",
          "%s", complaint);
    printf("# arm64: %llu steps of %d functions\n", verified, ROUNDS);
}

/* What a packed record stands for, in the order of the prologue, by the table of the
   documentation. The codes are not used. */
static bool packed_ops(uint32_t reg_f, uint32_t reg_i, uint32_t h, uint32_t cr, uint32_t frame) {
    uint32_t ints = reg_i * 8 + (cr == 1 ? 8 : 0), floats = reg_f ? reg_f * 8 + 8 : 0;
    uint32_t saved = (ints + floats + (ints + floats ? 64 * h : 0) + 15) & ~15u, local;
    bool pushed = false;
    op_count = 0;
    if (frame * 16 < saved) return false;
    local = frame * 16 - saved;
    if (cr >= 2 && !local) return false;
    if (cr == 2) add_op(SIGN, 0, 0, 0, 0, 0);
    if (reg_i == 1 && cr == 1) {
        add_op(ALLOC, 0, 0, saved, 0, 0);
        pushed = true;
    }
    for (uint32_t i = 0; i + 1 < reg_i; i += 2, pushed = true)
        add_op(pushed ? SAVE : PUSH, 19 + i, 2, pushed ? 8 * i : saved, 0, 0);
    if (reg_i % 2) {
        uint32_t at = 8 * (reg_i - 1);
        if (cr == 1) add_op(SAVE, 18 + reg_i, 2, at, 0, 0)->reg2 = 30;
        else add_op(pushed ? SAVE : PUSH, 18 + reg_i, 1, pushed ? at : saved, 0, 0);
        pushed = true;
    } else if (cr == 1) {
        add_op(pushed ? SAVE : PUSH, 30, 1, pushed ? ints - 8 : saved, 0, 0);
        pushed = true;
    }
    for (uint32_t i = 0; i < floats / 8; i += 2, pushed = true)
        add_op(pushed ? FLOAT_SAVE : FLOAT_PUSH, 0, 0, saved, 0, 0);
    for (int i = 0; i < 4 && h && saved; i++) add_op(NOP, 0, 0, 0, 0, 0)->prologue_only = true;
    if (cr >= 2 && local <= 512) {
        add_op(PUSH, 29, 2, local, 0, 0);
    } else if (local) {
        add_op(ALLOC, 0, 0, local > 4080 ? 4080 : local, 0, 0);
        if (local > 4080) add_op(ALLOC, 0, 0, local - 4080, 0, 0);
        if (cr >= 2) add_op(SAVE, 29, 2, 0, 0, 0);
    }
    if (cr >= 2) add_op(SET_FP, 0, 0, 0, 0, 0)->prologue_only = true;
    return true;
}

static void test_packed(void) {
    unsigned long long records = 0;
    complaint = NULL;
    verified = 0;
    for (uint32_t k = 0; k < 8u * 11 * 2 * 4 && !complaint; k++)
        for (uint32_t round = 0; round < 24 && !complaint; round++) {
            uint32_t reg_f = k % 8, reg_i = k / 8 % 11, h = k / 88 % 2, cr = k / 176;
            uint32_t frame = round < 16 ? 8 + 2 * round : below(512);
            if (!packed_ops(reg_f, reg_i, h, cr, frame)) continue;
            records++;
            enter_arm64();
            reset();
            uint32_t size = 1, length;
            for (size_t i = 0; i < op_count; i++) size += !ops[i].prologue_only;
            length = (uint32_t)op_count + 6 + size;
            add_entry(CODE, 1 | length << 2 | reg_f << 13 | reg_i << 16 | h << 20 | cr << 21 |
                      frame << 23, 0, 8);
            uint32_t end = length - size;
            run_arm64(&end, 1, true, length);
        }
    check(!complaint, "arm64: every boundary of packed functions leads to the registers at entry",
          "%s", complaint);
    printf("# arm64: %llu steps of %llu packed records\n", verified, records);
}

static void test_corners_arm64(void) {
    const uint64_t sp = stack_lo + 4096;
    cprofi_seh_frame f;
    static const struct {
        const char *codes, *name;
        bool exact;
    } customs[3] = {{"\xe9\xe4\xe4\xe4", "arm64: a machine frame interrupts exactly", true},
                    {"\xea\xe4\xe4\xe4", "arm64: a context interrupts exactly", true},
                    {"\x40\xec\xe4\xe4", "arm64: clear_unwound_to_call interrupts exactly", true}};
    for (int i = 0; i < 3; i++) {
        reset();
        memset(memory, 0, 8192);
        memset(machine, 0, sizeof machine);
        machine[31] = sp;
        store(sp, sp + 1024);
        store(sp + 8, return_address);
        if (i == 1) {
            store(sp, 0x0040000b);
            store(sp + 0x100, sp + 1024);
            store(sp + 0x108, return_address);
        }
        put(image_bytes + XDATA, 64 | 1u << 27, 4); /* 64 instructions, a word of codes */
        memcpy(image_bytes + XDATA + 4, customs[i].codes, 4);
        add_entry(CODE, XDATA, 0, 8);
        f = frame_at(base + CODE + (i == 2 ? 128 : 0), true);
        check(cprofi_seh_arm64_step(&f) == CPROFI_SEH_FRAME && f.exact == customs[i].exact &&
                  f.regs.pc == return_address && (i == 2 || f.regs.r[31] == sp + 1024),
              customs[i].name, "pc %llx exact %d", (unsigned long long)f.regs.pc, f.exact);
    }
    store(sp, 0x2040000b);
    store(sp + 0x100, sp + 1024);
    store(sp + 0x108, return_address);
    memcpy(image_bytes + XDATA + 4, "\xea\xe4\xe4\xe4", 4);
    f = frame_at(base + CODE + 128, true);
    check(cprofi_seh_arm64_step(&f) == CPROFI_SEH_FRAME && !f.exact,
          "arm64: a context that was unwound to a call is not exact", "it is");

    /* the fragments of the documentation: regions without prologue, and with a phantom one */
    static const char region[] = "\xe5\xe1\xc8\x1e\x9f\xe4\xe4\xe4"; /* end_c set_fp regp fplr_x */
    reset();
    memset(machine, 0, sizeof machine);
    machine[29] = sp;
    machine[31] = sp - 64;
    store(sp, sp + 512);
    store(sp + 8, return_address);
    store(sp + 240, 1919);
    put(image_bytes + XDATA, 64 | 1u << 21 | 1u << 22 | 2u << 27, 4);
    memcpy(image_bytes + XDATA + 4, region, 8);
    add_entry(CODE, XDATA, 0, 8);
    f = frame_at(base + CODE, true);
    bool good = cprofi_seh_arm64_step(&f) == CPROFI_SEH_FRAME && f.regs.r[19] == 1919 &&
                f.regs.r[31] == sp + 256 && f.regs.r[29] == sp + 512;
    machine[31] = sp; /* one instruction into the epilogue, then two */
    machine[29] = 0;
    f = frame_at(base + CODE + 4 * 61, true);
    good = good && cprofi_seh_arm64_step(&f) == CPROFI_SEH_FRAME && f.regs.r[19] == 1919;
    f = frame_at(base + CODE + 4 * 62, true);
    good = good && cprofi_seh_arm64_step(&f) == CPROFI_SEH_FRAME && f.regs.r[19] == 0 &&
           f.regs.r[31] == sp + 256;
    check(good, "arm64: a region whose prologue is elsewhere", "no");

    machine[30] = return_address | signature;
    f = frame_at(base + NO_ENTRY, true);
    check(cprofi_seh_arm64_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == return_address &&
              f.regs.r[31] == sp,
          "arm64: code without an entry returns by lr, which may be signed", "no");
    machine[29] = sp;
    f = frame_at(base + NO_ENTRY, false);
    check(cprofi_seh_arm64_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == return_address &&
              f.regs.r[29] == sp + 512,
          "arm64: a caller without an entry is left by its frame pointer", "no");
    put(pdata + 4, 2 | 64 << 2 | 3 << 21 | 16u << 23, 4); /* packed: chained, 256 bytes */
    f = frame_at(base + CODE, true);
    good = cprofi_seh_arm64_step(&f) == CPROFI_SEH_FRAME && f.regs.r[31] == sp + 256;
    f = frame_at(base + CODE + 4 * 63, true);
    good = good && cprofi_seh_arm64_step(&f) == CPROFI_SEH_FRAME && f.regs.r[31] == sp + 256;
    check(good, "arm64: a packed region has neither prologue nor epilogue", "it has");
    pdata[4] |= 3;
    f = frame_at(base + CODE, true);
    check(cprofi_seh_arm64_step(&f) == CPROFI_SEH_BROKEN, "arm64: a reserved record is refused",
          "no");
    put(pdata + 4, XDATA, 4);
    put(image_bytes + XDATA, 64 | 1u << 18 | 1u << 27, 4);
    f = frame_at(base + CODE, true);
    check(cprofi_seh_arm64_step(&f) == CPROFI_SEH_BROKEN, "arm64: an unknown version is refused",
          "no");

    /* what cannot be undone, and what has no effect */
    static const struct {
        const char *codes;
        cprofi_seh_result result;
        const char *name;
    } others[] = {
        {"\xe8\xe4\xe4\xe4", CPROFI_SEH_BROKEN, "arm64: a trap frame is refused"},
        {"\xeb\xe4\xe4\xe4", CPROFI_SEH_BROKEN, "arm64: an ARM64EC context is refused"},
        {"\xdf\x02\xe4\xe4", CPROFI_SEH_BROKEN, "arm64: alloc_z is refused"},
        {"\xe7\x93\x41\xe4", CPROFI_SEH_BROKEN, "arm64: save_any_reg with a reserved bit is refused"},
        {"\xe7\x1f\x01\xe4", CPROFI_SEH_BROKEN, "arm64: save_any_reg of the stack pointer is refused"},
        {"\xe0\x00\x00\x01", CPROFI_SEH_FRAME, "arm64: codes may end without end"},
        {"\xe0\xff\xff\xff", CPROFI_SEH_BROKEN, "arm64: an allocation beyond the stack is refused"},
        {"\xf8\xe8\xe4\xe4", CPROFI_SEH_FRAME, "arm64: a reserved code of two bytes is skipped"},
        {"\xf9\xe8\xe8\xe4", CPROFI_SEH_FRAME, "arm64: a reserved code of three bytes is skipped"},
    };
    for (size_t i = 0; i < CPROFI_COUNT(others); i++) {
        put(image_bytes + XDATA, 64 | 1u << 27, 4);
        memcpy(image_bytes + XDATA + 4, others[i].codes, 4);
        machine[30] = return_address;
        machine[31] = sp;
        f = frame_at(base + CODE + 128, true);
        cprofi_seh_result result = cprofi_seh_arm64_step(&f);
        check(result == others[i].result, others[i].name, "%d", (int)result);
    }
    put(pdata + 4, 1 | 64 << 2 | 11 << 16 | 64u << 23, 4);
    f = frame_at(base + CODE, true);
    check(cprofi_seh_arm64_step(&f) == CPROFI_SEH_BROKEN,
          "arm64: a packed record with more registers than there are is refused", "no");
}

/* By what frames without a name are put together: the beginning of their function. */
static void test_begin(void) {
    uint32_t begin = 0;
    bool good;
    reset();
    add_entry(CODE, CODE + 64, XDATA, 12);
    add_entry(CODE + 96, CODE + 128, XDATA + 32, 12);
    add_entry(CODE + 256, CODE + 264, XDATA + 64, 12);
    memcpy(image_bytes + XDATA, "\x01\x00\x00\x00", 4);
    memcpy(image_bytes + XDATA + 32, "\x01\x00\x00\x00", 4);
    memcpy(image_bytes + XDATA + 64, "\x21\x00\x00\x00", 4); /* chained to the first */
    memcpy(image_bytes + XDATA + 68, pdata, 12);
    good = cprofi_seh_x64_begin(&image, CODE + 63, &begin) && begin == CODE;
    good = good && cprofi_seh_x64_begin(&image, CODE + 96, &begin) && begin == CODE + 96;
    check(good, "x64: where the function of an address begins", "%x", begin);
    check(!cprofi_seh_x64_begin(&image, CODE + 64, &begin) &&
              !cprofi_seh_x64_begin(&image, CODE - 1, &begin),
          "x64: between functions there is none", "%x", begin);
    check(cprofi_seh_x64_begin(&image, CODE + 260, &begin) && begin == CODE,
          "x64: a part that was put elsewhere belongs to its function", "%x", begin);
    memcpy(image_bytes + XDATA + 68, pdata + 24, 12); /* to itself */
    check(cprofi_seh_x64_begin(&image, CODE + 260, &begin) && begin == CODE + 256,
          "x64: a circle of parts has an end", "%x", begin);

    reset();
    add_entry(CODE, 1 | 16 << 2 | 8u << 23, 0, 8); /* packed, 64 bytes */
    add_entry(CODE + 96, XDATA, 0, 8);
    put(image_bytes + XDATA, 8 | 1u << 27, 4); /* 32 bytes */
    good = cprofi_seh_arm64_begin(&image, CODE + 60, &begin) && begin == CODE;
    good = good && cprofi_seh_arm64_begin(&image, CODE + 124, &begin) && begin == CODE + 96;
    check(good, "arm64: where the function of an address begins", "%x", begin);
    check(!cprofi_seh_arm64_begin(&image, CODE + 64, &begin) &&
              !cprofi_seh_arm64_begin(&image, CODE + 128, &begin) &&
              !cprofi_seh_arm64_begin(&image, CODE - 4, &begin),
          "arm64: between functions there is none", "%x", begin);
    image.part_count = 0;
    check(!cprofi_seh_arm64_begin(&image, CODE + 100, &begin),
          "arm64: without its record a function has no end", "%x", begin);
}

static void test_x86(void) {
    cprofi_seh_frame f;
    const uint64_t lo = 0x500000, sp = lo + 4096;
    memset(memory, 0, 8192);
    memset(machine, 0, sizeof machine);
    machine[4] = sp;
    machine[5] = sp + 20;
    put(memory + 4096 + 20, sp + 100, 4);
    put(memory + 4096 + 24, 0x401234, 4);
    f = frame_at(0x402000, true);
    f.stack.lo = lo;
    f.stack.hi = lo + 8192;
    bool good = cprofi_seh_x86_step(&f) == CPROFI_SEH_FRAME && f.regs.pc == 0x401234 &&
                f.regs.r[4] == sp + 28 && f.regs.r[5] == sp + 100;
    good = good && cprofi_seh_x86_step(&f) == CPROFI_SEH_END;
    check(good, "x86: the chain of frame pointers, to the root", "no");
    machine[5] = sp - 4;
    f = frame_at(0x402000, true);
    f.stack.lo = lo;
    f.stack.hi = lo + 8192;
    check(cprofi_seh_x86_step(&f) == CPROFI_SEH_BROKEN, "x86: a frame pointer below sp ends it", "no");
}

/* ---- walks, damage, time ---- */

static void test_walk(void) {
    uint64_t pcs[64], sp = stack_lo + 4096;
    cprofi_seh_registers r;
    cprofi_seh_stack stack;
    bool truncated;
    memset(memory, 0, sizeof memory);
    memset(&r, 0, sizeof r);
    one_info("\x01\x04\x01\x00", "\x04\x42\0\0", 4, 64); /* 40 bytes */
    for (int i = 0; i < 10; i++) store(sp + 48 * (uint64_t)i + 40, i < 9 ? base + CODE + 30 : 0);
    stack.data = memory;
    stack.lo = stack_lo;
    stack.hi = stack_lo + STACK;
    r.pc = base + CODE + 20;
    r.r[4] = sp;
    uint32_t n = cprofi_seh_walk(cprofi_seh_x64_step, &images, &stack, &r, pcs, 64, &truncated,
                                 CPROFI_SEH_X64_SP, NULL);
    check(n == 10 && !truncated && pcs[0] == base + CODE + 20 && pcs[1] == base + CODE + 29 &&
              pcs[9] == base + CODE + 29,
          "a walk stores the leaf exactly and return addresses minus one", "%u", n);
    n = cprofi_seh_walk(cprofi_seh_x64_step, &images, &stack, &r, pcs, 9, &truncated,
                                 CPROFI_SEH_X64_SP, NULL);
    check(n == 9 && truncated, "a walk that has no room for more says so", "%u", n);
    stack.hi = sp + 100;
    n = cprofi_seh_walk(cprofi_seh_x64_step, &images, &stack, &r, pcs, 64, &truncated,
                                 CPROFI_SEH_X64_SP, NULL);
    check(n == 3 && truncated, "a walk to the end of the copy says that there is more", "%u", n);
    stack.hi = stack_lo + STACK;
    enum { ROUNDS = 200000 };
    double start = milliseconds() / 1e3;
    uint64_t frames = 0;
    for (int i = 0; i < ROUNDS; i++)
        frames += cprofi_seh_walk(cprofi_seh_x64_step, &images, &stack, &r, pcs, 64, &truncated,
                                 CPROFI_SEH_X64_SP, NULL);
    printf("# x64: %.0f ns a frame\n", (milliseconds() / 1e3 - start) * 1e9 / (double)frames);
}

static void mutate(uint8_t *bytes, size_t size) {
    for (uint32_t i = 1 + below(8); i > 0; i--) {
        size_t at = below((uint32_t)size);
        if (below(3) == 0) put(bytes + at, below(2) ? random_next() : below(64), 1);
        else bytes[at] ^= (uint8_t)(1 << below(8));
    }
}

/* Exact copies of parts, so that a sanitizer sees what is read beyond them. */
static void fuzz_once(bool arm) {
    uint8_t *copy, *table, *stack;
    size_t size = below(8) ? sizeof image_bytes : 1 + below(sizeof image_bytes);
    size_t table_size = below(8) ? pdata_size : below((uint32_t)pdata_size + 1);
    size_t stack_size = 8 * (1 + below(600));
    uint64_t pcs[80];
    bool truncated;
    copy = (uint8_t *)malloc(size);
    table = (uint8_t *)malloc(table_size + 1);
    stack = (uint8_t *)malloc(stack_size);
    memcpy(copy, image_bytes, size);
    memcpy(table, pdata, table_size);
    if (size > XDATA + 256) mutate(copy + XDATA, below(2) ? 40 : 256);
    if (below(4) == 0 && size > CODE + 256) mutate(copy + CODE, 256);
    if (below(4) == 0 && table_size) mutate(table, table_size);
    part.bytes.data = copy;
    part.bytes.size = size;
    image.pdata.data = table;
    image.pdata.size = table_size;
    cprofi_seh_registers r;
    cprofi_seh_stack s;
    s.data = stack;
    s.lo = stack_lo;
    s.hi = stack_lo + stack_size;
    for (size_t i = 0; i + 8 <= stack_size; i += 8)
        put(stack + i, below(3) ? base + CODE + below(512) : stack_lo + below((uint32_t)stack_size), 8);
    for (size_t i = 0; i < 32; i++) r.r[i] = below(4) ? stack_lo + 8 * below(600) : random_next();
    r.pc = base + CODE + below(below(2) ? 512 : IMAGE);
    uint32_t n = cprofi_seh_walk(arm ? cprofi_seh_arm64_step : cprofi_seh_x64_step, &images, &s, &r,
                                 pcs, 80, &truncated, arm ? CPROFI_SEH_ARM64_SP : CPROFI_SEH_X64_SP, NULL);
    if (n == 0 || n > 80) abort();
    free(copy);
    free(table);
    free(stack);
}

static void test_fuzz(void) {
    const char *wanted = getenv("CPROF_TEST_FUZZ");
    double limit = wanted ? atof(wanted) : 1, start = milliseconds() / 1e3;
    unsigned long long rounds = 0;
    while (milliseconds() / 1e3 - start < limit || rounds < 3000) {
        bool arm = below(2);
        reset();
        if (arm) {
            uint32_t ends[2] = {20, 40};
            random_ops();
            write_arm64(60, ends, 2, below(2), below(2), below(2));
            add_entry(CODE, XDATA, 0, 8);
            add_entry(CODE + 240, (uint32_t)random_next() | 1, 0, 8);
        } else {
            shape f = random_shape();
            if (f.alloc > 1000) f.alloc = 1000;
            entry[4] = machine[4] = stack_lo + STACK - 4096;
            function_x64(&f, false);
        }
        for (int i = 0; i < 8; i++, rounds++) fuzz_once(arm);
    }
    check(true, "damaged tables are survived", " ");
    printf("# %llu walks over damaged tables\n", rounds);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_random_x64();
    test_corners_x64();
    test_random_arm64();
    test_packed();
    test_corners_arm64();
    test_begin();
    test_x86();
    test_walk();
    test_fuzz();
    return failures != 0;
}
