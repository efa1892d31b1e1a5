/* Facts about kqueue this file relies on (kqueue(2) of FreeBSD, macOS, NetBSD and OpenBSD):
 * - An event is known by its ident and filter, so a descriptor that is read and written has two. They are reported apart, and merged
 *   here so that a watcher is called once.
 * - "Calling close() on a file descriptor will remove any kevents that reference the descriptor", even while a duplicate lives.
 * - With no room for events, kevent stops at the first change that fails and returns its error: EBADF for a closed descriptor, ENOENT
 *   for a change to an event that is not there. It does not wait then.
 * - EV_ADD of an event that is there does not change whether it is EV_CLEAR; deleting it first does, and makes the kernel look again
 *   whether it is ready, as EPOLL_CTL_MOD does.
 * - A regular file is accepted, and reported until it has been read to its end. epoll refuses it; so does this file.
 * - EV_EOF on EVFILT_READ says that no more comes. On EVFILT_WRITE it says that nobody will read, or that we have shut down our side
 *   ourselves, which is no hang-up. A socket's error is in fflags of either.
 * - Each event that is watched reports an end itself, so a hang-up reaches both directions of a watcher that waits for both. */
#include "backend.h"

#ifdef EV_HAVE_KQUEUE

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { ENDED = EV_EOF }; /* the loop's: <sys/event.h> has a macro of this name */
#include <sys/event.h>

struct entry {
    ev_token token;
    uint64_t round; /* of the wait that reported it last, */
    int position;   /* where in that wait's result it stands */
    unsigned events; /* 0 when the kernel does not know the descriptor */
};

struct kqueue_state {
    int fd;
    int size;
    struct entry *entries; /* by descriptor */
    uint64_t round;
    struct kevent ready[EV_FETCH_MOST];
};

static int kqueue_open(void **state) {
    struct kqueue_state *s = malloc(sizeof *s);
    if (!s)
        return -ENOMEM;
    s->fd = kqueue();
    if (s->fd < 0) {
        int error = errno;
        free(s);
        return -error;
    }
    fcntl(s->fd, F_SETFD, FD_CLOEXEC);
    s->entries = NULL;
    s->size = 0;
    s->round = 0;
    *state = s;
    return 0;
}

static void kqueue_close(void *state) {
    struct kqueue_state *s = state;
    close(s->fd);
    free(s->entries);
    free(s);
}

/* The entry of a descriptor that the kernel watches, or did until it was closed without our knowing; else NULL. */
static struct entry *find(struct kqueue_state *s, int fd) {
    return fd >= 0 && fd < s->size && s->entries[fd].events ? &s->entries[fd] : NULL;
}

static int grow(struct kqueue_state *s, int fd) {
    int size = s->size ? s->size : 64;
    while (size <= fd)
        size *= 2;
    struct entry *entries = realloc(s->entries, (size_t)size * sizeof *entries);
    if (!entries)
        return -ENOMEM;
    for (int i = s->size; i < size; i++)
        entries[i] = (struct entry){0};
    s->entries = entries;
    s->size = size;
    return 0;
}

/* Appends a change for each direction of the mask. */
static int append(struct kevent *changes, int count, int fd, unsigned flags, unsigned events) {
    if (events & EV_READ)
        EV_SET(&changes[count++], (uintptr_t)fd, EVFILT_READ, (unsigned short)flags, 0, 0, 0);
    if (events & EV_WRITE)
        EV_SET(&changes[count++], (uintptr_t)fd, EVFILT_WRITE, (unsigned short)flags, 0, 0, 0);
    return count;
}

static int append_add(struct kevent *changes, int count, int fd, unsigned events) {
    return append(changes, count, fd, events & EV_EDGE ? EV_ADD | EV_CLEAR : EV_ADD, events);
}

static int apply(struct kqueue_state *s, const struct kevent *changes, int count) {
    return kevent(s->fd, changes, count, NULL, 0, NULL) < 0 ? -errno : 0;
}

/* Takes out what is there of both directions. */
static void clear(struct kqueue_state *s, int fd) {
    struct kevent change;
    for (unsigned direction = EV_READ; direction <= EV_WRITE; direction <<= 1)
        apply(s, &change, append(&change, 0, fd, EV_DELETE, direction));
}

