/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/error.h"

#define LOG_FIELDS_MAX 32

static LogSink current_sink;
static LogLevel current_level = LOG_LEVEL_INFO;

void log_set_sink(LogSink sink)
{
    current_sink = sink;
}

void log_set_level(LogLevel level)
{
    current_level = level;
}

LogLevel log_level(void)
{
    return current_level;
}

/* journald reads "<N>" at the start of a line as its priority; a terminal should not see it. */
static bool stderr_is_journal(void)
{
    static int cached = -1;

    if (cached < 0)
        cached = getenv("JOURNAL_STREAM") != NULL && !isatty(STDERR_FILENO);
    return cached > 0;
}

static void sink_stderr(LogLevel level, const char *const *fields, size_t n_fields)
{
    const char *message = fields[0] + strlen("MESSAGE=");

    if (stderr_is_journal())
        (void)fprintf(stderr, "<%u>%s\n", (unsigned)level, message);
    else
        (void)fprintf(stderr, "%s\n", message);
}

static void log_record(LogLevel level, const char *file, int line, const char *function,
                       const char *const *fields, const char *text)
{
    auto_free char *message = NULL, *code_file = NULL, *code_line = NULL, *code_func = NULL;
    const char *list[LOG_FIELDS_MAX];
    char priority[16];
    size_t n = 0;

    if (asprintf(&message, "MESSAGE=%s", text) < 0) {
        message = NULL;
        return;
    }
    (void)snprintf(priority, sizeof(priority), "PRIORITY=%u", (unsigned)level);
    list[n++] = message;
    list[n++] = priority;
    if (asprintf(&code_file, "CODE_FILE=%s", file) >= 0)
        list[n++] = code_file;
    if (asprintf(&code_line, "CODE_LINE=%d", line) >= 0)
        list[n++] = code_line;
    if (asprintf(&code_func, "CODE_FUNC=%s", function) >= 0)
        list[n++] = code_func;
    for (size_t i = 0; fields && fields[i] && n < LOG_FIELDS_MAX; i++)
        list[n++] = fields[i];

    (current_sink ? current_sink : sink_stderr)(level, list, n);
}

void log_full(LogLevel level, const char *file, int line, const char *function,
              const char *const *fields, const char *format, ...)
{
    auto_free char *text = NULL;
    int saved = errno, n;
    va_list args;

    if (level > current_level)
        return;

    va_start(args, format);
    n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0)
        text = NULL;
    log_record(level, file, line, function, fields, text ? text : format);
    errno = saved;
}

void log_error_full(LogLevel level, const char *file, int line, const char *function,
                    const char *const *fields, const Error *err, const char *verdict)
{
    const char *list[LOG_FIELDS_MAX];
    auto_free char *text = NULL;
    char kind[48], number[32];
    size_t n = 0;

    if (level > current_level)
        return;

    for (; fields && fields[n] && n < LOG_FIELDS_MAX - 3; n++)
        list[n] = fields[n];
    (void)snprintf(kind, sizeof(kind), "ERROR_KIND=%s", error_kind_name(err->kind));
    (void)snprintf(number, sizeof(number), "ERRNO=%d", -err->code);
    list[n++] = kind;
    list[n++] = number;
    list[n] = NULL;

    if (asprintf(&text, "%s%s%s%s%s%s", error_text(err), err->remedy ? " (remedy: " : "",
                 err->remedy ? err->remedy : "", err->remedy ? ")" : "", verdict ? "; " : "",
                 verdict ? verdict : "") < 0)
        text = NULL;
    log_record(level, file, line, function, list, text ? text : error_text(err));
}
