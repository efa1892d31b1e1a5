/* The load client's connections: connect, send a batch, check the answers, send the next. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { INBOX_SIZE = 2 * ANSWER_LIMIT };

#define HANGUP (EPOLLRDHUP | EPOLLHUP | EPOLLERR)

const char *const trouble_names[TROUBLES] = {
    "connect", "reset", "closed", "short", "status", "body", "framing", "unexpected", "timeout", "not_closed",
};

static char batch[MAX_PIPELINE * REQUEST_LIMIT], inbox[INBOX_SIZE];

void conn_prepare(void)
{
    load.request_size = options_request(&load.opt, batch);
    load.batch_size = load.request_size * load.opt.pipeline;
    for (unsigned i = 1; i < load.opt.pipeline; i++)
        memcpy(batch + i * load.request_size, batch, load.request_size);
}

static void conn_close(struct conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->state = DOWN;
    c->in_flight = 0;
    c->unsent = 0;
    c->partial_size = 0;
}

/* Count an error. The sweep reopens the connection: a server that fails at once must not turn us into a busy loop. */
static void conn_fail(struct conn *c, enum trouble what, const char *detail)
{
    load.troubles[what]++;
    if (load.trouble_count++ == 0)
        snprintf(load.first_trouble, sizeof load.first_trouble, "%s: %s", trouble_names[what], detail);
    conn_close(c);
}

static void conn_reopen(struct conn *c, uint64_t now)
{
    conn_close(c);
    load.reconnects++;
    if (load.phase < DRAIN)
        conn_open(c, now);
}

static void conn_send(struct conn *c)
{
    ssize_t sent = send(c->fd, batch + load.batch_size - c->unsent, c->unsent, MSG_NOSIGNAL);
    if (sent >= 0)
        c->unsent -= (uint32_t)sent; /* a short send is gone on with at EPOLLOUT */
    else if (errno != EAGAIN)
        conn_fail(c, c->state == CONNECTING ? CONNECT : RESET, strerror(errno));
}

static void conn_start(struct conn *c, uint64_t started, uint64_t now)
{
    c->started = started;
    c->touched = now;
    c->in_flight = load.opt.pipeline;
    c->unsent = (uint32_t)load.batch_size;
    conn_send(c);
}

void conn_start_if_due(struct conn *c, uint64_t now)
{
    uint64_t due = due_at(c->next_due);
    if (load.phase == RAMP || c->state != OPEN || c->in_flight || due > now || (load.measure_end && due >= load.measure_end))
        return;
    c->next_due += load.opt.connections;
    conn_start(c, due, now);
}

