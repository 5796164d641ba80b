/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_CLOUD_CLOUD_H
#define AGENT_CLOUD_CLOUD_H

/* The cloud that this machine runs in: who the machine is, its plan document, tokens, secrets,
 * registry logins, notices, and a place to publish status. Nothing outside this folder knows which
 * cloud it is. Every question is an operation: its handler is called exactly once, never from
 * inside the call that began it, and not at all when the operation was freed before. Operations
 * stay with whoever began them, who frees them afterwards too; a handler may free its own. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "agent/base/error.h"
#include "agent/io/crypto.h"
#include "agent/io/http.h"

/* Trouble with the metadata server is told after that long, since a boot may be faster than DHCP.
 */
#define CLOUD_TROUBLE_USEC (10 * SECOND)
#define CLOUD_PLAN_PATH    "/etc/mervis-agent/plan.json"
#define CLOUD_SECRETS_DIR  "/etc/mervis-agent/secrets"
#define CLOUD_SECRET_MAX   (64U << 10)
#define CLOUD_STATUS_MAX   4096

typedef struct Cloud Cloud;
typedef struct CloudOp CloudOp;
typedef struct CloudOps CloudOps;

typedef struct CloudConfig {
    sd_event *event;
    HttpClient *http; /* borrowed; outlives the cloud */
    const char
        *root; /* --root: where the local cloud's files are; NULL or "/": the machine's own */
} CloudConfig;

/* Chooses by the environment (GCE_METADATA_HOST) and by DMI; else "local". Asks no network. */
int cloud_new(const CloudConfig *config, Cloud **ret, Error *err) must_check;
Cloud *cloud_free(Cloud *cloud);
DEFINE_AUTO(Cloud, cloud_free)
const char *cloud_name(const Cloud *cloud); /* "gce", "local" */

/* Cancels whatever it waits for. */
CloudOp *cloud_op_free(CloudOp *op);
DEFINE_AUTO(CloudOp, cloud_op_free)

/* --- Who we are, what is wanted of us, and notices ---------------------------------------- */

typedef struct CloudIdentity {
    const char *cloud; /* "gce", "local" */
    char *instance_id; /* "6312345678901234567"; the machine id where there is no cloud */
    char *name;        /* short host name */
    char *project;     /* id; "" where there is no cloud, as all below */
    char *project_number;
    char *zone, *region;
    char *machine_type;
    char *service_account; /* e-mail; "" when none is attached */
    char **scopes;         /* access scopes of that account */
    char *group;           /* the managed instance group that made it, as a link; "" when none */
    char *role;            /* attribute mervis-role */
    char *universe;        /* "googleapis.com" */
    bool spot;
    bool publishes;      /* guest attributes are enabled */
    bool startup_script; /* an old startup script is set too and would work against us */
} CloudIdentity;

typedef enum CloudPlanSource {
    CLOUD_PLAN_NONE, /* no plan is set anywhere */
    CLOUD_PLAN_INSTANCE,
    CLOUD_PLAN_PROJECT,
    CLOUD_PLAN_LOCAL,
} CloudPlanSource;

typedef enum CloudMaintenance {
    CLOUD_MAINTENANCE_NONE,
    CLOUD_MAINTENANCE_MIGRATE,   /* live migration within a minute */
    CLOUD_MAINTENANCE_TERMINATE, /* the machine will be stopped */
} CloudMaintenance;

/* What differs from the snapshot before; all are set in the first one. */
typedef enum CloudChange {
    CLOUD_CHANGED_IDENTITY = 1 << 0,
    CLOUD_CHANGED_PLAN = 1 << 1, /* by our own hash; an ETag may return to its old value */
    CLOUD_CHANGED_PREEMPTED = 1 << 2,
    CLOUD_CHANGED_MAINTENANCE = 1 << 3,
    CLOUD_CHANGED_CLOCK = 1 << 4, /* suspended or migrated: the wall clock may have jumped */
    CLOUD_CHANGED_ALL = (1 << 5) - 1,
} CloudChange;

typedef struct CloudSnapshot {
    const CloudIdentity *identity;
    CloudPlanSource plan_source;
    const char *plan_where; /* "instance attribute mervis-plan", "/etc/mervis-agent/plan.json"; for
                               CLOUD_PLAN_NONE where it was looked for */
    const char *plan;       /* bytes as they were set, NUL-terminated; NULL when none. They may be
                               empty, and may be no UTF-8 */
    size_t plan_size;
    char plan_sha256[SHA256_HEX_MAX]; /* "" when none */
    bool preempted;
    CloudMaintenance maintenance;
} CloudSnapshot;

