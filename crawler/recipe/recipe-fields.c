/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/recipe/recipe-fields.h"

#include <string.h>

#include "agent/base/time.h"
#include "crawler/recipe/recipe.h"

static const char *const format_names[] = {"json", "xml", "html", "csv", "text", NULL};
static const char *const paging_names[] = {"none", "range", "backward", "page", "count", NULL};
static const char *const robots_names[] = {"obey", "api", NULL};
static const char *const final_names[] = {"day", "interval", "at-once", NULL};
static const char *const request_names[] = {"symbol", "interval", NULL};
static const char *const type_names[] = {"decimal", "integer",  "text",     "date", "datetime",
                                         "epoch-s", "epoch-ms", "epoch-us", "bool", NULL};
/* In the order of ErrorKind. */
static const char *const error_names[] = {"internal", "invalid", "temporary", "throttled",
                                          "denied",   "corrupt", NULL};

const char *const recipe_column_names[] = {
    "symbol", "venue", "currency", "interval",  "tz",     "session",   "ts",        "open", "high",
    "low",    "close", "volume",   "adj_close", "amount", "ratio_num", "ratio_den", NULL,
};

_Static_assert(ELEMENTS(recipe_column_names) == ROW_FIELD_MAX + 1, "a name for each column");

static const char *check_name(const char *value)
{
    for (const char *p = value; *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || (*p == '-' && p > value)))
            return "lower-case letters, digits and '-', a letter or digit first";
    return NULL;
}

static const char *check_host(const char *value)
{
    if (strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789.-") != strlen(value) ||
        !strchr(value, '.'))
        return "a host name in lower case, without port";
    return NULL;
}

static const char *check_interval(const char *value)
{
    Interval interval;

    return interval_parse(value, &interval) < 0 ? "an interval like 1m, 1h, 1d, 1wk, 1mo" : NULL;
}

static const char *check_column(const char *value)
{
    for (size_t i = 0; i < ROW_FIELD_MAX; i++)
        if (streq(value, recipe_column_names[i]))
            return NULL;
    return "a column of a row: symbol, venue, currency, interval, tz, session, ts, open, high, "
           "low, "
           "close, volume, adj_close, amount, ratio_num, ratio_den";
}

static const char *check_status(const char *value)
{
    if (strlen(value) == 3 && value[0] >= '1' && value[0] <= '5' &&
        (streq(value + 1, "xx") ||
         (value[1] >= '0' && value[1] <= '9' && value[2] >= '0' && value[2] <= '9')))
        return NULL;
    return "an HTTP status like 404, or a class like 5xx";
}

static const char *check_time(const char *value)
{
    if (strlen(value) == 5 && value[0] >= '0' && value[0] <= '2' && value[1] >= '0' &&
        value[1] <= '9' && (value[0] < '2' || value[1] < '4') && value[2] == ':' &&
        value[3] >= '0' && value[3] <= '5' && value[4] >= '0' && value[4] <= '9')
        return NULL;
    return "a time of day like 09:00";
}

/* Goes into the URL as it stands. */
static const char *check_url_word(const char *value)
{
    for (const char *p = value; *p; p++)
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f || strchr("?#&{}\"<>\\", *p))
            return "a word that a URL can hold";
    return NULL;
}

