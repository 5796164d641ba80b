/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "agent/base/file.h"
#include "agent/engine/manifest.h"

#define HEX64  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "sha256:" HEX64

static const Platform amd64 = {.os = "linux", .architecture = "amd64"};
static const Platform arm64 = {.os = "linux", .architecture = "arm64"};
static const Platform arm_v7 = {.os = "linux", .architecture = "arm", .variant = "v7"};

static void read_fixture(const char *name, Buf *ret)
{
    auto_error Error err = {0};
    const char *top = getenv("srcdir");
    auto_free char *path = str_printf("%s/tests/fixtures/oci/%s", top ? top : ".", name);

    assert_ok(file_read(path, MANIFEST_SIZE_MAX, ret, &err), &err);
}

static Manifest *parse_fixture(const char *name, const char *content_type)
{
    auto_error Error err = {0};
    auto_buf Buf text = BUF_INIT(MANIFEST_SIZE_MAX);
    Manifest *manifest = NULL;

    read_fixture(name, &text);
    assert_ok(manifest_parse(text.data, text.size, content_type, &manifest, &err), &err);
    return manifest;
}

static void image_manifests_of_both_families_are_read(void **state)
{
    static const struct {
        const char *file, *content_type, *media_type;
    } cases[] = {
        {"manifests/v2s2.manifest.json", MEDIA_TYPE_DOCKER_MANIFEST, MEDIA_TYPE_DOCKER_MANIFEST},
        {"manifests/v2s2.manifest.json", "application/json", MEDIA_TYPE_DOCKER_MANIFEST},
        {"manifests/ociv1.manifest.json", MEDIA_TYPE_OCI_MANIFEST "; charset=utf-8",
         MEDIA_TYPE_OCI_MANIFEST},
        {"manifests/ociv1nomime.manifest.json", MEDIA_TYPE_OCI_MANIFEST, MEDIA_TYPE_OCI_MANIFEST},
        {"manifests/ociv1nomime.manifest.json", "", MEDIA_TYPE_OCI_MANIFEST},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_(manifest_freep) Manifest *manifest =
            parse_fixture(cases[i].file, cases[i].content_type);

        assert_int_equal(manifest->kind, MANIFEST_IMAGE);
        assert_string_equal(manifest->media_type, cases[i].media_type);
        assert_int_equal(manifest->n_layers, 3);
        assert_int_equal(manifest->compressed_bytes, 7023 + 32654 + 16724 + 73109);
        assert_int_equal(manifest->config_size, 7023);
        assert_string_equal(
            manifest->config_digest,
            "sha256:b5b2b2c507a0944348e0303114d8d93aaaa081732b86451d9bce1f432a537bc7");
    }
}

static void an_index_gives_the_entry_of_the_platform(void **state)
{
    auto_(manifest_freep) Manifest *index =
        parse_fixture("manifests/ociv1.image.index.json", MEDIA_TYPE_OCI_INDEX);
    const ManifestEntry *entry = NULL;
    auto_error Error err = {0};

    assert_int_equal(index->kind, MANIFEST_INDEX);
    assert_int_equal(index->n_entries, 2);
    assert_ok(manifest_choose(index, &amd64, "app", &entry, &err), &err);
    assert_string_equal(entry->digest,
                        "sha256:5b0bcabd1ed22e9fb1310cf6c2dec7cdef19f0ad69efa1f392e94a4333501270");
    assert_int_equal(entry->size, 7682);
}

static void a_missing_platform_lists_those_there_and_the_build_command(void **state)
{
    auto_(manifest_freep) Manifest *index =
        parse_fixture("manifests/ociv1.image.index.json", MEDIA_TYPE_OCI_INDEX);
    const ManifestEntry *entry = NULL;
    auto_error Error err = {0};

    assert_int_equal(manifest_choose(index, &arm64, "host/p/app:v6", &entry, &err), -ENOEXEC);
    assert_int_equal(err.kind, ERROR_INVALID);
    assert_string_equal(err.message, "image host/p/app:v6 is not built for linux/arm64, which this "
                                     "machine is; it is there for linux/ppc64le, linux/amd64");
    assert_string_equal(err.remedy,
                        "docker buildx build --platform linux/arm64 --push -t host/p/app:v6 .");
    assert_null(entry);
}

