#ifndef EL_EDGE_LSTM_THUMB2_H
#define EL_EDGE_LSTM_THUMB2_H
#include <stdint.h>
#include "el_edge_lstm_dsp.h"
#include "el_edge_lstm_v7m.h"
#include "el_edge_sigmoid.h"
/* begin */

#if defined(EL_CORE_DSP) || defined(EL_CORE_V7M)
#define EL_EDGE_LSTM_WHOLE

/* A whole step of el_edge_lstm in assembler, for a layer with 8-bit inputs and rows in pairs.
 * r0 activations, r1 words, r8-r11 accumulators of i, f, g, o and then their gates, lr unit;
 * behind the sums r2 the table's middle, r3 cell, r6 y, which are kept on the stack. Where the
 * activations end is known from where the cell begins. */

/* "shifted" where shift is not 0, else "plain" */
#define EL_IF(shift, shifted, plain) ".if " shift "\n" shifted "\n.else\n" plain "\n.endif\n"

/* EL_AT_A_TIME: values that are widened at a time. el_block: columns summed at a time; for size
 * so many that few are left over, which stand in front of the loop. */
#if defined(__OPTIMIZE_SIZE__)
#define EL_AT_A_TIME "1"
#define EL_BLOCK(columns) \
    ".set el_block, 12\n" \
    ".if " columns " %% 12\n" \
    ".set el_block, 8\n" \
    ".if " columns " %% 8\n" \
    ".set el_block, 4\n" \
    ".endif\n" \
    ".endif\n"
#else
#define EL_AT_A_TIME "4"
#define EL_BLOCK(columns) ".set el_block, 12\n"
#endif
#define EL_BLOCK_OF_COLUMNS \
    ".if el_block - 12\n" \
    ".rept el_block / 2\n" EL_TWO_COLUMNS ".endr\n" \
    ".else\n" EL_TWELVE_COLUMNS ".endif\n"

/* count values of int8 from r2 to r0, shifted */
#define EL_WIDEN_ONE(shift) \
    "ldrsb r4, [r2], #1\n" \
    EL_IF(shift, "lsl r4, r4, #" shift, "") \
    "strh r4, [r0], #2\n"
#define EL_WIDEN(count, shift) \
    "add r5, r2, #" count "\n" \
    ".rept " count " %% " EL_AT_A_TIME "\n" EL_WIDEN_ONE(shift) ".endr\n" \
    ".if " count " / " EL_AT_A_TIME "\n" \
    "0:\n" \
    ".rept " EL_AT_A_TIME "\n" EL_WIDEN_ONE(shift) ".endr\n" \
    "cmp r2, r5\n" \
    "bne 0b\n" \
    ".endif\n"

#define EL_EDGE_LSTM_STEP(name, state, inputs, units, columns, input_shift, shift, high_shift, \
    bits, unroll) \
    __attribute__((naked, noinline)) static void name##_units( \
        __attribute__((unused)) el_activation_t *activations, \
        __attribute__((unused)) int16_t *cell, __attribute__((unused)) const int8_t *x, \
        __attribute__((unused)) int8_t *y) \
    { \
        __asm__ volatile(EL_EDGE_LSTM_SUMS(#inputs, #units, #columns, #input_shift, \
            #unroll)::"i"(name##_words), "i"(&el_sigmoid_words[64]), \
            "i"(__builtin_offsetof(state, name##_cell) - \
                __builtin_offsetof(state, name##_activations) - 2 * columns)); \
        __asm__ volatile( \
            EL_EDGE_LSTM_GATES(#inputs, #units, #columns, #shift, #high_shift, #bits)::); \
    }

#define EL_EDGE_LSTM_SUMS(inputs, units, columns, input_shift, unroll) \
    ".syntax unified\n" \
    "push {r4-r11, lr}\n" \
    "sub sp, sp, #12\n" \
    "movw r6, #:lower16:%c1\n" \
    "movt r6, #:upper16:%c1\n" \
    "strd r6, r1, [sp]\n" \
    "str r3, [sp, #8]\n" \
    EL_WIDEN(inputs, input_shift) \
    "sub r0, r0, #(2 * " inputs ")\n" \
    "movw r1, #:lower16:%c0\n" \
    "movt r1, #:upper16:%c0\n" \
    "movw lr, #(" units " - 1)\n" \
    "1:\n" \
    "ldmia r1!, {r8-r11}\n" \
    EL_BLOCK(columns) \
    ".rept (" columns " %% el_block) / 2\n" EL_TWO_COLUMNS ".endr\n" \
    ".rept (" columns " / el_block) %% " unroll "\n" EL_BLOCK_OF_COLUMNS ".endr\n" \
    ".if (" columns " / el_block) / " unroll "\n" \
    "2:\n" \
    ".rept " unroll "\n" EL_BLOCK_OF_COLUMNS ".endr\n" \
    ".if (" columns " / el_block) / " unroll " > 1\n" \
    "ldr r2, [sp, #4]\n" \
    EL_IF("%c2", "movw r3, #%c2\nsubs r2, r2, r3", "") \
    "cmp r0, r2\n" \
    "bne 2b\n" \
    ".endif\n" \
    ".endif\n"

#define EL_EDGE_LSTM_GATES(inputs, units, columns, shift, high_shift, bits) \
    EL_ARGUMENTS(shift, high_shift) \
    "ldm sp, {r2, r3, r6}\n" \
    EL_SIGMOID("r8") \
    EL_SIGMOID("r9") \
    EL_SIGMOID("r10") \
    EL_SIGMOID("r11") \
    EL_CELL(bits) \
    "ssat r9, #16, r9, asr #15\n" \
    "strh r9, [r3, lr, lsl #1]\n" \
    "ssat r7, #18, r9, lsl #" bits "\n" \
    EL_SIGMOID("r7") \
    EL_HIDDEN \
    "ssat r4, #8, r4, asr #22\n" \
    "strb r4, [r6, lr]\n" \
    "sub r0, r0, #(2 * " columns ")\n" \
    "subs lr, lr, #1\n" \
    "bpl 1b\n" \
    "add r0, r0, #(2 * " inputs ")\n" \
    "mov r2, r6\n" \
    EL_WIDEN(units, "0") \
    "add sp, sp, #12\n" \
    "pop {r4-r11, pc}\n"
#endif

/* end */
#endif
