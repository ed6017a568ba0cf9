#ifndef EL_LOOP_H
#define EL_LOOP_H
/* begin */

/* In a loop that fills or copies: GCC and Clang make no call of memset or memcpy of it. */
#if defined(EL_LOOP)
#elif defined(__GNUC__)
#define EL_LOOP __asm__ volatile("" ::: "memory")
#else
#define EL_LOOP (void)0
#endif

/* end */
#endif
