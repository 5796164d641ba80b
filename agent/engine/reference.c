/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/engine/reference.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"

#define HUB_HOST      "docker.io"
#define HUB_OLD_HOST  "index.docker.io"
#define HUB_API_HOST  "registry-1.docker.io"
#define HUB_LIBRARY   "library/"
#define TEXT_SIZE_MAX 1024

/* A piece of the text that is being read; positions in messages count from `whole`. */
typedef struct Piece {
    const char *whole;
    const char *at;
    size_t size;
} Piece;

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_upper(char c)
{
    return c >= 'A' && c <= 'Z';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
    return is_lower(c) || is_upper(c) || is_digit(c);
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f');
}

static int refuse(const Piece *piece, size_t offset, Error *err, const char *what)
{
    auto_free char *shown = str_escape(piece->whole, strlen(piece->whole), 200);

    return error_set(err, -EINVAL, ERROR_INVALID, "image \"%s\": character %zu: %s",
                     shown ? shown : "", (size_t)(piece->at - piece->whole) + offset + 1, what);
}

static int check_digest(const Piece *piece, Error *err)
{
    static const char algorithm[] = "sha256:";
    const size_t prefix = sizeof(algorithm) - 1;

    if (piece->size < prefix || memcmp(piece->at, algorithm, prefix) != 0)
        return refuse(piece, 0, err, "a digest begins with \"sha256:\"");

    for (size_t i = prefix; i < piece->size; i++) {
        if (i >= REFERENCE_DIGEST_SIZE)
            return refuse(piece, i, err, "a sha256 digest has 64 hex digits, this one has more");
        if (!is_hex(piece->at[i]))
            return refuse(piece, i, err, "a digest consists of hex digits 0-9 and a-f");
    }

    if (piece->size != REFERENCE_DIGEST_SIZE)
        return refuse(piece, piece->size, err,
                      "a sha256 digest has 64 hex digits, this one has fewer");

    return 0;
}

static int check_tag(const Piece *piece, Error *err)
{
    if (piece->size == 0)
        return refuse(piece, 0, err, "the tag is empty");

    for (size_t i = 0; i < piece->size; i++) {
        char c = piece->at[i];

        if (i >= REFERENCE_TAG_MAX)
            return refuse(piece, i, err, "a tag has at most 128 characters");
        if (!is_alnum(c) && c != '_' && (i == 0 || (c != '.' && c != '-')))
            return refuse(piece, i, err,
                          i == 0 ? "a tag begins with a letter, a digit or '_'"
                                 : "a tag consists of letters, digits, '_', '.' and '-'");
    }

    return 0;
}

static int check_port(const Piece *piece, size_t offset, Error *err)
{
    uint64_t port;

    if (parse_u64_n(piece->at + offset, piece->size - offset, &port) < 0 || port == 0 ||
        port > UINT16_MAX)
        return refuse(piece, offset, err, "the host's port is no number from 1 to 65535");

    return 0;
}

static int check_host_v6(const Piece *piece, Error *err)
{
    size_t i = 1;

    while (i < piece->size && (is_hex(piece->at[i]) ||
                               (piece->at[i] >= 'A' && piece->at[i] <= 'F') || piece->at[i] == ':'))
        i++;
    if (i >= piece->size || piece->at[i] != ']' || i < 3)
        return refuse(piece, i, err, "an IPv6 address in brackets is expected here");
    if (++i == piece->size)
        return 0;
    if (piece->at[i] != ':')
        return refuse(piece, i, err, "':' and a port, or '/', is expected after the address");

    return check_port(piece, i + 1, err);
}

static int check_host(const Piece *piece, Error *err)
{
    const char *colon = memchr(piece->at, ':', piece->size);
    size_t name_size = colon ? (size_t)(colon - piece->at) : piece->size;

    if (piece->size > 0 && piece->at[0] == '[')
        return check_host_v6(piece, err);
    if (name_size == 0)
        return refuse(piece, 0, err, "the host's name is empty");

    for (size_t i = 0; i < name_size; i++) {
        char c = piece->at[i];
        bool at_edge =
            i == 0 || piece->at[i - 1] == '.' || i + 1 == name_size || piece->at[i + 1] == '.';

        if (is_alnum(c) || (c == '-' && !at_edge))
            continue;
        if (c == '.' && i > 0 && piece->at[i - 1] != '.' && i + 1 < name_size)
            continue;
        return refuse(piece, i, err,
                      "a host name consists of letters, digits, and '-' and '.' between them");
    }

    return colon ? check_port(piece, name_size + 1, err) : 0;
}

