/* SPDX-License-Identifier: Apache-2.0 */

/* What the metadata server and Secret Manager answer, byte for byte: tokens, scopes, the tree, the
 * value of a secret and its checksum, a version, refusals. The first byte chooses the errand. A
 * secret that is handed over is whole; every refusal has words, and none of them quotes a token. */

#include <string.h>

#include "agent/base/str.h"
#include "agent/cloud/cloud.h"
#include "tests/fuzz/peer.h"

static void check_error(const Error *err)
{
    FUZZ_CHECK(err->code < 0 && err->message && str_is_utf8(err->message, strlen(err->message)));
    FUZZ_CHECK(!strpbrk(err->message, "\n\r\033"));
}

static void on_token(const char *token, const Error *err, void *userdata)
{
    *(bool *)userdata = true;
    FUZZ_CHECK(!token == !!err);
    if (err)
        check_error(err);
    else
        FUZZ_CHECK(*token && !strpbrk(token, "\r\n"));
}

static void on_secret(CloudSecret *secret, const Error *err, void *userdata)
{
    *(bool *)userdata = true;
    FUZZ_CHECK(!secret == !!err);
    if (err) {
        check_error(err);
        return;
    }
    FUZZ_CHECK(secret->version && *secret->version && secret->resource);
    FUZZ_CHECK(strspn(secret->version, "0123456789") == strlen(secret->version));
    FUZZ_CHECK(endswith(secret->resource, secret->version));
}

static void on_snapshot(const CloudSnapshot *snapshot, const Error *err, void *userdata)
{
    *(bool *)userdata = true;
    FUZZ_CHECK(!snapshot == !!err);
    if (err)
        check_error(err);
    else
        FUZZ_CHECK(snapshot->identity->instance_id && snapshot->plan_where);
}

static void on_login(const char *user, const char *password, const Error *err, void *userdata)
{
    *(bool *)userdata = true;
    FUZZ_CHECK(!user == !password);
    if (err)
        check_error(err);
}

static int begin(Cloud *cloud, unsigned errand, bool *done, CloudOp **ret)
{
    switch (errand) {
    case 0:
        return cloud_token_get(cloud, on_token, done, ret, NULL);
    case 1:
        return cloud_secret_fetch(cloud, "projects/p/secrets/KEY", "latest", on_secret, done, ret,
                                  NULL);
    case 2:
        return cloud_secret_resolve(cloud, "projects/p/secrets/KEY", "latest", on_secret, done, ret,
                                    NULL);
    case 3:
        return cloud_secret_fetch(cloud, "projects/p/secrets/KEY", "7", on_secret, done, ret, NULL);
    case 4:
        return cloud_read(cloud, on_snapshot, done, ret, NULL);
    default:
        return cloud_login_get(cloud, "asia-docker.pkg.dev", on_login, done, ret, NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CloudOp *op = NULL;
    Cloud *cloud = NULL;
    bool done = false;
    Peer peer;

    if (size == 0)
        return 0;
    peer_init(&peer, data + 1, size - 1);
    const HttpEndpoint endpoint = {"secretmanager.googleapis.com", peer.base};
    const CloudConfig config = {peer.event, peer.client, "/"};
    FUZZ_CHECK(setenv("GCE_METADATA_HOST", peer.base + strlen("http://"), 1) == 0);
    FUZZ_CHECK(http_client_set_endpoints(peer.client, &endpoint, 1, NULL) >= 0);
    FUZZ_CHECK(cloud_new(&config, &cloud, NULL) >= 0);
    if (begin(cloud, data[0] % 6, &done, &op) >= 0)
        peer_run(&peer, &done);
    op = cloud_op_free(op);
    cloud = cloud_free(cloud);
    peer_done(&peer);
    return 0;
}
