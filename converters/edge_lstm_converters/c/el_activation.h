#ifndef EL_ACTIVATION_H
#define EL_ACTIVATION_H
#include <stdint.h>
/* begin */

#ifndef EL_ALIGNED
/* Which hot loops are compiled: one of these cores' in assembler, or portable C. */
#if defined(__GNUC__) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#if defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)
#define EL_CORE_V6M
#elif defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#if defined(__ARM_FEATURE_MVE)
#define EL_CORE_MVE
#elif defined(__ARM_FEATURE_DSP)
#define EL_CORE_DSP
#else
#define EL_CORE_V7M
#endif
#elif defined(__riscv) && __riscv_xlen == 32 && defined(__riscv_mul) && !defined(__riscv_32e)
#define EL_CORE_RV32
#endif
#endif

/* What rows are multiplied by, in the width that the core loads best; aligned, so that several
 * are read at once. */
#if defined(__GNUC__)
#define EL_ALIGNED __attribute__((aligned(4)))
#else
#define EL_ALIGNED
#endif
#if defined(EL_CORE_V6M)
typedef int32_t el_activation_t;
#else
typedef int16_t el_activation_t;
#endif
#endif

/* end */
#endif
