/* SPDX-License-Identifier: Apache-2.0 */
/* Where were we? The record says which step was announced last, the engine what is there: from both
 * it goes on, or back. At rest that means: what serves, runs; then the tag is looked at. */
#include <errno.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/resource/container-internal.h"

#define SHORTEST_RUN_USEC (10 * SECOND)

bool container_machine_was_rebooted(const Container *c)
{
    char boot_id[BOOT_ID_SIZE];

    return boot_id_read(boot_id, NULL) < 0 || !streq_ptr(c->slot.boot_id, boot_id);
}

/* --- What serves, runs ----------------------------------------------------------------------- */

static void run_it(Container *c)
{
    container_switch(c, SWITCH_RUN, false, c->running, container_decide);
}

/* One with secret files waits for them and says so; where waiting is in vain (the version was
 * destroyed), the plan may already want another. */
static void files_are_missing(Container *c, Error *err)
{
    if (!error_is_transient(err)) {
        container_decide(c);
        return;
    }
    container_show(c, ROLLOUT_WAITING);
    {
        auto_error Error waits = {0};

        (void)error_set(&waits, -EINPROGRESS, ERROR_TEMPORARY,
                        "waits for its secret files before it is started: %s", error_text(err));
        (void)error_remedy(&waits, waits.code, "%s", err->remedy ? err->remedy : "agentctl doctor");
        container_finish(c, &waits);
    }
}

void container_run_current(Container *c, ContainerStep then)
{
    const SlotContainer *view = container_view(c, c->slot.current);

    c->running = then;
    /* One that nobody describes any more (adopted, or by a plan of another version of ours) is
     * started as it stands. */
    if (view && view->running)
        container_heal(c, view, run_it);
    else if (container_load_want(c, c->slot.current, NULL) <= 0)
        run_it(c);
    else
        container_have_files(c, run_it, files_are_missing);
}

/* A service that ends well is no crash to the engine, which leaves it to us; but not as fast as it
 * can end. */
static bool ended_at_once(const Container *c)
{
    return c->run_began > 0 && !c->restarting &&
           now_boottime_usec() - c->run_began < SHORTEST_RUN_USEC;
}

static void keep_running(Container *c)
{
    const SlotContainer *view = c->slot.current ? container_view(c, c->slot.current) : NULL;

    c->ends_at_once = view && !view->running && ended_at_once(c);
    if (view && !c->ends_at_once)
        container_run_current(c, container_decide);
    else
        container_decide(c);
}

/* A way back that leads forward (a rollback by hand; a copy that has to be made anew) had not come
 * to its switch yet: what serves is condemned, and what is to come was proved. */
static void resume_by_hand(Container *c)
{
    auto_(release_freep) Release *current = NULL, *next = NULL;
    Db *db = c->resource->context->db;

    if (c->forced || !c->slot.current || !c->slot.next || streq(c->slot.current, c->slot.next))
        return;
    if (release_load(db, c->plan->name, c->slot.current, &current, NULL) > 0 &&
        release_load(db, c->plan->name, c->slot.next, &next, NULL) > 0 &&
        current->quarantined_at > 0 && next->proved_at > 0 && next->quarantined_at == 0)
        c->forced = take_ptr(next);
}

/* --- A rollout that was under way ------------------------------------------------------------ */

/* The plan that asked for it was replaced by one that wants something else, and there is a way
 * back. A release that was proved before is brought in by hand and stands. */
static int is_superseded(Container *c, Error *err)
{
    if (!c->slot.current || streq(c->slot.current, c->slot.next) || c->want->proved_at > 0)
        return 0;
    return container_want_is_outdated(c, err);
}

/* Killed between stop and start: the outage began when the switch did, at the earliest. */
static void guess_outage(Container *c)
{
    const SlotContainer *old = c->slot.current ? container_view(c, c->slot.current) : NULL;

    if (c->slot.state == ROLLOUT_SWITCHING && c->slot.stopped_at == 0 && old && !old->running)
        c->slot.stopped_at = c->slot.state_at;
}

static void prove_anew(Container *c)
{
    bool rebooted = container_machine_was_rebooted(c);

    /* Whether it crashed, or the engine or the machine did, nobody saw: it is proved from a new
     * start. A job that ended meanwhile has ended. */
    container_go_forward(c, /* start_again= */ rebooted || c->plan->mode == PLAN_MODE_SERVICE);
}

