/* Bytes over TLS 1.3 with OpenSSL. The certificate is not verified: what is measured is the server. */
#include "wire.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static SSL_CTX *context;

void wire_setup(void)
{
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION)) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(context, 1); /* a record with one recv, not two */
    /* Room for four whole records, so that a message of 64 KiB is not read in small pieces. */
    SSL_CTX_set_default_read_buffer_len(context, 4 * (16384 + 256));
}

void wire_open(struct wire *w, int fd)
{
    SSL *ssl = SSL_new(context);
    if (!ssl || !SSL_set_fd(ssl, fd)) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    SSL_set_connect_state(ssl); /* the handshake is made by the first send */
    *w = (struct wire){.fd = fd, .secure = ssl};
}

void wire_close(struct wire *w)
{
    if (w->secure)
        SSL_free(w->secure);
    if (w->fd >= 0)
        close(w->fd);
    *w = (struct wire){.fd = -1};
}

static ssize_t result(struct wire *w, int done)
{
    if (done > 0)
        return done;
    switch (SSL_get_error(w->secure, done)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
    case SSL_ERROR_WANT_CONNECT:
        return WIRE_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return WIRE_EOF;
    default:
        return WIRE_LOST;
    }
}

ssize_t wire_send(struct wire *w, const void *data, size_t size)
{
    ERR_clear_error();
    return result(w, SSL_write(w->secure, data, (int)size));
}

ssize_t wire_recv(struct wire *w, void *data, size_t size)
{
    ERR_clear_error();
    return result(w, SSL_read(w->secure, data, (int)size));
}

const char *wire_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    return reason ? reason : errno ? strerror(errno) : "end of stream in the middle of TLS";
}
