/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/base/file.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/base/backoff.h"
#include "agent/base/crash.h"
#include "agent/base/str.h"

#define TEMPORARY_TRIES    16
#define TEMPORARY_NAME_MAX 200

int fd_write_all(int fd, const void *data, size_t size)
{
    const char *at = data;

    while (size > 0) {
        ssize_t n = write(fd, at, size);

        if (n < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

static int fd_read_all(int fd, const char *name, size_t max, Buf *ret, Error *err)
{
    auto_buf Buf buf = BUF_INIT(max);
    struct stat st;

    if (fstat(fd, &st) < 0)
        return error_errno(err, errno, "stat %s", name);
    if (S_ISREG(st.st_mode) && st.st_size > 0 && (uint64_t)st.st_size <= max &&
        buf_reserve(&buf, (size_t)st.st_size) < 0)
        return error_oom(err);

    for (;;) {
        char step[4096];
        ssize_t n = read(fd, step, sizeof(step));
        int r;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "read %s", name);
        if (n == 0)
            break;
        r = buf_add(&buf, step, (size_t)n);
        if (r == -EFBIG)
            return error_set(err, r, ERROR_INVALID, "%s is larger than %zu bytes", name, max);
        if (r < 0)
            return error_oom(err);
    }
    if (buf_reserve(&buf, 0) < 0) /* an empty file is "" and not NULL */
        return error_oom(err);
    if (buf.size == 0)
        buf.data[0] = '\0';
    buf_done(ret);
    *ret = buf;
    buf = BUF_INIT(0);
    return 0;
}

int file_read_at(int dir_fd, const char *name, size_t max, Buf *ret, Error *err)
{
    auto_close int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY);

    if (fd < 0)
        return error_errno(err, errno, "open %s", name);
    return fd_read_all(fd, name, max, ret, err);
}

int file_read(const char *path, size_t max, Buf *ret, Error *err)
{
    return file_read_at(AT_FDCWD, path, max, ret, err);
}

/* 1 when the file holds just this, with this mode and owner. */
static int file_is_same(int dir_fd, const char *name, const void *data, size_t size, mode_t mode,
                        uid_t uid, gid_t gid)
{
    auto_close int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    auto_buf Buf content = BUF_INIT(size);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return 0;
    if (!S_ISREG(st.st_mode) || (st.st_mode & 07777) != mode || (uint64_t)st.st_size != size ||
        (uid != (uid_t)-1 && st.st_uid != uid) || (gid != (gid_t)-1 && st.st_gid != gid))
        return 0;
    if (fd_read_all(fd, name, size, &content, NULL) < 0)
        return 0;
    return content.size == size && (size == 0 || memcmp(content.data, data, size) == 0);
}

/* ".NAME." and 16 hexadecimal digits. */
static bool is_temporary_of(const char *entry, const char *name)
{
    size_t size = MIN_OF(strlen(name), (size_t)TEMPORARY_NAME_MAX);

    return entry[0] == '.' && strncmp(entry + 1, name, size) == 0 && entry[1 + size] == '.' &&
           strlen(entry + 2 + size) == 16 && strspn(entry + 2 + size, "0123456789abcdef") == 16;
}

/* What a writer left that was killed before its rename: it may hold a secret. One that is still
 * being written is locked. */
static void temporaries_remove(int dir_fd, const char *name)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

    if (!dir) {
        close_fd(fd);
        return;
    }
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        auto_close int left = -EBADF;

        if (!is_temporary_of(entry->d_name, name))
            continue;
        left = openat(dir_fd, entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (left >= 0 && flock(left, LOCK_EX | LOCK_NB) == 0)
            (void)unlinkat(dir_fd, entry->d_name, 0); /* the next writer tries again */
    }
    (void)closedir(dir);
}

static int temporary_create(int dir_fd, const char *name, char **ret_name, int *ret_fd)
{
    for (unsigned i = 0; i < TEMPORARY_TRIES; i++) {
        auto_free char *temporary =
            str_printf(".%.*s.%016jx", TEMPORARY_NAME_MAX, name, (uintmax_t)random_u64(UINT64_MAX));
        int fd;

        if (!temporary)
            return -ENOMEM;
        fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0) {
            (void)flock(fd, LOCK_EX | LOCK_NB);
            *ret_name = take_ptr(temporary);
            *ret_fd = fd;
            return 0;
        }
        if (errno != EEXIST)
            return -errno;
    }
    return -EEXIST;
}

/* Owner and mode come before the first byte: at no instant can somebody else read the content. */
static int temporary_fill(int fd, const void *data, size_t size, mode_t mode, uid_t uid, gid_t gid)
{
    int r;

    if ((uid != (uid_t)-1 || gid != (gid_t)-1) && fchown(fd, uid, gid) < 0)
        return -errno;
    if (fchmod(fd, mode) < 0)
        return -errno;
    r = fd_write_all(fd, data, size);
    if (r < 0)
        return r;
    if (fsync(fd) < 0)
        return -errno;
    return 0;
}

