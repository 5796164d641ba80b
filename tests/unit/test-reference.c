/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/engine/reference.h"

#define HEX64  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "sha256:" HEX64

static void references_are_normalized_as_the_engine_does_it(void **state)
{
    static const struct {
        const char *text, *host, *path, *tag, *digest;
    } cases[] = {
        {"nginx", "docker.io", "library/nginx", "latest", NULL},
        {"nginx:1.25", "docker.io", "library/nginx", "1.25", NULL},
        {"user/app", "docker.io", "user/app", "latest", NULL},
        {"docker.io/nginx", "docker.io", "library/nginx", "latest", NULL},
        {"index.docker.io/nginx", "docker.io", "library/nginx", "latest", NULL},
        {"docker.io/user/app:v1", "docker.io", "user/app", "v1", NULL},
        {"localhost/app", "localhost", "app", "latest", NULL},
        {"localhost:5000", "docker.io", "library/localhost", "5000", NULL},
        {"localhost:5000/app", "localhost:5000", "app", "latest", NULL},
        {"127.0.0.1:5000/a/b/c:t", "127.0.0.1:5000", "a/b/c", "t", NULL},
        {"[::1]:5000/app:t", "[::1]:5000", "app", "t", NULL},
        {"[fd00::1]/app", "[fd00::1]", "app", "latest", NULL},
        {"Registry/app", "Registry", "app", "latest", NULL},
        {"asia-northeast3-docker.pkg.dev/proj/repo/mervis:stable", "asia-northeast3-docker.pkg.dev",
         "proj/repo/mervis", "stable", NULL},
        {"gcr.io/p/deep/er/app@" DIGEST, "gcr.io", "p/deep/er/app", NULL, DIGEST},
        {"gcr.io/p/app:v1@" DIGEST, "gcr.io", "p/app", "v1", DIGEST},
        {"a__b/c.d-e--f", "docker.io", "a__b/c.d-e--f", "latest", NULL},
        {"app:_weird.Tag-1", "docker.io", "library/app", "_weird.Tag-1", NULL},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_(reference_freep) Reference *reference = NULL;
        auto_error Error err = {0};

        if (reference_parse(cases[i].text, &reference, &err) < 0)
            fail_msg("%s: %s", cases[i].text, error_text(&err));
        assert_string_equal(reference->host, cases[i].host);
        assert_string_equal(reference->path, cases[i].path);
        assert_true(streq_ptr(reference->tag, cases[i].tag));
        assert_true(streq_ptr(reference->digest, cases[i].digest));
    }
}

