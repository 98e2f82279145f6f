/* Runs one x86-64 program for macOS on Linux: loads it where it wants to be, and binds what it imports to
   functions here. Mach's calls, as far as cprof.h uses them, are made of signals, /proc and semaphores; what
   is the same on both systems is the C library's own. So the code of the macos section is executed, on a
   system that is not macOS: this tells whether it does what it says, not whether macOS does what it relies on.

       cc -O1 tests/macos/host.c -o host -pthread -ldl;  host PROGRAM ARGUMENT...

   PROGRAM is linked as an executable at its own address, without chained fixups, and with imports found by
   name alone (-undefined dynamic_lookup). At the end the rights on threads must have been given back. With
   HOST_CACHED set the image says that it is one of the shared cache, which is to be read in memory. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID = 4, TERMINATED = 37, TIMED_OUT = 49 };

/* ---- threads: a port is a thread's id ---- */

enum { THREADS = 4096 };
static struct {
    atomic_int tid, rights, stopped, resumed;
    ucontext_t *context;
} ports[THREADS];
static atomic_long rights, suspensions;

static int find_port(int tid, bool make) {
    for (int i = 0; i < THREADS; i++) {
        int here = ports[i].tid, none = 0;
        if (here == tid) return i;
        if (here == 0 && (!make || atomic_compare_exchange_strong(&ports[i].tid, &none, tid) || none == tid)) return make ? i : -1;
    }
    return -1;
}

static bool gone(int tid) { return syscall(SYS_tgkill, getpid(), tid, 0) != 0; }

static void stop_here(int number, siginfo_t *info, void *context) {
    int error = errno, i = find_port((int)syscall(SYS_gettid), false);
    (void)number, (void)info;
    if (i >= 0) {
        int generation = ports[i].resumed;
        ports[i].context = (ucontext_t *)context;
        ports[i].stopped = 1;
        syscall(SYS_futex, &ports[i].stopped, FUTEX_WAKE, 1, NULL, NULL, 0);
        while (ports[i].resumed == generation) syscall(SYS_futex, &ports[i].resumed, FUTEX_WAIT, generation, NULL, NULL, 0);
    }
    errno = error;
}

static int thread_suspend(uint32_t port) {
    int i = port ? find_port((int)port, true) : -1;
    struct timespec patience = {0, 100000000};
    if (i < 0) return INVALID;
    ports[i].stopped = 0;
    if (syscall(SYS_tgkill, getpid(), (int)port, SIGUSR2) != 0) return TERMINATED;
    while (!ports[i].stopped) {
        syscall(SYS_futex, &ports[i].stopped, FUTEX_WAIT, 0, &patience, NULL, 0);
        if (gone((int)port)) return TERMINATED;
    }
    suspensions++;
    return SUCCESS;
}

static int thread_resume(uint32_t port) {
    int i = port ? find_port((int)port, false) : -1;
    if (i < 0) return INVALID;
    ports[i].resumed++;
    syscall(SYS_futex, &ports[i].resumed, FUTEX_WAKE, 1, NULL, NULL, 0);
    return SUCCESS;
}

static int thread_get_state(uint32_t port, int flavor, uint64_t *state, uint32_t *count) {
    static const int order[17] = {REG_RAX, REG_RBX, REG_RCX, REG_RDX, REG_RDI, REG_RSI, REG_RBP, REG_RSP, REG_R8,
                                  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};
    int i = find_port((int)port, false);
    if (i < 0 || flavor != 4 || *count < 42 || !ports[i].stopped) return INVALID;
    for (int k = 0; k < 17; k++) state[k] = (uint64_t)ports[i].context->uc_mcontext.gregs[order[k]];
    return SUCCESS;
}

