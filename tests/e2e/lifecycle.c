/* lifecycle: begin and end a thousand times without a leak, every misuse answered with an error and
   no harm, output replaced only by a complete one, environment overrides, pause, resume, reset,
   write while running, stop from another thread. */
#include "e2e.h"
#ifndef _WIN32
#include <sys/statvfs.h>
#endif

BURN(fn_one)
BURN(fn_two)
BURN(fn_three)

static char dir[512];

static const char *in_dir(const char *name) { return e2e_format("%s/%s", dir, name); }

static cprof_desc quiet_at(int hz)
{
    cprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.hz = hz;
    desc.quiet = true;
    return desc;
}

static void put_file(const char *path, const char *text)
{
    FILE *file = e2e_open(path, "wb");
    if (!file) exit(1);
    fputs(text, file);
    fclose(file);
}

static bool file_is(const char *path, const char *text)
{
    e2e_profile file;
    bool same = e2e_read_file(path, &file) && file.text && strcmp(file.text, text) == 0;
    free(file.text);
    return same;
}

/* Those of this process. One that was joined may be listed for a moment still, while it exits: waits for
   that, at most for two seconds. */
static int tasks_settled(void)
{
    int n = tasks();
    for (int i = 0; n != 1 && i < 2000; i++) {
        nap_ns(1000000);
        n = tasks();
    }
    return n;
}

static void thousand_times(void)
{
    cprof_desc desc = quiet_at(1000);
    long rss = 0, maps = 0;
    int fds = 0, refused = 0, left;
    uint64_t start = wall();
    desc.max_stacks = 512;
    for (int i = 0; i < 1000; i++) {
        if (i == 100) {
            rss = resident_kb();
            maps = mappings();
            fds = descriptors();
        }
        if (cprof_start(&desc) != CPROF_OK) refused++;
        fn_one(i % 10 ? 100000 : 2000000);
        if (i % 50 == 0) { e2e_profile p = profile_take(); profile_free(&p); }
        if (cprof_stop() != CPROF_OK) refused++;
    }
    note("1000 begin/end: %.2f ms each, %ld KB more resident, %+ld mappings", (double)(wall() - start) / 1e9,
         resident_kb() - rss, mappings() - maps);
    check(refused == 0, "begin and end 1000 times", "%d refused", refused);
    check(resident_kb() - rss < 1024, "no leak of memory", "%ld KB more after 900", resident_kb() - rss);
    check(mappings() - maps <= 4, "no leak of mappings", "%ld more", mappings() - maps);
    check(descriptors() == fds && fds > 0, "no leak of descriptors", "%d, were %d", descriptors(), fds);
    left = tasks_settled();
    check(left == 1, "no leak of threads", "%d are there", left);
}

