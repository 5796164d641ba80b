/* SPDX-License-Identifier: Apache-2.0 */

/* Cleanup by hand: the one method whose answer takes its time. The caller waits on the bus, the
 * loop does not. */

#include <errno.h>

#include "agent/agentd/manager-internal.h"
#include "agent/io/json.h"
#include "agent/resource/images.h"

static void forget(Manager *m)
{
    m->cleanup = images_run_free(m->cleanup);
    m->cleanup_request = sd_bus_message_unref(m->cleanup_request);
}

static void reply(sd_bus_message *request, const json_t *report, const Error *err)
{
    auto_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    auto_free char *text = report ? json_text(report, false) : NULL;

    /* Whoever asked may be gone: there is nobody to tell. */
    if (err) {
        (void)bus_error_from(&error, err);
        (void)sd_bus_reply_method_error(request, &error);
    } else if (text) {
        (void)sd_bus_reply_method_return(request, "s", text);
    } else {
        (void)sd_bus_reply_method_errno(request, -ENOMEM, NULL);
    }
}

static void on_run(ImagesRun *run, const json_t *report, const Error *err, void *userdata)
{
    Manager *m = userdata;
    Resource *images = reconciler_find(m->reconciler, "images", IMAGES_NAME);

    if (images && report)
        images_record(images, report);
    reply(m->cleanup_request, report, err);
    forget(m);
}

static int start(sd_bus_message *message, Manager *m, bool dry_run, sd_bus_error *error)
{
    const ImagesRunSpec spec = {.dry_run = dry_run};
    auto_error Error err = {0};
    int r;

    if (m->cleanup)
        r = error_set(&err, -EBUSY, ERROR_TEMPORARY, "a cleanup is under way");
    else if (!reconciler_find(m->reconciler, "images", IMAGES_NAME))
        r = error_set(&err, -ENOENT, ERROR_INVALID,
                      "the plan in force has no containers: there are no images of ours");
    else
        r = images_run_start(&m->context, &spec, on_run, m, &m->cleanup, &err);
    if (r < 0)
        return bus_error_from(error, &err);

    m->cleanup_request = sd_bus_message_ref(message);
    return 1; /* answered later */
}

int bus_method_cleanup(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    int r = bus_require_root(message, "cleanup", error);

    return r < 0 ? r : start(message, userdata, /* dry_run= */ false, error);
}

int bus_method_cleanup_dry_run(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    return start(message, userdata, /* dry_run= */ true, error);
}

void manager_cancel_cleanup(Manager *m)
{
    forget(m);
}
