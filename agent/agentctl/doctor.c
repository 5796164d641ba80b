/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentctl/doctor.h"

#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "agent/agentctl/doctor-internal.h"
#include "agent/base/str.h"
#include "agent/io/json.h"

/* What a stage finds out, the next one builds on. */
enum { STAGE_MACHINE, STAGE_NETWORK, STAGE_CLOUD, STAGES };

/* clang-format off */
static const struct {
    unsigned stage;
    void (*run)(Doctor *doctor);
} rows[] = {
    {STAGE_MACHINE, check_agentd},
    {STAGE_MACHINE, check_metadata},
    {STAGE_MACHINE, check_memory},
    {STAGE_NETWORK, check_engine},
    {STAGE_NETWORK, check_startup_script},
    {STAGE_NETWORK, check_scopes},
    {STAGE_NETWORK, check_token},
    {STAGE_NETWORK, check_apis},
    {STAGE_NETWORK, check_timezones},
    {STAGE_NETWORK, check_units},
    {STAGE_NETWORK, find_hosts},
    {STAGE_CLOUD,   check_disk},
    {STAGE_CLOUD,   check_dns},
    {STAGE_CLOUD,   check_egress},
    {STAGE_CLOUD,   check_secrets},
    {STAGE_CLOUD,   check_images},
    {STAGE_CLOUD,   check_bigquery},
};

/* The lines, for the manual. */
static const DoctorHelp lines[] = {
    {"agentd",           "agentd answers on the bus"},
    {"metadata",         "the metadata server says who this VM is"},
    {"plan",             "a plan is set, and valid; its crawl part too"},
    {"plan-in-force",    "what agentd holds, where the metadata has no valid plan"},
    {"engine",           "the container engine answers, and its version is one we know"},
    {"memory",           "memory is left, and a small machine has swap"},
    {"units",            "systemd says how our units are"},
    {"unit.NAME",        "the unit is there, enabled, not masked, not failed, and read as it is on disk"},
    {"startup-script",   "no old startup script works against us"},
    {"scopes",           "the VM's access scopes let its token through"},
    {"token",            "a token of the service account is to be had"},
    {"cloud-apis",       "the cloud's APIs answer"},
    {"clock",            "the clock is right, by the Date of their answer"},
    {"disk.PATH",        "room is left on the disks of state and images"},
    {"inodes.PATH",      "and inodes"},
    {"time-zones",       "the data of the time zones in use is installed"},
    {"recipe.NAME",      "crawlerd knows the recipe of a job"},
    {"dns.HOST",         "the name of a peer resolves"},
    {"egress",           "the market hosts answer (NAT)"},
    {"secret.NAME",      "the secret can be read: scope, IAM, version"},
    {"image.NAME",       "the container's tag exists, may be pulled, and is for this platform"},
    {"bigquery-jobs",    "BigQuery jobs may be run in the project"},
    {"dataset",          "the dataset is there and may be read"},
    {"table.NAME",       "the table has our columns, and may be written to"},
    {NULL, NULL},
};
/* clang-format on */

const DoctorHelp *doctor_manual(void)
{
    return lines;
}

/* ---- Probes ---- */

Probe *probe_new(Doctor *doctor, const char *format, ...)
{
    Probe *probe = calloc(1, sizeof(*probe));
    va_list args;
    int n = -1;

    if (probe) {
        probe->doctor = doctor;
        va_start(args, format);
        n = vasprintf(&probe->id, format, args);
        va_end(args);
    }
    if (n < 0) {
        doctor->memory_is_out = true;
        free(probe);
        return NULL;
    }
    LIST_APPEND(probes, doctor->probes, probe);
    doctor->waiting++;
    return probe;
}

static void probe_free(Probe *probe)
{
    cloud_op_free(probe->cloud_op);
    cloud_op_free(probe->login_op);
    http_op_free(probe->http_op);
    engine_op_free(probe->engine_op);
    registry_op_free(probe->registry_op);
    bus_call_free(probe->bus_call);
    child_free(probe->child);
    free(probe->id);
    free(probe->message);
    free(probe->remedy);
    free(probe->subject);
    free(probe);
}

/* The message is taken; what the probe waited for stays until the doctor goes, for this may be its
 * own handler. */
static void finish(Probe *probe, Outcome outcome, char *message, const char *remedy)
{
    Doctor *doctor = probe->doctor;

    assert(probe->outcome == OUTCOME_WAITING && outcome != OUTCOME_WAITING);
    probe->outcome = outcome;
    probe->message = message;
    if (!message || str_set(&probe->remedy, remedy) < 0)
        doctor->memory_is_out = true;
    assert(doctor->waiting > 0);
    doctor->waiting--;
    if (doctor->waiting == 0)
        (void)timer_set(doctor->turn, 0, 0);
}

