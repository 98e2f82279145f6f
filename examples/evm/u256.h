// u256.h - 256-bit unsigned words for the EVM example.
//
// Part of the example EVM that cprof profiles. Build from the repository root:
//     cc -O2 -pthread -I. examples/evm/*.c -o evm
//
// Four 64-bit limbs, least significant first. What the interpreter does on nearly every instruction
// (add, compare, shift, load and store of bytes) is inline here; division and what rests on it is in
// u256.c, so that a profile shows it under its own name.
#ifndef EVM_U256_H
#define EVM_U256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__)
#define EVM_NOINLINE __attribute__((noinline, noclone)) /* noclone: no ".isra.0" names in profiles */
#elif defined(__GNUC__)
#define EVM_NOINLINE __attribute__((noinline))
#elif defined(_MSC_VER)
#define EVM_NOINLINE __declspec(noinline)
#else
#define EVM_NOINLINE
#endif

/* For the one function that must be part of its caller's loop. */
#if defined(__GNUC__)
#define EVM_INLINE static inline __attribute__((always_inline))
#else
#define EVM_INLINE static inline
#endif

/* EVM_NO_INT128 selects the portable arithmetic, so that it can be tested everywhere. */
#if defined(__SIZEOF_INT128__) && !defined(EVM_NO_INT128)
#define EVM_HAS_INT128 1
__extension__ typedef unsigned __int128 evm_uint128;
#else
#define EVM_HAS_INT128 0
#endif

typedef struct u256 {
    uint64_t w[4];
} u256;

/* ---- 64-bit building blocks ---- */

/* Low half of a * b; the high half goes to *high. */
static inline uint64_t u64_mul(uint64_t a, uint64_t b, uint64_t *high)
{
#if EVM_HAS_INT128
    evm_uint128 p = (evm_uint128)a * b;
    *high = (uint64_t)(p >> 64);
    return (uint64_t)p;
#else
    uint64_t a0 = a & 0xffffffffu, a1 = a >> 32, b0 = b & 0xffffffffu, b1 = b >> 32;
    uint64_t p00 = a0 * b0, p01 = a0 * b1, p10 = a1 * b0, p11 = a1 * b1;
    uint64_t middle = (p00 >> 32) + (p01 & 0xffffffffu) + (p10 & 0xffffffffu);
    *high = p11 + (p01 >> 32) + (p10 >> 32) + (middle >> 32);
    return (middle << 32) | (p00 & 0xffffffffu);
#endif
}

/* a + b + *carry; *carry (0 or 1) is updated. */
static inline uint64_t u64_add(uint64_t a, uint64_t b, uint64_t *carry)
{
    uint64_t s = a + b;
    uint64_t t = s + *carry;
    *carry = (uint64_t)(s < a) | (uint64_t)(t < s);
    return t;
}

/* a - b - *borrow; *borrow (0 or 1) is updated. */
static inline uint64_t u64_sub(uint64_t a, uint64_t b, uint64_t *borrow)
{
    uint64_t d = a - b;
    uint64_t e = d - *borrow;
    *borrow = (uint64_t)(a < b) | (uint64_t)(d < *borrow);
    return e;
}

/* ---- construction and tests ---- */

static inline u256 u256_from_u64(uint64_t v)
{
    u256 r = {{0, 0, 0, 0}};
    r.w[0] = v;
    return r;
}

static inline bool u256_is_zero(const u256 *a)
{
    return (a->w[0] | a->w[1] | a->w[2] | a->w[3]) == 0;
}

static inline bool u256_fits_u64(const u256 *a)
{
    return (a->w[1] | a->w[2] | a->w[3]) == 0;
}

static inline bool u256_equal(const u256 *a, const u256 *b)
{
    return ((a->w[0] ^ b->w[0]) | (a->w[1] ^ b->w[1]) | (a->w[2] ^ b->w[2]) |
            (a->w[3] ^ b->w[3])) == 0;
}

static inline bool u256_is_negative(const u256 *a)
{
    return (a->w[3] >> 63) != 0;
}

static inline bool u256_less(const u256 *a, const u256 *b)
{
    uint64_t borrow = 0;
    (void)u64_sub(a->w[0], b->w[0], &borrow);
    (void)u64_sub(a->w[1], b->w[1], &borrow);
    (void)u64_sub(a->w[2], b->w[2], &borrow);
    (void)u64_sub(a->w[3], b->w[3], &borrow);
    return borrow != 0;
}

/* Signed order: flipping the sign bit maps two's complement to unsigned order. */
static inline bool u256_sless(const u256 *a, const u256 *b)
{
    u256 x = *a, y = *b;
    x.w[3] ^= UINT64_C(1) << 63;
    y.w[3] ^= UINT64_C(1) << 63;
    return u256_less(&x, &y);
}

/* ---- arithmetic modulo 2^256 ---- */

static inline u256 u256_add(const u256 *a, const u256 *b)
{
    u256 r;
    uint64_t carry = 0;
    r.w[0] = u64_add(a->w[0], b->w[0], &carry);
    r.w[1] = u64_add(a->w[1], b->w[1], &carry);
    r.w[2] = u64_add(a->w[2], b->w[2], &carry);
    r.w[3] = u64_add(a->w[3], b->w[3], &carry);
    return r;
}

