/* The protocol of streams without a native one: bytes, ends and back-pressure become records for a Connection in Python.
 *
 * A stream is accepted paused. The listener's target is told its token; Python makes a Connection with a target of its own and
 * answers with EVNET_OP_ADOPT, whereupon the bytes begin to flow. So no record can reach anybody but its own Connection. */
#include "internal.h"
#include "shim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { HIGH_WATER = 64 * 1024 };

struct state {
    uint32_t target;
    uint32_t idle_timeout_ms;
    uint32_t high_water;
    uint8_t told_to_pause;
};

struct python_listener {
    uint32_t target;
    uint32_t idle_timeout_ms;
};

static struct state *state_of(net_stream *s) { return (struct state *)s->state; }

static void tell(net_stream *s, int64_t a, int64_t b) { ev->emit(s->loop, state_of(s)->target, a, b, s->watcher.token); }

static void idle_again(net_stream *s) {
    if (state_of(s)->idle_timeout_ms)
        net__deadline(s, state_of(s)->idle_timeout_ms);
}

static size_t on_bytes(net_stream *s, const uint8_t *data, size_t len) {
    int64_t offset;
    memcpy(ev->arena_put(s->loop, len, &offset), data, len);
    tell(s, offset, (int64_t)len);
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

static void accepted(net_listener *l, net_stream *s) {
    const struct python_listener *listener = l->owner;
    struct state *state = state_of(s);
    state->idle_timeout_ms = listener->idle_timeout_ms;
    state->high_water = HIGH_WATER;
    net__pause(s);
    int64_t offset;
    memcpy(ev->arena_put(s->loop, sizeof s->peer, &offset), &s->peer, sizeof s->peer);
    ev->emit(s->loop, listener->target, offset, s->watcher.fd, s->watcher.token);
}

int net__python_listen(ev_loop *loop, int fd, uint32_t target, uint32_t idle_timeout_ms, net_listener **out) {
    struct python_listener *owner = malloc(sizeof *owner);
    if (!owner)
        return -ENOMEM;
    *owner = (struct python_listener){target, idle_timeout_ms};
    int rc = net__listen(loop, fd, &net__python_protocol, sizeof(struct state), accepted, owner, out);
    if (rc < 0)
        free(owner);
    else
        (*out)->free_owner = 1;
    return rc;
}

static void write_op(net_stream *s, const uint8_t *payload, size_t len) {
    net__write(s, payload, len);
    idle_again(s);
    struct state *state = state_of(s);
    if (s->out.queued > state->high_water && !state->told_to_pause) {
        /* What the kernel takes at once does not count: the flush of this turn decides. */
        net__flush(s);
        if (s->phase == NET_OPEN && s->out.queued > state->high_water) {
            state->told_to_pause = 1;
            tell(s, (int64_t)s->out.queued, EVNET_PAUSE_WRITING);
        }
    }
}

void net__python_op(ev_loop *loop, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len) {
    net_stream *s = net__stream_find(loop, id, &net__python_protocol);
    if (!s) {
        if (op == EVNET_OP_ADOPT && len == sizeof(uint32_t)) { /* it ended before anybody could be told */
            uint32_t target;
            memcpy(&target, payload, sizeof target);
            ev->emit(loop, target, ECONNABORTED, EVNET_CLOSED, id);
        }
        return;
    }
    (void)arg;
    switch (op) {
    case EVNET_OP_ADOPT:
        if (len == sizeof(uint32_t)) {
            memcpy(&state_of(s)->target, payload, sizeof(uint32_t));
            idle_again(s);
            net__resume(s);
        }
        break;
    case EVNET_OP_WRITE:
        write_op(s, payload, len);
        break;
    case EVNET_OP_CLOSE:
        net__close(s, NET_BY_US);
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
