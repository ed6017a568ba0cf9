#ifndef EL_HOST_AVX512_H
#define EL_HOST_AVX512_H
#include <immintrin.h>
#include "el_host.h"
extern const int32_t el_sigmoid_words[128];
/* begin */

#define EL_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#define EL_INLINE512 static inline __attribute__((always_inline)) EL_AVX512

typedef struct {
    __m512i part[8];
} el_table512_t;

typedef struct {
    __m512i gate[4];
} el_sums512_t;

EL_INLINE512 el_table512_t el_table512(void)
{
    el_table512_t table;
    for (int k = 0; k < 8; k++) {
        table.part[k] = _mm512_loadu_si512(el_sigmoid_words + 16 * k);
    }
    return table;
}

/* Sigmoid in Q0.15 of arguments before their clamp to 18 bits. */
EL_INLINE512 __m512i el_sigmoid512(__m512i u, const el_table512_t *t)
{
    u = _mm512_min_epi32(
        _mm512_max_epi32(u, _mm512_set1_epi32(-131072)), _mm512_set1_epi32(131071));
    /* 64 segments lie below zero; the permutation reads the low five bits of an index. */
    const __m512i index = _mm512_xor_si512(_mm512_srai_epi32(u, 11), _mm512_set1_epi32(64));
    const __mmask16 odd = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32));
    const __mmask16 upper = _mm512_test_epi32_mask(index, _mm512_set1_epi32(64));
    const __m512i a = _mm512_permutex2var_epi32(t->part[0], index, t->part[1]);
    const __m512i b = _mm512_permutex2var_epi32(t->part[2], index, t->part[3]);
    const __m512i c = _mm512_permutex2var_epi32(t->part[4], index, t->part[5]);
    const __m512i d = _mm512_permutex2var_epi32(t->part[6], index, t->part[7]);
    const __m512i low = _mm512_mask_blend_epi32(odd, a, b);
    const __m512i high = _mm512_mask_blend_epi32(odd, c, d);
    const __m512i word = _mm512_mask_blend_epi32(upper, low, high);
    const __m512i fraction = _mm512_and_si512(u, _mm512_set1_epi32(2047));
    return _mm512_srai_epi32(_mm512_add_epi32(word, _mm512_madd_epi16(word, fraction)), 16);
}

EL_INLINE512 __m512i el_tanh512(__m512i u, const el_table512_t *t)
{
    return _mm512_sub_epi32(_mm512_slli_epi32(el_sigmoid512(u, t), 1), _mm512_set1_epi32(32768));
}

/* acc * multiplier >> 16: a product of 32 by 15 bits; the multiplier stands in both halves. */
EL_INLINE512 __m512i el_mul_high512(__m512i acc, __m512i multiplier)
{
    const __m512i upper = _mm512_set1_epi32((int32_t)0xFFFF0000u);
    const __m512i high = _mm512_madd_epi16(acc, _mm512_and_si512(multiplier, upper));
    const __m512i low = _mm512_srli_epi32(
        _mm512_mullo_epi32(_mm512_andnot_si512(upper, acc), _mm512_srli_epi32(multiplier, 16)), 16);
    return _mm512_add_epi32(high, low);
}

