/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>

#include "crawler/sink/sink-bigquery.h"

#define NOW (UINT64_C(1791331200) * SECOND)

typedef struct Fixture {
    Sink *sink;
    Errand e;
    HttpRequest request;
    Error err;
} Fixture;

static int no_seek(void *userdata, uint64_t offset)
{
    *(uint64_t *)userdata = offset;
    return 0;
}

static ptrdiff_t read_x(void *data, size_t size, void *userdata)
{
    memset(data, 'x', size);
    return (ptrdiff_t)size;
}

static uint64_t source_offset;

static void begin_batch(Fixture *f, uint64_t bytes, bool asked)
{
    SinkBatch batch = {.id = "01k6zzzzzzabcdefghjkmn",
                       .table = SINK_TABLE_INTRADAY,
                       .rows = 10,
                       .bytes = bytes,
                       .sha256 = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
                       .attempt = 1,
                       .asked = asked};
    SinkSource source = {.seek = no_seek, .read = read_x, .userdata = &source_offset};

    errand_done(&f->e);
    errand_init_batch(&f->e, &batch, &source);
    f->e.now_usec = NOW;
}

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));
    SinkBigqueryPlan bigquery = {.dataset = (char[]){"market"},
                                 .table = (char[]){"bars"},
                                 .flush_usec = 5 * MINUTE,
                                 .max_rows = 1000,
                                 .max_bytes = 1 << 20};
    SinkPlan plan = {.bigquery = &bigquery};
    SinkIdentity identity = {.instance = "vm-2", .jobset = "abc", .started_usec = NOW};

    assert_ok(sink_new(&plan, "/nonexistent", "proj", &identity, &f->sink, &f->err), &f->err);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    errand_done(&f->e);
    sink_free(f->sink);
    error_done(&f->err);
    free(f);
    return 0;
}

static const char *next(Fixture *f)
{
    int r = f->sink->ops->next(f->sink, &f->e, &f->request, &f->err);

    if (r < 0)
        fail_msg("next: %s", error_text(&f->err));
    return r > 0 ? f->request.url : NULL;
}

static void answer_with(Fixture *f, long status, const char *body, const HttpHeader *header)
{
    HttpResponse reply = {.status = status,
                          .content_type = "",
                          .headers = header,
                          .n_headers = header ? 1 : 0,
                          .location =
                              header && streq(header->name, "Location") ? header->value : NULL,
                          .body = BUF_INIT(1 << 20)};

    if (body)
        assert_int_equal(buf_add_str(&reply.body, body), 0);
    f->sink->ops->judge(f->sink, &reply, NULL, &f->e);
    buf_done(&reply.body);
}

static void answer(Fixture *f, long status, const char *body)
{
    answer_with(f, status, body, NULL);
}

static void lose(Fixture *f)
{
    auto_error Error err = {0};

    (void)error_set(&err, -ECONNRESET, ERROR_TEMPORARY, "connection lost");
    f->sink->ops->judge(f->sink, NULL, &err, &f->e);
}

#define FAULT(code, reason, message)                                                               \
    "{\"error\":{\"code\":" #code ",\"message\":\"" message "\",\"errors\":[{\"reason\":\"" reason \
    "\",\"message\":\"m\"}]}}"
#define JOB(state) "{\"jobReference\":{},\"status\":{\"state\":\"" state "\"}}"
#define JOB_ROWS(rows)                                                                             \
    "{\"status\":{\"state\":\"DONE\"},\"statistics\":{\"load\":{\"outputRows\":\"" rows "\"}}}"
#define JOB_FAILED(reason, message)                                                                \
    "{\"status\":{\"state\":\"DONE\",\"errorResult\":{\"reason\":\"" reason                        \
    "\",\"message\":\"" message "\"}}}"

#define JOB_URL                                                                                    \
    "https://bigquery.googleapis.com/bigquery/v2/projects/proj/jobs/"                              \
    "mervis_bars_intraday_01k6zzzzzzabcdefghjkmn_1"
#define SEND_URL                                                                                   \
    "https://bigquery.googleapis.com/upload/bigquery/v2/projects/proj/jobs?uploadType=multipart"

static const char *header_of(const HttpRequest *request, const char *name)
{
    for (size_t i = 0; i < request->n_headers; i++)
        if (streq(request->headers[i].name, name))
            return request->headers[i].value;
    return NULL;
}

