/* The load client's command line and the requests it can send. */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONNECTIONS = 60000, MAX_PIPELINE = 256, MAX_SECONDS = 600, REQUEST_LIMIT = 2048 };

struct options {
    struct sockaddr_in address;
    const char *host; /* as given, for the Host field */
    const char *path;
    const char *expect;
    unsigned connections, pipeline;
    double seconds, warmup, timeout, rate;
    bool close, browser, idle;
};

static const char usage_text[] =
    "usage: load HOST:PORT [options]\n"
    "  --path PATH          request target (/)\n"
    "  --connections N      connections at a time (64)\n"
    "  --seconds S          measure for this long (4); with --idle, hold no longer than this\n"
    "  --warmup S           load without measuring before that (1)\n"
    "  --pipeline N         requests sent together on each connection (1)\n"
    "  --close              one request per connection, with Connection: close\n"
    "  --browser            a browser's GET: 12 header fields\n"
    "  --rate N             N requests/s in all, latency from the time at which each was due\n"
    "  --idle N             open N connections, one request each, hold them until stdin ends\n"
    "  --expect TEXT        the body that every answer must have\n"
    "  --timeout S          an answer that takes longer is an error (2)\n";

_Noreturn static inline void usage(const char *complaint, const char *what)
{
    fprintf(stderr, "load: %s%s%s\n%s", complaint, *what ? ": " : "", what, usage_text);
    exit(2);
}

static inline double option_number(const char *name, const char *text, double low, double high)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= low && value <= high)) {
        char complaint[128];
        snprintf(complaint, sizeof complaint, "--%s must be a number from %g to %g", name, low, high);
        usage(complaint, text);
    }
    return value;
}

static inline void option_address(struct options *o, const char *text)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host)
        usage("expected HOST:PORT", text);
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    o->address.sin_family = AF_INET;
    o->address.sin_port = htons((uint16_t)option_number("port", colon + 1, 1, 65535));
    if (inet_pton(AF_INET, host, &o->address.sin_addr) != 1)
        usage("HOST must be an IPv4 address", text);
    o->host = text;
}

static inline void options_parse(struct options *o, int argc, char **argv)
{
    static const struct option names[] = {
        {"path", 1, NULL, 'p'},   {"connections", 1, NULL, 'c'}, {"seconds", 1, NULL, 's'}, {"warmup", 1, NULL, 'w'},
        {"pipeline", 1, NULL, 'n'}, {"close", 0, NULL, 'x'},     {"browser", 0, NULL, 'b'}, {"rate", 1, NULL, 'r'},
        {"idle", 1, NULL, 'i'},   {"expect", 1, NULL, 'e'},      {"timeout", 1, NULL, 't'}, {NULL, 0, NULL, 0},
    };
    *o = (struct options){.path = "/", .connections = 64, .pipeline = 1, .seconds = 4, .warmup = 1, .timeout = 2};
    for (int letter; (letter = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (letter) {
        case 'p': o->path = optarg; break;
        case 'c': o->connections = (unsigned)option_number("connections", optarg, 1, MAX_CONNECTIONS); break;
        case 's': o->seconds = option_number("seconds", optarg, 0.01, MAX_SECONDS); break;
        case 'w': o->warmup = option_number("warmup", optarg, 0, MAX_SECONDS); break;
        case 'n': o->pipeline = (unsigned)option_number("pipeline", optarg, 1, MAX_PIPELINE); break;
        case 'x': o->close = true; break;
        case 'b': o->browser = true; break;
        case 'r': o->rate = option_number("rate", optarg, 1, 1e7); break;
        case 'i': o->connections = (unsigned)option_number("idle", optarg, 1, MAX_CONNECTIONS); o->idle = true; break;
        case 'e': o->expect = optarg; break;
        case 't': o->timeout = option_number("timeout", optarg, 0.05, 60); break;
        default: usage("bad option", "");
        }
    }
    if (optind != argc - 1)
        usage("expected one HOST:PORT", "");
    if (o->pipeline > 1 && (o->close || o->rate > 0 || o->idle))
        usage("--pipeline goes with none of --close, --rate and --idle", "");
    if (o->close && (o->rate > 0 || o->idle))
        usage("--close goes with neither --rate nor --idle", "");
    option_address(o, argv[optind]);
}

/* The same bytes for every server: what Chromium sends for a page it has a cookie for, about 700 of them. */
static inline size_t options_request(const struct options *o, char *out)
{
    const char *connection = o->close ? "close" : "keep-alive";
    int size;
    if (o->browser)
        size = snprintf(out, REQUEST_LIMIT,
                        "GET %s HTTP/1.1\r\n"
                        "Host: %s\r\n"
                        "Connection: %s\r\n"
                        "sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n"
                        "sec-ch-ua-mobile: ?0\r\n"
                        "sec-ch-ua-platform: \"Linux\"\r\n"
                        "Upgrade-Insecure-Requests: 1\r\n"
                        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
                        "Chrome/142.0.0.0 Safari/537.36\r\n"
                        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
                        "*/*;q=0.8\r\n"
                        "Sec-Fetch-Mode: navigate\r\n"
                        "Accept-Encoding: gzip, deflate, br, zstd\r\n"
                        "Accept-Language: en-GB,en;q=0.9,de;q=0.8,fr;q=0.7\r\n"
                        "Cookie: session=6f1d0c5e9b7a4f3c8e2d1a0b9c8d7e6f; theme=dark; consent=2026-01-01; "
                        "visits=17; basket=b3f0c2d4-7a61-4e0f-9d35-2c8e1f6a7b90; region=eu-west-1\r\n"
                        "\r\n",
                        o->path, o->host, connection);
    else
        size = snprintf(out, REQUEST_LIMIT, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", o->path, o->host,
                        o->close ? "Connection: close\r\n" : "");
    if (size >= REQUEST_LIMIT)
        usage("--path is too long", "");
    return (size_t)size;
}

#endif
