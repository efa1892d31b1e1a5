#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,bmi")))

AVX2 static __m256i load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
AVX2 static void store(uint8_t *p, __m256i v) { _mm256_storeu_si256((__m256i *)(void *)p, v); }

/* 17 to 32 bytes: two vectors that overlap, as in evw__mask_short. */
AVX2 static int mask_two(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key) {
    __m128i first = _mm_loadu_si128((const __m128i *)(const void *)src);
    __m128i last = _mm_loadu_si128((const __m128i *)(const void *)(src + len - 16));
    first = _mm_xor_si128(first, _mm_set1_epi32((int)key));
    last = _mm_xor_si128(last, _mm_set1_epi32((int)evw_key_at(key, len - 16)));
    _mm_storeu_si128((__m128i *)(void *)dst, first);
    _mm_storeu_si128((__m128i *)(void *)(dst + len - 16), last);
    return _mm_movemask_epi8(_mm_or_si128(first, last)) != 0;
}

AVX2 static int mask(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key) {
    if (len <= 16)
        return evw__mask_short(dst, src, len, key);
    if (len <= 32)
        return mask_two(dst, src, len, key);
    const __m256i keys = _mm256_set1_epi32((int)key);
    /* The last vector overlaps what the loop writes, so it is read before. */
    const __m256i last = _mm256_xor_si256(load(src + len - 32), _mm256_set1_epi32((int)evw_key_at(key, len - 32)));
    __m256i seen = last;
    size_t i = 0;
    for (; i + 128 <= len; i += 128) {
        __m256i a = _mm256_xor_si256(load(src + i), keys), b = _mm256_xor_si256(load(src + i + 32), keys);
        __m256i c = _mm256_xor_si256(load(src + i + 64), keys), d = _mm256_xor_si256(load(src + i + 96), keys);
        store(dst + i, a);
        store(dst + i + 32, b);
        store(dst + i + 64, c);
        store(dst + i + 96, d);
        seen = _mm256_or_si256(seen, _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d)));
    }
    for (; i + 32 < len; i += 32) {
        __m256i a = _mm256_xor_si256(load(src + i), keys);
        store(dst + i, a);
        seen = _mm256_or_si256(seen, a);
    }
    store(dst + len - 32, last);
    return _mm256_movemask_epi8(seen) != 0;
}

AVX2 static size_t ascii(const uint8_t *p, size_t len) {
    size_t i = 0;
    for (; i + 32 <= len; i += 32) {
        unsigned high = (unsigned)_mm256_movemask_epi8(load(p + i));
        if (high)
            return i + (unsigned)__builtin_ctz(high);
    }
    return evw__ascii_bytes(p, i, len);
}

static const struct evw_kernels avx2 = {"avx2", mask, ascii};

const struct evw_kernels *evw__kernels_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") ? &avx2 : NULL;
}
#else
const struct evw_kernels *evw__kernels_avx2(void) { return NULL; }
#endif
