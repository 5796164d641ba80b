/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/extract/extract.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "crawler/extract/document.h"

#define BODY_LOOKED_AT 4096
#define QUOTED_MAX     160
#define REASON_MAX     1000

static const char *const verdict_names[] = {
    [EXTRACT_ROWS] = "rows",
    [EXTRACT_EMPTY] = "empty",
    [EXTRACT_SOURCE_ERROR] = "source-error",
    [EXTRACT_REFUSED] = "refused",
};

static bool has_fixup(const char *name)
{
    return fixup_find(name) != NULL;
}

void extract_init(void)
{
    recipe_check_xpath = document_check_xpath;
    recipe_has_fixup = has_fixup;
}

void extract_outcome_done(ExtractOutcome *outcome)
{
    free(outcome->text);
    *outcome = (ExtractOutcome){0};
}

const char *extract_verdict_name(ExtractVerdict verdict)
{
    return verdict_names[verdict];
}

/* --- Rules --------------------------------------------------------------------------------------
 */

static bool status_fits(char *const *patterns, long status)
{
    char text[16];

    if (!patterns)
        return true;
    (void)snprintf(text, sizeof(text), "%ld", status);
    STRV_FOREACH (pattern, patterns)
        if (streq(*pattern, text) ||
            ((*pattern)[1] == 'x' && strlen(text) == 3 && (*pattern)[0] == text[0]))
            return true;
    return false;
}

static bool contains_nocase(const char *text, size_t size, const char *part)
{
    size_t n = strlen(part);

    for (size_t i = 0; i + n <= size; i++)
        if (strncasecmp(text + i, part, n) == 0)
            return true;
    return false;
}

static bool body_is(const char *body, size_t size, const char *text)
{
    while (size > 0 && strchr(" \t\r\n", *body) && *body) {
        body++;
        size--;
    }
    while (size > 0 && strchr(" \t\r\n", body[size - 1]) && body[size - 1])
        size--;
    return size == strlen(text) && strncasecmp(body, text, size) == 0;
}

/* All conditions of the rule. 1, 0, < 0. */
static int rule_fits(Document *doc, const RecipeRule *rule, const RuleCells *cells, long status,
                     const char *body, size_t size)
{
    const char *text;
    size_t n;
    int r;

    if (!status_fits(rule->status, status))
        return 0;
    /* Words of a body count only where it is none of the recipe's: data may have any words. */
    if ((rule->body || rule->body_is) && doc->is_read)
        return 0;
    if (rule->body && !contains_nocase(body, MIN_OF(size, (size_t)BODY_LOOKED_AT), rule->body))
        return 0;
    if (rule->body_is && !body_is(body, size, rule->body_is))
        return 0;
    for (size_t i = 0; i < RECIPE_ABSENT_MAX; i++)
        if (cell_is_there(&cells->absent[i]))
            return 0;
    /* What could not be read has nothing anywhere, and that proves nothing. */
    if (rule->absent && !doc->is_read)
        return 0;
    if (!rule->path)
        return 1;
    if (!cell_is_there(&cells->path))
        return 0;
    if (!rule->equals && !rule->contains)
        return 1;
    r = cell_text(doc, &cells->path, &text, &n);
    if (r <= 0)
        return r == -EBADMSG ? 0 : r;
    if (rule->equals && (strlen(rule->equals) != n || memcmp(rule->equals, text, n) != 0))
        return 0;
    return !rule->contains || contains_nocase(text, n, rule->contains);
}

/* The first line of a body that is none of ours, for a person. */
static char *quote_body(const char *body, size_t size)
{
    size_t n = 0;

    while (size > 0 && strchr(" \t\r\n", *body) && *body) {
        body++;
        size--;
    }
    while (n < size && body[n] != '\n' && body[n] != '\r')
        n++;
    return str_escape(body, n, QUOTED_MAX);
}

/* "our words: the source's". */
static int rule_text(Document *doc, const RecipeRule *rule, const Cell *message, long status,
                     const char *body, size_t size, char **ret)
{
    auto_free char *quoted = NULL;
    const char *text;
    size_t n;
    int r;

    r = cell_text(doc, message, &text, &n);
    if (r == -ENOMEM)
        return r;
    quoted = r > 0 ? str_escape(text, n, QUOTED_MAX * 2) : quote_body(body, size);
    if (!quoted)
        return -ENOMEM;
    if (rule->means)
        *ret = str_printf("%s%s%s", rule->means, *quoted ? ": " : "", quoted);
    else
        *ret = *quoted ? take_ptr(quoted) : str_printf("HTTP %ld", status);
    return *ret ? 0 : -ENOMEM;
}

/* --- Errors by status alone ---------------------------------------------------------------------
 */

