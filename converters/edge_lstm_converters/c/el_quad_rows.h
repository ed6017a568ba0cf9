#ifndef EL_QUAD_ROWS_H
#define EL_QUAD_ROWS_H
#include <stdint.h>
#include "el_activation.h"
/* begin */

/* Four rows by activations, two rows a word: A = 256 * row 0 + row 1, B = 256 * row 2 + row 3.
 * Of two columns, A and A, then B and B; the number of columns is even. Into sums go, of A and
 * of B, the sum of the words' products and that of their low bytes'. */
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

/* end */
#endif
