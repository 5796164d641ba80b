/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_ENGINE_ENGINE_SPEC_H
#define AGENT_ENGINE_ENGINE_SPEC_H

/* A container to create, in plain values, and the engine's words for it. All pointers are borrowed;
 * everything zero or NULL means: the image's or the engine's default. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/error.h"

typedef struct EnginePair {
    const char *name;
    const char *value;
} EnginePair;

typedef struct EnginePortBinding {
    const char *host_address; /* NULL or "": all */
    uint16_t host_port;       /* 0: not published */
    uint16_t container_port;
    const char *protocol; /* NULL: "tcp" */
} EnginePortBinding;

typedef enum EngineMountKind {
    ENGINE_MOUNT_BIND,        /* host path, must exist: creation fails else. For secrets: a missing
                                 file must never become an empty directory */
    ENGINE_MOUNT_BIND_CREATE, /* host path, made as a directory where it is missing */
    ENGINE_MOUNT_VOLUME,      /* named volume */
} EngineMountKind;

typedef struct EngineMount {
    EngineMountKind kind;
    const char *source;
    const char *target;
    bool read_only;
} EngineMount;

typedef struct EngineTmpfs {
    const char *path;
    uint64_t size_bytes; /* 0: the kernel's default */
} EngineTmpfs;

typedef struct EngineUlimit {
    const char *name;
    uint64_t soft, hard;
} EngineUlimit;

typedef enum EngineRestart {
    ENGINE_RESTART_NO,
    ENGINE_RESTART_ON_FAILURE,
    ENGINE_RESTART_UNLESS_STOPPED,
    ENGINE_RESTART_ALWAYS,
} EngineRestart;

typedef struct EngineHealthCheck {
    const char *const *test; /* {"CMD", …}, {"CMD-SHELL", "…"}, {"NONE"}; NULL: the image's */
    uint64_t interval_usec, timeout_usec, start_period_usec; /* 0: the image's */
    unsigned retries;
} EngineHealthCheck;

typedef struct EngineContainerSpec {
    const char *image;             /* an id, or a repository with a digest: never a tag */
    const char *const *entrypoint; /* NULL or empty: the image's; so with command */
    const char *const *command;
    const char *user;
    const char *workdir;
    const char *hostname;
    const EnginePair *env; /* secrets among them */
    size_t n_env;
    const EnginePair *labels;
    size_t n_labels;

    const EnginePortBinding *ports;
    size_t n_ports;
    const char *network;            /* "bridge", "host", "none", a network's name */
    const char *const *extra_hosts; /* "db:10.0.0.5" */

    const EngineMount *mounts;
    size_t n_mounts;
    const EngineTmpfs *tmpfs;
    size_t n_tmpfs;
    bool read_only; /* its root */

    uint64_t memory_bytes;
    int64_t memory_swap_bytes; /* memory and swap together; -1 unlimited; 0: the engine's default */
    double cpus;
    uint64_t pids;
    uint64_t shm_bytes;
    const EngineUlimit *ulimits;
    size_t n_ulimits;

    bool init;
    const char *const *cap_add;
    const char *const *cap_drop;
    const char *const *security_options;

    const char *log_driver;
    const EnginePair *log_options;
    size_t n_log_options;

    const char *stop_signal;
    uint64_t stop_timeout_usec; /* rounded up to whole seconds; 0: the engine's default, 10 s */
    EngineHealthCheck health_check;
    EngineRestart restart;
    unsigned restart_max; /* of ON_FAILURE; 0: no limit */
} EngineContainerSpec;

/* The body of POST /containers/create: in memory of its own, which the caller cleanses
 * (cleanse_free()). -EINVAL names the value that no engine takes (memory under 6 MiB, …). */
int engine_spec_json(const EngineContainerSpec *spec, char **ret, Error *err) must_check;

#endif