/* Whether the kernel still has what the entry says: enabling an event that is enabled does nothing to it. */
static int probe(struct kqueue_state *s, int fd, const struct entry *e) {
    struct kevent changes[2];
    return apply(s, changes, append(changes, 0, fd, EV_ENABLE, e->events));
}

static int kqueue_add(void *state, int fd, unsigned events, ev_token token) {
    struct kqueue_state *s = state;
    struct stat status;
    if (fstat(fd, &status) < 0)
        return -errno;
    if (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))
        return -EPERM;
    struct entry *e = find(s, fd);
    if (e && probe(s, fd, e) == 0)
        return -EEXIST;
    if (fd >= s->size && grow(s, fd) < 0)
        return -ENOMEM;
    struct kevent changes[2];
    int rc = apply(s, changes, append_add(changes, 0, fd, events));
    if (rc < 0)
        clear(s, fd); /* the first may have been added before the second failed */
    s->entries[fd] = (struct entry){.token = token, .events = rc == 0 ? events : 0};
    return rc;
}

static int kqueue_modify(void *state, int fd, unsigned events, ev_token token) {
    struct kqueue_state *s = state;
    struct entry *e = find(s, fd);
    if (!e)
        return -ENOENT;
    struct kevent changes[4];
    int rc = apply(s, changes, append_add(changes, append(changes, 0, fd, EV_DELETE, e->events), fd, events));
    if (rc == -ENOENT || rc == -EBADF) {
        e->events = 0;
    } else if (rc < 0) { /* back to what it was */
        clear(s, fd);
        apply(s, changes, append_add(changes, 0, fd, e->events));
    } else {
        e->events = events;
        e->token = token;
    }
    return rc;
}

static int kqueue_remove(void *state, int fd) {
    struct kqueue_state *s = state;
    struct entry *e = find(s, fd);
    if (!e)
        return -ENOENT;
    struct kevent changes[2];
    int rc = apply(s, changes, append(changes, 0, fd, EV_DELETE, e->events));
    e->events = 0;
    return rc;
}

static void kqueue_forget(void *state, int fd) {
    struct entry *e = find(state, fd);
    if (e)
        e->events = 0;
}

static int kqueue_fd(const void *state) { return ((const struct kqueue_state *)state)->fd; }

static unsigned translate(const struct kevent *k, unsigned watched) {
    unsigned ready = k->filter == EVFILT_READ ? EV_READ : EV_WRITE;
    if (!(k->flags & EV_EOF))
        return ready;
    if (k->fflags)
        return EV_READ | EV_WRITE | ENDED;
    if (ready == EV_READ)
        return EV_READ | ENDED;
    /* Perhaps only our own shutdown: whoever waits to read as well learns of a hang-up from the other event. */
    return watched & EV_READ ? EV_WRITE : EV_READ | EV_WRITE | ENDED;
}

static int kqueue_wait(void *state, struct ev_ready *out, int max, int timeout_ms) {
    struct kqueue_state *s = state;
    struct timespec timeout = {.tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1000000L};
    int n = kevent(s->fd, NULL, 0, s->ready, max < EV_FETCH_MOST ? max : EV_FETCH_MOST, timeout_ms < 0 ? NULL : &timeout);
    if (n < 0)
        return -errno;
    int count = 0;
    s->round++;
    for (int i = 0; i < n; i++) {
        struct entry *e = find(s, (int)s->ready[i].ident);
        if (!e)
            continue;
        if (e->round != s->round) {
            e->round = s->round;
            e->position = count++;
            out[e->position] = (struct ev_ready){.token = e->token};
        }
        out[e->position].events |= translate(&s->ready[i], e->events);
    }
    return count;
}

const struct ev_backend ev__backend_kqueue = {
    .name = "kqueue",
    .open = kqueue_open,
    .close = kqueue_close,
    .add = kqueue_add,
    .modify = kqueue_modify,
    .remove = kqueue_remove,
    .rearm = NULL,
    .forget = kqueue_forget,
    .fd = kqueue_fd,
    .wait = kqueue_wait,
};

#endif
