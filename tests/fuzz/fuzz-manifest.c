/* SPDX-License-Identifier: Apache-2.0 */

/* Manifests, indexes and config blobs. The first byte says as what it was served. */

#include <string.h>

#include "agent/base/str.h"
#include "agent/engine/manifest.h"
#include "agent/engine/reference.h"
#include "tests/fuzz/fuzz.h"

static const char *const served_as[] = {
    "",
    "application/json; charset=utf-8",
    MEDIA_TYPE_OCI_INDEX,
    MEDIA_TYPE_DOCKER_LIST,
    MEDIA_TYPE_OCI_MANIFEST,
    MEDIA_TYPE_DOCKER_MANIFEST,
};

static void check_index(const Manifest *manifest)
{
    const Platform platform = {.os = "linux", .architecture = "amd64"};
    const ManifestEntry *entry = NULL;
    auto_error Error err = {0};

    for (size_t i = 0; i < manifest->n_entries; i++)
        FUZZ_CHECK(digest_is_valid(manifest->entries[i].digest));
    if (manifest_choose(manifest, &platform, "app:v1", &entry, &err) >= 0) {
        FUZZ_CHECK(platform_matches(&platform, &entry->platform) && !entry->is_attestation);
    } else {
        FUZZ_CHECK(!entry && err.remedy && str_is_utf8(err.message, strlen(err.message)));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_(manifest_freep) Manifest *manifest = NULL;
    auto_free char *text = NULL;
    Platform platform;

    if (size == 0)
        return 0;
    text = malloc(size);
    if (!text)
        return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';

    if (config_parse_platform(text, size - 1, &platform, NULL) >= 0)
        FUZZ_CHECK(platform.os[0] && platform.architecture[0]);
    if (manifest_parse(text, size - 1, served_as[data[0] % ELEMENTS(served_as)], &manifest, NULL) <
        0) {
        FUZZ_CHECK(!manifest);
        return 0;
    }
    FUZZ_CHECK(strstr(MANIFEST_ACCEPT, manifest->media_type));
    if (manifest->kind == MANIFEST_INDEX)
        check_index(manifest);
    else
        FUZZ_CHECK(digest_is_valid(manifest->config_digest) &&
                   manifest->compressed_bytes >= manifest->config_size);

    return 0;
}
