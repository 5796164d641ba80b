/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_FUZZ_BUS_PAIR_H
#define TESTS_FUZZ_BUS_PAIR_H

/* A daemon's D-Bus interface on one end of a socket pair, and a caller on the other: the input
 * chooses the method and spells its arguments. No message bus is needed. The program is linked with
 * --wrap=bus_open and --wrap=bus_serve, so that the daemon serves what it serves. */

#include <systemd/sd-bus.h>

#include "agent/base/error.h"
#include "tests/fuzz/fuzz.h"

typedef struct BusPair {
    sd_event *event;
    sd_bus *daemon, *caller;
    const char *path, *interface;
} BusPair;

/* What bus_open() hands out until bus_pair_done(). */
void bus_pair_init(BusPair *pair);
void bus_pair_done(BusPair *pair);

/* The first byte chooses among `methods`; then one argument a line, its first character is its
 * type. Ends when the answer is there: a value of one string or nothing, or an error with words. */
void bus_pair_call(BusPair *pair, const char *const *methods, size_t n_methods, const uint8_t *data,
                   size_t size);

#endif
