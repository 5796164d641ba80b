/* SPDX-License-Identifier: Apache-2.0 */

/* The part `containers` of the plan. */

#include <errno.h>
#include <string.h>

#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/plan/plan-internal.h"

/* -- a value of the environment: a text, or an object that names a secret -- */

static int value_decode(FieldContext *context, const json_t *value, void *member)
{
    const char *secret = json_str(value, "secret");
    PlanValue *v = member;

    if (json_is_string(value))
        return str_set(&v->text, json_string_value(value));
    if (!json_is_object(value)) {
        field_error(context, NULL,
                    "expected a string (write numbers and true in quotes), or "
                    "{\"secret\": \"NAME\"}");
        return 0;
    }
    if (!secret || json_object_size(value) != 1) {
        field_error(context, NULL, "expected {\"secret\": \"NAME\"} and nothing else in it");
        return 0;
    }
    if (check_name(secret)) {
        field_error(context, "secret", "expected %s", check_name(secret));
        return 0;
    }
    return str_set(&v->secret, secret);
}

static json_t *value_schema(void)
{
    return json_pack("{s:[{s:s}, {s:s, s:{s:{s:s, s:s}}, s:[s], s:b}]}", "anyOf", "type", "string",
                     "type", "object", "properties", "secret", "type", "string", "pattern",
                     NAME_PATTERN, "required", "secret", "additionalProperties", 0);
}

static int value_encode(const void *member, json_t **ret)
{
    const PlanValue *v = member;

    if (!v->text && !v->secret)
        return 0;
    *ret = v->secret ? json_pack("{s:s}", "secret", v->secret) : json_string(v->text);
    return *ret ? 1 : -ENOMEM;
}

static void value_done(void *member)
{
    PlanValue *v = member;

    free(v->text);
    free(v->secret);
    *v = (PlanValue){0};
}

static const FieldCustom value = {.form = "string, or an object that names a secret",
                                  .decode = value_decode,
                                  .schema = value_schema,
                                  .encode = value_encode,
                                  .done = value_done};

/* -- rules -- */

static void check_health_times(FieldContext *context, void *object)
{
    const PlanHealth *health = object;

    if (health->timeout_usec > health->start_period_usec + health->interval_usec)
        field_error(context, "timeout", "longer than \"start_period\" and \"interval\" together");
}

/* Two texts of the list that claim the same thing, by the key that `key_of` finds; "" claims none.
 */
static void check_paths_once(FieldContext *context, const PlanContainer *c)
{
    auto_(strv_freep) char **targets = NULL;
    char member[64];

    for (size_t i = 0; c->volumes && c->volumes[i]; i++) {
        PlanVolume volume = {0};

        if (plan_volume_parse(c->volumes[i], &volume) < 0)
            continue;
        if (strv_contains(targets, volume.target)) {
            (void)snprintf(member, sizeof(member), "volumes[%zu]", i);
            field_error(context, member, "%s is mounted already", volume.target);
        } else {
            (void)!strv_push(&targets, volume.target);
        }
        plan_volume_done(&volume);
    }
    for (size_t i = 0; c->tmpfs && c->tmpfs[i]; i++) {
        PlanTmpfs tmpfs = {0};

        if (plan_tmpfs_parse(c->tmpfs[i], &tmpfs) < 0)
            continue;
        if (strv_contains(targets, tmpfs.path)) {
            (void)snprintf(member, sizeof(member), "tmpfs[%zu]", i);
            field_error(context, member, "%s is mounted already", tmpfs.path);
        } else {
            (void)!strv_push(&targets, tmpfs.path);
        }
        plan_tmpfs_done(&tmpfs);
    }
    PLAN_FOREACH (PlanSecretFile, file, c->secret_files) {
        size_t i = (size_t)(file - (PlanSecretFile *)c->secret_files.items);

        if (!file->path)
            continue;
        if (strv_contains(targets, file->path)) {
            (void)snprintf(member, sizeof(member), "secret_files[%zu].path", i);
            field_error(context, member, "%s is mounted already", file->path);
        } else {
            (void)!strv_push(&targets, file->path);
        }
    }
}

/* Only the image knows what number a name has: a file of its own would be root's, and the container
 * could not read it. */
