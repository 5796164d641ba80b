/* SPDX-License-Identifier: Apache-2.0 */
/* Which release a container should be: what the tag stands for now, with this plan and these
 * versions of its secrets. */
#include <errno.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/resource/container-internal.h"

void container_forget_want(Container *c)
{
    c->want = release_free(c->want);
    c->want_plan = plan_free(c->want_plan);
}

const PlanContainer *container_want_plan(const Container *c, const Plan **ret_plan)
{
    const PlanContainer *older = c->want_plan ? plan_container(c->want_plan, c->plan->name) : NULL;

    if (ret_plan)
        *ret_plan = older ? c->want_plan : c->resource->context->plan;
    return older ? older : c->plan;
}

/* 1: c->want is that release, with the plan that describes it; 0: nobody knows it any more. */
int container_load_want(Container *c, const char *id, Error *err)
{
    ResourceContext *context = c->resource->context;
    int r;

    container_forget_want(c);
    r = release_load(context->db, c->plan->name, id, &c->want, err);
    if (r <= 0)
        return r;
    if (c->want->generation != context->generation) {
        r = release_plan(context->db, c->want, &c->want_plan, err);
        if (r < 0)
            return r;
    }
    return 1;
}

int container_outdates(const Container *c, const Release *release, Error *err)
{
    const ResourceContext *context = c->resource->context;
    auto_(release_freep) Release *now = NULL;
    int r;

    r = release_new(context->plan, c->plan, context->generation, release->digest, release->secrets,
                    &now, err);
    return r < 0 ? r : !streq(now->id, release->id);
}

int container_want_is_outdated(const Container *c, Error *err)
{
    return container_outdates(c, c->want, err);
}

/* Of a set that changes together one may have moved without our knowing, since the last look at it
 * failed: 1 and the versions of what serves, when that uses the same secrets. */
static int held_versions(const Container *c, char *const *names, json_t **ret, Error *err)
{
    SecretStore *store = c->resource->context->secrets;
    auto_(release_freep) Release *serving = NULL;
    bool doubt = false, complete = true;
    int r;

    STRV_FOREACH (name, names)
        doubt = doubt || secret_store_is_in_doubt(store, *name);
    if (!doubt || !c->slot.current)
        return 0;
    r = release_load(c->resource->context->db, c->plan->name, c->slot.current, &serving, err);
    if (r <= 0)
        return r;
    STRV_FOREACH (name, names) {
        const char *version = json_str(serving->secrets, *name);

        complete = complete && version && secret_store_has(store, *name, version);
    }
    if (!complete)
        return 0;
    *ret = json_incref(serving->secrets);
    return 1;
}

/* {"name": "version"} of all its secrets, as they are now. 0: one was never fetched (`err` says
 * which). */
static int current_versions(const Container *c, json_t **ret, Error *err)
{
    auto_(strv_freep) char **names = NULL;
    json_auto_t *versions = json_object();
    int r;

    if (!versions || container_secrets(c->plan, &names) < 0)
        return error_oom(err);
    r = held_versions(c, names, ret, err);
    if (r != 0)
        return r;
    STRV_FOREACH (name, names) {
        auto_(secret_record_done) SecretRecord record = {0};

        r = secret_store_record(c->resource->context->secrets, *name, &record, err);
        if (r < 0)
            return r;
        if (r == 0 || !secret_store_has(c->resource->context->secrets, *name, record.version)) {
            (void)error_set(err, -EINPROGRESS, ERROR_TEMPORARY, "waits for secret %s", *name);
            return 0;
        }
        if (json_put(versions, *name, json_string(record.version)) < 0)
            return error_oom(err);
    }
    *ret = take_ptr(versions);
    return 1;
}

/* --- It is what serves ------------------------------------------------------------------------ */

RolloutState container_resting_state(const Container *c)
{
    if (c->plan->mode == PLAN_MODE_SERVICE)
        return timer_is_set(c->settle_timer) && c->slot.previous ? ROLLOUT_COMMITTED
                                                                 : ROLLOUT_SETTLED;
    if (c->slot.exit_status == 0)
        return ROLLOUT_DONE;
    if (c->slot.exit_status > 0 && c->slot.deaths > c->plan->retries)
        return ROLLOUT_FAILED;
    return ROLLOUT_COMMITTED;
}

void container_stay(Container *c)
{
    container_show(c, c->refusal.code < 0 ? ROLLOUT_ROLLED_BACK : c->slot.state);
    if (c->refusal.code >= 0)
        container_explain_silence(c, &c->refusal);
    container_finish(c, &c->refusal);
}

