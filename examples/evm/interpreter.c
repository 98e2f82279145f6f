// interpreter.c - the EVM itself: one dispatch function with the small opcodes inline, and the heavy
// opcodes as functions of their own.
//
// Part of the example EVM that cprof profiles. Build from the repository root:
//     cc -O2 -pthread -I. examples/evm/*.c -o evm
//
// Gas and semantics follow the Yellow Paper (Shanghai version, appendices G and H) with EIP-2929
// (warm and cold storage), EIP-2200 and EIP-3529 (SSTORE gas and refunds) and EIP-3855 (PUSH0).
//
// Dispatch: with GCC and Clang every opcode ends in its own indirect jump (computed goto), which the
// branch predictor learns better than the single jump of a switch; elsewhere, or with
// -DEVM_NO_COMPUTED_GOTO, the same opcode bodies become the cases of a switch.
//
// An opcode's base gas and its stack needs are constants of its OP() line, so the checks fold into
// two compares. Gas lives in a local variable and is written to the frame only around the functions
// that charge some themselves.
#include "evm.h"
#include "keccak.h"
#include "opcodes.h"
#include "profile.h"

#include <stdlib.h>

#if defined(__GNUC__) && !defined(EVM_NO_COMPUTED_GOTO)
#define EVM_COMPUTED_GOTO 1
#else
#define EVM_COMPUTED_GOTO 0
#endif

#if defined(__GNUC__)
#define UNLIKELY(x) __builtin_expect((x) != 0, 0)
#else
#define UNLIKELY(x) (x)
#endif

/* Gas, named as in the Yellow Paper's appendix G and the EIPs. */
enum {
    G_ZERO = 0,
    G_JUMPDEST = 1,
    G_BASE = 2,
    G_VERYLOW = 3,
    G_LOW = 5,
    G_MID = 8,
    G_HIGH = 10,
    G_BLOCKHASH = 20,
    G_KECCAK = 30,
    G_KECCAK_WORD = 6,
    G_EXP = 10,
    G_EXP_BYTE = 50,
    G_COPY_WORD = 3,
    G_MEMORY = 3,
    G_LOG = 375,
    G_LOG_TOPIC = 375,
    G_LOG_BYTE = 8,
    G_WARM_ACCESS = 100,
    G_COLD_SLOAD = 2100,
    G_SSTORE_SET = 20000,
    G_SSTORE_RESET = 2900,
    G_SSTORE_CLEARS_REFUND = 4800,
    G_SSTORE_SENTRY = 2300 /* EIP-2200: SSTORE fails when no more than this is left */
};

typedef struct frame {
    int64_t gas, refund;
    size_t memory_size; /* in use, a multiple of 32 */
    evm_machine *machine;
    evm_state *state;
    const evm_block *block;
    const evm_call *call;
} frame;

const char *evm_status_name(evm_status status)
{
    switch (status) {
    case EVM_SUCCESS: return "success";
    case EVM_REVERT: return "revert";
    case EVM_OUT_OF_GAS: return "out_of_gas";
    case EVM_STACK_UNDERFLOW: return "stack_underflow";
    case EVM_STACK_OVERFLOW: return "stack_overflow";
    case EVM_BAD_JUMP: return "bad_jump";
    case EVM_INVALID_OPCODE: return "invalid_opcode";
    case EVM_RETURN_DATA_OUT_OF_BOUNDS: return "return_data_out_of_bounds";
    case EVM_UNSUPPORTED: return "unsupported";
    case EVM_OUT_OF_MEMORY: return "out_of_memory";
    }
    return "unknown";
}

const char *evm_dispatch_name(void)
{
    return EVM_COMPUTED_GOTO ? "computed goto" : "switch";
}

bool machine_init(evm_machine *m)
{
    memset(m, 0, sizeof *m);
    m->memory_capacity = 4096;
    m->memory = malloc(m->memory_capacity);
    m->stack = malloc((EVM_STACK_LIMIT + 1) * sizeof m->stack[0]);
    if (m->stack != NULL && m->memory != NULL) return true;
    machine_free(m);
    return false;
}

void machine_free(evm_machine *m)
{
    free(m->stack);
    free(m->memory);
    free(m->jumpdests);
    free(m->output);
    memset(m, 0, sizeof *m);
}

/* ---- jump destinations ---- */

static inline bool jumpdest_test(const uint8_t *bits, size_t pc)
{
    return ((bits[pc >> 3] >> (pc & 7)) & 1) != 0;
}

/* Marks every JUMPDEST that is not part of a PUSH operand. */
static EVM_NOINLINE bool jumpdest_analyse(evm_machine *m, const uint8_t *code, size_t size)
{
    size_t bytes = size / 8 + 1;
    if (bytes > m->jumpdests_capacity) {
        uint8_t *p = realloc(m->jumpdests, bytes);
        if (p == NULL) return false;
        m->jumpdests = p;
        m->jumpdests_capacity = bytes;
    }
    memset(m->jumpdests, 0, bytes);
    for (size_t i = 0; i < size; i++) {
        uint8_t op = code[i];
        if (op == 0x5b) m->jumpdests[i >> 3] |= (uint8_t)(1u << (i & 7));
        else if (op >= 0x60 && op <= 0x7f) i += (size_t)op - 0x5f;
    }
    return true;
}

