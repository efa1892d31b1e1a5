#include "udp.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

_Static_assert(NET_PACKED_MOST >= (int)NET_PACKED_IP, "the largest");

static size_t pack_ip(uint8_t *out, uint8_t family, uint16_t port, uint32_t flow, uint32_t scope, const void *ip, size_t len) {
    memset(out, 0, NET_PACKED_IP);
    out[0] = family;
    memcpy(out + 2, &port, sizeof port);
    memcpy(out + 4, &flow, sizeof flow);
    memcpy(out + 8, &scope, sizeof scope);
    memcpy(out + 12, ip, len);
    return NET_PACKED_IP;
}

size_t net__address_pack(uint8_t *out, const void *name, socklen_t len) {
    sa_family_t family = AF_UNSPEC;
    if (len >= offsetof(struct sockaddr, sa_data))
        family = ((const struct sockaddr *)name)->sa_family;
    if (family == AF_INET && len >= sizeof(struct sockaddr_in)) {
        const struct sockaddr_in *in = name;
        return pack_ip(out, 4, ntohs(in->sin_port), 0, 0, &in->sin_addr, 4);
    }
    if (family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
        const struct sockaddr_in6 *in = name;
        return pack_ip(out, 6, ntohs(in->sin6_port), ntohl(in->sin6_flowinfo), in->sin6_scope_id, &in->sin6_addr, 16);
    }
    size_t start = offsetof(struct sockaddr_un, sun_path);
    uint16_t path_len = 0;
    if (family == AF_UNIX && len > start)
        path_len = (uint16_t)(len < sizeof(struct sockaddr_un) ? len - start : sizeof(struct sockaddr_un) - start);
    memset(out, 0, NET_PACKED_UNIX);
    memcpy(out + 2, &path_len, sizeof path_len);
    if (path_len)
        memcpy(out + NET_PACKED_UNIX, ((const struct sockaddr_un *)name)->sun_path, path_len);
    return NET_PACKED_UNIX + path_len;
}

/* Whole structures are zeroed first: some systems have a length field in them, which sendmsg sets by itself. */
socklen_t net__address_unpack(struct sockaddr_storage *to, int family, const uint8_t *packed, size_t len) {
    uint16_t port;
    uint32_t flow;
    if (family == AF_UNIX) {
        struct sockaddr_un *un = (struct sockaddr_un *)to;
        if (len <= NET_PACKED_UNIX || len - NET_PACKED_UNIX > sizeof un->sun_path || packed[0] != 0)
            return 0;
        memset(un, 0, sizeof *un);
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, packed + NET_PACKED_UNIX, len - NET_PACKED_UNIX);
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len - NET_PACKED_UNIX);
    }
    if (len != NET_PACKED_IP || packed[0] != (family == AF_INET6 ? 6 : 4))
        return 0;
    memcpy(&port, packed + 2, sizeof port);
    if (family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)to;
        memset(in, 0, sizeof *in);
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        memcpy(&in->sin_addr, packed + 12, 4);
        return sizeof *in;
    }
    struct sockaddr_in6 *in = (struct sockaddr_in6 *)to;
    memset(in, 0, sizeof *in);
    in->sin6_family = AF_INET6;
    in->sin6_port = htons(port);
    memcpy(&flow, packed + 4, sizeof flow);
    in->sin6_flowinfo = htonl(flow);
    memcpy(&in->sin6_scope_id, packed + 8, sizeof in->sin6_scope_id);
    memcpy(&in->sin6_addr, packed + 12, 16);
    return sizeof *in;
}
