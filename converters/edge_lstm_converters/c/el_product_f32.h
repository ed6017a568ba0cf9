#ifndef EL_PRODUCT_F32_H
#define EL_PRODUCT_F32_H
#include "el_fixed_point.h"
/* begin */

/* float32 in integers: a value is whole * 2^-right, whole of 24 bits. */

static inline int32_t el_bit_length(uint32_t value)
{
    int32_t bits = 0;
    for (int32_t step = 16; step > 0; step >>= 1) {
        if (value >> step != 0) {
            value >>= step;
            bits += step;
        }
    }
    return bits + (value != 0);
}

/* value / 2^right to nearest, ties to even; right 1 to 31. below: whether more bits follow. */
static inline uint32_t el_shift_right_even(uint32_t value, int32_t right, uint32_t below)
{
    const uint32_t half = 1u << (right - 1), rest = value & (half * 2u - 1u);
    const uint32_t whole = value >> right;
    if (rest > half || (rest == half && (below != 0 || (whole & 1u) != 0))) {
        return whole + 1u;
    }
    return whole;
}

/* The float32 product of value, first a float32 itself, and whole * 2^-right, rounded to an
 * integer, ties to even. Mirrors: the requantization of XNNPACK. */
static inline int32_t el_round_product_f32(int32_t value, int32_t whole, int32_t right)
{
    uint32_t magnitude = value < 0 ? 0u - (uint32_t)value : (uint32_t)value, high, low, below, top;
    int32_t length = el_bit_length(magnitude);
    uint64_t product;
    if (length > 24) {
        magnitude = el_shift_right_even(magnitude, length - 24, 0);
        right -= length - 24;
    }
    product = el_multiply_u64(magnitude, (uint32_t)whole);
    high = (uint32_t)(product >> 32);
    low = (uint32_t)product;
    if (high != 0) {
        length = el_bit_length(high);
        below = low << (32 - length);
        top = high << (32 - length) | low >> length;
        right -= length;
    } else {
        below = 0;
        top = low;
    }
    length = el_bit_length(top);
    if (length > 24) {
        top = el_shift_right_even(top, length - 24, below);
        right -= length - 24;
    }
    if (right > 25 || top == 0) {
        return 0;
    }
    if (right <= 0) {
        return value < 0 ? -(1 << 30) : 1 << 30;
    }
    top = el_shift_right_even(top, right, 0);
    return value < 0 ? -(int32_t)top : (int32_t)top;
}

/* end */
#endif
