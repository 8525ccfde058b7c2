/* Hand out a result that other operations read, too; codes as the network numbers them. */
KERNEL void output_sums(const int32_t *in, int32_t *out, int32_t offset, int32_t n)
{
    int32_t i;
    for (i = 0; i < n; i++) {
        out[i] = in[i] + offset;
    }
}
