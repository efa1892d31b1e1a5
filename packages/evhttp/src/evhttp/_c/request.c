/* Requests on their way to Python: the head is rewritten into the arena, the body put behind it. */
#include "internal.h"
#include "scan.h"

#include <stdlib.h>
#include <string.h>

/* Python reads this by struct "<IIIIIHBB16sQ" (see _request.py). */
struct evh_head {
    uint32_t fields, fields_len; /* the field block, from the start of this struct */
    uint32_t body, body_len;
    uint32_t target_len; /* the target begins right behind this struct; between it and the fields lies the text of an unknown method */
    uint16_t port;
    uint8_t version, family;
    uint8_t ip[16];
    uint64_t large_body; /* the address of a body that is not in the arena (it goes with the batch), else 0 */
};
_Static_assert(sizeof(struct evh_head) == 48, "Python knows this layout");

/* info: method | EVH_INFO_* (_request.py) | path offset << 16 | path length << 32 */
enum { EVH_INFO_ABSOLUTE = 1 << 9, EVH_INFO_HTTP10 = 1 << 10 };

/* Up to here a body is copied once more, into the arena; beyond, Python takes it from where it was gathered. */
enum { LARGE_BODY = 256 * 1024, FIRST_BODY = 64 * 1024 };

static size_t fields_len(const struct evh_parser *p) {
    size_t len = 1;
    for (unsigned i = 0; i < p->nfields; i++)
        len += (size_t)p->fields[i].name_len + p->fields[i].value_len + 2;
    return len;
}

static size_t method_text_len(const struct evh_parser *p) { return p->method == EVH_OTHER ? p->method_len : 0; }

static size_t head_len(const struct evh_parser *p) {
    return sizeof(struct evh_head) + p->target_len + method_text_len(p) + fields_len(p);
}

static void write_fields(uint8_t *at, const struct evh_parser *p, const uint8_t *message) {
    for (unsigned i = 0; i < p->nfields; i++) {
        const struct evh_field *f = &p->fields[i];
        *at++ = '\n';
        evh_lower_copy(at, message + f->name, f->name_len);
        at += f->name_len;
        *at++ = ':';
        memcpy(at, message + f->value, f->value_len);
        at += f->value_len;
    }
    *at = '\n';
}

/* `len` is head_len(p). */
static void write_head(uint8_t *at, size_t len, const struct evh_parser *p, const uint8_t *message, const struct net_address *peer) {
    size_t fields = sizeof(struct evh_head) + p->target_len + method_text_len(p);
    struct evh_head head = {
        .fields = (uint32_t)fields,
        .fields_len = (uint32_t)(len - fields),
        .body = (uint32_t)len,
        .target_len = p->target_len,
        .port = peer->port,
        .version = p->version,
        .family = peer->family,
    };
    memcpy(head.ip, peer->ip, sizeof head.ip);
    memcpy(at, &head, sizeof head);
    memcpy(at + sizeof head, message + p->target, p->target_len);
    memcpy(at + sizeof head + p->target_len, message + p->start, method_text_len(p));
    write_fields(at + fields, p, message);
}

static int64_t info_of(const struct evh_parser *p) {
    /* The authority-form has no path: it is empty, at the end, so that no query follows either. */
    uint32_t at = p->flags & EVH_AUTHORITY_FORM ? p->target_len : p->path - p->target;
    int64_t path = (int64_t)sizeof(struct evh_head) + at;
    return p->method | (p->version == 10 ? EVH_INFO_HTTP10 : 0) | (p->flags & EVH_ABSOLUTE ? EVH_INFO_ABSOLUTE : 0) | path << 16 |
           (int64_t)p->path_len << 32;
}

/* Counts the request in and tells Python. */
static void emit(net_stream *s, uint32_t target, int64_t offset, int64_t info) {
    struct evh_conn *c = evh_conn_of(s);
    uint64_t exchange = evh_net->token(s) | (uint64_t)c->asked << EV_TOKEN_BITS;
    evh_ev->emit(evh_net->loop(s), target, offset, info, exchange);
    c->asked = (uint16_t)(c->asked + 1) % EVH_PLACES;
}

