// main.c - a small but real EVM that replays blocks on all cores: the example that cprof profiles.
//
// Build from the repository root, with cprof.h there:
//     cc -O2 -pthread -I. examples/evm/*.c -o evm
// Then:
//     ./evm gen --datadir data -b 1000 -e 2000
//     ./evm -b 1000 -e 2000 --datadir data --profile
// The second command replays the blocks, checks every result, and writes flamegraph.folded.
#include "chain.h"
#include "evm.h"
#include "os.h"
#include "profile.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, MAX_THREADS = 256 };

static const char usage_text[] =
    "evm - a small Ethereum virtual machine (Shanghai), the example program of cprof\n"
    "\n"
    "usage:\n"
    "  evm [run-range] -b FIRST -e LAST --datadir DIR [options]   replay blocks and check their results\n"
    "      --threads N             worker threads, 1 to 256 (default: one per core)\n"
    "      --profile               sample the replay with cprof\n"
    "      --profile-hz HZ         samples per second of CPU time, 1 to 10000 (default: cprof's)\n"
    "      --profile-scopes KIND   also show: block (numbers), tx (and transactions), opcode; default off\n"
    "      --profile-output PATH   default flamegraph.folded; or .pb, .pb.gz, .perf.txt\n"
    "  evm gen --datadir DIR -b FIRST -e LAST [--seed N]          write DIR/chain.evm\n"
    "  evm run --code HEX [options]                               run code, print the result as JSON\n"
    "      --input HEX             call data (default: empty)\n"
    "      --gas N                 default 10000000, at most 1000000000000\n"
    "      --storage KEY=VALUE     a storage slot before the call, in hex; may be repeated\n"
    "      --value HEX             wei sent (default 0)\n"
    "      --balance HEX           the account's balance (default 0xde0b6b3a7640000)\n"
    "      --caller HEX            20 bytes, also the origin\n"
    "      --number N, --timestamp N\n"
    "      --json                  on one line\n"
    "  evm --help\n"
    "\n"
    "exit status: 0 success, 1 failure (for example a block whose result differs), 2 wrong usage.\n"
    "evm run exits with 0 whenever the code could be run, also when it reverts or fails.\n"
    "\n"
    "Fixed for evm run: address 0xc0de, caller and origin 0xca11e4, block number 1000, timestamp\n"
    "1681338455, coinbase 0xc01bba5e, gas limit 30000000, gas price 10 gwei, base fee 7 gwei, chain id 1,\n"
    "prevrandao 0x2a repeated 32 times; the hash of block n is the Keccak-256 of n as 32 bytes.\n";

static int usage_error(const char *message, const char *detail)
{
    fprintf(stderr, "evm: %s%s%s\nTry: evm --help\n", message, detail != NULL ? ": " : "",
            detail != NULL ? detail : "");
    return EXIT_USAGE;
}

/* ---- parsing ---- */

static bool parse_integer(const char *text, uint64_t minimum, uint64_t maximum, uint64_t *value)
{
    uint64_t v = 0;
    if (*text == '\0') return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') return false;
        uint64_t digit = (uint64_t)(*text - '0');
        if (v > (UINT64_MAX - digit) / 10) return false;
        v = v * 10 + digit;
    }
    *value = v;
    return v >= minimum && v <= maximum;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Whole bytes, "0x" optional. The buffer has EVM_CODE_PADDING zero bytes more than *size. */
static uint8_t *parse_hex(const char *text, size_t *size)
{
    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) text += 2;
    size_t digits = strlen(text);
    if (digits % 2 != 0) return NULL;
    uint8_t *p = calloc(1, digits / 2 + EVM_CODE_PADDING);
    if (p == NULL) return NULL;
    for (size_t i = 0; i < digits; i++) {
        int d = hex_digit(text[i]);
        if (d < 0) {
            free(p);
            return NULL;
        }
        p[i / 2] = (uint8_t)(p[i / 2] << 4 | d);
    }
    *size = digits / 2;
    return p;
}

/* A number of 1 to 64 hex digits, "0x" optional, ending at `end`. */
static bool parse_word(const char *text, const char *end, u256 *value)
{
    if (end - text > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) text += 2;
    if (end <= text || end - text > 64) return false;
    u256 v = u256_from_u64(0), four = u256_from_u64(4);
    for (; text < end; text++) {
        int d = hex_digit(*text);
        if (d < 0) return false;
        v = u256_shl(&v, &four);
        v.w[0] |= (uint64_t)d;
    }
    *value = v;
    return true;
}

