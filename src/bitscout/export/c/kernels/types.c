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
