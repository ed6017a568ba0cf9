#ifndef EL_EDGE_LSTM_DSP_H
#define EL_EDGE_LSTM_DSP_H
#include <stdint.h>
#include "el_activation.h"
/* begin */

#if defined(EL_CORE_DSP)
/* Parts of el_edge_lstm_thumb2.h. Two columns a multiplication: the word of a pair with both of
 * its rows for the high one, the low bytes alone, after SXTB16, for the low one. The gates' values
 * stay in the upper halves of registers. */

#define EL_TWO(a, b, x) \
    "smlad r8, " a ", " x ", r8\n" \
    "smlad r10, " b ", " x ", r10\n" \
    "sxtb16 " a ", " a "\n" \
    "sxtb16 " b ", " b "\n" \
    "smlad r9, " a ", " x ", r9\n" \
    "smlad r11, " b ", " x ", r11\n"

/* Six pairs of columns in five loads. */
#define EL_TWELVE_COLUMNS \
    "ldmia r0!, {r2, r3, r4}\n" \
    "ldmia r1!, {r5, r6, r7, r12}\n" EL_TWO("r5", "r6", "r2") EL_TWO("r7", "r12", "r3") \
    "ldmia r1!, {r2, r3, r5, r6, r7, r12}\n" EL_TWO("r2", "r3", "r4") \
    "ldmia r0!, {r2, r3, r4}\n" EL_TWO("r5", "r6", "r2") EL_TWO("r7", "r12", "r3") \
    "ldmia r1!, {r2, r3}\n" EL_TWO("r2", "r3", "r4")

#define EL_TWO_COLUMNS \
    "ldmia r1!, {r4, r5}\n" \
    "ldr r2, [r0], #4\n" EL_TWO("r4", "r5", "r2")

#define EL_ARGUMENT(reg, shift) \
    EL_IF(shift, "ssat " reg ", #18, " reg ", asr #" shift, "ssat " reg ", #18, " reg)

#define EL_ARGUMENTS(shift, high_shift) \
    "ldmia r1!, {r4, r5}\n" \
    "smulwb r8, r8, r4\n" \
    "smulwb r10, r10, r5\n" \
    "asrs r4, r4, #16\n" \
    "asrs r5, r5, #16\n" \
    "mul r9, r9, r4\n" \
    "mul r11, r11, r5\n" \
    EL_ARGUMENT("r8", "(" high_shift " - 16)") \
    EL_ARGUMENT("r9", shift) \
    EL_ARGUMENT("r10", "(" high_shift " - 16)") \
    EL_ARGUMENT("r11", shift)

#define EL_SIGMOID(reg) \
    "asr r4, " reg ", #11\n" \
    "ldr r4, [r2, r4, lsl #2]\n" \
    "smlabb " reg ", r4, " reg ", r4\n"

#define EL_CELL(bits) \
    "sub r10, r10, #0x40000000\n" /* tanh / 2 */ \
    "smultt r10, r8, r10\n" \
    "ldrsh r4, [r3, lr, lsl #1]\n" \
    "mov r5, #0x4000\n" \
    "smlatb r9, r9, r4, r5\n" \
    EL_IF(bits, "add r9, r9, r10, asr #(" bits " - 1)", "add r9, r9, r10, lsl #1")

#define EL_HIDDEN \
    "sub r7, r7, #0x40000000\n" /* tanh / 2 */ \
    "mov r4, #0x200000\n" \
    "smlatt r4, r11, r7, r4\n"
#endif

/* end */
#endif
