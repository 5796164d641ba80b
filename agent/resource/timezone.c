/* SPDX-License-Identifier: Apache-2.0 */
/* The time zone as systemd keeps it: /etc/localtime is a relative link into the zone database, and
 * Debian's /etc/timezone follows where it exists. */
#include "agent/resource/system.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/str.h"

#define ZONEINFO      "usr/share/zoneinfo/"
#define NAME_FILE_MAX 256

static int timezone_declare(ResourceContext *context, const Plan *plan, Error *err)
{
    char *zone;

    if (!plan->system.timezone)
        return 0;
    zone = strdup(plan->system.timezone);
    if (!zone)
        return error_oom(err);
    /* One name for every zone: another zone is a change, and nothing leaves. */
    return resource_add(context, &resource_timezone, "/etc/localtime", false, zone, err);
}

static int zone_exists(const Resource *resource, Error *err)
{
    auto_free char *relative = str_printf("/" ZONEINFO "%s", (const char *)resource->item);
    auto_free char *path = relative ? resource_path(resource->context, relative) : NULL;
    struct stat st;

    if (!path)
        return error_oom(err);
    if (stat(path, &st) >= 0 && S_ISREG(st.st_mode))
        return 0;
    (void)error_set(err, -ENOENT, ERROR_INVALID, "time zone %s is not in %s",
                    (const char *)resource->item, path);
    return error_remedy(err, err ? err->code : -ENOENT,
                        "check the name, or: sudo apt-get install tzdata");
}

/* "Asia/Seoul" of "../usr/share/zoneinfo/Asia/Seoul" or "/usr/share/zoneinfo/Asia/Seoul". */
static const char *zone_of_link(const char *target)
{
    const char *at = strstr(target, ZONEINFO);

    return at ? at + strlen(ZONEINFO) : NULL;
}

/* Debian's /etc/timezone, where it exists, names the same zone. */
static bool name_follows(const Resource *resource)
{
    auto_free char *path = resource_path(resource->context, "/etc/timezone");
    auto_buf Buf text = BUF_INIT(0);
    int r;

    if (!path)
        return true;
    r = file_read(path, NAME_FILE_MAX, &text, NULL);
    return r == -ENOENT || (r >= 0 && streq(str_strip(text.data), resource->item));
}

static int timezone_check(Resource *resource, char **ret_difference, Error *err)
{
    auto_free char *link = resource_path(resource->context, "/etc/localtime");
    const char *zone = resource->item, *now;
    char target[PATH_MAX];
    ssize_t n;
    int r;

    if (!link)
        return error_oom(err);
    r = zone_exists(resource, err);
    if (r < 0)
        return r;
    n = readlink(link, target, sizeof(target) - 1);
    target[n > 0 ? n : 0] = '\0';
    now = zone_of_link(target);
    if (now && streq(now, zone)) {
        if (name_follows(resource))
            return 0;
        *ret_difference = str_printf("write %s to /etc/timezone", zone);
        return *ret_difference ? 1 : error_oom(err);
    }
    *ret_difference = str_printf("set the time zone to %s (is %s)", zone, now ? now : "not set");
    return *ret_difference ? 1 : error_oom(err);
}

static int replace_link(const char *target, int dir_fd, Error *err)
{
    static const char temporary[] = ".localtime.new";

    (void)unlinkat(dir_fd, temporary, 0); /* of one that was killed here */
    if (symlinkat(target, dir_fd, temporary) < 0)
        return error_errno(err, errno, "link to %s", target);
    if (renameat(dir_fd, temporary, dir_fd, "localtime") < 0) {
        int r = -errno;

        (void)unlinkat(dir_fd, temporary, 0);
        return error_errno(err, r, "rename to /etc/localtime");
    }
    return fsync(dir_fd) < 0 ? error_errno(err, errno, "sync /etc") : 0;
}

static int set_zone(Resource *resource, Error *err)
{
    const char *zone = resource->item;
    auto_free char *target = str_printf("../" ZONEINFO "%s", zone),
                   *line = str_printf("%s\n", zone);
    auto_free char *etc = resource_path(resource->context, "/etc");
    auto_close int dir_fd = -EBADF;
    int r;

    if (!target || !line || !etc)
        return error_oom(err);
    dir_fd = open(etc, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return error_errno(err, errno, "open %s", etc);
    r = replace_link(target, dir_fd, err);
    if (r < 0)
        return r;
    if (faccessat(dir_fd, "timezone", F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    r = file_replace_at(dir_fd, "timezone", line, strlen(line), 0644, err);
    return r < 0 ? r : 0;
}

static void timezone_apply(Resource *resource)
{
    auto_error Error err = {0};

    resource_finish(resource, set_zone(resource, &err) < 0 ? &err : NULL);
}

static void timezone_free(Resource *resource)
{
    free(resource->item);
}

const ResourceOps resource_timezone = {
    .kind = "timezone",
    .stage = STAGE_SYSTEM,
    .declare = timezone_declare,
    .check = timezone_check,
    .apply = timezone_apply,
    .left_alone = "the time zone stays as it was set",
    .free = timezone_free,
};
