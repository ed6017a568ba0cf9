#ifndef EL_SOFTMAX_F32_H
#define EL_SOFTMAX_F32_H
#include <stdint.h>
/* begin */

/* float32 by its bits, with integers only: what softmax needs, positive values and 0. */

static inline uint32_t el_add_f32(uint32_t left, uint32_t right)
{
    const uint32_t greater = left > right ? left : right, less = left > right ? right : left;
    const uint32_t apart = (greater >> 23) - (less >> 23);
    /* With three more bits: guard, round and whether anything follows. */
    uint32_t sum = ((greater & 0x7fffffu) | 0x800000u) << 3, exponent = greater >> 23;
    uint32_t added = ((less & 0x7fffffu) | 0x800000u) << 3, half;
    if (less == 0 || apart > 26) {
        return greater;
    }
    added = added >> apart | ((added & ((1u << apart) - 1u)) != 0);
    sum += added;
    if (sum >= 1u << 27) {
        sum = sum >> 1 | (sum & 1u);
        exponent += 1;
    }
    half = (sum & 7u) + ((sum >> 3) & 1u);
    /* A carry out of the fraction is the next exponent's. */
    return (exponent << 23) + ((sum >> 3) - 0x800000u) + (half > 4u);
}

/* The float32 quotient, rounded to an integer, ties away from zero; below 2^23. */
static inline int32_t el_round_quotient_f32(uint32_t dividend, uint32_t divisor)
{
    uint32_t rest = (dividend & 0x7fffffu) | 0x800000u, quotient = 0;
    const uint32_t whole = (divisor & 0x7fffffu) | 0x800000u;
    int32_t right = 23 - (int32_t)(dividend >> 23) + (int32_t)(divisor >> 23);
    if (rest < whole) {
        rest <<= 1;
        right += 1;
    }
    if (dividend == 0 || right > 25) {
        return 0;
    }
    for (int32_t bit = 0; bit < 25; bit++) {
        quotient <<= 1;
        if (rest >= whole) {
            rest -= whole;
            quotient |= 1u;
        }
        rest <<= 1;
    }
    /* 24 bits, ties to even; then the integer. */
    if ((quotient & 1u) != 0 && (rest != 0 || (quotient & 2u) != 0)) {
        quotient += 1;
    }
    quotient >>= 1;
    return (int32_t)((quotient + (1u << (right - 1))) >> right);
}

/* Softmax of int8 values in units of 1/256 from -128; exp: float32, by the difference to the
 * maximum. Mirrors: SoftmaxInt8LUT (TFLite). */
static inline void el_softmax_f32(const int8_t *x, int8_t *y, int32_t size, const uint32_t *exp)
{
    int32_t greatest = -128;
    uint32_t sum = 0;
    for (int32_t k = 0; k < size; k++) {
        greatest = x[k] > greatest ? x[k] : greatest;
    }
    for (int32_t k = 0; k < size; k++) {
        sum = el_add_f32(sum, exp[greatest - x[k]]);
    }
    sum -= 8u << 23; /* by 256, of a number that is 1 at least */
    for (int32_t k = 0; k < size; k++) {
        const int32_t value = el_round_quotient_f32(exp[greatest - x[k]], sum) - 128;
        y[k] = (int8_t)(value > 127 ? 127 : value);
    }
}

/* end */
#endif
