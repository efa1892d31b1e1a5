/* Requests on their way to Python: the head is rewritten into the arena, the body put behind it. */
#include "internal.h"
#include "layout.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Up to here a body is copied once more, into the arena; beyond, Python takes it from where it was gathered. */
enum { LARGE_BODY = 256 * 1024 };

static void write_head(uint8_t *at, size_t len, const struct evh_parser *p, const uint8_t *message, const struct net_address *peer) {
    evh_layout_write(at, len, p, message);
    struct evh_head *head = (struct evh_head *)at;
    head->port = peer->port;
    head->family = peer->family;
    memcpy(head->ip, peer->ip, sizeof head->ip);
}

/* As Python would get it in a record of its own (evloop.h). */
struct evh_arrival {
    int64_t target, offset, info;
    uint64_t exchange;
};
_Static_assert(sizeof(struct evh_arrival) == 32, "Python knows this layout");

void evh_requests_tell(struct evh_server *server) {
    ev_loop *loop = server->module->loop;
    const struct evh_arrival *first = server->arrived;
    size_t count = server->arrived_count;
    if (count == 1) {
        evh_ev->emit(loop, (uint32_t)first->target, first->offset, first->info, first->exchange);
    } else if (count) {
        int64_t offset;
        memcpy(evh_ev->arena_put(loop, count * sizeof *first, &offset), first, count * sizeof *first);
        evh_ev->emit(loop, server->options.batch_target, offset, (int64_t)count, 0);
    }
    server->arrived_count = 0;
}

static void tell(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    evh_requests_tell((struct evh_server *)((char *)task - offsetof(struct evh_server, tell)));
}

static int has_room(struct evh_server *server) {
    if (server->arrived_count < server->arrived_capacity)
        return 1;
    size_t capacity = server->arrived_capacity ? 2 * server->arrived_capacity : 64;
    struct evh_arrival *grown = realloc(server->arrived, capacity * sizeof *grown);
    if (!grown)
        return 0;
    server->arrived = grown;
    server->arrived_capacity = capacity;
    return 1;
}

/* Counts the request in, and tells Python: of those of a turn together, if it takes them so. */
static void emit(net_stream *s, uint32_t target, int64_t offset, int64_t info) {
    struct evh_conn *c = evh_conn_of(s);
    struct evh_server *server = c->server;
    uint64_t exchange = evh_net->token(s) | (uint64_t)c->asked << EV_TOKEN_BITS;
    info |= c->marks;
    if (target == server->options.target && server->options.batch_target && has_room(server)) {
        server->arrived[server->arrived_count++] = (struct evh_arrival){target, offset, info, exchange};
        evh_ev->batch_end(evh_net->loop(s), &server->tell, tell);
    } else {
        evh_requests_tell(server); /* those before it */
        evh_ev->emit(evh_net->loop(s), target, offset, info, exchange);
    }
    if (server->options.measure)
        evh_measure_begin(c);
    c->asked = (uint16_t)(c->asked + 1) % EVH_PLACES;
}

void evh_request_take(net_stream *s, const struct evh_parser *p, const uint8_t *message, const uint8_t *body, size_t body_len) {
    size_t len = evh_layout_len(p);
    int64_t offset;
    uint8_t *at = evh_ev->arena_put(evh_net->loop(s), len + body_len, &offset);
    write_head(at, len, p, message, &evh_conn_of(s)->client);
    if (body_len) {
        ((struct evh_head *)at)->body_len = (uint32_t)body_len;
        memcpy(at + len, body, body_len);
    }
    emit(s, evh_conn_of(s)->server->options.target, offset, evh_layout_info(p));
}

void evh_request_begin(net_stream *s, const struct evh_parser *p, const uint8_t *message) {
    size_t len = evh_layout_len(p);
    int64_t offset;
    write_head(evh_ev->arena_put(evh_net->loop(s), len, &offset), len, p, message, &evh_conn_of(s)->client);
    emit(s, evh_conn_of(s)->server->options.target, offset, evh_layout_info(p) | EVH_INFO_STREAMED);
}

uint8_t *evh_request_keep(const struct evh_parser *p, const uint8_t *message, const struct net_address *peer, uint32_t *len, int64_t *info) {
    *len = (uint32_t)evh_layout_len(p);
    *info = evh_layout_info(p);
    uint8_t *head = malloc(*len);
    if (head)
        write_head(head, *len, p, message, peer);
    return head;
}

struct lent {
    struct ev_task task;
    uint8_t *data;
};

static void end_loan(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    free(((struct lent *)task)->data);
    free(task);
}

static int lend(ev_loop *loop, struct evh_body *b) {
    struct lent *lent = calloc(1, sizeof *lent);
    if (!lent)
        return 0;
    lent->data = b->data;
    b->data = NULL;
    evh_ev->reap(loop, &lent->task, end_loan);
    return 1;
}

void evh_request_complete(net_stream *s, struct evh_body *b) {
    ev_loop *loop = evh_net->loop(s);
    struct evh_head *head = (struct evh_head *)b->head;
    head->body_len = (uint32_t)b->len;
    uint32_t target = evh_conn_of(s)->server->options.target;
    size_t inline_len = b->len;
    if (b->len > LARGE_BODY) {
        head->large_body = (uint64_t)(uintptr_t)b->data;
        target = evh_conn_of(s)->server->options.large_target;
        inline_len = 0;
        if (!lend(loop, b)) {
            evh_net->abort(s, NET_BY_US);
            return;
        }
    }
    int64_t offset;
    uint8_t *at = evh_ev->arena_put(loop, b->head_len + inline_len, &offset);
    memcpy(at, b->head, b->head_len);
    if (inline_len)
        memcpy(at + b->head_len, b->data, inline_len);
    emit(s, target, offset, b->info);
}
