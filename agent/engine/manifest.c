/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/engine/manifest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/utsname.h>

#include "agent/base/buf.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/engine/reference.h"
#include "agent/io/json.h"

#define ENTRIES_MAX         1000
#define LAYERS_MAX          1000
#define PLATFORMS_SHOWN_MAX 12

/* ---- Platforms ------------------------------------------------------------------------------ */

char *platform_text(char buf[static PLATFORM_TEXT_MAX], const Platform *platform)
{
    (void)snprintf(buf, PLATFORM_TEXT_MAX, "%s/%s%s%s", platform->os, platform->architecture,
                   platform->variant[0] ? "/" : "", platform->variant);
    return buf;
}

/* Copies what fits and is a plain word; else "unknown", which matches nothing. */
static void set_word(char *to, size_t size, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    bool fine = strlen(word) < size && strspn(word, plain) == strlen(word);

    (void)snprintf(to, size, "%s", fine ? word : "unknown");
}

void platform_from_machine(const char *machine, Platform *ret)
{
    static const struct {
        const char *machine, *architecture, *variant;
    } known[] = {
        {"x86_64", "amd64", ""},        {"amd64", "amd64", ""},  {"aarch64", "arm64", ""},
        {"arm64", "arm64", ""},         {"armv8l", "arm64", ""}, {"armv7l", "arm", "v7"},
        {"armv6l", "arm", "v6"},        {"i386", "386", ""},     {"i686", "386", ""},
        {"ppc64le", "ppc64le", ""},     {"s390x", "s390x", ""},  {"riscv64", "riscv64", ""},
        {"loongarch64", "loong64", ""},
    };
    Platform platform = {.os = "linux"};

    set_word(platform.architecture, sizeof(platform.architecture), machine);
    for (size_t i = 0; i < ELEMENTS(known); i++) {
        if (!streq(machine, known[i].machine))
            continue;
        set_word(platform.architecture, sizeof(platform.architecture), known[i].architecture);
        set_word(platform.variant, sizeof(platform.variant), known[i].variant);
    }

    *ret = platform;
}

void platform_of_this_machine(Platform *ret)
{
    struct utsname name;

    platform_from_machine(uname(&name) == 0 ? name.machine : "x86_64", ret);
}

/* What an absent variant stands for. */
static const char *variant_or_default(const Platform *platform)
{
    static const struct {
        const char *architecture, *variant;
    } defaults[] = {{"arm64", "v8"}, {"arm", "v7"}, {"amd64", "v1"}};

    if (platform->variant[0])
        return platform->variant;
    for (size_t i = 0; i < ELEMENTS(defaults); i++)
        if (streq(platform->architecture, defaults[i].architecture))
            return defaults[i].variant;

    return "";
}

/* 0: does not run there; more is better. An arm or amd64 machine runs lower variants too. */
static unsigned platform_score(const Platform *wanted, const Platform *offered)
{
    static const char digits[] = "123456789";
    const char *have = variant_or_default(offered), *want = variant_or_default(wanted);
    bool lower_runs = streq(wanted->architecture, "arm") || streq(wanted->architecture, "amd64");

    if (!streq(wanted->os, offered->os) || !streq(wanted->architecture, offered->architecture))
        return 0;
    if (streq(have, want))
        return 100;
    if (lower_runs && strlen(have) == 2 && strlen(want) == 2 && have[0] == 'v' && want[0] == 'v' &&
        strchr(digits, have[1]) && strchr(digits, want[1]) && have[1] < want[1])
        return (unsigned)(have[1] - '0');

    return 0;
}

bool platform_matches(const Platform *wanted, const Platform *offered)
{
    return platform_score(wanted, offered) > 0;
}

/* ---- Parsing -------------------------------------------------------------------------------- */

static const struct {
    const char *media_type;
    ManifestKind kind;
} kinds[] = {
    {MEDIA_TYPE_OCI_INDEX, MANIFEST_INDEX},
    {MEDIA_TYPE_DOCKER_LIST, MANIFEST_INDEX},
    {MEDIA_TYPE_OCI_MANIFEST, MANIFEST_IMAGE},
    {MEDIA_TYPE_DOCKER_MANIFEST, MANIFEST_IMAGE},
};

