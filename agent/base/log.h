/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_BASE_LOG_H
#define AGENT_BASE_LOG_H

/* Logging with fields. One record is a list of "KEY=value" strings; the sink decides where it goes:
 * stderr by default (one line, "<6>" prefix when JOURNAL_STREAM says that journald reads it), the
 * native journal after daemon_log_to_journal() (agent/io/daemon.h). Libraries do not log; daemons
 * do, once, where a decision is made. */

#include <stddef.h>

#include "agent/base/cleanup.h"

typedef enum LogLevel {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_NOTICE = 5,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7,
} LogLevel;

struct Error;

/* `fields` are "KEY=value"; "MESSAGE=" and "PRIORITY=" are always among the first two. */
typedef void (*LogSink)(LogLevel level, const char *const *fields, size_t n_fields);

/* NULL restores stderr. */
void log_set_sink(LogSink sink);
void log_set_level(LogLevel level);
LogLevel log_level(void);

/* `fields`: NULL-terminated array of "KEY=value", or NULL. */
void log_full(LogLevel level, const char *file, int line, const char *function,
              const char *const *fields, const char *format, ...) printf_like(6, 7);

#define log_at(level, ...)                                                                         \
    ((level) <= log_level() ? log_full((level), __FILE__, __LINE__, __func__, NULL, __VA_ARGS__)   \
                            : (void)0)
#define log_error(...)   log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)  log_at(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)    log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* log_fields(LOG_LEVEL_NOTICE, FIELDS("MERVIS_CONTAINER=web"), "rolled back to %s", digest) */
#define FIELDS(...)      ((const char *const[]){__VA_ARGS__, NULL})
#define log_fields(level, fields, ...)                                                             \
    log_full((level), __FILE__, __LINE__, __func__, (fields), __VA_ARGS__)

/* "what: message (remedy: …); verdict", with ERROR_KIND= and ERRNO=. `verdict` says what follows:
 * "retrying in 40 s". */
void log_error_full(LogLevel level, const char *file, int line, const char *function,
                    const char *const *fields, const struct Error *err, const char *verdict);
#define log_failure(level, fields, err, verdict)                                                   \
    log_error_full((level), __FILE__, __LINE__, __func__, (fields), (err), (verdict))

#endif
