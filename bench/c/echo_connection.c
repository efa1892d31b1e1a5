/* The echo client's connections: connect, send a message, compare what comes back byte by byte. */
#define _GNU_SOURCE
#include "echo_load.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "pattern.h"

#define HANGUP (EPOLLRDHUP | EPOLLHUP | EPOLLERR)

const char *const trouble_names[] = {"connect", "reset", "closed", "wrong", "unexpected", "timeout", "not_closed", NULL};

static uint8_t inbox[PATTERN_LIMIT + 1];

static void conn_close(struct conn *c)
{
    wire_close(&c->wire);
    c->state = DOWN;
    c->unsent = c->awaited = 0;
}

/* Count an error. The sweep reopens the connection: a server that fails at once must not turn us into a busy loop. */
static void conn_fail(struct conn *c, enum trouble what, const char *detail)
{
    trouble_add(&load.troubles, what, detail);
    conn_close(c);
}

/* What is sent and comes back; in a fan-out all get the message of the round. */
static const uint8_t *message_of(const struct conn *c)
{
    return load.opt.mode == FANOUT ? pattern_at(0, load.rounds) : pattern_at(c->index, c->exchanges);
}

static void conn_send(struct conn *c)
{
    while (c->unsent) {
        ssize_t sent = wire_send(&c->wire, message_of(c) + load.opt.size - c->unsent, c->unsent);
        if (sent == WIRE_AGAIN)
            return; /* gone on with at the next event, edge-triggered */
        if (sent <= 0) {
            conn_fail(c, c->state == CONNECTING ? CONNECT : RESET, wire_reason());
            return;
        }
        c->unsent -= (uint32_t)sent;
    }
}

static void conn_start(struct conn *c, uint64_t now)
{
    c->started = now;
    c->unsent = c->awaited = (uint32_t)load.opt.size;
    conn_send(c);
}

void conn_start_round(struct conn *c)
{
    load.rounds++;
    load.served = 0;
    for (unsigned i = 0; i < load.opened; i++)
        load.conns[i].awaited = (uint32_t)load.opt.size;
    load.round_start = clock_ns(); /* preparing to count is not the server's time */
    c->unsent = (uint32_t)load.opt.size;
    conn_send(c);
}

void conn_open(struct conn *c)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    c->started = clock_ns();
    if (fd < 0) {
        conn_fail(c, CONNECT, strerror(errno));
        return;
    }
    wire_open(&c->wire, fd);
    c->state = CONNECTING;
    if (load.opt.mode != ONCE) /* with one small send per connection there is nothing that could be delayed */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if ((connect(fd, (struct sockaddr *)&load.opt.address, sizeof load.opt.address) < 0 && errno != EINPROGRESS) ||
        epoll_ctl(load.poller, EPOLL_CTL_ADD, fd, &event) < 0) {
        conn_fail(c, CONNECT, strerror(errno));
        return;
    }
    /* On the loop-back the handshake is usually over by now. If not, the send says "again" and EPOLLOUT goes on. */
    if (load.opt.mode == FANOUT)
        c->awaited = 1; /* the greeting */
    else
        conn_start(c, c->started);
}

static void conn_reopen(struct conn *c)
{
    conn_close(c);
    load.reconnects++;
    if (load.phase != FINISHED)
        conn_open(c);
}

/* All awaited bytes have come: go on as the mode wants it. */
static void conn_answered(struct conn *c, uint64_t now)
{
    bool greeting = !c->greeted;
    if (greeting) {
        c->greeted = true;
        load.greeted++;
    }
    c->exchanges++;
    c->state = READY;
    if (load.opt.mode == FANOUT) {
        load.served += !greeting;
        return;
    }
    if (load.phase == MEASURE && load.opt.mode == ECHO) {
        load.requests++;
        hist_add(&load.latency, now - c->started);
    }
    if (load.opt.mode == ONCE)
        c->state = ENDING;
    else if (load.opt.mode == ECHO && load.phase != FINISHED) {
        c->state = WAITING;
        conn_start(c, now);
    }
}

static void conn_eof(struct conn *c, uint64_t now)
{
    if (c->state == ENDING) {
        if (load.phase == MEASURE) {
            load.requests++;
            hist_add(&load.latency, now - c->started);
        }
        conn_reopen(c);
    } else if (load.opt.mode == IDLE && c->greeted) {
        load.lost_idle++;
        conn_close(c);
    } else
        conn_fail(c, CLOSED, "end of stream before the whole answer");
}

/* Compare what has come with what is due. False: this socket is gone. */
static bool conn_check(struct conn *c, size_t got, uint64_t now)
{
    bool greeting = load.opt.mode == FANOUT && !c->greeted;
    if (got > c->awaited) {
        conn_fail(c, UNEXPECTED, "bytes that were not asked for");
        return false;
    }
    if (!greeting && memcmp(inbox, message_of(c) + load.opt.size - c->awaited, got) != 0) {
        conn_fail(c, WRONG, "bytes differ from those that were sent");
        return false;
    }
    c->awaited -= (uint32_t)got;
    if (c->awaited == 0)
        conn_answered(c, now);
    return c->state != DOWN;
}

void conn_event(struct conn *c, uint32_t events)
{
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        if (events & EPOLLERR && getsockopt(c->wire.fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error) {
            conn_fail(c, CONNECT, strerror(error));
            return;
        }
        if (events & EPOLLOUT)
            c->state = WAITING;
    }
    if (c->state != DOWN && c->unsent)
        conn_send(c);
    /* Who only awaits, and has a handshake to make first, begins it by receiving. */
    bool ready = events & (EPOLLIN | HANGUP) || (load.opt.mode == FANOUT && !c->greeted);
    while (c->state != DOWN && ready) {
        size_t awaited = c->awaited;
        ssize_t got = wire_recv(&c->wire, inbox, awaited + 1); /* one more, so that a byte too many is seen */
        uint64_t now = clock_ns();
        if (got == WIRE_AGAIN)
            return;
        if (got == WIRE_LOST) {
            conn_fail(c, RESET, wire_reason());
            return;
        }
        if (got == WIRE_EOF) {
            conn_eof(c, now);
            return;
        }
        if (load.phase == MEASURE)
            load.bytes += (uint64_t)got;
        if (!conn_check(c, (size_t)got, now))
            return;
        /* With the whole answer the socket is empty; only an end of stream that came with the event can still hide there. */
        if ((size_t)got == awaited && !(events & HANGUP))
            return;
    }
}

void conn_sweep(uint64_t now)
{
    uint64_t limit = to_ns(load.opt.timeout);
    for (unsigned i = 0; i < load.opened; i++) {
        struct conn *c = &load.conns[i];
        uint64_t since = load.opt.mode == FANOUT && c->greeted ? load.round_start : c->started;
        bool late = now > since && now - since > limit;
        if (c->state == ENDING && late)
            conn_fail(c, NOT_CLOSED, "the server did not close after its answer");
        else if (c->state != DOWN && c->awaited && late)
            conn_fail(c, TIMEOUT, "no whole answer in time");
        else if (c->state == DOWN && load.phase != FINISHED && !(c->greeted && (load.opt.mode == IDLE || load.opt.mode == FANOUT)))
            conn_open(c);
    }
}
