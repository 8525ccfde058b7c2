/* Where a window's inputs are: rows and columns of pieces of `length`. */
typedef struct {
    int32_t rows, columns, length, pitch_y, pitch_x;
} pieces_t;

/* Sums of two channels at one position. */
KERNEL void dot_2x1(const int8_t *w0, const int8_t *w1, const int8_t *x, const pieces_t *pieces,
                    const uint32_t *bias, uint32_t *sums)
{
    const int32_t length = pieces->length;
    uint32_t s0 = bias[0], s1 = bias[1];
    int32_t row, column = 0;
    for (row = 0; row < pieces->rows; row += column == 0) {
        const int8_t *from = x + row * pieces->pitch_y + column * pieces->pitch_x;
        const int8_t *const end = from + length;
#if HAS_DSP
        const int8_t *const end_4 = from + (length & ~3);
        while (from != end_4) {
            const uint32_t a = load_4(from), c = load_4(w0), d = load_4(w1);
            const uint32_t a0 = even_2(a), a1 = odd_2(a);
            s0 = add_products(s0, a0, even_2(c));
            s1 = add_products(s1, a0, even_2(d));
            s0 = add_products(s0, a1, odd_2(c));
            s1 = add_products(s1, a1, odd_2(d));
            from += 4;
            w0 += 4;
            w1 += 4;
        }
#endif
        while (from != end) {
            const int8_t a = *from++;
            s0 = add_product(s0, a, *w0++);
            s1 = add_product(s1, a, *w1++);
        }
        column = column + 1 < pieces->columns ? column + 1 : 0;
    }
    sums[0] = s0;
    sums[1] = s1;
}

/* Sums of two channels at `n` positions, `step` apart, two of them at a time. */
KERNEL void dot_2xn(const int8_t *weights_0, const int8_t *weights_1, const int8_t *x,
                    int32_t step, int32_t n, const pieces_t *pieces, const uint32_t *bias,
                    uint32_t *sums)
{
    const int32_t length = pieces->length;
    for (; n > 1; n -= 2) {
        const int8_t *w0 = weights_0, *w1 = weights_1;
        uint32_t s00 = bias[0], s01 = bias[1], s10 = s00, s11 = s01;
        int32_t row, column = 0;
        for (row = 0; row < pieces->rows; row += column == 0) {
            const int8_t *x0 = x + row * pieces->pitch_y + column * pieces->pitch_x;
            const int8_t *x1 = x0 + step;
            const int8_t *const end = x0 + length;
#if HAS_DSP
            const int8_t *const end_4 = x0 + (length & ~3);
            while (x0 != end_4) {
                /* In an order in which few registers are needed at a time. */
                const uint32_t c = load_4(w0), d = load_4(w1), a = load_4(x0), b = load_4(x1);
                const uint32_t c0 = even_2(c), c1 = odd_2(c), d0 = even_2(d), d1 = odd_2(d);
                const uint32_t a0 = even_2(a), a1 = odd_2(a);
                const uint32_t b0 = even_2(b), b1 = odd_2(b);
                s00 = add_products(s00, a0, c0);
                s00 = add_products(s00, a1, c1);
                s01 = add_products(s01, a0, d0);
                s01 = add_products(s01, a1, d1);
                s10 = add_products(s10, b0, c0);
                s10 = add_products(s10, b1, c1);
                s11 = add_products(s11, b0, d0);
                s11 = add_products(s11, b1, d1);
                x0 += 4;
                x1 += 4;
                w0 += 4;
                w1 += 4;
            }
#endif
            while (x0 != end) {
                const int8_t a = *x0++, b = *x1++, c = *w0++, d = *w1++;
                s00 = add_product(s00, a, c);
                s01 = add_product(s01, a, d);
                s10 = add_product(s10, b, c);
                s11 = add_product(s11, b, d);
            }
            column = column + 1 < pieces->columns ? column + 1 : 0;
        }
        sums[0] = s00;
        sums[1] = s01;
        sums[2] = s10;
        sums[3] = s11;
        sums += 4;
        /* Not beyond the last one: a pointer may not leave its array. */
        x += n > 2 ? 2 * step : 0;
    }
    if (n == 1) {
        dot_2x1(weights_0, weights_1, x, pieces, bias, sums);
    }
}

static inline void copy(int8_t *out, const int8_t *in, int32_t n)
{
    int32_t i = 0;
#if HAS_DSP
    for (; i + 4 <= n; i += 4) {
        store_4(out + i, load_4(in + i));
    }
#endif
    for (; i < n; i++) {
        out[i] = in[i];
    }
}

static inline void fill(int8_t *out, int8_t value, int32_t n)
{
    int32_t i = 0;
#if HAS_DSP
    for (; i + 4 <= n; i += 4) {
        store_4(out + i, (uint32_t)(uint8_t)value * 0x01010101u);
    }
#endif
    for (; i < n; i++) {
        out[i] = value;
    }
}