/* --- One request ---------------------------------------------------------------------------- */

static void
a_small_batch_is_one_multipart_request_and_is_done_when_its_rows_are_counted(void **state)
{
    Fixture *f = *state;
    auto_buf Buf body = BUF_INIT(1 << 20);
    char piece[100];
    ptrdiff_t n;

    begin_batch(f, 1000, /* asked= */ false);
    assert_string_equal(next(f), SEND_URL);
    while ((n = f->request.read(piece, sizeof(piece), &f->e)) > 0)
        assert_int_equal(buf_add(&body, piece, (size_t)n), 0);
    assert_int_equal(body.size, f->request.body_size);
    assert_contains(body.data, "\"writeDisposition\":\"WRITE_APPEND\"");
    assert_contains(body.data, "\"createDisposition\":\"CREATE_NEVER\"");
    assert_contains(body.data, "\"jobId\":\"mervis_bars_intraday_01k6zzzzzzabcdefghjkmn_1\"");
    assert_contains(body.data, "\"mervis_instance\":\"vm-2\"");
    assert_contains(body.data, "\"maxBadRecords\":0");
    assert_contains(body.data, "xxxx\r\n--mervis-load-4f1c9a7b--\r\n");
    answer(f, 200, JOB("PENDING"));
    assert_string_equal(next(f), JOB_URL);
    assert_true(f->e.wait_usec > 0);
    answer(f, 200, JOB("RUNNING"));
    assert_int_equal(f->e.state, ERRAND_ASKING);
    answer(f, 200, JOB_ROWS("10"));
    assert_int_equal(f->e.state, ERRAND_DONE);
    assert_null(next(f));
}

static void done_with_another_row_count_is_not_delivered(void **state)
{
    Fixture *f = *state;

    begin_batch(f, 1000, false);
    (void)next(f);
    answer(f, 200, JOB_ROWS("9"));
    assert_int_equal(f->e.state, ERRAND_WRONG);
    assert_contains(error_text(&f->e.error), "reports 9 rows where 10 were sent");
    begin_batch(f, 1000, false);
    (void)next(f);
    answer(f, 200, JOB("DONE")); /* no statistics at all */
    assert_int_equal(f->e.state, ERRAND_WRONG);
}

static ptrdiff_t read_result;

static ptrdiff_t read_fails(void *data, size_t size, void *userdata)
{
    return read_result;
}

static void rows_that_are_damaged_on_disk_are_set_aside_and_not_sent_for_ever(void **state)
{
    static const ptrdiff_t passing[] = {-EIO, -ENOMEM, 0};
    Fixture *f = *state;
    char piece[4096];

    begin_batch(f, 1000, false);
    f->e.source.read = read_fails;
    for (size_t i = 0; i < ELEMENTS(passing); i++) {
        read_result = passing[i];
        if (i > 0)
            answer(f, 404, NULL); /* it was looked up, and is not there */
        assert_string_equal(next(f), SEND_URL);
        assert_int_equal(f->request.rewind(&f->e), 0);
        assert_true(f->request.read(piece, sizeof(piece), &f->e) > 0);
        assert_int_equal(f->request.read(piece, sizeof(piece), &f->e), -EIO);
        lose(f);
        assert_int_equal(f->e.state, ERRAND_ASKING);
        assert_string_equal(next(f), JOB_URL);
    }
    answer(f, 404, NULL);
    assert_string_equal(next(f), SEND_URL);
    assert_int_equal(f->request.rewind(&f->e), 0);
    assert_true(f->request.read(piece, sizeof(piece), &f->e) > 0);
    read_result = -EBADMSG;
    assert_int_equal(f->request.read(piece, sizeof(piece), &f->e), -EBADMSG);
    lose(f);
    assert_int_equal(f->e.state, ERRAND_WRONG);
    assert_contains(error_text(&f->e.error), "is damaged in the spool");
    assert_non_null(f->e.error.remedy);
}

static void an_unknown_outcome_is_looked_up_under_the_same_id(void **state)
{
    Fixture *f = *state;
    const long statuses[] = {0, 500, 502, 503, 504};

    for (size_t i = 0; i < ELEMENTS(statuses); i++) {
        begin_batch(f, 1000, false);
        assert_string_equal(next(f), SEND_URL);
        if (statuses[i] == 0)
            lose(f);
        else
            answer(f, statuses[i], "<html>Error</html>");
        assert_int_equal(f->e.state, ERRAND_ASKING);
        assert_string_equal(next(f), JOB_URL);
        answer(f, 404, FAULT(404, "notFound", "Not found: Job"));
        assert_string_equal(next(f), SEND_URL);
        assert_string_equal(f->e.job_id, "mervis_bars_intraday_01k6zzzzzzabcdefghjkmn_1");
    }
}

