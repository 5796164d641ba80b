/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTCTL_DOCTOR_INTERNAL_H
#define AGENT_AGENTCTL_DOCTOR_INTERNAL_H

/* For doctor*.c and its test alone. */

#include "agent/agentctl/doctor.h"
#include "agent/base/list.h"
#include "agent/cloud/cloud.h"
#include "agent/engine/engine.h"
#include "agent/engine/registry.h"
#include "agent/io/bus.h"
#include "agent/io/http.h"
#include "agent/io/loop.h"
#include "agent/plan/plan.h"

/* One answer of one peer; a stage may wait for it, and there are three stages. */
#define DOCTOR_ANSWER_USEC  (8 * SECOND)
#define DOCTOR_CONNECT_USEC (5 * SECOND)
#define CRAWLER_HOSTS_MAX   16

/* A market host that is asked for its robots.txt. */
typedef struct HostTry {
    struct Doctor *doctor;
    HttpOp *op;
    bool answered;
} HostTry;

typedef enum Outcome {
    OUTCOME_WAITING,
    OUTCOME_OK,
    OUTCOME_WRONG,
    OUTCOME_SKIPPED,
} Outcome;

typedef struct Doctor Doctor;
typedef struct Probe Probe;

/* One line, and whatever it waits for: freeing it cancels that. */
struct Probe {
    LIST_FIELDS(Probe, probes);
    Doctor *doctor;
    char *id;
    Outcome outcome;
    char *message, *remedy;

    CloudOp *cloud_op, *login_op;
    HttpOp *http_op;
    EngineOp *engine_op;
    RegistryOp *registry_op;
    BusCall *bus_call;
    Child *child;
    char *subject; /* what the check itself needs to know of it: a name, a host */
};

struct Doctor {
    const DoctorOptions *options;
    sd_event *event;
    HttpClient *http;
    Cloud *cloud;
    Engine *engine;
    sd_bus *bus; /* NULL: none here */
    Timer *turn, *limit;
    Probe *probes;
    unsigned stage, waiting;
    bool memory_is_out;

    Plan *plan; /* what the metadata says, else what is in force; NULL */
    bool apis_answer, token_is_had, scopes_suffice;
    char *engine_root; /* where its images lie; NULL while unknown */

    char *hosts[CRAWLER_HOSTS_MAX]; /* of the crawl jobs' recipes */
    size_t n_hosts;
    HostTry tries[CRAWLER_HOSTS_MAX];
    size_t tries_left;
    Probe *egress;
};

/* A line that waits. NULL when memory is out, which the doctor remembers: just return then. */
Probe *probe_new(Doctor *doctor, const char *format, ...) printf_like(2, 3);
/* Its end; the probe must not be used by its operations afterwards. */
void probe_ok(Probe *probe, const char *format, ...) printf_like(2, 3);
void probe_skip(Probe *probe, const char *why);
void probe_wrong(Probe *probe, const char *remedy, const char *format, ...) printf_like(3, 4);
/* Why, and the remedy that the error carries, else `remedy` (may be NULL). */
void probe_failed(Probe *probe, const Error *err, const char *remedy);
/* An operation could not even begin. */
void probe_began(Probe *probe, int r, const Error *err);

/* A word to be filled in where it is not known. Valid until the next call. */
const char *vm_project(const Doctor *doctor);
const char *vm_region(const Doctor *doctor);
bool is_cloud_vm(const Doctor *doctor);
/* What everything that needs the cloud's APIs begins with: false, with a line that says why. */
bool cloud_is_ready(const Doctor *doctor, Probe *probe);

/* -- doctor-vm.c: who we are and what is wanted -- */
void check_agentd(Doctor *doctor);
void check_metadata(Doctor *doctor);
void check_scopes(Doctor *doctor);
void check_token(Doctor *doctor);
void check_startup_script(Doctor *doctor);

/* -- doctor-machine.c -- */
void check_engine(Doctor *doctor);
void check_disk(Doctor *doctor);
void check_memory(Doctor *doctor);
void check_timezones(Doctor *doctor);
void check_units(Doctor *doctor);

/* -- doctor-network.c -- */
void check_apis(Doctor *doctor);
void check_dns(Doctor *doctor);
void check_egress(Doctor *doctor);
/* Reads the hosts of the plan's recipes into doctor->hosts; a line only when that fails. */
void find_hosts(Doctor *doctor);

/* -- doctor-cloud.c -- */
void check_secrets(Doctor *doctor);
void check_images(Doctor *doctor);

/* -- doctor-bigquery.c -- */
void check_bigquery(Doctor *doctor);
/* Of the API that the plan's rows go to; NULL where they go elsewhere, or there is no cloud. */
const char *bigquery_host(const Doctor *doctor);
typedef struct TableColumn {
    const char *name, *type, *other_type; /* as tables.get may call it */
} TableColumn;
extern const TableColumn table_columns[]; /* ends with a NULL name */

#endif
