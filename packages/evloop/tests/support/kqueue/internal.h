/* What the emulation's files share. One lock guards everything but the sleep. */
#ifndef KQUEUE_LINUX_INTERNAL_H
#define KQUEUE_LINUX_INTERNAL_H

#define KQUEUE_LINUX_IMPLEMENTATION
#include "sys/event.h"

#include <sys/epoll.h>
#include <sys/types.h>

enum { MOST = 4096 }; /* events of one kind that one call reports */

/* An event of EVFILT_READ or EVFILT_WRITE. */
struct note {
    void *udata;
    uint32_t serial; /* tells it from its predecessors on this descriptor; 0: there is none */
    unsigned short flags;
    unsigned char disabled;
    unsigned char silent; /* of a kind that epoll does not take */
};

/* All events of one of the two filters. Each filter has an epoll of its own, because in epoll a descriptor is edge-triggered as a
 * whole, and in kqueue each of its events is so by itself. */
struct ready_set {
    int epoll;
    short filter;
    unsigned char apart; /* not in the queue's epoll any more: see ready.c */
    int size;
    struct note *notes; /* by descriptor */
};

/* An event of EVFILT_VNODE. */
struct vnode {
    struct vnode *next;
    void *udata;
    int fd;
    int wd, parent_wd; /* inotify's numbers, or -1; the parent's of a directory alone */
    unsigned short flags;
    unsigned char disabled, is_directory;
    unsigned wanted, seen; /* NOTE_ flags */
    dev_t device;
    ino_t inode;
    nlink_t links;
    off_t size;
};

struct vnode_set {
    int inotify; /* -1 until there is an event */
    int more;    /* an eventfd, readable while something was seen and not reported */
    struct vnode *first;
};

/* A queue. Its descriptor is an epoll that holds the others', so it can itself be waited for. */
struct queue {
    struct queue *next;
    int fd;
    pid_t owner;
    unsigned turn; /* which kind of event is asked first, so that none starves */
    uint32_t serials;
    struct ready_set sets[2];
    struct vnode_set vnodes;
    struct epoll_event ready[MOST];
};

/* ready.c. Changes return an errno or 0, collections the number of events reported. */
int ready_open(struct queue *, struct ready_set *, short filter);
void ready_close(struct ready_set *);
int ready_change(struct queue *, struct ready_set *, const struct kevent *);
int ready_collect(struct queue *, struct ready_set *, struct kevent *events, int most);
void ready_forget(struct ready_set *, int fd);

/* vnode.c */
void vnode_open(struct vnode_set *);
void vnode_close(struct vnode_set *);
int vnode_change(struct queue *, const struct kevent *);
int vnode_collect(struct vnode_set *, struct kevent *events, int most);
void vnode_forget(struct vnode_set *, int fd);

#endif
