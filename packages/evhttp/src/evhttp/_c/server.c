#include "internal.h"
#include "scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct ev_capi *evh_ev;
const struct net_capi *evh_net;

uint64_t evhttp_link_loop(uint64_t evloop_capi) {
    const struct ev_capi *api = (const struct ev_capi *)(uintptr_t)evloop_capi;
    if (!EV_CAPI_COMPATIBLE(api))
        return EV_LINK_MISMATCH(EV_CAPI_MAJOR, EV_CAPI_MINOR, api);
    evh_ev = api;
    evh_scan_select(NULL);
    return 0;
}

uint64_t evhttp_link_net(uint64_t evnet_capi) {
    const struct net_capi *api = (const struct net_capi *)(uintptr_t)evnet_capi;
    if (!EVNET_CAPI_COMPATIBLE(api))
        return EV_LINK_MISMATCH(EVNET_CAPI_MAJOR, EVNET_CAPI_MINOR, api);
    evh_net = api;
    return 0;
}

#ifndef EV_VERSION
#define EV_VERSION "unknown"
#endif

static const struct evh_capi capi = {
    .major = EVHTTP_CAPI_MAJOR,
    .minor = EVHTTP_CAPI_MINOR,
    .version = EV_VERSION,
    .upgrade = evh_conn_upgrade,
    .left = evh_conn_left,
};

const struct evh_capi *evhttp_capi(void) { return &capi; }

const char *evhttp_scan_select(const char *name) { return evh_scan_select(name); }

const char *evhttp_reason(unsigned status) { return evh_reason(status); }

void evh_count_listeners(struct evh_server *server) {
    if (!server->listeners)
        return;
    struct net_listen_stats stats;
    evh_net->listen_stats(server->listeners->listener, &stats);
    server->counts.accepted = stats.accepted;
    server->counts.refused = stats.refused;
    server->counts.shed = stats.shed;
}

static void stop_listening(struct evh_server *server) {
    evh_count_listeners(server);
    while (server->listeners) {
        struct evh_listener *l = server->listeners;
        server->listeners = l->next;
        evh_net->unlisten(l->listener);
        free(l);
    }
}

static void free_server(struct evh_server *server) {
    free((void *)server->options.networks);
    free(server->arrived);
    free(server);
}

/* evnet has ended all streams by now, and so all connections. */
static void module_close(ev_loop *loop, struct ev_module *module) {
    (void)loop;
    struct evh_module *m = (struct evh_module *)module;
    while (m->servers) {
        struct evh_server *server = m->servers;
        m->servers = server->next;
        while (server->listeners) { /* the listeners themselves are evnet's, and gone */
            struct evh_listener *l = server->listeners;
            server->listeners = l->next;
            free(l);
        }
        free_server(server);
    }
    free(m);
}

static struct evh_module *module_of(ev_loop *loop) {
    struct evh_module *m = (struct evh_module *)evh_ev->module_get(loop, EV_MODULE_HTTP);
    if (m)
        return m;
    m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->module.op = evh_answer_op;
    m->module.close = module_close;
    m->loop = loop;
    if (evh_ev->module_set(loop, EV_MODULE_HTTP, &m->module) < 0) {
        free(m);
        return NULL;
    }
    return m;
}

int evhttp_open(uint64_t loop, const struct evh_options *options, const struct evh_limits *limits, const struct evh_timeouts *timeouts,
                struct evh_server **out) {
    if (options->max_pipeline < 1 || options->max_pipeline > EVH_PIPELINE_MOST)
        return -EINVAL;
    struct evh_module *m = module_of((ev_loop *)(uintptr_t)loop);
    struct evh_server *server = m ? calloc(1, sizeof *server) : NULL;
    if (!server)
        return -ENOMEM;
    server->module = m;
    server->options = *options;
    server->options.networks = NULL;
    if (options->network_count) {
        struct evh_network *networks = calloc(options->network_count, sizeof *networks);
        if (!networks) {
            free(server);
            return -ENOMEM;
        }
        memcpy(networks, options->networks, options->network_count * sizeof *networks);
        server->options.networks = networks;
    }
    server->limits = *limits;
    server->timeouts = *timeouts;
    server->next = m->servers;
    m->servers = server;
    *out = server;
    return 0;
}

