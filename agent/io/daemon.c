/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/io/daemon.h"

#include "config.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* log.h's own macros say where a record comes from; sd-journal must not add this file. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-daemon.h>
#include <systemd/sd-journal.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"

/* ---- Options ---- */

#define OPTIONS_MAX 32
#define HELP_COLUMN 26

/* The options of every daemon and those of this one, in one table. */
typedef struct OptionTable {
    DaemonOption rows[OPTIONS_MAX];
    size_t n;
    const char *debug, *help, *version;
} OptionTable;

static void option_table_fill(OptionTable *table, const DaemonOption *extra, DaemonOptions *options)
{
    const DaemonOption common[] = {
        {"state-dir", "DIR", &options->state_dir, "what must survive a reboot"},
        {"runtime-dir", "DIR", &options->runtime_dir, "sockets, secrets, what a reboot may lose"},
        {"root", "DIR", &options->root, "where system resources are applied"},
        {"engine", "SOCKET", &options->engine, "the container engine's API socket"},
        {"debug", NULL, &table->debug, "log more"},
        {"help", NULL, &table->help, "show this and exit"},
        {"version", NULL, &table->version, "show the version and exit"},
    };

    for (const DaemonOption *o = extra; o && o->name; o++) {
        assert(table->n < OPTIONS_MAX - ELEMENTS(common));
        table->rows[table->n++] = *o;
    }
    for (size_t i = 0; i < ELEMENTS(common); i++)
        table->rows[table->n++] = common[i];
}

static void print_help(const OptionTable *table, const char *program, const char *summary,
                       const char *operands)
{
    printf("Usage: %s [OPTION…]%s%s\n\n%s\n\n", program, operands ? " " : "",
           operands ? operands : "", summary);
    for (size_t i = 0; i < table->n; i++) {
        const DaemonOption *o = &table->rows[i];
        int width;

        width =
            printf("  --%s%s%s", o->name, o->argument ? " " : "", o->argument ? o->argument : "");
        printf("%*s%s\n", MAX_OF(HELP_COLUMN - width, 2), "", o->help);
    }
}

static int usage_error(const char *program, const char *format, ...) printf_like(2, 3);
static int usage_error(const char *program, const char *format, ...)
{
    va_list args;

    (void)fprintf(stderr, "%s: ", program);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fprintf(stderr, "\n%s --help lists the options\n", program);
    return -EINVAL;
}

static const DaemonOption *option_find(const OptionTable *table, const char *name, size_t size)
{
    for (size_t i = 0; i < table->n; i++)
        if (strlen(table->rows[i].name) == size && memcmp(table->rows[i].name, name, size) == 0)
            return &table->rows[i];
    return NULL;
}

static int unknown_option(const OptionTable *table, const char *program, const char *name,
                          size_t size)
{
    const char *names[OPTIONS_MAX];
    auto_free char *word = strndup(name, size);
    const char *nearest = NULL;

    for (size_t i = 0; i < table->n; i++)
        names[i] = table->rows[i].name;
    if (word)
        nearest = str_nearest(word, names, table->n);
    return usage_error(program, "there is no option --%.*s%s%s%s", (int)size, name,
                       nearest ? "; did you mean --" : "", nearest ? nearest : "",
                       nearest ? "?" : "");
}

/* One "--name", "--name VALUE" or "--name=VALUE"; moves *i past what it used. */
static int parse_one(const OptionTable *table, const char *program, int argc, char **argv, int *i)
{
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    size_t size = equals ? (size_t)(equals - name) : strlen(name);
    const DaemonOption *option;

    option = option_find(table, name, size);
    if (!option)
        return unknown_option(table, program, name, size);

    if (!option->argument) {
        if (equals)
            return usage_error(program, "--%s takes no value", option->name);
        *option->value = "yes";
    } else if (equals) {
        *option->value = equals + 1;
    } else if (*i + 1 < argc) {
        *option->value = argv[++*i];
    } else {
        return usage_error(program, "--%s wants a value: --%s %s", option->name, option->name,
                           option->argument);
    }
    ++*i;
    return 0;
}

int daemon_parse_options(int argc, char **argv, const char *program, const char *summary,
                         const char *operands, const DaemonOption *extra, DaemonOptions *options,
                         int *ret_first)
{
    OptionTable table = {0};
    int i = 1, r;

    assert(program && summary && options && (ret_first || !operands));

    option_table_fill(&table, extra, options);
    while (i < argc && argv[i][0] == '-' && argv[i][1]) {
        if (streq(argv[i], "--")) {
            i++;
            break;
        }
        if (streq(argv[i], "-h"))
            table.help = argv[i++];
        else if (argv[i][1] != '-')
            return usage_error(program, "there is no option %s", argv[i]);
        else {
            r = parse_one(&table, program, argc, argv, &i);
            if (r < 0)
                return r;
        }
    }

    if (table.help) {
        print_help(&table, program, summary, operands);
        return 0;
    }
    if (table.version) {
        printf("%s (%s) %s\n", program, PACKAGE_NAME, PACKAGE_VERSION);
        return 0;
    }
    if (i < argc && !operands)
        return usage_error(program, "\"%s\" is one argument too many", argv[i]);

    if (table.debug) {
        options->debug = true;
        log_set_level(LOG_LEVEL_DEBUG);
    }
    if (ret_first)
        *ret_first = i;
    return 1;
}

