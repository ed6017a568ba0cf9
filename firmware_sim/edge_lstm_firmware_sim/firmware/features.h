/* Included before every file of a package: refuses a compiler that silently lacks what the core
 * has, since the code would be right and several times slower. */
#if defined(EDGE_LSTM_WANTS_ARMV6M) && !defined(__ARM_ARCH_6M__)
#error "this compiler does not build for Armv6-M"
#endif
#if defined(EDGE_LSTM_WANTS_ARMV7M) && !defined(__ARM_ARCH_7M__)
#error "this compiler does not build for Armv7-M"
#endif
#if defined(EDGE_LSTM_WANTS_DSP) && !(defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32))
#error "the DSP instructions of this core are not switched on"
#endif
#if defined(EDGE_LSTM_WANTS_MVE) && !(defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1))
#error "the Helium instructions of this core are not switched on"
#endif
#if defined(EDGE_LSTM_WANTS_RV32IMC) && \
    !(defined(__riscv_mul) && defined(__riscv_compressed) && __riscv_xlen == 32)
#error "this compiler does not build for RV32IMC"
#endif
