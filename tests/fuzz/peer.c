/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/peer.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/loop.h"

#define TURNS_MAX  4000
#define QUIET_USEC (1500) /* all of it is in one process: longer silence is a timer's */

typedef struct PeerConnection {
    struct PeerConnection *next;
    Peer *peer;
    sd_event_source *source;
    int fd;
    char tail[4]; /* of what was read: a head ends with an empty line */
} PeerConnection;

/* Made once: the kernel keeps the ports of closed connections for a while, not those of open ones.
 */
static int shared[2] = {-1, -1};
static char shared_path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
static uint16_t shared_port;

static void forget_path(void)
{
    (void)unlink(shared_path);
}

static void listen_once(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    socklen_t size = sizeof(in);

    if (shared[0] >= 0)
        return;
    (void)snprintf(shared_path, sizeof(shared_path), "/tmp/mervis-fuzz.%d", (int)getpid());
    (void)unlink(shared_path);
    memcpy(un.sun_path, shared_path, sizeof(un.sun_path));
    shared[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    shared[1] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    FUZZ_CHECK(bind(shared[0], (struct sockaddr *)&in, sizeof(in)) == 0);
    FUZZ_CHECK(bind(shared[1], (struct sockaddr *)&un, sizeof(un)) == 0);
    FUZZ_CHECK(listen(shared[0], 64) == 0 && listen(shared[1], 64) == 0);
    FUZZ_CHECK(getsockname(shared[0], (struct sockaddr *)&in, &size) == 0);
    shared_port = ntohs(in.sin_port);
    FUZZ_CHECK(atexit(forget_path) == 0);
}

static void connection_free(PeerConnection *connection)
{
    for (PeerConnection **at = &connection->peer->connections; *at; at = &(*at)->next)
        if (*at == connection) {
            *at = connection->next;
            break;
        }
    (void)sd_event_source_disable_unref(connection->source);
    (void)close(connection->fd);
    free(connection);
}

static void answer(PeerConnection *connection)
{
    static const char part[] = {'\n', '%', '%', '\n'};
    Peer *peer = connection->peer;
    const uint8_t *from = peer->data + peer->at, *end;
    size_t left = peer->size - peer->at;

    peer->requests++;
    end = left ? memmem(from, left, part, sizeof(part)) : NULL;
    if (left)
        /* A peer that is gone, or does not read on, is one of the cases. */
        (void)send(connection->fd, from, end ? (size_t)(end - from) : left,
                   MSG_NOSIGNAL | MSG_DONTWAIT);
    peer->at += end ? (size_t)(end - from) + sizeof(part) : left;
    (void)shutdown(connection->fd, SHUT_WR);
}

static int on_data(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    PeerConnection *connection = userdata;
    char data[4096 + sizeof(connection->tail)];
    ssize_t n = recv(fd, data + sizeof(connection->tail), 4096, MSG_DONTWAIT);
    size_t all = sizeof(connection->tail);

    if (n <= 0) {
        connection_free(connection);
        return 0;
    }
    memcpy(data, connection->tail, all);
    all += (size_t)n;
    memcpy(connection->tail, data + all - sizeof(connection->tail), sizeof(connection->tail));
    if (memmem(data, all, "\r\n\r\n", 4)) {
        memset(connection->tail, 0, sizeof(connection->tail));
        answer(connection);
    }
    return 0;
}

static int on_connect(sd_event_source *source, int listener, uint32_t events, void *userdata)
{
    Peer *peer = userdata;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    PeerConnection *connection;

    if (fd < 0)
        return 0;
    connection = calloc(1, sizeof(*connection));
    FUZZ_CHECK(connection);
    *connection = (PeerConnection){.next = peer->connections, .peer = peer, .fd = fd};
    peer->connections = connection;
    FUZZ_CHECK(
        sd_event_add_io(peer->event, &connection->source, fd, EPOLLIN, on_data, connection) >= 0);
    return 0;
}

void peer_init(Peer *peer, const uint8_t *data, size_t size)
{
    listen_once();
    *peer = (Peer){.data = data, .size = size};
    FUZZ_CHECK(sd_event_new(&peer->event) >= 0);
    FUZZ_CHECK(http_client_new(peer->event, "mervis-fuzz/1", &peer->client, NULL) >= 0);
    for (size_t i = 0; i < 2; i++) {
        /* Whoever was left in the queue by the input before. */
        for (int fd; (fd = accept4(shared[i], NULL, NULL, SOCK_CLOEXEC)) >= 0;)
            (void)close(fd);
        peer->listeners[i] = shared[i];
        FUZZ_CHECK(sd_event_add_io(peer->event, &peer->sources[i], shared[i], EPOLLIN, on_connect,
                                   peer) >= 0);
    }
    peer->base = str_printf("http://127.0.0.1:%u", shared_port);
    peer->socket_path = strdup(shared_path);
    FUZZ_CHECK(peer->base && peer->socket_path);
}

void peer_done(Peer *peer)
{
    while (peer->connections)
        connection_free(peer->connections);
    http_client_free(peer->client);
    for (size_t i = 0; i < 2; i++)
        (void)sd_event_source_disable_unref(peer->sources[i]);
    sd_event_unref(peer->event);
    free(peer->base);
    free(peer->socket_path);
}

void peer_run(Peer *peer, const bool *done)
{
    unsigned quiet = 0;

    for (int i = 0; i < TURNS_MAX && !*done && quiet < 2; i++) {
        int r = sd_event_run(peer->event, QUIET_USEC);

        FUZZ_CHECK(r >= 0);
        quiet = r == 0 ? quiet + 1 : 0;
    }
}
