/* The two loops that every payload runs through: masking, and skipping ASCII.
 *
 * There is a set of them for each kind of CPU, each in a file of its own; which one runs is settled once, by evw_kernels_select().
 * Before that call it is the scalar one. No kernel reads or writes outside of what it is given.
 */
#ifndef EVW_KERNELS_H
#define EVW_KERNELS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct evw_kernels {
    const char *name;
    /* RFC 6455 §5.3: dst[i] = src[i] ^ key[i % 4], the key as its four bytes lie in memory. dst is src, or does not overlap it.
     * Not 0 when a byte of the result is above 0x7f: text without one is UTF-8 and needs no second look. */
    int (*mask)(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key);
    /* How many bytes at the beginning are at most 0x7f. */
    size_t (*ascii)(const uint8_t *p, size_t len);
};

extern const struct evw_kernels *evw_kernels; /* the set in force */

/* Chooses "scalar", "sse2", "avx2", "neon", or with NULL the best that this CPU has. Returns the name of the set now in force, or NULL,
 * changing nothing, when `name` is unknown or cannot run here. Not thread-safe: called at import, and by tests. */
const char *evw_kernels_select(const char *name);

/* Each of these is NULL where it was not compiled or cannot run. */
const struct evw_kernels *evw__kernels_sse2(void);
const struct evw_kernels *evw__kernels_avx2(void);
const struct evw_kernels *evw__kernels_neon(void);

/* The key as it stands n bytes further on. Two of them side by side are the same eight bytes in memory on every machine. */
static inline uint32_t evw_key_at(uint32_t key, size_t n) {
    uint64_t twice = (uint64_t)key << 32 | key;
    uint32_t turned;
    memcpy(&turned, (const uint8_t *)&twice + (n & 3), sizeof turned);
    return turned;
}

static inline uint64_t evw__load8(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

static inline uint32_t evw__load4(const uint8_t *p) {
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

#define EVW_HIGH_BITS UINT64_C(0x8080808080808080)

/* Up to 16 bytes: two words that overlap, both read before either is written, because dst may be src. */
static inline int evw__mask_short(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key) {
    if (len >= 8) {
        uint64_t first_key = (uint64_t)key << 32 | key, last_key = evw_key_at(key, len - 8);
        uint64_t first = evw__load8(src) ^ first_key;
        uint64_t last = evw__load8(src + len - 8) ^ (last_key << 32 | last_key);
        memcpy(dst, &first, sizeof first);
        memcpy(dst + len - 8, &last, sizeof last);
        return ((first | last) & EVW_HIGH_BITS) != 0;
    }
    if (len >= 4) {
        uint32_t first = evw__load4(src) ^ key;
        uint32_t last = evw__load4(src + len - 4) ^ evw_key_at(key, len - 4);
        memcpy(dst, &first, sizeof first);
        memcpy(dst + len - 4, &last, sizeof last);
        return ((first | last) & (uint32_t)EVW_HIGH_BITS) != 0;
    }
    uint8_t bytes[4], seen = 0;
    memcpy(bytes, &key, sizeof bytes);
    for (size_t i = 0; i < len; i++)
        seen |= dst[i] = src[i] ^ bytes[i];
    return seen > 0x7f;
}

static inline size_t evw__ascii_bytes(const uint8_t *p, size_t from, size_t len) {
    while (from < len && p[from] <= 0x7f)
        from++;
    return from;
}

#endif
