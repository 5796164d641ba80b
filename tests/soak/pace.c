/* SPDX-License-Identifier: Apache-2.0 */

/* Preloaded into a program, this makes all of its clocks go so many times as fast, and its waits so
 * many times as short: an hour of the program is then a matter of a minute.
 *
 *     MERVIS_PACE="FACTOR BOOTTIME MONOTONIC REALTIME STEP"
 *
 * The three are each clock's reading, in nanoseconds, at which it began to go faster: processes
 * that are given the same words agree on the time, whenever they start. STEP is added to the wall
 * clock, so that a run can begin at any hour of the day. libfaketime does not serve: it takes the
 * instant of an absolute timerfd for one of the wall clock, and sd-event sets CLOCK_BOOTTIME's by
 * nothing else. */

#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <dlfcn.h>
#include <pthread.h>

#define NSEC    INT64_C(1000000000)
#define FDS_MAX 4096

typedef enum Clock { BOOTTIME, MONOTONIC, REALTIME, CLOCKS } Clock;

static int64_t factor = 1, base[CLOCKS], step;
static unsigned char timer_clocks[FDS_MAX]; /* by descriptor: a Clock */

__attribute__((constructor)) static void pace_begin(void)
{
    const char *at = getenv("MERVIS_PACE");
    int64_t words[CLOCKS + 2] = {0};
    size_t n = 0;
    char *end;

    for (; at && n < CLOCKS + 2; n++, at = end) {
        words[n] = strtoll(at, &end, 10);
        if (end == at)
            break;
    }
    if (n < CLOCKS + 2 || words[0] < 1) {
        (void)fprintf(stderr,
                      "pace: MERVIS_PACE is not \"FACTOR BOOTTIME MONOTONIC REALTIME STEP\"\n");
        _exit(EXIT_FAILURE);
    }
    factor = words[0];
    for (size_t i = 0; i < CLOCKS; i++)
        base[i] = words[1 + i];
    step = words[CLOCKS + 1];
}

/* --- From real to told, and back
 * ------------------------------------------------------------------ */

static int clock_kind(clockid_t id, Clock *ret)
{
    switch (id) {
    case CLOCK_BOOTTIME:
        *ret = BOOTTIME;
        return 1;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
        *ret = MONOTONIC;
        return 1;
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
        *ret = REALTIME;
        return 1;
    default: /* CPU time is what it is */
        return 0;
    }
}

static int64_t to_nsec(const struct timespec *at)
{
    return at->tv_sec * NSEC + at->tv_nsec;
}

static struct timespec to_timespec(int64_t nsec)
{
    return (struct timespec){.tv_sec = nsec / NSEC, .tv_nsec = nsec % NSEC};
}

static int64_t told(Clock clock, int64_t real)
{
    return base[clock] + (real - base[clock]) * factor + (clock == REALTIME ? step : 0);
}

/* Rounded up: a wait may end late, and never before its time. */
static int64_t real_span(int64_t span)
{
    return (span + factor - 1) / factor;
}

static int64_t real_instant(Clock clock, const struct timespec *at)
{
    int64_t since = to_nsec(at) - base[clock] - (clock == REALTIME ? step : 0);

    return since <= 0 ? 1 : base[clock] + real_span(since);
}

static void *next_of(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    if (!found)
        abort();
    return found;
}

#define NEXT(name, variable)                                                                       \
    static __typeof__(&(name)) variable;                                                           \
    if (!(variable))                                                                               \
    (variable) = (__typeof__(&(name)))next_of(#name)

/* --- Clocks
 * --------------------------------------------------------------------------------------- */

int clock_gettime(clockid_t id, struct timespec *ret)
{
    Clock clock;
    int r = (int)syscall(SYS_clock_gettime, id, ret);

    if (r == 0 && clock_kind(id, &clock))
        *ret = to_timespec(told(clock, to_nsec(ret)));
    return r;
}

int gettimeofday(struct timeval *restrict ret, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    *ret = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *ret)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (ret)
        *ret = now.tv_sec;
    return now.tv_sec;
}

