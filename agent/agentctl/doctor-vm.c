/* SPDX-License-Identifier: Apache-2.0 */

/* agentctl doctor: who this VM is, and what is wanted of it. */

#include <errno.h>
#include <stdio.h>

#include "agent/agentctl/doctor-internal.h"
#include "agent/agentctl/validate.h"
#include "agent/base/str.h"
#include "agent/io/daemon.h"
#include "agent/io/json.h"

/* ---- agentd ---- */

static void on_described(const char *text, const Error *err, void *userdata)
{
    Probe *probe = userdata;
    json_auto_t *status = NULL;
    const char *state = NULL;

    if (err) {
        probe_failed(probe, err, "journalctl -u agentd -n 50; sudo systemctl start agentd");
        return;
    }
    if (json_parse_quiet(text, strlen(text), &status) > 0)
        state = json_str(status, "state");
    probe_ok(probe, "answers, and says: %s%s", state ? state : "nothing",
             streq_ptr(state, "degraded") ? " (agentctl status says why)" : "");
}

void check_agentd(Doctor *doctor)
{
    Probe *probe = probe_new(doctor, "agentd");
    auto_error Error err = {0};
    int r;

    if (!probe)
        return;
    if (!doctor->bus) {
        probe_wrong(probe, "sudo systemctl start dbus.socket", "there is no system bus");
        return;
    }
    r = bus_call_text_async(doctor->bus, BUS_AGENT_NAME, BUS_AGENT_PATH, BUS_AGENT_INTERFACE,
                            "Describe", NULL, BUS_CALL_TIMEOUT_USEC, on_described, probe,
                            &probe->bus_call, &err);
    probe_began(probe, r, &err);
}

/* ---- The plan ---- */

static int use_plan(Doctor *doctor, const char *text, size_t size, FieldErrors *errors, Error *err)
{
    auto_free HttpEndpoint *endpoints = NULL;
    auto_(plan_freep) Plan *plan = NULL;
    size_t n = 0;
    int r;

    r = plan_parse(text, size, &plan, errors);
    if (r < 0)
        return r;
    endpoints = calloc(plan->endpoints.n + 1, sizeof(*endpoints));
    if (!endpoints)
        return error_oom(err);
    PLAN_FOREACH (PlanEndpoint, endpoint, plan->endpoints)
        endpoints[n++] = (HttpEndpoint){endpoint->host, endpoint->base_url};
    r = http_client_set_endpoints(doctor->http, endpoints, n, err);
    if (r < 0)
        return r;
    doctor->plan = take_ptr(plan);
    return 0;
}

/* The plan that agentd holds: for a metadata server that is away, or a newest plan that is wrong.
 * Whatever comes of it, the line has been said. */
static void on_plan_in_force(const char *text, const Error *err, void *userdata)
{
    Probe *probe = userdata;
    json_auto_t *answer = NULL;
    auto_free char *document = NULL;
    auto_field_errors FieldErrors errors = {0};

    if (!err && json_parse_quiet(text, strlen(text), &answer) > 0 &&
        json_is_object(json_object_get(answer, "document")))
        document = json_text(json_object_get(answer, "document"), false);
    if (document)
        (void)!use_plan(probe->doctor, document, strlen(document), &errors, NULL);
    if (probe->doctor->plan)
        probe_ok(probe, "what follows looks at the last good plan, which agentd has");
    else
        probe_skip(probe, "no plan is known: what it names was not looked at (sudo may help)");
}

static void ask_plan_in_force(Doctor *doctor)
{
    Probe *probe = probe_new(doctor, "plan-in-force");

    if (!probe)
        return;
    if (!doctor->bus ||
        bus_call_text_async(doctor->bus, BUS_AGENT_NAME, BUS_AGENT_PATH, BUS_AGENT_INTERFACE,
                            "Plan", NULL, BUS_CALL_TIMEOUT_USEC, on_plan_in_force, probe,
                            &probe->bus_call, NULL) < 0)
        probe_skip(probe, "no plan is known: what it names was not looked at");
}

static void say_faults(Probe *probe, const char *where, const FieldErrors *errors)
{
    const FieldError *first = errors->items;

    probe_wrong(probe, "agentctl plan validate FILE lists every fault with line and column",
                "the plan (%s) is not valid: %s%s%s%s", where,
                errors->n > 0 && first->path ? first->path : "",
                errors->n > 0 && !str_is_empty(first->path) ? ": " : "",
                errors->n > 0 ? first->message : "unknown fault",
                errors->n > 1 ? ", and others" : "");
}