/* Copy one window, with the zero point where it is outside of the image. */
KERNEL void gather(const layer_t *layer, const int8_t *in, int32_t y, int32_t x, int32_t n,
                   int8_t *out)
{
    const int32_t height = layer->in_height, width = layer->in_width;
    const int32_t dilation = layer->dilation_x, taps = layer->kernel_width;
    /* Taps left of the image, and those before its right end. */
    const int32_t left = x >= 0 ? 0 : (-x + dilation - 1) / dilation;
    const int32_t first = left < taps ? left : taps;
    const int32_t right = x < width ? (width - 1 - x) / dilation + 1 : 0;
    const int32_t stop = right < first ? first : right < taps ? right : taps;
    int32_t row, tap;
    for (row = 0; row < layer->kernel_height; row++, out += taps * n) {
        const int32_t from_y = y + row * layer->dilation_y;
        if (from_y < 0 || from_y >= height) {
            fill(out, layer->zero, taps * n);
            continue;
        }
        fill(out, layer->zero, first * n);
        if (dilation == 1 && n == layer->in_channels) {
            if (stop > first) {
                copy(out + first * n, in + (from_y * width + x + first) * n, (stop - first) * n);
            }
        } else {
            for (tap = first; tap < stop; tap++) {
                const int32_t at = from_y * width + x + tap * dilation;
                copy(out + tap * n, in + at * layer->in_channels, n);
            }
        }
        fill(out + stop * n, layer->zero, (taps - stop) * n);
    }
}

/* Weights of one output channel, a byte each: unpacked into `row`, or where they are. */
static const int8_t *weights_of(const layer_t *layer, int32_t channel, int32_t n, int8_t *row)
{
    if (layer->bits == 8u) {
        return (const int8_t *)layer->weights + channel * n;
    }
    unpack(layer->weights, channel * n, n, layer->bits, row, 1);
    return row;
}

/* `rows` holds the weights of two channels, `patch` two windows. */
KERNEL void conv(const layer_t *layer, const int8_t *in, int8_t *rows, int8_t *patch,
                 const target_t *targets, int32_t n_targets)
{
    const int32_t width = layer->in_width, channels = layer->in_channels;
    const int32_t out_width = layer->out_width, out_channels = layer->out_channels;
    const int32_t kernel_height = layer->kernel_height, kernel_width = layer->kernel_width;
    const int32_t stride = layer->stride_x;
    const int32_t depth = channels / layer->groups, out_depth = out_channels / layer->groups;
    const int32_t fan_in = kernel_height * kernel_width * depth;
    const int32_t span_y = (kernel_height - 1) * layer->dilation_y + 1;
    const int32_t span_x = (kernel_width - 1) * layer->dilation_x + 1;
    const int32_t first_y = first_inside(layer->top, layer->stride_y);
    const int32_t stop_y =
        stop_inside(layer->in_height, span_y, layer->top, layer->stride_y, layer->out_height);
    const int32_t first_x = first_inside(layer->left, stride);
    const int32_t stop_x = stop_inside(width, span_x, layer->left, stride, out_width);
    /* A row of a window is in one piece, unless it has gaps or other groups between. */
    const int32_t is_whole = layer->groups == 1 && layer->dilation_x == 1;
    const pieces_t in_place = {kernel_height, is_whole ? 1 : kernel_width,
                               is_whole ? kernel_width * depth : depth,
                               layer->dilation_y * width * channels, layer->dilation_x * channels};
    const pieces_t in_patch = {1, 1, fan_in, 0, 0};
    uint32_t sums[SUMS_AT_ONCE];
    int32_t channel = 0;
    while (channel < out_channels) {
        const int32_t used = channel % out_depth + 1 < out_depth ? 2 : 1;
        const int8_t *const source = in + channel / out_depth * depth;
        const int8_t *const w0 = weights_of(layer, channel, fan_in, rows);
        const int8_t *const w1 =
            used == 2 ? weights_of(layer, channel + 1, fan_in, rows + fan_in) : w0;
        uint32_t bias[2] = {0, 0};
        int32_t y, x, n, i, run;
        if (layer->bias != NULL) {
            bias[0] = layer->bias[channel];
            bias[1] = layer->bias[channel + used - 1];
        }
        for (y = 0; y < layer->out_height; y++) {
            const int32_t from_y = y * layer->stride_y - layer->top;
            const int32_t stop = y >= first_y && y < stop_y ? stop_x : 0;
            for (x = 0; x < out_width; x += n) {
                n = out_width - x < SUMS_AT_ONCE / 2 ? out_width - x : SUMS_AT_ONCE / 2;
                for (i = 0; i < n; i += run) {
                    const int32_t from_x = (x + i) * stride - layer->left;
                    if (x + i >= first_x && x + i < stop) {
                        run = stop - x < n ? stop - x - i : n - i;
                        dot_2xn(w0, w1, source + (from_y * width + from_x) * channels,
                                stride * channels, run, &in_place, bias, sums + 2 * i);
                        continue;
                    }
                    gather(layer, source, from_y, from_x, depth, patch);
                    run = i + 1 < n && (x + i + 1 < first_x || x + i + 1 >= stop) ? 2 : 1;
                    if (run == 2) {
                        gather(layer, source, from_y, from_x + stride, depth, patch + fan_in);
                    }
                    dot_2xn(w0, w1, patch, fan_in, run, &in_patch, bias, sums + 2 * i);
                }
                finish(targets, n_targets, sums, 2, used, n, y * out_width + x, out_channels,
                       channel);
            }
        }
        channel += used;
    }
}
