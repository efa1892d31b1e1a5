/* The engine that calls OpenSSL, in the turn and without the GIL, on the SSL object behind Python's own: so everything that an SSLContext
 * can do goes on working. Nothing is linked: the functions are those of the library that Python's ssl module has loaded, and their addresses
 * come from there (`_openssl.py`, which also makes sure that the objects are what they are taken for).
 *
 * A BIO of ours takes the place of the two in memory that Python has made: OpenSSL reads straight from what recv has brought, and writes
 * straight to what is sent next. */
#include "tls.h"
#include "shim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Of OpenSSL's headers; these numbers are part of its binary interface. */
enum { SSL_ERROR_WANT_READ = 2, SSL_ERROR_ZERO_RETURN = 6 };
enum { SSL_READING = 3, SSL_RECEIVED_SHUTDOWN = 2 };
enum { BIO_FLAGS_READ = 1, BIO_FLAGS_RWS = 7, BIO_FLAGS_SHOULD_RETRY = 8, BIO_CTRL_FLUSH = 11, BIO_TYPE_SOURCE_SINK = 0x400 };

typedef struct ssl_st SSL;
typedef struct bio_st BIO;
typedef struct bio_method_st BIO_METHOD;

/* In the order of `_openssl.FUNCTIONS`. */
static struct {
    int (*read_ex)(SSL *, void *, size_t, size_t *);
    int (*write_ex)(SSL *, const void *, size_t, size_t *);
    int (*shutdown)(SSL *);
    int (*get_error)(const SSL *, int);
    int (*want)(const SSL *);
    int (*get_shutdown)(const SSL *);
    int (*free_buffers)(SSL *);
    BIO *(*get_rbio)(const SSL *);
    void (*set_bio)(SSL *, BIO *, BIO *);
    int (*bio_get_new_index)(void);
    BIO_METHOD *(*bio_meth_new)(int, const char *);
    int (*bio_meth_set_read)(BIO_METHOD *, int (*)(BIO *, char *, int));
    int (*bio_meth_set_write)(BIO_METHOD *, int (*)(BIO *, const char *, int));
    int (*bio_meth_set_ctrl)(BIO_METHOD *, long (*)(BIO *, int, long, void *));
    BIO *(*bio_new)(const BIO_METHOD *);
    void (*bio_set_data)(BIO *, void *);
    void *(*bio_get_data)(BIO *);
    void (*bio_set_init)(BIO *, int);
    void (*bio_set_flags)(BIO *, int);
    void (*bio_clear_flags)(BIO *, int);
    int (*bio_read)(BIO *, void *, int);
    void (*err_clear_error)(void);
    unsigned long (*err_peek_last_error)(void);
    const char *(*err_reason_error_string)(unsigned long);
    const char *(*err_lib_error_string)(unsigned long);
} o;

static BIO_METHOD *method;

