/* Channel by channel, as the network numbers its features. */
KERNEL void flatten_codes(const int8_t *in, int8_t *out, int32_t positions, int32_t channels)
{
    int32_t position, channel;
    for (channel = 0; channel < channels; channel++) {
        for (position = 0; position < positions; position++) {
            *out++ = in[position * channels + channel];
        }
    }
}
