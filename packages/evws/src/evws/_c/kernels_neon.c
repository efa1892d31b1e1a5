#include "kernels.h"

#if defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>

static uint8x16_t keys_of(uint32_t key) { return vreinterpretq_u8_u32(vdupq_n_u32(key)); }

static int mask(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key) {
    if (len <= 16)
        return evw__mask_short(dst, src, len, key);
    const uint8x16_t keys = keys_of(key);
    /* The last vector overlaps what the loop writes, so it is read before. */
    const uint8x16_t last = veorq_u8(vld1q_u8(src + len - 16), keys_of(evw_key_at(key, len - 16)));
    uint8x16_t seen = last;
    size_t i = 0;
    for (; i + 64 <= len; i += 64) {
        uint8x16_t a = veorq_u8(vld1q_u8(src + i), keys), b = veorq_u8(vld1q_u8(src + i + 16), keys);
        uint8x16_t c = veorq_u8(vld1q_u8(src + i + 32), keys), d = veorq_u8(vld1q_u8(src + i + 48), keys);
        vst1q_u8(dst + i, a);
        vst1q_u8(dst + i + 16, b);
        vst1q_u8(dst + i + 32, c);
        vst1q_u8(dst + i + 48, d);
        seen = vorrq_u8(seen, vorrq_u8(vorrq_u8(a, b), vorrq_u8(c, d)));
    }
    for (; i + 16 < len; i += 16) {
        uint8x16_t a = veorq_u8(vld1q_u8(src + i), keys);
        vst1q_u8(dst + i, a);
        seen = vorrq_u8(seen, a);
    }
    vst1q_u8(dst + len - 16, last);
    return vmaxvq_u8(seen) > 0x7f;
}

static size_t ascii(const uint8_t *p, size_t len) {
    size_t i = 0;
    while (i + 16 <= len && vmaxvq_u8(vld1q_u8(p + i)) <= 0x7f)
        i += 16;
    return evw__ascii_bytes(p, i, len);
}

static const struct evw_kernels neon = {"neon", mask, ascii};

const struct evw_kernels *evw__kernels_neon(void) { return &neon; }
#else
const struct evw_kernels *evw__kernels_neon(void) { return NULL; }
#endif
