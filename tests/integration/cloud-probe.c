/* SPDX-License-Identifier: Apache-2.0 */

/* agent/cloud against a metadata server and its APIs, by hand and from tests: one call a command
 * line, what comes of it as lines of JSON. Values of secrets are shown: it is for doubles.
 *
 *   cloud-probe [HOST=BASE-URL]... VERB [OPERAND]...
 *
 *   read, watch SECONDS, token, renew TOKEN, secret NAME [VERSION], resolve NAME [VERSION],
 *   login HOST, publish KEY TEXT SECONDS */

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/cloud/cloud.h"
#include "agent/io/http.h"
#include "agent/io/loop.h"

typedef struct Probe {
    sd_event *event;
    HttpClient *http;
    Cloud *cloud;
    CloudOp *op;
    Timer *timer;
} Probe;

static void print(json_t *line)
{
    auto_free char *text = json_dumps(line, JSON_COMPACT);

    puts(text ? text : "{}");
    (void)fflush(stdout);
    json_decref(line);
}

static json_t *error_json(const Error *err)
{
    return json_pack("{s:b, s:i, s:s, s:s, s:s}", "ok", 0, "code", err->code, "kind",
                     error_kind_name(err->kind), "message", error_text(err), "remedy",
                     err->remedy ? err->remedy : "");
}

static void finish(Probe *probe, json_t *line, const Error *err)
{
    if (err)
        line = error_json(err);
    else
        (void)json_object_set_new(line, "ok", json_true());
    print(line);
    (void)sd_event_exit(probe->event, err ? 1 : 0);
}

static json_t *snapshot_json(const CloudSnapshot *snapshot, unsigned changes)
{
    const CloudIdentity *identity = snapshot->identity;
    json_t *line = json_pack(
        "{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:s, s:s, s:b, s:i}", "changes",
        (int)changes, "cloud", identity->cloud, "id", identity->instance_id, "name", identity->name,
        "project", identity->project, "number", identity->project_number, "zone", identity->zone,
        "account", identity->service_account, "role", identity->role, "spot", identity->spot,
        "publishes", identity->publishes, "where", snapshot->plan_where, "hash",
        snapshot->plan_sha256, "preempted", snapshot->preempted, "maintenance",
        (int)snapshot->maintenance);

    (void)json_object_set_new(line, "plan",
                              snapshot->plan ? json_stringn(snapshot->plan, snapshot->plan_size)
                                             : json_null());
    return line;
}

static void on_changed(const CloudSnapshot *snapshot, unsigned changes, void *userdata)
{
    print(snapshot_json(snapshot, changes));
}

static void on_trouble(const Error *err, uint64_t failing_usec, void *userdata)
{
    json_t *line = err ? error_json(err) : json_pack("{s:b}", "ok", 1);

    (void)json_object_set_new(line, "failing_seconds",
                              json_integer((json_int_t)(failing_usec / SECOND)));
    print(line);
}

static void on_read(const CloudSnapshot *snapshot, const Error *err, void *userdata)
{
    finish(userdata, err ? NULL : snapshot_json(snapshot, CLOUD_CHANGED_ALL), err);
}

static void on_token(const char *token, const Error *err, void *userdata)
{
    finish(userdata, err ? NULL : json_pack("{s:s}", "token", token), err);
}

static void on_secret(CloudSecret *secret, const Error *err, void *userdata)
{
    json_t *line = NULL;

    if (!err) {
        line = json_pack("{s:s, s:s}", "version", secret->version, "resource", secret->resource);
        if (secret->bytes)
            (void)json_object_set_new(line, "value",
                                      json_stringn(secret->bytes->data, secret->bytes->size));
    }
    finish(userdata, line, err);
}

static void on_login(const char *user, const char *password, const Error *err, void *userdata)
{
    finish(userdata, err ? NULL : json_pack("{s:s?, s:s?}", "user", user, "password", password),
           err);
}

static void on_time(void *userdata)
{
    Probe *probe = userdata;

    (void)sd_event_exit(probe->event, 0);
}

static void stay(Probe *probe, const char *seconds)
{
    uint64_t n = 1;

    if (seconds)
        (void)!parse_u64(seconds, &n);
    if (timer_new(probe->event, on_time, probe, &probe->timer) >= 0)
        (void)timer_set(probe->timer, n * SECOND, 0);
}

static int run_verb(Probe *probe, char **operands, Error *err)
{
    static const CloudWatchHandlers handlers = {on_changed, on_trouble};
    const char *verb = operands[0], *first = verb ? operands[1] : NULL;
    const char *second = first ? operands[2] : NULL;
    Cloud *cloud = probe->cloud;

    if (!verb)
        return error_set(err, -EINVAL, ERROR_INVALID, "no verb");
    if (streq(verb, "read"))
        return cloud_read(cloud, on_read, probe, &probe->op, err);
    if (streq(verb, "token"))
        return cloud_token_get(cloud, on_token, probe, &probe->op, err);
    if (streq(verb, "watch")) {
        stay(probe, first);
        return cloud_watch(cloud, &handlers, probe, &probe->op, err);
    }
    if (streq(verb, "secret") && first)
        return cloud_secret_fetch(cloud, first, second, on_secret, probe, &probe->op, err);
    if (streq(verb, "resolve") && first)
        return cloud_secret_resolve(cloud, first, second, on_secret, probe, &probe->op, err);
    if (streq(verb, "login") && first)
        return cloud_login_get(cloud, first, on_login, probe, &probe->op, err);
    if (streq(verb, "publish") && second) {
        cloud_publish(cloud, first, second);
        stay(probe, operands[3]);
        return 0;
    }
    return error_set(err, -EINVAL, ERROR_INVALID, "unknown verb, or no operand: %s", verb);
}

static int probe_open(Probe *probe, char **arguments, char ***ret_operands, Error *err)
{
    HttpEndpoint endpoints[8];
    size_t n = 0;
    int r;

    r = loop_new(&probe->event, err);
    if (r < 0)
        return r;
    r = http_client_new(probe->event, "mervis-cloud-probe/1", &probe->http, err);
    if (r < 0)
        return r;
    for (; *arguments && strchr(*arguments, '=') && n < ELEMENTS(endpoints); arguments++) {
        char *equals = strchr(*arguments, '=');

        *equals = '\0';
        endpoints[n++] = (HttpEndpoint){*arguments, equals + 1};
    }
    r = http_client_set_endpoints(probe->http, endpoints, n, err);
    if (r < 0)
        return r;

    const CloudConfig config = {probe->event, probe->http, NULL};
    *ret_operands = arguments;
    return cloud_new(&config, &probe->cloud, err);
}

int main(int argc, char **argv)
{
    auto_error Error error = {0};
    char **operands = argv + 1;
    Probe probe = {0};
    int r;

    r = probe_open(&probe, operands, &operands, &error);
    if (r >= 0)
        r = run_verb(&probe, operands, &error);
    if (r >= 0)
        r = sd_event_loop(probe.event);
    else
        print(error_json(&error));

    cloud_op_free(probe.op);
    cloud_free(probe.cloud);
    http_client_free(probe.http);
    timer_free(probe.timer);
    sd_event_unref(probe.event);
    return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
