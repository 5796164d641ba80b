/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "agent/base/file.h"
#include "crawler/extract/extract.h"
#include "crawler/model/zone.h"
#include "crawler/recipe/recipe.h"
#include "tests/unit/extract-check.h"

/* Every recorded reply cut off at any place, and with any byte spoiled: rows that make sense, or a
 * reason. Large replies are sampled at a stride that is no power of two. */

#define PLACES_MAX 700 /* of one reply */
#define PLACES_MIN 24
#define WORK_MAX   (2 << 20) /* bytes times places of one reply */
#define REPLY_MAX  (1 << 20)

typedef struct Damage {
    Recipe *recipe;
    RowSet rows;
    Buf line;
    char *dir;
} Damage;

static const ExtractRequest request = {
    .from_usec = CURSOR_NEVER,
    .to_usec = INT64_MAX,
    .now_usec = INT64_C(1795000000000000),
};

static ExtractVerdict extract(Damage *d, const char *name, size_t place, const char *body,
                              size_t size)
{
    auto_extract_outcome ExtractOutcome outcome = {0};
    auto_error Error err = {0};
    const char *fault;

    row_set_clear(&d->rows);
    assert_ok(extract_run(d->recipe, &request, body, size, 200, NULL, &d->rows, &outcome, &err),
              &err);
    fault = extract_fault(&d->rows, &outcome, &d->line);
    if (fault)
        fail_msg("%s, damaged at %zu: %s", name, place, fault);
    return outcome.verdict;
}

static void damage_one(Damage *d, const char *name, Buf *body)
{
    size_t places =
        MIN_OF(MAX_OF(WORK_MAX / (body->size + 1), (size_t)PLACES_MIN), (size_t)PLACES_MAX);
    size_t stride = (body->size / places) | 1, end = body->size;
    ExtractVerdict whole = extract(d, name, 0, body->data, body->size);
    static const char spoils[] = {'\0', '"', '9', '\xff'};

    while (end > 0 && strchr(" \r\n\t", body->data[end - 1]))
        end--;
    for (size_t size = 0; size < body->size; size += stride) {
        /* A copy of its own size, so that a sanitizer sees a byte read too many. */
        auto_free char *part = malloc(size > 0 ? size : 1);
        ExtractVerdict cut;

        assert_non_null(part);
        memcpy(part, body->data, size);
        cut = extract(d, name, size, part, size);
        /* A document with a beginning and an end is never taken for whole when it is cut. */
        if (whole == EXTRACT_ROWS && size < end &&
            (d->recipe->format == RECIPE_JSON || d->recipe->format == RECIPE_XML))
            assert_int_equal(cut, EXTRACT_REFUSED);
    }
    for (size_t at = 0; at < body->size; at += stride)
        for (size_t i = 0; i < sizeof(spoils); i++) {
            char before = body->data[at];

            body->data[at] = spoils[i] == '9' ? (char)(before ^ 1) : spoils[i];
            (void)extract(d, name, at, body->data, body->size);
            body->data[at] = before;
        }
}

static void damage_all(Damage *d, const char *folder, const char *recipe, const char *prefix)
{
    auto_free char *path = str_printf("%s/%s", d->dir, folder);
    auto_error Error err = {0};
    struct dirent *entry;
    size_t n = 0;
    DIR *dir;

    assert_ok(recipe_load(recipe, &d->recipe, &err), &err);
    dir = opendir(path);
    assert_non_null(dir);
    while ((entry = readdir(dir))) {
        auto_buf Buf body = BUF_INIT(REPLY_MAX);
        auto_free char *file = str_printf("%s/%s", path, entry->d_name);

        if (entry->d_name[0] == '.' || !startswith(entry->d_name, prefix) ||
            endswith(entry->d_name, ".meta") || endswith(entry->d_name, ".zip"))
            continue;
        assert_ok(file_read(file, REPLY_MAX, &body, &err), &err);
        damage_one(d, entry->d_name, &body);
        n++;
    }
    (void)closedir(dir);
    d->recipe = recipe_free(d->recipe);
    assert_true(n > 0);
}

#define DAMAGE_TEST(name, folder, recipe, prefix)                                                  \
    static void name(void **state)                                                                 \
    {                                                                                              \
        damage_all(*state, folder, recipe, prefix);                                                \
    }

DAMAGE_TEST(yahoo_replies_survive_damage, "yahoo", "yahoo-chart", "")
DAMAGE_TEST(upbit_replies_survive_damage, "upbit", "upbit-candles", "")
DAMAGE_TEST(binance_replies_survive_damage, "binance", "binance-klines", "")
DAMAGE_TEST(ecb_replies_survive_damage, "ecb", "ecb-fx", "")
DAMAGE_TEST(naver_xml_survives_damage, "naver", "naver-day", "fchart")
DAMAGE_TEST(naver_html_survives_damage, "naver", "naver-sise-day", "sise_day")
DAMAGE_TEST(naver_text_survives_damage, "naver", "naver-sise-json", "siseJson")
DAMAGE_TEST(stooq_replies_survive_damage, "stooq", "stooq-day", "")

static int group_setup(void **state)
{
    const char *srcdir = getenv("srcdir");
    auto_free char *recipes = str_printf("%s/crawler/recipe", srcdir ? srcdir : ".");
    static Damage damage;

    damage.line = BUF_INIT(65536);
    damage.dir = str_printf("%s/tests/fixtures", srcdir ? srcdir : ".");
    *state = &damage;
    extract_init();
    return recipes && damage.dir && setenv("MERVIS_RECIPES_DIR", recipes, 1) == 0 ? 0 : -1;
}

static int group_teardown(void **state)
{
    Damage *damage = *state;

    row_set_done(&damage->rows);
    buf_done(&damage->line);
    free(damage->dir);
    zone_forget_all();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(yahoo_replies_survive_damage),
        cmocka_unit_test(upbit_replies_survive_damage),
        cmocka_unit_test(binance_replies_survive_damage),
        cmocka_unit_test(ecb_replies_survive_damage),
        cmocka_unit_test(naver_xml_survives_damage),
        cmocka_unit_test(naver_html_survives_damage),
        cmocka_unit_test(naver_text_survives_damage),
        cmocka_unit_test(stooq_replies_survive_damage),
    };

    return cmocka_run_group_tests_name("extract-damage", tests, group_setup, group_teardown);
}
