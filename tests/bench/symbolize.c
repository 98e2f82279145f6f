/* symbolize: the symbol layer of cprof.h on a file, to compare it with addr2line and others.

       symbolize [--time] [--raw] FILE < addresses
       symbolize --run COMMAND...

   Addresses are virtual ones of the file, hexadecimal, one a line. For each, in the order of the
   input: the address alone on a line, then its frames, the innermost first, as
   `function TAB file:line TAB inlined`, the last word only where it is true; "??" and 0 are unknown.
   --time prints one line of JSON instead: the wall and CPU seconds of the look-up, reading the
   addresses included, and the peak resident size. --raw leaves names as they are in the file.

   --run runs a command, whose output it drops, and prints that line of JSON about it. A child's peak
   includes that of the process which forked it: it wants a small parent. */
#define CPROF_IMPLEMENTATION
#include "cprof.h"

#include <sys/resource.h>
#include <sys/wait.h>

static uintptr_t *symbolize_read(size_t *count)
{
    size_t n = 0, room = 0;
    uintptr_t *addresses = NULL;
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        char *end;
        uintptr_t address = (uintptr_t)strtoull(line, &end, 16);
        if (end == line) continue;
        if (n == room) {
            uintptr_t *more;
            room = room ? 2 * room : 1024;
            more = (uintptr_t *)realloc(addresses, room * sizeof *addresses);
            if (!more) exit(2);
            addresses = more;
        }
        addresses[n++] = address;
    }
    *count = n;
    return addresses;
}

static int symbolize_order(const void *a, const void *b)
{
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return x < y ? -1 : x > y;
}

/* What the registry would hold of the file if it were loaded where it was linked to be. */
static bool symbolize_module(const char *path, cprofi_module *m)
{
    const char *slash = strrchr(path, '/');
    cprofi_source source;
    cprofi_elf elf;
    cprofi_pe pe;
    memset(m, 0, sizeof *m);
    m->path = path;
    m->name = slash ? slash + 1 : path;
    if (!cprofi_source_open(path, &source)) return false;
    if (cprofi_pe_open(&source, &pe)) { /* loaded where it wants to be */
        m->lo = m->slide = (uintptr_t)pe.image_base;
        m->hi = m->lo + pe.size_of_image;
        m->stamp = pe.time_date_stamp;
        cprofi_pe_close(&pe);
        cprofi_source_close(&source);
        return true;
    }
    m->lo = UINTPTR_MAX;
    if (!cprofi_elf_open(&source, &elf)) return false;
    for (size_t i = 0; i < elf.segment_count; i++) {
        cprofi_elf_segment s = cprofi_elf_segment_at(&elf, i);
        if (s.type != CPROFI_PT_LOAD) continue;
        if (s.address < m->lo) m->lo = (uintptr_t)s.address;
        if (s.address + s.memory_size > m->hi) m->hi = (uintptr_t)(s.address + s.memory_size);
    }
    m->build_id_size = cprofi_elf_build_id(&elf, m->build_id);
    cprofi_elf_close(&elf);
    cprofi_source_close(&source);
    return true;
}

static void symbolize_print(const cprofi_place *place, uintptr_t address)
{
    printf("0x%llx\n", (unsigned long long)address);
    for (uint32_t k = 0; k < place->count; k++) {
        const cprofi_site *site = &place->sites[k];
        printf("%s\t%s:%u\t%s\n", site->function, site->file ? site->file : "??",
               (unsigned)site->line, site->inlined ? "inlined" : "");
    }
}

static double symbolize_seconds(struct timeval t) { return (double)t.tv_sec + 1e-6 * (double)t.tv_usec; }

static void symbolize_report(const struct timespec *start, const struct rusage *usage)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("{\"wall\": %.6f, \"cpu\": %.6f, \"peak_kb\": %ld}\n",
           (double)(end.tv_sec - start->tv_sec) + 1e-9 * (double)(end.tv_nsec - start->tv_nsec),
           symbolize_seconds(usage->ru_utime) + symbolize_seconds(usage->ru_stime),
           usage->ru_maxrss);
}

static int symbolize_run(char **command)
{
    struct timespec start;
    struct rusage usage;
    int status = 0;
    pid_t child;
    clock_gettime(CLOCK_MONOTONIC, &start);
    child = fork();
    if (child == 0) {
        int nothing = open("/dev/null", O_WRONLY);
        if (nothing >= 0) dup2(nothing, 1);
        execvp(command[0], command);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &usage) != child) return 2;
    symbolize_report(&start, &usage);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
    bool timed = false, raw = false;
    const char *path = NULL;
    struct timespec start;
    struct rusage usage;
    cprofi_module module;
    cprofi_symbols symbols;
    cprofi_place *places;
    uintptr_t *addresses, *pcs;
    size_t n, unique = 0;
    if (argc > 2 && !strcmp(argv[1], "--run")) return symbolize_run(argv + 2);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--time")) timed = true;
        else if (!strcmp(argv[i], "--raw")) raw = true;
        else path = argv[i];
    }
    if (!path) {
        fprintf(stderr, "usage: symbolize [--time] [--raw] FILE < addresses\n");
        return 2;
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    if (!symbolize_module(path, &module)) {
        fprintf(stderr, "%s: neither an ELF nor a PE file that can be read\n", path);
        return 1;
    }
    addresses = symbolize_read(&n);
    pcs = (uintptr_t *)malloc((n + 1) * sizeof *pcs);
    places = (cprofi_place *)calloc(n + 1, sizeof *places);
    if (!pcs || !places) return 2;
    if (n) memcpy(pcs, addresses, n * sizeof *pcs);
    qsort(pcs, n, sizeof *pcs, symbolize_order);
    for (size_t i = 0; i < n; i++)
        if (!i || pcs[i] != pcs[unique - 1]) pcs[unique++] = pcs[i];
    if (!cprofi_symbols_init(&symbols, NULL)) return 2;
    symbols.raw = raw;
    if (!cprofi_symbols_resolve(&symbols, &module, pcs, unique, places)) {
        fprintf(stderr, "out of memory\n");
        return 2;
    }
    if (timed) {
        getrusage(RUSAGE_SELF, &usage);
        symbolize_report(&start, &usage);
    }
    for (size_t i = 0; i < n && !timed; i++) {
        const uintptr_t *at = (const uintptr_t *)bsearch(&addresses[i], pcs, unique, sizeof *pcs,
                                                         symbolize_order);
        symbolize_print(&places[at - pcs], addresses[i]);
    }
    for (int i = 0; i < CPROFI_REMARKS; i++)
        if (symbols.remarks.modules[i])
            fprintf(stderr, "%s: %s\n", symbols.remarks.first[i], cprofi_remark_texts[i]);
    cprofi_symbols_free(&symbols);
    free(places);
    free(pcs);
    free(addresses);
    return 0;
}
