// u256.c - division, modular arithmetic and exponentiation of 256-bit words for the EVM example.
//
// Build from the repository root:
//     cc -O2 -pthread -I. examples/evm/*.c -o evm
//
// Division is Knuth's Algorithm D (The Art of Computer Programming, 4.3.1) with 64-bit digits.
// A quotient digit needs a 128-by-64-bit division; instead of one slow division per digit the
// reciprocal of the divisor's top digit is computed once and each digit costs two multiplications
// (Moeller and Granlund, "Improved division by invariant integers", 2011, algorithm 4).
#include "u256.h"

static unsigned u64_leading_zeros(uint64_t v) /* v != 0 */
{
#if defined(__GNUC__)
    return (unsigned)__builtin_clzll(v);
#else
    unsigned n = 0;
    while ((v >> 63) == 0) {
        v <<= 1;
        n++;
    }
    return n;
#endif
}

unsigned u256_bit_length(const u256 *a)
{
    for (unsigned i = 4; i-- > 0;)
        if (a->w[i] != 0) return i * 64 + 64 - u64_leading_zeros(a->w[i]);
    return 0;
}

/* floor((2^128 - 1) / d) - 2^64 for d with its top bit set. */
static uint64_t reciprocal_2by1(uint64_t d)
{
#if EVM_HAS_INT128
    return (uint64_t)(((((evm_uint128)~d) << 64) | ~UINT64_C(0)) / d);
#else
    /* The same quotient (~d : 2^64-1) / d by two 32-bit digits (Warren, Hacker's Delight, divlu). */
    uint64_t dh = d >> 32, dl = d & 0xffffffffu, high = ~d, q = 0;
    for (int digit = 0; digit < 2; digit++) {
        uint64_t qd = high / dh, rd = high % dh;
        while (qd > 0xffffffffu || qd * dl > ((rd << 32) | 0xffffffffu)) {
            qd--;
            rd += dh;
            if (rd > 0xffffffffu) break;
        }
        high = (high << 32) + 0xffffffffu - qd * d; /* exact modulo 2^64 */
        q = (q << 32) | qd;
    }
    return q;
#endif
}

/* (high : low) / d with high < d, d normalised and v its reciprocal. */
static inline uint64_t divide_2by1(uint64_t high, uint64_t low, uint64_t d, uint64_t v, uint64_t *rem)
{
    uint64_t q1, carry = 0, q0 = u64_mul(v, high, &q1);
    q0 = u64_add(q0, low, &carry);
    q1 = u64_add(q1, high, &carry);
    q1++;
    uint64_t r = low - q1 * d;
    if (r > q0) {
        q1--;
        r += d;
    }
    if (r >= d) {
        q1++;
        r -= d;
    }
    *rem = r;
    return q1;
}

/* Divides the un digits of u (un <= 8) by the vn digits of v (1 <= vn <= 4, v[vn-1] != 0).
 * q gets un digits, r gets vn digits. Cost: un - vn + 1 steps of vn multiplications. */
static EVM_NOINLINE void divide_digits(const uint64_t *u, unsigned un, const uint64_t *v, unsigned vn,
                                       uint64_t *q, uint64_t *r)
{
    uint64_t a[9], b[4];
    unsigned shift = u64_leading_zeros(v[vn - 1]);

    /* D1: normalise, so that the divisor's top bit is set and a trial digit is off by two at most. */
    for (unsigned i = 0; i < vn; i++)
        b[i] = (v[i] << shift) | (shift != 0 && i > 0 ? v[i - 1] >> (64 - shift) : 0);
    a[un] = shift != 0 ? u[un - 1] >> (64 - shift) : 0;
    for (unsigned i = 0; i < un; i++)
        a[i] = (u[i] << shift) | (shift != 0 && i > 0 ? u[i - 1] >> (64 - shift) : 0);
    for (unsigned i = 0; i < un; i++) q[i] = 0;

    uint64_t top = b[vn - 1], inverse = reciprocal_2by1(top);
    if (vn == 1) {
        uint64_t rem = a[un];
        for (unsigned i = un; i-- > 0;) q[i] = divide_2by1(rem, a[i], top, inverse, &rem);
        r[0] = rem >> shift;
        return;
    }
    for (unsigned j = un - vn + 1; j-- > 0;) {
        /* D3: trial digit from the two leading digits, corrected by the third. */
        uint64_t trial, rem;
        bool correct = true;
        if (a[j + vn] >= top) {
            trial = ~UINT64_C(0);
            rem = a[j + vn - 1] + top;
            correct = rem >= top; /* no carry */
        } else {
            trial = divide_2by1(a[j + vn], a[j + vn - 1], top, inverse, &rem);
        }
        while (correct) {
            uint64_t high, low = u64_mul(trial, b[vn - 2], &high);
            if (high < rem || (high == rem && low <= a[j + vn - 2])) break;
            trial--;
            rem += top;
            correct = rem >= top;
        }
        /* D4: multiply and subtract. */
        uint64_t carry = 0, borrow = 0;
        for (unsigned i = 0; i < vn; i++) {
            uint64_t high, c = 0, low = u64_mul(trial, b[i], &high);
            low = u64_add(low, carry, &c);
            carry = high + c;
            a[i + j] = u64_sub(a[i + j], low, &borrow);
        }
        a[j + vn] = u64_sub(a[j + vn], carry, &borrow);
        /* D6: the digit was one too large (about 2 in 2^64 cases): add the divisor back. */
        if (borrow != 0) {
            trial--;
            carry = 0;
            for (unsigned i = 0; i < vn; i++) a[i + j] = u64_add(a[i + j], b[i], &carry);
            a[j + vn] += carry;
        }
        q[j] = trial;
    }
    for (unsigned i = 0; i < vn; i++) /* D8: undo the shift */
        r[i] = (a[i] >> shift) | (shift != 0 ? a[i + 1] << (64 - shift) : 0);
}

