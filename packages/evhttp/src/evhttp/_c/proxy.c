#include "proxy.h"

#include <arpa/inet.h>
#include <string.h>

static int bad(struct evh_proxied *p, const char *reason) {
    p->reason = reason;
    return EVH_PROXY_BAD;
}

/* An IPv4 client of an IPv6 socket is an IPv4 client, here as in evnet's addresses. */
static void set_v6(struct net_address *a, const uint8_t *ip) {
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (memcmp(ip, mapped, sizeof mapped) == 0) {
        a->family = 4;
        memcpy(a->ip, ip + 12, 4);
    } else {
        a->family = 6;
        memcpy(a->ip, ip, 16);
    }
}

/* -- version 1 -- */

struct text {
    const char *at, *end;
};

/* Cuts off what stands before the next space, or the rest. A second space in a row leaves an empty word, which nothing accepts. */
static struct text word(struct text *line) {
    const char *space = memchr(line->at, ' ', (size_t)(line->end - line->at));
    struct text w = {line->at, space ? space : line->end};
    line->at = space ? space + 1 : line->end;
    return w;
}

static int is_port(struct text w, uint16_t *port) {
    size_t len = (size_t)(w.end - w.at);
    unsigned value = 0;
    if (len < 1 || len > 5 || (len > 1 && *w.at == '0')) /* §2.1: leading zeroes must not appear */
        return 0;
    for (; w.at < w.end; w.at++) {
        if (*w.at < '0' || *w.at > '9')
            return 0;
        value = value * 10 + (unsigned)(*w.at - '0');
    }
    *port = (uint16_t)value;
    return value <= 65535;
}

static int is_address(struct text w, int family, uint8_t *ip) {
    char text[INET6_ADDRSTRLEN];
    size_t len = (size_t)(w.end - w.at);
    if (len < 1 || len >= sizeof text || memchr(w.at, 0, len))
        return 0;
    memcpy(text, w.at, len);
    text[len] = 0;
    /* POSIX leaves it open whether inet_pton takes leading zeroes in a dotted quad. */
    for (size_t i = 0; family == AF_INET && i + 1 < len; i++)
        if (text[i] == '0' && (i == 0 || text[i - 1] == '.') && text[i + 1] != '.')
            return 0;
    return inet_pton(family, text, ip) == 1;
}

/* "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443", without its CRLF */
static int parse_line(struct text line, struct evh_proxied *p) {
    word(&line); /* PROXY: compared already */
    struct text kind = word(&line);
    size_t kind_len = (size_t)(kind.end - kind.at);
    if (kind_len == 7 && memcmp(kind.at, "UNKNOWN", 7) == 0) /* §2.1: "anything presented before the CRLF" is ignored */
        return 1;
    int is_v6 = kind_len == 4 && memcmp(kind.at, "TCP6", 4) == 0;
    if (!is_v6 && !(kind_len == 4 && memcmp(kind.at, "TCP4", 4) == 0))
        return bad(p, "the PROXY line names no known protocol");
    int family = is_v6 ? AF_INET6 : AF_INET;
    uint8_t from[16], to[16];
    uint16_t from_port, to_port;
    if (!is_address(word(&line), family, from) || !is_address(word(&line), family, to))
        return bad(p, "an address of the PROXY line is malformed");
    if (!is_port(word(&line), &from_port))
        return bad(p, "a port of the PROXY line is malformed");
    struct text last = line; /* no space may follow it */
    if (!is_port(last, &to_port))
        return bad(p, "a port of the PROXY line is malformed");
    if (is_v6) {
        set_v6(&p->client, from);
    } else {
        p->client.family = 4;
        memcpy(p->client.ip, from, 4);
    }
    p->client.port = from_port;
    p->is_told = 1;
    return 1;
}

static int parse_text(const uint8_t *data, size_t len, struct evh_proxied *p) {
    size_t window = len < EVH_PROXY_TEXT_MOST ? len : EVH_PROXY_TEXT_MOST;
    const uint8_t *lf = memchr(data, '\n', window);
    const uint8_t *cr = memchr(data, '\r', window);
    if (cr && (lf ? lf != cr + 1 : cr + 1 != data + window))
        return bad(p, "a CR in the PROXY line is not followed by LF");
    if (!lf)
        return window == EVH_PROXY_TEXT_MOST ? bad(p, "the PROXY line is longer than 107 bytes") : EVH_PROXY_MORE;
    if (!cr)
        return bad(p, "the PROXY line ends without a CR");
    struct text line = {(const char *)data, (const char *)cr};
    return parse_line(line, p) < 0 ? EVH_PROXY_BAD : (int)(lf + 1 - data);
}

/* -- version 2 -- */

