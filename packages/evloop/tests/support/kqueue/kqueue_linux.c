/* kqueue(2) on Linux, for tests. What it does is what the manual page says (FreeBSD 14's; the sentences quoted are from it), restricted
 * to EVFILT_READ, EVFILT_WRITE and EVFILT_VNODE. What it cannot do:
 * - A socket's error in fflags is EIO whichever it was: reading the real one would take it away from the next recv().
 * - EV_EOF on EVFILT_WRITE is not set when the program itself has shut down its side.
 * - `data` is the number of bytes for EVFILT_READ where the system tells, else 1, and 0 for EVFILT_WRITE.
 * - A descriptor closed behind its back is noticed when an event or a change concerns it.
 * - A queue that watches more than 500 duplicates of one descriptor is not readable when one of them is.
 * - A regular file is accepted by EVFILT_READ and EVFILT_WRITE and never reported. */
#include "internal.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct queue *queues;

/* "The queue is not inherited by a child created with fork(2)." */
static struct queue *find(int fd) {
    pid_t self = getpid();
    for (struct queue *q = queues; q; q = q->next)
        if (q->fd == fd && q->owner == self)
            return q;
    return NULL;
}

/* Everything but the queue's own descriptor. */
static void destroy(struct queue *q) {
    struct queue **link = &queues;
    while (*link != q)
        link = &(*link)->next;
    *link = q->next;
    for (int i = 0; i < 2; i++)
        ready_close(&q->sets[i]);
    vnode_close(&q->vnodes);
    free(q);
}

int kqueue(void) {
    struct queue *q = calloc(1, sizeof *q);
    if (!q)
        return -1;
    vnode_open(&q->vnodes);
    q->sets[0].epoll = q->sets[1].epoll = -1;
    q->owner = getpid();
    q->fd = epoll_create1(EPOLL_CLOEXEC);
    if (q->fd < 0 || ready_open(q, &q->sets[0], EVFILT_READ) < 0 || ready_open(q, &q->sets[1], EVFILT_WRITE) < 0) {
        int error = errno;
        for (int i = 0; i < 2; i++)
            ready_close(&q->sets[i]);
        if (q->fd >= 0)
            close(q->fd);
        free(q);
        errno = error;
        return -1;
    }
    int fd = q->fd;
    pthread_mutex_lock(&lock);
    struct queue *old = find(fd);
    if (old) /* closed behind our back */
        destroy(old);
    q->next = queues;
    queues = q;
    pthread_mutex_unlock(&lock);
    return fd;
}

static int change(struct queue *q, const struct kevent *k) {
    switch (k->filter) {
    case EVFILT_READ:
        return ready_change(q, &q->sets[0], k);
    case EVFILT_WRITE:
        return ready_change(q, &q->sets[1], k);
    case EVFILT_VNODE:
        return vnode_change(q, k);
    default:
        return EINVAL; /* "The specified time limit or filter is invalid." */
    }
}

static int collect(struct queue *q, struct kevent *events, int most) {
    int n = 0;
    for (unsigned i = 0; i < 3 && n < most; i++) {
        unsigned kind = (q->turn + i) % 3;
        n += kind == 2 ? vnode_collect(&q->vnodes, events + n, most - n) : ready_collect(q, &q->sets[kind], events + n, most - n);
    }
    q->turn++;
    return n;
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Sleeps until something may have happened: 1, or 0 when the time is up, or -1. */
static int sleep_until(struct pollfd *fds, nfds_t count, int64_t deadline) {
    int ms = -1;
    if (deadline >= 0) {
        int64_t left = deadline - now_ns();
        if (left <= 0)
            return 0;
        left = (left + 999999) / 1000000;
        ms = left > INT_MAX ? INT_MAX : (int)left;
    }
    return poll(fds, count, ms) < 0 ? -1 : 1;
}

int kevent(int kq, const struct kevent *changes, int nchanges, struct kevent *events, int nevents, const struct timespec *timeout) {
    int64_t deadline = timeout ? now_ns() + (int64_t)timeout->tv_sec * 1000000000 + timeout->tv_nsec : -1;
    pthread_mutex_lock(&lock);
    struct queue *q = find(kq);
    int n = 0, error = q ? 0 : EBADF;
    for (int i = 0; i < nchanges && !error; i++) {
        int refused = change(q, &changes[i]);
        if (!refused && !(changes[i].flags & EV_RECEIPT))
            continue;
        /* "If an error occurs while processing an element of the changelist and there is enough room in the eventlist, then the
         * event will be placed in the eventlist with EV_ERROR set in flags and the system error in data. Otherwise, -1 will be
         * returned." EV_RECEIPT: "When a filter is successfully added the data field will be zero." */
        if (n < nevents) {
            events[n] = changes[i];
            events[n].flags = EV_ERROR;
            events[n].data = refused;
            n++;
        } else {
            error = refused;
        }
    }
    /* EV_RECEIPT "causes kevent() to return with EV_ERROR set without draining any pending events". "When nevents is zero, kevent()
     * will return immediately even if there is a timeout specified." */
    if (!n && nevents > 0)
        while (!error && !(n = collect(q, events, nevents))) {
            struct pollfd fds[3] = {{.fd = kq, .events = POLLIN}};
            nfds_t count = 1;
            for (int i = 0; i < 2; i++)
                if (q->sets[i].apart)
                    fds[count++] = (struct pollfd){.fd = q->sets[i].epoll, .events = POLLIN};
            pthread_mutex_unlock(&lock);
            int rc = sleep_until(fds, count, deadline);
            error = rc < 0 ? errno : 0;
            pthread_mutex_lock(&lock);
            q = find(kq); /* it may have been closed meanwhile */
            if (!q)
                error = EBADF;
            if (rc == 0)
                break;
        }
    pthread_mutex_unlock(&lock);
    if (error) {
        errno = error;
        return -1;
    }
    return n;
}

int kqueue_linux_close(int fd) {
    pthread_mutex_lock(&lock);
    struct queue *q = find(fd);
    if (q)
        destroy(q);
    pid_t self = getpid();
    for (q = queues; q; q = q->next)
        if (q->owner == self) { /* a child of fork shares its parent's epoll */
            for (int i = 0; i < 2; i++)
                ready_forget(&q->sets[i], fd);
            vnode_forget(&q->vnodes, fd);
        }
    pthread_mutex_unlock(&lock);
    return close(fd);
}
