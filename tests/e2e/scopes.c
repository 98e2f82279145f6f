/* scopes: names that a program puts among its frames appear exactly where they were opened, in every
   sample, and nowhere after they were left. */
#include "e2e.h"
#include <setjmp.h>

#define MS 1000000u

/* Burns until ENOUGH samples have come, too: a machine that stands still for a moment takes CPU time
   from the one and not from the other. */
#define ENOUGH 40

static inline __attribute__((always_inline)) void burn_sampled(uint64_t ns)
{
    cprof_stats stats;
    uint64_t before;
    cprof_get_stats(&stats);
    before = stats.samples;
    for (int i = 0; i < 100 && (!i || stats.samples < before + ENOUGH); i++) {
        e2e_burn(ns);
        cprof_get_stats(&stats);
    }
}

#define BURN_SAMPLED(name)                                          \
    E2E_NOINLINE static void name(uint64_t ns)                      \
    {                                                               \
        __asm__ volatile("# burn " #name ::: "memory");             \
        burn_sampled(ns);                                           \
        E2E_NO_TAIL();                                              \
    }

BURN_SAMPLED(burn_a)
BURN_SAMPLED(burn_b)
BURN_SAMPLED(burn_c)
BURN(tick_a)
BURN(tick_b)

void cxx_guard(void (*burn)(void));                 /* scopes_cxx.cpp */
void cxx_throw(void (*burn)(void), void (*then)(void));

/* Of the stacks that have `leaf`: periods in those where the frames `want` (NULL-terminated) follow
   one another, root first, and in the others. */
typedef struct { uint64_t right, wrong; const e2e_stack *example; } followed;

static followed follow(const e2e_profile *p, const char *leaf, const char *const *want)
{
    followed f = {0, 0, NULL};
    for (int i = 0; i < p->stacks; i++) {
        const e2e_stack *s = &p->stack[i];
        bool found = false;
        if (!stack_has(s, leaf)) continue;
        for (int k = 1; k < s->frames && !found; k++) {
            int n = 0;
            while (want[n] && k + n < s->frames && e2e_is(s->frame[k + n], want[n])) n++;
            found = !want[n];
        }
        if (found) f.right += s->count;
        else { f.wrong += s->count; f.example = s; }
    }
    return f;
}

static const char *shown(const e2e_stack *s)
{
    static char text[2048];
    size_t used = 0;
    text[0] = 0;
    for (int k = 0; s && k < s->frames && used < sizeof text - 300; k++)
        used += (size_t)snprintf(text + used, sizeof text - used, ";%.200s", s->frame[k]);
    return text;
}

/* All but two or 1% of the samples: some may come while BEGIN or END is at work, or an exception. */
static void check_follow(const e2e_profile *p, const char *name, const char *leaf, const char *const *want)
{
    followed f = follow(p, leaf, want);
    check(f.right >= 30 && f.wrong * 100 <= f.right + 200, name, "%llu right, %llu wrong, such as %s",
          (unsigned long long)f.right, (unsigned long long)f.wrong, shown(f.example));
}

#define FOLLOW(p, name, leaf, ...) \
    do { static const char *const want[] = {__VA_ARGS__, NULL}; check_follow(p, name, leaf, want); } while (0)

static void check_never(const e2e_profile *p, const char *name, const char *leaf, const char *scope)
{
    uint64_t n = 0, all = 0;
    const e2e_stack *example = NULL;
    for (int i = 0; i < p->stacks; i++) {
        if (!stack_has(&p->stack[i], leaf)) continue;
        all += p->stack[i].count;
        if (!stack_has(&p->stack[i], scope)) continue;
        n += p->stack[i].count;
        example = &p->stack[i];
    }
    check(all >= 30 && n == 0, name, "%llu of %llu, such as %s", (unsigned long long)n,
          (unsigned long long)all, shown(example));
}

static bool begin(void)
{
    cprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.hz = 1000;
    desc.quiet = true;
    return check_ok(cprof_start(&desc), "a profile begins");
}

static e2e_profile end(void)
{
    check_ok(cprof_stop(), "and ends");
    return profile_take();
}

/* ---- nested, set, recursion ---- */

E2E_NOINLINE static void inner(void) { burn_a(100 * MS); E2E_NO_TAIL(); }

E2E_NOINLINE static void middle(void)
{
    CPROF_SCOPE_BEGIN("two");
    {
        CPROF_SCOPE_BEGIN("three");
        inner();
        CPROF_SCOPE_END();
    }
    burn_b(60 * MS);
    CPROF_SCOPE_END();
    burn_c(60 * MS);
    E2E_NO_TAIL();
}

E2E_NOINLINE static void outer(void)
{
    CPROF_SCOPE_BEGIN("one");
    middle();
    CPROF_SCOPE_END();
    E2E_NO_TAIL();
}

E2E_NOINLINE static void interpreter(void)
{
    CPROF_SCOPE_BEGIN("nothing yet");
    for (int i = 0; i < 200; i++) {
        CPROF_SCOPE_SET("OP_A");
        tick_a(1 * MS);
        CPROF_SCOPE_SET("OP_B");
        tick_b(1 * MS);
    }
    CPROF_SCOPE_END();
    E2E_NO_TAIL();
}

E2E_NOINLINE static void recurse(int n)
{
    CPROF_SCOPE_BEGIN(cprof_intern(e2e_format("level %d", n)));
    if (n < 3) recurse(n + 1);
    else burn_a(100 * MS);
    CPROF_SCOPE_END();
    E2E_NO_TAIL();
}

static bool holds(const e2e_profile *p, const char *text)
{
    size_t size = strlen(text);
    for (size_t i = 0; i + size <= p->size; i++)
        if (memcmp(p->text + i, text, size) == 0) return true;
    return false;
}

/* In perf script's text scopes are frames of the file [scope]; in profile.proto labels. Of the latter
   only the strings are looked for here; formats.py knows how to take such a file apart. */
static void check_formats(void)
{
    e2e_profile perf, pprof;
    const char *at, *two;
    memset(&perf, 0, sizeof perf);
    memset(&pprof, 0, sizeof pprof);
    check_ok(cprof_write_to(e2e_receive, &perf, CPROF_PERF_SCRIPT), "perf script");
    check_ok(cprof_write_to(e2e_receive, &pprof, CPROF_PPROF), "pprof");
    at = perf.text ? strstr(perf.text, " three ([scope])\n") : NULL;
    two = at ? strstr(at, " two ([scope])\n") : NULL;
    check(two && strstr(two, " middle (") && strstr(two, " one ([scope])\n"), "scopes are frames in perf script", "%.300s",
          at ? at : "there is none");
    check(holds(&pprof, "\5scope") && holds(&pprof, "\5three"), "scopes are labels in pprof", "%lu bytes",
          (unsigned long)pprof.size);
    profile_free(&perf);
    profile_free(&pprof);
}

static void test_places(void)
{
    e2e_profile p;
    if (!begin()) return;
    outer();
    p = end();
    check_formats();
    FOLLOW(&p, "nested scopes stand between the frames they were opened between", "burn_a",
           "outer", "one", "middle", "two", "three", "inner", "burn_a");
    FOLLOW(&p, "a scope that has ended is gone, the outer one stays", "burn_b",
           "outer", "one", "middle", "two", "burn_b");
    FOLLOW(&p, "after both have ended only the caller's is left", "burn_c", "outer", "one", "middle", "burn_c");
    profile_free(&p);
    if (!begin()) return;
    interpreter();
    p = end();
    FOLLOW(&p, "SET changes the name, from one instruction to the next (A)", "tick_a", "interpreter", "OP_A", "tick_a");
    FOLLOW(&p, "SET changes the name, from one instruction to the next (B)", "tick_b", "interpreter", "OP_B", "tick_b");
    profile_free(&p);
    if (!begin()) return;
    recurse(0);
    p = end();
    FOLLOW(&p, "each frame of a recursion has its own", "burn_a", "recurse", "level 0", "recurse", "level 1",
           "recurse", "level 2", "recurse", "level 3", "burn_a");
    profile_free(&p);
}

/* ---- inlined functions ---- */

static inline __attribute__((always_inline)) void inlined_work(uint64_t ns)
{
    __asm__ volatile("# inlined work" ::: "memory");
    burn_sampled(ns);
}

static inline __attribute__((always_inline)) void inlined_opener(void)
{
    CPROF_SCOPE_BEGIN("opened inlined");
    burn_b(60 * MS);
    inlined_work(60 * MS);
    CPROF_SCOPE_END();
}

E2E_NOINLINE static void opener(void)
{
    CPROF_SCOPE_BEGIN("around inlined");
    inlined_work(100 * MS);
    CPROF_SCOPE_END();
    E2E_NO_TAIL();
}

E2E_NOINLINE static void host(void)
{
    inlined_opener();
    burn_c(60 * MS);
    E2E_NO_TAIL();
}

static void test_inlines(void)
{
    e2e_profile p;
    if (!begin()) return;
    opener();
    p = end();
    FOLLOW(&p, "what is inlined into the opener stands on the scope", "inlined_work", "opener", "around inlined",
           "inlined_work");
    profile_free(&p);
    if (!begin()) return;
    host();
    p = end();
    FOLLOW(&p, "a scope opened by an inlined function stands on that", "burn_b", "host", "inlined_opener",
           "opened inlined", "burn_b");
    FOLLOW(&p, "and under what else is inlined there", "inlined_work", "host", "inlined_opener", "opened inlined",
           "inlined_work");
    check_never(&p, "and is not in its host when it has ended", "burn_c", "opened inlined");
    profile_free(&p);
}

/* ---- left without END ---- */

static jmp_buf back;

E2E_NOINLINE static void jumper(void)
{
    CPROF_SCOPE_BEGIN("left");
    burn_a(60 * MS);
    longjmp(back, 1);
    CPROF_SCOPE_END();
}

E2E_NOINLINE static void bystander(void)   /* its frame takes the jumper's place */
{
    burn_b(60 * MS);
    E2E_NO_TAIL();
}

E2E_NOINLINE static void successor(void)
{
    CPROF_SCOPE_BEGIN("fresh");
    burn_c(60 * MS);
    CPROF_SCOPE_END();
    E2E_NO_TAIL();
}

E2E_NOINLINE static void jump_back(void)
{
    if (setjmp(back) == 0) jumper();
    inlined_work(60 * MS);
    bystander();
    successor();
    E2E_NO_TAIL();
}

static void test_left(void)
{
    e2e_profile p;
    if (!begin()) return;
    jump_back();
    p = end();
    FOLLOW(&p, "before the longjmp it is there", "burn_a", "jumper", "left", "burn_a");
    check_never(&p, "after a longjmp out of it a scope is gone", "inlined_work", "left");
    check_never(&p, "also where another function's frame has taken the place", "burn_b", "left");
    check_never(&p, "and where that opens a scope itself", "burn_c", "left");
    FOLLOW(&p, "which is shown", "burn_c", "successor", "fresh", "burn_c");
    profile_free(&p);
}

static void burn_a_60(void) { burn_a(60 * MS); E2E_NO_TAIL(); }
static void burn_b_60(void) { burn_b(60 * MS); E2E_NO_TAIL(); }

static void test_cxx(void)
{
    e2e_profile p;
    if (!begin()) return;
    cxx_guard(burn_a_60);
    cxx_throw(burn_a_60, burn_b_60);
    p = end();
    FOLLOW(&p, "a C++ guard is a scope", "cxx_guard", "cxx_guard", "guarded", "burn_a_60");
    FOLLOW(&p, "and so is one around code that throws", "cxx_thrower", "cxx_thrower", "thrown out of");
    check_never(&p, "an exception ends it", "burn_b_60", "thrown out of");
    profile_free(&p);
}

/* ---- limits ---- */

E2E_NOINLINE static void deep(int n)
{
    CPROF_SCOPE_BEGIN(cprof_intern(e2e_format("deep %02d", n)));
    if (n < 69) deep(n + 1);
    else burn_a(100 * MS);
    CPROF_SCOPE_END();
    E2E_NO_TAIL();
}

static void test_limits(void)
{
    cprof_stats before, stats;
    e2e_profile p;
    const char *same = cprof_intern("the same"), *name = same;
    int given = 0;
    if (!begin()) return;
    cprof_get_stats(&before);
    deep(0);
    outer();
    p = end();
    cprof_get_stats(&stats);
    check(stats.scopes_excess - before.scopes_excess == 6, "scopes beyond 64 are counted", "%llu of 6",
          (unsigned long long)(stats.scopes_excess - before.scopes_excess));
    FOLLOW(&p, "the 64 are shown", "deep", "deep", "deep 62", "deep", "deep 63", "deep", "deep", "deep");
    check_never(&p, "the others are not", "deep", "deep 64");
    FOLLOW(&p, "and afterwards all is as before", "burn_c", "outer", "one", "middle", "burn_c");
    profile_free(&p);
    check(cprof_intern("the same") == same && strcmp(same, "the same") == 0,
          "the same name gives the same pointer", "%s", same);
    while (given < 100000 && strcmp(name, "[scope table full]") != 0)
        name = cprof_intern(e2e_format("a name that is not very short %d", given++));
    check(given > 20000 && given < 40000, "interned names are bounded, and plenty", "%d", given);
    check(cprof_intern("the same") == same, "a known name is found in a full table", "%s", cprof_intern("the same"));
    if (!begin()) return;
    {
        CPROF_SCOPE_BEGIN((const char *)16);
        burn_a(60 * MS);
        CPROF_SCOPE_END();
    }
    p = end();
    cprof_get_stats(&stats);
    check(stats.scopes_unnamed >= 1, "names without room are counted", "%llu", (unsigned long long)stats.scopes_unnamed);
    check(profile_total(&p, NULL, "burn_a") >= 30 && profile_total(&p, NULL, "[unnamed]") >= 30,
          "a name that cannot be read does no harm", "%llu of %llu",
          (unsigned long long)profile_total(&p, NULL, "[unnamed]"),
          (unsigned long long)profile_total(&p, NULL, "burn_a"));
    profile_free(&p);
}

/* ---- threads ---- */

static void *with_scope(void *argument)
{
    name_thread("with");
    CPROF_SCOPE_BEGIN((const char *)argument);
    burn_a(60 * MS);
    CPROF_SCOPE_END();
    return NULL;
}

static void *without_scope(void *argument)
{
    (void)argument;
    name_thread("without");
    burn_b(60 * MS);
    return NULL;
}

static void *short_lived(void *argument)
{
    CPROF_SCOPE_BEGIN("short");
    CPROF_SCOPE_END();
    return argument;
}

#define SLEEPERS 100

static pthread_mutex_t night = PTHREAD_MUTEX_INITIALIZER;

E2E_NOINLINE static void asleep(void)
{
    pthread_mutex_lock(&night);
    pthread_mutex_unlock(&night);
    E2E_NO_TAIL();
}

static void *sleeper(void *argument)
{
    name_thread("sleeper");
    CPROF_SCOPE_BEGIN("waiting");
    asleep();
    CPROF_SCOPE_END();
    return argument;
}

static void run(void *(*main)(void *), const char *argument)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, main, (void *)(uintptr_t)argument) != 0) abort();
    pthread_join(thread, NULL);
}

