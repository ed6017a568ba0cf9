#ifndef EL_PRODUCT_F64_H
#define EL_PRODUCT_F64_H
#include "el_fixed_point.h"
/* begin */

static inline int32_t el_saturate_s64(int64_t value, int32_t bound)
{
    return value < -bound ? -bound : (value > bound ? bound : (int32_t)value);
}

/* The float64 product of value and (high * 2^21 + low) * 2^-(right + 21), 53 bits, rounded to an
 * integer, ties away from zero.
 *
 * The product is rounded to 53 bits first. That moves a value across a half only from just below
 * it, by half a unit of the last bit at most: so much is added. What is greater than 2^20 becomes
 * that. */
static inline int32_t el_round_product_f64(int32_t value, uint32_t high, uint32_t low, int32_t right)
{
    const uint32_t magnitude = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
    const uint64_t carried = el_multiply_u64(magnitude, low);
    uint64_t product = el_multiply_u64(magnitude, high);
    uint32_t unit = 0, top, rest = (uint32_t)carried & 0x1fffffu;
    int32_t length = 32;
    product += (uint32_t)el_shift_right_s64((int64_t)carried, 21);
    for (top = (uint32_t)(product >> 32); top != 0; top >>= 1) {
        length += 1;
    }
    if (length > 32) {
        unit = 1u << (length - 33);
    }
    if (right > 63) {
        return 0;
    }
    product += (rest + unit) >> 21;
    product += right > 32 ? (uint64_t)(1u << (right - 33)) << 32 : 1u << (right - 1);
    top = (uint32_t)(product >> 32);
    if (right >= 32) {
        top >>= right - 32;
    } else {
        top = top >> right != 0 ? 1u << 20 : (uint32_t)el_shift_right_s64((int64_t)product, right);
    }
    top = top < 1u << 20 ? top : 1u << 20;
    return value < 0 ? -(int32_t)top : (int32_t)top;
}

/* end */
#endif
