/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_IO_LOOP_H
#define AGENT_IO_LOOP_H

/* Small objects over sd_event: a timer, a child process, a deferred call. Each is owned by whoever
 * made it; freeing it cancels it, and a callback may free its own object. The loop itself is a
 * plain sd_event. */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "agent/base/buf.h"
#include "agent/base/error.h"

/* A loop for a daemon: SIGTERM, SIGINT and SIGHUP are blocked for the process and reach
 * `handler`. */
typedef void (*LoopSignalHandler)(int signal_number, void *userdata);
int loop_new(sd_event **ret, Error *err) must_check;
int loop_watch_signals(sd_event *event, LoopSignalHandler handler, void *userdata, Error *err)
    must_check;

/* One-shot timer on CLOCK_BOOTTIME. Set again and again; never repeats by itself. */
typedef struct Timer Timer;
typedef void (*TimerHandler)(void *userdata);
int timer_new(sd_event *event, TimerHandler handler, void *userdata, Timer **ret) must_check;
/* From now; 0 fires at the next turn of the loop. `accuracy_usec` lets wake-ups gather (0: 1 ms).
 */
int timer_set(Timer *timer, uint64_t delay_usec, uint64_t accuracy_usec);
void timer_cancel(Timer *timer);
bool timer_is_set(const Timer *timer);
/* Time left, USEC_INFINITY while not set. */
uint64_t timer_left_usec(const Timer *timer);
Timer *timer_free(Timer *timer);
DEFINE_AUTO(Timer, timer_free)

/* A child process with an argument vector, run outside the loop. Standard output and error are
 * collected together up to `max_output` bytes (the rest is read and dropped). Freed while it runs:
 * SIGKILL to its process group, reaped. */
typedef struct Child Child;
typedef struct ChildSpec {
    const char *const *argv; /* argv[0] is an absolute path or found in PATH */
    const char *const *env;  /* NULL: inherits */
    const void *input;       /* given on standard input; NULL: /dev/null */
    size_t input_size;
    uint64_t timeout_usec; /* 0: none; over it SIGTERM, 5 s later SIGKILL */
    size_t max_output;     /* 0: output goes to the daemon's own stderr */
} ChildSpec;
/* `status` as waitpid() gives it; `timed_out` when the limit ended it. */
typedef void (*ChildHandler)(int status, bool timed_out, const Buf *output, void *userdata);
int child_spawn(sd_event *event, const ChildSpec *spec, ChildHandler handler, void *userdata,
                Child **ret, Error *err) must_check;
/* The same in one's own image: runs `fn` in a forked child (which must only use what is safe there:
 * plain system calls) and exits with its return value. */
int child_fork(sd_event *event, int (*fn)(void *arg), void *arg, uint64_t timeout_usec,
               ChildHandler handler, void *userdata, Child **ret, Error *err) must_check;
pid_t child_pid(const Child *child);
Child *child_free(Child *child);
DEFINE_AUTO(Child, child_free)

#endif
