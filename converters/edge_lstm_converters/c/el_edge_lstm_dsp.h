#ifndef EL_EDGE_LSTM_DSP_H
#define EL_EDGE_LSTM_DSP_H
#include <stdint.h>
#include "el_activation.h"
#include "el_edge_sigmoid.h"
/* begin */

#if defined(EL_CORE_DSP)
#define EL_EDGE_LSTM_WHOLE

/* A whole step of el_edge_lstm in assembler, for a layer with 8-bit inputs and rows in pairs.
 * In the sums: r0 activations, r1 words, r4-r7 weights of four columns, r2-r3 their activations,
 * r8-r11 accumulators of i, f, g, o, r12 where the activations end, lr unit. The high row of a
 * pair is multiplied with the low one below it, the low one alone after SXTB16. Behind the sums,
 * a gate's value is the upper half of a register. On the stack: the table, cell, y. */

/* "shifted" where shift is not 0, else "plain". */
#define EL_IF(shift, shifted, plain) ".if " shift "\n" shifted "\n.else\n" plain "\n.endif\n"

/* u = 18 bits of value >> shift */
#define EL_ARGUMENT(reg, shift) \
    EL_IF(shift, "ssat " reg ", #18, " reg ", asr #" shift, "ssat " reg ", #18, " reg)

/* reg = sigmoid of reg in the upper half; the table is at r2 */
#define EL_SIGMOID(reg) \
    "asr r4, " reg ", #11\n" \
    "ldr r4, [r2, r4, lsl #2]\n" \
    "smlabb " reg ", r4, " reg ", r4\n"

/* count values of int8 from r2 to r0, shifted */
#define EL_WIDEN(count, shift) \
    "add r5, r2, #" count "\n" \
    "0:\n" \
    "ldrsb r4, [r2], #1\n" \
    EL_IF(shift, "lsl r4, r4, #" shift, "") \
    "strh r4, [r0], #2\n" \
    "cmp r2, r5\n" \
    "bne 0b\n"

/* four columns */
#define EL_FOUR_COLUMNS \
    "ldmia r1!, {r4-r7}\n" \
    "ldrd r2, r3, [r0], #8\n" \
    "smlad r8, r4, r2, r8\n" \
    "smlad r10, r5, r2, r10\n" \
    "sxtb16 r4, r4\n" \
    "sxtb16 r5, r5\n" \
    "smlad r9, r4, r2, r9\n" \
    "smlad r11, r5, r2, r11\n" \
    "smlad r8, r6, r3, r8\n" \
    "smlad r10, r7, r3, r10\n" \
    "sxtb16 r6, r6\n" \
    "sxtb16 r7, r7\n" \
    "smlad r9, r6, r3, r9\n" \
    "smlad r11, r7, r3, r11\n"

#define EL_TWO_COLUMNS \
    "ldmia r1!, {r4, r5}\n" \
    "ldr r2, [r0], #4\n" \
    "smlad r8, r4, r2, r8\n" \
    "smlad r10, r5, r2, r10\n" \
    "sxtb16 r4, r4\n" \
    "sxtb16 r5, r5\n" \
    "smlad r9, r4, r2, r9\n" \
    "smlad r11, r5, r2, r11\n"

#define EL_EDGE_LSTM_STEP(name, inputs, units, columns, input_shift, shift, high_shift, bits, \
    unroll) \
    __attribute__((naked, noinline)) static void name##_units( \
        __attribute__((unused)) el_activation_t *activations, \
        __attribute__((unused)) int16_t *cell, __attribute__((unused)) const int8_t *x, \
        __attribute__((unused)) int8_t *y) \
    { \
        __asm__ volatile(EL_EDGE_LSTM_TEXT(#inputs, #units, #columns, #input_shift, #shift, \
            #high_shift, #bits, #unroll)::"i"(name##_words), "i"(&el_sigmoid_words[64])); \
    }

#define EL_EDGE_LSTM_TEXT(inputs, units, columns, input_shift, shift, high_shift, bits, unroll) \
    ".syntax unified\n" \
    "push {r4-r11, lr}\n" \
    "sub sp, sp, #12\n" \
    "movw r6, #:lower16:%c1\n" \
    "movt r6, #:upper16:%c1\n" \
    "strd r6, r1, [sp]\n" \
    "str r3, [sp, #8]\n" \
    EL_WIDEN(inputs, input_shift) \
    "add r12, r0, #(2 * (" columns " - " inputs "))\n" \
    "movw r1, #:lower16:%c0\n" \
    "movt r1, #:upper16:%c0\n" \
    "movw lr, #(" units " - 1)\n" \
    "1:\n" \
    "sub r0, r12, #(2 * " columns ")\n" \
    "ldmia r1!, {r8-r11}\n" \
    ".rept (" columns " / 4) %% " unroll "\n" EL_FOUR_COLUMNS ".endr\n" \
    ".if (" columns " / 2) %% 2\n" EL_TWO_COLUMNS ".endif\n" \
    ".if (" columns " / 4) / " unroll "\n" \
    "2:\n" \
    ".rept " unroll "\n" EL_FOUR_COLUMNS ".endr\n" \
    ".if (" columns " / 4) / " unroll " > 1\n" \
    "cmp r0, r12\n" \
    "bne 2b\n" \
    ".endif\n" \
    ".endif\n" \
    "ldmia r1!, {r4, r5}\n" \
    "ldm sp, {r2, r3, r6}\n" \
    "smulwb r8, r8, r4\n" \
    "smulwb r10, r10, r5\n" \
    "asrs r4, r4, #16\n" \
    "asrs r5, r5, #16\n" \
    "mul r9, r9, r4\n" \
    "mul r11, r11, r5\n" \
    EL_ARGUMENT("r8", "(" high_shift " - 16)") \
    EL_ARGUMENT("r9", shift) \
    EL_ARGUMENT("r10", "(" high_shift " - 16)") \
    EL_ARGUMENT("r11", shift) \
    EL_SIGMOID("r8") \
    EL_SIGMOID("r9") \
    EL_SIGMOID("r10") \
    EL_SIGMOID("r11") \
    "sub r10, r10, #0x40000000\n" /* tanh / 2 */ \
    "smultt r10, r8, r10\n" \
    "ldrsh r4, [r3, lr, lsl #1]\n" \
    "mov r5, #0x4000\n" \
    "smlatb r9, r9, r4, r5\n" \
    EL_IF(bits, "add r9, r9, r10, asr #(" bits " - 1)", "add r9, r9, r10, lsl #1") \
    "ssat r9, #16, r9, asr #15\n" \
    "strh r9, [r3, lr, lsl #1]\n" \
    "ssat r5, #18, r9, lsl #" bits "\n" \
    EL_SIGMOID("r5") \
    "sub r5, r5, #0x40000000\n" \
    "mov r4, #0x200000\n" \
    "smlatt r4, r11, r5, r4\n" \
    "ssat r4, #8, r4, asr #22\n" \
    "strb r4, [r6, lr]\n" \
    "subs lr, lr, #1\n" \
    "bpl 1b\n" \
    "sub r0, r12, #(2 * (" columns " - " inputs "))\n" \
    "mov r2, r6\n" \
    EL_WIDEN(units, "0") \
    "add sp, sp, #12\n" \
    "pop {r4-r11, pc}\n"

#endif

/* end */
#endif