static int task_threads(uint32_t task, uint32_t **list, uint32_t *count) {
    DIR *directory = opendir("/proc/self/task");
    uint32_t *ids = (uint32_t *)mmap(NULL, THREADS * 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct dirent *entry;
    (void)task;
    *count = 0;
    while (directory && (entry = readdir(directory)) != NULL) {
        int tid = atoi(entry->d_name), i = tid ? find_port(tid, true) : -1;
        if (i < 0) continue;
        ports[i].rights++;
        rights++;
        ids[(*count)++] = (uint32_t)tid;
    }
    if (directory) closedir(directory);
    *list = ids;
    return SUCCESS;
}

static int vm_deallocate(uint32_t task, uintptr_t at, size_t size) {
    (void)task, (void)size;
    return munmap((void *)at, THREADS * 4) == 0 ? SUCCESS : INVALID;
}

static int mach_port_deallocate(uint32_t task, uint32_t port) {
    int i = find_port((int)port, false);
    (void)task;
    if (i < 0 || ports[i].rights <= 0) {
        fprintf(stderr, "host: a right is given back that was not there\n");
        _exit(9);
    }
    ports[i].rights--;
    rights--;
    return SUCCESS;
}

/* The numbers behind the name in `stat`; field 0 is the state. */
static bool read_stat(int tid, char *state, unsigned long *system_ticks, char *name, size_t size) {
    char path[64], text[600], *end;
    int file;
    ssize_t n;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    file = open(path, O_RDONLY);
    if (file < 0) return false;
    n = read(file, text, sizeof text - 1);
    close(file);
    if (n <= 0) return false;
    text[n] = 0;
    end = strrchr(text, ')');
    snprintf(name, size, "%.*s", (int)(end - strchr(text, '(') - 1), strchr(text, '(') + 1);
    *state = end[2];
    for (int i = 0; i < 13; i++) end = strchr(end + 1, ' ');
    *system_ticks = strtoul(end, NULL, 10);
    return true;
}

static int thread_info(uint32_t port, int flavor, void *to, uint32_t *count) {
    struct { uint64_t user, system; int32_t usage, policy, state, flags, sleep, current, base, most; char name[64]; } *info = to;
    struct timespec t;
    unsigned long ticks = 0;
    char state = 0, name[64] = "";
    if (flavor == 4) { /* THREAD_IDENTIFIER_INFO */
        uint64_t *id = to;
        if (*count < 6 || gone((int)port)) return TERMINATED;
        id[0] = port;
        return SUCCESS;
    }
    if (flavor != 5 || *count < sizeof *info / 4 || clock_gettime((clockid_t)(~port << 3 | 6u), &t) != 0 ||
        !read_stat((int)port, &state, &ticks, name, sizeof name))
        return TERMINATED;
    memset(info, 0, sizeof *info);
    info->system = ticks * 10000000;
    info->user = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec / 1000 * 1000;
    info->user = info->user > info->system ? info->user - info->system : 0;
    info->state = state == 'R' ? 1 : 3;
    if (strcmp(name, "host") != 0) memcpy(info->name, name, sizeof name);
    return SUCCESS;
}

/* ---- memory ---- */

static int vm_read_overwrite(uint32_t task, uintptr_t from, size_t size, uintptr_t to, size_t *got) {
    struct iovec local = {(void *)to, size}, remote = {(void *)from, size};
    ssize_t n = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    (void)task;
    *got = n == (ssize_t)size ? size : 0;
    return *got == size ? SUCCESS : 1;
}

/* Called while a thread is stopped: no malloc, no stdio. */
static int vm_region_64(uint32_t task, uintptr_t *at, size_t *size, int flavor, int *info, uint32_t *count, uint32_t *object) {
    static char text[1 << 20];
    int file = open("/proc/self/maps", O_RDONLY);
    size_t used = 0;
    ssize_t n;
    (void)task;
    if (flavor != 9 || *count < 9) return INVALID;
    while ((n = read(file, text + used, sizeof text - 1 - used)) > 0) used += (size_t)n;
    close(file);
    text[used] = 0;
    for (char *line = text; line && *line; line = strchr(line, '\n'), line += line != NULL) {
        char *end;
        uintptr_t lo = strtoul(line, &end, 16), hi = strtoul(end + 1, &end, 16);
        if (hi <= *at) continue;
        *at = lo;
        *size = hi - lo;
        info[0] = (end[1] == 'r') | (end[2] == 'w') << 1 | (end[3] == 'x') << 2;
        *object = 0;
        return SUCCESS;
    }
    return 1;
}

static void *darwin_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset) {
    return mmap(at, size, protection, (flags & 0x1000 ? MAP_ANONYMOUS | MAP_NORESERVE : 0) | MAP_PRIVATE, file, offset);
}

/* ---- the C library, where it differs ---- */

