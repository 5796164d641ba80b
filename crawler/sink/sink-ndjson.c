/* SPDX-License-Identifier: Apache-2.0 */

/* Files of JSON lines. Batches are appended to one open part; a small state file, replaced
 * atomically after the part is on disk, says how far the part is whole and which batches it has: a
 * crash in between cuts the part back and stores the batch again. A full or old part is renamed to
 * its final name, which is never written again. */

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/io/gzip.h"
#include "agent/io/json.h"
#include "crawler/sink/sink.h"

extern const SinkOps sink_ndjson;
int sink_ndjson_new(const SinkNdjsonPlan *plan, void **ret, Error *err);

#define PART_NAME      ".part"
#define STATE_NAME     ".state.json"
#define REMEMBERED     64
#define BATCH_TEXT_MAX (256U << 20)
#define GZIP_LEVEL     6

typedef struct Ndjson {
    int dir_fd; /* -EBADF: standard output */
    uint64_t rotate_size_bytes, rotate_age_usec;
    bool gzip;
    uint64_t size;       /* of the part, up to the last whole batch */
    uint64_t begun_usec; /* wall clock, of the part's first batch; 0: empty */
    char **batches;      /* the last ones that were stored */
    char *name;          /* what the part will be called */
} Ndjson;

static void ndjson_done(Ndjson *n)
{
    n->dir_fd = close_fd(n->dir_fd);
    (void)strv_free(n->batches);
    free(n->name);
    free(n);
}

static void ndjson_donep(Ndjson **n)
{
    if (*n)
        ndjson_done(*n);
}

static int read_state(Ndjson *n, Error *err)
{
    auto_buf Buf text = BUF_INIT(64U << 10);
    json_auto_t *state = NULL;
    json_t *id;
    size_t i;
    int r;

    r = file_read_at(n->dir_fd, STATE_NAME, text.max, &text, err);
    if (r == -ENOENT) {
        error_done(err);
        return 0;
    }
    if (r >= 0)
        r = json_parse(buf_str(&text), text.size, STATE_NAME, &state, err);
    if (r < 0)
        return r;
    if (json_u64(state, "size", &n->size) < 0 || json_u64(state, "begun_usec", &n->begun_usec) < 0)
        return error_set(err, -EBADMSG, ERROR_CORRUPT, "%s is not ours", STATE_NAME);
    json_array_foreach (json_object_get(state, "batches"), i, id)
        if (json_is_string(id) && strv_push(&n->batches, json_string_value(id)) < 0)
            return error_oom(err);
    if (str_set(&n->name, json_str(state, "name")) < 0)
        return error_oom(err);
    return 0;
}

static int write_state(Ndjson *n, Error *err)
{
    json_auto_t *state = json_object();
    json_t *batches = json_array();
    auto_free char *text = NULL;

    STRV_FOREACH (id, n->batches)
        (void)json_array_append_new(batches, json_string(*id));
    if (json_put(state, "batches", batches) < 0 ||
        json_put(state, "size", json_integer((json_int_t)n->size)) < 0 ||
        json_put(state, "begun_usec", json_integer((json_int_t)n->begun_usec)) < 0 ||
        (n->name && json_put(state, "name", json_string(n->name)) < 0))
        return error_oom(err);
    text = json_text(state, false);
    if (!text)
        return error_oom(err);
    return file_replace_at(n->dir_fd, STATE_NAME, text, strlen(text), 0644, err);
}

