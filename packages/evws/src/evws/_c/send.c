/* What Python submits: messages, control frames, the end; and the hand-over from HTTP. */
#include "internal.h"

#include <string.h>

enum {
    ONE_WRITE_MOST = 256, /* up to here a frame is put together on the stack: cheaper than queueing header and payload apart */
    /* From here on it goes to the kernel at once, if nothing waits before it, from memory that is in the cache: a queue would be two or more
     * buffers that are not, for each of the connections, and a system call saved for several such messages in a turn gains nothing. */
    AT_ONCE_LEAST = 4096,
};

static void write_at_once(struct evw_conn *c, unsigned first, const void *payload, size_t len) {
    uint8_t *frame = evw_ev->scratch(c->loop);
    size_t size = evw_header_write(frame, first, len, NULL);
    memcpy(frame + size, payload, len);
    size += len;
    c->written += size;
    size_t taken = evw_net->send_now(c->stream, frame, size);
    if (taken < size)
        evw_net->write(c->stream, frame + taken, size - taken);
}

void evw_write(struct evw_conn *c, unsigned first, const void *payload, size_t len) {
    if (c->client) {
        evw_write_masked(c, first, payload, len);
        return;
    }
    if (len >= AT_ONCE_LEAST && len <= EV_SCRATCH_SIZE - EVW_HEADER_MOST) {
        write_at_once(c, first, payload, len);
        return;
    }
    uint8_t frame[EVW_HEADER_MOST + ONE_WRITE_MOST];
    size_t header = evw_header_write(frame, first, len, NULL);
    c->written += header + len;
    if (len <= ONE_WRITE_MOST) {
        if (len)
            memcpy(frame + header, payload, len);
        evw_net->write(c->stream, frame, header + len);
    } else {
        evw_net->write(c->stream, frame, header);
        evw_net->write(c->stream, payload, len);
    }
}

static void write_ref(struct evw_conn *c, unsigned first, const uint8_t *address, size_t len, uint32_t target, int64_t id) {
    if (c->client) {
        evw_write_masked(c, first, address, len);
        evw_ev->emit(c->loop, target, id, 1, 0);
        return;
    }
    uint8_t header[EVW_HEADER_MOST];
    size_t header_len = evw_header_write(header, first, len, NULL);
    c->written += header_len + len;
    evw_net->write(c->stream, header, header_len);
    evw_net->write_ref(c->stream, address, len, target, id);
}

/* Whether `len` bytes more may be queued. What the kernel takes at once does not count. NULL in *c when the connection ended by trying. */
static int has_room(struct evw_conn **c, size_t len) {
    net_stream *s = (*c)->stream;
    if (evw_net->queued(s) <= (*c)->options.max_queue && len <= (*c)->options.max_queue - evw_net->queued(s))
        return 1;
    ev_loop *loop = (*c)->loop;
    ev_token token = evw_net->token(s);
    evw_net->flush(s);
    s = evw_net->find(loop, token, evw_guest.protocol);
    if (!s) {
        *c = NULL;
        return 0;
    }
    /* An empty queue takes any message: one that is larger than the cap could never be sent otherwise. */
    size_t queued = evw_net->queued(s);
    if (!queued || (queued <= (*c)->options.max_queue && len <= (*c)->options.max_queue - queued))
        return 1;
    if (!((*c)->options.flags & EVW_DROP))
        evw_net->abort(s, NET_TOO_MUCH_QUEUED);
    return 0;
}

/* The same for a frame. A message is dropped with all its fragments, or with none. */
int evw_admitted(struct evw_conn **c, unsigned first, size_t len) {
    unsigned opcode = first & 15;
    int drops = ((*c)->options.flags & EVW_DROP) != 0;
    if (drops && opcode == EVW_CONTINUATION) {
        int dropped = (*c)->dropping;
        if (first & EVW_FIN)
            (*c)->dropping = 0;
        return !dropped;
    }
    if (has_room(c, len))
        return 1;
    if (*c && drops) {
        (*c)->dropped++;
        (*c)->dropping = !(first & EVW_FIN);
    }
    return 0;
}

uint32_t evw_get32(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }
uint64_t evw_get64(const uint8_t *p) { return evw_get32(p) | (uint64_t)evw_get32(p + 4) << 32; }

static void send_op(struct evw_conn *c, unsigned first, const uint8_t *payload, size_t len) {
    if (!c || !evw_may_write(c) || !evw_admitted(&c, first, len))
        return;
    c->active = evw_ev->now_ms(c->loop);
    evw_write(c, first, payload, len);
}

static void send_ref_op(ev_loop *loop, struct evw_conn *c, unsigned first, const uint8_t *p, size_t len) {
    if (len < 28)
        return; /* only a bug of ours can make it so short */
    size_t size = (size_t)evw_get64(p + 8);
    uint32_t target = evw_get32(p + 24);
    int64_t id = (int64_t)evw_get64(p + 16);
    if (!c || !evw_may_write(c) || !evw_admitted(&c, first, size)) {
        evw_ev->emit(loop, target, id, 0, 0);
        return;
    }
    c->active = evw_ev->now_ms(loop);
    write_ref(c, first, (const uint8_t *)(uintptr_t)evw_get64(p), size, target, id);
}

static void upgrade_op(ev_loop *loop, uint64_t exchange, const uint8_t *p, size_t len) {
    struct evw_options options;
    if (len < 4 + sizeof options)
        return;
    uint32_t target = evw_get32(p);
    memcpy(&options, p + 4, sizeof options);
    size_t used = 4 + sizeof options;
    net_stream *s = evw_http->upgrade(loop, exchange, p + used, len - used, &evw_guest, sizeof(struct evw_conn));
    if (s)
        evw_conn_begin(s, &options, target);
    else
        evw_ev->emit(loop, target, NET_BY_PEER, EVW_CLOSED, 0);
}

void evw_op(ev_loop *loop, struct ev_module *m, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len) {
    (void)m;
    if (op == EVW_OP_UPGRADE) {
        upgrade_op(loop, id, payload, len);
        return;
    }
    if (op == EVW_OP_ADOPT) {
        evw_adopt_op(loop, id, payload, len);
        return;
    }
    if (op == EVW_OP_BROADCAST) {
        evw_broadcast_op(loop, arg, id, payload, len);
        return;
    }
    net_stream *s = evw_net->find(loop, id, evw_guest.protocol);
    struct evw_conn *c = s ? evw_conn_of(s) : NULL;
    if (op == EVW_OP_SEND)
        send_op(c, arg, payload, len);
    else if (op == EVW_OP_SEND_REF)
        send_ref_op(loop, c, arg, payload, len);
    else if (c && op == EVW_OP_CLOSE)
        evw_conn_close(c, payload, len);
    else if (c && op == EVW_OP_FAIL)
        evw_conn_give_up(c, payload, len);
    else if (c && op == EVW_OP_ABORT)
        evw_net->abort(s, NET_BY_US);
}
