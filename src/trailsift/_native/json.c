/* JSON without blanks, as CloudTrail writes it: where strings, numbers and values end, and the members of objects.
 *
 * Every function takes the end of the text, and reads no byte at or behind it. Nothing relies on a terminator, so a
 * text may be any part of any buffer. What is not strictly valid gives NULL, and Python decides what it is.
 */
#include "json.h"
#include "simd.h"

enum { PLAIN, QUOTE, ESCAPE, CONTROL, HIGH };
static unsigned char KIND[256];

#if SIMD_X86
#include <immintrin.h>

static int use_avx2;

/* Return a bit for each of the 16 bytes at `at`: 1 if it is not plain. */
static inline unsigned others_in_16(const char *at) {
    __m128i bytes = _mm_loadu_si128((const __m128i *)at);
    /* The comparison is signed: bytes above 127 are below 32 too. */
    __m128i others = _mm_or_si128(
        _mm_cmplt_epi8(bytes, _mm_set1_epi8(32)),
        _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'))));
    return (unsigned)_mm_movemask_epi8(others);
}

static inline uint32_t others_in_32(const char *at) { return others_in_16(at) | others_in_16(at + 16) << 16; }

/* Return the first byte that is not plain, or where fewer than 32 bytes are left. */
__attribute__((target("avx2"))) static const char *skip_plain_avx2(const char *at, const char *end) {
    const __m256i control = _mm256_set1_epi8(32), quote = _mm256_set1_epi8('"'), escape = _mm256_set1_epi8('\\');
    for (; end - at >= 32; at += 32) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)at);
        __m256i others =
            _mm256_or_si256(_mm256_cmpgt_epi8(control, bytes),
                            _mm256_or_si256(_mm256_cmpeq_epi8(bytes, quote), _mm256_cmpeq_epi8(bytes, escape)));
        unsigned mask = (unsigned)_mm256_movemask_epi8(others);
        if (mask) return at + __builtin_ctz(mask);
    }
    return at;
}
#endif

void prepare_json(int simd) {
    memset(KIND, CONTROL, 32);
    memset(KIND + 128, HIGH, 128);
    KIND['"'] = QUOTE;
    KIND['\\'] = ESCAPE;
#if SIMD_X86
    use_avx2 = simd && __builtin_cpu_supports("avx2");
#else
    (void)simd;
#endif
}

static inline unsigned char kind_of(const char *at) { return KIND[(unsigned char)*at]; }

static int is_hex(char sign) {
    return (sign >= '0' && sign <= '9') || (sign >= 'a' && sign <= 'f') || (sign >= 'A' && sign <= 'F');
}

/* Return the first byte that is not plain, or `end`. */
static inline const char *plain_end(const char *at, const char *end) {
#if SIMD_X86
    while (end - at >= 32) {
        uint32_t others = others_in_32(at);
        if (others) return at + __builtin_ctz(others);
        at += 32;
        /* Most strings end before this; for a long one the call is worth it. */
        if (use_avx2) at = skip_plain_avx2(at, end);
    }
#endif
    while (at < end && kind_of(at) == PLAIN) at++;
    return at;
}

const char *string_end(const char *at, const char *end, int *flags) {
    for (;;) {
        at = plain_end(at, end);
        if (at == end) return NULL;
        if (*at == '"') return at;
        switch (kind_of(at)) {
            case HIGH:
                *flags |= HAS_HIGH;
                at++;
                break;
            case ESCAPE:
                *flags |= HAS_ESCAPE;
                switch (peek(at + 1, end)) {
                    case '"':
                    case '\\':
                    case '/':
                    case 'b':
                    case 'f':
                    case 'n':
                    case 'r':
                    case 't':
                        at += 2;
                        break;
                    case 'u':
                        if (end - at < 6 || !is_hex(at[2]) || !is_hex(at[3]) || !is_hex(at[4]) || !is_hex(at[5]))
                            return NULL;
                        at += 6;
                        break;
                    default:
                        return NULL;
                }
                break;
            default:
                return NULL;
        }
    }
}

const char *digits_end(const char *at, const char *end) {
    const char *start = at;
    while (at < end && *at >= '0' && *at <= '9') at++;
    return at > start ? at : NULL;
}

static const char *number_end(const char *at, const char *end) {
    if (peek(at, end) == '-') at++;
    const char *first = at;
    if (peek(at, end) == '0')
        at++;
    else if ((at = digits_end(at, end)) == NULL || at - first > DIGITS_LIMIT)
        return NULL;
    if (peek(at, end) == '.' && (at = digits_end(at + 1, end)) == NULL) return NULL;
    if (peek(at, end) == 'e' || peek(at, end) == 'E') {
        at++;
        if (peek(at, end) == '+' || peek(at, end) == '-') at++;
        at = digits_end(at, end);
    }
    return at;
}

