/* Accepting. The listeners of one server form a group, which counts the streams that they have open and may limit them. */
#include "internal.h"
#include "tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    /* A turn handles up to 64 events and everything that they bring; half as many accepts keep a flood of clients from taking most
     * of it, and the cost of the turn itself, spread over 32 accepts of some 10 us, is not seen. The rest waits in the kernel,
     * which reports it at once in the next turn. */
    ACCEPTS_A_TURN = 32,
    PAUSE_MS = 100,     /* until a shortage that nothing can be done about is looked at again */
    NOTICE_MS = 60000,  /* between two notices of a shortage that goes on */
};

struct net_group {
    net_listener *listeners;
    size_t references; /* of listeners and streams */
    uint64_t accepted, refused, shed;
    uint64_t noticed_ms; /* when the last notice was given, or 0 */
    uint32_t open;
    uint32_t most; /* streams at a time, or 0 */
    uint32_t settled, most_new; /* of those that are open; the others at a time, or 0 */
    uint32_t notice;
    uint8_t refuse;
};

static net_listener *of_pause(struct ev_timer *t) { return (net_listener *)((char *)t - offsetof(net_listener, pause)); }
static net_listener *of_resume(struct ev_task *t) { return (net_listener *)((char *)t - offsetof(net_listener, resume)); }
static net_listener *of_reap(struct ev_task *t) { return (net_listener *)((char *)t - offsetof(net_listener, reap)); }

/* -- groups -- */

static void group_put(struct net_group *g) {
    if (!--g->references)
        free(g);
}

static void group_join(struct net_group *g, net_listener *l) {
    l->group = g;
    l->sibling = g->listeners;
    g->listeners = l;
    g->references++;
}

static void unlink_sibling(net_listener *l) {
    net_listener **link = &l->group->listeners;
    while (*link != l)
        link = &(*link)->sibling;
    *link = l->sibling;
}

static void group_leave(net_listener *l) {
    unlink_sibling(l);
    group_put(l->group);
    l->group = NULL;
}

static void move_to_end(net_listener *l) {
    unlink_sibling(l);
    net_listener **link = &l->group->listeners;
    while (*link)
        link = &(*link)->sibling;
    *link = l;
    l->sibling = NULL;
}

static int is_full(const struct net_group *g) {
    return (g->most && g->open >= g->most) || (g->most_new && g->open - g->settled >= g->most_new);
}

static void notice(net_listener *l, int error) {
    struct net_group *g = l->group;
    uint64_t now = ev->now_ms(l->module->loop);
    if (g->notice && (!g->noticed_ms || now - g->noticed_ms >= NOTICE_MS)) {
        g->noticed_ms = now ? now : 1;
        ev->emit(l->module->loop, g->notice, error, (int64_t)g->shed, 0);
    }
}

/* -- accepting -- */

