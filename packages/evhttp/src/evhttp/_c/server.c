#include "internal.h"
#include "scan.h"

#include <errno.h>
#include <stdlib.h>

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

const char *evhttp_scan_select(const char *name) { return evh_scan_select(name); }

static void stop_listening(struct evh_server *server) {
    while (server->listeners) {
        struct evh_listener *l = server->listeners;
        server->listeners = l->next;
        evh_net->unlisten(l->listener);
        free(l);
    }
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
        free(server);
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

int evhttp_open(uint64_t loop, uint32_t target, uint32_t large_target, uint32_t event_target, const struct evh_limits *limits,
                const struct evh_timeouts *timeouts, uint32_t max_pipeline, struct evh_server **out) {
    if (max_pipeline < 1 || max_pipeline > EVH_PIPELINE_MOST)
        return -EINVAL;
    struct evh_module *m = module_of((ev_loop *)(uintptr_t)loop);
    struct evh_server *server = m ? calloc(1, sizeof *server) : NULL;
    if (!server)
        return -ENOMEM;
    server->module = m;
    server->limits = *limits;
    server->timeouts = *timeouts;
    server->target = target;
    server->large_target = large_target;
    server->event_target = event_target;
    server->max_pipeline = (uint16_t)max_pipeline;
    server->next = m->servers;
    m->servers = server;
    *out = server;
    return 0;
}

int evhttp_listen(struct evh_server *server, int fd) {
    struct evh_listener *l = malloc(sizeof *l);
    if (!l)
        return -ENOMEM;
    int rc = evh_net->listen(server->module->loop, fd, &evh_protocol, sizeof(struct evh_conn), evh_conn_accepted, server, &l->listener);
    if (rc < 0) {
        free(l);
        return rc;
    }
    l->next = server->listeners;
    server->listeners = l;
    return 0;
}

void evhttp_close(struct evh_server *server) {
    if (server->closed)
        return;
    server->closed = 1;
    stop_listening(server);
    if (!server->conn_count)
        evh_ev->emit(server->module->loop, server->event_target, 0, EVH_EVENT_EMPTY, 0);
    for (struct evh_conn *c = server->conns; c; c = c->next) {
        if (evh_unanswered(c) || c->body)
            c->last = 1;
        else if (!c->partial)
            evh_net->close(c->stream, NET_BY_US);
    }
}

unsigned evhttp_abort(struct evh_server *server) {
    unsigned count = server->conn_count;
    for (struct evh_conn *c = server->conns; c; c = c->next)
        evh_net->abort(c->stream, NET_BY_US);
    return count;
}

unsigned evhttp_connections(const struct evh_server *server) { return server->conn_count; }