/* Return the value of the member whose name begins at `at`: behind the name and its colon. NULL if there is none. */
static inline const char *member_value(const char *at, const char *end, int *flags, Slice *name) {
    if (peek(at, end) != '"') return NULL;
    int has = 0;
    const char *quote = string_end(at + 1, end, &has);
    if (quote == NULL || peek(quote + 1, end) != ':') return NULL;
    *flags |= has | (has & HAS_ESCAPE ? HAS_ESCAPED_NAME : 0);
    *name = (Slice){at + 1, (size_t)(quote - at - 1)};
    return quote + 2;
}

static const char *other_end(const char *at, const char *end, int depth, int *flags);

/* As value_end. Most values are strings: they take the short way. */
static inline const char *any_end(const char *at, const char *end, int depth, int *flags) {
    if (peek(at, end) != '"') return other_end(at, end, depth, flags);
    at = string_end(at + 1, end, flags);
    return at == NULL ? NULL : at + 1;
}

/* As value_end, for what is not a string. */
static const char *other_end(const char *at, const char *end, int depth, int *flags) {
    Slice name;
    switch (peek(at, end)) {
        case '{':
            if (depth == 0) return NULL;
            if (peek(++at, end) == '}') return at + 1;
            for (;;) {
                if ((at = member_value(at, end, flags, &name)) == NULL) return NULL;
                if ((at = any_end(at, end, depth - 1, flags)) == NULL) return NULL;
                if (peek(at, end) == '}') return at + 1;
                if (peek(at++, end) != ',') return NULL;
            }
        case '[':
            if (depth == 0) return NULL;
            if (peek(++at, end) == ']') return at + 1;
            for (;;) {
                if ((at = any_end(at, end, depth - 1, flags)) == NULL) return NULL;
                if (peek(at, end) == ']') return at + 1;
                if (peek(at++, end) != ',') return NULL;
            }
        case 't':
            return STARTS(at, end, "true") ? at + 4 : NULL;
        case 'n':
            return STARTS(at, end, "null") ? at + 4 : NULL;
        case 'f':
            return STARTS(at, end, "false") ? at + 5 : NULL;
        default:
            return number_end(at, end);
    }
}

const char *value_end(const char *at, const char *end, int depth, int *flags) { return any_end(at, end, depth, flags); }

const char *object_end(const char *at, const char *end, int *flags, Parts *parts) {
    parts->count = 0;
    if (peek(at, end) != '{') return NULL;
    if (peek(++at, end) == '}') return at + 1;
    for (;;) {
        Member member = {.flags = 0};
        const char *value = member_value(at, end, flags, &member.name);
        if (value == NULL) return NULL;
        at = any_end(value, end, DEPTH_LIMIT - 1, &member.flags);
        if (at == NULL) return NULL;
        member.value = (Slice){value, (size_t)(at - value)};
        *flags |= member.flags;
        if (parts->count >= 0 && parts->count < PARTS)
            parts->at[parts->count++] = member;
        else
            parts->count = -1;
        if (peek(at, end) == '}') return at + 1;
        if (peek(at++, end) != ',') return NULL;
    }
}

const char *next_member(const char *at, const char *end, Member *member) {
    int flags = 0;
    if (peek(at, end) == ',' || peek(at, end) == '{') at++;
    const char *value = member_value(at, end, &flags, &member->name);
    if (value == NULL) return NULL;
    member->flags = 0;
    const char *behind = any_end(value, end, DEPTH_LIMIT, &member->flags);
    if (behind == NULL) return NULL;
    member->value = (Slice){value, (size_t)(behind - value)};
    return behind;
}

int is_utf8(const char *text, const char *end) {
    const unsigned char *at = (const unsigned char *)text, *last = (const unsigned char *)end;
    while (at < last) {
        unsigned char lead = *at++;
        if (lead < 0x80) continue;
        int following = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
        if (lead < 0xC2 || lead > 0xF4 || last - at < following) return 0;
        if ((lead == 0xE0 && *at < 0xA0) || (lead == 0xED && *at > 0x9F)) return 0;
        if ((lead == 0xF0 && *at < 0x90) || (lead == 0xF4 && *at > 0x8F)) return 0;
        while (following--)
            if ((*at++ & 0xC0) != 0x80) return 0;
    }
    return 1;
}

const char *find(const char *at, const char *end, const char *what, size_t size) {
#if SIMD_X86
    /* Places where both its first and its last byte match are few. */
    const __m128i first = _mm_set1_epi8(what[0]), last = _mm_set1_epi8(what[size - 1]);
    for (; end - at >= (ptrdiff_t)size + 15; at += 16) {
        __m128i begins = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)at), first);
        __m128i ends = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(at + size - 1)), last);
        for (int mask = _mm_movemask_epi8(_mm_and_si128(begins, ends)); mask; mask &= mask - 1) {
            const char *here = at + __builtin_ctz((unsigned)mask);
            if (memcmp(here, what, size) == 0) return here;
        }
    }
#endif
    while ((size_t)(end - at) >= size && (at = memchr(at, what[0], (size_t)(end - at) - size + 1)) != NULL) {
        if (memcmp(at, what, size) == 0) return at;
        at++;
    }
    return NULL;
}
