/*
 * Messages of permessage-deflate (RFC 7692), each compressed by itself, in both directions: the servers are compared at the
 * same work. What is sent is text like JSON, of which there are few, so each is compressed once, before it is first sent; what
 * comes is decompressed and compared.
 */
#include "ws_message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "pattern.h"

const char ws_offer[] =
    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";
const unsigned ws_opcode = 1;

enum { LEVEL = 6, BITS = -15, MEMORY = 8, TAIL = 4 };

struct packed {
    uint8_t *bytes;
    size_t plain, size;
};

static struct packed cache[PATTERN_SPAN];
static z_stream deflater, inflater;

static void out_of_memory(void)
{
    fprintf(stderr, "zlib: no memory\n");
    exit(1);
}

void ws_setup(void)
{
    pattern_fill_json();
    if (deflateInit2(&deflater, LEVEL, Z_DEFLATED, BITS, MEMORY, Z_DEFAULT_STRATEGY) != Z_OK || inflateInit2(&inflater, BITS) != Z_OK)
        out_of_memory();
}

bool ws_accepted(const char *answer)
{
    return strstr(answer, "permessage-deflate") && strstr(answer, "server_no_context_takeover");
}

const uint8_t *ws_pack(const void *data, size_t *size, bool *packed)
{
    struct packed *p = &cache[(size_t)((const uint8_t *)data - pattern) % PATTERN_SPAN];
    if (p->plain != *size) {
        size_t room = deflateBound(&deflater, *size) + 16;
        free(p->bytes);
        p->bytes = malloc(room);
        if (!p->bytes)
            out_of_memory();
        deflateReset(&deflater);
        deflater.next_in = (Bytef *)(uintptr_t)data;
        deflater.avail_in = (uInt)*size;
        deflater.next_out = p->bytes;
        deflater.avail_out = (uInt)room;
        deflate(&deflater, Z_SYNC_FLUSH);
        p->plain = *size;
        p->size = room - deflater.avail_out - TAIL;
    }
    *size = p->size;
    *packed = true;
    return p->bytes;
}

static ssize_t inflate_message(const uint8_t *from, size_t size, uint8_t *to, size_t room)
{
    inflateReset(&inflater);
    inflater.next_in = (Bytef *)(uintptr_t)from;
    inflater.avail_in = (uInt)size;
    inflater.next_out = to;
    inflater.avail_out = (uInt)room;
    int status = inflate(&inflater, Z_SYNC_FLUSH);
    return (status == Z_OK || status == Z_BUF_ERROR) && !inflater.avail_in ? (ssize_t)(room - inflater.avail_out) : -1;
}

ssize_t ws_unpack(struct ws_inbox *in, const uint8_t *from, size_t size, bool ends, uint8_t *to, size_t room)
{
    if (in->size + size + TAIL > in->room) {
        in->room = in->size + size + TAIL + 4096;
        in->bytes = realloc(in->bytes, in->room);
        if (!in->bytes)
            out_of_memory();
    }
    memcpy(in->bytes + in->size, from, size);
    in->size += size;
    if (!ends)
        return 0;
    if (!in->packed) { /* a server may leave out what does not pay */
        if (in->size > room)
            return -1;
        memcpy(to, in->bytes, in->size);
        size = in->size;
        in->size = 0;
        return (ssize_t)size;
    }
    memcpy(in->bytes + in->size, "\0\0\xff\xff", TAIL);
    size = in->size + TAIL;
    in->size = 0;
    return inflate_message(in->bytes, size, to, room);
}
