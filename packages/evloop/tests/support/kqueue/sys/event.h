/* A small emulation of kevent(2) on Linux, for tests: what evloop uses of it, over epoll and inotify. kqueue_linux.c says what it does.
 *
 * The names and the structure are those of the manual page; the numbers are this emulation's own business, like everything that
 * a program must not know. */
#ifndef KQUEUE_LINUX_SYS_EVENT_H
#define KQUEUE_LINUX_SYS_EVENT_H

#include <stdint.h>

struct timespec;

struct kevent {
    uintptr_t ident;
    short filter;
    unsigned short flags;
    unsigned int fflags;
    intptr_t data;
    void *udata;
};

#define EV_SET(k, id, filt, fl, ffl, dat, user) \
    (*(k) = (struct kevent){.ident = (id), .filter = (filt), .flags = (fl), .fflags = (ffl), .data = (dat), .udata = (user)})

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_VNODE (-4)

/* What to do */
#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_DISABLE 0x0008
/* How it behaves */
#define EV_ONESHOT 0x0010
#define EV_CLEAR 0x0020
#define EV_RECEIPT 0x0040
#define EV_DISPATCH 0x0080
/* What is returned */
#define EV_ERROR 0x4000
#define EV_EOF 0x8000

/* fflags of EVFILT_VNODE */
#define NOTE_DELETE 0x0001
#define NOTE_WRITE 0x0002
#define NOTE_EXTEND 0x0004
#define NOTE_ATTRIB 0x0008
#define NOTE_LINK 0x0010
#define NOTE_RENAME 0x0020
#define NOTE_REVOKE 0x0040

int kqueue(void);
int kevent(int kq, const struct kevent *changes, int nchanges, struct kevent *events, int nevents, const struct timespec *timeout);

/* "Calling close() on a file descriptor will remove any kevents that reference the descriptor." A library cannot see the close of
 * others, so the files that include this header close through it. What closes otherwise is noticed later: see kqueue_linux.c. */
int kqueue_linux_close(int fd);
#ifndef KQUEUE_LINUX_IMPLEMENTATION
#define close(fd) kqueue_linux_close(fd)
#endif

#endif
