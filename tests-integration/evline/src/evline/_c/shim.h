/* What Python may call. shim.cdef says the same to cffi. */
#ifndef EVLINE_SHIM_H
#define EVLINE_SHIM_H

#include "evnet.h"

struct line_server;

struct line_options {
    uint32_t target;     /* that gets a record for each line */
    uint32_t max_line;   /* bytes, without the end of the line */
    uint32_t timeout_ms; /* for a line, from the end of the one before */
};

/* The two C interfaces; 0, or EV_LINK_MISMATCH. */
uint64_t evline_link_loop(uint64_t evloop_capi);
uint64_t evline_link_net(uint64_t evnet_capi);

/* The number of the module that takes the operations below on this loop, or -errno. */
int evline_module(uint64_t loop);

/* Serves on a listening, non-blocking socket, which stays the caller's, until evline_close. The server is freed when the loop is
 * closed. 0 or -errno. */
int evline_open(uint64_t loop, int fd, const struct line_options *, struct line_server **out);
/* Stops listening; clients get the answers that they wait for, and are hung up on. May be called twice. */
void evline_close(struct line_server *);
unsigned evline_connections(const struct line_server *);

/* Records for the target: a and b say where in the arena the line lies and how long it is, the token whose it is.
 * Operations, with that token as their id: */
enum {
    EVLINE_OP_ANSWER = 1, /* the payload, and an end of line behind it */
    EVLINE_OP_ABORT,
};

#endif
