/* Two multiplications in one instruction, where the processor has it; the integers are the same
 * without. */
#if defined(__GNUC__) && defined(__ARM_FEATURE_DSP) && defined(__ARMEL__)
#define HAS_DSP 1
static inline uint32_t load_4(const int8_t *bytes)
{
    uint32_t word;
    __builtin_memcpy(&word, bytes, 4);
    return word;
}

static inline void store_4(int8_t *bytes, uint32_t word)
{
    __builtin_memcpy(bytes, &word, 4);
}

static inline uint32_t even_2(uint32_t word)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1" : "=r"(pair) : "r"(word));
    return pair;
}

static inline uint32_t odd_2(uint32_t word)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
}

static inline uint32_t add_products(uint32_t sum, uint32_t a, uint32_t b)
{
    uint32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

static inline uint32_t add_low(uint32_t sum, uint32_t a, uint32_t b)
{
    uint32_t result;
    __asm__("smlabb %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

static inline uint32_t add_high(uint32_t sum, uint32_t a, uint32_t b)
{
    uint32_t result;
    __asm__("smlatt %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}
#else
#define HAS_DSP 0
#endif

static inline uint32_t add_product(uint32_t sum, int8_t a, int8_t b)
{
    return sum + (uint32_t)((int32_t)a * (int32_t)b);
}
