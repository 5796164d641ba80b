/* SPDX-License-Identifier: Apache-2.0 */
/* A swap file: without holes, 0600 from the first byte, on now and after every boot (by our own
 * pass: nothing is written to fstab). Making it takes as long as the disk is slow, so a child does
 * it and the loop goes on. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/sysinfo.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/crash.h"
#include "agent/base/file.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/loop.h"
#include "agent/resource/system.h"

#define SWAPPINESS_PATH   "/proc/sys/vm/swappiness"
#define SWAPS_PATH        "/proc/swaps"
#define SWAPS_MAX_BYTES   (64U << 10)
#define MKSWAP_PATH       "mkswap"
#define ALLOCATE_TIMEOUT  (30 * MINUTE) /* a gigabyte of zeros on the slowest persistent disk */
#define MKSWAP_TIMEOUT    (2 * MINUTE)
#define DISK_MARGIN_BYTES (UINT64_C(512) << 20) /* stays free beside the swap file */
#define AUTO_MIN_BYTES    (UINT64_C(512) << 20)
#define AUTO_MAX_BYTES    (UINT64_C(4) << 30)
#define ZEROS_BYTES       (256U << 10)
#define SIGNATURE         "SWAPSPACE2" /* at the end of the first page */
#define SIGNATURE_OFFSET  (4096 - 10)

typedef struct SwapItem {
    const PlanSwap *plan;
    uint64_t size_bytes;
    char *path; /* under the root */
    char *temporary;
    Child *child;
    uint64_t active_bytes; /* as /proc/swaps said; 0: off */
    bool made;             /* the temporary is a new swap file */
} SwapItem;

/* "auto": as much as there is memory, within reason. */
static uint64_t size_by_memory(void)
{
    struct sysinfo info;
    uint64_t memory = AUTO_MAX_BYTES;

    if (sysinfo(&info) >= 0)
        memory = (uint64_t)info.totalram * info.mem_unit;
    memory = (memory + (UINT64_C(256) << 20) - 1) / (UINT64_C(256) << 20) * (UINT64_C(256) << 20);
    return MIN_OF(MAX_OF(memory, AUTO_MIN_BYTES), AUTO_MAX_BYTES);
}

static void item_free(SwapItem *item)
{
    child_free(item->child);
    free(item->path);
    free(item->temporary);
    free(item);
}

static int swap_declare(ResourceContext *context, const Plan *plan, Error *err)
{
    SwapItem *item;

    if (!plan->system.swap)
        return 0;
    item = calloc(1, sizeof(*item));
    if (!item)
        return error_oom(err);
    item->plan = plan->system.swap;
    item->size_bytes = item->plan->size.by_memory ? size_by_memory() : item->plan->size.bytes;
    item->path = resource_path(context, item->plan->path);
    item->temporary = item->path ? str_printf("%s.new", item->path) : NULL;
    if (!item->temporary) {
        item_free(item);
        return error_oom(err);
    }
    return resource_add(context, &resource_swap, item->plan->path, false, item, err);
}

/* --- Observing ------------------------------------------------------------------------------- */

/* The kernel writes a blank of a path as "\\040". */
static bool is_same_path(const char *listed, const char *path)
{
    while (*listed && *path) {
        char c = *listed++;

        if (c == '\\' && strspn(listed, "01234567") >= 3) {
            c = (char)((listed[0] - '0') << 6 | (listed[1] - '0') << 3 | (listed[2] - '0'));
            listed += 3;
        }
        if (c != *path++)
            return false;
    }
    return !*listed && !*path;
}

/* Size of the active swap at that path, 0 when it is off. A line is "PATH TYPE KIB USED PRIORITY".
 */
static int read_active(const char *path, uint64_t *ret_bytes, Error *err)
{
    auto_buf Buf text = BUF_INIT(0);
    auto_(strv_freep) char **lines = NULL;
    int r;

    r = file_read(SWAPS_PATH, SWAPS_MAX_BYTES, &text, err);
    if (r < 0)
        return r;
    lines = str_split(buf_str(&text), "\n");
    if (!lines)
        return error_oom(err);
    *ret_bytes = 0;
    STRV_FOREACH (line, lines) {
        auto_(strv_freep) char **words = str_split(*line, " \t");
        uint64_t kib;

        if (strv_length(words) >= 3 && is_same_path(words[0], path) &&
            parse_u64(words[2], &kib) >= 0)
            *ret_bytes = kib << 10;
    }
    return 0;
}

