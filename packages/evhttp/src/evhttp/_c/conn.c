/* A connection: what comes is cut into requests, in order; deadlines; the end.
 *
 * Where a connection stands follows from a few facts, not from a state of its own:
 *   body != NULL       a request's head is taken, its body under way   deadline: body
 *   partial != NULL    a head is under way                             deadline: head
 *   unanswered > 0     Python owes answers                             deadline: answer
 *   otherwise          idle                                            deadline: idle (head, before the first request)
 *   last               nothing more is read; ends when unanswered is 0 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    LINGER_MS = 2000,
    LAST_CALL_MS = 1000, /* for who could not be told that the server ends */
    QUEUE_MOST = 256 * 1024, /* a client that does not read its answers is not asked for more requests */
};

void evh_conn_accepted(net_listener *listener, net_stream *s) { evh_conn_begin(evh_net->owner(listener), s); }

/* How long it may be idle, of so many milliseconds, or 0 for ever. */
static uint32_t patience(const struct evh_conn *c, uint32_t most) {
    return c->untold && (!most || most > LAST_CALL_MS) ? LAST_CALL_MS : most;
}

void evh_conn_begin(struct evh_server *server, net_stream *s) {
    struct evh_conn *c = evh_conn_of(s);
    c->server = server;
    c->stream = s;
    c->link = &server->conns;
    c->next = server->conns;
    if (c->next)
        c->next->link = &c->next;
    server->conns = c;
    server->conn_count++;
    c->client = *evh_net->peer(s);
    evh_conn_judge(c);
    c->untold = server->closed;
    evh_net->write_timeout(s, server->timeouts.write);
    evh_net->limit_queued(s, server->options.max_queued);
    evh_net->deadline(s, patience(c, server->timeouts.head));
}

/* What is the guest's stays as long as a stream does. */
struct guest_state {
    struct ev_task reap;
    _Alignas(16) uint8_t bytes[];
};

static void free_guest(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    free(task); /* the first member */
}

void evh_conn_left(net_stream *s) {
    struct evh_conn *c = evh_conn_of(s);
    struct evh_server *server = c->server;
    if (c->guest_state) {
        struct guest_state *g = (struct guest_state *)((char *)c->guest_state - offsetof(struct guest_state, bytes));
        evh_ev->reap(server->module->loop, &g->reap, free_guest);
    }
    server->counts.requests += c->taken;
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    server->conn_count--;
    if (server->closed && !server->conn_count) {
        evh_requests_tell(server);
        evh_ev->emit(server->module->loop, server->options.event_target, 0, EVH_EVENT_EMPTY, 0);
    }
}

static unsigned end_of(const struct evh_conn *c, int cause) {
    if (c->refused)
        return c->refused == 408 || c->refused == 503 ? EVH_END_TIMED_OUT : EVH_END_PROTOCOL_VIOLATED;
    switch (cause) {
    case NET_BY_US:
        return EVH_END_BY_US;
    case NET_BY_PEER:
        return EVH_END_BY_CLIENT;
    case NET_TIMED_OUT:
        return EVH_END_TIMED_OUT;
    case NET_TOO_MUCH_QUEUED:
        return EVH_END_TOO_MUCH_QUEUED;
    default:
        return EVH_END_LOST;
    }
}

struct evh_end { /* in the arena */
    struct net_address peer;
    uint32_t requests;
    int32_t error;
};

static void tell_end(net_stream *s, const struct evh_conn *c, int cause) {
    struct evh_end end = {.peer = c->client, .requests = c->taken, .error = cause > 0 ? cause : 0};
    int64_t offset;
    memcpy(evh_ev->arena_put(evh_net->loop(s), sizeof end, &offset), &end, sizeof end);
    evh_requests_tell(c->server);
    evh_ev->emit(evh_net->loop(s), c->server->options.end_target, offset, end_of(c, cause), evh_net->token(s));
}

void evh_conn_ended(net_stream *s, int cause) {
    struct evh_conn *c = evh_conn_of(s);
    c->server->counts.ends[end_of(c, cause)]++;
    if (c->server->options.end_target)
        tell_end(s, c, cause);
    free(c->partial);
    evh_body_lost(s, cause);
    evh_answers_drop(s, cause);
    evh_conn_left(s);
}

static void end(net_stream *s, struct evh_conn *c, int cause) {
    if (c->linger || c->parting)
        evh_net->linger(s, cause, LINGER_MS);
    else
        evh_net->close(s, cause);
}

/* Whoever waits for an answer is told in its head that it is the last. If that head has been sent, the client's next request may be on
 * its way when the answer ends: with keep_idle it is awaited, as for those who are idle. */
void evh_conn_leave(struct evh_conn *c, int keep_idle) {
    if (c->guest) {
        c->guest->go_away(c->stream);
    } else if (keep_idle && c->in_pieces && evh_unanswered(c) == 1 && !c->last) {
        c->untold = 1;
    } else if ((evh_unanswered(c) || c->body) && !c->last) {
        c->last = c->parting = 1;
    }
}

