/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_FUZZ_PEER_H
#define TESTS_FUZZ_PEER_H

/* The other side of a connection, in the same loop: it reads each request as far as its head, and
 * answers with the next piece of the input, byte for byte, head and all. So everything that stands
 * between a socket and what we believe is fuzzed as it ships. Pieces are parted by a line "%%".
 * After its last piece the peer shuts connections without a word. */

#include <systemd/sd-event.h>

#include "agent/io/http.h"
#include "tests/fuzz/fuzz.h"

typedef struct Peer {
    sd_event *event;
    HttpClient *client;
    char *base;        /* "http://127.0.0.1:PORT" */
    char *socket_path; /* the same peer on a unix socket */
    const uint8_t *data;
    size_t size, at;
    unsigned requests;
    int listeners[2];
    sd_event_source *sources[2];
    struct PeerConnection *connections;
} Peer;

/* A loop, a client and a peer that gives these replies. Ports and paths stay the same for the life
 * of the process. */
void peer_init(Peer *peer, const uint8_t *data, size_t size);
void peer_done(Peer *peer);
/* Until *done, or until everybody waits for the clock (a retry, a peer that says no more). */
void peer_run(Peer *peer, const bool *done);

#endif
