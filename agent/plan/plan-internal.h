/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_PLAN_PLAN_INTERNAL_H
#define AGENT_PLAN_PLAN_INTERNAL_H

/* What the parts of agent/plan share; nobody else includes it. */

#include "agent/plan/plan.h"

/* One text rule, as a function for us and as a pattern for the JSON Schema; tests compare the two.
 */
#define NAME_PATTERN      "^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
#define CONTAINER_PATTERN "^[A-Za-z0-9][A-Za-z0-9_-]{1,62}$"
#define PATH_PATTERN      "^(/(?!\\.{1,2}(/|$))[^/\\x00-\\x1f]+)+$"
#define WORKDIR_PATTERN   "^(/|(/(?!\\.{1,2}(/|$))[^/\\x00-\\x1f]+)+)$"
#define TIMEZONE_PATTERN  "^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"
#define OWNER_PATTERN     "^([a-z_][a-z0-9_-]*|[0-9]+)$"
#define SCRIPT_PATTERN    "^#! */[^\\r\\n]*(\\n|$)"
#define REMOTE_PATTERN    "^[A-Za-z0-9_./:+=@-]+$"
#define VERSION_PATTERN   "^[A-Za-z0-9_-]+$"
#define IMAGE_PATTERN                                                                              \
    "^((localhost|\\[[0-9A-Fa-f:]+\\]|[A-Za-z0-9.-]+\\.[A-Za-z0-9.-]*|[A-Za-z0-9.-]+(?=:))"        \
    "(:[0-9]+)?/)?[a-z0-9]+((\\.|_{1,2}|-+)[a-z0-9]+)*(/[a-z0-9]+((\\.|_{1,2}|-+)[a-z0-9]+)*)*"    \
    "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$"
#define USER_PATTERN "^[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?$"
#define ENV_PATTERN  "^[A-Za-z_][A-Za-z0-9_.-]*$"
#define PORT_PATTERN                                                                               \
    "^(([0-9]{1,3}\\.){3}[0-9]{1,3}:|\\[[0-9A-Fa-f:.]+\\]:)?[0-9]{1,5}:[0-9]{1,5}(/(tcp|udp))?$"
#define VOLUME_PATTERN                                                                             \
    "^([A-Za-z0-9][A-Za-z0-9_.-]+|(/(?!\\.{1,2}(/|$))[^/:\\x00-\\x1f]+)+)"                         \
    ":(/(?!\\.{1,2}(/|:|$))[^/:\\x00-\\x1f]+)+(:(ro|rw))?$"
#define TMPFS_PATTERN                                                                              \
    "^(/(?!\\.{1,2}(/|:|$))[^/:\\x00-\\x1f]+)+(:[0-9]+(\\.[0-9]{1,9})?(TiB|GiB|MiB|KiB|TB|GB|MB|"  \
    "kB|B)?)?$"
#define NETWORK_PATTERN "^[A-Za-z0-9][A-Za-z0-9_.-]*$"
#define EXTRA_HOST_PATTERN                                                                         \
    "^[A-Za-z0-9][A-Za-z0-9_.-]*:(host-gateway|([0-9]{1,3}\\.){3}[0-9]{1,3}|\\[?[0-9A-Fa-f:.]+\\]" \
    "?)$"
#define LABEL_PATTERN  "^(?!io\\.mervis\\.)[A-Za-z0-9][A-Za-z0-9._/-]*$"
#define CAP_PATTERN    "^[A-Z][A-Z_]*$"
#define SIGNAL_PATTERN "^(SIG)?[A-Z][A-Z0-9+-]*$"
#define ULIMIT_PATTERN                                                                             \
    "^(core|cpu|data|fsize|locks|memlock|msgqueue|nice|nofile|nproc|rss|rtprio|rttime|sigpending|" \
    "stack)$"
#define HEALTH_PATTERN                                                                             \
    "^http://(\\{container\\}|127\\.0\\.0\\.1|localhost|\\[::1\\])(:[0-9]{1,5})?(/[!-~]*)?$"
#define HOST_PATTERN "^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"
#define BASE_URL_PATTERN                                                                           \
    "^(https://(\\[[0-9A-Fa-f:]+\\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)|"                     \
    "http://(localhost|127(\\.[0-9]{1,3}){3}|\\[::1\\]))(:[0-9]{1,5})?(/[A-Za-z0-9._~/%-]*)?$"

const char *check_name(const char *s);
const char *check_container_name(const char *s);
const char *check_path(const char *s);
const char *check_workdir(const char *s);
const char *check_timezone(const char *s);
const char *check_owner(const char *s);
const char *check_script(const char *s);
const char *check_remote(const char *s);
const char *check_version(const char *s);
const char *check_image(const char *s);
const char *check_user(const char *s);
const char *check_env(const char *s);
const char *check_port(const char *s);
const char *check_volume(const char *s);
const char *check_tmpfs(const char *s);
const char *check_network(const char *s);
const char *check_extra_host(const char *s);
const char *check_label(const char *s);
const char *check_cap(const char *s);
const char *check_signal(const char *s);
const char *check_ulimit(const char *s);
const char *check_health(const char *s);
const char *check_host(const char *s);
const char *check_base_url(const char *s);

/* Tables, outermost last, and the rules between the fields of one object. */
extern const Field plan_system_fields[];
extern const Field plan_container_fields[];
void plan_check_container(FieldContext *context, void *object);
/* The rules between parts of the plan. */
void plan_check_whole(FieldContext *context, void *object);

#define HEALTH_CONTAINER_HOST "{container}"

#endif
