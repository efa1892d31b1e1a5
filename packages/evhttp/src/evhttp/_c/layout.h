/* A request's head as Python gets it: rewritten so that nothing has to be looked for any more. */
#ifndef EVH_LAYOUT_H
#define EVH_LAYOUT_H

#include <stdint.h>
#include <string.h>

#include "parser.h"
#include "scan.h"

/* Python reads this by struct "<IIIIIHBB16sQ" (see _request.py). */
struct evh_head {
    uint32_t fields, fields_len; /* the field block, from the start of this struct */
    uint32_t body, body_len;
    uint32_t target_len; /* the target begins right behind this struct; between it and the fields lies the text of an unknown method */
    uint16_t port;
    uint8_t version, family;
    uint8_t ip[16];
    uint64_t large_body; /* the address of a body that is not in the arena (it goes with the batch), else 0 */
};
_Static_assert(sizeof(struct evh_head) == 48, "Python knows this layout");

/* info: method | EVH_INFO_* (_request.py; those of the connection in internal.h) | path offset << 16 | path length << 32 */
enum { EVH_INFO_ABSOLUTE = 1 << 9, EVH_INFO_HTTP10 = 1 << 10, EVH_INFO_STREAMED = 1 << 11 };

static inline size_t evh_layout_fields_len(const struct evh_parser *p) {
    size_t len = 1;
    for (unsigned i = 0; i < p->nfields; i++)
        len += (size_t)p->fields[i].name_len + p->fields[i].value_len + 2;
    return len;
}

static inline size_t evh_layout_method_len(const struct evh_parser *p) { return p->method == EVH_OTHER ? p->method_len : 0; }

static inline size_t evh_layout_len(const struct evh_parser *p) {
    return sizeof(struct evh_head) + p->target_len + evh_layout_method_len(p) + evh_layout_fields_len(p);
}

static inline void evh_layout_fields(uint8_t *at, const struct evh_parser *p, const uint8_t *message) {
    for (unsigned i = 0; i < p->nfields; i++) {
        const struct evh_field *f = &p->fields[i];
        *at++ = '\n';
        evh_lower_copy(at, message + f->name, f->name_len);
        at += f->name_len;
        *at++ = ':';
        memcpy(at, message + f->value, f->value_len);
        at += f->value_len;
    }
    *at = '\n';
}

/* `len` is evh_layout_len(p), `message` where the parser's offsets count from. Where the client is, is left open: nowhere. */
static inline void evh_layout_write(uint8_t *at, size_t len, const struct evh_parser *p, const uint8_t *message) {
    size_t fields = sizeof(struct evh_head) + p->target_len + evh_layout_method_len(p);
    struct evh_head head = {
        .fields = (uint32_t)fields,
        .fields_len = (uint32_t)(len - fields),
        .body = (uint32_t)len,
        .target_len = p->target_len,
        .version = p->version,
    };
    memcpy(at, &head, sizeof head);
    memcpy(at + sizeof head, message + p->target, p->target_len);
    memcpy(at + sizeof head + p->target_len, message + p->start, evh_layout_method_len(p));
    evh_layout_fields(at + fields, p, message);
}

static inline int64_t evh_layout_info(const struct evh_parser *p) {
    /* The authority-form has no path: it is empty, at the end, so that no query follows either. */
    uint32_t at = p->flags & EVH_AUTHORITY_FORM ? p->target_len : p->path - p->target;
    int64_t path = (int64_t)sizeof(struct evh_head) + at;
    return p->method | (p->version == 10 ? EVH_INFO_HTTP10 : 0) | (p->flags & EVH_ABSOLUTE ? EVH_INFO_ABSOLUTE : 0) | path << 16 |
           (int64_t)p->path_len << 32;
}

#endif
