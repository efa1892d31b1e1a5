/* EVFILT_VNODE over inotify: "Takes a file descriptor as the identifier and the events to watch for in fflags, and returns when one or
 * more of the requested events occurs on the descriptor." inotify watches inodes, so several events may share one of its numbers. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BEHAVIOUR = EV_ONESHOT | EV_CLEAR | EV_DISPATCH,
    ENTRIES = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO,
    WATCHED = ENTRIES | IN_MODIFY | IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF,
};

void vnode_open(struct vnode_set *s) { s->inotify = s->more = -1; }

void vnode_close(struct vnode_set *s) {
    while (s->first) {
        struct vnode *v = s->first;
        s->first = v->next;
        free(v);
    }
    if (s->inotify >= 0)
        close(s->inotify);
    if (s->more >= 0)
        close(s->more);
}

static int start(struct queue *q) {
    struct vnode_set *s = &q->vnodes;
    struct epoll_event e = {.events = EPOLLIN};
    if (s->inotify < 0) {
        s->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (s->inotify < 0 || epoll_ctl(q->fd, EPOLL_CTL_ADD, s->inotify, &e) < 0)
            return errno;
    }
    if (s->more < 0) {
        s->more = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (s->more < 0 || epoll_ctl(q->fd, EPOLL_CTL_ADD, s->more, &e) < 0)
            return errno;
    }
    return 0;
}

static int watch(const struct vnode_set *s, const struct vnode *v, const char *below) {
    char path[48];
    snprintf(path, sizeof path, "/proc/self/fd/%d%s", v->fd, below);
    return inotify_add_watch(s->inotify, path, WATCHED);
}

static void unwatch(const struct vnode_set *s, int wd) {
    for (const struct vnode *v = s->first; v; v = v->next)
        if (v->wd == wd || v->parent_wd == wd)
            return;
    if (wd >= 0)
        inotify_rm_watch(s->inotify, wd);
}

static void drop(struct vnode_set *s, struct vnode *v) {
    struct vnode **link = &s->first;
    while (*link != v)
        link = &(*link)->next;
    *link = v->next;
    unwatch(s, v->wd);
    unwatch(s, v->parent_wd);
    free(v);
}

static int is_same(const struct vnode *v) {
    struct stat status;
    return fstat(v->fd, &status) == 0 && status.st_dev == v->device && status.st_ino == v->inode;
}

static struct vnode *find(struct vnode_set *s, int fd) {
    for (struct vnode *v = s->first; v; v = v->next)
        if (v->fd == fd) {
            if (is_same(v))
                return v;
            drop(s, v);
            return NULL;
        }
    return NULL;
}

static int make(struct queue *q, const struct kevent *c, const struct stat *status) {
    struct vnode_set *s = &q->vnodes;
    if (S_ISSOCK(status->st_mode) || S_ISFIFO(status->st_mode))
        return EINVAL;
    int error = start(q);
    struct vnode *v = error ? NULL : calloc(1, sizeof *v);
    if (!v)
        return error ? error : ENOMEM;
    v->fd = (int)c->ident;
    v->wd = watch(s, v, "");
    if (v->wd < 0) {
        error = errno;
        free(v);
        return error;
    }
    v->udata = c->udata;
    v->flags = c->flags & BEHAVIOUR;
    v->wanted = c->fflags;
    v->disabled = (c->flags & EV_DISABLE) != 0;
    v->device = status->st_dev;
    v->inode = status->st_ino;
    v->links = status->st_nlink;
    v->size = status->st_size;
    v->is_directory = S_ISDIR(status->st_mode);
    /* Of a directory that is removed while it is open, inotify tells only those who watch its parent. */
    v->parent_wd = v->is_directory ? watch(s, v, "/..") : -1;
    v->next = s->first;
    s->first = v;
    return 0;
}

int vnode_change(struct queue *q, const struct kevent *c) {
    struct stat status;
    if (fstat((int)c->ident, &status) < 0)
        return EBADF;
    struct vnode *v = find(&q->vnodes, (int)c->ident);
    if (!v)
        return c->flags & EV_ADD ? make(q, c, &status) : ENOENT;
    if (c->flags & EV_DELETE) {
        drop(&q->vnodes, v);
        return 0;
    }
    if (c->flags & EV_ADD) {
        v->udata = c->udata;
        v->wanted = c->fflags;
    }
    if (c->flags & EV_DISABLE)
        v->disabled = 1;
    else if (c->flags & (EV_ENABLE | EV_ADD))
        v->disabled = 0;
    return 0;
}

/* Something about an entry of a directory. `moved_within` says that it is half of a rename that does not leave the directory. */
static unsigned of_entry(const struct inotify_event *e, int moved_within) {
    unsigned notes = 0;
    if (e->mask & ENTRIES)
        notes |= NOTE_WRITE;
    /* "For directory, reports that a directory entry was added or removed, as the result of rename operation. The NOTE_EXTEND event is
     * not reported when a name is changed inside the directory." */
    if (e->mask & (IN_MOVED_FROM | IN_MOVED_TO) && !moved_within)
        notes |= NOTE_EXTEND;
    /* A subdirectory's ".." is a link to the directory. */
    if (e->mask & ENTRIES && e->mask & IN_ISDIR && !moved_within)
        notes |= NOTE_LINK;
    return notes;
}