int file_replace_owned_at(int dir_fd, const char *name, const void *data, size_t size, mode_t mode,
                          uid_t uid, gid_t gid, Error *err)
{
    auto_free char *temporary = NULL;
    auto_close int fd = -EBADF;
    int r;

    assert(name && (data || size == 0));

    if (file_is_same(dir_fd, name, data, size, mode, uid, gid))
        return 0;

    temporaries_remove(dir_fd, name);
    r = temporary_create(dir_fd, name, &temporary, &fd);
    if (r < 0)
        return error_errno(err, r, "create a temporary file for %s", name);
    r = temporary_fill(fd, data, size, mode, uid, gid);
    if (r < 0) {
        (void)unlinkat(dir_fd, temporary, 0);
        return error_errno(err, r, "write %s", name);
    }
    crash_point("file.written");
    if (renameat(dir_fd, temporary, dir_fd, name) < 0) {
        r = -errno;
        (void)unlinkat(dir_fd, temporary, 0);
        return error_errno(err, r, "rename to %s", name);
    }
    if (dir_fd >= 0 && fsync(dir_fd) < 0)
        return error_errno(err, errno, "sync the directory of %s", name);
    crash_point("file.replaced");
    return 1;
}

int file_replace_at(int dir_fd, const char *name, const void *data, size_t size, mode_t mode,
                    Error *err)
{
    return file_replace_owned_at(dir_fd, name, data, size, mode, (uid_t)-1, (gid_t)-1, err);
}

int file_replace(const char *path, const void *data, size_t size, mode_t mode, Error *err)
{
    const char *slash = strrchr(path, '/');
    auto_free char *dir = NULL;
    auto_close int dir_fd = -EBADF;
    int r;

    if (!slash)
        dir = strdup(".");
    else
        dir = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
    if (!dir)
        return error_oom(err);
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return error_errno(err, errno, "open %s", dir);
    r = file_replace_at(dir_fd, slash ? slash + 1 : path, data, size, mode, err);
    if (r < 0)
        return error_prefix(err, r, "%s", dir);
    return r;
}

int dir_create(const char *path, mode_t mode, Error *err)
{
    auto_free char *copy = strdup(path);
    struct stat st;

    if (!copy)
        return error_oom(err);
    for (char *c = copy + 1; *copy && *c; c++) {
        if (*c != '/')
            continue;
        *c = '\0';
        if (mkdir(copy, mode) < 0 && errno != EEXIST && errno != EROFS)
            return error_errno(err, errno, "create directory %s", copy);
        *c = '/';
    }
    if (mkdir(copy, mode) < 0 && errno != EEXIST)
        return error_errno(err, errno, "create directory %s", copy);
    if (stat(copy, &st) < 0)
        return error_errno(err, errno, "stat %s", copy);
    if (!S_ISDIR(st.st_mode))
        return error_set(err, -ENOTDIR, ERROR_INVALID, "%s is no directory", copy);
    return 0;
}

static int open_beneath(int root_fd, const char *dir)
{
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                           .resolve =
                               RESOLVE_NO_SYMLINKS | RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    long fd = syscall(SYS_openat2, root_fd, dir, &how, sizeof(how));

    return fd < 0 ? -errno : (int)fd;
}

/* /bin and /var/run are links on Debian: where they lead is what a person needs to know. */
static int refuse_link(int dir_fd, const char *path, const char *part, Error *err)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(dir_fd, part, target, sizeof(target) - 1);

    (void)error_set(err, -ELOOP, ERROR_INVALID,
                    "%s: %s is a symbolic link; a path of a plan may not lead through one", path,
                    part);
    if (n <= 0)
        return -ELOOP;
    target[n] = '\0';
    return error_remedy(err, -ELOOP, "write the path that it leads to: %s is %s", part, target);
}

int dir_open_parent(const char *root, const char *path, bool create, int *ret_fd,
                    const char **ret_name, Error *err)
{
    const char *base = str_is_empty(root) ? "/" : root;
    const char *name = strrchr(path, '/');
    auto_close int fd = -EBADF;
    auto_(strv_freep) char **parts = NULL;
    auto_free char *dir = NULL;

    if (path[0] != '/' || !name || !name[1] || streq(name, "/.") || streq(name, "/.."))
        return error_set(err, -EINVAL, ERROR_INVALID, "%s is no absolute path of a file", path);
    dir = strndup(path, (size_t)(name - path));
    parts = dir ? str_split(dir, "/") : NULL;
    if (!parts)
        return error_oom(err);

    fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open %s", base);
    STRV_FOREACH (part, parts) {
        int next;

        if (streq(*part, "..") || streq(*part, "."))
            return error_set(err, -EINVAL, ERROR_INVALID, "%s: \"%s\" in a path", path, *part);
        next = open_beneath(fd, *part);
        if (next == -ENOENT && create) {
            if (mkdirat(fd, *part, 0755) < 0 && errno != EEXIST)
                return error_errno(err, errno, "create directory %s of %s", *part, path);
            next = open_beneath(fd, *part);
        }
        if (next == -ELOOP)
            return refuse_link(fd, path, *part, err);
        if (next < 0)
            return error_errno(err, next, "open directory %s of %s", *part, path);
        (void)close_fd(fd);
        fd = next;
    }
    *ret_fd = take_fd(&fd);
    *ret_name = name + 1;
    return 0;
}

int dir_sync(const char *path)
{
    auto_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return -errno;
    return 0;
}

char *path_join(const char *a, const char *b)
{
    size_t size = strlen(a);

    while (size > 1 && a[size - 1] == '/')
        size--;
    while (*b == '/')
        b++;
    return str_printf("%.*s%s%s", (int)size, a, size > 0 && a[size - 1] == '/' ? "" : "/", b);
}

int path_free_bytes(const char *path, uint64_t *ret)
{
    struct statvfs st;

    if (statvfs(path, &st) < 0)
        return -errno;
    *ret = (uint64_t)st.f_bfree * st.f_frsize;
    return 0;
}
