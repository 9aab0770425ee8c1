/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scanner for control's LIST answer (see names.h), after RFC 8259.
 *
 * Called by list.c.  The document comes from another peer, so it is checked as
 * strictly as any: a scan ends at the first byte that does not fit.  Values that are
 * not wanted are scanned and dropped.
 */
#include "client/names.h"

#include <errno.h>
#include <string.h>

#include "xseg/layout.h"

/* Control nests three deep. */
#define MAX_DEPTH 16

struct scan {
    const char *at, *end;
    client_name_fn *each;
    void *arg;
    int64_t nr_names;
    int error; /* 0, or -errno: ends the scan */
    bool more;
};

static bool fail(struct scan *s, int error)
{
    if (!s->error)
        s->error = error;
    return false;
}

static void skip_space(struct scan *s)
{
    while (s->at < s->end &&
           (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
        s->at++;
}

/** Take `c` if it comes next, after white space. */
static bool take(struct scan *s, char c)
{
    skip_space(s);
    if (s->at == s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

static bool expect(struct scan *s, char c)
{
    return take(s, c) || fail(s, -EBADMSG);
}

/* ---- strings -------------------------------------------------------------------- */

/** A decoded string; only its first bytes are kept, its length is counted on. */
struct text {
    uint8_t bytes[XSEG_NAME_MAX];
    size_t len;
};

static void add_byte(struct text *text, uint32_t byte)
{
    if (text->len < sizeof(text->bytes))
        text->bytes[text->len] = (uint8_t)byte;
    text->len++;
}

static void add_code_point(struct text *text, uint32_t c)
{
    if (c < 0x80) {
        add_byte(text, c);
    } else if (c < 0x800) {
        add_byte(text, 0xc0 | c >> 6);
        add_byte(text, 0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        add_byte(text, 0xe0 | c >> 12);
        add_byte(text, 0x80 | (c >> 6 & 0x3f));
        add_byte(text, 0x80 | (c & 0x3f));
    } else {
        add_byte(text, 0xf0 | c >> 18);
        add_byte(text, 0x80 | (c >> 12 & 0x3f));
        add_byte(text, 0x80 | (c >> 6 & 0x3f));
        add_byte(text, 0x80 | (c & 0x3f));
    }
}

static bool hex4(struct scan *s, uint32_t *value)
{
    *value = 0;
    for (int i = 0; i < 4; i++) {
        char c;
        if (s->at == s->end)
            return fail(s, -EBADMSG);
        c = *s->at++;
        if (c >= '0' && c <= '9')
            *value = *value << 4 | (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            *value = *value << 4 | (uint32_t)((c | 0x20) - 'a' + 10);
        else
            return fail(s, -EBADMSG);
    }
    return true;
}

/** After \u: one code point, which may take a second escape. */
static bool unicode_escape(struct scan *s, struct text *text)
{
    uint32_t high, low;

    if (!hex4(s, &high))
        return false;
    if (high >= 0xdc00 && high < 0xe000)
        return fail(s, -EBADMSG);
    if (high >= 0xd800 && high < 0xdc00) {
        if (s->end - s->at < 2 || s->at[0] != '\\' || s->at[1] != 'u')
            return fail(s, -EBADMSG);
        s->at += 2;
        if (!hex4(s, &low))
            return false;
        if (low < 0xdc00 || low >= 0xe000)
            return fail(s, -EBADMSG);
        high = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    }
    add_code_point(text, high);
    return true;
}

static bool escape(struct scan *s, struct text *text)
{
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    const char *found;
    char c;

    if (s->at == s->end)
        return fail(s, -EBADMSG);
    c = *s->at++;
    if (c == 'u')
        return unicode_escape(s, text);
    found = c ? strchr(from, c) : NULL;
    if (!found)
        return fail(s, -EBADMSG);
    add_byte(text, (uint8_t)to[found - from]);
    return true;
}

static bool scan_string(struct scan *s, struct text *text)
{
    text->len = 0;
    if (!expect(s, '"'))
        return false;
    while (s->at < s->end) {
        char c = *s->at++;
        if (c == '"')
            return true;
        if ((unsigned char)c < 0x20)
            return fail(s, -EBADMSG);
        if (c != '\\')
            add_byte(text, (uint8_t)c);
        else if (!escape(s, text))
            return false;
    }
    return fail(s, -EBADMSG);
}

static bool text_is(const struct text *text, const char *word)
{
    return text->len == strlen(word) && memcmp(text->bytes, word, text->len) == 0;
}

/* ---- values ---------------------------------------------------------------------- */

/** A member's value, after its key; the caller's meaning of an object. */
typedef bool member_fn(struct scan *s, const struct text *key, int depth);
/** An element's value. */
typedef bool element_fn(struct scan *s, int depth);

static bool scan_object(struct scan *s, member_fn *member, int depth)
{
    struct text key;

    if (depth > MAX_DEPTH)
        return fail(s, -EBADMSG);
    if (!expect(s, '{'))
        return false;
    if (take(s, '}'))
        return true;
    do {
        if (!scan_string(s, &key) || !expect(s, ':') || !member(s, &key, depth + 1))
            return false;
    } while (take(s, ','));
    return expect(s, '}');
}

static bool scan_array(struct scan *s, element_fn *element, int depth)
{
    if (depth > MAX_DEPTH)
        return fail(s, -EBADMSG);
    if (!expect(s, '['))
        return false;
    if (take(s, ']'))
        return true;
    do {
        if (!element(s, depth + 1))
            return false;
    } while (take(s, ','));
    return expect(s, ']');
}

static bool scan_word(struct scan *s, const char *word)
{
    size_t len = strlen(word);

    if ((size_t)(s->end - s->at) < len || memcmp(s->at, word, len) != 0)
        return fail(s, -EBADMSG);
    s->at += len;
    return true;
}

static bool digits(struct scan *s)
{
    const char *first = s->at;

    while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
        s->at++;
    return s->at > first || fail(s, -EBADMSG);
}

static bool scan_number(struct scan *s)
{
    if (s->at < s->end && *s->at == '-')
        s->at++;
    if (!digits(s))
        return false;
    if (s->at < s->end && *s->at == '.') {
        s->at++;
        if (!digits(s))
            return false;
    }
    if (s->at < s->end && (*s->at | 0x20) == 'e') {
        s->at++;
        if (s->at < s->end && (*s->at == '+' || *s->at == '-'))
            s->at++;
        return digits(s);
    }
    return true;
}

static bool drop_value(struct scan *s, int depth);

static bool drop_member(struct scan *s, const struct text *key, int depth)
{
    (void)key;
    return drop_value(s, depth);
}

static bool drop_value(struct scan *s, int depth)
{
    struct text text;

    skip_space(s);
    if (s->at == s->end)
        return fail(s, -EBADMSG);
    switch (*s->at) {
    case '{':
        return scan_object(s, drop_member, depth);
    case '[':
        return scan_array(s, drop_value, depth);
    case '"':
        return scan_string(s, &text);
    case 't':
        return scan_word(s, "true");
    case 'f':
        return scan_word(s, "false");
    case 'n':
        return scan_word(s, "null");
    default:
        return scan_number(s);
    }
}

/* ---- the document ------------------------------------------------------------------
 */

static bool volume_member(struct scan *s, const struct text *key, int depth)
{
    struct text name;
    int rc;

    if (!text_is(key, "name"))
        return drop_value(s, depth);
    if (!scan_string(s, &name))
        return false;
    if (name.len == 0 || name.len > XSEG_NAME_MAX || memchr(name.bytes, 0, name.len))
        return true; /* no name an export could have */
    rc = s->each(s->arg, name.bytes, name.len);
    if (rc < 0)
        return fail(s, rc);
    s->nr_names++;
    return true;
}

static bool volume(struct scan *s, int depth)
{
    return scan_object(s, volume_member, depth);
}

static bool top_member(struct scan *s, const struct text *key, int depth)
{
    if (text_is(key, "volumes"))
        return scan_array(s, volume, depth);
    if (text_is(key, "more")) {
        skip_space(s);
        s->more = s->at < s->end && *s->at == 't';
    }
    return drop_value(s, depth);
}

int64_t client_names_parse(const char *json, size_t len, client_name_fn *each,
                           void *arg, bool *more)
{
    struct scan s = {.at = json, .end = json + len, .each = each, .arg = arg};

    *more = false;
    if (!scan_object(&s, top_member, 0))
        return s.error;
    skip_space(&s);
    if (s.at != s.end)
        return -EBADMSG;
    *more = s.more;
    return s.nr_names;
}

size_t client_names_quote(char *out, size_t room, const uint8_t *name, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    size_t n = 0;

    if (room < 6 * len + 2)
        return 0;
    out[n++] = '"';
    for (size_t i = 0; i < len; i++) {
        uint8_t c = name[i];
        if (c < 0x20) {
            memcpy(out + n, "\\u00", 4);
            out[n + 4] = hex[c >> 4];
            out[n + 5] = hex[c & 15];
            n += 6;
            continue;
        }
        if (c == '"' || c == '\\')
            out[n++] = '\\';
        out[n++] = (char)c;
    }
    out[n++] = '"';
    return n;
}
