/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/bus-fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "agent/base/buf.h"
#include "agent/base/parse.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/statusd/metrics.h"
#include "agent/statusd/statusd.h"

/* ---- A bus, a pretended agentd, and statusd, each in a process of its own ---- */

typedef struct Fixture {
    TestBus bus;
    pid_t agent, statusd;
    uint16_t port, local_port;
} Fixture;

static Fixture fixture;

/* How the pretended agentd answers. */
typedef enum Mood { READY, NOT_READY, SILENT, FAILING } Mood;

static const char ready_text[] = "{\"kind\":\"agent\",\"state\":\"well\",\"ready\":true,"
                                 "\"ready_reason\":null,\"plan\":{\"generation\":7}}";
static const char not_ready_text[] = "{\"kind\":\"agent\",\"state\":\"well\",\"ready\":false,"
                                     "\"ready_reason\":\"container mervis: proving\"}";

static int on_describe(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    const Mood *mood = userdata;

    switch (*mood) {
    case READY:
        return sd_bus_reply_method_return(m, "s", ready_text);
    case NOT_READY:
        return sd_bus_reply_method_return(m, "s", not_ready_text);
    case SILENT:
        (void)sd_bus_message_ref(m);
        return 1;
    case FAILING:
        return sd_bus_error_set(error, "io.mervis.Error.Internal", "state.db: no space");
    }
    return -EINVAL;
}

static const sd_bus_vtable vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD("Describe", "", "s", on_describe, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_VTABLE_END,
};

static bool agent_has_its_name(void *userdata)
{
    auto_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
    auto_(sd_bus_creds_unrefp) sd_bus_creds *creds = NULL;

    return bus_open(NULL, &bus, NULL) >= 0 &&
           sd_bus_get_name_creds(bus, BUS_AGENT_NAME, SD_BUS_CREDS_UNIQUE_NAME, &creds) >= 0;
}

static void start_agent(Mood mood)
{
    fixture.agent = fork();
    assert_true(fixture.agent >= 0);
    if (fixture.agent == 0) {
        sd_event *event = NULL;
        sd_bus *bus = NULL;

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (sd_event_new(&event) < 0 || bus_open(event, &bus, NULL) < 0 ||
            bus_serve(bus, BUS_AGENT_NAME, BUS_AGENT_PATH, BUS_AGENT_INTERFACE, vtable, &mood,
                      NULL) < 0)
            _exit(99);
        _exit(sd_event_loop(event));
    }
    assert_true(wait_for(agent_has_its_name, NULL));
}

/* Small limits, so that tests of them take seconds; the deadline leaves the bus its 1.5 s. */
static const ServerLimits limits = {
    .deadline_usec = 2 * SECOND, .connections = 16, .per_address = 4};

static uint16_t listening(int *ret_fd)
{
    char text[LISTEN_TEXT_MAX];
    uint16_t port = 0;

    assert_int_equal(listen_on("127.0.0.1:0", "--listen", ret_fd, NULL), 0);
    assert_int_equal(parse_u16(strrchr(listen_address(*ret_fd, text), ':') + 1, &port), 0);
    return port;
}

static void start_statusd(void)
{
    int fd, local_fd;

    fixture.port = listening(&fd);
    fixture.local_port = listening(&local_fd);
    fixture.statusd = fork();
    assert_true(fixture.statusd >= 0);
    if (fixture.statusd == 0) {
        sd_event *event = NULL;
        Statusd *statusd = NULL;

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)signal(SIGPIPE, SIG_IGN);
        if (sd_event_new(&event) < 0 || sd_event_set_signal_exit(event, true) < 0 ||
            statusd_new(event, fd, local_fd, &limits, &statusd, NULL) < 0)
            _exit(99);
        if (sd_event_loop(event) != 0)
            _exit(98);
        (void)statusd_free(statusd);
        (void)sd_event_unref(event);
        _exit(0);
    }
    (void)close(fd);
    (void)close(local_fd);
}