/* ---- memory ---- */

#define MEMORY_LIMIT UINT64_C(0xffffffff) /* beyond this the expansion costs more than EVM_GAS_MAX */

static inline int64_t words_of(uint64_t bytes)
{
    return (int64_t)((bytes + 31) / 32);
}

static int64_t memory_cost(int64_t words)
{
    return G_MEMORY * words + words * words / 512;
}

static inline bool memory_covers(const frame *f, const u256 *offset, uint64_t size)
{
    return u256_fits_u64(offset) && offset->w[0] <= MEMORY_LIMIT && offset->w[0] + size <= f->memory_size;
}

/* Charges for and makes memory up to offset + size, size <= MEMORY_LIMIT. */
static EVM_NOINLINE evm_status memory_expand(frame *f, const u256 *offset, uint64_t size)
{
    if (!u256_fits_u64(offset) || offset->w[0] > MEMORY_LIMIT) return EVM_OUT_OF_GAS;
    int64_t words = words_of(offset->w[0] + size), current = (int64_t)(f->memory_size / 32);
    if (words <= current) return EVM_SUCCESS;
    f->gas -= memory_cost(words) - memory_cost(current);
    if (f->gas < 0) return EVM_OUT_OF_GAS;

    evm_machine *m = f->machine;
    size_t bytes = (size_t)words * 32;
    if (bytes > m->memory_capacity) {
        size_t capacity = m->memory_capacity;
        while (capacity < bytes) capacity *= 2;
        uint8_t *p = realloc(m->memory, capacity);
        if (p == NULL) return EVM_OUT_OF_MEMORY;
        m->memory = p;
        m->memory_capacity = capacity;
    }
    memset(m->memory + f->memory_size, 0, bytes - f->memory_size);
    f->memory_size = bytes;
    return EVM_SUCCESS;
}

/* An (offset, size) pair of operands: expands memory and gives both as machine words. An empty range
 * costs nothing wherever it lies, and its offset is given as 0. */
static evm_status memory_range(frame *f, const u256 *offset, const u256 *size, size_t *o, size_t *n)
{
    *o = *n = 0;
    if (u256_is_zero(size)) return EVM_SUCCESS;
    if (!u256_fits_u64(size) || size->w[0] > MEMORY_LIMIT) return EVM_OUT_OF_GAS;
    if (!memory_covers(f, offset, size->w[0])) {
        evm_status status = memory_expand(f, offset, size->w[0]);
        if (status != EVM_SUCCESS) return status;
    }
    *o = (size_t)offset->w[0];
    *n = (size_t)size->w[0];
    return EVM_SUCCESS;
}

static inline evm_status charge(frame *f, int64_t amount)
{
    f->gas -= amount;
    return f->gas < 0 ? EVM_OUT_OF_GAS : EVM_SUCCESS;
}

/* memory[to..] = source[from..] for the operands (to, from, size) at sp[0], sp[-1], sp[-2]; reads
 * beyond the source give zeros. */
static evm_status copy_to_memory(frame *f, const u256 *sp, const uint8_t *source, size_t source_size)
{
    size_t to, n, from;
    evm_status status = memory_range(f, sp, sp - 2, &to, &n);
    if (status == EVM_SUCCESS) status = charge(f, G_COPY_WORD * words_of(n));
    if (status != EVM_SUCCESS || n == 0) return status;
    from = u256_fits_u64(sp - 1) && sp[-1].w[0] < source_size ? (size_t)sp[-1].w[0] : source_size;
    size_t available = source_size - from < n ? source_size - from : n;
    if (available > 0) memcpy(f->machine->memory + to, source + from, available);
    memset(f->machine->memory + to + available, 0, n - available);
    return EVM_SUCCESS;
}

/* ---- heavy opcodes: operands at sp[0], sp[-1], ...; the result replaces the deepest operand ---- */

static EVM_NOINLINE evm_status op_exp(frame *f, u256 *sp)
{
    int64_t exponent_bytes = (int64_t)(u256_bit_length(&sp[-1]) + 7) / 8;
    if (charge(f, G_EXP_BYTE * exponent_bytes) != EVM_SUCCESS) return EVM_OUT_OF_GAS;
    sp[-1] = u256_exp(&sp[0], &sp[-1]);
    return EVM_SUCCESS;
}

static EVM_NOINLINE void op_addmod(u256 *sp)
{
    sp[-2] = u256_addmod(&sp[0], &sp[-1], &sp[-2]);
}

