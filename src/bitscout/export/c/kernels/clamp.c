static inline int32_t clamp(int64_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : (int32_t)value;
}

static inline int8_t clamp_8(int32_t value)
{
#if HAS_DSP
    __asm__("ssat %0, #8, %1" : "=r"(value) : "r"(value));
    return (int8_t)value;
#else
    return (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
#endif
}
