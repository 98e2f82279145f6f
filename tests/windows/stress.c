/* stress.c: threads that do what takes the locks of a Windows program, while they are sampled as
   often as the timers allow: load, call and free libraries, churn the heap, register and remove
   tables of code made at run time, begin and end threads, throw and catch, switch fibers.

       stress SECONDS DIRECTORY [PROBE]   the libraries are DIRECTORY/stress_dll0.dll ...

   A watchdog looks at whether every worker and the sampler make progress. If one does not it says
   who stands where, and ends the process: a hang has a reason, not just a timeout.

   With the probe HeapAlloc or GetModuleHandleExW the sampler calls that, which it must not, while a
   thread is suspended; so it has to hang, else this test could not see what it is there to see. */

#include <stdint.h>

static void test_while_suspended(uint32_t tid);
#define CPROFI_TEST_WHILE_SUSPENDED(tid) test_while_suspended(tid)

#include "test.h"

enum { LIBRARIES = 6, PATIENCE_MS = 30000, PROBE_PATIENCE_MS = 8000 };

int exception_catch(void (*call)(void *), void *argument);
void exception_throw(int depth);

/* ---- what is known of everybody ---- */

typedef struct worker {
    const char *kind;
    uintptr_t function; /* looked for in the samples, or 0: too short-lived */
    void (*round)(struct worker *w);
    const char *volatile doing; /* the last call it made */
    volatile LONG rounds;
    DWORD tid;
    HANDLE thread;
    uint32_t random;
    /* the watchdog's: */
    LONG seen[2];
    uint64_t seen_at[2];
} worker;

static volatile LONG stopping;
static const char *directory;
static volatile LONG captures, loads, children, thrown, tables_made, growable_made, fiber_switches;
static volatile DWORD suspended_tid; /* while the sampler is where the probe is */
static const char *probe = "";
static volatile DWORD heap_pieces;

static uint32_t next(worker *w) {
    w->random = w->random * 1664525u + 1013904223u;
    return w->random >> 8;
}

static void test_while_suspended(uint32_t tid) {
    suspended_tid = tid;
    if (strcmp(probe, "HeapAlloc") == 0) {
        void *volatile piece = malloc(100);
        free(piece);
        HeapFree(GetProcessHeap(), 0, HeapAlloc(GetProcessHeap(), 0, 100));
    } else if (strcmp(probe, "GetModuleHandleExW") == 0) {
        HMODULE module;
        GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS |
                               GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
                           (LPCWSTR)(uintptr_t)&captures, &module);
    }
    suspended_tid = 0;
    captures++;
}

/* Wine 8 dispatches exceptions by walking the list of images without the loader's lock: a thread
   that throws while another loads or frees a library may read freed memory. It takes long to happen
   by itself, minutes when the other is suspended in the middle. There, and only there, this test
   does not do both at once. */
static SRWLOCK images = SRWLOCK_INIT;
static bool is_wine;

static void images_change(bool begin) {
    if (!is_wine) return;
    if (begin) AcquireSRWLockExclusive(&images);
    else ReleaseSRWLockExclusive(&images);
}

static void images_walk(bool begin) {
    if (!is_wine) return;
    if (begin) AcquireSRWLockShared(&images);
    else ReleaseSRWLockShared(&images);
}

/* ---- workers: one round each; the names of these functions are looked for in the profile ---- */

TEST_NOINLINE static void worker_dlls(worker *w) {
    char path[MAX_PATH];
    unsigned (*work)(unsigned, unsigned) = NULL;
    FARPROC found;
    HMODULE library;
    snprintf(path, sizeof path, "%s/stress_dll%u.dll", directory, (unsigned)(next(w) % LIBRARIES));
    w->doing = "LoadLibrary";
    images_change(true);
    library = LoadLibraryA(path);
    images_change(false);
    if (!library) {
        say("not ok - a library can be loaded: %s, error %lu", path, GetLastError());
        end_now(2);
    }
    w->doing = "GetProcAddress";
    found = GetProcAddress(library, "dll_work");
    memcpy(&work, &found, sizeof work);
    w->doing = "a function of the library";
    if (work) work(5 + next(w) % 20, 200000);
    w->doing = "FreeLibrary";
    images_change(true);
    FreeLibrary(library);
    images_change(false);
    InterlockedIncrement(&loads);
    w->doing = "GetModuleHandle";
    if (GetModuleHandleA("stress_dll0.dll")) InterlockedIncrement(&loads);
}

