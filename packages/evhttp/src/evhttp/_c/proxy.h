/* The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt, of 2020/03/05): what a proxy says in front of a connection's own bytes about
 * the client for whom it has made it. No I/O, no memory of its own: the whole header is given again until it is complete, which is a packet as a rule. */
#ifndef EVH_PROXY_H
#define EVH_PROXY_H

#include "evnet.h"

enum {
    /* §2.1: "a 108-byte buffer is always enough", with its zero byte. */
    EVH_PROXY_TEXT_MOST = 107,
    /* The specification allows 64 KiB of extensions; senders are to fit the header in one segment. */
    EVH_PROXY_BINARY_MOST = 4096,
};

struct evh_proxied {
    struct net_address client;
    uint8_t is_told;   /* else the proxy speaks for itself, or does not know: the connection's own address counts */
    uint8_t is_secure; /* the client came by TLS, which the proxy has taken off */
    const char *reason; /* why it is refused */
};

enum { EVH_PROXY_MORE = 0, EVH_PROXY_BAD = -1 };
/* The header's length when it is complete and valid, EVH_PROXY_MORE while it may become so, EVH_PROXY_BAD as soon as it cannot. */
int evh_proxy_parse(const uint8_t *data, size_t len, struct evh_proxied *);

#endif
