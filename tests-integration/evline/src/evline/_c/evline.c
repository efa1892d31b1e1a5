/* A server for lines. Everything here runs on the loop's thread: the functions that Python calls between turns, the callbacks of
 * the streams and the operations inside a turn, with the GIL released, so that nothing here may touch a Python object. */
#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WAITING_MOST = 64,     /* lines of a client that Python has been told of and has not answered */
    QUEUED_MOST = 1 << 18, /* bytes of answers that a client has not taken: from there on we read no more from it */
    LINGER_MS = 1000,      /* how long a client that is still sending may take to read why we hang up */
};

/* [link] */
static const struct ev_capi *ev;
static const struct net_capi *net;

uint64_t evline_link_loop(uint64_t evloop_capi) {
    const struct ev_capi *api = (const struct ev_capi *)(uintptr_t)evloop_capi;
    if (!EV_CAPI_COMPATIBLE(api))
        return EV_LINK_MISMATCH(EV_CAPI_MAJOR, EV_CAPI_MINOR, api);
    ev = api;
    return 0;
}

uint64_t evline_link_net(uint64_t evnet_capi) {
    const struct net_capi *api = (const struct net_capi *)(uintptr_t)evnet_capi;
    if (!EVNET_CAPI_COMPATIBLE(api))
        return EV_LINK_MISMATCH(EVNET_CAPI_MAJOR, EVNET_CAPI_MINOR, api);
    net = api;
    return 0;
}
/* [/link] */

/* [state] */
struct line_server {
    struct line_server *next;
    struct line_conn *conns;
    net_listener *listener; /* NULL once closed */
    struct line_options options;
    unsigned count;
};

/* Why a client gets no further lines; the last words are sent when those before are answered. */
enum line_end { LINE_GOES_ON, LINE_DONE, LINE_TOO_LONG, LINE_TOO_SLOW };

/* What lies behind each stream: zeroed at the beginning, gone with the stream. */
struct line_conn {
    struct line_conn *next, **link;
    struct line_server *server;
    net_stream *stream;
    size_t searched;  /* of the bytes that were kept, so many have no end of line among them */
    unsigned waiting; /* lines without an answer */
    enum line_end end;
};
/* [/state] */

static struct line_conn *conn_of(net_stream *s) { return net->state(s); }

/* [pressure] */
/* Pausing is idempotent, so the reasons need no bookkeeping: this is called whenever one of them may have changed. */
static void keep_pace(struct line_conn *c) {
    if (c->waiting >= WAITING_MOST || net->queued(c->stream) >= QUEUED_MOST)
        net->pause(c->stream);
    else
        net->resume(c->stream);
}
/* [/pressure] */

/* Hangs up, if nothing is left to answer. */
static void end_if_answered(struct line_conn *c) {
    if (c->end == LINE_GOES_ON || c->waiting)
        return;
    char words[64];
    int len = 0;
    if (c->end == LINE_TOO_LONG)
        len = snprintf(words, sizeof words, "error: a line has at most %u bytes\n", c->server->options.max_line);
    else if (c->end == LINE_TOO_SLOW)
        len = snprintf(words, sizeof words, "error: waited %u ms for a line\n", c->server->options.timeout_ms);
    net->write(c->stream, words, (size_t)len);
    /* Not close: the kernel would answer what the client still sends with a reset, which can overtake our last words. */
    net->linger(c->stream, NET_BY_US, LINGER_MS);
}

static void end(struct line_conn *c, enum line_end why) {
    if (c->end != LINE_GOES_ON)
        return; /* the deadline may be that of the lingering by now */
    c->end = why;
    net->deadline(c->stream, 0);
    end_if_answered(c);
}

static void tell(struct line_conn *c, const uint8_t *line, size_t len) {
    if (len && line[len - 1] == '\r')
        len--;
    int64_t offset;
    uint8_t *room = ev->arena_put(net->loop(c->stream), len, &offset);
    memcpy(room, line, len);
    ev->emit(net->loop(c->stream), c->server->options.target, offset, (int64_t)len, net->token(c->stream));
    c->waiting++;
}

/* [on_bytes] */
/* The bytes come as the network cut them. What is not consumed is kept by evnet and comes again, with more behind it. */
static size_t on_bytes(net_stream *s, const uint8_t *data, size_t len) {
    struct line_conn *c = conn_of(s);
    size_t used = 0;
    while (c->end == LINE_GOES_ON && c->waiting < WAITING_MOST) {
        const uint8_t *line = data + used;
        const uint8_t *feed = memchr(line + c->searched, '\n', len - used - c->searched);
        size_t size = feed ? (size_t)(feed - line) : len - used;
        /* One byte more than the limit may be the return of a line that keeps to it. */
        if (size > (size_t)c->server->options.max_line + 1 ||
            (size > c->server->options.max_line && line[c->server->options.max_line] != '\r')) {
            end(c, LINE_TOO_LONG);
            break;
        }
        if (!feed) {
            c->searched = size;
            return used;
        }
        tell(c, line, size);
        used += size + 1;
        c->searched = 0;
        net->deadline(s, c->server->options.timeout_ms);
    }
    if (c->end != LINE_GOES_ON)
        return len; /* nobody will look at it */
    keep_pace(c);
    return used;
}
/* [/on_bytes] */