static EVM_NOINLINE void op_mulmod(u256 *sp)
{
    sp[-2] = u256_mulmod(&sp[0], &sp[-1], &sp[-2]);
}

static EVM_NOINLINE evm_status op_keccak256(frame *f, u256 *sp)
{
    size_t offset, size;
    evm_status status = memory_range(f, &sp[0], &sp[-1], &offset, &size);
    if (status == EVM_SUCCESS) status = charge(f, G_KECCAK_WORD * words_of(size));
    if (status != EVM_SUCCESS) return status;
    uint8_t digest[32];
    keccak256(f->machine->memory + offset, size, digest);
    sp[-1] = u256_load(digest);
    return EVM_SUCCESS;
}

static EVM_NOINLINE evm_status op_sload(frame *f, u256 *sp)
{
    bool cold;
    const evm_slot *slot = storage_get(f->state, f->call->account, sp, &cold);
    if (slot == NULL) return EVM_OUT_OF_MEMORY;
    if (charge(f, cold ? G_COLD_SLOAD : G_WARM_ACCESS) != EVM_SUCCESS) return EVM_OUT_OF_GAS;
    *sp = slot->value;
    return EVM_SUCCESS;
}

static EVM_NOINLINE evm_status op_sstore(frame *f, const u256 *sp)
{
    if (f->gas <= G_SSTORE_SENTRY) return EVM_OUT_OF_GAS;
    bool cold;
    evm_slot *slot = storage_get(f->state, f->call->account, &sp[0], &cold);
    if (slot == NULL) return EVM_OUT_OF_MEMORY;
    const u256 *value = &sp[-1];
    bool unchanged = u256_equal(value, &slot->value);
    bool clean = u256_equal(&slot->value, &slot->original); /* not changed by this transaction */
    bool was_zero = u256_is_zero(&slot->original);

    int64_t cost = cold ? G_COLD_SLOAD : 0;
    if (unchanged || !clean) cost += G_WARM_ACCESS;
    else cost += was_zero ? G_SSTORE_SET : G_SSTORE_RESET;
    if (charge(f, cost) != EVM_SUCCESS) return EVM_OUT_OF_GAS;
    if (unchanged) return EVM_SUCCESS;

    if (!was_zero) {
        if (u256_is_zero(&slot->value)) f->refund -= G_SSTORE_CLEARS_REFUND;
        else if (u256_is_zero(value)) f->refund += G_SSTORE_CLEARS_REFUND;
    }
    if (!clean && u256_equal(value, &slot->original))
        f->refund += (was_zero ? G_SSTORE_SET : G_SSTORE_RESET) - G_WARM_ACCESS;
    return storage_set(f->state, slot, value) ? EVM_SUCCESS : EVM_OUT_OF_MEMORY;
}

static EVM_NOINLINE evm_status op_log(frame *f, const u256 *sp, uint32_t topic_count)
{
    size_t offset, size;
    evm_status status = memory_range(f, &sp[0], &sp[-1], &offset, &size);
    if (status == EVM_SUCCESS) status = charge(f, G_LOG_BYTE * (int64_t)size);
    if (status != EVM_SUCCESS) return status;
    u256 topics[4];
    for (uint32_t i = 0; i < topic_count; i++) topics[i] = *(sp - 2 - i);
    return state_add_log(f->state, f->call->account, topics, topic_count, f->machine->memory + offset,
                         size)
               ? EVM_SUCCESS
               : EVM_OUT_OF_MEMORY;
}

static EVM_NOINLINE evm_status op_calldatacopy(frame *f, const u256 *sp)
{
    return copy_to_memory(f, sp, f->call->input, f->call->input_size);
}

static EVM_NOINLINE evm_status op_codecopy(frame *f, const u256 *sp)
{
    return copy_to_memory(f, sp, f->call->code, f->call->code_size);
}

/* Nothing was called, so the return data is empty: only (any, 0, 0) is inside it. */
static EVM_NOINLINE evm_status op_returndatacopy(const u256 *sp)
{
    return u256_is_zero(&sp[-1]) && u256_is_zero(&sp[-2]) ? EVM_SUCCESS : EVM_RETURN_DATA_OUT_OF_BOUNDS;
}

static EVM_NOINLINE void op_calldataload(const frame *f, u256 *sp)
{
    size_t size = f->call->input_size;
    if (!u256_fits_u64(sp) || sp->w[0] >= size) {
        *sp = u256_from_u64(0);
        return;
    }
    const uint8_t *p = f->call->input + (size_t)sp->w[0];
    size_t available = size - (size_t)sp->w[0];
    uint8_t word[32] = {0};
    memcpy(word, p, available < 32 ? available : 32);
    *sp = u256_load(word);
}

static EVM_NOINLINE evm_status op_balance(const frame *f, u256 *sp)
{
    uint8_t word[32];
    const evm_account *self = &f->state->accounts[f->call->account];
    u256_store(word, sp);
    if (memcmp(word + 12, self->address.bytes, 20) != 0) return EVM_UNSUPPORTED;
    *sp = self->balance;
    return EVM_SUCCESS;
}

