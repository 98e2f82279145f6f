/* roots_lib.c: the shared library that roots calls through its PLT. */
int lib_tiny(int x);
int lib_calls_back(int (*fn)(int), int times);

int lib_tiny(int x)
{
    __asm__ volatile("" : "+r"(x));
    return x * 5;
}

int lib_calls_back(int (*fn)(int), int times)
{
    int sum = 0;
    for (int i = 0; i < times; i++) sum += fn(i) + lib_tiny(i);
    return sum;
}
