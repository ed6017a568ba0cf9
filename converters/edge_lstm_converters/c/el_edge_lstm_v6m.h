#ifndef EL_EDGE_LSTM_V6M_H
#define EL_EDGE_LSTM_V6M_H
#include <stdint.h>
#include "el_activation.h"
#include "el_edge_sigmoid.h"
/* begin */

#if defined(EL_CORE_V6M)
#define EL_EDGE_LSTM_WHOLE

/* A whole step of el_edge_lstm in assembler, for a layer with 8-bit inputs and rows in pairs.
 * r0 words, r1 activations, r8-r11 accumulators of i, f, g, o, r12 where the activations end, lr
 * unit; behind the sums r5 the table's middle, r6 and r7 the argument's ends. On the stack: these
 * three, where the activations begin, 2**14, cell, y. A conditional branch reaches 256 bytes. */

/* "shifted" where shift is not 0 */
#define EL_IF(shift, shifted) ".if " shift "\n" shifted "\n.endif\n"

/* value < 2**16 */
#define EL_CONSTANT(reg, value) \
    ".if (" value ") < 256\n" \
    "movs " reg ", #(" value ")\n" \
    ".else\n" \
    "movs " reg ", #((" value ") >> 8)\n" \
    "lsls " reg ", " reg ", #8\n" \
    "adds " reg ", #((" value ") & 255)\n" \
    ".endif\n"

/* count values of int8 from r2 to r0, shifted */
#define EL_WIDEN(count, shift) \
    EL_CONSTANT("r5", count) \
    "adds r2, r2, r5\n" \
    "negs r5, r5\n" \
    "0:\n" \
    "ldrsb r4, [r2, r5]\n" \
    EL_IF(shift, "lsls r4, r4, #" shift) \
    "stmia r0!, {r4}\n" \
    "adds r5, r5, #1\n" \
    "bne 0b\n"

/* two columns of a pair of rows: the word's low byte, the word, and again those of the upper */
#define EL_PAIR(words, high, low) \
    "sxtb r7, " words "\n" \
    "muls r7, r2\n" \
    "add " low ", r7\n" \
    "sxth r7, " words "\n" \
    "muls r7, r2\n" \
    "add " high ", r7\n" \
    "asrs " words ", " words ", #16\n" \
    "sxtb r7, " words "\n" \
    "muls r7, r3\n" \
    "add " low ", r7\n" \
    "muls " words ", r3\n" \
    "add " high ", " words "\n"
#define EL_FIRST(words) EL_PAIR(words, "r8", "r9")
#define EL_SECOND(words) EL_PAIR(words, "r10", "r11")

#define EL_TWO_COLUMNS \
    "ldmia r0!, {r4, r5}\n" \
    "ldmia r1!, {r2, r3}\n" EL_FIRST("r4") EL_SECOND("r5")

#define EL_TWELVE_COLUMNS \
    ".rept 2\n" \
    "ldmia r0!, {r4, r5, r6}\n" \
    "ldmia r1!, {r2, r3}\n" EL_FIRST("r4") EL_SECOND("r5") \
    "ldmia r1!, {r2, r3}\n" EL_FIRST("r6") \
    "ldmia r0!, {r4, r5, r6}\n" EL_SECOND("r4") \
    "ldmia r1!, {r2, r3}\n" EL_FIRST("r5") EL_SECOND("r6") \
    ".endr\n"

/* r2 between r7 and r6 */
#define EL_CLAMP \
    "cmp r2, r6\n" \
    "ble 3f\n" \
    "mov r2, r6\n" \
    "3:\n" \
    "cmp r2, r7\n" \
    "bge 3f\n" \
    "mov r2, r7\n" \
    "3:\n"

/* r2 = sigmoid of r2 */
#define EL_SIGMOID \
    "asrs r3, r2, #11\n" \
    "lsls r3, r3, #2\n" \
    "ldr r3, [r5, r3]\n" \
    "sxth r4, r3\n" \
    "muls r2, r4\n" \
    "adds r2, r2, r3\n" \
    "lsrs r2, r2, #16\n"

/* r2 = the gate of the high row of a pair: 48 bits in two halves */
#define EL_HIGH_GATE(acc, at, high_shift) \
    "mov r2, " acc "\n" \
    "ldrh r3, [r0, #" at "]\n" \
    "asrs r4, r2, #16\n" \
    "uxth r2, r2\n" \
    "muls r4, r3\n" \
    "muls r2, r3\n" \
    "lsrs r2, r2, #16\n" \
    "adds r2, r2, r4\n" \
    EL_IF("(" high_shift " - 16)", "asrs r2, r2, #(" high_shift " - 16)") EL_CLAMP EL_SIGMOID

#define EL_LOW_GATE(acc, at, shift) \
    "mov r2, " acc "\n" \
    "ldrh r3, [r0, #" at "]\n" \
    "muls r2, r3\n" \
    EL_IF(shift, "asrs r2, r2, #" shift) EL_CLAMP EL_SIGMOID

