/* The HTTP server as its own files see it. */
#ifndef EVH_INTERNAL_H
#define EVH_INTERNAL_H

#include "chunked.h"
#include "evhttp.h"
#include "evnet.h"
#include "parser.h"
#include "shim.h"

extern const struct ev_capi *evh_ev;   /* set once, by evhttp_link_loop */
extern const struct net_capi *evh_net; /* and evhttp_link_net */

enum {
    EVH_PIPELINE_MOST = 64,
    EVH_PLACES = 1 << 15, /* places of requests in a connection count modulo this */
    EVH_DATE_LEN = 29,
};

/* What evhttp keeps for one loop. */
struct evh_module {
    struct ev_module module;
    ev_loop *loop;
    struct evh_server *servers;
    struct evh_parser parser; /* for heads that come whole: connections have none of their own */
    uint64_t date_checked;
    int64_t date_second;
    char date[EVH_DATE_LEN + 1];
    char ok[80]; /* how the head of a 200 begins: status line and Date */
    size_t ok_len;
};

struct evh_listener {
    net_listener *listener;
    struct evh_listener *next;
};

struct evh_server {
    struct evh_module *module;
    struct evh_server *next;
    struct evh_listener *listeners;
    struct evh_conn *conns;
    unsigned conn_count;
    struct evh_limits limits;
    struct evh_timeouts timeouts;
    struct evh_options options; /* its networks are copied */
    struct evh_counts counts;
    struct ev_task tell_guests; /* that we are closed, when a guest has come since */
    uint8_t closed;
    /* The requests of this turn of which Python has not been told yet. */
    struct evh_arrival *arrived;
    size_t arrived_count, arrived_capacity;
    struct ev_task tell;
};

/* A body under way. */
struct evh_body {
    struct evh_chunked chunked;
    uint64_t length; /* by Content-Length */
    uint64_t len;    /* that has come */
    uint8_t is_chunked;
    /* Gathered: what will go to the arena before the body, and the body so far. */
    uint8_t *head;
    uint32_t head_len;
    int64_t info;
    uint8_t *data;
    size_t capacity;
    /* Streamed: its request, and what the handler wants. */
    uint8_t is_streamed;
    uint8_t is_read;         /* wanted now; else it stays with the client */
    uint8_t discard;         /* the rest is of no interest to anybody */
    uint8_t awaits_continue; /* the client wants to be asked for it */
    uint16_t place;
    uint32_t target; /* 0: the handler has not asked for it */
};

enum evh_answer_kind { EVH_BYTES, EVH_REF, EVH_FILE };
enum evh_answer_step { EVH_WHOLE, EVH_HEAD_STEP, EVH_PIECE_STEP, EVH_END_STEP, EVH_INFO_STEP };

/* One answer or a step of one, as submitted. The pointers lead into the submission ring, or behind the struct when it has to wait. */
struct evh_answer {
    struct evh_answer *next;
    uint16_t place, status;
    uint16_t arg; /* content type and EVH_ANSWER_* bits, as submitted */
    enum evh_answer_kind kind;
    enum evh_answer_step step;
    const uint8_t *headers, *body;
    size_t headers_len;
    uint64_t body_len, offset, id;
    uint32_t target;
    int fd;
};

/* Python wants to hear of this exchange. */
struct evh_watch {
    struct evh_watch *next;
    uint32_t target;
    uint16_t place;
};

/* What a connection keeps, behind its stream. The requests taken and not answered are those with places from `answered` up to,
 * not including, `asked`. */
struct evh_conn {
    void *guest_state; /* first: a guest finds it there (conn.c, struct guest_state) */
    const struct evh_guest *guest; /* whose connection it is after an upgrade, else NULL */
    struct evh_server *server;
    net_stream *stream;
    struct evh_conn *next, **link;
    struct evh_parser *partial; /* a head that did not come whole */
    struct evh_body *body;
    struct evh_answer *waiting; /* answers and steps whose turn has not come, by place, then in order */
    struct evh_watch *watches;
    struct ev_task tell; /* to see, after the flush, what the client's socket has taken */
    uint64_t piece_length; /* of the answer under way in pieces: what HEAD said */
    uint64_t is_head, is_old;   /* bit place % 64: the request was HEAD; was HTTP/1.0 with keep-alive */
    uint16_t asked, answered;
    uint8_t last;     /* no further request is taken; closes after the answer to the last one */
    uint8_t parting;  /* `last` is the server's wish: the client may be sending, and may be handed over to a guest all the same */
    uint8_t untold;   /* the server ends, and no answer's head could say so yet: may ask once more */
    uint8_t eof;      /* the client will send no more */
    uint8_t linger;   /* the peer may still be sending when we close */
    uint8_t full;     /* paused: too many unanswered requests, or unsent bytes */
    uint8_t must_say_continue;
    uint8_t tell_taken; /* PIECE wants to know */
    uint8_t in_pieces;  /* the answer at `answered` has begun */
    uint16_t piece_status; /* with this */
    uint16_t refused;   /* the status with which a request was refused, the last thing that happens here */
    uint16_t timed;     /* 1 + the place for whose answer the deadline runs; 0: for none */
    uint32_t taken;     /* requests in all */
    uint16_t marks;     /* EVH_INFO_* of every request that comes here */
    struct net_address client; /* the stream's peer, or whom that has told of by the PROXY protocol */
    uint8_t offered;  /* the last request taken, or the next one, offers an upgrade: it is answered before anything else is looked at */
    uint64_t begun[]; /* with `measure`: when the request at place % 64 was taken, ns */
};

