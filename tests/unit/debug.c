/* Debug sections and separate debug files: inflate against streams made bit by bit here and by
   python3's zlib, the sections of ELF files made here and by $CC and objcopy in every compression
   they know, the search for debug files in trees made here; damaged input of all kinds.

   Run:   cc -g -O1 -I. tests/unit/debug.c -o debug -lpthread && ./debug
   Best with -fsanitize=address,undefined. CPROF_TEST_ROUNDS: how many damaged inputs of each kind
   (8000). CPROF_TEST_LARGE may name a large file to compute a CRC of. */
#include "unit.h"

#include <elf.h>

static int rounds(void) {
    const char *wanted = getenv("CPROF_TEST_ROUNDS");
    return wanted ? atoi(wanted) : 8000;
}

static char scratch[256];

/* ---- bytes that grow ---- */

typedef struct {
    uint8_t *data;
    size_t size, capacity;
    unsigned bit; /* of the last byte, where the next bit goes; 0: in a new byte */
} bytes;

static void add(bytes *b, const void *data, size_t size) {
    if (b->size + size >= b->capacity) {
        b->capacity = 2 * (b->size + size) + 16;
        b->data = (uint8_t *)realloc(b->data, b->capacity);
        if (!b->data) abort();
    }
    if (size) memcpy(b->data + b->size, data, size);
    b->size += size;
    b->bit = 0;
}

/* `size` bytes, little-endian. */
static void add_uint(bytes *b, uint64_t value, size_t size) {
    for (; size; size--, value >>= 8) {
        uint8_t byte = (uint8_t)value;
        add(b, &byte, 1);
    }
}

/* Big-endian. */
static void add_big(bytes *b, uint64_t value, size_t size) {
    while (size--) add_uint(b, value >> (8 * size) & 0xff, 1);
}

/* n bits, the lowest first. */
static void add_bits(bytes *b, uint32_t value, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        unsigned bit = b->bit;
        if (!bit) add_uint(b, 0, 1);
        b->data[b->size - 1] |= (uint8_t)((value >> i & 1) << bit);
        b->bit = (bit + 1) & 7;
    }
}

/* A code of n bits, the highest first. */
static void add_code(bytes *b, uint32_t code, unsigned n) {
    while (n--) add_bits(b, code >> n & 1, 1);
}

