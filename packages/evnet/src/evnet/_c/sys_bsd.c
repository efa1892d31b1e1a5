/* FreeBSD, and DragonFly, which has the same two calls. */
#if defined(__FreeBSD__) || defined(__DragonFly__)

#include "sys.h"

#include <errno.h>
#include <sys/filio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/types.h>

int net__accept(int fd, struct net_address *peer) {
    struct sockaddr_storage from;
    socklen_t len = sizeof from;
    int accepted = accept4(fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted < 0)
        return -errno;
    net__set_address(peer, &from);
    return accepted;
}

void net__prepare(int fd) { (void)fd; }

/* There is no MSG_MORE, and TCP_NOPUSH would cost two calls for what saves one segment. */
int64_t net__send(int fd, struct iovec *iov, int count, int more) {
    (void)more;
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
    ssize_t n = count == 1 ? send(fd, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL) : sendmsg(fd, &message, MSG_NOSIGNAL);
    return n < 0 ? -errno : n;
}

/* sendfile(2): a count of 0 means the whole file; on a non-blocking socket it fails with EAGAIN after having sent a part. */
int64_t net__sendfile(int out_fd, int in_fd, uint64_t offset, uint64_t count) {
    off_t sent = 0;
    if (count == 0)
        return 0;
    int rc = sendfile(in_fd, out_fd, (off_t)offset, (size_t)count, NULL, &sent, 0);
    if (sent > 0)
        return sent;
    return rc < 0 ? -errno : 0;
}

uint32_t net__unsent(int fd) {
    int n = 0;
    return ioctl(fd, FIONWRITE, &n) == 0 && n > 0 ? (uint32_t)n : 0;
}

#endif
