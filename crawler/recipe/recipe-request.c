/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "agent/base/time.h"
#include "crawler/model/bar.h"
#include "crawler/model/zone.h"
#include "crawler/recipe/recipe-fields.h"
#include "crawler/recipe/recipe.h"

#define URL_MAX 8192

#define FOREACH_ITEM(type, item, array)                                                            \
    for (type *item = (array).items, *item##_end_ = item ? item + (array).n : NULL;                \
         item != item##_end_; item++)

/* --- Templates ----------------------------------------------------------------------------------
 */

/* What a template is filled with. */
typedef struct Filling {
    const Recipe *recipe;
    const char *symbol;
    const char *interval; /* the source's word */
    int64_t from_usec, to_usec;
    uint64_t count, page;
} Filling;

static int add_encoded(Buf *buf, const char *text, bool lower)
{
    static const char hex[] = "0123456789ABCDEF";
    int r = 0;

    for (const char *p = text; *p && r >= 0; p++) {
        char c = lower && *p >= 'A' && *p <= 'Z' ? (char)(*p | 0x20) : *p;

        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
            strchr("-._~", c))
            r = buf_add_char(buf, c);
        else
            r = buf_printf(buf, "%%%c%c", hex[(unsigned char)c >> 4], hex[(unsigned char)c & 15]);
    }
    return r;
}

static int add_seconds(const Filling *f, int64_t usec, Buf *buf)
{
    return buf_printf(buf, "%" PRId64, usec / (int64_t)SECOND);
}

static int add_milliseconds(const Filling *f, int64_t usec, Buf *buf)
{
    return buf_printf(buf, "%" PRId64, usec / (int64_t)MSEC);
}

static int add_iso(const Filling *f, int64_t usec, Buf *buf)
{
    char text[TIME_RFC3339_MAX];

    return add_encoded(buf, time_format_rfc3339(text, usec - usec % (int64_t)SECOND), false);
}

/* Dates are of the zone that the first table's rows have, where that is known before the reply. */
static int32_t local_date(const Filling *f, int64_t usec)
{
    const RecipeTable *table = f->recipe->tables.items;
    const RecipeColumn *tz = table->by_field[ROW_FIELD_TZ];
    const Zone *zone;

    if (!tz || !tz->constant || zone_get(tz->constant, &zone, NULL) < 0)
        return (int32_t)((usec - (usec % (int64_t)DAY + (int64_t)DAY) % (int64_t)DAY) /
                         (int64_t)DAY);
    return zone_date(zone, usec);
}

static int add_date(const Filling *f, int64_t usec, Buf *buf)
{
    char text[ROW_DATE_MAX];

    (void)row_date_format(local_date(f, usec), text);
    return buf_add_str(buf, text);
}

static int add_ymd(const Filling *f, int64_t usec, Buf *buf)
{
    char text[ROW_DATE_MAX];

    (void)row_date_format(local_date(f, usec), text);
    return buf_printf(buf, "%.4s%.2s%.2s", text, text + 5, text + 8);
}

static const struct {
    const char *name;
    int (*add)(const Filling *f, int64_t usec, Buf *buf);
    int64_t unit_usec; /* {last:…} is {to:…} minus one of these: the last instant inside */
} time_forms[] = {
    {"s", add_seconds, (int64_t)SECOND},
    {"ms", add_milliseconds, (int64_t)MSEC},
    {"iso", add_iso, (int64_t)SECOND},
    {"ymd", add_ymd, 1},
    {"date", add_date, 1},
};

