#ifndef EL_HOST_NEON_H
#define EL_HOST_NEON_H
#include <arm_neon.h>
#include "el_host_portable.h"
/* begin */

#define EL_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#define EL_INLINE_NEON static inline __attribute__((always_inline)) EL_DOTPROD

/* sums[gate][unit] += weights * 8-bit activations, one block. */
typedef void (*el_dot_t)(
    const int8_t *w, const int8_t *x, int32_t quads, int32_t sums[4][EL_UNITS]);

#ifdef EL_SVE
#define EL_TARGET_SVE __attribute__((target("arch=armv8.2-a+sve")))

static EL_TARGET_SVE int32_t el_sve_bytes(void)
{
    return (int32_t)svcntb();
}

/* Vectors of any length; four sums of them at a time, so that none waits for another. */
static EL_TARGET_SVE void el_dot_sve(
    const int8_t *w, const int8_t *x, int32_t quads, int32_t sums[4][EL_UNITS])
{
    int32_t *all = &sums[0][0];
    const int32_t lanes = (int32_t)svcntw();
    for (int32_t k = 0; k < 4 * EL_UNITS; k += 4 * lanes) {
        const svbool_t p0 = svwhilelt_b32_s32(k, 4 * EL_UNITS);
        const svbool_t p1 = svwhilelt_b32_s32(k + lanes, 4 * EL_UNITS);
        const svbool_t p2 = svwhilelt_b32_s32(k + 2 * lanes, 4 * EL_UNITS);
        const svbool_t p3 = svwhilelt_b32_s32(k + 3 * lanes, 4 * EL_UNITS);
        svint32_t a0 = svld1_s32(p0, all + k), a1 = svld1_s32(p1, all + k + lanes);
        svint32_t a2 = svld1_s32(p2, all + k + 2 * lanes), a3 = svld1_s32(p3, all + k + 3 * lanes);
        for (int32_t quad = 0; quad < quads; quad++) {
            /* A word of weights is four columns of one row. */
            const int32_t *words = (const int32_t *)(const void *)(w + 256 * quad) + k;
            int32_t four;
            memcpy(&four, x + 4 * quad, 4);
            const svint8_t v = svreinterpret_s8_s32(svdup_n_s32(four));
            a0 = svdot_s32(a0, svreinterpret_s8_s32(svld1_s32(p0, words)), v);
            a1 = svdot_s32(a1, svreinterpret_s8_s32(svld1_s32(p1, words + lanes)), v);
            a2 = svdot_s32(a2, svreinterpret_s8_s32(svld1_s32(p2, words + 2 * lanes)), v);
            a3 = svdot_s32(a3, svreinterpret_s8_s32(svld1_s32(p3, words + 3 * lanes)), v);
        }
        svst1_s32(p0, all + k, a0);
        svst1_s32(p1, all + k + lanes, a1);
        svst1_s32(p2, all + k + 2 * lanes, a2);
        svst1_s32(p3, all + k + 3 * lanes, a3);
    }
}
#endif

static EL_DOTPROD void el_dot_neon(const int8_t *w, const int8_t *x, int32_t quads,
    int32_t sums[4][EL_UNITS])
{
    int32x4_t acc[16];
    for (int k = 0; k < 16; k++) {
        acc[k] = vld1q_s32(sums[k / 4] + 4 * (k % 4));
    }
    for (int32_t quad = 0; quad < quads; quad++, w += 256) {
        int32_t four;
        memcpy(&four, x + 4 * quad, 4);
        const int8x16_t v = vreinterpretq_s8_s32(vdupq_n_s32(four));
        for (int k = 0; k < 16; k++) {
            acc[k] = vdotq_s32(acc[k], vld1q_s8(w + 16 * k), v);
        }
    }
    for (int k = 0; k < 16; k++) {
        vst1q_s32(sums[k / 4] + 4 * (k % 4), acc[k]);
    }
}

/* The same with 16-bit activations, in pairs of columns. */
EL_INLINE_NEON void el_dot_neon_wide(const int8_t *w, const int16_t *x, int32_t pairs,
    int32_t sums[4][EL_UNITS])
{
    for (int32_t pair = 0; pair < pairs; pair++, w += 128) {
        for (int k = 0; k < 16; k++) {
            int32x4_t acc = vld1q_s32(sums[k / 4] + 4 * (k % 4));
            const int16x8_t wide = vmovl_s8(vld1_s8(w + 8 * k));
            const int16x8x2_t columns = vuzpq_s16(wide, wide);
            acc = vmlal_n_s16(acc, vget_low_s16(columns.val[0]), x[2 * pair]);
            acc = vmlal_n_s16(acc, vget_low_s16(columns.val[1]), x[2 * pair + 1]);
            vst1q_s32(sums[k / 4] + 4 * (k % 4), acc);
        }
    }
}

static EL_DOTPROD void el_lstm_step_neon(const el_host_lstm_t *p, el_dot_t dot,
    const uint8_t *row, const int8_t *hidden, int16_t *cell, int8_t *next)
{
    for (int32_t block = 0; block < p->blocks; block++) {
        int32_t input[4][EL_UNITS], recurrent[4][EL_UNITS];
        memset(input, 0, sizeof input);
        memset(recurrent, 0, sizeof recurrent);
        if (p->wide) {
            el_dot_neon_wide(p->input_weights + (int64_t)128 * p->input_groups * block,
                (const int16_t *)(const void *)row, p->input_groups, input);
        } else {
            dot(p->input_weights + (int64_t)256 * p->input_groups * block,
                (const int8_t *)row, p->input_groups, input);
        }
        dot(p->hidden_weights + (int64_t)256 * p->hidden_quads * block, hidden, p->hidden_quads,
            recurrent);
        for (int32_t unit = 0; unit < EL_UNITS; unit++) {
            const int32_t at = 4 * EL_UNITS * block + unit, k = EL_UNITS * block + unit;
            int32_t x[4], h[4];
            for (int g = 0; g < 4; g++) {
                x[g] = input[g][unit];
                h[g] = recurrent[g][unit];
            }
            if (p->exact) {
                next[k] = el_host_exact(p, at, x, h, cell + k);
                continue;
            }
            for (int g = 0; g < 4; g++) {
                x[g] = x[g] * (1 << p->input_shift) + h[g] * (1 << p->hidden_shift);
            }
            next[k] = el_host_edge(p, at, x, cell + k);
        }
    }
}

static EL_DOTPROD void el_lstm_neon(const el_host_lstm_t *p, el_dot_t dot, uint8_t *state, int32_t streams,
    int32_t steps, const int8_t *x, int64_t x_stride, int8_t *y, int64_t y_stride,
    uint8_t *scratch)
{
    const int32_t units = EL_UNITS * p->blocks;
    const int64_t step_bytes = (int64_t)p->input * (p->wide ? 2 : 1);
    int8_t *before = (int8_t *)scratch;
    uint8_t *row = scratch + units;
    for (int32_t n = 0; n < streams; n++) {
        uint8_t *own = state + n * el_host_state_bytes(p);
        int8_t *hidden = (int8_t *)own + 2 * units;
        for (int32_t t = 0; t < steps; t++) {
            el_host_row(p, x + n * x_stride + t * step_bytes, 0, row);
            memcpy(before, hidden, (size_t)units);
            el_lstm_step_neon(p, dot, row, before, (int16_t *)(void *)own, hidden);
            memcpy(y + n * y_stride + (int64_t)t * p->hidden, hidden, (size_t)p->hidden);
        }
    }
}

/* end */
#endif
