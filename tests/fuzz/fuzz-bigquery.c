/* SPDX-License-Identifier: Apache-2.0 */

/* Replies of BigQuery to each errand, one after the other: the first byte chooses the errand, then
 * each reply is a status byte, a length and a body. Whatever they say, an errand that is done was
 * told so by a job with the right number of rows, the job id never changes, and every pause has an
 * end. */

#include <errno.h>
#include <string.h>

#include "agent/base/time.h"
#include "crawler/sink/sink.h"
#include "tests/fuzz/fuzz.h"

#define REPLIES_MAX 40
#define ROWS        10

static const long statuses[] = {0,   200, 201, 308, 400, 401, 403, 404,
                                409, 410, 413, 429, 500, 501, 502, 503};

static int seek_nothing(void *userdata, uint64_t offset)
{
    return 0;
}

static ptrdiff_t read_nothing(void *data, size_t size, void *userdata)
{
    memset(data, 'x', size);
    return (ptrdiff_t)size;
}

static int take_key(const SinkKey *key, void *userdata)
{
    FUZZ_CHECK(key->source && key->symbol && key->interval && key->kind);
    return 0;
}

static void begin(Errand *e, uint8_t choice)
{
    static const char *const sources[] = {"yahoo-chart", NULL};
    SinkBatch batch = {.id = "01k6zzzzzzabcdefghjkmn",
                       .rows = ROWS,
                       .bytes = choice & 8 ? 1000 : 20U << 20,
                       .sha256 = "00",
                       .attempt = 1,
                       .asked = choice & 16};
    SinkSource source = {.seek = seek_nothing, .read = read_nothing};

    switch (choice & 3) {
    case 0:
        errand_init_batch(e, &batch, &source);
        break;
    case 1:
        errand_init_table(e, choice & 4 ? SINK_TABLE_DAILY : SINK_TABLE_INTRADAY);
        break;
    case 2:
        errand_init_jobs(e, DAY, choice & 4);
        break;
    default:
        errand_init_keys(e, SINK_TABLE_DAILY, sources, DAY, take_key, NULL);
    }
}

static Sink *make_sink(void)
{
    char dataset[] = "market", table[] = "bars";
    SinkBigqueryPlan bigquery = {.dataset = dataset, .table = table, .flush_usec = MINUTE};
    SinkPlan plan = {.bigquery = &bigquery};
    SinkIdentity identity = {.instance = "vm", .jobset = "abc", .started_usec = DAY};
    Sink *sink = NULL;

    FUZZ_CHECK(sink_new(&plan, "/", "proj", &identity, &sink, NULL) >= 0);
    return sink;
}

static void give(Sink *sink, Errand *e, long status, const uint8_t *body, size_t size)
{
    /* A 308 has no body of use: it says in a header how far it got. */
    auto_free char *range = status == 308 && size > 0 ? strndup((const char *)body, size) : NULL;
    const HttpHeader header = {"Range", range ? range : "bytes=0-262143"};
    HttpResponse reply = {.status = status,
                          .content_type = "",
                          .location = "https://bigquery.googleapis.com/session",
                          .headers = &header,
                          .n_headers = 1,
                          .body = BUF_INIT(1U << 20)};
    auto_error Error lost = {0};

    (void)error_set(&lost, -ECONNRESET, ERROR_TEMPORARY, "lost");
    FUZZ_CHECK(size == 0 || buf_add(&reply.body, body, size) >= 0);
    sink->ops->judge(sink, status ? &reply : NULL, status ? NULL : &lost, e);
    buf_done(&reply.body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_(sink_freep) Sink *sink = NULL;
    Errand e = {0};
    size_t at = 1;

    if (size == 0)
        return 0;
    sink = make_sink();
    begin(&e, data[0]);
    for (int i = 0; i < REPLIES_MAX && at + 3 <= size; i++) {
        size_t length = (size_t)data[at + 1] << 8 | data[at + 2];
        HttpRequest request;

        e.now_usec = (uint64_t)i * MINUTE;
        if (sink->ops->next(sink, &e, &request, NULL) <= 0)
            break;
        FUZZ_CHECK(request.url);
        if (length > size - at - 3)
            length = size - at - 3;
        give(sink, &e, statuses[data[at] % 16], data + at + 3, length);
        at += 3 + length;
        FUZZ_CHECK(e.wait_usec <= DAY);
        FUZZ_CHECK(e.state != ERRAND_DONE || e.kind != ERRAND_BATCH || e.output_rows == ROWS);
        FUZZ_CHECK(!e.job_id ||
                   strcmp(e.job_id, "mervis_bars_intraday_01k6zzzzzzabcdefghjkmn_1") == 0);
        FUZZ_CHECK(e.offset <= e.batch.bytes);
    }
    errand_done(&e);
    return 0;
}
