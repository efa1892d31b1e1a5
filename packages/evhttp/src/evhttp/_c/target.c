/* Methods, request targets that are not a plain origin-form, and the host[:port] grammar. */
#include <string.h>

#include "fields.h"
#include "scan.h"

/* -- methods ------------------------------------------------------------------------------------------------------------- */

/* The first nine are in the order of enum evh_method. Then the IANA registry (without PRI, which is HTTP/2's preface), and the
 * methods in wide use that are not in it (caches' PURGE, UPnP's three and M-SEARCH, QUERY of its draft). */
static const char *const methods[] = {
    "GET",         "HEAD",     "POST",            "PUT",       "DELETE",          "OPTIONS",    "PATCH",      "CONNECT",
    "TRACE",       "ACL",      "BASELINE-CONTROL", "BIND",     "CHECKIN",         "CHECKOUT",   "COPY",       "LABEL",
    "LINK",        "LOCK",     "MERGE",           "MKACTIVITY", "MKCALENDAR",     "MKCOL",      "MKREDIRECTREF", "MKWORKSPACE",
    "MOVE",        "ORDERPATCH", "PROPFIND",      "PROPPATCH", "REBIND",          "REPORT",     "SEARCH",     "UNBIND",
    "UNCHECKOUT",  "UNLINK",   "UNLOCK",          "UPDATE",    "UPDATEREDIRECTREF", "VERSION-CONTROL", "QUERY", "PURGE",
    "M-SEARCH",    "NOTIFY",   "SUBSCRIBE",       "UNSUBSCRIBE",
};

int evh__method(struct evh_parser *ps, const struct evh_limits *limits, const uint8_t *name, size_t len)
{
    size_t n = sizeof methods / sizeof *methods;
    for (size_t i = 0; i < n; i++) {
        if ((uint8_t)methods[i][0] == name[0] && strlen(methods[i]) == len && memcmp(methods[i], name, len) == 0) {
            ps->method = (uint8_t)(i < EVH_OTHER ? i : EVH_OTHER);
            return EVH_MORE;
        }
    }
    ps->method = EVH_OTHER;
    if (!limits->any_method)
        return evh__bad(ps, 501, "unknown method");
    for (size_t i = 0; i < len; i++)
        if (name[i] >= 'a' && name[i] <= 'z')
            return evh__bad(ps, 501, "a method in small letters");
    return EVH_MORE;
}

/* -- host[:port] ------------------------------------------------------------------------------------------------------------ */

/* RFC 3986 3.2.2 IPv6address: eight groups of one to four hex digits, the last two perhaps as an IPv4 address, one run of groups
 * perhaps as "::". */
static int ipv6(const uint8_t *p, const uint8_t *end)
{
    int groups = 0, gap = 0;
    if (end - p >= 2 && p[0] == ':' && p[1] == ':') {
        gap = 1;
        p += 2;
    }
    while (p < end) {
        const uint8_t *from = p;
        while (p < end && (evh_class[*p] & EVH_C_HEX))
            p++;
        if (p < end && *p == '.') { /* the rest is IPv4 */
            groups += 2;
            for (int octet = 0; octet < 4; octet++) {
                unsigned v = 0, digits = 0;
                if (octet > 0 && (from == end || *from++ != '.'))
                    return 0;
                for (; from < end && (evh_class[*from] & EVH_C_DIGIT); from++, digits++)
                    v = v > 255 ? v : v * 10 + (unsigned)(*from - '0');
                if (digits == 0 || digits > 3 || v > 255 || (digits > 1 && from[-(int)digits] == '0'))
                    return 0;
            }
            if (from != end)
                return 0;
            p = end;
            break;
        }
        if (p == from || p - from > 4)
            return 0;
        groups++;
        if (p == end)
            break;
        if (*p++ != ':')
            return 0;
        if (p < end && *p == ':') {
            if (gap++)
                return 0;
            p++;
        } else if (p == end) {
            return 0; /* a single colon at the end */
        }
    }
    return gap ? groups <= 7 : groups == 8;
}

/* IPvFuture = "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" ) */
static int ip_future(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *from = ++p;
    while (p < end && (evh_class[*p] & EVH_C_HEX))
        p++;
    if (p == from || p == end || *p++ != '.' || p == end)
        return 0;
    while (p < end && ((evh_class[*p] & EVH_C_REGNAME) || *p == ':'))
        p++;
    return p == end;
}

/* `also` is one byte allowed besides reg-name's. */
static const uint8_t *reg_name(const uint8_t *p, const uint8_t *end, uint8_t also)
{
    for (;; p++) {
        while (p < end && (evh_class[*p] & EVH_C_REGNAME))
            p++;
        if (p == end)
            break;
        if (*p == also)
            continue;
        if (*p != '%' || end - p < 3 || !(evh_class[p[1]] & evh_class[p[2]] & EVH_C_HEX))
            break;
        p += 2;
    }
    return p;
}

