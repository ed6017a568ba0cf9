#ifndef EL_EDGE_LSTM_V7M_H
#define EL_EDGE_LSTM_V7M_H
#include <stdint.h>
#include "el_activation.h"
/* begin */

#if defined(EL_CORE_V7M)
/* Parts of el_edge_lstm_thumb2.h: one column at a time; each word of a pair is multiplied as it
 * is, then its low byte. */

#define EL_COLUMN(first, second) \
    "ldrsh r2, [r0], #2\n" \
    "ldrsh r4, [r1" first "\n" \
    "ldrsh r5, [r1" second "\n" \
    "mla r8, r4, r2, r8\n" \
    "mla r10, r5, r2, r10\n" \
    "sxtb r4, r4\n" \
    "sxtb r5, r5\n" \
    "mla r9, r4, r2, r9\n" \
    "mla r11, r5, r2, r11\n"

#define EL_TWELVE_COLUMNS \
    ".rept 3\n" EL_COLUMN("], #16", ", #-12]") EL_COLUMN(", #-14]", ", #-10]") \
    EL_COLUMN(", #-8]", ", #-4]") EL_COLUMN(", #-6]", ", #-2]") ".endr\n"

#define EL_TWO_COLUMNS EL_COLUMN("], #8", ", #-4]") EL_COLUMN(", #-6]", ", #-2]")

/* reg * factor >> high_shift, 64 bits in between */
#define EL_HIGH_ARGUMENT(reg, factor, high_shift) \
    "smull r2, " reg ", " reg ", " factor "\n" \
    "lsr r2, r2, #" high_shift "\n" \
    "orr " reg ", r2, " reg ", lsl #(32 - " high_shift ")\n" \
    "ssat " reg ", #18, " reg "\n"

#define EL_LOW_ARGUMENT(reg, factor, shift) \
    "mul " reg ", " reg ", " factor "\n" \
    EL_IF(shift, "ssat " reg ", #18, " reg ", asr #" shift, "ssat " reg ", #18, " reg)

#define EL_ARGUMENTS(shift, high_shift) \
    "ldrsh r4, [r1], #8\n" \
    "ldrsh r5, [r1, #-6]\n" \
    "ldrsh r6, [r1, #-4]\n" \
    "ldrsh r7, [r1, #-2]\n" \
    EL_HIGH_ARGUMENT("r8", "r4", high_shift) \
    EL_LOW_ARGUMENT("r9", "r5", shift) \
    EL_HIGH_ARGUMENT("r10", "r6", high_shift) \
    EL_LOW_ARGUMENT("r11", "r7", shift)

#define EL_SIGMOID(reg) \
    "asr r4, " reg ", #11\n" \
    "ldr r4, [r2, r4, lsl #2]\n" \
    "sxth r5, r4\n" \
    "mla " reg ", r5, " reg ", r4\n" \
    "asr " reg ", " reg ", #16\n"

#define EL_CELL(bits) \
    "sub r10, r10, #0x4000\n" /* tanh / 2 */ \
    "mul r10, r8, r10\n" \
    "ldrsh r4, [r3, lr, lsl #1]\n" \
    "mov r5, #0x4000\n" \
    "mla r9, r9, r4, r5\n" \
    EL_IF(bits, "add r9, r9, r10, asr #(" bits " - 1)", "add r9, r9, r10, lsl #1")

#define EL_HIDDEN \
    "sub r7, r7, #0x4000\n" /* tanh / 2 */ \
    "mov r4, #0x200000\n" \
    "mla r4, r11, r7, r4\n"
#endif

/* end */
#endif