/* A slip here would send a header of its own. */
static const char *check_header(const char *value)
{
    for (const char *p = value; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return "text without control characters";
    return NULL;
}

/* clang-format off */
static const Field text_value =
    FIELD_STRING("value", RecipePair, value, NULL, 0, 256, FIELD_REQUIRED, NULL, "the value");
static const Field header_value =
    FIELD_STRING("value", RecipePair, value, NULL, 0, 1024, FIELD_REQUIRED, check_header, "the value");

static const Field column_fields[] = {
    FIELD_STRING("path", RecipeColumn, path, NULL, 0, 512, 0, NULL,
                 "where it is in the row, or in the object of parallel arrays"),
    FIELD_STRING("header", RecipeColumn, header, NULL, 1, 512, 0, NULL,
                 "where it is in the document, once for all rows"),
    FIELD_ENUM("request", RecipeColumn, request, NULL, request_names, "the request's own value"),
    FIELD_STRING("const", RecipeColumn, constant, NULL, 1, 256, 0, NULL, "always this"),
    FIELD_MAP("by_suffix", RecipeColumn, by_suffix, RecipePair, &text_value, 100, NULL,
              "the value by the ending of the symbol, the first that fits; \"\" is no value"),
    FIELD_MAP("map", RecipeColumn, map, RecipePair, &text_value, 200, NULL,
              "words of the source and what they are here; others stay"),
    FIELD_STRING("until", RecipeColumn, until, NULL, 1, 1, 0, NULL, "the source's text counts up to this character"),
    FIELD_STRING("prefix", RecipeColumn, prefix, NULL, 1, 64, 0, NULL, "put before the source's text"),
    FIELD_STRING("suffix", RecipeColumn, suffix, NULL, 1, 64, 0, NULL, "put after the source's text"),
    FIELD_ENUM("type", RecipeColumn, type, NULL, type_names,
               "how it is written; default: decimal for amounts, text for names"),
    FIELD_STRING("format", RecipeColumn, format, NULL, 1, 64, 0, NULL,
                 "of a date or datetime: %Y %m %d %H %M %S %f %z and the characters between"),
    FIELD_STRING("zone", RecipeColumn, zone, NULL, 1, 64, 0, NULL,
                 "IANA zone of a datetime without offset; default: the row's tz"),
    FIELD_STRING("time", RecipeColumn, time, NULL, 5, 5, 0, check_time,
                 "local time of day at which a bar opens that has only a date"),
    FIELD_STRV("null", RecipeColumn, null, 20, NULL, "texts that mean that there is no value"),
    FIELD_BOOL("zero_is_null", RecipeColumn, zero_is_null, "false", "0 is no price (a halted day)"),
    FIELD_BOOL("float32", RecipeColumn, float32, "true",
               "a JSON number that is exactly a float32 is read as its shortest text; volumes never are"),
    FIELD_BOOL("thousands", RecipeColumn, thousands, "false", "commas stand between thousands"),
    FIELD_BOOL("cumulative", RecipeColumn, cumulative, "false",
               "it counts from the start of the trade date; rows get the difference"),
    FIELD_BOOL("required", RecipeColumn, required, "false", "a row without it is a dead letter"),
    FIELD_BOOL("optional", RecipeColumn, optional, "false", "of parallel arrays: it may be missing"),
    FIELD_BOOL("same", RecipeColumn, same, "false",
               "the request's value and the reply's must agree, or the reply is refused"),
    FIELD_BOOL("filter", RecipeColumn, filter, "false",
               "rows of another value than the request's are skipped; the request * takes all"),
    FIELD_UINT("times_10_to", RecipeColumn, times_10_to, "0", 0, 18, "multiply by this power of ten"),
    FIELD_UINT("over_10_to", RecipeColumn, over_10_to, "0", 0, 18, "divide by this power of ten"),
    {0},
};
static const Field column_value =
    FIELD_OBJECT("column", RecipeColumn, key, column_fields, NULL, "one column");

static const Field table_fields[] = {
    FIELD_ENUM("kind", RecipeTable, kind, "bar", row_kind_names, "what its rows are"),
    FIELD_STRING("rows", RecipeTable, rows, NULL, 0, 512, 0, NULL, "where the rows are"),
    FIELD_STRING("arrays", RecipeTable, arrays, NULL, 0, 512, 0, NULL,
                 "instead: the object that holds parallel arrays, one a column"),
    FIELD_STRING("holder", RecipeTable, holder, NULL, 1, 512, 0, NULL,
                 "of arrays: it is there, in a reply without rows, when the arrays are not"),
    FIELD_STRING("split", RecipeTable, split, NULL, 1, 1, 0, NULL,
                 "a row is one text, split at this character; columns are [0], [1], …"),
    FIELD_STRING("attribute", RecipeTable, attribute, NULL, 1, 512, 0, NULL,
                 "XPath of the text to split, from the row"),
    FIELD_STRV("headings", RecipeTable, headings, 20, NULL,
               "first lines that are accepted; with skip_rows by ts alone, or by all times and amounts"),
    FIELD_UINT("skip_rows", RecipeTable, skip_rows, "0", 0, 10, "first rows that are headings"),
    FIELD_UINT("min_cells", RecipeTable, min_cells, "0", 0, 100, "html: rows of fewer cells are spacers"),
    FIELD_BOOL("optional", RecipeTable, optional, "false", "a reply without it is right, too"),
    FIELD_MAP("columns", RecipeTable, columns, RecipeColumn, &column_value, 40, check_column,
              "what is read of each row", .flags = FIELD_REQUIRED),
    {0},
};

static const Field rule_fields[] = {
    FIELD_STRV("status", RecipeRule, status, 20, check_status, "HTTP statuses"),
    FIELD_STRING("path", RecipeRule, path, NULL, 0, 512, 0, NULL, "something is there, and no null"),
    FIELD_STRING("equals", RecipeRule, equals, NULL, 0, 256, 0, NULL, "and its text is this"),
    FIELD_STRING("contains", RecipeRule, contains, NULL, 1, 256, 0, NULL,
                 "and its text has this inside, upper and lower case alike"),
    FIELD_STRING("body", RecipeRule, body, NULL, 1, 256, 0, NULL,
                 "the reply cannot be read as the recipe says, and its first 4 KiB have this inside"),
    FIELD_STRING("body_is", RecipeRule, body_is, NULL, 1, 256, 0, NULL,
                 "the reply cannot be read as the recipe says, and is this and nothing else"),
    FIELD_STRV("absent", RecipeRule, absent, RECIPE_ABSENT_MAX, NULL, "nothing is at any of these paths"),
    FIELD_STRING("message", RecipeRule, message, NULL, 1, 512, 0, NULL,
                 "where the source's own words are"),
    FIELD_ENUM("kind", RecipeRule, kind, "invalid", error_names,
               "what follows: invalid (a person must act), temporary, throttled, denied"),
    FIELD_STRING("means", RecipeRule, means, NULL, 1, 256, 0, NULL, "in our words"),
    FIELD_DURATION("retry_after", RecipeRule, retry_after_usec, "0s", 0, 7 * DAY,
                   "how long to stay away at least"),
    FIELD_BOOL("nothing", RecipeRule, nothing, "false",
               "of an error: the source has nothing for what was asked, and crawling goes on past it"),
    {0},
};

static const Field interval_fields[] = {
    FIELD_STRING("value", RecipeInterval, value, NULL, 1, 64, 0, check_url_word, "the source's word; default: ours"),
    FIELD_DURATION("lookback", RecipeInterval, lookback_usec, "0s", 0, 36500 * DAY,
                   "how far back the source goes; 0s: for ever"),
    FIELD_DURATION("span", RecipeInterval, span_usec, "0s", 0, 36500 * DAY,
                   "most time that one request may cover; 0s: paging.size bars, or no limit"),
    FIELD_DURATION("minimum_every", RecipeInterval, minimum_every_usec, "0s", 0, DAY,
                   "asking more often is pointless"),
    {0},
};
static const Field interval_value =
    FIELD_OBJECT("interval", RecipeInterval, key, interval_fields, NULL, "one bar length");

static const Field url_fields[] = {
    FIELD_STRING("url", RecipeUrl, url, NULL, 1, 2048, FIELD_REQUIRED, recipe_template_fault, "the URL"),
    FIELD_DURATION("reach", RecipeUrl, reach_usec, "0s", 0, 36500 * DAY,
                   "how far back from now it goes; 0s: for ever"),
    {0},
};

static const Field request_fields[] = {
    FIELD_STRING("url", RecipeRequestPart, url, NULL, 1, 2048, 0, recipe_template_fault,
                 "the URL, with {symbol}, {interval}, {from:…}, {to:…}, {last:…}, {count}, {page}"),
    FIELD_ARRAY("urls", RecipeRequestPart, urls, RecipeUrl, url_fields, 10, NULL,
                "instead: several, the first whose reach suffices is asked"),
    FIELD_MAP("headers", RecipeRequestPart, headers, RecipePair, &header_value, 20, check_header,
              "request headers"),
    FIELD_STRING("secret_header", RecipeRequestPart, secret_header, NULL, 1, 64, 0, check_header,
                 "the header that carries the secret which the job names"),
    FIELD_SIZE("max_body", RecipeRequestPart, max_body_bytes, "16MiB", 1024, UINT64_C(256) << 20,
               "larger replies are refused, after decompression"),
    FIELD_DURATION("timeout", RecipeRequestPart, timeout_usec, "30s", SECOND, 10 * MINUTE,
                   "the whole exchange"),
    {0},
};

static const Field paging_fields[] = {
    FIELD_ENUM("by", RecipePagingPart, by, "none", paging_names, "how a long range is read"),
    FIELD_UINT("size", RecipePagingPart, size, "0", 0, 100000, "bars that one request asks for"),
    FIELD_UINT("max_pages", RecipePagingPart, max_pages, "1000", 1, 1000000,
               "a stop for sources that repeat themselves"),
    FIELD_UINT("first", RecipePagingPart, first, "1", 0, 1, "number of the first page"),
    FIELD_UINT("slack", RecipePagingPart, slack, "5", 0, 1000, "by count: bars more than the days between"),
    FIELD_STRING("more", RecipePagingPart, more, NULL, 1, 512, 0, NULL,
                 "by page: it is there while there are further pages"),
    {0},
};

static const Field politeness_fields[] = {
    FIELD_ENUM("robots", RecipePoliteness, robots, "obey", robots_names,
               "obey: robots.txt is read and obeyed; api: a documented interface for programs"),
    FIELD_DURATION("delay", RecipePoliteness, delay_usec, "2s", 0, HOUR,
                   "least time between two requests to the host"),
    FIELD_UINT("connections", RecipePoliteness, connections, "1", 1, 8, "at the same time"),
    FIELD_UINT("requests_per_day", RecipePoliteness, requests_per_day, "0", 0, 10000000, "0: no limit"),
    FIELD_BOOL("conditional", RecipePoliteness, conditional, "false",
               "ask with If-None-Match and If-Modified-Since"),
    {0},
};

static const Field terms_fields[] = {
    FIELD_BOOL("acknowledge", RecipeTerms, acknowledge, "false",
               "it runs only where the job says \"terms\": \"acknowledged\""),
    FIELD_STRING("text", RecipeTerms, text, NULL, 1, 1024, 0, NULL, "what is acknowledged"),
    FIELD_STRING("url", RecipeTerms, url, NULL, 1, 512, 0, NULL, "where the terms are"),
    {0},
};

static const Field value_row =
    FIELD_STRING("value", RecipeValue, path, NULL, 1, 512, FIELD_REQUIRED, NULL, "where it is in the document");

const Field recipe_fields[] = {
    FIELD_STRING("name", Recipe, name, NULL, 1, 64, FIELD_REQUIRED, check_name,
                 "what plans and rows call the source", .pattern = "^[a-z0-9][a-z0-9-]*$"),
    FIELD_STRING("description", Recipe, description, NULL, 1, 512, 0, NULL, "one line for lists"),
    FIELD_STRV("hosts", Recipe, hosts, 20, check_host,
               "requests and redirects go to these hosts and nowhere else", .flags = FIELD_REQUIRED, .min = 1),
    FIELD_ENUM("format", Recipe, format, "json", format_names, "how replies are written"),
    FIELD_STRING("charset", Recipe, charset, NULL, 1, 32, 0, NULL,
                 "what the bytes are, whatever the reply says (CP949); default: UTF-8, or the document's own"),
    FIELD_STRV("content_types", Recipe, content_types, 20, NULL,
               "accepted types; \"\" accepts a reply without one; default: any"),
    FIELD_STRING("root", Recipe, root, NULL, 1, 512, 0, NULL,
                 "json: object or array; xml: the root element; html: XPath of what must be there"),
    FIELD_STRING("separator", Recipe, separator, ",", 1, 1, 0, NULL, "csv: what stands between cells"),
    FIELD_OBJECT("request", Recipe, request, request_fields, NULL, "what is asked", .flags = FIELD_REQUIRED),
    FIELD_MAP("intervals", Recipe, intervals, RecipeInterval, &interval_value, 40, check_interval,
              "bar lengths that it has; the first is the default", .flags = FIELD_REQUIRED, .min = 1),
    FIELD_OBJECT("paging", Recipe, paging, paging_fields, NULL, "how a long range is read"),
    FIELD_OBJECT("politeness", Recipe, politeness, politeness_fields, NULL, "how often it may be asked"),
    FIELD_OBJECT("terms", Recipe, terms, terms_fields, NULL, "whose permission is needed"),
    FIELD_UINT("overlap", Recipe, overlap, "3", 0, 1000, "bars that every poll reads again"),
    FIELD_BOOL("symbol_lower", Recipe, symbol_lower, "false", "symbols are asked for in lower case"),
    FIELD_ENUM("final", Recipe, final, "day", final_names, "when a bar cannot change any more"),
    FIELD_MAP("values", Recipe, values, RecipeValue, &value_row, 40, NULL,
              "values of the document that fixups ask for by name"),
    FIELD_STRV("fixups", Recipe, fixups, 10, NULL, "named corrections that data cannot say, in order"),
    FIELD_ARRAY("tables", Recipe, tables, RecipeTable, table_fields, 10, NULL, "the rows of a reply, by kind",
                .flags = FIELD_REQUIRED, .min = 1),
    FIELD_ARRAY("errors", Recipe, errors, RecipeRule, rule_fields, 50, NULL, "how an error looks, in order"),
    FIELD_ARRAY("empty", Recipe, empty, RecipeRule, rule_fields, 20, NULL, "how an empty answer looks"),
    {0},
};
/* clang-format on */
