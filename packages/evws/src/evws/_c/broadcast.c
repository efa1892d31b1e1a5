/* One message for many: its frame is made once, and in one operation handed to each connection's kernel buffer as far as that takes it. */
#include "internal.h"

#include <string.h>

enum { COPY_MOST = 4096 }; /* of what a receiver does not take at once; more is borrowed, so that a thousand slow ones cost no memory */

struct shared {
    const uint8_t *frame;
    size_t size, header;
    uint64_t pin;
    uint32_t target, timeout;
};

static int send_frame(struct evw_conn *c, const struct shared *b) {
    size_t taken = evw_net->send_now(c->stream, b->frame, b->size), rest = b->size - taken;
    c->written += b->size;
    if (rest <= COPY_MOST) {
        evw_net->write(c->stream, b->frame + taken, rest);
        return EVW_BROADCAST_SENT;
    }
    evw_net->write_ref(c->stream, b->frame + taken, rest, b->target, (int64_t)b->pin);
    return EVW_BROADCAST_PINNED;
}

static int send_to(ev_loop *loop, uint64_t token, const struct shared *b) {
    net_stream *s = evw_net->find(loop, token, evw_guest.protocol);
    struct evw_conn *c = s ? evw_conn_of(s) : NULL;
    if (!c || c->state != EVW_OPEN || !evw_admitted(&c, b->frame[0], b->size - b->header))
        return EVW_BROADCAST_FAILED;
    int result = EVW_BROADCAST_SENT;
    c->active = evw_ev->now_ms(loop);
    if (c->client)
        evw_write_masked(c, b->frame[0], b->frame + b->header, b->size - b->header);
    else
        result = send_frame(c, b);
    if (b->timeout)
        evw_timing_stall(c, b->timeout);
    return result;
}

void evw_broadcast_op(ev_loop *loop, unsigned header_len, uint64_t count, const uint8_t *p, size_t len) {
    enum { TOKENS = sizeof(struct evw_broadcast) };
    if (len < TOKENS || count > (len - TOKENS) / sizeof(uint64_t))
        return; /* only a bug of ours can make it so short */
    struct evw_broadcast op;
    memcpy(&op, p, sizeof op);
    struct shared b = {
        .frame = (const uint8_t *)(uintptr_t)op.frame,
        .size = (size_t)op.size,
        .header = header_len,
        .pin = op.pin,
        .target = op.target,
        .timeout = op.timeout,
    };
    uint8_t *results = (uint8_t *)(uintptr_t)op.results;
    for (uint64_t i = 0; i < count; i++)
        results[i] = (uint8_t)send_to(loop, evw_get64(p + TOKENS + i * sizeof(uint64_t)), &b);
}
