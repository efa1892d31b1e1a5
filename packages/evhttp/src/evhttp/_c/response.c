/* Response heads: the status line is read here, the header section by the parser of requests.
 *
 * Policy, where it differs from that for requests (parser.c). A client answers nobody, so a refusal's status is what a gateway would
 * say (RFC 9110 15.6.3): 502.
 *
 * Status line  RFC 9112 4: HTTP-version SP status-code SP [ reason-phrase ] CRLF. The second SP may be missing where there is no phrase:
 *           servers leave it out, and nothing can be mistaken by it. A code is three digits from 100 on. No blank lines before it.
 * Version   1.0 and 1.1. RFC 9110 2.5 lets a client take another minor version for 1.1; no server sends one.
 * Length    max_body is judged where the body begins and not at the field: an answer to HEAD tells the length of what is not sent.
 * Transfer-Encoding  Anything but a single "chunked" is refused. RFC 9112 6.3 would have a response of another coding read to the end
 *           of the connection; but nobody here could decode it.
 * Host and Expect mean nothing in a response and are fields like others.
 */
#include <string.h>

#include "fields.h"
#include "scan.h"

enum { CODE = 9, PHRASE = 13 }; /* where in the line these begin */

void evh_response_init(struct evh_parser *ps)
{
    evh_parser_init(ps);
    ps->seen = EVH_SEEN_RESPONSE;
}

static int bad(struct evh_parser *ps, const char *reason)
{
    return evh__bad(ps, 502, reason);
}

/* Judges byte c at offset i of the line, before the phrase. */
static const char *line_error(struct evh_parser *ps, uint32_t i, uint8_t c)
{
    if (i == 7) {
        ps->version = c == '1' ? 11 : 10;
        return c == '0' || c == '1' ? NULL : "a version other than HTTP/1.0 and HTTP/1.1";
    }
    if (i < CODE)
        return c == (uint8_t)"HTTP/1.1 "[i] ? NULL : "the response does not begin with HTTP/1.x";
    if (i == PHRASE - 1)
        return c == ' ' || c == '\r' ? NULL : "a byte between the status code and the phrase";
    ps->code = (uint16_t)(ps->code * 10 + (c - '0'));
    return evh_class[c] & EVH_C_DIGIT && ps->code ? NULL : "the status code is not three digits from 100 on";
}

/* Returns EVH_DONE when the line is complete; ps->pos is behind it then. */
static int status_line(struct evh_parser *ps, const struct evh_limits *limits, const uint8_t *buf, size_t len)
{
    for (; ps->pos < len; ps->pos++) {
        uint8_t c = buf[ps->pos];
        if (ps->pos >= PHRASE && buf[ps->pos - 1] == '\r') {
            if (c != '\n')
                return bad(ps, "CR without LF behind the status line");
            uint32_t end = ps->pos++ - 1;
            ps->target = end < PHRASE ? end : PHRASE;
            ps->target_len = end - ps->target;
            return EVH_DONE;
        }
        if (ps->pos < PHRASE) {
            const char *error = line_error(ps, ps->pos, c);
            if (error)
                return bad(ps, error);
        } else if (c != '\r' && !(evh_class[c] & EVH_C_VALUE)) {
            return bad(ps, c == '\n' ? "LF without CR behind the status line" : "a control byte in the reason phrase");
        }
        if (ps->pos >= limits->max_request_line && c != '\r')
            return bad(ps, "the status line is over its limit");
    }
    return EVH_MORE;
}

int evh_response_feed(struct evh_parser *ps, const struct evh_limits *limits, const uint8_t *buf, size_t len)
{
    if (!ps->line) {
        if (ps->status != 0)
            return EVH_BAD;
        int r = status_line(ps, limits, buf, len < UINT32_MAX ? len : UINT32_MAX);
        if (r != EVH_DONE)
            return r;
        evh__parser_at_fields(ps);
    }
    int r = evh_parser_feed(ps, limits, buf, len);
    if (r == EVH_BAD)
        ps->status = 502;
    return r;
}

int evh__response_done(struct evh_parser *ps)
{
    if (ps->seen & EVH_SEEN_TE) {
        if (!(ps->seen & EVH_SEEN_TE_CHUNKED) || ps->seen & EVH_SEEN_TE_OTHER)
            return evh__bad(ps, 502, "a transfer coding other than chunked");
        ps->flags |= EVH_CHUNKED;
    }
    if (!(ps->seen & EVH_SEEN_CLOSE) && (ps->version == 11 || ps->seen & EVH_SEEN_KEEP_ALIVE))
        ps->flags |= EVH_KEEP_ALIVE;
    if (ps->version == 11 && ps->seen & EVH_SEEN_CONN_UPGRADE && ps->seen & EVH_SEEN_UPGRADE)
        ps->flags |= EVH_UPGRADE;
    return EVH_DONE;
}
