/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_RECIPE_RECIPE_H
#define CRAWLER_RECIPE_RECIPE_H

/* A recipe is a market-data source as data: where to ask, how to page, what the reply looks like,
 * how an error, an empty answer and a changed source look, and how polite to be. One JSON document
 * a source; the tables in recipe-fields.c are its reference. Decoding finds all faults at once;
 * compiling (paths, templates, zones, rules between fields) adds its own to the same list.
 *
 * Recipes are looked for by name, NAME.json, in MERVIS_RECIPES_DIR (when set),
 * SYSCONF_DIR/recipes and RECIPES_DIR, in this order: a user's recipe of the same name wins. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/error.h"
#include "agent/io/fields.h"
#include "crawler/model/calendar.h"
#include "crawler/model/cursor.h"
#include "crawler/model/instrument.h"
#include "crawler/recipe/path.h"

typedef enum RecipeFormat {
    RECIPE_JSON,
    RECIPE_XML,
    RECIPE_HTML,
    RECIPE_CSV,
    RECIPE_TEXT, /* quasi-JSON: single quotes and trailing commas mended, then as JSON */
    RECIPE_FORMAT_MAX,
} RecipeFormat;

typedef enum RecipePaging {
    RECIPE_PAGING_NONE,     /* one request has all */
    RECIPE_PAGING_RANGE,    /* forward by windows of time: {from}, {to} */
    RECIPE_PAGING_BACKWARD, /* newest first; {to} is the oldest instant seen so far */
    RECIPE_PAGING_PAGE,     /* numbered pages, newest first: {page} */
    RECIPE_PAGING_COUNT,    /* {count} bars back from today */
    RECIPE_PAGING_MAX,
} RecipePaging;

typedef enum RecipeRobots {
    RECIPE_ROBOTS_OBEY, /* robots.txt is read and obeyed */
    RECIPE_ROBOTS_API,  /* a documented API for programs: its own limits hold */
    RECIPE_ROBOTS_MAX,
} RecipeRobots;

/* When a bar is final: nothing of it can change any more. */
typedef enum RecipeFinal {
    RECIPE_FINAL_DAY,      /* intraday: when it ends; longer: when its last local day has ended */
    RECIPE_FINAL_INTERVAL, /* when it ends, counted from its open (markets that never close) */
    RECIPE_FINAL_AT_ONCE,  /* the source publishes only what is final */
    RECIPE_FINAL_MAX,
} RecipeFinal;

typedef enum ColumnType {
    COLUMN_DECIMAL,
    COLUMN_INTEGER, /* a count: no fraction, never touched by the float32 rule */
    COLUMN_TEXT,
    COLUMN_DATE,     /* `format`, in the row's zone at `time` */
    COLUMN_DATETIME, /* `format`, in `zone` */
    COLUMN_EPOCH_S,
    COLUMN_EPOCH_MS,
    COLUMN_EPOCH_US,
    COLUMN_BOOL,
    COLUMN_TYPE_MAX,
} ColumnType;

/* Columns of a row that a recipe fills, in the order of `recipe_column_names`. */
typedef enum RowField {
    ROW_FIELD_SYMBOL,
    ROW_FIELD_VENUE,
    ROW_FIELD_CURRENCY,
    ROW_FIELD_INTERVAL,
    ROW_FIELD_TZ,
    ROW_FIELD_SESSION,
    ROW_FIELD_TS,
    ROW_FIELD_OPEN,
    ROW_FIELD_HIGH,
    ROW_FIELD_LOW,
    ROW_FIELD_CLOSE,
    ROW_FIELD_VOLUME,
    ROW_FIELD_ADJ_CLOSE,
    ROW_FIELD_AMOUNT,
    ROW_FIELD_RATIO_NUM,
    ROW_FIELD_RATIO_DEN,
    ROW_FIELD_MAX,
} RowField;

extern const char *const recipe_column_names[]; /* NULL-terminated */

/* Key and value of a JSON map of strings. */
typedef struct RecipePair {
    char *key;
    char *value;
} RecipePair;

