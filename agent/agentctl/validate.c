/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentctl/validate.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/wait.h>

#include "agent/base/time.h"
#include "agent/io/json-scan.h"
#include "agent/io/json.h"
#include "agent/io/loop.h"
#include "agent/plan/plan.h"

#define CRAWLERD_TIMEOUT    (30 * SECOND)
#define CRAWLERD_OUTPUT_MAX (4u << 20)
#define EXIT_NOT_FOUND      127

void verdict_done(Verdict *verdict)
{
    field_errors_done(&verdict->errors);
    free(verdict->warning);
    *verdict = (Verdict){0};
}

int json_slice(const char *text, size_t size, const char *key, size_t *ret_offset, size_t *ret_size)
{
    JsonScan scan;

    json_scan_init(&scan, text, size);
    if (json_scan_next(&scan) != JSON_TOKEN_OBJECT_BEGIN)
        return 0;
    while (json_scan_next(&scan) == JSON_TOKEN_KEY) {
        bool found = json_scan_is(&scan, key);
        size_t from;

        if (json_scan_next(&scan) == JSON_TOKEN_ERROR)
            return 0;
        from = scan.offset;
        if (json_scan_skip(&scan) < 0)
            return 0;
        if (found) {
            *ret_offset = from;
            *ret_size = scan.at - from;
            return 1;
        }
    }
    return 0;
}

/* What crawlerd said, while the loop runs. */
typedef struct Answer {
    sd_event *event;
    int status;
    bool timed_out;
    json_t *reply; /* NULL: no JSON */
} Answer;

static void on_ended(int status, bool timed_out, const Buf *output, void *userdata)
{
    Answer *answer = userdata;

    answer->status = status;
    answer->timed_out = timed_out;
    (void)json_parse_quiet(output->data ? output->data : "", output->size, &answer->reply);
    (void)sd_event_exit(answer->event, 0);
}

static int ask_crawlerd(const char *program, const char *crawl, size_t size, Answer *ret,
                        Error *err)
{
    auto_(sd_event_unrefp) sd_event *event = NULL;
    auto_(child_freep) Child *child = NULL;
    const char *argv[] = {program, "validate", "--json", NULL};
    const ChildSpec spec = {.argv = argv,
                            .input = crawl,
                            .input_size = size,
                            .timeout_usec = CRAWLERD_TIMEOUT,
                            .max_output = CRAWLERD_OUTPUT_MAX};
    int r;

    r = loop_new(&event, err);
    if (r < 0)
        return r;
    ret->event = event;
    r = child_spawn(event, &spec, on_ended, ret, &child, err);
    if (r < 0)
        return r;
    r = sd_event_loop(event);
    ret->event = NULL;
    return r < 0 ? error_errno(err, r, "event loop") : 0;
}

/* crawlerd counts from where its part begins; the part stands somewhere in the plan. */
static int add_crawl_error(FieldErrors *errors, const json_t *item, unsigned first_line,
                           unsigned first_column)
{
    const char *path = json_str(item, "path"), *message = json_str(item, "message");
    auto_free char *whole = NULL;
    uint64_t line = 0, column = 0;

    whole = str_printf("crawl%s%s", path && *path && *path != '[' ? "." : "", path ? path : "");
    if (!whole)
        return -ENOMEM;
    if (json_u64(item, "line", &line) < 0 || json_u64(item, "column", &column) < 0 || line == 0) {
        line = first_line;
        column = first_column;
    } else {
        column += line == 1 ? first_column - 1 : 0;
        line += first_line - 1;
    }
    return field_errors_add(errors, whole, (unsigned)line, (unsigned)column, "%s",
                            message ? message : "refused by crawlerd without a reason");
}

static int add_crawl_errors(FieldErrors *errors, const Answer *answer, unsigned line,
                            unsigned column)
{
    const json_t *list = json_object_get(answer->reply, "errors"), *item;
    size_t i;
    int r;

    json_array_foreach (list, i, item) {
        r = add_crawl_error(errors, item, line, column);
        if (r < 0)
            return r;
    }
    errors->truncated |= json_flag(answer->reply, "truncated");
    if (json_array_size(list) > 0)
        return 0;
    return field_errors_add(errors, "crawl", line, column, "%s",
                            answer->timed_out ? "crawlerd validate did not end in time"
                                              : "crawlerd validate refused it without a reason");
}

static int judge_crawl(const char *text, size_t offset, size_t size, const char *crawlerd,
                       Verdict *verdict, Error *err)
{
    auto_error Error cause = {0};
    unsigned line, column;
    Answer answer = {0};
    int r;

    r = ask_crawlerd(crawlerd, text + offset, size, &answer, &cause);
    json_scan_position(text, offset, &line, &column);
    if (r >= 0 && !answer.timed_out && WIFEXITED(answer.status) &&
        WEXITSTATUS(answer.status) == 0) {
        json_decref(answer.reply);
        return 0;
    }
    if (r == -ENOENT || r == -EACCES ||
        (r >= 0 && WIFEXITED(answer.status) && WEXITSTATUS(answer.status) == EXIT_NOT_FOUND)) {
        json_decref(answer.reply);
        verdict->warning = strdup("the crawl part was not checked: crawlerd is neither beside "
                                  "agentctl nor in PATH");
        return verdict->warning ? 0 : error_oom(err);
    }
    if (r < 0)
        return error_move(err, &cause);
    r = add_crawl_errors(&verdict->errors, &answer, line, column);
    json_decref(answer.reply);
    return r < 0 ? error_oom(err) : 0;
}

int plan_judge(const char *text, size_t size, const char *crawlerd, Verdict *ret, Error *err)
{
    auto_verdict Verdict verdict = {0};
    auto_(plan_freep) Plan *plan = NULL;
    size_t offset, slice;
    int r;

    assert(text && crawlerd && ret);

    r = plan_parse(text, size, &plan, &verdict.errors);
    if (r == -ENOMEM)
        return error_oom(err);
    /* Also where the rest is wrong: all faults at once. */
    if (size <= PLAN_SIZE_MAX && json_slice(text, size, "crawl", &offset, &slice) > 0 &&
        text[offset] == '{') {
        r = judge_crawl(text, offset, slice, crawlerd, &verdict, err);
        if (r < 0)
            return r;
    }
    field_errors_sort(&verdict.errors);
    *ret = verdict;
    verdict = (Verdict){0};
    return 0;
}