/* Blocks have no stored hash here: the hash of one of the last 256 blocks is the Keccak-256 of its
 * number as 32 bytes. */
static EVM_NOINLINE void op_blockhash(const frame *f, u256 *sp)
{
    uint64_t current = f->block->number;
    uint8_t word[32];
    if (!u256_fits_u64(sp) || sp->w[0] >= current || current - sp->w[0] > 256) {
        *sp = u256_from_u64(0);
        return;
    }
    u256_store(word, sp);
    keccak256(word, sizeof word, word);
    *sp = u256_load(word);
}

static EVM_NOINLINE evm_status op_return(frame *f, const u256 *sp, evm_result *result)
{
    size_t offset, size;
    evm_machine *m = f->machine;
    evm_status status = memory_range(f, &sp[0], &sp[-1], &offset, &size);
    if (status != EVM_SUCCESS) return status;
    if (size > m->output_capacity) {
        uint8_t *p = realloc(m->output, size);
        if (p == NULL) return EVM_OUT_OF_MEMORY;
        m->output = p;
        m->output_capacity = size;
    }
    if (size > 0) memcpy(m->output, m->memory + offset, size);
    result->output = m->output;
    result->output_size = size;
    return EVM_SUCCESS;
}

/* ---- dispatch ---- */

/* Starts the body of an opcode that takes "need" operands, leaves "give" results and costs at least
 * "cost". Inside, sp still stands on the top operand. */
#if EVM_COMPUTED_GOTO
#define OP(name, need, give, cost) L_##name: ENTER(name, need, give, cost)
#define NEXT __extension__({ goto *labels[*pc]; })
#else
#define OP(name, need, give, cost) case OP_##name: ENTER(name, need, give, cost)
#define NEXT goto dispatch
#endif