static bool parse_address(const char *text, evm_address *address)
{
    u256 v;
    uint8_t b[32];
    if (!parse_word(text, text + strlen(text), &v)) return false;
    u256_store(b, &v);
    for (int i = 0; i < 12; i++)
        if (b[i] != 0) return false;
    memcpy(address->bytes, b + 12, 20);
    return true;
}

/* Walks over "--name value" and "--flag" arguments. */
typedef struct arguments {
    int count, next;
    char **list;
    const char *name, *value;
} arguments;

/* The next argument becomes a->name; false at the end. */
static bool next_argument(arguments *a)
{
    if (a->next >= a->count) return false;
    a->name = a->list[a->next++];
    return true;
}

static bool is_option(const arguments *a, const char *name)
{
    return strcmp(a->name, name) == 0;
}

/* True when the argument is this option and has a value; a missing value leaves a->value NULL. */
static bool is_option_with_value(arguments *a, const char *name)
{
    if (!is_option(a, name)) return false;
    a->value = a->next < a->count ? a->list[a->next++] : NULL;
    return true;
}

static int bad_value(const arguments *a)
{
    if (a->value == NULL) return usage_error("a value is missing after", a->name);
    fprintf(stderr, "evm: bad value for %s: %s\nTry: evm --help\n", a->name, a->value);
    return EXIT_USAGE;
}

/* ---- evm run ---- */

static void print_hex(const uint8_t *p, size_t n)
{
    fputs("\"0x", stdout);
    for (size_t i = 0; i < n; i++) printf("%02x", p[i]);
    putchar('"');
}

static void print_word(const u256 *v)
{
    uint8_t b[32];
    u256_store(b, v);
    print_hex(b, sizeof b);
}

static void print_result(const evm_result *result, evm_state *s, int64_t gas, bool one_line)
{
    const char *between = one_line ? "" : "\n  ";
    printf("{%s\"status\":\"%s\",%s\"gas_left\":%" PRId64 ",%s\"gas_used\":%" PRId64 ",%s\"refund\":%" PRId64
           ",%s\"output\":",
           between, evm_status_name(result->status), between, result->gas_left, between, gas - result->gas_left,
           between, result->refund, between);
    print_hex(result->output, result->output_size);
    printf(",%s\"storage\":{", between);
    state_sort(s);
    bool first = true;
    for (uint32_t i = 0; i < s->slot_count; i++) {
        if (u256_is_zero(&s->slots[i].value)) continue;
        if (!first) putchar(',');
        first = false;
        print_word(&s->slots[i].key);
        putchar(':');
        print_word(&s->slots[i].value);
    }
    printf("},%s\"logs\":[", between);
    for (uint32_t i = 0; i < s->log_count; i++) {
        const evm_log *log = &s->logs[i];
        printf("%s{\"address\":", i > 0 ? "," : "");
        print_hex(s->accounts[log->account].address.bytes, 20);
        fputs(",\"topics\":[", stdout);
        for (uint32_t t = 0; t < log->topic_count; t++) {
            if (t > 0) putchar(',');
            print_word(&log->topics[t]);
        }
        fputs("],\"data\":", stdout);
        print_hex(s->log_data + log->data_offset, log->data_size);
        putchar('}');
    }
    printf("]%s}\n", one_line ? "" : "\n");
}

typedef struct run_setup {
    evm_block block;
    evm_call call;
    evm_state state;
    evm_machine machine;
    uint8_t *code, *input;
    bool one_line;
} run_setup;

static void run_defaults(run_setup *r)
{
    static const uint8_t self[2] = {0xc0, 0xde}, caller[3] = {0xca, 0x11, 0xe4},
                         coinbase[4] = {0xc0, 0x1b, 0xba, 0x5e};
    memcpy(r->state.accounts[0].address.bytes + 18, self, 2);
    r->state.accounts[0].balance = u256_from_u64(UINT64_C(1000000000000000000));
    memcpy(r->call.caller.bytes + 17, caller, 3);
    memcpy(r->block.coinbase.bytes + 16, coinbase, 4);
    r->call.gas = 10000000;
    r->call.gas_price = u256_from_u64(UINT64_C(10000000000));
    r->block.number = 1000;
    r->block.timestamp = 1681338455;
    r->block.gas_limit = 30000000;
    r->block.chain_id = 1;
    r->block.base_fee = u256_from_u64(UINT64_C(7000000000));
    for (int i = 0; i < 4; i++) r->block.prev_randao.w[i] = UINT64_C(0x2a2a2a2a2a2a2a2a);
}