/* The placeholder between the braces: 1 when known (and filled in, where `f` is given), 0. */
static int fill_placeholder(const Filling *f, const char *name, size_t size, Buf *buf)
{
    static const char *const times[] = {"from:", "to:", "last:"};

    if (size == 6 && memcmp(name, "symbol", 6) == 0)
        return f ? add_encoded(buf, f->symbol, f->recipe->symbol_lower) : 1;
    if (size == 8 && memcmp(name, "interval", 8) == 0)
        return f ? buf_add_str(buf, f->interval) : 1; /* the recipe's own word: "minutes/1" */
    if (size == 5 && memcmp(name, "count", 5) == 0)
        return f ? buf_printf(buf, "%" PRIu64, f->count) : 1;
    if (size == 4 && memcmp(name, "page", 4) == 0)
        return f ? buf_printf(buf, "%" PRIu64, f->page) : 1;
    for (size_t t = 0; t < ELEMENTS(times); t++) {
        size_t n = strlen(times[t]);

        if (size <= n || memcmp(name, times[t], n) != 0)
            continue;
        for (size_t i = 0; i < ELEMENTS(time_forms); i++)
            if (size - n == strlen(time_forms[i].name) &&
                memcmp(name + n, time_forms[i].name, size - n) == 0) {
                if (!f)
                    return 1;
                return time_forms[i].add(f,
                                         t == 0   ? f->from_usec
                                         : t == 1 ? f->to_usec
                                                  : f->to_usec - time_forms[i].unit_usec,
                                         buf);
            }
    }
    return f ? -EINVAL : 0;
}

const char *recipe_template_fault(const char *text)
{
    for (const char *p = text; *p; p++) {
        const char *end;

        if ((unsigned char)*p <= ' ' || *p == 0x7f)
            return "without blanks and control characters";
        if (*p == '}')
            return "a template whose braces match";
        if (*p != '{')
            continue;
        end = strchr(p, '}');
        if (!end)
            return "a template whose braces match";
        if (!fill_placeholder(NULL, p + 1, (size_t)(end - p - 1), NULL))
            return "a template of {symbol}, {interval}, {count}, {page}, {from:F}, {to:F}, "
                   "{last:F}, "
                   "where F is s, ms, iso, ymd or date";
        p = end;
    }
    return NULL;
}

static int fill(const Filling *f, const char *template, Buf *buf)
{
    int r = 0;

    for (const char *p = template; *p && r >= 0;) {
        size_t n = strcspn(p, "{");

        r = buf_add(buf, p, n);
        p += n;
        if (r >= 0 && *p) {
            const char *end = strchr(p, '}');

            assert(end); /* the compiler looked */
            r = fill_placeholder(f, p + 1, (size_t)(end - p - 1), buf);
            p = end + 1;
        }
    }
    return r;
}

/* --- Ranges -------------------------------------------------------------------------------------
 */

static int unknown_interval(const Recipe *recipe, const char *interval, Error *err)
{
    auto_(strv_freep) char **names = NULL;
    auto_free char *all = NULL;

    FOREACH_ITEM (RecipeInterval, i, recipe->intervals)
        if (strv_push(&names, i->key) < 0)
            return error_oom(err);
    all = str_join((const char *const *)names, ", ");
    return error_set(err, -EINVAL, ERROR_INVALID, "recipe %s has no interval \"%.16s\"; it has %s",
                     recipe->name, interval ? interval : "", all ? all : "");
}

int recipe_begin(const Recipe *recipe, const RecipeQuery *query, int64_t from_usec, int64_t to_usec,
                 Cursor *cursor, Error *err)
{
    const RecipeInterval *interval = recipe_interval(recipe, query->interval);

    assert(cursor);

    if (!interval)
        return unknown_interval(recipe, query->interval, err);
    /* "." and ".." would become steps of the path. */
    if (!query->symbol || !symbol_is_valid(query->symbol) || streq(query->symbol, ".") ||
        streq(query->symbol, ".."))
        return error_set(err, -EINVAL, ERROR_INVALID, "\"%.64s\" is no symbol",
                         query->symbol ? query->symbol : "");
    to_usec = MIN_OF(to_usec, query->now_usec);
    if (from_usec == CURSOR_NEVER)
        from_usec = 0;
    if (interval->lookback_usec > 0)
        from_usec = MAX_OF(from_usec, query->now_usec - (int64_t)interval->lookback_usec);
    cursor_start(cursor, from_usec, to_usec);
    cursor->done = from_usec >= to_usec;
    return 0;
}

