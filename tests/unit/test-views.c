/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <string.h>

#include "agent/agentctl/doctor-internal.h"
#include "agent/agentctl/history-view.h"
#include "agent/agentctl/status-view.h"
#include "agent/base/file.h"
#include "agent/io/json.h"
#include "crawler/model/bar.h"
#include "crawler/sink/sink-bigquery.h"

/* Pages of the verbs at 80 columns, as they were agreed: tests/unit/views/NAME.json and .txt. */

#define NOW_USEC (UINT64_C(1791354600) * 1000000) /* 2026-10-07T06:30:00Z */

static int secrets(const json_t *document, const View *view, Buf *page)
{
    bool well;

    return status_view_secrets(document, view, &well, page);
}

static int crawler(const json_t *document, const View *view, Buf *page)
{
    bool well;

    return status_view_crawler(document, view, &well, page);
}

static const struct {
    const char *name;
    int (*view)(const json_t *document, const View *view, Buf *page);
} views[] = {
    {"history", history_view}, {"dead-letters", dead_letters_view},
    {"doctor", doctor_view},   {"secrets", secrets},
    {"crawler", crawler},
};

static void read_fixture(const char *name, const char *suffix, Buf *ret)
{
    const char *srcdir = getenv("srcdir");
    auto_free char *path =
        str_printf("%s/tests/unit/views/%s.%s", srcdir ? srcdir : ".", name, suffix);
    auto_error Error err = {0};

    *ret = BUF_INIT(1 << 20);
    assert_ok(file_read(path, 1 << 20, ret, &err), &err);
}

static char *page_of(size_t i)
{
    const View view = {.width = RENDER_WIDTH, .now_usec = NOW_USEC};
    json_auto_t *document = NULL;
    auto_buf Buf text = {0};
    auto_error Error err = {0};
    Buf page = BUF_INIT(1 << 20);

    read_fixture(views[i].name, "json", &text);
    assert_ok(json_parse(text.data, text.size, views[i].name, &document, &err), &err);
    assert_int_equal(views[i].view(document, &view, &page), 0);
    return buf_take(&page);
}

static void every_page_is_as_it_was_agreed(void **state)
{
    for (size_t i = 0; i < ELEMENTS(views); i++) {
        auto_free char *page = page_of(i);
        auto_buf Buf expected = {0};

        read_fixture(views[i].name, "txt", &expected);
        if (!streq(page, buf_str(&expected)))
            fail_msg("%s: expected\n%s\ngot\n%s", views[i].name, buf_str(&expected), page);
    }
}

/* All but remedies of doctor, which are copied into a shell and so stand on one line. */
static void no_line_is_wider_than_80_columns(void **state)
{
    for (size_t i = 0; i < ELEMENTS(views); i++) {
        auto_free char *page = page_of(i);
        char *end;

        for (char *line = page; line; line = end) {
            end = strchr(line, '\n');
            if (end)
                *end++ = '\0';
            if (text_width(line) > RENDER_WIDTH && !startswith(line, "      "))
                fail_msg("%s: %s", views[i].name, line);
        }
    }
}

/* The doctor looks at tables that crawlerd makes: both must mean the same columns. */
static void the_doctor_knows_the_columns_of_the_rows(void **state)
{
    size_t n = 0;

    for (const RowColumn *column = row_columns; column->name; column++, n++) {
        assert_string_equal(table_columns[n].name, column->name);
        assert_string_equal(table_columns[n].type, bq_column_type(column->type));
    }
    assert_null(table_columns[n].name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_page_is_as_it_was_agreed),
        cmocka_unit_test(no_line_is_wider_than_80_columns),
        cmocka_unit_test(the_doctor_knows_the_columns_of_the_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
