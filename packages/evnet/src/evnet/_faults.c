/* Fault injection for tests: a library for LD_PRELOAD, see testing.py. Only calls that come from our shims are touched.
 *
 * Every fault is one that the kernel could have produced, or the code would rightly fail:
 *  - EINTR at any call, before anything was done.
 *  - A short count, or EAGAIN although there is something: as if the rest had come, or the room been made, just afterwards. The
 *    code takes both to mean that an event will follow. poll() tells again by itself, since a direction is armed after either; for
 *    an edge-triggered epoll the event is made with EPOLL_CTL_MOD, whereupon the kernel looks again and reports what is ready;
 *    also for a kqueue that stands on two epolls, one for reading and one for writing.
 *    (A descriptor that is not in the set yet is looked at when it is added.) A short count is made by asking for less.
 *  - accept4 that fails with ECONNABORTED: the client left in the queue. The one that is there comes at the next call.
 *  - epoll_wait that returns one event: the others wait in the kernel.
 *  - recvmsg, recvmmsg, sendmsg and sendmmsg on datagram sockets: EINTR, EAGAIN, ENOBUFS, fewer datagrams than there are; never a part of
 *    one. The code leaves it to a level-triggered poller, or a timer, to ask again.
 *  - With EV_FAULTS_HOSTILE: connections that break, ECONNRESET at reads and EPIPE at writes; and datagram sockets that report ECONNREFUSED,
 *    once, as if an earlier datagram had not arrived.
 *
 * EV_FAULTS=SEED,ONE_IN: about every ONE_IN-th call has a fault; the same seed makes the same sequence in one thread. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FDS = 65536 };

static struct {
    int epoll_fd; /* plus 1, so that 0 means none */
    struct epoll_event event;
} watched[FDS][2]; /* the second: in a kqueue's epoll for writing */
static uint64_t seed, one_in, made;
static int hostile;
static __thread uint64_t state;

static ssize_t (*real_recv)(int, void *, size_t, int);
static ssize_t (*real_send)(int, const void *, size_t, int);
static ssize_t (*real_sendmsg)(int, const struct msghdr *, int);
static ssize_t (*real_recvmsg)(int, struct msghdr *, int);
static int (*real_recvmmsg)(int, struct mmsghdr *, unsigned, int, struct timespec *);
static int (*real_sendmmsg)(int, struct mmsghdr *, unsigned, int);
static ssize_t (*real_read)(int, void *, size_t);
static ssize_t (*real_pread)(int, void *, size_t, off_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_sendfile)(int, int, off_t *, size_t);
static int (*real_accept4)(int, struct sockaddr *, socklen_t *, int);
static int (*real_epoll_ctl)(int, int, int, struct epoll_event *);
static int (*real_epoll_wait)(int, struct epoll_event *, int, int);
static int (*real_poll)(struct pollfd *, nfds_t, int);

__attribute__((constructor)) static void setup(void) {
    *(void **)&real_recv = dlsym(RTLD_NEXT, "recv");
    *(void **)&real_send = dlsym(RTLD_NEXT, "send");
    *(void **)&real_sendmsg = dlsym(RTLD_NEXT, "sendmsg");
    *(void **)&real_recvmsg = dlsym(RTLD_NEXT, "recvmsg");
    *(void **)&real_recvmmsg = dlsym(RTLD_NEXT, "recvmmsg");
    *(void **)&real_sendmmsg = dlsym(RTLD_NEXT, "sendmmsg");
    *(void **)&real_read = dlsym(RTLD_NEXT, "read");
    *(void **)&real_pread = dlsym(RTLD_NEXT, "pread");
    *(void **)&real_writev = dlsym(RTLD_NEXT, "writev");
    *(void **)&real_sendfile = dlsym(RTLD_NEXT, "sendfile");
    *(void **)&real_accept4 = dlsym(RTLD_NEXT, "accept4");
    *(void **)&real_epoll_ctl = dlsym(RTLD_NEXT, "epoll_ctl");
    *(void **)&real_epoll_wait = dlsym(RTLD_NEXT, "epoll_wait");
    *(void **)&real_poll = dlsym(RTLD_NEXT, "poll");
    const char *text = getenv("EV_FAULTS");
    unsigned long long s = 0, n = 0;
    if (text && sscanf(text, "%llu,%llu", &s, &n) == 2) {
        seed = s * UINT64_C(0x9E3779B97F4A7C15) + 1;
        one_in = n;
    }
    hostile = getenv("EV_FAULTS_HOSTILE") != NULL;
}

/* For the test to see that something has happened at all. */
__attribute__((visibility("default"))) uint64_t ev_faults_made(void) { return __atomic_load_n(&made, __ATOMIC_RELAXED); }

