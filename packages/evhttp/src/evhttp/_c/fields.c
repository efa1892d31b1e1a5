/* The fields that decide about framing and routing: Host, Content-Length, Transfer-Encoding, Connection, Upgrade, Expect.
 *
 * Each field is judged when its line is complete, so that a bad one is refused without waiting for the rest; what needs the whole
 * section is judged in evh__head_done().
 */
#include "fields.h"

#include "scan.h"

/* The greatest length that a caller's signed 64-bit arithmetic can hold. */
#define LENGTH_MAX ((uint64_t)INT64_MAX)

int evh__bad(struct evh_parser *ps, uint16_t status, const char *reason)
{
    ps->status = status;
    ps->reason = reason;
    return EVH_BAD;
}

static int host(struct evh_parser *ps, const uint8_t *buf, const struct evh_field *f)
{
    /* RFC 9112 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that lacks a Host
     * header field and to any request message that contains more than one Host header field line or a Host header field with an
     * invalid field value." */
    if (ps->flags & EVH_HAS_HOST)
        return evh__bad(ps, 400, "more than one Host field");
    ps->flags |= EVH_HAS_HOST;
    /* "If the authority component is missing or undefined for the target URI, then a client MUST send a Host header field with an
     * empty field value": so an empty one is good. */
    if (f->value_len != 0 && !evh__authority(buf + f->value, f->value_len))
        return evh__bad(ps, 400, "Host is not host[:port]");
    /* RFC 9112 3.2.2: with an absolute-form target the server "MUST ignore the received Host header field (if any)". */
    if (!(ps->flags & (EVH_ABSOLUTE | EVH_AUTHORITY_FORM))) {
        ps->host = f->value;
        ps->host_len = f->value_len;
    }
    return EVH_MORE;
}

static int content_length(struct evh_parser *ps, const struct evh_limits *limits, const uint8_t *p, size_t n)
{
    uint64_t most = limits->max_body < LENGTH_MAX ? limits->max_body : LENGTH_MAX, v = 0;
    int over = 0;

    if (ps->flags & EVH_HAS_LENGTH)
        return evh__bad(ps, 400, "more than one Content-Length field");
    if (ps->seen & EVH_SEEN_TE)
        return evh__bad(ps, 400, "Content-Length together with Transfer-Encoding");
    if (n == 0)
        return evh__bad(ps, 400, "empty Content-Length");
    for (size_t i = 0; i < n; i++) {
        if (!(evh_class[p[i]] & EVH_C_DIGIT))
            return evh__bad(ps, 400, "Content-Length is not a plain decimal number");
        if (v > (LENGTH_MAX - (p[i] - '0')) / 10)
            over = 1;
        v = over ? v : v * 10 + (p[i] - '0');
    }
    if (over || (v > most && !(ps->seen & EVH_SEEN_RESPONSE)))
        return evh__bad(ps, 413, "Content-Length is over the limit for bodies");
    ps->content_length = v;
    ps->flags |= EVH_HAS_LENGTH;
    return EVH_MORE;
}

/* Takes the next element of a comma-separated list, OWS trimmed; a comma inside a quoted string does not count.
 * Returns 0 at the end of the list. */
static int list_next(const uint8_t **at, const uint8_t *end, const uint8_t **item, size_t *len)
{
    const uint8_t *p = *at, *from, *to;
    int quoted = 0;
    if (p > end)
        return 0;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    from = p;
    for (; p < end && (quoted || *p != ','); p++) {
        if (*p == '"')
            quoted = !quoted;
        else if (*p == '\\' && quoted && p + 1 < end)
            p++;
    }
    for (to = p; to > from && (to[-1] == ' ' || to[-1] == '\t'); to--)
        ;
    *item = from;
    *len = (size_t)(to - from);
    *at = p + 1;
    return 1;
}

static int transfer_encoding(struct evh_parser *ps, const uint8_t *p, size_t n)
{
    const uint8_t *end = p + n, *item;
    size_t len;

    /* RFC 9112 6.1: "A client MUST NOT send a request containing Transfer-Encoding unless it knows the server will handle HTTP/1.1
     * requests (or later minor revisions)", and "a server that receives an HTTP/1.0 message containing a Transfer-Encoding header
     * field MUST treat the message as if the framing is faulty". */
    if (ps->version == 10)
        return evh__bad(ps, 400, "Transfer-Encoding in HTTP/1.0");
    if (ps->flags & EVH_HAS_LENGTH)
        return evh__bad(ps, 400, "Content-Length together with Transfer-Encoding");
    ps->seen |= EVH_SEEN_TE;
    while (list_next(&p, end, &item, &len)) {
        if (len == 0)
            return evh__bad(ps, 400, "empty element in Transfer-Encoding");
        if (evh__same(item, len, "chunked")) {
            /* RFC 9112 6.1: "A sender MUST NOT apply the chunked transfer coding more than once to a message body". */
            if (ps->seen & EVH_SEEN_TE_CHUNKED)
                return evh__bad(ps, 400, "chunked twice in Transfer-Encoding");
            ps->seen |= EVH_SEEN_TE_CHUNKED;
            continue;
        }
        /* RFC 9112 6.3: "If a Transfer-Encoding header field is present in a request and the chunked transfer coding is not the
         * final encoding, the message body length cannot be determined reliably; the server MUST respond with the 400". */
        if (ps->seen & EVH_SEEN_TE_CHUNKED)
            return evh__bad(ps, 400, "chunked is not the last transfer coding");
        if (!(evh_class[item[0]] & EVH_C_TOKEN))
            return evh__bad(ps, 400, "Transfer-Encoding is not a list of codings");
        ps->seen |= EVH_SEEN_TE_OTHER;
    }
    return EVH_MORE;
}