static uint32_t slow_adler(const uint8_t *p, size_t size) {
    uint32_t a = 1, b = 0;
    for (size_t i = 0; i < size; i++) {
        a = (a + p[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

/* ---- inflate: streams made here ---- */

/* Inflates from and to memory of exactly these sizes. */
static bool inflate_exact(const void *stream, size_t stream_size, uint8_t **plain, size_t size) {
    uint8_t *in = (uint8_t *)malloc(stream_size ? stream_size : 1);
    uint8_t *out = (uint8_t *)malloc(size ? size : 1);
    cprofi_span span = {in, stream_size};
    bool ok;
    if (!in || !out) abort();
    memcpy(in, stream, stream_size);
    ok = cprofi_inflate(span, out, size);
    free(in);
    if (plain) *plain = out;
    else free(out);
    return ok;
}

static bool inflates_to(const bytes *stream, const void *wanted, size_t size) {
    uint8_t *out;
    bool ok = inflate_exact(stream->data, stream->size, &out, size) &&
              memcmp(out, wanted, size) == 0;
    free(out);
    return ok;
}

static bytes stream_begin(void) {
    bytes b = {NULL, 0, 0, 0};
    add_uint(&b, 0x9c78, 2);
    return b;
}

static void stream_end(bytes *b, const void *plain, size_t size) {
    add_big(b, slow_adler((const uint8_t *)plain, size), 4);
}

static void stored_block(bytes *b, const void *plain, size_t size, bool last) {
    add_bits(b, last, 1);
    add_bits(b, 0, 2);
    b->bit = 0;
    add_uint(b, size, 2);
    add_uint(b, size ^ 0xffff, 2);
    add(b, plain, size);
}

/* A stream without compression. */
static bytes stored(const void *plain, size_t size) {
    bytes b = stream_begin();
    for (size_t at = 0; at < size || at == 0; at += 50000) {
        size_t n = size - at < 50000 ? size - at : 50000;
        stored_block(&b, (const uint8_t *)plain + at, n, at + n == size);
    }
    stream_end(&b, plain, size);
    return b;
}

/* A symbol of the fixed code (RFC 1951, 3.2.6). */
static void fixed_symbol(bytes *b, uint32_t symbol) {
    if (symbol < 144) add_code(b, 0x30 + symbol, 8);
    else if (symbol < 256) add_code(b, 0x190 + symbol - 144, 9);
    else if (symbol < 280) add_code(b, symbol - 256, 7);
    else add_code(b, 0xc0 + symbol - 280, 8);
}

/* `before` bytes in a stored block, then one fixed block: a match of length 258 at a distance, also
   given as symbol and extra bits. */
static bool far_match(uint32_t symbol, uint32_t extra, unsigned extra_bits, size_t before,
                      size_t distance) {
    static uint8_t plain[40000 + 258];
    bytes b = stream_begin();
    bool ok;
    for (size_t i = 0; i < before; i++) plain[i] = (uint8_t)random_next();
    stored_block(&b, plain, before, false);
    add_bits(&b, 1, 1);
    add_bits(&b, 1, 2);
    fixed_symbol(&b, 285);
    add_code(&b, symbol, 5);
    add_bits(&b, extra, extra_bits);
    fixed_symbol(&b, 256);
    for (size_t i = before; i < before + 258 && distance <= before; i++)
        plain[i] = plain[i - distance];
    stream_end(&b, plain, before + 258);
    ok = inflates_to(&b, plain, before + 258);
    free(b.data);
    return ok;
}

/* A dynamic block whose code lengths are given one by one, without repeats (all 16 symbols of the
   code for lengths have 4 bits; 16 to 18 have none). Ends after the codes. */
static bytes dynamic_block(const uint8_t *lengths, unsigned literal, unsigned distance) {
    static const uint8_t order[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                      11, 4,  12, 3, 13, 2, 14, 1, 15};
    bytes b = stream_begin();
    add_bits(&b, 1, 1);
    add_bits(&b, 2, 2);
    add_bits(&b, literal - 257, 5);
    add_bits(&b, distance - 1, 5);
    add_bits(&b, 19 - 4, 4);
    for (size_t i = 0; i < 19; i++) add_bits(&b, order[i] < 16 ? 4 : 0, 3);
    for (size_t i = 0; i < literal + distance; i++) add_code(&b, lengths[i], 4);
    return b;
}

static void test_inflate_codes(void) {
    uint8_t lengths[286 + 30];
    bytes b;
    /* Symbols 0 to 14 have codes of 1 to 15 bits, 256 has the other one of 15. */
    memset(lengths, 0, sizeof lengths);
    for (size_t i = 0; i < 15; i++) lengths[i] = (uint8_t)(i + 1);
    lengths[256] = 15;
    b = dynamic_block(lengths, 257, 1);
    for (uint32_t i = 0; i < 15; i++) add_code(&b, i == 14 ? 0x7ffe : (2u << i) - 2, i + 1);
    add_code(&b, 0x7fff, 15);
    {
        uint8_t plain[15];
        for (size_t i = 0; i < 15; i++) plain[i] = (uint8_t)i;
        stream_end(&b, plain, 15);
        check(inflates_to(&b, plain, 15), "codes of 1 to 15 bits", "refused or wrong");
    }
    free(b.data);

    /* One distance code of one bit; its other half has no meaning. */
    for (uint32_t code = 0; code < 2; code++) {
        static const uint8_t plain[] = "aaaa";
        memset(lengths, 0, sizeof lengths);
        lengths['a'] = 1;
        lengths[256] = 2;
        lengths[257] = 2;
        lengths[258] = 1;
        b = dynamic_block(lengths, 258, 1);
        add_code(&b, 0, 1);
        add_code(&b, 3, 2);
        add_code(&b, code, 1);
        add_code(&b, 2, 2);
        stream_end(&b, plain, 4);
        check(inflates_to(&b, plain, 4) == !code,
              code ? "the free half of a code is refused" : "one distance code of one bit",
              "%s", code ? "taken" : "refused");
        free(b.data);
    }

    memset(lengths, 0, sizeof lengths);
    lengths['a'] = lengths['b'] = lengths[256] = 1;
    b = dynamic_block(lengths, 257, 1);
    add_code(&b, 1, 1);
    stream_end(&b, "", 0);
    check(!inflates_to(&b, "", 0), "an over-full code is refused", "taken");
    free(b.data);
    memset(lengths, 0, sizeof lengths);
    lengths['a'] = lengths[256] = 2;
    b = dynamic_block(lengths, 257, 1);
    add_code(&b, 1, 2);
    stream_end(&b, "", 0);
    check(!inflates_to(&b, "", 0), "an incomplete code is refused", "taken");
    free(b.data);
    memset(lengths, 0, sizeof lengths);
    lengths['a'] = lengths['b'] = 1;
    b = dynamic_block(lengths, 257, 1);
    stream_end(&b, "", 0);
    check(!inflates_to(&b, "", 0), "a code without an end is refused", "taken");
    free(b.data);
}

static bool fixed_refused(uint32_t symbol, uint32_t distance) {
    static const uint8_t plain[64] = {0};
    bool refused = true;
    for (size_t size = 0; size < sizeof plain; size++) {
        bytes b = stream_begin();
        add_bits(&b, 1, 1);
        add_bits(&b, 1, 2);
        fixed_symbol(&b, 0);
        fixed_symbol(&b, symbol);
        add_code(&b, distance, 5);
        fixed_symbol(&b, 256);
        stream_end(&b, plain, size);
        refused = refused && !inflate_exact(b.data, b.size, NULL, size);
        free(b.data);
    }
    return refused;
}

static void test_inflate(void) {
    static const uint8_t text[] = "stored, fixed and dynamic blocks";
    static uint8_t large[65535 + 700];
    static const unsigned flips[][2] = {{0, 0x01}, {0, 0x80}, {1, 0x20}, {1, 0x01}};
    bytes b = stream_begin();
    size_t refused = 0;
    add_bits(&b, 1, 1);
    add_bits(&b, 1, 2);
    fixed_symbol(&b, 256);
    stream_end(&b, "", 0);
    check(inflates_to(&b, "", 0), "the empty text", "refused");
    check(!inflate_exact(b.data, b.size, NULL, 1), "less than promised is refused", "taken");
    free(b.data);
    b = stored(text, sizeof text);
    check(inflates_to(&b, text, sizeof text), "a stored block", "refused or wrong");
    check(!inflate_exact(b.data, b.size, NULL, sizeof text - 1), "more than promised is refused",
          "taken");
    add(&b, "behind", 6);
    check(inflates_to(&b, text, sizeof text), "bytes after the stream are ignored", "refused");
    b.size -= 6;
    for (size_t i = 0; i < 4; i++) {
        b.data[flips[i][0]] ^= (uint8_t)flips[i][1];
        refused += !inflate_exact(b.data, b.size, NULL, sizeof text);
        b.data[flips[i][0]] ^= (uint8_t)flips[i][1];
    }
    b.data[0] = 0x88; /* a window of 64 KB, with the right check bits */
    b.data[1] = 0x1c;
    refused += !inflate_exact(b.data, b.size, NULL, sizeof text);
    b.data[0] = 0x78; /* a preset dictionary */
    b.data[1] = 0xbb;
    refused += !inflate_exact(b.data, b.size, NULL, sizeof text);
    check(refused == 6, "wrong headers are refused", "%zu of 6", refused);
    free(b.data);
    b = stored(text, sizeof text);
    b.data[b.size - 1] ^= 1;
    check(!inflates_to(&b, text, sizeof text), "a wrong checksum is refused", "taken");
    b.data[b.size - 1] ^= 1;
    b.data[5] ^= 1;
    check(!inflates_to(&b, text, sizeof text), "a stored length unlike its complement is refused",
          "taken");
    free(b.data);
    b = stream_begin();
    add_bits(&b, 7, 3);
    add_uint(&b, 0, 8);
    check(!inflate_exact(b.data, b.size, NULL, 0), "a block of type 3 is refused", "taken");
    free(b.data);

    for (size_t i = 0; i < sizeof large; i++) large[i] = (uint8_t)(i % 251);
    b = stream_begin();
    stored_block(&b, large, 65535, false);
    stored_block(&b, large, 0, false);
    stored_block(&b, large + 65535, 700, true);
    stream_end(&b, large, sizeof large);
    check(inflates_to(&b, large, sizeof large), "the largest stored block", "refused or wrong");
    free(b.data);
    check(far_match(29, 8191, 13, 32768, 32768), "a match at distance 32768", "refused or wrong");
    check(!far_match(29, 8191, 13, 32767, 32768), "a match before the start is refused", "taken");
    check(far_match(0, 0, 0, 1, 1), "a match at distance 1", "refused or wrong");
    check(far_match(6, 3, 2, 40, 12), "a match at distance 12", "refused or wrong");
    check(fixed_refused(286, 0) && fixed_refused(287, 0), "lengths 286 and 287 are refused",
          "taken");
    check(!far_match(30, 0, 14, 40000, 32769) && fixed_refused(257, 30) && fixed_refused(257, 31),
          "distances 30 and 31 are refused", "taken");
    test_inflate_codes();
}

/* ---- inflate: streams of zlib ---- */

static const char python[] =
    "import random, struct, sys, zlib\n"
    "r = random.Random(1)\n"
    "word = [bytes(r.choice(b'abcdefghijklmnop_') for _ in range(r.randint(1, 9)))\n"
    "        for _ in range(300)]\n"
    "text = b' '.join(r.choice(word) for _ in range(12000))\n"
    "noise = bytes(r.getrandbits(8) for _ in range(70000))\n"
    "fib = [1, 1]\n"
    "while len(fib) < 22: fib.append(fib[-1] + fib[-2])\n"
    "skew = bytearray()\n"
    "for i, n in enumerate(fib): skew += bytes([i * 11]) * n\n"
    "r.shuffle(skew)\n"
    "near = noise[:32506] * 2 + noise[:100]\n"
    "runs = b''.join(bytes([r.getrandbits(2)]) * r.choice((1, 2, 3, 257, 258, 259, 516))\n"
    "                for _ in range(300))\n"
    "periods = b''.join(noise[i * 50:i * 50 + p] * (300 // p + 2)\n"
    "                   for i, p in enumerate(range(1, 40)))\n"
    "data = [b'', b'x', text, noise[:3000], bytes(100000), bytes(skew), near, runs, periods,\n"
    "        noise[:32767] + noise[:300], noise[:32768] + noise[:300], text[:258]]\n"
    "with open(sys.argv[1], 'wb') as f:\n"
    "    for plain in data:\n"
    "        for level in range(10):\n"
    "            for strategy in range(5):\n"
    "                c = zlib.compressobj(level, zlib.DEFLATED, 15 - (level + strategy) % 3 * 3,\n"
    "                                     1 + (level * 5 + strategy) % 9, strategy)\n"
    "                half = len(plain) // 2\n"
    "                z = c.compress(plain[:half])\n"
    "                if level % 4 == 1: z += c.flush(zlib.Z_FULL_FLUSH)\n"
    "                if level % 4 == 2: z += c.flush(zlib.Z_SYNC_FLUSH)\n"
    "                z += c.compress(plain[half:]) + c.flush()\n"
    "                f.write(struct.pack('<QQ', len(plain), len(z)) + plain + z)\n";

static bool write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    if (size && fwrite(data, 1, size, f) != size) abort();
    return fclose(f) == 0;
}

static bytes read_file(const char *path) {
    bytes b = {NULL, 0, 0, 0};
    uint8_t piece[4096];
    FILE *f = fopen(path, "rb");
    size_t n;
    while (f && (n = fread(piece, 1, sizeof piece, f)) > 0) add(&b, piece, n);
    if (f) fclose(f);
    return b;
}

typedef struct {
    const uint8_t *plain, *stream;
    size_t plain_size, stream_size;
} pair;

/* Whether a stream whose damage is unknown was judged well: a text that was taken has the checksum
   that stands at some place of the stream. */
static bool judged(const uint8_t *stream, size_t size, size_t plain_size) {
    uint8_t *out, sum[4];
    bool good = true;
    if (inflate_exact(stream, size, &out, plain_size)) {
        uint32_t adler = slow_adler(out, plain_size);
        good = false;
        for (size_t i = 0; i < 4; i++) sum[i] = (uint8_t)(adler >> (24 - 8 * i));
        for (size_t i = 0; i + 4 <= size && !good; i++) good = memcmp(stream + i, sum, 4) == 0;
    }
    free(out);
    return good;
}

static void test_inflate_damage(const pair *pairs, size_t count) {
    size_t cut = 0, cuts = 0, bad = 0;
    double start = milliseconds();
    for (size_t i = 0; i < count; i++) {
        const pair *p = &pairs[i];
        size_t step = p->stream_size < 700 ? 1 : p->stream_size / 5;
        if (p->stream_size >= 700 && i % 7) continue;
        for (size_t n = 0; n < p->stream_size; n += step) {
            cuts++;
            cut += !inflate_exact(p->stream, n, NULL, p->plain_size);
        }
    }
    check(cut == cuts, "a stream cut anywhere is refused", "%zu of %zu", cut, cuts);
    for (int round = 0; round < rounds(); round++) {
        const pair *p = &pairs[random_below(count)];
        size_t size = p->stream_size, plain_size = p->plain_size;
        uint8_t *copy;
        if (size > 3000 && round % 16) continue;
        copy = (uint8_t *)malloc(size);
        if (!copy) abort();
        memcpy(copy, p->stream, size);
        for (size_t n = 1 + random_below(4); n; n--) {
            size_t at = random_below(random_below(3) ? size : size < 100 ? size : 100);
            copy[at] = random_below(2) ? (uint8_t)random_next()
                                       : (uint8_t)(copy[at] ^ 1u << random_below(8));
        }
        if (!random_below(4)) plain_size = random_below(plain_size + 600);
        bad += !judged(copy, size, plain_size);
        free(copy);
    }
    check(!bad, "damaged streams neither crash nor pass", "%zu passed", bad);
    printf("# %zu cut and %d damaged streams in %.0f ms\n", cuts, rounds(), milliseconds() - start);
}

static void test_zlib(void) {
    char path[512];
    pair pairs[1000];
    size_t count = 0, good = 0;
    bytes all;
    snprintf(path, sizeof path, "%s/make.py", scratch);
    if (!write_file(path, python, sizeof python - 1)) abort();
    if (!run("python3 '%s' '%s/streams' 2>/dev/null", path, scratch)) {
        skip("streams of zlib", "no python3 with zlib");
        return;
    }
    snprintf(path, sizeof path, "%s/streams", scratch);
    all = read_file(path);
    for (size_t at = 0; at + 16 <= all.size && count < CPROFI_COUNT(pairs); count++) {
        pair *p = &pairs[count];
        p->plain_size = (size_t)cprofi_get64(all.data + at);
        p->stream_size = (size_t)cprofi_get64(all.data + at + 8);
        p->plain = all.data + at + 16;
        p->stream = p->plain + p->plain_size;
        at += 16 + p->plain_size + p->stream_size;
    }
    for (size_t i = 0; i < count; i++) {
        bytes b = {(uint8_t *)(uintptr_t)pairs[i].stream, pairs[i].stream_size, 0, 0};
        good += inflates_to(&b, pairs[i].plain, pairs[i].plain_size);
    }
    check(good == count && count == 600, "streams of zlib at all levels and strategies",
          "%zu of %zu", good, count);
    test_inflate_damage(pairs, count);
    free(all.data);
}

/* ---- sections of files made here ---- */

typedef struct {
    const char *name;
    uint32_t type;
    uint64_t flags;
    const void *data;
    size_t size;
} section;

/* An ELF file with these sections and, last, their names. */
static bytes elf_of(const section *sections, size_t n) {
    bytes b = {NULL, 0, 0, 0}, names = {NULL, 0, 0, 0}, headers = {NULL, 0, 0, 0};
    const size_t word = 8;
    size_t table;
    add(&b, "\177ELF", 4);
    add_uint(&b, ELFCLASS64, 1);
    add_uint(&b, ELFDATA2LSB, 1);
    add_uint(&b, 1, 1);
    while (b.size < 64) add_uint(&b, 0, 1);
    add_uint(&names, 0, 1);
    for (size_t i = 0; i <= n + 1; i++) {
        static const section null = {"", SHT_NULL, 0, "", 0};
        section s = i == 0 ? null : sections[i - 1 < n ? i - 1 : 0];
        if (i == n + 1) {
            s.name = ".shstrtab";
            s.type = SHT_STRTAB;
            s.flags = 0;
            s.size = names.size + 10;
        }
        add_uint(&headers, i ? names.size : 0, 4);
        add_uint(&headers, s.type, 4);
        add_uint(&headers, s.flags, word);
        add_uint(&headers, 0, word);
        add_uint(&headers, i ? b.size : 0, word);
        add_uint(&headers, s.size, word);
        add_uint(&headers, 0, 8);
        add_uint(&headers, 0, 2 * word);
        if (i) add(&names, s.name, strlen(s.name) + 1);
        if (i == n + 1) add(&b, names.data, names.size);
        else if (s.type != SHT_NOBITS && s.data) add(&b, s.data, s.size);
    }
    table = b.size;
    add(&b, headers.data, headers.size);
    for (size_t i = 0; i < word; i++)
        b.data[24 + 2 * word + i] = (uint8_t)((uint64_t)table >> (8 * i));
    b.data[58] = 64;
    b.data[60] = (uint8_t)(n + 2);
    b.data[62] = (uint8_t)(n + 1);
    free(names.data);
    free(headers.data);
    return b;
}

/* A compressed section: header and stream. */
static bytes packed(const void *plain, size_t size, uint32_t type, uint64_t claimed) {
    bytes b = {NULL, 0, 0, 0}, z = stored(plain, size);
    add_uint(&b, type, 8);
    add_uint(&b, claimed, 8);
    add_uint(&b, 1, 8);
    add(&b, z.data, z.size);
    free(z.data);
    return b;
}

static bytes packed_old(const char *magic, const void *plain, size_t size, uint64_t claimed) {
    bytes b = {NULL, 0, 0, 0}, z = stored(plain, size);
    add(&b, magic, 4);
    add_big(&b, claimed, 8);
    add(&b, z.data, z.size);
    free(z.data);
    return b;
}

static bool span_read(const cprofi_source *source, uint64_t offset, void *to, size_t size) {
    if (offset > source->memory.size || size > source->memory.size - offset) abort();
    memcpy(to, source->memory.data + offset, size);
    return true;
}

/* Opens a file in memory, of exactly its size; what the sections hold is read into `out`. */
static cprofi_debug_result open_bytes(const bytes *file, bool by_read, bytes *out,
                                      bool *supplementary) {
    uint8_t *exact = (uint8_t *)malloc(file->size ? file->size : 1);
    cprofi_span span = {exact, file->size};
    cprofi_source source = cprofi_source_of(span);
    cprofi_debug_result result = CPROFI_DEBUG_NONE;
    cprofi_debug debug;
    cprofi_elf elf;
    if (!exact) abort();
    memcpy(exact, file->data, file->size);
    if (by_read) source.read = span_read;
    memset(out, 0, CPROFI_DWARF_SECTIONS * sizeof *out);
    *supplementary = false;
    if (cprofi_elf_open(&source, &elf)) {
        result = cprofi_debug_open(&elf, &debug);
        for (size_t i = 0; i < CPROFI_DWARF_SECTIONS; i++) {
            const cprofi_source *s = &debug.dwarf.sections[i];
            if (!s->size) continue;
            out[i].data = (uint8_t *)malloc((size_t)s->size);
            out[i].size = (size_t)s->size;
            if (!out[i].data || !cprofi_source_read(s, 0, out[i].data, out[i].size)) abort();
        }
        *supplementary = debug.supplementary;
        cprofi_debug_close(&debug);
        cprofi_elf_close(&elf);
    }
    free(exact);
    return result;
}

/* What a file of these sections gives for .debug_info, with and without a read function. */
static void expect(const char *what, const section *sections, size_t n,
                   cprofi_debug_result wanted, const char *info, const char *line) {
    bytes file = elf_of(sections, n), out[CPROFI_DWARF_SECTIONS];
    for (int by_read = 0; by_read < 2; by_read++) {
        bool supplementary;
        cprofi_debug_result result = open_bytes(&file, by_read, out, &supplementary);
        const bytes *i = &out[CPROFI_DWARF_INFO], *l = &out[CPROFI_DWARF_LINE];
        bool same_info = i->size == strlen(info) &&
                         (!i->size || memcmp(i->data, info, i->size) == 0);
        bool same_line = l->size == strlen(line) &&
                         (!l->size || memcmp(l->data, line, l->size) == 0);
        if (!by_read || result != wanted || !same_info || !same_line)
            check(result == wanted && same_info && same_line, what,
                  "result %d, %zu bytes of info, %zu of line", (int)result, i->size, l->size);
        for (size_t k = 0; k < CPROFI_DWARF_SECTIONS; k++) free(out[k].data);
    }
    free(file.data);
}

static section plain_section(const char *name, const char *text) {
    section s = {name, SHT_PROGBITS, 0, text, strlen(text)};
    return s;
}

static void test_sections(void) {
    static const char info[] = "the info", line[] = "the lines";
    bytes zlib = packed(info, 8, 1, 8), zstd = packed(info, 8, 2, 8);
    bytes huge = packed(info, 8, 1, (uint64_t)1 << 46);
    bytes less = packed(info, 8, 1, 7), old = packed_old("ZLIB", info, 8, 8);
    bytes old_huge = packed_old("ZLIB", info, 8, (uint64_t)1 << 62);
    bytes magic = packed_old("ZSTD", info, 8, 8);
    bytes past = packed(info, 8, 1, ((uint64_t)(zlib.size - 24) + 1) * 1032);
    section s[3], packed_info = {".debug_info", SHT_PROGBITS, SHF_COMPRESSED, zlib.data, zlib.size};
    s[0] = plain_section(".debug_info", info);
    s[1] = plain_section(".debug_line", line);
    expect("plain sections", s, 2, CPROFI_DEBUG_OK, info, line);
    s[2] = plain_section(".debug_info", "another");
    expect("the first of two sections counts", s, 3, CPROFI_DEBUG_OK, info, line);
    s[0].size = 0;
    expect("the first section that is not empty counts", s, 3, CPROFI_DEBUG_OK, "another",
           line);
    s[0] = plain_section(".debug_info", info);
    s[0].type = SHT_NOBITS;
    expect("sections without bytes are absent", s, 2, CPROFI_DEBUG_OK, "", line);
    s[1] = plain_section(".debug_line.dwo", line);
    expect("a file without debug sections", s, 2, CPROFI_DEBUG_NONE, "", "");
    s[0] = plain_section("debug_info", info);
    s[1] = plain_section(".debug_lin", line);
    s[2] = plain_section(".debug_information_that_has_a_long_name", line);
    expect("names that only resemble", s, 3, CPROFI_DEBUG_NONE, "", "");

    s[0] = packed_info;
    s[1] = plain_section(".debug_line", line);
    expect("SHF_COMPRESSED with zlib", s, 2, CPROFI_DEBUG_OK, info, line);
    s[0].data = zstd.data;
    expect("SHF_COMPRESSED with zstd, the others served", s, 2,
           CPROFI_DEBUG_UNKNOWN_COMPRESSION, "", line);
    s[0].data = huge.data;
    expect("a size out of proportion", s, 2, CPROFI_DEBUG_DAMAGED, "", line);
    s[0].data = past.data;
    expect("a size just out of proportion", s, 2, CPROFI_DEBUG_DAMAGED, "", line);
    s[0].data = less.data;
    expect("a size that is not that of the text", s, 2, CPROFI_DEBUG_DAMAGED, "", line);
    s[0] = packed_info;
    s[0].size = 23;
    expect("a section shorter than its header", s, 2, CPROFI_DEBUG_DAMAGED, "", line);
    s[0].size = 24;
    expect("a section that is only its header", s, 2, CPROFI_DEBUG_DAMAGED, "", line);
    s[2] = plain_section(".debug_info", "another");
    expect("a damaged section is not replaced", s, 3, CPROFI_DEBUG_DAMAGED, "", line);
    s[0] = packed_info;
    s[0].name = ".zdebug_info";
    expect("SHF_COMPRESSED and .zdebug", s, 2, CPROFI_DEBUG_OK, info, line);
    s[0].flags = 0;
    s[0].data = old.data;
    s[0].size = old.size;
    expect(".zdebug", s, 2, CPROFI_DEBUG_OK, info, line);
    expect(".zdebug and .debug", s, 3, CPROFI_DEBUG_OK, info, line);
    s[0].data = old_huge.data;
    expect(".zdebug with a size out of proportion", s, 2, CPROFI_DEBUG_DAMAGED, "", line);
    s[0].data = magic.data;
    expect(".zdebug without its mark", s, 2, CPROFI_DEBUG_DAMAGED, "", line);
    s[0].size = 11;
    expect(".zdebug shorter than its header", s, 2, CPROFI_DEBUG_DAMAGED, "", line);
    free(zlib.data);
    free(zstd.data);
    free(huge.data);
    free(past.data);
    free(less.data);
    free(old.data);
    free(old_huge.data);
    free(magic.data);
}

/* Every section has its place, and nothing is read of what is not compressed. */
static void test_section_names(void) {
    static const char *const names[] = {
        ".debug_info", ".debug_abbrev", ".debug_line", ".debug_str", ".debug_line_str",
        ".debug_str_offsets", ".debug_addr", ".debug_ranges", ".debug_rnglists", ".debug_aranges",
        ".gnu_debugaltlink"};
    section s[CPROFI_COUNT(names)];
    bytes file, out[CPROFI_DWARF_SECTIONS];
    bool supplementary = false, before;
    size_t good = 0;
    for (size_t i = 0; i < CPROFI_COUNT(names); i++) s[i] = plain_section(names[i], names[i]);
    file = elf_of(s, CPROFI_COUNT(names) - 1);
    open_bytes(&file, true, out, &before);
    for (size_t i = 0; i < CPROFI_DWARF_SECTIONS; i++) free(out[i].data);
    free(file.data);
    file = elf_of(s, CPROFI_COUNT(names));
    open_bytes(&file, true, out, &supplementary);
    for (size_t i = 0; i < CPROFI_DWARF_SECTIONS; i++) {
        good += out[i].size == strlen(names[i]) && !memcmp(out[i].data, names[i], out[i].size);
        free(out[i].data);
    }
    check(good == CPROFI_DWARF_SECTIONS, "every section has its place", "%zu of %d", good,
          (int)CPROFI_DWARF_SECTIONS);
    check(supplementary && !before, ".gnu_debugaltlink is noticed", "%d, without it %d",
          supplementary, before);
    free(file.data);
}

/* ---- search in damaged files ---- */

static void find_in(const bytes *file, bool *found, bool *stale) {
    cprofi_debug_places places = {scratch};
    cprofi_span span = {file->data, file->size};
    cprofi_source source = cprofi_source_of(span), other;
    cprofi_elf elf, debug;
    *found = false;
    if (!cprofi_elf_open(&source, &elf)) return;
    *found = cprofi_debug_find(&places, "/no/such/image", &elf, &other, &debug, stale);
    if (*found) {
        cprofi_elf_close(&debug);
        cprofi_source_close(&other);
    }
    cprofi_elf_close(&elf);
}

/* A file with compressed sections, a build id and a link to the debug file "link.debug". */
static bytes seed_file(uint32_t crc) {
    bytes zlib = packed("the info", 8, 1, 8), old = packed_old("ZLIB", "lines", 5, 5);
    bytes link = {NULL, 0, 0, 0}, note = {NULL, 0, 0, 0}, file;
    section s[5] = {{".debug_info", SHT_PROGBITS, SHF_COMPRESSED, NULL, 0},
                    {".zdebug_line", SHT_PROGBITS, 0, NULL, 0},
                    {".debug_str", SHT_PROGBITS, 0, "strings", 7},
                    {".gnu_debuglink", SHT_PROGBITS, 0, NULL, 0},
                    {".note.gnu.build-id", SHT_NOTE, 0, NULL, 0}};
    add(&link, "link.debug\0\0", 12);
    add_uint(&link, crc, 4);
    add_uint(&note, 4, 4);
    add_uint(&note, 4, 4);
    add_uint(&note, 3, 4);
    add(&note, "GNU\0\1\2\3\4", 8);
    s[0].data = zlib.data;
    s[0].size = zlib.size;
    s[1].data = old.data;
    s[1].size = old.size;
    s[3].data = link.data;
    s[3].size = link.size;
    s[4].data = note.data;
    s[4].size = note.size;
    file = elf_of(s, 5);
    free(zlib.data);
    free(old.data);
    free(link.data);
    free(note.data);
    return file;
}

static uint32_t slow_crc(const uint8_t *p, size_t size) {
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < size * 8; i++) {
        uint32_t bit = (crc ^ (uint32_t)(p[i / 8] >> i % 8)) & 1;
        crc = crc >> 1 ^ (bit ? 0xedb88320u : 0);
    }
    return ~crc;
}

static void test_crc(void) {
    static const size_t sizes[] = {0, 1, 7, 8, 9, 1000, 262143, 262144, 262145, 600000};
    static const uint8_t digits[] = "123456789";
    cprofi_span span = {digits, 9};
    cprofi_source source = cprofi_source_of(span);
    const char *large = getenv("CPROF_TEST_LARGE");
    uint32_t crc = 0;
    size_t good = 0;
    check(cprofi_crc32_of(&source, &crc) && crc == 0xcbf43926, "the CRC of \"123456789\"",
          "0x%x", crc);
    for (size_t i = 0; i < CPROFI_COUNT(sizes); i++) {
        uint8_t *p = (uint8_t *)malloc(sizes[i] + 1);
        if (!p) abort();
        for (size_t k = 0; k < sizes[i]; k++) p[k] = (uint8_t)random_next();
        span.data = p;
        span.size = sizes[i];
        source = cprofi_source_of(span);
        good += cprofi_crc32_of(&source, &crc) && crc == slow_crc(p, sizes[i]);
        free(p);
    }
    check(good == CPROFI_COUNT(sizes), "the CRC of any size", "%zu of %zu", good,
          CPROFI_COUNT(sizes));
    if (large && cprofi_source_open(large, &source)) {
        double start = milliseconds();
        bool ok = cprofi_crc32_of(&source, &crc);
        start = milliseconds() - start;
        printf("# CRC of %s: %08x (%d), %.0f MB/s\n", large, crc, ok,
               (double)source.size / start / 1e3);
        cprofi_source_close(&source);
    }
}

static void test_fuzz(void) {
    static const uint64_t nasty[] = {0, 1, 2, 8, 0x7f, 0xff, 0x800, 0xffff, 0x7fffffff, 0xffffffff,
                                     0x80000000, 0xffffffffffffffffu, 0x8000000000000000u,
                                     0xfffffffffffff000u};
    char path[512];
    bytes target, seed;
    size_t opened = 0, found = 0, stale_ones = 0, total = 0;
    section s = plain_section(".debug_info", "the real info");
    double start = milliseconds(), worst = 0;
    snprintf(path, sizeof path, "%s/link.debug", scratch);
    for (int with_bytes = 0; with_bytes < 2; with_bytes++) {
        bool was_found, stale = false;
        s.type = with_bytes ? SHT_PROGBITS : SHT_NOBITS;
        target = elf_of(&s, 1);
        write_file(path, target.data, target.size);
        seed = seed_file(slow_crc(target.data, target.size));
        find_in(&seed, &was_found, &stale);
        check(was_found == with_bytes && !stale, with_bytes ? "a debug file made here"
              : "a debug file whose sections have no bytes does not count", "found: %d, stale: %d",
              was_found, stale);
        free(seed.data);
        if (!with_bytes) free(target.data);
    }
    seed = seed_file(slow_crc(target.data, target.size));
    for (int round = 0; round < rounds(); round++) {
        bytes file = {NULL, 0, 0, 0}, out[CPROFI_DWARF_SECTIONS];
        size_t tables = (size_t)cprofi_get32(seed.data + 40);
        bool supplementary, was_found, stale = false;
        double before = milliseconds();
        add(&file, seed.data, seed.size);
        for (size_t i = random_below(5); i; i--) {
            size_t at = random_below(2) ? tables + random_below(file.size - tables)
                                        : random_below(file.size);
            uint64_t value = nasty[random_below(CPROFI_COUNT(nasty))];
            if (random_below(2)) file.data[at] = (uint8_t)random_next();
            else if (random_below(2)) file.data[at] ^= (uint8_t)(1u << random_below(8));
            else
                for (size_t k = at & ~(size_t)3; k < (at & ~(size_t)3) + 8 && k < file.size; k++)
                    file.data[k] = (uint8_t)(value >> (8 * (k & 7)));
        }
        if (!random_below(10)) file.size = random_below(file.size);
        opened += open_bytes(&file, random_below(2), out, &supplementary) != CPROFI_DEBUG_NONE;
        for (size_t i = 0; i < CPROFI_DWARF_SECTIONS; i++) {
            total += out[i].size;
            free(out[i].data);
        }
        if (round % 4 == 0) {
            uint8_t *exact = (uint8_t *)malloc(file.size ? file.size : 1);
            bytes copy = {exact, file.size, 0, 0};
            if (!exact) abort();
            memcpy(exact, file.data, file.size);
            find_in(&copy, &was_found, &stale);
            found += was_found;
            stale_ones += stale;
            free(exact);
        }
        free(file.data);
        if (milliseconds() - before > worst) worst = milliseconds() - before;
    }
    printf("# %d damaged files in %.0f ms, slowest %.1f ms; %zu with sections (%zu bytes), %zu led "
           "to the debug file, %zu to a stale one\n", rounds(), milliseconds() - start, worst,
           opened, total, found, stale_ones);
    check(opened > 0 && found > 0, "damaged files neither crash nor hang", "%zu, %zu", opened,
          found);
    free(seed.data);
    free(target.data);
    run("rm -f '%s/link.debug'", scratch);
}

/* Many sections of one name, each the whole file: inflated once. */
static void test_hostile(void) {
    enum { COUNT = 200, SIZE = 4000000 };
    uint8_t *plain = (uint8_t *)calloc(1, SIZE);
    section s[COUNT];
    bytes zlib, file, out[CPROFI_DWARF_SECTIONS];
    bool supplementary;
    double start;
    size_t size;
    if (!plain) abort();
    zlib = packed(plain, SIZE, 1, SIZE);
    zlib.data[zlib.size - 1] ^= 1;
    for (size_t i = 0; i < COUNT; i++) {
        section one = {".debug_info", SHT_PROGBITS, SHF_COMPRESSED, NULL, zlib.size};
        s[i] = one;
    }
    s[0].data = zlib.data;
    file = elf_of(s, COUNT);
    for (size_t i = 2; i <= COUNT; i++) /* all at the place of the first */
        memcpy(file.data + file.size - (COUNT + 2 - i) * 64 + 24,
               file.data + file.size - (COUNT + 1) * 64 + 24, 8);
    start = milliseconds();
    check(open_bytes(&file, true, out, &supplementary) == CPROFI_DEBUG_DAMAGED,
          "many damaged sections of one name", "not damaged");
    printf("# %d sections of %d MB with a wrong checksum: %.0f ms\n", COUNT, SIZE / 1000000,
           milliseconds() - start);
    for (size_t i = size = 0; i < CPROFI_DWARF_SECTIONS; i++) {
        size += out[i].size;
        free(out[i].data);
    }
    free(zlib.data);
    free(file.data);
    free(plain);
}

/* ---- files of compilers ---- */

static const char *const objcopies[] = {"zlib", "zlib-gnu", "zlib-gabi", "zstd"};

/* Compares the sections of two files; how many are not empty, or 0 if they differ. *inflated: how
   many of b's were. */
static size_t compare_files(const char *a, const char *b, size_t *inflated,
                            cprofi_debug_result *result) {
    const char *paths[2] = {a, b};
    cprofi_source sources[2];
    cprofi_elf elfs[2];
    cprofi_debug debugs[2];
    size_t same = 0, differ = 0;
    *inflated = 0;
    for (size_t i = 0; i < 2; i++) {
        if (!cprofi_source_open(paths[i], &sources[i]) ||
            !cprofi_elf_open(&sources[i], &elfs[i]))
            abort();
        *result = cprofi_debug_open(&elfs[i], &debugs[i]);
    }
    for (size_t i = 0; i < CPROFI_DWARF_SECTIONS; i++) {
        const cprofi_source *s = &debugs[0].dwarf.sections[i], *t = &debugs[1].dwarf.sections[i];
        uint8_t *x = (uint8_t *)malloc((size_t)s->size + 1);
        uint8_t *y = (uint8_t *)malloc((size_t)t->size + 1);
        *inflated += debugs[1].memory[i] != NULL;
        if (!x || !y || !cprofi_source_read(s, 0, x, (size_t)s->size) ||
            !cprofi_source_read(t, 0, y, (size_t)t->size))
            abort();
        if (s->size != t->size || memcmp(x, y, (size_t)s->size) != 0) differ++;
        else same += s->size != 0;
        free(x);
        free(y);
    }
    for (size_t i = 0; i < 2; i++) {
        cprofi_debug_close(&debugs[i]);
        cprofi_elf_close(&elfs[i]);
        cprofi_source_close(&sources[i]);
    }
    return differ ? 0 : same;
}

/* The section as objcopy sees it. */
static bool matches_dump(const char *path, const char *name, cprofi_dwarf_section which) {
    char dump[512];
    cprofi_source source;
    cprofi_elf elf;
    cprofi_debug debug;
    bytes wanted;
    uint8_t *got;
    bool ok;
    if (!run("objcopy --dump-section '%s=%s/dump' '%s' /dev/null 2>/dev/null", name, scratch, path))
        return false;
    snprintf(dump, sizeof dump, "%s/dump", scratch);
    wanted = read_file(dump);
    if (!cprofi_source_open(path, &source) || !cprofi_elf_open(&source, &elf))
        abort();
    cprofi_debug_open(&elf, &debug);
    got = (uint8_t *)malloc(wanted.size + 1);
    ok = got && wanted.size && debug.dwarf.sections[which].size == wanted.size &&
         cprofi_source_read(&debug.dwarf.sections[which], 0, got, wanted.size) &&
         memcmp(got, wanted.data, wanted.size) == 0;
    free(got);
    free(wanted.data);
    cprofi_debug_close(&debug);
    cprofi_elf_close(&elf);
    cprofi_source_close(&source);
    return ok;
}

static void test_compiled(const char *compiler, const char *options) {
    char name[256], plain[512], other[512];
    size_t inflated, same;
    cprofi_debug_result result;
    snprintf(plain, sizeof plain, "%s/plain", scratch);
    snprintf(name, sizeof name, "sections of %s %s", compiler, options);
    if (!run("%s %s -O0 -w -I. '%s/large.c' -o '%s' -lpthread 2>/dev/null", compiler, options,
             scratch, plain)) {
        skip(name, "cannot build");
        return;
    }
    check(matches_dump(plain, ".debug_info", CPROFI_DWARF_INFO) &&
              matches_dump(plain, ".debug_abbrev", CPROFI_DWARF_ABBREV) &&
              matches_dump(plain, ".debug_line", CPROFI_DWARF_LINE) &&
              matches_dump(plain, ".debug_str", CPROFI_DWARF_STR),
          name, "unlike what objcopy dumps");
    for (size_t i = 0; i < CPROFI_COUNT(objcopies); i++) {
        bool zstd = strcmp(objcopies[i], "zstd") == 0;
        snprintf(name, sizeof name, "%s %s, compressed with %s", compiler, options, objcopies[i]);
        snprintf(other, sizeof other, "%s/%s", scratch, objcopies[i]);
        if (!run("objcopy --compress-debug-sections=%s '%s' '%s' 2>/dev/null", objcopies[i], plain,
                 other)) {
            skip(name, "objcopy cannot");
            continue;
        }
        same = compare_files(plain, other, &inflated, &result);
        if (zstd)
            check(result == CPROFI_DEBUG_UNKNOWN_COMPRESSION && !same && !inflated, name,
                  "result %d", (int)result);
        else
            check(result == CPROFI_DEBUG_OK && same >= 5 && inflated >= 4, name,
                  "result %d, %zu sections are the same, %zu inflated", (int)result, same,
                  inflated);
    }
}

static void test_compilers(void) {
    static const char large[] = "#define CPROF_IMPLEMENTATION\n"
                                "#include \"cprof.h\"\n"
                                "int main(void) { return 0; }\n";
    char path[512];
    snprintf(path, sizeof path, "%s/large.c", scratch);
    if (!write_file(path, large, sizeof large - 1)) abort();
    test_compiled("gcc", "-g -gdwarf-4");
    test_compiled("gcc", "-g -gdwarf-5");
    test_compiled("clang", "-g -gdwarf-5");
    test_compiled("gcc", "-g -static");
    test_compiled("i686-linux-gnu-gcc", "-g");
}

/* ---- the search ---- */

static char tree[300]; /* with a space and UTF-8 in it */
static bool last_stale;

/* The path of the debug file, relative to the tree; "" when none was found. */
static const char *find(const char *image, const char *directories) {
    static char path[5000];
    char link[64], where[600];
    cprofi_debug_places places = {directories};
    cprofi_source source, other;
    cprofi_elf elf, debug;
    ssize_t n = 0;
    path[0] = 0;
    if (image[0] == '/' || image[0] == '.') snprintf(where, sizeof where, "%s", image);
    else snprintf(where, sizeof where, "%s/%s", tree, image);
    if (!cprofi_source_open(where, &source)) return "(no image)";
    if (!cprofi_elf_open(&source, &elf)) abort();
    last_stale = true;
    if (cprofi_debug_find(&places, where, &elf, &other, &debug, &last_stale)) {
        if (debug.source != &other || !debug.section_count) abort();
        snprintf(link, sizeof link, "/proc/self/fd/%d", (int)other.file);
        n = readlink(link, path, sizeof path - 1);
        path[n > 0 ? n : 0] = 0;
        cprofi_elf_close(&debug);
        cprofi_source_close(&other);
    }
    cprofi_elf_close(&elf);
    cprofi_source_close(&source);
    n = (ssize_t)strlen(tree);
    return strncmp(path, tree, (size_t)n) == 0 && path[n] == '/' ? path + n + 1 : path;
}

static void found(const char *what, const char *image, const char *directories,
                  const char *wanted) {
    const char *got = find(image, directories);
    check(strcmp(got, wanted) == 0 && !last_stale, what, "'%s', not '%s'%s", got, wanted,
          last_stale ? ", stale" : "");
}

static void not_found(const char *what, const char *image, const char *directories, bool stale) {
    const char *got = find(image, directories);
    check(!got[0] && last_stale == stale, what, "'%s'%s", got, last_stale ? ", stale" : "");
}

/* A shell in the tree. */
static void shell(const char *format, ...) {
    char command[2048];
    va_list list;
    va_start(list, format);
    vsnprintf(command, sizeof command, format, list);
    va_end(list);
    if (!run("cd '%s' && { %s; } >/dev/null 2>&1", tree, command)) {
        printf("# failed: %s\n", command);
        failures++;
    }
}

static void build_id_path(const char *image, char path[128]) {
    char where[600];
    cprofi_source source;
    cprofi_elf elf;
    uint8_t id[CPROFI_BUILD_ID_MAX];
    uint32_t size;
    snprintf(where, sizeof where, "%s/%s", tree, image);
    if (!cprofi_source_open(where, &source) || !cprofi_elf_open(&source, &elf))
        abort();
    size = cprofi_elf_build_id(&elf, id);
    path[0] = 0;
    for (uint32_t i = 0; i < size; i++)
        sprintf(path + strlen(path), i == 1 ? "/%02x" : "%02x", id[i]);
    cprofi_elf_close(&elf);
    cprofi_source_close(&source);
}

/* By build id alone: image "id" has no link. */
static void test_find_by_id(void) {
    char id[128], plain[128], user[1000], two[1600];
    char *long_list = (char *)malloc(7000);
    build_id_path("id", id);
    snprintf(plain, sizeof plain, "%.2s%s", id, id + 3);
    snprintf(user, sizeof user, "%s/user", tree);
    not_found("no debug file anywhere", "id", user, false);
    not_found("no places of the user", "id", NULL, false);
    shell("mkdir -p 'user/.build-id/%.2s' 'second/.build-id/%.2s'; cp id.debug 'user/.build-id/%s"
          ".debug'; cp id.debug 'second/.build-id/%s.debug'", id, id, id, id);
    snprintf(two, sizeof two, "user/.build-id/%s.debug", id);
    found("by build id", "id", user, two);
    snprintf(user, sizeof user, "::%s/none:%s/user/:%s/second:", tree, tree, tree);
    found("by build id in the first of several directories", "id", user, two);
    if (!long_list) abort();
    memset(long_list, 'x', 5000);
    long_list[0] = '/';
    snprintf(long_list + 5000, 2000, ":%s/second", tree);
    snprintf(two, sizeof two, "second/.build-id/%s.debug", id);
    found("a path too long is skipped", "id", long_list, two);
    snprintf(long_list + 4060, 2000, ":%s/second", tree);
    found("a path just too long is skipped", "id", long_list, two);
    memset(long_list, '/', 5000);
    memcpy(long_list, tree, strlen(tree));
    memcpy(long_list + strlen(tree), "/cut", 4);
    long_list[4095 + 6 - strlen("/.build-id/.debug") - strlen(id)] = 0;
    shell("mkdir -p cut/.build-id/%.2s; cp id.debug cut/.build-id/%s", id, id);
    not_found("a path too long is not cut", "id", long_list, false);
    long_list[4095 - strlen("/.build-id/.debug") - strlen(id)] = 0;
    shell("cp id.debug cut/.build-id/%s.debug", id);
    snprintf(two, sizeof two, "cut/.build-id/%s.debug", id);
    found("the longest path", "id", long_list, two);
    snprintf(two, sizeof two, "second/.build-id/%s.debug", id);
    free(long_list);

    snprintf(user, sizeof user, "%s/user", tree);
    shell("cp other.debug 'user/.build-id/%s.debug'", id);
    not_found("another build id is stale", "id", user, true);
    snprintf(user, sizeof user, "%s/user:%s/second", tree, tree);
    found("after a stale one the search goes on", "id", user, two);
    snprintf(user, sizeof user, "%s/user", tree);
    shell("cp id 'user/.build-id/%s.debug'", id);
    not_found("the image itself is not its debug file", "id", user, false);
    shell("ln -sf ../../../id 'user/.build-id/%s.debug'", id);
    not_found("a link to the image is not its debug file", "id", user, false);
    shell("rm 'user/.build-id/%s.debug'; strip -R .comment -o 'user/.build-id/%s.debug' id", id,
          id);
    not_found("a file without symbols is no debug file", "id", user, false);
    shell("strip -g -o 'user/.build-id/%s.debug' id.full", id);
    snprintf(two, sizeof two, "user/.build-id/%s.debug", id);
    found("a file with symbols and no DWARF is one", "id", user, two);
    shell("objcopy --compress-debug-sections=zlib-gnu id.debug 'user/.build-id/%s.debug'", id);
    found("a file with compressed sections is one", "id", user, two);

    shell("mkdir -p cache/%s home/.cache/debuginfod_client/%s xdg/debuginfod_client/%s", plain,
          plain, plain);
    shell("rm -r user/.build-id; cp id.debug home/.cache/debuginfod_client/%s/debuginfo", plain);
    snprintf(user, sizeof user, "%s/home", tree);
    setenv("HOME", user, 1);
    snprintf(two, sizeof two, "home/.cache/debuginfod_client/%s/debuginfo", plain);
    found("debuginfod's cache in HOME", "id", NULL, two);
    snprintf(user, sizeof user, "%s/xdg", tree);
    setenv("XDG_CACHE_HOME", user, 1);
    shell("cp id.debug xdg/debuginfod_client/%s/debuginfo", plain);
    snprintf(two, sizeof two, "xdg/debuginfod_client/%s/debuginfo", plain);
    found("debuginfod's cache in XDG_CACHE_HOME", "id", NULL, two);
    snprintf(user, sizeof user, "%s/cache", tree);
    setenv("DEBUGINFOD_CACHE_PATH", user, 1);
    shell("touch cache/%s/debuginfo", plain); /* its note that there is none */
    found("an empty file of debuginfod's cache", "id", NULL, two);
    shell("cp id.debug cache/%s/debuginfo", plain);
    snprintf(two, sizeof two, "cache/%s/debuginfo", plain);
    found("debuginfod's cache in DEBUGINFOD_CACHE_PATH", "id", NULL, two);
    snprintf(user, sizeof user, "%s/second", tree);
    snprintf(two, sizeof two, "second/.build-id/%s.debug", id);
    found("a tree comes before the cache", "id", user, two);
    setenv("HOME", "", 1);
    unsetenv("XDG_CACHE_HOME");
    unsetenv("DEBUGINFOD_CACHE_PATH");
}

/* What may be at the place and is no file. */
static void test_find_odd(void) {
    shell("mkdir app/prog.debug");
    not_found("a directory at the place", "app/prog", NULL, false);
    shell("rmdir app/prog.debug; mkfifo app/prog.debug");
    not_found("a FIFO at the place", "app/prog", NULL, false);
    shell("rm app/prog.debug; ln -s prog.debug app/prog.debug");
    not_found("a link to itself at the place", "app/prog", NULL, false);
    shell("rm app/prog.debug; touch app/prog.debug");
    not_found("an empty file at the place", "app/prog", NULL, false);
    shell("echo no ELF file >app/prog.debug");
    not_found("a text file at the place", "app/prog", NULL, false);
    shell("cp linked.debug app/prog.debug; chmod 0 app/prog.debug");
    if (geteuid() == 0 && seteuid(65534) != 0) {
        skip("an unreadable file at the place", "root reads everything");
    } else {
        not_found("an unreadable file at the place", "app/prog", NULL, false);
        if (getuid() == 0 && seteuid(0) != 0) abort();
    }
    shell("rm -f app/prog.debug");
}

/* By .gnu_debuglink: image "app/prog" has no build id, "app/both" has one and the same link. */
static void test_find_by_link(void) {
    char user[900], wanted[600], where[600];
    bytes image;
    test_find_odd();
    shell("mkdir -p app/.debug flat 'flat%s/app'; cp linked.debug flat/prog.debug", tree);
    snprintf(user, sizeof user, "%s/flat", tree);
    found("by name in a directory of the user", "app/prog", user, "flat/prog.debug");
    shell("cp linked.debug 'flat%s/app/prog.debug'", tree);
    snprintf(wanted, sizeof wanted, "flat%s/app/prog.debug", tree);
    found("by name below a directory of the user", "app/prog", user, wanted);
    shell("cp linked.debug app/.debug/prog.debug");
    found("by name in .debug", "app/prog", user, "app/.debug/prog.debug");
    shell("cp linked.debug app/prog.debug");
    found("by name beside the image", "app/prog", user, "app/prog.debug");
    shell("printf x >>app/prog.debug");
    found("after a wrong CRC the search goes on", "app/prog", user, "app/.debug/prog.debug");
    shell("rm -r app/.debug flat");
    not_found("a wrong CRC is stale", "app/prog", user, true);
    shell("cp other.debug app/prog.debug");
    not_found("another program's debug file is stale", "app/prog", user, true);
    shell("cp linked.debug app/prog.debug; mkdir -p links/far; ln -s ../../app/prog links/far/prog;"
          " ln -s app dirs");
    found("an image behind a symbolic link", "links/far/prog", NULL, "app/prog.debug");
    shell("cp linked.debug links/far/prog.debug");
    found("beside the link comes first", "links/far/prog", NULL, "links/far/prog.debug");
    found("an image behind a linked directory", "dirs/prog", NULL, "app/prog.debug");
    snprintf(where, sizeof where, "%s/dirs/../links/far/../../app/prog", tree);
    found("an image path with ..", where, NULL, "app/prog.debug");

    shell("cp both.debug app/prog.debug");
    found("equal build ids", "app/both", NULL, "app/prog.debug");
    shell("printf x >>app/prog.debug");
    found("equal build ids make up for a wrong CRC", "app/both", NULL, "app/prog.debug");
    shell("cp id.debug app/prog.debug");
    not_found("different build ids are stale", "app/both", NULL, true);
    shell("cp linked.debug app/prog.debug");
    not_found("without a build id the CRC must fit", "app/both", NULL, true);
    shell("objcopy --remove-section .note.gnu.build-id both.debug app/prog.debug; rm -f app/own; "
          "objcopy --remove-section .gnu_debuglink app/both app/own; "
          "objcopy --add-gnu-debuglink=app/prog.debug app/own");
    found("a debug file without a build id and with the CRC", "app/own", NULL, "app/prog.debug");

    shell("objcopy --remove-section .gnu_debuglink id.full app/self; cp app/self t; "
          "objcopy --add-gnu-debuglink=app/self t app/self");
    not_found("a link to the image itself", "app/self", NULL, false);
    shell("cp linked.debug app/prog.debug; mkdir -p app/p; cp linked.debug app/p/og.debug");
    snprintf(where, sizeof where, "%s/app/prog", tree);
    image = read_file(where);
    for (size_t i = 0; i + 11 <= image.size; i++)
        if (memcmp(image.data + i, "prog.debug", 11) == 0) image.data[i + 1] = '/';
    snprintf(where, sizeof where, "%s/app/slash", tree);
    write_file(where, image.data, image.size);
    free(image.data);
    not_found("a name with a slash in it is refused", "app/slash", NULL, false);
    not_found("an image without link and build id", "none", NULL, false);
}

/* A path that is not absolute: from the tree, where nothing else runs. */
static void test_find_relative(void) {
    char here[1024], user[700];
    shell("mkdir -p flat; cp linked.debug app/prog.debug; cp app/prog .; "
          "cp linked.debug prog.debug");
    if (!getcwd(here, sizeof here) || chdir(tree) != 0) abort();
    found("a relative image path", "./app/prog", NULL, "app/prog.debug");
    snprintf(user, sizeof user, "%s/flat", tree);
    shell("mkdir -p 'flat%s/app'; rm app/prog.debug; cp linked.debug 'flat%s/app/prog.debug'", tree,
          tree);
    {
        char wanted[700];
        snprintf(wanted, sizeof wanted, "flat%s/app/prog.debug", tree);
        found("a relative image path below a directory of the user", "./app/prog", user, wanted);
        found("a relative directory of the user", "./app/prog", "flat", wanted);
    }
    {
        cprofi_debug_places places = {NULL};
        cprofi_source source, other;
        cprofi_elf elf, debug;
        bool stale, ok;
        if (!cprofi_source_open("prog", &source) ||
            !cprofi_elf_open(&source, &elf))
            abort();
        ok = cprofi_debug_find(&places, "prog", &elf, &other, &debug, &stale);
        check(ok, "an image path that is only a name", "not found");
        if (ok) {
            cprofi_elf_close(&debug);
            cprofi_source_close(&other);
        }
        cprofi_elf_close(&elf);
        cprofi_source_close(&source);
    }
    if (chdir(here) != 0) abort();
}

static int open_files(void) {
    int count = 0;
    for (int i = 0; i < 1024; i++) count += fcntl(i, F_GETFD) >= 0;
    return count;
}

static void test_find(void) {
    static const char main_text[] = "int main(void) { return 0; }\n";
    char path[512];
    int first, last;
    snprintf(tree, sizeof tree, "%s/a tr\xc3\xa9" "e", scratch);
    if (!run("mkdir -p '%s/app'", tree)) abort();
    snprintf(path, sizeof path, "%s/main.c", tree);
    if (!write_file(path, main_text, sizeof main_text - 1)) abort();
    if (!run("cd '%s' && gcc -g -Wl,--build-id=sha1 main.c -o id.full && "
             "gcc -g -DOTHER -O2 -Wl,--build-id=sha1 main.c -o both.full && "
             "gcc -g -Wl,--build-id=none main.c -o linked.full && "
             "gcc -g -O1 -Wl,--build-id=md5 main.c -o other.full && "
             "for i in id both linked other; do "
             "objcopy --only-keep-debug $i.full $i.debug; done && "
             "strip -o id id.full && strip -o none linked.full && "
             "mkdir t.d && cp linked.debug t.d/prog.debug && strip -o app/prog linked.full && "
             "objcopy --add-gnu-debuglink=t.d/prog.debug app/prog && "
             "cp both.debug t.d/prog.debug && strip -o app/both both.full && "
             "objcopy --add-gnu-debuglink=t.d/prog.debug app/both", tree)) {
        skip("the search for debug files", "no gcc or binutils");
        return;
    }
    setenv("HOME", "", 1);
    unsetenv("XDG_CACHE_HOME");
    unsetenv("DEBUGINFOD_CACHE_PATH");
    first = open_files();
    test_find_by_id();
    test_find_by_link();
    test_find_relative();
    last = open_files();
    check(first == last, "no file is left open", "%d are, before %d", last, first);
}

int main(void) {
    const char *tmp = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    char *real;
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_inflate();
    test_sections();
    test_section_names();
    test_hostile();
    test_crc();
    real = realpath(tmp, NULL);
    snprintf(scratch, sizeof scratch, "%.200s/cprof-debug-XXXXXX", real ? real : tmp);
    free(real);
    if (!mkdtemp(scratch)) {
        skip("real files", "no directory for them");
    } else {
        if (chmod(scratch, 0755) != 0) abort();
        test_zlib();
        test_fuzz();
        test_compilers();
        test_find();
        run("rm -rf '%s'", scratch);
    }
    return failures != 0;
}
