/* Round total / (divisor 2^shift) half to even. */
KERNEL int64_t round_quotient(int64_t total, uint32_t divisor, uint32_t shift)
{
    const uint64_t size = total < 0 ? (uint64_t)0 - (uint64_t)total : (uint64_t)total;
    const uint64_t unit = (uint64_t)divisor << shift;
    uint64_t quotient = divisor == 1u ? size >> shift : size / unit;
    const uint64_t rest = size - quotient * unit;
    const uint64_t upper = unit - rest;
    quotient += rest > upper || (rest == upper && (quotient & 1u) != 0u) ? 1u : 0u;
    return total < 0 ? -(int64_t)quotient : (int64_t)quotient;
}
