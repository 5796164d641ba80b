/* SPDX-License-Identifier: Apache-2.0 */
/* A file of the plan: content, mode and owner, replaced atomically and right from the first byte. A
 * symbolic link on the way is refused, one at the name itself is replaced. Drift (somebody edited
 * it) is put right at the next pass. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/resource/secrets.h"
#include "agent/resource/system.h"

#define NAME_BUFFER 16384

/* What the file shall be; the content may be a secret and is cleansed. */
typedef struct Wanted {
    SecretBytes *content;
    uid_t uid;
    gid_t gid;
} Wanted;

static void wanted_done(Wanted *wanted)
{
    secret_bytes_free(wanted->content);
}

/* A script of the same plan may make the user: it is asked for again. */
static int find_user(const char *name, uid_t *ret, Error *err)
{
    struct passwd entry, *found = NULL;
    char buffer[NAME_BUFFER];
    uint64_t number;

    if (parse_u64(name, &number) >= 0 && number < (uid_t)-1) {
        *ret = (uid_t)number;
        return 0;
    }
    if (getpwnam_r(name, &entry, buffer, sizeof(buffer), &found) != 0 || !found)
        return error_set(err, -ESRCH, ERROR_TEMPORARY, "there is no user \"%s\" on this machine",
                         name);
    *ret = found->pw_uid;
    return 0;
}

static int find_group(const char *name, gid_t *ret, Error *err)
{
    struct group entry, *found = NULL;
    char buffer[NAME_BUFFER];
    uint64_t number;

    if (parse_u64(name, &number) >= 0 && number < (gid_t)-1) {
        *ret = (gid_t)number;
        return 0;
    }
    if (getgrnam_r(name, &entry, buffer, sizeof(buffer), &found) != 0 || !found)
        return error_set(err, -ESRCH, ERROR_TEMPORARY, "there is no group \"%s\" on this machine",
                         name);
    *ret = found->gr_gid;
    return 0;
}

static int read_wanted(const Resource *resource, Wanted *ret, Error *err)
{
    const PlanFile *plan = resource->item;
    auto_(wanted_done) Wanted wanted = {.uid = (uid_t)-1, .gid = (gid_t)-1};
    auto_(secret_record_done) SecretRecord record = {0};
    SecretStore *store = resource->context->secrets;
    int r = 0;

    if (plan->secret) {
        r = secret_store_record(store, plan->secret, &record, err);
        if (r < 0)
            return r;
        if (r == 0 || !secret_store_has(store, plan->secret, record.version))
            return error_set(err, -EINPROGRESS, ERROR_TEMPORARY, "waits for secret %s",
                             plan->secret);
        r = secret_store_read(store, plan->secret, record.version, &wanted.content, err);
    } else if (secret_bytes_new(plan->content, strlen(plan->content), &wanted.content) < 0)
        return error_oom(err);
    if (r >= 0 && plan->owner)
        r = find_user(plan->owner, &wanted.uid, err);
    if (r >= 0 && plan->group)
        r = find_group(plan->group, &wanted.gid, err);
    if (r < 0)
        return r;
    *ret = wanted;
    wanted.content = NULL;
    return 0;
}

