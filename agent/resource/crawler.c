/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/resource/crawler.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/io/bus.h"
#include "agent/io/json.h"
#include "agent/resource/crawler-secrets.h"

#define SYSTEMD_NAME        "org.freedesktop.systemd1"
#define SYSTEMD_PATH        "/org/freedesktop/systemd1"
#define SYSTEMD_MANAGER     "org.freedesktop.systemd1.Manager"
#define SYSTEMD_DESTRUCTIVE "org.freedesktop.systemd1.TransactionIsDestructive"
#define FILE_MAX_BYTES      (1U << 20)

typedef struct CrawlerItem {
    char *document; /* what crawl.json shall hold */
    char **secrets; /* names that it mentions */
    BusCall *reload;
    sd_bus_slot *start;
    sd_bus_slot *owner; /* tells when crawlerd comes and goes */
    bool told;          /* crawlerd knows this document */
    bool leaving;
} CrawlerItem;

static json_t *endpoints_of(const Plan *plan)
{
    json_auto_t *endpoints = json_object();

    PLAN_FOREACH (PlanEndpoint, endpoint, plan->endpoints)
        if (json_put(endpoints, endpoint->host, json_string(endpoint->base_url)) < 0)
            return NULL;
    return take_ptr(endpoints);
}

static int crawler_declare(ResourceContext *context, const Plan *plan, Error *err)
{
    json_auto_t *document = NULL;
    CrawlerItem *item;

    if (!plan->crawl)
        return 0;
    item = calloc(1, sizeof(*item));
    document = json_pack("{s:O, s:o, s:s}", "crawl", plan->crawl, "endpoints", endpoints_of(plan),
                         "instance", context->instance_id ? context->instance_id : "");
    if (!item || !document) {
        free(item);
        return error_oom(err);
    }
    item->document = json_canonical(document);
    if (!item->document || plan_crawl_secrets(plan, &item->secrets) < 0) {
        free(item->document);
        free(item);
        return error_oom(err);
    }
    return resource_add(context, &resource_crawler, "crawlerd", false, item, err);
}

/* It came, or it went: either way it is asked again, and started where it does not run. */
static int on_owner_changed(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
    Resource *resource = userdata;
    CrawlerItem *item = resource->item;

    item->told = false;
    if (!item->reload && !item->start)
        resource_wants_attention(resource);
    return 0;
}

static int watch_owner(Resource *resource, Error *err)
{
    CrawlerItem *item = resource->item;
    int r;

    if (item->owner || !resource->context->bus || resource->context->dry_run)
        return 0;
    r = sd_bus_add_match_async(resource->context->bus, &item->owner,
                               "type='signal',sender='org.freedesktop.DBus',"
                               "interface='org.freedesktop.DBus',member='NameOwnerChanged',"
                               "arg0='" BUS_CRAWLER_NAME "'",
                               on_owner_changed, NULL, resource);
    return r < 0 ? error_errno(err, r, "watch for " BUS_CRAWLER_NAME) : 0;
}

static int crawler_check(Resource *resource, char **ret_difference, Error *err)
{
    CrawlerItem *item = resource->item;
    auto_free char *path = path_join(resource->context->crawler_dir, CRAWLER_FILE_NAME);
    auto_buf Buf content = BUF_INIT(0);
    int r;

    if (!path)
        return error_oom(err);
    r = watch_owner(resource, err);
    if (r < 0)
        return r;
    /* After a restart of ours crawlerd is asked to read it again, which changes nothing. */
    if (crawler_secrets_are_handed(resource->context, item->secrets) &&
        (item->told || resource->context->dry_run) &&
        file_read(path, FILE_MAX_BYTES, &content, NULL) >= 0 &&
        streq(buf_str(&content), item->document))
        return 0;
    *ret_difference = strdup("hand the crawl part of the plan to crawlerd");
    return *ret_difference ? 1 : error_oom(err);
}

/* Where tmpfiles.d made no directory (a test, a machine without the unit), it is made for
 * crawlerd's user. */
static int create_dir(const char *path, Error *err)
{
    const struct passwd *user = getpwnam(CRAWLER_USER);
    struct stat st;
    int r;

    if (stat(path, &st) >= 0)
        return 0;
    r = dir_create(path, 0750, err);
    if (r < 0)
        return r;
    if (user && geteuid() == 0 && chown(path, user->pw_uid, user->pw_gid) < 0)
        return error_errno(err, errno, "chown %s", path);
    return 0;
}

/* Its owner is crawlerd's user: what we write there is to be read by it, and by nobody else. */
static int open_owned_dir(const char *path, uid_t *ret_uid, gid_t *ret_gid, int *ret_fd, Error *err)
{
    auto_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_errno(err, errno, "open %s", path);
    *ret_uid = geteuid() == 0 ? st.st_uid : (uid_t)-1;
    *ret_gid = geteuid() == 0 ? st.st_gid : (gid_t)-1;
    *ret_fd = take_fd(&fd);
    return 0;
}

