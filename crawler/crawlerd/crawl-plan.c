/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/crawlerd/crawl-plan.h"

#include <errno.h>

#include "agent/base/parse.h"
#include "agent/base/time.h"
#include "agent/io/crypto.h"
#include "agent/io/json.h"

#define EVERY_DEFAULT_MAX  HOUR
/* The delay is a minimum with half of it again as jitter: a quarter more on average. */
#define JITTER_NUMERATOR   5
#define JITTER_DENOMINATOR 4

static const char *check_name(const char *value)
{
    size_t size =
        strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

    return value[size] == '\0' && value[0] != '.' && value[0] != '-'
               ? NULL
               : "letters, digits, '.', '_' and '-', not beginning with '.' or '-'";
}

static const char *check_symbol(const char *value)
{
    return symbol_is_valid(value) ? NULL : "a symbol: printable, no blanks, at most 64 bytes";
}

static const char *check_terms(const char *value)
{
    return streq(value, "acknowledged") ? NULL : "\"acknowledged\"";
}

static const char *check_contact(const char *value)
{
    for (const char *c = value; *c; c++)
        if ((unsigned char)*c < 0x21 || (unsigned char)*c > 0x7e || strchr("()\\\"", *c))
            return "an e-mail address or a URL, without blanks";
    return NULL;
}

static void check_job(FieldContext *context, void *object);
static void check_plan(FieldContext *context, void *object);

/* clang-format off */
static const Field job_fields[] = {
    FIELD_STRING("name", CrawlJob, name, NULL, 1, 64, FIELD_REQUIRED | FIELD_KEY, check_name,
                 "name of the job"),
    FIELD_STRING("recipe", CrawlJob, recipe, NULL, 1, 64, FIELD_REQUIRED, check_name,
                 "the source: name of a recipe (agentctl recipe list)"),
    FIELD_STRV("symbols", CrawlJob, symbols, 20000, check_symbol, "what to fetch"),
    FIELD_STRING("interval", CrawlJob, interval, NULL, 2, 8, 0, NULL,
                 "length of a bar: 1m, 1h, 1d, …; the recipe's own where it has only one"),
    FIELD_DURATION("every", CrawlJob, every_usec, NULL, SECOND, 31 * DAY,
                   "how often to look; the interval when absent, an hour at most"),
    FIELD_STRING("calendar", CrawlJob, calendar, NULL, 1, 64, 0, check_name,
                 "trading hours outside of which nothing is fetched: XNYS, XKRX, …"),
    FIELD_DURATION("backfill", CrawlJob, backfill_usec, "1d", MINUTE, 20000 * DAY,
                   "how far back the first round reads"),
    FIELD_BOOL("live", CrawlJob, live, "false", "deliver bars that are not final, too"),
    FIELD_STRING("terms", CrawlJob, terms, NULL, 1, 16, 0, check_terms,
                 "\"acknowledged\" for sources whose terms forbid robots"),
    FIELD_STRING("secret", CrawlJob, secret, NULL, 1, 64, FIELD_NO_ECHO, check_name,
                 "the plan's secret that holds the source's key"),
    {0},
};

static const Field egress_fields[] = {
    FIELD_UINT("nat_ports", CrawlEgress, nat_ports, "32", 1, 64512,
               "new connections to one host in 120 s, at most: the ports that Cloud NAT gives this VM"),
    FIELD_UINT("connections_per_host", CrawlEgress, connections_per_host, "1", 1, 16,
               "connections to one host at the same time, at most"),
    FIELD_DURATION("min_delay", CrawlEgress, min_delay_usec, "2s", 0, HOUR,
                   "time between two requests to one host, at least; a documented API has its own"),
    FIELD_SIZE("daily_bytes", CrawlEgress, daily_bytes, "1GiB", 0, UINT64_C(1) << 50,
               "traffic to the sources a UTC day, at most; 0: no limit"),
    FIELD_DOUBLE("price_per_gib", CrawlEgress, price_per_gib, "0.045", 0, 1000,
                 "price of a GiB through Cloud NAT, for the estimate"),
    FIELD_DOUBLE("price_per_hour", CrawlEgress, price_per_hour, "0.0014", 0, 1000,
                 "price of an hour behind Cloud NAT, for the estimate"),
    {0},
};