/* The size of the separator at `i` (one '.', one or two '_', any number of '-'), or 0. */
static size_t separator_size(const Piece *piece, size_t i)
{
    size_t n = 0;

    if (piece->at[i] == '.')
        return 1;
    if (piece->at[i] == '_')
        return i + 1 < piece->size && piece->at[i + 1] == '_' ? 2 : 1;
    while (i + n < piece->size && piece->at[i + n] == '-')
        n++;

    return n;
}

static int check_path(const Piece *piece, Error *err)
{
    bool begins = true; /* a component, or what follows a separator */

    if (piece->size == 0)
        return refuse(piece, 0, err, "the image's name is missing");

    for (size_t i = 0; i < piece->size;) {
        char c = piece->at[i];
        size_t separator;

        if (i >= REFERENCE_NAME_MAX)
            return refuse(piece, i, err, "a repository name has at most 255 characters");
        if (is_lower(c) || is_digit(c)) {
            begins = false;
            i++;
            continue;
        }
        if (is_upper(c))
            return refuse(piece, i, err, "a repository name is in lower case");

        separator = c == '/' ? 1 : separator_size(piece, i);
        if (separator == 0)
            return refuse(piece, i, err,
                          "a repository name consists of a-z, 0-9, and '.', '_', '-' and '/' "
                          "between them");
        if (begins || i + separator >= piece->size)
            return refuse(piece, i, err, "a letter or digit is expected on both sides of it");
        begins = true;
        i += separator;
    }

    return 0;
}

/* What stands before the first slash is a host when it looks like one: the engine's own rule. */
static bool looks_like_host(const char *text, size_t size)
{
    if (size == strlen("localhost") && memcmp(text, "localhost", size) == 0)
        return true;

    for (size_t i = 0; i < size; i++)
        if (text[i] == '.' || text[i] == ':' || is_upper(text[i]))
            return true;

    return false;
}

static int take_name(const Piece *name, Reference *reference, Error *err)
{
    const char *slash = memchr(name->at, '/', name->size);
    Piece host = {.whole = name->whole, .at = name->at, .size = 0};
    Piece path = *name;
    bool on_hub = true;
    int r;

    if (slash && looks_like_host(name->at, (size_t)(slash - name->at))) {
        host.size = (size_t)(slash - name->at);
        path.at = slash + 1;
        path.size = name->size - host.size - 1;
        r = check_host(&host, err);
        if (r < 0)
            return r;
    }
    r = check_path(&path, err);
    if (r < 0)
        return r;

    if (host.size > 0) {
        reference->host = strndup(host.at, host.size);
        if (!reference->host)
            return error_oom(err);
        on_hub = streq(reference->host, HUB_HOST) || streq(reference->host, HUB_OLD_HOST);
    }
    if (on_hub && str_set(&reference->host, HUB_HOST) < 0)
        return error_oom(err);

    reference->path =
        str_printf("%s%.*s", on_hub && !memchr(path.at, '/', path.size) ? HUB_LIBRARY : "",
                   (int)path.size, path.at);
    if (!reference->path)
        return error_oom(err);
    if (strlen(reference->path) > REFERENCE_NAME_MAX)
        return refuse(&path, path.size, err,
                      "with \"library/\" before it the name is over 255 characters");

    return 0;
}

/* Sixty-four hex digits alone name an image by id: nothing that can be pulled. */
static bool is_bare_id(const char *text)
{
    size_t n = 0;

    while (is_hex(text[n]))
        n++;

    return n == 64 && text[n] == '\0';
}

