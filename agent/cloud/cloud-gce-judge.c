/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/str.h"
#include "agent/cloud/cloud-gce.h"

#define SENTENCE_MAX 400

/* --- Reading the error envelope that all of these APIs share ---------------------------------- */

static const json_t *error_of(const json_t *body)
{
    return json_object_get(body, "error");
}

char *gce_peer_sentence(const HttpResponse *response)
{
    json_auto_t *body = NULL;
    const char *text = NULL;
    json_t *first;

    if (json_parse_quiet(buf_str(&response->body), response->body.size, &body) <= 0)
        return NULL; /* a proxy's HTML says nothing to anybody */
    text = json_str(error_of(body), "message");
    first = json_array_get(json_object_get(body, "errors"), 0);
    if (!text)
        text = json_str(first, "message");
    return str_is_empty(text) ? NULL : str_escape(text, strlen(text), SENTENCE_MAX);
}

int gce_add_sentence(const HttpResponse *response, Error *err)
{
    auto_free char *sentence = gce_peer_sentence(response);
    char *longer;

    if (!err || !sentence || !err->message)
        return err ? err->code : 0;
    longer = str_printf("%s: %s", err->message, sentence);
    if (longer) {
        free(err->message);
        err->message = longer;
    }
    return err->code;
}

/* Whether any of the reasons that the answer names is `reason`. */
static bool has_reason(const json_t *body, const char *reason)
{
    static const char *const lists[] = {"details", "errors"};
    const json_t *entry;
    size_t i;

    for (size_t list = 0; list < ELEMENTS(lists); list++)
        json_array_foreach (json_object_get(error_of(body), lists[list]), i, entry)
            if (streq_ptr(json_str(entry, "reason"), reason))
                return true;
    return false;
}

static bool has_any_reason(const json_t *body, const char *const *reasons)
{
    for (; *reasons; reasons++)
        if (has_reason(body, *reasons))
            return true;
    return false;
}

/* The project whose quota the call counts against: that is where an API is switched on. */
static const char *consumer_of(const json_t *body)
{
    const json_t *entry;
    size_t i;

    json_array_foreach (json_object_get(error_of(body), "details"), i, entry) {
        const char *consumer = json_str(json_object_get(entry, "metadata"), "consumer");

        if (consumer)
            return gce_last_part(consumer);
    }
    return NULL;
}

/* --- Words ---------------------------------------------------------------------------------- */

static const char *or_word(const char *s, const char *word)
{
    return str_is_empty(s) ? word : s;
}

/* Access scopes belong to the VM, and change only while it is stopped; one of an instance group
 * gets them from its template. */
static char *scope_remedy(const CloudIdentity *identity)
{
    const char *name = or_word(identity ? identity->name : NULL, "NAME");
    const char *zone = or_word(identity ? identity->zone : NULL, "ZONE");
    const char *project = or_word(identity ? identity->project : NULL, "PROJECT");
    const char *account = or_word(identity ? identity->service_account : NULL, "ACCOUNT");
    const char *where;

    if (!identity || str_is_empty(identity->group))
        return str_printf("gcloud compute instances stop %s --zone=%s --project=%s && gcloud "
                          "compute instances set-service-account %s --zone=%s --project=%s "
                          "--service-account=%s --scopes=cloud-platform && gcloud compute "
                          "instances start %s --zone=%s --project=%s",
                          name, zone, project, name, zone, project, account, name, zone, project);

    where = strstr(identity->group, "/regions/") ? "region" : "zone";
    return str_printf("make an instance template with --service-account=%s "
                      "--scopes=cloud-platform, then: gcloud compute instance-groups managed "
                      "rolling-action start-update %s --version=template=TEMPLATE --%s=%s "
                      "--project=%s",
                      account, gce_last_part(identity->group), where,
                      streq(where, "region") ? or_word(identity->region, "REGION") : zone, project);
}

bool gce_scopes_suffice(const CloudIdentity *identity, char **ret_remedy)
{
    if (!identity || strv_contains(identity->scopes, GCE_SCOPE_ALL))
        return true;
    if (ret_remedy)
        *ret_remedy = scope_remedy(identity);
    return false;
}

static int say_scope(const CloudIdentity *identity, const CloudNeed *need, Error *err)
{
    auto_free char *remedy = scope_remedy(identity);

    (void)error_set(err, -EACCES, ERROR_DENIED,
                    "%s: the VM's access scopes are too narrow (IAM does not matter here)",
                    need->what);
    return error_remedy(err, -EACCES, "%s", remedy ? remedy : "--scopes=cloud-platform");
}

