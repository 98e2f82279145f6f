/* stress_dll.c: a library that stress.c loads, calls and frees. Built several times, as NUMBER says,
   some of them to the same address. */
#include <windows.h>

static void *kept;

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, LPVOID reserved) {
    (void)self, (void)reserved;
    /* the heap's lock inside the loader's: the order in which a host may take them */
    if (reason == DLL_PROCESS_ATTACH) kept = HeapAlloc(GetProcessHeap(), 0, 1000 + NUMBER);
    if (reason == DLL_PROCESS_DETACH && kept) HeapFree(GetProcessHeap(), 0, kept);
    return TRUE;
}

/* Deep enough to have return addresses into this library when it is sampled. */
__declspec(dllexport) __attribute__((noinline)) unsigned dll_work(unsigned depth, unsigned rounds) {
    volatile unsigned char room[64 + 16 * NUMBER];
    unsigned x = depth;
    room[0] = (unsigned char)depth;
    if (depth) return dll_work(depth - 1, rounds) + room[0];
    for (unsigned i = 0; i < rounds; i++) x = x * 1664525u + 1013904223u + room[0];
    return x;
}
