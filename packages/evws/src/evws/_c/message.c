/* Messages: their frames' payload is unmasked to where Python will take it from, and told of when it is whole. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    INLINE_MOST = 32 * 1024, /* larger messages do not go through the arena, which would copy them once more */
    APART_LEAST = 2 * 1024, /* Python takes messages from here on from the arena itself: a look-up costs less than one copy more */
    FIRST_MESSAGE = 1024,
    TAIL = 4,
};

void evw_message_drop(struct evw_conn *c) {
    free(c->message);
    c->message = NULL;
    c->message_len = c->message_capacity = 0;
}

/* Memory grows with what has come, not with what was announced. There is room for a tail, too. */
static int reserve(struct evw_conn *c, size_t len) {
    len += TAIL;
    if (len <= c->message_capacity - c->message_len)
        return 1;
    size_t capacity = c->message_capacity ? c->message_capacity : FIRST_MESSAGE;
    while (capacity - c->message_len < len)
        capacity *= 2;
    uint8_t *message = realloc(c->message, capacity);
    if (!message)
        return 0;
    c->message = message;
    c->message_capacity = capacity;
    return 1;
}

/* RFC 7692 §7.2.2: "append 4 octets of 0x00 0x00 0xff 0xff to the tail end of the payload". */
static size_t end_compressed(const struct evw_conn *c, uint8_t *end) {
    static const uint8_t tail[TAIL] = {0, 0, 0xff, 0xff};
    if (!c->frames.compressed)
        return 0;
    memcpy(end, tail, TAIL);
    return TAIL;
}

static void tell_message(struct evw_conn *c, int64_t offset, size_t len) {
    const struct evw_frames *f = &c->frames;
    unsigned what = f->compressed ? EVW_DEFLATED_CAME : f->kind == EVW_TEXT ? EVW_TEXT_CAME : EVW_BINARY_CAME;
    evw_ev->emit(c->loop, c->target, offset, (int64_t)len << 4 | what, f->kind);
}

struct evw_loan {
    struct ev_task task;
    uint8_t *bytes;
};

static void end_loan(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    struct evw_loan *loan = (struct evw_loan *)task;
    free(loan->bytes);
    free(loan);
}

void *evws_loan_take(uint64_t address) {
    struct evw_loan *loan = (struct evw_loan *)(uintptr_t)address;
    void *bytes = loan->bytes;
    loan->bytes = NULL;
    return bytes;
}

void evws_loan_free(void *bytes) { free(bytes); }

/* The message's memory goes when Python has seen the batch, unless it takes it over. */
static int lend(struct evw_conn *c) {
    const struct evw_frames *f = &c->frames;
    struct evw_loan *loan = calloc(1, sizeof *loan);
    if (!loan)
        return 0;
    loan->bytes = c->message;
    evw_ev->reap(c->loop, &loan->task, end_loan);
    unsigned what = f->compressed ? EVW_LARGE_DEFLATED_CAME : f->kind == EVW_TEXT ? EVW_LARGE_TEXT_CAME : EVW_LARGE_BINARY_CAME;
    /* calloc's memory is aligned to more than 4, so the opcode fits in beside the address. */
    evw_ev->emit(c->loop, c->target, (int64_t)(intptr_t)c->message, (int64_t)c->message_len << 4 | what, (uintptr_t)loan | f->kind);
    c->message = NULL;
    return 1;
}

static void no_memory(struct evw_conn *c) {
    evw_bad(&c->frames, EVW_INTERNAL_ERROR, "no memory for the message");
    evw_conn_fail(c);
}

static void deliver(struct evw_conn *c) {
    c->active = evw_ev->now_ms(c->loop);
    c->message_len += end_compressed(c, c->message + c->message_len);
    if (c->message_len > INLINE_MOST) {
        if (!lend(c))
            no_memory(c);
    } else {
        int64_t offset;
        uint8_t *at = evw_ev->arena_put(c->loop, c->message_len, &offset);
        memcpy(at, c->message, c->message_len);
        tell_message(c, offset, c->message_len);
    }
    evw_message_drop(c);
}

static void deliver_apart(struct evw_conn *c, const uint8_t *data, size_t len) {
    int64_t offset;
    uint8_t *at = evw_ev->arena_reserve(c->loop, len, &offset);
    if (evw_payload(&c->frames, at, data, len) == EVW_BAD) {
        evw_conn_fail(c);
        return;
    }
    evw_ev->arena_commit(c->loop, offset, len);
    c->active = evw_ev->now_ms(c->loop);
    evw_tell(c, offset, c->frames.kind == EVW_TEXT ? EVW_APART_TEXT_CAME : EVW_APART_BINARY_CAME, len);
}

/* A message that is one small frame and has come whole: straight into the arena. */
static void deliver_at_once(struct evw_conn *c, const uint8_t *data, size_t len) {
    if (len >= APART_LEAST && !c->frames.compressed) {
        deliver_apart(c, data, len);
        return;
    }
    int64_t offset;
    uint8_t *at = evw_ev->arena_put(c->loop, len + TAIL, &offset);
    if (evw_payload(&c->frames, at, data, len) == EVW_BAD) {
        evw_conn_fail(c);
        return;
    }
    c->active = evw_ev->now_ms(c->loop);
    tell_message(c, offset, len + end_compressed(c, at + len));
}

static void gather(struct evw_conn *c, const uint8_t *data, size_t len) {
    if (!reserve(c, len)) {
        no_memory(c);
        return;
    }
    int result = evw_payload(&c->frames, c->message + c->message_len, data, len);
    c->message_len += len;
    if (result == EVW_BAD)
        evw_conn_fail(c);
    else if (result == EVW_DONE && c->frames.fin)
        deliver(c);
}

size_t evw_data(struct evw_conn *c, const uint8_t *data, size_t len) {
    struct evw_frames *f = &c->frames;
    size_t part = len < f->left ? len : (size_t)f->left;
    int ends = part == f->left;
    if (!part && !ends)
        return 0;
    if (ends)
        c->in_payload = 0;
    if (evw_is_control(f->opcode)) {
        if (!evw_control_room(c))
            return part;
        evw_payload(f, c->control + c->control_len, data, part); /* cannot be BAD: it is no text */
        c->control_len = (uint8_t)(c->control_len + part);
        if (ends) {
            evw_control(c);
            c->control_len = 0;
            if (c->state < EVW_ANSWERING) {
                free(c->control);
                c->control = NULL;
            }
        }
    } else if (c->state == EVW_CLOSING) {
        f->left -= part; /* nobody wants it any more */
    } else if (ends && f->fin && f->opcode != EVW_CONTINUATION && !c->message && part <= INLINE_MOST) {
        deliver_at_once(c, data, part);
    } else {
        gather(c, data, part);
    }
    return part;
}
