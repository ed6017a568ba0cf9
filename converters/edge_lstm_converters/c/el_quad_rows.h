#ifndef EL_QUAD_ROWS_H
#define EL_QUAD_ROWS_H
#include <stdint.h>
#include "el_activation.h"
/* begin */

/* Four rows by activations, two rows a word: A = 256 * row 0 + row 1, B = 256 * row 2 + row 3.
 * Of two columns, A and A, then B and B; the number of columns is even. Into sums go, of A and
 * of B, the sum of the words' products and that of their low bytes'. */
#if defined(EL_CORE_MVE)
/* r0 weights, r1 x, lr a count, r4, r6, r8, r10 the sums: eight columns at a time, then two. */
#define EL_QUAD_TEXT \
    ".syntax unified\n" \
    "push {r3-r10, lr}\n" \
    "movs r4, #0\n" \
    "movs r6, #0\n" \
    "mov r8, #0\n" \
    "mov r10, #0\n" \
    "lsr r12, r2, #3\n" \
    "wls lr, r12, 2f\n" \
    "1:\n" \
    "vld20.32 {q0, q1}, [r0]\n" \
    "vld21.32 {q0, q1}, [r0]!\n" \
    "vldrh.u16 q2, [r1], #16\n" \
    "vmladava.s16 r4, q0, q2\n" \
    "vmovlb.s8 q0, q0\n" \
    "vmladava.s16 r8, q1, q2\n" \
    "vmovlb.s8 q1, q1\n" \
    "vmladava.s16 r6, q0, q2\n" \
    "vmladava.s16 r10, q1, q2\n" \
    "le lr, 1b\n" \
    "2:\n" \
    "ubfx r12, r2, #1, #2\n" \
    "wls lr, r12, 4f\n" \
    "3:\n" \
    "ldrd r5, r7, [r0], #8\n" \
    "ldr r12, [r1], #4\n" \
    "smlad r4, r5, r12, r4\n" \
    "smlad r8, r7, r12, r8\n" \
    "sxtb16 r5, r5\n" \
    "sxtb16 r7, r7\n" \
    "smlad r6, r5, r12, r6\n" \
    "smlad r10, r7, r12, r10\n" \
    "le lr, 3b\n" \
    "4:\n" \
    "pop {r3}\n" \
    "stmia r3!, {r4, r6, r8, r10}\n" \
    "pop {r4-r10, pc}\n"
#elif defined(EL_CORE_DSP)
/* r0 weights, r1 x, lr where x ends, r4-r7 weights of four columns, r2 and r12 their x, r8-r11
 * the sums. */
#define EL_QUAD_TWO(a, b, x) \
    "smlad r8, " a ", " x ", r8\n" \
    "smlad r10, " b ", " x ", r10\n" \
    "sxtb16 " a ", " a "\n" \
    "sxtb16 " b ", " b "\n" \
    "smlad r9, " a ", " x ", r9\n" \
    "smlad r11, " b ", " x ", r11\n"
#define EL_QUAD_FOUR \
    "ldmia r0!, {r4-r7}\n" \
    "ldrd r2, r12, [r1], #8\n" EL_QUAD_TWO("r4", "r5", "r2") EL_QUAD_TWO("r6", "r7", "r12")
#define EL_QUAD_TEXT \
    ".syntax unified\n" \
    "push {r3-r11, lr}\n" \
    "add lr, r1, r2, lsl #1\n" \
    "mov r8, #0\n" \
    "mov r9, #0\n" \
    "mov r10, #0\n" \
    "mov r11, #0\n" \
    "lsls r3, r2, #30\n" /* two columns: minus */ \
    "bpl 1f\n" \
    "ldmia r0!, {r4, r5}\n" \
    "ldr r2, [r1], #4\n" EL_QUAD_TWO("r4", "r5", "r2") \
    "1:\n" \
    "sub r2, lr, r1\n" \
    "tst r2, #8\n" \
    "beq 2f\n" EL_QUAD_FOUR \
    "2:\n" \
    "cmp r1, lr\n" \
    "beq 4f\n" \
    "3:\n" EL_QUAD_FOUR EL_QUAD_FOUR \
    "cmp r1, lr\n" \
    "bne 3b\n" \
    "4:\n" \
    "pop {r3}\n" \
    "stmia r3!, {r8-r11}\n" \
    "pop {r4-r11, pc}\n"