static bool parse_storage(run_setup *r, const char *text)
{
    u256 key, value;
    const char *equals = strchr(text, '=');
    return equals != NULL && parse_word(text, equals, &key) &&
           parse_word(equals + 1, equals + 1 + strlen(equals + 1), &value) &&
           storage_preset(&r->state, 0, &key, &value);
}

static bool parse_bytes(const char *text, uint8_t **bytes, size_t *size)
{
    free(*bytes);
    *bytes = parse_hex(text, size);
    return *bytes != NULL;
}

/* EXIT_OK, or EXIT_USAGE after a message. */
static int run_options(run_setup *r, arguments *a)
{
    uint64_t n;
    while (next_argument(a)) {
        bool good;
        if (is_option(a, "--json")) {
            r->one_line = true;
            continue;
        }
        if (is_option_with_value(a, "--code"))
            good = a->value != NULL && parse_bytes(a->value, &r->code, &r->call.code_size);
        else if (is_option_with_value(a, "--input"))
            good = a->value != NULL && parse_bytes(a->value, &r->input, &r->call.input_size);
        else if (is_option_with_value(a, "--gas")) {
            good = a->value != NULL && parse_integer(a->value, 0, (uint64_t)EVM_GAS_MAX, &n);
            if (good) r->call.gas = (int64_t)n;
        } else if (is_option_with_value(a, "--storage"))
            good = a->value != NULL && parse_storage(r, a->value);
        else if (is_option_with_value(a, "--value"))
            good = a->value != NULL && parse_word(a->value, a->value + strlen(a->value), &r->call.value);
        else if (is_option_with_value(a, "--balance"))
            good = a->value != NULL &&
                   parse_word(a->value, a->value + strlen(a->value), &r->state.accounts[0].balance);
        else if (is_option_with_value(a, "--caller"))
            good = a->value != NULL && parse_address(a->value, &r->call.caller);
        else if (is_option_with_value(a, "--number"))
            good = a->value != NULL && parse_integer(a->value, 0, UINT64_MAX, &r->block.number);
        else if (is_option_with_value(a, "--timestamp"))
            good = a->value != NULL && parse_integer(a->value, 0, UINT64_MAX, &r->block.timestamp);
        else
            return usage_error("unknown argument", a->name);
        if (!good) return bad_value(a);
    }
    return r->code != NULL ? EXIT_OK : usage_error("--code is missing", NULL);
}

static int command_run(arguments *a)
{
    run_setup r;
    memset(&r, 0, sizeof r);
    int exit_code = EXIT_FAILED;
    if (machine_init(&r.machine) && state_init(&r.state, 1)) {
        run_defaults(&r);
        exit_code = run_options(&r, a);
        if (exit_code == EXIT_OK) {
            r.call.code = r.code;
            r.call.input = r.input;
            r.call.origin = r.call.caller;
            state_begin(&r.state);
            evm_result result = evm_execute(&r.machine, &r.state, &r.block, &r.call);
            if (result.status != EVM_SUCCESS) state_rollback(&r.state);
            print_result(&result, &r.state, r.call.gas, r.one_line);
        }
    } else {
        fputs("evm: out of memory\n", stderr);
    }
    free(r.code);
    free(r.input);
    state_free(&r.state);
    machine_free(&r.machine);
    return exit_code;
}

/* ---- evm gen, evm run-range ---- */

typedef struct range_options {
    const char *directory, *profile_output;
    uint64_t first, last, seed, threads, profile_hz;
    bool have_first, have_last, profile, profile_detail;
} range_options;

static bool ends_with(const char *text, const char *ending)
{
    size_t n = strlen(text), size = strlen(ending);
    return n > size && strcmp(text + n - size, ending) == 0;
}

static bool parse_scopes(const char *text, profile_scopes *scopes)
{
    static const char *const names[] = {"off", "block", "tx", "opcode"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(text, names[i]) != 0) continue;
        *scopes = (profile_scopes)i;
        return true;
    }
    return false;
}

