// chain.c - executes blocks, reads chain files (the format is in chain.h) and generates them.
//
// Part of the example EVM that cprof profiles. Build from the repository root:
//     cc -O2 -pthread -I. examples/evm/*.c -o evm
#include "chain.h"
#include "contracts/contracts.h"
#include "keccak.h"
#include "os.h"
#include "profile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

static const uint8_t magic[8] = {'E', 'V', 'M', 'C', 'H', 'A', 'I', 'N'};

enum { FORMAT_VERSION = 1, HEAD_SIZE = 56, HEAD_CHECKSUM_AT = 48, INDEX_ENTRY_SIZE = 32 };

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static bool fail(chain_error *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return false;
}

static uint64_t checksum(const uint8_t *p, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* ---- reading: every read is checked against the end; after a failure all reads give zero ---- */

typedef struct reader {
    const uint8_t *p, *end;
    bool failed;
} reader;

static const uint8_t *read_bytes(reader *r, size_t n)
{
    static const uint8_t zeros[32];
    if (r->failed || (size_t)(r->end - r->p) < n) {
        r->failed = true;
        return n <= sizeof zeros ? zeros : NULL;
    }
    r->p += n;
    return r->p - n;
}

static uint64_t read_integer(reader *r, unsigned n)
{
    const uint8_t *p = read_bytes(r, n);
    uint64_t v = 0;
    for (unsigned i = n; i-- > 0;) v = (v << 8) | p[i];
    return v;
}

static uint32_t read_u32(reader *r)
{
    return (uint32_t)read_integer(r, 4);
}

static uint64_t read_u64(reader *r)
{
    return read_integer(r, 8);
}

static evm_address read_address(reader *r)
{
    evm_address a;
    memcpy(a.bytes, read_bytes(r, 20), 20);
    return a;
}

static u256 read_word(reader *r)
{
    size_t n = (size_t)read_integer(r, 1);
    if (n > 32) r->failed = true;
    return r->failed ? u256_from_u64(0) : u256_load_short(read_bytes(r, n), n);
}

/* ---- writing, into a buffer that grows; after a failed allocation nothing more is written ---- */

typedef struct writer {
    uint8_t *data;
    size_t size, capacity;
    bool failed;
} writer;

static void write_bytes(writer *w, const void *p, size_t n)
{
    if (w->failed || n == 0) return;
    if (n > w->capacity - w->size) {
        size_t capacity = w->capacity * 2 + n + 4096;
        uint8_t *data = realloc(w->data, capacity);
        if (data == NULL) {
            w->failed = true;
            return;
        }
        w->data = data;
        w->capacity = capacity;
    }
    memcpy(w->data + w->size, p, n);
    w->size += n;
}

static void write_integer(writer *w, uint64_t v, unsigned n)
{
    uint8_t b[8];
    for (unsigned i = 0; i < n; i++) b[i] = (uint8_t)(v >> (8 * i));
    write_bytes(w, b, n);
}

static void write_u32(writer *w, uint32_t v)
{
    write_integer(w, v, 4);
}

static void write_u64(writer *w, uint64_t v)
{
    write_integer(w, v, 8);
}

static void write_word(writer *w, const u256 *v)
{
    uint8_t b[32];
    unsigned n = (u256_bit_length(v) + 7) / 8;
    u256_store(b, v);
    write_integer(w, n, 1);
    write_bytes(w, b + 32 - n, n);
}

/* ---- executing a block ---- */

static void digest_u32(keccak *k, uint32_t v)
{
    uint8_t b[8];
    u64_store_be(b, v);
    keccak_update(k, b + 4, 4);
}

static void digest_u64(keccak *k, uint64_t v)
{
    uint8_t b[8];
    u64_store_be(b, v);
    keccak_update(k, b, 8);
}

static void digest_word(keccak *k, const u256 *v)
{
    uint8_t b[32];
    u256_store(b, v);
    keccak_update(k, b, 32);
}

/* Logs, balances and sorted storage. */
static EVM_NOINLINE void digest_state(keccak *k, evm_state *s)
{
    for (uint32_t i = 0; i < s->log_count; i++) {
        const evm_log *log = &s->logs[i];
        digest_u32(k, log->account);
        digest_u32(k, log->topic_count);
        for (uint32_t t = 0; t < log->topic_count; t++) digest_word(k, &log->topics[t]);
        digest_u64(k, log->data_size);
        if (log->data_size > 0) keccak_update(k, s->log_data + log->data_offset, log->data_size);
    }
    for (uint32_t i = 0; i < s->account_count; i++) digest_word(k, &s->accounts[i].balance);
    state_sort(s);
    for (uint32_t i = 0; i < s->slot_count; i++) {
        const evm_slot *slot = &s->slots[i];
        if (u256_is_zero(&slot->value)) continue;
        digest_u32(k, slot->account);
        digest_word(k, &slot->key);
        digest_word(k, &slot->value);
    }
}

static int64_t intrinsic_gas(const uint8_t *input, size_t size)
{
    int64_t gas = 21000;
    for (size_t i = 0; i < size; i++) gas += input[i] == 0 ? 4 : 16;
    return gas;
}

/* Runs one transaction and adds its receipt to the digest. */
static bool execute_transaction(chain *c, const evm_block *block, reader *r, uint32_t index,
                                keccak *k, uint64_t *gas_used, chain_error *error)
{
    evm_call call;
    memset(&call, 0, sizeof call);
    call.account = read_u32(r);
    call.caller = call.origin = read_address(r);
    uint64_t gas_limit = read_u64(r);
    call.gas_price = read_word(r);
    call.value = read_word(r);
    call.input_size = read_u32(r);
    call.input = read_bytes(r, call.input_size);
    if (r->failed) return fail(error, "transaction %" PRIu32 " is cut off", index);
    if (call.account >= c->contract_count)
        return fail(error, "transaction %" PRIu32 " calls an unknown contract", index);
    int64_t intrinsic = intrinsic_gas(call.input, call.input_size);
    if (gas_limit > block->gas_limit - *gas_used || (int64_t)gas_limit < intrinsic)
        return fail(error, "transaction %" PRIu32 " has an impossible gas limit %" PRIu64, index,
                    gas_limit);
    call.gas = (int64_t)gas_limit - intrinsic;
    call.code = c->contracts[call.account].code;
    call.code_size = c->contracts[call.account].code_size;

    evm_account *account = &c->state.accounts[call.account];
    u256 balance = account->balance;
    state_begin(&c->state);
    account->balance = u256_add(&balance, &call.value);
    const char *scope_name = profile_scope_name(PROFILE_SCOPES_TX, "tx", index);
    cprof_scope *scope = scope_name != NULL ? cprof_scope_begin(scope_name) : NULL;
    evm_result result = evm_execute(&c->machine, &c->state, block, &call);
    if (scope != NULL) cprof_scope_end(scope);
    if (result.status == EVM_OUT_OF_MEMORY || result.status == EVM_UNSUPPORTED)
        return fail(error, "transaction %" PRIu32 " cannot be executed: %s", index,
                    evm_status_name(result.status));
    if (result.status != EVM_SUCCESS) {
        state_rollback(&c->state);
        account->balance = balance;
    }
    int64_t used = (int64_t)gas_limit - result.gas_left;
    used -= result.refund < used / 5 ? result.refund : used / 5;

    uint8_t status = result.status == EVM_SUCCESS;
    keccak_update(k, &status, 1);
    digest_u64(k, (uint64_t)used);
    digest_u64(k, result.output_size);
    if (result.output_size > 0) keccak_update(k, result.output, result.output_size);
    *gas_used += (uint64_t)used;
    return true;
}

/* Executes the record at r up to the recorded result, where r is left. */
static EVM_NOINLINE bool execute_block(chain *c, reader *r, uint64_t number, chain_outcome *outcome,
                                       chain_error *error)
{
    evm_block block;
    memset(&block, 0, sizeof block);
    block.number = read_u64(r);
    block.timestamp = read_u64(r);
    block.gas_limit = read_u64(r);
    block.chain_id = read_u64(r);
    block.coinbase = read_address(r);
    block.prev_randao = u256_load(read_bytes(r, 32));
    block.base_fee = read_word(r);
    if (!r->failed && block.number != number)
        return fail(error, "the record is that of block %" PRIu64, block.number);
    if (block.gas_limit > CHAIN_MAX_BLOCK_GAS)
        return fail(error, "the block's gas limit %" PRIu64 " is beyond this program's", block.gas_limit);

    state_clear(&c->state);
    if (read_u32(r) != c->contract_count) r->failed = true;
    for (uint32_t i = 0; i < c->contract_count && !r->failed; i++) {
        c->state.accounts[i].balance = read_word(r);
        for (uint32_t n = read_u32(r); n > 0 && !r->failed; n--) {
            u256 key = read_word(r), value = read_word(r);
            if (!storage_preset(&c->state, i, &key, &value)) return fail(error, "out of memory");
        }
    }
    uint32_t count = read_u32(r);
    if (r->failed) return fail(error, "the record is malformed");

    keccak k;
    keccak_init(&k);
    memset(outcome, 0, sizeof *outcome);
    const char *scope_name = profile_scope_name(PROFILE_SCOPES_BLOCK, "block", number);
    cprof_scope *scope = scope_name != NULL ? cprof_scope_begin(scope_name) : NULL;
    bool good = true;
    for (uint32_t i = 0; i < count && good; i++)
        good = execute_transaction(c, &block, r, i, &k, &outcome->gas_used, error);
    if (scope != NULL) cprof_scope_end(scope);
    if (!good) return false;
    outcome->transactions = count;
    digest_state(&k, &c->state);
    keccak_final(&k, outcome->digest);
    return true;
}

/* ---- reading a chain ---- */

static bool chain_init(chain *c, chain_error *error)
{
    if (machine_init(&c->machine) && state_init(&c->state, c->contract_count)) {
        for (uint32_t i = 0; i < c->contract_count; i++)
            c->state.accounts[i].address = c->contracts[i].address;
        return true;
    }
    return fail(error, "out of memory");
}

void chain_close(chain *c)
{
    if (c->file != NULL) fclose(c->file);
    for (uint32_t i = 0; i < CHAIN_MAX_CONTRACTS; i++) free(c->contracts[i].code);
    machine_free(&c->machine);
    state_free(&c->state);
    free(c->record);
    memset(c, 0, sizeof *c);
}

static bool set_contract(chain *c, uint32_t i, const evm_address *address, const uint8_t *code,
                         size_t size)
{
    c->contracts[i].address = *address;
    c->contracts[i].code_size = size;
    c->contracts[i].code = calloc(1, size + EVM_CODE_PADDING);
    if (c->contracts[i].code == NULL) return false;
    if (size > 0) memcpy(c->contracts[i].code, code, size);
    return true;
}

static bool chain_path(char *path, size_t size, const char *directory, chain_error *error)
{
    size_t n = strlen(directory);
    const char *slash = n > 0 && (directory[n - 1] == '/' || directory[n - 1] == '\\') ? "" : "/";
    int length = snprintf(path, size, "%s%s%s", directory, slash, CHAIN_FILE_NAME);
    if (n == 0) return fail(error, "the data directory's name is empty");
    if (length < 0 || (size_t)length >= size) return fail(error, "the data directory's name is too long");
    return true;
}

static bool read_at(chain *c, uint64_t position, uint8_t *to, size_t n)
{
    return position <= c->file_size && n <= c->file_size - position && os_seek(c->file, position) &&
           fread(to, 1, n, c->file) == n;
}

/* The head's fixed fields are in head[0..HEAD_SIZE). */
static bool check_head(chain *c, const uint8_t *head, const char *path, chain_error *error)
{
    if (memcmp(head, magic, sizeof magic) != 0) return fail(error, "%s is not a chain file", path);
    reader r = {head + 8, head + HEAD_SIZE, false};
    uint32_t version = read_u32(&r);
    if (version != FORMAT_VERSION)
        return fail(error, "%s has format version %" PRIu32 ", this program reads version %d", path, version,
                    FORMAT_VERSION);
    c->contract_count = read_u32(&r);
    c->first = read_u64(&r);
    c->last = read_u64(&r);
    (void)read_u64(&r); /* seed */
    c->index_position = read_u64(&r);
    if (c->contract_count < 1 || c->contract_count > CHAIN_MAX_CONTRACTS || c->first > c->last ||
        c->last > CHAIN_MAX_BLOCK || c->last - c->first >= CHAIN_MAX_BLOCKS || c->index_position < HEAD_SIZE ||
        c->index_position > HEAD_SIZE + CHAIN_MAX_CONTRACTS * (24 + CHAIN_MAX_CODE))
        return fail(error, "%s is damaged: impossible head", path);
    return true;
}

static bool read_head(chain *c, const char *path, chain_error *error)
{
    uint8_t fixed[HEAD_SIZE];
    if (!os_file_size(c->file, &c->file_size)) return fail(error, "cannot read %s", path);
    if (!read_at(c, 0, fixed, sizeof fixed)) return fail(error, "%s is too short for a chain file", path);
    if (!check_head(c, fixed, path, error)) return false;

    size_t size = (size_t)c->index_position;
    uint8_t *head = malloc(size);
    if (head == NULL) return fail(error, "out of memory");
    if (!read_at(c, 0, head, size)) {
        free(head);
        return fail(error, "%s is cut off in its head", path);
    }
    reader r = {head + HEAD_CHECKSUM_AT, head + size, false};
    uint64_t recorded = read_u64(&r);
    memset(head + HEAD_CHECKSUM_AT, 0, 8);
    bool good = checksum(head, size) == recorded, memory = true;
    for (uint32_t i = 0; good && memory && i < c->contract_count; i++) {
        evm_address address = read_address(&r);
        uint32_t n = read_u32(&r);
        const uint8_t *code = read_bytes(&r, n);
        good = !r.failed && n <= CHAIN_MAX_CODE;
        if (good) memory = set_contract(c, i, &address, code, n);
    }
    good = good && !r.failed;
    free(head);
    if (!memory) return fail(error, "out of memory");
    return good ? true : fail(error, "%s is damaged: the head's checksum differs", path);
}

bool chain_open(chain *c, const char *directory, chain_error *error)
{
    char path[4096];
    memset(c, 0, sizeof *c);
    if (!chain_path(path, sizeof path, directory, error)) return false;
    c->file = fopen(path, "rb");
    if (c->file == NULL) return fail(error, "cannot open %s: %s", path, strerror(errno));
    setvbuf(c->file, NULL, _IONBF, 0); /* every read is one record after one seek: a buffer only costs */
    if (read_head(c, path, error) && chain_init(c, error)) return true;
    chain_close(c);
    return false;
}

/* Reads a block's record into c->record and verifies the checksums. */
static bool read_record(chain *c, uint64_t number, size_t *size, chain_error *error)
{
    uint8_t entry[INDEX_ENTRY_SIZE];
    if (!read_at(c, c->index_position + (number - c->first) * INDEX_ENTRY_SIZE, entry, sizeof entry))
        return fail(error, "the file is cut off in its index");
    reader r = {entry, entry + sizeof entry, false};
    uint64_t position = read_u64(&r);
    uint32_t length = read_u32(&r);
    uint32_t zero = read_u32(&r);
    uint64_t record_checksum = read_u64(&r);
    if (read_u64(&r) != checksum(entry, INDEX_ENTRY_SIZE - 8) || zero != 0 || length > CHAIN_MAX_RECORD)
        return fail(error, "the file is damaged: the index entry's checksum differs");
    if (length > c->record_capacity) {
        uint8_t *p = realloc(c->record, length);
        if (p == NULL) return fail(error, "out of memory");
        c->record = p;
        c->record_capacity = length;
    }
    if (length == 0 || !read_at(c, position, c->record, length))
        return fail(error, "the file is cut off in the block's record");
    if (checksum(c->record, length) != record_checksum)
        return fail(error, "the file is damaged: the record's checksum differs");
    *size = length;
    return true;
}

static void to_hex(char *text, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) snprintf(text + 2 * i, 3, "%02x", p[i]);
}