#elif defined(EL_CORE_V7M)
/* r0 weights, r1 x, r2 where x ends, r3-r7 one column, r8-r11 the sums. */
#define EL_QUAD_COLUMN(a, b) \
    "ldrsh r4, [r1], #2\n" \
    "ldrsh r5, [r0, #" a "]\n" \
    "ldrsh r6, [r0, #" b "]\n" \
    "mla r8, r5, r4, r8\n" \
    "mla r10, r6, r4, r10\n" \
    "sxtb r5, r5\n" \
    "sxtb r6, r6\n" \
    "mla r9, r5, r4, r9\n" \
    "mla r11, r6, r4, r11\n"
#define EL_QUAD_TEXT \
    ".syntax unified\n" \
    "push {r4-r11, lr}\n" \
    "add lr, r1, r2, lsl #1\n" \
    "mov r8, #0\n" \
    "mov r9, #0\n" \
    "mov r10, #0\n" \
    "mov r11, #0\n" \
    "tst r2, #2\n" \
    "beq 1f\n" EL_QUAD_COLUMN("0", "4") EL_QUAD_COLUMN("2", "6") \
    "adds r0, r0, #8\n" \
    "1:\n" \
    "cmp r1, lr\n" \
    "beq 3f\n" \
    "2:\n" \
    "adds r0, r0, #16\n" EL_QUAD_COLUMN("-16", "-12") EL_QUAD_COLUMN("-14", "-10") \
    EL_QUAD_COLUMN("-8", "-4") EL_QUAD_COLUMN("-6", "-2") \
    "cmp r1, lr\n" \
    "bne 2b\n" \
    "3:\n" \
    "stmia r3!, {r8-r11}\n" \
    "pop {r4-r11, pc}\n"
#elif defined(EL_CORE_V6M)
/* r0 weights, r1 x, r12 where x ends, r4 and r5 weights of two columns, r2 and r3 their x, r8-r11
 * the sums. */
#define EL_QUAD_PAIR(words, high, low) \
    "sxtb r6, " words "\n" \
    "muls r6, r2\n" \
    "add " low ", r6\n" \
    "sxth r6, " words "\n" \
    "muls r6, r2\n" \
    "add " high ", r6\n" \
    "asrs " words ", " words ", #16\n" \
    "sxtb r6, " words "\n" \
    "muls r6, r3\n" \
    "add " low ", r6\n" \
    "muls " words ", r3\n" \
    "add " high ", " words "\n"
#define EL_QUAD_TWO \
    "ldmia r0!, {r4, r5}\n" \
    "ldmia r1!, {r2, r3}\n" EL_QUAD_PAIR("r4", "r8", "r9") EL_QUAD_PAIR("r5", "r10", "r11")
