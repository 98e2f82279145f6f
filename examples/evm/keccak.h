// keccak.h - Keccak-256 with the original padding, as Ethereum uses it (not NIST SHA3-256).
//
// Part of the example EVM that cprof profiles. Build from the repository root:
//     cc -O2 -pthread -I. examples/evm/*.c -o evm
#ifndef EVM_KECCAK_H
#define EVM_KECCAK_H

#include <stddef.h>
#include <stdint.h>

#define KECCAK_RATE 136 /* bytes absorbed per permutation for a 256-bit digest */

typedef struct keccak {
    uint64_t lane[25];
    uint8_t block[KECCAK_RATE];
    size_t used; /* bytes waiting in block */
} keccak;

void keccak_init(keccak *k);
void keccak_update(keccak *k, const void *data, size_t size);
void keccak_final(keccak *k, uint8_t digest[32]);

/* All three in one. */
void keccak256(const void *data, size_t size, uint8_t digest[32]);

#endif /* EVM_KECCAK_H */
