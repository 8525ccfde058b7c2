/* Round total / 2^shift half to even; this network has no other divisors. */
KERNEL int64_t round_quotient(int64_t total, uint32_t divisor, uint32_t shift)
{
    const uint64_t size = total < 0 ? (uint64_t)0 - (uint64_t)total : (uint64_t)total;
    uint64_t quotient = size >> shift;
    const uint64_t rest = size - (quotient << shift);
    const uint64_t upper = ((uint64_t)1 << shift) - rest;
    (void)divisor;
    quotient += rest > upper || (rest == upper && (quotient & 1u) != 0u) ? 1u : 0u;
    return total < 0 ? -(int64_t)quotient : (int64_t)quotient;
}
