/* The scanning kernels, one set per implementation, inlined into parser_run.h and into scan.c's functions.
 *
 * Contract of a kernel k(lo, p, end): returns the first byte in [p, end) outside its class, or end; reads only inside [lo, end).
 * `lo <= p` is the lowest readable byte. With it the tail of the input needs no byte loop: the last vector before `end` is loaded,
 * overlapping what was scanned, and the bits of the bytes below p are shifted out.
 *
 * The path kernel also stops at '?'. The token kernel's vectors know letters and '-' only, and the table decides about the rest.
 */
#ifndef EVH_SCAN_KERNELS_H
#define EVH_SCAN_KERNELS_H

#include "scan.h"

#define EVH_INLINE static inline __attribute__((always_inline))

/* -- scalar ----------------------------------------------------------------------------------------------------------- */

EVH_INLINE const uint8_t *evh__value_scalar(const uint8_t *lo, const uint8_t *p, const uint8_t *end)
{
    (void)lo;
    while (p < end && (evh_class[*p] & EVH_C_VALUE))
        p++;
    return p;
}

EVH_INLINE const uint8_t *evh__target_scalar(const uint8_t *lo, const uint8_t *p, const uint8_t *end)
{
    (void)lo;
    while (p < end && (evh_class[*p] & EVH_C_TARGET))
        p++;
    return p;
}

EVH_INLINE const uint8_t *evh__path_scalar(const uint8_t *lo, const uint8_t *p, const uint8_t *end)
{
    (void)lo;
    while (p < end && (evh_class[*p] & EVH_C_TARGET) && *p != '?')
        p++;
    return p;
}

EVH_INLINE const uint8_t *evh__token_scalar(const uint8_t *lo, const uint8_t *p, const uint8_t *end)
{
    (void)lo;
    while (p < end && (evh_class[*p] & EVH_C_TOKEN))
        p++;
    return p;
}

/* -- 16 bytes: SSE2, NEON ---------------------------------------------------------------------------------------------- */

/* A 16-byte implementation supplies a mask function per class: EVH_LANE_BITS bits per byte, set where the byte may end the run. */

#if defined(__SSE2__)
#define EVH_HAVE_SSE2 1
#define EVH_LANE_BITS 1
typedef uint32_t evh_mask16;
#define evh__load16(p) _mm_loadu_si128((const __m128i *)(const void *)(p))

EVH_INLINE evh_mask16 evh__stop_value16(const uint8_t *p)
{
    __m128i v = evh__load16(p);
    __m128i ctl = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
    __m128i bad = _mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\t')), ctl);
    return (uint32_t)_mm_movemask_epi8(_mm_or_si128(bad, _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f))));
}

EVH_INLINE __m128i evh__is_target16(__m128i v)
{
    __m128i t = _mm_sub_epi8(v, _mm_set1_epi8(0x21));
    return _mm_cmpeq_epi8(_mm_min_epu8(t, _mm_set1_epi8(0x7e - 0x21)), t);
}

EVH_INLINE evh_mask16 evh__stop_target16(const uint8_t *p)
{
    return (uint32_t)_mm_movemask_epi8(evh__is_target16(evh__load16(p))) ^ 0xffffu;
}

EVH_INLINE evh_mask16 evh__stop_path16(const uint8_t *p)
{
    __m128i v = evh__load16(p);
    __m128i ok = _mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('?')), evh__is_target16(v));
    return (uint32_t)_mm_movemask_epi8(ok) ^ 0xffffu;
}

EVH_INLINE evh_mask16 evh__stop_token16(const uint8_t *p)
{
    __m128i v = evh__load16(p);
    __m128i t = _mm_sub_epi8(_mm_or_si128(v, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
    __m128i alpha = _mm_cmpeq_epi8(_mm_min_epu8(t, _mm_set1_epi8(25)), t);
    return (uint32_t)_mm_movemask_epi8(_mm_or_si128(alpha, _mm_cmpeq_epi8(v, _mm_set1_epi8('-')))) ^ 0xffffu;
}

#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
#define EVH_HAVE_NEON 1
#define EVH_LANE_BITS 4
typedef uint64_t evh_mask16;

/* NEON has no movemask: narrowing by four bits leaves a nibble per byte. */
EVH_INLINE evh_mask16 evh__nibbles(uint8x16_t m)
{
    return vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(m), 4)), 0);
}

EVH_INLINE evh_mask16 evh__stop_value16(const uint8_t *p)
{
    uint8x16_t v = vld1q_u8(p);
    uint8x16_t bad = vbicq_u8(vcltq_u8(v, vdupq_n_u8(0x20)), vceqq_u8(v, vdupq_n_u8('\t')));
    return evh__nibbles(vorrq_u8(bad, vceqq_u8(v, vdupq_n_u8(0x7f))));
}

EVH_INLINE evh_mask16 evh__stop_target16(const uint8_t *p)
{
    return evh__nibbles(vcgtq_u8(vsubq_u8(vld1q_u8(p), vdupq_n_u8(0x21)), vdupq_n_u8(0x7e - 0x21)));
}

