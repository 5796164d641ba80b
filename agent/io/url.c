/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <arpa/inet.h>
#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <strings.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/io/http.h"

static void url_done(CURLU **url)
{
    curl_url_cleanup(*url);
}

static void curl_strp(char **s)
{
    curl_free(*s);
}

static bool is_unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

char *url_escape(const char *s, const char *keep)
{
    static const char hex[] = "0123456789ABCDEF";
    char *ret, *to;

    assert(s);

    ret = to = calloc(strlen(s) + 1, 3);
    if (!ret)
        return NULL;
    for (const char *from = s; *from; from++) {
        unsigned char c = (unsigned char)*from;

        if (is_unreserved(c) || (keep && strchr(keep, *from))) {
            *to++ = *from;
            continue;
        }
        *to++ = '%'; /* cppcheck-suppress uninitdata */
        *to++ = hex[c >> 4];
        *to++ = hex[c & 15];
    }
    *to = '\0';
    return ret;
}

/* Without the brackets that a numeric IPv6 host wears in a URL, in lower case. */
static char *host_plain(const char *host)
{
    char *ret = str_lower(host[0] == '[' ? host + 1 : host);
    char *bracket = ret ? strchr(ret, ']') : NULL;

    if (bracket)
        *bracket = '\0';
    return ret;
}

/* Where the host begins in "scheme://user@host…", and where it ends; NULL when there is none. */
static const char *find_host(const char *url, const char **ret_end)
{
    const char *at = url, *end;

    while (is_unreserved((unsigned char)*at) || *at == '+')
        at++;
    if (at == url || !startswith(at, "://"))
        return NULL;
    at += 3;
    end = at + strcspn(at, "/?#");
    for (const char *p = at; p < end; p++)
        if (*p == '@')
            at = p + 1;
    *ret_end = end;
    return at;
}

/* libcurl is lenient where it must not matter what a URL is taken for: it takes one slash or three
 * for two, and a host whose digits are escaped, which are not normalized then. */
static bool is_strict(const char *url)
{
    const char *end, *host = find_host(url, &end);

    return host && host < end && !memchr(host, '%', (size_t)(end - host));
}

int url_host_port(const char *url, char **ret_scheme, char **ret_host, uint16_t *ret_port,
                  Error *err)
{
    auto_(url_done) CURLU *parsed = NULL;
    auto_(curl_strp) char *scheme = NULL, *host = NULL, *port = NULL;
    auto_free char *scheme_copy = NULL, *host_copy = NULL;
    uint16_t number = 0;
    CURLUcode code;

    assert(url);

    parsed = curl_url();
    if (!parsed)
        return error_oom(err);
    code = is_strict(url) ? curl_url_set(parsed, CURLUPART_URL, url, 0) : CURLUE_MALFORMED_INPUT;
    if (code == CURLUE_OK)
        code = curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0);
    if (code == CURLUE_OK)
        code = curl_url_get(parsed, CURLUPART_HOST, &host, 0);
    if (code == CURLUE_OK)
        code = curl_url_get(parsed, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT);
    if (code == CURLUE_OUT_OF_MEMORY)
        return error_oom(err);
    /* The URL itself is not quoted: it may carry a key. */
    if (code != CURLUE_OK)
        return error_set(err, -EINVAL, ERROR_INVALID, "bad URL: %s", curl_url_strerror(code));
    if (parse_u16(port, &number) < 0 || number == 0)
        return error_set(err, -EINVAL, ERROR_INVALID, "bad URL: port %s", port);

    scheme_copy = strdup(scheme);
    host_copy = host_plain(host);
    if (!scheme_copy || !host_copy)
        return error_oom(err);
    if (ret_scheme)
        *ret_scheme = take_ptr(scheme_copy);
    if (ret_host)
        *ret_host = take_ptr(host_copy);
    if (ret_port)
        *ret_port = number;
    return 0;
}

char *url_for_log(const char *url)
{
    const char *host, *host_end = NULL, *scheme_end, *end;

    assert(url);

    end = url + strcspn(url, "?#");
    host = find_host(url, &host_end);
    if (!host || host > end)
        return str_printf("%.*s", (int)(end - url), url);
    scheme_end = strstr(url, "://") + 3;
    return str_printf("%.*s%.*s", (int)(scheme_end - url), url, (int)(end - host), host);
}

typedef struct Range4 {
    uint32_t network;
    unsigned bits;
} Range4;

static bool is_private4(uint32_t address)
{
    static const Range4 ranges[] = {
        {0x00000000, 8},  /* this network */
        {0x0a000000, 8},  /* private */
        {0x64400000, 10}, /* carrier NAT */
        {0x7f000000, 8},  /* loopback */
        {0xa9fe0000, 16}, /* link-local: the metadata server lives here */
        {0xac100000, 12}, /* private */
        {0xc0000000, 24}, /* protocol assignments */
        {0xc0a80000, 16}, /* private */
        {0xc6120000, 15}, /* benchmarks */
        {0xe0000000, 3},  /* multicast, reserved, broadcast */
    };

    for (size_t i = 0; i < ELEMENTS(ranges); i++)
        if ((address ^ ranges[i].network) >> (32 - ranges[i].bits) == 0)
            return true;
    return false;
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool is_private6(const uint8_t a[static 16])
{
    static const uint8_t zero[12] = {0};
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};

    /* An IPv4 address in another coat: mapped, compatible (:: and ::1 too), NAT64, 6to4. */
    if (memcmp(a, zero, sizeof(zero)) == 0 || memcmp(a, mapped, sizeof(mapped)) == 0 ||
        memcmp(a, nat64, sizeof(nat64)) == 0)
        return is_private4(be32(a + 12));
    if (a[0] == 0x20 && a[1] == 0x02)
        return is_private4(be32(a + 2));

    return (a[0] & 0xfe) == 0xfc ||                                  /* unique local */
           (a[0] == 0xfe && (a[1] & 0x80) == 0x80) ||                /* link-local, site-local */
           a[0] == 0xff ||                                           /* multicast */
           (a[0] == 0x20 && a[1] == 0x01 && a[2] == 0 && a[3] == 0); /* Teredo */
}

bool address_is_private(const char *numeric_address)
{
    char text[INET6_ADDRSTRLEN + 1];
    uint8_t address[16];
    size_t size;

    assert(numeric_address);

    size = strcspn(numeric_address, "%"); /* a zone index belongs to link-local ones */
    if (size >= sizeof(text))
        return false;
    memcpy(text, numeric_address, size);
    text[size] = '\0';

    if (inet_pton(AF_INET, text, address) == 1)
        return is_private4(be32(address));
    if (inet_pton(AF_INET6, text, address) == 1)
        return is_private6(address);
    return false;
}

bool host_is_loopback(const char *host)
{
    uint8_t address[16];

    if (strcasecmp(host, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, host, address) == 1)
        return address[0] == 127;
    if (inet_pton(AF_INET6, host, address) == 1)
        return memcmp(address, &in6addr_loopback, sizeof(address)) == 0;
    return false;
}

bool host_is_within(const char *host, const char *domain)
{
    size_t host_size = strlen(host), domain_size = strlen(domain);

    if (domain_size == 0 || host_size < domain_size ||
        strcasecmp(host + host_size - domain_size, domain) != 0)
        return false;
    return host_size == domain_size || host[host_size - domain_size - 1] == '.';
}
