#ifndef EL_GEMMLOWP_S16_H
#define EL_GEMMLOWP_S16_H
#include "el_fixed_point.h"
/* begin */

/* Sigmoid and tanh of TFLite: exp in quarters, then Newton's division, in 16 bits.
 * Twin of the gemmlowp half of edge_lstm/activations.py. What saturates there and cannot here,
 * for any int16, is left out. */

static inline int32_t el_high_multiply_s16(int32_t left, int32_t right)
{
    return (left * right + (1 << 14)) >> 15;
}

/* exp(a) in Q0.15 for a in [-1/4, 0), Q0.15. */
static inline int32_t el_exp_on_interval_s16(int32_t a)
{
    const int32_t x = a + (1 << 12);
    const int32_t x2 = el_high_multiply_s16(x, x);
    const int32_t x3 = el_high_multiply_s16(x2, x);
    const int32_t x4 = el_high_multiply_s16(x2, x2);
    const int32_t cubic = el_high_multiply_s16(((x4 + 2) >> 2) + x3, 10923); /* 1/3 */
    const int32_t series = (cubic + x2 + 1) >> 1;
    return 28918 + el_high_multiply_s16(x + series, 28918); /* exp(-1/8) */
}

/* result * factor where the remainder has the bit; factors are exp(-2^k). */
static inline int32_t el_exp_bit_s16(int32_t result, int32_t remainder, int32_t bit, int32_t factor)
{
    return (remainder & bit) != 0 ? el_high_multiply_s16(result, factor) : result;
}

/* exp(a) in Q0.15 for a < 0 in Q(integer_bits). */
static inline int32_t el_exp_of_negative_s16(int32_t a, int32_t integer_bits)
{
    const int32_t one = 1 << (15 - integer_bits), quarter = one >> 2;
    const int32_t in_quarter = (a & (quarter - 1)) - quarter;
    const int32_t remainder = in_quarter - a;
    int32_t result = el_exp_on_interval_s16(in_quarter * (1 << integer_bits));
    result = el_exp_bit_s16(result, remainder, one >> 2, 25520);
    result = el_exp_bit_s16(result, remainder, one >> 1, 19875);
    if (integer_bits > 0) {
        result = el_exp_bit_s16(result, remainder, one, 12055);
    }
    if (integer_bits > 1) {
        result = el_exp_bit_s16(result, remainder, one << 1, 4435);
    }
    if (integer_bits > 2) {
        result = el_exp_bit_s16(result, remainder, one << 2, 600);
    }
    if (integer_bits > 3) {
        result = el_exp_bit_s16(result, remainder, one << 3, 11);
    }
    if (integer_bits > 4) {
        result = el_exp_bit_s16(result, remainder, one << 4, 0);
    }
    if (integer_bits > 5 && a < -(1 << (20 - integer_bits))) {
        result = 0;
    }
    return result;
}

/* 1 / (1 + a) / 2 in Q0.15, for a in [0, 1]. */
static inline int32_t el_one_over_one_plus_s16(int32_t a)
{
    const int32_t denominator = (a + 32768) >> 1;
    int32_t x = 23130 + el_high_multiply_s16(denominator, -15420); /* 48/17 - 32/17 d */
    for (int32_t round = 0; round < 3; round++) {
        const int32_t error = (1 << 13) - el_high_multiply_s16(denominator, x);
        x += 4 * el_high_multiply_s16(x, error);
    }
    return x;
}

#if defined(EL_GEMMLOWP_TABLE)
/* 1 / (1 + exp(-t)) in Q1.14 of t in units of 2^-12, to 37887; 1 from there on. */
static inline int32_t el_reciprocal(int32_t t)
{
    const uint32_t line = el_reciprocal_lines[t >> 8], pair = el_reciprocal_rests[t >> 1];
    const uint32_t rest = (t & 1) != 0 ? pair >> 4 : pair & 15;
    return (int32_t)(((line + (line & 0xffff) * (uint32_t)t) >> 15) + rest);
}

/* Sigmoid in Q0.15 of x in Q3.12. */
static inline int32_t el_gemmlowp_sigmoid(int32_t x)
{
    const int32_t y = 2 * el_reciprocal(x < 0 ? -x : x);
    return x < 0 ? 32767 - y : y;
}

/* tanh in Q0.15 of x in Q(integer_bits), 2 to 6. */
static inline int32_t el_tabled_tanh(int32_t x, int32_t integer_bits)
{
    const int32_t last = 37887 >> (integer_bits - 2), size = x < 0 ? -x : x;
    const int32_t t = (integer_bits == 2 || size < last ? size : last) * (1 << (integer_bits - 2));
    const int32_t y = el_saturate_s16(4 * (el_reciprocal(t) - 8192));
    return (y ^ (x >> 31)) - (x >> 31);
}
#else
/* Sigmoid in Q0.15 of x in Q3.12. */
static inline int32_t el_gemmlowp_sigmoid(int32_t x)
{
    const int32_t exponential = el_exp_of_negative_s16(x < 0 ? x : -x, 3);
    const int32_t y = el_saturate_s16(2 * el_one_over_one_plus_s16(exponential));
    return x == 0 ? 16384 : (x < 0 ? 32767 - y : y);
}

#endif

/* tanh in Q0.15 of x in Q(integer_bits), 0 to 6. */
static inline int32_t el_gemmlowp_tanh(int32_t x, int32_t integer_bits)
{
#if defined(EL_GEMMLOWP_TABLE)
    if (integer_bits > 1) {
        return el_tabled_tanh(x, integer_bits);
    }
#endif
    const int32_t exponential = el_exp_of_negative_s16(x < 0 ? x : -x, integer_bits + 1);
    const int32_t y = el_saturate_s16(4 * (el_one_over_one_plus_s16(exponential) - (1 << 13)));
    return x == 0 ? 0 : (x < 0 ? -y : y);
}

/* end */
#endif
