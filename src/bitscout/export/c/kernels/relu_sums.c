/* What lies below zero becomes zero; the result may replace the operand. */
KERNEL void relu_sums(const int32_t *in, int32_t *out, int32_t zero, int32_t n)
{
    int32_t i;
    for (i = 0; i < n; i++) {
        out[i] = in[i] > zero ? in[i] : zero;
    }
}
