/* Constants of a rescaling: sum_i x_i M_i / (D 2^S), rounded once, half to even. */
typedef struct {
    const int32_t *multiplier; /* M: for every operand one for each channel, or one. */
    const uint8_t *shift;      /* S: one for each channel, or one. */
    const uint32_t *divisor;   /* D: one for each position, or one; NULL is 1. */
    int32_t channel_step;      /* 1 with constants for each channel, 0 with one. */
    int32_t divisor_step;      /* 1 with divisors for each position, 0 with one. */
    int32_t zero;              /* Zero point of the result. */
    int32_t low;               /* Smallest result. */
    int32_t high;              /* Largest result. */
} rescale_t;

/* Unsigned sums wrap as two's complement does; the whole sum fits, whatever its parts do. */
static inline int32_t to_int32(uint32_t bits)
{
    return bits <= 0x7fffffffu ? (int32_t)bits : -(int32_t)(~bits) - 1;
}

/* Return total / 2^shift, rounded half to even, plus 2^(62 - shift), for shifts of 33 to 61 and
 * |total| < 2^62. Adding 2^62 makes the total positive and changes neither rest nor parity. Of
 * the low word only whether it is 0 counts, because half is a multiple of 2^32. */
static inline int32_t round_high(int64_t total, uint32_t shift)
{
    const uint32_t low = (uint32_t)(uint64_t)total, down = shift - 32u;
    const uint32_t half = ((uint32_t)1 << (down - 1u)) - 1u;
    uint32_t high = (uint32_t)((uint64_t)total >> 32) + 0x40000000u;
#if HAS_DSP
    /* The carry flag takes the last bit shifted out, the parity, and then whether that or the low
     * word is not 0. */
    uint32_t unused;
    __asm__("lsrs %1, %0, %4\n\tadcs %1, %2, #-1\n\tadc %0, %0, %3"
            : "+r"(high), "=&r"(unused)
            : "r"(low), "r"(half), "r"(down + 1u)
            : "cc");
#else
    high += half + (((high >> down) & 1u) | (low != 0u ? 1u : 0u));
#endif
    return (int32_t)(high >> down);
}