/* A v7 machine runs v6, prefers v7, and takes what names no variant for v7. */
static void variants_are_chosen_by_what_the_machine_runs(void **state)
{
    auto_(manifest_freep) Manifest *index =
        parse_fixture("manifests/schema2list-variants.json", MEDIA_TYPE_DOCKER_LIST);
    const Platform arm_v6 = {.os = "linux", .architecture = "arm", .variant = "v6"};
    const Platform arm_v5 = {.os = "linux", .architecture = "arm", .variant = "v5"};
    const ManifestEntry *entry = NULL;

    assert_int_equal(manifest_choose(index, &arm_v7, "app", &entry, NULL), 0);
    assert_string_equal(entry->platform.variant, "");
    assert_int_equal(manifest_choose(index, &arm_v6, "app", &entry, NULL), 0);
    assert_string_equal(entry->platform.variant, "v6");
    assert_int_equal(manifest_choose(index, &arm_v5, "app", &entry, NULL), -ENOEXEC);
}

static void platforms_match_across_spellings(void **state)
{
    const Platform arm64_v8 = {.os = "linux", .architecture = "arm64", .variant = "v8"};
    const Platform arm64_v9 = {.os = "linux", .architecture = "arm64", .variant = "v9"};
    const Platform amd64_v3 = {.os = "linux", .architecture = "amd64", .variant = "v3"};
    const Platform windows = {.os = "windows", .architecture = "amd64"};
    Platform platform;
    char text[PLATFORM_TEXT_MAX];

    assert_true(platform_matches(&arm64, &arm64_v8));
    assert_true(platform_matches(&arm64_v8, &arm64));
    assert_false(platform_matches(&arm64, &arm64_v9));
    assert_false(platform_matches(&amd64, &amd64_v3));
    assert_true(platform_matches(&amd64_v3, &amd64));
    assert_false(platform_matches(&amd64, &windows));
    assert_false(platform_matches(&amd64, &arm64));

    platform_from_machine("x86_64", &platform);
    assert_string_equal(platform_text(text, &platform), "linux/amd64");
    platform_from_machine("aarch64", &platform);
    assert_string_equal(platform_text(text, &platform), "linux/arm64");
    platform_from_machine("armv7l", &platform);
    assert_string_equal(platform_text(text, &platform), "linux/arm/v7");
    platform_from_machine("sparc64", &platform);
    assert_string_equal(platform_text(text, &platform), "linux/sparc64");
}

#define ENTRY(type, hex, rest)                                                                     \
    "{\"mediaType\":\"" type "\",\"size\":1,\"digest\":\"sha256:" hex "\"" rest "}"
#define HEX_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static Manifest *parse_text(const char *text)
{
    auto_error Error err = {0};
    Manifest *manifest = NULL;

    assert_ok(manifest_parse(text, strlen(text), "", &manifest, &err), &err);
    return manifest;
}