/* ---- Journal ---- */

#define JOURNAL_SOCKET     "/run/systemd/journal/socket"
#define JOURNAL_FIELDS_MAX 40

static char journal_identifier[64];

static void sink_journal(LogLevel level, const char *const *fields, size_t n_fields)
{
    struct iovec iov[JOURNAL_FIELDS_MAX];
    int n = 0;

    for (size_t i = 0; i < n_fields && n < JOURNAL_FIELDS_MAX - 1; i++, n++)
        iov[n] =
            (struct iovec){.iov_base = (char *)(uintptr_t)fields[i], .iov_len = strlen(fields[i])};
    iov[n++] =
        (struct iovec){.iov_base = journal_identifier, .iov_len = strlen(journal_identifier)};

    /* journald may be restarting: stderr is then what is left, and it is journald's as well. */
    if (sd_journal_sendv(iov, n) < 0)
        (void)fprintf(stderr, "<%u>%s\n", (unsigned)level, fields[0] + strlen("MESSAGE="));
}

/* Whether our stderr is the stream that the service manager connected to journald. */
static bool stderr_is_journal_stream(void)
{
    const char *stream = getenv("JOURNAL_STREAM"), *colon;
    uint64_t device, inode;
    struct stat st;

    colon = stream ? strchr(stream, ':') : NULL;
    if (!colon || parse_u64_n(stream, (size_t)(colon - stream), &device) < 0 ||
        parse_u64(colon + 1, &inode) < 0)
        return false;
    return fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void daemon_log_to_journal(const char *identifier, bool always)
{
    assert(identifier);

    if (!always && !stderr_is_journal_stream())
        return;
    if (access(JOURNAL_SOCKET, W_OK) < 0)
        return;

    (void)snprintf(journal_identifier, sizeof(journal_identifier), "SYSLOG_IDENTIFIER=%s",
                   identifier);
    log_set_sink(sink_journal);
}

/* ---- Around the work ---- */

/* Leak checking attaches to its own threads by ptrace, which a process that is not dumpable
 * refuses.
 */
#if defined(__SANITIZE_ADDRESS__)
#define DUMPABLE 1
#else
#define DUMPABLE 0
#endif

void daemon_harden(void)
{
    const struct rlimit no_core = {0, 0};

    (void)prctl(PR_SET_DUMPABLE, DUMPABLE);
    (void)setrlimit(RLIMIT_CORE, &no_core);
    (void)umask(022);
    (void)signal(SIGPIPE, SIG_IGN);

    /* One arena: curl's resolver threads would each bring their own. Large pieces are mapped and
     * given back when freed, the top of the heap as soon as 64 KiB of it are free. */
    (void)mallopt(M_ARENA_MAX, 1);
    (void)mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    (void)mallopt(M_TRIM_THRESHOLD, 64 * 1024);
}

int daemon_ready(sd_event *event, const char *status, Error *err)
{
    int r;

    assert(event && status);

    /* From the loop and nowhere else: a loop that is stuck stops feeding it. */
    r = sd_event_set_watchdog(event, true);
    if (r < 0)
        return error_errno(err, r, "watchdog");

    /* Nobody listens when no service manager started us; that is not an error. */
    r = sd_notifyf(0, "READY=1\nSTATUS=%s", status);
    if (r < 0)
        return error_errno(err, r, "telling the service manager that we are ready");
    return 0;
}

void daemon_status(const char *format, ...)
{
    auto_free char *text = NULL;
    va_list args;
    int n;

    va_start(args, format);
    n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0) {
        text = NULL;
        return;
    }
    /* One line: a newline would begin another assignment. */
    for (char *p = text; *p; p++)
        if (*p == '\n')
            *p = ' ';
    (void)sd_notifyf(0, "STATUS=%s", text);
}

void daemon_stopping(const char *status)
{
    (void)sd_notifyf(0, "STOPPING=1\nSTATUS=%s", status);
}

int daemon_run(sd_event *event)
{
    int r;

    assert(event);

    r = sd_event_loop(event);
    if (r < 0) {
        log_error("the event loop failed: %s; exiting", strerror(-r));
        return EXIT_FAILURE;
    }
    return r;
}

char *daemon_sibling(const char *program)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    auto_free char *path = NULL;
    char *slash;

    if (n > 0) {
        self[n] = '\0';
        slash = strrchr(self, '/');
        if (slash)
            path = str_printf("%.*s/%s", (int)(slash - self), self, program);
        if (path && access(path, X_OK) == 0)
            return take_ptr(path);
    }
    free(path);
    path = str_printf(SBIN_DIR "/%s", program);
    if (path && access(path, X_OK) == 0)
        return take_ptr(path);
    return strdup(program);
}
