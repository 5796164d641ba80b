/* SPDX-License-Identifier: Apache-2.0 */
/* A job runs to its end once a release. Its container tells that it ended; the record tells whether
 * that end counts: one that was preempted, or whose machine went down, runs again at the next
 * start, however politely it exited. */
#include <errno.h>

#include "agent/base/str.h"
#include "agent/resource/container-internal.h"

bool container_has_had_its_run(const Container *c)
{
    return c->plan->mode == PLAN_MODE_JOB && c->slot.current &&
           container_resting_state(c) != ROLLOUT_COMMITTED;
}

/* --- Its end --------------------------------------------------------------------------------- */

void container_job_is_done(Container *c)
{
    /* Asked for again until the machine is down; one that a person started since stays up. */
    if (c->plan->on_success == PLAN_ON_SUCCESS_POWEROFF && !container_machine_was_rebooted(c))
        c->resource->context->host->poweroff("its job is done",
                                             c->resource->context->host_userdata);
    container_decide(c);
}

void container_job_has_failed(Container *c)
{
    auto_error Error err = {0};

    container_show(c, ROLLOUT_FAILED);
    (void)error_set(&err, -ECANCELED, ERROR_INVALID, "the job ended with exit status %d, %ju %s",
                    c->slot.exit_status, (uintmax_t)c->slot.deaths,
                    c->slot.deaths == 1 ? "time" : "times");
    (void)error_remedy(&err, err.code, "agentctl logs %s; then sudo agentctl retry %s",
                       c->plan->name, c->plan->name);
    container_finish(c, &err);
}

/* What it replaced goes when it ended: nobody goes back to a former job. */
static void take_others_away(Container *c, ContainerStep then)
{
    if (str_set(&c->slot.next, c->slot.current) < 0)
        then(c);
    else
        container_switch(c, SWITCH_SETTLE, false, then, then);
}

static void job_ended_well(Container *c)
{
    if (container_enter(c, ROLLOUT_DONE) < 0)
        return;
    resource_event(c->resource, LOG_LEVEL_NOTICE, "job-done", NULL, "ended well");
    take_others_away(c, container_job_is_done);
}

static void run_again(Container *c);

static void job_ended_badly(Container *c, const char *how)
{
    bool enough;

    c->slot.deaths++;
    enough = c->slot.deaths > c->plan->retries;
    c->slot.run_again = !enough;
    if (container_enter(c, enough ? ROLLOUT_FAILED : ROLLOUT_COMMITTED) < 0)
        return;
    resource_event(c->resource, LOG_LEVEL_WARNING, "job-failed", NULL, "%s (run %ju of %ju)", how,
                   (uintmax_t)c->slot.deaths, (uintmax_t)c->plan->retries + 1);
    if (enough)
        take_others_away(c, container_job_has_failed);
    else
        run_again(c);
}

static void on_ended(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Container *c = userdata;
    auto_free char *how = NULL;

    if (err) {
        container_finish_with(c, err);
        return;
    }
    how = engine_container_explain_exit(&reply->containers[0]);
    c->slot.exit_status = reply->containers[0].exit_code;
    c->op = engine_op_free(c->op);
    if (c->slot.exit_status == 0)
        job_ended_well(c);
    else
        job_ended_badly(c, how ? how : "ended badly");
}

/* --- Its run --------------------------------------------------------------------------------- */

static void runs_again(Container *c)
{
    c->slot.run_again = false;
    if (container_enter(c, ROLLOUT_COMMITTED) < 0)
        return;
    c->may_have_ended = true;
    container_look_at_serving(c);
    container_finish(c, NULL);
}

static void run_again(Container *c)
{
    container_run_current(c, runs_again);
}

/* A run is not broken off for a newer image or secret: they come in when it is over. A plan that
 * describes another job is a person's word. */
static void leave_it_running(Container *c)
{
    auto_error Error err = {0};
    int r;

    if (c->slot.run_again) {
        runs_again(c);
        return;
    }
    r = container_load_want(c, c->slot.current, &err);
    if (r > 0)
        r = container_want_is_outdated(c, &err);
    else if (r == 0)
        r = 1; /* adopted: whether it is the right one is to be found out */
    if (r < 0)
        container_finish(c, &err);
    else if (r > 0 || c->forced)
        container_decide(c);
    else {
        container_show(c, c->slot.state);
        container_finish(c, NULL);
    }
}

void container_resume_job(Container *c)
{
    const SlotContainer *view = c->slot.current ? container_view(c, c->slot.current) : NULL;
    auto_error Error err = {0};

    if (!view || c->slot.state != ROLLOUT_COMMITTED)
        container_decide(c);
    else if (view->running)
        leave_it_running(c);
    else if (c->slot.run_again || container_machine_was_rebooted(c))
        run_again(c);
    else if (engine_inspect_container(c->resource->context->engine, view->id, on_ended, c, &c->op,
                                      &err) < 0)
        container_finish(c, &err);
}
