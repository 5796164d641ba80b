/* SPDX-License-Identifier: Apache-2.0 */

/* agentctl doctor: which peers answer, and by which way. The cloud's APIs are reached without NAT,
 * and market hosts are not: what the two answer together tells where the fault is. */

#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/agentctl/doctor-internal.h"
#include "agent/base/str.h"
#include "agent/io/daemon.h"
#include "agent/io/json.h"

#define CLOCK_TOLERANCE_SEC 60
#define RECIPE_MAX          (1U << 20)
#define ROBOTS_MAX          (1U << 20)
#define RECIPE_TIMEOUT_USEC (5 * SECOND)
#define NAMES_MAX           32

static int get(Doctor *doctor, const char *url, HttpHandler handler, void *userdata, HttpOp **ret,
               Error *err)
{
    const HttpRequest request = {.url = url,
                                 .connect_timeout_usec = DOCTOR_CONNECT_USEC,
                                 .try_timeout_usec = DOCTOR_ANSWER_USEC,
                                 .max_body = ROBOTS_MAX,
                                 .fresh_connection = true};

    return http_start(doctor->http, &request, handler, userdata, ret, err);
}

/* ---- The cloud's APIs, and the clock by their answer ---- */

/* "Tue, 07 Oct 2026 06:30:00 GMT" */
static time_t date_of(const HttpResponse *response)
{
    const char *text = http_response_header(response, "Date"), *end;
    struct tm when = {0};

    end = text ? strptime(text, "%a, %d %b %Y %H:%M:%S", &when) : NULL;
    return end ? timegm(&when) : (time_t)-1;
}

static void judge_clock(Doctor *doctor, const HttpResponse *response)
{
    time_t theirs = date_of(response);
    int64_t off_sec = (int64_t)(now_realtime_usec() / SECOND) - (int64_t)theirs;
    Probe *probe = probe_new(doctor, "clock");

    if (!probe)
        return;
    if (theirs == (time_t)-1)
        probe_skip(probe, "the answer has no Date");
    else if (off_sec > CLOCK_TOLERANCE_SEC || off_sec < -CLOCK_TOLERANCE_SEC)
        probe_wrong(probe, "sudo chronyc makestep || sudo systemctl restart systemd-timesyncd",
                    "the clock is %lld s %s", (long long)(off_sec < 0 ? -off_sec : off_sec),
                    off_sec < 0 ? "behind" : "ahead");
    else
        probe_ok(probe, "right to %lld s", (long long)(off_sec < 0 ? -off_sec : off_sec));
}

static void say_silent(Probe *probe, const Error *err)
{
    Doctor *doctor = probe->doctor;
    const CloudApis *apis = cloud_apis(doctor->cloud);
    auto_free char *remedy = cloud_cure(doctor->cloud, CLOUD_TROUBLE_NO_APIS);

    probe_wrong(probe, remedy,
                "%s do not answer (%s): the subnet lacks %s, or DNS or a firewall is in the way",
                apis->name, error_text(err), apis->access);
}

/* The line is there, whatever became of what it reads. */
static void skip_clock(Doctor *doctor, const char *why)
{
    Probe *probe = probe_new(doctor, "clock");

    if (probe)
        probe_skip(probe, why);
}

static void on_apis(HttpOp *op, const HttpResponse *response, const Error *err, void *userdata)
{
    Probe *probe = userdata;

    if (err) {
        say_silent(probe, err);
        skip_clock(probe->doctor, "not looked at: there is no answer with a date");
        return;
    }
    probe->doctor->apis_answer = true;
    judge_clock(probe->doctor, response);
    probe_ok(probe, "%s answer from %s", cloud_apis(probe->doctor->cloud)->name,
             response->peer_address);
}

void check_apis(Doctor *doctor)
{
    const CloudApis *apis = cloud_apis(doctor->cloud);
    Probe *probe = probe_new(doctor, "cloud-apis");
    auto_free char *url = NULL;
    auto_error Error err = {0};

    if (!probe)
        return;
    if (!apis) {
        probe_skip(probe, "this machine is no cloud VM");
        skip_clock(doctor, "not looked at: this machine is no cloud VM");
        return;
    }
    url = str_printf("https://%s/", apis->secrets_host);
    probe_began(probe,
                url ? get(doctor, url, on_apis, probe, &probe->http_op, &err) : error_oom(&err),
                &err);
}