/* Where a value of a row comes from. The first that is there wins: path, request, header,
 * by_suffix, const. `path` is asked row by row, all others once a document. */
typedef struct RecipeColumn {
    char *key;    /* the column's name */
    char *path;   /* of the row (or of the parallel array) */
    char *header; /* of the document: the same for all its rows */
    int request;  /* RecipeRequestValue, -1: none */
    char *constant;
    FieldArray by_suffix;  /* RecipePair: ending of the symbol → value ("" matches any) */
    FieldArray map;        /* RecipePair: the source's word → ours ("day" → "1d") */
    char *until;           /* the source's text counts up to this character ("-" of "KRW-BTC") */
    char *prefix, *suffix; /* put around a text that came from path or header ("EUR" + "USD") */
    int type;              /* ColumnType */
    char *format;          /* of dates: "%Y%m%d", "%Y-%m-%dT%H:%M:%S" (strict) */
    char *zone;            /* of COLUMN_DATETIME: IANA name; default: the row's zone */
    char *time;            /* of COLUMN_DATE: local time of day of the bar's open, "09:00" */
    char **null;           /* texts that mean "no value": "N/A", "-" */
    bool zero_is_null;     /* 0 is no price (halted day) */
    bool float32;          /* AMOUNT_FLOAT32, for JSON numbers that are prices */
    bool thousands;        /* "1,234,567" */
    bool cumulative;       /* counts from the start of the trade date: rows get the difference */
    bool required;         /* a row without it is a dead letter */
    bool optional;         /* of parallel arrays: the array may be missing */
    bool same;             /* the request's value and the reply's must agree, else it is refused */
    bool filter;           /* rows of another value than the request's are skipped ("*": none is) */
    uint64_t times_10_to;  /* value × 10^n ("in thousands" is 3) */
    uint64_t over_10_to;   /* value ÷ 10^n */

    /* Compiled. */
    RowField field;
    RecipePath *path_compiled, *header_compiled;
    int32_t time_sec;
} RecipeColumn;

typedef enum RecipeRequestValue {
    RECIPE_REQUEST_SYMBOL,
    RECIPE_REQUEST_INTERVAL,
} RecipeRequestValue;

/* A value of the document that fixups ask for by name. */
typedef struct RecipeValue {
    char *key;
    char *path;
    RecipePath *path_compiled;
} RecipeValue;

/* One kind of row that a document holds. */
typedef struct RecipeTable {
    int kind;     /* RowKind */
    char *rows;   /* path to the rows ("[]", "events.dividends.*"); XPath for xml and html */
    char *arrays; /* instead of rows: path to the object that holds parallel arrays */
    char *holder; /* with arrays: this is there even when the arrays are not, for want of rows */
    char *split;  /* rows that are one text: split at this character, columns are [0], [1], … */
    char *attribute;    /* of xml rows with split: XPath of that text ("@data") */
    char **headings;    /* csv: each a whole accepted header line, names joined by ',' */
    uint64_t skip_rows; /* first rows that are headings */
    uint64_t min_cells; /* html: rows with fewer cells are spacers */
    bool optional;      /* absent is fine: no such rows */
    FieldArray columns; /* RecipeColumn by column name */

    RecipePath *rows_compiled, *arrays_compiled, *holder_compiled;
    RecipeColumn *by_field[ROW_FIELD_MAX]; /* into columns; NULL where the table has none */
} RecipeTable;

#define RECIPE_ABSENT_MAX 4

/* What a reply looks like that is no rows. All given conditions must hold. */
typedef struct RecipeRule {
    char **status;  /* "404", "5xx"; none: any */
    char *path;     /* something is there (json path, XPath) */
    char *equals;   /* … and is this text */
    char *contains; /* … or has it inside, case ignored */
    char *body;     /* unreadable: the first 4 KiB have this inside, case ignored */
    char *body_is;  /* the whole unreadable reply is this, blanks trimmed, case ignored */
    char **absent;  /* paths at which nothing is, or null */
    char *message;  /* path of the source's own words, for the error */
    int kind;       /* ErrorKind of an error rule */
    char *means;    /* in our words: "no such symbol" */
    uint64_t retry_after_usec;
    bool nothing; /* of an error: the source has nothing for this range, and crawling goes on past
                     it */

    RecipePath *path_compiled, *message_compiled;
    RecipePath *absent_compiled[RECIPE_ABSENT_MAX];
} RecipeRule;