static int read_swappiness(uint64_t *ret, Error *err)
{
    auto_buf Buf text = BUF_INIT(0);
    int r;

    r = file_read(SWAPPINESS_PATH, 64, &text, err);
    if (r < 0)
        return r;
    r = parse_u64(str_strip(text.data), ret);
    return r < 0 ? error_errno(err, r, "read " SWAPPINESS_PATH) : 0;
}

/* The kernel leaves out the first page; a megabyte is nobody's concern. */
static bool same_size(uint64_t a, uint64_t b)
{
    return (a > b ? a - b : b - a) <= UINT64_C(1) << 20;
}

static int judge(const Resource *resource, Error *err);

static int swap_check(Resource *resource, char **ret_difference, Error *err)
{
    SwapItem *item = resource->item;
    char size[PARSE_TEXT_MAX];
    uint64_t swappiness;
    int r;

    r = read_active(item->path, &item->active_bytes, err);
    if (r >= 0)
        r = read_swappiness(&swappiness, err);
    if (r < 0)
        return r;
    if (same_size(item->active_bytes, item->size_bytes)) {
        if (swappiness == item->plan->swappiness)
            return 0;
        *ret_difference = str_printf("set swappiness to %ju (is %ju)",
                                     (uintmax_t)item->plan->swappiness, (uintmax_t)swappiness);
    } else {
        /* What apply would refuse is no change. */
        r = resource->context->dry_run ? judge(resource, err) : 0;
        if (r < 0)
            return r;
        *ret_difference =
            str_printf("%s swap of %s at %s", item->active_bytes ? "resize" : "switch on",
                       format_size_human(size, item->size_bytes), item->plan->path);
    }
    return *ret_difference ? 1 : error_oom(err);
}

/* 1: a swap file of about that size; 0: nothing there; negative: something else, which is not ours
 * to overwrite. */