static void check_secret_readers(FieldContext *context, const PlanContainer *c)
{
    size_t size = c->user ? strcspn(c->user, ":") : 0;
    char member[64];

    if (size == 0 || strspn(c->user, "0123456789") == size ||
        (size == strlen("root") && startswith(c->user, "root")))
        return;
    PLAN_FOREACH (PlanSecretFile, file, c->secret_files) {
        if (file->mode & 0044)
            continue;
        (void)snprintf(member, sizeof(member), "secret_files[%zu].mode",
                       (size_t)(file - (PlanSecretFile *)c->secret_files.items));
        field_error(context, member,
                    "user \"%.*s\" could not read it: give \"user\" as numbers (id %.*s, in the "
                    "image), or a mode such as \"0444\"",
                    (int)size, c->user, (int)size, c->user);
    }
}

/* There is one file a secret and release, however often it is mounted. */
static void check_secret_modes(FieldContext *context, const PlanContainer *c)
{
    const PlanSecretFile *files = c->secret_files.items;
    char member[64];

    for (size_t i = 1; i < c->secret_files.n; i++)
        for (size_t j = 0; j < i; j++) {
            if (!streq_ptr(files[i].secret, files[j].secret) || files[i].mode == files[j].mode)
                continue;
            (void)snprintf(member, sizeof(member), "secret_files[%zu].mode", i);
            field_error(
                context, member,
                "the same secret has mode \"%04o\" in secret_files[%zu]: give both the same",
                files[j].mode, j);
            break;
        }
}

static void check_network_rules(FieldContext *context, const PlanContainer *c)
{
    bool is_host = c->network && streq(c->network, "host");
    bool is_none = c->network && streq(c->network, "none");
    bool asks_container = c->health.http && strstr(c->health.http, HEALTH_CONTAINER_HOST);

    if ((is_host || is_none) && c->ports && *c->ports)
        field_error(context, "ports", "network \"%s\" publishes no ports: leave them out",
                    c->network);
    if (is_host && asks_container)
        field_error(context, "health.http",
                    "with network \"host\" the container has no address of its own: write "
                    "127.0.0.1 for {container}");
    if (is_none && c->health.http)
        field_error(context, "health.http", "with network \"none\" nothing can be asked");
}

static void check_job(FieldContext *context, const PlanContainer *c)
{
    if (c->mode == PLAN_MODE_JOB && field_is_given(context, "health"))
        field_error(context, "health", "a job is judged by its exit status, not by its health");
    if (c->mode == PLAN_MODE_JOB && c->update.order >= 0)
        field_error(context, "update.switch", "a job is not switched: it ends by itself");
    if (c->mode == PLAN_MODE_SERVICE && field_is_given(context, "retries"))
        field_error(context, "retries", "only for mode \"job\"");
    if (c->mode == PLAN_MODE_SERVICE && field_is_given(context, "on_success"))
        field_error(context, "on_success", "only for mode \"job\": a service does not end");
}

/* The old and the new one would want the same port or address. */
static void choose_switch(FieldContext *context, PlanContainer *c)
{
    bool has_ports = c->ports && *c->ports;
    bool is_host = c->network && streq(c->network, "host");

    if (c->update.order == PLAN_START_FIRST && has_ports)
        field_error(context, "update.switch",
                    "\"start-first\" cannot be with published ports: old and new would need the "
                    "same one; use \"stop-first\"");
    else if (c->update.order == PLAN_START_FIRST && is_host)
        field_error(context, "update.switch",
                    "\"start-first\" cannot be with network \"host\": use \"stop-first\"");
    if (c->update.order < 0)
        c->update.order =
            has_ports || is_host || c->mode == PLAN_MODE_JOB ? PLAN_STOP_FIRST : PLAN_START_FIRST;
}

void plan_check_container(FieldContext *context, void *object)
{
    PlanContainer *c = object;

    check_network_rules(context, c);
    check_job(context, c);
    check_paths_once(context, c);
    check_secret_readers(context, c);
    check_secret_modes(context, c);
    choose_switch(context, c);
    if (c->shm_bytes > 0 && c->memory_bytes > 0 && c->shm_bytes > c->memory_bytes)
        field_error(context, "shm_size", "more than \"memory\", which it counts against");
}

/* -- tables -- */

