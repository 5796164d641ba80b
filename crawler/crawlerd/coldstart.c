/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/crawlerd/coldstart.h"

#include <errno.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/loop.h"

#define JOBS_LOOKBACK_USEC DAY /* a load job ends within six hours */
#define JOBS_AGAIN_USEC    (5 * SECOND)

/* The tables (made where they are missing), the jobs, the keys of each table. */
typedef enum Step {
    STEP_TABLE_FIRST,
    STEP_TABLE_LAST = STEP_TABLE_FIRST + SPOOL_TABLES - 1,
    STEP_JOBS,
    STEP_KEYS_FIRST,
    STEP_KEYS_LAST = STEP_KEYS_FIRST + SPOOL_TABLES - 1,
    STEP_END,
} Step;

struct Coldstart {
    ErranderContext context;
    Spool *spool;
    const char *const *sources;
    uint64_t lookback_usec[SPOOL_TABLES], keys;
    ColdstartHandlers handlers;
    Step step;
    Errander *errander;
    char *said;
};

static void go(Coldstart *c, uint64_t delay_usec);

static void say(Coldstart *c, const char *what, const Error *err)
{
    if (streq_ptr(c->said, what))
        return;
    if (str_set(&c->said, what) >= 0)
        c->handlers.waits(what, err, c->handlers.userdata);
}

static int on_key(const SinkKey *key, void *userdata)
{
    Coldstart *c = userdata;
    int kind = row_kind_from_name(key->kind);

    if (kind < 0)
        return 0; /* not ours */
    c->keys++;
    return spool_add_known(c->spool, key->source, key->symbol, key->interval, (RowKind)kind,
                           key->ts_usec, (uint32_t)key->revision, key->is_final, NULL);
}

static void on_errand(Errander *errander, Errand *e, void *userdata)
{
    Coldstart *c = userdata;
    auto_error Error err = {0};
    uint64_t delay = 0;

    if (e->state == ERRAND_PAUSED || e->state == ERRAND_ASKING) {
        say(c, error_text(&e->error), &e->error);
        return; /* it goes on by itself */
    }
    if (c->step == STEP_JOBS && e->jobs_pending > 0) {
        auto_free char *what =
            str_printf("%llu load jobs of an earlier machine are still under way",
                       (unsigned long long)e->jobs_pending);

        say(c, what ? what : "", NULL);
        delay = JOBS_AGAIN_USEC;
    } else if (spool_sync(c->spool, &err) < 0) {
        say(c, error_text(&err), &err);
        delay = JOBS_AGAIN_USEC;
    } else {
        c->step++;
    }
    go(c, delay);
}

static void go(Coldstart *c, uint64_t delay_usec)
{
    uint64_t now = now_realtime_usec();
    Errand *e;

    c->errander = errander_free(c->errander);
    while (c->step >= STEP_KEYS_FIRST && c->step <= STEP_KEYS_LAST &&
           c->lookback_usec[c->step - STEP_KEYS_FIRST] == 0)
        c->step++;
    if (c->step == STEP_END) {
        c->handlers.done(c->keys, c->handlers.userdata);
        return;
    }
    if (errander_new(&c->context, on_errand, c, &c->errander) < 0)
        return; /* out of memory: the daemon does not get far either */
    e = errander_errand(c->errander);
    if (c->step <= STEP_TABLE_LAST)
        errand_init_table(e, (SinkTable)(c->step - STEP_TABLE_FIRST));
    else if (c->step == STEP_JOBS)
        errand_init_jobs(e, now - JOBS_LOOKBACK_USEC, /* finished_too= */ false);
    else
        errand_init_keys(e, (SinkTable)(c->step - STEP_KEYS_FIRST), c->sources,
                         now - MIN_OF(c->lookback_usec[c->step - STEP_KEYS_FIRST], now), on_key, c);
    errander_go(c->errander, delay_usec);
}

int coldstart_new(const ErranderContext *context, Spool *spool, const char *const *sources,
                  const uint64_t lookback_usec[static SPOOL_TABLES],
                  const ColdstartHandlers *handlers, Coldstart **ret, Error *err)
{
    Coldstart *c = calloc(1, sizeof(*c));

    if (!c)
        return error_oom(err);
    c->context = *context;
    c->spool = spool;
    c->sources = sources;
    memcpy(c->lookback_usec, lookback_usec, sizeof(c->lookback_usec));
    c->handlers = *handlers;
    go(c, 0);
    *ret = c;
    return 0;
}

Coldstart *coldstart_free(Coldstart *c)
{
    if (!c)
        return NULL;
    (void)errander_free(c->errander);
    free(c->said);
    free(c);
    return NULL;
}