static char *format_text(const char *format, va_list args) printf_like(1, 0);

static char *format_text(const char *format, va_list args)
{
    char *text = NULL;

    return vasprintf(&text, format, args) < 0 ? NULL : text;
}

void probe_ok(Probe *probe, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    finish(probe, OUTCOME_OK, format_text(format, args), NULL);
    va_end(args);
}

void probe_wrong(Probe *probe, const char *remedy, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    finish(probe, OUTCOME_WRONG, format_text(format, args), remedy);
    va_end(args);
}

void probe_skip(Probe *probe, const char *why)
{
    finish(probe, OUTCOME_SKIPPED, strdup(why), NULL);
}

void probe_failed(Probe *probe, const Error *err, const char *remedy)
{
    probe_wrong(probe, err->remedy ? err->remedy : remedy, "%s", error_text(err));
}

void probe_began(Probe *probe, int r, const Error *err)
{
    if (r < 0)
        probe_failed(probe, err, NULL);
}

/* ---- Who this is ---- */

static const char *or_word(const char *s, const char *word)
{
    return str_is_empty(s) ? word : s;
}

bool is_cloud_vm(const Doctor *doctor)
{
    return !streq(cloud_name(doctor->cloud), "local");
}

const char *vm_project(const Doctor *doctor)
{
    const CloudIdentity *identity = cloud_identity_peek(doctor->cloud);

    return or_word(identity ? identity->project : NULL, "PROJECT");
}

const char *vm_region(const Doctor *doctor)
{
    const CloudIdentity *identity = cloud_identity_peek(doctor->cloud);

    return or_word(identity ? identity->region : NULL, "REGION");
}

bool cloud_is_ready(const Doctor *doctor, Probe *probe)
{
    if (!is_cloud_vm(doctor))
        probe_skip(probe, "this machine is no cloud VM");
    else if (!doctor->scopes_suffice)
        probe_skip(probe, "not looked at: the access scopes are wrong");
    else if (!doctor->apis_answer)
        probe_skip(probe, "not looked at: the cloud's APIs do not answer");
    else if (!doctor->token_is_had)
        probe_skip(probe, "not looked at: there is no token");
    else
        return true;
    return false;
}

/* ---- One run ---- */

static void on_turn(void *userdata)
{
    Doctor *doctor = userdata;

    while (doctor->waiting == 0 && doctor->stage < STAGES) {
        /* Held while the stage begins, so that a line that ends at once does not end the stage. */
        doctor->waiting++;
        for (size_t i = 0; i < ELEMENTS(rows); i++)
            if (rows[i].stage == doctor->stage)
                rows[i].run(doctor);
        doctor->waiting--;
        doctor->stage++;
    }
    if (doctor->waiting == 0)
        (void)sd_event_exit(doctor->event, 0);
}

static void on_limit(void *userdata)
{
    Doctor *doctor = userdata;

    LIST_FOREACH (probes, probe, doctor->probes)
        if (probe->outcome == OUTCOME_WAITING)
            probe_wrong(probe, "agentctl doctor, again; then look at what it asks by hand",
                        "no answer in time");
    (void)sd_event_exit(doctor->event, 0);
}

static int doctor_init(Doctor *doctor, const DoctorOptions *options, Error *err)
{
    CloudConfig config;
    int r;

    doctor->options = options;
    r = loop_new(&doctor->event, err);
    if (r >= 0)
        r = http_client_new(doctor->event, "mervis-agent/" PACKAGE_VERSION " (doctor)",
                            &doctor->http, err);
    if (r < 0)
        return r;
    config = (CloudConfig){.event = doctor->event, .http = doctor->http, .root = options->root};
    r = cloud_new(&config, &doctor->cloud, err);
    if (r >= 0)
        r = engine_new(doctor->http, doctor->event, options->engine, &doctor->engine, err);
    if (r < 0)
        return r;
    engine_set_timeouts(doctor->engine, DOCTOR_ANSWER_USEC, 0, 0);
    if (bus_open(doctor->event, &doctor->bus, NULL) < 0)
        doctor->bus = NULL; /* check_agentd() says so */
    if (timer_new(doctor->event, on_turn, doctor, &doctor->turn) < 0 ||
        timer_new(doctor->event, on_limit, doctor, &doctor->limit) < 0 ||
        timer_set(doctor->turn, 0, 0) < 0 || timer_set(doctor->limit, DOCTOR_LIMIT_USEC, 0) < 0)
        return error_oom(err);
    return 0;
}