/* One block of 16 units of one stream: from the sums of its gates to cell and output. */
EL_INLINE512 void el_edge512(const el_host_lstm_t *p, int32_t block, el_sums512_t sums,
    const el_table512_t *table, int16_t *cell, int8_t *next)
{
    const int32_t *bias = p->bias_raised + 64 * block;
    const int32_t *multipliers = p->multipliers + 64 * block;
    __m512i u[4];
    for (int g = 0; g < 4; g++) {
        const __m512i b = _mm512_loadu_si512(bias + 16 * g);
        const __m512i m = _mm512_loadu_si512(multipliers + 16 * g);
        if (p->high_shift && (g & 1) == 0) {
            const __m512i both = _mm512_add_epi32(
                _mm512_slli_epi32(sums.gate[g], 8), sums.gate[g + 1]);
            u[g] = _mm512_srai_epi32(
                el_mul_high512(_mm512_add_epi32(both, b), m), (unsigned)(p->high_shift - 16));
        } else {
            const __m512i product = _mm512_mullo_epi32(
                _mm512_add_epi32(sums.gate[g], b), _mm512_srli_epi32(m, 16));
            u[g] = _mm512_srai_epi32(product, (unsigned)p->shift);
        }
    }
    const __m512i entrance = el_sigmoid512(u[0], table);
    const __m512i forget = el_sigmoid512(u[1], table);
    const __m512i candidate = el_tanh512(u[2], table);
    const __m512i leaving = el_sigmoid512(u[3], table);
    /* A gate is never negative, so its upper half is zero and adds nothing to a pair's product. */
    const __m512i added = _mm512_srai_epi32(
        _mm512_madd_epi16(entrance, candidate), (unsigned)p->cell_bits);
    const __m512i before = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)cell));
    const __m512i sum = _mm512_add_epi32(_mm512_madd_epi16(forget, before),
        _mm512_add_epi32(added, _mm512_set1_epi32(1 << 14)));
    const __m256i narrow = _mm512_cvtsepi32_epi16(_mm512_srai_epi32(sum, 15));
    _mm256_storeu_si256((__m256i *)cell, narrow);
    const __m512i argument = _mm512_slli_epi32(
        _mm512_cvtepi16_epi32(narrow), (unsigned)p->cell_bits);
    const __m512i squashed = el_tanh512(argument, table);
    const __m512i product = _mm512_add_epi32(
        _mm512_madd_epi16(leaving, squashed), _mm512_set1_epi32(1 << 22));
    _mm_storeu_si128((__m128i *)next, _mm512_cvtsepi32_epi8(_mm512_srai_epi32(product, 23)));
}

/* value / 2**shift to nearest, ties away from zero. */
EL_INLINE512 __m512i el_divide512(__m512i value, int32_t shift)
{
    if (shift == 0) {
        return value;
    }
    const __m512i half = _mm512_set1_epi32(1 << (shift - 1));
    const __m512i up = _mm512_add_epi32(half, _mm512_srai_epi32(value, 31));
    return _mm512_srai_epi32(_mm512_add_epi32(value, up), (unsigned)shift);
}

/* MultiplyByQuantizedMultiplier with two roundings. */
EL_INLINE512 __m512i el_requantize512(__m512i acc, int32_t multiplier, int32_t shift)
{
    const __m512i m = _mm512_set1_epi32(multiplier), round = _mm512_set1_epi64(1 << 30);
    acc = _mm512_slli_epi32(acc, (unsigned)(shift > 0 ? shift : 0));
    const __m512i even = _mm512_add_epi64(_mm512_mul_epi32(acc, m), round);
    const __m512i odd = _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(acc, 32), m), round);
    const __m512i high = _mm512_mask_blend_epi32(
        0xAAAA, _mm512_srli_epi64(even, 31), _mm512_slli_epi64(odd, 1));
    return el_divide512(high, shift < 0 ? -shift : 0);
}

EL_INLINE512 __m512i el_limit512(__m512i value, int32_t low, int32_t high)
{
    return _mm512_min_epi32(
        _mm512_max_epi32(value, _mm512_set1_epi32(low)), _mm512_set1_epi32(high));
}

EL_INLINE512 __m512i el_s16_512(__m512i value)
{
    return el_limit512(value, -32768, 32767);
}

EL_INLINE512 __m512i el_lookup512(const int16_t *table, __m512i x)
{
    const __m512i pairs = _mm512_i32gather_epi32(x, table, 2);
    return _mm512_srai_epi32(_mm512_slli_epi32(pairs, 16), 16);
}

