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
        a->family = 6;
        a->port = ntohs(in->sin6_port);
        memcpy(a->ip, &in->sin6_addr, 16);
    }
}
