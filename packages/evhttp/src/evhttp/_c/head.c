/* The head of an answer. */
#include "internal.h"

#include <string.h>
#include <time.h>

struct reason {
    uint16_t status;
    const char *phrase;
};

/* RFC 9110 §15, RFC 6585, RFC 7725, RFC 8297, RFC 8470 */
static const struct reason reasons[] = {
    {100, "Continue"}, {101, "Switching Protocols"}, {103, "Early Hints"},
    {200, "OK"}, {201, "Created"}, {202, "Accepted"}, {203, "Non-Authoritative Information"}, {204, "No Content"},
    {205, "Reset Content"}, {206, "Partial Content"},
    {300, "Multiple Choices"}, {301, "Moved Permanently"}, {302, "Found"}, {303, "See Other"}, {304, "Not Modified"},
    {307, "Temporary Redirect"}, {308, "Permanent Redirect"},
    {400, "Bad Request"}, {401, "Unauthorized"}, {402, "Payment Required"}, {403, "Forbidden"}, {404, "Not Found"},
    {405, "Method Not Allowed"}, {406, "Not Acceptable"}, {407, "Proxy Authentication Required"}, {408, "Request Timeout"},
    {409, "Conflict"}, {410, "Gone"}, {411, "Length Required"}, {412, "Precondition Failed"}, {413, "Content Too Large"},
    {414, "URI Too Long"}, {415, "Unsupported Media Type"}, {416, "Range Not Satisfiable"}, {417, "Expectation Failed"},
    {418, "I'm a Teapot"}, {421, "Misdirected Request"}, {422, "Unprocessable Content"}, {423, "Locked"}, {425, "Too Early"},
    {426, "Upgrade Required"}, {428, "Precondition Required"}, {429, "Too Many Requests"}, {431, "Request Header Fields Too Large"},
    {451, "Unavailable For Legal Reasons"},
    {500, "Internal Server Error"}, {501, "Not Implemented"}, {502, "Bad Gateway"}, {503, "Service Unavailable"},
    {504, "Gateway Timeout"}, {505, "HTTP Version Not Supported"}, {507, "Insufficient Storage"}, {511, "Network Authentication Required"},
};

const char *evh_reason(unsigned status) {
    size_t low = 0, high = sizeof reasons / sizeof *reasons;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (reasons[middle].status == status)
            return reasons[middle].phrase;
        if (reasons[middle].status < status)
            low = middle + 1;
        else
            high = middle;
    }
    return ""; /* RFC 9112 §4: the phrase may be empty, the space before it may not */
}

static char *put(char *p, const char *text, size_t len) {
    memcpy(p, text, len);
    return p + len;
}
#define PUT(p, literal) put(p, literal, sizeof(literal) - 1)

static char *put_number(char *p, uint64_t n) {
    char digits[20];
    int i = sizeof digits;
    do
        digits[--i] = (char)('0' + n % 10);
    while (n /= 10);
    return put(p, digits + i, sizeof digits - (size_t)i);
}

static char *two(char *p, int n) {
    *p++ = (char)('0' + n / 10);
    *p++ = (char)('0' + n % 10);
    return p;
}

/* RFC 9110 §5.6.7 IMF-fixdate; not strftime, whose names follow the locale. */
static void format_date(char *p, time_t second) {
    static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct tm t;
    gmtime_r(&second, &t);
    p = put(p, days + 3 * t.tm_wday, 3);
    p = PUT(p, ", ");
    p = two(p, t.tm_mday);
    *p++ = ' ';
    p = put(p, months + 3 * t.tm_mon, 3);
    *p++ = ' ';
    p = two(p, (t.tm_year + 1900) / 100);
    p = two(p, t.tm_year % 100);
    *p++ = ' ';
    p = two(p, t.tm_hour);
    *p++ = ':';
    p = two(p, t.tm_min);
    *p++ = ':';
    p = two(p, t.tm_sec);
    p = PUT(p, " GMT");
    *p = 0;
}

static const char *date(struct evh_module *m) {
    uint64_t now = evh_ev->now_ms(m->loop);
    if (now - m->date_checked >= 50 || !m->date[0]) {
        m->date_checked = now;
        time_t second = time(NULL);
        if (second != m->date_second || !m->date[0]) {
            m->date_second = second;
            format_date(m->date, second);
            char *p = PUT(m->ok, "HTTP/1.1 200 OK\r\nDate: ");
            p = put(p, m->date, EVH_DATE_LEN);
            m->ok_len = (size_t)(PUT(p, "\r\n") - m->ok);
        }
    }
    return m->date;
}

static char *put_status_line(char *p, unsigned status) {
    p = PUT(p, "HTTP/1.1 ");
    p = put_number(p, status);
    *p++ = ' ';
    const char *phrase = evh_reason(status);
    p = put(p, phrase, strlen(phrase));
    return PUT(p, "\r\n");
}

size_t evh_info_write(char *into, unsigned status) { return (size_t)(put_status_line(into, status) - into); }

/* RFC 9110 §8.6: no Content-Length with 1xx and 204; in answers to HEAD and with 304 it tells what GET would have brought, which
 * a handler that answers 304 with nothing has not said. */
static int has_length(const struct evh_answer *a) {
    if (a->status == 205)
        return 1;
    if (a->step == EVH_HEAD_STEP && a->body_len >= EVH_LENGTH_UNTIL_CLOSE)
        return 0;
    return a->status != 204 && (a->status != 304 || a->body_len);
}

/* RFC 9112 §6.1: not with 1xx and 204, and 304 has no body that it could speak of; nor with 205, which has a length. */
static int is_chunked(const struct evh_answer *a) {
    return a->step == EVH_HEAD_STEP && a->body_len == EVH_LENGTH_CHUNKED && evh_has_body(a->status);
}

/* RFC 9110 §15.3.6: a 205 has no content, and says so, whatever was to come. */
static uint64_t length_of(const struct evh_answer *a) { return a->status == 205 ? 0 : a->body_len; }

size_t evh_head_write(struct evh_module *m, char *into, const struct evh_answer *a, int close, int say_keep_alive) {
    const char *now = date(m);
    char *p;
    if (a->status == 200 && !(a->arg & EVH_ANSWER_HAS_DATE)) {
        p = put(into, m->ok, m->ok_len);
    } else {
        p = put_status_line(into, a->status);
        if (!(a->arg & EVH_ANSWER_HAS_DATE)) {
            p = PUT(p, "Date: ");
            p = put(p, now, EVH_DATE_LEN);
            p = PUT(p, "\r\n");
        }
    }
    if (has_length(a)) {
        p = PUT(p, "Content-Length: ");
        p = put_number(p, length_of(a));
        p = PUT(p, "\r\n");
    } else if (is_chunked(a)) {
        p = PUT(p, "Transfer-Encoding: chunked\r\n");
    }
    unsigned type = a->status == 204 || a->status == 205 || a->status == 304 ? EVH_TYPE_NONE : a->arg >> 10 & 3;
    if (type == EVH_TYPE_TEXT)
        p = PUT(p, "Content-Type: text/plain; charset=utf-8\r\n");
    else if (type == EVH_TYPE_BINARY)
        p = PUT(p, "Content-Type: application/octet-stream\r\n");
    if (close)
        p = PUT(p, "Connection: close\r\n");
    else if (say_keep_alive)
        p = PUT(p, "Connection: keep-alive\r\n");
    return (size_t)(p - into);
}
