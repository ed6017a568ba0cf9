#ifndef EL_HOST_AVX2_H
#define EL_HOST_AVX2_H
#include <immintrin.h>
#include "el_host.h"
extern const int32_t el_sigmoid_words[128];
/* begin */

#define EL_AVX2 __attribute__((target("avx2")))
#define EL_INLINE256 static inline __attribute__((always_inline)) EL_AVX2

/* Sigmoid in Q0.15 of arguments before their clamp to 18 bits. */
EL_INLINE256 __m256i el_sigmoid256(__m256i u)
{
    u = _mm256_min_epi32(
        _mm256_max_epi32(u, _mm256_set1_epi32(-131072)), _mm256_set1_epi32(131071));
    const __m256i word = _mm256_i32gather_epi32(
        (const int *)el_sigmoid_words + 64, _mm256_srai_epi32(u, 11), 4);
    const __m256i fraction = _mm256_and_si256(u, _mm256_set1_epi32(2047));
    return _mm256_srai_epi32(_mm256_add_epi32(word, _mm256_madd_epi16(word, fraction)), 16);
}

EL_INLINE256 __m256i el_tanh256(__m256i u)
{
    return _mm256_sub_epi32(_mm256_slli_epi32(el_sigmoid256(u), 1), _mm256_set1_epi32(32768));
}

EL_INLINE256 __m256i el_mul_high256(__m256i acc, __m256i multiplier)
{
    const __m256i upper = _mm256_set1_epi32((int32_t)0xFFFF0000u);
    const __m256i high = _mm256_madd_epi16(acc, _mm256_and_si256(multiplier, upper));
    const __m256i low = _mm256_srli_epi32(
        _mm256_mullo_epi32(_mm256_andnot_si256(upper, acc), _mm256_srli_epi32(multiplier, 16)), 16);
    return _mm256_add_epi32(high, low);
}

EL_INLINE256 __m256i el_shift256(__m256i value, int32_t shift)
{
    return _mm256_sra_epi32(value, _mm_cvtsi32_si128(shift));
}

/* Eight units: from the sums of their gates to cell and output. */
EL_INLINE256 void el_edge256(const el_host_lstm_t *p, int32_t offset, const __m256i sums[4],
    int16_t *cell, int8_t *next)
{
    __m256i u[4];
    for (int g = 0; g < 4; g++) {
        const __m256i b = _mm256_loadu_si256((const __m256i *)(p->bias + offset + 16 * g));
        const __m256i m = _mm256_loadu_si256((const __m256i *)(p->multipliers + offset + 16 * g));
        if (p->high_shift && (g & 1) == 0) {
            const __m256i both = _mm256_add_epi32(_mm256_slli_epi32(sums[g], 8), sums[g + 1]);
            u[g] = el_shift256(el_mul_high256(_mm256_add_epi32(both, b), m), p->high_shift - 16);
        } else {
            const __m256i product = _mm256_mullo_epi32(
                _mm256_add_epi32(sums[g], b), _mm256_srli_epi32(m, 16));
            u[g] = el_shift256(product, p->shift);
        }
    }
    const __m256i entrance = el_sigmoid256(u[0]), forget = el_sigmoid256(u[1]);
    const __m256i candidate = el_tanh256(u[2]), leaving = el_sigmoid256(u[3]);
    const __m256i added = el_shift256(_mm256_madd_epi16(entrance, candidate), p->cell_bits);
    const __m256i before = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)cell));
    const __m256i sum = _mm256_srai_epi32(
        _mm256_add_epi32(_mm256_madd_epi16(forget, before),
            _mm256_add_epi32(added, _mm256_set1_epi32(1 << 14))), 15);
    const __m128i narrow = _mm_packs_epi32(
        _mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    _mm_storeu_si128((__m128i *)cell, narrow);
    const __m256i argument = _mm256_sll_epi32(
        _mm256_cvtepi16_epi32(narrow), _mm_cvtsi32_si128(p->cell_bits));
    const __m256i output = _mm256_srai_epi32(
        _mm256_add_epi32(_mm256_madd_epi16(leaving, el_tanh256(argument)),
            _mm256_set1_epi32(1 << 22)), 23);
    const __m128i h = _mm_packs_epi32(
        _mm256_castsi256_si128(output), _mm256_extracti128_si256(output, 1));
    _mm_storel_epi64((__m128i *)next, _mm_packs_epi16(h, h));
}

