/* The protocol of streams without a native one: bytes, ends and back-pressure become events of a Connection in Python.
 *
 * A stream is accepted paused. The listener's target is told its token; Python makes a Connection with a number of its own and
 * answers with EVNET_OP_ADOPT, whereupon the bytes begin to flow. So no event can reach anybody but its own Connection. */
#include "internal.h"
#include "tls.h"
#include "shim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct state {
    uint32_t number; /* of the Connection */
    uint32_t idle_timeout_ms;
    size_t high_water;
    uint8_t told_to_pause;
};

struct python_listener {
    uint32_t target;
    struct evnet_options options;
};

static struct state *state_of(net_stream *s) { return (struct state *)s->state; }

static void tell(net_stream *s, int32_t a, int32_t b) {
    if (state_of(s)->number) /* else Python has not heard of it: see stale_op */
        net__events_add(s->module, state_of(s)->number, a, b);
}

static void idle_again(net_stream *s) {
    if (state_of(s)->idle_timeout_ms)
        net__deadline(s, state_of(s)->idle_timeout_ms);
}

static size_t on_bytes(net_stream *s, const uint8_t *data, size_t len) {
    int64_t offset;
    uint8_t *place = ev->arena_reserve(s->loop, len, &offset);
    if (data != place) /* see net__read: mostly they lie there already */
        memcpy(place, data, len);
    ev->arena_commit(s->loop, offset, len);
    tell(s, (int32_t)offset, (int32_t)(offset + (int64_t)len));
    idle_again(s);
    return len;
}

static void on_eof(net_stream *s) { tell(s, 0, EVNET_EOF); }

static void on_drained(net_stream *s) {
    if (state_of(s)->told_to_pause) {
        state_of(s)->told_to_pause = 0;
        tell(s, 0, EVNET_RESUME_WRITING);
    }
}

static void on_timeout(net_stream *s) {
    /* A peer that still takes what was written long ago is not idle. */
    uint64_t quiet = ev->now_ms(s->loop) - s->moved;
    if (quiet < state_of(s)->idle_timeout_ms)
        net__deadline(s, state_of(s)->idle_timeout_ms - quiet);
    else if (net__moved_quietly(s))
        net__deadline(s, state_of(s)->idle_timeout_ms);
    else
        net__abort(s, NET_TIMED_OUT);
}

static void on_close(net_stream *s, int cause) { tell(s, cause, EVNET_CLOSED); }

const struct net_protocol net__python_protocol = {
    .name = "python",
    .on_bytes = on_bytes,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_timeout = on_timeout,
    .on_close = on_close,
};

static void set_up(net_stream *s, const struct evnet_options *options) {
    struct state *state = state_of(s);
    state->idle_timeout_ms = options->idle_timeout_ms;
    state->high_water = options->high_water;
    s->out.low_water = options->low_water;
    net__limit_queued(s, options->max_queued);
    net__write_timeout(s, options->write_timeout_ms);
    net__pause(s);
}

static void accepted(net_listener *l, net_stream *s) {
    const struct python_listener *listener = l->owner;
    if (l->closed) { /* its handshake was under way; nobody takes it any more */
        net__abort(s, NET_BY_US);
        return;
    }
    set_up(s, &listener->options);
    int64_t offset;
    memcpy(ev->arena_reserve(s->loop, sizeof s->peer, &offset), &s->peer, sizeof s->peer);
    ev->arena_commit(s->loop, offset, sizeof s->peer);
    ev->emit(s->loop, listener->target, offset, s->watcher.fd, s->watcher.token);
}

int net__python_listen(ev_loop *loop, int fd, uint32_t target, const struct evnet_options *options, net_listener **out) {
    struct python_listener *owner = malloc(sizeof *owner);
    if (!owner)
        return -ENOMEM;
    *owner = (struct python_listener){target, *options};
    int rc = net__listen(loop, fd, &net__python_protocol, sizeof(struct state), accepted, owner, out);
    if (rc < 0)
        free(owner);
    else
        (*out)->free_owner = 1;
    return rc;
}

