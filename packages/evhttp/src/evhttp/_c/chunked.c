/* The machine of the chunked coding. RFC 9112 7.1:
 *
 *   chunked-body = *chunk last-chunk trailer-section CRLF
 *   chunk        = chunk-size [ chunk-ext ] CRLF chunk-data CRLF          last-chunk = 1*("0") [ chunk-ext ] CRLF
 *   chunk-ext    = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
 *
 * Rules:
 *  - A state names what came last; each byte is judged alone, so that the outcome does not depend on how the input was cut.
 *  - White space is allowed only where the grammar has BWS, and only if what the BWS leads to does follow: "5 CRLF" is refused.
 *  - A size is refused as soon as it passes what max_body leaves; so it cannot overflow, and leading zeros are bounded by the
 *    limit on the line alone.
 *  - Extensions are checked and dropped. Trailer lines are checked like header fields; one that would decide about
 *    framing or routing is refused, since a hop that merges trailers would act on it (RFC 9110 6.5.1).
 */
#include "chunked.h"

#include <string.h>

#include "fields.h"
#include "scan.h"

enum {
    C_START,    /* before the first digit of a size */
    C_SIZE,     /* in the digits */
    C_SIZE_BWS, /* white space behind the size or a value: ";" has to follow */
    C_SEMI,     /* behind ";" */
    C_NAME,     /* in an extension's name */
    C_NAME_BWS, /* white space behind a name: "=" or ";" has to follow */
    C_EQ,       /* behind "=" */
    C_VALUE,    /* in a token value */
    C_QUOTED,   /* in a quoted value */
    C_ESCAPE,   /* behind a backslash in it */
    C_UNQUOTED, /* behind its closing quote */
    C_LINE_LF,  /* behind the CR of a chunk line */
    C_DATA,     /* left > 0 */
    C_DATA_CR,  /* all data of the chunk taken */
    C_DATA_LF,
    C_TRAILER,       /* at the start of a trailer line */
    C_TRAILER_NAME,
    C_TRAILER_VALUE,
    C_TRAILER_LF,
    C_END_LF, /* behind the CR of the empty line */
    C_DONE,
    C_BAD,
};

void evh_chunked_init(struct evh_chunked *ck)
{
    memset(ck, 0, sizeof *ck);
}

static int bad(struct evh_chunked *ck, uint16_t status, const char *reason)
{
    ck->state = C_BAD;
    ck->status = status;
    ck->reason = reason;
    return EVH_BAD;
}

