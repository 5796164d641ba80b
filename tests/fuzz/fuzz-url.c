/* SPDX-License-Identifier: Apache-2.0 */

/* Any text as a URL: what is logged of it holds neither query nor user, what is read of it is read
 * the same again, and no spelling of a private address passes for a public one. */

#include <string.h>

#include "agent/base/str.h"
#include "agent/io/http.h"
#include "tests/fuzz/fuzz.h"

static void check_host(const char *scheme, const char *host, uint16_t port)
{
    auto_free char *again = NULL, *host_again = NULL;
    uint16_t port_again = 0;

    FUZZ_CHECK(port > 0 && !strpbrk(host, "/?#@[]"));
    again = str_printf(strchr(host, ':') ? "%s://[%s]:%u/" : "%s://%s:%u/", scheme, host, port);
    if (url_host_port(again, NULL, &host_again, &port_again, NULL) >= 0)
        FUZZ_CHECK(streq(host, host_again) && port == port_again);
    if (host_is_loopback(host) && strcmp(host, "localhost") != 0)
        FUZZ_CHECK(address_is_private(host));
    FUZZ_CHECK(host_is_within(host, host) || !*host);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_free char *url = strndup((const char *)data, size);
    auto_free char *scheme = NULL, *host = NULL, *log = NULL, *escaped = NULL;
    auto_error Error error = {0};
    uint16_t port = 0;

    FUZZ_CHECK(url);
    log = url_for_log(url);
    FUZZ_CHECK(log && !strpbrk(log, "?#") && strlen(log) <= strlen(url));
    escaped = url_escape(url, NULL);
    FUZZ_CHECK(escaped && !strpbrk(escaped, "/?#@ :\r\n"));
    (void)address_is_private(url);

    if (url_host_port(url, &scheme, &host, &port, &error) < 0) {
        FUZZ_CHECK(!scheme && !host && port == 0 && error.kind == ERROR_INVALID);
        return 0;
    }
    check_host(scheme, host, port);
    return 0;
}
