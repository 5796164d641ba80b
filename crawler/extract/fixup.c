/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "crawler/extract/document.h"
#include "crawler/model/zone.h"

/* What data cannot say about a source, as pure functions on the rows of one document. */

int fixup_value(const RowsContext *context, const char *name, int64_t *ret)
{
    size_t i = 0;

    FOREACH_ITEM (RecipeValue, value, context->recipe->values) {
        const Cell *cell = &context->doc->values[i++];
        Amount amount;

        if (!streq(value->key, name))
            continue;
        if (!cell_is_there(cell) || !cell->text || cell->escaped ||
            amount_parse(cell->text, cell->size, 0, 0, &amount) < 0 ||
            amount.mantissa > INT64_MAX / 2 || amount.mantissa < INT64_MIN / 2)
            return 0;
        *ret = (int64_t)amount.mantissa;
        return 1;
    }
    return 0;
}

/* --- Yahoo ---------------------------------------------------------------------------------------
 */

/* What the head of a chart says about now: epoch seconds. */
typedef struct YahooNow {
    const Zone *zone;
    int64_t market_time; /* of the last trade */
    int64_t pre_start, start, end, post_end;
    int32_t session_date; /* of the regular session that it calls current */
    bool has_market_time, has_session, has_extended;
} YahooNow;

static YahooNow yahoo_now(const RowsContext *context, const Row *row)
{
    YahooNow now = {0};

    if (!row->tz || zone_get(row->tz, &now.zone, NULL) < 0)
        return now;
    now.has_market_time = fixup_value(context, "market_time", &now.market_time) > 0;
    now.has_session = fixup_value(context, "regular_start", &now.start) > 0 &&
                      fixup_value(context, "regular_end", &now.end) > 0 && now.start < now.end &&
                      now.start > 0 && now.end < INT64_C(10000000000);
    now.has_extended = now.has_session && fixup_value(context, "pre_start", &now.pre_start) > 0 &&
                       fixup_value(context, "post_end", &now.post_end) > 0;
    if (now.has_session)
        now.session_date = zone_date(now.zone, now.start * (int64_t)SECOND);
    return now;
}

/* After the close the live row of minutes and hours stands on the minute of the last trade: one
 * price and no volume. Asked on another day the same range does not have it. */
static bool yahoo_is_closing_print(const YahooNow *now, const Row *last)
{
    return now->has_market_time &&
           last->ts_usec == (now->market_time - now->market_time % 60) * (int64_t)SECOND &&
           amount_is_zero(&last->volume) && amount_equal(&last->open, &last->close) &&
           amount_equal(&last->high, &last->low) && amount_equal(&last->high, &last->close);
}

/* The first row of a new day, week or month, as the source will stamp it once it has more of it. */
static void yahoo_open_of(const YahooNow *now, const Interval *interval, Row *last)
{
    int32_t date = last->trade_date;
    int year;
    unsigned month, day;

    if (interval->count != 1 || interval->unit == INTERVAL_DAY) {
        last->ts_usec = now->start * (int64_t)SECOND;
        return;
    }
    if (interval->unit == INTERVAL_WEEK) {
        date -= ((date + 3) % 7 + 7) % 7;
    } else {
        civil_from_days(date, &year, &month, &day);
        date -= (int32_t)day - 1;
    }
    last->trade_date = date;
    last->ts_usec = zone_to_utc(now->zone, (int64_t)date * 86400) * (int64_t)SECOND;
}

/* Today's bar comes as one more row, stamped with the last trade and not with the bar's open; often
 * the bar itself stands before it. It becomes that bar: its open instant, the newer values. */
