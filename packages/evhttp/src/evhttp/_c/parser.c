/* Policy. Where RFC 9110 and 9112 leave a choice, or practice differs, this parser decides as follows.
 *
 * Lines     CRLF only; a bare LF or CR is 400 (RFC 9112 2.2 lets a recipient accept a bare LF; what two hops read differently is
 *           how requests are smuggled). Four blank lines at most before a request line. obs-fold is 400.
 * Method    A token of at most 32 bytes. One in no table (target.c) is 501, as is a longer one: RFC 9112 3 and RFC 9110 9.1
 *           ask for 501, not 400, where a method is not implemented. evh_limits.any_method lets any token pass that has no small
 *           letter: methods are case-sensitive, and "get" is a mistake.
 * Target    0x21 to 0x7E; raw bytes from 0x80 are 400. More than RFC 3986 grants in the path and query are '"', '<', '>', '\',
 *           '^', '`', '{', '|', '}', '[', ']', '#' and a '%' without two hex digits: clients send them, the conformance tables want
 *           them served, and the text is handed on as it came, never interpreted: a '#' does not end the path.
 *           Four forms: origin; absolute with http or https (userinfo is checked and ignored, a Host that differs is ignored by
 *           RFC 9112 3.2.2); authority for CONNECT alone, with a port; "*" for OPTIONS alone. A URI of another scheme is 421.
 *           What is in none of these forms ("GET index.html") is EVH_STATUS_RELATIVE_TARGET below.
 * Version   Judged byte by byte: 505 as soon as HTTP/digit.digit is complete and is neither 1.0 nor 1.1, else 400.
 * Host      One in HTTP/1.1, at most one in HTTP/1.0. Empty is good (RFC 9112 3.2). Otherwise reg-name, IPv4 or [IPv6], and a port
 *           up to 65535. A comma, which reg-name would grant, is refused: it is how two merged Host fields look.
 * Length    Plain digits, leading zeros allowed; two fields or a list are 400 even if equal. Over max_body, or over 2^63-1, is 413.
 * Transfer-Encoding  Anything but a single "chunked": 501 if other codings come before it, else 400; empty list elements 400.
 * Singletons  A second Content-Type is 400.
 * Underscores in field names pass, as they are tchars; a gateway to CGI-like names has to drop them.
 */
#include "parser.h"

#include <string.h>

#include "fields.h"
#include "scan_kernels.h"

#define MAX_METHOD 32
#define MAX_BLANK 8 /* bytes: four CRLF */

/* In the order of the message. From S_FIELD on the limits of the header section hold. */
enum {
    S_START,
    S_START_LF,
    S_METHOD,
    S_PATH,
    S_QUERY,
    S_VERSION,
    S_LINE_LF,
    S_FIELD,
    S_NAME,
    S_OWS,
    S_VALUE,
    S_VALUE_LF,
    S_END_LF,
    S_DONE,
    S_BAD,
};

static inline uint32_t load32(const uint8_t *p)
{
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* The end of what may be scanned: `size` bytes from offset `from`, or the end of the input. */
static inline const uint8_t *window(const uint8_t *buf, size_t from, size_t size, const uint8_t *end)
{
    return (size_t)(end - buf) - from > size ? buf + from + size : end;
}

static const char *name_error(uint8_t c, uint32_t name_len)
{
    if (c == ' ' || c == '\t')
        return name_len == 0 ? "a header line begins with white space (obsolete folding)"
                             : "space before the colon of a header field";
    if (c == ':')
        return "empty field name";
    if (c == '\r' || c == '\n')
        return name_len == 0 ? "LF without CR behind a header field" : "a header line without a colon";
    return "a byte that no field name may hold";
}

#define EVH_RUN run_scalar
#define EVH_RUN_ATTR
#define EVH_PATH evh__path_scalar
#define EVH_TARGET evh__target_scalar
#define EVH_TOKEN evh__token_scalar
#define EVH_VALUE evh__value_scalar
#include "parser_run.h"

#if defined(EVH_LANE_BITS)
#define EVH_RUN run_v16
#define EVH_RUN_ATTR
#define EVH_PATH evh__path_v16
#define EVH_TARGET evh__target_v16
#define EVH_TOKEN evh__token_v16
#define EVH_VALUE evh__value_v16
#include "parser_run.h"
#endif

#if defined(EVH_HAVE_AVX2)
#define EVH_RUN run_avx2
#define EVH_RUN_ATTR EVH_AVX2
#define EVH_PATH evh__path_v16
#define EVH_TARGET evh__target_avx2
#define EVH_TOKEN evh__token_v16
#define EVH_VALUE evh__value_avx2
#include "parser_run.h"
#endif

void evh__parser_at_fields(struct evh_parser *ps)
{
    ps->line = ps->pos;
    ps->state = S_FIELD;
}

void evh_parser_init(struct evh_parser *ps)
{
    memset(ps, 0, offsetof(struct evh_parser, fields));
}

int evh_parser_feed(struct evh_parser *ps, const struct evh_limits *limits, const uint8_t *buf, size_t len)
{
    int r;
    if (len < ps->pos) /* the caller broke the contract; nothing new has come */
        return EVH_MORE;
    if (len > UINT32_MAX) /* offsets are 32 bits wide, and so are the limits that end a head long before */
        len = UINT32_MAX;
    switch (evh__scan_impl) {
#if defined(EVH_HAVE_AVX2)
    case EVH_IMPL_AVX2:
        r = run_avx2(ps, limits, buf, len);
        break;
#endif
#if defined(EVH_LANE_BITS)
    case EVH_IMPL_SSE2:
    case EVH_IMPL_NEON:
        r = run_v16(ps, limits, buf, len);
        break;
#endif
    default:
        r = run_scalar(ps, limits, buf, len);
    }
    if (r == EVH_BAD)
        ps->state = S_BAD;
    return r;
}
