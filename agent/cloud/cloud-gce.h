/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_CLOUD_CLOUD_GCE_H
#define AGENT_CLOUD_CLOUD_GCE_H

/* Between the files of Compute Engine: cloud-gce.c (detection, the table), -metadata.c (the tree as
 * a state), -watch.c, -token.c, -secret.c, -judge.c (what a refusal means), -login.c, -publish.c.
 */

#include "agent/cloud/cloud-private.h"
#include "agent/io/json.h"

#define GCE_SCOPE_ALL "https://www.googleapis.com/auth/cloud-platform"

typedef struct TokenOp TokenOp;
typedef struct Publication Publication;

typedef struct Gce {
    Cloud cloud;
    char *base;    /* "http://169.254.169.254/computeMetadata/v1/" */
    bool is_moved; /* by the environment, onto loopback: everything it hands out is a test's */

    char *token;
    uint64_t token_ends_usec;
    uint64_t token_asked_usec;
    HttpOp *token_request;
    TokenOp *token_waiters;

    Publication *publications;
    Timer *publish_timer;
    HttpOp *publish_request;
    uint64_t published_usec;
    bool publish_is_off;
} Gce;

static inline Gce *gce_of(const Cloud *cloud)
{
    return container_of((Cloud *)cloud, Gce, cloud);
}

/* A request to the metadata server: header, no proxy, one redirect within it. `path` is below
 * computeMetadata/v1/. `url` gets the URL; free it once the operation was started. */
int gce_request(const Gce *gce, const char *path, HttpRequest *ret, char **ret_url) must_check;

/* cloud-gce-metadata.c. `*ret_raw_path` is where the plan must be read byte by byte, since JSON
 * could not carry it; NULL usually. */
int gce_parse_root(const char *data, size_t size, CloudState **ret, char **ret_raw_path, Error *err)
    must_check;
/* What is behind the last slash; "" of NULL. */
const char *gce_last_part(const char *path);

/* cloud-gce-judge.c */
int gce_judge(const Cloud *cloud, const HttpResponse *response, const CloudNeed *need, Error *err);
/* The same where the access scopes were just asked for (one a line). */
int gce_judge_with(const CloudIdentity *identity, const char *scopes_text,
                   const HttpResponse *response, const CloudNeed *need, Error *err);
bool gce_scopes_suffice(const CloudIdentity *identity, char **ret_remedy);

/* cloud-gce-cure.c */
extern const CloudApis gce_apis;
char *gce_cure(const CloudIdentity *identity, CloudTrouble trouble);
/* The peer's own sentence, made printable; NULL when it sent none. */
char *gce_peer_sentence(const HttpResponse *response);
/* Adds ": sentence" to a message. */
int gce_add_sentence(const HttpResponse *response, Error *err);

/* The rest are rows of the table. */
int gce_watch(Cloud *cloud, const CloudWatchHandlers *handlers, void *userdata, CloudOp **ret,
              Error *err);
int gce_read(Cloud *cloud, CloudSnapshotHandler handler, void *userdata, CloudOp **ret, Error *err);
int gce_token(Cloud *cloud, CloudTokenHandler handler, void *userdata, CloudOp **ret, Error *err);
void gce_token_invalidate(Cloud *cloud, const char *token);
void gce_token_close(Gce *gce);
int gce_secret(Cloud *cloud, const char *name, const char *version, bool version_only,
               CloudSecretHandler handler, void *userdata, CloudOp **ret, Error *err);
int gce_secret_check_name(const char *name, Error *err);
bool gce_login_applies(const Cloud *cloud, const char *registry_host);
bool gce_login_realm_allowed(const Cloud *cloud, const char *registry_host, const char *realm_url);
int gce_login(Cloud *cloud, const char *registry_host, CloudLoginHandler handler, void *userdata,
              CloudOp **ret, Error *err);
void gce_login_refused(Cloud *cloud, const char *registry_host);
int gce_login_explain(const Cloud *cloud, const char *registry_host, const char *repository,
                      Error *err);
void gce_publish(Cloud *cloud, const char *key, const char *text);
void gce_publish_close(Gce *gce);

#endif
