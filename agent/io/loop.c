/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "agent/io/loop.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "agent/base/time.h"

/* Each arming of the clock is a system call, so that a timer that is put off a little stays armed
 * for its former time and looks then what it was put off to. By more than this it is armed anew: an
 * idle machine is not woken for nothing. */
#define EARLY_USEC SECOND

struct Timer {
    sd_event_source *source; /* may be armed for earlier than `at_usec` */
    uint64_t at_usec;        /* USEC_INFINITY: not set */
    uint64_t accuracy_usec, armed_accuracy_usec;
    TimerHandler handler;
    void *userdata;
};

typedef struct SignalWatch {
    LoopSignalHandler handler;
    void *userdata;
} SignalWatch;

int loop_new(sd_event **ret, Error *err)
{
    sd_event *event = NULL;
    int r;

    assert(ret);

    r = sd_event_new(&event);
    if (r < 0)
        return error_errno(err, r, "event loop");

    *ret = event;
    return 0;
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    const SignalWatch *watch = userdata;

    watch->handler((int)info->ssi_signo, watch->userdata);
    return 0;
}

static int watch_signal(sd_event *event, int signal_number, const SignalWatch *watch)
{
    auto_(sd_event_source_unrefp) sd_event_source *source = NULL;
    auto_free SignalWatch *copy = NULL;
    int r;

    copy = malloc(sizeof(*copy));
    if (!copy)
        return -ENOMEM;
    *copy = *watch;

    r = sd_event_add_signal(event, &source, signal_number, on_signal, copy);
    if (r < 0)
        return r;

    r = sd_event_source_set_destroy_callback(source, free);
    if (r < 0)
        return r;
    (void)take_ptr(copy);

    /* The loop keeps it from here on: signals are watched for as long as there is a loop. */
    return sd_event_source_set_floating(source, 1);
}

int loop_watch_signals(sd_event *event, LoopSignalHandler handler, void *userdata, Error *err)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    const SignalWatch watch = {.handler = handler, .userdata = userdata};
    sigset_t set;
    int r;

    assert(event && handler);

    (void)sigemptyset(&set);
    for (size_t i = 0; i < ELEMENTS(signals); i++)
        (void)sigaddset(&set, signals[i]);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return error_errno(err, errno, "block signals");

    for (size_t i = 0; i < ELEMENTS(signals); i++) {
        r = watch_signal(event, signals[i], &watch);
        if (r < 0)
            return error_errno(err, r, "watch signal %d", signals[i]);
    }
    return 0;
}

/* --- Timers --------------------------------------------------------------------------------- */

static int timer_arm(Timer *timer)
{
    int r = sd_event_source_set_time(timer->source, timer->at_usec);

    if (r >= 0)
        r = sd_event_source_set_time_accuracy(timer->source, timer->accuracy_usec);
    if (r >= 0)
        r = sd_event_source_set_enabled(timer->source, SD_EVENT_ONESHOT);
    timer->armed_accuracy_usec = timer->accuracy_usec;
    if (r < 0)
        timer->at_usec = USEC_INFINITY; /* not set */
    return r;
}

static int on_time(sd_event_source *source, uint64_t usec, void *userdata)
{
    Timer *timer = userdata;

    if (timer->at_usec > now_boottime_usec())
        return timer_arm(timer);
    timer->at_usec = USEC_INFINITY;
    /* Nothing of the timer may be touched after this: the handler may have freed it. */
    timer->handler(timer->userdata);
    return 0;
}

int timer_new(sd_event *event, TimerHandler handler, void *userdata, Timer **ret)
{
    auto_(timer_freep) Timer *timer = NULL;
    int r;

    assert(event && handler && ret);

    timer = calloc(1, sizeof(*timer));
    if (!timer)
        return -ENOMEM;
    timer->at_usec = USEC_INFINITY;
    timer->handler = handler;
    timer->userdata = userdata;

    r = sd_event_add_time(event, &timer->source, CLOCK_BOOTTIME, USEC_INFINITY, MSEC, on_time,
                          timer);
    if (r >= 0)
        r = sd_event_source_set_enabled(timer->source, SD_EVENT_OFF);
    if (r < 0)
        return r;

    *ret = take_ptr(timer);
    return 0;
}

int timer_set(Timer *timer, uint64_t delay_usec, uint64_t accuracy_usec)
{
    uint64_t armed_usec = 0;

    assert(timer);

    if (delay_usec == USEC_INFINITY) {
        timer_cancel(timer);
        return 0;
    }
    /* From the clock itself, not from the loop's idea of now, which stands still in a callback. */
    timer->at_usec = usec_add(now_boottime_usec(), delay_usec);
    /* "At once" is no reason to sleep for the rest of a millisecond; 0 would be systemd's 250 ms.
     */
    timer->accuracy_usec = accuracy_usec ? accuracy_usec : delay_usec == 0 ? 1 : MSEC;
    if (sd_event_source_get_enabled(timer->source, NULL) > 0 &&
        timer->armed_accuracy_usec <= timer->accuracy_usec &&
        sd_event_source_get_time(timer->source, &armed_usec) >= 0 && armed_usec <= timer->at_usec &&
        timer->at_usec - armed_usec <= EARLY_USEC)
        return 0;
    return timer_arm(timer);
}

void timer_cancel(Timer *timer)
{
    if (!timer)
        return;
    (void)sd_event_source_set_enabled(timer->source, SD_EVENT_OFF);
    timer->at_usec = USEC_INFINITY;
}

bool timer_is_set(const Timer *timer)
{
    return timer && timer->at_usec != USEC_INFINITY;
}

uint64_t timer_left_usec(const Timer *timer)
{
    uint64_t now = now_boottime_usec();

    if (!timer_is_set(timer))
        return USEC_INFINITY;
    return timer->at_usec > now ? timer->at_usec - now : 0;
}

Timer *timer_free(Timer *timer)
{
    if (!timer)
        return NULL;

    (void)sd_event_source_disable_unref(timer->source);
    free(timer);
    return NULL;
}
