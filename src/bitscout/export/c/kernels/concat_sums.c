/* Put the channels of one tensor, from `first` on, among those of the result. */
KERNEL void concat_sums(const int32_t *in, int32_t *out, int32_t positions, int32_t channels,
                   int32_t first, int32_t out_channels)
{
    int32_t i;
    out += first;
    for (; positions > 0; positions--) {
        for (i = 0; i < channels; i++) {
            out[i] = in[i];
        }
        in += channels;
        out += out_channels;
    }
}
