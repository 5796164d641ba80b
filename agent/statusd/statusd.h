/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_STATUSD_STATUSD_H
#define AGENT_STATUSD_STATUSD_H

/* What the outside may know of this machine: health checks and metrics for the network, the whole
 * status for loopback. It holds nothing, decides nothing and changes nothing: it asks agentd and
 * crawlerd on the bus when it is asked. */

#include <systemd/sd-event.h>

#include "agent/base/error.h"
#include "agent/statusd/server.h"

#define STATUSD_LISTEN       "0.0.0.0:9320"   /* /healthz /readyz /metrics */
#define STATUSD_LISTEN_LOCAL "127.0.0.1:9321" /* /status.json */

/* Names of inherited sockets (FileDescriptorName= in statusd.socket and statusd-local.socket). */
#define STATUSD_SOCKET       "public"
#define STATUSD_SOCKET_LOCAL "local"

typedef struct Statusd Statusd;

/* Both are listening sockets and are taken, on failure too. */
int statusd_new(sd_event *event, int public_fd, int local_fd, const ServerLimits *limits,
                Statusd **ret, Error *err) must_check;
Statusd *statusd_free(Statusd *statusd);
DEFINE_AUTO(Statusd, statusd_free)

#endif