static void files_of_next_are_missing(Container *c, Error *err)
{
    if (error_is_transient(err) || !container_has_way_back(c))
        container_finish(c, err);
    else
        container_go_back(c, error_text(err), err->remedy);
}

static void resume_rollout(Container *c)
{
    auto_error Error err = {0};
    int r;

    r = c->slot.next ? container_load_want(c, c->slot.next, &err) : 0;
    if (r == 0) {
        keep_running(c);
        return;
    }
    if (r > 0)
        r = is_superseded(c, &err);
    if (r < 0) {
        container_finish(c, &err);
        return;
    }
    guess_outage(c);
    /* Tag, plan and secrets may have moved since: they are looked at when this is over. */
    c->due = c->resuming = true;
    if (r > 0) {
        if (container_enter(c, ROLLOUT_ROLLING_BACK) >= 0)
            container_continue_back(c);
        return;
    }
    container_have_files(c, prove_anew, files_of_next_are_missing);
}

/* --- Committed, and what went wrong then ------------------------------------------------------ */

bool container_is_watched(const Container *c)
{
    if (c->plan->mode != PLAN_MODE_SERVICE)
        return false;
    switch (c->slot.state) {
    case ROLLOUT_COMMITTED:
        return true;
    case ROLLOUT_PULLING:
    case ROLLOUT_STAGED:
        /* Another one is on its way, and this one serves meanwhile. */
        return c->slot.previous && timer_is_set(c->settle_timer);
    default:
        return false;
    }
}

/* The release before what serves: 1, with *ret set where one is known; a person may have rolled
 * back from it, then an earlier one is meant. */
static int find_way_back(const Container *c, Release **ret, Error *err)
{
    Db *db = c->resource->context->db;
    auto_(release_freep) Release *previous = NULL;
    int r;

    if (!c->slot.previous)
        return release_previous(db, c->plan->name, c->slot.current, ret, err);
    r = release_load(db, c->plan->name, c->slot.previous, &previous, err);
    if (r > 0 && previous->quarantined_at > 0)
        return release_previous(db, c->plan->name, c->slot.current, ret, err);
    if (r > 0)
        *ret = take_ptr(previous);
    return r < 0 ? r : 1;
}

/* What serves becomes what is taken out, and the release before it what serves. */
static int turn_around(Container *c, Error *err)
{
    auto_(release_freep) Release *before = NULL;
    auto_free char *previous = NULL;
    int r;

    r = find_way_back(c, &before, err);
    if (r < 0)
        return r;
    previous = take_ptr(c->slot.previous);
    free(c->slot.next);
    c->slot.next = take_ptr(c->slot.current);
    if (before && str_set(&c->slot.current, before->id) < 0)
        return error_oom(err);
    if (r > 0 && !before)
        c->slot.current = take_ptr(previous); /* adopted: nobody knows more of it than its name */
    c->slot.committed_at = before ? before->proved_at : 0;
    c->slot.stopped_at = 0;
    c->slot.deaths = 0;
    c->outage_began = 0;
    return container_load_want(c, c->slot.next, err);
}

static void turn_back(Container *c, const char *reason)
{
    auto_error Error err = {0};

    if (turn_around(c, &err) < 0)
        container_finish(c, &err);
    else
        container_go_back(c, reason, NULL);
}

/* The limit is the plan's; without one it was the machine that ran out. */
static char *memory_reason(const Container *c)
{
    char size[PARSE_TEXT_MAX];

    if (!c->out_of_memory)
        return strdup("");
    if (c->plan->memory_bytes == 0)
        return strdup(", and was killed because the machine ran out of memory");
    return str_printf(", and was killed for using more than its memory limit of %s",
                      format_size_human(size, c->plan->memory_bytes));
}

static char *crash_loop_reason(const Container *c)
{
    auto_free char *memory = memory_reason(c);
    uint64_t now = now_realtime_usec();
    char span[TIME_SPAN_MAX];

    return str_printf(
        "crash loop: it ended %ju times within %s of its rollout%s", (uintmax_t)c->slot.deaths,
        time_format_span(span, now - MIN_OF(now, c->slot.committed_at)), memory ? memory : "");
}

