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

static void close_after(struct evh_conn *c, const struct evh_answer *a) {
    /* Whatever was pipelined behind this request is never answered. RFC 9112 §9.6: the client will see that it was not. */
    c->linger |= evh_unanswered(c) > 1 || !c->last;
    c->asked = (uint16_t)(a->place + 1) % EVH_PLACES;
    c->last = 1;
}

static void write_whole(net_stream *s, struct evh_conn *c, const struct evh_answer *a) {
    uint64_t bit = UINT64_C(1) << (a->place % 64);
    int final = c->last && evh_unanswered(c) == 1;
    if (a->arg & EVH_ANSWER_CLOSE || (c->body && evh_body_unwanted(s, a->place))) {
        close_after(c, a);
        final = 1;
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
    if (c->is_head & bit || !evh_has_body(a->status)) {
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
}

/* Writes the head of an answer in pieces. */
static void write_head(net_stream *s, struct evh_conn *c, const struct evh_answer *a) {
    if (a->arg & EVH_ANSWER_CLOSE || a->body_len == EVH_LENGTH_UNTIL_CLOSE)
        close_after(c, a);
    char head[EVH_HEAD_MOST];
    int final = c->last && evh_unanswered(c) == 1;
    size_t len = evh_head_write(c->server->module, head, a, final, (c->is_old >> a->place % 64 & 1) != 0);
    evh_net->write(s, head, len);
    evh_net->write(s, a->headers, a->headers_len);
    evh_net->write(s, "\r\n", 2);
    c->in_pieces = 1;
    c->piece_status = a->status;
    c->piece_length = c->is_head >> a->place % 64 & 1 || !evh_has_body(a->status) ? 0 : a->body_len;
}

static void write_info(net_stream *s, const struct evh_answer *a) {
    char line[EVH_HEAD_MOST];
    evh_net->write(s, line, evh_info_write(line, a->status));
    evh_net->write(s, a->headers, a->headers_len);
    evh_net->write(s, "\r\n", 2);
}

static void write_answer(net_stream *s, struct evh_conn *c, const struct evh_answer *a) {
    if (a->step == EVH_INFO_STEP) {
        write_info(s, a);
    } else if (a->step == EVH_HEAD_STEP) {
        write_head(s, c, a);
    } else if (a->step == EVH_PIECE_STEP) {
        evh_piece_write(s, a);
    } else {
        if (a->step == EVH_WHOLE)
            write_whole(s, c, a);
        else
            evh_piece_write(s, a);
        if (c->body && evh_body_unwanted(s, a->place))
            close_after(c, a);
        if (c->server->options.measure)
            evh_measure_end(c, c->in_pieces ? c->piece_status : a->status);
        c->answered = (uint16_t)(c->answered + 1) % EVH_PLACES;
        c->in_pieces = 0;
        if (c->watches)
            evh_watch_end(s, a->place, 0, EVH_TELL_DONE);
    }
}

/* Places count round; two of one connection are never further apart than EVH_PIPELINE_MOST. */
static unsigned distance(const struct evh_conn *c, uint16_t place) { return (uint16_t)(place - c->answered) % EVH_PLACES; }

static void wait_for_turn(net_stream *s, struct evh_conn *c, const struct evh_answer *a) {
    size_t body_len = a->kind == EVH_BYTES && a->step != EVH_HEAD_STEP ? (size_t)a->body_len : 0;
    struct evh_answer **at = &c->waiting;
    while (*at && distance(c, (*at)->place) <= distance(c, a->place))
        at = &(*at)->next;
    struct evh_answer *copy = malloc(sizeof *copy + a->headers_len + body_len);
    if (!copy) {
        give_back(evh_net->loop(s), a);
        evh_net->abort(s, NET_BY_US);
        return;
    }
    *copy = *a;
    uint8_t *bytes = (uint8_t *)(copy + 1);
    if (a->headers_len)
        memcpy(bytes, a->headers, a->headers_len);
    copy->headers = bytes;
    if (body_len) {
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

void evh_answers_drop(net_stream *s, int cause) {
    struct evh_conn *c = evh_conn_of(s);
    evh_watches_lost(s, cause);
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
    if (op == EVH_OP_SEND || op == EVH_OP_PIECE) {
        a->step = op == EVH_OP_SEND ? EVH_WHOLE : EVH_PIECE_STEP;
        a->body = p;
        a->body_len = len;
        return 1;
    }
    if (op == EVH_OP_END || op == EVH_OP_INFO) {
        a->step = op == EVH_OP_END ? EVH_END_STEP : EVH_INFO_STEP;
        a->headers = p;
        a->headers_len = len;
        return 1;
    }
    if (op == EVH_OP_HEAD && len >= 8) {
        a->step = EVH_HEAD_STEP;
        a->body_len = get64(p);
        a->headers = p + 8;
        a->headers_len = len - 8;
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
    if ((op == EVH_OP_SEND_REF || op == EVH_OP_PIECE_REF) && len >= 28) {
        a->step = op == EVH_OP_SEND_REF ? EVH_WHOLE : EVH_PIECE_STEP;
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

/* An exchange that nobody can answer any more, because its connection has ended, is lost. */
static void watch_op(ev_loop *loop, net_stream *s, uint64_t exchange, uint32_t target) {
    uint16_t place = (uint16_t)(exchange >> EV_TOKEN_BITS);
    if (!s || distance(evh_conn_of(s), place) >= evh_unanswered(evh_conn_of(s))) {
        evh_ev->emit(loop, target, NET_BY_PEER, EVH_TELL_LOST, exchange);
    } else if (!evh_watch(s, place, target)) {
        evh_ev->emit(loop, target, NET_BY_US, EVH_TELL_LOST, exchange);
        evh_net->abort(s, NET_BY_US);
    }
}

void evh_answer_op(ev_loop *loop, struct ev_module *m, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len) {
    (void)m;
    net_stream *s = evh_net->find(loop, id, &evh_protocol);
    if (op == EVH_OP_DROP) {
        if (s)
            evh_net->abort(s, NET_BY_US);
        return;
    }
    if (op == EVH_OP_CLOSE) {
        if (s)
            evh_conn_close(s);
        return;
    }
    if (op == EVH_OP_WATCH && len == 4) {
        watch_op(loop, s, id, get32(payload));
        return;
    }
    if (op == EVH_OP_BODY) {
        evh_body_op(loop, s, arg, id, len == 4 ? get32(payload) : 0);
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
