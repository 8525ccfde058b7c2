/* One copy of each function in the program, whatever the level of optimization. */
#if defined(__clang__)
#define KERNEL static __attribute__((noinline))
#elif defined(__GNUC__)
#define KERNEL static __attribute__((noinline, noclone))
#else
#define KERNEL static
#endif