TEST_NOINLINE static void worker_heap(worker *w) {
    void *pieces[64] = {NULL};
    HANDLE heap;
    w->doing = "malloc, realloc, free, HeapAlloc, HeapFree";
    for (int i = 0; i < 200; i++) {
        uint32_t at = next(w) % 64, size = 16u << next(w) % 10;
        if (next(w) % 4 == 0) {
            void *moved = realloc(pieces[at], size);
            if (moved) pieces[at] = moved;
        } else {
            free(pieces[at]);
            pieces[at] = malloc(size);
        }
        if (pieces[at]) memset(pieces[at], (int)at, 16);
        HeapFree(GetProcessHeap(), 0, HeapAlloc(GetProcessHeap(), 0, size));
        heap_pieces++;
    }
    for (int i = 0; i < 64; i++) free(pieces[i]);
    w->doing = "HeapCreate, HeapDestroy";
    heap = HeapCreate(0, 0, 0);
    if (heap) {
        for (int i = 0; i < 50; i++) pieces[i] = HeapAlloc(heap, 0, 100 + next(w) % 5000);
        HeapDestroy(heap);
    }
    w->doing = "HeapValidate";
    HeapValidate(GetProcessHeap(), 0, NULL);
}

/* push rbx; sub rsp, 32; mov rbx, rcx; call rdx; add rsp, 32; pop rbx; ret */
static const uint8_t made_code[] = {0x53, 0x48, 0x83, 0xec, 0x20, 0x48, 0x89, 0xcb, 0xff,
                                    0xd2, 0x48, 0x83, 0xc4, 0x20, 0x5b, 0xc3};
/* version 1; prologue of 5 bytes; 2 codes: 5: allocate 32, 1: push rbx */
static const uint8_t made_info[] = {0x01, 0x05, 0x02, 0x00, 0x05, 0x32, 0x01, 0x30};

typedef struct {
    void (*code)(void *argument, void (*call)(void *));
} made_function;

TEST_NOINLINE static void made_callback(void *argument) {
    spin((uintptr_t)argument, 150000);
    __asm__ volatile("");
}

static void made_throw(void *argument) {
    (void)argument;
    exception_throw(3);
}

static void made_run_throw(void *argument) {
    const made_function *made = (const made_function *)argument;
    made->code(argument, made_throw);
    __asm__ volatile("");
}