void recipe_resume(const Recipe *recipe, const RecipeQuery *query, Cursor *cursor)
{
    const RecipeInterval *interval = recipe_interval(recipe, query->interval);
    int64_t reach;

    /* Not 0, which would be a range that was not begun. */
    cursor->pages = recipe->paging.max_pages > 1 ? 1 : 0;
    if (!interval || interval->lookback_usec == 0)
        return;
    /* What the source has forgotten meanwhile it would refuse, and go on refusing. */
    reach = query->now_usec - (int64_t)interval->lookback_usec;
    if (recipe->paging.by == RECIPE_PAGING_RANGE && cursor->at_usec != CURSOR_NEVER)
        cursor->at_usec = MIN_OF(MAX_OF(cursor->at_usec, reach), cursor->to_usec);
    cursor->from_usec = MIN_OF(MAX_OF(cursor->from_usec, reach), cursor->to_usec);
    cursor->done = (recipe->paging.by == RECIPE_PAGING_RANGE && cursor->at_usec != CURSOR_NEVER
                        ? cursor->at_usec
                        : cursor->from_usec) >= cursor->to_usec;
}

int recipe_poll(const Recipe *recipe, const RecipeQuery *query, uint64_t backfill_usec,
                Cursor *cursor, Error *err)
{
    const RecipeInterval *interval = recipe_interval(recipe, query->interval);
    int64_t from_usec;

    if (!interval)
        return unknown_interval(recipe, query->interval, err);
    if (!cursor->done && cursor->pages > 0) {
        recipe_resume(recipe, query, cursor);
        if (!cursor->done)
            return 0;
    }
    if (cursor->newest_final_usec != CURSOR_NEVER)
        from_usec = cursor->newest_final_usec -
                    (int64_t)(recipe->overlap * interval_usec(&interval->parsed));
    else
        from_usec = query->now_usec - (int64_t)MIN_OF(backfill_usec, UINT64_C(36500) * DAY);
    return recipe_begin(recipe, query, from_usec, INT64_MAX, cursor, err);
}

/* The part of the range that the next request covers. */
static void page_window(const Recipe *recipe, const RecipeInterval *interval, const Cursor *cursor,
                        int64_t *ret_from, int64_t *ret_to)
{
    uint64_t span = interval->span_usec;
    bool started = cursor->at_usec != CURSOR_NEVER;

    *ret_from = cursor->from_usec;
    *ret_to = cursor->to_usec;
    switch ((RecipePaging)recipe->paging.by) {
    case RECIPE_PAGING_RANGE:
        if (span == 0)
            span = recipe->paging.size * interval_usec(&interval->parsed);
        if (started)
            *ret_from = cursor->at_usec;
        if (span > 0 && (uint64_t)(*ret_to - *ret_from) > span)
            *ret_to = *ret_from + (int64_t)span;
        break;
    case RECIPE_PAGING_BACKWARD:
        if (started)
            *ret_to = cursor->at_usec;
        break;
    case RECIPE_PAGING_NONE:
    case RECIPE_PAGING_PAGE:
    case RECIPE_PAGING_COUNT:
    case RECIPE_PAGING_MAX:
        break;
    }
}

static uint64_t page_count(const Recipe *recipe, const RecipeInterval *interval, int64_t from_usec,
                           int64_t until_usec)
{
    uint64_t bar = interval_usec(&interval->parsed);
    uint64_t bars = ((uint64_t)MAX_OF(until_usec - from_usec, INT64_C(0)) + bar - 1) / bar;

    bars += recipe->paging.by == RECIPE_PAGING_COUNT ? recipe->paging.slack : 1;
    return MIN_OF(bars, recipe->paging.size);
}

static const char *choose_url(const RecipeRequestPart *request, uint64_t back_usec)
{
    FOREACH_ITEM (RecipeUrl, url, request->urls)
        if (url->reach_usec == 0 || back_usec <= url->reach_usec)
            return url->url;
    return request->url;
}

static int fill_headers(const Recipe *recipe, char ***ret)
{
    FOREACH_ITEM (RecipePair, pair, recipe->request.headers) {
        auto_free char *line = str_printf("%s: %s", pair->key, pair->value);

        if (!line || strv_push(ret, line) < 0)
            return -ENOMEM;
    }
    return 0;
}

