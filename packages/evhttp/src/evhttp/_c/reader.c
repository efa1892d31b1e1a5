/* The buffer holds, from `from` on: the head as it came, the decoded body, and what came behind. Chunks are decoded in place, since
 * what comes out is never longer than what goes in; so while a body is under way nothing lies behind it. */
#include "reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chunked.h"
#include "fields.h"
#include "layout.h"
#include "scan.h"

enum { FIRST = 4096 };

struct evh_reader {
    struct evh_message message;
    struct evh_limits limits;
    uint8_t *buf;
    size_t capacity, from, len; /* len counts from the buffer's start */
    size_t body_at, rest_at;    /* from the message's start */
    uint64_t left;              /* of the body, unless it is chunked */
    uint8_t *trailers;
    size_t trailers_len;
    struct evh_chunked chunked;
    uint8_t is_response, asked, at_end;
    uint8_t *exported;
    size_t exported_capacity;
    struct evh_parser parser;
};

static void begin(struct evh_reader *r)
{
    if (r->is_response)
        evh_response_init(&r->parser);
    else
        evh_parser_init(&r->parser);
    evh_chunked_init(&r->chunked);
    memset(&r->message, 0, sizeof r->message);
    r->body_at = r->rest_at = 0;
    r->left = 0;
    r->trailers_len = 0;
}

struct evh_reader *evh_reader_new(const struct evh_limits *limits, int is_response)
{
    struct evh_reader *r = calloc(1, sizeof *r);
    if (r != NULL) {
        r->limits = *limits;
        r->is_response = is_response != 0;
        begin(r);
    }
    return r;
}

void evh_reader_free(struct evh_reader *r)
{
    if (r != NULL) {
        free(r->buf);
        free(r->trailers);
        free(r->exported);
        free(r);
    }
}

static void fail(struct evh_reader *r, uint16_t status, const char *reason)
{
    r->message.phase = EVH_PHASE_FAILED;
    r->message.body_len = 0;
    r->message.status = r->is_response ? 502 : status;
    r->message.reason = reason;
}

static uint8_t *start(const struct evh_reader *r) { return r->buf + r->from; }

/* -- room ---------------------------------------------------------------------------------------------------------------- */

static int make_room(struct evh_reader *r, size_t len)
{
    if (len <= r->capacity - r->len)
        return 0;
    if (r->from != 0) {
        memmove(r->buf, start(r), r->len - r->from);
        r->len -= r->from;
        r->from = 0;
        if (len <= r->capacity - r->len)
            return 0;
    }
    if (len > SIZE_MAX / 2 - r->len)
        return -ENOMEM;
    size_t capacity = r->capacity ? r->capacity : FIRST;
    while (capacity - r->len < len)
        capacity *= 2;
    uint8_t *grown = realloc(r->buf, capacity);
    if (grown == NULL)
        return -ENOMEM;
    r->buf = grown;
    r->capacity = capacity;
    return 0;
}

/* Trailers are bounded by their limit: room for the most is made with the first. */
static int keep_trailers(struct evh_reader *r, const uint8_t *data, size_t len)
{
    if (len == 0)
        return 1;
    if (r->trailers == NULL && (r->trailers = malloc(r->limits.max_trailers)) == NULL)
        return 0;
    memcpy(r->trailers + r->trailers_len, data, len);
    r->trailers_len += len;
    return 1;
}

/* -- bodies -------------------------------------------------------------------------------------------------------------- */

static void complete(struct evh_reader *r, size_t rest_at)
{
    r->message.phase = EVH_PHASE_COMPLETE;
    r->rest_at = rest_at;
}

static size_t body_end(const struct evh_reader *r) { return r->body_at + r->message.body_len; }

static void feed_chunked(struct evh_reader *r, size_t at)
{
    size_t end = r->len - r->from;
    while (at < end) {
        size_t used, off, len;
        const uint8_t *in = start(r) + at;
        int result = evh_chunked_feed(&r->chunked, &r->limits, in, end - at, &used, &off, &len);
        if (len != 0)
            memmove(start(r) + body_end(r), in + off, len);
        r->message.body_len += len;
        if (result == EVH_BAD) {
            fail(r, r->chunked.status, r->chunked.reason);
            return;
        }
        if (!keep_trailers(r, in + r->chunked.trailer_off, r->chunked.trailer_run)) {
            fail(r, 503, "no memory for the trailers");
            return;
        }
        at += used;
        if (result == EVH_DONE) {
            complete(r, at);
            return;
        }
    }
    r->len = r->from + body_end(r);
}

