/* What the tests of the codec call: test_codec_c.py loads it with ctypes, fuzz_frames.c includes it.
 *
 * Every input is presented in memory that has a PROT_NONE page on both sides, flush with the one or with the other, and every result is
 * written to such memory, so that an access outside of it ends the process.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "feeder.h"
#include "frame.h"
#include "kernels.h"
#include "utf8.h"

enum { ROOM = 1 << 18, PAGE = 65536 /* a multiple of every page size in use */ };

struct area {
    uint8_t *base;
};
static struct area inputs, outputs;

static uint8_t *place(struct area *a, size_t len, int right) {
    if (!a->base) {
        a->base = mmap(NULL, ROOM + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (a->base == MAP_FAILED || mprotect(a->base, PAGE, PROT_NONE) != 0 || mprotect(a->base + PAGE + ROOM, PAGE, PROT_NONE) != 0)
            abort();
    }
    if (len > ROOM)
        abort();
    return a->base + PAGE + (right ? ROOM - len : 0);
}

static const uint8_t *present(const uint8_t *in, size_t len, int right) {
    uint8_t *at = place(&inputs, len, right);
    if (len)
        memcpy(at, in, len);
    return at;
}

static void broken(const char *what) {
    fprintf(stderr, "codec invariant broken: %s\n", what);
    abort();
}

/* Masks to another place and in place, at both ends of the guarded memory; returns what the kernel said, or -1 when they differ. */
int drv_mask(const uint8_t *in, size_t len, uint32_t key, uint8_t *out) {
    int first = 0;
    for (int right = 0; right < 2; right++) {
        uint8_t *dst = place(&outputs, len, right);
        int high = evw_kernels->mask(dst, present(in, len, right), len, key) != 0;
        present(in, len, right);
        uint8_t *same = place(&inputs, len, right);
        int high_in_place = evw_kernels->mask(same, same, len, key) != 0;
        if (high != high_in_place || memcmp(dst, same, len) != 0 || (right && (high != first || memcmp(dst, out, len) != 0)))
            return -1;
        first = high;
        memcpy(out, dst, len);
    }
    return first;
}

size_t drv_ascii(const uint8_t *in, size_t len, int right) { return evw_kernels->ascii(present(in, len, right), len); }

enum { BAD_TEXT, OPEN_TEXT, WHOLE_TEXT };

static int utf8_cut(const uint8_t *in, size_t len, size_t cut) {
    uint8_t state = EVW_UTF8_START;
    if (!evw_utf8_feed(&state, present(in, cut, 1), cut) || !evw_utf8_feed(&state, present(in + cut, len - cut, (int)(cut & 1)), len - cut))
        return BAD_TEXT;
    return state == EVW_UTF8_START ? WHOLE_TEXT : OPEN_TEXT;
}

/* Whole, byte by byte, and cut at each position (or at every `stride`th): BAD_TEXT, OPEN_TEXT or WHOLE_TEXT, or -1 when they differ. *bad_at is
 * the place of the first impossible byte, found byte by byte, or len. */
int drv_utf8(const uint8_t *in, size_t len, size_t stride, size_t *bad_at) {
    uint8_t state = EVW_UTF8_START;
    size_t i = 0;
    while (i < len && evw_utf8_feed(&state, present(in + i, 1, 1), 1))
        i++;
    *bad_at = i;
    int result = i < len ? BAD_TEXT : state == EVW_UTF8_START ? WHOLE_TEXT : OPEN_TEXT;
    for (size_t cut = 0; cut <= len; cut += stride)
        if (utf8_cut(in, len, cut) != result)
            return -1;
    return result;
}

/* All that a feeder told of an input. */
struct told {
    size_t count, bytes_used;
    struct evw_event events[ROOM / 2];
    uint8_t bytes[2 * ROOM];
};

static void take(struct told *t, struct evw_feeder *f, const uint8_t *in, size_t len, int right) {
    int64_t count = evws_feeder_feed(f, (const char *)present(in, len, right), len);
    if (count < 0)
        broken("out of memory");
    for (int64_t i = 0; i < count; i++) {
        struct evw_event e = evws_feeder_events(f)[i];
        if (e.length > 2 * ROOM - t->bytes_used || t->count == ROOM / 2)
            broken("more comes out than went in");
        memcpy(t->bytes + t->bytes_used, evws_feeder_bytes(f) + e.offset, (size_t)e.length);
        e.offset = t->bytes_used;
        t->bytes_used += (size_t)e.length;
        t->events[t->count++] = e;
    }
}

struct rules {
    int masked, compression;
    uint64_t max_frame, max_message;
};

/* In pieces that end at `cut` and at `cut2` (0 and 0: whole). With cut == SIZE_MAX byte by byte. */
static void tell(struct told *t, const struct rules *r, const uint8_t *in, size_t len, size_t cut, size_t cut2) {
    struct evw_feeder *f = evws_feeder_new(r->masked, r->compression, r->max_frame, r->max_message);
    if (!f)
        broken("out of memory");
    t->count = t->bytes_used = 0;
    if (cut == SIZE_MAX) {
        for (size_t i = 0; i < len; i++)
            take(t, f, in + i, 1, (int)(i & 1));
    } else {
        take(t, f, in, cut, 1);
        take(t, f, in + cut, cut2 - cut, 0);
        take(t, f, in + cut2, len - cut2, 1);
    }
    if (evws_feeder_ended(f)) {
        size_t count = t->count;
        take(t, f, in, len, 1);
        if (t->count != count)
            broken("something comes out after the end");
    }
    evws_feeder_free(f);
}

static int same(const struct told *a, const struct told *b) {
    return a->count == b->count && a->bytes_used == b->bytes_used && memcmp(a->events, b->events, a->count * sizeof *a->events) == 0 &&
           memcmp(a->bytes, b->bytes, a->bytes_used) == 0;
}

/* -1 when all ways to cut the input agree, else the cut that does not (0: byte by byte). */
static long check_splits(struct told *whole, const struct rules *r, const uint8_t *in, size_t len, size_t stride) {
    static struct told other;
    tell(whole, r, in, len, 0, 0);
    tell(&other, r, in, len, SIZE_MAX, 0);
    if (!same(whole, &other))
        return 0;
    for (size_t cut = 1; cut < len; cut += stride) {
        tell(&other, r, in, len, cut, cut + (len - cut) / 2);
        if (!same(whole, &other))
            return (long)cut;
    }
    return -1;
}