static void resume_committed(Container *c)
{
    const SlotContainer *view = c->slot.current ? container_view(c, c->slot.current) : NULL;
    auto_free char *reason = take_ptr(c->complaint);

    if (!reason && c->slot.deaths >= CONTAINER_CRASH_LOOP_DEATHS)
        reason = crash_loop_reason(c);
    if (reason && !c->forced)
        turn_back(c, reason);
    else if (!c->forced && !timer_is_set(c->settle_timer) && view && view->running)
        container_settle(c, container_decide);
    else
        keep_running(c);
}

/* It has no way back, or was to be left as it is. After a reboot nobody but us starts it. */
static void resume_failed(Container *c)
{
    auto_error Error err = {0};
    int r = 0;

    if (!c->forced && c->plan->mode == PLAN_MODE_SERVICE && container_machine_was_rebooted(c) &&
        c->slot.next && container_view(c, c->slot.next))
        r = container_load_want(c, c->slot.next, &err);
    if (r < 0)
        container_finish(c, &err);
    else if (r > 0)
        container_go_forward(c, /* start_again= */ true);
    else
        container_decide(c);
}

/* --- All of it ------------------------------------------------------------------------------- */

static const SlotContainer *ours_named(const Container *c, const char *suffix)
{
    for (size_t i = 0; i < c->n_views; i++) {
        const char *rest = startswith(c->views[i].name, c->plan->name);

        if (rest && streq(rest, suffix) && !str_is_empty(c->views[i].release))
            return &c->views[i];
    }
    return NULL;
}

/* No record, but containers of ours: state.db was lost, or this machine was cloned. What serves is
 * adopted; whether it is what the plan wants, its label tells. Where a rollout was under way,
 * nobody knows any more how far: what does not run gives way to what ran before it, and what runs
 * is watched, with a way back. */
static int adopt(Container *c)
{
    const SlotContainer *serving = ours_named(c, ""), *before = ours_named(c, ".previous");
    bool is_job = c->plan->mode == PLAN_MODE_JOB;

    if (before && (!serving || (!serving->running && !is_job))) {
        serving = before;
        before = NULL;
    }
    if (!serving)
        return 0;
    if (str_set(&c->slot.current, serving->release) < 0 ||
        str_set(&c->slot.previous, before ? before->release : NULL) < 0) {
        container_fail(c, -ENOMEM, ERROR_INTERNAL, "out of memory");
        return -ENOMEM;
    }
    log_info("container %s: adopted as it stands, release %s", c->plan->name, serving->release);
    /* Recorded at once: what no slot knows is a zombie to the cleanup. */
    if (!is_job && !before)
        return container_enter(c, ROLLOUT_NEW);
    c->slot.committed_at = now_realtime_usec();
    (void)container_watch_settling(c);
    return container_enter(c, ROLLOUT_COMMITTED);
}

void container_resume(Container *c)
{
    bool is_job = c->plan->mode == PLAN_MODE_JOB;

    container_look_at_serving(c);
    if (c->slot.state == ROLLOUT_NEW && !c->slot.current && adopt(c) < 0)
        return;
    switch (c->slot.state) {
    case ROLLOUT_SWITCHING:
    case ROLLOUT_PROVING:
        resume_rollout(c);
        return;
    case ROLLOUT_ROLLING_BACK:
        container_continue_back(c);
        return;
    case ROLLOUT_FAILED:
        resume_by_hand(c);
        resume_failed(c);
        return;
    case ROLLOUT_DONE:
        resume_by_hand(c);
        container_job_is_done(c);
        return;
    case ROLLOUT_PULLING:
    case ROLLOUT_STAGED:
    case ROLLOUT_COMMITTED:
    case ROLLOUT_ROLLED_BACK:
        resume_by_hand(c);
        (is_job ? container_resume_job : resume_committed)(c);
        return;
    case ROLLOUT_NEW:
    case ROLLOUT_RESOLVING:
    case ROLLOUT_SETTLED:
    case ROLLOUT_WAITING:
        resume_by_hand(c);
        (is_job ? container_resume_job : keep_running)(c);
        return;
    case ROLLOUT_STATE_MAX:
        break;
    }
    container_fail(c, -EINVAL, ERROR_INTERNAL, "its recorded state is none of ours");
}