static int up(void **state)
{
    sigset_t set;

    /* sd_event_set_signal_exit() wants them blocked. */
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);

    if (test_bus_up(&fixture.bus) < 0)
        return -1;
    start_statusd();
    return 0;
}

static int down(void **state)
{
    end_process(&fixture.agent);
    end_process(&fixture.statusd);
    test_bus_down(&fixture.bus);
    return 0;
}

/* ---- A client ---- */

static int connect_from(const char *source, uint16_t port)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = 5};

    assert_true(fd >= 0);
    assert_int_equal(inet_pton(AF_INET, source, &from.sin_addr), 1);
    assert_int_equal(inet_pton(AF_INET, "127.0.0.1", &to.sin_addr), 1);
    to.sin_port = htons(port);
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof(from)), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

/* All that comes until the peer closes. */
static void receive(int fd, Buf *ret)
{
    char piece[4096];
    ssize_t n;

    *ret = BUF_INIT(1 << 20);
    while ((n = recv(fd, piece, sizeof(piece), 0)) > 0)
        assert_int_equal(buf_add(ret, piece, (size_t)n), 0);
    assert_true(n == 0 || errno == ECONNRESET);
}

static void ask_from(const char *source, uint16_t port, const char *request, Buf *ret)
{
    auto_close int fd = connect_from(source, port);

    (void)send(fd, request, strlen(request), MSG_NOSIGNAL);
    receive(fd, ret);
}

static void expect(uint16_t port, const char *path, unsigned status, const char *body)
{
    auto_free char *request = str_printf("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    auto_free char *head = str_printf("HTTP/1.1 %u ", status);
    auto_buf Buf reply = {0};

    ask_from("127.0.0.1", port, request, &reply);
    if (!startswith(buf_str(&reply), head) || !strstr(buf_str(&reply), body))
        fail_msg("%s: expected %u and \"%s\", got\n%s", path, status, body, buf_str(&reply));
}

/* What is known is kept for a second; let it grow old. */
static void forget(void)
{
    (void)nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = 100 * 1000 * 1000}, NULL);
}

/* ---- What it says of agentd ---- */

static void a_machine_that_is_well_is_alive_and_ready(void **state)
{
    start_agent(READY);
    expect(fixture.port, "/healthz", 200, "\r\n\r\nok\n");
    expect(fixture.port, "/readyz", 200, "\r\n\r\nready\n");
    expect(fixture.port, "/metrics", 200, "\nmervis_plan_generation 7\n");
    expect(fixture.local_port, "/status.json", 200, "\"reachable\": true");
    expect(fixture.local_port, "/status.json", 200, "\"generation\": 7");
}

static void a_machine_that_is_not_ready_says_why_and_stays_alive(void **state)
{
    end_process(&fixture.agent);
    start_agent(NOT_READY);
    forget();
    expect(fixture.port, "/readyz", 503, "not ready: container mervis: proving\n");
    expect(fixture.port, "/healthz", 200, "ok\n");
}

static void an_agentd_that_answers_with_an_error_is_alive(void **state)
{
    end_process(&fixture.agent);
    start_agent(FAILING);
    forget();
    expect(fixture.port, "/healthz", 200, "ok\n");
    expect(fixture.port, "/readyz", 503, "state.db: no space");
}

static void an_agentd_that_hangs_is_found_within_the_limit(void **state)
{
    uint64_t before;

    end_process(&fixture.agent);
    start_agent(SILENT);
    forget();
    before = now_boottime_usec();
    expect(fixture.port, "/healthz", 503, "did not answer in time");
    assert_in_range(now_boottime_usec() - before, 1400 * MSEC, 2 * SECOND);
}

