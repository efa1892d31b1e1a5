#include "sys.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

void net__set_address(struct net_address *a, const struct sockaddr_storage *from) {
    memset(a, 0, sizeof *a);
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)from;
        a->family = 4;
        a->port = ntohs(in->sin_port);
        memcpy(a->ip, &in->sin_addr, 4);
    } else if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)from;
        a->port = ntohs(in->sin6_port);
        /* RFC 4291 §2.5.5.2: what an IPv6 socket for both families calls ::ffff:192.0.2.1 is the IPv4 node 192.0.2.1, and logs, limits
         * and allow lists shall not have to know by which kind of socket it came. */
        if (IN6_IS_ADDR_V4MAPPED(&in->sin6_addr)) {
            a->family = 4;
            memcpy(a->ip, in->sin6_addr.s6_addr + 12, 4);
        } else {
            a->family = 6;
            memcpy(a->ip, &in->sin6_addr, 16);
        }
    }
}
