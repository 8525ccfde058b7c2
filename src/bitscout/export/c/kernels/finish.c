/* Where the sums of a layer go: rescaled to codes or to int32, or (rescale NULL) as they are. */
typedef struct {
    const rescale_t *rescale;
    int8_t *codes; /* NULL if the result is int32. */
    int32_t *sums;
} target_t;

/* Rescale the sums of one channel; they are `lanes` apart and the results `channels`. */
KERNEL void finish_lane(const target_t *target, const uint32_t *values, int32_t lanes, int32_t n,
                        int32_t index, int32_t channels, int32_t channel)
{
    const rescale_t *const rescale = target->rescale;
    int32_t i;
    if (rescale == NULL) {
        for (i = 0; i < n; i++) {
            target->sums[index + i * channels] = to_int32(values[i * lanes]);
        }
        return;
    }
    {
        const int32_t multiplier = rescale->multiplier[channel * rescale->channel_step];
        const uint32_t shift = rescale->shift[channel * rescale->channel_step];
        const int32_t low = rescale->low, high = rescale->high;
        if (target->codes != NULL && shift >= 33u && shift <= 61u) {
            const int32_t zero = rescale->zero - (int32_t)((uint32_t)1 << (62u - shift));
            int8_t *const out = target->codes + index;
            if (low == -128 && high == 127) {
                for (i = 0; i < n; i++) {
                    const int64_t product = (int64_t)to_int32(values[i * lanes]) * multiplier;
                    out[i * channels] = clamp_8(round_high(product, shift) + zero);
                }
                return;
            }
            for (i = 0; i < n; i++) {
                const int64_t product = (int64_t)to_int32(values[i * lanes]) * multiplier;
                const int32_t code = round_high(product, shift) + zero;
                out[i * channels] = (int8_t)(code < low ? low : code > high ? high : code);
            }
            return;
        }
        for (i = 0; i < n; i++) {
            const int64_t product = (int64_t)to_int32(values[i * lanes]) * multiplier;
            const int64_t quotient = round_quotient(product, 1u, shift);
            const int32_t value = clamp(quotient + rescale->zero, low, high);
            if (target->codes != NULL) {
                target->codes[index + i * channels] = (int8_t)value;
            } else {
                target->sums[index + i * channels] = value;
            }
        }
    }
}

/* Hand the sums of `n` positions and `used` of `lanes` channels to every target. */
KERNEL void finish(const target_t *target, int32_t n_targets, const uint32_t *values,
                   int32_t lanes, int32_t used, int32_t n, int32_t position, int32_t channels,
                   int32_t channel)
{
    int32_t lane;
    for (; n_targets > 0; n_targets--, target++) {
        for (lane = 0; lane < used; lane++) {
            finish_lane(target, values + lane, lanes, n, position * channels + channel + lane,
                        channels, channel + lane);
        }
    }
}