EVH_INLINE evh_mask16 evh__stop_path16(const uint8_t *p)
{
    uint8x16_t v = vld1q_u8(p);
    uint8x16_t out = vcgtq_u8(vsubq_u8(v, vdupq_n_u8(0x21)), vdupq_n_u8(0x7e - 0x21));
    return evh__nibbles(vorrq_u8(out, vceqq_u8(v, vdupq_n_u8('?'))));
}

EVH_INLINE evh_mask16 evh__stop_token16(const uint8_t *p)
{
    uint8x16_t v = vld1q_u8(p);
    uint8x16_t other = vcgtq_u8(vsubq_u8(vorrq_u8(v, vdupq_n_u8(0x20)), vdupq_n_u8('a')), vdupq_n_u8(25));
    return evh__nibbles(vbicq_u8(other, vceqq_u8(v, vdupq_n_u8('-'))));
}
#endif

#if defined(EVH_LANE_BITS)
#define EVH_SKIP16(m) ((unsigned)__builtin_ctzll(m) / EVH_LANE_BITS)

/* `stop` is a constant, so that the call vanishes by inlining. */
EVH_INLINE const uint8_t *evh__scan16(evh_mask16 (*stop)(const uint8_t *), uint8_t bit, const uint8_t *lo, const uint8_t *p,
                                      const uint8_t *end)
{
    evh_mask16 m;
    for (; end - p >= 16; p += 16)
        if ((m = stop(p)) != 0)
            return p + EVH_SKIP16(m);
    if (end - lo >= 16) {
        m = (evh_mask16)(stop(end - 16) >> (unsigned)(16 - (end - p)) * EVH_LANE_BITS % (sizeof m * 8));
        return p == end || m == 0 ? end : p + EVH_SKIP16(m);
    }
    while (p < end && (evh_class[*p] & bit))
        p++;
    return p;
}

EVH_INLINE const uint8_t *evh__value_v16(const uint8_t *lo, const uint8_t *p, const uint8_t *end)
{
    return evh__scan16(evh__stop_value16, EVH_C_VALUE, lo, p, end);
}

EVH_INLINE const uint8_t *evh__target_v16(const uint8_t *lo, const uint8_t *p, const uint8_t *end)
{
    return evh__scan16(evh__stop_target16, EVH_C_TARGET, lo, p, end);
}

EVH_INLINE const uint8_t *evh__path_v16(const uint8_t *lo, const uint8_t *p, const uint8_t *end)
{
    if (end - lo < 16)
        return evh__path_scalar(lo, p, end);
    return evh__scan16(evh__stop_path16, EVH_C_TARGET, lo, p, end);
}

EVH_INLINE const uint8_t *evh__token_v16(const uint8_t *lo, const uint8_t *p, const uint8_t *end)
{
    for (;;) {
        p = evh__scan16(evh__stop_token16, EVH_C_TOKEN, lo, p, end);
        if (__builtin_expect(p == end || !(evh_class[*p] & EVH_C_TOKEN), 1))
            return p;
        p++;
    }
}
#endif

/* -- 32 bytes: AVX2, for values and targets; names are shorter than a vector ---------------------------------------------- */

#if defined(__x86_64__) && defined(EVH_HAVE_SSE2)
#include <immintrin.h>
#define EVH_HAVE_AVX2 1
#define EVH_AVX2 __attribute__((target("avx2,bmi")))
#define EVH_INLINE_AVX2 EVH_AVX2 static inline __attribute__((always_inline))

EVH_INLINE_AVX2 uint32_t evh__stop_value32(const uint8_t *p)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)p);
    __m256i ctl = _mm256_cmpeq_epi8(_mm256_min_epu8(v, _mm256_set1_epi8(0x1f)), v);
    __m256i bad = _mm256_andnot_si256(_mm256_cmpeq_epi8(v, _mm256_set1_epi8('\t')), ctl);
    return (uint32_t)_mm256_movemask_epi8(_mm256_or_si256(bad, _mm256_cmpeq_epi8(v, _mm256_set1_epi8(0x7f))));
}

EVH_INLINE_AVX2 uint32_t evh__stop_target32(const uint8_t *p)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)p);
    __m256i t = _mm256_sub_epi8(v, _mm256_set1_epi8(0x21));
    return ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_min_epu8(t, _mm256_set1_epi8(0x7e - 0x21)), t));
}

EVH_INLINE_AVX2 const uint8_t *evh__value_avx2(const uint8_t *lo, const uint8_t *p, const uint8_t *end)
{
    uint32_t m;
    for (; end - p >= 32; p += 32)
        if ((m = evh__stop_value32(p)) != 0)
            return p + __builtin_ctz(m);
    if (p < end && end - lo >= 32) {
        m = evh__stop_value32(end - 32) >> (32 - (end - p));
        return m == 0 ? end : p + __builtin_ctz(m);
    }
    return evh__value_v16(lo, p, end);
}

EVH_INLINE_AVX2 const uint8_t *evh__target_avx2(const uint8_t *lo, const uint8_t *p, const uint8_t *end)
{
    uint32_t m;
    for (; end - p >= 32; p += 32)
        if ((m = evh__stop_target32(p)) != 0)
            return p + __builtin_ctz(m);
    return evh__target_v16(lo, p, end);
}
#endif

#endif
