/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_ENGINE_REGISTRY_INTERNAL_H
#define AGENT_ENGINE_REGISTRY_INTERNAL_H

/* One resolution, shared by the files that carry it out: registry.c walks from tag to platform
 * manifest, registry-auth.c answers challenges, registry-tags.c says what is there instead. */

#include "agent/engine/registry.h"
#include "agent/io/loop.h"

typedef enum RegistryStep {
    REGISTRY_STEP_HEAD,     /* what digest does the tag have? */
    REGISTRY_STEP_MANIFEST, /* what the reference stands for: image or index */
    REGISTRY_STEP_PLATFORM, /* of an index: our platform's manifest */
    REGISTRY_STEP_CONFIG,   /* of an image: the blob that names its platform */
    REGISTRY_STEP_TAGS,     /* it is not there: what is? */
} RegistryStep;

typedef enum RegistryScheme {
    REGISTRY_SCHEME_NONE, /* not challenged yet */
    REGISTRY_SCHEME_BEARER,
    REGISTRY_SCHEME_BASIC,
} RegistryScheme;

struct RegistryOp {
    HttpClient *http;
    Reference *reference;
    Platform platform;
    char *name; /* the reference as text, for messages */
    char *base; /* "https://host" */
    char *known_digest;
    const RegistryAuth *auth;
    void *auth_userdata;
    unsigned tries;
    RegistryHandler handler;
    void *userdata;

    RegistryStep step;
    HttpOp *request;
    Timer *deferred; /* ends the operation from the loop, not from inside a caller's call */
    Error deferred_error;

    RegistryScheme scheme;
    char *realm, *service;
    char *username, *password; /* cleansed */
    char *bearer;              /* cleansed */
    RegistryToken *token;      /* the caller's; NULL */
    bool recalled;             /* `bearer` is of an operation before */
    bool asked;                /* for credentials */
    bool asked_again;
    bool waiting; /* for registry_give_credentials() */

    char *digest, *manifest_digest, *config_digest;
    uint64_t entry_size; /* of the chosen entry, as the index declares it */
    Platform image_platform;
    uint64_t compressed_bytes;
    size_t n_layers;

    char **tags;
    size_t n_tags;
    char *tags_url; /* of the next page */
    unsigned pages;
};

/* The error body of a registry or a token service. Both are "" where it has none; free() them. */
void registry_read_error(const HttpResponse *response, char **ret_code, char **ret_message);

/* Starts the current step's request, with what is known of authentication. That it could not be
 * started reaches the handler later. */
void registry_ask(RegistryOp *op);
/* Ends the operation with `err` (emptied). Nothing of `op` may be touched afterwards. */
void registry_fail(RegistryOp *op, Error *err);
/* The same from the next turn of the loop. */
void registry_fail_later(RegistryOp *op, Error *err);
void registry_fail_missing_repository(RegistryOp *op);
/* Refuses connections to private addresses but where the plan itself points there. */
int registry_check_address(const char *address, uint16_t port, const char *host, void *userdata);

/* registry-auth.c: the caller's token, if it is for this repository and still good. -ENOMEM. */
int registry_recall_token(RegistryOp *op) must_check;
/* The registry does not take it (any more): the operation is one without. */
void registry_forget_token(RegistryOp *op);
/* A 401 of the repository. */
void registry_challenged(RegistryOp *op, const HttpResponse *response);
/* A refusal that is final; ends the operation later. */
void registry_denied(RegistryOp *op, const HttpResponse *response, bool at_token_service);

/* registry-tags.c: begins to read the tags; ends the operation. */
void registry_list_tags(RegistryOp *op);
void registry_tags_page(RegistryOp *op, const HttpResponse *response);

#endif