static int darwin_open(const char *path, int flags, ...) {
    static const int pairs[][2] = {{4, O_NONBLOCK}, {8, O_APPEND}, {0x100, O_NOFOLLOW}, {0x200, O_CREAT}, {0x400, O_TRUNC},
                                 {0x800, O_EXCL}, {0x20000, O_NOCTTY}, {0x1000000, O_CLOEXEC}};
    int here = flags & 3;
    va_list list;
    mode_t mode;
    va_start(list, flags);
    mode = (mode_t)va_arg(list, int);
    va_end(list);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (flags & pairs[i][0]) here |= pairs[i][1];
    return open(path, here, mode);
}

static int fill_stat(int result, const struct stat *s, uint8_t *to) {
    uint16_t mode = (uint16_t)s->st_mode;
    uint32_t uid = s->st_uid;
    int64_t size = s->st_size;
    memset(to, 0, 144);
    memcpy(to + 4, &mode, 2);
    memcpy(to + 16, &uid, 4);
    memcpy(to + 96, &size, 8);
    return result;
}
static int darwin_fstat(int file, uint8_t *to) {
    struct stat s;
    return fstat(file, &s) == 0 ? fill_stat(0, &s, to) : -1;
}
static int darwin_stat(const char *path, uint8_t *to) {
    struct stat s;
    return stat(path, &s) == 0 ? fill_stat(0, &s, to) : -1;
}
static int darwin_lstat(const char *path, uint8_t *to) {
    struct stat s;
    return lstat(path, &s) == 0 ? fill_stat(0, &s, to) : -1;
}
static int issetugid(void) { return 0; }

static int darwin_clock_gettime(int id, struct timespec *t) { return clock_gettime(id == 12 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_REALTIME, t); }

static uint64_t clock_gettime_nsec_np(int id) {
    struct timespec t;
    (void)id;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static const char *getprogname(void) { return "program"; }
static int none(void) { return 0; }
static int failing(void) { return -1; }
static int darwin_atexit(void (*function)(void)) { return atexit(function); }
static void *darwin_dlsym(void *handle, const char *name) { return dlsym(handle == (void *)-2 ? RTLD_DEFAULT : handle, name); }

static int proc_pidinfo(int pid, int flavor, uint64_t argument, void *to, int size) {
    struct stat s;
    int32_t count;
    (void)pid, (void)argument;
    if (flavor != 4 || size != 96 || stat("/proc/self/task", &s) != 0) return 0;
    count = (int32_t)s.st_nlink - 2;
    memset(to, 0, 96);
    memcpy((char *)to + 84, &count, 4);
    return 96;
}

static sem_t semaphores[64];
static atomic_uint semaphore_count = 1;

static int semaphore_create(uint32_t task, uint32_t *out, int policy, int value) {
    (void)task, (void)policy;
    *out = semaphore_count++;
    return sem_init(&semaphores[*out], 0, (unsigned)value);
}
static int semaphore_destroy(uint32_t task, uint32_t s) {
    (void)task, (void)s;
    return SUCCESS;
}
static int semaphore_signal(uint32_t s) { return s ? sem_post(&semaphores[s]) : INVALID; }
static int semaphore_wait(uint32_t s) {
    while (sem_wait(&semaphores[s]) != 0) {}
    return SUCCESS;
}

typedef struct {
    uint32_t seconds, nanoseconds;
} mach_time;

static int semaphore_timedwait(uint32_t s, mach_time wait) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += wait.seconds + (t.tv_nsec + wait.nanoseconds) / 1000000000;
    t.tv_nsec = (t.tv_nsec + wait.nanoseconds) % 1000000000;
    return sem_clockwait(&semaphores[s], CLOCK_MONOTONIC, &t) == 0 ? SUCCESS : TIMED_OUT;
}

/* ---- pthread ---- */

/* Calls with a frame pointer of 0, as threads begin. */
uintptr_t call_clean(uintptr_t a, uintptr_t b, void *function);
__asm__(".globl call_clean\ncall_clean: push %rbp\n xor %ebp, %ebp\n call *%rdx\n pop %rbp\n ret\n");

typedef struct {
    void *function;
    uintptr_t argument;
} beginning;

static void *begin(void *argument) {
    beginning b = *(beginning *)argument;
    free(argument);
    return (void *)call_clean(b.argument, 0, b.function);
}

