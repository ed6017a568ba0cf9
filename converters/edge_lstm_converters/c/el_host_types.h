#ifndef EL_HOST_TYPES_H
#define EL_HOST_TYPES_H
/* begin */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#define EL_EXPORT __declspec(dllexport)
#else
#define EL_EXPORT __attribute__((visibility("default")))
#endif
#define EL_LINE __attribute__((aligned(64)))
/* A host has a libc for the compiler to call. */
#define EL_LOOP (void)0

#if defined(__x86_64__) && !defined(EL_PORTABLE)
#define EL_X86
#include <immintrin.h>
#endif
#if defined(__aarch64__) && defined(__linux__) && !defined(EL_PORTABLE)
#define EL_NEON
#include <arm_neon.h>
#include <sys/auxv.h>
/* Compilers that know SVE in one function of a file that is for processors without it. */
#if defined(__clang_major__) ? __clang_major__ >= 18 : __GNUC__ >= 11
#define EL_SVE
#include <arm_sve.h>
#endif
#endif

/* end */
#endif
