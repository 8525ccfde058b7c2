/* Channels of zeros before and after those of a tensor. */
KERNEL void pad_codes(const int8_t *in, int8_t *out, int8_t zero, int32_t positions,
                   int32_t before, int32_t channels, int32_t after)
{
    int32_t i;
    for (; positions > 0; positions--) {
        for (i = 0; i < before; i++) {
            *out++ = zero;
        }
        for (i = 0; i < channels; i++) {
            *out++ = *in++;
        }
        for (i = 0; i < after; i++) {
            *out++ = zero;
        }
    }
}
