/* How a client's bytes travel: wire_plain.c or wire_tls.c, one of which is linked in. All sockets are non-blocking. */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { WIRE_EOF = 0, WIRE_AGAIN = -1, WIRE_LOST = -2 };

struct wire {
    int fd; /* -1: closed */
    void *secure;
};

/* Call once, before anything else. */
void wire_setup(void);

/* Take over a socket that is connecting; wire_close closes it. */
void wire_open(struct wire *w, int fd);
void wire_close(struct wire *w);

/* Bytes sent or received, or one of the above. After WIRE_AGAIN, either direction of the socket may be what it waits for. */
ssize_t wire_send(struct wire *w, const void *data, size_t size);
ssize_t wire_recv(struct wire *w, void *data, size_t size);

/* Why the last call returned WIRE_LOST. */
const char *wire_reason(void);

#endif
