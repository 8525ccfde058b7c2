/* A tensor that is added: codes, or (codes NULL) sums. */
typedef struct {
    const int8_t *codes;
    const int32_t *sums;
    int32_t zero;
} operand_t;

/* Add the operands and bring them to another grid; the result may replace an operand. */
KERNEL void rescale(const rescale_t *constants, const operand_t *operands, int32_t n_operands,
                    int32_t positions, int32_t channels, int8_t *codes, int32_t *sums)
{
    const int32_t width = constants->channel_step == 0 ? 1 : channels;
    int32_t position, channel, i, index = 0;
    for (position = 0; position < positions; position++) {
        const uint32_t divisor =
            constants->divisor == NULL ? 1u : constants->divisor[position * constants->divisor_step];
        for (channel = 0; channel < channels; channel++, index++) {
            const int32_t column = channel * constants->channel_step;
            int64_t total = 0;
            int32_t value;
            for (i = 0; i < n_operands; i++) {
                const operand_t *const x = operands + i;
                const int32_t real = (x->codes != NULL ? x->codes[index] : x->sums[index]) - x->zero;
                total += (int64_t)real * constants->multiplier[i * width + column];
            }
            value = clamp(round_quotient(total, divisor, constants->shift[column]) +
                              constants->zero,
                          constants->low, constants->high);
            if (codes != NULL) {
                codes[index] = (int8_t)value;
            } else {
                sums[index] = value;
            }
        }
    }
}
