/* The scalar kernels, and the choice. */
#include "kernels.h"

static int mask_scalar(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key) {
    if (len <= 16)
        return evw__mask_short(dst, src, len, key);
    uint64_t twice = (uint64_t)key << 32 | key, seen = 0;
    size_t i = 0;
    for (; i + 8 <= len; i += 8) {
        uint64_t word = evw__load8(src + i) ^ twice;
        seen |= word;
        memcpy(dst + i, &word, sizeof word);
    }
    return evw__mask_short(dst + i, src + i, len - i, key) | ((seen & EVW_HIGH_BITS) != 0);
}

static size_t ascii_scalar(const uint8_t *p, size_t len) {
    size_t i = 0;
    while (i + 8 <= len && !(evw__load8(p + i) & EVW_HIGH_BITS))
        i += 8;
    return evw__ascii_bytes(p, i, len);
}

static const struct evw_kernels scalar = {"scalar", mask_scalar, ascii_scalar};

static const struct evw_kernels *scalar_kernels(void) { return &scalar; }

const struct evw_kernels *evw_kernels = &scalar;

const char *evw_kernels_select(const char *name) {
    /* Best first. */
    static const struct evw_kernels *(*const sets[])(void) = {evw__kernels_avx2, evw__kernels_sse2, evw__kernels_neon, scalar_kernels};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        const struct evw_kernels *set = sets[i]();
        if (set && (!name || strcmp(name, set->name) == 0)) {
            evw_kernels = set;
            return set->name;
        }
    }
    return NULL;
}
