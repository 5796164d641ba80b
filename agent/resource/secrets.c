/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/resource/secrets.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "agent/base/crash.h"
#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/base/time.h"

#define STORE_NAME ".store"

struct SecretStore {
    char *dir; /* <runtime-dir>/secrets */
    Db *db;
    char **doubtful;
};

/* A ramfs and not a tmpfs: its pages are never swapped out. */
static int mount_ramfs(const char *dir, Error *err)
{
    struct statfs st;

    if (statfs(dir, &st) < 0)
        return error_errno(err, errno, "statfs %s", dir);
    if (st.f_type == RAMFS_MAGIC)
        return 0;
    if (mount("ramfs", dir, "ramfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, "mode=0700") < 0)
        return error_errno(err, errno, "mount a ramfs for secrets on %s", dir);
    return 0;
}

int secret_store_new(const char *runtime_dir, bool ramfs, Db *db, SecretStore **ret, Error *err)
{
    auto_(secret_store_freep) SecretStore *store = calloc(1, sizeof(*store));
    auto_free char *values = NULL;
    int r;

    if (!store)
        return error_oom(err);
    store->db = db;
    store->dir = path_join(runtime_dir, SECRETS_DIR_NAME);
    values = store->dir ? path_join(store->dir, STORE_NAME) : NULL;
    if (!values)
        return error_oom(err);

    r = dir_create(store->dir, 0700, err);
    if (r < 0)
        return r;
    if (ramfs) {
        r = mount_ramfs(store->dir, err);
        if (r < 0)
            return r;
    }
    if (chmod(store->dir, 0700) < 0)
        return error_errno(err, errno, "chmod %s", store->dir);
    r = dir_create(values, 0700, err);
    if (r < 0)
        return r;

    *ret = take_ptr(store);
    return 0;
}

SecretStore *secret_store_free(SecretStore *store)
{
    if (!store)
        return NULL;

    strv_free(store->doubtful);
    free(store->dir);
    free(store);
    return NULL;
}

int secret_store_record(SecretStore *store, const char *name, SecretRecord *ret, Error *err)
{
    auto_(db_donep) DbStmt *stmt = NULL;
    int r;

    r = db_prepare(store->db,
                   "SELECT secret, wanted, version, fetched_at FROM secret WHERE name = ?", &stmt,
                   err);
    if (r < 0)
        return r;
    r = db_bind(stmt, "s", err, name);
    if (r < 0)
        return r;
    r = db_step(stmt, err);
    if (r <= 0)
        return r;

    {
        auto_(secret_record_done) SecretRecord record = {.fetched_at = db_u64(stmt, 3)};

        if (str_set(&record.secret, db_text(stmt, 0)) < 0 ||
            str_set(&record.wanted, db_text(stmt, 1)) < 0 ||
            str_set(&record.version, db_text(stmt, 2)) < 0)
            return error_oom(err);
        *ret = record;
        record = (SecretRecord){0};
    }
    return 1;
}

void secret_record_done(SecretRecord *record)
{
    free(record->secret);
    free(record->wanted);
    free(record->version);
    *record = (SecretRecord){0};
}

/* Names come from the plan and versions from the cloud: neither may leave the directory. */
static bool is_file_name(const char *s)
{
    return *s && *s != '.' && !strchr(s, '/') && strlen(s) < 200;
}

int secret_store_path(const SecretStore *store, const char *name, const char *version, char **ret,
                      Error *err)
{
    if (!is_file_name(name) || !is_file_name(version))
        return error_set(err, -EINVAL, ERROR_INVALID, "secret %s: version %s is no file name", name,
                         version);
    *ret = str_printf("%s/" STORE_NAME "/%s/%s", store->dir, name, version);
    return *ret ? 0 : error_oom(err);
}

/* Writes a value where only root can read it; 0400 from before the first byte. */
static int write_value(const char *path, const SecretBytes *value, mode_t mode, uid_t uid,
                       gid_t gid, Error *err)
{
    const char *name = strrchr(path, '/') + 1;
    auto_free char *dir = strndup(path, (size_t)(name - 1 - path));
    auto_close int dir_fd = -EBADF;
    int r;

    if (!dir)
        return error_oom(err);
    r = dir_create(dir, 0700, err);
    if (r < 0)
        return r;
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return error_errno(err, errno, "open %s", dir);
    r = file_replace_owned_at(dir_fd, name, value->data, value->size, mode, uid, gid, err);
    return r < 0 ? error_prefix(err, r, "%s", dir) : 0;
}

int secret_store_put_version(SecretStore *store, const char *name, const char *version,
                             const SecretBytes *value, Error *err)
{
    auto_free char *path = NULL;
    int r;

    r = secret_store_path(store, name, version, &path, err);
    if (r < 0)
        return r;
    return write_value(path, value, 0400, (uid_t)-1, (gid_t)-1, err);
}

int secret_store_put(SecretStore *store, const char *name, const char *secret, const char *wanted,
                     const char *version, const SecretBytes *value, Error *err)
{
    auto_(secret_record_done) SecretRecord before = {0};
    int r, found;

    found = secret_store_record(store, name, &before, err);
    if (found < 0)
        return found;
    r = secret_store_put_version(store, name, version, value, err);
    if (r < 0)
        return r;
    if (found && streq(before.version, version) && streq(before.secret, secret) &&
        streq(before.wanted, wanted))
        return 0;
    crash_point("secret.kept");

    /* Last, not first: a crash before this line fetches the version again, none is ever skipped. */
    r = db_run(
        store->db,
        "INSERT INTO secret (name, secret, wanted, version, fetched_at) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET secret = excluded.secret, wanted = excluded.wanted, "
        "version = excluded.version, fetched_at = excluded.fetched_at",
        err, "ssssu", name, secret, wanted, version, now_realtime_usec());
    if (r < 0)
        return r;
    return !found || !streq_ptr(before.version, version) || !streq_ptr(before.secret, secret);
}

int secret_store_set_doubt(SecretStore *store, const char *name, bool doubt)
{
    auto_(strv_freep) char **others = NULL;
    int r;

    if (doubt == secret_store_is_in_doubt(store, name))
        return 0;
    if (doubt)
        return strv_push(&store->doubtful, name);
    STRV_FOREACH (other, store->doubtful) {
        r = streq(*other, name) ? 0 : strv_push(&others, *other);
        if (r < 0)
            return r;
    }
    strv_free(store->doubtful);
    store->doubtful = take_ptr(others);
    return 0;
}

bool secret_store_is_in_doubt(const SecretStore *store, const char *name)
{
    return strv_contains(store->doubtful, name);
}

bool secret_store_has(const SecretStore *store, const char *name, const char *version)
{
    auto_free char *path = NULL;

    return secret_store_path(store, name, version, &path, NULL) >= 0 && access(path, R_OK) == 0;
}

int secret_store_read(const SecretStore *store, const char *name, const char *version,
                      SecretBytes **ret, Error *err)
{
    auto_secret_buf Buf buf = BUF_INIT(0);
    auto_free char *path = NULL;
    int r;

    r = secret_store_path(store, name, version, &path, err);
    if (r < 0)
        return r;
    r = file_read(path, SECRET_VALUE_MAX, &buf, err);
    if (r < 0)
        return error_prefix(err, r, "value of secret %s version %s", name, version);
    r = secret_bytes_new(buf.data, buf.size, ret);
    return r < 0 ? error_oom(err) : 0;
}

/* Removes a directory of ours and what is in it, two levels deep at most. */
static int remove_tree(const char *path, unsigned depth, Error *err)
{
    DIR *dir = opendir(path);
    int r = 0;

    if (!dir)
        return errno == ENOENT ? 0 : error_errno(err, errno, "open %s", path);
    for (struct dirent *entry = readdir(dir); entry && r >= 0; entry = readdir(dir)) {
        auto_free char *child = NULL;

        if (streq(entry->d_name, ".") || streq(entry->d_name, ".."))
            continue;
        child = path_join(path, entry->d_name);
        if (!child)
            r = error_oom(err);
        else if (unlink(child) < 0) {
            if (errno != EISDIR || depth == 0)
                r = error_errno(err, errno, "remove %s", child);
            else
                r = remove_tree(child, depth - 1, err);
        }
    }
    (void)closedir(dir);
    if (r >= 0 && rmdir(path) < 0 && errno != ENOENT)
        r = error_errno(err, errno, "remove %s", path);
    return r;
}

int secret_store_forget(SecretStore *store, const char *name, Error *err)
{
    auto_free char *path = NULL;
    int r;

    if (!is_file_name(name))
        return error_set(err, -EINVAL, ERROR_INVALID, "secret %s is no file name", name);
    r = db_run(store->db, "DELETE FROM secret WHERE name = ?", err, "s", name);
    if (r < 0)
        return r;
    path = str_printf("%s/" STORE_NAME "/%s", store->dir, name);
    if (!path)
        return error_oom(err);
    return remove_tree(path, 0, err);
}

static int trim_one(SecretStore *store, const char *name, char *const *keep, Error *err)
{
    auto_(secret_record_done) SecretRecord record = {0};
    auto_free char *path = str_printf("%s/" STORE_NAME "/%s", store->dir, name);
    DIR *dir;
    int r;

    if (!path)
        return error_oom(err);
    r = secret_store_record(store, name, &record, err);
    if (r < 0)
        return r;
    dir = opendir(path);
    if (!dir)
        return 0;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        auto_free char *key = NULL;

        if (entry->d_name[0] == '.' || streq_ptr(record.version, entry->d_name))
            continue;
        key = str_printf("%s/%s", name, entry->d_name);
        if (key && !strv_contains(keep, key))
            (void)unlinkat(dirfd(dir), entry->d_name, 0); /* the next trim tries again */
    }
    (void)closedir(dir);
    return 0;
}

int secret_store_trim(SecretStore *store, char *const *keep, Error *err)
{
    auto_free char *path = path_join(store->dir, STORE_NAME);
    DIR *dir;
    int r = 0;

    if (!path)
        return error_oom(err);
    dir = opendir(path);
    if (!dir)
        return error_errno(err, errno, "open %s", path);
    for (struct dirent *entry = readdir(dir); entry && r >= 0; entry = readdir(dir))
        if (entry->d_name[0] != '.')
            r = trim_one(store, entry->d_name, keep, err);
    (void)closedir(dir);
    return r;
}

int secret_store_publish(SecretStore *store, const char *container, const char *release,
                         const char *name, const char *version, mode_t mode, uid_t uid, gid_t gid,
                         char **ret_path, Error *err)
{
    auto_(secret_bytes_freep) SecretBytes *value = NULL;
    auto_free char *path = NULL;
    int r;

    if (!is_file_name(container) || !is_file_name(release) || !is_file_name(name))
        return error_set(err, -EINVAL, ERROR_INVALID, "%s/%s/%s is no file name", container,
                         release, name);
    r = secret_store_read(store, name, version, &value, err);
    if (r < 0)
        return r;
    path = str_printf("%s/%s/%s/%s", store->dir, container, release, name);
    if (!path)
        return error_oom(err);
    r = write_value(path, value, mode, uid, gid, err);
    if (r < 0)
        return r;
    *ret_path = take_ptr(path);
    return 0;
}

int secret_store_retire(SecretStore *store, const char *container, const char *release, Error *err)
{
    auto_free char *path = NULL;

    if (!is_file_name(container) || (release && !is_file_name(release)))
        return error_set(err, -EINVAL, ERROR_INVALID, "%s is no file name", container);
    path = release ? str_printf("%s/%s/%s", store->dir, container, release)
                   : path_join(store->dir, container);
    if (!path)
        return error_oom(err);
    return remove_tree(path, release ? 0 : 1, err);
}