static void doctor_done(Doctor *doctor)
{
    LIST_FOREACH_SAFE (probes, probe, doctor->probes)
        probe_free(probe);
    for (size_t i = 0; i < CRAWLER_HOSTS_MAX; i++)
        http_op_free(doctor->tries[i].op);
    timer_free(doctor->turn);
    timer_free(doctor->limit);
    plan_free(doctor->plan);
    engine_free(doctor->engine);
    cloud_free(doctor->cloud);
    http_client_free(doctor->http);
    sd_bus_flush_close_unref(doctor->bus);
    sd_event_unref(doctor->event);
    free(doctor->engine_root);
    for (size_t i = 0; i < doctor->n_hosts; i++)
        free(doctor->hosts[i]);
}

static json_t *report_of(const Doctor *doctor)
{
    json_auto_t *checks = json_array();
    bool ok = true;

    LIST_FOREACH (probes, probe, doctor->probes) {
        json_t *verdict = probe->outcome == OUTCOME_SKIPPED
                              ? json_null()
                              : json_boolean(probe->outcome == OUTCOME_OK);

        ok = ok && probe->outcome != OUTCOME_WRONG;
        if (!checks ||
            json_array_append_new(checks, json_pack("{s:s, s:o, s:s, s:s?}", "id", probe->id, "ok",
                                                    verdict, "message", probe->message, "remedy",
                                                    probe->remedy)) < 0)
            return NULL;
    }
    return json_pack("{s:b, s:O}", "ok", ok, "checks", checks);
}

int doctor_run(const DoctorOptions *options, json_t **ret, Error *err)
{
    auto_(doctor_done) Doctor doctor = {0};
    int r;

    assert(options && ret);

    r = doctor_init(&doctor, options, err);
    if (r < 0)
        return r;
    r = sd_event_loop(doctor.event);
    if (r < 0)
        return error_errno(err, r, "event loop");
    *ret = doctor.memory_is_out ? NULL : report_of(&doctor);
    return *ret ? 0 : error_oom(err);
}

/* ---- The page ---- */

#define WORD_COLUMN    6
#define MESSAGE_COLUMN 26

static int add_line(const json_t *check, const View *view, Buf *page)
{
    const json_t *ok = json_object_get(check, "ok");
    const char *word = json_is_true(ok) ? "ok" : json_is_false(ok) ? "WRONG" : "-";
    Colour colour = json_is_true(ok) ? COLOUR_GOOD : json_is_false(ok) ? COLOUR_BAD : COLOUR_DIM;
    const char *id = json_str(check, "id"), *message = json_str(check, "message");
    const char *remedy = json_str(check, "remedy");
    auto_free char *name = text_fit(id ? id : "?", MESSAGE_COLUMN - WORD_COLUMN - 1, false);
    int r;

    if (!name)
        return -ENOMEM;
    r = render_coloured(page, view, colour, word);
    if (r >= 0)
        r = buf_printf(page, "%*s%s%*s", (int)(WORD_COLUMN - strlen(word)), "", name,
                       (int)(MESSAGE_COLUMN - WORD_COLUMN - text_width(name)), "");
    if (r >= 0)
        r = render_wrapped(page, view, MESSAGE_COLUMN, json_is_false(ok) ? colour : COLOUR_NONE,
                           message ? message : "");
    if (r < 0 || !remedy)
        return r;
    /* On lines of its own, not wrapped: it is copied into a shell. */
    return buf_printf(page, "%*s%s\n", WORD_COLUMN, "", remedy);
}

int doctor_view(const json_t *report, const View *view, Buf *page)
{
    const json_t *checks = json_object_get(report, "checks"), *check;
    size_t i, wrong = 0;
    int r = 0;

    json_array_foreach (checks, i, check)
        if (json_is_false(json_object_get(check, "ok"))) {
            r = r < 0 ? r : add_line(check, view, page);
            wrong++;
        }
    if (r >= 0 && wrong > 0)
        r = buf_add_char(page, '\n');
    json_array_foreach (checks, i, check)
        if (r >= 0 && !json_is_false(json_object_get(check, "ok")))
            r = add_line(check, view, page);
    if (r < 0)
        return r;
    return wrong == 0
               ? buf_add_str(page, "\nNothing is wrong.\n")
               : buf_printf(page, "\n%zu thing%s wrong.\n", wrong, wrong == 1 ? " is" : "s are");
}
