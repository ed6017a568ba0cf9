#ifndef EL_EDGE_GRU_H
#define EL_EDGE_GRU_H
#include <stdint.h>
#include "el_edge_quad.h"
#include "el_edge_sigmoid.h"
/* begin */

/* The GRUs and the plain RNN of edge_lstm/cells/edge_gru.py. Units come in fours; those behind
 * the last have no weights. */

/* A hidden state of Q0.15 in Q0.7, rounded. */
static inline int8_t el_edge_narrowed(int32_t hidden)
{
    return (int8_t)el_clamp((hidden + 128) >> 8, -128, 127);
}

/* hidden moves towards the candidate, by all of it where update is 0. */
static inline int16_t el_edge_moved(int32_t hidden, int32_t candidate, int32_t update)
{
    const int32_t moved = (update * (hidden - candidate) + (1 << 14)) >> 15;
    return (int16_t)el_clamp(candidate + moved, -32768, 32767);
}

/* A step of the GRU that resets the recurrent product. Of four units there stand the rows z and
 * r of two, those of the others, the candidates' rows over the input, and over the hidden state. */
static inline void el_edge_gru(const int16_t *words, const el_activation_t *a, int16_t *hidden,
    int8_t *h, int32_t units, int32_t inputs, int32_t columns, int32_t shift, int32_t high_shift,
    int32_t candidate_shift, int32_t candidate_high_shift, int32_t recurrent_shift,
    int32_t recurrent_high_shift)
{
    for (int32_t first = 0; first < units; first += 4) {
        int32_t gates[8], fresh[4], kept[4];
        words = el_edge_quad(words, a, columns, shift, high_shift, gates);
        words = el_edge_quad(words, a, columns, shift, high_shift, gates + 4);
        words = el_edge_quad(words, a, inputs, candidate_shift, candidate_high_shift, fresh);
        words = el_edge_quad(words, a + inputs, columns - inputs, recurrent_shift,
            recurrent_high_shift, kept);
        for (int32_t k = 0; k < 4 && first + k < units; k++) {
            const int32_t update = el_sigmoid(el_argument(gates[2 * k]));
            const int32_t reset = el_sigmoid(el_argument(gates[2 * k + 1]));
            const int32_t gated = (reset * el_clamp(kept[k], -32768, 32767) + (1 << 14)) >> 15;
            const int32_t sum = el_clamp(fresh[k], -32768, 32767) + gated;
            const int32_t candidate = el_tanh(el_argument(sum * 8));
            hidden[first + k] = el_edge_moved(hidden[first + k], candidate, update);
            h[first + k] = el_edge_narrowed(hidden[first + k]);
        }
    }
}

/* The first half of a step of the GRU that resets the hidden state: the updates, and what is
 * left of the hidden state, in Q0.7. Returns where its words end. */
static inline const int16_t *el_edge_gru_reset(const int16_t *words, const el_activation_t *a,
    const int16_t *hidden, int16_t *updates, int8_t *kept, int32_t units, int32_t columns,
    int32_t shift, int32_t high_shift)
{
    for (int32_t first = 0; first < units; first += 2) {
        int32_t gates[4];
        words = el_edge_quad(words, a, columns, shift, high_shift, gates);
        for (int32_t k = 0; k < 2 && first + k < units; k++) {
            const int32_t unit = first + k, reset = el_sigmoid(el_argument(gates[2 * k + 1]));
            const int32_t left = (reset * hidden[unit] + (1 << 22)) >> 23;
            updates[unit] = (int16_t)el_sigmoid(el_argument(gates[2 * k]));
            kept[unit] = (int8_t)el_clamp(left, -128, 127);
        }
    }
    return words;
}

/* The second half. */
static inline void el_edge_gru_update(const int16_t *words, const el_activation_t *a,
    int16_t *hidden, const int16_t *updates, int8_t *h, int32_t units, int32_t columns,
    int32_t shift, int32_t high_shift)
{
    for (int32_t first = 0; first < units; first += 4) {
        int32_t u[4];
        words = el_edge_quad(words, a, columns, shift, high_shift, u);
        for (int32_t k = 0; k < 4 && first + k < units; k++) {
            const int32_t unit = first + k, candidate = el_tanh(el_argument(u[k]));
            hidden[unit] = el_edge_moved(hidden[unit], candidate, updates[unit]);
            h[unit] = el_edge_narrowed(hidden[unit]);
        }
    }
}

/* A step of the plain RNN with tanh. */
static inline void el_edge_rnn(const int16_t *words, const el_activation_t *a, int8_t *h,
    int32_t units, int32_t columns, int32_t shift, int32_t high_shift)
{
    for (int32_t first = 0; first < units; first += 4) {
        int32_t u[4];
        words = el_edge_quad(words, a, columns, shift, high_shift, u);
        for (int32_t k = 0; k < 4 && first + k < units; k++) {
            h[first + k] = el_edge_narrowed(el_tanh(el_argument(u[k])));
        }
    }
}

/* end */
#endif