TEST_NOINLINE static void worker_tables(worker *w) {
    static DWORD(WINAPI * add)(void **, RUNTIME_FUNCTION *, DWORD, DWORD, ULONG_PTR, ULONG_PTR);
    static void(WINAPI * remove_growable)(void *);
    uint8_t *page;
    RUNTIME_FUNCTION *entry;
    made_function made;
    void *handle = NULL;
    w->doing = "VirtualAlloc";
    page = (uint8_t *)VirtualAlloc(NULL, 4096, MEM_COMMIT | MEM_RESERVE, PAGE_EXECUTE_READWRITE);
    if (!page) return;
    if (!add) {
        cprofi_windows_find(L"ntdll.dll", "RtlDeleteGrowableFunctionTable", &remove_growable,
                            sizeof remove_growable);
        cprofi_windows_find(L"ntdll.dll", "RtlAddGrowableFunctionTable", &add, sizeof add);
    }
    memcpy(page, made_code, sizeof made_code);
    memcpy(page + 64, made_info, sizeof made_info);
    entry = (RUNTIME_FUNCTION *)(void *)(page + 128);
    entry->BeginAddress = 0;
    entry->EndAddress = sizeof made_code;
    entry->UnwindData = 64;
    memcpy(&made.code, &page, sizeof made.code);
    if (add && remove_growable && next(w) % 2) {
        w->doing = "RtlAddGrowableFunctionTable";
        if (add(&handle, entry, 1, 1, (ULONG_PTR)page, (ULONG_PTR)page + 4096) != 0) handle = NULL;
        if (handle) InterlockedIncrement(&growable_made);
    } else {
        w->doing = "RtlAddFunctionTable";
        if (RtlAddFunctionTable(entry, 1, (DWORD64)(uintptr_t)page))
            InterlockedIncrement(&tables_made);
    }
    w->doing = "code made at run time";
    made.code(&made, made_callback);
    w->doing = "an exception through code made at run time";
    images_walk(true);
    if (exception_catch(made_run_throw, &made) == 42) InterlockedIncrement(&thrown);
    images_walk(false);
    w->doing = "RtlDeleteFunctionTable";
    if (handle) remove_growable(handle);
    else RtlDeleteFunctionTable(entry);
    w->doing = "VirtualFree";
    VirtualFree(page, 0, MEM_RELEASE);
}

/* Grows its stack in steps smaller than a page: now and then the stack pointer is on a guard page,
   or below it. */
TEST_NOINLINE static uint64_t child_deep(unsigned depth) {
    volatile uint8_t room[700];
    room[0] = (uint8_t)depth;
    if (!depth) return spin(room[0], 20000);
    return child_deep(depth - 1) + room[0];
}

TEST_NOINLINE static DWORD WINAPI worker_child(void *argument) {
    child_deep((unsigned)(uintptr_t)argument);
    InterlockedIncrement(&children);
    return 0;
}

TEST_NOINLINE static void worker_threads(worker *w) {
    HANDLE threads[8];
    int n = 0;
    w->doing = "CreateThread";
    for (; n < 8; n++) {
        threads[n] = CreateThread(NULL, 0, worker_child, (void *)(uintptr_t)(next(w) % 200), 0,
                                  NULL);
        if (!threads[n]) break;
    }
    w->doing = "waiting for the end of threads";
    for (int i = 0; i < n; i++) {
        WaitForSingleObject(threads[i], INFINITE);
        CloseHandle(threads[i]);
    }
}

/* Lives long enough to be met. */
TEST_NOINLINE static DWORD WINAPI worker_lasting_child(void *argument) {
    uint64_t until = now_ms() + 300;
    while (now_ms() < until) child_deep((unsigned)(uintptr_t)argument);
    InterlockedIncrement(&children);
    return 0;
}

TEST_NOINLINE static void worker_lasting(worker *w) {
    HANDLE thread = CreateThread(NULL, 0, worker_lasting_child, (void *)(uintptr_t)(next(w) % 200),
                                 0, NULL);
    w->doing = "waiting for the end of a thread";
    if (!thread) return;
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}

static void throw_deep(void *argument) { exception_throw((int)(intptr_t)argument); }

/* An exception that a vectored handler continues from: the dispatcher's frames, no unwinding. */
static LONG CALLBACK veh(EXCEPTION_POINTERS *e) {
    if (e->ExceptionRecord->ExceptionCode != 0xe0000042) return EXCEPTION_CONTINUE_SEARCH;
    spin(1, 20000);
    return EXCEPTION_CONTINUE_EXECUTION;
}

TEST_NOINLINE static void worker_exceptions(worker *w) {
    images_walk(true);
    w->doing = "throw and catch";
    for (int i = 0; i < 5; i++)
        if (exception_catch(throw_deep, (void *)(intptr_t)(next(w) % 20)) == 42)
            InterlockedIncrement(&thrown);
    w->doing = "AddVectoredExceptionHandler";
    void *handler = AddVectoredExceptionHandler(1, veh);
    w->doing = "RaiseException";
    for (int i = 0; i < 5; i++) RaiseException(0xe0000042, 0, 0, NULL);
    images_walk(false);
    w->doing = "RemoveVectoredExceptionHandler";
    RemoveVectoredExceptionHandler(handler);
}