static int kind_of(const char *media_type)
{
    for (size_t i = 0; i < ELEMENTS(kinds); i++)
        if (streq(media_type, kinds[i].media_type))
            return (int)kinds[i].kind;

    return -ENOENT;
}

static int corrupt(Error *err, const char *what)
{
    return error_set(err, -EBADMSG, ERROR_CORRUPT, "manifest: %s", what);
}

static void platform_from_json(const json_t *value, Platform *ret)
{
    const char *os = json_str(value, "os");
    const char *architecture = json_str(value, "architecture");
    const char *variant = json_str(value, "variant");

    *ret = (Platform){0};
    set_word(ret->os, sizeof(ret->os), os ? os : "");
    set_word(ret->architecture, sizeof(ret->architecture), architecture ? architecture : "");
    set_word(ret->variant, sizeof(ret->variant), variant ? variant : "");
}

static bool entry_is_attestation(const json_t *value, const Platform *platform)
{
    const char *type = json_str(json_object_get(value, "annotations"), "vnd.docker.reference.type");

    return (type && streq(type, "attestation-manifest")) ||
           (streq(platform->os, "unknown") && streq(platform->architecture, "unknown"));
}

/* The digest and size that every descriptor has. */
static int read_descriptor(const json_t *value, char **ret_digest, uint64_t *ret_size, Error *err)
{
    const char *digest = json_str(value, "digest");

    if (!digest_is_valid(digest))
        return corrupt(err, "a descriptor without a sha256 digest");
    if (json_u64(value, "size", ret_size) < 0 || *ret_size > INT64_MAX)
        return corrupt(err, "a descriptor without a size");
    if (ret_digest && str_set(ret_digest, digest) < 0)
        return error_oom(err);

    return 0;
}

static int read_entries(const json_t *list, Manifest *manifest, Error *err)
{
    size_t n = json_array_size(list);
    int r;

    if (!json_is_array(list))
        return corrupt(err, "an index without its list of manifests");
    if (n > ENTRIES_MAX)
        return corrupt(err, "an index of more than 1000 manifests");

    manifest->entries = calloc(n ? n : 1, sizeof(*manifest->entries));
    if (!manifest->entries)
        return error_oom(err);

    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(list, i);
        ManifestEntry *entry = &manifest->entries[manifest->n_entries++];
        const char *media_type = json_str(value, "mediaType");

        r = read_descriptor(value, &entry->digest, &entry->size, err);
        if (r < 0)
            return r;
        if (str_set(&entry->media_type, media_type ? media_type : "") < 0)
            return error_oom(err);
        platform_from_json(json_object_get(value, "platform"), &entry->platform);
        entry->is_attestation = entry_is_attestation(value, &entry->platform);
    }

    return 0;
}

static bool is_image_config(const char *media_type)
{
    /* Early Docker wrote the last one. */
    static const char *const types[] = {"application/vnd.oci.image.config.v1+json",
                                        "application/vnd.docker.container.image.v1+json",
                                        "application/octet-stream"};

    for (size_t i = 0; i < ELEMENTS(types); i++)
        if (streq(media_type, types[i]))
            return true;

    return false;
}

