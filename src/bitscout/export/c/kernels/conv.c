/* Sums of two channels at two positions: `rows` pieces of `length` inputs, `pitch` apart. */
KERNEL void dot_2x2(const int8_t *w0, const int8_t *w1, const int8_t *x0, const int8_t *x1,
                    int32_t rows, int32_t length, int32_t pitch, const uint32_t *bias,
                    uint32_t *sums)
{
    uint32_t s00 = bias[0], s01 = bias[1], s10 = bias[0], s11 = bias[1];
    for (; rows > 0; rows--) {
        const int8_t *const end = x0 + length;
#if HAS_DSP
        const int8_t *const end_4 = x0 + (length & ~3);
        while (x0 != end_4) {
            const uint32_t a = load_4(x0), b = load_4(x1), c = load_4(w0), d = load_4(w1);
            const uint32_t a0 = even_2(a), b0 = even_2(b), c0 = even_2(c), d0 = even_2(d);
            const uint32_t a1 = odd_2(a), b1 = odd_2(b), c1 = odd_2(c), d1 = odd_2(d);
            s00 = add_products(s00, a0, c0);
            s01 = add_products(s01, a0, d0);
            s10 = add_products(s10, b0, c0);
            s11 = add_products(s11, b0, d0);
            s00 = add_products(s00, a1, c1);
            s01 = add_products(s01, a1, d1);
            s10 = add_products(s10, b1, c1);
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
        if (rows > 1) {
            x0 += pitch - length;
            x1 += pitch - length;
        }
    }
    sums[0] = s00;
    sums[1] = s01;
    sums[2] = s10;
    sums[3] = s11;
}

/* Sums of two channels at one position. */
KERNEL void dot_2x1(const int8_t *w0, const int8_t *w1, const int8_t *x, int32_t rows,
                    int32_t length, int32_t pitch, const uint32_t *bias, uint32_t *sums)
{
    uint32_t s0 = bias[0], s1 = bias[1];
    for (; rows > 0; rows--) {
        const int8_t *const end = x + length;
#if HAS_DSP
        const int8_t *const end_4 = x + (length & ~3);
        while (x != end_4) {
            const uint32_t a = load_4(x), c = load_4(w0), d = load_4(w1);
            const uint32_t a0 = even_2(a), a1 = odd_2(a);
            s0 = add_products(s0, a0, even_2(c));
            s1 = add_products(s1, a0, even_2(d));
            s0 = add_products(s0, a1, odd_2(c));
            s1 = add_products(s1, a1, odd_2(d));
            x += 4;
            w0 += 4;
            w1 += 4;
        }
#endif
        while (x != end) {
            const int8_t a = *x++;
            s0 = add_product(s0, a, *w0++);
            s1 = add_product(s1, a, *w1++);
        }
        if (rows > 1) {
            x += pitch - length;
        }
    }
    sums[0] = s0;
    sums[1] = s1;
}

/* Copy one window, with the zero point where it is outside of the image. */
KERNEL void gather(const layer_t *layer, const int8_t *in, int32_t y, int32_t x, int32_t n,
                   int8_t *out)
{
    const int32_t height = layer->in_height, width = layer->in_width;
    int32_t row, column, i;
    for (row = 0; row < layer->kernel_height; row++) {
        const int32_t from_y = y + row * layer->dilation_y;
        for (column = 0; column < layer->kernel_width; column++) {
            const int32_t from_x = x + column * layer->dilation_x;
            if (from_y >= 0 && from_y < height && from_x >= 0 && from_x < width) {
                const int8_t *const from = in + (from_y * width + from_x) * layer->in_channels;
                for (i = 0; i < n; i++) {
                    out[i] = from[i];
                }
            } else {
                for (i = 0; i < n; i++) {
                    out[i] = layer->zero;
                }
            }
            out += n;
        }
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
    /* Windows of a group's channels, or with gaps, are not in one piece: none is read in place. */
    const int32_t is_whole = kernel_width == 1 || (layer->groups == 1 && layer->dilation_x == 1);
    const int32_t stop_x =
        is_whole ? stop_inside(width, span_x, layer->left, stride, out_width) : 0;
    const int32_t length = kernel_width * depth;
    const int32_t pitch = layer->dilation_y * width * channels;
    uint32_t sums[SUMS_AT_ONCE];
    int32_t channel = 0;
    while (channel < out_channels) {
        const int32_t used = channel % out_depth + 1 < out_depth ? 2 : 1;
        const int8_t *const source = in + channel / out_depth * depth;
        const int8_t *const w0 = weights_of(layer, channel, fan_in, rows);
        const int8_t *const w1 =
            used == 2 ? weights_of(layer, channel + 1, fan_in, rows + fan_in) : w0;
        uint32_t bias[2] = {0, 0};
        int32_t y, x, n, i;
        if (layer->bias != NULL) {
            bias[0] = layer->bias[channel];
            bias[1] = layer->bias[channel + used - 1];
        }
        for (y = 0; y < layer->out_height; y++) {
            const int32_t from_y = y * layer->stride_y - layer->top;
            const int32_t stop = y >= first_y && y < stop_y ? stop_x : 0;
            for (x = 0; x < out_width; x += n) {
                n = out_width - x < SUMS_AT_ONCE / 2 ? out_width - x : SUMS_AT_ONCE / 2;
                for (i = 0; i < n; i += 2) {
                    const int32_t is_pair = i + 1 < n;
                    const int32_t from_x = (x + i) * stride - layer->left;
                    if (x + i >= first_x && x + i + is_pair < stop) {
                        const int8_t *const x0 = source + (from_y * width + from_x) * channels;
                        if (is_pair) {
                            dot_2x2(w0, w1, x0, x0 + stride * channels, kernel_height, length,
                                    pitch, bias, sums + 2 * i);
                        } else {
                            dot_2x1(w0, w1, x0, kernel_height, length, pitch, bias, sums + 2 * i);
                        }
                    } else {
                        gather(layer, source, from_y, from_x, depth, patch);
                        if (is_pair) {
                            gather(layer, source, from_y, from_x + stride, depth, patch + fan_in);
                            dot_2x2(w0, w1, patch, patch + fan_in, 1, fan_in, 0, bias,
                                    sums + 2 * i);
                        } else {
                            dot_2x1(w0, w1, patch, 1, fan_in, 0, bias, sums + 2 * i);
                        }
                    }
                }
                finish(targets, n_targets, sums, 2, used, n, y * out_width + x, out_channels,
                       channel);
            }
        }
        channel += used;
    }
}
