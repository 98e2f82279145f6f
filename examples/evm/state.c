// state.c - account storage with warm and cold slots, undo of failed transactions, and logs.
//
// Part of the example EVM that cprof profiles. Build from the repository root:
//     cc -O2 -pthread -I. examples/evm/*.c -o evm
#include "evm.h"

#include <stdlib.h>

/* Makes room for one more element: doubles *capacity when count has reached it. */
static bool grow(void **array, uint32_t *capacity, uint32_t count, size_t element)
{
    if (count < *capacity) return true;
    uint32_t n = *capacity < 64 ? 64 : *capacity * 2;
    if (n <= *capacity || n > UINT32_MAX / 4) return false;
    void *p = realloc(*array, n * element);
    if (p == NULL) return false;
    *array = p;
    *capacity = n;
    return true;
}

bool state_init(evm_state *s, uint32_t account_count)
{
    memset(s, 0, sizeof *s);
    s->table_size = 1024;
    s->table = calloc(s->table_size, sizeof s->table[0]);
    s->accounts = calloc(account_count, sizeof s->accounts[0]);
    s->account_count = account_count;
    if (s->table != NULL && s->accounts != NULL) return true;
    state_free(s);
    return false;
}

void state_free(evm_state *s)
{
    free(s->table);
    free(s->accounts);
    free(s->slots);
    free(s->undo);
    free(s->logs);
    free(s->log_data);
    memset(s, 0, sizeof *s);
}

void state_clear(evm_state *s)
{
    memset(s->table, 0, s->table_size * sizeof s->table[0]);
    for (uint32_t i = 0; i < s->account_count; i++) s->accounts[i].balance = u256_from_u64(0);
    s->slot_count = s->undo_count = s->log_count = s->log_mark = s->epoch = 0;
    s->log_data_size = s->log_data_mark = 0;
}

void state_begin(evm_state *s)
{
    s->epoch++;
    s->undo_count = 0;
    s->log_mark = s->log_count;
    s->log_data_mark = s->log_data_size;
}

void state_rollback(evm_state *s)
{
    while (s->undo_count > 0) {
        const evm_undo *u = &s->undo[--s->undo_count];
        s->slots[u->slot].value = u->value;
    }
    s->log_count = s->log_mark;
    s->log_data_size = s->log_data_mark;
}

/* ---- storage ---- */

/* Keys are small integers or Keccak digests: mixing the limbs by multiplication serves both. */
static uint32_t storage_hash(uint32_t account, const u256 *key)
{
    uint64_t h = (key->w[0] ^ account) * UINT64_C(0x9e3779b97f4a7c15);
    h = (h ^ (h >> 32) ^ key->w[1]) * UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ (h >> 29) ^ key->w[2] ^ (key->w[3] << 1)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(h >> 32);
}

static EVM_NOINLINE bool storage_rehash(evm_state *s)
{
    if (s->table_size > UINT32_MAX / 4) return false;
    uint32_t size = s->table_size * 2, mask = size - 1;
    uint32_t *table = calloc(size, sizeof table[0]);
    if (table == NULL) return false;
    for (uint32_t n = 0; n < s->slot_count; n++) {
        uint32_t i = storage_hash(s->slots[n].account, &s->slots[n].key) & mask;
        while (table[i] != 0) i = (i + 1) & mask;
        table[i] = n + 1;
    }
    free(s->table);
    s->table = table;
    s->table_size = size;
    return true;
}