/* A rollout was begun and given up (the tag moved back): back to rest. */
static void rest(Container *c, RolloutState state)
{
    if (state == ROLLOUT_SETTLED) {
        container_settle(c, container_stay); /* and what was left of it goes */
        return;
    }
    if (state == ROLLOUT_COMMITTED && c->plan->mode == PLAN_MODE_JOB)
        c->slot.run_again |= container_machine_was_rebooted(c);
    if (container_enter(c, state) >= 0)
        container_stay(c);
}

static void unchanged(Container *c)
{
    RolloutState state = container_resting_state(c);
    auto_(release_freep) Release *known = NULL;
    auto_error Error err = {0};
    int r;

    /* An adopted one has no row yet; it runs, and is as good as proved. */
    r = release_load(c->resource->context->db, c->plan->name, c->want->id, &known, &err);
    if (r == 0)
        r = release_store(c->resource->context->db, c->want, &err);
    if (r >= 0 && !known)
        r = release_prove(c->resource->context->db, c->plan->name, c->want->id, &err);
    if (r < 0)
        container_finish(c, &err);
    else if (state != c->slot.state)
        rest(c, state);
    else if (state == ROLLOUT_FAILED)
        container_job_has_failed(c);
    else if (c->ends_at_once)
        container_fail(c, -ECHILD, ERROR_TEMPORARY,
                       "it ended right after it was started: a service should stay up");
    else
        container_stay(c);
}

/* --- It is another -----------------------------------------------------------------------------
 */

void container_explain_quarantine(const Container *c, const Release *bad, Error *err)
{
    (void)error_set(err, -ECANCELED, ERROR_INVALID,
                    "%s %.19s was rolled back: %s; %s is quarantined (release %s)", bad->image,
                    bad->digest, bad->reason ? bad->reason : "it failed",
                    bad->digest_is_bad ? "this digest"
                                       : "not the digest, but what the plan and the "
                                         "secrets make of it",
                    bad->id);
    (void)error_remedy(err, err->code,
                       "push a corrected image%s, or try it again: sudo agentctl retry %s",
                       bad->digest_is_bad ? "" : " (or secret, or plan)", c->plan->name);
}

/* The wanted release is known to be bad: what serves goes on serving, and settles; status says why.
 */
static void refuse(Container *c, const Release *bad)
{
    RolloutState state = container_resting_state(c);

    error_done(&c->refusal);
    container_explain_quarantine(c, bad, &c->refusal);
    if (c->plan->mode == PLAN_MODE_SERVICE && state != c->slot.state)
        rest(c, state);
    else
        container_stay(c);
}

/* The machine could not start it a while ago: not again so soon, for each try costs a gap. */
static bool is_put_off(const Container *c, const Release *release)
{
    return streq_ptr(c->put_off, release->id) && !c->approving &&
           now_boottime_usec() < c->put_off_until;
}

static void wait_on(Container *c)
{
    RolloutState state = container_resting_state(c);

    error_done(&c->refusal);
    (void)error_copy(&c->refusal, &c->put_off_why);
    c->refusal.retry_after_usec = c->put_off_until - now_boottime_usec();
    /* Settled, it would forget that a person wants the one before it. */
    if (c->plan->mode == PLAN_MODE_SERVICE && state != c->slot.state && !c->forced)
        rest(c, state);
    else
        container_stay(c);
}

/* 1: what a person went back from had another secret or plan, too, and nothing moved since: then
 * that stays out as well. */
static int nothing_moved_since(const Container *c, const Release *serving, const char *digest,
                               const json_t *versions, Error *err)
{
    const ResourceContext *context = c->resource->context;
    auto_(release_freep) Release *want = NULL, *same = NULL, *known = NULL;
    int r;

    r = release_new(context->plan, c->plan, context->generation, serving->digest, versions, &same,
                    err);
    if (r < 0 || streq(same->id, serving->id))
        return r < 0 ? r : 0;
    r = release_new(context->plan, c->plan, context->generation, digest, versions, &want, err);
    if (r >= 0)
        r = release_load(context->db, c->plan->name, want->id, &known, err);
    return r <= 0 ? r : known->quarantined_at > 0;
}

/* A digest that proved bad is not tried again in other surroundings: what the plan and the secrets
 * changed since is followed with the digest that serves. */
static int avoid_bad_digest(Container *c, const Release *serving, const json_t *versions,
                            const char **digest, Error *err)
{
    auto_(release_freep) Release *bad = NULL;
    int r;

    if (!serving || streq(serving->digest, *digest))
        return 0;
    r = release_load_bad_digest(c->resource->context->db, c->plan->name, *digest, &bad, err);
    if (r <= 0)
        return r;
    r = nothing_moved_since(c, serving, *digest, versions, err);
    if (r != 0)
        return r < 0 ? r : 0;
    error_done(&c->refusal);
    container_explain_quarantine(c, bad, &c->refusal);
    *digest = serving->digest;
    return 0;
}