/* By wall clock a thread that sleeps is looked at once. Those that open their first scope, and go to
   sleep in it, while the sampler is on its way to them have it in all samples but the first. */
static void test_sleepers(void)
{
    cprof_desc desc;
    pthread_t threads[SLEEPERS];
    e2e_profile p;
    followed f;
    static const char *const want[] = {"sleeper", "waiting", "asleep", NULL};
    memset(&desc, 0, sizeof desc);
    desc.hz = 500;
    desc.quiet = true;
    desc.clock = CPROF_WALL;
    if (!check_ok(cprof_start(&desc), "a wall-clock profile begins")) return;
    pthread_mutex_lock(&night);
    for (int i = 0; i < SLEEPERS; i++) {
        if (pthread_create(&threads[i], NULL, sleeper, NULL) != 0) abort();
        wait_ns(2 * MS);
    }
    wait_ns(400 * MS);
    pthread_mutex_unlock(&night);
    for (int i = 0; i < SLEEPERS; i++) pthread_join(threads[i], NULL);
    p = end();
    f = follow(&p, "asleep", want);
    check(f.right >= 5000 && f.wrong <= SLEEPERS, "threads that sleep show their scopes, by wall clock",
          "%llu periods right, %llu wrong, such as %s", (unsigned long long)f.right, (unsigned long long)f.wrong,
          shown(f.example));
    profile_free(&p);
}

