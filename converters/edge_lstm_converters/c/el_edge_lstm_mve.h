#ifndef EL_EDGE_LSTM_MVE_H
#define EL_EDGE_LSTM_MVE_H
#include <stdint.h>
#include "el_activation.h"
#include "el_edge_sigmoid.h"
/* begin */

#if defined(EL_CORE_MVE)
#include <arm_mve.h>
#define EL_EDGE_LSTM_WHOLE

/* A whole step of el_edge_lstm with Helium, for a layer with 8-bit inputs and rows in pairs. Each
 * row is multiplied by itself, 16 columns at a time; that of a pair is put together in the end.
 * Units come in fours. */

/* Eight rows by one chunk of 16 columns, of which `bytes` have weights; the activations of the
 * others are 0. The sums of an instruction go to an even register. */
#define EL_SUMS "r0, r2, r4, r6, r8, r10, r12, lr"
#define EL_CHUNK(multiply, bytes) \
    "vldrb.8 q0, [%[values]], #16\n" \
    ".irp sum, " EL_SUMS "\n" \
    "vldrb.8 q1, [%[weights]], #" bytes "\n" multiply ".s8 \\sum, q1, q0\n" \
    ".endr\n"

/* All columns: first is the instruction of the first chunk. */
#define EL_CHUNKS(first, columns) \
    ".if " columns " / 16\n" EL_CHUNK(first, "16") \
    ".rept " columns " / 16 - 1\n" EL_CHUNK("vmladava", "16") ".endr\n" \
    ".if " columns " %% 16\n" EL_CHUNK("vmladava", "(" columns " %% 16)") ".endif\n" \
    ".else\n" EL_CHUNK(first, "(" columns " %% 16)") ".endif\n"

#define EL_EIGHT_ROWS(inputs, units, input_shift) \
    __asm__ volatile(EL_CHUNKS("vmladav", inputs) ".if " input_shift "\n" \
        ".irp sum, " EL_SUMS "\n" \
        "lsl \\sum, \\sum, #" input_shift "\n" \
        ".endr\n" \
        ".endif\n" \
        EL_CHUNKS("vmladava", units) "stm %[sums]!, {" EL_SUMS "}\n" \
        : [weights] "+r"(weights), [values] "+r"(values), [sums] "+r"(sums) \
        : \
        : "r0", "r2", "r4", "r6", "r8", "r10", "r12", "lr", "q0", "q1", "memory")

/* 18 bits */
static inline int32x4_t el_mve_argument(int32x4_t u)
{
    return vshrq_n_s32(vqshlq_n_s32(u, 14), 14);
}

static inline int32x4_t el_mve_sigmoid(int32x4_t u)
{
    const int32_t *middle = &el_sigmoid_words[64];
    const uint32x4_t index = vreinterpretq_u32_s32(vshrq_n_s32(u, 11));
    const int32x4_t word = vldrwq_gather_shifted_offset_s32(middle, index);
    const int32x4_t slope = vmovlbq_s16(vreinterpretq_s16_s32(word));
    return vshrq_n_s32(vaddq_s32(word, vmulq_s32(slope, u)), 16);
}

/* tanh in Q0.14 */
static inline int32x4_t el_mve_tanh(int32x4_t u)
{
    return vaddq_n_s32(el_mve_sigmoid(u), -16384);
}

/* The gates of four units, and what they do to cell and h. Of i, f, g, o each: four biases, then
 * four factors, those of i and g times 2**(32 - high_shift). */
static inline void el_mve_units(const int32_t *sums, const int32_t *factors, int16_t *cell,
    int8_t *h, int32_t shift, int32_t cell_bits, mve_pred16_t which)
{
    const int32x4x4_t sum = vld4q_s32(sums);
    int32x4_t acc[4], gate[4];
    for (int k = 0; k < 4; k += 2) {
        const int32x4_t both = vaddq_s32(vshlq_n_s32(sum.val[k], 8), sum.val[k + 1]);
        acc[k] = vaddq_s32(both, vld1q_s32(factors + 4 * k));
        acc[k + 1] = vaddq_s32(sum.val[k + 1], vld1q_s32(factors + 4 * k + 4));
        const int32x4_t high = vmulhq_s32(acc[k], vld1q_s32(factors + 4 * k + 16));
        const int32x4_t low = vmulq_s32(acc[k + 1], vld1q_s32(factors + 4 * k + 20));
        gate[k] = el_mve_argument(high);
        gate[k + 1] = el_mve_argument(vshlq_r_s32(low, -shift));
    }
    const int32x4_t added = vmulq_s32(el_mve_sigmoid(gate[0]), el_mve_tanh(gate[2]));
    const int32x4_t old = vldrhq_z_s32(cell, which);
    const int32x4_t kept = vmulq_s32(el_mve_sigmoid(gate[1]), old);
    const int32x4_t sum_c = vrshrq_n_s32(vaddq_s32(kept, vshlq_r_s32(added, 1 - cell_bits)), 15);
    const int32x4_t c = vshrq_n_s32(vqshlq_n_s32(sum_c, 16), 16);
    vstrhq_p_s32(cell, c, which);
    const int32x4_t squashed = el_mve_tanh(el_mve_argument(vshlq_r_s32(c, cell_bits)));
    const int32x4_t y = vrshrq_n_s32(vmulq_s32(el_mve_sigmoid(gate[3]), squashed), 22);
    vstrbq_p_s32(h, vminq_s32(y, vdupq_n_s32(127)), which);
}

#define EL_EDGE_LSTM_STEP(name, state, inputs, units, columns, input_shift, shift, high_shift, \
    bits, unroll) \
    static void name##_units(el_activation_t *activations, int16_t *cell, const int8_t *x, \
        int8_t *y) \
    { \
        enum { h_start = (inputs + 15) / 16 * 16, all = h_start + (units + 15) / 16 * 16 }; \
        int8_t columns_s8[all]; \
        int32_t sums_s32[16]; \
        const int8_t *weights = name##_rows; \
        const int32_t *factors = name##_factors; \
        el_activation_t *hidden = activations + inputs; \
        for (int32_t k = 0; k < inputs; k += 16) { \
            const mve_pred16_t which = vctp8q((uint32_t)(inputs - k)); \
            vst1q_s8(columns_s8 + k, vld1q_z_s8(x + k, which)); \
        } \
        for (int32_t k = 0; k < units; k += 8) { \
            const mve_pred16_t which = vctp16q((uint32_t)(units - k)); \
            vstrbq_s16(columns_s8 + h_start + k, vld1q_z_s16(hidden + k, which)); \
        } \
        if (units % 16 > 0 && units % 16 <= 8) { \
            vstrbq_s16(columns_s8 + all - 8, vdupq_n_s16(0)); \
        } \
        for (int32_t unit = 0; unit < units; unit += 4) { \
            for (int half = 0; half < 2; half++) { \
                const int8_t *values = columns_s8; \
                int32_t *sums = sums_s32 + 8 * half; \
                EL_EIGHT_ROWS(#inputs, #units, #input_shift); \
            } \
            el_mve_units(sums_s32, factors, cell + unit, y + unit, shift, bits, \
                vctp32q((uint32_t)(units - unit))); \
            factors += 32; \
        } \
        for (int32_t k = 0; k < units; k += 8) { \
            const mve_pred16_t which = vctp16q((uint32_t)(units - k)); \
            vst1q_p_s16(hidden + k, vldrbq_z_s16(y + k, which), which); \
        } \
    }
#endif

/* end */
#endif