static void attestations_are_no_images(void **state)
{
    auto_(manifest_freep)
        Manifest *index =
            parse_text(
                "{\"schemaVersion\":2,\"mediaType\":\"" MEDIA_TYPE_OCI_INDEX
                "\",\"manifests\":[" ENTRY(MEDIA_TYPE_OCI_MANIFEST, HEX_A,
                                           ",\"platform\":{\"os\":\"linux\",\"architecture\":"
                                           "\"amd64\"},\"annotations\":"
                                           "{\"vnd.docker.reference.type\":\"attestation-"
                                           "manifest\"}") "," ENTRY(MEDIA_TYPE_OCI_MANIFEST, HEX_A,
                                                                    ",\"platform\":{\"os\":"
                                                                    "\"unknown\",\"architecture\":"
                                                                    "\"unknown\"}") "," ENTRY(MEDIA_TYPE_OCI_MANIFEST,
                                                                                              HEX64,
                                                                                              ",\"p"
                                                                                              "latf"
                                                                                              "orm"
                                                                                              "\":{"
                                                                                              "\"os"
                                                                                              "\":"
                                                                                              "\"li"
                                                                                              "nux"
                                                                                              "\","
                                                                                              "\"ar"
                                                                                              "chit"
                                                                                              "ectu"
                                                                                              "re\""
                                                                                              ":\"a"
                                                                                              "md64"
                                                                                              "\"}") "]}");
    const ManifestEntry *entry = NULL;
    auto_error Error err = {0};

    assert_ok(manifest_choose(index, &amd64, "app", &entry, &err), &err);
    assert_string_equal(entry->digest, DIGEST);
    assert_int_equal(manifest_choose(index, &arm64, "app", &entry, &err), -ENOEXEC);
    assert_contains(err.message, "it is there for linux/amd64");
    assert_null(strstr(err.message, "unknown"));
}

static void an_index_of_indexes_is_refused_with_a_message(void **state)
{
    auto_(manifest_freep) Manifest *index = parse_text("{\"schemaVersion\":2,\"manifests\":[" ENTRY(
        MEDIA_TYPE_OCI_INDEX, HEX64,
        ",\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}") "]}");
    const ManifestEntry *entry = NULL;
    auto_error Error err = {0};

    assert_int_equal(manifest_choose(index, &amd64, "app", &entry, &err), -EINVAL);
    assert_contains(err.message, "index of indexes");
    assert_non_null(err.remedy);
}

static void an_empty_index_says_so(void **state)
{
    auto_(manifest_freep) Manifest *index = parse_text("{\"schemaVersion\":2,\"manifests\":[]}");
    const ManifestEntry *entry = NULL;
    auto_error Error err = {0};

    assert_int_equal(manifest_choose(index, &amd64, "app", &entry, &err), -ENOEXEC);
    assert_contains(err.message, "it is there for no platform");
}

static void what_is_no_image_is_refused(void **state)
{
    static const struct {
        const char *file;
        int code;
        ErrorKind kind;
        const char *message;
    } cases[] = {
        {"manifests/oci1-artifact.json", -EINVAL, ERROR_INVALID, "an artifact of type"},
        {"manifests/unknown-version.manifest.json", -EINVAL, ERROR_INVALID, "schema 99999"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_(manifest_freep) Manifest *manifest = NULL;
        auto_buf Buf text = BUF_INIT(MANIFEST_SIZE_MAX);
        auto_error Error err = {0};

        read_fixture(cases[i].file, &text);
        assert_int_equal(manifest_parse(text.data, text.size, "", &manifest, &err), cases[i].code);
        assert_int_equal(err.kind, cases[i].kind);
        assert_contains(err.message, cases[i].message);
    }
}

static void what_contradicts_its_schema_is_corrupt(void **state)
{
    static const char config[] = "\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1"
                                 "+json\",\"size\":1,\"digest\":\"" DIGEST "\"}";
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "manifest"},
        {"<html>", "expected a value"},
        {"[]", "no JSON object"},
        {"{}", "schemaVersion"},
        {"{\"schemaVersion\":2,\"manifests\":{}}", "list of manifests"},
        {"{\"schemaVersion\":2,\"manifests\":[{}]}", "digest"},
        {"{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"" DIGEST "\",\"size\":-1}]}", "size"},
        {"{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"sha256:../x\",\"size\":1}]}", "digest"},
        {"{\"schemaVersion\":2,\"manifests\":[],\"layers\":[]}", "at once"},
        {"{\"schemaVersion\":2,\"layers\":[]}", "without config"},
    };
    auto_(manifest_freep) Manifest *manifest = NULL;
    auto_free char *conflict =
        str_printf("{\"schemaVersion\":2,\"mediaType\":\"%s\",%s,\"layers\":[]}",
                   MEDIA_TYPE_OCI_MANIFEST, config);
    auto_error Error conflict_err = {0};

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_error Error err = {0};

        if (manifest_parse(cases[i].text, strlen(cases[i].text), "", &manifest, &err) != -EBADMSG)
            fail_msg("%s was taken", cases[i].text);
        assert_int_equal(err.kind, ERROR_CORRUPT);
        assert_contains(err.message, cases[i].message);
    }

    assert_int_equal(
        manifest_parse(conflict, strlen(conflict), MEDIA_TYPE_OCI_INDEX, &manifest, &conflict_err),
        -EBADMSG);
    assert_contains(conflict_err.message, "served as");
}