/* The digit's value, or a negative number. */
static int hex(uint8_t c)
{
    if (!(evh_class[c] & EVH_C_HEX))
        return -1;
    return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

static int more_size(struct evh_chunked *ck, const struct evh_limits *limits, unsigned digit)
{
    uint64_t most = limits->max_body < INT64_MAX ? limits->max_body : INT64_MAX;
    uint64_t room = most > ck->total ? most - ck->total : 0;
    if (digit > room || ck->left > (room - digit) / 16)
        return bad(ck, 413, "the chunked body is over its limit");
    ck->left = ck->left * 16 + digit;
    ck->state = C_SIZE;
    return EVH_MORE;
}

/* The state after byte c of a chunk line, or a negative number. C_START and C_SIZE with a digit are more_size()'s. */
static int line_next(uint8_t state, uint8_t c)
{
    int blank = c == ' ' || c == '\t', token = evh_class[c] & EVH_C_TOKEN;
    switch (state) {
    case C_SIZE:
    case C_UNQUOTED:
        return blank ? C_SIZE_BWS : c == ';' ? C_SEMI : c == '\r' ? C_LINE_LF : -1;
    case C_SIZE_BWS:
        return blank ? C_SIZE_BWS : c == ';' ? C_SEMI : -1;
    case C_SEMI:
        return blank ? C_SEMI : token ? C_NAME : -1;
    case C_NAME:
        return token ? C_NAME : blank ? C_NAME_BWS : c == '=' ? C_EQ : c == ';' ? C_SEMI : c == '\r' ? C_LINE_LF : -1;
    case C_NAME_BWS:
        return blank ? C_NAME_BWS : c == '=' ? C_EQ : c == ';' ? C_SEMI : -1;
    case C_EQ:
        return blank ? C_EQ : c == '"' ? C_QUOTED : token ? C_VALUE : -1;
    case C_VALUE:
        return token ? C_VALUE : blank ? C_SIZE_BWS : c == ';' ? C_SEMI : c == '\r' ? C_LINE_LF : -1;
    case C_QUOTED:
        return c == '"' ? C_UNQUOTED : c == '\\' ? C_ESCAPE : evh_class[c] & EVH_C_QUOTED ? C_QUOTED : -1;
    case C_ESCAPE: /* RFC 9110 5.6.4: quoted-pair = "\" ( HTAB / SP / VCHAR / obs-text ) */
        return evh_class[c] & EVH_C_VALUE ? C_QUOTED : -1;
    default:
        return -1;
    }
}

static int line_byte(struct evh_chunked *ck, const struct evh_limits *limits, uint8_t c)
{
    int digit, next;
    /* The CR of a line that is just as long as it may be is not counted. */
    if (c != '\r' && ++ck->line > limits->max_chunk_ext)
        return bad(ck, 400, "a chunk line is over its limit");
    if (ck->state <= C_SIZE && (digit = hex(c)) >= 0)
        return more_size(ck, limits, (unsigned)digit);
    next = line_next(ck->state, c);
    if (next < 0)
        return bad(ck, 400, ck->state <= C_SIZE ? "bad chunk size" : "bad chunk extension");
    ck->state = (uint8_t)next;
    return EVH_MORE;
}

static int trailer_name_byte(struct evh_chunked *ck, uint8_t c)
{
    if (evh_class[c] & EVH_C_TOKEN) {
        if (ck->name_len < sizeof ck->name)
            evh_lower_copy(&ck->name[ck->name_len++], &c, 1);
        return EVH_MORE;
    }
    if (c != ':' || ck->name_len == 0)
        return bad(ck, 400, "a trailer line does not begin with a name and a colon");
    if (evh__same(ck->name, ck->name_len, "content-length") || evh__same(ck->name, ck->name_len, "transfer-encoding") ||
        evh__same(ck->name, ck->name_len, "host") || evh__same(ck->name, ck->name_len, "connection") ||
        evh__same(ck->name, ck->name_len, "upgrade") || evh__same(ck->name, ck->name_len, "expect"))
        return bad(ck, 400, "a trailer field that decides about framing or routing");
    ck->state = C_TRAILER_VALUE;
    return EVH_MORE;
}

static int trailer_byte(struct evh_chunked *ck, const struct evh_limits *limits, uint8_t c)
{
    if (ck->state == C_TRAILER) {
        if (c == '\r') {
            ck->state = C_END_LF;
            return EVH_MORE;
        }
        ck->state = C_TRAILER_NAME;
        ck->name_len = 0;
    }
    if (++ck->trailer > limits->max_trailers)
        return bad(ck, 431, "the trailer section is over its limit");
    if (ck->state == C_TRAILER_NAME)
        return trailer_name_byte(ck, c);
    if (ck->state == C_TRAILER_LF) {
        if (c != '\n')
            return bad(ck, 400, "CR without LF in a trailer line");
        ck->state = C_TRAILER;
    } else if (c == '\r') {
        ck->state = C_TRAILER_LF;
    } else if (!(evh_class[c] & EVH_C_VALUE)) {
        return bad(ck, 400, "a control byte in a trailer field");
    }
    return EVH_MORE;
}

int evh_chunked_feed(struct evh_chunked *ck, const struct evh_limits *limits, const uint8_t *in, size_t len, size_t *used,
                     size_t *data_off, size_t *data_len)
{
    size_t i = 0;
    int r = EVH_MORE;
    *data_off = *data_len = 0;
    ck->trailer_off = ck->trailer_run = 0;
    while (r == EVH_MORE && i < len) {
        uint8_t c = in[i];
        switch (ck->state) {
        case C_DATA:
            if (*data_len != 0)
                goto out; /* one run at a time */
            *data_off = i;
            *data_len = ck->left < len - i ? (size_t)ck->left : len - i;
            i += *data_len;
            ck->left -= *data_len;
            if (ck->left == 0)
                ck->state = C_DATA_CR;
            continue;
        case C_LINE_LF:
            if (c != '\n') {
                r = bad(ck, 400, "CR without LF in a chunk line");
                break;
            }
            ck->line = 0;
            ck->total += ck->left;
            ck->state = ck->left != 0 ? C_DATA : C_TRAILER;
            break;
        case C_DATA_CR:
        case C_DATA_LF:
            if (c != (ck->state == C_DATA_CR ? '\r' : '\n'))
                r = bad(ck, 400, "chunk data is not followed by CRLF");
            else
                ck->state = ck->state == C_DATA_CR ? C_DATA_LF : C_START;
            break;
        case C_TRAILER:
        case C_TRAILER_NAME:
        case C_TRAILER_VALUE:
        case C_TRAILER_LF:
            r = trailer_byte(ck, limits, c);
            if (r == EVH_MORE && ck->state != C_END_LF && ck->trailer_run++ == 0)
                ck->trailer_off = i;
            break;
        case C_END_LF:
            if (c != '\n') {
                r = bad(ck, 400, "CR without LF at the end of the body");
            } else {
                ck->state = C_DONE;
                r = EVH_DONE;
            }
            break;
        case C_DONE:
        case C_BAD:
            goto out;
        default:
            r = line_byte(ck, limits, c);
        }
        if (r != EVH_BAD)
            i++;
    }
out:
    *used = i;
    return ck->state == C_DONE ? EVH_DONE : ck->state == C_BAD ? EVH_BAD : EVH_MORE;
}
