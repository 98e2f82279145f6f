/* cprof 0.1.0 - a sampling CPU profiler in one C header, for Linux and Windows

   It samples every thread of the process it is compiled into, through optimised code without frame
   pointers, and writes folded stacks, from which tools/flamegraph.py draws a flame graph, or what
   pprof, speedscope and Firefox Profiler read.

   QUICK START

     In ONE source file:            Around what you want to see:

       #define CPROF_IMPLEMENTATION     CPROF_BEGIN("evm.folded");
       #include "cprof.h"               replay_blocks(1000, 2000);
                                        CPROF_END();

     Build optimised as you ship it, on Linux with -pthread; no other flag is needed. Then

       tools/flamegraph.py evm.folded -o evm.svg

     and open evm.svg in a browser. Threads need not register, and may come and go.

   PLATFORMS

     C99 and later, or C++11 and later.
     Linux x86-64, gcc and clang: run and tested. Kernel 4.14 or newer; from 6.12 on the sampler is
     also on time when every core is busy.
     Windows x64, MinGW gcc and clang (names from DWARF or PDB): run and tested under Wine 8 only,
     never on Windows itself. Microsoft's compiler, Windows on ARM64 and 32-bit x86: compiled by
     other compilers for these targets, not run.
     Linux AArch64, gcc and clang: run and tested under qemu-user 7.2 only, never on a processor.
     Linux 32-bit x86, gcc and glibc: C programs run. musl: x86-64, static and dynamic, run.
     Linux 32-bit ARM (ARM and Thumb-2 code, hard float), gcc and glibc: C programs run under
     qemu-user 7.2 only. Unwound by reading the code, without tables: callers of a function that
     never returns, and of few others, are [truncated].
     macOS x86-64 and ARM64: compiled and linked by zig cc, never run there. On Linux what reads its
     symbols and unwind tables is tested, and the x86-64 code run over an imitation of the system.
     FreeBSD x86-64 and ARM64: compiled and linked by zig cc, never run.
     Everything else: an #error, unless CPROF_DISABLE is defined.

   LINK FLAGS

     Linux, FreeBSD: -pthread; Windows, macOS: none. No -ldl, no -rdynamic, no dbghelp.lib: what
     is needed is loaded when it is. Compile with -g (cl: /Zi, link: /DEBUG) at any optimisation
     level to see inlined functions and, with CPROF_LINES=1, lines; without, functions are those of
     the symbol table. A stripped program needs its separate debug file (build id or
     .gnu_debuglink), or shows what its dynamic symbols tell and [program+0xoffset] for the rest.

   MACROS THAT CHANGE THE BUILD

     CPROF_IMPLEMENTATION  in one source file, before the #include: the code itself.
     CPROF_AUTOSTART       beside CPROF_IMPLEMENTATION: the environment may start a profile before
                           main, without a call in the program: CPROF_AUTOSTART=1 profiles until
                           exit, CPROF_SIGNAL=USR2 (POSIX) from one such signal to the next, into
                           CPROF_OUTPUT or cprof.%p.%n.folded.
     CPROF_DISABLE         everywhere: the macros below vanish, the functions become empty inline
                           ones that return CPROF_OK, and no code or symbol is left.

     On Linux the implementation needs _GNU_SOURCE. It defines it itself if it is included before
     any system header, and stops with an #error that says so if it came too late.

   ENVIRONMENT

     CPROF_HZ=1000         overrides the rate      CPROF_OUTPUT=file  ... the output file
     CPROF_CLOCK=cpu|wall  ... the clock           CPROF_ENABLE=0     start and stop do nothing
     CPROF_LINES=1         names with file:line    CPROF_DEBUG_DIR=d  ... the place of debug files
     CPROF_SECONDS=60      ... max_seconds         CPROF_THREADS=list  ... threads
     CPROF_CUT_ABOVE=main  ... cut_above

   HOW IT WORKS

     One sampler thread wakes up at instants that are independent of the program: every 1/hz
     seconds, give or take a quarter. It reads the CPU clocks of all threads. A thread whose clock
     moves between two readings is on a CPU this very moment; it gets a signal (SIGURG, which by
     default is ignored, so that a stray one kills nobody), and its handler unwinds its own stack
     into a slot. A thread that sleeps is left alone. On Windows, a thread that has run since the
     last look, on macOS one that runs, is suspended, its registers and stack are copied, and it
     goes on; the copy is unwound afterwards. Found in a system call it was asleep, or the kernel
     worked for it; those samples count as far as the system charges it with kernel time.

     A sample weighs half the time since the last look and half the time until the next. At the end
     each thread's samples are scaled to the CPU time that the system counted for it, so the sum is
     right at any rate, and what no sample covers is shown as [cprof];[unsampled].

     Frames are found by the tables that every compiler emits for exceptions and debuggers
     (.eh_frame, .pdata); frame pointers are the fall-back. On Linux the rules are cached, so a
     frame costs a few nanoseconds.

     When the profile is written, each address is looked up once: the symbol table names the
     function that holds it, the DWARF what was inlined there. A unit of the DWARF is read at most
     once for all its addresses, and nothing else is kept: memory is that of the largest unit.

   WHAT THE OUTPUT SAYS

     thread;root;...;leaf COUNT      one line a stack; COUNT is in periods of 1/hz seconds
     [truncated]                     right after the thread: callers beyond max_depth, or beyond
                                     code that could not be unwound, are missing
     [program+0x1234]                no symbol there: the function (or address) at this offset
     [jit]                           code made at run time that is not in /tmp/perf-PID.map
     [scope table full]              a scope whose name found no room
     [cprof];[lost]                  time of samples that found the table full: raise max_stacks
     [cprof];[unsampled]             CPU time of the process that no sample covers: threads too
                                     short-lived to be met, and threads that block the signal

     Stacks of threads of one name are added up. Unnamed threads have the program's name.

     That is the folded file. The ending of the output's name chooses among these:

     evm.folded, and all others      for tools/flamegraph.py, flamegraph.pl, inferno, speedscope
     evm.pb, evm.pb.gz               profile.proto, for `go tool pprof` and what else reads that:
                                     samples and nanoseconds, addresses, inlined functions, lines,
                                     labels thread, thread_id, scope (-tags, -tagfocus, -tagroot)
     evm.perf.txt                    the text of `perf script`, for speedscope, Firefox Profiler,
                                     stackcollapse-perf.pl; .perf.data.txt is what PerfView opens

     All say the same of the same profile; cprof_write writes several, if wanted, after cprof_stop.
     In the text of perf script each thread is apart and each period an event, so it is 30 to 100
     times as large. Its times only number the events: views over time show nothing real. speedscope
     takes weights from them, and so shows of each thread's first and last event one half; of a .pb
     it shows no inlined functions.

   SIGNALS AND THREADS

     - Windows, macOS: a thread is stopped for some microseconds a sample (cprof_stats:
       suspended_ns); no lock is taken meanwhile. The sampler's thread is called cprof.
     - Windows: begin outside of DllMain (it returns CPROF_ERROR_SYSTEM there). A DLL with the
       implementation in it stays loaded while it samples, whatever FreeLibrary is told.
     - Windows: exit writes a profile that was not stopped; ExitProcess, which Rust's process::exit
       calls, and the end of the process in a DLL do not: stop before.
     - Windows: DbgHelp, which reads PDBs, serves one thread at a time. If the host uses it too,
       give desc.dbghelp_lock.
     - Linux: the handler runs with SA_RESTART and SA_ONSTACK, takes no lock, allocates nothing,
       leaves errno alone and needs at most 1.5 KB of stack besides the kernel's signal frame.
     - A handler that the host has installed for the signal before start still gets the signals that
       others send, and is put back at stop. A handler installed while a profile is being taken
       takes the samples away; the end line says so by what is unsampled.
     - A thread that blocks the signal (or uses sigfillset for its mask) gives no samples while it
       does. Its CPU time is reported as unsampled, and the end line names it.
     - Between look and signal lie a few microseconds. A thread that goes to sleep just then is
       woken; system calls that SA_RESTART does not restart (nanosleep, poll, epoll_wait) then
       return EINTR, as with any profiler that uses signals, only much more rarely. Threads that
       stay asleep are never disturbed.
     - fork: the child is not profiled, and may begin a profile of its own. exec: nothing is left
       armed. exit in the middle of a profile writes it, or (not on Windows) waits up to 30
       seconds for another thread that does.
     - Functions may be called from any thread, not from signal handlers.

   COSTS

     Measured on virtual machines with two cores; `make bench` measures anew. At 1000 Hz, stacks 30
     deep: 4 to 8% of one core in all, most of it to wake the sampler and to interrupt the thread;
     unwinding adds little to what an empty signal costs. At 100 Hz a look finds cold caches: 0.5 to
     1.5% of one core. Memory: about 80 MB of address space, of which some hundred KB are touched,
     more as stacks arrive; and a copy of the unwind tables of each shared object.

   LIMITS

     - On Linux other processors than x86, AArch64 and 32-bit ARM are not there yet.
     - Linux on 32-bit x86: files of 2 GB and more are not read for names, PLT entries have none.
     - Linux on AArch64: by the wall clock, a thread that sleeps in a function which has not saved
       its return address is asked by the signal, as is every thread under an emulator.
       Callers of a function whose frame depends on the size of SVE registers are [truncated].
     - Linux on 32-bit ARM: by the wall clock, threads that sleep are asked by the signal too. PLT
       entries have no names; callers of code made at run time are [truncated].
     - Windows, macOS: stacks of more than 256 KB are [truncated]; so is 32-bit code without frame
       pointers, and code made at run time without them.
     - macOS: inlined functions and lines need a dSYM (dsymutil), and are not read from the object
       files that the program was linked from.
     - Split DWARF (.dwo), supplementary (dwz) files, .gnu_debugdata and zstd-compressed sections
       are not read; the end of the profile says so.
     - C++ names need a C++ library in the process to be demangled; without one, those that DWARF
       knows are readable.
     - CPU time spent while a thread is on its way to sleep or being woken, a few microseconds each
       time, may be missed or be booked on the system call.
     - dlmopen'd name spaces are not seen.
     - Scopes belong to threads: those of coroutines that are switched inside one get mixed up.
     - Linux keeps 15 bytes of a thread's name.

   CONTENTS (search for two > and the name)

     platform   which system, compiler and processor this is
     base       atomics, bounds-checked bytes, memory straight from the system
     modules    what is loaded, and what was
     scopes     names that the program puts among the frames
     registers  what unwinding has to know of each processor
     unwind     from registers to a stack
     ahead      code without tables, read on to its return
     seh        the same by the tables of Windows programs
     compact    and of macOS programs
     files      where the bytes of an image come from
     elf        symbols of Linux programs
     lines      the source line of an address
     dwarf      functions, and what was inlined into them
     debug      compressed sections, separate debug files
     pe         symbols of Windows programs
     macho      symbols of macOS programs
     demangle   names that people can read
     symbols    names for addresses
     table      the fixed-size stack table
     os         what each system keeps
     sampler    who is looked at, when, and what a look weighs
     stats      what it all adds up to
     writers    from the table to a profile
     posix      files, the life of the process
     images     ELF images in memory
     signals    the handler that captures
     linux      threads, clocks, signals, sleeping
     freebsd    threads, clocks, signals, sleeping
     macos      threads, clocks, suspending, images
     windows    threads, clocks, suspending, files
     api        the public functions

   LICENCE: MIT, see the end of this file. */

#if defined(CPROF_IMPLEMENTATION) && !defined(CPROF_DISABLE) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif

#ifndef CPROF_H
#define CPROF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CPROF_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/* What every call that can fail returns; CPROF_OK is zero. */
typedef enum cprof_result {
    CPROF_OK = 0,
    CPROF_ERROR_ARGUMENT,    /* a desc field or argument is out of its range */
    CPROF_ERROR_RUNNING,     /* start: a profile is being taken already; it goes on */
    CPROF_ERROR_NOT_RUNNING, /* stop, pause, resume, reset, rotate: nothing is being profiled */
    CPROF_ERROR_NO_PROFILE,  /* write: nothing was profiled yet */
    CPROF_ERROR_MEMORY,      /* the system gave no memory */
    CPROF_ERROR_THREAD,      /* the system gave no thread for the sampler */
    CPROF_ERROR_SIGNAL,      /* the signal cannot be used for sampling */
    CPROF_ERROR_SYSTEM,      /* the system lacks what sampling needs, e.g. /proc is not mounted */
    CPROF_ERROR_OUTPUT,      /* the output cannot be written; an older file there is unharmed */
    CPROF_ERROR_WRITE        /* the caller's write function refused data */
} cprof_result;

/* What a sample stands for. */
typedef enum cprof_clock {
    CPROF_CPU = 0, /* time on a CPU; threads that sleep get no samples and are never disturbed */
    CPROF_WALL     /* elapsed time, asleep or not */
} cprof_clock;

/* How a profile is written. */
typedef enum cprof_format {
    CPROF_AUTO = 0,   /* by the ending of the file's name; FOLDED if it is none of these */
    CPROF_FOLDED,     /* one line a stack: thread;root;...;leaf COUNT, COUNT in sampling periods */
    CPROF_PPROF,      /* .pb: profile.proto, as `go tool pprof` and others read it */
    CPROF_PPROF_GZ,   /* .pb.gz: the same in gzip's format, for readers that insist; not smaller */
    CPROF_PERF_SCRIPT /* .perf.txt, .perf.data.txt: what `perf script` prints; one event a period */
} cprof_format;

/* How to profile. Zero-initialise, then set what you want: zero means the default. */
typedef struct cprof_desc {
    int hz;                  /* samples per second of CPU time and thread: 1..10000; default 100 */
    cprof_clock clock;       /* default CPROF_CPU */
    int max_depth;           /* frames kept a stack, from the leaf: 1..4096; default 128 */
    int max_stacks;          /* distinct stacks kept: 1..4194304; default 16384. Address space for
                                max_stacks * (max_depth + 6) * 8 bytes is reserved at start;
                                memory is used as stacks arrive */
    const char *output;      /* file that cprof_stop writes; default NULL: none. %p in it becomes
                                the process id, %t the time (UTC, 20261126-221501), %n the number
                                of such a file in the process (1, 2, ...), %% a percent sign */
    cprof_format format;     /* of `output`; default CPROF_AUTO */
    int signal;              /* POSIX: signal that carries the samples; default SIGURG */
    int max_sampler_percent; /* of one core that the sampler thread may use, threads that it stops
                                (Windows) counted in, before it lowers the rate: 1..100;
                                default 25 */
    int max_seconds;         /* after so much time, pauses not counted, sampling pauses by itself
                                until cprof_resume or cprof_stop; default 0: no limit */
    bool lines;              /* names are followed by the place in the source: step (vm.c:12), or
                                step (vm.c) for code that the compiler assigns to no line */
    const char *debug_dir;   /* where separate debug files may be, besides the usual places: a
                                directory, or several with ':' between (';' on Windows) */
    /* What of it is written. All threads are sampled, and in the stats, all the same. */
    const char *threads;     /* only those whose names match: patterns with * and ?, separated by
                                commas, a ! before those that are not wanted: "worker*,!worker-9".
                                The name counts that a thread has when the profile is written */
    bool (*thread_wanted)(void *user, const char *name, uint32_t tid); /* or by a function, which */
    void *thread_user;                                                 /* may not call cprof */
    const char *cut_above;   /* functions, separated by ';': frames between the root and the first
                                of them are left out, such as the start of the C library */
    bool merge_threads;      /* folded: lines do not begin with the thread's name */
    void (*dbghelp_lock)(bool lock); /* Windows: called around each use of DbgHelp, which only one
                                thread at a time may use: takes the lock of a host that uses it
                                too. Rust's standard library need not be told */
    bool quiet;              /* nothing on stderr from cprof_stop */
} cprof_desc;

/* What was measured. Times in nanoseconds. Current while running, final after cprof_stop, and kept
   until the next start. */
typedef struct cprof_stats {
    uint64_t samples;         /* stacks captured */
    uint64_t weight_ns;       /* CPU (or wall) time that they stand for, after scaling */
    uint64_t unsampled_ns;    /* CPU time of the process, less the sampler's, without a sample */
    uint64_t blocked_ns;      /* part of it: threads that did not answer the signal */
    uint64_t lost;            /* samples that found the table full; shown as [cprof];[lost] */
    uint64_t truncated;       /* samples whose root side is missing; shown as [truncated] */
    uint64_t unanswered;      /* requests for a sample that no thread answered */
    uint64_t discarded;       /* samples of threads that turned out to be asleep */
    uint64_t threads_seen;
    uint64_t blocked_threads; /* threads that did not answer the signal at least once */
    uint64_t unique_stacks;   /* entries of the table in use */
    uint64_t scopes_excess;   /* scopes opened when 64 were open in their thread: not shown */
    uint64_t scopes_unnamed;  /* names of scopes for which there was no room: [scope table full] */
    uint64_t poor_modules;    /* files whose names, inlined functions or lines could not all be
                                 read at the last write; cprof_stop says which and why */
    uint64_t ticks;           /* times the sampler looked */
    uint64_t late_ns;         /* how late it was on average */
    uint64_t late_max_ns;     /* and at worst */
    uint64_t duration_ns;     /* wall time profiled, pauses excluded */
    uint64_t cpu_ns;          /* CPU time of the process in it, the sampler included */
    uint64_t sampler_cpu_ns;  /* CPU time of the sampler thread */
    uint64_t suspensions;     /* Windows, macOS: times a thread was stopped to copy its stack, */
    uint64_t suspended_ns;    /* how long in all, */
    uint64_t suspended_max_ns; /* and at worst */
    double hz;                /* rate asked for */
    double hz_achieved;       /* looks at each thread / duration */
} cprof_stats;

/* A scope: a name among the frames of the thread that opened it. Yours to hand on, not to read. */
typedef struct cprof_scope {
    const char *volatile name; /* what the profile shows; NULL: nothing */
    uintptr_t sp, pc;          /* who opened it: the stack pointer, and where it was called */
    uint32_t *depth;           /* how many scopes its thread has open, */
    uint32_t index;            /* and its number among them */
} cprof_scope;

/* Receives a piece of a profile. Returns false to stop the writing (the disk is full, say). */
typedef bool (*cprof_write_fn)(void *user, const void *data, size_t size);

/* All functions may be called from any thread at any time, but not from signal handlers. In a
   forked child nothing is being profiled; it may start a profile of its own.

   cprof_start    begins to sample every thread of the process. NULL: all defaults. Errors:
                  ARGUMENT, RUNNING, MEMORY, THREAD, SIGNAL, SYSTEM, OUTPUT (desc->output cannot be
                  created: better now than after an hour). The environment overrides the desc (see
                  ENVIRONMENT above); with CPROF_ENABLE=0 start and stop do nothing and return
                  CPROF_OK.
   cprof_stop     ends it, writes desc.output and prints one line on stderr. Errors: NOT_RUNNING,
                  OUTPUT, MEMORY; the profile can still be written elsewhere by cprof_write.
   cprof_pause    no samples are taken and no time is counted until cprof_resume.
   cprof_reset    forgets what was sampled so far and goes on.
   cprof_write    writes what was sampled so far to a file, also while running: into a temporary
                  file beside it, which then replaces it whole. The path may have %p, %t and %n, as
                  desc.output. Errors: ARGUMENT, NO_PROFILE, MEMORY, OUTPUT.
   cprof_rotate   does that and forgets it in one step, so that no sample is lost or written twice:
                  for a file a minute. Where it fails nothing is forgotten, unless the disk becomes
                  full in the midst of it (OUTPUT). Errors: those of cprof_write, NOT_RUNNING.
   cprof_write_to does what cprof_write does, through a function. Errors: ARGUMENT, NO_PROFILE,
                  MEMORY, WRITE.
   cprof_toggle_on_signal (POSIX) lets others start a profile with this desc (NULL: all defaults)
                  by a signal, and stop and write it by the next. A thread waits for that. Errors:
                  ARGUMENT, RUNNING (it was called before), MEMORY, THREAD, SIGNAL.
   cprof_get_stats fills *stats; all zero before the first start.
   cprof_result_string is one English sentence, never NULL.
   cprof_thread_name names the calling thread for the system and the profile (Linux keeps 15
                  bytes).
   cprof_begin, cprof_end are what the macros call: start with an output file and stop, errors
                  reported on stderr.
   cprof_scope_begin opens a scope (see CPROF_SCOPE_BEGIN) in the function that calls it, which
                  must see to it that it is ended before it returns. Never NULL. 64 can be open in
                  a thread; further ones are counted, but not shown.
   cprof_scope_set gives it another name: one store.
   cprof_scope_end closes it, and those opened since. By the thread that opened it.
   cprof_intern   copies a name to where it stays for ever: for names made at run time. The same
                  name gives the same pointer. When 1 MB or 32,768 names are full, it returns
                  "[scope table full]". */
#ifdef CPROF_DISABLE
static inline cprof_result cprof_start(const cprof_desc *desc) {
    (void)desc;
    return CPROF_OK;
}
static inline cprof_result cprof_stop(void) { return CPROF_OK; }
static inline cprof_result cprof_pause(void) { return CPROF_OK; }
static inline cprof_result cprof_resume(void) { return CPROF_OK; }
static inline cprof_result cprof_reset(void) { return CPROF_OK; }
static inline cprof_result cprof_write(const char *path, cprof_format format) {
    (void)path, (void)format;
    return CPROF_OK;
}
static inline cprof_result cprof_rotate(const char *path, cprof_format format) {
    (void)path, (void)format;
    return CPROF_OK;
}
static inline cprof_result cprof_toggle_on_signal(int signal, const cprof_desc *desc) {
    (void)signal, (void)desc;
    return CPROF_OK;
}
static inline cprof_result cprof_write_to(cprof_write_fn write, void *user, cprof_format format) {
    (void)write, (void)user, (void)format;
    return CPROF_OK;
}
static inline void cprof_get_stats(cprof_stats *stats) {
    for (size_t i = 0; i < sizeof *stats; i++) ((unsigned char *)stats)[i] = 0;
}
static inline const char *cprof_result_string(cprof_result result) {
    (void)result;
    return "cprof is disabled";
}
static inline void cprof_thread_name(const char *name) { (void)name; }
static inline cprof_result cprof_begin(const char *path) {
    (void)path;
    return CPROF_OK;
}
static inline cprof_result cprof_end(void) { return CPROF_OK; }
static inline cprof_scope *cprof_scope_begin(const char *name) {
    (void)name;
    return NULL;
}
static inline void cprof_scope_end(cprof_scope *scope) { (void)scope; }
static inline const char *cprof_intern(const char *name) { return name; }
#else
cprof_result cprof_start(const cprof_desc *desc);
cprof_result cprof_stop(void);
cprof_result cprof_pause(void);
cprof_result cprof_resume(void);
cprof_result cprof_reset(void);
cprof_result cprof_write(const char *path, cprof_format format);
cprof_result cprof_rotate(const char *path, cprof_format format);
cprof_result cprof_toggle_on_signal(int signal, const cprof_desc *desc);
cprof_result cprof_write_to(cprof_write_fn write, void *user, cprof_format format);
void cprof_get_stats(cprof_stats *stats);
const char *cprof_result_string(cprof_result result);
void cprof_thread_name(const char *name);
cprof_result cprof_begin(const char *path);
cprof_result cprof_end(void);
cprof_scope *cprof_scope_begin(const char *name);
void cprof_scope_end(cprof_scope *scope);
const char *cprof_intern(const char *name);
#endif

/* A macro, as a function would show up in the profile. */
#ifdef CPROF_DISABLE
#define cprof_scope_set(scope, text) ((void)(scope), (void)(text))
#else
#define cprof_scope_set(scope, text) ((void)((scope)->name = (text)))
#endif

#ifdef __cplusplus
}

/* A scope that ends with the block, however that is left:
       cprof_scope_guard scope(cprof_scope_begin("block")); */
class cprof_scope_guard {
  public:
    explicit cprof_scope_guard(cprof_scope *opened) : scope(opened) {}
    ~cprof_scope_guard() { cprof_scope_end(scope); }
    void set(const char *name) { cprof_scope_set(scope, name); }

  private:
    cprof_scope_guard(const cprof_scope_guard &);
    cprof_scope_guard &operator=(const cprof_scope_guard &);
    cprof_scope *scope;
};
#endif

/* CPROF_BEGIN(path) ... CPROF_END() profile what lies between them, in every thread, and write
   `path`.
   CPROF_SCOPE_BEGIN(name) ... CPROF_SCOPE_END(), in one block, put the name between the frame of
   the function they are in and those of what it calls meanwhile, as if it were a function.
   CPROF_SCOPE_SET(name), in the same block or one inside it, replaces the name; that is one store,
   so an interpreter can do it for each instruction. Names must live as long as the profile: string
   literals, or what cprof_intern returns. A block that is left by longjmp or an exception need not
   end its scope: the next scope, and the profile, see by the stack that it is gone.
   With CPROF_DISABLE defined all of them vanish, arguments unevaluated. */
#ifdef CPROF_DISABLE
#define CPROF_BEGIN(path) ((void)0)
#define CPROF_END() ((void)0)
#define CPROF_THREAD_NAME(name) ((void)0)
#define CPROF_SCOPE_BEGIN(name) ((void)0)
#define CPROF_SCOPE_SET(name) ((void)0)
#define CPROF_SCOPE_END() ((void)0)
#else
#define CPROF_BEGIN(path) ((void)cprof_begin(path))
#define CPROF_END() ((void)cprof_end())
#define CPROF_THREAD_NAME(name) cprof_thread_name(name)
#define CPROF_SCOPE_BEGIN(name) \
    CPROF_SHADOWING(cprof_scope *const cprof_scope_here = cprof_scope_begin(name);) \
    (void)cprof_scope_here
#define CPROF_SCOPE_SET(name) cprof_scope_set(cprof_scope_here, name)
#define CPROF_SCOPE_END() cprof_scope_end(cprof_scope_here)
/* Blocks with scopes may be nested. */
#if defined(__GNUC__) || defined(__clang__)
#define CPROF_SHADOWING(declaration) \
    _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wshadow\"") declaration \
    _Pragma("GCC diagnostic pop")
#elif defined(_MSC_VER)
#define CPROF_SHADOWING(declaration) __pragma(warning(suppress : 4456)) declaration
#else
#define CPROF_SHADOWING(declaration) declaration
#endif
#endif

#endif /* CPROF_H */

#if defined(CPROF_IMPLEMENTATION) && !defined(CPROF_DISABLE)
#ifndef CPROF_IMPLEMENTED
#define CPROF_IMPLEMENTED

/* >>platform: which system, compiler and processor this is */
#if defined(__linux__)
#define CPROFI_LINUX 1
#define CPROFI_POSIX 1
#elif defined(__FreeBSD__)
#define CPROFI_FREEBSD 1
#define CPROFI_POSIX 1
#elif defined(__APPLE__)
#define CPROFI_MACOS 1
#define CPROFI_POSIX 1
#elif defined(_WIN32)
#define CPROFI_WINDOWS 1
#else
#error "cprof: for Linux, Windows, macOS and FreeBSD; build other programs with -DCPROF_DISABLE"
#endif

#if (defined(__x86_64__) && defined(__LP64__)) || (defined(_M_X64) && !defined(_M_ARM64EC))
#define CPROFI_X64 1
#elif defined(_WIN32) && defined(__x86_64__)
#define CPROFI_X64 1
#elif defined(__aarch64__) && defined(__LP64__) && !defined(__AARCH64EB__)
#define CPROFI_ARM64 1
#elif defined(_WIN32) && (defined(__aarch64__) || defined(_M_ARM64))
#define CPROFI_ARM64 1
#elif (defined(_WIN32) || defined(__linux__)) && (defined(__i386__) || defined(_M_IX86))
#define CPROFI_X86 1
#elif defined(__linux__) && defined(__arm__) && !defined(__ARMEB__)
#define CPROFI_ARM 1
#else
#error "cprof: this version does not know this processor; build with -DCPROF_DISABLE"
#endif

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef CPROFI_LINUX
#define CPROFI_GETENV secure_getenv
#define CPROFI_CFI 1 /* stacks are unwound by .eh_frame, in the signal handler */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#if defined(__GLIBC__) && !defined(__USE_GNU)
#error "cprof: include cprof.h before any system header, or compile with -D_GNU_SOURCE"
#endif
#define CPROFI_SYS_SIGPROCMASK SYS_rt_sigprocmask
#define CPROFI_SYSCALL_X64 "syscall"
#define CPROFI_SYSCALL_ARM64 "svc #0"
#endif /* CPROFI_LINUX */

#ifdef CPROFI_FREEBSD
#define CPROFI_GETENV(name) (issetugid() ? NULL : getenv(name))
#define CPROFI_CFI 1
#include <sys/param.h>
#include <sys/types.h>
#include <sys/umtx.h>
#include <sys/user.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <pthread_np.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysctl.h>
#include <sys/thr.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#define CPROFI_SYS_SIGPROCMASK SYS_sigprocmask
/* The kernel tells errors by the carry flag; here they are negative, as Linux has them. Also it
   returns a second value, in rdx or x1, and clears r8 to r10. */
#define CPROFI_SYSCALL_X64 "syscall\n\tjnc 1f\n\tneg %%rax\n1:"
#define CPROFI_SYSCALL_ARM64 "svc #0\n\tb.cc 1f\n\tneg x0, x0\n1:"
#endif /* CPROFI_FREEBSD */

#ifdef CPROFI_MACOS
#define CPROFI_GETENV(name) (issetugid() ? NULL : getenv(name))
#define CPROFI_SUSPENDS 1 /* threads are stopped, stacks are copied, and unwound afterwards */
#include <dlfcn.h>
#include <fcntl.h>
#include <libproc.h>
#include <mach-o/loader.h>
#include <mach/mach.h>
#include <mach/mach_time.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#endif /* CPROFI_MACOS */

#ifdef CPROFI_WINDOWS
#define CPROFI_SUSPENDS 1 /* threads are stopped, stacks are copied, and unwound afterwards */
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#include <dbghelp.h>
#include <intrin.h>
#include <tlhelp32.h>
#endif /* CPROFI_WINDOWS */

#if defined(__GNUC__) || defined(__clang__)
#define CPROFI_GNU 1
#else
#pragma warning(push)
/* Initial values that are not constants, or addresses of locals: C since 1999, but to /W4. */
#pragma warning(disable : 4204 4221)
#endif

/* ---------------------------------------------------------------------------------------------- */
/* >>base: atomics, bounds-checked bytes, memory straight from the system

   All the rest stands on these few things. While sampling, memory comes from the system, never from
   malloc: the profiled program's heap may be locked, broken or the thing under study.
   Bytes that come from files or from other people's memory are read through cprofi_bytes only:
   every read is checked, a read past the end yields zero and sets `bad` for good, so a parser may
   read a whole record and test once. */

#define CPROFI_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* What differs between compilers. Loads acquire and stores release, unless the name says that they
   are sequentially consistent, as all of those of pointers are. C99 and C++11 have no common
   atomics, compilers do. */
#ifdef CPROFI_GNU
#define CPROFI_UNUSED __attribute__((unused))
#define CPROFI_NOINLINE __attribute__((noinline))
/* Of the function this is in: its caller's stack pointer at the call, and the place of the call. */
#define CPROFI_CALLER_SP() ((uintptr_t)__builtin_dwarf_cfa())
#define CPROFI_CALLER_PC() ((uintptr_t)__builtin_return_address(0) - 1)
#if defined(__MINGW32__) && !defined(__clang__)
#define CPROFI_PRINTF(at, first) __attribute__((format(gnu_printf, at, first)))
#else
#define CPROFI_PRINTF(at, first) __attribute__((format(printf, at, first)))
#endif
/* [signal] */
static inline uint32_t cprofi_load32(const uint32_t *p) {
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
/* [signal] */
static inline void cprofi_store32(uint32_t *p, uint32_t v) {
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}
/* [signal] */
static inline uint32_t cprofi_load32_seq(const uint32_t *p) {
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
/* [signal] */
static inline void cprofi_store32_seq(uint32_t *p, uint32_t v) {
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);
}
static inline void cprofi_add32(uint32_t *p, uint32_t v) {
    __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}
/* True when *p was `expected` and now is `wanted`. [signal] */
static inline bool cprofi_cas32(uint32_t *p, uint32_t expected, uint32_t wanted) {
    return __atomic_compare_exchange_n(p, &expected, wanted, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}
#define cprofi_load_pointer(type, p) ((type)__atomic_load_n((p), __ATOMIC_SEQ_CST))
#define cprofi_store_pointer(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
/* True when *p was NULL and now is `v`; else `none`, which was NULL, is what *p is. */
#define cprofi_set_pointer(p, v, none) \
    __atomic_compare_exchange_n((p), &(none), (v), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
#else /* the Microsoft compiler */
#define CPROFI_UNUSED inline /* such functions are not warned of */
#define CPROFI_NOINLINE __declspec(noinline)
#if defined(_M_ARM64)
#define CPROFI_CALLER_SP() ((uintptr_t)_AddressOfReturnAddress())
#else
#define CPROFI_CALLER_SP() ((uintptr_t)_AddressOfReturnAddress() + sizeof(void *))
#endif
#define CPROFI_CALLER_PC() ((uintptr_t)_ReturnAddress() - 1)
#define CPROFI_PRINTF(at, first)
/* [signal] */
static inline uint32_t cprofi_load32_seq(const uint32_t *p) {
    return (uint32_t)InterlockedCompareExchange((volatile LONG *)(uint32_t *)p, 0, 0);
}
/* [signal] */
static inline void cprofi_store32_seq(uint32_t *p, uint32_t v) {
    InterlockedExchange((volatile LONG *)p, (LONG)v);
}
/* [signal] */
static inline uint32_t cprofi_load32(const uint32_t *p) { return cprofi_load32_seq(p); }
/* [signal] */
static inline void cprofi_store32(uint32_t *p, uint32_t v) { cprofi_store32_seq(p, v); }
static inline void cprofi_add32(uint32_t *p, uint32_t v) {
    InterlockedExchangeAdd((volatile LONG *)p, (LONG)v);
}
/* [signal] */
static inline bool cprofi_cas32(uint32_t *p, uint32_t expected, uint32_t wanted) {
    return InterlockedCompareExchange((volatile LONG *)p, (LONG)wanted, (LONG)expected) ==
           (LONG)expected;
}
#define cprofi_load_pointer(type, p) \
    ((type)InterlockedCompareExchangePointer((PVOID volatile *)(void *)(p), NULL, NULL))
#define cprofi_store_pointer(p, v) \
    InterlockedExchangePointer((PVOID volatile *)(void *)(p), (void *)(v))
#define cprofi_set_pointer(p, v, none) \
    (*(void **)(void *)&(none) = \
         InterlockedCompareExchangePointer((PVOID volatile *)(void *)(p), (v), NULL), \
     (none) == NULL)
#endif

/* What each system implements: `size` zeroed bytes in whole pages, or NULL. Pages cost memory only
   once they are touched, and a forked child does not inherit them. */
static void *cprofi_pages(size_t size);
static void cprofi_pages_free(void *p, size_t size);

/* A piece of memory that belongs to somebody else. */
typedef struct {
    const uint8_t *data;
    size_t size;
} cprofi_span;

/* The part [offset, offset + size) of a span; empty when it does not lie inside. [signal] */
static inline cprofi_span cprofi_span_part(cprofi_span s, uint64_t offset, uint64_t size) {
    cprofi_span part = {NULL, 0};
    if (offset <= s.size && size <= s.size - offset) {
        part.data = s.data + (size_t)offset;
        part.size = (size_t)size;
    }
    return part;
}

/* A reading position in a span. */
typedef struct {
    const uint8_t *at, *end;
    bool bad; /* something was read past the end; stays set */
} cprofi_bytes;

/* [signal] */
static inline cprofi_bytes cprofi_bytes_of(cprofi_span s) {
    static const uint8_t none = 0; /* C does not allow NULL + 0 */
    cprofi_bytes b = {s.data ? s.data : &none, NULL, false};
    b.end = b.at + s.size;
    return b;
}

/* [signal] */
static inline size_t cprofi_left(const cprofi_bytes *b) { return (size_t)(b->end - b->at); }

/* [signal] */
static inline void cprofi_skip(cprofi_bytes *b, uint64_t n) {
    if (n > cprofi_left(b)) {
        b->bad = true;
        b->at = b->end;
    } else {
        b->at += (size_t)n;
    }
}

/* Little-endian unsigned integer of `n` (1 to 8) bytes. [signal] */
static inline uint64_t cprofi_uint(cprofi_bytes *b, size_t n) {
    uint64_t v = 0;
    if (n > cprofi_left(b)) {
        b->bad = true;
        b->at = b->end;
        return 0;
    }
    for (size_t i = 0; i < n; i++) v |= (uint64_t)b->at[i] << (8 * i);
    b->at += n;
    return v;
}

/* [signal] */
static inline uint8_t cprofi_u8(cprofi_bytes *b) { return (uint8_t)cprofi_uint(b, 1); }
/* [signal] */
static inline uint16_t cprofi_u16(cprofi_bytes *b) { return (uint16_t)cprofi_uint(b, 2); }
/* [signal] */
static inline uint32_t cprofi_u32(cprofi_bytes *b) { return (uint32_t)cprofi_uint(b, 4); }
/* [signal] */
static inline uint64_t cprofi_u64(cprofi_bytes *b) { return cprofi_uint(b, 8); }

/* LEB128 (DWARF 5, 7.6). Bits beyond the 64th are dropped. [signal] */
static inline uint64_t cprofi_uleb(cprofi_bytes *b) {
    uint64_t v = 0;
    for (unsigned shift = 0;; shift += 7) {
        uint8_t octet = cprofi_u8(b);
        if (shift < 64) v |= (uint64_t)(octet & 0x7f) << shift;
        if (!(octet & 0x80)) return v; /* a read past the end yields 0 and ends the loop */
    }
}

/* [signal] */
static inline int64_t cprofi_sleb(cprofi_bytes *b) {
    uint64_t v = 0;
    for (unsigned shift = 0;;) {
        uint8_t octet = cprofi_u8(b);
        if (shift < 64) v |= (uint64_t)(octet & 0x7f) << shift;
        shift += 7;
        if (octet & 0x80) continue;
        if ((octet & 0x40) && shift < 64) v |= ~(uint64_t)0 << shift;
        return (int64_t)v;
    }
}

/* The zero-terminated string at the reading position, "" when it does not end inside. [signal] */
static inline const char *cprofi_string(cprofi_bytes *b) {
    const uint8_t *start = b->at;
    while (b->at < b->end)
        if (!*b->at++) return (const char *)start;
    b->bad = true;
    return "";
}

/* ---------------------------------------------------------------------------------------------- */
/* >>modules: what is loaded, and what was

   Problem: three parties look at the same list. The sampler thread keeps it up to date, the signal
   handlers of many threads search it at any instant, and the symbolizer asks, after the run, what
   was loaded where back then. A handler may neither wait for the loader's lock nor touch memory
   that dlclose can unmap, and an address must never resolve to code that was loaded later.

   Idea: a record per image that stays for ever (symbolization), and an immutable index sorted by
   address, replaced as a whole when the loader's counters move (handlers). What handlers read about
   one image, its unwind tables, is copied inside dl_iterate_phdr's callback, where the loader's
   lock keeps the image mapped; only the main program and the vdso, which cannot be unmapped, are
   used in place. An image that comes back at the same place with the same identity revives its
   record, so that a dlopen/dlclose storm does not grow memory.

   Invariant (who frees what, when): a handler announces itself with a sequentially consistent store
   to its slot and only then loads `index`. The sampler replaces `index`, then looks at all slots,
   all sequentially consistent. If it finds a slot idle, that handler's next announcement, and so
   its next load, comes after the replacement and yields the new index. Hence: refresh, look at
   every slot, and if each was idle at some time since, call cprofi_modules_quiescent, which frees
   all that was retired; no refresh may come between the looking and that call.

   Cost: an unchanged list is one callback, about 100 ns. A change costs a copy of .eh_frame.
   Not handled: other dlmopen namespaces (dl_iterate_phdr does not show them). */

enum {
    CPROFI_BUILD_ID_MAX = 32,
    CPROFI_MODULE_CODE = 4 /* executable segments told apart per image; usually there is one */
};

/* One executable image in the address space. Lives for ever once registered: a sample may refer to
   it long after the image was unloaded. Index 0 of the registry means "no module". */
typedef struct cprofi_module {
    uintptr_t lo, hi;    /* run-time addresses, first byte and one past the last loaded byte */
    uintptr_t slide;     /* run-time address minus virtual address in the file */
    uint32_t loaded;     /* 1 while it is in the address space */
    bool is_main;        /* the program itself */
    uint32_t build_id_size;
    uint8_t build_id[CPROFI_BUILD_ID_MAX]; /* Windows: GUID and age of the PDB */
    uint32_t stamp;      /* Windows: the header's TimeDateStamp */
    uint32_t code_count; /* ELF: its executable segments, */
    uintptr_t code_lo[CPROFI_MODULE_CODE], code_hi[CPROFI_MODULE_CODE];
    uint64_t code_offset[CPROFI_MODULE_CODE]; /* and where in the file they begin */
    const char *path;    /* file to read symbols from; "" if there is none (vdso) */
    const char *name;    /* what users call it: last part of the path, or "[vdso]" */
    cprofi_span image;   /* the whole ELF image in memory, for the vdso; else empty */
    /* the registry's own: */
    struct cprofi_tables *tables; /* what handlers unwind with while it is loaded */
    uint64_t identity;       /* hash of what makes an image the same one when it comes back */
    uint32_t next_same_hash, next_loaded, seen;
} cprofi_module;

enum {
    CPROFI_MODULES_MAX = 65535,
    CPROFI_MODULES_HASH = 1024,
    CPROFI_TABLES_CODE = CPROFI_MODULE_CODE,
    CPROFI_ARENA_BLOCK = 65536
};

/* Memory that handlers may still be reading, waiting for quiescence. Heads its own block. */
typedef struct cprofi_retired {
    struct cprofi_retired *next;
    size_t size; /* of the whole block */
} cprofi_retired;

/* What handlers read about one image. Never changes between publication and retirement. */
typedef struct cprofi_tables {
    cprofi_retired block; /* must be first */
    cprofi_span hdr, frame;                 /* .eh_frame_hdr and .eh_frame: copies or originals */
    uintptr_t hdr_address, frame_address;   /* where the originals are, for relative pointers */
    const uint8_t *search; /* sorted table of .eh_frame_hdr, NULL: walk .eh_frame instead */
    size_t search_count;
    uintptr_t code_lo[CPROFI_TABLES_CODE], code_hi[CPROFI_TABLES_CODE];
    size_t code_count;
    /* Windows: */
    uintptr_t base;           /* where the image is */
    cprofi_span pdata, infos; /* the table of functions; the part with unwind infos, */
    uint32_t infos_rva;       /* and where that is in the image */
    /* macOS: the base and, as pdata, __unwind_info; */
    cprofi_span distances; /* between functions, empty when `starts` are known, */
    const uint32_t *starts; /* and where these begin */
    size_t start_count;
} cprofi_tables;

typedef struct {
    uintptr_t lo, hi; /* one executable segment */
    const cprofi_tables *tables;
    uint32_t id;
} cprofi_module_range;

typedef struct {
    cprofi_retired block; /* must be first */
    size_t count;
    uint32_t epoch;
    cprofi_module_range *ranges; /* sorted, disjoint; behind this header */
} cprofi_module_index;

/* Zeroed, then cprofi_modules_init. Everything but `index` belongs to the sampler thread. */
typedef struct {
    cprofi_module_index *index; /* read by handlers */
    cprofi_module *records;     /* by id; records[0] is "no module" */
    uint32_t count;             /* ids in use, the 0 included */
    uint32_t epoch;             /* changes with every change of the list */
    uint32_t scan;              /* number of the current full scan */
    uint32_t first_loaded;      /* list through next_loaded, built by a scan */
    size_t code_ranges;         /* in that list */
    bool incomplete;            /* memory ran out, scan again */
    /* the system's own: what tells whether the list has changed */
    bool started;
    unsigned long long adds, subs;
    cprofi_retired *retired;
    char *arena;
    size_t arena_left;
    uint32_t hash[CPROFI_MODULES_HASH]; /* by lo: heads of lists through next_same_hash */
} cprofi_modules;

static bool cprofi_modules_init(cprofi_modules *m) {
    if (!m->records) {
        m->records =
            (cprofi_module *)cprofi_pages(sizeof(cprofi_module) * (CPROFI_MODULES_MAX + 1u));
        m->count = 1;
    }
    return m->records != NULL;
}

static void cprofi_modules_retire(cprofi_modules *m, cprofi_retired *block) {
    block->next = m->retired;
    m->retired = block;
}

/* Call when every slot was seen idle after the last refresh (see the invariant above). */
static void cprofi_modules_quiescent(cprofi_modules *m) {
    while (m->retired) {
        cprofi_retired *block = m->retired;
        m->retired = block->next;
        cprofi_pages_free(block, block->size);
    }
}

/* [signal] The executable segment that holds pc, or NULL. */
static const cprofi_module_range *cprofi_modules_range(const cprofi_module_index *index,
                                                       uintptr_t pc) {
    size_t lo = 0, hi = index ? index->count : 0;
    while (lo < hi) {
        size_t middle = lo + (hi - lo) / 2;
        if (index->ranges[middle].lo <= pc) lo = middle + 1;
        else hi = middle;
    }
    if (lo == 0 || pc >= index->ranges[lo - 1].hi) return NULL;
    return &index->ranges[lo - 1];
}

/* [signal] The id of the loaded module whose code holds pc, or 0. */
static uint32_t cprofi_modules_find(const cprofi_modules *m, uintptr_t pc) {
    const cprofi_module_index *index = cprofi_load_pointer(cprofi_module_index *, &m->index);
    const cprofi_module_range *range = cprofi_modules_range(index, pc);
    return range ? range->id : 0;
}

/* A copy of a + b in the arena that lives as long as the process; "" when memory ran out. */
static const char *cprofi_modules_string(cprofi_modules *m, const char *a, const char *b) {
    size_t na = strlen(a), nb = strlen(b), n = na + nb + 1;
    if (n > CPROFI_ARENA_BLOCK) return "";
    if (n > m->arena_left) {
        char *block = (char *)cprofi_pages(CPROFI_ARENA_BLOCK);
        if (!block) return "";
        m->arena = block;
        m->arena_left = CPROFI_ARENA_BLOCK;
    }
    char *text = m->arena;
    memcpy(text, a, na);
    memcpy(text + na, b, nb + 1);
    m->arena += n;
    m->arena_left -= n;
    return text;
}

static uint64_t cprofi_hash_bytes(uint64_t h, const void *data, size_t size) {
    const uint8_t *p = (const uint8_t *)data;
    for (size_t i = 0; i < size; i++) h = (h ^ p[i]) * 0x100000001b3u; /* FNV-1a */
    return h;
}

/* What each system implements: if the list of images may have changed, calls cprofi_modules_scan,
   and for each image cprofi_modules_record and, when it has its tables, cprofi_modules_present. */
static void cprofi_os_modules(cprofi_modules *m);

/* A new list begins. */
static void cprofi_modules_scan(cprofi_modules *m) {
    m->scan++;
    m->incomplete = false;
}

/* The record of the image of this identity at `lo`: a new one, to be filled in, has no path. NULL
   when the registry is full. */
static cprofi_module *cprofi_modules_record(cprofi_modules *m, uintptr_t lo, uint64_t identity) {
    uint32_t *head = &m->hash[(lo >> 12) % CPROFI_MODULES_HASH];
    cprofi_module *record;
    for (uint32_t id = *head; id; id = m->records[id].next_same_hash)
        if (m->records[id].lo == lo && m->records[id].identity == identity) return &m->records[id];
    if (m->count > CPROFI_MODULES_MAX) return NULL;
    record = &m->records[m->count];
    record->lo = lo;
    record->identity = identity;
    record->next_same_hash = *head;
    *head = m->count++;
    return record;
}

/* Puts an image on the current list. Without tables (memory ran out) it is tried again. */
static void cprofi_modules_present(cprofi_modules *m, cprofi_module *record) {
    if (!record->tables) {
        m->incomplete = true;
        return;
    }
    record->seen = m->scan;
    record->loaded = 1;
    record->next_loaded = m->first_loaded;
    m->first_loaded = (uint32_t)(record - m->records);
    m->code_ranges += record->tables->code_count;
}

/* The index over the list a scan built, or NULL when memory ran out. */
static cprofi_module_index *cprofi_modules_index(const cprofi_modules *m) {
    size_t size = sizeof(cprofi_module_index) + m->code_ranges * sizeof(cprofi_module_range);
    cprofi_module_index *index = (cprofi_module_index *)cprofi_pages(size);
    if (!index) return NULL;
    cprofi_module_range *ranges = (cprofi_module_range *)(void *)(index + 1);
    size_t n = 0;
    for (uint32_t id = m->first_loaded; id; id = m->records[id].next_loaded) {
        const cprofi_tables *t = m->records[id].tables;
        for (size_t i = 0; i < t->code_count; i++, n++) {
            ranges[n].lo = t->code_lo[i];
            ranges[n].hi = t->code_hi[i];
            ranges[n].tables = t;
            ranges[n].id = id;
        }
    }
    for (size_t gap = n / 2; gap; gap /= 2) { /* Shell sort: qsort may call malloc */
        for (size_t i = gap; i < n; i++) {
            cprofi_module_range moving = ranges[i];
            size_t j = i;
            for (; j >= gap && ranges[j - gap].lo > moving.lo; j -= gap)
                ranges[j] = ranges[j - gap];
            ranges[j] = moving;
        }
    }
    index->block.size = size;
    index->count = n;
    index->ranges = ranges;
    return index;
}

/* Brings the registry up to date; true when something changed. Sampler thread only. */
static bool cprofi_modules_refresh(cprofi_modules *m) {
    uint32_t scan = m->scan;
    m->first_loaded = 0;
    m->code_ranges = 0;
    cprofi_os_modules(m);
    if (m->scan == scan) return false;
    cprofi_module_index *old = m->index, *now = cprofi_modules_index(m);
    if (!now) {
        m->incomplete = true;
        return false;
    }
    now->epoch = ++m->epoch;
    cprofi_store_pointer(&m->index, now);
    if (!old) return true;
    for (size_t i = 0; i < old->count; i++) {
        cprofi_module *record = &m->records[old->ranges[i].id];
        if (record->seen == m->scan || !record->tables) continue;
        record->loaded = 0;
        cprofi_modules_retire(m, &record->tables->block);
        record->tables = NULL;
    }
    cprofi_modules_retire(m, &old->block);
    return true;
}

/* ---------------------------------------------------------------------------------------------- */
/* >>scopes: names that the program puts among the frames

   Problem: the stack of an interpreter says `interpret`, whatever the program is that it runs. So a
   function can open a scope: a name that belongs between its own frame and those of its callees.
   BEGIN and END are calls; SET, which may come with every instruction, is one store through the
   handle that BEGIN left, because even to look up a thread-local variable would be too dear.

   Idea: each thread that opens scopes has a fixed array of them, in memory that all threads' arrays
   share and that stays. A scope remembers its opener's stack pointer. While a stack is unwound,
   from the leaf to the root, a frame that spans [sp, cfa) is that of the opener if the remembered
   pointer is in it; the name comes right before that frame. What was inlined where the scope was
   opened or is now is told apart when names are known: see the writers.

       stack, growing down            scopes
       main          | cfa            0 "block 1001", opened by replay
       replay        | sp = cfa <---  1 "SLOAD", opened by interpret
       interpret     | <------------
       storage_get   |

   A block that is left without END (longjmp, an exception) leaves a scope behind whose opener's
   frame is gone: its pointer is below the stack pointer. The next BEGIN above it drops it, and so
   does one by the same call at the same place; the unwinder skips it. A pointer far away is that of
   another stack (a coroutine's): such a scope waits until the walk comes to its stack, and is put
   at the root if it does not.

   An array is its thread's until somebody needs it and that thread is no more; nothing has to
   happen at a thread's end. A scope costs some 5 ns to open and close.
   Not handled: coroutines that are switched inside a scope. A thread has one array, whichever of
   them it runs, so the scopes of two may be taken for each other's. */

enum {
    CPROFI_SCOPES = 64,         /* open at a time in a thread */
    CPROFI_SCOPE_THREADS = 4096, /* with scopes */
    CPROFI_SCOPE_REACH = 1 << 26, /* bytes; what is further away is on another stack */
    CPROFI_INTERNED = 32768,    /* names, */
    CPROFI_INTERNED_BYTES = 1 << 20
};

/* The scopes of one thread. */
typedef struct {
    uint32_t tid;    /* whose they are; 0: nobody's */
    uint32_t depth;  /* how many are open; only CPROFI_SCOPES have entries of their own */
    uint32_t excess; /* how many did not get one */
    cprof_scope scopes[CPROFI_SCOPES + 1]; /* the last is for all of those */
} cprofi_scopes;

/* A scope found on a stack: it stands before frame number `frame`, counted from the leaf. */
typedef struct {
    const char *name;
    uintptr_t pc;
    uint32_t frame;
} cprofi_scope_mark;

/* The scopes of a thread while its stack is unwound, from the innermost on. */
typedef struct {
    uintptr_t next; /* stack pointer of the next one; UINTPTR_MAX: there is none */
    const cprof_scope *scopes;
    uint32_t left; /* those that have no place yet: scopes[left - 1] is the next one */
    uint32_t count;
    cprofi_scope_mark *marks; /* CPROFI_SCOPES of them */
} cprofi_scope_walk;

/* All threads' scopes, and interned names. Not in the session: scopes may be opened before it, and
   they outlive it, and a fork. */
static struct {
    uint32_t lock;
    uint32_t version; /* changes when a thread gets scopes */
    uint32_t count;   /* arrays in use at some time */
    uint32_t key;     /* Windows: the thread-local slot + 1 */
    cprofi_scopes *threads;
    char *names; /* CPROFI_INTERNED_BYTES, then the index of 2 * CPROFI_INTERNED offsets + 1 */
    uint32_t name_count, names_used, names_refused;
} cprofi_scoped;

/* What each system implements. */
static cprofi_scopes *cprofi_os_scopes(void);
static void cprofi_os_scopes_set(cprofi_scopes *scopes);
static uint32_t cprofi_os_tid(void);
static bool cprofi_os_tid_gone(uint32_t tid);
static void *cprofi_os_common_pages(size_t size); /* a forked child has them too */
static void cprofi_os_nap(void);

static bool cprofi_scoped_ready(void); /* the hooks for fork are installed */

static void cprofi_scoped_lock(void) {
    while (!cprofi_cas32(&cprofi_scoped.lock, 0, 1)) cprofi_os_nap();
}

static void cprofi_scoped_unlock(void) { cprofi_store32(&cprofi_scoped.lock, 0u); }

/* An array for the calling thread, under the lock. NULL: there are too many threads. */
static cprofi_scopes *cprofi_scopes_find(uint32_t tid) {
    cprofi_scopes *all = cprofi_scoped.threads, *found = NULL;
    uint32_t count = cprofi_scoped.count;
    if (!all) {
        all = (cprofi_scopes *)cprofi_os_common_pages(CPROFI_SCOPE_THREADS * sizeof *all);
        if (!all) return NULL;
        cprofi_store_pointer(&cprofi_scoped.threads, all);
    }
    for (uint32_t i = 0; i < count; i++) { /* an ended thread may have had this id */
        if (all[i].tid == tid) return &all[i];
        if (!all[i].tid) found = &all[i];
    }
    if (found) return found;
    if (count < CPROFI_SCOPE_THREADS) {
        cprofi_store32(&cprofi_scoped.count, count + 1);
        return &all[count];
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!cprofi_os_tid_gone(all[i].tid)) continue;
        cprofi_store32(&all[i].tid, 0u);
        found = &all[i];
    }
    return found;
}

/* The calling thread's scopes, made at the first use; NULL if there is no room. */
static cprofi_scopes *cprofi_scopes_own(void) {
    cprofi_scopes *own = cprofi_os_scopes();
    uint32_t tid;
    if (own) return own;
    if (!cprofi_scoped_ready()) return NULL;
    tid = cprofi_os_tid();
    cprofi_scoped_lock();
    own = cprofi_scopes_find(tid);
    if (own) {
        own->depth = 0;
        for (uint32_t i = 0; i <= CPROFI_SCOPES; i++) {
            own->scopes[i].depth = &own->depth;
            own->scopes[i].index = i;
        }
        cprofi_store32(&own->tid, tid);
        cprofi_store32(&cprofi_scoped.version, cprofi_scoped.version + 1);
    }
    cprofi_scoped_unlock();
    if (own) cprofi_os_scopes_set(own);
    return own;
}

/* The scopes of a thread, or NULL. */
static const cprofi_scopes *cprofi_scopes_of(uint32_t tid) {
    const cprofi_scopes *all = cprofi_load_pointer(cprofi_scopes *, &cprofi_scoped.threads);
    for (uint32_t i = 0; all && i < cprofi_load32(&cprofi_scoped.count); i++)
        if (cprofi_load32(&all[i].tid) == tid) return &all[i];
    return NULL;
}

CPROFI_NOINLINE cprof_scope *cprof_scope_begin(const char *name) {
    static uint32_t none;
    static cprof_scope nowhere = {NULL, 0, 0, &none, CPROFI_SCOPES};
    uintptr_t sp = CPROFI_CALLER_SP(), pc = CPROFI_CALLER_PC();
    cprofi_scopes *own = cprofi_scopes_own();
    cprof_scope *scope;
    uint32_t n;
    if (!own) return &nowhere;
    n = own->depth < CPROFI_SCOPES ? own->depth : (uint32_t)CPROFI_SCOPES;
    while (n) {
        scope = &own->scopes[n - 1];
        if (!(scope->sp < sp && sp - scope->sp < CPROFI_SCOPE_REACH) &&
            !(scope->sp == sp && scope->pc == pc))
            break;
        n--; /* its opener's frame is gone */
    }
    if (n == CPROFI_SCOPES) {
        own->excess++;
        own->depth++;
        return &own->scopes[CPROFI_SCOPES];
    }
    cprofi_store32(&own->depth, n); /* what is looked at meanwhile must be whole */
    scope = &own->scopes[n];
    scope->name = name;
    scope->sp = sp;
    scope->pc = pc;
    cprofi_store32(&own->depth, n + 1);
    return scope;
}

void cprof_scope_end(cprof_scope *scope) {
    if (scope->index < CPROFI_SCOPES) {
        if (*scope->depth > scope->index) cprofi_store32(scope->depth, scope->index);
    } else if (*scope->depth > CPROFI_SCOPES) {
        cprofi_store32(scope->depth, *scope->depth - 1);
    }
}

const char *cprof_intern(const char *name) {
    const char *copy = "[scope table full]";
    size_t size = strlen(name) + 1;
    uint32_t hash = 2166136261u, *index;
    for (const char *p = name; *p; p++) hash = (hash ^ (unsigned char)*p) * 16777619u;
    cprofi_scoped_lock();
    if (!cprofi_scoped.names)
        cprofi_scoped.names = (char *)cprofi_os_common_pages(
            CPROFI_INTERNED_BYTES + 2 * CPROFI_INTERNED * sizeof(uint32_t));
    if (cprofi_scoped.names) {
        index = (uint32_t *)(void *)(cprofi_scoped.names + CPROFI_INTERNED_BYTES);
        for (hash %= 2 * CPROFI_INTERNED; index[hash]; hash = (hash + 1) % (2 * CPROFI_INTERNED)) {
            if (strcmp(cprofi_scoped.names + index[hash] - 1, name) != 0) continue;
            copy = cprofi_scoped.names + index[hash] - 1;
            break;
        }
        if (!index[hash] && cprofi_scoped.name_count < CPROFI_INTERNED &&
            size <= CPROFI_INTERNED_BYTES - cprofi_scoped.names_used) {
            copy = cprofi_scoped.names + cprofi_scoped.names_used;
            memcpy(cprofi_scoped.names + cprofi_scoped.names_used, name, size);
            index[hash] = cprofi_scoped.names_used + 1;
            cprofi_scoped.names_used += (uint32_t)size;
            cprofi_scoped.name_count++;
        } else if (!index[hash]) {
            cprofi_scoped.names_refused++;
        }
    }
    cprofi_scoped_unlock();
    return copy;
}

/* Begins a walk over a thread's scopes; NULL: it has none. [signal] */
static inline void cprofi_scopes_walk(cprofi_scope_walk *w, const cprofi_scopes *scopes,
                                      cprofi_scope_mark *marks) {
    uint32_t depth = scopes ? cprofi_load32(&scopes->depth) : 0;
    w->scopes = scopes ? scopes->scopes : NULL;
    w->left = depth < CPROFI_SCOPES ? depth : (uint32_t)CPROFI_SCOPES;
    w->next = w->left ? w->scopes[w->left - 1].sp : UINTPTR_MAX;
    w->count = 0;
    w->marks = marks;
}

/* The next scope stands before this frame. [signal] */
static void cprofi_scopes_mark(cprofi_scope_walk *w, uint32_t frame) {
    const cprof_scope *scope = &w->scopes[--w->left];
    cprofi_scope_mark *mark = &w->marks[w->count];
    mark->name = scope->name;
    mark->pc = scope->pc;
    mark->frame = frame;
    if (mark->name) w->count++;
}

/* Marks the scopes of the opener whose frame is [sp, cfa). For when w->next < cfa. [signal] */
static CPROFI_NOINLINE void cprofi_scopes_place(cprofi_scope_walk *w, uint32_t frame, uintptr_t sp,
                                                uintptr_t cfa) {
    while (w->left && w->scopes[w->left - 1].sp < cfa) {
        uintptr_t opened = w->scopes[w->left - 1].sp;
        if (opened >= sp)
            cprofi_scopes_mark(w, frame);
        else if (sp - opened < CPROFI_SCOPE_REACH)
            w->left--; /* left behind */
        else
            break; /* on another stack */
    }
    w->next = w->left ? w->scopes[w->left - 1].sp : UINTPTR_MAX;
    if (w->left && w->next < cfa) w->next = UINTPTR_MAX; /* until the walk ends or changes stacks */
}

/* Those that are left stand before the frames that were not reached. [signal] */
static void cprofi_scopes_rest(cprofi_scope_walk *w, uint32_t frame) {
    while (w->left) cprofi_scopes_mark(w, frame);
}

/* ---------------------------------------------------------------------------------------------- */
/* >>registers: what unwinding has to know of each processor

   The unwinder of the next section is one for all; here is what differs. Registers go by their
   numbers in DWARF (System V ABI, x86-64 supplement; "DWARF for the Arm 64-bit Architecture").

   x86-64: a call pushes the return address, so it is at CFA - 8, always.
   32-bit x86: the same at CFA - 4.
   ARM: a call puts it into r14. Bit 0 of it tells that the caller is Thumb code, and stays there:
   the unwinder marks all of its addresses so. Any address of an instruction, less one, lies in the
   instruction before; marked so, less two.
   AArch64: a call puts it into x30. A function that calls others saves that; in one that does not,
   and wherever a function may be stopped by a signal, it can still be there, or be there again.
   With pointer authentication it carries a signature in the bits that addresses do not use. That is
   taken off by a mask. The instruction for it (XPACLRI) knows how many bits addresses have here,
   but it takes and gives x30 only, and that many need not be known: code lies below 2^48, because
   Linux maps nothing higher unless it is asked for such an address. As every return address is
   masked, DW_CFA_AARCH64_negate_ra_state, which says where they are signed, needs no keeping.

   The stack pointer of a frame without tables: on x86-64 the frame pointer tells it, as the pair of
   frame pointer and return address is the frame's upper end. AArch64 has it at the lower end. */

#ifdef CPROFI_CFI
#if defined(CPROFI_X64)
enum {
    CPROFI_REGS = 17, /* 16 is the return address column, our pc */
    CPROFI_FP = 6,    /* rbp */
    CPROFI_SP = 7,
    CPROFI_PC = 16,
    CPROFI_RA = CPROFI_PC,     /* the column of the return address */
    CPROFI_CALL = 8,           /* bytes of stack that a call takes */
    CPROFI_KEPT = 6,           /* registers that the callee must preserve; in a rule each has */
    CPROFI_SAVED_BITS = 8,     /* so many bits, */
    CPROFI_SAVED_BASED = 0,    /* 1: counted from where the one nearest to the CFA is */
    CPROFI_PAIR_IS_TOP = 1,    /* see above */
    CPROFI_SIGNED = 0,         /* 1: return addresses may be */
    CPROFI_MODE = 0,           /* the bit of a code address that tells the instruction set */
    CPROFI_SYSCALL = 0x050f,   /* the instruction that enters the kernel, */
    CPROFI_SYSCALL_SIZE = 2    /* and its bytes */
};
#define CPROFI_CODE_END ((uintptr_t)1 << 47)
#define CPROFI_CODE(address) (address)

/* The order of a rule's registers. */
static const uint8_t cprofi_kept[CPROFI_KEPT] = {CPROFI_FP, 3, 12, 13, 14, 15};

/* The kernel's ucontext. */
enum {
#ifdef CPROFI_FREEBSD
    CPROFI_CONTEXT = 24,
    CPROFI_CONTEXT_AT_SP = 16, /* behind the handler's address */
    CPROFI_CONTEXT_CHECK = 20,
    CPROFI_CONTEXT_MASK = 0xffff,
    CPROFI_CONTEXT_GOOD = 0x43
#else
    CPROFI_CONTEXT = 40,       /* offset of the registers; */
    CPROFI_CONTEXT_AT_SP = 0,  /* and of the whole from SP, where a handler returns to; */
    CPROFI_CONTEXT_CHECK = 18, /* index of cs, gs, fs, */
    CPROFI_CONTEXT_MASK = 0xffff,
    CPROFI_CONTEXT_GOOD = 0x33 /* cs of 64-bit user code */
#endif
};

/* Where it has each register. Linux: r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip.
   FreeBSD: rdi, rsi, rdx, rcx, r8, r9, rax, rbx, rbp, r10 to r15, 4 others, rip, 2 others, rsp. */
static const uint8_t cprofi_context_index[CPROFI_REGS] = {
#ifdef CPROFI_FREEBSD
    6, 2, 3, 7, 1, 0, 8, 22, 4, 5, 9, 10, 11, 12, 13, 14, 19
#else
    13, 12, 14, 11, 9, 8, 10, 15, 0, 1, 2, 3, 4, 5, 6, 7, 16
#endif
};

/* A system call without errno: in a dlopened object the first touch of a thread-local allocates.
   [signal] */
static long cprofi_unwind_syscall(long number, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d,
                                  uintptr_t e, uintptr_t f) {
    long result;
    register uintptr_t r10 __asm__("r10") = d;
    register uintptr_t r8 __asm__("r8") = e;
    register uintptr_t r9 __asm__("r9") = f;
    __asm__ volatile(CPROFI_SYSCALL_X64
                     : "=a"(result), "+d"(c), "+r"(r10), "+r"(r8), "+r"(r9)
                     : "0"(number), "D"(a), "S"(b)
                     : "rcx", "r11", "memory", "cc");
    return result;
}
#elif defined(CPROFI_X86)
enum {
    CPROFI_REGS = 9,
    CPROFI_FP = 5,
    CPROFI_SP = 4,
    CPROFI_PC = 8,
    CPROFI_RA = CPROFI_PC,
    CPROFI_CALL = 4,
    CPROFI_KEPT = 4,
    CPROFI_SAVED_BITS = 8,
    CPROFI_SAVED_BASED = 0,
    CPROFI_PAIR_IS_TOP = 1,
    CPROFI_SIGNED = 0,
    CPROFI_MODE = 0,
    CPROFI_SYSCALL = 0x80cd, /* int $0x80 */
    CPROFI_SYSCALL_SIZE = 2,
    CPROFI_CONTEXT = 20,
    CPROFI_CONTEXT_AT_SP = 140, /* behind the handler's arguments and the siginfo */
    CPROFI_CONTEXT_CHECK = 15,  /* cs: */
    CPROFI_CONTEXT_MASK = 3,
    CPROFI_CONTEXT_GOOD = 3     /* of user code */
};
#define CPROFI_CODE_END ((uintptr_t)0xfffff000u)
#define CPROFI_CODE(address) (address)

/* gs, fs, es, ds, edi, esi, ebp, esp, ebx, edx, ecx, eax, two more, eip */
static const uint8_t cprofi_kept[CPROFI_KEPT] = {CPROFI_FP, 3, 6, 7};
static const uint8_t cprofi_context_index[CPROFI_REGS] = {11, 10, 9, 8, 7, 6, 5, 4, 14};

/* [signal] */
static long cprofi_unwind_syscall(long number, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d,
                                  uintptr_t e, uintptr_t f) {
    const uintptr_t all[7] = {(uintptr_t)number, a, b, c, d, e, f};
    long result;
    __asm__ volatile("pushl %%ebx\n\tpushl %%ebp\n\t" /* the compiler may not let go of these */
                     "movl 4(%%eax), %%ebx\n\tmovl 8(%%eax), %%ecx\n\tmovl 12(%%eax), %%edx\n\t"
                     "movl 16(%%eax), %%esi\n\tmovl 20(%%eax), %%edi\n\tmovl 24(%%eax), %%ebp\n\t"
                     "movl (%%eax), %%eax\n\tint $0x80\n\tpopl %%ebp\n\tpopl %%ebx"
                     : "=a"(result)
                     : "a"(all)
                     : "ecx", "edx", "esi", "edi", "memory");
    return result;
}
#elif defined(CPROFI_ARM64)
enum {
    CPROFI_REGS = 33, /* 32 is our pc */
    CPROFI_FP = 29,
    CPROFI_SP = 31,
    CPROFI_PC = 32,
    CPROFI_RA = 30,
    CPROFI_CALL = 0,
    CPROFI_KEPT = 12,
    CPROFI_SAVED_BITS = 5,
    CPROFI_SAVED_BASED = 1, /* below the locals */
    CPROFI_PAIR_IS_TOP = 0,
    CPROFI_SIGNED = 1,
    CPROFI_MODE = 0,
    CPROFI_SYSCALL_SIZE = 4,
#ifdef CPROFI_FREEBSD
    CPROFI_CONTEXT = 16,
    CPROFI_CONTEXT_AT_SP = 80,
#else
    CPROFI_CONTEXT = 184,
    CPROFI_CONTEXT_AT_SP = 128, /* behind the siginfo */
#endif
    CPROFI_CONTEXT_CHECK = 33,  /* pstate: */
    CPROFI_CONTEXT_MASK = 0x1f,
    CPROFI_CONTEXT_GOOD = 0     /* 64-bit, user */
};
#define CPROFI_SYSCALL 0xd4000001u /* svc #0 */
#define CPROFI_CODE_END ((uintptr_t)1 << 48)
#define CPROFI_CODE(address) ((address) & (CPROFI_CODE_END - 1))

static const uint8_t cprofi_kept[CPROFI_KEPT] = {CPROFI_FP, CPROFI_RA, 19, 20, 21, 22,
                                                 23,        24,        25, 26, 27, 28};
static const uint8_t cprofi_context_index[CPROFI_REGS] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16,
    17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32};

/* [signal] */
static long cprofi_unwind_syscall(long number, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d,
                                  uintptr_t e, uintptr_t f) {
    register uintptr_t x0 __asm__("x0") = a;
    register uintptr_t x1 __asm__("x1") = b;
    register uintptr_t x2 __asm__("x2") = c;
    register uintptr_t x3 __asm__("x3") = d;
    register uintptr_t x4 __asm__("x4") = e;
    register uintptr_t x5 __asm__("x5") = f;
    register long x8 __asm__("x8") = number;
    __asm__ volatile(CPROFI_SYSCALL_ARM64
                     : "+r"(x0), "+r"(x1)
                     : "r"(x2), "r"(x3), "r"(x4), "r"(x5), "r"(x8)
                     : "memory", "cc");
    return (long)x0;
}
#elif defined(CPROFI_ARM)
enum {
    CPROFI_REGS = 16,
    CPROFI_FP = 11,
    CPROFI_SP = 13,
    CPROFI_PC = 15,
    CPROFI_RA = 14,
    CPROFI_CALL = 0,
    CPROFI_KEPT = 3, /* without tables no rule needs others */
    CPROFI_SAVED_BITS = 16,
    CPROFI_SAVED_BASED = 0,
    CPROFI_PAIR_IS_TOP = 0,
    CPROFI_SIGNED = 0,
    CPROFI_MODE = 1,
    CPROFI_SYSCALL = 0xef00, /* the upper half of svc #0; Thumb: 0xdf00 */
    CPROFI_SYSCALL_SIZE = 2,
    CPROFI_CONTEXT = 32,
    CPROFI_CONTEXT_AT_SP = 128, /* behind the siginfo */
    CPROFI_CONTEXT_CHECK = 16,  /* cpsr: */
    CPROFI_CONTEXT_MASK = 0x1f,
    CPROFI_CONTEXT_GOOD = 0x10  /* user; bit 5: Thumb */
};
#define CPROFI_CODE_END ((uintptr_t)0xffff1000u) /* of the vector page, which has helpers */
#define CPROFI_CODE(address) (address)

static const uint8_t cprofi_kept[CPROFI_KEPT] = {CPROFI_FP, CPROFI_RA, 7};
static const uint8_t cprofi_context_index[CPROFI_REGS] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                          8, 9, 10, 11, 12, 13, 14, 15};

/* [signal] */
static long cprofi_unwind_syscall(long number, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d,
                                  uintptr_t e, uintptr_t f) {
    const uintptr_t all[7] = {(uintptr_t)number, a, b, c, d, e, f};
    register uintptr_t r0 __asm__("r0") = (uintptr_t)all;
    __asm__ volatile("push {r4, r5, r6, r7}\n\t" /* Thumb's frame pointer is r7 */
                     "mov r12, r0\n\tldr r7, [r12]\n\tldr r0, [r12, #4]\n\t"
                     "ldr r1, [r12, #8]\n\tldr r2, [r12, #12]\n\tldr r3, [r12, #16]\n\t"
                     "ldr r4, [r12, #20]\n\tldr r5, [r12, #24]\n\tsvc #0\n\t"
                     "pop {r4, r5, r6, r7}"
                     : "+r"(r0)
                     :
                     : "r1", "r2", "r3", "r12", "memory", "cc");
    return (long)r0;
}
#endif

/* What a function has as frame pointer, by an address of its code. */
#define CPROFI_FRAME(code) ((uint8_t)((code) & CPROFI_MODE ? 7 : (int)CPROFI_FP))

typedef struct {
    uintptr_t r[CPROFI_REGS];
    uint64_t known; /* bit per register */
} cprofi_regs;

#define CPROFI_BIT(reg) ((uint64_t)1 << (reg))
#define CPROFI_ALL_KNOWN (CPROFI_BIT(CPROFI_REGS) - 1)

/* [signal] The registers of an interrupted context. */
static bool cprofi_regs_from_ucontext(cprofi_regs *regs, const void *uc) {
    uintptr_t mode;
    if (!uc) return false;
    for (size_t i = 0; i < CPROFI_REGS; i++)
        memcpy(&regs->r[i],
               (const uint8_t *)uc + CPROFI_CONTEXT + sizeof regs->r[i] * cprofi_context_index[i],
               sizeof regs->r[i]);
    memcpy(&mode, (const uint8_t *)uc + CPROFI_CONTEXT + sizeof mode * CPROFI_CONTEXT_CHECK,
           sizeof mode);
    regs->r[CPROFI_PC] |= mode >> 5 & CPROFI_MODE;
    regs->known = CPROFI_ALL_KNOWN;
    return true;
}

/* [signal] */
static bool cprofi_unwind_plausible(uintptr_t pc) { return pc >= 4096 && pc < CPROFI_CODE_END; }
#endif /* CPROFI_CFI */

/* ---------------------------------------------------------------------------------------------- */
/* >>unwind: from registers and stack memory to return addresses

   Problem: a thread was stopped at an arbitrary instruction, in a prologue, a PLT entry, a signal
   handler, and wants its callers, from inside a signal handler, in a few microseconds, without
   frame pointers. Specification: DWARF 5, 6.4 (call frame information), and LSB Core 10.6
   (.eh_frame). The processors are told apart in >>registers and >>ahead.

   Idea: almost every row of call frame information says "the caller's SP is a register plus an
   offset, these kept registers are so far below it". Such a row becomes a rule of two words:

       cfa word    | base 16 | kind 8 | register 8 | offset 32, signed |
       saved word  | ... | r12 | rbx | rbp |   8 bits each (AArch64: x28 to x19, x30, x29; 5 bits):
                     the register is saved at CFA - 8 * (base + that); 0: it still holds the
                     caller's value

   The base is 0 but on AArch64, where locals may be between the CFA and what is saved. There the
   return address is x30's; on x86-64 it is at CFA - 8.
   Rules are kept in one direct-mapped cache that all threads
   share without a lock: the slot's first word is key ^ mix(rule), so that a slot torn between two
   writers does not answer. The key is the address, whether it is exact, and the registry's epoch.
   Rows that do not fit (expressions, odd places) are interpreted anew each time.

   An address is looked up as the calling instruction: a return address minus one, because after a
   call that never returns the next byte belongs to somebody else. The first frame, and one that a
   signal interrupted, are exact. What cprofi_unwind stores is always what was looked up.

   Invariant: memory of the stack is read only through the view, tables only through spans; SP grows
   from frame to frame, but for frames that were interrupted and for few switches of stacks. So
   garbage ends the walk (CPROFI_END_LOST) and never faults or loops.
   Not handled: code without tables that keeps no frame pointer, except at instructions whose bytes
   give the frame away. */

typedef enum {
    CPROFI_END_ROOT,  /* the outermost frame was reached */
    CPROFI_END_DEPTH, /* there are more frames than were asked for */
    CPROFI_END_LOST   /* no way on from the last frame */
} cprofi_end;

/* Where the function at `pc` begins by a module's tables, 0 if they do not tell (any more). Under
   the lock that keeps the sampler from retiring them. */
static uintptr_t cprofi_unwind_function(const cprofi_modules *m, uint32_t id, uintptr_t pc);

#ifdef CPROFI_CFI

enum {
    CPROFI_WORD = sizeof(uintptr_t),
    CPROFI_RULES = 4096,
    CPROFI_REMEMBER = 8,          /* depth of DW_CFA_remember_state; compilers use one */
    CPROFI_EXPRESSION_STACK = 64,
    CPROFI_EXPRESSION_STEPS = 1000,
    CPROFI_SWITCHES = 8,          /* how often SP may go down: calls on another stack */
    CPROFI_RESTORERS = 8,
    CPROFI_BACK = 1 + CPROFI_MODE, /* from a return address into the call */
    CPROFI_PAGE = 4096            /* granularity of probing; larger pages are probed in parts */
};

/* Address a in [lo, hi) is read at a + delta. With `probe` (in place, delta 0) pages outside are
   verified by the system and become part of the range. */
typedef struct {
    uintptr_t lo, hi;
    intptr_t delta;
    bool probe;
} cprofi_view;

enum { /* how pages are verified */
    CPROFI_PROBE_NONE,
    CPROFI_PROBE_SIGPROCMASK,
    CPROFI_PROBE_READV
};

enum { /* kinds of rule */
    CPROFI_RULE_SIMPLE,
    CPROFI_RULE_FULL,    /* interpret the tables */
    CPROFI_RULE_ROOT,    /* the return address is undefined */
    CPROFI_RULE_BEGIN,   /* a made-up return address: a function's first instruction */
    CPROFI_RULE_SIGNAL,  /* at the restorer: SP points at the ucontext */
    CPROFI_RULE_GUESS,   /* like simple, but from reading code: believed if it leads to code */
    CPROFI_RULE_POINTER, /* no tables: hope for a frame pointer */
    CPROFI_RULE_STOP     /* the tables are corrupt */
};

typedef struct {
    uint64_t cfa, saved;
} cprofi_rule;

typedef struct { /* 32 bytes, so that a slot never spans two cache lines */
    uint64_t check, cfa, saved, unused;
} cprofi_rule_slot;

typedef struct {
    cprofi_rule_slot *rules;
    uint32_t probe;
    uint64_t restorers[CPROFI_RESTORERS]; /* where signal handlers return to */
    uintptr_t stack_start; /* SP of the first thread when the program began; 0: not known */
} cprofi_unwinder;

enum { /* kinds of DW_CFA rule for a register or the CFA */
    CPROFI_CFI_SAME, /* also: never mentioned */
    CPROFI_CFI_UNDEFINED,
    CPROFI_CFI_AT,         /* saved at CFA + value */
    CPROFI_CFI_IS,         /* is CFA + value */
    CPROFI_CFI_REGISTER,   /* is in register `value`; for the CFA: register plus value */
    CPROFI_CFI_EXPRESSION, /* saved where the expression says; value: its place in .eh_frame */
    CPROFI_CFI_VALUE_EXPRESSION
};

typedef struct {
    int64_t cfa_value;
    int64_t value[CPROFI_REGS];
    uint8_t kind[CPROFI_REGS];
    uint8_t cfa_kind, cfa_register;
} cprofi_row;

typedef struct {
    uintptr_t start, size; /* the code it describes */
    size_t cie_code, cie_code_end, code, code_end; /* instructions, as places in .eh_frame */
    uint64_t code_align;
    int64_t data_align;
    uint8_t ra, encoding;
    bool augmented, signal;
} cprofi_fde;

/* The unwinder's big state, kept off the signal stack. One per concurrent user. */
typedef struct {
    cprofi_fde fde;
    cprofi_row row, initial, remembered[CPROFI_REMEMBER];
    bool advanced; /* the FDE says something, the row is not just the CIE's */
    uintptr_t stack[CPROFI_EXPRESSION_STACK];
    uintptr_t next[CPROFI_REGS];
} cprofi_scratch;

/* For the cache, whose slots check themselves: no order at all. [signal] */
static inline uint64_t cprofi_load64(const uint64_t *p) {
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}
/* [signal] */
static inline void cprofi_store64(uint64_t *p, uint64_t v) {
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}

/* What each system implements. Another way to see whether 8 bytes can be read. [signal] */
static bool cprofi_os_readable(uintptr_t address);
/* Notes where signal handlers return to, as far as the system tells. Call when handlers may have
   been installed by code new to the process. Sampler thread only. */
static void cprofi_unwind_learn(cprofi_unwinder *u);

/* [signal] Whether 8 bytes can be read at `address`; they must not span two pages. */
static bool cprofi_unwind_readable(const cprofi_unwinder *u, uintptr_t address) {
    if (u->probe == CPROFI_PROBE_SIGPROCMASK) {
        /* The kernel reads the new mask before it looks at `how`: EFAULT or EINVAL. */
        long result = cprofi_unwind_syscall(CPROFI_SYS_SIGPROCMASK, ~(uintptr_t)0, address, 0,
                                            8, 0, 0);
        return result == -EINVAL;
    }
    return u->probe == CPROFI_PROBE_READV && cprofi_os_readable(address);
}

/* What the system implements: see cprofi_unwinder. */
static uintptr_t cprofi_os_stack_start(void);

/* Allocates the cache, chooses how to verify pages. Install the profiler's own handler before, so
   that there is a restorer to learn. False without memory; u->probe is CPROFI_PROBE_NONE if neither
   way to verify pages works here, and then only given views can be read. */
static bool cprofi_unwind_init(cprofi_unwinder *u) {
    if (!u->rules)
        u->rules = (cprofi_rule_slot *)cprofi_pages(sizeof(cprofi_rule_slot) * CPROFI_RULES);
    if (!u->rules) return false;
    void *closed = mmap(NULL, CPROFI_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (closed == MAP_FAILED) return false;
    uintptr_t good = (uintptr_t)u->rules, bad = (uintptr_t)closed;
    for (u->probe = CPROFI_PROBE_SIGPROCMASK; u->probe <= CPROFI_PROBE_READV; u->probe++)
        if (cprofi_unwind_readable(u, good) && !cprofi_unwind_readable(u, bad) &&
            !cprofi_unwind_readable(u, ~(uintptr_t)0 & ~(uintptr_t)(CPROFI_PAGE - 1)))
            break;
    if (u->probe > CPROFI_PROBE_READV) u->probe = CPROFI_PROBE_NONE;
    munmap(closed, CPROFI_PAGE);
    u->stack_start = cprofi_os_stack_start();
    cprofi_unwind_learn(u);
    return true;
}

/* ---- memory of the stack */

typedef uintptr_t __attribute__((may_alias, aligned(1))) cprofi_stack_word;

/* Stack memory belongs to other functions: sanitizers must not judge how it is read here. */
#define CPROFI_NO_SANITIZE __attribute__((no_sanitize_address, no_sanitize_thread))

/* [signal] Makes the view hold the page of `address`. */
static CPROFI_NOINLINE bool cprofi_view_extend(const cprofi_unwinder *u, cprofi_view *view,
                                               uintptr_t address) {
    uintptr_t page = address & ~(uintptr_t)(CPROFI_PAGE - 1);
    if (!view->probe) return false;
    if (address >= view->lo && address < view->hi) return true;
    if (page + CPROFI_PAGE < page || !cprofi_unwind_readable(u, page)) return false;
    if (page <= view->hi && page + CPROFI_PAGE > view->hi && page >= view->lo) {
        view->hi = page + CPROFI_PAGE;
    } else if (page + CPROFI_PAGE >= view->lo && page < view->lo && page <= view->hi) {
        view->lo = page;
    } else {
        view->lo = page;
        view->hi = page + CPROFI_PAGE;
    }
    return true;
}

/* [signal] The word at `address`, if the view has it. */
CPROFI_NO_SANITIZE static inline bool cprofi_view_read(const cprofi_unwinder *u, cprofi_view *view,
                                                       uintptr_t address, uintptr_t *out) {
    const uintptr_t size = CPROFI_WORD;
    if (address < view->lo || view->hi < size || address > view->hi - size) {
        if (!cprofi_view_extend(u, view, address) ||
            !cprofi_view_extend(u, view, address + size - 1) || address < view->lo ||
            address > view->hi - size)
            return false;
    }
    *out = *(const cprofi_stack_word *)(address + (uintptr_t)view->delta);
    return true;
}

/* [signal] Whether an instruction that enters the kernel ends at pc. */
static bool cprofi_unwind_after_syscall(const cprofi_unwinder *u, uintptr_t pc) {
    cprofi_view view = {0, 0, 0, true};
    const uintptr_t thumb = pc & CPROFI_MODE, entry = CPROFI_SYSCALL ^ thumb * 0x3000;
    uintptr_t word;
    for (uintptr_t i = 0; i < CPROFI_SYSCALL_SIZE; i++) {
        uintptr_t at = pc - thumb - CPROFI_SYSCALL_SIZE + i, in = at % CPROFI_WORD;
        if (!cprofi_view_read(u, &view, at - in, &word) ||
            (word >> 8 * in & 0xff) != (entry >> 8 * i & 0xff))
            return false;
    }
    return true;
}

/* ---- call frame information: finding and interpreting a row */

/* [signal] */
static size_t cprofi_cfi_place(const cprofi_tables *t, const cprofi_bytes *b) {
    return (size_t)(b->at - t->frame.data);
}

/* [signal] An encoded pointer (LSB Core 10.5.1). False for what cannot be known without reading
   the image's memory. */
static bool cprofi_cfi_pointer(cprofi_bytes *b, const cprofi_tables *t, uint8_t encoding,
                               uintptr_t *out) {
    uintptr_t here = t->frame_address + cprofi_cfi_place(t, b), v;
    if (encoding == 0xff) return false;
    switch (encoding & 0x0f) {
    case 0x00: v = (uintptr_t)cprofi_uint(b, CPROFI_WORD); break;
    case 0x04: case 0x0c: v = (uintptr_t)cprofi_u64(b); break;
    case 0x01: v = (uintptr_t)cprofi_uleb(b); break;
    case 0x02: v = cprofi_u16(b); break;
    case 0x03: v = cprofi_u32(b); break;
    case 0x09: v = (uintptr_t)cprofi_sleb(b); break;
    case 0x0a: v = (uintptr_t)(intptr_t)(int16_t)cprofi_u16(b); break;
    case 0x0b: v = (uintptr_t)(intptr_t)(int32_t)cprofi_u32(b); break;
    default: return false;
    }
    switch (encoding & 0xf0) {
    case 0x00: break;
    case 0x10: v += here; break;
    case 0x30: v += t->hdr_address; break;
    default: return false; /* indirect, aligned, relative to text or function */
    }
    *out = v;
    return !b->bad;
}

/* [signal] Opens the entry at `place`: its body after the length. False at the terminator. */
static bool cprofi_cfi_entry(const cprofi_tables *t, size_t place, cprofi_bytes *body) {
    if (place > t->frame.size) return false;
    *body = cprofi_bytes_of(cprofi_span_part(t->frame, place, t->frame.size - place));
    uint64_t size = cprofi_u32(body);
    if (size == 0xffffffffu) size = cprofi_u64(body);
    if (body->bad || size < 4 || size > cprofi_left(body)) return false;
    body->end = body->at + (size_t)size;
    return true;
}

/* [signal] */
static bool cprofi_cfi_cie(const cprofi_tables *t, size_t place, cprofi_fde *f) {
    cprofi_bytes b;
    if (!cprofi_cfi_entry(t, place, &b) || cprofi_u32(&b) != 0) return false;
    uint8_t version = cprofi_u8(&b);
    if (version != 1 && version != 3 && version != 4) return false;
    const char *augmentation = cprofi_string(&b);
    if (version == 4) { /* address and segment selector size */
        uint8_t address_size = cprofi_u8(&b);
        if (cprofi_u8(&b) != 0 || address_size != sizeof(uintptr_t)) return false;
    }
    f->code_align = cprofi_uleb(&b);
    f->data_align = cprofi_sleb(&b);
    uint64_t ra = version == 1 ? cprofi_u8(&b) : cprofi_uleb(&b);
    f->augmented = f->signal = false;
    f->encoding = 0;
    if (b.bad || ra >= CPROFI_REGS) return false;
    f->ra = (uint8_t)ra;
    if (*augmentation == 'z') {
        uint64_t size = cprofi_uleb(&b);
        if (b.bad || size > cprofi_left(&b)) return false;
        cprofi_bytes a = b;
        a.end = a.at + (size_t)size;
        f->augmented = true;
        for (const char *c = augmentation + 1; *c; c++) {
            uintptr_t ignored;
            if (*c == 'R') f->encoding = cprofi_u8(&a);
            else if (*c == 'S') f->signal = true;
            else if (*c == 'L') (void)cprofi_u8(&a);
            else if (*c == 'P') { /* a personality; only its size matters */
                uint8_t encoding = cprofi_u8(&a);
                if (!cprofi_cfi_pointer(&a, t, encoding & 0x0f, &ignored)) return false;
            } else if (*c != 'B' && *c != 'G') return false;
        }
        if (a.bad) return false;
        cprofi_skip(&b, size);
    } else if (*augmentation) {
        return false;
    }
    f->cie_code = cprofi_cfi_place(t, &b);
    f->cie_code_end = (size_t)(b.end - t->frame.data);
    return !b.bad;
}

/* [signal] Reads the entry at `place` if it is an FDE. */
static bool cprofi_cfi_fde(const cprofi_tables *t, size_t place, cprofi_fde *f) {
    cprofi_bytes b;
    if (!cprofi_cfi_entry(t, place, &b)) return false;
    size_t pointer_place = cprofi_cfi_place(t, &b);
    uint32_t back = cprofi_u32(&b);
    if (back == 0 || back > pointer_place) return false;
    if (!cprofi_cfi_cie(t, pointer_place - back, f)) return false;
    if (!cprofi_cfi_pointer(&b, t, f->encoding, &f->start)) return false;
    if (!cprofi_cfi_pointer(&b, t, f->encoding & 0x0f, &f->size)) return false;
    if (f->augmented) cprofi_skip(&b, cprofi_uleb(&b));
    f->code = cprofi_cfi_place(t, &b);
    f->code_end = (size_t)(b.end - t->frame.data);
    return !b.bad;
}

/* [signal] The FDE that describes the code at `address`. */
static bool cprofi_cfi_find(const cprofi_tables *t, uintptr_t address, cprofi_fde *f) {
    if (t->search) {
        size_t lo = 0, hi = t->search_count;
        cprofi_bytes b;
        while (lo < hi) {
            size_t middle = lo + (hi - lo) / 2;
            b.at = t->search + middle * 8;
            b.end = b.at + 8;
            b.bad = false;
            uintptr_t start = t->hdr_address + (uintptr_t)(intptr_t)(int32_t)cprofi_u32(&b);
            if (start <= address) lo = middle + 1;
            else hi = middle;
        }
        if (lo == 0) return false;
        b.at = t->search + (lo - 1) * 8 + 4;
        b.end = b.at + 4;
        b.bad = false;
        uintptr_t fde = t->hdr_address + (uintptr_t)(intptr_t)(int32_t)cprofi_u32(&b);
        return cprofi_cfi_fde(t, (size_t)(fde - t->frame_address), f) &&
               address - f->start < f->size;
    }
    for (size_t place = 0; place < t->frame.size;) {
        cprofi_bytes b;
        if (!cprofi_cfi_entry(t, place, &b)) return false;
        if (cprofi_cfi_fde(t, place, f) && address - f->start < f->size) return true;
        place = (size_t)(b.end - t->frame.data);
    }
    return false;
}

/* What .eh_frame_hdr's sorted table would be, for images without one: pairs of 32-bit offsets from
   hdr_address to code and FDE. Returns their number, and writes them if out is not NULL. */
static size_t cprofi_tables_sort(const cprofi_tables *t, uint8_t *out, size_t room) {
    size_t n = 0;
    cprofi_bytes b;
    cprofi_fde f;
    for (size_t next = 0; cprofi_cfi_entry(t, next, &b);) {
        size_t place = next;
        next = (size_t)(b.end - t->frame.data);
        if (!cprofi_cfi_fde(t, place, &f)) continue;
        int32_t pair[2] = {(int32_t)(f.start - t->hdr_address),
                           (int32_t)(t->frame_address + place - t->hdr_address)};
        if (t->hdr_address + (uintptr_t)(intptr_t)pair[0] != f.start) continue;
        if (out && n < room) memcpy(out + 8 * n, pair, sizeof pair);
        n++;
    }
    if (!out) return n;
    if (n > room) n = room;
    for (size_t gap = n / 2; gap; gap /= 2) {
        for (size_t i = gap; i < n; i++) {
            int32_t moving[2], other[2];
            size_t j = i;
            memcpy(moving, out + 8 * i, sizeof moving);
            for (; j >= gap; j -= gap) {
                memcpy(other, out + 8 * (j - gap), sizeof other);
                if (other[0] <= moving[0]) break;
                memcpy(out + 8 * j, other, sizeof other);
            }
            memcpy(out + 8 * j, moving, sizeof moving);
        }
    }
    return n;
}

/* [signal] Sets a register's rule; vector and other registers beyond ours are of no interest. */
static void cprofi_row_set(cprofi_row *row, uint64_t reg, uint8_t kind, int64_t value) {
    if (reg >= CPROFI_REGS) return;
    row->kind[reg] = kind;
    row->value[reg] = value;
}

/* [signal] */
static void cprofi_row_set_cfa(cprofi_row *row, uint8_t kind, uint64_t reg, int64_t value) {
    row->cfa_kind = kind;
    row->cfa_register = (uint8_t)(reg < CPROFI_REGS ? reg : 255);
    row->cfa_value = value;
}

/* [signal] */
static void cprofi_row_restore(cprofi_scratch *s, uint64_t reg) {
    if (reg < CPROFI_REGS)
        cprofi_row_set(&s->row, reg, s->initial.kind[reg], s->initial.value[reg]);
}

/* DW_CFA offsets are factored; wrapping arithmetic, because the input may be anything. [signal] */
static int64_t cprofi_cfi_factored(const cprofi_fde *f, uint64_t n) {
    return (int64_t)(n * (uint64_t)f->data_align);
}

/* [signal] Executes the operations that describe registers and the CFA (DWARF 5, 6.4.2). */
static bool cprofi_cfi_describe(const cprofi_tables *t, cprofi_scratch *s, cprofi_bytes *b,
                                uint8_t op) {
    cprofi_row *row = &s->row;
    const cprofi_fde *f = &s->fde;
    uint64_t reg = 0;
    if (CPROFI_SIGNED && (op == 0x2c || op == 0x2d)) return true; /* AARCH64_negate_ra_state */
    if (op != 0x0e && op != 0x0f && op != 0x13 && op != 0x2e) reg = cprofi_uleb(b);
    switch (op) {
    case 0x05: /* offset_extended */
        cprofi_row_set(row, reg, CPROFI_CFI_AT, cprofi_cfi_factored(f, cprofi_uleb(b)));
        break;
    case 0x06: cprofi_row_restore(s, reg); break;                          /* restore_extended */
    case 0x07: cprofi_row_set(row, reg, CPROFI_CFI_UNDEFINED, 0); break;   /* undefined */
    case 0x08: cprofi_row_set(row, reg, CPROFI_CFI_SAME, 0); break;        /* same_value */
    case 0x09: /* register */
        cprofi_row_set(row, reg, CPROFI_CFI_REGISTER, (int64_t)cprofi_uleb(b));
        break;
    case 0x0c: /* def_cfa */
        cprofi_row_set_cfa(row, CPROFI_CFI_REGISTER, reg, (int64_t)cprofi_uleb(b));
        break;
    case 0x0d: /* def_cfa_register */
        cprofi_row_set_cfa(row, CPROFI_CFI_REGISTER, reg, row->cfa_value);
        break;
    case 0x0e: row->cfa_value = (int64_t)cprofi_uleb(b); break; /* def_cfa_offset */
    case 0x0f: /* def_cfa_expression */
        cprofi_row_set_cfa(row, CPROFI_CFI_VALUE_EXPRESSION, 0, (int64_t)cprofi_cfi_place(t, b));
        cprofi_skip(b, cprofi_uleb(b));
        break;
    case 0x10: case 0x16: /* expression, val_expression */
        cprofi_row_set(row, reg, op == 0x10 ? CPROFI_CFI_EXPRESSION : CPROFI_CFI_VALUE_EXPRESSION,
                       (int64_t)cprofi_cfi_place(t, b));
        cprofi_skip(b, cprofi_uleb(b));
        break;
    case 0x11: case 0x15: /* offset_extended_sf, val_offset_sf */
        cprofi_row_set(row, reg, op == 0x11 ? CPROFI_CFI_AT : CPROFI_CFI_IS,
                       cprofi_cfi_factored(f, (uint64_t)cprofi_sleb(b)));
        break;
    case 0x12: /* def_cfa_sf */
        cprofi_row_set_cfa(row, CPROFI_CFI_REGISTER, reg,
                           cprofi_cfi_factored(f, (uint64_t)cprofi_sleb(b)));
        break;
    case 0x13: /* def_cfa_offset_sf */
        row->cfa_value = cprofi_cfi_factored(f, (uint64_t)cprofi_sleb(b));
        break;
    case 0x14: /* val_offset */
        cprofi_row_set(row, reg, CPROFI_CFI_IS, cprofi_cfi_factored(f, cprofi_uleb(b)));
        break;
    case 0x2e: (void)cprofi_uleb(b); break; /* GNU_args_size: for exceptions only */
    case 0x2f: /* GNU_negative_offset_extended */
        cprofi_row_set(row, reg, CPROFI_CFI_AT, cprofi_cfi_factored(f, 0 - cprofi_uleb(b)));
        break;
    default: return false;
    }
    return true;
}

/* [signal] Executes [at, end) of .eh_frame until the row of `address` is complete. */
static bool cprofi_cfi_execute(const cprofi_tables *t, cprofi_scratch *s, size_t at, size_t end,
                               uintptr_t address) {
    cprofi_bytes b = cprofi_bytes_of(cprofi_span_part(t->frame, at, end - at));
    uintptr_t location = s->fde.start;
    size_t depth = 0;
    while (b.at < b.end) {
        uint8_t op = cprofi_u8(&b), low = op & 0x3f;
        uint64_t advance;
        if (op >> 6 == 2) { /* offset */
            cprofi_row_set(&s->row, low, CPROFI_CFI_AT,
                           cprofi_cfi_factored(&s->fde, cprofi_uleb(&b)));
            continue;
        }
        if (op >> 6 == 3) { /* restore */
            cprofi_row_restore(s, low);
            continue;
        }
        if (op == 0) continue; /* nop */
        if (op >> 6 == 1) advance = low;
        else if (op == 0x02) advance = cprofi_u8(&b);
        else if (op == 0x03) advance = cprofi_u16(&b);
        else if (op == 0x04) advance = cprofi_u32(&b);
        else if (op == 0x1d) advance = cprofi_u64(&b); /* MIPS_advance_loc8 */
        else if (op == 0x01) { /* set_loc */
            uintptr_t to;
            if (!cprofi_cfi_pointer(&b, t, s->fde.encoding, &to)) return false;
            if (to > address) return true;
            location = to;
            continue;
        } else if (op == 0x0a) { /* remember_state */
            if (depth == CPROFI_REMEMBER) return false;
            s->remembered[depth++] = s->row;
            continue;
        } else if (op == 0x0b) { /* restore_state */
            if (depth == 0) return false;
            s->row = s->remembered[--depth];
            continue;
        } else {
            if (!cprofi_cfi_describe(t, s, &b, op)) return false;
            continue;
        }
        if (b.bad) return false;
        location += (uintptr_t)(advance * s->fde.code_align);
        if (location > address) return true;
    }
    return !b.bad;
}

/* [signal] The row for `address` into s->row, its description into s->fde. 1, 0: there is no FDE,
   -1: it is corrupt. */
static int cprofi_cfi_row(const cprofi_tables *t, uintptr_t address, cprofi_scratch *s) {
    if (!cprofi_cfi_find(t, address, &s->fde)) return 0;
    memset(&s->row, 0, sizeof s->row);
    s->row.cfa_kind = CPROFI_CFI_UNDEFINED;
    memset(&s->initial, 0, sizeof s->initial);
    /* The CIE's operations do not advance: they hold for every address. */
    if (!cprofi_cfi_execute(t, s, s->fde.cie_code, s->fde.cie_code_end, UINTPTR_MAX)) return -1;
    s->initial = s->row;
    if (!cprofi_cfi_execute(t, s, s->fde.code, s->fde.code_end, address)) return -1;
    s->advanced = false;
    for (size_t i = s->fde.code; i < s->fde.code_end; i++) s->advanced |= t->frame.data[i] != 0;
    return 1;
}

/* ---- expressions (DWARF 5, 2.5.1) */

/* [signal] Operations that push what needs no stack. False if `op` is none of them. */
static bool cprofi_expression_literal(cprofi_bytes *b, uint8_t op, const cprofi_regs *regs,
                                      uintptr_t *v) {
    if (op >= 0x30 && op <= 0x4f) { /* lit */
        *v = op - 0x30u;
    } else if ((op >= 0x70 && op <= 0x8f) || op == 0x92) { /* breg, bregx */
        uint64_t reg = op == 0x92 ? cprofi_uleb(b) : op - 0x70u;
        int64_t offset = cprofi_sleb(b);
        if (reg >= CPROFI_REGS || !(regs->known >> reg & 1)) {
            b->bad = true;
            return true;
        }
        *v = regs->r[reg] + (uintptr_t)offset;
    } else {
        switch (op) {
        case 0x03: *v = (uintptr_t)cprofi_uint(b, CPROFI_WORD); break; /* addr */
        case 0x0e: case 0x0f: *v = (uintptr_t)cprofi_u64(b); break; /* const8 */
        case 0x08: *v = cprofi_u8(b); break;
        case 0x09: *v = (uintptr_t)(intptr_t)(int8_t)cprofi_u8(b); break;
        case 0x0a: *v = cprofi_u16(b); break;
        case 0x0b: *v = (uintptr_t)(intptr_t)(int16_t)cprofi_u16(b); break;
        case 0x0c: *v = cprofi_u32(b); break;
        case 0x0d: *v = (uintptr_t)(intptr_t)(int32_t)cprofi_u32(b); break;
        case 0x10: *v = (uintptr_t)cprofi_uleb(b); break;
        case 0x11: *v = (uintptr_t)cprofi_sleb(b); break;
        default: return false;
        }
    }
    return true;
}

/* [signal] a op b, where b was on top. False if `op` is no such operation or divides by zero. */
static bool cprofi_expression_binary(uint8_t op, uintptr_t a, uintptr_t b, uintptr_t *v) {
    const intptr_t sa = (intptr_t)a, sb = (intptr_t)b;
    const uintptr_t bits = 8 * CPROFI_WORD;
    switch (op) {
    case 0x1a: *v = a & b; break;
    case 0x1b: /* div, signed */
        if (b == 0) return false;
        *v = sb == -1 ? 0 - a : (uintptr_t)(sa / sb);
        break;
    case 0x1c: *v = a - b; break;
    case 0x1d: /* mod, unsigned */
        if (b == 0) return false;
        *v = a % b;
        break;
    case 0x1e: *v = a * b; break;
    case 0x21: *v = a | b; break;
    case 0x22: *v = a + b; break;
    case 0x24: *v = b < bits ? a << b : 0; break;
    case 0x25: *v = b < bits ? a >> b : 0; break;
    case 0x26: *v = (uintptr_t)(sa >> (b < bits - 1 ? b : bits - 1)); break;
    case 0x27: *v = a ^ b; break;
    case 0x29: *v = sa == sb; break;
    case 0x2a: *v = sa >= sb; break;
    case 0x2b: *v = sa > sb; break;
    case 0x2c: *v = sa <= sb; break;
    case 0x2d: *v = sa < sb; break;
    case 0x2e: *v = sa != sb; break;
    default: return false;
    }
    return true;
}

/* [signal] dup, drop, over, pick, swap, rot. The new depth, or 0 (also: stack would be empty). */
static size_t cprofi_expression_shuffle(cprofi_bytes *b, uint8_t op, uintptr_t *stack,
                                        size_t depth) {
    size_t pick = op == 0x14 ? 1 : op == 0x15 ? cprofi_u8(b) : 0;
    uintptr_t top = depth ? stack[depth - 1] : 0;
    switch (op) {
    case 0x12: case 0x14: case 0x15:
        if (pick >= depth || depth == CPROFI_EXPRESSION_STACK) return 0;
        stack[depth] = stack[depth - 1 - pick];
        return depth + 1;
    case 0x13: return depth ? depth - 1 : 0;
    case 0x16:
        if (depth < 2) return 0;
        stack[depth - 1] = stack[depth - 2];
        stack[depth - 2] = top;
        return depth;
    case 0x17: /* the top goes below the next two */
        if (depth < 3) return 0;
        stack[depth - 1] = stack[depth - 2];
        stack[depth - 2] = stack[depth - 3];
        stack[depth - 3] = top;
        return depth;
    default: return 0;
    }
}

/* [signal] Operations that replace the top of the stack. */
static bool cprofi_expression_unary(const cprofi_unwinder *u, cprofi_view *view, cprofi_bytes *b,
                                    uint8_t op, uintptr_t *top) {
    uintptr_t a = *top, shift;
    size_t size;
    switch (op) {
    case 0x06: return cprofi_view_read(u, view, a, top); /* deref */
    case 0x94: /* deref_size: read the aligned word around it, so as not to leave the page */
        size = cprofi_u8(b);
        shift = a % CPROFI_WORD;
        if (size == 0 || size > CPROFI_WORD) return false;
        if (shift + size > CPROFI_WORD) shift = 0;
        if (!cprofi_view_read(u, view, a - shift, top)) return false;
        *top >>= 8 * shift;
        if (size < CPROFI_WORD) *top &= ((uintptr_t)1 << (8 * size)) - 1;
        return true;
    case 0x19: *top = (intptr_t)a < 0 ? 0 - a : a; return true;
    case 0x1f: *top = 0 - a; return true;
    case 0x20: *top = ~a; return true;
    case 0x23: *top = a + (uintptr_t)cprofi_uleb(b); return true;
    default: return false;
    }
}

/* [signal] Evaluates the expression at `place` of .eh_frame (its length comes first). `depth` words
   are on the stack already: none for a CFA, the CFA for a register. */
static bool cprofi_expression(const cprofi_unwinder *u, const cprofi_tables *t, int64_t place,
                              const cprofi_regs *regs, cprofi_view *view, cprofi_scratch *s,
                              size_t depth, uintptr_t *out) {
    cprofi_bytes b = cprofi_bytes_of(
        cprofi_span_part(t->frame, (uint64_t)place, t->frame.size - (uint64_t)place));
    uint64_t size = cprofi_uleb(&b);
    if (b.bad || size > cprofi_left(&b)) return false;
    const uint8_t *start = b.at;
    b.end = start + (size_t)size;
    for (size_t steps = 0; b.at < b.end; steps++) {
        if (steps == CPROFI_EXPRESSION_STEPS) return false;
        uint8_t op = cprofi_u8(&b);
        uintptr_t v = 0;
        if (op == 0x96) continue; /* nop */
        if (op == 0x2f || op == 0x28) { /* skip, bra */
            int64_t to = (int16_t)cprofi_u16(&b);
            if (op == 0x28 && depth == 0) return false;
            if (op == 0x28 && s->stack[--depth] == 0) continue;
            to += b.at - start;
            if (b.bad || to < 0 || (uint64_t)to > size) return false;
            b.at = start + to;
        } else if (cprofi_expression_literal(&b, op, regs, &v)) {
            if (b.bad || depth == CPROFI_EXPRESSION_STACK) return false;
            s->stack[depth++] = v;
        } else if (op >= 0x12 && op <= 0x17) {
            size_t before = depth;
            depth = cprofi_expression_shuffle(&b, op, s->stack, depth);
            if (depth == 0 && !(op == 0x13 && before == 1)) return false;
        } else if (depth >= 2 && cprofi_expression_binary(op, s->stack[depth - 2],
                                                          s->stack[depth - 1], &v)) {
            s->stack[--depth - 1] = v;
        } else if (depth == 0 ||
                   !cprofi_expression_unary(u, view, &b, op, &s->stack[depth - 1])) {
            return false;
        }
        if (b.bad) return false;
    }
    if (depth == 0) return false;
    *out = s->stack[depth - 1];
    return true;
}

/* ---- rules */

/* [signal] */
static cprofi_rule cprofi_rule_make(uint8_t kind, uint8_t reg, int32_t offset, uint64_t saved) {
    cprofi_rule rule;
    rule.cfa = (uint64_t)(uint32_t)offset | (uint64_t)reg << 32 | (uint64_t)kind << 40;
    rule.saved = saved;
    return rule;
}

/* [signal] How far below the CFA a rule has the kept register number `i`; 0: not saved. */
static inline uintptr_t cprofi_rule_saved(cprofi_rule rule, size_t i) {
    const uint64_t one = ((uint64_t)1 << CPROFI_SAVED_BITS) - 1;
    uintptr_t words = (uintptr_t)(rule.saved >> (CPROFI_SAVED_BITS * i) & one);
    if (CPROFI_SAVED_BASED && words) words += (uintptr_t)(rule.cfa >> 48);
    return CPROFI_WORD * words;
}

/* [signal] How far below the CFA a rule has the return address; 0: in its register. */
static inline uintptr_t cprofi_rule_ra(cprofi_rule rule) {
    if (CPROFI_RA == CPROFI_PC) return CPROFI_CALL;
    return cprofi_rule_saved(rule, 1);
}

/* [signal] Puts into a rule how many words below the CFA each kept register is, 0: it is not saved.
   False if they do not fit. */
static bool cprofi_rule_save(cprofi_rule *rule, const uint32_t words[CPROFI_KEPT]) {
    uint32_t base = 0;
    if (CPROFI_SAVED_BASED) {
        base = 0x10000;
        for (size_t i = 0; i < CPROFI_KEPT; i++)
            if (words[i] && words[i] - 1 < base) base = words[i] - 1;
        if (base == 0x10000) base = 0;
    }
    rule->saved = 0;
    for (size_t i = 0; i < CPROFI_KEPT; i++) {
        if (!words[i]) continue;
        if (words[i] - base >= 1u << CPROFI_SAVED_BITS) return false;
        rule->saved |= (uint64_t)(words[i] - base) << (CPROFI_SAVED_BITS * i);
    }
    rule->cfa |= (uint64_t)base << 48;
    return true;
}

/* [signal] s->row as a rule. */
static cprofi_rule cprofi_rule_from_row(const cprofi_scratch *s) {
    const cprofi_row *row = &s->row;
    const cprofi_rule full = cprofi_rule_make(CPROFI_RULE_FULL, 0, 0, 0);
    uint32_t words[CPROFI_KEPT];
    cprofi_rule rule;
    if (row->kind[s->fde.ra] == CPROFI_CFI_UNDEFINED)
        return cprofi_rule_make(CPROFI_RULE_ROOT, 0, 0, 0);
    if (s->fde.signal) /* vdsos that described it for AArch64 led to x30, not to what was stopped */
        return CPROFI_RA == CPROFI_PC ? full : cprofi_rule_make(CPROFI_RULE_SIGNAL, 0, 0, 0);
    if (s->fde.ra != CPROFI_RA || row->kind[CPROFI_SP] != CPROFI_CFI_SAME ||
        row->cfa_kind != CPROFI_CFI_REGISTER || row->cfa_register >= CPROFI_PC ||
        row->cfa_value != (int32_t)row->cfa_value)
        return full;
    if (CPROFI_RA == CPROFI_PC &&
        (row->kind[CPROFI_RA] != CPROFI_CFI_AT || row->value[CPROFI_RA] != -CPROFI_CALL))
        return full;
    for (size_t i = 0; i < CPROFI_KEPT; i++) {
        uint8_t reg = cprofi_kept[i];
        int64_t value = row->value[reg];
        words[i] = 0;
        if (row->kind[reg] == CPROFI_CFI_SAME) continue;
        if (row->kind[reg] != CPROFI_CFI_AT || value >= 0 || value < -CPROFI_WORD * 65535 ||
            value % CPROFI_WORD != 0)
            return full;
        words[i] = (uint32_t)(-value / CPROFI_WORD);
    }
    rule = cprofi_rule_make(CPROFI_RULE_SIMPLE, row->cfa_register, (int32_t)row->cfa_value, 0);
    return cprofi_rule_save(&rule, words) ? rule : full;
}

/* [signal] The rule at pc from reading the code on to its return, or else the frame pointer's. See
   >>ahead. [start, limit) is the function if that is known, else limit is 0. */
static cprofi_rule cprofi_rule_ahead(const cprofi_unwinder *u, uintptr_t pc, uintptr_t start,
                                     uintptr_t limit);

/* [signal] AArch64: the rule at pc from the code, where that is near its function's start or
   return. Else *rule, which is that of the tables, is left. */
static bool cprofi_ahead_near(const cprofi_unwinder *u, uintptr_t pc, uintptr_t start,
                              uintptr_t limit, cprofi_rule *rule);

/* [signal] Whether a signal handler returns to pc, by the code there. */
static bool cprofi_ahead_restorer(const cprofi_unwinder *u, uintptr_t pc);

/* [signal] Whether the code at pc ends its thread. */
static bool cprofi_ahead_exits(const cprofi_unwinder *u, uintptr_t pc);

/* [signal] The rule for a frame, from the tables. *keep: it may be cached. `running`: the code at
   `address` is known to be running, not just to be pointed at by a plausible word. */
static CPROFI_NOINLINE cprofi_rule cprofi_rule_compile(const cprofi_unwinder *u,
                                                       const cprofi_module_index *index,
                                                       uintptr_t address, bool exact, bool running,
                                                       cprofi_scratch *s, bool *keep) {
    const cprofi_module_range *range = cprofi_modules_range(index, address);
    uintptr_t pc = exact ? address : address + CPROFI_BACK;
    *keep = true;
    for (size_t i = 0; i < CPROFI_RESTORERS; i++) {
        uint64_t restorer = cprofi_load64(&u->restorers[i]);
        if (!restorer) break;
        /* `mov $15, %rax` is 7 bytes, or 5; then comes the system call */
        if (exact ? address - restorer <= 7 : pc == restorer)
            return cprofi_rule_make(CPROFI_RULE_SIGNAL, 0, 0, 0);
    }
    int found = range ? cprofi_cfi_row(range->tables, address, s) : 0;
    if (found == 0 && running && cprofi_ahead_restorer(u, pc))
        return cprofi_rule_make(CPROFI_RULE_SIGNAL, 0, 0, 0);
    if (!range) { /* generated code may change; and it keeps frame pointers or nothing */
        *keep = !exact;
        if (exact && running) return cprofi_rule_ahead(u, pc, 0, 0);
        return cprofi_rule_make(CPROFI_RULE_POINTER, 0, 0, 0);
    }
    if (found < 0) return cprofi_rule_make(CPROFI_RULE_STOP, 0, 0, 0);
    /* makecontext has the coroutine's first function return to the start of another one. Before
       that comes whatever was linked there, mostly padding. */
    if (found == 0 && !exact && cprofi_cfi_find(range->tables, pc, &s->fde) && s->fde.start == pc)
        return cprofi_rule_make(CPROFI_RULE_BEGIN, 0, 0, 0);
    if (found == 0) {
        *keep = running;
        if (running) return cprofi_rule_ahead(u, pc, 0, 0);
        return cprofi_rule_make(CPROFI_RULE_POINTER, 0, 0, 0);
    }
    cprofi_rule rule = cprofi_rule_from_row(s);
    if (CPROFI_RA != CPROFI_PC && !exact && (rule.cfa >> 40 & 0xff) == CPROFI_RULE_SIMPLE &&
        !cprofi_rule_ra(rule)) /* who calls has lost its own return address, if not saved */
        return cprofi_rule_make(CPROFI_RULE_POINTER, 0, 0, 0);
    if (exact && running &&
        cprofi_ahead_near(u, pc, s->fde.start, s->fde.start + s->fde.size, &rule))
        return rule;
    /* Assembly that opens and closes its FDE and says nothing between (glibc's mpn functions) may
       push all the same. Where code agrees with the tables, this changes nothing. */
    if (exact && running && !s->advanced && rule.saved == 0 &&
        rule.cfa == cprofi_rule_make(CPROFI_RULE_SIMPLE, CPROFI_SP, CPROFI_CALL, 0).cfa) {
        cprofi_rule ahead = cprofi_rule_ahead(u, pc, s->fde.start, s->fde.start + s->fde.size);
        if ((ahead.cfa >> 32 & 0xffff) == (CPROFI_RULE_GUESS << 8 | CPROFI_SP) &&
            (uint32_t)ahead.cfa != CPROFI_CALL)
            return ahead;
    }
    return rule;
}

/* [signal] */
static inline uint64_t cprofi_rule_mix(uint64_t cfa, uint64_t saved) {
    uint64_t a = cfa * 0x9e3779b97f4a7c15u, b = saved * 0xc2b2ae3d27d4eb4fu;
    return (a << 31 | a >> 33) ^ (b << 17 | b >> 47);
}

/* [signal] The rule for a frame, from the cache if it is there. */
static inline cprofi_rule cprofi_rule_get(const cprofi_unwinder *u,
                                          const cprofi_module_index *index, uint64_t stamp,
                                          uintptr_t address, bool exact, bool running,
                                          cprofi_scratch *s) {
    uint64_t key = stamp ^ (uint64_t)address ^ (uint64_t)exact << 63;
    cprofi_rule_slot *slot = &u->rules[(address ^ address >> 12) % CPROFI_RULES];
    cprofi_rule rule;
    rule.cfa = cprofi_load64(&slot->cfa);
    rule.saved = cprofi_load64(&slot->saved);
    if (cprofi_load64(&slot->check) != (key ^ cprofi_rule_mix(rule.cfa, rule.saved))) {
        bool keep;
        rule = cprofi_rule_compile(u, index, address, exact, running, s, &keep);
        if (keep) {
            cprofi_store64(&slot->check, key ^ cprofi_rule_mix(rule.cfa, rule.saved));
            cprofi_store64(&slot->cfa, rule.cfa);
            cprofi_store64(&slot->saved, rule.saved);
        }
    }
    return rule;
}

/* ---- the walk */

enum { CPROFI_STEP_LOST, CPROFI_STEP_ROOT, CPROFI_STEP_ON, CPROFI_STEP_SIGNAL };

/* [signal] The return address, by a rule. */
static inline bool cprofi_rule_return(const cprofi_unwinder *u, cprofi_rule rule,
                                      const cprofi_regs *regs, cprofi_view *view, uintptr_t cfa,
                                      uintptr_t *pc) {
    const uintptr_t below = cprofi_rule_ra(rule);
    if (!below) {
        *pc = CPROFI_CODE(regs->r[CPROFI_RA]);
        return regs->known >> CPROFI_RA & 1;
    }
    if (!cprofi_view_read(u, view, cfa - below, pc)) return false;
    *pc = CPROFI_CODE(*pc);
    return true;
}

/* [signal] The kept registers that a rule finds below the CFA. */
static inline void cprofi_rule_restore(const cprofi_unwinder *u, cprofi_rule rule,
                                       cprofi_regs *regs, cprofi_view *view, uintptr_t cfa) {
    const uint64_t one = ((uint64_t)1 << CPROFI_SAVED_BITS) - 1;
    if (CPROFI_SAVED_BASED) cfa -= CPROFI_WORD * (uintptr_t)(rule.cfa >> 48);
    for (size_t i = 0; rule.saved; i++, rule.saved >>= CPROFI_SAVED_BITS) {
        if (!(rule.saved & one)) continue;
        uint64_t bit = CPROFI_BIT(cprofi_kept[i]);
        bool good = cprofi_view_read(u, view, cfa - CPROFI_WORD * (uintptr_t)(rule.saved & one),
                                     &regs->r[cprofi_kept[i]]);
        regs->known = good ? regs->known | bit : regs->known & ~bit;
    }
}

/* [signal] One frame by interpreting its row: any CFA, any register. */
static int cprofi_step_full(const cprofi_unwinder *u, const cprofi_module_index *index,
                            cprofi_regs *regs, cprofi_view *view, cprofi_scratch *s,
                            uintptr_t address, bool exact) {
    const cprofi_module_range *range = cprofi_modules_range(index, address);
    uint64_t known = 0;
    uintptr_t cfa;
    if (!range || cprofi_cfi_row(range->tables, address, s) <= 0) return CPROFI_STEP_LOST;
    const cprofi_row *row = &s->row;
    const cprofi_tables *t = range->tables;
    if (row->cfa_kind == CPROFI_CFI_REGISTER) {
        if (row->cfa_register >= CPROFI_REGS || !(regs->known >> row->cfa_register & 1))
            return CPROFI_STEP_LOST;
        cfa = regs->r[row->cfa_register] + (uintptr_t)row->cfa_value;
    } else if (row->cfa_kind != CPROFI_CFI_VALUE_EXPRESSION ||
               !cprofi_expression(u, t, row->cfa_value, regs, view, s, 0, &cfa)) {
        return CPROFI_STEP_LOST;
    }
    for (uint32_t i = 0; i < CPROFI_REGS; i++) {
        uintptr_t v = regs->r[i];
        int64_t value = row->value[i];
        bool good = regs->known >> i & 1;
        switch (row->kind[i]) {
        case CPROFI_CFI_SAME:
            if (i != CPROFI_SP) break;
            v = cfa;
            good = true;
            break;
        case CPROFI_CFI_AT: good = cprofi_view_read(u, view, cfa + (uintptr_t)value, &v); break;
        case CPROFI_CFI_IS:
            v = cfa + (uintptr_t)value;
            good = true;
            break;
        case CPROFI_CFI_REGISTER:
            good = value >= 0 && value < CPROFI_REGS && (regs->known >> value & 1);
            if (good) v = regs->r[value];
            break;
        case CPROFI_CFI_EXPRESSION: case CPROFI_CFI_VALUE_EXPRESSION:
            s->stack[0] = cfa;
            good = cprofi_expression(u, t, value, regs, view, s, 1, &v);
            if (!good || row->kind[i] == CPROFI_CFI_VALUE_EXPRESSION) break;
            if (exact && v >= cfa && t->frame.data[value + 1] == 0x70 + CPROFI_FP) {
                /* gcc goes on describing a realigned frame by rbp after popping it: the frame's
                   registers are saved below its CFA, or they have all been restored */
                v = regs->r[i];
                good = regs->known >> i & 1;
                break;
            }
            good = cprofi_view_read(u, view, v, &v);
            break;
        default: good = false; break;
        }
        s->next[i] = v;
        known |= (uint64_t)good << i;
    }
    uint8_t ra = s->fde.ra;
    if (CPROFI_RA != CPROFI_PC && row->kind[ra] == CPROFI_CFI_AT && row->value[ra] == CPROFI_WORD)
        s->next[CPROFI_SP] += 2 * CPROFI_WORD; /* glibc's resolver: above its CFA is what the PLT's
                                                  entry 0 has pushed, the return address too */
    if (row->kind[ra] == CPROFI_CFI_UNDEFINED) return CPROFI_STEP_ROOT;
    if (!(known >> ra & 1) ||
        (row->kind[ra] == CPROFI_CFI_SAME && (ra == CPROFI_PC || !exact)))
        return CPROFI_STEP_LOST;
    memcpy(regs->r, s->next, sizeof regs->r);
    regs->r[CPROFI_PC] = CPROFI_CODE(s->next[ra]);
    regs->known = known | CPROFI_BIT(CPROFI_PC);
    return s->fde.signal ? CPROFI_STEP_SIGNAL : CPROFI_STEP_ON;
}

/* [signal] From the restorer to what the signal interrupted: the ucontext is at or above SP. */
static int cprofi_step_signal(const cprofi_unwinder *u, cprofi_regs *regs, cprofi_view *view,
                              cprofi_scratch *s) {
    uintptr_t gregs = regs->r[CPROFI_SP] + CPROFI_CONTEXT_AT_SP + CPROFI_CONTEXT, mode;
    /* ARM: handlers without SA_SIGINFO get no siginfo. */
    if (CPROFI_MODE &&
        cprofi_view_read(u, view, gregs + sizeof mode * CPROFI_CONTEXT_CHECK, &mode) &&
        (mode & CPROFI_CONTEXT_MASK) != CPROFI_CONTEXT_GOOD)
        gregs -= CPROFI_CONTEXT_AT_SP;
    if (!(regs->known >> CPROFI_SP & 1) ||
        !cprofi_view_read(u, view, gregs + sizeof mode * CPROFI_CONTEXT_CHECK, &mode) ||
        (mode & CPROFI_CONTEXT_MASK) != CPROFI_CONTEXT_GOOD)
        return CPROFI_STEP_LOST;
    for (size_t i = 0; i < CPROFI_REGS; i++)
        if (!cprofi_view_read(u, view, gregs + CPROFI_WORD * cprofi_context_index[i], &s->next[i]))
            return CPROFI_STEP_LOST;
    memcpy(regs->r, s->next, sizeof regs->r);
    regs->r[CPROFI_PC] |= mode >> 5 & CPROFI_MODE;
    regs->known = CPROFI_ALL_KNOWN;
    return CPROFI_STEP_SIGNAL;
}

/* [signal] Without tables: the frame pointer points at the caller's, the return address lies
   above. */
static int cprofi_step_pointer(const cprofi_unwinder *u, const cprofi_module_index *index,
                               cprofi_regs *regs, cprofi_view *view, bool exact,
                               bool *running) {
    const uintptr_t reach = (uintptr_t)1 << 20;
    uintptr_t sp = regs->r[CPROFI_SP], fp = regs->r[CPROFI_FP], caller, ra;
    bool known = regs->known >> CPROFI_FP & 1;
    *running = false;
    if (CPROFI_MODE) return CPROFI_STEP_LOST; /* ARM: they are no chain, with gcc */
    /* the ABI's mark of the outermost; but in an image so new that its tables are not known yet the
       register may be anything */
    if (known && fp == 0 && !exact && cprofi_modules_range(index, regs->r[CPROFI_PC] - 1))
        return CPROFI_STEP_ROOT;
    if (known && fp % CPROFI_WORD == 0 && fp >= sp && fp - sp < reach &&
        cprofi_view_read(u, view, fp, &caller) &&
        cprofi_view_read(u, view, fp + CPROFI_WORD, &ra)) {
        bool rising = caller == 0 || (caller > fp && caller % CPROFI_WORD == 0);
        ra = CPROFI_CODE(ra);
        if (ra == 0 && rising) return CPROFI_STEP_ROOT;
        if (cprofi_modules_range(index, ra - 1) || (rising && cprofi_unwind_plausible(ra))) {
            regs->r[CPROFI_FP] = caller;
            regs->r[CPROFI_SP] = fp + 2 * CPROFI_WORD; /* or more, if that is not the top */
            if (!CPROFI_PAIR_IS_TOP) regs->known &= ~CPROFI_BIT(CPROFI_SP);
            regs->r[CPROFI_PC] = ra;
            return CPROFI_STEP_ON;
        }
    }
    if (!exact) return CPROFI_STEP_LOST;
    if (CPROFI_RA == CPROFI_PC) {
        if (!cprofi_view_read(u, view, sp, &ra)) return CPROFI_STEP_LOST;
    } else {
        if (!(regs->known >> CPROFI_RA & 1)) return CPROFI_STEP_LOST;
        ra = CPROFI_CODE(regs->r[CPROFI_RA]);
    }
    if (!cprofi_modules_range(index, ra - 1)) return CPROFI_STEP_LOST;
    regs->r[CPROFI_SP] = sp + CPROFI_CALL;
    regs->r[CPROFI_PC] = ra;
    return CPROFI_STEP_ON;
}

/* [signal] By a rule found by reading code; the frame pointer if it does not lead to code. */
static int cprofi_step_guess(const cprofi_unwinder *u, const cprofi_module_index *index,
                             cprofi_rule rule, cprofi_regs *regs, cprofi_view *view, bool exact,
                             bool *running) {
    unsigned reg = rule.cfa >> 32 & 0xff;
    uintptr_t cfa = regs->r[reg] + (uintptr_t)(intptr_t)(int32_t)(uint32_t)rule.cfa, ra;
    if (!(regs->known >> reg & 1) || !cprofi_rule_return(u, rule, regs, view, cfa, &ra) ||
        (CPROFI_MODE && !exact && !cprofi_rule_ra(rule)) || /* who calls has lost it */
        !cprofi_modules_range(index, ra - 1))
        return cprofi_step_pointer(u, index, regs, view, exact, running);
    cprofi_rule_restore(u, rule, regs, view, cfa);
    regs->r[CPROFI_SP] = cfa;
    regs->r[CPROFI_PC] = ra;
    return CPROFI_STEP_ON;
}

/* [signal] Whether `ra` follows a call, as far as tables can tell: inside a described function, not
   at its start (that would be a pointer to it). */
static bool cprofi_unwind_returns(const cprofi_module_index *index, cprofi_scratch *s,
                                  uintptr_t ra) {
    const cprofi_module_range *range = cprofi_modules_range(index, ra - 1);
    if (!range || !cprofi_cfi_find(range->tables, ra - 1, &s->fde)) return false;
    return !cprofi_cfi_find(range->tables, ra, &s->fde) || s->fde.start != ra;
}

/* [signal] A register that a rule needs is not known; finds it, if the rule has the frame pointer
   and the return address as a pair. Then either SP is not known, behind a frame without tables, and
   the frame pointer points at the pair. Or the frame pointer is not: this is the copied stack of a
   sleeping thread, of which the system tells SP and PC only. Then the stack is searched upwards for
   a pair that leads to such a pair again. */
static CPROFI_NOINLINE bool cprofi_unwind_find(const cprofi_unwinder *u,
                                               const cprofi_module_index *index, cprofi_rule rule,
                                               uintptr_t sp, cprofi_regs *regs, cprofi_view *view,
                                               cprofi_scratch *s) {
    const uintptr_t span = 65536, pair = cprofi_rule_saved(rule, 0);
    const uintptr_t offset = (uintptr_t)(intptr_t)(int32_t)(uint32_t)rule.cfa;
    const unsigned reg = rule.cfa >> 32 & 0xff;
    uintptr_t fp, ra, next;
    if (pair - CPROFI_WORD != cprofi_rule_ra(rule))
        return false;
    if (reg == CPROFI_SP) {
        fp = regs->r[CPROFI_FP];
        if (!(regs->known >> CPROFI_FP & 1) || fp < sp ||
            !cprofi_view_read(u, view, fp + CPROFI_WORD, &ra) ||
            !cprofi_unwind_returns(index, s, CPROFI_CODE(ra)))
            return false;
        regs->r[CPROFI_SP] = fp + pair - offset;
        regs->known |= CPROFI_BIT(CPROFI_SP);
        return true;
    }
    if (reg != CPROFI_FP) return false;
    for (uintptr_t at = sp; at - sp < span; at += CPROFI_WORD) {
        if (!cprofi_view_read(u, view, at, &fp) ||
            !cprofi_view_read(u, view, at + CPROFI_WORD, &ra))
            return false;
        if (fp < at + 2 * CPROFI_WORD || fp - at > (uintptr_t)1 << 20 || fp % CPROFI_WORD != 0)
            continue;
        if (!cprofi_unwind_returns(index, s, CPROFI_CODE(ra)) ||
            !cprofi_view_read(u, view, fp + CPROFI_WORD, &next) ||
            !cprofi_unwind_returns(index, s, CPROFI_CODE(next)))
            continue;
        regs->r[CPROFI_FP] = at + pair - offset;
        regs->known |= CPROFI_BIT(CPROFI_FP);
        return true;
    }
    return false;
}

/* [signal] One frame that is not simple; regs is replaced by the caller's. */
static CPROFI_NOINLINE int cprofi_unwind_step(const cprofi_unwinder *u,
                                              const cprofi_module_index *index, cprofi_rule rule,
                                              cprofi_regs *regs, cprofi_view *view,
                                              cprofi_scratch *s, uintptr_t address, bool exact,
                                              bool *running) {
    switch (rule.cfa >> 40 & 0xff) {
    case CPROFI_RULE_GUESS:
        return cprofi_step_guess(u, index, rule, regs, view, exact, running);
    case CPROFI_RULE_FULL: return cprofi_step_full(u, index, regs, view, s, address, exact);
    case CPROFI_RULE_ROOT: case CPROFI_RULE_BEGIN: return CPROFI_STEP_ROOT;
    case CPROFI_RULE_SIGNAL: return cprofi_step_signal(u, regs, view, s);
    case CPROFI_RULE_POINTER:
        return cprofi_step_pointer(u, index, regs, view, exact, running);
    default: return CPROFI_STEP_LOST;
    }
}

/* [signal] Whether the frame at `sp`, from which there is no way on, is the outermost all the same:
   musl has no tables, and its functions that call main and a thread's first function end in a call
   that never returns. So it is, if the stack begins a few words above, or if there is a return
   address to code of the same image that ends the thread. */
static CPROFI_NOINLINE bool cprofi_unwind_outermost(const cprofi_unwinder *u,
                                                    const cprofi_module_index *index,
                                                    uintptr_t address, uintptr_t sp,
                                                    cprofi_view *view) {
    const cprofi_module_range *range = cprofi_modules_range(index, address);
    uintptr_t word;
    if (!range) return false;
    if (u->stack_start - sp <= 16 * CPROFI_WORD) return true;
    for (uintptr_t i = 0; i < 32 && cprofi_view_read(u, view, sp + CPROFI_WORD * i, &word); i++) {
        word = CPROFI_CODE(word);
        if (word > range->lo && word < range->hi && cprofi_ahead_exits(u, word)) return true;
    }
    return false;
}

/* [signal] Walks from regs (which it uses up) to the root. Stores at most `max` addresses, leaf
   first: the leaf's pc and that of a frame a signal interrupted as they are, return addresses minus
   one, so that each lies inside the instruction that was running. Returns how many. Scopes are
   marked on the way, unless that is NULL. */
static size_t cprofi_unwind(const cprofi_unwinder *u, const cprofi_modules *m, cprofi_regs *regs,
                            cprofi_view *view, cprofi_scratch *s, uintptr_t *frames, size_t max,
                            cprofi_end *end, cprofi_scope_walk *scopes) {
    const cprofi_module_index *index = cprofi_load_pointer(cprofi_module_index *, &m->index);
    const uint64_t stamp = index ? index->epoch * 0x9e3779b97f4a7c15u : 0;
    const uint64_t needed = CPROFI_BIT(CPROFI_PC) | CPROFI_BIT(CPROFI_SP);
    uintptr_t address = regs->r[CPROFI_PC], sp = regs->r[CPROFI_SP];
    unsigned switches = 0;
    size_t n = 0;
    bool exact = true, running = true; /* running: no frame pointer was believed so far */
    *end = CPROFI_END_LOST;
    if ((regs->known & needed) != needed) return 0;
    for (;;) {
        if (n == max) {
            *end = CPROFI_END_DEPTH;
            return n;
        }
        frames[n++] = address;
        cprofi_rule rule = cprofi_rule_get(u, index, stamp, address, exact, running, s);
        unsigned kind = rule.cfa >> 40 & 0xff, reg = rule.cfa >> 32 & 0xff;
        if (kind == CPROFI_RULE_BEGIN) frames[n - 1] = address + 1;
        uintptr_t cfa, pc;
        bool by_sp = true;
        if (kind == CPROFI_RULE_SIMPLE) {
            by_sp = reg == CPROFI_SP;
            if (!(regs->known >> reg & 1)) {
                if (!cprofi_unwind_find(u, index, rule, sp, regs, view, s)) return n;
                if (by_sp) sp = regs->r[CPROFI_SP];
            }
            cfa = (by_sp ? sp : regs->r[reg]) + (uintptr_t)(intptr_t)(int32_t)(uint32_t)rule.cfa;
            if (!cprofi_rule_return(u, rule, regs, view, cfa, &pc)) return n;
            if (rule.saved) cprofi_rule_restore(u, rule, regs, view, cfa);
        } else {
            regs->r[CPROFI_SP] = sp;
            /* the program counter that expressions see */
            regs->r[CPROFI_PC] = exact ? address : address + CPROFI_BACK;
            int step = cprofi_unwind_step(u, index, rule, regs, view, s, address, exact, &running);
            if (step == CPROFI_STEP_LOST && !exact &&
                (kind == CPROFI_RULE_POINTER || kind == CPROFI_RULE_GUESS) &&
                cprofi_unwind_outermost(u, index, address, sp, view))
                step = CPROFI_STEP_ROOT;
            if (step == CPROFI_STEP_ROOT) *end = CPROFI_END_ROOT;
            if (step == CPROFI_STEP_ROOT || step == CPROFI_STEP_LOST) return n;
            cfa = regs->r[CPROFI_SP];
            pc = regs->r[CPROFI_PC];
            if (step == CPROFI_STEP_SIGNAL) {
                running = true;
                sp = cfa;
                address = pc;
                exact = true;
                continue;
            }
            by_sp = kind == CPROFI_RULE_POINTER || kind == CPROFI_RULE_GUESS;
        }
        if (cfa <= sp && !exact && (by_sp || ++switches > CPROFI_SWITCHES)) return n;
        if (scopes && scopes->next < cfa) cprofi_scopes_place(scopes, (uint32_t)n - 1, sp, cfa);
        if (!cprofi_unwind_plausible(pc)) {
            if (pc == 0) *end = CPROFI_END_ROOT;
            return n;
        }
        sp = cfa;
        address = pc - CPROFI_BACK;
        exact = false;
    }
}

static uintptr_t cprofi_unwind_function(const cprofi_modules *m, uint32_t id, uintptr_t pc) {
    const cprofi_tables *tables = m->records[id].tables;
    cprofi_fde fde;
    return tables && cprofi_cfi_find(tables, pc, &fde) ? fde.start : 0;
}
#endif /* CPROFI_CFI */

/* ---------------------------------------------------------------------------------------------- */
/* >>ahead: code without tables, read on to its return

   The depth of the stack at an instruction does not depend on the way there, so any way from it to
   a return tells where the return address is: what the pops and additions to SP on that way take
   off. And its pops and loads tell where kept registers are saved. Jumps are followed, branches are
   not taken but the last one is remembered for when the way ahead ends in a loop. This passes
   hand-written assembly (GMP, glibc's own), musl, PLT entries; what it finds is believed only if
   the word there points into code. It reads instructions, so it is used for code a thread is
   running in only: that cannot be unmapped.
   Sources: Intel SDM vol. 2, appendix A; Arm Architecture Reference Manual, C4 (encodings).

   AArch64: a register that is stored on the way, before it is loaded, has not been saved yet.
   32-bit ARM: there are no tables at all but for exceptions, so all is unwound by this; callers'
   code, too, is there then. Not followed: functions that never return and jump tables on every way
   to the return. Their callers are missing. */

#ifdef CPROFI_CFI

enum {
    /* instructions; 600 take 2-3 us, once per address; ARM has nothing else to go by */
    CPROFI_AHEAD_MAX = CPROFI_MODE ? 2000 : 600,
    CPROFI_AHEAD_NEAR = 24,
    CPROFI_AHEAD_TURNS = CPROFI_MODE ? 16 : 4,
    CPROFI_AHEAD_SEEN = CPROFI_MODE ? 64 : 1
};

typedef struct {
    uintptr_t pc;
    int32_t offset; /* of SP, from where it is now or, after `from_fp`, from where FP points */
    int32_t fp;     /* where FP points, if `fp_set`: `mov rsp, rbp` was passed */
    int32_t at[CPROFI_KEPT]; /* where kept registers are; -1: they hold their value */
    uint32_t stored;         /* AArch64: bit per kept register; ARM: 1, a call was passed */
    bool from_fp, fp_set, lost; /* lost: SP is unknown until it is set from FP */
    bool entering;              /* it is the way to a place, from the function's start */
} cprofi_ahead_state;

typedef struct {
    const cprofi_unwinder *u;
    uintptr_t verified; /* a page that can be read */
    uintptr_t lowest;   /* where it has been: at or above this */
    uintptr_t first, start, limit; /* where it all began; see cprofi_rule_ahead */
    cprofi_ahead_state now, branches[CPROFI_AHEAD_TURNS]; /* the last forward ones not taken */
    uint32_t branch_count; /* how many there were, less those that were taken later */
    uint32_t seen[CPROFI_AHEAD_SEEN]; /* ARM: bits, by the addresses of instructions passed */
    uint8_t code[16]; /* one instruction */
    uint8_t op, map, rex, modrm, size, modrm_at; /* x86-64: decoded */
} cprofi_ahead;

/* [signal] Fetches up to `size` bytes at pc; bytes that cannot be read are zero. */
CPROFI_NO_SANITIZE static bool cprofi_ahead_fetch(cprofi_ahead *a, size_t size) {
    memset(a->code, 0, sizeof a->code);
    for (size_t i = 0; i < size; i++) {
        uintptr_t page = (a->now.pc + i) & ~(uintptr_t)(CPROFI_PAGE - 1);
        if (page != a->verified) {
            if (!cprofi_unwind_readable(a->u, page)) return i > 0;
            a->verified = page;
        }
        a->code[i] = *(const volatile uint8_t *)(a->now.pc + i);
    }
    return true;
}

/* [signal] SP becomes the frame pointer + n. */
static void cprofi_ahead_from_fp(cprofi_ahead_state *now, int32_t n) {
    now->lost = false;
    now->offset = now->fp_set ? now->fp + n : n;
    if (now->fp_set || now->from_fp) return;
    now->from_fp = true;
    for (size_t k = 0; k < CPROFI_KEPT; k++) /* those found so far were counted from SP */
        if (now->at[k] != -1) now->lost = true;
}

/* [signal] The rule for the place from which the way led to a return. False if it is none. */
static bool cprofi_ahead_rule(const cprofi_ahead_state *now, cprofi_rule *rule) {
    uint32_t words[CPROFI_KEPT];
    if (now->offset < 0 && !now->from_fp) return false; /* `push target; ret` is a jump */
    for (size_t k = 0; k < CPROFI_KEPT; k++) {
        int32_t below = now->offset + CPROFI_CALL - now->at[k];
        words[k] = now->at[k] == -1 ? 0 : (uint32_t)(below / CPROFI_WORD);
        if (now->at[k] != -1 && (below <= 0 || below > CPROFI_WORD * 65535)) return false;
    }
    const uint8_t reg = now->from_fp ? CPROFI_FRAME(now->pc) : (uint8_t)CPROFI_SP;
    *rule = cprofi_rule_make(CPROFI_RULE_GUESS, reg, now->offset + CPROFI_CALL, 0);
    return cprofi_rule_save(rule, words);
}

/* [signal] Goes where the branch that was not taken goes. 0, or -1 if there is none. */
static int cprofi_ahead_turn(cprofi_ahead *a) {
    cprofi_ahead_state *branch;
    if (!a->branch_count) return -1;
    branch = &a->branches[--a->branch_count % CPROFI_AHEAD_TURNS];
    a->now = *branch;
    branch->pc = 0; /* there may have been more than are kept */
    return a->now.pc ? 0 : -1;
}

/* [signal] Remembers a branch that is not taken. */
static void cprofi_ahead_branch(cprofi_ahead *a, uintptr_t to) {
    cprofi_ahead_state *branch = &a->branches[a->branch_count++ % CPROFI_AHEAD_TURNS];
    *branch = a->now;
    branch->pc = to;
}

#if defined(CPROFI_X64) || defined(CPROFI_X86)
/* [signal] Bytes of immediate operand of a one-byte opcode (Intel SDM vol. 2, appendix A). */
static uint8_t cprofi_x64_immediate(uint8_t op, uint8_t modrm, bool narrow, bool wide) {
    uint8_t z = narrow ? 2 : 4;
    if (op < 0x40) return (op & 7) == 4 ? 1 : (op & 7) == 5 ? z : 0;
    if ((op >= 0x70 && op <= 0x7f) || (op >= 0xb0 && op <= 0xb7) || (op >= 0xe0 && op <= 0xe7))
        return 1;
    if (op >= 0xb8 && op <= 0xbf) return wide ? 8 : z;
    if (op >= 0xa0 && op <= 0xa3) return CPROFI_WORD;
    switch (op) {
    case 0x6a: case 0x6b: case 0x80: case 0x83: case 0xa8: case 0xc0: case 0xc1: case 0xc6:
    case 0xcd: case 0xeb: return 1;
    case 0x68: case 0x69: case 0x81: case 0xa9: case 0xc7: return z;
    case 0xe8: case 0xe9: return 4;
    case 0xc2: case 0xca: return 2;
    case 0xc8: return 3;
    case 0xf6: return (modrm & 0x38) < 0x10 ? 1 : 0;
    case 0xf7: return (modrm & 0x38) < 0x10 ? z : 0;
    default: return 0;
    }
}

/* [signal] */
static bool cprofi_x64_has_modrm(uint8_t map, uint8_t op) {
    if (map == 1)
        return !((op >= 0x05 && op <= 0x0b) || (op >= 0x30 && op <= 0x37) || op == 0x77 ||
                 (op >= 0x80 && op <= 0x8f) || (op >= 0xa0 && op <= 0xa2) ||
                 (op >= 0xa8 && op <= 0xaa) || (op >= 0xc8 && op <= 0xcf));
    if (map > 1) return true;
    return (op < 0x40 && (op & 7) < 4) || op == 0x63 || op == 0x69 || op == 0x6b ||
           (op >= 0x80 && op <= 0x8f) || op == 0xc0 || op == 0xc1 || op == 0xc6 || op == 0xc7 ||
           (op >= 0xd0 && op <= 0xd3) || (op >= 0xd8 && op <= 0xdf) || op == 0xf6 ||
           op == 0xf7 || op == 0xfe || op == 0xff;
}

/* Operand and address size, repeat, segment, lock. [signal] */
static bool cprofi_x64_is_prefix(uint8_t c) {
    return (c & 0xe7) == 0x26 || (c >= 0x64 && c <= 0x67) || c == 0xf0 || c == 0xf2 || c == 0xf3;
}

/* [signal] Decodes as much of the instruction in a->code as its length and the stack pointer need:
   prefixes, opcode with its map (0; 1: 0F; 2: 0F38; 3: 0F3A), ModRM, size. */
static bool cprofi_ahead_decode(cprofi_ahead *a) {
    const uint8_t *c = a->code;
    uint8_t i = 0;
    bool narrow = false, vector = false;
    a->rex = a->map = a->modrm = a->modrm_at = 0;
    while (i < 8 && cprofi_x64_is_prefix(c[i])) narrow |= c[i++] == 0x66;
    if (CPROFI_WORD == 8 && (c[i] & 0xf0) == 0x40) a->rex = c[i++];
    if ((c[i] == 0xc5 || c[i] == 0xc4 || c[i] == 0x62) &&
        (CPROFI_WORD == 8 || c[i + 1] >= 0xc0)) { /* VEX, EVEX: no stack pointer there */
        vector = true;
        a->map = c[i] == 0xc5 ? 1 : c[i] == 0xc4 ? c[i + 1] & 0x1f : c[i + 1] & 7;
        i = (uint8_t)(i + (c[i] == 0xc5 ? 2 : c[i] == 0xc4 ? 3 : 4));
    } else if (c[i] == 0x0f) {
        a->map = c[i + 1] == 0x38 ? 2 : c[i + 1] == 0x3a ? 3 : 1;
        i = (uint8_t)(i + (a->map == 1 ? 1 : 2));
    }
    a->op = c[i++];
    if (cprofi_x64_has_modrm(a->map, a->op)) {
        a->modrm_at = i;
        a->modrm = c[i++];
        uint8_t mod = a->modrm >> 6, rm = a->modrm & 7, base = rm;
        if (mod != 3 && rm == 4) base = c[i++] & 7;
        if (mod == 1) i++;
        else if (mod == 2 || (mod == 0 && base == 5)) i = (uint8_t)(i + 4);
    }
    if (a->map == 0) {
        i = (uint8_t)(i + cprofi_x64_immediate(a->op, a->modrm, narrow, a->rex & 8));
    } else if (a->map == 1) {
        if (a->op >= 0x80 && a->op <= 0x8f) i = (uint8_t)(i + 4);
        if ((a->op >= 0x70 && a->op <= 0x73) || a->op == 0xa4 || a->op == 0xac ||
            a->op == 0xba || (a->op >= 0xc2 && a->op <= 0xc6 && a->op != 0xc3))
            i++;
    } else if (a->map == 3) {
        i++;
    } else if (a->map != 2 && !(vector && a->map <= 6)) {
        return false;
    }
    a->size = i;
    return i <= 15;
}

/* [signal] */
static int32_t cprofi_ahead_int(const cprofi_ahead *a, size_t at, size_t size) {
    uint32_t v = 0;
    for (size_t i = 0; i < size && at + i < sizeof a->code; i++)
        v |= (uint32_t)a->code[at + i] << (8 * i);
    return size == 1 ? (int8_t)v : (int32_t)v;
}

/* [signal] A register with this number in machine code (rbp is 5 there) is popped. */
static bool cprofi_ahead_pop(cprofi_ahead_state *now, uint8_t popped) {
    if (popped == 4) return false; /* pop rsp */
    for (size_t k = 0; k < CPROFI_KEPT; k++) {
        if ((cprofi_kept[k] == CPROFI_FP ? 5 : cprofi_kept[k]) != popped) continue;
        if (now->lost) return false;
        now->at[k] = now->offset >= 0 || now->from_fp ? now->offset : -1;
    }
    now->offset += CPROFI_WORD;
    return true;
}

/* [signal] What `lea n(base), rsp` and arithmetic with a constant do to SP. */
static bool cprofi_ahead_arithmetic(cprofi_ahead *a) {
    cprofi_ahead_state *now = &a->now;
    const uint8_t mod = a->modrm >> 6, reg = a->modrm >> 3 & 7, base = a->modrm & 7;
    const bool wide = a->op == 0x81 || (a->op == 0x8d && mod == 2);
    const int32_t n = wide ? cprofi_ahead_int(a, (size_t)a->size - 4u, 4)
                           : cprofi_ahead_int(a, (size_t)a->size - 1u, 1);
    if (n > 1 << 24 || n < -(1 << 24)) return false;
    if (a->op != 0x8d) {
        if (reg == 0) now->offset += n;
        else if (reg == 5) now->offset -= n;
        else if (reg != 7) now->lost = true; /* and; 7: cmp */
    } else if (mod == 1 || mod == 2) {
        if (base == 4 && a->code[a->modrm_at + 1] == 0x24) now->offset += n;
        else if (base == 5 && !(a->rex & 1)) cprofi_ahead_from_fp(now, n);
        else now->lost = true;
    } else {
        now->lost = true;
    }
    return true;
}

/* [signal] What the instruction does to SP. False if that is beyond this reader. */
static bool cprofi_ahead_stack(cprofi_ahead *a) {
    cprofi_ahead_state *now = &a->now;
    const bool b = a->rex & 1, r = a->rex & 4;
    const uint8_t op = a->op, modrm = a->modrm;
    const bool to_rm = modrm >= 0xc0 && (modrm & 7) == 4 && !b;          /* rsp, as operands */
    const bool to_reg = a->modrm_at && (modrm >> 3 & 7) == 4 && !r;
    if (a->map != 0) return true;
    if (op >= 0x58 && op <= 0x5f) return cprofi_ahead_pop(now, (uint8_t)((b ? 8 : 0) + op - 0x58));
    if ((op >= 0x50 && op <= 0x57) || op == 0x68 || op == 0x6a || op == 0x9c ||
        (op == 0xff && (modrm & 0x38) == 0x30)) { /* push */
        now->offset -= CPROFI_WORD;
    } else if (op == 0x9d || op == 0x8f) { /* popf, pop to memory */
        now->offset += CPROFI_WORD;
    } else if (((op == 0x81 || op == 0x83) && to_rm) || (op == 0x8d && to_reg)) {
        return cprofi_ahead_arithmetic(a);
    } else if ((op == 0x89 && modrm == 0xe5) || (op == 0x8b && modrm == 0xec)) {
        if (b || r || now->lost) return true; /* of r13, r12 */
        now->fp_set = true; /* mov rsp, rbp */
        now->fp = now->offset;
    } else if ((op == 0x89 && modrm == 0xec && !b && !r) ||
               (op == 0x8b && modrm == 0xe5 && !b && !r)) { /* mov rbp, rsp */
        cprofi_ahead_from_fp(now, 0);
    } else if (op == 0xc9) { /* leave */
        cprofi_ahead_from_fp(now, 0);
        return cprofi_ahead_pop(now, 5);
    } else if (to_rm && (op == 0x89 || (op < 0x38 && (op & 7) == 1) || op == 0x87 || op == 0xc7)) {
        now->lost = true; /* SP becomes something else */
    } else if (to_reg && (op == 0x8b || (op < 0x38 && (op & 7) == 3) || op == 0x63)) {
        now->lost = true;
    }
    return true;
}

/* [signal] Advances past the instruction. -1: lost, 1: it returns, 0: go on. `first` is where it
   all began. */
static int cprofi_ahead_next(cprofi_ahead *a) {
    const uint8_t op = a->op;
    const bool rel8 = a->map == 0 && ((op >= 0x70 && op <= 0x7f) || (op >= 0xe0 && op <= 0xe3));
    const uintptr_t pc = a->now.pc, next = pc + a->size;
    const int32_t jump = op == 0xeb || rel8 ? cprofi_ahead_int(a, (size_t)a->size - 1u, 1)
                                            : cprofi_ahead_int(a, (size_t)a->size - 4u, 4);
    const uintptr_t to = next + (uintptr_t)(intptr_t)jump;
    const bool leaves = a->limit && (to < a->start || to >= a->limit);
    a->now.pc = next;
    if (rel8 || (a->map == 1 && op >= 0x80 && op <= 0x8f)) {
        if (jump > 0 && !leaves) cprofi_ahead_branch(a, to);
    } else if (a->map == 1 && op == 0x0b) { /* ud2 */
        return cprofi_ahead_turn(a);
    } else if (a->map == 0 && (op == 0xc3 || op == 0xc2)) { /* ret */
        return a->now.lost ? cprofi_ahead_turn(a) : 1;
    } else if (a->map == 0 && (op == 0xe9 || op == 0xeb)) { /* jmp */
        if (leaves) return a->now.lost ? cprofi_ahead_turn(a) : 1; /* a tail call */
        if (to >= a->lowest && to < next) return cprofi_ahead_turn(a);
        if (to < a->lowest) a->lowest = to;
        a->now.pc = to;
    } else if (a->map == 0 && op == 0xff && (a->modrm & 0x38) == 0x20) { /* jmp, indirect */
        /* The PLT's if it is the first instruction. Else a tail call or a jump table. */
        if (pc == a->first) return 1;
        if (cprofi_ahead_turn(a) == 0) return 0;
        if (next >= a->limit) return -1;
    } else if (a->map == 0 && (op == 0xf4 || op == 0xcc)) { /* hlt, int3 */
        return cprofi_ahead_turn(a);
    }
    return 0;
}

/* [signal] Passes one instruction; answers as cprofi_ahead_next. */
static int cprofi_ahead_pass(cprofi_ahead *a) {
    if (!cprofi_ahead_fetch(a, 15) || !cprofi_ahead_decode(a)) return -1;
    return cprofi_ahead_stack(a) ? cprofi_ahead_next(a) : cprofi_ahead_turn(a);
}

/* [signal] */
static bool cprofi_ahead_near(const cprofi_unwinder *u, uintptr_t pc, uintptr_t start,
                              uintptr_t limit, cprofi_rule *rule) {
    (void)u, (void)pc, (void)start, (void)limit, (void)rule;
    return false;
}

/* [signal] `syscall; hlt`, the second in case the first returned. */
static bool cprofi_ahead_exits(const cprofi_unwinder *u, uintptr_t pc) {
    cprofi_ahead a;
    memset(&a, 0, sizeof a);
    a.u = u;
    a.verified = 1;
    a.now.pc = pc;
    if (!cprofi_ahead_fetch(&a, sizeof a.code)) return false;
    for (size_t i = 0; i + 3 <= sizeof a.code; i++)
        if (a.code[i] == (CPROFI_SYSCALL & 0xff) && a.code[i + 1] == CPROFI_SYSCALL >> 8 &&
            a.code[i + 2] == 0xf4)
            return true;
    return false;
}

/* [signal] They are known by what libc tells the kernel: see cprofi_unwind_learn. */
static bool cprofi_ahead_restorer(const cprofi_unwinder *u, uintptr_t pc) {
    (void)u, (void)pc;
    return false;
}
#elif defined(CPROFI_ARM64)
/* [signal] The instruction at pc; 0, which is none, if it cannot be read. */
static uint32_t cprofi_ahead_word(cprofi_ahead *a, uintptr_t pc) {
    uintptr_t now = a->now.pc;
    uint32_t word = 0;
    a->now.pc = pc;
    if (cprofi_ahead_fetch(a, 4)) memcpy(&word, a->code, sizeof word);
    a->now.pc = now;
    return word;
}

/* [signal] A register is loaded from, or stored at, this place from SP or, `by_fp`, from FP. */
static void cprofi_ahead_moved(cprofi_ahead_state *now, uint32_t reg, int32_t at, bool by_fp,
                               bool load) {
    bool below;
    for (size_t k = 0; k < CPROFI_KEPT; k++) {
        if (cprofi_kept[k] != reg) continue;
        if (!load && now->entering) {
            if (!by_fp) now->at[k] = at;
        } else if (!load) {
            now->stored |= 1u << k;
        } else if (!now->entering) {
            if (by_fp && !now->from_fp) {
                if (!now->fp_set) return;
                at += now->fp;
            }
            below = at < 0 && !now->from_fp; /* of SP: so it is not there yet */
            now->at[k] = below || now->stored >> k & 1 ? -1 : at;
        }
    }
}

/* [signal] Loads and stores with SP or FP as base: single ones of all sizes, and pairs. */
static bool cprofi_ahead_memory(cprofi_ahead_state *now, uint32_t w) {
    const uint32_t base = w >> 5 & 31, size = w >> 30;
    const bool vector = w >> 26 & 1, pair = (w & 0x3a000000) == 0x28000000;
    int32_t n, at, scale;
    uint32_t mode; /* 1: the base changes afterwards, 3: before */
    bool load;
    if (pair) {
        scale = vector ? 4 << size : size == 2 ? 8 : 4;
        n = (int32_t)((w >> 15 & 0x7f) ^ 0x40) - 0x40;
        n *= scale;
        mode = w >> 23 & 3;
        load = w >> 22 & 1;
    } else {
        scale = vector ? w >> 23 & 1 ? 16 : 1 << size : 1 << size;
        load = w >> 22 & 1;
        if ((w & 0x3b000000) == 0x39000000) { /* an offset that is not negative */
            n = (int32_t)(w >> 10 & 0xfff) * scale;
            mode = 0;
        } else { /* any offset, or a register */
            n = (int32_t)((w >> 12 & 0x1ff) ^ 0x100) - 0x100;
            mode = w >> 10 & 3;
            if (w & 0x00200000) return true;
        }
    }
    if (base != CPROFI_SP && base != CPROFI_FP) return true;
    if (base == CPROFI_SP && now->lost) return true;
    at = (base == CPROFI_SP ? now->offset : 0) + (mode == 1 ? 0 : n);
    if (!vector && scale == 8) {
        cprofi_ahead_moved(now, w & 31, at, base == CPROFI_FP, load);
        if (pair) cprofi_ahead_moved(now, w >> 10 & 31, at + 8, base == CPROFI_FP, load);
    }
    if (base == CPROFI_SP && mode & 1) now->offset += n;
    return true;
}

/* [signal] What is done to SP and FP other than by loads and stores. */
static void cprofi_ahead_arithmetic(cprofi_ahead_state *now, uint32_t w) {
    const uint32_t to = w & 31, from = w >> 5 & 31;
    if ((w & 0xbf000000) == 0x91000000) { /* add, sub of a constant */
        int32_t n = (int32_t)(w >> 10 & 0xfff) << (w >> 22 & 1 ? 12 : 0);
        if (w & 0x40000000) n = -n;
        if (to == CPROFI_SP && from == CPROFI_SP) {
            now->offset += n;
        } else if (to == CPROFI_SP && from == CPROFI_FP) {
            cprofi_ahead_from_fp(now, n);
        } else if (to == CPROFI_FP && from == CPROFI_SP && !now->lost) {
            now->fp_set = true;
            now->fp = now->offset + n;
        } else if (to == CPROFI_SP) {
            now->lost = true;
        }
    } else if (to == CPROFI_SP && ((w & 0xbfe00000) == 0x8b200000 || /* add, sub of a register */
                                   (w & 0xff800000) == 0x92000000)) { /* and */
        now->lost = true;
    }
}

/* [signal] Answers for an indirect jump at pc. The PLT jumps by x17, and so do veneers and some
   tail calls, else by x16; other registers are those of jump tables, and of tail calls too. */
static int cprofi_ahead_indirect(cprofi_ahead *a, uint32_t w) {
    const uintptr_t pc = a->now.pc;
    const uint32_t by = w >> 5 & 31;
    if (by != 16 && by != 17) return cprofi_ahead_turn(a);
    /* PLT entry 0 has `stp x16, x30, [sp, #-16]!` four instructions before, and jumps with that on
       the stack, to where it is taken off. x30 still is the return address. */
    if (pc - a->first <= 20 && cprofi_ahead_word(a, pc - 16) == 0xa9bf7bf0)
        a->now.offset = a->first > pc - 16 ? 16 : 0;
    return a->now.lost ? cprofi_ahead_turn(a) : 1;
}

/* [signal] Passes one instruction. -1: lost, 1: it returns, 0: go on. */
static int cprofi_ahead_pass(cprofi_ahead *a) {
    const uintptr_t pc = a->now.pc, next = pc + 4;
    const uint32_t w = cprofi_ahead_word(a, pc);
    const bool nears = (w & 0xff000010) == 0x54000000 || (w & 0x7e000000) == 0x34000000;
    const bool tests = (w & 0x7e000000) == 0x36000000;
    if (w >> 16 == 0 || (w & 0xffe0001f) == 0xd4200000) return cprofi_ahead_turn(a); /* udf, brk */
    if ((w & 0xfe000000) == 0xd6000000) {
        if ((w >> 21 & 7) == 2) return a->now.lost ? cprofi_ahead_turn(a) : 1; /* ret */
        if ((w >> 21 & 7) == 0) return cprofi_ahead_indirect(a, w);
    } else if ((w & 0xfc000000) == 0x14000000 || nears || tests) { /* b; b.cond, cbz; tbz */
        int64_t n = nears   ? (int64_t)((w >> 5 & 0x7ffff) ^ 0x40000) - 0x40000
                    : tests ? (int64_t)((w >> 5 & 0x3fff) ^ 0x2000) - 0x2000
                            : (int64_t)((w & 0x3ffffff) ^ 0x2000000) - 0x2000000;
        const uintptr_t to = pc + (uintptr_t)(4 * n);
        const bool leaves = a->limit && (to < a->start || to >= a->limit);
        if (nears || tests) {
            if (n > 0 && !leaves) cprofi_ahead_branch(a, to);
        } else {
            if (leaves) return a->now.lost ? cprofi_ahead_turn(a) : 1; /* a tail call */
            if (to >= a->lowest && to < next) return cprofi_ahead_turn(a);
            if (to < a->lowest) a->lowest = to;
            a->now.pc = to;
            return 0;
        }
    } else if ((w & 0x3a000000) == 0x28000000 || (w & 0x3a000000) == 0x38000000) {
        if (!cprofi_ahead_memory(&a->now, w)) return cprofi_ahead_turn(a);
    } else {
        cprofi_ahead_arithmetic(&a->now, w);
    }
    a->now.pc = next;
    return 0;
}

/* [signal] clang 14 describes only what is between prologue and epilogue; of these the tables say
   what they say of the first instruction, and of the last before. So where a return, or the start,
   is a few instructions away without a branch, the code is believed. */
static bool cprofi_ahead_near(const cprofi_unwinder *u, uintptr_t pc, uintptr_t start,
                              uintptr_t limit, cprofi_rule *rule) {
    cprofi_ahead a;
    uint32_t words[CPROFI_KEPT];
    const bool first = rule->cfa ==
                       cprofi_rule_make(CPROFI_RULE_SIMPLE, CPROFI_SP, CPROFI_CALL, 0).cfa;
    memset(&a, 0, sizeof a);
    memset(a.now.at, 0xff, sizeof a.now.at);
    a.u = u;
    a.verified = 1;
    a.start = start;
    a.limit = limit;
    a.now.pc = a.first = first ? start : pc;
    a.now.entering = first;
    if (first && pc - start > 4 * CPROFI_AHEAD_NEAR) return false;
    for (size_t i = 0; i < CPROFI_AHEAD_NEAR; i++) {
        const uint32_t w = cprofi_ahead_word(&a, a.now.pc);
        const bool branches = (w & 0x7c000000) == 0x34000000 || (w & 0xff000010) == 0x54000000 ||
                              (w & 0xfc000000) == 0x94000000 || (w & 0xfee00000) == 0xd6200000;
        if (first && a.now.pc == pc) {
            if (!a.now.offset || a.now.lost) return false;
            for (size_t k = 0; k < CPROFI_KEPT; k++)
                words[k] = a.now.at[k] == -1 ? 0 : (uint32_t)(-a.now.at[k] / CPROFI_WORD);
            *rule = cprofi_rule_make(CPROFI_RULE_GUESS, CPROFI_SP, -a.now.offset, 0);
            return cprofi_rule_save(rule, words);
        }
        if (branches) return false;
        switch (cprofi_ahead_pass(&a)) {
        case 0: break;
        case 1: return !first && cprofi_ahead_rule(&a.now, rule);
        default: return false;
        }
    }
    return false;
}

/* [signal] `mov x8, #93; svc #0` */
static bool cprofi_ahead_exits(const cprofi_unwinder *u, uintptr_t pc) {
    cprofi_ahead a;
    memset(&a, 0, sizeof a);
    a.u = u;
    a.verified = 1;
    for (size_t i = 0; i < 4; i++, pc += 4)
        if ((cprofi_ahead_word(&a, pc) & 0x7fffffff) == 0x52800ba8)
            return cprofi_ahead_word(&a, pc + 4) == CPROFI_SYSCALL;
    return false;
}

/* [signal] `mov x8, #139; svc #0`, where the kernel or libc has it, at the first or the second. */
static bool cprofi_ahead_restorer(const cprofi_unwinder *u, uintptr_t pc) {
    cprofi_ahead a;
    memset(&a, 0, sizeof a);
    a.u = u;
    a.verified = 1;
    if (cprofi_ahead_word(&a, pc) == CPROFI_SYSCALL) pc -= 4;
    return (cprofi_ahead_word(&a, pc) & 0x7fffffff) == 0x52801168 &&
           cprofi_ahead_word(&a, pc + 4) == CPROFI_SYSCALL;
}
#elif defined(CPROFI_ARM)
/* Arm Architecture Reference Manual ARMv7-A, A5 (ARM encodings), A6 (Thumb). Instructions under a
   condition are taken for not executed. There are no tables that tell where a function ends, so the
   way may lead on into the next one, behind a call that never returns. What shows it is that r14 is
   saved, or returned to, though a call has overwritten it: then that way is no good. */

enum { CPROFI_AHEAD_BEFORE = 1, CPROFI_AHEAD_UP = 2, CPROFI_AHEAD_BACK = 4 }; /* P, U, W */

/* [signal] `size` bytes of code; 0 if they cannot be read. */
static uint32_t cprofi_ahead_code(cprofi_ahead *a, uintptr_t pc, size_t size) {
    uintptr_t now = a->now.pc;
    uint32_t word = 0;
    a->now.pc = pc;
    if (cprofi_ahead_fetch(a, size)) memcpy(&word, a->code, size);
    a->now.pc = now;
    return word;
}

/* [signal] A constant of 8 bits, rotated. */
static int32_t cprofi_ahead_rotated(uint32_t n, uint32_t by) {
    return (int32_t)(by ? n >> by | n << (32 - by) : n);
}

/* [signal] 1: it returns by r14, as far as that can be; else -1. */
static int cprofi_ahead_returns(const cprofi_ahead_state *now) {
    return now->lost || (now->stored && now->at[1] == -1) ? -1 : 1;
}

/* [signal] Leaves by a jump to anywhere: that is a return if r14 has just been restored. */
static int cprofi_ahead_leaves(const cprofi_ahead_state *now) {
    return now->lost || now->at[1] == -1 || now->at[1] + CPROFI_WORD != now->offset ? -1 : 1;
}

/* [signal] Loads or stores registers by SP: those in `list`, lowest first, from n bytes off SP on,
   after which SP has moved by `moves`. 1: it returns, -1: lost. */
static int cprofi_ahead_moved(cprofi_ahead_state *now, uint32_t list, int32_t n, int32_t moves,
                              bool load) {
    int32_t at = now->offset + n;
    if (!load && moves < 0 && now->stored && list >> CPROFI_RA & 1) return -1;
    for (uint32_t i = 0; load && !now->lost && i < CPROFI_REGS; i++) {
        if (!(list >> i & 1)) continue;
        if (i == CPROFI_RA && at < 0) now->stored = 0; /* as it was saved on the way */
        for (size_t k = 0; k < CPROFI_KEPT; k++) /* below where SP is now: not saved yet */
            if (cprofi_kept[k] == (i == CPROFI_PC ? (uint32_t)CPROFI_RA : i))
                now->at[k] = at < 0 && !now->from_fp ? -1 : at;
        at += CPROFI_WORD;
    }
    now->offset += moves;
    if (!load || !(list >> CPROFI_PC & 1)) return 0;
    return now->lost ? -1 : 1;
}

/* [signal] ldm, stm by SP. */
static int cprofi_ahead_list(cprofi_ahead_state *now, uint32_t list, uint32_t mode, bool load) {
    const bool up = mode & CPROFI_AHEAD_UP, before = mode & CPROFI_AHEAD_BEFORE;
    int32_t size = 0;
    if (load && list >> CPROFI_SP & 1) return -1;
    for (uint32_t i = 0; i < CPROFI_REGS; i++) size += CPROFI_WORD * (int32_t)(list >> i & 1);
    return cprofi_ahead_moved(now, list, (up ? 0 : -size) + (before == up ? CPROFI_WORD : 0),
                              !(mode & CPROFI_AHEAD_BACK) ? 0 : up ? size : -size, load);
}

/* [signal] ldr, str, ldrd, strd by SP. */
static int cprofi_ahead_one(cprofi_ahead_state *now, uint32_t list, uint32_t n, uint32_t mode,
                            bool load) {
    const int32_t by = mode & CPROFI_AHEAD_UP ? (int32_t)n : -(int32_t)n;
    const bool before = mode & CPROFI_AHEAD_BEFORE;
    return cprofi_ahead_moved(now, list, before ? by : 0,
                              !before || mode & CPROFI_AHEAD_BACK ? by : 0, load);
}

/* [signal] to = from + n */
static void cprofi_ahead_add(cprofi_ahead_state *now, uint32_t to, uint32_t from, int32_t n) {
    const uint32_t fp = CPROFI_FRAME(now->pc);
    if (to == CPROFI_SP && from == CPROFI_SP) {
        now->offset += n;
    } else if (to == CPROFI_SP && from == fp) {
        cprofi_ahead_from_fp(now, now->fp_set ? n : now->fp + n);
    } else if (to == CPROFI_SP) {
        now->lost = true;
    } else if (to == fp && from == CPROFI_SP && !now->lost) {
        now->fp_set = true;
        now->fp = now->offset + n;
    } else if (to == fp && from == fp) { /* Thumb code adds what `mov sp, r7` then takes off */
        now->fp += n;
    }
}

/* [signal] A jump or, with a condition, a branch. */
static int cprofi_ahead_jump(cprofi_ahead *a, uintptr_t to, bool conditional) {
    if (!conditional && cprofi_ahead_leaves(&a->now) == 1) return 1;
    if (!conditional) {
        a->now.pc = to;
        return 0;
    }
    for (size_t i = 0; i < CPROFI_AHEAD_TURNS; i++)
        if (a->branches[i].pc == to) return 0;
    cprofi_ahead_branch(a, to);
    return 0;
}

/* [signal] -1: lost, 0: go on, 1: it returns, 2: it ends its thread or the process. */
static int cprofi_ahead_arm(cprofi_ahead *a) {
    cprofi_ahead_state *now = &a->now;
    const uintptr_t pc = now->pc;
    const uint32_t w = cprofi_ahead_code(a, pc, 4), base = w >> 16 & 15, to = w >> 12 & 15;
    const uint32_t mode = (w >> 24 & 1) | (w >> 22 & 2) | (w >> 19 & 4);
    const bool load = w >> 20 & 1;
    now->pc = pc + 4;
    if (w == 0 || (w & 0xfff000f0) == 0xe7f000f0) return -1; /* nothing, udf */
    if ((w & 0x0f000000) == 0x0a000000 && w >> 28 != 15) {
        int32_t n = (int32_t)((w & 0xffffff) ^ 0x800000) - 0x800000;
        return cprofi_ahead_jump(a, pc + 8 + (uintptr_t)(4 * n), w >> 28 != 14);
    }
    if ((w & 0x0f000000) == 0x0b000000 || w >> 25 == 0x7d || (w & 0x0ffffff0) == 0x012fff30)
        now->stored = 1; /* bl, blx */
    if (w >> 28 != 14) return 0;
    if (w == 0xe12fff1e || w == 0xe1a0f00e) return cprofi_ahead_returns(now); /* bx, mov pc, lr */
    if ((w & 0x0ffffff0) == 0x012fff10) return cprofi_ahead_leaves(now);      /* bx */
    if (w == 0xe3a07001 || w == 0xe3a070f8) /* mov r7, #1: exit; 248: exit_group */
        return cprofi_ahead_code(a, pc + 4, 4) == 0xef000000 ? 2 : 0;
    if ((w & 0x0e000000) == 0x08000000) { /* ldm, stm */
        if (base == CPROFI_SP) return cprofi_ahead_list(now, w & 0xffff, mode, load);
        return load && w >> CPROFI_PC & 1 ? -1 : 0;
    }
    if ((w & 0x0c000000) == 0x04000000 && (w & 0x02000010) != 0x02000010) { /* ldr, str */
        if (base == CPROFI_SP && !(w & 0x02400000))
            return cprofi_ahead_one(now, 1u << to, w & 0xfff, mode, load);
        if (load && to == CPROFI_PC) return base == 12 ? cprofi_ahead_returns(now) : -1; /* PLT */
        return 0;
    }
    if ((w & 0x0e5000d0) == 0x004000d0) { /* ldrd, strd */
        if (base != CPROFI_SP) return 0;
        return cprofi_ahead_one(now, 3u << to, (w >> 4 & 0xf0) | (w & 15), mode, !(w & 0x20));
    }
    if ((w & 0x0e200e00) == 0x0c200a00 && base == CPROFI_SP) { /* vpush, vpop */
        now->offset += (mode & CPROFI_AHEAD_UP ? 4 : -4) * (int32_t)(w & 0xff);
        return 0;
    }
    if ((w & 0x0fe0007f) == 0x07c0001f && to == CPROFI_SP) now->lost = true; /* bfc */
    /* what is left is data processing, but for multiplications and those that set flags only */
    if (w & 0x0c000000 || (w & 0x02000090) == 0x00000090 || (w & 0x01800000) == 0x01000000)
        return 0;
    if ((w & 0x0feff000) == 0x008ff000) { /* add pc, pc: to a case, or into a row of moves */
        now->pc = pc + 8;
        return 0;
    }
    if ((w & 0x0fe00000) == 0x02800000 || (w & 0x0fe00000) == 0x02400000) { /* add, sub */
        int32_t n = cprofi_ahead_rotated(w & 0xff, w >> 7 & 30);
        cprofi_ahead_add(now, to, base, w & 0x00800000 ? n : -n);
    } else if ((w & 0x0fff0ff0) == 0x01a00000) { /* mov */
        cprofi_ahead_add(now, to, w & 15, 0);
    } else if (to == CPROFI_SP) {
        now->lost = true;
    }
    return to == CPROFI_PC ? -1 : 0;
}

/* [signal] As above; now.pc is behind the instruction. */
static int cprofi_ahead_thumb16(cprofi_ahead *a, uint32_t h) {
    cprofi_ahead_state *now = &a->now;
    const uintptr_t pc = now->pc + 2; /* as instructions see it */
    const uint32_t low = h >> 8 & 7, to = (h >> 4 & 8) | (h & 7), from = h >> 3 & 15;
    const bool load = h & 0x0800;
    if ((h & 0xf600) == 0xb400) /* push, pop */
        return cprofi_ahead_list(now, (h & 0xff) | (h & 0x100) << (load ? 7 : 6),
                                 CPROFI_AHEAD_BACK | (load ? CPROFI_AHEAD_UP : CPROFI_AHEAD_BEFORE),
                                 load);
    if ((h & 0xf000) == 0x9000) /* ldr, str */
        return cprofi_ahead_one(now, 1u << low, 4 * (h & 0xff),
                                CPROFI_AHEAD_UP | CPROFI_AHEAD_BEFORE, load);
    if ((h & 0xff00) == 0xb000) { /* add, sub */
        now->offset += (h & 0x80 ? -4 : 4) * (int32_t)(h & 0x7f);
    } else if ((h & 0xf800) == 0xa800) {
        cprofi_ahead_add(now, low, CPROFI_SP, 4 * (int32_t)(h & 0xff));
    } else if ((h & 0xf000) == 0x3000) {
        cprofi_ahead_add(now, low, low, load ? -(int32_t)(h & 0xff) : (int32_t)(h & 0xff));
    } else if (h == 0x2701 || h == 0x27f8) { /* mov r7, #1: exit; 248: exit_group */
        return cprofi_ahead_code(a, now->pc - 1, 2) == 0xdf00 ? 2 : 0;
    } else if ((h & 0xff00) == 0x4600) { /* mov */
        if (to == CPROFI_PC) return from == CPROFI_RA ? cprofi_ahead_returns(now) : -1;
        cprofi_ahead_add(now, to, from, 0);
    } else if ((h & 0xff00) == 0x4400) { /* add of a register */
        if (to == CPROFI_SP) now->lost = true;
        return to == CPROFI_PC ? -1 : 0;
    } else if (h == 0x4778) { /* bx pc: to ARM code */
        now->pc = pc & ~(uintptr_t)3;
    } else if ((h & 0xff87) == 0x4700) { /* bx */
        return from == CPROFI_RA ? cprofi_ahead_returns(now) : cprofi_ahead_leaves(now);
    } else if ((h & 0xff87) == 0x4780) { /* blx */
        now->stored = 1;
    } else if ((h & 0xff00) == 0xde00 || h == 0) { /* udf */
        return -1;
    } else if ((h & 0xf000) == 0xd000 && h < 0xdf00) {
        int32_t n = (int32_t)((h & 0xff) ^ 0x80) - 0x80;
        return cprofi_ahead_jump(a, pc + (uintptr_t)(2 * n), true);
    } else if ((h & 0xf800) == 0xe000) {
        int32_t n = (int32_t)((h & 0x7ff) ^ 0x400) - 0x400;
        return cprofi_ahead_jump(a, pc + (uintptr_t)(2 * n), false);
    } else if ((h & 0xf500) == 0xb100) { /* cbz, cbnz */
        return cprofi_ahead_jump(a, pc + (h >> 3 & 0x40) + (h >> 2 & 0x3e), true);
    }
    return 0;
}

/* [signal] Whether this is the number of exit or exit_group, put into ip. */
static bool cprofi_ahead_number(uint32_t w) { return w == 0x0c01f04f || w == 0x0cf8f04f; }

/* [signal] b, bl, blx. glibc's system calls call `push {r7, lr}; mov r7, ip; svc #0`. */
static int cprofi_ahead_far(cprofi_ahead *a, uint32_t h, uint32_t l) {
    const uintptr_t pc = a->now.pc;
    const uint32_t s = h >> 10 & 1, low = (l & 0x7ff) << 1;
    const uint32_t i1 = !((l >> 13 & 1) ^ s), i2 = !((l >> 11 & 1) ^ s);
    const uintptr_t far = pc + ((s ? 0xff000000u : 0) | i1 << 23 | i2 << 22 | (h & 0x3ff) << 12 |
                                low);
    if (l & 0x4000) {
        a->now.stored = 1;
        return (cprofi_ahead_number(cprofi_ahead_code(a, pc - 9, 4)) ||
                cprofi_ahead_number(cprofi_ahead_code(a, pc - 11, 4))) &&
               cprofi_ahead_code(a, far - 1, 4) == 0x4667b580 &&
               cprofi_ahead_code(a, far + 3, 2) == 0xdf00 ? 2 : 0;
    }
    if (l & 0x1000) return cprofi_ahead_jump(a, far, false);
    if ((h & 0x380) == 0x380) /* barriers and such; udf */
        return (h & 0xfff0) == 0xf7f0 && (l & 0xf000) == 0xa000 ? -1 : 0;
    return cprofi_ahead_jump(a, pc + ((s ? 0xfff00000u : 0) | (l & 0x800) << 8 | (l & 0x2000) << 5 |
                                      (h & 0x3f) << 12 | low), true);
}

/* [signal] The same of 32 bits. */
static int cprofi_ahead_thumb32(cprofi_ahead *a, uint32_t h, uint32_t l) {
    cprofi_ahead_state *now = &a->now;
    const uint32_t base = h & 15, to = l >> 8 & 15, reg = l >> 12;
    const uint32_t mode = (h >> 8 & 1) | (h >> 6 & 2) | (h >> 3 & 4);
    if ((h & 0xf800) == 0xf000 && l & 0x8000) return cprofi_ahead_far(a, h, l);
    if (h == 0xf04f && (l == 0x0701 || l == 0x07f8)) /* mov r7 */
        return cprofi_ahead_code(a, now->pc - 1, 2) == 0xdf00 ? 2 : 0;
    if ((h & 0xfff0) == 0xe8d0 && (l & 0xffe0) == 0xf000) { /* tbb, tbh: to the first case */
        uint32_t by = cprofi_ahead_code(a, now->pc - 1, 2);
        if (base != CPROFI_PC) return -1;
        now->pc += 2 * (uintptr_t)(l & 0x10 ? by : by & 0xff);
        return 0;
    }
    if ((h & 0xff70) == 0xf850 && reg == CPROFI_PC && base != CPROFI_SP) /* ldr; the PLT's */
        return base == 12 ? cprofi_ahead_returns(now) : -1;
    if (base == CPROFI_SP && (h & 0xfe40) == 0xe800) /* ldm, stm */
        return cprofi_ahead_list(now, l, mode, h & 0x10);
    if (base == CPROFI_SP && (h & 0xfe40) == 0xe840 && mode & 5) /* ldrd, strd */
        return cprofi_ahead_one(now, 1u << reg | 1u << to, 4 * (l & 0xff), mode, h & 0x10);
    if ((h & 0xffef) == 0xf84d && l & 0x0800) /* ldr, str */
        return cprofi_ahead_one(now, 1u << reg, l & 0xff,
                                (l >> 10 & 1) | (l >> 8 & 2) | (l >> 6 & 4), h & 0x10);
    if ((h & 0xffef) == 0xf8cd)
        return cprofi_ahead_one(now, 1u << reg, l & 0xfff, CPROFI_AHEAD_UP | CPROFI_AHEAD_BEFORE,
                                h & 0x10);
    if (base == CPROFI_SP && (h & 0xfe20) == 0xec20 && (l & 0xe00) == 0xa00) { /* vpush, vpop */
        now->offset += (mode & CPROFI_AHEAD_UP ? 4 : -4) * (int32_t)(l & 0xff);
    } else if ((h & 0xf800) == 0xf000) { /* with a constant */
        uint32_t n = (h << 1 & 0x800) | (l >> 4 & 0x700) | (l & 0xff);
        const bool plain = h & 0x200, wide = plain || n < 0x100 || n >= 0x400;
        if (!plain && n >= 0x400) n = (uint32_t)cprofi_ahead_rotated(0x80 | (n & 0x7f), n >> 7);
        if (wide && (h & 0xfbe0) == (plain ? 0xf200u : 0xf100u))
            cprofi_ahead_add(now, to, base, (int32_t)n);
        else if (wide && (h & 0xfbe0) == (plain ? 0xf2a0u : 0xf1a0u))
            cprofi_ahead_add(now, to, base, -(int32_t)n);
        else if (to == CPROFI_SP)
            now->lost = true;
    } else if ((h & 0xfe00) == 0xea00 && to == CPROFI_SP) { /* with a register */
        now->lost = true;
    }
    return 0;
}

/* [signal] Passes one instruction; in Thumb code, up to five with an IT block. */
static int cprofi_ahead_pass(cprofi_ahead *a) {
    const uint32_t bit = 1u << (a->now.pc >> 1 & 31);
    uint32_t h, l, *seen = &a->seen[(a->now.pc >> 6) % CPROFI_AHEAD_SEEN];
    int result;
    if (*seen & bit) return cprofi_ahead_turn(a);
    *seen |= bit;
    if (!(a->now.pc & CPROFI_MODE)) {
        result = cprofi_ahead_arm(a);
    } else {
        h = cprofi_ahead_code(a, a->now.pc - 1, 2);
        l = h < 0xe800 ? 0 : cprofi_ahead_code(a, a->now.pc + 1, 2);
        a->now.pc += h < 0xe800 ? 2 : 4;
        if ((h & 0xff00) == 0xbf00 && h & 15) { /* it */
            for (; h & 15; h <<= 1)
                a->now.pc += cprofi_ahead_code(a, a->now.pc - 1, 2) < 0xe800 ? 2 : 4;
            return 0;
        }
        result = h < 0xe800 ? cprofi_ahead_thumb16(a, h) : cprofi_ahead_thumb32(a, h, l);
    }
    return result < 0 ? cprofi_ahead_turn(a) : result;
}

/* [signal] */
static bool cprofi_ahead_near(const cprofi_unwinder *u, uintptr_t pc, uintptr_t start,
                              uintptr_t limit, cprofi_rule *rule) {
    (void)u, (void)pc, (void)start, (void)limit, (void)rule;
    return false;
}

/* [signal] Seen on the way: see cprofi_ahead_arm. */
static bool cprofi_ahead_exits(const cprofi_unwinder *u, uintptr_t pc) {
    (void)u, (void)pc;
    return false;
}

/* [signal] At, or behind, `mov r7, #number` before a system call sigreturn or rt_sigreturn. */
static bool cprofi_ahead_restorer(const cprofi_unwinder *u, uintptr_t pc) {
    cprofi_ahead a;
    uint32_t w;
    memset(&a, 0, sizeof a);
    a.u = u;
    a.verified = 1;
    if (pc & CPROFI_MODE) {
        w = cprofi_ahead_code(&a, --pc, 4);
        if ((w & 0xffff) == 0xdf00) w = cprofi_ahead_code(&a, pc - 2, 4);
        if (w == 0x0777f04f || w == 0x07adf04f) return cprofi_ahead_code(&a, pc + 4, 2) == 0xdf00;
        return w == 0xdf002777 || w == 0xdf0027ad;
    }
    w = cprofi_ahead_code(&a, pc, 4);
    if (w == 0xef000000) w = cprofi_ahead_code(&a, pc -= 4, 4);
    return (w == 0xe3a07077 || w == 0xe3a070ad) && cprofi_ahead_code(&a, pc + 4, 4) == 0xef000000;
}
#endif

/* [signal] */
static cprofi_rule cprofi_rule_ahead(const cprofi_unwinder *u, uintptr_t pc, uintptr_t start,
                                     uintptr_t limit) {
    const cprofi_rule pointer = cprofi_rule_make(CPROFI_RULE_POINTER, 0, 0, 0);
    cprofi_ahead a;
    memset(&a, 0, sizeof a);
    memset(a.now.at, 0xff, sizeof a.now.at);
    a.u = u;
    a.now.pc = a.lowest = a.first = pc;
    a.start = start;
    a.limit = limit;
    a.verified = 1; /* no page begins there */
    for (size_t i = 0; i < CPROFI_AHEAD_MAX; i++) {
        int next = cprofi_ahead_pass(&a);
        if (limit && a.now.pc >= limit && next == 0) next = -1;
        if (next < 0) return pointer;
        if (next == 0) continue;
        if (CPROFI_MODE && next == 2) return cprofi_rule_make(CPROFI_RULE_ROOT, 0, 0, 0);
        cprofi_rule rule;
        return cprofi_ahead_rule(&a.now, &rule) ? rule : pointer;
    }
    return pointer;
}
#endif /* CPROFI_CFI */

/* ---------------------------------------------------------------------------------------------- */
/* >>seh: unwinding by the tables of Windows programs

   Problem: the Windows sampler has a thread's registers and a copy of its stack, the thread runs
   on, and wants the callers. RtlVirtualUnwind reads the live stack, and its look-up takes locks.
   Specification: Microsoft Learn, "x64 exception handling", "x64 prolog and epilog", "ARM64
   exception handling"; what these leave open is told by the unwinder of .NET.

   Idea (x64): .pdata is a sorted table (begin, end, unwind info). The info lists what the prologue
   did, last instruction first, each with the offset behind the instruction: a frame is left by
   undoing those that have been executed. An epilogue is not in the tables of version 1: it shows in
   the code at pc, nothing but pops and then a return or a jump out of the function. The add or lea
   that frees the frame need not be known: until it has been executed, undoing the prologue gives
   the same answer. Only where a thread stands can be in an epilogue, not a caller. Version 2 lists
   where the pops are. Idea (ARM64): unwind codes are bytes, one per instruction of the prologue or
   epilogue, so counting instructions says how many to skip; a packed record is expanded to codes.

   Invariant: tables, code and stack are read through checked spans only; every loop is bounded by
   what it reads, chains by a count; the stack pointer grows from frame to frame. Nothing allocates
   or locks. Cost: a binary search and a few codes a frame, 50 to 150 ns.
   Not handled: x64 version 3 (APX, a preview), ARM64EC contexts, SVE stack allocation, trap frames
   of the kernel; x86 code without frame pointers (FPO) hides its callers. */

typedef enum {
    CPROFI_SEH_FRAME, /* the registers are the caller's now */
    CPROFI_SEH_END,   /* the outermost frame: it returns to address 0, or nothing is above it */
    CPROFI_SEH_BROKEN /* no way on; what the registers hold is of no use */
} cprofi_seh_result;

enum {
    CPROFI_SEH_X64_SP = 4, CPROFI_SEH_X64_BP = 5, CPROFI_SEH_ARM64_FP = 29,
    CPROFI_SEH_ARM64_LR = 30, CPROFI_SEH_ARM64_SP = 31,
    CPROFI_SEH_CHAIN = 32, /* chained unwind infos followed; the limit of Windows */
    CPROFI_SEH_CODE = 64, /* bytes of an epilogue: 16 pops and a jump are fewer */
    CPROFI_SEH_PACKED = 64 /* bytes a packed record expands to; 28 at most */
};

enum { /* x64 unwind operations; EPILOG is an old form of SAVE_XMM128 in version 1 */
    CPROFI_SEH_PUSH_NONVOL, CPROFI_SEH_ALLOC_LARGE, CPROFI_SEH_ALLOC_SMALL, CPROFI_SEH_SET_FPREG,
    CPROFI_SEH_SAVE_NONVOL, CPROFI_SEH_SAVE_NONVOL_FAR, CPROFI_SEH_EPILOG, CPROFI_SEH_SPARE,
    CPROFI_SEH_SAVE_XMM128, CPROFI_SEH_SAVE_XMM128_FAR, CPROFI_SEH_PUSH_MACHFRAME,
    CPROFI_SEH_CHAINED = 4 /* flag of an info that has a parent */
};

/* One type for all processors. x64 and x86: numbers as instructions encode them, 4 is the stack
   pointer, 5 the frame pointer. ARM64: x0 to x30, 31 is the stack pointer. */
typedef struct {
    uint64_t pc, r[32];
} cprofi_seh_registers;

/* The copied stack: the bytes at [lo, hi). */
typedef struct {
    const uint8_t *data;
    uint64_t lo, hi;
} cprofi_seh_stack;

/* Bytes of an image that are there to be read: a section, the whole mapped image (rva 0), or the
   code at a thread's pc, copied while it was suspended. */
typedef struct {
    cprofi_span bytes;
    uint32_t rva;
} cprofi_seh_part;

/* What is known of one image. Code is needed only near where threads stand, and before return
   addresses into them; without it an epilogue goes unnoticed. */
typedef struct {
    uint64_t base;
    cprofi_span pdata; /* the exception directory, sorted; macOS: __unwind_info */
    const cprofi_seh_part *parts;
    size_t part_count;
    const uint32_t *starts; /* macOS: where functions begin, from the image's start, ascending */
    size_t start_count;
} cprofi_seh_image;

/* Who knows the images: fills *image with the one that holds `address`; false: there is none. */
typedef struct {
    bool (*find)(void *user, uint64_t address, cprofi_seh_image *image);
    void *user;
} cprofi_seh_images;

/* A frame. The owner sets all but the last two; each step makes it the caller's. */
typedef struct {
    const cprofi_seh_images *images;
    cprofi_seh_stack stack;
    cprofi_seh_registers regs;
    bool exact; /* pc is where a thread stands or was interrupted, not a return address */
    bool known; /* its code is in `image` */
    cprofi_seh_image image;
} cprofi_seh_frame;

typedef cprofi_seh_result (*cprofi_seh_step)(cprofi_seh_frame *f);

/* ---- reading */

static inline uint32_t cprofi_seh_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* What is there from `rva` on, at least `size` bytes; NULL data if fewer. */
static cprofi_span cprofi_seh_bytes(const cprofi_seh_image *image, uint64_t rva, size_t size) {
    cprofi_span none = {NULL, 0};
    for (size_t i = 0; i < image->part_count; i++) {
        const cprofi_seh_part *part = &image->parts[i];
        uint64_t at = rva - part->rva, all = part->bytes.size;
        if (rva >= part->rva && at < all && all - at >= size)
            return cprofi_span_part(part->bytes, at, all - at);
    }
    return none;
}

/* The 8 bytes of stack at `address`, if the copy has them. */
static bool cprofi_seh_word(const cprofi_seh_frame *f, uint64_t address, uint64_t *out) {
    const cprofi_seh_stack *s = &f->stack;
    if (address < s->lo || address >= s->hi || s->hi - address < 8) return false;
    memcpy(out, s->data + (size_t)(address - s->lo), 8);
    return true;
}

/* Whether `pc` can be code: user addresses have 47 bits, the first 64 KB are never mapped, and
   nobody runs code on the stack. */
static bool cprofi_seh_plausible(const cprofi_seh_frame *f, uint64_t pc) {
    return pc >= 0x10000 && pc >> 47 == 0 && (pc < f->stack.lo || pc >= f->stack.hi);
}

/* What the caller that was found is worth. least: the stack pointer it has at least. */
static cprofi_seh_result cprofi_seh_check(const cprofi_seh_frame *f, uint64_t sp, uint64_t least) {
    if (f->regs.pc == 0) return CPROFI_SEH_END;
    if (sp < least || sp > f->stack.hi || !cprofi_seh_plausible(f, f->regs.pc))
        return CPROFI_SEH_BROKEN;
    return CPROFI_SEH_FRAME;
}

/* By the frame pointer: `fp` points at the caller's, the return address is in the word above. False
   if that does not look like a frame. Sets all three. */
static bool cprofi_seh_pointer(const cprofi_seh_frame *f, uint64_t *fp, uint64_t *sp,
                               uint64_t *pc) {
    uint64_t caller, ra;
    if (*fp < *sp || *fp % 8 != 0 || !cprofi_seh_word(f, *fp, &caller) ||
        !cprofi_seh_word(f, *fp + 8, &ra))
        return false;
    if (caller != 0 && (caller <= *fp || caller >= f->stack.hi || caller % 8 != 0)) return false;
    *sp = *fp + 16;
    *fp = caller;
    *pc = ra;
    return true;
}

/* Sets image and known of a frame. size: of the shortest call. Returns the RVA of its code. */
static uint64_t cprofi_seh_open(cprofi_seh_frame *f, uint64_t size) {
    uint64_t address = f->regs.pc - (f->exact ? 0 : size);
    f->known = f->images->find(f->images->user, address, &f->image);
    return f->known ? address - f->image.base : 0;
}

/* The last record of `size` bytes in .pdata that begins at `rva` or before, or NULL. */
static const uint8_t *cprofi_seh_search(const cprofi_seh_image *image, uint64_t rva, size_t size) {
    const uint8_t *table = image->pdata.data;
    size_t lo = 0, hi = image->pdata.size / size;
    while (lo < hi) {
        size_t middle = lo + (hi - lo) / 2;
        if (cprofi_seh_u32(table + middle * size) <= rva) lo = middle + 1;
        else hi = middle;
    }
    return lo ? table + (lo - 1) * size : NULL;
}

/* ---- x64 */

typedef struct {
    uint32_t begin, end, info;
} cprofi_seh_entry;

/* An unwind info in place. */
typedef struct {
    const uint8_t *codes; /* two bytes a slot: offset in the prologue; operand and operation */
    size_t count;
    uint8_t version, flags, frame_register;
    uint32_t frame_offset;
    cprofi_seh_entry parent; /* with CPROFI_SEH_CHAINED */
} cprofi_seh_info;

static cprofi_seh_entry cprofi_seh_x64_entry(const uint8_t *p) {
    cprofi_seh_entry e = {cprofi_seh_u32(p), cprofi_seh_u32(p + 4), cprofi_seh_u32(p + 8)};
    return e;
}

static bool cprofi_seh_x64_find(const cprofi_seh_image *image, uint64_t rva, cprofi_seh_entry *e) {
    const uint8_t *p = cprofi_seh_search(image, rva, 12);
    if (!p) return false;
    *e = cprofi_seh_x64_entry(p);
    return rva < e->end;
}

/* Reads the unwind info of an entry, which an odd address makes that of another entry. */
static bool cprofi_seh_x64_info(const cprofi_seh_image *image, cprofi_seh_entry *e,
                                cprofi_seh_info *info) {
    cprofi_span s;
    for (int i = 0; e->info & 1; i++) {
        s = cprofi_seh_bytes(image, e->info & ~(uint32_t)1, 12);
        if (!s.data || i == CPROFI_SEH_CHAIN) return false;
        *e = cprofi_seh_x64_entry(s.data);
    }
    s = cprofi_seh_bytes(image, e->info, 4);
    if (!s.data) return false;
    info->version = s.data[0] & 7;
    info->flags = s.data[0] >> 3;
    info->count = s.data[2];
    info->frame_register = s.data[3] & 15;
    info->frame_offset = s.data[3] / 16 * 16u;
    info->codes = s.data + 4;
    size_t size = 4 + (info->count + 1) / 2 * 4; /* an even number of slots */
    if (info->flags & CPROFI_SEH_CHAINED) {
        if (s.size < size + 12) return false;
        info->parent = cprofi_seh_x64_entry(s.data + size);
    }
    return s.size >= 4 + 2 * info->count && (info->version == 1 || info->version == 2);
}

static unsigned cprofi_seh_x64_op(const cprofi_seh_info *info, size_t i) {
    return info->codes[2 * i + 1] & 15u;
}

/* How many slots an operation takes; more than there are if it is unknown. */
static size_t cprofi_seh_x64_slots(const cprofi_seh_info *info, size_t i) {
    static const uint8_t slots[11] = {1, 2, 1, 1, 2, 3, 2, 3, 2, 3, 1};
    unsigned op = cprofi_seh_x64_op(info, i);
    if (op > CPROFI_SEH_PUSH_MACHFRAME) return info->count + 1;
    if (op == CPROFI_SEH_ALLOC_LARGE && info->codes[2 * i + 1] >> 4) return 3;
    if (op == CPROFI_SEH_EPILOG && info->version == 2) return 1;
    return slots[op];
}

static bool cprofi_seh_x64_pop(cprofi_seh_frame *f, uint64_t *to) {
    uint64_t *sp = &f->regs.r[CPROFI_SEH_X64_SP];
    if (!cprofi_seh_word(f, *sp, to)) return false;
    *sp += 8;
    return true;
}

static cprofi_seh_result cprofi_seh_x64_return(cprofi_seh_frame *f, uint64_t least) {
    if (f->regs.r[CPROFI_SEH_X64_SP] == f->stack.hi) return CPROFI_SEH_END;
    if (!cprofi_seh_x64_pop(f, &f->regs.pc)) return CPROFI_SEH_BROKEN;
    f->exact = false;
    return cprofi_seh_check(f, f->regs.r[CPROFI_SEH_X64_SP], least);
}

/* Whether a jump to `target` leaves the function: it goes to where no entry knows of a frame, or to
   the beginning of a function, where nothing is on the stack yet. A chained entry, and one that has
   a frame from its first instruction on, is a part of a function that was put elsewhere. */
static bool cprofi_seh_x64_leaves(const cprofi_seh_image *image, uint64_t target) {
    cprofi_seh_entry e;
    cprofi_seh_info info;
    if (!cprofi_seh_x64_find(image, target, &e)) return true;
    if (!cprofi_seh_x64_info(image, &e, &info) || (info.flags & CPROFI_SEH_CHAINED) ||
        e.begin != target)
        return false;
    for (size_t i = 0; i < info.count; i += cprofi_seh_x64_slots(&info, i))
        if (info.codes[2 * i] == 0 && cprofi_seh_x64_op(&info, i) != CPROFI_SEH_EPILOG)
            return false;
    return true;
}

/* Whether the instruction at `code` ends a function. */
static bool cprofi_seh_x64_ends(const cprofi_seh_image *image, cprofi_bytes code, uint64_t rva) {
    const uint8_t *start = code.at;
    uint8_t op = cprofi_u8(&code), rex = 0, modrm;
    if (op == 0xf2) op = cprofi_u8(&code); /* bnd: no matter */
    if ((op & 0xf0) == 0x40) {
        rex = op;
        op = cprofi_u8(&code);
    }
    switch (op) {
    case 0xc2: case 0xc3: return !code.bad; /* ret */
    case 0xf3: return cprofi_u8(&code) == 0xc3; /* rep ret */
    case 0xe9: case 0xeb: { /* jmp */
        int64_t distance = op == 0xeb ? (int8_t)cprofi_u8(&code) : (int32_t)cprofi_u32(&code);
        rva += (uint64_t)(code.at - start) + (uint64_t)distance;
        return !code.bad && cprofi_seh_x64_leaves(image, rva);
    }
    case 0xff:
        /* jmp to where a word says: [rip+n], an import; else compilers give a needless REX.W to
           tail calls and none to the jumps of switch statements */
        modrm = cprofi_u8(&code);
        return !code.bad && (modrm == 0x25 || ((rex & 8) && (modrm & 0x38) == 0x20));
    default: return false;
    }
}

/* True if the code at pc is the rest of an epilogue, behind the freeing of the frame; then its pops
   are done, and the return address is on top of the stack. listed: it is one, says version 2. */
static bool cprofi_seh_x64_epilogue(cprofi_seh_frame *f, uint64_t rva, bool listed) {
    cprofi_span code = cprofi_seh_bytes(&f->image, rva, 1);
    if (code.size > CPROFI_SEH_CODE) code.size = CPROFI_SEH_CODE;
    cprofi_seh_registers saved = f->regs;
    for (;;) {
        size_t rex = code.size && (code.data[0] & 0xf0) == 0x40;
        if (code.size <= rex || (code.data[rex] & 0xf8) != 0x58) break;
        size_t reg = (code.data[rex] & 7u) | (rex && (code.data[0] & 1) ? 8u : 0u);
        if (reg == CPROFI_SEH_X64_SP || !cprofi_seh_x64_pop(f, &f->regs.r[reg])) break;
        rva += rex + 1;
        code = cprofi_span_part(code, rex + 1, code.size - rex - 1);
    }
    if (code.size && (listed || cprofi_seh_x64_ends(&f->image, cprofi_bytes_of(code), rva)))
        return true;
    f->regs = saved;
    return false;
}

/* Version 2: whether `rva` is among the pops of an epilogue. The first code has the size of all
   epilogues, and whether one is at the function's end; each other the distance of one from there,
   0 for padding. */
static bool cprofi_seh_x64_listed(const cprofi_seh_info *info, const cprofi_seh_entry *e,
                                  uint64_t rva) {
    for (size_t i = 0; i < info->count; i++) {
        const uint8_t *code = info->codes + 2 * i;
        uint64_t size = info->codes[0], distance = code[0];
        if (cprofi_seh_x64_op(info, i) != CPROFI_SEH_EPILOG) return false;
        if (i > 0) distance |= (uint64_t)(code[1] >> 4) << 8;
        else if (!(code[1] & 16)) continue;
        if (distance && rva + distance >= e->end && rva + distance - e->end < size) return true;
    }
    return false;
}

/* Undoes one operation. base: what saved registers are relative to. False if the stack does not
   have what was saved. */
static bool cprofi_seh_x64_undo(cprofi_seh_frame *f, const cprofi_seh_info *info, size_t i,
                                uint64_t base) {
    const uint8_t *code = info->codes + 2 * i;
    size_t slots = cprofi_seh_x64_slots(info, i), operand = code[1] >> 4;
    uint64_t *sp = &f->regs.r[CPROFI_SEH_X64_SP], word, number = 0;
    if (slots == 2) number = 8u * (code[2] | (uint32_t)code[3] << 8);
    if (slots == 3) number = cprofi_seh_u32(code + 2);
    switch (code[1] & 15) {
    case CPROFI_SEH_PUSH_NONVOL:
        if (!cprofi_seh_x64_pop(f, &word)) return false;
        if (operand != CPROFI_SEH_X64_SP) f->regs.r[operand] = word;
        return true;
    case CPROFI_SEH_ALLOC_LARGE: *sp += number; return true;
    case CPROFI_SEH_ALLOC_SMALL: *sp += 8 * operand + 8; return true;
    case CPROFI_SEH_SET_FPREG:
        *sp = f->regs.r[info->frame_register] - info->frame_offset;
        return true;
    case CPROFI_SEH_SAVE_NONVOL: case CPROFI_SEH_SAVE_NONVOL_FAR:
        return cprofi_seh_word(f, base + number, &f->regs.r[operand]);
    default: return true; /* vector registers, epilogues */
    }
}

/* Pushed by the processor or the system: [error code] rip cs flags rsp ss. */
static cprofi_seh_result cprofi_seh_x64_machine(cprofi_seh_frame *f, bool error, uint64_t least) {
    uint64_t *sp = &f->regs.r[CPROFI_SEH_X64_SP], at = *sp + (error ? 8 : 0);
    f->exact = true;
    return cprofi_seh_word(f, at, &f->regs.pc) && cprofi_seh_word(f, at + 24, sp)
               ? cprofi_seh_check(f, *sp, least)
               : CPROFI_SEH_BROKEN;
}

/* Undoes what has been executed of a prologue and of those it is chained to, and returns. Saved
   registers are relative to the bottom of the fixed frame: what the frame register makes of it, or
   the stack pointer if there is none or it is not set yet. */
static cprofi_seh_result cprofi_seh_x64_prologue(cprofi_seh_frame *f, cprofi_seh_entry e,
                                                 cprofi_seh_info info, uint64_t rva) {
    const uint64_t sp = f->regs.r[CPROFI_SEH_X64_SP], least = sp + 8;
    uint64_t base = info.frame_register ? f->regs.r[info.frame_register] - info.frame_offset : sp;
    for (int chain = 0;; chain++) {
        uint64_t executed = rva - e.begin; /* huge before a parent: all of it was executed */
        for (size_t i = 0, slots; i < info.count; i += slots) {
            slots = cprofi_seh_x64_slots(&info, i);
            if (slots > info.count - i) return CPROFI_SEH_BROKEN;
            if (executed < info.codes[2 * i]) {
                if (cprofi_seh_x64_op(&info, i) == CPROFI_SEH_SET_FPREG) base = sp;
                continue;
            }
            if (cprofi_seh_x64_op(&info, i) == CPROFI_SEH_PUSH_MACHFRAME)
                return cprofi_seh_x64_machine(f, info.codes[2 * i + 1] >> 4, least);
            if (!cprofi_seh_x64_undo(f, &info, i, base)) return CPROFI_SEH_BROKEN;
        }
        if (!(info.flags & CPROFI_SEH_CHAINED)) return cprofi_seh_x64_return(f, least);
        e = info.parent;
        if (chain == CPROFI_SEH_CHAIN || !cprofi_seh_x64_info(&f->image, &e, &info))
            return CPROFI_SEH_BROKEN;
    }
}

/* Whether `pc` is in an image and follows a call there: e8, or ff /2 with up to 5 more bytes; where
   the code is not at hand, whether it is in a function. */
static bool cprofi_seh_x64_returns(const cprofi_seh_frame *f, uint64_t pc) {
    cprofi_seh_image image;
    cprofi_seh_entry e;
    if (!cprofi_seh_plausible(f, pc) || !f->images->find(f->images->user, pc - 1, &image))
        return false;
    cprofi_span code = cprofi_seh_bytes(&image, pc - 7 - image.base, 7);
    if (!code.data) return cprofi_seh_x64_find(&image, pc - 1 - image.base, &e);
    for (size_t i = 0; i < 6; i++)
        if ((code.data[i] == 0xff && (code.data[i + 1] & 0x38) == 0x10) ||
            (i == 2 && code.data[i] == 0xe8))
            return true;
    return false;
}

/* Code without an entry has no frame, so the return address is on top of the stack. But the
   routines that touch the stack for large frames (__chkstk) push two registers; and code of no
   image, made at run time, may have a frame pointer. */
static cprofi_seh_result cprofi_seh_x64_leaf(cprofi_seh_frame *f) {
    uint64_t *sp = &f->regs.r[CPROFI_SEH_X64_SP], least = *sp + 8, word;
    cprofi_seh_result result = CPROFI_SEH_BROKEN;
    for (uint64_t i = 0; i < (f->exact ? 3 : f->known ? 1 : 0); i++)
        if (cprofi_seh_word(f, *sp + 8 * i, &word) && cprofi_seh_x64_returns(f, word)) {
            *sp += 8 * i;
            return cprofi_seh_x64_return(f, least);
        }
    if ((f->known && f->exact) ||
        !cprofi_seh_pointer(f, &f->regs.r[CPROFI_SEH_X64_BP], sp, &f->regs.pc)) {
        if (f->known || f->exact) result = cprofi_seh_x64_return(f, least);
    } else {
        f->exact = false;
        result = cprofi_seh_check(f, *sp, least);
    }
    /* threads begin in an image: a 0 here was no return address */
    return result == CPROFI_SEH_END && !f->known ? CPROFI_SEH_BROKEN : result;
}

/* A cprofi_seh_step. */
CPROFI_UNUSED static cprofi_seh_result cprofi_seh_x64_step(cprofi_seh_frame *f) {
    const uint64_t rva = cprofi_seh_open(f, 1), least = f->regs.r[CPROFI_SEH_X64_SP] + 8;
    cprofi_seh_entry e;
    cprofi_seh_info info;
    if (!f->known || !cprofi_seh_x64_find(&f->image, rva, &e)) return cprofi_seh_x64_leaf(f);
    if (!cprofi_seh_x64_info(&f->image, &e, &info)) return CPROFI_SEH_BROKEN;
    bool listed = info.version == 2 && cprofi_seh_x64_listed(&info, &e, rva);
    if (f->exact && (info.version == 1 || listed) && cprofi_seh_x64_epilogue(f, rva, listed))
        return cprofi_seh_x64_return(f, least);
    return cprofi_seh_x64_prologue(f, e, info, rva);
}

/* Where the function that holds `rva` begins: of a part that was put elsewhere, the whole. */
CPROFI_UNUSED static bool cprofi_seh_x64_begin(const cprofi_seh_image *image, uint64_t rva,
                                               uint32_t *begin) {
    cprofi_seh_entry e;
    cprofi_seh_info info;
    if (!cprofi_seh_x64_find(image, rva, &e)) return false;
    for (int i = 0; i < CPROFI_SEH_CHAIN && cprofi_seh_x64_info(image, &e, &info) &&
                    (info.flags & CPROFI_SEH_CHAINED); i++)
        e = info.parent;
    *begin = e.begin;
    return true;
}

/* ---- ARM64 */

/* Return addresses may be signed in the bits that addresses do not use. */
static uint64_t cprofi_seh_strip(uint64_t pc) { return pc & (((uint64_t)1 << 47) - 1); }

/* How many bytes the unwind code that begins with `code` has. */
static size_t cprofi_seh_arm64_size(uint8_t code) {
    if (code >= 0xf8 && code <= 0xfb) return code - 0xf8u + 2; /* reserved, nothing to undo */
    if (code == 0xe0) return 4;
    if (code == 0xe7) return 3;
    return code < 0xc0 || (code >= 0xe0 && code != 0xe2) ? 1 : 2;
}

/* How many instructions the codes from `at` to the end of their scope stand for. */
static uint32_t cprofi_seh_arm64_length(cprofi_span codes, size_t at) {
    uint32_t length = 0;
    for (; at < codes.size; at += cprofi_seh_arm64_size(codes.data[at])) {
        uint8_t code = codes.data[at];
        if (code == 0xe4 || code == 0xe5) break;
        if (code < 0xe8 || code >= 0xf8) length++; /* others: made by the system */
    }
    return length;
}

/* Loads `count` registers that were stored at sp + offset; negative: by a push of so many bytes. */
static bool cprofi_seh_load(cprofi_seh_frame *f, uint32_t first, uint32_t count, int64_t offset) {
    uint64_t *sp = &f->regs.r[CPROFI_SEH_ARM64_SP], at = *sp + (offset > 0 ? (uint64_t)offset : 0);
    if (first + count > CPROFI_SEH_ARM64_SP) return false;
    for (uint32_t i = 0; i < count; i++)
        if (!cprofi_seh_word(f, at + 8 * i, &f->regs.r[first + i])) return false;
    if (offset < 0) *sp -= (uint64_t)offset;
    return true;
}

/* Codes 00 to df, and e7. pair: 2, and 2 more for each save_next before. */
static bool cprofi_seh_arm64_save(cprofi_seh_frame *f, const uint8_t *code, uint32_t pair) {
    uint64_t *sp = &f->regs.r[CPROFI_SEH_ARM64_SP];
    uint32_t c = code[0], v = c < 0xc0 ? c : c << 8 | code[1], reg = 19 + (v >> 6 & 15);
    int64_t up = 8 * (int64_t)(v & 63), down = -8 - up, down5 = -8 - 8 * (int64_t)(v & 31);
    if (c < 0x20) *sp += 16 * c; /* alloc_s */
    else if (c < 0x40) return cprofi_seh_load(f, 19, pair, down5 + 8); /* save_r19r20_x */
    else if (c < 0x80) return cprofi_seh_load(f, 29, 2, up);     /* save_fplr */
    else if (c < 0xc0) return cprofi_seh_load(f, 29, 2, down);   /* save_fplr_x */
    else if (c < 0xc8) *sp += 16 * (v & 0x7ff);                        /* alloc_m */
    else if (c < 0xcc) return cprofi_seh_load(f, reg, pair, up); /* save_regp */
    else if (c < 0xd0) return cprofi_seh_load(f, reg, pair, down);
    else if (c < 0xd4) return cprofi_seh_load(f, reg, 1, up); /* save_reg */
    else if (c < 0xd6) return cprofi_seh_load(f, 19 + (v >> 5 & 15), 1, down5);
    else if (c < 0xd8) /* save_lrpair */
        return cprofi_seh_load(f, 19 + 2 * (v >> 6 & 7), 1, up) &&
               cprofi_seh_load(f, CPROFI_SEH_ARM64_LR, 1, up + 8);
    else if (c == 0xda || c == 0xdb) *sp -= (uint64_t)down; /* save_fregp_x */
    else if (c == 0xde) *sp -= (uint64_t)down5;             /* save_freg_x */
    else if (c == 0xdf) return false; /* alloc_z: of a length that only the thread knows */
    else if (c == 0xe7) {             /* save_any_reg: 0 pair push register; kind offset */
        bool two = code[1] & 0x40, push = code[1] & 0x20;
        uint32_t kind = code[2] >> 6;
        int64_t size = two || push ? 16 : 8, offset = size * (code[2] & 63);
        if (push) offset = -offset - size;
        if (code[1] & 0x80) return false;
        if (kind == 0) return cprofi_seh_load(f, code[1] & 31, two ? pair : 1, offset);
        if (kind < 3 && push) *sp -= (uint64_t)offset;
    }
    return true;
}

/* Codes that set pc: what the system has on the stack. */
static bool cprofi_seh_arm64_custom(cprofi_seh_frame *f, uint8_t code) {
    uint64_t *sp = &f->regs.r[CPROFI_SEH_ARM64_SP], at = *sp, flags;
    f->exact = true;
    switch (code) {
    case 0xe9: return cprofi_seh_word(f, at, sp) && cprofi_seh_word(f, at + 8, &f->regs.pc);
    case 0xea: /* a CONTEXT: flags, x0 to x30, sp, pc */
        if (!cprofi_seh_word(f, at, &flags)) return false;
        for (uint32_t i = 0; i < 32; i++)
            if (!cprofi_seh_word(f, at + 8 + 8 * i, &f->regs.r[i])) return false;
        f->exact = !(flags & 0x20000000); /* CONTEXT_ARM64_UNWOUND_TO_CALL */
        return cprofi_seh_word(f, at + 0x108, &f->regs.pc);
    case 0xec: /* clear_unwound_to_call: it was interrupted where lr says */
        f->regs.pc = f->regs.r[CPROFI_SEH_ARM64_LR];
        return true;
    default: return false;
    }
}

/* Executes the codes from `at` on but for the first `skip`. False if they are damaged. Sets pc. */
static bool cprofi_seh_arm64_run(cprofi_seh_frame *f, cprofi_span codes, size_t at,
                                 uint32_t skip) {
    uint64_t *sp = &f->regs.r[CPROFI_SEH_ARM64_SP], *fp = &f->regs.r[CPROFI_SEH_ARM64_FP];
    uint64_t *lr = &f->regs.r[CPROFI_SEH_ARM64_LR];
    bool by_lr = true;
    f->exact = false;
    for (uint32_t pair = 2; at < codes.size;) {
        const uint8_t *code = codes.data + at, c = *code;
        size_t size = cprofi_seh_arm64_size(c);
        if (size > codes.size - at) return false;
        at += size;
        if (c == 0xe4) break;
        if (skip > 0 && skip--) continue;
        if (c == 0xe6) { /* save_next: one more pair with the save that follows */
            pair += 2;
            continue;
        }
        if (c < 0xe0 || c == 0xe7) {
            if (!cprofi_seh_arm64_save(f, code, pair)) return false;
        } else if (c == 0xe0) {
            *sp += 16 * ((uint64_t)code[1] << 16 | (uint64_t)code[2] << 8 | code[3]);
        } else if (c == 0xe1 || c == 0xe2) { /* set_fp, add_fp */
            *sp = *fp - (c == 0xe2 ? 8u * code[1] : 0);
        } else if (c >= 0xe8 && c < 0xf8) {
            if (!cprofi_seh_arm64_custom(f, c)) return false;
            by_lr = false;
        } else if (c == 0xfc) {
            *lr = cprofi_seh_strip(*lr);
        } /* else: nop, end_c, reserved without effect */
        pair = 2;
    }
    f->regs.pc = cprofi_seh_strip(by_lr ? *lr : f->regs.pc);
    return true;
}

static void cprofi_seh_put(uint8_t *out, size_t *n, uint32_t code) {
    if (code >= 0x100) out[(*n)++] = (uint8_t)(code >> 8);
    out[(*n)++] = (uint8_t)code;
}

/* Allocation of 16 times `size`, in two instructions if one cannot have it. */
static void cprofi_seh_put_alloc(uint8_t *out, size_t *n, uint32_t size) {
    uint32_t rest = size > 255 ? size - 255 : 0, first = size - rest;
    if (rest) cprofi_seh_put(out, n, rest < 32 ? rest : 0xc000 | rest);
    cprofi_seh_put(out, n, first < 32 ? first : 0xc000 | first);
}

/* The codes that a packed record stands for, of the prologue or the epilogue; 0 if it is damaged.
   Saved registers lie from the lowest address on: x19 up, lr, d8 up, the arguments; the first
   instruction makes room for all. */
static size_t cprofi_seh_arm64_expand(uint32_t word, bool epilogue, uint8_t *out) {
    uint32_t floats = word >> 13 & 7, regs = word >> 16 & 15, cr = word >> 21 & 3;
    uint32_t lr = cr == 1, ints = regs + lr, local = (word >> 23) * 2, saved, i;
    size_t n = 0;
    if (floats) floats++;
    saved = ints + floats;
    bool homes = (word >> 20 & 1) && saved; /* else they are in the local part, and in the body */
    saved = (saved + (homes ? 8 : 0) + 1) / 2 * 2;
    if (local < saved || regs > 10) return 0;
    local -= saved;
    if (local && cr >= 2) {
        if (!epilogue) cprofi_seh_put(out, &n, 0xe1); /* set_fp */
        cprofi_seh_put(out, &n, local <= 64 ? 0x80 | (local - 1) : 0x40); /* save_fplr */
    }
    if (local && (cr < 2 || local > 64)) cprofi_seh_put_alloc(out, &n, local / 2);
    for (i = 0; i < 4 && homes && !epilogue; i++) cprofi_seh_put(out, &n, 0xe3);
    i = floats & ~1u;
    if (floats % 2) cprofi_seh_put(out, &n, 0xdc00 | i << 6 | (ints + i));
    while (i > 0) {
        i -= 2;
        cprofi_seh_put(out, &n, i + ints ? 0xd800 | i << 6 | (ints + i) : 0xda00 | (saved - 1));
    }
    if (regs % 2 && lr) {
        cprofi_seh_put(out, &n, 0xd600 | regs / 2 << 6 | (regs - 1)); /* save_lrpair */
        if (regs == 1) cprofi_seh_put_alloc(out, &n, saved / 2);
    } else if (regs % 2 || lr) {
        uint32_t reg = lr ? 11 : regs - 1, at = ints - 1;
        cprofi_seh_put(out, &n, at ? 0xd000 | reg << 6 | at : 0xd400 | reg << 5 | (saved - 1));
    }
    for (i = regs - regs % 2; i > 0;) {
        i -= 2;
        cprofi_seh_put(out, &n, i ? 0xc800 | i << 6 | i : 0xcc00 | (saved - 1));
    }
    if (cr == 2) cprofi_seh_put(out, &n, 0xfc);
    cprofi_seh_put(out, &n, 0xe4);
    return n;
}

/* A packed record. at: instructions from the function's beginning. */
static bool cprofi_seh_arm64_packed(cprofi_seh_frame *f, uint32_t word, uint32_t at) {
    uint8_t bytes[CPROFI_SEH_PACKED], other[CPROFI_SEH_PACKED];
    cprofi_span codes = {bytes, cprofi_seh_arm64_expand(word, false, bytes)};
    cprofi_span end = {other, cprofi_seh_arm64_expand(word, true, other)};
    uint32_t length = word >> 2 & 0x7ff, prologue = cprofi_seh_arm64_length(codes, 0);
    uint32_t epilogue = cprofi_seh_arm64_length(end, 0) + 1; /* and the return */
    if (!codes.size || (word & 3) == 3) return false;
    if ((word & 3) == 2) return cprofi_seh_arm64_run(f, codes, 0, 0); /* a part without either */
    if (at >= prologue && at + epilogue >= length)
        return cprofi_seh_arm64_run(f, end, 0, at + epilogue - length);
    return cprofi_seh_arm64_run(f, codes, 0, at < prologue ? prologue - at : 0);
}

/* A record in .xdata. */
static bool cprofi_seh_arm64_full(cprofi_seh_frame *f, cprofi_span xdata, uint32_t at) {
    uint32_t head = cprofi_seh_u32(xdata.data), length = head & 0x3ffff;
    uint32_t scopes = head >> 22 & 31, words = head >> 27, header = 4;
    bool single = head >> 21 & 1; /* one epilogue at the end, instead of a list */
    if (head >> 18 & 3) return false; /* version */
    if (!scopes && !words) {
        if (xdata.size < 8) return false;
        scopes = cprofi_seh_u32(xdata.data + 4) & 0xffff;
        words = xdata.data[6];
        header = 8;
    }
    cprofi_span list = cprofi_span_part(xdata, header, single ? 0 : 4 * (uint64_t)scopes);
    cprofi_span codes = cprofi_span_part(xdata, header + (uint64_t)list.size, 4 * (uint64_t)words);
    if (!codes.data || !list.data) return false;
    uint32_t prologue = cprofi_seh_arm64_length(codes, 0);
    if (at < prologue) return cprofi_seh_arm64_run(f, codes, 0, prologue - at);
    if (single) {
        uint32_t epilogue = cprofi_seh_arm64_length(codes, scopes) + 1;
        if (at + epilogue >= length)
            return cprofi_seh_arm64_run(f, codes, scopes, at + epilogue - length);
    }
    for (size_t i = 0; i < list.size; i += 4) {
        uint32_t scope = cprofi_seh_u32(list.data + i), begin = scope & 0x3ffff;
        if (at < begin) break; /* they are in order */
        if (at - begin > 4 * words) continue; /* a code is at least a byte: spares the counting */
        if (at - begin <= cprofi_seh_arm64_length(codes, scope >> 22))
            return cprofi_seh_arm64_run(f, codes, scope >> 22, at - begin);
    }
    return cprofi_seh_arm64_run(f, codes, 0, 0);
}

typedef struct {
    uint32_t begin, word; /* packed codes, or the RVA of the record in .xdata */
    cprofi_span xdata;
} cprofi_seh_arm64_entry;

/* 0: there is no entry for `rva`; 1: there is; -1: its record is missing. */
static int cprofi_seh_arm64_find(const cprofi_seh_image *image, uint64_t rva,
                                 cprofi_seh_arm64_entry *e) {
    const uint8_t *p = cprofi_seh_search(image, rva, 8);
    if (!p) return 0;
    e->begin = cprofi_seh_u32(p);
    e->word = cprofi_seh_u32(p + 4);
    e->xdata = cprofi_seh_bytes(image, e->word, 4);
    if (!(e->word & 3) && !e->xdata.data) return -1;
    uint32_t length = e->word & 3 ? e->word >> 2 & 0x7ff : cprofi_seh_u32(e->xdata.data) & 0x3ffff;
    return rva - e->begin < 4 * length;
}

/* Where the function, or the part of one, that holds `rva` begins. */
CPROFI_UNUSED static bool cprofi_seh_arm64_begin(const cprofi_seh_image *image, uint64_t rva,
                                                 uint32_t *begin) {
    cprofi_seh_arm64_entry e;
    if (cprofi_seh_arm64_find(image, rva, &e) <= 0) return false;
    *begin = e.begin;
    return true;
}

/* By the table. 0: there is no entry for `rva`; 1: the caller is found; -1: not. */
static int cprofi_seh_arm64_table(cprofi_seh_frame *f, uint64_t rva) {
    cprofi_seh_arm64_entry e;
    int found = cprofi_seh_arm64_find(&f->image, rva, &e);
    if (found <= 0) return found;
    uint32_t at = (uint32_t)(rva - e.begin) / 4;
    bool good = e.word & 3 ? cprofi_seh_arm64_packed(f, e.word, at)
                           : cprofi_seh_arm64_full(f, e.xdata, at);
    return good ? 1 : -1;
}

/* A cprofi_seh_step. */
CPROFI_UNUSED static cprofi_seh_result cprofi_seh_arm64_step(cprofi_seh_frame *f) {
    const uint64_t rva = cprofi_seh_open(f, 4);
    uint64_t *sp = &f->regs.r[CPROFI_SEH_ARM64_SP], least = *sp + (f->exact ? 0 : 16);
    uint64_t *lr = &f->regs.r[CPROFI_SEH_ARM64_LR];
    bool pointer = !f->known || !f->exact;
    int found = f->known ? cprofi_seh_arm64_table(f, rva) : 0;
    if (found == 0) { /* no frame, or in code made at run time: a frame pointer */
        if (pointer && !cprofi_seh_pointer(f, &f->regs.r[CPROFI_SEH_ARM64_FP], sp, lr) && !f->exact)
            return CPROFI_SEH_BROKEN;
        f->regs.pc = cprofi_seh_strip(*lr);
        f->exact = false;
    }
    return found < 0 ? CPROFI_SEH_BROKEN : cprofi_seh_check(f, *sp, least);
}

/* ---- x86 */

/* A cprofi_seh_step; knows frame pointers only. */
CPROFI_UNUSED static cprofi_seh_result cprofi_seh_x86_step(cprofi_seh_frame *f) {
    uint64_t *sp = &f->regs.r[CPROFI_SEH_X64_SP], *bp = &f->regs.r[CPROFI_SEH_X64_BP], words;
    if (*bp < *sp || *bp % 4 != 0 || !cprofi_seh_word(f, *bp, &words)) return CPROFI_SEH_BROKEN;
    *sp = *bp + 8;
    *bp = words & 0xffffffff;
    f->regs.pc = words >> 32;
    f->exact = false;
    return cprofi_seh_check(f, *sp, *sp);
}

/* ---- the walk */

/* Stores at most `max` addresses, leaf first: where the thread stands and what was interrupted as
   they are, return addresses minus one, so that each lies inside the instruction that was running.
   Returns how many. *truncated: there were more, or the way to the root was not found. `sp`: number
   of the stack pointer. Scopes are marked on the way, unless that is NULL. */
CPROFI_UNUSED static uint32_t cprofi_seh_walk(cprofi_seh_step step, const cprofi_seh_images *images,
                                              const cprofi_seh_stack *stack,
                                              const cprofi_seh_registers *registers, uint64_t *pcs,
                                              uint32_t max, bool *truncated, uint32_t sp,
                                              cprofi_scope_walk *scopes) {
    cprofi_seh_frame f;
    cprofi_seh_result result = CPROFI_SEH_FRAME;
    uint32_t n = 0;
    f.images = images;
    f.stack = *stack;
    f.regs = *registers;
    f.exact = true;
    while (n < max && result == CPROFI_SEH_FRAME) {
        uintptr_t before = (uintptr_t)f.regs.r[sp];
        pcs[n++] = f.regs.pc - (f.exact ? 0 : 1);
        result = step(&f);
        if (scopes && result == CPROFI_SEH_FRAME && scopes->next < f.regs.r[sp])
            cprofi_scopes_place(scopes, n - 1, before, (uintptr_t)f.regs.r[sp]);
    }
    *truncated = result != CPROFI_SEH_END;
    return n;
}

/* ---------------------------------------------------------------------------------------------- */
/* >>compact: unwinding by the tables of macOS programs

   Problem: that of >>seh, whose types and walk this uses: registers and a copy of the stack, on
   macOS. Idea: __unwind_info has one word for each function that says all: with a frame pointer,
   where the kept registers are below it; without, how large the frame is. Two levels of sorted
   tables lead from an offset in the image to the word. (compact_unwind_encoding.h of LLVM's
   libunwind is the specification.)

   The word is true between prologue and epilogue. A caller always stands there; where a thread
   stands is told by the code. ARM64: from the start of the function to pc, as long as it runs
   straight on, the instructions that move the stack pointer are added up; when none of them has set
   the frame pointer, and no call has been made, the return address is in the link register still.
   From pc on, what is left of an epilogue is recognised by its end: a return before which the link
   register is not loaded. x64: instructions have no fixed size, so only those that prologues and
   epilogues consist of are known; what is another ends the prologue.

   The tables do not tell where a function begins: linkers make one entry of neighbours that have
   the same word. LC_FUNCTION_STARTS does.

   Of the registers a function keeps only the frame pointer is restored: no encoding makes use of
   another. Invariant and cost: those of >>seh.
   Not handled: functions described by DWARF only (on macOS these are few, and most of them keep the
   frame pointer, by which they are left), among them the trampoline of signal handlers; frames that
   are set up only on one of several paths, before they are, in functions that are long. */

enum {
    CPROFI_COMPACT_HEADER = 28, CPROFI_COMPACT_INDEX = 12, /* bytes */
    CPROFI_COMPACT_REGULAR = 2, CPROFI_COMPACT_COMPRESSED = 3, /* kinds of page */
    CPROFI_COMPACT_MODE = 0x0f000000,
    CPROFI_COMPACT_X64_FRAME = 0x01000000, CPROFI_COMPACT_X64_IMMEDIATE = 0x02000000,
    CPROFI_COMPACT_X64_INDIRECT = 0x03000000,
    CPROFI_COMPACT_ARM64_FRAMELESS = 0x02000000, CPROFI_COMPACT_ARM64_FRAME = 0x04000000,
    CPROFI_COMPACT_BP = 6, /* number of rbp in the encodings of x64 */
    CPROFI_COMPACT_BEFORE = 512, /* bytes of code that are looked at before pc, */
    CPROFI_COMPACT_BEHIND = 64   /* and from it on */
};

typedef struct {
    uint32_t begin, end; /* from the image's start */
    uint32_t encoding;   /* 0: nothing is known of it */
} cprofi_compact_entry;

/* ---- the tables */

static uint32_t cprofi_compact_u32(cprofi_span s, uint64_t at) {
    cprofi_span word = cprofi_span_part(s, at, 4);
    return word.data ? cprofi_seh_u32(word.data) : 0;
}

/* Of `count` entries of `size` bytes that begin with an offset (the lowest bits of `mask`): the
   number of those at or before `offset`. */
static size_t cprofi_compact_search(cprofi_span table, size_t size, size_t count, uint32_t mask,
                                    uint64_t offset) {
    size_t lo = 0, hi = table.size / size;
    if (hi > count) hi = count;
    while (lo < hi) {
        size_t middle = lo + (hi - lo) / 2;
        if ((cprofi_seh_u32(table.data + middle * size) & mask) <= offset) lo = middle + 1;
        else hi = middle;
    }
    return lo;
}

/* What a page of the second level says; *end was set to where the page's functions end. */
static bool cprofi_compact_page(cprofi_span info, uint64_t page, uint32_t base, uint64_t rva,
                                cprofi_compact_entry *e) {
    uint32_t kind = cprofi_compact_u32(info, page), place = cprofi_compact_u32(info, page + 4);
    bool small = kind == CPROFI_COMPACT_COMPRESSED;
    size_t size = small ? 4 : 8, count = place >> 16, n;
    uint32_t mask = small ? 0xffffff : 0xffffffff, index, common, own;
    cprofi_span table;
    if (!small && kind != CPROFI_COMPACT_REGULAR) return false;
    if (!small) base = 0;
    table = cprofi_span_part(info, page + (place & 0xffff), size * count);
    n = cprofi_compact_search(table, size, count, mask, rva - base);
    if (!n) return false;
    e->begin = base + (cprofi_seh_u32(table.data + (n - 1) * size) & mask);
    if (n < count) e->end = base + (cprofi_seh_u32(table.data + n * size) & mask);
    if (!small) {
        e->encoding = cprofi_seh_u32(table.data + (n - 1) * size + 4);
        return true;
    }
    index = cprofi_seh_u32(table.data + (n - 1) * size) >> 24;
    common = cprofi_compact_u32(info, 8); /* encodings of all pages, then those of this one */
    own = cprofi_compact_u32(info, page + 8);
    if (index < common)
        e->encoding = cprofi_compact_u32(info, cprofi_compact_u32(info, 4) + 4 * (uint64_t)index);
    else if (index - common < own >> 16)
        e->encoding =
            cprofi_compact_u32(info, page + (own & 0xffff) + 4 * (uint64_t)(index - common));
    return true;
}

/* The entry for an offset in the image, by its __unwind_info; false if none is known there. */
static bool cprofi_compact_find(cprofi_span info, uint64_t rva, cprofi_compact_entry *e) {
    uint64_t at = cprofi_compact_u32(info, 20), count = cprofi_compact_u32(info, 24);
    cprofi_span table;
    size_t n;
    memset(e, 0, sizeof *e);
    if (cprofi_compact_u32(info, 0) != 1 || count < 2) return false;
    table = cprofi_span_part(info, at, count * CPROFI_COMPACT_INDEX);
    n = cprofi_compact_search(table, CPROFI_COMPACT_INDEX, (size_t)count, 0xffffffff, rva);
    if (!n) return false; /* and none is at the last: all functions end there */
    at = cprofi_compact_u32(table, (n - 1) * CPROFI_COMPACT_INDEX + 4);
    e->end = cprofi_compact_u32(table, n * CPROFI_COMPACT_INDEX);
    return cprofi_compact_page(info, at, cprofi_compact_u32(table, (n - 1) * CPROFI_COMPACT_INDEX),
                               rva, e) && rva < e->end;
}

/* Decodes LC_FUNCTION_STARTS, distances from one function to the next, the first from the image's
   start. Stores at most `max`; returns how many there are. */
CPROFI_UNUSED static size_t cprofi_compact_starts(cprofi_span distances, uint32_t *to, size_t max) {
    cprofi_bytes b = cprofi_bytes_of(distances);
    uint64_t at = 0, distance;
    size_t n = 0;
    /* zeros fill the end */
    while (cprofi_left(&b) && (distance = cprofi_uleb(&b)) != 0 && !b.bad) {
        if (distance > UINT32_MAX - at) break;
        at += distance;
        if (n < max) to[n] = (uint32_t)at;
        n++;
    }
    return n;
}

/* Where the function begins that holds `rva`; false: nobody knows. */
static bool cprofi_compact_begin(const cprofi_seh_image *image, uint64_t rva, uint32_t *begin) {
    size_t lo = 0, hi = image->start_count;
    while (lo < hi) {
        size_t middle = lo + (hi - lo) / 2;
        if (image->starts[middle] <= rva) lo = middle + 1;
        else hi = middle;
    }
    if (lo) *begin = image->starts[lo - 1];
    return lo != 0;
}

/* The entry for `rva`, with the beginning of its function as far as that is known. */
static bool cprofi_compact_function(const cprofi_seh_image *image, uint64_t rva,
                                    cprofi_compact_entry *e) {
    uint32_t begin;
    if (!cprofi_compact_find(image->pdata, rva, e)) return false;
    if (cprofi_compact_begin(image, rva, &begin) && begin > e->begin) e->begin = begin;
    return true;
}

/* ---- both processors */

/* By the frame pointer, which 0 ends: so threads begin. `certain`: the function is known to have
   one; else it must look like one. */
static cprofi_seh_result cprofi_compact_pointer(cprofi_seh_frame *f, uint64_t *fp, uint64_t *sp,
                                                uint64_t least, bool certain) {
    uint64_t at = *fp;
    if (at == 0 && !f->exact) return CPROFI_SEH_END;
    if (certain) {
        *sp = at + 16;
        if (!cprofi_seh_word(f, at, fp) || !cprofi_seh_word(f, at + 8, &f->regs.pc))
            return CPROFI_SEH_BROKEN;
    } else if (!cprofi_seh_pointer(f, fp, sp, &f->regs.pc)) {
        return CPROFI_SEH_BROKEN;
    }
    f->regs.pc = cprofi_seh_strip(f->regs.pc);
    f->exact = false;
    return cprofi_seh_check(f, *sp, least);
}

/* The code from `rva` to `end`, if all of it is at hand. */
static cprofi_span cprofi_compact_code(const cprofi_seh_frame *f, uint64_t rva, uint64_t end) {
    return cprofi_span_part(cprofi_seh_bytes(&f->image, rva, 1), 0, end - rva);
}

/* Whether there is a return address in the stack at `at`: it is in a function. */
static bool cprofi_compact_returns_at(const cprofi_seh_frame *f, uint64_t at) {
    cprofi_seh_image image;
    cprofi_compact_entry e;
    uint64_t pc;
    return cprofi_seh_word(f, at, &pc) && cprofi_seh_plausible(f, pc) &&
           f->images->find(f->images->user, pc - 1, &image) &&
           cprofi_compact_find(image.pdata, pc - 1 - image.base, &e);
}

/* ---- ARM64 */

/* Which way an instruction moves the stack pointer, in bytes, upwards when it frees a frame. */
static int64_t cprofi_compact_arm64_move(uint32_t i) {
    const int64_t pair = (i >> 15 & 0x3f) - (int64_t)(i >> 15 & 0x40);
    const int64_t single = (i >> 12 & 0xff) - (int64_t)(i >> 12 & 0x100);
    const int64_t constant = (int64_t)(i >> 10 & 0xfff) << (i >> 22 & 1 ? 12 : 0);
    if ((i & 0xff8003ff) == 0x910003ff) return constant;  /* add sp, sp, #n */
    if ((i & 0xff8003ff) == 0xd10003ff) return -constant; /* sub sp, sp, #n */
    /* stp and ldp, of x and of d, [sp, #n]! and [sp], #n */
    if ((i & 0xfe8003e0) == 0xa88003e0 || (i & 0xfe8003e0) == 0x6c8003e0) return 8 * pair;
    /* str and ldr likewise */
    return (i & 0xfba007e0) == 0xf80007e0 ? single : 0;
}

/* ldp x29, x30 or ldr x30, from the stack. */
static bool cprofi_compact_arm64_loads_lr(uint32_t i) {
    return (i & 0xfe407fff) == 0xa8407bfd || (i & 0xffc003ff) == 0xf94003fe ||
           (i & 0xffe00fff) == 0xf84007fe;
}

/* ldp and ldr of others, of x and of d, from the stack; hints, such as autibsp. */
static bool cprofi_compact_arm64_restores(uint32_t i) {
    return (i & 0xfe4003e0) == 0xa84003e0 || (i & 0xfe4003e0) == 0x6c4003e0 ||
           (i & 0xfbc003e0) == 0xf94003e0 || (i & 0xfffff01f) == 0xd503201f;
}

/* Where a thread stands: is it on a straight way from the start of the function, and no frame
   pointer was set nor call made? Then *moved is what to add to sp. */
static bool cprofi_compact_arm64_prologue(const cprofi_seh_frame *f, uint64_t rva, uint64_t begin,
                                          bool frame, int64_t *moved) {
    cprofi_span code = cprofi_compact_code(f, begin, rva);
    *moved = 0;
    if (rva - begin > CPROFI_COMPACT_BEFORE || code.size != rva - begin) return false;
    for (size_t at = 0; at + 4 <= code.size; at += 4) {
        uint32_t i = cprofi_seh_u32(code.data + at);
        if (frame && (i & 0xff8003ff) == 0x910003fd) return false; /* add x29, sp, #n */
        /* b, bl; br, blr, ret and their like */
        if ((i & 0x7c000000) == 0x14000000 || (i & 0xfe000000) == 0xd6000000) return false;
        *moved -= cprofi_compact_arm64_move(i);
    }
    return true;
}

/* Or is it in the last part of an epilogue, behind the load of the link register? */
static bool cprofi_compact_arm64_epilogue(const cprofi_seh_frame *f, uint64_t rva, int64_t *moved) {
    cprofi_span code = cprofi_seh_bytes(&f->image, rva, 4);
    bool freed = false; /* a branch alone may stay in the function */
    *moved = 0;
    for (uint64_t back = 4; back <= 8 && !freed; back += 4) { /* autibsp may be in between */
        cprofi_span before = cprofi_seh_bytes(&f->image, rva - back, 4);
        uint32_t last = before.data ? cprofi_seh_u32(before.data) : 0;
        freed = cprofi_compact_arm64_loads_lr(last) || cprofi_compact_arm64_move(last) > 0;
        if (last != 0xd50323ff) break;
    }
    for (size_t at = 0; at + 4 <= code.size && at < CPROFI_COMPACT_BEHIND; at += 4) {
        uint32_t i = cprofi_seh_u32(code.data + at);
        int64_t move = cprofi_compact_arm64_move(i);
        if (i == 0xd65f03c0 || (i & 0xfffffbff) == 0xd65f0bff) return true; /* ret, retaa, retab */
        if ((i & 0xfc000000) == 0x14000000) return freed;
        if (cprofi_compact_arm64_loads_lr(i) || (!move && !cprofi_compact_arm64_restores(i)))
            return false;
        freed = freed || move > 0;
        *moved += move;
    }
    return false;
}

/* A cprofi_seh_step. */
CPROFI_UNUSED static cprofi_seh_result cprofi_compact_arm64_step(cprofi_seh_frame *f) {
    const uint64_t rva = cprofi_seh_open(f, 4);
    uint64_t *sp = &f->regs.r[CPROFI_SEH_ARM64_SP], *fp = &f->regs.r[CPROFI_SEH_ARM64_FP];
    uint64_t least = *sp + (f->exact ? 0 : 16);
    cprofi_compact_entry e;
    bool found = f->known && cprofi_compact_function(&f->image, rva, &e);
    uint32_t mode = found ? e.encoding & CPROFI_COMPACT_MODE : 0;
    bool frame = mode && mode != CPROFI_COMPACT_ARM64_FRAMELESS;
    int64_t moved = 0; /* without an entry: a thunk, or a leaf */
    bool certain = mode == CPROFI_COMPACT_ARM64_FRAME;
    if (!f->exact || !f->known) return cprofi_compact_pointer(f, fp, sp, least, certain);
    if (found && !cprofi_compact_arm64_prologue(f, rva, e.begin, frame, &moved) &&
        !cprofi_compact_arm64_epilogue(f, rva, &moved)) {
        if (frame) return cprofi_compact_pointer(f, fp, sp, least, certain);
        moved = mode ? 16 * (int64_t)(e.encoding >> 12 & 0xfff) : 0;
    }
    *sp += (uint64_t)moved;
    f->regs.pc = cprofi_seh_strip(f->regs.r[CPROFI_SEH_ARM64_LR]);
    f->exact = false;
    return cprofi_seh_check(f, *sp, least);
}

/* ---- x64 */

/* What is executed of a prologue or epilogue. */
typedef struct {
    uint64_t pushed; /* bytes */
    uint64_t bp_at;  /* how many when rbp was pushed; 0: it was not */
    bool frame;      /* rbp is the frame pointer */
} cprofi_compact_x64_state;

/* The instructions of the prologue, as far as the encoding tells them. */
typedef struct {
    uint8_t bytes[16];
    size_t size;
} cprofi_compact_x64_pattern;

/* push or pop (op 0x50 or 0x58) of a register: its number + 1, else 0. */
static unsigned cprofi_compact_x64_register(cprofi_bytes *b, uint8_t op) {
    cprofi_bytes at = *b;
    uint8_t first = cprofi_u8(&at), high = first == 0x41 ? 8 : 0;
    if (high) first = cprofi_u8(&at);
    if (at.bad || (first & 0xf8) != op) return 0;
    *b = at;
    return (first & 7u) + high + 1u;
}

/* sub or add (modrm 0xec or 0xc4) of a constant to rsp. */
static bool cprofi_compact_x64_constant(cprofi_bytes *b, uint8_t modrm, uint64_t *value) {
    cprofi_bytes at = *b;
    uint8_t rex = cprofi_u8(&at), op = cprofi_u8(&at);
    if (rex != 0x48 || (op != 0x81 && op != 0x83) || cprofi_u8(&at) != modrm) return false;
    *value = op == 0x83 ? (uint64_t)(int64_t)(int8_t)cprofi_u8(&at)
                        : (uint64_t)(int64_t)(int32_t)cprofi_u32(&at);
    if (at.bad) return false;
    *b = at;
    return true;
}

static bool cprofi_compact_x64_is(cprofi_bytes *b, const void *bytes, size_t size) {
    if (cprofi_left(b) < size || memcmp(b->at, bytes, size) != 0) return false;
    b->at += size;
    return true;
}

/* The bytes pushed, and where rbp is among them, of a function without frame pointer. Which
   registers were pushed in which order is the number of a permutation: each digit counts how many
   registers that are left come before the one meant. */
static bool cprofi_compact_x64_frameless(const cprofi_seh_frame *f, const cprofi_compact_entry *e,
                                         cprofi_compact_x64_state *s,
                                         cprofi_compact_x64_pattern *pattern) {
    static const uint8_t pushes[7] = {0, 3, 12, 13, 14, 15, 5}; /* by their numbers here */
    static const uint32_t factorials[7] = {1, 1, 2, 6, 24, 120, 720};
    uint32_t code = e->encoding, n = code >> 10 & 7, number = code & 0x3ff, left = 0x7e;
    uint8_t order[6];
    cprofi_span size;
    memset(s, 0, sizeof *s);
    pattern->size = 0;
    if (n > 6) return false;
    s->pushed = 8 * (uint64_t)(code >> 16 & 0xff);
    if ((code & CPROFI_COMPACT_MODE) == CPROFI_COMPACT_X64_INDIRECT) { /* in `sub rsp, n` */
        size = cprofi_seh_bytes(&f->image, e->begin + (uint64_t)(code >> 16 & 0xff), 4);
        if (!size.data) return false;
        s->pushed = cprofi_seh_u32(size.data) + 8 * (uint64_t)(code >> 13 & 7);
    }
    if (s->pushed < 8 * (uint64_t)n + 8) return false;
    s->pushed -= 8; /* the return address */
    for (uint32_t i = 0; i < n; i++) { /* upwards */
        uint32_t weight = factorials[5 - i] / factorials[6 - n], digit = number / weight, reg = 0;
        number %= weight;
        for (uint32_t skip = digit + 1; skip && reg < 7; skip -= left >> reg & 1) reg++;
        left &= ~(1u << reg);
        if (reg == CPROFI_COMPACT_BP) s->bp_at = 8 * (uint64_t)(n - i);
        order[i] = pushes[reg < 7 ? reg : 0];
    }
    for (uint32_t i = n; i--;) {
        if (order[i] >= 8) pattern->bytes[pattern->size++] = 0x41;
        pattern->bytes[pattern->size++] = (uint8_t)(0x50 | (order[i] & 7));
    }
    if (s->pushed > 8 * (uint64_t)n + 8) { /* sub rsp; 8 bytes come by a push, mostly */
        pattern->bytes[pattern->size++] = 0x48;
        pattern->bytes[pattern->size++] = s->pushed - 8 * (uint64_t)n < 128 ? 0x83 : 0x81;
        pattern->bytes[pattern->size++] = 0xec;
    }
    return true;
}

/* Whether pc is in the prologue, or before it; what of it has been executed. Where the prologue is
   tells the pattern of its instructions: on a way that needs no frame it comes late. */
static bool cprofi_compact_x64_prologue(const cprofi_seh_frame *f, uint64_t rva, uint64_t begin,
                                        const cprofi_compact_x64_pattern *pattern,
                                        cprofi_compact_x64_state *s) {
    cprofi_span code = cprofi_seh_bytes(&f->image, begin, 1);
    cprofi_bytes b;
    size_t executed = (size_t)(rva - begin), at = 0;
    uint64_t value;
    memset(s, 0, sizeof *s);
    if (rva - begin > CPROFI_COMPACT_BEFORE || code.size < executed) return false;
    if (pattern->size >= 2) {
        for (; at <= executed; at++) {
            cprofi_span here = cprofi_span_part(code, at, pattern->size);
            if (here.data && memcmp(here.data, pattern->bytes, pattern->size) == 0) break;
        }
        if (at > executed) { /* does it come later? */
            for (; at < executed + CPROFI_COMPACT_BEHIND; at++) {
                cprofi_span here = cprofi_span_part(code, at, pattern->size);
                if (here.data && memcmp(here.data, pattern->bytes, pattern->size) == 0) return true;
            }
            at = 0;
        }
    }
    b = cprofi_bytes_of(cprofi_span_part(code, at, executed - at));
    while (cprofi_left(&b)) {
        if (cprofi_compact_x64_register(&b, 0x50)) {
            s->pushed += 8; /* rbp too, but it still is the caller's */
        } else if (cprofi_compact_x64_is(&b, "\x48\x89\xe5", 3)) { /* mov rbp, rsp */
            s->frame = true;
        } else if (cprofi_compact_x64_constant(&b, 0xec, &value)) {
            s->pushed += value;
        } else if (!cprofi_compact_x64_is(&b, "\xf3\x0f\x1e\xfa", 4)) { /* endbr64 */
            return false;
        }
    }
    return true;
}

/* Whether a jump to `target` stays in the function. */
static bool cprofi_compact_stays(const cprofi_seh_frame *f, uint64_t target,
                                 const cprofi_compact_entry *e) {
    uint32_t begin = e->begin;
    (void)cprofi_compact_begin(&f->image, target, &begin);
    return target > e->begin && target < e->end && begin <= e->begin;
}

/* Whether what follows from pc on is the rest of an epilogue, in which the frame pointer is the
   caller's, or is popped. */
static bool cprofi_compact_x64_epilogue(const cprofi_seh_frame *f, uint64_t rva, bool frame,
                                        const cprofi_compact_entry *e,
                                        cprofi_compact_x64_state *s) {
    cprofi_span code = cprofi_seh_bytes(&f->image, rva, 1);
    cprofi_span before = cprofi_seh_bytes(&f->image, rva - 1, 1);
    cprofi_bytes b = cprofi_bytes_of(code);
    /* a jump alone may stay in the function, unless it comes right after a pop */
    bool popped = before.data && (before.data[0] & 0xf8) == 0x58;
    uint64_t value = 0;
    memset(s, 0, sizeof *s);
    while (cprofi_left(&b) && (size_t)(b.at - code.data) < CPROFI_COMPACT_BEHIND) {
        unsigned reg = cprofi_compact_x64_register(&b, 0x58);
        uint8_t op;
        if (reg || cprofi_compact_x64_constant(&b, 0xc4, &value)) {
            if (reg == 1 + CPROFI_SEH_X64_BP && frame) return false; /* it serves still */
            s->pushed += reg ? 8 : value;
            if (reg == 1 + CPROFI_SEH_X64_BP) s->bp_at = s->pushed;
            popped = true;
            continue;
        }
        if (cprofi_compact_x64_is(&b, "\xc5\xf8\x77", 3)) continue; /* vzeroupper */
        if (s->bp_at) s->bp_at = s->pushed - s->bp_at + 8; /* from the return address down */
        op = cprofi_u8(&b);
        if (op == 0xc3 || op == 0xc2) return true;
        if ((op != 0xe9 && op != 0xeb) || !popped) return false;
        value = op == 0xeb ? (uint64_t)(int64_t)(int8_t)cprofi_u8(&b)
                           : (uint64_t)(int64_t)(int32_t)cprofi_u32(&b);
        return !cprofi_compact_stays(f, rva + (uint64_t)(b.at - code.data) + value, e);
    }
    return false;
}

/* A cprofi_seh_step. */
CPROFI_UNUSED static cprofi_seh_result cprofi_compact_x64_step(cprofi_seh_frame *f) {
    const uint64_t rva = cprofi_seh_open(f, 1);
    uint64_t *sp = &f->regs.r[CPROFI_SEH_X64_SP], *bp = &f->regs.r[CPROFI_SEH_X64_BP];
    const uint64_t least = *sp + 8;
    cprofi_compact_x64_state s, body;
    cprofi_compact_x64_pattern pattern = {{0x55, 0x48, 0x89, 0xe5}, 4}; /* of a frame pointer */
    cprofi_compact_entry e;
    bool found = f->known && cprofi_compact_function(&f->image, rva, &e), known = false;
    uint32_t mode = found ? e.encoding & CPROFI_COMPACT_MODE : 0;
    bool frame = mode == CPROFI_COMPACT_X64_FRAME, frameless = false;
    memset(&body, 0, sizeof body);
    if (mode == CPROFI_COMPACT_X64_IMMEDIATE || mode == CPROFI_COMPACT_X64_INDIRECT)
        frameless = cprofi_compact_x64_frameless(f, &e, &body, &pattern);
    else if (!frame)
        pattern.size = 0;
    memset(&s, 0, sizeof s);
    if (found && f->exact)
        known = cprofi_compact_x64_prologue(f, rva, e.begin, &pattern, &s) ||
                cprofi_compact_x64_epilogue(f, rva, frame, &e, &s);
    if (!known && frameless) {
        /* if that leads nowhere, and the top of the stack does, it is on a way without frame */
        if (!f->exact || cprofi_compact_returns_at(f, *sp + body.pushed) ||
            !cprofi_compact_returns_at(f, *sp))
            s = body;
        known = true;
    }
    /* without an entry: a thunk, or a leaf */
    if (!known && f->exact && f->known && !mode)
        known = cprofi_compact_returns_at(f, *sp);
    if (!known || s.frame)
        return cprofi_compact_pointer(f, bp, sp, least, s.frame || frame);
    if (s.bp_at && !cprofi_seh_word(f, *sp + s.pushed - s.bp_at, bp)) return CPROFI_SEH_BROKEN;
    *sp += s.pushed;
    return cprofi_seh_x64_return(f, least);
}

/* ---------------------------------------------------------------------------------------------- */
/* >>files: where the bytes of an image come from

   All that is between here and the table runs when a profile is written, on the caller's thread, so
   malloc and file reading are fine; nothing of it runs in the signal handler or while a thread is
   suspended.

   The problem: files of a gigabyte, of which little is wanted, and which may shrink or be replaced
   at any time. The idea: nothing is mapped (a file that shrinks under a mapping is a SIGBUS in the
   host, a short read is a missing name); readers of formats are pure functions over a
   cprofi_source, which is either bytes in memory (vdso, tests, fuzzing) or a function that reads a
   piece of a file. Tables are streamed through one buffer, and strings read for the winners only.

   The invariant of all readers: every offset, size and count comes from the file, so each is
   checked against the source, and every loop ends with the bytes it walks or with a number of steps
   in proportion to them. What is damaged is a missing name, never a crash or a hang. */

/* Where the bytes of an image come from. */
typedef struct cprofi_source cprofi_source;
struct cprofi_source {
    uint64_t base, size; /* where it begins in what it is a part of */
    cprofi_span memory;  /* the bytes, when `read` is NULL */
    intptr_t file;       /* for `read`; the system's affair */
    bool (*read)(const cprofi_source *source, uint64_t offset, void *to, size_t size);
};

static cprofi_source cprofi_source_of(cprofi_span memory) {
    cprofi_source source = {0, memory.size, memory, 0, NULL};
    return source;
}

/* The part [offset, offset + size) of a source; empty when it does not lie inside. */
static cprofi_source cprofi_source_part(const cprofi_source *source, uint64_t offset,
                                        uint64_t size) {
    cprofi_source part = *source;
    if (offset > source->size || size > source->size - offset) offset = size = 0;
    part.base += offset;
    part.size = size;
    return part;
}

/* All of [offset, offset + size), or false. */
static bool cprofi_source_read(const cprofi_source *source, uint64_t offset, void *to,
                               size_t size) {
    if (offset > source->size || size > source->size - offset) return false;
    if (size == 0) return true;
    if (source->read) return source->read(source, source->base + offset, to, size);
    memcpy(to, source->memory.data + (size_t)(source->base + offset), size);
    return true;
}

/* Strings and other things that live until all are freed. */
typedef struct cprofi_text_block cprofi_text_block;
struct cprofi_text_block {
    cprofi_text_block *next;
    size_t used, size;
};

typedef struct {
    cprofi_text_block *blocks;
    size_t memory; /* bytes in them */
} cprofi_text;

/* Room for some bytes, aligned as pointers are; NULL: out of memory. */
static void *cprofi_text_room(cprofi_text *t, size_t size) {
    cprofi_text_block *b = t->blocks;
    size = (size + sizeof(void *) - 1) / sizeof(void *) * sizeof(void *);
    if (!b || b->size - b->used < size) {
        size_t whole = size > 65536 ? size : 65536;
        b = (cprofi_text_block *)malloc(sizeof *b + whole);
        if (!b) return NULL;
        b->next = t->blocks;
        b->used = 0;
        b->size = whole;
        t->blocks = b;
        t->memory += sizeof *b + whole;
    }
    b->used += size;
    return (char *)(b + 1) + b->used - size;
}

/* A copy of `length` bytes and a zero; NULL: out of memory. */
static char *cprofi_text_keep(cprofi_text *t, const char *text, size_t length) {
    char *copy = (char *)cprofi_text_room(t, length + 1);
    if (!copy) return NULL;
    memcpy(copy, text, length);
    copy[length] = 0;
    return copy;
}

static void cprofi_text_free(cprofi_text *t) {
    while (t->blocks) {
        cprofi_text_block *next = t->blocks->next;
        free(t->blocks);
        t->blocks = next;
    }
    memset(t, 0, sizeof *t);
}

/* Memory that grows to the largest that was asked for. */
typedef struct {
    uint8_t *data;
    size_t capacity;
} cprofi_buffer;

/* Makes room for `size` bytes; what was there is lost. False: out of memory. */
static bool cprofi_buffer_fit(cprofi_buffer *b, size_t size) {
    if (size > b->capacity) {
        free(b->data);
        b->capacity = 0;
        b->data = (uint8_t *)malloc(size);
        if (!b->data) return false;
        b->capacity = size;
    }
    return true;
}

/* Room for one more item in an array from malloc; false: out of memory, and the items stay. `items`
   is the address of the pointer to them, whatever its type. */
#define CPROFI_ROOM(items, count, capacity) \
    cprofi_room(&(items), (count), &(capacity), sizeof *(items))

static bool cprofi_room(void *items, size_t count, size_t *capacity, size_t size) {
    size_t more = *capacity ? *capacity + *capacity / 2 : 64;
    void *moved;
    if (count < *capacity) return true;
    memcpy(&moved, items, sizeof moved);
    moved = more < (size_t)-1 / size ? realloc(moved, more * size) : NULL;
    if (!moved) return false;
    memcpy(items, &moved, sizeof moved);
    *capacity = more;
    return true;
}

/* Of items that begin with a 64-bit key and ascend by it: the first of [low, high) at or after a
   key, or `high`. */
static inline size_t cprofi_search(const void *items, size_t size, size_t low, size_t high,
                                   uint64_t key) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        uint64_t found;
        memcpy(&found, (const char *)items + middle * size, sizeof found);
        if (found < key) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* Puts such items in order, for qsort. */
static int cprofi_compare(const void *a, const void *b) {
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

/* For things of which each is answered once, in any order: next[i] is i as long as i has no answer,
   then a later one. From i on the first without an answer; halves the way for those who come
   after (union-find). The last item has none ever. */
static size_t cprofi_unanswered(size_t *next, size_t i) {
    while (next[i] != i) i = next[i] = next[next[i]];
    return i;
}

/* Fixed-size records [offset, offset + count * entry) of a source, through a buffer of
   CPROFI_CHUNK bytes that the caller owns. Ends early where the source ends. */
enum { CPROFI_CHUNK = 1 << 18, CPROFI_RECORD_MAX = 4096 };

typedef struct {
    const cprofi_source *source;
    uint8_t *buffer;
    uint64_t offset, left; /* of what is still to be read into the buffer */
    size_t entry, at, have;
} cprofi_walk;

static cprofi_walk cprofi_walk_of(const cprofi_source *source, uint8_t *buffer, uint64_t offset,
                                  uint64_t count, size_t entry) {
    cprofi_walk w = {source, buffer, offset, 0, entry, 0, 0};
    if (entry && entry <= CPROFI_RECORD_MAX && offset < source->size) {
        uint64_t fits = (source->size - offset) / entry;
        w.left = count < fits ? count : fits;
    }
    return w;
}

static bool cprofi_walk_fill(cprofi_walk *w) {
    uint64_t records = w->left ? CPROFI_CHUNK / w->entry : 0;
    if (records > w->left) records = w->left;
    w->at = 0;
    w->have = (size_t)records * w->entry;
    if (!w->have || !cprofi_source_read(w->source, w->offset, w->buffer, w->have)) {
        w->have = 0;
        w->left = 0;
        return false;
    }
    w->offset += w->have;
    w->left -= records;
    return true;
}

/* The next record, or NULL at the end. */
static inline const uint8_t *cprofi_walk_next(cprofi_walk *w) {
    const uint8_t *record;
    if (w->at == w->have && !cprofi_walk_fill(w)) return NULL;
    record = w->buffer + w->at;
    w->at += w->entry;
    return record;
}

/* Little-endian loads from a record whose size is known; compilers make one load of each. */
static inline uint16_t cprofi_get16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static inline uint32_t cprofi_get32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t cprofi_get64(const uint8_t *p) {
    return (uint64_t)cprofi_get32(p) | (uint64_t)cprofi_get32(p + 4) << 32;
}

/* A zero-terminated string: as much as fits is copied, and a zero. The length copied; 0 when there
   is none. */
static size_t cprofi_source_string(const cprofi_source *source, uint64_t offset, char *to,
                                   size_t capacity) {
    size_t done = 0, step = 120; /* most names are short: one small read, seldom a second */
    while (done + 1 < capacity && offset < source->size && done < source->size - offset) {
        uint64_t left = source->size - offset - done;
        const void *zero;
        if (step > capacity - 1 - done) step = capacity - 1 - done;
        if (step > left) step = (size_t)left;
        if (!cprofi_source_read(source, offset + done, to + done, step)) break;
        zero = memchr(to + done, 0, step);
        if (zero) return (size_t)((const char *)zero - to);
        done += step;
        step = done * 4;
    }
    to[done] = 0;
    return done;
}

/* ---------------------------------------------------------------------------------------------- */
/* >>elf: symbols of Linux programs

   The problem: a few thousand addresses of an image that may hold millions of symbols. The idea:
   sort the addresses, not the symbols, and stream each symbol table once; strings are read only to
   decide between two symbols at one place, and for the winners.

   The invariant: the answer for an address depends on the symbols, not on their order. Cost: s
   symbols and n addresses take O(s log n + n) steps; memory is 140 bytes an address and one buffer.

   After the gABI ("System V ABI", chapters 4 and 5) and the psABIs of x86-64 and AArch64; little
   endian, as are all systems this header samples, of 64 and 32 bits. Not handled: relocatable
   objects, symbols of files without section headers, PLT entries of 32 bits, and the xz-compressed
   .gnu_debugdata of some distributions. */

enum {
    CPROFI_EM_ARM = 40, CPROFI_EM_X86_64 = 62, CPROFI_EM_AARCH64 = 183,
    CPROFI_PT_LOAD = 1, CPROFI_PT_NOTE = 4, CPROFI_PF_X = 1,
    CPROFI_SHT_NULL = 0, CPROFI_SHT_SYMTAB = 2, CPROFI_SHT_RELA = 4, CPROFI_SHT_NOTE = 7,
    CPROFI_SHT_NOBITS = 8, CPROFI_SHT_DYNSYM = 11,
    CPROFI_SHF_ALLOC = 2, CPROFI_SHF_EXECINSTR = 4,
    CPROFI_SHN_ABS = 0xfff1, CPROFI_SHN_COMMON = 0xfff2,
    CPROFI_STT_NOTYPE = 0, CPROFI_STT_FUNC = 2, CPROFI_STT_GNU_IFUNC = 10,
    CPROFI_STB_LOCAL = 0, CPROFI_STB_WEAK = 2,
    CPROFI_R_X86_64_GLOB_DAT = 6, CPROFI_R_X86_64_JUMP_SLOT = 7, CPROFI_R_X86_64_IRELATIVE = 37,
    CPROFI_R_AARCH64_GLOB_DAT = 1025, CPROFI_R_AARCH64_JUMP_SLOT = 1026,
    CPROFI_R_AARCH64_IRELATIVE = 1032,
    CPROFI_NT_GNU_BUILD_ID = 3,
    CPROFI_ELF_HEADER = 64, CPROFI_ELF_SEGMENT = 56, CPROFI_ELF_SECTION = 64, /* bytes of each */
    CPROFI_ELF_SYMBOL = 24, CPROFI_ELF_RELA = 24,
    CPROFI_ELF_COMPRESSION = 24,
    CPROFI_ELF_SEGMENT_32 = 32, CPROFI_ELF_SECTION_32 = 40, CPROFI_ELF_SYMBOL_32 = 16,
    CPROFI_ELF_COMPRESSION_32 = 12,
    /* More than any linker makes; beyond, the table counts as missing. */
    CPROFI_ELF_SEGMENTS_MAX = 4096, CPROFI_ELF_SECTIONS_MAX = 1 << 18
};

typedef struct {
    uint32_t type, flags;
    uint64_t offset, address, file_size, memory_size, align;
} cprofi_elf_segment;

typedef struct {
    uint32_t name, type, link;
    uint64_t flags, address, offset, size, entry;
} cprofi_elf_section;

typedef struct {
    const cprofi_source *source;
    uint16_t machine;
    bool narrow; /* of 32 bits */
    uint8_t *segments, *sections; /* the raw tables */
    size_t segment_count, section_count;
    cprofi_source names; /* of the sections */
} cprofi_elf;

static size_t cprofi_elf_section_size(const cprofi_elf *elf) {
    return elf->narrow ? CPROFI_ELF_SECTION_32 : CPROFI_ELF_SECTION;
}

/* Section `i`; all zero when there is no such section. */
static cprofi_elf_section cprofi_elf_section_at(const cprofi_elf *elf, uint64_t i) {
    cprofi_elf_section s;
    const uint8_t *p;
    memset(&s, 0, sizeof s);
    if (i >= elf->section_count) return s;
    p = elf->sections + (size_t)i * cprofi_elf_section_size(elf);
    s.name = cprofi_get32(p);
    s.type = cprofi_get32(p + 4);
    if (elf->narrow) {
        s.flags = cprofi_get32(p + 8);
        s.address = cprofi_get32(p + 12);
        s.offset = cprofi_get32(p + 16);
        s.size = cprofi_get32(p + 20);
        s.link = cprofi_get32(p + 24);
        s.entry = cprofi_get32(p + 36);
        return s;
    }
    s.flags = cprofi_get64(p + 8);
    s.address = cprofi_get64(p + 16);
    s.offset = cprofi_get64(p + 24);
    s.size = cprofi_get64(p + 32);
    s.link = cprofi_get32(p + 40);
    s.entry = cprofi_get64(p + 56);
    return s;
}

/* Segment `i`, which must be below elf->segment_count. */
static cprofi_elf_segment cprofi_elf_segment_at(const cprofi_elf *elf, size_t i) {
    cprofi_elf_segment s;
    const uint8_t *p =
        elf->segments + i * (elf->narrow ? CPROFI_ELF_SEGMENT_32 : CPROFI_ELF_SEGMENT);
    s.type = cprofi_get32(p);
    if (elf->narrow) {
        s.offset = cprofi_get32(p + 4);
        s.address = cprofi_get32(p + 8);
        s.file_size = cprofi_get32(p + 16);
        s.memory_size = cprofi_get32(p + 20);
        s.flags = cprofi_get32(p + 24);
        s.align = cprofi_get32(p + 28);
        return s;
    }
    s.flags = cprofi_get32(p + 4);
    s.offset = cprofi_get64(p + 8);
    s.address = cprofi_get64(p + 16);
    s.file_size = cprofi_get64(p + 32);
    s.memory_size = cprofi_get64(p + 40);
    s.align = cprofi_get64(p + 48);
    return s;
}

/* The bytes of a section in the file. */
static cprofi_source cprofi_elf_content(const cprofi_elf *elf, const cprofi_elf_section *s) {
    return cprofi_source_part(elf->source, s->offset, s->type == CPROFI_SHT_NOBITS ? 0 : s->size);
}

static void cprofi_elf_section_name(const cprofi_elf *elf, const cprofi_elf_section *s,
                                    char name[32]) {
    cprofi_source_string(&elf->names, s->name, name, 32);
}

/* A section of this name that has bytes in the file. */
static bool cprofi_elf_section_is(const cprofi_elf *elf, const cprofi_elf_section *s,
                                  const char *name) {
    char text[32];
    if (s->type == CPROFI_SHT_NULL || s->type == CPROFI_SHT_NOBITS || !s->size) return false;
    cprofi_elf_section_name(elf, s, text);
    return strcmp(text, name) == 0;
}

/* Reads a header table whole; leaves *count 0 when it is not in the source or out of proportion. */
static bool cprofi_elf_load(const cprofi_source *source, uint64_t offset, size_t entry,
                            uint64_t wanted, size_t max, uint8_t **table, size_t *count) {
    *table = NULL;
    *count = 0;
    if (!offset || !wanted || wanted > max ||
        !cprofi_source_part(source, offset, wanted * entry).size)
        return true;
    *table = (uint8_t *)malloc((size_t)wanted * entry);
    if (!*table) return false;
    if (cprofi_source_read(source, offset, *table, (size_t)wanted * entry))
        *count = (size_t)wanted;
    return true;
}

static void cprofi_elf_close(cprofi_elf *elf) {
    free(elf->segments);
    free(elf->sections);
    memset(elf, 0, sizeof *elf);
}

/* Reads the header tables. The source must outlive `elf`; cprofi_elf_close is due only after true.
   False: not such a file, or one of neither sections nor segments, or out of memory. */
static bool cprofi_elf_open(const cprofi_source *source, cprofi_elf *elf) {
    uint8_t h[CPROFI_ELF_HEADER], zero[CPROFI_ELF_SECTION];
    uint64_t segments, sections, segment_count, section_count, names;
    cprofi_elf_section s;
    size_t segment_size = CPROFI_ELF_SEGMENT, section_size, counts = 54;
    memset(elf, 0, sizeof *elf);
    if (!cprofi_source_read(source, 0, h, sizeof h) || memcmp(h, "\177ELF", 4) != 0 ||
        h[4] < 1 || h[4] > 2 || h[5] != 1 || h[6] != 1)
        return false;
    elf->source = source;
    elf->machine = cprofi_get16(h + 18);
    elf->narrow = h[4] == 1;
    section_size = cprofi_elf_section_size(elf);
    segments = cprofi_get64(h + 32);
    sections = cprofi_get64(h + 40);
    if (elf->narrow) {
        segment_size = CPROFI_ELF_SEGMENT_32;
        segments = cprofi_get32(h + 28);
        sections = cprofi_get32(h + 32);
        counts = 42;
    }
    if (cprofi_get16(h + counts) != segment_size) segments = 0;
    if (cprofi_get16(h + counts + 4) != section_size) sections = 0;
    segment_count = cprofi_get16(h + counts + 2);
    section_count = cprofi_get16(h + counts + 6);
    names = cprofi_get16(h + counts + 8);
    /* Numbers that do not fit the header stand in section 0 (gABI, "Extended numbering"). */
    if (sections && cprofi_source_read(source, sections, zero, section_size)) {
        elf->sections = zero;
        elf->section_count = 1;
        s = cprofi_elf_section_at(elf, 0);
        elf->sections = NULL;
        elf->section_count = 0;
        if (section_count == 0) section_count = s.size;
        if (names == 0xffff) names = s.link;
        if (segment_count == 0xffff) segment_count = cprofi_get32(zero + (elf->narrow ? 28 : 44));
    }
    if (!cprofi_elf_load(source, segments, segment_size, segment_count, CPROFI_ELF_SEGMENTS_MAX,
                         &elf->segments, &elf->segment_count) ||
        !cprofi_elf_load(source, sections, section_size, section_count, CPROFI_ELF_SECTIONS_MAX,
                         &elf->sections, &elf->section_count) ||
        elf->segment_count + elf->section_count == 0) {
        cprofi_elf_close(elf);
        return false;
    }
    s = cprofi_elf_section_at(elf, names);
    elf->names = cprofi_elf_content(elf, &s);
    return true;
}

/* The build id among some notes; `align` is theirs, 4 or 8. *left: how many more may be looked at,
   for the segments of a hostile file may overlap. */
static uint32_t cprofi_elf_find_build_id(const cprofi_source *notes, uint64_t align,
                                         uint8_t id[CPROFI_BUILD_ID_MAX], uint32_t *left) {
    uint64_t mask = align == 8 ? 7 : 3;
    uint8_t header[16];
    for (uint64_t at = 0; *left && cprofi_source_read(notes, at, header, sizeof header); --*left) {
        uint64_t name_size = cprofi_get32(header), id_size = cprofi_get32(header + 4);
        uint64_t content = at + ((12 + name_size + mask) & ~mask);
        if (cprofi_get32(header + 8) == CPROFI_NT_GNU_BUILD_ID && name_size == 4 &&
            memcmp(header + 12, "GNU", 4) == 0 && id_size) {
            if (id_size > CPROFI_BUILD_ID_MAX) id_size = CPROFI_BUILD_ID_MAX;
            return cprofi_source_read(notes, content, id, (size_t)id_size) ? (uint32_t)id_size : 0;
        }
        at = (content + id_size + mask) & ~mask;
    }
    return 0;
}

/* The size of the build id, which is copied (at most CPROFI_BUILD_ID_MAX bytes of it); 0: none. */
static uint32_t cprofi_elf_build_id(const cprofi_elf *elf, uint8_t id[CPROFI_BUILD_ID_MAX]) {
    uint32_t size = 0, left = 4096;
    cprofi_source notes;
    for (size_t i = 0; i < elf->segment_count && !size; i++) {
        cprofi_elf_segment s = cprofi_elf_segment_at(elf, i);
        if (s.type != CPROFI_PT_NOTE) continue;
        notes = cprofi_source_part(elf->source, s.offset, s.file_size);
        size = cprofi_elf_find_build_id(&notes, s.align, id, &left);
    }
    for (size_t i = 0; i < elf->section_count && !size; i++) {
        cprofi_elf_section s = cprofi_elf_section_at(elf, i);
        if (s.type != CPROFI_SHT_NOTE) continue;
        notes = cprofi_elf_content(elf, &s);
        size = cprofi_elf_find_build_id(&notes, 4, id, &left);
    }
    return size;
}

static bool cprofi_elf_has_symbols(const cprofi_elf *elf) {
    for (size_t i = 0; i < elf->section_count; i++)
        if (cprofi_elf_section_at(elf, i).type == CPROFI_SHT_SYMTAB) return true;
    return false;
}

/* ---- elf: the look-up --------------------------------------------------------------------------

   Each symbol finds, by binary search, the addresses it covers; each address keeps the best symbol
   it was offered. In programs few symbols cover the same addresses. For files in which all cover
   all, the offers are counted, and beyond a limit only the first address of a symbol hears of it.

   The rules, in this order:
   - a symbol must begin in the same executable section as the address;
   - a PLT entry is named after the symbol of the GOT slot it jumps through, with "@plt";
   - the function (FUNC, IFUNC) whose [value, value + size) contains the address; of several, the
     one that begins last;
   - a sized NOTYPE symbol that contains it (hand-written assembly);
   - the last symbol that begins at or before it, if that has no size (assembly again: it extends
     to the next symbol or the end of the section), or if it ends at most 16 bytes before (padding);
   - else the address has no name: a gap is not credited to its neighbour.
   Of several symbols at the same place: FUNC before NOTYPE, sized before unsized, visible (GLOBAL,
   WEAK) before LOCAL, then fewer leading underscores (libc's `write` is also `__write`), GLOBAL
   before WEAK, the shorter, the first in byte order: the same answer whatever the table's order.
   .dynsym is asked only if .symtab left an address open. Ignored: undefined, absolute NOTYPE,
   section, file, object and TLS symbols, and the mapping symbols of ARM. */

enum {
    CPROFI_SYMTAB, CPROFI_DYNSYM,
    CPROFI_ELF_PADDING = 16, CPROFI_ELF_EXECUTABLE_MAX = 1024,
    CPROFI_ELF_TIE = 64 /* what reading two names counts, in offers */
};

typedef struct {
    cprofi_source symbols, strings;
} cprofi_elf_symtab;

typedef struct {
    uint64_t value, size;
    uint32_t name; /* in the table's strings; 0: no symbol */
    uint8_t rank;  /* 4: function, 2: sized, 1: visible outside its object */
    uint8_t table; /* CPROFI_SYMTAB or CPROFI_DYNSYM */
    bool weak;
} cprofi_elf_hit;

typedef struct {
    uint64_t address; /* in the file; for a PLT entry of an IFUNC, that of its resolver */
    uint64_t floor;   /* where its executable section begins */
    uint32_t index;   /* in the caller's list */
    bool known;       /* `floor` is valid */
    bool plt;         /* it is in a PLT entry: show "@plt" */
    cprofi_elf_hit inside; /* the best symbol that contains the address; for a PLT entry, its own */
    cprofi_elf_hit before; /* of those between the previous address and this, the last */
    cprofi_elf_hit hit;    /* the answer */
} cprofi_elf_want;

typedef struct {
    const cprofi_elf *elf;
    cprofi_elf_symtab tables[2];
    cprofi_elf_want *wants; /* ascending by address */
    size_t count;
    uint64_t offers; /* how many more there may be */
    uint8_t *buffer; /* CPROFI_CHUNK bytes */
} cprofi_elf_look;

/* The first want, from `low` on, at or after an address; count when there is none. */
static size_t cprofi_elf_from(const cprofi_elf_look *k, size_t low, uint64_t address) {
    return cprofi_search(k->wants, sizeof *k->wants, low, k->count, address);
}

static bool cprofi_elf_spend(cprofi_elf_look *k, uint64_t offers) {
    if (k->offers < offers) return false;
    k->offers -= offers;
    return true;
}

/* Ties cost two small reads each; when there were too many, the first in the table stays. */
static bool cprofi_elf_nicer(cprofi_elf_look *k, const cprofi_elf_hit *a,
                             const cprofi_elf_hit *b) {
    char name[2][128];
    const cprofi_elf_hit *hit[2] = {a, b};
    size_t bars[2], length[2];
    if (!cprofi_elf_spend(k, CPROFI_ELF_TIE)) return false;
    for (int i = 0; i < 2; i++) {
        length[i] = cprofi_source_string(&k->tables[hit[i]->table].strings, hit[i]->name, name[i],
                                         sizeof name[i]);
        bars[i] = strspn(name[i], "_");
    }
    if (!length[0] || !length[1]) return length[0] > length[1];
    if (bars[0] != bars[1]) return bars[0] < bars[1];
    if (a->weak != b->weak) return b->weak;
    if (length[0] != length[1]) return length[0] < length[1];
    return strcmp(name[0], name[1]) < 0;
}

static void cprofi_elf_offer(cprofi_elf_look *k, cprofi_elf_hit *to, const cprofi_elf_hit *hit,
                             bool inside) {
    bool better;
    if (!to->name) better = true;
    else if (inside && ((to->rank ^ hit->rank) & 4)) better = hit->rank > to->rank;
    else if (hit->value != to->value) better = hit->value > to->value;
    else if (hit->rank != to->rank) better = hit->rank > to->rank;
    else better = cprofi_elf_nicer(k, hit, to);
    if (better) *to = *hit;
}

/* Reads one symbol; false if it cannot name code. */
static inline bool cprofi_elf_symbol(const cprofi_elf *elf, const uint8_t *p, cprofi_elf_hit *hit) {
    const uint8_t *q = p + (elf->narrow ? 12 : 4);
    unsigned type = q[0] & 15, binding = q[0] >> 4, section = cprofi_get16(q + 2);
    bool function = type == CPROFI_STT_FUNC || type == CPROFI_STT_GNU_IFUNC;
    if (!function && type != CPROFI_STT_NOTYPE) return false;
    hit->name = cprofi_get32(p);
    if (!hit->name || section == 0 || section == CPROFI_SHN_COMMON) return false;
    if (!function && section == CPROFI_SHN_ABS) return false;
    hit->value = elf->narrow ? cprofi_get32(p + 4) : cprofi_get64(p + 8);
    hit->size = elf->narrow ? cprofi_get32(p + 8) : cprofi_get64(p + 16);
    if (!function && !hit->size && binding == CPROFI_STB_LOCAL &&
        (elf->machine == CPROFI_EM_AARCH64 || elf->machine == CPROFI_EM_ARM))
        return false; /* $x, $d and their like: they mark code and data, they name nothing */
    if (hit->size > ~hit->value) hit->size = ~hit->value;
    hit->rank = (uint8_t)((function ? 4 : 0) | (hit->size ? 2 : 0) |
                          (binding != CPROFI_STB_LOCAL ? 1 : 0));
    hit->weak = binding == CPROFI_STB_WEAK;
    return true;
}

/* Offers the symbols of a table to the addresses. */
static void cprofi_elf_scan(cprofi_elf_look *k, uint8_t table) {
    cprofi_walk w = cprofi_walk_of(&k->tables[table].symbols, k->buffer, 0, ~(uint64_t)0,
                                   k->elf->narrow ? CPROFI_ELF_SYMBOL_32 : CPROFI_ELF_SYMBOL);
    uint64_t last = k->wants[k->count - 1].address;
    const uint8_t *p;
    cprofi_elf_hit hit;
    memset(&hit, 0, sizeof hit);
    hit.table = table;
    while ((p = cprofi_walk_next(&w)) != NULL) {
        size_t first, i;
        if (!cprofi_elf_symbol(k->elf, p, &hit) || hit.value > last) continue;
        first = i = cprofi_elf_from(k, 0, hit.value);
        cprofi_elf_offer(k, &k->wants[i].before, &hit, false);
        for (; i < k->count && k->wants[i].address - hit.value < hit.size; i++) {
            if (!cprofi_elf_spend(k, 1) && i > first) break;
            if (!k->wants[i].plt || !k->wants[i].inside.name)
                cprofi_elf_offer(k, &k->wants[i].inside, &hit, true);
        }
    }
}

/* Notes in which executable section each address is. */
static void cprofi_elf_floors(cprofi_elf_look *k) {
    size_t executable = 0;
    for (size_t i = 0; i < k->elf->section_count && executable < CPROFI_ELF_EXECUTABLE_MAX; i++) {
        cprofi_elf_section s = cprofi_elf_section_at(k->elf, i);
        if (s.type == CPROFI_SHT_NULL || !(s.flags & CPROFI_SHF_ALLOC) ||
            !(s.flags & CPROFI_SHF_EXECINSTR))
            continue;
        executable++;
        for (size_t at = cprofi_elf_from(k, 0, s.address);
             at < k->count && k->wants[at].address - s.address < s.size; at++) {
            if (!k->wants[at].known) k->wants[at].floor = s.address;
            k->wants[at].known = true;
        }
    }
}

/* ---- elf: PLT entries ---------------------------------------------------------------------------

   x86-64 psABI 5.2, and what ld, lld and mold make of it: 8 or 16 bytes that jump through a GOT
   slot (ff 25 disp32), with or without endbr64 or bnd in front. AArch64 (its psABI, "Procedure
   linkage table"): adrp x16; ldr x17, [x16]; add x16; br x17, with instructions of branch
   protection in front and between or not. The relocation of the slot names the symbol, so bytes
   that only look like a jump match nothing. Not handled: entries that only bind a function at its
   first call. */

typedef struct {
    uint64_t slot;
    size_t want;
} cprofi_elf_slot;

enum { CPROFI_ELF_PLT_MAX = 8 }; /* sections with entries, and sections with relocations */

/* The slot through which the entry jumps that has byte `at` of this section. */
static bool cprofi_elf_jump_x64(const cprofi_elf_section *s, const cprofi_source *content,
                                uint64_t at, uint64_t *slot) {
    const size_t size = s->entry == 8 ? 8 : 16;
    const uint64_t entry = at / size * size;
    uint8_t code[16];
    if (!cprofi_source_read(content, entry, code, size)) return false;
    for (size_t b = 0; b + 6 <= size; b++) {
        if (code[b] != 0xff || code[b + 1] != 0x25) continue;
        *slot = s->address + entry + b + 6 + (uint64_t)(int64_t)(int32_t)cprofi_get32(code + b + 2);
        return true;
    }
    return false;
}

/* From there on to the jump, and back to where its register is loaded. */
static bool cprofi_elf_jump_arm64(const cprofi_elf_section *s, const cprofi_source *content,
                                  uint64_t at, uint64_t *slot) {
    uint8_t code[4];
    uint64_t jump = at / 4 * 4, offset = 0;
    bool loaded = false;
    for (size_t i = 0;; i++, jump += 4) {
        if (i == 6 || !cprofi_source_read(content, jump, code, 4)) return false;
        if (cprofi_get32(code) == 0xd61f0220) break; /* br x17 */
    }
    for (size_t i = 0; i < 4 && jump >= 4; i++) {
        uint32_t word;
        jump -= 4;
        if (!cprofi_source_read(content, jump, code, 4)) return false;
        word = cprofi_get32(code);
        if ((word & 0xffc003ff) == 0xf9400211) { /* ldr x17, [x16, #n] */
            offset = 8 * (uint64_t)(word >> 10 & 0xfff);
            loaded = true;
        } else if ((word & 0x9f00001f) == 0x90000010 && loaded) { /* adrp x16 */
            uint64_t pages = (uint64_t)(word >> 5 & 0x7ffff) << 2 | (word >> 29 & 3);
            pages = (pages ^ 0x100000) - 0x100000;
            *slot = ((s->address + jump) & ~(uint64_t)4095) + 4096 * pages + offset;
            return true;
        }
    }
    return false;
}

/* The GOT slots through which the entries jump that wants are in, ascending; how many. */
static size_t cprofi_elf_slots(const cprofi_elf_look *k, cprofi_elf_slot *slots) {
    size_t n = 0, sections = 0;
    for (size_t i = 0; i < k->elf->section_count && sections < CPROFI_ELF_PLT_MAX; i++) {
        cprofi_elf_section s = cprofi_elf_section_at(k->elf, i);
        cprofi_source content = cprofi_elf_content(k->elf, &s);
        char name[32];
        cprofi_elf_section_name(k->elf, &s, name);
        if (strncmp(name, ".plt", 4) != 0 && strncmp(name, ".iplt", 5) != 0) continue;
        sections++;
        for (size_t at = cprofi_elf_from(k, 0, s.address);
             at < k->count && k->wants[at].address - s.address < s.size && n < k->count; at++) {
            uint64_t place = k->wants[at].address - s.address;
            if (k->elf->machine == CPROFI_EM_AARCH64
                    ? !cprofi_elf_jump_arm64(&s, &content, place, &slots[n].slot)
                    : !cprofi_elf_jump_x64(&s, &content, place, &slots[n].slot))
                continue;
            slots[n++].want = at;
        }
    }
    qsort(slots, n, sizeof *slots, cprofi_compare);
    return n;
}

/* Gives the wants that jump through its slot the symbol of a relocation, or the address of its
   resolver; of several relocations of a slot the first counts. */
static void cprofi_elf_bind(cprofi_elf_look *k, const cprofi_elf_slot *slots, size_t n,
                            const uint8_t *relocation) {
    const bool arm = k->elf->machine == CPROFI_EM_AARCH64;
    uint32_t type = cprofi_get32(relocation + 8), symbol = cprofi_get32(relocation + 12);
    uint64_t slot = cprofi_get64(relocation);
    size_t at = cprofi_search(slots, sizeof *slots, 0, n, slot);
    uint8_t name[4] = {0};
    if (at == n || slots[at].slot != slot || k->wants[slots[at].want].plt) return;
    if (type == (arm ? CPROFI_R_AARCH64_JUMP_SLOT : CPROFI_R_X86_64_JUMP_SLOT) ||
        type == (arm ? CPROFI_R_AARCH64_GLOB_DAT : CPROFI_R_X86_64_GLOB_DAT))
        (void)cprofi_source_read(&k->tables[CPROFI_DYNSYM].symbols,
                                 (uint64_t)symbol * CPROFI_ELF_SYMBOL, name, sizeof name);
    if (type != (arm ? CPROFI_R_AARCH64_IRELATIVE : CPROFI_R_X86_64_IRELATIVE) &&
        !cprofi_get32(name))
        return;
    for (; at < n && slots[at].slot == slot; at++) {
        cprofi_elf_want *want = &k->wants[slots[at].want];
        want->plt = true;
        want->hit.name = cprofi_get32(name);
        want->hit.table = CPROFI_DYNSYM;
        if (!want->hit.name) want->address = cprofi_get64(relocation + 16);
    }
}

static bool cprofi_elf_plt(cprofi_elf_look *k) {
    cprofi_elf_slot *slots = (cprofi_elf_slot *)malloc(k->count * sizeof *slots);
    const bool read = k->elf->machine == CPROFI_EM_X86_64 || k->elf->machine == CPROFI_EM_AARCH64;
    size_t n = slots && read ? cprofi_elf_slots(k, slots) : 0, tables = 0;
    for (size_t i = 0; i < k->elf->section_count && n && tables < CPROFI_ELF_PLT_MAX; i++) {
        cprofi_elf_section s = cprofi_elf_section_at(k->elf, i);
        cprofi_source content = cprofi_elf_content(k->elf, &s);
        cprofi_walk w = cprofi_walk_of(&content, k->buffer, 0, ~(uint64_t)0, CPROFI_ELF_RELA);
        const uint8_t *p;
        if (s.type != CPROFI_SHT_RELA || !(s.flags & CPROFI_SHF_ALLOC)) continue;
        tables++;
        while ((p = cprofi_walk_next(&w)) != NULL) cprofi_elf_bind(k, slots, n, p);
    }
    free(slots);
    /* Resolvers took the place of some addresses. */
    if (n) qsort(k->wants, k->count, sizeof *k->wants, cprofi_compare);
    return slots != NULL;
}

/* Decides for every want without an answer; true when all have one. */
static bool cprofi_elf_settle(cprofi_elf_look *k) {
    const cprofi_elf_hit *before = &k->wants->before;
    bool all = true;
    for (size_t i = 0; i < k->count; i++) {
        cprofi_elf_want *want = &k->wants[i];
        if (want->before.name) before = &want->before;
        if (!want->hit.name && want->known) {
            if (want->inside.name && want->inside.value >= want->floor)
                want->hit = want->inside;
            else if (before->name && before->value >= want->floor &&
                     (!before->size ||
                      want->address - before->value - before->size < CPROFI_ELF_PADDING))
                want->hit = *before;
        }
        all = all && want->hit.name;
    }
    return all;
}

/* Fills `hit` and `plt` of `count` wants, of which `address` and `index` are set and the rest is
   zero. They are ascending by address; afterwards they may be in another order. False only when out
   of memory. Which strings a hit refers to: tables[hit.table].strings. */
static bool cprofi_elf_lookup(const cprofi_elf *elf, cprofi_elf_want *wants, size_t count,
                              cprofi_elf_symtab tables[2]) {
    cprofi_elf_look k;
    bool ok;
    memset(&k, 0, sizeof k);
    k.elf = elf;
    k.wants = wants;
    k.count = count;
    for (size_t i = elf->section_count; i--;) { /* of several tables the first counts */
        cprofi_elf_section s = cprofi_elf_section_at(elf, i), strings;
        cprofi_elf_symtab *t = &k.tables[s.type == CPROFI_SHT_SYMTAB ? CPROFI_SYMTAB
                                                                     : CPROFI_DYNSYM];
        if (s.type != CPROFI_SHT_SYMTAB && s.type != CPROFI_SHT_DYNSYM) continue;
        strings = cprofi_elf_section_at(elf, s.link);
        t->symbols = cprofi_elf_content(elf, &s);
        t->strings = cprofi_elf_content(elf, &strings);
    }
    k.offers = ((uint64_t)1 << 20) + 64 * count + k.tables[CPROFI_SYMTAB].symbols.size +
               k.tables[CPROFI_DYNSYM].symbols.size;
    k.buffer = (uint8_t *)malloc(CPROFI_CHUNK);
    ok = k.buffer && cprofi_elf_plt(&k);
    if (ok) {
        cprofi_elf_floors(&k);
        cprofi_elf_scan(&k, CPROFI_SYMTAB);
        if (!cprofi_elf_settle(&k)) {
            cprofi_elf_scan(&k, CPROFI_DYNSYM);
            cprofi_elf_settle(&k);
        }
        memcpy(tables, k.tables, sizeof k.tables);
    }
    free(k.buffer);
    return ok;
}

/* ---------------------------------------------------------------------------------------------- */
/* >>lines: the source line of an address

   The problem: a line table of DWARF holds, for every run of code (a sequence), rows of address,
   file and line in the byte code of a small state machine; it cannot be entered in the middle, and
   may have megabytes. The idea: the addresses wait sorted, the program runs by once, and no rows
   are kept. A sequence finds its first wanted address by binary search; from then on a row costs
   one comparison with the next one wanted.

   The invariant, between two rows of a sequence: `wanted` is the smallest address at or after that
   of the row before which has no answer yet. An answered address is never looked at again, so p
   bytes of program and n addresses cost O(p log n) in the worst of files and near O(p + n log n) in
   real ones. Memory: the bytes of the table, 16 for each of its file names, 8 for each address.

   The rules: a row covers the addresses from its own to the next row's, so of several rows at one
   address the last counts. Line 0 is an answer, too: a compiler writes it for code that belongs to
   several lines or to none, so that profiles do not blame the wrong one; the file is known. Where
   sequences overlap (identical code folded by the linker, or damage) the first in the table counts.
   A sequence of code that the linker dropped, to be seen by where it begins, is ignored: ~0,
   ~0 - 1, or 0 when 0 is not wanted.

   After "DWARF 5", 6.2, and the versions 2 to 4 before it, in 32- and 64-bit format. Not handled:
   segment selectors (skipped), columns, and what a row says about statements. */

/* ---- dwarf: sections, units and forms -------------------------------------------------------- */

/* What a DWARF reader reads. A section that is not there has size 0. */
typedef enum {
    CPROFI_DWARF_INFO, CPROFI_DWARF_ABBREV, CPROFI_DWARF_LINE, CPROFI_DWARF_STR,
    CPROFI_DWARF_LINE_STR, CPROFI_DWARF_STR_OFFSETS, CPROFI_DWARF_ADDR, CPROFI_DWARF_RANGES,
    CPROFI_DWARF_RNGLISTS, CPROFI_DWARF_ARANGES, CPROFI_DWARF_SECTIONS
} cprofi_dwarf_section;

typedef struct {
    cprofi_source sections[CPROFI_DWARF_SECTIONS];
} cprofi_dwarf;

/* A unit; for a line table, which uses the same forms, as much as they need. */
typedef struct {
    uint64_t offset, end;       /* in CPROFI_DWARF_INFO */
    uint64_t abbrevs;           /* in CPROFI_DWARF_ABBREV */
    uint64_t top;               /* the largest address */
    uint64_t low, str_offsets, addr, rnglists; /* bases */
    const uint8_t *data;        /* from the header on */
    size_t size;                /* of that */
    size_t root;                /* where the root entry is */
    uint64_t language;
    uint8_t version, type, address_size, offset_size;
    bool scoped;                /* scopes are known */
} cprofi_dwarf_unit;

typedef struct {
    uint64_t value; /* a number; an offset (inline strings: in the unit); 0 for blocks */
    unsigned form;  /* the real one behind DW_FORM_indirect; 0: there is no value */
} cprofi_dwarf_value;

enum { CPROFI_DWARF_VARIES = 0xff }; /* a form that has no fixed size */

static uint8_t cprofi_dwarf_form_size(const cprofi_dwarf_unit *u, unsigned form) {
    switch (form) {
    case 0x19: case 0x21: return 0;                                   /* flag_present, implicit */
    case 0x0b: case 0x0c: case 0x11: case 0x25: case 0x29: return 1;  /* data, flag, ref, strx, */
    case 0x05: case 0x12: case 0x26: case 0x2a: return 2;             /* addrx */
    case 0x27: case 0x2b: return 3;
    case 0x06: case 0x13: case 0x1c: case 0x28: case 0x2c: return 4;  /* and ref_sup4 */
    case 0x07: case 0x14: case 0x20: case 0x24: return 8;             /* and ref_sig8, ref_sup8 */
    case 0x1e: return 16;                                             /* data16 */
    case 0x01: return u->address_size;
    case 0x10: return u->version < 3 ? u->address_size : u->offset_size; /* ref_addr */
    case 0x0e: case 0x17: case 0x1d: case 0x1f: case 0x1f20: case 0x1f21: /* strp, sec_offset, */
        return u->offset_size; /* strp_sup, line_strp, GNU_ref_alt, GNU_strp_alt */
    default: return CPROFI_DWARF_VARIES;
    }
}

/* Reads a value. False: of unknown form. */
static bool cprofi_dwarf_form(const cprofi_dwarf_unit *u, cprofi_bytes *b, unsigned form,
                              int64_t implicit, cprofi_dwarf_value *v) {
    uint8_t size;
    if (form == 0x16) { /* indirect */
        uint64_t real = cprofi_uleb(b);
        if (real == 0x16 || real == 0x21 || real > 0xffff) return false;
        form = (unsigned)real;
    }
    v->form = form;
    v->value = 0;
    size = cprofi_dwarf_form_size(u, form);
    if (size <= 8) {
        v->value = size ? cprofi_uint(b, size) : form == 0x21 ? (uint64_t)implicit : 1;
        return true;
    }
    switch (form) {
    case 0x08: /* string */
        v->value = (uint64_t)(b->at - u->data);
        (void)cprofi_string(b);
        return true;
    case 0x0d: v->value = (uint64_t)cprofi_sleb(b); return true;
    case 0x0f: case 0x15: case 0x1a: case 0x1b: case 0x22: case 0x23: case 0x1f01: case 0x1f02:
        v->value = cprofi_uleb(b); /* udata, ref_udata, and indexes: str, addr, loclist, rnglist */
        return true;
    case 0x1e: cprofi_skip(b, 16); return true;
    case 0x0a: cprofi_skip(b, cprofi_u8(b)); return true;
    case 0x03: cprofi_skip(b, cprofi_u16(b)); return true;
    case 0x04: cprofi_skip(b, cprofi_u32(b)); return true;
    case 0x09: case 0x18: cprofi_skip(b, cprofi_uleb(b)); return true; /* block, exprloc */
    default: return false;
    }
}

static bool cprofi_dwarf_is_index(unsigned form) { /* of an address */
    return form == 0x1b || (form >= 0x29 && form <= 0x2c) || form == 0x1f01;
}

static bool cprofi_dwarf_is_supplementary(unsigned form) { /* in a file that is not read */
    return form == 0x1c || form == 0x1d || form == 0x24 || form == 0x1f20 || form == 0x1f21;
}

/* Copies the string of a value; NULL: it has none, or one that does not fit. */
static const char *cprofi_dwarf_string(const cprofi_dwarf *d, const cprofi_dwarf_unit *u,
                                       const cprofi_dwarf_value *v, char *to, size_t capacity) {
    const cprofi_source *from = &d->sections[CPROFI_DWARF_STR];
    const cprofi_source *offsets = &d->sections[CPROFI_DWARF_STR_OFFSETS];
    uint8_t offset[8] = {0};
    uint64_t at = v->value;
    size_t length;
    switch (v->form) {
    case 0x08: /* string; its end was seen when it was read */
        length = strlen((const char *)u->data + (size_t)at);
        if (!length || length >= capacity) return NULL;
        memcpy(to, u->data + (size_t)at, length + 1);
        return to;
    case 0x0e: break;                                              /* strp */
    case 0x1f: from = &d->sections[CPROFI_DWARF_LINE_STR]; break;  /* line_strp */
    case 0x1a: case 0x25: case 0x26: case 0x27: case 0x28: case 0x1f02: /* strx, and the like */
        if (at > offsets->size || u->str_offsets > offsets->size ||
            !cprofi_source_read(offsets, u->str_offsets + at * u->offset_size, offset,
                                u->offset_size))
            return NULL;
        at = cprofi_get64(offset);
        break;
    default: return NULL;
    }
    length = cprofi_source_string(from, at, to, capacity);
    return length > 0 && length + 1 < capacity ? to : NULL;
}

/* ---- lines: answers and tables -------------------------------------------------------------- */

typedef struct {
    uint64_t address; /* as in the file (virtual address) */
    uint32_t file;    /* answer: in the table's numbering, as DW_AT_call_file; ~0 unknown */
    uint32_t line;    /* answer: 0 unknown */
} cprofi_dwarf_row;

/* A directory or file of the table: where its entry stands, and what it came to. */
typedef struct {
    const char *path; /* NULL: not asked for yet */
    uint32_t at;
} cprofi_line_name;

typedef struct {
    cprofi_line_name *names;
    size_t count, capacity;
} cprofi_line_names;

enum {
    CPROFI_LINE_DIRECTORIES, CPROFI_LINE_FILES, CPROFI_LINE_LISTS,
    CPROFI_LINE_PADDING = 16,   /* zeros after a table: a LEB128 number that runs over it ends */
    CPROFI_LINE_PATH_MAX = 4096,
    CPROFI_LINE_AGAIN = 16      /* tables are read at most so often, on the average */
};

/* A line number table; all zero before the first use, then used for table after table. */
typedef struct {
    const cprofi_dwarf *dwarf;
    const char *comp_dir;
    cprofi_dwarf_unit unit; /* what forms need; the caller may set str_offsets after open */
    uint64_t spent;         /* bytes read so far, see CPROFI_LINE_AGAIN */
    cprofi_buffer table;    /* from the version on */
    cprofi_buffer next;     /* of cprofi_dwarf_lines_find */
    size_t program, end;    /* in `table`; 0, 0: nothing is open */
    size_t lengths;         /* standard_opcode_lengths[1] */
    size_t header_files;    /* the other files were defined in the program */
    uint8_t min_instruction, max_operations, line_range, opcode_base;
    int8_t line_base;
    uint8_t format_count[CPROFI_LINE_LISTS];
    uint16_t formats[CPROFI_LINE_LISTS][255][2]; /* content type, form */
    cprofi_line_names lists[CPROFI_LINE_LISTS];
} cprofi_dwarf_lines;

/* ---- lines: the header of a line table ------------------------------------------------------- */

/* A directory or a file as its entry tells it. */
typedef struct {
    cprofi_dwarf_value name;
    uint64_t directory;
} cprofi_line_entry;

static cprofi_line_entry cprofi_line_entry_read(const cprofi_dwarf_lines *t, unsigned list,
                                                cprofi_bytes *b) {
    cprofi_line_entry e = {{0, 0}, 0};
    for (unsigned i = 0; i < t->format_count[list]; i++) {
        cprofi_dwarf_value v = {0, 0};
        if (!cprofi_dwarf_form(&t->unit, b, t->formats[list][i][1], 0, &v)) b->bad = true;
        if (t->formats[list][i][0] == 1) e.name = v; /* DW_LNCT_path */
        else if (t->formats[list][i][0] == 2) e.directory = v.value; /* DW_LNCT_directory_index */
    }
    return e;
}

/* An entry that was read before. */
static cprofi_line_entry cprofi_line_entry_at(const cprofi_dwarf_lines *t, unsigned list,
                                              size_t index) {
    cprofi_span span = {t->table.data, t->end};
    cprofi_bytes b = cprofi_bytes_of(span);
    cprofi_skip(&b, t->lists[list].names[index].at);
    return cprofi_line_entry_read(t, list, &b);
}

/* Notes the entry at the reading position, and passes over it. An entry of no bytes is damage: it
   would bound nothing. */
static bool cprofi_line_note(cprofi_dwarf_lines *t, unsigned list, cprofi_bytes *b) {
    cprofi_line_names *l = &t->lists[list];
    const uint8_t *start = b->at;
    (void)cprofi_line_entry_read(t, list, b);
    if (b->bad || b->at == start || !CPROFI_ROOM(l->names, l->count, l->capacity)) return false;
    l->names[l->count].path = NULL;
    l->names[l->count++].at = (uint32_t)(start - t->table.data);
    return true;
}

/* One of the two lists of the header. Damage ends it early. */
static void cprofi_line_list(cprofi_dwarf_lines *t, unsigned list, cprofi_bytes *b) {
    /* path, string; directory, time and size as LEB128 */
    static const uint16_t before_5[4][2] = {{1, 0x08}, {2, 0x0f}, {3, 0x0f}, {4, 0x0f}};
    const bool listed = t->unit.version >= 5;
    uint64_t count = ~(uint64_t)0;
    if (!listed) {
        memcpy(t->formats[list], before_5, sizeof before_5);
        t->format_count[list] = list == CPROFI_LINE_FILES ? 4 : 1;
    } else {
        t->format_count[list] = cprofi_u8(b);
        for (unsigned i = 0; i < 2u * t->format_count[list]; i++) {
            uint64_t value = cprofi_uleb(b);
            t->formats[list][i / 2][i % 2] = (uint16_t)(value < 0xffff ? value : 0xffff);
        }
        count = cprofi_uleb(b);
    }
    while (count-- && cprofi_left(b) && (listed || *b->at))
        if (!cprofi_line_note(t, list, b)) return;
    if (!listed) cprofi_skip(b, 1); /* the empty name at the end */
}

/* The table's bytes from its version on, and where the section has fewer, those. */
static bool cprofi_line_load(cprofi_dwarf_lines *t, uint64_t offset, size_t *size) {
    const cprofi_source *section = &t->dwarf->sections[CPROFI_DWARF_LINE];
    uint8_t head[12];
    uint64_t length;
    bool wide;
    if (!cprofi_source_read(section, offset, head, 4)) return false;
    length = cprofi_get32(head);
    wide = length == 0xffffffff;
    if (wide && !cprofi_source_read(section, offset, head, 12)) return false;
    if (wide) length = cprofi_get64(head + 4);
    else if (length >= 0xfffffff0) return false; /* reserved */
    t->unit.offset_size = wide ? 8 : 4;
    offset += wide ? 12 : 4;
    if (length > section->size - offset) length = section->size - offset;
    if (length > 0xffffffff - CPROFI_LINE_PADDING) return false;
    /* In a hostile file all units may share one table that is as large as the file. */
    t->spent += length;
    if (t->spent / CPROFI_LINE_AGAIN > section->size + 65536) return false;
    *size = (size_t)length;
    if (!cprofi_buffer_fit(&t->table, *size + CPROFI_LINE_PADDING) ||
        !cprofi_source_read(section, offset, t->table.data, *size))
        return false;
    memset(t->table.data + *size, 0, CPROFI_LINE_PADDING);
    return true;
}

/* Reads the line table at `offset` of CPROFI_DWARF_LINE. address_size is that of the unit, used
   before version 5; comp_dir, the directory of the unit, may be NULL and must outlive the use of
   the table. False: no such table, damaged header, out of memory, or too much was read already;
   then nothing below finds anything. */
static bool cprofi_dwarf_lines_open(cprofi_dwarf_lines *t, const cprofi_dwarf *d, uint64_t offset,
                                    uint8_t address_size, const char *comp_dir) {
    cprofi_dwarf_unit *u = &t->unit;
    cprofi_span span;
    cprofi_bytes b;
    uint64_t length;
    unsigned version;
    t->dwarf = d;
    t->comp_dir = comp_dir;
    t->program = t->end = t->header_files = 0;
    t->lists[CPROFI_LINE_DIRECTORIES].count = t->lists[CPROFI_LINE_FILES].count = 0;
    if (!cprofi_line_load(t, offset, &span.size)) return false;
    u->str_offsets = 2u * u->offset_size; /* that of the first unit */
    u->data = span.data = t->table.data;
    b = cprofi_bytes_of(span);
    version = cprofi_u16(&b);
    if (version < 2 || version > 5) return false;
    u->version = (uint8_t)version;
    u->address_size = address_size;
    if (version >= 5) {
        u->address_size = cprofi_u8(&b);
        cprofi_skip(&b, 1); /* segment_selector_size */
    }
    length = cprofi_uint(&b, u->offset_size);
    if (b.bad || length > cprofi_left(&b)) return false;
    b.end = b.at + (size_t)length;
    t->min_instruction = cprofi_u8(&b);
    t->max_operations = version >= 4 ? cprofi_u8(&b) : 1;
    cprofi_skip(&b, 1); /* default_is_stmt */
    t->line_base = (int8_t)cprofi_u8(&b);
    t->line_range = cprofi_u8(&b);
    t->opcode_base = cprofi_u8(&b);
    t->lengths = (size_t)(b.at - span.data);
    if (!t->opcode_base || !t->line_range) return false;
    cprofi_skip(&b, t->opcode_base - 1u);
    if (b.bad) return false;
    cprofi_line_list(t, CPROFI_LINE_DIRECTORIES, &b);
    if (!b.bad) cprofi_line_list(t, CPROFI_LINE_FILES, &b);
    t->header_files = t->lists[CPROFI_LINE_FILES].count;
    t->program = (size_t)(b.end - span.data);
    t->end = span.size;
    return true;
}

/* Frees the buffers; may be opened again. */
static void cprofi_dwarf_lines_close(cprofi_dwarf_lines *t) {
    free(t->table.data);
    free(t->next.data);
    free(t->lists[CPROFI_LINE_DIRECTORIES].names);
    free(t->lists[CPROFI_LINE_FILES].names);
    memset(t, 0, sizeof *t);
}

/* ---- lines: paths of a line table ------------------------------------------------------------ */

/* Puts `name` behind the directory in `path`, or in its place if it is absolute, by the rules of
   any system: the program may have been compiled on another one. False: it does not fit. */
static bool cprofi_line_join(char path[CPROFI_LINE_PATH_MAX], const char *name) {
    size_t used = strlen(path), length;
    if (name[0] == '/' || name[0] == '\\' ||
        (name[0] && name[1] == ':' && (name[2] == '/' || name[2] == '\\'))) {
        used = 0;
    } else {
        while (name[0] == '.' && (name[1] == '/' || name[1] == '\\')) name += 2;
        if (strcmp(name, ".") == 0) name++;
    }
    length = strlen(name);
    if (used + length + 2 > CPROFI_LINE_PATH_MAX) return false;
    if (used && length && path[used - 1] != '/' && path[used - 1] != '\\') {
        bool windows = strchr(path, '\\') && !strchr(path, '/');
        path[used++] = windows ? '\\' : '/';
    }
    memcpy(path + used, name, length + 1);
    return true;
}

/* Goes from the directory in `path` to what an entry is called. */
static bool cprofi_line_enter(const cprofi_dwarf_lines *t, const cprofi_line_entry *e,
                              char path[CPROFI_LINE_PATH_MAX]) {
    char name[CPROFI_LINE_PATH_MAX];
    return cprofi_dwarf_string(t->dwarf, &t->unit, &e->name, name, sizeof name) &&
           cprofi_line_join(path, name);
}

/* The full path of a file of the table opened last, NULL if unknown; kept in `text`, cached.
   Files of DW_LNE_define_file are known after cprofi_dwarf_lines_find. Up to version 4 files count
   from 1 and directory 0, which is not listed, is that of the unit; in version 5 both count from 0,
   and directory 0 says again what the unit says. A directory that is not there is left out. */
static const char *cprofi_dwarf_lines_file(cprofi_dwarf_lines *t, uint32_t file,
                                           cprofi_text *text) {
    const cprofi_line_names *files = &t->lists[CPROFI_LINE_FILES];
    const size_t directories = t->lists[CPROFI_LINE_DIRECTORIES].count;
    const unsigned first = t->unit.version < 5;
    const size_t index = (size_t)file - first;
    char path[CPROFI_LINE_PATH_MAX] = "";
    cprofi_line_entry e, directory;
    if (index >= files->count) return NULL;
    if (files->names[index].path) return files->names[index].path;
    e = cprofi_line_entry_at(t, CPROFI_LINE_FILES, index);
    if (t->comp_dir && (first || e.directory)) {
        if (!cprofi_line_join(path, t->comp_dir)) return NULL;
    } else if (!first && directories) {
        directory = cprofi_line_entry_at(t, CPROFI_LINE_DIRECTORIES, 0);
        if (!cprofi_line_enter(t, &directory, path)) return NULL;
    }
    if (e.directory && e.directory - first < directories) {
        directory = cprofi_line_entry_at(t, CPROFI_LINE_DIRECTORIES, (size_t)e.directory - first);
        if (!cprofi_line_enter(t, &directory, path)) return NULL;
    }
    if (!cprofi_line_enter(t, &e, path)) return NULL;
    files->names[index].path = cprofi_text_keep(text, path, strlen(path));
    return files->names[index].path;
}

/* ---- lines: the line number machine ---------------------------------------------------------- */

typedef struct {
    cprofi_dwarf_row *rows;
    size_t *next; /* of cprofi_unanswered */
    size_t count, left;
    size_t at;    /* the row that is wanted next */
    uint64_t top; /* the largest address */
    bool started, dropped;
} cprofi_line_search;

/* The row of the addresses [from, to) is known, and one of them may be wanted; or a sequence begins
   at `to`; or the program goes backwards. The address wanted next, ~0 if there is none. */
static uint64_t cprofi_line_cover(cprofi_line_search *s, uint64_t from, uint64_t to, uint32_t file,
                                  uint32_t line) {
    if (!s->started) {
        s->started = true;
        s->dropped = to == s->top || to == s->top - 1 || (to == 0 && s->rows[0].address != 0);
        from = to;
    }
    if (s->dropped) s->at = s->count;
    else if (from >= to)
        s->at = cprofi_unanswered(s->next,
                                  cprofi_search(s->rows, sizeof *s->rows, 0, s->count, to));
    while (s->at < s->count && s->rows[s->at].address < to) {
        s->rows[s->at].file = file;
        s->rows[s->at].line = line;
        s->next[s->at] = s->at + 1;
        s->at = cprofi_unanswered(s->next, s->at);
        s->left--;
    }
    return s->at < s->count ? s->rows[s->at].address : ~(uint64_t)0;
}

/* LEB128 without a check: zeros follow the table. */
static inline uint64_t cprofi_line_uleb(const uint8_t **at) {
    const uint8_t *p = *at;
    uint64_t v = *p & 0x7f;
    for (unsigned shift = 7; *p++ & 0x80; shift += 7)
        if (shift < 64) v |= (uint64_t)(*p & 0x7f) << shift;
    *at = p;
    return v;
}

static inline uint32_t cprofi_line_sleb(const uint8_t **at) {
    const uint8_t *start = *at;
    uint64_t v = cprofi_line_uleb(at);
    size_t bits = 7 * (size_t)(*at - start);
    return (uint32_t)(bits < 32 && ((*at)[-1] & 0x40) ? v | ~(uint64_t)0 << bits : v);
}

/* An extended opcode, at `p` and with this many bytes. True: end_sequence. */
static bool cprofi_line_extended(cprofi_dwarf_lines *t, const uint8_t *p, size_t size,
                                 uint64_t *address, uint64_t *operation) {
    cprofi_bytes b = {p, p + size, false};
    uint8_t op = cprofi_u8(&b);
    if (op == 2 && size >= 2 && size <= 9) { /* set_address */
        *address = cprofi_uint(&b, size - 1);
        *operation = 0;
    } else if (op == 3 && t->unit.version < 5) { /* define_file */
        (void)cprofi_line_note(t, CPROFI_LINE_FILES, &b);
    }
    return op == 1;
}

/* Runs the program until it ends or nothing is wanted any more. */
static void cprofi_line_run(cprofi_dwarf_lines *t, cprofi_line_search *s) {
    const uint8_t *p = t->table.data + t->program, *const end = t->table.data + t->end;
    const uint8_t *const lengths = t->table.data + t->lengths - 1;
    const unsigned base = t->opcode_base, range = t->line_range, operations = t->max_operations;
    const uint64_t instruction = t->min_instruction;
    uint64_t address = 0, operation = 0;
    uint32_t file = 1, line = 1;
    /* The row before. A row costs one comparison, which is also true when the program goes
       backwards, and for the first row of a sequence. */
    uint64_t from = 0, wanted = 0;
    uint32_t from_file = 0, from_line = 0;

    while (p < end && s->left) {
        const unsigned op = *p++;
        uint64_t advance = 0;
        bool row = true, last = false;
        if (op >= base) {
            advance = (op - base) / range;
            line += (uint32_t)(t->line_base + (int)((op - base) % range));
        } else if (op == 0) {
            uint64_t size = cprofi_line_uleb(&p);
            if (p >= end || size > (size_t)(end - p)) return;
            row = last = cprofi_line_extended(t, p, (size_t)size, &address, &operation);
            p += (size_t)size;
        } else if (op != 1) { /* 1: copy */
            row = false;
            switch (op) {
            case 2: advance = cprofi_line_uleb(&p); break;        /* advance_pc */
            case 3: line += cprofi_line_sleb(&p); break;          /* advance_line */
            case 4: file = (uint32_t)cprofi_line_uleb(&p); break; /* set_file */
            case 5: case 12: (void)cprofi_line_uleb(&p); break;   /* set_column, set_isa */
            case 6: case 7: case 10: case 11: break;              /* flags */
            case 8: advance = (255 - base) / range; break;        /* const_add_pc */
            case 9:                                               /* fixed_advance_pc */
                address += cprofi_get16(p);
                operation = 0;
                p += 2;
                break;
            default:
                for (unsigned n = lengths[op]; n && p < end; n--) (void)cprofi_line_uleb(&p);
            }
        }
        if (operations > 1) {
            operation += advance;
            advance = operation / operations;
            operation %= operations;
        }
        address += advance * instruction;
        if (!row) continue;
        if (address - from >= wanted - from)
            wanted = cprofi_line_cover(s, from, address, from_file, from_line);
        from = address;
        from_file = file;
        from_line = line;
        if (!last) continue;
        s->started = false;
        from = wanted = address = operation = 0;
        file = line = 1;
    }
}

/* Fills file and line of n rows, ascending by address (duplicates allowed). */
static void cprofi_dwarf_lines_find(cprofi_dwarf_lines *t, cprofi_dwarf_row *rows,
                                                  size_t n) {
    cprofi_line_search s;
    memset(&s, 0, sizeof s);
    for (size_t i = 0; i < n; i++) {
        rows[i].file = 0xffffffff;
        rows[i].line = 0;
    }
    if (!n || n >= (size_t)-1 / sizeof *s.next || t->program == t->end ||
        !cprofi_buffer_fit(&t->next, (n + 1) * sizeof *s.next))
        return;
    s.rows = rows;
    s.next = (size_t *)(void *)t->next.data;
    for (size_t i = 0; i <= n; i++) s.next[i] = i;
    s.count = s.left = n;
    s.top = ~(uint64_t)0;
    if (t->unit.address_size && t->unit.address_size < 8)
        s.top >>= 64 - 8 * t->unit.address_size;
    t->lists[CPROFI_LINE_FILES].count = t->header_files;
    cprofi_line_run(t, &s);
}

/* ---------------------------------------------------------------------------------------------- */
/* >>dwarf: functions, and what was inlined into them

   The problem: for some thousand addresses the functions each stands in, from what was inlined last
   to the function that holds the code, out of perhaps a gigabyte. The idea: all that is wanted is
   sorted by where it stands, and each unit is read at most once. (1) Addresses find their units:
   .debug_aranges says it (of units of DWARF 2 with several sections nothing else does), for the
   rest the root entry of each unit. (2) A unit is read whole and walked front to back. Entries
   without code are passed over, most by a size known beforehand or by DW_AT_sibling; the ranges of
   a subprogram or inlined_subroutine search the unit's wanted addresses. (3) A function is named by
   following its entry to the abstract origin and the specification. What leads into another unit
   (link-time optimisation) waits until all are done.

   The invariant of the walk: an address has the deepest entry (node) seen so far that holds it. A
   node takes an address over only from the function around it, so the first of two functions at one
   place (identical code folded) keeps it. Nodes are kept for hits and what is around them.

   Cost: linear in the bytes of the wanted units; the memory of the largest, its line table, 16
   bytes for each namespace, class and function in it, and some 100 for each function in an answer.
   Work that is not paid for by reading on is counted against a limit (cprofi_dwarf_spend).

   Ranges that begin at 0, ~0 or ~0 - 1 are what linkers make of discarded code, and are ignored.
   Not handled: .dwo and supplementary files (both counted), .debug_types, .debug_names. After
   "DWARF 5" (chapters 2, 3, 7), versions 2 to 4, and the GNU extensions for split units. */

typedef struct {
    const char *function; /* raw: a linkage name, else the name with its scopes; NULL unknown */
    const char *file;     /* full path; NULL unknown */
    uint32_t line;        /* where this frame is at; 0 unknown */
    uint32_t start_line;  /* where the function is declared; 0 unknown */
    bool linkage;         /* `function` is a linkage name, to be demangled */
    bool inlined;         /* into the next frame */
} cprofi_dwarf_frame;

typedef struct {
    uint64_t address;      /* as in the file; for a return address already minus one */
    uint32_t index;        /* the caller's; not touched */
    uint32_t first, count; /* answer: frames[first ..], innermost first; count 0: nothing known */
} cprofi_dwarf_want;

typedef struct {
    cprofi_dwarf_frame *frames;
    size_t count, capacity;
    uint32_t split_units;   /* units asked for whose content is in a .dwo file */
    uint32_t supplementary; /* references into a DWZ supplementary file, not followed */
    uint32_t damaged_units; /* units asked for that could not be read */
    bool plain;             /* to be set: no linkage names of C++, nobody could read them */
} cprofi_dwarf_answer;

#define CPROFI_DWARF_NONE 0xffffffffu

enum {
    CPROFI_DWARF_AGAIN = 16,     /* bytes are looked at so often, on the average */
    CPROFI_DWARF_WINDOW = 4096,  /* bytes read at once where little is needed */
    CPROFI_DWARF_PADDING = 16,   /* zeros after a unit */
    CPROFI_DWARF_CHAIN = 256,    /* inlining is followed so deep */
    CPROFI_DWARF_HOPS = 16,      /* and references so far */
    CPROFI_DWARF_SCOPES = 64,    /* parts of a name */
    CPROFI_DWARF_NAME_MAX = 16384,
    CPROFI_DWARF_KNOWN = 16384,  /* functions that need not be looked up again */
    CPROFI_DWARF_UNFIXED = 0xffff
};

/* The attributes that are looked at. */
enum {
    CPROFI_AT_SIBLING, CPROFI_AT_NAME, CPROFI_AT_LINKAGE_NAME, CPROFI_AT_LOW_PC, CPROFI_AT_HIGH_PC,
    CPROFI_AT_RANGES, CPROFI_AT_ORIGIN, CPROFI_AT_SPECIFICATION, CPROFI_AT_DECLARATION,
    CPROFI_AT_DECL_LINE, CPROFI_AT_CALL_FILE, CPROFI_AT_CALL_LINE, CPROFI_AT_LANGUAGE,
    CPROFI_AT_STMT_LIST, CPROFI_AT_COMP_DIR, CPROFI_AT_STR_OFFSETS_BASE, CPROFI_AT_ADDR_BASE,
    CPROFI_AT_RNGLISTS_BASE, CPROFI_AT_DWO_NAME, CPROFI_AT_COUNT
};

typedef enum {
    CPROFI_DIE_OTHER,  /* without code, or nothing but a block around some */
    CPROFI_DIE_SCOPE,  /* a part of the names within */
    CPROFI_DIE_SUBPROGRAM,
    CPROFI_DIE_INLINED
} cprofi_die_kind;

typedef struct {
    int64_t implicit; /* DW_FORM_implicit_const */
    uint16_t form;
    uint8_t slot; /* CPROFI_AT_* */
    uint8_t size; /* or CPROFI_DWARF_VARIES */
} cprofi_dwarf_attribute;

typedef struct {
    uint64_t code;
    uint32_t first, count; /* attributes[first ..] */
    uint16_t tag;
    uint16_t size;    /* of all attributes together, or CPROFI_DWARF_UNFIXED */
    uint16_t sibling; /* where DW_FORM_ref4 of DW_AT_sibling is, or CPROFI_DWARF_UNFIXED */
    uint8_t kind;
    bool children;
    bool leap; /* nothing below matters: DW_AT_sibling may be followed */
    bool ranges; /* has DW_AT_low_pc or DW_AT_ranges */
} cprofi_dwarf_abbrev;

/* The abbreviations at one offset, ascending by code. */
typedef struct {
    uint64_t offset, shape; /* shape: what the sizes depend on; 0: nothing is loaded */
    uint64_t last;          /* those up to this code were read; 0: all */
    cprofi_dwarf_abbrev *abbrevs;
    size_t count, capacity;
    cprofi_dwarf_attribute *attributes;
    size_t attribute_count, attribute_capacity;
} cprofi_dwarf_abbrevs;

/* A debugging information entry. */
typedef struct {
    const cprofi_dwarf_abbrev *abbrev;
    uint32_t present; /* by bit: which of these it has */
    cprofi_dwarf_value of[CPROFI_AT_COUNT];
} cprofi_dwarf_die;

/* A namespace, class or function with something in it. */
typedef struct {
    uint64_t at;
    uint32_t end, parent;
} cprofi_dwarf_scope;

/* A subprogram or an inlined_subroutine that holds a wanted address. */
typedef struct {
    uint64_t name;     /* where the entry is that names it */
    uint32_t parent;   /* the node it is inlined into, or CPROFI_DWARF_NONE */
    uint32_t function; /* the node of the subprogram around it */
    uint32_t depth, call_file, call_line;
    bool held; /* is or was the deepest node of an address */
} cprofi_dwarf_node;

/* What holds for the entries at one depth of the walk. */
typedef struct {
    uint32_t scope, node;
} cprofi_dwarf_level;

/* A name, looked up once. */
typedef struct {
    uint64_t at;   /* the entry it was asked for */
    uint64_t next; /* the entry in another unit to go on at, or ~0 */
    const char *name;
    uint32_t line, hops;
    bool linkage;
} cprofi_dwarf_function;

typedef struct {
    uint64_t unit, asked; /* ~0: unknown; the unit that was asked in vain */
    uint32_t want;
    bool done;
} cprofi_dwarf_place;

typedef struct {
    uint64_t start;
    size_t have;
    uint8_t bytes[CPROFI_DWARF_WINDOW];
} cprofi_dwarf_window;

typedef struct {
    const cprofi_dwarf *dwarf;
    cprofi_dwarf_want *wants;
    size_t count;
    cprofi_text *text;
    cprofi_dwarf_answer *answer;
    uint64_t spent, limit;
    bool no_memory;

    cprofi_dwarf_place *places; /* by want */
    cprofi_dwarf_place *order;  /* those to be looked up now, by unit */
    uint64_t *units;            /* where each begins */
    size_t unit_count, unit_capacity;
    bool indexed;

    cprofi_dwarf_unit unit;
    cprofi_buffer unit_buffer, abbrev_buffer;
    cprofi_dwarf_abbrevs abbrevs, root_abbrev;
    cprofi_dwarf_row *rows;     /* the unit's wants */
    uint32_t *row_nodes;        /* the deepest node of each */
    size_t row_count;
    cprofi_dwarf_node *nodes;
    size_t node_count, node_capacity;
    cprofi_dwarf_scope *scopes; /* ascending by `at` */
    size_t scope_count, scope_capacity;
    cprofi_dwarf_level *levels;
    size_t level_capacity;
    cprofi_dwarf_lines lines;

    cprofi_dwarf_function *functions;
    size_t function_count, function_capacity;
    uint32_t known[CPROFI_DWARF_KNOWN]; /* functions by hash of `at`: the last of each */

    cprofi_dwarf_window windows[CPROFI_DWARF_SECTIONS];
    char string[CPROFI_DWARF_NAME_MAX], name[CPROFI_DWARF_NAME_MAX];
    char comp_dir[CPROFI_LINE_PATH_MAX];
} cprofi_dwarf_look;

static bool cprofi_dwarf_spend(cprofi_dwarf_look *k, uint64_t work) {
    k->spent += work;
    return k->spent <= k->limit;
}

/* Room for one more item. */
#define CPROFI_DWARF_ROOM(k, items, count, capacity) \
    (CPROFI_ROOM(items, count, capacity) || !((k)->no_memory = true))

/* The bytes at an offset of a section, `size` of them (a window at most) or what is left there.
   They stay until the next call for this section. */
static cprofi_bytes cprofi_dwarf_peek(cprofi_dwarf_look *k, unsigned section, uint64_t at,
                                      size_t size) {
    const cprofi_source *source = &k->dwarf->sections[section];
    cprofi_dwarf_window *w = &k->windows[section];
    cprofi_bytes b = {w->bytes, w->bytes, false};
    if (at >= source->size) return b;
    if (size > source->size - at) size = (size_t)(source->size - at);
    if (at < w->start || at - w->start > w->have || size > w->have - (at - w->start)) {
        uint64_t left = source->size - at;
        w->start = at;
        w->have = left < sizeof w->bytes ? (size_t)left : sizeof w->bytes;
        if (!cprofi_dwarf_spend(k, w->have) ||
            !cprofi_source_read(source, at, w->bytes, w->have)) {
            w->have = 0;
            return b;
        }
    }
    b.at = w->bytes + (size_t)(at - w->start);
    b.end = b.at + size;
    return b;
}

/* ---- dwarf: values of attributes ------------------------------------------------------------- */

/* Entry i of a table of addresses or offsets. */
static bool cprofi_dwarf_entry(cprofi_dwarf_look *k, unsigned section, uint64_t base, uint64_t i,
                               size_t size, uint64_t *value) {
    cprofi_bytes b;
    if (i > k->dwarf->sections[section].size || base > k->dwarf->sections[section].size)
        return false;
    b = cprofi_dwarf_peek(k, section, base + i * size, size);
    *value = cprofi_uint(&b, size);
    return !b.bad;
}

static bool cprofi_dwarf_address(cprofi_dwarf_look *k, const cprofi_dwarf_unit *u,
                                 const cprofi_dwarf_value *v, uint64_t *address) {
    *address = v->value;
    if (cprofi_dwarf_is_index(v->form))
        return cprofi_dwarf_entry(k, CPROFI_DWARF_ADDR, u->addr, v->value, u->address_size,
                                  address);
    return v->form == 0x01;
}

/* Where a reference leads to in CPROFI_DWARF_INFO; ~0: nowhere that can be reached. */
static uint64_t cprofi_dwarf_reference(const cprofi_dwarf_unit *u, const cprofi_dwarf_value *v) {
    switch (v->form) {
    case 0x11: case 0x12: case 0x13: case 0x14: case 0x15:
        return v->value < u->end - u->offset ? u->offset + v->value : ~(uint64_t)0;
    case 0x10: return v->value;
    default: return ~(uint64_t)0;
    }
}

/* ---- dwarf: abbreviations -------------------------------------------------------------------- */

static unsigned cprofi_dwarf_slot(uint64_t attribute) {
    switch (attribute) {
    case 0x01: return CPROFI_AT_SIBLING;
    case 0x03: return CPROFI_AT_NAME;
    case 0x10: return CPROFI_AT_STMT_LIST;
    case 0x11: return CPROFI_AT_LOW_PC;
    case 0x12: return CPROFI_AT_HIGH_PC;
    case 0x13: return CPROFI_AT_LANGUAGE;
    case 0x1b: return CPROFI_AT_COMP_DIR;
    case 0x31: return CPROFI_AT_ORIGIN;
    case 0x3b: return CPROFI_AT_DECL_LINE;
    case 0x3c: return CPROFI_AT_DECLARATION;
    case 0x47: return CPROFI_AT_SPECIFICATION;
    case 0x55: return CPROFI_AT_RANGES;
    case 0x58: return CPROFI_AT_CALL_FILE;
    case 0x59: return CPROFI_AT_CALL_LINE;
    case 0x6e: case 0x2007: return CPROFI_AT_LINKAGE_NAME; /* and DW_AT_MIPS_linkage_name */
    case 0x72: return CPROFI_AT_STR_OFFSETS_BASE;
    case 0x73: case 0x2133: return CPROFI_AT_ADDR_BASE;    /* and DW_AT_GNU_addr_base */
    case 0x74: return CPROFI_AT_RNGLISTS_BASE;
    case 0x76: case 0x2130: return CPROFI_AT_DWO_NAME;     /* and DW_AT_GNU_dwo_name */
    default: return CPROFI_AT_COUNT;
    }
}

/* What an entry is, and whether DW_AT_sibling may lead past all that is below it. */
static void cprofi_dwarf_classify(cprofi_dwarf_abbrev *a, uint32_t has) {
    bool sibling = has >> CPROFI_AT_SIBLING & 1;
    a->kind = CPROFI_DIE_OTHER;
    a->ranges = (has >> CPROFI_AT_LOW_PC & 1) || (has >> CPROFI_AT_RANGES & 1);
    a->leap = false;
    switch (a->tag) {
    case 0x0b: case 0x22: case 0x25: case 0x32: /* lexical_block, with_stmt, catch_, try_block */
    case 0x11: case 0x3c: case 0x41: case 0x4a: /* and the units */
        break;
    case 0x02: case 0x13: case 0x17: case 0x1e: case 0x38: case 0x39:
        a->kind = CPROFI_DIE_SCOPE; /* class, structure, union, module, interface, namespace */
        break;
    case 0x04: /* enumeration: in Rust it may have methods, and Rust writes no DW_AT_sibling */
        if (!sibling) a->kind = CPROFI_DIE_SCOPE;
        else a->leap = true;
        break;
    case 0x1d: /* inlined_subroutine */
        a->kind = CPROFI_DIE_INLINED;
        a->leap = sibling;
        break;
    case 0x2e: /* subprogram */
        if (!(has >> CPROFI_AT_DECLARATION & 1)) a->kind = CPROFI_DIE_SUBPROGRAM;
        else a->leap = sibling;
        break;
    default: a->leap = sibling;
    }
    a->leap = a->leap && a->children;
}

/* Reads the specifications of one abbreviation. */
static bool cprofi_dwarf_abbrev_read(cprofi_dwarf_look *k, cprofi_dwarf_abbrevs *t,
                                     const cprofi_dwarf_unit *u, cprofi_bytes *b,
                                     cprofi_dwarf_abbrev *a) {
    uint32_t size = 0, has = 0;
    a->first = (uint32_t)t->attribute_count;
    a->sibling = CPROFI_DWARF_UNFIXED;
    for (;;) {
        uint64_t name = cprofi_uleb(b), form = cprofi_uleb(b);
        cprofi_dwarf_attribute *to;
        if (!name && !form) break;
        if (!CPROFI_DWARF_ROOM(k, t->attributes, t->attribute_count, t->attribute_capacity))
            return false;
        to = &t->attributes[t->attribute_count++];
        to->implicit = form == 0x21 ? cprofi_sleb(b) : 0;
        to->form = (uint16_t)(form <= 0xffff ? form : 0);
        to->slot = (uint8_t)cprofi_dwarf_slot(name);
        to->size = cprofi_dwarf_form_size(u, to->form);
        if (to->slot < CPROFI_AT_COUNT) has |= (uint32_t)1 << to->slot;
        if (to->slot == CPROFI_AT_SIBLING && form == 0x13 && size < CPROFI_DWARF_UNFIXED)
            a->sibling = (uint16_t)size;
        if (to->size == CPROFI_DWARF_VARIES) size = CPROFI_DWARF_UNFIXED;
        else size += to->size;
        if (size > CPROFI_DWARF_UNFIXED) size = CPROFI_DWARF_UNFIXED;
    }
    a->count = (uint32_t)(t->attribute_count - a->first);
    a->size = (uint16_t)size;
    cprofi_dwarf_classify(a, has);
    return true;
}

/* Reads the table in `b`, up to the abbreviation `last` if that is not 0; b->bad when it does not
   end there. */
static bool cprofi_dwarf_abbrevs_parse(cprofi_dwarf_look *k, cprofi_dwarf_abbrevs *t,
                                       const cprofi_dwarf_unit *u, cprofi_bytes *b) {
    uint64_t code = 0;
    t->count = t->attribute_count = 0;
    while ((!code || code != t->last) && (code = cprofi_uleb(b)) != 0) {
        cprofi_dwarf_abbrev a;
        a.code = code;
        a.tag = (uint16_t)cprofi_uleb(b);
        a.children = cprofi_u8(b) != 0;
        if (!cprofi_dwarf_abbrev_read(k, t, u, b, &a)) return false;
        if (b->bad) return true;
        if (!CPROFI_DWARF_ROOM(k, t->abbrevs, t->count, t->capacity)) return false;
        t->abbrevs[t->count++] = a;
    }
    return true;
}

/* Loads the abbreviations of a unit, if they are not there already. */
static bool cprofi_dwarf_abbrevs_load(cprofi_dwarf_look *k, cprofi_dwarf_abbrevs *t,
                                      const cprofi_dwarf_unit *u, uint64_t last) {
    const cprofi_source *source = &k->dwarf->sections[CPROFI_DWARF_ABBREV];
    uint64_t shape = (uint64_t)u->offset_size << 16 | (uint64_t)u->address_size << 8 | u->version;
    cprofi_span span;
    if (t->shape == shape && t->offset == u->abbrevs && t->last == last) return true;
    t->shape = 0;
    t->offset = u->abbrevs;
    t->last = last;
    if (u->abbrevs >= source->size) return false;
    /* Where a table ends is known only when it was read. */
    for (span.size = 2 * CPROFI_DWARF_WINDOW;; span.size *= 4) {
        bool all = span.size >= source->size - u->abbrevs;
        cprofi_bytes b;
        if (all) span.size = (size_t)(source->size - u->abbrevs);
        if (!cprofi_dwarf_spend(k, span.size)) return false;
        if (!cprofi_buffer_fit(&k->abbrev_buffer, span.size)) {
            k->no_memory = true;
            return false;
        }
        span.data = k->abbrev_buffer.data;
        if (!cprofi_source_read(source, u->abbrevs, k->abbrev_buffer.data, span.size)) return false;
        b = cprofi_bytes_of(span);
        if (!cprofi_dwarf_abbrevs_parse(k, t, u, &b)) return false;
        if (!b.bad || all) break; /* what of a cut table there is will do */
    }
    for (size_t i = 1; i < t->count; i++) {
        if (t->abbrevs[i - 1].code < t->abbrevs[i].code) continue;
        qsort(t->abbrevs, t->count, sizeof *t->abbrevs, cprofi_compare);
        break;
    }
    t->shape = shape;
    return true;
}

static inline const cprofi_dwarf_abbrev *cprofi_dwarf_abbrev_of(const cprofi_dwarf_abbrevs *t,
                                                                uint64_t code) {
    size_t at = (size_t)code - 1; /* where it mostly is */
    if (code - 1 >= t->count || t->abbrevs[at].code != code)
        at = cprofi_search(t->abbrevs, sizeof *t->abbrevs, 0, t->count, code);
    return at < t->count && t->abbrevs[at].code == code ? &t->abbrevs[at] : NULL;
}

/* ---- dwarf: units and entries ---------------------------------------------------------------- */

/* Reads the attributes of an entry, which begin at *at in the unit, and moves *at behind them. */
static bool cprofi_dwarf_attributes(cprofi_dwarf_look *k, const cprofi_dwarf_unit *u,
                                    const cprofi_dwarf_abbrevs *t, const cprofi_dwarf_abbrev *a,
                                    size_t *at, cprofi_dwarf_die *die) {
    cprofi_bytes b = {u->data + *at, u->data + u->size, false};
    size_t start = *at;
    die->abbrev = a;
    die->present = 0;
    for (size_t i = 0; i < a->count; i++) {
        const cprofi_dwarf_attribute *spec = &t->attributes[a->first + i];
        cprofi_dwarf_value v;
        if (spec->slot == CPROFI_AT_COUNT && spec->size != CPROFI_DWARF_VARIES) {
            cprofi_skip(&b, spec->size);
            continue;
        }
        if (!cprofi_dwarf_form(u, &b, spec->form, spec->implicit, &v)) return false;
        if (spec->slot == CPROFI_AT_COUNT) continue;
        die->of[spec->slot] = v;
        die->present |= (uint32_t)1 << spec->slot;
    }
    *at = (size_t)(b.at - u->data);
    return cprofi_dwarf_spend(k, a->count + (*at - start)) && !b.bad;
}

/* The value of an attribute, NULL if the entry does not have it. */
static inline const cprofi_dwarf_value *cprofi_die_value(const cprofi_dwarf_die *die,
                                                         unsigned slot) {
    return die->present >> slot & 1 ? &die->of[slot] : NULL;
}

static inline uint64_t cprofi_die_number(const cprofi_dwarf_die *die, unsigned slot,
                                         uint64_t otherwise) {
    return die->present >> slot & 1 ? die->of[slot].value : otherwise;
}

/* Reads the entry at a place in the unit that is loaded. */
static bool cprofi_dwarf_die_read(cprofi_dwarf_look *k, size_t at, cprofi_dwarf_die *die) {
    cprofi_dwarf_unit *u = &k->unit;
    const cprofi_dwarf_abbrev *a;
    cprofi_bytes b = {u->data, u->data + u->size, false};
    if (at < u->root || at >= u->size) return false;
    b.at += at;
    a = cprofi_dwarf_abbrev_of(&k->abbrevs, cprofi_uleb(&b));
    at = (size_t)(b.at - u->data);
    return a && cprofi_dwarf_attributes(k, u, &k->abbrevs, a, &at, die);
}

/* Reads the header of the unit at an offset. False: it cannot be used; u->end is behind it
   nevertheless, or 0 if that is unknown. */
static bool cprofi_dwarf_header(cprofi_dwarf_look *k, uint64_t offset, cprofi_dwarf_unit *u) {
    const uint64_t size = k->dwarf->sections[CPROFI_DWARF_INFO].size;
    cprofi_bytes b = cprofi_dwarf_peek(k, CPROFI_DWARF_INFO, offset, 64);
    const uint8_t *start = b.at;
    uint64_t length = cprofi_u32(&b);
    memset(u, 0, sizeof *u);
    u->offset = offset;
    u->offset_size = 4;
    if (length == 0xffffffff) {
        u->offset_size = 8;
        length = cprofi_u64(&b);
    } else if (length >= 0xfffffff0) {
        return false; /* reserved */
    }
    offset += (uint64_t)(b.at - start);
    if (b.bad) return false;
    if (length > size - offset) length = size - offset; /* a file that was cut */
    u->end = offset + length;
    u->version = (uint8_t)cprofi_u16(&b);
    if (b.bad || b.at[-1] || u->version < 2 || u->version > 5) return false;
    if (u->version >= 5) {
        u->type = cprofi_u8(&b);
        u->address_size = cprofi_u8(&b);
        u->abbrevs = cprofi_uint(&b, u->offset_size);
        if (u->type == 4 || u->type == 5) cprofi_skip(&b, 8); /* DW_UT_skeleton, split_compile */
        if (u->type == 2 || u->type == 6) cprofi_skip(&b, 8 + (uint64_t)u->offset_size);
    } else {
        u->abbrevs = cprofi_uint(&b, u->offset_size);
        u->address_size = cprofi_u8(&b);
    }
    u->root = (size_t)(b.at - start);
    u->top = u->address_size == 4 ? 0xffffffff : ~(uint64_t)0;
    return !b.bad && (u->address_size == 4 || u->address_size == 8);
}

/* Reads the root entry of a unit, and what it says about the unit. */
static bool cprofi_dwarf_root(cprofi_dwarf_look *k, cprofi_dwarf_unit *u, cprofi_dwarf_abbrevs *t,
                              cprofi_dwarf_die *root) {
    const bool wide = u->offset_size == 8;
    const cprofi_dwarf_abbrev *a;
    const cprofi_dwarf_value *low;
    cprofi_bytes b = {u->data, u->data + u->size, false};
    uint64_t code, base = u->version < 5 ? 0 : wide ? 16 : 8; /* of the section's first table */
    size_t at;
    cprofi_skip(&b, u->root);
    code = cprofi_uleb(&b);
    if (!code || !cprofi_dwarf_abbrevs_load(k, t, u, t == &k->root_abbrev ? code : 0)) return false;
    a = cprofi_dwarf_abbrev_of(t, code);
    at = (size_t)(b.at - u->data);
    if (!a || !cprofi_dwarf_attributes(k, u, t, a, &at, root)) return false;
    u->str_offsets = cprofi_die_number(root, CPROFI_AT_STR_OFFSETS_BASE, base);
    u->addr = cprofi_die_number(root, CPROFI_AT_ADDR_BASE, base);
    u->rnglists = cprofi_die_number(root, CPROFI_AT_RNGLISTS_BASE, wide ? 20 : 12);
    u->language = cprofi_die_number(root, CPROFI_AT_LANGUAGE, 0);
    low = cprofi_die_value(root, CPROFI_AT_LOW_PC);
    if (!low || !cprofi_dwarf_address(k, u, low, &u->low)) u->low = 0;
    return true;
}

/* Reads a unit whole. */
static bool cprofi_dwarf_unit_load(cprofi_dwarf_look *k, uint64_t offset, cprofi_dwarf_die *root) {
    cprofi_dwarf_unit *u = &k->unit;
    uint64_t size;
    k->scope_count = k->node_count = 0;
    if (!cprofi_dwarf_header(k, offset, u)) return false;
    size = u->end - u->offset;
    if (size > CPROFI_DWARF_NONE - CPROFI_DWARF_PADDING || !cprofi_dwarf_spend(k, size))
        return false;
    if (!cprofi_buffer_fit(&k->unit_buffer, (size_t)size + CPROFI_DWARF_PADDING)) {
        k->no_memory = true;
        return false;
    }
    u->data = k->unit_buffer.data;
    u->size = (size_t)size;
    memset(k->unit_buffer.data + u->size, 0, CPROFI_DWARF_PADDING);
    return cprofi_source_read(&k->dwarf->sections[CPROFI_DWARF_INFO], offset, k->unit_buffer.data,
                              u->size) &&
           cprofi_dwarf_root(k, u, &k->abbrevs, root);
}

/* ---- dwarf: ranges of addresses -------------------------------------------------------------- */

typedef struct {
    uint64_t at;        /* the next entry of the list */
    uint64_t base;
    uint64_t low, high; /* the range found last */
    unsigned section;   /* CPROFI_DWARF_INFO: the one range is in the entry itself */
    bool dropped;       /* `base` is that of discarded code */
    bool end;
} cprofi_dwarf_ranges;

static cprofi_dwarf_ranges cprofi_dwarf_ranges_of(cprofi_dwarf_look *k, const cprofi_dwarf_unit *u,
                                                  const cprofi_dwarf_die *die) {
    cprofi_dwarf_ranges r = {0, 0, 0, 0, CPROFI_DWARF_INFO, false, false};
    const cprofi_dwarf_value *list = cprofi_die_value(die, CPROFI_AT_RANGES);
    const cprofi_dwarf_value *low = cprofi_die_value(die, CPROFI_AT_LOW_PC);
    const cprofi_dwarf_value *high = cprofi_die_value(die, CPROFI_AT_HIGH_PC);
    if (list) {
        r.section = u->version < 5 ? CPROFI_DWARF_RANGES : CPROFI_DWARF_RNGLISTS;
        r.base = u->low;
        r.at = list->value;
        if (list->form == 0x23) { /* rnglistx */
            r.end = !cprofi_dwarf_entry(k, r.section, u->rnglists, list->value, u->offset_size,
                                        &r.at);
            r.at += u->rnglists;
        }
    } else if (!low || !high || !cprofi_dwarf_address(k, u, low, &r.low)) {
        r.end = true;
    } else if (high->form == 0x01 || cprofi_dwarf_is_index(high->form)) {
        r.end = !cprofi_dwarf_address(k, u, high, &r.high);
    } else {
        r.high = r.low + high->value;
    }
    return r;
}

/* An entry of a list in .debug_ranges; false if it gave no range. */
static bool cprofi_dwarf_range_pair(cprofi_dwarf_look *k, const cprofi_dwarf_unit *u,
                                    cprofi_dwarf_ranges *r) {
    cprofi_bytes b = cprofi_dwarf_peek(k, r->section, r->at, 2 * (size_t)u->address_size);
    r->low = cprofi_uint(&b, u->address_size);
    r->high = cprofi_uint(&b, u->address_size);
    r->at += 2 * (uint64_t)u->address_size;
    r->end = b.bad || (!r->low && !r->high);
    if (r->end) return false;
    if (r->low == u->top) {
        r->base = r->high; /* 0 only means that addresses follow; for 1 see lld */
        r->dropped = r->base == 1 || r->base >= u->top - 1;
        return false;
    }
    r->low += r->base;
    r->high += r->base;
    return !r->dropped;
}

/* An entry of a list in .debug_rnglists; false if it gave no range. */
static bool cprofi_dwarf_range_entry(cprofi_dwarf_look *k, const cprofi_dwarf_unit *u,
                                     cprofi_dwarf_ranges *r) {
    cprofi_bytes b = cprofi_dwarf_peek(k, r->section, r->at, 32);
    const uint8_t *start = b.at;
    const unsigned kind = cprofi_u8(&b);
    uint64_t v[2] = {0, 0};
    r->end = true;
    switch (kind) {
    case 1: v[0] = cprofi_uleb(&b); break;                            /* base_addressx */
    case 2: case 3: case 4:                                           /* startx_endx, _length, */
        v[0] = cprofi_uleb(&b);                                       /* offset_pair */
        v[1] = cprofi_uleb(&b);
        break;
    case 5: v[0] = cprofi_uint(&b, u->address_size); break;           /* base_address */
    case 6: case 7:                                                   /* start_end, start_length */
        v[0] = cprofi_uint(&b, u->address_size);
        v[1] = kind == 6 ? cprofi_uint(&b, u->address_size) : cprofi_uleb(&b);
        break;
    default: return false; /* end_of_list, or unknown */
    }
    if (b.bad) return false;
    r->at += (uint64_t)(b.at - start);
    if (kind <= 3 &&
        !cprofi_dwarf_entry(k, CPROFI_DWARF_ADDR, u->addr, v[0], u->address_size, &v[0]))
        return false;
    if (kind == 2 &&
        !cprofi_dwarf_entry(k, CPROFI_DWARF_ADDR, u->addr, v[1], u->address_size, &v[1]))
        return false;
    r->end = false;
    if (kind == 1 || kind == 5) {
        r->base = v[0];
        r->dropped = r->base == 1 || r->base >= u->top - 1;
        return false;
    }
    r->low = v[0] + (kind == 4 ? r->base : 0);
    r->high = kind == 3 || kind == 7 ? r->low + v[1] : v[1] + (kind == 4 ? r->base : 0);
    return kind != 4 || !r->dropped;
}

/* The next range that can have code in it; false at the end. */
static bool cprofi_dwarf_range_next(cprofi_dwarf_look *k, const cprofi_dwarf_unit *u,
                                    cprofi_dwarf_ranges *r) {
    while (!r->end) {
        bool found = true;
        if (r->section == CPROFI_DWARF_INFO) r->end = true;
        else if (r->section == CPROFI_DWARF_RANGES) found = cprofi_dwarf_range_pair(k, u, r);
        else found = cprofi_dwarf_range_entry(k, u, r);
        if (!cprofi_dwarf_spend(k, 1)) break;
        if (!found) continue;
        r->low &= u->top;
        r->high &= u->top;
        if (r->low && r->low < r->high && r->low < u->top - 1) return true;
    }
    return false;
}

/* ---- dwarf: which unit an address is in ------------------------------------------------------ */

/* The wants in [low, high) that belong to no unit yet belong to this one. */
static void cprofi_dwarf_claim(cprofi_dwarf_look *k, uint64_t low, uint64_t high, uint64_t unit) {
    for (size_t i = cprofi_search(k->wants, sizeof *k->wants, 0, k->count, low);
         i < k->count && k->wants[i].address < high; i++) {
        cprofi_dwarf_place *p = &k->places[i];
        if (!p->done && p->unit == ~(uint64_t)0 && p->asked != unit) p->unit = unit;
        if (!cprofi_dwarf_spend(k, 1)) return;
    }
}

/* Asks .debug_aranges. Zeros in it may be discarded code, so only the length ends a set. */
static void cprofi_dwarf_aranges(cprofi_dwarf_look *k) {
    const uint64_t size = k->dwarf->sections[CPROFI_DWARF_ARANGES].size;
    uint64_t at = 0;
    while (at < size && k->spent <= k->limit) {
        cprofi_bytes b = cprofi_dwarf_peek(k, CPROFI_DWARF_ARANGES, at, 32);
        const uint8_t *start = b.at;
        const uint64_t set = at;
        uint64_t length = cprofi_u32(&b), end, unit, top;
        size_t wide = 4, address, segment, version;
        if (length == 0xffffffff) {
            wide = 8;
            length = cprofi_u64(&b);
        }
        end = at + (uint64_t)(b.at - start);
        if (b.bad || length > size - end) return;
        end += length;
        version = cprofi_u16(&b);
        unit = cprofi_uint(&b, wide);
        address = cprofi_u8(&b);
        segment = cprofi_u8(&b);
        at += (uint64_t)(b.at - start);
        if (b.bad) return;
        if (version == 2 && !segment && (address == 4 || address == 8)) {
            at += (2 * address - (at - set) % (2 * address)) % (2 * address);
            top = address == 4 ? 0xffffffff : ~(uint64_t)0;
            for (; at < end && end - at >= 2 * address; at += 2 * address) {
                uint64_t low, high;
                b = cprofi_dwarf_peek(k, CPROFI_DWARF_ARANGES, at, 2 * address);
                low = cprofi_uint(&b, address);
                high = low + cprofi_uint(&b, address);
                if (low && low < high && low < top - 1) cprofi_dwarf_claim(k, low, high, unit);
            }
        }
        at = end;
    }
}

/* Asks the root entry of a unit which addresses are in it. */
static void cprofi_dwarf_scan_root(cprofi_dwarf_look *k, cprofi_dwarf_unit *u) {
    cprofi_dwarf_die root;
    cprofi_dwarf_ranges r;
    cprofi_bytes b;
    if (u->type == 2 || u->type == 6) return; /* DW_UT_type, split_type */
    u->size = (size_t)(u->end - u->offset < 1024 ? u->end - u->offset : 1024);
    b = cprofi_dwarf_peek(k, CPROFI_DWARF_INFO, u->offset, u->size);
    u->data = b.at;
    u->size = cprofi_left(&b);
    if (!cprofi_dwarf_root(k, u, &k->root_abbrev, &root)) {
        if (!cprofi_dwarf_unit_load(k, u->offset, &root)) return; /* a very long one */
        *u = k->unit;
    }
    r = cprofi_dwarf_ranges_of(k, u, &root);
    while (cprofi_dwarf_range_next(k, u, &r)) cprofi_dwarf_claim(k, r.low, r.high, u->offset);
}

/* Notes where the units begin; with `roots`, asks each for the addresses without a unit. */
static void cprofi_dwarf_scan(cprofi_dwarf_look *k, bool roots) {
    const uint64_t size = k->dwarf->sections[CPROFI_DWARF_INFO].size;
    uint64_t at = 0;
    k->unit_count = 0;
    k->indexed = true;
    while (at < size && k->spent <= k->limit) {
        cprofi_dwarf_unit u;
        bool good = cprofi_dwarf_header(k, at, &u);
        if (good) {
            if (!CPROFI_DWARF_ROOM(k, k->units, k->unit_count, k->unit_capacity)) return;
            k->units[k->unit_count++] = at;
            if (roots) cprofi_dwarf_scan_root(k, &u);
        }
        if (!u.end) return;
        at = u.end;
    }
}

/* ---- dwarf: the walk through a unit ---------------------------------------------------------- */

/* Gives the addresses in the ranges of an entry to a new node, if they are to be taken from the
   nodes around it. The node, or CPROFI_DWARF_NONE. An inlined_subroutine becomes one in any case:
   lists that GCC writes for the outer ones may be empty or end early. */
static uint32_t cprofi_dwarf_match(cprofi_dwarf_look *k, const cprofi_dwarf_die *die, size_t at,
                                   uint32_t around) {
    const cprofi_dwarf_unit *u = &k->unit;
    const bool inlined = die->abbrev->kind == CPROFI_DIE_INLINED;
    const uint32_t id = (uint32_t)k->node_count;
    const uint32_t function = around == CPROFI_DWARF_NONE ? around : k->nodes[around].function;
    const cprofi_dwarf_value *origin = cprofi_die_value(die, CPROFI_AT_ORIGIN);
    cprofi_dwarf_ranges r = cprofi_dwarf_ranges_of(k, u, die);
    cprofi_dwarf_node *node;
    if (!CPROFI_DWARF_ROOM(k, k->nodes, id, k->node_capacity)) return CPROFI_DWARF_NONE;
    node = &k->nodes[id];
    node->parent = inlined ? around : CPROFI_DWARF_NONE;
    node->function = inlined ? function : id;
    node->depth = inlined ? k->nodes[around].depth + 1 : 0;
    node->held = false;
    if (node->depth >= CPROFI_DWARF_CHAIN) return CPROFI_DWARF_NONE;
    while (cprofi_dwarf_range_next(k, u, &r)) {
        for (size_t row = cprofi_search(k->rows, sizeof *k->rows, 0, k->row_count, r.low);
             row < k->row_count && k->rows[row].address < r.high; row++) {
            const uint32_t now = k->row_nodes[row];
            if (!cprofi_dwarf_spend(k, 1)) break;
            if (now == CPROFI_DWARF_NONE ? inlined
                                         : k->nodes[now].function != function ||
                                               (inlined && k->nodes[now].depth >= node->depth))
                continue;
            k->row_nodes[row] = id;
            node->held = true;
        }
    }
    if (!inlined && !node->held) return CPROFI_DWARF_NONE;
    node->name = origin && inlined ? cprofi_dwarf_reference(u, origin) : ~(uint64_t)0;
    if (node->name == ~(uint64_t)0) node->name = u->offset + at;
    node->call_file = (uint32_t)cprofi_die_number(die, CPROFI_AT_CALL_FILE, CPROFI_DWARF_NONE);
    node->call_line = (uint32_t)cprofi_die_number(die, CPROFI_AT_CALL_LINE, 0);
    k->node_count++;
    return id;
}

/* At the end of an entry: its node goes if nothing refers to it. */
static void cprofi_dwarf_leave(cprofi_dwarf_look *k, uint32_t node) {
    if (node + (size_t)1 == k->node_count && !k->nodes[node].held) k->node_count--;
}

/* Passes over the attributes of an entry, and if it may, over all that is below it. */
static inline bool cprofi_dwarf_pass(cprofi_dwarf_look *k, const cprofi_dwarf_abbrev *a,
                                     size_t *at, bool *leapt) {
    const cprofi_dwarf_unit *u = &k->unit;
    uint64_t sibling = 0;
    if (a->size != CPROFI_DWARF_UNFIXED && (!a->leap || a->sibling != CPROFI_DWARF_UNFIXED)) {
        if (a->size > u->size - *at) return false;
        if (a->leap) sibling = cprofi_get32(u->data + *at + a->sibling);
        *at += a->size;
    } else {
        cprofi_dwarf_die die;
        if (!cprofi_dwarf_attributes(k, u, &k->abbrevs, a, at, &die)) return false;
        if (a->leap) sibling = cprofi_die_number(&die, CPROFI_AT_SIBLING, 0);
    }
    *leapt = sibling > *at && sibling < u->size;
    if (*leapt) *at = (size_t)sibling;
    return true;
}

static bool cprofi_dwarf_scope_add(cprofi_dwarf_look *k, size_t at, uint32_t parent) {
    cprofi_dwarf_scope scope = {at, CPROFI_DWARF_NONE, parent};
    if (!CPROFI_DWARF_ROOM(k, k->scopes, k->scope_count, k->scope_capacity)) return false;
    k->scopes[k->scope_count++] = scope;
    return true;
}

/* Walks through the unit that is loaded: finds the nodes of k->rows, and all scopes. False: it is
   damaged; what was found before that stays. */
static bool cprofi_dwarf_walk(cprofi_dwarf_look *k) {
    cprofi_dwarf_unit *u = &k->unit;
    const uint8_t *const data = u->data;
    size_t at = u->root, depth = 0;
    cprofi_dwarf_level level = {CPROFI_DWARF_NONE, CPROFI_DWARF_NONE};
    u->scoped = true;
    while (at < u->size) {
        const size_t start = at;
        const cprofi_dwarf_abbrev *a;
        const cprofi_dwarf_level outer = level;
        uint64_t code = data[at++];
        bool leapt = false;
        if (code & 0x80) {
            cprofi_bytes b = {data + start, data + u->size, false};
            code = cprofi_uleb(&b);
            at = (size_t)(b.at - data);
        }
        if (!code) {
            if (!depth) return true;
            level = k->levels[--depth];
            if (outer.scope != level.scope) k->scopes[outer.scope].end = (uint32_t)at;
            if (outer.node != level.node) cprofi_dwarf_leave(k, outer.node);
            continue;
        }
        a = cprofi_dwarf_abbrev_of(&k->abbrevs, code);
        if (!a) return false;
        if (k->row_count &&
            ((a->kind == CPROFI_DIE_SUBPROGRAM && a->ranges) ||
             (a->kind == CPROFI_DIE_INLINED && level.node != CPROFI_DWARF_NONE))) {
            cprofi_dwarf_die die;
            if (!cprofi_dwarf_attributes(k, u, &k->abbrevs, a, &at, &die)) return false;
            level.node = cprofi_dwarf_match(k, &die, start, outer.node);
        } else if (!cprofi_dwarf_pass(k, a, &at, &leapt)) {
            return false;
        }
        if (!a->children || leapt) {
            if (level.node != outer.node) cprofi_dwarf_leave(k, level.node);
            level = outer;
            continue;
        }
        if (!CPROFI_DWARF_ROOM(k, k->levels, depth, k->level_capacity)) return false;
        k->levels[depth++] = outer;
        if (a->kind == CPROFI_DIE_SCOPE || a->kind == CPROFI_DIE_SUBPROGRAM) {
            if (!cprofi_dwarf_scope_add(k, start, level.scope)) return false;
            level.scope = (uint32_t)(k->scope_count - 1);
        }
    }
    return depth == 0 && k->spent <= k->limit;
}

/* ---- dwarf: names ------------------------------------------------------------------------------

   The linkage name where there is one; else, in languages that have scopes, the name behind all
   that encloses it, "outer::(anonymous namespace)::name"; a closure is "{lambda}", another class
   without a name "{unnamed type}". */

/* In C, its relatives and assembly nothing is a part of a name but the name. */
static bool cprofi_dwarf_has_scopes(uint64_t language) {
    switch (language) {
    case 0x01: case 0x02: case 0x0c: case 0x1d: case 0x2c: case 0x3e: /* C89, C, C99, 11, 17, 23 */
    case 0x10: case 0x12: case 0x15: case 0x31: case 0x8001: /* Objective C, UPC, OpenCL, asm */
        return false;
    default: return true;
    }
}

static const char *cprofi_dwarf_keep(cprofi_dwarf_look *k, const char *name) {
    const char *kept = cprofi_text_keep(k->text, name, strlen(name));
    if (!kept) k->no_memory = true;
    return kept;
}

/* The scope around an entry of the unit that is loaded, or CPROFI_DWARF_NONE. */
static uint32_t cprofi_dwarf_scope_of(cprofi_dwarf_look *k, size_t at) {
    size_t low = cprofi_search(k->scopes, sizeof *k->scopes, 0, k->scope_count, at);
    uint32_t scope = low ? (uint32_t)(low - 1) : CPROFI_DWARF_NONE;
    while (scope != CPROFI_DWARF_NONE && k->scopes[scope].end <= at)
        scope = cprofi_dwarf_spend(k, 1) ? k->scopes[scope].parent : CPROFI_DWARF_NONE;
    return scope;
}

/* From a function's entry to the one it is an instance or the definition of; ~0: none. */
static uint64_t cprofi_dwarf_origin(cprofi_dwarf_look *k, const cprofi_dwarf_die *die) {
    const cprofi_dwarf_value *v = cprofi_die_value(die, CPROFI_AT_ORIGIN);
    if (!v) v = cprofi_die_value(die, CPROFI_AT_SPECIFICATION);
    if (!v) return ~(uint64_t)0;
    k->answer->supplementary += cprofi_dwarf_is_supplementary(v->form);
    return cprofi_dwarf_reference(&k->unit, v);
}

/* Puts the string of an attribute into k->string; NULL if there is none. */
static const char *cprofi_dwarf_text(cprofi_dwarf_look *k, const cprofi_dwarf_value *v) {
    if (!v) return NULL;
    k->answer->supplementary += cprofi_dwarf_is_supplementary(v->form);
    return cprofi_dwarf_string(k->dwarf, &k->unit, v, k->string, sizeof k->string);
}

/* Puts the name of an entry into k->string. An entry that has it elsewhere in the unit is replaced
   by that, in *at and *die. `inner` is the name of what is in it. */
static const char *cprofi_dwarf_scope_name(cprofi_dwarf_look *k, size_t *at, cprofi_dwarf_die *die,
                                           const char *inner) {
    const cprofi_dwarf_unit *u = &k->unit;
    const char *name = NULL;
    for (unsigned hops = 0; hops < CPROFI_DWARF_HOPS; hops++) {
        uint64_t origin;
        name = cprofi_dwarf_text(k, cprofi_die_value(die, CPROFI_AT_NAME));
        if (name) break;
        origin = cprofi_dwarf_origin(k, die);
        if (origin < u->offset || origin >= u->end ||
            !cprofi_dwarf_die_read(k, (size_t)(origin - u->offset), die))
            break;
        *at = (size_t)(origin - u->offset);
    }
    switch (die->abbrev->tag) {
    case 0x39: return name ? name : "(anonymous namespace)";
    case 0x02: case 0x13: case 0x17:
        if (name ? strncmp(name, "<lambda", 7) == 0 : strncmp(inner, "operator()", 10) == 0)
            return "{lambda}"; /* clang gives closures no name, GCC "<lambda(int)>" */
        return name ? name : "{unnamed type}";
    default: return name;
    }
}

/* The name, with its scopes, of a function whose entry has one; kept in k->text. */
static const char *cprofi_dwarf_qualified(cprofi_dwarf_look *k, size_t at) {
    char *start = k->name + sizeof k->name - 1;
    uint32_t scope = CPROFI_DWARF_NONE;
    *start = 0;
    for (unsigned parts = 0; parts < CPROFI_DWARF_SCOPES; parts++) {
        cprofi_dwarf_die die;
        const char *name;
        size_t length;
        if (!cprofi_dwarf_die_read(k, at, &die)) break;
        name = cprofi_dwarf_scope_name(k, &at, &die, start);
        length = name ? strlen(name) : 0;
        if (length + 2 > (size_t)(start - k->name)) break;
        if (length) {
            if (*start) {
                start -= 2;
                memcpy(start, "::", 2);
            }
            start -= length;
            memcpy(start, name, length);
        }
        if (!cprofi_dwarf_has_scopes(k->unit.language)) break;
        if (!k->unit.scoped) {
            k->row_count = 0;
            (void)cprofi_dwarf_walk(k);
        }
        scope = cprofi_dwarf_scope_of(k, at);
        if (scope == CPROFI_DWARF_NONE) break;
        at = (size_t)k->scopes[scope].at;
    }
    return *start ? cprofi_dwarf_keep(k, start) : NULL;
}

/* Follows a function from f->next, in the unit that is loaded, to its name or out of the unit. */
static void cprofi_dwarf_follow(cprofi_dwarf_look *k, cprofi_dwarf_function *f) {
    const cprofi_dwarf_unit *u = &k->unit;
    const char *name;
    uint64_t at = f->next;
    size_t named = 0;
    f->next = ~(uint64_t)0;
    for (; f->hops < CPROFI_DWARF_HOPS; f->hops++) {
        const cprofi_dwarf_value *v;
        cprofi_dwarf_die die;
        if (at < u->offset || at >= u->end) {
            f->next = at;
            break;
        }
        if (!cprofi_dwarf_die_read(k, (size_t)(at - u->offset), &die)) break;
        if (!f->line) f->line = (uint32_t)cprofi_die_number(&die, CPROFI_AT_DECL_LINE, 0);
        v = cprofi_die_value(&die, CPROFI_AT_LINKAGE_NAME);
        /* in C it would be an alias in assembly, such as __GI___clock_gettime */
        if (v && cprofi_dwarf_has_scopes(u->language) &&
            (name = cprofi_dwarf_text(k, v)) != NULL &&
            !(k->answer->plain && u->language != 0x1c && strncmp(name, "_Z", 2) == 0)) {
            f->name = cprofi_dwarf_keep(k, name);
            f->linkage = true;
            return;
        }
        if (cprofi_die_value(&die, CPROFI_AT_NAME)) named = (size_t)(at - u->offset);
        at = cprofi_dwarf_origin(k, &die);
        if (at == ~(uint64_t)0) break;
    }
    if (named && (name = cprofi_dwarf_qualified(k, named)) != NULL) f->name = name;
}

/* The function whose entry is at this place, which is in the unit that is loaded or will be
   followed later; CPROFI_DWARF_NONE: out of memory. One forgotten is looked up again. */
static uint32_t cprofi_dwarf_function_at(cprofi_dwarf_look *k, uint64_t at) {
    uint32_t *known = &k->known[(at * 0x9e3779b97f4a7c15u >> 32) % CPROFI_DWARF_KNOWN];
    cprofi_dwarf_function f;
    if (*known < k->function_count && k->functions[*known].at == at) return *known;
    if (k->function_count == CPROFI_DWARF_NONE ||
        !CPROFI_DWARF_ROOM(k, k->functions, k->function_count, k->function_capacity))
        return CPROFI_DWARF_NONE;
    memset(&f, 0, sizeof f);
    f.at = f.next = at;
    cprofi_dwarf_follow(k, &f);
    *known = (uint32_t)k->function_count;
    k->functions[k->function_count++] = f;
    return *known;
}

/* ---- dwarf: the look-up ---------------------------------------------------------------------- */

static int cprofi_dwarf_by_unit(const void *a, const void *b) {
    const cprofi_dwarf_place *x = (const cprofi_dwarf_place *)a, *y = (const cprofi_dwarf_place *)b;
    if (x->unit != y->unit) return x->unit < y->unit ? -1 : 1;
    return x->want < y->want ? -1 : x->want > y->want;
}

/* The frames of one address, from what the unit says; function names are filled in later, until
   then start_line is the index of the function. */
static bool cprofi_dwarf_frames(cprofi_dwarf_look *k, cprofi_dwarf_want *want, size_t i) {
    cprofi_dwarf_answer *a = k->answer;
    uint32_t node = k->row_nodes[i], file = k->rows[i].file, line = k->rows[i].line;
    bool inlined = true;
    want->first = (uint32_t)a->count;
    while (inlined) {
        cprofi_dwarf_frame *f;
        if (!CPROFI_DWARF_ROOM(k, a->frames, a->count, a->capacity)) return false;
        f = &a->frames[a->count++];
        memset(f, 0, sizeof *f);
        f->file = cprofi_dwarf_lines_file(&k->lines, file, k->text);
        f->line = line;
        f->start_line = CPROFI_DWARF_NONE;
        inlined = false;
        if (node != CPROFI_DWARF_NONE) {
            const cprofi_dwarf_node *n = &k->nodes[node];
            f->start_line = cprofi_dwarf_function_at(k, n->name);
            f->inlined = inlined = n->parent != CPROFI_DWARF_NONE;
            file = n->call_file;
            line = n->call_line;
            node = n->parent;
        }
    }
    want->count = (uint32_t)a->count - want->first;
    return true;
}

/* Answers the n addresses in `places`, which are all in one unit. */
static bool cprofi_dwarf_unit_answer(cprofi_dwarf_look *k, const cprofi_dwarf_place *places,
                                     size_t n) {
    cprofi_dwarf_die root;
    const cprofi_dwarf_value *dir, *lines;
    const char *comp_dir = NULL;
    if (!cprofi_dwarf_unit_load(k, places->unit, &root)) {
        k->answer->damaged_units++;
        return !k->no_memory;
    }
    /* rustc names a .dwo file also where everything is in the unit itself */
    if (k->unit.type == 4 ||
        (cprofi_die_value(&root, CPROFI_AT_DWO_NAME) && !root.abbrev->children))
        k->answer->split_units++;
    for (size_t i = 0; i < n; i++) {
        k->rows[i].address = k->wants[places[i].want].address;
        k->row_nodes[i] = CPROFI_DWARF_NONE;
    }
    k->row_count = n;
    if (!cprofi_dwarf_walk(k)) k->answer->damaged_units++;
    dir = cprofi_die_value(&root, CPROFI_AT_COMP_DIR);
    if (dir)
        comp_dir = cprofi_dwarf_string(k->dwarf, &k->unit, dir, k->comp_dir, sizeof k->comp_dir);
    lines = cprofi_die_value(&root, CPROFI_AT_STMT_LIST);
    (void)cprofi_dwarf_lines_open(&k->lines, k->dwarf, lines ? lines->value : ~(uint64_t)0,
                                  k->unit.address_size, comp_dir);
    if (cprofi_die_value(&root, CPROFI_AT_STR_OFFSETS_BASE))
        k->lines.unit.str_offsets = k->unit.str_offsets;
    cprofi_dwarf_lines_find(&k->lines, k->rows, n);
    for (size_t i = 0; i < n && !k->no_memory; i++) {
        if (k->row_nodes[i] == CPROFI_DWARF_NONE && !k->rows[i].line) continue;
        k->places[places[i].want].done = true;
        if (!cprofi_dwarf_frames(k, &k->wants[places[i].want], i)) break;
    }
    return !k->no_memory;
}

/* Goes on with the functions that led out of their units, each unit once a round. */
static bool cprofi_dwarf_follow_all(cprofi_dwarf_look *k) {
    for (unsigned round = 0; round < CPROFI_DWARF_HOPS; round++) {
        cprofi_dwarf_place *pending;
        cprofi_dwarf_die root;
        size_t n = 0, loaded = (size_t)-1; /* none */
        for (size_t i = 0; i < k->function_count; i++) n += k->functions[i].next != ~(uint64_t)0;
        if (!n) break;
        if (!k->indexed) cprofi_dwarf_scan(k, false);
        pending = (cprofi_dwarf_place *)malloc(n * sizeof *pending);
        if (!pending) return false;
        n = 0;
        for (size_t i = 0; i < k->function_count; i++) {
            if (k->functions[i].next == ~(uint64_t)0) continue;
            pending[n].unit = k->functions[i].next;
            pending[n].want = (uint32_t)i;
            pending[n++].done = false;
        }
        qsort(pending, n, sizeof *pending, cprofi_dwarf_by_unit);
        for (size_t i = 0, unit = 0; i < n; i++) {
            cprofi_dwarf_function *f = &k->functions[pending[i].want];
            while (unit + 1 < k->unit_count && k->units[unit + 1] <= pending[i].unit) unit++;
            if (unit != loaded) {
                loaded = unit;
                k->unit.end = 0;
                if (unit < k->unit_count && !cprofi_dwarf_unit_load(k, k->units[unit], &root))
                    k->unit.end = 0;
            }
            if (f->next < k->unit.offset || f->next >= k->unit.end) f->next = ~(uint64_t)0;
            else cprofi_dwarf_follow(k, f);
        }
        free(pending);
    }
    return !k->no_memory;
}

/* Answers all addresses that have a unit and no answer yet. */
static bool cprofi_dwarf_answer_places(cprofi_dwarf_look *k) {
    size_t n = 0, end;
    for (size_t i = 0; i < k->count; i++)
        if (!k->places[i].done && k->places[i].unit != ~(uint64_t)0) k->order[n++] = k->places[i];
    qsort(k->order, n, sizeof *k->order, cprofi_dwarf_by_unit);
    for (size_t i = 0; i < n; i = end) {
        for (end = i + 1; end < n && k->order[end].unit == k->order[i].unit;) end++;
        if (!cprofi_dwarf_unit_answer(k, k->order + i, end - i)) return false;
    }
    return true;
}

static bool cprofi_dwarf_run(cprofi_dwarf_look *k) {
    bool missing = false;
    if (!k->places || !k->order || !k->rows || !k->row_nodes) return false;
    for (size_t i = 0; i < k->count; i++) {
        cprofi_dwarf_place place = {~(uint64_t)0, ~(uint64_t)0, 0, false};
        k->places[i] = place;
        k->places[i].want = (uint32_t)i;
        k->wants[i].first = k->wants[i].count = 0;
    }
    cprofi_dwarf_aranges(k);
    if (!cprofi_dwarf_answer_places(k)) return false;
    for (size_t i = 0; i < k->count; i++) {
        missing = missing || !k->places[i].done;
        k->places[i].asked = k->places[i].unit;
        k->places[i].unit = ~(uint64_t)0;
    }
    if (missing) {
        cprofi_dwarf_scan(k, true);
        if (k->no_memory || !cprofi_dwarf_answer_places(k)) return false;
    }
    if (!cprofi_dwarf_follow_all(k)) return false;
    for (size_t i = 0; i < k->answer->count; i++) {
        cprofi_dwarf_frame *f = &k->answer->frames[i];
        uint32_t id = f->start_line;
        f->start_line = 0;
        if (id >= k->function_count) continue;
        f->function = k->functions[id].name;
        f->linkage = k->functions[id].linkage;
        f->start_line = k->functions[id].line;
    }
    return true;
}

/* Finds the frames of all wants, which are ascending by address and unique. False only when out of
   memory. */
static bool cprofi_dwarf_lookup(const cprofi_dwarf *d, cprofi_dwarf_want *wants, size_t n,
                                cprofi_text *text, cprofi_dwarf_answer *answer) {
    cprofi_dwarf_look *k = (cprofi_dwarf_look *)calloc(1, sizeof *k);
    const bool plain = answer->plain;
    bool ok;
    memset(answer, 0, sizeof *answer);
    answer->plain = plain;
    if (!k) return false;
    k->dwarf = d;
    k->wants = wants;
    k->count = n;
    k->text = text;
    k->answer = answer;
    for (unsigned i = 0; i < CPROFI_DWARF_SECTIONS; i++) k->limit += d->sections[i].size;
    k->limit = CPROFI_DWARF_AGAIN * (k->limit + 65536 + 256 * (uint64_t)n);
    k->places = (cprofi_dwarf_place *)malloc((n + 1) * sizeof *k->places);
    k->order = (cprofi_dwarf_place *)malloc((n + 1) * sizeof *k->order);
    k->rows = (cprofi_dwarf_row *)malloc((n + 1) * sizeof *k->rows);
    k->row_nodes = (uint32_t *)malloc((n + 1) * sizeof *k->row_nodes);
    ok = n < CPROFI_DWARF_NONE && cprofi_dwarf_run(k);
    free(k->places);
    free(k->order);
    free(k->rows);
    free(k->row_nodes);
    free(k->units);
    free(k->abbrevs.abbrevs);
    free(k->abbrevs.attributes);
    free(k->root_abbrev.abbrevs);
    free(k->root_abbrev.attributes);
    free(k->nodes);
    free(k->scopes);
    free(k->levels);
    free(k->functions);
    free(k->unit_buffer.data);
    free(k->abbrev_buffer.data);
    cprofi_dwarf_lines_close(&k->lines);
    free(k);
    return ok;
}

static void cprofi_dwarf_answer_free(cprofi_dwarf_answer *answer) {
    free(answer->frames);
    memset(answer, 0, sizeof *answer);
}

/* ---------------------------------------------------------------------------------------------- */
/* >>debug: compressed sections, separate debug files

   The problem: the DWARF of a program is often compressed, and often in another file. The idea: one
   place finds the sections and makes plain bytes of them, wherever they are, so that the readers
   above know nothing of it; sections that are not compressed are not read at all, they stay parts
   of the source.

   The invariant: a debug file is used only if it belongs to the image, by build id or checksum.
   Cost: a compressed section is inflated whole, at some 200 MB/s, and stays until the image is
   done.
   Not handled: zstd (the other sections are still served), .dwo and supplementary files.

   After RFC 1950 and 1951, the gABI ("Compression Header"), and the manual of gdb ("Debugging
   Information in Separate Files"). */

/* ---- inflate -----------------------------------------------------------------------------------

   Debug sections are often compressed: deflate (RFC 1951) in a zlib wrapper (RFC 1950). The size of
   the result is known beforehand, so there is no window: all output stands in one piece and a match
   is copied from where it stands.

   A symbol is found with one load: a table indexed by the next 10 bits holds, for every code of at
   most 10 bits, its length, its meaning and how many extra bits follow. Longer codes, which are
   rare by construction, find their length in the canonical order: aligned to 15 bits, all codes of
   one length are below all longer ones, so the first limit above the bits tells the length, and the
   distance from the first code of that length the symbol.

   Invariant: after a refill at least 56 bits are there (the longest symbol with its match takes
   48), zeros after the end of the input. Bits of such zeros that were used up are the end of a
   damaged stream. Cost: linear in input and output; 11 KB of stack. Refused, as zlib refuses it:
   over-full and incomplete codes, distances beyond the start, preset dictionaries. Bytes after the
   checksum are ignored. */

enum {
    CPROFI_INFLATE_FAST = 10,
    /* An entry: bits 0-3 length of the code, 4-7 number of extra bits, 16-31 byte or base, and: */
    CPROFI_INFLATE_LITERAL = 1 << 8, CPROFI_INFLATE_END = 1 << 9, CPROFI_INFLATE_BAD = 1 << 10
};

typedef enum { CPROFI_INFLATE_LENGTHS, CPROFI_INFLATE_SYMBOLS, CPROFI_INFLATE_DISTANCES }
    cprofi_inflate_kind;

typedef struct {
    uint32_t fast[1 << CPROFI_INFLATE_FAST]; /* entries by the next bits; 0: not a short code */
    uint32_t entries[288];                   /* in canonical order */
    uint32_t limit[16]; /* by length: one past its last code, aligned to 15 bits */
    uint32_t index[16]; /* by length: what to add to a code to get its place in `entries` */
} cprofi_inflate_code;

typedef struct {
    const uint8_t *at, *end;
    uint64_t bits;   /* the next ones, lowest first */
    unsigned count;  /* how many are known */
    unsigned beyond; /* how many of all known so far stand behind the end of the input */
} cprofi_inflate_in;

/* False once bits behind the end were used. */
static inline bool cprofi_inflate_refill(cprofi_inflate_in *in) {
    if (in->end - in->at >= 8) {
        in->bits |= cprofi_get64(in->at) << in->count;
        in->at += (63 - in->count) >> 3;
        in->count |= 56;
        return true;
    }
    for (; in->count <= 56; in->count += 8) {
        if (in->at < in->end) in->bits |= (uint64_t)*in->at++ << in->count;
        else in->beyond += 8;
    }
    return in->beyond <= in->count;
}

/* The next n (0 to 16) bits, which must be there. */
static inline uint32_t cprofi_inflate_take(cprofi_inflate_in *in, unsigned n) {
    uint32_t v = (uint32_t)in->bits & (((uint32_t)1 << n) - 1);
    in->bits >>= n;
    in->count -= n;
    return v;
}

static uint32_t cprofi_inflate_bits(cprofi_inflate_in *in, unsigned n) {
    cprofi_inflate_refill(in);
    return cprofi_inflate_take(in, n);
}

/* Moves to the next whole byte; false if that is behind the end. */
static bool cprofi_inflate_align(cprofi_inflate_in *in) {
    if (in->beyond > in->count) return false;
    in->at -= (in->count - in->beyond) >> 3;
    in->bits = 0;
    in->count = in->beyond = 0;
    return true;
}

static uint32_t cprofi_inflate_reverse(uint32_t v) { /* of 16 bits */
    v = (v & 0x5555) << 1 | (v >> 1 & 0x5555);
    v = (v & 0x3333) << 2 | (v >> 2 & 0x3333);
    v = (v & 0x0f0f) << 4 | (v >> 4 & 0x0f0f);
    return (v & 0xff) << 8 | v >> 8;
}

/* What a symbol means (RFC 1951, 3.2.5: the bases and extra bits follow a rule). */
static uint32_t cprofi_inflate_entry(cprofi_inflate_kind kind, uint32_t symbol) {
    uint32_t extra = 0, base;
    if (kind == CPROFI_INFLATE_LENGTHS || (kind == CPROFI_INFLATE_SYMBOLS && symbol < 256))
        return symbol << 16 | CPROFI_INFLATE_LITERAL;
    if (symbol == 256) return CPROFI_INFLATE_END;
    if (kind == CPROFI_INFLATE_DISTANCES) {
        if (symbol >= 30) return CPROFI_INFLATE_BAD;
        if (symbol >= 4) extra = symbol / 2 - 1;
        base = extra ? ((2 + symbol % 2) << extra) + 1 : symbol + 1;
    } else {
        if (symbol > 285) return CPROFI_INFLATE_BAD;
        symbol -= 257;
        if (symbol >= 8 && symbol < 28) extra = symbol / 4 - 1;
        base = symbol == 28 ? 258 : extra ? ((4 + symbol % 4) << extra) + 3 : symbol + 3;
    }
    return base << 16 | extra << 4;
}

/* Makes a code from the lengths (at most 15) of its n (at most 288) symbols. */
static bool cprofi_inflate_build(cprofi_inflate_code *c, cprofi_inflate_kind kind,
                                 const uint8_t *lengths, uint32_t n) {
    uint32_t count[16] = {0}, next[16], code = 0, index = 0, length;
    for (uint32_t i = 0; i < n; i++) count[lengths[i]]++;
    for (length = 1; length <= 15; length++) {
        next[length] = code;
        c->index[length] = index - code;
        code += count[length];
        index += count[length];
        c->limit[length] = code << (15 - length);
        code <<= 1;
    }
    /* Neither over-full nor with room left, unless there is no symbol, or one of one bit. */
    if (code != 1 << 16 && (kind == CPROFI_INFLATE_LENGTHS || index > 1 || count[1] != index))
        return false;
    memset(c->fast, 0, sizeof c->fast);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t entry = cprofi_inflate_entry(kind, i) | lengths[i];
        length = lengths[i];
        if (!length) continue;
        code = next[length]++;
        c->entries[code + c->index[length]] = entry;
        if (length > CPROFI_INFLATE_FAST) continue;
        for (code = cprofi_inflate_reverse(code) >> (16 - length); code < CPROFI_COUNT(c->fast);
             code += (uint32_t)1 << length)
            c->fast[code] = entry;
    }
    return true;
}

static uint32_t cprofi_inflate_long(const cprofi_inflate_code *c, uint64_t bits) {
    uint32_t code = cprofi_inflate_reverse((uint32_t)(bits & 0xffff)) >> 1;
    for (uint32_t length = CPROFI_INFLATE_FAST + 1; length <= 15; length++)
        if (code < c->limit[length])
            return c->entries[(code >> (15 - length)) + c->index[length]];
    return CPROFI_INFLATE_BAD;
}

static inline uint32_t cprofi_inflate_symbol(const cprofi_inflate_code *c, cprofi_inflate_in *in) {
    uint32_t entry = c->fast[in->bits & (CPROFI_COUNT(c->fast) - 1)];
    if (!entry) entry = cprofi_inflate_long(c, in->bits);
    in->bits >>= entry & 15;
    in->count -= entry & 15;
    return entry;
}

/* The two codes of a dynamic block (RFC 1951, 3.2.7). */
static bool cprofi_inflate_codes(cprofi_inflate_in *in, cprofi_inflate_code *symbols,
                                 cprofi_inflate_code *distances) {
    static const uint8_t order[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                      11, 4,  12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[286 + 30] = {0};
    uint32_t literal = 257 + cprofi_inflate_bits(in, 5), total = 1 + cprofi_inflate_bits(in, 5);
    uint32_t n = 4 + cprofi_inflate_bits(in, 4);
    if (literal > 286 || total > 30) return false;
    total += literal;
    for (uint32_t i = 0; i < n; i++) lengths[order[i]] = (uint8_t)cprofi_inflate_bits(in, 3);
    if (!cprofi_inflate_build(distances, CPROFI_INFLATE_LENGTHS, lengths, 19)) return false;
    for (n = 0; n < total;) {
        uint32_t symbol, repeat = 1;
        uint8_t value = 0;
        if (!cprofi_inflate_refill(in)) return false;
        symbol = cprofi_inflate_symbol(distances, in) >> 16;
        if (symbol == 16) {
            if (!n) return false;
            value = lengths[n - 1];
            repeat = 3 + cprofi_inflate_take(in, 2);
        } else if (symbol > 16) {
            repeat = symbol == 17 ? 3 + cprofi_inflate_take(in, 3)
                                  : 11 + cprofi_inflate_take(in, 7);
        } else {
            value = (uint8_t)symbol;
        }
        if (repeat > total - n) return false;
        while (repeat--) lengths[n++] = value;
    }
    return cprofi_inflate_build(symbols, CPROFI_INFLATE_SYMBOLS, lengths, literal) &&
           cprofi_inflate_build(distances, CPROFI_INFLATE_DISTANCES, lengths + literal,
                                total - literal);
}

/* One block of symbols into [*to, end); a match may reach back to `start`. */
static bool cprofi_inflate_block(cprofi_inflate_in *state, const cprofi_inflate_code *symbols,
                                 const cprofi_inflate_code *distances, const uint8_t *start,
                                 uint8_t **to, uint8_t *end) {
    cprofi_inflate_in in = *state; /* a copy which no byte written can alias */
    uint8_t *at = *to;
    while (cprofi_inflate_refill(&in)) {
        uint32_t entry = cprofi_inflate_symbol(symbols, &in);
        size_t length, distance;
        const uint8_t *from;
        if (entry & CPROFI_INFLATE_LITERAL) {
            if (at == end) return false;
            *at++ = (uint8_t)(entry >> 16);
            continue;
        }
        if (entry & (CPROFI_INFLATE_END | CPROFI_INFLATE_BAD)) {
            *state = in;
            *to = at;
            return (entry & CPROFI_INFLATE_END) != 0;
        }
        length = (entry >> 16) + cprofi_inflate_take(&in, entry >> 4 & 15);
        entry = cprofi_inflate_symbol(distances, &in);
        distance = (entry >> 16) + cprofi_inflate_take(&in, entry >> 4 & 15);
        if ((entry & CPROFI_INFLATE_BAD) || length > (size_t)(end - at) ||
            distance > (size_t)(at - start))
            return false;
        from = at - distance;
        if (distance >= 8 && (size_t)(end - at) >= length + 8) { /* may write up to 7 too many */
            uint8_t *stop = at + length;
            for (; at < stop; at += 8, from += 8) memcpy(at, from, 8);
            at = stop;
        } else {
            while (length--) *at++ = *from++;
        }
    }
    return false;
}

static uint32_t cprofi_adler32(const uint8_t *p, size_t size) {
    uint32_t a = 1, b = 0;
    while (size) {
        size_t n = size < 5552 ? size : 5552; /* so many cannot overflow 32 bits */
        size -= n;
        for (; n >= 4; n -= 4, p += 4) {
            b += 4 * a + 4u * p[0] + 3u * p[1] + 2u * p[2] + p[3];
            a += (uint32_t)p[0] + p[1] + p[2] + p[3];
        }
        for (; n; n--) b += a += *p++;
        a %= 65521;
        b %= 65521;
    }
    return b << 16 | a;
}

/* Whether a zlib stream yields exactly `size` bytes with the right checksum; else what was written
   to `to` has no meaning. */
static bool cprofi_inflate(cprofi_span zlib_stream, uint8_t *to, size_t size) {
    cprofi_inflate_code symbols, distances;
    cprofi_inflate_in in = {zlib_stream.data, zlib_stream.data + zlib_stream.size, 0, 0, 0};
    uint8_t *at = to, *end = to + size, lengths[288];
    uint32_t head, last, type, n;
    if (zlib_stream.size < 8) return false; /* the empty text has 8 */
    head = cprofi_inflate_bits(&in, 16);
    if ((head & 0xf) != 8 || (head >> 4 & 0xf) > 7 || (head >> 8 & 0x20) ||
        ((head & 0xff) << 8 | head >> 8) % 31)
        return false;
    do {
        last = cprofi_inflate_bits(&in, 1);
        type = cprofi_inflate_bits(&in, 2);
        if (type == 0) {
            if (!cprofi_inflate_align(&in) || in.end - in.at < 4) return false;
            n = cprofi_get16(in.at);
            if ((n ^ cprofi_get16(in.at + 2)) != 0xffff) return false;
            in.at += 4;
            if (n > (size_t)(in.end - in.at) || n > (size_t)(end - at)) return false;
            if (n) memcpy(at, in.at, n);
            at += n;
            in.at += n;
            continue;
        }
        if (type == 1) {
            for (n = 0; n < 288; n++) lengths[n] = n < 144 ? 8 : n < 256 ? 9 : n < 280 ? 7 : 8;
            if (!cprofi_inflate_build(&symbols, CPROFI_INFLATE_SYMBOLS, lengths, 288)) return false;
            memset(lengths, 5, 32);
            if (!cprofi_inflate_build(&distances, CPROFI_INFLATE_DISTANCES, lengths, 32))
                return false;
        } else if (type == 3 || !cprofi_inflate_codes(&in, &symbols, &distances)) {
            return false;
        }
        if (!cprofi_inflate_block(&in, &symbols, &distances, to, &at, end)) return false;
    } while (!last);
    return cprofi_inflate_align(&in) && in.end - in.at >= 4 && at == end &&
           cprofi_adler32(to, size) == ((uint32_t)in.at[0] << 24 | (uint32_t)in.at[1] << 16 |
                                        (uint32_t)in.at[2] << 8 | in.at[3]);
}

/* ---- debug sections ----------------------------------------------------------------------------

   Finds the DWARF sections of a file by name and makes plain bytes of those that are compressed;
   the others are not read at all, they stay parts of the source. Two forms are in use: the flag
   SHF_COMPRESSED with a header in front (gABI, "Compression Header"), and the older .zdebug_ names
   with "ZLIB" and the size, big-endian, in front. Both hold one zlib stream.

   Of several sections with one name the first that is not empty counts, good or bad: so each byte
   of the file is inflated at most once per name, whatever its headers say. Deflate cannot shrink
   below 1:1032, so a larger size is a lie and no memory is taken for it. Not handled: zstd (the
   other sections are still served), .dwo files. */

typedef enum {
    CPROFI_DEBUG_NONE, /* no such section */
    CPROFI_DEBUG_OK,
    CPROFI_DEBUG_UNKNOWN_COMPRESSION, /* zstd, mostly */
    CPROFI_DEBUG_DAMAGED,
    CPROFI_DEBUG_NO_MEMORY
} cprofi_debug_result;

typedef struct {
    cprofi_dwarf dwarf;
    void *memory[CPROFI_DWARF_SECTIONS]; /* what was inflated */
    bool seen[CPROFI_DWARF_SECTIONS];
    bool supplementary; /* there is a .gnu_debugaltlink */
} cprofi_debug;

enum {
    CPROFI_SHF_COMPRESSED = 0x800, CPROFI_ELFCOMPRESS_ZLIB = 1, CPROFI_DEFLATE_RATIO_MAX = 1032
};

static void cprofi_debug_close(cprofi_debug *debug) {
    for (size_t i = 0; i < CPROFI_DWARF_SECTIONS; i++) free(debug->memory[i]);
    memset(debug, 0, sizeof *debug);
}

/* Inflates `size` bytes from the stream at `offset` of a section; *memory is to be freed. */
static cprofi_debug_result cprofi_debug_inflate(const cprofi_source *section, uint64_t offset,
                                                uint64_t size, void **memory, cprofi_source *out) {
    cprofi_source packed = cprofi_source_part(section, offset, section->size - offset);
    cprofi_span from = {NULL, (size_t)packed.size}, to = {NULL, (size_t)size};
    cprofi_debug_result result = CPROFI_DEBUG_NO_MEMORY;
    uint8_t *copy, *plain;
    if (size / CPROFI_DEFLATE_RATIO_MAX > packed.size) return CPROFI_DEBUG_DAMAGED;
    if (from.size != packed.size || to.size != size) return CPROFI_DEBUG_NO_MEMORY;
    plain = (uint8_t *)malloc(to.size + 1);
    copy = (uint8_t *)malloc(from.size + 1);
    if (plain && copy) {
        from.data = copy;
        to.data = plain;
        result = CPROFI_DEBUG_DAMAGED;
        if (cprofi_source_read(&packed, 0, copy, from.size) &&
            cprofi_inflate(from, plain, to.size)) {
            *memory = plain;
            *out = cprofi_source_of(to);
            result = CPROFI_DEBUG_OK;
        }
    }
    if (result != CPROFI_DEBUG_OK) free(plain);
    free(copy);
    return result;
}

/* Takes a section if it is one of those wanted; else NONE. `header`: the size of its compression
   header (gABI: Elf64_Chdr or Elf32_Chdr), 0 without SHF_COMPRESSED. */
static cprofi_debug_result cprofi_debug_section(cprofi_debug *debug, const char *name,
                                                const cprofi_source *section, uint32_t header) {
    static const char *const names[CPROFI_DWARF_SECTIONS] = {
        "info", "abbrev", "line", "str", "line_str", "str_offsets", "addr", "ranges", "rnglists",
        "aranges"};
    bool old = strncmp(name, ".zdebug_", 8) == 0;
    size_t i = 0, head_size = header ? header : 12;
    uint8_t head[CPROFI_ELF_COMPRESSION];
    uint64_t size = 0;
    if (!old && strncmp(name, ".debug_", 7) != 0) return CPROFI_DEBUG_NONE;
    name += old ? 8 : 7;
    while (i < CPROFI_DWARF_SECTIONS && strcmp(name, names[i]) != 0) i++;
    if (i == CPROFI_DWARF_SECTIONS || !section->size || debug->seen[i]) return CPROFI_DEBUG_NONE;
    debug->seen[i] = true;
    if (!old && !header) {
        debug->dwarf.sections[i] = *section;
        return CPROFI_DEBUG_OK;
    }
    if (!cprofi_source_read(section, 0, head, head_size)) return CPROFI_DEBUG_DAMAGED;
    if (header) {
        if (cprofi_get32(head) != CPROFI_ELFCOMPRESS_ZLIB) return CPROFI_DEBUG_UNKNOWN_COMPRESSION;
        size = header == CPROFI_ELF_COMPRESSION ? cprofi_get64(head + 8) : cprofi_get32(head + 4);
    } else {
        if (memcmp(head, "ZLIB", 4) != 0) return CPROFI_DEBUG_DAMAGED;
        for (size_t k = 4; k < 12; k++) size = size << 8 | head[k];
    }
    return cprofi_debug_inflate(section, head_size, size, &debug->memory[i],
                                &debug->dwarf.sections[i]);
}

/* The same; *result becomes the worst of what was met. */
static void cprofi_debug_add(cprofi_debug *debug, const char *name, const cprofi_source *section,
                             uint32_t header, cprofi_debug_result *result) {
    cprofi_debug_result one = cprofi_debug_section(debug, name, section, header);
    if (one > *result) *result = one;
}

/* The DWARF sections of an ELF file. The result is the worst of what was met, and what could be
   read is served all the same. cprofi_debug_close is due in every case; `debug` refers to
   elf->source. */
static cprofi_debug_result cprofi_debug_open(const cprofi_elf *elf, cprofi_debug *debug) {
    const uint32_t header = elf->narrow ? CPROFI_ELF_COMPRESSION_32 : CPROFI_ELF_COMPRESSION;
    cprofi_debug_result result = CPROFI_DEBUG_NONE;
    memset(debug, 0, sizeof *debug);
    for (size_t i = 0; i < elf->section_count; i++) {
        cprofi_elf_section s = cprofi_elf_section_at(elf, i);
        cprofi_source content = cprofi_elf_content(elf, &s);
        char name[32];
        if (s.type == CPROFI_SHT_NULL || s.type == CPROFI_SHT_NOBITS) continue;
        cprofi_elf_section_name(elf, &s, name);
        if (strcmp(name, ".gnu_debugaltlink") == 0) debug->supplementary = true;
        cprofi_debug_add(debug, name, &content, s.flags & CPROFI_SHF_COMPRESSED ? header : 0,
                         &result);
    }
    return result;
}

/* ---- separate debug files ----------------------------------------------------------------------

   Distributions strip their programs and ship the symbols and DWARF in files of their own. Two ways
   lead there, both as gdb knows them ("Debugging Information in Separate Files"): the build id is
   the name in a tree of such files, or .gnu_debuglink holds a file name and the CRC-32 of the file.
   The first that belongs to the image and has a symbol table or .debug_info wins:

       <root>/.build-id/ab/cdef....debug        root: the user's, then /usr/lib/debug
       <cache>/abcdef.../debuginfo              what debuginfod's client has fetched before
       <image's directory>/<name>, <image's directory>/.debug/<name>,
       <root>/<image's directory>/<name>, <root>/<name>

   and the last four once more with the symbolic links of the image's path resolved. A file belongs
   if the build ids are equal; where one has none, a file found by name, if the CRC fits. That costs
   reading it once. Nothing is fetched from anywhere. */

typedef struct {
    const char *directories; /* the user's, with ':' between (Windows: ';'); may be NULL */
} cprofi_debug_places;

typedef struct {
    const cprofi_debug_places *places;
    const cprofi_elf *image;
    cprofi_source *source;
    cprofi_elf *debug;
    uint8_t id[CPROFI_BUILD_ID_MAX];
    uint32_t id_size, crc;
    bool linked; /* looking for .gnu_debuglink: the CRC may decide */
    bool stale;
} cprofi_debug_search;

enum { CPROFI_PATH_MAX = 4096 };

/* What each system implements: opens a regular file for reading; false: it cannot be, or there is
   none. */
static bool cprofi_source_open(const char *path, cprofi_source *source);
static void cprofi_source_close(cprofi_source *source);
/* What stands between the directories of a list. */
static char cprofi_os_list_separator(void);
/* A variable of the environment, in UTF-8. Returns its size with the zero: 0 if it is not set, more
   than `capacity` if it does not fit. */
static size_t cprofi_os_environment(const char *name, char *to, size_t capacity);
/* The path without symbolic links, to be freed; NULL if there is none. */
static char *cprofi_os_real_path(const char *path);

/* The CRC of zlib, gzip (RFC 1952, 8) and .gnu_debuglink: begins with ~0 and ends inverted. */
static void cprofi_crc32_init(uint32_t table[256]) {
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++) table[i] = table[i] >> 1 ^ (table[i] & 1) * 0xedb88320u;
    }
}

static uint32_t cprofi_crc32_add(const uint32_t table[256], uint32_t crc, const uint8_t *data,
                                 size_t size) {
    for (size_t i = 0; i < size; i++) crc = crc >> 8 ^ table[(crc ^ data[i]) & 0xff];
    return crc;
}

/* It over a whole source. */
static bool cprofi_crc32_of(const cprofi_source *source, uint32_t *result) {
    uint8_t *buffer = (uint8_t *)malloc(CPROFI_CHUNK);
    cprofi_walk w = cprofi_walk_of(source, buffer, 0, ~(uint64_t)0, 1);
    uint32_t crc = 0xffffffff, table[256];
    const uint8_t *at;
    if (!buffer) return false;
    cprofi_crc32_init(table);
    while ((at = cprofi_walk_next(&w)) != NULL) crc = cprofi_crc32_add(table, crc, at, 1);
    free(buffer);
    *result = ~crc;
    return w.offset == source->size;
}

/* Whether a file tells more than the image: it has symbols or DWARF and is not the image itself, or
   a copy of it. (A debug file has other section headers: code has no bytes there.) */
static bool cprofi_debug_useful(const cprofi_debug_search *s) {
    const cprofi_elf *d = s->debug;
    if (!d->section_count) return false;
    if (s->source->size == s->image->source->size && d->narrow == s->image->narrow &&
        d->section_count == s->image->section_count &&
        memcmp(d->sections, s->image->sections, d->section_count * cprofi_elf_section_size(d)) == 0)
        return false;
    for (size_t i = 0; i < d->section_count; i++) {
        cprofi_elf_section section = cprofi_elf_section_at(d, i);
        if ((section.type == CPROFI_SHT_SYMTAB && section.size) ||
            cprofi_elf_section_is(d, &section, ".debug_info") ||
            cprofi_elf_section_is(d, &section, ".zdebug_info"))
            return true;
    }
    return false;
}

static bool cprofi_debug_belongs(const cprofi_debug_search *s) {
    uint8_t id[CPROFI_BUILD_ID_MAX];
    uint32_t size = cprofi_elf_build_id(s->debug, id), crc;
    if (!s->linked || (size && s->id_size))
        return size == s->id_size && memcmp(id, s->id, size) == 0;
    return cprofi_crc32_of(s->source, &crc) && crc == s->crc;
}

/* Tries <root><directory>/<name>; true leaves it open. */
static bool cprofi_debug_try(cprofi_debug_search *s, const char *root, size_t root_size,
                             const char *directory, const char *name) {
    char path[CPROFI_PATH_MAX];
    int length;
    if (root_size >= sizeof path) return false;
    length = snprintf(path, sizeof path, "%.*s%s/%s", (int)root_size, root, directory, name);
    if (length < 0 || (size_t)length >= sizeof path || !cprofi_source_open(path, s->source))
        return false;
    if (cprofi_elf_open(s->source, s->debug)) {
        if (cprofi_debug_useful(s)) {
            if (cprofi_debug_belongs(s)) return true;
            s->stale = true;
        }
        cprofi_elf_close(s->debug);
    }
    cprofi_source_close(s->source);
    return false;
}

/* Tries <root><directory>/<name> for each directory of the user, then /usr/lib/debug. */
static bool cprofi_debug_roots(cprofi_debug_search *s, const char *directory, const char *name) {
    const char *at = s->places->directories ? s->places->directories : "";
    while (*at) {
        const char *end = strchr(at, cprofi_os_list_separator());
        size_t size = end ? (size_t)(end - at) : strlen(at);
        if (size && cprofi_debug_try(s, at, size, directory, name)) return true;
        at += size + (end ? 1 : 0);
    }
    return cprofi_debug_try(s, "/usr/lib/debug", 14, directory, name);
}

static bool cprofi_debug_by_id(cprofi_debug_search *s) {
    static const char *const caches[][2] = {{"DEBUGINFOD_CACHE_PATH", ""},
                                            {"XDG_CACHE_HOME", "/debuginfod_client"},
                                            {"HOME", "/.cache/debuginfod_client"}};
    char hex[2 * CPROFI_BUILD_ID_MAX + 1], name[2 * CPROFI_BUILD_ID_MAX + 16], root[4096];
    if (s->id_size < 2) return false;
    for (size_t i = 0; i < s->id_size; i++) snprintf(hex + 2 * i, 3, "%02x", s->id[i]);
    snprintf(name, sizeof name, "%.2s/%s.debug", hex, hex + 2);
    if (cprofi_debug_roots(s, "/.build-id", name)) return true;
    snprintf(name, sizeof name, "%s/debuginfo", hex);
    for (size_t i = 0; i < CPROFI_COUNT(caches); i++) {
        size_t size = cprofi_os_environment(caches[i][0], root, sizeof root);
        if (size > 1 && size <= sizeof root &&
            cprofi_debug_try(s, root, size - 1, caches[i][1], name))
            return true;
    }
    return false;
}

/* Reads .gnu_debuglink: a file name, zeros up to a multiple of 4, the CRC. */
static bool cprofi_debug_link(cprofi_debug_search *s, char *name, size_t capacity) {
    for (size_t i = 0; i < s->image->section_count; i++) {
        cprofi_elf_section section = cprofi_elf_section_at(s->image, i);
        cprofi_source content = cprofi_elf_content(s->image, &section);
        uint8_t crc[4];
        size_t length;
        if (!cprofi_elf_section_is(s->image, &section, ".gnu_debuglink")) continue;
        length = cprofi_source_string(&content, 0, name, capacity);
        if (!length || length + 1 >= capacity || strchr(name, '/') ||
            !cprofi_source_read(&content, (length / 4 + 1) * 4, crc, sizeof crc))
            return false;
        s->crc = cprofi_get32(crc);
        return true;
    }
    return false;
}

/* Tries the places for a file of this name, given the image's path. */
static bool cprofi_debug_by_link(cprofi_debug_search *s, const char *image_path,
                                 const char *name) {
    const char *slash = strrchr(image_path, '/');
    size_t size = slash ? (size_t)(slash - image_path) : 1;
    char *directory = (char *)malloc(size + 1);
    bool found;
    if (!directory) return false;
    memcpy(directory, slash ? image_path : ".", size);
    directory[size] = 0;
    found = cprofi_debug_try(s, directory, size, "", name) ||
            cprofi_debug_try(s, directory, size, "/.debug", name) ||
            (image_path[0] == '/' && cprofi_debug_roots(s, directory, name)) ||
            cprofi_debug_roots(s, "", name);
    free(directory);
    return found;
}

/* Looks for the debug file of an image. True: it is open, the caller closes `debug_elf` and then
   `source`. *stale, after false: there was one, but of another build. */
static bool cprofi_debug_find(const cprofi_debug_places *places, const char *image_path,
                              const cprofi_elf *elf, cprofi_source *source, cprofi_elf *debug_elf,
                              bool *stale) {
    cprofi_debug_search s;
    char name[512]; /* no file system has names longer than 255 bytes */
    bool found;
    memset(&s, 0, sizeof s);
    s.places = places;
    s.image = elf;
    s.source = source;
    s.debug = debug_elf;
    s.id_size = cprofi_elf_build_id(elf, s.id);
    found = cprofi_debug_by_id(&s);
    s.linked = true;
    if (!found && cprofi_debug_link(&s, name, sizeof name)) {
        found = cprofi_debug_by_link(&s, image_path, name);
        if (!found) {
            char *real = cprofi_os_real_path(image_path);
            if (real && strcmp(real, image_path) != 0)
                found = cprofi_debug_by_link(&s, real, name);
            free(real);
        }
    }
    *stale = s.stale && !found;
    return found;
}

/* ---------------------------------------------------------------------------------------------- */
/* >>pe: symbols of Windows programs

   The problem and the idea are those of the elf section; but symbols of COFF have no size, so that
   the tables for unwinding have to tell where functions begin and end. An RVA, an address relative
   to the image, becomes a file offset through the section that holds it.

   After Microsoft's "PE Format": images (not object files) for x64, i386 and ARM64, PE32 and PE32+,
   as they stand in a file. The linkers of MinGW keep the COFF symbol and string tables of object
   files in the image unless told to strip it; the names of sections longer than 8 characters, which
   are those of DWARF, are in that string table too. Programs with a PDB are the business of the
   windows section. Not handled: ARM64EC, and /bigobj symbol tables, which images do not have. */


enum {
    CPROFI_PE_I386 = 0x14c, CPROFI_PE_X64 = 0x8664, CPROFI_PE_ARM64 = 0xaa64,
    CPROFI_PE_EXPORT = 0, CPROFI_PE_EXCEPTION = 3, CPROFI_PE_DEBUG = 6,
    CPROFI_PE_DIRECTORIES = 16,
    CPROFI_PE_SYMBOL = 18,         /* bytes in a record of the symbol table */
    CPROFI_PE_SECTIONS_MAX = 1024, /* further ones count as missing */
    CPROFI_PE_NAME_MAX = 16384
};

typedef struct {
    uint32_t address, size;     /* RVA; size in memory */
    uint32_t offset, file_size; /* in the file, without padding */
    bool executable;
    uint8_t name[8];
} cprofi_pe_section;

typedef struct {
    const cprofi_source *source;
    uint16_t machine;
    bool wide; /* PE32+ */
    uint32_t time_date_stamp, entry, size_of_image;
    uint64_t image_base;
    uint64_t symbols, symbol_count; /* in the source */
    cprofi_source strings;
    struct { uint32_t address, size; } directories[CPROFI_PE_DIRECTORIES];
    cprofi_pe_section *sections;
    size_t section_count;
} cprofi_pe;

static void cprofi_pe_close(cprofi_pe *pe) {
    free(pe->sections);
    memset(pe, 0, sizeof *pe);
}

/* The section table; ends early where the file ends. False: out of memory. */
static bool cprofi_pe_load_sections(cprofi_pe *pe, uint64_t offset, size_t count) {
    uint8_t r[40];
    if (count > CPROFI_PE_SECTIONS_MAX) count = CPROFI_PE_SECTIONS_MAX;
    if (!count) return true;
    pe->sections = (cprofi_pe_section *)calloc(count, sizeof *pe->sections);
    if (!pe->sections) return false;
    for (; count && cprofi_source_read(pe->source, offset, r, sizeof r); count--, offset += 40) {
        cprofi_pe_section *s = &pe->sections[pe->section_count++];
        memcpy(s->name, r, 8);
        s->size = cprofi_get32(r + 8);
        s->address = cprofi_get32(r + 12);
        s->file_size = cprofi_get32(r + 16);
        s->offset = cprofi_get32(r + 20);
        s->executable = (cprofi_get32(r + 36) & 0x20000020) != 0; /* MEM_EXECUTE, CNT_CODE */
        if (!s->size) s->size = s->file_size; /* some linkers leave it 0 */
        if (s->file_size > s->size) s->file_size = s->size;
        if (s->size > ~s->address) s->size = ~s->address;
    }
    return true;
}

/* Reads the headers. The source must outlive `pe`; cprofi_pe_close is due only after true. False:
   not such an image, or out of memory. */
static bool cprofi_pe_open(const cprofi_source *source, cprofi_pe *pe) {
    uint8_t dos[64], coff[24], h[112 + 8 * CPROFI_PE_DIRECTORIES] = {0}, size[4];
    size_t optional, tables;
    uint64_t at, strings;
    memset(pe, 0, sizeof *pe);
    pe->source = source;
    if (!cprofi_source_read(source, 0, dos, sizeof dos) || memcmp(dos, "MZ", 2) != 0) return false;
    at = cprofi_get32(dos + 60);
    if (!cprofi_source_read(source, at, coff, sizeof coff) || memcmp(coff, "PE\0", 4) != 0)
        return false;
    at += sizeof coff;
    pe->machine = cprofi_get16(coff + 4);
    optional = cprofi_get16(coff + 20);
    if (!cprofi_source_read(source, at, h, optional < sizeof h ? optional : sizeof h)) return false;
    pe->wide = cprofi_get16(h) == 0x20b;
    tables = pe->wide ? 112 : 96; /* what lies behind `optional` was read as zeros */
    if ((!pe->wide && cprofi_get16(h) != 0x10b) || optional < tables ||
        (pe->machine != CPROFI_PE_I386 && pe->machine != CPROFI_PE_X64 &&
         pe->machine != CPROFI_PE_ARM64))
        return false;
    pe->time_date_stamp = cprofi_get32(coff + 8);
    pe->entry = cprofi_get32(h + 16);
    pe->image_base = pe->wide ? cprofi_get64(h + 24) : cprofi_get32(h + 28);
    pe->size_of_image = cprofi_get32(h + 56);
    for (size_t i = 0; i < CPROFI_PE_DIRECTORIES && i < cprofi_get32(h + tables - 4); i++) {
        pe->directories[i].address = cprofi_get32(h + tables + 8 * i);
        pe->directories[i].size = cprofi_get32(h + tables + 8 * i + 4);
    }
    pe->symbols = cprofi_get32(coff + 12);
    pe->symbol_count = pe->symbols ? cprofi_get32(coff + 16) : 0;
    strings = pe->symbols + pe->symbol_count * CPROFI_PE_SYMBOL;
    if (pe->symbols && cprofi_source_read(source, strings, size, sizeof size))
        pe->strings = cprofi_source_part(source, strings, cprofi_get32(size));
    return cprofi_pe_load_sections(pe, at + optional, cprofi_get16(coff + 6));
}

/* The bytes in the file of what is loaded at an RVA and behind it in the same section. */
static cprofi_source cprofi_pe_content(const cprofi_pe *pe, uint64_t rva) {
    for (size_t i = 0; i < pe->section_count; i++) {
        const cprofi_pe_section *s = &pe->sections[i];
        uint64_t at = rva - s->address, offset = s->offset + at, left = s->file_size - at;
        if (at >= s->file_size) continue;
        if (offset >= pe->source->size) break;
        if (left > pe->source->size - offset) left = pe->source->size - offset;
        return cprofi_source_part(pe->source, offset, left);
    }
    return cprofi_source_part(pe->source, 0, 0);
}

static bool cprofi_pe_read(const cprofi_pe *pe, uint64_t rva, void *to, size_t size) {
    cprofi_source content = cprofi_pe_content(pe, rva);
    return cprofi_source_read(&content, 0, to, size);
}

/* The name in 8 bytes of a section or symbol; at != 0: it is there in the string table instead. */
static void cprofi_pe_name8(const cprofi_pe *pe, const uint8_t name[8], uint64_t at, char *to,
                            size_t capacity) {
    cprofi_span span = {name, 8};
    cprofi_source here = cprofi_source_of(span);
    cprofi_source_string(at ? &pe->strings : &here, at, to, capacity);
}

/* Long names stand in the string table, at an offset written as "/1234", or "//" and six digits to
   base 64, most significant first, where seven decimal ones do not suffice. */
static void cprofi_pe_section_name(const cprofi_pe *pe, const cprofi_pe_section *s, char *to,
                                   size_t capacity) {
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bool large = s->name[1] == '/';
    uint64_t at = 0;
    for (size_t i = large ? 2 : 1; s->name[0] == '/' && i < 8 && s->name[i]; i++) {
        const char *digit = strchr(digits, s->name[i]);
        if (large) at = at * 64 + (digit ? (uint64_t)(digit - digits) : 0);
        else at = at * 10 + s->name[i] - '0';
    }
    cprofi_pe_name8(pe, s->name, at, to, capacity);
}

/* What tells one build from all others: the GUID and age that lead to the PDB file, and its path.
   ld's and lld's --build-id writes the same record where there is no PDB. */
static bool cprofi_pe_pdb(const cprofi_pe *pe, uint8_t guid[16], uint32_t *age, char *path,
                          size_t capacity) {
    uint64_t table = pe->directories[CPROFI_PE_DEBUG].address;
    uint8_t entry[28], head[24];
    for (uint32_t i = 0; i < pe->directories[CPROFI_PE_DEBUG].size / 28 && i < 64; i++) {
        cprofi_source record;
        if (!cprofi_pe_read(pe, table + 28 * i, entry, sizeof entry)) return false;
        record = cprofi_source_part(pe->source, cprofi_get32(entry + 24), cprofi_get32(entry + 16));
        if (cprofi_get32(entry + 12) != 2 /* CodeView */ ||
            !cprofi_source_read(&record, 0, head, sizeof head) || memcmp(head, "RSDS", 4) != 0)
            continue;
        memcpy(guid, head + 4, 16);
        *age = cprofi_get32(head + 20);
        cprofi_source_string(&record, sizeof head, path, capacity);
        return true;
    }
    return false;
}

/* The DWARF sections, as cprofi_debug_open does it for ELF. */
static cprofi_debug_result cprofi_pe_debug(const cprofi_pe *pe, cprofi_debug *debug) {
    cprofi_debug_result result = CPROFI_DEBUG_NONE;
    memset(debug, 0, sizeof *debug);
    for (size_t i = 0; i < pe->section_count; i++) {
        const cprofi_pe_section *s = &pe->sections[i];
        cprofi_source part = cprofi_source_part(pe->source, s->offset, s->file_size);
        char name[32];
        cprofi_pe_section_name(pe, s, name, sizeof name);
        cprofi_debug_add(debug, name, &part, 0, &result);
    }
    return result;
}

/* ---- pe: functions -----------------------------------------------------------------------------

   Symbols of COFF have no size. On x64 and ARM64 the exception directory (.pdata: "x64 exception
   handling", "ARM64 exception handling" of Microsoft's documentation) tells where each function
   begins and ends, except that on x64 a leaf function, one that keeps the stack as it found it,
   need not have an entry. A function in several pieces has an entry for each; on x64 the unwind
   information of the others leads to that of the first, its primary entry. An entry has 12 bytes on
   x64 (begin, end, unwind information) and 8 on ARM64 (begin, length or unwind information). */

/* Where the function (or piece) of an entry ends. */
static uint64_t cprofi_pe_function_end(const cprofi_pe *pe, const uint32_t entry[3]) {
    uint8_t head[4];
    if (pe->machine == CPROFI_PE_X64) return entry[1];
    if (entry[1] & 3) return (uint64_t)entry[0] + (entry[1] >> 2 & 0x7ff) * 4; /* packed */
    if (!cprofi_pe_read(pe, entry[1], head, sizeof head)) return entry[0];
    return (uint64_t)entry[0] + (cprofi_get32(head) & 0x3ffff) * 4;
}

/* Where the function begins of which an entry may be a later piece. */
static uint32_t cprofi_pe_function_start(const cprofi_pe *pe, const uint32_t entry[3]) {
    uint32_t start = entry[0], unwind = entry[2];
    for (int hops = 0; hops < 32 && pe->machine == CPROFI_PE_X64; hops++) {
        uint8_t head[4], next[12];
        uint64_t at = unwind & ~1u; /* an odd one leads to another entry */
        if (!(unwind & 1)) {
            if (!cprofi_pe_read(pe, at, head, sizeof head) || !(head[0] & 0x20 /* CHAININFO */))
                return start;
            at += 4 + (head[2] + 1u) / 2 * 4; /* behind the unwind codes, whose number is even */
        }
        if (!cprofi_pe_read(pe, at, next, sizeof next)) break;
        start = cprofi_get32(next);
        unwind = cprofi_get32(next + 8);
    }
    return entry[0]; /* a chain without end */
}

/* ---- pe: the look-up ---------------------------------------------------------------------------

   As in the elf reader the addresses are sorted and the tables streamed: each record finds by
   binary search the first address at or behind it, which keeps the best it was offered; what an
   address was not offered it inherits from the one before. s records and n addresses cost
   O((s + n) log n), and memory is 64 bytes an address.

   Every address has a `key`, where its name is looked for, and a `floor`: the name is that of the
   last symbol in [floor, key].
   - In a function of the exception directory both are the start of that function: only a symbol
     exactly there names it, and labels and entry points inside it do not split it.
   - Elsewhere (i386; leaf functions) the key is the address, and the floor the end of the last
     function of the directory before it, or the start of the section.
   Of several symbols at one place: functions by type, other symbols of COFF, exports; of COFF
   external before static; the first in the table. An export extends to the next symbol or entry of
   the directory, so in a stripped image for i386 it is credited with what is behind it: nothing
   there tells where it ends.

   Ignored: labels, section, file and absolute symbols; exports that are forwarded or nameless. */

typedef struct {
    uint64_t address;  /* RVA + image_base */
    uint32_t index;    /* the caller's */
    const char *name;  /* undecorated, but mangled still; NULL: none; lives in the text */
    uint64_t start;    /* of the function; 0: unknown */
} cprofi_pe_want;

enum { /* in ascending order of preference */
    CPROFI_PE_NO_HIT, CPROFI_PE_EXPORT_HIT, CPROFI_PE_COFF_HIT,
    CPROFI_PE_EXTERNAL = 1, CPROFI_PE_FUNCTION = 2 /* to be added to the last */
};

typedef struct {
    uint32_t value; /* RVA */
    uint8_t rank;
    uint8_t name[8]; /* COFF: as in the record; export: its RVA */
} cprofi_pe_hit;

typedef struct {
    uint64_t key;          /* these are RVAs */
    uint32_t floor, start; /* start 0: unknown */
    uint32_t entry[3];     /* of those after the previous address, the last that begins here or
                              before; all 0: none */
    cprofi_pe_hit hit;     /* likewise, of the symbols */
    size_t want;
} cprofi_pe_place;

typedef struct {
    const cprofi_pe *pe;
    cprofi_pe_place *places; /* ascending by key */
    size_t count;
    uint8_t *buffer; /* CPROFI_CHUNK bytes */
} cprofi_pe_look;

/* The first place whose key is at or after an RVA; NULL when there is none. */
static cprofi_pe_place *cprofi_pe_from(const cprofi_pe_look *k, uint32_t rva) {
    size_t at = cprofi_search(k->places, sizeof *k->places, 0, k->count, rva);
    return at < k->count ? &k->places[at] : NULL;
}

static void cprofi_pe_offer(cprofi_pe_look *k, const cprofi_pe_hit *hit) {
    cprofi_pe_place *place = cprofi_pe_from(k, hit->value);
    if (place && (hit->value > place->hit.value ||
                  (hit->value == place->hit.value && hit->rank > place->hit.rank)))
        place->hit = *hit;
}

/* Sets key, floor and start of every place, whose key is the RVA at first; sorts them. */
static void cprofi_pe_functions(cprofi_pe_look *k) {
    const cprofi_pe *pe = k->pe;
    size_t size = pe->machine == CPROFI_PE_X64 ? 12 : 8;
    cprofi_source content = cprofi_pe_content(pe, pe->directories[CPROFI_PE_EXCEPTION].address);
    cprofi_walk w = cprofi_walk_of(&content, k->buffer, 0,
                                   pe->directories[CPROFI_PE_EXCEPTION].size / size, size);
    uint64_t end = 0;
    uint32_t begin = 0, start = 0;
    const uint8_t *p;
    qsort(k->places, k->count, sizeof *k->places, cprofi_compare);
    if (pe->machine == CPROFI_PE_I386) return;
    while ((p = cprofi_walk_next(&w)) != NULL) {
        cprofi_pe_place *place = cprofi_pe_from(k, cprofi_get32(p));
        if (!place || cprofi_get32(p) < place->entry[0]) continue;
        for (size_t i = 0; i < size / 4; i++) place->entry[i] = cprofi_get32(p + 4 * i);
    }
    for (size_t i = 0; i < k->count; i++) {
        cprofi_pe_place *place = &k->places[i];
        if (place->entry[1]) {
            begin = place->entry[0];
            end = cprofi_pe_function_end(pe, place->entry);
            start = cprofi_pe_function_start(pe, place->entry);
        }
        if (begin < place->floor) continue; /* in another section */
        if (place->key < end) place->key = place->floor = place->start = start;
        else if (end > place->floor) place->floor = (uint32_t)end;
    }
    qsort(k->places, k->count, sizeof *k->places, cprofi_compare);
}

static void cprofi_pe_symbols(cprofi_pe_look *k) {
    enum { EXTERNAL = 2, STATIC = 3 };
    const cprofi_pe *pe = k->pe;
    cprofi_walk w =
        cprofi_walk_of(pe->source, k->buffer, pe->symbols, pe->symbol_count, CPROFI_PE_SYMBOL);
    const uint8_t *p;
    while ((p = cprofi_walk_next(&w)) != NULL) {
        size_t section = (size_t)cprofi_get16(p + 12) - 1; /* undefined, absolute: out of range */
        bool function = (p[14] & 0x30) == 0x20;
        uint32_t value = cprofi_get32(p + 8);
        uint8_t aux = p[17];
        /* Symbols of sections are static, and have an auxiliary record or at least a dot. */
        if (section < pe->section_count && value < pe->sections[section].size &&
            (p[16] == EXTERNAL || (p[16] == STATIC && (function || (!aux && p[0] != '.'))))) {
            cprofi_pe_hit hit;
            hit.value = pe->sections[section].address + value;
            hit.rank = (uint8_t)(CPROFI_PE_COFF_HIT + (function ? CPROFI_PE_FUNCTION : 0) +
                                 (p[16] == EXTERNAL ? CPROFI_PE_EXTERNAL : 0));
            memcpy(hit.name, p, sizeof hit.name);
            cprofi_pe_offer(k, &hit);
        }
        while (aux && cprofi_walk_next(&w)) aux--;
    }
}

/* Where the external COFF symbol of this name (more than 8 bytes) is, from the image's start;
   0: nowhere. */
CPROFI_UNUSED static uint32_t cprofi_pe_symbol(const cprofi_pe *pe, const char *name) {
    uint8_t *buffer = (uint8_t *)malloc(CPROFI_CHUNK);
    uint32_t found = 0;
    if (!buffer) return 0;
    cprofi_walk w =
        cprofi_walk_of(pe->source, buffer, pe->symbols, pe->symbol_count, CPROFI_PE_SYMBOL);
    for (const uint8_t *p; !found && (p = cprofi_walk_next(&w)) != NULL;) {
        size_t section = (size_t)cprofi_get16(p + 12) - 1;
        uint8_t aux = p[17];
        char text[64];
        if (section < pe->section_count && p[16] == 2 && !cprofi_get32(p)) {
            cprofi_pe_name8(pe, p, cprofi_get32(p + 4), text, sizeof text);
            if (strcmp(text, name) == 0)
                found = pe->sections[section].address + cprofi_get32(p + 8);
        }
        while (aux && cprofi_walk_next(&w)) aux--;
    }
    free(buffer);
    return found;
}

/* The i-th name belongs to the address whose number is the i-th ordinal, of 16 bits. */
static void cprofi_pe_exports(cprofi_pe_look *k) {
    const cprofi_pe *pe = k->pe;
    uint32_t base = pe->directories[CPROFI_PE_EXPORT].address, count, left;
    cprofi_source addresses, ordinals;
    const uint8_t *p;
    uint8_t head[40], value[4];
    cprofi_pe_hit hit;
    cprofi_walk w;
    if (!base || !cprofi_pe_read(pe, base, head, sizeof head)) return;
    count = cprofi_get32(head + 20);
    left = cprofi_get32(head + 24);
    addresses = cprofi_pe_content(pe, cprofi_get32(head + 28));
    ordinals = cprofi_pe_content(pe, cprofi_get32(head + 36));
    w = cprofi_walk_of(&ordinals, k->buffer, 0, left < 65536 ? left : 65536, 2);
    memset(&hit, 0, sizeof hit);
    hit.rank = CPROFI_PE_EXPORT_HIT;
    for (uint64_t name = cprofi_get32(head + 32); (p = cprofi_walk_next(&w)) != NULL; name += 4) {
        uint64_t n = cprofi_get16(p);
        if (n >= count || !cprofi_source_read(&addresses, 4 * n, value, 4)) continue;
        hit.value = cprofi_get32(value);
        if (hit.value - base >= pe->directories[CPROFI_PE_EXPORT].size && /* else: forwarded */
            cprofi_pe_read(pe, name, hit.name, 4))
            cprofi_pe_offer(k, &hit);
    }
}

/* What the source calls it. ".weak.NAME.OTHER" is gas' and ".weak.NAME.default.OTHER" LLVM's way to
   define a weak symbol; on i386 C names have an underscore in front, those of stdcall and fastcall
   also "@" and the size of their arguments behind (fastcall: "@" in front, vectorcall: "@@"). */
static char *cprofi_pe_undecorate(const cprofi_pe *pe, char *name, bool exported) {
    char *end;
    if (strncmp(name, ".weak.", 6) == 0) {
        name += 6;
        end = strstr(name, ".default");
        if (!end || (end[8] && end[8] != '.')) end = strrchr(name, '.');
        if (end) *end = 0;
    }
    if (pe->machine != CPROFI_PE_I386) return name;
    end = strrchr(name, '@');
    if (end && end > name && end[1] && !end[1 + strspn(end + 1, "0123456789")]) {
        *end = 0;
        if (end[-1] == '@') end[-1] = 0;
    }
    return name + ((*name == '_' && !exported) || (*name == '@' && end > name));
}

/* The name of a symbol, "" if it has none; NULL: out of memory. */
static const char *cprofi_pe_name(const cprofi_pe_look *k, const cprofi_pe_hit *hit,
                                  cprofi_text *text) {
    const cprofi_pe *pe = k->pe;
    char *name = (char *)k->buffer; /* the tables have been read */
    bool exported = hit->rank == CPROFI_PE_EXPORT_HIT;
    if (exported) {
        cprofi_source content = cprofi_pe_content(pe, cprofi_get32(hit->name));
        cprofi_source_string(&content, 0, name, CPROFI_PE_NAME_MAX);
    } else {
        uint32_t at = cprofi_get32(hit->name) ? 0 : cprofi_get32(hit->name + 4);
        cprofi_pe_name8(pe, hit->name, at, name, CPROFI_PE_NAME_MAX);
    }
    name = cprofi_pe_undecorate(pe, name, exported);
    return cprofi_text_keep(text, name, strlen(name));
}

/* Names all wants; false: out of memory. */
static bool cprofi_pe_settle(const cprofi_pe_look *k, cprofi_pe_want *wants, cprofi_text *text) {
    const cprofi_pe_hit *hit = NULL;
    const char *name = NULL;
    for (size_t i = 0; i < k->count; i++) {
        const cprofi_pe_place *place = &k->places[i];
        cprofi_pe_want *want = &wants[place->want];
        uint32_t start = place->start;
        if (place->hit.rank) {
            hit = &place->hit;
            name = NULL;
        }
        if (hit && hit->value >= place->floor) {
            if (!name) name = cprofi_pe_name(k, hit, text);
            if (!name) return false;
            if (*name) want->name = name;
            start = hit->value;
        }
        if (start) want->start = k->pe->image_base + start;
    }
    return true;
}

/* Fills name and start of n wants, in any order, of which address and index are set. False only
   when out of memory. */
static bool cprofi_pe_lookup(const cprofi_pe *pe, cprofi_pe_want *wants, size_t n,
                             cprofi_text *text) {
    cprofi_pe_look k;
    bool ok;
    memset(&k, 0, sizeof k);
    k.pe = pe;
    k.buffer = (uint8_t *)malloc(CPROFI_CHUNK);
    k.places = (cprofi_pe_place *)calloc(n + 1, sizeof *k.places);
    ok = k.buffer && k.places;
    for (size_t i = 0; ok && i < n; i++) {
        uint64_t rva = wants[i].address - pe->image_base;
        wants[i].name = NULL;
        wants[i].start = 0;
        for (size_t s = 0; s < pe->section_count; s++) {
            const cprofi_pe_section *section = &pe->sections[s];
            if (!section->executable || rva - section->address >= section->size) continue;
            k.places[k.count].want = i;
            k.places[k.count].key = rva;
            k.places[k.count++].floor = section->address;
            break;
        }
    }
    if (ok) {
        cprofi_pe_functions(&k);
        cprofi_pe_symbols(&k);
        cprofi_pe_exports(&k);
        ok = cprofi_pe_settle(&k, wants, text);
    }
    free(k.buffer);
    free(k.places);
    return ok;
}

/* ---------------------------------------------------------------------------------------------- */
/* >>macho: symbols of macOS programs

   The problem and the idea are those of the elf and pe sections; like those of COFF, symbols here
   have no size, but LC_FUNCTION_STARTS tells where each function begins, named or not. So the name
   of an address is that of the last symbol between the start of its function and itself, and the
   code of a stripped function is not credited to the one before it.

   A file may hold several images, for several processors (fat): the one with the module's UUID is
   meant. Compilers leave the DWARF in the object files; dsymutil gathers it in a file of its own,
   NAME.dSYM/Contents/Resources/DWARF/NAME, with the same UUID and the same addresses, which has the
   symbols that were stripped from the image too. What is in the system's shared cache is in no
   file: it is read in memory, where only symbols that others may use have names.

   After mach-o/loader.h, nlist.h, stab.h and fat.h. 64 bits, little endian, as all systems are that
   have them. Not handled: DWARF in object files that the stabs of a program lead to (N_OSO). */

enum {
    CPROFI_MACHO_X64 = 0x01000007, CPROFI_MACHO_ARM64 = 0x0100000c, /* processors */
    CPROFI_MACHO_SYMTAB = 0x2, CPROFI_MACHO_DYSYMTAB = 0xb, CPROFI_MACHO_SEGMENT = 0x19,
    CPROFI_MACHO_UUID = 0x1b, CPROFI_MACHO_STARTS = 0x26, /* load commands */
    CPROFI_MACHO_HEADER = 32, CPROFI_MACHO_SEGMENT_SIZE = 72, CPROFI_MACHO_SECTION_SIZE = 80,
    CPROFI_MACHO_NLIST = 16, /* bytes of each */
    CPROFI_MACHO_ZEROFILL = 1, CPROFI_MACHO_THUNKS = 8, /* types of section */
    CPROFI_MACHO_EXTERNAL = 1, CPROFI_MACHO_ALTERNATIVE = 0x200, /* of a symbol: type, desc */
    /* More than any linker makes; further ones count as missing. */
    CPROFI_MACHO_SECTIONS_MAX = 1024, CPROFI_MACHO_IMAGES_MAX = 64,
    CPROFI_MACHO_COMMANDS_MAX = 1 << 24,
    CPROFI_MACHO_NAME_MAX = 16384
};

typedef struct {
    uint64_t address, size, offset;
    uint32_t type, first, entry; /* thunks: number in the indirect table; bytes of one */
    bool executable, content;
    char name[17];
} cprofi_macho_section;

typedef struct {
    cprofi_source image; /* the file, or the part of it that is the image; size 0: not open */
    uint32_t processor;
    bool has_uuid;
    uint8_t uuid[16];
    uint64_t base, end; /* addresses of __TEXT, which begins with the header */
    cprofi_source symbols, strings, indirect, starts;
    cprofi_macho_section *sections;
    size_t section_count, section_capacity;
} cprofi_macho;

static void cprofi_macho_close(cprofi_macho *m) {
    free(m->sections);
    memset(m, 0, sizeof *m);
}

/* A segment and its sections. False: out of memory. */
static bool cprofi_macho_segment(cprofi_macho *m, cprofi_bytes c) {
    char name[17] = {0};
    uint64_t address, size;
    uint32_t count;
    if (cprofi_left(&c) < CPROFI_MACHO_SEGMENT_SIZE) return true;
    memcpy(name, c.at + 8, 16);
    cprofi_skip(&c, 24);
    address = cprofi_u64(&c);
    size = cprofi_u64(&c);
    cprofi_skip(&c, 24);
    count = cprofi_u32(&c);
    cprofi_skip(&c, 4);
    if (strcmp(name, "__TEXT") == 0) {
        m->base = address;
        m->end = address + size;
    }
    for (; count && cprofi_left(&c) >= CPROFI_MACHO_SECTION_SIZE; count--) {
        cprofi_macho_section s;
        uint32_t flags;
        if (m->section_count == CPROFI_MACHO_SECTIONS_MAX) return true;
        memset(&s, 0, sizeof s);
        memcpy(s.name, c.at, 16);
        cprofi_skip(&c, 32);
        s.address = cprofi_u64(&c);
        s.size = cprofi_u64(&c);
        if (s.size > ~s.address) s.size = ~s.address;
        s.offset = cprofi_u32(&c);
        cprofi_skip(&c, 12);
        flags = cprofi_u32(&c);
        s.type = flags & 0xff;
        s.first = cprofi_u32(&c);
        s.entry = cprofi_u32(&c);
        cprofi_skip(&c, 4);
        s.executable = (flags & 0x80000400) != 0; /* all, or some of it, is instructions */
        s.content = s.type != CPROFI_MACHO_ZEROFILL;
        if (!CPROFI_ROOM(m->sections, m->section_count, m->section_capacity)) return false;
        m->sections[m->section_count++] = s;
    }
    return true;
}

/* One load command, `c` with its head. False: out of memory. */
static bool cprofi_macho_command(cprofi_macho *m, uint32_t command, cprofi_bytes c) {
    uint64_t at, size, strings;
    if (command == CPROFI_MACHO_SEGMENT) return cprofi_macho_segment(m, c);
    cprofi_skip(&c, 8);
    if (command == CPROFI_MACHO_UUID && cprofi_left(&c) >= sizeof m->uuid) {
        memcpy(m->uuid, c.at, sizeof m->uuid);
        m->has_uuid = true;
    } else if (command == CPROFI_MACHO_SYMTAB) {
        at = cprofi_u32(&c);
        size = (uint64_t)cprofi_u32(&c) * CPROFI_MACHO_NLIST;
        strings = cprofi_u32(&c);
        m->symbols = cprofi_source_part(&m->image, at, size);
        m->strings = cprofi_source_part(&m->image, strings, cprofi_u32(&c));
    } else if (command == CPROFI_MACHO_DYSYMTAB) {
        cprofi_skip(&c, 48);
        at = cprofi_u32(&c);
        m->indirect = cprofi_source_part(&m->image, at, (uint64_t)cprofi_u32(&c) * 4);
    } else if (command == CPROFI_MACHO_STARTS) {
        at = cprofi_u32(&c);
        m->starts = cprofi_source_part(&m->image, at, cprofi_u32(&c));
    }
    return true;
}

/* Reads the load commands of the one image that a source is. */
static bool cprofi_macho_open_image(const cprofi_source *source, cprofi_macho *m) {
    uint8_t head[CPROFI_MACHO_HEADER], *commands;
    uint32_t count, size;
    cprofi_span all;
    cprofi_bytes b;
    bool ok = true;
    if (!cprofi_source_read(source, 0, head, sizeof head) || cprofi_get32(head) != 0xfeedfacf)
        return false;
    count = cprofi_get32(head + 16);
    size = cprofi_get32(head + 20);
    if (!size || size > CPROFI_MACHO_COMMANDS_MAX || size > source->size) return false;
    commands = (uint8_t *)malloc(size);
    if (!commands) return false;
    m->image = *source;
    m->processor = cprofi_get32(head + 4);
    all.data = commands;
    all.size = size;
    b = cprofi_bytes_of(all);
    ok = cprofi_source_read(source, sizeof head, commands, size);
    for (; ok && count && cprofi_left(&b) >= 8; count--) {
        uint32_t command = cprofi_get32(b.at), length = cprofi_get32(b.at + 4);
        cprofi_bytes c = b;
        if (length < 8) break;
        cprofi_skip(&b, length);
        c.end = b.at;
        ok = cprofi_macho_command(m, command, c);
    }
    free(commands);
    if (!ok) cprofi_macho_close(m);
    return ok;
}

static uint64_t cprofi_macho_big(const uint8_t *p, size_t size) {
    uint64_t v = 0;
    for (size_t i = 0; i < size; i++) v = v << 8 | p[i];
    return v;
}

/* Opens an image; of a fat file the first, or with `uuid` the one that has it. The source must
   outlive `m`; cprofi_macho_close is due only after true. False: no such image, or no memory. */
static bool cprofi_macho_open(const cprofi_source *source, const uint8_t *uuid, cprofi_macho *m) {
    uint8_t head[8], entry[32];
    uint64_t magic, count;
    size_t size;
    memset(m, 0, sizeof *m);
    if (!cprofi_source_read(source, 0, head, sizeof head)) return false;
    magic = cprofi_macho_big(head, 4);
    if (magic != 0xcafebabe && magic != 0xcafebabf) return cprofi_macho_open_image(source, m);
    size = magic == 0xcafebabe ? 20 : 32; /* a Java class begins alike, and has no such entries */
    count = cprofi_macho_big(head + 4, 4);
    if (count > CPROFI_MACHO_IMAGES_MAX) count = CPROFI_MACHO_IMAGES_MAX;
    for (uint64_t i = 0; i < count; i++) {
        cprofi_source part;
        if (!cprofi_source_read(source, 8 + i * size, entry, size)) return false;
        part = size == 20 ? cprofi_source_part(source, cprofi_macho_big(entry + 8, 4),
                                               cprofi_macho_big(entry + 12, 4))
                          : cprofi_source_part(source, cprofi_macho_big(entry + 8, 8),
                                               cprofi_macho_big(entry + 16, 8));
        if (!cprofi_macho_open_image(&part, m)) continue;
        if (!uuid || (m->has_uuid && memcmp(m->uuid, uuid, sizeof m->uuid) == 0)) return true;
        cprofi_macho_close(m);
    }
    return false;
}

/* The DWARF sections, as cprofi_debug_open does it. Their names are cut at 16 bytes. */
static cprofi_debug_result cprofi_macho_debug(const cprofi_macho *m, cprofi_debug *debug) {
    cprofi_debug_result result = CPROFI_DEBUG_NONE;
    memset(debug, 0, sizeof *debug);
    for (size_t i = 0; i < m->section_count; i++) {
        const cprofi_macho_section *s = &m->sections[i];
        cprofi_source content = cprofi_source_part(&m->image, s->offset, s->size);
        char name[32] = ".";
        if (!s->content || s->name[0] != '_' || s->name[1] != '_') continue;
        memcpy(name + 1, s->name + 2, sizeof s->name - 2);
        if (strcmp(name, ".debug_str_offs") == 0) memcpy(name + 15, "ets", 4);
        cprofi_debug_add(debug, name, &content, 0, &result);
    }
    return result;
}

/* The path of the dSYM's file for an image's path, if it fits. */
static bool cprofi_macho_dsym_path(const char *image, char *to, size_t capacity) {
    const char *slash = strrchr(image, '/');
    int n = snprintf(to, capacity, "%s.dSYM/Contents/Resources/DWARF/%s", image,
                     slash ? slash + 1 : image);
    return n > 0 && (size_t)n < capacity;
}

/* ---- macho: the look-up ------------------------------------------------------------------------

   As in the pe reader. Every address has a `key`, where its name is looked for, and a `floor`: the
   name is that of the last symbol in [floor, key]. By the list of functions' starts both are the
   start of the function; without one the key is the address, and the floor the start of its
   section. Of several symbols at one place: such as are no alternative entries, external ones, the
   first in the table. A thunk is named after the function that it jumps to, with "@plt".

   Ignored: stabs, undefined and absolute symbols, and the names that the shared cache's builder has
   blotted out. A symbol of another section is below the floor. The one underscore that every name
   of C has in front goes. */

typedef struct {
    uint64_t address;
    uint32_t index;   /* the caller's */
    const char *name; /* mangled still; NULL: none; lives in the text */
    bool thunk;
} cprofi_macho_want;

typedef struct {
    uint64_t key, floor;
    uint64_t value; /* of the last symbol between the previous key and this, */
    uint32_t name;  /* where its name is, */
    uint32_t rank;  /* and how good it is; 0: there is none */
    size_t want;
} cprofi_macho_place;

typedef struct {
    const cprofi_macho *macho;
    cprofi_macho_place *places; /* ascending by key */
    size_t count;
    uint8_t *buffer; /* CPROFI_CHUNK bytes */
} cprofi_macho_look;

/* The name at an offset in the strings, "" if it is none; NULL: out of memory. */
static const char *cprofi_macho_name(const cprofi_macho *m, uint32_t at, cprofi_text *text) {
    char *name = (char *)malloc(CPROFI_MACHO_NAME_MAX);
    const char *kept;
    size_t size, bar;
    if (!name) return NULL;
    size = cprofi_source_string(&m->strings, at, name, CPROFI_MACHO_NAME_MAX);
    if (strcmp(name, "<redacted>") == 0) size = 0;
    bar = size && name[0] == '_';
    kept = cprofi_text_keep(text, name + bar, size - bar);
    free(name);
    return kept;
}

/* Names the thunk that an address is in. False: out of memory. */
static bool cprofi_macho_thunk(const cprofi_macho *m, const cprofi_macho_section *s,
                              cprofi_macho_want *want, cprofi_text *text) {
    uint64_t i = s->first + (want->address - s->address) / s->entry;
    const char *name;
    uint8_t number[4], at[4];
    want->thunk = true;
    if (!cprofi_source_read(&m->indirect, 4 * i, number, 4) ||
        !cprofi_source_read(&m->symbols, (uint64_t)cprofi_get32(number) * CPROFI_MACHO_NLIST, at,
                            4))
        return true;
    name = cprofi_macho_name(m, cprofi_get32(at), text);
    if (name && *name) want->name = name;
    return name != NULL;
}

/* Moves keys and floors to where functions start. */
static void cprofi_macho_functions(cprofi_macho_look *k) {
    cprofi_walk w = cprofi_walk_of(&k->macho->starts, k->buffer, 0, ~(uint64_t)0, 1);
    uint64_t start = k->macho->base, delta = 0;
    unsigned shift = 0;
    size_t i = 0, first;
    bool any = false;
    const uint8_t *p;
    while (i < k->count && (p = cprofi_walk_next(&w)) != NULL) {
        if (shift < 64) delta |= (uint64_t)(*p & 0x7f) << shift;
        shift += 7;
        if (*p & 0x80) continue;
        if (start + delta < start) break;
        for (first = i; i < k->count && k->places[i].key < start + delta; i++) {}
        for (; any && first < i; first++)
            if (k->places[first].floor <= start)
                k->places[first].key = k->places[first].floor = start;
        start += delta;
        any = true;
        delta = shift = 0;
    }
    for (; any && i < k->count; i++)
        if (k->places[i].floor <= start) k->places[i].key = k->places[i].floor = start;
}

static void cprofi_macho_symbols(cprofi_macho_look *k) {
    const cprofi_macho *m = k->macho;
    cprofi_walk w =
        cprofi_walk_of(&m->symbols, k->buffer, 0, ~(uint64_t)0, CPROFI_MACHO_NLIST);
    const uint8_t *p;
    while ((p = cprofi_walk_next(&w)) != NULL) {
        uint64_t value = cprofi_get64(p + 8);
        uint32_t rank = 1u + (p[4] & CPROFI_MACHO_EXTERNAL) +
                        (cprofi_get16(p + 6) & CPROFI_MACHO_ALTERNATIVE ? 0 : 2);
        cprofi_macho_place *place;
        /* a stab; not defined in a section */
        if ((p[4] & 0xe0) || (p[4] & 0x0e) != 0x0e || !cprofi_get32(p)) continue;
        place = &k->places[cprofi_search(k->places, sizeof *k->places, 0, k->count, value)];
        if (place == k->places + k->count) continue;
        if (place->rank && (value < place->value || (value == place->value && rank <= place->rank)))
            continue;
        place->value = value;
        place->name = cprofi_get32(p);
        place->rank = rank;
    }
}

/* Names all wants; false: out of memory. */
static bool cprofi_macho_settle(const cprofi_macho_look *k, cprofi_macho_want *wants,
                                cprofi_text *text) {
    const cprofi_macho_place *last = NULL;
    const char *name = NULL;
    for (size_t i = 0; i < k->count; i++) {
        const cprofi_macho_place *place = &k->places[i];
        if (place->rank) {
            last = place;
            name = NULL;
        }
        if (!last || last->value < place->floor) continue;
        if (!name) name = cprofi_macho_name(k->macho, last->name, text);
        if (!name) return false;
        if (*name) wants[place->want].name = name;
    }
    return true;
}

/* Fills name and thunk of n wants, in any order; address and index are set. False only when
   out of memory. */
static bool cprofi_macho_lookup(const cprofi_macho *m, cprofi_macho_want *wants, size_t n,
                                cprofi_text *text) {
    cprofi_macho_look k;
    bool ok;
    memset(&k, 0, sizeof k);
    k.macho = m;
    k.buffer = (uint8_t *)malloc(CPROFI_CHUNK);
    k.places = (cprofi_macho_place *)calloc(n + 1, sizeof *k.places);
    ok = k.buffer && k.places;
    for (size_t i = 0; ok && i < n; i++) {
        wants[i].name = NULL;
        wants[i].thunk = false;
        for (size_t s = 0; s < m->section_count; s++) {
            const cprofi_macho_section *section = &m->sections[s];
            if (!section->executable || wants[i].address - section->address >= section->size)
                continue;
            if (section->type == CPROFI_MACHO_THUNKS && section->entry) {
                ok = cprofi_macho_thunk(m, section, &wants[i], text);
                break;
            }
            k.places[k.count].want = i;
            k.places[k.count].key = wants[i].address;
            k.places[k.count++].floor = section->address;
            break;
        }
    }
    if (ok) {
        qsort(k.places, k.count, sizeof *k.places, cprofi_compare);
        cprofi_macho_functions(&k);
        cprofi_macho_symbols(&k);
        ok = cprofi_macho_settle(&k, wants, text);
    }
    free(k.buffer);
    free(k.places);
    return ok;
}

/* ---------------------------------------------------------------------------------------------- */
/* >>demangle: names that people can read

   From what the linker knows to what a reader of a flame graph wants, in this order:
   - the version of a symbol goes ("memcpy@@GLIBC_2.14");
   - the suffixes go that compilers give to copies and pieces of a function: gcc's .cold .part.N
     .constprop.N .isra.N .lto_priv.N .localalias, LLVM's .llvm.N .cold.N .warm .__uniq.N. A
     function split in two is one box. Others stay: foo.avx2 is other code than foo;
   - Rust names are demangled by the reader below;
   - C++ names are demangled if the process has a demangler, and lose the return type and the
     parameter lists, also those of enclosing functions: `ns::map<int>::at`,
     `main::{lambda()#1}::operator()`. Template arguments stay.

   The invariant: what is not understood stays whole. Cost: linear in the name, with bounded nesting
   and rereading. Names of the Microsoft compiler ('?') are the business of DbgHelp. */


static bool cprofi_name_is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '$';
}

static bool cprofi_name_starts(const char *s, const char *with) {
    return strncmp(s, with, strlen(with)) == 0;
}

/* Cuts version and clone suffixes off a raw name, in place. */
static void cprofi_name_cut(char *name) {
    static const char *const clones[] = {".cold", ".warm",     ".part",       ".constprop", ".isra",
                                         ".llvm", ".lto_priv", ".localalias", ".__uniq"};
    char *at = strchr(name, '@');
    bool found = true;
    if (at && at != name && name[0] != '?') *at = 0; /* '?': names of the Microsoft compiler */
    while (found) {
        size_t end = strlen(name), digits = end;
        while (digits && name[digits - 1] >= '0' && name[digits - 1] <= '9') digits--;
        if (digits < end && digits && name[digits - 1] == '.') end = digits - 1;
        found = false;
        for (size_t i = 0; i < CPROFI_COUNT(clones) && !found; i++) {
            size_t size = strlen(clones[i]);
            found = end > size && memcmp(name + end - size, clones[i], size) == 0;
            if (found) name[end - size] = 0;
        }
    }
}

/* Looks at a word that begins at s[at]: the index after an operator's symbol, 0 if it is no
   operator. *conversion: it is one to a type, and the index is that of the space before it. */
static size_t cprofi_demangled_operator(const char *s, size_t at, bool *conversion) {
    static const char *const symbols[] = {
        "()", "[]", "<=>", "<<=", ">>=", "->*", "->", "<<", ">>", "<=", ">=", "==", "!=", "&&",
        "||", "++", "--",  "+=",  "-=",  "*=",  "/=", "%=", "^=", "&=", "|=", "<",  ">",  "+",
        "-",  "*",  "/",   "%",   "^",   "&",   "|",  "~",  "!",  "=",  ",",
        " new[]", " new", " delete[]", " delete", " co_await"};
    *conversion = false;
    if (!cprofi_name_starts(s + at, "operator") || (at && cprofi_name_is_word(s[at - 1]))) return 0;
    at += 8;
    if (cprofi_name_is_word(s[at])) return 0;
    if (cprofi_name_starts(s + at, "\"\"")) {
        at += 2;
        if (s[at] == ' ') at++;
        while (cprofi_name_is_word(s[at])) at++;
        return at;
    }
    for (size_t i = 0; i < CPROFI_COUNT(symbols); i++) {
        size_t size = strlen(symbols[i]);
        if (!cprofi_name_starts(s + at, symbols[i])) continue;
        if (s[at] == ' ' && cprofi_name_is_word(s[at + size])) continue; /* " newtype" */
        /* LLVM's demangler writes operator< with template arguments as "operator<<int>". */
        if (strcmp(symbols[i], "<<") == 0 && s[at + 2] && !strchr("( <", s[at + 2])) size = 1;
        return at + size;
    }
    *conversion = s[at] == ' ';
    return *conversion ? at : 0;
}

/* s[at] opens a bracket: the index after the one that closes it, 0 if none does. Angles inside
   round brackets may be comparisons; demanglers put brackets around those. */
static size_t cprofi_demangled_group(const char *s, size_t at) {
    char open[128];
    size_t depth = 0;
    do {
        char c = s[at];
        bool conversion;
        size_t end = c == 'o' ? cprofi_demangled_operator(s, at, &conversion) : 0;
        at = end ? end : at + 1;
        if (end) continue;
        if (c == 0) return 0;
        if (c == '(' || c == '<' || c == '{' || c == '[') {
            if (depth == sizeof open) return 0;
            open[depth++] = c;
        } else if (c == '>') {
            if (s[at - 2] != '-' && open[depth - 1] == '<') depth--;
        } else if (c == ')' || c == '}' || c == ']') {
            char mate = c == ')' ? '(' : c == '}' ? '{' : '[';
            while (depth && open[depth - 1] == '<') depth--;
            if (!depth || open[--depth] != mate) return 0;
        }
    } while (depth);
    return at;
}

/* Whether the bracket at s[at] is part of a name or type, not a parameter list. */
static bool cprofi_demangled_is_part(const char *s, size_t at) {
    return s[at] == '<' || s[at] == '{' || s[at] == '[' ||
           cprofi_name_starts(s + at, "(anonymous namespace)") ||
           (at >= 8 && cprofi_name_starts(s + at - 8, "decltype(")) ||
           (at >= 9 && cprofi_name_starts(s + at - 9, "decltype ("));
}

/* A copy that was not merged with its original; names end with it. */
static bool cprofi_demangled_is_clone(const char *s) {
    return cprofi_name_starts(s, " [clone ") || cprofi_name_starts(s, " (.");
}

/* s[at] is the space before the type a conversion operator converts to: the index of the parameter
   list after the type, 0 if there is none. A bracket followed by another one belongs to the type:
   `operator void (*)(int)()`. */
static size_t cprofi_demangled_conversion(const char *s, size_t at) {
    while (s[at]) {
        size_t end = at + 1;
        if (s[at] == '(' || cprofi_demangled_is_part(s, at)) {
            end = cprofi_demangled_group(s, at);
            if (!end) return 0;
            if (!cprofi_demangled_is_part(s, at) && s[end] != '(' &&
                (!cprofi_name_starts(s + end, " [") || cprofi_demangled_is_clone(s + end)))
                return at;
        }
        at = end;
    }
    return 0;
}

/* s[at] follows a parameter list: the index after the qualifiers of the function. */
static size_t cprofi_demangled_qualifiers(const char *s, size_t at) {
    static const char *const words[] = {" const", " volatile", " restrict",        " noexcept",
                                        " &&",    " &",        " transaction_safe"};
    for (size_t i = 0; i < CPROFI_COUNT(words);) {
        size_t size = strlen(words[i]);
        bool found = cprofi_name_starts(s + at, words[i]) && !cprofi_name_is_word(s[at + size]);
        if (found) at += size;
        i = found ? 0 : i + 1;
    }
    return at;
}

/* Writes the qualified name in `full`, a demangled function, to `out` (as large as `full`). False:
   not understood. The return type is what precedes a space, * or & outside of brackets. A bracket
   where the name should begin is a declarator around it: `void (*f(int))(char)`. */
static bool cprofi_demangled_trim(const char *full, char *out) {
    static const char *const kinds[] = {
        "non-virtual thunk to ",   "virtual thunk to ",         "covariant return thunk to ",
        "TLS init function for ",  "TLS wrapper function for ", "transaction clone for ",
        "invocation function for block in "};
    size_t in = 0, n, start, end, around = 0;
    bool conversion = false, finished = false;
    for (size_t i = 0; i < CPROFI_COUNT(kinds); i++)
        if (cprofi_name_starts(full, kinds[i])) in = strlen(kinds[i]);
    memcpy(out, full, in);
    for (start = n = in; full[in] && !finished; in = end) {
        char c = full[in];
        bool copy = true;
        end = c == 'o' ? cprofi_demangled_operator(full, in, &conversion) : 0;
        if (end) {
            if (conversion) end = cprofi_demangled_conversion(full, end);
            else if (cprofi_name_starts(full + end, " <")) end++;
        } else if (cprofi_demangled_is_clone(full + in)) {
            end = in + strlen(full + in);
        } else if (cprofi_demangled_is_part(full, in)) {
            end = cprofi_demangled_group(full, in);
        } else if (c == '(' && n > start) {
            copy = false;
            end = cprofi_demangled_group(full, in);
            if (end) end = cprofi_demangled_qualifiers(full, end);
            if (end) finished = full[end] != ':' && !cprofi_demangled_is_clone(full + end);
        } else {
            end = in + 1;
            copy = c != '(' && c != ')' && c != ' ' && c != '*' && c != '&';
            if (c == '(') around++;
            else if (c == ')') finished = true;
            else if (!copy) n = start;
            if (finished && !around) return false;
        }
        if (!end) return false;
        if (copy) {
            memcpy(out + n, full + in, end - in);
            n += end - in;
        }
    }
    out[n] = 0;
    return n > start;
}

/* ---- rust names --------------------------------------------------------------------------------

   Rust symbols carry a path and its generic arguments in one of two manglings. Shown is what
   backtraces and other profilers show ({:#} of the crate rustc-demangle), so that profiles can be
   compared: all generic arguments, no hash, no crate disambiguator, no type suffix on constants.
       legacy  _ZN3std2io5Write9write_all17h0123456789abcdefE    std::io::Write::write_all
       v0      _RNvMs_NtCs4_5alloc3vecINtB4_3VechE4push          <alloc::vec::Vec<u8>>::push
   Legacy: lengths and identifiers, in which $LT$, $u7b$, .. stand for other characters. The hash at
   the end is required: without it the name may be one of C++. v0 (RFC 2603 and "v0 symbol format"
   in the rustc book): a grammar in prefix form, which says things in the order they are shown, so
   one descent reads and prints. `B` refers back: what stands at a smaller offset is read again.

   A symbol is shown whole or not at all: what is damaged, of an unknown version or too long for the
   caller's memory stays mangled. A hostile one can do no harm: reading only moves forward, but for
   references back, which can double each other at every step; what they read is counted. So are
   levels of nesting, and with them the stack. Cost: O(length + output) and the bounded rereading;
   no allocation.

   Not done: names with bytes beyond ASCII (rustc writes Punycode). Suffixes after '.', '$' and '@'
   are not shown. In constants, characters that cannot be seen are escaped by a short list of
   ranges, not by the tables of Unicode. */

enum {
    CPROFI_RUST_DEPTH = 112,      /* of cprofi_rust_say */
    CPROFI_RUST_REREAD = 1 << 17, /* bytes */
    CPROFI_RUST_SCALARS = 128     /* characters of an identifier in Punycode */
};

typedef struct {
    const char *name; /* behind the prefix: offset 0 of references back */
    size_t at, end;
    char *out;
    size_t used, size;
    uint64_t lifetimes; /* bound around this place */
    uint64_t reread;
    uint32_t depth;
    bool skip;                             /* read without printing */
    bool open;                             /* see cprofi_rust_trait */
    uint32_t scalars[CPROFI_RUST_SCALARS]; /* here, because the frames of the descent are many */
} cprofi_rust;

/* Prints a template: text, and letters behind '%' for what is to be read and printed there (see
   cprofi_rust_grammar). False, here and in all that follows: damaged, or no room. */
static bool cprofi_rust_say(cprofi_rust *r, const char *s);

static bool cprofi_rust_put(cprofi_rust *r, const char *text, size_t n) {
    if (r->skip) return true;
    if (n >= r->size - r->used) return false; /* one stays for the 0 */
    memcpy(r->out + r->used, text, n);
    r->used += n;
    return true;
}

static bool cprofi_rust_format(cprofi_rust *r, const char *format, uint64_t n) {
    char text[32];
    snprintf(text, sizeof text, format, (unsigned long long)n);
    return cprofi_rust_say(r, text);
}

/* A character as UTF-8. */
static bool cprofi_rust_scalar(cprofi_rust *r, uint64_t c) {
    char text[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return false;
    for (size_t i = n; --i; c >>= 6) text[i] = (char)(0x80 | (c & 0x3f));
    text[0] = (char)(n == 1 ? c : (0xf00u >> n & 0xf0u) | c);
    return cprofi_rust_put(r, text, n);
}

static bool cprofi_rust_eat(cprofi_rust *r, char c) { return r->name[r->at] == c && ++r->at; }

/* 0 at the end, which is never passed. */
static char cprofi_rust_next(cprofi_rust *r) {
    return r->at < r->end ? r->name[r->at++] : (char)0;
}

/* A decimal number, and whether as much is left; a 0 stands alone. */
static bool cprofi_rust_length(cprofi_rust *r, size_t *n) {
    size_t from = r->at;
    *n = 0;
    while (r->name[r->at] >= '0' && r->name[r->at] <= '9' && (*n || r->at == from)) {
        *n = *n * 10 + (size_t)(r->name[r->at++] - '0');
        if (*n > r->end) return false;
    }
    return r->at > from && *n <= r->end - r->at;
}

/* The value of the hex digits that s begins with; how many there are. */
static size_t cprofi_rust_hex(const char *s, uint64_t *value, bool *fits) {
    size_t n = 0;
    *value = 0;
    for (*fits = true; (s[n] >= '0' && s[n] <= '9') || (s[n] >= 'a' && s[n] <= 'f'); n++) {
        *fits = *fits && *value >> 60 == 0;
        *value = *value << 4 | (uint64_t)(s[n] - (s[n] <= '9' ? '0' : 'a' - 10));
    }
    return n;
}

/* ---- legacy */

/* The character for an escape, and how long that is; 0: it is none. */
static size_t cprofi_rust_escape(const char *s, uint64_t *c) {
    static const char *const table[] = {"$SP$@", "$BP$*", "$RF$&", "$LT$<",
                                        "$GT$>", "$LP$(", "$RP$)", "$C$,"};
    bool fits;
    size_t n;
    for (size_t i = 0; i < CPROFI_COUNT(table); i++) {
        n = strlen(table[i]) - 1;
        *c = (uint64_t)table[i][n];
        if (strncmp(table[i], s, n) == 0) return n;
    }
    if (s[1] != 'u') return 0;
    n = 2 + cprofi_rust_hex(s + 2, c, &fits);
    return s[n] == '$' && fits && *c >= 0x20 && (*c < 0x7f || *c >= 0xa0) ? n + 1 : 0;
}

static bool cprofi_rust_legacy_part(cprofi_rust *r, const char *s, size_t n) {
    /* An identifier must not begin with '$', so an underscore was put before it. */
    size_t i = n > 1 && s[0] == '_' && s[1] == '$', used;
    uint64_t c = 0;
    for (; i < n; i += used) {
        bool colons = s[i] == '.' && i + 1 < n && s[i + 1] == '.';
        used = s[i] == '$' ? cprofi_rust_escape(s + i, &c) : colons ? 2 : 1;
        if (!used || !(s[i] == '$' ? cprofi_rust_scalar(r, c)
                                   : cprofi_rust_put(r, colons ? "::" : s + i, used)))
            return false;
    }
    return i == n;
}

static bool cprofi_rust_legacy(cprofi_rust *r) {
    for (const char *between = "";; between = "::") {
        const char *s;
        size_t n;
        if (!cprofi_rust_length(r, &n)) return false;
        s = r->name + r->at;
        r->at += n;
        if (n == 17 && s[0] == 'h' && strspn(s + 1, "0123456789abcdef") == 16 &&
            cprofi_rust_eat(r, 'E'))
            return true;
        if (!cprofi_rust_say(r, between) || !cprofi_rust_legacy_part(r, s, n)) return false;
    }
}

/* ---- v0: words */

/* Base 62, '_' behind; "_" is 0, "0_" is 1. */
static bool cprofi_rust_number(cprofi_rust *r, uint64_t *number) {
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (*number = 0; !cprofi_rust_eat(r, '_');) {
        char c = cprofi_rust_next(r);
        const char *found = c ? strchr(digits, c) : NULL;
        uint64_t digit = found ? (uint64_t)(found - digits) : 0, n = *number ? *number - 1 : 0;
        if (!found || n > (UINT64_MAX - 1 - digit) / 62) return false;
        *number = n * 62 + digit + 1;
    }
    return true;
}

/* A number behind a tag: 0 without it, one more with it. */
static bool cprofi_rust_tagged(cprofi_rust *r, char tag, uint64_t *number) {
    *number = 0;
    return !cprofi_rust_eat(r, tag) || (cprofi_rust_number(r, number) && ++*number);
}

typedef struct {
    const char *text;
    size_t size;
    bool punycode;
} cprofi_rust_identifier;

static bool cprofi_rust_read(cprofi_rust *r, cprofi_rust_identifier *id) {
    id->punycode = cprofi_rust_eat(r, 'u');
    if (!cprofi_rust_length(r, &id->size)) return false;
    cprofi_rust_eat(r, '_');
    id->text = r->name + r->at;
    r->at += id->size;
    return r->at <= r->end && (!id->punycode || id->size);
}

/* Decodes Punycode (RFC 3492) into r->scalars: characters that stand as they are, a '-' that is '_'
   here, and numbers that say which others go where. How many; 0: it is none. */
static size_t cprofi_rust_punycode(cprofi_rust *r, const cprofi_rust_identifier *id) {
    uint64_t point = 0x80, place = 0, bias = 72, damp = 700;
    size_t at = id->size, count = 0;
    while (at && id->text[at - 1] != '_') at--;
    if (at == id->size || at > CPROFI_RUST_SCALARS) return 0;
    for (; count + 1 < at; count++) r->scalars[count] = (uint8_t)id->text[count];
    while (at < id->size) {
        uint64_t delta = 0, weight = 1, digit, least, k = 36;
        for (;; k += 36) {
            char c = at < id->size ? id->text[at++] : (char)0;
            if (c >= 'a' && c <= 'z') digit = (uint64_t)(c - 'a');
            else if (c >= '0' && c <= '9') digit = (uint64_t)(c - '0') + 26;
            else return 0;
            delta += digit * weight;
            if (delta >> 32) return 0; /* more than all characters at all places */
            least = k <= bias ? 1 : k >= bias + 26 ? 26 : k - bias;
            if (digit < least) break;
            weight *= 36 - least;
        }
        if (count == CPROFI_RUST_SCALARS) return 0;
        place += delta;
        point += place / ++count;
        place %= count;
        if (point > 0x10ffff) return 0;
        memmove(r->scalars + place + 1, r->scalars + place,
                (count - 1 - (size_t)place) * sizeof *r->scalars);
        r->scalars[place++] = (uint32_t)point;
        delta /= damp;
        delta += delta / count;
        damp = 2;
        for (k = 0; delta > 455; k += 36) delta /= 35;
        bias = k + 36 * delta / (delta + 38);
    }
    return count;
}

static bool cprofi_rust_show(cprofi_rust *r, const cprofi_rust_identifier *id) {
    size_t count;
    if (!id->punycode || r->skip) return cprofi_rust_put(r, id->text, id->size);
    count = cprofi_rust_punycode(r, id);
    for (size_t i = 0; i < count; i++)
        if (!cprofi_rust_scalar(r, r->scalars[i])) return false;
    return count;
}

/* A name whose disambiguator, if it has one, is not shown. */
static bool cprofi_rust_name(cprofi_rust *r) {
    uint64_t number;
    cprofi_rust_identifier id;
    return cprofi_rust_tagged(r, 's', &number) && cprofi_rust_read(r, &id) &&
           cprofi_rust_show(r, &id);
}

/* The last part of a nested path. Namespaces in capitals hold things without a name, or whose name
   is not enough; the others are not shown. */
static bool cprofi_rust_segment(cprofi_rust *r, char space) {
    bool special = space >= 'A' && space <= 'Z';
    char kind[] = "?";
    uint64_t number;
    cprofi_rust_identifier id;
    kind[0] = space;
    if ((!special && (space < 'a' || space > 'z')) || !cprofi_rust_tagged(r, 's', &number) ||
        !cprofi_rust_read(r, &id))
        return false;
    if (special && !(cprofi_rust_say(r, "::{") && cprofi_rust_say(r, space == 'C'   ? "closure"
                                                                     : space == 'S' ? "shim"
                                                                                    : kind)))
        return false;
    return (!id.size || (cprofi_rust_say(r, special ? ":" : "::") && cprofi_rust_show(r, &id))) &&
           (!special || cprofi_rust_format(r, "#%llu}", number));
}

/* 1 is the lifetime bound last; names are given from the outermost one on. */
static bool cprofi_rust_lifetime(cprofi_rust *r, uint64_t index) {
    uint64_t level = r->lifetimes - index;
    char letter[] = "'_";
    if (r->skip) return true; /* binders are not counted then */
    if (index && level < 26) letter[1] = (char)('a' + (int)level);
    return index <= r->lifetimes && cprofi_rust_say(r, letter) &&
           (!index || level < 26 || cprofi_rust_format(r, "%llu", level));
}

/* A lifetime that may be missing or unknown; then nothing is said. */
static bool cprofi_rust_lives(cprofi_rust *r, const char *before, const char *after) {
    uint64_t index = 0;
    if (cprofi_rust_eat(r, 'L') && !cprofi_rust_number(r, &index)) return false;
    return !index || (cprofi_rust_say(r, before) && cprofi_rust_lifetime(r, index) &&
                      cprofi_rust_say(r, after));
}

/* `for<'a, 'b> `, if there is one; bound until the end of the template. */
static bool cprofi_rust_binder(cprofi_rust *r) {
    uint64_t count;
    if (!cprofi_rust_tagged(r, 'G', &count)) return false;
    if (!count || r->skip) return true;
    for (uint64_t i = 0; i < count; i++) {
        r->lifetimes++;
        if (!cprofi_rust_say(r, i ? ", " : "for<") || !cprofi_rust_lifetime(r, 1)) return false;
    }
    return cprofi_rust_say(r, "> ");
}

/* ---- v0: constants */

/* A character as source code writes it. */
static bool cprofi_rust_quoted(cprofi_rust *r, uint64_t c, char quote) {
    static const uint32_t unseen[][2] = {
        {0, 0x1f},        {0x7f, 0x9f},     {0xad, 0xad},     {0x300, 0x36f},
        {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f}, {0xe000, 0xf8ff},
        {0xfe00, 0xfe0f}, {0xfeff, 0xfeff}, {0xfff0, 0xfffb}, {0xe0000, 0x10ffff}};
    static const char plain[] = "\\\t\n\r", letters[] = "\\tnr0"; /* the 0 is one of them */
    const char *found = c < 0x80 ? strchr(plain, (int)c) : NULL;
    char text[] = "\\?";
    text[1] = found ? letters[found - plain] : quote;
    if (found || c == (uint64_t)quote) return cprofi_rust_say(r, text);
    for (size_t i = 0; i < CPROFI_COUNT(unseen); i++)
        if (c >= unseen[i][0] && c <= unseen[i][1]) return cprofi_rust_format(r, "\\u{%llx}", c);
    return cprofi_rust_scalar(r, c);
}

/* Bytes of UTF-8, two digits each. */
static bool cprofi_rust_string(cprofi_rust *r) {
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    uint64_t c = 0;
    size_t more = 0, size = 0;
    if (!cprofi_rust_say(r, "\"")) return false;
    while (!cprofi_rust_eat(r, '_')) {
        uint64_t octet;
        bool fits;
        char digits[3] = {0, 0, 0};
        digits[0] = cprofi_rust_next(r);
        digits[1] = cprofi_rust_next(r);
        if (cprofi_rust_hex(digits, &octet, &fits) != 2) return false;
        if (more) {
            more--;
            if (octet >> 6 != 2) return false;
            c = c << 6 | (octet & 0x3f);
        } else {
            more = size = octet < 0xc0 ? 0 : octet < 0xe0 ? 1 : octet < 0xf0 ? 2 : 3;
            if ((octet >= 0x80 && octet < 0xc0) || octet >= 0xf8) return false;
            c = size ? octet & (0x3fu >> size) : octet;
        }
        if (!more && (c < least[size] || !cprofi_rust_quoted(r, c, '"'))) return false;
    }
    return !more && cprofi_rust_say(r, "\"");
}

/* An integer, a bool or a char. */
static bool cprofi_rust_leaf(cprofi_rust *r, char type) {
    bool fits, negative = strchr("aslxni", type) && cprofi_rust_eat(r, 'n');
    const char *digits = r->name + r->at;
    uint64_t value;
    size_t n = cprofi_rust_hex(digits, &value, &fits);
    r->at += n;
    if (!cprofi_rust_eat(r, '_') || !cprofi_rust_say(r, negative ? "-" : "")) return false;
    if (type == 'b') return fits && value < 2 && cprofi_rust_say(r, value ? "true" : "false");
    if (type == 'c')
        return fits && cprofi_rust_say(r, "'") && cprofi_rust_quoted(r, value, '\'') &&
               cprofi_rust_say(r, "'");
    if (fits) return cprofi_rust_format(r, "%llu", value);
    return cprofi_rust_say(r, "0x") && cprofi_rust_put(r, digits, n);
}

/* ---- v0: the descent */

/* Behind a 'B': the production is elsewhere. In skipped text it need not be looked at. */
static bool cprofi_rust_back(cprofi_rust *r, char production) {
    char text[] = "%?";
    size_t after, tag = r->at - 1;
    uint64_t target;
    bool ok;
    if (!cprofi_rust_number(r, &target) || target >= tag) return false;
    if (r->skip) return true;
    text[1] = production;
    after = r->at;
    r->at = (size_t)target;
    ok = cprofi_rust_say(r, text);
    r->reread += r->at - (size_t)target;
    r->at = after;
    return ok && r->reread <= CPROFI_RUST_REREAD;
}

/* Read, but not shown. */
static bool cprofi_rust_skip(cprofi_rust *r) {
    uint64_t number;
    bool ok, outer = r->skip;
    r->skip = true;
    ok = cprofi_rust_tagged(r, 's', &number) && cprofi_rust_say(r, "%p");
    r->skip = outer;
    return ok;
}

/* `unsafe` and the ABI of a function pointer. */
static bool cprofi_rust_qualifiers(cprofi_rust *r) {
    cprofi_rust_identifier abi = {"C", 1, false};
    bool ok = !cprofi_rust_eat(r, 'U') || cprofi_rust_say(r, "unsafe ");
    if (!ok || !cprofi_rust_eat(r, 'K')) return ok;
    ok = (cprofi_rust_eat(r, 'C') || cprofi_rust_read(r, &abi)) && abi.size && !abi.punycode &&
         cprofi_rust_say(r, "extern \"");
    for (size_t i = 0; ok && i < abi.size; i++)
        ok = cprofi_rust_put(r, abi.text[i] == '_' ? "-" : abi.text + i, 1);
    return ok && cprofi_rust_say(r, "\" ");
}

/* r->open: arguments that want a '>' are its end; more may come before that. */
static bool cprofi_rust_trait(cprofi_rust *r) {
    bool open, ok;
    if (cprofi_rust_eat(r, 'B')) return cprofi_rust_back(r, 'o');
    open = cprofi_rust_eat(r, 'I');
    ok = cprofi_rust_say(r, open ? "%p<%*a" : "%p");
    r->open = open;
    return ok;
}

static bool cprofi_rust_bound(cprofi_rust *r) {
    cprofi_rust_identifier id;
    bool open, ok = cprofi_rust_trait(r);
    for (open = r->open; ok && cprofi_rust_eat(r, 'p'); open = true)
        ok = cprofi_rust_say(r, open ? ", " : "<") && cprofi_rust_read(r, &id) &&
             cprofi_rust_show(r, &id) &&
             cprofi_rust_say(r, cprofi_rust_eat(r, 'K') ? " = %k" : " = %t");
    return ok && cprofi_rust_say(r, open ? ">" : "");
}

/* Letter of the production, tag, template.
       p path in a type; v in an expression, where arguments need "::", else as p
       t type, which may be a p; w pattern of a type
       c constant in an expression; e inside of an enum or struct */
static const char *const cprofi_rust_grammar[] = {
    "vI%v::<%*a>", "pC%n", "pM%i<%t>", "pX%i<%t as %p>", "pY<%t as %p>", "pI%p<%*a>",
    "tA[%t; %c]", "tS[%t]", "tT(%*t,)", "tR&%l%t", "tQ&%lmut %t", "tP*const %t", "tO*mut %t",
    "tF%g%ufn(%*t)%r", "tD%d%m", "tW%t is %w", "tw#[splat] %t", "tai8", "tbbool", "tcchar", "tdf64",
    "testr", "tff32", "thu8", "tiisize", "tjusize", "tli32", "tmu32", "tni128", "tou128", "tp_",
    "tsi16", "ttu16", "tu()", "tv...", "txi64", "tyu64", "tz!", "wR%k..=%k", "wO%*w", "wN!null",
    "cp_", "ce*%s", "cR&%c", "cQ&mut %c", "cA[%*c]", "cT(%*c,)", "cV%v%e", "eU", "eT(%*c)",
    "eS { %*f }"};

static bool cprofi_rust_production(cprofi_rust *r, char letter) {
    const char *next = r->name + r->at;
    uint64_t index;
    char tag, space;
    switch (letter) { /* the others begin with a tag */
    case 'b': return cprofi_rust_bound(r);
    case 'd': return cprofi_rust_say(r, "dyn %g%*b");
    case 'f': return cprofi_rust_say(r, "%n: %c"); /* of a struct */
    case 'g': return cprofi_rust_binder(r);
    case 'i': return cprofi_rust_skip(r); /* where an impl is */
    case 'l': return cprofi_rust_lives(r, "", " ");
    case 'm': return *next == 'L' && cprofi_rust_lives(r, " + ", "");
    case 'n': return cprofi_rust_name(r);
    case 'o': return cprofi_rust_trait(r);
    case 'r': return cprofi_rust_eat(r, 'u') || cprofi_rust_say(r, " -> %t");
    case 's': return cprofi_rust_string(r);
    case 'u': return cprofi_rust_qualifiers(r);
    case 'a': /* generic argument */
        if (cprofi_rust_eat(r, 'L'))
            return cprofi_rust_number(r, &index) && cprofi_rust_lifetime(r, index);
        letter = cprofi_rust_eat(r, 'K') ? 'k' : 't';
    }
    next = r->name + r->at;
    if (letter == 'k' && *next != 'B') { /* constant as an argument: braces unless it is simple */
        if (*next && strchr("eRQATV", *next) && (*next != 'R' || next[1] != 'e'))
            return cprofi_rust_say(r, "{%c}");
        letter = 'c';
    }
    tag = cprofi_rust_next(r);
    if (tag == 'B' && strchr("pvtck", letter)) return cprofi_rust_back(r, letter);
    if (tag == 'N' && strchr("pvt", letter)) {
        space = cprofi_rust_next(r);
        return cprofi_rust_say(r, letter == 'v' ? "%v" : "%p") && cprofi_rust_segment(r, space);
    }
    if (letter == 'c' && tag && strchr("htmyojaslxnibc", tag)) return cprofi_rust_leaf(r, tag);
    if (letter == 'c' && tag == 'R' && cprofi_rust_eat(r, 'e')) return cprofi_rust_string(r);
    for (size_t i = 0; i < CPROFI_COUNT(cprofi_rust_grammar); i++) {
        const char *rule = cprofi_rust_grammar[i];
        if (rule[1] == tag && (rule[0] == letter || (rule[0] == 'p' && strchr("tv", letter))))
            return cprofi_rust_say(r, rule + 2);
    }
    return false;
}

/* Every cycle of the descent comes through here, and here its depth is bounded. */
static bool cprofi_rust_say(cprofi_rust *r, const char *s) {
    uint64_t outer = r->lifetimes;
    bool ok = ++r->depth <= CPROFI_RUST_DEPTH;
    for (; ok && *s; s++) {
        size_t n = 0;
        if (*s != '%') {
            ok = cprofi_rust_put(r, s, 1);
        } else if (*++s != '*') {
            ok = cprofi_rust_production(r, *s);
        } else {
            const char *between = *++s == 'b' ? " + " : *s == 'w' ? " | " : ", ";
            for (; ok && !cprofi_rust_eat(r, 'E'); n++)
                ok = cprofi_rust_say(r, n ? between : "") && cprofi_rust_production(r, *s);
            if (s[1] == ',' && n != 1) s++;
        }
    }
    r->depth--;
    r->lifetimes = outer;
    return ok;
}

/* ---- both */

/* The name to show for a Rust symbol. Before Z or R may be one underscore, none (dbghelp takes it
   away) or two (Mach-O). False: not such a symbol, or damaged, or it does not fit. */
static bool cprofi_rust_demangle(const char *name, char *out, size_t size) {
    cprofi_rust r;
    size_t underscores = strspn(name, "_");
    const char *rest = name + underscores;
    bool ok, v0 = *rest == 'R';
    if (size) out[0] = 0;
    if (!size || underscores > 2 || (!v0 && (rest[0] != 'Z' || rest[1] != 'N'))) return false;
    /* A crate and nothing in it is no code, but RC4_init is a C function. */
    if (v0 && !underscores && rest[1] == 'C') return false;
    memset(&r, 0, sizeof r);
    r.name = rest + (v0 ? 1 : 2);
    r.end = v0 ? strcspn(r.name, ".$@") : strlen(r.name);
    r.out = out;
    r.size = size;
    for (size_t i = 0; r.name[i]; i++)
        if (r.name[i] <= ' ' || r.name[i] > '~') return false;
    ok = v0 ? cprofi_rust_say(&r, "%v") : cprofi_rust_legacy(&r);
    /* The crate it was instantiated in. */
    if (ok && v0 && r.name[r.at] >= 'A' && r.name[r.at] <= 'Z') ok = cprofi_rust_skip(&r);
    ok = ok && r.used && strchr(".$@", r.name[r.at]); /* or the 0 at the end */
    out[ok ? r.used : 0] = 0;
    return ok;
}

/* ---------------------------------------------------------------------------------------------- */
/* >>symbols: names for addresses

   The problem: addresses of many images, and of code that is in none. The idea: one image at a
   time: find its file, make sure that it is the one that was loaded, ask its symbol tables and its
   DWARF for all the addresses at once, take the better of two names, make it readable, and keep the
   strings until all is written.

   The invariant: every address gets a name that is never NULL, "[module+0x1234]" when nothing
   better is known; the number is the address in the file, which is what addr2line wants. A file
   that is not the one loaded (rebuilt while the program ran) is not used. Why names, inlined
   functions or lines are missing is counted, and told at the end. */

/* ---- code made at run time ---------------------------------------------------------------------

   JIT compilers tell perf where they put code by appending to /tmp/perf-PID.map lines of
   "START SIZE name", numbers in hexadecimal ("jit-interface.txt" of the kernel's perf). The file is
   appended to while we read, and the same memory may be used again and again: the last line that
   covers an address counts. So the lines are read from the last to the first, and an address that
   has a name is not looked at again: O(l log n + n) for l lines and n addresses.

   The file is read whole, beyond 1 GB not at all. A last line without its line feed is still being
   written and ignored; names are cut at 4096 bytes; other lines are skipped. Code that was moved or
   freed without a word keeps its old name. */

enum { CPROFI_JIT_NAME_MAX = 4096, CPROFI_JIT_MAP_MAX = 1 << 30 };

/* Reads a hexadecimal number and the blanks behind it; *at moves past both. */
static bool cprofi_jit_number(const char **at, uint64_t *value) {
    char *end;
    if (strspn(*at, "0123456789abcdefABCDEF") == 0) return false; /* no sign, no blank */
    errno = 0;
    *value = strtoull(*at, &end, 16);
    if (errno || (*end != ' ' && *end != '\t')) return false;
    *at = end + strspn(end, " \t");
    return true;
}

static const char *cprofi_jit_name(const char *name, cprofi_text *text) {
    size_t size = strlen(name);
    if (size > CPROFI_JIT_NAME_MAX) /* not in the middle of a character */
        for (size = CPROFI_JIT_NAME_MAX; size && (name[size] & 0xc0) == 0x80;) size--;
    return cprofi_text_keep(text, name, size);
}

/* Names for n addresses, ascending and unique; NULL where no line covers one. False only when out
   of memory. */
static bool cprofi_jit_lookup(const cprofi_source *source, const uint64_t *addresses, size_t n,
                              const char **names, cprofi_text *text) {
    size_t size = source->size <= CPROFI_JIT_MAP_MAX ? (size_t)source->size : 0;
    char *map = (char *)malloc(size + 1);
    size_t *next = (size_t *)malloc((n + 1) * sizeof *next), line;
    bool ok = map && next;
    for (size_t i = 0; ok && i <= n; i++) next[i] = i;
    for (size_t i = 0; i < n; i++) names[i] = NULL;
    if (!ok || !cprofi_source_read(source, 0, map, size)) size = 0;
    while (size && map[size - 1] != '\n') size--;
    for (; ok && size; size = line) {
        const char *at, *name = NULL;
        uint64_t start, bytes;
        map[line = size - 1] = 0;
        if (line && map[line - 1] == '\r') map[line - 1] = 0;
        while (line && map[line - 1] != '\n') line--;
        at = map + line;
        if (!cprofi_jit_number(&at, &start) || !cprofi_jit_number(&at, &bytes) || !*at) continue;
        for (size_t i = cprofi_unanswered(next, cprofi_search(addresses, 8, 0, n, start));
             ok && i < n && addresses[i] - start < bytes; i = cprofi_unanswered(next, i)) {
            if (!name) name = cprofi_jit_name(at, text);
            names[i] = name;
            next[i] = i + 1;
            ok = name != NULL;
        }
    }
    free(map);
    free(next);
    return ok;
}

/* The last part of a path, of any system. */
static const char *cprofi_file_name(const char *path) {
    const char *name = path;
    for (; *path; path++)
        if (*path == '/' || *path == '\\') name = path + 1;
    return name;
}

/* ---- what each system implements ---- */

typedef char *(*cprofi_demangle_fn)(const char *, char *, size_t *, int *);

/* __cxa_demangle (Itanium C++ ABI 3.4) if the process has one; *library goes to _close. */
static cprofi_demangle_fn cprofi_demangler_open(void **library);
static void cprofi_demangler_close(void *library);
/* The source of a module that is read in memory: its `image` is not empty. */
static cprofi_source cprofi_os_image_source(const cprofi_module *m);
/* The files a module may be read from, best first; how many there are. */
static size_t cprofi_os_image_paths(const cprofi_module *m, const char *paths[2]);
/* Opens the list of code made at run time that is meant for Linux perf. */
static bool cprofi_os_jit_map(cprofi_source *source);
/* Where the process has an exported function, 0 if nowhere. */
static uintptr_t cprofi_os_function(const char *name);

enum { CPROFI_NAME_MAX = 16384, CPROFI_MANGLED_MAX = 4096, CPROFI_SHOWN = 4096 };

/* One frame of the source at an address. */
typedef struct {
    const char *function;      /* never NULL */
    const char *file;          /* NULL: unknown */
    uint32_t line, start_line; /* where it is, and where its function begins; 0: unknown */
    bool inlined;              /* into the next */
    const char *label;         /* the writers' affair, */
    uint32_t number;           /* and this too */
} cprofi_site;

/* What is at an address: the innermost inlined function first, the function that holds the code
   last. */
typedef struct {
    cprofi_site *sites;
    uint32_t count; /* at least 1 */
} cprofi_place;

/* Why names, inlined functions or lines of a module are missing; a remark tells it. */
enum {
    CPROFI_REMARK_REPLACED,
    CPROFI_REMARK_MISSING,
    CPROFI_REMARK_NO_DEBUG,
    CPROFI_REMARK_STALE,
    CPROFI_REMARK_COMPRESSED,
    CPROFI_REMARK_SPLIT,
    CPROFI_REMARK_SUPPLEMENT,
    CPROFI_REMARK_DAMAGED,
    CPROFI_REMARKS
};

static const char *const cprofi_remark_texts[CPROFI_REMARKS] = {
    "no names: the file is another one now",
    "no names: the file cannot be read",
    "no inlined functions and lines: it has no debug information (compile with -g)",
    "no inlined functions and lines: its debug file belongs to another build",
    "no inlined functions and lines: its debug sections are compressed, and not by zlib",
    "no inlined functions and lines: they are in .dwo files (split DWARF), which are not read",
    "some inlined functions are missing: they are in a supplementary (dwz) file, which is not read",
    "some inlined functions and lines are missing: the debug information is damaged"};

typedef struct {
    uint32_t modules[CPROFI_REMARKS]; /* how many it is true of */
    char first[CPROFI_REMARKS][64];   /* the name of one of them */
} cprofi_remarks;

/* A readable name, and the one in the file. */
typedef struct {
    const char *shown, *raw;
} cprofi_alias;

typedef struct cprofi_symbols {
    cprofi_text text;
    cprofi_demangle_fn demangle;
    void *demangler; /* the library it is in, if that had to be opened */
    cprofi_debug_places debug_places;
    void (*dbghelp_lock)(bool lock);
    bool raw; /* names stay as they are in the file: to compare them with others' */
    cprofi_remarks remarks;
    cprofi_alias shown[CPROFI_SHOWN]; /* by hash of `raw` */
    bool keep_raw; /* the raw names of all readable ones are kept, for cprofi_symbols_raw */
    cprofi_alias *aliases;
    size_t alias_count, alias_capacity;
} cprofi_symbols;

/* What the system's own reader of debug information says (Windows: DbgHelp, of PDBs) of those of n
   addresses that cprofi_dwarf_lookup left open: answers as that does, and takes away the names that
   it knows better. False only when out of memory. */
static bool cprofi_os_lookup(cprofi_symbols *s, const cprofi_module *m, const uintptr_t *pcs,
                             size_t n, const char **names, cprofi_dwarf_want *wants,
                             cprofi_dwarf_answer *answer);

static bool cprofi_symbols_init(cprofi_symbols *s, const cprof_desc *desc) {
    memset(s, 0, sizeof *s);
    if (desc) s->debug_places.directories = desc->debug_dir;
    if (desc) s->dbghelp_lock = desc->dbghelp_lock;
    s->demangle = cprofi_demangler_open(&s->demangler);
    return true;
}

static void cprofi_symbols_free(cprofi_symbols *s) {
    cprofi_text_free(&s->text);
    cprofi_demangler_close(s->demangler);
    free(s->aliases);
    memset(s, 0, sizeof *s);
}

static void cprofi_symbols_remark(cprofi_symbols *s, const cprofi_module *m, int remark) {
    if (!s->remarks.modules[remark]++)
        snprintf(s->remarks.first[remark], sizeof s->remarks.first[remark], "%s", m->name);
}

/* What is missing of a module's debug information. Of programs compiled without it only the main
   one is worth a remark. */
static void cprofi_symbols_result(cprofi_symbols *s, const cprofi_module *m,
                                  cprofi_debug_result result, bool stale) {
    if (result == CPROFI_DEBUG_NONE && stale)
        cprofi_symbols_remark(s, m, CPROFI_REMARK_STALE);
    else if (result == CPROFI_DEBUG_NONE && m->is_main)
        cprofi_symbols_remark(s, m, CPROFI_REMARK_NO_DEBUG);
    else if (result == CPROFI_DEBUG_UNKNOWN_COMPRESSION)
        cprofi_symbols_remark(s, m, CPROFI_REMARK_COMPRESSED);
    else if (result == CPROFI_DEBUG_DAMAGED)
        cprofi_symbols_remark(s, m, CPROFI_REMARK_DAMAGED);
}

static char *cprofi_symbols_copy(cprofi_symbols *s, const char *text) {
    return cprofi_text_keep(&s->text, text, strlen(text));
}

/* Zeroed sites that live as long as the symbols. */
static cprofi_site *cprofi_symbols_sites(cprofi_symbols *s, size_t count) {
    cprofi_site *sites = (cprofi_site *)cprofi_text_room(&s->text, count * sizeof *sites);
    if (sites) memset(sites, 0, count * sizeof *sites);
    return sites;
}

static bool cprofi_symbols_alias(cprofi_symbols *s, const char *shown, const char *raw) {
    cprofi_alias *alias;
    if (s->alias_count == s->alias_capacity) {
        size_t capacity = s->alias_capacity * 2 + 256;
        alias = (cprofi_alias *)realloc(s->aliases, capacity * sizeof *alias);
        if (!alias) return false;
        s->aliases = alias;
        s->alias_capacity = capacity;
    }
    alias = &s->aliases[s->alias_count++];
    alias->shown = shown;
    alias->raw = cprofi_symbols_copy(s, raw);
    return alias->raw != NULL;
}

static int cprofi_compare_aliases(const void *a, const void *b) {
    uintptr_t x = (uintptr_t)((const cprofi_alias *)a)->shown;
    uintptr_t y = (uintptr_t)((const cprofi_alias *)b)->shown;
    return x < y ? -1 : x > y;
}

/* After all is resolved: call once before cprofi_symbols_raw. */
static void cprofi_symbols_aliases_done(cprofi_symbols *s) {
    if (s->alias_count)
        qsort(s->aliases, s->alias_count, sizeof *s->aliases, cprofi_compare_aliases);
}

/* What the file calls a function whose readable name (this very string) is another; NULL: nobody
   knows of another. */
static const char *cprofi_symbols_raw(const cprofi_symbols *s, const char *shown) {
    cprofi_alias key = {shown, NULL};
    const cprofi_alias *alias = NULL;
    if (s->alias_count)
        alias = (const cprofi_alias *)bsearch(&key, s->aliases, s->alias_count, sizeof key,
                                              cprofi_compare_aliases);
    return alias ? alias->raw : NULL;
}

/* The name to show for a raw one, which is changed; NULL: out of memory. */
static const char *cprofi_symbols_show(cprofi_symbols *s, char *raw) {
    const char *name = raw, *kept;
    char *full = NULL, *readable = NULL;
    if (s->raw) return cprofi_symbols_copy(s, raw);
    cprofi_name_cut(raw);
    if ((raw[0] == '_' || raw[0] == 'R' || raw[0] == 'Z') && strlen(raw) <= CPROFI_MANGLED_MAX) {
        readable = (char *)malloc(CPROFI_NAME_MAX);
        if (readable && cprofi_rust_demangle(raw, readable, CPROFI_NAME_MAX)) {
            name = readable;
        } else if (readable && s->demangle && cprofi_name_starts(raw, "_Z")) {
            int status = 0;
            full = s->demangle(raw, NULL, NULL, &status);
            if (full && status == 0 && full[0]) {
                name = full;
                if (strlen(full) < CPROFI_NAME_MAX && cprofi_demangled_trim(full, readable))
                    name = readable;
            }
        }
    }
    kept = cprofi_symbols_copy(s, name);
    if (kept && name != raw && s->keep_raw && !cprofi_symbols_alias(s, kept, raw)) kept = NULL;
    free(readable);
    free(full);
    return kept;
}

/* The same for a raw name that lives as long as the symbols; each is made readable once. */
static const char *cprofi_symbols_shown(cprofi_symbols *s, const char *raw) {
    size_t size = strlen(raw) + 1;
    uint64_t hash = cprofi_hash_bytes(0xcbf29ce484222325u, raw, size - 1);
    size_t at = (size_t)(hash ^ hash >> 32) % CPROFI_SHOWN;
    char *copy;
    if (s->shown[at].raw && strcmp(s->shown[at].raw, raw) == 0) return s->shown[at].shown;
    copy = (char *)malloc(size);
    if (!copy) return NULL;
    memcpy(copy, raw, size);
    s->shown[at].raw = raw;
    s->shown[at].shown = cprofi_symbols_show(s, copy);
    if (!s->shown[at].shown) s->shown[at].raw = NULL;
    free(copy);
    return s->shown[at].shown;
}

/* Whether a file is the one a module was loaded from. With a build id that is certain. Without, the
   first and the last byte of the segments must be where they are in memory, which most changes of
   code do not survive. */
static bool cprofi_symbols_same(const cprofi_elf *elf, const cprofi_module *m) {
    uint64_t lo = UINT64_MAX, hi = 0;
    if (m->build_id_size) {
        uint8_t id[CPROFI_BUILD_ID_MAX];
        uint32_t size = cprofi_elf_build_id(elf, id);
        return size == m->build_id_size && memcmp(id, m->build_id, size) == 0;
    }
    for (size_t i = 0; i < elf->segment_count; i++) {
        cprofi_elf_segment s = cprofi_elf_segment_at(elf, i);
        if (s.type != CPROFI_PT_LOAD) continue;
        if (s.address < lo) lo = s.address;
        if (s.address + s.memory_size > hi) hi = s.address + s.memory_size;
    }
    return m->lo - m->slide == lo && m->hi - m->slide == hi;
}

/* A file open for reading symbols: of one of the formats. */
typedef struct {
    cprofi_source source;
    cprofi_elf elf;     /* elf.source: it is an ELF file */
    cprofi_pe pe;       /* pe.source: a PE file */
    cprofi_macho macho; /* macho.image.size: a Mach-O file */
} cprofi_object;

static void cprofi_object_close(cprofi_object *o) {
    if (o->elf.source) cprofi_elf_close(&o->elf);
    if (o->pe.source) cprofi_pe_close(&o->pe);
    cprofi_macho_close(&o->macho);
    cprofi_source_close(&o->source);
}

/* Opens a Mach-O file if it is, or has in it, the image of a module; or its dSYM. */
static bool cprofi_symbols_macho_open(const cprofi_source *source, const cprofi_module *m,
                                      cprofi_macho *macho) {
    const uint8_t *uuid = m->build_id_size == sizeof macho->uuid ? m->build_id : NULL;
    if (!cprofi_macho_open(source, uuid, macho)) return false;
    if (m->image.size || (uuid ? macho->has_uuid && memcmp(macho->uuid, uuid, 16) == 0
                               : m->lo - m->slide == macho->base && m->hi - m->slide == macho->end))
        return true;
    cprofi_macho_close(macho);
    return false;
}

/* Whether an open source is of the module; then one of the formats is open. */
static bool cprofi_object_is(cprofi_object *o, const cprofi_module *m) {
    memset(&o->elf, 0, sizeof o->elf);
    memset(&o->pe, 0, sizeof o->pe);
    memset(&o->macho, 0, sizeof o->macho);
    if (cprofi_elf_open(&o->source, &o->elf))
        return m->image.size || cprofi_symbols_same(&o->elf, m);
    o->elf.source = NULL;
    if (cprofi_pe_open(&o->source, &o->pe))
        return o->pe.time_date_stamp == m->stamp && o->pe.size_of_image == m->hi - m->lo;
    o->pe.source = NULL;
    return cprofi_symbols_macho_open(&o->source, m, &o->macho);
}

/* Opens the file of a module; false: there is none, or not the one that was loaded. */
static bool cprofi_object_open(cprofi_symbols *s, const cprofi_module *m, cprofi_object *o) {
    const char *paths[2];
    size_t count = m->image.size ? 0 : cprofi_os_image_paths(m, paths);
    bool other = false;
    if (m->image.size) {
        o->source = cprofi_os_image_source(m);
        if (cprofi_object_is(o, m)) return true;
        cprofi_object_close(o);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (!paths[i] || !paths[i][0] || !cprofi_source_open(paths[i], &o->source)) continue;
        if (cprofi_object_is(o, m)) return true;
        cprofi_object_close(o);
        other = true;
    }
    cprofi_symbols_remark(s, m, other ? CPROFI_REMARK_REPLACED : CPROFI_REMARK_MISSING);
    return false;
}

static const char *cprofi_symbols_plt(cprofi_symbols *s, const char *name) {
    size_t length = strlen(name);
    char *text = (char *)cprofi_text_room(&s->text, length + sizeof "@plt");
    if (!text) return NULL;
    memcpy(text, name, length);
    memcpy(text + length, "@plt", sizeof "@plt");
    return text;
}

/* Names from the symbol tables of one open file for those of n addresses that have none yet, and
   for PLT entries. */
static bool cprofi_symbols_read(cprofi_symbols *s, const cprofi_elf *elf, const cprofi_module *m,
                                const uintptr_t *pcs, size_t n, const char **names) {
    cprofi_elf_symtab tables[2];
    cprofi_elf_want *wants = (cprofi_elf_want *)calloc(n, sizeof *wants), *last = NULL;
    char *raw = (char *)malloc(CPROFI_NAME_MAX);
    bool ok = wants && raw;
    for (size_t i = 0; ok && i < n; i++) {
        wants[i].address = pcs[i] - m->slide;
        wants[i].index = (uint32_t)i;
    }
    ok = ok && cprofi_elf_lookup(elf, wants, n, tables);
    for (size_t i = 0; i < n && ok; i++) {
        cprofi_elf_want *want = &wants[i];
        const char **name = &names[want->index];
        if (!want->hit.name || (*name && !want->plt)) continue;
        if (last && last->hit.name == want->hit.name && last->hit.table == want->hit.table &&
            last->plt == want->plt) {
            *name = names[last->index];
        } else if (cprofi_source_string(&tables[want->hit.table].strings, want->hit.name, raw,
                                        CPROFI_NAME_MAX)) {
            *name = cprofi_symbols_show(s, raw);
            if (*name && want->plt) *name = cprofi_symbols_plt(s, *name);
            ok = *name != NULL;
            last = want;
        }
    }
    free(wants);
    free(raw);
    return ok;
}

/* The same from a PE file. */
static bool cprofi_symbols_read_pe(cprofi_symbols *s, const cprofi_pe *pe, const cprofi_module *m,
                                   const uintptr_t *pcs, size_t n, const char **names) {
    cprofi_pe_want *wants = (cprofi_pe_want *)calloc(n, sizeof *wants);
    bool ok = wants != NULL;
    for (size_t i = 0; ok && i < n; i++) {
        wants[i].address = pcs[i] - m->slide + pe->image_base;
        wants[i].index = (uint32_t)i;
    }
    ok = ok && cprofi_pe_lookup(pe, wants, n, &s->text);
    for (size_t i = 0; ok && i < n; i++) {
        if (!wants[i].name) continue;
        names[i] = cprofi_symbols_shown(s, wants[i].name);
        ok = names[i] != NULL;
    }
    free(wants);
    return ok;
}

/* The same from a Mach-O file, for those of the addresses that have no name yet. */
static bool cprofi_symbols_read_macho(cprofi_symbols *s, const cprofi_macho *macho,
                                      const cprofi_module *m, const uintptr_t *pcs, size_t n,
                                      const char **names) {
    cprofi_macho_want *wants = (cprofi_macho_want *)calloc(n, sizeof *wants);
    bool ok = wants != NULL;
    for (size_t i = 0; ok && i < n; i++) {
        wants[i].address = pcs[i] - m->slide;
        wants[i].index = (uint32_t)i;
    }
    ok = ok && cprofi_macho_lookup(macho, wants, n, &s->text);
    for (size_t i = 0; ok && i < n; i++) {
        if (!wants[i].name || names[i]) continue;
        names[i] = cprofi_symbols_shown(s, wants[i].name);
        if (names[i] && wants[i].thunk) names[i] = cprofi_symbols_plt(s, names[i]);
        ok = names[i] != NULL;
    }
    free(wants);
    return ok;
}

/* What the DWARF of a file, separate or not, says of n addresses. `base`: what is to be added to an
   address in the module. The remarks are made here. */
static bool cprofi_symbols_dwarf(cprofi_symbols *s, const cprofi_module *m, const cprofi_debug *d,
                                 uint64_t base, const uintptr_t *pcs, size_t n,
                                 cprofi_dwarf_want *wants, cprofi_dwarf_answer *answer) {
    for (size_t i = 0; i < n; i++) {
        wants[i].address = pcs[i] - m->slide + base;
        wants[i].index = (uint32_t)i;
    }
    answer->plain = !s->demangle && !s->raw;
    if (!cprofi_dwarf_lookup(&d->dwarf, wants, n, &s->text, answer)) return false;
    if (answer->split_units) cprofi_symbols_remark(s, m, CPROFI_REMARK_SPLIT);
    if (answer->supplementary) cprofi_symbols_remark(s, m, CPROFI_REMARK_SUPPLEMENT);
    if (answer->damaged_units) cprofi_symbols_remark(s, m, CPROFI_REMARK_DAMAGED);
    return true;
}

/* Whether the name in the DWARF is better than that in the symbol table. */
static bool cprofi_symbols_prefer(const cprofi_symbols *s, const cprofi_dwarf_frame *f,
                                  const char *name) {
    return f->function && (f->linkage || (!s->raw && cprofi_name_starts(name, "_Z")));
}

/* Places from what was found: names[i] of the functions that hold the code, NULL if unknown, and,
   unless wants is NULL, the source. */
static bool cprofi_symbols_place(cprofi_symbols *s, const cprofi_module *m, const uintptr_t *pcs,
                                 size_t n, const char *const *names,
                                 const cprofi_dwarf_want *wants, const cprofi_dwarf_answer *answer,
                                 cprofi_place *places) {
    cprofi_site *sites = cprofi_symbols_sites(s, n + (wants ? answer->count : 0));
    for (size_t i = 0; sites && i < n; i++) {
        uint32_t count = wants ? wants[i].count : 0;
        const cprofi_dwarf_frame *outer;
        places[i].sites = sites;
        places[i].count = count ? count : 1;
        for (uint32_t k = 0; k < count; k++) {
            const cprofi_dwarf_frame *f = &answer->frames[wants[i].first + k];
            sites[k].function = f->function;
            if (f->function && f->linkage) {
                sites[k].function = cprofi_symbols_shown(s, f->function);
                if (!sites[k].function) return false;
            }
            sites[k].file = f->file;
            sites[k].line = f->line;
            sites[k].start_line = f->start_line;
            sites[k].inlined = k + 1 < count;
            if (!f->function && k + 1 < count) sites[k].function = "[inlined]";
        }
        sites += places[i].count;
        /* Of several functions that the linker merged, the symbol table names any. What DWARF has
           no linkage name for, the symbol table may know better: ns::(anonymous)::f<int>. */
        outer = count ? &answer->frames[wants[i].first + count - 1] : NULL;
        if (names[i] && !(outer && cprofi_symbols_prefer(s, outer, names[i])))
            sites[-1].function = names[i];
        if (!sites[-1].function) {
            char text[512];
            snprintf(text, sizeof text, "[%.440s+0x%llx]", m->name ? m->name : "?",
                     (unsigned long long)(pcs[i] - m->slide));
            sites[-1].function = cprofi_symbols_copy(s, text);
            if (!sites[-1].function) return false;
        }
    }
    return sites != NULL;
}

/* Reads the symbol tables and the DWARF of an ELF file and its separate debug file. */
static bool cprofi_symbols_elf(cprofi_symbols *s, const cprofi_module *m, const cprofi_elf *elf,
                               const uintptr_t *pcs, size_t n, const char **names,
                               cprofi_dwarf_want *wants, cprofi_dwarf_answer *answer) {
    cprofi_debug debug;
    cprofi_debug_result result = cprofi_debug_open(elf, &debug);
    cprofi_source other_source;
    cprofi_elf other;
    bool stale = false, ok = true, separate = false;
    if (m->path && m->path[0] && (result == CPROFI_DEBUG_NONE || !cprofi_elf_has_symbols(elf)))
        separate = cprofi_debug_find(&s->debug_places, m->path, elf, &other_source, &other, &stale);
    if (separate) {
        ok = cprofi_symbols_read(s, &other, m, pcs, n, names);
        if (result == CPROFI_DEBUG_NONE) {
            cprofi_debug_close(&debug);
            result = cprofi_debug_open(&other, &debug);
        }
    }
    ok = ok && cprofi_symbols_read(s, elf, m, pcs, n, names);
    ok = ok && result != CPROFI_DEBUG_NO_MEMORY &&
         cprofi_symbols_dwarf(s, m, &debug, 0, pcs, n, wants, answer);
    if (debug.supplementary && !answer->supplementary && answer->count)
        cprofi_symbols_remark(s, m, CPROFI_REMARK_SUPPLEMENT);
    cprofi_symbols_result(s, m, result, stale);
    cprofi_debug_close(&debug);
    if (separate) {
        cprofi_elf_close(&other);
        cprofi_source_close(&other_source);
    }
    return ok;
}

/* The same of a PE file. */
static bool cprofi_symbols_pe(cprofi_symbols *s, const cprofi_module *m, const cprofi_pe *pe,
                              const uintptr_t *pcs, size_t n, const char **names,
                              cprofi_dwarf_want *wants, cprofi_dwarf_answer *answer) {
    cprofi_debug debug;
    cprofi_debug_result result = cprofi_pe_debug(pe, &debug);
    bool ok = cprofi_symbols_read_pe(s, pe, m, pcs, n, names) &&
              result != CPROFI_DEBUG_NO_MEMORY &&
              cprofi_symbols_dwarf(s, m, &debug, pe->image_base, pcs, n, wants, answer);
    uint8_t guid[16];
    uint32_t age;
    char path[1024];
    /* a program may have both: its own PDB, and the DWARF of a library that was linked in */
    if (ok && cprofi_pe_pdb(pe, guid, &age, path, sizeof path))
        ok = cprofi_os_lookup(s, m, pcs, n, names, wants, answer);
    if (result == CPROFI_DEBUG_NONE && answer->count) result = CPROFI_DEBUG_OK;
    cprofi_symbols_result(s, m, result, false);
    cprofi_debug_close(&debug);
    return ok;
}

/* Looks for the dSYM of a Mach-O image: beside it, then in the user's directories. True: it is
   open, the caller closes `dsym` and then `source`. *stale: there was one, of another build. */
static bool cprofi_symbols_dsym(const cprofi_symbols *s, const cprofi_module *m,
                                cprofi_source *source, cprofi_macho *dsym, bool *stale) {
    const char *at = s->debug_places.directories ? s->debug_places.directories : "", *end;
    const char *file = cprofi_file_name(m->path);
    char path[CPROFI_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s", m->path);
    for (;; at = end) {
        char dsym_path[CPROFI_PATH_MAX];
        if (n > 0 && (size_t)n < sizeof path &&
            cprofi_macho_dsym_path(path, dsym_path, sizeof dsym_path) &&
            cprofi_source_open(dsym_path, source)) {
            if (cprofi_symbols_macho_open(source, m, dsym)) return true;
            cprofi_source_close(source);
            *stale = true;
        }
        at += strspn(at, ":");
        end = at + strcspn(at, ":");
        if (at == end) return false;
        n = snprintf(path, sizeof path, "%.*s/%s", (int)(end - at), at, file);
    }
}

/* The same of a Mach-O file and its dSYM. */
static bool cprofi_symbols_macho(cprofi_symbols *s, const cprofi_module *m,
                                 const cprofi_macho *macho, const uintptr_t *pcs, size_t n,
                                 const char **names, cprofi_dwarf_want *wants,
                                 cprofi_dwarf_answer *answer) {
    cprofi_debug debug;
    cprofi_debug_result result = cprofi_macho_debug(macho, &debug);
    cprofi_source source;
    cprofi_macho dsym;
    bool stale = false, ok = cprofi_symbols_read_macho(s, macho, m, pcs, n, names);
    bool separate = ok && result == CPROFI_DEBUG_NONE && m->path && m->path[0] &&
                    cprofi_symbols_dsym(s, m, &source, &dsym, &stale);
    if (separate) {
        ok = cprofi_symbols_read_macho(s, &dsym, m, pcs, n, names);
        cprofi_debug_close(&debug);
        result = cprofi_macho_debug(&dsym, &debug);
    }
    ok = ok && result != CPROFI_DEBUG_NO_MEMORY &&
         cprofi_symbols_dwarf(s, m, &debug, 0, pcs, n, wants, answer);
    cprofi_symbols_result(s, m, result, stale && !separate);
    cprofi_debug_close(&debug);
    if (separate) {
        cprofi_macho_close(&dsym);
        cprofi_source_close(&source);
    }
    return ok;
}

/* The places of n look-up addresses (run-time addresses, ascending, unique) of a module. They live
   until cprofi_symbols_free. False only when out of memory. */
static bool cprofi_symbols_resolve(cprofi_symbols *s, const cprofi_module *m, const uintptr_t *pcs,
                                   size_t n, cprofi_place *places) {
    cprofi_object object;
    cprofi_dwarf_want *wants = NULL;
    cprofi_dwarf_answer answer;
    const char **names;
    bool ok = true, open;
    if (!n) return true;
    if (n > UINT32_MAX / 2) return false;
    memset(&answer, 0, sizeof answer);
    names = (const char **)calloc(n, sizeof *names);
    wants = (cprofi_dwarf_want *)calloc(n, sizeof *wants);
    open = names && wants && cprofi_object_open(s, m, &object);
    if (open && object.elf.source)
        ok = cprofi_symbols_elf(s, m, &object.elf, pcs, n, names, wants, &answer);
    else if (open && object.macho.image.size)
        ok = cprofi_symbols_macho(s, m, &object.macho, pcs, n, names, wants, &answer);
    else if (open)
        ok = cprofi_symbols_pe(s, m, &object.pe, pcs, n, names, wants, &answer);
    ok = ok && names && wants;
    if (ok)
        ok = cprofi_symbols_place(s, m, pcs, n, names, open ? wants : NULL, &answer, places);
    if (open) cprofi_object_close(&object);
    cprofi_dwarf_answer_free(&answer);
    free(wants);
    free(names);
    return ok;
}

/* Places for n addresses (ascending, unique) that are in no module. */
static bool cprofi_symbols_jit(cprofi_symbols *s, const uint64_t *addresses, size_t n,
                               cprofi_place *places) {
    cprofi_site *sites = cprofi_symbols_sites(s, n);
    const char **names = (const char **)calloc(n + 1, sizeof *names);
    cprofi_source map;
    bool ok = sites && names;
    if (ok && n && cprofi_os_jit_map(&map)) {
        ok = cprofi_jit_lookup(&map, addresses, n, names, &s->text);
        cprofi_source_close(&map);
    }
    for (size_t i = 0; ok && i < n; i++) {
        sites[i].function = names[i] && names[i][0] ? names[i] : "[jit]";
        places[i].sites = &sites[i];
        places[i].count = 1;
    }
    free(names);
    return ok;
}

/* ---------------------------------------------------------------------------------------------- */
/* >>table: the fixed-size stack table

   Counts how much time each (thread, stack) got. All memory is reserved when the session begins,
   so a profile of an hour needs what a profile of a second needs, and sampling never allocates.

       index   [ 0 | 7 | 0 | 3 | ... ]          power of two, at least twice the entries;
                     |                          a number is an entry + 1, zero is free
       entries [ hash, thread, depth, first, weight, count ]    dense, in order of arrival
                                        |
       frames  [ leaf, caller, ..., root | leaf, ... ]          one 64-bit word a frame

   A frame word is a module id (16 bits) over an address (48 bits): an address alone would mean
   different code after a dlclose and dlopen. Words below CPROFI_FRAME_LOWEST name no code, as the
   lowest addresses hold none on any system: they are specials, and the numbers of scopes' names.
   Look-up is open addressing with linear probing; entries are equal only if every frame is equal,
   the hash merely finds them. There is ONE writer, the sampler, under the session's lock; so there
   are no atomics here. When the entries or the frame memory are used up a sample is not added: the
   caller counts its weight as lost. Nothing is evicted, because what was evicted would be a lie by
   omission. An insert costs about 2 ns a frame for hash and compare. */

typedef uint64_t cprofi_frame;

enum {
    CPROFI_FRAME_TRUNCATED = 1, /* the root side of the stack is missing */
    CPROFI_FRAME_SPECIALS = 16, /* the first scope name's */
    CPROFI_FRAME_LOWEST = 65536
};

#define CPROFI_FRAME_ADDRESS_BITS 48
#define CPROFI_FRAME_ADDRESS(frame) \
    ((uintptr_t)((frame) & (((uint64_t)1 << CPROFI_FRAME_ADDRESS_BITS) - 1)))
#define CPROFI_FRAME_MODULE(frame) ((uint32_t)((frame) >> CPROFI_FRAME_ADDRESS_BITS))

typedef struct {
    uint64_t hash;
    uint64_t weight; /* ns before scaling */
    uint64_t count;  /* samples */
    uint64_t first;  /* index of the leaf in `frames` */
    uint32_t thread; /* index of the thread's record */
    uint32_t depth;
} cprofi_entry;

typedef struct {
    cprofi_entry *entries;
    cprofi_frame *frames;
    uint32_t *index;
    uint32_t entry_count, entry_capacity, index_mask;
    uint64_t frame_count, frame_capacity;
    void *memory;
    size_t memory_size;
} cprofi_table;

static bool cprofi_table_init(cprofi_table *t, uint32_t max_stacks, uint32_t max_depth) {
    size_t slots = 4, entries_size, frames_size, index_size;
    uint64_t frame_capacity = (uint64_t)max_stacks * (max_depth + 1);
    memset(t, 0, sizeof *t);
    while (slots < (size_t)max_stacks * 2) slots *= 2;
    index_size = slots * sizeof(uint32_t);
    entries_size = max_stacks * sizeof(cprofi_entry);
    /* on 32 bits this may be more than there can be */
    if (frame_capacity > (SIZE_MAX - index_size - entries_size) / sizeof(cprofi_frame))
        return false;
    frames_size = (size_t)frame_capacity * sizeof(cprofi_frame);
    t->memory_size = index_size + entries_size + frames_size;
    t->memory = cprofi_pages(t->memory_size);
    if (!t->memory) return false;
    t->entries = (cprofi_entry *)t->memory;
    t->frames = (cprofi_frame *)(void *)((char *)t->memory + entries_size);
    t->index = (uint32_t *)(void *)((char *)t->memory + entries_size + frames_size);
    t->entry_capacity = max_stacks;
    t->frame_capacity = frame_capacity;
    t->index_mask = (uint32_t)(slots - 1);
    return true;
}

static void cprofi_table_free(cprofi_table *t) {
    cprofi_pages_free(t->memory, t->memory_size);
    memset(t, 0, sizeof *t);
}

static void cprofi_table_clear(cprofi_table *t) {
    memset(t->index, 0, ((size_t)t->index_mask + 1) * sizeof *t->index);
    t->entry_count = 0;
    t->frame_count = 0;
}

static uint64_t cprofi_table_hash(uint32_t thread, const cprofi_frame *frames, uint32_t depth) {
    uint64_t h = 0x9E3779B97F4A7C15u * (thread + 1u);
    for (uint32_t i = 0; i < depth; i++) {
        h = (h ^ frames[i]) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    return h;
}

/* Adds one sample. Returns the entry's index, or UINT32_MAX when the table is full. */
static uint32_t cprofi_table_add(cprofi_table *t, uint32_t thread, const cprofi_frame *frames,
                                 uint32_t depth, uint64_t weight) {
    uint64_t hash = cprofi_table_hash(thread, frames, depth);
    uint32_t at = (uint32_t)hash & t->index_mask;
    cprofi_entry *e;
    for (; t->index[at]; at = (at + 1) & t->index_mask) {
        e = &t->entries[t->index[at] - 1];
        if (e->hash == hash && e->thread == thread && e->depth == depth &&
            memcmp(t->frames + e->first, frames, depth * sizeof *frames) == 0) {
            e->weight += weight;
            e->count++;
            return t->index[at] - 1;
        }
    }
    if (t->entry_count == t->entry_capacity || depth > t->frame_capacity - t->frame_count)
        return UINT32_MAX;
    e = &t->entries[t->entry_count];
    e->hash = hash;
    e->weight = weight;
    e->count = 1;
    e->first = t->frame_count;
    e->thread = thread;
    e->depth = depth;
    memcpy(t->frames + t->frame_count, frames, depth * sizeof *frames);
    t->frame_count += depth;
    t->index[at] = ++t->entry_count;
    return t->entry_count - 1;
}

/* ---------------------------------------------------------------------------------------------- */
/* >>os: what each system keeps

   Of the process, of a thread, and of a request. The functions that each system implements are
   declared where they are used: in >>modules, >>symbols and >>sampler. */

#ifdef CPROFI_POSIX
/* An output file: written beside its place and moved there when it is complete, so that nobody
   ever finds half a profile, or loses an old one to a full disk. What is not a regular file
   (/dev/stdout, a pipe) is written directly. */
typedef struct {
    int fd;
    char path[4096];
    char temporary[4096 + 32];
} cprofi_file;
#endif

enum { CPROFI_NAME_SIZE = 64 }; /* of a thread */

#ifdef CPROFI_LINUX
enum {
    CPROFI_KEPT_OPEN = 16,        /* threads whose files are kept open */
    CPROFI_STACK_COPY = 64 * 1024, /* bytes copied of a stack that is not unwound in place */
    CPROFI_PUSHED_LOOKS = 8,       /* threads a tick that the sampler may have pushed off */
    CPROFI_DEFAULT_SIGNAL = SIGURG
};

typedef struct {
    pthread_t sampler;
    cprofi_unwinder unwinder;
    int tasks; /* descriptor of /proc/self/task */
    uint64_t links, next_full;
    bool scanned;
    uint32_t kept[CPROFI_KEPT_OPEN]; /* threads whose files are open: index + 1 */
    uint32_t kept_next;
    char listing[8192];
} cprofi_os;

typedef struct {
    int syscall_fd, schedstat_fd; /* descriptors kept open, or -1 */
    bool switches_known;
    uint64_t sleeps, pushes; /* as of the last sample that needed to know */
} cprofi_os_thread;

typedef struct {
    uint32_t prepared; /* the number of the request that schedstat_fd belongs to: the handler may
                          come before that is known, by a signal without a value */
    int schedstat_fd;
    uint64_t delay;    /* ns it had waited for a CPU in its life, when asked */
    uint64_t answered; /* when the handler came */
    uint32_t after_syscall; /* it was stopped right behind a system call instruction */
    uint64_t sleeps, pushes; /* how often it went to sleep, and was taken off a CPU, in its life */
    char schedstat[64];     /* as the handler read it */
    cprofi_regs regs;
    cprofi_view view;
    cprofi_scratch scratch;
} cprofi_os_slot;
#endif /* CPROFI_LINUX */

#ifdef CPROFI_FREEBSD
enum {
    CPROFI_STACK_COPY = 8, /* none is copied */
    CPROFI_DEFAULT_SIGNAL = SIGURG
};

typedef struct {
    pthread_t sampler;
    cprofi_unwinder unwinder;
    struct kinfo_proc *listing; /* the process's threads, as of the last scan */
    size_t listing_size;        /* bytes of room */
    uint32_t listed;
    bool scanned;
} cprofi_os;

typedef struct {
    bool running; /* it was on a CPU, or waited for one, at the last scan */
    bool switches_known;
    uint64_t sleeps, pushes; /* when it last waited for a CPU: see cprofi_os_counts */
} cprofi_os_thread;

typedef struct {
    uint32_t after_syscall; /* it was stopped right behind a system call instruction */
    uint64_t sleeps, pushes; /* how often it has gone to sleep, and been taken off a CPU */
    cprofi_regs regs;
    cprofi_view view;
    cprofi_scratch scratch;
} cprofi_os_slot;
#endif /* CPROFI_FREEBSD */

#ifdef CPROFI_SUSPENDS
/* Tests put here what must not be done, to see that they notice. */
#ifndef CPROFI_TEST_WHILE_SUSPENDED
#define CPROFI_TEST_WHILE_SUSPENDED(tid) ((void)(tid))
#endif

enum { CPROFI_CALLS = 16 }; /* samples in system calls a thread is remembered with */

/* What is known of a thread's system calls: see the end of >>sampler. */
typedef struct {
    uint64_t user;          /* user time in ns when it was found */
    double user_weight;     /* samples outside of system calls since, in ns */
    uint64_t kernel_booked; /* kernel time that is booked */
    uint64_t span;          /* when the span began in which that was */
    struct {
        uint32_t entry; /* of the table */
        float weight;
    } samples[CPROFI_CALLS]; /* some of the samples in system calls since, chosen at random */
    uint32_t count;          /* how many there were */
} cprofi_calls;

typedef struct {
    uint32_t in_call; /* it was stopped in a system call */
} cprofi_os_slot;
#endif

#ifdef CPROFI_MACOS
enum {
    CPROFI_STACK_COPY = 256 * 1024, /* bytes copied of a stack; what is beyond is [truncated] */
    CPROFI_DEFAULT_SIGNAL = 0,
    CPROFI_COMMANDS = 256 * 1024, /* bytes of load commands; an image with more is not read */
    CPROFI_LISTED = 3             /* words for each image in dyld's list */
};

typedef struct {
    pthread_t sampler;
    thread_act_t sampler_port;
    semaphore_t bell;
    uintptr_t images;   /* where dyld's list of images is, */
    uintptr_t *listing; /* room for a copy of it, */
    size_t listing_size;
    uint8_t *commands;  /* and for the load commands of an image */
    uint64_t next_full, next_count;
    uint32_t thread_count; /* as of the last scan */
    bool scanned;
} cprofi_os;

typedef struct {
    thread_act_t port;     /* a right on the thread, to be given back */
    bool running;          /* it was, when its clock was read */
    bool sampler;          /* of another copy of this code: must not be stopped */
    uint64_t user, kernel; /* what that said, in ns */
    cprofi_calls calls;
} cprofi_os_thread;
#endif /* CPROFI_MACOS */

#ifdef CPROFI_WINDOWS
enum {
    CPROFI_STACK_COPY = 256 * 1024, /* bytes copied of a stack; what is beyond is [truncated] */
    CPROFI_DEFAULT_SIGNAL = 0,
    CPROFI_CODE_BEFORE = 8, CPROFI_CODE = 64, /* bytes copied around a thread's pc */
    CPROFI_CALL_SIZE = 24, /* bytes of ntdll's functions that only enter the kernel */
    CPROFI_PATH = 1024
};

/* An image that was loaded or (without tables) unloaded, as the loader told it. */
typedef struct cprofi_news cprofi_news;
struct cprofi_news {
    cprofi_news *next;
    uintptr_t base;
    size_t size;
    uint64_t identity;
    uint32_t stamp;
    uint32_t build_id_size;
    uint8_t build_id[CPROFI_BUILD_ID_MAX];
    cprofi_tables *tables;
    char path[CPROFI_PATH * 3];
};

/* Functions that not every Windows has, or that are in no import library. The clocks are here for
   tests to replace them. */
typedef struct {
    BOOL(WINAPI *cycles)(HANDLE thread, PULONG64 cycles);
    BOOL(WINAPI *process_cycles)(HANDLE process, PULONG64 cycles);
    BOOL(WINAPI *times)(HANDLE thread, FILETIME *, FILETIME *, FILETIME *kernel, FILETIME *user);
    LONG(NTAPI *next_thread)(HANDLE process, HANDLE thread, ACCESS_MASK, ULONG, ULONG, HANDLE *);
    LONG(NTAPI *query_thread)(HANDLE thread, int kind, void *to, ULONG size, ULONG *got);
    void(NTAPI *exit_lock)(void); /* of the process's environment; who ends the process takes it */
    void(NTAPI *exit_unlock)(void);
    BOOLEAN(NTAPI *ending)(void); /* the process is, and other threads have been ended */
    LONG(NTAPI *thread_end)(HANDLE thread, LONG status);
    LONG(NTAPI *notify)(ULONG flags, void *function, void *user, void **cookie);
    LONG(NTAPI *notify_no_more)(void *cookie);
    HRESULT(WINAPI *get_name)(HANDLE thread, WCHAR **name);
    HRESULT(WINAPI *set_name)(HANDLE thread, const WCHAR *name);
} cprofi_windows_api;

typedef struct {
    cprofi_windows_api api;
    HANDLE sampler, bell, ready, over, timer;
    char program[CPROFI_NAME_SIZE]; /* its name, which threads without one have */
    HMODULE timer_library; /* winmm.dll, while the system's timer is set to 1 ms */
    void *cookie;          /* of the loader's notification */
    cprofi_news *news;     /* the newest first */
    CONTEXT *context;
    bool fine;           /* threads' cycles are counted; else only times in coarse steps */
    double ns_per_cycle; /* of a thread's cycle count */
    uint64_t next_full, next_tail;
    uint32_t last; /* the thread listed last: index + 1 */
    bool scanned;
    bool state_known; /* the system tells which threads run */
} cprofi_os;

typedef struct {
    HANDLE handle;
    bool ended;
    uint64_t read_tick; /* the look at which its coarse clock was read last */
    bool was_running; /* when last looked at, it was not asleep in a system call */
    cprofi_calls calls;
} cprofi_os_thread;

typedef struct {
    HANDLE handle;
    WCHAR path[CPROFI_PATH * 4], temporary[CPROFI_PATH * 4 + 32];
} cprofi_file;
#endif /* CPROFI_WINDOWS */

/* ---------------------------------------------------------------------------------------------- */
/* >>sampler: who is looked at, when, and what a look weighs

   One thread looks at the process at instants that do not depend on what the process does: every
   period, give or take a quarter. Each thread found on a CPU is asked for its stack; that sample
   stands for half the time since the look before and half the time until the next. Over a profile
   the looks are a fair poll, so the share of the samples that shows a function is the share of the
   time spent in it, also for threads that work in bursts between naps.
   Two ways that look better are wrong. Charging a sample with the CPU time its thread has saved up
   since it was last seen books what one function used on the next one that happens to be met: off
   by 28 to 94% on such threads. Weighing a sample by the time since the last look alone favours
   what runs after a look that came late, and looks come late when the core is contended: off by
   27 to 40% in the ratio of two functions there, where counting both sides is off by 3 to 20.

   What cannot be seen by polling is how much CPU time there was in all; the system counts that. So
   each thread's weights are scaled to the CPU time it was charged:

       cpu of a thread = scale * (weights of its samples + weights of requests never answered)

   This is done for every 64 samples of a thread, because on a core that it has to share the sampler
   meets a thread up to a fifth too rarely (its own waking and sleeping moves the turns): a phase
   with company would look shorter than one without. And it is done once more at the end, for what
   the last samples left over. What the second term gets, like the CPU of threads too short-lived to
   be met, is reported as unsampled. Nothing is hidden, and the sum is true.

   A request lives in a slot: FREE -> ASKED (by the sampler) -> BUSY (by the handler, which won it
   by compare-and-swap) -> DONE -> FREE (by the sampler, when it has drained it). A slot carries a
   sequence number in the same word, so that a signal which comes late, when the sampler has given
   up on it, finds a number that is no longer asked for and does nothing. */

#define CPROFI_DEFAULT_HZ 100
#define CPROFI_DEFAULT_DEPTH 128
#define CPROFI_DEFAULT_STACKS 16384
#define CPROFI_DEFAULT_PERCENT 25

enum {
    CPROFI_MAX_HZ = 10000,
    CPROFI_MAX_DEPTH = 4096,
    CPROFI_MAX_STACKS = 4194304,
    CPROFI_SLOTS = 2048,          /* requests in flight at most */
    CPROFI_THREADS = 65536,       /* threads a session can tell apart */
    CPROFI_TID_SLOTS = 2 * CPROFI_THREADS,
    CPROFI_WINDOW = 64,           /* samples of a thread that are scaled together */
    CPROFI_WINDOW_LEAST = 16,     /* fewer do not make a factor of their own */
    CPROFI_SCOPE_NAMES = 32768,   /* names of scopes that a session can tell apart, */
    CPROFI_SCOPE_BYTES = 1 << 20, /* and the bytes of them all, */
    CPROFI_SCOPE_NAME = 256       /* and of one; what is longer is cut */
};

enum { CPROFI_FREE, CPROFI_ASKED, CPROFI_BUSY, CPROFI_DONE };
#define CPROFI_SLOT_WORD(seq, phase) ((uint32_t)(seq) << 2 | (uint32_t)(phase))
#define CPROFI_SLOT_PHASE(word) ((word) & 3u)

/* A thread that used this much CPU time after it was asked, and did not answer, blocks the signal
   (or is lost in a system call as long): it is not waited for. */
#define CPROFI_PATIENCE_NS 20000000u

typedef struct {
    uint32_t word; /* sequence number and phase */
    /* what the sampler noted when it asked */
    uint32_t thread;   /* index of the record */
    uint32_t running;  /* it was seen on a CPU; 0: it was waiting for one */
    uint64_t weight;
    uint64_t asked_cpu; /* its CPU clock then */
    uint64_t woke;      /* when the sampler woke up for this look */
    uint64_t tick;      /* number of this look */
    /* what the handler found */
    uint32_t depth;
    uint32_t end;            /* a cprofi_end */
    const cprofi_scopes *scopes; /* the thread's, or NULL */
    uint32_t mark_count;
    cprofi_scope_mark marks[CPROFI_SCOPES];
    cprofi_os_slot os;
    uintptr_t frames[1]; /* as many as the session's depth */
} cprofi_slot;

/* A sample that waits for its window to be full. */
typedef struct {
    uint32_t entry; /* of the table; UINT32_MAX: it was full */
    float weight;   /* ns */
} cprofi_weighed;

typedef struct {
    uint32_t tid;
    uint32_t order;      /* mark of the last full scan that saw it */
    int32_t slot;        /* its request in flight, or -1 */
    bool live;
    bool blocked;        /* did not answer at least once */
    cprofi_os_thread os;
    uint64_t cpu;        /* its CPU clock at the last look */
    uint64_t charged;    /* of that, since the look before */
    uint32_t window_count; /* samples in the window, */
    uint64_t window_cpu;   /* its CPU clock when the window began, */
    double window_missed;  /* and ns of requests not answered in it */
    double factor;         /* of the last full window */
    cprofi_weighed window[CPROFI_WINDOW];
    uint64_t span_start; /* its CPU clock when counting began */
    uint64_t spent;      /* CPU time counted in spans that are over */
    uint64_t hit;        /* ns of samples, before scaling */
    uint64_t overflow;   /* part of `hit` that found the table full */
    uint64_t missed;     /* ns of requests never answered */
    uint64_t waiting;    /* ns it was on a CPU while its request was in flight */
    uint64_t samples;
    uint32_t last_entry; /* wall clock: that of its last sample in this span, + 1; 0: none */
    bool rests;          /* it was asleep then, and is as long as its CPU clock */
    uint64_t rest_cpu;   /* has not moved from here */
    const cprofi_scopes *scopes; /* NULL: it never opened one */
    char name[CPROFI_NAME_SIZE];
} cprofi_thread;

/* A name of a scope and where it was opened. Number 0: there was no room. */
typedef struct {
    const char *key;   /* the program's own string, */
    cprofi_frame pc;
    uint32_t text;     /* and the copy of it */
} cprofi_scope_name;

typedef enum { CPROFI_IDLE, CPROFI_RUNNING, CPROFI_STOPPING } cprofi_phase;

/* Everything a process knows about its profile. On pages of its own that a forked child sees as
   zeroes: the child starts with a clean slate, and no lock of its parent's. */
typedef struct {
    uint32_t lock;
    uint32_t lock_wanted;  /* by so many threads */
    uint32_t lock_sampler; /* 1: the sampler wants it */
    uint32_t lock_turn;    /* 1: the sampler is next, if both want it */
    uint32_t phase;     /* a cprofi_phase; changed under the lock */
    uint32_t paused;
    uint32_t disabled;  /* CPROF_ENABLE=0: start and stop do nothing */
    uint32_t stopper;   /* the thread that stops it */
    uint32_t bell;      /* the sampler sleeps on this word */
    uint32_t ready;     /* not 0 when the sampler's first scan is done */
    int32_t pid;
    uint32_t sampler_tid;
    cprof_desc desc; /* every field filled in */
    char output[4096];
    char debug_dir[4096];
    char thread_patterns[1024], cut_above[1024];
    char written[4096];     /* the file last written, its path expanded */
    cprofi_remarks remarks; /* of the last write */
    const char *culprit; /* the field or variable that start refused */
    uint64_t period;
    uint64_t random;

    void *memory; /* of all the arrays below but the slots */
    size_t memory_size;
    cprofi_table table;
    cprofi_modules modules;

    cprofi_thread *threads;
    uint32_t thread_count;
    uint32_t *live;      /* indices of the live ones */
    uint32_t live_count;
    bool ended;          /* a thread was found to have, since the system last cleared this */
    uint32_t *candidates;
    uint32_t *spare;     /* indices of records that can be used again */
    uint32_t spare_count;
    uint64_t threads_seen;

    char *slots;         /* never freed while the process lives: a late signal may look there */
    size_t slot_size, slots_depth;
    uint32_t slot_tids[CPROFI_SLOTS]; /* who was asked through each */
    int32_t *slots_free; /* stack of free slots */
    uint32_t slots_free_count;
    int32_t *flying;     /* slots in flight */
    uint32_t flying_count;
    uint32_t *known; /* live threads by id, open addressing: index + 1 */
    uint32_t known_count;
    uintptr_t *stack_copy; /* CPROFI_STACK_COPY bytes */
    cprofi_scopes *scopes_copy; /* of the thread whose stack that is */
    cprofi_frame *keys;  /* frames of the sample being drained */
    cprofi_scope_name *scope_names;
    uint32_t *scope_index; /* of them, open addressing: number + 1 */
    char *scope_text;
    uint32_t scope_count, scope_used;
    uint32_t scopes_version;
    uint64_t scopes_refused; /* samples of scopes for whose names there was no room */

    uint64_t last_tick, deadline, tick_cost;
    uint64_t woke; /* when the sampler last came out of sleep */
    double met;   /* what part of the threads that may run the last look has come to, */
    double looks; /* and the sum of that: looks at each thread */
    uint64_t span_wall, span_process, span_sampler; /* clocks when counting began */
    uint64_t wall, process, sampler_cpu;            /* counted in spans that are over */
    uint64_t limit_from;                            /* `wall` from which max_seconds counts */
    uint64_t began; /* when the profile did, in ns since 1970 */
    uint64_t ticks, late_sum, late_max;
    uint64_t samples, truncated, lost, unanswered, discarded;
    uint64_t suspensions, suspended, suspended_max; /* Windows; times in ns */
    uint64_t given_up;    /* requests whose signals may still be on their way */
    uint32_t signal_gone; /* the host has installed another handler since */
    cprofi_os os;
} cprofi_session;

/* All that is not in the session: it must outlive a fork. */
static struct {
    cprofi_session *session;
    uint32_t sequence;       /* number of the last request, for ever rising */
    uint32_t files;          /* paths with %n that were expanded */
    uint32_t hooked;         /* fork and exit handlers are registered */
} cprofi;

/* What each system implements, in its own section. */
static uint64_t cprofi_os_now(void);
static uint64_t cprofi_os_calendar(void); /* ns since 1970, UTC */
static bool cprofi_os_cpu(cprofi_thread *t, uint64_t *ns);
static uint64_t cprofi_os_cpu_process(void);
static uint64_t cprofi_os_cpu_sampler(cprofi_session *s);
typedef enum { CPROFI_ASLEEP, CPROFI_RUNNABLE, CPROFI_UNKNOWN } cprofi_activity;
static cprofi_activity cprofi_os_activity(cprofi_session *s, cprofi_thread *t, uintptr_t *sp,
                                          uintptr_t *pc);
static bool cprofi_os_ask(cprofi_session *s, cprofi_thread *t, uint32_t slot, uint32_t seq);
static bool cprofi_os_may_run(cprofi_session *s, cprofi_thread *t);
static bool cprofi_os_counts(cprofi_session *s, cprofi_thread *t, const cprofi_slot *q);
static bool cprofi_os_rests(const cprofi_session *s, const cprofi_slot *q);
static void cprofi_os_look(cprofi_session *s, uint32_t count, uint64_t elapsed);
static void cprofi_os_thread_init(cprofi_os_thread *t);
static bool cprofi_os_look_asleep(cprofi_session *s, cprofi_thread *t, uintptr_t sp, uintptr_t pc,
                                  uint64_t weight); /* false: it has to be asked */
static cprof_result cprofi_os_prepare(cprofi_session *s);
static cprof_result cprofi_os_start(cprofi_session *s);
static void cprofi_os_stop(cprofi_session *s);
static void cprofi_os_close(cprofi_session *s);
static int32_t cprofi_os_pid(void);
static void cprofi_os_stderr(const char *text, size_t size);
static bool cprofi_file_open(cprofi_file *f, const char *path);
static bool cprofi_file_write(void *user, const void *data, size_t size);
static bool cprofi_file_close(cprofi_file *f, bool keep);
static void cprofi_os_scan(cprofi_session *s, uint64_t now);
static void cprofi_os_name(cprofi_session *s, cprofi_thread *t);
static void cprofi_os_forget(cprofi_session *s, cprofi_thread *t);
static void cprofi_os_wait(uint32_t *word, uint32_t value, uint64_t deadline);
static void cprofi_os_wake(uint32_t *word);
static void cprofi_os_nap(void);
static void *cprofi_os_session_pages(size_t size);
static bool cprofi_os_hooks(void);
static bool cprofi_os_ending(const cprofi_session *s);
static size_t cprofi_os_text(cprofi_session *s, const char *from, char *to, size_t size);

/* [signal] */
static cprofi_slot *cprofi_slot_at(const cprofi_session *s, uint32_t i) {
    return (cprofi_slot *)(void *)(s->slots + (size_t)i * s->slot_size);
}

/* The sampler and all others take turns when both want the lock: neither somebody who writes or
   asks for stats all the time starves the other, nor a sampler whose looks take all the time. */
static void cprofi_lock_as(cprofi_session *s, uint32_t who, uint32_t *wanting,
                           const uint32_t *others_wanting) {
    cprofi_add32(wanting, 1u);
    while ((cprofi_load32(others_wanting) && cprofi_load32(&s->lock_turn) != who) ||
           !cprofi_cas32(&s->lock, 0, 1))
        cprofi_os_nap();
    cprofi_add32(wanting, UINT32_MAX);
    cprofi_store32(&s->lock_turn, !who);
}

static void cprofi_lock(cprofi_session *s) {
    cprofi_lock_as(s, 0, &s->lock_wanted, &s->lock_sampler);
}

static void cprofi_lock_sampler(cprofi_session *s) {
    cprofi_lock_as(s, 1, &s->lock_sampler, &s->lock_wanted);
}

static void cprofi_unlock(cprofi_session *s) { cprofi_store32(&s->lock, 0u); }

/* xorshift64: the jitter and the order of looks need to be independent of the program, no more */
static uint64_t cprofi_random(cprofi_session *s) {
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return s->random;
}

/* The record of a thread that has ended is for another one, unless it has samples or is about to
   get one. */
static void cprofi_thread_spare(cprofi_session *s, const cprofi_thread *t) {
    if (!t->live && t->slot < 0 && !t->samples && !t->blocked)
        s->spare[s->spare_count++] = (uint32_t)(t - s->threads);
}

/* A record for a thread that was not known. `cpu`: what its clock reads; `since`: what it read when
   counting began (0 for a thread born since). NULL: there is none left; the thread's time is in
   [unsampled]. */
static cprofi_thread *cprofi_thread_add(cprofi_session *s, uint32_t tid, uint64_t cpu,
                                        uint64_t since) {
    uint32_t index;
    cprofi_thread *t;
    if (s->spare_count) index = s->spare[--s->spare_count];
    else if (s->thread_count < CPROFI_THREADS) index = s->thread_count++;
    else return NULL;
    s->threads_seen++;
    t = &s->threads[index];
    memset(t, 0, sizeof *t);
    t->tid = tid;
    t->slot = -1;
    cprofi_os_thread_init(&t->os);
    t->live = true;
    t->scopes = cprofi_scopes_of(tid);
    t->cpu = cpu;
    t->span_start = t->window_cpu = since;
    t->factor = 1;
    s->live[s->live_count++] = index;
    cprofi_os_name(s, t);
    return t;
}

static void cprofi_slot_release(cprofi_session *s, uint32_t flying_at) {
    int32_t slot = s->flying[flying_at];
    cprofi_slot *q = cprofi_slot_at(s, (uint32_t)slot);
    s->threads[q->thread].slot = -1;
    s->threads[q->thread].waiting = 0;
    s->slots_free[s->slots_free_count++] = slot;
    s->flying[flying_at] = s->flying[--s->flying_count];
}

/* The index of a live thread's record + 1; 0: it has none yet. */
static uint32_t cprofi_thread_known(const cprofi_session *s, uint32_t tid) {
    for (uint32_t i = tid % CPROFI_TID_SLOTS; s->known[i]; i = (i + 1) % CPROFI_TID_SLOTS) {
        const cprofi_thread *t = &s->threads[s->known[i] - 1];
        if (t->tid == tid && t->live) return s->known[i];
    }
    return 0;
}

static void cprofi_thread_remember(cprofi_session *s, uint32_t index) {
    uint32_t i = s->threads[index].tid % CPROFI_TID_SLOTS;
    while (s->known[i]) i = (i + 1) % CPROFI_TID_SLOTS;
    s->known[i] = index + 1;
    s->known_count++;
}

/* Before a new thread is remembered: forgets those that have ended when there are too many. */
static void cprofi_threads_make_room(cprofi_session *s) {
    if (s->known_count < CPROFI_TID_SLOTS / 2) return;
    memset(s->known, 0, CPROFI_TID_SLOTS * sizeof *s->known);
    s->known_count = 0;
    for (uint32_t i = 0; i < s->live_count; i++) cprofi_thread_remember(s, s->live[i]);
}

/* A wild address, off a stack that was not what it seemed, must not look like a scope's word. */
static cprofi_frame cprofi_key(const cprofi_session *s, uintptr_t address) {
    uint64_t module = cprofi_modules_find(&s->modules, address);
    if (address < CPROFI_FRAME_LOWEST) address = CPROFI_FRAME_LOWEST;
    return module << CPROFI_FRAME_ADDRESS_BITS | CPROFI_FRAME_ADDRESS(address);
}

/* The word of a scope. Its name is copied when it is first seen: so a program that gives a string
   that does not last gets a wrong name, and no more. */
static cprofi_frame cprofi_scope_key(cprofi_session *s, const cprofi_scope_mark *mark) {
    cprofi_frame pc = cprofi_key(s, mark->pc);
    const uint32_t mask = 2 * CPROFI_SCOPE_NAMES - 1;
    uint32_t at = (uint32_t)(((uint64_t)(uintptr_t)mark->name ^ pc) * 0xD6E8FEB86659FD93u >> 40);
    cprofi_scope_name *name;
    size_t size;
    for (at &= mask; s->scope_index[at]; at = (at + 1) & mask) {
        name = &s->scope_names[s->scope_index[at] - 1];
        if (name->key == mark->name && name->pc == pc)
            return CPROFI_FRAME_SPECIALS + s->scope_index[at] - 1;
    }
    if (s->scope_count == CPROFI_SCOPE_NAMES ||
        s->scope_used > CPROFI_SCOPE_BYTES - CPROFI_SCOPE_NAME) {
        s->scopes_refused++;
        return CPROFI_FRAME_SPECIALS;
    }
    size = cprofi_os_text(s, mark->name, s->scope_text + s->scope_used, CPROFI_SCOPE_NAME);
    name = &s->scope_names[s->scope_count++];
    name->key = mark->name;
    name->pc = pc;
    name->text = s->scope_used;
    s->scope_used += (uint32_t)size;
    s->scope_index[at] = s->scope_count;
    return CPROFI_FRAME_SPECIALS + s->scope_count - 1;
}

static void cprofi_scope_names_init(cprofi_session *s) {
    static const char full[] = "[scope table full]";
    memcpy(s->scope_text, full, sizeof full);
    s->scope_used = sizeof full;
    s->scope_count = 1;
    s->scopes_version = 0;
}

/* Takes in what was loaded. Sleepers' stacks may have been copied when that was not known yet. */
static void cprofi_images_refresh(cprofi_session *s) {
    if (!cprofi_modules_refresh(&s->modules)) return;
    for (uint32_t i = 0; i < s->live_count; i++) s->threads[s->live[i]].rests = false;
}

/* Tells threads' records about scopes that were made since the last look. */
static void cprofi_scopes_refresh(cprofi_session *s) {
    uint32_t version = cprofi_load32(&cprofi_scoped.version);
    if (version == s->scopes_version) return;
    s->scopes_version = version;
    for (uint32_t i = 0; i < cprofi_load32(&cprofi_scoped.count); i++) {
        const cprofi_scopes *scopes = &cprofi_scoped.threads[i];
        uint32_t known = cprofi_thread_known(s, cprofi_load32(&scopes->tid));
        if (!known || s->threads[known - 1].scopes == scopes) continue;
        s->threads[known - 1].scopes = scopes;
        s->threads[known - 1].rests = false; /* its stack may have been copied without them */
    }
}

/* Turns addresses and marks into frame words: leaf first, and what shows that the root side is
   missing. */
static uint32_t cprofi_keys(cprofi_session *s, const cprofi_slot *q) {
    uint32_t n = 0, mark = 0;
    for (uint32_t i = 0; i <= q->depth; i++) {
        for (; mark < q->mark_count && q->marks[mark].frame == i; mark++)
            s->keys[n++] = cprofi_scope_key(s, &q->marks[mark]);
        if (i < q->depth) s->keys[n++] = cprofi_key(s, q->frames[i]);
    }
    if (q->end != CPROFI_END_ROOT) {
        s->keys[n++] = CPROFI_FRAME_TRUNCATED;
        s->truncated++;
    }
    return n;
}

/* Scales the samples of a thread's window to the CPU time it used meanwhile, and books them. */
static void cprofi_window_close(cprofi_session *s, cprofi_thread *t) {
    double sum = t->window_missed;
    for (uint32_t i = 0; i < t->window_count; i++) sum += (double)t->window[i].weight;
    if (t->window_count >= CPROFI_WINDOW_LEAST && sum > 0 && t->cpu > t->window_cpu)
        t->factor = (double)(t->cpu - t->window_cpu) / sum;
    for (uint32_t i = 0; i < t->window_count; i++) {
        uint64_t weight = (uint64_t)((double)t->window[i].weight * t->factor + 0.5);
        t->hit += weight;
        if (t->window[i].entry == UINT32_MAX)
            t->overflow += weight;
        else
            s->table.entries[t->window[i].entry].weight += weight;
    }
    t->missed += (uint64_t)(t->window_missed * t->factor + 0.5);
    t->window_missed = 0;
    t->window_count = 0;
    t->window_cpu = t->cpu;
}

static void cprofi_windows_close(cprofi_session *s) {
    for (uint32_t i = 0; i < s->thread_count; i++) cprofi_window_close(s, &s->threads[i]);
}

/* A thread is often named after it was started: look again after 1, 2, 4, 8, ... samples. */
static void cprofi_sample_counted(cprofi_session *s, cprofi_thread *t) {
    s->samples++;
    t->samples++;
    if ((t->samples & (t->samples - 1)) == 0) cprofi_os_name(s, t);
}

/* Adds a sample to a thread's window. */
static void cprofi_window_add(cprofi_session *s, cprofi_thread *t, uint32_t entry, double weight) {
    if (entry == UINT32_MAX) s->lost++;
    t->window[t->window_count].entry = entry;
    t->window[t->window_count++].weight = (float)weight;
    if (t->window_count == CPROFI_WINDOW || s->desc.clock == CPROF_WALL) cprofi_window_close(s, t);
    cprofi_sample_counted(s, t);
}

/* Books one captured stack. */
static void cprofi_book(cprofi_session *s, cprofi_thread *t, const cprofi_slot *q,
                        uint64_t weight) {
    uint32_t n = cprofi_keys(s, q);
    uint32_t entry = cprofi_table_add(&s->table, (uint32_t)(t - s->threads), s->keys, n, 0);
    cprofi_window_add(s, t, entry, (double)weight);
    t->last_entry = entry + 1;
}

static void cprofi_drain_slot(cprofi_session *s, const cprofi_slot *q) {
    cprofi_thread *t = &s->threads[q->thread];
    uint64_t weight = q->weight;
    if (s->desc.clock == CPROF_WALL)
        weight += t->waiting;
    else if (!cprofi_os_counts(s, t, q)) {
        s->discarded++;
        return;
    }
    cprofi_book(s, t, q, weight);
    t->rests = s->desc.clock == CPROF_WALL && cprofi_os_rests(s, q);
    t->rest_cpu = q->asked_cpu;
}

/* Wall clock: a thread is still where its last sample found it. */
static void cprofi_last_more(cprofi_session *s, cprofi_thread *t, uint64_t ns) {
    s->table.entries[t->last_entry - 1].weight += ns;
    t->hit += ns;
}

/* Takes in what was answered, gives up on what will not be. Returns how many requests are still
   in flight. `last`: give up on all that nobody is answering this moment. */
static uint32_t cprofi_drain(cprofi_session *s, bool last) {
    bool busy = false;
    for (uint32_t i = s->flying_count; i-- > 0;) {
        cprofi_slot *q = cprofi_slot_at(s, (uint32_t)s->flying[i]);
        cprofi_thread *t = &s->threads[q->thread];
        uint32_t word = cprofi_load32(&q->word), phase = CPROFI_SLOT_PHASE(word);
        if (phase == CPROFI_ASKED &&
            (last || !t->live || t->cpu - q->asked_cpu > CPROFI_PATIENCE_NS) &&
            cprofi_cas32(&q->word, word, CPROFI_SLOT_WORD(word >> 2, CPROFI_FREE))) {
            s->given_up++;
            if (t->live && t->cpu - q->asked_cpu > CPROFI_PATIENCE_NS) {
                t->window_missed += (double)(q->weight + t->waiting);
                t->blocked = true;
                s->unanswered++;
                cprofi_os_name(s, t);
            } else if (s->desc.clock == CPROF_WALL && t->last_entry) {
                cprofi_last_more(s, t, q->weight + t->waiting);
            }
            cprofi_slot_release(s, i);
        } else if (phase == CPROFI_DONE || (phase == CPROFI_BUSY && !t->live)) {
            if (phase == CPROFI_DONE) cprofi_drain_slot(s, q);
            cprofi_store32(&q->word, CPROFI_SLOT_WORD(word >> 2, CPROFI_FREE));
            cprofi_slot_release(s, i);
        } else if (cprofi_load32_seq(&q->word) == CPROFI_SLOT_WORD(word >> 2, CPROFI_BUSY)) {
            busy = true;
        }
    }
    if (!busy) cprofi_modules_quiescent(&s->modules);
    return s->flying_count;
}

/* Asks one thread for its stack. */
static void cprofi_ask(cprofi_session *s, cprofi_thread *t, uint64_t weight, bool running) {
    uint32_t slot, seq;
    cprofi_slot *q;
    if (t->slot >= 0) { /* its last request is in flight: a signal would be swallowed */
        t->waiting += weight;
        return;
    }
    if (!s->slots_free_count) {
        t->window_missed += (double)weight;
        return;
    }
    slot = (uint32_t)s->slots_free[--s->slots_free_count];
    q = cprofi_slot_at(s, slot);
    seq = ++cprofi.sequence & 0x3fffffffu;
    cprofi_store32(&s->slot_tids[slot], t->tid);
    q->thread = (uint32_t)(t - s->threads);
    q->running = running;
    q->weight = weight;
    q->asked_cpu = t->cpu;
    q->woke = s->woke;
    q->tick = s->ticks;
    q->scopes = t->scopes && cprofi_load32(&t->scopes->tid) == t->tid ? t->scopes : NULL;
    q->mark_count = 0;
    s->flying[s->flying_count++] = (int32_t)slot;
    t->slot = (int32_t)slot;
    t->waiting = 0;
    cprofi_store32_seq(&q->word, CPROFI_SLOT_WORD(seq, CPROFI_ASKED));
    if (!cprofi_os_ask(s, t, slot, seq)) { /* it has ended */
        cprofi_store32_seq(&q->word, CPROFI_SLOT_WORD(seq, CPROFI_FREE));
        cprofi_slot_release(s, s->flying_count - 1);
    }
}

/* Wall clock: what follows the last look before a span ends is as that look found it. */
static void cprofi_look_last(cprofi_session *s) {
    uint64_t now = cprofi_os_now(), elapsed = now - s->last_tick;
    if (s->desc.clock != CPROF_WALL) return;
    cprofi_drain(s, false);
    for (uint32_t i = 0; i < s->live_count; i++) {
        cprofi_thread *t = &s->threads[s->live[i]];
        if (t->slot >= 0) t->waiting += elapsed;
        else if (t->last_entry) cprofi_last_more(s, t, elapsed);
    }
    s->last_tick = now;
}

static void cprofi_look_wall(cprofi_session *s, uint64_t elapsed) {
    for (uint32_t i = 0; i < s->live_count; i++) {
        cprofi_thread *t = &s->threads[s->live[i]];
        uintptr_t sp = 0, pc = 0;
        uint64_t first, cpu;
        cprofi_activity activity;
        if (t->rests && t->last_entry && t->rest_cpu == t->cpu && t->charged == 0 && t->slot < 0) {
            cprofi_last_more(s, t, elapsed);
            s->table.entries[t->last_entry - 1].count++;
            cprofi_sample_counted(s, t);
            continue;
        }
        t->rests = false;
        /* back to back: if the sampler lost its CPU in between, to a thread that then went to
           sleep, it would wake that */
        if (!cprofi_os_cpu(t, &first) || !cprofi_os_cpu(t, &cpu)) continue;
        activity = cpu != first ? CPROFI_RUNNABLE : cprofi_os_activity(s, t, &sp, &pc);
        t->cpu = cpu;
        if (activity != CPROFI_ASLEEP || !sp || !cprofi_os_look_asleep(s, t, sp, pc, elapsed))
            cprofi_ask(s, t, elapsed, true);
    }
}

/* CPU clock: asks those that are on a CPU. */
static void cprofi_look_cpu(cprofi_session *s, uint64_t elapsed) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->live_count; i++)
        if (cprofi_os_may_run(s, &s->threads[s->live[i]])) s->candidates[count++] = s->live[i];
    for (uint32_t i = count; i > 1; i--) { /* shuffled: nobody is always looked at late */
        uint32_t j = (uint32_t)(cprofi_random(s) % i), swap = s->candidates[j];
        s->candidates[j] = s->candidates[i - 1];
        s->candidates[i - 1] = swap;
    }
    cprofi_os_look(s, count, elapsed);
}

/* Reads every live thread's clock, and drops the threads that have ended. */
static void cprofi_read_clocks(cprofi_session *s) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->live_count; i++) {
        cprofi_thread *t = &s->threads[s->live[i]];
        uint64_t cpu;
        if (cprofi_os_cpu(t, &cpu) && cpu >= t->cpu) {
            t->charged += cpu - t->cpu;
            t->cpu = cpu;
            s->live[kept++] = s->live[i];
        } else { /* ended, or its id was given to a new thread, which the next scan will find */
            t->live = false;
            s->ended = true;
            cprofi_os_forget(s, t);
            cprofi_thread_spare(s, t);
        }
    }
    s->live_count = kept;
}

static void cprofi_pause(cprofi_session *s);

static void cprofi_tick(cprofi_session *s, uint64_t now) {
    uint64_t elapsed = now - s->last_tick;
    if (s->desc.clock == CPROF_CPU) { /* half the time goes to the look before, half to this one */
        elapsed /= 2;
        for (uint32_t i = 0; i < s->flying_count; i++) {
            cprofi_slot *q = cprofi_slot_at(s, (uint32_t)s->flying[i]);
            if (q->tick == s->ticks) q->weight += elapsed;
        }
    }
    s->last_tick = now;
    s->ticks++;
    cprofi_images_refresh(s);
    cprofi_read_clocks(s);
    cprofi_drain(s, false);
    cprofi_os_scan(s, now);
    cprofi_scopes_refresh(s);
    s->met = 1;
    if (s->desc.clock == CPROF_WALL)
        cprofi_look_wall(s, elapsed);
    else
        cprofi_look_cpu(s, elapsed);
    s->looks += s->met;
    for (uint32_t i = 0; i < s->live_count; i++) s->threads[s->live[i]].charged = 0;
}

/* Begins a span in which time counts: at start, resume and reset. */
static void cprofi_span_begin(cprofi_session *s) {
    cprofi_read_clocks(s);
    for (uint32_t i = 0; i < s->live_count; i++) {
        cprofi_thread *t = &s->threads[s->live[i]];
        t->span_start = t->window_cpu = t->cpu;
        t->last_entry = 0;
        t->rests = false;
    }
    s->span_process = cprofi_os_cpu_process();
    s->span_sampler = cprofi_os_cpu_sampler(s);
    s->span_wall = s->last_tick = cprofi_os_now();
    s->deadline = s->last_tick + cprofi_random(s) % s->period;
}

/* Ends it: at pause and stop. */
static void cprofi_span_end(cprofi_session *s) {
    cprofi_look_last(s);
    cprofi_read_clocks(s);
    cprofi_windows_close(s);
    s->process += cprofi_os_cpu_process() - s->span_process;
    s->sampler_cpu += cprofi_os_cpu_sampler(s) - s->span_sampler;
    s->wall += cprofi_os_now() - s->span_wall;
    for (uint32_t i = 0; i < s->live_count; i++) cprofi_os_name(s, &s->threads[s->live[i]]);
    for (uint32_t i = 0; i < s->thread_count; i++) {
        cprofi_thread *t = &s->threads[i];
        t->spent += t->cpu - t->span_start;
        t->span_start = t->cpu;
    }
}

/* `ns`, give or take a quarter. */
static uint64_t cprofi_jittered(cprofi_session *s, uint64_t ns) {
    return ns - ns / 4 + cprofi_random(s) % (ns / 2 + 1);
}

/* When to look next: a period from when the last look was due, but not in the past, and not so soon
   that the sampler would use more than its share of a core, or keep threads suspended for longer
   than that. Both are jittered: threads that nap march in step with looks that are regular. */
static void cprofi_plan(cprofi_session *s, uint64_t cost) {
    uint64_t now = cprofi_os_now(), earliest;
    s->tick_cost = s->tick_cost - s->tick_cost / 16 + cost / 16;
    earliest = s->last_tick +
               cprofi_jittered(s, s->tick_cost * 100 / (uint64_t)s->desc.max_sampler_percent);
    s->deadline += cprofi_jittered(s, (uint64_t)((double)s->period * s->met));
    if (s->deadline < earliest) s->deadline = earliest;
    if (s->deadline < now) s->deadline = now;
}

/* The body of the sampler thread. */
static void cprofi_sampler_run(cprofi_session *s) {
    uint64_t cost_before = cprofi_os_cpu_sampler(s);
    for (;;) {
        uint32_t bell = cprofi_load32(&s->bell);
        uint64_t now, cost, suspended, deadline;
        if (cprofi_load32(&s->phase) != CPROFI_RUNNING) return;
        if (cprofi_load32(&s->paused)) {
            cprofi_os_wait(&s->bell, bell, UINT64_MAX);
            continue;
        }
        cprofi_lock_sampler(s);
        deadline = s->deadline;
        cprofi_unlock(s);
        if (cprofi_os_now() < deadline) {
            cprofi_os_wait(&s->bell, bell, deadline);
            s->woke = cprofi_os_now();
            if (cprofi_load32(&s->bell) != bell) continue;
        }
        cprofi_lock_sampler(s);
        if (cprofi_load32(&s->phase) == CPROFI_RUNNING && !s->paused) {
            now = cprofi_os_now(); /* after the lock: a reset may have moved last_tick */
            if (now > s->deadline) {
                s->late_sum += now - s->deadline;
                if (now - s->deadline > s->late_max) s->late_max = now - s->deadline;
            }
            suspended = s->suspended;
            cprofi_tick(s, now);
            if (s->desc.max_seconds &&
                s->wall - s->limit_from + (now - s->span_wall) >=
                    (uint64_t)s->desc.max_seconds * 1000000000u)
                cprofi_pause(s);
            cost = cprofi_os_cpu_sampler(s);
            cprofi_plan(s, cost - cost_before + (s->suspended - suspended));
            cost_before = cost;
        }
        cprofi_unlock(s);
    }
}

#ifdef CPROFI_SUSPENDS
/* ---- a sample in a system call is worth what? ----

   Who is stopped from outside may be stopped in a system call: asleep, just woken up, or because
   the kernel works for it. What is charged with kernel time tells how much was work; so these
   samples wait until the system says that, and share it. */

/* What these systems implement: a thread's CPU time in user mode and in the kernel, in ns. */
static bool cprofi_os_times(cprofi_session *s, cprofi_thread *t, uint64_t *user, uint64_t *kernel);

/* Kernel time that a thread was charged with goes to the system calls it was met in meanwhile. In
   user mode `user_weight` of samples stand for the user time; so that both are scaled alike, kernel
   time is given the weight that as much user time has. */
static void cprofi_calls_book(cprofi_session *s, cprofi_thread *t) {
    cprofi_calls *c = &t->os.calls;
    uint32_t n = c->count;
    double sum = 0, weight, ratio = 1;
    uint64_t user, kernel;
    if (n > CPROFI_CALLS) n = CPROFI_CALLS;
    if (!cprofi_os_times(s, t, &user, &kernel)) return;
    if (c->span != s->span_wall) { /* the time between spans does not count */
        c->span = s->span_wall;
        c->kernel_booked = kernel;
        c->count = 0;
        return;
    }
    if (!n || kernel <= c->kernel_booked) return;
    if (user > c->user + 100000000u) ratio = c->user_weight / (double)(user - c->user);
    if (!(ratio > 0.1 && ratio < 100)) ratio = 1;
    weight = (double)(kernel - c->kernel_booked) * ratio;
    c->kernel_booked = kernel;
    c->count = 0;
    for (uint32_t i = 0; i < n; i++) sum += (double)c->samples[i].weight;
    for (uint32_t i = 0; i < n && sum > 0; i++) {
        uint32_t entry = c->samples[i].entry;
        if (entry != UINT32_MAX) s->table.entries[entry].count++;
        cprofi_window_add(s, t, entry, weight * (double)c->samples[i].weight / sum);
    }
}

/* Does a sample count? Not in a system call: that one waits until kernel time tells. */
static bool cprofi_calls_count(cprofi_session *s, cprofi_thread *t, const cprofi_slot *q) {
    cprofi_calls *c = &t->os.calls;
    uint32_t n, at;
    if (!q->os.in_call) {
        c->user_weight += (double)q->weight;
        return true;
    }
    cprofi_calls_book(s, t);
    at = c->count++;
    if (at >= CPROFI_CALLS) at = (uint32_t)(cprofi_random(s) % c->count);
    if (at >= CPROFI_CALLS) return false;
    n = cprofi_keys(s, q);
    n = cprofi_table_add(&s->table, q->thread, s->keys, n, 0);
    if (n != UINT32_MAX) s->table.entries[n].count--; /* it is not sure yet */
    c->samples[at].entry = n;
    c->samples[at].weight = (float)q->weight;
    return false;
}
#endif /* CPROFI_SUSPENDS */

/* ---------------------------------------------------------------------------------------------- */
/* >>stats: what it all adds up to */

/* What a thread's weights are multiplied with: see the sampler. */
static double cprofi_thread_scale(const cprofi_session *s, const cprofi_thread *t, uint64_t spent) {
    if (s->desc.clock == CPROF_WALL || t->hit + t->missed == 0) return 1.0;
    return (double)spent / (double)(t->hit + t->missed);
}

/* CPU time counted of a thread, the open span included. */
static uint64_t cprofi_thread_spent(const cprofi_thread *t) {
    return t->spent + (t->cpu - t->span_start);
}

/* CPU time that no sample covers, and the part of it that did not answer. */
static void cprofi_stats_weights(const cprofi_session *s, cprof_stats *out) {
    double weight = 0, missed = 0;
    for (uint32_t i = 0; i < s->thread_count; i++) {
        const cprofi_thread *t = &s->threads[i];
        double scale = cprofi_thread_scale(s, t, cprofi_thread_spent(t));
        weight += (double)t->hit * scale;
        missed += (double)t->missed * scale;
        out->blocked_threads += t->blocked;
    }
    out->weight_ns = (uint64_t)(weight + 0.5);
    out->blocked_ns = (uint64_t)(missed + 0.5);
    if (s->desc.clock == CPROF_WALL)
        out->unsampled_ns = out->blocked_ns;
    else if (out->cpu_ns > out->sampler_cpu_ns + out->weight_ns)
        out->unsampled_ns = out->cpu_ns - out->sampler_cpu_ns - out->weight_ns;
}

static void cprofi_stats_fill(cprofi_session *s, cprof_stats *out) {
    memset(out, 0, sizeof *out);
    if (!s->desc.hz || !s->memory) return;
    out->duration_ns = s->wall;
    out->cpu_ns = s->process;
    out->sampler_cpu_ns = s->sampler_cpu;
    if (cprofi_load32(&s->phase) == CPROFI_RUNNING && !s->paused) { /* the open span */
        cprofi_read_clocks(s);
        out->duration_ns += cprofi_os_now() - s->span_wall;
        out->cpu_ns += cprofi_os_cpu_process() - s->span_process;
        out->sampler_cpu_ns += cprofi_os_cpu_sampler(s) - s->span_sampler;
    }
    cprofi_windows_close(s);
    out->samples = s->samples;
    out->lost = s->lost;
    out->truncated = s->truncated;
    out->unanswered = s->unanswered;
    out->discarded = s->discarded;
    out->threads_seen = s->threads_seen;
    out->unique_stacks = s->table.entry_count;
    out->scopes_unnamed = s->scopes_refused + cprofi_load32(&cprofi_scoped.names_refused);
    for (uint32_t i = 0; i < cprofi_load32(&cprofi_scoped.count); i++)
        out->scopes_excess += cprofi_load32(&cprofi_scoped.threads[i].excess);
    for (int i = 0; i < CPROFI_REMARKS; i++) out->poor_modules += s->remarks.modules[i];
    out->ticks = s->ticks;
    out->late_ns = s->ticks ? s->late_sum / s->ticks : 0;
    out->late_max_ns = s->late_max;
    out->suspensions = s->suspensions;
    out->suspended_ns = s->suspended;
    out->suspended_max_ns = s->suspended_max;
    out->hz = s->desc.hz;
    if (out->duration_ns) out->hz_achieved = s->looks * 1e9 / (double)out->duration_ns;
    cprofi_stats_weights(s, out);
}

/* ---------------------------------------------------------------------------------------------- */
/* >>writers: from the table to a profile

   Under the session's lock the table is copied, a matter of a millisecond; all else works on the
   copy, so that a profile can be written while the sampler goes on. Then every distinct address is
   named once, stacks become lists of names, lists that are equal are added up, and the sums are
   turned into whole sampling periods so that none is lost: each line gets the whole part, and the
   periods left over go to the lines with the largest remainders. Lines that come to zero periods
   are left out; their time is in the others. Lines are sorted, so equal profiles give equal
   files.

   The other formats keep apart what a folded line adds up, the threads of one name and the
   addresses of one function. perf script's text has one event a period: each line's periods are
   dealt out among the stacks it stands for, by the same rule, so that the sums are those of the
   folded file. A pprof file has nanoseconds, and every stack. */

#define CPROFI_LINE_LOST "[lost]"
#define CPROFI_LINE_UNSAMPLED "[unsampled]"

/* A consistent copy of what was sampled. */
typedef struct {
    cprofi_entry *entries;
    cprofi_frame *frames;
    char (*thread_names)[CPROFI_NAME_SIZE];
    double *scale; /* a thread's factor: ns of its clock per ns of weight; -1: it is not wanted */
    cprofi_scope_name *scope_names;
    char *scope_text;
    uint32_t *tids;
    uint32_t entry_count, thread_count, scope_count;
    uint32_t main_module; /* 0: not known yet */
    int32_t pid;
    size_t frame_count;
    uint64_t lost, began, duration; /* samples; ns since 1970; ns */
    double lost_ns, unsampled_ns, period;
    const cprof_desc *desc; /* in a session that lasts */
    const cprofi_modules *modules; /* records are immutable once made */
} cprofi_snapshot;

static void cprofi_snapshot_free(cprofi_snapshot *c) {
    free(c->entries);
    free(c->frames);
    free(c->thread_names);
    free(c->scale);
    free(c->scope_names);
    free(c->scope_text);
    free(c->tids);
}

/* Whether a name matches a pattern of * and ?, which ends at a comma. */
static bool cprofi_pattern_matches(const char *pattern, const char *name) {
    const char *star = NULL, *from = name;
    for (;;) {
        bool over = !*pattern || *pattern == ',';
        if (*pattern == '*') {
            star = ++pattern;
            from = name;
        } else if (*name && !over && (*pattern == '?' || *pattern == *name)) {
            pattern++;
            name++;
        } else if (!*name && over) {
            return true;
        } else if (star && *from) { /* the star takes one more */
            pattern = star;
            name = ++from;
        } else {
            return false;
        }
    }
}

/* Does the desc want this thread to be written? */
static bool cprofi_thread_wanted(const cprofi_session *s, const cprofi_thread *t) {
    const char *p = s->desc.threads;
    bool wanted = true, asked = false, found = false;
    while (p && *p) {
        bool not_this = *p == '!', match = cprofi_pattern_matches(p + not_this, t->name);
        if (not_this && match) wanted = false;
        if (!not_this) {
            asked = true;
            found = found || match;
        }
        p = strchr(p, ',');
        if (p) p++;
    }
    if (asked && !found) wanted = false;
    if (wanted && s->desc.thread_wanted)
        wanted = s->desc.thread_wanted(s->desc.thread_user, t->name, t->tid);
    return wanted;
}

static bool cprofi_snapshot_take(cprofi_session *s, cprofi_snapshot *c) {
    cprof_stats stats;
    memset(c, 0, sizeof *c);
    cprofi_stats_fill(s, &stats);
    c->frame_count = (size_t)s->table.frame_count;
    c->thread_count = s->thread_count;
    c->modules = &s->modules;
    c->period = 1e9 / s->desc.hz;
    c->desc = &s->desc;
    c->unsampled_ns = (double)stats.unsampled_ns;
    c->pid = s->pid;
    c->lost = s->lost;
    c->began = s->began;
    c->duration = stats.duration_ns;
    for (uint32_t id = 1; id < s->modules.count && !c->main_module; id++)
        if (s->modules.records[id].is_main) c->main_module = id;
    c->entries = (cprofi_entry *)malloc((s->table.entry_count + 1u) * sizeof *c->entries);
    c->frames = (cprofi_frame *)malloc((c->frame_count + 1) * sizeof *c->frames);
    c->scale = (double *)malloc((c->thread_count + 1u) * sizeof *c->scale);
    c->thread_names = (char(*)[CPROFI_NAME_SIZE])malloc((c->thread_count + 1u) * CPROFI_NAME_SIZE);
    c->scope_count = s->scope_count;
    c->scope_names = (cprofi_scope_name *)malloc(c->scope_count * sizeof *c->scope_names);
    c->scope_text = (char *)malloc(s->scope_used);
    c->tids = (uint32_t *)malloc((c->thread_count + 1u) * sizeof *c->tids);
    if (!c->entries || !c->frames || !c->scale || !c->thread_names || !c->scope_names ||
        !c->scope_text || !c->tids) {
        cprofi_snapshot_free(c);
        return false;
    }
    memcpy(c->frames, s->table.frames, c->frame_count * sizeof *c->frames);
    memcpy(c->scope_names, s->scope_names, c->scope_count * sizeof *c->scope_names);
    memcpy(c->scope_text, s->scope_text, s->scope_used);
    for (uint32_t i = 0; i < c->thread_count; i++) {
        const cprofi_thread *t = &s->threads[i];
        bool wanted = cprofi_thread_wanted(s, t);
        c->scale[i] = wanted ? cprofi_thread_scale(s, t, cprofi_thread_spent(t)) : -1;
        c->tids[i] = t->tid;
        if (wanted) c->lost_ns += (double)t->overflow * c->scale[i];
        memcpy(c->thread_names[i], t->name, CPROFI_NAME_SIZE);
    }
    for (uint32_t i = 0; i < s->table.entry_count; i++)
        if (c->scale[s->table.entries[i].thread] >= 0)
            c->entries[c->entry_count++] = s->table.entries[i];
    return true;
}

/* ---- names of frames ---- */

typedef struct {
    cprofi_frame *words;  /* distinct, ascending: grouped by module, by address in it */
    cprofi_place *places; /* of each */
    size_t count;
    cprofi_symbols symbols;
} cprofi_names;

static int cprofi_compare_words(const void *a, const void *b) {
    cprofi_frame x = *(const cprofi_frame *)a, y = *(const cprofi_frame *)b;
    return x < y ? -1 : x > y;
}

static void cprofi_names_free(cprofi_names *n) {
    cprofi_symbols_free(&n->symbols);
    free(n->words);
    free(n->places);
}

/* Copies a name, without what the format gives a meaning: ';' and control characters. */
static const char *cprofi_name_clean(cprofi_symbols *symbols, const char *name) {
    const char *bad = name;
    char *copy;
    while (*bad && *bad != ';' && (unsigned char)*bad >= ' ' && *bad != 127) bad++;
    if (!*bad && *name) return name;
    copy = cprofi_symbols_copy(symbols, *name ? name : "[unnamed]");
    for (char *p = copy; p && *p; p++) {
        if (*p == ';') *p = ':';
        if ((unsigned char)*p < ' ' || *p == 127) *p = ' ';
    }
    return copy;
}

/* Names of a C library's functions of which it has several, for different processors: the symbol
   table names only the function that chooses, the process knows what was chosen. */
static const char *cprofi_name_chosen(uintptr_t start) {
    static const char *const names[] = {
        "memcpy", "memmove", "memset",  "memcmp",  "memchr",  "memrchr", "mempcpy", "strlen",
        "strcmp", "strncmp", "strchr",  "strrchr", "strcpy",  "strncpy", "strcat",  "strnlen",
        "strstr", "strspn",  "strcspn", "stpcpy",  "rawmemchr", "wcslen", "wmemset", "strcasecmp"};
    for (size_t i = 0; i < CPROFI_COUNT(names); i++)
        if (cprofi_os_function(names[i]) == start) return names[i];
    return NULL;
}

/* Addresses of a module without a symbol: those of one function get one name, that of its first
   byte, as long as the unwind tables tell where that is. */
static bool cprofi_names_functions(cprofi_names *n, const cprofi_snapshot *c, size_t from,
                                   size_t to) {
    uint32_t id = CPROFI_FRAME_MODULE(n->words[from]);
    const cprofi_module *module = &c->modules->records[id];
    const char *name = NULL;
    uintptr_t last = 0;
    for (size_t i = from; i < to; i++) {
        cprofi_site *site = &n->places[i].sites[n->places[i].count - 1];
        uintptr_t start;
        char text[512];
        if (site->function[0] != '[') continue;
        cprofi_lock(cprofi.session);
        start = cprofi_unwind_function(c->modules, id, CPROFI_FRAME_ADDRESS(n->words[i]));
        cprofi_unlock(cprofi.session);
        if (!start) continue;
        if (start != last) name = cprofi_name_chosen(start);
        if (!name) {
            snprintf(text, sizeof text, "[%.440s+0x%llx]", module->name,
                     (unsigned long long)(start - module->slide));
            name = cprofi_symbols_copy(&n->symbols, text);
        }
        if (!name) return false;
        site->function = name;
        last = start;
    }
    return true;
}

/* Places for the words [from, to), which belong to no module: those that are no code come first. */
static bool cprofi_names_elsewhere(cprofi_names *n, const cprofi_snapshot *c, size_t from,
                                   size_t to) {
    for (; from < to && n->words[from] < CPROFI_FRAME_LOWEST; from++) {
        cprofi_site *site = cprofi_symbols_sites(&n->symbols, 1);
        uint32_t scope = (uint32_t)n->words[from] - CPROFI_FRAME_SPECIALS;
        if (!site) return false;
        site->function = "[truncated]";
        if (n->words[from] >= CPROFI_FRAME_SPECIALS && scope < c->scope_count)
            site->function = c->scope_text + c->scope_names[scope].text;
        n->places[from].sites = site;
        n->places[from].count = 1;
    }
    return cprofi_symbols_jit(&n->symbols, n->words + from, to - from, n->places + from);
}

/* Places for the words [from, to), which belong to one module. */
static bool cprofi_names_module(cprofi_names *n, const cprofi_snapshot *c, size_t from, size_t to) {
    uint32_t id = CPROFI_FRAME_MODULE(n->words[from]);
    uintptr_t *pcs;
    bool ok;
    if (!id) return cprofi_names_elsewhere(n, c, from, to);
    pcs = (uintptr_t *)malloc((to - from) * sizeof *pcs);
    for (size_t i = from; pcs && i < to; i++) pcs[i - from] = CPROFI_FRAME_ADDRESS(n->words[i]);
    ok = pcs && cprofi_symbols_resolve(&n->symbols, &c->modules->records[id], pcs, to - from,
                                       n->places + from) &&
         cprofi_names_functions(n, c, from, to);
    free(pcs);
    return ok;
}

static const cprofi_place *cprofi_names_at(const cprofi_names *n, cprofi_frame word) {
    const cprofi_frame *at = (const cprofi_frame *)bsearch(&word, n->words, n->count,
                                                           sizeof word, cprofi_compare_words);
    return at ? &n->places[at - n->words] : NULL;
}

/* A frame, if it is an unnamed one of the C library. */
static cprofi_site *cprofi_names_libc(cprofi_names *n, cprofi_frame word) {
    static const char unnamed[] = "[libc.so.6+";
    const cprofi_place *p = cprofi_names_at(n, word);
    cprofi_site *site = p ? &p->sites[p->count - 1] : NULL;
    return site && strncmp(site->function, unnamed, sizeof unnamed - 1) == 0 ? site : NULL;
}

/* Every stack of a program begins in two functions of glibc (2.34 and later) that have no dynamic
   symbol, and distributions strip the others. Their place gives them away: the start of a thread
   is __clone3 calling start_thread, that of the program __libc_start_main calling
   __libc_start_call_main. */
static void cprofi_names_roots(cprofi_names *n, const cprofi_snapshot *c) {
    for (uint32_t i = 0; i < c->entry_count; i++) {
        const cprofi_entry *e = &c->entries[i];
        const cprofi_frame *root = c->frames + e->first + e->depth;
        cprofi_site *site;
        bool scopes = false;
        for (uint32_t k = 1; k <= 3 && k <= e->depth; k++)
            scopes = scopes || root[-(int32_t)k] < CPROFI_FRAME_LOWEST;
        if (scopes) continue; /* the same functions are the roots of other stacks */
        if (e->depth >= 2 && (site = cprofi_names_libc(n, root[-1])) != NULL)
            site->function = "__clone3";
        for (int32_t k = 2; k <= 3 && k < (int32_t)e->depth; k++) {
            const cprofi_place *caller = cprofi_names_at(n, root[1 - k]);
            const char *function = caller ? caller->sites[0].function : "";
            site = cprofi_names_libc(n, root[-k]);
            if (!site) continue;
            if (strcmp(function, "__clone3") == 0)
                site->function = "start_thread";
            else if (strcmp(function, "__libc_start_main") == 0)
                site->function = "__libc_start_call_main";
        }
    }
}

/* Whether two names are those of one function: what GCC splits off for code that is rarely run,
   function.cold, belongs to it. */
static bool cprofi_same_function(const char *a, const char *b) {
    size_t i = 0;
    while (a[i] && a[i] == b[i]) i++;
    if (!a[i] && !b[i]) return true;
    if (a[i] && b[i]) return false;
    return strncmp(a + i, ".cold", 5) == 0 || strncmp(b + i, ".cold", 5) == 0;
}

/* What a line of the profile shows for each frame. */
static bool cprofi_names_label(cprofi_names *n, bool lines) {
    for (size_t i = 0; i < n->count; i++) {
        for (uint32_t k = 0; k < n->places[i].count; k++) {
            cprofi_site *site = &n->places[i].sites[k];
            site->label = site->function;
            if (lines && site->file) {
                size_t size = strlen(site->function) + strlen(site->file) + 16;
                char *text = (char *)malloc(size);
                if (!text) return false;
                snprintf(text, size, site->line ? "%s (%s:%lu)" : "%s (%s)", site->function,
                         cprofi_file_name(site->file), (unsigned long)site->line);
                site->label = cprofi_symbols_copy(&n->symbols, text);
                free(text);
            }
            if (site->label) site->label = cprofi_name_clean(&n->symbols, site->label);
            if (!site->label) return false;
        }
    }
    return true;
}

/* Is it one of those in `list`, which are separated by ';'? */
static bool cprofi_name_listed(const char *list, const char *name) {
    size_t size = strlen(name);
    while (list && *list) {
        const char *end = strchr(list, ';');
        size_t part = end ? (size_t)(end - list) : strlen(list);
        if (part == size && memcmp(list, name, size) == 0) return true;
        list = end ? end + 1 : NULL;
    }
    return false;
}

/* Leaves out the frames between the root and the first function of desc.cut_above. */
static void cprofi_names_cut(const cprofi_names *n, const cprofi_snapshot *c) {
    for (uint32_t i = 0; c->desc->cut_above && i < c->entry_count; i++) {
        cprofi_entry *e = &c->entries[i];
        bool found = false;
        for (uint32_t k = e->depth; k > 0 && !found; k--) {
            const cprofi_place *place = cprofi_names_at(n, c->frames[e->first + k - 1]);
            for (uint32_t j = 0; j < place->count && !found; j++)
                found = cprofi_name_listed(c->desc->cut_above, place->sites[j].function);
            if (found) e->depth = k;
        }
    }
}

/* `raw`: cprofi_symbols_raw will be asked. */
static bool cprofi_names_init(cprofi_names *n, const cprofi_snapshot *c, bool raw) {
    size_t all = c->frame_count + c->scope_count;
    bool ok;
    memset(n, 0, sizeof *n);
    if (!cprofi_symbols_init(&n->symbols, c->desc)) return false;
    n->symbols.keep_raw = raw;
    n->words = (cprofi_frame *)malloc((all + 1) * sizeof *n->words);
    n->places = (cprofi_place *)malloc((all + 1) * sizeof *n->places);
    ok = n->words && n->places;
    if (ok) {
        memcpy(n->words, c->frames, c->frame_count * sizeof *n->words);
        for (uint32_t i = 0; i < c->scope_count; i++) /* where scopes were opened is needed too */
            n->words[c->frame_count + i] = c->scope_names[i].pc;
        qsort(n->words, all, sizeof *n->words, cprofi_compare_words);
        for (size_t i = 0; i < all; i++)
            if (!n->count || n->words[i] != n->words[n->count - 1])
                n->words[n->count++] = n->words[i];
    }
    for (size_t from = 0, to; ok && from < n->count; from = to) {
        uint32_t id = CPROFI_FRAME_MODULE(n->words[from]);
        for (to = from; to < n->count && CPROFI_FRAME_MODULE(n->words[to]) == id;) to++;
        ok = cprofi_names_module(n, c, from, to);
    }
    if (ok) cprofi_names_roots(n, c);
    if (ok) cprofi_names_cut(n, c);
    ok = ok && cprofi_names_label(n, c->desc->lines);
    if (!ok) cprofi_names_free(n);
    return ok;
}

/* ---- lines ---- */

/* A stack in names, root first: the thread's, then the functions'. */
typedef struct {
    const char **names;
    uint32_t depth;
    uint32_t entry; /* one of those it stands for; UINT32_MAX: none */
    uint32_t tid;   /* of its thread; 0: none */
    double periods; /* first exact, then whole */
} cprofi_line;

typedef struct {
    cprofi_line *lines;
    const char **names; /* memory of all lines' names */
    size_t count;
} cprofi_lines;

static int cprofi_compare_lines(const void *a, const void *b) {
    const cprofi_line *x = (const cprofi_line *)a, *y = (const cprofi_line *)b;
    for (uint32_t i = 0; i < x->depth && i < y->depth; i++) {
        int order = x->names[i] == y->names[i] ? 0 : strcmp(x->names[i], y->names[i]);
        if (order) return order;
    }
    return x->depth < y->depth ? -1 : x->depth > y->depth;
}

/* The same, and lines of equal names in the order in which their stacks arrived. */
static int cprofi_compare_entries(const void *a, const void *b) {
    const cprofi_line *x = (const cprofi_line *)a, *y = (const cprofi_line *)b;
    int order = cprofi_compare_lines(a, b);
    return order ? order : x->entry < y->entry ? -1 : x->entry > y->entry;
}

static int cprofi_compare_threads(const void *a, const void *b) {
    const cprofi_line *x = (const cprofi_line *)a, *y = (const cprofi_line *)b;
    if (x->tid != y->tid) return x->tid < y->tid ? -1 : 1;
    return cprofi_compare_entries(a, b);
}

static void cprofi_line_add(cprofi_lines *l, const char **names, uint32_t depth, double periods) {
    cprofi_line *line = &l->lines[l->count++];
    line->names = names;
    line->depth = depth;
    line->entry = UINT32_MAX;
    line->tid = 0;
    line->periods = periods;
}

/* Of sorted lines, adds up equal ones. */
static void cprofi_lines_merge(cprofi_lines *l) {
    size_t kept = 0;
    for (size_t i = 0; i < l->count; i++) {
        if (kept && cprofi_compare_lines(&l->lines[kept - 1], &l->lines[i]) == 0)
            l->lines[kept - 1].periods += l->lines[i].periods;
        else
            l->lines[kept++] = l->lines[i];
    }
    l->count = kept;
}

/* What a line got too little when its periods were cut to whole ones. */
typedef struct {
    double remainder;
    size_t line;
} cprofi_remainder;

static int cprofi_compare_remainders(const void *a, const void *b) {
    const cprofi_remainder *x = (const cprofi_remainder *)a, *y = (const cprofi_remainder *)b;
    if (x->remainder > y->remainder) return -1;
    if (x->remainder < y->remainder) return 1;
    return x->line < y->line ? -1 : x->line > y->line;
}

/* Makes the periods of some lines whole, their sum that of `sum`. `rest`: room for as many. */
static void cprofi_lines_round(cprofi_line *lines, size_t count, double sum,
                               cprofi_remainder *rest) {
    double whole = 0;
    for (size_t i = 0; i < count; i++) {
        double floor = (double)(uint64_t)lines[i].periods;
        whole += floor;
        rest[i].remainder = lines[i].periods - floor;
        rest[i].line = i;
        lines[i].periods = floor;
    }
    qsort(rest, count, sizeof *rest, cprofi_compare_remainders);
    for (size_t i = 0; i < count && whole + 1 <= sum; i++, whole++) lines[rest[i].line].periods++;
}

/* Sorted lines become those of a folded file: whole periods, and with `apart` false each stack of
   names once. */
static bool cprofi_lines_settle(cprofi_lines *l, bool apart) {
    cprofi_remainder *rest = (cprofi_remainder *)malloc((l->count + 1) * sizeof *rest);
    cprofi_lines sums = *l;
    double sum = 0.5;
    if (apart) sums.lines = (cprofi_line *)malloc((l->count + 1) * sizeof *sums.lines);
    if (!rest || !sums.lines) {
        free(rest);
        if (apart) free(sums.lines);
        return false;
    }
    if (apart) memcpy(sums.lines, l->lines, l->count * sizeof *sums.lines);
    cprofi_lines_merge(&sums);
    for (size_t i = 0; i < sums.count; i++) sum += sums.lines[i].periods;
    cprofi_lines_round(sums.lines, sums.count, sum, rest);
    if (apart) {
        for (size_t i = 0, from = 0, to; i < sums.count; i++, from = to) {
            for (to = from + 1; to < l->count; to++)
                if (cprofi_compare_lines(&l->lines[from], &l->lines[to]) != 0) break;
            cprofi_lines_round(l->lines + from, to - from, sums.lines[i].periods, rest);
        }
        qsort(l->lines, l->count, sizeof *l->lines, cprofi_compare_threads);
        free(sums.lines);
    } else {
        *l = sums;
    }
    free(rest);
    return true;
}

static void cprofi_lines_free(cprofi_lines *l) {
    free(l->lines);
    free(l->names);
}

/* Where a scope belongs among the functions that are inlined into its opener's frame: behind so
   many of them, from the outermost on. That is as far as they are those that were inlined where it
   was opened. -1: it was opened in another function; its opener was left without an END, and
   another now has the place of its frame. */
static int32_t cprofi_scope_rank(const cprofi_snapshot *c, const cprofi_names *n, cprofi_frame word,
                                 const cprofi_place *frame) {
    cprofi_frame pc = c->scope_names[word - CPROFI_FRAME_SPECIALS].pc;
    const cprofi_place *opened = pc ? cprofi_names_at(n, pc) : NULL;
    uint32_t rank = 0;
    if (!opened || !frame) return frame ? (int32_t)frame->count : 0;
    while (rank < frame->count && rank < opened->count &&
           cprofi_same_function(opened->sites[opened->count - 1 - rank].function,
                                frame->sites[frame->count - 1 - rank].function))
        rank++;
    if (rank || frame->sites[frame->count - 1].function[0] == '[') return (int32_t)rank;
    return -1;
}

/* A function, or a scope, as a profile shows it; and the word of the frame that it is from. */
typedef struct {
    const cprofi_site *site;
    cprofi_frame word;
} cprofi_shown;

static bool cprofi_frame_is_scope(cprofi_frame word) {
    return word >= CPROFI_FRAME_SPECIALS && word < CPROFI_FRAME_LOWEST;
}

static void cprofi_shown_add(cprofi_shown *to, const cprofi_site *site, cprofi_frame word) {
    to->site = site;
    to->word = word;
}

/* Frames of a stack, root first: of each the functions inlined into it, and the scopes opened in
   it. Gives each to `to`, unless that is NULL, and returns an upper bound of how many, or how many
   it gave. */
static uint32_t cprofi_line_shown(const cprofi_entry *e, const cprofi_snapshot *c,
                                  const cprofi_names *n, cprofi_shown *to) {
    uint32_t depth = 0, k = e->depth;
    while (k > 0) {
        cprofi_frame code = c->frames[e->first + k - 1], word;
        const cprofi_place *place = cprofi_frame_is_scope(code) ? NULL : cprofi_names_at(n, code);
        uint32_t left = place ? place->count : 0;
        if (place) k--;
        for (; k > 0; k--) { /* its scopes are next to it, towards the leaf */
            int32_t rank;
            word = c->frames[e->first + k - 1];
            if (!cprofi_frame_is_scope(word)) break;
            rank = cprofi_scope_rank(c, n, word, place);
            if (!to) depth++;
            if (!to || rank < 0) continue;
            while (place && left + (uint32_t)rank > place->count)
                cprofi_shown_add(&to[depth++], &place->sites[--left], code);
            cprofi_shown_add(&to[depth++], &cprofi_names_at(n, word)->sites[0], word);
        }
        if (!to) depth += left;
        while (to && left) cprofi_shown_add(&to[depth++], &place->sites[--left], code);
    }
    return depth;
}

/* As many as any stack of the snapshot may need. */
static cprofi_shown *cprofi_shown_room(const cprofi_snapshot *c, const cprofi_names *n) {
    uint32_t most = 1;
    for (uint32_t i = 0; i < c->entry_count; i++) {
        uint32_t depth = cprofi_line_shown(&c->entries[i], c, n, NULL);
        if (depth > most) most = depth;
    }
    return (cprofi_shown *)malloc(most * sizeof(cprofi_shown));
}

/* Lines of a folded file; `apart`: each stack of a thread has its own, by thread. */
static bool cprofi_lines_init(cprofi_lines *l, const cprofi_snapshot *c, cprofi_names *n,
                              bool apart) {
    static const char *const lost[] = {"[cprof]", CPROFI_LINE_LOST};
    static const char *const unsampled[] = {"[cprof]", CPROFI_LINE_UNSAMPLED};
    const char **threads = (const char **)malloc((c->thread_count + 1u) * sizeof *threads);
    cprofi_shown *shown = cprofi_shown_room(c, n);
    const char **at;
    size_t size = c->entry_count + 4u;
    memset(l, 0, sizeof *l);
    for (uint32_t i = 0; i < c->entry_count; i++)
        size += cprofi_line_shown(&c->entries[i], c, n, NULL);
    l->lines = (cprofi_line *)malloc((c->entry_count + 2u) * sizeof *l->lines);
    l->names = (const char **)malloc(size * sizeof *l->names);
    if (!l->lines || !l->names || !threads || !shown) goto failed;
    for (uint32_t i = 0; i < c->thread_count; i++) {
        threads[i] = cprofi_name_clean(&n->symbols, c->thread_names[i]);
        if (!threads[i]) goto failed;
    }
    at = l->names;
    for (uint32_t i = 0; i < c->entry_count; i++) {
        const cprofi_entry *e = &c->entries[i];
        uint32_t depth = cprofi_line_shown(e, c, n, shown);
        uint32_t from = !apart && c->desc->merge_threads && depth ? 1 : 0, cut = 0;
        for (uint32_t k = 0; c->desc->cut_above && k < depth && !cut; k++) /* inlined in others */
            if (cprofi_name_listed(c->desc->cut_above, shown[k].site->function)) cut = k;
        depth -= cut;
        at[0] = threads[e->thread];
        for (uint32_t k = 0; k < depth; k++) at[k + 1] = shown[k + cut].site->label;
        cprofi_line_add(l, at + from, depth + 1 - from,
                        (double)e->weight * c->scale[e->thread] / c->period);
        l->lines[i].entry = i;
        l->lines[i].tid = c->tids[e->thread];
        at += depth + 1;
    }
    memcpy(at, lost, sizeof lost);
    memcpy(at + 2, unsampled, sizeof unsampled);
    cprofi_line_add(l, at, 2, c->lost_ns / c->period);
    cprofi_line_add(l, at + 2, 2, c->unsampled_ns / c->period);
    qsort(l->lines, l->count, sizeof *l->lines, cprofi_compare_entries);
    if (!cprofi_lines_settle(l, apart)) goto failed;
    free(shown);
    free(threads);
    return true;
failed:
    free(shown);
    free(threads);
    cprofi_lines_free(l);
    return false;
}

/* ---- output ---- */

enum { CPROFI_BLOCK = 65535 }; /* bytes written at once; the most a stored block can have */

typedef struct {
    cprof_write_fn write;
    void *user;
    bool failed; /* once refused, nothing more is offered */
    bool gzip;
    uint32_t crc, size; /* gzip: of all that is stored; the size modulo 2^32 */
    uint32_t crc_table[256];
    size_t used;
    char buffer[CPROFI_BLOCK];
} cprofi_writer;

static void cprofi_writer_hand(cprofi_writer *w, const void *data, size_t size) {
    if (size && !w->failed) w->failed = !w->write(w->user, data, size);
}

/* gzip (RFC 1952): nothing is compressed, the blocks are stored (RFC 1951, 3.2.4). */
static void cprofi_writer_init(cprofi_writer *w, cprof_write_fn write, void *user, bool gzip) {
    static const uint8_t head[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};
    w->write = write;
    w->user = user;
    w->failed = false;
    w->gzip = gzip;
    w->crc = UINT32_MAX;
    w->size = 0;
    w->used = 0;
    cprofi_crc32_init(w->crc_table);
    if (gzip) cprofi_writer_hand(w, head, sizeof head);
}

static void cprofi_writer_flush(cprofi_writer *w) {
    if (!w->used) return;
    if (w->gzip) {
        uint8_t low = (uint8_t)(w->used & 0xff), high = (uint8_t)(w->used >> 8);
        uint8_t head[5] = {0, low, high, (uint8_t)(low ^ 0xff), (uint8_t)(high ^ 0xff)};
        cprofi_writer_hand(w, head, sizeof head);
        w->crc = cprofi_crc32_add(w->crc_table, w->crc, (const uint8_t *)w->buffer, w->used);
        w->size += (uint32_t)w->used;
    }
    cprofi_writer_hand(w, w->buffer, w->used);
    w->used = 0;
}

/* Writes what is left; false if anything was refused. */
static bool cprofi_writer_end(cprofi_writer *w) {
    cprofi_writer_flush(w);
    if (w->gzip) {
        uint8_t tail[13] = {1, 0, 0, 0xff, 0xff}; /* the last block, empty */
        for (int i = 0; i < 4; i++) {
            tail[5 + i] = (uint8_t)(~w->crc >> (8 * i) & 0xff);
            tail[9 + i] = (uint8_t)(w->size >> (8 * i) & 0xff);
        }
        cprofi_writer_hand(w, tail, sizeof tail);
    }
    return !w->failed;
}

static void cprofi_writer_put(cprofi_writer *w, const char *text, size_t size) {
    while (size) {
        size_t part = sizeof w->buffer - w->used;
        if (part > size) part = size;
        memcpy(w->buffer + w->used, text, part);
        w->used += part;
        text += part;
        size -= part;
        if (w->used == sizeof w->buffer) cprofi_writer_flush(w);
    }
}

static void cprofi_write_folded(cprofi_writer *w, const cprofi_lines *l) {
    for (size_t i = 0; i < l->count; i++) {
        const cprofi_line *line = &l->lines[i];
        char count[32];
        if (line->periods < 1) continue;
        for (uint32_t k = 0; k < line->depth; k++) {
            if (k) cprofi_writer_put(w, ";", 1);
            cprofi_writer_put(w, line->names[k], strlen(line->names[k]));
        }
        snprintf(count, sizeof count, " %.0f\n", line->periods);
        cprofi_writer_put(w, count, strlen(count));
    }
}

/* The file of a module as others know it. */
static const char *cprofi_module_file(const cprofi_module *m) {
    bool special = !m->path || !*m->path || cprofi_name_starts(m->path, "/proc/self/");
    return special ? m->name : m->path;
}

/* ---- perf script ----

   What `perf script` prints for one sample, and what its readers take it apart by:

       thread PID/TID SECONDS:  PERIOD cpu-clock:
       <tab>         ADDRESS function (file)          leaf first; a line for each inlined one
                                                      an empty line

   Every event stands for one sampling period, because most readers count events (Firefox Profiler,
   PerfView) or the time between them (speedscope), and ignore the period; those that do not
   (stackcollapse-perf.pl) find it the same everywhere. The table does not know when a stack was
   seen. So the times only number the events of a thread, one period apart, and the events of a
   stack follow each other.

   Readers find the fields by patterns. What these would misread is altered: blanks in the names of
   threads and files, parentheses in those of files, and '(' at the beginning of a function's name
   ("(anonymous namespace)::f"), which two of them skip: "::" is put before it. */

/* Copies a name into `to`, without what is special to readers: blanks, and what `more` lists. */
static void cprofi_perf_word(char *to, size_t capacity, const char *from, const char *more) {
    size_t n = 0;
    for (; *from && n + 1 < capacity; from++, n++)
        to[n] = (unsigned char)*from <= ' ' || *from == 127 || strchr(more, *from) ? '_' : *from;
    to[n] = 0;
}

/* Puts a text to to + size, unless `to` is NULL. Returns the new size. */
static size_t cprofi_perf_add(char *to, size_t size, const char *text) {
    size_t length = strlen(text);
    if (to) memcpy(to + size, text, length);
    return size + length;
}

static size_t cprofi_perf_frame(char *to, size_t size, uintptr_t address, const char *name,
                                const char *file) {
    char head[32];
    snprintf(head, sizeof head, "\t%16llx ", (unsigned long long)address);
    size = cprofi_perf_add(to, size, head);
    if (*name == '(') size = cprofi_perf_add(to, size, "::");
    size = cprofi_perf_add(to, size, name);
    size = cprofi_perf_add(to, size, " (");
    size = cprofi_perf_add(to, size, file);
    return cprofi_perf_add(to, size, ")\n");
}

/* The stack of a line to `to`, unless NULL; how many bytes it needs. */
static size_t cprofi_perf_stack(const cprofi_snapshot *c, const cprofi_names *n,
                                const cprofi_line *line, cprofi_shown *shown, char *to) {
    size_t size = 0;
    uint32_t depth;
    if (line->entry == UINT32_MAX) return cprofi_perf_frame(to, 0, 0, line->names[1], "[cprof]");
    depth = cprofi_line_shown(&c->entries[line->entry], c, n, shown);
    while (depth-- > 0) {
        cprofi_frame word = shown[depth].word;
        uint32_t id = CPROFI_FRAME_MODULE(word);
        bool special = word < CPROFI_FRAME_LOWEST;
        const char *module = !special ? "[jit]" : cprofi_frame_is_scope(word) ? "[scope]"
                                                                              : "[cprof]";
        char file[4096];
        if (id) module = cprofi_module_file(&c->modules->records[id]);
        cprofi_perf_word(file, sizeof file, module, "()");
        size = cprofi_perf_frame(to, size, special ? 0 : CPROFI_FRAME_ADDRESS(word),
                                 shown[depth].site->label, file);
    }
    return size;
}

/* `l`: lines apart, by thread. The system may have used an id twice: times must not go back then.
   False only when out of memory. */
static bool cprofi_write_perf(cprofi_writer *w, const cprofi_lines *l, const cprofi_snapshot *c,
                              const cprofi_names *n) {
    const char *clock = c->desc->clock == CPROF_WALL ? "wall" : "cpu";
    uint64_t period = (uint64_t)(c->period + 0.5), events = 0;
    cprofi_shown *shown = cprofi_shown_room(c, n);
    char text[512], *stack = NULL;
    size_t room = 0;
    bool ok = shown != NULL;
    snprintf(text, sizeof text,
             "# ========\n# cprof " CPROF_VERSION ": an event is %llu ns of %s time\n"
             "# times only number the events of a thread, stack by stack: no order is known\n"
             "# ========\n#\n\n", (unsigned long long)period, clock);
    cprofi_writer_put(w, text, strlen(text));
    for (size_t i = 0; i < l->count && ok && !w->failed; i++) {
        const cprofi_line *line = &l->lines[i];
        char thread[CPROFI_NAME_SIZE];
        size_t size;
        if (!i || l->lines[i - 1].tid != line->tid) events = 0;
        if (line->periods < 1) continue;
        cprofi_perf_word(thread, sizeof thread, line->names[0], "");
        if (thread[0] == '#' || thread[0] == ':' || thread[0] == '-' || thread[0] == '{')
            thread[0] = '_';
        size = cprofi_perf_stack(c, n, line, shown, NULL);
        if (size + 1 > room) {
            free(stack);
            room = size * 2 + 1;
            stack = (char *)malloc(room);
            ok = stack != NULL;
            if (!ok) break;
        }
        cprofi_perf_stack(c, n, line, shown, stack);
        for (uint64_t k = 0; k < (uint64_t)line->periods && !w->failed; k++) {
            uint64_t time = ++events * period;
            /* a name of one letter needs a second blank: some look for two characters at least */
            snprintf(text, sizeof text, "%s%s %ld/%lu %llu.%09llu: %10llu %s-clock: \n", thread,
                     thread[1] ? "" : " ", (long)c->pid, (unsigned long)line->tid,
                     (unsigned long long)(time / 1000000000u),
                     (unsigned long long)(time % 1000000000u), (unsigned long long)period, clock);
            cprofi_writer_put(w, text, strlen(text));
            cprofi_writer_put(w, stack, size);
            cprofi_writer_put(w, "\n", 1);
        }
    }
    free(stack);
    free(shown);
    return ok;
}

/* ---- pprof ----

   profile.proto (github.com/google/pprof, proto/profile.proto). A message is a sequence of fields:
   a key, number << 3 | type, and a number as a varint (type 0), or a length and as many bytes
   (type 2). The length comes first; so a message is "written" twice, the first time only to count.
   Fields may come in any order: strings and functions are known last and still cost no memory but
   their indices.

       sample:   ids of locations, leaf first; samples, ns; labels thread, thread_id, and scope for
                 each that was open, the outermost first
       location: a word of the table, an address in a mapping; lines, the innermost inlined first
       mapping:  an executable segment as /proc/self/maps shows it (Windows: the whole image), so
                 that readers find their way from an address to the file's tables
       function: name, name in the file, source, first line

   Nothing is rounded away: the ns of all samples add up to those of the profile, whole; and
   [lost], [unsampled] and [truncated] are functions of no mapping. A mapping whose functions have
   no names is marked so, which makes pprof look for them in a file with the same build id. */

typedef struct {
    cprofi_writer *to; /* NULL: only count */
    uint64_t size;
} cprofi_proto;

static void cprofi_proto_bytes(cprofi_proto *p, const char *bytes, size_t size) {
    if (p->to) cprofi_writer_put(p->to, bytes, size);
    p->size += size;
}

static void cprofi_proto_varint(cprofi_proto *p, uint64_t v) {
    char bytes[10];
    size_t n = 0;
    for (; v > 0x7f; v >>= 7) bytes[n++] = (char)(uint8_t)(v | 0x80);
    bytes[n++] = (char)v;
    cprofi_proto_bytes(p, bytes, n);
}

/* Zero is what a field has that is not there. */
static void cprofi_proto_number(cprofi_proto *p, uint32_t field, uint64_t v) {
    if (!v) return;
    cprofi_proto_varint(p, field << 3);
    cprofi_proto_varint(p, v);
}

typedef void (*cprofi_proto_body)(cprofi_proto *p, const void *what);

static void cprofi_proto_message(cprofi_proto *p, uint32_t field, cprofi_proto_body body,
                                 const void *what) {
    cprofi_proto count = {NULL, 0};
    body(&count, what);
    cprofi_proto_varint(p, field << 3 | 2);
    cprofi_proto_varint(p, count.size);
    if (p->to) body(p, what);
    else p->size += count.size;
}

/* Bytes of the character in UTF-8 (RFC 3629) at `s`; 0: it is none. */
static size_t cprofi_utf8(const char *s) {
    const uint8_t *b = (const uint8_t *)s;
    size_t n = b[0] < 0x80 ? 1 : b[0] < 0xc2 ? 0 : b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : 4;
    if (b[0] > 0xf4) return 0;
    for (size_t i = 1; i < n; i++)
        if ((b[i] & 0xc0) != 0x80) return 0;
    if ((b[0] == 0xe0 && b[1] < 0xa0) || (b[0] == 0xed && b[1] > 0x9f) ||
        (b[0] == 0xf0 && b[1] < 0x90) || (b[0] == 0xf4 && b[1] > 0x8f))
        return 0;
    return n;
}

/* A string must be UTF-8, or strict readers refuse the whole file: what is not becomes '?'. Control
   characters become blanks. */
static void cprofi_proto_string(cprofi_proto *p, uint32_t field, const char *text) {
    size_t size = strlen(text);
    cprofi_proto_varint(p, field << 3 | 2);
    cprofi_proto_varint(p, size);
    for (size_t i = 0, n; i < size; i += n ? n : 1) {
        n = cprofi_utf8(text + i);
        if (!n) cprofi_proto_bytes(p, "?", 1);
        else if ((unsigned char)text[i] < ' ' || text[i] == 127) cprofi_proto_bytes(p, " ", 1);
        else cprofi_proto_bytes(p, text + i, n);
    }
}

typedef struct {
    const char *name, *system, *file;
    uint32_t start_line;
    cprofi_site *site; /* one of those in it */
} cprofi_function;

typedef struct {
    uintptr_t lo, hi;
    uint64_t offset; /* in the file, of `lo` */
    uint32_t module;
    const char *file, *build_id;
    bool functions, files, lines;
} cprofi_mapping;

typedef struct {
    const cprofi_snapshot *c;
    cprofi_names *n;
    cprofi_site special[2];   /* [lost] and [unsampled] */
    cprofi_function *functions; /* sorted; a function's id is its index + 1 */
    cprofi_mapping *mappings;   /* likewise */
    uint32_t *locations;        /* of each frame of the snapshot: index of its word + 1 */
    cprofi_shown *shown;        /* of the stack that is being written, and its locations */
    uint32_t *stack;
    const char **strings;       /* sorted, so the first is "" */
    size_t function_count, mapping_count, string_count;
} cprofi_pprof;

static int cprofi_compare_strings(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static uint64_t cprofi_pprof_string(const cprofi_pprof *p, const char *text) {
    const char *const *at = (const char *const *)bsearch(
        &text, p->strings, p->string_count, sizeof text, cprofi_compare_strings);
    return at ? (uint64_t)(at - p->strings) : 0;
}

static int cprofi_compare_functions(const void *a, const void *b) {
    const cprofi_function *x = (const cprofi_function *)a, *y = (const cprofi_function *)b;
    int order = strcmp(x->name, y->name);
    if (!order) order = strcmp(x->system, y->system);
    if (!order) order = strcmp(x->file, y->file);
    if (order) return order;
    return x->start_line < y->start_line ? -1 : x->start_line > y->start_line;
}

/* What the file calls a function: of one that was demangled we know, a plain word is its own name.
   "": a name that only people use. (A reader may demangle what has two equal names once more.) */
static const char *cprofi_pprof_system(const cprofi_pprof *p, const char *name) {
    const char *raw = cprofi_symbols_raw(&p->n->symbols, name);
    if (raw) return raw;
    return strpbrk(name, "<>[](): ") ? "" : name;
}

static void cprofi_pprof_function(cprofi_pprof *p, cprofi_site *site) {
    cprofi_function *f = &p->functions[p->function_count++];
    f->name = site->function;
    f->system = cprofi_pprof_system(p, f->name);
    f->file = site->file ? site->file : "";
    f->start_line = site->start_line;
    f->site = site;
}

/* All functions, each once, and their numbers to the sites. */
static bool cprofi_pprof_functions(cprofi_pprof *p) {
    size_t count = CPROFI_COUNT(p->special), kept = 0;
    for (size_t i = 0; i < p->n->count; i++) count += p->n->places[i].count;
    p->functions = (cprofi_function *)malloc(count * sizeof *p->functions);
    if (!p->functions) return false;
    for (size_t i = 0; i < p->n->count; i++)
        for (uint32_t k = 0; k < p->n->places[i].count; k++)
            cprofi_pprof_function(p, &p->n->places[i].sites[k]);
    for (size_t i = 0; i < CPROFI_COUNT(p->special); i++) cprofi_pprof_function(p, &p->special[i]);
    qsort(p->functions, count, sizeof *p->functions, cprofi_compare_functions);
    for (size_t i = 0; i < count; i++) {
        if (!kept || cprofi_compare_functions(&p->functions[kept - 1], &p->functions[i]) != 0)
            p->functions[kept++] = p->functions[i];
        p->functions[i].site->number = (uint32_t)kept;
    }
    p->function_count = kept;
    return true;
}

/* As text: of a build id its bytes; of a GUID its numbers as they are usually written, then the
   age, which together is how symbol servers know the PDB. */
static const char *cprofi_pprof_build_id(cprofi_pprof *p, const cprofi_module *m) {
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    char text[2 * CPROFI_BUILD_ID_MAX + 16] = "";
    size_t size = m->build_id_size;
    bool guid = !m->code_count && size == 20;
    for (size_t i = 0; i < (guid ? 16 : size); i++)
        snprintf(text + 2 * i, 3, guid ? "%02X" : "%02x", m->build_id[guid ? order[i] : i]);
    if (guid) snprintf(text + 32, 9, "%lX", (unsigned long)cprofi_get32(m->build_id + 16));
    return cprofi_symbols_copy(&p->n->symbols, text);
}

/* The mappings of a module. */
static bool cprofi_pprof_map(cprofi_pprof *p, uint32_t id) {
    const cprofi_module *m = &p->c->modules->records[id];
    const char *build_id = cprofi_pprof_build_id(p, m);
    for (uint32_t i = 0; i < m->code_count || i == 0; i++) {
        cprofi_mapping *to = &p->mappings[p->mapping_count++];
        memset(to, 0, sizeof *to);
        to->module = id;
        to->file = cprofi_module_file(m);
        to->build_id = build_id;
        to->lo = m->code_count ? m->code_lo[i] & ~(uintptr_t)4095 : m->lo;
        to->hi = m->code_count ? (m->code_hi[i] + 4095) & ~(uintptr_t)4095 : m->hi;
        if (m->code_count) to->offset = m->code_offset[i] & ~(uint64_t)4095;
    }
    return build_id != NULL;
}

/* The mapping of a word + 1; 0: it is in none. */
static size_t cprofi_pprof_mapping(const cprofi_pprof *p, cprofi_frame word) {
    uint32_t id = CPROFI_FRAME_MODULE(word);
    uintptr_t address = CPROFI_FRAME_ADDRESS(word);
    for (size_t i = 0; id && i < p->mapping_count; i++)
        if (p->mappings[i].module == id && p->mappings[i].lo <= address &&
            address < p->mappings[i].hi)
            return i + 1;
    return 0;
}

/* The program first, then what else was met. */
static bool cprofi_pprof_mappings(cprofi_pprof *p) {
    const cprofi_names *n = p->n;
    uint32_t last = 0;
    size_t modules = 1;
    bool ok = true;
    for (size_t i = 0; i < n->count; last = CPROFI_FRAME_MODULE(n->words[i++]))
        if (CPROFI_FRAME_MODULE(n->words[i]) != last) modules++;
    p->mappings =
        (cprofi_mapping *)malloc(modules * CPROFI_MODULE_CODE * sizeof *p->mappings);
    if (!p->mappings) return false;
    if (p->c->main_module) ok = cprofi_pprof_map(p, p->c->main_module);
    last = 0;
    for (size_t i = 0; i < n->count && ok; last = CPROFI_FRAME_MODULE(n->words[i++])) {
        uint32_t id = CPROFI_FRAME_MODULE(n->words[i]);
        if (id != last && id != p->c->main_module) ok = cprofi_pprof_map(p, id);
    }
    for (size_t i = 0; i < n->count && ok; i++) {
        size_t at = cprofi_pprof_mapping(p, n->words[i]);
        for (uint32_t k = 0; k < n->places[i].count && at; k++) {
            const cprofi_site *site = &n->places[i].sites[k];
            if (site->function[0] != '[') p->mappings[at - 1].functions = true;
            if (site->file) p->mappings[at - 1].files = true;
            if (site->line) p->mappings[at - 1].lines = true;
        }
    }
    return ok;
}

static const char *const cprofi_pprof_words[] = {
    "",       "samples",   "count",   "cpu",      "wall", "nanoseconds",
    "thread", "thread_id", "[cprof]", "[unnamed]", "scope"};

static const char *cprofi_pprof_thread(const cprofi_snapshot *c, uint32_t thread) {
    const char *name = c->thread_names[thread];
    return *name ? name : "[unnamed]";
}

static bool cprofi_pprof_strings(cprofi_pprof *p) {
    size_t count = CPROFI_COUNT(cprofi_pprof_words), kept = 0;
    size_t most = count + 3 * p->function_count + 2 * p->mapping_count + p->c->thread_count;
    const char **s = (const char **)malloc(most * sizeof *s);
    p->strings = s;
    if (!s) return false;
    memcpy(s, cprofi_pprof_words, sizeof cprofi_pprof_words);
    for (size_t i = 0; i < p->function_count; i++) {
        s[count++] = p->functions[i].name;
        s[count++] = p->functions[i].system;
        s[count++] = p->functions[i].file;
    }
    for (size_t i = 0; i < p->mapping_count; i++) {
        s[count++] = p->mappings[i].file;
        s[count++] = p->mappings[i].build_id;
    }
    for (uint32_t i = 0; i < p->c->thread_count; i++) s[count++] = p->c->thread_names[i];
    qsort(s, count, sizeof *s, cprofi_compare_strings);
    for (size_t i = 0; i < count; i++)
        if (!kept || strcmp(s[kept - 1], s[i]) != 0) s[kept++] = s[i];
    p->string_count = kept;
    return true;
}

static bool cprofi_pprof_locations(cprofi_pprof *p) {
    const cprofi_snapshot *c = p->c;
    p->locations = (uint32_t *)malloc((c->frame_count + 1) * sizeof *p->locations);
    p->shown = cprofi_shown_room(c, p->n);
    p->stack = (uint32_t *)malloc(((size_t)CPROFI_MAX_DEPTH + (size_t)CPROFI_SCOPES + 1) *
                                  sizeof *p->stack);
    for (size_t i = 0; p->locations && i < c->frame_count; i++)
        p->locations[i] = (uint32_t)(cprofi_names_at(p->n, c->frames[i]) - p->n->places) + 1;
    return p->locations && p->shown && p->stack;
}

/* ---- its messages: what they are of, and their bodies ---- */

typedef struct {
    const cprofi_pprof *p;
    const char *type, *unit;
} cprofi_pprof_type;

static void cprofi_pprof_type_body(cprofi_proto *p, const void *what) {
    const cprofi_pprof_type *t = (const cprofi_pprof_type *)what;
    cprofi_proto_number(p, 1, cprofi_pprof_string(t->p, t->type));
    cprofi_proto_number(p, 2, cprofi_pprof_string(t->p, t->unit));
}

typedef struct {
    const cprofi_pprof *p;
    const uint32_t *locations;
    uint32_t depth, shown; /* locations; elements of p->shown, among them the scopes */
    uint64_t values[2];
    const char *thread, *scope;
    uint32_t tid; /* 0: none */
} cprofi_pprof_sample;

static void cprofi_pprof_stack_body(cprofi_proto *p, const void *what) {
    const cprofi_pprof_sample *s = (const cprofi_pprof_sample *)what;
    for (uint32_t i = 0; i < s->depth; i++) cprofi_proto_varint(p, s->locations[i]);
}

static void cprofi_pprof_values_body(cprofi_proto *p, const void *what) {
    const cprofi_pprof_sample *s = (const cprofi_pprof_sample *)what;
    for (size_t i = 0; i < CPROFI_COUNT(s->values); i++) cprofi_proto_varint(p, s->values[i]);
}

static void cprofi_pprof_thread_body(cprofi_proto *p, const void *what) {
    const cprofi_pprof_sample *s = (const cprofi_pprof_sample *)what;
    cprofi_proto_number(p, 1, cprofi_pprof_string(s->p, "thread"));
    cprofi_proto_number(p, 2, cprofi_pprof_string(s->p, s->thread));
}

static void cprofi_pprof_tid_body(cprofi_proto *p, const void *what) {
    const cprofi_pprof_sample *s = (const cprofi_pprof_sample *)what;
    cprofi_proto_number(p, 1, cprofi_pprof_string(s->p, "thread_id"));
    cprofi_proto_number(p, 3, s->tid);
}

static void cprofi_pprof_scope_body(cprofi_proto *p, const void *what) {
    const cprofi_pprof_sample *s = (const cprofi_pprof_sample *)what;
    cprofi_proto_number(p, 1, cprofi_pprof_string(s->p, "scope"));
    cprofi_proto_number(p, 2, cprofi_pprof_string(s->p, s->scope));
}

static void cprofi_pprof_sample_body(cprofi_proto *p, const void *what) {
    const cprofi_pprof_sample *s = (const cprofi_pprof_sample *)what;
    cprofi_proto_message(p, 1, cprofi_pprof_stack_body, s);
    cprofi_proto_message(p, 2, cprofi_pprof_values_body, s);
    cprofi_proto_message(p, 3, cprofi_pprof_thread_body, s);
    if (s->tid) cprofi_proto_message(p, 3, cprofi_pprof_tid_body, s);
    for (uint32_t i = 0; i < s->shown; i++) {
        cprofi_pprof_sample scope = *s;
        scope.scope = s->p->shown[i].site->function;
        if (cprofi_frame_is_scope(s->p->shown[i].word))
            cprofi_proto_message(p, 3, cprofi_pprof_scope_body, &scope);
    }
}

typedef struct {
    const cprofi_pprof *p;
    size_t index;
} cprofi_pprof_item;

static void cprofi_pprof_mapping_body(cprofi_proto *p, const void *what) {
    const cprofi_pprof_item *item = (const cprofi_pprof_item *)what;
    const cprofi_mapping *m = &item->p->mappings[item->index];
    cprofi_proto_number(p, 1, item->index + 1);
    cprofi_proto_number(p, 2, m->lo);
    cprofi_proto_number(p, 3, m->hi);
    cprofi_proto_number(p, 4, m->offset);
    cprofi_proto_number(p, 5, cprofi_pprof_string(item->p, m->file));
    cprofi_proto_number(p, 6, cprofi_pprof_string(item->p, m->build_id));
    cprofi_proto_number(p, 7, m->functions);
    cprofi_proto_number(p, 8, m->files);
    cprofi_proto_number(p, 9, m->lines);
    cprofi_proto_number(p, 10, m->lines); /* what tells the lines tells what was inlined */
}

static void cprofi_pprof_line_body(cprofi_proto *p, const void *what) {
    const cprofi_site *site = (const cprofi_site *)what;
    cprofi_proto_number(p, 1, site->number);
    cprofi_proto_number(p, 2, site->line);
}

static void cprofi_pprof_location_body(cprofi_proto *p, const void *what) {
    const cprofi_pprof_item *item = (const cprofi_pprof_item *)what;
    const cprofi_names *n = item->p->n;
    cprofi_frame word = item->index < n->count ? n->words[item->index] : 0;
    cprofi_proto_number(p, 1, item->index + 1);
    cprofi_proto_number(p, 2, cprofi_pprof_mapping(item->p, word));
    if (word >= CPROFI_FRAME_LOWEST) cprofi_proto_number(p, 3, CPROFI_FRAME_ADDRESS(word));
    if (item->index >= n->count)
        cprofi_proto_message(p, 4, cprofi_pprof_line_body,
                             &item->p->special[item->index - n->count]);
    else
        for (uint32_t k = 0; k < n->places[item->index].count; k++)
            cprofi_proto_message(p, 4, cprofi_pprof_line_body, &n->places[item->index].sites[k]);
}

static void cprofi_pprof_function_body(cprofi_proto *p, const void *what) {
    const cprofi_pprof_item *item = (const cprofi_pprof_item *)what;
    const cprofi_function *f = &item->p->functions[item->index];
    cprofi_proto_number(p, 1, item->index + 1);
    cprofi_proto_number(p, 2, cprofi_pprof_string(item->p, f->name));
    cprofi_proto_number(p, 3, cprofi_pprof_string(item->p, f->system));
    cprofi_proto_number(p, 4, cprofi_pprof_string(item->p, f->file));
    cprofi_proto_number(p, 5, f->start_line);
}

static void cprofi_pprof_items(cprofi_proto *out, uint32_t field, cprofi_proto_body body,
                               const cprofi_pprof *p, size_t count) {
    cprofi_pprof_item item = {p, 0};
    for (; item.index < count; item.index++) cprofi_proto_message(out, field, body, &item);
}

/* The table's entries, [lost] and [unsampled]. What one loses when it is rounded the next gets. */
static void cprofi_pprof_samples(cprofi_proto *out, const cprofi_pprof *p) {
    const cprofi_snapshot *c = p->c;
    uint64_t given = 0;
    double sum = 0;
    for (uint32_t i = 0; i < c->entry_count + CPROFI_COUNT(p->special); i++) {
        uint32_t special = (uint32_t)p->n->count + 1;
        cprofi_pprof_sample s = {p, &special, 1, 0, {0, 0}, "[cprof]", NULL, 0};
        if (i < c->entry_count) {
            const cprofi_entry *e = &c->entries[i];
            s.locations = p->stack;
            s.depth = 0;
            for (uint32_t k = 0; k < e->depth; k++)
                if (!cprofi_frame_is_scope(c->frames[e->first + k]))
                    p->stack[s.depth++] = p->locations[e->first + k];
            s.shown = cprofi_line_shown(e, c, p->n, p->shown);
            s.values[0] = e->count;
            s.thread = cprofi_pprof_thread(c, e->thread);
            s.tid = c->tids[e->thread];
            sum += (double)e->weight * c->scale[e->thread];
        } else if (i == c->entry_count) {
            s.values[0] = c->lost;
            sum += c->lost_ns;
        } else {
            special++;
            sum += c->unsampled_ns;
        }
        s.values[1] = (uint64_t)(sum + 0.5) - given;
        given += s.values[1];
        if (s.values[0] || s.values[1])
            cprofi_proto_message(out, 2, cprofi_pprof_sample_body, &s);
    }
}

static void cprofi_pprof_free(cprofi_pprof *p) {
    free(p->functions);
    free(p->mappings);
    free(p->locations);
    free(p->shown);
    free(p->stack);
    free(p->strings);
}

static bool cprofi_pprof_init(cprofi_pprof *p, const cprofi_snapshot *c, cprofi_names *n) {
    memset(p, 0, sizeof *p);
    p->c = c;
    p->n = n;
    p->special[0].function = CPROFI_LINE_LOST;
    p->special[1].function = CPROFI_LINE_UNSAMPLED;
    cprofi_symbols_aliases_done(&n->symbols);
    if (cprofi_pprof_functions(p) && cprofi_pprof_mappings(p) && cprofi_pprof_strings(p) &&
        cprofi_pprof_locations(p))
        return true;
    cprofi_pprof_free(p);
    return false;
}

/* False only when out of memory. */
static bool cprofi_write_pprof(cprofi_writer *w, const cprofi_snapshot *c, cprofi_names *n) {
    cprofi_pprof p;
    cprofi_proto out = {w, 0};
    cprofi_pprof_type samples = {&p, "samples", "count"};
    cprofi_pprof_type time = {&p, c->desc->clock == CPROF_WALL ? "wall" : "cpu", "nanoseconds"};
    if (!cprofi_pprof_init(&p, c, n)) return false;
    cprofi_proto_message(&out, 1, cprofi_pprof_type_body, &samples);
    cprofi_proto_message(&out, 1, cprofi_pprof_type_body, &time);
    cprofi_pprof_samples(&out, &p);
    cprofi_pprof_items(&out, 3, cprofi_pprof_mapping_body, &p, p.mapping_count);
    cprofi_pprof_items(&out, 4, cprofi_pprof_location_body, &p,
                       n->count + CPROFI_COUNT(p.special));
    cprofi_pprof_items(&out, 5, cprofi_pprof_function_body, &p, p.function_count);
    for (size_t i = 0; i < p.string_count; i++) cprofi_proto_string(&out, 6, p.strings[i]);
    cprofi_proto_number(&out, 9, c->began);
    cprofi_proto_number(&out, 10, c->duration);
    cprofi_proto_message(&out, 11, cprofi_pprof_type_body, &time);
    cprofi_proto_number(&out, 12, (uint64_t)(c->period + 0.5));
    cprofi_pprof_free(&p);
    return true;
}

static bool cprofi_write_lines(cprofi_writer *w, const cprofi_snapshot *c, cprofi_names *n,
                               bool perf) {
    cprofi_lines lines;
    bool ok = true;
    if (!cprofi_lines_init(&lines, c, n, perf)) return false;
    if (perf) ok = cprofi_write_perf(w, &lines, c, n);
    else cprofi_write_folded(w, &lines);
    cprofi_lines_free(&lines);
    return ok;
}

/* The one way to a profile: names what is in the snapshot and writes it. */
static cprof_result cprofi_write_snapshot(const cprofi_snapshot *c, cprof_format format,
                                          cprof_write_fn write, void *user,
                                          cprofi_remarks *remarks) {
    bool gzip = format == CPROF_PPROF_GZ, pprof = gzip || format == CPROF_PPROF;
    cprof_result result = CPROF_ERROR_MEMORY;
    cprofi_names names;
    cprofi_writer *w;
    if (!cprofi_names_init(&names, c, pprof)) return result;
    w = (cprofi_writer *)malloc(sizeof *w);
    if (w) {
        cprofi_writer_init(w, write, user, gzip);
        if (pprof ? cprofi_write_pprof(w, c, &names)
                  : cprofi_write_lines(w, c, &names, format == CPROF_PERF_SCRIPT))
            result = cprofi_writer_end(w) ? CPROF_OK : CPROF_ERROR_WRITE;
    }
    free(w);
    *remarks = names.symbols.remarks;
    cprofi_names_free(&names);
    return result;
}

/* ---------------------------------------------------------------------------------------------- */
/* >>posix: files, the life of the process

   What Linux, FreeBSD and macOS do in the same way. */

#ifdef CPROFI_POSIX

/* ---- files of images, the environment ---- */

static bool cprofi_source_pread(const cprofi_source *source, uint64_t offset, void *to,
                                size_t size) {
    char *at = (char *)to;
    while (size) {
        ssize_t n = pread((int)source->file, at, size, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false; /* 0: the file has become shorter */
        at += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return true;
}

static bool cprofi_source_open(const char *path, cprofi_source *source) {
    struct stat status;
    int file;
    memset(source, 0, sizeof *source);
    /* O_NONBLOCK: a path may by now belong to a FIFO */
    do file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    while (file < 0 && errno == EINTR);
    if (file < 0) return false;
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size <= 0) {
        close(file);
        return false;
    }
    source->file = file;
    source->size = (uint64_t)status.st_size;
    source->read = cprofi_source_pread;
    return true;
}

static void cprofi_source_close(cprofi_source *source) {
    if (source->read == cprofi_source_pread) close((int)source->file);
}

static bool cprofi_os_lookup(cprofi_symbols *s, const cprofi_module *m, const uintptr_t *pcs,
                             size_t n, const char **names, cprofi_dwarf_want *wants,
                             cprofi_dwarf_answer *answer) {
    (void)s, (void)m, (void)pcs, (void)n, (void)names, (void)wants, (void)answer;
    return true;
}

static char cprofi_os_list_separator(void) { return ':'; }

static size_t cprofi_os_environment(const char *name, char *to, size_t capacity) {
    const char *value = CPROFI_GETENV(name); /* of a set-user-ID program: nothing */
    size_t size = value ? strlen(value) + 1 : 0;
    if (size && size <= capacity) memcpy(to, value, size);
    return size;
}

static char *cprofi_os_real_path(const char *path) { return realpath(path, NULL); }

/* The map that compilers which make code at run time write for perf. Only the user's own, or
   root's, is believed: anybody can write in /tmp. */
static bool cprofi_os_jit_map(cprofi_source *source) {
    char path[64];
    struct stat status;
    snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
    if (!cprofi_source_open(path, source)) return false;
    if (fstat((int)source->file, &status) == 0 &&
        (status.st_uid == geteuid() || status.st_uid == 0))
        return true;
    cprofi_source_close(source);
    return false;
}

#ifndef CPROFI_LINUX
/* ---- functions of the process ---- */

static size_t cprofi_os_image_paths(const cprofi_module *m, const char *paths[2]) {
    paths[0] = m->path;
    return 1;
}

/* Stores the address of a function of the process, NULL if there is none, in the function pointer
   at `function`. */
static bool cprofi_dl_find(const char *name, void *function, size_t size) {
    void *found = dlsym(RTLD_DEFAULT, name);
    if (size == sizeof found) memcpy(function, &found, size);
    return found != NULL;
}

static cprofi_demangle_fn cprofi_demangler_open(void **library) {
    cprofi_demangle_fn function = NULL;
    *library = NULL;
    (void)cprofi_dl_find("__cxa_demangle", &function, sizeof function);
    return function;
}

static void cprofi_demangler_close(void *library) { (void)library; }

static uintptr_t cprofi_os_function(const char *name) {
    uintptr_t address = 0;
    (void)cprofi_dl_find(name, &address, sizeof address);
    return address;
}

#endif

/* ---- clocks ---- */

static uint64_t cprofi_clock_read(clockid_t id) {
    struct timespec t;
    if (clock_gettime(id, &t) != 0) return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t cprofi_os_calendar(void) { return cprofi_clock_read(CLOCK_REALTIME); }

static void cprofi_os_nap(void) {
    struct timespec t = {0, 20000};
    nanosleep(&t, NULL);
}

/* ---- the signal that starts and stops a profile ---- */

static struct {
    uint32_t claimed;
    uint32_t asked; /* so many signals came */
    const cprof_desc *desc;
    void (*act)(const cprof_desc *desc);
} cprofi_toggling;

/* What each of these systems implements: waits as long as *word is `value`, or shorter; wakes who
   does, from a signal handler; makes ready for both. */
static bool cprofi_os_toggle_init(void);
static void cprofi_os_toggle_wait(const uint32_t *word, uint32_t value);
static void cprofi_os_toggle_wake(const uint32_t *word);

/* [signal] */
static void cprofi_toggle_handler(int number) {
    (void)number;
    cprofi_store32(&cprofi_toggling.asked, cprofi_load32(&cprofi_toggling.asked) + 1);
    cprofi_os_toggle_wake(&cprofi_toggling.asked);
}

static void *cprofi_toggle_main(void *unused) {
    (void)unused;
    for (uint32_t done = 0;;) {
        uint32_t asked = cprofi_load32(&cprofi_toggling.asked);
        if (asked == done) {
            cprofi_os_toggle_wait(&cprofi_toggling.asked, asked);
            continue;
        }
        done++;
        cprofi_toggling.act(cprofi_toggling.desc);
    }
    return NULL;
}

static cprof_result cprofi_toggle_claim(int number) {
    struct sigaction now;
    if (number < 1 || number == SIGKILL || number == SIGSTOP || sigaction(number, NULL, &now) != 0)
        return CPROF_ERROR_SIGNAL;
    return cprofi_cas32(&cprofi_toggling.claimed, 0, 1) ? CPROF_OK : CPROF_ERROR_RUNNING;
}

static cprof_result cprofi_toggle_begin(int number, const cprof_desc *desc,
                                        void (*act)(const cprof_desc *desc)) {
    struct sigaction ours;
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    int error;
    cprofi_toggling.desc = desc;
    cprofi_toggling.act = act;
    if (!cprofi_os_toggle_init()) {
        cprofi_store32(&cprofi_toggling.claimed, 0u);
        return CPROF_ERROR_SYSTEM;
    }
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, &attributes, cprofi_toggle_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    memset(&ours, 0, sizeof ours);
    ours.sa_handler = cprofi_toggle_handler;
    ours.sa_flags = SA_RESTART | SA_ONSTACK;
    if (!error && sigaction(number, &ours, NULL) == 0) return CPROF_OK;
    cprofi_store32(&cprofi_toggling.claimed, 0u);
    return error ? CPROF_ERROR_THREAD : CPROF_ERROR_SIGNAL;
}

/* ---- scopes, fork, exit ---- */

static __thread cprofi_scopes *cprofi_scopes_here;

static cprofi_scopes *cprofi_os_scopes(void) { return cprofi_scopes_here; }
static void cprofi_os_scopes_set(cprofi_scopes *scopes) { cprofi_scopes_here = scopes; }

/* fork() waits for the sampler to be between two looks: a lock of the C library that it holds in
   the middle of one would stay locked in the child for ever. */
static void cprofi_fork_prepare(void) { cprofi_lock(cprofi.session); }
static void cprofi_fork_parent(void) { cprofi_unlock(cprofi.session); }
static void cprofi_fork_child(void) {
    cprofi_scopes *own = cprofi_os_scopes();
    memset(cprofi.session, 0, sizeof *cprofi.session);
    cprofi_scoped.lock = 0; /* the one thread there is has a new id */
    for (uint32_t i = 0; i < cprofi_scoped.count; i++) cprofi_scoped.threads[i].tid = 0;
    if (own) own->tid = cprofi_os_tid();
}

/* A program that exits in the middle of a profile still gets what was sampled; one that exits while
   another thread stops it waits for that, unless that waits for something itself. */
static void cprofi_exit(void) {
    const cprofi_session *s = cprofi.session;
    uint64_t patience = cprofi_os_now() + 30000000000u;
    while (cprofi_load32(&s->phase) == CPROFI_STOPPING &&
           cprofi_load32(&s->stopper) != cprofi_os_tid() && cprofi_os_now() < patience)
        cprofi_os_nap();
    if (cprofi_load32(&s->phase) == CPROFI_RUNNING) cprof_stop();
}

static bool cprofi_os_hooks(void) {
    if (!cprofi_cas32(&cprofi.hooked, 0, 1)) return true;
    pthread_atfork(cprofi_fork_prepare, cprofi_fork_parent, cprofi_fork_child);
    atexit(cprofi_exit);
    return true;
}

static bool cprofi_os_ending(const cprofi_session *s) {
    (void)s;
    return false;
}

static int32_t cprofi_os_pid(void) { return (int32_t)getpid(); }

static void cprofi_os_stderr(const char *text, size_t size) {
    while (write(STDERR_FILENO, text, size) < 0 && errno == EINTR) {}
}

/* ---- files ---- */

/* Where anybody may write, /tmp for one, others may put links under the names that are expected, to
   have the user's files overwritten. So a link is followed only if it is the user's own or root's
   (as the kernel's protected_symlinks has it, see proc(5), which realpath is not subject to), and
   the temporary file is always a new one. */
static bool cprofi_file_open(cprofi_file *f, const char *path) {
    struct stat info;
    bool there = lstat(path, &info) == 0;
    char *real = NULL;
    int n;
    f->temporary[0] = 0;
    f->fd = -1;
    if (strncmp(path, "/dev/std", 8) == 0 || strncmp(path, "/dev/fd/", 8) == 0 ||
        strncmp(path, "/proc/", 6) == 0) {
        f->fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC); /* stdout, even if that is a file */
        return f->fd >= 0;
    }
    if (there && S_ISLNK(info.st_mode)) { /* a link stays a link: what it points to is replaced */
        if (info.st_uid != geteuid() && info.st_uid != 0) {
            errno = EACCES;
            return false;
        }
        real = realpath(path, NULL);
        there = real && lstat(real, &info) == 0;
    }
    n = snprintf(f->path, sizeof f->path, "%s", real ? real : path);
    free(real);
    if (n <= 0 || (size_t)n >= sizeof f->path) {
        errno = n ? ENAMETOOLONG : ENOENT;
        return false;
    }
    if (there && !S_ISREG(info.st_mode)) {
        f->fd = open(f->path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
        return f->fd >= 0;
    }
    if (there && access(f->path, W_OK) != 0) return false;
    for (int number = 0; f->fd < 0 && number < 100; number++) {
        snprintf(f->temporary, sizeof f->temporary, "%s.%d.%d.tmp", f->path, (int)getpid(), number);
        f->fd = open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                     there ? info.st_mode & 0777 : 0666);
        if (f->fd < 0 && errno != EEXIST) return false;
    }
    return f->fd >= 0;
}

static bool cprofi_file_write(void *user, const void *data, size_t size) {
    const cprofi_file *f = (const cprofi_file *)user;
    const char *at = (const char *)data;
    while (size) {
        ssize_t n = write(f->fd, at, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

/* Puts the file in its place, or with `keep` false leaves no trace of it. */
static bool cprofi_file_close(cprofi_file *f, bool keep) {
    if (f->fd < 0) return false;
    if (close(f->fd) != 0) keep = false;
    if (!f->temporary[0]) return keep;
    if (keep && rename(f->temporary, f->path) == 0) return true;
    unlink(f->temporary);
    return false;
}

#endif /* CPROFI_POSIX */

/* ---------------------------------------------------------------------------------------------- */
/* >>images: ELF images in memory

   What dl_iterate_phdr shows, for the registry of >>modules. Everything is read inside its
   callback, where the loader's lock keeps images mapped. */

#ifdef CPROFI_CFI

/* What each of these systems implements: the path of the program, and its size without the zero;
   0: the loader's name will do. The program's file, open for reading, or -1. Where the vdso is, 0
   if it is nowhere. */
static size_t cprofi_os_program(char *to, size_t capacity);
static int cprofi_os_open_program(void);
static uintptr_t cprofi_os_vdso(void);

/* What a scan found out about one image, before it is known whether it is new. */
typedef struct {
    uintptr_t slide, lo, hi;
    const ElfW(Phdr) *phdr;
    size_t phnum;
    const char *loader_name;
    bool is_main, is_vdso;
    uintptr_t hdr_address;
    cprofi_span hdr;
    const uint8_t *build_id;
    size_t build_id_size;
    uintptr_t code_lo[CPROFI_TABLES_CODE], code_hi[CPROFI_TABLES_CODE];
    uint64_t code_offset[CPROFI_TABLES_CODE];
    size_t code_count;
} cprofi_image;

/* The readable bytes from `address` to the end of the file-backed part of its segment. */
static cprofi_span cprofi_image_bytes(const cprofi_image *image, uintptr_t address) {
    cprofi_span none = {NULL, 0};
    for (size_t i = 0; i < image->phnum; i++) {
        const ElfW(Phdr) *p = &image->phdr[i];
        uintptr_t start = image->slide + (uintptr_t)p->p_vaddr;
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_R)) continue;
        if (address < start || address - start >= p->p_filesz) continue;
        cprofi_span s = {(const uint8_t *)address, (size_t)(p->p_filesz - (address - start))};
        return s;
    }
    return none;
}

/* The GNU build id among the notes, with the alignment (4 or 8) that p_align announces. */
static void cprofi_image_notes(cprofi_image *image, cprofi_span notes, size_t align) {
    cprofi_bytes b = cprofi_bytes_of(notes);
    if (align != 8) align = 4;
    while (cprofi_left(&b) >= 12 && !b.bad) {
        uint32_t name_size = cprofi_u32(&b), size = cprofi_u32(&b), type = cprofi_u32(&b);
        const uint8_t *name = b.at;
        cprofi_skip(&b, name_size);
        cprofi_skip(&b, (align - (size_t)(b.at - notes.data) % align) % align);
        const uint8_t *value = b.at;
        cprofi_skip(&b, size);
        if (!b.bad && type == 3 && name_size == 4 && memcmp(name, "GNU", 4) == 0) {
            image->build_id = value;
            image->build_id_size = size;
            if (size > CPROFI_BUILD_ID_MAX) image->build_id_size = CPROFI_BUILD_ID_MAX;
            return;
        }
        size_t gap = (align - (size_t)(b.at - notes.data) % align) % align;
        if (gap > cprofi_left(&b)) return;
        cprofi_skip(&b, gap);
    }
}

static void cprofi_image_code(cprofi_image *image, uintptr_t lo, uintptr_t hi, uint64_t offset) {
    size_t n = image->code_count;
    if (lo >= hi) return;
    if (n == CPROFI_TABLES_CODE) { /* more than anybody has: let the last one cover the rest */
        if (lo < image->code_lo[n - 1]) {
            image->code_lo[n - 1] = lo;
            image->code_offset[n - 1] = offset;
        }
        if (hi > image->code_hi[n - 1]) image->code_hi[n - 1] = hi;
        return;
    }
    image->code_lo[n] = lo;
    image->code_hi[n] = hi;
    image->code_offset[n] = offset;
    image->code_count = n + 1;
}

/* False when the image has no code, and so is of no interest. */
static bool cprofi_image_read(cprofi_image *image) {
    image->lo = UINTPTR_MAX;
    for (size_t i = 0; i < image->phnum; i++) {
        const ElfW(Phdr) *p = &image->phdr[i];
        uintptr_t start = image->slide + (uintptr_t)p->p_vaddr;
        uintptr_t end = start + (uintptr_t)p->p_memsz;
        if (p->p_type != PT_LOAD || end < start) continue;
        if (start < image->lo) image->lo = start;
        if (end > image->hi) image->hi = end;
        if (p->p_flags & PF_X) cprofi_image_code(image, start, end, p->p_offset);
    }
    for (size_t i = 0; i < image->phnum; i++) {
        const ElfW(Phdr) *p = &image->phdr[i];
        uintptr_t start = image->slide + (uintptr_t)p->p_vaddr;
        if (p->p_type == PT_NOTE && !image->build_id) {
            cprofi_span notes = cprofi_image_bytes(image, start);
            if (notes.size > p->p_memsz) notes.size = (size_t)p->p_memsz;
            if (notes.data) cprofi_image_notes(image, notes, (size_t)p->p_align);
        } else if (p->p_type == PT_GNU_EH_FRAME) {
            image->hdr_address = start;
            image->hdr = cprofi_image_bytes(image, start);
            if (image->hdr.size > p->p_memsz) image->hdr.size = (size_t)p->p_memsz;
        }
    }
    return image->code_count > 0;
}

/* The same for two loads of the same file at the same place. The loader's name stands for the path,
   because a relative one must not change its meaning when the program changes directory. */
static uint64_t cprofi_image_identity(const cprofi_image *image) {
    uint64_t h = 0xcbf29ce484222325u;
    uintptr_t place[3] = {image->slide, image->lo, image->hi};
    h = cprofi_hash_bytes(h, place, sizeof place);
    h = cprofi_hash_bytes(h, image->loader_name, strlen(image->loader_name));
    if (image->build_id) return cprofi_hash_bytes(h, image->build_id, image->build_id_size);
    return cprofi_hash_bytes(h, image->hdr.data, image->hdr.size);
}

/* Finds .eh_frame and the sorted table through .eh_frame_hdr (LSB Core, 10.6.2). Sets the
   originals; .eh_frame has no size of its own: it ends with the last entry the sorted table
   mentions, or at its zero terminator. */
static void cprofi_tables_find(cprofi_tables *t, const cprofi_image *image) {
    cprofi_bytes b = cprofi_bytes_of(image->hdr);
    uint8_t version = cprofi_u8(&b), pointer = cprofi_u8(&b), count = cprofi_u8(&b);
    uint8_t table = cprofi_u8(&b);
    uintptr_t frame_address = 0;
    size_t end = 0;
    if (b.bad || version != 1) return;
    if ((pointer & 0x0f) == 0x0b || (pointer & 0x0f) == 0x03)
        frame_address = (uintptr_t)(intptr_t)(int32_t)cprofi_u32(&b);
    else if ((pointer & 0x0f) == 0x0c || (pointer & 0x0f) == 0x04 || (pointer & 0x0f) == 0)
        frame_address = (uintptr_t)cprofi_u64(&b);
    else return;
    if ((pointer & 0xf0) == 0x10) frame_address += image->hdr_address + 4;
    else if ((pointer & 0xf0) == 0x30) frame_address += image->hdr_address;
    else if ((pointer & 0xf0) != 0) return;
    cprofi_span frame = cprofi_image_bytes(image, frame_address);
    if (b.bad || frame.size < 4) return;

    if (count == 0x03 && table == 0x3b) { /* udata4; datarel, sdata4: what every linker writes */
        size_t n = cprofi_u32(&b), room = cprofi_left(&b) / 8;
        if (n > room) n = room;
        if (n) t->search = b.at; /* moved to the copy by the caller */
        t->search_count = n;
        for (size_t i = 0; i < n; i++) {
            cprofi_skip(&b, 4);
            uintptr_t fde = image->hdr_address + (uintptr_t)(intptr_t)(int32_t)cprofi_u32(&b);
            if (fde - frame_address < frame.size && fde - frame_address > end)
                end = fde - frame_address;
        }
    }
    b = cprofi_bytes_of(cprofi_span_part(frame, end, frame.size - end));
    while (cprofi_left(&b) >= 4) {
        uint64_t size = cprofi_u32(&b);
        if (size == 0xffffffffu) size = cprofi_u64(&b);
        if (size == 0 || size > cprofi_left(&b)) break;
        cprofi_skip(&b, size);
        end = (size_t)(b.at - frame.data);
        if (t->search) break;
    }
    t->frame_address = frame_address;
    t->frame = cprofi_span_part(frame, 0, end);
    t->hdr_address = image->hdr_address;
    t->hdr = image->hdr;
}

/* Static programs linked by gcc have .eh_frame and no .eh_frame_hdr: the file's section headers
   tell where it is. Main program only, whose file is at hand for certain. */
static void cprofi_tables_find_section(cprofi_tables *t, const cprofi_image *image) {
    ElfW(Ehdr) ehdr;
    ElfW(Shdr) names, section;
    int file = cprofi_os_open_program();
    if (file < 0) return;
    memset(&ehdr, 0, sizeof ehdr);
    if (pread(file, &ehdr, sizeof ehdr, 0) == (ssize_t)sizeof ehdr &&
        memcmp(ehdr.e_ident, ELFMAG, SELFMAG) == 0 && ehdr.e_shentsize == sizeof section &&
        pread(file, &names, sizeof names,
              (off_t)(ehdr.e_shoff + (uint64_t)ehdr.e_shstrndx * sizeof names)) ==
            (ssize_t)sizeof names) {
        for (size_t i = 0; i < ehdr.e_shnum; i++) {
            char name[10] = "";
            if (pread(file, &section, sizeof section,
                      (off_t)(ehdr.e_shoff + i * sizeof section)) != (ssize_t)sizeof section)
                break;
            if (!(section.sh_flags & SHF_ALLOC) ||
                pread(file, name, sizeof name, (off_t)(names.sh_offset + section.sh_name)) < 10 ||
                memcmp(name, ".eh_frame", 10) != 0)
                continue;
            t->frame_address = t->hdr_address = image->slide + (uintptr_t)section.sh_addr;
            t->frame = cprofi_image_bytes(image, t->frame_address);
            if (t->frame.size > section.sh_size) t->frame.size = (size_t)section.sh_size;
            break;
        }
    }
    close(file);
}

/* Defined with the reader of .eh_frame, in >>unwind. */
static size_t cprofi_tables_sort(const cprofi_tables *t, uint8_t *out, size_t room);

/* The tables of an image, in a block of their own; runs inside the loader's callback. */
static cprofi_tables *cprofi_tables_make(const cprofi_image *image) {
    cprofi_tables t;
    bool pinned = image->is_main || image->is_vdso;
    memset(&t, 0, sizeof t);
    if (image->hdr.data) cprofi_tables_find(&t, image);
    else if (image->is_main) cprofi_tables_find_section(&t, image);
    size_t copies = pinned ? 0 : t.hdr.size + t.frame.size;
    size_t sorted = t.search ? 0 : cprofi_tables_sort(&t, NULL, 0);
    t.block.size = sizeof t + copies + 8 * sorted;
    t.code_count = image->code_count;
    memcpy(t.code_lo, image->code_lo, sizeof t.code_lo);
    memcpy(t.code_hi, image->code_hi, sizeof t.code_hi);
    uint8_t *block = (uint8_t *)cprofi_pages(t.block.size);
    if (!block) return NULL;
    if (copies) {
        uint8_t *hdr = block + sizeof t, *frame = hdr + t.hdr.size;
        if (t.hdr.size) memcpy(hdr, t.hdr.data, t.hdr.size);
        if (t.frame.size) memcpy(frame, t.frame.data, t.frame.size);
        if (t.search) t.search = hdr + (t.search - t.hdr.data);
        t.hdr.data = hdr;
        t.frame.data = frame;
    }
    if (sorted) {
        t.search = block + sizeof t + copies;
        t.search_count = cprofi_tables_sort(&t, block + sizeof t + copies, sorted);
    }
    memcpy(block, &t, sizeof t);
    return (cprofi_tables *)(void *)block;
}

/* Fills path and name. The main program is known by what the kernel says it runs. */
static void cprofi_image_name(cprofi_modules *m, cprofi_module *record,
                              const cprofi_image *image) {
    static const char deleted[] = " (deleted)";
    char text[4096];
    const char *name = image->loader_name;
    record->path = "";
    record->name = "[vdso]";
    if (image->is_vdso) return;
    if (image->is_main) {
        size_t size = cprofi_os_program(text, sizeof text), tail = sizeof deleted - 1;
        if (size) {
            name = text;
            if (size > tail && strcmp(text + size - tail, deleted) == 0) {
                text[size - tail] = 0;
                record->path = "/proc/self/exe"; /* still opens the deleted file */
            }
        }
        if (!*record->path) record->path = cprofi_modules_string(m, name, "");
        name = *name ? cprofi_modules_string(m, name, "") : "[main]";
    } else if (*name == '/') {
        record->path = name = cprofi_modules_string(m, name, "");
    } else if (strchr(name, '/') && getcwd(text, sizeof text - 1)) {
        size_t size = strlen(text);
        if (name[0] == '.' && name[1] == '/') name += 2;
        if (size == 0 || text[size - 1] != '/') memcpy(text + size, "/", 2);
        record->path = name = cprofi_modules_string(m, text, name);
    } else {
        record->path = name = cprofi_modules_string(m, name, "");
    }
    const char *slash = strrchr(name, '/');
    record->name = slash && slash[1] ? slash + 1 : *name ? name : "[unnamed]";
}

/* Enters one image of the current scan. */
static void cprofi_image_enter(cprofi_modules *m, cprofi_image *image) {
    cprofi_module *record;
    if (!cprofi_image_read(image)) return;
    record = cprofi_modules_record(m, image->lo, cprofi_image_identity(image));
    if (!record || record->seen == m->scan) return;
    if (!record->path) {
        record->hi = image->hi;
        record->slide = image->slide;
        record->is_main = image->is_main;
        record->build_id_size = (uint32_t)image->build_id_size;
        if (image->build_id) memcpy(record->build_id, image->build_id, image->build_id_size);
        record->code_count = (uint32_t)image->code_count;
        memcpy(record->code_lo, image->code_lo, sizeof record->code_lo);
        memcpy(record->code_hi, image->code_hi, sizeof record->code_hi);
        memcpy(record->code_offset, image->code_offset, sizeof record->code_offset);
        if (image->is_vdso) {
            record->image.data = (const uint8_t *)image->lo;
            record->image.size = (size_t)((image->hi - image->lo + 4095) & ~(uintptr_t)4095);
        }
        cprofi_image_name(m, record, image);
    }
    if (!record->tables) record->tables = cprofi_tables_make(image);
    cprofi_modules_present(m, record);
}

static int cprofi_image_callback(struct dl_phdr_info *info, size_t size, void *user) {
    cprofi_modules *m = (cprofi_modules *)user;
    bool first = !m->started;
    m->started = true;
    if (first) {
        /* glibc before 2.4 passes a shorter record; then every refresh is a full one. */
        if (size >= offsetof(struct dl_phdr_info, dlpi_subs) + sizeof info->dlpi_subs) {
            if (m->scan && !m->incomplete && m->adds == info->dlpi_adds &&
                m->subs == info->dlpi_subs)
                return 1;
            m->adds = info->dlpi_adds;
            m->subs = info->dlpi_subs;
        }
        cprofi_modules_scan(m);
    }
    cprofi_image image;
    memset(&image, 0, sizeof image);
    image.slide = (uintptr_t)info->dlpi_addr;
    image.phdr = info->dlpi_phdr;
    image.phnum = info->dlpi_phnum;
    image.loader_name = info->dlpi_name ? info->dlpi_name : "";
    image.is_vdso = !first && image.slide != 0 && image.slide == cprofi_os_vdso();
    image.is_main = first;
    cprofi_image_enter(m, &image);
    return 0;
}

/* Static programs do not show the vdso through dl_iterate_phdr: read its headers where it is. */
static void cprofi_image_vdso(cprofi_modules *m) {
    uintptr_t base = cprofi_os_vdso();
    if (!base) return;
    const ElfW(Ehdr) *ehdr = (const ElfW(Ehdr) *)base;
    cprofi_image image;
    memset(&image, 0, sizeof image);
    if (memcmp(ehdr->e_ident, ELFMAG, SELFMAG) != 0) return;
    image.phdr = (const ElfW(Phdr) *)(base + (uintptr_t)ehdr->e_phoff);
    image.phnum = ehdr->e_phnum;
    for (size_t i = 0; i < image.phnum; i++) {
        if (image.phdr[i].p_type != PT_LOAD) continue;
        image.slide = base + (uintptr_t)image.phdr[i].p_offset - (uintptr_t)image.phdr[i].p_vaddr;
        break;
    }
    image.loader_name = "linux-vdso.so.1"; /* what glibc calls it: the identity must agree */
    image.is_vdso = true;
    for (uint32_t id = m->first_loaded; id; id = m->records[id].next_loaded)
        if (m->records[id].lo <= base && base < m->records[id].hi) return;
    cprofi_image_enter(m, &image);
}

static void cprofi_os_modules(cprofi_modules *m) {
    uint32_t scan = m->scan;
    m->started = false;
    dl_iterate_phdr(cprofi_image_callback, m);
    if (m->scan != scan) cprofi_image_vdso(m);
}
#endif /* CPROFI_CFI */

/* ---------------------------------------------------------------------------------------------- */
/* >>signals: the handler that captures

   Where a thread is asked by a signal: who answers which request, whose signals others' are, and
   what there was before. */

#ifdef CPROFI_CFI

/* What the host had installed for our signal. Not in the session: it must outlive a fork. */
static struct sigaction cprofi_signal_before;

/* Makes a slot that was asked the handler's. [signal] */
static bool cprofi_slot_win(cprofi_slot *q, uint32_t word) {
    return CPROFI_SLOT_PHASE(word) == CPROFI_ASKED &&
           cprofi_cas32(&q->word, word, CPROFI_SLOT_WORD(word >> 2, CPROFI_BUSY));
}

/* What each of these systems implements. Is this signal ours? Then *slot is the request it
   answers, NULL if that was given up. [signal] */
static bool cprofi_signal_ours(cprofi_session *s, const siginfo_t *info, cprofi_slot **slot);
/* Lets the signal do what it does by default, as soon as the handler returns. [signal] */
static void cprofi_signal_default(int number);
/* What cprofi_os_counts wants to know of a thread that waited for a CPU when asked. [signal] */
static void cprofi_signal_pushed(const cprofi_unwinder *u, cprofi_slot *q);

/* The request that a thread was asked with; it becomes the handler's. NULL: none. [signal] */
static cprofi_slot *cprofi_slot_of(cprofi_session *s, uint32_t tid) {
    for (uint32_t i = 0; i < CPROFI_SLOTS; i++) {
        cprofi_slot *q;
        if (cprofi_load32(&s->slot_tids[i]) != tid) continue;
        q = cprofi_slot_at(s, i);
        if (cprofi_slot_win(q, cprofi_load32(&q->word))) return q;
    }
    return NULL;
}

/* A signal somebody else sent goes to the handler that was there before. [signal] */
static void cprofi_signal_chain(int number, siginfo_t *info, void *context) {
    const struct sigaction *before = &cprofi_signal_before;
    if (before->sa_flags & SA_SIGINFO) {
        before->sa_sigaction(number, info, context);
    } else if (before->sa_handler == SIG_DFL) {
        if (number != SIGURG && number != SIGWINCH && number != SIGCHLD && number != SIGCONT) {
            cprofi_signal_default(number); /* it ends the process: so be it */
        }
    } else if (before->sa_handler != SIG_IGN) {
        before->sa_handler(number);
    }
}

#ifndef CPROF_TEST_EMPTY_HANDLER
/* Captures the stack that was interrupted. [signal] */
static void cprofi_signal_capture(cprofi_session *s, cprofi_slot *q, void *context) {
    cprofi_end end = CPROFI_END_LOST;
    cprofi_scope_walk walk;
    cprofi_scopes_walk(&walk, q->scopes, q->marks);
    cprofi_regs_from_ucontext(&q->os.regs, context);
    if (!q->running) cprofi_signal_pushed(&s->os.unwinder, q);
    q->os.view.lo = q->os.view.hi = 0;
    q->os.view.delta = 0;
    q->os.view.probe = true;
    q->depth = (uint32_t)cprofi_unwind(&s->os.unwinder, &s->modules, &q->os.regs, &q->os.view,
                                       &q->os.scratch, q->frames, (size_t)s->desc.max_depth, &end,
                                       &walk);
    q->end = (uint32_t)end;
    cprofi_scopes_rest(&walk, q->depth);
    q->mark_count = walk.count;
}
#else
/* For the benchmark that weighs the unwinding: answers at once. [signal] */
static void cprofi_signal_capture(cprofi_session *s, cprofi_slot *q, void *context) {
    (void)s, (void)context;
    q->running = 1;
    q->depth = 0;
    q->end = CPROFI_END_ROOT;
}
#endif

/* The handler. Calls nothing that locks, allocates, or sets errno. [signal] */
static void cprofi_signal_handler(int number, siginfo_t *info, void *context) {
    cprofi_session *s = cprofi_load_pointer(cprofi_session *, &cprofi.session);
    cprofi_slot *q;
    if (!cprofi_signal_ours(s, info, &q)) {
        cprofi_signal_chain(number, info, context);
    } else if (q) {
        uint32_t word = cprofi_load32(&q->word);
        cprofi_signal_capture(s, q, context);
        cprofi_store32(&q->word, CPROFI_SLOT_WORD(word >> 2, CPROFI_DONE));
    }
}

/* Compilers may call memcpy and memset anywhere. Called once before, they are bound, and the
   handler will not run the dynamic linker, which wants kilobytes of stack. */
static void cprofi_signal_bind(void) {
    char from[64] = {0}, to[64];
    volatile size_t size = sizeof to;
    memset(to, 1, size);
    memcpy(to, from, size);
    *(volatile char *)to = to[1];
}

static cprof_result cprofi_signal_install(int number) {
    struct sigaction now, ours;
    cprofi_signal_bind();
    if (number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL ||
        number == SIGTRAP || number == SIGABRT || sigaction(number, NULL, &now) != 0)
        return CPROF_ERROR_SIGNAL;
    if (!(now.sa_flags & SA_SIGINFO) || now.sa_sigaction != cprofi_signal_handler)
        cprofi_signal_before = now;
    memset(&ours, 0, sizeof ours);
    ours.sa_sigaction = cprofi_signal_handler;
    ours.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    sigfillset(&ours.sa_mask);
    return sigaction(number, &ours, NULL) == 0 ? CPROF_OK : CPROF_ERROR_SIGNAL;
}

/* Gives the signal back, unless the host has taken it in the meantime: then it returns false.
   `late`: requests may be on their way still; ignoring the signal for a moment drops them (POSIX,
   sigaction). */
static bool cprofi_signal_restore(int number, bool late) {
    struct sigaction now;
    if (sigaction(number, NULL, &now) != 0) return false;
    if (!(now.sa_flags & SA_SIGINFO) || now.sa_sigaction != cprofi_signal_handler) return false;
    if (late) {
        memset(&now, 0, sizeof now);
        now.sa_handler = SIG_IGN;
        sigaction(number, &now, NULL);
    }
    return sigaction(number, &cprofi_signal_before, NULL) == 0;
}

/* Copies a string that may not be one, up to `size` bytes; what cannot be read ends it. Returns its
   size with the zero. */
static size_t cprofi_os_text(cprofi_session *s, const char *from, char *to, size_t size) {
    cprofi_view view = {0, 0, 0, true};
    size_t n = 0;
    for (uintptr_t at = (uintptr_t)from, word = 0; n + 1 < size; at++, n++) {
        if ((n == 0 || at % sizeof word == 0) &&
            !cprofi_view_read(&s->os.unwinder, &view, at - at % sizeof word, &word))
            break;
        to[n] = (char)(word >> 8 * (at % sizeof word));
        if (!to[n]) break;
    }
    to[n] = 0;
    return n + 1;
}
#endif /* CPROFI_CFI */

/* ---------------------------------------------------------------------------------------------- */
/* >>linux: threads, clocks, signals, sleeping

   CPU clocks: clock_gettime with a thread's clock id made of its thread id (the layout is in
   Linux's include/linux/posix-timers.h), 0.3-0.55 us; exact to the nanosecond also while the
   thread runs on another core, so two readings tell whether it runs.
   State: /proc/self/task/TID/syscall (Linux 2.6.27) says "running" of a runnable thread, else the
   system call with stack pointer and program counter: 0.9 us with the descriptor kept open.
   Threads: the link count of /proc/self/task is 2 + the number of threads. Entries come in order
   of creation, so what was added is at the tail. When a thread ends, its clock can no longer be
   read, so that another began at the same time does not go unnoticed. A full scan once a second
   finds whatever was missed; every 50 ms where the link count does not tell (some sandboxes).
   Asking: rt_tgsigqueueinfo, because only a queued signal carries a value (the slot and its
   sequence number). When the limit of pending signals is reached, the kernel delivers it all the
   same, but without the value, as if sent by kill() from process 0: then the slot is found by
   thread id.
   The sampler asks the scheduler for short slices (Linux 6.12 honours sched_runtime for
   SCHED_OTHER), which makes it be woken on time on a busy core, and takes 1 ns of timer slack. It
   does not ask for a higher priority: where that was permitted, 64 threads on 2 cores were sampled
   5 times as often, but now and then Linux 6.18 left the sampler standing for 2 s (autogroups,
   another session busy). */

#ifdef CPROFI_LINUX

#define CPROFI_SCAN_NS 1000000000u /* full scan at least that often, */
#define CPROFI_SCAN_BLIND_NS 50000000u /* and that where the link count is not the threads' */
#define CPROFI_SWITCH_NS 30000u     /* from one thread to the sampler, and to its clock */
/* The value that it carries tells ours from the host's: sequence number, mark, slot. Where there is
   no room for all of the number, its low bits have to do. */
#if UINTPTR_MAX > 0xffffffffu
#define CPROFI_SIGNAL_SLOT 16
#define CPROFI_SIGNAL_MAGIC 0x6370u /* "cp" */
#define CPROFI_SIGNAL_SEQ 32
#else
#define CPROFI_SIGNAL_SLOT 11
#define CPROFI_SIGNAL_MAGIC 0x16u
#define CPROFI_SIGNAL_SEQ 16
#endif

/* A time as the kernel's older calls take it, whatever libc's struct timespec is. */
typedef struct {
    long s, ns;
} cprofi_kernel_time;

/* ---- memory ---- */

static void *cprofi_pages(size_t size) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    madvise(p, size, MADV_DONTFORK);
    return p;
}

static void cprofi_pages_free(void *p, size_t size) {
    if (p) munmap(p, size);
}

/* ---- functions of the process ---- */

static cprofi_source cprofi_os_image_source(const cprofi_module *m) {
    return cprofi_source_of(m->image);
}

static size_t cprofi_os_program(char *to, size_t capacity) {
    ssize_t n = readlink("/proc/self/exe", to, capacity - 1);
    to[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

static int cprofi_os_open_program(void) { return open("/proc/self/exe", O_RDONLY | O_CLOEXEC); }

static uintptr_t cprofi_os_vdso(void) { return (uintptr_t)getauxval(AT_SYSINFO_EHDR); }

/* The path of the program itself may be gone, or by now belong to a newer one. */
static size_t cprofi_os_image_paths(const cprofi_module *m, const char *paths[2]) {
    uintptr_t headers = (uintptr_t)getauxval(AT_PHDR);
    paths[0] = m->path;
    paths[1] = "/proc/self/exe";
    return headers >= m->lo && headers < m->hi ? 2 : 1;
}

/* The demangler of every C++ run-time library is not asked for, only used if it is there: linked
   in, visible to dlsym, or in a library loaded with RTLD_LOCAL (a plug-in's). weakref and not weak:
   what the host's own source says of the same functions is not changed by it, and neither
   -lstdc++ nor -ldl becomes necessary. dlopen is looked up at run time, because linkers warn of it
   in static programs even where nothing calls it. */

typedef void *(*cprofi_dlopen_fn)(const char *, int);
typedef int (*cprofi_dlclose_fn)(void *);

static char *cprofi_weak_demangle(const char *, char *, size_t *, int *)
    __attribute__((weakref("__cxa_demangle")));
static void *cprofi_weak_dlsym(void *, const char *) __attribute__((weakref("dlsym")));

/* Stores the address of a function of the process, NULL if there is none, in the function pointer
   at `function`. (ISO C has no cast from one kind of pointer to the other.) */
static bool cprofi_dl_find(void *library, const char *name, void *function, size_t size) {
    void *found = cprofi_weak_dlsym ? cprofi_weak_dlsym(library, name) : NULL;
    if (size == sizeof found) memcpy(function, &found, size);
    return found != NULL;
}

static cprofi_demangle_fn cprofi_demangler_open(void **library) {
    static const char *const libraries[] = {"libstdc++.so.6", "libc++abi.so.1", "libc++.so.1"};
    cprofi_demangle_fn function = NULL;
    cprofi_dlopen_fn open_library = NULL;
    *library = NULL;
    if (cprofi_weak_demangle) return cprofi_weak_demangle;
    /* A NULL library is RTLD_DEFAULT. */
    if (cprofi_dl_find(NULL, "__cxa_demangle", &function, sizeof function)) return function;
    if (!cprofi_dl_find(NULL, "dlopen", &open_library, sizeof open_library)) return NULL;
    for (size_t i = 0; !*library && i < CPROFI_COUNT(libraries); i++)
        *library = open_library(libraries[i], RTLD_LAZY | RTLD_NOLOAD);
    if (*library) cprofi_dl_find(*library, "__cxa_demangle", &function, sizeof function);
    return function;
}

static void cprofi_demangler_close(void *library) {
    cprofi_dlclose_fn close_library = NULL;
    if (library && cprofi_dl_find(NULL, "dlclose", &close_library, sizeof close_library))
        close_library(library);
}

static uintptr_t cprofi_os_function(const char *name) {
    uintptr_t address = 0;
    cprofi_dl_find(NULL, name, &address, sizeof address);
    return address;
}

/* ---- clocks ---- */

static uint64_t cprofi_os_now(void) { return cprofi_clock_read(CLOCK_MONOTONIC); }

static uint64_t cprofi_os_cpu_process(void) { return cprofi_clock_read(CLOCK_PROCESS_CPUTIME_ID); }

/* CPUCLOCK_SCHED (2) of one thread (4), the complemented id above */
static clockid_t cprofi_clock_of(uint32_t tid) { return (clockid_t)(~tid << 3 | 6u); }

static bool cprofi_os_cpu(cprofi_thread *t, uint64_t *ns) {
    struct timespec c;
    if (clock_gettime(cprofi_clock_of(t->tid), &c) != 0) return false;
    *ns = (uint64_t)c.tv_sec * 1000000000u + (uint64_t)c.tv_nsec;
    return true;
}

static uint64_t cprofi_os_cpu_sampler(cprofi_session *s) {
    return s->sampler_tid ? cprofi_clock_read(cprofi_clock_of(s->sampler_tid)) : 0;
}

/* ---- sleeping and waking ---- */

/* Until *word differs from `value`, `deadline` (UINT64_MAX: none) has come, or for no reason. */
static void cprofi_os_wait(uint32_t *word, uint32_t value, uint64_t deadline) {
    cprofi_kernel_time t, *until = NULL;
    if (deadline != UINT64_MAX) {
        t.s = (long)(deadline / 1000000000u);
        t.ns = (long)(deadline % 1000000000u);
        until = &t;
    }
    /* FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG takes an absolute time of CLOCK_MONOTONIC */
    syscall(SYS_futex, word, 9 | 128, value, until, NULL, 0xffffffffu);
}

static void cprofi_os_wake(uint32_t *word) {
    cprofi_add32(word, 1u);
    syscall(SYS_futex, word, 1 | 128, INT32_MAX, NULL, NULL, 0); /* FUTEX_WAKE */
}

/* [signal] */
static void cprofi_os_toggle_wake(const uint32_t *word) {
    cprofi_unwind_syscall(SYS_futex, (uintptr_t)word, 1 | 128, 1, 0, 0, 0);
}

static void cprofi_os_toggle_wait(const uint32_t *word, uint32_t value) {
    syscall(SYS_futex, word, 0 | 128, value, NULL, NULL, 0); /* FUTEX_WAIT */
}

static bool cprofi_os_toggle_init(void) { return true; }

/* ---- threads ---- */

static int cprofi_open_at(int directory, uint32_t tid, const char *file) {
    char path[48];
    snprintf(path, sizeof path, "%u/%s", tid, file);
    return openat(directory, path, O_RDONLY | O_CLOEXEC);
}

/* The whole of a small file as a string; -1 if it cannot be read. */
static ssize_t cprofi_read_at(int directory, uint32_t tid, const char *file, char *to,
                              size_t size) {
    int fd = cprofi_open_at(directory, tid, file);
    ssize_t n = -1;
    if (fd >= 0) {
        n = read(fd, to, size - 1);
        close(fd);
    }
    to[n > 0 ? n : 0] = 0;
    return n;
}

/* The 28th field of `stat`, 26 behind the name in parentheses. */
static uintptr_t cprofi_os_stack_start(void) {
    char text[1024];
    const char *at;
    int file = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t n = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0) close(file);
    text[n > 0 ? n : 0] = 0;
    at = strrchr(text, ')');
    for (int field = 2; at && field < 28; field++) at = strchr(at + 1, ' ');
    return at ? (uintptr_t)strtoull(at, NULL, 10) : 0;
}

static void cprofi_os_name(cprofi_session *s, cprofi_thread *t) {
    char name[CPROFI_NAME_SIZE];
    ssize_t n = cprofi_read_at(s->os.tasks, t->tid, "comm", name, sizeof name);
    if (n > 0) {
        name[strcspn(name, "\n")] = 0;
        memcpy(t->name, name, sizeof name);
    }
}

static void cprofi_os_thread_init(cprofi_os_thread *t) {
    memset(t, 0, sizeof *t);
    t->syscall_fd = t->schedstat_fd = -1;
}

/* Closes the descriptors kept for a thread, if any. */
static void cprofi_os_forget(cprofi_session *s, cprofi_thread *t) {
    if (t->os.syscall_fd < 0) return;
    close(t->os.syscall_fd);
    if (t->os.schedstat_fd >= 0) close(t->os.schedstat_fd);
    t->os.syscall_fd = t->os.schedstat_fd = -1;
    for (uint32_t i = 0; i < CPROFI_KEPT_OPEN; i++)
        if (s->os.kept[i] == (uint32_t)(t - s->threads) + 1) s->os.kept[i] = 0;
}

/* Opens a thread's files, and closes another's when the allowance of descriptors is used up or, as
   far as there are any, the process's. */
static bool cprofi_os_keep(cprofi_session *s, cprofi_thread *t) {
    uint32_t *place;
    for (uint32_t i = 0; i < CPROFI_KEPT_OPEN; i++) {
        place = &s->os.kept[s->os.kept_next++ % CPROFI_KEPT_OPEN];
        if (*place) cprofi_os_forget(s, &s->threads[*place - 1]);
        t->os.syscall_fd = cprofi_open_at(s->os.tasks, t->tid, "syscall");
        if (t->os.syscall_fd >= 0) {
            t->os.schedstat_fd = cprofi_open_at(s->os.tasks, t->tid, "schedstat");
            *place = (uint32_t)(t - s->threads) + 1;
            return true;
        }
        if (errno != EMFILE && errno != ENFILE) break;
    }
    return false;
}

/* Whether a thread that is not on a CPU could go on at once; where it sleeps, if it does and the
   system says so (else *sp is 0). */
static cprofi_activity cprofi_os_activity(cprofi_session *s, cprofi_thread *t, uintptr_t *sp,
                                          uintptr_t *pc) {
    char text[512];
    ssize_t n = -1;
    *sp = *pc = 0;
    if (t->os.syscall_fd >= 0 || cprofi_os_keep(s, t))
        n = pread(t->os.syscall_fd, text, sizeof text - 1, 0);
    if (n > 0) {
        char *last = NULL, *before = NULL;
        text[n] = 0;
        if (text[0] == 'r') return CPROFI_RUNNABLE;
        for (char *p = text; *p; p++)
            if (*p == ' ') {
                before = last;
                last = p;
            }
        if (before) {
            *sp = (uintptr_t)strtoull(before, NULL, 16);
            *pc = (uintptr_t)strtoull(last, NULL, 16);
        }
        return CPROFI_ASLEEP;
    }
    /* not permitted (a process that may not be dumped) or not built in: the state in `stat`, the
       letter behind the last parenthesis */
    if (cprofi_read_at(s->os.tasks, t->tid, "stat", text, sizeof text) > 0) {
        const char *state = strrchr(text, ')');
        if (state && state[1] == ' ') return state[2] == 'R' ? CPROFI_RUNNABLE : CPROFI_ASLEEP;
    }
    return CPROFI_UNKNOWN;
}

/* Copies the instruction before pc, and a stack up to the first page that cannot be read. Returns
   the size of that. */
static size_t cprofi_os_copy(cprofi_session *s, uintptr_t pc, uint32_t *code, uintptr_t sp) {
    struct iovec local[2], remote[CPROFI_STACK_COPY / 4096 + 2];
    size_t pieces = 1, left = CPROFI_STACK_COPY;
    ssize_t n;
    *code = 0;
    local[0].iov_base = code;
    local[1].iov_base = s->stack_copy;
    local[1].iov_len = left;
    remote[0].iov_base = (void *)(pc - CPROFI_SYSCALL_SIZE);
    local[0].iov_len = remote[0].iov_len = CPROFI_SYSCALL_SIZE;
    while (left && pieces < CPROFI_COUNT(remote)) { /* by pages: a piece is copied whole or not */
        size_t piece = 4096 - (sp & 4095);
        if (piece > left) piece = left;
        remote[pieces].iov_base = (void *)sp;
        remote[pieces++].iov_len = piece;
        sp += piece;
        left -= piece;
    }
    n = process_vm_readv(s->pid, local, 2, remote, pieces, 0);
    return n > CPROFI_SYSCALL_SIZE ? (size_t)n - CPROFI_SYSCALL_SIZE : 0;
}

/* It woke up while its stack was copied: that is worth nothing. */
static bool cprofi_woke(cprofi_session *s, cprofi_thread *t, uint64_t weight) {
    if (t->last_entry) cprofi_last_more(s, t, weight);
    return true;
}

/* Wall clock: the stack of a thread that sleeps is copied and unwound here, so that nobody has to
   wake it. If its CPU clock has not moved since the last time, neither has its stack.
   False where that does not tell: SP and PC may be those of an emulator, and on AArch64 the return
   address may be in a register. */
static bool cprofi_os_look_asleep(cprofi_session *s, cprofi_thread *t, uintptr_t sp, uintptr_t pc,
                                  uint64_t weight) {
    cprofi_regs regs;
    cprofi_view view;
    cprofi_slot *q = cprofi_slot_at(s, CPROFI_SLOTS); /* the sampler's own */
    cprofi_end end = CPROFI_END_LOST;
    const cprofi_scopes *scopes = NULL;
    cprofi_scope_walk walk;
    uint64_t cpu;
    uint32_t code;
    if (CPROFI_MODE) return false; /* /proc does not tell which */
    cprofi_images_refresh(s);      /* what was loaded during this look must be known */
    size_t size = cprofi_os_copy(s, pc, &code, sp);
    if (!size || (code != CPROFI_SYSCALL && !cprofi_modules_find(&s->modules, pc))) return false;
    if (!cprofi_os_cpu(t, &cpu) || cpu != t->cpu) return cprofi_woke(s, t, weight);
    if (cprofi_load_pointer(cprofi_scopes *, &cprofi_scoped.threads) && t->scopes &&
        cprofi_load32(&t->scopes->tid) == t->tid) {
        memcpy(s->scopes_copy, t->scopes, sizeof *t->scopes);
        if (!cprofi_os_cpu(t, &cpu) || cpu != t->cpu) return cprofi_woke(s, t, weight);
        scopes = s->scopes_copy;
    }
    cprofi_scopes_walk(&walk, scopes, q->marks);
    memset(&regs, 0, sizeof regs);
    regs.r[CPROFI_SP] = sp;
    regs.r[CPROFI_PC] = pc;
    regs.known = CPROFI_BIT(CPROFI_SP) | CPROFI_BIT(CPROFI_PC);
    view.lo = sp;
    view.hi = sp + size;
    view.delta = (intptr_t)((uintptr_t)s->stack_copy - sp);
    view.probe = false;
    q->depth = (uint32_t)cprofi_unwind(&s->os.unwinder, &s->modules, &regs, &view, &q->os.scratch,
                                       q->frames, (size_t)s->desc.max_depth, &end, &walk);
    if (end == CPROFI_END_LOST && q->depth == 1) return false;
    q->end = (uint32_t)end;
    cprofi_scopes_rest(&walk, q->depth);
    q->mark_count = walk.count;
    cprofi_book(s, t, q, weight);
    t->rests = true;
    t->rest_cpu = cpu;
    return true;
}

static void cprofi_thread_found(cprofi_session *s, uint32_t tid) {
    cprofi_thread *t, probe;
    uint64_t cpu;
    if (tid == s->sampler_tid || cprofi_thread_known(s, tid)) return;
    cprofi_threads_make_room(s);
    probe.tid = tid;
    if (!cprofi_os_cpu(&probe, &cpu)) return;
    t = cprofi_thread_add(s, tid, cpu, s->os.scanned ? 0 : cpu);
    if (!t) return;
    t->charged = cpu;
    cprofi_thread_remember(s, (uint32_t)(t - s->threads));
}

/* Finds new threads, and looks no further than it must. */
static void cprofi_os_scan(cprofi_session *s, uint64_t now) {
    cprofi_os *os = &s->os;
    struct stat info;
    uint64_t links, entries = 0;
    long n;
    bool full = !os->scanned || s->ended || now >= os->next_full;
    if (fstat(os->tasks, &info) != 0) return;
    links = info.st_nlink;
    if (!full && links == os->links) return;
    full = full || links < os->links;
    if (full) lseek(os->tasks, 0, SEEK_SET);
    os->links = links;
    s->ended = false;
    while ((n = syscall(SYS_getdents64, os->tasks, os->listing, sizeof os->listing)) > 0) {
        for (long at = 0; at + 19 < n;) { /* struct linux_dirent64: see getdents64(2) */
            uint16_t length;
            memcpy(&length, os->listing + at + 16, sizeof length);
            if (os->listing[at + 19] != '.')
                cprofi_thread_found(s, (uint32_t)strtoul(os->listing + at + 19, NULL, 10));
            at += length;
            entries++; /* . and .. too, as in the link count */
        }
    }
    if (full) os->next_full = now + (entries == links ? CPROFI_SCAN_NS : CPROFI_SCAN_BLIND_NS);
    os->scanned = true;
}

/* ---- the signal ---- */

/* The second number in `schedstat`: ns a thread has waited for a CPU, without the wait it is in.
   False where the kernel does not count that. */
static bool cprofi_schedstat_delay(const char *text, uint64_t *delay) {
    char *end;
    uint64_t ran = strtoull(text, &end, 10);
    *delay = strtoull(end, NULL, 10);
    return ran != 0;
}

static bool cprofi_os_ask(cprofi_session *s, cprofi_thread *t, uint32_t slot, uint32_t seq) {
    siginfo_t info;
    cprofi_slot *q = cprofi_slot_at(s, slot);
    q->os.schedstat_fd = -1;
    if (!q->running && t->os.schedstat_fd >= 0) {
        char text[64];
        ssize_t n = pread(t->os.schedstat_fd, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = 0;
        if (cprofi_schedstat_delay(text, &q->os.delay)) q->os.schedstat_fd = t->os.schedstat_fd;
    }
    cprofi_store32(&q->os.prepared, seq);
    memset(&info, 0, sizeof info);
    info.si_signo = s->desc.signal;
    info.si_code = SI_QUEUE;
    info.si_pid = s->pid;
    info.si_value.sival_ptr =
        (void *)(uintptr_t)((uint64_t)seq << CPROFI_SIGNAL_SEQ |
                            CPROFI_SIGNAL_MAGIC << CPROFI_SIGNAL_SLOT | slot);
    return syscall(SYS_rt_tgsigqueueinfo, s->pid, t->tid, s->desc.signal, &info) == 0;
}

/* A thread was waiting for a CPU when it was asked. Was it on one until the sampler took it away?
   Only then does its sample count.
   It was waiting since it was put into the queue: the time it answered less the time it waited.
   Unless that is when the sampler woke up, it was waiting for somebody else.
   Put there because it woke up itself, it was asleep before: then it is stopped behind a system
   call. But so is a thread for which the kernel was working. That is what it is if it has not gone
   to sleep once since it last waited for a CPU when it was asked, or if it was taken off one since
   (which the sampler has just done, then). */
static bool cprofi_os_counts(cprofi_session *s, cprofi_thread *t, const cprofi_slot *q) {
    uint64_t delay;
    bool awake = t->os.switches_known &&
                 (t->os.sleeps == q->os.sleeps || t->os.pushes != q->os.pushes);
    (void)s;
    if (q->running) return true;
    t->os.sleeps = q->os.sleeps;
    t->os.pushes = q->os.pushes;
    t->os.switches_known = true;
    if (q->os.schedstat_fd >= 0 && cprofi_schedstat_delay(q->os.schedstat, &delay)) {
        uint64_t since = q->os.answered - (delay - q->os.delay);
        if (since + CPROFI_SWITCH_NS < q->woke || since > q->woke + CPROFI_SWITCH_NS / 3)
            return false;
    }
    return awake || !q->os.after_syscall;
}

/* Whether a thread's CPU clock differs between two readings. They are taken back to back: if the
   sampler could lose its CPU in between, to a thread that has just been woken, it would see each
   burst's beginning and favour short bursts. */
static bool cprofi_clock_moves(cprofi_thread *t) {
    uint64_t first, second;
    if (!cprofi_os_cpu(t, &first) || !cprofi_os_cpu(t, &second) || second < t->cpu) return false;
    t->charged += second - t->cpu;
    t->cpu = second;
    return first != second;
}

/* Asks the candidates whose clocks move. One of the others may have been on this CPU until the
   sampler woke up and pushed it off. Which, only its answer can tell (see cprofi_os_counts); so all
   that ran since the last look and could go on are asked, those that ran most first, and no more
   than a few. */
static void cprofi_os_look(cprofi_session *s, uint32_t count, uint64_t elapsed) {
    uint32_t pushed = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (cprofi_clock_moves(&s->threads[s->candidates[i]]))
            cprofi_ask(s, &s->threads[s->candidates[i]], elapsed, true);
        else
            s->candidates[pushed++] = s->candidates[i];
    }
    for (uint32_t looks = 0; pushed && looks < CPROFI_PUSHED_LOOKS; looks++) {
        uint32_t most = 0;
        cprofi_thread *t;
        uintptr_t sp, pc;
        for (uint32_t i = 1; i < pushed; i++)
            if (s->threads[s->candidates[i]].charged > s->threads[s->candidates[most]].charged)
                most = i;
        t = &s->threads[s->candidates[most]];
        if (cprofi_os_activity(s, t, &sp, &pc) == CPROFI_RUNNABLE) cprofi_ask(s, t, elapsed, false);
        s->candidates[most] = s->candidates[--pushed];
    }
}

static bool cprofi_os_may_run(cprofi_session *s, cprofi_thread *t) {
    (void)s;
    return t->charged != 0;
}

static bool cprofi_os_rests(const cprofi_session *s, const cprofi_slot *q) {
    (void)s, (void)q;
    return false; /* see cprofi_os_look_asleep */
}

/* [signal] */
static bool cprofi_os_readable(uintptr_t address) {
    uint64_t word;
    struct iovec local = {&word, sizeof word}, remote;
    remote.iov_base = (void *)address;
    remote.iov_len = sizeof word;
    uintptr_t pid = (uintptr_t)cprofi_unwind_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
    return cprofi_unwind_syscall(SYS_process_vm_readv, pid, (uintptr_t)&local, 1,
                                 (uintptr_t)&remote, 1, 0) == (long)sizeof word;
}

/* Where signal handlers return to: libc gives the kernel that address with every handler. */
static void cprofi_unwind_learn(cprofi_unwinder *u) {
    for (uintptr_t sig = 1; sig <= 64; sig++) {
        struct { uintptr_t handler, flags, restorer; uint64_t mask; } action = {0, 0, 0, 0};
        const uintptr_t has_restorer = 0x04000000;
        if (cprofi_unwind_syscall(SYS_rt_sigaction, sig, 0, (uintptr_t)&action, 8, 0, 0) != 0 ||
            !(action.flags & has_restorer) || !action.restorer)
            continue;
        for (size_t i = 0; i < CPROFI_RESTORERS; i++) {
            if (u->restorers[i] == action.restorer) break;
            if (u->restorers[i]) continue;
            cprofi_store64(&u->restorers[i], action.restorer);
            break;
        }
    }
}

/* [signal] */
static bool cprofi_signal_ours(cprofi_session *s, const siginfo_t *info, cprofi_slot **slot) {
    *slot = NULL;
    if (!s || !cprofi_load_pointer(char *, &s->slots)) return false;
    if (info->si_code == SI_QUEUE && info->si_pid == s->pid) {
        uintptr_t value = (uintptr_t)info->si_value.sival_ptr;
        uint32_t i = (uint32_t)(value & ((1u << CPROFI_SIGNAL_SLOT) - 1)), word;
        uint32_t mark = (uint32_t)(value & (((uint64_t)1 << CPROFI_SIGNAL_SEQ) - 1));
        cprofi_slot *q;
        if (mark >> CPROFI_SIGNAL_SLOT != CPROFI_SIGNAL_MAGIC || i >= CPROFI_SLOTS) return false;
        q = cprofi_slot_at(s, i);
        word = cprofi_load32(&q->word);
        if ((uintptr_t)((uint64_t)(word >> 2) << CPROFI_SIGNAL_SEQ | mark) == value &&
            cprofi_slot_win(q, word))
            *slot = q;
        return true;
    }
    if (info->si_code == SI_USER && info->si_pid == 0) { /* no room for the value: see above */
        uint32_t tid = (uint32_t)cprofi_unwind_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);
        *slot = cprofi_slot_of(s, tid);
        return *slot != NULL;
    }
    return false;
}

/* [signal] */
static void cprofi_signal_default(int number) {
    uintptr_t standard[5] = {0, 0, 0, 0, 0}; /* the kernel's struct sigaction */
    long pid = cprofi_unwind_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
    long tid = cprofi_unwind_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);
    cprofi_unwind_syscall(SYS_rt_sigaction, (uintptr_t)number, (uintptr_t)standard, 0, 8, 0,
                          0);
    cprofi_unwind_syscall(SYS_tgkill, (uintptr_t)pid, (uintptr_t)tid, (uintptr_t)number, 0, 0,
                          0);
}

/* [signal] */
CPROFI_UNUSED static void cprofi_signal_pushed(const cprofi_unwinder *u, cprofi_slot *q) {
    cprofi_kernel_time now;
    long usage[18]; /* the kernel's struct rusage; 16: ru_nvcsw, 17: ru_nivcsw */
    usage[16] = usage[17] = 0; /* if it is refused */
    q->os.schedstat[0] = 0;
    if (cprofi_load32(&q->os.prepared) == cprofi_load32(&q->word) >> 2 &&
        q->os.schedstat_fd >= 0) {
        long n = cprofi_unwind_syscall(SYS_pread64, (uintptr_t)q->os.schedstat_fd,
                                       (uintptr_t)q->os.schedstat, sizeof q->os.schedstat - 1, 0,
                                       0, 0);
        q->os.schedstat[n > 0 ? n : 0] = 0;
        cprofi_unwind_syscall(SYS_clock_gettime, CLOCK_MONOTONIC, (uintptr_t)&now, 0, 0, 0, 0);
        q->os.answered = (uint64_t)now.s * 1000000000u + (uint64_t)now.ns;
    }
    cprofi_unwind_syscall(SYS_getrusage, RUSAGE_THREAD, (uintptr_t)usage, 0, 0, 0, 0);
    q->os.sleeps = (uint64_t)usage[16];
    q->os.pushes = (uint64_t)usage[17];
    q->os.after_syscall = cprofi_unwind_after_syscall(u, q->os.regs.r[CPROFI_PC]);
}

/* ---- the sampler thread ---- */

enum { CPROFI_READY = 1, CPROFI_READY_BLIND }; /* the latter: it sees no thread */

static void cprofi_short_slice(void) {
    struct { /* struct sched_attr, first published size: sched_setattr(2) */
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attr = {48, SCHED_OTHER, 0, 0, 0, 100000, 0, 0};
    if (sched_getscheduler(0) != SCHED_OTHER) return;
    attr.nice = getpriority(PRIO_PROCESS, 0);
    syscall(SYS_sched_setattr, 0, &attr, 0);
}

static void *cprofi_sampler_main(void *argument) {
    cprofi_session *s = (cprofi_session *)argument;
    bool any;
    prctl(PR_SET_NAME, "cprof", 0, 0, 0);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    cprofi_short_slice();
    cprofi_store32(&s->sampler_tid, (uint32_t)syscall(SYS_gettid));
    cprofi_modules_refresh(&s->modules);
    cprofi_unwind_learn(&s->os.unwinder);
    cprofi_os_scan(s, cprofi_os_now());
    cprofi_span_begin(s);
    any = s->live_count != 0; /* not so: /proc is another name space's, or calls are refused */
    cprofi_store32(&s->ready, (uint32_t)(any ? CPROFI_READY : CPROFI_READY_BLIND));
    syscall(SYS_futex, &s->ready, 1 | 128, INT32_MAX, NULL, NULL, 0);
    if (any) cprofi_sampler_run(s);
    return NULL;
}

/* Whether requests can be sent at all: signal 0 only checks (a seccomp filter may refuse). */
static bool cprofi_os_can_ask(const cprofi_session *s) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_code = SI_QUEUE;
    return syscall(SYS_rt_tgsigqueueinfo, s->pid, syscall(SYS_gettid), 0, &info) == 0;
}

static cprof_result cprofi_os_prepare(cprofi_session *s) {
    if (!cprofi_unwind_init(&s->os.unwinder)) return CPROF_ERROR_MEMORY;
    if (s->os.unwinder.probe == CPROFI_PROBE_NONE) return CPROF_ERROR_SYSTEM;
    s->os.tasks = -1;
    return cprofi_signal_install(s->desc.signal);
}

/* Starts the sampler with every signal blocked, and waits for its first scan. */
static cprof_result cprofi_os_start(cprofi_session *s) {
    pthread_attr_t attributes;
    sigset_t all, before;
    int error;
    memset(s->os.kept, 0, sizeof s->os.kept);
    s->os.links = s->os.next_full = 0;
    s->os.scanned = s->ended = false;
    s->known_count = 0;
    s->os.tasks = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->os.tasks < 0 || !cprofi_os_can_ask(s)) return CPROF_ERROR_SYSTEM;
    s->ready = 0;
    s->sampler_tid = 0;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&s->os.sampler, &attributes, cprofi_sampler_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error) return CPROF_ERROR_THREAD;
    while (!cprofi_load32(&s->ready)) cprofi_os_wait(&s->ready, 0, UINT64_MAX);
    if (cprofi_load32(&s->ready) == CPROFI_READY) return CPROF_OK;
    pthread_join(s->os.sampler, NULL);
    return CPROF_ERROR_SYSTEM;
}

static void cprofi_os_stop(cprofi_session *s) { pthread_join(s->os.sampler, NULL); }

static void cprofi_os_close(cprofi_session *s) {
    s->signal_gone = !cprofi_signal_restore(s->desc.signal, s->given_up != 0);
    for (uint32_t i = 0; i < s->thread_count; i++) cprofi_os_forget(s, &s->threads[i]);
    if (s->os.tasks >= 0) close(s->os.tasks);
    s->os.tasks = -1;
}

/* ---- the life of the process ---- */

static void *cprofi_os_common_pages(size_t size) {
    void *p = cprofi_pages(size);
    if (p) madvise(p, size, MADV_DOFORK);
    return p;
}

static void *cprofi_os_session_pages(size_t size) {
    void *p = cprofi_os_common_pages(size);
    if (p) madvise(p, size, MADV_WIPEONFORK); /* Linux 4.14; before, the fork handler does it */
    return p;
}

/* ---- scopes ---- */

static uint32_t cprofi_os_tid(void) { return (uint32_t)syscall(SYS_gettid); }

static bool cprofi_os_tid_gone(uint32_t tid) {
    return syscall(SYS_tgkill, getpid(), tid, 0) != 0 && errno == ESRCH;
}

void cprof_thread_name(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

#endif /* CPROFI_LINUX */

/* ---------------------------------------------------------------------------------------------- */
/* >>freebsd: threads, clocks, signals, sleeping

   Compiled and linked for x86-64 and ARM64, never run.

   As on Linux a thread is asked by a signal, and its handler unwinds in place. thr_kill2 sends that
   to one thread, but no value with it: the slot is found by the thread's id. That a signal is ours
   shows by a request that waits for an answer of this thread; any other is the host's.
   Threads: one sysctl lists them all with their states; ki_oncpu tells who is on a CPU at that
   moment. Their CPU clocks (clock_gettime, the id is made of the thread's) are brought up to date
   when a thread leaves its CPU, and 127 times a second.
   Sleeping: _umtx_op, which is what futexes are called here. A thread that sleeps is never asked
   where only CPU time counts; by the wall clock it is, and its system calls may return EINTR.
   Not handled: what is below a signal handler's frame, and the vdso's symbols. */

#ifdef CPROFI_FREEBSD

/* ---- memory ---- */

static void *cprofi_os_common_pages(size_t size) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* The fork handler clears it in the child. */
static void *cprofi_os_session_pages(size_t size) { return cprofi_os_common_pages(size); }

static void *cprofi_pages(size_t size) {
    void *p = cprofi_os_common_pages(size);
    if (p) minherit(p, size, INHERIT_NONE);
    return p;
}

static void cprofi_pages_free(void *p, size_t size) {
    if (p) munmap(p, size);
}

/* ---- functions of the process ---- */

static cprofi_source cprofi_os_image_source(const cprofi_module *m) {
    return cprofi_source_of(m->image);
}

static size_t cprofi_os_program(char *to, size_t capacity) {
    int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_PATHNAME, -1};
    size_t size = capacity;
    if (sysctl(name, 4, to, &size, NULL, 0) != 0 || !size) return 0;
    return strlen(to);
}

static int cprofi_os_open_program(void) {
    char path[1024];
    return cprofi_os_program(path, sizeof path) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
}

static uintptr_t cprofi_os_vdso(void) { return 0; }

/* ---- clocks ---- */

static uint64_t cprofi_os_now(void) { return cprofi_clock_read(CLOCK_MONOTONIC); }

static uint64_t cprofi_os_cpu_process(void) { return cprofi_clock_read(CLOCK_PROCESS_CPUTIME_ID); }

/* That of a thread has the highest bit set (the kernel's kern_time.c, CPUCLOCK_BIT). */
static clockid_t cprofi_clock_of(uint32_t tid) { return (clockid_t)(0x80000000u | tid); }

static bool cprofi_os_cpu(cprofi_thread *t, uint64_t *ns) {
    struct timespec c;
    if (clock_gettime(cprofi_clock_of(t->tid), &c) != 0) return false;
    *ns = (uint64_t)c.tv_sec * 1000000000u + (uint64_t)c.tv_nsec;
    return true;
}

static uint64_t cprofi_os_cpu_sampler(cprofi_session *s) {
    return s->sampler_tid ? cprofi_clock_read(cprofi_clock_of(s->sampler_tid)) : 0;
}

/* ---- sleeping and waking ---- */

static void cprofi_os_wait(uint32_t *word, uint32_t value, uint64_t deadline) {
    struct _umtx_time t;
    memset(&t, 0, sizeof t);
    t._flags = UMTX_ABSTIME;
    t._clockid = CLOCK_MONOTONIC;
    t._timeout.tv_sec = (time_t)(deadline / 1000000000u);
    t._timeout.tv_nsec = (long)(deadline % 1000000000u);
    if (deadline == UINT64_MAX)
        _umtx_op(word, UMTX_OP_WAIT_UINT_PRIVATE, value, NULL, NULL);
    else
        _umtx_op(word, UMTX_OP_WAIT_UINT_PRIVATE, value, (void *)sizeof t, &t);
}

/* Wakes all that wait. [signal] */
static void cprofi_umtx_wake(const uint32_t *word) {
    cprofi_unwind_syscall(SYS__umtx_op, (uintptr_t)word, UMTX_OP_WAKE_PRIVATE, INT32_MAX, 0, 0, 0);
}

static void cprofi_os_wake(uint32_t *word) {
    cprofi_add32(word, 1u);
    cprofi_umtx_wake(word);
}

/* [signal] */
static void cprofi_os_toggle_wake(const uint32_t *word) { cprofi_umtx_wake(word); }

static void cprofi_os_toggle_wait(const uint32_t *word, uint32_t value) {
    _umtx_op((void *)(uintptr_t)word, UMTX_OP_WAIT_UINT_PRIVATE, value, NULL, NULL);
}

static bool cprofi_os_toggle_init(void) { return true; }

/* ---- threads ---- */

static uint32_t cprofi_os_tid(void) {
    long tid = 0;
    thr_self(&tid);
    return (uint32_t)tid;
}

static bool cprofi_os_tid_gone(uint32_t tid) {
    return thr_kill2(getpid(), (long)tid, 0) != 0 && errno == ESRCH;
}

static void cprofi_os_thread_init(cprofi_os_thread *t) { memset(t, 0, sizeof *t); }

static void cprofi_os_forget(cprofi_session *s, cprofi_thread *t) { (void)s, (void)t; }

/* A thread without a name of its own has that of the process. */
static void cprofi_os_name(cprofi_session *s, cprofi_thread *t) {
    for (uint32_t i = 0; i < s->os.listed; i++) {
        const struct kinfo_proc *k = &s->os.listing[i];
        if ((uint32_t)k->ki_tid != t->tid) continue;
        snprintf(t->name, sizeof t->name, "%s%s", k->ki_tdname, k->ki_moretdname);
        return;
    }
}

/* Reads the list of threads; false without memory. */
static bool cprofi_freebsd_list(cprofi_session *s) {
    int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_PID | KERN_PROC_INC_THREAD, s->pid};
    cprofi_os *os = &s->os;
    for (int i = 0; i < 4; i++) {
        size_t size = os->listing_size;
        if (os->listing && sysctl(name, 4, os->listing, &size, NULL, 0) == 0) {
            os->listed = (uint32_t)(size / sizeof *os->listing);
            return true;
        }
        cprofi_pages_free(os->listing, os->listing_size);
        os->listed = 0;
        if (sysctl(name, 4, NULL, &size, NULL, 0) != 0) size = os->listing_size;
        os->listing_size = 2 * size + 64 * sizeof *os->listing;
        os->listing = (struct kinfo_proc *)cprofi_pages(os->listing_size);
    }
    return false;
}

/* Lists all threads at every look: their states are needed anyway. */
static void cprofi_os_scan(cprofi_session *s, uint64_t now) {
    (void)now;
    if (!cprofi_freebsd_list(s)) return;
    for (uint32_t i = 0; i < s->os.listed; i++) {
        const struct kinfo_proc *k = &s->os.listing[i];
        uint32_t tid = (uint32_t)k->ki_tid, known = cprofi_thread_known(s, tid);
        cprofi_thread *t = known ? &s->threads[known - 1] : NULL;
        if (tid == s->sampler_tid) continue;
        if (!t) {
            cprofi_thread probe;
            uint64_t cpu;
            probe.tid = tid;
            if (!cprofi_os_cpu(&probe, &cpu)) continue;
            cprofi_threads_make_room(s);
            t = cprofi_thread_add(s, tid, cpu, s->os.scanned ? 0 : cpu);
            if (!t) continue;
            t->charged = cpu;
            cprofi_thread_remember(s, (uint32_t)(t - s->threads));
        }
        t->os.running = k->ki_stat == SRUN;
    }
    s->os.scanned = true;
}

/* ---- the signal ---- */

/* [signal] */
static bool cprofi_os_readable(uintptr_t address) {
    (void)address;
    return false;
}

static void cprofi_unwind_learn(cprofi_unwinder *u) { (void)u; }

static uintptr_t cprofi_os_stack_start(void) { return 0; }

static bool cprofi_os_ask(cprofi_session *s, cprofi_thread *t, uint32_t slot, uint32_t seq) {
    (void)slot, (void)seq;
    return thr_kill2(s->pid, (long)t->tid, s->desc.signal) == 0;
}

/* [signal] */
static bool cprofi_signal_ours(cprofi_session *s, const siginfo_t *info, cprofi_slot **slot) {
    long tid = 0;
    *slot = NULL;
    if (!s || !cprofi_load_pointer(char *, &s->slots) || info->si_code != SI_LWP ||
        info->si_pid != s->pid)
        return false;
    cprofi_unwind_syscall(SYS_thr_self, (uintptr_t)&tid, 0, 0, 0, 0, 0);
    *slot = cprofi_slot_of(s, (uint32_t)tid);
    return *slot != NULL;
}

/* [signal] */
static void cprofi_signal_default(int number) {
    struct sigaction standard;
    long tid = 0;
    memset(&standard, 0, sizeof standard);
    sigaction(number, &standard, NULL);
    cprofi_unwind_syscall(SYS_thr_self, (uintptr_t)&tid, 0, 0, 0, 0, 0);
    cprofi_unwind_syscall(SYS_thr_kill, (uintptr_t)tid, (uintptr_t)number, 0, 0, 0, 0);
}

/* [signal] */
CPROFI_UNUSED static void cprofi_signal_pushed(const cprofi_unwinder *u, cprofi_slot *q) {
    struct rusage usage;
    memset(&usage, 0, sizeof usage);
    cprofi_unwind_syscall(SYS_getrusage, RUSAGE_THREAD, (uintptr_t)&usage, 0, 0, 0, 0);
    q->os.sleeps = (uint64_t)usage.ru_nvcsw;
    q->os.pushes = (uint64_t)usage.ru_nivcsw;
    q->os.after_syscall = cprofi_unwind_after_syscall(u, q->os.regs.r[CPROFI_PC]);
}

/* ---- who runs ---- */

static bool cprofi_os_may_run(cprofi_session *s, cprofi_thread *t) {
    (void)s;
    return t->os.running;
}

/* Not if it waited for a CPU right behind a system call because it has just been woken up; see
   >>linux. */
static bool cprofi_os_counts(cprofi_session *s, cprofi_thread *t, const cprofi_slot *q) {
    bool awake = t->os.switches_known &&
                 (t->os.sleeps == q->os.sleeps || t->os.pushes != q->os.pushes);
    (void)s;
    if (q->running) return true;
    t->os.sleeps = q->os.sleeps;
    t->os.pushes = q->os.pushes;
    t->os.switches_known = true;
    return awake || !q->os.after_syscall;
}

/* Who waits for a CPU and has run since the last look was taken off it, perhaps by the sampler. */
static void cprofi_os_look(cprofi_session *s, uint32_t count, uint64_t elapsed) {
    for (uint32_t i = 0; i < s->os.listed; i++) {
        const struct kinfo_proc *k = &s->os.listing[i];
        uint32_t known = k->ki_stat == SRUN ? cprofi_thread_known(s, (uint32_t)k->ki_tid) : 0;
        if (known && (k->ki_oncpu >= 0 || s->threads[known - 1].charged))
            cprofi_ask(s, &s->threads[known - 1], elapsed, k->ki_oncpu >= 0);
    }
    (void)count;
}

static cprofi_activity cprofi_os_activity(cprofi_session *s, cprofi_thread *t, uintptr_t *sp,
                                          uintptr_t *pc) {
    (void)s;
    *sp = *pc = 0;
    return t->os.running ? CPROFI_RUNNABLE : CPROFI_ASLEEP;
}

static bool cprofi_os_rests(const cprofi_session *s, const cprofi_slot *q) {
    (void)s, (void)q;
    return false;
}

static bool cprofi_os_look_asleep(cprofi_session *s, cprofi_thread *t, uintptr_t sp, uintptr_t pc,
                                  uint64_t weight) {
    (void)s, (void)t, (void)sp, (void)pc, (void)weight;
    return false;
}

/* ---- the sampler thread ---- */

static void *cprofi_sampler_main(void *argument) {
    cprofi_session *s = (cprofi_session *)argument;
    pthread_set_name_np(pthread_self(), "cprof");
    cprofi_store32(&s->sampler_tid, cprofi_os_tid());
    cprofi_modules_refresh(&s->modules);
    cprofi_os_scan(s, cprofi_os_now());
    cprofi_span_begin(s);
    cprofi_store32(&s->ready, 1u);
    cprofi_umtx_wake(&s->ready);
    cprofi_sampler_run(s);
    return NULL;
}

static cprof_result cprofi_os_prepare(cprofi_session *s) {
    if (!cprofi_unwind_init(&s->os.unwinder)) return CPROF_ERROR_MEMORY;
    if (s->os.unwinder.probe == CPROFI_PROBE_NONE) return CPROF_ERROR_SYSTEM;
    return cprofi_signal_install(s->desc.signal);
}

/* Starts the sampler with every signal blocked, and waits for its first scan. */
static cprof_result cprofi_os_start(cprofi_session *s) {
    pthread_attr_t attributes;
    sigset_t all, before;
    int error;
    s->os.scanned = false;
    s->known_count = 0;
    s->ready = 0;
    s->sampler_tid = 0;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&s->os.sampler, &attributes, cprofi_sampler_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error) return CPROF_ERROR_THREAD;
    while (!cprofi_load32(&s->ready)) cprofi_os_wait(&s->ready, 0, UINT64_MAX);
    return CPROF_OK;
}

static void cprofi_os_stop(cprofi_session *s) { pthread_join(s->os.sampler, NULL); }

static void cprofi_os_close(cprofi_session *s) {
    s->signal_gone = !cprofi_signal_restore(s->desc.signal, s->given_up != 0);
}

void cprof_thread_name(const char *name) { pthread_set_name_np(pthread_self(), name); }
#endif /* CPROFI_FREEBSD */

/* ---------------------------------------------------------------------------------------------- */
/* >>macos: threads, clocks, suspending, images

   Compiled and linked for x86-64 and ARM64, never run on macOS. The x86-64 code has taken profiles
   on Linux, where tests/macos/host.c imitates Mach's calls: what follows about those is from
   Apple's published sources, and nothing of it was measured.

   Capture: as on Windows a thread is stopped from outside: thread_suspend, thread_get_state, a copy
   of the stack, thread_resume; the copy is unwound when the thread is running again. A signal would
   do too, and cost the profiled thread more: it makes system calls return EINTR, needs a stack, and
   there is none that carries a value to one thread (pthread_kill, which takes libpthread's lock to
   check its argument, carries none; sigqueue does not exist). thread_suspend interrupts no system
   call: a thread that is waiting stays so, and stops on its way back. Only threads that run are
   stopped.
   While it is stopped a thread may hold any lock, that of malloc, of dyld, of the Objective-C
   run-time; so between suspend and resume nothing is called but Mach's calls thread_get_state,
   vm_region_64 and vm_read_overwrite, which take no lock in user space (their reply port is the
   sampler's own), and memcpy. All have been called before, so that none is bound at that moment,
   which takes dyld's lock. Kernel locks are no matter: a thread is stopped only where it holds
   none. vm_read_overwrite copies many pages by marking them copy-on-write, so it is for small
   pieces; the stack is copied by memcpy as far as vm_region_64 says that it is there.

   Who runs? THREAD_EXTENDED_INFO tells a thread's state and its times, in microseconds, with one
   call. "Running" is also who waits for a core, who has just been woken up, and for whom the kernel
   works: the first is scaled away, the others stand in a system call and wait for kernel time. Who
   waits for a core has to be given one before it stops; the sampler waits for that, and where there
   are many more such threads than cores it looks more rarely.

   Threads: task_threads gives a right on each, which is given back, but for the one that is kept of
   each known thread. The number of threads tells in between that there is a new one.
   Images: the list that dyld keeps for debuggers (dyld_all_image_infos) has a time stamp that moves
   with every change. It and the images' headers are read through the kernel, which fails where
   there is no memory: so dyld's lock is not needed, nor a callback, which could not be removed.
   What the unwinder reads is copied, but of the program itself and of the shared cache, which stay.

   The sampler asks for THREAD_TIME_CONSTRAINT_POLICY: it is woken on time, and its timers are not
   coalesced with others'. It waits on a Mach semaphore. */

#ifdef CPROFI_MACOS

#define CPROFI_SCAN_NS 50000000u /* look at the whole list of threads that often, */
#define CPROFI_COUNT_NS 4000000u /* and at their number that often */

#define CPROFI_SAMPLER_NAME "cprof"

/* ---- memory ---- */

static void *cprofi_os_common_pages(size_t size) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* The fork handler clears it in the child. */
static void *cprofi_os_session_pages(size_t size) { return cprofi_os_common_pages(size); }

static void *cprofi_pages(size_t size) {
    void *p = cprofi_os_common_pages(size);
    if (p) minherit(p, size, VM_INHERIT_NONE);
    return p;
}

static void cprofi_pages_free(void *p, size_t size) {
    if (p) munmap(p, size);
}

/* Copies memory that may not be there. [signal] */
static bool cprofi_macos_copy(void *to, uintptr_t from, size_t size) {
    vm_size_t got = 0;
    return vm_read_overwrite(mach_task_self(), from, size, (vm_address_t)to, &got) ==
               KERN_SUCCESS &&
           got == size;
}

/* Copies a string that may not be one, up to `size` bytes; what cannot be read ends it. Returns its
   size with the zero. */
static size_t cprofi_macos_text(uintptr_t from, char *to, size_t size) {
    size_t n = 0;
    while (n + 1 < size) { /* piece by piece: one is read whole or not */
        size_t part = 256 - (size_t)((from + n) % 256);
        if (part > size - 1 - n) part = size - 1 - n;
        if (!cprofi_macos_copy(to + n, from + n, part)) break;
        if (memchr(to + n, 0, part)) return strlen(to) + 1;
        n += part;
    }
    to[n] = 0;
    return n + 1;
}

static size_t cprofi_os_text(cprofi_session *s, const char *from, char *to, size_t size) {
    (void)s;
    return cprofi_macos_text((uintptr_t)from, to, size);
}

/* ---- images ---- */

/* What dyld_images.h declares, as far as it is needed; not every SDK has that. */
typedef struct {
    uint32_t version, count;
    uintptr_t images; /* CPROFI_LISTED words each: header, path, time; 0 while dyld changes them */
    uintptr_t notification;
    bool detached, initialized;
    uintptr_t dyld_header, unused[14], cache_slide;
    uint8_t cache_uuid[16];
    uintptr_t cache_base;
    uint64_t changed; /* these two since version 15 (macOS 10.12) */
    uintptr_t dyld_path;
} cprofi_macos_image_infos;

/* What the load commands of an image say. */
typedef struct {
    uintptr_t header, slide, lo, hi;
    bool main, cached; /* in the shared cache */
    uint8_t uuid[16];
    bool has_uuid;
    uintptr_t unwind_info;
    size_t unwind_info_size;
    uintptr_t starts; /* LC_FUNCTION_STARTS */
    size_t starts_size;
    uintptr_t file; /* address of the file's first byte, as __LINKEDIT has it */
    uint64_t file_end;
    size_t commands_size;
} cprofi_macos_image;

/* A segment; `p` has its command and sections. */
static void cprofi_macos_segment(cprofi_macos_image *i, const uint8_t *p, size_t size) {
    struct segment_command_64 c;
    struct section_64 section;
    memcpy(&c, p, sizeof c);
    if (strncmp(c.segname, SEG_TEXT, sizeof c.segname) == 0) {
        i->slide = i->header - (uintptr_t)c.vmaddr;
        i->hi = i->lo + (uintptr_t)c.vmsize;
    }
    if (strncmp(c.segname, SEG_LINKEDIT, sizeof c.segname) == 0) {
        i->file = i->slide + (uintptr_t)(c.vmaddr - c.fileoff); /* __TEXT comes before it */
        i->file_end = c.fileoff + c.filesize;
    }
    for (uint32_t n = 0; n < c.nsects; n++) {
        size_t at = sizeof c + n * sizeof section;
        if (size - at < sizeof section || at > size) return;
        memcpy(&section, p + at, sizeof section);
        if (strncmp(section.sectname, "__unwind_info", sizeof section.sectname) != 0) continue;
        i->unwind_info = i->slide + (uintptr_t)section.addr;
        i->unwind_info_size = (size_t)section.size;
    }
}

/* Reads the load commands of the image at `header`, through the buffer of CPROFI_COMMANDS bytes.
   False: it is none, or gone. */
static bool cprofi_macos_read(uintptr_t header, uint8_t *buffer, cprofi_macos_image *i) {
    struct mach_header_64 h;
    struct linkedit_data_command starts;
    struct load_command c;
    memset(i, 0, sizeof *i);
    memset(&starts, 0, sizeof starts);
    if (!cprofi_macos_copy(&h, header, sizeof h) || h.magic != MH_MAGIC_64 ||
        h.sizeofcmds > CPROFI_COMMANDS ||
        !cprofi_macos_copy(buffer, header + sizeof h, h.sizeofcmds))
        return false;
    i->header = i->lo = i->hi = header;
    i->main = h.filetype == MH_EXECUTE;
    i->cached = (h.flags & 0x80000000) != 0; /* MH_DYLIB_IN_CACHE */
    i->commands_size = sizeof h + h.sizeofcmds;
    for (size_t at = 0, n = 0; n < h.ncmds && h.sizeofcmds - at >= sizeof c; n++) {
        memcpy(&c, buffer + at, sizeof c);
        if (c.cmdsize < sizeof c || c.cmdsize > h.sizeofcmds - at) break;
        if (c.cmd == LC_SEGMENT_64 && c.cmdsize >= sizeof(struct segment_command_64)) {
            cprofi_macos_segment(i, buffer + at, c.cmdsize);
        } else if (c.cmd == LC_UUID && c.cmdsize >= sizeof(struct uuid_command)) {
            memcpy(i->uuid, buffer + at + sizeof c, sizeof i->uuid);
            i->has_uuid = true;
        } else if (c.cmd == LC_FUNCTION_STARTS && c.cmdsize >= sizeof starts) {
            memcpy(&starts, buffer + at, sizeof starts);
        }
        at += c.cmdsize;
    }
    if (i->file && starts.datasize) {
        i->starts = i->file + starts.dataoff;
        i->starts_size = starts.datasize;
    }
    return i->hi > i->lo;
}

/* Sets where the image's functions begin; `room` for all of them, or NULL: that is made. */
static void cprofi_macos_starts(cprofi_tables *t, uint32_t *room) {
    size_t n = cprofi_compact_starts(t->distances, NULL, 0);
    if (!room && n) room = (uint32_t *)cprofi_pages(n * sizeof *room);
    if (room) t->start_count = cprofi_compact_starts(t->distances, room, n);
    t->starts = room;
    t->distances.size = 0; /* done */
}

/* What is read of an image while samples are unwound: in place if it stays, else a copy. Where
   functions begin is computed at once of copies; of others when it is needed, for most of the
   shared cache it never is. */
static cprofi_tables *cprofi_tables_make(const cprofi_macos_image *i) {
    bool stays = i->main || i->cached;
    size_t infos = (i->unwind_info_size + 7) / 8 * 8, starts = (i->starts_size + 7) / 8 * 8;
    size_t size = sizeof(cprofi_tables) + (stays ? 0 : infos + starts + 4 * starts);
    cprofi_tables *t = (cprofi_tables *)cprofi_pages(size);
    uint8_t *to;
    if (!t) return NULL;
    to = (uint8_t *)(t + 1);
    t->block.size = size;
    t->base = i->header;
    t->code_lo[0] = i->lo;
    t->code_hi[0] = i->hi;
    t->code_count = 1;
    t->pdata.size = i->unwind_info_size;
    t->distances.size = i->starts_size;
    if (stays) {
        t->pdata.data = (const uint8_t *)i->unwind_info;
        t->distances.data = (const uint8_t *)i->starts;
        return t;
    }
    t->pdata.data = to;
    t->distances.data = to + infos;
    if (!cprofi_macos_copy(to, i->unwind_info, i->unwind_info_size)) t->pdata.size = 0;
    if (!cprofi_macos_copy(to + infos, i->starts, i->starts_size)) t->distances.size = 0;
    cprofi_macos_starts(t, (uint32_t *)(void *)(to + infos + starts));
    return t;
}

static void cprofi_macos_enter(cprofi_modules *m, cprofi_session *s, uintptr_t header,
                               uintptr_t path) {
    cprofi_macos_image i;
    cprofi_module *record;
    char text[1024];
    uint64_t identity = 0xcbf29ce484222325u;
    if (!cprofi_macos_read(header, s->os.commands, &i)) return;
    cprofi_macos_text(path, text, sizeof text);
    identity = cprofi_hash_bytes(identity, i.uuid, sizeof i.uuid);
    identity = cprofi_hash_bytes(identity, &i.hi, sizeof i.hi);
    identity = cprofi_hash_bytes(identity, text, strlen(text));
    record = cprofi_modules_record(m, i.lo, identity);
    if (!record || record->seen == m->scan) return;
    if (!record->path) {
        record->hi = i.hi;
        record->slide = i.slide;
        record->is_main = i.main;
        record->build_id_size = i.has_uuid ? sizeof i.uuid : 0;
        memcpy(record->build_id, i.uuid, sizeof i.uuid);
        record->code_count = 1;
        record->code_lo[0] = i.lo;
        record->code_hi[0] = i.hi;
        if (i.cached) {
            record->image.data = (const uint8_t *)header;
            record->image.size = i.commands_size;
        }
        record->path = cprofi_modules_string(m, text, "");
        record->name = cprofi_file_name(record->path);
        if (!*record->name) record->name = "[unnamed]";
    }
    if (!record->tables) record->tables = cprofi_tables_make(&i);
    cprofi_modules_present(m, record);
}

static void cprofi_os_modules(cprofi_modules *m) {
    cprofi_session *s = cprofi.session;
    cprofi_macos_image_infos all, again;
    uintptr_t at = s->os.images;
    size_t size;
    if (!at) return;
    memcpy(&all, (const void *)at, sizeof all);
    if (all.version < 15 || !all.images || !all.count || all.count > CPROFI_MODULES_MAX ||
        (m->scan && !m->incomplete && m->adds == all.changed))
        return;
    size = all.count * CPROFI_LISTED * sizeof(uintptr_t);
    if (size > s->os.listing_size) {
        cprofi_pages_free(s->os.listing, s->os.listing_size);
        s->os.listing_size = 2 * size;
        s->os.listing = (uintptr_t *)cprofi_pages(s->os.listing_size);
        if (!s->os.listing) s->os.listing_size = 0;
    }
    if (!s->os.listing || !cprofi_macos_copy(s->os.listing, all.images, size)) return;
    memcpy(&again, (const void *)at, sizeof again);
    if (again.changed != all.changed || again.images != all.images) return; /* next time */
    m->adds = all.changed;
    cprofi_modules_scan(m);
    for (uint32_t i = 0; i < all.count; i++)
        cprofi_macos_enter(m, s, s->os.listing[i * CPROFI_LISTED],
                           s->os.listing[i * CPROFI_LISTED + 1]);
    cprofi_macos_enter(m, s, all.dyld_header, all.dyld_path);
}

/* An image of the shared cache: its header is where the image is, its symbols are where its
   __LINKEDIT is, which all images of the cache share. */
static bool cprofi_source_cache(const cprofi_source *source, uint64_t offset, void *to,
                                size_t size) {
    uintptr_t from = (uintptr_t)source->file + (uintptr_t)offset;
    if (offset < source->memory.size && size <= source->memory.size - offset)
        from = (uintptr_t)source->memory.data + (uintptr_t)offset;
    return cprofi_macos_copy(to, from, size);
}

static cprofi_source cprofi_os_image_source(const cprofi_module *m) {
    cprofi_source source = cprofi_source_of(m->image);
    cprofi_macos_image i;
    uint8_t *commands = (uint8_t *)malloc(CPROFI_COMMANDS);
    if (commands && cprofi_macos_read(m->lo, commands, &i) && i.file_end > source.size) {
        source.read = cprofi_source_cache;
        source.file = (intptr_t)i.file;
        source.size = i.file_end;
    }
    free(commands);
    return source;
}

/* ---- clocks ---- */

static uint64_t cprofi_os_now(void) { return clock_gettime_nsec_np(CLOCK_UPTIME_RAW); }

static uint64_t cprofi_os_cpu_process(void) { return cprofi_clock_read(CLOCK_PROCESS_CPUTIME_ID); }

static bool cprofi_macos_info(thread_act_t port, thread_extended_info_data_t *info) {
    mach_msg_type_number_t count = THREAD_EXTENDED_INFO_COUNT;
    return port != MACH_PORT_NULL && thread_info(port, THREAD_EXTENDED_INFO, (thread_info_t)info,
                                                 &count) == KERN_SUCCESS;
}

/* Also notes the thread's state, and whether it is the sampler of another copy of this code: two of
   these must not stop each other, or nobody would resume them. A sampler is named before it stops
   anybody. */
static bool cprofi_os_cpu(cprofi_thread *t, uint64_t *ns) {
    thread_extended_info_data_t info;
    if (!cprofi_macos_info(t->os.port, &info)) return false;
    t->os.user = info.pth_user_time;
    t->os.kernel = info.pth_system_time;
    t->os.sampler = strncmp(info.pth_name, CPROFI_SAMPLER_NAME, sizeof info.pth_name) == 0;
    t->os.running = info.pth_run_state == TH_STATE_RUNNING;
    *ns = info.pth_user_time + info.pth_system_time;
    return true;
}

static uint64_t cprofi_os_cpu_sampler(cprofi_session *s) {
    thread_extended_info_data_t info;
    if (!s->sampler_tid || !cprofi_macos_info(s->os.sampler_port, &info)) return 0;
    return info.pth_user_time + info.pth_system_time;
}

static bool cprofi_os_times(cprofi_session *s, cprofi_thread *t, uint64_t *user,
                            uint64_t *kernel) {
    (void)s;
    *user = t->os.user;
    *kernel = t->os.kernel;
    return true;
}

/* ---- sleeping and waking ---- */

static void cprofi_os_wait(uint32_t *word, uint32_t value, uint64_t deadline) {
    semaphore_t bell = cprofi.session->os.bell;
    uint64_t now = cprofi_os_now();
    if (cprofi_load32(word) != value || deadline <= now) return;
    if (deadline == UINT64_MAX) {
        semaphore_wait(bell);
    } else {
        mach_timespec_t t;
        t.tv_sec = (unsigned)((deadline - now) / 1000000000u);
        t.tv_nsec = (clock_res_t)((deadline - now) % 1000000000u);
        semaphore_timedwait(bell, t);
    }
}

static void cprofi_os_wake(uint32_t *word) {
    cprofi_add32(word, 1u);
    semaphore_signal(cprofi.session->os.bell);
}

/* Not in the session: it must outlive that. */
static semaphore_t cprofi_toggle_bell;

static bool cprofi_os_toggle_init(void) {
    return semaphore_create(mach_task_self(), &cprofi_toggle_bell, SYNC_POLICY_FIFO, 0) ==
           KERN_SUCCESS;
}

/* [signal] */
static void cprofi_os_toggle_wake(const uint32_t *word) {
    (void)word;
    semaphore_signal(cprofi_toggle_bell); /* a system call and no more */
}

static void cprofi_os_toggle_wait(const uint32_t *word, uint32_t value) {
    if (cprofi_load32(word) == value) semaphore_wait(cprofi_toggle_bell);
}

/* ---- threads ---- */

/* The number by which a thread is known, which no other gets: the low half of it. */
static uint32_t cprofi_macos_tid(thread_act_t port) {
    thread_identifier_info_data_t info;
    mach_msg_type_number_t count = THREAD_IDENTIFIER_INFO_COUNT;
    if (thread_info(port, THREAD_IDENTIFIER_INFO, (thread_info_t)&info, &count) != KERN_SUCCESS)
        return 0;
    return (uint32_t)info.thread_id;
}

static uint32_t cprofi_os_tid(void) {
    uint64_t id = 0;
    pthread_threadid_np(NULL, &id);
    return (uint32_t)id;
}

static bool cprofi_os_tid_gone(uint32_t tid) {
    struct proc_threadinfo info;
    return proc_pidinfo(getpid(), PROC_PIDTHREADID64INFO, tid, &info, (int)sizeof info) <= 0;
}

static void cprofi_os_name(cprofi_session *s, cprofi_thread *t) {
    thread_extended_info_data_t info;
    (void)s;
    if (cprofi_macos_info(t->os.port, &info) && info.pth_name[0])
        snprintf(t->name, sizeof t->name, "%.*s", (int)sizeof t->name - 1, info.pth_name);
    else if (!t->name[0]) /* as Linux does it: the program's name */
        snprintf(t->name, sizeof t->name, "%.*s", (int)sizeof t->name - 1, getprogname());
}

static void cprofi_os_thread_init(cprofi_os_thread *t) { memset(t, 0, sizeof *t); }

static void cprofi_os_forget(cprofi_session *s, cprofi_thread *t) {
    (void)s;
    if (t->os.port != MACH_PORT_NULL) mach_port_deallocate(mach_task_self(), t->os.port);
    t->os.port = MACH_PORT_NULL;
}

/* Takes the right over. */
static void cprofi_thread_found(cprofi_session *s, thread_act_t port) {
    uint32_t tid = cprofi_macos_tid(port);
    thread_extended_info_data_t info;
    cprofi_thread *t = NULL;
    if (tid && tid != s->sampler_tid && !cprofi_thread_known(s, tid) &&
        cprofi_macos_info(port, &info)) {
        uint64_t cpu = info.pth_user_time + info.pth_system_time;
        cprofi_threads_make_room(s);
        t = cprofi_thread_add(s, tid, cpu, s->os.scanned ? 0 : cpu);
        if (t) {
            t->os.port = port;
            t->charged = cpu;
            t->os.calls.user = t->os.user = info.pth_user_time;
            t->os.calls.kernel_booked = t->os.kernel = info.pth_system_time;
            t->os.running = true; /* to be seen */
            cprofi_thread_remember(s, (uint32_t)(t - s->threads));
            cprofi_os_name(s, t);
        }
    }
    if (!t) mach_port_deallocate(mach_task_self(), port);
}

static void cprofi_os_scan(cprofi_session *s, uint64_t now) {
    cprofi_os *os = &s->os;
    thread_act_array_t list;
    mach_msg_type_number_t count;
    struct proc_taskinfo info;
    if (os->scanned && now < os->next_full) {
        if (now < os->next_count) return;
        os->next_count = now + CPROFI_COUNT_NS;
        if (proc_pidinfo(s->pid, PROC_PIDTASKINFO, 0, &info, (int)sizeof info) < (int)sizeof info ||
            (uint32_t)info.pti_threadnum == os->thread_count)
            return;
    }
    if (task_threads(mach_task_self(), &list, &count) != KERN_SUCCESS) return;
    for (mach_msg_type_number_t i = 0; i < count; i++) cprofi_thread_found(s, list[i]);
    vm_deallocate(mach_task_self(), (vm_address_t)list, count * sizeof *list);
    os->thread_count = count;
    os->next_full = now + CPROFI_SCAN_NS;
    os->scanned = true;
}

/* ---- capture ---- */

#if defined(CPROFI_X64)
#define CPROFI_STATE x86_THREAD_STATE64
#define CPROFI_STATE_COUNT x86_THREAD_STATE64_COUNT
#define CPROFI_STATE_SP CPROFI_SEH_X64_SP
typedef x86_thread_state64_t cprofi_state;
#define CPROFI_STEP cprofi_compact_x64_step
#define CPROFI_STEP_OTHER cprofi_compact_arm64_step
/* [signal] */
static inline uintptr_t cprofi_state_pc(const cprofi_state *c) { return (uintptr_t)c->__rip; }
/* [signal] */
static inline uintptr_t cprofi_state_sp(const cprofi_state *c) { return (uintptr_t)c->__rsp; }
static void cprofi_state_registers(const cprofi_state *c, cprofi_seh_registers *r) {
    r->r[CPROFI_SEH_X64_SP] = c->__rsp;
    r->r[CPROFI_SEH_X64_BP] = c->__rbp;
}
#else
#define CPROFI_STATE ARM_THREAD_STATE64
#define CPROFI_STATE_COUNT ARM_THREAD_STATE64_COUNT
#define CPROFI_STATE_SP CPROFI_SEH_ARM64_SP
typedef arm_thread_state64_t cprofi_state;
#define CPROFI_STEP cprofi_compact_arm64_step
#define CPROFI_STEP_OTHER cprofi_compact_x64_step
/* [signal] */
static inline uintptr_t cprofi_state_pc(const cprofi_state *c) {
    return (uintptr_t)arm_thread_state64_get_pc(*c);
}
/* [signal] */
static inline uintptr_t cprofi_state_sp(const cprofi_state *c) {
    return (uintptr_t)arm_thread_state64_get_sp(*c);
}
static void cprofi_state_registers(const cprofi_state *c, cprofi_seh_registers *r) {
    r->r[CPROFI_SEH_ARM64_SP] = (uint64_t)arm_thread_state64_get_sp(*c);
    r->r[CPROFI_SEH_ARM64_FP] = (uint64_t)arm_thread_state64_get_fp(*c);
    r->r[CPROFI_SEH_ARM64_LR] = (uint64_t)arm_thread_state64_get_lr(*c);
}
#endif

/* What is copied while a thread is suspended. */
typedef struct {
    cprofi_state state;
    uint8_t code[CPROFI_COMPACT_BEFORE + CPROFI_COMPACT_BEHIND]; /* around pc, */
    uintptr_t code_lo, code_hi;                                  /* from here to there */
    uintptr_t stack_lo, stack_hi; /* what is in the session's stack_copy */
    const cprofi_scopes *scopes;  /* the thread's; copied to the session's scopes_copy */
} cprofi_capture;

/* How far memory can be read from `address` on, at most to `end`. [signal] */
static uintptr_t cprofi_readable_to(uintptr_t address, uintptr_t end) {
    uintptr_t at = address;
    for (int i = 0; i < 4 && at < end; i++) {
        vm_region_basic_info_data_64_t info;
        mach_msg_type_number_t count = VM_REGION_BASIC_INFO_COUNT_64;
        vm_address_t region = at;
        vm_size_t size = 0;
        mach_port_t object = MACH_PORT_NULL; /* always null since Mac OS X 10 */
        if (vm_region_64(mach_task_self(), &region, &size, VM_REGION_BASIC_INFO_64,
                         (vm_region_info_t)&info, &count, &object) != KERN_SUCCESS ||
            region > at || !(info.protection & VM_PROT_READ))
            break;
        at = region + size;
    }
    return at < end ? at : end;
}

/* The thread is suspended: it may hold any lock. Code is read of images only, in which it cannot
   stand unless they are there. [signal] */
static void cprofi_capture_copy(cprofi_session *s, cprofi_capture *c) {
    uintptr_t pc = cprofi_state_pc(&c->state), sp = cprofi_state_sp(&c->state);
    uintptr_t end = sp + CPROFI_STACK_COPY;
    const cprofi_module_range *range = cprofi_modules_range(s->modules.index, pc);
    c->stack_lo = sp;
    c->stack_hi = cprofi_readable_to(sp, end > sp ? end : sp);
    memcpy(s->stack_copy, (const void *)sp, c->stack_hi - sp);
    if (c->scopes) memcpy(s->scopes_copy, c->scopes, sizeof *c->scopes);
    c->code_lo = c->code_hi = pc;
    if (!range) return;
    c->code_lo = pc - range->lo > CPROFI_COMPACT_BEFORE ? pc - CPROFI_COMPACT_BEFORE : range->lo;
    c->code_hi = range->hi - pc > CPROFI_COMPACT_BEHIND ? pc + CPROFI_COMPACT_BEHIND : range->hi;
    if (!cprofi_macos_copy(c->code, c->code_lo, c->code_hi - c->code_lo))
        c->code_lo = c->code_hi = pc;
}

static bool cprofi_capture_take(cprofi_session *s, const cprofi_thread *t, cprofi_capture *c) {
    mach_msg_type_number_t count = CPROFI_STATE_COUNT;
    uint64_t began = cprofi_os_now(), stopped;
    bool taken = thread_suspend(t->os.port) == KERN_SUCCESS;
    if (!taken) return false;
    taken = thread_get_state(t->os.port, CPROFI_STATE, (thread_state_t)&c->state, &count) ==
            KERN_SUCCESS;
    if (taken) cprofi_capture_copy(s, c);
    CPROFI_TEST_WHILE_SUSPENDED(t->tid);
    thread_resume(t->os.port);
    stopped = cprofi_os_now() - began;
    s->suspensions++;
    s->suspended += stopped;
    if (stopped > s->suspended_max) s->suspended_max = stopped;
    return taken;
}

/* Calls all that is called while a thread is suspended, so that it is bound. */
static void cprofi_capture_bind(cprofi_session *s) {
    mach_msg_type_number_t count = CPROFI_STATE_COUNT;
    cprofi_state state;
    char from[64] = {0};
    volatile size_t size = sizeof from;
    (void)thread_suspend(MACH_PORT_NULL);
    (void)thread_get_state(s->os.sampler_port, CPROFI_STATE, (thread_state_t)&state, &count);
    (void)thread_resume(MACH_PORT_NULL);
    (void)cprofi_readable_to((uintptr_t)from, (uintptr_t)from + 1);
    (void)cprofi_macos_copy(s->stack_copy, (uintptr_t)from, sizeof from);
    memcpy(s->stack_copy, from, size);
}

/* Whether the instruction before pc is one that enters the kernel. */
static bool cprofi_capture_in_call(const cprofi_capture *c) {
    uintptr_t pc = cprofi_state_pc(&c->state);
    const uint8_t *p = c->code + (pc - c->code_lo);
    if (pc - c->code_lo < 4) return false;
#if defined(CPROFI_X64)
    return p[-2] == 0x0f && p[-1] == 0x05; /* syscall */
#else
    return (cprofi_get32(p - 4) & 0xffe0001f) == 0xd4000001; /* svc */
#endif
}

typedef struct {
    const cprofi_module_index *index;
    const cprofi_capture *capture; /* NULL: no code is at hand */
    cprofi_seh_part part;
} cprofi_finder;

/* A cprofi_seh_find. */
static bool cprofi_macos_find(void *user, uint64_t address, cprofi_seh_image *image) {
    cprofi_finder *f = (cprofi_finder *)user;
    const cprofi_module_range *range = cprofi_modules_range(f->index, (uintptr_t)address);
    const cprofi_capture *c = f->capture;
    if (!range) return false;
    memset(image, 0, sizeof *image);
    image->base = range->tables->base;
    image->pdata = range->tables->pdata;
    image->starts = range->tables->starts;
    image->start_count = range->tables->start_count;
    image->parts = &f->part;
    if (c && c->code_lo >= image->base && c->code_lo - image->base <= UINT32_MAX) {
        f->part.bytes.data = c->code;
        f->part.bytes.size = c->code_hi - c->code_lo;
        f->part.rva = (uint32_t)(c->code_lo - image->base);
        image->part_count = 1;
    }
    return true;
}

/* Captures the thread's stack into the slot, which is answered at once. */
static bool cprofi_os_ask(cprofi_session *s, cprofi_thread *t, uint32_t slot, uint32_t seq) {
    static const cprofi_seh_step steps[2] = {CPROFI_STEP, CPROFI_STEP_OTHER};
    cprofi_slot *q = cprofi_slot_at(s, slot);
    const cprofi_module_range *range;
    cprofi_capture capture;
    cprofi_finder finder;
    cprofi_seh_images images;
    cprofi_seh_stack stack;
    cprofi_seh_registers registers;
    cprofi_scope_walk walk;
    bool truncated = false;
    cprofi_modules_refresh(&s->modules); /* what was loaded during this look must be known */
    capture.scopes = q->scopes;
    if (t->os.sampler || !cprofi_capture_take(s, t, &capture)) return false;
    memset(&registers, 0, sizeof registers);
    registers.pc = cprofi_state_pc(&capture.state);
    cprofi_state_registers(&capture.state, &registers);
    finder.index = s->modules.index;
    finder.capture = &capture;
    range = cprofi_modules_range(finder.index, (uintptr_t)registers.pc);
    if (range && range->tables->distances.size)
        cprofi_macos_starts(s->modules.records[range->id].tables, NULL);
    images.find = cprofi_macos_find;
    images.user = &finder;
    stack.data = (const uint8_t *)s->stack_copy;
    stack.lo = capture.stack_lo;
    stack.hi = capture.stack_hi;
    cprofi_scopes_walk(&walk, q->scopes ? s->scopes_copy : NULL, q->marks);
    q->depth = cprofi_seh_walk(steps[0], &images, &stack, &registers, s->keys,
                               (uint32_t)s->desc.max_depth, &truncated, CPROFI_STATE_SP, &walk);
    cprofi_scopes_rest(&walk, q->depth);
    q->mark_count = walk.count;
    for (uint32_t i = 0; i < q->depth; i++) q->frames[i] = (uintptr_t)s->keys[i];
    q->end = truncated ? CPROFI_END_LOST : CPROFI_END_ROOT;
    q->os.in_call = cprofi_capture_in_call(&capture);
    cprofi_store32(&q->word, CPROFI_SLOT_WORD(seq, CPROFI_DONE));
    return true;
}

static uintptr_t cprofi_unwind_function(const cprofi_modules *m, uint32_t id, uintptr_t pc) {
    cprofi_tables *t = m->records[id].tables;
    cprofi_seh_image image;
    uint32_t begin;
    if (!t) return 0;
    if (t->distances.size) cprofi_macos_starts(t, NULL);
    memset(&image, 0, sizeof image);
    image.starts = t->starts;
    image.start_count = t->start_count;
    return cprofi_compact_begin(&image, pc - t->base, &begin) ? t->base + begin : 0;
}

/* ---- who runs ---- */

static bool cprofi_os_may_run(cprofi_session *s, cprofi_thread *t) {
    (void)s;
    return t->os.running && !t->os.sampler;
}

static bool cprofi_os_counts(cprofi_session *s, cprofi_thread *t, const cprofi_slot *q) {
    return cprofi_calls_count(s, t, q);
}

/* Their states are asked again, right before each is stopped. */
static void cprofi_os_look(cprofi_session *s, uint32_t count, uint64_t elapsed) {
    for (uint32_t i = 0; i < count; i++) {
        cprofi_thread *t = &s->threads[s->candidates[i]];
        uint64_t cpu;
        if (cprofi_os_cpu(t, &cpu) && t->os.running) cprofi_ask(s, t, elapsed, true);
    }
}

/* Wall clock: a thread is stopped wherever it is; it need not be stopped again in the system call
   it sleeps in as long as it has used no CPU time. */
static cprofi_activity cprofi_os_activity(cprofi_session *s, cprofi_thread *t, uintptr_t *sp,
                                          uintptr_t *pc) {
    (void)s, (void)t;
    *sp = *pc = 0;
    return CPROFI_RUNNABLE;
}

static bool cprofi_os_rests(const cprofi_session *s, const cprofi_slot *q) {
    (void)s;
    return q->os.in_call;
}

static bool cprofi_os_look_asleep(cprofi_session *s, cprofi_thread *t, uintptr_t sp, uintptr_t pc,
                                  uint64_t weight) {
    (void)s, (void)t, (void)sp, (void)pc, (void)weight;
    return false; /* like any other */
}

/* ---- the sampler thread ---- */

/* To be run within a millisecond of its time, for some 100 microseconds. */
static void cprofi_macos_urgent(void) {
    thread_time_constraint_policy_data_t policy;
    mach_timebase_info_data_t base;
    if (mach_timebase_info(&base) != KERN_SUCCESS || !base.numer) return;
    policy.period = 0;
    policy.computation = (uint32_t)((uint64_t)200000 * base.denom / base.numer);
    policy.constraint = (uint32_t)((uint64_t)1000000 * base.denom / base.numer);
    policy.preemptible = TRUE;
    thread_policy_set(pthread_mach_thread_np(pthread_self()), THREAD_TIME_CONSTRAINT_POLICY,
                      (thread_policy_t)&policy, THREAD_TIME_CONSTRAINT_POLICY_COUNT);
}

static void *cprofi_sampler_main(void *argument) {
    cprofi_session *s = (cprofi_session *)argument;
    pthread_setname_np(CPROFI_SAMPLER_NAME); /* first of all: see cprofi_os_cpu */
    cprofi_macos_urgent();
    s->os.sampler_port = pthread_mach_thread_np(pthread_self());
    cprofi_store32(&s->sampler_tid, cprofi_os_tid());
    cprofi_capture_bind(s);
    cprofi_modules_refresh(&s->modules);
    cprofi_os_scan(s, cprofi_os_now());
    cprofi_span_begin(s);
    cprofi_store32(&s->ready, 1u);
    cprofi_sampler_run(s);
    return NULL;
}

static cprof_result cprofi_os_prepare(cprofi_session *s) {
    task_dyld_info_data_t info;
    mach_msg_type_number_t count = TASK_DYLD_INFO_COUNT;
    if (!s->os.commands) s->os.commands = (uint8_t *)cprofi_pages(CPROFI_COMMANDS);
    if (!s->os.commands) return CPROF_ERROR_MEMORY;
    if (task_info(mach_task_self(), TASK_DYLD_INFO, (task_info_t)&info, &count) != KERN_SUCCESS ||
        info.all_image_info_size < sizeof(cprofi_macos_image_infos))
        return CPROF_ERROR_SYSTEM;
    s->os.images = (uintptr_t)info.all_image_info_addr;
    if (semaphore_create(mach_task_self(), &s->os.bell, SYNC_POLICY_FIFO, 0) != KERN_SUCCESS)
        return CPROF_ERROR_SYSTEM;
    return CPROF_OK;
}

/* Starts the sampler with every signal blocked, and waits for its first scan. */
static cprof_result cprofi_os_start(cprofi_session *s) {
    pthread_attr_t attributes;
    sigset_t all, before;
    int error;
    s->os.next_full = s->os.next_count = 0;
    s->os.scanned = false;
    s->known_count = 0;
    s->ready = 0;
    s->sampler_tid = 0;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&s->os.sampler, &attributes, cprofi_sampler_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error) return CPROF_ERROR_THREAD;
    while (!cprofi_load32(&s->ready)) cprofi_os_nap();
    return CPROF_OK;
}

static void cprofi_os_stop(cprofi_session *s) { pthread_join(s->os.sampler, NULL); }

static void cprofi_os_close(cprofi_session *s) {
    s->sampler_tid = 0; /* its port's name may be another's soon */
    for (uint32_t i = 0; i < s->thread_count; i++) cprofi_os_forget(s, &s->threads[i]);
    if (s->os.bell != MACH_PORT_NULL) semaphore_destroy(mach_task_self(), s->os.bell);
    s->os.bell = MACH_PORT_NULL;
}

void cprof_thread_name(const char *name) {
    char text[CPROFI_NAME_SIZE]; /* as much as the system keeps; it refuses what is longer */
    snprintf(text, sizeof text, "%.*s", (int)sizeof text - 1, name);
    pthread_setname_np(text);
}
#endif /* CPROFI_MACOS */

/* ---------------------------------------------------------------------------------------------- */
/* >>windows: threads, clocks, suspending, files

   Capture: there are no signals, so the sampler stops a thread from outside: SuspendThread,
   GetThreadContext, a copy of the stack, ResumeThread; the copy is unwound when the thread is
   running again. One thread at a time. While it is stopped it may hold any lock, that of the heap
   and of the loader too; so between suspend and resume nothing is called but GetThreadContext,
   VirtualQuery, which tells the stack's bounds, and memcpy.

   Who runs? Windows 10 tells a thread's state (NtQueryInformationThread, class 40; undocumented, so
   it is believed only if it calls the sampler itself running); it is asked right before the stop.
   Elsewhere, where a thread stands when it is stopped tells: outside of a system call it ran (or
   waited for a CPU). QueryThreadCycleTime narrows down whom to stop: who has run since the last
   look, and who was met running, because some systems bring the count up to date only at clock
   interrupts and when a thread leaves its CPU. Where there are no cycle counts (Wine), anybody may
   run, and GetThreadTimes alone, in steps of 10 or 16 ms, says what the samples are worth.
   A thread that is stopped in a system call may be asleep, or the kernel may work for it: such
   samples wait until GetThreadTimes says that it used kernel time, and share that.

   Images: the loader notifies of what comes and goes (LdrRegisterDllNotification), on the thread
   and under the lock of whoever loads; the note goes into a list without a lock, with a copy of the
   image's unwind tables, so that the sampler never needs the loader's lock and nothing it reads
   can be unmapped. The list at the beginning is made by the thread that starts.

   Sleeping: a high-resolution timer (Windows 10 1803), else the system's clock is set to 1 ms while
   a profile is being taken. */

#ifdef CPROFI_WINDOWS

#define CPROFI_SCAN_NS 50000000u /* look at the whole list of threads that often, */
#define CPROFI_TAIL_NS 4000000u  /* and at its end that often */

enum {
    CPROFI_THREAD_ACCESS = THREAD_SUSPEND_RESUME | THREAD_GET_CONTEXT | THREAD_QUERY_INFORMATION |
                           SYNCHRONIZE
};

/* ---- memory, text ---- */

static void *cprofi_pages(size_t size) {
    return VirtualAlloc(NULL, size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}

static void cprofi_pages_free(void *p, size_t size) {
    (void)size;
    if (p) VirtualFree(p, 0, MEM_RELEASE);
}

static void *cprofi_os_common_pages(size_t size) { return cprofi_pages(size); }
static void *cprofi_os_session_pages(size_t size) { return cprofi_pages(size); }

/* ---- scopes ---- */

/* A slot of TlsAlloc, not a thread-local variable: MinGW's are emulated with a lock. */
static cprofi_scopes *cprofi_os_scopes(void) {
    uint32_t key = cprofi_load32(&cprofi_scoped.key);
    return key ? (cprofi_scopes *)TlsGetValue(key - 1) : NULL;
}

static void cprofi_os_scopes_set(cprofi_scopes *scopes) {
    if (!cprofi_load32(&cprofi_scoped.key)) {
        DWORD key = TlsAlloc();
        if (key == TLS_OUT_OF_INDEXES) return;
        if (!cprofi_cas32(&cprofi_scoped.key, 0, (uint32_t)key + 1)) TlsFree(key);
    }
    TlsSetValue(cprofi_load32(&cprofi_scoped.key) - 1, scopes);
}

static uint32_t cprofi_os_tid(void) { return GetCurrentThreadId(); }

static bool cprofi_os_tid_gone(uint32_t tid) {
    HANDLE thread = OpenThread(SYNCHRONIZE, FALSE, tid);
    bool gone = !thread || WaitForSingleObject(thread, 0) == WAIT_OBJECT_0;
    if (thread) CloseHandle(thread);
    return gone;
}

/* Copies a string that may not be one, up to `size` bytes; what cannot be read ends it. Returns its
   size with the zero. */
static size_t cprofi_os_text(cprofi_session *s, const char *from, char *to, size_t size) {
    size_t n = 0;
    (void)s;
    while (n + 1 < size) { /* by pages: one is read whole or not */
        size_t part = 4096 - (size_t)((uintptr_t)(from + n) % 4096);
        SIZE_T got = 0;
        if (part > size - 1 - n) part = size - 1 - n;
        if (!ReadProcessMemory(GetCurrentProcess(), from + n, to + n, part, &got) || got < part)
            break;
        if (memchr(to + n, 0, part)) return strlen(to) + 1;
        n += part;
    }
    to[n] = 0;
    return n + 1;
}

/* UTF-16 from UTF-8; false: too long, or no UTF-8. */
static bool cprofi_wide(const char *text, WCHAR *to, size_t capacity) {
    return MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, to, (int)capacity) > 0;
}

/* UTF-8 from UTF-16, as much as fits. */
static void cprofi_narrow(const WCHAR *text, char *to, size_t capacity) {
    size_t length = wcslen(text);
    int n = 0;
    for (; length; length--) {
        n = WideCharToMultiByte(CP_UTF8, 0, text, (int)length, to, (int)capacity - 1, NULL, NULL);
        if (n > 0) break;
        if (text[length - 1] >= 0xdc00 && text[length - 1] < 0xe000 && length > 1) length--;
    }
    to[n > 0 ? n : 0] = 0;
}

/* The address of a function of a library that is loaded, in the function pointer at `function`. */
static bool cprofi_windows_find(const WCHAR *library, const char *name, void *function,
                                size_t size) {
    HMODULE module = GetModuleHandleW(library);
    FARPROC found = module ? GetProcAddress(module, name) : NULL;
    if (size == sizeof found) memcpy(function, &found, size);
    return found != NULL;
}

/* Fills in what is not there yet, so that tests can set clocks of their own. */
static void cprofi_windows_api_find(cprofi_windows_api *a) {
#define CPROFI_FIND(library, name, field) \
    (a->field || cprofi_windows_find(library, name, &a->field, sizeof a->field))
    (void)CPROFI_FIND(L"kernel32.dll", "QueryThreadCycleTime", cycles);
    (void)CPROFI_FIND(L"kernel32.dll", "QueryProcessCycleTime", process_cycles);
    (void)CPROFI_FIND(L"kernel32.dll", "GetThreadTimes", times);
    (void)CPROFI_FIND(L"ntdll.dll", "NtGetNextThread", next_thread);
    (void)CPROFI_FIND(L"ntdll.dll", "NtQueryInformationThread", query_thread);
    (void)CPROFI_FIND(L"ntdll.dll", "NtTerminateThread", thread_end);
    (void)CPROFI_FIND(L"ntdll.dll", "RtlAcquirePebLock", exit_lock);
    (void)CPROFI_FIND(L"ntdll.dll", "RtlReleasePebLock", exit_unlock);
    (void)CPROFI_FIND(L"ntdll.dll", "RtlDllShutdownInProgress", ending);
    (void)CPROFI_FIND(L"ntdll.dll", "LdrRegisterDllNotification", notify);
    (void)CPROFI_FIND(L"ntdll.dll", "LdrUnregisterDllNotification", notify_no_more);
    if (!CPROFI_FIND(L"kernelbase.dll", "GetThreadDescription", get_name))
        (void)CPROFI_FIND(L"kernel32.dll", "GetThreadDescription", get_name);
    if (!CPROFI_FIND(L"kernelbase.dll", "SetThreadDescription", set_name))
        (void)CPROFI_FIND(L"kernel32.dll", "SetThreadDescription", set_name);
#undef CPROFI_FIND
}

/* ---- clocks ---- */

static uint64_t cprofi_os_now(void) {
    static uint64_t frequency; /* never changes while the system is up */
    LARGE_INTEGER t;
    uint64_t f = frequency, n;
    if (!f) {
        QueryPerformanceFrequency(&t);
        frequency = f = (uint64_t)t.QuadPart;
    }
    QueryPerformanceCounter(&t);
    n = (uint64_t)t.QuadPart;
    return n / f * 1000000000u + n % f * 1000000000u / f;
}

static uint64_t cprofi_filetime_ns(const FILETIME *t) {
    return ((uint64_t)t->dwHighDateTime << 32 | t->dwLowDateTime) * 100;
}

static uint64_t cprofi_os_calendar(void) {
    FILETIME now;
    GetSystemTimeAsFileTime(&now);
    return cprofi_filetime_ns(&now) - (uint64_t)11644473600u * 1000000000u; /* from 1601 to 1970 */
}

/* CPU time of a thread by the system's coarse clock. */
static bool cprofi_windows_times(const cprofi_os *os, HANDLE thread, uint64_t *user,
                                 uint64_t *kernel) {
    FILETIME created, ended, k, u;
    if (!os->api.times(thread, &created, &ended, &k, &u)) return false;
    *user = cprofi_filetime_ns(&u);
    *kernel = cprofi_filetime_ns(&k);
    return true;
}

static uint64_t cprofi_windows_cycles_ns(const cprofi_os *os, ULONG64 cycles) {
    return (uint64_t)((double)cycles * os->ns_per_cycle);
}

static bool cprofi_windows_cpu(const cprofi_os *os, HANDLE thread, uint64_t *ns) {
    uint64_t user, kernel;
    ULONG64 cycles;
    if (os->fine) {
        if (!os->api.cycles(thread, &cycles)) return false;
        *ns = cprofi_windows_cycles_ns(os, cycles);
        return true;
    }
    if (!cprofi_windows_times(os, thread, &user, &kernel)) return false;
    *ns = user + kernel;
    return true;
}

/* The coarse clock is read once a look: it is dear, and does not tell who runs. */
static bool cprofi_os_cpu(cprofi_thread *t, uint64_t *ns) {
    const cprofi_session *s = cprofi.session;
    if (t->os.ended) return false;
    if (!s->os.fine && s->ticks && !s->paused && t->os.read_tick == s->ticks) {
        *ns = t->cpu;
        return true;
    }
    t->os.read_tick = s->ticks;
    return cprofi_windows_cpu(&s->os, t->os.handle, ns);
}

static uint64_t cprofi_os_cpu_process(void) {
    const cprofi_os *os = &cprofi.session->os;
    FILETIME created, ended, kernel, user;
    ULONG64 cycles;
    if (os->fine && os->api.process_cycles && os->api.process_cycles(GetCurrentProcess(), &cycles))
        return cprofi_windows_cycles_ns(os, cycles);
    if (!GetProcessTimes(GetCurrentProcess(), &created, &ended, &kernel, &user)) return 0;
    return cprofi_filetime_ns(&kernel) + cprofi_filetime_ns(&user);
}

static uint64_t cprofi_os_cpu_sampler(cprofi_session *s) {
    uint64_t ns = 0;
    if (s->os.sampler) cprofi_windows_cpu(&s->os, s->os.sampler, &ns);
    return ns;
}

/* How long a cycle of the count is: a thread that does nothing else counts as fast as time goes by,
   or slower when it is interrupted; so the fastest of a few measurements is right. */
static void cprofi_windows_calibrate(cprofi_os *os) {
    double best = 0;
    os->fine = false;
    for (int i = 0; i < 5; i++) {
        uint64_t begin = cprofi_os_now(), end;
        ULONG64 before = 0, after = 0;
        if (!os->api.cycles || !os->api.cycles(GetCurrentThread(), &before)) return;
        do end = cprofi_os_now();
        while (end - begin < 200000);
        if (!os->api.cycles(GetCurrentThread(), &after) || after <= before) return;
        if ((double)(after - before) / (double)(end - begin) > best)
            best = (double)(after - before) / (double)(end - begin);
    }
    os->ns_per_cycle = 1 / best;
    os->fine = true;
}

/* ---- sleeping and waking ---- */

static void cprofi_os_wait(uint32_t *word, uint32_t value, uint64_t deadline) {
    cprofi_os *os = &cprofi.session->os;
    HANDLE handles[2];
    DWORD count = 1;
    if (cprofi_load32(word) != value) return;
    handles[0] = os->bell;
    handles[1] = os->timer;
    if (deadline != UINT64_MAX) {
        uint64_t now = cprofi_os_now();
        LARGE_INTEGER due;
        due.QuadPart = deadline > now ? -(LONGLONG)((deadline - now) / 100) : 0;
        if (due.QuadPart == 0 || !SetWaitableTimer(os->timer, &due, 0, NULL, NULL, FALSE)) return;
        count = 2;
    }
    WaitForMultipleObjects(count, handles, FALSE, INFINITE);
}

static void cprofi_os_wake(uint32_t *word) {
    cprofi_add32(word, 1u);
    if (cprofi.session->os.bell) SetEvent(cprofi.session->os.bell);
}

static void cprofi_os_nap(void) { Sleep(1); }

static bool cprofi_windows_timer_open(cprofi_os *os) {
    os->timer = CreateWaitableTimerExW(NULL, NULL, 2 /* high resolution */, TIMER_ALL_ACCESS);
    if (!os->timer) {
        UINT(WINAPI *begin)(UINT) = NULL;
        os->timer = CreateWaitableTimerW(NULL, FALSE, NULL);
        os->timer_library = LoadLibraryW(L"winmm.dll");
        if (os->timer_library &&
            cprofi_windows_find(L"winmm.dll", "timeBeginPeriod", &begin, sizeof begin))
            begin(1);
    }
    return os->timer != NULL;
}

static void cprofi_windows_timer_close(cprofi_os *os) {
    UINT(WINAPI *end)(UINT) = NULL;
    if (os->timer_library) {
        if (cprofi_windows_find(L"winmm.dll", "timeEndPeriod", &end, sizeof end)) end(1);
        FreeLibrary(os->timer_library);
        os->timer_library = NULL;
    }
    if (os->timer) CloseHandle(os->timer);
    os->timer = NULL;
}

/* ---- files, functions of the process ---- */

/* Windows takes paths of more than 260 characters only in this form. */
static bool cprofi_windows_path(const char *path, WCHAR *to, size_t capacity) {
    static const WCHAR prefix[] = L"\\\\?\\";
    WCHAR given[CPROFI_PATH * 4];
    size_t length;
    DWORD n;
    if (!cprofi_wide(path, given, CPROFI_COUNT(given)) || !given[0]) return false;
    length = wcslen(given);
    if (length < 240 || wcsncmp(given, L"\\\\", 2) == 0) {
        if (length >= capacity) return false;
        memcpy(to, given, (length + 1) * sizeof *to);
        return true;
    }
    memcpy(to, prefix, sizeof prefix);
    n = GetFullPathNameW(given, (DWORD)capacity - 4, to + 4, NULL);
    return n > 0 && n < capacity - 4;
}

static bool cprofi_source_read_file(const cprofi_source *source, uint64_t offset, void *to,
                                    size_t size) {
    char *at = (char *)to;
    while (size) {
        OVERLAPPED place;
        DWORD part = size > 1u << 30 ? 1u << 30 : (DWORD)size, got = 0;
        memset(&place, 0, sizeof place);
        place.Offset = (DWORD)offset;
        place.OffsetHigh = (DWORD)(offset >> 32);
        if (!ReadFile((HANDLE)source->file, at, part, &got, &place) || !got) return false;
        at += got;
        offset += got;
        size -= got;
    }
    return true;
}

static bool cprofi_source_open(const char *path, cprofi_source *source) {
    WCHAR wide[CPROFI_PATH * 4];
    LARGE_INTEGER size;
    HANDLE file;
    memset(source, 0, sizeof *source);
    if (!cprofi_windows_path(path, wide, CPROFI_COUNT(wide))) return false;
    file = CreateFileW(wide, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                       NULL, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, NULL);
    if (file == INVALID_HANDLE_VALUE) return false;
    if (GetFileType(file) != FILE_TYPE_DISK || !GetFileSizeEx(file, &size) || size.QuadPart <= 0) {
        CloseHandle(file);
        return false;
    }
    source->file = (intptr_t)file;
    source->size = (uint64_t)size.QuadPart;
    source->read = cprofi_source_read_file;
    return true;
}

static void cprofi_source_close(cprofi_source *source) {
    if (source->read) CloseHandle((HANDLE)source->file);
}

static char cprofi_os_list_separator(void) { return ';'; }

/* Not getenv: what it returns is not UTF-8, and it misses what was set behind the C library's back,
   as Rust does. */
static size_t cprofi_os_environment(const char *name, char *to, size_t capacity) {
    WCHAR wide_name[64], value[4 * CPROFI_PATH];
    DWORD size;
    int n;
    value[0] = 0;
    if (!cprofi_wide(name, wide_name, CPROFI_COUNT(wide_name))) return 0;
    size = GetEnvironmentVariableW(wide_name, value, (DWORD)CPROFI_COUNT(value));
    if (size >= CPROFI_COUNT(value)) return capacity + 1;
    if (!size) return 0; /* or empty, which is the same to those who ask */
    n = WideCharToMultiByte(CP_UTF8, 0, value, -1, to, (int)capacity, NULL, NULL);
    return n > 0 ? (size_t)n : capacity + 1;
}

static char *cprofi_os_real_path(const char *path) {
    (void)path;
    return NULL; /* links are followed by whoever opens it */
}

static bool cprofi_os_jit_map(cprofi_source *source) {
    (void)source;
    return false;
}

static size_t cprofi_os_image_paths(const cprofi_module *m, const char *paths[2]) {
    paths[0] = m->path;
    return 1;
}

static cprofi_source cprofi_os_image_source(const cprofi_module *m) {
    return cprofi_source_of(m->image);
}

static uintptr_t cprofi_os_function(const char *name) {
    (void)name;
    return 0;
}

/* The headers of a mapped image, NULL if they are not what they should be. */
static const IMAGE_NT_HEADERS *cprofi_image_headers(uintptr_t base) {
    const IMAGE_DOS_HEADER *dos = (const IMAGE_DOS_HEADER *)base;
    const IMAGE_NT_HEADERS *nt;
    if (dos->e_magic != IMAGE_DOS_SIGNATURE || dos->e_lfanew < 0 || dos->e_lfanew > 0x10000)
        return NULL;
    nt = (const IMAGE_NT_HEADERS *)(base + (uintptr_t)dos->e_lfanew);
    if (nt->Signature != IMAGE_NT_SIGNATURE ||
        nt->OptionalHeader.Magic != IMAGE_NT_OPTIONAL_HDR_MAGIC)
        return NULL;
    return nt;
}

/* A C++ library that is linked into the program exports nothing, but MinGW leaves its symbols. */
static cprofi_demangle_fn cprofi_demangler_inside(void) {
    HMODULE program = GetModuleHandleW(NULL);
    cprofi_demangle_fn function = NULL;
    WCHAR wide[CPROFI_PATH];
    char path[CPROFI_PATH * 3];
    cprofi_source source;
    cprofi_pe pe;
    uintptr_t address = 0;
    wide[GetModuleFileNameW(program, wide, CPROFI_PATH - 1)] = 0;
    cprofi_narrow(wide, path, sizeof path);
    if (!cprofi_source_open(path, &source)) return NULL;
    if (cprofi_pe_open(&source, &pe)) {
        const IMAGE_NT_HEADERS *nt = cprofi_image_headers((uintptr_t)program);
        if (nt && nt->FileHeader.TimeDateStamp == pe.time_date_stamp)
            address = cprofi_pe_symbol(&pe, "__cxa_demangle");
        if (address) address += (uintptr_t)program;
        cprofi_pe_close(&pe);
    }
    cprofi_source_close(&source);
    if (address) memcpy(&function, &address, sizeof function);
    return function;
}

static cprofi_demangle_fn cprofi_demangler_open(void **library) {
    static const WCHAR *const libraries[] = {NULL, L"libstdc++-6.dll", L"libc++.dll",
                                             L"libc++abi.dll"};
    cprofi_demangle_fn function = NULL;
    *library = NULL;
    for (size_t i = 0; i < CPROFI_COUNT(libraries); i++)
        if (cprofi_windows_find(libraries[i], "__cxa_demangle", &function, sizeof function))
            return function;
    return cprofi_demangler_inside();
}

static void cprofi_demangler_close(void *library) { (void)library; }

/* ---- names from PDBs ----

   DbgHelp serves one thread at a time and has one set of options for the process. So it is loaded
   when it is needed, with a session of our own (a session is known by its process handle: a
   duplicate), under the host's lock and under the mutex that Rust's standard library takes for it,
   and is left as it was found. */

typedef struct {
    HANDLE session, mutex;
    bool locked; /* the host's lock and the mutex are ours */
    DWORD options;
    DWORD(WINAPI *get_options)(void);
    DWORD(WINAPI *set_options)(DWORD);
    BOOL(WINAPI *open)(HANDLE, PCWSTR, BOOL);
    BOOL(WINAPI *close)(HANDLE);
    DWORD64(WINAPI *load)(HANDLE, HANDLE, PCWSTR, PCWSTR, DWORD64, DWORD, void *, DWORD);
    BOOL(WINAPI *info)(HANDLE, DWORD64, IMAGEHLP_MODULEW64 *);
    BOOL(WINAPI *symbol)(HANDLE, DWORD64, DWORD64 *, SYMBOL_INFOW *);
    BOOL(WINAPI *line)(HANDLE, DWORD64, DWORD *, IMAGEHLP_LINEW64 *);
    /* Windows 8; without them there are no inlined functions */
    DWORD(WINAPI *inline_count)(HANDLE, DWORD64);
    BOOL(WINAPI *inline_trace)(HANDLE, DWORD64, DWORD, DWORD64, DWORD64, DWORD *, DWORD *);
    BOOL(WINAPI *inline_symbol)(HANDLE, DWORD64, ULONG, DWORD64 *, SYMBOL_INFOW *);
    BOOL(WINAPI *inline_line)(HANDLE, DWORD64, ULONG, DWORD64, DWORD *, IMAGEHLP_LINEW64 *);
} cprofi_dbghelp;

static bool cprofi_dbghelp_find(cprofi_dbghelp *d) {
    bool all = true;
#define CPROFI_FIND(name, field) \
    cprofi_windows_find(L"dbghelp.dll", name, &d->field, sizeof d->field)
    all = CPROFI_FIND("SymGetOptions", get_options) && all;
    all = CPROFI_FIND("SymSetOptions", set_options) && all;
    all = CPROFI_FIND("SymInitializeW", open) && all;
    all = CPROFI_FIND("SymCleanup", close) && all;
    all = CPROFI_FIND("SymLoadModuleExW", load) && all;
    all = CPROFI_FIND("SymGetModuleInfoW64", info) && all;
    all = CPROFI_FIND("SymFromAddrW", symbol) && all;
    all = CPROFI_FIND("SymGetLineFromAddrW64", line) && all;
    if (!CPROFI_FIND("SymAddrIncludeInlineTrace", inline_count) ||
        !CPROFI_FIND("SymQueryInlineTrace", inline_trace) ||
        !CPROFI_FIND("SymFromInlineContextW", inline_symbol) ||
        !CPROFI_FIND("SymGetLineFromInlineContextW", inline_line))
        d->inline_count = NULL;
#undef CPROFI_FIND
    return all;
}

/* Where PDBs are looked for: where the user says, beside the image, where _NT_SYMBOL_PATH says, and
   where the linker put it. */
static void cprofi_dbghelp_path(const cprofi_symbols *s, const cprofi_module *m, WCHAR *to,
                                size_t capacity) {
    static const WCHAR *const variables[] = {L"_NT_SYMBOL_PATH", L"_NT_ALT_SYMBOL_PATH"};
    WCHAR part[CPROFI_PATH];
    size_t used = 0, size;
    to[0] = 0;
    for (int i = 0; i < 4; i++) {
        part[0] = 0;
        if (i == 0 && s->debug_places.directories)
            cprofi_wide(s->debug_places.directories, part, CPROFI_COUNT(part));
        if (i == 1 && cprofi_wide(m->path, part, CPROFI_COUNT(part))) {
            WCHAR *slash = wcsrchr(part, L'\\');
            if (slash) *slash = 0;
        }
        if (i >= 2 && GetEnvironmentVariableW(variables[i - 2], part, CPROFI_PATH) >= CPROFI_PATH)
            part[0] = 0;
        size = wcslen(part);
        if (!size || used + size + 2 > capacity) continue;
        if (used) to[used++] = L';';
        memcpy(to + used, part, (size + 1) * sizeof *to);
        used += size;
    }
}

/* Takes the locks and opens a session with the one module in it. */
static bool cprofi_dbghelp_open(const cprofi_symbols *s, const cprofi_module *m,
                                cprofi_dbghelp *d) {
    WCHAR path[CPROFI_PATH], places[4 * CPROFI_PATH];
    IMAGEHLP_MODULEW64 info;
    char name[48];
    memset(d, 0, sizeof *d);
    if (!cprofi_wide(m->path, path, CPROFI_COUNT(path)) || !LoadLibraryW(L"dbghelp.dll") ||
        !cprofi_dbghelp_find(d))
        return false;
    snprintf(name, sizeof name, "Local\\RustBacktraceMutex%08lX",
             (unsigned long)GetCurrentProcessId());
    d->mutex = CreateMutexA(NULL, FALSE, name);
    if (s->dbghelp_lock) s->dbghelp_lock(true);
    if (d->mutex) WaitForSingleObject(d->mutex, INFINITE);
    d->locked = true;
    d->options = d->get_options();
    d->set_options(SYMOPT_UNDNAME | SYMOPT_LOAD_LINES | SYMOPT_FAIL_CRITICAL_ERRORS |
                   SYMOPT_NO_PROMPTS);
    cprofi_dbghelp_path(s, m, places, CPROFI_COUNT(places));
    memset(&info, 0, sizeof info);
    info.SizeOfStruct = sizeof info;
    DuplicateHandle(GetCurrentProcess(), GetCurrentProcess(), GetCurrentProcess(), &d->session, 0,
                    FALSE, DUPLICATE_SAME_ACCESS);
    if (d->session && !d->open(d->session, places, FALSE)) {
        CloseHandle(d->session);
        d->session = NULL;
    }
    return d->session && d->load(d->session, NULL, path, NULL, m->lo, (DWORD)(m->hi - m->lo), NULL,
                                 0) &&
           d->info(d->session, m->lo, &info) && info.SymType == SymPdb;
}

static void cprofi_dbghelp_close(const cprofi_symbols *s, cprofi_dbghelp *d) {
    if (!d->locked) return;
    if (d->session) {
        d->close(d->session);
        CloseHandle(d->session);
    }
    d->set_options(d->options);
    if (d->mutex) {
        ReleaseMutex(d->mutex);
        CloseHandle(d->mutex);
    }
    if (s->dbghelp_lock) s->dbghelp_lock(false);
}

/* One frame: of the function that holds the code if `inlined` is false, else of inline context
   `context`. `own`: the context whose line is that of this frame. */
static bool cprofi_dbghelp_frame(cprofi_symbols *s, cprofi_dbghelp *d, uint64_t address,
                                 DWORD context, bool inlined, bool contexts,
                                 cprofi_dwarf_frame *f) {
    union {
        SYMBOL_INFOW info;
        WCHAR room[sizeof(SYMBOL_INFOW) / sizeof(WCHAR) + 2048];
    } symbol;
    IMAGEHLP_LINEW64 line;
    DWORD64 far_off;
    DWORD off;
    char text[3 * 2048];
    memset(f, 0, sizeof *f);
    memset(&symbol, 0, sizeof symbol);
    memset(&line, 0, sizeof line);
    symbol.info.SizeOfStruct = sizeof symbol.info;
    symbol.info.MaxNameLen = 2000;
    line.SizeOfStruct = sizeof line;
    f->inlined = inlined;
    if (inlined ? d->inline_symbol(d->session, address, context, &far_off, &symbol.info)
                : d->symbol(d->session, address, &far_off, &symbol.info)) {
        cprofi_narrow(symbol.info.Name, text, sizeof text);
        f->function = cprofi_symbols_copy(s, text);
        if (!f->function) return false;
    }
    if ((contexts ? d->inline_line(d->session, address, context, 0, &off, &line)
                  : d->line(d->session, address, &off, &line)) && line.FileName) {
        cprofi_narrow(line.FileName, text, sizeof text);
        f->file = cprofi_symbols_copy(s, text);
        f->line = line.LineNumber;
        if (!f->file) return false;
    }
    return true;
}

static bool cprofi_os_lookup(cprofi_symbols *s, const cprofi_module *m, const uintptr_t *pcs,
                             size_t n, const char **names, cprofi_dwarf_want *wants,
                             cprofi_dwarf_answer *answer) {
    cprofi_dbghelp d;
    bool open = false, ok = true;
    memset(&d, 0, sizeof d);
    for (size_t i = 0; i < n && !open; i++) open = !wants[i].count;
    open = open && cprofi_dbghelp_open(s, m, &d);
    for (size_t i = 0; open && ok && i < n; i++) {
        if (wants[i].count) continue;
        DWORD count = d.inline_count ? d.inline_count(d.session, pcs[i]) : 0, context = 0, frame;
        if (count && !d.inline_trace(d.session, pcs[i], 0, pcs[i], pcs[i], &context, &frame))
            count = 0;
        wants[i].first = (uint32_t)answer->count;
        wants[i].count = 0;
        for (DWORD k = 0; ok && k <= count; k++) {
            if (answer->count == answer->capacity) {
                size_t more = answer->capacity ? 2 * answer->capacity : 256;
                void *moved = realloc(answer->frames, more * sizeof *answer->frames);
                ok = moved != NULL;
                if (!ok) break;
                answer->frames = (cprofi_dwarf_frame *)moved;
                answer->capacity = more;
            }
            ok = cprofi_dbghelp_frame(s, &d, pcs[i], context + k, k < count, count > 0,
                                      &answer->frames[answer->count]);
            answer->count++;
            wants[i].count++;
        }
        if (ok && answer->frames[answer->count - 1].function) names[i] = NULL;
    }
    cprofi_dbghelp_close(s, &d);
    return ok;
}

/* An output file, as on the other systems: written beside its place and moved there. */
static bool cprofi_file_open(cprofi_file *f, const char *path) {
    DWORD attributes;
    char ending[32];
    size_t length;
    f->temporary[0] = 0;
    f->handle = INVALID_HANDLE_VALUE;
    if (!cprofi_windows_path(path, f->path, CPROFI_COUNT(f->path))) return false;
    attributes = GetFileAttributesW(f->path);
    if (wcsncmp(f->path, L"\\\\.\\", 4) == 0 || _wcsicmp(f->path, L"NUL") == 0 ||
        _wcsicmp(f->path, L"CON") == 0) {
        f->handle = CreateFileW(f->path, GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL,
                                OPEN_EXISTING, 0, NULL);
        return f->handle != INVALID_HANDLE_VALUE;
    }
    if (attributes != INVALID_FILE_ATTRIBUTES &&
        (attributes & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_READONLY)))
        return false;
    length = wcslen(f->path);
    memcpy(f->temporary, f->path, length * sizeof *f->path);
    for (int number = 0; f->handle == INVALID_HANDLE_VALUE && number < 100; number++) {
        snprintf(ending, sizeof ending, ".%lu.%d.tmp", (unsigned long)GetCurrentProcessId(),
                 number);
        cprofi_wide(ending, f->temporary + length, sizeof ending);
        f->handle = CreateFileW(f->temporary, GENERIC_WRITE, FILE_SHARE_READ, NULL, CREATE_NEW,
                                FILE_ATTRIBUTE_NORMAL, NULL);
        if (f->handle == INVALID_HANDLE_VALUE && GetLastError() != ERROR_FILE_EXISTS) return false;
    }
    return f->handle != INVALID_HANDLE_VALUE;
}

static bool cprofi_file_write(void *user, const void *data, size_t size) {
    const cprofi_file *f = (const cprofi_file *)user;
    const char *at = (const char *)data;
    while (size) {
        DWORD part = size > 1u << 30 ? 1u << 30 : (DWORD)size, done = 0;
        if (!WriteFile(f->handle, at, part, &done, NULL) || !done) return false;
        at += done;
        size -= done;
    }
    return true;
}

static bool cprofi_file_close(cprofi_file *f, bool keep) {
    if (f->handle == INVALID_HANDLE_VALUE) return false;
    if (!CloseHandle(f->handle)) keep = false;
    if (!f->temporary[0]) return keep;
    if (keep && MoveFileExW(f->temporary, f->path, MOVEFILE_REPLACE_EXISTING)) return true;
    DeleteFileW(f->temporary);
    return false;
}

static void cprofi_os_stderr(const char *text, size_t size) {
    DWORD done;
    WriteFile(GetStdHandle(STD_ERROR_HANDLE), text, (DWORD)size, &done, NULL);
}

static int32_t cprofi_os_pid(void) { return (int32_t)GetCurrentProcessId(); }

/* ---- images ---- */

/* A data directory that lies inside the image, else empty. */
static cprofi_span cprofi_image_directory(uintptr_t base, const IMAGE_NT_HEADERS *nt, DWORD which) {
    const IMAGE_DATA_DIRECTORY *d = &nt->OptionalHeader.DataDirectory[which];
    cprofi_span image = {(const uint8_t *)base, nt->OptionalHeader.SizeOfImage};
    if (which >= nt->OptionalHeader.NumberOfRvaAndSizes || !d->VirtualAddress)
        return cprofi_span_part(image, 0, 0);
    return cprofi_span_part(image, d->VirtualAddress, d->Size);
}

/* GUID and age of the PDB: what symbol servers know an image by. */
static void cprofi_image_build_id(cprofi_news *n, const IMAGE_NT_HEADERS *nt) {
    cprofi_span image = {(const uint8_t *)n->base, n->size};
    cprofi_span debug = cprofi_image_directory(n->base, nt, IMAGE_DIRECTORY_ENTRY_DEBUG);
    for (size_t at = 0; debug.size - at >= sizeof(IMAGE_DEBUG_DIRECTORY);
         at += sizeof(IMAGE_DEBUG_DIRECTORY)) {
        IMAGE_DEBUG_DIRECTORY d;
        cprofi_span record;
        memcpy(&d, debug.data + at, sizeof d);
        record = cprofi_span_part(image, d.AddressOfRawData, 24);
        if (d.Type != IMAGE_DEBUG_TYPE_CODEVIEW || !record.data ||
            memcmp(record.data, "RSDS", 4) != 0)
            continue;
        memcpy(n->build_id, record.data + 4, 20);
        n->build_id_size = 20;
        return;
    }
}

/* The part of the image that holds unwind infos: from the first that the table mentions to some
   way behind the last. */
static cprofi_span cprofi_image_unwind_infos(uintptr_t base, const IMAGE_NT_HEADERS *nt,
                                             cprofi_span pdata, uint32_t *rva) {
    cprofi_span image = {(const uint8_t *)base, nt->OptionalHeader.SizeOfImage};
    const IMAGE_SECTION_HEADER *section = IMAGE_FIRST_SECTION(nt);
    uint32_t lo = UINT32_MAX, hi = 0, end = 0;
#ifdef CPROFI_ARM64
    const size_t entry = 8, at = 4;
#else
    const size_t entry = 12, at = 8;
#endif
    for (size_t i = 0; i + entry <= pdata.size; i += entry) {
        uint32_t info = cprofi_get32(pdata.data + i + at);
        if (entry == 8 && (info & 3)) continue; /* packed: there is none */
        if (info < lo) lo = info;
        if (info > hi) hi = info;
    }
    for (unsigned i = 0; lo <= hi && i < nt->FileHeader.NumberOfSections; i++)
        if (hi >= section[i].VirtualAddress &&
            hi - section[i].VirtualAddress < section[i].Misc.VirtualSize)
            end = section[i].VirtualAddress + section[i].Misc.VirtualSize;
    if (end - hi > 2048) end = hi + 2048; /* an info is at most 4 + 255 * 2 + 2 + 12 bytes */
    *rva = lo;
    return cprofi_span_part(image, lo <= hi ? lo : 0, lo <= hi && end > lo ? end - lo : 0);
}

/* What is read of an image while samples are unwound; a copy, but of the program itself, which
   stays. */
static cprofi_tables *cprofi_tables_make(uintptr_t base, const IMAGE_NT_HEADERS *nt) {
    const IMAGE_SECTION_HEADER *section = IMAGE_FIRST_SECTION(nt);
    bool stays = base == (uintptr_t)GetModuleHandleW(NULL);
    cprofi_tables t, *copy;
    memset(&t, 0, sizeof t);
    t.base = base;
    t.pdata = cprofi_image_directory(base, nt, IMAGE_DIRECTORY_ENTRY_EXCEPTION);
    t.infos = cprofi_image_unwind_infos(base, nt, t.pdata, &t.infos_rva);
    for (unsigned i = 0; i < nt->FileHeader.NumberOfSections; i++) {
        uintptr_t lo = base + section[i].VirtualAddress, hi = lo + section[i].Misc.VirtualSize;
        if (!(section[i].Characteristics & IMAGE_SCN_MEM_EXECUTE) || hi <= lo) continue;
        if (t.code_count == CPROFI_TABLES_CODE) t.code_hi[t.code_count - 1] = hi;
        else {
            t.code_lo[t.code_count] = lo;
            t.code_hi[t.code_count++] = hi;
        }
    }
    t.block.size = sizeof t + (stays ? 0 : t.pdata.size + t.infos.size);
    copy = (cprofi_tables *)cprofi_pages(t.block.size);
    if (!copy) return NULL;
    if (!stays) {
        uint8_t *to = (uint8_t *)(copy + 1);
        if (t.pdata.size) memcpy(to, t.pdata.data, t.pdata.size);
        t.pdata.data = to;
        if (t.infos.size) memcpy(to + t.pdata.size, t.infos.data, t.infos.size);
        t.infos.data = to + t.pdata.size;
    }
    *copy = t;
    return copy;
}

static void cprofi_news_free(cprofi_news *n) {
    if (n->tables) cprofi_pages_free(n->tables, n->tables->block.size);
    cprofi_pages_free(n, sizeof *n);
}

/* A note on an image that is mapped and stays so meanwhile, or with `there` false has gone. */
static void cprofi_news_add(cprofi_os *os, uintptr_t base, const WCHAR *path, bool there) {
    const IMAGE_NT_HEADERS *nt = there ? cprofi_image_headers(base) : NULL;
    cprofi_news *n;
    if (there && !nt) return;
    n = (cprofi_news *)cprofi_pages(sizeof *n);
    if (!n) return;
    n->base = base;
    if (there) {
        uint32_t facts[3];
        n->size = nt->OptionalHeader.SizeOfImage;
        n->stamp = facts[0] = nt->FileHeader.TimeDateStamp;
        facts[1] = nt->OptionalHeader.CheckSum;
        facts[2] = (uint32_t)n->size;
        cprofi_narrow(path, n->path, sizeof n->path);
        cprofi_image_build_id(n, nt);
        n->identity = cprofi_hash_bytes(0xcbf29ce484222325u, facts, sizeof facts);
        n->identity = cprofi_hash_bytes(n->identity, n->path, strlen(n->path));
        n->tables = cprofi_tables_make(base, nt);
        if (!n->tables) {
            cprofi_news_free(n);
            return;
        }
    }
    do n->next = cprofi_load_pointer(cprofi_news *, &os->news);
    while (InterlockedCompareExchangePointer((PVOID volatile *)(void *)&os->news, n, n->next) !=
           n->next);
}

/* What the loader passes (documented with LdrDllNotification): the same for both reasons. */
typedef struct {
    ULONG flags;
    const struct cprofi_loader_string {
        USHORT length, capacity; /* bytes */
        WCHAR *text;
    } *path, *name;
    void *base;
    ULONG size;
} cprofi_loader_data;

static void CALLBACK cprofi_loader_note(ULONG reason, const cprofi_loader_data *data, void *user) {
    WCHAR path[CPROFI_PATH];
    size_t length = data->path ? data->path->length / sizeof(WCHAR) : 0;
    if (length >= CPROFI_PATH) length = CPROFI_PATH - 1;
    if (length) memcpy(path, data->path->text, length * sizeof(WCHAR));
    path[length] = 0;
    cprofi_news_add((cprofi_os *)user, (uintptr_t)data->base, path, reason == 1);
}

/* All images that are there when a profile begins. Each is kept from going while it is read. */
static void cprofi_windows_list_images(cprofi_os *os) {
    HANDLE list = INVALID_HANDLE_VALUE;
    MODULEENTRY32W entry;
    for (int i = 0; i < 10 && list == INVALID_HANDLE_VALUE; i++) {
        list = CreateToolhelp32Snapshot(TH32CS_SNAPMODULE, 0);
        if (list == INVALID_HANDLE_VALUE && GetLastError() != ERROR_BAD_LENGTH) break;
    }
    if (list == INVALID_HANDLE_VALUE) return;
    entry.dwSize = sizeof entry;
    for (BOOL more = Module32FirstW(list, &entry); more; more = Module32NextW(list, &entry)) {
        WCHAR path[CPROFI_PATH];
        HMODULE held = NULL;
        if (!GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, (LPCWSTR)entry.modBaseAddr,
                                &held))
            continue;
        if (!GetModuleFileNameW(held, path, CPROFI_PATH)) path[0] = 0;
        path[CPROFI_PATH - 1] = 0;
        if ((BYTE *)held == entry.modBaseAddr)
            cprofi_news_add(os, (uintptr_t)entry.modBaseAddr, path, true);
        FreeLibrary(held);
    }
    CloseHandle(list);
}

/* Enters one note into the registry. */
static void cprofi_news_enter(cprofi_modules *m, cprofi_news *n) {
    cprofi_module *record;
    for (uint32_t id = 1; id < m->count; id++) /* what was there is gone */
        if (m->records[id].lo == n->base && m->records[id].identity != n->identity)
            m->records[id].loaded = 0;
    if (!n->tables) return;
    record = cprofi_modules_record(m, n->base, n->identity);
    if (!record) return;
    if (!record->path) {
        record->hi = n->base + n->size;
        record->slide = n->base;
        record->is_main = n->base == (uintptr_t)GetModuleHandleW(NULL);
        record->stamp = n->stamp;
        record->build_id_size = n->build_id_size;
        memcpy(record->build_id, n->build_id, sizeof record->build_id);
        record->path = cprofi_modules_string(m, n->path, "");
        record->name = cprofi_file_name(record->path);
        if (!*record->name) record->name = "[unnamed]";
    }
    if (!record->tables) {
        record->tables = n->tables;
        n->tables = NULL;
    }
    record->loaded = 1;
}

static void cprofi_os_modules(cprofi_modules *m) {
    cprofi_os *os = &cprofi.session->os;
    cprofi_news *n = NULL, *next, *oldest = NULL;
    if (!cprofi_load_pointer(cprofi_news *, &os->news)) return;
    n = (cprofi_news *)InterlockedExchangePointer((PVOID volatile *)(void *)&os->news, NULL);
    for (; n; n = next) {
        next = n->next;
        n->next = oldest;
        oldest = n;
    }
    for (n = oldest; n; n = next) {
        next = n->next;
        cprofi_news_enter(m, n);
        cprofi_news_free(n);
    }
    cprofi_modules_scan(m);
    for (uint32_t id = 1; id < m->count; id++)
        if (m->records[id].loaded && m->records[id].tables)
            cprofi_modules_present(m, &m->records[id]);
}

/* ---- threads ---- */

static void cprofi_os_name(cprofi_session *s, cprofi_thread *t) {
    WCHAR *name = NULL;
    if (s->os.api.get_name && t->os.handle && SUCCEEDED(s->os.api.get_name(t->os.handle, &name)) &&
        name) {
        if (name[0]) cprofi_narrow(name, t->name, sizeof t->name);
        LocalFree(name);
    }
    if (!t->name[0]) memcpy(t->name, s->os.program, sizeof t->name); /* as Linux does it */
}

/* Notes the program's name: asking for it takes the loader's lock, for which the sampler must not
   wait. */
static void cprofi_windows_program(cprofi_os *os) {
    char path[CPROFI_PATH * 3];
    WCHAR wide[CPROFI_PATH];
    size_t size;
    wide[GetModuleFileNameW(NULL, wide, CPROFI_PATH - 1)] = 0;
    cprofi_narrow(wide, path, sizeof path);
    snprintf(os->program, sizeof os->program, "%.*s", (int)sizeof os->program - 1,
             cprofi_file_name(path));
    size = strlen(os->program);
    if (size > 4 && _stricmp(os->program + size - 4, ".exe") == 0) os->program[size - 4] = 0;
}

static void cprofi_os_thread_init(cprofi_os_thread *t) { memset(t, 0, sizeof *t); }

static void cprofi_os_forget(cprofi_session *s, cprofi_thread *t) {
    (void)s;
    if (t->os.handle) CloseHandle(t->os.handle);
    t->os.handle = NULL;
    t->os.ended = true;
}

/* Takes the handle over. */
static void cprofi_thread_found(cprofi_session *s, HANDLE handle) {
    DWORD tid = GetThreadId(handle);
    cprofi_thread *t;
    uint64_t cpu;
    if (!tid || tid == s->sampler_tid || cprofi_thread_known(s, tid) ||
        WaitForSingleObject(handle, 0) != WAIT_TIMEOUT || /* it has ended */
        !cprofi_windows_cpu(&s->os, handle, &cpu)) {
        CloseHandle(handle);
        return;
    }
    cprofi_threads_make_room(s);
    t = cprofi_thread_add(s, tid, cpu, s->os.scanned ? 0 : cpu);
    if (!t) {
        CloseHandle(handle);
        return;
    }
    t->os.handle = handle;
    cprofi_windows_times(&s->os, handle, &t->os.calls.user, &t->os.calls.kernel_booked);
    t->charged = cpu;
    cprofi_thread_remember(s, (uint32_t)(t - s->threads));
    cprofi_os_name(s, t);
}

/* Without NtGetNextThread: a list of all threads of the system, which takes milliseconds. */
static void cprofi_windows_list_threads(cprofi_session *s) {
    HANDLE list = CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0);
    THREADENTRY32 entry;
    if (list == INVALID_HANDLE_VALUE) return;
    entry.dwSize = sizeof entry;
    for (BOOL more = Thread32First(list, &entry); more; more = Thread32Next(list, &entry)) {
        HANDLE handle;
        if (entry.th32OwnerProcessID != (DWORD)s->pid ||
            cprofi_thread_known(s, entry.th32ThreadID))
            continue;
        handle = OpenThread(CPROFI_THREAD_ACCESS, FALSE, entry.th32ThreadID);
        if (handle) cprofi_thread_found(s, handle);
    }
    CloseHandle(list);
}

/* Finds new threads: those behind the one found last, and now and then all. Threads that have ended
   keep their clocks as long as there is a handle. */
static void cprofi_os_scan(cprofi_session *s, uint64_t now) {
    cprofi_os *os = &s->os;
    bool full = now >= os->next_full;
    HANDLE at, next;
    bool ours = false; /* `at` has to be closed */
    if (!full && now < os->next_tail) return;
    os->next_tail = now + CPROFI_TAIL_NS;
    at = os->last ? s->threads[os->last - 1].os.handle : NULL;
    full = full || !at || WaitForSingleObject(at, 0) != WAIT_TIMEOUT;
    if (full) {
        at = NULL;
        os->next_full = now + CPROFI_SCAN_NS;
        for (uint32_t i = 0; i < s->live_count; i++) {
            cprofi_thread *t = &s->threads[s->live[i]];
            uint64_t cpu;
            if (WaitForSingleObject(t->os.handle, 0) != WAIT_OBJECT_0) continue;
            if (cprofi_os_cpu(t, &cpu) && cpu > t->cpu) t->cpu = cpu;
            t->os.ended = true;
        }
    }
    if (!os->api.next_thread) {
        if (full) cprofi_windows_list_threads(s);
        os->scanned = true;
        return;
    }
    while (os->api.next_thread(GetCurrentProcess(), at, CPROFI_THREAD_ACCESS, 0, 0, &next) >= 0) {
        uint32_t known = cprofi_thread_known(s, GetThreadId(next));
        HANDLE copy = NULL;
        if (ours) CloseHandle(at);
        at = next;
        ours = true;
        if (!known && DuplicateHandle(GetCurrentProcess(), next, GetCurrentProcess(), &copy, 0,
                                      FALSE, DUPLICATE_SAME_ACCESS))
            cprofi_thread_found(s, copy);
        if (!known) known = cprofi_thread_known(s, GetThreadId(next));
        if (known) os->last = known; /* not the sampler */
    }
    if (ours) CloseHandle(at);
    os->scanned = true;
}

/* ---- capture ---- */

/* What is copied while a thread is suspended. */
typedef struct {
    uint64_t pc;
    uint8_t code[CPROFI_CODE]; /* around pc */
    uint64_t code_lo, code_hi;
    uint64_t stack_lo, stack_hi; /* what is in the session's stack_copy */
    const cprofi_scopes *scopes; /* the thread's; copied to the session's scopes_copy */
    bool news; /* images had come or gone since the registry was refreshed */
} cprofi_capture;

#if defined(CPROFI_X64)
#define CPROFI_PROCESSOR 0
#define CPROFI_PROCESSOR_SP CPROFI_SEH_X64_SP
#define CPROFI_CONTEXT_PC(c) ((c)->Rip)
#define CPROFI_CONTEXT_SP(c) ((c)->Rsp)
#elif defined(CPROFI_ARM64)
#define CPROFI_PROCESSOR 1
#define CPROFI_PROCESSOR_SP CPROFI_SEH_ARM64_SP
#define CPROFI_CONTEXT_PC(c) ((c)->Pc)
#define CPROFI_CONTEXT_SP(c) ((c)->Sp)
#else
#define CPROFI_PROCESSOR 2
#define CPROFI_PROCESSOR_SP CPROFI_SEH_X64_SP
#define CPROFI_CONTEXT_PC(c) ((c)->Eip)
#define CPROFI_CONTEXT_SP(c) ((c)->Esp)
#endif

/* How far memory can be read from `address` on, at most to `end`, within the one piece of memory
   that was allocated there: a stack, or an image. What else is allocated may go while it is read;
   that does not, as long as the thread is stopped in it. [signal] */
static uintptr_t cprofi_readable_to(uintptr_t address, uintptr_t end, DWORD type) {
    const DWORD readable = PAGE_READONLY | PAGE_READWRITE | PAGE_WRITECOPY | PAGE_EXECUTE_READ |
                           PAGE_EXECUTE_READWRITE | PAGE_EXECUTE_WRITECOPY;
    uintptr_t at = address;
    const void *allocation = NULL;
    for (int i = 0; i < 8 && at < end; i++) {
        MEMORY_BASIC_INFORMATION region;
        if (!VirtualQuery((const void *)at, &region, sizeof region) ||
            region.State != MEM_COMMIT || !(region.Protect & readable) ||
            (region.Protect & (PAGE_GUARD | PAGE_NOACCESS)) || (type && region.Type != type) ||
            (allocation && region.AllocationBase != allocation))
            break;
        allocation = region.AllocationBase;
        at = (uintptr_t)region.BaseAddress + region.RegionSize;
    }
    return at < end ? at : end;
}

/* The thread is suspended: it may hold any lock. The stack's bounds are those of its memory, not
   those in the TIB: these are wrong in the middle of a switch of fibers, and gone when a thread is
   at its end. Code is read of images only: what is made at run time may be freed beside the thread.
   [signal] */
static bool cprofi_capture_copy(cprofi_session *s, cprofi_capture *c) {
    uintptr_t pc = (uintptr_t)CPROFI_CONTEXT_PC(s->os.context);
    uintptr_t sp = (uintptr_t)CPROFI_CONTEXT_SP(s->os.context), end = sp + CPROFI_STACK_COPY;
    uintptr_t lo = pc > CPROFI_CODE_BEFORE ? pc - CPROFI_CODE_BEFORE : pc;
    c->pc = pc;
    c->stack_lo = sp;
    c->code_lo = lo;
    /* in the kernel on its way out it may have answered, but goes on and frees its stack */
    if (pc - (uintptr_t)s->os.api.thread_end < CPROFI_CALL_SIZE) return false;
    c->stack_hi = cprofi_readable_to(sp, end > sp ? end : sp, 0);
    memcpy(s->stack_copy, (const void *)sp, (size_t)(c->stack_hi - c->stack_lo));
    if (c->scopes) memcpy(s->scopes_copy, c->scopes, sizeof *c->scopes);
    c->code_hi = cprofi_readable_to(lo, lo + CPROFI_CODE, MEM_IMAGE);
    memcpy(c->code, (const void *)lo, (size_t)(c->code_hi - c->code_lo));
    return true;
}

/* Who ends the process ends the other threads first. If the sampler went while that thread is
   suspended, nobody would resume it, and the process would stay for ever. It holds the lock of the
   process's environment then; so nobody is suspended but under that lock, which also keeps the
   samplers of several copies of this code from suspending each other. Taken before, it cannot be
   what the thread holds. */
static bool cprofi_capture_take(cprofi_session *s, const cprofi_thread *t, cprofi_capture *c) {
    uint64_t began, stopped;
    bool taken;
    s->os.context->ContextFlags = CONTEXT_FULL;
    if (s->os.api.exit_lock) s->os.api.exit_lock();
    began = cprofi_os_now();
    taken = SuspendThread(t->os.handle) != (DWORD)-1;
    if (taken) {
        taken = GetThreadContext(t->os.handle, s->os.context) && cprofi_capture_copy(s, c);
        c->news = cprofi_load_pointer(cprofi_news *, &s->os.news) != NULL;
        CPROFI_TEST_WHILE_SUSPENDED(t->tid);
        ResumeThread(t->os.handle);
        stopped = cprofi_os_now() - began;
        s->suspensions++;
        s->suspended += stopped;
        if (stopped > s->suspended_max) s->suspended_max = stopped;
    }
    if (s->os.api.exit_unlock) s->os.api.exit_unlock();
    return taken;
}

/* Whether the instruction before pc is one that enters the kernel: syscall, int 2e, or the calls
   that Wine and 64-bit Windows (for 32-bit programs) have in its place. */
static bool cprofi_capture_in_call(const cprofi_capture *c) {
    const uint8_t *p = c->code + CPROFI_CODE_BEFORE;
    if (c->code_hi - c->code_lo < CPROFI_CODE_BEFORE) return false;
#if defined(CPROFI_ARM64)
    return (cprofi_get32(p - 4) & 0xffe0001f) == 0xd4000001; /* svc */
#else
    static const uint8_t wine[7] = {0xff, 0x14, 0x25, 0x00, 0x10, 0xfe, 0x7f};
    static const uint8_t wow64[7] = {0x64, 0xff, 0x15, 0xc0, 0x00, 0x00, 0x00};
    bool call_edx = sizeof(void *) == 4 && p[-2] == 0xff && p[-1] == 0xd2; /* WOW64, Windows 10 */
    return (p[-2] == 0x0f && p[-1] == 0x05) || (p[-2] == 0xcd && p[-1] == 0x2e) || call_edx ||
           memcmp(p - 7, wine, 7) == 0 || memcmp(p - 7, wow64, 7) == 0;
#endif
}

typedef struct {
    const cprofi_module_index *index;
    const cprofi_capture *capture;
    cprofi_seh_part parts[2];
} cprofi_finder;

/* A cprofi_seh_find. */
static bool cprofi_windows_image(void *user, uint64_t address, cprofi_seh_image *image) {
    cprofi_finder *f = (cprofi_finder *)user;
    const cprofi_module_range *range = cprofi_modules_range(f->index, (uintptr_t)address);
    const cprofi_capture *c = f->capture;
    if (!range) return false;
    image->base = range->tables->base;
    image->pdata = range->tables->pdata;
    image->parts = f->parts;
    image->part_count = 1;
    f->parts[0].bytes = range->tables->infos;
    f->parts[0].rva = range->tables->infos_rva;
    if (c && c->code_lo >= image->base && c->code_lo - image->base <= UINT32_MAX) {
        f->parts[1].bytes.data = c->code;
        f->parts[1].bytes.size = (size_t)(c->code_hi - c->code_lo);
        f->parts[1].rva = (uint32_t)(c->code_lo - image->base);
        image->part_count = 2;
    }
    return true;
}

static void cprofi_capture_registers(const CONTEXT *c, cprofi_seh_registers *r) {
    memset(r, 0, sizeof *r);
    r->pc = CPROFI_CONTEXT_PC(c);
#if defined(CPROFI_X64)
    memcpy(r->r, &c->Rax, 16 * sizeof(uint64_t)); /* Rax to R15, as they are encoded */
#elif defined(CPROFI_ARM64)
    memcpy(r->r, &c->X0, 31 * sizeof(uint64_t)); /* X0 to Lr */
    r->r[CPROFI_SEH_ARM64_SP] = c->Sp;
#else
    r->r[CPROFI_SEH_X64_SP] = c->Esp;
    r->r[CPROFI_SEH_X64_BP] = c->Ebp;
#endif
}

/* How to unwind for each processor; all are mentioned, so that none is unused. */
static const struct {
    cprofi_seh_step step;
    bool (*begin)(const cprofi_seh_image *image, uint64_t rva, uint32_t *begin);
} cprofi_windows_processors[3] = {{cprofi_seh_x64_step, cprofi_seh_x64_begin},
                                  {cprofi_seh_arm64_step, cprofi_seh_arm64_begin},
                                  {cprofi_seh_x86_step, NULL}};

/* Captures the thread's stack into the slot, which is answered at once. */
static bool cprofi_os_ask(cprofi_session *s, cprofi_thread *t, uint32_t slot, uint32_t seq) {
    cprofi_slot *q = cprofi_slot_at(s, slot);
    cprofi_capture capture;
    cprofi_finder finder;
    cprofi_seh_images images;
    cprofi_seh_stack stack;
    cprofi_seh_registers registers;
    cprofi_scope_walk walk;
    bool truncated = false;
    /* What was loaded during this look must be known, the thread may be in it; but not what is
       loaded in its place as soon as the thread runs on. */
    cprofi_modules_refresh(&s->modules);
    capture.scopes = q->scopes;
    if (!t->os.handle || !cprofi_capture_take(s, t, &capture)) return false;
    if (capture.news) cprofi_modules_refresh(&s->modules);
    finder.index = s->modules.index;
    finder.capture = &capture;
    images.find = cprofi_windows_image;
    images.user = &finder;
    stack.data = (const uint8_t *)s->stack_copy;
    stack.lo = capture.stack_lo;
    stack.hi = capture.stack_hi;
    cprofi_capture_registers(s->os.context, &registers);
    cprofi_scopes_walk(&walk, q->scopes ? s->scopes_copy : NULL, q->marks);
    q->depth = cprofi_seh_walk(cprofi_windows_processors[CPROFI_PROCESSOR].step, &images, &stack,
                               &registers, s->keys, (uint32_t)s->desc.max_depth, &truncated,
                               CPROFI_PROCESSOR_SP, &walk);
    cprofi_scopes_rest(&walk, q->depth);
    q->mark_count = walk.count;
    for (uint32_t i = 0; i < q->depth; i++) q->frames[i] = (uintptr_t)s->keys[i];
    q->end = truncated ? CPROFI_END_LOST : CPROFI_END_ROOT;
    q->os.in_call = cprofi_capture_in_call(&capture);
    cprofi_store32(&q->word, CPROFI_SLOT_WORD(seq, CPROFI_DONE));
    return true;
}

static uintptr_t cprofi_unwind_function(const cprofi_modules *m, uint32_t id, uintptr_t pc) {
    const cprofi_tables *t = m->records[id].tables;
    cprofi_seh_part infos;
    cprofi_seh_image image;
    uint32_t begin;
    if (!t || !cprofi_windows_processors[CPROFI_PROCESSOR].begin) return 0;
    infos.bytes = t->infos;
    infos.rva = t->infos_rva;
    image.base = t->base;
    image.pdata = t->pdata;
    image.parts = &infos;
    image.part_count = 1;
    if (!cprofi_windows_processors[CPROFI_PROCESSOR].begin(&image, pc - t->base, &begin)) return 0;
    return t->base + begin;
}

/* ---- who runs ---- */

enum { CPROFI_STATE_RUNNING = 2, CPROFI_STATE_WAITING = 5 }; /* of KTHREAD_STATE */

/* A thread's state, as the system tells it, or 0. */
static uint32_t cprofi_windows_state(const cprofi_os *os, HANDLE thread, DWORD tid) {
    struct { /* SYSTEM_THREAD_INFORMATION */
        LARGE_INTEGER kernel, user, created;
        ULONG waited;
        void *start;
        ULONG_PTR process, thread;
        LONG priority, base_priority;
        ULONG switches, state, reason;
    } info;
    if (!os->api.query_thread || os->api.query_thread(thread, 40, &info, sizeof info, NULL) < 0)
        return 0;
    return info.thread == tid ? info.state : 0;
}

/* A fiftieth of a period is what being stopped costs a sleeper; less is not worth another stop. */
static bool cprofi_os_may_run(cprofi_session *s, cprofi_thread *t) {
    return s->os.state_known || !s->os.fine || t->os.was_running || t->charged > s->period / 50;
}

static bool cprofi_os_times(cprofi_session *s, cprofi_thread *t, uint64_t *user,
                            uint64_t *kernel) {
    return cprofi_windows_times(&s->os, t->os.handle, user, kernel);
}

static bool cprofi_os_counts(cprofi_session *s, cprofi_thread *t, const cprofi_slot *q) {
    t->os.was_running = !q->os.in_call;
    return cprofi_calls_count(s, t, q);
}

/* A thread that sleeps has to be given a CPU before it stops. While the sampler waits for that, the
   others go on until one of them sleeps too and leaves its CPU: stopped next, that one would be
   found asleep, too often. So where the system tells states, who sleeps is not stopped; nor who
   waits for a CPU, except the one that ran most since the last look: the sampler has pushed it off.
   Elsewhere a look ends with the first sleeper it meets, and the next comes sooner. */
static void cprofi_os_look(cprofi_session *s, uint32_t count, uint64_t elapsed) {
    cprofi_thread *pushed = NULL;
    for (uint32_t i = 0; i < count; i++) {
        cprofi_thread *t = &s->threads[s->candidates[i]];
        uint32_t state = CPROFI_STATE_RUNNING;
        if (s->os.state_known) state = cprofi_windows_state(&s->os, t->os.handle, t->tid);
        if (state == CPROFI_STATE_RUNNING) {
            cprofi_ask(s, t, elapsed, true);
            if (!s->os.state_known && t->slot >= 0 &&
                cprofi_slot_at(s, (uint32_t)t->slot)->os.in_call) {
                s->met = (double)(i + 1) / count;
                return;
            }
        } else if (state != CPROFI_STATE_WAITING && t->charged > (pushed ? pushed->charged : 0)) {
            pushed = t;
        }
    }
    if (pushed) cprofi_ask(s, pushed, elapsed, true);
}

/* Wall clock: a thread is stopped wherever it is; it need not be stopped again in the system call
   it sleeps in as long as it has used no cycles. */
static cprofi_activity cprofi_os_activity(cprofi_session *s, cprofi_thread *t, uintptr_t *sp,
                                          uintptr_t *pc) {
    (void)s, (void)t;
    *sp = *pc = 0;
    return CPROFI_RUNNABLE;
}

static bool cprofi_os_rests(const cprofi_session *s, const cprofi_slot *q) {
    return s->os.fine && q->os.in_call;
}

static bool cprofi_os_look_asleep(cprofi_session *s, cprofi_thread *t, uintptr_t sp, uintptr_t pc,
                                  uint64_t weight) {
    (void)s, (void)t, (void)sp, (void)pc, (void)weight;
    return false;
}

/* ---- the sampler thread ---- */

static DWORD WINAPI cprofi_sampler_main(void *argument) {
    cprofi_session *s = (cprofi_session *)argument;
    HMODULE self = NULL;
    HANDLE over = s->os.over;
    /* the code must outlive the thread, also in a DLL that is being unloaded */
    GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, (LPCWSTR)(uintptr_t)&cprofi, &self);
    SetThreadPriority(GetCurrentThread(), THREAD_PRIORITY_TIME_CRITICAL);
    if (s->os.api.set_name) s->os.api.set_name(GetCurrentThread(), L"cprof");
    s->sampler_tid = GetCurrentThreadId();
    cprofi_windows_calibrate(&s->os);
    s->os.state_known = cprofi_windows_state(&s->os, GetCurrentThread(), s->sampler_tid) ==
                        CPROFI_STATE_RUNNING;
    cprofi_lock_sampler(s);
    cprofi_modules_refresh(&s->modules);
    cprofi_os_scan(s, cprofi_os_now());
    cprofi_span_begin(s);
    cprofi_store32(&s->phase, (uint32_t)CPROFI_RUNNING);
    cprofi_unlock(s);
    SetEvent(s->os.ready);
    cprofi_sampler_run(s);
    SetEvent(over);
    if (self) FreeLibraryAndExitThread(self, 0);
    return 0;
}

/* Whether this thread holds the loader's lock: a new thread would not start before it lets go. The
   offsets are those of PEB.LoaderLock and of RTL_CRITICAL_SECTION.OwningThread. */
static bool cprofi_os_in_loader(void) {
    const size_t lock_at = sizeof(void *) == 8 ? 0x110 : 0xa0;
    const size_t owner_at = sizeof(void *) == 8 ? 0x10 : 0x0c;
    const char *(NTAPI * get_peb)(void) = NULL;
    const char *lock;
    uintptr_t owner;
    if (!cprofi_windows_find(L"ntdll.dll", "RtlGetCurrentPeb", &get_peb, sizeof get_peb))
        return false;
    memcpy(&lock, get_peb() + lock_at, sizeof lock);
    if (!lock) return false;
    memcpy(&owner, lock + owner_at, sizeof owner);
    return owner == GetCurrentThreadId();
}

/* Before the session is locked: lists the images, and asks the loader for news. */
static cprof_result cprofi_os_prepare(cprofi_session *s) {
    cprofi_windows_api_find(&s->os.api);
    if (!s->os.context) s->os.context = (CONTEXT *)cprofi_pages(sizeof *s->os.context);
    if (!s->os.context) return CPROF_ERROR_MEMORY;
    if (s->os.api.notify)
        s->os.api.notify(0, (void *)(uintptr_t)cprofi_loader_note, &s->os, &s->os.cookie);
    /* what went since the last profile was not told */
    for (uint32_t id = 1; id < s->modules.count; id++) s->modules.records[id].loaded = 0;
    cprofi_windows_list_images(&s->os);
    cprofi_windows_program(&s->os);
    s->os.bell = CreateEventW(NULL, FALSE, FALSE, NULL);
    s->os.ready = CreateEventW(NULL, TRUE, FALSE, NULL);
    s->os.over = CreateEventW(NULL, TRUE, FALSE, NULL);
    s->os.last = 0;
    s->os.next_full = s->os.next_tail = 0;
    s->os.scanned = false;
    s->known_count = 0;
    s->sampler_tid = 0;
    if (!s->os.bell || !s->os.ready || !s->os.over || !cprofi_windows_timer_open(&s->os)) {
        cprofi_os_close(s);
        return CPROF_ERROR_SYSTEM;
    }
    return CPROF_OK;
}

/* The new thread needs the loader's lock to begin. Who has it may want the session's, which is let
   go meanwhile; until the sampler says RUNNING, nobody else starts or stops. */
static cprof_result cprofi_os_start(cprofi_session *s) {
    cprofi_store32(&s->phase, (uint32_t)CPROFI_STOPPING);
    s->os.sampler = CreateThread(NULL, 256 * 1024, cprofi_sampler_main, s,
                                 STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    if (!s->os.sampler) return CPROF_ERROR_THREAD;
    cprofi_unlock(s);
    WaitForSingleObject(s->os.ready, INFINITE);
    cprofi_lock(s);
    return CPROF_OK;
}

/* Waits until the sampler is done, not until its thread has ended: that takes the loader's lock,
   which the caller may hold. */
static void cprofi_os_stop(cprofi_session *s) {
    HANDLE either[2];
    either[0] = s->os.over;
    either[1] = s->os.sampler; /* the process is ending, and has ended it */
    WaitForMultipleObjects(2, either, FALSE, INFINITE);
    if (!cprofi_os_in_loader()) WaitForSingleObject(s->os.sampler, 1000);
}

static void cprofi_handle_close(HANDLE *handle) {
    if (*handle) CloseHandle(*handle);
    *handle = NULL;
}

static void cprofi_os_close(cprofi_session *s) {
    if (s->os.cookie && s->os.api.notify_no_more) s->os.api.notify_no_more(s->os.cookie);
    s->os.cookie = NULL;
    for (uint32_t i = 0; i < s->live_count; i++) cprofi_os_forget(s, &s->threads[s->live[i]]);
    cprofi_handle_close(&s->os.sampler);
    cprofi_handle_close(&s->os.bell);
    cprofi_handle_close(&s->os.ready);
    cprofi_handle_close(&s->os.over);
    cprofi_windows_timer_close(&s->os);
}

/* ---- the life of the process ---- */

/* The last part of ExitProcess: of all threads only this one is left. */
static bool cprofi_os_ending(const cprofi_session *s) {
    return s->os.api.ending && s->os.api.ending();
}

/* A program that calls exit in the middle of a profile still gets what was sampled. ExitProcess, or
   a DLL's own exit handlers, come too late: the sampler was ended wherever it was. A thread that
   stops it cannot be waited for: it may unload DbgHelp, for which it needs a lock of exit's. */
static void cprofi_exit(void) {
    const cprofi_session *s = cprofi_load_pointer(cprofi_session *, &cprofi.session);
    static const char lost[] = "cprof: the process ended before cprof_stop: nothing is written\n";
    if (cprofi_load32(&s->phase) != CPROFI_RUNNING) return;
    if (!cprofi_os_ending(s)) cprof_stop();
    else if (!s->desc.quiet) cprofi_os_stderr(lost, sizeof lost - 1);
}

/* False: this is no place to start from. */
static bool cprofi_os_hooks(void) {
    if (cprofi_os_in_loader()) return false;
    if (cprofi_cas32(&cprofi.hooked, 0, 1)) atexit(cprofi_exit);
    return true;
}

void cprof_thread_name(const char *name) {
    cprofi_windows_api api;
    WCHAR wide[256];
    memset(&api, 0, sizeof api);
    cprofi_windows_api_find(&api);
    if (api.set_name && cprofi_wide(name, wide, CPROFI_COUNT(wide)))
        api.set_name(GetCurrentThread(), wide);
}
#endif /* CPROFI_WINDOWS */

/* ---------------------------------------------------------------------------------------------- */
/* >>api: the public functions

   Each takes the session's lock, changes one thing, and lets go. Start and stop wait for the
   sampler thread; a write takes the lock only to copy. */

/* The session's pages, made at the first use. A forked child finds them zeroed. */
static cprofi_session *cprofi_session_get(void) {
    cprofi_session *s = cprofi_load_pointer(cprofi_session *, &cprofi.session), *none = NULL;
    if (s && cprofi_os_ending(s)) { /* who held the lock is gone, and its work half done */
        s->lock = s->lock_wanted = s->lock_sampler = 0;
        s->phase = CPROFI_IDLE;
        s->memory = NULL;
    }
    if (s) return s;
    s = (cprofi_session *)cprofi_os_session_pages(sizeof *s);
    if (!s) return NULL;
    if (cprofi_set_pointer(&cprofi.session, s, none)) return s;
    cprofi_pages_free(s, sizeof *s);
    return none;
}

static bool cprofi_scoped_ready(void) {
    if (!cprofi_session_get()) return false;
    cprofi_os_hooks();
    return true;
}

const char *cprof_result_string(cprof_result result) {
    switch (result) {
    case CPROF_OK: return "no error";
    case CPROF_ERROR_ARGUMENT: return "an argument is out of its range";
    case CPROF_ERROR_RUNNING: return "a profile is being taken already; it goes on";
    case CPROF_ERROR_NOT_RUNNING: return "nothing is being profiled";
    case CPROF_ERROR_NO_PROFILE: return "nothing was profiled yet";
    case CPROF_ERROR_MEMORY: return "the system gave no memory";
    case CPROF_ERROR_THREAD: return "the system gave no thread for the sampler";
    case CPROF_ERROR_SIGNAL: return "this signal cannot be used for sampling";
    case CPROF_ERROR_SYSTEM:
        return "the system lacks what sampling needs (is /proc mounted, a descriptor left?)";
    case CPROF_ERROR_OUTPUT: return "the output file cannot be written";
    case CPROF_ERROR_WRITE: return "the write function refused data";
    }
    return "unknown result";
}

void cprof_get_stats(cprof_stats *stats) {
    cprofi_session *s = cprofi_session_get();
    memset(stats, 0, sizeof *stats);
    if (!s) return;
    cprofi_lock(s);
    cprofi_stats_fill(s, stats);
    cprofi_unlock(s);
}

/* ---- start and stop ---- */

/* One sentence on stderr in one piece, so that other threads' output does not come between. */
CPROFI_PRINTF(1, 2) static void cprofi_say(const char *format, ...) {
    char text[8192];
    size_t used = (size_t)snprintf(text, sizeof text, "cprof: ");
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, sizeof text - used - 1, format, arguments);
    va_end(arguments);
    used = strlen(text);
    text[used++] = '\n';
    cprofi_os_stderr(text, used);
}

/* Reads an environment variable that holds a number. False when it holds something else. */
static bool cprofi_env_number(const char *name, int *value) {
    char text[32], *end;
    size_t size = cprofi_os_environment(name, text, sizeof text);
    long n;
    if (size <= 1) return true;
    if (size > sizeof text) return false;
    errno = 0;
    n = strtol(text, &end, 10);
    if (*end || errno || n < INT32_MIN || n > INT32_MAX) return false;
    *value = (int)n;
    return true;
}

static bool cprofi_in_range(int value, int low, int high) { return low <= value && value <= high; }

/* A string of the desc, or the variable in its stead, copied: the caller's may be gone at stop.
   False if it is too long. */
static bool cprofi_desc_string(const char **string, const char *variable, char *copy,
                               size_t capacity) {
    size_t size = cprofi_os_environment(variable, copy, capacity);
    if (size <= 1) {
        size = *string ? strlen(*string) + 1 : 0;
        if (size && size <= capacity) memcpy(copy, *string, size);
    }
    if (size > capacity) return false;
    if (size) *string = copy;
    return true;
}

/* The desc with defaults and the environment applied; the one place where they are. */
static cprof_result cprofi_desc_complete(cprofi_session *s, const cprof_desc *desc) {
    cprof_desc *d = &s->desc;
    char clock[8];
    size_t clock_size = cprofi_os_environment("CPROF_CLOCK", clock, sizeof clock);
    int lines = -1;
    memset(d, 0, sizeof *d);
    if (desc) *d = *desc;
    if (!d->hz) d->hz = CPROFI_DEFAULT_HZ;
    s->culprit = "CPROF_HZ";
    if (!cprofi_env_number("CPROF_HZ", &d->hz)) return CPROF_ERROR_ARGUMENT;
    s->culprit = "CPROF_CLOCK";
    if (clock_size > sizeof clock) return CPROF_ERROR_ARGUMENT;
    if (clock_size > 1 && strcmp(clock, "cpu") == 0) d->clock = CPROF_CPU;
    else if (clock_size > 1 && strcmp(clock, "wall") == 0) d->clock = CPROF_WALL;
    else if (clock_size > 1) return CPROF_ERROR_ARGUMENT;
    s->culprit = "CPROF_LINES";
    if (!cprofi_env_number("CPROF_LINES", &lines)) return CPROF_ERROR_ARGUMENT;
    if (lines >= 0) d->lines = lines != 0;
    s->culprit = "CPROF_SECONDS";
    if (!cprofi_env_number("CPROF_SECONDS", &d->max_seconds)) return CPROF_ERROR_ARGUMENT;
    if (!d->max_depth) d->max_depth = CPROFI_DEFAULT_DEPTH;
    if (!d->max_stacks) d->max_stacks = CPROFI_DEFAULT_STACKS;
    if (!d->signal) d->signal = CPROFI_DEFAULT_SIGNAL;
    if (!d->max_sampler_percent) d->max_sampler_percent = CPROFI_DEFAULT_PERCENT;
    if (!cprofi_in_range(d->hz, 1, CPROFI_MAX_HZ))
        s->culprit = "hz";
    else if (!cprofi_in_range(d->max_depth, 1, CPROFI_MAX_DEPTH))
        s->culprit = "max_depth";
    else if (!cprofi_in_range(d->max_stacks, 1, CPROFI_MAX_STACKS))
        s->culprit = "max_stacks";
    else if (!cprofi_in_range(d->max_sampler_percent, 1, 100))
        s->culprit = "max_sampler_percent";
    else if (!cprofi_in_range(d->max_seconds, 0, INT32_MAX))
        s->culprit = "max_seconds";
    else if (!cprofi_in_range((int)d->clock, CPROF_CPU, CPROF_WALL))
        s->culprit = "clock";
    else if (!cprofi_in_range((int)d->format, CPROF_AUTO, CPROF_PERF_SCRIPT))
        s->culprit = "format";
    else
        s->culprit = NULL;
    if (s->culprit) return CPROF_ERROR_ARGUMENT;
    if (!cprofi_desc_string(&d->output, "CPROF_OUTPUT", s->output, sizeof s->output))
        return CPROF_ERROR_OUTPUT;
    s->culprit = "debug_dir";
    if (!cprofi_desc_string(&d->debug_dir, "CPROF_DEBUG_DIR", s->debug_dir, sizeof s->debug_dir))
        return CPROF_ERROR_ARGUMENT;
    s->culprit = "threads";
    if (!cprofi_desc_string(&d->threads, "CPROF_THREADS", s->thread_patterns,
                            sizeof s->thread_patterns))
        return CPROF_ERROR_ARGUMENT;
    s->culprit = "cut_above";
    if (!cprofi_desc_string(&d->cut_above, "CPROF_CUT_ABOVE", s->cut_above, sizeof s->cut_above))
        return CPROF_ERROR_ARGUMENT;
    s->culprit = NULL;
    return CPROF_OK;
}

/* UTC, as 20261126-221501. */
static void cprofi_time_text(uint64_t seconds, char *to, size_t capacity) {
    static const unsigned char months[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    unsigned year = 1970, month = 0, days = (unsigned)(seconds / 86400), second;
    second = (unsigned)(seconds % 86400);
    for (;;) {
        bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        unsigned size = month == 1 && leap ? 29 : months[month];
        if (days < size) break;
        days -= size;
        month = (month + 1) % 12;
        year += month == 0;
    }
    snprintf(to, capacity, "%04u%02u%02u-%02u%02u%02u", year, month + 1, days + 1, second / 3600,
             second / 60 % 60, second % 60);
}

/* Expands %p, %t, %n and %%; what else begins with % stays. False if it becomes too long. */
static bool cprofi_path_expand(const char *path, char *to, size_t capacity, bool count) {
    size_t used = 0;
    uint32_t number = 0;
    for (; *path; path++) {
        char text[32];
        const char *part = text;
        size_t size;
        text[0] = *path;
        text[1] = 0;
        if (*path == '%' && path[1]) {
            switch (*++path) {
            case 'p': snprintf(text, sizeof text, "%ld", (long)cprofi_os_pid()); break;
            case 't':
                cprofi_time_text(cprofi_os_calendar() / 1000000000u, text, sizeof text);
                break;
            case 'n':
                while (!number) { /* several threads may write */
                    number = cprofi_load32(&cprofi.files) + 1;
                    if (count && !cprofi_cas32(&cprofi.files, number - 1, number)) number = 0;
                }
                snprintf(text, sizeof text, "%lu", (unsigned long)number);
                break;
            case '%': break;
            default: path--;
            }
        }
        size = strlen(part);
        if (size >= capacity - used) return false;
        memcpy(to + used, part, size);
        used += size;
    }
    to[used] = 0;
    return true;
}

/* Can the output be written? Tried out for real: a directory may refuse what its mode allows. */
static cprof_result cprofi_output_check(const char *pattern) {
    cprofi_file file;
    char path[4096];
    if (cprofi_path_expand(pattern, path, sizeof path, false) && cprofi_file_open(&file, path)) {
        cprofi_file_close(&file, false);
        return CPROF_OK;
    }
    return CPROF_ERROR_OUTPUT;
}

/* Memory that lives as long as the process: slots, modules, unwind rules. */
static bool cprofi_memory_lasting(cprofi_session *s) {
    size_t depth = CPROFI_DEFAULT_DEPTH;
    if (!cprofi_modules_init(&s->modules)) return false;
    while (depth < (size_t)s->desc.max_depth) depth *= 2;
    if (depth > s->slots_depth) { /* smaller ones of an earlier session stay where they are */
        size_t size = (sizeof(cprofi_slot) + depth * sizeof(uintptr_t) + 63) / 64 * 64;
        char *slots = (char *)cprofi_pages(size * (CPROFI_SLOTS + 1));
        if (!slots) return false;
        s->slot_size = size;
        s->slots_depth = depth;
        cprofi_store_pointer(&s->slots, slots);
    }
    return true;
}

/* Cuts the session's arrays from one piece of memory: with `base` NULL, only counts. */
static size_t cprofi_memory_cut(cprofi_session *s, char *base) {
    size_t used = 0;
#define CPROFI_CUT(type, field, count) \
    do { \
        if (base) (field) = (type *)(void *)(base + used); \
        used += ((size_t)(count) * sizeof(type) + 63) / 64 * 64; \
    } while (0)
    CPROFI_CUT(cprofi_thread, s->threads, CPROFI_THREADS);
    CPROFI_CUT(uint32_t, s->live, CPROFI_THREADS);
    CPROFI_CUT(uint32_t, s->spare, CPROFI_THREADS);
    CPROFI_CUT(uint32_t, s->candidates, CPROFI_THREADS);
    CPROFI_CUT(uint32_t, s->known, CPROFI_TID_SLOTS);
    CPROFI_CUT(int32_t, s->slots_free, CPROFI_SLOTS);
    CPROFI_CUT(int32_t, s->flying, CPROFI_SLOTS);
    CPROFI_CUT(uintptr_t, s->stack_copy, CPROFI_STACK_COPY / sizeof(uintptr_t));
    CPROFI_CUT(cprofi_frame, s->keys, (size_t)CPROFI_MAX_DEPTH + (size_t)CPROFI_SCOPES + 1);
    CPROFI_CUT(cprofi_scopes, s->scopes_copy, 1);
    CPROFI_CUT(cprofi_scope_name, s->scope_names, CPROFI_SCOPE_NAMES);
    CPROFI_CUT(uint32_t, s->scope_index, 2 * CPROFI_SCOPE_NAMES);
    CPROFI_CUT(char, s->scope_text, CPROFI_SCOPE_BYTES);
#undef CPROFI_CUT
    return used;
}

static void cprofi_memory_release(cprofi_session *s) {
    cprofi_table_free(&s->table);
    cprofi_pages_free(s->memory, s->memory_size);
    s->memory = NULL;
    s->thread_count = s->live_count = s->spare_count = 0;
}

/* Memory of one session, kept until the next begins so that the profile can be written. */
static bool cprofi_memory_session(cprofi_session *s) {
    char *base;
    cprofi_memory_release(s);
    s->memory_size = cprofi_memory_cut(s, NULL);
    base = (char *)cprofi_pages(s->memory_size);
    if (!base) return false;
    s->memory = base;
    cprofi_memory_cut(s, base);
    for (int32_t i = 0; i < CPROFI_SLOTS; i++) s->slots_free[i] = i;
    s->slots_free_count = CPROFI_SLOTS;
    s->flying_count = 0;
    cprofi_scope_names_init(s);
    return cprofi_table_init(&s->table, (uint32_t)s->desc.max_stacks, (uint32_t)s->desc.max_depth);
}

/* Forgets what was counted. */
static void cprofi_counters_clear(cprofi_session *s) {
    s->began = cprofi_os_calendar();
    s->wall = s->limit_from = s->process = s->sampler_cpu = 0;
    s->ticks = s->late_sum = s->late_max = 0;
    s->looks = 0;
    s->samples = s->truncated = s->lost = s->unanswered = s->discarded = s->threads_seen = 0;
    s->scopes_refused = 0;
    s->suspensions = s->suspended = s->suspended_max = 0;
    s->tick_cost = 0;
    memset(&s->remarks, 0, sizeof s->remarks);
}

static cprof_result cprofi_start_locked(cprofi_session *s, const cprof_desc *desc) {
    int enabled = 1;
    cprof_result result;
    if (cprofi_load32(&s->phase) != CPROFI_IDLE) return CPROF_ERROR_RUNNING;
    s->culprit = "CPROF_ENABLE";
    if (!cprofi_env_number("CPROF_ENABLE", &enabled)) return CPROF_ERROR_ARGUMENT;
    s->culprit = NULL;
    s->disabled = enabled == 0;
    if (s->disabled) return CPROF_OK;
    result = cprofi_desc_complete(s, desc);
    if (result == CPROF_OK && s->desc.output) result = cprofi_output_check(s->desc.output);
    if (result != CPROF_OK) return result;
    cprofi_counters_clear(s);
    s->pid = cprofi_os_pid();
    s->period = 1000000000u / (uint64_t)s->desc.hz;
    s->random = (cprofi_os_now() ^ (uint64_t)s->pid << 32) | 1;
    s->paused = 0;
    s->signal_gone = 0;
    s->given_up = 0;
    if (!cprofi_memory_lasting(s) || !cprofi_memory_session(s)) result = CPROF_ERROR_MEMORY;
    if (result == CPROF_OK) result = cprofi_os_prepare(s);
    if (result == CPROF_OK) {
        cprofi_store32(&s->phase, (uint32_t)CPROFI_RUNNING);
        result = cprofi_os_start(s);
        if (result != CPROF_OK) {
            cprofi_os_close(s);
            cprofi_store32(&s->phase, (uint32_t)CPROFI_IDLE);
        }
    }
    if (result != CPROF_OK) cprofi_memory_release(s);
    return result;
}

cprof_result cprof_start(const cprof_desc *desc) {
    cprofi_session *s = cprofi_session_get();
    cprof_result result;
    if (!s) return CPROF_ERROR_MEMORY;
    if (!cprofi_os_hooks()) return CPROF_ERROR_SYSTEM;
    cprofi_lock(s);
    result = cprofi_start_locked(s, desc);
    cprofi_unlock(s);
    return result;
}

/* Ends the sampling: afterwards no thread of ours is left, and nothing in flight. Others may write
   or ask meanwhile. */
static void cprofi_wind_down(cprofi_session *s) {
    uint64_t patience = cprofi_os_now() + 100000000u;
    bool last = false;
    cprofi_os_wake(&s->bell);
    cprofi_os_stop(s);
    cprofi_lock(s);
    /* answers of threads that run arrive within microseconds; of those that wait for a core, when
       they get one */
    while (cprofi_drain(s, last)) {
        cprofi_unlock(s);
        cprofi_os_nap();
        cprofi_lock(s);
        cprofi_read_clocks(s);
        last = cprofi_os_now() >= patience;
    }
    cprofi_unlock(s);
    cprofi_os_close(s);
}

/* The end line: what came of it, and what is missing and why. */
static void cprofi_report(const cprof_stats *t, const cprofi_session *s, cprof_result result) {
    char missing[2048] = "";
    size_t used = 0;
    double total = (double)(t->weight_ns + t->unsampled_ns);
#define CPROFI_REPORT(condition, ...) \
    do { \
        if ((condition) && used < sizeof missing) \
            used += (size_t)snprintf(missing + used, sizeof missing - used, __VA_ARGS__); \
    } while (0)
    CPROFI_REPORT(t->lost, ", %llu lost (table full: raise max_stacks)",
                  (unsigned long long)t->lost);
    CPROFI_REPORT(t->truncated, ", %llu truncated", (unsigned long long)t->truncated);
    for (uint32_t i = 0, named = 0; i < s->thread_count; i++) {
        named += !cprofi_thread_wanted(s, &s->threads[i]);
        CPROFI_REPORT(named && i + 1 == s->thread_count, ", %lu threads not wanted",
                      (unsigned long)named);
    }
    CPROFI_REPORT(t->scopes_excess, ", %llu scopes more than 64 deep not shown",
                  (unsigned long long)t->scopes_excess);
    CPROFI_REPORT(t->scopes_unnamed, ", %llu scopes without room for their names",
                  (unsigned long long)t->scopes_unnamed);
    CPROFI_REPORT(total > 0 && (double)t->unsampled_ns > total / 1000, ", %.1f%% unsampled",
                  100 * (double)t->unsampled_ns / total);
    for (uint32_t i = 0, named = 0; i < s->thread_count && named < 3; i++) {
        const cprofi_thread *thread = &s->threads[i];
        double scale = cprofi_thread_scale(s, thread, thread->spent);
        if (!thread->blocked) continue;
        CPROFI_REPORT(true, "%s%s (%.2f s)", named ? ", " : "; signal blocked by ", thread->name,
                      (double)thread->missed * scale / 1e9);
        named++;
    }
    CPROFI_REPORT(s->signal_gone, "; the program replaced the signal's handler meanwhile");
    for (int i = 0; i < CPROFI_REMARKS; i++) {
        uint32_t modules = s->remarks.modules[i];
        CPROFI_REPORT(modules == 1, "; %s: %s", s->remarks.first[i], cprofi_remark_texts[i]);
        CPROFI_REPORT(modules > 1, "; %s and %lu more: %s", s->remarks.first[i],
                      (unsigned long)modules - 1, cprofi_remark_texts[i]);
    }
#undef CPROFI_REPORT
    cprofi_say("%llu samples at %.0f Hz (%.0f asked), %.2f s of %s time, %llu threads%s -> %s%s%s",
               (unsigned long long)t->samples, t->hz_achieved, t->hz, (double)t->weight_ns / 1e9,
               s->desc.clock == CPROF_WALL ? "wall" : "CPU", (unsigned long long)t->threads_seen,
               missing, s->desc.output ? s->written : "no file",
               result == CPROF_OK ? "" : ": ",
               result == CPROF_OK ? "" : cprof_result_string(result));
}

cprof_result cprof_stop(void) {
    cprofi_session *s = cprofi_session_get();
    cprof_result result = CPROF_OK;
    cprof_stats stats;
    if (!s) return CPROF_ERROR_MEMORY;
    cprofi_lock(s);
    if (s->disabled || cprofi_load32(&s->phase) != CPROFI_RUNNING) {
        result = s->disabled ? CPROF_OK : CPROF_ERROR_NOT_RUNNING;
        s->disabled = 0;
        cprofi_unlock(s);
        return result;
    }
    if (!s->paused) cprofi_span_end(s);
    cprofi_store32(&s->stopper, cprofi_os_tid());
    cprofi_store32(&s->phase, (uint32_t)CPROFI_STOPPING);
    cprofi_unlock(s);
    cprofi_wind_down(s);
    if (s->desc.output) result = cprof_write(s->desc.output, s->desc.format);
    if (!s->desc.quiet) {
        cprof_get_stats(&stats);
        cprofi_report(&stats, s, result);
    }
    cprofi_store32(&s->phase, (uint32_t)CPROFI_IDLE);
    return result;
}

/* Runs `change` on a session that is running. */
static cprof_result cprofi_change(void (*change)(cprofi_session *s)) {
    cprofi_session *s = cprofi_session_get();
    cprof_result result = CPROF_OK;
    if (!s) return CPROF_ERROR_MEMORY;
    cprofi_lock(s);
    if (cprofi_load32(&s->phase) == CPROFI_RUNNING)
        change(s);
    else if (!s->disabled)
        result = CPROF_ERROR_NOT_RUNNING;
    cprofi_unlock(s);
    if (result == CPROF_OK) cprofi_os_wake(&s->bell);
    return result;
}

static void cprofi_pause(cprofi_session *s) {
    if (!s->paused) cprofi_span_end(s);
    cprofi_store32(&s->paused, 1u);
}

static void cprofi_resume(cprofi_session *s) {
    if (s->paused) {
        s->limit_from = s->wall;
        cprofi_os_scan(s, cprofi_os_now());
        cprofi_span_begin(s);
    }
    cprofi_store32(&s->paused, 0u);
}

static void cprofi_reset(cprofi_session *s) {
    cprofi_table_clear(&s->table);
    cprofi_counters_clear(s);
    s->threads_seen = s->live_count;
    s->spare_count = 0;
    for (uint32_t i = 0; i < s->thread_count; i++) {
        cprofi_thread *t = &s->threads[i];
        t->spent = t->hit = t->overflow = t->missed = t->waiting = t->samples = 0;
        t->window_count = 0;
        t->window_missed = 0;
        t->span_start = t->cpu;
        t->blocked = false;
        t->last_entry = 0;
        cprofi_thread_spare(s, t);
    }
    if (!s->paused) cprofi_span_begin(s);
}

cprof_result cprof_pause(void) { return cprofi_change(cprofi_pause); }
cprof_result cprof_resume(void) { return cprofi_change(cprofi_resume); }
cprof_result cprof_reset(void) { return cprofi_change(cprofi_reset); }

/* Writes what was sampled so far; with `reset`, forgets it in the same moment. */
static cprof_result cprofi_write_through(cprof_write_fn write, void *user, cprof_format format,
                                         bool reset) {
    cprofi_session *s = cprofi_session_get();
    cprofi_snapshot snapshot;
    cprofi_remarks remarks;
    cprof_result result;
    bool taken = false;
    memset(&remarks, 0, sizeof remarks);
    if (!s) return CPROF_ERROR_MEMORY;
    if (!write || !cprofi_in_range((int)format, CPROF_AUTO, CPROF_PERF_SCRIPT))
        return CPROF_ERROR_ARGUMENT;
    cprofi_lock(s);
    result = s->desc.hz && s->memory ? CPROF_ERROR_MEMORY : CPROF_ERROR_NO_PROFILE;
    if (reset && cprofi_load32(&s->phase) != CPROFI_RUNNING) result = CPROF_ERROR_NOT_RUNNING;
    if (result == CPROF_ERROR_MEMORY) {
        if (reset && !s->paused) cprofi_look_last(s);
        taken = cprofi_snapshot_take(s, &snapshot);
    }
    if (taken && reset) cprofi_reset(s);
    cprofi_unlock(s);
    if (!taken) return result;
    result = cprofi_write_snapshot(&snapshot, format, write, user, &remarks);
    cprofi_snapshot_free(&snapshot);
    cprofi_lock(s);
    s->remarks = remarks;
    cprofi_unlock(s);
    return result;
}

/* The format that the ending of a file's name asks for. */
static cprof_format cprofi_format_of(const char *path) {
    static const struct {
        const char *ending;
        cprof_format format;
    } endings[] = {{".pb", CPROF_PPROF},
                   {".pb.gz", CPROF_PPROF_GZ},
                   {".perf.txt", CPROF_PERF_SCRIPT},
                   {".perf.data.txt", CPROF_PERF_SCRIPT}};
    size_t size = strlen(path);
    for (size_t i = 0; i < CPROFI_COUNT(endings); i++) {
        size_t tail = strlen(endings[i].ending);
        if (size >= tail && strcmp(path + size - tail, endings[i].ending) == 0)
            return endings[i].format;
    }
    return CPROF_FOLDED;
}

static cprof_result cprofi_write_file(const char *pattern, cprof_format format, bool reset) {
    cprofi_session *s = cprofi_session_get();
    cprofi_file *file;
    cprof_result result = CPROF_ERROR_OUTPUT;
    char path[4096];
    if (!pattern) return CPROF_ERROR_ARGUMENT;
    if (format == CPROF_AUTO) format = cprofi_format_of(pattern);
    file = (cprofi_file *)malloc(sizeof *file);
    if (!file || !s) {
        free(file);
        return CPROF_ERROR_MEMORY;
    }
    if (cprofi_path_expand(pattern, path, sizeof path, true)) {
        cprofi_lock(s);
        memcpy(s->written, path, sizeof path);
        cprofi_unlock(s);
        if (cprofi_file_open(file, path)) {
            result = cprofi_write_through(cprofi_file_write, file, format, reset);
            if (!cprofi_file_close(file, result == CPROF_OK) && result == CPROF_OK)
                result = CPROF_ERROR_OUTPUT;
            if (result == CPROF_ERROR_WRITE) result = CPROF_ERROR_OUTPUT;
        }
    }
    free(file);
    return result;
}

cprof_result cprof_write_to(cprof_write_fn write, void *user, cprof_format format) {
    return cprofi_write_through(write, user, format, false);
}

cprof_result cprof_write(const char *path, cprof_format format) {
    return cprofi_write_file(path, format, false);
}

cprof_result cprof_rotate(const char *path, cprof_format format) {
    return cprofi_write_file(path, format, true);
}

/* ---- started by others ---- */

#ifdef CPROFI_POSIX
/* Starts or stops, by turns, each time that the signal came. */
static void cprofi_toggle(const cprof_desc *desc) {
    cprof_result result = cprof_stop();
    if (result != CPROF_ERROR_NOT_RUNNING) return; /* what went wrong is in the end line */
    result = cprof_start(desc);
    if (result != CPROF_OK) cprofi_say("not started: %s", cprof_result_string(result));
}

static bool cprofi_too_long(const char *string) { return string && strlen(string) >= 4096; }

cprof_result cprof_toggle_on_signal(int number, const cprof_desc *desc) {
    static cprof_desc kept;
    static char copies[4][4096]; /* the caller's strings may be gone when the signal comes */
    const char **strings[] = {&kept.output, &kept.debug_dir, &kept.threads, &kept.cut_above};
    cprof_desc wanted;
    cprof_result result;
    memset(&wanted, 0, sizeof wanted);
    if (desc) wanted = *desc;
    if (cprofi_too_long(wanted.output) || cprofi_too_long(wanted.debug_dir) ||
        cprofi_too_long(wanted.threads) || cprofi_too_long(wanted.cut_above))
        return CPROF_ERROR_ARGUMENT;
    result = cprofi_toggle_claim(number);
    if (result != CPROF_OK) return result;
    kept = wanted;
    for (size_t i = 0; i < CPROFI_COUNT(strings); i++)
        if (*strings[i])
            *strings[i] = (char *)memcpy(copies[i], *strings[i], strlen(*strings[i]) + 1);
    return cprofi_toggle_begin(number, &kept, cprofi_toggle);
}
#else
cprof_result cprof_toggle_on_signal(int number, const cprof_desc *desc) {
    (void)number, (void)desc;
    return CPROF_ERROR_SIGNAL;
}
#endif

#ifdef CPROF_AUTOSTART
/* The number of a signal by its name or number, 0 if it is none. */
static int cprofi_signal_number(const char *name) {
    static const struct {
        const char *name;
        int number;
    } names[] = {
#ifdef SIGUSR1
        {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"HUP", SIGHUP}, {"QUIT", SIGQUIT},
        {"WINCH", SIGWINCH}, {"URG", SIGURG},
#endif
        {"", 0}};
    if (strncmp(name, "SIG", 3) == 0) name += 3;
    for (size_t i = 0; i < CPROFI_COUNT(names); i++)
        if (strcmp(names[i].name, name) == 0) return names[i].number;
    return atoi(name);
}

/* Before main, by what the environment says. */
static void cprofi_autostart(void) {
    cprof_desc desc;
    cprof_result result = CPROF_OK;
    char signal_name[32];
    int wanted = 0;
    memset(&desc, 0, sizeof desc);
    desc.output = "cprof.%p.%n.folded";
    cprofi_env_number("CPROF_AUTOSTART", &wanted);
    if (cprofi_os_environment("CPROF_SIGNAL", signal_name, sizeof signal_name) > 1) {
        signal_name[sizeof signal_name - 1] = 0;
        result = cprof_toggle_on_signal(cprofi_signal_number(signal_name), &desc);
        if (result != CPROF_OK)
            cprofi_say("CPROF_SIGNAL=%s: %s", signal_name, cprof_result_string(result));
    }
    if (!wanted) return;
    result = cprof_start(&desc);
    if (result != CPROF_OK) cprofi_say("not started: %s", cprof_result_string(result));
}

#ifdef CPROFI_GNU
__attribute__((constructor)) static void cprofi_before_main(void) { cprofi_autostart(); }
#else
static int cprofi_before_main(void) {
    cprofi_autostart();
    return 0;
}
#pragma section(".CRT$XCU", read)
__declspec(allocate(".CRT$XCU")) int (*cprofi_before_main_pointer)(void) = cprofi_before_main;
#endif
#endif /* CPROF_AUTOSTART */

cprof_result cprof_begin(const char *path) {
    cprof_desc desc;
    cprof_result result;
    memset(&desc, 0, sizeof desc);
    desc.output = path;
    result = cprof_start(&desc);
    if (result != CPROF_OK) {
        const cprofi_session *s = cprofi_session_get();
        const char *culprit = result == CPROF_ERROR_ARGUMENT && s ? s->culprit : path;
        cprofi_say("not started: %s (%s)", cprof_result_string(result), culprit ? culprit : "");
    }
    return result;
}

cprof_result cprof_end(void) {
    cprof_result result = cprof_stop();
    if (result == CPROF_ERROR_NOT_RUNNING) cprofi_say("%s", cprof_result_string(result));
    return result;
}

#ifndef CPROFI_GNU
#pragma warning(pop)
#endif
#endif /* CPROF_IMPLEMENTED */
#endif /* CPROF_IMPLEMENTATION */

/* MIT License

   Copyright (c) 2026 the cprof authors

   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
   associated documentation files (the "Software"), to deal in the Software without restriction,
   including without limitation the rights to use, copy, modify, merge, publish, distribute,
   sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
   furnished to do so, subject to the following conditions:

   The above copyright notice and this permission notice shall be included in all copies or
   substantial portions of the Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
   NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
   NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
   DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
   OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */
