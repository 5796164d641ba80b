/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <strings.h>

#include "agent/base/str.h"
#include "agent/cloud/cloud-gce.h"

#define BIG_NUMBER_DIGITS 19 /* from here on it may not fit an int64, and is an id */
#define REPLACEMENT       "\xef\xbf\xbd"

/* --- Making it JSON that everybody can read -------------------------------------------------- */

/* Length of the UTF-8 sequence at `s`, 0 when it is none. */
static size_t utf8_length(const char *s, size_t left)
{
    for (size_t n = 1; n <= 4 && n <= left; n++)
        if (str_is_utf8(s, n) || s[0] == '\0')
            return n;
    return 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
        return (c | 0x20) - 'a' + 10;
    return -1;
}

/* The unit that \uXXXX at `s` writes, or -1. */
static int escaped_unit(const char *s, size_t left)
{
    int unit = 0;

    if (left < 6 || s[0] != '\\' || s[1] != 'u')
        return -1;
    for (size_t i = 2; i < 6; i++) {
        int digit = hex_digit(s[i]);

        if (digit < 0)
            return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

/* Bytes of the escape at `s` that may be copied; 0 when it writes what no text may hold (half a
 * surrogate pair, NUL), `*ret_size` is its size then. */
static size_t escape_length(const char *s, size_t left, size_t *ret_size)
{
    int unit = escaped_unit(s, left), second;

    *ret_size = 6;
    if (unit < 0)
        return MIN_OF(left, (size_t)2);
    if (unit == 0 || (unit >= 0xdc00 && unit <= 0xdfff))
        return 0;
    if (unit < 0xd800 || unit > 0xdbff)
        return 6;
    second = escaped_unit(s + 6, left - 6);
    return second >= 0xdc00 && second <= 0xdfff ? 12 : 0;
}

static int add_string_piece(const char *s, size_t left, Buf *to, size_t *ret_used)
{
    size_t n, size = 1;

    n = *s == '\\' ? escape_length(s, left, &size) : utf8_length(s, left);
    *ret_used = n ? n : size;
    return n ? buf_add(to, s, n) : buf_add_str(to, REPLACEMENT);
}

/* An attribute may hold any bytes and an id any 64 bits; one odd attribute of somebody else must
 * not make the whole tree unreadable. Ids become strings, broken text gets U+FFFD. */
static int normalize(const char *data, size_t size, Buf *ret)
{
    bool in_string = false;
    size_t used, digits;
    int r = 0;

    for (size_t i = 0; i < size && r >= 0; i += used) {
        used = 1;
        if (data[i] == '"') {
            in_string = !in_string;
            r = buf_add_char(ret, '"');
        } else if (in_string) {
            r = add_string_piece(data + i, size - i, ret, &used);
        } else {
            for (digits = 0;
                 i + digits < size && data[i + digits] >= '0' && data[i + digits] <= '9'; digits++)
                ;
            used = MAX_OF(digits, (size_t)1);
            if (digits >= BIG_NUMBER_DIGITS && i + digits < size &&
                !strchr(".eE", data[i + digits]))
                r = buf_printf(ret, "\"%.*s\"", (int)digits, data + i);
            else
                r = buf_add(ret, data + i, used);
        }
    }
    return r;
}

/* --- The tree as a state --------------------------------------------------------------------- */

const char *gce_last_part(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;

    return slash ? slash + 1 : path ? path : "";
}

/* A copy of the string, or of the number as text; "" when absent. */
static char *text_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    if (json_is_integer(value))
        return str_printf("%lld", (long long)json_integer_value(value));
    return strdup(json_is_string(value) ? json_string_value(value) : "");
}

static char *last_part_of(const json_t *object, const char *key)
{
    return strdup(gce_last_part(json_str(object, key)));
}

static bool is_true(const json_t *object, const char *key)
{
    const char *text = json_str(object, key);

    return (text && strcasecmp(text, "TRUE") == 0) || json_is_true(json_object_get(object, key));
}

typedef struct Attributes {
    const json_t *instance, *project;
} Attributes;

/* Of the instance, else of the project; NULL when neither has it. */
static const char *attribute(const Attributes *attributes, const char *key)
{
    const char *value = json_str(attributes->instance, key);

    return value ? value : json_str(attributes->project, key);
}

static char *region_of(const char *zone)
{
    const char *dash = strrchr(zone, '-');

    return str_printf("%.*s", (int)(dash ? (size_t)(dash - zone) : strlen(zone)), zone);
}

static int read_account(const json_t *instance, CloudIdentity *identity)
{
    const json_t *account =
        json_object_get(json_object_get(instance, "serviceAccounts"), "default");
    const json_t *scopes = json_object_get(account, "scopes"), *scope;
    size_t i;

    identity->service_account = text_of(account, "email");
    identity->scopes = calloc(1, sizeof(*identity->scopes));
    if (!identity->service_account || !identity->scopes)
        return -ENOMEM;
    json_array_foreach (scopes, i, scope)
        if (json_is_string(scope) && strv_push(&identity->scopes, json_string_value(scope)) < 0)
            return -ENOMEM;
    return 0;
}

static char *name_of(const json_t *instance)
{
    const char *name = json_str(instance, "name"), *host = json_str(instance, "hostname");

    if (!str_is_empty(name))
        return strdup(name);
    return host ? str_printf("%.*s", (int)strcspn(host, "."), host) : strdup("");
}

/* cloud-init/startup-script.sh installs the package and is done: it says so with this word, and may
 * stay. */
static bool script_is_old(const char *script)
{
    return !str_is_empty(script) && !strstr(script, "mervis-bootstrap: ");
}

static int read_identity(const json_t *root, const Attributes *attributes, CloudIdentity *identity)
{
    const json_t *instance = json_object_get(root, "instance");
    const json_t *project = json_object_get(root, "project");
    const char *created_by = json_str(attributes->instance, "created-by");
    const char *role = attribute(attributes, "mervis-role");
    const char *universe = json_str(json_object_get(root, "universe"), "universeDomain");
    const char *guest = attribute(attributes, "enable-guest-attributes");

    identity->cloud = cloud_gce.name;
    identity->instance_id = text_of(instance, "id");
    identity->name = name_of(instance);
    identity->project = text_of(project, "projectId");
    identity->project_number = text_of(project, "numericProjectId");
    identity->zone = last_part_of(instance, "zone");
    identity->region = identity->zone ? region_of(identity->zone) : NULL;
    identity->machine_type = last_part_of(instance, "machineType");
    identity->group =
        strdup(created_by && strstr(created_by, "/instanceGroupManagers/") ? created_by : "");
    identity->role = strdup(role ? role : "");
    identity->universe = strdup(str_is_empty(universe) ? "googleapis.com" : universe);
    identity->spot = is_true(json_object_get(instance, "scheduling"), "preemptible");
    identity->publishes = guest && strcasecmp(guest, "TRUE") == 0;
    identity->startup_script = script_is_old(attribute(attributes, "startup-script")) ||
                               !str_is_empty(attribute(attributes, "startup-script-url"));
    if (!identity->instance_id || !identity->name || !identity->project ||
        !identity->project_number || !identity->zone || !identity->region ||
        !identity->machine_type || !identity->group || !identity->role || !identity->universe)
        return -ENOMEM;
    return read_account(instance, identity);
}

/* The instance's own, else the project's, which is kept one a role where there are roles. */
static int read_plan(const Attributes *attributes, CloudState *state, char **ret_raw_path)
{
    auto_free char *project_key = NULL;
    const char *role = state->identity.role, *path;
    const json_t *plan;

    project_key = *role ? str_printf("mervis-plan-%s", role) : strdup("mervis-plan");
    if (!project_key)
        return -ENOMEM;

    plan = json_object_get(attributes->instance, "mervis-plan");
    path = "instance/attributes/mervis-plan";
    state->plan_source = CLOUD_PLAN_INSTANCE;
    if (!json_is_string(plan)) {
        plan = json_object_get(attributes->project, project_key);
        path = "project/attributes/";
        state->plan_source = CLOUD_PLAN_PROJECT;
    }
    if (!json_is_string(plan)) {
        state->plan_source = CLOUD_PLAN_NONE;
        state->plan_where =
            str_printf("instance attribute mervis-plan, project attribute %s", project_key);
        return state->plan_where ? 0 : -ENOMEM;
    }

    state->plan_where = state->plan_source == CLOUD_PLAN_INSTANCE
                            ? strdup("instance attribute mervis-plan")
                            : str_printf("project attribute %s", project_key);
    if (!state->plan_where ||
        cloud_state_set_plan(state, json_string_value(plan), json_string_length(plan)) < 0)
        return -ENOMEM;
    if (!strstr(state->plan, REPLACEMENT))
        return 0;
    *ret_raw_path = str_printf("%s%s?alt=text", path,
                               state->plan_source == CLOUD_PLAN_INSTANCE ? "" : project_key);
    return *ret_raw_path ? 0 : -ENOMEM;
}

static CloudMaintenance maintenance_of(const char *event)
{
    if (event && startswith(event, "MIGRATE"))
        return CLOUD_MAINTENANCE_MIGRATE;
    if (event && startswith(event, "TERMINATE"))
        return CLOUD_MAINTENANCE_TERMINATE;
    return CLOUD_MAINTENANCE_NONE;
}

static int read_state(const json_t *root, CloudState *state, char **ret_raw_path)
{
    const json_t *instance = json_object_get(root, "instance");
    const Attributes attributes = {json_object_get(instance, "attributes"),
                                   json_object_get(json_object_get(root, "project"), "attributes")};
    int r;

    r = read_identity(root, &attributes, &state->identity);
    if (r < 0)
        return r;
    state->preempted = is_true(instance, "preempted");
    state->maintenance = maintenance_of(json_str(instance, "maintenanceEvent"));
    state->clock_token = text_of(json_object_get(instance, "virtualClock"), "driftToken");
    if (!state->clock_token)
        return -ENOMEM;
    return read_plan(&attributes, state, ret_raw_path);
}

int gce_parse_root(const char *data, size_t size, CloudState **ret, char **ret_raw_path, Error *err)
{
    auto_(cloud_state_unrefp) CloudState *state = NULL;
    auto_free char *raw_path = NULL;
    auto_buf Buf text = BUF_INIT(size * 3 + 64);
    json_auto_t *root = NULL;
    int r;

    assert(data && ret && ret_raw_path);

    state = cloud_state_new();
    if (!state || normalize(data, size, &text) < 0)
        return error_oom(err);
    r = json_parse(buf_str(&text), text.size, "metadata", &root, err);
    if (r < 0)
        return r;
    buf_done(&text); /* before the copies are made: a plan may be large, and the VM small */

    if (!json_is_object(json_object_get(root, "instance")) ||
        !json_is_object(json_object_get(root, "project")))
        return error_set(err, -EBADMSG, ERROR_CORRUPT,
                         "metadata: no instance or no project in the answer");
    if (read_state(root, state, &raw_path) < 0)
        return error_oom(err);
    /* State is kept by it: without one nobody could say whose this is. */
    if (str_is_empty(state->identity.instance_id))
        return error_set(err, -EBADMSG, ERROR_CORRUPT, "metadata: no instance id in the answer");

    *ret = take_ptr(state);
    *ret_raw_path = take_ptr(raw_path);
    return 0;
}
