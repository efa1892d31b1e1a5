/* The bytes that are sent: random, and other ones on each connection in each exchange, without anything being copied. */
#ifndef BENCH_PATTERN_H
#define BENCH_PATTERN_H

#include <stddef.h>
#include <stdint.h>

enum { PATTERN_LIMIT = 1 << 20, PATTERN_SPAN = 1 << 16 };

extern uint8_t pattern[PATTERN_SPAN + PATTERN_LIMIT];
extern uint64_t pattern_mask; /* of the offsets that are used */

/* Call once, before the first message. */
void pattern_fill(void);

/* Instead: text that looks like JSON, and only 64 different messages, for whoever has to prepare each. */
void pattern_fill_json(void);

/* The message of a connection's exchange: up to PATTERN_LIMIT bytes. */
static inline const uint8_t *pattern_at(uint64_t connection, uint64_t exchange)
{
    return pattern + ((connection * 7919 + exchange * 131) % PATTERN_SPAN & pattern_mask);
}

#endif
