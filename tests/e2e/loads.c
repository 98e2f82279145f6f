/* loads: by wall clock a thread that sleeps is looked at once. Here each loads a library of its own and
   sleeps in what that calls, while the sampler looks at the others: the library is not known yet when
   the look begins, and the whole stack must be there nevertheless. */
#include "e2e.h"
#ifndef _WIN32
#include <dlfcn.h>
#endif

enum { THREADS = 150 };

typedef int calls_back(int (*function)(int), int times);

static char path[THREADS][600];
static pthread_mutex_t night = PTHREAD_MUTEX_INITIALIZER;

static calls_back *load(const char *file)
{
    calls_back *function = NULL;
#ifdef _WIN32
    WCHAR wide[600];
    HMODULE library = MultiByteToWideChar(CP_UTF8, 0, file, -1, wide, 600) ? LoadLibraryW(wide) : NULL;
    FARPROC found = library ? GetProcAddress(library, "lib_calls_back") : NULL;
#else
    void *library = dlopen(file, RTLD_NOW), *found = library ? dlsym(library, "lib_calls_back") : NULL;
#endif
    memcpy(&function, &found, sizeof function);
    return function;
}

/* Windows deletes no file that is loaded. */
static void unload(const char *file)
{
#ifdef _WIN32
    WCHAR wide[600];
    if (MultiByteToWideChar(CP_UTF8, 0, file, -1, wide, 600)) FreeLibrary(GetModuleHandleW(wide));
#else
    (void)file;
#endif
}

E2E_NOINLINE static int asleep(int x)
{
    pthread_mutex_lock(&night);
    pthread_mutex_unlock(&night);
    E2E_NO_TAIL();
    return x;
}

static void *sleeper(void *argument)
{
    calls_back *function = load((const char *)argument);
    if (!function) return argument;
    function(asleep, 1);
    E2E_NO_TAIL();
    return NULL;
}

static bool copy(const char *from, const char *to)
{
    static char bytes[1 << 20];
    FILE *in = e2e_open(from, "rb"), *out = e2e_open(to, "wb");
    size_t size = in ? fread(bytes, 1, sizeof bytes, in) : 0;
    bool copied = out && size && size < sizeof bytes && fwrite(bytes, 1, size, out) == size;
    if (in) fclose(in);
    return (!out || fclose(out) == 0) && copied;
}

int main(int argc, char **argv)
{
    cprof_desc desc;
    e2e_profile p;
    pthread_t thread[THREADS];
    char directory[500];
    uint64_t right = 0, wrong = 0;
    int failed = 0;
    if (argc != 2 || !e2e_directory_make(directory, sizeof directory)) return 2;
    for (int i = 0; i < THREADS; i++) {
        snprintf(path[i], sizeof path[i], "%s/plugin%d.dll", directory, i);
        if (!copy(argv[1], path[i])) return 2;
    }

    memset(&desc, 0, sizeof desc);
    desc.hz = 500;
    desc.clock = CPROF_WALL;
    desc.quiet = true;
    check_ok(cprof_start(&desc), "start");
    pthread_mutex_lock(&night);
    for (int i = 0; i < THREADS; i++) {
        if (pthread_create(&thread[i], NULL, sleeper, path[i])) return 2;
        wait_ns(2000000);
    }
    wait_ns(400000000);
    pthread_mutex_unlock(&night);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(thread[i], &result);
        failed += result != NULL;
    }
    check_ok(cprof_stop(), "stop");
    p = profile_take();

    check(failed == 0, "libraries load", "%d do not", failed);
    for (int i = 0; i < p.stacks; i++) {
        const e2e_stack *s = &p.stack[i];
        if (!stack_has(s, "asleep")) continue;
        if (stack_has(s, "sleeper") && stack_has(s, "lib_calls_back")) right += s->count;
        else wrong += s->count;
    }
    printf("# %llu periods with the library, %llu without\n", (unsigned long long)right, (unsigned long long)wrong);
    check(right >= 5000 && wrong <= THREADS, "threads that sleep in code just loaded have their whole stacks",
          "%llu periods with the library, %llu without", (unsigned long long)right, (unsigned long long)wrong);
    if (e2e_failures) profile_print(&p);
    profile_free(&p);
    for (int i = 0; i < THREADS; i++) {
        unload(path[i]);
        e2e_delete(path[i]);
    }
    check(e2e_directory_remove(directory), "and the libraries go", "%s stays", directory);
    return e2e_done();
}
