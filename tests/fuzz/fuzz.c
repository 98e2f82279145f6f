/* fuzz: every reader of foreign bytes, as a libFuzzer target, and a driver for compilers without it.

       clang -g -O1 -fsanitize=fuzzer,address,undefined -I. -DTARGET=image tests/fuzz/fuzz.c -pthread
       cc -g -O1 -fsanitize=address,undefined -I. tests/fuzz/fuzz.c -pthread

   Targets: image (an ELF, PE or Mach-O file with all its debug information), map (/tmp/perf-PID.map), rust
   (names), zlib, cfi (.eh_frame), seh (unwind infos of Windows), compact (those of macOS). The driver, which
   has them all, reads the files it is given and SECONDS' worth of damage to them:  fuzz TARGET SECONDS FILE... */
#define CPROF_IMPLEMENTATION
#include "cprof.h"

typedef struct {
    const uint8_t *data;
    size_t size;
} fuzz_input;

static void fuzz_image(fuzz_input in) {
    enum { COUNT = 400 };
    cprofi_span bytes = {in.data, in.size};
    cprofi_source source = cprofi_source_of(bytes);
    uintptr_t pcs[COUNT];
    cprofi_place places[COUNT];
    cprofi_symbols symbols;
    cprofi_module m;
    cprofi_elf elf;
    cprofi_pe pe;
    cprofi_macho macho;
    uint64_t lo = 0x1000, hi = 0x4000;
    memset(&m, 0, sizeof m);
    m.name = "image";
    m.path = "";
    m.image = bytes;
    if (cprofi_elf_open(&source, &elf)) {
        for (size_t i = 0; i < elf.segment_count; i++) {
            cprofi_elf_segment s = cprofi_elf_segment_at(&elf, i);
            if (s.type != CPROFI_PT_LOAD || !(s.flags & CPROFI_PF_X)) continue;
            lo = s.address;
            hi = s.address + s.memory_size;
        }
        cprofi_elf_close(&elf);
    } else if (cprofi_pe_open(&source, &pe)) {
        m.stamp = pe.time_date_stamp;
        m.hi = pe.size_of_image;
        cprofi_pe_close(&pe);
    } else if (cprofi_macho_open(&source, NULL, &macho)) {
        for (size_t i = macho.section_count; i--;) {
            if (!macho.sections[i].executable) continue;
            lo = macho.sections[i].address;
            hi = lo + macho.sections[i].size;
        }
        cprofi_macho_close(&macho);
    }
    if (hi - lo > 0x100000) hi = lo + 0x4000;
    for (size_t i = 0; i < COUNT; i++) pcs[i] = (uintptr_t)(lo + (hi - lo) / COUNT * i + i);
    if (!cprofi_symbols_init(&symbols, NULL)) return;
    if (cprofi_symbols_resolve(&symbols, &m, pcs, COUNT, places)) {
        for (size_t i = 0; i < COUNT; i++) { /* what is answered must be there */
            if (!places[i].count) abort();
            for (uint32_t k = 0; k < places[i].count; k++) {
                const cprofi_site *site = &places[i].sites[k];
                if (strlen(site->function) > 1u << 20 || (site->file && strlen(site->file) > 1u << 20))
                    abort();
            }
        }
    }
    cprofi_symbols_free(&symbols);
}

static void fuzz_map(fuzz_input in) {
    cprofi_span bytes = {in.data, in.size};
    cprofi_source source = cprofi_source_of(bytes);
    uint64_t addresses[64];
    const char *names[64];
    cprofi_text text;
    memset(&text, 0, sizeof text);
    for (size_t i = 0; i < 64; i++) addresses[i] = 0x1000 + 0x40 * i;
    cprofi_jit_lookup(&source, addresses, 64, names, &text);
    cprofi_text_free(&text);
}

static void fuzz_rust(fuzz_input in) {
    char out[4096], *name = (char *)malloc(in.size + 1);
    if (!name) return;
    memcpy(name, in.data, in.size);
    name[in.size] = 0;
    if (cprofi_rust_demangle(name, out, sizeof out) && strlen(out) >= sizeof out) abort();
    cprofi_name_cut(name);
    if (in.size < sizeof out) cprofi_demangled_trim(name, out);
    free(name);
}

static void fuzz_zlib(fuzz_input in) {
    uint8_t *to = (uint8_t *)malloc(65536);
    cprofi_span bytes = {in.data, in.size};
    size_t size = in.size ? (size_t)in.data[in.size - 1] * 256 + in.size % 256 : 0;
    if (to) cprofi_inflate(bytes, to, size);
    free(to);
}

