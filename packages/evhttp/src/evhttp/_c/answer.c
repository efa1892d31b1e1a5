/* Answers: put in the order of their requests, and written. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What an answer holds that must be given back when it is not sent. */
static void give_back(ev_loop *loop, const struct evh_answer *a) {
    if (a->kind == EVH_REF)
        evh_ev->emit(loop, a->target, (int64_t)a->id, 0, 0);
    else if (a->kind == EVH_FILE)
        close(a->fd);
}

static int has_body(unsigned status) { return status >= 200 && status != 204 && status != 304; }

static void write_answer(net_stream *s, struct evh_conn *c, const struct evh_answer *a) {
    uint64_t bit = UINT64_C(1) << (a->place % 64);
    int final = c->last && evh_unanswered(c) == 1;
    if (a->arg & EVH_ANSWER_CLOSE) {
        /* Whatever was pipelined behind this request is never answered. RFC 9112 §9.6: the client will see that it was not. */
        c->linger |= evh_unanswered(c) > 1 || !c->last;
        c->asked = (uint16_t)(a->place + 1) % EVH_PLACES;
        c->last = final = 1;
    }
    char head[EVH_HEAD_MOST];
    size_t len = evh_head_write(c->server->module, head, a, final, (c->is_old & bit) != 0);
    if (!a->headers_len && a->kind == EVH_BYTES && a->body_len <= 64) { /* small and common: one copy */
        memcpy(head + len, "\r\n", 2);
        len += 2;
    } else {
        evh_net->write(s, head, len);
        evh_net->write(s, a->headers, a->headers_len);
        memcpy(head, "\r\n", 2);
        len = 2;
    }
    if (c->is_head & bit || !has_body(a->status)) {
        evh_net->write(s, head, len);
        give_back(evh_net->loop(s), a);
    } else if (a->kind == EVH_BYTES && a->body_len <= 64) {
        memcpy(head + len, a->body, a->body_len);
        evh_net->write(s, head, len + a->body_len);
    } else {
        evh_net->write(s, head, len);
        if (a->kind == EVH_BYTES)
            evh_net->write(s, a->body, a->body_len);
        else if (a->kind == EVH_REF)
            evh_net->write_ref(s, a->body, a->body_len, a->target, (int64_t)a->id);
        else
            evh_net->write_file(s, a->fd, a->offset, a->body_len);
    }
    c->answered = (uint16_t)(c->answered + 1) % EVH_PLACES;
}

/* Places count round; two of one connection are never further apart than EVH_PIPELINE_MOST. */
static unsigned distance(const struct evh_conn *c, uint16_t place) { return (uint16_t)(place - c->answered) % EVH_PLACES; }

static void wait_for_turn(net_stream *s, struct evh_conn *c, const struct evh_answer *a) {
    size_t body_len = a->kind == EVH_BYTES ? a->body_len : 0;
    struct evh_answer **at = &c->waiting;
    while (*at && distance(c, (*at)->place) < distance(c, a->place))
        at = &(*at)->next;
    struct evh_answer *copy = *at && (*at)->place == a->place ? NULL : malloc(sizeof *copy + a->headers_len + body_len);
    if (!copy) { /* answered twice, which Python has refused already, or no memory */
        give_back(evh_net->loop(s), a);
        evh_net->abort(s, NET_BY_US);
        return;
    }
    *copy = *a;
    uint8_t *bytes = (uint8_t *)(copy + 1);
    if (a->headers_len)
        memcpy(bytes, a->headers, a->headers_len);
    copy->headers = bytes;
    if (a->kind == EVH_BYTES) {
        if (body_len)
            memcpy(bytes + a->headers_len, a->body, body_len);
        copy->body = bytes + a->headers_len;
    }
    copy->next = *at;
    *at = copy;
}

void evh_answer(net_stream *s, const struct evh_answer *a) {
    struct evh_conn *c = evh_conn_of(s);
    if (distance(c, a->place) >= evh_unanswered(c)) { /* of a request that is not ours to answer any more */
        give_back(evh_net->loop(s), a);
        return;
    }
    if (a->place != c->answered) {
        wait_for_turn(s, c, a);
        return;
    }
    write_answer(s, c, a);
    while (c->waiting && c->waiting->place == c->answered && evh_unanswered(c)) {
        struct evh_answer *next = c->waiting;
        c->waiting = next->next;
        write_answer(s, c, next);
        free(next);
    }
    evh_conn_answered(s);
}

void evh_answers_drop(net_stream *s) {
    struct evh_conn *c = evh_conn_of(s);
    while (c->waiting) {
        struct evh_answer *a = c->waiting;
        c->waiting = a->next;
        give_back(evh_net->loop(s), a);
        free(a);
    }
}

static uint32_t get32(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }
static uint64_t get64(const uint8_t *p) { return get32(p) | (uint64_t)get32(p + 4) << 32; }

/* Fills in what the payload says; 0 if it is too short, which only a bug of ours can make it. */
static int decode(struct evh_answer *a, unsigned op, const uint8_t *p, size_t len) {
    if (op == EVH_OP_SEND) {
        a->body = p;
        a->body_len = len;
        return 1;
    }
    if (op == EVH_OP_SEND_H) {
        if (len < 4 || get32(p) > len - 4)
            return 0;
        a->headers_len = get32(p);
        a->headers = p + 4;
        a->body = a->headers + a->headers_len;
        a->body_len = len - 4 - a->headers_len;
        return 1;
    }
    if (op == EVH_OP_SEND_REF && len >= 28) {
        a->kind = EVH_REF;
        a->body = (const uint8_t *)(uintptr_t)get64(p);
        a->body_len = get64(p + 8);
        a->id = get64(p + 16);
        a->target = get32(p + 24);
        a->headers = p + 28;
        a->headers_len = len - 28;
        return 1;
    }
    if (op == EVH_OP_SEND_FILE && len >= 20) {
        a->kind = EVH_FILE;
        a->offset = get64(p);
        a->body_len = get64(p + 8);
        a->fd = (int)get32(p + 16);
        a->headers = p + 20;
        a->headers_len = len - 20;
        return 1;
    }
    return 0;
}

void evh_answer_op(ev_loop *loop, struct ev_module *m, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len) {
    (void)m;
    net_stream *s = evh_net->find(loop, id, &evh_protocol);
    if (op == EVH_OP_DROP) {
        if (s)
            evh_net->abort(s, NET_BY_US);
        return;
    }
    struct evh_answer a = {.place = (uint16_t)(id >> EV_TOKEN_BITS), .status = arg & 1023, .arg = (uint16_t)arg};
    if (!decode(&a, op, payload, len))
        return;
    if (s)
        evh_answer(s, &a);
    else
        give_back(loop, &a);
}
