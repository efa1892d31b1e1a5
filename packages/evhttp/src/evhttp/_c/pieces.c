/* Answers in pieces, written as they come, and what Python is told of exchanges that it watches. */
#include "internal.h"

#include <stdlib.h>

/* The client's socket has taken so much that Python may go on: with this left to send, it does not run dry meanwhile. */
enum { LOW_WATER = 32 * 1024, CHUNK_LINE_MOST = 20 };

static net_stream *of_tell(struct ev_task *t) { return ((struct evh_conn *)((char *)t - offsetof(struct evh_conn, tell)))->stream; }

/* RFC 9112 §7.1 */
static size_t chunk_line(char *into, uint64_t size) {
    char digits[16];
    size_t count = 0, len = 0;
    do
        digits[count++] = "0123456789abcdef"[size & 15];
    while (size >>= 4);
    while (count)
        into[len++] = digits[--count];
    into[len++] = '\r';
    into[len++] = '\n';
    return len;
}

static uint32_t target_of(const struct evh_conn *c, uint16_t place) {
    const struct evh_watch *w = c->watches;
    while (w && w->place != place)
        w = w->next;
    return w ? w->target : 0;
}

void evh_tell_taken(net_stream *s) {
    struct evh_conn *c = evh_conn_of(s);
    if (!c->tell_taken)
        return;
    c->tell_taken = 0;
    uint32_t target = target_of(c, c->answered);
    if (target)
        evh_ev->emit(evh_net->loop(s), target, 0, EVH_TELL_TAKEN, evh_exchange_of(s, c->answered));
}

/* Runs after the flush that sends what was written before it. */
static void look(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    net_stream *s = of_tell(task);
    if (evh_net->queued(s) <= LOW_WATER)
        evh_tell_taken(s);
}

static void write_body(net_stream *s, const struct evh_answer *a) {
    if (a->kind == EVH_REF)
        evh_net->write_ref(s, a->body, (size_t)a->body_len, a->target, (int64_t)a->id);
    else
        evh_net->write(s, a->body, (size_t)a->body_len);
}

static void write_piece(net_stream *s, const struct evh_conn *c, const struct evh_answer *a) {
    if (!c->piece_length || !a->body_len) { /* HEAD and the like; and an empty chunk would end the body */
        if (a->kind == EVH_REF)
            evh_ev->emit(evh_net->loop(s), a->target, (int64_t)a->id, 0, 0);
        return;
    }
    if (c->piece_length != EVH_LENGTH_CHUNKED) {
        write_body(s, a);
        return;
    }
    char line[CHUNK_LINE_MOST];
    evh_net->write(s, line, chunk_line(line, a->body_len));
    write_body(s, a);
    evh_net->write(s, "\r\n", 2);
}

void evh_piece_write(net_stream *s, const struct evh_answer *a) {
    struct evh_conn *c = evh_conn_of(s);
    if (a->step == EVH_PIECE_STEP) {
        write_piece(s, c, a);
        if (a->arg & EVH_PIECE_TELL) {
            c->tell_taken = 1;
            evh_ev->soon(evh_net->loop(s), &c->tell, look);
        }
    } else if (c->piece_length == EVH_LENGTH_CHUNKED) {
        evh_net->write(s, "0\r\n", 3);
        evh_net->write(s, a->headers, a->headers_len);
        evh_net->write(s, "\r\n", 2);
    }
}

int evh_watch(net_stream *s, uint16_t place, uint32_t target) {
    struct evh_conn *c = evh_conn_of(s);
    struct evh_watch *w = malloc(sizeof *w);
    if (!w)
        return 0;
    *w = (struct evh_watch){.next = c->watches, .target = target, .place = place};
    c->watches = w;
    if (c->eof)
        evh_ev->emit(evh_net->loop(s), target, 0, EVH_TELL_EOF, evh_exchange_of(s, place));
    return 1;
}

void evh_watch_end(net_stream *s, uint16_t place, int64_t a, int64_t what) {
    struct evh_conn *c = evh_conn_of(s);
    c->tell_taken = 0;
    for (struct evh_watch **at = &c->watches, *w; (w = *at);) {
        if (w->place != place) {
            at = &w->next;
            continue;
        }
        evh_ev->emit(evh_net->loop(s), w->target, a, what, evh_exchange_of(s, place));
        *at = w->next;
        free(w);
    }
}

void evh_watches_tell(net_stream *s, int64_t what) {
    for (struct evh_watch *w = evh_conn_of(s)->watches; w; w = w->next)
        evh_ev->emit(evh_net->loop(s), w->target, 0, what, evh_exchange_of(s, w->place));
}

void evh_watches_lost(net_stream *s, int cause) {
    struct evh_conn *c = evh_conn_of(s);
    while (c->watches) {
        struct evh_watch *w = c->watches;
        c->watches = w->next;
        evh_ev->emit(evh_net->loop(s), w->target, cause, EVH_TELL_LOST, evh_exchange_of(s, w->place));
        free(w);
    }
}