static inline struct evh_conn *evh_conn_of(net_stream *s) { return (struct evh_conn *)evh_net->state(s); }
static inline int evh_has_body(unsigned status) { return status >= 200 && status != 204 && status != 205 && status != 304; }
static inline unsigned evh_unanswered(const struct evh_conn *c) { return (uint16_t)(c->asked - c->answered) % EVH_PLACES; }

static inline uint64_t evh_exchange_of(net_stream *s, uint16_t place) { return evh_net->token(s) | (uint64_t)place << EV_TOKEN_BITS; }

/* conn.c */
extern const struct net_protocol evh_protocol;
void evh_conn_accepted(net_listener *, net_stream *);
void evh_conn_begin(struct evh_server *, net_stream *);
void evh_conn_answered(net_stream *); /* one or more answers were written: what follows from that */
void evh_conn_refuse(net_stream *, unsigned status, const char *reason);
void evh_conn_tell_refused(net_stream *, unsigned status, const char *reason); /* Python, not the client */
void evh_conn_leave(struct evh_conn *, int keep_idle); /* the server ends */
void evh_conn_ended(net_stream *, int cause); /* on_close of a connection that is ours */
net_stream *evh_conn_upgrade(ev_loop *, uint64_t exchange, const void *head, size_t len, const struct evh_guest *, size_t state_size);
void evh_conn_left(net_stream *);
void evh_conn_close(net_stream *); /* after the answers that it waits for */

/* What Python is told of each request of a connection (info, request.c). */
enum { EVH_INFO_TRUSTED = 1 << 12, EVH_INFO_SECURE = 1 << 13 };

/* proxied.c: connections whose first bytes say for whom a proxy has made them */
extern const struct net_protocol evh_proxied_protocol;
void evh_proxied_accepted(net_listener *, net_stream *);
void evh_proxied_begun(net_stream *); /* of a connection that somebody else has accepted */
void evh_conn_judge(struct evh_conn *); /* marks it as trusted, or not, by its client */

/* server.c */
void evh_server_tell_guests(struct evh_server *); /* soon, to leave */
void evh_count_listeners(struct evh_server *); /* in its counts; they stay as they were when it listens no more */

/* measure.c */
size_t evh_conn_size(const struct evh_server *); /* of struct evh_conn, with what it needs for measuring */
void evh_measure_begin(struct evh_conn *);       /* a request takes the place `asked` */
void evh_measure_end(struct evh_conn *, unsigned status); /* the one at `answered` is answered */

/* request.c */
void evh_requests_tell(struct evh_server *); /* Python, of those that have come in this turn: before it hears of what follows from them */
void evh_request_take(net_stream *, const struct evh_parser *, const uint8_t *message, const uint8_t *body, size_t body_len);
void evh_request_begin(net_stream *, const struct evh_parser *, const uint8_t *message); /* its body will be streamed */
/* What write_head makes of a request whose body is being gathered, in memory of its own; NULL without memory. */
uint8_t *evh_request_keep(const struct evh_parser *, const uint8_t *message, const struct net_address *peer, uint32_t *len, int64_t *info);
void evh_request_complete(net_stream *, struct evh_body *); /* gathered */

/* body.c */
struct evh_body *evh_body_begin(const struct evh_parser *);
size_t evh_body_feed(net_stream *, const uint8_t *data, size_t len);
void evh_body_free(struct evh_body *);
void evh_body_refuse(net_stream *, unsigned status, const char *reason);
void evh_body_lost(net_stream *, int cause); /* no more of it will come; there may be none */
void evh_body_say_continue(net_stream *);    /* if it is time to */
void evh_body_op(ev_loop *, net_stream *, unsigned what, uint64_t exchange, uint32_t target);
int evh_body_unwanted(net_stream *, uint16_t place); /* it is answered: whether the connection must end with that */

/* answer.c */
void evh_answer_op(ev_loop *, struct ev_module *, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len);
void evh_answer(net_stream *, const struct evh_answer *);
void evh_answers_drop(net_stream *, int cause); /* the connection has ended */

/* pieces.c: answers in more than one step, and the records that tell Python how far they are */
void evh_piece_write(net_stream *, const struct evh_answer *);
int evh_watch(net_stream *, uint16_t place, uint32_t target); /* 0 without memory */
void evh_watch_end(net_stream *, uint16_t place, int64_t a, int64_t what); /* the last record; there may be no watch */
void evh_watches_lost(net_stream *, int cause);
void evh_watches_tell(net_stream *, int64_t what); /* a record that is not the last, for each */
void evh_tell_taken(net_stream *); /* if that was asked for */

/* head.c */
/* Without the empty line behind it. For EVH_HEAD_STEP body_len is what HEAD said. */
size_t evh_head_write(struct evh_module *, char *into, const struct evh_answer *, int close, int say_keep_alive);
size_t evh_info_write(char *into, unsigned status); /* the status line of an informational answer */
enum { EVH_HEAD_MOST = 320 }; /* more than evh_head_write ever writes */
const char *evh_reason(unsigned status);

#endif