const Field crawl_plan_fields[] = {
    FIELD_STRING("contact", CrawlPlan, contact, NULL, 3, 200, 0, check_contact,
                 "whom a source may write to; part of the User-Agent"),
    FIELD_ARRAY("jobs", CrawlPlan, jobs, CrawlJob, job_fields, 500, check_job, "what is fetched"),
    FIELD_OBJECT("egress", CrawlPlan, egress, egress_fields, NULL, "budgets of the way out"),
    FIELD_OBJECT("sink", CrawlPlan, sink, sink_plan_fields, sink_plan_check,
                 "where rows go; a local database when absent"),
    FIELD_SIZE("spool_max", CrawlPlan, spool_max_bytes, "512MiB", UINT64_C(8) << 20, UINT64_C(1) << 40,
               "size of the spool; when it is full, fetching pauses"),
    {0},
};
/* clang-format on */

/* --- Rules between fields ------------------------------------------------------------------- */

static void check_interval(FieldContext *context, CrawlJob *job)
{
    const FieldArray *intervals = &job->compiled->intervals;
    const RecipeInterval *items = intervals->items, *chosen;
    auto_buf Buf known = BUF_INIT(4096);

    if (!job->interval && intervals->n == 1)
        job->interval = strdup(items[0].key);
    chosen = job->interval ? recipe_interval(job->compiled, job->interval) : NULL;
    if (!chosen) {
        if (recipe_format_intervals(job->compiled, &known) < 0)
            return;
        if (job->interval)
            field_error(context, "interval", "recipe %s has no interval \"%s\"; it has %s",
                        job->recipe, job->interval, buf_str(&known));
        else
            field_error(context, NULL, "missing key \"interval\"; recipe %s has %s", job->recipe,
                        buf_str(&known));
        return;
    }
    if (job->every_usec == 0)
        job->every_usec = MAX_OF(MIN_OF(interval_usec(&chosen->parsed), EVERY_DEFAULT_MAX), MINUTE);
    if (job->every_usec < chosen->minimum_every_usec) {
        char least[PARSE_TEXT_MAX];

        field_error(context, "every", "recipe %s: polling faster than every %s is pointless",
                    job->recipe, format_duration(least, chosen->minimum_every_usec));
    }
}

static void check_job(FieldContext *context, void *object)
{
    CrawlJob *job = object;
    auto_error Error err = {0};

    if (!job->recipe)
        return; /* said already */
    if (strv_length(job->symbols) == 0)
        field_error(context, "symbols", "at least one symbol is needed");
    for (size_t i = 0; job->symbols && job->symbols[i]; i++)
        for (size_t k = 0; k < i && i < 1000; k++)
            if (streq(job->symbols[i], job->symbols[k])) {
                field_error(context, "symbols", "\"%s\" is there twice", job->symbols[i]);
                break;
            }
    if (recipe_load(job->recipe, &job->compiled, &err) < 0) {
        field_error(context, "recipe", "%s", error_text(&err));
        return;
    }
    check_interval(context, job);
    if (job->compiled->terms.acknowledge && !job->terms)
        field_error(context, NULL, "recipe %s needs \"terms\": \"acknowledged\": %s", job->recipe,
                    job->compiled->terms.text ? job->compiled->terms.text
                                              : "its source does not want robots");
    if (job->compiled->request.secret_header && !job->secret)
        field_error(context, NULL, "recipe %s needs \"secret\", the name of the plan's secret",
                    job->recipe);
    if (job->calendar && calendar_load(recipe_dirs(), job->calendar, &job->hours, &err) < 0) {
        /* A calendar is a convenience: hours that are not known are always open. */
        if (err.code != -ENOENT)
            field_error(context, "calendar", "%s", error_text(&err));
        error_done(&err);
    }
}

