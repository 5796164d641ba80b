/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/engine-fixture.h"

#include "agent/engine/health.h"

/* ---- Health --------------------------------------------------------------------------------- */

/* A container whose life the test tells. */
typedef struct Life {
    const char *inspect; /* what the engine says of it */
    int http_status;
    const char *logs;
    unsigned n_inspects, n_asked;
    unsigned well_after; /* looks by http until it answers */
} Life;

static void engine_of_life(HttpServer *server, const Request *request, Reply *reply, void *userdata)
{
    Life *life = userdata;

    if (streq(request->target, "/_ping")) {
        reply->headers = "Api-Version: 1.41\r\n";
        reply->body = "OK";
    } else if (strstr(request->target, "/logs")) {
        reply->body = life->logs;
    } else {
        life->n_inspects++;
        reply->body = life->inspect;
        reply->status = life->inspect ? 200 : 404;
    }
}

static void app_of_life(HttpServer *server, const Request *request, Reply *reply, void *userdata)
{
    Life *life = userdata;

    reply->status = ++life->n_asked > life->well_after ? life->http_status : 503;
    reply->body = "hello";
}

typedef struct Verdict {
    bool done, healthy;
    char *reason;
    int exit_code;
    HealthProbe *probe;
} Verdict;

static void verdict_done(Verdict *verdict)
{
    (void)health_probe_free(verdict->probe);
    free(verdict->reason);
}

#define auto_verdict auto_(verdict_done)

static void on_verdict(HealthProbe *probe, const HealthVerdict *verdict, void *userdata)
{
    Verdict *mine = userdata;

    assert_false(mine->done);
    mine->done = true;
    mine->healthy = verdict->healthy;
    mine->reason = strdup(verdict->reason);
    mine->exit_code = verdict->exit_code;
    mine->probe = health_probe_free(mine->probe);
}

static void start_probe(Machine *m, Life *life, const HealthSpec *spec, Verdict *verdict)
{
    auto_error Error err = {0};

    http_server_handle(m->f.server, engine_of_life, life);
    http_server_handle(m->f.other, app_of_life, life);
    assert_ok(health_probe_start(m->engine, m->f.client, m->f.event, spec, on_verdict, verdict,
                                 &verdict->probe, &err),
              &err);
    assert_false(verdict->done);
}

static void judge(Machine *m, Life *life, const HealthSpec *spec, Verdict *verdict)
{
    start_probe(m, life, spec, verdict);
    loop_run_until(m->f.event, &verdict->done, 20 * SECOND);
}

static char *container_url(Machine *m)
{
    return str_printf("http://{container}:%u/ready", http_server_port(m->f.other));
}

static void health_by_http_waits_for_a_yes(void **state)
{
    static const int statuses[] = {200, 204, 302};
    Machine *m = *state;
    auto_free char *url = container_url(m);

    for (size_t i = 0; i < ELEMENTS(statuses); i++) {
        Life life = {.inspect = CONTAINER, .http_status = statuses[i], .well_after = 3};
        auto_verdict Verdict verdict = {0};
        const HealthSpec spec = {
            .kind = HEALTH_HTTP, .container = "web", .url = url, .interval_usec = 10 * SECOND};

        judge(m, &life, &spec, &verdict);
        assert_true(verdict.healthy);
        assert_contains(verdict.reason, "http://127.0.0.1:");
        assert_int_equal(life.n_asked,
                         4); /* sooner than the interval, without counting against it */
    }
}

static void health_by_http_gives_up_after_its_retries(void **state)
{
    Machine *m = *state;
    auto_free char *url = container_url(m);
    Life life = {.inspect = CONTAINER, .http_status = 500};
    auto_verdict Verdict verdict = {0};
    const HealthSpec spec = {.kind = HEALTH_HTTP,
                             .container = "web",
                             .url = url,
                             .interval_usec = 100 * MSEC,
                             .retries = 2};

    judge(m, &life, &spec, &verdict);
    assert_false(verdict.healthy);
    assert_contains(verdict.reason, "/ready answered HTTP 500 (2 times)");
    assert_int_equal(verdict.exit_code, -1);
}

static void failures_in_the_start_period_do_not_count(void **state)
{
    Machine *m = *state;
    auto_free char *url = container_url(m);
    Life life = {.inspect = CONTAINER, .http_status = 200, .well_after = 6};
    auto_verdict Verdict verdict = {0};
    const HealthSpec spec = {.kind = HEALTH_HTTP,
                             .container = "web",
                             .url = url,
                             .interval_usec = 20 * MSEC,
                             .start_period_usec = 10 * SECOND,
                             .retries = 1};

    judge(m, &life, &spec, &verdict);
    assert_true(verdict.healthy);
}

static void a_limit_ends_what_never_becomes_well(void **state)
{
    Machine *m = *state;
    auto_free char *url = container_url(m);
    Life life = {.inspect = CONTAINER, .http_status = 404};
    auto_verdict Verdict verdict = {0};
    const HealthSpec spec = {.kind = HEALTH_HTTP,
                             .container = "web",
                             .url = url,
                             .interval_usec = 20 * MSEC,
                             .start_period_usec = HOUR,
                             .limit_usec = 300 * MSEC};

    judge(m, &life, &spec, &verdict);
    assert_false(verdict.healthy);
    assert_contains(verdict.reason, "not well within");
    assert_contains(verdict.reason, "HTTP 404");
}