static int look_at_file(const SwapItem *item, Error *err)
{
    auto_close int fd = open(item->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    char signature[sizeof(SIGNATURE)] = "";
    struct stat st;

    if (fd < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "open %s", item->path);
    if (fstat(fd, &st) < 0)
        return error_errno(err, errno, "stat %s", item->path);
    if (!S_ISREG(st.st_mode) ||
        pread(fd, signature, sizeof(signature) - 1, SIGNATURE_OFFSET) !=
            (ssize_t)sizeof(signature) - 1 ||
        !streq(signature, SIGNATURE)) {
        (void)error_set(err, -EEXIST, ERROR_INVALID, "%s exists and is no swap file", item->path);
        return error_remedy(err, -EEXIST, "choose another system.swap.path, or remove that file");
    }
    return same_size((uint64_t)st.st_size, item->size_bytes);
}

/* --- Making it (in a child) --------------------------------------------------------------------
 */

static int write_zeros(int fd, uint64_t size)
{
    static const char zeros[ZEROS_BYTES];
    int r;

    for (uint64_t done = 0; done < size; done += sizeof(zeros)) {
        r = fd_write_all(fd, zeros, (size_t)MIN_OF(size - done, (uint64_t)sizeof(zeros)));
        if (r < 0)
            return r;
    }
    return 0;
}

/* Runs in the child: plain system calls. The exit status is an errno. */
static int allocate(void *arg)
{
    const SwapItem *item = arg;
    struct statfs fs;
    int fd, r = 0;

    (void)unlink(item->temporary);
    fd = open(item->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || fstatfs(fd, &fs) < 0)
        return errno;
    if (fs.f_type == BTRFS_SUPER_MAGIC) {
        int flags = FS_NOCOW_FL;

        /* Before the first byte, or it has no effect; the kernel refuses a copy-on-write swap file.
         */
        if (ioctl(fd, FS_IOC_SETFLAGS, &flags) < 0)
            r = -errno;
    }
    /* Unwritten extents are no holes to ext4 and xfs; other file systems get real zeros. */
    if (r >= 0 && fallocate(fd, 0, 0, (off_t)item->size_bytes) < 0)
        r = errno == EOPNOTSUPP ? write_zeros(fd, item->size_bytes) : -errno;
    if (r >= 0 && fsync(fd) < 0)
        r = -errno;
    (void)close(fd);
    if (r < 0)
        (void)unlink(item->temporary);
    return -r;
}

static int set_swappiness(const SwapItem *item, Error *err)
{
    char text[32];
    auto_close int fd = open(SWAPPINESS_PATH, O_WRONLY | O_CLOEXEC);
    int n = snprintf(text, sizeof(text), "%ju\n", (uintmax_t)item->plan->swappiness);

    if (fd < 0 || write(fd, text, (size_t)n) != n)
        return error_errno(err, errno, "write " SWAPPINESS_PATH);
    return 0;
}

static int explain_switch(int r, const SwapItem *item, Error *err)
{
    r = error_errno(err, r, "switch on %s", item->path);
    if (r == -EPERM)
        return error_remedy(err, r, "swap needs CAP_SYS_ADMIN: is agentd run in a container?");
    if (r == -EINVAL)
        return error_remedy(err, r,
                            "the kernel takes no swap file on this file system: choose a "
                            "system.swap.path on ext4 or xfs");
    return r;
}

static void finish(Resource *resource, int r, Error *err)
{
    resource_finish(resource, r < 0 ? err : NULL);
}

static int child_error(int status, bool timed_out, const char *what, Error *err)
{
    if (timed_out)
        return error_set(err, -ETIMEDOUT, ERROR_TEMPORARY, "%s did not end in time", what);
    if (!WIFEXITED(status))
        return error_set(err, -EINTR, ERROR_TEMPORARY, "%s was killed by signal %d", what,
                         WTERMSIG(status));
    return WEXITSTATUS(status) == 0 ? 0 : -WEXITSTATUS(status);
}

/* In a child: switching off moves pages back into memory, which can take long. The exit status is
 * an errno. */
static int switch_on(void *arg)
{
    const SwapItem *item = arg;

    if (item->made) {
        if (item->active_bytes > 0 && swapoff(item->path) < 0 && errno != EINVAL)
            return errno;
        if (rename(item->temporary, item->path) < 0)
            return errno;
    }
    return swapon(item->path, 0) < 0 && errno != EBUSY ? errno : 0;
}

static void on_switched_on(int status, bool timed_out, const Buf *output, void *userdata)
{
    Resource *resource = userdata;
    SwapItem *item = resource->item;
    auto_error Error err = {0};
    int r;

    r = child_error(status, timed_out, "switching on the swap file", &err);
    item->child = child_free(item->child);
    crash_point("swap.on");
    if (r < 0 && err.code == 0)
        (void)explain_switch(r, item, &err);
    if (r >= 0)
        r = set_swappiness(item, &err);
    finish(resource, r, &err);
}

static int begin_switch_on(Resource *resource, bool made, Error *err)
{
    SwapItem *item = resource->item;

    item->made = made;
    return child_fork(resource->context->event, switch_on, item, ALLOCATE_TIMEOUT, on_switched_on,
                      resource, &item->child, err);
}

static void on_mkswap(int status, bool timed_out, const Buf *output, void *userdata)
{
    Resource *resource = userdata;
    SwapItem *item = resource->item;
    auto_free char *said = str_escape(buf_str(output), output->size, 200);
    auto_error Error err = {0};
    int r;

    r = child_error(status, timed_out, MKSWAP_PATH, &err);
    item->child = child_free(item->child);
    crash_point("swap.made");
    if (r < 0 && err.code == 0)
        (void)error_set(&err, -EIO, ERROR_TEMPORARY, MKSWAP_PATH ": %s", said ? said : "failed");
    if (r >= 0)
        r = begin_switch_on(resource, /* made= */ true, &err);
    if (r < 0)
        finish(resource, r, &err);
}

static void on_allocated(int status, bool timed_out, const Buf *output, void *userdata)
{
    Resource *resource = userdata;
    SwapItem *item = resource->item;
    const char *argv[] = {MKSWAP_PATH, item->temporary, NULL};
    ChildSpec spec = {.argv = argv, .timeout_usec = MKSWAP_TIMEOUT, .max_output = 4096};
    auto_error Error err = {0};
    int r;

    r = child_error(status, timed_out, "allocating the swap file", &err);
    item->child = child_free(item->child);
    crash_point("swap.allocated");
    if (r < 0 && err.code == 0)
        (void)error_errno(&err, r, "allocate %s", item->temporary);
    if (r >= 0)
        r = child_spawn(resource->context->event, &spec, on_mkswap, resource, &item->child, &err);
    if (r < 0)
        finish(resource, r, &err);
}

static int refuse_without_room(const Resource *resource, const SwapItem *item, Error *err)
{
    auto_free char *dir = strndup(item->path, (size_t)(strrchr(item->path, '/') - item->path));
    char size[PARSE_TEXT_MAX], left[PARSE_TEXT_MAX];
    uint64_t free_bytes;

    if (!dir)
        return error_oom(err);
    if (path_free_bytes(*dir ? dir : "/", &free_bytes) < 0 ||
        free_bytes >= item->size_bytes + DISK_MARGIN_BYTES)
        return 0;
    (void)error_set(err, -ENOSPC, ERROR_TEMPORARY,
                    "a swap file of %s does not fit: %s are free, and 512 MiB shall stay free",
                    format_size_human(size, item->size_bytes), format_size_human(left, free_bytes));
    return error_remedy(err, -ENOSPC, "a smaller system.swap.size, or a larger boot disk");
}

/* 1: the file there only has to be switched on; 0: one has to be made, and may be. */
static int judge(const Resource *resource, Error *err)
{
    const SwapItem *item = resource->item;
    int r = look_at_file(item, err);

    if (r < 0 || (r > 0 && item->active_bytes == 0))
        return r;
    return refuse_without_room(resource, item, err);
}

static void swap_apply(Resource *resource)
{
    SwapItem *item = resource->item;
    auto_error Error err = {0};
    int r;

    if (same_size(item->active_bytes, item->size_bytes)) {
        finish(resource, set_swappiness(item, &err), &err);
        return;
    }
    r = judge(resource, &err);
    if (r > 0)
        /* Made before; a reboot, or somebody, switched it off. */
        r = begin_switch_on(resource, /* made= */ false, &err);
    else if (r == 0)
        r = child_fork(resource->context->event, allocate, item, ALLOCATE_TIMEOUT, on_allocated,
                       resource, &item->child, &err);
    if (r < 0)
        finish(resource, r, &err);
}

static void swap_cancel(Resource *resource)
{
    SwapItem *item = resource->item;

    item->child = child_free(item->child);
}

/* swapoff moves pages back into memory: in a child, since it can take long, and it may fail when
 * there is no room for them. */
static int switch_off(void *arg)
{
    const SwapItem *item = arg;

    (void)unlink(item->temporary);
    if (swapoff(item->path) < 0 && errno != EINVAL && errno != ENOENT)
        return errno;
    return unlink(item->path) < 0 && errno != ENOENT ? errno : 0;
}

static void on_switched_off(int status, bool timed_out, const Buf *output, void *userdata)
{
    Resource *resource = userdata;
    SwapItem *item = resource->item;
    auto_error Error err = {0};
    int r;

    r = child_error(status, timed_out, "switching off the swap file", &err);
    item->child = child_free(item->child);
    if (r < 0 && err.code == 0)
        (void)error_errno(&err, r, "switch off %s", item->path);
    finish(resource, r, &err);
}

static void swap_remove(Resource *resource)
{
    SwapItem *item = resource->item;
    auto_error Error err = {0};
    int r;

    r = look_at_file(item, &err);
    if (r == -EEXIST || r == -ELOOP || r == -ENOTDIR) {
        error_done(&err); /* what is there is none of ours */
        finish(resource, 0, NULL);
        return;
    }
    if (r >= 0)
        r = child_fork(resource->context->event, switch_off, item, ALLOCATE_TIMEOUT,
                       on_switched_off, resource, &item->child, &err);
    if (r < 0)
        finish(resource, r, &err);
}

static void swap_free(Resource *resource)
{
    if (resource->item)
        item_free(resource->item);
}

const ResourceOps resource_swap = {
    .kind = "swap",
    .stage = STAGE_SYSTEM,
    .declare = swap_declare,
    .check = swap_check,
    .apply = swap_apply,
    .cancel = swap_cancel,
    .remove = swap_remove,
    .free = swap_free,
};
