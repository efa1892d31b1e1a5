/* What the tests of the parser and of the chunked decoder call: test_parser_c.py loads it with ctypes, fuzz_parser.c includes it.
 *
 * Every input is presented in memory that has a PROT_NONE page on both sides, flush with the one or with the other, so that a read
 * outside of it ends the process. Each prefix of a cut input is presented at another address than the one before.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "chunked.h"
#include "parser.h"
#include "reader.h"
#include "scan.h"

enum { ROOM = 1 << 18, PAGE = 65536 /* a multiple of every page size in use */ };

static uint8_t *arena(void)
{
    static uint8_t *base;
    if (base == NULL) {
        base = mmap(NULL, ROOM + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (base == MAP_FAILED || mprotect(base, PAGE, PROT_NONE) != 0 || mprotect(base + PAGE + ROOM, PAGE, PROT_NONE) != 0)
            abort();
    }
    return base + PAGE;
}

static const uint8_t *present(const uint8_t *in, size_t len, int right)
{
    uint8_t *at = arena() + (right ? ROOM - len : 0);
    if (len > ROOM)
        abort();
    if (len != 0)
        memcpy(at, in, len);
    return at;
}

static void broken(const char *what)
{
    fprintf(stderr, "parser invariant broken: %s\n", what);
    abort();
}

struct evh_limits drv_limits(const uint64_t v[7])
{
    struct evh_limits l = {.max_request_line = (uint32_t)v[0],
                           .max_header_section = (uint32_t)v[1],
                           .max_headers = (uint32_t)v[2],
                           .max_body = v[3],
                           .max_chunk_ext = (uint32_t)v[4],
                           .max_trailers = (uint32_t)v[5],
                           .any_method = (uint8_t)v[6]};
    return l;
}

/* One step of feeding: the first `len` bytes of the message. Checks what holds for every call. */
static int step(struct evh_parser *ps, const struct evh_limits *l, const uint8_t *in, size_t len, int right)
{
    uint32_t before = ps->pos;
    int r = evh_parser_feed(ps, l, present(in, len, right), len);
    if (ps->pos < before || ps->pos > len)
        broken("pos went back or past the input");
    if (r == EVH_MORE && ps->pos != len)
        broken("more is wanted, but not all of the input was looked at");
    if (r == EVH_DONE && (ps->head_len != ps->pos || ps->pos < 14 || memcmp(in + ps->pos - 2, "\r\n", 2) != 0))
        broken("a head that does not end with CRLF");
    if (r == EVH_BAD && (ps->status < 400 || ps->reason == NULL))
        broken("an error without status or reason");
    if (ps->nfields > EVH_MAX_FIELDS || (l->max_headers < ps->nfields))
        broken("too many fields");
    return r;
}

static int same_head(const struct evh_parser *a, int ra, const struct evh_parser *b, int rb)
{
    if (ra != rb || a->pos != b->pos)
        return 0;
    if (ra == EVH_MORE)
        return a->state == b->state && a->nfields == b->nfields;
    if (ra == EVH_BAD)
        return a->status == b->status && a->reason == b->reason;
    return a->start == b->start && a->method_len == b->method_len && a->target == b->target && a->target_len == b->target_len &&
           a->path == b->path && a->path_len == b->path_len && a->host == b->host && a->host_len == b->host_len &&
           a->head_len == b->head_len && a->flags == b->flags && a->method == b->method && a->version == b->version &&
           a->content_length == b->content_length && a->nfields == b->nfields &&
           memcmp(a->fields, b->fields, a->nfields * sizeof *a->fields) == 0;
}

static int feed_cut(struct evh_parser *ps, const struct evh_limits *l, const uint8_t *in, size_t len, size_t cut, int right)
{
    int r = EVH_MORE;
    evh_parser_init(ps);
    if (cut != 0) {
        r = step(ps, l, in, cut, right);
        right = !right;
    }
    return r == EVH_MORE ? step(ps, l, in, len, right) : r;
}

/* Feeds whole, byte by byte, and cut at each position (or at every `stride`th). Returns -1 when all agree with the whole, 0 when
 * feeding byte by byte does not, else the cut that does not. out: see drv_head(). */
static long check_splits(const struct evh_limits *l, const uint8_t *in, size_t len, size_t stride, struct evh_parser *whole,
                         int *result)
{
    static struct evh_parser other;
    int r = EVH_MORE;
    *result = feed_cut(whole, l, in, len, 0, 1);
    if (!same_head(whole, *result, &other, feed_cut(&other, l, in, len, 0, 0)))
        return 0;
    evh_parser_init(&other);
    for (size_t n = 0; n <= len && r == EVH_MORE; n++)
        r = step(&other, l, in, n, (int)(n & 1));
    if (!same_head(whole, *result, &other, r))
        return 0;
    for (size_t cut = 1; cut < len; cut += stride)
        if (!same_head(whole, *result, &other, feed_cut(&other, l, in, len, cut, (int)(cut & 1))))
            return (long)cut;
    return -1;
}

/* out: result, status, pos, method, version, flags, start, method_len, target, target_len, path, path_len, host, host_len,
 * head_len, content_length, nfields, then four numbers for each field. Returns check_splits()'s answer. */
long drv_head(const uint64_t limits[7], const uint8_t *in, size_t len, int64_t *out, char reason[128])
{
    static struct evh_parser ps;
    struct evh_limits l = drv_limits(limits);
    int r;
    long agreed = check_splits(&l, in, len, 1, &ps, &r);
    int64_t flat[17] = {r, ps.status, ps.pos, ps.method, ps.version, ps.flags, ps.start, ps.method_len, ps.target, ps.target_len,
                        ps.path, ps.path_len, ps.host, ps.host_len, ps.head_len, (int64_t)ps.content_length, ps.nfields};
    memcpy(out, flat, sizeof flat);
    for (int i = 0; i < ps.nfields; i++) {
        int64_t f[4] = {ps.fields[i].name, ps.fields[i].name_len, ps.fields[i].value, ps.fields[i].value_len};
        memcpy(out + 17 + i * 4, f, sizeof f);
    }
    snprintf(reason, 128, "%s", ps.reason != NULL ? ps.reason : "");
    return agreed;
}

/* The length of the shortest prefix that is not answered with EVH_MORE, or 0: how early an error is seen. */
size_t drv_first_answer(const uint64_t limits[7], const uint8_t *in, size_t len)
{
    static struct evh_parser ps;
    struct evh_limits l = drv_limits(limits);
    evh_parser_init(&ps);
    for (size_t n = 1; n <= len; n++)
        if (step(&ps, &l, in, n, 1) != EVH_MORE)
            return n;
    return 0;
}

/* -- chunked ------------------------------------------------------------------------------------------------------------------- */

struct body {
    int result;
    uint16_t status;
    const char *reason;
    size_t used, len;
    uint8_t data[ROOM];
};

static void body_piece(struct body *b, struct evh_chunked *ck, const struct evh_limits *l, const uint8_t *in, size_t len)
{
    const uint8_t *at = present(in, len, 1);
    size_t i = 0;
    while (b->result == EVH_MORE && i < len) {
        size_t used, off, n;
        b->result = evh_chunked_feed(ck, l, at + i, len - i, &used, &off, &n);
        if (used > len - i || (n != 0 && (off >= used || n > used - off)))
            broken("chunked: data outside of what was consumed");
        if (b->result == EVH_MORE && used == 0)
            broken("chunked: no progress");
        memcpy(b->data + b->len, at + i + off, n);
        b->len += n;
        b->used += used;
        if (b->len > l->max_body)
            broken("chunked: more data than the limit");
        i += used;
    }
    b->status = ck->status;
    b->reason = ck->reason;
}

/* cut == 0: whole. cut == len: byte by byte. */
static void body_cut(struct body *b, const struct evh_limits *l, const uint8_t *in, size_t len, size_t cut)
{
    struct evh_chunked ck;
    evh_chunked_init(&ck);
    memset(b, 0, offsetof(struct body, data));
    if (cut == len) {
        for (size_t i = 0; i < len; i++)
            body_piece(b, &ck, l, in + i, 1);
    } else {
        body_piece(b, &ck, l, in, cut);
        body_piece(b, &ck, l, in + cut, len - cut);
    }
    if (b->result == EVH_MORE && b->used != len)
        broken("chunked: more is wanted, but not all of the input was taken");
}

static int same_body(const struct body *a, const struct body *b)
{
    return a->result == b->result && a->status == b->status && a->reason == b->reason && a->used == b->used && a->len == b->len &&
           memcmp(a->data, b->data, a->len) == 0;
}

static long check_body(const struct evh_limits *l, const uint8_t *in, size_t len, size_t stride, struct body *whole)
{
    static struct body other;
    body_cut(whole, l, in, len, 0);
    body_cut(&other, l, in, len, len);
    if (!same_body(whole, &other))
        return 0;
    for (size_t cut = 1; cut < len; cut += stride) {
        body_cut(&other, l, in, len, cut);
        if (!same_body(whole, &other))
            return (long)cut;
    }
    return -1;
}

/* out: result, status, bytes used, bytes of data. */
long drv_body(const uint64_t limits[7], const uint8_t *in, size_t len, uint8_t *data, int64_t out[4], char reason[128])
{
    static struct body b;
    struct evh_limits l = drv_limits(limits);
    long agreed = check_body(&l, in, len, 1, &b);
    int64_t flat[4] = {b.result, b.status, (int64_t)b.used, (int64_t)b.len};
    memcpy(out, flat, sizeof flat);
    memcpy(data, b.data, b.len);
    snprintf(reason, 128, "%s", b.reason != NULL ? b.reason : "");
    return agreed;
}

/* -- the reader ---------------------------------------------------------------------------------------------------------------- */

/* What came out of a stream: each message's parts, one behind the other, and how it ended. */
struct stream {
    int phase;
    uint16_t status;
    const char *reason;
    size_t messages, len;
    uint8_t data[4 * ROOM];
};

static void put(struct stream *st, const void *data, size_t len)
{
    if (len > sizeof st->data - st->len - 8)
        return;
    memcpy(st->data + st->len, &len, sizeof(uint32_t)); /* so that parts cannot be taken for each other */
    st->len += sizeof(uint32_t);
    if (len != 0)
        memcpy(st->data + st->len, data, len);
    st->len += len;
}

static void put_fields(struct stream *st, const struct evh_reader *r, int trailers)
{
    size_t len = evh_reader_fields(r, trailers, NULL);
    uint8_t *block = malloc(len);
    if (block == NULL || evh_reader_fields(r, trailers, block) != len || block[len - 1] != '\n')
        broken("reader: the field block has another length");
    put(st, block, len);
    free(block);
}

static void take_messages(struct stream *st, struct evh_reader *r, int asked)
{
    const struct evh_message *m = evh_reader_message(r);
    while (m->phase == EVH_PHASE_COMPLETE) {
        uint16_t flat[4] = {m->method, m->version, m->status, m->flags};
        put(st, flat, sizeof flat);
        put(st, m->method_text, m->method_len);
        put(st, m->target, m->target_len);
        put(st, m->phrase, m->phrase_len);
        put(st, m->body, m->body_len);
        put_fields(st, r, 0);
        put_fields(st, r, 1);
        st->messages++;
        evh_reader_reset(r, asked);
    }
}

/* kind: 0 requests; else responses to 1 other methods, 2 HEAD, 3 CONNECT. cut == 0: whole; cut == len: byte by byte. */
static void read_cut(struct stream *st, const struct evh_limits *l, const uint8_t *in, size_t len, size_t cut, int kind)
{
    int asked = kind ? kind - 1 : 0;
    struct evh_reader *r = evh_reader_new(l, kind != 0);
    if (r == NULL)
        abort();
    evh_reader_reset(r, asked);
    memset(st, 0, offsetof(struct stream, data));
    for (size_t at = 0; at < len;) {
        size_t n = cut == len ? 1 : at < cut ? cut : len - at;
        if (evh_reader_feed(r, present(in + at, n, 1), n) < 0)
            abort();
        take_messages(st, r, asked);
        at += n;
    }
    evh_reader_eof(r);
    take_messages(st, r, asked);
    st->phase = evh_reader_message(r)->phase;
    st->status = evh_reader_message(r)->status;
    st->reason = evh_reader_message(r)->reason;
    evh_reader_free(r);
}

static int same_stream(const struct stream *a, const struct stream *b)
{
    return a->phase == b->phase && (a->phase != EVH_PHASE_FAILED || (a->status == b->status && a->reason == b->reason)) &&
           a->messages == b->messages && a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

static long check_stream(const struct evh_limits *l, const uint8_t *in, size_t len, size_t stride, int kind)
{
    static struct stream whole, other;
    read_cut(&whole, l, in, len, 0, kind);
    read_cut(&other, l, in, len, len, kind);
    if (!same_stream(&whole, &other))
        return 0;
    for (size_t cut = 1; cut < len; cut += stride) {
        read_cut(&other, l, in, len, cut, kind);
        if (!same_stream(&whole, &other))
            return (long)cut;
    }
    return -1;
}

/* out: the phase it ended in, messages. Returns check_stream()'s answer. */
long drv_stream(const uint64_t limits[7], const uint8_t *in, size_t len, int kind, int64_t out[2])
{
    static struct stream st;
    struct evh_limits l = drv_limits(limits);
    read_cut(&st, &l, in, len, 0, kind);
    out[0] = st.phase;
    out[1] = (int64_t)st.messages;
    return check_stream(&l, in, len, 1, kind);
}

/* -- scanning ------------------------------------------------------------------------------------------------------------------ */

/* kind: 0 value, 1 target, 2 token. Returns the offset of the first byte outside the class. */
size_t drv_scan(int kind, const uint8_t *in, size_t len)
{
    const uint8_t *at = present(in, len, 1), *end = at + len;
    return (size_t)((kind == 0 ? evh_scan_value(at, end) : kind == 1 ? evh_scan_target(at, end) : evh_scan_token(at, end)) - at);
}

void drv_lower(uint8_t *dst, const uint8_t *src, size_t len)
{
    evh_lower_copy(dst, present(src, len, 1), len);
}
