#ifndef EL_QUAD_BYTES_H
#define EL_QUAD_BYTES_H
#include <stdint.h>
#include "el_activation.h"
/* begin */

/* Four rows of int8 by activations. Of four columns, of each row: columns 0 and 2 in a word,
 * columns 1 and 3 in the next, the later in its high byte; the number of columns is a multiple
 * of 4. */
static inline void el_quad_bytes(const int16_t *weights, const el_activation_t *x,
    int32_t columns, int32_t sums[4])
{
    sums[0] = sums[1] = sums[2] = sums[3] = 0;
    for (int32_t c = 0; c < columns; c += 4) {
        for (int32_t row = 0; row < 4; row++) {
            const int32_t even = weights[0], odd = weights[1];
            sums[row] += (int8_t)even * x[c] + (int8_t)odd * x[c + 1];
            sums[row] += (even >> 8) * x[c + 2] + (odd >> 8) * x[c + 3];
            weights += 2;
        }
    }
}

/* end */
#endif
