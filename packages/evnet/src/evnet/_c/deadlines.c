/* One timer serves both deadlines of a stream. Moving a deadline later is a store: the timer goes off at its old time, finds that
 * it is early and starts itself again. Only a deadline that moves earlier touches the wheel. */
#include "internal.h"

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
    if (s->stall && s->stall <= now) {
        s->reset = 1;
        net__stream_end(s, NET_TIMED_OUT);
        return;
    }
    if (s->deadline && s->deadline <= now) {
        s->deadline = 0;
        if (s->phase == NET_LINGERING) {
            net__stream_end(s, s->cause);
            return;
        }
        if (s->phase == NET_OPEN)
            s->protocol->on_timeout(s);
    }
    if (s->deadline)
        ensure(s, s->deadline);
    if (s->stall)
        ensure(s, s->stall);
}

void net__deadline(net_stream *s, uint64_t ms) {
    s->deadline = 0;
    if (ms) {
        s->deadline = ev->now_ms(s->loop) + ms;
        ensure(s, s->deadline);
    }
}

void net__write_timeout(net_stream *s, uint32_t ms) { s->write_timeout_ms = ms; }

void net__stalled(net_stream *s) {
    if (s->write_timeout_ms && !s->stall) {
        s->stall = ev->now_ms(s->loop) + s->write_timeout_ms;
        ensure(s, s->stall);
    }
}

void net__progress(net_stream *s) {
    s->stall = 0;
    s->moved = ev->now_ms(s->loop);
}