static void judge_plan(Probe *probe, const CloudSnapshot *snapshot)
{
    Doctor *doctor = probe->doctor;
    auto_free char *crawlerd = daemon_sibling("crawlerd");
    auto_free char *remedy = cloud_cure(doctor->cloud, CLOUD_TROUBLE_NO_PLAN);
    auto_field_errors FieldErrors errors = {0};
    auto_verdict Verdict verdict = {0};
    auto_error Error err = {0};
    int r;

    if (!snapshot->plan) {
        probe_wrong(probe, remedy, "no plan is set: %s", snapshot->plan_where);
        return;
    }
    /* It runs crawlerd for the crawl part, which reads and ends; nothing else waits meanwhile. */
    r = crawlerd ? plan_judge(snapshot->plan, snapshot->plan_size, crawlerd, &verdict, &err)
                 : error_oom(&err);
    if (r < 0) {
        probe_failed(probe, &err, NULL);
        return;
    }
    if (verdict.errors.n > 0) {
        say_faults(probe, snapshot->plan_where, &verdict.errors);
        return;
    }
    r = use_plan(doctor, snapshot->plan, snapshot->plan_size, &errors, &err);
    if (r < 0)
        probe_failed(probe, &err, NULL);
    else
        probe_ok(probe, "%s, valid%s%s", snapshot->plan_where, verdict.warning ? "; " : "",
                 verdict.warning ? verdict.warning : "");
}

/* ---- Metadata ---- */

static void say_identity(Probe *probe, const CloudIdentity *identity)
{
    if (is_cloud_vm(probe->doctor))
        probe_ok(probe, "%s in %s, project %s, as %s", identity->name, identity->zone,
                 identity->project,
                 str_is_empty(identity->service_account) ? "nobody" : identity->service_account);
    else
        probe_ok(probe, "%s is no cloud VM", identity->name);
}

static void on_snapshot(const CloudSnapshot *snapshot, const Error *err, void *userdata)
{
    Probe *probe = userdata;
    Doctor *doctor = probe->doctor;
    Probe *plan = probe_new(doctor, "plan");
    auto_free char *remedy = cloud_cure(doctor->cloud, CLOUD_TROUBLE_NO_METADATA);

    if (!plan) {
        probe_skip(probe, "out of memory");
        return;
    }
    if (snapshot) {
        judge_plan(plan, snapshot);
        if (!doctor->plan)
            ask_plan_in_force(doctor);
        say_identity(probe, snapshot->identity);
        return;
    }
    ask_plan_in_force(doctor);
    if (is_cloud_vm(doctor)) {
        probe_skip(plan, "not looked at: the metadata server does not answer");
        probe_failed(probe, err, remedy);
    } else {
        probe_failed(plan, err, NULL);
        probe_skip(probe, "this machine is no cloud VM");
    }
}

void check_metadata(Doctor *doctor)
{
    Probe *probe = probe_new(doctor, "metadata");
    auto_error Error err = {0};

    if (probe)
        probe_began(probe, cloud_read(doctor->cloud, on_snapshot, probe, &probe->cloud_op, &err),
                    &err);
}

/* ---- Scopes, token, an old startup script ---- */

void check_scopes(Doctor *doctor)
{
    const CloudIdentity *identity = cloud_identity_peek(doctor->cloud);
    Probe *probe = probe_new(doctor, "scopes");
    auto_free char *remedy = NULL, *all = NULL;

    if (!probe)
        return;
    if (!is_cloud_vm(doctor)) {
        probe_skip(probe, "this machine is no cloud VM");
        return;
    }
    if (!identity) {
        probe_skip(probe, "not looked at: the metadata server does not answer");
        return;
    }
    doctor->scopes_suffice = cloud_scopes_suffice(doctor->cloud, identity, &remedy);
    if (doctor->scopes_suffice) {
        probe_ok(probe, "cloud-platform: IAM alone decides");
        return;
    }
    all = str_join((const char *const *)identity->scopes, " ");
    probe_wrong(probe, remedy,
                "the VM's access scopes are too narrow, whatever IAM says; they are: %s",
                str_is_empty(all) ? "none" : all);
}

static void on_token(const char *token, const Error *err, void *userdata)
{
    Probe *probe = userdata;
    const CloudIdentity *identity = cloud_identity_peek(probe->doctor->cloud);

    if (err) {
        probe_failed(probe, err, NULL);
        return;
    }
    probe->doctor->token_is_had = true;
    probe_ok(probe, "of %s", identity ? identity->service_account : "the service account");
}

void check_token(Doctor *doctor)
{
    Probe *probe = probe_new(doctor, "token");
    auto_error Error err = {0};

    if (!probe)
        return;
    if (!is_cloud_vm(doctor))
        probe_skip(probe, "this machine is no cloud VM");
    else if (!cloud_identity_peek(doctor->cloud))
        probe_skip(probe, "not looked at: the metadata server does not answer");
    else
        probe_began(probe, cloud_token_get(doctor->cloud, on_token, probe, &probe->cloud_op, &err),
                    &err);
}

void check_startup_script(Doctor *doctor)
{
    const CloudIdentity *identity = cloud_identity_peek(doctor->cloud);
    Probe *probe = probe_new(doctor, "startup-script");
    auto_free char *remedy = cloud_cure(doctor->cloud, CLOUD_TROUBLE_STARTUP_SCRIPT);

    if (!probe)
        return;
    if (!identity || !identity->startup_script) {
        if (identity)
            probe_ok(probe, "none is set");
        else
            probe_skip(probe, "not looked at: the metadata server does not answer");
        return;
    }
    probe_wrong(probe, remedy,
                "a startup script is set too: it runs at every boot, and works against the plan");
}