bool chain_replay(chain *c, uint64_t number, chain_outcome *outcome, chain_error *error)
{
    size_t size = 0;
    if (number < c->first || number > c->last) return fail(error, "the file has no such block");
    if (!read_record(c, number, &size, error)) return false;
    reader r = {c->record, c->record + size, false};
    if (!execute_block(c, &r, number, outcome, error)) return false;

    uint64_t gas_used = read_u64(&r);
    const uint8_t *digest = read_bytes(&r, 32);
    if (r.failed || r.p != r.end) return fail(error, "the record is malformed at its end");
    if (outcome->gas_used != gas_used)
        return fail(error, "used %" PRIu64 " gas, but %" PRIu64 " is recorded", outcome->gas_used, gas_used);
    if (memcmp(outcome->digest, digest, 32) != 0) {
        char got[65], want[65];
        to_hex(got, outcome->digest, 32);
        to_hex(want, digest, 32);
        return fail(error, "the state digest is %s, but %s is recorded", got, want);
    }
    return true;
}

/* ---- generating a chain ---- */

/* What a block holds. Chosen so that a block takes several milliseconds and no contract dominates. */
enum {
    TOKEN_HOLDERS = 96,      /* with a balance at the start of the block */
    TOKEN_STRANGERS = 32,    /* who may receive */
    TOKEN_TRANSFERS = 450,
    HASH_RUNS = 3,
    HASH_ROUNDS = 900,
    MODEXP_RUNS = 18,
    SORT_RUNS = 3,
    SORT_WORDS = 360,
    LEDGER_ACCOUNTS = 48,
    LEDGER_DEPOSITS = 12,
    LEDGER_RUNS = 6,
    LEDGER_ROUNDS = 45,
    BLOCK_GAS_LIMIT = 36000000 /* about 24 million are used */
};

