/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/recipe/recipe.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "agent/base/file.h"
#include "agent/base/time.h"
#include "crawler/model/zone.h"
#include "crawler/recipe/recipe-fields.h"

#define RECIPE_FILE_MAX (1024 * 1024)
#define RECIPES_MAX     1000

const char *(*recipe_check_xpath)(const char *xpath);
bool (*recipe_has_fixup)(const char *name);

#define FOREACH_ITEM(type, item, array)                                                            \
    for (type *item = (array).items, *item##_end_ = item ? item + (array).n : NULL;                \
         item != item##_end_; item++)

/* --- Compiling: rules between fields, paths, zones ----------------------------------------------
 */

typedef struct Compiler {
    FieldContext *context;
    Recipe *recipe;
    char where[128]; /* "tables[0].columns.open" */
} Compiler;

static void fault(Compiler *c, const char *member, const char *format, ...) printf_like(3, 4);
static void fault(Compiler *c, const char *member, const char *format, ...)
{
    auto_free char *path = NULL, *text = NULL;
    va_list args;
    int r;

    va_start(args, format);
    r = vasprintf(&text, format, args);
    va_end(args);
    path = str_printf("%s%s%s", c->where, *c->where && *member ? "." : "", member);
    if (r < 0 || !path) {
        if (r < 0)
            text = NULL; /* vasprintf leaves it undefined */
        field_error(c->context, NULL, "memory is out");
        return;
    }
    field_error(c->context, *path ? path : NULL, "%s", text);
}

static bool is_json(const Recipe *recipe)
{
    return recipe->format == RECIPE_JSON || recipe->format == RECIPE_TEXT;
}

static bool is_xpath(const Recipe *recipe)
{
    return recipe->format == RECIPE_XML || recipe->format == RECIPE_HTML;
}

/* A path in the language of the format: JSON paths are compiled, XPath is judged. */
static void compile_path(Compiler *c, const char *member, const char *text, bool many,
                         RecipePath **ret)
{
    const char *wrong = NULL;

    if (!text)
        return;
    if (is_xpath(c->recipe)) {
        wrong = recipe_check_xpath ? recipe_check_xpath(text) : NULL;
        if (wrong)
            fault(c, member, "\"%s\" is no XPath: %s", text, wrong);
        return;
    }
    if (!is_json(c->recipe))
        return;
    wrong = path_parse(text, ret);
    if (wrong)
        fault(c, member, "\"%s\" is no path: %s", text, wrong);
    else if (!many && path_is_many(*ret))
        fault(c, member, "\"%s\" names many values where one is needed", text);
}

static bool is_amount(RowField field)
{
    return field >= ROW_FIELD_OPEN && field <= ROW_FIELD_RATIO_DEN;
}

static void check_zone(Compiler *c, const char *member, const char *name)
{
    auto_error Error error = {0};
    const Zone *zone;

    if (name && zone_get(name, &zone, &error) < 0)
        fault(c, member, "%s", error_text(&error));
}

static const char *date_format_fault(const char *format)
{
    bool year = false, month = false, day = false;

    for (const char *p = format; *p; p++) {
        if (*p != '%')
            continue;
        p++;
        if (!*p || !strchr("YmdHMSfz", *p))
            return "only %Y %m %d %H %M %S %f %z are known";
        year |= *p == 'Y';
        month |= *p == 'm';
        day |= *p == 'd';
    }
    return year && month && day ? NULL : "%Y, %m and %d are needed";
}

static void check_type(Compiler *c, RecipeColumn *column)
{
    bool is_ts = column->field == ROW_FIELD_TS;
    bool is_time = column->type >= COLUMN_DATE && column->type <= COLUMN_EPOCH_US &&
                   column->type != COLUMN_TEXT;

    if (column->type < 0) {
        column->type = is_amount(column->field) ? COLUMN_DECIMAL : COLUMN_TEXT;
        if (is_ts)
            fault(c, "type", "ts needs a type: date, datetime, epoch-s, epoch-ms or epoch-us");
    } else if (is_ts != is_time)
        fault(c, "type",
              is_ts ? "ts is a date, datetime or epoch" : "only ts is a date, datetime or epoch");
    else if (is_amount(column->field) != (column->type <= COLUMN_INTEGER) && !is_ts)
        fault(c, "type",
              is_amount(column->field) ? "an amount is decimal or integer" : "it is text");

    if (column->type == COLUMN_DATE || column->type == COLUMN_DATETIME) {
        const char *wrong =
            column->format ? date_format_fault(column->format) : "a format is needed";

        if (wrong)
            fault(c, "format", "%s", wrong);
    } else if (column->format)
        fault(c, "format", "only a date or datetime has a format");
    if (column->time)
        column->time_sec = ((column->time[0] - '0') * 10 + column->time[1] - '0') * 3600 +
                           ((column->time[3] - '0') * 10 + column->time[4] - '0') * 60;
}

static void check_csv_path(Compiler *c, const RecipeTable *table, const RecipeColumn *column)
{
    if (c->recipe->format == RECIPE_CSV && column->path && !*column->path)
        fault(c, "path", "names a heading, or several with '|' between");
    if (table->arrays && column->path && !*column->path)
        fault(c, "path", "the path of an array is needed");
}

static void compile_column(Compiler *c, RecipeTable *table, RecipeColumn *column)
{
    size_t field = 0;
    bool split = table->split != NULL;

    while (field < ROW_FIELD_MAX && !streq(column->key, recipe_column_names[field]))
        field++;
    if (field == ROW_FIELD_MAX)
        return; /* already said */
    column->field = (RowField)field;
    table->by_field[field] = column;

    if (!column->path && !column->header && column->request < 0 && !column->constant &&
        column->by_suffix.n == 0)
        fault(c, "", "nothing says where it comes from: path, header, request, by_suffix or const");
    if (split && column->path) {
        const char *wrong = path_parse(column->path, &column->path_compiled);

        if (wrong || column->path_compiled->n != 1 ||
            column->path_compiled->steps[0].kind != PATH_INDEX)
            fault(c, "path", "of a split row a part is named like [0]");
    } else
        compile_path(c, "path", column->path, false, &column->path_compiled);
    if (column->header && c->recipe->format == RECIPE_CSV)
        fault(c, "header", "a csv document has no values outside its rows");
    compile_path(c, "header", column->header, false, &column->header_compiled);
    check_csv_path(c, table, column);
    check_type(c, column);
    check_zone(c, "zone", column->zone);
    if (column->field == ROW_FIELD_TZ) {
        if (column->path)
            fault(c, "path", "all rows of a document share one tz: use header or const");
        check_zone(c, "const", column->constant);
        FOREACH_ITEM (RecipePair, pair, column->by_suffix)
            check_zone(c, "by_suffix", pair->value);
    }
    if (column->request >= 0 && column->field != ROW_FIELD_SYMBOL &&
        column->field != ROW_FIELD_INTERVAL)
        fault(c, "request", "only symbol and interval come from the request");
    if (column->same && !(column->header || column->path))
        fault(c, "same", "there is nothing of the reply to compare");
    if (column->filter && !column->path)
        fault(c, "filter", "rows differ only by a path");
}

static void compile_table(Compiler *c, size_t index)
{
    RecipeTable *table = (RecipeTable *)c->recipe->tables.items + index;
    static const RowField needed[] = {ROW_FIELD_SYMBOL, ROW_FIELD_INTERVAL, ROW_FIELD_TS,
                                      ROW_FIELD_TZ};
    size_t n;

    (void)snprintf(c->where, sizeof(c->where), "tables[%zu]", index);
    n = strlen(c->where);
    if (table->arrays && table->rows)
        fault(c, "arrays", "either rows or arrays");
    if (table->arrays && !is_json(c->recipe))
        fault(c, "arrays", "only json and text have parallel arrays");
    if (!table->arrays && !table->rows && c->recipe->format != RECIPE_CSV)
        fault(c, "", "nothing says where its rows are: rows or arrays");
    if (c->recipe->format == RECIPE_CSV && !table->headings)
        fault(c, "headings", "a csv table needs the first lines that are accepted");
    if (table->split && c->recipe->format != RECIPE_XML)
        fault(c, "split", "only rows of xml are split");
    if (table->split && !table->attribute)
        fault(c, "attribute", "split needs the XPath of the text");
    if (table->attribute && is_xpath(c->recipe)) {
        RecipePath *none = NULL;

        compile_path(c, "attribute", table->attribute, false, &none);
    }
    compile_path(c, "rows", table->rows, true, &table->rows_compiled);
    compile_path(c, "arrays", table->arrays, false, &table->arrays_compiled);
    if (table->holder && !table->arrays)
        fault(c, "holder", "only parallel arrays have one");
    else
        compile_path(c, "holder", table->holder, false, &table->holder_compiled);

    FOREACH_ITEM (RecipeColumn, column, table->columns) {
        (void)snprintf(c->where + n, sizeof(c->where) - n, ".columns.%.60s", column->key);
        compile_column(c, table, column);
    }
    c->where[n] = '\0';
    for (size_t i = 0; i < ELEMENTS(needed); i++)
        if (!table->by_field[needed[i]])
            fault(c, "columns", "there is no %s", recipe_column_names[needed[i]]);
}

static void compile_rule(Compiler *c, const char *list, size_t index, RecipeRule *rule)
{
    (void)snprintf(c->where, sizeof(c->where), "%s[%zu]", list, index);
    if (!rule->status && !rule->path && !rule->body && !rule->body_is && !rule->absent)
        fault(c, "", "it says nothing: status, path, absent, body or body_is is needed");
    if (!rule->path && (rule->equals || rule->contains))
        fault(c, "", "equals and contains speak of a path");
    if (c->recipe->format == RECIPE_CSV && (rule->path || rule->message || rule->absent))
        fault(c, "path", "a csv document has no paths: use body");
    compile_path(c, "path", rule->path, false, &rule->path_compiled);
    compile_path(c, "message", rule->message, false, &rule->message_compiled);
    for (size_t i = 0; rule->absent && rule->absent[i] && i < RECIPE_ABSENT_MAX; i++)
        compile_path(c, "absent", rule->absent[i], false, &rule->absent_compiled[i]);
}

/* The host of an https URL must be one of the recipe's. */
static void check_url(Compiler *c, const char *member, const char *url)
{
    const char *host = startswith(url, "https://");
    auto_free char *name = NULL;

    if (!host) {
        fault(c, member, "it must begin with https://");
        return;
    }
    name = strndup(host, strcspn(host, "/:?#{"));
    if (name && !recipe_allows_host(c->recipe, name))
        fault(c, member, "\"%s\" is not one of hosts", name);
}

static bool template_has(const RecipeRequestPart *request, const char *what)
{
    if (request->url && strstr(request->url, what))
        return true;
    FOREACH_ITEM (RecipeUrl, url, request->urls)
        if (url->url && strstr(url->url, what))
            return true;
    return false;
}

static void check_paging(Compiler *c)
{
    const RecipePagingPart *paging = &c->recipe->paging;
    static const char *const needed[] = {
        [RECIPE_PAGING_NONE] = NULL,       [RECIPE_PAGING_RANGE] = "{from:",
        [RECIPE_PAGING_BACKWARD] = "{to:", [RECIPE_PAGING_PAGE] = "{page}",
        [RECIPE_PAGING_COUNT] = "{count}",
    };
    const char *placeholder = paging->by >= 0 ? needed[paging->by] : NULL;

    if (placeholder && !template_has(&c->recipe->request, placeholder))
        fault(c, "paging.by", "the URL has no %s…", placeholder);
    if (template_has(&c->recipe->request, "{count}") && paging->size == 0)
        fault(c, "paging.size", "the URL has {count}: say how many");
}

static void check_request(Compiler *c)
{
    const RecipeRequestPart *request = &c->recipe->request;
    size_t i = 0;

    if (!request->url == (request->urls.n == 0))
        fault(c, "request.url", "either url or urls is needed");
    if (request->url)
        check_url(c, "request.url", request->url);
    FOREACH_ITEM (RecipeUrl, url, request->urls) {
        char member[40];

        (void)snprintf(member, sizeof(member), "request.urls[%zu].url", i++);
        if (url->url)
            check_url(c, member, url->url);
    }
    if (request->urls.n > 0 &&
        ((RecipeUrl *)request->urls.items)[request->urls.n - 1].reach_usec != 0)
        fault(c, "request.urls", "the last one must reach back for ever: no reach");
}

static void compile(FieldContext *context, void *object)
{
    Compiler c = {.context = context, .recipe = object};
    Recipe *recipe = object;
    size_t i = 0;

    check_request(&c);
    check_paging(&c);
    compile_path(&c, "paging.more", recipe->paging.more, false, &recipe->paging.more_compiled);
    FOREACH_ITEM (RecipeInterval, interval, recipe->intervals)
        if (interval->key && interval_parse(interval->key, &interval->parsed) < 0)
            interval->parsed = (Interval){.count = 1, .unit = INTERVAL_DAY}; /* already said */
    if (is_json(recipe) && recipe->root && !streq(recipe->root, "object") &&
        !streq(recipe->root, "array"))
        fault(&c, "root", "a json document is an object or an array");
    if (recipe->format == RECIPE_HTML) {
        RecipePath *none = NULL;

        compile_path(&c, "root", recipe->root, false, &none);
    }
    if (recipe->format == RECIPE_HTML && !recipe->root)
        fault(&c, "root", "any error page is html, too: say what must be there");
    if (recipe->format == RECIPE_CSV && recipe->tables.n > 1)
        fault(&c, "tables[1]", "a csv document is one table");
    if (recipe->terms.acknowledge && !recipe->terms.text)
        fault(&c, "terms.text", "say what is to be acknowledged");
    for (i = 0; i < recipe->tables.n; i++)
        compile_table(&c, i);
    i = 0;
    FOREACH_ITEM (RecipeRule, rule, recipe->errors)
        compile_rule(&c, "errors", i++, rule);
    i = 0;
    FOREACH_ITEM (RecipeRule, rule, recipe->empty)
        compile_rule(&c, "empty", i++, rule);
    FOREACH_ITEM (RecipeValue, value, recipe->values) {
        (void)snprintf(c.where, sizeof(c.where), "values.%.60s", value->key);
        compile_path(&c, "", value->path, false, &value->path_compiled);
    }
    c.where[0] = '\0';
    STRV_FOREACH (name, recipe->fixups)
        if (recipe_has_fixup && !recipe_has_fixup(*name))
            fault(&c, "fixups", "there is no fixup \"%s\"", *name);
}

int recipe_compile(const char *text, size_t size, const char *file, Recipe **ret,
                   FieldErrors *ret_errors, Error *err)
{
    auto_(recipe_freep) Recipe *recipe = NULL;
    FieldErrors errors = {0};
    int r;

    assert(text && file && ret);

    recipe = calloc(1, sizeof(*recipe));
    if (!recipe)
        return error_oom(err);
    recipe->file = strdup(file);
    if (!recipe->file)
        return error_oom(err);
    r = fields_decode(text, size, recipe_fields, compile, recipe, &errors);
    if (r == -ENOMEM)
        r = error_oom(err);
    else if (r < 0)
        r = field_errors_to_error(&errors, file, err);
    if (ret_errors)
        *ret_errors = errors;
    else
        field_errors_done(&errors);
    if (r < 0)
        return r;
    *ret = take_ptr(recipe);
    return 0;
}

static void rules_done(FieldArray *rules)
{
    FOREACH_ITEM (RecipeRule, rule, *rules) {
        path_free(rule->path_compiled);
        path_free(rule->message_compiled);
        for (size_t i = 0; i < RECIPE_ABSENT_MAX; i++)
            path_free(rule->absent_compiled[i]);
    }
}

Recipe *recipe_free(Recipe *recipe)
{
    if (!recipe)
        return NULL;
    FOREACH_ITEM (RecipeTable, table, recipe->tables) {
        path_free(table->rows_compiled);
        path_free(table->arrays_compiled);
        path_free(table->holder_compiled);
        FOREACH_ITEM (RecipeColumn, column, table->columns) {
            path_free(column->path_compiled);
            path_free(column->header_compiled);
        }
    }
    rules_done(&recipe->errors);
    rules_done(&recipe->empty);
    FOREACH_ITEM (RecipeValue, value, recipe->values)
        path_free(value->path_compiled);
    path_free(recipe->paging.more_compiled);
    fields_done(recipe_fields, recipe);
    free(recipe->file);
    free(recipe);
    return NULL;
}

json_t *recipe_schema(void)
{
    return fields_schema(recipe_fields);
}

int recipe_manual(Buf *ret)
{
    return fields_manual(recipe_fields, "", ret);
}

const RecipeInterval *recipe_interval(const Recipe *recipe, const char *interval)
{
    FOREACH_ITEM (RecipeInterval, i, recipe->intervals)
        if (streq_ptr(i->key, interval))
            return i;
    return NULL;
}

int recipe_format_intervals(const Recipe *recipe, Buf *ret)
{
    const RecipeInterval *items = recipe->intervals.items;

    for (size_t i = 0; i < recipe->intervals.n; i++) {
        int r = buf_printf(ret, "%s%s", i ? ", " : "", items[i].key);

        if (r < 0)
            return r;
    }
    return 0;
}

bool recipe_allows_host(const Recipe *recipe, const char *host)
{
    return strv_contains(recipe->hosts, host);
}

/* --- Finding ------------------------------------------------------------------------------------
 */

const char *const *recipe_dirs(void)
{
    static const char *dirs[4];
    size_t n = 0;

    dirs[n] = getenv("MERVIS_RECIPES_DIR");
    if (!str_is_empty(dirs[n]))
        n++;
    dirs[n++] = SYSCONF_DIR "/recipes";
    dirs[n++] = RECIPES_DIR;
    dirs[n] = NULL;
    return dirs;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list_dir(const char *path, char ***names, Error *err)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    int r = 0;

    if (!dir)
        return errno == ENOENT || errno == ENOTDIR ? 0 : error_errno(err, errno, "open %s", path);
    while (r >= 0 && (entry = readdir(dir))) {
        const char *suffix = endswith(entry->d_name, ".json");
        auto_free char *name = NULL;

        if (!suffix || entry->d_name[0] == '.' || strv_length(*names) >= RECIPES_MAX)
            continue;
        name = strndup(entry->d_name, (size_t)(suffix - entry->d_name));
        if (!name)
            r = -ENOMEM;
        else if (!strv_contains(*names, name))
            r = strv_push(names, name);
    }
    (void)closedir(dir);
    return r < 0 ? error_oom(err) : 0;
}

int recipe_list(char ***ret_names, Error *err)
{
    auto_(strv_freep) char **names = NULL;
    int r;

    for (const char *const *dir = recipe_dirs(); *dir; dir++) {
        r = list_dir(*dir, &names, err);
        if (r < 0)
            return r;
    }
    if (!names) {
        names = calloc(1, sizeof(*names));
        if (!names)
            return error_oom(err);
    }
    qsort(names, strv_length(names), sizeof(*names), compare_names);
    *ret_names = take_ptr(names);
    return 0;
}

static int not_found(const char *name, Error *err)
{
    auto_(strv_freep) char **names = NULL;
    auto_free char *all = NULL;
    const char *nearest;
    int r;

    if (recipe_list(&names, NULL) < 0)
        return error_oom(err);
    nearest = str_nearest(name, (const char *const *)names, strv_length(names));
    all = str_join((const char *const *)names, ", ");
    r = error_set(err, -ENOENT, ERROR_INVALID, "there is no recipe \"%.64s\"%s%s%s", name,
                  nearest ? "; did you mean \"" : "", nearest ? nearest : "", nearest ? "\"?" : "");
    return error_remedy(err, r, "known recipes: %s; others go to " SYSCONF_DIR "/recipes/NAME.json",
                        str_is_empty(all) ? "none" : all);
}

int recipe_read(const char *name, Buf *ret, char **ret_file, Error *err)
{
    bool is_path = strchr(name, '/') || endswith(name, ".json");
    int r;

    if (is_path) {
        auto_error Error error = {0};
        auto_free char *file = strdup(name);

        if (!file)
            return error_oom(err);
        r = file_read(name, RECIPE_FILE_MAX, ret, &error);
        if (r == -ENOENT)
            return error_set(err, r, ERROR_INVALID, "there is no file %s", name);
        if (r < 0)
            return error_move(err, &error);
        *ret_file = take_ptr(file);
        return 0;
    }
    for (const char *const *dir = recipe_dirs(); *dir && name[0] != '.'; dir++) {
        auto_error Error error = {0};
        auto_free char *file = str_printf("%s/%s.json", *dir, name);

        if (!file)
            return error_oom(err);
        r = file_read(file, RECIPE_FILE_MAX, ret, &error);
        if (r == -ENOENT || r == -ENOTDIR)
            continue;
        if (r < 0)
            return error_move(err, &error);
        *ret_file = take_ptr(file);
        return 0;
    }
    return not_found(name, err);
}

int recipe_load(const char *name, Recipe **ret, Error *err)
{
    auto_buf Buf text = BUF_INIT(RECIPE_FILE_MAX);
    auto_(recipe_freep) Recipe *recipe = NULL;
    auto_free char *file = NULL;
    bool is_path = strchr(name, '/') || endswith(name, ".json");
    int r;

    r = recipe_read(name, &text, &file, err);
    if (r < 0)
        return r;
    r = recipe_compile(buf_str(&text), text.size, file, &recipe, NULL, err);
    if (r < 0)
        return r;
    assert(recipe);
    if (!is_path && !streq(recipe->name, name))
        return error_set(err, -EINVAL, ERROR_INVALID,
                         "%s: it is called \"%s\"; file and name must agree", file, recipe->name);
    *ret = take_ptr(recipe);
    return 0;
}