/* For the test of one fault: the next `times` calls of accept4 by our shims fail with `error`. Nobody else may call it meanwhile. */
static int accept_error;
static unsigned accept_times;
__attribute__((visibility("default"))) void ev_faults_accept(int error, unsigned times) {
    accept_error = error;
    accept_times = times;
}

static uint64_t next_random(void) {
    if (!state)
        state = seed;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static int is_in(void *caller, const char *library) {
    Dl_info info;
    return (one_in || accept_times) && dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, library);
}

static int is_ours(void *caller) { return is_in(caller, "_shim"); }

/* 0, or a number from 1 to `kinds`: the fault to make. */
static unsigned fault(void *caller, unsigned kinds) {
    if (!one_in || !is_ours(caller) || next_random() % one_in)
        return 0;
    __atomic_fetch_add(&made, 1, __ATOMIC_RELAXED);
    return 1 + (unsigned)(next_random() % kinds);
}

static void tell_again(int fd) {
    int kept = errno;
    for (int i = 0; i < 2 && fd >= 0 && fd < FDS; i++)
        if (watched[fd][i].epoll_fd) {
            struct epoll_event event = watched[fd][i].event;
            real_epoll_ctl(watched[fd][i].epoll_fd - 1, EPOLL_CTL_MOD, fd, &event);
        }
    errno = kept;
}

static int is_edge(int fd) { return fd >= 0 && fd < FDS && watched[fd][0].epoll_fd && watched[fd][0].event.events & EPOLLET; }

static ssize_t fail(int number) {
    errno = number;
    return -1;
}

static size_t part_of(size_t len) { return len > 1 ? 1 + next_random() % (len - 1) : len; }

ssize_t recv(int fd, void *buffer, size_t len, int flags) {
    ssize_t n;
    switch (fault(__builtin_return_address(0), hostile ? 4 : 3)) {
    case 1:
        return fail(EINTR);
    case 2:
        tell_again(fd);
        return fail(EAGAIN);
    case 3:
        n = real_recv(fd, buffer, next_random() % 2 ? 1 : part_of(len < 64 ? len : 64), flags);
        tell_again(fd);
        return n;
    case 4:
        return fail(ECONNRESET);
    default:
        return real_recv(fd, buffer, len, flags);
    }
}

/* Not of what wakes a loop, which is read once for any number of wake-ups: only of what is watched with an edge. */
ssize_t read(int fd, void *buffer, size_t len) {
    ssize_t n;
    if (!is_edge(fd))
        return real_read(fd, buffer, len);
    switch (fault(__builtin_return_address(0), 3)) {
    case 1:
        return fail(EINTR);
    case 2:
        tell_again(fd);
        return fail(EAGAIN);
    case 3: /* more is read until EAGAIN: what is no socket gives as little as it likes */
        n = real_read(fd, buffer, part_of(len < 64 ? len : 64));
        return n;
    default:
        return real_read(fd, buffer, len);
    }
}

ssize_t pread(int fd, void *buffer, size_t len, off_t offset) {
    switch (fault(__builtin_return_address(0), 2)) {
    case 1:
        return fail(EINTR);
    case 2:
        return real_pread(fd, buffer, part_of(len), offset);
    default:
        return real_pread(fd, buffer, len, offset);
    }
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    switch (fault(__builtin_return_address(0), hostile ? 4 : 3)) {
    case 1:
        return fail(EINTR);
    case 2:
        tell_again(fd);
        return fail(EAGAIN);
    case 3: {
        struct iovec first = {.iov_base = pieces[0].iov_base, .iov_len = part_of(pieces[0].iov_len)};
        return real_writev(fd, &first, 1);
    }
    case 4:
        return fail(EPIPE);
    default:
        return real_writev(fd, pieces, count);
    }
}

ssize_t send(int fd, const void *buffer, size_t len, int flags) {
    switch (fault(__builtin_return_address(0), hostile ? 4 : 3)) {
    case 1:
        return fail(EINTR);
    case 2:
        tell_again(fd);
        return fail(EAGAIN);
    case 3:
        return real_send(fd, buffer, part_of(len), flags);
    case 4:
        return fail(EPIPE);
    default:
        return real_send(fd, buffer, len, flags);
    }
}

static int of_datagrams(int fd) {
    int type = 0, kept = errno;
    socklen_t len = sizeof type;
    int found = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_DGRAM;
    errno = kept;
    return found;
}

/* The errno of a fault at a call for datagrams; -1 to do less than was asked, 0 for none. An error that an earlier datagram has left on the
 * socket is gone after it was told: it does not come again before a call that goes well. */
