#ifndef EL_EDGE_LSTM_RV32_H
#define EL_EDGE_LSTM_RV32_H
#include <stdint.h>
#include "el_activation.h"
#include "el_edge_sigmoid.h"
/* begin */

#if defined(EL_CORE_RV32)
#define EL_EDGE_LSTM_WHOLE

/* A whole step of el_edge_lstm in assembler, for a layer with 8-bit inputs and rows in pairs.
 * a0 words, a1 cell, a2 activations, a3 h, a4 where the activations end, a5 where h begins, less
 * one, a6 activations of the sums, t0-t3 accumulators of i, f, g, o and then their gates; s0 127, s1
 * the table's middle, s2 and s3 the argument's ends, s4 2**14, s5 2**21, s6 and s7 the cell's ends. */

/* "shifted" where shift is not 0 */
#define EL_IF(shift, shifted) ".if " shift "\n" shifted "\n.endif\n"

/* values of int8 from a2 to a7, shifted: for each number in a list, which are so many; then
 * count of them, four at a time where size does not come first */
#define EL_WIDEN_SOME(list, some, shift) \
    ".irp k, " list "\n" \
    "lb t0, \\k(a2)\n" \
    EL_IF(shift, "slli t0, t0, " shift) \
    "sh t0, (2 * \\k)(a7)\n" \
    ".endr\n" \
    "addi a2, a2, " some "\n" \
    "addi a7, a7, 2 * " some "\n"
#if defined(__OPTIMIZE_SIZE__)
#define EL_AT_A_TIME "1"
#define EL_WIDEN_ROW(shift) EL_WIDEN_SOME("0", "1", shift)
#else
#define EL_AT_A_TIME "4"
#define EL_WIDEN_ROW(shift) EL_WIDEN_SOME("0, 1, 2, 3", "4", shift)
#endif
#define EL_WIDEN(count, shift) \
    "li t4, " count "\n" \
    "add t4, t4, a2\n" \
    ".rept " count " %% " EL_AT_A_TIME "\n" EL_WIDEN_SOME("0", "1", shift) ".endr\n" \
    ".if " count " / " EL_AT_A_TIME "\n" \
    "0:\n" EL_WIDEN_ROW(shift) \
    "bne a2, t4, 0b\n" \
    ".endif\n"

#define EL_ROW_PAIR(at, high, low) \
    "lh t4, " at "(a0)\n" \
    "lb t5, " at "(a0)\n" \
    "mul t4, t4, a7\n" \
    "mul t5, t5, a7\n" \
    "add " high ", " high ", t4\n" \
    "add " low ", " low ", t5\n"

#define EL_COLUMN(x, a, b) \
    "lh a7, " x "(a6)\n" EL_ROW_PAIR(a, "t0", "t1") EL_ROW_PAIR(b, "t2", "t3")

#define EL_TWO_COLUMNS(k) \
    EL_COLUMN("(4 * " k ")", "(16 + 8 * " k ")", "(20 + 8 * " k ")") \
    EL_COLUMN("(4 * " k " + 2)", "(18 + 8 * " k ")", "(22 + 8 * " k ")")

#define EL_ADVANCE(pairs) "addi a0, a0, 8 * " pairs "\naddi a6, a6, 4 * " pairs "\n"

/* reg between the values of two registers */
#define EL_CLAMP(reg, low, high) \
    "bge " high ", " reg ", 3f\n" \
    "mv " reg ", " high "\n" \
    "3:\n" \
    "bge " reg ", " low ", 3f\n" \
    "mv " reg ", " low "\n" \
    "3:\n"

#define EL_HIGH_ARGUMENT(reg, at, high_shift) \
    "lh a7, " at "(a0)\n" \
    "slli a7, a7, 16\n" \
    "mulh " reg ", " reg ", a7\n" \
    EL_IF("(" high_shift " - 16)", "srai " reg ", " reg ", (" high_shift " - 16)") \
    EL_CLAMP(reg, "s3", "s2")

#define EL_LOW_ARGUMENT(reg, at, shift) \
    "lh a7, " at "(a0)\n" \
    "mul " reg ", " reg ", a7\n" \
    EL_IF(shift, "srai " reg ", " reg ", " shift) \
    EL_CLAMP(reg, "s3", "s2")

