#ifndef EL_LAYER_NORM_H
#define EL_LAYER_NORM_H
#include "el_fixed_point.h"
/* begin */

/* Layer normalization of an LSTM's gates. Mirrors: PortableApplyLayerNorm (TFLite). */

/* By shifting and subtracting: v6-M has no division, and a step needs few. */
static inline uint32_t el_divide(uint32_t dividend, uint32_t divisor, uint32_t *rest)
{
    uint32_t quotient = 0, remainder = 0;
    for (int32_t bit = 31; bit >= 0; bit--) {
        const uint32_t carried = remainder >> 31;
        remainder = remainder << 1 | (dividend >> bit & 1u);
        quotient <<= 1;
        if (carried != 0 || remainder >= divisor) {
            remainder -= divisor;
            quotient |= 1u;
        }
    }
    *rest = remainder;
    return quotient;
}

/* 1 / sqrt(value) as multiplier and shift to the right. */
static inline int32_t el_inverse_square_root(int32_t value, int32_t *right)
{
    int32_t shift = 11, x = 1 << 28;
    if (value <= 1) {
        *right = 0;
        return 0x7fffffff;
    }
    for (; value >= 1 << 29; value >>= 2) {
        shift += 1;
    }
    for (; value < 1 << 27; value *= 4) {
        shift -= 1;
    }
    value >>= 1;
    value = el_rounding_divide_by_pot(value, 1);
    for (int32_t round = 0; round < 5; round++) {
        int32_t cube = el_high_multiply(el_high_multiply(x, x), x);
        cube = el_saturating_shift_left(cube, 6);
        x = el_high_multiply(3 << 27, x) - el_high_multiply(value, cube);
        x = el_saturating_shift_left(x, 3);
    }
    x = el_high_multiply(x, 1518500250); /* sqrt(1/2), Q0.31 */
    *right = shift < 0 ? 0 : shift;
    return shift < 0 ? el_wrap_shift_left(x, -shift) : x;
}

/* squares / n less the square of the mean, towards zero; unit is 2^20 / n. Below 1: 0. */
static inline int32_t el_variance(uint64_t squares, uint32_t unit, int32_t mean)
{
    const uint32_t low = (uint32_t)squares, high = (uint32_t)(squares >> 32);
    uint64_t spread = (uint64_t)el_multiply_s64((int32_t)(low & 0xffffu), (int32_t)unit);
    const uint64_t middle = (uint64_t)el_multiply_s64((int32_t)(low >> 16), (int32_t)unit);
    spread += (middle << 16) + ((uint64_t)(high * unit) << 32);
    spread -= (uint64_t)el_multiply_s64(mean, mean);
    return (int64_t)spread < 0 ? 0 : el_shift_right_s64((int64_t)spread, 20);
}

/* Normalize the n values of a gate where they lie.
 * unit is 2^20 / n; a variance below 1 becomes least; multiplier and shift lead to Q3.12. */
static inline void el_layer_norm(int16_t *gate, int32_t n, uint32_t unit, const int16_t *weights,
    const int32_t *bias, int32_t least, int32_t multiplier, int32_t shift)
{
    int32_t sum = 0, right, mean, variance, inverse;
    uint64_t squares = 0;
    uint32_t rest, quotient;
    for (int32_t k = 0; k < n; k++) {
        sum += gate[k];
        squares += (uint32_t)(gate[k] * gate[k]);
    }
    /* 1024 * sum / n, towards zero. */
    quotient = el_divide((uint32_t)(sum < 0 ? -sum : sum), (uint32_t)n, &rest) << 10;
    quotient += el_divide(rest << 10, (uint32_t)n, &rest);
    mean = sum < 0 ? -(int32_t)quotient : (int32_t)quotient;
    variance = el_variance(squares, unit, mean);
    inverse = el_inverse_square_root(variance >= 1 ? variance : least, &right);
    for (int32_t k = 0; k < n; k++) {
        int32_t value = el_requantize(gate[k] * 1024 - mean, inverse, -right);
        value = el_wrap_add(el_wrap_multiply(value, weights[k]), bias[k]);
        if (value > 0) {
            value = (int32_t)(((uint32_t)value + 512u) >> 10);
        } else {
            value = -(int32_t)((0u - (uint32_t)value + 512u) >> 10);
        }
        gate[k] = (int16_t)el_saturate_s16(el_requantize(value, multiplier, shift));
    }
}

/* end */
#endif