void evh_request_take(net_stream *s, const struct evh_parser *p, const uint8_t *message, const uint8_t *body, size_t body_len) {
    size_t len = head_len(p);
    int64_t offset;
    uint8_t *at = evh_ev->arena_put(evh_net->loop(s), len + body_len, &offset);
    write_head(at, len, p, message, evh_net->peer(s));
    if (body_len) {
        ((struct evh_head *)at)->body_len = (uint32_t)body_len;
        memcpy(at + len, body, body_len);
    }
    emit(s, evh_conn_of(s)->server->target, offset, info_of(p));
}

/* -- bodies that come in pieces -- */

struct evh_body *evh_body_begin(const struct evh_parser *p, const uint8_t *message, const struct net_address *peer) {
    struct evh_body *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->head_len = (uint32_t)head_len(p);
    b->head = malloc(b->head_len);
    if (!b->head) {
        free(b);
        return NULL;
    }
    write_head(b->head, b->head_len, p, message, peer);
    b->info = info_of(p);
    b->is_chunked = (p->flags & EVH_CHUNKED) != 0;
    b->length = p->content_length;
    if (b->is_chunked)
        evh_chunked_init(&b->chunked);
    return b;
}

void evh_body_free(struct evh_body *b) {
    if (b) {
        free(b->head);
        free(b->data);
        free(b);
    }
}

/* Memory grows with what has come, not with what was announced: an announcement costs its sender nothing. */
static int append(struct evh_body *b, const uint8_t *data, size_t len) {
    if (len > b->capacity - b->len) {
        size_t capacity = b->capacity ? b->capacity : FIRST_BODY;
        while (capacity - b->len < len)
            capacity *= 2;
        if (!b->is_chunked && capacity > b->length)
            capacity = (size_t)b->length;
        uint8_t *grown = realloc(b->data, capacity);
        if (!grown)
            return 0;
        b->data = grown;
        b->capacity = capacity;
    }
    memcpy(b->data + b->len, data, len);
    b->len += len;
    return 1;
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

static void complete(net_stream *s, struct evh_body *b) {
    ev_loop *loop = evh_net->loop(s);
    struct evh_head *head = (struct evh_head *)b->head;
    head->body_len = (uint32_t)b->len;
    uint32_t target = evh_conn_of(s)->server->target;
    size_t inline_len = b->len;
    if (b->len > LARGE_BODY) {
        head->large_body = (uint64_t)(uintptr_t)b->data;
        target = evh_conn_of(s)->server->large_target;
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

static void finish(net_stream *s) {
    struct evh_conn *c = evh_conn_of(s);
    struct evh_body *b = c->body;
    c->body = NULL;
    complete(s, b);
    evh_body_free(b);
}

static size_t feed_by_length(net_stream *s, struct evh_body *b, const uint8_t *data, size_t len) {
    uint64_t left = b->length - b->len;
    size_t part = len < left ? len : (size_t)left;
    if (!append(b, data, part)) {
        evh_conn_refuse(s, 503, "no memory for the body");
        return len;
    }
    if (b->len == b->length)
        finish(s);
    return part;
}

static size_t feed_chunked(net_stream *s, struct evh_body *b, const uint8_t *data, size_t len) {
    size_t used = 0;
    for (;;) {
        size_t n, off, run;
        int rc = evh_chunked_feed(&b->chunked, &evh_conn_of(s)->server->limits, data + used, len - used, &n, &off, &run);
        if (rc == EVH_BAD) {
            evh_conn_refuse(s, b->chunked.status, b->chunked.reason);
            return len;
        }
        if (run && !append(b, data + used + off, run)) {
            evh_conn_refuse(s, 503, "no memory for the body");
            return len;
        }
        used += n;
        if (rc == EVH_DONE) {
            finish(s);
            return used;
        }
        if (used == len)
            return used;
    }
}

size_t evh_body_feed(net_stream *s, const uint8_t *data, size_t len) {
    struct evh_body *b = evh_conn_of(s)->body;
    return b->is_chunked ? feed_chunked(s, b, data, len) : feed_by_length(s, b, data, len);
}