static int parse_range(range_options *o, arguments *a, bool generate)
{
    memset(o, 0, sizeof *o);
    o->threads = os_cpu_count() < MAX_THREADS ? os_cpu_count() : MAX_THREADS;
    o->profile_output = "flamegraph.folded";
    while (next_argument(a)) {
        bool good;
        if (!generate && is_option(a, "--profile")) {
            o->profile = true;
            continue;
        }
        if (is_option_with_value(a, "-b"))
            good = o->have_first = a->value != NULL && parse_integer(a->value, 0, CHAIN_MAX_BLOCK, &o->first);
        else if (is_option_with_value(a, "-e"))
            good = o->have_last = a->value != NULL && parse_integer(a->value, 0, CHAIN_MAX_BLOCK, &o->last);
        else if (is_option_with_value(a, "--datadir"))
            good = (o->directory = a->value) != NULL && *a->value != '\0';
        else if (generate && is_option_with_value(a, "--seed"))
            good = a->value != NULL && parse_integer(a->value, 0, UINT64_MAX, &o->seed);
        else if (!generate && is_option_with_value(a, "--threads"))
            good = a->value != NULL && parse_integer(a->value, 1, MAX_THREADS, &o->threads);
        else if (!generate && is_option_with_value(a, "--profile-hz"))
            good = o->profile_detail = a->value != NULL && parse_integer(a->value, 1, 10000, &o->profile_hz);
        else if (!generate && is_option_with_value(a, "--profile-scopes"))
            good = o->profile_detail = a->value != NULL && parse_scopes(a->value, &profile_scopes_wanted);
        else if (!generate && is_option_with_value(a, "--profile-output")) {
            good = o->profile_detail = a->value != NULL &&
                (ends_with(a->value, ".folded") || ends_with(a->value, ".pb") ||
                 ends_with(a->value, ".pb.gz") || ends_with(a->value, ".perf.txt"));
            o->profile_output = a->value;
        } else
            return usage_error("unknown argument", a->name);
        if (!good) return bad_value(a);
    }
    if (o->directory == NULL) return usage_error("--datadir is missing", NULL);
    if (!o->have_first) return usage_error("-b is missing", NULL);
    if (!o->have_last) return usage_error("-e is missing", NULL);
    if (o->first > o->last) return usage_error("the first block (-b) is after the last (-e)", NULL);
    if (generate && o->last - o->first >= CHAIN_MAX_BLOCKS)
        return usage_error("a chain file holds at most 1000000 blocks", NULL);
    if (o->profile_detail && !o->profile)
        return usage_error("--profile-hz, --profile-scopes and --profile-output need --profile", NULL);
    return EXIT_OK;
}

static int command_gen(arguments *a)
{
    range_options o;
    chain_error error;
    chain_outcome total;
    int exit_code = parse_range(&o, a, true);
    if (exit_code != EXIT_OK) return exit_code;
    double start = os_seconds();
    if (!chain_generate(o.directory, o.first, o.last, o.seed, &total, &error)) {
        fprintf(stderr, "evm: %s\n", error.text);
        return EXIT_FAILED;
    }
    printf("blocks %" PRIu64 "..%" PRIu64 " written to %s in %.2f s\n", o.first, o.last, o.directory,
           os_seconds() - start);
    return EXIT_OK;
}

/* What the workers share. A worker that fails makes the others stop at their next block; blocks are
 * handed out in order, so every block before the failing one is finished, and the lowest failure
 * is the same in every run. */
typedef struct replay {
    os_atomic next, failed;
    int64_t last;
} replay;

typedef struct worker {
    replay *shared;
    chain chain;
    os_thread *thread;
    char name[32];
    uint64_t blocks, transactions, gas;
    bool failed;
    uint64_t failed_block;
    chain_error error;
} worker;

static void worker_main(void *argument)
{
    worker *w = argument;
    profile_thread_name(w->name);
    while (os_atomic_add(&w->shared->failed, 0) == 0) {
        int64_t number = os_atomic_add(&w->shared->next, 1);
        if (number > w->shared->last) break;
        chain_outcome outcome;
        if (!chain_replay(&w->chain, (uint64_t)number, &outcome, &w->error)) {
            w->failed = true;
            w->failed_block = (uint64_t)number;
            os_atomic_add(&w->shared->failed, 1);
            break;
        }
        w->blocks++;
        w->transactions += outcome.transactions;
        w->gas += outcome.gas_used;
    }
}