static void connection(struct evh_parser *ps, const uint8_t *p, size_t n)
{
    const uint8_t *end = p + n, *item;
    size_t len;
    if (evh__same(p, n, "keep-alive")) { /* what browsers send */
        ps->seen |= EVH_SEEN_KEEP_ALIVE;
        return;
    }
    while (list_next(&p, end, &item, &len)) {
        if (evh__same(item, len, "keep-alive"))
            ps->seen |= EVH_SEEN_KEEP_ALIVE;
        else if (evh__same(item, len, "close"))
            ps->seen |= EVH_SEEN_CLOSE;
        else if (evh__same(item, len, "upgrade"))
            ps->seen |= EVH_SEEN_CONN_UPGRADE;
    }
}

static int expect(struct evh_parser *ps, const uint8_t *p, size_t n)
{
    /* RFC 9110 10.1.1: "A server that receives an Expect field value containing a member other than 100-continue MAY respond with a
     * 417 (Expectation Failed) status code". */
    if (!evh__same(p, n, "100-continue"))
        return evh__bad(ps, 417, "Expect is not 100-continue");
    /* "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore that expectation." */
    if (ps->version == 11)
        ps->flags |= EVH_EXPECT_CONTINUE;
    return EVH_MORE;
}

int evh__field(struct evh_parser *ps, const struct evh_limits *limits, const uint8_t *buf, const struct evh_field *f)
{
    const uint8_t *name = buf + f->name, *value = buf + f->value;
    switch (f->name_len) {
    case 4:
        return evh__same(name, 4, "host") && !(ps->seen & EVH_SEEN_RESPONSE) ? host(ps, buf, f) : EVH_MORE;
    case 6:
        return evh__same(name, 6, "expect") && !(ps->seen & EVH_SEEN_RESPONSE) ? expect(ps, value, f->value_len) : EVH_MORE;
    case 7:
        if (f->value_len != 0 && evh__same(name, 7, "upgrade"))
            ps->seen |= EVH_SEEN_UPGRADE;
        return EVH_MORE;
    case 10:
        if (evh__same(name, 10, "connection"))
            connection(ps, value, f->value_len);
        return EVH_MORE;
    case 12:
        /* RFC 9110 5.3: "a sender MUST NOT generate multiple field lines with the same name in a message [...] unless that field's
         * definition allows" a list. Two content types are two opinions about what the body is. */
        if (evh__same(name, 12, "content-type")) {
            if (ps->seen & EVH_SEEN_CONTENT_TYPE)
                return evh__bad(ps, 400, "more than one Content-Type field");
            ps->seen |= EVH_SEEN_CONTENT_TYPE;
        }
        return EVH_MORE;
    case 14:
        return evh__same(name, 14, "content-length") ? content_length(ps, limits, value, f->value_len) : EVH_MORE;
    case 17:
        return evh__same(name, 17, "transfer-encoding") ? transfer_encoding(ps, value, f->value_len) : EVH_MORE;
    default:
        return EVH_MORE;
    }
}

int evh__head_done(struct evh_parser *ps)
{
    if (ps->seen & EVH_SEEN_RESPONSE)
        return evh__response_done(ps);
    if (ps->version == 11 && !(ps->flags & EVH_HAS_HOST))
        return evh__bad(ps, 400, "HTTP/1.1 without a Host field");
    if (ps->seen & EVH_SEEN_TE) {
        if (!(ps->seen & EVH_SEEN_TE_CHUNKED))
            return evh__bad(ps, 400, "chunked is not the last transfer coding");
        /* RFC 9112 6.1: "A server that receives a request message with a transfer coding it does not understand SHOULD respond
         * with 501 (Not Implemented)." */
        if (ps->seen & EVH_SEEN_TE_OTHER)
            return evh__bad(ps, 501, "a transfer coding other than chunked");
        ps->flags |= EVH_CHUNKED;
    }
    /* RFC 9112 9.3: close wins; HTTP/1.1 persists by default; HTTP/1.0 only with keep-alive. */
    if (!(ps->seen & EVH_SEEN_CLOSE) && (ps->version == 11 || ps->seen & EVH_SEEN_KEEP_ALIVE))
        ps->flags |= EVH_KEEP_ALIVE;
    /* RFC 9110 7.8: "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0 request." */
    if (ps->version == 11 && (ps->seen & EVH_SEEN_CONN_UPGRADE) && (ps->seen & EVH_SEEN_UPGRADE))
        ps->flags |= EVH_UPGRADE;
    if (!(ps->flags & EVH_CHUNKED) && ps->content_length == 0)
        ps->flags &= (uint16_t)~EVH_EXPECT_CONTINUE;
    return EVH_DONE;
}