static void CALLBACK fiber_main(void *argument) {
    for (;;) {
        spin(1, 20000);
        InterlockedIncrement(&fiber_switches);
        SwitchToFiber(argument);
    }
}

TEST_NOINLINE static void worker_fibers(worker *w) {
    void *self = ConvertThreadToFiber(NULL), *fibers[4] = {NULL};
    w->doing = "CreateFiber";
    for (int i = 0; i < 4; i++) fibers[i] = CreateFiber(65536, fiber_main, self);
    w->doing = "SwitchToFiber";
    for (int i = 0; i < 12; i++)
        if (fibers[i % 4]) SwitchToFiber(fibers[i % 4]);
    w->doing = "DeleteFiber";
    for (int i = 0; i < 4; i++)
        if (fibers[i]) DeleteFiber(fibers[i]);
    ConvertFiberToThread();
}

enum { FIBERS = 7 };
static worker workers[] = {
    {.kind = "dlls", .function = (uintptr_t)worker_dlls, .round = worker_dlls},
    {.kind = "dlls", .function = (uintptr_t)worker_dlls, .round = worker_dlls},
    {.kind = "heap", .function = (uintptr_t)worker_heap, .round = worker_heap},
    {.kind = "tables", .function = (uintptr_t)made_callback, .round = worker_tables},
    {.kind = "short threads", .function = 0, .round = worker_threads},
    {.kind = "threads", .function = (uintptr_t)worker_lasting_child, .round = worker_lasting},
    {.kind = "exceptions", .function = (uintptr_t)worker_exceptions, .round = worker_exceptions},
    [FIBERS] = {.kind = "fibers", .function = (uintptr_t)fiber_main, .round = worker_fibers},
};

static DWORD WINAPI worker_main(void *argument) {
    worker *w = (worker *)argument;
    while (!stopping) {
        w->round(w);
        InterlockedIncrement(&w->rounds);
        /* Wine's SuspendThread waits until the thread gets a core to answer: with many more busy
           threads than cores there would be few looks */
        w->doing = "Sleep";
        if (next(w) % 4 == 0) Sleep(1 + next(w) % 4);
    }
    w->doing = "nothing, it is over";
    return 0;
}

/* ---- the watchdog ---- */

static volatile const char *main_doing = "starting";
static volatile LONG watching;
static DWORD main_tid, dog_tids[2]; /* two: one may be suspended */
static volatile LONG telling;

static void watchdog_tell(const char *who, uint64_t ms) {
    if (InterlockedExchange(&telling, 1)) return;
    say("not ok - no hang: %s made no progress for %u s", who, (unsigned)(ms / 1000));
    if (suspended_tid && probe[0])
        say("# the sampler stands in %s while thread %u is suspended", probe, (unsigned)suspended_tid);
    else if (suspended_tid)
        say("# the sampler has not resumed thread %u", (unsigned)suspended_tid);
    say("# main (thread %u): suspended %d times", (unsigned)main_tid, suspend_count(main_tid));
    for (int i = 0; i < 2; i++) /* not itself */
        if (dog_tids[i] != GetCurrentThreadId())
            say("# watchdog (thread %u): suspended %d times", (unsigned)dog_tids[i],
                suspend_count(dog_tids[i]));
    say("# sampler: phase %u, %llu looks, %ld captures; main: %s",
        (unsigned)cprofi.session->phase, (unsigned long long)cprofi.session->ticks, captures,
        (const char *)main_doing);
    for (size_t i = 0; i < CPROFI_COUNT(workers); i++)
        if (workers[i].thread)
            say("# %s (thread %u): %ld rounds, suspended %d times, last call: %s", workers[i].kind,
                (unsigned)workers[i].tid, workers[i].rounds, suspend_count(workers[i].tid),
                workers[i].doing);
    end_now(3);
}