static int datagram_fault(void *caller, int sending) {
    static __thread int refused[2];
    int before = refused[sending];
    switch (fault(caller, hostile ? 5 : 4)) {
    case 1:
        return EINTR;
    case 2:
        return EAGAIN;
    case 3:
        return sending ? ENOBUFS : ENOMEM;
    case 4:
        return -1;
    case 5:
        refused[sending] = !before;
        return before ? 0 : ECONNREFUSED;
    default:
        refused[sending] = 0;
        return 0;
    }
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    int number = flags & MSG_ERRQUEUE ? 0 : datagram_fault(__builtin_return_address(0), 0);
    return number > 0 && of_datagrams(fd) ? fail(number) : real_recvmsg(fd, message, flags);
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
    int number = datagram_fault(__builtin_return_address(0), 0);
    if (number > 0)
        return (int)fail(number);
    return real_recvmmsg(fd, messages, number ? (unsigned)part_of(count) : count, flags, timeout);
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    int number = datagram_fault(__builtin_return_address(0), 1);
    if (number > 0)
        return (int)fail(number);
    return real_sendmmsg(fd, messages, number ? (unsigned)part_of(count) : count, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    if (one_in && of_datagrams(fd)) {
        int number = datagram_fault(__builtin_return_address(0), 1);
        return number > 0 ? fail(number) : real_sendmsg(fd, message, flags);
    }
    switch (fault(__builtin_return_address(0), hostile ? 4 : 3)) {
    case 1:
        return fail(EINTR);
    case 2:
        tell_again(fd);
        return fail(EAGAIN);
    case 3: /* a part of one of the first pieces */
        if (message->msg_iovlen > 0) {
            struct iovec pieces[64];
            size_t count = 1 + next_random() % (message->msg_iovlen < 64 ? message->msg_iovlen : 64);
            memcpy(pieces, message->msg_iov, count * sizeof *pieces);
            pieces[count - 1].iov_len = part_of(pieces[count - 1].iov_len);
            struct msghdr shorter = *message;
            shorter.msg_iov = pieces;
            shorter.msg_iovlen = count;
            return real_sendmsg(fd, &shorter, flags);
        }
        return real_sendmsg(fd, message, flags);
    case 4:
        return fail(EPIPE);
    default:
        return real_sendmsg(fd, message, flags);
    }
}

ssize_t sendfile(int fd, int file, off_t *offset, size_t count) {
    switch (fault(__builtin_return_address(0), hostile ? 4 : 3)) {
    case 1:
        return fail(EINTR);
    case 2:
        tell_again(fd);
        return fail(EAGAIN);
    case 3:
        return real_sendfile(fd, file, offset, part_of(count));
    case 4:
        return fail(EPIPE);
    default:
        return real_sendfile(fd, file, offset, count);
    }
}

int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags) {
    if (accept_times && is_ours(__builtin_return_address(0))) {
        accept_times--;
        return (int)fail(accept_error);
    }
    switch (fault(__builtin_return_address(0), 3)) {
    case 1:
        return (int)fail(EINTR);
    case 2: /* listeners are level-triggered */
        return (int)fail(EAGAIN);
    case 3:
        return (int)fail(ECONNABORTED);
    default:
        return real_accept4(fd, address, len, flags);
    }
}

int epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event) {
    int result = real_epoll_ctl(epoll_fd, op, fd, event);
    void *caller = __builtin_return_address(0);
    if (result < 0 || fd < 0 || fd >= FDS || !(is_ours(caller) || is_in(caller, "libkqueue")))
        return result;
    if (op == EPOLL_CTL_DEL) {
        for (int i = 0; i < 2; i++)
            if (watched[fd][i].epoll_fd == epoll_fd + 1)
                watched[fd][i].epoll_fd = 0;
        return result;
    }
    int i = !is_ours(caller) && event->events & EPOLLOUT;
    watched[fd][i].epoll_fd = epoll_fd + 1;
    watched[fd][i].event = *event;
    return result;
}

int epoll_wait(int epoll_fd, struct epoll_event *events, int most, int timeout) {
    switch (fault(__builtin_return_address(0), 2)) {
    case 1:
        return (int)fail(EINTR);
    case 2:
        return real_epoll_wait(epoll_fd, events, 1, timeout);
    default:
        return real_epoll_wait(epoll_fd, events, most, timeout);
    }
}

int poll(struct pollfd *fds, nfds_t count, int timeout) {
    if (fault(__builtin_return_address(0), 1))
        return (int)fail(EINTR);
    return real_poll(fds, count, timeout);
}
