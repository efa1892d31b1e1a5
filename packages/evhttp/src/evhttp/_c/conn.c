/* A connection: what comes is cut into requests, in order; deadlines; the end.
 *
 * Where a connection stands follows from a few facts, not from a state of its own:
 *   body != NULL       a request's head is taken, its body under way   deadline: body
 *   partial != NULL    a head is under way                             deadline: head
 *   unanswered > 0     Python owes answers                             no deadline
 *   otherwise          idle                                            deadline: idle (head, before the first request)
 *   last               nothing more is read; ends when unanswered is 0 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    LINGER_MS = 2000,
    QUEUE_MOST = 256 * 1024, /* a client that does not read its answers is not asked for more requests */
};

void evh_conn_accepted(net_listener *listener, net_stream *s) {
    struct evh_server *server = evh_net->owner(listener);
    struct evh_conn *c = evh_conn_of(s);
    c->server = server;
    c->stream = s;
    c->link = &server->conns;
    c->next = server->conns;
    if (c->next)
        c->next->link = &c->next;
    server->conns = c;
    server->conn_count++;
    evh_net->write_timeout(s, server->timeouts.write);
    evh_net->deadline(s, server->timeouts.head);
}

static void on_close(net_stream *s, int cause) {
    (void)cause;
    struct evh_conn *c = evh_conn_of(s);
    struct evh_server *server = c->server;
    free(c->partial);
    evh_body_free(c->body);
    evh_answers_drop(s);
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    server->conn_count--;
    if (server->closed && !server->conn_count)
        evh_ev->emit(server->module->loop, server->event_target, 0, EVH_EVENT_EMPTY, 0);
}

static void end(net_stream *s, struct evh_conn *c, int cause) {
    if (c->linger)
        evh_net->linger(s, cause, LINGER_MS);
    else
        evh_net->close(s, cause);
}

static void settle_deadline(net_stream *s, struct evh_conn *c) {
    const struct evh_timeouts *t = &c->server->timeouts;
    if (c->body || c->partial)
        return; /* set when that began */
    evh_net->deadline(s, evh_unanswered(c) ? 0 : t->idle);
}

