// keccak.c - Keccak-f[1600] and Keccak-256 for the EVM example.
//
// Build from the repository root:
//     cc -O2 -pthread -I. examples/evm/*.c -o evm
//
// Follows "The Keccak reference", version 3.0 (Bertoni, Daemen, Peeters, Van Assche). The five steps
// of a round are merged: lane (x, y) lives at index x + 5 * y, theta's column parities are folded into
// rho and pi while reading the old state, and chi writes the new one. Rounds alternate between two
// copies of the state, which spares the in-place shuffle.
#include "keccak.h"
#include "u256.h"

#define ROTL(v, n) (((v) << (n)) | ((v) >> (64 - (n))))

static const uint64_t round_constants[24] = {
    UINT64_C(0x0000000000000001), UINT64_C(0x0000000000008082), UINT64_C(0x800000000000808a),
    UINT64_C(0x8000000080008000), UINT64_C(0x000000000000808b), UINT64_C(0x0000000080000001),
    UINT64_C(0x8000000080008081), UINT64_C(0x8000000000008009), UINT64_C(0x000000000000008a),
    UINT64_C(0x0000000000000088), UINT64_C(0x0000000080008009), UINT64_C(0x000000008000000a),
    UINT64_C(0x000000008000808b), UINT64_C(0x800000000000008b), UINT64_C(0x8000000000008089),
    UINT64_C(0x8000000000008003), UINT64_C(0x8000000000008002), UINT64_C(0x8000000000000080),
    UINT64_C(0x000000000000800a), UINT64_C(0x800000008000000a), UINT64_C(0x8000000080008081),
    UINT64_C(0x8000000000008080), UINT64_C(0x0000000080000001), UINT64_C(0x8000000080008008),
};

EVM_INLINE void keccak_round(uint64_t *t, const uint64_t *s, uint64_t constant)
{
    uint64_t c0 = s[0] ^ s[5] ^ s[10] ^ s[15] ^ s[20];
    uint64_t c1 = s[1] ^ s[6] ^ s[11] ^ s[16] ^ s[21];
    uint64_t c2 = s[2] ^ s[7] ^ s[12] ^ s[17] ^ s[22];
    uint64_t c3 = s[3] ^ s[8] ^ s[13] ^ s[18] ^ s[23];
    uint64_t c4 = s[4] ^ s[9] ^ s[14] ^ s[19] ^ s[24];
    uint64_t d0 = c4 ^ ROTL(c1, 1);
    uint64_t d1 = c0 ^ ROTL(c2, 1);
    uint64_t d2 = c1 ^ ROTL(c3, 1);
    uint64_t d3 = c2 ^ ROTL(c4, 1);
    uint64_t d4 = c3 ^ ROTL(c0, 1);
    uint64_t b0, b1, b2, b3, b4;

    b0 = s[0] ^ d0;
    b1 = ROTL(s[6] ^ d1, 44);
    b2 = ROTL(s[12] ^ d2, 43);
    b3 = ROTL(s[18] ^ d3, 21);
    b4 = ROTL(s[24] ^ d4, 14);
    t[0] = b0 ^ (~b1 & b2) ^ constant;
    t[1] = b1 ^ (~b2 & b3);
    t[2] = b2 ^ (~b3 & b4);
    t[3] = b3 ^ (~b4 & b0);
    t[4] = b4 ^ (~b0 & b1);
    b0 = ROTL(s[3] ^ d3, 28);
    b1 = ROTL(s[9] ^ d4, 20);
    b2 = ROTL(s[10] ^ d0, 3);
    b3 = ROTL(s[16] ^ d1, 45);
    b4 = ROTL(s[22] ^ d2, 61);
    t[5] = b0 ^ (~b1 & b2);
    t[6] = b1 ^ (~b2 & b3);
    t[7] = b2 ^ (~b3 & b4);
    t[8] = b3 ^ (~b4 & b0);
    t[9] = b4 ^ (~b0 & b1);
    b0 = ROTL(s[1] ^ d1, 1);
    b1 = ROTL(s[7] ^ d2, 6);
    b2 = ROTL(s[13] ^ d3, 25);
    b3 = ROTL(s[19] ^ d4, 8);
    b4 = ROTL(s[20] ^ d0, 18);
    t[10] = b0 ^ (~b1 & b2);
    t[11] = b1 ^ (~b2 & b3);
    t[12] = b2 ^ (~b3 & b4);
    t[13] = b3 ^ (~b4 & b0);
    t[14] = b4 ^ (~b0 & b1);
    b0 = ROTL(s[4] ^ d4, 27);
    b1 = ROTL(s[5] ^ d0, 36);
    b2 = ROTL(s[11] ^ d1, 10);
    b3 = ROTL(s[17] ^ d2, 15);
    b4 = ROTL(s[23] ^ d3, 56);
    t[15] = b0 ^ (~b1 & b2);
    t[16] = b1 ^ (~b2 & b3);
    t[17] = b2 ^ (~b3 & b4);
    t[18] = b3 ^ (~b4 & b0);
    t[19] = b4 ^ (~b0 & b1);
    b0 = ROTL(s[2] ^ d2, 62);
    b1 = ROTL(s[8] ^ d3, 55);
    b2 = ROTL(s[14] ^ d4, 39);
    b3 = ROTL(s[15] ^ d0, 41);
    b4 = ROTL(s[21] ^ d1, 2);
    t[20] = b0 ^ (~b1 & b2);
    t[21] = b1 ^ (~b2 & b3);
    t[22] = b2 ^ (~b3 & b4);
    t[23] = b3 ^ (~b4 & b0);
    t[24] = b4 ^ (~b0 & b1);
}