#define ENTER(name, need, give, cost)                                        \
    cprof_scope_set(scope, "[" #name "]");                                   \
    if (UNLIKELY((gas -= (cost)) < 0)) goto out_of_gas;                      \
    if ((need) > 0 && UNLIKELY(sp - stack < (need))) goto stack_underflow;   \
    if ((give) > (need) && UNLIKELY(sp - stack > EVM_STACK_LIMIT - ((give) - (need)))) \
        goto stack_overflow;

/* Runs a function that may charge gas itself, and leaves when it fails. */
#define CALL(expression)                                     \
    do {                                                     \
        f.gas = gas;                                         \
        status = (expression);                               \
        gas = f.gas;                                         \
        if (UNLIKELY(status != EVM_SUCCESS)) goto halt;      \
    } while (0)

#define NEED_MEMORY(offset, size)                                                        \
    do {                                                                                 \
        if (UNLIKELY(!memory_covers(&f, (offset), (size)))) CALL(memory_expand(&f, (offset), (size))); \
    } while (0)

/* Pushes a value and goes on with the next byte. */
#define PUSH_VALUE(expression)    \
    do {                          \
        u256 pushed = (expression); \
        *++sp = pushed;           \
        pc++;                     \
        NEXT;                     \
    } while (0)

#define PUSH_OP(n)                               \
    OP(PUSH##n, 0, 1, G_VERYLOW)                 \
    {                                            \
        *++sp = push_operand(pc + 1, (n));       \
        pc += 1 + (n);                           \
        NEXT;                                    \
    }

#define DUP_OP(n)                                \
    OP(DUP##n, (n), (n) + 1, G_VERYLOW)          \
    {                                            \
        sp[1] = sp[1 - (n)];                     \
        sp++;                                    \
        pc++;                                    \
        NEXT;                                    \
    }

#define SWAP_OP(n)                               \
    OP(SWAP##n, (n) + 1, (n) + 1, G_VERYLOW)     \
    {                                            \
        u256 swapped = sp[0];                    \
        sp[0] = sp[-(n)];                        \
        sp[-(n)] = swapped;                      \
        pc++;                                    \
        NEXT;                                    \
    }

#define LOG_OP(n)                                                        \
    OP(LOG##n, 2 + (n), 0, G_LOG + (n) * G_LOG_TOPIC)                    \
    {                                                                    \
        CALL(op_log(&f, sp, (n)));                                       \
        sp -= 2 + (n);                                                   \
        pc++;                                                            \
        NEXT;                                                            \
    }

/* The n bytes at p as a number; n is a constant, so each PUSH gets its own straight-line code. */
static inline u256 push_operand(const uint8_t *p, unsigned n)
{
    u256 r = {{0, 0, 0, 0}};
    for (unsigned i = 0; i < n; i++) r.w[(n - 1 - i) / 8] |= (uint64_t)p[i] << (8 * ((n - 1 - i) % 8));
    return r;
}

#if !EVM_COMPUTED_GOTO
enum { /* the cases: the bytes of the opcodes that have a body */
    OP_STOP = 0x00, OP_ADD, OP_MUL, OP_SUB, OP_DIV, OP_SDIV, OP_MOD, OP_SMOD, OP_ADDMOD, OP_MULMOD, OP_EXP,
    OP_SIGNEXTEND,
    OP_LT = 0x10, OP_GT, OP_SLT, OP_SGT, OP_EQ, OP_ISZERO, OP_AND, OP_OR, OP_XOR, OP_NOT, OP_BYTE, OP_SHL,
    OP_SHR, OP_SAR,
    OP_KECCAK256 = 0x20,
    OP_ADDRESS = 0x30, OP_BALANCE, OP_ORIGIN, OP_CALLER, OP_CALLVALUE, OP_CALLDATALOAD, OP_CALLDATASIZE,
    OP_CALLDATACOPY, OP_CODESIZE, OP_CODECOPY, OP_GASPRICE, OP_EXTCODESIZE, OP_EXTCODECOPY,
    OP_RETURNDATASIZE, OP_RETURNDATACOPY, OP_EXTCODEHASH,
    OP_BLOCKHASH = 0x40, OP_COINBASE, OP_TIMESTAMP, OP_NUMBER, OP_PREVRANDAO, OP_GASLIMIT, OP_CHAINID,
    OP_SELFBALANCE, OP_BASEFEE,
    OP_POP = 0x50, OP_MLOAD, OP_MSTORE, OP_MSTORE8, OP_SLOAD, OP_SSTORE, OP_JUMP, OP_JUMPI, OP_PC, OP_MSIZE,
    OP_GAS, OP_JUMPDEST,
    OP_PUSH0 = 0x5f, OP_PUSH1, OP_PUSH2, OP_PUSH3, OP_PUSH4, OP_PUSH5, OP_PUSH6, OP_PUSH7, OP_PUSH8, OP_PUSH9,
    OP_PUSH10, OP_PUSH11, OP_PUSH12, OP_PUSH13, OP_PUSH14, OP_PUSH15, OP_PUSH16, OP_PUSH17, OP_PUSH18,
    OP_PUSH19, OP_PUSH20, OP_PUSH21, OP_PUSH22, OP_PUSH23, OP_PUSH24, OP_PUSH25, OP_PUSH26, OP_PUSH27,
    OP_PUSH28, OP_PUSH29, OP_PUSH30, OP_PUSH31, OP_PUSH32,
    OP_DUP1, OP_DUP2, OP_DUP3, OP_DUP4, OP_DUP5, OP_DUP6, OP_DUP7, OP_DUP8, OP_DUP9, OP_DUP10, OP_DUP11,
    OP_DUP12, OP_DUP13, OP_DUP14, OP_DUP15, OP_DUP16,
    OP_SWAP1, OP_SWAP2, OP_SWAP3, OP_SWAP4, OP_SWAP5, OP_SWAP6, OP_SWAP7, OP_SWAP8, OP_SWAP9, OP_SWAP10,
    OP_SWAP11, OP_SWAP12, OP_SWAP13, OP_SWAP14, OP_SWAP15, OP_SWAP16,
    OP_LOG0, OP_LOG1, OP_LOG2, OP_LOG3, OP_LOG4,
    OP_CREATE = 0xf0, OP_CALL, OP_CALLCODE, OP_RETURN, OP_DELEGATECALL, OP_CREATE2,
    OP_STATICCALL = 0xfa, OP_REVERT = 0xfd, OP_SELFDESTRUCT = 0xff
};
#endif

/* Runs until the code halts; gives the status and fills in *result's output, gas and refund. */
static EVM_NOINLINE evm_status interpret(evm_machine *m, evm_state *s, const evm_block *block,
                                         const evm_call *call, evm_result *result)
{
#if EVM_COMPUTED_GOTO
#define LABEL(name) __extension__ &&L_##name,
    static const void *const labels[256] = {EVM_OPCODE_TABLE(LABEL)};
#undef LABEL
#endif
    u256 *const stack = m->stack;
    u256 *sp = stack; /* the top element; sp - stack elements are on the stack */
    const uint8_t *const code = call->code;
    const uint8_t *pc = code;
    int64_t gas = call->gas;
    evm_status status;
    frame f = {0};
    f.machine = m;
    f.state = s;
    f.block = block;
    f.call = call;

    if (!jumpdest_analyse(m, code, call->code_size)) return EVM_OUT_OF_MEMORY;
    /* Each opcode stores its name through this handle; into the void unless that is wanted. */
    cprof_scope nowhere, *scope = &nowhere;
    if (profile_scopes_wanted == PROFILE_SCOPES_OPCODE) scope = cprof_scope_begin(NULL);

#if EVM_COMPUTED_GOTO
    NEXT;
#else
dispatch:
    switch (*pc) {
#endif

    OP(STOP, 0, 0, G_ZERO)
    {
        status = EVM_SUCCESS;
        goto halt;
    }

    /* -- arithmetic -- */
    OP(ADD, 2, 1, G_VERYLOW)
    {
        sp[-1] = u256_add(&sp[0], &sp[-1]);
        sp--, pc++;
        NEXT;
    }
    OP(MUL, 2, 1, G_LOW)
    {
        sp[-1] = u256_mul(&sp[0], &sp[-1]);
        sp--, pc++;
        NEXT;
    }
    OP(SUB, 2, 1, G_VERYLOW)
    {
        sp[-1] = u256_sub(&sp[0], &sp[-1]);
        sp--, pc++;
        NEXT;
    }
    OP(DIV, 2, 1, G_LOW)
    {
        u256_udivrem(&sp[0], &sp[-1], &sp[-1], NULL);
        sp--, pc++;
        NEXT;
    }
    OP(SDIV, 2, 1, G_LOW)
    {
        sp[-1] = u256_sdiv(&sp[0], &sp[-1]);
        sp--, pc++;
        NEXT;
    }
    OP(MOD, 2, 1, G_LOW)
    {
        u256_udivrem(&sp[0], &sp[-1], NULL, &sp[-1]);
        sp--, pc++;
        NEXT;
    }
    OP(SMOD, 2, 1, G_LOW)
    {
        sp[-1] = u256_smod(&sp[0], &sp[-1]);
        sp--, pc++;
        NEXT;
    }
    OP(ADDMOD, 3, 1, G_MID)
    {
        op_addmod(sp);
        sp -= 2, pc++;
        NEXT;
    }
    OP(MULMOD, 3, 1, G_MID)
    {
        op_mulmod(sp);
        sp -= 2, pc++;
        NEXT;
    }
    OP(EXP, 2, 1, G_EXP)
    {
        CALL(op_exp(&f, sp));
        sp--, pc++;
        NEXT;
    }
    OP(SIGNEXTEND, 2, 1, G_LOW)
    {
        sp[-1] = u256_signextend(&sp[0], &sp[-1]);
        sp--, pc++;
        NEXT;
    }

    /* -- comparisons and bits -- */
    OP(LT, 2, 1, G_VERYLOW)
    {
        sp[-1] = u256_from_u64(u256_less(&sp[0], &sp[-1]));
        sp--, pc++;
        NEXT;
    }
    OP(GT, 2, 1, G_VERYLOW)
    {
        sp[-1] = u256_from_u64(u256_less(&sp[-1], &sp[0]));
        sp--, pc++;
        NEXT;
    }
    OP(SLT, 2, 1, G_VERYLOW)
    {
        sp[-1] = u256_from_u64(u256_sless(&sp[0], &sp[-1]));
        sp--, pc++;
        NEXT;
    }
    OP(SGT, 2, 1, G_VERYLOW)
    {
        sp[-1] = u256_from_u64(u256_sless(&sp[-1], &sp[0]));
        sp--, pc++;
        NEXT;
    }
    OP(EQ, 2, 1, G_VERYLOW)
    {
        sp[-1] = u256_from_u64(u256_equal(&sp[0], &sp[-1]));
        sp--, pc++;
        NEXT;
    }
    OP(ISZERO, 1, 1, G_VERYLOW)
    {
        sp[0] = u256_from_u64(u256_is_zero(&sp[0]));
        pc++;
        NEXT;
    }
    OP(AND, 2, 1, G_VERYLOW)
    {
        for (int i = 0; i < 4; i++) sp[-1].w[i] &= sp[0].w[i];
        sp--, pc++;
        NEXT;
    }
    OP(OR, 2, 1, G_VERYLOW)
    {
        for (int i = 0; i < 4; i++) sp[-1].w[i] |= sp[0].w[i];
        sp--, pc++;
        NEXT;
    }
    OP(XOR, 2, 1, G_VERYLOW)
    {
        for (int i = 0; i < 4; i++) sp[-1].w[i] ^= sp[0].w[i];
        sp--, pc++;
        NEXT;
    }
    OP(NOT, 1, 1, G_VERYLOW)
    {
        for (int i = 0; i < 4; i++) sp[0].w[i] = ~sp[0].w[i];
        pc++;
        NEXT;
    }
    OP(BYTE, 2, 1, G_VERYLOW)
    {
        uint64_t byte = 0;
        if (u256_fits_u64(&sp[0]) && sp[0].w[0] < 32) {
            unsigned from_low = 31 - (unsigned)sp[0].w[0];
            byte = (sp[-1].w[from_low / 8] >> (8 * (from_low % 8))) & 0xff;
        }
        sp[-1] = u256_from_u64(byte);
        sp--, pc++;
        NEXT;
    }
    OP(SHL, 2, 1, G_VERYLOW)
    {
        sp[-1] = u256_shl(&sp[-1], &sp[0]);
        sp--, pc++;
        NEXT;
    }
    OP(SHR, 2, 1, G_VERYLOW)
    {
        sp[-1] = u256_shr(&sp[-1], &sp[0]);
        sp--, pc++;
        NEXT;
    }
    OP(SAR, 2, 1, G_VERYLOW)
    {
        sp[-1] = u256_sar(&sp[-1], &sp[0]);
        sp--, pc++;
        NEXT;
    }
    OP(KECCAK256, 2, 1, G_KECCAK)
    {
        CALL(op_keccak256(&f, sp));
        sp--, pc++;
        NEXT;
    }

    /* -- environment -- */
    OP(ADDRESS, 0, 1, G_BASE) PUSH_VALUE(evm_address_word(&s->accounts[call->account].address));
    OP(BALANCE, 1, 1, G_WARM_ACCESS) /* the account itself is always warm */
    {
        CALL(op_balance(&f, sp));
        pc++;
        NEXT;
    }
    OP(ORIGIN, 0, 1, G_BASE) PUSH_VALUE(evm_address_word(&call->origin));
    OP(CALLER, 0, 1, G_BASE) PUSH_VALUE(evm_address_word(&call->caller));
    OP(CALLVALUE, 0, 1, G_BASE) PUSH_VALUE(call->value);
    OP(CALLDATALOAD, 1, 1, G_VERYLOW)
    {
        op_calldataload(&f, sp);
        pc++;
        NEXT;
    }
    OP(CALLDATASIZE, 0, 1, G_BASE) PUSH_VALUE(u256_from_u64(call->input_size));
    OP(CALLDATACOPY, 3, 0, G_VERYLOW)
    {
        CALL(op_calldatacopy(&f, sp));
        sp -= 3, pc++;
        NEXT;
    }
    OP(CODESIZE, 0, 1, G_BASE) PUSH_VALUE(u256_from_u64(call->code_size));
    OP(CODECOPY, 3, 0, G_VERYLOW)
    {
        CALL(op_codecopy(&f, sp));
        sp -= 3, pc++;
        NEXT;
    }
    OP(GASPRICE, 0, 1, G_BASE) PUSH_VALUE(call->gas_price);
    OP(RETURNDATASIZE, 0, 1, G_BASE) PUSH_VALUE(u256_from_u64(0));
    OP(RETURNDATACOPY, 3, 0, G_VERYLOW)
    {
        CALL(op_returndatacopy(sp));
        sp -= 3, pc++;
        NEXT;
    }
    OP(BLOCKHASH, 1, 1, G_BLOCKHASH)
    {
        op_blockhash(&f, sp);
        pc++;
        NEXT;
    }
    OP(COINBASE, 0, 1, G_BASE) PUSH_VALUE(evm_address_word(&block->coinbase));
    OP(TIMESTAMP, 0, 1, G_BASE) PUSH_VALUE(u256_from_u64(block->timestamp));
    OP(NUMBER, 0, 1, G_BASE) PUSH_VALUE(u256_from_u64(block->number));
    OP(PREVRANDAO, 0, 1, G_BASE) PUSH_VALUE(block->prev_randao);
    OP(GASLIMIT, 0, 1, G_BASE) PUSH_VALUE(u256_from_u64(block->gas_limit));
    OP(CHAINID, 0, 1, G_BASE) PUSH_VALUE(u256_from_u64(block->chain_id));
    OP(SELFBALANCE, 0, 1, G_LOW) PUSH_VALUE(s->accounts[call->account].balance);
    OP(BASEFEE, 0, 1, G_BASE) PUSH_VALUE(block->base_fee);

    /* -- stack, memory, storage, flow -- */
    OP(POP, 1, 0, G_BASE)
    {
        sp--, pc++;
        NEXT;
    }
    OP(MLOAD, 1, 1, G_VERYLOW)
    {
        NEED_MEMORY(sp, 32);
        *sp = u256_load(m->memory + (size_t)sp->w[0]);
        pc++;
        NEXT;
    }
    OP(MSTORE, 2, 0, G_VERYLOW)
    {
        NEED_MEMORY(sp, 32);
        u256_store(m->memory + (size_t)sp->w[0], &sp[-1]);
        sp -= 2, pc++;
        NEXT;
    }
    OP(MSTORE8, 2, 0, G_VERYLOW)
    {
        NEED_MEMORY(sp, 1);
        m->memory[(size_t)sp->w[0]] = (uint8_t)(sp[-1].w[0] & 0xff);
        sp -= 2, pc++;
        NEXT;
    }
    OP(SLOAD, 1, 1, G_ZERO)
    {
        CALL(op_sload(&f, sp));
        pc++;
        NEXT;
    }
    OP(SSTORE, 2, 0, G_ZERO)
    {
        CALL(op_sstore(&f, sp));
        sp -= 2, pc++;
        NEXT;
    }
    OP(JUMP, 1, 0, G_MID)
    {
        goto jump;
    }
    OP(JUMPI, 2, 0, G_HIGH)
    {
        if (u256_is_zero(&sp[-1])) {
            sp -= 2, pc++;
            NEXT;
        }
        sp[-1] = sp[0];
        sp--;
        goto jump;
    }
    OP(PC, 0, 1, G_BASE) PUSH_VALUE(u256_from_u64((uint64_t)(pc - code)));
    OP(MSIZE, 0, 1, G_BASE) PUSH_VALUE(u256_from_u64(f.memory_size));
    OP(GAS, 0, 1, G_BASE) PUSH_VALUE(u256_from_u64((uint64_t)gas));
    OP(JUMPDEST, 0, 0, G_JUMPDEST)
    {
        pc++;
        NEXT;
    }

    OP(PUSH0, 0, 1, G_BASE) PUSH_VALUE(u256_from_u64(0));
    PUSH_OP(1) PUSH_OP(2) PUSH_OP(3) PUSH_OP(4) PUSH_OP(5) PUSH_OP(6) PUSH_OP(7) PUSH_OP(8)
    PUSH_OP(9) PUSH_OP(10) PUSH_OP(11) PUSH_OP(12) PUSH_OP(13) PUSH_OP(14) PUSH_OP(15) PUSH_OP(16)
    PUSH_OP(17) PUSH_OP(18) PUSH_OP(19) PUSH_OP(20) PUSH_OP(21) PUSH_OP(22) PUSH_OP(23) PUSH_OP(24)
    PUSH_OP(25) PUSH_OP(26) PUSH_OP(27) PUSH_OP(28) PUSH_OP(29) PUSH_OP(30) PUSH_OP(31) PUSH_OP(32)
    DUP_OP(1) DUP_OP(2) DUP_OP(3) DUP_OP(4) DUP_OP(5) DUP_OP(6) DUP_OP(7) DUP_OP(8)
    DUP_OP(9) DUP_OP(10) DUP_OP(11) DUP_OP(12) DUP_OP(13) DUP_OP(14) DUP_OP(15) DUP_OP(16)
    SWAP_OP(1) SWAP_OP(2) SWAP_OP(3) SWAP_OP(4) SWAP_OP(5) SWAP_OP(6) SWAP_OP(7) SWAP_OP(8)
    SWAP_OP(9) SWAP_OP(10) SWAP_OP(11) SWAP_OP(12) SWAP_OP(13) SWAP_OP(14) SWAP_OP(15) SWAP_OP(16)
    LOG_OP(0) LOG_OP(1) LOG_OP(2) LOG_OP(3) LOG_OP(4)

    OP(RETURN, 2, 0, G_ZERO)
    {
        CALL(op_return(&f, sp, result));
        goto halt;
    }
    OP(REVERT, 2, 0, G_ZERO)
    {
        CALL(op_return(&f, sp, result));
        status = EVM_REVERT;
        goto halt;
    }

#if EVM_COMPUTED_GOTO
L_OTHER_ACCOUNT:
    status = EVM_UNSUPPORTED;
    goto halt;
L_UNDEFINED:
    status = EVM_INVALID_OPCODE;
    goto halt;
#else
    case OP_EXTCODESIZE: case OP_EXTCODECOPY: case OP_EXTCODEHASH: case OP_CREATE: case OP_CALL:
    case OP_CALLCODE: case OP_DELEGATECALL: case OP_CREATE2: case OP_STATICCALL: case OP_SELFDESTRUCT:
        status = EVM_UNSUPPORTED;
        goto halt;
    default:
        status = EVM_INVALID_OPCODE;
        goto halt;
    }
#endif

jump:
    if (UNLIKELY(!u256_fits_u64(sp) || sp->w[0] >= call->code_size ||
                 !jumpdest_test(m->jumpdests, (size_t)sp->w[0]))) {
        status = EVM_BAD_JUMP;
        goto halt;
    }
    pc = code + (size_t)sp->w[0];
    sp--;
    NEXT;

out_of_gas:
    status = EVM_OUT_OF_GAS;
    goto halt;
stack_underflow:
    status = EVM_STACK_UNDERFLOW;
    goto halt;
stack_overflow:
    status = EVM_STACK_OVERFLOW;
    goto halt;

halt:
    if (scope != &nowhere) cprof_scope_end(scope);
    result->gas_left = gas;
    result->refund = f.refund;
    return status;
}

evm_result evm_execute(evm_machine *m, evm_state *s, const evm_block *block, const evm_call *call)
{
    evm_result result = {EVM_SUCCESS, 0, 0, NULL, 0};
    result.status = interpret(m, s, block, call, &result);
    if (result.status != EVM_SUCCESS) result.refund = 0;
    if (result.status != EVM_SUCCESS && result.status != EVM_REVERT) {
        result.gas_left = 0;
        result.output_size = 0;
    }
    return result;
}