EL_INLINE256 __m256i el_divide256(__m256i value, int32_t shift)
{
    if (shift == 0) {
        return value;
    }
    const __m256i half = _mm256_set1_epi32(1 << (shift - 1));
    const __m256i up = _mm256_add_epi32(half, _mm256_srai_epi32(value, 31));
    return el_shift256(_mm256_add_epi32(value, up), shift);
}

EL_INLINE256 __m256i el_requantize256(__m256i acc, int32_t multiplier, int32_t shift)
{
    const __m256i m = _mm256_set1_epi32(multiplier), round = _mm256_set1_epi64x(1 << 30);
    acc = _mm256_sll_epi32(acc, _mm_cvtsi32_si128(shift > 0 ? shift : 0));
    const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(acc, m), round);
    const __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(acc, 32), m), round);
    const __m256i high = _mm256_blend_epi32(
        _mm256_srli_epi64(even, 31), _mm256_slli_epi64(odd, 1), 0xAA);
    return el_divide256(high, shift < 0 ? -shift : 0);
}

EL_INLINE256 __m256i el_limit256(__m256i value, int32_t low, int32_t high)
{
    return _mm256_min_epi32(
        _mm256_max_epi32(value, _mm256_set1_epi32(low)), _mm256_set1_epi32(high));
}

EL_INLINE256 __m256i el_s16_256(__m256i value)
{
    return el_limit256(value, -32768, 32767);
}

EL_INLINE256 __m256i el_lookup256(const int16_t *table, __m256i x)
{
    const __m256i pairs = _mm256_i32gather_epi32((const int *)(const void *)table, x, 2);
    return _mm256_srai_epi32(_mm256_slli_epi32(pairs, 16), 16);
}

/* The same for the interchange profiles: the sums of input and hidden state come apart. */
EL_INLINE256 void el_exact256(const el_host_lstm_t *p, int32_t offset, const __m256i input[4],
    const __m256i recurrent[4], int16_t *cell, int8_t *next)
{
    const el_host_exact_t *e = p->exact;
    __m256i gate[4];
    for (int g = 0; g < 4; g++) {
        const int32_t at = offset + 16 * g;
        const __m256i from_input = _mm256_add_epi32(
            input[g], _mm256_loadu_si256((const __m256i *)(p->bias + at)));
        const __m256i from_hidden = _mm256_add_epi32(
            recurrent[g], _mm256_loadu_si256((const __m256i *)(e->hidden_bias + at)));
        const __m256i total = el_s16_256(
            el_requantize256(from_input, e->input_multiplier[g], e->input_shift[g]));
        __m256i term = el_requantize256(from_hidden, e->hidden_multiplier[g], e->hidden_shift[g]);
        if (e->saturated_term) {
            term = el_s16_256(term);
        }
        gate[g] = el_lookup256(
            g == 2 ? e->gate_tanh : e->sigmoid, el_s16_256(_mm256_add_epi32(total, term)));
    }
    const __m256i before = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)cell));
    __m256i kept = _mm256_mullo_epi32(gate[1], before);
    __m256i added = _mm256_mullo_epi32(gate[0], gate[2]);
    if (e->twice_rounded) {
        const __m256i one = _mm256_set1_epi32(1);
        kept = _mm256_srai_epi32(_mm256_add_epi32(kept, one), 1);
        added = _mm256_srai_epi32(_mm256_add_epi32(added, one), 1);
    }
    kept = el_s16_256(el_divide256(kept, e->kept_shift));
    added = el_divide256(added, e->added_shift);
    if (e->saturated_added) {
        added = el_s16_256(added);
    }
    __m256i now = el_s16_256(_mm256_add_epi32(kept, added));
    if (e->clip > 0) {
        now = el_limit256(now, -e->clip, e->clip);
    }
    _mm_storeu_si128((__m128i *)cell,
        _mm_packs_epi32(_mm256_castsi256_si128(now), _mm256_extracti128_si256(now, 1)));
    const __m256i product = el_requantize256(
        _mm256_mullo_epi32(gate[3], el_lookup256(e->cell_tanh, now)), e->product_multiplier,
        e->product_shift);
    const __m256i h = _mm256_add_epi32(product, _mm256_set1_epi32(e->zero_point));
    const __m128i words = _mm_packs_epi32(
        _mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
    _mm_storel_epi64((__m128i *)next, _mm_packs_epi16(words, words));
}

/* sums += weights * 8-bit activations, of eight units at w.
 *
 * A product of two int8 pairs fits 16 bits because |weight| <= 127 and |activation| <= 128. */
