/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_ROLLOUT_WORLD_H
#define TESTS_UNIT_ROLLOUT_WORLD_H

/* One container of a plan between a scripted engine and a scripted registry, which remember what
 * they were told. The record (state.db) and the engine outlive the object that works on it, as they
 * outlive agentd: world_restart() is a kill -9 and a new start.
 *
 * Images are single letters. What becomes of a container that is started:
 *   X exits at once     Y never becomes healthy     Z cannot be started (no such program)
 *   V ends the engine when it is started    W ends it whenever it is looked at
 *   U hangs the engine when it is started
 *   any with version 9 of its secret exits at once
 *   a container of a job runs until "end" says how it ends; all others are healthy at once. */

#include "tests/unit/http-fixture.h"

#include "agent/agentd/state.h"
#include "agent/cloud/cloud.h"
#include "agent/engine/engine.h"
#include "agent/resource/container-internal.h"

/* Parts of the container in the plan. */
#define PORTS      "\"ports\": [\"8080:80\"],"
#define HTTP       "\"health\": {\"http\": \"http://127.0.0.1:1/\"},"
#define KEEP       "\"update\": {\"on_failure\": \"keep\"},"
#define FILES      "\"secret_files\": [{\"secret\": \"key\", \"path\": \"/run/key\"}],"
#define JOB        "\"mode\": \"job\","

#define BOXES_MAX  16
#define FAULTS_MAX 4

typedef enum BoxState { BOX_CREATED, BOX_RUNNING, BOX_RESTARTING, BOX_EXITED } BoxState;

typedef struct Box {
    char id[65], name[64], release[65];
    char image;      /* its letter */
    char key[8];     /* version of the secret in its environment */
    char mount[256]; /* file that it mounts; "" none */
    BoxState state;
    bool is_healed; /* the engine starts it by itself when it ended with a failure */
    int exit_code;
    unsigned restarts, starts;
    bool unhealthy;
} Box;

/* What happens to one request of the engine or the registry instead of an answer. */
typedef enum Strike {
    STRIKE_NONE,
    STRIKE_KILL,       /* agentd ends before the request has an effect */
    STRIKE_KILL_AFTER, /* after its effect, before its answer */
    STRIKE_REBOOT,     /* as KILL, and the machine comes up anew: nothing runs */
    STRIKE_FAIL,       /* HTTP 500 with words that nobody knows */
    STRIKE_FULL,       /* HTTP 500: the disk is full */
    STRIKE_LOST,       /* the connection ends before an answer, and the request had no effect */
    STRIKE_LOST_AFTER, /* the same, but it had */
    STRIKE_MAX,
} Strike;
extern const char *const strike_names[STRIKE_MAX];

typedef struct Fault {
    char call[48]; /* "start B": the beginning of a traced call */
    unsigned times;
    int status;
    char message[160];
} Fault;

typedef struct World {
    Fixture f;
    char *dir;
    State state;
    Cloud *cloud;
    Engine *engine;
    SecretStore *secrets;
    ResourceContext context;
    Resource *resource;
    Plan *plan;

    /* The plan. */
    char greeting[16];
    bool is_job;
    const char *more; /* of the container, as JSON: "\"mode\": \"job\"," */
    uint64_t settle_usec;

    /* The engine. */
    Box boxes[BOXES_MAX];
    size_t n_boxes;
    unsigned n_created;
    bool images[26];
    Fault faults[FAULTS_MAX];

    /* The registry. */
    char tag; /* what "stable" stands for; 0: no such tag */
    bool pushed[26], registry_down;
    bool silent; /* who is asked at health.http answers 503 */
    char *manifests[26], *configs[26], *digests[26];

    /* The next strike: at that request, counted from 1; 0 never. */
    unsigned strike_at, n_requests;
    Strike strike;
    bool struck, killed;

    /* What is seen. */
    Buf trace;               /* "state: call", one line a call that changes anything */
    Buf ready;               /* "call+ call-": whether it was ready when that was asked */
    unsigned n_most_running; /* at the same time, of service containers */
    bool dirty;
    unsigned tries; /* looks that a temporary failure asked for, since the last word */
    Error error;    /* how the last look ended */
    Buf events;     /* their names */
    unsigned n_poweroffs;
    unsigned restless; /* so many requests of the registry, each with a look asked for meanwhile */
    unsigned restless_at_pull; /* how many of them were left when an image was pulled */
} World;

World *world_new(const char *more, bool is_job);
World *world_free(World *w);
DEFINE_AUTO(World, world_free)

/* One or more words, separated by ';', each of them followed by a run until nothing is left to do:
 *   look | push B | tag gone | registry down | registry up | health down | health up | key 2 | plan
 * hello | settle agentd (killed and started) | reboot | retry | rollback | restart | apply oom A
 * (the engine says that it ran out of memory) die A 3 (crashes so many times; the engine starts it
 * again) | end 0 (a job, with that status) unhealthy A | stop A (behind our back) | remove
 * web.previous | forget A (its image, on this machine) unpush A (in the registry) | fail <times>
 * <status> <call> = <message> */
void world_do(World *w, const char *words);
/* Runs until nothing is left to do; false when the process was killed on the way. */
bool world_run(World *w);
void world_restart(World *w, bool rebooted);
/* Somebody removes state.db while agentd is away; then it starts. */
void world_lose_state(World *w);

Container *world_container(World *w);
const Box *world_named(const World *w, const char *name);
/* "web=B web.previous=A-": every container by name; "-": not running; "!": a service that runs and
 * that the engine would not start again. Owned by the caller. */
char *world_boxes(const World *w);
/* "B: reason" of each quarantined digest, "B/release: reason" where only the release is. Owned by
 * the caller. */
char *world_quarantine(World *w);
char world_letter(const World *w, const char *digest);
/* Letter of the release that the record says serves; '-': none. */
char world_current(World *w);

/* rollout-servers.c */
void world_make_images(World *w);
void world_answer_engine(HttpServer *server, const Request *request, Reply *reply, void *userdata);
void world_answer_registry(HttpServer *server, const Request *request, Reply *reply,
                           void *userdata);

/* As recorded; free() */
char *world_state(World *w);

#endif
