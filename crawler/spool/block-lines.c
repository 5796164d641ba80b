/* SPDX-License-Identifier: Apache-2.0 */

/* A block as JSON lines. A line is mostly what the one before was, so that is kept as text: names,
 * symbol, day, batch. What is left to write for a row is the time of day and its amounts. */

#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "crawler/spool/block.h"

#define FRAME_PART_MAX (64U << 10)
#define END_USEC       INT64_C(253402300800000000) /* of the year 9999 */

typedef struct AmountName {
    const char *text; /* as lines have it */
    size_t size, offset;
} AmountName;

#define NAME(member)                                                                               \
    {",\"" #member "\":\"", sizeof(",\"" #member "\":\"") - 1, offsetof(Row, member)},
static const AmountName amounts[] = {BLOCK_AMOUNTS(NAME)};
#undef NAME

/* The longest that amounts and an instant can be; the rest of a line is its frame. */
#define VARIABLE_MAX (TIME_RFC3339_MAX + ELEMENTS(amounts) * (AMOUNT_TEXT_MAX + 20))

static const Amount *row_amount(const Row *row, const AmountName *name)
{
    return (const Amount *)(const void *)((const char *)row + name->offset);
}

/* --- The frame ------------------------------------------------------------------------------ */

static int add_parts(Buf *buf, const char *const *parts, size_t n)
{
    int r = 0;

    for (size_t i = 0; i < n && r >= 0; i++)
        r = buf_add_str(buf, parts[i]);
    return r;
}

/* Whether it is JSON once it stands between quotes: symbols, intervals and zones nearly always. */
static bool is_plain(const char *text)
{
    for (; *text; text++)
        if (*text < 0x20 || *text > 0x7e || *text == '"' || *text == '\\')
            return false;
    return true;
}

/* `,"name":"value"`. */
static int add_json_string(Buf *buf, const char *name, const char *value)
{
    const char *const before[] = {buf->size > 1 ? "," : "", "\"", name, "\":"};
    const char *const between_quotes[] = {"\"", value, "\""};
    json_auto_t *text = NULL;
    auto_free char *quoted = NULL;
    int r;

    if (!value)
        return 0;
    r = add_parts(buf, before, ELEMENTS(before));
    if (r < 0)
        return r;
    if (is_plain(value))
        return add_parts(buf, between_quotes, ELEMENTS(between_quotes));
    text = json_string(value);
    if (!text)
        return -EBADMSG; /* not UTF-8 */
    quoted = json_dumps(text, JSON_ENCODE_ANY);
    return quoted ? buf_add_str(buf, quoted) : -ENOMEM;
}

/* `{"source":…,"tz":…`. */
static int add_like(Buf *buf, const Row *row)
{
    int r = buf_add_char(buf, '{');

#define ADD(member) r = r < 0 ? r : add_json_string(buf, #member, row->member);
    BLOCK_STRINGS(ADD)
#undef ADD
    return r;
}

static void frame_close(BlockFrame *frame)
{
    buf_done(&frame->like);
    buf_done(&frame->head);
    buf_done(&frame->middle);
    buf_done(&frame->tail);
    *frame = (BlockFrame){0};
}

static int frame_open(BlockFrame *frame, const Row *like, const char *batch_id)
{
    int r;

    *frame = (BlockFrame){.like = BUF_INIT(FRAME_PART_MAX),
                          .ingested_usec = like->ingested_usec,
                          .head = BUF_INIT(FRAME_PART_MAX + 128),
                          .middle = BUF_INIT(128),
                          .tail = BUF_INIT(256)};
    (void)snprintf(frame->batch_id, sizeof(frame->batch_id), "%s", batch_id);
    r = add_like(&frame->like, like);
    if (r < 0)
        frame_close(frame);
    return r;
}

static inline bool frame_fits(const BlockFrame *frame, const Row *row)
{
    return row->ts_usec >= frame->from_usec && row->ts_usec < frame->to_usec &&
           row->trade_date == frame->trade_date && row->revision == frame->revision &&
           row->kind == frame->kind && row->session == frame->session &&
           row->is_final == frame->is_final;
}

#define DAY_SIZE (sizeof("2026-10-07T") - 1) /* at the end of the head */
#define ZONE     "Z"                         /* in front of the middle */

/* `…,"kind":"bar","ts":"2026-10-07T` `Z","trade_date":…,"session":…` `,"is_final":…}\n`. */
static int frame_make(BlockFrame *frame, const Row *row)
{
    const char *session = session_name(row->session);
    char day[ROW_DATE_MAX], date[ROW_DATE_MAX], at[TIME_RFC3339_MAX];
    int64_t days = row->ts_usec / (int64_t)DAY;
    int r;

    (void)row_date_format((int32_t)days, day);
    (void)row_date_format(row->trade_date, date);
    buf_clear(&frame->head);
    buf_clear(&frame->middle);
    buf_clear(&frame->tail);
    r = buf_add(&frame->head, frame->like.data, frame->like.size);
    if (r >= 0)
        r = buf_printf(&frame->head, ",\"kind\":\"%s\",\"ts\":\"%sT", row_kind_name(row->kind),
                       day);
    if (r >= 0)
        r = buf_printf(&frame->middle, ZONE "\",\"trade_date\":\"%s\"%s%s%s", date,
                       session ? ",\"session\":\"" : "", session ? session : "",
                       session ? "\"" : "");
    if (r >= 0)
        r = buf_printf(&frame->tail, ",\"is_final\":%s,\"revision\":%u",
                       row->is_final ? "true" : "false", row->revision);
    if (r >= 0 && frame->ingested_usec != 0)
        r = buf_printf(&frame->tail, ",\"ingested_at\":\"%s\"",
                       time_format_rfc3339(at, frame->ingested_usec));
    if (r >= 0)
        r = buf_printf(&frame->tail, ",\"batch_id\":\"%s\"}\n", frame->batch_id);
    if (r < 0)
        return r;
    frame->from_usec = row->ts_usec < 0 ? INT64_MIN : days * (int64_t)DAY;
    frame->to_usec = row->ts_usec < 0           ? 0
                     : row->ts_usec >= END_USEC ? INT64_MAX
                                                : frame->from_usec + (int64_t)DAY;
    frame->trade_date = row->trade_date;
    frame->revision = row->revision;
    frame->kind = row->kind;
    frame->session = row->session;
    frame->is_final = row->is_final;
    return 0;
}

static inline int frame_row(BlockFrame *frame, const Row *row)
{
    return frame_fits(frame, row) ? 0 : frame_make(frame, row);
}

static size_t frame_room(const BlockFrame *frame)
{
    return frame->head.size + frame->middle.size + frame->tail.size + VARIABLE_MAX;
}

/* --- Lines ---------------------------------------------------------------------------------- */

static char *put_text(char *at, const char *text, size_t size)
{
    memcpy(at, text, size);
    return at + size;
}

static char *put_two(char *at, unsigned value)
{
    *at++ = (char)('0' + value / 10);
    *at++ = (char)('0' + value % 10);
    return at;
}

/* Before 1970, after 9999, or with parts of a second: not written here. */
static char *put_odd_start(char *at, const BlockFrame *frame, int64_t ts_usec)
{
    const size_t zone = sizeof(ZONE) - 1;
    char text[TIME_RFC3339_MAX];

    (void)time_format_rfc3339(text, ts_usec);
    at = put_text(at, frame->head.data, frame->head.size - DAY_SIZE);
    at = put_text(at, text, strlen(text));
    return put_text(at, frame->middle.data + zone, frame->middle.size - zone);
}

static bool is_odd(int64_t ts_usec)
{
    return ts_usec < 0 || ts_usec >= END_USEC || ts_usec % (int64_t)SECOND != 0;
}

/* Head, instant and middle. */
static char *put_start(char *at, const BlockFrame *frame, int64_t ts_usec)
{
    unsigned of_day;

    if (is_odd(ts_usec))
        return put_odd_start(at, frame, ts_usec);
    of_day = (unsigned)((ts_usec - frame->from_usec) / (int64_t)SECOND);
    at = put_text(at, frame->head.data, frame->head.size);
    at = put_two(at, of_day / 3600);
    *at++ = ':';
    at = put_two(at, of_day / 60 % 60);
    *at++ = ':';
    at = put_two(at, of_day % 60);
    return put_text(at, frame->middle.data, frame->middle.size);
}

static char *put_line(char *at, const BlockFrame *frame, const Row *row)
{
    at = put_start(at, frame, row->ts_usec);
    for (size_t i = 0; i < ELEMENTS(amounts); i++) {
        const Amount *amount = row_amount(row, &amounts[i]);

        if (!amount->present)
            continue;
        at = put_text(at, amounts[i].text, amounts[i].size);
        at += amount_format(amount, at);
        *at++ = '"';
    }
    return put_text(at, frame->tail.data, frame->tail.size);
}

int block_lines_open(BlockLines *lines, const void *data, size_t size, const char *batch_id)
{
    int r;

    *lines = (BlockLines){0};
    r = block_open(&lines->rows, data, size);
    if (r >= 0)
        r = frame_open(&lines->frame, &lines->rows.row, batch_id);
    if (r < 0)
        block_lines_close(lines);
    return r;
}

void block_lines_close(BlockLines *lines)
{
    block_close(&lines->rows);
    frame_close(&lines->frame);
    lines->in_hand = false;
}

size_t block_lines_room(const BlockLines *lines)
{
    return frame_room(&lines->frame);
}

ptrdiff_t block_lines_read(BlockLines *lines, char *data, size_t size)
{
    char *at = data;
    int r;

    for (;;) {
        if (!lines->in_hand) {
            r = block_step(&lines->rows);
            if (r <= 0)
                return r < 0 ? r : at - data;
            lines->in_hand = true;
        }
        r = frame_row(&lines->frame, &lines->rows.row);
        if (r < 0)
            return r;
        if ((size_t)(data + size - at) < frame_room(&lines->frame))
            return at > data ? at - data : -ENOBUFS;
        at = put_line(at, &lines->frame, &lines->rows.row);
        lines->in_hand = false;
    }
}

int block_expand(const void *data, size_t size, const char *batch_id, Buf *ret)
{
    auto_block_lines BlockLines lines;
    int r = block_lines_open(&lines, data, size, batch_id);

    while (r >= 0) {
        ptrdiff_t n;

        r = buf_reserve(ret, block_lines_room(&lines));
        if (r < 0)
            break;
        n = block_lines_read(&lines, ret->data + ret->size, ret->allocated - ret->size - 1);
        if (n == 0)
            break;
        if (n > 0) {
            ret->size += (size_t)n;
            ret->data[ret->size] = '\0';
        } else if (n != -ENOBUFS)
            r = (int)n;
    }
    return r;
}

/* --- Sizes ---------------------------------------------------------------------------------- */

static size_t odd_instant_size(int64_t ts_usec)
{
    char text[TIME_RFC3339_MAX];

    return strlen(time_format_rfc3339(text, ts_usec)) - DAY_SIZE - (sizeof(ZONE) - 1);
}

static size_t line_size(const BlockFrame *frame, const Row *row)
{
    size_t n = frame->head.size + frame->middle.size + frame->tail.size;

    n += is_odd(row->ts_usec) ? odd_instant_size(row->ts_usec) : sizeof("06:30:00") - 1;
    for (size_t i = 0; i < ELEMENTS(amounts); i++)
        if (row_amount(row, &amounts[i])->present)
            n += amounts[i].size + amount_text_size(row_amount(row, &amounts[i])) + 1;
    return n;
}

int block_lines_size(const Row *rows, const uint32_t *indices, size_t n, uint64_t *ret)
{
    static const char any[BLOCK_BATCH_ID_SIZE + 1] = "----------------------";
    BlockFrame frame;
    uint64_t size = 0;
    int r = frame_open(&frame, &rows[indices[0]], any);

    if (r < 0)
        return r;
    for (size_t i = 0; i < n && r >= 0; i++) {
        r = frame_row(&frame, &rows[indices[i]]);
        size += r < 0 ? 0 : line_size(&frame, &rows[indices[i]]);
    }
    frame_close(&frame);
    if (r >= 0)
        *ret = size;
    return r;
}
