/* SPDX-License-Identifier: Apache-2.0 */
/* A script of the plan, run as a transient systemd service: output in the journal under its name, a
 * time limit, secrets as credentials. The unit remains after its end until the result is recorded,
 * so agentd may be restarted or killed while it runs and finds it again. That it is done is
 * recorded after it ended well, as a stamp file: <state-dir>/scripts/<instance id>/NAME; a lost
 * state.db re-runs nothing, a cloned image does. */
#include <assert.h>
#include <errno.h>
#include <unistd.h>

#include "agent/base/crash.h"
#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/bus.h"
#include "agent/io/crypto.h"
#include "agent/io/json.h"
#include "agent/io/loop.h"
#include "agent/resource/release.h"
#include "agent/resource/secrets.h"
#include "agent/resource/system.h"

#define SYSTEMD_NAME     "org.freedesktop.systemd1"
#define SYSTEMD_PATH     "/org/freedesktop/systemd1"
#define SYSTEMD_MANAGER  "org.freedesktop.systemd1.Manager"
#define PROPERTIES       "org.freedesktop.DBus.Properties"
#define UNIT_EXISTS      "org.freedesktop.systemd1.UnitExists"

#define SCRIPTS_DIR      "scripts"
#define STAMP_MAX_BYTES  4096
#define AGAIN_USEC       (200 * MSEC)

#define EXIT_STATUS_EXEC 203 /* systemd's own, of a process that it could not execute */

#define LOST_SIGNAL_USEC (10 * SECOND) /* over its limit: systemd must have told us by then */

typedef struct ScriptResult {
    char active[16]; /* "activating", "active", "failed", "inactive" */
    char result[32]; /* "success", "exit-code", "timeout", "signal" */
    char description[96];
    int32_t status;
    char invocation[33];
} ScriptResult;

typedef struct ScriptItem {
    const PlanScript *plan;
    char sha256[SHA256_HEX_MAX]; /* of its text */
    char *unit;                  /* mervis-script-NAME.service */
    char *unit_path;             /* of its object */
    char *description;           /* of the unit: tells which text it runs */
    sd_bus_slot *call, *match;
    Timer *again;
    ScriptResult result; /* as last read */
    bool tidied;
    bool leaving; /* it left the plan: its unit is put away when it has ended */
} ScriptItem;

/* --- Declaring and stamps ------------------------------------------------------------------- */

static ScriptItem *item_free(ScriptItem *item)
{
    if (!item)
        return NULL;

    sd_bus_slot_unref(item->call);
    sd_bus_slot_unref(item->match);
    timer_free(item->again);
    free(item->unit);
    free(item->unit_path);
    free(item->description);
    free(item);
    return NULL;
}