static void a_new_process_asks_before_it_sends(void **state)
{
    Fixture *f = *state;

    begin_batch(f, 1000, /* asked= */ true);
    assert_string_equal(next(f), JOB_URL);
    answer(f, 200, JOB_ROWS("10"));
    assert_int_equal(f->e.state, ERRAND_DONE);
}

static void exists_already_then_missing_then_found_is_adopted(void **state)
{
    Fixture *f = *state;

    begin_batch(f, 1000, false);
    (void)next(f);
    answer(f, 409, FAULT(409, "duplicate", "Already Exists: Job"));
    for (int i = 0; i < 5; i++) {
        assert_string_equal(next(f), JOB_URL);
        answer(f, 404, FAULT(404, "notFound", "Not found: Job"));
        assert_int_equal(f->e.state, ERRAND_ASKING);
        assert_true(f->e.wait_usec > 0);
    }
    assert_string_equal(next(f), JOB_URL);
    answer(f, 200, JOB_ROWS("10"));
    assert_int_equal(f->e.state, ERRAND_DONE);
}

static void a_conflict_that_stays_invisible_is_said_and_never_sent_again(void **state)
{
    Fixture *f = *state;

    begin_batch(f, 1000, false);
    (void)next(f);
    answer(f, 409, FAULT(409, "duplicate", "Already Exists: Job"));
    (void)next(f);
    answer(f, 404, NULL);
    f->e.now_usec += 11 * MINUTE;
    assert_string_equal(next(f), JOB_URL);
    answer(f, 404, NULL);
    assert_int_equal(f->e.state, ERRAND_PAUSED);
    assert_string_equal(next(f), JOB_URL);
}

static void a_job_of_another_batch_under_our_id_is_not_ours(void **state)
{
    Fixture *f = *state;

    begin_batch(f, 1000, true);
    (void)next(f);
    answer(f, 200,
           "{\"status\":{\"state\":\"DONE\"},\"statistics\":{\"load\":{\"outputRows\":\"10\"}},"
           "\"configuration\":{\"labels\":{\"mervis_batch\":\"other\"}}}");
    assert_int_equal(f->e.state, ERRAND_WRONG);
}

static void a_cut_answer_is_asked_for_again(void **state)
{
    Fixture *f = *state;

    begin_batch(f, 1000, false);
    (void)next(f);
    answer(f, 200, "{\"status\":{\"sta");
    assert_int_equal(f->e.state, ERRAND_ASKING);
    assert_string_equal(next(f), JOB_URL);
}

/* --- Faults of jobs ------------------------------------------------------------------------- */

static void a_failed_job_is_judged_by_its_reason(void **state)
{
    static const struct {
        const char *reason;
        ErrandState state;
        uint64_t least_wait;
    } rows[] = {
        {"backendError", ERRAND_NEXT_TRY, 1},      {"jobRateLimitExceeded", ERRAND_NEXT_TRY, 1},
        {"stopped", ERRAND_NEXT_TRY, 1},           {"quotaExceeded", ERRAND_NEXT_TRY, 10 * MINUTE},
        {"accessDenied", ERRAND_NEXT_TRY, MINUTE}, {"notFound", ERRAND_NEXT_TRY, SECOND},
        {"neverHeardOf", ERRAND_NEXT_TRY, 1},      {"invalid", ERRAND_BAD_ROW, 0},
    };
    Fixture *f = *state;

    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        auto_free char *body = str_printf(JOB_FAILED("%s", "it did not work"), rows[i].reason);

        begin_batch(f, 1000, false);
        (void)next(f);
        answer(f, 200, body);
        if (f->e.state != rows[i].state || f->e.wait_usec < rows[i].least_wait)
            fail_msg("%s: state %d, wait %lu", rows[i].reason, (int)f->e.state,
                     (unsigned long)f->e.wait_usec);
        assert_contains(error_text(&f->e.error), "it did not work");
    }
}

