#ifndef EL_FIXED_POINT_H
#define EL_FIXED_POINT_H
#include <stdint.h>
/* begin */

/* Twin of edge_lstm/fixed_point.py: a real factor is multiplier * 2^(shift - 31).
 *
 * A negative value is shifted right with its sign, which C leaves to the implementation and
 * every compiler of the targets does. Nothing is shifted left as a negative value, and nothing
 * overflows: what wraps is unsigned. 64-bit words are added and multiplied from 32-bit ones
 * only, and shifted by words, so that no core needs a library for them. */

#if defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)
#define EL_NO_LONG_MULTIPLY
#endif

static inline int32_t el_saturate(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : (value > high ? high : value);
}

/* To a number of bits, with the sign: one instruction that gcc does not find in a loop, which it
 * empties of constants first, nor clang where something was added before. */
#if defined(__GNUC__) && defined(__thumb2__)
#define EL_SATURATE(bits) \
    int32_t saturated; \
    __asm__("ssat %0, #" #bits ", %1" : "=r"(saturated) : "r"(value)); \
    return saturated;
#else
#define EL_SATURATE(bits) return el_saturate(value, -(1 << (bits - 1)), (1 << (bits - 1)) - 1);
#endif

static inline int32_t el_saturate_s8(int32_t value)
{
    EL_SATURATE(8)
}

static inline int32_t el_saturate_s16(int32_t value)
{
#if defined(__clang__)
    return el_saturate(value, -32768, 32767); /* which may become a part of what is around */
#else
    EL_SATURATE(16)
#endif
}

static inline int32_t el_saturate_s17(int32_t value)
{
    EL_SATURATE(17)
}

static inline int32_t el_wrap_add(int32_t left, int32_t right)
{
    return (int32_t)((uint32_t)left + (uint32_t)right);
}

static inline int32_t el_wrap_multiply(int32_t left, int32_t right)
{
    return (int32_t)((uint32_t)left * (uint32_t)right);
}

static inline int32_t el_wrap_shift_left(int32_t value, int32_t bits)
{
    return (int32_t)((uint32_t)value << bits);
}

static inline int32_t el_saturating_shift_left(int32_t value, int32_t bits)
{
    const int32_t top = 0x7fffffff >> bits;
    return value > top ? 0x7fffffff : (value < -top - 1 ? -0x7fffffff - 1 : value * (1 << bits));
}

/* value + offset of something that is saturated far below 2^30. */
static inline int32_t el_offset(int32_t value, int32_t offset)
{
    return el_saturate(value, -(1 << 30), 1 << 30) + offset;
}

/* The whole product of two words. */
static inline uint64_t el_multiply_u64(uint32_t left, uint32_t right)
{
#ifdef EL_NO_LONG_MULTIPLY
    const uint32_t left_low = left & 0xffffu, left_high = left >> 16;
    const uint32_t right_low = right & 0xffffu, right_high = right >> 16;
    const uint32_t low = left_low * right_low;
    const uint32_t first = left_high * right_low + (low >> 16);
    const uint32_t second = left_low * right_high + (first & 0xffffu);
    const uint32_t high = left_high * right_high + (first >> 16) + (second >> 16);
    return (uint64_t)high << 32 | (second << 16 | (low & 0xffffu));
#else
    return (uint64_t)left * right;
#endif
}

static inline int64_t el_multiply_s64(int32_t left, int32_t right)
{
#ifdef EL_NO_LONG_MULTIPLY
    const uint64_t product = el_multiply_u64((uint32_t)left, (uint32_t)right);
    uint32_t high = (uint32_t)(product >> 32);
    high -= (left < 0 ? (uint32_t)right : 0u) + (right < 0 ? (uint32_t)left : 0u);
    return (int64_t)((uint64_t)high << 32 | (uint32_t)product);
#else
    return (int64_t)left * right;
#endif
}

/* The low word of value >> bits, for bits in 1 to 63. */
static inline int32_t el_shift_right_s64(int64_t value, int32_t bits)
{
    const uint32_t low = (uint32_t)value;
    const int32_t high = (int32_t)(uint32_t)((uint64_t)value >> 32);
    if (bits >= 32) {
        return high >> (bits - 32);
    }
    return (int32_t)(low >> bits | (uint32_t)high << (32 - bits));
}

/* value / 2^exponent to nearest, ties away from zero; exponent 0 to 31. */
static inline int32_t el_rounding_divide_by_pot(int32_t value, int32_t exponent)
{
    const int32_t mask = (int32_t)((1u << exponent) - 1u);
    const int32_t threshold = (mask >> 1) + (value < 0);
    return (value >> exponent) + ((value & mask) > threshold);
}

/* The same for exponents 1 to 30 and values of at most 2^30. */
static inline int32_t el_divide_small_by_pot(int32_t value, int32_t exponent)
{
    return (value + (1 << (exponent - 1)) - (value < 0)) >> exponent;
}

/* value / 2^right to nearest, ties up; right 0 to 31. */
static inline int32_t el_shift_right_ties_up(int32_t value, int32_t right)
{
    return right == 0 ? value : (value >> right) + ((value >> (right - 1)) & 1);
}

/* The high word of 2 * value * multiplier, ties up; not both may be -2^31. */
static inline int32_t el_high_multiply(int32_t value, int32_t multiplier)
{
    return el_shift_right_s64(el_multiply_s64(value, multiplier) + (1 << 30), 31);
}

/* value * multiplier * 2^(shift - 31), rounded twice: ties up, then away from zero. */
static inline int32_t el_requantize(int32_t value, int32_t multiplier, int32_t shift)
{
    const int32_t left = shift > 0 ? shift : 0, right = shift < 0 ? -shift : 0;
    const int32_t high = el_high_multiply(el_wrap_shift_left(value, left), multiplier);
    return el_rounding_divide_by_pot(high, right);
}

/* left * right * 2^-32 + added, ties up; the sum must fit. */
static inline int32_t el_high_multiply_add(int32_t left, int32_t right, int32_t added)
{
#if defined(__GNUC__) && defined(__thumb2__) && defined(__ARM_FEATURE_DSP)
    int32_t sum;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(sum) : "r"(left), "r"(right), "r"(added));
    return sum;
#elif defined(EL_NO_LONG_MULTIPLY)
    const uint64_t product = (uint64_t)el_multiply_s64(left, right) + 0x80000000u;
    return (int32_t)(uint32_t)(product >> 32) + added;
#else
    const uint64_t from = (uint64_t)(uint32_t)added << 32 | 0x80000000u;
    return (int32_t)(((int64_t)left * right + (int64_t)from) >> 32);
#endif
}

