/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/resource/crawler-secrets.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/resource/secrets.h"

/* Mounts of an earlier crash, one above the other, at most. */
#define MOUNTS_MAX 8

static bool is_handed(const ResourceContext *context, int dir_fd, const char *name)
{
    auto_(secret_record_done) SecretRecord record = {0};
    auto_(secret_bytes_freep) SecretBytes *value = NULL;
    auto_secret_buf Buf copy = BUF_INIT(0);

    return secret_store_record(context->secrets, name, &record, NULL) > 0 &&
           secret_store_read(context->secrets, name, record.version, &value, NULL) >= 0 &&
           file_read_at(dir_fd, name, SECRET_VALUE_MAX, &copy, NULL) >= 0 &&
           copy.size == value->size &&
           (copy.size == 0 || memcmp(copy.data, value->data, copy.size) == 0);
}

/* Files of the directory that `keep` does not name; removed where `remove` says so. Returns how
 * many there are, or a negative errno. */
static int visit_others(int dir_fd, char *const *keep, bool remove)
{
    int copy = fcntl(dir_fd, F_DUPFD_CLOEXEC, 0), n = 0;
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);

    if (!dir) {
        n = -errno;
        if (copy >= 0)
            (void)close(copy);
        return n;
    }
    rewinddir(dir);
    for (struct dirent *entry = readdir(dir); entry && n >= 0; entry = readdir(dir)) {
        if (streq(entry->d_name, ".") || streq(entry->d_name, "..") ||
            strv_contains(keep, entry->d_name))
            continue;
        n++;
        if (remove && unlinkat(dir_fd, entry->d_name, 0) < 0 && errno != ENOENT)
            n = -errno;
    }
    (void)closedir(dir);
    return n;
}

static bool is_ramfs(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) >= 0 && fs.f_type == RAMFS_MAGIC;
}

static int open_secrets_dir(int dir_fd)
{
    return openat(dir_fd, SECRETS_DIR_NAME, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

bool crawler_secrets_are_handed(const ResourceContext *context, char *const *names)
{
    auto_close int dir_fd = open(context->crawler_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    auto_close int fd = dir_fd < 0 ? -EBADF : open_secrets_dir(dir_fd);

    if (fd < 0)
        return strv_length(names) == 0;
    if (strv_length(names) == 0 || (geteuid() == 0 && !is_ramfs(fd)))
        return false;
    STRV_FOREACH (name, names)
        if (!is_handed(context, fd, *name))
            return false;
    return visit_others(fd, names, /* remove= */ false) == 0;
}

/* The directory above belongs to a user whom nobody has to trust: what is mounted over is what was
 * opened without following a link, and what is then written to is seen to be the mount. */
static int mount_over(int dir_fd, int *fd, Error *err)
{
    char path[64];

    (void)visit_others(*fd, NULL, /* remove= */ true); /* on tmpfs: they could be swapped out */
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", *fd);
    if (mount("ramfs", path, "ramfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, "mode=0700") < 0)
        return error_errno(err, errno, "mount a ramfs for crawlerd's secrets");
    (void)close(*fd);
    *fd = open_secrets_dir(dir_fd);
    if (*fd < 0)
        return error_errno(err, errno, "open the directory of crawlerd's secrets");
    if (!is_ramfs(*fd))
        return error_set(err, -EXDEV, ERROR_TEMPORARY,
                         "the directory of crawlerd's secrets was moved away under us");
    return 0;
}

static int prepare(int dir_fd, uid_t uid, gid_t gid, int *ret_fd, Error *err)
{
    auto_close int fd = -EBADF;
    int r;

    if (mkdirat(dir_fd, SECRETS_DIR_NAME, 0700) < 0 && errno != EEXIST)
        return error_errno(err, errno, "create a directory for crawlerd's secrets");
    fd = open_secrets_dir(dir_fd);
    if (fd < 0)
        return error_errno(err, errno, "open the directory of crawlerd's secrets");
    /* A test without root has a plain directory. */
    r = geteuid() == 0 && !is_ramfs(fd) ? mount_over(dir_fd, &fd, err) : 0;
    if (r < 0)
        return r;
    if (uid != (uid_t)-1 && fchown(fd, uid, gid) < 0)
        return error_errno(err, errno, "chown the directory of crawlerd's secrets");
    *ret_fd = take_fd(&fd);
    return 0;
}

static int wait_for_all(SecretStore *store, char *const *names, Error *err)
{
    STRV_FOREACH (name, names) {
        auto_(secret_record_done) SecretRecord record = {0};
        int r = secret_store_record(store, *name, &record, err);

        if (r < 0)
            return r;
        if (r == 0 || !secret_store_has(store, *name, record.version))
            return error_set(err, -EINPROGRESS, ERROR_TEMPORARY, "waits for secret %s", *name);
    }
    return 0;
}

int crawler_secrets_write(const ResourceContext *context, char *const *names, int dir_fd, uid_t uid,
                          gid_t gid, Error *err)
{
    SecretStore *store = context->secrets;
    auto_close int fd = -EBADF;
    int r;

    if (strv_length(names) == 0)
        return crawler_secrets_remove(context->crawler_dir, err);
    r = wait_for_all(store, names, err);
    if (r >= 0)
        r = prepare(dir_fd, uid, gid, &fd, err);
    if (r < 0)
        return r;
    STRV_FOREACH (name, names) {
        auto_(secret_record_done) SecretRecord record = {0};
        auto_(secret_bytes_freep) SecretBytes *value = NULL;

        r = secret_store_record(store, *name, &record, err);
        if (r >= 0)
            r = secret_store_read(store, *name, record.version, &value, err);
        if (r >= 0)
            r = file_replace_owned_at(fd, *name, value->data, value->size, 0400, uid, gid, err);
        if (r < 0)
            return r;
    }
    r = visit_others(fd, names, /* remove= */ true);
    return r < 0 ? error_errno(err, r, "remove former secrets of crawlerd") : 0;
}

int crawler_secrets_remove(const char *crawler_dir, Error *err)
{
    auto_close int dir_fd = open(crawler_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = 0;

    if (dir_fd < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "open %s", crawler_dir);
    for (unsigned i = 0; i < MOUNTS_MAX; i++) {
        auto_close int fd = open_secrets_dir(dir_fd);
        char path[64];

        if (fd < 0)
            return errno == ENOENT ? 0 : error_errno(err, errno, "open crawlerd's secrets");
        r = visit_others(fd, NULL, /* remove= */ true);
        if (r < 0)
            return error_errno(err, r, "remove crawlerd's secrets");
        if (!is_ramfs(fd))
            break;
        /* Lazily: crawlerd may just read one, which is unlinked already. */
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        if (umount2(path, MNT_DETACH) < 0)
            return error_errno(err, errno, "unmount crawlerd's secrets");
    }
    if (unlinkat(dir_fd, SECRETS_DIR_NAME, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return error_errno(err, errno, "remove the directory of crawlerd's secrets");
    return 0;
}
