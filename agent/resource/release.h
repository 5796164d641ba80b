/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_RESOURCE_RELEASE_H
#define AGENT_RESOURCE_RELEASE_H

/* A release is what is proved, rolled back and quarantined: an image digest, the container's spec,
 * and the versions of its secrets, named by their hash, which the container carries as a label. And
 * the slot: where a container of the plan stands between two releases. Both live in state.db and
 * are written before the step that they announce. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/base/error.h"
#include "agent/io/db.h"
#include "agent/plan/plan.h"

#define RELEASE_ID_SIZE 20 /* hex digits of the SHA-256: 80 bits, short enough to be read aloud */

#define LABEL_CONTAINER "io.mervis.container"
#define LABEL_RELEASE   "io.mervis.release"

typedef enum RolloutState {
    ROLLOUT_NEW,
    ROLLOUT_RESOLVING,
    ROLLOUT_PULLING,
    ROLLOUT_STAGED,
    ROLLOUT_SWITCHING,
    ROLLOUT_PROVING,
    ROLLOUT_COMMITTED,
    ROLLOUT_SETTLED,
    ROLLOUT_ROLLING_BACK,
    ROLLOUT_ROLLED_BACK,
    ROLLOUT_FAILED,
    ROLLOUT_WAITING,
    ROLLOUT_DONE,
    ROLLOUT_STATE_MAX,
} RolloutState;
const char *rollout_state_name(RolloutState state);

typedef struct Release {
    char *id;
    char *container;
    char *image;         /* the reference as the plan said it */
    char *digest;        /* "sha256:…" of index or manifest, as the registry named it */
    json_t *secrets;     /* {"name": "version"} */
    uint64_t generation; /* the plan that has its spec */
    uint64_t created_at, proved_at; /* wall clock; 0: never */
    uint64_t quarantined_at;        /* 0: it is not */
    char *reason;                   /* of the quarantine */
    bool digest_is_bad;             /* the digest is what changed, and is quarantined, too */
} Release;

/* Makes the release that this plan wants with that digest. `versions`: of every secret that the
 * container needs (borrowed). */
int release_new(const Plan *plan, const PlanContainer *container, uint64_t generation,
                const char *digest, const json_t *versions, Release **ret, Error *err) must_check;
Release *release_free(Release *release);
DEFINE_AUTO(Release, release_free)

int release_store(Db *db, const Release *release, Error *err) must_check;
/* 1 found, 0 none. */
int release_load(Db *db, const char *container, const char *id, Release **ret, Error *err)
    must_check;
int release_prove(Db *db, const char *container, const char *id, Error *err) must_check;
int release_quarantine(Db *db, const char *container, const char *id, bool digest_is_bad,
                       const char *reason, Error *err) must_check;
/* The quarantine of that digest, whatever spec and secrets it came with: 1 found, 0 none. */
int release_load_bad_digest(Db *db, const char *container, const char *digest, Release **ret,
                            Error *err) must_check;
/* `agentctl retry`: lifts every quarantine of the container. Returns how many. */
int release_unquarantine(Db *db, const char *container, Error *err) must_check;
/* [{"digest", "release", "reason", "at", "digest_is_bad"}], newest first. New reference. */
int release_list_quarantined(Db *db, const char *container, json_t **ret, Error *err) must_check;
/* The release proved last before `current`: what a rollback by hand goes to. 1 found, 0 none. */
int release_previous(Db *db, const char *container, const char *current, Release **ret, Error *err)
    must_check;
/* Keeps the rows of `current`, of the last `keep` proved releases, of the last proved one of each
 * of the last `keep` digests, and of the latest quarantines. */
int release_trim(Db *db, const char *container, const char *current, unsigned keep, Error *err)
    must_check;
/* The plan that a release was made from. */
int release_plan(Db *db, const Release *release, Plan **ret, Error *err) must_check;

typedef struct Slot {
    RolloutState state;
    char *current;     /* release that serves, or NULL */
    char *next;        /* release that is being brought in, or NULL */
    char *previous;    /* release before `current` */
    char *held_digest; /* update.policy manual: a newer digest that waits for `agentctl apply` */
    char *boot_id;     /* of the boot in which `state` was entered */
    uint64_t state_at; /* wall clock */
    uint64_t committed_at;  /* wall clock; the settle time counts from here; 0: it is over */
    uint64_t stopped_at;    /* wall clock; when the switch under way stopped what served; 0: it
                               did not */
    uint64_t downtime_usec; /* of the last switch; UINT64_MAX: never measured */
    uint64_t deaths;        /* of `current`: a job's runs that failed, a service's ends since it
                               was committed */
    int exit_status;        /* of a job's last run; -1: none */
    bool run_again;         /* a job that ended without being done: its end is accounted for */
} Slot;

int slot_load(Db *db, const char *container, Slot *ret, Error *err) must_check;
int slot_save(Db *db, const char *container, const Slot *slot, Error *err) must_check;
int slot_delete(Db *db, const char *container, Error *err) must_check;
void slot_done(Slot *slot);
/* Names of all containers that have a slot: those that left the plan among them. strv_free(). */
int slot_names(Db *db, char ***ret, Error *err) must_check;

/* This boot's id, as the kernel names it. */
#define BOOT_ID_SIZE 37
int boot_id_read(char ret[static BOOT_ID_SIZE], Error *err) must_check;

/* Migration of state.db that makes the tables of this file and of secrets.c. */
extern const char release_schema[];

#endif
