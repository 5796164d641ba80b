/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_ENGINE_ENGINE_H
#define AGENT_ENGINE_ENGINE_H

/* The container engine, over the Docker Engine API on its unix socket. Each call starts an
 * operation: an object whose handler is called exactly once, and which, when freed, is cancelled (a
 * pull stops, a wait ends; what the engine was told already, it may still do).
 *
 * The API version is negotiated: the newest that both sides know. It is asked again after the
 * connection was lost, since the engine may have been upgraded.
 *
 * Errors worth telling apart by code, for policy reads no text:
 *   -ENOTCONN   TEMPORARY  the engine does not answer: missing, stopped, restarting
 *   -ETIMEDOUT  TEMPORARY  it accepted and then was silent: it hangs
 *   -ENOENT     INVALID    no such container or image
 *   -EEXIST     INVALID    the container's name is taken
 *   -EBUSY      INVALID    in use: an image by a container, an operation already under way
 *   -EADDRINUSE INVALID    a published port is taken; the message says by whom
 *   -ENOEXEC    INVALID    the image's program cannot be executed here (wrong platform, no such
 * file) -ENOSPC     TEMPORARY  the disk is full -EACCES     DENIED     the registry refused the
 * pull, or we may not use the socket -ESTALE     TEMPORARY  a pull made no progress and was cut */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "agent/base/error.h"
#include "agent/engine/engine-spec.h"
#include "agent/engine/manifest.h"
#include "agent/engine/reference.h"
#include "agent/io/http.h"

/* 1.41 is Docker 20.10, Debian 12's. The newest is the last one whose change log was read. */
#define ENGINE_API_OLDEST              41
#define ENGINE_API_NEWEST              52

#define ENGINE_CALL_TIMEOUT_USEC       (30 * SECOND)
#define ENGINE_STOP_MARGIN_USEC        (30 * SECOND) /* beyond the container's own stop time-out */
#define ENGINE_PULL_FIRST_TIMEOUT_USEC (5 * MINUTE)  /* until the first byte of a pull */
#define ENGINE_PULL_STALL_USEC         (2 * MINUTE)  /* without a byte */
#define ENGINE_PULL_TOTAL_USEC         (2 * HOUR)

typedef struct Engine Engine;
typedef struct EngineOp EngineOp;

/* `http` and `event` must outlive it; `socket_path` is copied. Nothing is asked yet. */
int engine_new(HttpClient *http, sd_event *event, const char *socket_path, Engine **ret, Error *err)
    must_check;
/* Cancels what is pending; handlers are not called. */
Engine *engine_free(Engine *engine);
DEFINE_AUTO(Engine, engine_free)

/* For tests: what a stalled pull and a silent engine are measured by. 0 keeps the default. */
void engine_set_timeouts(Engine *engine, uint64_t call_usec, uint64_t pull_first_usec,
                         uint64_t pull_stall_usec);
/* The negotiated version's minor number, 0 while unknown. */
unsigned engine_api_version(const Engine *engine);
/* Whether any pull is under way: no image may be removed meanwhile. */
bool engine_is_pulling(const Engine *engine);

/* ---- What the engine tells ------------------------------------------------------------------ */

typedef struct EngineInfo {
    const char *server_version; /* "20.10.24+dfsg1" */
    const char *root_dir;       /* DockerRootDir: the disk that fills */
    const char *storage_driver;
    const char *logging_driver;
    const char *os;
    const char *machine; /* "x86_64": see platform_from_machine() */
    uint64_t memory_bytes;
    uint64_t n_cpus;
    bool limits_memory;         /* the kernel can */
    bool uses_containerd_store; /* image ids are manifest digests there */
} EngineInfo;

typedef enum EngineState {
    ENGINE_STATE_CREATED,
    ENGINE_STATE_RUNNING,
    ENGINE_STATE_PAUSED,
    ENGINE_STATE_RESTARTING,
    ENGINE_STATE_REMOVING,
    ENGINE_STATE_EXITED,
    ENGINE_STATE_DEAD,
    ENGINE_STATE_UNKNOWN, /* a word that a later engine invented */
} EngineState;
const char *engine_state_name(EngineState state);

typedef enum EngineHealth {
    ENGINE_HEALTH_NONE, /* the image has no HEALTHCHECK */
    ENGINE_HEALTH_STARTING,
    ENGINE_HEALTH_HEALTHY,
    ENGINE_HEALTH_UNHEALTHY,
} EngineHealth;