static int say_api_off(const CloudIdentity *identity, const json_t *body, const CloudNeed *need,
                       Error *err)
{
    const char *project = consumer_of(body);

    if (!project)
        project = or_word(identity ? identity->project : NULL, "PROJECT");
    (void)error_set(err, -EACCES, ERROR_DENIED, "%s: %s is not enabled in project %s", need->what,
                    or_word(need->api, "the API"), project);
    return error_remedy(err, -EACCES, "gcloud services enable %s --project=%s",
                        or_word(need->api, "API"), project);
}

static int say_iam(const CloudIdentity *identity, const HttpResponse *response,
                   const CloudNeed *need, Error *err)
{
    const char *account = or_word(identity ? identity->service_account : NULL, "ACCOUNT");
    const char *project = or_word(identity ? identity->project : NULL, "PROJECT");
    auto_free char *grant = need->grant
                                ? strdup(need->grant)
                                : str_printf("gcloud projects add-iam-policy-binding %s", project);

    (void)error_set(err, -EACCES, ERROR_DENIED, "%s: IAM refuses %s to %s, or it does not exist",
                    need->what, or_word(need->permission, "this"), account);
    (void)gce_add_sentence(response, err);
    return error_remedy(err, -EACCES, "%s --member=serviceAccount:%s --role=%s", grant ? grant : "",
                        account, or_word(need->role, "ROLE"));
}

static int say_unknown_token(const CloudIdentity *identity, const CloudNeed *need, Error *err)
{
    const char *account = or_word(identity ? identity->service_account : NULL, "ACCOUNT");
    const char *project = or_word(identity ? identity->project : NULL, "PROJECT");

    (void)error_set(err, -EACCES, ERROR_DENIED,
                    "%s: a fresh token of %s is not accepted: the account may be disabled or "
                    "deleted, or the clock wrong",
                    need->what, account);
    return error_remedy(err, -EACCES, "gcloud iam service-accounts describe %s --project=%s",
                        account, project);
}

/* --- The verdict ---------------------------------------------------------------------------- */

static bool says_insufficient_scope(const HttpResponse *response)
{
    const char *challenge = http_response_header(response, "WWW-Authenticate");

    return challenge && strstr(challenge, "insufficient_scope");
}

static int judge_403(const CloudIdentity *identity, const char *scopes_text,
                     const HttpResponse *response, const CloudNeed *need, Error *err)
{
    static const char *const off[] = {"SERVICE_DISABLED", "accessNotConfigured", NULL};
    static const char *const scope[] = {"ACCESS_TOKEN_SCOPE_INSUFFICIENT", NULL};
    static const char *const iam[] = {"IAM_PERMISSION_DENIED", "accessDenied", NULL};
    static const char *const quota[] = {"rateLimitExceeded", "userRateLimitExceeded",
                                        "quotaExceeded", "jobRateLimitExceeded", NULL};
    json_auto_t *body = NULL;
    bool narrow;

    (void)json_parse_quiet(buf_str(&response->body), response->body.size, &body);
    if (has_any_reason(body, quota)) {
        (void)error_set(err, -EBUSY, ERROR_THROTTLED, "%s: HTTP 403", need->what);
        if (err)
            err->retry_after_usec = response->retry_after_usec;
        (void)gce_add_sentence(response, err);
        return -EBUSY;
    }
    if (has_any_reason(body, off))
        return say_api_off(identity, body, need, err);
    if (has_any_reason(body, scope) || says_insufficient_scope(response))
        return say_scope(identity, need, err);

    /* The scopes are looked at before IAM is, so a word about IAM means that they passed. */
    narrow =
        scopes_text ? !strstr(scopes_text, GCE_SCOPE_ALL) : !gce_scopes_suffice(identity, NULL);
    if (narrow && !has_any_reason(body, iam))
        return say_scope(identity, need, err);
    return say_iam(identity, response, need, err);
}

int gce_judge_with(const CloudIdentity *identity, const char *scopes_text,
                   const HttpResponse *response, const CloudNeed *need, Error *err)
{
    int r;

    if (response->status == 403)
        return judge_403(identity, scopes_text, response, need, err);
    if (response->status == 401)
        return say_unknown_token(identity, need, err);
    r = http_response_error(response, need->what, err);
    if (r < 0)
        (void)gce_add_sentence(response, err);
    return r;
}

int gce_judge(const Cloud *cloud, const HttpResponse *response, const CloudNeed *need, Error *err)
{
    return gce_judge_with(cloud_identity_peek(cloud), NULL, response, need, err);
}
