/* live: profiles of a program that goes on: a file a minute without a sample lost, names of files,
   a limit of time, and a signal that starts and stops. */
#define E2E_IMPLEMENTATION
#include "e2e.h"

BURN(burn_a)
BURN(burn_b)

#define MS 1000000u

static char directory[512];

static const char *in(const char *name)
{
    return e2e_format("%s/%s", directory, name);
}

static volatile bool quit;

static void *worker(void *argument)
{
    uint64_t *used = (uint64_t *)argument;
    name_thread("worker");
    while (!quit) *used += burn_b(5 * MS);
    return NULL;
}

/* Ten files, one after another, while two threads work: together they hold all the CPU time. */
static void test_rotate(void)
{
    cprof_desc desc;
    cprof_stats stats;
    pthread_t thread;
    uint64_t used_a = 0, used_b = 0;
    double periods = 0, weight = 0, expected;
    int files = 0;
    memset(&desc, 0, sizeof desc);
    desc.hz = 1000;
    desc.quiet = true;
    if (!check_ok(cprof_start(&desc), "start")) return;
    quit = false;
    if (pthread_create(&thread, NULL, worker, &used_b)) abort();
    for (int i = 0; i < 10; i++) {
        used_a += burn_a(100 * MS);
        if (cprof_rotate(in("part-%n.folded"), CPROF_AUTO) != CPROF_OK) break;
        files++;
    }
    quit = true;
    pthread_join(thread, NULL);
    check(files == 10, "cprof_rotate writes", "%d of 10", files);
    check_ok(cprof_stop(), "stop");
    check_ok(cprof_write(in("part-%n.folded"), CPROF_AUTO), "and the rest");
    cprof_get_stats(&stats);
    for (int i = 1; i <= 11; i++) {
        e2e_profile p;
        const char *path = in(e2e_format("part-%d.folded", i));
        if (!check(profile_read(path, &p), e2e_format("file %d is there", i), "%s", path)) continue;
        periods += (double)p.count;
        weight += (double)(profile_total(&p, NULL, "burn_a") + profile_total(&p, NULL, "burn_b"));
        if (i > 1 && i < 11) /* what was in one file is not in the next: each has about 100 ms of burn_a */
            check(profile_total(&p, NULL, "burn_a") < 400, e2e_format("file %d begins anew", i), "%llu",
                  (unsigned long long)profile_total(&p, NULL, "burn_a"));
        profile_free(&p);
        e2e_delete(path);
    }
    expected = (double)(used_a + used_b) / 1e6;
    note("%.0f periods in burn_a and burn_b, %.0f ms of CPU; %.0f in all", weight, expected, periods);
    check(fabs(weight - expected) < 0.02 * expected + 22 + e2e_steps(22) / 1e6, "all files together hold all CPU time",
          "%.0f of %.0f", weight, expected);
    check(cprof_rotate(in("none"), CPROF_AUTO) == CPROF_ERROR_NOT_RUNNING && !e2e_exists(in("none")),
          "when nothing runs there is nothing to rotate", "a file was left");
}

static void test_rotate_fails(void)
{
    cprof_desc desc;
    e2e_profile p;
    memset(&desc, 0, sizeof desc);
    desc.hz = 1000;
    desc.quiet = true;
    if (!check_ok(cprof_start(&desc), "start")) return;
    burn_a(200 * MS);
    check(cprof_rotate(in("no/such/directory"), CPROF_AUTO) == CPROF_ERROR_OUTPUT, "an unwritable file is refused", "was not");
    check_ok(cprof_stop(), "stop");
    p = profile_take();
    check(profile_total(&p, NULL, "burn_a") >= 100, "and nothing is lost", "%llu periods",
          (unsigned long long)profile_total(&p, NULL, "burn_a"));
    profile_free(&p);
}

static void test_paths(void)
{
    char path[4096], pid[64], number[64];
    cprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.quiet = true;
    desc.output = in("p-%p-%%-%x.folded");
    if (!check_ok(cprof_start(&desc), "start with %p in the output")) return;
    check_ok(cprof_stop(), "stop");
#ifdef _WIN32
    snprintf(pid, sizeof pid, "%lu", (unsigned long)GetCurrentProcessId());
#else
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
#endif
    snprintf(path, sizeof path, "%s/p-%s-%%-%%x.folded", directory, pid);
    check(e2e_exists(path), "%p is the process id, %% a percent sign, other letters stay", "%s is missing", path);
    e2e_delete(path);
    check(cprofi_path_expand("%t", path, sizeof path, true) && strlen(path) == 15 && path[8] == '-' &&
          strncmp(path, "20", 2) == 0, "%t is a time", "%s", path);
    cprofi_time_text(0, path, sizeof path);
    check(strcmp(path, "19700101-000000") == 0, "the epoch", "%s", path);
    cprofi_time_text(951868799, path, sizeof path);
    check(strcmp(path, "20000229-235959") == 0, "a leap day", "%s", path);
    cprofi_time_text(4107542400u, path, sizeof path);
    check(strcmp(path, "21000301-000000") == 0, "a year that is none", "%s", path);
    cprofi_path_expand("%n", number, sizeof number, true);
    cprofi_path_expand("%n %n", path, sizeof path, true);
    check(atoi(path) == atoi(number) + 1 && strchr(path, ' ') && atoi(strchr(path, ' ')) == atoi(path),
          "%n counts, and is the same in one name", "%s after %s", path, number);
    check(!cprofi_path_expand("%t%t%t", path, 40, true), "a path that is too long is refused", "%s", path);
    check(cprofi_path_expand("50%", path, sizeof path, true) && strcmp(path, "50%") == 0, "a percent sign at the end stays", "%s", path);
}