void evh_conn_answered(net_stream *s) {
    struct evh_conn *c = evh_conn_of(s);
    unsigned unanswered = evh_unanswered(c);
    if (c->last && !unanswered) {
        end(s, c, NET_BY_US);
        return;
    }
    if (!unanswered && c->must_say_continue) {
        c->must_say_continue = 0;
        evh_net->write(s, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    }
    if (evh_net->queued(s) > QUEUE_MOST) {
        c->full = 1;
        evh_net->pause(s);
    } else if (c->full && unanswered <= c->server->max_pipeline / 2u) {
        c->full = 0;
        evh_net->resume(s);
    }
    settle_deadline(s, c);
}

static void on_drained(net_stream *s) {
    struct evh_conn *c = evh_conn_of(s);
    if (c->full && evh_unanswered(c) <= c->server->max_pipeline / 2u) {
        c->full = 0;
        evh_net->resume(s);
    }
}

struct evh_refused { /* in the arena; the reason follows */
    struct net_address peer;
    uint32_t reason_len;
};

static void tell_refused(net_stream *s, unsigned status, const char *reason) {
    struct evh_server *server = evh_conn_of(s)->server;
    struct evh_refused refused = {.peer = *evh_net->peer(s), .reason_len = (uint32_t)strlen(reason)};
    int64_t offset;
    uint8_t *at = evh_ev->arena_put(server->module->loop, sizeof refused + refused.reason_len, &offset);
    memcpy(at, &refused, sizeof refused);
    memcpy(at + sizeof refused, reason, refused.reason_len);
    evh_ev->emit(server->module->loop, server->event_target, offset, status, 0);
}

/* Answers in the place of the request that cannot be understood, after those before it, and ends the connection: after such a
 * request nobody can say where the next one would begin. */
void evh_conn_refuse(net_stream *s, unsigned status, const char *reason) {
    struct evh_conn *c = evh_conn_of(s);
    free(c->partial);
    c->partial = NULL;
    evh_body_free(c->body);
    c->body = NULL;
    c->must_say_continue = 0;
    c->last = c->linger = 1;
    uint16_t place = c->asked;
    c->is_head &= ~(UINT64_C(1) << (place % 64));
    c->is_old &= ~(UINT64_C(1) << (place % 64));
    c->asked = (uint16_t)(c->asked + 1) % EVH_PLACES;
    char body[160];
    size_t len = strlen(reason);
    if (len > sizeof body - 1)
        len = sizeof body - 1;
    memcpy(body, reason, len);
    body[len] = '\n';
    struct evh_answer a = {
        .place = place,
        .status = (uint16_t)status,
        .arg = EVH_TYPE_TEXT << 10,
        .body = (const uint8_t *)body,
        .body_len = len + 1,
    };
    tell_refused(s, status, reason);
    evh_answer(s, &a);
}

/* A head that did not come whole gets a parser of its own, until it has. */
static int keep_partial(net_stream *s, struct evh_conn *c, const struct evh_parser *p) {
    if (p == c->partial)
        return 1;
    c->partial = malloc(sizeof *c->partial);
    if (!c->partial)
        return 0;
    /* The fields that are complete, and the one that the packet may have ended in. */
    size_t fields = p->nfields < EVH_MAX_FIELDS ? p->nfields + 1u : EVH_MAX_FIELDS;
    memcpy(c->partial, p, offsetof(struct evh_parser, fields) + fields * sizeof *p->fields);
    if (evh_unanswered(c) || c->answered || c->asked) /* before the first request the deadline runs since the connection began */
        evh_net->deadline(s, c->server->timeouts.head);
    return 1;
}

static void note_request(struct evh_conn *c, const struct evh_parser *p) {
    uint64_t bit = UINT64_C(1) << (c->asked % 64);
    c->is_head = p->method == EVH_HEAD ? c->is_head | bit : c->is_head & ~bit;
    c->is_old = p->version == 10 && p->flags & EVH_KEEP_ALIVE ? c->is_old | bit : c->is_old & ~bit;
    if (!(p->flags & EVH_KEEP_ALIVE) || c->server->closed)
        c->last = 1;
}

/* Takes a request whose head is complete, with its body if that has come whole. Returns the bytes used of the body. */
static size_t take(net_stream *s, struct evh_conn *c, const struct evh_parser *p, const uint8_t *message, size_t len) {
    const uint8_t *body = message + p->head_len;
    size_t there = len - p->head_len;
    note_request(c, p);
    if (!(p->flags & EVH_CHUNKED) && p->content_length <= there) {
        size_t body_len = (size_t)p->content_length;
        evh_request_take(s, p, message, body, body_len);
        return body_len;
    }
    c->body = evh_body_begin(p, message, evh_net->peer(s));
    if (!c->body) {
        evh_conn_refuse(s, 503, "no memory for the body");
        return there;
    }
    evh_net->deadline(s, c->server->timeouts.body);
    /* RFC 9110 §10.1.1: no 100 for a client that has begun to send already; and it comes after the answers before it. */
    if (p->flags & EVH_EXPECT_CONTINUE && !there) {
        if (evh_unanswered(c))
            c->must_say_continue = 1;
        else
            evh_net->write(s, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    }
    return 0;
}

/* One head, from where it begins. Returns the bytes used, with its body's as far as they are there; 0 to wait for more. */
static size_t next_request(net_stream *s, struct evh_conn *c, const uint8_t *data, size_t len) {
    struct evh_parser *p = c->partial;
    if (!p) {
        p = &c->server->module->parser;
        evh_parser_init(p);
    }
    switch (evh_parser_feed(p, &c->server->limits, data, len)) {
    case EVH_MORE:
        if (!keep_partial(s, c, p))
            evh_net->abort(s, NET_BY_US);
        return 0;
    case EVH_BAD:
        evh_conn_refuse(s, p->status, p->reason);
        return len;
    default: {
        c->partial = NULL;
        size_t head = p->head_len;
        size_t used = head + take(s, c, p, data, len);
        if (p != &c->server->module->parser)
            free(p);
        return used;
    }
    }
}

static size_t on_bytes(net_stream *s, const uint8_t *data, size_t len) {
    struct evh_conn *c = evh_conn_of(s);
    size_t used = 0;
    while (used < len && (c->body || !c->last)) {
        size_t n;
        if (c->body) {
            c->must_say_continue = 0;
            n = evh_body_feed(s, data + used, len - used);
        } else if (evh_unanswered(c) >= c->server->max_pipeline) {
            c->full = 1;
            evh_net->pause(s);
            break;
        } else {
            n = next_request(s, c, data + used, len - used);
        }
        if (!n)
            break;
        used += n;
    }
    if (c->last && !c->body && used < len) {
        c->linger = 1; /* bytes behind the last request: never looked at */
        used = len;
    }
    settle_deadline(s, c);
    return used;
}

static void on_eof(net_stream *s) {
    struct evh_conn *c = evh_conn_of(s);
    c->last = 1; /* a half-closed client still reads its answers */
    c->linger = 0;
    evh_body_free(c->body);
    c->body = NULL;
    if (!evh_unanswered(c))
        evh_net->close(s, NET_BY_PEER);
}

static void on_timeout(net_stream *s) {
    struct evh_conn *c = evh_conn_of(s);
    if (c->body)
        evh_conn_refuse(s, 408, "the body did not arrive in time");
    else if (c->partial)
        evh_conn_refuse(s, 408, "the request did not arrive in time");
    else
        evh_net->close(s, NET_TIMED_OUT);
}

const struct net_protocol evh_protocol = {
    .name = "http",
    .on_bytes = on_bytes,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_timeout = on_timeout,
    .on_close = on_close,
};
