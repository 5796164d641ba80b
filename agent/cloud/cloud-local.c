/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/cloud/cloud-private.h"

/* A machine of nobody's: the plan is a file that is watched, secrets are files for development
 * ("NAME", and "NAME@VERSION" for a pinned version), nobody preempts it. */

#define PLAN_MAX       (4U << 20)
#define VERSION_DIGITS 12
#define SETTLE_USEC    (100 * MSEC) /* an editor writes a file in several steps */
#define WATCH_MASK                                                                                 \
    (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ONLYDIR)

static bool local_detect(const CloudConfig *config)
{
    return true;
}

static int local_open(const CloudConfig *config, Cloud **ret, Error *err)
{
    Cloud *cloud = cloud_object_new(&cloud_local, sizeof(*cloud), config);

    if (!cloud)
        return error_oom(err);
    *ret = cloud;
    return 0;
}

/* --- Identity and plan ---------------------------------------------------------------------- */

static char *machine_id(const Cloud *cloud)
{
    auto_free char *path = str_printf("%s/etc/machine-id", cloud->root);
    auto_buf Buf text = BUF_INIT(64);

    if (!path || file_read(path, 64, &text, NULL) < 0 || text.size == 0)
        return strdup("local");
    return strdup(str_strip(text.data));
}

static int local_identity(const Cloud *cloud, CloudIdentity *identity)
{
    char host[256] = "localhost";

    (void)gethostname(host, sizeof(host) - 1);
    host[strcspn(host, ".")] = '\0';
    *identity = (CloudIdentity){
        .cloud = cloud_local.name,
        .instance_id = machine_id(cloud),
        .name = strdup(host),
        .project = strdup(""),
        .project_number = strdup(""),
        .zone = strdup(""),
        .region = strdup(""),
        .machine_type = strdup(""),
        .service_account = strdup(""),
        .scopes = calloc(1, sizeof(char *)),
        .group = strdup(""),
        .role = strdup(""),
        .universe = strdup(""),
    };
    return identity->instance_id && identity->name && identity->project &&
                   identity->project_number && identity->zone && identity->region &&
                   identity->machine_type && identity->service_account && identity->scopes &&
                   identity->group && identity->role && identity->universe
               ? 0
               : -ENOMEM;
}

static int local_state(const Cloud *cloud, CloudState **ret, Error *err)
{
    auto_(cloud_state_unrefp) CloudState *state = cloud_state_new();
    auto_free char *path = str_printf("%s%s", cloud->root, CLOUD_PLAN_PATH);
    auto_buf Buf plan = BUF_INIT(PLAN_MAX);
    int r;

    if (!state || !path || local_identity(cloud, &state->identity) < 0 ||
        str_set(&state->plan_where, path) < 0 || str_set(&state->clock_token, "") < 0)
        return error_oom(err);

    r = file_read(path, PLAN_MAX, &plan, err);
    if (r < 0 && r != -ENOENT && r != -ENOTDIR)
        return r;
    if (r < 0) {
        error_done(err ? err : &(Error){0});
    } else {
        state->plan_source = CLOUD_PLAN_LOCAL;
        if (cloud_state_set_plan(state, buf_str(&plan), plan.size) < 0)
            return error_oom(err);
    }

    *ret = take_ptr(state);
    return 0;
}

/* --- Once ----------------------------------------------------------------------------------- */

typedef struct LocalRead {
    CloudOp op;
    CloudSnapshotHandler handler;
    void *userdata;
} LocalRead;

static void nothing_to_release(CloudOp *op)
{
}

static void read_now(CloudOp *op)
{
    const LocalRead *read = container_of(op, LocalRead, op);
    auto_(cloud_state_unrefp) CloudState *state = NULL;
    auto_error Error error = {0};
    CloudSnapshot snapshot;

    if (local_state(op->cloud, &state, &error) < 0) {
        read->handler(NULL, &error, read->userdata);
        return;
    }
    cloud_state_adopt(op->cloud, state);
    snapshot = cloud_state_snapshot(state);
    read->handler(&snapshot, NULL, read->userdata);
}

static int local_read(Cloud *cloud, CloudSnapshotHandler handler, void *userdata, CloudOp **ret,
                      Error *err)
{
    LocalRead *read = cloud_op_new(cloud, sizeof(*read), nothing_to_release);

    if (!read)
        return error_oom(err);
    read->handler = handler;
    read->userdata = userdata;
    if (cloud_op_defer(&read->op, 0, read_now) < 0) {
        cloud_op_free(&read->op);
        return error_oom(err);
    }
    *ret = &read->op;
    return 0;
}

