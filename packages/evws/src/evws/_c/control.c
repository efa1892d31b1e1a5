/* Control frames: RFC 6455 §5.5. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A peer that takes nothing and sends pings gets one pong when it begins to read again. RFC 6455 §5.5.3: an endpoint "MAY elect to send a
 * Pong frame for only the most recently processed Ping frame". */
enum { QUEUED_MOST = 64 * 1024 };

int evw_control_room(struct evw_conn *c) {
    if (!c->control)
        c->control = malloc(EVW_CONTROL_MOST);
    if (!c->control)
        evw_net->abort(c->stream, ENOMEM);
    return c->control != NULL;
}

static void pong_task(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    evw_pong_due((struct evw_conn *)((char *)task - offsetof(struct evw_conn, pong_task)));
}

static void pong_later(struct evw_conn *c) {
    if (!c->pong)
        c->pong = malloc(EVW_CONTROL_MOST);
    if (!c->pong) {
        evw_net->abort(c->stream, NET_BY_US);
        return;
    }
    memcpy(c->pong, c->control, c->control_len);
    c->pong_len = c->control_len;
    c->has_pong = 1;
    /* After the flush of this turn: either all is sent then, or the kernel has refused some and on_drained will be called. */
    evw_ev->soon(c->loop, &c->pong_task, pong_task);
}

void evw_pong_due(struct evw_conn *c) {
    if (!c->has_pong || evw_net->queued(c->stream) > QUEUED_MOST)
        return;
    c->has_pong = 0;
    if (c->state == EVW_OPEN)
        evw_write(c, EVW_FIN | EVW_PONG, c->pong, c->pong_len);
}

static void ping_came(struct evw_conn *c) {
    if (c->state != EVW_OPEN)
        return;
    if (evw_net->queued(c->stream) > QUEUED_MOST)
        pong_later(c);
    else
        evw_write(c, EVW_FIN | EVW_PONG, c->control, c->control_len);
    if (c->options.flags & EVW_TELL_PING && c->state == EVW_OPEN)
        evw_tell_bytes(c, EVW_PING_CAME, c->control, c->control_len);
}

static void pong_came(struct evw_conn *c) {
    if (!evw_timing_pong(c) && c->options.flags & EVW_TELL_PONG && c->state == EVW_OPEN)
        evw_tell_bytes(c, EVW_PONG_CAME, c->control, c->control_len);
}

/* RFC 6455 §5.5.1: an endpoint that receives a Close and has not sent one MUST answer with one; it goes back as it came. */
static void close_came(struct evw_conn *c) {
    uint16_t code;
    if (evw_close_read(&c->frames, c->control, c->control_len, &code) == EVW_BAD) {
        evw_conn_fail(c);
        return;
    }
    size_t reason_len = c->control_len > 2 ? c->control_len - 2u : 0;
    evw_tell_coded(c, EVW_CLOSE_CAME, code, c->control + 2, reason_len);
    evw_conn_end(c, c->control, c->control_len, 0);
}

void evw_control(struct evw_conn *c) {
    if (c->frames.opcode == EVW_PING)
        ping_came(c);
    else if (c->frames.opcode == EVW_PONG)
        pong_came(c);
    else
        close_came(c);
}
