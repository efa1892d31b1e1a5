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
#define EVNET_CAPI_MINOR 6
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
    /* The write queue has become empty after the kernel had refused some of it, or it was too long for one turn, or while reading is
     * paused. */
    void (*on_drained)(net_stream *);
    void (*on_timeout)(net_stream *); /* the deadline has passed; it is not set any more */
    void (*on_close)(net_stream *, int cause); /* the last call: release what state holds */
};

/* Called for each accepted stream, before its first byte is read. */
typedef void (*net_accept_fn)(net_listener *, net_stream *);
struct net_address {
    uint8_t family; /* 4 (also for an IPv4 client of an IPv6 socket), 6, or 0 for a unix socket */
    uint8_t reserved;
    uint16_t port;
    uint8_t ip[16];
};

/* Of all listeners that share. `shed`: accepted only to be hung up on, because there were no descriptors or no memory. */
struct net_listen_stats {
    uint64_t accepted, refused, shed;
    uint32_t open, most;
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

    /* Since 1.1. A stream on a socket that is connected and non-blocking, with state_size zeroed bytes behind it, that no listener has
     * accepted. If it returns 0 the stream owns fd, and is read for the first time when the caller's own call is over; else it is
     * -errno, and fd stays the caller's. */
    int (*adopt)(ev_loop *, int fd, const struct net_protocol *, size_t state_size, net_stream **out);
    /* A stream that has more than `most` bytes of memory queued, copied and borrowed but not files, when something more is written is
     * aborted with NET_TOO_MUCH_QUEUED; 0, the default: no limit. */
    void (*limit_queued)(net_stream *, size_t most);

    /* Since 1.2. share: a listener counts its streams together with those of another, and keeps to its limit; called before the
     * first turn. limit: with `most` streams open (0: no limit) further clients wait in the kernel's queue until one ends, or are
     * accepted and reset if `refuse`. When descriptors or memory run short, clients are shed so that the loop does not spin; a record
     * for `notice` (0: nobody), with a = errno and b = how many were shed so far, says so, at most once a minute. */
    void (*share)(net_listener *, const net_listener *with);
    void (*limit)(net_listener *, uint32_t most, int refuse, uint32_t notice);
    void (*listen_stats)(const net_listener *, struct net_listen_stats *);

    /* Since 1.3. Hands what is queued to the kernel now, as much as it takes. Not from inside a callback of the stream: it may end it. */
    void (*flush)(net_stream *);

    /* Since 1.4. TLS; the protocol goes on reading and writing plain bytes. Both name a target that makes the handshakes: evnet.TlsAcceptor
     * in Python has one. secure_listener, before the first turn: clients are shown to net_accept_fn when their handshake is done, also after
     * unlisten, and never if it fails. secure: from here on, with the bytes that have been read and not consumed; what is written waits for
     * the handshake, and if that fails the stream ends with EPROTO. Returns 0, -EALREADY (there is TLS, or the stream is closing), or
     * -ENOMEM. */
    void (*secure_listener)(net_listener *, uint32_t target);
    int (*secure)(net_stream *, uint32_t target);

    /* Since 1.5. take: a stream that a Connection in Python has left (Connection.hand_over) speaks `protocol` from now on. `rest`, what Python
     * has received and not used, is copied and presented in the next turn, in front of what comes then; an end that Python was told of is told
     * again. Limits and deadlines are cleared. net_state(stream) has 16 zeroed bytes. NULL when the stream has ended, or ends because memory is
     * short: its protocol hears of nothing then. */
    net_stream *(*take)(ev_loop *, ev_token, const struct net_protocol *, const void *rest, size_t len);
    /* Sends at once, if nothing is queued that comes before, and returns how much the kernel took; the rest is the caller's to write. Calls no
     * protocol. For what many streams are sent, because it spares the copy. */
    size_t (*send_now)(net_stream *, const void *, size_t len);

    /* Since 1.6. Besides `limit`: only `most` (0: any number) of the streams may be new, those whose TLS handshake is under way included.
     * A stream is new until `settled` is called for it, once its client has shown that it is one. */
    void (*limit_new)(net_listener *, uint32_t most);
    void (*settled)(net_stream *);
};

#endif
