#define SUMS_AT_ONCE 64

/* A convolution; a linear layer is one of 1 x 1 on one position. */
typedef struct {
    const uint8_t *weights; /* One stream of bits, lowest first: [out][row][column][in]. */
    const uint32_t *bias;   /* With the zero point folded in; NULL is 0. */
    int32_t in_channels, out_channels, groups;
    int16_t in_height, in_width, out_height, out_width;
    int16_t kernel_height, kernel_width, stride_y, stride_x;
    int16_t top, left, dilation_y, dilation_x;
    uint8_t bits;
    int8_t zero; /* Code that stands for 0, outside of the image. */
} layer_t;

/* First and one past the last output whose whole window is inside, along one axis. */
static int32_t first_inside(int32_t pad, int32_t stride)
{
    return pad <= 0 ? 0 : (pad + stride - 1) / stride;
}

static int32_t stop_inside(int32_t size, int32_t extent, int32_t pad, int32_t stride, int32_t n)
{
    const int32_t last = size - extent + pad;
    const int32_t stop = last < 0 ? 0 : last / stride + 1;
    return stop < n ? stop : n;
}

/* Spread `n` weights of `bits` bits, from the `first` of the stream on, to a byte each. */
KERNEL void unpack(const uint8_t *stream, int32_t first, int32_t n, uint32_t bits, int8_t *out,
                   int32_t step)
{
    const uint32_t position = (uint32_t)first * bits;
    const uint32_t sign = (uint32_t)1 << (bits - 1u), mask = 2u * sign - 1u;
    uint32_t have = 8u - (position & 7u), buffer;
    int32_t i;
    stream += position >> 3;
    buffer = (uint32_t)*stream++ >> (position & 7u);
    for (i = 0; i < n; i++) {
        if (have < bits) {
            buffer |= (uint32_t)*stream++ << have;
            have += 8u;
        }
        out[i * step] = (int8_t)((int32_t)((buffer & mask) ^ sign) - (int32_t)sign);
        buffer >>= bits;
        have -= bits;
    }
}
