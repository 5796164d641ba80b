/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "agent/base/buf.h"
#include "agent/base/file.h"
#include "crawler/crawlerd/crawl-plan.h"
#include "crawler/crawlerd/verb-recipe.h"
#include "crawler/extract/extract.h"

/* crawlerd's offline verbs as whoever types them meets them: what is wrong, why, and what to do,
 * and an exit status that a script can trust. */

typedef int (*Verb)(int argc, char **argv);

#define ARGS_MAX 10

typedef struct Case {
    const char *name;
    Verb verb;
    const char *args[ARGS_MAX]; /* "FILE": a file with `input`; without it that is standard input */
    const char *input;
    size_t size;    /* of input; 0: its length */
    size_t blanks;  /* so many instead of input */
    const char *to; /* where standard output goes */
    int status;
    const char *said[4]; /* on standard error; of validate, on either */
} Case;

typedef struct Ran {
    int status;
    Buf out, err;
} Ran;

static void put(const char *path, const Case *c)
{
    size_t size = c->blanks ? c->blanks : c->size ? c->size : c->input ? strlen(c->input) : 0;
    auto_free char *blanks = calloc(1, c->blanks + 1);
    auto_error Error err = {0};

    assert_non_null(blanks);
    memset(blanks, ' ', c->blanks);
    assert_ok(file_replace(path,
                           c->blanks  ? blanks
                           : c->input ? c->input
                                      : "",
                           size, 0600, &err),
              &err);
}

static void open_as(int fd, const char *path, int flags)
{
    int opened = open(path, flags | O_CREAT, 0600);

    if (opened < 0 || dup2(opened, fd) < 0)
        _exit(99);
}

/* In a child, as a verb ends with its process. */
static Ran run(const Case *c, const char *dir)
{
    auto_free char *in = str_printf("%s/in", dir), *out = str_printf("%s/out", dir),
                   *errors = str_printf("%s/err", dir);
    Ran ran = {.out = BUF_INIT(1U << 20), .err = BUF_INIT(1U << 20)};
    char *argv[ARGS_MAX + 1] = {0};
    auto_error Error err = {0};
    int argc = 0, status;
    pid_t child;

    put(in, c);
    while (c->args[argc]) {
        argv[argc] = (char *)(uintptr_t)(streq(c->args[argc], "FILE") ? in : c->args[argc]);
        argc++;
    }
    (void)fflush(NULL);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        open_as(STDIN_FILENO, in, O_RDONLY);
        open_as(STDOUT_FILENO, c->to ? c->to : out, O_WRONLY | O_TRUNC);
        open_as(STDERR_FILENO, errors, O_WRONLY | O_TRUNC);
        status = c->verb(argc, argv);
        (void)fflush(NULL);
        _exit(status);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    ran.status = WEXITSTATUS(status);
    if (!c->to)
        assert_ok(file_read(out, 1U << 20, &ran.out, &err), &err);
    assert_ok(file_read(errors, 1U << 20, &ran.err, &err), &err);
    return ran;
}

static void check(const Case *c)
{
    auto_test_dir char *dir = test_dir_new();
    Ran ran = run(c, dir);
    const char *told;

    /* Faults of a part are what validate prints. */
    if (c->verb == verb_validate)
        assert_int_equal(buf_add(&ran.err, buf_str(&ran.out), ran.out.size), 0);
    told = buf_str(&ran.err);
    print_message("# %s: %d\n# %s", c->name, ran.status, told);
    assert_int_equal(ran.status, c->status);
    for (size_t i = 0; i < ELEMENTS(c->said) && c->said[i]; i++)
        assert_contains(told, c->said[i]);
    if (c->status != 0)
        assert_true(*told);
    buf_done(&ran.out);
    buf_done(&ran.err);
}

/* clang-format off */
#define TEST_OF(...) {"recipe", "test", __VA_ARGS__}
#define GOOD_BAR "[[1785542400000,\"1\",\"2\",\"1\",\"1.5\",\"10\"]]"
#define CRAWL(job) "{\"jobs\":[{" job "}],\"sink\":{\"bigquery\":{\"dataset\":\"market\",\"table\":\"bars\"}}}"
#define JOB "\"name\":\"btc\",\"recipe\":\"binance-klines\",\"symbols\":[\"BTCUSDT\"],\"interval\":\"1m\",\"every\":\"1m\",\"backfill\":\"1d\""

