/* evnet's C interface: byte streams for native protocols.
 *
 * A protocol is a table of callbacks that a stream calls inside the turn, on the loop's thread, with the GIL released. The rules
 * of evloop.h hold. The stream, its buffers and its descriptor belong to evnet; `state` bytes behind the stream belong to the
 * protocol (net_state). A stream stays valid during every callback, even when the callback closes it; after on_close it is gone
 * with the batch, and its token finds nothing.
 */
#ifndef EVNET_H
#define EVNET_H

#include "evloop.h"

#include <sys/socket.h>

#define EVNET_CAPI_MAJOR 1
#define EVNET_CAPI_MINOR 0
#define EVNET_CAPI_COMPATIBLE(api) ((api)->major == EVNET_CAPI_MAJOR && (api)->minor + 1 > EVNET_CAPI_MINOR)

/* What a link function returns when the interface below does not fit; evloop.native.link makes the ImportError of it. */
#define EV_LINK_MISMATCH(want_major, want_minor, api)                                                                            \
    ((uint64_t)(want_major) << 48 | (uint64_t)(want_minor) << 32 | (uint64_t)(api)->major << 16 | (api)->minor)

typedef struct net_stream net_stream;
typedef struct net_listener net_listener;

/* Why a stream ended; positive numbers are errno. */
enum { NET_BY_US = 0, NET_BY_PEER = -1, NET_TIMED_OUT = -2, NET_TOO_MUCH_QUEUED = -3 };

struct net_protocol {
    const char *name;
    /* Bytes in order. Returns how many were consumed; the rest is kept and presented again, in front of what comes next, or to
     * the protocol that `swap` puts in this one's place. */
    size_t (*on_bytes)(net_stream *, const uint8_t *, size_t len);
    void (*on_eof)(net_stream *);     /* the peer will send no more; once */
    /* The write queue has become empty after the kernel had refused some of it, or while reading is paused. */
    void (*on_drained)(net_stream *);
    void (*on_timeout)(net_stream *); /* the deadline has passed; it is not set any more */
    void (*on_close)(net_stream *, int cause); /* the last call: release what state holds */
};

/* Called for each accepted stream, before its first byte is read. */
typedef void (*net_accept_fn)(net_listener *, net_stream *);
struct net_address {
    uint8_t family; /* 4, 6, or 0 for a unix socket */
    uint8_t reserved;
    uint16_t port;
    uint8_t ip[16];
};

struct net_capi {
    uint32_t major, minor;
    const char *version;

    /* Listens on fd, which is bound, listening, non-blocking, and stays the caller's. `owner` is whose net_owner(listener) finds.
     * state_size bytes, zeroed, are made behind every stream. Returns 0 or -errno. */
    int (*listen)(ev_loop *, int fd, const struct net_protocol *, size_t state_size, net_accept_fn, void *owner, net_listener **out);
    void (*unlisten)(net_listener *);
    void *(*owner)(const net_listener *);

    void *(*state)(net_stream *);
    ev_loop *(*loop)(const net_stream *);
    net_listener *(*listener)(const net_stream *); /* NULL after unlisten */
    ev_token (*token)(const net_stream *);
    const struct net_address *(*peer)(const net_stream *);
    /* The stream of a token if it is alive and speaks this protocol, else NULL. */
    net_stream *(*find)(ev_loop *, ev_token, const struct net_protocol *);
    void (*swap)(net_stream *, const struct net_protocol *);

    /* Writes are queued and sent once, after the operations or events now being executed. `write` copies. `write_ref` borrows
     * large memory until a record for `target` with a = id says that it is not needed any more, which comes in every case.
     * `write_file` takes over fd, sends count bytes from offset, and closes it. Writes after close or abort are ignored (and
     * released). */
    void (*write)(net_stream *, const void *, size_t len);
    void (*write_ref)(net_stream *, const void *, size_t len, uint32_t target, int64_t id);
    void (*write_file)(net_stream *, int fd, uint64_t offset, uint64_t count);
    size_t (*queued)(const net_stream *); /* bytes, files included */

    /* close: sends what is queued, then closes. linger: the same, then shuts down the sending side and discards what still comes,
     * for at most linger_ms, so that a peer that is still sending reads the answer before the reset. abort: at once, with RST. */
    void (*close)(net_stream *, int cause);
    void (*linger)(net_stream *, int cause, unsigned linger_ms);
    void (*abort)(net_stream *, int cause);

    /* finish: sends what is queued, then tells the peer that no more comes; reading goes on. */
    void (*finish)(net_stream *);
    /* While paused nothing is read, and the peer comes to a stop. resume presents the kept bytes again, at the next turn. */
    void (*pause)(net_stream *);
    void (*resume)(net_stream *);
    /* A peer that takes nothing of what is queued for `ms` is given up (0, the default: never). */
    void (*write_timeout)(net_stream *, uint32_t ms);
    /* on_timeout is called once, `ms` from now unless the deadline is set again; 0 clears it. Costs a store, not a timer. */
    void (*deadline)(net_stream *, uint64_t ms);
};

#endif
