/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_CRAWLERD_INTAKE_H
#define CRAWLER_CRAWLERD_INTAKE_H

/* From a reply to rows in the spool: extract, revisions, and the cursor that moves with them.
 * Documents that arrive close together share one commit. */

#include <systemd/sd-event.h>

#include "crawler/fetch/fetch.h"
#include "crawler/spool/spool.h"

typedef struct Intake Intake;

typedef struct IntakeHandlers {
    /* Rows were taken (not yet committed). */
    void (*taken)(const char *job, const SpoolAccepted *count, void *userdata);
    void (*refused)(const char *job, const char *symbol, const char *reason, void *userdata);
    /* The spool cannot write: what was taken since the last commit is lost, and the cursors in
     * memory lie. */
    void (*lost)(const Error *err, void *userdata);
    /* … and it can again. */
    void (*committed)(void *userdata);
    void *userdata;
} IntakeHandlers;

int intake_new(sd_event *event, Spool *spool, const IntakeHandlers *handlers, Intake **ret,
               Error *err) must_check;
Intake *intake_free(Intake *intake);
DEFINE_AUTO(Intake, intake_free)

/* As FetchHandlers.document; `live`: bars that are not final are wanted. */
void intake_document(Intake *intake, const FetchDocument *document, bool live, Cursor *cursor,
                     FetchResult *ret);
/* Commits now what waits. False: it is lost, and the handler was told. */
bool intake_commit(Intake *intake);
/* Refused documents of these jobs once more, after a recipe was mended: how many rows they gave;
 * the good ones leave the refused. They fill gaps: a bar that is known keeps its values, unless
 * only its final ones were refused. Jobs whose recipe is unknown are skipped. */
int intake_replay(Intake *intake, const FetchJob *jobs, size_t n_jobs, uint64_t *ret_documents,
                  uint64_t *ret_rows, Error *err) must_check;

#endif
