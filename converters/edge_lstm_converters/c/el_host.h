#ifndef EL_HOST_H
#define EL_HOST_H
#include <stdint.h>
#include <string.h>
/* begin */

/* LSTM on a host: twin of edge_lstm/cells/edge_lstm.py and lstm_integer.py.
 *
 * Weights are packed [block][quad][gate][16 units][4 columns]: sixteen units of a gate fill a
 * vector, and four columns are one 8-bit dot product of it. With 16-bit inputs, their weights
 * are [block][pair][gate][16 units][2 columns]. Padding has weights of zero. Activations are
 * raised by 128 where a kernel multiplies unsigned by signed bytes; the bias makes up for it. */

#define EL_UNITS 16
#define EL_CHUNK 16 /* steps whose input products are taken at once */

/* What the interchange profiles have instead of the edge arithmetic. Tables are indexed by int16
 * from their middle, and have one value more than they need, which a vector load may touch. */
typedef struct {
    const int32_t *hidden_bias, *hidden_bias_raised;
    const int16_t *sigmoid, *gate_tanh, *cell_tanh;
    int32_t input_multiplier[4], input_shift[4];
    int32_t hidden_multiplier[4], hidden_shift[4];
    int32_t saturated_term;  /* the recurrent term is an int16 before it is added */
    int32_t twice_rounded;   /* products for the cell are halved first, ties up */
    int32_t saturated_added; /* i * g is an int16 before it is added */
    int32_t kept_shift, added_shift;
    int32_t product_multiplier, product_shift, zero_point;
    int32_t clip; /* of the cell; 0: none */
} el_host_exact_t;

typedef struct {
    const int8_t *input_weights, *hidden_weights;
    const int8_t *input_rows, *hidden_rows; /* [gate][unit][columns], columns padded to 32 */
    const int32_t *bias;                    /* [block][gate][16] */
    const int32_t *bias_raised;
    const int32_t *multipliers;             /* [block][gate][16], the 16 bits in both halves */
    const el_host_exact_t *exact;           /* NULL: the edge arithmetic */
    int32_t input, hidden, blocks;
    int32_t input_groups; /* quads or pairs of columns */
    int32_t hidden_quads;
    int32_t input_shift, hidden_shift, shift, cell_bits;
    int32_t high_shift; /* of even gates that are 256 times their sum plus the next one's; or 0 */
    int32_t wide;       /* 16-bit inputs */
} el_host_lstm_t;

/* One stream's state: int16_t cell[16 * blocks], int8_t hidden[16 * blocks]. */
static inline int64_t el_host_state_bytes(const el_host_lstm_t *p)
{
    return (int64_t)3 * EL_UNITS * p->blocks;
}

/* Bytes of one stream's input as a kernel reads it. */
static inline int64_t el_host_input_bytes(const el_host_lstm_t *p)
{
    return (int64_t)4 * p->input_groups;
}

static inline int64_t el_host_scratch_bytes(const el_host_lstm_t *p, int32_t streams)
{
    const int64_t rows = streams > EL_CHUNK ? streams : EL_CHUNK;
    const int64_t sums = (int64_t)EL_CHUNK * p->blocks * 4 * EL_UNITS * (int64_t)sizeof(int32_t);
    return sums + rows * (el_host_input_bytes(p) + 2 * EL_UNITS * p->blocks + 16) + 256;
}

/* Copy a row of n values, raised by `raise` (0 or 128), padded with zeros. */
static inline void el_host_row_s8(const int8_t *x, int32_t n, int64_t padded, uint8_t raise, uint8_t *row)
{
    for (int32_t k = 0; k < n; k++) {
        row[k] = (uint8_t)((uint8_t)x[k] ^ raise);
    }
    memset(row + n, 0, (size_t)(padded - n));
}

static inline void el_host_row(const el_host_lstm_t *p, const void *x, uint8_t raise, uint8_t *row)
{
    if (p->wide) {
        memcpy(row, x, (size_t)p->input * 2);
        memset(row + 2 * p->input, 0, (size_t)(el_host_input_bytes(p) - 2 * p->input));
    } else {
        el_host_row_s8((const int8_t *)x, p->input, el_host_input_bytes(p), raise, row);
    }
}

/* end */
#endif
