/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/crawlerd/verb-recipe.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/file.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "crawler/extract/extract.h"
#include "crawler/model/bar.h"
#include "crawler/model/zone.h"
#include "crawler/recipe/recipe.h"

/* Part of the interface: scripts test a recipe by them. */
enum {
    EXIT_FINE = 0,
    EXIT_TROUBLE = 1,
    EXIT_SOURCE_ERROR = 3,
    EXIT_REFUSED = 4,
    EXIT_WRONG_USAGE = 64,
};

#define REPLY_MAX ((size_t)256 << 20)

static const char usage_text[] =
    "usage: crawlerd recipe list [--json]\n"
    "       crawlerd recipe show NAME_OR_FILE\n"
    "       crawlerd recipe schema|manual\n"
    "       crawlerd recipe test NAME_OR_FILE --reply BODY [--status N]\n"
    "                [--content-type TYPE] [--symbol SYMBOL] [--interval INTERVAL]\n"
    "                [--now TIME]\n"
    "\n"
    "test reads a recorded reply (- is standard input) and prints its rows as NDJSON,\n"
    "as a sink gets them, or why there are none. --now (RFC 3339) is when the reply\n"
    "came: what was not over then is not final. Exit status: 0 rows or an empty\n"
    "answer, 3 an error that the source reported, 4 a refused document.\n";

static int usage(const char *what)
{
    if (what)
        (void)fprintf(stderr, "crawlerd recipe: %s\n", what);
    (void)fputs(usage_text, stderr);
    return EXIT_WRONG_USAGE;
}

static int complain(const Error *err)
{
    (void)fprintf(stderr, "crawlerd recipe: %s\n", error_text(err));
    if (err->remedy)
        (void)fprintf(stderr, "  %s\n", err->remedy);
    return EXIT_TROUBLE;
}

/* --- list ---------------------------------------------------------------------------------------
 */

static void print_row(const char *name, const Recipe *recipe, const Error *err)
{
    if (!recipe)
        (void)printf("%-16s ? unusable: %s\n", name, error_text(err));
    else
        (void)printf("%-16s %c %.60s\n", name, recipe->terms.acknowledge ? '*' : ' ',
                     recipe->description ? recipe->description : "");
}

static json_t *interval_names(const Recipe *recipe)
{
    const RecipeInterval *items = recipe->intervals.items;
    json_t *names = json_array();

    for (size_t i = 0; names && i < recipe->intervals.n; i++)
        if (json_array_append_new(names, json_string(items[i].key)) < 0) {
            json_decref(names);
            return NULL;
        }
    return names;
}

/* NULL when memory is out. */
static json_t *describe(const char *name, const Recipe *recipe, const Error *err)
{
    if (!recipe)
        return json_pack("{s:s,s:b,s:s}", "name", name, "usable", false, "error", error_text(err));
    return json_pack("{s:s,s:b,s:s,s:s,s:o,s:b}", "name", name, "usable", true, "description",
                     recipe->description ? recipe->description : "", "file", recipe->file,
                     "intervals", interval_names(recipe), "needs_acknowledgement",
                     recipe->terms.acknowledge);
}

static int list(bool as_json)
{
    auto_(strv_freep) char **names = NULL;
    auto_error Error err = {0};
    json_auto_t *all = json_array();
    auto_free char *text = NULL;
    int r;

    r = recipe_list(&names, &err);
    if (r < 0 || !all)
        return complain(&err);
    STRV_FOREACH (name, names) {
        auto_(recipe_freep) Recipe *recipe = NULL;
        auto_error Error fault = {0};

        (void)!recipe_load(*name, &recipe, &fault); /* an unusable one is listed as such */
        if (!as_json)
            print_row(*name, recipe, &fault);
        else
            (void)json_array_append_new(all, describe(*name, recipe, &fault));
    }
    if (as_json) {
        text = json_text(all, true);
        (void)puts(text ? text : "[]");
    } else
        (void)puts("* runs only where the job says \"terms\": \"acknowledged\"");
    return EXIT_FINE;
}

/* --- show, schema -------------------------------------------------------------------------------
 */

static int show(const char *name)
{
    auto_buf Buf text = BUF_INIT(1024 * 1024);
    auto_error Error err = {0};
    auto_free char *file = NULL;

    if (recipe_read(name, &text, &file, &err) < 0)
        return complain(&err);
    (void)fprintf(stderr, "# %s\n", file);
    (void)fwrite(buf_str(&text), 1, text.size, stdout);
    return EXIT_FINE;
}

static int schema(void)
{
    json_auto_t *object = recipe_schema();
    auto_free char *text = object ? json_text(object, true) : NULL;

    if (!text)
        return EXIT_TROUBLE;
    (void)puts(text);
    return EXIT_FINE;
}

