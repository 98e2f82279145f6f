// evm.h - the interpreter's interface: what a call needs, what it returns, and the state it changes.
//
// Part of the example EVM that cprof profiles. Build from the repository root:
//     cc -O2 -pthread -I. examples/evm/*.c -o evm
//
// The machine is the EVM of the Shanghai fork without calls between accounts: an opcode that needs
// another account (CALL, CREATE, EXTCODECOPY, ...) halts with EVM_UNSUPPORTED.
#ifndef EVM_EVM_H
#define EVM_EVM_H

#include "u256.h"

/* The interpreter reads PUSH operands without a bounds check: code must be followed by this many
 * zero bytes (a PUSH32 as the last byte reads 32 beyond it, and the program counter then stands on
 * one more, which must read as STOP). */
#define EVM_CODE_PADDING 33

#define EVM_STACK_LIMIT 1024
#define EVM_GAS_MAX INT64_C(1000000000000) /* more would allow memory in the gigabytes */

typedef enum evm_status {
    EVM_SUCCESS,
    EVM_REVERT,
    EVM_OUT_OF_GAS,
    EVM_STACK_UNDERFLOW,
    EVM_STACK_OVERFLOW,
    EVM_BAD_JUMP,
    EVM_INVALID_OPCODE,
    EVM_RETURN_DATA_OUT_OF_BOUNDS,
    EVM_UNSUPPORTED,
    EVM_OUT_OF_MEMORY /* the host's memory, not the EVM's */
} evm_status;

const char *evm_status_name(evm_status status);

typedef struct evm_address {
    uint8_t bytes[20];
} evm_address;

u256 evm_address_word(const evm_address *a);

/* ---- state.c: accounts, storage, logs ---- */

/* One storage slot. "original" is the value at the start of the transaction whose number is in
 * "epoch"; a slot of an older epoch is cold (EIP-2929) and its value is its original value. */
typedef struct evm_slot {
    u256 key, value, original;
    uint32_t account;
    uint32_t epoch;
} evm_slot;

typedef struct evm_undo {
    uint32_t slot;
    u256 value;
} evm_undo;

typedef struct evm_log {
    uint32_t account;
    uint32_t topic_count;
    u256 topics[4];
    size_t data_offset, data_size; /* in evm_state.log_data */
} evm_log;

typedef struct evm_account {
    evm_address address;
    u256 balance;
} evm_account;

/* Everything transactions change, for one block. Slots are an array in order of first use, found
 * through an open-addressing table of slot index + 1. */
typedef struct evm_state {
    evm_account *accounts;
    uint32_t account_count;
    evm_slot *slots;
    uint32_t slot_count, slot_capacity;
    uint32_t *table;
    uint32_t table_size; /* a power of two, at least twice slot_count */
    uint32_t epoch;      /* number of the current transaction, from 1 */
    evm_undo *undo;      /* values overwritten by the current transaction */
    uint32_t undo_count, undo_capacity;
    evm_log *logs;
    uint32_t log_count, log_capacity, log_mark;
    uint8_t *log_data;
    size_t log_data_size, log_data_capacity, log_data_mark;
} evm_state;

bool state_init(evm_state *s, uint32_t account_count);
void state_free(evm_state *s);
void state_clear(evm_state *s); /* empty again; keeps the allocated memory */

/* Starts a transaction: every slot becomes cold. */
void state_begin(evm_state *s);
/* Forgets what was changed since state_begin (for a failed transaction). */
void state_rollback(evm_state *s);

/* The slot's entry, created with value 0 if unknown; NULL without memory. The pointer is valid until
 * the next call. *cold tells whether this is the transaction's first access. */
evm_slot *storage_get(evm_state *s, uint32_t account, const u256 *key, bool *cold);
/* Sets a value that the current transaction can still undo. False without memory. */
bool storage_set(evm_state *s, evm_slot *slot, const u256 *value);
/* Sets a value of the pre-state, before state_begin. */
bool storage_preset(evm_state *s, uint32_t account, const u256 *key, const u256 *value);

bool state_add_log(evm_state *s, uint32_t account, const u256 *topics, uint32_t topic_count,
                   const uint8_t *data, size_t size);

/* Sorts the slots by account and key for output; storage_get must not be used afterwards. */
void state_sort(evm_state *s);

/* ---- interpreter.c ---- */

typedef struct evm_block {
    uint64_t number, timestamp, gas_limit, chain_id;
    u256 base_fee, prev_randao;
    evm_address coinbase;
} evm_block;

typedef struct evm_call {
    uint32_t account;    /* whose code runs: index into evm_state.accounts */
    const uint8_t *code; /* followed by EVM_CODE_PADDING zero bytes */
    size_t code_size;
    const uint8_t *input;
    size_t input_size;
    evm_address caller, origin;
    u256 value, gas_price;
    int64_t gas; /* 0..EVM_GAS_MAX */
} evm_call;

typedef struct evm_result {
    evm_status status;
    int64_t gas_left;
    int64_t refund;        /* as counted, before the cap; 0 unless EVM_SUCCESS */
    const uint8_t *output; /* in the machine, until the next call */
    size_t output_size;
} evm_result;

/* The buffers of one interpreter, reused from call to call. One per thread. */
typedef struct evm_machine {
    u256 *stack; /* stack[0] is below the first element */
    uint8_t *memory;
    size_t memory_capacity;
    uint8_t *jumpdests; /* one bit per code byte */
    size_t jumpdests_capacity;
    uint8_t *output;
    size_t output_capacity;
} evm_machine;

bool machine_init(evm_machine *m);
void machine_free(evm_machine *m);

/* Runs the code. Does not roll the state back on failure: see state_rollback. */
evm_result evm_execute(evm_machine *m, evm_state *s, const evm_block *block, const evm_call *call);

/* "computed goto" or "switch". */
const char *evm_dispatch_name(void);

#endif /* EVM_EVM_H */
