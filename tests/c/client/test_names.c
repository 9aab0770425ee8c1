/* SPDX-License-Identifier: Apache-2.0 */
/* The scanner of control's LIST answer: what it takes, what it refuses. */
#include <errno.h>
#include <stdbool.h>

#include "check.h"
#include "client/names.h"

static char found[4096];
static int stop_with;

static int each(void *arg, const uint8_t *name, size_t len)
{
    (void)arg;
    strncat(found, (const char *)name, len);
    strcat(found, "|");
    return stop_with;
}

static int64_t parse(const char *json, bool *more)
{
    /* An exact copy, so that a read past the end is found by the sanitizer. */
    size_t len = strlen(json);
    char *copy = malloc(len + 1);
    bool ignored;
    int64_t rc;

    found[0] = 0;
    memcpy(copy, json, len);
    copy = realloc(copy, len ? len : 1);
    rc = client_names_parse(copy, len, each, NULL, more ? more : &ignored);
    free(copy);
    return rc;
}

static void takes_documents(void)
{
    bool more;

    CHECK_EQ(parse("{}", &more), 0);
    CHECK(!more);
    CHECK_EQ(parse(" {\"more\" : true , \"volumes\" : [ ] } \n", &more), 0);
    CHECK(more);
    CHECK_EQ(
        parse("{\"volumes\": [{\"size\": -1.5e+10, \"name\": \"a\"}, "
              "{\"name\":\"b\", \"x\": {\"name\": \"not this\", \"y\": [[1], null]}}],"
              "\"more\": false}",
              &more),
        2);
    CHECK(strcmp(found, "a|b|") == 0);
    CHECK(!more);
    CHECK_EQ(
        parse("{\"volumes\": [{}, {\"name\": \"\"}, {\"name\": \"\\u0000\"}]}", NULL),
        0);
}

static void decodes_escapes(void)
{
    CHECK_EQ(parse("{\"volumes\": [{\"name\": \"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}]}", NULL),
             1);
    CHECK(strcmp(found, "\"\\/\b\f\n\r\t|") == 0);
    CHECK_EQ(
        parse("{\"volumes\": [{\"n\\u0061me\": \"\\u00e4\\u20AC\\ud83d\\ude00\"}]}",
              NULL),
        1);
    CHECK(strcmp(found, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80|") == 0);
}

static void leaves_out_names_that_are_too_long(void)
{
    char json[600];
    char name[300];

    memset(name, 'x', sizeof(name));
    snprintf(json, sizeof(json), "{\"volumes\": [{\"name\": \"%.255s\"}]}", name);
    CHECK_EQ(parse(json, NULL), 1);
    snprintf(json, sizeof(json), "{\"volumes\": [{\"name\": \"%.256s\"}]}", name);
    CHECK_EQ(parse(json, NULL), 0);
}

static void refuses_what_is_not_json(void)
{
    static const char *const bad[] = {
        "",
        " ",
        "[]",
        "null",
        "{",
        "{\"",
        "{\"a",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{\"a\":tru}",
        "{\"a\":-}",
        "{\"a\":1.}",
        "{\"a\":1e}",
        "{\"a\":[1,]}",
        "{\"a\":[1",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\\ud83d\"}",
        "{\"a\":\"\\ud83d\\u0041\"}",
        "{\"a\":\"\\ude00\"}",
        "{\"a\":\"\\",
        "{\"a\":\"\n\"}",
        "{} {}",
        "{\"volumes\": 1}",
        "{\"volumes\": [1]}",
        "{\"volumes\": [{\"name\": 1}]}",
        "{\"more\": t}",
        "{\"a\":[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK_EQ(parse(bad[i], NULL), -EBADMSG);
}

static void stops_when_told(void)
{
    stop_with = -ENOMEM;
    CHECK_EQ(parse("{\"volumes\": [{\"name\": \"a\"}, {\"name\": \"b\"}]}", NULL),
             -ENOMEM);
    CHECK(strcmp(found, "a|") == 0);
    stop_with = 0;
}

static void quoted_names_come_back(void)
{
    uint8_t name[255];
    char json[2048];
    size_t n;

    for (size_t i = 0; i < sizeof(name); i++)
        name[i] = (uint8_t)(i + 1);
    n = (size_t)sprintf(json, "{\"volumes\": [{\"name\": ");
    CHECK_EQ(client_names_quote(json + n, 6 * sizeof(name) + 1, name, sizeof(name)), 0);
    n += client_names_quote(json + n, 6 * sizeof(name) + 2, name, sizeof(name));
    strcpy(json + n, "}]}");
    CHECK_EQ(parse(json, NULL), 1);
    CHECK(memcmp(found, name, sizeof(name)) == 0);
}

static void survives_any_bytes(void)
{
    static const char seed_text[] = "{\"volumes\": [{\"name\": \"\\u00e4b\", \"x\": "
                                    "[1, true, null]}], \"more\": true}";
    uint64_t state = check_seed();

    for (int i = 0; i < 50000; i++) {
        char text[sizeof(seed_text)];
        strcpy(text, seed_text);
        for (uint64_t n = check_next(&state) % 4 + 1; n; n--)
            text[check_next(&state) % (sizeof(text) - 1)] =
                (char)(check_next(&state) % 2 ? seed_text[check_next(&state) % 60]
                                              : (char)(check_next(&state) % 255 + 1));
        text[check_next(&state) % sizeof(text)] = 0;
        parse(text, NULL);
    }
}

int main(void)
{
    takes_documents();
    decodes_escapes();
    leaves_out_names_that_are_too_long();
    refuses_what_is_not_json();
    stops_when_told();
    quoted_names_come_back();
    survives_any_bytes();
    return 0;
}