static uint64_t job_delay_usec(const CrawlPlan *plan, const CrawlJob *job)
{
    const RecipePoliteness *polite = &job->compiled->politeness;

    return polite->robots == RECIPE_ROBOTS_API
               ? polite->delay_usec
               : MAX_OF(polite->delay_usec, plan->egress.min_delay_usec);
}

/* How long one round of a job keeps its host busy. */
static uint64_t job_round_usec(const CrawlPlan *plan, const CrawlJob *job)
{
    return strv_length(job->symbols) * job_delay_usec(plan, job) * JITTER_NUMERATOR /
           JITTER_DENOMINATOR;
}

static bool job_is_whole(const CrawlJob *job)
{
    return job->compiled && job->interval && job->every_usec > 0 && job->compiled->hosts &&
           job->compiled->hosts[0];
}

static void check_fit(FieldContext *context, const CrawlPlan *plan, size_t i)
{
    const CrawlJob *job = crawl_plan_job(plan, i);
    const char *host = job->compiled->hosts[0];
    uint64_t round = job_round_usec(plan, job);
    char symbols[32], delay[TIME_SPAN_MAX], total[TIME_SPAN_MAX], every[TIME_SPAN_MAX], path[64];
    double share = 0;

    (void)time_format_span(total, round);
    (void)time_format_span(every, job->every_usec);
    (void)snprintf(path, sizeof(path), "jobs[%zu].every", i);
    if (round > job->every_usec) {
        (void)snprintf(symbols, sizeof(symbols), "%zu", strv_length(job->symbols));
        field_error(context, path,
                    "%s symbols, %s and a quarter between requests to %s, take %s: more than every "
                    "%s; take fewer symbols or every %s",
                    symbols, time_format_span(delay, job_delay_usec(plan, job)), host, total, every,
                    total);
        return;
    }
    /* Said once, at the last job of the host. */
    for (size_t k = 0; k < plan->jobs.n; k++) {
        const CrawlJob *other = crawl_plan_job(plan, k);

        if (!job_is_whole(other) || !streq(other->compiled->hosts[0], host))
            continue;
        if (k > i)
            return;
        share += (double)job_round_usec(plan, other) / (double)other->every_usec;
    }
    if (share > 1)
        field_error(
            context, path,
            "the jobs of %s together would keep it busy for %.0f %% of the time; take fewer "
            "symbols or longer `every`",
            host, share * 100);
}

static void check_plan(FieldContext *context, void *object)
{
    const CrawlPlan *plan = object;

    for (size_t i = 0; i < plan->jobs.n; i++)
        if (job_is_whole(crawl_plan_job(plan, i)))
            check_fit(context, plan, i);
}

/* --- Decoding ------------------------------------------------------------------------------- */

CrawlJob *crawl_plan_job(const CrawlPlan *plan, size_t i)
{
    return (CrawlJob *)plan->jobs.items + i;
}

CrawlPlan *crawl_plan_free(CrawlPlan *plan)
{
    if (!plan)
        return NULL;
    for (size_t i = 0; i < plan->jobs.n; i++) {
        (void)recipe_free(crawl_plan_job(plan, i)->compiled);
        (void)calendar_free(crawl_plan_job(plan, i)->hours);
    }
    fields_done(crawl_plan_fields, plan);
    free(plan);
    return NULL;
}

int crawl_plan_decode(const char *text, size_t size, CrawlPlan **ret, FieldErrors *ret_errors)
{
    auto_(crawl_plan_freep) CrawlPlan *plan = calloc(1, sizeof(*plan));
    int r;

    if (!plan)
        return -ENOMEM;
    r = fields_decode(text, size, crawl_plan_fields, check_plan, plan, ret_errors);
    if (r < 0)
        return r;
    *ret = take_ptr(plan);
    return 0;
}

int crawl_plan_decode_json(const json_t *value, const char *path, CrawlPlan **ret,
                           FieldErrors *ret_errors)
{
    auto_(crawl_plan_freep) CrawlPlan *plan = calloc(1, sizeof(*plan));
    int r;

    if (!plan)
        return -ENOMEM;
    r = fields_decode_json(value, path, crawl_plan_fields, check_plan, plan, ret_errors);
    if (r < 0)
        return r;
    *ret = take_ptr(plan);
    return 0;
}

