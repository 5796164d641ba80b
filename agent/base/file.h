/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_BASE_FILE_H
#define AGENT_BASE_FILE_H

/* Files whole: read with a ceiling, replaced atomically (temporary beside the target, mode and
 * owner before the first byte, write, fsync, rename, fsync of the directory; a failure leaves the
 * old file, and what a killed writer left beside it goes with the next one). */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "agent/base/buf.h"
#include "agent/base/error.h"

/* Reads the whole file. -ENOENT when absent (no message then, for callers that expect it); -EFBIG
 * over `max` bytes. */
int file_read(const char *path, size_t max, Buf *ret, Error *err) must_check;
int file_read_at(int dir_fd, const char *name, size_t max, Buf *ret, Error *err) must_check;

/* Replaces `name` in the directory. Returns 1, or 0 when content, mode and owner were right already
 * (nothing is written then). `uid`/`gid` of -1 keep the creator's. */
int file_replace_at(int dir_fd, const char *name, const void *data, size_t size, mode_t mode,
                    Error *err) must_check;
int file_replace_owned_at(int dir_fd, const char *name, const void *data, size_t size, mode_t mode,
                          uid_t uid, gid_t gid, Error *err) must_check;
int file_replace(const char *path, const void *data, size_t size, mode_t mode, Error *err)
    must_check;

/* mkdir -p: creates what is missing with `mode`. Existing directories are left as they are. */
int dir_create(const char *path, mode_t mode, Error *err) must_check;
/* Opens the directory of `path` below `root` ("" or "/" for none) without following a symbolic link
 * anywhere in it (openat2 a component at a time; Linux 5.6). `create` makes what is missing, 0755.
 * `ret_name` points into `path`. */
int dir_open_parent(const char *root, const char *path, bool create, int *ret_fd,
                    const char **ret_name, Error *err) must_check;

/* Writes all of it, over short writes and EINTR. */
int fd_write_all(int fd, const void *data, size_t size) must_check;
/* fsync of a directory by path. */
int dir_sync(const char *path) must_check;
/* "a/b" of "a" and "b"; one slash between. NULL when memory is out. */
char *path_join(const char *a, const char *b);
/* Free bytes for root under that path, by statvfs. */
int path_free_bytes(const char *path, uint64_t *ret) must_check;

#endif
