/* EVFILT_READ and EVFILT_WRITE: each an epoll of its own inside the queue's. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BEHAVIOUR = EV_ONESHOT | EV_CLEAR | EV_DISPATCH };

static int nest(struct queue *q, int fd) {
    struct epoll_event e = {.events = EPOLLIN};
    return epoll_ctl(q->fd, EPOLL_CTL_ADD, fd, &e);
}

int ready_open(struct queue *q, struct ready_set *s, short filter) {
    s->filter = filter;
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    return s->epoll < 0 ? -1 : nest(q, s->epoll);
}

void ready_close(struct ready_set *s) {
    if (s->epoll >= 0)
        close(s->epoll);
    free(s->notes);
}

static struct note *find(struct ready_set *s, int fd) { return fd >= 0 && fd < s->size && s->notes[fd].serial ? &s->notes[fd] : NULL; }

static struct epoll_event wanted(const struct ready_set *s, const struct note *k, int fd) {
    struct epoll_event e = {.events = s->filter == EVFILT_READ ? EPOLLIN | EPOLLRDHUP : EPOLLOUT};
    if (k->flags & EV_CLEAR)
        e.events |= EPOLLET;
    e.data.u64 = (uint64_t)k->serial << 32 | (uint32_t)fd;
    return e;
}

static int attach(struct queue *q, struct ready_set *s, struct note *k, int fd) {
    struct epoll_event e = wanted(s, k, fd);
    k->silent = 0;
    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &e) == 0)
        return 0;
    /* In an epoll that is in another one, 500 duplicates of one descriptor are the most that Linux takes. With more, the queue has to
     * be waited for with kevent. */
    if (errno == EINVAL && !s->apart && epoll_ctl(q->fd, EPOLL_CTL_DEL, s->epoll, NULL) == 0) {
        s->apart = 1;
        return attach(q, s, k, fd);
    }
    struct stat status;
    if (errno == EPERM && fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
        k->silent = 1;
        return 0;
    }
    return errno;
}

static void detach(struct ready_set *s, struct note *k, int fd) {
    if (!k->silent && !k->disabled)
        epoll_ctl(s->epoll, EPOLL_CTL_DEL, fd, NULL);
}

static void drop(struct ready_set *s, struct note *k, int fd) {
    detach(s, k, fd);
    k->serial = 0;
}

/* Whether the descriptor is still what it was when the event was added. epoll knows, by number and description: it refuses to take
 * the pair a second time. */
static int is_same(struct ready_set *s, const struct note *k, int fd) {
    if (fcntl(fd, F_GETFD) < 0)
        return 0;
    if (k->silent || k->disabled)
        return 1;
    struct epoll_event e = wanted(s, k, fd);
    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &e) < 0)
        return errno == EEXIST;
    epoll_ctl(s->epoll, EPOLL_CTL_DEL, fd, NULL);
    return 0;
}

static struct note *make(struct queue *q, struct ready_set *s, int fd) {
    if (fd >= s->size) {
        int size = s->size ? s->size : 64;
        while (size <= fd)
            size *= 2;
        struct note *notes = realloc(s->notes, (size_t)size * sizeof *notes);
        if (!notes)
            return NULL;
        memset(notes + s->size, 0, (size_t)(size - s->size) * sizeof *notes);
        s->notes = notes;
        s->size = size;
    }
    if (++q->serials == 0)
        q->serials = 1;
    s->notes[fd] = (struct note){.serial = q->serials};
    return &s->notes[fd];
}

