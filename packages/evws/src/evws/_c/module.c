#include "internal.h"
#include "kernels.h"

#include <errno.h>
#include <stdlib.h>

const struct ev_capi *evw_ev;
const struct net_capi *evw_net;
const struct evh_capi *evw_http;

uint64_t evws_link_loop(uint64_t evloop_capi) {
    const struct ev_capi *api = (const struct ev_capi *)(uintptr_t)evloop_capi;
    if (!EV_CAPI_COMPATIBLE(api))
        return EV_LINK_MISMATCH(EV_CAPI_MAJOR, EV_CAPI_MINOR, api);
    evw_ev = api;
    evw_kernels_select(NULL);
    return 0;
}

uint64_t evws_link_net(uint64_t evnet_capi) {
    const struct net_capi *api = (const struct net_capi *)(uintptr_t)evnet_capi;
    if (!EVNET_CAPI_COMPATIBLE(api))
        return EV_LINK_MISMATCH(EVNET_CAPI_MAJOR, EVNET_CAPI_MINOR, api);
    evw_net = api;
    return 0;
}

uint64_t evws_link_http(uint64_t evhttp_capi) {
    const struct evh_capi *api = (const struct evh_capi *)(uintptr_t)evhttp_capi;
    if (!EVHTTP_CAPI_COMPATIBLE(api))
        return EV_LINK_MISMATCH(EVHTTP_CAPI_MAJOR, EVHTTP_CAPI_MINOR, api);
    evw_http = api;
    return 0;
}

/* evnet has ended all streams by now, and so all connections. */
static void module_close(ev_loop *loop, struct ev_module *module) {
    (void)loop;
    free(module);
}

int evws_open(uint64_t address) {
    ev_loop *loop = (ev_loop *)(uintptr_t)address;
    if (evw_ev->module_get(loop, EV_MODULE_WS))
        return 0;
    struct evw_module *m = calloc(1, sizeof *m);
    if (!m)
        return -ENOMEM;
    m->module.op = evw_op;
    m->module.close = module_close;
    int rc = evw_ev->module_set(loop, EV_MODULE_WS, &m->module);
    if (rc < 0)
        free(m);
    return rc;
}

int evws_facts(uint64_t loop, uint64_t token, struct evw_facts *facts) {
    net_stream *s = evw_net->find((ev_loop *)(uintptr_t)loop, token, evw_guest.protocol);
    if (!s)
        return -1;
    const struct evw_conn *c = evw_conn_of(s);
    *facts = (struct evw_facts){evw_net->queued(s), c->dropped, c->latency_ns - 1};
    return 0;
}
