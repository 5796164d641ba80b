/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_RESOURCE_SWITCH_H
#define AGENT_RESOURCE_SWITCH_H

/* From one release to the next, and back: given the containers of one slot as the engine shows them
 * and the place to get to, the one step to take now. It is a pure function of what is there, so a
 * kill -9 between any two steps resumes by asking again; there is nothing else to remember.
 *
 * A slot owns four names: NAME serves, NAME.next is prepared, NAME.previous was serving and waits
 * until its successor has settled. Where that one is replaced before it has, NAME.earlier is what
 * it would have gone back to. */

#include <stdbool.h>
#include <stddef.h>

#define SWITCH_NAME_MAX 160

typedef struct SlotContainer {
    char id[65];
    char name[SWITCH_NAME_MAX];
    char release[65]; /* label io.mervis.release; "" when it carries none */
    bool running;     /* paused and restarting count */
    bool restarting;  /* it ended, and the engine is about to start it again */
    bool never_started;
} SlotContainer;

typedef enum SwitchGoal {
    SWITCH_RUN,     /* `current` is NAME and runs; who else has that name goes */
    SWITCH_PREPARE, /* `next` exists, never started; leftovers are gone; `current` and `spare` are
                       untouched */
    SWITCH_BESIDE,  /* `next` runs, as NAME.next; `current` is untouched */
    SWITCH_FORWARD, /* `next` is NAME and was started; `current` is NAME.previous and stopped */
    SWITCH_BACK,    /* `current` is NAME and runs; `next` is gone */
    SWITCH_SETTLE,  /* all but `next` is gone */
    SWITCH_STOPPED, /* nothing of the slot runs */
    SWITCH_GONE,    /* nothing of it is there */
} SwitchGoal;

typedef enum SwitchVerb {
    SWITCH_DONE,   /* the goal is reached */
    SWITCH_CREATE, /* make NAME.next of the release `next` */
    SWITCH_START,
    SWITCH_STOP,
    SWITCH_RENAME,
    SWITCH_REMOVE,
    SWITCH_LOST, /* the goal cannot be reached: the container it needs does not exist */
} SwitchVerb;

typedef struct SwitchStep {
    SwitchVerb verb;
    const SlotContainer *target;    /* of START, STOP, RENAME, REMOVE; borrowed */
    char new_name[SWITCH_NAME_MAX]; /* of RENAME and CREATE */
} SwitchStep;

typedef struct SwitchQuery {
    SwitchGoal goal;
    const char *name; /* of the slot */
    const char
        *current;      /* release that serves; NULL: none. Without it the one named NAME is taken */
    const char *next;  /* release to bring in; NULL for RUN, STOPPED and GONE */
    const char *spare; /* release that `current` may still have to go back to: it stays until
                          SETTLE; may be NULL */
    bool start_again;  /* FORWARD: also start a `next` that has run before */
    bool leave_stopped; /* BACK: `current` has come to its end, it is not run again; nor is it
                           missed */
    bool started; /* a START was taken for this goal: one that ended at once is not started over
                 and over */
} SwitchQuery;

SwitchStep switch_next(const SwitchQuery *query, const SlotContainer *containers, size_t n);
const char *switch_verb_name(SwitchVerb verb);

/* The container of that release, preferring the one named NAME; NULL when there is none. */
const SlotContainer *slot_find(const char *name, const char *release,
                               const SlotContainer *containers, size_t n);

#endif
