/* SPDX-License-Identifier: Apache-2.0 */

/* The document that crawlerd is given: refused with faults that have words, or a plan whose jobs
 * can run, with the same name for its set of jobs however often it is asked. */

#include <string.h>

#include "agent/base/str.h"
#include "crawler/crawlerd/crawl-plan.h"
#include "tests/fuzz/fuzz.h"

static void check_plan(const CrawlPlan *plan)
{
    char first[64], second[64];

    for (size_t i = 0; i < plan->jobs.n; i++) {
        const CrawlJob *job = crawl_plan_job(plan, i);

        FUZZ_CHECK(job->name && job->compiled && job->every_usec > 0 && job->symbols);
    }
    FUZZ_CHECK(crawl_plan_jobset(plan, first) == 0 && crawl_plan_jobset(plan, second) == 0);
    FUZZ_CHECK(streq(first, second) && *first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_(crawl_document_done) CrawlDocument document = {0};
    auto_(field_errors_done) FieldErrors faults = {0};
    auto_error Error err = {0};
    auto_free char *text = NULL;

    fuzz_use_built_in_recipes();
    text = malloc(size + 1);
    FUZZ_CHECK(text);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    if (crawl_document_read(text, size, &document, &faults, &err) >= 0) {
        if (document.plan)
            check_plan(document.plan);
        return 0;
    }
    FUZZ_CHECK(faults.n > 0 || err.message);
    return 0;
}
