/* The loop of the request head parser: a template, included by parser.c once for each scanning implementation.
 *
 * Before the #include: EVH_RUN (the function's name), EVH_RUN_ATTR, EVH_PATH, EVH_TARGET, EVH_TOKEN, EVH_VALUE (kernels).
 *
 * Rules of the machine (states in parser.c):
 *  - A state is entered with p on the first byte that it has not seen. It either advances, or suspends with p as ps->pos, or fails.
 *    Bytes before ps->pos are never scanned again.
 *  - Each byte is judged alone and in order, so that the outcome does not depend on how the input was cut.
 *  - A limit is a window: scanning stops at its end, and a state that still wants a byte there fails instead of suspending.
 */
EVH_RUN_ATTR static int EVH_RUN(struct evh_parser *ps, const struct evh_limits *limits, const uint8_t *buf, size_t len)
{
    const uint8_t *p = buf + ps->pos, *end = buf + len, *wend;
    struct evh_field *f = &ps->fields[ps->nfields];
    uint32_t most = limits->max_headers < EVH_MAX_FIELDS ? limits->max_headers : EVH_MAX_FIELDS;
    uint32_t query;

#define SUSPEND(s) return ps->state = (s), ps->pos = (uint32_t)(p - buf), EVH_MORE
#define FAIL(code, why) return ps->pos = (uint32_t)(p - buf), evh__bad(ps, (code), (why))
#define LINE_MORE(s) \
    do { \
        if ((size_t)(p - buf) > (size_t)ps->start + limits->max_request_line) \
            FAIL(414, "request line is over its limit"); \
        SUSPEND(s); \
    } while (0)
#define SECTION_MORE(s) \
    do { \
        if ((size_t)(p - buf) - ps->line >= limits->max_header_section) \
            FAIL(431, "header section is over its limit"); \
        SUSPEND(s); \
    } while (0)
/* The request line may reach `max` bytes and one more, which has to be the CR. */
#define LINE_WINDOW() window(buf, ps->start, (size_t)limits->max_request_line + 1, end)
#define SECTION_WINDOW() window(buf, ps->line, limits->max_header_section, end)

    if (ps->state >= S_FIELD) {
        wend = SECTION_WINDOW();
    } else {
        wend = LINE_WINDOW();
    }
    query = ps->path; /* in S_QUERY: where the '?' stands */
    switch (ps->state) {
    case S_START: goto start;
    case S_START_LF: goto start_lf;
    case S_METHOD: goto method;
    case S_PATH: goto path;
    case S_QUERY: goto query;
    case S_VERSION: goto version;
    case S_LINE_LF: goto line_lf;
    case S_FIELD: goto field;
    case S_NAME: goto name;
    case S_OWS: goto ows;
    case S_VALUE: goto value;
    case S_VALUE_LF: goto value_lf;
    case S_END_LF: goto end_lf;
    case S_DONE: return EVH_DONE;
    default: return EVH_BAD;
    }

start:
    /* RFC 9112 2.2: "a server that is expecting to receive and parse a request-line SHOULD ignore at least one empty line (CRLF)
     * received prior to the request-line". */
    if (p == end)
        SUSPEND(S_START);
    if (*p == '\r') {
        if (p - buf >= MAX_BLANK)
            FAIL(400, "too many blank lines before the request line");
        p++;
    start_lf:
        if (p == end)
            SUSPEND(S_START_LF);
        if (*p != '\n')
            FAIL(400, "CR without LF before the request line");
        p++;
        goto start;
    }
    ps->start = (uint32_t)(p - buf);
    wend = LINE_WINDOW();
    if (wend - p >= 8) {
        uint32_t head = load32(p);
        if (head == load32((const uint8_t *)"GET ")) {
            ps->method = EVH_GET;
            ps->method_len = 3;
            p += 4;
            goto target;
        }
        if (head == load32((const uint8_t *)"POST") && p[4] == ' ') {
            ps->method = EVH_POST;
            ps->method_len = 4;
            p += 5;
            goto target;
        }
    }

method:
    for (;; p++) {
        uint32_t n = (uint32_t)(p - buf) - ps->start;
        if (p == wend)
            LINE_MORE(S_METHOD);
        if (*p == ' ' && n != 0) {
            ps->method_len = n;
            break;
        }
        if (!(evh_class[*p] & EVH_C_TOKEN))
            FAIL(400, n == 0 ? "the request does not begin with a method" : "the method is not a token");
        /* RFC 9112 3: "A server that receives a method longer than any that it implements SHOULD respond with a 501". */
        if (n == MAX_METHOD)
            FAIL(501, "the method is longer than any known one");
    }
    if (evh__method(ps, limits, buf + ps->start, ps->method_len) == EVH_BAD) {
        ps->pos = (uint32_t)(p - buf);
        return EVH_BAD;
    }
    p++;

target:
    ps->target = (uint32_t)(p - buf);
path:
    p = EVH_PATH(buf, p, wend);
    if (p == wend)
        LINE_MORE(S_PATH);
    query = (uint32_t)(p - buf);
    if (*p == '?') {
        ps->path = query;
        p++;
    query:
        p = EVH_TARGET(buf, p, wend);
        if (p == wend)
            LINE_MORE(S_QUERY);
    }
    if (*p != ' ')
        FAIL(400, *p == '\r' || *p == '\n' ? "the request line has no version" : "a byte that no request target may hold");
    ps->target_len = (uint32_t)(p - buf) - ps->target;
    if (ps->target_len == 0)
        FAIL(400, "empty request target");
    if (buf[ps->target] == '/' && ps->method != EVH_CONNECT) {
        ps->path = ps->target;
        ps->path_len = query - ps->target;
    } else if (evh__target(ps, buf, query) == EVH_BAD) {
        ps->pos = (uint32_t)(p - buf);
        return EVH_BAD;
    }
    p++;

    ps->line = (uint32_t)(p - buf);
    if (wend - p >= 9 && end - p >= 10 && load64(p) == load64((const uint8_t *)"HTTP/1.1") && p[8] == '\r' && p[9] == '\n') {
        ps->version = 11;
        p += 10;
        goto section;
    }
version:
    for (;; p++) {
        uint32_t i = (uint32_t)(p - buf) - ps->line;
        if (p == wend)
            LINE_MORE(S_VERSION);
        if (i == 8)
            break;
        if (i == 5 || i == 7 ? !(evh_class[*p] & EVH_C_DIGIT) : *p != (uint8_t)"HTTP/1.1"[i])
            FAIL(400, "the version is not HTTP/x.y");
        if (i == 7) {
            if (p[-2] != '1' || (*p != '0' && *p != '1'))
                FAIL(505, "a version other than HTTP/1.0 and HTTP/1.1");
            ps->version = *p == '1' ? 11 : 10;
        }
    }
    if (*p != '\r')
        FAIL(400, *p == '\n' ? "LF without CR behind the request line" : "a byte between the version and CRLF");
    p++;
line_lf:
    if (p == end)
        SUSPEND(S_LINE_LF);
    if (*p != '\n')
        FAIL(400, "CR without LF behind the request line");
    p++;

section:
    ps->line = (uint32_t)(p - buf);
    wend = SECTION_WINDOW();

field:
    if (p == wend)
        SECTION_MORE(S_FIELD);
    if (*p == '\r')
        goto end_cr;
    if (ps->nfields == most)
        FAIL(431, "more header fields than the limit");
    f->name = (uint32_t)(p - buf);
name:
    p = EVH_TOKEN(buf, p, wend);
    if (p == wend)
        SECTION_MORE(S_NAME);
    f->name_len = (uint32_t)(p - buf) - f->name;
    if (*p != ':' || f->name_len == 0)
        FAIL(400, name_error(*p, f->name_len));
    p++;
ows:
    while (p < wend && (*p == ' ' || *p == '\t'))
        p++;
    if (p == wend)
        SECTION_MORE(S_OWS);
    f->value = (uint32_t)(p - buf);
value:
    p = EVH_VALUE(buf, p, wend);
    if (p == wend)
        SECTION_MORE(S_VALUE);
    if (*p != '\r')
        FAIL(400, *p == '\n' ? "LF without CR behind a header field" : "a control byte in a field value");
    {
        const uint8_t *last = p, *first = buf + f->value;
        while (last > first && (last[-1] == ' ' || last[-1] == '\t'))
            last--;
        f->value_len = (uint32_t)(last - first);
    }
    p++;
value_lf:
    if (p == wend)
        SECTION_MORE(S_VALUE_LF);
    if (*p != '\n')
        FAIL(400, "CR without LF in a header field");
    p++;
    if (f->name_len < 32 && (1u << f->name_len & EVH_KNOWN_LENGTHS) && evh__field(ps, limits, buf, f) == EVH_BAD) {
        ps->pos = (uint32_t)(p - buf);
        return EVH_BAD;
    }
    f++;
    ps->nfields++;
    goto field;

end_cr:
    p++;
end_lf:
    if (p == wend)
        SECTION_MORE(S_END_LF);
    if (*p != '\n')
        FAIL(400, "CR without LF at the end of the header section");
    p++;
    ps->pos = ps->head_len = (uint32_t)(p - buf);
    ps->state = S_DONE;
    return evh__head_done(ps);
}

#undef SUSPEND
#undef FAIL
#undef LINE_MORE
#undef SECTION_MORE
#undef LINE_WINDOW
#undef SECTION_WINDOW
#undef EVH_RUN
#undef EVH_RUN_ATTR
#undef EVH_PATH
#undef EVH_TARGET
#undef EVH_TOKEN
#undef EVH_VALUE