/* splitmix64 (Steele, Lea, Flood, 2014): every block has its own stream, from seed and number. */
typedef struct random_stream {
    uint64_t state;
} random_stream;

static uint64_t random_u64(random_stream *r)
{
    uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint32_t random_below(random_stream *r, uint32_t n)
{
    return (uint32_t)((random_u64(r) >> 32) * n >> 32);
}

static u256 random_word(random_stream *r)
{
    u256 v;
    for (int i = 0; i < 4; i++) v.w[i] = random_u64(r);
    return v;
}

/* About `around`, between 3/4 and 5/4 of it. */
static uint64_t random_around(random_stream *r, uint32_t around)
{
    return around - around / 4 + random_below(r, around / 2 + 1);
}

static evm_address make_address(const char *kind, uint32_t n)
{
    char text[32];
    uint8_t digest[32];
    evm_address a;
    int length = snprintf(text, sizeof text, "%s %" PRIu32, kind, n);
    keccak256(text, (size_t)length, digest);
    memcpy(a.bytes, digest + 12, 20);
    return a;
}

static void keccak_text(const char *text, uint8_t digest[32])
{
    keccak256(text, strlen(text), digest);
}

/* The balance slot of a token owner: keccak256(owner . 0). */
static u256 token_slot(const evm_address *owner)
{
    uint8_t b[64] = {0};
    memcpy(b + 12, owner->bytes, 20);
    keccak256(b, sizeof b, b);
    return u256_load(b);
}

/* Solidity's calling convention: four bytes of the signature's hash, then 32 bytes per argument. */
static size_t encode_call(uint8_t input[4 + 3 * 32], const char *signature, const u256 *arguments,
                          size_t count)
{
    uint8_t digest[32];
    keccak_text(signature, digest);
    memcpy(input, digest, 4);
    for (size_t i = 0; i < count; i++) u256_store(input + 4 + 32 * i, &arguments[i]);
    return 4 + 32 * count;
}

typedef struct draft {
    writer *w;
    random_stream random;
    evm_address users[TOKEN_HOLDERS + TOKEN_STRANGERS];
} draft;

static void write_transaction(draft *d, uint32_t contract, uint32_t sender, uint64_t gas_limit,
                              uint64_t value, const char *signature, const u256 *arguments,
                              size_t count)
{
    uint8_t input[4 + 3 * 32];
    size_t size = encode_call(input, signature, arguments, count);
    u256 v = u256_from_u64(value), price = u256_from_u64(UINT64_C(12000000000));
    price.w[0] += random_below(&d->random, 1u << 30);
    write_u32(d->w, contract);
    write_bytes(d->w, d->users[sender].bytes, 20);
    write_u64(d->w, gas_limit);
    write_word(d->w, &price);
    write_word(d->w, &v);
    write_u32(d->w, (uint32_t)size);
    write_bytes(d->w, input, size);
}

static void write_random_transaction(draft *d, uint32_t contract, bool ledger_deposit)
{
    random_stream *r = &d->random;
    u256 a[3];
    uint32_t sender = random_below(r, TOKEN_HOLDERS);
    switch (contract) {
    case CONTRACT_TOKEN:
        /* one in 32 asks for more than anybody has and is reverted */
        a[0] = evm_address_word(&d->users[random_below(r, TOKEN_HOLDERS + TOKEN_STRANGERS)]);
        a[1] = u256_from_u64(random_below(r, 32) == 0 ? ~UINT64_C(0) : random_u64(r) >> 24);
        write_transaction(d, contract, sender, 80000, 0, "transfer(address,uint256)", a, 2);
        break;
    case CONTRACT_HASHER:
        a[0] = random_word(r);
        a[1] = u256_from_u64(random_around(r, HASH_ROUNDS));
        write_transaction(d, contract, sender, 400000, 0, "run(bytes32,uint256)", a, 2);
        break;
    case CONTRACT_MODEXP:
        for (int i = 0; i < 3; i++) a[i] = random_word(r);
        a[2].w[0] |= 1;
        write_transaction(d, contract, sender, 200000, 0, "modexp(uint256,uint256,uint256)", a, 3);
        break;
    case CONTRACT_SORTER:
        a[0] = random_word(r);
        a[1] = u256_from_u64(random_around(r, SORT_WORDS));
        write_transaction(d, contract, sender, 3000000, 0, "sort(uint256,uint256)", a, 2);
        break;
    default: /* CONTRACT_LEDGER */
        if (ledger_deposit) {
            a[0] = u256_from_u64(random_below(r, 2 * LEDGER_ACCOUNTS)); /* half of them are new */
            write_transaction(d, contract, sender, 60000, random_u64(r) >> 16, "deposit(uint256)", a, 1);
        } else {
            uint32_t start = random_below(r, LEDGER_ACCOUNTS / 2);
            a[0] = u256_from_u64(start);
            a[1] = u256_from_u64(LEDGER_ACCOUNTS / 2);
            a[2] = u256_from_u64(random_around(r, LEDGER_ROUNDS));
            write_transaction(d, contract, sender, 3000000, 0, "accrue(uint256,uint256,uint256)", a, 3);
        }
    }
}

/* The transactions in random order, like those of a real block. */
static void write_transactions(draft *d)
{
    uint32_t left[CONTRACT_COUNT + 1], total = 0; /* the last one counts the ledger's deposits */
    left[CONTRACT_TOKEN] = (uint32_t)random_around(&d->random, TOKEN_TRANSFERS);
    left[CONTRACT_HASHER] = HASH_RUNS;
    left[CONTRACT_MODEXP] = MODEXP_RUNS;
    left[CONTRACT_SORTER] = SORT_RUNS;
    left[CONTRACT_LEDGER] = LEDGER_RUNS;
    left[CONTRACT_COUNT] = LEDGER_DEPOSITS;
    for (unsigned i = 0; i <= CONTRACT_COUNT; i++) total += left[i];
    write_u32(d->w, total);
    for (; total > 0; total--) {
        uint32_t pick = random_below(&d->random, total), kind = 0;
        while (pick >= left[kind]) pick -= left[kind++];
        left[kind]--;
        bool deposit = kind == CONTRACT_COUNT;
        write_random_transaction(d, deposit ? (uint32_t)CONTRACT_LEDGER : kind, deposit);
    }
}

static void write_slot(draft *d, const u256 *key, uint64_t value)
{
    u256 v = u256_from_u64(value);
    write_word(d->w, key);
    write_word(d->w, &v);
}

/* Balance and storage of one contract before the block. */
static void write_prestate(draft *d, uint32_t contract)
{
    u256 none = u256_from_u64(0), slot = none;
    write_word(d->w, &none);
    if (contract == CONTRACT_TOKEN) {
        uint64_t supply = 0;
        write_u32(d->w, TOKEN_HOLDERS + 1);
        for (uint32_t i = 0; i < TOKEN_HOLDERS; i++) {
            uint64_t balance = random_u64(&d->random) >> 16;
            slot = token_slot(&d->users[i]);
            write_slot(d, &slot, balance);
            supply += balance;
        }
        slot = u256_from_u64(1);
        write_slot(d, &slot, supply);
    } else if (contract == CONTRACT_LEDGER) {
        uint8_t base[32];
        keccak_text("ledger.accounts", base);
        slot = u256_load(base);
        u256 step = u256_from_u64(2);
        write_u32(d->w, LEDGER_ACCOUNTS);
        for (uint32_t i = 0; i < LEDGER_ACCOUNTS; i++) {
            write_slot(d, &slot, random_u64(&d->random) >> 8);
            slot = u256_add(&slot, &step);
        }
    } else {
        write_u32(d->w, 1);
        write_slot(d, &slot, random_u64(&d->random)); /* the previous result, in slot 0 */
    }
}

/* The record of a block up to its result. */
static void write_block(writer *w, uint64_t number, uint64_t seed)
{
    draft d;
    memset(&d, 0, sizeof d);
    d.w = w;
    d.random.state = seed;
    d.random.state = random_u64(&d.random) ^ (number * UINT64_C(0xd1342543de82ef95));
    for (uint32_t i = 0; i < TOKEN_HOLDERS + TOKEN_STRANGERS; i++) d.users[i] = make_address("user", i);

    u256 base_fee = u256_from_u64(UINT64_C(10000000000) + random_below(&d.random, 1u << 30));
    u256 randao = random_word(&d.random);
    uint8_t randao_bytes[32];
    u256_store(randao_bytes, &randao);
    evm_address coinbase = make_address("validator", random_below(&d.random, 1000));
    write_u64(w, number);
    write_u64(w, UINT64_C(1681338455) + 12 * number); /* Shanghai's activation, 12 s slots */
    write_u64(w, BLOCK_GAS_LIMIT);
    write_u64(w, 1);
    write_bytes(w, coinbase.bytes, 20);
    write_bytes(w, randao_bytes, 32);
    write_word(w, &base_fee);
    write_u32(w, CONTRACT_COUNT);
    for (uint32_t i = 0; i < CONTRACT_COUNT; i++) write_prestate(&d, i);
    write_transactions(&d);
}

static void write_head(writer *w, const chain *c, uint64_t seed)
{
    write_bytes(w, magic, sizeof magic);
    write_u32(w, FORMAT_VERSION);
    write_u32(w, c->contract_count);
    write_u64(w, c->first);
    write_u64(w, c->last);
    write_u64(w, seed);
    size_t position = HEAD_SIZE;
    for (uint32_t i = 0; i < c->contract_count; i++) position += 24 + c->contracts[i].code_size;
    write_u64(w, position);
    write_u64(w, 0);
    for (uint32_t i = 0; i < c->contract_count; i++) {
        write_bytes(w, c->contracts[i].address.bytes, 20);
        write_u32(w, (uint32_t)c->contracts[i].code_size);
        write_bytes(w, c->contracts[i].code, c->contracts[i].code_size);
    }
    if (w->failed) return;
    uint64_t sum = checksum(w->data, w->size);
    for (unsigned i = 0; i < 8; i++) w->data[HEAD_CHECKSUM_AT + i] = (uint8_t)(sum >> (8 * i));
}

static void write_index_entry(writer *w, uint64_t position, const writer *record)
{
    size_t start = w->size;
    write_u64(w, position);
    write_u32(w, (uint32_t)record->size);
    write_u32(w, 0);
    write_u64(w, record->failed ? 0 : checksum(record->data, record->size));
    if (!w->failed) write_u64(w, checksum(w->data + start, INDEX_ENTRY_SIZE - 8));
}

/* Writes the file: zeros where head and index go, the records, and then the head and the index, so
 * that an interrupted run leaves a file without the magic. */
static bool write_chain(chain *c, writer *head, writer *record, uint64_t seed, chain_outcome *total,
                        chain_error *error)
{
    write_head(head, c, seed);
    uint64_t position = head->size + (c->last - c->first + 1) * INDEX_ENTRY_SIZE;
    bool good = !head->failed && os_seek(c->file, position);
    for (uint64_t number = c->first; good && number <= c->last; number++) {
        chain_outcome outcome;
        record->size = 0;
        write_block(record, number, seed);
        if (record->failed) return fail(error, "out of memory");
        reader r = {record->data, record->data + record->size, false};
        if (!execute_block(c, &r, number, &outcome, error)) return false;
        write_u64(record, outcome.gas_used);
        write_bytes(record, outcome.digest, 32);
        write_index_entry(head, position, record);
        if (record->failed || head->failed) return fail(error, "out of memory");
        good = fwrite(record->data, 1, record->size, c->file) == record->size;
        position += record->size;
        total->gas_used += outcome.gas_used;
        total->transactions += outcome.transactions;
    }
    good = good && os_seek(c->file, 0) && fwrite(head->data, 1, head->size, c->file) == head->size;
    FILE *file = c->file;
    c->file = NULL;
    good = fclose(file) == 0 && good;
    return good ? true : fail(error, "cannot write the chain file: %s", strerror(errno));
}

bool chain_generate(const char *directory, uint64_t first, uint64_t last, uint64_t seed,
                    chain_outcome *total, chain_error *error)
{
    char path[4096];
    chain c;
    writer head = {NULL, 0, 0, false}, record = {NULL, 0, 0, false};
    memset(&c, 0, sizeof c);
    memset(total, 0, sizeof *total);
    if (!chain_path(path, sizeof path, directory, error)) return false;
    if (!os_make_directory(directory)) return fail(error, "cannot create %s: %s", directory, strerror(errno));

    bool good = true;
    c.first = first;
    c.last = last;
    c.contract_count = CONTRACT_COUNT;
    for (uint32_t i = 0; good && i < CONTRACT_COUNT; i++) {
        evm_address address = make_address(contract_list[i].name, 0);
        good = set_contract(&c, i, &address, contract_list[i].code, contract_list[i].size);
    }
    if (!good) fail(error, "out of memory");
    good = good && chain_init(&c, error);
    if (good) {
        c.file = fopen(path, "wb");
        good = c.file != NULL ? write_chain(&c, &head, &record, seed, total, error)
                              : fail(error, "cannot write %s: %s", path, strerror(errno));
    }
    chain_close(&c);
    free(head.data);
    free(record.data);
    return good;
}
