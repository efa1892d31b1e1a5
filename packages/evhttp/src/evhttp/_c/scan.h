/* Scanning: how far does a run of harmless bytes reach?
 *
 * The rule: an accelerator only skips bytes that are known to be safe; the table `evh_class` decides about every other byte.
 * Which accelerator runs is settled once, by evh_scan_select(); before that call the best one that every machine of this
 * architecture has is in force (SSE2 on x86-64, NEON on aarch64, else scalar).
 *
 * No function here reads outside [p, end).
 */
#ifndef EVH_SCAN_H
#define EVH_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Bits of evh_class[byte]. */
enum {
    EVH_C_TOKEN = 1,   /* RFC 9110 5.6.2 tchar */
    EVH_C_VALUE = 2,   /* RFC 9110 5.5 field-vchar, SP and HTAB: VCHAR, obs-text */
    EVH_C_TARGET = 4,  /* what a request-target may hold: 0x21 to 0x7E; see the policy block in parser.c */
    EVH_C_REGNAME = 8, /* RFC 3986 3.2.2 unreserved and sub-delims, without the comma */
    EVH_C_HEX = 16,
    EVH_C_DIGIT = 32,
    EVH_C_QUOTED = 64, /* RFC 9110 5.6.4 qdtext */
};
extern const uint8_t evh_class[256];

/* Chooses the implementation: "scalar", "sse2", "avx2", "neon", or NULL for the best that this CPU has. Returns the name of the
 * one now in force, or NULL, changing nothing, when `name` is unknown or cannot run here. Call it at import, before any thread
 * parses; it is not thread-safe. */
const char *evh_scan_select(const char *name);
const char *evh_scan_impl_name(void);

/* Each returns the first byte in [p, end) that does not belong to the class, or `end`. */
const uint8_t *evh_scan_value(const uint8_t *p, const uint8_t *end);
const uint8_t *evh_scan_target(const uint8_t *p, const uint8_t *end);
const uint8_t *evh_scan_token(const uint8_t *p, const uint8_t *end);

enum evh_scan_impl { EVH_IMPL_SCALAR, EVH_IMPL_SSE2, EVH_IMPL_AVX2, EVH_IMPL_NEON, EVH_IMPL_COUNT };
extern enum evh_scan_impl evh__scan_impl; /* the index in force; parser.c picks its loop by it */

/* Eight ASCII letters to lower case at once, other bytes as they are. */
static inline uint64_t evh__lower8(uint64_t x)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t low7 = x & (0x7f * ones);
    uint64_t at_least_a = low7 + (0x80 - 'A') * ones;
    uint64_t above_z = low7 + (0x7f - 'Z') * ones;
    uint64_t upper = ~x & (at_least_a ^ above_z) & (0x80 * ones);
    return x | upper >> 2;
}

static inline void evh__lower_copy8(uint8_t *dst, const uint8_t *src)
{
    uint64_t x;
    memcpy(&x, src, 8);
    x = evh__lower8(x);
    memcpy(dst, &x, 8);
}

static inline void evh__lower_copy4(uint8_t *dst, const uint8_t *src)
{
    uint32_t x;
    memcpy(&x, src, 4);
    x = (uint32_t)evh__lower8(x);
    memcpy(dst, &x, 4);
}

#if defined(__SSE2__)
static inline void evh__lower_copy16(uint8_t *dst, const uint8_t *src)
{
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)src);
    __m128i t = _mm_sub_epi8(v, _mm_set1_epi8('A'));
    __m128i upper = _mm_cmpeq_epi8(_mm_min_epu8(t, _mm_set1_epi8(25)), t);
    _mm_storeu_si128((__m128i *)(void *)dst, _mm_or_si128(v, _mm_and_si128(upper, _mm_set1_epi8(0x20))));
}
#else
static inline void evh__lower_copy16(uint8_t *dst, const uint8_t *src)
{
    evh__lower_copy8(dst, src);
    evh__lower_copy8(dst + 8, src + 8);
}
#endif

/* Copies n bytes with ASCII letters in lower case. Inline, because n is 4 to 20 as a rule: then it is two loads that overlap.
 * dst and src do not overlap. */
static inline void evh_lower_copy(uint8_t *dst, const uint8_t *src, size_t n)
{
    if (n >= 16) {
        size_t i = 0;
        for (; i + 16 <= n; i += 16)
            evh__lower_copy16(dst + i, src + i);
        if (i < n)
            evh__lower_copy16(dst + n - 16, src + n - 16);
    } else if (n >= 8) {
        evh__lower_copy8(dst, src);
        evh__lower_copy8(dst + n - 8, src + n - 8);
    } else if (n >= 4) {
        evh__lower_copy4(dst, src);
        evh__lower_copy4(dst + n - 4, src + n - 4);
    } else {
        for (size_t i = 0; i < n; i++)
            dst[i] = (uint8_t)(src[i] | ((uint8_t)(src[i] - 'A') < 26u) << 5);
    }
}

#endif
