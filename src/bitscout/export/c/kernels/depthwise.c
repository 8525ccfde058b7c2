/* Sums of four channels at `n` positions, `step` apart; the weights of the four are next to each
 * other for every tap, and taps are `pitch_x` and `pitch_y` apart. */
KERNEL void dot_4xn(const layer_t *layer, const int8_t *weights, const int8_t *x, int32_t step,
                    int32_t n, int32_t pitch_x, int32_t pitch_y, const uint32_t *bias,
                    uint32_t *sums)
{
    const int32_t height = layer->kernel_height, width = layer->kernel_width;
    int32_t i, row, column;
    for (i = 0; i < n; i++) {
        const int8_t *w = weights;
        uint32_t s0 = bias[0], s1 = bias[1], s2 = bias[2], s3 = bias[3];
        for (row = 0; row < height; row++) {
            int32_t at = i * step + row * pitch_y;
            for (column = 0; column < width; column++) {
#if HAS_DSP
                const uint32_t a = load_4(x + at), b = load_4(w);
                const uint32_t a0 = even_2(a), a1 = odd_2(a), b0 = even_2(b), b1 = odd_2(b);
                s0 = add_low(s0, a0, b0);
                s1 = add_low(s1, a1, b1);
                s2 = add_high(s2, a0, b0);
                s3 = add_high(s3, a1, b1);
#else
                s0 = add_product(s0, x[at], w[0]);
                s1 = add_product(s1, x[at + 1], w[1]);
                s2 = add_product(s2, x[at + 2], w[2]);
                s3 = add_product(s3, x[at + 3], w[3]);
#endif
                at += pitch_x;
                w += 4;
            }
        }
        sums[0] = s0;
        sums[1] = s1;
        sums[2] = s2;
        sums[3] = s3;
        sums += 4;
    }
}

/* Copy the window of up to four channels, with the zero point where there is none. */
KERNEL void gather_lanes(const layer_t *layer, const int8_t *in, int32_t y, int32_t x,
                         int32_t channel, int32_t used, int8_t *out)
{
    const int32_t multiple = layer->out_channels / layer->in_channels;
    int32_t row, column, lane;
    in += multiple == 1 ? channel : 0;
    for (row = 0; row < layer->kernel_height; row++) {
        const int32_t from_y = y + row * layer->dilation_y;
        const int32_t is_inside = from_y >= 0 && from_y < layer->in_height;
        int32_t from_x = x;
        for (column = 0; column < layer->kernel_width; column++) {
            const int32_t at = (from_y * layer->in_width + from_x) * layer->in_channels;
            const int32_t is_zero = !is_inside || from_x < 0 || from_x >= layer->in_width;
#if HAS_DSP
            if (multiple == 1 && used == 4) {
                store_4(out, is_zero ? (uint32_t)(uint8_t)layer->zero * 0x01010101u
                                     : load_4(in + at));
                from_x += layer->dilation_x;
                out += 4;
                continue;
            }
#endif
            for (lane = 0; lane < 4; lane++) {
                if (is_zero || lane >= used) {
                    out[lane] = layer->zero;
                } else if (multiple == 1) {
                    out[lane] = in[at + lane];
                } else {
                    out[lane] = in[at + (channel + lane) / multiple];
                }
            }
            from_x += layer->dilation_x;
            out += 4;
        }
    }
}

/* `weights` and `patch` hold four channels of a window each. */
KERNEL void depthwise(const layer_t *layer, const int8_t *in, int8_t *weights, int8_t *patch,
                      const target_t *targets, int32_t n_targets)
{
    const int32_t width = layer->in_width, channels = layer->in_channels;
    const int32_t out_width = layer->out_width, out_channels = layer->out_channels;
    const int32_t kernel_height = layer->kernel_height, kernel_width = layer->kernel_width;
    const int32_t taps = kernel_height * kernel_width;
    const int32_t span_y = (kernel_height - 1) * layer->dilation_y + 1;
    const int32_t span_x = (kernel_width - 1) * layer->dilation_x + 1;
    const int32_t first_y = first_inside(layer->top, layer->stride_y);
    const int32_t stop_y =
        stop_inside(layer->in_height, span_y, layer->top, layer->stride_y, layer->out_height);
    const int32_t first_x = first_inside(layer->left, layer->stride_x);
    const int32_t stop_x = stop_inside(width, span_x, layer->left, layer->stride_x, out_width);
    const int32_t pitch_x = layer->dilation_x * channels;
    const int32_t pitch_y = layer->dilation_y * width * channels;
    uint32_t sums[SUMS_AT_ONCE];
    int32_t channel;
    for (channel = 0; channel < out_channels; channel += 4) {
        const int32_t used = out_channels - channel < 4 ? out_channels - channel : 4;
        /* Four channels are next to each other, and all of them exist. */
        const int32_t is_whole = used == 4 && out_channels == channels;
        uint32_t bias[4] = {0, 0, 0, 0};
        int32_t lane, y, x, n, i, run;
        for (lane = 0; lane < 4; lane++) {
            /* A lane without a channel computes with another's weights; nobody reads it. */
            const int32_t from = channel + (lane < used ? lane : 0);
            unpack(layer->weights, from * taps, taps, layer->bits, weights + lane, 4);
            if (layer->bias != NULL) {
                bias[lane] = layer->bias[from];
            }
        }
        for (y = 0; y < layer->out_height; y++) {
            const int32_t from_y = y * layer->stride_y - layer->top;
            const int32_t stop = is_whole && y >= first_y && y < stop_y ? stop_x : 0;
            for (x = 0; x < out_width; x += n) {
                n = out_width - x < SUMS_AT_ONCE / 4 ? out_width - x : SUMS_AT_ONCE / 4;
                for (i = 0; i < n; i += run) {
                    const int32_t from_x = (x + i) * layer->stride_x - layer->left;
                    if (x + i >= first_x && x + i < stop) {
                        run = stop - x < n ? stop - x - i : n - i;
                        dot_4xn(layer, weights,
                                in + (from_y * width + from_x) * channels + channel,
                                layer->stride_x * channels, run, pitch_x, pitch_y, bias,
                                sums + 4 * i);
                    } else {
                        run = 1;
                        gather_lanes(layer, in, from_y, from_x, channel, used, patch);
                        dot_4xn(layer, weights, patch, 0, 1, 4, 4 * kernel_width, bias,
                                sums + 4 * i);
                    }
                }
                finish(targets, n_targets, sums, 4, used, n, y * out_width + x, out_channels,
                       channel);
            }
        }
    }
}
