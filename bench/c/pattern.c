/* The bytes of all messages. */
#include "pattern.h"

#include <stdio.h>
#include <string.h>

uint8_t pattern[PATTERN_SPAN + PATTERN_LIMIT];
uint64_t pattern_mask = UINT64_MAX;

static uint64_t x = 0x9e3779b97f4a7c15u;

static uint32_t next(void)
{
    x ^= x << 13, x ^= x >> 7, x ^= x << 17; /* Marsaglia's xorshift: the same bytes in every run */
    return (uint32_t)(x >> 32);
}

void pattern_fill(void)
{
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (uint8_t)next();
}

void pattern_fill_json(void)
{
    static const char *const names[] = {"alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"};
    for (size_t at = 0; at < sizeof pattern;) {
        char item[128];
        size_t left = sizeof pattern - at;
        int size = snprintf(item, sizeof item, "{\"id\": %u, \"name\": \"%s\", \"price\": %u.%02u, \"active\": %s}, ", next() % 1000000,
                            names[next() % 8], next() % 100, next() % 100, next() & 1 ? "true" : "false");
        memcpy(pattern + at, item, (size_t)size < left ? (size_t)size : left);
        at += (size_t)size;
    }
    pattern_mask = ~(uint64_t)1023;
}