static void a_refusal_names_the_position_and_what_is_wrong_there(void **state)
{
    static const struct {
        const char *text;
        size_t position;
        const char *what;
    } cases[] = {
        {"", 1, "missing"},
        {"https://gcr.io/p/app", 6, "leave \"https://\" out"},
        {HEX64, 1, "image id"},
        {"user/App", 6, "lower case"},
        {"app:", 5, "tag is empty"},
        {"app:-x", 5, "begins with"},
        {"app:a/b", 5, "1 to 65535"},
        {"app:a b", 6, "consists of"},
        {"app@sha256:abc", 15, "fewer"},
        {"app@" DIGEST "0", 76, "more"},
        {"app@md5:abc", 5, "sha256:"},
        {"app@sha256:ABC", 12, "hex digits"},
        {"a//b", 3, "both sides"},
        {"/app", 1, "both sides"},
        {"gcr.io/", 8, "missing"},
        {"gcr.io/app/", 11, "both sides"},
        {"app_", 4, "both sides"},
        {"app___b", 6, "both sides"},
        {"gcr.io:0/app", 8, "1 to 65535"},
        {"gcr.io:65536/app", 8, "1 to 65535"},
        {"gcr.io:x/app", 8, "1 to 65535"},
        {"gcr..io/app", 5, "host name"},
        {"-gcr.io/app", 1, "host name"},
        {"gcr.io-/app", 7, "host name"},
        {":5000/app", 1, "empty"},
        {"[::1/app", 5, "brackets"},
        {"[::1]x:1/app", 6, "port"},
        {"app\n", 4, "consists of"},
        {"\xec\x95\xb1", 1, "consists of"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_(reference_freep) Reference *reference = NULL;
        auto_error Error err = {0};
        auto_free char *at = str_printf("character %zu:", cases[i].position);

        assert_int_equal(reference_parse(cases[i].text, &reference, &err), -EINVAL);
        assert_int_equal(err.kind, ERROR_INVALID);
        if (!strstr(err.message, at) || !strstr(err.message, cases[i].what))
            fail_msg("\"%s\": expected \"%s … %s\", got: %s", cases[i].text, at, cases[i].what,
                     err.message);
        assert_null(reference);
    }
}

static void lengths_are_bounded(void **state)
{
    char text[2048];
    auto_(reference_freep) Reference *reference = NULL;
    auto_(reference_freep) Reference *longest = NULL;

    memset(text, 'a', sizeof(text));
    text[2047] = '\0';
    assert_int_equal(reference_parse(text, &reference, NULL), -EINVAL);
    text[256] = '\0';
    assert_int_equal(reference_parse(text, &reference, NULL), -EINVAL);
    text[255] = '\0';
    assert_int_equal(reference_parse(text, &reference, NULL), -EINVAL); /* "library/…" */
    text[255 - strlen("library/")] = '\0';
    assert_int_equal(reference_parse(text, &longest, NULL), 0);
    memcpy(text, "app:", 4);
    text[4 + 129] = '\0';
    assert_int_equal(reference_parse(text, &reference, NULL), -EINVAL);
    text[4 + 128] = '\0';
    assert_int_equal(reference_parse(text, &reference, NULL), 0);
}

static void texts_are_canonical(void **state)
{
    auto_(reference_freep) Reference *a = NULL;
    auto_(reference_freep) Reference *b = NULL;
    auto_free char *text = NULL, *repository = NULL, *by_digest = NULL;

    assert_int_equal(reference_parse("nginx:1@" DIGEST, &a, NULL), 0);
    assert_int_equal(reference_parse("docker.io/library/nginx", &b, NULL), 0);
    text = reference_text(a);
    repository = reference_repository(a);
    by_digest = reference_by_digest(b, DIGEST);

    assert_string_equal(text, "docker.io/library/nginx:1@" DIGEST);
    assert_string_equal(repository, "docker.io/library/nginx");
    assert_string_equal(by_digest, "docker.io/library/nginx@" DIGEST);
    assert_true(reference_same_repository(a, b));
    assert_false(a->tag_is_implied);
    assert_true(b->tag_is_implied);
    assert_string_equal(reference_api_host(a), "registry-1.docker.io");
}

static void only_loopback_is_loopback(void **state)
{
    static const struct {
        const char *text;
        bool loopback;
    } cases[] = {
        {"127.0.0.1:5000/a", true},    {"127.8.8.8/a", true},
        {"localhost:5000/a", true},    {"localhost/a", true},
        {"[::1]:5000/a", true},        {"localhost.evil.example/a", false},
        {"127.evil.example/a", false}, {"10.0.0.1:5000/a", false},
        {"gcr.io/a", false},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_(reference_freep) Reference *reference = NULL;

        assert_int_equal(reference_parse(cases[i].text, &reference, NULL), 0);
        assert_int_equal(reference_host_is_loopback(reference), cases[i].loopback);
    }
}

static void digests_are_checked_whole(void **state)
{
    assert_true(digest_is_valid(DIGEST));
    assert_false(digest_is_valid(NULL));
    assert_false(digest_is_valid(""));
    assert_false(digest_is_valid(HEX64));
    assert_false(digest_is_valid(DIGEST "a"));
    assert_false(digest_is_valid("sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef01234567"
                                 "89abcdef"));
}

TEST_MAIN(cmocka_unit_test(references_are_normalized_as_the_engine_does_it),
          cmocka_unit_test(a_refusal_names_the_position_and_what_is_wrong_there),
          cmocka_unit_test(lengths_are_bounded), cmocka_unit_test(texts_are_canonical),
          cmocka_unit_test(only_loopback_is_loopback), cmocka_unit_test(digests_are_checked_whole))