/* The bytes are .eh_frame at a fixed address; each address is looked up and unwound from. */
static void fuzz_cfi(fuzz_input in) {
    static cprofi_unwinder unwinder;
    static cprofi_scratch scratch;
    static cprofi_modules modules;
    static cprofi_module records[2];
    static uintptr_t stack[512];
    cprofi_tables tables;
    cprofi_module_range range;
    cprofi_module_index index;
    uint8_t *sorted;
    size_t count;
    if (!unwinder.rules && !cprofi_unwind_init(&unwinder)) return;
    memset(unwinder.rules, 0, sizeof(cprofi_rule_slot) * CPROFI_RULES);
    memset(&tables, 0, sizeof tables);
    tables.frame.data = in.data;
    tables.frame.size = in.size;
    tables.frame_address = tables.hdr_address = 0x500000;
    count = cprofi_tables_sort(&tables, NULL, 0);
    sorted = (uint8_t *)malloc(8 * count + 1);
    if (!sorted) return;
    tables.search_count = cprofi_tables_sort(&tables, sorted, count);
    tables.search = sorted;
    tables.code_lo[0] = 0x400000;
    tables.code_hi[0] = 0x500000;
    tables.code_count = 1;
    memset(&range, 0, sizeof range);
    memset(&index, 0, sizeof index);
    range.lo = 0x400000;
    range.hi = 0x500000;
    range.tables = &tables;
    range.id = 1;
    index.count = 1;
    index.ranges = &range;
    index.epoch = 1;
    modules.index = &index;
    modules.records = records;
    for (uintptr_t pc = 0x400000; pc < 0x400400; pc += 13) {
        uintptr_t frames[64];
        cprofi_view view = {(uintptr_t)stack, (uintptr_t)stack + sizeof stack, 0, false};
        cprofi_regs regs;
        cprofi_end end;
        for (size_t i = 0; i < CPROFI_COUNT(stack); i++)
            stack[i] = i % 3 ? 0x400000 + i * 5 : (uintptr_t)&stack[(i + 7) % CPROFI_COUNT(stack)];
        for (size_t i = 0; i < CPROFI_REGS; i++) regs.r[i] = (uintptr_t)&stack[8 * i];
        regs.r[CPROFI_SP] = (uintptr_t)stack;
        regs.r[CPROFI_PC] = pc;
        regs.known = (1u << CPROFI_REGS) - 1;
        if (cprofi_unwind(&unwinder, &modules, &regs, &view, &scratch, frames, 64, &end, NULL) > 64)
            abort();
    }
    modules.index = NULL;
    free(sorted);
}

typedef struct {
    cprofi_span bytes;
    cprofi_seh_part part;
} fuzz_seh_image;

static bool fuzz_seh_find(void *user, uint64_t address, cprofi_seh_image *image) {
    fuzz_seh_image *f = (fuzz_seh_image *)user;
    if (address < 0x140000000u || address - 0x140000000u >= 0x10000) return false;
    image->base = 0x140000000u;
    image->pdata = cprofi_span_part(f->bytes, 0, f->bytes.size < 96 ? f->bytes.size : 96);
    f->part.bytes = f->bytes;
    f->part.rva = 0;
    image->parts = &f->part;
    image->part_count = 1;
    return true;
}

static void fuzz_seh(fuzz_input in) {
    fuzz_seh_image image;
    cprofi_seh_images images;
    cprofi_seh_stack stack;
    uint8_t words[2048];
    memset(&image, 0, sizeof image);
    image.bytes.data = in.data;
    image.bytes.size = in.size;
    images.find = fuzz_seh_find;
    images.user = &image;
    stack.data = words;
    stack.lo = 0x100000;
    stack.hi = 0x100000 + sizeof words;
    for (size_t i = 0; i < sizeof words; i++) words[i] = (uint8_t)(i % 8 < 2 ? i * 7 : i % 8 == 3 ? 0x40 : i % 8 == 4);
    for (uint64_t pc = 0x140000000u; pc < 0x140000200u; pc += 3) {
        cprofi_seh_registers r;
        uint64_t pcs[64];
        bool truncated;
        memset(&r, 0, sizeof r);
        for (size_t i = 0; i < 32; i++) r.r[i] = stack.lo + 16 * i;
        r.pc = pc;
        if (cprofi_seh_walk(cprofi_seh_x64_step, &images, &stack, &r, pcs, 64, &truncated,
                            CPROFI_SEH_X64_SP, NULL) > 64 ||
            cprofi_seh_walk(cprofi_seh_arm64_step, &images, &stack, &r, pcs, 64, &truncated,
                            CPROFI_SEH_ARM64_SP, NULL) > 64 ||
            cprofi_seh_walk(cprofi_seh_x86_step, &images, &stack, &r, pcs, 64, &truncated,
                            CPROFI_SEH_X64_SP, NULL) > 64)
            abort();
    }
}

typedef struct {
    cprofi_span bytes;
    cprofi_seh_part part;
    uint32_t starts[64];
    size_t start_count;
} fuzz_compact_image;

