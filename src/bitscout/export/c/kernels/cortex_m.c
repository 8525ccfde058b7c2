/* Made by bitscout; do not edit. Starts a Cortex-M without an operating system or a C library,
 * runs the test vectors and says by semihosting what came out and what it took. */
#include "@NAME@.h"
#include "@NAME@_vectors.h"

#include <stddef.h>

#define SYSTICK_CONTROL (*(volatile uint32_t *)0xe000e010u)
#define SYSTICK_RELOAD (*(volatile uint32_t *)0xe000e014u)
#define SYSTICK_VALUE (*(volatile uint32_t *)0xe000e018u)
#define SYSTICK_PERIOD 0x1000000u
/* In QEMU with -icount shift=0 an instruction takes 1 ns, and the timer of 25 MHz ticks every 40.
 * These are instructions, not cycles. */
#define INSTRUCTIONS_PER_TICK 40u
#define STACK_PAINT 0xa5a5a5a5u

extern uint32_t data_source[], data_start[], data_end[], bss_start[], bss_end[];
extern uint32_t stack_limit[], stack_top[];

void reset(void);
void fault(void);
void systick(void);
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int value, size_t n);

static volatile uint32_t periods;

/* The compiler may call these two. */
void *memcpy(void *to, const void *from, size_t n)
{
    unsigned char *a = to;
    const unsigned char *b = from;
    while (n-- > 0u) {
        *a++ = *b++;
    }
    return to;
}

void *memset(void *to, int value, size_t n)
{
    unsigned char *a = to;
    while (n-- > 0u) {
        *a++ = (unsigned char)value;
    }
    return to;
}

static void semihosting(uint32_t operation, const void *argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void print(const char *text)
{
    semihosting(0x04u, text);
}

static void leave(uint32_t code)
{
    const uint32_t block[2] = {0x20026u, code};
    for (;;) {
        semihosting(0x20u, block);
    }
}

static void print_number(const char *name, uint64_t value)
{
    char digits[24];
    char *at = digits + sizeof digits;
    *--at = '\0';
    *--at = '\n';
    do {
        *--at = (char)('0' + (char)(value % 10u));
        value /= 10u;
    } while (value > 0u);
    print(name);
    print(at);
}

void systick(void)
{
    periods++;
}

void fault(void)
{
    print("FAULT\n");
    leave(3u);
}

static uint64_t instructions_of_first_vector(int32_t *output)
{
    uint32_t ticks;
    periods = 0;
    SYSTICK_RELOAD = SYSTICK_PERIOD - 1u;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 7u;
    while (SYSTICK_VALUE == 0u) {
    }
    ticks = SYSTICK_VALUE;
    RUN_VECTOR(0, output);
    ticks -= SYSTICK_VALUE;
    SYSTICK_CONTROL = 0;
    return ((uint64_t)periods * SYSTICK_PERIOD + (uint64_t)(int64_t)(int32_t)ticks) *
           INSTRUCTIONS_PER_TICK;
}

static void run(void)
{
    static int32_t output[@PREFIX@_OUTPUT_SIZE];
    const uint32_t *lowest = stack_limit;
    uint64_t instructions;
    uint32_t wrong = 0;
    int vector, i;
    instructions = instructions_of_first_vector(output);
    while (lowest < stack_top && *lowest == STACK_PAINT) {
        lowest++;
    }
    for (vector = 0; vector < VECTORS; vector++) {
        RUN_VECTOR(vector, output);
        for (i = 0; i < @PREFIX@_OUTPUT_SIZE; i++) {
            wrong += output[i] != expected[vector][i] ? 1u : 0u;
#ifdef PRINT_OUTPUTS
            print_number("output ", (uint32_t)output[i]);
#endif
        }
    }
    print_number("instructions ", instructions);
    print_number("stack_bytes ", (uint64_t)(stack_top - lowest) * 4u);
    print_number("wrong ", wrong);
    print(wrong == 0u && lowest > stack_limit ? "PASS\n" : "FAIL\n");
    leave(wrong == 0u ? 0u : 1u);
}

void reset(void)
{
    uint32_t *to;
    const uint32_t *from = data_source;
    uint32_t *const here = (uint32_t *)__builtin_frame_address(0) - 16;
    for (to = data_start; to < data_end; to++) {
        *to = *from++;
    }
    for (to = bss_start; to < bss_end; to++) {
        *to = 0;
    }
    for (to = stack_limit; to < here; to++) {
        *to = STACK_PAINT;
    }
    run();
}

typedef void (*handler_t)(void);
typedef union {
    uint32_t *stack;
    handler_t handler;
} vector_t;

extern const vector_t vectors[16];
__attribute__((section(".vectors"), used)) const vector_t vectors[16] = {
    {.stack = stack_top}, {.handler = reset},   {.handler = fault}, {.handler = fault},
    {.handler = fault},   {.handler = fault},   {.handler = fault}, {.handler = NULL},
    {.handler = NULL},    {.handler = NULL},    {.handler = NULL},  {.handler = fault},
    {.handler = fault},   {.handler = NULL},    {.handler = fault}, {.handler = systick},
};