static int read_image(const json_t *doc, Manifest *manifest, Error *err)
{
    const json_t *config = json_object_get(doc, "config");
    const json_t *layers = json_object_get(doc, "layers");
    const char *config_type = json_str(config, "mediaType");
    int r;

    if (!json_is_object(config) || !json_is_array(layers))
        return corrupt(err, "an image without config or layers");
    if (json_array_size(layers) > LAYERS_MAX)
        return corrupt(err, "an image of more than 1000 layers");
    if (config_type && !is_image_config(config_type)) {
        auto_free char *shown = str_escape(config_type, strlen(config_type), 100);

        return error_set(err, -EINVAL, ERROR_INVALID,
                         "this is no container image but an artifact of type %s",
                         shown ? shown : "");
    }

    r = read_descriptor(config, &manifest->config_digest, &manifest->config_size, err);
    if (r < 0)
        return r;

    manifest->compressed_bytes = manifest->config_size;
    manifest->n_layers = json_array_size(layers);
    for (size_t i = 0; i < manifest->n_layers; i++) {
        uint64_t size = 0;

        r = read_descriptor(json_array_get(layers, i), NULL, &size, err);
        if (r < 0)
            return r;
        if (__builtin_add_overflow(manifest->compressed_bytes, size, &manifest->compressed_bytes))
            return corrupt(err, "its layers are larger than any number");
    }

    return 0;
}

/* The media type without parameters: "application/…+json; charset=utf-8". */
static char *bare_type(const char *content_type)
{
    char *type = strndup(content_type, strcspn(content_type, "; \t"));

    for (char *c = type; c && *c; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c - 'A' + 'a');

    return type;
}

/* The body's own word decides; where it has none, what the server said, and at last the shape. A
 * body that calls itself something else than its server does could be taken for either. */
static int find_media_type(const json_t *doc, const char *content_type, char **ret, Error *err)
{
    auto_free char *served = bare_type(content_type ? content_type : "");
    const char *own = json_str(doc, "mediaType");
    const char *type = own;

    if (!served)
        return error_oom(err);

    if (own && kind_of(served) >= 0 && !streq(own, served))
        return corrupt(err, "its media type is not the one it was served as");
    if (!own && kind_of(served) >= 0)
        type = served;
    else if (!own)
        type = json_object_get(doc, "manifests") ? MEDIA_TYPE_OCI_INDEX : MEDIA_TYPE_OCI_MANIFEST;

    return str_set(ret, type) < 0 ? error_oom(err) : 0;
}

static int check_schema(const json_t *doc, Error *err)
{
    uint64_t version = 0;

    if (!json_is_object(doc))
        return corrupt(err, "it is no JSON object");
    if (json_u64(doc, "schemaVersion", &version) < 0)
        return corrupt(err, "it has no schemaVersion");
    if (version == 1) {
        (void)error_set(err, -EINVAL, ERROR_INVALID,
                        "the image has a manifest of schema 1, which engines no longer pull");
        return error_remedy(err, -EINVAL, "push the image again with a current docker");
    }
    if (version != 2)
        return error_set(err, -EINVAL, ERROR_INVALID,
                         "the image has a manifest of schema %" PRIu64 ", which is not known",
                         version);
    if (json_object_get(doc, "manifests") && json_object_get(doc, "layers"))
        return corrupt(err, "it is an index and an image at once");

    return 0;
}

int manifest_parse(const char *data, size_t size, const char *content_type, Manifest **ret,
                   Error *err)
{
    auto_(manifest_freep) Manifest *manifest = NULL;
    json_auto_t *doc = NULL;
    int r, kind;

    if (size > MANIFEST_SIZE_MAX)
        return corrupt(err, "over 4 MiB");
    r = json_parse(data, size, "manifest", &doc, err);
    if (r < 0)
        return r;
    r = check_schema(doc, err);
    if (r < 0)
        return r;

    manifest = calloc(1, sizeof(*manifest));
    if (!manifest)
        return error_oom(err);
    r = find_media_type(doc, content_type, &manifest->media_type, err);
    if (r < 0)
        return r;
    kind = kind_of(manifest->media_type);
    if (kind < 0) {
        auto_free char *shown = str_escape(manifest->media_type, strlen(manifest->media_type), 100);

        return error_set(err, -EINVAL, ERROR_INVALID, "a manifest of type %s is no container image",
                         shown ? shown : "");
    }

    manifest->kind = (ManifestKind)kind;
    r = manifest->kind == MANIFEST_INDEX
            ? read_entries(json_object_get(doc, "manifests"), manifest, err)
            : read_image(doc, manifest, err);
    if (r < 0)
        return r;

    *ret = take_ptr(manifest);
    return 0;
}

