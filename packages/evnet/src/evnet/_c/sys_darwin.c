#ifdef __APPLE__

#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

/* There is no accept4. Between the two calls a child that another thread starts may inherit the descriptor. */
int net__accept(int fd, struct net_address *peer) {
    struct sockaddr_storage from = {0}; /* a client that has gone already leaves it unwritten */
    socklen_t len = sizeof from;
    int accepted = accept(fd, (struct sockaddr *)&from, &len);
    if (accepted < 0)
        return -errno;
    if (fcntl(accepted, F_SETFD, FD_CLOEXEC) < 0 || fcntl(accepted, F_SETFL, O_NONBLOCK) < 0) {
        int error = errno;
        close(accepted);
        return -error;
    }
    net__set_address(peer, &from);
    return accepted;
}

/* There is no MSG_NOSIGNAL. What is no socket refuses this, and needs it no less; CPython ignores SIGPIPE in any case. */
void net__prepare(int fd) {
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
}

/* There is no MSG_MORE. */
int64_t net__send(int fd, struct iovec *iov, int count, int more) {
    (void)more;
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
    ssize_t n = count == 1 ? send(fd, iov[0].iov_base, iov[0].iov_len, 0) : sendmsg(fd, &message, 0);
    return n < 0 ? -errno : n;
}

/* sendfile(2): a length of 0 means the rest of the file; on a non-blocking socket it fails with EAGAIN after having sent a part. */
int64_t net__sendfile(int out_fd, int in_fd, uint64_t offset, uint64_t count) {
    off_t sent = (off_t)count;
    if (count == 0)
        return 0;
    int rc = sendfile(in_fd, out_fd, (off_t)offset, &sent, NULL, 0);
    if (rc < 0 && sent > 0 && (errno == EAGAIN || errno == EINTR))
        return sent;
    if (rc < 0)
        return -errno;
    return sent;
}

uint32_t net__unsent(int fd) {
    int n = 0;
    socklen_t len = sizeof n;
    return getsockopt(fd, SOL_SOCKET, SO_NWRITE, &n, &len) == 0 && n > 0 ? (uint32_t)n : 0;
}

#endif