static int file_declare(ResourceContext *context, const Plan *plan, Error *err)
{
    int r;

    PLAN_FOREACH (PlanFile, file, plan->system.files) {
        r = resource_add(context, &resource_file, file->path, false, file, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* 1: something differs; *ret_what says what, without content. */
static int compare(int dir_fd, const char *name, const PlanFile *plan, const Wanted *wanted,
                   const char **ret_what, Error *err)
{
    auto_secret_buf Buf content = BUF_INIT(0);
    struct stat st;
    int r;

    *ret_what = NULL;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno != ENOENT)
            return error_errno(err, errno, "stat %s", plan->path);
        *ret_what = "it is not there";
    } else if (S_ISDIR(st.st_mode))
        return error_set(err, -EISDIR, ERROR_INVALID, "%s is a directory", plan->path);
    else if (!S_ISREG(st.st_mode))
        *ret_what = "it is no regular file";
    else if ((st.st_mode & 07777) != plan->mode)
        *ret_what = "its mode differs";
    else if ((wanted->uid != (uid_t)-1 && st.st_uid != wanted->uid) ||
             (wanted->gid != (gid_t)-1 && st.st_gid != wanted->gid))
        *ret_what = "its owner differs";
    else if ((uint64_t)st.st_size != wanted->content->size)
        *ret_what = "its content differs";
    if (*ret_what)
        return 1;
    r = file_read_at(dir_fd, name, wanted->content->size, &content, err);
    if (r < 0)
        return r;
    if (content.size == wanted->content->size &&
        (content.size == 0 || memcmp(content.data, wanted->content->data, content.size) == 0))
        return 0;
    *ret_what = "its content differs";
    return 1;
}

static int file_check(Resource *resource, char **ret_difference, Error *err)
{
    const PlanFile *plan = resource->item;
    auto_(wanted_done) Wanted wanted = {0};
    auto_close int dir_fd = -EBADF;
    const char *name, *what = "it is not there";
    int r;

    r = read_wanted(resource, &wanted, err);
    if (r < 0)
        return r;
    r = dir_open_parent(resource->context->root, plan->path, /* create= */ false, &dir_fd, &name,
                        err);
    if (r == -ENOENT) {
        if (err)
            error_done(err);
        r = 1;
    } else if (r >= 0)
        r = compare(dir_fd, name, plan, &wanted, &what, err);
    if (r <= 0)
        return r;
    *ret_difference = str_printf("write %s (mode %04o): %s", plan->path, plan->mode, what);
    return *ret_difference ? 1 : error_oom(err);
}

static int write_file(Resource *resource, Error *err)
{
    const PlanFile *plan = resource->item;
    auto_(wanted_done) Wanted wanted = {0};
    auto_close int dir_fd = -EBADF;
    const char *name;
    int r;

    r = read_wanted(resource, &wanted, err);
    if (r < 0)
        return r;
    r = dir_open_parent(resource->context->root, plan->path, /* create= */ true, &dir_fd, &name,
                        err);
    if (r < 0)
        return r;
    r = file_replace_owned_at(dir_fd, name, wanted.content->data, wanted.content->size, plan->mode,
                              wanted.uid, wanted.gid, err);
    return r < 0 ? r : 0;
}

static void file_apply(Resource *resource)
{
    auto_error Error err = {0};

    resource_finish(resource, write_file(resource, &err) < 0 ? &err : NULL);
}

/* The value of a secret stays nowhere when nobody asks for it any more. */
static bool file_goes(const Resource *resource)
{
    return ((const PlanFile *)resource->item)->secret;
}

static int remove_file(const Resource *resource, Error *err)
{
    const PlanFile *plan = resource->item;
    auto_close int dir_fd = -EBADF;
    const char *name;
    struct stat st;
    int r;

    r = dir_open_parent(resource->context->root, plan->path, /* create= */ false, &dir_fd, &name,
                        err);
    if (r < 0)
        return r;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
        return 0; /* gone already, or somebody else's */
    if (unlinkat(dir_fd, name, 0) < 0)
        return error_errno(err, errno, "remove %s", plan->path);
    return fsync(dir_fd) < 0 ? error_errno(err, errno, "sync the directory of %s", plan->path) : 0;
}

static void file_remove(Resource *resource)
{
    auto_error Error err = {0};
    int r = file_goes(resource) ? remove_file(resource, &err) : 0;

    resource_finish(resource, r < 0 && r != -ENOENT ? &err : NULL);
}

static bool file_uses_secret(const Resource *resource, const char *name)
{
    return streq_ptr(((const PlanFile *)resource->item)->secret, name);
}

const ResourceOps resource_file = {
    .kind = "file",
    .stage = STAGE_SYSTEM,
    .declare = file_declare,
    .check = file_check,
    .apply = file_apply,
    .remove = file_remove,
    .goes = file_goes,
    .uses_secret = file_uses_secret,
    .left_alone = "the file stays as it is",
};
