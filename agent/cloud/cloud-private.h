/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_CLOUD_CLOUD_PRIVATE_H
#define AGENT_CLOUD_CLOUD_PRIVATE_H

/* What a cloud implements, and what all of them share. */

#include "agent/base/list.h"
#include "agent/cloud/cloud.h"
#include "agent/io/loop.h"

/* One answer to "who are we and what is wanted": kept by whoever compares with it later. */
typedef struct CloudState {
    unsigned n_ref;
    CloudIdentity identity;
    CloudPlanSource plan_source;
    char *plan_where;
    char *plan; /* NULL: none */
    size_t plan_size;
    char plan_sha256[SHA256_HEX_MAX];
    bool preempted;
    CloudMaintenance maintenance;
    char *clock_token; /* changes when the wall clock may have jumped */
} CloudState;

CloudState *cloud_state_new(void);
CloudState *cloud_state_ref(CloudState *state);
CloudState *cloud_state_unref(CloudState *state);
DEFINE_AUTO(CloudState, cloud_state_unref)
/* Copies the plan and hashes it. */
int cloud_state_set_plan(CloudState *state, const char *plan, size_t size) must_check;
/* A set of CloudChange; everything when `before` is NULL. */
unsigned cloud_state_compare(const CloudState *before, const CloudState *after);
CloudSnapshot cloud_state_snapshot(const CloudState *state);

/* Every concrete operation begins with one of these. */
struct CloudOp {
    Cloud *cloud; /* NULL once the cloud is gone */
    LIST_FIELDS(CloudOp, all);
    /* Lets go of everything that it waits for and owns; called once or twice. */
    void (*release)(CloudOp *op);
    void (*later)(CloudOp *op); /* see cloud_op_defer() */
    Timer *timer;
    bool *freed; /* set when it is freed inside a handler that is called several times */
};

/* A zeroed object of `size` bytes that begins with a CloudOp. */
void *cloud_op_new(Cloud *cloud, size_t size, void (*release)(CloudOp *op));
/* Calls `later` at the next turn of the loop, or after `delay_usec`. */
int cloud_op_defer(CloudOp *op, uint64_t delay_usec, void (*later)(CloudOp *op)) must_check;

struct CloudOps {
    const char *name;
    bool (*detect)(const CloudConfig *config);
    int (*open)(const CloudConfig *config, Cloud **ret, Error *err);
    void (*close)(Cloud *cloud); /* its own part; operations are released already */

    int (*watch)(Cloud *cloud, const CloudWatchHandlers *handlers, void *userdata, CloudOp **ret,
                 Error *err);
    int (*read)(Cloud *cloud, CloudSnapshotHandler handler, void *userdata, CloudOp **ret,
                Error *err);
    int (*token)(Cloud *cloud, CloudTokenHandler handler, void *userdata, CloudOp **ret,
                 Error *err);
    void (*token_invalidate)(Cloud *cloud, const char *token);
    int (*judge)(const Cloud *cloud, const HttpResponse *response, const CloudNeed *need,
                 Error *err);
    int (*secret)(Cloud *cloud, const char *name, const char *version, bool version_only,
                  CloudSecretHandler handler, void *userdata, CloudOp **ret, Error *err);
    int (*secret_check_name)(const char *name, Error *err);
    bool (*login_applies)(const Cloud *cloud, const char *registry_host);
    bool (*login_realm_allowed)(const Cloud *cloud, const char *registry_host,
                                const char *realm_url);
    int (*login)(Cloud *cloud, const char *registry_host, CloudLoginHandler handler, void *userdata,
                 CloudOp **ret, Error *err);
    void (*login_refused)(Cloud *cloud, const char *registry_host);
    int (*login_explain)(const Cloud *cloud, const char *registry_host, const char *repository,
                         Error *err);
    bool (*scopes_suffice)(const CloudIdentity *identity, char **ret_remedy);
    const CloudApis *apis; /* NULL: none */
    char *(*cure)(const CloudIdentity *identity, CloudTrouble trouble);
    void (*publish)(Cloud *cloud, const char *key, const char *text);
};

/* Every concrete cloud begins with one of these. */
struct Cloud {
    const CloudOps *ops;
    sd_event *event;
    HttpClient *http;
    char *root; /* "" for the machine's own */
    CloudOp *all_ops;
    CloudState *state; /* as last read; NULL before */
};

/* A zeroed object of `size` bytes that begins with a Cloud. */
void *cloud_object_new(const CloudOps *ops, size_t size, const CloudConfig *config);
/* -EINVAL: no secret can be called so. Its length is told instead of it unless it is a full name.
 */
int cloud_refuse_secret_name(const char *name, Error *err);
/* Becomes what cloud_identity_peek() shows. */
void cloud_state_adopt(Cloud *cloud, CloudState *state);

#endif
