/* Times: keep-alive pings, idle peers, closing handshakes that do not end. One deadline of the stream serves them all; it is set for the
 * earliest and looked at again when it has passed, so that a message costs a store. */
#include "internal.h"

#include <string.h>
#include <time.h>

/* The loop's clock has ticks of 1 ms, too coarse for a round trip. */
static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t idle_at(const struct evw_conn *c) {
    return c->options.idle && c->state == EVW_OPEN ? c->active + c->options.idle : 0;
}

static uint64_t earlier(uint64_t a, uint64_t b) { return !a || (b && b < a) ? b : a; }

void evw_timing_settle(struct evw_conn *c) {
    uint64_t at = earlier(earlier(earlier(c->ping_at, c->pong_by), earlier(c->close_by, idle_at(c))), c->stall_by);
    uint64_t now = evw_ev->now_ms(c->loop);
    evw_net->deadline(c->stream, !at ? 0 : at > now ? at - now : 1);
}

void evw_timing_begin(struct evw_conn *c) {
    c->active = evw_ev->now_ms(c->loop);
    if (c->options.ping_interval)
        c->ping_at = c->active + c->options.ping_interval;
    evw_timing_settle(c);
}

/* Whether the kernel has taken what was written up to the mark: what came behind it is all that waits. What waits may be enciphered, and so
 * a little longer than what was written. */
static int mark_taken(const struct evw_conn *c) {
    enum { CIPHER_MORE = 256 };
    uint64_t behind = c->written - c->stall_mark, queued = evw_net->queued(c->stream);
    return behind ? queued <= behind + CIPHER_MORE : !queued;
}

static void set_mark(struct evw_conn *c) {
    c->stall_mark = c->written;
    c->stall_by = evw_ev->now_ms(c->loop) + c->stall_ms;
}

/* One mark at a time: what is written while one waits is looked at when that has been taken, so it gets up to twice its time. */
void evw_timing_stall(struct evw_conn *c, uint32_t ms) {
    if (!evw_net->queued(c->stream))
        return;
    c->stall_ms = ms;
    if (c->stall_by && !mark_taken(c))
        return;
    set_mark(c);
    evw_timing_settle(c);
}

/* Returns 0 when the peer has stalled. */
static int look_at_mark(struct evw_conn *c, uint64_t now) {
    if (!c->stall_by || c->stall_by > now)
        return 1;
    if (!mark_taken(c))
        return 0;
    c->stall_by = 0;
    if (evw_net->queued(c->stream))
        set_mark(c);
    return 1;
}

static void ping(struct evw_conn *c, uint64_t now) {
    c->ping_at = now + c->options.ping_interval;
    if (c->pong_by)
        return; /* the last one is still to be answered */
    c->ping_number++;
    c->ping_ns = now_ns();
    c->pinged = 1;
    if (c->options.ping_timeout)
        c->pong_by = now + c->options.ping_timeout;
    evw_write(c, EVW_FIN | EVW_PING, &c->ping_number, sizeof c->ping_number);
}

int evw_timing_pong(struct evw_conn *c) {
    if (!c->pinged || c->control_len != sizeof c->ping_number || memcmp(c->control, &c->ping_number, sizeof c->ping_number) != 0)
        return 0;
    c->pinged = 0;
    c->pong_by = 0;
    c->latency_ns = (int64_t)(now_ns() - c->ping_ns) + 1;
    return 1;
}

void evw_timing_expired(struct evw_conn *c) {
    uint64_t now = evw_ev->now_ms(c->loop), idle = idle_at(c);
    if ((c->close_by && c->close_by <= now) || (c->pong_by && c->pong_by <= now) || !look_at_mark(c, now)) {
        evw_net->abort(c->stream, NET_TIMED_OUT);
        return;
    }
    if (idle && idle <= now) {
        static const uint8_t payload[] = {EVW_GOING_AWAY >> 8, EVW_GOING_AWAY & 255, 'i', 'd', 'l', 'e'};
        evw_tell(c, 0, EVW_LEAVING, 0);
        evw_conn_close(c, payload, sizeof payload);
        return;
    }
    if (c->ping_at && c->ping_at <= now)
        ping(c, now);
    evw_timing_settle(c);
}
