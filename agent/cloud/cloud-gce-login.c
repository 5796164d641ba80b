/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/cloud/cloud-gce.h"

#define LOGIN_USER "oauth2accesstoken"

/* "host" or "host:port" of an image reference; port 443 when it names none. */
static int split_host(const char *registry_host, char **ret_host, uint16_t *ret_port)
{
    auto_free char *url = str_printf("https://%s/", registry_host);

    if (!url)
        return -ENOMEM;
    if (strpbrk(registry_host, "/?#@\\"))
        return -EINVAL;
    return url_host_port(url, NULL, ret_host, ret_port, NULL);
}

static bool is_google_registry(const char *host, uint16_t port)
{
    return port == 443 && (host_is_within(host, "pkg.dev") || host_is_within(host, "gcr.io"));
}

/* A token that a metadata server on loopback made opens nothing outside of this machine: only then
 * may a registry on loopback see it. On a real VM no plan and no image name can bring that about,
 * since the metadata server is moved by agentd's own environment alone. */
static bool is_test_registry(const Gce *gce, const char *host)
{
    return gce->is_moved && host_is_loopback(host);
}

bool gce_login_applies(const Cloud *cloud, const char *registry_host)
{
    auto_free char *host = NULL;
    uint16_t port;

    if (split_host(registry_host, &host, &port) < 0)
        return false;
    return is_google_registry(host, port) || is_test_registry(gce_of(cloud), host);
}

bool gce_login_realm_allowed(const Cloud *cloud, const char *registry_host, const char *realm_url)
{
    auto_free char *scheme = NULL, *host = NULL;
    auto_free char *registry_url = NULL, *mapped = NULL, *mapped_host = NULL;
    uint16_t port, mapped_port;

    if (url_host_port(realm_url, &scheme, &host, &port, NULL) < 0)
        return false;
    if (streq(scheme, "https") && is_google_registry(host, port))
        return true;
    if (is_test_registry(gce_of(cloud), host))
        return true;

    /* The very place that an endpoint of the plan puts this registry at. */
    registry_url = str_printf("https://%s/", registry_host);
    if (!registry_url || http_client_map_url(cloud->http, registry_url, &mapped, NULL) < 0 ||
        streq(mapped, registry_url) ||
        url_host_port(mapped, NULL, &mapped_host, &mapped_port, NULL) < 0)
        return false;
    return streq(host, mapped_host) && port == mapped_port &&
           (streq(scheme, "https") || host_is_loopback(host));
}

typedef struct LoginOp {
    CloudOp op;
    CloudOp *token;
    CloudLoginHandler handler;
    void *userdata;
} LoginOp;

static void login_release(CloudOp *op)
{
    LoginOp *login = container_of(op, LoginOp, op);

    login->token = cloud_op_free(login->token);
}

static void on_token(const char *token, const Error *err, void *userdata)
{
    const LoginOp *login = userdata;

    login->handler(token ? LOGIN_USER : NULL, token, err, login->userdata);
}

int gce_login(Cloud *cloud, const char *registry_host, CloudLoginHandler handler, void *userdata,
              CloudOp **ret, Error *err)
{
    LoginOp *login;
    int r;

    login = cloud_op_new(cloud, sizeof(*login), login_release);
    if (!login)
        return error_oom(err);
    login->handler = handler;
    login->userdata = userdata;
    r = cloud_token_get(cloud, on_token, login, &login->token, err);
    if (r < 0) {
        cloud_op_free(&login->op);
        return r;
    }
    *ret = &login->op;
    return 0;
}

void gce_login_refused(Cloud *cloud, const char *registry_host)
{
    gce_token_invalidate(cloud, gce_of(cloud)->token);
}

/* "gcloud artifacts repositories add-iam-policy-binding REPO …" of "LOCATION-docker.pkg.dev" and
 * "PROJECT/REPO/IMAGE"; the whole project for gcr.io, which has no repositories of its own. */
static char *grant_command(const CloudIdentity *identity, const char *registry_host,
                           const char *repository)
{
    auto_(strv_freep) char **parts = str_split(repository, "/");
    const char *suffix = strstr(registry_host, "-docker.pkg.dev");
    auto_free char *location = NULL;
    const char *project = parts && parts[0] ? parts[0] : "PROJECT";

    if (!parts || strv_length(parts) < 2 || host_is_within(registry_host, "gcr.io"))
        return str_printf("gcloud projects add-iam-policy-binding %s", project);
    if (suffix)
        location = str_printf("%.*s", (int)(suffix - registry_host), registry_host);
    else
        location = strdup(identity && *identity->region ? identity->region : "LOCATION");
    if (!location)
        return NULL;
    return str_printf("gcloud artifacts repositories add-iam-policy-binding %s --location=%s "
                      "--project=%s",
                      parts[1], location, project);
}

int gce_login_explain(const Cloud *cloud, const char *registry_host, const char *repository,
                      Error *err)
{
    const CloudIdentity *identity = cloud_identity_peek(cloud);
    auto_free char *scope_remedy = NULL, *grant = NULL;

    if (!gce_scopes_suffice(identity, &scope_remedy)) {
        (void)error_prefix(err, err->code, "the VM's access scopes are too narrow");
        return error_remedy(err, err->code, "%s",
                            scope_remedy ? scope_remedy : "--scopes=cloud-platform");
    }
    grant = grant_command(identity, registry_host, repository);
    return error_remedy(
        err, err->code, "%s --member=serviceAccount:%s --role=roles/artifactregistry.reader",
        grant ? grant : "",
        identity && *identity->service_account ? identity->service_account : "ACCOUNT");
}