static void yahoo_merge_live(RowsContext *context, const YahooNow *now, const Interval *interval)
{
    RowSet *set = context->set;
    Row *last, *before;
    int64_t bar_usec = (int64_t)interval_usec(interval);
    bool intraday = interval_is_intraday(interval);

    last = &set->rows[set->n - 1];
    before = set->n - 1 > context->first ? last - 1 : NULL;

    if (intraday) {
        bool inside =
            before && before->ts_usec < last->ts_usec && before->ts_usec + bar_usec > last->ts_usec;
        bool closed = yahoo_is_closing_print(now, last);

        /* The last trade can be of a whole minute, too; a bar begins where the one before ends. */
        if (last->ts_usec % (int64_t)MINUTE == 0 && !inside) {
            if (closed)
                last->is_final = false;
            return;
        }
        if (inside) {
            /* The bar it belongs to is there and has its true open, high and low. */
            if (!closed)
                before->is_final = false;
            rows_remove(context, set->n - 1);
            context->dropped++;
        } else {
            /* The first of a day: bars are counted from the opening, often at half past. */
            int64_t opening = now->has_session ? now->start * (int64_t)SECOND : 0;
            int64_t base = before ? before->ts_usec : opening <= last->ts_usec ? opening : 0;

            last->ts_usec = base + (last->ts_usec - base) / bar_usec * bar_usec;
            last->is_final = false;
        }
        return;
    }
    if (!now->has_market_time || last->ts_usec != now->market_time * (int64_t)SECOND)
        return;
    if (before && row_end_usec(context->recipe, before) > last->ts_usec) {
        /* The same day, week or month. Of a day the later row has the right volume; of a week or
         * month it is only its last day. */
        if (interval->unit == INTERVAL_DAY) {
            last->ts_usec = before->ts_usec;
            last->trade_date = before->trade_date;
            *before = *last;
        }
        rows_remove(context, set->n - 1);
        context->dropped++;
    } else if (now->has_session && now->session_date == last->trade_date)
        yahoo_open_of(now, interval, last);
}

/* A bar of the session that was on when the reply was made is not final, however late it is read.
 */
static void yahoo_mark_live(RowsContext *context, const YahooNow *now, const Interval *interval)
{
    RowSet *set = context->set;
    Row *last;
    int64_t end_usec;

    if (set->n == context->first || !now->has_session || !now->has_market_time)
        return;
    last = &set->rows[set->n - 1];
    if (last->kind != ROW_BAR || interval_is_intraday(interval))
        return;
    end_usec = row_end_usec(context->recipe, last);
    if (interval->unit == INTERVAL_DAY
            ? now->session_date == last->trade_date && now->market_time < now->end
            : end_usec > now->start * (int64_t)SECOND)
        last->is_final = false;
}

/* Rows at or after the end that was asked for are the live bar, appended whatever was asked. */
static void yahoo_cut_range(RowsContext *context)
{
    RowSet *set = context->set;

    while (set->n > context->first + 1 && set->rows[set->n - 1].kind == ROW_BAR &&
           set->rows[set->n - 1].ts_usec >= context->request->to_usec) {
        set->n--;
        context->dropped++;
    }
}

/* Minutes before and after the regular session come although nobody asked. Local times of day are
 * compared, as the head knows only today's session and the rows are of many days. */
static void yahoo_name_sessions(RowsContext *context, const YahooNow *now, bool intraday)
{
    int32_t start, end, second;

    if (!now->has_session)
        return;
    start = zone_second_of_day(now->zone, now->start * (int64_t)SECOND);
    end = start + (int32_t)MIN_OF(now->end - now->start, INT64_C(86400));
    for (size_t i = context->first; i < context->set->n; i++) {
        Row *row = &context->set->rows[i];

        if (row->kind != ROW_BAR)
            continue;
        row->session = SESSION_REGULAR;
        if (!intraday || !now->has_extended)
            continue;
        second = zone_second_of_day(now->zone, row->ts_usec);
        if (second < start && now->pre_start < now->start)
            row->session = SESSION_PRE;
        else if (second > end &&
                 now->post_end > now->end) /* the closing auction is printed at `end` */
            row->session = SESSION_POST;
    }
}

/* Half hours are known to be answered with hours under their own name. */
static bool yahoo_bars_are_wider(const RowsContext *context, const Interval *interval)
{
    const RowSet *set = context->set;
    int64_t bar_usec = (int64_t)interval_usec(interval);
    size_t gaps = 0;

    if (bar_usec != 30 * (int64_t)MINUTE)
        return false;
    for (size_t i = context->first + 1; i < set->n && set->rows[i].kind == ROW_BAR; i++, gaps++)
        if (set->rows[i].ts_usec - set->rows[i - 1].ts_usec < 2 * bar_usec)
            return false;
    return gaps >= 5;
}

