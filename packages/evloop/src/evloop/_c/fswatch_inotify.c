/* Facts about inotify this file relies on (inotify(7)):
 * - A watch is on an inode: it goes along when that is renamed, and adding the same inode again returns the same number.
 *   Numbers of removed watches are not used again until 2^31 have been given out.
 * - read(2) returns whole events only, in the order in which things happened; equal ones in a row are merged.
 * - IN_EXCL_UNLINK: entries that were deleted while open tell nothing any more.
 * - A change of the link count is IN_ATTRIB, and goes only to watches on the inode itself. */
#include "fswatch.h"

#if defined(__linux__) && !defined(EVLOOP_FSWATCH_KQUEUE)

#include <errno.h>
#include <sys/inotify.h>
#include <unistd.h>

_Static_assert(sizeof(struct ev_fs_event) == sizeof(struct inotify_event), "events are translated in place");

static const struct {
    uint32_t theirs, ours;
} translation[] = {
    {IN_CREATE, EV_FS_CREATED},
    {IN_DELETE, EV_FS_DELETED},
    {IN_MOVED_FROM, EV_FS_MOVED_FROM},
    {IN_MOVED_TO, EV_FS_MOVED_TO},
    {IN_ISDIR, EV_FS_IS_DIR},
    {IN_MODIFY, EV_FS_MODIFIED},
    {IN_ATTRIB, EV_FS_ATTRIBUTES},
    {IN_DELETE_SELF, EV_FS_SELF_DELETED},
    {IN_MOVE_SELF, EV_FS_SELF_MOVED},
    {IN_UNMOUNT, EV_FS_REVOKED},
    {IN_IGNORED, EV_FS_UNWATCHED},
    {IN_Q_OVERFLOW, EV_FS_OVERFLOW},
};

static uint32_t translate(uint32_t mask) {
    uint32_t what = 0;
    for (size_t i = 0; i < sizeof translation / sizeof *translation; i++)
        if (mask & translation[i].theirs)
            what |= translation[i].ours;
    return what;
}

int ev_fs_names(void) { return 1; }

int ev_fs_open(void) {
    int queue = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    return queue < 0 ? -errno : queue;
}

void ev_fs_close(int queue) { close(queue); }

int ev_fs_add(int queue, const char *path, unsigned how) {
    uint32_t mask = IN_CREATE | IN_DELETE | IN_MOVE | IN_DELETE_SELF | IN_MOVE_SELF | IN_EXCL_UNLINK;
    if (!(how & EV_FS_WATCH_ENTRIES))
        mask |= IN_MODIFY | IN_ATTRIB;
    if (how & EV_FS_WATCH_NO_FOLLOW)
        mask |= IN_DONT_FOLLOW;
    if (how & EV_FS_WATCH_DIRECTORY)
        mask |= IN_ONLYDIR;
    int watch = inotify_add_watch(queue, path, mask);
    return watch < 0 ? -errno : watch;
}

int ev_fs_remove(int queue, int watch) { return inotify_rm_watch(queue, watch) < 0 ? -errno : 0; }

int64_t ev_fs_read(int queue, void *buffer, size_t size) {
    ssize_t n = read(queue, buffer, size);
    if (n < 0)
        return errno == EINTR ? -EAGAIN : -errno;
    char *end = (char *)buffer + n;
    for (char *at = buffer; at < end;) {
        /* The kernel pads names so that every event is aligned. */
        struct inotify_event *event = (struct inotify_event *)(void *)at;
        event->mask = translate(event->mask);
        at += sizeof *event + event->len;
    }
    return n;
}

#endif