static void sizes_that_overflow_are_corrupt(void **state)
{
    auto_(manifest_freep) Manifest *manifest = NULL;
    auto_error Error err = {0};
    static const char layer[] = "{\"size\":9223372036854775807,\"digest\":\"" DIGEST "\"}";
    auto_free char *text =
        str_printf("{\"schemaVersion\":2,\"config\":{\"size\":2,\"digest\":\"" DIGEST
                   "\"},\"layers\":[%s,%s]}",
                   layer, layer);

    assert_int_equal(manifest_parse(text, strlen(text), "", &manifest, &err), -EBADMSG);
    assert_contains(err.message, "larger than any number");
}

static void a_config_says_its_platform(void **state)
{
    auto_buf Buf text = BUF_INIT(MANIFEST_SIZE_MAX);
    auto_error Error err = {0};
    Platform platform;

    read_fixture("manifests/schema2-config.json", &text);
    assert_ok(config_parse_platform(text.data, text.size, &platform, &err), &err);
    assert_string_equal(platform.architecture, "amd64");
    assert_int_equal(manifest_check_platform(&arm64, &platform, "app:v1", &err), -ENOEXEC);
    assert_contains(err.message, "it is there for linux/amd64");
    assert_contains(err.remedy, "--platform linux/arm64");

    error_done(&err);
    assert_int_equal(config_parse_platform("{\"os\":\"linux\"}", 14, &platform, &err), -EBADMSG);
}

/* Every manifest of a real OCI layout reads or is refused with a reason, never crashes. */
static void a_layouts_blobs_are_read(void **state)
{
    auto_(manifest_freep) Manifest *index = parse_fixture("layout-testrepo/index.json", "");

    assert_int_equal(index->kind, MANIFEST_INDEX);
    assert_true(index->n_entries > 3);
    for (size_t i = 0; i < index->n_entries; i++) {
        auto_free char *name = str_printf("layout-testrepo/blobs/sha256/%s",
                                          startswith(index->entries[i].digest, "sha256:"));
        auto_(manifest_freep) Manifest *manifest = NULL;
        auto_error Error err = {0};
        auto_buf Buf text = BUF_INIT(MANIFEST_SIZE_MAX);
        int r;

        read_fixture(name, &text);
        assert_int_equal(text.size, index->entries[i].size);
        r = manifest_parse(text.data, text.size, index->entries[i].media_type, &manifest, &err);
        if (r < 0)
            assert_int_equal(err.kind, ERROR_INVALID);
        else
            assert_string_equal(manifest->media_type, index->entries[i].media_type);
    }
}

TEST_MAIN(cmocka_unit_test(image_manifests_of_both_families_are_read),
          cmocka_unit_test(an_index_gives_the_entry_of_the_platform),
          cmocka_unit_test(a_missing_platform_lists_those_there_and_the_build_command),
          cmocka_unit_test(variants_are_chosen_by_what_the_machine_runs),
          cmocka_unit_test(platforms_match_across_spellings),
          cmocka_unit_test(attestations_are_no_images),
          cmocka_unit_test(an_index_of_indexes_is_refused_with_a_message),
          cmocka_unit_test(an_empty_index_says_so), cmocka_unit_test(what_is_no_image_is_refused),
          cmocka_unit_test(what_contradicts_its_schema_is_corrupt),
          cmocka_unit_test(sizes_that_overflow_are_corrupt),
          cmocka_unit_test(a_config_says_its_platform), cmocka_unit_test(a_layouts_blobs_are_read))