static EVM_NOINLINE void keccak_f1600(uint64_t state[25])
{
    uint64_t s[25], t[25];
    memcpy(s, state, sizeof s);
    for (unsigned i = 0; i < 24; i += 2) {
        keccak_round(t, s, round_constants[i]);
        keccak_round(s, t, round_constants[i + 1]);
    }
    memcpy(state, s, sizeof s);
}

static uint64_t load_le(const uint8_t *p)
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 |
           (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
}

static void absorb(keccak *k, const uint8_t *block)
{
    for (unsigned i = 0; i < KECCAK_RATE / 8; i++) k->lane[i] ^= load_le(block + 8 * i);
    keccak_f1600(k->lane);
}

void keccak_init(keccak *k)
{
    memset(k->lane, 0, sizeof k->lane);
    k->used = 0;
}

void keccak_update(keccak *k, const void *data, size_t size)
{
    const uint8_t *p = data;
    if (size == 0) return;
    if (k->used > 0) {
        size_t room = KECCAK_RATE - k->used, n = size < room ? size : room;
        memcpy(k->block + k->used, p, n);
        k->used += n;
        p += n;
        size -= n;
        if (k->used < KECCAK_RATE) return;
        absorb(k, k->block);
        k->used = 0;
    }
    for (; size >= KECCAK_RATE; p += KECCAK_RATE, size -= KECCAK_RATE) absorb(k, p);
    if (size > 0) memcpy(k->block, p, size);
    k->used = size;
}

void keccak_final(keccak *k, uint8_t digest[32])
{
    memset(k->block + k->used, 0, KECCAK_RATE - k->used);
    k->block[k->used] ^= 0x01; /* Ethereum kept this padding; SHA-3 changed it to 0x06 */
    k->block[KECCAK_RATE - 1] ^= 0x80;
    absorb(k, k->block);
    for (unsigned i = 0; i < 32; i++) digest[i] = (uint8_t)(k->lane[i / 8] >> (8 * (i % 8)));
}

void keccak256(const void *data, size_t size, uint8_t digest[32])
{
    keccak k;
    keccak_init(&k);
    keccak_update(&k, data, size);
    keccak_final(&k, digest);
}
