/* A connection as its own files see it. */
#ifndef EVW_INTERNAL_H
#define EVW_INTERNAL_H

#include "close.h"
#include "evhttp.h"
#include "frame.h"
#include "shim.h"

extern const struct ev_capi *evw_ev; /* set once, by the link functions */
extern const struct net_capi *evw_net;
extern const struct evh_capi *evw_http;

/* States of a connection, in this order only:
 *   OPEN       messages go both ways
 *   CLOSING    we have sent a Close: we write nothing more, and of what comes only the Close is looked at
 *   ANSWERING  the peer's Close has come, or what it sent was wrong: nothing more is looked at, and our Close goes out when Python has
 *              answered the messages that came before it
 *   ENDING     both Closes are on their way: the stream closes when all is sent
 * From CLOSING the way leads to ENDING. */
enum evw_state { EVW_OPEN, EVW_CLOSING, EVW_ANSWERING, EVW_ENDING };

/* Behind its stream (evhttp.h, upgrade). Zeroed when made. */
struct evw_conn {
    net_stream *stream;
    ev_loop *loop;
    struct evw_options options;
    struct evw_rules rules;
    struct evw_frames frames;
    uint32_t target;
    uint8_t state;
    uint8_t in_payload; /* a frame's header has come */
    uint8_t control_len, pong_len, close_len;
    uint8_t linger; /* the peer may still be sending when we close */
    uint8_t eof;    /* it sends no more, without a Close: the end comes with the next turn */
    uint8_t dropping; /* the rest of a message that we were to send */
    uint8_t has_pong; /* one waits until the peer takes what is queued */
    uint8_t pinged;   /* and not answered yet */
    uint8_t *control; /* EVW_CONTROL_MOST bytes: of the control frame under way; while ANSWERING that of our Close; else NULL */
    uint8_t *pong;    /* the payload that waits */
    uint8_t *message; /* the one under way, as far as it has come; NULL when there is nothing */
    size_t message_len, message_capacity;
    /* ms on the loop's clock, 0 for none: when to ping, to give up on the pong, on the Close; when a message last came or went */
    uint64_t ping_at, pong_by, close_by, active;
    uint64_t ping_ns, ping_number;
    int64_t latency_ns; /* plus 1; 0: not known */
    uint64_t dropped;
    /* A broadcast that must be taken in time: what had been written with it, of all that was; when to look, 0 for none. */
    uint64_t written, stall_mark, stall_by;
    uint32_t stall_ms;
    uint8_t client; /* our role: the memory is our own, not evhttp's */
    struct ev_task reap;
    struct ev_task pong_task, close_task;
};

/* What evws keeps for one loop. */
struct evw_module {
    struct ev_module module;
    uint32_t keys[64]; /* masks nobody can foretell, RFC 6455 §5.3; the first `keys_left` are unused */
    unsigned keys_left;
};

static inline struct evw_conn *evw_conn_of(net_stream *s) { return *(struct evw_conn **)evw_net->state(s); }

/* conn.c */
extern const struct evh_guest evw_guest;
void evw_conn_begin(net_stream *, const struct evw_options *, uint32_t target);
void evw_conn_close(struct evw_conn *, const uint8_t *payload, size_t len); /* begins the closing handshake, once */
void evw_conn_end(struct evw_conn *, const uint8_t *payload, size_t len, int linger); /* ends it, from the peer's side; payload of our Close */
void evw_conn_fail(struct evw_conn *);                                      /* for what frames.code and reason say */
void evw_conn_give_up(struct evw_conn *, const uint8_t *payload, size_t len); /* for what Python has seen in a message */
static inline int evw_may_write(const struct evw_conn *c) { return c->state == EVW_OPEN || c->state == EVW_ANSWERING; }
void evw_tell(struct evw_conn *, int64_t a, unsigned what, size_t len);
void evw_tell_bytes(struct evw_conn *, unsigned what, const uint8_t *, size_t len);
void evw_tell_coded(struct evw_conn *, unsigned what, unsigned code, const void *reason, size_t len);

/* message.c: what data frames carry */
size_t evw_data(struct evw_conn *, const uint8_t *data, size_t len); /* takes payload of the frame under way; returns how much */
void evw_message_drop(struct evw_conn *);

/* control.c: what control frames ask for */
int evw_control_room(struct evw_conn *); /* makes c->control; 0: there is no memory, and the stream has been aborted */
void evw_control(struct evw_conn *);  /* one has come whole, in c->control */
void evw_pong_due(struct evw_conn *); /* perhaps the one that waits can go now */

/* timing.c */
void evw_timing_begin(struct evw_conn *);
void evw_timing_settle(struct evw_conn *); /* after one of the times has changed */
void evw_timing_expired(struct evw_conn *);
int evw_timing_pong(struct evw_conn *); /* whether c->control answers a ping of our own */

void evw_timing_stall(struct evw_conn *, uint32_t ms); /* what has just been written must be taken in time */

/* send.c */
void evw_write(struct evw_conn *, unsigned first, const void *payload, size_t len); /* payload: not in the loop's scratch memory */
int evw_admitted(struct evw_conn **, unsigned first, size_t len); /* whether a frame may be queued; NULL when the stream ended by trying */
uint32_t evw_get32(const uint8_t *);
uint64_t evw_get64(const uint8_t *);

/* client.c: our side when it was we who connected */
void evw_adopt_op(ev_loop *, uint64_t token, const uint8_t *payload, size_t len);
void evw_write_masked(struct evw_conn *, unsigned first, const void *payload, size_t len);
void evw_client_await_end(struct evw_conn *); /* both Closes are on their way */
void evw_client_left(struct evw_conn *);      /* the stream is gone */

/* broadcast.c */
void evw_broadcast_op(ev_loop *, unsigned header_len, uint64_t count, const uint8_t *payload, size_t len);
void evw_op(ev_loop *, struct ev_module *, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len);

#endif