int net__python_adopt(ev_loop *loop, int fd, const struct evnet_options *options, uint64_t *token, struct net_address *peer) {
    net_stream *s;
    int rc = net__open_on(loop, fd, &net__python_protocol, sizeof(struct state), options->kind, options->one_way, &s);
    if (rc == 0) {
        set_up(s, options);
        *token = s->watcher.token;
        *peer = s->peer;
    }
    return rc;
}

net_stream *net__python_take(ev_loop *loop, ev_token token, const struct net_protocol *protocol, const void *rest, size_t len) {
    _Static_assert(sizeof(struct state) >= 16, "evnet.h promises so much");
    net_stream *s = net__stream_find(loop, token, &net__python_protocol);
    if (!s || s->phase != NET_OPEN)
        return NULL;
    if (!net__keep(s, rest, len)) {
        net__abort(s, ENOMEM);
        return NULL;
    }
    tell(s, NET_BY_US, EVNET_CLOSED); /* nothing more comes for that number */
    memset(s->state, 0, sizeof(struct state));
    s->protocol = protocol;
    s->out.low_water = 0;
    net__limit_queued(s, 0);
    net__write_timeout(s, 0);
    net__deadline(s, 0);
    s->paused = 0;
    if (s->tls) {
        s->tls->eof_due = s->tls->peer_end;
    } else if (s->eof) { /* the kernel says so again */
        s->eof = 0;
        s->readable = 1;
    }
    return s;
}

/* What the kernel takes at once does not count: the flush of this turn decides. */
static void look_at_water(net_stream *s) {
    struct state *state = state_of(s);
    idle_again(s);
    if (s->phase != NET_OPEN || s->out.queued <= state->high_water || state->told_to_pause)
        return;
    net__flush(s);
    if (s->phase == NET_OPEN && s->out.queued > state->high_water) {
        state->told_to_pause = 1;
        s->refused = 1; /* so that on_drained is called in any case */
        tell(s, 0, EVNET_PAUSE_WRITING);
    }
}

/* Written bytes wait for what else is written to the stream in this turn. When very many streams are written to, as a message to
 * everybody does, what waits would be more memory than the loop's pool and the processor's cache hold: then they are sent at once. */
enum { MANY_WAITING = 256 };

static void write_op(net_stream *s, const uint8_t *payload, size_t len) {
    size_t taken = s->module->waiting >= MANY_WAITING ? net__send_now(s, payload, len) : 0;
    net__write(s, payload + taken, len - taken);
    look_at_water(s);
}

size_t net__python_high_water(net_stream *s) { return state_of(s)->high_water; }

static void limits_op(net_stream *s, uint64_t high, uint64_t low) {
    state_of(s)->high_water = high;
    s->out.low_water = low;
    look_at_water(s);
    if (s->out.queued <= low)
        on_drained(s);
}

/* A file or borrowed memory comes back, whatever has become of the stream. */
struct ref_op {
    uint64_t address, length;
    int64_t id;
    uint32_t target;
};

struct file_op {
    uint64_t offset, count;
    int64_t id;
    uint32_t target;
    int32_t fd;
};

enum { REF_OP_SIZE = offsetof(struct ref_op, target) + 4, FILE_OP_SIZE = offsetof(struct file_op, fd) + 4 };

static void ref_op(ev_loop *loop, net_stream *s, const uint8_t *payload) {
    struct ref_op op;
    memcpy(&op, payload, REF_OP_SIZE);
    if (!s) {
        ev->emit(loop, op.target, op.id, 0, 0);
        return;
    }
    net__write_ref(s, (const void *)(uintptr_t)op.address, op.length, op.target, op.id);
    look_at_water(s);
}

