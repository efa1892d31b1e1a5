/* Facts about EVFILT_VNODE this file relies on (kqueue(2)):
 * - A watch is an open descriptor of the file; closing it removes the watch. It goes along when the file is renamed.
 * - With EV_CLEAR what has happened since the last look is gathered into one event.
 * - Of a directory, NOTE_WRITE says that entries have come, gone or been renamed, and NOTE_LINK that one of them is a directory.
 * - Where O_EVTONLY exists (macOS) it keeps the descriptor from holding up an unmount; a directory opened so could not be read. */
#include "fswatch.h"

#if !defined(__linux__) || defined(EVLOOP_FSWATCH_KQUEUE)

#include <sys/types.h>

#include <sys/event.h>
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#ifdef O_EVTONLY
#define OPEN_TO_WATCH (O_EVTONLY | O_NONBLOCK | O_CLOEXEC)
#else
#define OPEN_TO_WATCH (O_RDONLY | O_NONBLOCK | O_CLOEXEC) /* without O_NONBLOCK opening a fifo would wait for a writer */
#endif
#ifndef NOTE_REVOKE
#define NOTE_REVOKE 0
#endif

enum { EVENTS_MAX = 256 };

int ev_fs_names(void) { return 0; }

int ev_fs_open(void) {
    int queue = kqueue();
    if (queue < 0)
        return -errno;
    fcntl(queue, F_SETFD, FD_CLOEXEC);
    return queue;
}

void ev_fs_close(int queue) { close(queue); }

int ev_fs_add(int queue, const char *path, unsigned how) {
    int follow = how & EV_FS_WATCH_NO_FOLLOW ? O_NOFOLLOW : 0;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | follow);
    int is_dir = fd >= 0;
    if (fd < 0 && errno == ENOTDIR && !(how & EV_FS_WATCH_DIRECTORY))
        fd = open(path, OPEN_TO_WATCH | follow);
    if (fd < 0)
        return -errno;
    unsigned notes = NOTE_DELETE | NOTE_RENAME | NOTE_REVOKE | NOTE_WRITE | NOTE_LINK;
    if (!(how & EV_FS_WATCH_ENTRIES))
        notes |= NOTE_ATTRIB | (is_dir ? 0 : NOTE_EXTEND);
    struct kevent change;
    /* udata tells the two kinds apart when an event arrives: NOTE_WRITE means something else of each. */
    EV_SET(&change, (uintptr_t)fd, EVFILT_VNODE, EV_ADD | EV_CLEAR, notes, 0, (void *)(intptr_t)is_dir);
    if (kevent(queue, &change, 1, NULL, 0, NULL) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int ev_fs_remove(int queue, int watch) {
    /* Taken out by name too, because an emulation need not notice that the descriptor is closed. */
    struct kevent change;
    EV_SET(&change, (uintptr_t)watch, EVFILT_VNODE, EV_DELETE, 0, 0, NULL);
    (void)kevent(queue, &change, 1, NULL, 0, NULL);
    return close(watch) < 0 ? -errno : 0;
}

static uint32_t translate(unsigned notes, int is_dir) {
    uint32_t what = is_dir ? EV_FS_IS_DIR : 0;
    if (notes & NOTE_DELETE)
        what |= EV_FS_SELF_DELETED;
    if (notes & NOTE_RENAME)
        what |= EV_FS_SELF_MOVED;
    if (NOTE_REVOKE && notes & NOTE_REVOKE)
        what |= EV_FS_REVOKED;
    if (notes & NOTE_ATTRIB)
        what |= EV_FS_ATTRIBUTES;
    if (notes & NOTE_LINK)
        what |= is_dir ? EV_FS_ENTRIES : EV_FS_LINKS;
    if (notes & (NOTE_WRITE | NOTE_EXTEND))
        what |= is_dir ? EV_FS_ENTRIES : EV_FS_MODIFIED;
    return what;
}

int64_t ev_fs_read(int queue, void *buffer, size_t size) {
    struct kevent ready[EVENTS_MAX];
    struct ev_fs_event *out = buffer;
    const struct timespec at_once = {0, 0};
    size_t room = size / sizeof *out;
    int n = kevent(queue, NULL, 0, ready, room < EVENTS_MAX ? (int)room : EVENTS_MAX, &at_once);
    if (n < 0)
        return errno == EINTR ? -EAGAIN : -errno;
    if (n == 0)
        return -EAGAIN;
    for (int i = 0; i < n; i++)
        out[i] = (struct ev_fs_event){
            .watch = (int32_t)ready[i].ident, .what = translate((unsigned)ready[i].fflags, (intptr_t)ready[i].udata != 0)};
    return (int64_t)((size_t)n * sizeof *out);
}

#endif