int evh__authority(const uint8_t *p, size_t n)
{
    const uint8_t *end = p + n, *from = p;
    unsigned port = 0;
    if (n != 0 && *p == '[') {
        const uint8_t *close = memchr(p, ']', n);
        if (close == NULL || !((p[1] | 0x20) == 'v' ? ip_future(p + 1, close) : ipv6(p + 1, close)))
            return 0;
        p = close + 1;
    } else {
        p = reg_name(p, end, '-');
        if (p == from)
            return 0;
    }
    if (p == end)
        return EVH_AUTH_OK;
    if (*p++ != ':')
        return 0;
    if (p == end)
        return EVH_AUTH_OK; /* RFC 3986 3.2.3: port = *DIGIT */
    for (; p < end; p++) {
        if (!(evh_class[*p] & EVH_C_DIGIT))
            return 0;
        port = port * 10 + (unsigned)(*p - '0');
        if (port > 65535)
            return 0;
    }
    return EVH_AUTH_OK | EVH_AUTH_PORT;
}

/* -- targets ------------------------------------------------------------------------------------------------------------------- */

/* absolute-form behind "http://": [ userinfo "@" ] host [ ":" port ] path */
static int absolute(struct evh_parser *ps, const uint8_t *buf, uint32_t at, uint32_t query)
{
    const uint8_t *from = buf + at, *stop = buf + query, *end = from, *sign;
    while (end < stop && *end != '/')
        end++;
    for (sign = end; sign > from && sign[-1] != '@'; sign--)
        ;
    if (sign > from && reg_name(from, sign - 1, ':') != sign - 1)
        return evh__bad(ps, 400, "bad userinfo in the request target");
    /* RFC 9110 4.2.1: "A recipient that processes such a URI reference [with an empty host] MUST reject it as invalid." */
    if (!evh__authority(sign, (size_t)(end - sign)))
        return evh__bad(ps, 400, "the authority of the request target is not host[:port]");
    ps->flags |= EVH_ABSOLUTE;
    ps->host = (uint32_t)(sign - buf);
    ps->host_len = (uint32_t)(end - sign);
    ps->path = (uint32_t)(end - buf);
    ps->path_len = query - ps->path;
    return EVH_MORE;
}

static int letter(uint8_t c)
{
    return (uint8_t)((c | 0x20) - 'a') < 26;
}

int evh__target(struct evh_parser *ps, const uint8_t *buf, uint32_t query)
{
    const uint8_t *t = buf + ps->target;
    uint32_t n = ps->target_len, i = 0;

    if (ps->method == EVH_CONNECT) {
        /* RFC 9110 9.3.6: "A server MUST reject a CONNECT request that targets an empty or invalid port number". */
        if (evh__authority(t, n) != (EVH_AUTH_OK | EVH_AUTH_PORT))
            return evh__bad(ps, 400, "the target of CONNECT is not host:port");
        ps->flags |= EVH_AUTHORITY_FORM;
        ps->host = ps->path = ps->target;
        ps->host_len = n;
        ps->path_len = 0;
        return EVH_MORE;
    }
    if (n == 1 && t[0] == '*') {
        /* RFC 9112 3.2.4: "The asterisk-form of request-target is only used for a server-wide OPTIONS request". */
        if (ps->method != EVH_OPTIONS)
            return evh__bad(ps, 400, "the target * is for OPTIONS only");
        ps->flags |= EVH_ASTERISK;
        ps->path = ps->target;
        ps->path_len = 1;
        return EVH_MORE;
    }
    while (i < n && (letter(t[i]) || (evh_class[t[i]] & EVH_C_DIGIT) || t[i] == '+' || t[i] == '-' || t[i] == '.'))
        i++;
    if (i < n && t[i] == ':' && letter(t[0])) { /* RFC 3986 3.1: scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." ) */
        int slashes = n - i >= 3 && t[i + 1] == '/' && t[i + 2] == '/';
        if (evh__same(t, i, "http") || evh__same(t, i, "https")) {
            if (!slashes)
                return evh__bad(ps, 400, "absolute-form without //");
            return absolute(ps, buf, ps->target + i + 3, query);
        }
        /* RFC 9110 15.5.20: 421 is for a server that is "unable or unwilling to produce an authoritative response for the target
         * URI": it is a URI, but of a scheme that is not ours. */
        return evh__bad(ps, 421, "a target of a scheme other than http and https");
    }
    return evh__bad(ps, EVH_STATUS_RELATIVE_TARGET, "the request target is in none of the four forms");
}
