/* select: which threads are written, from which frame on, and whether lines begin with the thread. */
#include "e2e.h"

BURN(burn_a)

#define MS 1000000u

E2E_NOINLINE static void application(void) { burn_a(200 * MS); E2E_NO_TAIL(); }

static void *thread_main(void *name)
{
    name_thread((const char *)name);
    application();
    E2E_NO_TAIL();
    return NULL;
}

static bool evens(void *user, const char *name, uint32_t tid)
{
    size_t size = strlen(name);
    ++*(int *)user;
    return tid != 0 && size && (name[size - 1] - '0') % 2 == 0;
}

static e2e_profile profile(cprof_desc *desc)
{
    static const char *const names[] = {"worker-1", "worker-2", "io-1", "io-2"};
    pthread_t threads[4];
    desc->hz = 1000;
    desc->quiet = true;
    if (!check_ok(cprof_start(desc), "start")) exit(1);
    for (int i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, thread_main, (void *)(uintptr_t)names[i])) exit(1);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    check_ok(cprof_stop(), "stop");
    return profile_take();
}

/* For a check that fails. */
static const char *roots_of(const e2e_profile *p)
{
    static char text[2000];
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < p->stacks && used < sizeof text - 400; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, " %.80s;%.80s..%.80s %llu", p->stack[i].frame[0],
                                 p->stack[i].frames > 1 ? p->stack[i].frame[1] : "", p->stack[i].frame[p->stack[i].frames - 1],
                                 (unsigned long long)p->stack[i].count);
    return text;
}

/* Which of the four threads are in it, as bits. */
static unsigned found(const e2e_profile *p)
{
    return (profile_total(p, "worker-1", "burn_a") > 0 ? 1u : 0) | (profile_total(p, "worker-2", "burn_a") > 0 ? 2u : 0) |
           (profile_total(p, "io-1", "burn_a") > 0 ? 4u : 0) | (profile_total(p, "io-2", "burn_a") > 0 ? 8u : 0);
}

int main(void)
{
    static const struct { const char *patterns; unsigned expected; } cases[] = {
        {NULL, 15}, {"worker*", 3}, {"!io-1", 11}, {"worker*,!worker-2", 1}, {"*-2", 10}, {"io-?,worker-1", 13},
        {"nobody", 0}, {"*", 15}, {"worker-1,io-2", 9}, {"w*r*-1", 1}, {"?o-1", 4}, {"", 15}};
    cprof_desc desc;
    e2e_profile p;
    int calls = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memset(&desc, 0, sizeof desc);
        desc.threads = cases[i].patterns;
        p = profile(&desc);
        check(found(&p) == cases[i].expected, e2e_format("threads \"%s\"", cases[i].patterns ? cases[i].patterns : "(none)"),
              "%x, not %x:%s", found(&p), cases[i].expected, roots_of(&p));
        profile_free(&p);
    }
    memset(&desc, 0, sizeof desc);
    desc.thread_wanted = evens;
    desc.thread_user = &calls;
    p = profile(&desc);
    check(found(&p) == 10 && calls >= 4, "a function chooses threads", "%x after %d calls", found(&p), calls);
    profile_free(&p);

    memset(&desc, 0, sizeof desc);
    desc.cut_above = "no such function;application";
    p = profile(&desc);
    check(p.stacks > 0 && found(&p) == 15, "with cut_above all threads are there", "%x:%s", found(&p), roots_of(&p));
    for (int i = 0; i < p.stacks; i++) {
        const e2e_stack *s = &p.stack[i];
        if (!stack_has(s, "burn_a")) continue;
        if (!check(s->frames >= 3 && strcmp(s->frame[1], "application") == 0 && e2e_is(s->frame[2], "burn_a"),
                   "lines begin with the function that was asked for", "%s;%s", s->frame[0], s->frame[1])) break;
    }
    profile_free(&p);

    memset(&desc, 0, sizeof desc);
    desc.merge_threads = true;
    p = profile(&desc);
    {
        uint64_t all = 0, named = 0;
        for (int i = 0; i < p.stacks; i++) {
            if (!stack_has(&p.stack[i], "burn_a")) continue;
            all += p.stack[i].count;
            for (int k = 0; k < p.stack[i].frames; k++)
                named += strncmp(p.stack[i].frame[k], "worker-", 7) == 0 || strncmp(p.stack[i].frame[k], "io-", 3) == 0;
        }
        check(all >= 200 && named == 0, "threads are merged: their names are gone, their time is there", "%llu periods, %llu names",
              (unsigned long long)all, (unsigned long long)named);
    }
    profile_free(&p);
    return e2e_done();
}
