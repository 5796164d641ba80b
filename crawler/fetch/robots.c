/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/fetch/robots.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/base/time.h"

#define RULES_MAX     10000
#define DELAY_MAX_SEC 86400
#define LINE_MAX_SIZE 4096

typedef struct Rule {
    char *pattern;
    bool allow;
} Rule;

typedef struct Group {
    Rule *rules;
    size_t n, allocated;
    uint64_t delay_usec;
    bool seen;
} Group;

struct Robots {
    Group group; /* of our product, else of "*" */
};

static void group_done(Group *group)
{
    for (size_t i = 0; i < group->n; i++)
        free(group->rules[i].pattern);
    free(group->rules);
    *group = (Group){0};
}

/* --- Patterns ------------------------------------------------------------------------------- */

static bool is_unreserved(unsigned char c)
{
    return isalnum(c) || strchr("-._~", c);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One spelling for each octet: unreserved ones bare, others from outside ASCII as %XX. */
static char *normalize(const char *text, size_t size)
{
    auto_buf Buf out = BUF_INIT(3 * (size_t)LINE_MAX_SIZE + 16);
    int r = 0;

    for (size_t i = 0; i < size && r >= 0; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c == '%' && i + 2 < size && hex_value(text[i + 1]) >= 0 &&
            hex_value(text[i + 2]) >= 0) {
            c = (unsigned char)(hex_value(text[i + 1]) << 4 | hex_value(text[i + 2]));
            i += 2;
            r = c != 0 && is_unreserved(c) ? buf_add_char(&out, (char)c)
                                           : buf_printf(&out, "%%%02X", c);
        } else {
            r = c >= 0x80 ? buf_printf(&out, "%%%02X", c) : buf_add_char(&out, (char)c);
        }
    }
    return r < 0 ? NULL : buf_take(&out);
}

/* '*' is any run, a '$' at the end anchors; otherwise a prefix. Greedy with one point of return, so
 * that a pattern full of stars costs length times length and no more. */
static bool pattern_matches(const char *pattern, const char *path)
{
    const char *star = NULL, *resume = NULL;

    for (;;) {
        if (*pattern == '*') {
            star = ++pattern;
            resume = path;
        } else if (*pattern == '$' && !pattern[1] && !*path) {
            return true;
        } else if (!*pattern) {
            return true;
        } else if (*path && *pattern == *path && !(*pattern == '$' && !pattern[1])) {
            pattern++;
            path++;
        } else if (star && *resume) {
            pattern = star;
            path = ++resume;
        } else {
            return false;
        }
    }
}

/* --- Parsing -------------------------------------------------------------------------------- */

/* The value of "key: value", or NULL; both stripped, comments gone. */
static char *line_value(char *line, const char *key)
{
    char *colon = strchr(line, ':');
    char *name;

    if (!colon)
        return NULL;
    *colon = '\0';
    name = str_strip(line);
    if (strcasecmp(name, key) != 0) {
        *colon = ':';
        return NULL;
    }
    return str_strip(colon + 1);
}

/* The product token that begins the value: letters, '_' and '-'. */
static bool names_product(const char *value, const char *product)
{
    size_t size = strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-");

    return size == strlen(product) && strncasecmp(value, product, size) == 0;
}

