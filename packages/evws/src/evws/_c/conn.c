/* A connection: what comes is cut into frames; the closing handshake (RFC 6455 §7); the end. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    LINGER_MS = 2000,
    COMPRESSED_MORE = 64, /* and an eighth: more than zlib's deflateBound for any window and memory level */
};

void evw_tell(struct evw_conn *c, int64_t a, unsigned what, size_t len) {
    evw_ev->emit(c->loop, c->target, a, (int64_t)len << 4 | what, 0);
}

void evw_tell_bytes(struct evw_conn *c, unsigned what, const uint8_t *bytes, size_t len) {
    int64_t offset;
    uint8_t *at = evw_ev->arena_put(c->loop, len, &offset);
    if (len)
        memcpy(at, bytes, len);
    evw_tell(c, offset, what, len);
}

void evw_tell_coded(struct evw_conn *c, unsigned what, unsigned code, const void *reason, size_t len) {
    uint8_t bytes[2 + EVW_REASON_MOST] = {(uint8_t)code, (uint8_t)(code >> 8)};
    if (len)
        memcpy(bytes + 2, reason, len);
    evw_tell_bytes(c, what, bytes, 2 + len);
}

void evw_conn_begin(net_stream *s, const struct evw_options *options, uint32_t target) {
    struct evw_conn *c = evw_conn_of(s);
    c->stream = s;
    c->loop = evw_net->loop(s);
    c->options = *options;
    c->rules = (struct evw_rules){options->max_frame, options->max_message, .masked = 1};
    if (options->flags & EVW_DEFLATE) {
        c->rules.compression = 1;
        c->rules.excess = options->max_message / 8 + COMPRESSED_MORE;
    }
    c->target = target;
    evw_net->write_timeout(s, options->write);
    evw_timing_begin(c);
}

void evw_conn_close(struct evw_conn *c, const uint8_t *payload, size_t len) {
    if (c->state == EVW_ANSWERING) { /* ours crosses the peer's: it is the answer */
        memcpy(c->control, payload, len);
        c->close_len = (uint8_t)len;
        return;
    }
    if (c->state != EVW_OPEN)
        return;
    evw_write(c, EVW_FIN | EVW_CLOSE, payload, len);
    c->state = EVW_CLOSING;
    evw_message_drop(c);
    if (c->options.close)
        c->close_by = evw_ev->now_ms(c->loop) + c->options.close;
    c->ping_at = c->pong_by = 0;
    evw_timing_settle(c);
}

/* A peer in the middle of sending would not get to read our Close before the reset that closing makes of unread bytes: we linger. RFC 6455
 * §7.1.1: it is the server that closes the connection first. */
static void end(struct evw_conn *c) {
    c->state = EVW_ENDING;
    if (c->linger)
        evw_net->linger(c->stream, NET_BY_US, LINGER_MS);
    else if (c->client)
        evw_client_await_end(c);
    else
        evw_net->close(c->stream, NET_BY_US);
}

static void answer_close(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    struct evw_conn *c = (struct evw_conn *)((char *)task - offsetof(struct evw_conn, close_task));
    if (c->state < EVW_ANSWERING && c->eof) {
        evw_net->close(c->stream, NET_BY_PEER);
        return;
    }
    if (c->state != EVW_ANSWERING) /* the stream has ended meanwhile */
        return;
    evw_write(c, EVW_FIN | EVW_CLOSE, c->control, c->close_len);
    end(c);
}

void evw_conn_end(struct evw_conn *c, const uint8_t *payload, size_t len, int linger) {
    evw_message_drop(c);
    c->linger = (uint8_t)linger;
    if (c->state != EVW_OPEN) { /* our Close has been sent */
        end(c);
        return;
    }
    if (!evw_control_room(c))
        return;
    c->state = EVW_ANSWERING;
    memmove(c->control, payload, len);
    c->close_len = (uint8_t)len;
    if (!c->eof) /* else it is on its way */
        evw_ev->next_turn(c->loop, &c->close_task, answer_close);
}