/* --- For ever ------------------------------------------------------------------------------- */

typedef struct LocalWatch {
    CloudOp op;
    sd_event_source *inotify;
    CloudState *last;
    CloudWatchHandlers handlers;
    void *userdata;
    bool is_in_trouble;
} LocalWatch;

static void watch_release(CloudOp *op)
{
    LocalWatch *watch = container_of(op, LocalWatch, op);

    watch->inotify = sd_event_source_disable_unref(watch->inotify);
    watch->last = cloud_state_unref(watch->last);
}

static void watch_look(CloudOp *op);

static int on_inotify(sd_event_source *source, const struct inotify_event *event, void *userdata)
{
    LocalWatch *watch = userdata;

    (void)!cloud_op_defer(&watch->op, SETTLE_USEC, watch_look);
    return 0;
}

/* The plan's directory, or the nearest one above it that exists: when that changes we look again,
 * and come nearer. */
static void watch_arm(LocalWatch *watch)
{
    auto_free char *path = str_printf("%s%s", watch->op.cloud->root, CLOUD_PLAN_PATH);
    char *slash;

    watch->inotify = sd_event_source_disable_unref(watch->inotify);
    while (path && !watch->inotify && (slash = strrchr(path, '/'))) {
        *slash = '\0';
        if (sd_event_add_inotify(watch->op.cloud->event, &watch->inotify, *path ? path : "/",
                                 WATCH_MASK, on_inotify, watch) < 0)
            watch->inotify = NULL;
    }
}

/* False when the watch was freed by the handler that was told. */
static bool trouble_ends(LocalWatch *watch)
{
    bool freed = false;

    if (!watch->is_in_trouble || !watch->handlers.trouble)
        return true;
    watch->is_in_trouble = false;
    watch->op.freed = &freed;
    watch->handlers.trouble(NULL, 0, watch->userdata);
    if (!freed)
        watch->op.freed = NULL;
    return !freed;
}

static void watch_look(CloudOp *op)
{
    LocalWatch *watch = container_of(op, LocalWatch, op);
    auto_(cloud_state_unrefp) CloudState *state = NULL;
    auto_error Error error = {0};
    CloudSnapshot snapshot;
    unsigned changes;

    watch_arm(watch); /* first: what changes from here on is seen */
    if (local_state(op->cloud, &state, &error) < 0) {
        watch->is_in_trouble = true;
        if (watch->handlers.trouble)
            watch->handlers.trouble(&error, 0, watch->userdata);
        return;
    }

    changes = cloud_state_compare(watch->last, state);
    cloud_state_unref(watch->last);
    watch->last = cloud_state_ref(state);
    cloud_state_adopt(op->cloud, state);
    if (!trouble_ends(watch) || !changes)
        return;
    snapshot = cloud_state_snapshot(state);
    watch->handlers.changed(&snapshot, changes, watch->userdata);
}

static int local_watch(Cloud *cloud, const CloudWatchHandlers *handlers, void *userdata,
                       CloudOp **ret, Error *err)
{
    LocalWatch *watch = cloud_op_new(cloud, sizeof(*watch), watch_release);

    if (!watch)
        return error_oom(err);
    watch->handlers = *handlers;
    watch->userdata = userdata;
    if (cloud_op_defer(&watch->op, 0, watch_look) < 0) {
        cloud_op_free(&watch->op);
        return error_oom(err);
    }
    *ret = &watch->op;
    return 0;
}

/* --- Secrets -------------------------------------------------------------------------------- */

typedef struct LocalSecret {
    CloudOp op;
    char *id, *version;
    bool version_only;
    CloudSecretHandler handler;
    void *userdata;
} LocalSecret;

static void secret_release(CloudOp *op)
{
    LocalSecret *secret = container_of(op, LocalSecret, op);

    free(secret->id);
    free(secret->version);
    secret->id = secret->version = NULL;
}

static bool is_id(const char *s, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') ||
              (s[i] >= '0' && s[i] <= '9') || s[i] == '_' || s[i] == '-'))
            return false;
    return size > 0 && size <= 255;
}

/* The id in "KEY" or in a full name, so that one plan serves here and in a cloud. */
static const char *id_in(const char *name, size_t *ret_size)
{
    const char *at = strstr(name, "/secrets/");
    const char *id = at ? at + strlen("/secrets/") : name;

    *ret_size = at ? strcspn(id, "/") : strlen(id);
    return id;
}