typedef struct RecipeInterval {
    char *key;              /* "1m": in plans and rows */
    char *value;            /* as the source wants it; default: the key */
    uint64_t lookback_usec; /* how far back the source goes; 0: for ever */
    uint64_t span_usec;     /* most time one request may cover; 0: page.size bars, or no limit */
    uint64_t minimum_every_usec; /* polling faster is pointless */
    Interval parsed;
} RecipeInterval;

typedef struct RecipeUrl {
    char *url;
    uint64_t reach_usec; /* how far back from now it goes; 0: for ever */
} RecipeUrl;

typedef struct RecipeRequestPart {
    char *url;
    FieldArray urls;     /* RecipeUrl: the first whose reach suffices, instead of url */
    FieldArray headers;  /* RecipePair */
    char *secret_header; /* header that carries the plan's secret */
    uint64_t max_body_bytes;
    uint64_t timeout_usec;
} RecipeRequestPart;

typedef struct RecipePagingPart {
    int by;             /* RecipePaging */
    uint64_t size;      /* bars a request asks for: {count} */
    uint64_t max_pages; /* at a time: the range goes on at the next poll */
    uint64_t first;     /* number of the first page */
    uint64_t slack; /* COUNT: more bars than the arithmetic says (holidays err to the safe side) */
    char *more;     /* PAGE: present while there are further pages (json path, XPath) */
    RecipePath *more_compiled;
} RecipePagingPart;

typedef struct RecipePoliteness {
    int robots;          /* RecipeRobots */
    uint64_t delay_usec; /* least time between two requests to the host */
    uint64_t connections;
    uint64_t requests_per_day; /* 0: no limit */
    bool conditional;          /* If-None-Match, If-Modified-Since are worth sending */
} RecipePoliteness;

typedef struct RecipeTerms {
    bool acknowledge; /* runs only where the job says "terms": "acknowledged" */
    char *text;       /* what is to be acknowledged */
    char *url;
} RecipeTerms;

typedef struct Recipe {
    char *name;
    char *description;
    char **hosts;         /* requests and redirects go here and nowhere else */
    int format;           /* RecipeFormat */
    char *charset;        /* of xml, html, csv, text: overrides what the reply says ("CP949") */
    char **content_types; /* accepted, without parameters; "" accepts a missing one */
    char *root; /* json, text: "object" or "array"; xml: the root element's name; html: XPath of
                   what must be there */
    char *separator; /* csv: one character */
    RecipeRequestPart request;
    FieldArray intervals; /* RecipeInterval */
    RecipePagingPart paging;
    RecipePoliteness politeness;
    RecipeTerms terms;
    uint64_t overlap; /* bars that a poll reads again */
    bool symbol_lower;
    int final;         /* RecipeFinal */
    FieldArray values; /* RecipeValue */
    char **fixups;     /* names of C functions on rows, in order */
    FieldArray tables; /* RecipeTable */
    FieldArray errors; /* RecipeRule */
    FieldArray empty;  /* RecipeRule */

    char *file; /* where it was read from */
} Recipe;

/* Decodes, checks and compiles. -EINVAL with all faults in `ret_errors` (may be NULL: then `err`
 * has the first and the count). `file` is for messages and shown by `recipe show`. */
int recipe_compile(const char *text, size_t size, const char *file, Recipe **ret,
                   FieldErrors *ret_errors, Error *err) must_check;
/* By name, or by path when `name` has a '/' or ends in ".json". -ENOENT names the nearest. */
int recipe_load(const char *name, Recipe **ret, Error *err) must_check;
Recipe *recipe_free(Recipe *recipe);
DEFINE_AUTO(Recipe, recipe_free)

