/* What systems do differently: declared once here, defined once for each system in sys_linux.c, sys_bsd.c and sys_darwin.c. */
#ifndef EVNET_SYS_H
#define EVNET_SYS_H

#include "evnet.h"

#include <sys/uio.h>

/* Accepts a connection: a descriptor that is non-blocking and closed on exec, or -errno. */
int net__accept(int fd, struct net_address *peer);
/* Does once to a stream's descriptor what keeps writing to a peer that has gone from raising SIGPIPE, where send has no flag for it. */
void net__prepare(int fd);
/* Sends memory: bytes, or -errno. `more` says that more follows at once; a system that can waits for it, so that the head of an
 * answer travels with the file that is its body. */
int64_t net__send(int fd, struct iovec *, int count, int more);
/* Sends a part of a file: bytes, 0 at the end of the file, or -errno. */
int64_t net__sendfile(int out_fd, int in_fd, uint64_t offset, uint64_t count);

/* How many bytes the kernel holds that the peer has not acknowledged, or 0 where it does not tell. */
uint32_t net__unsent(int fd);

/* pipe.c: for what is no socket, the same on all systems: bytes, or -errno */
int64_t net__pipe_read(int fd, void *, size_t);               /* a terminal whose other side is closed: 0 */
int64_t net__pipe_write(int fd, const struct iovec *, int count); /* never a SIGPIPE */
int64_t net__pipe_sendfile(int out_fd, int in_fd, uint64_t offset, uint64_t count, uint8_t *scratch, size_t size);

/* address.c: for accept */
void net__set_address(struct net_address *, const struct sockaddr_storage *);

#endif