static DWORD WINAPI watchdog(void *argument) {
    const uint64_t patience = probe[0] ? PROBE_PATIENCE_MS : PATIENCE_MS;
    volatile uint64_t *looks = &cprofi.session->ticks;
    uint64_t seen = 0, seen_at = now_ms();
    const uintptr_t self = (uintptr_t)argument;
    char text[64];
    /* msvcrt makes a thread's data when it first formats something: that must not wait for the heap's
       lock when there is a hang to tell of. */
    snprintf(text, sizeof text, "%s %u %ld %llu", "", 0u, 0l, 0ull);
    for (size_t i = 0; i < CPROFI_COUNT(workers); i++) workers[i].seen_at[self] = now_ms();
    for (;;) {
        uint64_t now;
        InterlockedOr(&watching, 1 << self);
        Sleep(500);
        now = now_ms();
        if (stopping > 1) return 0;
        if (*looks != seen || stopping || cprofi.session->disabled) seen = *looks, seen_at = now;
        if (now - seen_at > patience) watchdog_tell("the sampler", now - seen_at);
        for (size_t i = 0; i < CPROFI_COUNT(workers); i++) {
            worker *w = &workers[i];
            if (w->rounds != w->seen[self] || !w->thread)
                w->seen[self] = w->rounds, w->seen_at[self] = now;
            if (now - w->seen_at[self] > patience)
                watchdog_tell(w->kind, now - w->seen_at[self]);
        }
    }
}

/* ---- what came of it ---- */

typedef struct {
    char *text;
    size_t size, capacity;
} text_buffer;

static bool text_receive(void *user, const void *data, size_t size) {
    text_buffer *b = (text_buffer *)user;
    if (b->size + size + 1 > b->capacity) {
        size_t capacity = 2 * (b->size + size + 1);
        char *moved = (char *)realloc(b->text, capacity);
        if (!moved) return false;
        b->text = moved;
        b->capacity = capacity;
    }
    memcpy(b->text + b->size, data, size);
    b->size += size;
    b->text[b->size] = 0;
    return true;
}

/* Samples with the function on their stack. Not the profile's weights: a thread that lives shorter
   than a step of Wine's clocks weighs nothing. */
static uint64_t samples_in(uintptr_t function) {
    const cprofi_session *s = cprofi.session;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->table.entry_count; i++) {
        const cprofi_entry *e = &s->table.entries[i];
        for (uint32_t k = 0; k < e->depth; k++) {
            cprofi_frame frame = s->table.frames[e->first + k];
            uint32_t id = CPROFI_FRAME_MODULE(frame);
            if (!id || !s->modules.records[id].is_main ||
                cprofi_unwind_function(&s->modules, id, CPROFI_FRAME_ADDRESS(frame)) != function)
                continue;
            sum += e->count;
            break;
        }
    }
    return sum;
}

static bool somebody_unmet(void) {
    bool unmet = false;
    cprofi_lock(cprofi.session);
    for (size_t i = 0; i < CPROFI_COUNT(workers) && !unmet; i++)
        unmet = workers[i].function && samples_in(workers[i].function) == 0;
    cprofi_unlock(cprofi.session);
    return unmet;
}

static void frame_text(const cprofi_session *s, cprofi_frame frame, char *to, size_t size) {
    const cprofi_module *m = &s->modules.records[CPROFI_FRAME_MODULE(frame)];
    uintptr_t address = CPROFI_FRAME_ADDRESS(frame);
    if (CPROFI_FRAME_MODULE(frame))
        snprintf(to, size, "%s+0x%llx", m->name, (unsigned long long)(address - m->slide));
    else
        snprintf(to, size, "0x%llx", (unsigned long long)address);
}

