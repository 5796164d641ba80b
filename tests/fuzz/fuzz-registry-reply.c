/* SPDX-License-Identifier: Apache-2.0 */

/* A registry's answers, byte for byte: challenges, token services, manifests, indexes, config
 * blobs, lists of tags and the Link to their next page, refusals. The first byte chooses what is
 * asked. An image that comes of it has valid digests; every refusal has words. */

#include <string.h>

#include "agent/base/str.h"
#include "agent/engine/registry.h"
#include "tests/fuzz/peer.h"

#define KNOWN "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void on_image(RegistryOp *op, const RegistryImage *image, const Error *err, void *userdata)
{
    bool *done = userdata;

    FUZZ_CHECK(!*done && !image == !!err);
    *done = true;
    if (err) {
        FUZZ_CHECK(err->code < 0 && err->message &&
                   str_is_utf8(err->message, strlen(err->message)));
        FUZZ_CHECK(!err->remedy || str_is_utf8(err->remedy, strlen(err->remedy)));
        FUZZ_CHECK(!strpbrk(err->message, "\n\r\033"));
        return;
    }
    FUZZ_CHECK(digest_is_valid(image->digest));
    if (image->unchanged)
        return;
    FUZZ_CHECK(digest_is_valid(image->manifest_digest) && digest_is_valid(image->config_digest));
    FUZZ_CHECK(streq(image->platform.os, "linux") && streq(image->platform.architecture, "amd64"));
}

static void want_credentials(RegistryOp *op, const char *host, bool again, void *userdata)
{
    FUZZ_CHECK(host && *host);
    registry_give_credentials(op, again ? NULL : "user", again ? NULL : "password", NULL);
}

static void explain(const RegistryDenial *denial, Error *err, void *userdata)
{
    FUZZ_CHECK(denial->host && denial->path && denial->code && denial->message);
    FUZZ_CHECK(str_is_utf8(denial->message, strlen(denial->message)));
}

static const RegistryAuth auth = {want_credentials, explain};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const Platform platform = {.os = "linux", .architecture = "amd64"};
    auto_(reference_freep) Reference *reference = NULL;
    auto_free char *text = NULL;
    RegistryOp *op = NULL;
    bool done = false;
    Peer peer;

    if (size == 0)
        return 0;
    peer_init(&peer, data + 1, size - 1);
    const HttpEndpoint endpoint = {"auth.example", peer.base};
    FUZZ_CHECK(http_client_set_endpoints(peer.client, &endpoint, 1, NULL) >= 0);
    text = str_printf("%s/p/app%s", peer.base + strlen("http://"),
                      data[0] & 1 ? "@" KNOWN : ":stable");
    FUZZ_CHECK(text && reference_parse(text, &reference, NULL) >= 0);
    const RegistryQuery query = {.reference = reference,
                                 .platform = &platform,
                                 .known_digest = data[0] & 2 ? KNOWN : NULL,
                                 .auth = data[0] & 4 ? NULL : &auth,
                                 .tries = 1};
    if (registry_resolve(peer.client, peer.event, &query, on_image, &done, &op, NULL) >= 0)
        peer_run(&peer, &done);
    op = registry_op_free(op);
    peer_done(&peer);
    return 0;
}