static int take_tag(const Piece *whole, Piece *name, Reference *reference, Error *err)
{
    Piece tag = {.whole = whole->whole};
    const char *slash = memrchr(name->at, '/', name->size);
    const char *from = slash ? slash : name->at;
    const char *colon = memchr(from, ':', name->size - (size_t)(from - name->at));
    int r;

    if (!colon)
        return 0;

    tag.at = colon + 1;
    tag.size = name->size - (size_t)(tag.at - name->at);
    name->size = (size_t)(colon - name->at);
    r = check_tag(&tag, err);
    if (r < 0)
        return r;
    reference->tag = strndup(tag.at, tag.size);

    return reference->tag ? 0 : error_oom(err);
}

int reference_parse(const char *text, Reference **ret, Error *err)
{
    auto_(reference_freep) Reference *reference = NULL;
    Piece whole = {.whole = text, .at = text, .size = strlen(text)};
    Piece name = whole;
    const char *at = memchr(text, '@', whole.size);
    int r;

    if (whole.size > TEXT_SIZE_MAX)
        return error_set(err, -EINVAL, ERROR_INVALID, "image: the reference is over %d characters",
                         TEXT_SIZE_MAX);
    if (strstr(text, "://"))
        return refuse(&whole, (size_t)(strstr(text, "://") - text), err,
                      "an image reference has no scheme: leave \"https://\" out");
    if (is_bare_id(text))
        return refuse(&whole, 0, err,
                      "an image id cannot be pulled: write REPOSITORY@sha256:DIGEST");

    reference = calloc(1, sizeof(*reference));
    if (!reference)
        return error_oom(err);

    if (at) {
        Piece digest = {.whole = text, .at = at + 1};

        digest.size = whole.size - (size_t)(digest.at - text);
        name.size = (size_t)(at - text);
        r = check_digest(&digest, err);
        if (r < 0)
            return r;
        reference->digest = strndup(digest.at, digest.size);
        if (!reference->digest)
            return error_oom(err);
    }
    r = take_tag(&whole, &name, reference, err);
    if (r < 0)
        return r;
    r = take_name(&name, reference, err);
    if (r < 0)
        return r;

    if (!reference->tag && !reference->digest) {
        reference->tag_is_implied = true;
        if (str_set(&reference->tag, "latest") < 0)
            return error_oom(err);
    }

    *ret = take_ptr(reference);
    return 0;
}

Reference *reference_free(Reference *reference)
{
    if (!reference)
        return NULL;

    free(reference->host);
    free(reference->path);
    free(reference->tag);
    free(reference->digest);
    free(reference);
    return NULL;
}

char *reference_text(const Reference *reference)
{
    return str_printf("%s/%s%s%s%s%s", reference->host, reference->path, reference->tag ? ":" : "",
                      reference->tag ? reference->tag : "", reference->digest ? "@" : "",
                      reference->digest ? reference->digest : "");
}

char *reference_repository(const Reference *reference)
{
    return str_printf("%s/%s", reference->host, reference->path);
}

char *reference_by_digest(const Reference *reference, const char *digest)
{
    return str_printf("%s/%s@%s", reference->host, reference->path, digest);
}

const char *reference_api_host(const Reference *reference)
{
    return streq(reference->host, HUB_HOST) ? HUB_API_HOST : reference->host;
}

bool reference_host_is_loopback(const Reference *reference)
{
    static const char *const names[] = {"localhost", "[::1]"};
    const char *rest = startswith(reference->host, "127.");

    /* "127.evil.example" is a name, and not at home here. */
    if (rest)
        return strspn(rest, "0123456789.:") == strlen(rest);

    for (size_t i = 0; i < ELEMENTS(names); i++) {
        rest = startswith(reference->host, names[i]);
        if (rest && (*rest == '\0' || *rest == ':'))
            return true;
    }

    return false;
}

bool reference_same_repository(const Reference *a, const Reference *b)
{
    return streq(a->host, b->host) && streq(a->path, b->path);
}

bool digest_is_valid(const char *digest)
{
    const char *hex = digest ? startswith(digest, "sha256:") : NULL;

    return hex && strlen(digest) == REFERENCE_DIGEST_SIZE &&
           strspn(hex, "0123456789abcdef") == REFERENCE_DIGEST_SIZE - strlen("sha256:");
}
