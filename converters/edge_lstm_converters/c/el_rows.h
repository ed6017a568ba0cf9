#ifndef EL_ROWS_H
#define EL_ROWS_H
#include <stdint.h>
/* begin */

/* sum(weights * x), int8 by int8; the caller knows that it fits. */
static inline int32_t el_row(const int8_t *weights, const int8_t *x, int32_t columns)
{
    int32_t sum = 0;
    for (int32_t k = 0; k < columns; k++) {
        sum += weights[k] * x[k];
    }
    return sum;
}

/* sum(weights * x), int8 by int16. */
static inline int64_t el_wide_row(const int8_t *weights, const int16_t *x, int32_t columns)
{
    int64_t sum = 0;
    for (int32_t k = 0; k < columns; k++) {
        sum += weights[k] * x[k];
    }
    return sum;
}

/* end */
#endif