static void secure_accepted(net_listener *l, net_stream *s) {
    evh_conn_accepted(l, s);
    evh_conn_of(s)->marks |= EVH_INFO_SECURE;
}

int evhttp_listen(struct evh_server *server, int fd, unsigned flags, uint32_t tls_target) {
    struct evh_listener *l = malloc(sizeof *l);
    if (!l)
        return -ENOMEM;
    int is_proxied = (flags & EVH_LISTEN_PROXIED) != 0;
    net_accept_fn accepted = is_proxied ? evh_proxied_accepted : tls_target ? secure_accepted : evh_conn_accepted;
    int rc = evh_net->listen(server->module->loop, fd, is_proxied ? &evh_proxied_protocol : &evh_protocol, evh_conn_size(server),
                             accepted, server, &l->listener);
    if (rc < 0) {
        free(l);
        return rc;
    }
    if (tls_target)
        evh_net->secure_listener(l->listener, tls_target);
    if (server->listeners) {
        evh_net->share(l->listener, server->listeners->listener);
    } else {
        const struct evh_options *o = &server->options;
        evh_net->limit(l->listener, o->max_connections, o->refuse_connections, o->short_target);
        evh_net->limit_new(l->listener, o->max_handshakes);
    }
    l->next = server->listeners;
    server->listeners = l;
    return 0;
}

int evhttp_adopt(struct evh_server *server, int fd, unsigned flags, uint32_t tls_target, uint64_t *token) {
    net_stream *s;
    int is_proxied = (flags & EVH_LISTEN_PROXIED) != 0;
    const struct net_protocol *protocol = is_proxied ? &evh_proxied_protocol : &evh_protocol;
    int rc = evh_net->adopt(server->module->loop, fd, protocol, evh_conn_size(server), &s);
    if (rc < 0)
        return rc;
    evh_conn_begin(server, s);
    *token = evh_net->token(s);
    if (is_proxied)
        evh_proxied_begun(s);
    if (tls_target) {
        evh_conn_of(s)->marks |= EVH_INFO_SECURE;
        if (evh_net->secure(s, tls_target) < 0) /* no memory: nobody must take it for a plain one */
            evh_net->abort(s, NET_BY_US);
    }
    return 0;
}

static void tell_guests(ev_loop *loop, struct ev_task *task) {
    (void)loop;
    struct evh_server *server = (struct evh_server *)((char *)task - offsetof(struct evh_server, tell_guests));
    for (struct evh_conn *c = server->conns; c; c = c->next)
        if (c->guest)
            c->guest->go_away(c->stream);
}

void evh_server_tell_guests(struct evh_server *server) { evh_ev->soon(server->module->loop, &server->tell_guests, tell_guests); }

static void close_idle(struct evh_server *server) {
    for (struct evh_conn *c = server->conns; c; c = c->next)
        if (!c->guest && !c->partial && !c->body && !c->untold && !evh_unanswered(c))
            evh_net->close(c->stream, NET_BY_US);
}

void evhttp_close(struct evh_server *server, int keep_idle) {
    if (!server->closed) {
        server->closed = 1;
        stop_listening(server);
        if (!server->conn_count)
            evh_ev->emit(server->module->loop, server->options.event_target, 0, EVH_EVENT_EMPTY, 0);
        for (struct evh_conn *c = server->conns; c; c = c->next)
            evh_conn_leave(c, keep_idle);
    }
    if (!keep_idle)
        close_idle(server);
}

unsigned evhttp_abort(struct evh_server *server) {
    unsigned count = server->conn_count;
    for (struct evh_conn *c = server->conns; c; c = c->next)
        evh_net->abort(c->stream, NET_BY_US);
    return count;
}

void evhttp_tell_ends(struct evh_server *server, uint32_t end_target) { server->options.end_target = end_target; }

unsigned evhttp_connections(const struct evh_server *server) { return server->conn_count; }