static unsigned significant_digits(const uint64_t *p, unsigned n)
{
    while (n > 0 && p[n - 1] == 0) n--;
    return n;
}

EVM_NOINLINE void u256_udivrem(const u256 *a, const u256 *b, u256 *quotient, u256 *remainder)
{
    u256 q = {{0, 0, 0, 0}}, r = {{0, 0, 0, 0}};
    unsigned an = significant_digits(a->w, 4), bn = significant_digits(b->w, 4);
    if (bn == 0) {
        /* division by zero gives zero */
    } else if (an < bn) {
        r = *a;
    } else if (an == 1) {
        q.w[0] = a->w[0] / b->w[0];
        r.w[0] = a->w[0] % b->w[0];
    } else {
        divide_digits(a->w, an, b->w, bn, q.w, r.w);
    }
    if (quotient != NULL) *quotient = q;
    if (remainder != NULL) *remainder = r;
}

static u256 u256_absolute(const u256 *a)
{
    return u256_is_negative(a) ? u256_negate(a) : *a;
}

EVM_NOINLINE u256 u256_sdiv(const u256 *a, const u256 *b)
{
    /* MIN / -1: the magnitude 2^255 does not fit and wraps to MIN again, as the EVM defines it. */
    u256 x = u256_absolute(a), y = u256_absolute(b), q;
    u256_udivrem(&x, &y, &q, NULL);
    return u256_is_negative(a) != u256_is_negative(b) ? u256_negate(&q) : q;
}

EVM_NOINLINE u256 u256_smod(const u256 *a, const u256 *b)
{
    u256 x = u256_absolute(a), y = u256_absolute(b), r; /* the sign is the dividend's */
    u256_udivrem(&x, &y, NULL, &r);
    return u256_is_negative(a) ? u256_negate(&r) : r;
}

/* The remainder of an n-digit number (n <= 8) by m. */
static u256 reduce(const uint64_t *digits, unsigned n, const u256 *m)
{
    u256 r = {{0, 0, 0, 0}};
    uint64_t q[8];
    unsigned mn = significant_digits(m->w, 4);
    n = significant_digits(digits, n);
    if (mn == 0) return r;
    if (n < mn) {
        memcpy(r.w, digits, n * sizeof digits[0]);
        return r;
    }
    divide_digits(digits, n, m->w, mn, q, r.w);
    return r;
}

EVM_NOINLINE u256 u256_addmod(const u256 *a, const u256 *b, const u256 *m)
{
    uint64_t sum[5], carry = 0;
    for (unsigned i = 0; i < 4; i++) sum[i] = u64_add(a->w[i], b->w[i], &carry);
    sum[4] = carry;
    return reduce(sum, 5, m);
}

EVM_NOINLINE u256 u256_mulmod(const u256 *a, const u256 *b, const u256 *m)
{
    uint64_t product[8] = {0};
    for (unsigned i = 0; i < 4; i++) {
        uint64_t carry = 0;
        for (unsigned j = 0; j < 4; j++) {
            uint64_t high, c = 0, low = u64_mul(a->w[i], b->w[j], &high);
            low = u64_add(low, product[i + j], &c);
            high += c;
            c = 0;
            product[i + j] = u64_add(low, carry, &c);
            carry = high + c;
        }
        product[i + 4] = carry;
    }
    return reduce(product, 8, m);
}

EVM_NOINLINE u256 u256_exp(const u256 *base, const u256 *exponent)
{
    u256 r = u256_from_u64(1);
    for (unsigned bit = u256_bit_length(exponent); bit-- > 0;) {
        r = u256_mul(&r, &r);
        if ((exponent->w[bit / 64] >> (bit % 64)) & 1) r = u256_mul(&r, base);
    }
    return r;
}

EVM_NOINLINE u256 u256_sar(const u256 *a, const u256 *shift)
{
    u256 ones = {{~UINT64_C(0), ~UINT64_C(0), ~UINT64_C(0), ~UINT64_C(0)}};
    if (!u256_is_negative(a)) return u256_shr(a, shift);
    if (!u256_fits_u64(shift) || shift->w[0] > 255) return ones;
    u256 r = u256_shr(a, shift), up = u256_from_u64(256 - shift->w[0]);
    u256 fill = u256_shl(&ones, &up); /* a shift by 256 gives zero: nothing to fill */
    for (unsigned i = 0; i < 4; i++) r.w[i] |= fill.w[i];
    return r;
}

EVM_NOINLINE u256 u256_signextend(const u256 *byte_index, const u256 *a)
{
    if (!u256_fits_u64(byte_index) || byte_index->w[0] > 30) return *a;
    unsigned bit = (unsigned)byte_index->w[0] * 8 + 7;
    bool negative = ((a->w[bit / 64] >> (bit % 64)) & 1) != 0;
    u256 r = *a;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t keep; /* the bits of limb i at or below the sign bit */
        if (i < bit / 64) keep = ~UINT64_C(0);
        else if (i > bit / 64) keep = 0;
        else keep = ~UINT64_C(0) >> (63 - bit % 64);
        r.w[i] = negative ? r.w[i] | ~keep : r.w[i] & keep;
    }
    return r;
}
