/* The frame parser for Python: bytes go in, whole frames come out, as events and the bytes they speak of. */
#include "feeder.h"

#include "close.h"
#include "frame.h"
#include "kernels.h"

#include <errno.h>
#include <stdlib.h>

enum { FIRST_BYTES = 1024, FIRST_EVENTS = 16, BYTES_KEPT = 64 * 1024 };

struct evw_feeder {
    struct evw_frames frames;
    struct evw_rules rules;
    struct evw_event *events;
    size_t count, capacity;
    uint8_t *bytes;
    size_t used, bytes_capacity;
    size_t begun;       /* where the payload of the frame under way begins */
    uint8_t in_payload; /* its header has come */
    uint8_t ended;      /* by a Close or a violation: what follows is not looked at */
};

struct evw_feeder *evws_feeder_new(int masked, int compression, uint64_t max_frame, uint64_t max_message) {
    struct evw_feeder *f = calloc(1, sizeof *f);
    if (f)
        f->rules = (struct evw_rules){max_frame, max_message, masked != 0, compression != 0, .excess = 0};
    return f;
}

void evws_feeder_free(struct evw_feeder *f) {
    free(f->events);
    free(f->bytes);
    free(f);
}

const struct evw_event *evws_feeder_events(const struct evw_feeder *f) { return f->events; }
const uint8_t *evws_feeder_bytes(const struct evw_feeder *f) { return f->bytes; }
int evws_feeder_ended(const struct evw_feeder *f) { return f->ended; }

/* Memory grows with what has come, not with what a header announces. */
static int reserve(struct evw_feeder *f, size_t len) {
    if (len <= f->bytes_capacity - f->used)
        return 0;
    size_t capacity = f->bytes_capacity ? f->bytes_capacity : FIRST_BYTES;
    while (capacity - f->used < len)
        capacity *= 2;
    uint8_t *bytes = realloc(f->bytes, capacity);
    if (!bytes)
        return -ENOMEM;
    f->bytes = bytes;
    f->bytes_capacity = capacity;
    return 0;
}

static struct evw_event *add_event(struct evw_feeder *f) {
    if (f->count == f->capacity) {
        size_t capacity = f->capacity ? f->capacity * 2 : FIRST_EVENTS;
        struct evw_event *events = realloc(f->events, capacity * sizeof *events);
        if (!events)
            return NULL;
        f->events = events;
        f->capacity = capacity;
    }
    struct evw_event *e = &f->events[f->count++];
    memset(e, 0, sizeof *e);
    e->offset = f->begun;
    e->length = f->used - f->begun;
    return e;
}

static int add_violation(struct evw_feeder *f) {
    size_t len = strlen(f->frames.reason);
    f->ended = 1;
    f->used = f->begun; /* of the frame that is wrong nothing is told */
    if (reserve(f, len) < 0)
        return -ENOMEM;
    memcpy(f->bytes + f->used, f->frames.reason, len);
    f->used += len;
    struct evw_event *e = add_event(f);
    if (!e)
        return -ENOMEM;
    e->opcode = EVW_VIOLATION;
    e->code = f->frames.code;
    return 0;
}

static int add_frame(struct evw_feeder *f) {
    f->in_payload = 0;
    struct evw_event *e = add_event(f);
    if (!e)
        return -ENOMEM;
    e->opcode = f->frames.opcode;
    e->fin = f->frames.fin;
    e->rsv1 = f->frames.rsv1;
    if (f->frames.opcode == EVW_CLOSE) {
        f->ended = 1;
        if (evw_close_read(&f->frames, f->bytes + f->begun, f->used - f->begun, &e->code) == EVW_BAD) {
            f->count--;
            return add_violation(f);
        }
    }
    f->begun = f->used;
    return 0;
}

/* One header, or one run of payload. Returns what of `len` it has used, or -ENOMEM. */
static int64_t step(struct evw_feeder *f, const uint8_t *data, size_t len) {
    size_t used = 0;
    int result;
    if (!f->in_payload) {
        result = evw_header(&f->frames, &f->rules, data, len, &used);
        if (result == EVW_MORE)
            return (int64_t)used;
        if (result == EVW_DONE)
            f->in_payload = 1;
    } else {
        result = EVW_DONE;
    }
    if (result == EVW_DONE) {
        size_t left = len - used, part = left < f->frames.left ? left : (size_t)f->frames.left;
        if (reserve(f, part + 1) < 0) /* one more, so that there is memory to point to for a frame without payload */
            return -ENOMEM;
        result = evw_payload(&f->frames, f->bytes + f->used, data + used, part);
        f->used += part;
        used += part;
    }
    int rc = result == EVW_BAD ? add_violation(f) : result == EVW_DONE ? add_frame(f) : 0;
    return rc < 0 ? rc : (int64_t)used;
}

static void forget_told(struct evw_feeder *f) {
    f->count = 0;
    size_t partial = f->used - f->begun;
    if (f->begun && partial)
        memmove(f->bytes, f->bytes + f->begun, partial);
    f->begun = 0;
    f->used = partial;
    if (!partial && f->bytes_capacity > BYTES_KEPT) {
        free(f->bytes);
        f->bytes = NULL;
        f->bytes_capacity = 0;
    }
}

int64_t evws_feeder_feed(struct evw_feeder *f, const char *bytes, size_t len) {
    const uint8_t *data = (const uint8_t *)bytes;
    forget_told(f);
    while (len && !f->ended) {
        int64_t used = step(f, data, len);
        if (used < 0) {
            f->ended = 1;
            return used;
        }
        data += used;
        len -= (size_t)used;
    }
    return (int64_t)f->count;
}

size_t evws_frame(char *into, unsigned first, const char *payload, size_t len, const char *mask) {
    uint32_t key = 0;
    if (mask)
        memcpy(&key, mask, sizeof key);
    size_t header = evw_header_write((uint8_t *)into, first, len, mask ? &key : NULL);
    evw_kernels->mask((uint8_t *)into + header, (const uint8_t *)payload, len, key);
    return header + len;
}

int evws_close_code_ok(unsigned code) { return evw_close_code_ok(code); }
const char *evws_kernels_select(const char *name) { return evw_kernels_select(name); }