static void the_bad_row_is_found_by_its_position(void **state)
{
    Fixture *f = *state;

    begin_batch(f, 1000, false);
    (void)next(f);
    answer(f, 200,
           "{\"status\":{\"state\":\"DONE\",\"errorResult\":{\"reason\":\"invalid\",\"message\":"
           "\"Error while reading data, error message: JSON table encountered too many errors, "
           "giving up. Rows: 1; errors: 1.\"},\"errors\":[{\"reason\":\"invalid\",\"message\":"
           "\"Error while reading data, error message: JSON parsing error in row starting at "
           "position 640: Could not convert value\"}]}}");
    assert_int_equal(f->e.state, ERRAND_BAD_ROW);
    assert_int_equal(f->e.bad_offset, 640);
    assert_true(f->e.recheck_table);
}

/* --- Faults of requests --------------------------------------------------------------------- */

static void a_refused_request_is_judged_by_the_table_of_facts(void **state)
{
    static const struct {
        long status;
        const char *body;
        ErrandState state;
        uint64_t least_wait;
        ErrorKind kind;
    } rows[] = {
        {403, FAULT(403, "rateLimitExceeded", "slow"), ERRAND_ASKING, 1, ERROR_TEMPORARY},
        {429, FAULT(429, "rateLimitExceeded", "slow"), ERRAND_ASKING, 1, ERROR_TEMPORARY},
        {403, FAULT(403, "quotaExceeded", "imports"), ERRAND_PAUSED, 10 * MINUTE, ERROR_THROTTLED},
        {403, FAULT(403, "accessDenied", "no"), ERRAND_PAUSED, MINUTE, ERROR_DENIED},
        {403, FAULT(403, "billingNotEnabled", "no"), ERRAND_PAUSED, MINUTE, ERROR_DENIED},
        {403, FAULT(403, "insufficientPermissions", "no"), ERRAND_PAUSED, MINUTE, ERROR_DENIED},
        {403, "<html>no</html>", ERRAND_PAUSED, MINUTE, ERROR_DENIED},
        {401, FAULT(401, "authError", "no"), ERRAND_PAUSED, MINUTE, ERROR_DENIED},
        {404, FAULT(404, "notFound", "Dataset"), ERRAND_PAUSED, SECOND, ERROR_INVALID},
        {400, FAULT(400, "invalid", "no"), ERRAND_PAUSED, MINUTE, ERROR_INVALID},
        {400, FAULT(400, "tableUnavailable", "later"), ERRAND_ASKING, 1, ERROR_TEMPORARY},
        {400, NULL, ERRAND_TOO_LARGE, 0, ERROR_INVALID},
        {413, FAULT(413, "uploadTooLarge", "big"), ERRAND_TOO_LARGE, 0, ERROR_INVALID},
        {501, FAULT(501, "notImplemented", "no"), ERRAND_PAUSED, MINUTE, ERROR_INVALID},
    };
    Fixture *f = *state;

    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        begin_batch(f, 1000, false);
        (void)next(f);
        answer(f, rows[i].status, rows[i].body);
        if (f->e.state != rows[i].state || f->e.wait_usec < rows[i].least_wait ||
            f->e.error.kind != rows[i].kind)
            fail_msg("%ld %s: state %d, wait %lu, %s", rows[i].status,
                     rows[i].body ? rows[i].body : "", (int)f->e.state,
                     (unsigned long)f->e.wait_usec, error_text(&f->e.error));
        assert_string_equal(f->e.job_id, "mervis_bars_intraday_01k6zzzzzzabcdefghjkmn_1");
        if (rows[i].kind == ERROR_DENIED)
            assert_non_null(f->e.error.remedy);
    }
}

static void quota_pauses_grow(void **state)
{
    Fixture *f = *state;
    uint64_t before = 0;

    begin_batch(f, 1000, false);
    for (int i = 0; i < 4; i++) {
        assert_string_equal(next(f), SEND_URL);
        answer(f, 403, FAULT(403, "quotaExceeded", "imports"));
        assert_true(f->e.wait_usec > before || f->e.wait_usec == BQ_QUOTA_PAUSE_MAX_USEC);
        before = f->e.wait_usec;
    }
}

/* --- Resumable uploads ---------------------------------------------------------------------- */

#define SESSION "https://bigquery.googleapis.com/upload/session?upload_id=x"

