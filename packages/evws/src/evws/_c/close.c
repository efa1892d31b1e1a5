#include "close.h"

#include "utf8.h"

int evw_close_code_ok(unsigned code) {
    if (code >= 3000)
        return code <= 4999;
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014);
}

int evw_close_read(struct evw_frames *f, const uint8_t *payload, size_t len, uint16_t *code) {
    *code = EVW_NO_CODE;
    if (!len)
        return EVW_DONE;
    if (len == 1)
        return evw_bad(f, EVW_PROTOCOL_ERROR, "Close with one byte");
    unsigned given = (unsigned)payload[0] << 8 | payload[1];
    if (!evw_close_code_ok(given))
        return evw_bad(f, EVW_PROTOCOL_ERROR, "Close with a code that must not be sent");
    uint8_t state = EVW_UTF8_START;
    if (!evw_utf8_feed(&state, payload + 2, len - 2) || state != EVW_UTF8_START)
        return evw_bad(f, EVW_INVALID_DATA, "the reason of a Close is not UTF-8");
    *code = (uint16_t)given;
    return EVW_DONE;
}
