/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_CRAWLERD_CRAWL_PLAN_H
#define CRAWLER_CRAWLERD_CRAWL_PLAN_H

/* The plan's `crawl` part: what is fetched, how politely, and where it goes. Decoded by tables,
 * strict, all faults at once; the recipes that it names are loaded and compiled with it, so that a
 * part which is accepted can run. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/io/fields.h"
#include "crawler/model/calendar.h"
#include "crawler/recipe/recipe.h"
#include "crawler/sink/sink.h"

#define CRAWL_DOCUMENT_MAX (4U << 20)

typedef struct CrawlJob {
    char *name;
    char *recipe;
    char **symbols;
    char *interval;
    uint64_t every_usec; /* 0 in the plan: the interval's own */
    char *calendar;
    uint64_t backfill_usec;
    bool live;
    char *terms;
    char *secret;

    /* Made from the above. */
    Recipe *compiled;
    Calendar *hours; /* NULL: always open */
} CrawlJob;

typedef struct CrawlEgress {
    uint64_t nat_ports;
    uint64_t connections_per_host;
    uint64_t min_delay_usec;
    uint64_t daily_bytes; /* 0: no limit */
    double price_per_gib, price_per_hour;
} CrawlEgress;

typedef struct CrawlPlan {
    char *contact;
    FieldArray jobs; /* CrawlJob */
    CrawlEgress egress;
    SinkPlan sink;
    uint64_t spool_max_bytes;
} CrawlPlan;

extern const Field crawl_plan_fields[];

/* 0, or -EINVAL with all faults in `ret_errors`. */
int crawl_plan_decode(const char *text, size_t size, CrawlPlan **ret, FieldErrors *ret_errors)
    must_check;
int crawl_plan_decode_json(const json_t *value, const char *path, CrawlPlan **ret,
                           FieldErrors *ret_errors) must_check;
CrawlPlan *crawl_plan_free(CrawlPlan *plan);
DEFINE_AUTO(CrawlPlan, crawl_plan_free)

CrawlJob *crawl_plan_job(const CrawlPlan *plan, size_t i);
/* The same for every machine with the same jobs and the same tables: a label value. */
int crawl_plan_jobset(const CrawlPlan *plan, char ret[static 64]) must_check;
/* The longest look-back of any job whose rows go to that table, for a cold start; 0: none does. */
uint64_t crawl_plan_lookback_usec(const CrawlPlan *plan, SinkTable table);

/* A document as crawlerd gets it: {"crawl": …, "endpoints": {…}, "instance": id}, a whole plan, or the
 * crawl part alone. */
typedef struct CrawlDocument {
    CrawlPlan *plan;
    HttpEndpoint *endpoints;
    size_t n_endpoints;
    json_t *source; /* owns the endpoints' strings */
    char *instance; /* of the machine, or NULL: the cloud is asked */
    char *project;  /* identity.project, or NULL */
} CrawlDocument;
int crawl_document_read(const char *text, size_t size, CrawlDocument *ret, FieldErrors *ret_errors,
                        Error *err) must_check;
void crawl_document_done(CrawlDocument *document);
#define auto_crawl_document auto_(crawl_document_done)

/* crawlerd validate [--json]: a crawl part on standard input. The exit status. */
int verb_validate(int argc, char **argv);
/* `crawlerd backfill JOB --from TIME [--to TIME]`, argv[0] being "backfill". */
int verb_backfill(int argc, char **argv);

#endif