static int manual(void)
{
    auto_buf Buf text = BUF_INIT(1024 * 1024);

    if (recipe_manual(&text) < 0)
        return EXIT_TROUBLE;
    (void)fputs(buf_str(&text), stdout);
    return EXIT_FINE;
}

/* --- test ---------------------------------------------------------------------------------------
 */

typedef struct TestOptions {
    const char *reply, *content_type;
    long status;
    ExtractRequest request;
} TestOptions;

/* All faults of a recipe, with line and column: whoever runs this is writing one. */
static int compile(const char *name, Recipe **ret)
{
    auto_buf Buf text = BUF_INIT(1024 * 1024), faults = BUF_INIT(1024 * 1024);
    auto_field_errors FieldErrors errors = {0};
    auto_error Error err = {0};
    auto_free char *file = NULL;

    if (recipe_read(name, &text, &file, &err) < 0)
        return complain(&err);
    if (recipe_compile(buf_str(&text), text.size, file, ret, &errors, &err) >= 0)
        return EXIT_FINE;
    if (errors.n == 0 || field_errors_format(&errors, /* positions= */ true, &faults) < 0)
        return complain(&err);
    (void)fprintf(stderr, "%s:\n%s", file, buf_str(&faults));
    return EXIT_TROUBLE;
}

static int read_input(Buf *ret, Error *err)
{
    char block[65536];
    size_t n;

    while ((n = fread(block, 1, sizeof(block), stdin)) > 0)
        if (buf_add(ret, block, n) < 0)
            return error_set(err, -EFBIG, ERROR_INVALID, "the reply is larger than 256 MiB");
    return ferror(stdin) ? error_errno(err, errno, "read standard input") : 0;
}

static int read_reply(const char *path, Buf *ret, Error *err)
{
    int r = streq(path, "-") ? read_input(ret, err) : file_read(path, REPLY_MAX, ret, err);

    if (r == -ENOENT && !err->message)
        (void)error_errno(err, ENOENT, "read %s", path);
    if (r < 0)
        return error_remedy(err, r,
                            "--reply takes the file of a recorded reply, or - for standard input");
    if (ret->size >= 2 && memcmp(ret->data, "\x1f\x8b", 2) == 0) {
        (void)error_set(err, -EBADMSG, ERROR_INVALID, "the reply is compressed with gzip");
        return error_remedy(err, -EBADMSG,
                            "unpack it (gzip -dc FILE | crawlerd recipe test … --reply -), or "
                            "record it with curl --compressed");
    }
    return 0;
}

static int print_rows(const RowSet *rows)
{
    auto_buf Buf buf = BUF_INIT((size_t)1 << 20);

    for (size_t i = 0; i < rows->n; i++) {
        if (row_encode_ndjson(&rows->rows[i], &buf) < 0)
            return EXIT_TROUBLE;
        if (buf.size > (size_t)1 << 19 || i + 1 == rows->n) {
            (void)fwrite(buf.data, 1, buf.size, stdout);
            buf_clear(&buf);
        }
    }
    for (size_t i = 0; i < rows->n_dead; i++)
        (void)fprintf(stderr, "dead row: %s (%s)\n", rows->dead[i].reason, rows->dead[i].text);
    return EXIT_FINE;
}

static int report(const ExtractOutcome *outcome, const RowSet *rows)
{
    int r;

    switch (outcome->verdict) {
    case EXTRACT_ROWS:
        r = print_rows(rows);
        if (rows->n > 0 && !rows->rows[0].symbol)
            (void)fputs("the reply does not say its symbol: --symbol SYMBOL does\n", stderr);
        (void)fprintf(stderr, "%zu rows, %zu dead, %zu dropped\n", rows->n, rows->n_dead,
                      outcome->dropped);
        return r;
    case EXTRACT_EMPTY:
        (void)fputs("empty: the source has nothing for this request\n", stderr);
        return EXIT_FINE;
    case EXTRACT_SOURCE_ERROR:
        (void)fprintf(stderr, "error of the source (%s): %s\n", error_kind_name(outcome->kind),
                      outcome->text);
        return EXIT_SOURCE_ERROR;
    case EXTRACT_REFUSED:
        (void)fprintf(stderr,
                      "refused: %s\n"
                      "  is it the whole body, of this recipe's request? Where the source changed, "
                      "the recipe must change, too\n",
                      outcome->text);
        return EXIT_REFUSED;
    case EXTRACT_VERDICT_MAX:
        break;
    }
    return EXIT_TROUBLE;
}

/* As the check of a plan: a job could not ask for it. */
static int check_interval(const Recipe *recipe, const char *interval)
{
    auto_buf Buf known = BUF_INIT(4096);

    if (!interval || recipe_interval(recipe, interval))
        return EXIT_FINE;
    if (recipe_format_intervals(recipe, &known) < 0)
        return EXIT_TROUBLE;
    (void)fprintf(stderr, "crawlerd recipe: recipe %s has no interval \"%s\"; it has %s\n",
                  recipe->name, interval, buf_str(&known));
    return EXIT_WRONG_USAGE;
}