static void open_session(Fixture *f, uint64_t bytes)
{
    begin_batch(f, bytes, false);
    assert_contains(next(f), "uploadType=resumable");
    assert_string_equal(header_of(&f->request, "X-Upload-Content-Type"),
                        "application/octet-stream");
    answer_with(f, 200, "", &(HttpHeader){"Location", SESSION});
    assert_string_equal(next(f), SESSION);
}

static void a_large_batch_goes_in_chunks_that_resume_where_the_server_says(void **state)
{
    Fixture *f = *state;
    uint64_t total = 20U << 20;
    char byte;

    open_session(f, total);
    assert_string_equal(header_of(&f->request, "Content-Range"), "bytes 0-8388607/20971520");
    assert_int_equal(f->request.body_size, 8U << 20);
    answer_with(f, 308, NULL, &(HttpHeader){"Range", "bytes=0-262143"}); /* kept less */
    assert_string_equal(next(f), SESSION);
    assert_string_equal(header_of(&f->request, "Content-Range"), "bytes 262144-8650751/20971520");
    assert_int_equal(f->request.read(&byte, 1, &f->e), 1);
    assert_int_equal(source_offset, 262144);
    answer_with(f, 308, NULL, NULL); /* nothing kept */
    assert_string_equal(next(f), SESSION);
    assert_string_equal(header_of(&f->request, "Content-Range"), "bytes 0-8388607/20971520");
    answer_with(f, 308, NULL, &(HttpHeader){"Range", "bytes=0-16777215"});
    assert_string_equal(next(f), SESSION);
    assert_string_equal(header_of(&f->request, "Content-Range"),
                        "bytes 16777216-20971519/20971520");
    answer(f, 200, JOB("RUNNING"));
    assert_string_equal(next(f), JOB_URL);
}

/* Halves go under ids of their own: were the job there after all, its rows would be there twice. */
static void too_large_after_a_lost_answer_is_believed_when_no_job_shows_up(void **state)
{
    Fixture *f = *state;

    open_session(f, 6U << 20);
    lose(f);
    assert_string_equal(next(f), SESSION);
    answer(f, 400, NULL);
    assert_int_equal(f->e.state, ERRAND_ASKING);
    assert_string_equal(next(f), JOB_URL);
    answer(f, 404, FAULT(404, "notFound", "Not found: Job"));
    assert_string_equal(next(f), JOB_URL);
    answer(f, 200, JOB_ROWS("10"));
    assert_int_equal(f->e.state, ERRAND_DONE);

    begin_batch(f, 1000, /* asked= */ true);
    assert_string_equal(next(f), JOB_URL);
    answer(f, 404, FAULT(404, "notFound", "Not found: Job"));
    assert_string_equal(next(f), SEND_URL);
    answer(f, 413, FAULT(413, "uploadTooLarge", "big"));
    assert_string_equal(next(f), JOB_URL);
    answer(f, 404, FAULT(404, "notFound", "Not found: Job"));
    assert_string_equal(next(f), JOB_URL);
    f->e.now_usec += BQ_CONFLICT_WINDOW_USEC;
    answer(f, 404, FAULT(404, "notFound", "Not found: Job"));
    assert_int_equal(f->e.state, ERRAND_TOO_LARGE);
}

static void a_lost_last_answer_is_probed_for(void **state)
{
    Fixture *f = *state;

    open_session(f, 6U << 20);
    lose(f);
    assert_string_equal(next(f), SESSION);
    assert_string_equal(header_of(&f->request, "Content-Range"), "bytes */6291456");
    assert_int_equal(f->request.body_size, 0);
    answer(f, 200, JOB_ROWS("10"));
    assert_int_equal(f->e.state, ERRAND_DONE);
}

static void an_expired_session_is_looked_up_and_opened_again_with_the_same_id(void **state)
{
    Fixture *f = *state;

    open_session(f, 6U << 20);
    answer(f, 410, NULL);
    assert_string_equal(next(f), JOB_URL);
    answer(f, 404, NULL);
    assert_contains(next(f), "uploadType=resumable");
    assert_contains(buf_str(&f->e.body), "mervis_bars_intraday_01k6zzzzzzabcdefghjkmn_1");
}

