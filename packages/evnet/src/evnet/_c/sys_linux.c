#ifdef __linux__

#include "internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

static void set_address(struct net_address *a, const struct sockaddr_storage *from) {
    memset(a, 0, sizeof *a);
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)from;
        a->family = 4;
        a->port = ntohs(in->sin_port);
        memcpy(a->ip, &in->sin_addr, 4);
    } else if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)from;
        a->family = 6;
        a->port = ntohs(in->sin6_port);
        memcpy(a->ip, &in->sin6_addr, 16);
    }
}

int net__accept(int fd, struct net_address *peer) {
    struct sockaddr_storage from;
    socklen_t len = sizeof from;
    int accepted = accept4(fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted < 0)
        return -errno;
    set_address(peer, &from);
    return accepted;
}

int64_t net__sendfile(int out_fd, int in_fd, uint64_t offset, uint64_t count) {
    off_t at = (off_t)offset;
    ssize_t n = sendfile(out_fd, in_fd, &at, (size_t)count);
    return n < 0 ? -errno : n;
}

#endif