static void a_machine_without_agentd_says_so_with_the_remedy(void **state)
{
    end_process(&fixture.agent);
    forget();
    expect(fixture.port, "/healthz", 503,
           "agentd does not answer: agentd is not running; try: systemctl status agentd");
    expect(fixture.port, "/readyz", 503, "is not running");
    expect(fixture.port, "/metrics", 200, "\nmervis_agent_up 0\n");
    expect(fixture.local_port, "/status.json", 503, "\"reachable\": false");
}

static void the_bus_may_go_and_come_back(void **state)
{
    end_process(&fixture.bus.pid);
    forget();
    expect(fixture.port, "/healthz", 503, "agentd does not answer");

    assert_int_equal(test_bus_start(&fixture.bus), 0);
    start_agent(READY);
    forget();
    expect(fixture.port, "/healthz", 200, "ok\n");
    end_process(&fixture.agent);
}

/* ---- Requests that are none ---- */

static void only_known_paths_and_reads_are_answered(void **state)
{
    static const struct {
        const char *request, *reply;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 "},
        {"GET /status.json HTTP/1.1\r\nHost: x\r\n\r\n", "try /healthz /readyz /metrics\n"},
        {"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405 "},
        {"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\nx",
         "Allow: GET, HEAD"},
        {"HEAD /nothing HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 "},
        {"GET /healthz?x=1 HTTP/1.0\r\n\r\n", "ok\n"},
        {"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 "},
    };

    start_agent(READY);
    forget();
    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_buf Buf reply = {0};

        ask_from("127.0.0.1", fixture.port, cases[i].request, &reply);
        if (!strstr(buf_str(&reply), cases[i].reply))
            fail_msg("\"%s\" got\n%s", cases[i].request, buf_str(&reply));
        assert_null(strstr(buf_str(&reply), "keep-alive"));
    }
    end_process(&fixture.agent);
}

static void rubbish_ends_the_connection_and_nothing_else(void **state)
{
    static char rubbish[100000];

    memset(rubbish, 'A', sizeof(rubbish) - 1);
    for (int i = 0; i < 3; i++) {
        auto_buf Buf reply = {0};

        ask_from("127.0.0.1", fixture.port, i == 0 ? "\r\n\r\n\x01\x02\xff\r\n\r\n" : rubbish,
                 &reply);
    }
    forget();
    expect(fixture.port, "/healthz", 503, "agentd");
}

/* ---- Peers that nobody vouches for ---- */

static void a_peer_that_drips_is_cut_at_the_deadline(void **state)
{
    auto_close int fd = connect_from("127.0.0.1", fixture.port);
    static const char request[] =
        "GET /healthz HTTP/1.1\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    uint64_t before = now_boottime_usec();
    size_t sent = 0;

    while (sent < sizeof(request) - 1) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        if (send(fd, request + sent, 1, MSG_NOSIGNAL) <= 0 || poll(&p, 1, 100) > 0)
            break;
        sent++;
    }
    assert_true(sent < sizeof(request) - 1);
    assert_in_range(now_boottime_usec() - before, 1900 * MSEC, 3 * SECOND);
}

