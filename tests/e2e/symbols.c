/* symbols: every function has its own name: static and global ones of the executable, of a shared
   object, of one linked at a fixed address, of libc, of a plug-in that is gone (and whose addresses
   another one took), of C++. In stripped files what .dynsym names keeps its name, the rest is
   [module+0xoffset] with the right offset, and never the name of a neighbour.

   Usage: symbols MODE PLUGIN-A PLUGIN-B, MODE "full" or "stripped". */
#include "e2e.h"
#include <dlfcn.h>
#include <link.h>

uint64_t lib_visible(uint64_t ns);
uint64_t lib_before(uint64_t ns);
uint64_t lib_through(uint64_t ns);
const void *lib_hidden_address(void);
uint64_t prelinked_visible(uint64_t ns);
uint64_t cxx_entry(uint64_t ns);

BURN(exe_static)

E2E_NOINLINE uint64_t exe_global(uint64_t ns);
E2E_NOINLINE uint64_t exe_global(uint64_t ns)
{
    uint64_t used = e2e_burn(ns);
    __asm__ volatile("# exe_global" ::: "memory");
    return used;
}

static volatile int compared;
static int compare_ints(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    compared++;
    return x < y ? -1 : x > y;
}

static uint64_t sorting(uint64_t ns)
{
    static int data[2000];
    uint64_t before = thread_cpu();
    unsigned seed = 1;
    while (thread_cpu() - before < ns) {
        for (int i = 0; i < 2000; i++) data[i] = (int)(seed = seed * 1103515245u + 12345u);
        qsort(data, 2000, sizeof *data, compare_ints);
    }
    return thread_cpu() - before;
}

static uint64_t plugin_run(const char *path, const char *function, const void **address)
{
    void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    uint64_t (*run)(uint64_t), used;
    if (!plugin) { printf("# %s\n", dlerror()); return 0; }
    *(void **)&run = dlsym(plugin, function);
    if (!run) return 0;
    *address = *(void **)&run;
    used = run(200000000);
    dlclose(plugin);
    return used;
}

/* The [module+0xoffset] frame that an address ought to have. */
static char module_frame[256];
static uint64_t module_base;
static int find_module(struct dl_phdr_info *info, size_t size, void *address)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        if (info->dlpi_phdr[i].p_type == PT_LOAD && (uintptr_t)address >= start
            && (uintptr_t)address < start + info->dlpi_phdr[i].p_memsz) {
            const char *name = info->dlpi_name, *slash = strrchr(name, '/');
            snprintf(module_frame, sizeof module_frame, "[%s+0x", slash ? slash + 1 : name);
            module_base = info->dlpi_addr;
            return 1;
        }
    }
    return 0;
}

static void near(const e2e_profile *p, const char *name, double ns)
{
    double found = (double)profile_total(p, NULL, name) * 1e6;
    /* 200 samples and a machine with other work: the name matters here, split.c has the shares. */
    check(found > 0.6 * ns && found < 1.4 * ns, e2e_format("%s has its name and its time", name), "%.0f ms of %.0f ms",
          found / 1e6, ns / 1e6);
}

