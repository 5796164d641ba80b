/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/crawlerd/events.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "agent/base/str.h"

/* clang-format off */
const CrawlEventKind crawl_event_kinds[] = {
    {"spool-full", "5ec48a7eae434bc2a5a3e5fb5ae37918"},
    {"spool-has-room", "ea6556354ca8492793adca81c7947846"},
    {"spool-lost", "21bc7694435946c18918b0d52e49cfc2"},
    {"spool-back", "9cbd53bc4c004b0aa6508c43edd50da2"},
    {"spool-rebuilt", "56dddca922cc4f9ba7e6bab61e6c7465"},
    {"document-refused", "ed15fd8f5007439b82a7808d602c05f3"},
    {"fetch-failed", "66da5610d37d45309d3e575db344160d"},
    {"egress-shut", "aadfc3f1df7f4abbb70edad805b198d2"},
    {"delivery-failed", "877f0c2c7b2e45b488c1b98a904e1479"},
    {"delivery-back", "890fa324c8534f23a6d59000f0b5d9d0"},
    {"other-writer", "3bda9fa8f9874891bede23850833bc91"},
    {"other-writer-gone", "e389f2e9a2074e358c91a6d70d743031"},
    {"crawl-refused", "27a1694127d14b5580c8005d11101ed2"},
};
/* clang-format on */

const size_t n_crawl_event_kinds = ELEMENTS(crawl_event_kinds);

static const char *message_id(const char *event)
{
    for (size_t i = 0; i < n_crawl_event_kinds; i++)
        if (streq(crawl_event_kinds[i].name, event))
            return crawl_event_kinds[i].message_id;
    return NULL;
}

static int push_field(char ***fields, const char *name, const char *value)
{
    auto_free char *field = value ? str_printf("%s=%s", name, value) : NULL;

    if (!value)
        return 0;
    return field ? strv_push(fields, field) : -1;
}

static CrawlEventListener event_listener;
static void *event_userdata;

void crawl_event_listen(CrawlEventListener listener, void *userdata)
{
    event_listener = listener;
    event_userdata = userdata;
}

void crawl_event(LogLevel level, const char *event, const CrawlEventSubject *subject,
                 const char *format, ...)
{
    static const CrawlEventSubject nothing;
    auto_(strv_freep) char **fields = NULL;
    auto_free char *text = NULL;
    va_list args;
    int n;

    assert(event && format);

    if (!subject)
        subject = &nothing;
    va_start(args, format);
    n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0)
        text = NULL;
    /* A record with fewer fields is better than none. */
    (void)!push_field(&fields, "MESSAGE_ID", message_id(event));
    (void)!push_field(&fields, "MERVIS_EVENT", event);
    (void)!push_field(&fields, "MERVIS_JOB", subject->job);
    (void)!push_field(&fields, "MERVIS_RECIPE", subject->recipe);
    (void)!push_field(&fields, "MERVIS_BATCH", subject->batch);
    (void)!push_field(&fields, "ERROR_KIND",
                      subject->err ? error_kind_name(subject->err->kind) : NULL);
    log_fields(level, (const char *const *)fields, "%s", text ? text : event);
    if (event_listener)
        event_listener(level, event, message_id(event), text ? text : event, event_userdata);
}

/* ---- The same again ---- */

static Repeat *find_repeat(RepeatLog *log, const char *key)
{
    Repeat *oldest = log->items;

    for (size_t i = 0; i < REPEATS_MAX; i++) {
        if (streq(log->items[i].key, key))
            return log->items + i;
        if (log->items[i].said_at < oldest->said_at)
            oldest = log->items + i;
    }
    *oldest = (Repeat){0};
    (void)snprintf(oldest->key, sizeof(oldest->key), "%s", key);
    return oldest;
}

bool repeat_is_to_be_said(RepeatLog *log, const char *event, const char *subject, uint64_t now_usec,
                          unsigned *ret_more)
{
    char key[sizeof(log->items[0].key)];
    Repeat *repeat;

    assert(log && event && subject && ret_more);

    (void)snprintf(key, sizeof(key), "%s %s", event, subject);
    repeat = find_repeat(log, key);
    if (repeat->said_at > 0 && now_usec - repeat->said_at < REPEAT_PAUSE_USEC) {
        repeat->more++;
        return false;
    }
    *ret_more = repeat->more;
    repeat->more = 0;
    repeat->said_at = MAX_OF(now_usec, UINT64_C(1));
    return true;
}