#define EL_EDGE_LSTM_STEP(name, state, inputs, units, columns, input_shift, shift, high_shift, \
    bits, unroll) \
    __attribute__((naked, noinline)) static void name##_units( \
        __attribute__((unused)) el_activation_t *activations, \
        __attribute__((unused)) int16_t *cell, __attribute__((unused)) const int8_t *x, \
        __attribute__((unused)) int8_t *y) \
    { \
        __asm__ volatile(EL_EDGE_LSTM_SUMS(#inputs, #units, #columns, #input_shift, \
            #unroll)::"i"(name##_words), "i"(&el_sigmoid_words[64])); \
        __asm__ volatile(EL_EDGE_LSTM_GATES(#inputs, #units, #shift, #high_shift, #bits)::); \
    }

#define EL_EDGE_LSTM_SUMS(inputs, units, columns, input_shift, unroll) \
    ".syntax unified\n" \
    "push {r4-r7, lr}\n" \
    "mov r4, r8\n" \
    "mov r5, r9\n" \
    "mov r6, r10\n" \
    "mov r7, r11\n" \
    "push {r4-r7}\n" \
    "movs r6, #1\n" \
    "lsls r6, r6, #14\n" \
    "mov r5, r0\n" \
    "mov r7, r1\n" \
    "push {r3}\n" \
    "push {r5, r6, r7}\n" \
    EL_WIDEN(inputs, input_shift) \
    "lsls r6, r6, #3\n" \
    "negs r7, r6\n" \
    "subs r6, r6, #1\n" \
    "ldr r5, 4f\n" \
    "ldr r0, 5f\n" \
    "b 6f\n" \
    ".balign 4\n" \
    "4: .word %c1\n" \
    "5: .word %c0\n" \
    "6:\n" \
    "push {r5, r6, r7}\n" \
    EL_CONSTANT("r2", "4 * " columns) \
    "ldr r1, [sp, #12]\n" \
    "adds r2, r2, r1\n" \
    "mov r12, r2\n" \
    EL_CONSTANT("r2", "(" units " - 1)") \
    "mov lr, r2\n" \
    "1:\n" \
    "ldmia r0!, {r4-r7}\n" \
    "mov r8, r4\n" \
    "mov r9, r5\n" \
    "mov r10, r6\n" \
    "mov r11, r7\n" \
    "ldr r1, [sp, #12]\n" \
    ".rept (" columns " %% 12) / 2\n" EL_TWO_COLUMNS ".endr\n" \
    ".rept (" columns " / 12) %% " unroll "\n" EL_TWELVE_COLUMNS ".endr\n" \
    ".if (" columns " / 12) / " unroll "\n" \
    "2:\n" \
    ".rept " unroll "\n" EL_TWELVE_COLUMNS ".endr\n" \
    ".if (" columns " / 12) / " unroll " > 1\n" \
    "cmp r1, r12\n" \
    "beq 3f\n" \
    "b 2b\n" \
    "3:\n" \
    ".endif\n" \
    ".endif\n" \
    "mov r1, sp\n" \
    "ldmia r1!, {r5, r6, r7}\n"

#define EL_EDGE_LSTM_GATES(inputs, units, shift, high_shift, bits) \
    EL_HIGH_GATE("r10", "4", high_shift) \
    "ldr r3, [sp, #16]\n" \
    "subs r1, r2, r3\n" /* tanh / 2 */ \
    EL_HIGH_GATE("r8", "0", high_shift) \
    "muls r1, r2\n" \
    ".if " bits "\n" \
    EL_IF("(" bits " - 1)", "asrs r1, r1, #(" bits " - 1)") \
    ".else\n" \
    "lsls r1, r1, #1\n" \
    ".endif\n" \
    EL_LOW_GATE("r11", "6", shift) \
    "mov r8, r2\n" \
    EL_LOW_GATE("r9", "2", shift) \
    "adds r0, r0, #8\n" \
    "ldr r6, [sp, #20]\n" \
    "mov r4, lr\n" \
    "lsls r4, r4, #1\n" \
    "ldrsh r3, [r6, r4]\n" \
    "muls r2, r3\n" \
    "adds r2, r2, r1\n" \
    "ldr r7, [sp, #16]\n" \
    "adds r2, r2, r7\n" \
    "asrs r2, r2, #15\n" \
    "sxth r3, r2\n" \
    "cmp r3, r2\n" \
    "beq 3f\n" \
    "asrs r2, r2, #31\n" \
    "lsls r3, r7, #1\n" \
    "subs r3, r3, #1\n" \
    "eors r2, r3\n" \
    "3:\n" \
    "strh r2, [r6, r4]\n" \
    EL_IF(bits, "lsls r2, r2, #" bits) \
    ".if " bits " > 2\n" \
    "ldr r6, [sp, #4]\n" \
    "ldr r7, [sp, #8]\n" EL_CLAMP \
    "ldr r7, [sp, #16]\n" \
    ".endif\n" \
    EL_SIGMOID \
    "subs r2, r2, r7\n" /* tanh / 2 */ \
    "mov r3, r8\n" \
    "muls r2, r3\n" \
    "lsls r7, r7, #7\n" \
    "adds r2, r2, r7\n" \
    "asrs r2, r2, #22\n" \
    "cmp r2, #127\n" \
    "ble 3f\n" \
    "movs r2, #127\n" \
    "3:\n" \
    "ldr r3, [sp, #24]\n" \
    "mov r4, lr\n" \
    "strb r2, [r3, r4]\n" \
    "subs r4, r4, #1\n" \
    "mov lr, r4\n" \
    "bmi 3f\n" \
    "b 1b\n" \
    "3:\n" \
    "ldr r0, [sp, #12]\n" \
    EL_CONSTANT("r2", "4 * " inputs) \
    "adds r0, r0, r2\n" \
    "ldr r2, [sp, #24]\n" \
    EL_WIDEN(units, "0") \
    "add sp, sp, #28\n" \
    "pop {r4-r7}\n" \
    "mov r8, r4\n" \
    "mov r9, r5\n" \
    "mov r10, r6\n" \
    "mov r11, r7\n" \
    "pop {r4-r7, pc}\n"
#endif

/* end */
#endif
