#ifndef EL_EDGE_ROWS_H
#define EL_EDGE_ROWS_H
#include <stdint.h>
/* begin */

/* Twin of edge_lstm/cells/edge_rows.py. A negative value is shifted right with its sign, which
 * C leaves to the implementation and every compiler of the targets does. */

static inline int32_t el_clamp(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : (value > high ? high : value);
}

/* bias + sum(weights * x), int8 by int8. */
static inline int32_t el_dot_s8_s8(const int8_t *weights, const int8_t *x, int32_t n, int32_t acc)
{
    for (int32_t k = 0; k < n; k++) {
        acc += (int32_t)weights[k] * x[k];
    }
    return acc;
}

/* bias + sum(weights * x), int8 by int16. */
static inline int32_t el_dot_s8_s16(const int8_t *weights, const int16_t *x, int32_t n, int32_t acc)
{
    for (int32_t k = 0; k < n; k++) {
        acc += (int32_t)weights[k] * x[k];
    }
    return acc;
}

/* end */
#endif