static void file_op(ev_loop *loop, net_stream *s, const uint8_t *payload) {
    struct file_op op;
    memcpy(&op, payload, FILE_OP_SIZE);
    if (!s) {
        close(op.fd);
        ev->emit(loop, op.target, op.id, 0, 0);
        return;
    }
    net__write_file_told(s, op.fd, op.offset, op.count, op.target, op.id);
    look_at_water(s);
}

static void close_op(net_stream *s, const uint8_t *payload, size_t len) {
    /* A peer that takes nothing keeps no closed connection either. */
    if (!s->write_timeout_ms)
        net__write_timeout(s, state_of(s)->idle_timeout_ms ? state_of(s)->idle_timeout_ms : s->tls ? s->tls->shutdown_ms : 0);
    if (s->blocked)
        net__stalled(s);
    net__close(s, NET_BY_US);
    if (len == sizeof(uint32_t)) {
        uint32_t ms;
        memcpy(&ms, payload, sizeof ms);
        net__close_by(s, ms);
    }
}

static void broadcast_op(ev_loop *loop, uint64_t count, const uint8_t *payload, size_t len) {
    if (count > len / sizeof(uint64_t))
        return;
    const uint8_t *data = payload + count * sizeof(uint64_t);
    size_t size = len - (size_t)count * sizeof(uint64_t);
    for (; count; count--, payload += sizeof(uint64_t)) {
        uint64_t token;
        memcpy(&token, payload, sizeof token);
        net_stream *s = net__stream_find(loop, token, &net__python_protocol);
        if (!s)
            continue;
        size_t taken = net__send_now(s, data, size);
        net__write(s, data + taken, size - taken);
        look_at_water(s);
    }
}

static void stale_op(ev_loop *loop, unsigned op, const uint8_t *payload, size_t len) {
    if (op == EVNET_OP_ADOPT && len == sizeof(uint32_t)) { /* it ended before anybody could be told */
        uint32_t number;
        memcpy(&number, payload, sizeof number);
        net__events_add(net__module(loop), number, ECONNABORTED, EVNET_CLOSED);
    } else if (op == EVNET_OP_WRITE_REF && len == REF_OP_SIZE) {
        ref_op(loop, NULL, payload);
    } else if (op == EVNET_OP_WRITE_FILE && len == FILE_OP_SIZE) {
        file_op(loop, NULL, payload);
    }
}

void net__python_op(ev_loop *loop, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len) {
    (void)arg;
    if (op == EVNET_OP_BROADCAST) {
        broadcast_op(loop, id, payload, len);
        return;
    }
    net_stream *s = net__stream_find(loop, id, &net__python_protocol);
    if (!s) {
        stale_op(loop, op, payload, len);
        return;
    }
    switch (op) {
    case EVNET_OP_ADOPT:
        if (len == sizeof(uint32_t)) {
            memcpy(&state_of(s)->number, payload, sizeof(uint32_t));
            idle_again(s);
            net__resume(s);
        }
        break;
    case EVNET_OP_WRITE:
        write_op(s, payload, len);
        break;
    case EVNET_OP_WRITE_REF:
        if (len == REF_OP_SIZE)
            ref_op(loop, s, payload);
        break;
    case EVNET_OP_WRITE_FILE:
        if (len == FILE_OP_SIZE)
            file_op(loop, s, payload);
        break;
    case EVNET_OP_LIMITS: {
        uint64_t limits[2];
        if (len == sizeof limits) {
            memcpy(limits, payload, sizeof limits);
            limits_op(s, limits[0], limits[1]);
        }
        break;
    }
    case EVNET_OP_CLOSE:
        close_op(s, payload, len);
        break;
    case EVNET_OP_ABORT:
        net__abort(s, NET_BY_US);
        break;
    case EVNET_OP_FINISH:
        net__finish(s);
        break;
    case EVNET_OP_PAUSE:
        net__pause(s);
        break;
    case EVNET_OP_RESUME:
        net__resume(s);
        break;
    default:
        break;
    }
}