static bool fuzz_compact_find(void *user, uint64_t address, cprofi_seh_image *image) {
    fuzz_compact_image *f = (fuzz_compact_image *)user;
    if (address < 0x100000000u || address - 0x100000000u >= 0x10000) return false;
    image->base = 0x100000000u;
    image->pdata = f->bytes;
    image->parts = &f->part;
    image->part_count = 1;
    image->starts = f->starts;
    image->start_count = f->start_count;
    return true;
}

/* The bytes are __unwind_info, the distances of functions and code. */
static void fuzz_compact(fuzz_input in) {
    fuzz_compact_image image;
    cprofi_seh_images images;
    cprofi_seh_stack stack;
    uint8_t words[2048];
    memset(&image, 0, sizeof image);
    image.bytes.data = in.data;
    image.bytes.size = in.size;
    image.part.bytes = image.bytes;
    image.part.rva = 0x5a0;
    image.start_count = cprofi_compact_starts(image.bytes, image.starts, CPROFI_COUNT(image.starts));
    if (image.start_count > CPROFI_COUNT(image.starts)) image.start_count = CPROFI_COUNT(image.starts);
    images.find = fuzz_compact_find;
    images.user = &image;
    stack.data = words;
    stack.lo = 0x16f000000;
    stack.hi = 0x16f000000 + sizeof words;
    for (size_t i = 0; i < sizeof words; i++) words[i] = (uint8_t)(i % 8 < 2 ? i * 7 : i % 8 == 4);
    for (uint64_t pc = 0x100000500u; pc < 0x100000800u; pc += 3) {
        cprofi_seh_registers r;
        uint64_t pcs[64];
        bool truncated;
        memset(&r, 0, sizeof r);
        for (size_t i = 0; i < 32; i++) r.r[i] = stack.lo + 16 * i;
        r.r[CPROFI_SEH_ARM64_LR] = 0x100000600u;
        r.pc = pc;
        if (cprofi_seh_walk(cprofi_compact_x64_step, &images, &stack, &r, pcs, 64, &truncated,
                            CPROFI_SEH_X64_SP, NULL) > 64 ||
            cprofi_seh_walk(cprofi_compact_arm64_step, &images, &stack, &r, pcs, 64, &truncated,
                            CPROFI_SEH_ARM64_SP, NULL) > 64)
            abort();
    }
}

static const struct {
    const char *name;
    void (*run)(fuzz_input);
} fuzz_targets[] = {
    {"image", fuzz_image}, {"map", fuzz_map}, {"rust", fuzz_rust},
    {"zlib", fuzz_zlib},   {"cfi", fuzz_cfi}, {"seh", fuzz_seh},
    {"compact", fuzz_compact},
};

static void fuzz_one(const char *name, const uint8_t *data, size_t size) {
    fuzz_input in;
    uint8_t *exact = (uint8_t *)malloc(size + !size); /* so that the sanitizer sees its end */
    if (!exact) return;
    if (size) memcpy(exact, data, size);
    in.data = exact;
    in.size = size;
    for (size_t i = 0; i < CPROFI_COUNT(fuzz_targets); i++)
        if (strcmp(name, fuzz_targets[i].name) == 0) fuzz_targets[i].run(in);
    free(exact);
}

#ifdef TARGET
#define TEXT2(name) #name
#define TEXT(name) TEXT2(name)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_one(TEXT(TARGET), data, size);
    return 0;
}
#else
static uint64_t driver_state = 88172645463325252u;

static uint64_t driver_random(void) {
    driver_state ^= driver_state << 13;
    driver_state ^= driver_state >> 7;
    driver_state ^= driver_state << 17;
    return driver_state;
}

static double driver_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    double end = driver_now() + (argc > 2 ? atof(argv[2]) : 1);
    unsigned long runs = 0;
    if (argc < 4) return 2;
    for (int i = 3; driver_now() < end || i < argc; i++) {
        static uint8_t whole[1 << 20], damaged[1 << 20];
        FILE *file = fopen(argv[3 + (i - 3) % (argc - 3)], "rb");
        size_t size = file ? fread(whole, 1, sizeof whole, file) : 0;
        if (!file) return 2;
        fclose(file);
        fuzz_one(argv[1], whole, size);
        for (int n = 0; n < 20 && size; n++, runs++) {
            size_t cut = driver_random() % 8 ? size : (size_t)(driver_random() % size);
            memcpy(damaged, whole, size);
            for (uint64_t k = driver_random() % 12; k > 0; k--) {
                size_t at = (size_t)(driver_random() % size);
                damaged[at] = driver_random() % 3 ? (uint8_t)driver_random() : 0xff;
            }
            fuzz_one(argv[1], damaged, cut);
        }
    }
    printf("%lu\n", runs);
    return 0;
}
#endif
