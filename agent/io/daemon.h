/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_IO_DAEMON_H
#define AGENT_IO_DAEMON_H

/* What every daemon does before and around its work: options, journal, READY, watchdog, no core
 * dumps. */

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "agent/base/error.h"
#include "agent/base/log.h"

/* The options every daemon takes; all that a test needs. Pointers are borrowed from argv or are the
 * defaults. */
typedef struct DaemonOptions {
    const char *state_dir;   /* --state-dir */
    const char *runtime_dir; /* --runtime-dir */
    const char *root;        /* --root: where system resources are applied */
    const char *engine;      /* --engine: socket of the container engine */
    bool debug;              /* --debug */
} DaemonOptions;

#define DAEMON_ENGINE_SOCKET "/var/run/docker.sock"

/* A further long option of one daemon, for daemon_parse_options(). */
typedef struct DaemonOption {
    const char *name;     /* "plan" for --plan FILE and --plan=FILE */
    const char *argument; /* "FILE", or NULL for a switch */
    const char **value;   /* where the argument goes; a switch sets it to "yes" */
    const char *help;
} DaemonOption;

/* Reads argv over the defaults in `options`, up to the first operand; --debug raises the log level
 * too. Returns 1 to go on, 0 when --help or --version was
 * printed (exit 0), -EINVAL when usage was wrong (said on stderr; exit EXIT_USAGE). Operands are
 * left in argv[*ret_first…] (may be NULL where none are taken); `extra` ends with a NULL name, or
 * is NULL; `operands` is their help text, NULL when none are taken. */
int daemon_parse_options(int argc, char **argv, const char *program, const char *summary,
                         const char *operands, const DaemonOption *extra, DaemonOptions *options,
                         int *ret_first) must_check;

/* Records go to the native journal when its socket is there and stderr is the journal
 * (JOURNAL_STREAM) or `always`; else to stderr. */
void daemon_log_to_journal(const char *identifier, bool always);

/* No core dumps, no ptrace by others, umask 022, SIGPIPE ignored, malloc given back at once
 * (M_TRIM_THRESHOLD). Call first in main. */
void daemon_harden(void);

/* READY=1 with a STATUS; the watchdog is fed from the loop (sd_event's own), so that a stuck loop
 * is killed. */
int daemon_ready(sd_event *event, const char *status, Error *err) must_check;
/* What `systemctl status` shows; one line. */
void daemon_status(const char *format, ...) printf_like(1, 2);
void daemon_stopping(const char *status);

/* Path of another program of ours: beside this one, where it was installed, else the bare name for
 * PATH. free(); NULL when memory is out. */
char *daemon_sibling(const char *program);

/* Runs the loop until it exits; the exit status for main. */
int daemon_run(sd_event *event);

#endif