static int write_document(Resource *resource, Error *err)
{
    CrawlerItem *item = resource->item;
    const char *dir = resource->context->crawler_dir;
    auto_close int fd = -EBADF;
    uid_t uid;
    gid_t gid;
    int r;

    r = create_dir(dir, err);
    if (r < 0)
        return r;
    r = open_owned_dir(dir, &uid, &gid, &fd, err);
    if (r < 0)
        return r;
    r = crawler_secrets_write(resource->context, item->secrets, fd, uid, gid, err);
    if (r < 0)
        return r;
    return file_replace_owned_at(fd, CRAWLER_FILE_NAME, item->document, strlen(item->document),
                                 0640, uid, gid, err);
}

static int on_unit_started(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    Resource *resource = userdata;
    CrawlerItem *item = resource->item;
    auto_error Error err = {0};

    item->start = sd_bus_slot_unref(item->start);
    /* systemd is on the way down, and our own SIGTERM too: no fault, and nobody to be woken up. */
    if (sd_bus_message_is_method_error(reply, SYSTEMD_DESTRUCTIVE)) {
        resource_finish(resource, NULL);
        return 0;
    }
    if (sd_bus_message_is_method_error(reply, NULL)) {
        (void)error_set(&err, -ENOTCONN, ERROR_TEMPORARY,
                        "crawlerd is not running and could not be started: %s",
                        sd_bus_message_get_error(reply)->message);
        (void)error_remedy(&err, err.code, "systemctl status " CRAWLER_UNIT);
        resource_finish(resource, &err);
        return 0;
    }
    item->told = true; /* it reads the file when it starts */
    resource_finish(resource, NULL);
    return 0;
}

/* Nobody answers: systemd starts the unit. */
static void start_unit(Resource *resource, const Error *why)
{
    CrawlerItem *item = resource->item;
    auto_error Error err = {0};

    if (resource->context->bus &&
        sd_bus_call_method_async(resource->context->bus, &item->start, SYSTEMD_NAME, SYSTEMD_PATH,
                                 SYSTEMD_MANAGER, "StartUnit", on_unit_started, resource, "ss",
                                 CRAWLER_UNIT, "replace") >= 0)
        return;
    (void)error_copy(&err, why);
    (void)error_prefix(&err, err.code, "crawlerd");
    resource_finish(resource, &err);
}

static void on_reloaded(const char *text, const Error *err, void *userdata)
{
    Resource *resource = userdata;
    CrawlerItem *item = resource->item;
    auto_error Error failure = {0};

    if (err)
        (void)error_copy(&failure, err);
    item->reload = bus_call_free(item->reload);
    if (failure.code < 0 && item->leaving)
        error_done(&failure); /* it does not run: nothing to stop */
    if (failure.code < 0 && error_is_transient(&failure)) {
        start_unit(resource, &failure);
        return;
    }
    item->told = failure.code == 0;
    resource_finish(resource, failure.code < 0 ? &failure : NULL);
}

static void tell_crawlerd(Resource *resource)
{
    CrawlerItem *item = resource->item;
    auto_error Error err = {0};

    if (!resource->context->bus)
        (void)error_set(&err, -ENOTCONN, ERROR_TEMPORARY, "no D-Bus to reach crawlerd");
    else if (bus_call_text_async(resource->context->bus, BUS_CRAWLER_NAME, BUS_CRAWLER_PATH,
                                 BUS_CRAWLER_INTERFACE, "Reload", NULL, BUS_CALL_TIMEOUT_USEC,
                                 on_reloaded, resource, &item->reload, &err) >= 0)
        return;
    resource_finish(resource, &err);
}

static void crawler_apply(Resource *resource)
{
    auto_error Error err = {0};

    if (write_document(resource, &err) < 0) {
        resource_finish(resource, &err);
        return;
    }
    tell_crawlerd(resource);
}

static void crawler_cancel(Resource *resource)
{
    CrawlerItem *item = resource->item;

    item->reload = bus_call_free(item->reload);
    item->start = sd_bus_slot_unref(item->start);
}

/* Without the file it has nothing to do; what is spooled is still delivered. */
static void crawler_remove(Resource *resource)
{
    CrawlerItem *item = resource->item;
    auto_free char *path = path_join(resource->context->crawler_dir, CRAWLER_FILE_NAME);
    auto_error Error err = {0};
    int r = 0;

    if (!path || (unlink(path) < 0 && errno != ENOENT))
        r = error_errno(&err, path ? errno : ENOMEM, "remove %s", path ? path : CRAWLER_FILE_NAME);
    if (r >= 0)
        r = crawler_secrets_remove(resource->context->crawler_dir, &err);
    if (r < 0) {
        resource_finish(resource, &err);
        return;
    }
    item->leaving = true;
    tell_crawlerd(resource);
}

static bool crawler_uses_secret(const Resource *resource, const char *name)
{
    return strv_contains(((const CrawlerItem *)resource->item)->secrets, name);
}

static void crawler_free(Resource *resource)
{
    CrawlerItem *item = resource->item;

    if (!item)
        return;
    bus_call_free(item->reload);
    sd_bus_slot_unref(item->start);
    sd_bus_slot_unref(item->owner);
    strv_free(item->secrets);
    free(item->document);
    free(item);
}

const ResourceOps resource_crawler = {
    .kind = "crawler",
    .stage = STAGE_CRAWLER,
    .declare = crawler_declare,
    .check = crawler_check,
    .apply = crawler_apply,
    .cancel = crawler_cancel,
    .remove = crawler_remove,
    .uses_secret = crawler_uses_secret,
    .free = crawler_free,
};
