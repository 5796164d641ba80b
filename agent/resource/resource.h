/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_RESOURCE_RESOURCE_H
#define AGENT_RESOURCE_RESOURCE_H

/* Everything a plan declares is a resource: it can be observed, brought to what is declared,
 * undone, and described. A kind is one const ResourceOps; the registry in resource.c lists them. A
 * resource never decides when it is worked on: the reconciler does (agent/agentd), in stages, with
 * back-off. A resource that notices something (a container died) says resource_wants_attention().
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "agent/base/error.h"
#include "agent/base/log.h"
#include "agent/cloud/cloud.h"
#include "agent/engine/engine.h"
#include "agent/io/bus.h"
#include "agent/io/db.h"
#include "agent/io/http.h"
#include "agent/plan/plan.h"

typedef struct Resource Resource;
typedef struct ResourceContext ResourceContext;
typedef struct SecretStore SecretStore;

/* Stages run in this order; within one, resources are worked on side by side, but for scripts,
 * which keep the order of the plan. */
typedef enum ResourceStage {
    STAGE_SYSTEM,
    STAGE_SECRETS,
    STAGE_CONTAINERS,
    STAGE_IMAGES,
    STAGE_CRAWLER,
    STAGE_MAX,
} ResourceStage;

typedef enum ResourceState {
    RESOURCE_PENDING,  /* not looked at yet */
    RESOURCE_APPLYING, /* at work */
    RESOURCE_OK,       /* as declared when last looked at */
    RESOURCE_WAITING,  /* for something else: a secret, a person; nothing is wrong with it */
    RESOURCE_FAILED,   /* `error` says why; the reconciler tries again, or a person must act */
    RESOURCE_STATE_MAX,
} ResourceState;
const char *resource_state_name(ResourceState state);

typedef struct ResourceOps {
    const char *kind; /* "timezone", "swap", "file": in status, state and logs; never renamed */
    ResourceStage stage;
    bool ordered; /* one after the other, in plan order, not side by side: scripts */

    /* Creates the resources of this kind that the plan declares, by resource_add(). */
    int (*declare)(ResourceContext *context, const Plan *plan, Error *err);

    /* Observes without changing or waiting (context->dry_run says what for). 1: differs, and
     * *ret_difference (free()) says in words what apply() would do ("write /etc/motd (mode 0644)");
     * 0: as declared. Negative: cannot be known now (`err`): apply() is not called then unless the
     * kind is transient. */
    int (*check)(Resource *resource, char **ret_difference, Error *err);

    /* Begins to bring it to what is declared. It ends with exactly one resource_finish(), now or
     * later, and may be cancelled by `cancel`. */
    void (*apply)(Resource *resource);
    void (*cancel)(Resource *resource); /* NULL: nothing can be pending */

    /* Undoes it when it left the plan, where that is safe and obvious; ends as apply() does. NULL:
     * it is left alone. `left_alone` says what stays. */
    void (*remove)(Resource *resource);
    const char *left_alone;
    bool (*goes)(const Resource *resource); /* this one does all the same; NULL: none */

    /* The item in the status document (agent/io/status-keys.h). NULL: the general one. Containers
     * and secrets have their own lists. */
    json_t *(*describe)(const Resource *resource);
    /* The event that says that it failed. NULL: "resource-failed". */
    const char *(*failure_event)(const Resource *resource);

    /* Whether it uses that secret of the plan: it is looked at when another version comes. NULL: it
     * uses none, but for containers, which the plan tells of. */
    bool (*uses_secret)(const Resource *resource, const char *name);

    /* Takes over what a former object of the same kind and name had in hand when only other parts
     * of the plan changed. `from` is freed afterwards. NULL: nothing is in hand. */
    void (*inherit)(Resource *resource, Resource *from);

    void (*free)(Resource *resource); /* the kind's own part; also cancels. NULL: nothing */
} ResourceOps;

struct Resource {
    const ResourceOps *ops;
    ResourceContext *context;
    char *name;
    bool required; /* holds the later stages of a first boot while it fails */
    void *item;    /* the kind's own part */

    /* The reconciler's. */
    ResourceState state;
    uint64_t state_at; /* wall clock */
    Error error;       /* why it failed, or what it waits for; unset otherwise */
    char *told;        /* the kind's: the failure that an event of its own has told already */
    bool dirty, leaving;
    struct ResourceWork *work;
};

/* What a resource asks of the daemon around it. */
typedef struct ResourceHost {
    void (*finished)(Resource *resource, Error *err, void *userdata); /* takes err's contents */
    void (*attention)(Resource *resource, void *userdata);
    void (*changed)(Resource *resource, void *userdata); /* its description did: status follows */
    void (*event)(LogLevel level, const char *event, const char *const *fields, const char *text,
                  void *userdata);
    int (*add)(Resource *resource, void *userdata); /* takes it */
    /* A secret has another good version: whoever uses it is looked at after the stage of secrets.
     */
    void (*secret_changed)(Resource *secret, void *userdata);
    void (*poweroff)(const char *reason, void *userdata);
} ResourceHost;

struct ResourceContext {
    sd_event *event;
    HttpClient *http;
    Cloud *cloud;
    Engine *engine;
    Db *db; /* state.db; schema of a kind's tables: its migrations in agent/agentd/state.c */
    SecretStore *secrets; /* agent/resource/secrets.h */
    sd_bus *bus;          /* NULL where there is none */
    const char *root;     /* where system resources are applied: "/" but in tests */
    const char *state_dir, *runtime_dir;
    const char *crawler_dir; /* crawlerd's runtime directory */
    const char *instance_id; /* "" until it is known */
    bool first_boot;         /* no generation was ever applied on this instance */
    const Plan *plan;        /* in force; valid as long as its resources are */
    uint64_t generation;     /* of that plan: its document is in table `generation` of state.db */
    unsigned engine_outages; /* so far: who watches a container tells its death from the engine's */
    bool draining;           /* preempted or going down: nothing new is begun */
    bool dry_run; /* check() is asked what an apply would change, not what is worth a look */
    const ResourceHost *host;
    void *host_userdata;
};

/* Registered kinds, in stage order, ended by NULL. */
extern const ResourceOps *const resource_kinds[];
const ResourceOps *resource_kind(const char *kind);

/* Creates one and hands it to the host. `item` becomes the resource's (freed by ops->free); on
 * failure it is freed too. */
int resource_add(ResourceContext *context, const ResourceOps *ops, const char *name, bool required,
                 void *item, Error *err) must_check;
Resource *resource_free(Resource *resource);
DEFINE_AUTO(Resource, resource_free)

/* The end of apply() or remove(). `err` NULL or unset: well. Its contents are taken. Code
 * -EINPROGRESS: nothing is wrong, it waits for something that will say so. kind INVALID waits for a
 * person or a new plan; the others are tried again. */
void resource_finish(Resource *resource, Error *err);
/* Something happened to it outside: look soon. */
void resource_wants_attention(Resource *resource);
void resource_changed(Resource *resource);
/* A thing an operator acts on: one journal record with its MESSAGE_ID, one row in the event list.
 * `event` is a name of agent/agentd/events.h. */
void resource_event(const Resource *resource, LogLevel level, const char *event,
                    const char *const *fields, const char *format, ...) printf_like(5, 6);

/* `path` below the context's root; free(). */
char *resource_path(const ResourceContext *context, const char *path);

#endif