/* A container as list or inspect shows it. List leaves what is marked [inspect] at zero or "". */
typedef struct EngineContainer {
    const char *id;       /* 64 hex digits */
    const char *name;     /* without the slash */
    const char *image;    /* the reference it was created from */
    const char *image_id; /* "sha256:…": comparable within one engine only */
    EngineState state;
    const EnginePair *labels;
    size_t n_labels;
    const EnginePortBinding *ports; /* list: published now; inspect: as declared */
    size_t n_ports;
    uint64_t created_usec; /* wall clock */

    const char *address;       /* [inspect] in its first network; "" while it has none */
    const char *network;       /* [inspect] HostConfig.NetworkMode */
    EngineHealth health;       /* [inspect] */
    bool has_health_check;     /* [inspect] */
    const char *health_output; /* [inspect] of the last failed check; escaped */
    bool oom_killed;           /* [inspect] */
    int exit_code;             /* [inspect] */
    const char *error;         /* [inspect] why it could not start */
    uint64_t started_usec;     /* [inspect] wall clock; 0 never */
    uint64_t finished_usec;    /* [inspect] */
    uint64_t restart_count;    /* [inspect] */
    uint64_t memory_bytes;     /* [inspect] the limit; 0 none */
} EngineContainer;

/* The label's value, or NULL. */
const char *engine_container_label(const EngineContainer *container, const char *name);
bool engine_container_is_running(const EngineContainer *container);
/* Why it is not running, in one sentence that names limit and exit status: "was killed for using
 * more than its memory limit of 600 MiB (exit status 137)". free() it; NULL when memory is out. */
char *engine_container_explain_exit(const EngineContainer *container);

typedef struct EngineImage {
    const char *id;                  /* comparable within one engine only */
    const char *const *repo_tags;    /* "nginx:latest"; without "<none>:<none>"; NULL-terminated */
    const char *const *repo_digests; /* "nginx@sha256:…" */
    uint64_t created_usec;           /* when it was built; wall clock */
    uint64_t size_bytes;
    const char *parent_id; /* "" where it has none or the engine does not say */
    const EnginePair *labels;
    size_t n_labels;

    Platform platform;       /* [inspect] */
    const char *const *env;  /* [inspect] "NAME=value" baked into it */
    bool has_health_check;   /* [inspect] */
    const char *last_tagged; /* [inspect] RFC 3339, "" where unknown: when it came here */
} EngineImage;

typedef struct EnginePullProgress {
    unsigned layers, layers_done; /* known so far */
    uint64_t current_bytes, total_bytes;
    bool extracting; /* all is downloaded, layers are being unpacked */
} EnginePullProgress;

/* What an operation brought; the fields that it sets are named at each call. All of it is borrowed,
 * for the time of the handler. */
typedef struct EngineReply {
    bool changed; /* false: it was so already (304) */
    const char *id;
    const EngineInfo *info;
    const EngineContainer *containers;
    size_t n_containers;
    const EngineImage *images;
    size_t n_images;
    const char *const *untagged; /* image removal; NULL-terminated */
    const char *const *deleted;
    const char *const *warnings; /* container creation */
    int exit_code;               /* wait */
    const char *text;            /* logs; valid UTF-8, control characters but \n and \t escaped */
} EngineReply;

/* `reply` is NULL when `err` is set. The handler may free the operation and start others. */
typedef void (*EngineHandler)(EngineOp *op, const EngineReply *reply, const Error *err,
                              void *userdata);

EngineOp *engine_op_free(EngineOp *op);
DEFINE_AUTO(EngineOp, engine_op_free)

/* ---- The engine ----------------------------------------------------------------------------- */

/* → info */
int engine_info(Engine *engine, EngineHandler handler, void *userdata, EngineOp **ret, Error *err)
    must_check;

/* ---- Images --------------------------------------------------------------------------------- */

typedef void (*EngineProgressHandler)(EngineOp *op, const EnginePullProgress *progress,
                                      void *userdata);

typedef struct EnginePull {
    const Reference *reference; /* its repository is pulled from */
    const char *digest;         /* what to pull; NULL: the reference's digest, else its tag */
    const Platform *platform;   /* NULL: the engine's own */
    const char *username;       /* NULL: anonymous */
    const char *password;       /* both copied and cleansed */
    EngineProgressHandler on_progress; /* at most 4 times a second; may be NULL */
} EnginePull;

/* → images[0], as inspect shows it afterwards: a pull that the engine called done is confirmed. */
int engine_pull(Engine *engine, const EnginePull *what, EngineHandler handler, void *userdata,
                EngineOp **ret, Error *err) must_check;

/* → images, all of them (not the intermediate layers of builds). */
int engine_list_images(Engine *engine, EngineHandler handler, void *userdata, EngineOp **ret,
                       Error *err) must_check;
/* → images[0]; `name` is an id, or a reference with tag or digest. */
int engine_inspect_image(Engine *engine, const char *name, EngineHandler handler, void *userdata,
                         EngineOp **ret, Error *err) must_check;