static void test_threads(void)
{
    e2e_profile p;
    int count = 0;
    CPROF_SCOPE_BEGIN("open before the profile");
    for (; count < 6000; count++) run(short_lived, NULL);      /* more than there are arrays */
    if (!begin()) return;
    run(with_scope, "of a thread");
    run(without_scope, NULL);
    burn_c(60 * MS);
    p = end();
    FOLLOW(&p, "a thread has its own scopes, also after 6,000 others", "burn_a", "of a thread", "burn_a");
    check_never(&p, "a thread without scopes has none", "burn_b", "open before the profile");
    FOLLOW(&p, "a scope opened before the profile begins is there", "burn_c", "open before the profile", "burn_c");
    profile_free(&p);
    CPROF_SCOPE_END();
    test_sleepers();
}

#ifndef _WIN32
static void test_fork(void)
{
    e2e_profile p;
    int status = 0;
    pid_t child;
    CPROF_SCOPE_BEGIN("the parent's");
    child = fork();
    if (child == 0) {
        e2e_failures = 0;
        alarm(60);
        if (!begin()) _exit(1);
        {
            CPROF_SCOPE_BEGIN("the child's");
            burn_a(60 * MS);
            CPROF_SCOPE_END();
        }
        p = end();
        FOLLOW(&p, "a forked child has scopes, those that were open too", "burn_a", "test_fork", "the parent's",
               "the child's", "burn_a");
        fflush(stdout);
        _exit(e2e_failures ? 1 : 0);
    }
    waitpid(child, &status, 0);
    check(status == 0, "a forked child profiles with scopes", "status %x", (unsigned)status);
    CPROF_SCOPE_END();
}
#endif

int main(void)
{
    test_places();
    test_inlines();
    test_left();
    test_cxx();
    test_threads();
#ifndef _WIN32
    test_fork();
#endif
    test_limits();
    return e2e_done();
}