static void misuse(void)
{
    static const int bad[] = { -1, 10001, INT_MAX, INT_MIN };
    cprof_desc desc = quiet_at(100);
    cprof_result result;
    e2e_profile p;
    e2e_capture capture;
    char *text;

    check(cprof_stop() != CPROF_OK, "end without begin is refused", "CPROF_OK");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        desc.hz = bad[i];
        capture = capture_stderr();
        result = cprof_start(&desc);
        free(capture_end(capture));
        check(result != CPROF_OK && strlen(cprof_result_string(result)) > 5, e2e_format("rate %d is refused", bad[i]),
              "result %d, %s", (int)result, cprof_result_string(result));
        if (result == CPROF_OK) cprof_stop();
    }
    desc.hz = 10000;
    check_ok(cprof_start(&desc), "rate 10000 is accepted");
    fn_one(20000000);
    check_ok(cprof_stop(), "and stops");
    desc.hz = 1;
    check_ok(cprof_start(&desc), "rate 1 is accepted");
    fn_one(2000000);
    {
        uint64_t begin = wall();
        check_ok(cprof_stop(), "and stops");
        check(wall() - begin < 500000000, "at once, not after a period", "%.0f ms", (double)(wall() - begin) / 1e6);
    }

    desc.hz = 1000;
    check_ok(cprof_start(&desc), "start");
    fn_one(50000000);
    result = cprof_start(&desc);
    check(result != CPROF_OK && strlen(cprof_result_string(result)) > 5, "a second begin is refused", "%s",
          cprof_result_string(result));
    fn_two(50000000);
    check_ok(cprof_stop(), "and the first goes on");
    p = profile_take();
    check(profile_total(&p, NULL, "fn_one") > 20 && profile_total(&p, NULL, "fn_two") > 20, "with its samples", "%llu, %llu",
          (unsigned long long)profile_total(&p, NULL, "fn_one"), (unsigned long long)profile_total(&p, NULL, "fn_two"));
    profile_free(&p);
    check(cprof_stop() != CPROF_OK, "a second end is refused", "CPROF_OK");
    check(cprof_pause() != CPROF_OK && cprof_resume() != CPROF_OK, "pause and resume after the end are refused", "CPROF_OK");

    desc.output = in_dir("no/such/directory/x.folded");
    capture = capture_stderr();
    result = cprof_start(&desc);
    free(capture_end(capture));
    check(result != CPROF_OK, "an unwritable path is refused at start", "%s", cprof_result_string(result));
    if (result == CPROF_OK) cprof_stop();

    capture = capture_stderr();
    CPROF_BEGIN("/nonexistent/directory/x.folded");
    fn_one(5000000);
    CPROF_END();
    text = capture_end(capture);
    check(strstr(text, "/nonexistent/directory/x.folded") != NULL, "CPROF_BEGIN says which path cannot be written", "stderr: %s", text);
    free(text);

    for (int i = -2; i < 64; i++) {
        const char *sentence = cprof_result_string((cprof_result)i);
        if (!sentence || !*sentence) check(false, "every result has a sentence", "%d has none", i);
    }
    check(cprof_write("/nonexistent/x", CPROF_FOLDED) != CPROF_OK, "cprof_write to an unwritable path is refused", "CPROF_OK");
    desc.output = NULL;
    check_ok(cprof_start(NULL), "start(NULL) means defaults");
    check_ok(cprof_stop(), "and stops");
}