static void one_address_that_floods_leaves_room_for_others(void **state)
{
    int held[40];
    uint64_t before;
    auto_buf Buf reply = {0};

    for (size_t i = 0; i < ELEMENTS(held); i++)
        held[i] = connect_from("127.0.0.2", fixture.port);
    before = now_boottime_usec();
    ask_from("127.0.0.3", fixture.port, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", &reply);
    assert_in_range(now_boottime_usec() - before, 0, 2 * SECOND);
    assert_contains(buf_str(&reply), "HTTP/1.1 503 ");

    for (size_t i = 0; i < ELEMENTS(held); i++)
        (void)close(held[i]);
}

static void many_who_ask_at_once_all_get_the_answer(void **state)
{
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    int fds[12];

    start_agent(READY);
    forget();
    for (size_t i = 0; i < ELEMENTS(fds); i++) {
        auto_free char *source = str_printf("127.0.1.%zu", i / 3 + 1);

        fds[i] = connect_from(source, fixture.port);
        assert_int_equal(send(fds[i], request, sizeof(request) - 1, MSG_NOSIGNAL),
                         sizeof(request) - 1);
    }
    for (size_t i = 0; i < ELEMENTS(fds); i++) {
        auto_buf Buf reply = {0};

        receive(fds[i], &reply);
        (void)close(fds[i]);
        assert_contains(buf_str(&reply), "HTTP/1.1 200 ");
    }
    end_process(&fixture.agent);
}

/* ---- Sockets and ending ---- */

static void an_address_is_numeric_with_a_port(void **state)
{
    static const char *const bad[] = {"",        "9320",       ":9320",           "localhost:9320",
                                      "1.2.3.4", "127.0.0.1:", "127.0.0.1:99999", "::1:9320",
                                      "[::1]",   "[::1:9320"};

    for (size_t i = 0; i < ELEMENTS(bad); i++) {
        auto_error Error err = {0};
        int fd = -EBADF;

        assert_int_equal(listen_on(bad[i], "--listen", &fd, &err), -EINVAL);
        assert_contains(error_text(&err), "--listen");
        assert_non_null(err.remedy);
    }
}

static void it_ends_cleanly_while_somebody_waits(void **state)
{
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    auto_close int fd = -EBADF;
    int status;

    start_agent(SILENT);
    forget();
    fd = connect_from("127.0.0.1", fixture.port);
    assert_int_equal(send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL), sizeof(request) - 1);
    (void)nanosleep(&(struct timespec){.tv_nsec = 100 * 1000 * 1000}, NULL);
    assert_int_equal(kill(fixture.statusd, SIGTERM), 0);
    assert_int_equal(waitpid(fixture.statusd, &status, 0), fixture.statusd);
    fixture.statusd = 0;
    assert_int_equal(status, 0);
    end_process(&fixture.agent);
}

/* ---- Metrics ---- */

static void metrics_are_text_that_prometheus_reads(void **state)
{
    static const char agent_text[] =
        "{\"version\":\"0.1.0\",\"state\":\"well\",\"ready\":true,"
        "\"started_at\":\"1970-01-01T00:01:40.5Z\",\"vm\":{\"preempted\":false},"
        "\"plan\":{\"generation\":3,\"accepted_at\":null,\"outcome\":\"applied\"},"
        "\"resources\":[{\"kind\":\"script\",\"name\":\"a\\\"b\\\\c\\nd\",\"state\":\"failed\"}],"
        "\"containers\":[{\"name\":\"메르비스\",\"running\":true,\"health\":\"healthy\","
        "\"state\":\"settled\",\"restarts\":2,\"memory_bytes\":null,\"downtime_usec\":120000}],"
        "\"images\":{\"disk_used_percent\":45}}";
    static const char *const expected[] = {
        "\nmervis_agent_info{version=\"0.1.0\"} 1\n",
        "\nmervis_agent_start_time_seconds 100.500000\n",
        "\nmervis_resource_failed{kind=\"script\",name=\"a\\\"b\\\\c\\nd\"} 1\n",
        "\nmervis_container_state{name=\"메르비스\",state=\"settled\"} 1\n",
        "\n# TYPE mervis_container_restarts_total counter\n",
        "\nmervis_container_restarts_total{name=\"메르비스\"} 2\n",
        "\nmervis_container_switch_downtime_seconds{name=\"메르비스\"} 0.120000\n",
        "\nmervis_images_disk_used_ratio 0.450000\n",
        "\nmervis_crawler_up 0\n",
    };
    static const char *const absent[] = {"mervis_container_memory_bytes",
                                         "mervis_plan_accepted_timestamp_seconds",
                                         "mervis_crawler_backlog_rows"};
    json_auto_t *agent = NULL;
    auto_error Error err = {0};
    auto_buf Buf text = BUF_INIT(1 << 20);

    assert_ok(json_parse(agent_text, strlen(agent_text), "agent", &agent, &err), &err);
    assert_int_equal(metrics_format(agent, NULL, &text), 0);
    for (size_t i = 0; i < ELEMENTS(expected); i++)
        assert_contains(buf_str(&text), expected[i]);
    for (size_t i = 0; i < ELEMENTS(absent); i++)
        assert_null(strstr(buf_str(&text), absent[i]));
}

