/* Bodies that come in pieces: cut out of their framing, and gathered for a request that is told of when it is whole, or passed on to
 * Python as they come, to a handler that was called at the head. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    FIRST_BODY = 64 * 1024,
    DRAIN_MOST = 64 * 1024, /* of a body that nobody wants, so much is read for the sake of the connection */
};

struct evh_body *evh_body_begin(const struct evh_parser *p) {
    struct evh_body *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->is_chunked = (p->flags & EVH_CHUNKED) != 0;
    b->length = p->content_length;
    if (b->is_chunked)
        evh_chunked_init(&b->chunked);
    return b;
}

void evh_body_free(struct evh_body *b) {
    if (b) {
        free(b->head);
        free(b->data);
        free(b);
    }
}

/* -- where the bytes go -- */

/* Memory grows with what has come, not with what was announced: an announcement costs its sender nothing. */
static int gather(struct evh_body *b, const uint8_t *data, size_t len) {
    if (len > b->capacity - b->len) {
        size_t capacity = b->capacity ? b->capacity : FIRST_BODY;
        while (capacity - b->len < len)
            capacity *= 2;
        if (!b->is_chunked && capacity > b->length)
            capacity = (size_t)b->length;
        uint8_t *grown = realloc(b->data, capacity);
        if (!grown)
            return 0;
        b->data = grown;
        b->capacity = capacity;
    }
    memcpy(b->data + b->len, data, len);
    return 1;
}

static void tell(net_stream *s, const struct evh_body *b, int64_t a, int64_t what) {
    evh_ev->emit(evh_net->loop(s), b->target, a, what, evh_exchange_of(s, b->place));
}

static int pass_on(net_stream *s, const struct evh_body *b, const uint8_t *data, size_t len) {
    if (b->discard)
        return 1;
    int64_t offset;
    memcpy(evh_ev->arena_put(evh_net->loop(s), len, &offset), data, len);
    tell(s, b, offset, (int64_t)len);
    return 1;
}

static int take(net_stream *s, struct evh_body *b, const uint8_t *data, size_t len) {
    if (!len)
        return 1;
    int done = b->is_streamed ? pass_on(s, b, data, len) : gather(b, data, len);
    b->len += len;
    return done;
}

static void finish(net_stream *s) {
    struct evh_conn *c = evh_conn_of(s);
    struct evh_body *b = c->body;
    c->body = NULL;
    if (!b->is_streamed)
        evh_request_complete(s, b);
    else if (b->target && !b->discard)
        tell(s, b, 0, EVH_BODY_END);
    evh_body_free(b);
}

struct refused { /* in the arena; the reason follows */
    uint32_t status, len;
};

void evh_body_refuse(net_stream *s, unsigned status, const char *reason) {
    struct evh_conn *c = evh_conn_of(s);
    struct evh_body *b = c->body;
    if (!b->is_streamed) {
        evh_conn_refuse(s, status, reason);
        return;
    }
    /* The request is with its handler, who has to answer, or has answered. Behind this body nobody can say where a request begins. */
    c->body = NULL;
    c->last = c->linger = 1;
    if (b->target && !b->discard) {
        struct refused refused = {status, (uint32_t)strlen(reason)};
        int64_t offset;
        uint8_t *at = evh_ev->arena_put(evh_net->loop(s), sizeof refused + refused.len, &offset);
        memcpy(at, &refused, sizeof refused);
        memcpy(at + sizeof refused, reason, refused.len);
        tell(s, b, offset, EVH_BODY_REFUSED);
    }
    evh_body_free(b);
    if (!evh_unanswered(c))
        evh_conn_answered(s);
}

void evh_body_lost(net_stream *s, int cause) {
    struct evh_conn *c = evh_conn_of(s);
    struct evh_body *b = c->body;
    c->body = NULL;
    if (b && b->is_streamed && b->target && !b->discard)
        tell(s, b, cause, EVH_BODY_LOST);
    evh_body_free(b);
}

