/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/engine/challenge.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/str.h"

typedef struct Reader {
    const char *text;
    size_t at;
} Reader;

static int refuse(const Reader *reader, Error *err, const char *expected)
{
    return error_set(err, -EBADMSG, ERROR_CORRUPT, "WWW-Authenticate: character %zu: %s",
                     reader->at + 1, expected);
}

/* RFC 7230 tchar. */
static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token68_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-._~+/", c));
}

static char peek(const Reader *reader)
{
    return reader->text[reader->at];
}

static void skip_blanks(Reader *reader)
{
    while (peek(reader) == ' ' || peek(reader) == '\t')
        reader->at++;
}

/* Empty list elements are legal: ", ,". */
static void skip_commas(Reader *reader)
{
    while (peek(reader) == ' ' || peek(reader) == '\t' || peek(reader) == ',')
        reader->at++;
}

static int read_token(Reader *reader, bool lower, char **ret, Error *err, const char *expected)
{
    size_t from = reader->at;
    auto_free char *raw = NULL;
    char *token;

    while (is_token_char(peek(reader)))
        reader->at++;
    if (reader->at == from)
        return refuse(reader, err, expected);

    raw = strndup(reader->text + from, reader->at - from);
    token = raw && lower ? str_lower(raw) : take_ptr(raw);
    if (!token)
        return error_oom(err);

    *ret = token;
    return 0;
}

static int read_quoted(Reader *reader, char **ret, Error *err)
{
    auto_buf Buf value = BUF_INIT(CHALLENGE_HEADER_MAX);

    reader->at++;
    while (peek(reader) != '"') {
        if (peek(reader) == '\\')
            reader->at++;
        if ((unsigned char)peek(reader) < 0x20 && peek(reader) != '\t')
            return refuse(reader, err, "the quoted value does not end");
        if (buf_add_char(&value, peek(reader)) < 0)
            return error_oom(err);
        reader->at++;
    }
    reader->at++;

    *ret = buf_take(&value);
    return *ret ? 0 : error_oom(err);
}

/* Whether a parameter ("name =") and not another challenge ("scheme …") begins here. */
static bool at_param(const Reader *reader)
{
    Reader ahead = *reader;

    while (is_token_char(peek(&ahead)))
        ahead.at++;
    if (ahead.at == reader->at)
        return false;
    skip_blanks(&ahead);

    return peek(&ahead) == '=';
}

/* "Negotiate YII=": a token68 fills the rest of the element; "a=b" does not, nor does "a=". */
static bool token68_size(const Reader *reader, size_t *ret)
{
    Reader ahead = *reader;

    while (is_token68_char(peek(&ahead)))
        ahead.at++;
    if (ahead.at == reader->at)
        return false;
    while (peek(&ahead) == '=')
        ahead.at++;
    *ret = ahead.at - reader->at;
    skip_blanks(&ahead);

    return peek(&ahead) == '\0' || peek(&ahead) == ',';
}

static void challenge_done(Challenge *challenge)
{
    for (size_t i = 0; i < challenge->n_params; i++) {
        free(challenge->params[i].name);
        free(challenge->params[i].value);
    }
    free(challenge->params);
    free(challenge->scheme);
    free(challenge->token68);
    *challenge = (Challenge){0};
}

static int read_param(Reader *reader, Challenge *challenge, Error *err)
{
    ChallengeParam *params, *param;
    int r;

    if (challenge->n_params == CHALLENGE_PARAMS_MAX)
        return refuse(reader, err, "too many parameters");
    params = reallocarray(challenge->params, challenge->n_params + 1, sizeof(*params));
    if (!params)
        return error_oom(err);
    challenge->params = params;
    param = &params[challenge->n_params++];
    *param = (ChallengeParam){0};

    r = read_token(reader, /* lower= */ true, &param->name, err, "a parameter's name is expected");
    if (r < 0)
        return r;
    skip_blanks(reader);
    reader->at++; /* the '=', which at_param() saw */
    skip_blanks(reader);
    if (peek(reader) == '"')
        return read_quoted(reader, &param->value, err);

    return read_token(reader, /* lower= */ false, &param->value, err,
                      "a parameter's value is expected");
}

static int read_params(Reader *reader, Challenge *challenge, Error *err)
{
    int r;

    for (;;) {
        Reader after;

        r = read_param(reader, challenge, err);
        if (r < 0)
            return r;
        skip_blanks(reader);
        if (peek(reader) != '\0' && peek(reader) != ',')
            return refuse(reader, err, "',' is expected between parameters");
        after = *reader;
        skip_commas(&after);
        if (!at_param(&after))
            return 0;
        *reader = after;
    }
}

static int read_challenge(Reader *reader, Challenge *challenge, Error *err)
{
    size_t size;
    int r;

    r = read_token(reader, /* lower= */ true, &challenge->scheme, err,
                   "an authentication scheme is expected");
    if (r < 0)
        return r;
    if (peek(reader) != ' ' && peek(reader) != '\t' && peek(reader) != ',' && peek(reader) != '\0')
        return refuse(reader, err, "a blank is expected after the scheme");
    skip_blanks(reader);

    if (peek(reader) == '\0' || peek(reader) == ',')
        return 0;
    if (token68_size(reader, &size)) {
        challenge->token68 = strndup(reader->text + reader->at, size);
        reader->at += size;
        skip_blanks(reader);
        return challenge->token68 ? 0 : error_oom(err);
    }
    if (!at_param(reader))
        return refuse(reader, err, "a parameter is expected after the scheme");

    return read_params(reader, challenge, err);
}

static int read_all(Reader *reader, Challenges *list, Error *err)
{
    int r;

    for (skip_commas(reader); peek(reader) != '\0'; skip_commas(reader)) {
        Challenge *items;

        if (list->n_items == CHALLENGES_MAX)
            return refuse(reader, err, "too many challenges");
        items = reallocarray(list->items, list->n_items + 1, sizeof(*items));
        if (!items)
            return error_oom(err);
        list->items = items;
        items[list->n_items] = (Challenge){0};
        r = read_challenge(reader, &items[list->n_items++], err);
        if (r < 0)
            return r;
    }

    return 0;
}

int challenges_parse(const char *header, Challenges *list, Error *err)
{
    Reader reader = {.text = header};
    size_t n_before = list->n_items;
    int r;

    if (strlen(header) > CHALLENGE_HEADER_MAX)
        return error_set(err, -EBADMSG, ERROR_CORRUPT, "WWW-Authenticate: over %d bytes",
                         CHALLENGE_HEADER_MAX);

    r = read_all(&reader, list, err);
    if (r < 0)
        while (list->n_items > n_before)
            challenge_done(&list->items[--list->n_items]);

    return r;
}

void challenges_done(Challenges *list)
{
    for (size_t i = 0; i < list->n_items; i++)
        challenge_done(&list->items[i]);
    free(list->items);
    *list = (Challenges){0};
}

const Challenge *challenges_find(const Challenges *list, const char *scheme)
{
    for (size_t i = 0; i < list->n_items; i++)
        if (streq(list->items[i].scheme, scheme))
            return &list->items[i];

    return NULL;
}

const char *challenge_param(const Challenge *challenge, const char *name)
{
    for (size_t i = 0; i < challenge->n_params; i++)
        if (streq(challenge->params[i].name, name))
            return challenge->params[i].value;

    return NULL;
}
