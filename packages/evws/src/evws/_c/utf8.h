/* UTF-8 (RFC 3629), checked as it comes: an impossible byte is noticed in the piece that it comes in, wherever pieces are cut. */
#ifndef EVW_UTF8_H
#define EVW_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* The state between two pieces; text may end only in this one. */
enum { EVW_UTF8_START = 0 };

/* Takes the next piece. Returns 0 when no text can begin with what has come so far, else 1. */
int evw_utf8_feed(uint8_t *state, const uint8_t *p, size_t len);

#endif
