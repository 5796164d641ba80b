/* SPDX-License-Identifier: Apache-2.0 */

/* The plan as a whole: the outermost table, and the small parts. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "agent/base/time.h"
#include "agent/plan/plan-internal.h"

/* -- version: a number of its own, so that an older agent says what is the matter -- */

static int version_decode(FieldContext *context, const json_t *value, void *member)
{
    double version = json_number_value(value);

    if (json_is_number(value) && version > PLAN_VERSION)
        field_error(context, NULL,
                    "version %.6g is newer than this agent, which reads version %d: upgrade "
                    "mervis-agent on this VM first",
                    version, PLAN_VERSION);
    else if (!json_is_number(value) || version < PLAN_VERSION)
        field_error(context, NULL, "expected the number %d", PLAN_VERSION);
    else
        *(uint64_t *)member = PLAN_VERSION;
    return 0;
}

static json_t *version_schema(void)
{
    return json_pack("{s:i}", "const", PLAN_VERSION);
}

static int version_encode(const void *member, json_t **ret)
{
    *ret = json_integer((json_int_t) * (const uint64_t *)member);
    return *ret ? 1 : -ENOMEM;
}

static const FieldCustom version = {
    .form = "1", .decode = version_decode, .schema = version_schema, .encode = version_encode};

/* -- rules -- */

#define VERSIONS "/versions/"

/* A version in the name wins, and the other would be followed by nobody. */
static void check_secret(FieldContext *context, void *object)
{
    const PlanSecret *secret = object;
    const char *named = NULL;

    for (const char *at = secret->secret; at && (at = strstr(at, VERSIONS)); named = at)
        at += strlen(VERSIONS); /* the last one: a secret can be called so */

    if (named && secret->version && field_is_given(context, "version") &&
        !streq(named, secret->version))
        field_error(context, "version",
                    "\"secret\" names version %s and \"version\" says %s: leave one of them out",
                    named, secret->version);
}

static void check_images(FieldContext *context, void *object)
{
    const PlanImages *images = object;

    if (images->disk_low >= images->disk_high)
        field_error(context, field_is_given(context, "disk_low") ? "disk_low" : "disk_high",
                    "\"disk_low\" (%" PRIu64 ") must be below \"disk_high\" (%" PRIu64 ")",
                    images->disk_low, images->disk_high);
}

/* -- tables -- */

/* clang-format off */
static const Field secret_fields[] = {
    FIELD_STRING("name",      PlanSecret, name,         NULL, 1, 63, FIELD_REQUIRED | FIELD_KEY | FIELD_NO_ECHO, check_name,
                 "how this plan calls it", .pattern = NAME_PATTERN),
    FIELD_STRING("secret",    PlanSecret, secret,       NULL, 1, 512, FIELD_REQUIRED | FIELD_NO_ECHO, check_remote,
                 "how the cloud's secret store calls it; a short name is looked for in the VM's own project",
                 .pattern = REMOTE_PATTERN),
    FIELD_STRING("version",   PlanSecret, version,      "latest", 1, 64, 0, check_version,
                 "\"latest\", which is followed, or one version, which is not", .pattern = VERSION_PATTERN),
    FIELD_DURATION("refresh", PlanSecret, refresh_usec, "5m", 10 * SECOND, 30 * DAY,
                   "how often \"latest\" is looked at"),
    {0},
};

static const Field images_fields[] = {
    FIELD_UINT("keep_previous", PlanImages, keep_previous, "1", 0, 20,
               "how many proved images are kept beside the one in use"),
    FIELD_DURATION("min_age",   PlanImages, min_age_usec,  "1h", 0, 365 * DAY, "younger ones are never removed"),
    FIELD_UINT("disk_high",     PlanImages, disk_high,     "85", 1, 99,
               "percent of the engine's disk at which images are removed at once"),
    FIELD_UINT("disk_low",      PlanImages, disk_low,      "80", 0, 98, "percent down to which they are then removed"),
    FIELD_ENUM("scope",         PlanImages, scope,         "managed", plan_scope_names,
               "images of repositories that the plan names or named, and dangling ones; or all that nothing uses"),
    {0},
};

static const Field notify_fields[] = {
    FIELD_ENUM("kind",     PlanNotify, kind,   "slack", plan_notify_names, "how the message is sent"),
    FIELD_STRING("secret", PlanNotify, secret, NULL, 1, 63, FIELD_REQUIRED | FIELD_NO_ECHO, check_name,
                 "the secret of this plan that holds the address", .pattern = NAME_PATTERN),
    FIELD_STRV("on",       PlanNotify, on,     64, NULL,
               "which events; when absent those that a person should act on", .names = plan_event_names),
    {0},
};

static const Field endpoint_value =
    FIELD_STRING("*", PlanEndpoint, base_url, NULL, 1, 1024, 0, check_base_url, "where to go instead",
                 .pattern = BASE_URL_PATTERN);

static const Field top_fields[] = {
    FIELD_CUSTOM("version",   Plan, version,    FIELD_REQUIRED, &version, "the version of this format: 1"),
    FIELD_STRING("role",      Plan, role,       NULL, 1, 63, 0, check_name,
                 "what this VM is for, shown in its status", .pattern = NAME_PATTERN),
    FIELD_ENUM("locale",      Plan, locale,     "en", plan_locale_names, "the language of notifications"),
    FIELD_OBJECT("system",    Plan, system,     plan_system_fields, NULL, "time zone, swap, files and scripts"),
    FIELD_ARRAY("secrets",    Plan, secrets,    PlanSecret, secret_fields, 64, check_secret,
                "secrets that other parts name"),
    FIELD_ARRAY("containers", Plan, containers, PlanContainer, plan_container_fields, 64, plan_check_container,
                "containers that must run"),
    FIELD_OBJECT("images",    Plan, images,     images_fields, check_images, "how old images are removed"),
    FIELD_RAW("crawl",        Plan, crawl,      FIELD_IS_OBJECT,
              "what crawlerd does; it alone knows the keys (\"crawlerd validate\")"),
    FIELD_ARRAY("notify",     Plan, notify,     PlanNotify, notify_fields, 16, NULL, "who is told about events"),
    FIELD_MAP("endpoints",    Plan, endpoints,  PlanEndpoint, &endpoint_value, 64, check_host,
              "host names that our clients speak to, and the base URL to use instead", .pattern = HOST_PATTERN),
    FIELD_STRING("$schema",   Plan, schema,     NULL, 1, 1024, 0, NULL,
                 "the schema's address, for editors; the agent does not look at it"),
    {0},
};
/* clang-format on */

const Field *plan_fields(void)
{
    return top_fields;
}
