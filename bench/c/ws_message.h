/* How a WebSocket message looks inside of its frame: ws_plain.c or ws_deflate.c, one of which is linked in beside wire_ws.c. */
#ifndef BENCH_WS_MESSAGE_H
#define BENCH_WS_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire.h"

/* A message that is coming. `packed`: its RSV1. */
struct ws_inbox {
    bool packed;
    uint8_t *bytes; /* freed with the connection */
    size_t size, room;
};

extern const char ws_offer[]; /* header lines of the handshake */
extern const unsigned ws_opcode;

void ws_setup(void);

/* Whether the answer to the handshake is as it must be. */
bool ws_accepted(const char *answer);

/* The payload to be sent for a message; *size becomes its size. Valid until the next call. */
const uint8_t *ws_pack(const void *data, size_t *size, bool *packed);

/* Takes a piece of payload, the last one if `ends`; returns how many bytes of the message it has put to `to`, or -1 if the room does not do
 * or it is damaged. */
ssize_t ws_unpack(struct ws_inbox *in, const uint8_t *from, size_t size, bool ends, uint8_t *to, size_t room);

#endif
