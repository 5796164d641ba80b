/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentd/notify.h"

#include <assert.h>
#include <errno.h>

#include "agent/base/backoff.h"
#include "agent/base/list.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/io/loop.h"

#define MESSAGE_MAX (32U << 10)
#define LINE_MAX    2000 /* of one event's own sentence */

typedef struct EventText {
    const char *message_id, *subject, *remedy;
} EventText;

/* Made from the catalogs of the journal: event_texts_en, event_texts_ko. */
#include "agent/agentd/event-texts.h"

/* ---- Texts ---- */

static const struct {
    const EventText *texts;
    size_t n;
    const char *remedy, *more;
} languages[] = {
    [PLAN_LOCALE_EN] = {event_texts_en, ELEMENTS(event_texts_en), "Remedy", "not shown"},
    [PLAN_LOCALE_KO] = {event_texts_ko, ELEMENTS(event_texts_ko), "해결 방법", "생략된 이벤트"},
};

void notify_texts(const char *message_id, PlanLocale locale, const char **ret_subject,
                  const char **ret_remedy)
{
    *ret_subject = *ret_remedy = "";
    for (size_t i = 0; message_id && i < languages[locale].n; i++)
        if (streq(languages[locale].texts[i].message_id, message_id)) {
            *ret_subject = languages[locale].texts[i].subject;
            *ret_remedy = languages[locale].texts[i].remedy;
        }
}

/* What the receiver would read as markup is told as text. */
static int add_escaped(Buf *message, const char *text)
{
    int r = 0;

    /* The character that the limit falls into is told whole: JSON takes UTF-8 alone. */
    for (size_t n = 0; r >= 0 && *text && (n < LINE_MAX || ((unsigned char)*text & 0xc0) == 0x80);
         text++, n++) {
        if (*text == '&')
            r = buf_add_str(message, "&amp;");
        else if (*text == '<')
            r = buf_add_str(message, "&lt;");
        else if (*text == '>')
            r = buf_add_str(message, "&gt;");
        else
            r = buf_add_char(message, *text);
    }
    return r;
}

char *notify_line(PlanLocale locale, const char *message_id, const char *text)
{
    const char *subject, *remedy;
    auto_buf Buf line = BUF_INIT(MESSAGE_MAX);
    int r;

    notify_texts(message_id, locale, &subject, &remedy);
    r = buf_add_str(&line, "• ");
    if (r >= 0 && *subject)
        r = add_escaped(&line, subject);
    if (r >= 0 && *subject)
        r = buf_add_str(&line, "\n    ");
    if (r >= 0)
        r = add_escaped(&line, text);
    if (r >= 0 && *remedy)
        r = buf_printf(&line, "\n    %s: ", languages[locale].remedy);
    if (r >= 0)
        r = add_escaped(&line, remedy);
    if (r >= 0)
        r = buf_add_char(&line, '\n');
    return r < 0 ? NULL : buf_take(&line);
}

/* ---- One address ---- */

typedef struct Target Target;
struct Target {
    LIST_FIELDS(Target, targets);
    Notifier *notifier;
    char *secret, *version; /* as the cloud calls them */
    char **on;              /* NULL: what a person should act on */

    char **waiting; /* lines, oldest first */
    unsigned dropped;
    size_t n_sending; /* of `waiting`, in the message that is under way */
    uint64_t sent_at; /* boot time; 0 never */
    Backoff backoff;
    bool complained;
    Timer *timer;
    CloudOp *fetch;
    HttpOp *post;
};

struct Notifier {
    sd_event *event;
    HttpClient *http;
    Cloud *cloud;
    PlanLocale locale;
    Target *targets;
};

static void target_free(Target *target)
{
    cloud_op_free(target->fetch);
    http_op_free(target->post);
    timer_free(target->timer);
    free(target->secret);
    free(target->version);
    strv_free(target->on);
    strv_free(target->waiting);
    free(target);
}

/* Not sooner than half a minute after the last message; never sooner than it was set to. */
static void send_in(Target *target, uint64_t delay_usec)
{
    uint64_t now = now_boottime_usec(), next = usec_add(target->sent_at, NOTIFY_PAUSE_USEC);

    if (target->sent_at > 0 && next > now && next - now > delay_usec)
        delay_usec = next - now;
    (void)timer_set(target->timer, delay_usec, 0);
}