/* The same for the interchange profiles: the sums of input and hidden state come apart. */
EL_INLINE512 void el_exact512(const el_host_lstm_t *p, int32_t block, el_sums512_t input,
    el_sums512_t recurrent, int16_t *cell, int8_t *next)
{
    const el_host_exact_t *e = p->exact;
    __m512i gate[4];
    for (int g = 0; g < 4; g++) {
        const int64_t at = 64 * block + 16 * g;
        const __m512i from_input = _mm512_add_epi32(
            input.gate[g], _mm512_loadu_si512(p->bias_raised + at));
        const __m512i from_hidden = _mm512_add_epi32(
            recurrent.gate[g], _mm512_loadu_si512(e->hidden_bias_raised + at));
        const __m512i total = el_s16_512(
            el_requantize512(from_input, e->input_multiplier[g], e->input_shift[g]));
        __m512i term = el_requantize512(from_hidden, e->hidden_multiplier[g], e->hidden_shift[g]);
        if (e->saturated_term) {
            term = el_s16_512(term);
        }
        gate[g] = el_lookup512(
            g == 2 ? e->gate_tanh : e->sigmoid, el_s16_512(_mm512_add_epi32(total, term)));
    }
    const __m512i before = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)cell));
    __m512i kept = _mm512_mullo_epi32(gate[1], before);
    __m512i added = _mm512_mullo_epi32(gate[0], gate[2]);
    if (e->twice_rounded) {
        const __m512i one = _mm512_set1_epi32(1);
        kept = _mm512_srai_epi32(_mm512_add_epi32(kept, one), 1);
        added = _mm512_srai_epi32(_mm512_add_epi32(added, one), 1);
    }
    kept = el_s16_512(el_divide512(kept, e->kept_shift));
    added = el_divide512(added, e->added_shift);
    if (e->saturated_added) {
        added = el_s16_512(added);
    }
    __m512i now = el_s16_512(_mm512_add_epi32(kept, added));
    if (e->clip > 0) {
        now = el_limit512(now, -e->clip, e->clip);
    }
    _mm256_storeu_si256((__m256i *)cell, _mm512_cvtepi32_epi16(now));
    const __m512i product = el_requantize512(
        _mm512_mullo_epi32(gate[3], el_lookup512(e->cell_tanh, now)), e->product_multiplier,
        e->product_shift);
    const __m512i h = _mm512_add_epi32(product, _mm512_set1_epi32(e->zero_point));
    _mm_storeu_si128((__m128i *)next, _mm512_cvtsepi32_epi8(h));
}

EL_INLINE512 __m512i el_spread512(const uint8_t *x)
{
    int32_t four;
    memcpy(&four, x, 4);
    return _mm512_set1_epi32(four);
}

/* sums += weights * raised 8-bit activations, a block of four gates, one stream. */
EL_INLINE512 el_sums512_t el_dot512(const int8_t *w, const uint8_t *x, int32_t quads,
    el_sums512_t s)
{
    el_sums512_t t = {{_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
        _mm512_setzero_si512()}};
    int32_t k = 0;
    for (; k + 2 <= quads; k += 2, w += 512) {
        const __m512i a = el_spread512(x + 4 * k), b = el_spread512(x + 4 * k + 4);
        s.gate[0] = _mm512_dpbusd_epi32(s.gate[0], a, _mm512_loadu_si512(w));
        s.gate[1] = _mm512_dpbusd_epi32(s.gate[1], a, _mm512_loadu_si512(w + 64));
        s.gate[2] = _mm512_dpbusd_epi32(s.gate[2], a, _mm512_loadu_si512(w + 128));
        s.gate[3] = _mm512_dpbusd_epi32(s.gate[3], a, _mm512_loadu_si512(w + 192));
        t.gate[0] = _mm512_dpbusd_epi32(t.gate[0], b, _mm512_loadu_si512(w + 256));
        t.gate[1] = _mm512_dpbusd_epi32(t.gate[1], b, _mm512_loadu_si512(w + 320));
        t.gate[2] = _mm512_dpbusd_epi32(t.gate[2], b, _mm512_loadu_si512(w + 384));
        t.gate[3] = _mm512_dpbusd_epi32(t.gate[3], b, _mm512_loadu_si512(w + 448));
    }
    if (k < quads) {
        const __m512i a = el_spread512(x + 4 * k);
        for (int g = 0; g < 4; g++) {
            s.gate[g] = _mm512_dpbusd_epi32(s.gate[g], a, _mm512_loadu_si512(w + 64 * g));
        }
    }
    for (int g = 0; g < 4; g++) {
        s.gate[g] = _mm512_add_epi32(s.gate[g], t.gate[g]);
    }
    return s;
}