typedef struct CloudWatchHandlers {
    /* The first one comes as soon as the cloud answers (a pending preemption is seen in it), then
     * one a change. The snapshot is valid during the call. */
    void (*changed)(const CloudSnapshot *snapshot, unsigned changes, void *userdata);
    /* No answer since `failing_usec`: first after CLOUD_TROUBLE_USEC, then ever more rarely; a NULL
     * `err` says that it is over. Retrying goes on for ever meanwhile. May be NULL. Nobody was
     * waited for where the plan is a file that cannot be read: then it is 0, and told at once. */
    void (*trouble)(const Error *err, uint64_t failing_usec, void *userdata);
} CloudWatchHandlers;

/* One recursive long poll for identity, plan and notices. Lives until freed. */
int cloud_watch(Cloud *cloud, const CloudWatchHandlers *handlers, void *userdata, CloudOp **ret,
                Error *err) must_check;

/* The identity as last read, NULL before that. Borrowed until the loop turns. */
const CloudIdentity *cloud_identity_peek(const Cloud *cloud);
/* For tools and for whoever has no watch: one snapshot, a few tries. `snapshot` is NULL when `err`
 * is set. */
typedef void (*CloudSnapshotHandler)(const CloudSnapshot *snapshot, const Error *err,
                                     void *userdata);
int cloud_read(Cloud *cloud, CloudSnapshotHandler handler, void *userdata, CloudOp **ret,
               Error *err) must_check;

/* --- Credentials ---------------------------------------------------------------------------- */

/* The machine's access token: cached, fetched by one request however many ask, renewed when less
 * than 225 s are left, the old one used until it really ends. `token` is valid during the call,
 * NULL when `err` is set. */
typedef void (*CloudTokenHandler)(const char *token, const Error *err, void *userdata);
int cloud_token_get(Cloud *cloud, CloudTokenHandler handler, void *userdata, CloudOp **ret,
                    Error *err) must_check;
/* A peer answered 401 to that token: the next cloud_token_get() asks anew, unless it was replaced
 * already. */
void cloud_token_invalidate(Cloud *cloud, const char *token);

/* An HTTP request with the machine's token: a 401 renews the token once and repeats the request
 * once. `request->bearer` must be NULL; everything else means what http_start() says, and its
 * callbacks get `userdata`. When no token can be had, `err` says why and there is no response. */
typedef void (*CloudHttpHandler)(const HttpResponse *response, const Error *err, void *userdata);
int cloud_http(Cloud *cloud, const HttpRequest *request, CloudHttpHandler handler, void *userdata,
               CloudOp **ret, Error *err) must_check;

/* What an operation needed, for the words of a refusal. All strings; NULL where unknown. */
typedef struct CloudNeed {
    const char *what;       /* "secret kis-app-key": begins the message */
    const char *api;        /* "secretmanager.googleapis.com": for "API is off" */
    const char *permission; /* "secretmanager.versions.access" */
    const char *role;       /* "roles/secretmanager.secretAccessor" */
    const char *grant;      /* the command that grants it, without member and role:
                               "gcloud secrets add-iam-policy-binding KEY --project=p"; NULL: on the
                               project */
} CloudNeed;
/* An answer of one of this cloud's APIs as an Error: 0 for 2xx; 403 told apart into access scope,
 * IAM and API off, each with the command that cures it, this machine's own names filled in. Other
 * statuses as http_response_error() with the peer's own sentence. */
int cloud_judge(const Cloud *cloud, const HttpResponse *response, const CloudNeed *need,
                Error *err);

/* Whether the machine's access scopes let its token through at all; else `*ret_remedy` (free() it;
 * may be NULL) is the command. */
bool cloud_scopes_suffice(const Cloud *cloud, const CloudIdentity *identity, char **ret_remedy);

/* --- Secrets -------------------------------------------------------------------------------- */

typedef struct CloudSecret {
    SecretBytes *bytes; /* a handler may keep it: take_ptr(secret->bytes). NULL when only the
                           version was asked for */
    char *version;      /* resolved: "7" where "latest" was asked */
    char *resource;     /* canonical: "projects/123/secrets/KEY/versions/7" */
} CloudSecret;
/* `secret` is NULL when `err` is set: DENIED (scope, IAM or API off, each with its own remedy),
 * INVALID (missing, disabled, destroyed: -ENOENT, -ENODATA, -ENODATA), CORRUPT (CRC32C), TEMPORARY,
 * THROTTLED. */
