/* Datagrams one by one, which every system can; also used on Linux, by the tests. */
#include "udp.h"

#include <errno.h>

#ifndef MSG_NOSIGNAL /* macOS: net__prepare has set SO_NOSIGPIPE */
#define MSG_NOSIGNAL 0
#endif

static unsigned receive_each(int fd, struct net_message *messages, unsigned count, int *error) {
    *error = 0;
    for (unsigned i = 0; i < count; i++) {
        ssize_t n = recvmsg(fd, &messages[i].head, MSG_DONTWAIT);
        if (n < 0) {
            *error = errno;
            return i;
        }
        messages[i].len = (unsigned)n;
    }
    return count;
}

static unsigned send_each(int fd, struct net_message *messages, unsigned count, int *error, uint8_t *merge) {
    (void)merge;
    *error = 0;
    for (unsigned i = 0; i < count; i++)
        if (sendmsg(fd, &messages[i].head, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
            *error = errno;
            return i;
        }
    return count;
}

/* Only a connected socket learns of errors, at its next call. */
static int keep_errors(int fd, int family) {
    (void)fd;
    (void)family;
    return 0;
}

static int can_merge(int fd, int family) {
    (void)fd;
    (void)family;
    return 0;
}

static int next_error(int fd, struct sockaddr_storage *to, socklen_t *len) {
    (void)fd;
    (void)to;
    (void)len;
    return 0;
}

const struct net_datagram_calls net__datagrams_one_by_one = {
    .receive = receive_each,
    .send = send_each,
    .keep_errors = keep_errors,
    .can_merge = can_merge,
    .next_error = next_error,
};