int main(int argc, char **argv)
{
    cprof_desc desc;
    e2e_profile p;
    uint64_t exe_s, exe_g, visible, before, through, prelinked, cxx, sorted, plugin_a, plugin_b;
    const void *address_a = NULL, *address_b = NULL;
    bool stripped;
    if (argc != 4) return 2;
    stripped = strcmp(argv[1], "stripped") == 0;

    memset(&desc, 0, sizeof desc);
    desc.hz = 1000;
    desc.quiet = true;
    check_ok(cprof_start(&desc), "start");
    exe_s = exe_static(200000000);
    exe_g = exe_global(200000000);
    visible = lib_visible(200000000);
    before = lib_before(200000000);
    through = lib_through(200000000);              /* works in a static function of the library */
    prelinked = prelinked_visible(200000000);
    cxx = cxx_entry(300000000);
    sorted = sorting(300000000);
    plugin_a = plugin_run(argv[2], "plugin_a_work", &address_a);
    plugin_b = plugin_run(argv[3], "plugin_b_work", &address_b);
    check_ok(cprof_stop(), "stop");
    p = profile_take();

    near(&p, "lib_visible", (double)visible);
    near(&p, "lib_before", (double)before);
    near(&p, "lib_through", (double)through);
    near(&p, "prelinked_visible", (double)prelinked);
    check(plugin_a > 0 && plugin_b > 0, "plug-ins load", "%s", "they do not");
    note("plug-ins: the second was %s", address_a == address_b ? "at the address of the first" : "elsewhere");
    near(&p, "plugin_a_work", (double)plugin_a);
    near(&p, "plugin_b_work", (double)plugin_b);
    {
        uint64_t in_sort = 0;
        for (int i = 0; i < p.stacks; i++) {
            if (stack_has(&p.stack[i], "qsort") || stack_has(&p.stack[i], "qsort_r")) in_sort += p.stack[i].count;
        }
        check((double)in_sort * 1e6 > 0.5 * (double)sorted, "qsort is named in its callback's stack", "%llu of %.0f ms",
              (unsigned long long)in_sort, (double)sorted / 1e6);
    }
    if (!stripped) {
        uint64_t area = 0, twice = 0;
        near(&p, "exe_static", (double)exe_s);
        near(&p, "exe_global", (double)exe_g);
        near(&p, "lib_hidden", (double)through);
        check(profile_total(&p, NULL, "main") * 100 >= p.count * 98, "main is in all stacks", "%llu of %llu",
              (unsigned long long)profile_total(&p, NULL, "main"), (unsigned long long)p.count);
        near(&p, "cxx_entry", (double)cxx);
        for (int i = 0; i < p.stacks; i++) {
            for (int k = 1; k < p.stack[i].frames; k++) {
                const char *f = p.stack[i].frame[k];
                if (strncmp(f, "shapes::Circle::area", 20) == 0) area += p.stack[i].count;
                if (strstr(f, "shapes::twice<unsigned long>")) twice += p.stack[i].count;
                if (strncmp(f, "_Z", 2) == 0) { check(false, "no mangled name is left", "%s", f); i = p.stacks - 1; break; }
            }
        }
        check(area > 60, "a C++ method is demangled", "%llu periods", (unsigned long long)area);
        check(twice > 60, "a C++ template is demangled", "%llu periods", (unsigned long long)twice);
    } else {
        uint64_t hidden = 0, far = 0, misnamed = 0, exe = 0;
        dl_iterate_phdr(find_module, (void *)(uintptr_t)lib_hidden_address());
        for (int i = 0; i < p.stacks; i++) {
            const e2e_stack *s = &p.stack[i];
            if (stack_has(s, "lib_through")) {
                for (int k = 2; k < s->frames; k++) {
                    if (!e2e_is(s->frame[k - 1], "lib_through")) continue;
                    if (strncmp(s->frame[k], module_frame, strlen(module_frame)) == 0) {
                        uint64_t at = module_base + strtoull(s->frame[k] + strlen(module_frame), NULL, 16);
                        uint64_t start = (uint64_t)(uintptr_t)lib_hidden_address();
                        hidden += s->count;
                        if (at < start || at > start + 1024) far += s->count;
                    } else if (s->frame[k][0] != '[') {
                        misnamed += s->count;
                    }
                    break;
                }
            }
            for (int k = 1; k < s->frames; k++) {
                if (strncmp(s->frame[k], "[symbols", 8) == 0) { exe += s->count; break; }
            }
            if (stack_has(s, "exe_static") || stack_has(s, "exe_global")) misnamed += s->count;
        }
        check((double)hidden * 1e6 > 0.6 * (double)through, "a function without a name is [module+0xoffset]",
              "%llu of %.0f ms under %s...]", (unsigned long long)hidden, (double)through / 1e6, module_frame);
        check(far == 0 && hidden > 0, "with its offset in the file's address space", "%llu elsewhere", (unsigned long long)far);
        check(misnamed == 0, "and never a neighbour's name", "%llu periods", (unsigned long long)misnamed);
        check((double)exe * 1e6 > 0.6 * (double)(exe_s + exe_g), "a stripped executable likewise", "%llu periods",
              (unsigned long long)exe);
    }
    if (e2e_failures) profile_print(&p);
    profile_free(&p);
    return e2e_done();
}
