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
EL_INLINE512 void el_finish512(const el_host_lstm_t *p, int32_t block, el_sums512_t sums,
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
    const el_sums512_t zero = el_zero512();
    if (p->wide) {
        return el_dot512_wide(w, row, p->input_groups, zero);
    }
    return el_shifted512(el_dot512(w, row, p->input_groups, zero), p->input_shift);
}

/* The hidden state's part, added to the input's. */
EL_INLINE512 el_sums512_t el_hidden512(const el_host_lstm_t *p, int32_t block,
    const uint8_t *hidden, el_sums512_t s)
{
    const int8_t *w = p->hidden_weights + (int64_t)256 * p->hidden_quads * block;
    if (p->hidden_shift == 0) {
        return el_dot512(w, hidden, p->hidden_quads, s);
    }
    const el_sums512_t own = el_shifted512(
        el_dot512(w, hidden, p->hidden_quads, el_zero512()), p->hidden_shift);
    for (int g = 0; g < 4; g++) {
        s.gate[g] = _mm512_add_epi32(s.gate[g], own.gate[g]);
    }
    return s;
}

/* Raise a hidden state to unsigned bytes; whole vectors, the padding too. */
EL_INLINE512 void el_raise512(const int8_t *hidden, int32_t blocks, uint8_t *raised)
{
    for (int32_t b = 0; b < blocks; b++) {
        const __m128i h = _mm_loadu_si128((const __m128i *)(hidden + 16 * b));
        _mm_storeu_si128((__m128i *)(raised + 16 * b), _mm_xor_si128(h, _mm_set1_epi8(-128)));
    }
}

static EL_AVX512 void el_lstm_one_avx512(const el_host_lstm_t *p, uint8_t *state, int32_t steps,
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
                        const el_sums512_t v = el_shifted512(s[k], p->input_shift);
                        memcpy(ahead + (int64_t)64 * ((t + k) * p->blocks + block), &v, sizeof v);
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
                s = el_hidden512(p, block, raised, s);
                el_finish512(p, block, s, &table, cell + 16 * block, hidden + 16 * block);
            }
            memcpy(y, hidden, (size_t)p->hidden);
        }
    }
}

static EL_AVX512 void el_lstm_many_avx512(const el_host_lstm_t *p, uint8_t *state,
    int32_t streams, int32_t steps, const int8_t *x, int64_t x_stride, int8_t *y,
    int64_t y_stride, uint8_t *scratch)
{
    const el_table512_t table = el_table512();
    const int32_t units = EL_UNITS * p->blocks;
    const int64_t row_bytes = el_host_input_bytes(p), state_bytes = el_host_state_bytes(p);
    const int64_t step_bytes = (int64_t)p->input * (p->wide ? 2 : 1);
    uint8_t *raised = scratch, *rows = scratch + (int64_t)streams * units;
    const int32_t tiled = p->wide || p->hidden_shift ? 0 : streams & ~3;
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
                for (int k = 0; k < 4; k++) {
                    s[k] = el_shifted512(s[k], p->input_shift);
                }
                el_dot512_four(p->hidden_weights + (int64_t)256 * p->hidden_quads * block,
                    raised + (int64_t)n * units, units, p->hidden_quads, s);
                for (int k = 0; k < 4; k++) {
                    uint8_t *own = state + (n + k) * state_bytes;
                    el_finish512(p, block, s[k], &table, (int16_t *)own + 16 * block,
                        (int8_t *)own + 2 * units + 16 * block);
                }
            }
            for (int32_t n = tiled; n < streams; n++) {
                uint8_t *own = state + n * state_bytes;
                el_sums512_t s = el_input512(p, block, rows + n * row_bytes);
                s = el_hidden512(p, block, raised + (int64_t)n * units, s);
                el_finish512(p, block, s, &table, (int16_t *)own + 16 * block,
                    (int8_t *)own + 2 * units + 16 * block);
            }
        }
        for (int32_t n = 0; n < streams; n++) {
            memcpy(y + n * y_stride + (int64_t)t * p->hidden,
                (const int8_t *)state + n * state_bytes + 2 * units, (size_t)p->hidden);
        }
    }
}

/* end */
#endif