/* ---- The hosts of the plan's recipes ---- */

static int add_host(Doctor *doctor, const char *host)
{
    for (size_t i = 0; i < doctor->n_hosts; i++)
        if (streq(doctor->hosts[i], host))
            return 0;
    if (doctor->n_hosts == CRAWLER_HOSTS_MAX)
        return 0;
    doctor->hosts[doctor->n_hosts] = strdup(host);
    return doctor->hosts[doctor->n_hosts] ? (doctor->n_hosts++, 0) : -ENOMEM;
}

static void on_recipe(int status, bool timed_out, const Buf *output, void *userdata)
{
    Probe *probe = userdata;
    /* Its standard error is here, too: which file it is. */
    const char *begin = strchr(buf_str(output), '{');
    json_auto_t *recipe = NULL;
    const json_t *hosts, *host;
    size_t i;

    if (timed_out || !WIFEXITED(status) || WEXITSTATUS(status) != 0 || !begin ||
        json_parse_quiet(begin, strlen(begin), &recipe) <= 0) {
        probe_wrong(probe, "agentctl recipe list", "crawlerd cannot show recipe %s%s",
                    probe->subject, timed_out ? " in time" : "");
        return;
    }
    hosts = json_object_get(recipe, "hosts");
    json_array_foreach (hosts, i, host)
        if (json_is_string(host) && add_host(probe->doctor, json_string_value(host)) < 0)
            probe->doctor->memory_is_out = true;
    probe_ok(probe, "asks %zu host%s", json_array_size(hosts),
             json_array_size(hosts) == 1 ? "" : "s");
}

static void show_recipe(Doctor *doctor, const char *crawlerd, const char *name)
{
    const char *const argv[] = {crawlerd, "recipe", "show", name, NULL};
    const ChildSpec spec = {
        .argv = argv, .timeout_usec = RECIPE_TIMEOUT_USEC, .max_output = RECIPE_MAX};
    Probe *probe = probe_new(doctor, "recipe.%s", name);
    auto_error Error err = {0};

    if (!probe)
        return;
    if (str_set(&probe->subject, name) < 0)
        doctor->memory_is_out = true;
    probe_began(probe, child_spawn(doctor->event, &spec, on_recipe, probe, &probe->child, &err),
                &err);
}

void find_hosts(Doctor *doctor)
{
    const json_t *jobs = doctor->plan ? json_object_get(doctor->plan->crawl, "jobs") : NULL;
    auto_free char *crawlerd = daemon_sibling("crawlerd");
    auto_(strv_freep) char **seen = NULL;
    const json_t *job;
    size_t i;

    if (!crawlerd) {
        doctor->memory_is_out = true;
        return;
    }
    json_array_foreach (jobs, i, job) {
        const char *name = json_str(job, "recipe");

        if (!name || strv_contains(seen, name))
            continue;
        if (strv_push(&seen, name) < 0)
            doctor->memory_is_out = true;
        show_recipe(doctor, crawlerd, name);
    }
}

/* ---- DNS ---- */

static void on_resolved(int status, bool timed_out, const Buf *output, void *userdata)
{
    Probe *probe = userdata;
    auto_free char *remedy =
        str_printf("resolvectl query %s; cat /etc/resolv.conf", probe->subject);

    if (timed_out)
        probe_wrong(probe, remedy, "%s: the name server does not answer", probe->subject);
    else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        probe_wrong(probe, remedy, "%s does not resolve", probe->subject);
    else
        probe_ok(probe, "%.*s", (int)strcspn(buf_str(output), " \n"), buf_str(output));
}

/* What the plan maps elsewhere is never looked up. */
static bool is_mapped(const Doctor *doctor, const char *host)
{
    if (doctor->plan)
        PLAN_FOREACH (PlanEndpoint, endpoint, doctor->plan->endpoints)
            if (streq(endpoint->host, host))
                return true;
    return host_is_loopback(host);
}

/* getent asks as every program here does (hosts file, search list), in a process that can be ended:
 * getaddrinfo() cannot. */