static int run_test(const char *name, const TestOptions *options)
{
    auto_(recipe_freep) Recipe *recipe = NULL;
    auto_extract_outcome ExtractOutcome outcome = {0};
    auto_buf Buf body = BUF_INIT(REPLY_MAX);
    auto_row_set RowSet rows = {0};
    auto_error Error err = {0};
    int r;

    r = compile(name, &recipe);
    if (r != EXIT_FINE || !recipe)
        return r;
    r = check_interval(recipe, options->request.interval);
    if (r != EXIT_FINE)
        return r;
    if (read_reply(options->reply, &body, &err) < 0 ||
        extract_run(recipe, &options->request, body.data, body.size, options->status,
                    options->content_type, &rows, &outcome, &err) < 0)
        return complain(&err);
    return report(&outcome, &rows);
}

enum {
    OPTION_REPLY = 256,
    OPTION_STATUS,
    OPTION_TYPE,
    OPTION_SYMBOL,
    OPTION_INTERVAL,
    OPTION_NOW,
    OPTION_HELP
};

static int parse_test_option(int c, const char *value, TestOptions *options)
{
    Interval interval;
    uint64_t number;

    switch (c) {
    case OPTION_REPLY:
        options->reply = value;
        return 0;
    case OPTION_STATUS:
        if (parse_u64(value, &number) < 0 || number < 100 || number > 599)
            return usage("--status takes an HTTP status, 100 to 599");
        options->status = (long)number;
        return 0;
    case OPTION_TYPE:
        options->content_type = value;
        return 0;
    case OPTION_SYMBOL:
        if (!streq(value, "*") && !symbol_is_valid(value))
            return usage("--symbol takes a symbol of 1 to 64 printable characters");
        options->request.symbol = value;
        return 0;
    case OPTION_INTERVAL:
        if (interval_parse(value, &interval) < 0)
            return usage("--interval takes one like 1m, 1h, 1d, 1wk, 1mo");
        options->request.interval = value;
        return 0;
    case OPTION_NOW:
        return time_parse_rfc3339(value, &options->request.now_usec) < 0
                   ? usage("--now takes a time like 2026-10-07T06:30:00Z")
                   : 0;
    default:
        return usage(NULL);
    }
}

static int test(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"reply", required_argument, NULL, OPTION_REPLY},
        {"status", required_argument, NULL, OPTION_STATUS},
        {"content-type", required_argument, NULL, OPTION_TYPE},
        {"symbol", required_argument, NULL, OPTION_SYMBOL},
        {"interval", required_argument, NULL, OPTION_INTERVAL},
        {"now", required_argument, NULL, OPTION_NOW},
        {"help", no_argument, NULL, OPTION_HELP},
        {NULL, 0, NULL, 0},
    };
    TestOptions options = {
        .status = 200,
        .request = {.from_usec = CURSOR_NEVER,
                    .to_usec = INT64_MAX,
                    .now_usec = (int64_t)now_realtime_usec()},
    };
    int c, r;

    optind = 0; /* a fresh start: agentd's main may have used it */
    while ((c = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
        if (c == OPTION_HELP) {
            (void)fputs(usage_text, stdout);
            return EXIT_FINE;
        }
        r = parse_test_option(c, optarg, &options);
        if (r != 0)
            return r;
    }
    if (optind != argc - 1)
        return usage("test takes one recipe, by name or file");
    if (!options.reply)
        return usage("--reply is needed: the recorded reply");
    /* Unknown type: taken for what the recipe expects, since files do not carry one. */
    r = run_test(argv[optind], &options);
    zone_forget_all();
    return r;
}

static int run_verb(int argc, char **argv)
{
    if (argc < 2)
        return usage(NULL);
    if (streq(argv[1], "--help")) {
        (void)fputs(usage_text, stdout);
        return EXIT_FINE;
    }
    if (streq(argv[1], "list") && (argc == 2 || (argc == 3 && streq(argv[2], "--json"))))
        return list(argc == 3);
    if (streq(argv[1], "show") && argc == 3)
        return show(argv[2]);
    if (streq(argv[1], "schema") && argc == 2)
        return schema();
    if (streq(argv[1], "manual") && argc == 2)
        return manual();
    if (streq(argv[1], "test"))
        return test(argc - 1, argv + 1);
    return usage(NULL);
}

int verb_recipe(int argc, char **argv)
{
    int r;

    extract_init();
    r = run_verb(argc, argv);
    /* A full disk behind it says so here, if not before. */
    if (fflush(stdout) == 0 && !ferror(stdout))
        return r;
    (void)fprintf(stderr, "crawlerd recipe: what it prints could not be written: %s\n",
                  strerror(errno));
    return EXIT_TROUBLE;
}