static int add_rule(Group *group, const char *pattern, bool allow)
{
    auto_free char *text = NULL;

    if (!*pattern || group->n >= RULES_MAX)
        return 0; /* an empty Disallow forbids nothing */
    text = normalize(pattern, strlen(pattern));
    if (!text)
        return -ENOMEM;
    if (group->n == group->allocated) {
        size_t wanted = group->allocated ? 2 * group->allocated : 16;
        Rule *grown = realloc(group->rules, wanted * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        group->rules = grown;
        group->allocated = wanted;
    }
    group->rules[group->n++] = (Rule){.pattern = take_ptr(text), .allow = allow};
    return 0;
}

typedef struct Parser {
    const char *product;
    Group ours, any;
    bool in_ours, in_any; /* whom the lines in hand are for */
    bool naming;          /* the last line was a User-agent: the next one adds to the group */
} Parser;

static void add_delay(Group *group, const char *value)
{
    double seconds;

    if (parse_fraction(value, &seconds) < 0 || seconds < 0)
        return;
    if (seconds > DELAY_MAX_SEC)
        seconds = DELAY_MAX_SEC;
    group->delay_usec = (uint64_t)(seconds * 1e6);
}

static int parse_line(Parser *parser, char *line)
{
    char *value;
    bool allow;
    int r = 0;

    value = line_value(line, "user-agent");
    if (value) {
        if (!parser->naming)
            parser->in_ours = parser->in_any = false;
        parser->naming = true;
        parser->in_ours = parser->in_ours || names_product(value, parser->product);
        parser->in_any = parser->in_any || streq(value, "*");
        parser->ours.seen = parser->ours.seen || parser->in_ours;
        parser->any.seen = parser->any.seen || parser->in_any;
        return 0;
    }
    value = line_value(line, "crawl-delay");
    if (value) {
        parser->naming = false;
        if (parser->in_ours)
            add_delay(&parser->ours, value);
        if (parser->in_any)
            add_delay(&parser->any, value);
        return 0;
    }
    value = line_value(line, "allow");
    allow = value != NULL;
    if (!value)
        value = line_value(line, "disallow");
    if (!value)
        return 0; /* Sitemap and the like end nothing */
    parser->naming = false;
    if (parser->in_ours)
        r = add_rule(&parser->ours, value, allow);
    if (r >= 0 && parser->in_any)
        r = add_rule(&parser->any, value, allow);
    return r;
}

static int parse_text(Parser *parser, const char *text, size_t size)
{
    char line[LINE_MAX_SIZE];

    for (size_t at = 0; at < size;) {
        size_t length = strcspn(text + at, "\r\n"), kept;
        char *comment;
        int r;

        length = MIN_OF(length, size - at);
        kept = MIN_OF(length, sizeof(line) - 1);
        memcpy(line, text + at, kept);
        line[kept] = '\0';
        comment = strchr(line, '#');
        if (comment)
            *comment = '\0';
        r = parse_line(parser, line);
        if (r < 0)
            return r;
        at += length + 1;
    }
    return 0;
}

int robots_parse(const char *text, size_t size, const char *product, Robots **ret)
{
    auto_(robots_freep) Robots *robots = calloc(1, sizeof(*robots));
    auto_free char *copy = NULL;
    Parser parser = {.product = product};
    Group *chosen, *other;
    int r;

    if (!robots)
        return -ENOMEM;
    size = MIN_OF(size, (size_t)ROBOTS_SIZE_MAX);
    copy = malloc(size + 1); /* strcspn() wants an end */
    if (!copy)
        return -ENOMEM;
    for (size_t i = 0; i < size; i++)
        copy[i] = (char)(text[i] ? text[i] : ' ');
    copy[size] = '\0';
    /* A byte order mark would hide the first line. */
    r = parse_text(&parser, startswith(copy, "\xef\xbb\xbf") ? copy + 3 : copy,
                   startswith(copy, "\xef\xbb\xbf") ? size - 3 : size);
    chosen = parser.ours.seen ? &parser.ours : &parser.any;
    other = parser.ours.seen ? &parser.any : &parser.ours;
    robots->group = *chosen;
    group_done(other);
    if (r < 0)
        return r;

    *ret = take_ptr(robots);
    return 0;
}

Robots *robots_free(Robots *robots)
{
    if (!robots)
        return NULL;
    group_done(&robots->group);
    free(robots);
    return NULL;
}

bool robots_allows(const Robots *robots, const char *path)
{
    auto_free char *normal = normalize(path, MIN_OF(strlen(path), (size_t)LINE_MAX_SIZE));
    size_t best = 0;
    bool allowed = true;

    if (!normal)
        return false;
    if (streq(path, "/robots.txt"))
        return true;
    for (size_t i = 0; i < robots->group.n; i++) {
        const Rule *rule = &robots->group.rules[i];
        size_t size = strlen(rule->pattern);

        if (size < best || !pattern_matches(rule->pattern, normal))
            continue;
        allowed = size == best ? allowed || rule->allow : rule->allow;
        best = size;
    }
    return allowed;
}

uint64_t robots_delay_usec(const Robots *robots)
{
    return robots->group.delay_usec;
}
