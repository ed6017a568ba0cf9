#ifndef EL_SOFTMAX_S16_H
#define EL_SOFTMAX_S16_H
#include "el_fixed_point.h"
/* begin */

/* A function of an int16 word by its 513 knots. */
static inline int32_t el_lookup_s16(const int16_t *knots, int32_t x)
{
    const int32_t index = 256 + (x >> 7), slope = knots[index + 1] - knots[index];
    return (int16_t)(knots[index] + ((slope * (x & 0x7f) + 64) >> 7));
}

/* Softmax of int16 values in units of 2^-15. exp: knots on [-10, 0]; inverse: of 1 / (1 + a) on
 * [0, 1]; multiplier and shift bring differences to exp's argument.
 * Mirrors: SoftmaxInt16 (TFLite). */
static inline void el_softmax_s16(const int16_t *x, int16_t *y, int32_t size, const int16_t *exp,
    const int16_t *inverse, int32_t multiplier, int32_t shift)
{
    int32_t greatest = -32768, zeros = 0, sum = 0, divided;
    for (int32_t k = 0; k < size; k++) {
        greatest = x[k] > greatest ? x[k] : greatest;
    }
    for (int32_t k = 0; k < size; k++) {
        const int32_t below = el_requantize(x[k] - greatest, multiplier, shift);
        y[k] = (int16_t)el_lookup_s16(exp, el_saturate_s16(el_offset(below, 32767)));
        sum += y[k];
    }
    while (sum < 1 << 30) {
        sum *= 2;
        zeros += 1;
    }
    divided = el_shift_right_ties_up(sum, 14) - (1 << 15) - (1 << 16);
    divided = el_lookup_s16(inverse, el_saturate_s16(divided));
    for (int32_t k = 0; k < size; k++) {
        const int32_t value = el_shift_right_ties_up(y[k] * divided, 30 - zeros);
        y[k] = (int16_t)el_saturate(value, 0, 32767);
    }
}

/* end */
#endif