/* 1: a person let that digest in, now or before we were interrupted in bringing it in. */
static int is_let_in(const Container *c, const char *digest, Error *err)
{
    auto_(release_freep) Release *next = NULL;
    int r;

    if (c->plan->update.policy != PLAN_UPDATE_MANUAL || c->approving)
        return 1;
    if (!c->slot.next)
        return 0;
    r = release_load(c->resource->context->db, c->plan->name, c->slot.next, &next, err);
    return r <= 0 ? r : streq(next->digest, digest);
}

/* update.policy "manual": a new digest waits for a person; everything else of the plan is followed
 * with the digest that runs, which *digest becomes. */
static int hold_digest(Container *c, const Release *serving, const char **digest, Error *err)
{
    int r = 1;

    if (serving && !streq(serving->digest, *digest) && streq(serving->image, c->plan->image))
        r = is_let_in(c, *digest, err);
    if (r < 0)
        return r;
    if (r > 0) {
        forget(&c->slot.held_digest);
        return 0;
    }
    if (!streq_ptr(c->slot.held_digest, *digest)) {
        resource_event(c->resource, LOG_LEVEL_NOTICE, "update-held", NULL,
                       "a new digest %.19s waits: sudo agentctl apply", *digest);
        if (str_set(&c->slot.held_digest, *digest) < 0)
            return error_oom(err);
    }
    *digest = serving->digest;
    return 0;
}

/* 1: c->want is named; 0: a secret was never fetched (`err` says which). */
static int make_want(Container *c, const char *digest, Error *err)
{
    ResourceContext *context = c->resource->context;
    auto_(release_freep) Release *serving = NULL;
    json_auto_t *versions = NULL;
    int r;

    r = current_versions(c, &versions, err);
    if (r <= 0)
        return r;
    if (c->slot.current) {
        r = release_load(context->db, c->plan->name, c->slot.current, &serving, err);
        if (r < 0)
            return r;
    }
    r = avoid_bad_digest(c, serving, versions, &digest, err);
    if (r >= 0)
        r = hold_digest(c, serving, &digest, err);
    if (r < 0)
        return r;
    container_forget_want(c);
    r = release_new(context->plan, c->plan, context->generation, digest, versions, &c->want, err);
    return r < 0 ? r : 1;
}

static int revive(Container *c, Error *err);

/* The wanted one is not brought in now; what serves serves on, and is made anew if it is gone. */
static void stay_out(Container *c, const Release *known)
{
    auto_error Error err = {0};
    int r = revive(c, &err);

    if (r < 0)
        container_finish(c, &err);
    else if (r == 0 && known && known->quarantined_at > 0)
        refuse(c, known);
    else if (r == 0)
        wait_on(c);
}

void container_choose(Container *c, const char *digest)
{
    auto_(release_freep) Release *known = NULL;
    auto_error Error err = {0};
    bool here, deferred = c->deferred;
    int r;

    c->deferred = false;
    r = make_want(c, digest, &err);
    if (r > 0 &&
        release_load(c->resource->context->db, c->plan->name, c->want->id, &known, &err) < 0)
        r = -EIO;
    if (r <= 0) {
        container_finish(c, &err);
        return;
    }
    here = container_view(c, c->want->id) != NULL ||
           (streq_ptr(c->slot.current, c->want->id) && container_has_had_its_run(c));
    if (here && c->plan->mode == PLAN_MODE_SERVICE && c->slot.state == ROLLOUT_FAILED &&
        streq_ptr(c->slot.next, c->want->id))
        container_go_forward(c, /* start_again= */ true); /* by now it may be well */
    else if (here && streq_ptr(c->slot.current, c->want->id))
        unchanged(c);
    else if (c->again && !deferred) {
        /* Something moved while we asked: all secrets of a container change together. Once: what
         * crashes all the time moves all the time. */
        c->deferred = true;
        container_finish(c, NULL);
    } else if (c->slot.current && ((known && known->quarantined_at > 0) || is_put_off(c, c->want)))
        stay_out(c, known);
    else
        container_bring_in(c);
}

/* --- It cannot be had ----------------------------------------------------------------------- */

static void bring_in_forced(Container *c);

/* A service that should run, and somebody took its container away. */
static bool is_missing(const Container *c)
{
    return c->plan->mode == PLAN_MODE_SERVICE && c->slot.current &&
           !container_view(c, c->slot.current);
}

/* What served, by its record: 1 begun, 0 there is nothing to begin. */
static int revive(Container *c, Error *err)
{
    auto_(release_freep) Release *served = NULL;
    int r;

    if (c->revived || !is_missing(c) || streq_ptr(c->want ? c->want->id : NULL, c->slot.current))
        return 0;
    c->revived = true;
    r = release_load(c->resource->context->db, c->plan->name, c->slot.current, &served, err);
    if (r <= 0)
        return r;
    release_free(c->forced);
    c->forced = take_ptr(served);
    bring_in_forced(c);
    return 1;
}

