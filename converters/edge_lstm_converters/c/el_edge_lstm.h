#ifndef EL_EDGE_LSTM_H
#define EL_EDGE_LSTM_H
#include <stdint.h>
#include "el_edge_quad.h"
#include "el_edge_sigmoid.h"
/* begin */

/* One step of the LSTM of edge_lstm/cells/edge_lstm.py, the last unit first. The activations are
 * the input and the hidden state, h is its new value, which they take over when all units have
 * read the old one. */
static inline void el_edge_lstm(const int16_t *words, const el_activation_t *activations,
    int16_t *cell, int8_t *h, int32_t units, int32_t columns, int32_t shift, int32_t high_shift,
    int32_t cell_bits)
{
    for (int32_t unit = units - 1; unit >= 0; unit--) {
        int32_t u[4];
        words = el_edge_quad(words, activations, columns, shift, high_shift, u);
        const int32_t input = el_sigmoid(el_argument(u[0]));
        const int32_t forget = el_sigmoid(el_argument(u[1]));
        const int32_t candidate = el_tanh(el_argument(u[2]));
        const int32_t output = el_sigmoid(el_argument(u[3]));
        const int32_t added = (input * candidate) >> cell_bits;
        const int32_t sum = (forget * cell[unit] + added + (1 << 14)) >> 15;
        const int32_t c = el_clamp(sum, -32768, 32767);
        const int32_t squashed = el_tanh(el_argument(c * (1 << cell_bits)));
        cell[unit] = (int16_t)c;
        h[unit] = (int8_t)el_clamp((output * squashed + (1 << 22)) >> 23, -128, 127);
    }
}

/* end */
#endif