static void feed_plain(struct evh_reader *r, size_t at)
{
    size_t there = r->len - r->from - at;
    size_t len = there < r->left ? there : (size_t)r->left;
    r->message.body_len += len;
    r->left -= len;
    if (r->message.to_the_end) {
        if (len < there)
            fail(r, 413, "the body is over its limit");
    } else if (r->left == 0) {
        complete(r, body_end(r));
    }
}

/* -- heads --------------------------------------------------------------------------------------------------------------- */

static void publish_head(struct evh_reader *r)
{
    struct evh_message *m = &r->message;
    const struct evh_parser *p = &r->parser;
    m->method = p->method;
    m->version = p->version;
    m->flags = p->flags;
    m->content_length = p->content_length;
    m->method_len = p->method_len;
    m->target_len = r->is_response ? 0 : p->target_len;
    m->path_at = p->flags & EVH_AUTHORITY_FORM ? p->target_len : p->path - p->target;
    m->path_len = p->path_len;
    if (r->is_response) {
        m->status = p->code;
        m->phrase_len = p->target_len;
        m->path_at = 0;
    }
    r->body_at = p->head_len;
}

/* RFC 9112 6.3, in its order. Returns whether the response has a body. */
static int response_body(struct evh_reader *r)
{
    struct evh_message *m = &r->message;
    /* "Any response to a HEAD request and any response with a 1xx (Informational), 204 (No Content), or 304 (Not Modified) status code is
     * always terminated by the first empty line after the header fields, regardless of the header fields present in the message". */
    if (r->asked == EVH_ASKED_HEAD || m->status < 200 || m->status == 204 || m->status == 304)
        return 0;
    /* "Any 2xx (Successful) response to a CONNECT request implies that the connection will become a tunnel immediately". */
    if (r->asked == EVH_ASKED_CONNECT && m->status < 300)
        return 0;
    if (m->flags & (EVH_CHUNKED | EVH_HAS_LENGTH))
        return m->flags & EVH_CHUNKED || m->content_length != 0;
    m->to_the_end = 1;
    m->flags &= (uint16_t)~EVH_KEEP_ALIVE;
    return 1;
}

static void head_done(struct evh_reader *r)
{
    struct evh_message *m = &r->message;
    size_t head_len = r->parser.head_len;
    publish_head(r);
    if (!(r->is_response ? response_body(r) : m->flags & EVH_CHUNKED || m->content_length != 0)) {
        complete(r, head_len);
        return;
    }
    m->phase = EVH_PHASE_BODY;
    if (m->flags & EVH_CHUNKED) {
        feed_chunked(r, head_len);
        return;
    }
    r->left = m->to_the_end ? r->limits.max_body : m->content_length;
    if (r->left > r->limits.max_body)
        fail(r, 413, "Content-Length is over the limit for bodies");
    else
        feed_plain(r, head_len);
}

static void feed_head(struct evh_reader *r)
{
    size_t len = r->len - r->from;
    int result;
    if (len == 0)
        return;
    result = r->is_response ? evh_response_feed(&r->parser, &r->limits, start(r), len)
                            : evh_parser_feed(&r->parser, &r->limits, start(r), len);
    if (result == EVH_DONE)
        head_done(r);
    else if (result == EVH_BAD)
        fail(r, r->parser.status, r->parser.reason);
    else /* Blank lines are not yet a request. */
        r->message.phase = !r->is_response && r->parser.start == 0 && *start(r) == '\r' ? EVH_PHASE_IDLE : EVH_PHASE_HEAD;
}

/* -- the interface --------------------------------------------------------------------------------------------------------- */

/* Pointers into the buffer, which may have moved. */
static void settle(struct evh_reader *r)
{
    struct evh_message *m = &r->message;
    const struct evh_parser *p = &r->parser;
    if (m->phase == EVH_PHASE_FAILED)
        r->len = r->from; /* nothing that came is of use any more */
    m->method_text = m->target = m->phrase = m->body = m->rest = NULL;
    m->rest_len = 0;
    m->trailers = r->trailers;
    m->trailers_len = m->phase == EVH_PHASE_COMPLETE ? r->trailers_len : 0;
    if (m->phase != EVH_PHASE_BODY && m->phase != EVH_PHASE_COMPLETE)
        return;
    m->method_text = start(r) + p->start;
    m->target = m->phrase = start(r) + p->target;
    m->body = start(r) + r->body_at;
    if (m->phase == EVH_PHASE_COMPLETE) {
        m->rest = start(r) + r->rest_at;
        m->rest_len = r->len - r->from - r->rest_at;
    }
}

const struct evh_message *evh_reader_message(const struct evh_reader *r) { return &r->message; }

