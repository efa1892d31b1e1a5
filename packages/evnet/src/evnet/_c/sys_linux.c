#ifdef __linux__

#include "sys.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

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

int64_t net__send(int fd, struct iovec *iov, int count, int more) {
    int flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0);
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    ssize_t n = count == 1 ? send(fd, iov[0].iov_base, iov[0].iov_len, flags) : sendmsg(fd, &message, flags);
    return n < 0 ? -errno : n;
}

int64_t net__sendfile(int out_fd, int in_fd, uint64_t offset, uint64_t count) {
    off_t at = (off_t)offset;
    ssize_t n = sendfile(out_fd, in_fd, &at, (size_t)count);
    return n < 0 ? -errno : n;
}

uint32_t net__unsent(int fd) {
    int n = 0;
    return ioctl(fd, SIOCOUTQ, &n) == 0 && n > 0 ? (uint32_t)n : 0;
}

#endif