/* -- framing -- */

static size_t feed_by_length(net_stream *s, struct evh_body *b, const uint8_t *data, size_t len) {
    uint64_t left = b->length - b->len;
    size_t part = len < left ? len : (size_t)left;
    if (!take(s, b, data, part)) {
        evh_body_refuse(s, 503, "no memory for the body");
        return len;
    }
    if (b->len == b->length)
        finish(s);
    return part;
}

static size_t feed_chunked(net_stream *s, struct evh_body *b, const uint8_t *data, size_t len) {
    size_t used = 0;
    for (;;) {
        size_t n, off, run;
        int rc = evh_chunked_feed(&b->chunked, &evh_conn_of(s)->server->limits, data + used, len - used, &n, &off, &run);
        if (rc == EVH_BAD) {
            evh_body_refuse(s, b->chunked.status, b->chunked.reason);
            return len;
        }
        if (!take(s, b, data + used + off, run)) {
            evh_body_refuse(s, 503, "no memory for the body");
            return len;
        }
        used += n;
        if (rc == EVH_DONE) {
            finish(s);
            return used;
        }
        if (used == len)
            return used;
    }
}

size_t evh_body_feed(net_stream *s, const uint8_t *data, size_t len) {
    struct evh_conn *c = evh_conn_of(s);
    struct evh_body *b = c->body;
    if (b->is_streamed) {
        if (!b->is_read && !b->discard) { /* it stays with the client until the handler wants it */
            evh_net->pause(s);
            return 0;
        }
        evh_net->deadline(s, c->server->timeouts.body); /* a large body may take its time, but not stand still */
    }
    return b->is_chunked ? feed_chunked(s, b, data, len) : feed_by_length(s, b, data, len);
}

/* -- the handler's side -- */

void evh_body_say_continue(net_stream *s) {
    struct evh_conn *c = evh_conn_of(s);
    struct evh_body *b = c->body;
    /* RFC 9110 §15.2: nothing informational behind the final status. */
    if (b && b->awaits_continue && b->is_read && b->place == c->answered && !b->len && !c->in_pieces) {
        b->awaits_continue = 0;
        evh_net->write(s, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    }
}

void evh_body_op(ev_loop *loop, net_stream *s, unsigned what, uint64_t exchange, uint32_t target) {
    struct evh_conn *c = s ? evh_conn_of(s) : NULL;
    struct evh_body *b = c ? c->body : NULL;
    if (!b || !b->is_streamed || b->discard || b->place != exchange >> EV_TOKEN_BITS) {
        if (what == EVH_BODY_READ)
            evh_ev->emit(loop, target, NET_BY_PEER, EVH_BODY_LOST, exchange);
        return;
    }
    if (what == EVH_BODY_READ && b->target) {
        evh_ev->emit(loop, target, 0, EVH_BODY_TAKEN, exchange);
        return;
    }
    if (what == EVH_BODY_READ)
        b->target = target;
    b->is_read = what != EVH_BODY_PAUSE;
    evh_net->deadline(s, b->is_read ? c->server->timeouts.body : 0);
    if (b->is_read) {
        evh_body_say_continue(s);
        evh_net->resume(s);
    }
}

/* RFC 9110 §10.1.1 and RFC 9112 §9.3: of a body that was not read, the rest is read and thrown away, or the connection ends. An answer
 * that is sent whole says so in its head; one in pieces may have begun before the body was asked for, and just ends. */
int evh_body_unwanted(net_stream *s, uint16_t place) {
    struct evh_body *b = evh_conn_of(s)->body;
    if (!b || !b->is_streamed || b->place != place || b->target || b->discard)
        return 0;
    b->discard = 1;
    if (b->is_chunked || b->awaits_continue || b->length - b->len > DRAIN_MOST) {
        evh_conn_of(s)->linger = 1;
        return 1;
    }
    evh_net->deadline(s, evh_conn_of(s)->server->timeouts.body);
    evh_net->resume(s);
    return 0;
}