/* RFC 6455 §7.1.7 */
void evw_conn_fail(struct evw_conn *c) {
    const struct evw_frames *f = &c->frames;
    size_t len = strlen(f->reason);
    evw_tell_coded(c, EVW_FAILED, f->code, f->reason, len);
    uint8_t payload[2 + EVW_REASON_MOST] = {(uint8_t)(f->code >> 8), (uint8_t)f->code};
    memcpy(payload + 2, f->reason, len);
    evw_conn_end(c, payload, 2 + len, 1);
}

void evw_conn_give_up(struct evw_conn *c, const uint8_t *payload, size_t len) {
    if (c->state == EVW_ANSWERING) { /* the answer to the peer's Close, which came behind the message */
        memcpy(c->control, payload, len);
        c->close_len = (uint8_t)len;
    } else if (c->state < EVW_ANSWERING) {
        evw_conn_end(c, payload, len, 1);
    }
}

/* One header, or one run of payload; returns what it has used of `len`. */
static size_t step(struct evw_conn *c, const uint8_t *data, size_t len) {
    size_t used = 0;
    if (!c->in_payload) {
        int result = evw_header(&c->frames, &c->rules, data, len, &used);
        if (result == EVW_BAD)
            evw_conn_fail(c);
        if (result != EVW_DONE)
            return used;
        c->in_payload = 1;
    }
    return used + evw_data(c, data + used, len - used);
}

static size_t on_bytes(net_stream *s, const uint8_t *data, size_t len) {
    struct evw_conn *c = evw_conn_of(s);
    size_t used = 0;
    if (c->pong_by) /* it lives, even if what it is sending keeps its pong waiting */
        c->pong_by = evw_ev->now_ms(c->loop) + c->options.ping_timeout;
    while (used < len && c->state < EVW_ANSWERING)
        used += step(c, data + used, len - used);
    if (used < len)
        c->linger = 1;
    return len; /* after the end nothing is looked at */
}

/* A peer that closes its side without a Close may still read: what it said before is answered, in the turn in which Python hears of it. */
static void on_eof(net_stream *s) {
    struct evw_conn *c = evw_conn_of(s);
    if (c->state == EVW_OPEN) {
        c->eof = 1;
        evw_ev->next_turn(c->loop, &c->close_task, answer_close);
    } else if (c->state != EVW_ANSWERING) { /* else our Close is still to come */
        evw_net->close(s, NET_BY_PEER);
    }
}

static void on_drained(net_stream *s) {
    struct evw_conn *c = evw_conn_of(s);
    c->stall_by = 0;
    evw_pong_due(c);
    if (c->options.flags & EVW_TELL_DRAINED && c->state == EVW_OPEN)
        evw_tell(c, 0, EVW_DRAINED, 0);
}

static void on_timeout(net_stream *s) {
    struct evw_conn *c = evw_conn_of(s);
    if (c->state < EVW_ANSWERING)
        evw_timing_expired(c);
    else if (c->state == EVW_ENDING) /* as a client: the server does not close */
        evw_net->abort(s, NET_BY_US);
}

static void on_close(net_stream *s, int cause) {
    struct evw_conn *c = evw_conn_of(s);
    if (c->client && c->state == EVW_ENDING && !c->linger) /* however the server ends it now, we were done */
        cause = NET_BY_US;
    c->state = EVW_ENDING;
    evw_message_drop(c);
    free(c->control);
    free(c->pong);
    c->control = c->pong = NULL;
    c->has_pong = 0;
    evw_tell(c, cause, EVW_CLOSED, 0);
    if (c->client)
        evw_client_left(c);
    else
        evw_http->left(s);
}

static void go_away(net_stream *s) {
    struct evw_conn *c = evw_conn_of(s);
    static const uint8_t payload[2] = {EVW_GOING_AWAY >> 8, EVW_GOING_AWAY & 255};
    if (c->state == EVW_OPEN)
        evw_tell(c, 0, EVW_LEAVING, 0);
    evw_conn_close(c, payload, sizeof payload);
}

static const struct net_protocol protocol = {
    .name = "websocket",
    .on_bytes = on_bytes,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_timeout = on_timeout,
    .on_close = on_close,
};

const struct evh_guest evw_guest = {.protocol = &protocol, .go_away = go_away};
