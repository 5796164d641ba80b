/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTCTL_DOCTOR_H
#define AGENT_AGENTCTL_DOCTOR_H

/* The checklist of what stops a VM from doing what its plan says: each item looked at directly, so
 * that it works while agentd does not. A check is a row of the table in doctor.c and a function;
 * it may find several things (one a secret, one an image), a line each. */

#include <jansson.h>

#include "agent/agentctl/render.h"
#include "agent/base/error.h"

typedef struct DoctorOptions {
    const char *root;      /* where the system is looked at */
    const char *state_dir; /* agentd's */
    const char *engine;    /* socket of the container engine */
} DoctorOptions;

/* Every line has come to its end by then; what did not answer says so. */
#define DOCTOR_LIMIT_USEC (40 * SECOND)

/* {"ok": bool, "checks": [{"id", "ok": bool or null, "message", "remedy": string or null}]}; null:
 * not looked at, for what it needs is wrong itself. */
int doctor_run(const DoctorOptions *options, json_t **ret, Error *err) must_check;

/* What is wrong first, each with its remedy, then what is well. */
int doctor_view(const json_t *report, const View *view, Buf *page) must_check;

/* The rows, for the manual; ends with a NULL id. */
typedef struct DoctorHelp {
    const char *id, *help;
} DoctorHelp;
const DoctorHelp *doctor_manual(void);

#endif
