/* Add two tensors of codes that have a step each; the result may replace one. With operands times
 * 2^up the shift is one that `round_high` can do. */
KERNEL void add(const rescale_t *constants, const int8_t *x, const int8_t *y, int32_t zero_x,
                int32_t zero_y, int32_t n, int8_t *out)
{
    const int32_t multiplier_x = constants->multiplier[0];
    const int32_t multiplier_y = constants->multiplier[1];
    const uint32_t from = constants->shift[0], up = from < 33u ? 33u - from : 0u;
    const uint32_t shift = from + up;
    const int32_t unit = (int32_t)((uint32_t)1 << up);
    const int32_t zero = constants->zero - (int32_t)((uint32_t)1 << (62u - shift));
    const int32_t low = constants->low, high = constants->high;
    int32_t i;
    for (i = 0; i < n; i++) {
        const int64_t total = (int64_t)((x[i] - zero_x) * unit) * multiplier_x +
                              (int64_t)((y[i] - zero_y) * unit) * multiplier_y;
        const int32_t code = round_high(total, shift) + zero;
        out[i] = (int8_t)(code < low ? low : code > high ? high : code);
    }
}