static const Case recipe_cases[] = {
    {.name = "rows", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--symbol", "BTCUSDT", "--reply", "FILE"), .input = GOOD_BAR,
     .said = {"1 rows, 0 dead, 0 dropped"}},
    {.name = "rows from standard input", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--symbol", "BTCUSDT", "--reply", "-"),
     .input = GOOD_BAR, .said = {"1 rows, 0 dead, 0 dropped"}},
    {.name = "rows on a full disk", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--symbol", "BTCUSDT", "--reply", "FILE"),
     .input = GOOD_BAR, .to = "/dev/full", .status = 1, .said = {"could not be written: No space left"}},
    {.name = "a list on a full disk", .verb = verb_recipe, .args = {"recipe", "list"}, .to = "/dev/full", .status = 1, .said = {"No space left"}},
    {.name = "nothing", .verb = verb_recipe, .args = {"recipe"}, .input = "", .status = 64, .said = {"usage:"}},
    {.name = "help", .verb = verb_recipe, .args = {"recipe", "--help"}},
    {.name = "a verb that is none", .verb = verb_recipe, .args = {"recipe", "tset"}, .status = 64, .said = {"usage:"}},
    {.name = "a recipe that is none", .verb = verb_recipe, .args = TEST_OF("yahoo-chrt", "--reply", "FILE"), .input = "{}", .status = 1,
     .said = {"yahoo-chrt", "yahoo-chart"}},
    {.name = "a recipe file that is none", .verb = verb_recipe, .args = TEST_OF("./nowhere.json", "--reply", "FILE"), .input = "{}", .status = 1,
     .said = {"there is no file ./nowhere.json"}},
    {.name = "a recipe with faults", .verb = verb_recipe, .args = TEST_OF("FILE", "--reply", "/dev/null"), .input = "{\n\"name\":7}", .status = 1,
     .said = {"2:8: name", "hosts"}},
    {.name = "no reply", .verb = verb_recipe, .args = TEST_OF("binance-klines"), .status = 64, .said = {"--reply is needed"}},
    {.name = "a missing reply", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--reply", "/nowhere/reply"), .status = 1,
     .said = {"/nowhere/reply: No such file", "--reply takes the file"}},
    {.name = "a directory", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--reply", "/"), .status = 1,
     .said = {"--reply takes the file"}},
    {.name = "an empty reply", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--reply", "FILE"), .status = 4,
     .said = {"refused: the reply is empty", "is it the whole body"}},
    {.name = "a page for a reply", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--reply", "FILE"),
     .input = "<!doctype html><html><body>Will be right back</body></html>", .status = 4,
     .said = {"refused: not JSON: line 1, column 1"}},
    {.name = "a page by its type", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--reply", "FILE", "--content-type", "text/html"),
     .input = GOOD_BAR, .status = 4, .said = {"content type \"text/html\" is not what the source sends"}},
    {.name = "half a reply", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--reply", "FILE"), .input = "[[1785542400000,\"1\",", .status = 4,
     .said = {"refused: not JSON: line 1"}},
    {.name = "a packed reply", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--reply", "FILE"), .input = "\x1f\x8b\x08\0\0", .size = 5, .status = 1,
     .said = {"compressed with gzip", "gzip -dc"}},
    {.name = "an error of the source", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--reply", "FILE", "--status", "400"),
     .input = "{\"code\":-1121,\"msg\":\"Invalid symbol.\"}", .status = 3, .said = {"no such symbol: Invalid symbol."}},
    {.name = "an interval that it has not", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--reply", "FILE", "--interval", "7m"), .input = GOOD_BAR,
     .status = 64, .said = {"has no interval \"7m\"; it has 1m"}},
    {.name = "an interval that is none", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--reply", "FILE", "--interval", "soon"), .input = GOOD_BAR,
     .status = 64, .said = {"--interval takes one like 1m"}},
    {.name = "a status that is none", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--reply", "FILE", "--status", "9"), .input = GOOD_BAR,
     .status = 64, .said = {"--status takes an HTTP status"}},
    {.name = "a time that is none", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--reply", "FILE", "--now", "noon"), .input = GOOD_BAR,
     .status = 64, .said = {"--now takes a time like"}},
    {.name = "an option that is none", .verb = verb_recipe, .args = TEST_OF("binance-klines", "--rply", "FILE"), .input = GOOD_BAR, .status = 64,
     .said = {"usage:"}},
    {.name = "the text of no recipe", .verb = verb_recipe, .args = {"recipe", "show", "yahoo"}, .status = 1, .said = {"yahoo"}},
};

static const Case validate_cases[] = {
    {.name = "a good part", .verb = verb_validate, .args = {"validate"}, .input = CRAWL(JOB)},
    {.name = "help", .verb = verb_validate, .args = {"validate", "--help"}},
    {.name = "a word too many", .verb = verb_validate, .args = {"validate", "crawl.json"}, .input = CRAWL(JOB), .status = 64, .said = {"< CRAWL"}},
    {.name = "nothing", .verb = verb_validate, .args = {"validate"}, .status = 1, .said = {"1:1: "}},
    {.name = "a page", .verb = verb_validate, .args = {"validate"}, .input = "<html>", .status = 1, .said = {"1:1: "}},
    {.name = "half a part", .verb = verb_validate, .args = {"validate"}, .input = "{\"jobs\":[\n{\"name\":\"b", .status = 1, .said = {"2:"}},
    {.name = "a recipe that is none", .verb = verb_validate, .args = {"validate"},
     .input = CRAWL("\"name\":\"btc\",\"recipe\":\"binance-kline\",\"symbols\":[\"BTCUSDT\"],\"interval\":\"1m\",\"every\":\"1m\""),
     .status = 1, .said = {"jobs[0].recipe", "binance-kline", "binance-klines"}},
    {.name = "a key that is none", .verb = verb_validate, .args = {"validate"}, .input = CRAWL(JOB ",\"intervall\":\"1m\""), .status = 1,
     .said = {"jobs[0].intervall", "interval"}},
    {.name = "no UTF-8", .verb = verb_validate, .args = {"validate"}, .input = CRAWL("\"na\xff\xfeme\":\"x\""), .status = 1, .said = {"UTF-8"}},
    {.name = "no UTF-8, for a program", .verb = verb_validate, .args = {"validate", "--json"}, .input = CRAWL("\"na\xff\xfeme\":\"x\""), .status = 1,
     .said = {"{\"errors\":[{\"path\":"}},
    {.name = "a whole plan", .verb = verb_validate, .args = {"validate"}, .input = "{\"version\":1,\"crawl\":" CRAWL(JOB) "}", .status = 1,
     .said = {"version", "crawl: unknown key", "agentctl plan validate FILE"}},
    {.name = "an image by mistake", .verb = verb_validate, .args = {"validate"}, .blanks = 5U << 20, .status = 1,
     .said = {"larger than 4 MiB", "is it the right file"}},
    {.name = "faults on a full disk", .verb = verb_validate, .args = {"validate"}, .input = "{", .to = "/dev/full", .status = 1,
     .said = {"could not be written"}},
};

static const Case backfill_cases[] = {
    {.name = "nothing", .verb = verb_backfill, .args = {"backfill"}, .status = 64, .said = {"one job is needed"}},
    {.name = "no beginning", .verb = verb_backfill, .args = {"backfill", "us"}, .status = 64, .said = {"--from is needed"}},
    {.name = "two jobs", .verb = verb_backfill, .args = {"backfill", "us", "eu", "--from", "2026-01-01"}, .status = 64, .said = {"one job is needed"}},
    {.name = "an option that is none", .verb = verb_backfill, .args = {"backfill", "us", "--since", "2026-01-01"}, .status = 64, .said = {"unknown option"}},
    {.name = "help", .verb = verb_backfill, .args = {"backfill", "--help"}},
    {.name = "no bus", .verb = verb_backfill, .args = {"backfill", "us", "--from", "2026-01-01"}, .status = 1, .said = {"crawlerd backfill: ", "\n  "}},
};
/* clang-format on */

static void recipe_says_what_is_wrong(void **state)
{
    for (size_t i = 0; i < ELEMENTS(recipe_cases); i++)
        check(&recipe_cases[i]);
}

static void validate_says_what_is_wrong(void **state)
{
    for (size_t i = 0; i < ELEMENTS(validate_cases); i++)
        check(&validate_cases[i]);
}

static void backfill_says_what_is_wrong(void **state)
{
    assert_int_equal(setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus", 1), 0);
    for (size_t i = 0; i < ELEMENTS(backfill_cases); i++)
        check(&backfill_cases[i]);
}

static int group_setup(void **state)
{
    auto_free char *dir =
        str_printf("%s/crawler/recipe", getenv("srcdir") ? getenv("srcdir") : ".");

    extract_init();
    return dir ? setenv("MERVIS_RECIPES_DIR", dir, 1) : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recipe_says_what_is_wrong),
        cmocka_unit_test(validate_says_what_is_wrong),
        cmocka_unit_test(backfill_says_what_is_wrong),
    };

    return cmocka_run_group_tests_name("crawl-verbs", tests, group_setup, NULL);
}
