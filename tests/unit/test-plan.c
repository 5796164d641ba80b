/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "agent/agentd/events.h"
#include "agent/base/file.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/plan/plan.h"

/* The plan of the manual, with every key in it. */
static void read_full(Buf *ret)
{
    const char *srcdir = getenv("srcdir");
    auto_free char *path = path_join(srcdir ? srcdir : ".", "tests/unit/plan-full.json");
    auto_error Error err = {0};

    assert_ok(file_read(path, PLAN_SIZE_MAX, ret, &err), &err);
}

static Plan *parse(const char *text)
{
    auto_field_errors FieldErrors errors = {0};
    auto_buf Buf shown = BUF_INIT(1 << 20);
    Plan *plan = NULL;

    if (plan_parse(text, strlen(text), &plan, &errors) < 0) {
        (void)!field_errors_format(&errors, true, &shown);
        fail_msg("%s", buf_str(&shown));
    }
    return plan;
}

/* The faults of a document, each in a line of `ret`. */
static void faults_of(const char *text, Buf *ret)
{
    auto_field_errors FieldErrors errors = {0};
    auto_(plan_freep) Plan *plan = NULL;

    assert_int_equal(plan_parse(text, strlen(text), &plan, &errors), -EINVAL);
    assert_null(plan);
    assert_ok(field_errors_format(&errors, false, ret), NULL);
}

/* A plan whose one container has these members beside name and image. */
static char *with_container(const char *members)
{
    return str_printf(
        "{\"version\": 1, \"secrets\": [{\"name\": \"key\", \"secret\": \"KEY\"}],"
        " \"containers\": [{\"name\": \"web\", \"image\": \"r.example/a/web:1\"%s%s}]}",
        *members ? ", " : "", members);
}

static void the_tables_agree_with_themselves(void **state)
{
    auto_error Error err = {0};

    assert_ok(fields_check_table(plan_fields(), &err), &err);
}

static void a_full_plan_is_read(void **state)
{
    auto_buf Buf text = BUF_INIT(PLAN_SIZE_MAX);
    auto_(plan_freep) Plan *plan = NULL;
    auto_(strv_freep) char **names = NULL;
    const PlanContainer *c;
    const PlanFile *files;
    const PlanEnv *env;

    read_full(&text);
    plan = parse(buf_str(&text));
    assert_int_equal(plan->version, 1);
    assert_string_equal(plan->role, "serving");
    assert_int_equal(plan->locale, PLAN_LOCALE_KO);
    assert_int_equal(plan->system.swap->size.bytes, 1 << 30);
    assert_false(plan->system.swap->size.by_memory);
    files = plan->system.files.items;
    assert_int_equal(files[0].mode, 0644);
    assert_string_equal(files[0].content, "안녕하세요\n");
    assert_int_equal(files[1].mode, 0400); /* of a secret */
    assert_string_equal(plan_secret(plan, "slack-webhook")->version, "3");
    assert_null(plan_secret(plan, "nothing"));

    c = plan_container(plan, "mervis");
    env = c->env.items;
    assert_string_equal(env[0].value.text, "Asia/Seoul");
    assert_null(env[0].value.secret);
    assert_string_equal(env[1].value.secret, "kis-app-key");
    assert_int_equal(c->memory_bytes, 600 << 20);
    assert_true(c->cpus > 0.99 && c->cpus < 1.01);
    assert_int_equal(c->health.start_period_usec, 2 * MINUTE);
    assert_int_equal(c->update.settle_usec, 10 * MINUTE);
    assert_int_equal(c->update.order, PLAN_STOP_FIRST);
    assert_ok(container_secrets(c, &names), NULL);
    assert_int_equal(strv_length(names), 1);
    assert_string_equal(names[0], "kis-app-key");

    c = plan_container(plan, "train");
    assert_int_equal(c->mode, PLAN_MODE_JOB);
    assert_int_equal(c->on_success, PLAN_ON_SUCCESS_POWEROFF);
    assert_int_equal(c->stop_timeout_usec, 10 * SECOND);
    assert_string_equal(c->network, "bridge");
    assert_null(plan_container(plan, "nothing"));
    assert_string_equal(json_str(plan->crawl, "contact"), "ops@example.com");
    assert_string_equal(((const PlanNotify *)plan->notify.items)->on[2], "preempted");
    assert_string_equal(((const PlanEndpoint *)plan->endpoints.items)->host,
                        "secretmanager.googleapis.com");
}

static void the_least_plan_has_every_default(void **state)
{
    auto_(plan_freep) Plan *plan = parse("{\"version\": 1}");

    assert_null(plan->role);
    assert_int_equal(plan->locale, PLAN_LOCALE_EN);
    assert_null(plan->system.swap);
    assert_null(plan->crawl);
    assert_int_equal(plan->containers.n, 0);
    assert_int_equal(plan->images.keep_previous, 1);
    assert_int_equal(plan->images.disk_high, 85);
    assert_int_equal(plan->images.disk_low, 80);
    assert_int_equal(plan->images.min_age_usec, HOUR);
}