static void stack_print(const cprofi_session *s, const cprofi_entry *e) {
    char text[900], one[200];
    size_t used = 0;
    text[0] = 0;
    for (uint32_t i = 0; i < e->depth && used < sizeof text - 200; i++) {
        frame_text(s, s->table.frames[e->first + i], one, sizeof one);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", i ? " < " : "", one);
    }
    say("#   %llu x %s", (unsigned long long)e->count, text);
}

/* Every stack ends in ntdll, where threads begin, or that of a fiber where fibers do, or is marked. A marked one has code on it that no
   image has, made at run time; others are printed and count. */
static void check_roots(void) {
    const cprofi_session *s = cprofi.session;
    uint64_t rooted = 0, fibers = 0, elsewhere = 0, made = 0, cut = 0, printed = 0;
    for (uint32_t i = 0; i < s->table.entry_count; i++) {
        const cprofi_entry *e = &s->table.entries[i];
        const cprofi_frame *frames = s->table.frames + e->first;
        cprofi_frame root = frames[e->depth - 1];
        if (!e->count) continue;
        if (root == CPROFI_FRAME_TRUNCATED) {
            bool outside = false;
            for (uint32_t k = 0; k + 1 < e->depth; k++) outside |= !CPROFI_FRAME_MODULE(frames[k]);
            if (outside) made += e->count;
            else cut += e->count;
            if (!outside && printed++ < 10) stack_print(s, e);
        } else if (_stricmp(s->modules.records[CPROFI_FRAME_MODULE(root)].name, "ntdll.dll") == 0) {
            rooted += e->count;
        } else if (s->threads[e->thread].tid == workers[FIBERS].tid &&
                   _stricmp(s->modules.records[CPROFI_FRAME_MODULE(root)].name,
                            "kernelbase.dll") == 0) {
            fibers += e->count;
        } else {
            elsewhere += e->count;
            if (printed++ < 10) stack_print(s, e);
        }
    }
    say("# %llu stacks end in ntdll, %llu in a fiber's beginning, %llu truncated at code made at run time, %llu others, %llu elsewhere",
        (unsigned long long)rooted, (unsigned long long)fibers, (unsigned long long)made, (unsigned long long)cut,
        (unsigned long long)elsewhere);
    check(rooted > 0 && elsewhere == 0, "every whole stack is rooted in ntdll", "%llu are not",
          (unsigned long long)elsewhere);
    check(cut == 0, "only stacks with code made at run time are truncated", "%llu others are",
          (unsigned long long)cut);
}

/* Everybody runs, says the system: so everybody is stopped at each look, sleepers too. */
static LONG NTAPI query_state(HANDLE handle, int kind, void *to, ULONG size, ULONG *got) {
    ULONG_PTR id = handle == GetCurrentThread() ? GetCurrentThreadId() : GetThreadId(handle);
    ULONG state = CPROFI_STATE_RUNNING;
    (void)got;
    if (kind != 40 || size != 80 || !id) return (LONG)0xc0000003; /* STATUS_INVALID_INFO_CLASS */
    memset(to, 0, size);
    memcpy((char *)to + 48, &id, sizeof id); /* ClientId.UniqueThread */
    memcpy((char *)to + 68, &state, sizeof state);
    return 0;
}