static int local_secret_check_name(const char *name, Error *err)
{
    size_t size;
    const char *id = id_in(name, &size);

    if (!is_id(id, size))
        return cloud_refuse_secret_name(name, err);
    return 0;
}

static void cloud_secret_done(CloudSecret *secret)
{
    secret_bytes_free(secret->bytes);
    free(secret->version);
    free(secret->resource);
}

static int read_file_of(const LocalSecret *secret, const char *suffix, Buf *bytes, char *hash,
                        Error *err)
{
    auto_free char *path = NULL;
    int r;

    path = str_printf("%s%s/%s%s%s", secret->op.cloud->root, CLOUD_SECRETS_DIR, secret->id,
                      *suffix ? "@" : "", suffix);
    if (!path || buf_reserve(bytes, CLOUD_SECRET_MAX) < 0)
        return error_oom(err);
    r = file_read(path, CLOUD_SECRET_MAX, bytes, err);
    if (r == -ENOENT) {
        error_done(err);
        (void)error_set(err, r, ERROR_INVALID, "secret %s: there is no %s", secret->id, path);
        return error_remedy(err, r, "install -D -m 0400 FILE %s", path);
    }
    if (r < 0)
        return error_prefix(err, r, "secret %s", secret->id);
    sha256_of(buf_str(bytes), bytes->size, hash);
    hash[VERSION_DIGITS] = '\0';
    return 0;
}

/* There are no numbers here: what a file holds is its version. A version that is asked for by name
 * is the file kept for it, or the current one while it is that. */
static int read_secret_file(const LocalSecret *secret, CloudSecret *ret, Error *err)
{
    bool is_latest = streq(secret->version, "latest");
    auto_secret_buf Buf bytes = BUF_INIT(CLOUD_SECRET_MAX);
    auto_error Error pinned = {0};
    char hash[SHA256_HEX_MAX] = "";
    int r = -ENOENT;

    if (!is_latest) {
        r = read_file_of(secret, secret->version, &bytes, hash, &pinned);
        if (r < 0 && r != -ENOENT)
            return error_move(err, &pinned);
    }
    if (r < 0) {
        r = read_file_of(secret, "", &bytes, hash, err);
        if (r < 0)
            return r;
        if (!is_latest && !streq(hash, secret->version))
            return error_move(err, &pinned);
    }

    ret->version = strdup(is_latest ? hash : secret->version);
    ret->resource =
        ret->version ? str_printf("local/secrets/%s/versions/%s", secret->id, ret->version) : NULL;
    if (!ret->resource ||
        (!secret->version_only && secret_bytes_new(buf_str(&bytes), bytes.size, &ret->bytes) < 0))
        return error_oom(err);
    return 0;
}

static void secret_now(CloudOp *op)
{
    const LocalSecret *secret = container_of(op, LocalSecret, op);
    auto_(cloud_secret_done) CloudSecret result = {0};
    auto_error Error error = {0};

    if (read_secret_file(secret, &result, &error) < 0)
        secret->handler(NULL, &error, secret->userdata);
    else
        secret->handler(&result, NULL, secret->userdata);
}

static int local_secret(Cloud *cloud, const char *name, const char *version, bool version_only,
                        CloudSecretHandler handler, void *userdata, CloudOp **ret, Error *err)
{
    LocalSecret *secret;
    const char *id;
    size_t size;
    int r;

    r = local_secret_check_name(name, err);
    if (r < 0)
        return r;
    if (!is_id(version, strlen(version)))
        return error_set(err, -EINVAL, ERROR_INVALID, "secret %s: %s is no version", name, version);

    secret = cloud_op_new(cloud, sizeof(*secret), secret_release);
    if (!secret)
        return error_oom(err);
    id = id_in(name, &size);
    secret->id = strndup(id, size);
    secret->version = strdup(version);
    secret->version_only = version_only;
    secret->handler = handler;
    secret->userdata = userdata;
    if (!secret->id || !secret->version || cloud_op_defer(&secret->op, 0, secret_now) < 0) {
        cloud_op_free(&secret->op);
        return error_oom(err);
    }
    *ret = &secret->op;
    return 0;
}

static char *local_cure(const CloudIdentity *identity, CloudTrouble trouble)
{
    return trouble == CLOUD_TROUBLE_NO_PLAN ? strdup("write " CLOUD_PLAN_PATH) : NULL;
}

const CloudOps cloud_local = {
    .name = "local",
    .detect = local_detect,
    .open = local_open,
    .watch = local_watch,
    .read = local_read,
    .secret = local_secret,
    .secret_check_name = local_secret_check_name,
    .cure = local_cure,
};