static int darwin_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *function, uintptr_t argument) {
    beginning *b = malloc(sizeof *b);
    (void)attributes;
    b->function = function;
    b->argument = argument;
    return pthread_create(thread, NULL, begin, b);
}

static uint32_t pthread_mach_thread_np(pthread_t thread) { return pthread_equal(thread, pthread_self()) ? (uint32_t)syscall(SYS_gettid) : 0; }
static int darwin_setname(const char *name) { return prctl(PR_SET_NAME, name, 0, 0, 0); }

static int pthread_threadid_np(void *thread, uint64_t *id) {
    (void)thread;
    *id = (uint64_t)syscall(SYS_gettid);
    return 0;
}

/* ---- what dyld does ---- */

static uint32_t mach_task_self_ = 0x103;
static const char *program_path;
static const uintptr_t header = 0x100000000;

static struct { uintptr_t header; const char *path; uintptr_t time; } images[1];
static struct {
    uint32_t version, count;
    void *images;
    uintptr_t notification, flags, dyld_header, unused[14], slide;
    uint8_t uuid[16];
    uintptr_t base;
    uint64_t changed;
    const char *dyld_path;
} infos;

static int task_info(uint32_t task, int flavor, uint64_t *to, uint32_t *count) {
    (void)task;
    if (flavor != 17 || *count < 5) return INVALID;
    images[0].header = header;
    images[0].path = program_path;
    infos.version = 17;
    infos.count = 1;
    infos.images = images;
    infos.changed = 12345;
    infos.dyld_header = (uintptr_t)&infos; /* no image */
    infos.dyld_path = "/usr/lib/dyld";
    to[0] = (uint64_t)(uintptr_t)&infos;
    to[1] = sizeof infos;
    return SUCCESS;
}

static int mach_timebase_info(uint32_t *to) {
    to[0] = to[1] = 1;
    return SUCCESS;
}

static __thread char thread_local_block[4096];
__attribute__((used)) static void *tlv_address(const uintptr_t *descriptor) { return thread_local_block + descriptor[2]; }
/* Keeps all registers but rax. */
void tlv_thunk(void);
__asm__("tlv_thunk: push %rcx\n push %rdx\n push %rsi\n push %rdi\n push %r8\n push %r9\n push %r10\n push %r11\n"
        " push %rbp\n mov %rsp, %rbp\n and $-16, %rsp\n call tlv_address\n mov %rbp, %rsp\n pop %rbp\n"
        " pop %r11\n pop %r10\n pop %r9\n pop %r8\n pop %rdi\n pop %rsi\n pop %rdx\n pop %rcx\n ret\n");

static const struct { const char *name; void *function; } bindings[] = {
    {"__error", (void *)__errno_location}, {"__bzero", (void *)bzero}, {"mach_task_self_", &mach_task_self_},
    {"clock_gettime", (void *)darwin_clock_gettime}, {"clock_gettime_nsec_np", (void *)clock_gettime_nsec_np}, {"open", (void *)darwin_open},
    {"fstat$INODE64", (void *)darwin_fstat}, {"stat$INODE64", (void *)darwin_stat},
    {"lstat$INODE64", (void *)darwin_lstat}, {"issetugid", (void *)issetugid}, {"getprogname", (void *)getprogname},
    {"minherit", (void *)none}, {"mmap", (void *)darwin_mmap}, {"proc_pidinfo", (void *)proc_pidinfo},
    {"pthread_attr_setdetachstate", (void *)none}, {"pthread_create", (void *)darwin_pthread_create},
    {"pthread_mach_thread_np", (void *)pthread_mach_thread_np}, {"pthread_setname_np", (void *)darwin_setname},
    {"pthread_sigmask", (void *)none}, {"sigaction", (void *)failing}, {"pthread_threadid_np", (void *)pthread_threadid_np},
    {"atexit", (void *)darwin_atexit}, {"realpath$DARWIN_EXTSN", (void *)realpath}, {"semaphore_create", (void *)semaphore_create},
    {"semaphore_destroy", (void *)semaphore_destroy}, {"semaphore_signal", (void *)semaphore_signal},
    {"semaphore_wait", (void *)semaphore_wait}, {"semaphore_timedwait", (void *)semaphore_timedwait},
    {"mach_port_deallocate", (void *)mach_port_deallocate}, {"task_threads", (void *)task_threads}, {"task_info", (void *)task_info},
    {"thread_info", (void *)thread_info}, {"thread_suspend", (void *)thread_suspend}, {"thread_resume", (void *)thread_resume},
    {"thread_get_state", (void *)thread_get_state}, {"thread_policy_set", (void *)none}, {"mach_timebase_info", (void *)mach_timebase_info},
    {"vm_deallocate", (void *)vm_deallocate}, {"vm_read_overwrite", (void *)vm_read_overwrite}, {"vm_region_64", (void *)vm_region_64},
    {"dlsym", (void *)darwin_dlsym}, {"pthread_atfork", (void *)none}};