static int reserve(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

static void listen_again(ev_loop *loop, struct ev_timer *t) {
    net_listener *l = of_pause(t);
    if (l->reserve_fd < 0)
        l->reserve_fd = reserve();
    if (ev->watch(loop, &l->watcher, EV_READ) < 0)
        ev->timer_start(loop, &l->pause, PAUSE_MS, listen_again);
}

static void pause_listening(net_listener *l) {
    ev->watch(l->module->loop, &l->watcher, 0);
    ev->timer_start(l->module->loop, &l->pause, PAUSE_MS, listen_again);
}

static void hang_up(int fd) {
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
}

/* Without descriptors the listening socket would stay readable and the loop spin. One that is kept in reserve lets us accept the
 * client and hang up on it at once: it learns where it stands, and the backlog empties. Returns whether to go on accepting. */
static int shed(net_listener *l, int error) {
    if (l->reserve_fd >= 0) {
        close(l->reserve_fd);
        struct net_address peer;
        int fd = net__accept(l->watcher.fd, &peer);
        if (fd >= 0) {
            hang_up(fd);
            l->group->shed++;
        }
        l->reserve_fd = reserve();
    }
    notice(l, error);
    if (l->reserve_fd >= 0)
        return 1;
    pause_listening(l); /* somebody else took it: wait */
    return 0;
}

static void welcome(net_listener *l, int fd, const struct net_address *peer) {
    struct net_group *g = l->group;
    net_stream *s = net__stream_open(l->module, fd, l->protocol, l->state_size);
    if (!s) {
        hang_up(fd);
        g->shed++;
        notice(l, ENOMEM);
        return;
    }
    g->accepted++;
    g->open++;
    g->references++;
    s->group = g;
    s->peer = *peer;
    s->listener = l;
    if (l->tls_target)
        net__tls_wait(s, l->tls_target);
    else
        l->accepted(l, s);
    net__stream_begin(s);
}

static void accept_some(net_listener *l) {
    for (int i = 0; i < ACCEPTS_A_TURN && l->watcher.token; i++) {
        struct net_group *g = l->group;
        int full = is_full(g);
        if (full && !g->refuse) {
            l->held = 1;
            ev->watch(l->module->loop, &l->watcher, 0);
            return;
        }
        struct net_address peer;
        int fd = net__accept(l->watcher.fd, &peer);
        if (fd >= 0 && full) {
            hang_up(fd);
            g->refused++;
        } else if (fd >= 0) {
            welcome(l, fd, &peer);
        } else if (fd == -EMFILE || fd == -ENFILE) {
            if (!shed(l, -fd))
                return;
        } else if (fd == -ENOBUFS || fd == -ENOMEM) {
            notice(l, -fd);
            pause_listening(l);
            return;
        } else if (fd == -EAGAIN || fd == -EWOULDBLOCK) {
            return;
        } /* else the connection died in the queue, or a signal came: the next one */
    }
}

static void listener_ready(ev_loop *loop, struct ev_watcher *w, unsigned ready) {
    (void)loop;
    (void)ready;
    accept_some((net_listener *)w);
}

/* Clients that wait for a place are accepted without asking the poller: a server that stays full pays no system call for
 * changing what is watched. */
static void resume(ev_loop *loop, struct ev_task *task) {
    net_listener *l = of_resume(task);
    if (!l->held)
        return;
    l->held = 0;
    uint64_t before = l->group->accepted;
    accept_some(l);
    if (!l->group) /* the protocol has unlistened */
        return;
    if (l->group->accepted != before)
        move_to_end(l); /* the next place is another one's */
    if (!l->held && !l->pause.next && ev->watch(loop, &l->watcher, EV_READ) < 0)
        ev->timer_start(loop, &l->pause, PAUSE_MS, listen_again);
}

static void resume_held(struct net_group *g) {
    for (net_listener *l = g->listeners; l; l = l->sibling)
        if (l->held)
            ev->next_turn(l->module->loop, &l->resume, resume);
}

void net__settled(net_stream *s) {
    if (!s->group || s->settled)
        return;
    s->settled = 1;
    s->group->settled++;
    resume_held(s->group);
}

void net__group_left(net_stream *s) {
    struct net_group *g = s->group;
    g->open--;
    g->settled -= s->settled;
    resume_held(g);
    group_put(g);
}

int net__group_adopt(net_listener *l, net_stream *s) {
    if (s->group)
        return -EALREADY;
    s->group = l->group;
    s->listener = l;
    l->group->open++;
    l->group->accepted++;
    l->group->references++;
    return 0;
}

/* -- listening -- */

int net__listen(ev_loop *loop, int fd, const struct net_protocol *protocol, size_t state_size, net_accept_fn accepted, void *owner,
                net_listener **out) {
    struct net_module *m = net__module(loop);
    net_listener *l = m ? calloc(1, sizeof *l) : NULL;
    struct net_group *g = l ? calloc(1, sizeof *g) : NULL;
    int rc = g ? ev->attach(loop, &l->watcher, fd, listener_ready) : -ENOMEM;
    if (rc == 0)
        rc = ev->watch(loop, &l->watcher, EV_READ);
    if (rc < 0) {
        if (g)
            ev->detach(loop, &l->watcher, 0);
        free(g);
        free(l);
        return rc;
    }
    group_join(g, l);
    l->module = m;
    l->protocol = protocol;
    l->state_size = state_size;
    l->accepted = accepted;
    l->owner = owner;
    l->reserve_fd = reserve();
    l->link = &m->listeners;
    l->next = m->listeners;
    if (l->next)
        l->next->link = &l->next;
    m->listeners = l;
    *out = l;
    return 0;
}

void net__share(net_listener *l, const net_listener *with) {
    if (l->group == with->group)
        return;
    group_leave(l);
    group_join(with->group, l);
}

void net__secure_listener(net_listener *l, uint32_t target) { l->tls_target = target; }

void net__limit(net_listener *l, uint32_t most, int refuse, uint32_t target) {
    struct net_group *g = l->group;
    g->most = most;
    g->refuse = refuse != 0;
    g->notice = target;
    resume_held(g);
}

void net__limit_new(net_listener *l, uint32_t most) {
    l->group->most_new = most;
    resume_held(l->group);
}

void net__listen_stats(const net_listener *l, struct net_listen_stats *out) {
    const struct net_group *g = l->group;
    *out = (struct net_listen_stats){.accepted = g->accepted, .refused = g->refused, .shed = g->shed, .open = g->open, .most = g->most};
}

static void release(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    net_listener *l = of_reap(task);
    if (l->free_owner)
        free(l->owner);
    free(l);
}

void net__unlisten(net_listener *l) {
    struct net_module *m = l->module;
    for (net_stream *s = m->streams; s; s = s->next)
        if (s->listener == l && !(s->tls && s->tls->unseen))
            s->listener = NULL;
    ev->detach(m->loop, &l->watcher, 0);
    ev->timer_stop(m->loop, &l->pause);
    if (l->reserve_fd >= 0)
        close(l->reserve_fd);
    *l->link = l->next;
    if (l->next)
        l->next->link = l->link;
    l->held = 0;
    l->closed = 1;
    group_leave(l);
    if (!l->unseen)
        ev->reap(m->loop, &l->reap, release);
}

void net__forget_unseen(net_listener *l) {
    l->unseen--;
    if (l->closed && !l->unseen)
        ev->reap(l->module->loop, &l->reap, release);
}