static void what_each_source_costs_is_a_metric(void **state)
{
    static const char crawler_text[] =
        "{\"state\":\"well\",\"hosts\":[{\"host\":\"api.upbit.com\",\"requests\":90,\"refusals\":2,"
        "\"bytes_in\":1000,\"bytes_out\":500,\"connections\":3,\"connections_120s\":1}],"
        "\"egress\":{\"bytes_today\":1500,\"daily_bytes\":0,\"cost_today\":0.0336,"
        "\"nat_ports\":32},"
        "\"delivery\":{\"loads_today\":12,\"loads_forecast\":288,\"partitions_today\":13}}";
    static const char *const expected[] = {
        "\nmervis_crawler_host_requests_total{host=\"api.upbit.com\"} 90\n",
        "\nmervis_crawler_host_refusals_total{host=\"api.upbit.com\"} 2\n",
        "\nmervis_crawler_host_received_bytes_total{host=\"api.upbit.com\"} 1000\n",
        "\nmervis_crawler_host_sent_bytes_total{host=\"api.upbit.com\"} 500\n",
        "\nmervis_crawler_host_recent_connections{host=\"api.upbit.com\"} 1\n",
        "\nmervis_crawler_nat_ports 32\n",
        "\nmervis_crawler_egress_today_bytes 1500\n",
        "\nmervis_crawler_egress_today_dollars 0.033600\n",
        "\nmervis_crawler_loads_today 12\n",
        "\nmervis_crawler_loads_forecast 288\n",
        "\nmervis_crawler_partitions_today 13\n",
    };
    json_auto_t *crawler = NULL;
    auto_error Error err = {0};
    auto_buf Buf text = BUF_INIT(1 << 20);

    assert_ok(json_parse(crawler_text, strlen(crawler_text), "crawler", &crawler, &err), &err);
    assert_int_equal(metrics_format(NULL, crawler, &text), 0);
    for (size_t i = 0; i < ELEMENTS(expected); i++)
        assert_contains(buf_str(&text), expected[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics_are_text_that_prometheus_reads),
        cmocka_unit_test(what_each_source_costs_is_a_metric),
        cmocka_unit_test(an_address_is_numeric_with_a_port),
        cmocka_unit_test(a_machine_that_is_well_is_alive_and_ready),
        cmocka_unit_test(a_machine_that_is_not_ready_says_why_and_stays_alive),
        cmocka_unit_test(an_agentd_that_answers_with_an_error_is_alive),
        cmocka_unit_test(an_agentd_that_hangs_is_found_within_the_limit),
        cmocka_unit_test(a_machine_without_agentd_says_so_with_the_remedy),
        cmocka_unit_test(the_bus_may_go_and_come_back),
        cmocka_unit_test(only_known_paths_and_reads_are_answered),
        cmocka_unit_test(rubbish_ends_the_connection_and_nothing_else),
        cmocka_unit_test(a_peer_that_drips_is_cut_at_the_deadline),
        cmocka_unit_test(one_address_that_floods_leaves_room_for_others),
        cmocka_unit_test(many_who_ask_at_once_all_get_the_answer),
        cmocka_unit_test(it_ends_cleanly_while_somebody_waits),
    };

    if (!have_dbus_daemon()) {
        printf(BUS_SKIP_PLAN);
        return 77;
    }
    return cmocka_run_group_tests(tests, up, down);
}
