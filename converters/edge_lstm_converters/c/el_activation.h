#ifndef EL_ACTIVATION_H
#define EL_ACTIVATION_H
#include <stdint.h>
/* begin */

/* What rows are multiplied by, in the width of the core's multiplication; aligned, so that
 * several are read at once. */
#ifndef EL_ALIGNED
#if defined(__GNUC__)
#define EL_ALIGNED __attribute__((aligned(4)))
#else
#define EL_ALIGNED
#endif
#if defined(__ARM_ARCH_6M__)
typedef int32_t el_activation_t;
#else
typedef int16_t el_activation_t;
#endif
#endif

/* end */
#endif
