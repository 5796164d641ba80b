/* SPDX-License-Identifier: Apache-2.0 */

/* The rules between parts of the plan. Members may be NULL here that are required: what is missing
 * was reported before. */

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/plan/plan-internal.h"

#define MEMBER_MAX        512
#define KEY_SHOWN_MAX     64

/* Where statusd answers. */
#define STATUS_PORT       9320
#define STATUS_LOCAL_PORT 9321

static bool is_known(const Plan *plan, const char *name)
{
    return plan_secret(plan, name);
}

static const char *nearest_secret(const Plan *plan, const char *name)
{
    const char *names[64];
    size_t n = 0;

    PLAN_FOREACH (PlanSecret, secret, plan->secrets) {
        if (secret->name && n < ELEMENTS(names))
            names[n++] = secret->name;
    }
    return str_nearest(name, names, n);
}

/* `name` is used at `member`, which must be a secret of the plan. What is none is not shown: it may
 * be a value that was pasted for the name, and looks like one (a key of letters and digits). */
static void need_secret(FieldContext *context, const char *name, const char *format, ...)
    printf_like(3, 4);

static void need_secret(FieldContext *context, const char *name, const char *format, ...)
{
    const Plan *plan = field_root(context);
    char member[MEMBER_MAX];
    const char *nearest;
    va_list args;

    if (!name || check_name(name) || is_known(plan, name))
        return;
    va_start(args, format);
    (void)vsnprintf(member, sizeof(member), format, args);
    va_end(args);
    nearest = nearest_secret(plan, name);
    if (nearest)
        field_error(context, member, "names no secret of \"secrets\"; did you mean \"%s\"?",
                    nearest);
    else
        field_error(context, member,
                    "names no secret of \"secrets\": declare it there (what it says is not shown: "
                    "it may be the secret itself)");
}

static void check_system_secrets(FieldContext *context, const PlanSystem *system)
{
    size_t i = 0;

    PLAN_FOREACH (PlanFile, file, system->files)
        need_secret(context, file->secret, "system.files[%zu].secret", i++);
    i = 0;
    PLAN_FOREACH (PlanScript, script, system->scripts) {
        for (size_t j = 0; script->secrets && script->secrets[j]; j++)
            need_secret(context, script->secrets[j], "system.scripts[%zu].secrets[%zu]", i, j);
        i++;
    }
}

/* A key in a path is quoted where it is no plain word, as field_error() reads it. */
static void check_container_secrets(FieldContext *context, const PlanContainer *c, size_t i)
{
    size_t j = 0;

    PLAN_FOREACH (PlanEnv, env, c->env)
        need_secret(context, env->value.secret,
                    strchr(env->name, '.') ? "containers[%zu].env[\"%s\"]"
                                           : "containers[%zu].env.%s",
                    i, env->name);
    PLAN_FOREACH (PlanSecretFile, file, c->secret_files)
        need_secret(context, file->secret, "containers[%zu].secret_files[%zu].secret", i, j++);
}

/* What `crawl` says is crawlerd's to read, but that whatever is called "secret" in it names one
 * (plan_crawl_secrets()). */
static void check_crawl_secrets(FieldContext *context, const json_t *value, const char *path)
{
    const char *key, *name = json_string_value(json_object_get(value, "secret"));
    char member[MEMBER_MAX];
    const json_t *item;
    size_t i;

    need_secret(context, name, "%s.secret", path);
    json_object_foreach ((json_t *)value, key, item) {
        auto_free char *shown = str_escape(key, strlen(key), KEY_SHOWN_MAX);

        (void)snprintf(member, sizeof(member), check_name(key) ? "%s[\"%s\"]" : "%s.%s", path,
                       shown ? shown : "?");
        check_crawl_secrets(context, item, member);
    }
    json_array_foreach (value, i, item) {
        (void)snprintf(member, sizeof(member), "%s[%zu]", path, i);
        check_crawl_secrets(context, item, member);
    }
}

static void check_secrets(FieldContext *context, const Plan *plan)
{
    size_t i = 0;

    check_system_secrets(context, &plan->system);
    PLAN_FOREACH (PlanContainer, c, plan->containers)
        check_container_secrets(context, c, i++);
    i = 0;
    PLAN_FOREACH (PlanNotify, notify, plan->notify)
        need_secret(context, notify->secret, "notify[%zu].secret", i++);
    check_crawl_secrets(context, plan->crawl, "crawl");
}

static bool overlap(const PlanPort *a, const PlanPort *b)
{
    return a->host_port == b->host_port && a->udp == b->udp &&
           (!*a->address || !*b->address || streq(a->address, b->address) ||
            streq(a->address, "0.0.0.0") || streq(b->address, "0.0.0.0"));
}