int ready_change(struct queue *q, struct ready_set *s, const struct kevent *c) {
    int fd = (int)c->ident;
    if (fcntl(fd, F_GETFD) < 0)
        return EBADF; /* "The specified descriptor is invalid." */
    struct note *k = find(s, fd);
    if (k && !is_same(s, k, fd)) {
        k->serial = 0;
        k = NULL;
    }
    if (!k) {
        if (!(c->flags & EV_ADD))
            return ENOENT; /* "The event could not be found to be modified or deleted." */
        k = make(q, s, fd);
        if (!k)
            return ENOMEM; /* "No memory was available to register the event." */
        k->flags = c->flags & BEHAVIOUR;
        k->udata = c->udata;
        k->disabled = (c->flags & EV_DISABLE) != 0;
        int error = k->disabled ? 0 : attach(q, s, k, fd);
        if (error)
            k->serial = 0;
        return error;
    }
    if (c->flags & EV_DELETE) {
        drop(s, k, fd);
        return 0;
    }
    /* "Re-adding an existing event will modify the parameters of the original event": its udata, and no system changes more. */
    if (c->flags & EV_ADD)
        k->udata = c->udata;
    if (c->flags & EV_DISABLE && !k->disabled) {
        detach(s, k, fd);
        k->disabled = 1;
    } else if (c->flags & (EV_ENABLE | EV_ADD) && !(c->flags & EV_DISABLE) && k->disabled) {
        /* "Adding an event automatically enables it, unless overridden by the EV_DISABLE flag." */
        k->disabled = 0;
        return attach(q, s, k, fd);
    }
    return 0;
}

static intptr_t bytes_to_read(int fd) {
    int listening = 0, bytes;
    socklen_t len = sizeof listening;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening)
        return 1;
    return ioctl(fd, FIONREAD, &bytes) == 0 ? bytes : 1;
}

static void report(const struct ready_set *s, const struct note *k, int fd, uint32_t events, struct kevent *out) {
    *out = (struct kevent){.ident = (uintptr_t)fd, .filter = s->filter, .flags = k->flags, .udata = k->udata};
    if (s->filter == EVFILT_READ)
        out->data = bytes_to_read(fd);
    struct stat status;
    if (events & EPOLLERR && fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode))
        out->fflags = EIO;
    /* Reading: "If the read direction of the socket has shutdown, then the filter also sets EV_EOF in flags, and returns the socket
     * error (if any) in fflags." Pipes: "When the last writer disconnects, the filter will set EV_EOF". Writing: "The filter will set
     * EV_EOF when the reader disconnects"; for a pipe epoll calls that an error. */
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        out->flags |= EV_EOF;
}

/* Builds the epoll anew, without descriptions that live on as duplicates although the descriptor watched was closed: epoll gives no
 * other way to be rid of them. */
static void rebuild(struct queue *q, struct ready_set *s) {
    struct ready_set fresh = {.epoll = epoll_create1(EPOLL_CLOEXEC), .filter = s->filter, .apart = 1};
    for (int fd = 0; fd < s->size; fd++) {
        struct note *k = find(s, fd);
        if (k && !is_same(s, k, fd))
            k->serial = 0;
        else if (k && !k->silent && !k->disabled)
            attach(q, &fresh, k, fd);
    }
    /* Under the old number: the new one may be that of the descriptor that was closed, and the program count on it. */
    if (dup3(fresh.epoll, s->epoll, O_CLOEXEC) < 0)
        abort();
    s->apart = nest(q, s->epoll) < 0;
    close(fresh.epoll);
}

int ready_collect(struct queue *q, struct ready_set *s, struct kevent *events, int most) {
    int n = 0, stale = 0;
    int got = epoll_wait(s->epoll, q->ready, most < MOST ? most : MOST, 0);
    for (int i = 0; i < got; i++) {
        int fd = (int)(uint32_t)q->ready[i].data.u64;
        struct note *k = find(s, fd);
        if (!k || k->serial != q->ready[i].data.u64 >> 32 || !is_same(s, k, fd)) {
            stale = 1;
            continue;
        }
        report(s, k, fd, q->ready[i].events, &events[n++]);
        if (k->flags & EV_ONESHOT) { /* "Causes the event to return only the first occurrence of the filter being triggered." */
            drop(s, k, fd);
        } else if (k->flags & EV_DISPATCH) { /* "Disable the event source immediately after delivery of an event." */
            detach(s, k, fd);
            k->disabled = 1;
        }
    }
    if (stale)
        rebuild(q, s);
    return n;
}

void ready_forget(struct ready_set *s, int fd) {
    struct note *k = find(s, fd);
    if (k)
        drop(s, k, fd);
}
