/* The seam between FileWatcher and the kernel's notification of changes to files: one file per kernel, this header is the contract.
 *
 * Python opens a queue, watches its descriptor with the loop like any other (it is readable while events wait), and reads it
 * when it is ready. Nothing here knows the loop: changes to files are rare, so one more crossing per batch of them costs
 * nothing that can be measured, and reading inside the turn would need a module, an arena record and the rules for their lifetime.
 *
 * The kernels differ in what they tell. inotify names the directory entry that has changed and pairs the halves of a rename.
 * EVFILT_VNODE says of an open descriptor that it was written to, of a directory that some entry has come or gone; Python
 * finds out which. ev_fs_names() says which kind this is; everything else of the difference is Python's.
 *
 * Linux has inotify. EVLOOP_FSWATCH_KQUEUE, defined for the compiler (EV_SHIM_CFLAGS), takes the other file there, against the
 * library that EVLOOP_KQUEUE_PREFIX names, so that it can be tested.
 *
 * All functions return a number >= 0 or -errno, never block, and may be called from one thread at a time. */
#ifndef EV_FSWATCH_H
#define EV_FSWATCH_H

#include <stddef.h>
#include <stdint.h>

/* What happened. Of an entry of the watched directory, with its name: */
enum {
    EV_FS_CREATED = 1 << 0,
    EV_FS_DELETED = 1 << 1,
    EV_FS_MOVED_FROM = 1 << 2, /* the halves of a rename have the same cookie */
    EV_FS_MOVED_TO = 1 << 3,
    EV_FS_IS_DIR = 1 << 4,
    /* Of an entry, or without a name of what is watched itself: */
    EV_FS_MODIFIED = 1 << 5,
    EV_FS_ATTRIBUTES = 1 << 6, /* inotify: or the link count */
    /* Of what is watched itself: */
    EV_FS_LINKS = 1 << 7,
    EV_FS_ENTRIES = 1 << 8, /* a directory that is to be read anew */
    EV_FS_SELF_DELETED = 1 << 9,
    EV_FS_SELF_MOVED = 1 << 10,
    EV_FS_REVOKED = 1 << 11, /* revoke(2), or the file system was unmounted */
    EV_FS_UNWATCHED = 1 << 12, /* the kernel has removed this watch */
    /* Of the queue, with watch -1: events were lost. */
    EV_FS_OVERFLOW = 1 << 13,
};

/* How to watch. */
enum {
    EV_FS_WATCH_ENTRIES = 1, /* only the coming and going of a directory's entries, and the directory's own end */
    EV_FS_WATCH_NO_FOLLOW = 2, /* do not follow a symbolic link: -ELOOP or -ENOTDIR */
    EV_FS_WATCH_DIRECTORY = 4, /* refuse, with -ENOTDIR, what is none */
};

/* An event as ev_fs_read lays it into the buffer; name_len bytes of name, padded with NULs, follow. Python knows this layout. */
struct ev_fs_event {
    int32_t watch;
    uint32_t what;
    uint32_t cookie;
    uint32_t name_len;
};

/* 1 when events of a directory name its entries. */
int ev_fs_names(void);
/* A descriptor, non-blocking and close-on-exec. */
int ev_fs_open(void);
/* After ev_fs_remove of every watch. */
void ev_fs_close(int queue);
/* A watch on path. The same inode gives the same watch where ev_fs_names(), and a descriptor open on it where not. */
int ev_fs_add(int queue, const char *path, unsigned how);
int ev_fs_remove(int queue, int watch);
/* Fills the buffer (at least 4,096 bytes) with whole events and returns the bytes, or -EAGAIN. */
int64_t ev_fs_read(int queue, void *buffer, size_t size);

#endif