#ifdef _WIN32
#define NO_WRITING "a file that is in use"
static void refuse_writing(const char *path, bool refuse)
{
    static HANDLE user;
    if (refuse) user = CreateFileW(e2e_wide(path), GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
    else CloseHandle(user);
}
#else
#define NO_WRITING "a full disk"
/* A limit on file size stands for the full disk. */
static void refuse_writing(const char *path, bool refuse)
{
    static struct rlimit limit;
    struct rlimit small;
    (void)path;
    signal(SIGXFSZ, SIG_IGN);
    if (refuse) getrlimit(RLIMIT_FSIZE, &limit);
    small = limit;
    if (refuse) small.rlim_cur = 40;
    setrlimit(RLIMIT_FSIZE, &small);
}
#endif

static void output_file(void)
{
    cprof_desc desc = quiet_at(1000);
    cprof_result result;
    e2e_profile p;
    e2e_capture capture;
    char *text, path[600], *lines;
    bool found;
#ifndef _WIN32
    struct stat status;
#endif

    /* The end line, and only it. */
    snprintf(path, sizeof path, "%s", in_dir("begin.folded"));
    capture = capture_stderr();
    CPROF_BEGIN(path);
    fn_one(300000000);
    CPROF_END();
    text = capture_end(capture);
    check(count_lines(text) == 1 && strstr(text, "begin.folded"), "CPROF_END prints one line that names the file",
          "%d lines: %s", count_lines(text), text);
    lines = strchr(text, '\n');
    if (lines) *lines = 0;
    note("end line: %s", text);
    free(text);
    found = profile_read(path, &p);
    check(found, "CPROF_END wrote the file", "%s", p.malformed ? p.malformed : "missing");
    check(fabs((double)p.count - 30) <= 3 + e2e_steps(1) / 1e7, "at the default of 100 Hz", "%llu periods in 0.3 s", (unsigned long long)p.count);
    check(e2e_entries(dir) == 1, "and nothing beside it", "%d files", e2e_entries(dir));
#ifndef _WIN32 /* which has no such permissions */
    check(stat(path, &status) == 0 && (status.st_mode & 0777) == 0644, "with the usual permissions", "%o",
          (unsigned)status.st_mode & 0777);
#endif
    profile_free(&p);
    e2e_delete(path);

    /* start checks the path but leaves what is there alone. */
    put_file(path, "old contents\n");
    desc.output = path;
    check_ok(cprof_start(&desc), "start with an output that exists");
    fn_one(20000000);
    check(file_is(path, "old contents\n"), "it is untouched while sampling", "changed");
    check_ok(cprof_stop(), "stop");
    found = profile_read(path, &p);
    check(found && profile_total(&p, NULL, "fn_one") > 5, "and replaced at stop", "%llu periods",
          (unsigned long long)p.count);
    profile_free(&p);

    put_file(path, "old contents\n");
    desc.quiet = true;
    check_ok(cprof_start(&desc), "start before the file cannot be written");
    fn_one(20000000);
    fn_two(20000000);
    refuse_writing(path, true);
    result = cprof_write(path, CPROF_FOLDED);
    check(result != CPROF_OK, "cprof_write reports " NO_WRITING, "%s", cprof_result_string(result));
    capture = capture_stderr();
    result = cprof_stop();
    refuse_writing(path, false);
    free(capture_end(capture));
    check(result != CPROF_OK, "cprof_stop reports " NO_WRITING, "%s", cprof_result_string(result));
    check(file_is(path, "old contents\n"), "the old file is intact", "changed");
    check(e2e_entries(dir) == 1, "no temporary file is left", "%d files", e2e_entries(dir));
    check_ok(cprof_write(path, CPROF_FOLDED), "afterwards the same profile can be written");
    found = profile_read(path, &p);
    check(found && profile_total(&p, NULL, "fn_two") > 5, "and is whole", "%llu periods",
          (unsigned long long)p.count);
    profile_free(&p);
    e2e_delete(path);

#ifndef _WIN32
    /* A device or pipe is written to, not replaced by a file. */
    snprintf(path, sizeof path, "%s", in_dir("fifo"));
    if (mkfifo(path, 0600) == 0) {
        int fd = open(path, O_RDWR | O_NONBLOCK);
        char got[16];
        result = cprof_write(path, CPROF_FOLDED);
        check(lstat(path, &status) == 0 && S_ISFIFO(status.st_mode), "a FIFO is not replaced by a file", "mode %o",
              (unsigned)status.st_mode);
        check(result != CPROF_OK || read(fd, got, sizeof got) > 0, "it is written to, or refused", "neither");
        close(fd);
        unlink(path);
    }
#endif
}

#ifndef _WIN32
static bool mode_is(const char *path, mode_t mode)
{
    struct stat status;
    return lstat(path, &status) == 0 && (status.st_mode & (S_IFMT | 0777)) == mode;
}

/* Links that others may have put where the profile goes; what privileged programs take from others. */
static void hostile_places(void)
{
    char path[600], other[600], link[640];
    snprintf(path, sizeof path, "%s", in_dir("profile.folded"));
    snprintf(other, sizeof other, "%s", in_dir("other"));
    put_file(path, "old contents\n");
    chmod(path, 0600);
    check_ok(cprof_write(path, CPROF_FOLDED), "a file that only its user can read is replaced");
    check(mode_is(path, S_IFREG | 0600) && !file_is(path, "old contents\n"), "by one that only its user can read", "it is not");
    unlink(path);

    put_file(other, "precious\n");
    snprintf(link, sizeof link, "%s.%d.0.tmp", path, (int)getpid());
    check(symlink(other, link) == 0, "a link lies where the temporary file goes", "errno %d", errno);
    check_ok(cprof_write(path, CPROF_FOLDED), "the profile is written");
    check(file_is(other, "precious\n"), "but not to where the link leads", "it is");
    check(mode_is(path, S_IFREG | 0644), "it is a file with the usual permissions", "it is not");
    unlink(link);
    unlink(path);

    check(symlink(other, path) == 0, "the output is a link of one's own", "errno %d", errno);
    check_ok(cprof_write(path, CPROF_FOLDED), "it is written to");
    check(mode_is(path, S_IFLNK | 0777) && !file_is(other, "precious\n"), "and stays a link", "it does not");
    put_file(other, "precious\n");
    if (geteuid() == 0 && lchown(path, 12345, 12345) == 0) {
        check(cprof_write(path, CPROF_FOLDED) == CPROF_ERROR_OUTPUT, "the link of somebody else is refused", "it is not");
        check(file_is(other, "precious\n") && mode_is(path, S_IFLNK | 0777), "and followed by nobody", "it is not");
    } else {
        note("links of others: only root can make them");
    }
    unlink(path);
    unlink(other);

    snprintf(path, sizeof path, "/dev/shm/cprof-lifecycle.%d", (int)getpid());
    if (access("/dev/shm", W_OK) == 0) {
        check_ok(cprof_write(path, CPROF_FOLDED), "a file in /dev/shm");
        check(mode_is(path, S_IFREG | 0644), "is a file as any other", "it is not");
        unlink(path);
    }
}

/* Its environment says CPROF_HZ=777. */
static int secure_child(void)
{
    cprof_desc desc = quiet_at(100);
    cprof_stats stats;
    if (cprof_start(&desc) != CPROF_OK) return 3;
    cprof_get_stats(&stats);
    cprof_stop();
    return stats.hz < 101 ? 1 : 2;
}

static void set_user_id(void)
{
    char program[600], self[600];
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    struct statvfs place;
    int status[2];
    snprintf(program, sizeof program, "%s", in_dir("set-user-id"));
    self[size > 0 ? size : 0] = 0;
    setenv("E2E_CHILD", "secure", 1);
    setenv("CPROF_HZ", "777", 1);
    for (int privileged = 0; privileged < 2; privileged++) {
        pid_t child;
        if (privileged && (geteuid() != 0 || system(e2e_format("cp '%s' '%s'", self, program)) != 0 || chown(program, 12345, 12345) != 0
                           || chmod(program, 04755) != 0 || statvfs(program, &place) != 0 || (place.f_flag & ST_NOSUID))) {
            note("set-user-ID programs: only root can make them, where the file system lets him");
            break;
        }
        child = fork();
        if (child == 0) {
            execl(privileged ? program : self, self, (char *)NULL);
            _exit(9);
        }
        waitpid(child, &status[privileged], 0);
        status[privileged] = WEXITSTATUS(status[privileged]);
        if (!privileged) check(status[0] == 2, "the environment overrides the rate", "status %d", status[0]);
        else check(status[1] == 1, "but not of a set-user-ID program", "status %d", status[1]);
    }
    unsetenv("E2E_CHILD");
    unsetenv("CPROF_HZ");
    unlink(program);
}
#endif

static bool refuse(void *user, const void *data, size_t size)
{
    int *calls = (int *)user;
    (void)data;
    (void)size;
    ++*calls;
    return false;
}

static void *stopper(void *argument)
{
    *(cprof_result *)argument = cprof_stop();
    return NULL;
}

static void *writer_main(void *argument)
{
    volatile bool *quit = (volatile bool *)argument;
    while (!*quit) { e2e_profile p = profile_take(); profile_free(&p); }
    return NULL;
}

/* Shares are off when other processes take the CPU from whoever is writing: then once more. */
static bool write_and_reset(bool final)
{
    cprof_desc desc = quiet_at(1000);
    e2e_profile p;
    pthread_t thread;
    volatile bool quit = false;
    int calls = 0;
    uint64_t one, two, three, start;
    bool disturbed, fair;

    check_ok(cprof_start(&desc), "start");
    fn_one(200000000);
    p = profile_take();
    check(profile_total(&p, NULL, "fn_one") > 150, "write while running", "%llu periods",
          (unsigned long long)profile_total(&p, NULL, "fn_one"));
    profile_free(&p);
    check_ok(cprof_reset(), "reset");
    start = wall();
    fn_two(300000000);
    if (pthread_create(&thread, NULL, writer_main, (void *)(uintptr_t)&quit)) exit(1);
    fn_three(300000000);
    disturbed = e2e_disturbed(600000000, wall() - start, 1);
    quit = true;
    pthread_join(thread, NULL);
    check(cprof_write_to(refuse, &calls, CPROF_FOLDED) != CPROF_OK && calls == 1, "a writer that refuses is an error, called once",
          "%d calls", calls);
    check_ok(cprof_stop(), "stop");
    p = profile_take();
    one = profile_total(&p, NULL, "fn_one");
    two = profile_total(&p, NULL, "fn_two");
    three = profile_total(&p, NULL, "fn_three");
    profile_free(&p);
    fair = two > 240 && two < 360 && three > 240 && three < 360;
    if (!fair && disturbed && !final) return true;
    check(one <= 3 && two > 240 && two < 360, "reset forgets what was", "%llu before, %llu after", (unsigned long long)one,
          (unsigned long long)two);
    check(three > 240 && three < 360, "writing again and again does not disturb", "%llu periods of 300",
          (unsigned long long)three);
    return false;
}

static void controls(void)
{
    cprof_desc desc = quiet_at(1000);
    e2e_profile p;
    pthread_t thread;
    cprof_result result = CPROF_OK;
    cprof_stats stats;
    uint64_t one, two, three;

    check_ok(cprof_start(&desc), "start");
    fn_one(300000000);
    check_ok(cprof_pause(), "pause");
    fn_two(300000000);
    check_ok(cprof_resume(), "resume");
    fn_three(300000000);
    if (pthread_create(&thread, NULL, stopper, &result)) exit(1);
    pthread_join(thread, NULL);
    check_ok(result, "stop from another thread");
    cprof_get_stats(&stats);
    p = profile_take();
    one = profile_total(&p, NULL, "fn_one");
    two = profile_total(&p, NULL, "fn_two");
    three = profile_total(&p, NULL, "fn_three");
    /* 300 of 600 samples, within 5 sigma of a coin. */
    check(one > 240 && one < 360 && three > 240 && three < 360 && two <= 3, "what ran while paused is not in it",
          "%llu, paused %llu, %llu", (unsigned long long)one, (unsigned long long)two, (unsigned long long)three);
    /* Windows counts CPU in steps of 10 or 16 ms, and there are three ends here. */
    check(stats.unsampled_ns < 60000000, "nor is it unsampled", "%.1f ms", (double)stats.unsampled_ns / 1e6);
    profile_free(&p);
    p = profile_take();
    check(profile_total(&p, NULL, "fn_one") == one, "the profile stays after stop", "%llu",
          (unsigned long long)profile_total(&p, NULL, "fn_one"));
    profile_free(&p);

    for (int i = 1; i <= E2E_TRIES; i++) if (!write_and_reset(i == E2E_TRIES)) break;
}

/* ---- environment: a child of this program, started anew with the variables set ---- */

static int env_child(const char *path)
{
    CPROF_BEGIN(path);
    fn_one(300000000);
    wait_ns(300000000);
    CPROF_END();
    return 0;
}

static void run_child(const char *name, const char *value, const char *path, char **text)
{
    e2e_capture capture = capture_stderr();
    int status = e2e_wait(e2e_spawn("environment", path, name, value));
    *text = capture_end(capture);
    check(status == 0, e2e_format("the program runs with %s=%s", name ? name : "nothing", value ? value : ""), "status %d: %s", status, *text);
}

/* Leaves in the middle of a profile. */
static int exit_child(const char *path)
{
    cprof_desc desc = quiet_at(1000);
    desc.output = path;
    if (cprof_start(&desc) != CPROF_OK) return 1;
    fn_two(200000000);
    exit(0);
}

#ifndef _WIN32
static volatile bool writing;

/* Called while the profile is written. */
static bool wanted_late(void *unused, const char *name, uint32_t tid)
{
    (void)unused, (void)name, (void)tid;
    if (!writing) {
        writing = true;
        nap_ns(300000000);
    }
    return true;
}

/* Leaves while another thread writes. */
static int stopping_child(const char *path)
{
    cprof_desc desc = quiet_at(1000);
    pthread_t thread;
    cprof_result result;
    desc.output = path;
    desc.thread_wanted = wanted_late;
    if (cprof_start(&desc) != CPROF_OK) return 1;
    fn_two(200000000);
    if (pthread_create(&thread, NULL, stopper, &result)) return 1;
    while (!writing) nap_ns(1000000);
    exit(0);
}
#endif

static void leaving(const char *child, const char *name)
{
    char path[600];
    e2e_profile p;
    int status;
    bool found;
    snprintf(path, sizeof path, "%s", in_dir("exit.folded"));
    status = e2e_wait(e2e_spawn(child, path, NULL, NULL));
    check(status == 0, name, "status %d", status);
    found = profile_read(path, &p);
    check(found && profile_total(&p, NULL, "fn_two") > 100, "writes it", "%llu periods of 200",
          (unsigned long long)profile_total(&p, NULL, "fn_two"));
    profile_free(&p);
    e2e_delete(path);
}

static void environment(void)
{
    char path[600], other[600], *text;
    e2e_profile p;
    uint64_t start;
    bool found;
    snprintf(path, sizeof path, "%s", in_dir("code.folded"));
    snprintf(other, sizeof other, "%s", in_dir("env.folded"));

    run_child("CPROF_HZ", "1000", path, &text);
    found = profile_read(path, &p);
    check(found && fabs((double)p.count - 300) < 30 + e2e_steps(1) / 1e6, "CPROF_HZ overrides the rate", "%llu periods in 0.3 s",
          (unsigned long long)p.count);
    profile_free(&p);
    free(text);
    e2e_delete(path);

    run_child("CPROF_OUTPUT", other, path, &text);
    found = profile_read(other, &p);
    check(!e2e_exists(path) && found && p.count > 20, "CPROF_OUTPUT overrides the path", "%llu periods",
          (unsigned long long)p.count);
    profile_free(&p);
    free(text);
    e2e_delete(other);

    start = wall();
    run_child("CPROF_CLOCK", "wall", path, &text);
    found = profile_read(path, &p);
    check(found && p.count > 55 && (double)p.count < (double)(wall() - start) / 1e7 + 2, "CPROF_CLOCK=wall counts the sleep too",
          "%llu periods in 0.6 s or more", (unsigned long long)p.count);
    profile_free(&p);
    free(text);
    e2e_delete(path);

    run_child("CPROF_ENABLE", "0", path, &text);
    check(!e2e_exists(path), "CPROF_ENABLE=0 writes nothing", "a file");
    check(count_lines(text) <= 1, "and says one line at most", "%s", text);
    free(text);

    run_child("CPROF_HZ", "nonsense", path, &text);
    check(strstr(text, "CPROF_HZ") != NULL, "a bad CPROF_HZ is named", "stderr: %s", text);
    free(text);
    run_child("CPROF_HZ", "0", path, &text);
    check(strstr(text, "(hz)") != NULL, "CPROF_HZ=0 is no rate", "stderr: %s", text);
    free(text);
    e2e_delete(path);
}

int main(void)
{
    const char *part = e2e_variable("E2E_CHILD");
#ifndef _WIN32
    if (part && strcmp(part, "secure") == 0) return secure_child();
    if (part && strcmp(part, "stopping") == 0) return stopping_child(e2e_variable("E2E_PATH"));
#endif
    if (part && strcmp(part, "exit") == 0) return exit_child(e2e_variable("E2E_PATH"));
    if (part) return env_child(e2e_variable("E2E_PATH"));
    if (!e2e_directory_make(dir, sizeof dir)) return 1;
#ifndef _WIN32
    umask(022);
#endif
    misuse();
    output_file();
#ifndef _WIN32
    hostile_places();
    set_user_id();
#endif
    controls();
    environment();
    leaving("exit", "exit in the middle of a profile");
#ifndef _WIN32
    leaving("stopping", "exit while another thread stops the profile");
#endif
    thousand_times();
    if (!e2e_directory_remove(dir)) check(false, "nothing is left behind", "%d files in %s", e2e_entries(dir), dir);
    return e2e_done();
}
