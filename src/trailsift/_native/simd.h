/* Which instructions may be chosen at run time.
 *
 * A package is built once for all processors of a kind, so what only newer ones have (AVX2, carry-less multiplication)
 * is compiled into functions of their own, and used if the processor has it. TRAILSIFT_SIMD=0 in the environment leaves
 * it unused, so that both ways can be tested on one machine.
 */
#ifndef TRAILSIFT_SIMD_H
#define TRAILSIFT_SIMD_H

/* SSE2 is part of x86-64; the rest is chosen by GCC's and Clang's means. */
#if defined(__GNUC__) && defined(__x86_64__) && defined(__SSE2__)
#define SIMD_X86 1
#else
#define SIMD_X86 0
#endif

#endif