#define EL_QUAD_TEXT \
    ".syntax unified\n" \
    "push {r3-r7, lr}\n" \
    "mov r4, r8\n" \
    "mov r5, r9\n" \
    "mov r6, r10\n" \
    "mov r7, r11\n" \
    "push {r4-r7}\n" \
    "movs r4, #0\n" \
    "mov r8, r4\n" \
    "mov r9, r4\n" \
    "mov r10, r4\n" \
    "mov r11, r4\n" \
    "lsls r4, r2, #2\n" \
    "adds r4, r4, r1\n" \
    "mov r12, r4\n" \
    "lsls r4, r2, #30\n" /* two columns: minus */ \
    "bpl 1f\n" EL_QUAD_TWO \
    "1:\n" \
    "cmp r1, r12\n" \
    "beq 3f\n" \
    "2:\n" EL_QUAD_TWO EL_QUAD_TWO \
    "cmp r1, r12\n" \
    "bne 2b\n" \
    "3:\n" \
    "mov r0, r8\n" \
    "mov r1, r9\n" \
    "mov r2, r10\n" \
    "mov r3, r11\n" \
    "pop {r4-r7}\n" \
    "mov r8, r4\n" \
    "mov r9, r5\n" \
    "mov r10, r6\n" \
    "mov r11, r7\n" \
    "pop {r4}\n" \
    "stmia r4!, {r0-r3}\n" \
    "pop {r4-r7, pc}\n"
#elif defined(EL_CORE_RV32)
/* a0 weights, a1 x, a2 where x ends, t0-t3 the sums. */
#define EL_QUAD_COLUMN(a, b, x) \
    "lh a4, " x "(a1)\n" \
    "lh a5, " a "(a0)\n" \
    "lb a6, " a "(a0)\n" \
    "lh a7, " b "(a0)\n" \
    "lb t4, " b "(a0)\n" \
    "mul a5, a5, a4\n" \
    "mul a6, a6, a4\n" \
    "mul a7, a7, a4\n" \
    "mul t4, t4, a4\n" \
    "add t0, t0, a5\n" \
    "add t1, t1, a6\n" \
    "add t2, t2, a7\n" \
    "add t3, t3, t4\n"
#define EL_QUAD_TEXT \
    "slli t4, a2, 1\n" \
    "andi a2, a2, 2\n" \
    "li t0, 0\n" \
    "li t1, 0\n" \
    "li t2, 0\n" \
    "li t3, 0\n" \
    "add t5, a1, t4\n" \
    "beqz a2, 1f\n" EL_QUAD_COLUMN("0", "4", "0") EL_QUAD_COLUMN("2", "6", "2") \
    "addi a0, a0, 8\n" \
    "addi a1, a1, 4\n" \
    "1:\n" \
    "beq a1, t5, 3f\n" \
    "2:\n" EL_QUAD_COLUMN("0", "4", "0") EL_QUAD_COLUMN("2", "6", "2") \
    EL_QUAD_COLUMN("8", "12", "4") EL_QUAD_COLUMN("10", "14", "6") \
    "addi a0, a0, 16\n" \
    "addi a1, a1, 8\n" \
    "bne a1, t5, 2b\n" \
    "3:\n" \
    "sw t0, 0(a3)\n" \
    "sw t1, 4(a3)\n" \
    "sw t2, 8(a3)\n" \
    "sw t3, 12(a3)\n" \
    "ret\n"
#endif

#if defined(EL_QUAD_TEXT)
__attribute__((naked, noinline)) static void el_quad_rows(
    __attribute__((unused)) const int16_t *weights,
    __attribute__((unused)) const el_activation_t *x, __attribute__((unused)) int32_t columns,
    __attribute__((unused)) int32_t sums[4])
{
    __asm__ volatile(EL_QUAD_TEXT);
}
#else
static inline void el_quad_rows(const int16_t *weights, const el_activation_t *x, int32_t columns,
    int32_t sums[4])
{
    int32_t first = 0, first_low = 0, second = 0, second_low = 0;
    for (int32_t c = 0; c < columns; c += 2) {
        for (int32_t k = 0; k < 2; k++) {
            const int32_t a = weights[2 * c + k], b = weights[2 * c + 2 + k], value = x[c + k];
            first += a * value;
            first_low += (int8_t)a * value;
            second += b * value;
            second_low += (int8_t)b * value;
        }
    }
    sums[0] = first;
    sums[1] = first_low;
    sums[2] = second;
    sums[3] = second_low;
}
#endif

/* end */
#endif
