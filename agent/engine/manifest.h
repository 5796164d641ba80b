/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_ENGINE_MANIFEST_H
#define AGENT_ENGINE_MANIFEST_H

/* What a registry serves for a tag: an image manifest, or an index of them by platform; Docker's
 * media types and OCI's. Pure functions over bytes. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/error.h"

#define MEDIA_TYPE_OCI_INDEX       "application/vnd.oci.image.index.v1+json"
#define MEDIA_TYPE_DOCKER_LIST     "application/vnd.docker.distribution.manifest.list.v2+json"
#define MEDIA_TYPE_OCI_MANIFEST    "application/vnd.oci.image.manifest.v1+json"
#define MEDIA_TYPE_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
/* All four, always: leaving one out gives a 404 or a converted manifest with another digest. */
#define MANIFEST_ACCEPT                                                                            \
    MEDIA_TYPE_OCI_INDEX ", " MEDIA_TYPE_DOCKER_LIST ", " MEDIA_TYPE_OCI_MANIFEST                  \
                         ", " MEDIA_TYPE_DOCKER_MANIFEST
#define MANIFEST_SIZE_MAX (4U << 20)
#define CONFIG_SIZE_MAX   (8U << 20)

typedef struct Platform {
    char os[32];
    char architecture[32];
    char variant[16]; /* "" where there is none */
} Platform;

#define PLATFORM_TEXT_MAX 96
/* "linux/arm64/v8". */
char *platform_text(char buf[static PLATFORM_TEXT_MAX], const Platform *platform);
/* Of `uname -m`, or of the engine's Architecture: x86_64 → amd64, aarch64 → arm64, armv7l → arm/v7.
 * Unknown machines keep their name. */
void platform_from_machine(const char *machine, Platform *ret);
void platform_of_this_machine(Platform *ret);
/* Whether an image for `offered` runs on `wanted`: arm64 without variant and arm64/v8 are one. */
bool platform_matches(const Platform *wanted, const Platform *offered);

typedef enum ManifestKind {
    MANIFEST_IMAGE,
    MANIFEST_INDEX,
} ManifestKind;

typedef struct ManifestEntry {
    char *media_type;
    char *digest;
    uint64_t size;
    Platform platform;   /* os "" where the entry has none */
    bool is_attestation; /* provenance and the like: no image */
} ManifestEntry;

typedef struct Manifest {
    ManifestKind kind;
    char *media_type;
    ManifestEntry *entries; /* of an index */
    size_t n_entries;
    char *config_digest; /* of an image */
    uint64_t config_size;
    uint64_t compressed_bytes; /* layers and config: what a pull downloads */
    size_t n_layers;
} Manifest;

/* `content_type` decides where the body has no mediaType. CORRUPT where it contradicts its schema;
 * INVALID where it is well-formed but no container image (schema 1, an artifact). */
int manifest_parse(const char *data, size_t size, const char *content_type, Manifest **ret,
                   Error *err) must_check;
Manifest *manifest_free(Manifest *manifest);
DEFINE_AUTO(Manifest, manifest_free)

/* The entry of an index for the platform, the exact variant first. -ENOEXEC, kind INVALID: lists
 * the platforms that are there, and the remedy is the build command that adds ours. `name` is the
 * image as a person knows it. A nested index is refused. */
int manifest_choose(const Manifest *index, const Platform *platform, const char *name,
                    const ManifestEntry **ret, Error *err) must_check;
/* The same verdict for a single image whose config blob says what it is. */
int manifest_check_platform(const Platform *wanted, const Platform *offered, const char *name,
                            Error *err) must_check;

/* os, architecture and variant of a config blob. */
int config_parse_platform(const char *data, size_t size, Platform *ret, Error *err) must_check;

#endif
