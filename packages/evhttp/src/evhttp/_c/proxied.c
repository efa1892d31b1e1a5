#include "internal.h"
#include "proxy.h"

#include <string.h>

static int is_in(const struct net_address *a, const struct evh_network *n) {
    if (a->family != n->family)
        return 0;
    unsigned whole = n->prefix / 8, bits = n->prefix % 8;
    return memcmp(a->ip, n->ip, whole) == 0 && (!bits || (a->ip[whole] ^ n->ip[whole]) >> (8 - bits) == 0);
}

static int is_trusted(const struct evh_server *server, const struct net_address *a) {
    for (uint32_t i = 0; i < server->options.network_count; i++)
        if (is_in(a, &server->options.networks[i]))
            return 1;
    return 0;
}

void evh_conn_judge(struct evh_conn *c) {
    c->marks = (uint16_t)((c->marks & ~EVH_INFO_TRUSTED) | (is_trusted(c->server, &c->client) ? EVH_INFO_TRUSTED : 0));
}

static void refuse(net_stream *s, const char *reason) {
    evh_conn_of(s)->refused = 400;
    evh_conn_tell_refused(s, 400, reason);
    evh_net->abort(s, NET_BY_US);
}

void evh_proxied_accepted(net_listener *listener, net_stream *s) {
    evh_conn_accepted(listener, s);
    evh_proxied_begun(s);
}

void evh_proxied_begun(net_stream *s) {
    if (!(evh_conn_of(s)->marks & EVH_INFO_TRUSTED)) /* who is no proxy of ours could say what it likes */
        refuse(s, "a client that is not trusted came to a listener for the PROXY protocol");
}

/* The deadline runs since the connection began, and goes on to the end of the first head. */
static size_t on_bytes(net_stream *s, const uint8_t *data, size_t len) {
    struct evh_conn *c = evh_conn_of(s);
    struct evh_proxied proxied;
    int used = evh_proxy_parse(data, len, &proxied);
    if (used == EVH_PROXY_MORE)
        return 0;
    if (used == EVH_PROXY_BAD) {
        refuse(s, proxied.reason);
        return len;
    }
    if (proxied.is_told) {
        c->client = proxied.client;
        evh_conn_judge(c); /* it may be a proxy, too */
    }
    if (proxied.is_secure)
        c->marks |= EVH_INFO_SECURE;
    evh_net->swap(s, &evh_protocol);
    return (size_t)used;
}

static void on_eof(net_stream *s) { evh_net->close(s, NET_BY_PEER); }
static void on_timeout(net_stream *s) { evh_net->abort(s, NET_TIMED_OUT); }
static void on_drained(net_stream *s) { (void)s; }

const struct net_protocol evh_proxied_protocol = {
    .name = "http behind the PROXY protocol",
    .on_bytes = on_bytes,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_timeout = on_timeout,
    .on_close = evh_conn_ended,
};
