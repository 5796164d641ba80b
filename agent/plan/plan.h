/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_PLAN_PLAN_H
#define AGENT_PLAN_PLAN_H

/* The plan: the one document that says what this VM shall be. Each struct below is filled by the
 * table of the same name in plan-*-fields.c; a member is added there in one row. After plan_parse()
 * every member is set: defaults are filled in, and strings are NULL only where the row has no
 * default and the document no key. Secrets are names here, never values. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/error.h"
#include "agent/io/crypto.h"
#include "agent/io/fields.h"

#define PLAN_VERSION    1
/* What a metadata attribute can hold. */
#define PLAN_SIZE_MAX   (256u << 10)
/* What the engine refuses to go below. */
#define PLAN_MEMORY_MIN (UINT64_C(6) << 20)

typedef enum PlanLocale {
    PLAN_LOCALE_EN,
    PLAN_LOCALE_KO,
} PlanLocale;

/* ---- system -----------------------------------------------------------------------------------
 */

typedef struct PlanSwapSize {
    bool by_memory; /* "auto": agentd chooses by the machine's memory */
    uint64_t bytes; /* otherwise */
} PlanSwapSize;

typedef struct PlanSwap {
    PlanSwapSize size;
    char *path;
    uint64_t swappiness;
} PlanSwap;

typedef struct PlanFile {
    char *path;    /* absolute, no "..", names the file */
    char *content; /* exactly one of content and secret is set */
    char *secret;  /* name in `secrets` */
    uint32_t mode; /* 0400 where a secret is given and no mode */
    char *owner;   /* name or number */
    char *group;
} PlanFile;

typedef enum PlanScriptWhen {
    PLAN_SCRIPT_ONCE,   /* once in the life of the instance */
    PLAN_SCRIPT_BOOT,   /* at every boot */
    PLAN_SCRIPT_CHANGE, /* when its text changed */
} PlanScriptWhen;

typedef struct PlanScript {
    char *name;
    char *run; /* begins with "#!" */
    int when;  /* PlanScriptWhen */
    uint64_t timeout_usec;
    bool required;  /* its failure holds the later stages at a first boot */
    char **secrets; /* names; NULL: none */
} PlanScript;

typedef struct PlanSystem {
    char *timezone;     /* NULL: left as it is */
    PlanSwap *swap;     /* NULL: none of ours */
    FieldArray files;   /* of PlanFile */
    FieldArray scripts; /* of PlanScript */
} PlanSystem;

/* ---- secrets ----------------------------------------------------------------------------------
 */

typedef struct PlanSecret {
    char *name;            /* how the plan calls it */
    char *secret;          /* how the cloud calls it: a short name of this project, or a full one */
    char *version;         /* "latest", or the cloud's own word for one */
    uint64_t refresh_usec; /* how often "latest" is looked at */
} PlanSecret;

/* ---- containers -------------------------------------------------------------------------------
 */

typedef enum PlanContainerMode {
    PLAN_MODE_SERVICE,
    PLAN_MODE_JOB, /* runs to completion once a release */
} PlanContainerMode;

/* A text, or the name of a secret: exactly one is set. */
typedef struct PlanValue {
    char *text;
    char *secret;
} PlanValue;

typedef struct PlanEnv {
    char *name;
    PlanValue value;
} PlanEnv;

typedef struct PlanLabel {
    char *name; /* never one of ours ("io.mervis.…") */
    char *value;
} PlanLabel;

typedef struct PlanUlimit {
    char *name;
    uint64_t value; /* soft and hard */
} PlanUlimit;

typedef struct PlanSecretFile {
    char *secret;
    char *path; /* inside the container */
    uint32_t mode;
} PlanSecretFile;

typedef struct PlanHealth {
    char *http; /* NULL: the image's own health check, or staying up */
    uint64_t interval_usec, timeout_usec;
    uint64_t retries;
    uint64_t start_period_usec;
    uint64_t stable_usec; /* without either: up for that long, without a restart, is healthy */
} PlanHealth;

typedef enum PlanUpdatePolicy {
    PLAN_UPDATE_AUTO,
    PLAN_UPDATE_MANUAL, /* a new digest waits for `agentctl apply` */
} PlanUpdatePolicy;