EVM_NOINLINE evm_slot *storage_get(evm_state *s, uint32_t account, const u256 *key, bool *cold)
{
    uint32_t mask = s->table_size - 1, i = storage_hash(account, key) & mask;
    for (; s->table[i] != 0; i = (i + 1) & mask) {
        evm_slot *slot = &s->slots[s->table[i] - 1];
        if (slot->account != account || !u256_equal(&slot->key, key)) continue;
        *cold = slot->epoch != s->epoch;
        if (*cold) {
            slot->epoch = s->epoch;
            slot->original = slot->value;
        }
        return slot;
    }
    if (s->slot_count >= s->table_size / 2) {
        if (!storage_rehash(s)) return NULL;
        mask = s->table_size - 1;
        for (i = storage_hash(account, key) & mask; s->table[i] != 0; i = (i + 1) & mask) {
        }
    }
    void *slots = s->slots;
    if (!grow(&slots, &s->slot_capacity, s->slot_count, sizeof s->slots[0])) return NULL;
    s->slots = slots;
    evm_slot *slot = &s->slots[s->slot_count++];
    memset(slot, 0, sizeof *slot);
    slot->key = *key;
    slot->account = account;
    slot->epoch = s->epoch;
    s->table[i] = s->slot_count;
    *cold = true;
    return slot;
}

bool storage_set(evm_state *s, evm_slot *slot, const u256 *value)
{
    void *undo = s->undo;
    if (!grow(&undo, &s->undo_capacity, s->undo_count, sizeof s->undo[0])) return false;
    s->undo = undo;
    s->undo[s->undo_count].slot = (uint32_t)(slot - s->slots);
    s->undo[s->undo_count].value = slot->value;
    s->undo_count++;
    slot->value = *value;
    return true;
}

bool storage_preset(evm_state *s, uint32_t account, const u256 *key, const u256 *value)
{
    bool cold;
    evm_slot *slot = storage_get(s, account, key, &cold);
    if (slot == NULL) return false;
    slot->value = *value;
    return true;
}

/* ---- logs ---- */

bool state_add_log(evm_state *s, uint32_t account, const u256 *topics, uint32_t topic_count,
                   const uint8_t *data, size_t size)
{
    void *logs = s->logs;
    if (!grow(&logs, &s->log_capacity, s->log_count, sizeof s->logs[0])) return false;
    s->logs = logs;
    if (size > s->log_data_capacity - s->log_data_size) {
        size_t n = s->log_data_capacity * 2 + size;
        uint8_t *p = realloc(s->log_data, n);
        if (p == NULL) return false;
        s->log_data = p;
        s->log_data_capacity = n;
    }
    evm_log *log = &s->logs[s->log_count++];
    memset(log, 0, sizeof *log);
    log->account = account;
    log->topic_count = topic_count;
    for (uint32_t i = 0; i < topic_count; i++) log->topics[i] = topics[i];
    log->data_offset = s->log_data_size;
    log->data_size = size;
    if (size > 0) memcpy(s->log_data + s->log_data_size, data, size);
    s->log_data_size += size;
    return true;
}

/* ---- order ---- */

static bool slot_before(const evm_slot *a, const evm_slot *b)
{
    if (a->account != b->account) return a->account < b->account;
    return u256_less(&a->key, &b->key);
}

/* Restores the heap below `at`: a parent comes after its children in order. */
static void slots_sink(evm_slot *slots, size_t at, size_t count)
{
    evm_slot moving = slots[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= count) break;
        if (child + 1 < count && slot_before(&slots[child], &slots[child + 1])) child++;
        if (!slot_before(&moving, &slots[child])) break;
        slots[at] = slots[child];
        at = child;
    }
    slots[at] = moving;
}

/* Heap sort: no memory, no bad case, and in a profile it has a name, which the inside of a C
   library's qsort often has not. */
void state_sort(evm_state *s)
{
    for (size_t i = s->slot_count / 2; i-- > 0;) slots_sink(s->slots, i, s->slot_count);
    for (size_t i = s->slot_count; i-- > 1;) {
        evm_slot last = s->slots[i];
        s->slots[i] = s->slots[0];
        s->slots[0] = last;
        slots_sink(s->slots, 0, i);
    }
}

u256 evm_address_word(const evm_address *a)
{
    return u256_load_short(a->bytes, sizeof a->bytes);
}