Manifest *manifest_free(Manifest *manifest)
{
    if (!manifest)
        return NULL;

    for (size_t i = 0; i < manifest->n_entries; i++) {
        free(manifest->entries[i].media_type);
        free(manifest->entries[i].digest);
    }
    free(manifest->entries);
    free(manifest->media_type);
    free(manifest->config_digest);
    free(manifest);
    return NULL;
}

/* ---- Choosing ------------------------------------------------------------------------------- */

static int wrong_platform(const Platform *wanted, const char *there, const char *name, Error *err)
{
    char text[PLATFORM_TEXT_MAX];

    platform_text(text, wanted);
    (void)error_set(err, -ENOEXEC, ERROR_INVALID,
                    "image %s is not built for %s, which this machine is; it is there for %s", name,
                    text, there);
    return error_remedy(err, -ENOEXEC, "docker buildx build --platform %s --push -t %s .", text,
                        name);
}

/* "linux/arm64, linux/arm/v7 and 3 more", or "no platform". */
static char *platforms_there(const Manifest *index)
{
    auto_buf Buf text = BUF_INIT(4096);
    size_t n = 0;

    for (size_t i = 0; i < index->n_entries; i++) {
        const ManifestEntry *entry = &index->entries[i];
        char one[PLATFORM_TEXT_MAX];

        if (entry->is_attestation || !entry->platform.os[0])
            continue;
        if (n++ >= PLATFORMS_SHOWN_MAX)
            continue;
        if (buf_printf(&text, "%s%s", n > 1 ? ", " : "", platform_text(one, &entry->platform)) < 0)
            return NULL;
    }
    if (n > PLATFORMS_SHOWN_MAX && buf_printf(&text, " and %zu more", n - PLATFORMS_SHOWN_MAX) < 0)
        return NULL;
    if (n == 0 && buf_add_str(&text, "no platform") < 0)
        return NULL;

    return buf_take(&text);
}

int manifest_choose(const Manifest *index, const Platform *platform, const char *name,
                    const ManifestEntry **ret, Error *err)
{
    const ManifestEntry *best = NULL;
    unsigned best_score = 0;
    bool nested = false;

    for (size_t i = 0; i < index->n_entries; i++) {
        const ManifestEntry *entry = &index->entries[i];
        unsigned score = platform_score(platform, &entry->platform);

        if (entry->is_attestation)
            continue;
        if (kind_of(entry->media_type) == MANIFEST_INDEX) {
            nested = true;
            continue;
        }
        /* The first of equals, as the engine chooses. */
        if (score > best_score) {
            best = entry;
            best_score = score;
        }
    }

    if (!best && nested) {
        (void)error_set(err, -EINVAL, ERROR_INVALID,
                        "image %s is an index of indexes, which container engines do not pull",
                        name);
        return error_remedy(err, -EINVAL, "docker buildx imagetools create -t %s IMAGE@DIGEST…",
                            name);
    }
    if (!best) {
        auto_free char *there = platforms_there(index);

        return there ? wrong_platform(platform, there, name, err) : error_oom(err);
    }

    *ret = best;
    return 0;
}

int manifest_check_platform(const Platform *wanted, const Platform *offered, const char *name,
                            Error *err)
{
    char there[PLATFORM_TEXT_MAX];

    if (platform_matches(wanted, offered))
        return 0;

    return wrong_platform(wanted, platform_text(there, offered), name, err);
}

int config_parse_platform(const char *data, size_t size, Platform *ret, Error *err)
{
    json_auto_t *doc = NULL;
    Platform platform;
    int r;

    r = json_parse(data, size, "image config", &doc, err);
    if (r < 0)
        return r;

    platform_from_json(doc, &platform);
    if (!platform.os[0] || !platform.architecture[0])
        return error_set(err, -EBADMSG, ERROR_CORRUPT,
                         "image config: it does not say its os and architecture");

    *ret = platform;
    return 0;
}
