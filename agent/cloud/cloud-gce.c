/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "agent/cloud/cloud-gce.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/file.h"
#include "agent/base/str.h"

/* By address: DNS must not be a condition of booting. */
#define METADATA_ADDRESS "169.254.169.254"
#define PATH_PREFIX      "computeMetadata/v1/"

static const char *moved_to(void)
{
    const char *host = getenv("GCE_METADATA_HOST");

    return str_is_empty(host) ? NULL : host;
}

static bool dmi_begins(const char *root, const char *name, const char *prefix)
{
    auto_free char *path = NULL;
    auto_buf Buf text = {0};

    path = str_printf("%s/sys/class/dmi/id/%s", root, name);
    return path && file_read(path, 4096, &text, NULL) >= 0 && startswith(buf_str(&text), prefix);
}

/* Without the network: it may not be up yet, and elsewhere nobody may answer. */
static bool gce_detect(const CloudConfig *config)
{
    const char *root = config->root && !streq(config->root, "/") ? config->root : "";

    return moved_to() || dmi_begins(root, "product_name", "Google") ||
           dmi_begins(root, "product_serial", "GoogleCloud-");
}

static void gce_close(Cloud *cloud)
{
    Gce *gce = gce_of(cloud);

    gce_token_close(gce);
    gce_publish_close(gce);
    free(gce->base);
}

static int gce_open(const CloudConfig *config, Cloud **ret, Error *err)
{
    auto_(cloud_freep) Cloud *cloud = NULL;
    auto_free char *host = NULL;
    const char *moved = moved_to();
    Gce *gce;
    int r;

    gce = cloud_object_new(&cloud_gce, sizeof(*gce), config);
    if (!gce)
        return error_oom(err);
    cloud = &gce->cloud;

    gce->base = str_printf("http://%s/%s", moved ? moved : METADATA_ADDRESS, PATH_PREFIX);
    if (!gce->base)
        return error_oom(err);
    r = url_host_port(gce->base, NULL, &host, NULL, err);
    if (r < 0)
        return error_prefix(err, r, "GCE_METADATA_HOST");
    gce->is_moved = moved && host_is_loopback(host);

    *ret = take_ptr(cloud);
    return 0;
}

int gce_request(const Gce *gce, const char *path, HttpRequest *ret, char **ret_url)
{
    static const HttpHeader headers[] = {{"Metadata-Flavor", "Google"}};
    char *url = str_printf("%s%s", gce->base, path);

    if (!url)
        return -ENOMEM;
    *ret = (HttpRequest){
        .url = url,
        .headers = headers,
        .n_headers = ELEMENTS(headers),
        .no_proxy = true,
        .allow_plain = true, /* it speaks nothing else, on a link that only this machine is on */
        .follow = true,      /* a directory asked for without its slash */
        .connect_timeout_usec = 5 * SECOND,
        .try_timeout_usec = 5 * SECOND,
        .retry = {.tries = 5, .base_usec = 500 * MSEC, .cap_usec = 5 * SECOND},
        .total_timeout_usec = 30 * SECOND,
    };
    *ret_url = url;
    return 0;
}

const CloudOps cloud_gce = {
    .name = "gce",
    .detect = gce_detect,
    .open = gce_open,
    .close = gce_close,
    .watch = gce_watch,
    .read = gce_read,
    .token = gce_token,
    .token_invalidate = gce_token_invalidate,
    .judge = gce_judge,
    .secret = gce_secret,
    .secret_check_name = gce_secret_check_name,
    .login_applies = gce_login_applies,
    .login_realm_allowed = gce_login_realm_allowed,
    .login = gce_login,
    .login_refused = gce_login_refused,
    .login_explain = gce_login_explain,
    .scopes_suffice = gce_scopes_suffice,
    .apis = &gce_apis,
    .cure = gce_cure,
    .publish = gce_publish,
};
