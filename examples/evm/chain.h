// chain.h - a file of blocks to replay: its format, its generator and the execution of one block.
//
// Part of the example EVM that cprof profiles. Build from the repository root:
//     cc -O2 -pthread -I. examples/evm/*.c -o evm
//
// Every block carries the storage it starts from (what stateless clients call a witness), so blocks
// can be executed in any order, by any thread. It also carries what execution must give.
//
// File DIR/chain.evm. Integers are little-endian; "word" is one length byte (0..32) and that many
// big-endian bytes without leading zeros, an integer of up to 256 bits.
//
//     head     8 bytes   "EVMCHAIN"
//              u32       version, 1
//              u32       number of contracts, 1..64
//              u64       number of the first block
//              u64       number of the last block
//              u64       seed
//              u64       position of the index: the length of the head
//              u64       checksum of the head, with these eight bytes taken as zero
//              per contract: 20 bytes address, u32 code size (at most 24576), code
//     index    per block: u64 position of its record, u32 length, u32 zero,
//              u64 checksum of the record, u64 checksum of the 24 bytes before
//     record   u64 number, u64 timestamp, u64 gas limit, u64 chain id, 20 bytes coinbase,
//              32 bytes prevrandao, word base fee
//              u32 number of contracts, as in the head; for each: word balance,
//                  u32 slot count, per slot: word key, word value
//              u32 transaction count; for each: u32 contract called, 20 bytes sender, u64 gas limit,
//                  word gas price, word value, u32 input size, input
//              u64 gas used by all transactions
//              32 bytes digest
//
// Checksums are FNV-1a of 64 bits: any changed byte changes them. They tell a damaged file from a
// wrong result.
//
// The digest is the Keccak-256 of, all integers big-endian:
//     per transaction: u8 status (1 success, 0 failure), u64 gas used, u64 output size, output
//     per log: u32 contract, u32 topic count, the topics of 32 bytes, u64 data size, data
//     per contract: its balance of 32 bytes
//     per storage slot that is not zero, by contract and key: u32 contract, 32 bytes key, 32 bytes value
//
// A transaction costs 21000 gas plus 4 per zero and 16 per other byte of input before its code runs;
// at most a fifth of the gas used is refunded (EIP-3529). Its gas limit must fit into what the block has
// left of its own, which is at most 10^9. Fees are not deducted from anybody.
#ifndef EVM_CHAIN_H
#define EVM_CHAIN_H

#include "evm.h"

#include <stdio.h>

#define CHAIN_FILE_NAME "chain.evm"
#define CHAIN_MAX_BLOCK UINT64_C(1000000000000)
#define CHAIN_MAX_BLOCKS UINT64_C(1000000) /* in one file */
#define CHAIN_MAX_CONTRACTS 64
#define CHAIN_MAX_CODE 24576
#define CHAIN_MAX_BLOCK_GAS UINT64_C(1000000000) /* so that no damaged record runs for hours */
#define CHAIN_MAX_RECORD (UINT32_C(64) << 20)

/* A sentence about what went wrong. */
typedef struct chain_error {
    char text[512];
} chain_error;

/* What one block's execution gave. */
typedef struct chain_outcome {
    uint64_t gas_used;
    uint32_t transactions;
    uint8_t digest[32];
} chain_outcome;

typedef struct chain_contract {
    evm_address address;
    uint8_t *code; /* padded for the interpreter */
    size_t code_size;
} chain_contract;

/* An open chain file with everything one thread needs to execute its blocks. */
typedef struct chain {
    FILE *file;
    uint64_t file_size, first, last, index_position;
    uint32_t contract_count;
    chain_contract contracts[CHAIN_MAX_CONTRACTS];
    evm_machine machine;
    evm_state state;
    uint8_t *record;
    size_t record_capacity;
} chain;

/* Both leave nothing to free on failure. */
bool chain_open(chain *c, const char *directory, chain_error *error);
void chain_close(chain *c);

/* Executes one block and compares the result with the recorded one. */
bool chain_replay(chain *c, uint64_t number, chain_outcome *outcome, chain_error *error);

/* Writes a chain of the blocks first..last; *total is the sum over them. */
bool chain_generate(const char *directory, uint64_t first, uint64_t last, uint64_t seed,
                    chain_outcome *total, chain_error *error);

#endif /* EVM_CHAIN_H */