/* The first one before containers[at].ports[port_at] that wants the same port of the host. */
static bool find_port(const Plan *plan, const PlanPort *port, size_t at, size_t port_at,
                      size_t *ret_container)
{
    const PlanContainer *containers = plan->containers.items;

    for (size_t i = 0; i <= at; i++) {
        for (size_t j = 0; containers[i].ports && containers[i].ports[j]; j++) {
            PlanPort other;

            if (i == at && j == port_at)
                return false;
            if (plan_port_parse(containers[i].ports[j], &other) == 0 && overlap(port, &other)) {
                *ret_container = i;
                return true;
            }
        }
    }
    return false;
}

static void check_port_of(FieldContext *context, const Plan *plan, size_t i, size_t j)
{
    const PlanContainer *containers = plan->containers.items;
    const PlanPort status = {.host_port = STATUS_PORT},
                   local = {.host_port = STATUS_LOCAL_PORT, .address = "127.0.0.1"};
    const char *protocol;
    char member[MEMBER_MAX];
    size_t holder;
    PlanPort port;

    if (plan_port_parse(containers[i].ports[j], &port) < 0)
        return;
    protocol = port.udp ? "udp" : "tcp";
    (void)snprintf(member, sizeof(member), "containers[%zu].ports[%zu]", i, j);
    if (overlap(&port, &status) || overlap(&port, &local))
        field_error(context, member, "port %u of the host is where statusd answers: take another",
                    port.host_port);
    if (find_port(plan, &port, i, j, &holder))
        field_error(context, member, "port %u/%s of the host is taken by container \"%s\"",
                    port.host_port, protocol,
                    containers[holder].name ? containers[holder].name : "?");
}

static void check_ports(FieldContext *context, const Plan *plan)
{
    const PlanContainer *containers = plan->containers.items;

    for (size_t i = 0; i < plan->containers.n; i++) {
        for (size_t j = 0; containers[i].ports && containers[i].ports[j]; j++)
            check_port_of(context, plan, i, j);
    }
}

static bool is_under(const char *path, const char *dir)
{
    const char *rest = startswith(path, dir);

    return rest && *rest == '/';
}

/* The file of the plan that would have to be a directory for this one, or NULL. */
static const char *file_above(const PlanSystem *system, const char *path)
{
    PLAN_FOREACH (PlanFile, other, system->files) {
        if (other->path && is_under(path, other->path))
            return other->path;
    }
    return system->swap && system->swap->path && is_under(path, system->swap->path)
               ? system->swap->path
               : NULL;
}

/* A file that is the swap file would be written over, and one that says the time zone would be
 * written by both, by turns; nothing can be in a file. */
static void check_files(FieldContext *context, const PlanSystem *system)
{
    char member[MEMBER_MAX];
    size_t i = 0;

    PLAN_FOREACH (PlanFile, file, system->files) {
        const char *above = file->path ? file_above(system, file->path) : NULL;

        (void)snprintf(member, sizeof(member), "system.files[%zu].path", i++);
        if (above)
            field_error(context, member, "%s is a file of this plan, and no directory", above);
        if (system->swap && system->swap->path && file->path &&
            streq(system->swap->path, file->path))
            field_error(context, member, "this is the swap file");
        if (system->timezone && file->path &&
            (streq(file->path, "/etc/localtime") || streq(file->path, "/etc/timezone")))
            field_error(context, member, "\"timezone\" looks after this file: give one of the two");
    }
}

void plan_check_whole(FieldContext *context, void *object)
{
    const Plan *plan = object;

    check_secrets(context, plan);
    check_ports(context, plan);
    check_files(context, &plan->system);
}

int plan_check_identity(const Plan *plan, bool is_replaced, FieldErrors *ret_errors)
{
    auto_field_errors FieldErrors errors = {0};
    size_t i = 0;
    int r;

    assert(plan && ret_errors);

    PLAN_FOREACH (PlanContainer, c, plan->containers) {
        char path[MEMBER_MAX];

        (void)snprintf(path, sizeof(path), "containers[%zu].on_success", i++);
        if (!is_replaced || c->mode != PLAN_MODE_JOB || c->on_success != PLAN_ON_SUCCESS_POWEROFF)
            continue;
        r = field_errors_add(&errors, path, 0, 0,
                             "\"poweroff\" cannot be here: this VM belongs to an instance group, "
                             "which would start it again and the job with it; set the group's size "
                             "to 0 afterwards, or run the job on a VM of its own");
        if (r < 0)
            return r;
    }
    if (errors.n == 0)
        return 0;
    *ret_errors = errors;
    errors = (FieldErrors){0};
    return -EINVAL;
}