/* The directories in their order, NULL-terminated; calendars lie there too. */
const char *const *recipe_dirs(void);
/* Names of all recipes to be found, sorted, each once. */
int recipe_list(char ***ret_names, Error *err) must_check;
/* The recipe's own text, as found; for `recipe show`. */
int recipe_read(const char *name, Buf *ret, char **ret_file, Error *err) must_check;
/* JSON Schema of a recipe; new reference. */
json_t *recipe_schema(void);
/* The reference of a recipe for its manual page, in man(7) markup. */
int recipe_manual(Buf *ret) must_check;

/* XPath is judged by libxml2, which belongs to extract: extract_init() sets this. NULL when fine,
 * else what is wrong. */
extern const char *(*recipe_check_xpath)(const char *xpath);
/* Fixups are functions of extract: whether one of that name exists; set by extract_init(). */
extern bool (*recipe_has_fixup)(const char *name);

/* NULL when the recipe has no such interval. */
const RecipeInterval *recipe_interval(const Recipe *recipe, const char *interval);
/* "1m, 5m, 1d": those that it has. */
int recipe_format_intervals(const Recipe *recipe, Buf *ret) must_check;
bool recipe_allows_host(const Recipe *recipe, const char *host);

/* What is asked for. */
typedef struct RecipeQuery {
    const char *symbol;
    const char *interval;
    int64_t now_usec; /* wall clock */
} RecipeQuery;

/* One HTTP request. Everything is inside `url` and `headers` ("Name: value"); the secret is not: a
 * caller adds `secret_header` itself. */
typedef struct RecipeRequest {
    char *url;
    char **headers;
    const char *secret_header;  /* borrowed, or NULL */
    int64_t from_usec, to_usec; /* what rows it may hold; CURSOR_NEVER, INT64_MAX: no bound */
    uint64_t max_body_bytes, timeout_usec;
} RecipeRequest;

void recipe_request_done(RecipeRequest *request);
#define auto_recipe_request auto_(recipe_request_done)

/* What a page gave, for recipe_advance(); extract fills it. */
typedef struct RecipePage {
    size_t n_rows;
    int64_t oldest_usec, newest_usec; /* of bars; CURSOR_NEVER without */
    int64_t newest_final_usec;        /* of final bars; CURSOR_NEVER without */
    bool more_known, more;            /* the reply says whether further pages exist */
} RecipePage;

/* Begins reading [from, to) (CURSOR_NEVER: as far back as the source goes; INT64_MAX: until now),
 * cut to the interval's look-back. -EINVAL when the interval is unknown (message lists those known)
 * or the symbol is no symbol. */
int recipe_begin(const Recipe *recipe, const RecipeQuery *query, int64_t from_usec, int64_t to_usec,
                 Cursor *cursor, Error *err) must_check;
/* Begins the next poll: from newest_final_usec minus the overlap (or `backfill_usec` back from now
 * when nothing was taken yet) until now. A range that was begun and is not done goes on. */
int recipe_poll(const Recipe *recipe, const RecipeQuery *query, uint64_t backfill_usec,
                Cursor *cursor, Error *err) must_check;
/* Goes on with a range that was begun and is not done, after a restart or after max_pages: with a
 * new allowance of pages, and past what the source's look-back has lost meanwhile. */
void recipe_resume(const Recipe *recipe, const RecipeQuery *query, Cursor *cursor);
/* The next request of the range: 1, or 0 when the cursor is done or max_pages are read. */
int recipe_next(const Recipe *recipe, const RecipeQuery *query, const Cursor *cursor,
                RecipeRequest *ret, Error *err) must_check;
/* Moves the cursor past the page that `request` gave. Returns 1 when more is to be read, 0 when the
 * range is done. */
int recipe_advance(const Recipe *recipe, const RecipeQuery *query, const RecipePage *page,
                   Cursor *cursor);

#endif