static void forget_first(Target *target, size_t n)
{
    size_t length = strv_length(target->waiting);

    n = MIN_OF(n, length);
    for (size_t i = 0; i < n; i++)
        free(target->waiting[i]);
    if (length > 0)
        memmove(target->waiting, target->waiting + n, (length - n + 1) * sizeof(char *));
}

static void failed(Target *target, const Error *err)
{
    uint64_t delay = backoff_next(&target->backoff, err->retry_after_usec);

    target->n_sending = 0;
    if (!target->complained)
        log_failure(LOG_LEVEL_WARNING, NULL, err, "the notification waits, retrying");
    target->complained = true;
    (void)timer_set(target->timer, delay, SECOND);
}

static void on_posted(HttpOp *op, const HttpResponse *response, const Error *err, void *userdata)
{
    Target *target = userdata;
    auto_error Error failure = {0};

    /* The answer's own words may quote the address: only its status is told. */
    if (err)
        (void)error_copy(&failure, err);
    else if (response->status < 200 || response->status > 299)
        (void)error_set(&failure, -EBADMSG, ERROR_TEMPORARY, "notification: HTTP %ld",
                        response->status);
    if (failure.code < 0) {
        failure.retry_after_usec = response ? response->retry_after_usec : 0;
        failed(target, &failure);
        return;
    }
    if (target->complained)
        log_notice("notifications are sent again");
    target->complained = false;
    backoff_reset(&target->backoff);
    forget_first(target, target->n_sending);
    target->n_sending = 0;
    target->dropped = 0;
    target->sent_at = now_boottime_usec();
    if (strv_length(target->waiting) > 0)
        send_in(target, NOTIFY_GATHER_USEC);
}

/* {"text": "*vm-1* (asia-northeast3-a)\n…"} */
static char *message_of(Target *target)
{
    const CloudIdentity *identity = cloud_identity_peek(target->notifier->cloud);
    auto_buf Buf text = BUF_INIT(MESSAGE_MAX);
    json_auto_t *message = NULL;
    size_t n = 0;
    int r;

    r = buf_printf(&text, "*%s*%s%s%s\n", identity ? identity->name : "mervis-agent",
                   identity && !str_is_empty(identity->zone) ? " (" : "",
                   identity ? identity->zone : "",
                   identity && !str_is_empty(identity->zone) ? ")" : "");
    if (r >= 0 && target->dropped > 0)
        r = buf_printf(&text, "(%s: %u)\n", languages[target->notifier->locale].more,
                       target->dropped);
    STRV_FOREACH (line, target->waiting) {
        if (r < 0 || text.size + strlen(*line) + 1 > MESSAGE_MAX / 2)
            break;
        r = buf_add_str(&text, *line);
        n++;
    }
    target->n_sending = n;
    message = r < 0 ? NULL : json_pack("{s:s}", "text", buf_str(&text));
    return message ? json_text(message, false) : NULL;
}

static int post(Target *target, const char *url, Error *err)
{
    static const HttpHeader headers[] = {{"Content-Type", "application/json; charset=utf-8"}};
    auto_free char *message = message_of(target);
    HttpRequest request = {.url = url,
                           .headers = headers,
                           .n_headers = ELEMENTS(headers),
                           .body = message,
                           .body_size = message ? strlen(message) : 0,
                           .copy_body = true,
                           .try_timeout_usec = NOTIFY_TIMEOUT_USEC};

    if (!message)
        return error_oom(err);
    target->post = http_op_free(target->post);
    return http_start(target->notifier->http, &request, on_posted, target, &target->post, err);
}

static void on_url(CloudSecret *secret, const Error *err, void *userdata)
{
    Target *target = userdata;
    auto_(cleanse_freep) char *url = NULL;
    auto_error Error failure = {0};

    if (err)
        (void)error_copy(&failure, err);
    else
        url = strndup(secret->bytes->data, secret->bytes->size);
    target->fetch = cloud_op_free(target->fetch);
    if (!err && !url)
        (void)error_oom(&failure);
    if (url && post(target, str_strip(url), &failure) >= 0)
        return;
    (void)error_prefix(&failure, failure.code, "notification");
    failed(target, &failure);
}