static int order_of(const char *members)
{
    auto_free char *text = with_container(members);
    auto_(plan_freep) Plan *plan = parse(text);

    return plan_container(plan, "web")->update.order;
}

static void who_yields_first_depends_on_ports(void **state)
{
    assert_int_equal(order_of(""), PLAN_START_FIRST);
    assert_int_equal(order_of("\"ports\": []"), PLAN_START_FIRST);
    assert_int_equal(order_of("\"ports\": [\"80:80\"]"), PLAN_STOP_FIRST);
    assert_int_equal(order_of("\"network\": \"host\""), PLAN_STOP_FIRST);
    assert_int_equal(order_of("\"mode\": \"job\""), PLAN_STOP_FIRST);
    assert_int_equal(order_of("\"update\": {\"switch\": \"stop-first\"}"), PLAN_STOP_FIRST);
}

#define NO_SUCH_SECRET                                                                             \
    "names no secret of \"secrets\": declare it there (what it says is not shown: it may be the "  \
    "secret itself)"

/* One fault each, in the part of the plan where it belongs. */
static void assert_fault(const char *text, const char *expected)
{
    auto_buf Buf shown = BUF_INIT(1 << 20);

    faults_of(text, &shown);
    assert_string_equal(buf_str(&shown), expected);
}

static void assert_container_fault(const char *members, const char *expected)
{
    auto_free char *text = with_container(members), *line = NULL;

    line = str_printf("containers[0]%s\n", expected);
    assert_fault(text, line);
}

