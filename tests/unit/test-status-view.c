/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <string.h>

#include "agent/agentctl/status-view.h"
#include "agent/base/file.h"
#include "agent/io/json.h"
#include "agent/io/status-keys.h"

#define NOW_USEC (UINT64_C(1791354600) * 1000000) /* 2026-10-07T06:30:00Z */

static void read_fixture(const char *name, const char *suffix, Buf *ret)
{
    const char *srcdir = getenv("srcdir");
    auto_free char *path =
        str_printf("%s/tests/unit/status/%s.%s", srcdir ? srcdir : ".", name, suffix);
    auto_error Error err = {0};

    *ret = BUF_INIT(1 << 20);
    assert_ok(file_read(path, 1 << 20, ret, &err), &err);
}

static json_t *read_document(const char *name)
{
    auto_buf Buf text = {0};
    auto_error Error err = {0};
    json_t *document = NULL;

    read_fixture(name, "json", &text);
    assert_ok(json_parse(text.data, text.size, name, &document, &err), &err);
    return document;
}

static char *page_of(const char *name, unsigned width, bool colour)
{
    const View view = {.width = width, .colour = colour, .now_usec = NOW_USEC};
    json_auto_t *document = read_document(name);
    Buf page = BUF_INIT(1 << 20);

    assert_int_equal(status_view(document, &view, &page), 0);
    return buf_take(&page);
}

static const char *const names[] = {"well", "degraded", "korean", "recorded", "nothing"};

static void every_page_is_as_it_was_agreed(void **state)
{
    for (size_t i = 0; i < ELEMENTS(names); i++) {
        auto_free char *page = page_of(names[i], RENDER_WIDTH, /* colour= */ false);
        auto_buf Buf expected = {0};

        read_fixture(names[i], "txt", &expected);
        if (!streq(page, buf_str(&expected)))
            fail_msg("%s: expected\n%s\ngot\n%s", names[i], buf_str(&expected), page);
    }
}

static void no_line_is_wider_than_the_terminal(void **state)
{
    static const unsigned widths[] = {64, 72, 80, 132};

    for (size_t i = 0; i < ELEMENTS(names); i++)
        for (size_t k = 0; k < ELEMENTS(widths); k++) {
            auto_free char *page = page_of(names[i], widths[k], /* colour= */ false);
            auto_(strv_freep) char **lines = str_split(page, "\n");

            STRV_FOREACH (line, lines)
                if (text_width(*line) > widths[k])
                    fail_msg("%s at %u: %zu columns: \"%s\"", names[i], widths[k],
                             text_width(*line), *line);
        }
}

static void colour_adds_escapes_and_changes_no_letter(void **state)
{
    for (size_t i = 0; i < ELEMENTS(names); i++) {
        auto_free char *plain = page_of(names[i], RENDER_WIDTH, false);
        auto_free char *coloured = page_of(names[i], RENDER_WIDTH, true);
        char *to = coloured;

        assert_null(strchr(plain, '\033'));
        assert_non_null(strchr(coloured, '\033'));
        for (const char *from = coloured; *from; from++) {
            if (*from == '\033')
                from = strchr(from, 'm');
            else
                *to++ = *from;
        }
        *to = '\0';
        assert_string_equal(coloured, plain);
    }
}

static void what_is_wrong_stands_first_with_its_remedy(void **state)
{
    auto_free char *page = page_of("degraded", RENDER_WIDTH, false);
    const char *trouble = strstr(page, "! container mervis: the new image");
    const char *remedy = strstr(page, "remedy: fix the image");

    assert_non_null(trouble);
    assert_non_null(remedy);
    assert_true(trouble < remedy && remedy < strstr(page, "\nCONTAINER"));
}

static void only_a_machine_that_is_well_counts_as_well(void **state)
{
    static const struct {
        const char *name;
        bool well;
    } cases[] = {{"well", true}, {"korean", true}, {"degraded", false}, {"nothing", false}};

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        json_auto_t *document = read_document(cases[i].name);

        assert_int_equal(status_is_well(document), cases[i].well);
    }
}

/* The document as it is shown when the crawler says STATE; NULL: it does not answer. */
static json_t *joined_with(const char *state)
{
    json_auto_t *agent = read_document("well"), *crawler = NULL;
    json_t *resources = json_object_get(agent, "resources");
    const Error fine = {0};

    assert_int_equal(
        json_array_append_new(resources, json_pack("{s:s, s:s, s:s}", "kind", "crawler", "name",
                                                   "crawlerd", "state", "ok")),
        0);

    if (state) {
        crawler = json_deep_copy(json_object_get(agent, "crawler"));
        assert_int_equal(json_put(crawler, "state", json_string(state)), 0);
    }
    assert_int_equal(json_object_del(agent, "crawler"), 0);
    return status_join(agent, crawler, &fine);
}

