/* The registry knows every image, survives a dlopen/dlclose storm while handlers unwind on other
   threads, revives what comes back, and does not grow. Includes the implementation. */
#include "unit.h"

#define load(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define load_seq(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define store_seq(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)

#include <dlfcn.h>

static cprofi_modules modules;
static cprofi_unwinder unwinder;

static const cprofi_module *module_at(uintptr_t pc) {
    return &modules.records[cprofi_modules_find(&modules, pc)];
}

static void test_known(void) {
    char self[4096] = "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) self[0] = 0;
    check(cprofi_modules_refresh(&modules), "the first refresh finds modules", "nothing");
    check(!cprofi_modules_refresh(&modules), "the second finds no change", "a change");
    const cprofi_module *own = module_at((uintptr_t)&test_known);
    check(strcmp(own->path, self) == 0, "the program's path", "%s, not %s", own->path, self);
    check(own->build_id_size == 20 || own->build_id_size == 0, "the program's build id",
          "%u bytes", own->build_id_size);
    const cprofi_module *libc = module_at((uintptr_t)dlsym(RTLD_DEFAULT, "gnu_get_libc_version"));
    check(strstr(libc->name, "libc") != NULL && libc->path[0] == '/', "libc", "\"%s\"",
          libc->path);
    check(libc->tables && libc->tables->frame.size > 10000 && libc->tables->search_count > 1000,
          "libc has unwind tables", "none");
    uintptr_t vdso = (uintptr_t)getauxval(AT_SYSINFO_EHDR);
    const cprofi_module *image = NULL;
    for (uint32_t id = 1; id < modules.count; id++)
        if (modules.records[id].lo == vdso) image = &modules.records[id];
    if (!vdso) printf("skip - the vdso: there is none\n");
    else
        check(image && strcmp(image->name, "[vdso]") == 0 && image->image.data == (void *)vdso &&
                   memcmp(image->image.data, ELFMAG, SELFMAG) == 0,
               "the vdso", "missing");
    check(cprofi_modules_find(&modules, 0) == 0 &&
               cprofi_modules_find(&modules, UINTPTR_MAX) == 0 &&
               cprofi_modules_find(&modules, (uintptr_t)self) == 0,
           "addresses that are no code", "found");
    for (size_t i = 0; i < modules.index->count; i++) {
        const cprofi_module_range *r = &modules.index->ranges[i];
        if (cprofi_modules_find(&modules, r->lo) == r->id &&
            cprofi_modules_find(&modules, r->hi - 1) == r->id &&
            cprofi_modules_find(&modules, r->hi) != r->id)
            continue;
        check(false, "the ends of every module", "%s", modules.records[r->id].name);
        return;
    }
    check(true, "the ends of every module", "");
    uint64_t start = now_ns();
    for (int i = 0; i < 100000; i++) cprofi_modules_refresh(&modules);
    printf("# an unchanged refresh takes %.0f ns\n", (double)(now_ns() - start) / 1e5);
}

/* ---- the storm: workers load, call and unload; a sampler signals them */

enum { WORKERS = 3, LIBRARIES = 6, FRAMES = 128, STORM_MS = 1500 };

static const char *const libraries[LIBRARIES] = {"libm.so.6",   "libresolv.so.2",
                                                 "libnsl.so.1", "libthread_db.so.1",
                                                 "libanl.so.1", "libutil.so.1"};

typedef struct {
    pthread_t thread;
    uint32_t busy, samples, rooted, frames;
    bool ready, done;
    cprofi_scratch scratch;
    uintptr_t pcs[FRAMES];
    unsigned long loads;
} worker;

static worker workers[WORKERS];
static bool stop;

static void on_sample(int sig, siginfo_t *info, void *context) {
    worker *w = (worker *)info->si_value.sival_ptr;
    int saved_errno = errno;
    (void)sig;
    store_seq(&w->busy, 1); /* announced before the index is loaded */
    cprofi_regs regs;
    cprofi_view view = {0, 0, 0, true};
    cprofi_end end;
    cprofi_regs_from_ucontext(&regs, context);
    w->frames += (uint32_t)cprofi_unwind(&unwinder, &modules, &regs, &view, &w->scratch, w->pcs,
                                         FRAMES, &end, NULL);
    w->samples++;
    w->rooted += end == CPROFI_END_ROOT;
    store_seq(&w->busy, 0);
    errno = saved_errno;
}

static void *work(void *argument) {
    worker *w = (worker *)argument;
    store_release(&w->ready, true);
    for (size_t i = (size_t)(w - workers); !load(&stop); i++) {
        void *library = dlopen(libraries[i % LIBRARIES], RTLD_LAZY | RTLD_LOCAL);
        if (!library) continue;
        double (*function)(double);
        void *symbol = dlsym(library, "tgamma");
        memcpy(&function, &symbol, sizeof symbol);
        volatile double x = 1.5;
        for (int k = 0; function && k < 300; k++) x = function(1 + x / 100);
        dlclose(library);
        w->loads++;
    }
    store_release(&w->done, true);
    while (load_acquire(&w->done)) usleep(1000); /* stays until nobody signals it */
    return NULL;
}