/* sums += weights * 16-bit activations. */
EL_INLINE512 el_sums512_t el_dot512_wide(const int8_t *w, const uint8_t *x, int32_t pairs,
    el_sums512_t s)
{
    for (int32_t k = 0; k < pairs; k++, w += 128) {
        const __m512i a = el_spread512(x + 4 * k);
        for (int g = 0; g < 4; g++) {
            const __m256i bytes = _mm256_loadu_si256((const __m256i *)(w + 32 * g));
            s.gate[g] = _mm512_dpwssd_epi32(s.gate[g], a, _mm512_cvtepi8_epi16(bytes));
        }
    }
    return s;
}

/* The same for four streams: each weight is loaded once. */
EL_INLINE512 void el_dot512_four(const int8_t *w, const uint8_t *x, int64_t stride, int32_t quads,
    el_sums512_t s[4])
{
    el_sums512_t a = s[0], b = s[1], c = s[2], d = s[3];
    for (int32_t k = 0; k < quads; k++, w += 256, x += 4) {
        const __m512i p = _mm512_loadu_si512(w), q = _mm512_loadu_si512(w + 64);
        const __m512i r = _mm512_loadu_si512(w + 128), t = _mm512_loadu_si512(w + 192);
        __m512i v = el_spread512(x);
        a.gate[0] = _mm512_dpbusd_epi32(a.gate[0], v, p);
        a.gate[1] = _mm512_dpbusd_epi32(a.gate[1], v, q);
        a.gate[2] = _mm512_dpbusd_epi32(a.gate[2], v, r);
        a.gate[3] = _mm512_dpbusd_epi32(a.gate[3], v, t);
        v = el_spread512(x + stride);
        b.gate[0] = _mm512_dpbusd_epi32(b.gate[0], v, p);
        b.gate[1] = _mm512_dpbusd_epi32(b.gate[1], v, q);
        b.gate[2] = _mm512_dpbusd_epi32(b.gate[2], v, r);
        b.gate[3] = _mm512_dpbusd_epi32(b.gate[3], v, t);
        v = el_spread512(x + 2 * stride);
        c.gate[0] = _mm512_dpbusd_epi32(c.gate[0], v, p);
        c.gate[1] = _mm512_dpbusd_epi32(c.gate[1], v, q);
        c.gate[2] = _mm512_dpbusd_epi32(c.gate[2], v, r);
        c.gate[3] = _mm512_dpbusd_epi32(c.gate[3], v, t);
        v = el_spread512(x + 3 * stride);
        d.gate[0] = _mm512_dpbusd_epi32(d.gate[0], v, p);
        d.gate[1] = _mm512_dpbusd_epi32(d.gate[1], v, q);
        d.gate[2] = _mm512_dpbusd_epi32(d.gate[2], v, r);
        d.gate[3] = _mm512_dpbusd_epi32(d.gate[3], v, t);
    }
    s[0] = a, s[1] = b, s[2] = c, s[3] = d;
}

EL_INLINE512 el_sums512_t el_shifted512(el_sums512_t s, int32_t shift)
{
    for (int g = 0; g < 4; g++) {
        s.gate[g] = _mm512_slli_epi32(s.gate[g], (unsigned)shift);
    }
    return s;
}

EL_INLINE512 el_sums512_t el_zero512(void)
{
    const __m512i zero = _mm512_setzero_si512();
    return (el_sums512_t){{zero, zero, zero, zero}};
}

/* The input's part of a block's sums, one row. */
EL_INLINE512 el_sums512_t el_input512(const el_host_lstm_t *p, int32_t block, const uint8_t *row)
{
    const int64_t size = (int64_t)(p->wide ? 128 : 256) * p->input_groups;
    const int8_t *w = p->input_weights + size * block;
    if (p->wide) {
        return el_dot512_wide(w, row, p->input_groups, el_zero512());
    }
    return el_dot512(w, row, p->input_groups, el_zero512());
}