/* -- the BIO -- */

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* First what was kept, then what has just come. */
static int bio_read(BIO *b, char *out, int room) {
    net_stream *s = o.bio_get_data(b);
    struct net_tls *t = s ? s->tls : NULL;
    o.bio_clear_flags(b, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
    if (!t || room <= 0 || !(t->kept_len || t->in_len)) {
        o.bio_set_flags(b, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY);
        return -1;
    }
    size_t len = least((size_t)room, t->kept_len ? t->kept_len : t->in_len);
    if (t->kept_len) {
        memcpy(out, t->kept + t->kept_at, len);
        t->kept_at += len;
        t->kept_len -= len;
    } else {
        memcpy(out, t->in, len);
        t->in += len;
        t->in_len -= len;
    }
    return (int)len;
}

static int bio_write(BIO *b, const char *data, int len) {
    net_stream *s = o.bio_get_data(b);
    if (!s || len <= 0)
        return -1;
    struct net_tls *t = s->tls;
    o.bio_clear_flags(b, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
    if (!t->wire) { /* an alert, or an answer to a message of the handshake */
        net__out_ready(s, data, (size_t)len, (struct net_told){0});
        net__flush_soon(s);
        return len;
    }
    if ((size_t)len > NET_TLS_WIRE - t->wire_len)
        return -1;
    memcpy(t->wire + t->wire_len, data, (size_t)len);
    t->wire_len += (size_t)len;
    return len;
}

static long bio_ctrl(BIO *b, int command, long number, void *pointer) {
    (void)b;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

int evnet_openssl(const uint64_t *functions, size_t count) {
    if (count * sizeof *functions != sizeof o || sizeof(void (*)(void)) != sizeof *functions)
        return -EINVAL;
    memcpy(&o, functions, sizeof o);
    if (!method) {
        method = o.bio_meth_new(o.bio_get_new_index() | BIO_TYPE_SOURCE_SINK, "evnet stream");
        if (!method)
            return -ENOMEM;
        o.bio_meth_set_read(method, bio_read);
        o.bio_meth_set_write(method, bio_write);
        o.bio_meth_set_ctrl(method, bio_ctrl);
    }
    return 0;
}

int net__openssl_adopt(net_stream *s, void *ssl) {
    struct net_tls *t = s->tls;
    BIO *b = o.bio_new(method);
    if (!b)
        return 0;
    o.bio_set_data(b, s);
    o.bio_set_init(b, 1);
    uint8_t *rest = net__tls_rooms(s)->cipher;
    for (int n; (n = o.bio_read(o.get_rbio(ssl), rest, NET_TLS_CIPHER)) > 0;)
        if (!net__tls_keep(s, rest, (size_t)n))
            break;
    o.set_bio(ssl, b, b);
    t->ssl = ssl;
    t->bio = b;
    t->engine = &net__tls_by_openssl;
    return 1;
}

/* -- the engine -- */

/* The stream is about to use buffers: another one that has them, and has perhaps not used them for long, gives its own back. */
static void warm_up(net_stream *s) {
    struct net_tls_rooms *rooms = net__tls_rooms(s);
    uint32_t place = rooms->warm_next++ % NET_TLS_WARM;
    struct net_tls *other = rooms->warm[place];
    if (other) {
        o.free_buffers(other->ssl);
        other->warm = 0;
    }
    rooms->warm[place] = s->tls;
    s->tls->warm = place + 1;
}

/* Why a call has failed. What others have left in OpenSSL's list of errors is not looked at where nothing has gone wrong: to empty the list
 * before each call would cost more than the call. */
static int why_not(const struct net_tls *t, int rc) { return o.want(t->ssl) == SSL_READING ? SSL_ERROR_WANT_READ : o.get_error(t->ssl, rc); }

static void broken(net_stream *s, unsigned long error) {
    const char *why = error ? o.err_reason_error_string(error) : NULL;
    if (!why)
        why = "unknown error";
    int64_t offset;
    size_t len = strlen(why) + 1;
    memcpy(ev->arena_reserve(s->loop, len, &offset), why, len);
    ev->arena_commit(s->loop, offset, len);
    net__tls_tell(s, offset, EVNET_TLS_BROKEN);
    net__tls_fail(s, EPROTO);
}

/* Where plain bytes go: what is for Python to where it finds them. */
static uint8_t *room_for(net_stream *s, size_t *room) {
    const struct net_tls *t = s->tls;
    *room = least(t->in_len + t->kept_len + NET_TLS_RECORD_ROOM, NET_TLS_PLAIN);
    if (s->protocol != &net__python_protocol)
        return net__tls_rooms(s)->plain;
    int64_t offset;
    return ev->arena_reserve(s->loop, *room, &offset);
}

/* Reading has failed, and not for want of bytes: the peer's close_notify, or an error of the record or handshake layer. Who else has left
 * an error in the list is of another library. */
static void ended(net_stream *s, int why) {
    unsigned long error = o.err_peek_last_error();
    const char *library = error ? o.err_lib_error_string(error) : NULL;
    int ours = library && strcmp(library, "SSL routines") == 0;
    if (why == SSL_ERROR_ZERO_RETURN || (!ours && o.get_shutdown(s->tls->ssl) & SSL_RECEIVED_SHUTDOWN))
        net__tls_peer_end(s);
    else
        broken(s, error);
    o.err_clear_error();
}

static void open_records(net_stream *s) {
    struct net_tls *t = s->tls;
    int more = 1;
    while (more && s->phase != NET_CLOSED && !t->failed) {
        size_t room, len = 0;
        uint8_t *into = room_for(s, &room);
        int why = 0;
        /* A record fits into what is left of the room, so when all ciphertext is gone and room is left, nothing is to be had. */
        do {
            size_t n = 0;
            int rc = o.read_ex(t->ssl, into + len, room - len, &n);
            len += n;
            if (rc != 1)
                why = why_not(t, rc);
        } while (!why && len < room && (t->in_len || t->kept_len));
        more = !why && len == room;
        net__present(s, into, len);
        if (why && why != SSL_ERROR_WANT_READ)
            ended(s, why);
    }
}

static void received(net_stream *s, const uint8_t *data, size_t len) {
    struct net_tls *t = s->tls;
    t->in = data;
    t->in_len = len;
    if (!t->warm)
        warm_up(s);
    open_records(s);
    t->in_len = 0;
    if (!t->kept_len) {
        free(t->kept);
        t->kept = NULL;
    }
    if (t->stuck) {
        t->stuck = 0;
        net__flush_soon(s);
    }
}

/* One record, or what OpenSSL makes of it: how many bytes it has taken, or 0. */
static size_t seal_record(net_stream *s, const uint8_t *data, size_t len) {
    struct net_tls *t = s->tls;
    size_t took = 0;
    int rc = o.write_ex(t->ssl, data, len, &took);
    if (rc == 1)
        return took;
    if (why_not(t, rc) == SSL_ERROR_WANT_READ) {
        t->stuck = 1;
    } else {
        broken(s, o.err_peek_last_error());
        o.err_clear_error();
    }
    return 0;
}

static void begin_batch(net_stream *s) {
    if (!s->tls->warm)
        warm_up(s);
    s->tls->wire = net__tls_rooms(s)->wire;
    s->tls->wire_len = 0;
}

static int room_in_batch(const struct net_tls *t) { return NET_TLS_WIRE - t->wire_len >= NET_TLS_RECORD_ROOM; }

static int64_t seal(net_stream *s, const uint8_t **wire, struct net_told *told) {
    struct net_tls *t = s->tls;
    if (t->failed || t->stuck)
        return 0;
    begin_batch(s);
    int64_t error = 0;
    while (s->out.head && room_in_batch(t) && !told->target) {
        const uint8_t *data;
        int64_t len = net__out_peek(s, net__tls_rooms(s)->gather, NET_TLS_RECORD, &data);
        if (len < 0) {
            error = len;
            break;
        }
        size_t took = seal_record(s, data, (size_t)len);
        if (!took)
            break;
        *told = net__out_told(s, took);
        net__out_sent(s, took);
    }
    *wire = t->wire;
    t->wire = NULL;
    return t->wire_len ? (int64_t)t->wire_len : error;
}

size_t net__openssl_send_now(net_stream *s, const uint8_t *data, size_t len) {
    struct net_tls *t = s->tls;
    if (t->engine != &net__tls_by_openssl || t->failed || t->stuck)
        return 0;
    size_t done = 0;
    while (done < len) {
        begin_batch(s);
        while (done < len && room_in_batch(t)) {
            size_t took = seal_record(s, data + done, least(len - done, NET_TLS_RECORD));
            if (!took)
                break;
            done += took;
        }
        const uint8_t *wire = t->wire;
        t->wire = NULL;
        size_t sent = net__out_transmit(s, wire, t->wire_len);
        if (sent < t->wire_len || !t->wire_len) {
            net__out_ready(s, wire + sent, t->wire_len - sent, (struct net_told){0});
            net__flush_soon(s);
            break;
        }
    }
    return done;
}

static void end(net_stream *s) {
    o.err_clear_error();
    o.shutdown(s->tls->ssl);
    o.err_clear_error();
    net__tls_made_end(s);
    net__flush_soon(s);
}

static void cut(net_stream *s) { net__tls_peer_end(s); }

/* Python frees the SSL object, and the BIO with it, when it likes. */
static void release(net_stream *s) {
    o.bio_set_data(s->tls->bio, NULL);
    if (s->tls->warm)
        net__tls_rooms(s)->warm[s->tls->warm - 1] = NULL;
}

const struct net_engine net__tls_by_openssl = {received, seal, end, cut, release};
