/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/str.h"
#include "agent/engine/challenge.h"

#define auto_challenges auto_(challenges_done)

static const char *param(const Challenges *list, const char *scheme, const char *name)
{
    const Challenge *challenge = challenges_find(list, scheme);

    return challenge ? challenge_param(challenge, name) : NULL;
}

static void a_bearer_challenge_gives_realm_service_and_scope(void **state)
{
    auto_challenges Challenges list = {0};

    assert_int_equal(
        challenges_parse("Bearer realm=\"https://auth.docker.io/token\","
                         "service=\"registry.docker.io\",scope=\"repository:a/b:pull\"",
                         &list, NULL),
        0);
    assert_int_equal(list.n_items, 1);
    assert_string_equal(param(&list, "bearer", "realm"), "https://auth.docker.io/token");
    assert_string_equal(param(&list, "bearer", "service"), "registry.docker.io");
    assert_string_equal(param(&list, "bearer", "scope"), "repository:a/b:pull");
}

/* Artifact Registry may send the realm alone. */
static void service_and_scope_may_be_missing(void **state)
{
    auto_challenges Challenges list = {0};

    assert_int_equal(
        challenges_parse("Bearer realm=\"https://x-docker.pkg.dev/v2/token\"", &list, NULL), 0);
    assert_non_null(param(&list, "bearer", "realm"));
    assert_null(param(&list, "bearer", "service"));
    assert_null(param(&list, "bearer", "scope"));
}

static void names_are_case_insensitive_and_values_are_not(void **state)
{
    auto_challenges Challenges list = {0};

    assert_int_equal(
        challenges_parse("BEARER Realm=\"https://H/Token\" , SERVICE = Bare.Value", &list, NULL),
        0);
    assert_string_equal(param(&list, "bearer", "realm"), "https://H/Token");
    assert_string_equal(param(&list, "bearer", "service"), "Bare.Value");
}

static void several_challenges_in_one_line_are_told_apart(void **state)
{
    auto_challenges Challenges list = {0};

    /* The example of RFC 7235, and a token68 scheme between. */
    assert_int_equal(
        challenges_parse("Newauth realm=\"apps\", type=1, title=\"Login to \\\"apps\\\"\","
                         " Negotiate YIIabc==, , Basic realm=\"simple, or not\","
                         "Digest",
                         &list, NULL),
        0);
    assert_int_equal(list.n_items, 4);
    assert_string_equal(param(&list, "newauth", "title"), "Login to \"apps\"");
    assert_string_equal(param(&list, "newauth", "type"), "1");
    assert_string_equal(challenges_find(&list, "negotiate")->token68, "YIIabc==");
    assert_string_equal(param(&list, "basic", "realm"), "simple, or not");
    assert_int_equal(challenges_find(&list, "digest")->n_params, 0);
}

static void several_lines_add_up(void **state)
{
    auto_challenges Challenges list = {0};

    assert_int_equal(challenges_parse("Basic realm=x", &list, NULL), 0);
    assert_int_equal(challenges_parse("Bearer realm=\"https://h/t\"", &list, NULL), 0);
    assert_int_equal(list.n_items, 2);
    assert_string_equal(param(&list, "basic", "realm"), "x");
    assert_string_equal(param(&list, "bearer", "realm"), "https://h/t");
}

static void an_empty_header_has_no_challenge(void **state)
{
    auto_challenges Challenges list = {0};

    assert_int_equal(challenges_parse("", &list, NULL), 0);
    assert_int_equal(challenges_parse(" , ,", &list, NULL), 0);
    assert_int_equal(list.n_items, 0);
    assert_null(challenges_find(&list, "bearer"));
}

static void what_is_no_challenge_is_refused_and_the_list_stays(void **state)
{
    static const char *const cases[] = {
        "Bearer realm=\"unterminated",
        "Bearer realm=\"ends with backslash\\",
        "Bearer realm=",
        "Bearer realm=\"a\" service=\"b\"",
        "=x",
        "Bearer {}",
        "Bearer realm=\"new\nline\"",
        "B\xc3\xa9 realm=x",
    };
    auto_challenges Challenges list = {0};

    assert_int_equal(challenges_parse("Basic realm=x", &list, NULL), 0);
    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_error Error err = {0};
        int r = challenges_parse(cases[i], &list, &err);

        /* "realm=" alone reads as a token68, which is no parameter either. */
        if (streq(cases[i], "Bearer realm=")) {
            assert_int_equal(r, 0);
            assert_null(param(&list, "bearer", "realm"));
            continue;
        }
        if (r != -EBADMSG)
            fail_msg("\"%s\" was taken", cases[i]);
        assert_int_equal(err.kind, ERROR_CORRUPT);
        assert_non_null(strstr(err.message, "character"));
        assert_string_equal(param(&list, "basic", "realm"), "x");
    }
}

static void numbers_of_challenges_and_parameters_are_bounded(void **state)
{
    auto_challenges Challenges list = {0};
    auto_buf Buf many = BUF_INIT(1 << 20);

    for (size_t i = 0; i <= CHALLENGES_MAX; i++)
        assert_int_equal(buf_add_str(&many, "A,"), 0);
    assert_int_equal(challenges_parse(buf_str(&many), &list, NULL), -EBADMSG);
    assert_int_equal(list.n_items, 0);

    buf_clear(&many);
    assert_int_equal(buf_add_str(&many, "A "), 0);
    for (size_t i = 0; i <= CHALLENGE_PARAMS_MAX; i++)
        assert_int_equal(buf_add_str(&many, "p=v,"), 0);
    assert_int_equal(challenges_parse(buf_str(&many), &list, NULL), -EBADMSG);

    buf_clear(&many);
    for (size_t i = 0; i <= CHALLENGE_HEADER_MAX; i++)
        assert_int_equal(buf_add_char(&many, ' '), 0);
    assert_int_equal(challenges_parse(buf_str(&many), &list, NULL), -EBADMSG);
}

TEST_MAIN(cmocka_unit_test(a_bearer_challenge_gives_realm_service_and_scope),
          cmocka_unit_test(service_and_scope_may_be_missing),
          cmocka_unit_test(names_are_case_insensitive_and_values_are_not),
          cmocka_unit_test(several_challenges_in_one_line_are_told_apart),
          cmocka_unit_test(several_lines_add_up),
          cmocka_unit_test(an_empty_header_has_no_challenge),
          cmocka_unit_test(what_is_no_challenge_is_refused_and_the_list_stays),
          cmocka_unit_test(numbers_of_challenges_and_parameters_are_bounded))