static inline u256 u256_sub(const u256 *a, const u256 *b)
{
    u256 r;
    uint64_t borrow = 0;
    r.w[0] = u64_sub(a->w[0], b->w[0], &borrow);
    r.w[1] = u64_sub(a->w[1], b->w[1], &borrow);
    r.w[2] = u64_sub(a->w[2], b->w[2], &borrow);
    r.w[3] = u64_sub(a->w[3], b->w[3], &borrow);
    return r;
}

static inline u256 u256_negate(const u256 *a)
{
    u256 zero = {{0, 0, 0, 0}};
    return u256_sub(&zero, a);
}

/* Schoolbook product, only the limbs below 2^256. */
static inline u256 u256_mul(const u256 *a, const u256 *b)
{
    u256 r = {{0, 0, 0, 0}};
    for (unsigned i = 0; i < 4; i++) {
        uint64_t carry = 0;
        for (unsigned j = 0; i + j < 4; j++) {
            uint64_t high, low = u64_mul(a->w[i], b->w[j], &high), c = 0;
            low = u64_add(low, r.w[i + j], &c);
            high += c;
            c = 0;
            r.w[i + j] = u64_add(low, carry, &c);
            carry = high + c;
        }
    }
    return r;
}

/* ---- bits ---- */

static inline u256 u256_shl(const u256 *a, const u256 *shift)
{
    u256 r = {{0, 0, 0, 0}};
    if (!u256_fits_u64(shift) || shift->w[0] > 255) return r;
    unsigned words = (unsigned)shift->w[0] / 64, bits = (unsigned)shift->w[0] % 64;
    for (unsigned i = 4; i-- > words;) {
        r.w[i] = a->w[i - words] << bits;
        if (bits != 0 && i > words) r.w[i] |= a->w[i - words - 1] >> (64 - bits);
    }
    return r;
}

static inline u256 u256_shr(const u256 *a, const u256 *shift)
{
    u256 r = {{0, 0, 0, 0}};
    if (!u256_fits_u64(shift) || shift->w[0] > 255) return r;
    unsigned words = (unsigned)shift->w[0] / 64, bits = (unsigned)shift->w[0] % 64;
    for (unsigned i = 0; i + words < 4; i++) {
        r.w[i] = a->w[i + words] >> bits;
        if (bits != 0 && i + words + 1 < 4) r.w[i] |= a->w[i + words + 1] << (64 - bits);
    }
    return r;
}

/* ---- bytes, big-endian as everywhere in Ethereum ---- */

static inline uint64_t u64_load_be(const uint8_t *p)
{
    return (uint64_t)p[0] << 56 | (uint64_t)p[1] << 48 | (uint64_t)p[2] << 40 |
           (uint64_t)p[3] << 32 | (uint64_t)p[4] << 24 | (uint64_t)p[5] << 16 |
           (uint64_t)p[6] << 8 | (uint64_t)p[7];
}

static inline void u64_store_be(uint8_t *p, uint64_t v)
{
    p[0] = (uint8_t)(v >> 56);
    p[1] = (uint8_t)(v >> 48);
    p[2] = (uint8_t)(v >> 40);
    p[3] = (uint8_t)(v >> 32);
    p[4] = (uint8_t)(v >> 24);
    p[5] = (uint8_t)(v >> 16);
    p[6] = (uint8_t)(v >> 8);
    p[7] = (uint8_t)v;
}

static inline u256 u256_load(const uint8_t bytes[32])
{
    u256 r;
    r.w[3] = u64_load_be(bytes);
    r.w[2] = u64_load_be(bytes + 8);
    r.w[1] = u64_load_be(bytes + 16);
    r.w[0] = u64_load_be(bytes + 24);
    return r;
}

static inline void u256_store(uint8_t bytes[32], const u256 *a)
{
    u64_store_be(bytes, a->w[3]);
    u64_store_be(bytes + 8, a->w[2]);
    u64_store_be(bytes + 16, a->w[1]);
    u64_store_be(bytes + 24, a->w[0]);
}

/* A number of n <= 32 big-endian bytes. */
static inline u256 u256_load_short(const uint8_t *bytes, size_t n)
{
    uint8_t full[32] = {0};
    memcpy(full + (32 - n), bytes, n);
    return u256_load(full);
}

/* ---- u256.c ---- */

/* Bits needed to write a: 0 for zero, 256 at most. */
unsigned u256_bit_length(const u256 *a);

/* *quotient = a / b and *remainder = a % b; both zero when b is zero, as the EVM wants it.
 * Either result pointer may be NULL. */
void u256_udivrem(const u256 *a, const u256 *b, u256 *quotient, u256 *remainder);

u256 u256_sdiv(const u256 *a, const u256 *b);
u256 u256_smod(const u256 *a, const u256 *b);
u256 u256_addmod(const u256 *a, const u256 *b, const u256 *m);
u256 u256_mulmod(const u256 *a, const u256 *b, const u256 *m);
u256 u256_exp(const u256 *base, const u256 *exponent);
u256 u256_sar(const u256 *a, const u256 *shift);
u256 u256_signextend(const u256 *byte_index, const u256 *a);

#endif /* EVM_U256_H */