static void resolve(Doctor *doctor, const char *host)
{
    const char *const argv[] = {"getent", "ahosts", host, NULL};
    const ChildSpec spec = {
        .argv = argv, .timeout_usec = DOCTOR_CONNECT_USEC, .max_output = RECIPE_MAX};
    auto_error Error err = {0};
    Probe *probe;

    if (is_mapped(doctor, host))
        return;
    LIST_FOREACH (probes, other, doctor->probes)
        if (startswith(other->id, "dns.") && streq(other->id + strlen("dns."), host))
            return;
    probe = probe_new(doctor, "dns.%s", host);
    if (!probe)
        return;
    if (str_set(&probe->subject, host) < 0)
        doctor->memory_is_out = true;
    probe_began(probe, child_spawn(doctor->event, &spec, on_resolved, probe, &probe->child, &err),
                &err);
}

void check_dns(Doctor *doctor)
{
    const CloudApis *apis = cloud_apis(doctor->cloud);
    const char *sink = bigquery_host(doctor);
    const Plan *plan = doctor->plan;

    if (!plan)
        return;
    if (apis && plan->secrets.n > 0)
        resolve(doctor, apis->secrets_host);
    if (sink)
        resolve(doctor, sink);
    PLAN_FOREACH (PlanContainer, container, plan->containers) {
        auto_(reference_freep) Reference *reference = NULL;
        auto_free char *host = NULL;

        if (reference_parse(container->image, &reference, NULL) < 0)
            continue;
        host = strndup(reference_api_host(reference), strcspn(reference_api_host(reference), ":"));
        if (host)
            resolve(doctor, host);
    }
    for (size_t i = 0; i < doctor->n_hosts; i++)
        resolve(doctor, doctor->hosts[i]);
}

/* ---- The way out ---- */

static void say_egress(Doctor *doctor)
{
    auto_buf Buf silent = BUF_INIT(4096);
    const CloudApis *apis = cloud_apis(doctor->cloud);
    auto_free char *remedy = cloud_cure(doctor->cloud, CLOUD_TROUBLE_NO_EGRESS);
    size_t n_silent = 0;

    for (size_t i = 0; i < doctor->n_hosts; i++) {
        if (doctor->tries[i].answered)
            continue;
        if (buf_printf(&silent, "%s%s", n_silent > 0 ? ", " : "", doctor->hosts[i]) < 0)
            doctor->memory_is_out = true;
        n_silent++;
    }
    if (n_silent == 0)
        probe_ok(doctor->egress, "all %zu market hosts answer", doctor->n_hosts);
    else if (n_silent < doctor->n_hosts)
        probe_ok(doctor->egress, "market hosts answer; but not %s: the fault is theirs",
                 buf_str(&silent));
    else if (doctor->apis_answer)
        probe_wrong(doctor->egress, remedy,
                    "no market host answers (%s) while %s do: %s is missing, or has no port left "
                    "for this VM",
                    buf_str(&silent), apis->name, apis->egress);
    else
        probe_wrong(doctor->egress, "ip route; cat /etc/resolv.conf", "no market host answers: %s",
                    buf_str(&silent));
}

static void on_host(HttpOp *op, const HttpResponse *response, const Error *err, void *userdata)
{
    HostTry *try = userdata;
    Doctor *doctor = try->doctor;

    /* More than we care to read is an answer, too. */
    try->answered = !err || err->kind == ERROR_CORRUPT;
    doctor->tries_left--;
    if (doctor->tries_left == 0)
        say_egress(doctor);
}

void check_egress(Doctor *doctor)
{
    doctor->egress = probe_new(doctor, "egress");
    if (!doctor->egress)
        return;
    if (doctor->n_hosts == 0) {
        probe_skip(doctor->egress, "not needed: the plan names no market host");
        return;
    }
    doctor->tries_left = 1; /* held while they begin */
    for (size_t i = 0; i < doctor->n_hosts; i++) {
        HostTry *try = doctor->tries + i;
        auto_free char *url = str_printf("https://%s/robots.txt", doctor->hosts[i]);

        try->doctor = doctor;
        if (url && get(doctor, url, on_host, try, &try->op, NULL) >= 0)
            doctor->tries_left++;
    }
    doctor->tries_left--;
    if (doctor->tries_left == 0)
        say_egress(doctor);
}
