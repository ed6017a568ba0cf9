#ifndef EL_HOST_CALL_H
#define EL_HOST_CALL_H
#include "el_host_portable.h"
/* begin */

/* Which kernels this processor runs: 0 portable; 1 AVX2, 2 AVX-512 with VNNI; on Arm, 1 NEON with
 * dot products, 2 SVE where its vectors are longer than NEON's. */
static int32_t el_host_best(void)
{
#ifdef EL_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
        return 2;
    }
    if (__builtin_cpu_supports("avx2")) {
        return 1;
    }
#endif
#ifdef EL_NEON
    const unsigned long found = getauxval(AT_HWCAP);
#ifdef EL_SVE
    if ((found & (1ul << 22)) && el_sve_bytes() > 16) { /* HWCAP_SVE */
        return 2;
    }
#endif
    if (found & (1ul << 20)) { /* HWCAP_ASIMDDP */
        return 1;
    }
#endif
    return 0;
}

static void el_host_lstm(const el_host_lstm_t *p, int32_t level, uint8_t *state, int32_t streams,
    int32_t steps, const int8_t *x, int64_t x_stride, int8_t *y, int64_t y_stride,
    uint8_t *scratch)
{
#ifdef EL_X86
    if (level == 2) {
        el_lstm_avx512(p, state, streams, steps, x, x_stride, y, y_stride, scratch);
        return;
    }
    if (level == 1) {
        el_lstm_avx2(p, state, streams, steps, x, x_stride, y, y_stride, scratch);
        return;
    }
#endif
#ifdef EL_NEON
#ifdef EL_SVE
    if (level == 2) {
        el_lstm_neon(p, el_dot_sve, state, streams, steps, x, x_stride, y, y_stride, scratch);
        return;
    }
#endif
    if (level == 1) {
        el_lstm_neon(p, el_dot_neon, state, streams, steps, x, x_stride, y, y_stride, scratch);
        return;
    }
#endif
    (void)level;
    el_lstm_portable(p, state, streams, steps, x, x_stride, y, y_stride, scratch);
}

/* end */
#endif
