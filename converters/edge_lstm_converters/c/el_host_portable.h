#ifndef EL_HOST_PORTABLE_H
#define EL_HOST_PORTABLE_H
#include "el_host.h"
extern const int32_t el_sigmoid_words[128];
/* begin */

/* Plain C that compilers vectorize, in rows of 32 columns. With VNNI they multiply unsigned by
 * signed bytes; without, they widen to 16 bits and multiply pairs. */
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
typedef uint8_t el_value_t;
#define EL_RAISE 128
#define EL_BIAS(p) ((p)->bias_raised)
#define EL_HIDDEN_BIAS(e) ((e)->hidden_bias_raised)
#else
typedef int16_t el_value_t;
#define EL_RAISE 0
#define EL_BIAS(p) ((p)->bias)
#define EL_HIDDEN_BIAS(e) ((e)->hidden_bias)
#endif

static inline int32_t el_host_sigmoid(int32_t u)
{
    u = u < -131072 ? -131072 : (u > 131071 ? 131071 : u);
    const int32_t word = el_sigmoid_words[(u >> 11) + 64];
    return (word + (int16_t)word * (u & 2047)) >> 16;
}

static inline int32_t el_host_limit(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : (value > high ? high : value);
}

static inline int32_t el_host_s16(int32_t value)
{
    return el_host_limit(value, -32768, 32767);
}

/* value / 2**shift to nearest, ties away from zero. */
static inline int32_t el_host_divide(int32_t value, int32_t shift)
{
    return shift == 0 ? value : (value + (1 << (shift - 1)) - (value < 0)) >> shift;
}

/* MultiplyByQuantizedMultiplier with two roundings. */
static inline int32_t el_host_requantize(int32_t acc, int32_t multiplier, int32_t shift)
{
    const int32_t wrapped = (int32_t)((uint32_t)acc << (shift > 0 ? shift : 0));
    const int64_t product = (int64_t)wrapped * multiplier + (1 << 30);
    return el_host_divide((int32_t)(product >> 31), shift < 0 ? -shift : 0);
}

static inline int32_t el_host_columns(int32_t n)
{
    return (n + 31) & ~31;
}

static inline int32_t el_host_dot(
    const int8_t *restrict w, const el_value_t *restrict x, int32_t n)
{
    int32_t sum = 0;
    for (int32_t k = 0; k < n; k++) {
#if EL_RAISE
        sum += w[k] * x[k];
#else
        sum += (int16_t)w[k] * x[k];
#endif
    }
    return sum;
}

/* Copy a row of n values for a dot product. */
static inline void el_host_values(const int8_t *x, int32_t n, el_value_t *row)
{
    for (int32_t k = 0; k < n; k++) {
        row[k] = (el_value_t)(x[k] + EL_RAISE);
    }
    memset(row + n, 0, (size_t)(el_host_columns(n) - n) * sizeof *row);
}

static inline int32_t el_host_dot_wide(
    const int8_t *restrict w, const int16_t *restrict x, int32_t n)
{
    int32_t sum = 0;
    for (int32_t k = 0; k < n; k++) {
        sum += w[k] * x[k];
    }
    return sum;
}

/* One step of the edge arithmetic for one unit, from the sums of its gates. */
static inline int8_t el_host_edge(const el_host_lstm_t *p, int32_t at, const int32_t sums[4],
    int16_t *cell)
{
    int32_t gate[4];
    for (int32_t g = 0; g < 4; g++) {
        const int32_t high = p->high_shift && !(g & 1);
        const uint32_t own = (uint32_t)EL_BIAS(p)[at + EL_UNITS * g] + (uint32_t)sums[g];
        const uint32_t raised = high
            ? own + 255u * (uint32_t)sums[g] + (uint32_t)sums[g + 1] : own;
        const int64_t product = (int64_t)(int32_t)raised
            * (p->multipliers[at + EL_UNITS * g] >> 16);
        gate[g] = el_host_sigmoid((int32_t)(product >> (high ? p->high_shift : p->shift)));
    }
    const int32_t added = (gate[0] * (2 * gate[2] - 32768)) >> p->cell_bits;
    *cell = (int16_t)el_host_s16((gate[1] * *cell + added + (1 << 14)) >> 15);
    const int32_t squashed = 2 * el_host_sigmoid(*cell * (1 << p->cell_bits)) - 32768;
    return (int8_t)el_host_limit((gate[3] * squashed + (1 << 22)) >> 23, -128, 127);
}

