#ifndef EL_EDGE_QUAD_H
#define EL_EDGE_QUAD_H
#include <stdint.h>
#include "el_activation.h"
#include "el_quad_bytes.h"
#include "el_quad_rows.h"
/* begin */

/* acc * multiplier >> shift of the high row of a pair; shift >= 16, multiplier >= 0. The product
 * has 48 bits: in two halves, where the core has no such multiplication. */
static inline int32_t el_edge_high(int32_t acc, int32_t multiplier, int32_t shift)
{
#if defined(EL_CORE_MVE) || defined(EL_CORE_DSP) || defined(EL_CORE_V7M) || defined(EL_CORE_RV32)
    return (int32_t)(((int64_t)acc * multiplier) >> shift);
#else
    const uint32_t low = ((uint32_t)acc & 0xffff) * (uint32_t)multiplier;
    return ((acc >> 16) * multiplier + (int32_t)(low >> 16)) >> (shift - 16);
#endif
}

/* Four rows, requantized. The words: a bias in two words each, its low half first; the weights;
 * a multiplier each. high_shift: where the rows are packed in pairs, that of the high ones; else
 * 0. Returns where the words end. */
static inline const int16_t *el_edge_quad(const int16_t *words, const el_activation_t *x,
    int32_t columns, int32_t shift, int32_t high_shift, int32_t results[4])
{
    const int16_t *multipliers = words + 8 + 2 * columns;
    if (high_shift > 0) {
        el_quad_rows(words + 8, x, columns, results);
    } else {
        el_quad_bytes(words + 8, x, columns, results);
    }
    for (int32_t row = 0; row < 4; row++) {
        const int32_t bias = words[2 * row + 1] * 65536 + (uint16_t)words[2 * row];
        const int32_t acc = bias + results[row];
        if (high_shift > 0 && row % 2 == 0) {
            results[row] = el_edge_high(acc, multipliers[row], high_shift);
        } else {
            results[row] = (acc * multipliers[row]) >> shift;
        }
    }
    return multipliers + 4;
}

/* Values of int8 or int16 as activations. */
static inline void el_edge_widen_s8(const int8_t *x, el_activation_t *a, int32_t n, int32_t shift)
{
    for (int32_t k = 0; k < n; k++) {
        a[k] = (el_activation_t)(x[k] * (1 << shift));
    }
}

static inline void el_edge_widen_s16(const int16_t *x, el_activation_t *a, int32_t n, int32_t shift)
{
    for (int32_t k = 0; k < n; k++) {
        a[k] = (el_activation_t)(x[k] * (1 << shift));
    }
}

/* end */
#endif
