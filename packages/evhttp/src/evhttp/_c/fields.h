/* What the parser's files share: the semantic checks behind the syntax. */
#ifndef EVH_FIELDS_H
#define EVH_FIELDS_H

#include <string.h>

#include "parser.h"

/* evh_parser.seen: what the fields so far have said. The rules are in fields.c. */
enum {
    EVH_SEEN_CONTENT_TYPE = 1,
    EVH_SEEN_CLOSE = 2,
    EVH_SEEN_KEEP_ALIVE = 4,
    EVH_SEEN_CONN_UPGRADE = 8,
    EVH_SEEN_UPGRADE = 16,
    EVH_SEEN_TE = 32,         /* a Transfer-Encoding field */
    EVH_SEEN_TE_OTHER = 64,   /* a coding other than chunked */
    EVH_SEEN_TE_CHUNKED = 128, /* chunked, and nothing behind it so far */
    EVH_SEEN_RESPONSE = 256,   /* it is a response's head: set at the beginning */
};

/* What answers a target in none of the four forms, such as "GET index.html". RFC 9112 3: "Recipients of an invalid request-line
 * SHOULD respond with either a 400 (Bad Request) error or a 301 (Moved Permanently) redirect"; but of the conformance tables one
 * wants such a request answered as a good one, another wants it refused, for the same shape. 404 and a closed connection is the
 * one answer that both take: the target names nothing on this server, and no handler ever sees it. */
#define EVH_STATUS_RELATIVE_TARGET 404

/* Records the error; returns EVH_BAD. */
int evh__bad(struct evh_parser *ps, uint16_t status, const char *reason);

/* A name of one of these lengths may be a field that the parser has to understand: a filter before evh__field(). */
#define EVH_KNOWN_LENGTHS (1u << 4 | 1u << 6 | 1u << 7 | 1u << 10 | 1u << 12 | 1u << 14 | 1u << 17)

/* Looks at one complete field. Returns EVH_MORE, or EVH_BAD. */
int evh__field(struct evh_parser *ps, const struct evh_limits *limits, const uint8_t *buf, const struct evh_field *f);

/* Draws the conclusions at the end of the head. Returns EVH_DONE or EVH_BAD. */
int evh__head_done(struct evh_parser *ps);

/* The same for a response; evh__head_done() calls it. */
int evh__response_done(struct evh_parser *ps);

/* Goes on with the header section, which begins at ps->pos. */
void evh__parser_at_fields(struct evh_parser *ps);

/* Sets ps->method from the token. Returns EVH_MORE or EVH_BAD. */
int evh__method(struct evh_parser *ps, const struct evh_limits *limits, const uint8_t *name, size_t len);

/* Decides on a target that is not a plain origin-form; `query` is the offset of the first '?' or the target's end. */
int evh__target(struct evh_parser *ps, const uint8_t *buf, uint32_t query);

/* Is [p, p + n) "host [ ':' port ]" (RFC 3986 3.2.2)? Returns 0, or the bits below. */
enum { EVH_AUTH_OK = 1, EVH_AUTH_PORT = 2 /* a port that is not empty */ };
int evh__authority(const uint8_t *p, size_t n);

/* The n bytes at p, in any case, against the n at `lower`, which are small letters, digits and '-'. Setting bit 5 is exact here, as
 * p is from a name, value or target: bytes that it would mistake ('\r' for '-', ...) are control bytes and have been refused. */
static inline int evh__same_n(const uint8_t *p, const char *lower, size_t n)
{
    const uint64_t bit5 = 0x2020202020202020u;
    uint64_t a, b, diff = 0;
    size_t i = 0;
    if (n < 8) { /* two loads that overlap; no literal is shorter than four bytes */
        uint32_t c[2], d[2];
        memcpy(&c[0], p, 4);
        memcpy(&c[1], p + n - 4, 4);
        memcpy(&d[0], lower, 4);
        memcpy(&d[1], lower + n - 4, 4);
        return (((c[0] | (uint32_t)bit5) ^ d[0]) | ((c[1] | (uint32_t)bit5) ^ d[1])) == 0;
    }
    for (; i + 8 <= n; i += 8) {
        memcpy(&a, p + i, 8);
        memcpy(&b, lower + i, 8);
        diff |= (a | bit5) ^ b;
    }
    memcpy(&a, p + n - 8, 8);
    memcpy(&b, lower + n - 8, 8);
    return (diff | ((a | bit5) ^ b)) == 0;
}

/* Is [p, p + n), in any case, this string literal? */
#define evh__same(p, n, literal) \
    ((n) == sizeof(literal) - 1 && evh__same_n((p), (literal), sizeof(literal) - 1))

#endif
