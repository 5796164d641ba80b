/* SPDX-License-Identifier: Apache-2.0 */

/* --once: every job one round, everything delivered, and a last line that says how it went. */

#include "config.h"

#include <errno.h>

#include "agent/base/log.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "crawler/crawlerd/manager-private.h"

#define PATIENCE_USEC (10 * SECOND) /* of whoever sits before it, until told what it waits for */

/* --- What keeps it -------------------------------------------------------------------------- */

static int trouble_set(Error *ret, const char *what, const char *message, const char *remedy)
{
    (void)error_set(ret, -EAGAIN, ERROR_TEMPORARY, "%s%s", what, message);
    if (remedy)
        (void)error_remedy(ret, -EAGAIN, "%s", remedy);
    return 1;
}

static int fetch_trouble(Manager *m, Error *ret)
{
    if (m->egress_message)
        return trouble_set(ret, "", m->egress_message, m->egress_remedy);
    for (size_t i = 0; i < m->document.plan->jobs.n; i++) {
        FetchJobStatus status = {0};
        auto_free char *what = str_printf("job %s: ", m->jobs[i].name);

        fetcher_job_status(m->fetcher, i, &status);
        if (status.message)
            return trouble_set(ret, what ? what : "", status.message, status.remedy);
    }
    if (manager_hold_reason(m))
        return trouble_set(ret, "", manager_hold_reason(m), NULL);
    return 0;
}

/* What it waits for, now. 1 known, 0 nothing in particular. */
static int present_trouble(Manager *m, Error *ret)
{
    DeliveryStatus delivery = {0};

    if (m->waits.code < 0) {
        (void)error_copy(ret, &m->waits);
        return 1;
    }
    if (m->delivery)
        delivery_status(m->delivery, &delivery);
    if (delivery.message)
        return trouble_set(ret, "", delivery.message, delivery.remedy);
    return m->phase == PHASE_RUNNING ? fetch_trouble(m, ret) : 0;
}

static void on_patience_over(void *userdata)
{
    Manager *m = userdata;
    auto_error Error trouble = {0};
    char span[TIME_SPAN_MAX], verdict[TIME_SPAN_MAX + 32];

    if (present_trouble(m, &trouble) == 0)
        return;
    (void)snprintf(verdict, sizeof(verdict), "time is up in %s",
                   time_format_span(span, timer_left_usec(m->timer) / SECOND * SECOND));
    log_failure(LOG_LEVEL_WARNING, NULL, &trouble,
                timer_is_set(m->timer) ? verdict : "going on until it is over");
}

int once_begin(Manager *m)
{
    if (timer_new(m->event, on_patience_over, m, &m->patience) < 0)
        return -ENOMEM;
    if (m->options.timeout_usec)
        (void)timer_set(m->timer, m->options.timeout_usec, SECOND);
    return timer_set(m->patience, PATIENCE_USEC, SECOND);
}

/* --- How it ends ---------------------------------------------------------------------------- */

void once_fail(Manager *m, const Error *why)
{
    auto_error Error verdict = {0};

    (void)error_copy(&verdict, why);
    (void)error_prefix(&verdict, why->code, "not everything was delivered");
    log_failure(LOG_LEVEL_ERROR, NULL, &verdict, NULL);
    m->phase = PHASE_DRAINING;
    (void)sd_event_exit(m->event, EXIT_FAILURE);
}

void once_time_is_up(Manager *m)
{
    auto_error Error trouble = {0};

    if (present_trouble(m, &trouble) == 0)
        (void)trouble_set(&trouble, "", "not all was fetched and loaded yet",
                          "allow more with --timeout TIME");
    (void)error_prefix(&trouble, trouble.code, "time is up");
    once_fail(m, &trouble);
}

void once_given_up(Manager *m, const char *job, const char *symbol, const char *message,
                   const char *remedy)
{
    auto_free char *what = str_printf("job %s: %s: ", job, symbol);

    error_done(&m->given_up);
    (void)trouble_set(&m->given_up, what ? what : "", message, remedy);
}

void once_over(Manager *m)
{
    auto_error Error err = {0};
    SpoolStatus status = {0};
    uint64_t failures = fetcher_failures(m->fetcher), dead;

    if (!intake_commit(m->intake))
        return; /* it is read again when the disk takes it */
    if (spool_status(m->spool, &status, &err) < 0) {
        once_fail(m, &err);
        return;
    }
    error_done(&m->failure);
    dead = status.dead - MIN_OF(m->dead_before, status.dead);
    if (failures > 0) {
        if (m->given_up.code < 0)
            (void)error_copy(&m->failure, &m->given_up);
        else
            (void)error_set(&m->failure, -EIO, ERROR_TEMPORARY, "see above");
        (void)error_prefix(&m->failure, -EIO, "%llu symbol%s could not be fetched, the last",
                           (unsigned long long)failures, failures == 1 ? "" : "s");
    }
    if (dead > 0 && m->failure.code < 0) {
        log_error("%llu row%s went to the dead letters", (unsigned long long)dead,
                  dead == 1 ? "" : "s");
    } else if (dead > 0) {
        (void)error_set(&m->failure, -EBADMSG, ERROR_CORRUPT, "%llu row%s went to the dead letters",
                        (unsigned long long)dead, dead == 1 ? "" : "s");
        (void)error_remedy(&m->failure, -EBADMSG, "agentctl crawl dead-letters shows them");
    }
    m->phase = PHASE_DRAINING;
    delivery_flush(m->delivery);
}

void once_interrupted(Manager *m)
{
    if (m->failure.code == 0)
        (void)error_set(&m->failure, -EINTR, ERROR_TEMPORARY,
                        "stopped before every job had its round");
}

int once_verdict(Manager *m)
{
    if (m->failure.code == 0) {
        log_info("all rows are delivered");
        return EXIT_SUCCESS;
    }
    log_failure(LOG_LEVEL_ERROR, NULL, &m->failure, "the rows of all else are delivered");
    return EXIT_FAILURE;
}
