/*
 * Messages as masked binary frames of RFC 6455, after a handshake. One wire_send is one message; what a server sends in answer
 * must be one frame, too. Linked with ws_plain.c or ws_deflate.c, which say how a message looks inside of its frame.
 */
#define _GNU_SOURCE
#include "ws_message.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pattern.h"

enum { HEADER_MOST = 14, ANSWER_MOST = 4096, TEXT = 1, BINARY = 2, FIN = 0x80, RSV1 = 0x40 };

/* The stages of a connection. SHAKING: the request is out, its answer has not come whole. */
enum stage { BEGIN, SHAKING, OPEN };

struct ws {
    enum stage stage;
    uint8_t *out; /* the frame under way */
    size_t out_size, out_sent, out_room;
    uint8_t header[HEADER_MOST]; /* of the frame that is coming, as far as it has come */
    unsigned header_size;
    bool in_payload;
    size_t payload_left;
    uint32_t mask;
    struct ws_inbox inbox;
};

static uint8_t raw[PATTERN_LIMIT + HEADER_MOST + 1];
static const char *reason = "";

static ssize_t lost(const char *why)
{
    reason = why;
    return WIRE_LOST;
}

const char *wire_reason(void) { return reason; }

void wire_setup(void) { ws_setup(); }

void wire_open(struct wire *w, int fd)
{
    struct ws *ws = calloc(1, sizeof *ws);
    if (!ws) {
        perror("calloc");
        exit(1);
    }
    ws->mask = (uint32_t)fd * 2654435761u | 0x01010101;
    *w = (struct wire){.fd = fd, .secure = ws};
}

void wire_close(struct wire *w)
{
    struct ws *ws = w->secure;
    if (w->fd >= 0)
        close(w->fd);
    if (ws) {
        free(ws->out);
        free(ws->inbox.bytes);
        free(ws);
    }
    *w = (struct wire){.fd = -1};
}

static void mask(uint8_t *to, const uint8_t *from, size_t size, uint32_t key)
{
    uint64_t twice = (uint64_t)key << 32 | key, word;
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, from + i, 8);
        word ^= twice;
        memcpy(to + i, &word, 8);
    }
    for (; i < size; i++)
        to[i] = from[i] ^ (uint8_t)(key >> 8 * (i & 3));
}

/* The whole frame of a message into ws->out. */
static void put_frame(struct ws *ws, const void *data, size_t size)
{
    bool packed;
    const uint8_t *payload = ws_pack(data, &size, &packed);
    if (ws->out_room < size + HEADER_MOST) {
        ws->out_room = size + HEADER_MOST;
        ws->out = realloc(ws->out, ws->out_room);
        if (!ws->out) {
            perror("realloc");
            exit(1);
        }
    }
    unsigned extended = size < 126 ? 0 : size <= 0xffff ? 2 : 8, at = 2;
    ws->out[0] = (uint8_t)(FIN | (packed ? RSV1 : 0) | ws_opcode);
    ws->out[1] = (uint8_t)(0x80 | (extended == 0 ? size : extended == 2 ? 126 : 127));
    for (unsigned i = 0; i < extended; i++)
        ws->out[at++] = (uint8_t)(size >> 8 * (extended - 1 - i));
    ws->mask = ws->mask * 1664525u + 1013904223u; /* another one for each frame */
    memcpy(ws->out + at, &ws->mask, 4);
    mask(ws->out + at + 4, payload, size, ws->mask);
    ws->out_size = at + 4 + size;
    ws->out_sent = 0;
}