static void send_now(void *userdata)
{
    Target *target = userdata;
    auto_error Error err = {0};

    if (strv_length(target->waiting) == 0 || target->n_sending > 0 || target->fetch)
        return;
    if (cloud_secret_fetch(target->notifier->cloud, target->secret, target->version, on_url, target,
                           &target->fetch, &err) < 0)
        failed(target, &err);
}

/* ---- All of them ---- */

int notifier_new(sd_event *event, HttpClient *http, Cloud *cloud, Notifier **ret, Error *err)
{
    Notifier *notifier = calloc(1, sizeof(*notifier));

    assert(event && http && cloud && ret);

    if (!notifier)
        return error_oom(err);
    *notifier = (Notifier){.event = sd_event_ref(event), .http = http, .cloud = cloud};
    *ret = notifier;
    return 0;
}

static void free_targets(Target *targets)
{
    LIST_FOREACH_SAFE (targets, target, targets)
        target_free(target);
}

Notifier *notifier_free(Notifier *notifier)
{
    if (!notifier)
        return NULL;
    free_targets(notifier->targets);
    sd_event_unref(notifier->event);
    free(notifier);
    return NULL;
}

static int add_target(Notifier *notifier, const PlanSecret *secret, const PlanNotify *notify,
                      Target **targets)
{
    Target *target = calloc(1, sizeof(*target));

    if (!target)
        return -ENOMEM;
    *target = (Target){.notifier = notifier,
                       .secret = strdup(secret->secret),
                       .version = strdup(secret->version),
                       .on = strv_length(notify->on) > 0 ? strv_copy(notify->on) : NULL,
                       .backoff = {.base_usec = SECOND, .cap_usec = NOTIFY_RETRY_CAP}};
    LIST_APPEND(targets, *targets, target);
    if (!target->secret || !target->version || (strv_length(notify->on) > 0 && !target->on) ||
        timer_new(notifier->event, send_now, target, &target->timer) < 0)
        return -ENOMEM;
    return 0;
}

/* Of the target before, for the same secret: what it has not sent, and when it last did. */
static void inherit(Target *target, Target *from)
{
    target->waiting = take_ptr(from->waiting);
    target->dropped = from->dropped;
    target->sent_at = from->sent_at;
    if (strv_length(target->waiting) > 0)
        send_in(target, NOTIFY_GATHER_USEC);
}

int notifier_set_plan(Notifier *notifier, const Plan *plan, Error *err)
{
    Target *targets = NULL, *former = notifier->targets;

    PLAN_FOREACH (PlanNotify, notify, plan->notify) {
        const PlanSecret *secret = plan_secret(plan, notify->secret);

        if (secret && add_target(notifier, secret, notify, &targets) < 0) {
            free_targets(targets);
            return error_oom(err);
        }
    }
    LIST_FOREACH (targets, target, targets)
        LIST_FOREACH (targets, old, former)
            if (!target->waiting && streq(old->secret, target->secret))
                inherit(target, old);
    free_targets(former);
    notifier->targets = targets;
    notifier->locale = (PlanLocale)plan->locale;
    return 0;
}

static void enqueue(Target *target, const char *line, uint64_t delay_usec)
{
    /* What is under way stays: it is forgotten when it has arrived. */
    if (strv_length(target->waiting) >= NOTIFY_WAITING_MAX && target->n_sending == 0) {
        forget_first(target, 1);
        target->dropped++;
    }
    if (strv_length(target->waiting) >= 2 * NOTIFY_WAITING_MAX ||
        strv_push(&target->waiting, line) < 0) {
        target->dropped++;
        return;
    }
    if (target->complained || target->n_sending > 0 || target->fetch)
        return; /* it is tried again, or goes on, by itself */
    if (delay_usec == 0)
        (void)timer_set(target->timer, 0, 0);
    else if (!timer_is_set(target->timer))
        send_in(target, delay_usec);
}

void notifier_event(Notifier *notifier, LogLevel level, const char *event, const char *message_id,
                    const char *text)
{
    auto_free char *line = NULL;

    if (!notifier)
        return;
    LIST_FOREACH (targets, target, notifier->targets) {
        bool wanted = target->on ? strv_contains(target->on, event) : level <= LOG_LEVEL_WARNING;

        if (!wanted)
            continue;
        if (!line)
            line = notify_line(notifier->locale, message_id, text);
        /* A machine that is taken back has seconds. */
        if (line)
            enqueue(target, line, streq(event, "preempted") ? 0 : NOTIFY_GATHER_USEC);
    }
}