void conn_open(struct conn *c, uint64_t now)
{
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    c->touched = now;
    if (c->fd < 0) {
        conn_fail(c, CONNECT, strerror(errno));
        return;
    }
    c->state = CONNECTING;
    if (!load.opt.close) { /* with one small send per connection there is nothing that could be delayed */
        int one = 1;
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if ((connect(c->fd, (struct sockaddr *)&load.opt.address, sizeof load.opt.address) < 0 && errno != EINPROGRESS) ||
        epoll_ctl(load.poller, EPOLL_CTL_ADD, c->fd, &event) < 0) {
        conn_fail(c, CONNECT, strerror(errno));
        return;
    }
    /* On the loop-back the handshake is usually over by now. If not, the send says EAGAIN and EPOLLOUT goes on. */
    if (load.opt.rate == 0 || !c->greeted)
        conn_start(c, now, now);
}

/* All requests of the batch are answered: go on with the next, as the mode wants it. False: this socket is gone. */
static bool conn_answered(struct conn *c, bool closes, uint32_t events, uint64_t now)
{
    if (!c->greeted) {
        c->greeted = true;
        load.greeted++;
    }
    if (load.opt.close) {
        c->state = DONE;
        if (!(events & HANGUP))
            return true;
        conn_reopen(c, now);
        return false;
    }
    if (closes) {
        conn_reopen(c, now);
        return false;
    }
    if (load.opt.rate > 0)
        conn_start_if_due(c, now);
    else if (!load.opt.idle && load.phase < DRAIN)
        conn_start(c, now, now);
    return c->state != DOWN;
}

static void count_answer(const struct conn *c, uint64_t now)
{
    /* In rate mode a request belongs to the time at which it was due, however late it is answered. */
    if (load.opt.rate > 0 ? load.phase >= MEASURE && c->started >= load.measure_start : load.phase == MEASURE) {
        load.requests++;
        load.late += load.phase == DRAIN;
        hist_add(&load.latency, now - c->started);
    }
}

static bool conn_reject(struct conn *c, enum verdict verdict, const struct answer *a)
{
    char detail[96];
    if (verdict == ANSWER_BAD_STATUS) {
        snprintf(detail, sizeof detail, "expected 200, got %d", a->status);
        conn_fail(c, STATUS, detail);
    } else if (verdict == ANSWER_BAD_BODY) {
        snprintf(detail, sizeof detail, "expected %zu bytes, got %zu or others", load.checker.expect_size, a->body_size);
        conn_fail(c, BODY, detail);
    } else {
        conn_fail(c, FRAMING, "not an answer framed by one Content-Length");
    }
    return false;
}

/* Take the answers out of the inbox. False: this socket is gone. */
static bool conn_parse(struct conn *c, size_t size, uint32_t events, uint64_t now)
{
    size_t at = 0;
    bool closes = false;
    struct answer a;

    while (at < size && c->in_flight && !closes) {
        enum verdict verdict = answer_check(&load.checker, inbox + at, size - at, &a);
        if (verdict == ANSWER_PARTIAL)
            break;
        if (verdict != ANSWER_GOOD)
            return conn_reject(c, verdict, &a);
        at += a.size;
        c->in_flight--;
        closes = a.closes;
        count_answer(c, now);
    }
    if (at < size && (c->in_flight == 0 || closes)) {
        conn_fail(c, UNEXPECTED, "bytes that no request asked for");
        return false;
    }
    c->partial_size = (uint32_t)(size - at);
    if (c->partial_size) {
        if (!c->partial && !(c->partial = malloc(INBOX_SIZE)))
            abort();
        memcpy(c->partial, inbox + at, c->partial_size);
    }
    if (closes && c->in_flight) {
        conn_fail(c, CLOSED, "the server closes with requests unanswered");
        return false;
    }
    return c->in_flight ? true : conn_answered(c, closes, events, now);
}

static void conn_eof(struct conn *c, uint64_t now)
{
    if (c->state == DONE)
        conn_reopen(c, now);
    else if (load.opt.idle && c->greeted && !c->in_flight) {
        load.lost_idle++;
        conn_close(c);
    } else if (c->partial_size)
        conn_fail(c, SHORT, "end of stream within an answer");
    else
        conn_fail(c, CLOSED, "end of stream before an answer");
}

void conn_event(struct conn *c, uint32_t events)
{
    if (c->state == DOWN)
        return;
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        if (events & EPOLLERR && getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error) {
            conn_fail(c, CONNECT, strerror(error));
            return;
        }
        c->state = OPEN;
    }
    if (c->unsent && events & EPOLLOUT)
        conn_send(c);
    while (c->state != DOWN && events & (EPOLLIN | HANGUP)) {
        size_t have = c->partial_size, room = sizeof inbox - have;
        if (have)
            memcpy(inbox, c->partial, have);
        ssize_t got = recv(c->fd, inbox + have, room, 0);
        uint64_t now = clock_ns();
        if (got < 0) {
            if (errno != EAGAIN)
                conn_fail(c, RESET, strerror(errno));
            return;
        }
        if (got == 0) {
            conn_eof(c, now);
            return;
        }
        if (load.phase == MEASURE)
            load.bytes += (uint64_t)got;
        if (!conn_parse(c, have + (size_t)got, events, now))
            return;
        /* A short read has emptied the socket; only an end of stream that came with the event can still hide there. */
        if ((size_t)got < room && !(events & HANGUP))
            return;
    }
}

void conn_sweep(uint64_t now)
{
    uint64_t limit = (uint64_t)(load.opt.timeout * 1e9);
    for (unsigned i = 0; i < load.opened; i++) {
        struct conn *c = &load.conns[i];
        if (c->state == DONE && now - c->touched > limit)
            conn_fail(c, NOT_CLOSED, "the server did not close after Connection: close");
        else if (c->state != DOWN && c->state != DONE && c->in_flight && now - c->touched > limit)
            conn_fail(c, TIMEOUT, "no answer in time");
        else if (c->state == DOWN && load.phase < DRAIN && !(load.opt.idle && c->greeted))
            conn_open(c, now);
        else if (load.opt.rate > 0)
            conn_start_if_due(c, now);
    }
}