static int yahoo_live(RowsContext *context)
{
    RowSet *set = context->set;
    size_t events = 0;
    Interval interval;
    YahooNow now;
    auto_free Row *kept = NULL;

    if (set->n == context->first ||
        interval_parse(set->rows[context->first].interval, &interval) < 0 ||
        set->rows[context->first].kind != ROW_BAR)
        return 1;
    if (yahoo_bars_are_wider(context, &interval))
        return document_refuse(context->doc, "asked for bars of %s, the reply has wider ones",
                               set->rows[context->first].interval);
    now = yahoo_now(context, &set->rows[context->first]);
    if (!now.zone)
        return 1;

    /* Bars come first; events are put aside while the last bar is looked at. */
    while (set->rows[set->n - 1 - events].kind != ROW_BAR)
        events++;
    if (events > 0) {
        kept = reallocarray(NULL, events, sizeof(*kept));
        if (!kept)
            return -ENOMEM;
        memcpy(kept, &set->rows[set->n - events], events * sizeof(*kept));
        set->n -= events;
    }
    yahoo_merge_live(context, &now, &interval);
    yahoo_cut_range(context);
    yahoo_mark_live(context, &now, &interval);
    yahoo_name_sessions(context, &now, interval_is_intraday(&interval));
    if (events > 0) {
        /* The set never shrinks its memory, so there is room. */
        memcpy(&set->rows[set->n], kept, events * sizeof(*kept));
        set->n += events;
    }
    return 1;
}

/* --- Naver ---------------------------------------------------------------------------------------
 */

/* No pause of the market was longer: Chuseok or the New Year between two weekends. */
#define NAVER_LONGEST_PAUSE_DAYS 12

static int64_t newest_ts(const RowsContext *context)
{
    int64_t newest = INT64_MIN;

    for (size_t i = context->first; i < context->set->n; i++)
        newest = MAX_OF(newest, context->set->rows[i].ts_usec);
    return newest;
}

/* Since the alternative venue opened, the close of the last trading day is overwritten by
 * after-hours trades while open, high, low and volume stay those of the regular session. So a bar
 * is final when the next trading day has come, which a later bar proves; no list of holidays is
 * asked, as none knows next year's. The last bar of a share that is traded no more is final after
 * the longest pause. A close outside of [low, high] tells that it is of both sessions; it is never
 * clamped. */
static int naver_after_hours(RowsContext *context)
{
    RowSet *set = context->set;
    const Zone *zone = NULL;
    int64_t newest;
    int32_t today;

    if (set->n == context->first || !set->rows[context->first].tz ||
        zone_get(set->rows[context->first].tz, &zone, NULL) < 0)
        return 1;
    today = zone_date(zone, context->request->now_usec);
    newest = newest_ts(context);
    for (size_t i = context->first; i < set->n; i++) {
        Row *row = &set->rows[i];
        bool is_newest = row->ts_usec == newest;

        if (today <= row->trade_date ||
            (is_newest && today < row->trade_date + NAVER_LONGEST_PAUSE_DAYS))
            row->is_final = false;
        if (row->close.present && row->high.present && row->low.present &&
            (amount_compare(&row->close, &row->high) > 0 ||
             amount_compare(&row->close, &row->low) < 0))
            row->session = SESSION_COMBINED;
        else
            continue;
        /* Of the newest bar it is proof, whenever the reply is read; old ones, adjusted for splits,
         * may be odd by a won, and will not change any more. */
        if (is_newest)
            row->is_final = false;
    }
    return 1;
}

static const Fixup fixups[] = {
    {"yahoo-live", yahoo_live},
    {"naver-after-hours", naver_after_hours},
};

const Fixup *fixup_find(const char *name)
{
    for (size_t i = 0; i < ELEMENTS(fixups); i++)
        if (streq(fixups[i].name, name))
            return &fixups[i];
    return NULL;
}
