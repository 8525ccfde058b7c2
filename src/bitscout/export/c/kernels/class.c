int32_t @NAME@_class(const int32_t *output)
{
@STEPS@    int64_t best = INT64_MIN;
    int32_t i, index = 0;
    for (i = 0; i < @PREFIX@_OUTPUT_SIZE; i++) {
        const int64_t real = @REAL@;
        if (real > best) {
            best = real;
            index = i;
        }
    }
    return index;
}