/* Nobody has it any more, nor ever will. */
static bool is_gone_for_good(const Error *err)
{
    return err->code == -ENOENT || err->code == -ENODATA;
}

void container_cannot_be_had(Container *c, Error *err)
{
    auto_error Error failure = {0};
    int r;

    container_cancel_operations(c);
    r = revive(c, &failure);
    if (r > 0)
        return;
    if (r < 0) {
        container_finish(c, &failure);
        return;
    }
    if (c->want && is_missing(c) && streq(c->want->id, c->slot.current) && is_gone_for_good(err)) {
        /* Then whatever the tag stands for is better than nothing, though it were condemned. */
        log_failure(LOG_LEVEL_WARNING, NULL, err, "what served cannot be made anew");
        forget(&c->slot.current);
        forget(&c->slot.next);
        if (container_enter(c, ROLLOUT_FAILED) >= 0)
            container_decide(c);
        return;
    }
    /* A rollback by hand whose image or secret is gone must not be tried for ever. */
    if (c->want && c->want->proved_at > 0 && streq_ptr(c->want->id, c->slot.next) &&
        !error_is_transient(err)) {
        forget(&c->slot.next);
        if (container_enter(c, c->slot.state) < 0)
            return;
    }
    container_finish(c, err);
}

/* A release of before, by hand: its own digest, spec and secret versions. */
static void bring_in_forced(Container *c)
{
    auto_(release_freep) Release *forced = take_ptr(c->forced);
    auto_error Error err = {0};
    int r;

    c->pull_bytes = 0;
    r = container_load_want(c, forced->id, &err);
    if (r == 0)
        r = error_set(&err, -ENOENT, ERROR_INVALID, "release %s is no longer known", forced->id);
    if (r < 0)
        container_cannot_be_had(c, &err);
    else
        container_bring_in(c);
}

/* --- A dry run ---------------------------------------------------------------------------------
 */

/* 1: with the digest that serves, the plan and the secrets of today make another release. */
static int release_differs(const Container *c, const Release *serving, Error *err)
{
    const ResourceContext *context = c->resource->context;
    auto_(release_freep) Release *want = NULL;
    json_auto_t *versions = NULL;
    int r;

    r = current_versions(c, &versions, err);
    if (r <= 0)
        return r < 0 ? r : -EINPROGRESS;
    r = release_new(context->plan, c->plan, context->generation, serving->digest, versions, &want,
                    err);
    return r < 0 ? r : !streq(want->id, serving->id);
}

int container_would_change(const Container *c, char **ret, Error *err)
{
    const Slot *slot = &c->slot;
    bool is_service = c->plan->mode == PLAN_MODE_SERVICE;
    auto_(release_freep) Release *serving = NULL;
    int r = 0;

    if (slot->current)
        r = release_load(c->resource->context->db, c->plan->name, slot->current, &serving, err);
    if (r < 0)
        return r;
    if (!slot->current)
        *ret = str_printf("pull and start %s", c->plan->image);
    else if (slot->held_digest)
        *ret = str_printf("roll out the held %.19s of %s", slot->held_digest, c->plan->image);
    else if (slot->next && !streq(slot->next, slot->current))
        *ret = str_printf("go on with its rollout (%s)", rollout_state_name(slot->state));
    else if (is_service && c->serving.known && !c->serving.running)
        *ret = strdup("start it");
    else if (!serving || !streq(serving->image, c->plan->image))
        *ret = str_printf("look up %s and roll it out", c->plan->image);
    else {
        r = release_differs(c, serving, err);
        if (r <= 0)
            return r;
        *ret = strdup("roll out the changed plan or secrets");
    }
    return *ret ? 1 : error_oom(err);
}

/* --- The choice --------------------------------------------------------------------------------
 */

/* What serves, serves. Now: is it what is wanted? */
void container_decide(Container *c)
{
    json_auto_t *versions = NULL;
    auto_error Error err = {0};
    int r;

    if (c->resource->context->draining || c->draining) {
        container_finish(c, NULL);
        return;
    }
    if (c->forced) {
        if (c->slot.current && is_put_off(c, c->forced))
            wait_on(c);
        else
            bring_in_forced(c);
        return;
    }
    /* Without its secrets no release can be named: the registry need not be asked. */
    r = current_versions(c, &versions, &err);
    if (r > 0) {
        container_resolve(c);
        return;
    }
    if (r == 0)
        container_show(c, c->slot.current ? c->slot.state : ROLLOUT_WAITING);
    container_cannot_be_had(c, &err);
}
