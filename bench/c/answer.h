/*
 * Checks one HTTP/1.1 answer at the start of a buffer: framing by Content-Length, status 200, the expected body.
 *
 * A server repeats itself: until its Date changes, its answers are equal byte by byte. An answer that equals the last
 * one that was parsed and found good is good too, so nearly all of them cost one memcmp.
 */
#ifndef BENCH_ANSWER_H
#define BENCH_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

enum { ANSWER_LIMIT = 1 << 17, ANSWER_HEAD_LIMIT = 1 << 14, ANSWER_KNOWN_LIMIT = 1 << 12 };

enum verdict { ANSWER_PARTIAL, ANSWER_GOOD, ANSWER_BAD_FRAMING, ANSWER_BAD_STATUS, ANSWER_BAD_BODY };

struct answer {
    size_t size;      /* head and body */
    size_t body_size; /* what Content-Length says */
    int status;
    bool closes; /* the server will close after this answer */
};

struct answer_checker {
    const char *expect; /* NULL: any body will do */
    size_t expect_size;
    size_t known_size;
    char known[ANSWER_KNOWN_LIMIT];
};

static inline bool answer__field_is(const char *line, const char *colon, const char *name)
{
    return (size_t)(colon - line) == strlen(name) && strncasecmp(line, name, strlen(name)) == 0;
}

static inline bool answer__length(const char *value, const char *end, size_t *length)
{
    if (value == end)
        return false;
    for (*length = 0; value < end; value++) {
        if (*value < '0' || *value > '9' || *length > ANSWER_LIMIT)
            return false;
        *length = *length * 10 + (size_t)(*value - '0');
    }
    return true;
}

/* One field line; false if the answer cannot be framed with it. */
static inline bool answer__field(const char *line, const char *end, struct answer *a, bool *has_length)
{
    const char *colon = memchr(line, ':', (size_t)(end - line));
    if (!colon || colon == line)
        return false;
    const char *value = colon + 1;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;

    if (answer__field_is(line, colon, "content-length")) {
        if (*has_length)
            return false;
        *has_length = true;
        return answer__length(value, end, &a->body_size);
    }
    if (answer__field_is(line, colon, "connection")) {
        if (end - value == 5 && strncasecmp(value, "close", 5) == 0)
            a->closes = true;
        else if (end - value == 10 && strncasecmp(value, "keep-alive", 10) == 0)
            a->closes = false;
    }
    /* No server that is asked for 13 constant bytes has a reason to chunk them. */
    return !answer__field_is(line, colon, "transfer-encoding");
}

/* The head, from the status line to the empty line, which ends at `end`; false if it is malformed. */
static inline bool answer__head(const char *data, const char *end, struct answer *a)
{
    bool has_length = false;
    const char *line = data, *eol = memmem(line, (size_t)(end - line), "\r\n", 2);

    if (eol - line < 12 || line[8] != ' ' || (line[7] != '0' && line[7] != '1'))
        return false;
    for (int i = 9; i < 12; i++) {
        if (line[i] < '0' || line[i] > '9')
            return false;
        a->status = a->status * 10 + (line[i] - '0');
    }
    a->closes = line[7] == '0';
    for (line = eol + 2; line < end - 2; line = eol + 2) {
        eol = memmem(line, (size_t)(end - line), "\r\n", 2);
        if (!answer__field(line, eol, a, &has_length))
            return false;
    }
    return has_length;
}

static inline enum verdict answer_check(struct answer_checker *k, const char *data, size_t size, struct answer *a)
{
    if (k->known_size && size >= k->known_size && memcmp(data, k->known, k->known_size) == 0) {
        *a = (struct answer){.size = k->known_size, .status = 200};
        return ANSWER_GOOD;
    }

    *a = (struct answer){0};
    if (memcmp(data, "HTTP/1.", size < 7 ? size : 7) != 0)
        return ANSWER_BAD_FRAMING;
    const char *blank = memmem(data, size, "\r\n\r\n", 4);
    if (!blank)
        return size > ANSWER_HEAD_LIMIT ? ANSWER_BAD_FRAMING : ANSWER_PARTIAL;
    const char *body = blank + 4;
    if (!answer__head(data, body, a))
        return ANSWER_BAD_FRAMING;
    if (a->status != 200)
        return ANSWER_BAD_STATUS;
    if (k->expect && a->body_size != k->expect_size)
        return ANSWER_BAD_BODY;
    a->size = (size_t)(body - data) + a->body_size;
    if (a->size > ANSWER_LIMIT)
        return ANSWER_BAD_FRAMING;
    if (a->size > size)
        return ANSWER_PARTIAL;
    if (k->expect && memcmp(body, k->expect, k->expect_size) != 0)
        return ANSWER_BAD_BODY;
    if (!a->closes && a->size <= sizeof k->known) {
        memcpy(k->known, data, a->size);
        k->known_size = a->size;
    }
    return ANSWER_GOOD;
}

#endif