/* Starts `count` workers and waits for them; false when a thread could not be started. */
static bool run_workers(worker *workers, unsigned count)
{
    bool good = true;
    for (unsigned i = 0; i < count && good; i++) {
        workers[i].thread = os_thread_start(worker_main, &workers[i]);
        good = workers[i].thread != NULL;
    }
    if (!good) {
        fputs("evm: cannot start a thread\n", stderr);
        os_atomic_add(&workers[0].shared->failed, 1);
    }
    for (unsigned i = 0; i < count; i++)
        if (workers[i].thread != NULL) os_thread_join(workers[i].thread);
    return good;
}

static int report(const range_options *o, const worker *workers, unsigned count, double seconds)
{
    const worker *failed = NULL;
    uint64_t blocks = 0, transactions = 0, gas = 0;
    for (unsigned i = 0; i < count; i++) {
        blocks += workers[i].blocks;
        transactions += workers[i].transactions;
        gas += workers[i].gas;
        if (workers[i].failed && (failed == NULL || workers[i].failed_block < failed->failed_block))
            failed = &workers[i];
    }
    if (failed != NULL) {
        fprintf(stderr, "evm: block %" PRIu64 ": %s\n", failed->failed_block, failed->error.text);
        return EXIT_FAILED;
    }
    if (seconds <= 0) seconds = 1e-9;
    printf("blocks %" PRIu64 "..%" PRIu64 ": %" PRIu64 " transactions, %u thread%s, %s dispatch\n", o->first,
           o->last, transactions, count, count == 1 ? "" : "s", evm_dispatch_name());
    printf("%.3f s, %.1f blocks/s, %.1f Mgas/s\n", seconds, (double)blocks / seconds,
           (double)gas / seconds / 1e6);
    printf("%" PRIu64 " blocks ok\n", blocks);
    return EXIT_OK;
}

static int replay_range(const range_options *o, worker *workers, unsigned count)
{
    replay shared;
    shared.next.value = (int64_t)o->first;
    shared.failed.value = 0;
    shared.last = (int64_t)o->last;
    for (unsigned i = 0; i < count; i++) {
        workers[i].shared = &shared;
        snprintf(workers[i].name, sizeof workers[i].name, "evm-worker-%u", i);
    }
    if (o->profile && !profile_start(o->profile_output, (int)o->profile_hz)) return EXIT_FAILED;
    double start = os_seconds();
    bool good = run_workers(workers, count);
    double seconds = os_seconds() - start;
    if (o->profile && !profile_stop()) good = false;
    int exit_code = report(o, workers, count, seconds);
    return good ? exit_code : EXIT_FAILED;
}

static int command_run_range(arguments *a)
{
    range_options o;
    chain_error error;
    int exit_code = parse_range(&o, a, false);
    if (exit_code != EXIT_OK) return exit_code;

    unsigned count = (unsigned)o.threads, opened = 0;
    worker *workers = calloc(count, sizeof workers[0]);
    if (workers == NULL) {
        fputs("evm: out of memory\n", stderr);
        return EXIT_FAILED;
    }
    while (opened < count && chain_open(&workers[opened].chain, o.directory, &error)) opened++;
    const chain *c = &workers[0].chain;
    exit_code = EXIT_FAILED;
    if (opened < count)
        fprintf(stderr, "evm: %s\n", error.text);
    else if (o.first < c->first || o.last > c->last)
        fprintf(stderr, "evm: blocks %" PRIu64 "..%" PRIu64 " asked for, but %s has %" PRIu64 "..%" PRIu64 "\n",
                o.first, o.last, o.directory, c->first, c->last);
    else
        exit_code = replay_range(&o, workers, count);
    for (unsigned i = 0; i < opened; i++) chain_close(&workers[i].chain);
    free(workers);
    return exit_code;
}

int main(int argc, char **argv)
{
    arguments a;
    memset(&a, 0, sizeof a);
    a.count = argc;
    a.list = argv;
    a.next = 2;
    if (argc < 2) {
        fputs(usage_text, stderr);
        return EXIT_USAGE;
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(usage_text, stdout);
            return EXIT_OK;
        }
    }
    if (strcmp(argv[1], "gen") == 0) return command_gen(&a);
    if (strcmp(argv[1], "run") == 0) return command_run(&a);
    if (strcmp(argv[1], "run-range") == 0) return command_run_range(&a);
    if (argv[1][0] != '-') return usage_error("unknown command", argv[1]);
    a.next = 1;
    return command_run_range(&a);
}