EL_INLINE256 void el_dot256(const int8_t *w, const uint8_t *x, int32_t quads, __m256i s[4])
{
    __m256i a = s[0], b = s[1], c = s[2], d = s[3];
    const __m256i one = _mm256_set1_epi16(1);
    for (int32_t k = 0; k < quads; k++, w += 256) {
        int32_t four;
        memcpy(&four, x + 4 * k, 4);
        const __m256i v = _mm256_set1_epi32(four), size = _mm256_abs_epi8(v);
        const __m256i p = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)w), v);
        const __m256i q = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)(w + 64)), v);
        const __m256i r = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)(w + 128)), v);
        const __m256i t = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)(w + 192)), v);
        a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_maddubs_epi16(size, p), one));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(_mm256_maddubs_epi16(size, q), one));
        c = _mm256_add_epi32(c, _mm256_madd_epi16(_mm256_maddubs_epi16(size, r), one));
        d = _mm256_add_epi32(d, _mm256_madd_epi16(_mm256_maddubs_epi16(size, t), one));
    }
    s[0] = a, s[1] = b, s[2] = c, s[3] = d;
}

/* sums += weights * 16-bit activations. */
EL_INLINE256 void el_dot256_wide(const int8_t *w, const uint8_t *x, int32_t pairs, __m256i s[4])
{
    for (int32_t k = 0; k < pairs; k++, w += 128) {
        int32_t two;
        memcpy(&two, x + 4 * k, 4);
        const __m256i v = _mm256_set1_epi32(two);
        for (int g = 0; g < 4; g++) {
            const __m256i wide = _mm256_cvtepi8_epi16(
                _mm_loadu_si128((const __m128i *)(w + 32 * g)));
            s[g] = _mm256_add_epi32(s[g], _mm256_madd_epi16(wide, v));
        }
    }
}

static EL_AVX2 void el_lstm_step_avx2(const el_host_lstm_t *p, const uint8_t *row,
    const uint8_t *hidden, int16_t *cell, int8_t *next)
{
    const __m128i input_shift = _mm_cvtsi32_si128(p->input_shift);
    const __m128i hidden_shift = _mm_cvtsi32_si128(p->hidden_shift);
    for (int32_t half = 0; half < 2 * p->blocks; half++) {
        const int32_t block = half / 2, lane = half & 1, unit = 8 * half;
        if (unit >= p->hidden) {
            break;
        }
        __m256i s[4], h[4];
        for (int g = 0; g < 4; g++) {
            s[g] = _mm256_setzero_si256();
            h[g] = _mm256_setzero_si256();
        }
        if (p->wide) {
            el_dot256_wide(p->input_weights + (int64_t)128 * p->input_groups * block + 16 * lane,
                row, p->input_groups, s);
        } else {
            el_dot256(p->input_weights + (int64_t)256 * p->input_groups * block + 32 * lane, row,
                p->input_groups, s);
        }
        el_dot256(p->hidden_weights + (int64_t)256 * p->hidden_quads * block + 32 * lane, hidden,
            p->hidden_quads, h);
        if (p->exact) {
            el_exact256(p, 64 * block + 8 * lane, s, h, cell + unit, next + unit);
            continue;
        }
        for (int g = 0; g < 4; g++) {
            s[g] = _mm256_add_epi32(
                _mm256_sll_epi32(s[g], input_shift), _mm256_sll_epi32(h[g], hidden_shift));
        }
        el_edge256(p, 64 * block + 8 * lane, s, cell + unit, next + unit);
    }
}

static EL_AVX2 void el_lstm_avx2(const el_host_lstm_t *p, uint8_t *state, int32_t streams,
    int32_t steps, const int8_t *x, int64_t x_stride, int8_t *y, int64_t y_stride,
    uint8_t *scratch)
{
    const int32_t units = EL_UNITS * p->blocks;
    const int64_t step_bytes = (int64_t)p->input * (p->wide ? 2 : 1);
    uint8_t *row = scratch, *before = scratch + el_host_input_bytes(p);
    for (int32_t n = 0; n < streams; n++) {
        uint8_t *own = state + n * el_host_state_bytes(p);
        int8_t *hidden = (int8_t *)own + 2 * units;
        for (int32_t t = 0; t < steps; t++) {
            el_host_row(p, x + n * x_stride + t * step_bytes, 0, row);
            memcpy(before, hidden, (size_t)units);
            el_lstm_step_avx2(p, row, before, (int16_t *)own, hidden);
            memcpy(y + n * y_stride + (int64_t)t * p->hidden, hidden, (size_t)p->hidden);
        }
    }
}

/* end */
#endif