int evh_reader_feed(struct evh_reader *r, const void *data, size_t len)
{
    if (r->message.phase == EVH_PHASE_FAILED || len == 0)
        return r->message.phase;
    if (r->at_end)
        return -EPIPE;
    if (make_room(r, len) < 0)
        return -ENOMEM;
    memcpy(r->buf + r->len, data, len);
    r->len += len;
    if (r->message.phase == EVH_PHASE_BODY) {
        if (r->message.flags & EVH_CHUNKED)
            feed_chunked(r, body_end(r));
        else
            feed_plain(r, body_end(r));
    } else if (r->message.phase != EVH_PHASE_COMPLETE) {
        feed_head(r);
    }
    settle(r);
    return r->message.phase;
}

void evh_reader_eof(struct evh_reader *r)
{
    r->at_end = 1;
    switch (r->message.phase) {
    case EVH_PHASE_HEAD:
        fail(r, 400, "the stream ended within a head");
        break;
    case EVH_PHASE_BODY:
        if (r->message.to_the_end)
            complete(r, body_end(r));
        else
            fail(r, 400, "the stream ended within a body");
        break;
    default:
        break;
    }
    settle(r);
}

void evh_reader_reset(struct evh_reader *r, int asked)
{
    if (r->message.phase == EVH_PHASE_COMPLETE) {
        r->from += r->rest_at;
        if (r->from == r->len)
            r->from = r->len = 0;
    } else {
        r->from = r->len = 0;
        r->at_end = 0;
    }
    begin(r);
    r->asked = (uint8_t)asked;
    feed_head(r);
    if (r->at_end)
        evh_reader_eof(r);
    settle(r);
}

void evh_reader_drop_body(struct evh_reader *r)
{
    struct evh_message *m = &r->message;
    if (m->phase == EVH_PHASE_COMPLETE) {
        r->body_at = r->rest_at;
    } else if (m->phase == EVH_PHASE_BODY) {
        r->len = r->from + r->body_at;
    }
    m->body_len = 0;
    settle(r);
}

/* -- what came, for others ---------------------------------------------------------------------------------------------------- */

static size_t put_field(uint8_t *into, const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len)
{
    if (into != NULL) {
        *into++ = '\n';
        evh_lower_copy(into, name, name_len);
        into += name_len;
        *into++ = ':';
        memcpy(into, value, value_len);
    }
    return name_len + value_len + 2;
}

/* The lines have been checked by the chunked decoder. */
static size_t trailer_fields(const struct evh_reader *r, uint8_t *into)
{
    const uint8_t *p = r->trailers, *end = p + r->message.trailers_len;
    size_t len = 0;
    while (p < end) {
        const uint8_t *colon = memchr(p, ':', (size_t)(end - p)), *value = colon + 1, *stop = memchr(value, '\r', (size_t)(end - value));
        const uint8_t *next = stop + 2;
        while (value < stop && (*value == ' ' || *value == '\t'))
            value++;
        while (stop > value && (stop[-1] == ' ' || stop[-1] == '\t'))
            stop--;
        len += put_field(into ? into + len : NULL, p, (size_t)(colon - p), value, (size_t)(stop - value));
        p = next;
    }
    return len;
}

size_t evh_reader_fields(const struct evh_reader *r, int trailers, uint8_t *into)
{
    size_t len = 0;
    if (r->message.phase == EVH_PHASE_BODY || r->message.phase == EVH_PHASE_COMPLETE) {
        if (!trailers) {
            if (into != NULL)
                evh_layout_fields(into, &r->parser, start(r));
            return evh_layout_fields_len(&r->parser);
        }
        len = r->message.trailers_len ? trailer_fields(r, into) : 0;
    }
    if (into != NULL)
        into[len] = '\n';
    return len + 1;
}

int64_t evh_reader_export(struct evh_reader *r)
{
    struct evh_message *m = &r->message;
    if (m->phase != EVH_PHASE_BODY && m->phase != EVH_PHASE_COMPLETE)
        return 0;
    size_t head = evh_layout_len(&r->parser), len = head + m->body_len;
    if (len > r->exported_capacity) {
        size_t capacity = len < 1024 ? 1024 : len;
        uint8_t *grown = realloc(r->exported, capacity);
        if (grown == NULL)
            return -ENOMEM;
        r->exported = grown;
        r->exported_capacity = capacity;
    }
    evh_layout_write(r->exported, head, &r->parser, start(r));
    ((struct evh_head *)r->exported)->body_len = (uint32_t)m->body_len;
    if (m->body_len != 0)
        memcpy(r->exported + head, m->body, m->body_len);
    m->exported = (const char *)r->exported;
    m->info = evh_layout_info(&r->parser);
    return (int64_t)len;
}
