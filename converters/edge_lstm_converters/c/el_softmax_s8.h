#ifndef EL_SOFTMAX_S8_H
#define EL_SOFTMAX_S8_H
#include "el_fixed_point.h"
#include "el_loop.h"
/* begin */

/* 1 / (1 + a) in Q0.31 of a in Q0.31, by Newton's method. */
static inline int32_t el_one_over_one_plus_s32(int32_t a)
{
    const int32_t denominator = (int32_t)(((uint32_t)a + 0x80000000u) >> 1);
    int32_t x = 1515870810 + el_high_multiply(denominator, -1010580540); /* 48/17 - 32/17 d */
    for (int32_t round = 0; round < 3; round++) {
        const int32_t error = (1 << 29) - el_high_multiply(denominator, x);
        x = el_wrap_add(x, el_saturating_shift_left(el_high_multiply(x, error), 2));
    }
    return el_saturating_shift_left(x, 1);
}

/* Softmax of int8 values in units of 1/256 from -128.
 * exp: Q0.31, of the differences to the maximum from 0 down; others count as nothing.
 * Mirrors: reference_ops::Softmax (TFLite). */
static inline void el_softmax_s8(const int8_t *x, int8_t *y, int32_t size, const int32_t *exp,
    int32_t counted)
{
    int32_t greatest = -128, zeros = 0, inverse;
    uint32_t sum = 0;
    for (int32_t k = 0; k < size; k++) {
        greatest = x[k] > greatest ? x[k] : greatest;
    }
    for (int32_t k = 0; k < size; k++) {
        const int32_t below = greatest - x[k];
        sum += below < counted ? (uint32_t)el_rounding_divide_by_pot(exp[below], 12) : 0u;
    }
    while (sum < 0x80000000u) {
        sum <<= 1;
        zeros += 1;
    }
    inverse = el_one_over_one_plus_s32((int32_t)(sum - 0x80000000u));
    for (int32_t k = 0; k < size; k++) {
        const int32_t below = greatest - x[k], exponent = 35 - zeros;
        int32_t value = 0;
        EL_LOOP;
        if (below < counted && exponent < 32) {
            value = el_rounding_divide_by_pot(el_high_multiply(exp[below], inverse), exponent);
        }
        y[k] = (int8_t)el_saturate(value - 128, -128, 127);
    }
}

/* end */
#endif