/* What the hidden state's part is added to: the input's part, where they share a scale. */
EL_INLINE512 el_sums512_t el_begin512(const el_host_lstm_t *p, el_sums512_t input, int exact)
{
    if (exact || p->hidden_shift) {
        return el_zero512();
    }
    return el_shifted512(input, p->input_shift);
}

/* From the sums to cell and output; `sums` began with el_begin512. */
EL_INLINE512 void el_finish512(const el_host_lstm_t *p, int32_t block, el_sums512_t input,
    el_sums512_t sums, const el_table512_t *table, int exact, int16_t *cell, int8_t *next)
{
    if (exact) {
        el_exact512(p, block, input, sums, cell, next);
        return;
    }
    if (p->hidden_shift) {
        sums = el_shifted512(sums, p->hidden_shift);
        input = el_shifted512(input, p->input_shift);
        for (int g = 0; g < 4; g++) {
            sums.gate[g] = _mm512_add_epi32(sums.gate[g], input.gate[g]);
        }
    }
    el_edge512(p, block, sums, table, cell, next);
}

/* Raise a hidden state to unsigned bytes; whole vectors, the padding too. */
EL_INLINE512 void el_raise512(const int8_t *hidden, int32_t blocks, uint8_t *raised)
{
    for (int32_t b = 0; b < blocks; b++) {
        const __m128i h = _mm_loadu_si128((const __m128i *)(hidden + 16 * b));
        _mm_storeu_si128((__m128i *)(raised + 16 * b), _mm_xor_si128(h, _mm_set1_epi8(-128)));
    }
}

EL_INLINE512 void el_one512(const el_host_lstm_t *p, int exact, uint8_t *state, int32_t steps,
    const int8_t *x, int8_t *y, uint8_t *scratch)
{
    const el_table512_t table = el_table512();
    const int32_t units = EL_UNITS * p->blocks;
    const int64_t row_bytes = el_host_input_bytes(p);
    const int64_t step_bytes = (int64_t)p->input * (p->wide ? 2 : 1);
    int16_t *cell = (int16_t *)state;
    int8_t *hidden = (int8_t *)state + 2 * units;
    int32_t *ahead = (int32_t *)scratch;
    uint8_t *raised = scratch + (int64_t)EL_CHUNK * p->blocks * 256;
    uint8_t *rows = raised + units;
    for (int32_t first = 0; first < steps; first += EL_CHUNK) {
        const int32_t count = steps - first < EL_CHUNK ? steps - first : EL_CHUNK;
        for (int32_t t = 0; t < count; t++) {
            el_host_row(p, x + (first + t) * step_bytes, 128, rows + t * row_bytes);
        }
        if (count > 1) {
            for (int32_t block = 0; block < p->blocks; block++) {
                int32_t t = 0;
                for (; !p->wide && t + 4 <= count; t += 4) {
                    const int64_t size = (int64_t)256 * p->input_groups;
                    el_sums512_t s[4] = {el_zero512(), el_zero512(), el_zero512(), el_zero512()};
                    el_dot512_four(p->input_weights + size * block, rows + t * row_bytes,
                        row_bytes, p->input_groups, s);
                    for (int k = 0; k < 4; k++) {
                        memcpy(ahead + (int64_t)64 * ((t + k) * p->blocks + block), &s[k],
                            sizeof s[k]);
                    }
                }
                for (; t < count; t++) {
                    const el_sums512_t v = el_input512(p, block, rows + t * row_bytes);
                    memcpy(ahead + (int64_t)64 * (t * p->blocks + block), &v, sizeof v);
                }
            }
        }
        for (int32_t t = 0; t < count; t++, y += p->hidden) {
            el_raise512(hidden, p->blocks, raised);
            for (int32_t block = 0; block < p->blocks; block++) {
                el_sums512_t s;
                if (count > 1) {
                    memcpy(&s, ahead + (int64_t)64 * (t * p->blocks + block), sizeof s);
                } else {
                    s = el_input512(p, block, rows);
                }
                const el_sums512_t sums = el_dot512(
                    p->hidden_weights + (int64_t)256 * p->hidden_quads * block, raised,
                    p->hidden_quads, el_begin512(p, s, exact));
                el_finish512(p, block, s, sums, &table, exact, cell + 16 * block,
                    hidden + 16 * block);
            }
            memcpy(y, hidden, (size_t)p->hidden);
        }
    }
}