static int hash_text(Sha256 *hash, const char *text)
{
    sha256_add(hash, text ? text : "", (text ? strlen(text) : 0) + 1);
    return 0;
}

int crawl_plan_jobset(const CrawlPlan *plan, char ret[static 64])
{
    auto_(sha256_freep) Sha256 *hash = NULL;
    char hex[SHA256_HEX_MAX];
    int r = sha256_new(&hash);

    if (r < 0)
        return r;
    if (plan->sink.bigquery) {
        (void)hash_text(hash, plan->sink.bigquery->project);
        (void)hash_text(hash, plan->sink.bigquery->dataset);
        (void)hash_text(hash, plan->sink.bigquery->table);
    }
    for (size_t i = 0; i < plan->jobs.n; i++) {
        const CrawlJob *job = crawl_plan_job(plan, i);

        (void)hash_text(hash, job->recipe);
        (void)hash_text(hash, job->interval);
        STRV_FOREACH (symbol, job->symbols)
            (void)hash_text(hash, *symbol);
    }
    sha256_hex(hash, hex);
    (void)snprintf(ret, 64, "%.32s", hex);
    return 0;
}

uint64_t crawl_plan_lookback_usec(const CrawlPlan *plan, SinkTable table)
{
    uint64_t longest = 0;

    for (size_t i = 0; i < plan->jobs.n; i++) {
        const CrawlJob *job = crawl_plan_job(plan, i);
        uint64_t lookback = MAX_OF(job->backfill_usec, DAY);

        if (sink_table_of_interval(job->interval) == table)
            longest = MAX_OF(longest, lookback);
    }
    return longest;
}

/* --- Documents ------------------------------------------------------------------------------ */

static int read_endpoints(json_t *map, CrawlDocument *ret)
{
    const char *host;
    json_t *base;

    if (!json_is_object(map))
        return 0;
    ret->endpoints = calloc(MAX_OF(json_object_size(map), (size_t)1), sizeof(*ret->endpoints));
    if (!ret->endpoints)
        return -ENOMEM;
    json_object_foreach (map, host, base)
        if (json_is_string(base))
            ret->endpoints[ret->n_endpoints++] = (HttpEndpoint){host, json_string_value(base)};
    return 0;
}

int crawl_document_read(const char *text, size_t size, CrawlDocument *ret, FieldErrors *ret_errors,
                        Error *err)
{
    auto_crawl_document CrawlDocument document = {0};
    json_t *crawl, *identity;
    const char *instance;
    int r;

    r = json_parse(text, size, "crawl document", &document.source, err);
    if (r < 0)
        return r;
    crawl = json_object_get(document.source, "crawl");
    identity = json_object_get(document.source, "identity");
    r = read_endpoints(json_object_get(document.source, "endpoints"), &document);
    instance = json_str(document.source, "instance");
    if (!instance)
        instance = json_str(identity, "instance_id");
    if (r < 0 || str_set(&document.instance, str_is_empty(instance) ? NULL : instance) < 0 ||
        str_set(&document.project, json_str(identity, "project")) < 0)
        return error_oom(err);
    if (crawl)
        r = crawl_plan_decode_json(crawl, "crawl", &document.plan, ret_errors);
    else if (json_object_get(document.source, "version"))
        return error_set(err, -ENODATA, ERROR_INVALID, "the plan has no `crawl` part");
    else
        r = crawl_plan_decode(text, size, &document.plan, ret_errors);
    if (r == -EINVAL)
        return field_errors_to_error(ret_errors, "crawl plan", err);
    if (r < 0)
        return error_oom(err);

    *ret = document;
    document = (CrawlDocument){0};
    return 0;
}

void crawl_document_done(CrawlDocument *document)
{
    (void)crawl_plan_free(document->plan);
    free(document->endpoints);
    json_decref(document->source);
    free(document->instance);
    free(document->project);
    *document = (CrawlDocument){0};
}
