#ifndef EL_HOST_PORTABLE_H
#define EL_HOST_PORTABLE_H
#include "el_host.h"
extern const int32_t el_sigmoid_words[128];
/* begin */

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

/* acc * multiplier >> shift, with 64-bit products. */
static inline int32_t el_host_argument(int32_t acc, int32_t multiplier, int32_t shift)
{
    return (int32_t)(((int64_t)acc * multiplier) >> shift);
}

/* sums[gate][unit] += weights * activations, one block. */
static inline void el_host_dot(const int8_t *w, const uint8_t *row, int32_t quads,
    int32_t sums[4 * EL_UNITS])
{
    for (int32_t k = 0; k < quads; k++, w += 16 * EL_UNITS) {
        const int8_t *x = (const int8_t *)row + 4 * k;
        const int32_t a = x[0], b = x[1], c = x[2], d = x[3];
        for (int32_t r = 0; r < 4 * EL_UNITS; r++) {
            sums[r] += w[4 * r] * a + w[4 * r + 1] * b + w[4 * r + 2] * c + w[4 * r + 3] * d;
        }
    }
}

static inline void el_host_dot_wide(const int8_t *w, const uint8_t *row, int32_t pairs,
    int32_t sums[4 * EL_UNITS])
{
    for (int32_t k = 0; k < pairs; k++, w += 8 * EL_UNITS) {
        int16_t x[2];
        memcpy(x, row + 4 * k, 4);
        for (int32_t r = 0; r < 4 * EL_UNITS; r++) {
            sums[r] += w[2 * r] * x[0] + w[2 * r + 1] * x[1];
        }
    }
}

static void el_lstm_step_portable(const el_host_lstm_t *p, const uint8_t *row,
    const uint8_t *hidden, int16_t *cell, int8_t *next)
{
    for (int32_t block = 0; block < p->blocks; block++) {
        int32_t s[4 * EL_UNITS] = {0}, h[4 * EL_UNITS] = {0};
        if (p->wide) {
            el_host_dot_wide(p->input_weights + (int64_t)8 * EL_UNITS * p->input_groups * block,
                row, p->input_groups, s);
        } else {
            el_host_dot(p->input_weights + (int64_t)16 * EL_UNITS * p->input_groups * block, row,
                p->input_groups, s);
        }
        el_host_dot(p->hidden_weights + (int64_t)16 * EL_UNITS * p->hidden_quads * block, hidden,
            p->hidden_quads, h);
        const int32_t *bias = p->bias + 4 * EL_UNITS * block;
        const int32_t *multipliers = p->multipliers + 4 * EL_UNITS * block;
        for (int32_t r = 0; r < 4 * EL_UNITS; r++) {
            s[r] = s[r] * (1 << p->input_shift) + h[r] * (1 << p->hidden_shift);
        }
        for (int32_t unit = 0; unit < EL_UNITS; unit++) {
            int32_t gate[4];
            for (int32_t g = 0; g < 4; g++) {
                const int32_t at = EL_UNITS * g + unit;
                const int32_t high = p->high_shift && !(g & 1);
                const int32_t acc = bias[at] + (high ? 256 * s[at] + s[at + EL_UNITS] : s[at]);
                gate[g] = el_host_sigmoid(el_host_argument(
                    acc, multipliers[at] >> 16, high ? p->high_shift : p->shift));
            }
            const int32_t added = (gate[0] * (2 * gate[2] - 32768)) >> p->cell_bits;
            int16_t *own = cell + EL_UNITS * block + unit;
            const int32_t kept = (gate[1] * *own + added + (1 << 14)) >> 15;
            *own = (int16_t)el_host_limit(kept, -32768, 32767);
            const int32_t squashed = 2 * el_host_sigmoid(*own * (1 << p->cell_bits)) - 32768;
            next[EL_UNITS * block + unit] = (int8_t)el_host_limit(
                (gate[3] * squashed + (1 << 22)) >> 23, -128, 127);
        }
    }
}

static void el_lstm_portable(const el_host_lstm_t *p, uint8_t *state, int32_t streams,
    int32_t steps, const int8_t *x, int64_t x_stride, int8_t *y, int64_t y_stride,
    uint8_t *scratch)
{
    const int32_t units = EL_UNITS * p->blocks;
    const int64_t step_bytes = (int64_t)p->input * (p->wide ? 2 : 1);
    uint8_t *row = scratch, *before = scratch + el_host_input_bytes(p);
    for (int32_t n = 0; n < streams; n++) {
        uint8_t *own = state + n * el_host_state_bytes(p);
        int8_t *hidden = (int8_t *)own + 2 * units;
        for (int32_t t = 0; t < steps; t++) {
            el_host_row(p, x + n * x_stride + t * step_bytes, 0, row);
            memcpy(before, hidden, (size_t)units);
            el_lstm_step_portable(p, row, before, (int16_t *)own, hidden);
            memcpy(y + n * y_stride + (int64_t)t * p->hidden, hidden, (size_t)p->hidden);
        }
    }
}

/* end */
#endif