/* --- Timers
 * --------------------------------------------------------------------------------------- */

int timerfd_create(clockid_t id, int flags)
{
    NEXT(timerfd_create, next);
    Clock clock = REALTIME;
    int fd = next(id, flags);

    (void)clock_kind(id, &clock);
    if (fd >= FDS_MAX)
        abort();
    if (fd >= 0)
        timer_clocks[fd] = (unsigned char)clock;
    return fd;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *timer, struct itimerspec *old)
{
    NEXT(timerfd_settime, next);
    struct itimerspec real = {.it_interval = to_timespec(real_span(to_nsec(&timer->it_interval)))};

    if (fd < 0 || fd >= FDS_MAX) {
        errno = EBADF;
        return -1;
    }
    if (to_nsec(&timer->it_value) > 0)
        real.it_value =
            to_timespec(flags & TFD_TIMER_ABSTIME ? real_instant(timer_clocks[fd], &timer->it_value)
                                                  : real_span(to_nsec(&timer->it_value)));
    return next(fd, flags, &real, old);
}

/* --- Waits
 * ---------------------------------------------------------------------------------------- */

static const struct timespec *shorter(const struct timespec *wait, struct timespec *buffer)
{
    if (!wait)
        return NULL;
    *buffer = to_timespec(real_span(to_nsec(wait)));
    return buffer;
}

static int shorter_msec(int msec)
{
    return msec <= 0 ? msec : (int)real_span(msec);
}

int epoll_wait(int fd, struct epoll_event *events, int n, int msec)
{
    NEXT(epoll_wait, next);
    return next(fd, events, n, shorter_msec(msec));
}

int epoll_pwait(int fd, struct epoll_event *events, int n, int msec, const sigset_t *mask)
{
    NEXT(epoll_pwait, next);
    return next(fd, events, n, shorter_msec(msec), mask);
}

int epoll_pwait2(int fd, struct epoll_event *events, int n, const struct timespec *wait,
                 const sigset_t *mask)
{
    NEXT(epoll_pwait2, next);
    struct timespec real;

    return next(fd, events, n, shorter(wait, &real), mask);
}

int poll(struct pollfd *fds, nfds_t n, int msec)
{
    NEXT(poll, next);
    return next(fds, n, shorter_msec(msec));
}

int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *wait, const sigset_t *mask)
{
    NEXT(ppoll, next);
    struct timespec real;

    return next(fds, n, shorter(wait, &real), mask);
}

/* What is left of a sleep that a signal cut short is real time, too: nobody here looks at it. */
int nanosleep(const struct timespec *wait, struct timespec *left)
{
    NEXT(nanosleep, next);
    struct timespec real;

    return next(shorter(wait, &real), left);
}

int clock_nanosleep(clockid_t id, int flags, const struct timespec *wait, struct timespec *left)
{
    NEXT(clock_nanosleep, next);
    struct timespec real = to_timespec(real_span(to_nsec(wait)));
    Clock clock;

    if (flags & TIMER_ABSTIME && clock_kind(id, &clock))
        real = to_timespec(real_instant(clock, wait));
    return next(id, flags, &real, left);
}

int sem_clockwait(sem_t *restrict semaphore, clockid_t id, const struct timespec *restrict until)
{
    NEXT(sem_clockwait, next);
    struct timespec real = *until;
    Clock clock;

    if (clock_kind(id, &clock))
        real = to_timespec(real_instant(clock, until));
    return next(semaphore, id, &real);
}

/* Which clock a condition goes by is told by the instant: no machine has been up for thirty years.
 */
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    static __typeof__(&pthread_cond_timedwait) next;
    struct timespec real =
        to_timespec(real_instant(until->tv_sec > 1000000000 ? REALTIME : MONOTONIC, until));

    /* The plain lookup finds the one of before 2003, whose conditions look otherwise. */
    if (!next)
        next = (__typeof__(next))dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!next)
        abort();
    return next(condition, mutex, &real);
}
