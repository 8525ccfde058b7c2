/* Sum of each window, the zero point subtracted; spans are the first row and the one behind the
 * last. */
KERNEL void sum_pool_sums(const int32_t *in, int32_t *out, int32_t zero, const uint16_t *rows,
                    int32_t n_rows, const uint16_t *columns, int32_t n_columns, int32_t width,
                    int32_t channels)
{
    int32_t row, column, y, x, i;
    for (row = 0; row < n_rows; row++) {
        for (column = 0; column < n_columns; column++) {
            for (i = 0; i < channels; i++) {
                out[i] = 0;
            }
            for (y = rows[2 * row]; y < rows[2 * row + 1]; y++) {
                for (x = columns[2 * column]; x < columns[2 * column + 1]; x++) {
                    const int32_t *const from = in + (y * width + x) * channels;
                    for (i = 0; i < channels; i++) {
                        out[i] += from[i] - zero;
                    }
                }
            }
            out += channels;
        }
    }
}
