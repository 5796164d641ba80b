/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_RESOURCE_SECRETS_H
#define AGENT_RESOURCE_SECRETS_H

/* The values of the plan's secrets, on a ramfs of our own (never on a disk, never in swap), one
 * file a version; which version is good is in state.db. Nothing keeps a value in memory: who needs
 * one reads it, uses it and cleanses it.
 *
 *   <runtime-dir>/secrets/                        ramfs, 0700
 *     .store/<name>/<version>                     0400, what was fetched
 *     <container>/<release>/<name>                as mounted into a container; a rollback finds the
 * old value there */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/base/error.h"
#include "agent/io/crypto.h"
#include "agent/io/db.h"

#define SECRET_VALUE_MAX (64U << 10)
#define SECRETS_DIR_NAME "secrets"

typedef struct SecretStore SecretStore;

/* Mounts the ramfs where it is not there yet. `ramfs` false (tests without root): a plain
 * directory, said in the log. Rows of table `secret` tell what is good; a value that a reboot took
 * is simply absent. `db` is borrowed. */
int secret_store_new(const char *runtime_dir, bool ramfs, Db *db, SecretStore **ret, Error *err)
    must_check;
SecretStore *secret_store_free(SecretStore *store);
DEFINE_AUTO(SecretStore, secret_store_free)

typedef struct SecretRecord {
    char *secret;        /* how the cloud calls it, as the plan said when it was fetched */
    char *wanted;        /* "latest", "7", an alias */
    char *version;       /* resolved; NULL: none was ever fetched */
    uint64_t fetched_at; /* wall clock */
} SecretRecord;
/* 1 found, 0 never fetched. */
int secret_store_record(SecretStore *store, const char *name, SecretRecord *ret, Error *err)
    must_check;
void secret_record_done(SecretRecord *record);

/* Keeps the value and then says that this version is the good one. 1: the version changed; 0: it is
 * the one we had, and nothing was written. */
int secret_store_put(SecretStore *store, const char *name, const char *secret, const char *wanted,
                     const char *version, const SecretBytes *value, Error *err) must_check;
/* Whether the last look at it failed: it may have moved and we would not know. Who uses it together
 * with others keeps the versions of all of them, for they belong together. Not kept over restarts.
 */
int secret_store_set_doubt(SecretStore *store, const char *name, bool doubt) must_check;
bool secret_store_is_in_doubt(const SecretStore *store, const char *name);
/* Keeps the value of an older version that a release needs, without making it the good one. */
int secret_store_put_version(SecretStore *store, const char *name, const char *version,
                             const SecretBytes *value, Error *err) must_check;
/* Where its value is, for whoever reads it itself (systemd's LoadCredential): free(). */
int secret_store_path(const SecretStore *store, const char *name, const char *version, char **ret,
                      Error *err) must_check;
bool secret_store_has(const SecretStore *store, const char *name, const char *version);
/* -ENOENT when its value is not here (after a reboot, or cleaned up). */
int secret_store_read(const SecretStore *store, const char *name, const char *version,
                      SecretBytes **ret, Error *err) must_check;
/* Forgets it: it left the plan. */
int secret_store_forget(SecretStore *store, const char *name, Error *err) must_check;
/* Removes the values of versions that neither are the good one nor listed in `keep`
 * ("name/version"). */
int secret_store_trim(SecretStore *store, char *const *keep, Error *err) must_check;

/* Writes the file that a container mounts; *ret_path (free()) is its path on the host. `uid` and
 * `gid` are those that the container runs as, -1 where the plan gives no numbers: root's then. */
int secret_store_publish(SecretStore *store, const char *container, const char *release,
                         const char *name, const char *version, mode_t mode, uid_t uid, gid_t gid,
                         char **ret_path, Error *err) must_check;
/* Removes <container>/<release>, or all of <container> when `release` is NULL. */
int secret_store_retire(SecretStore *store, const char *container, const char *release, Error *err)
    must_check;

#endif
