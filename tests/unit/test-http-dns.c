/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/http-fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>

#include "agent/base/file.h"

/* A name server that never answers, in a network and a mount table of our own: the resolver waits
 * for it for SILENCE_SECONDS, and nothing of ours may. */

#define SILENCE_SECONDS "10"
#define AT_ONCE_USEC    SECOND /* generous on a busy machine, and far from the resolver's patience */

static int raise_loopback(void)
{
    auto_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};

    return fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) >= 0 ? 0 : -errno;
}

/* The socket is bound and never read. */
static int bind_name_server(void)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    return fd >= 0 && bind(fd, (const struct sockaddr *)&in, sizeof(in)) >= 0 ? fd : -errno;
}

static int replace_file(const char *path, const char *by, const char *text)
{
    if (file_replace(by, text, strlen(text), 0644, NULL) < 0)
        return -EIO;
    return mount(by, path, "none", MS_BIND, NULL) < 0 ? -errno : 0;
}

/* Whether the silent network could be made; it lasts until the process ends. */
static bool make_silence(const char *dir)
{
    auto_free char *resolv = str_printf("%s/resolv.conf", dir);
    auto_free char *nsswitch = str_printf("%s/nsswitch.conf", dir);

    return unshare(CLONE_NEWNS | CLONE_NEWNET) >= 0 &&
           mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) >= 0 && raise_loopback() >= 0 &&
           bind_name_server() >= 0 &&
           replace_file("/etc/nsswitch.conf", nsswitch, "hosts: files dns\n") >= 0 &&
           replace_file("/etc/resolv.conf", resolv,
                        "nameserver 127.0.0.1\noptions timeout:" SILENCE_SECONDS
                        " attempts:1\n") >= 0;
}

static void on_tick(void *userdata)
{
    unsigned *ticks = userdata;

    (*ticks)++;
}

static int on_every_turn(sd_event_source *source, void *userdata)
{
    on_tick(userdata);
    return 0;
}

static void freeing_an_operation_does_not_wait_for_the_name_server(void **state)
{
    Fixture *f = *state;
    Outcome o = {0};
    sd_event_source *every_turn = NULL;
    unsigned turns = 0;
    uint64_t begin, took;

    assert_true(sd_event_add_post(f->event, &every_turn, on_every_turn, &turns) >= 0);
    outcome_start(f, &(HttpRequest){.url = "https://never.example/"}, &o);
    loop_run_for(f->event, 300 * MSEC);
    assert_false(o.done); /* the name server is silent indeed */

    turns = 0;
    begin = now_boottime_usec();
    o.op = http_op_free(o.op);
    assert_int_equal(turns, 0);
    f->client = http_client_free(f->client);
    took = now_boottime_usec() - begin;
    if (took > AT_ONCE_USEC)
        fail_msg("freeing took %llu ms", (unsigned long long)(took / MSEC));
    loop_run_for(f->event, 50 * MSEC);
    assert_int_equal(o.calls, 0);
    (void)sd_event_source_disable_unref(every_turn);
    outcome_done(&o);
}

static void the_loop_goes_on_while_a_name_is_looked_up(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome waiting = {0}, other = {0};
    uint64_t begin = now_boottime_usec();

    outcome_start(f, &(HttpRequest){.url = "https://never.example/"}, &waiting);
    http_server_reply(f->server, &(Reply){.body = "well"});
    outcome_of(f, &(HttpRequest){.url = http_server_url(f->server, "/")}, &other);
    assert_string_equal(other.body, "well");
    assert_true(now_boottime_usec() - begin < AT_ONCE_USEC);
    assert_false(waiting.done);
}

static void looking_up_a_name_counts_as_connecting(void **state)
{
    Fixture *f = *state;
    auto_outcome Outcome o = {0};
    uint64_t begin = now_boottime_usec();

    outcome_of(
        f, &(HttpRequest){.url = "https://never.example/", .connect_timeout_usec = 200 * MSEC}, &o);
    assert_int_equal(o.code, -ETIMEDOUT);
    assert_int_equal(o.kind, ERROR_TEMPORARY);
    assert_false(o.connected);
    assert_int_equal(o.new_connections, 0);
    assert_contains(o.message, "never.example: no connection within");
    assert_true(now_boottime_usec() - begin < 200 * MSEC + AT_ONCE_USEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(freeing_an_operation_does_not_wait_for_the_name_server),
        TEST(the_loop_goes_on_while_a_name_is_looked_up),
        TEST(looking_up_a_name_counts_as_connecting),
    };
    auto_test_dir char *dir = test_dir_new();

    if (!make_silence(dir)) {
        (void)printf("1..0 # SKIP no network and mount table of our own: %s\n", strerror(errno));
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