int main(int argc, char **argv) {
    int seconds = argc > 1 ? atoi(argv[1]) : 20;
    cprof_desc desc;
    cprof_stats stats;
    cprof_result result;
    HANDLE dogs[2];
    text_buffer text = {NULL, 0, 0};
    main_tid = GetCurrentThreadId();
    is_wine = GetProcAddress(GetModuleHandleA("ntdll.dll"), "wine_get_version") != NULL;
    directory = argc > 2 ? argv[2] : ".";
    if (argc > 3) probe = argv[3];
    memset(&desc, 0, sizeof desc);
    desc.hz = CPROFI_MAX_HZ;
    desc.max_sampler_percent = 100;
    desc.max_stacks = 1 << 18;
    desc.max_depth = 512;
    desc.quiet = true;
    /* first: whoever begins a thread may hold locks that a probe waits for */
    if (!cprofi_session_get()) return 1;
    cprofi.session->os.api.query_thread = query_state;
    for (int i = 0; i < 2; i++)
        dogs[i] = CreateThread(NULL, 0, watchdog, (void *)(uintptr_t)i, 0, &dog_tids[i]);
    while (watching != 3) Sleep(1);
    result = cprof_start(&desc);
    if (!check(result == CPROF_OK, "start", "%s", cprof_result_string(result))) return 1;
    for (size_t i = 0; i < CPROFI_COUNT(workers); i++) {
        workers[i].random = (uint32_t)(i + 1) * 0x9e3779b9u;
        workers[i].doing = "nothing yet";
        workers[i].thread =
            CreateThread(NULL, 0, worker_main, &workers[i], 0, &workers[i].tid);
        if (!workers[i].thread) return 1;
    }
    main_doing = "sleeping";
    /* on a machine that is busy otherwise, until every kind was met */
    for (int i = 0; i < seconds || (i < 5 * seconds && somebody_unmet()); i++) Sleep(1000);
    main_doing = "cprof_stop";
    result = cprof_stop();
    check(result == CPROF_OK, "stop while all are at work", "%s", cprof_result_string(result));
    for (size_t i = 0; i < CPROFI_COUNT(workers); i++)
        if (suspend_count(workers[i].tid) > 0)
            check(false, "no thread stays suspended", "%s does", workers[i].kind);
    main_doing = "waiting for the workers";
    stopping = 1;
    for (size_t i = 0; i < CPROFI_COUNT(workers); i++)
        WaitForSingleObject(workers[i].thread, INFINITE);
    stopping = 2;
    main_doing = "reporting";
    WaitForMultipleObjects(2, dogs, TRUE, INFINITE);
    say("ok - no hang, no crash");
    cprof_get_stats(&stats);
    say("# %llu looks (%.0f a second), %ld captures, %llu samples, %llu discarded, %llu threads, %.1f%% of a core",
        (unsigned long long)stats.ticks, stats.hz_achieved, captures,
        (unsigned long long)stats.samples, (unsigned long long)stats.discarded,
        (unsigned long long)stats.threads_seen,
        100 * (double)stats.sampler_cpu_ns / (double)(stats.duration_ns + 1));
    say("# suspended for %.0f us on average, %.0f at most",
        cprofi.session->suspensions
            ? (double)cprofi.session->suspended / (double)cprofi.session->suspensions / 1000
            : 0,
        (double)cprofi.session->suspended_max / 1000);
    say("# %ld libraries loaded and freed, %ld threads, %ld exceptions, %ld + %ld function tables, %ld fiber switches, %lu pieces of heap, %u images known",
        loads, children, thrown, tables_made, growable_made, fiber_switches,
        (unsigned long)heap_pieces, (unsigned)cprofi.session->modules.count);
    for (size_t i = 0; i < CPROFI_COUNT(workers); i++)
        check(workers[i].rounds > 0, workers[i].kind, "no round was finished");
    check(loads > 0 && children > 0 && thrown > 0 && tables_made > 0 && fiber_switches > 0,
          "libraries, threads, exceptions, function tables and fibers were made", "some were not");
    check_roots();
    result = cprof_write_to(text_receive, &text, CPROF_FOLDED);
    check(result == CPROF_OK && text.size, "the profile can be written", "%s",
          cprof_result_string(result));
    for (size_t i = 0; i < CPROFI_COUNT(workers); i++) {
        uint64_t count = samples_in(workers[i].function);
        char name[64];
        if (!workers[i].function) continue;
        if (i && workers[i].function == workers[i - 1].function) continue;
        snprintf(name, sizeof name, "samples were taken in %s", workers[i].kind);
        check(count > 0, name, "none");
        say("# %s: %llu samples", workers[i].kind, (unsigned long long)count);
    }
    return test_failures ? 1 : 0;
}
