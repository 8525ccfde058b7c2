/* What lies below zero becomes zero; the result may replace the operand. */
KERNEL void relu_codes(const int8_t *in, int8_t *out, int8_t zero, int32_t n)
{
    int32_t i;
    for (i = 0; i < n; i++) {
        out[i] = in[i] > zero ? in[i] : zero;
    }
}