/* 1: all of ws->out is out. */
static int put_out(int fd, struct ws *ws)
{
    ssize_t sent = send(fd, ws->out + ws->out_sent, ws->out_size - ws->out_sent, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN ? WIRE_AGAIN : (int)lost(strerror(errno));
    ws->out_sent += (size_t)sent;
    if (ws->out_sent < ws->out_size)
        return WIRE_AGAIN;
    ws->out_size = ws->out_sent = 0;
    return 1;
}

static int shake(int fd, struct ws *ws)
{
    if (ws->stage == BEGIN) {
        if (!ws->out_size) {
            char *request;
            int size = asprintf(&request,
                                "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n",
                                ws_offer);
            if (size < 0) {
                perror("asprintf");
                exit(1);
            }
            ws->out = (uint8_t *)request;
            ws->out_size = ws->out_room = (size_t)size;
        }
        int done = put_out(fd, ws);
        if (done != 1)
            return done;
        ws->stage = SHAKING;
    }
    char answer[ANSWER_MOST];
    ssize_t seen = recv(fd, answer, sizeof answer - 1, MSG_PEEK);
    if (seen <= 0)
        return seen == 0 ? WIRE_EOF : errno == EAGAIN ? WIRE_AGAIN : (int)lost(strerror(errno));
    answer[seen] = '\0';
    char *end = strstr(answer, "\r\n\r\n");
    if (!end)
        return (size_t)seen == sizeof answer - 1 ? (int)lost("handshake without an end") : WIRE_AGAIN;
    end[2] = '\0';
    if (strncmp(answer, "HTTP/1.1 101", 12) || !strstr(answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") || !ws_accepted(answer))
        return (int)lost("the handshake was refused");
    if (recv(fd, answer, (size_t)(end + 4 - answer), 0) != end + 4 - answer)
        return (int)lost("handshake read twice");
    ws->stage = OPEN;
    return 1;
}

ssize_t wire_send(struct wire *w, const void *data, size_t size)
{
    struct ws *ws = w->secure;
    if (ws->stage != OPEN) {
        int done = shake(w->fd, ws);
        if (done != 1)
            return done;
    }
    if (!ws->out_size)
        put_frame(ws, data, size);
    int done = put_out(w->fd, ws);
    return done == 1 ? (ssize_t)size : done;
}

/* Takes header bytes; returns how many, or WIRE_LOST. */
static ssize_t take_header(struct ws *ws, const uint8_t *from, size_t size)
{
    size_t used = 0;
    unsigned need = 2;
    while (used < size) {
        ws->header[ws->header_size++] = from[used++];
        if (ws->header_size >= 2)
            need = 2 + ((ws->header[1] & 127) == 126 ? 2 : (ws->header[1] & 127) == 127 ? 8 : 0);
        if (ws->header_size == need)
            break;
    }
    if (ws->header_size < need || ws->header_size < 2)
        return (ssize_t)used;
    if ((ws->header[0] & 0xbf) != (FIN | ws_opcode) || ws->header[1] & 0x80)
        return lost("not a whole message in one unmasked frame");
    ws->payload_left = ws->header[1] & 127;
    if (need > 2)
        ws->payload_left = 0;
    for (unsigned i = 2; i < need; i++)
        ws->payload_left = ws->payload_left << 8 | ws->header[i];
    ws->in_payload = true;
    ws->header_size = 0;
    ws->inbox.packed = (ws->header[0] & RSV1) != 0;
    return (ssize_t)used;
}

ssize_t wire_recv(struct wire *w, void *data, size_t size)
{
    struct ws *ws = w->secure;
    size_t given = 0, limit = size + HEADER_MOST < sizeof raw ? size + HEADER_MOST : sizeof raw;
    if (ws->stage != OPEN) {
        int done = shake(w->fd, ws);
        if (done != 1)
            return done;
    }
    ssize_t got = recv(w->fd, raw, limit, 0);
    if (got <= 0)
        return got == 0 ? WIRE_EOF : errno == EAGAIN ? WIRE_AGAIN : lost(strerror(errno));
    for (size_t at = 0; at < (size_t)got;) {
        if (!ws->in_payload) {
            ssize_t used = take_header(ws, raw + at, (size_t)got - at);
            if (used < 0)
                return used;
            at += (size_t)used;
            continue;
        }
        size_t part = (size_t)got - at < ws->payload_left ? (size_t)got - at : ws->payload_left;
        ws->payload_left -= part;
        ws->in_payload = ws->payload_left > 0;
        ssize_t out = ws_unpack(&ws->inbox, raw + at, part, !ws->in_payload, (uint8_t *)data + given, size - given);
        if (out < 0)
            return lost("a message that is not what was asked for");
        given += (size_t)out;
        at += part;
    }
    return given ? (ssize_t)given : WIRE_AGAIN;
}