/* el_requantize of doubled / 2 for a shift of -right, where right is 0 to 30.
 * The sign that the second rounding asks for is that of the value, or the result is 0. */
static inline int32_t el_requantize_doubled(int32_t doubled, int32_t multiplier, int32_t right)
{
    if (right == 0) {
        return el_high_multiply_add(doubled, multiplier, 0);
    }
    return el_high_multiply_add(doubled, multiplier, (1 << (right - 1)) + (doubled >> 31)) >> right;
}

/* el_requantize of value for a multiplier of one half and a shift of -right, where right is 1
 * to 29 and value a product of two int16. */
static inline int32_t el_requantize_half(int32_t value, int32_t right)
{
    return (value + (1 << right) + 1 + 2 * (value >> 31)) >> (right + 1);
}

/* el_requantize with both ties up. */
static inline int32_t el_requantize_ties_up(int32_t value, int32_t multiplier, int32_t shift)
{
    const int32_t left = shift > 0 ? shift : 0, right = shift < 0 ? -shift : 0;
    const int32_t high = el_high_multiply(el_wrap_shift_left(value, left), multiplier);
    return el_shift_right_ties_up(high, right);
}

/* value * multiplier / 2^right, rounded once, ties up: what a wide accumulator is brought down by.
 * The multiplier has 15 bits, right is 1 to 62. */
static inline int32_t el_requantize_s64(int64_t value, int32_t multiplier, int32_t right)
{
    const uint32_t low = (uint32_t)value, high = (uint32_t)((uint64_t)value >> 32);
    const uint32_t factor = (uint32_t)multiplier;
    /* In parts of 16 by 15 bits; the high word's product wraps with the sign. */
    const uint64_t product = ((uint64_t)(high * factor) << 32) + (low & 0xffffu) * factor;
    const uint32_t middle = (low >> 16) * factor;
    const uint64_t shifted = (uint64_t)(middle >> 16) << 32 | middle << 16;
    const uint64_t half = right > 32 ? (uint64_t)(1u << (right - 33)) << 32 : 1u << (right - 1);
    return el_shift_right_s64((int64_t)(product + shifted + half), right);
}

/* end */
#endif