#define EL_SIGMOID(reg) \
    "srai a7, " reg ", 9\n" \
    "andi a7, a7, -4\n" \
    "add a7, a7, s1\n" \
    "lw t4, 0(a7)\n" \
    "lh a7, 0(a7)\n" \
    "mul " reg ", " reg ", a7\n" \
    "add " reg ", " reg ", t4\n" \
    "srli " reg ", " reg ", 16\n"

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
    "addi sp, sp, -32\n" \
    "sw s1, 0(sp)\n" \
    "sw s2, 4(sp)\n" \
    "sw s3, 8(sp)\n" \
    "sw s4, 12(sp)\n" \
    "sw s5, 16(sp)\n" \
    "sw s6, 20(sp)\n" \
    "sw s7, 24(sp)\n" \
    "sw s0, 28(sp)\n" \
    "mv a7, a0\n" \
    EL_WIDEN(inputs, input_shift) \
    "mv a2, a0\n" \
    "la a0, %0\n" \
    "la s1, %1\n" \
    "li s0, 127\n" \
    "lui s2, 0x20\n" \
    "neg s3, s2\n" \
    "addi s2, s2, -1\n" \
    "lui s4, 0x4\n" \
    "lui s5, 0x200\n" \
    "lui s6, 0x8\n" \
    "neg s7, s6\n" \
    "addi s6, s6, -1\n" \
    "li t4, 2 * " columns "\n" \
    "add a4, a2, t4\n" \
    "li t4, " units " - 1\n" \
    "addi a5, a3, -1\n" \
    "add a3, a3, t4\n" \
    "slli t4, t4, 1\n" \
    "add a1, a1, t4\n" \
    "1:\n" \
    "mv a6, a2\n" \
    "lw t0, 0(a0)\n" \
    "lw t1, 4(a0)\n" \
    "lw t2, 8(a0)\n" \
    "lw t3, 12(a0)\n" \
    ".rept (" columns " %% 12) / 2\n" EL_TWO_COLUMNS("0") EL_ADVANCE("1") ".endr\n" \
    ".rept (" columns " / 12) %% " unroll "\n" \
    ".irp k, 0, 1, 2, 3, 4, 5\n" EL_TWO_COLUMNS("\\k") ".endr\n" EL_ADVANCE("6") ".endr\n" \
    ".if (" columns " / 12) / " unroll "\n" \
    "2:\n" \
    ".irp k, 0, 1, 2, 3, 4, 5\n" EL_TWO_COLUMNS("\\k") ".endr\n" \
    ".if " unroll " == 2\n" \
    ".irp k, 6, 7, 8, 9, 10, 11\n" EL_TWO_COLUMNS("\\k") ".endr\n" \
    ".endif\n" \
    EL_ADVANCE("(6 * " unroll ")") \
    ".if (" columns " / 12) / " unroll " > 1\n" \
    "bne a6, a4, 2b\n" \
    ".endif\n" \
    ".endif\n"

#define EL_EDGE_LSTM_GATES(inputs, units, shift, high_shift, bits) \
    EL_HIGH_ARGUMENT("t0", "16", high_shift) \
    EL_LOW_ARGUMENT("t1", "18", shift) \
    EL_HIGH_ARGUMENT("t2", "20", high_shift) \
    EL_LOW_ARGUMENT("t3", "22", shift) \
    "addi a0, a0, 24\n" \
    EL_SIGMOID("t0") \
    EL_SIGMOID("t1") \
    EL_SIGMOID("t2") \
    EL_SIGMOID("t3") \
    "sub t2, t2, s4\n" /* tanh / 2 */ \
    "mul t0, t0, t2\n" \
    "lh t4, 0(a1)\n" \
    "mul t1, t1, t4\n" \
    ".if " bits "\n" \
    EL_IF("(" bits " - 1)", "srai t0, t0, (" bits " - 1)") \
    ".else\n" \
    "slli t0, t0, 1\n" \
    ".endif\n" \
    "add t1, t1, t0\n" \
    "add t1, t1, s4\n" \
    "srai t1, t1, 15\n" \
    EL_CLAMP("t1", "s7", "s6") \
    "sh t1, 0(a1)\n" \
    "addi a1, a1, -2\n" \
    EL_IF(bits, "slli t1, t1, " bits) \
    ".if " bits " > 2\n" \
    EL_CLAMP("t1", "s3", "s2") \
    ".endif\n" \
    EL_SIGMOID("t1") \
    "sub t1, t1, s4\n" /* tanh / 2 */ \
    "mul t1, t1, t3\n" \
    "add t1, t1, s5\n" \
    "srai t1, t1, 22\n" \
    "bge s0, t1, 3f\n" \
    "mv t1, s0\n" \
    "3:\n" \
    "sb t1, 0(a3)\n" \
    "addi a3, a3, -1\n" \
    "bne a3, a5, 1b\n" \
    "li a7, 2 * " inputs "\n" \
    "add a7, a7, a2\n" \
    "addi a2, a3, 1\n" \
    EL_WIDEN(units, "0") \
    "lw s1, 0(sp)\n" \
    "lw s2, 4(sp)\n" \
    "lw s3, 8(sp)\n" \
    "lw s4, 12(sp)\n" \
    "lw s5, 16(sp)\n" \
    "lw s6, 20(sp)\n" \
    "lw s7, 24(sp)\n" \
    "lw s0, 28(sp)\n" \
    "addi sp, sp, 32\n" \
    "ret\n"
#endif

/* end */
#endif