static void a_session_that_refuses_is_left_and_sessions_that_never_last_back_off(void **state)
{
    Fixture *f = *state;

    open_session(f, 6U << 20);
    answer(f, 400, FAULT(400, "invalid", "Invalid upload"));
    assert_int_equal(f->e.state, ERRAND_PAUSED);
    for (unsigned i = 1; i <= 6; i++) {
        assert_string_equal(next(f), JOB_URL);
        answer(f, 404, FAULT(404, "notFound", "Not found: Job"));
        assert_contains(next(f), "uploadType=resumable");
        answer_with(f, 200, "", &(HttpHeader){"Location", SESSION});
        assert_string_equal(next(f), SESSION);
        answer(f, 410, NULL);
        assert_int_equal(f->e.tries, i);
    }
}

static void a_range_that_lies_is_probed(void **state)
{
    Fixture *f = *state;
    const char *const lies[] = {"bytes=0-99999999999", "bytes=5-10", "items=0-5", "bytes=0-x"};

    for (size_t i = 0; i < ELEMENTS(lies); i++) {
        open_session(f, 6U << 20);
        answer_with(f, 308, NULL, &(HttpHeader){"Range", lies[i]});
        assert_string_equal(next(f), SESSION);
        assert_string_equal(header_of(&f->request, "Content-Range"), "bytes */6291456");
    }
}

/* --- Tables --------------------------------------------------------------------------------- */

static char *table_reply(const char *without, const char *type_of_open)
{
    Buf text = BUF_INIT(1 << 16);
    bool first = true;

    assert_int_equal(buf_add_str(&text, "{\"schema\":{\"fields\":["), 0);
    for (const RowColumn *c = row_columns; c->name; c++) {
        const char *type = bq_column_type(c->type);

        if (without && streq(without, c->name))
            continue;
        if (type_of_open && streq(c->name, "open"))
            type = type_of_open;
        assert_int_equal(buf_printf(&text, "%s{\"name\":\"%s\",\"type\":\"%s\"}", first ? "" : ",",
                                    c->name, type),
                         0);
        first = false;
    }
    assert_int_equal(buf_add_str(&text, "]}}"), 0);
    return buf_take(&text);
}

static void to_table(Fixture *f, SinkTable table)
{
    errand_done(&f->e);
    errand_init_table(&f->e, table);
    assert_contains(next(f), "/datasets/market");
    answer(f, 200, "{\"location\":\"asia-northeast3\"}");
    assert_string_equal(f->sink->location, "asia-northeast3");
    assert_contains(next(f),
                    table == SINK_TABLE_DAILY ? "/tables/bars_daily" : "/tables/bars_intraday");
}

static void a_missing_table_is_created_with_partitions_and_clusters(void **state)
{
    Fixture *f = *state;
    auto_free char *reply = table_reply(NULL, NULL);

    to_table(f, SINK_TABLE_DAILY);
    answer(f, 404, FAULT(404, "notFound", "Not found: Table"));
    assert_non_null(next(f));
    assert_string_equal(f->request.method, "POST");
    assert_contains(f->request.body,
                    "\"timePartitioning\":{\"type\":\"MONTH\",\"field\":\"trade_date\"}");
    assert_contains(f->request.body,
                    "\"clustering\":{\"fields\":[\"symbol\",\"interval\",\"source\"]}");
    assert_contains(f->request.body,
                    "{\"name\":\"volume\",\"type\":\"BIGNUMERIC\",\"mode\":\"NULLABLE\"}");
    answer(f, 200, reply);
    assert_contains(next(f), "/tables/bars_latest");
    answer(f, 404, FAULT(404, "notFound", "Not found: Table"));
    assert_non_null(next(f));
    assert_contains(f->request.body, "QUALIFY ROW_NUMBER()");
    answer(f, 200, "{}");
    assert_int_equal(f->e.state, ERRAND_DONE);
}

static void a_table_that_somebody_else_made_meanwhile_is_read(void **state)
{
    Fixture *f = *state;
    auto_free char *reply = table_reply(NULL, NULL);

    to_table(f, SINK_TABLE_INTRADAY);
    answer(f, 404, NULL);
    (void)next(f);
    answer(f, 409, FAULT(409, "duplicate", "Already Exists: Table"));
    assert_contains(next(f), "/tables/bars_intraday");
    answer(f, 200, reply);
    assert_int_equal(f->e.state, ERRAND_DONE);
}