/* Something about the file or directory itself. */
static unsigned of_self(struct vnode *v, uint32_t mask) {
    struct stat now;
    unsigned notes = 0;
    if (fstat(v->fd, &now) < 0)
        return 0;
    if (mask & IN_MODIFY)
        notes |= now.st_size > v->size ? NOTE_WRITE | NOTE_EXTEND : NOTE_WRITE;
    v->size = now.st_size;
    if (mask & IN_ATTRIB && now.st_nlink == v->links)
        notes |= NOTE_ATTRIB;
    /* "NOTE_DELETE: The unlink() system call was called on the file referenced by the descriptor." */
    if (!v->is_directory && now.st_nlink != v->links)
        notes |= now.st_nlink < v->links ? NOTE_LINK | NOTE_DELETE : NOTE_LINK;
    v->links = now.st_nlink;
    if (mask & IN_DELETE_SELF)
        notes |= NOTE_DELETE;
    if (mask & IN_MOVE_SELF)
        notes |= NOTE_RENAME;
    /* "Access to the file was revoked via revoke(2) or the underlying file system was unmounted." */
    if (mask & IN_UNMOUNT)
        notes |= NOTE_REVOKE;
    return notes;
}

static int is_removed(const struct vnode *v) {
    struct stat now;
    return fstat(v->fd, &now) == 0 && now.st_nlink == 0;
}

static void moved(const struct vnode_set *s, struct vnode *v) {
    int old = v->parent_wd;
    v->parent_wd = watch(s, v, "/..");
    unwatch(s, old);
}

static void note(struct vnode_set *s, const struct inotify_event *e, int moved_within) {
    for (struct vnode *v = s->first; v; v = v->next) {
        if (e->mask & IN_Q_OVERFLOW) /* kqueue has no queue that could; so anything may have happened */
            v->seen |= of_self(v, IN_MODIFY | IN_ATTRIB);
        if (v->wd == e->wd)
            v->seen |= e->len ? of_entry(e, moved_within) : of_self(v, e->mask);
        if (v->wd == e->wd && e->mask & IN_MOVE_SELF && v->is_directory)
            moved(s, v);
        if (v->parent_wd == e->wd && e->mask & IN_DELETE && e->mask & IN_ISDIR && is_removed(v))
            v->seen |= NOTE_DELETE;
    }
}

static int are_halves(const struct inotify_event *from, const struct inotify_event *to) {
    return from && to && from->mask & IN_MOVED_FROM && to->mask & IN_MOVED_TO && from->cookie == to->cookie && from->wd == to->wd;
}

static void read_all(struct vnode_set *s) {
    static _Alignas(struct inotify_event) char buffer[65536];
    ssize_t n;
    while ((n = read(s->inotify, buffer, sizeof buffer)) > 0) {
        const struct inotify_event *last = NULL;
        for (char *at = buffer; at < buffer + n;) {
            const struct inotify_event *e = (const struct inotify_event *)at;
            at += sizeof *e + e->len;
            const struct inotify_event *next = at < buffer + n ? (const struct inotify_event *)at : NULL;
            note(s, e, are_halves(last, e) || are_halves(e, next));
            last = e;
        }
    }
}

static int is_pending(const struct vnode *v) { return !v->disabled && v->seen & v->wanted; }

int vnode_collect(struct vnode_set *s, struct kevent *events, int most) {
    if (s->inotify < 0)
        return 0;
    read_all(s);
    int n = 0;
    uint64_t pending = 0;
    for (struct vnode *v = s->first, *next; v; v = next) {
        next = v->next;
        if (!is_same(v)) {
            drop(s, v);
            continue;
        }
        if (is_pending(v) && n < most) {
            events[n++] = (struct kevent){
                .ident = (uintptr_t)v->fd,
                .filter = EVFILT_VNODE,
                .flags = v->flags,
                .fflags = v->seen & v->wanted,
                .udata = v->udata,
            };
            if (v->flags & EV_DISPATCH)
                v->disabled = 1;
            /* "After the event is retrieved by the user, its state is reset." */
            if (v->flags & (EV_CLEAR | EV_DISPATCH))
                v->seen = 0;
            if (v->flags & EV_ONESHOT) {
                drop(s, v);
                continue;
            }
        }
        pending += is_pending(v) ? 1 : 0;
    }
    uint64_t before;
    if (read(s->more, &before, sizeof before) < 0 && errno != EAGAIN)
        return n;
    if (pending && write(s->more, &pending, sizeof pending) < 0)
        return n;
    return n;
}

void vnode_forget(struct vnode_set *s, int fd) {
    struct vnode *v = find(s, fd);
    if (v)
        drop(s, v);
}
