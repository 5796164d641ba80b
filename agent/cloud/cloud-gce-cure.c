/* SPDX-License-Identifier: Apache-2.0 */

/* What a person does about it, as commands with this machine's own names. */

#include "agent/base/str.h"
#include "agent/cloud/cloud-gce.h"

const CloudApis gce_apis = {
    .name = "Google's APIs",
    .access = "Private Google Access",
    .egress = "Cloud NAT",
    .secrets_host = "secretmanager.googleapis.com",
};

/* A word to be filled in stands where the machine's own is not known. */
typedef struct Names {
    const char *name, *zone, *region, *project;
    bool in_group;
} Names;

static const char *or_word(const char *s, const char *word)
{
    return str_is_empty(s) ? word : s;
}

static Names names_of(const CloudIdentity *identity)
{
    return (Names){
        .name = or_word(identity ? identity->name : NULL, "NAME"),
        .zone = or_word(identity ? identity->zone : NULL, "ZONE"),
        .region = or_word(identity ? identity->region : NULL, "REGION"),
        .project = or_word(identity ? identity->project : NULL, "PROJECT"),
        .in_group = identity && !str_is_empty(identity->group),
    };
}

static char *no_metadata(const Names *n)
{
    return strdup("curl -sH Metadata-Flavor:Google http://169.254.169.254/; ip route");
}

static char *no_plan(const Names *n)
{
    return str_printf("gcloud compute instances add-metadata %s --zone=%s --project=%s "
                      "--metadata-from-file=mervis-plan=plan.json",
                      n->name, n->zone, n->project);
}

static char *startup_script(const Names *n)
{
    return str_printf("gcloud compute instances remove-metadata %s --zone=%s --project=%s "
                      "--keys=startup-script,startup-script-url%s",
                      n->name, n->zone, n->project,
                      n->in_group ? "; and take it out of the group's instance template" : "");
}

static char *no_apis(const Names *n)
{
    return str_printf("gcloud compute networks subnets update \"$(gcloud compute instances "
                      "describe %s --zone=%s --project=%s "
                      "--format='value(networkInterfaces[0].subnetwork)')\" "
                      "--enable-private-ip-google-access",
                      n->name, n->zone, n->project);
}

static char *no_egress(const Names *n)
{
    return str_printf(
        "gcloud compute routers list --regions=%s --project=%s; then, with its names: gcloud "
        "compute routers nats update NAT --router=ROUTER --region=%s --project=%s "
        "--min-ports-per-vm=128 (none there: gcloud compute routers nats create NAT "
        "--router=ROUTER --region=%s --project=%s --auto-allocate-nat-external-ips "
        "--nat-all-subnet-ip-ranges)",
        n->region, n->project, n->region, n->project, n->region, n->project);
}

static char *disk_full(const Names *n)
{
    return str_printf("gcloud compute disks resize %s --zone=%s --project=%s --size=20GB", n->name,
                      n->zone, n->project);
}

char *gce_cure(const CloudIdentity *identity, CloudTrouble trouble)
{
    static char *(*const cures[CLOUD_TROUBLE_MAX])(const Names *n) = {
        [CLOUD_TROUBLE_NO_METADATA] = no_metadata,       [CLOUD_TROUBLE_NO_PLAN] = no_plan,
        [CLOUD_TROUBLE_STARTUP_SCRIPT] = startup_script, [CLOUD_TROUBLE_NO_APIS] = no_apis,
        [CLOUD_TROUBLE_NO_EGRESS] = no_egress,           [CLOUD_TROUBLE_DISK_FULL] = disk_full,
    };
    Names names = names_of(identity);

    return cures[trouble](&names);
}
