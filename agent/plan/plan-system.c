/* SPDX-License-Identifier: Apache-2.0 */

/* The part `system` of the plan. */

#include <errno.h>
#include <string.h>

#include "agent/base/parse.h"
#include "agent/base/time.h"
#include "agent/plan/plan-internal.h"

#define SWAP_MIN (UINT64_C(16) << 20)
#define SWAP_MAX (UINT64_C(1) << 40)

/* -- swap size: a size, or "auto" -- */

static int swap_size_decode(FieldContext *context, const json_t *value, void *member)
{
    const char *text = json_string_value(value);
    PlanSwapSize *size = member;
    uint64_t bytes;

    if (text && streq(text, "auto")) {
        size->by_memory = true;
        return 0;
    }
    if (!text || parse_size(text, &bytes) < 0 || bytes < SWAP_MIN || bytes > SWAP_MAX) {
        field_error(context, NULL, "expected \"auto\" or a size of 16MiB to 1TiB such as \"1GiB\"");
        return 0;
    }
    size->bytes = bytes;
    return 0;
}

static json_t *swap_size_schema(void)
{
    return json_pack("{s:[{s:s}, {s:s, s:s, s:s, s:s}]}", "anyOf", "const", "auto", "type",
                     "string", "pattern",
                     "^[0-9]+(\\.[0-9]{1,9})?(TiB|GiB|MiB|KiB|TB|GB|MB|kB|B)?$", "x-minimum",
                     "16MiB", "x-maximum", "1TiB");
}

static int swap_size_encode(const void *member, json_t **ret)
{
    const PlanSwapSize *size = member;
    char text[PARSE_TEXT_MAX];

    *ret = json_string(size->by_memory ? "auto" : format_size(text, size->bytes));
    return *ret ? 1 : -ENOMEM;
}

static void swap_size_done(void *member)
{
    *(PlanSwapSize *)member = (PlanSwapSize){0};
}

static const FieldCustom swap_size = {.form = "\"auto\" or a size, 16MiB to 1TiB",
                                      .decode = swap_size_decode,
                                      .schema = swap_size_schema,
                                      .encode = swap_size_encode,
                                      .done = swap_size_done};

/* -- rules -- */

static void check_file(FieldContext *context, void *object)
{
    PlanFile *file = object;
    bool has_content = field_is_given(context, "content");
    bool has_secret = field_is_given(context, "secret");

    if (has_content && has_secret)
        field_error(context, "secret", "a file has either \"content\" or \"secret\", not both");
    if (!has_content && !has_secret)
        field_error(context, NULL, "a file needs \"content\" or \"secret\"");
    if (has_secret && !field_is_given(context, "mode"))
        file->mode = 0400;
}

/* -- tables -- */

/* clang-format off */
static const Field swap_fields[] = {
    FIELD_CUSTOM("size",     PlanSwap, size,       0, &swap_size,
                 "how big the swap file is; \"auto\" goes by the machine's memory", .fallback = "auto"),
    FIELD_STRING("path",     PlanSwap, path,       "/swapfile", 1, 255, 0, check_path,
                 "where the swap file is", .pattern = PATH_PATTERN),
    FIELD_UINT("swappiness", PlanSwap, swappiness, "10", 0, 200,
               "how readily the kernel swaps (vm.swappiness)"),
    {0},
};

static const Field file_fields[] = {
    FIELD_STRING("path",    PlanFile, path,    NULL, 1, 4095, FIELD_REQUIRED | FIELD_KEY, check_path,
                 "which file it is; missing directories are made", .pattern = PATH_PATTERN),
    FIELD_STRING("content", PlanFile, content, NULL, 0, PLAN_SIZE_MAX, 0, NULL,
                 "what is in it; or else give \"secret\""),
    FIELD_STRING("secret",  PlanFile, secret,  NULL, 1, 63, FIELD_NO_ECHO, check_name,
                 "the secret of this plan whose value is in it", .pattern = NAME_PATTERN),
    FIELD_MODE("mode",      PlanFile, mode,    "0644",
               "its permissions; a file of a secret has 0400 unless this is given"),
    FIELD_STRING("owner",   PlanFile, owner,   "root", 1, 32, 0, check_owner,
                 "the user that owns it", .pattern = OWNER_PATTERN),
    FIELD_STRING("group",   PlanFile, group,   "root", 1, 32, 0, check_owner,
                 "the group that owns it", .pattern = OWNER_PATTERN),
    {0},
};

static const Field script_fields[] = {
    FIELD_STRING("name",     PlanScript, name,         NULL, 1, 63, FIELD_REQUIRED | FIELD_KEY, check_name,
                 "how it is called; under this name its result is remembered", .pattern = NAME_PATTERN),
    FIELD_STRING("run",      PlanScript, run,          NULL, 1, PLAN_SIZE_MAX, FIELD_REQUIRED, check_script,
                 "the whole script, with its \"#!\" line first", .pattern = SCRIPT_PATTERN),
    FIELD_ENUM("when",       PlanScript, when,         "once", plan_when_names,
               "once in the life of the instance, at every boot, or when its text changed"),
    FIELD_DURATION("timeout", PlanScript, timeout_usec, "5m", SECOND, DAY,
                   "after which it is ended and has failed"),
    FIELD_BOOL("required",   PlanScript, required,     "false",
               "whether its failure holds secrets and containers back at the first boot"),
    FIELD_STRV("secrets",    PlanScript, secrets,      32, check_name,
               "secrets of this plan that it finds as files in $CREDENTIALS_DIRECTORY", .pattern = NAME_PATTERN,
               .flags = FIELD_NO_ECHO),
    {0},
};

const Field plan_system_fields[] = {
    FIELD_STRING("timezone", PlanSystem, timezone, NULL, 1, 64, 0, check_timezone,
                 "the time zone; left as it is when absent", .pattern = TIMEZONE_PATTERN),
    FIELD_OBJECT_PTR("swap", PlanSystem, swap,     PlanSwap, swap_fields, NULL,
                     "a swap file; none of ours when absent"),
    FIELD_ARRAY("files",     PlanSystem, files,    PlanFile, file_fields, 256, check_file,
                "files that must be as written here"),
    FIELD_ARRAY("scripts",   PlanSystem, scripts,  PlanScript, script_fields, 64, NULL,
                "scripts, run in this order"),
    {0},
};
/* clang-format on */
