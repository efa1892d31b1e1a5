/* One timer serves all deadlines of a stream. Moving a deadline later is a store: the timer goes off at its old time, finds that
 * it is early and starts itself again. Only a deadline that moves earlier touches the wheel. */
#include "tls.h"

static net_stream *of_timer(struct ev_timer *t) { return (net_stream *)((char *)t - offsetof(net_stream, timer)); }

static void expired(ev_loop *, struct ev_timer *);

static void ensure(net_stream *s, uint64_t at) {
    uint64_t now = ev->now_ms(s->loop);
    if (!s->timer.next || s->timer.due > at + 1)
        ev->timer_start(s->loop, &s->timer, at > now ? at - now : 0, expired);
}

static void expired(ev_loop *loop, struct ev_timer *t) {
    net_stream *s = of_timer(t);
    uint64_t now = ev->now_ms(loop);
    if (s->stall && s->stall <= now && net__moved_quietly(s))
        s->stall = now + s->write_timeout_ms;
    if ((s->stall && s->stall <= now) || (s->close_by && s->close_by <= now)) {
        s->reset = 1;
        net__stream_end(s, NET_TIMED_OUT);
        return;
    }
    if (s->deadline && s->deadline <= now) {
        s->deadline = 0;
        if (s->phase == NET_LINGERING) {
            s->reset |= s->tls && !s->linger_ms;
            net__stream_end(s, s->reset ? NET_TIMED_OUT : s->cause);
            return;
        }
        if (s->phase == NET_OPEN)
            s->protocol->on_timeout(s);
    }
    if (s->deadline)
        ensure(s, s->deadline);
    if (s->stall)
        ensure(s, s->stall);
    if (s->close_by)
        ensure(s, s->close_by);
}

void net__deadline(net_stream *s, uint64_t ms) {
    s->deadline = 0;
    if (ms) {
        s->deadline = ev->now_ms(s->loop) + ms;
        ensure(s, s->deadline);
    }
}

void net__write_timeout(net_stream *s, uint32_t ms) { s->write_timeout_ms = ms; }

void net__close_by(net_stream *s, uint32_t ms) {
    s->close_by = ev->now_ms(s->loop) + ms;
    ensure(s, s->close_by);
}

/* The kernel says that it takes more only when a third of its buffer has become free, which a slow peer may need minutes for; what it
 * still holds tells earlier whether the peer takes anything at all. */
int net__moved_quietly(net_stream *s) {
    uint32_t unsent = s->kind == NET_SOCKET ? net__unsent(s->watcher.fd) : 0;
    int moved = unsent != s->unsent;
    s->unsent = unsent;
    return moved;
}

void net__stalled(net_stream *s) {
    if (s->write_timeout_ms && !s->stall) {
        net__moved_quietly(s);
        s->stall = ev->now_ms(s->loop) + s->write_timeout_ms;
        ensure(s, s->stall);
    }
}

void net__progress(net_stream *s) {
    s->stall = 0;
    s->moved = ev->now_ms(s->loop);
}