/* The same in an interchange profile. */
static inline int8_t el_host_exact(const el_host_lstm_t *p, int32_t at, const int32_t input[4],
    const int32_t recurrent[4], int16_t *cell)
{
    const el_host_exact_t *e = p->exact;
    int32_t gate[4];
    for (int32_t g = 0; g < 4; g++) {
        const int32_t here = at + EL_UNITS * g;
        const uint32_t from_input = (uint32_t)input[g] + (uint32_t)EL_BIAS(p)[here];
        const uint32_t from_hidden = (uint32_t)recurrent[g] + (uint32_t)EL_HIDDEN_BIAS(e)[here];
        const int32_t total = el_host_s16(
            el_host_requantize((int32_t)from_input, e->input_multiplier[g], e->input_shift[g]));
        int32_t term = el_host_requantize(
            (int32_t)from_hidden, e->hidden_multiplier[g], e->hidden_shift[g]);
        term = e->saturated_term ? el_host_s16(term) : term;
        gate[g] = (g == 2 ? e->gate_tanh : e->sigmoid)[el_host_s16(total + term)];
    }
    int32_t kept = gate[1] * *cell, added = gate[0] * gate[2];
    if (e->twice_rounded) {
        kept = (kept + 1) >> 1;
        added = (added + 1) >> 1;
    }
    kept = el_host_s16(el_host_divide(kept, e->kept_shift));
    added = el_host_divide(added, e->added_shift);
    added = e->saturated_added ? el_host_s16(added) : added;
    int32_t now = el_host_s16(kept + added);
    now = e->clip > 0 ? el_host_limit(now, -e->clip, e->clip) : now;
    *cell = (int16_t)now;
    const int32_t product = el_host_requantize(
        gate[3] * e->cell_tanh[now], e->product_multiplier, e->product_shift);
    return (int8_t)el_host_limit(product + e->zero_point, -128, 127);
}

static void el_lstm_step_portable(const el_host_lstm_t *p, const el_value_t *row,
    const el_value_t *hidden, int16_t *cell, int8_t *next)
{
    const int32_t columns = el_host_columns(p->input), units = el_host_columns(p->hidden);
    for (int32_t unit = 0; unit < p->hidden; unit++) {
        const int32_t at = 4 * EL_UNITS * (unit / EL_UNITS) + unit % EL_UNITS;
        int32_t input[4], recurrent[4];
        for (int32_t g = 0; g < 4; g++) {
            const int32_t r = g * p->hidden + unit;
            const int8_t *w = p->input_rows + (int64_t)r * columns;
            input[g] = p->wide ? el_host_dot_wide(w, (const int16_t *)(const void *)row, p->input)
                               : el_host_dot(w, row, columns);
            recurrent[g] = el_host_dot(p->hidden_rows + (int64_t)r * units, hidden, units);
        }
        if (p->exact) {
            next[unit] = el_host_exact(p, at, input, recurrent, cell + unit);
            continue;
        }
        for (int32_t g = 0; g < 4; g++) {
            input[g] = input[g] * (1 << p->input_shift) + recurrent[g] * (1 << p->hidden_shift);
        }
        next[unit] = el_host_edge(p, at, input, cell + unit);
    }
}

static void el_lstm_portable(const el_host_lstm_t *p, uint8_t *state, int32_t streams,
    int32_t steps, const int8_t *x, int64_t x_stride, int8_t *y, int64_t y_stride,
    uint8_t *scratch)
{
    const int32_t units = EL_UNITS * p->blocks;
    const int64_t step_bytes = (int64_t)p->input * (p->wide ? 2 : 1);
    el_value_t *before = (el_value_t *)(void *)scratch;
    el_value_t *row = before + el_host_columns(p->hidden);
    for (int32_t n = 0; n < streams; n++) {
        uint8_t *own = state + n * el_host_state_bytes(p);
        int8_t *hidden = (int8_t *)own + 2 * units;
        for (int32_t t = 0; t < steps; t++) {
            const int8_t *now = x + n * x_stride + t * step_bytes;
            if (p->wide) {
                memcpy(row, now, (size_t)step_bytes);
            } else {
                el_host_values(now, p->input, row);
            }
            el_host_values(hidden, p->hidden, before);
            el_lstm_step_portable(p, row, before, (int16_t *)(void *)own, hidden);
            memcpy(y + n * y_stride + (int64_t)t * p->hidden, hidden, (size_t)p->hidden);
        }
    }
}

/* end */
#endif