static void title_and_exit_status_agree_whatever_the_crawler_says(void **state)
{
    static const struct {
        const char *crawler;
        bool well;
    } cases[] = {{"well", true},      {"starting", true}, {"idle", true},
                 {"degraded", false}, {"paused", false},  {NULL, false}};
    const View view = {.width = 80, .now_usec = NOW_USEC};

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        json_auto_t *document = joined_with(cases[i].crawler);
        auto_buf Buf page = BUF_INIT(1 << 20);
        bool missing = !cases[i].crawler;

        assert_non_null(document);
        assert_int_equal(status_is_well(document), cases[i].well);
        assert_int_equal(status_view(document, &view, &page), 0);
        assert_int_equal(!strstr(buf_str(&page), " is degraded\n"), cases[i].well);
        assert_int_equal(!!strstr(buf_str(&page), "! crawlerd: does not answer"), missing);
    }
}

static void a_document_of_wrong_types_is_shown_without_harm(void **state)
{
    static const char *const odd[] = {
        "{\"kind\":\"agent\"}",
        "{\"kind\":\"agent\",\"vm\":[],\"plan\":7,\"containers\":{\"a\":1},\"secrets\":\"x\","
        "\"crawler\":[1],\"images\":null,\"events\":[1,null,\"x\"],\"resources\":[[],{}]}",
        "{\"kind\":\"agent\",\"containers\":[{\"quarantined\":[{}],\"progress\":{\"done_bytes\":5,"
        "\"total_bytes\":0},\"restarts\":-1,\"digest\":\"sha256:\"}],\"crawler\":{\"jobs\":[7]}}",
        "[]",
    };
    const View view = {.width = 80, .now_usec = NOW_USEC};

    for (size_t i = 0; i < ELEMENTS(odd); i++) {
        json_auto_t *document = NULL;
        auto_error Error err = {0};
        auto_buf Buf page = BUF_INIT(1 << 20);

        assert_ok(json_parse(odd[i], strlen(odd[i]), "odd", &document, &err), &err);
        assert_int_equal(status_view(document, &view, &page), 0);
        assert_true(page.size > 0);
    }
}

/* ---- The pieces that pages are made of ---- */

static void width_is_what_a_terminal_shows(void **state)
{
    assert_int_equal(text_width(""), 0);
    assert_int_equal(text_width("mervis"), 6);
    assert_int_equal(text_width("한글"), 4);
    assert_int_equal(text_width("e\u0301"), 1); /* a combining accent takes no column */
    assert_int_equal(text_width("…"), 1);
    assert_int_equal(text_width("\xff\xfe"), 2);
}

static void cutting_keeps_to_the_width_and_to_whole_characters(void **state)
{
    static const struct {
        const char *text;
        size_t width;
        bool keep_end;
        const char *expected;
    } cases[] = {
        {"mervis", 6, false, "mervis"},
        {"mervis", 5, false, "merv…"},
        {"mervis", 5, true, "…rvis"},
        {"한글이름", 5, false, "한글…"},
        {"한글이름", 4, false, "한…"},
        {"한글이름", 4, true, "…름"},
        {"x", 0, false, ""},
        {"a\033b", 8, false, "a\\x1bb"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_free char *fitted = text_fit(cases[i].text, cases[i].width, cases[i].keep_end);

        assert_string_equal(fitted, cases[i].expected);
    }
}

static void numbers_are_grouped(void **state)
{
    char text[NUMBER_TEXT_MAX];

    assert_string_equal(format_number(text, 0), "0");
    assert_string_equal(format_number(text, 999), "999");
    assert_string_equal(format_number(text, 1000), "1,000");
    assert_string_equal(format_number(text, UINT64_MAX), "18,446,744,073,709,551,615");
}

static void a_pipe_has_no_colour_and_80_columns(void **state)
{
    int fds[2];
    View view;

    assert_int_equal(pipe(fds), 0);
    view = render_view_of(fds[1]);
    assert_int_equal(view.width, 80);
    assert_false(view.colour);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

TEST_MAIN(cmocka_unit_test(every_page_is_as_it_was_agreed),
          cmocka_unit_test(no_line_is_wider_than_the_terminal),
          cmocka_unit_test(colour_adds_escapes_and_changes_no_letter),
          cmocka_unit_test(what_is_wrong_stands_first_with_its_remedy),
          cmocka_unit_test(only_a_machine_that_is_well_counts_as_well),
          cmocka_unit_test(title_and_exit_status_agree_whatever_the_crawler_says),
          cmocka_unit_test(a_document_of_wrong_types_is_shown_without_harm),
          cmocka_unit_test(width_is_what_a_terminal_shows),
          cmocka_unit_test(cutting_keeps_to_the_width_and_to_whole_characters),
          cmocka_unit_test(numbers_are_grouped),
          cmocka_unit_test(a_pipe_has_no_colour_and_80_columns))