typedef void (*CloudSecretHandler)(CloudSecret *secret, const Error *err, void *userdata);
/* `name` is short ("KEY": in the machine's project) or full ("projects/p/secrets/KEY",
 * "projects/p/locations/l/secrets/KEY", either with a "/versions/…" that wins over `version`);
 * `version` a number, an alias or NULL for "latest". */
int cloud_secret_fetch(Cloud *cloud, const char *name, const char *version,
                       CloudSecretHandler handler, void *userdata, CloudOp **ret, Error *err)
    must_check;
/* Only which version `version` is now: the value does not travel. For "latest" on a timer. */
int cloud_secret_resolve(Cloud *cloud, const char *name, const char *version,
                         CloudSecretHandler handler, void *userdata, CloudOp **ret, Error *err)
    must_check;
/* Whether the name is well formed, without asking anybody: 0, or INVALID. */
int cloud_secret_check_name(const Cloud *cloud, const char *name, Error *err);

/* --- Registries ----------------------------------------------------------------------------- */

/* Whether this cloud's token may be given to the registry of that host ("host" or "host:port"): its
 * own registries by name, on a label boundary and on their own port. A registry on loopback counts
 * only where the metadata server itself was moved to loopback by the environment: such a token is a
 * test's. A host that the plan's endpoints map stays what its name is. */
bool cloud_login_applies(const Cloud *cloud, const char *registry_host);
/* Whether the login of `registry_host` may travel to the token service that it named: the host
 * itself, another of this cloud's, or the host and port that an endpoint maps `registry_host` to;
 * https but for the latter and for loopback as above. */
bool cloud_login_realm_allowed(const Cloud *cloud, const char *registry_host,
                               const char *realm_url);
/* User name and password for Basic and for the engine's X-Registry-Auth; both NULL with no error:
 * anonymous. */
typedef void (*CloudLoginHandler)(const char *user, const char *password, const Error *err,
                                  void *userdata);
int cloud_login_get(Cloud *cloud, const char *registry_host, CloudLoginHandler handler,
                    void *userdata, CloudOp **ret, Error *err) must_check;
/* The registry did not take the login that it was given: the next one is made anew. */
void cloud_login_refused(Cloud *cloud, const char *registry_host);
/* A registry refused `repository` ("proj/repo/image") although we were logged in: puts the remedy
 * that fits (scope, role on that repository) on `err`. Returns err's code. */
int cloud_login_explain(const Cloud *cloud, const char *registry_host, const char *repository,
                        Error *err);

/* --- What a person needs to know of it ----------------------------------------------------- */

typedef struct CloudApis {
    const char *name;         /* "Google's APIs": begins a sentence */
    const char *access;       /* what a machine without a public address needs to reach them */
    const char *egress;       /* how such a machine reaches everybody else */
    const char *secrets_host; /* answers without a token; where secrets come from */
} CloudApis;
/* NULL where the machine is in no cloud. */
const CloudApis *cloud_apis(const Cloud *cloud);

typedef enum CloudTrouble {
    CLOUD_TROUBLE_NO_METADATA,
    CLOUD_TROUBLE_NO_PLAN,
    CLOUD_TROUBLE_STARTUP_SCRIPT, /* see CloudIdentity */
    CLOUD_TROUBLE_NO_APIS,
    CLOUD_TROUBLE_NO_EGRESS,
    CLOUD_TROUBLE_DISK_FULL,
    CLOUD_TROUBLE_MAX,
} CloudTrouble;
/* The command that cures it, with this machine's own names: free(); NULL where there is none. */
char *cloud_cure(const Cloud *cloud, CloudTrouble trouble);

/* --- Status --------------------------------------------------------------------------------- */

/* Publishes a short text under "mervis/<key>" where the cloud offers that, at most one write in
 * some seconds, the last text wins, an unchanged text is not written. Best effort: never an error;
 * "off" is a normal state. */
void cloud_publish(Cloud *cloud, const char *key, const char *text);

/* --- For agent/cloud/cloud-*.c only --------------------------------------------------------- */

extern const CloudOps cloud_gce;
extern const CloudOps cloud_local;

#endif