static void rules_between_fields_are_held(void **state)
{
    static const struct {
        const char *members, *expected;
    } cases[] = {
        {"\"env\": {\"K\": {\"secret\": \"kee\"}}",
         ".env.K: names no secret of \"secrets\"; did you mean \"key\"?"},
        {"\"env\": {\"a.b\": {\"secret\": \"other-thing\"}}", ".env[\"a.b\"]: " NO_SUCH_SECRET ""},
        {"\"secret_files\": [{\"secret\": \"nothing\", \"path\": \"/k\"}]",
         ".secret_files[0].secret: " NO_SUCH_SECRET ""},
        {"\"secret_files\": [{\"secret\": \"key\", \"path\": \"k\"}]",
         ".secret_files[0].path: expected an absolute path without \".\", \"..\" or a '/' at the "
         "end, found \"k\""},
        {"\"ports\": [\"80:80\"], \"update\": {\"switch\": \"start-first\"}",
         ".update.switch: \"start-first\" cannot be with published ports: old and new would need "
         "the same one; use \"stop-first\""},
        {"\"network\": \"host\", \"update\": {\"switch\": \"start-first\"}",
         ".update.switch: \"start-first\" cannot be with network \"host\": use \"stop-first\""},
        {"\"network\": \"host\", \"ports\": [\"80:80\"]",
         ".ports: network \"host\" publishes no ports: leave them out"},
        {"\"network\": \"host\", \"health\": {\"http\": \"http://{container}:80/\"}",
         ".health.http: with network \"host\" the container has no address of its own: write "
         "127.0.0.1 for {container}"},
        {"\"network\": \"none\", \"health\": {\"http\": \"http://{container}:80/\"}",
         ".health.http: with network \"none\" nothing can be asked"},
        {"\"mode\": \"job\", \"health\": {}",
         ".health: a job is judged by its exit status, not by its health"},
        {"\"mode\": \"job\", \"update\": {\"switch\": \"start-first\"}",
         ".update.switch: a job is not switched: it ends by itself"},
        {"\"retries\": 0", ".retries: only for mode \"job\""},
        {"\"on_success\": \"nothing\"",
         ".on_success: only for mode \"job\": a service does not end"},
        {"\"memory\": \"5MiB\"", ".memory: expected 6MiB to 32TiB, found \"5MiB\""},
        {"\"memory\": \"64MiB\", \"shm_size\": \"65MiB\"",
         ".shm_size: more than \"memory\", which it counts against"},
        {"\"volumes\": [\"/a:/data\", \"b1:/data\"]", ".volumes[1]: /data is mounted already"},
        {"\"volumes\": [\"/a:/tmp\"], \"tmpfs\": [\"/tmp\"]", ".tmpfs[0]: /tmp is mounted already"},
        {"\"ports\": [\"80:80\", \"80:81\"]",
         ".ports[1]: port 80/tcp of the host is taken by container \"web\""},
        {"\"ports\": [\"9320:80\"]",
         ".ports[0]: port 9320 of the host is where statusd answers: take another"},
        {"\"labels\": {\"io.mervis.x\": \"y\"}",
         ".labels[\"io.mervis.x\"]: this key must be a label that does not begin with "
         "\"io.mervis.\": those are ours"},
        {"\"env\": {\"K\": 5}",
         ".env.K: expected a string (write numbers and true in quotes), or {\"secret\": "
         "\"NAME\"}"},
        {"\"env\": {\"K\": {\"secret\": \"key\", \"x\": 1}}",
         ".env.K: expected {\"secret\": \"NAME\"} and nothing else in it"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++)
        assert_container_fault(cases[i].members, cases[i].expected);
}

static void rules_between_parts_are_held(void **state)
{
    assert_fault(
        "{\"version\": 1, \"containers\": [{\"name\": \"aa\", \"image\": \"a\", \"ports\": "
        "[\"127.0.0.1:80:1\"]}, {\"name\": \"bb\", \"image\": \"b\", \"ports\": "
        "[\"80:1/udp\", \"80:1\"]}]}",
        "containers[1].ports[1]: port 80/tcp of the host is taken by container \"aa\"\n");
    assert_fault("{\"version\": 1, \"containers\": [{\"name\": \"aa\", \"image\": \"a\"}, "
                 "{\"name\": \"aa\", \"image\": \"b\"}]}",
                 "containers[1].name: \"aa\" is the name of [0] already\n");
    assert_fault("{\"version\": 1, \"system\": {\"swap\": {\"path\": \"/s\"}, \"files\": "
                 "[{\"path\": \"/s\", \"content\": \"\"}]}}",
                 "system.files[0].path: this is the swap file\n");
    assert_fault("{\"version\": 1, \"system\": {\"swap\": {\"path\": \"/s\"}, \"files\": "
                 "[{\"path\": \"/a/b/c\", \"content\": \"\"}, {\"path\": \"/a/b\", \"content\": "
                 "\"\"}, {\"path\": \"/a/bc\", \"content\": \"\"}, {\"path\": \"/s/x\", "
                 "\"content\": \"\"}]}}",
                 "system.files[0].path: /a/b is a file of this plan, and no directory\n"
                 "system.files[3].path: /s is a file of this plan, and no directory\n");
    assert_fault("{\"version\": 1, \"system\": {\"timezone\": \"UTC\", \"files\": "
                 "[{\"path\": \"/etc/timezone\", \"content\": \"x\"}]}}",
                 "system.files[0].path: \"timezone\" looks after this file: give one of the two\n");
    assert_fault("{\"version\": 1, \"system\": {\"files\": [{\"path\": \"/a\"}, {\"path\": \"/b\", "
                 "\"content\": \"\", \"secret\": \"x\"}]}}",
                 "system.files[0]: a file needs \"content\" or \"secret\"\n"
                 "system.files[1].secret: a file has either \"content\" or \"secret\", not both\n"
                 "system.files[1].secret: " NO_SUCH_SECRET "\n");
    assert_fault("{\"version\": 1, \"system\": {\"scripts\": [{\"name\": \"s\", \"run\": "
                 "\"#!/bin/sh\", \"secrets\": [\"x\"]}]}}",
                 "system.scripts[0].secrets[0]: " NO_SUCH_SECRET "\n");
    assert_fault("{\"version\": 1, \"system\": {\"scripts\": [{\"name\": \"s\", \"run\": "
                 "\"#!/bin/sh\\r\\ntrue\\r\\n\"}, {\"name\": \"t\", \"run\": "
                 "\"#!/bin/sh\\nprintf 'a\\r'\\n\"}]}}",
                 "system.scripts[0].run: expected a script whose lines end as on Unix: save it "
                 "without carriage returns, found \"#!/bin/sh\\r\\ntrue\\r\\n\"\n");
    assert_fault("{\"version\": 1, \"images\": {\"disk_high\": 80}}",
                 "images.disk_high: \"disk_low\" (80) must be below \"disk_high\" (80)\n");
    assert_fault("{\"version\": 1, \"notify\": [{\"secret\": \"s\", \"on\": [\"rolledback\"]}]}",
                 "notify[0].secret: " NO_SUCH_SECRET "\n"
                 "notify[0].on[0]: expected one of \"agentd-started\", \"agentd-stopping\", "
                 "\"plan-accepted\", \"plan-refused\", \"plan-removed\", \"plan-applied\", "
                 "\"resource-failed\", \"resource-recovered\", \"metadata-unreachable\", "
                 "\"metadata-back\", \"secret-fetched\", \"secret-changed\", \"secret-stale\", "
                 "\"container-started\", \"rolled-out\", \"rolled-back\", \"release-failed\", "
                 "\"update-held\", \"secret-baked\", \"job-done\", \"job-failed\", "
                 "\"container-removed\", \"images-removed\", \"engine-unreachable\", "
                 "\"engine-back\", \"preempted\", \"maintenance\", \"draining\", \"drained\", "
                 "\"state-rebuilt\", \"instance-changed\", \"degraded\", \"well\", "
                 "\"script-ended\", \"left-alone\", "
                 "\"spool-full\", \"spool-has-room\", \"spool-lost\", \"spool-back\", "
                 "\"spool-rebuilt\", \"document-refused\", \"fetch-failed\", \"egress-shut\", "
                 "\"delivery-failed\", \"delivery-back\", \"other-writer\", "
                 "\"other-writer-gone\", \"crawl-refused\""
                 ", found \"rolledback\"; did you mean "
                 "\"rolled-back\"?\n");
    assert_fault("{\"version\": 1, \"crawl\": {\"jobs\": [{\"key\": {\"secret\": \"s\"}}]}}",
                 "crawl.jobs[0].key.secret: " NO_SUCH_SECRET "\n");
    assert_fault(
        "{\"version\": 1, \"secrets\": [{\"name\": \"kis\", \"secret\": \"K\"}], \"crawl\": "
        "{\"jobs\": [{\"recipe\": \"keyed\", \"secret\": \"kiss\"}]}}",
        "crawl.jobs[0].secret: names no secret of \"secrets\"; did you mean \"kis\"?\n");
    assert_fault("{\"version\": 1, \"endpoints\": {\"a.example\": \"http://10.0.0.1/\"}}",
                 "endpoints[\"a.example\"]: expected an \"https://HOST[:PORT][/PATH]\", or "
                 "\"http://\" and a loopback address, found \"http://10.0.0.1/\"\n");
}

static void a_user_by_name_cannot_be_given_a_file_that_only_its_owner_reads(void **state)
{
    static const char *const good[] = {"root", "root:app", "1000", "1000:1000", "0:app"};

    assert_container_fault(
        "\"user\": \"app\", \"secret_files\": [{\"secret\": \"s\", \"path\": \"/k\"}]",
        ".secret_files[0].mode: user \"app\" could not read it: give \"user\" as "
        "numbers (id app, in the image), or a mode such as \"0444\"\n"
        "containers[0].secret_files[0].secret: " NO_SUCH_SECRET "");
    for (size_t i = 0; i < ELEMENTS(good); i++) {
        auto_free char *text = str_printf(
            "{\"version\": 1, \"secrets\": [{\"name\": \"s\", \"secret\": \"S\"}], \"containers\": "
            "[{\"name\": \"app\", \"image\": \"x.io/a:b\", \"user\": \"%s\", \"secret_files\": "
            "[{\"secret\": \"s\", \"path\": \"/k\"}]}]}",
            good[i]);

        plan_free(parse(text));
    }
    plan_free(
        parse("{\"version\": 1, \"secrets\": [{\"name\": \"s\", \"secret\": \"S\"}], "
              "\"containers\": [{\"name\": \"app\", \"image\": \"x.io/a:b\", \"user\": \"app\", "
              "\"secret_files\": [{\"secret\": \"s\", \"path\": \"/k\", \"mode\": \"0444\"}]}]}"));
}

static void a_secret_has_one_mode_in_a_container(void **state)
{
    static const char plan[] =
        "{\"version\": 1, \"secrets\": [{\"name\": \"s\", \"secret\": \"S\"}, {\"name\": \"t\", "
        "\"secret\": \"T\"}], \"containers\": [{\"name\": \"app\", \"image\": \"x.io/a:b\", "
        "\"secret_files\": [{\"secret\": \"s\", \"path\": \"/k\"}, {\"secret\": \"t\", \"path\": "
        "\"/l\", \"mode\": \"0444\"}, {\"secret\": \"s\", \"path\": \"/m\", \"mode\": \"%s\"}]}]}";
    auto_free char *same = str_printf(plan, "0400"), *other = str_printf(plan, "0440");

    plan_free(parse(same));
    assert_fault(other, "containers[0].secret_files[2].mode: the same secret has mode \"0400\" "
                        "in secret_files[0]: give both the same\n");
}

#define PASTED "xoxb-12/34+abc=="

static void a_value_that_was_pasted_for_a_name_is_not_shown(void **state)
{
    static const char *const documents[] = {
        "{\"version\": 1, \"secrets\": [{\"name\": \"a\", \"secret\": \" " PASTED "\"}]}",
        "{\"version\": 1, \"secrets\": [{\"name\": \"" PASTED "\", \"secret\": \"A\"}]}",
        "{\"version\": 1, \"notify\": [{\"secret\": \"https://hooks.example/" PASTED "\"}]}",
        "{\"version\": 1, \"system\": {\"files\": [{\"path\": \"/a\", \"secret\": \"" PASTED
        "\"}]}}",
        "{\"version\": 1, \"system\": {\"scripts\": [{\"name\": \"s\", \"run\": \"#!/bin/sh\\n\", "
        "\"secrets\": [\"" PASTED "\"]}]}}",
        "{\"version\": 1, \"containers\": [{\"name\": \"web\", \"image\": \"r.example/a/web:1\", "
        "\"env\": {\"K\": {\"secret\": \"" PASTED "\"}}}]}",
        "{\"version\": 1, \"containers\": [{\"name\": \"web\", \"image\": \"r.example/a/web:1\", "
        "\"secret_files\": [{\"path\": \"/k\", \"secret\": \"" PASTED "\"}]}]}",
    };

    for (size_t i = 0; i < ELEMENTS(documents); i++) {
        auto_buf Buf shown = BUF_INIT(1 << 20);

        faults_of(documents[i], &shown);
        if (strstr(buf_str(&shown), "12/34"))
            fail_msg("%s: %s", documents[i], buf_str(&shown));
        assert_contains(buf_str(&shown), "expected ");
    }
    assert_fault(
        "{\"version\": 1, \"notify\": [{\"secret\": \"" PASTED "\"}]}",
        "notify[0].secret: expected a name of at most 63 letters, digits, '-' and '_', with "
        "a letter or digit first, found 16 bytes that are not shown: they may be the "
        "secret itself\n");
}

/* A key of letters and digits could be a name. */
static void a_value_that_looks_like_a_name_is_not_shown_either(void **state)
{
    static const char *const values[] = {"q7Zt0pX2LkVb9RmW4sYc", "4f9c1e7ab03d52886e1fd0c2b7a94453",
                                         "AKIAIOSFODNN7EXAMPLE", "sk_live_51H8xTqLz0vNw3Rk",
                                         "kis-app-kex"};
    static const char *const places[][2] = {
        {"\"notify\": [{\"secret\": \"", "\"}]"},
        {"\"system\": {\"files\": [{\"path\": \"/a\", \"secret\": \"", "\"}]}"},
        {"\"system\": {\"scripts\": [{\"name\": \"s\", \"run\": \"#!/bin/sh\\n\", \"secrets\": [\"",
         "\"]}]}"},
        {"\"containers\": [{\"name\": \"web\", \"image\": \"a/web:1\", \"env\": {\"K\": "
         "{\"secret\": \"",
         "\"}}}]"},
        {"\"containers\": [{\"name\": \"web\", \"image\": \"a/web:1\", \"secret_files\": "
         "[{\"path\": "
         "\"/k\", \"secret\": \"",
         "\"}]}]"},
        {"\"crawl\": {\"jobs\": [{\"recipe\": \"keyed\", \"secret\": \"", "\"}]}"},
    };

    for (size_t i = 0; i < ELEMENTS(places) * ELEMENTS(values); i++) {
        const char *const *place = places[i / ELEMENTS(values)];
        const char *value = values[i % ELEMENTS(values)];
        auto_free char *text =
            str_printf("{\"version\": 1, \"secrets\": [{\"name\": \"kis-app-key\", \"secret\": "
                       "\"KEY\"}], %s%s%s}",
                       place[0], value, place[1]);
        auto_buf Buf shown = BUF_INIT(1 << 20);

        faults_of(text, &shown);
        assert_contains(buf_str(&shown), "names no secret of \"secrets\"");
        if (strstr(buf_str(&shown), value))
            fail_msg("%s: %s", text, buf_str(&shown));
    }
}

static void a_name_that_may_be_a_value_is_not_shown_for_being_there_twice(void **state)
{
    static const char value[] = "q7Zt0pX2LkVb9RmW4sYc";
    auto_free char *twice = str_printf(
        "{\"version\": 1, \"secrets\": [{\"name\": \"%s\", \"secret\": \"A\"}, {\"name\": \"%s\", "
        "\"secret\": \"B\"}]}",
        value, value);
    auto_free char *modes = str_printf(
        "{\"version\": 1, \"containers\": [{\"name\": \"web\", \"image\": \"a/web:1\", "
        "\"secret_files\": [{\"path\": \"/k\", \"secret\": \"%s\"}, {\"path\": \"/l\", \"mode\": "
        "\"0444\", \"secret\": \"%s\"}]}]}",
        value, value);
    auto_buf Buf shown = BUF_INIT(1 << 20);

    assert_fault(twice, "secrets[1].name: is the name of [0] already\n");
    faults_of(modes, &shown);
    assert_contains(buf_str(&shown), "the same secret has mode \"0400\" in secret_files[0]");
    assert_null(strstr(buf_str(&shown), value));
}

static void a_secret_has_one_version(void **state)
{
    static const char first[] = "{\"version\": 1, \"secrets\": [{\"name\": \"a\", \"secret\": "
                                "\"projects/p/secrets/A/versions/5\"";
    auto_free char *two = str_printf("%s, \"version\": \"7\"}]}", first);
    auto_free char *followed = str_printf("%s, \"version\": \"latest\"}]}", first);
    auto_free char *same = str_printf("%s, \"version\": \"5\"}]}", first);
    auto_free char *one = str_printf("%s}]}", first);

    assert_fault(two,
                 "secrets[0].version: \"secret\" names version 5 and \"version\" says 7: leave "
                 "one of them out\n");
    assert_fault(followed, "secrets[0].version: \"secret\" names version 5 and \"version\" says "
                           "latest: leave one of them out\n");
    plan_free(parse(same));
    plan_free(parse(one));
}

static void what_editors_write_changes_nothing(void **state)
{
    Plan *plan = parse("{\"$schema\": \"./mervis-plan.schema.json\", \"version\": 1}");
    json_auto_t *schema = plan_schema();

    assert_int_equal(plan->version, 1);
    plan_free(plan);
    assert_string_equal(json_str(json_at(schema, "properties", "$schema", NULL), "type"), "string");
    assert_fault("{\"$schema\": 1, \"version\": 1}", "$schema: expected a string, found 1\n");
}

static void versions_are_told_apart(void **state)
{
    assert_fault("{}", "version: is missing: the version of this format: 1\n");
    assert_fault("{\"version\": 2}",
                 "version: version 2 is newer than this agent, which reads version 1: upgrade "
                 "mervis-agent on this VM first\n");
    assert_fault("{\"version\": \"1\"}", "version: expected the number 1\n");
    assert_fault("{\"version\": 0}", "version: expected the number 1\n");
}

static void documents_that_are_no_plan_are_refused(void **state)
{
    auto_field_errors FieldErrors errors = {0};
    auto_(plan_freep) Plan *plan = NULL;
    auto_free char *big = NULL;

    assert_fault("", "the document is empty\n");
    assert_fault("{\"version\": 1", "the document ends inside an object\n");
    assert_fault("{\"version\": 1, \"version\": 1}", "version: this key is there twice\n");
    assert_fault("{\"version\": 1, \"role\": \"\xC0\xB0\"}", "role: not UTF-8\n");
    assert_fault("{\"version\": 1, \"sytem\": {}}",
                 "sytem: unknown key \"sytem\"; did you mean \"system\"?\n");

    big = malloc(PLAN_SIZE_MAX + 1);
    assert_non_null(big);
    memset(big, ' ', PLAN_SIZE_MAX + 1);
    assert_int_equal(plan_parse(big, PLAN_SIZE_MAX + 1, &plan, &errors), -EINVAL);
    assert_contains(errors.items[0].message, "the plan has 262145 bytes; at most 262144");
}

static void forty_faults_are_all_listed(void **state)
{
    auto_field_errors FieldErrors errors = {0};
    auto_(plan_freep) Plan *plan = NULL;
    auto_buf Buf text = BUF_INIT(65536);

    assert_ok(buf_add_str(&text, "{\"version\": 1, \"containers\": ["), NULL);
    for (int i = 0; i < 10; i++)
        assert_ok(buf_printf(&text,
                             "%s{\"nmae\": \"c%d\", \"image\": \"UPPER/case\",\n"
                             " \"env\": {\"K\": {\"secret\": \"s%d\"}}}",
                             i > 0 ? "," : "", i, i),
                  NULL);
    assert_ok(buf_add_str(&text, "]}"), NULL);
    assert_int_equal(plan_parse(text.data, text.size, &plan, &errors), -EINVAL);
    assert_int_equal(errors.n, 40);
    for (size_t i = 0; i < 10; i++) {
        static const char *const messages[] = {"is missing: how the container is called",
                                               "unknown key \"nmae\"; did you mean \"name\"?",
                                               "expected a repository in lower case",
                                               "names no secret of \"secrets\""};

        for (size_t j = 0; j < 4; j++) {
            const FieldError *e = errors.items + 4 * i + j;
            char path[32];

            (void)snprintf(path, sizeof(path), "containers[%zu].", i);
            assert_ptr_equal(strstr(e->path, path), e->path);
            assert_contains(e->message, messages[j]);
            assert_int_equal(e->line, i + 1 + (j == 3));
            assert_true(e->column > 0);
        }
    }
}

static void a_job_that_powers_off_is_refused_in_a_group(void **state)
{
    auto_free char *text = with_container("\"mode\": \"job\", \"on_success\": \"poweroff\"");
    auto_(plan_freep) Plan *plan = parse(text);
    auto_field_errors FieldErrors errors = {0};

    assert_int_equal(plan_check_identity(plan, false, &errors), 0);
    assert_int_equal(errors.n, 0);
    assert_int_equal(plan_check_identity(plan, true, &errors), -EINVAL);
    assert_int_equal(errors.n, 1);
    assert_string_equal(errors.items[0].path, "containers[0].on_success");
    assert_contains(errors.items[0].message, "belongs to an instance group");
}

static void the_hash_is_of_what_the_document_says(void **state)
{
    char a[SHA256_HEX_MAX], b[SHA256_HEX_MAX], c[SHA256_HEX_MAX], d[SHA256_HEX_MAX];

    assert_ok(plan_hash("{\"version\":1,\"role\":\"a\"}", 24, a), NULL);
    assert_ok(plan_hash("{ \"role\": \"\\u0061\", \"version\": 1 }", 34, b), NULL);
    assert_ok(plan_hash("{\"version\":1,\"role\":\"b\"}", 24, c), NULL);
    assert_ok(plan_hash("{\"version\":1,\"role\":\"a\"", 23, d), NULL);
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    assert_string_not_equal(a, d);
}

static char *spec_of(const char *members)
{
    auto_free char *text = with_container(members);
    auto_(plan_freep) Plan *plan = parse(text);
    char *spec = NULL;

    assert_ok(container_spec_canonical(plan, plan_container(plan, "web"), &spec), NULL);
    return spec;
}

static void the_spec_of_a_release_is_what_shapes_the_container(void **state)
{
    auto_free char *least = spec_of("");
    auto_free char *defaults =
        spec_of("\"read_only\": false, \"network\": \"bridge\", \"stop_timeout\": "
                "\"10000ms\", \"update\": {\"check\": \"1h\"}, \"health\": "
                "{\"retries\": 9}, \"command\": []");
    auto_free char *rich =
        spec_of("\"env\": {\"B\": \"1\", \"A\": {\"secret\": \"key\"}}, \"memory\": "
                "\"65536KiB\", \"ports\": [\"1:2\"]");
    auto_free char *again = spec_of("\"ports\": [\"1:2\"], \"memory\": \"64MiB\", \"env\": {\"A\": "
                                    "{\"secret\": \"key\"}, \"B\": \"1\"}");

    assert_string_equal(least, "{}");
    assert_string_equal(defaults, "{}");
    assert_string_equal(rich,
                        "{\"env\":{\"A\":{\"secret\":\"key\"},\"B\":\"1\"},\"memory\":\"64MiB\","
                        "\"ports\":[\"1:2\"],\"secrets\":{\"key\":\"KEY\"}}");
    assert_string_equal(again, rich);
}

static void secrets_of_the_crawl_part_are_found(void **state)
{
    auto_(plan_freep) Plan *plan = parse(
        "{\"version\": 1, \"secrets\": [{\"name\": \"b\", \"secret\": \"B\"}, {\"name\": \"a\", "
        "\"secret\": \"A\"}], \"crawl\": {\"jobs\": [{\"recipe\": \"keyed\", \"secret\": \"b\"}, "
        "{\"x\": {\"y\": [{\"secret\": \"a\"}, {\"secret\": \"b\"}]}}], \"other\": {\"secret\": 1, "
        "\"n\": 1}}}");
    auto_(strv_freep) char **names = NULL;

    assert_ok(plan_crawl_secrets(plan, &names), NULL);
    assert_int_equal(strv_length(names), 2);
    assert_string_equal(names[0], "a");
    assert_string_equal(names[1], "b");
}

static void ports_are_read(void **state)
{
    static const char *const bad[] = {"",         "80",           "80:",      ":80",
                                      "0:80",     "80:0",         "65536:80", "80:80/sctp",
                                      "80-81:8",  "a:80",         "80:80/",   "127.0.0.256:80:80",
                                      "[::1:1:2", "127.0.0.1:80", "1:2:3",    "080000:80"};
    PlanPort port = {0};

    assert_int_equal(plan_port_parse("8080:80", &port), 0);
    assert_int_equal(port.host_port, 8080);
    assert_int_equal(port.container_port, 80);
    assert_string_equal(port.address, "");
    assert_false(port.udp);
    assert_int_equal(plan_port_parse("127.0.0.1:53:5353/udp", &port), 0);
    assert_string_equal(port.address, "127.0.0.1");
    assert_true(port.udp);
    assert_int_equal(plan_port_parse("[::1]:80:80/tcp", &port), 0);
    assert_string_equal(port.address, "::1");
    for (size_t i = 0; i < ELEMENTS(bad); i++)
        assert_int_equal(plan_port_parse(bad[i], &port), -EINVAL);
}

static void mounts_are_read(void **state)
{
    static const char *const bad[] = {"",     "/a",       "/a:",        ":/a",      "/a:b",
                                      "a:/a", "/a:/b:rx", "/a/:/b",     "/../a:/b", "/a:/b/..",
                                      "/a:/", "-aa:/b",   "/a:/b:ro:ro"};
    char *name = NULL, *address = NULL;
    PlanVolume volume = {0};
    PlanTmpfs tmpfs = {0};

    assert_int_equal(plan_volume_parse("/var/lib/a:/data:ro", &volume), 0);
    assert_true(volume.is_bind && volume.read_only);
    assert_string_equal(volume.source, "/var/lib/a");
    assert_string_equal(volume.target, "/data");
    plan_volume_done(&volume);
    assert_int_equal(plan_volume_parse("cache:/c:rw", &volume), 0);
    assert_false(volume.is_bind || volume.read_only);
    plan_volume_done(&volume);
    for (size_t i = 0; i < ELEMENTS(bad); i++)
        assert_int_equal(plan_volume_parse(bad[i], &volume), -EINVAL);

    assert_int_equal(plan_tmpfs_parse("/tmp:64MiB", &tmpfs), 0);
    assert_int_equal(tmpfs.size_bytes, 64 << 20);
    plan_tmpfs_done(&tmpfs);
    assert_int_equal(plan_tmpfs_parse("/tmp", &tmpfs), 0);
    plan_tmpfs_done(&tmpfs);
    assert_int_equal(plan_tmpfs_parse("/tmp:", &tmpfs), -EINVAL);
    assert_int_equal(plan_tmpfs_parse("/tmp:0", &tmpfs), -EINVAL);
    assert_int_equal(plan_tmpfs_parse("tmp", &tmpfs), -EINVAL);

    assert_int_equal(plan_extra_host_parse("db:[fd00::1]", &name, &address), 0);
    assert_string_equal(name, "db");
    assert_string_equal(address, "fd00::1");
    free(name);
    free(address);
    assert_int_equal(plan_extra_host_parse("db:10.0.0", &name, &address), -EINVAL);
    assert_int_equal(plan_extra_host_parse("db", &name, &address), -EINVAL);
}

/* tests/unit/catalog-agree.py compares them with the crawler's as well. */
static void the_events_of_agentd_are_among_those_of_a_plan(void **state)
{
    for (size_t i = 0; i < n_event_kinds; i++) {
        size_t n = 0;

        while (plan_event_names[n] && !streq(plan_event_names[n], event_kinds[i].name))
            n++;
        if (!plan_event_names[n])
            fail_msg("a plan cannot name the event \"%s\"", event_kinds[i].name);
    }
}

static void the_schema_and_the_manual_have_every_part(void **state)
{
    json_auto_t *schema = plan_schema();
    auto_buf Buf manual = BUF_INIT(1 << 20);

    assert_string_equal(json_str(schema, "$schema"),
                        "https://json-schema.org/draft/2020-12/schema");
    assert_non_null(json_at(schema, "properties", "containers", "items", "properties", "update",
                            "properties", "check", "x-minimum", NULL));
    assert_ok(plan_manual(&manual), NULL);
    assert_contains(buf_str(&manual), ".B containers[].update.check\n");
    assert_contains(buf_str(&manual), ".B system.scripts[].when\n");
}

TEST_MAIN(cmocka_unit_test(the_tables_agree_with_themselves), cmocka_unit_test(a_full_plan_is_read),
          cmocka_unit_test(the_least_plan_has_every_default),
          cmocka_unit_test(who_yields_first_depends_on_ports),
          cmocka_unit_test(rules_between_fields_are_held),
          cmocka_unit_test(rules_between_parts_are_held),
          cmocka_unit_test(a_secret_has_one_mode_in_a_container),
          cmocka_unit_test(a_value_that_was_pasted_for_a_name_is_not_shown),
          cmocka_unit_test(a_value_that_looks_like_a_name_is_not_shown_either),
          cmocka_unit_test(a_name_that_may_be_a_value_is_not_shown_for_being_there_twice),
          cmocka_unit_test(a_secret_has_one_version),
          cmocka_unit_test(what_editors_write_changes_nothing),
          cmocka_unit_test(versions_are_told_apart),
          cmocka_unit_test(documents_that_are_no_plan_are_refused),
          cmocka_unit_test(forty_faults_are_all_listed),
          cmocka_unit_test(a_job_that_powers_off_is_refused_in_a_group),
          cmocka_unit_test(the_hash_is_of_what_the_document_says),
          cmocka_unit_test(the_spec_of_a_release_is_what_shapes_the_container),
          cmocka_unit_test(a_user_by_name_cannot_be_given_a_file_that_only_its_owner_reads),
          cmocka_unit_test(secrets_of_the_crawl_part_are_found), cmocka_unit_test(ports_are_read),
          cmocka_unit_test(mounts_are_read),
          cmocka_unit_test(the_events_of_agentd_are_among_those_of_a_plan),
          cmocka_unit_test(the_schema_and_the_manual_have_every_part))
