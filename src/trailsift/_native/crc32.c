/* CRC-32 as zlib computes it, 64 bytes at a time by carry-less multiplication.
 *
 * Source: Gopal et al., Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction (Intel, 2009). The
 * constants are powers of x modulo the polynomial, bits reversed.
 */
#include "crc32.h"
#include "simd.h"

#if SIMD_X86
#include <immintrin.h>
#define CARRY_LESS __attribute__((target("pclmul,sse4.1")))

static uint32_t TABLE[256];

int prepare_crc32(int simd) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t check = byte;
        for (int bit = 0; bit < 8; bit++) check = check >> 1 ^ (check & 1 ? 0xEDB88320 : 0);
        TABLE[byte] = check;
    }
    return simd && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}

CARRY_LESS static inline __m128i folded(__m128i state, __m128i by, __m128i next) {
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(state, by, 0x00), _mm_clmulepi64_si128(state, by, 0x11)),
                         next);
}

CARRY_LESS static inline __m128i load(const char *at) { return _mm_loadu_si128((const __m128i *)at); }

CARRY_LESS uint32_t crc32_of(Slice text) {
    const char *at = text.at;
    size_t size = text.size;
    uint32_t check = 0xFFFFFFFF;
    if (size >= 64) {
        const __m128i by_512 = _mm_set_epi64x(0x1C6E41596, 0x154442BD4);
        const __m128i by_128 = _mm_set_epi64x(0x0CCAA009E, 0x1751997D0);
        const __m128i low_words = _mm_setr_epi32(~0, 0, ~0, 0), polynomial = _mm_set_epi64x(0x1F7011641, 0x1DB710641);
        __m128i a = _mm_xor_si128(load(at), _mm_cvtsi32_si128((int)check)), b = load(at + 16);
        __m128i c = load(at + 32), d = load(at + 48);
        for (at += 64, size -= 64; size >= 64; at += 64, size -= 64) {
            a = folded(a, by_512, load(at));
            b = folded(b, by_512, load(at + 16));
            c = folded(c, by_512, load(at + 32));
            d = folded(d, by_512, load(at + 48));
        }
        a = folded(folded(folded(a, by_128, b), by_128, c), by_128, d);
        for (; size >= 16; at += 16, size -= 16) a = folded(a, by_128, load(at));
        /* 128 bits to 64 to 32. */
        a = _mm_xor_si128(_mm_srli_si128(a, 8), _mm_clmulepi64_si128(a, by_128, 0x10));
        a = _mm_xor_si128(_mm_srli_si128(a, 4),
                          _mm_clmulepi64_si128(_mm_and_si128(a, low_words), _mm_set_epi64x(0, 0x163CD6124), 0x00));
        b = _mm_and_si128(_mm_clmulepi64_si128(_mm_and_si128(a, low_words), polynomial, 0x10), low_words);
        a = _mm_xor_si128(a, _mm_clmulepi64_si128(b, polynomial, 0x00));
        check = (uint32_t)_mm_extract_epi32(a, 1);
    }
    for (; size; size--) check = check >> 8 ^ TABLE[(check ^ (unsigned char)*at++) & 0xFF];
    return ~check;
}
#else
int prepare_crc32(int simd) {
    (void)simd;
    return 0;
}

uint32_t crc32_of(Slice text) {
    (void)text;
    return 0;
}
#endif
