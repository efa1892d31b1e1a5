/* poll(2): everywhere, O(descriptors) a call. It knows no edges, so an EV_EDGE descriptor is disarmed in the direction that was
 * reported until its user says with rearm that the kernel has nothing left. */
#include "backend.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct entry {
    ev_token token;
    unsigned events; /* what the user asked for */
    int fd;          /* fds[i].fd, or what it is when the entry is not silent */
};

struct poll_state {
    struct pollfd *fds; /* fds[i] belongs to entries[i] */
    struct entry *entries;
    int *index; /* by descriptor: position in fds, or -1 */
    int count, capacity, index_size;
    int first; /* where the next scan begins: after the last one reported when not all could be, so that none starves */
};

static int poll_open(void **state) {
    struct poll_state *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    *state = s;
    return 0;
}

static void poll_close(void *state) {
    struct poll_state *s = state;
    free(s->fds);
    free(s->entries);
    free(s->index);
    free(s);
}

static short wanted(unsigned events) { return (short)((events & EV_READ ? POLLIN : 0) | (events & EV_WRITE ? POLLOUT : 0)); }

static int find(const struct poll_state *s, int fd) { return fd >= 0 && fd < s->index_size ? s->index[fd] : -1; }

static int grow_index(struct poll_state *s, int fd) {
    int size = s->index_size ? s->index_size : 64;
    while (size <= fd)
        size *= 2;
    int *index = realloc(s->index, (size_t)size * sizeof *index);
    if (!index)
        return -ENOMEM;
    for (int i = s->index_size; i < size; i++)
        index[i] = -1;
    s->index = index;
    s->index_size = size;
    return 0;
}

static int grow_entries(struct poll_state *s) {
    int capacity = s->capacity ? s->capacity * 2 : 64;
    struct pollfd *fds = realloc(s->fds, (size_t)capacity * sizeof *fds);
    if (!fds)
        return -ENOMEM;
    s->fds = fds;
    struct entry *entries = realloc(s->entries, (size_t)capacity * sizeof *entries);
    if (!entries)
        return -ENOMEM;
    s->entries = entries;
    s->capacity = capacity;
    return 0;
}

static int poll_add(void *state, int fd, unsigned events, ev_token token) {
    struct poll_state *s = state;
    if (fd < 0)
        return -EBADF;
    if (find(s, fd) >= 0)
        return -EEXIST;
    /* epoll refuses a closed descriptor and a file at once; poll would say in every call that they are ready. */
    struct stat status;
    if (fstat(fd, &status) < 0)
        return -errno;
    if (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))
        return -EPERM;
    if (fd >= s->index_size && grow_index(s, fd) < 0)
        return -ENOMEM;
    if (s->count == s->capacity && grow_entries(s) < 0)
        return -ENOMEM;
    s->index[fd] = s->count;
    s->fds[s->count] = (struct pollfd){.fd = fd, .events = wanted(events)};
    s->entries[s->count] = (struct entry){.token = token, .events = events, .fd = fd};
    s->count++;
    return 0;
}

static int poll_modify(void *state, int fd, unsigned events, ev_token token) {
    struct poll_state *s = state;
    int i = find(s, fd);
    if (i < 0)
        return -ENOENT;
    s->fds[i] = (struct pollfd){.fd = fd, .events = wanted(events)};
    s->entries[i] = (struct entry){.token = token, .events = events, .fd = fd};
    return 0;
}

static int poll_remove(void *state, int fd) {
    struct poll_state *s = state;
    int i = find(s, fd);
    if (i < 0)
        return -ENOENT;
    s->index[fd] = -1;
    int last = --s->count;
    if (i != last) {
        s->fds[i] = s->fds[last];
        s->entries[i] = s->entries[last];
        s->index[s->entries[i].fd] = i;
    }
    return 0;
}

static void poll_rearm(void *state, int fd, unsigned events) {
    struct poll_state *s = state;
    int i = find(s, fd);
    if (i >= 0) {
        s->fds[i].fd = fd;
        s->fds[i].events |= wanted(events & s->entries[i].events);
    }
}

static unsigned translate(short revents) {
    unsigned ready = 0;
    if (revents & (POLLERR | POLLHUP | POLLNVAL))
        ready |= EV_READ | EV_WRITE | EV_EOF;
    if (revents & POLLIN)
        ready |= EV_READ;
    if (revents & POLLOUT)
        ready |= EV_WRITE;
    return ready;
}

static int poll_wait(void *state, struct ev_ready *out, int max, int timeout_ms) {
    struct poll_state *s = state;
    int left = poll(s->fds, (nfds_t)s->count, timeout_ms);
    if (left < 0)
        return -errno;
    int n = 0;
    int first = s->first < s->count ? s->first : 0;
    s->first = 0;
    for (int scanned = 0; scanned < s->count && left > 0; scanned++) {
        int i = (first + scanned) % s->count;
        if (n == max) {
            s->first = i;
            break;
        }
        short revents = s->fds[i].revents;
        if (!revents)
            continue;
        left--;
        out[n].token = s->entries[i].token;
        out[n].events = translate(revents);
        n++;
        if (s->entries[i].events & EV_EDGE) {
            s->fds[i].events &= (short)~revents;
            if (revents & (POLLERR | POLLHUP | POLLNVAL))
                s->fds[i].fd = -1; /* these poll reports unasked: silent until its user has looked */
        }
    }
    return n;
}

const struct ev_backend ev__backend_poll = {
    .name = "poll",
    .open = poll_open,
    .close = poll_close,
    .add = poll_add,
    .modify = poll_modify,
    .remove = poll_remove,
    .rearm = poll_rearm,
    .forget = NULL,
    .wait = poll_wait,
};
