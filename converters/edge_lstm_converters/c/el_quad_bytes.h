#ifndef EL_QUAD_BYTES_H
#define EL_QUAD_BYTES_H
#include <stdint.h>
#include "el_activation.h"
/* begin */

/* Four rows of int8 by activations. Of four columns, of each row: columns 0 and 2 in a word,
 * columns 1 and 3 in the next, the later in its high byte; the number of columns is a multiple
 * of 4. */
#if defined(EL_CORE_DSP) || defined(EL_CORE_MVE)
/* r0 weights, r1 x, lr where x ends, r4-r7 weights of four columns, r2 and r12 their x, r8-r11
 * the sums. */
#define EL_QUAD_BYTES_ROW(sum, words) \
    "sxtb16 r3, " words "\n" \
    "sxtb16 " words ", " words ", ror #8\n" \
    "smlad " sum ", r3, r2, " sum "\n" \
    "smlad " sum ", " words ", r12, " sum "\n"
__attribute__((naked, noinline)) static void el_quad_bytes(
    __attribute__((unused)) const int16_t *weights,
    __attribute__((unused)) const el_activation_t *x, __attribute__((unused)) int32_t columns,
    __attribute__((unused)) int32_t sums[4])
{
    __asm__ volatile(
        ".syntax unified\n"
        "push {r3-r11, lr}\n"
        "add lr, r1, r2, lsl #1\n"
        "mov r8, #0\n"
        "mov r9, #0\n"
        "mov r10, #0\n"
        "mov r11, #0\n"
        "1:\n"
        "ldmia r0!, {r4-r7}\n"
        "ldrd r2, r12, [r1], #8\n"
        EL_QUAD_BYTES_ROW("r8", "r4") EL_QUAD_BYTES_ROW("r9", "r5")
        EL_QUAD_BYTES_ROW("r10", "r6") EL_QUAD_BYTES_ROW("r11", "r7")
        "cmp r1, lr\n"
        "bne 1b\n"
        "pop {r3}\n"
        "stmia r3!, {r8-r11}\n"
        "pop {r4-r11, pc}\n");
}
#else
static inline void el_quad_bytes(const int16_t *weights, const el_activation_t *x,
    int32_t columns, int32_t sums[4])
{
    sums[0] = sums[1] = sums[2] = sums[3] = 0;
    for (int32_t c = 0; c < columns; c += 4) {
        for (int32_t row = 0; row < 4; row++) {
            const int32_t even = weights[0], odd = weights[1];
            sums[row] += (int8_t)even * x[c] + (int8_t)odd * x[c + 1];
            sums[row] += (even >> 8) * x[c + 2] + (odd >> 8) * x[c + 3];
            weights += 2;
        }
    }
}
#endif

/* end */
#endif