static void test_limit(void)
{
    cprof_desc desc;
    cprof_stats first, later, resumed;
    e2e_profile p;
    memset(&desc, 0, sizeof desc);
    desc.hz = 1000;
    desc.max_seconds = 1;
    desc.quiet = true;
    if (!check_ok(cprof_start(&desc), "start with a limit of a second")) return;
    for (int i = 0; i < 200; i++) { /* until it holds */
        burn_a(50 * MS);
        cprof_get_stats(&first);
        if (first.duration_ns >= 1000000000u) break;
    }
    burn_b(300 * MS);
    cprof_get_stats(&later);
    p = profile_take();
    check(later.duration_ns == first.duration_ns && later.samples == first.samples,
          "when the time is over sampling pauses", "%llu ms, then %llu ms", (unsigned long long)first.duration_ns / MS,
          (unsigned long long)later.duration_ns / MS);
    check(later.duration_ns >= 1000000000u, "not earlier", "%llu ms", (unsigned long long)later.duration_ns / MS);
    check(profile_total(&p, NULL, "burn_a") >= 100 && profile_total(&p, NULL, "burn_b") == 0,
          "what came before is there, what came after is not", "%llu, %llu",
          (unsigned long long)profile_total(&p, NULL, "burn_a"), (unsigned long long)profile_total(&p, NULL, "burn_b"));
    profile_free(&p);
    check_ok(cprof_resume(), "resume");
    burn_b(300 * MS);
    cprof_get_stats(&resumed);
    check(resumed.samples > later.samples, "goes on", "%llu samples", (unsigned long long)resumed.samples);
    check_ok(cprof_stop(), "stop");
    desc.max_seconds = -1;
    check(cprof_start(&desc) == CPROF_ERROR_ARGUMENT, "a negative limit is refused", "was not");
}

#ifndef _WIN32
static bool appears(const char *path)
{
    for (int i = 0; i < 2000 && !e2e_exists(path); i++) nap_ns(5 * MS);
    return e2e_exists(path);
}

static void test_signal(void)
{
    cprof_desc desc;
    e2e_profile p;
    cprof_stats stats;
    memset(&desc, 0, sizeof desc);
    desc.hz = 1000;
    desc.quiet = true;
    desc.output = in("by-signal.folded");
    check(cprof_toggle_on_signal(SIGKILL, &desc) == CPROF_ERROR_SIGNAL, "SIGKILL is refused", "was not");
    if (!check_ok(cprof_toggle_on_signal(SIGUSR2, &desc), "a signal shall start a profile")) return;
    check(cprof_toggle_on_signal(SIGUSR2, &desc) == CPROF_ERROR_RUNNING, "a second time is refused", "was not");
    for (int turn = 0; turn < 3; turn++) {
        raise(SIGUSR2);
        do { burn_a(20 * MS); cprof_get_stats(&stats); } while (stats.samples < 200);
        raise(SIGUSR2);
        if (!check(appears(in("by-signal.folded")), "the next one writes it", "no file")) return;
        if (!check(profile_read(in("by-signal.folded"), &p), "and it can be read", "%s", p.malformed ? p.malformed : "")) return;
        check(profile_total(&p, NULL, "burn_a") >= 100, "with what was between them", "%llu periods",
              (unsigned long long)profile_total(&p, NULL, "burn_a"));
        profile_free(&p);
        e2e_delete(in("by-signal.folded"));
        while (cprof_stop() != CPROF_ERROR_NOT_RUNNING) nap_ns(MS); /* it is idle again a moment after it has written */
    }
}
#endif

int main(void)
{
    if (!e2e_directory_make(directory, sizeof directory)) return 1;
    test_rotate();
    test_rotate_fails();
    test_paths();
    test_limit();
#ifndef _WIN32
    test_signal();
#endif
    check(e2e_entries(directory) == 0, "no files are left behind", "%d", e2e_entries(directory));
    e2e_directory_remove(directory);
    /* Stacks that are not what they seem lead to such addresses. */
    check(cprofi_key(cprofi.session, 64) >= CPROFI_FRAME_LOWEST, "a wild address is not taken for a scope", "it is");
    return e2e_done();
}