static bool ask(worker *w) {
    union sigval value;
    value.sival_ptr = w;
    return pthread_sigqueue(w->thread, SIGURG, value) == 0;
}

static size_t memory_pages(void) {
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%lu", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return pages;
}

static size_t storm(uint64_t ns) {
    uint64_t until = now_ns() + ns;
    size_t changes = 0;
    while (now_ns() < until) {
        changes += cprofi_modules_refresh(&modules);
        bool idle = true;
        for (size_t i = 0; i < WORKERS; i++) idle &= !load_seq(&workers[i].busy);
        if (idle) cprofi_modules_quiescent(&modules);
        for (size_t i = 0; i < WORKERS; i++) ask(&workers[i]);
        struct timespec nap = {0, 30000};
        nanosleep(&nap, NULL);
    }
    return changes;
}

static void test_storm(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_sample;
    action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    sigaction(SIGURG, &action, NULL);
    if (!cprofi_unwind_init(&unwinder)) exit(1);
    for (size_t i = 0; i < WORKERS; i++)
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) exit(1);
    for (size_t i = 0; i < WORKERS; i++)
        while (!load_acquire(&workers[i].ready)) sched_yield();
    size_t changes = storm(STORM_MS * 1000000ull / 2);
    uint32_t count = modules.count;
    size_t before = memory_pages();
    size_t later = storm(STORM_MS * 1000000ull / 2);
    changes += later;
    size_t after = memory_pages();
    uint32_t samples = 0, rooted = 0, walked = 0;
    unsigned long loads = 0;
    store(&stop, true);
    for (size_t i = 0; i < WORKERS; i++) {
        while (!load_acquire(&workers[i].done)) usleep(1000);
        usleep(20000);
        store_release(&workers[i].done, false);
        pthread_join(workers[i].thread, NULL);
        samples += workers[i].samples;
        rooted += workers[i].rooted;
        walked += workers[i].frames;
        loads += workers[i].loads;
    }
    printf("# storm: %lu loads, %zu changes seen, %u samples, %.2f%% to the root, %.1f frames\n",
           loads, changes, samples, 100.0 * rooted / (samples ? samples : 1),
           (double)walked / (samples ? samples : 1));
    check(samples > 100 && changes > 10, "a storm of dlopen and dlclose under sampling",
          "%u samples, %zu changes", samples, changes);
    /* the first samples after a library came may precede the refresh that enters it */
    check(rooted >= samples - samples / 10, "samples in the storm reach the root", "%u of %u",
          rooted, samples);
    /* the same library at another place is another record; the places are soon all taken */
    check(modules.count - count <= later / 4 + 20, "modules that come back are revived",
          "%u records, then %u, with %zu changes", count, modules.count, later);
    check(after <= before + 1024, "memory does not grow", "%zu pages, then %zu", before, after);
}

static void test_revival(void) {
    void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_NOLOAD);
    bool there = library != NULL;
    if (!there) library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
    if (there || !library) {
        printf("# revival: libm is part of this program, and is not unloaded\n");
        return;
    }
    uintptr_t pc = (uintptr_t)dlsym(library, "tgamma");
    check(cprofi_modules_refresh(&modules), "a load is noticed", "not");
    uint32_t id = cprofi_modules_find(&modules, pc), epoch = modules.epoch;
    check(id != 0 && modules.records[id].loaded == 1, "it is found", "id %u", id);
    dlclose(library);
    if (!cprofi_modules_refresh(&modules)) { /* linked to it, or it stays for another reason */
        printf("skip - revival: libm was not unloaded\n");
        return;
    }
    check(cprofi_modules_find(&modules, pc) == 0 && modules.records[id].loaded == 0 &&
               strstr(modules.records[id].name, "libm") && modules.epoch == epoch + 1,
           "unloaded: not found, but remembered", "%s", modules.records[id].name);
    cprofi_modules_quiescent(&modules);
    check(modules.retired == NULL, "quiescence frees what was retired", "not");
    library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
    pc = (uintptr_t)dlsym(library, "tgamma");
    cprofi_modules_refresh(&modules);
    uint32_t again = cprofi_modules_find(&modules, pc);
    bool same_place = again && modules.records[again].lo == modules.records[id].lo;
    check(again != 0 && (again == id) == same_place, "back at its place: the same record",
          "%u, then %u", id, again);
    dlclose(library);
    cprofi_modules_refresh(&modules);
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    if (!cprofi_modules_init(&modules)) return 1;
    test_known();
    test_revival();
    test_storm();
    return failures ? 1 : 0;
}