/* clang-format off */
static const Field env_value = FIELD_CUSTOM("*", PlanEnv, value, 0, &value, "a text, or {\"secret\": \"NAME\"}");
static const Field label_value = FIELD_STRING("*", PlanLabel, value, NULL, 0, 4096, 0, NULL, "any text");
static const Field ulimit_value = FIELD_UINT("*", PlanUlimit, value, NULL, 0, INT64_MAX, "soft and hard limit");

static const Field secret_file_fields[] = {
    FIELD_STRING("secret", PlanSecretFile, secret, NULL, 1, 63, FIELD_REQUIRED | FIELD_NO_ECHO, check_name,
                 "the secret of this plan whose value is in it", .pattern = NAME_PATTERN),
    FIELD_STRING("path",   PlanSecretFile, path,   NULL, 1, 4095, FIELD_REQUIRED | FIELD_KEY, check_path,
                 "where the container finds it", .pattern = PATH_PATTERN),
    FIELD_MODE("mode",     PlanSecretFile, mode,   "0400", "its permissions"),
    {0},
};

static const Field health_fields[] = {
    FIELD_STRING("http",           PlanHealth, http,              NULL, 1, 1024, 0, check_health,
                 "what must answer with a status of 200 to 399; {container} is the container's address. "
                 "Without it the image's own HEALTHCHECK counts, and without that being up for \"stable\"",
                 .pattern = HEALTH_PATTERN),
    FIELD_DURATION("interval",     PlanHealth, interval_usec,     "5s", 500 * MSEC, HOUR, "pause between two questions"),
    FIELD_DURATION("timeout",      PlanHealth, timeout_usec,      "2s", 100 * MSEC, 10 * MINUTE, "longest wait for an answer"),
    FIELD_UINT("retries",          PlanHealth, retries,           "3", 1, 100, "failures in a row that make it unhealthy"),
    FIELD_DURATION("start_period", PlanHealth, start_period_usec, "2m", 0, DAY, "for how long after the start failures do not count"),
    FIELD_DURATION("stable",       PlanHealth, stable_usec,       "20s", SECOND, DAY,
                   "for how long it must run without a restart when nothing can be asked"),
    {0},
};

static const Field update_fields[] = {
    FIELD_ENUM("policy",     PlanUpdate, policy,      "auto", plan_policy_names,
               "whether a new image behind the tag is rolled out, or waits for \"agentctl apply\""),
    FIELD_DURATION("check",  PlanUpdate, check_usec,  "1m", 10 * SECOND, DAY, "how often to ask the registry what the tag points to"),
    FIELD_ENUM("switch",     PlanUpdate, order,       NULL, plan_switch_names,
               "which yields first; default stop-first where ports are published, else start-first"),
    FIELD_ENUM("on_failure", PlanUpdate, on_failure,  "rollback", plan_cure_names,
               "what happens when the new one proves bad: the old one again, or it is left as it is"),
    FIELD_DURATION("settle", PlanUpdate, settle_usec, "10m", 0, DAY, "for how long a crash loop after the switch still rolls back"),
    {0},
};