static void on_eof(net_stream *s) { end(conn_of(s), LINE_DONE); }

static void on_drained(net_stream *s) { keep_pace(conn_of(s)); }

static void on_timeout(net_stream *s) {
    struct line_conn *c = conn_of(s);
    if (c->waiting || net->queued(s)) /* it is not the client's turn; one that takes no answers is given up by evnet */
        net->deadline(s, c->server->options.timeout_ms);
    else
        end(c, LINE_TOO_SLOW);
}

static void on_close(net_stream *s, int cause) {
    (void)cause;
    struct line_conn *c = conn_of(s);
    c->server->count--;
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
}

/* [protocol] */
static const struct net_protocol protocol = {
    .name = "line",
    .on_bytes = on_bytes,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_timeout = on_timeout,
    .on_close = on_close,
};

static void accepted(net_listener *l, net_stream *s) {
    struct line_conn *c = conn_of(s);
    c->server = net->owner(l);
    c->stream = s;
    c->link = &c->server->conns;
    c->next = c->server->conns;
    if (c->next)
        c->next->link = &c->next;
    c->server->conns = c;
    c->server->count++;
    net->deadline(s, c->server->options.timeout_ms);
    net->write_timeout(s, c->server->options.timeout_ms);
}
/* [/protocol] */

/* [op] */
/* What Python wants done. The client may have gone while Python was busy: then its token finds nothing. */
static void execute(ev_loop *loop, struct ev_module *m, unsigned op, unsigned arg, uint64_t id, const uint8_t *payload, size_t len) {
    (void)m, (void)arg;
    net_stream *s = net->find(loop, id, &protocol);
    if (!s)
        return;
    struct line_conn *c = conn_of(s);
    if (op == EVLINE_OP_ABORT) {
        net->abort(s, NET_BY_US);
    } else if (op == EVLINE_OP_ANSWER && c->waiting) {
        net->write(s, payload, len);
        net->write(s, "\n", 1);
        c->waiting--;
        end_if_answered(c);
        keep_pace(c);
    }
}
/* [/op] */

struct line_module {
    struct ev_module module; /* first: the loop hands this back to us */
    struct line_server *servers;
};

/* The loop is being closed. evnet, whose number is lower, has ended all streams by now, and its listeners are gone, too. */
static void module_close(ev_loop *loop, struct ev_module *module) {
    (void)loop;
    struct line_module *m = (struct line_module *)module;
    while (m->servers) {
        struct line_server *server = m->servers;
        m->servers = server->next;
        free(server);
    }
    free(m);
}

/* Numbers from EV_MODULE_USER on are for everybody: ours is the one that has our operations, or the first that is free. */
static int module_of(ev_loop *loop, struct line_module **out) {
    for (unsigned id = EV_MODULE_USER; id < EV_MODULES; id++) {
        struct ev_module *found = ev->module_get(loop, id);
        if (found && found->op != execute)
            continue;
        *out = (struct line_module *)found;
        if (found)
            return (int)id;
        struct line_module *m = calloc(1, sizeof *m);
        if (!m)
            return -ENOMEM;
        m->module = (struct ev_module){.op = execute, .close = module_close};
        int rc = ev->module_set(loop, id, &m->module);
        if (rc < 0) {
            free(m);
            return rc;
        }
        *out = m;
        return (int)id;
    }
    return -EEXIST;
}

int evline_module(uint64_t loop) {
    struct line_module *m;
    return module_of((ev_loop *)(uintptr_t)loop, &m);
}

int evline_open(uint64_t address, int fd, const struct line_options *options, struct line_server **out) {
    ev_loop *loop = (ev_loop *)(uintptr_t)address;
    struct line_module *m;
    int rc = module_of(loop, &m);
    if (rc < 0)
        return rc;
    struct line_server *server = calloc(1, sizeof *server);
    if (!server)
        return -ENOMEM;
    server->options = *options;
    rc = net->listen(loop, fd, &protocol, sizeof(struct line_conn), accepted, server, &server->listener);
    if (rc < 0) {
        free(server);
        return rc;
    }
    server->next = m->servers;
    m->servers = server;
    *out = server;
    return 0;
}

void evline_close(struct line_server *server) {
    if (!server->listener)
        return;
    net->unlisten(server->listener);
    server->listener = NULL;
    /* Closing is never immediate, so no connection leaves the list while we walk along it. */
    for (struct line_conn *c = server->conns; c; c = c->next)
        end(c, LINE_DONE);
}

unsigned evline_connections(const struct line_server *server) { return server->count; }