void evh_conn_close(net_stream *s) {
    struct evh_conn *c = evh_conn_of(s);
    if (evh_unanswered(c))
        c->last = 1;
    else
        end(s, c, NET_BY_US);
}

static void settle_deadline(net_stream *s, struct evh_conn *c) {
    const struct evh_timeouts *t = &c->server->timeouts;
    if (c->body || c->partial) { /* set when that began */
        c->timed = 0;
    } else if (!evh_unanswered(c)) {
        c->timed = 0;
        evh_net->deadline(s, patience(c, t->idle));
    } else if (c->timed != c->answered + 1) { /* else it runs already, and what comes meanwhile does not put it off */
        c->timed = c->answered + 1u;
        evh_net->deadline(s, t->answer);
    }
}

static unsigned pipeline_most(const struct evh_conn *c) { return c->offered ? 1 : c->server->options.max_pipeline; }

static void go_on_if_full(net_stream *s, struct evh_conn *c) {
    if (c->full && evh_unanswered(c) <= pipeline_most(c) / 2u) {
        c->full = 0;
        evh_net->resume(s);
    }
}

void evh_conn_answered(net_stream *s) {
    struct evh_conn *c = evh_conn_of(s);
    unsigned unanswered = evh_unanswered(c);
    if (c->last && !unanswered) {
        c->linger |= c->body != NULL;
        end(s, c, NET_BY_US);
        return;
    }
    if (!unanswered && c->must_say_continue) {
        c->must_say_continue = 0;
        evh_net->write(s, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    }
    evh_body_say_continue(s);
    if (!unanswered)
        c->offered = 0;
    if (evh_net->queued(s) > QUEUE_MOST) {
        c->full = 1;
        evh_net->pause(s);
    } else {
        go_on_if_full(s, c);
    }
    settle_deadline(s, c);
}

static void on_drained(net_stream *s) {
    evh_tell_taken(s);
    go_on_if_full(s, evh_conn_of(s));
}

struct evh_refused { /* in the arena; the reason follows */
    struct net_address peer;
    uint32_t reason_len;
};

void evh_conn_tell_refused(net_stream *s, unsigned status, const char *reason) {
    struct evh_server *server = evh_conn_of(s)->server;
    struct evh_refused refused = {.peer = evh_conn_of(s)->client, .reason_len = (uint32_t)strlen(reason)};
    int64_t offset;
    uint8_t *at = evh_ev->arena_put(server->module->loop, sizeof refused + refused.reason_len, &offset);
    memcpy(at, &refused, sizeof refused);
    memcpy(at + sizeof refused, reason, refused.reason_len);
    evh_requests_tell(server);
    evh_ev->emit(server->module->loop, server->options.event_target, offset, status, 0);
}

static void answer_for_python(net_stream *s, uint16_t place, unsigned status, const char *reason) {
    char body[160];
    size_t len = strlen(reason);
    if (len > sizeof body - 1)
        len = sizeof body - 1;
    memcpy(body, reason, len);
    body[len] = '\n';
    struct evh_answer a = {
        .place = place,
        .status = (uint16_t)status,
        .arg = EVH_TYPE_TEXT << 10 | EVH_ANSWER_CLOSE,
        .body = (const uint8_t *)body,
        .body_len = len + 1,
    };
    evh_conn_tell_refused(s, status, reason);
    evh_answer(s, &a);
}

static void refuse(net_stream *s, int is_head, unsigned status, const char *reason) {
    struct evh_conn *c = evh_conn_of(s);
    free(c->partial);
    c->partial = NULL;
    evh_body_free(c->body);
    c->body = NULL;
    c->must_say_continue = 0;
    c->last = c->linger = 1;
    c->refused = (uint16_t)status;
    uint16_t place = c->asked;
    c->is_head = (c->is_head & ~(UINT64_C(1) << (place % 64))) | (uint64_t)is_head << (place % 64);
    c->is_old &= ~(UINT64_C(1) << (place % 64));
    if (c->server->options.measure)
        evh_measure_begin(c);
    c->asked = (uint16_t)(c->asked + 1) % EVH_PLACES;
    answer_for_python(s, place, status, reason);
}

/* Answers in the place of the request that cannot be understood, after those before it, and ends the connection: after such a
 * request nobody can say where the next one would begin. */
void evh_conn_refuse(net_stream *s, unsigned status, const char *reason) { refuse(s, 0, status, reason); }

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
    c->taken++;
    if (!(p->flags & EVH_KEEP_ALIVE))
        c->last = 1;
    else if (c->server->closed || c->taken == c->server->options.max_requests)
        c->last = c->parting = 1;
    c->untold = 0;
    c->offered = (p->flags & EVH_UPGRADE) != 0;
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
    struct evh_body *b = c->body = evh_body_begin(p);
    /* RFC 9110 §10.1.1: no 100 for a client that has begun to send already. */
    int awaits_continue = p->flags & EVH_EXPECT_CONTINUE && !there;
    if (b && c->server->options.stream_bodies) {
        b->is_streamed = 1;
        b->awaits_continue = awaits_continue;
        b->place = c->asked;
        evh_net->deadline(s, 0); /* it is the handler's turn */
        evh_request_begin(s, p, message);
        return 0;
    }
    if (b)
        b->head = evh_request_keep(p, message, &c->client, &b->head_len, &b->info);
    if (!b || !b->head) {
        evh_conn_refuse(s, 503, "no memory for the body");
        return there;
    }
    evh_net->deadline(s, c->server->timeouts.body);
    if (awaits_continue) {
        if (evh_unanswered(c)) /* it comes after the answers before it */
            c->must_say_continue = 1;
        else
            evh_net->write(s, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    }
    return 0;
}

static void wait_for_answers(net_stream *s, struct evh_conn *c) {
    c->full = 1;
    evh_net->pause(s);
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
        refuse(s, p->method == EVH_HEAD, p->status, p->reason); /* as far as it was understood; §9.3.2: "MUST NOT send content" */
        return len;
    default: {
        if (p->flags & EVH_UPGRADE && evh_unanswered(c)) { /* looked at again when its turn has come */
            free(c->partial);
            c->partial = NULL;
            wait_for_answers(s, c);
            return 0;
        }
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
        } else if (evh_unanswered(c) >= pipeline_most(c)) {
            wait_for_answers(s, c);
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
        if (c->offered && c->parting)
            wait_for_answers(s, c); /* but by a guest, if one comes */
        else
            used = len;
    }
    settle_deadline(s, c);
    return used;
}

static void on_eof(net_stream *s) {
    struct evh_conn *c = evh_conn_of(s);
    c->eof = 1;
    c->last = 1; /* a half-closed client still reads its answers */
    c->linger = c->parting = 0;
    evh_body_lost(s, NET_BY_PEER);
    evh_watches_tell(s, EVH_TELL_EOF);
    if (!evh_unanswered(c))
        evh_net->close(s, NET_BY_PEER);
}

/* The client is not kept waiting longer. What Python still says to this request finds nobody. */
static void answer_is_late(net_stream *s, struct evh_conn *c) {
    c->refused = 503;
    evh_watch_end(s, c->answered, NET_TIMED_OUT, EVH_TELL_LOST);
    if (c->in_pieces)
        evh_net->abort(s, NET_TIMED_OUT); /* nobody must take a part for the whole */
    else
        answer_for_python(s, c->answered, 503, "the answer was not ready in time");
}

static void on_timeout(net_stream *s) {
    struct evh_conn *c = evh_conn_of(s);
    if (c->body)
        evh_body_refuse(s, 408, "the body did not arrive in time");
    else if (c->partial)
        evh_conn_refuse(s, 408, "the request did not arrive in time");
    else if (!evh_unanswered(c))
        evh_net->close(s, NET_TIMED_OUT);
    else
        answer_is_late(s, c);
}

/* A connection on which nothing more may come, or of which the answers are out of our hands, is not handed over. One that is to end
 * because the server does is: its guest then says goodbye in its own way. */
static int may_upgrade(const struct evh_conn *c, uint16_t place) {
    return c->offered && place == c->answered && evh_unanswered(c) == 1 && (!c->last || c->parting);
}

net_stream *evh_conn_upgrade(ev_loop *loop, uint64_t exchange, const void *head, size_t len, const struct evh_guest *guest,
                             size_t state_size) {
    net_stream *s = evh_net->find(loop, exchange, &evh_protocol);
    if (!s)
        return NULL;
    struct evh_conn *c = evh_conn_of(s);
    struct guest_state *state = may_upgrade(c, (uint16_t)(exchange >> EV_TOKEN_BITS)) ? calloc(1, sizeof *state + state_size) : NULL;
    if (!state) {
        evh_net->abort(s, NET_BY_US);
        return NULL;
    }
    evh_watch_end(s, c->answered, 0, EVH_TELL_DONE);
    c->answered = c->asked;
    c->guest = guest;
    c->guest_state = state->bytes;
    evh_net->settled(s);
    evh_net->swap(s, guest->protocol);
    evh_net->deadline(s, 0);
    evh_net->limit_queued(s, 0); /* the guest has bounds of its own */
    evh_net->write(s, head, len);
    if (c->full)
        evh_net->resume(s);
    if (c->server->closed)
        evh_server_tell_guests(c->server); /* when the guest has moved in */
    return s;
}

const struct net_protocol evh_protocol = {
    .name = "http",
    .on_bytes = on_bytes,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_timeout = on_timeout,
    .on_close = evh_conn_ended,
};
