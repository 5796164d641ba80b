/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "agent/agentctl/plan-view.h"
#include "agent/agentctl/validate.h"
#include "agent/agentctl/verb.h"
#include "agent/base/file.h"
#include "agent/io/json.h"

/* A crawlerd that says what it is told to, and keeps what it was asked. */
static char *fake_crawlerd(const char *dir, const char *reply, int status)
{
    char *path = path_join(dir, "crawlerd");
    auto_free char *script = str_printf("#!/bin/sh\n"
                                        "[ \"$1 $2\" = 'validate --json' ] || exit 9\n"
                                        "cat > '%s/asked'\n"
                                        "cat <<'END'\n%s\nEND\n"
                                        "exit %d\n",
                                        dir, reply, status);
    auto_error Error err = {0};

    assert_non_null(path);
    assert_non_null(script);
    assert_ok(file_replace(path, script, strlen(script), 0755, &err), &err);
    return path;
}

static void judge(const char *text, const char *crawlerd, Verdict *ret)
{
    auto_error Error err = {0};

    assert_ok(plan_judge(text, strlen(text), crawlerd, ret, &err), &err);
}

static void a_part_is_found_as_it_stands(void **state)
{
    const char *text = "{\"a\": {\"crawl\": 1}, \"crawl\" : { \"x\": [1, 2] } , \"b\": oops";
    size_t offset = 0, size = 0;

    assert_int_equal(json_slice(text, strlen(text), "crawl", &offset, &size), 1);
    assert_int_equal(size, strlen("{ \"x\": [1, 2] }"));
    assert_memory_equal(text + offset, "{ \"x\": [1, 2] }", size);
    assert_int_equal(json_slice(text, strlen(text), "c", &offset, &size), 0);
    assert_int_equal(json_slice("[]", 2, "crawl", &offset, &size), 0);
    assert_int_equal(json_slice("{\"crawl\": {", 11, "crawl", &offset, &size), 0);
}

static void faults_of_the_crawl_part_stand_where_they_are_in_the_plan(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *crawlerd = fake_crawlerd(
        dir,
        "{\"errors\": [{\"path\": \"jobs[0].every\", \"message\": \"one\", \"line\": 1, "
        "\"column\": 4}, {\"path\": \"\", \"message\": \"two\", \"line\": 2, \"column\": 3}]}",
        1);
    auto_free char *asked_path = path_join(dir, "asked");
    auto_buf Buf asked = BUF_INIT(4096), shown = BUF_INIT(4096);
    auto_verdict Verdict verdict = {0};
    auto_error Error err = {0};

    judge("{\"version\": 1,\n \"crawl\": {\"jobs\": [\n]},\n \"x\": 1}", crawlerd, &verdict);
    assert_ok(file_read(asked_path, 4096, &asked, &err), &err);
    assert_string_equal(buf_str(&asked), "{\"jobs\": [\n]}");
    assert_ok(field_errors_format(&verdict.errors, true, &shown), NULL);
    assert_string_equal(buf_str(&shown),
                        "2:14: crawl.jobs[0].every: one\n"
                        "3:3: crawl: two\n"
                        "4:2: x: unknown key \"x\"; known here: version, role, locale, system, "
                        "secrets, containers, images, crawl, notify, endpoints, $schema\n");
    assert_null(verdict.warning);
}

static void that_there_are_more_faults_than_are_told_is_said(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *crawlerd = fake_crawlerd(
        dir, "{\"errors\": [{\"path\": \"jobs\", \"message\": \"one\"}], \"truncated\": true}", 1);
    auto_buf Buf shown = BUF_INIT(4096);
    auto_verdict Verdict verdict = {0};

    judge("{\"version\": 1, \"crawl\": {}}", crawlerd, &verdict);
    assert_ok(field_errors_format(&verdict.errors, false, &shown), NULL);
    assert_string_equal(buf_str(&shown), "crawl.jobs: one\n" FIELD_ERRORS_MORE "\n");
}

static void a_good_crawl_part_is_valid(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *crawlerd = fake_crawlerd(dir, "{\"errors\": []}", 0);
    auto_verdict Verdict verdict = {0};

    judge("{\"version\": 1, \"crawl\": {}}", crawlerd, &verdict);
    assert_int_equal(verdict.errors.n, 0);
    assert_null(verdict.warning);
}

static void a_crawler_that_says_nothing_sensible_is_a_fault(void **state)
{
    auto_test_dir char *dir = test_dir_new();
    auto_free char *crawlerd = fake_crawlerd(dir, "Segmentation fault", 139);
    auto_verdict Verdict verdict = {0};

    judge("{\"version\": 1, \"crawl\": {}}", crawlerd, &verdict);
    assert_int_equal(verdict.errors.n, 1);
    assert_string_equal(verdict.errors.items[0].path, "crawl");
    assert_string_equal(verdict.errors.items[0].message,
                        "crawlerd validate refused it without a reason");
}

