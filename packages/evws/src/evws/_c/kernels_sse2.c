#include "kernels.h"

#if defined(__SSE2__)
#include <emmintrin.h>

static __m128i load(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
static void store(uint8_t *p, __m128i v) { _mm_storeu_si128((__m128i *)(void *)p, v); }

static int mask(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key) {
    if (len <= 16)
        return evw__mask_short(dst, src, len, key);
    const __m128i keys = _mm_set1_epi32((int)key);
    /* The last vector overlaps what the loop writes, so it is read before. */
    const __m128i last = _mm_xor_si128(load(src + len - 16), _mm_set1_epi32((int)evw_key_at(key, len - 16)));
    __m128i seen = last;
    size_t i = 0;
    for (; i + 64 <= len; i += 64) {
        __m128i a = _mm_xor_si128(load(src + i), keys), b = _mm_xor_si128(load(src + i + 16), keys);
        __m128i c = _mm_xor_si128(load(src + i + 32), keys), d = _mm_xor_si128(load(src + i + 48), keys);
        store(dst + i, a);
        store(dst + i + 16, b);
        store(dst + i + 32, c);
        store(dst + i + 48, d);
        seen = _mm_or_si128(seen, _mm_or_si128(_mm_or_si128(a, b), _mm_or_si128(c, d)));
    }
    for (; i + 16 < len; i += 16) {
        __m128i a = _mm_xor_si128(load(src + i), keys);
        store(dst + i, a);
        seen = _mm_or_si128(seen, a);
    }
    store(dst + len - 16, last);
    return _mm_movemask_epi8(seen) != 0;
}

static size_t ascii(const uint8_t *p, size_t len) {
    size_t i = 0;
    for (; i + 16 <= len; i += 16) {
        unsigned high = (unsigned)_mm_movemask_epi8(load(p + i));
        if (high)
            return i + (unsigned)__builtin_ctz(high);
    }
    return evw__ascii_bytes(p, i, len);
}

static const struct evw_kernels sse2 = {"sse2", mask, ascii};

const struct evw_kernels *evw__kernels_sse2(void) { return &sse2; }
#else
const struct evw_kernels *evw__kernels_sse2(void) { return NULL; }
#endif