/* → untagged, deleted. Never by force. -EBUSY: a container uses it, or it has several names. */
int engine_remove_image(Engine *engine, const char *name, EngineHandler handler, void *userdata,
                        EngineOp **ret, Error *err) must_check;
int engine_tag_image(Engine *engine, const char *name, const char *repository, const char *tag,
                     EngineHandler handler, void *userdata, EngineOp **ret, Error *err) must_check;

/* ---- Containers; `name` is a name or an id ----------------------------------------------------
 */

/* → id, warnings. The request is cleansed afterwards: its environment holds secrets. */
int engine_create_container(Engine *engine, const char *name, const EngineContainerSpec *spec,
                            EngineHandler handler, void *userdata, EngineOp **ret, Error *err)
    must_check;
/* → changed. A taken port is looked up: the message names its owner. */
int engine_start_container(Engine *engine, const char *name, EngineHandler handler, void *userdata,
                           EngineOp **ret, Error *err) must_check;
/* → changed. Its stop signal, and SIGKILL after `timeout_usec` (rounded up to seconds;
 * USEC_INFINITY: the container's own). */
int engine_stop_container(Engine *engine, const char *name, uint64_t timeout_usec,
                          EngineHandler handler, void *userdata, EngineOp **ret, Error *err)
    must_check;
int engine_rename_container(Engine *engine, const char *name, const char *new_name,
                            EngineHandler handler, void *userdata, EngineOp **ret, Error *err)
    must_check;
/* When the engine starts it by itself: again without a limit, where it does. */
int engine_set_restart(Engine *engine, const char *name, EngineRestart restart,
                       EngineHandler handler, void *userdata, EngineOp **ret, Error *err)
    must_check;
/* → changed: false when it was gone already. Its anonymous volumes go with it. `force` kills a
 * running one: only for what never served. */
int engine_remove_container(Engine *engine, const char *name, bool force, EngineHandler handler,
                            void *userdata, EngineOp **ret, Error *err) must_check;
/* → containers[0] */
int engine_inspect_container(Engine *engine, const char *name, EngineHandler handler,
                             void *userdata, EngineOp **ret, Error *err) must_check;
/* → containers, stopped ones too; `label` ("key" or "key=value") NULL: everybody's. */
int engine_list_containers(Engine *engine, const char *label, EngineHandler handler, void *userdata,
                           EngineOp **ret, Error *err) must_check;
/* → exit_code, when it is not running (any more). No time limit. */
int engine_wait_container(Engine *engine, const char *name, EngineHandler handler, void *userdata,
                          EngineOp **ret, Error *err) must_check;
/* → text: the last `lines` lines of both streams, at most 64 KiB. */
int engine_container_logs(Engine *engine, const char *name, unsigned lines, EngineHandler handler,
                          void *userdata, EngineOp **ret, Error *err) must_check;

/* ---- Events --------------------------------------------------------------------------------- */

typedef enum EngineEventKind {
    ENGINE_EVENT_OTHER,
    ENGINE_EVENT_CREATE,
    ENGINE_EVENT_START,
    ENGINE_EVENT_DIE,
    ENGINE_EVENT_OOM,
    ENGINE_EVENT_HEALTHY,
    ENGINE_EVENT_UNHEALTHY,
    ENGINE_EVENT_RENAME,
    ENGINE_EVENT_DESTROY,
} EngineEventKind;

typedef struct EngineEvent {
    EngineEventKind kind;
    const char *action; /* as sent */
    const char *container_id;
    const char *name;             /* "" where unknown */
    const EnginePair *attributes; /* labels among them */
    size_t n_attributes;
    int exit_code;      /* of DIE; -1 where unknown */
    uint64_t time_nsec; /* wall clock */
} EngineEvent;

typedef struct EngineEvents EngineEvents;
typedef struct EngineEventsHandlers {
    /* One event of a container. */
    void (*on_event)(const EngineEvent *event, void *userdata);
    /* The stream is up, for the first time or again: events may have been missed, look at
     * everything. It is called after events are being listened to, so that nothing falls between.
     */
    void (*on_up)(void *userdata);
    /* The stream is gone, or could not be had; said once for each outage. It is tried again with
     * back-off, for ever. */
    void (*on_down)(const Error *err, void *userdata);
} EngineEventsHandlers;

/* Listens to events of containers that carry `label` (NULL: all), for ever. To be freed before the
 * engine. */
int engine_events_new(Engine *engine, const char *label, const EngineEventsHandlers *handlers,
                      void *userdata, EngineEvents **ret, Error *err) must_check;
bool engine_events_is_up(const EngineEvents *events);
/* May be called from inside a handler. */
EngineEvents *engine_events_free(EngineEvents *events);
DEFINE_AUTO(EngineEvents, engine_events_free)

#endif