static int script_declare(ResourceContext *context, const Plan *plan, Error *err)
{
    PLAN_FOREACH (PlanScript, script, plan->system.scripts) {
        ScriptItem *item = calloc(1, sizeof(*item));
        int r;

        if (!item)
            return error_oom(err);
        item->plan = script;
        sha256_of(script->run, strlen(script->run), item->sha256);
        item->unit = str_printf("mervis-script-%s.service", script->name);
        item->description = str_printf("Script of the plan, %.12s", item->sha256);
        if (!item->unit || !item->description ||
            sd_bus_path_encode(SYSTEMD_PATH "/unit", item->unit, &item->unit_path) < 0) {
            item_free(item);
            return error_oom(err);
        }
        r = resource_add(context, &resource_script, script->name, script->required, item, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static char *stamp_path(const Resource *resource)
{
    const char *instance = resource->context->instance_id;

    return str_printf("%s/" SCRIPTS_DIR "/%s/%s", resource->context->state_dir,
                      str_is_empty(instance) ? "local" : instance, resource->name);
}

static char *script_path(const Resource *resource)
{
    return str_printf("%s/" SCRIPTS_DIR "/%s.script", resource->context->state_dir, resource->name);
}

static bool stamp_holds(const Resource *resource, const json_t *stamp)
{
    const ScriptItem *item = resource->item;
    char boot_id[BOOT_ID_SIZE];

    switch ((PlanScriptWhen)item->plan->when) {
    case PLAN_SCRIPT_ONCE:
        return true;
    case PLAN_SCRIPT_CHANGE:
        return streq_ptr(json_str(stamp, "sha256"), item->sha256);
    case PLAN_SCRIPT_BOOT:
        return boot_id_read(boot_id, NULL) >= 0 && streq_ptr(json_str(stamp, "boot_id"), boot_id);
    }
    return false;
}

static void stop_unit(const Resource *resource);

static int script_check(Resource *resource, char **ret_difference, Error *err)
{
    ScriptItem *item = resource->item;
    auto_free char *path = stamp_path(resource);
    auto_buf Buf text = BUF_INIT(0);
    json_auto_t *stamp = NULL;

    if (!path)
        return error_oom(err);
    if (file_read(path, STAMP_MAX_BYTES, &text, NULL) >= 0 &&
        json_parse_quiet(buf_str(&text), text.size, &stamp) > 0 && stamp_holds(resource, stamp)) {
        /* A kill between the stamp and the end of the unit left it there. */
        if (!item->tidied && !resource->context->dry_run && resource->context->bus)
            stop_unit(resource);
        item->tidied = true;
        return 0;
    }
    *ret_difference =
        str_printf("run script %s (%s)", resource->name, plan_when_names[item->plan->when]);
    return *ret_difference ? 1 : error_oom(err);
}

static int write_stamp(Resource *resource, Error *err)
{
    const ScriptItem *item = resource->item;
    const ScriptResult *result = &item->result;
    auto_free char *path = stamp_path(resource), *dir = NULL, *text = NULL;
    char boot_id[BOOT_ID_SIZE], at[TIME_RFC3339_MAX];
    json_auto_t *stamp = NULL;
    int r;

    r = boot_id_read(boot_id, err);
    if (r < 0)
        return r;
    stamp = json_pack("{s:s, s:s, s:s, s:i, s:s}", "sha256", item->sha256, "boot_id", boot_id,
                      "ended_at", time_format_rfc3339(at, (int64_t)now_realtime_usec()),
                      "exit_status", (int)result->status, "invocation_id", result->invocation);
    text = stamp ? json_text(stamp, true) : NULL;
    dir = path ? strndup(path, (size_t)(strrchr(path, '/') - path)) : NULL;
    if (!text || !dir)
        return error_oom(err);
    r = dir_create(dir, 0755, err);
    return r < 0 ? r : file_replace(path, text, strlen(text), 0644, err);
}

/* --- The end ---------------------------------------------------------------------------------- */

static void script_cancel(Resource *resource)
{
    ScriptItem *item = resource->item;

    item->call = sd_bus_slot_unref(item->call);
    item->match = sd_bus_slot_unref(item->match);
    timer_cancel(item->again);
}

static void finish(Resource *resource, Error *err)
{
    script_cancel(resource);
    resource_finish(resource, err && err->code < 0 ? err : NULL);
}

static void finish_bus(Resource *resource, int r, const char *what)
{
    auto_error Error err = {0};

    (void)error_set(&err, r, ERROR_TEMPORARY, "%s: systemd does not answer: %s", what,
                    strerror(-r));
    finish(resource, &err);
}

/* No answer is waited for: a unit that is gone already is what we want. */
static void stop_unit(const Resource *resource)
{
    const ScriptItem *item = resource->item;

    (void)sd_bus_call_method_async(resource->context->bus, NULL, SYSTEMD_NAME, SYSTEMD_PATH,
                                   SYSTEMD_MANAGER, "StopUnit", NULL, NULL, "ss", item->unit,
                                   "replace");
}

/* Its unit goes, and with it what it left running in the background. */
static void put_away(const Resource *resource)
{
    const ScriptItem *item = resource->item;

    if (streq(item->result.active, "failed"))
        (void)sd_bus_call_method_async(resource->context->bus, NULL, SYSTEMD_NAME, SYSTEMD_PATH,
                                       SYSTEMD_MANAGER, "ResetFailedUnit", NULL, NULL, "s",
                                       item->unit);
    else
        stop_unit(resource);
}

static void explain_failure(const Resource *resource, Error *err)
{
    const ScriptItem *item = resource->item;
    const ScriptResult *result = &item->result;
    char limit[TIME_SPAN_MAX];

    if (streq(result->result, "timeout"))
        (void)error_set(err, -ETIMEDOUT, ERROR_TEMPORARY,
                        "it ran longer than its limit of %s and was ended",
                        time_format_span(limit, item->plan->timeout_usec));
    else if (streq(result->result, "exit-code") && result->status == EXIT_STATUS_EXEC)
        (void)error_set(err, -ECANCELED, ERROR_TEMPORARY,
                        "it could not be run (exit status %d): is the interpreter of its first "
                        "line on this machine?",
                        result->status);
    else if (streq(result->result, "exit-code"))
        (void)error_set(err, -ECANCELED, ERROR_TEMPORARY, "it ended with exit status %d",
                        result->status);
    else if (streq(result->result, "signal") || streq(result->result, "core-dump"))
        (void)error_set(err, -ECANCELED, ERROR_TEMPORARY, "it was killed by signal %d (%s)",
                        result->status, strsignal(result->status));
    else
        (void)error_set(err, -ECANCELED, ERROR_TEMPORARY, "systemd says: %s", result->result);
    (void)error_remedy(err, err->code, "journalctl -t %s", resource->name);
}

static void take_result(Resource *resource)
{
    const ScriptItem *item = resource->item;
    auto_error Error err = {0};

    if (streq(item->result.active, "failed"))
        explain_failure(resource, &err);
    else if (write_stamp(resource, &err) < 0) {
        /* Not recorded: its unit stays, and the next try finds it ended instead of running it anew.
         */
        finish(resource, &err);
        return;
    } else
        resource_event(resource, LOG_LEVEL_NOTICE, "script-ended", NULL,
                       "ended well (invocation %s)", item->result.invocation);
    crash_point("script.recorded");
    /* Recorded first: a kill before this line finds the unit again. */
    put_away(resource);
    finish(resource, &err);
}

static int on_processes(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    Resource *resource = userdata;
    ScriptItem *item = resource->item;
    unsigned n = 0;

    item->call = sd_bus_slot_unref(item->call);
    if (!sd_bus_message_is_method_error(reply, NULL) &&
        sd_bus_message_enter_container(reply, 'a', "(sus)") > 0)
        while (sd_bus_message_at_end(reply, false) == 0 && sd_bus_message_skip(reply, "(sus)") >= 0)
            n++;
    if (n > 0)
        resource_event(resource, LOG_LEVEL_WARNING, "script-ended", NULL,
                       "what it left running in the background (%u %s) ends with it: start that "
                       "as a service instead",
                       n, n == 1 ? "process" : "processes");
    take_result(resource);
    return 0;
}

/* --- Watching ----------------------------------------------------------------------------------
 */

static int read_text(sd_bus_message *reply, char *buffer, size_t size)
{
    const char *text;
    int r = sd_bus_message_read(reply, "v", "s", &text);

    if (r >= 0)
        (void)snprintf(buffer, size, "%s", text);
    return r;
}

static int read_property(sd_bus_message *reply, const char *name, ScriptResult *result)
{
    const void *id;
    size_t size;

    if (streq(name, "ActiveState"))
        return read_text(reply, result->active, sizeof(result->active));
    if (streq(name, "Result"))
        return read_text(reply, result->result, sizeof(result->result));
    if (streq(name, "Description"))
        return read_text(reply, result->description, sizeof(result->description));
    if (streq(name, "ExecMainStatus"))
        return sd_bus_message_read(reply, "v", "i", &result->status);
    if (streq(name, "InvocationID")) {
        int r = sd_bus_message_enter_container(reply, 'v', "ay");

        if (r < 0 || sd_bus_message_read_array(reply, 'y', &id, &size) < 0)
            return -EBADMSG;
        for (size_t i = 0; i < size && i < 16; i++)
            (void)snprintf(result->invocation + 2 * i, 3, "%02x", ((const unsigned char *)id)[i]);
        return sd_bus_message_exit_container(reply);
    }
    return sd_bus_message_skip(reply, "v");
}

static int read_properties(sd_bus_message *reply, ScriptResult *result)
{
    const char *name;
    int r;

    *result = (ScriptResult){.active = "inactive", .result = "success"};
    r = sd_bus_message_enter_container(reply, 'a', "{sv}");
    while (r >= 0 && (r = sd_bus_message_enter_container(reply, 'e', "sv")) > 0) {
        r = sd_bus_message_read(reply, "s", &name);
        if (r >= 0)
            r = read_property(reply, name, result);
        if (r >= 0)
            r = sd_bus_message_exit_container(reply);
    }
    return r;
}

static bool has_ended(const ScriptResult *result)
{
    return streq(result->active, "active") || streq(result->active, "failed");
}

/* What it did stays; its unit and its text go. */
static void take_leave(Resource *resource)
{
    const ScriptItem *item = resource->item;
    auto_free char *path = script_path(resource);

    if (has_ended(&item->result))
        put_away(resource);
    if (path)
        (void)unlink(path);
    finish(resource, NULL);
}

static void run(Resource *resource);

/* Whether the unit's result answers for what is declared now: the text is the same, or it ended
 * well and the text does not matter. */
static bool result_counts(const ScriptItem *item)
{
    return streq(item->result.description, item->description) ||
           (item->plan->when != PLAN_SCRIPT_CHANGE && streq(item->result.active, "active"));
}

static int on_properties(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    Resource *resource = userdata;
    ScriptItem *item = resource->item;
    const char *active = item->result.active;
    int r;

    item->call = sd_bus_slot_unref(item->call);
    /* A unit that nobody knows answers, too: it is inactive. */
    r = sd_bus_message_is_method_error(reply, NULL) ? -sd_bus_message_get_errno(reply)
                                                    : read_properties(reply, &item->result);
    if (r < 0) {
        finish_bus(resource, r, "read its unit");
        return 0;
    }
    if (item->leaving && (streq(active, "inactive") || has_ended(&item->result))) {
        take_leave(resource);
    } else if (streq(active, "inactive")) {
        run(resource);
    } else if (!has_ended(&item->result)) {
        /* It runs (or a former text of it does): the next change of its properties is heard. */
        (void)timer_set(item->again, usec_add(item->plan->timeout_usec, LOST_SIGNAL_USEC), SECOND);
    } else if (!result_counts(item)) {
        put_away(resource);
        run(resource);
    } else if (streq(active, "failed")) {
        take_result(resource);
    } else {
        r = sd_bus_call_method_async(resource->context->bus, &item->call, SYSTEMD_NAME,
                                     SYSTEMD_PATH, SYSTEMD_MANAGER, "GetUnitProcesses",
                                     on_processes, resource, "s", item->unit);
        if (r < 0)
            finish_bus(resource, r, "ask for its processes");
    }
    return 0;
}

static void look(void *userdata)
{
    Resource *resource = userdata;
    ScriptItem *item = resource->item;
    int r;

    item->call = sd_bus_slot_unref(item->call);
    r = sd_bus_call_method_async(resource->context->bus, &item->call, SYSTEMD_NAME, item->unit_path,
                                 PROPERTIES, "GetAll", on_properties, resource, "s", "");
    if (r < 0)
        finish_bus(resource, r, "look for its unit");
}

static int on_unit_changed(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    Resource *resource = userdata;
    const ScriptItem *item = resource->item;

    if (!item->call)
        look(resource);
    return 0;
}

/* --- Running ------------------------------------------------------------------------------------
 */

static int write_script(const Resource *resource, char **ret_path, Error *err)
{
    const ScriptItem *item = resource->item;
    auto_free char *dir = path_join(resource->context->state_dir, SCRIPTS_DIR);
    auto_free char *path = dir ? script_path(resource) : NULL;
    int r;

    if (!path)
        return error_oom(err);
    r = dir_create(dir, 0755, err);
    if (r >= 0)
        r = file_replace(path, item->plan->run, strlen(item->plan->run), 0700, err);
    if (r < 0)
        return r;
    *ret_path = take_ptr(path);
    return 0;
}

/* Secrets arrive as files in $CREDENTIALS_DIRECTORY, never as arguments or environment. */
static int add_credentials(const Resource *resource, sd_bus_message *message, Error *err)
{
    const ScriptItem *item = resource->item;
    int r;

    STRV_FOREACH (name, item->plan->secrets) {
        auto_(secret_record_done) SecretRecord record = {0};
        auto_free char *path = NULL;

        r = secret_store_record(resource->context->secrets, *name, &record, err);
        if (r < 0)
            return r;
        if (r == 0 || !secret_store_has(resource->context->secrets, *name, record.version))
            return error_set(err, -EINPROGRESS, ERROR_TEMPORARY, "waits for secret %s", *name);
        r = secret_store_path(resource->context->secrets, *name, record.version, &path, err);
        if (r < 0)
            return r;
        r = sd_bus_message_append(message, "(sv)", "LoadCredential", "a(ss)", 1, *name, path);
        if (r < 0)
            return error_errno(err, r, "name credential %s", *name);
    }
    return 0;
}

static int fill_unit(const Resource *resource, const char *script, sd_bus_message *message,
                     Error *err)
{
    const ScriptItem *item = resource->item;
    int r;

    r = sd_bus_message_append(message, "ss", item->unit, "fail");
    if (r >= 0)
        r = sd_bus_message_open_container(message, 'a', "(sv)");
    if (r >= 0)
        r = sd_bus_message_append(message, "(sv)(sv)(sv)(sv)(sv)(sv)(sv)", "Description", "s",
                                  item->description, "Type", "s", "oneshot", "RemainAfterExit", "b",
                                  true, "SyslogIdentifier", "s", resource->name, "TimeoutStartUSec",
                                  "t", item->plan->timeout_usec, "WorkingDirectory", "s", "/",
                                  "ExecStart", "a(sasb)", 1, script, 1, script, false);
    if (r < 0)
        return error_errno(err, r, "describe the unit");
    r = add_credentials(resource, message, err);
    if (r < 0)
        return r;
    r = sd_bus_message_close_container(message);
    if (r >= 0)
        r = sd_bus_message_append(message, "a(sa(sv))", 0);
    return r < 0 ? error_errno(err, r, "describe the unit") : 0;
}

static int on_started(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    Resource *resource = userdata;
    ScriptItem *item = resource->item;
    auto_error Error err = {0};

    item->call = sd_bus_slot_unref(item->call);
    crash_point("script.started");
    if (!sd_bus_message_is_method_error(reply, NULL)) {
        look(resource);
        return 0;
    }
    if (sd_bus_message_is_method_error(reply, UNIT_EXISTS)) {
        (void)timer_set(item->again, AGAIN_USEC, 0); /* a former one is about to go */
        return 0;
    }
    (void)error_set(&err, -EIO, ERROR_TEMPORARY, "systemd did not start it: %s",
                    sd_bus_message_get_error(reply)->message);
    finish(resource, &err);
    return 0;
}

static int begin(Resource *resource, Error *err)
{
    auto_(sd_bus_message_unrefp) sd_bus_message *message = NULL;
    ScriptItem *item = resource->item;
    auto_free char *script = NULL, *stamp = NULL;
    int r;

    r = write_script(resource, &script, err);
    if (r < 0)
        return r;
    /* From now on what an older text did is no longer what is there. */
    stamp = stamp_path(resource);
    if (!stamp)
        return error_oom(err);
    (void)unlink(stamp);
    r = sd_bus_message_new_method_call(resource->context->bus, &message, SYSTEMD_NAME, SYSTEMD_PATH,
                                       SYSTEMD_MANAGER, "StartTransientUnit");
    if (r < 0)
        return error_errno(err, r, "ask systemd");
    r = fill_unit(resource, script, message, err);
    if (r < 0)
        return r;
    r = sd_bus_call_async(resource->context->bus, &item->call, message, on_started, resource, 0);
    return r < 0 ? error_errno(err, r, "ask systemd") : 0;
}

static void run(Resource *resource)
{
    auto_error Error err = {0};

    if (begin(resource, &err) < 0)
        finish(resource, &err);
}

/* First the unit is looked for: it may run since before agentd was restarted, or have ended
 * meanwhile. */
static void watch_unit(Resource *resource)
{
    ScriptItem *item = resource->item;
    sd_bus *bus = resource->context->bus;
    auto_error Error err = {0};
    int r;

    script_cancel(resource);
    if (!item->again && timer_new(resource->context->event, look, resource, &item->again) < 0) {
        (void)error_oom(&err);
        finish(resource, &err);
        return;
    }
    r = sd_bus_match_signal_async(bus, &item->match, SYSTEMD_NAME, item->unit_path, PROPERTIES,
                                  "PropertiesChanged", on_unit_changed, NULL, resource);
    if (r >= 0) /* without it systemd sends no signals; asking twice does no harm */
        r = sd_bus_call_method_async(bus, NULL, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                     "Subscribe", NULL, NULL, NULL);
    if (r < 0) {
        finish_bus(resource, r, "listen");
        return;
    }
    look(resource);
}

static void script_apply(Resource *resource)
{
    auto_error Error err = {0};

    if (resource->context->bus) {
        watch_unit(resource);
        return;
    }
    (void)error_set(&err, -ENOTCONN, ERROR_TEMPORARY,
                    "no D-Bus to reach systemd, which runs scripts");
    finish(resource, &err);
}

/* One that runs goes on to its end, for half of what it does may be worse than all of it. */
static void script_remove(Resource *resource)
{
    ScriptItem *item = resource->item;

    item->leaving = true;
    if (resource->context->bus)
        watch_unit(resource);
    else
        take_leave(resource);
}

static bool script_uses_secret(const Resource *resource, const char *name)
{
    return strv_contains(((const ScriptItem *)resource->item)->plan->secrets, name);
}

static void script_free(Resource *resource)
{
    item_free(resource->item); /* the unit goes on: it is found again by its name */
}

const ResourceOps resource_script = {
    .kind = "script",
    .stage = STAGE_SYSTEM,
    .ordered = true,
    .declare = script_declare,
    .check = script_check,
    .apply = script_apply,
    .cancel = script_cancel,
    .remove = script_remove,
    .left_alone = "what the script did stays",
    .uses_secret = script_uses_secret,
    .free = script_free,
};