typedef enum PlanSwitch {
    PLAN_STOP_FIRST,
    PLAN_START_FIRST,
} PlanSwitch;

typedef enum PlanCure {
    PLAN_CURE_ROLLBACK,
    PLAN_CURE_KEEP, /* leave the new one as it is, and say so */
} PlanCure;

typedef struct PlanUpdate {
    int policy; /* PlanUpdatePolicy */
    uint64_t check_usec;
    int order;      /* PlanSwitch; plan_parse() has chosen where the document does not */
    int on_failure; /* PlanCure */
    uint64_t settle_usec;
} PlanUpdate;

typedef enum PlanOnSuccess {
    PLAN_ON_SUCCESS_NOTHING,
    PLAN_ON_SUCCESS_POWEROFF,
} PlanOnSuccess;

typedef enum PlanLogDriver {
    PLAN_LOG_JOURNALD,
    PLAN_LOG_JSON_FILE,
    PLAN_LOG_LOCAL,
    PLAN_LOG_NONE,
} PlanLogDriver;

typedef struct PlanContainer {
    char *name;
    int mode; /* PlanContainerMode */
    char *image;
    char **entrypoint; /* NULL or empty: the image's own */
    char **command;    /* likewise */
    char *user;        /* NULL: the image's own */
    char *workdir;
    FieldArray env;          /* of PlanEnv */
    FieldArray secret_files; /* of PlanSecretFile */
    char **ports;            /* each for plan_port_parse() */
    char **volumes;          /* each for plan_volume_parse() */
    char **tmpfs;            /* each for plan_tmpfs_parse() */
    char *network;           /* "bridge", "host", "none", or a network that exists */
    char **extra_hosts;      /* "name:address" */
    FieldArray labels;       /* of PlanLabel */
    uint64_t memory_bytes;   /* 0: no limit */
    double cpus;             /* 0: no limit */
    uint64_t pids;           /* 0: no limit */
    uint64_t shm_bytes;      /* 0: the engine's default */
    FieldArray ulimits;      /* of PlanUlimit */
    bool read_only;
    bool init;
    char **cap_drop, **cap_add;
    int log;           /* PlanLogDriver */
    char *stop_signal; /* NULL: the image's own */
    uint64_t stop_timeout_usec;
    PlanHealth health;
    PlanUpdate update;
    uint64_t retries; /* of a job */
    int on_success;   /* PlanOnSuccess, of a job */
} PlanContainer;

/* ---- the rest ---------------------------------------------------------------------------------
 */

typedef enum PlanScope {
    PLAN_SCOPE_MANAGED, /* images of repositories that the plan names or named, and dangling ones */
    PLAN_SCOPE_ALL,     /* all that nothing uses */
} PlanScope;

typedef struct PlanImages {
    uint64_t keep_previous;
    uint64_t min_age_usec;
    uint64_t disk_high, disk_low; /* percent */
    int scope;                    /* PlanScope */
} PlanImages;

typedef enum PlanNotifyKind {
    PLAN_NOTIFY_SLACK, /* and whatever takes the same body */
} PlanNotifyKind;

typedef struct PlanNotify {
    int kind;     /* PlanNotifyKind */
    char *secret; /* holds the URL */
    char **on;    /* events; NULL or empty: those that a person should act on */
} PlanNotify;

typedef struct PlanEndpoint {
    char *host;
    char *base_url;
} PlanEndpoint;

typedef struct Plan {
    uint64_t version;
    char *role; /* NULL: none */
    int locale; /* PlanLocale */
    PlanSystem system;
    FieldArray secrets;    /* of PlanSecret */
    FieldArray containers; /* of PlanContainer */
    PlanImages images;
    json_t *crawl;        /* NULL: no crawler; handed to crawlerd whole */
    FieldArray notify;    /* of PlanNotify */
    FieldArray endpoints; /* of PlanEndpoint */
    char *schema;         /* for editors; NULL: none */
} Plan;