int sink_ndjson_new(const SinkNdjsonPlan *plan, void **ret, Error *err)
{
    auto_(ndjson_donep) Ndjson *n = calloc(1, sizeof(*n));
    struct stat st;
    int r;

    if (!n)
        return error_oom(err);
    n->dir_fd = -EBADF;
    n->rotate_size_bytes = plan->rotate_size_bytes;
    n->rotate_age_usec = plan->rotate_age_usec;
    n->gzip = plan->gzip;
    if (!streq(plan->path, "-")) {
        r = dir_create(plan->path, 0755, err);
        if (r < 0)
            return error_prefix(err, r, "sink ndjson");
        n->dir_fd = open(plan->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (n->dir_fd < 0)
            return error_errno(err, errno, "sink ndjson: open %s", plan->path);
        r = read_state(n, err);
        if (r < 0)
            return error_prefix(err, r, "sink ndjson: %s", plan->path);
        /* Renamed, and the crash came before the state said so: what it had is delivered. */
        if (n->size > 0 && fstatat(n->dir_fd, PART_NAME, &st, 0) < 0 && errno == ENOENT)
            n->size = n->begun_usec = 0;
    }
    *ret = take_ptr(n);
    return 0;
}

static int encode_batch(const Ndjson *n, SinkRowNext next_row, void *userdata, Buf *ret, Error *err)
{
    auto_buf Buf text = BUF_INIT(BATCH_TEXT_MAX);
    Row row;
    int r;

    while ((r = next_row(userdata, &row, err)) > 0) {
        r = row_encode_ndjson(&row, &text);
        if (r < 0)
            return error_set(err, r, ERROR_INTERNAL, "a batch is too large to be encoded");
    }
    if (r < 0)
        return r;
    r = n->gzip ? gzip_add(ret, buf_str(&text), text.size, GZIP_LEVEL)
                : buf_add(ret, buf_str(&text), text.size);
    return r < 0 ? error_set(err, r, ERROR_INTERNAL, "a batch could not be encoded") : 0;
}

static int rotate(Ndjson *n, Error *err)
{
    if (n->size == 0)
        return 0;
    if (renameat(n->dir_fd, PART_NAME, n->dir_fd, n->name) < 0)
        return error_errno(err, errno, "rename to %s", n->name);
    n->size = n->begun_usec = 0; /* whatever fails from here on, there is no part any more */
    if (fsync(n->dir_fd) < 0)
        return error_errno(err, errno, "fsync of the directory");
    return write_state(n, err);
}

static int append_to_part(Ndjson *n, const SinkBatch *batch, const Buf *bytes, Error *err)
{
    auto_close int fd = openat(n->dir_fd, PART_NAME, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    if (fd < 0)
        return error_errno(err, errno, "open %s", PART_NAME);
    /* What a crash left behind the last whole batch goes. */
    if (ftruncate(fd, (off_t)n->size) < 0 || lseek(fd, 0, SEEK_END) < 0 ||
        fd_write_all(fd, bytes->data, bytes->size) < 0 || fsync(fd) < 0 || fsync(n->dir_fd) < 0)
        return error_errno(err, errno, "write %s", PART_NAME);
    if (n->size == 0) {
        n->begun_usec = now_realtime_usec();
        free(n->name);
        n->name = str_printf("bars-%s.ndjson%s", batch->id, n->gzip ? ".gz" : "");
        if (!n->name)
            return error_oom(err);
    }
    n->size += bytes->size;
    return 0;
}

/* The state with this batch in it; a batch that is not on disk as known is not known here either,
 * or the next try would take it for delivered. */
static int remember(Ndjson *n, const char *id, Error *err)
{
    size_t last = strv_length(n->batches);
    int r;

    if (strv_push(&n->batches, id) < 0)
        return error_oom(err);
    r = write_state(n, err);
    if (r < 0) {
        free(n->batches[last]);
        n->batches[last] = NULL;
    } else if (last >= REMEMBERED) {
        free(n->batches[0]);
        memmove(n->batches, n->batches + 1, sizeof(char *) * (last + 1));
    }
    return r;
}

static int ndjson_store(Sink *sink, const SinkBatch *batch, SinkRowNext next_row, void *userdata,
                        Error *err)
{
    auto_buf Buf bytes = BUF_INIT(BATCH_TEXT_MAX + (1U << 20));
    Ndjson *n = sink->local;
    uint64_t size = n->size, begun_usec = n->begun_usec;
    int r;

    if (strv_contains(n->batches, batch->id))
        return 0;
    r = encode_batch(n, next_row, userdata, &bytes, err);
    if (r < 0)
        return error_prefix(err, r, "sink ndjson");
    if (n->dir_fd < 0) {
        r = fd_write_all(STDOUT_FILENO, bytes.data, bytes.size);
        return r < 0 ? error_errno(err, r, "sink ndjson: standard output") : 1;
    }
    r = append_to_part(n, batch, &bytes, err);
    if (r >= 0)
        r = remember(n, batch->id, err);
    if (r < 0) { /* the next batch cuts the part back to here */
        n->size = size;
        n->begun_usec = begun_usec;
    }
    if (r >= 0 && n->size >= n->rotate_size_bytes)
        r = rotate(n, err);
    return r < 0 ? error_prefix(err, r, "sink ndjson") : 1;
}

static int ndjson_flush(Sink *sink, Error *err)
{
    Ndjson *n = sink->local;
    int r = 0;

    if (n->dir_fd >= 0 && n->size > 0 &&
        now_realtime_usec() >= usec_add(n->begun_usec, n->rotate_age_usec))
        r = rotate(n, err);
    return r < 0 ? error_prefix(err, r, "sink ndjson") : 0;
}

static void ndjson_free(Sink *sink)
{
    if (sink->local)
        ndjson_done(sink->local);
    sink->local = NULL;
}

const SinkOps sink_ndjson = {
    .name = "ndjson",
    .is_local = true,
    .store = ndjson_store,
    .flush = ndjson_flush,
    .free = ndjson_free,
};