static void a_missing_column_pauses_with_the_exact_remedy_or_is_added(void **state)
{
    Fixture *f = *state;
    auto_free char *lacking = table_reply("adj_close", NULL), *whole = table_reply(NULL, NULL);

    to_table(f, SINK_TABLE_INTRADAY);
    answer(f, 200, lacking);
    assert_int_equal(f->e.state, ERRAND_PAUSED);
    assert_contains(error_text(&f->e.error), "has no column adj_close");
    assert_contains(f->e.error.remedy,
                    "ALTER TABLE `proj.market.bars_intraday` ADD COLUMN `adj_close` NUMERIC");
    assert_contains(next(f), "/tables/bars_intraday"); /* and looks again by itself */
    answer(f, 200, whole);
    assert_int_equal(f->e.state, ERRAND_DONE);

    f->sink->schema = SINK_SCHEMA_EXTEND;
    to_table(f, SINK_TABLE_INTRADAY);
    answer(f, 200, lacking);
    assert_non_null(next(f));
    assert_string_equal(f->request.method, "PATCH");
    assert_contains(f->request.body,
                    "{\"name\":\"adj_close\",\"type\":\"NUMERIC\",\"mode\":\"NULLABLE\"}");
    answer(f, 200, whole);
    assert_int_equal(f->e.state, ERRAND_DONE);
}

static void a_wrong_type_a_foreign_requirement_and_a_missing_dataset_are_said(void **state)
{
    Fixture *f = *state;
    auto_free char *wrong = table_reply(NULL, "FLOAT");

    to_table(f, SINK_TABLE_INTRADAY);
    answer(f, 200, wrong);
    assert_int_equal(f->e.state, ERRAND_PAUSED);
    assert_contains(error_text(&f->e.error), "column open is FLOAT where NUMERIC is needed");

    to_table(f, SINK_TABLE_INTRADAY);
    answer(f, 200,
           "{\"schema\":{\"fields\":[{\"name\":\"desk\",\"type\":\"STRING\",\"mode\":\"REQUIRED\"}]"
           "}}");
    assert_contains(error_text(&f->e.error), "requires a column desk");

    errand_done(&f->e);
    errand_init_table(&f->e, SINK_TABLE_INTRADAY);
    (void)next(f);
    answer(f, 404, FAULT(404, "notFound", "Not found: Dataset"));
    assert_int_equal(f->e.state, ERRAND_PAUSED);
    assert_contains(f->e.error.remedy, "bq mk --dataset");
}

/* --- Listing jobs, reading keys ------------------------------------------------------------- */

#define LISTED(state, jobset, instance, started)                                                   \
    "{\"state\":\"" state "\",\"configuration\":{\"labels\":{\"mervis_jobset\":\"" jobset          \
    "\",\"mervis_instance\":\"" instance "\",\"mervis_started\":\"" started "\"}}}"

static void jobs_of_our_set_are_counted_over_all_pages(void **state)
{
    Fixture *f = *state;

    errand_init_jobs(&f->e, NOW - DAY, /* finished_too= */ false);
    assert_contains(next(f), "stateFilter=pending&stateFilter=running");
    answer(f, 200,
           "{\"nextPageToken\":\"p 2\",\"jobs\":[" LISTED("RUNNING", "abc", "vm-1", "1") "," LISTED(
               "RUNNING", "other", "vm-1", "1") "]}");
    assert_contains(next(f), "pageToken=p%202");
    answer(f, 200, "{\"jobs\":[" LISTED("PENDING", "abc", "vm-1", "1") "]}");
    assert_int_equal(f->e.state, ERRAND_DONE);
    assert_int_equal(f->e.jobs_pending, 2);
}

static void of_two_writers_the_later_one_yields(void **state)
{
    Fixture *f = *state;

    errand_init_jobs(&f->e, NOW, /* finished_too= */ true);
    assert_null(strstr(next(f), "stateFilter"));
    answer(f, 200, "{\"jobs\":[" LISTED("DONE", "abc", "vm-1", "1000") "]}");
    assert_true(f->e.has_other_writer);
    assert_string_equal(f->e.other_instance, "vm-1");

    errand_done(&f->e);
    errand_init_jobs(&f->e, NOW, true);
    (void)next(f);
    answer(f, 200,
           "{\"jobs\":[" LISTED("DONE", "abc", "vm-3",
                                "9991331200000") "," LISTED("DONE", "abc", "vm-2", "1") "]}");
    assert_false(f->e.has_other_writer);
}

static int count_key(const SinkKey *key, void *userdata)
{
    int *n = userdata;

    assert_int_equal(key->is_final, *n != 1); /* as said, and where nothing is said */
    assert_string_equal(key->symbol, "AAPL");
    assert_int_equal(key->ts_usec, 1759646400000000);
    (*n)++;
    return 0;
}

