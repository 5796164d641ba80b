/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_ENGINE_REGISTRY_H
#define AGENT_ENGINE_REGISTRY_H

/* The pull side of the OCI distribution API: what does a tag stand for, is it for this platform,
 * how much is to be downloaded. Layers themselves are the engine's business. Everything read is
 * checked against its digest. A token belongs to one operation, or to the caller's RegistryToken,
 * and is cleansed with it; credentials are asked for only after the registry challenged us, and
 * never follow a redirect to another host.
 *
 * A pending operation is an object; freeing it cancels it. */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "agent/base/error.h"
#include "agent/engine/manifest.h"
#include "agent/engine/reference.h"
#include "agent/io/http.h"

#define REGISTRY_NEAREST_TAGS 5    /* named where a tag is missing */
#define REGISTRY_TAGS_MAX     1000 /* read for that, at most, in pages */

typedef struct RegistryOp RegistryOp;

/* How far a refusal got, for whoever knows the remedy (a scope, a role). */
typedef struct RegistryDenial {
    const char *host;
    const char *path;
    long status;           /* 401, 403 or 404 */
    const char *code;      /* "DENIED", "UNAUTHORIZED", "NAME_UNKNOWN"; "" when there is none */
    const char *message;   /* the registry's own words, escaped; "" */
    bool at_token_service; /* refused where the token is made, else at the repository */
    bool had_credentials;  /* else we came as nobody */
} RegistryDenial;

typedef struct RegistryAuth {
    /* The registry of that host wants to know who we are. Answer with registry_give_credentials(),
     * at once or later. `again`: those given before were refused; fresh ones are wanted. NULL:
     * there are none, anonymous tokens are tried. */
    void (*want_credentials)(RegistryOp *op, const char *host, bool again, void *userdata);
    /* May put a better remedy into `err` (already set). NULL: the general one stays. */
    void (*explain)(const RegistryDenial *denial, Error *err, void *userdata);
} RegistryAuth;

/* Where credentials will be sent: the token service that the registry named, NULL when it is the
 * registry itself. Whose credentials may not travel there gives none. */
const char *registry_realm(const RegistryOp *op);

/* The answer: copied and cleansed when freed. NULL `username`: there are none for that host (a
 * public image). `err` (copied): they could not be had, and the operation ends with that. */
void registry_give_credentials(RegistryOp *op, const char *username, const char *password,
                               const Error *err);

typedef struct RegistryImage {
    const char *digest;          /* what the reference stands for: of the index, or the manifest */
    const char *manifest_digest; /* of our platform's manifest */
    const char *config_digest;
    Platform platform;
    uint64_t compressed_bytes; /* layers and config */
    size_t n_layers;
    bool unchanged; /* `digest` is the known one; nothing but `digest` is set */
} RegistryImage;

/* `image` is NULL when `err` is set; both live during the call only. The handler may free the
 * operation. Codes worth telling apart: -ENOENT (no such tag, digest or repository), -ENOEXEC
 * (platform), -EACCES (DENIED), -EBADMSG (CORRUPT: contradicts its digest). */
typedef void (*RegistryHandler)(RegistryOp *op, const RegistryImage *image, const Error *err,
                                void *userdata);

/* The token of one repository from one operation to the next, until it expires: a look at a tag is
 * one request then, and the token service is not asked each time. Zeroed: none. */
typedef struct RegistryToken {
    char *base, *path;   /* of the repository that it is for */
    char *bearer;        /* cleansed */
    uint64_t until_usec; /* boottime */
} RegistryToken;
void registry_token_done(RegistryToken *token);

typedef struct RegistryQuery {
    const Reference *reference; /* copied */
    const Platform *platform;   /* copied; NULL: this machine's */
    const char *known_digest; /* copied; the answer is `unchanged` when it is still that one, after
                                 one HEAD; NULL: the whole truth */
    const RegistryAuth *auth; /* must outlive the operation; NULL: anonymous */
    void *auth_userdata;
    RegistryToken *token; /* read and written; must outlive the operation. NULL: kept nowhere */
    unsigned tries;       /* of each request; 0: 3 */
} RegistryQuery;

int registry_resolve(HttpClient *http, sd_event *event, const RegistryQuery *query,
                     RegistryHandler handler, void *userdata, RegistryOp **ret, Error *err)
    must_check;
RegistryOp *registry_op_free(RegistryOp *op);
DEFINE_AUTO(RegistryOp, registry_op_free)

#endif