/* PLAN_FOREACH(PlanContainer, c, plan->containers) */
#define PLAN_FOREACH(type, item, array)                                                            \
    for (type *item = (array).items, *item##_end_ = item ? item + (array).n : NULL;                \
         item != item##_end_; item++)

/* ---- reading and asking -----------------------------------------------------------------------
 */

/* Reads a document. Returns 0, or -EINVAL with every fault in `ret_errors` (field_errors_done()).
 * -ENOMEM. */
int plan_parse(const char *text, size_t size, Plan **ret, FieldErrors *ret_errors) must_check;
Plan *plan_free(Plan *plan);
DEFINE_AUTO(Plan, plan_free)

/* What only the machine can refuse: `is_replaced` when an instance group re-creates a VM that
 * stops. Returns 0 or -EINVAL with the faults; call at acceptance. */
int plan_check_identity(const Plan *plan, bool is_replaced, FieldErrors *ret_errors) must_check;

/* The identity of a document, whatever its blanks and the order of its keys: SHA-256 of the
 * canonical JSON. A document that is not JSON is hashed as it is (a refused one has a name too). */
int plan_hash(const char *text, size_t size, char ret[static SHA256_HEX_MAX]) must_check;

/* NULL when there is none of that name. */
const PlanSecret *plan_secret(const Plan *plan, const char *name);
const PlanContainer *plan_container(const Plan *plan, const char *name);
/* Names of the secrets that a container needs (environment and files), sorted, each once.
 * strv_free(). */
int container_secrets(const PlanContainer *container, char ***ret) must_check;
/* Names that the crawl part mentions as "secret": "NAME", sorted, each once. */
int plan_crawl_secrets(const Plan *plan, char ***ret) must_check;

/* What shapes the container itself, as canonical JSON: the release hash is made of it. Not in it:
 * name and image (the digest stands for it), and what only steers us (health, update, retries,
 * on_success). A secret is its name and what the cloud calls it. Values that are defaults are left
 * out, so that a field that a later version adds does not make a release of its own. free(). */
int container_spec_canonical(const Plan *plan, const PlanContainer *container, char **ret)
    must_check;

/* "[IP:]HOSTPORT:PORT[/tcp|udp]" */
typedef struct PlanPort {
    char address[46]; /* "" is all; without brackets */
    uint16_t host_port, container_port;
    bool udp;
} PlanPort;
int plan_port_parse(const char *text, PlanPort *ret) must_check;

/* "/host/path:/path[:ro|rw]" or "name:/path[:ro|rw]" */
typedef struct PlanVolume {
    char *source; /* path of a directory or file of the host, or name of a volume */
    char *target;
    bool is_bind; /* source is a path */
    bool read_only;
} PlanVolume;
int plan_volume_parse(const char *text, PlanVolume *ret) must_check;
void plan_volume_done(PlanVolume *volume);

/* "/path[:SIZE]" */
typedef struct PlanTmpfs {
    char *path;
    uint64_t size_bytes; /* 0: not limited */
} PlanTmpfs;
int plan_tmpfs_parse(const char *text, PlanTmpfs *ret) must_check;
void plan_tmpfs_done(PlanTmpfs *tmpfs);

/* "name:address", address numeric or "host-gateway". Outputs point to copies: free(). */
int plan_extra_host_parse(const char *text, char **ret_name, char **ret_address) must_check;

/* The words of the document for enum values: plan_log_names[container->log]. */
extern const char *const plan_locale_names[],
    *const plan_when_names[], *const plan_mode_names[],
                                  *const plan_log_names[],
                                      *const plan_policy_names[],
                                          *const plan_switch_names[],
                                              *const plan_cure_names[],
                                                  *const plan_on_success_names[],
                                                      *const plan_scope_names[],
                                                          *const plan_notify_names[];
/* The events that `notify.on` may name, NULL-terminated. */
extern const char *const plan_event_names[];

/* JSON Schema (2020-12) of a plan. New reference; NULL when memory is out. */
json_t *plan_schema(void);
/* The reference part of mervis-plan(5). */
int plan_manual(Buf *ret) must_check;
/* The outermost table, for tests that walk all rows. */
const Field *plan_fields(void);

#endif
