/* Bytes as they are. */
#include "wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void wire_setup(void) {}

void wire_open(struct wire *w, int fd) { *w = (struct wire){.fd = fd}; }

void wire_close(struct wire *w)
{
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
}

static ssize_t result(ssize_t done)
{
    if (done >= 0)
        return done;
    return errno == EAGAIN ? WIRE_AGAIN : WIRE_LOST;
}

ssize_t wire_send(struct wire *w, const void *data, size_t size)
{
    ssize_t sent = result(send(w->fd, data, size, MSG_NOSIGNAL));
    return sent ? sent : WIRE_AGAIN;
}

ssize_t wire_recv(struct wire *w, void *data, size_t size) { return result(recv(w->fd, data, size, 0)); }

const char *wire_reason(void) { return strerror(errno); }