static void *resolve(const char *name) {
    void *found;
    for (size_t i = 0; i < sizeof bindings / sizeof *bindings; i++)
        if (strcmp(bindings[i].name, name) == 0) return bindings[i].function;
    found = dlsym(RTLD_DEFAULT, name);
    if (!found) fprintf(stderr, "host: no %s\n", name);
    return found;
}

static uint32_t u32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static uint64_t u64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

/* Maps the segments, fills the slots of imports, and returns where the program begins; NULL: it cannot. */
static void *load(const char *path) {
    FILE *in = fopen(path, "rb");
    static uint8_t file[8 << 20];
    size_t size = in ? fread(file, 1, sizeof file, in) : 0;
    const uint8_t *symbols = NULL, *strings = NULL, *indirect = NULL;
    uint64_t entry = 0;
    if (in) fclose(in);
    if (size < 32 || u32(file) != 0xfeedfacf) return NULL;
    for (int pass = 0; pass < 2; pass++) {
        const uint8_t *c = file + 32;
        for (uint32_t n = u32(file + 16); n; n--, c += u32(c + 4)) {
            if (u32(c) == 2) symbols = file + u32(c + 8), strings = file + u32(c + 16);
            if (u32(c) == 0xb) indirect = file + u32(c + 56);
            if (u32(c) == 0x80000028) entry = header + u64(c + 8);
            if (u32(c) != 0x19) continue;
            if (pass == 0 && strcmp((const char *)c + 8, "__PAGEZERO") != 0) {
                void *at = (void *)(uintptr_t)u64(c + 24);
                if (mmap(at, u64(c + 32), PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != at) return NULL;
                memcpy(at, file + u64(c + 40), u64(c + 48));
            }
            for (uint32_t i = 0; pass == 1 && i < u32(c + 64); i++) {
                const uint8_t *s = c + 72 + 80 * i;
                uint64_t *slot = (uint64_t *)(uintptr_t)u64(s + 32), count = u64(s + 40) / 8;
                uint32_t type = u32(s + 64) & 0xff;
                for (uint64_t k = 0; (type == 6 || type == 7) && k < count; k++) {
                    uint32_t number = u32(indirect + 4 * (u32(s + 68) + k));
                    const char *name;
                    if (number & 0xc0000000) continue;
                    name = (const char *)strings + u32(symbols + 16 * number);
                    if ((symbols[16 * number + 4] & 0x0e) || strcmp(name, "dyld_stub_binder") == 0) continue;
                    slot[k] = (uint64_t)(uintptr_t)resolve(name + 1);
                }
                for (uint64_t k = 0; type == 0x13 && k + 3 <= count; k += 3) slot[k] = (uint64_t)(uintptr_t)tlv_thunk;
            }
        }
    }
    if (getenv("HOST_CACHED")) ((uint32_t *)header)[6] |= 0x80000000; /* MH_DYLIB_IN_CACHE */
    return (void *)(uintptr_t)entry;
}

int main(int argc, char **argv) {
    struct sigaction action;
    void *entry;
    int result;
    program_path = argc > 1 ? argv[1] : "";
    entry = load(program_path);
    if (!entry) {
        fprintf(stderr, "host: %s cannot be loaded\n", program_path);
        return 8;
    }
    memset(&action, 0, sizeof action);
    action.sa_sigaction = stop_here;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigaction(SIGUSR2, &action, NULL);
    result = (int)call_clean((uintptr_t)(argc - 1), (uintptr_t)(argv + 1), entry);
    printf("rights left %ld, threads stopped %ld times\n", (long)rights, (long)suspensions);
    fflush(stdout);
    _exit(result);
}