#define KEY_ROW(is_final)                                                                          \
    "{\"f\":[{\"v\":\"yahoo-chart\"},{\"v\":\"AAPL\"},{\"v\":\"1m\"},{\"v\":\"bar\"},"             \
    "{\"v\":\"1759646400000000\"},{\"v\":\"0\"},{\"v\":" is_final "}]}"

static void keys_are_read_with_a_bounded_query_page_by_page(void **state)
{
    Fixture *f = *state;
    const char *const sources[] = {"yahoo-chart", NULL};
    int n = 0;

    errand_init_keys(&f->e, SINK_TABLE_INTRADAY, sources, NOW - 7 * DAY, count_key, &n);
    assert_contains(next(f), "/queries");
    assert_contains(f->request.body, "\"useLegacySql\":false");
    assert_contains(f->request.body, "\"maximumBytesBilled\":");
    assert_contains(f->request.body, "trade_date >= @date");
    assert_contains(f->request.body, "LOGICAL_OR(is_final) AS is_final");
    assert_contains(f->request.body, "{\"value\":\"2026-09-29\"}");
    answer(f, 200, "{\"jobComplete\":false,\"jobReference\":{\"jobId\":\"q1\"}}");
    assert_contains(next(f), "/queries/q1?");
    answer(f, 200,
           "{\"jobComplete\":true,\"jobReference\":{\"jobId\":\"q1\"},\"pageToken\":\"t\","
           "\"rows\":[" KEY_ROW("\"true\"") "]}");
    assert_contains(next(f), "pageToken=t");
    answer(f, 200,
           "{\"jobComplete\":true,\"rows\":[" KEY_ROW("\"false\"") "," KEY_ROW("null") "]}");
    assert_int_equal(f->e.state, ERRAND_DONE);
    assert_int_equal(n, 3);

    errand_done(&f->e);
    errand_init_keys(&f->e, SINK_TABLE_INTRADAY, sources, NOW, count_key, &n);
    (void)next(f);
    answer(f, 404, FAULT(404, "notFound", "Not found: Table"));
    assert_int_equal(f->e.state, ERRAND_DONE);
}

static void labels_hold_what_labels_may_hold(void **state)
{
    char label[64];

    sink_label(label, "Instance.Of/Mine_9-");
    assert_string_equal(label, "instance_of_mine_9-");
    sink_label(label, "0123456789012345678901234567890123456789012345678901234567890123456789");
    assert_int_equal(strlen(label), 63);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

TEST_MAIN(T(a_small_batch_is_one_multipart_request_and_is_done_when_its_rows_are_counted),
          T(done_with_another_row_count_is_not_delivered),
          T(rows_that_are_damaged_on_disk_are_set_aside_and_not_sent_for_ever),
          T(an_unknown_outcome_is_looked_up_under_the_same_id),
          T(a_new_process_asks_before_it_sends),
          T(exists_already_then_missing_then_found_is_adopted),
          T(a_conflict_that_stays_invisible_is_said_and_never_sent_again),
          T(a_job_of_another_batch_under_our_id_is_not_ours), T(a_cut_answer_is_asked_for_again),
          T(a_failed_job_is_judged_by_its_reason), T(the_bad_row_is_found_by_its_position),
          T(a_refused_request_is_judged_by_the_table_of_facts), T(quota_pauses_grow),
          T(a_large_batch_goes_in_chunks_that_resume_where_the_server_says),
          T(a_lost_last_answer_is_probed_for),
          T(too_large_after_a_lost_answer_is_believed_when_no_job_shows_up),
          T(an_expired_session_is_looked_up_and_opened_again_with_the_same_id),
          T(a_session_that_refuses_is_left_and_sessions_that_never_last_back_off),
          T(a_range_that_lies_is_probed),
          T(a_missing_table_is_created_with_partitions_and_clusters),
          T(a_table_that_somebody_else_made_meanwhile_is_read),
          T(a_missing_column_pauses_with_the_exact_remedy_or_is_added),
          T(a_wrong_type_a_foreign_requirement_and_a_missing_dataset_are_said),
          T(jobs_of_our_set_are_counted_over_all_pages), T(of_two_writers_the_later_one_yields),
          T(keys_are_read_with_a_bounded_query_page_by_page), T(labels_hold_what_labels_may_hold))
