/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <strings.h>

#include "agent/base/str.h"
#include "agent/io/http-private.h"

void endpoints_free(Endpoint *endpoints, size_t n_endpoints)
{
    for (size_t i = 0; i < n_endpoints; i++) {
        free(endpoints[i].host);
        free(endpoints[i].base);
        free(endpoints[i].base_host);
    }
    free(endpoints);
}

int url_check_scheme(const char *scheme, const char *host, bool allow_plain, Error *err)
{
    if (streq(scheme, "https"))
        return 0;
    if (!streq(scheme, "http"))
        return error_set(err, -EPROTONOSUPPORT, ERROR_INVALID, "%s: scheme %s is not supported",
                         host, scheme);
    if (allow_plain || host_is_loopback(host))
        return 0;
    (void)error_set(err, -EPERM, ERROR_INVALID, "%s: plain http is accepted for this machine only",
                    host);
    return error_remedy(err, -EPERM, "use https://%s", host);
}

const Endpoint *endpoint_find(const HttpClient *client, const char *host)
{
    for (size_t i = 0; i < client->n_endpoints; i++)
        if (streq(client->endpoints[i].host, host))
            return &client->endpoints[i];
    return NULL;
}

static int endpoint_init(Endpoint *endpoint, const HttpEndpoint *from, Error *err)
{
    auto_free char *scheme = NULL;
    const char *authority;
    size_t size;
    int r;

    r = url_host_port(from->base_url, &scheme, &endpoint->base_host, &endpoint->base_port, err);
    if (r < 0)
        return r;
    if (url_check_scheme(scheme, endpoint->base_host, false, err) < 0)
        return err ? (err->code = -EINVAL) : -EINVAL;
    if (strpbrk(from->base_url, "?#@"))
        return error_set(err, -EINVAL, ERROR_INVALID,
                         "the base URL has a query, a fragment or user info");

    endpoint->host = str_lower(from->host);
    endpoint->base = strdup(from->base_url);
    if (!endpoint->host || !endpoint->base)
        return error_oom(err);

    size = strlen(endpoint->base);
    while (size > 0 && endpoint->base[size - 1] == '/')
        endpoint->base[--size] = '\0';
    authority = strstr(endpoint->base, "://");
    authority = authority ? authority + 3 : endpoint->base;
    endpoint->prefix = authority + strcspn(authority, "/");
    return 0;
}

int http_client_set_endpoints(HttpClient *client, const HttpEndpoint *endpoints, size_t n_endpoints,
                              Error *err)
{
    Endpoint *list;
    int r;

    assert(client && (endpoints || n_endpoints == 0));

    list = calloc(n_endpoints + 1, sizeof(*list));
    if (!list)
        return error_oom(err);
    for (size_t i = 0; i < n_endpoints; i++) {
        r = endpoint_init(&list[i], &endpoints[i], err);
        if (r < 0) {
            endpoints_free(list, n_endpoints);
            return error_prefix(err, r, "endpoint for %s", endpoints[i].host);
        }
    }

    endpoints_free(client->endpoints, client->n_endpoints);
    client->endpoints = list;
    client->n_endpoints = n_endpoints;
    return 0;
}

int http_client_map_url(const HttpClient *client, const char *url, char **ret, Error *err)
{
    auto_free char *host = NULL, *mapped = NULL;
    const Endpoint *endpoint;
    const char *rest;
    int r;

    assert(client && url && ret);

    r = url_host_port(url, NULL, &host, NULL, err);
    if (r < 0)
        return r;

    endpoint = endpoint_find(client, host);
    rest = strstr(url, "://");
    if (!endpoint || !rest) {
        mapped = strdup(url);
    } else {
        rest += 3;
        rest += strcspn(rest, "/?#");
        mapped = str_printf("%s%s%s", endpoint->base, *rest == '/' ? "" : "/", rest);
    }
    if (!mapped)
        return error_oom(err);

    *ret = take_ptr(mapped);
    return 0;
}

bool http_client_is_endpoint(const HttpClient *client, const char *host, uint16_t port)
{
    for (size_t i = 0; i < client->n_endpoints; i++)
        if (client->endpoints[i].base_port == port &&
            strcasecmp(client->endpoints[i].base_host, host) == 0)
            return true;
    return false;
}