EL_INLINE512 void el_many512(const el_host_lstm_t *p, int exact, uint8_t *state,
    int32_t streams, int32_t steps, const int8_t *x, int64_t x_stride, int8_t *y,
    int64_t y_stride, uint8_t *scratch)
{
    const el_table512_t table = el_table512();
    const int32_t units = EL_UNITS * p->blocks;
    const int64_t row_bytes = el_host_input_bytes(p), state_bytes = el_host_state_bytes(p);
    const int64_t step_bytes = (int64_t)p->input * (p->wide ? 2 : 1);
    uint8_t *raised = scratch, *rows = scratch + (int64_t)streams * units;
    const int32_t tiled = p->wide ? 0 : streams & ~3;
    for (int32_t t = 0; t < steps; t++) {
        for (int32_t n = 0; n < streams; n++) {
            el_host_row(p, x + n * x_stride + t * step_bytes, 128, rows + n * row_bytes);
            el_raise512((const int8_t *)state + n * state_bytes + 2 * units, p->blocks,
                raised + (int64_t)n * units);
        }
        for (int32_t block = 0; block < p->blocks; block++) {
            for (int32_t n = 0; n < tiled; n += 4) {
                el_sums512_t s[4] = {el_zero512(), el_zero512(), el_zero512(), el_zero512()};
                el_dot512_four(p->input_weights + (int64_t)256 * p->input_groups * block,
                    rows + n * row_bytes, row_bytes, p->input_groups, s);
                el_sums512_t sums[4];
                for (int k = 0; k < 4; k++) {
                    sums[k] = el_begin512(p, s[k], exact);
                }
                el_dot512_four(p->hidden_weights + (int64_t)256 * p->hidden_quads * block,
                    raised + (int64_t)n * units, units, p->hidden_quads, sums);
                for (int k = 0; k < 4; k++) {
                    uint8_t *own = state + (n + k) * state_bytes;
                    el_finish512(p, block, s[k], sums[k], &table, exact,
                        (int16_t *)own + 16 * block, (int8_t *)own + 2 * units + 16 * block);
                }
            }
            for (int32_t n = tiled; n < streams; n++) {
                uint8_t *own = state + n * state_bytes;
                const el_sums512_t s = el_input512(p, block, rows + n * row_bytes);
                const el_sums512_t sums = el_dot512(
                    p->hidden_weights + (int64_t)256 * p->hidden_quads * block,
                    raised + (int64_t)n * units, p->hidden_quads, el_begin512(p, s, exact));
                el_finish512(p, block, s, sums, &table, exact, (int16_t *)own + 16 * block,
                    (int8_t *)own + 2 * units + 16 * block);
            }
        }
        for (int32_t n = 0; n < streams; n++) {
            memcpy(y + n * y_stride + (int64_t)t * p->hidden,
                (const int8_t *)state + n * state_bytes + 2 * units, (size_t)p->hidden);
        }
    }
}

static EL_AVX512 void el_lstm_avx512(const el_host_lstm_t *p, uint8_t *state, int32_t streams,
    int32_t steps, const int8_t *x, int64_t x_stride, int8_t *y, int64_t y_stride,
    uint8_t *scratch)
{
    if (streams == 1 && p->exact) {
        el_one512(p, 1, state, steps, x, y, scratch);
    } else if (streams == 1) {
        el_one512(p, 0, state, steps, x, y, scratch);
    } else if (p->exact) {
        el_many512(p, 1, state, streams, steps, x, x_stride, y, y_stride, scratch);
    } else {
        el_many512(p, 0, state, streams, steps, x, x_stride, y, y_stride, scratch);
    }
}

/* end */
#endif