#define HEALTH_IS(status)                                                                          \
    "{\"Id\":\"c1\",\"Name\":\"/web\",\"State\":{\"Status\":\"running\",\"Health\":{\"Status\":"   \
    "\"" status "\",\"Log\":[{\"Output\":\"first\"},{\"Output\":\"refused\\n\"}]}}}"

static void health_by_the_engine_follows_its_verdict(void **state)
{
    Machine *m = *state;
    Life life = {.inspect = HEALTH_IS("starting")};
    auto_verdict Verdict well = {0};
    auto_verdict Verdict ill = {0};
    const HealthSpec spec = {.kind = HEALTH_ENGINE, .container = "web", .interval_usec = HOUR};

    start_probe(m, &life, &spec, &well);
    loop_run_for(m->f.event, 300 * MSEC);
    assert_false(well.done);
    assert_contains(health_probe_progress(well.probe), "has not passed yet: refused");
    life.inspect = HEALTH_IS("healthy");
    health_probe_look(well.probe); /* an event came */
    loop_run_until(m->f.event, &well.done, 2 * SECOND);
    assert_true(well.healthy);

    life.inspect = HEALTH_IS("unhealthy");
    judge(m, &life, &spec, &ill);
    assert_false(ill.healthy);
    assert_contains(ill.reason, "its HEALTHCHECK fails: refused");
}

static void stability_takes_its_time(void **state)
{
    Machine *m = *state;
    Life life = {.inspect = CONTAINER};
    auto_verdict Verdict verdict = {0};
    const HealthSpec spec = {.container = "web", .stable_usec = 400 * MSEC};
    uint64_t begun = now_boottime_usec();

    judge(m, &life, &spec, &verdict);
    assert_true(verdict.healthy);
    assert_true(now_boottime_usec() - begun >= 400 * MSEC);
}

static void whoever_dies_while_being_proved_is_not_well(void **state)
{
    static const struct {
        const char *inspect, *logs, *reason;
        int exit_code;
    } cases[] = {
        {"{\"Id\":\"c1\",\"Name\":\"/web\",\"State\":{\"Status\":\"exited\",\"ExitCode\":3}}",
         "boot\nno database\n\n", "it exited with status 3; its last words: no database", 3},
        {"{\"Id\":\"c1\",\"Name\":\"/web\",\"State\":{\"Status\":\"exited\",\"ExitCode\":137,"
         "\"OOMKilled\":true},\"HostConfig\":{\"Memory\":67108864}}",
         "", "memory limit of 64", 137},
        {"{\"Id\":\"c1\",\"Name\":\"/web\",\"State\":{\"Status\":\"exited\",\"ExitCode\":1}}",
         "exec /app: exec format error\n", "built for another processor", 1},
        {"{\"Id\":\"c1\",\"Name\":\"/web\",\"RestartCount\":2,\"State\":{\"Status\":\"restarting\","
         "\"Restarting\":true,\"ExitCode\":4}}",
         "", "it exited with status 4", 4},
        {NULL, "", "the container is gone", -1},
    };
    Machine *m = *state;

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        Life life = {.inspect = cases[i].inspect, .logs = cases[i].logs};
        auto_verdict Verdict verdict = {0};
        const HealthSpec spec = {.container = "web"};

        judge(m, &life, &spec, &verdict);
        assert_false(verdict.healthy);
        assert_contains(verdict.reason, cases[i].reason);
        assert_int_equal(verdict.exit_code, cases[i].exit_code);
    }
}

/* One look sees it run, before and after: the count tells. */
static void a_restart_between_two_looks_is_seen(void **state)
{
    Machine *m = *state;
    Life life = {.inspect = CONTAINER, .logs = "died\n"};
    auto_verdict Verdict verdict = {0};
    const HealthSpec spec = {.container = "web", .stable_usec = HOUR, .interval_usec = HOUR};

    start_probe(m, &life, &spec, &verdict);
    loop_run_for(m->f.event, 100 * MSEC);
    assert_int_equal(life.n_inspects, 1);
    life.inspect = "{\"Id\":\"c1\",\"Name\":\"/web\",\"RestartCount\":1,\"State\":{\"Status\":"
                   "\"running\",\"StartedAt\":\"2024-01-01T00:00:09Z\"}}";
    health_probe_look(verdict.probe);
    loop_run_until(m->f.event, &verdict.done, 2 * SECOND);
    assert_false(verdict.healthy);
    assert_contains(verdict.reason, "started it again (1 times by now); its last words: died");
}

TEST_MAIN(MACHINE_TEST(health_by_http_waits_for_a_yes),
          MACHINE_TEST(health_by_http_gives_up_after_its_retries),
          MACHINE_TEST(failures_in_the_start_period_do_not_count),
          MACHINE_TEST(a_limit_ends_what_never_becomes_well),
          MACHINE_TEST(health_by_the_engine_follows_its_verdict),
          MACHINE_TEST(stability_takes_its_time),
          MACHINE_TEST(whoever_dies_while_being_proved_is_not_well),
          MACHINE_TEST(a_restart_between_two_looks_is_seen))