static const struct {
    long status;
    ErrorKind kind;
    const char *means;
} statuses[] = {
    {401, ERROR_DENIED, "the source wants a key"},
    {403, ERROR_DENIED, "the source refuses us"},
    {404, ERROR_INVALID, "there is no such thing"},
    {408, ERROR_TEMPORARY, "the source gave up waiting"},
    {418, ERROR_THROTTLED, "the source has banned us for a while"},
    {425, ERROR_TEMPORARY, "too early"},
    {429, ERROR_THROTTLED, "too many requests"},
    {451, ERROR_DENIED, "the source does not serve this region"},
};

static int status_error(long status, const char *body, size_t size, ExtractOutcome *ret)
{
    const char *means =
        status >= 500 ? "the source is in trouble" : "the source refuses the request";
    auto_free char *quoted = quote_body(body, size);

    ret->kind = status >= 500 ? ERROR_TEMPORARY : ERROR_INVALID;
    for (size_t i = 0; i < ELEMENTS(statuses); i++)
        if (statuses[i].status == status) {
            ret->kind = statuses[i].kind;
            means = statuses[i].means;
        }
    if (!quoted)
        return -ENOMEM;
    ret->verdict = EXTRACT_SOURCE_ERROR;
    ret->text = str_printf("HTTP %ld: %s%s%s", status, means, *quoted ? ": " : "", quoted);
    return ret->text ? 0 : -ENOMEM;
}

/* --- The course of things -----------------------------------------------------------------------
 */

static bool content_type_fits(const Recipe *recipe, const char *content_type)
{
    size_t n = content_type ? strcspn(content_type, "; \t") : 0;

    if (!recipe->content_types || !content_type)
        return true;
    STRV_FOREACH (accepted, recipe->content_types)
        if (strlen(*accepted) == n && strncasecmp(*accepted, content_type, n) == 0)
            return true;
    return false;
}

static int read_document(Document *doc, const char *body, size_t size)
{
    switch ((RecipeFormat)doc->recipe->format) {
    case RECIPE_JSON:
        return document_read_json(doc, body, size);
    case RECIPE_XML:
        return document_read_xml(doc, body, size);
    case RECIPE_HTML:
        return document_read_html(doc, body, size);
    case RECIPE_CSV:
        return document_read_csv(doc, body, size);
    case RECIPE_TEXT:
        return document_read_text(doc, body, size);
    case RECIPE_FORMAT_MAX:
        break;
    }
    return -EINVAL;
}

/* 1 when an error rule fits, and the outcome is set. */
static int try_errors(Document *doc, long status, const char *body, size_t size,
                      ExtractOutcome *ret)
{
    size_t i = 0;
    int r;

    FOREACH_ITEM (RecipeRule, rule, doc->recipe->errors) {
        r = rule_fits(doc, rule, &doc->errors[i], status, body, size);
        if (r > 0) {
            r = rule_text(doc, rule, &doc->errors[i].message, status, body, size, &ret->text);
            if (r < 0)
                return r;
            ret->verdict = EXTRACT_SOURCE_ERROR;
            ret->kind = (ErrorKind)rule->kind;
            ret->retry_after_usec = rule->retry_after_usec;
            ret->nothing = rule->nothing;
            return 1;
        }
        if (r < 0)
            return r;
        i++;
    }
    return 0;
}

static int try_empty(Document *doc, long status, const char *body, size_t size, ExtractOutcome *ret)
{
    size_t i = 0;
    int r = 0;

    FOREACH_ITEM (RecipeRule, rule, doc->recipe->empty) {
        r = rule_fits(doc, rule, &doc->empties[i++], status, body, size);
        if (r != 0)
            break;
    }
    if (r > 0)
        ret->verdict = EXTRACT_EMPTY;
    return r;
}

/* Takes `text`, which may quote the document, and that cut anywhere. */
static int set_refused(ExtractOutcome *ret, char *text)
{
    ret->text = text ? str_escape(text, strlen(text), REASON_MAX) : NULL;
    free(text);
    if (!ret->text)
        return -ENOMEM;
    ret->verdict = EXTRACT_REFUSED;
    ret->kind = ERROR_CORRUPT;
    return 0;
}

/* Every table that is not optional must have been there, and at least one at all. */
static const char *missing_table(const Document *doc)
{
    const char *missing = NULL;
    bool any = false;

    for (size_t i = 0; i < doc->recipe->tables.n; i++) {
        const RecipeTable *table = document_table(doc, i);

        any |= doc->tables[i].seen;
        if (!doc->tables[i].seen && (!table->optional || !missing))
            missing = table->holder   ? table->holder
                      : table->arrays ? table->arrays
                      : table->rows   ? table->rows
                                      : "row";
        if (!doc->tables[i].seen && !table->optional)
            return missing;
    }
    return any ? NULL : missing;
}