void recipe_request_done(RecipeRequest *request)
{
    free(request->url);
    strv_free(request->headers);
    *request = (RecipeRequest){0};
}

int recipe_next(const Recipe *recipe, const RecipeQuery *query, const Cursor *cursor,
                RecipeRequest *ret, Error *err)
{
    auto_recipe_request RecipeRequest request = {0};
    auto_buf Buf url = BUF_INIT(URL_MAX);
    const RecipeInterval *interval = recipe_interval(recipe, query->interval);
    Filling f = {.recipe = recipe, .symbol = query->symbol};
    int r;

    if (!interval)
        return unknown_interval(recipe, query->interval, err);
    if (cursor->done || cursor->pages >= recipe->paging.max_pages)
        return 0;

    page_window(recipe, interval, cursor, &f.from_usec, &f.to_usec);
    f.interval = interval->value ? interval->value : interval->key;
    f.page = cursor->page > 0 ? cursor->page : recipe->paging.first;
    f.count = page_count(recipe, interval, f.from_usec,
                         recipe->paging.by == RECIPE_PAGING_COUNT ? query->now_usec : f.to_usec);
    r = fill(
        &f,
        choose_url(&recipe->request, (uint64_t)MAX_OF(query->now_usec - f.from_usec, INT64_C(0))),
        &url);
    if (r >= 0)
        r = fill_headers(recipe, &request.headers);
    if (r == -EFBIG)
        return error_set(err, r, ERROR_INVALID, "recipe %s: the URL is longer than %d bytes",
                         recipe->name, URL_MAX);
    request.url = r >= 0 ? buf_take(&url) : NULL;
    if (!request.url)
        return error_oom(err);
    request.secret_header = recipe->request.secret_header;
    request.from_usec = f.from_usec;
    request.to_usec = f.to_usec;
    request.max_body_bytes = recipe->request.max_body_bytes;
    request.timeout_usec = recipe->request.timeout_usec;
    *ret = request;
    request = (RecipeRequest){0}; /* the caller's now */
    return 1;
}

/* Sources that go backward: done at the beginning of the range, at the source's end, or when a page
 * brings nothing older than the page before. */
static bool backward_is_done(const Cursor *cursor, const RecipePage *page)
{
    if (page->n_rows == 0 || page->oldest_usec == CURSOR_NEVER || (page->more_known && !page->more))
        return true;
    if (cursor->at_usec != CURSOR_NEVER && page->oldest_usec >= cursor->at_usec)
        return true;
    return page->oldest_usec <= cursor->from_usec;
}

int recipe_advance(const Recipe *recipe, const RecipeQuery *query, const RecipePage *page,
                   Cursor *cursor)
{
    const RecipeInterval *interval = recipe_interval(recipe, query->interval);
    int64_t from, to;

    assert(interval); /* recipe_next() looked */

    page_window(recipe, interval, cursor, &from, &to);
    cursor->pages++;
    switch ((RecipePaging)recipe->paging.by) {
    case RECIPE_PAGING_RANGE:
        cursor->at_usec = to;
        cursor->done = to >= cursor->to_usec;
        break;
    case RECIPE_PAGING_BACKWARD:
    case RECIPE_PAGING_PAGE:
        cursor->done = backward_is_done(cursor, page);
        if (page->oldest_usec != CURSOR_NEVER)
            cursor->at_usec = page->oldest_usec;
        cursor->page = (cursor->page > 0 ? cursor->page : (uint32_t)recipe->paging.first) + 1;
        break;
    case RECIPE_PAGING_NONE:
    case RECIPE_PAGING_COUNT:
    case RECIPE_PAGING_MAX:
        cursor->done = true;
        break;
    }

    cursor->pending_final_usec = MAX_OF(cursor->pending_final_usec, page->newest_final_usec);
    /* Forward, all before a page is read; backward, only when the range is. */
    if (cursor->done || recipe->paging.by == RECIPE_PAGING_RANGE)
        cursor->newest_final_usec = MAX_OF(cursor->newest_final_usec, cursor->pending_final_usec);
    return cursor->done ? 0 : 1;
}