enum {
    FIXED = 16,
    LOCAL = 0x20, /* version and command */
    PROXIED = 0x21,
    UNSPECIFIED = 0x00, /* family and transport */
    TCP4 = 0x11,
    UDP4 = 0x12,
    TCP6 = 0x21,
    UDP6 = 0x22,
    UNIX_STREAM = 0x31,
    UNIX_DATAGRAM = 0x32,
    TLV_CRC32C = 0x03,
    TLV_SSL = 0x20,
    TLV_SSL_HEAD = 5,
    SSL_USED = 0x01,
};

static unsigned get16(const uint8_t *p) { return (unsigned)p[0] << 8 | p[1]; }

/* Of the whole header, with the four bytes at `hole` taken as zero (§2.2.3). A header is short, and few have one: bit by bit will do. */
static uint32_t crc32c(const uint8_t *data, size_t len, size_t hole) {
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < len; i++) {
        crc ^= i - hole < 4 ? 0 : data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    return ~crc;
}

static int check_crc(const uint8_t *header, size_t header_len, size_t at, size_t len) {
    if (len != 4)
        return 0;
    const uint8_t *p = header + at;
    uint32_t want = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    return crc32c(header, header_len, at) == want;
}

static int parse_extensions(const uint8_t *header, size_t at, size_t len, struct evh_proxied *p) {
    while (at < len) {
        if (len - at < 3 || get16(header + at + 1) > len - at - 3)
            return bad(p, "an extension of the PROXY header is cut off");
        size_t size = get16(header + at + 1);
        unsigned type = header[at];
        at += 3;
        if (type == TLV_CRC32C && !check_crc(header, len, at, size))
            return bad(p, "the PROXY header's checksum does not match");
        if (type == TLV_SSL && size < TLV_SSL_HEAD)
            return bad(p, "an extension of the PROXY header is cut off");
        if (type == TLV_SSL && header[at] & SSL_USED)
            p->is_secure = 1;
        at += size;
    }
    return 1;
}

/* Fills in the client; returns the length of the addresses, or EVH_PROXY_BAD. */
static int parse_addresses(unsigned kind, const uint8_t *at, size_t len, struct evh_proxied *p) {
    int size;
    switch (kind) {
    case UNSPECIFIED: /* nobody can say where extensions would begin: they are not looked at */
        return (int)len;
    case TCP4:
        size = 12;
        break;
    case TCP6:
        size = 36;
        break;
    case UNIX_STREAM:
        size = 216;
        break;
    case UDP4:
    case UDP6:
    case UNIX_DATAGRAM:
        return bad(p, "the PROXY header speaks of datagrams");
    default:
        return bad(p, "the PROXY header names no known protocol");
    }
    if (len < (size_t)size)
        return bad(p, "the PROXY header is too short for its addresses");
    p->is_told = 1;
    if (kind == TCP4) {
        p->client.family = 4;
        memcpy(p->client.ip, at, 4);
        p->client.port = (uint16_t)get16(at + 8);
    } else if (kind == TCP6) {
        set_v6(&p->client, at);
        p->client.port = (uint16_t)get16(at + 32);
    }
    return size;
}

static int parse_binary(const uint8_t *data, size_t len, struct evh_proxied *p) {
    /* As soon as it is there: what can be no header is not waited for. */
    if (len > 12 && data[12] != LOCAL && data[12] != PROXIED)
        return bad(p, data[12] >> 4 == 2 ? "the PROXY header's command is unknown" : "the PROXY header's version is unknown");
    if (len < FIXED)
        return EVH_PROXY_MORE;
    size_t rest = get16(data + 14), whole = FIXED + rest;
    if (whole > EVH_PROXY_BINARY_MOST)
        return bad(p, "the PROXY header is longer than 4096 bytes");
    if (len < whole)
        return EVH_PROXY_MORE;
    if (data[12] == LOCAL) /* §2.2: the proxy's own, a health check for instance; what follows is skipped */
        return (int)whole;
    int addresses = parse_addresses(data[13], data + FIXED, rest, p);
    if (addresses < 0 || parse_extensions(data, FIXED + (size_t)addresses, whole, p) < 0)
        return EVH_PROXY_BAD;
    return (int)whole;
}

int evh_proxy_parse(const uint8_t *data, size_t len, struct evh_proxied *p) {
    static const char text[] = "PROXY ", binary[] = "\r\n\r\n\0\r\nQUIT\n";
    memset(p, 0, sizeof *p);
    size_t text_len = len < sizeof text - 1 ? len : sizeof text - 1;
    size_t binary_len = len < sizeof binary - 1 ? len : sizeof binary - 1;
    if (memcmp(data, text, text_len) == 0)
        return len > text_len ? parse_text(data, len, p) : EVH_PROXY_MORE;
    if (memcmp(data, binary, binary_len) == 0)
        return parse_binary(data, len, p);
    return bad(p, "the connection does not begin with a PROXY header");
}