static void measure(const RowsContext *context, ExtractOutcome *ret)
{
    RecipePage *page = &ret->page;

    for (size_t i = context->first; i < context->set->n; i++) {
        const Row *row = &context->set->rows[i];

        if (row->kind != ROW_BAR)
            continue;
        if (page->n_rows++ == 0)
            page->oldest_usec = page->newest_usec = row->ts_usec;
        page->oldest_usec = MIN_OF(page->oldest_usec, row->ts_usec);
        page->newest_usec = MAX_OF(page->newest_usec, row->ts_usec);
        if (row->is_final)
            page->newest_final_usec = MAX_OF(page->newest_final_usec, row->ts_usec);
    }
}

/* Seconds read as milliseconds, and either read as microseconds, are instants of early 1970: in the
 * world, and wrong. A reply whose bars are all there, and which was not asked for that time, is of
 * a source that changed its unit. */
static bool unit_is_wrong(const Document *doc, const RecipePage *page)
{
    const int64_t end_usec = 60 * (int64_t)DAY, asked_usec = doc->request->from_usec;

    if (page->n_rows == 0 || page->oldest_usec < 0 || page->newest_usec >= end_usec ||
        (asked_usec != CURSOR_NEVER && asked_usec < end_usec))
        return false;
    for (size_t i = 0; i < doc->recipe->tables.n; i++) {
        const RecipeTable *table = document_table(doc, i);
        const RecipeColumn *ts = table->by_field[ROW_FIELD_TS];

        if (table->kind == ROW_BAR && doc->tables[i].n_rows > 0)
            return ts->type == COLUMN_EPOCH_MS || ts->type == COLUMN_EPOCH_US;
    }
    return false;
}

static int make_rows(Document *doc, RowSet *rows, ExtractOutcome *ret)
{
    RowsContext context = {.doc = doc, .recipe = doc->recipe, .request = doc->request, .set = rows};
    size_t n = rows->n, n_dead = rows->n_dead;
    const char *missing = missing_table(doc);
    int r;

    if (missing)
        return set_refused(ret, str_printf("the source may have changed: there is no %s", missing));
    r = rows_build(&context);
    if (r <= 0) {
        rows->n = n; /* a refused document gives nothing */
        rows->n_dead = n_dead;
        return r < 0 ? r : set_refused(ret, take_ptr(doc->reason));
    }
    measure(&context, ret);
    if (unit_is_wrong(doc, &ret->page)) {
        rows->n = n;
        rows->n_dead = n_dead;
        return set_refused(ret, strdup("all bars lie in the first weeks of 1970: is the unit of ts "
                                       "still that of the recipe?"));
    }
    ret->dropped = context.dropped;
    ret->verdict = rows->n > n || rows->n_dead > n_dead ? EXTRACT_ROWS : EXTRACT_EMPTY;
    if (doc->recipe->paging.more) {
        ret->page.more_known = true;
        ret->page.more = cell_is_there(&doc->more);
    }
    return 0;
}

static int run(Document *doc, const char *body, size_t size, long status, const char *content_type,
               RowSet *rows, ExtractOutcome *ret)
{
    bool type_fits = content_type_fits(doc->recipe, content_type);
    int r;

    /* What is not of the right type is not parsed, not even to find an error in it. */
    if (type_fits && size > 0) {
        r = read_document(doc, body, size);
        if (r < 0)
            return r;
        doc->is_read = r > 0;
    }
    r = try_errors(doc, status, body, size, ret);
    if (r != 0)
        return r < 0 ? r : 0;
    if (status < 200 || status > 299)
        return status_error(status, body, size, ret);
    r = try_empty(doc, status, body, size, ret);
    if (r != 0)
        return r < 0 ? r : 0;
    if (!type_fits)
        return set_refused(
            ret, str_printf("content type \"%.60s\" is not what the source sends", content_type));
    if (size == 0)
        return set_refused(ret, strdup("the reply is empty"));
    if (!doc->is_read)
        return set_refused(ret, doc->reason ? take_ptr(doc->reason) : strdup("unreadable"));
    return make_rows(doc, rows, ret);
}

int extract_run(const Recipe *recipe, const ExtractRequest *request, const void *body, size_t size,
                long status, const char *content_type, RowSet *rows, ExtractOutcome *ret,
                Error *err)
{
    auto_document Document doc = {.recipe = recipe, .request = request};
    auto_extract_outcome ExtractOutcome outcome = {
        .page = {.oldest_usec = CURSOR_NEVER,
                 .newest_usec = CURSOR_NEVER,
                 .newest_final_usec = CURSOR_NEVER},
    };
    int r;

    assert(recipe && request && (body || size == 0) && rows && ret);

    if (size > UINT32_MAX / 4)
        r = set_refused(&outcome, strdup("the reply is too large"));
    else
        r = run(&doc, body ? body : "", size, status, content_type, rows, &outcome);
    if (r == -ENOMEM)
        return error_oom(err);
    if (r < 0)
        return error_set(err, r, ERROR_INTERNAL, "recipe %s: extraction failed: %s", recipe->name,
                         strerror(-r));
    *ret = outcome;
    outcome = (ExtractOutcome){0};
    return 0;
}
