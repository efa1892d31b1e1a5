/* The HTTP server as its own files see it. */
#ifndef EVH_INTERNAL_H
#define EVH_INTERNAL_H

#include "chunked.h"
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
    uint32_t target, large_target, event_target;
    uint16_t max_pipeline;
    uint8_t closed;
};

/* A request whose body is under way. `head` is what will go to the arena before the body. */
struct evh_body {
    uint8_t *head;
    uint32_t head_len;
    int64_t info;
    uint8_t is_chunked;
    struct evh_chunked chunked;
    uint64_t length; /* by Content-Length */
    uint8_t *data;
    size_t len, capacity;
};

enum evh_answer_kind { EVH_BYTES, EVH_REF, EVH_FILE };

/* One answer, as submitted. The pointers lead into the submission ring, or behind the struct when it has to wait. */
struct evh_answer {
    struct evh_answer *next;
    uint16_t place, status;
    uint16_t arg; /* content type and EVH_ANSWER_* bits, as submitted */
    enum evh_answer_kind kind;
    const uint8_t *headers, *body;
    size_t headers_len;
    uint64_t body_len, offset, id;
    uint32_t target;
    int fd;
};

/* What a connection keeps, behind its stream. The requests taken and not answered are those with places from `answered` up to,
 * not including, `asked`. */
struct evh_conn {
    struct evh_server *server;
    net_stream *stream;
    struct evh_conn *next, **link;
    struct evh_parser *partial; /* a head that did not come whole */
    struct evh_body *body;
    struct evh_answer *waiting; /* answers whose turn has not come, by place */
    uint64_t is_head, is_old;   /* bit place % 64: the request was HEAD; was HTTP/1.0 with keep-alive */
    uint16_t asked, answered;
    uint8_t last;     /* no further request is taken; closes after the answer to the last one */
    uint8_t linger;   /* the peer may still be sending when we close */
    uint8_t full;     /* paused: too many unanswered requests, or unsent bytes */
    uint8_t must_say_continue;
};

static inline struct evh_conn *evh_conn_of(net_stream *s) { return (struct evh_conn *)evh_net->state(s); }
static inline unsigned evh_unanswered(const struct evh_conn *c) { return (uint16_t)(c->asked - c->answered) % EVH_PLACES; }

/* conn.c */
extern const struct net_protocol evh_protocol;
void evh_conn_accepted(net_listener *, net_stream *);
void evh_conn_answered(net_stream *); /* one or more answers were written: what follows from that */
void evh_conn_refuse(net_stream *, unsigned status, const char *reason);

/* request.c */
void evh_request_take(net_stream *, const struct evh_parser *, const uint8_t *message, const uint8_t *body, size_t body_len);
struct evh_body *evh_body_begin(const struct evh_parser *, const uint8_t *message, const struct net_address *peer);
size_t evh_body_feed(net_stream *, const uint8_t *data, size_t len);
void evh_body_free(struct evh_body *);

/* answer.c */
void evh_answer_op(ev_loop *, struct ev_module *, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len);
void evh_answer(net_stream *, const struct evh_answer *);
void evh_answers_drop(net_stream *);

/* head.c */
size_t evh_head_write(struct evh_module *, char *into, const struct evh_answer *, int close, int say_keep_alive);
enum { EVH_HEAD_MOST = 320 }; /* more than evh_head_write ever writes */
const char *evh_reason(unsigned status);

#endif