const Field plan_container_fields[] = {
    FIELD_STRING("name",         PlanContainer, name,         NULL, 1, 63, FIELD_REQUIRED | FIELD_KEY, check_container_name,
                 "how the container is called", .pattern = CONTAINER_PATTERN),
    FIELD_ENUM("mode",           PlanContainer, mode,         "service", plan_mode_names,
               "a service that always runs, or a job that runs to its end once a release"),
    FIELD_STRING("image",        PlanContainer, image,        NULL, 1, 512, FIELD_REQUIRED, check_image,
                 "the image with its tag; the digest behind the tag is what runs", .pattern = IMAGE_PATTERN),
    FIELD_STRV("entrypoint",     PlanContainer, entrypoint,   256, NULL, "instead of the image's own; empty: the image's own"),
    FIELD_STRV("command",        PlanContainer, command,      256, NULL, "instead of the image's own; empty: the image's own"),
    FIELD_STRING("user",         PlanContainer, user,         NULL, 1, 128, 0, check_user,
                 "who it runs as, \"USER\" or \"USER:GROUP\", names or numbers; its secret files are its own only with numbers", .pattern = USER_PATTERN),
    FIELD_STRING("workdir",      PlanContainer, workdir,      NULL, 1, 4095, 0, check_workdir,
                 "the directory it starts in", .pattern = WORKDIR_PATTERN),
    FIELD_MAP("env",             PlanContainer, env,          PlanEnv, &env_value, 256, check_env,
              "environment; a secret in it is kept by the engine in its own files on disk", .pattern = ENV_PATTERN),
    FIELD_ARRAY("secret_files",  PlanContainer, secret_files, PlanSecretFile, secret_file_fields, 32, NULL,
                "secrets that it finds as read-only files, which are never on disk"),
    FIELD_STRV("ports",          PlanContainer, ports,        64, check_port,
               "what is published, \"[ADDRESS:]HOSTPORT:PORT[/tcp|/udp]\"", .pattern = PORT_PATTERN),
    FIELD_STRV("volumes",        PlanContainer, volumes,      64, check_volume,
               "what is mounted, \"/HOST/PATH:/PATH[:ro]\" or \"NAME:/PATH[:ro]\"", .pattern = VOLUME_PATTERN),
    FIELD_STRV("tmpfs",          PlanContainer, tmpfs,        32, check_tmpfs,
               "directories in memory, \"/PATH[:SIZE]\"", .pattern = TMPFS_PATTERN),
    FIELD_STRING("network",      PlanContainer, network,      "bridge", 1, 128, 0, check_network,
                 "\"bridge\", \"host\", \"none\", or the name of a network that exists", .pattern = NETWORK_PATTERN),
    FIELD_STRV("extra_hosts",    PlanContainer, extra_hosts,  64, check_extra_host,
               "lines for its /etc/hosts, \"NAME:ADDRESS\"", .pattern = EXTRA_HOST_PATTERN),
    FIELD_MAP("labels",          PlanContainer, labels,       PlanLabel, &label_value, 64, check_label,
              "labels of the container beside our own", .pattern = LABEL_PATTERN),
    FIELD_SIZE("memory",         PlanContainer, memory_bytes, NULL, PLAN_MEMORY_MIN, UINT64_C(1) << 45,
               "how much memory it may use; no limit when absent"),
    FIELD_DOUBLE("cpus",         PlanContainer, cpus,         NULL, 0.01, 1024.0, "how many CPUs it may use; no limit when absent"),
    FIELD_UINT("pids",           PlanContainer, pids,         NULL, 1, 4194304, "how many processes it may have; no limit when absent"),
    FIELD_SIZE("shm_size",       PlanContainer, shm_bytes,    NULL, 65536, UINT64_C(1) << 45,
               "how big its /dev/shm is; the engine's 64MiB when absent"),
    FIELD_MAP("ulimits",         PlanContainer, ulimits,      PlanUlimit, &ulimit_value, 16, check_ulimit,
              "resource limits by name, soft and hard alike", .pattern = ULIMIT_PATTERN),
    FIELD_BOOL("read_only",      PlanContainer, read_only,    "false", "whether its root file system is read-only"),
    FIELD_BOOL("init",           PlanContainer, init,         "false", "whether the engine's init reaps its processes"),
    FIELD_STRV("cap_drop",       PlanContainer, cap_drop,     64, check_cap, "capabilities taken away; \"ALL\" takes all", .pattern = CAP_PATTERN),
    FIELD_STRV("cap_add",        PlanContainer, cap_add,      64, check_cap, "capabilities given", .pattern = CAP_PATTERN),
    FIELD_ENUM("log",            PlanContainer, log,          "journald", plan_log_names, "where its output goes"),
    FIELD_STRING("stop_signal",  PlanContainer, stop_signal,  NULL, 1, 16, 0, check_signal,
                 "the signal that asks it to stop; the image's own when absent", .pattern = SIGNAL_PATTERN),
    FIELD_DURATION("stop_timeout", PlanContainer, stop_timeout_usec, "10s", SECOND, HOUR,
                   "how long it may take to stop before it is killed; a preempted VM has some 18 seconds in all"),
    FIELD_OBJECT("health",       PlanContainer, health,       health_fields, check_health_times, "when it counts as healthy"),
    FIELD_OBJECT("update",       PlanContainer, update,       update_fields, NULL, "how new releases reach it"),
    FIELD_UINT("retries",        PlanContainer, retries,      "0", 0, 100, "how often a job that failed is started again"),
    FIELD_ENUM("on_success",     PlanContainer, on_success,   "nothing", plan_on_success_names,
               "what follows when a job ended well; poweroff stops the VM, and is refused where an instance group would re-create it"),
    {0},
};
/* clang-format on */