static void without_a_crawler_that_is_said(void **state)
{
    auto_verdict Verdict verdict = {0}, other = {0};

    judge("{\"version\": 1, \"crawl\": {}}", "/nonexistent/crawlerd", &verdict);
    assert_int_equal(verdict.errors.n, 0);
    assert_contains(verdict.warning, "the crawl part was not checked");

    /* Nobody is asked where there is nothing to ask. */
    judge("{\"version\": 1}", "/nonexistent/crawlerd", &other);
    assert_null(other.warning);
}

static void assert_shown(const char *answer, const char *expected)
{
    json_auto_t *value = NULL;
    auto_buf Buf text = BUF_INIT(65536);
    auto_error Error err = {0};

    assert_ok(json_parse(answer, strlen(answer), "answer", &value, &err), &err);
    assert_ok(plan_view(value, &text), NULL);
    assert_string_equal(buf_str(&text), expected);
}

static void the_plan_in_force_is_shown_with_the_refused_one(void **state)
{
    assert_shown(
        "{\"generation\": 3, \"source\": \"attribute mervis-plan of the instance\","
        " \"accepted_at\": \"2026-10-07T06:30:00Z\", \"outcome\": \"applied\","
        " \"sha256\": \"abc\", \"message\": \"the newest plan was refused\","
        " \"refused\": {\"at\": \"2026-10-08T00:00:00Z\", \"sha256\": \"0123456789abcdef\","
        " \"errors\": [\"x: unknown key\"]}, \"document\": {\"version\": 1}}",
        "Generation 3, from attribute mervis-plan of the instance\n"
        "Accepted 2026-10-07T06:30:00Z, applied\n"
        "SHA-256 abc\n"
        "the newest plan was refused\n"
        "\nRefused at 2026-10-08T00:00:00Z (SHA-256 0123456789ab):\n"
        "  x: unknown key\n"
        "\n{\n  \"version\": 1\n}\n");
    assert_shown("{\"generation\": 0, \"refused\": null, \"document\": null}",
                 "No plan is in force.\n");
}

static int run(const char *const *words)
{
    char *argv[8] = {0};
    int argc = 0, status;

    argv[argc++] = strdup("agentctl");
    for (; words[argc - 1]; argc++)
        argv[argc] = strdup(words[argc - 1]);
    status = agentctl_main(argc, argv);
    for (int i = 0; i < argc; i++)
        free(argv[i]);
    return status;
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void wrong_usage_has_a_status_of_its_own(void **state)
{
    assert_int_equal(run(WORDS("--nothing")), EXIT_USAGE);
    assert_int_equal(run(WORDS("nothing")), EXIT_USAGE);
    assert_int_equal(run(WORDS("plan")), EXIT_USAGE);
    assert_int_equal(run(WORDS("plan", "--json")), EXIT_USAGE);
    assert_int_equal(run(WORDS("pla", "--help")), EXIT_USAGE);
    assert_int_equal(run(WORDS("plan", "vaildate", "x")), EXIT_USAGE);
    assert_int_equal(run(WORDS("plan", "validate")), EXIT_USAGE);
    assert_int_equal(run(WORDS("plan", "validate", "a", "b")), EXIT_USAGE);
    assert_int_equal(run(WORDS("plan", "validate", "--jsno", "a")), EXIT_USAGE);
    assert_int_equal(run(WORDS("plan", "validate", "-j", "a")), EXIT_USAGE);
    assert_int_equal(run(WORDS("plan", "validate", "--json=yes", "a")), EXIT_USAGE);
    assert_int_equal(run(WORDS("plan", "validate", "--", "--json", "b")), EXIT_USAGE);
    assert_int_equal(run(WORDS("plan", "validate", "--", "--no-such-file")), EXIT_DEGRADED);
}

static void the_rows_of_verbs_are_complete(void **state)
{
    for (size_t i = 0; i < n_verbs; i++) {
        const Verb *v = verbs + i;

        assert_non_null(v->name);
        assert_non_null(v->run);
        assert_true(v->operands && v->min <= v->max && (v->max > 0) == (*v->operands != '\0'));
        assert_true(v->help && *v->help && strlen(v->help) <= 50);
        assert_true(v->help[strlen(v->help) - 1] != '.');
        for (const VerbOption *o = v->options; o && o->name; o++)
            assert_true(o->value && o->help && *o->help);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(v->name, verbs[j].name);
    }
}

TEST_MAIN(cmocka_unit_test(a_part_is_found_as_it_stands),
          cmocka_unit_test(faults_of_the_crawl_part_stand_where_they_are_in_the_plan),
          cmocka_unit_test(that_there_are_more_faults_than_are_told_is_said),
          cmocka_unit_test(a_good_crawl_part_is_valid),
          cmocka_unit_test(a_crawler_that_says_nothing_sensible_is_a_fault),
          cmocka_unit_test(without_a_crawler_that_is_said),
          cmocka_unit_test(the_plan_in_force_is_shown_with_the_refused_one),
          cmocka_unit_test(wrong_usage_has_a_status_of_its_own),
          cmocka_unit_test(the_rows_of_verbs_are_complete))
