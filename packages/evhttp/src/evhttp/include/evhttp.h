/* evhttp's C interface: the connection of a request that offered an upgrade (RFC 9110 §7.8) goes over to another native protocol.
 *
 * Such a request is alone on its connection: those before it have been answered when it is taken, and what follows it stays unread until it is
 * answered too, so that no byte of the other protocol is ever looked at as HTTP. The rules of evloop.h and evnet.h hold.
 */
#ifndef EVHTTP_H
#define EVHTTP_H

#include "evnet.h"

#define EVHTTP_CAPI_MAJOR 1
#define EVHTTP_CAPI_MINOR 0
#define EVHTTP_CAPI_COMPATIBLE(api) ((api)->major == EVHTTP_CAPI_MAJOR && (api)->minor + 1 > EVHTTP_CAPI_MINOR)

/* A protocol that takes connections over. Its on_close calls `left`. */
struct evh_guest {
    const struct net_protocol *protocol;
    /* The server is closing: take leave of the peer and close soon. The server ends when its last connection, of whichever protocol, has. */
    void (*go_away)(net_stream *);
};

struct evh_capi {
    uint32_t major, minor;
    const char *version;

    /* Answers `exchange`, the token that Python got from Response.hand_over, with `head`, a whole 101 with its empty line, and gives the
     * connection to the guest. state_size bytes, zeroed, are its own: net_state(stream) begins with a pointer to them, and they go when
     * Python has seen the batch in which the guest called `left`. What has come behind the request is presented to the guest in the next
     * turn. Deadlines are cleared. NULL when the connection has ended, may not be upgraded or memory is short: it is ended then. */
    net_stream *(*upgrade)(ev_loop *, uint64_t exchange, const void *head, size_t len, const struct evh_guest *, size_t state_size);
    void (*left)(net_stream *); /* the guest's stream has closed: it belongs to no server any more */
};

#endif
