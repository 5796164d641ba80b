/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/bar-fixture.h"

#include <endian.h>
#include <errno.h>

#include "agent/base/time.h"
#include "crawler/spool/block.h"

static void encode(const RowSet *set, Buf *ret)
{
    auto_free uint32_t *indices = calloc(set->n, sizeof(*indices));

    for (uint32_t i = 0; i < set->n; i++)
        indices[i] = i;
    assert_int_equal(block_encode(set->rows, indices, set->n, ret), 0);
}

static void assert_comes_back(const RowSet *set, const Buf *block)
{
    auto_block BlockReader reader = {0};
    Row row;

    assert_int_equal(block_open(&reader, block->data, block->size), 0);
    for (size_t i = 0; i < set->n; i++) {
        assert_int_equal(block_next(&reader, &row), 1);
        assert_true(row_same_identity(&row, &set->rows[i]));
        assert_true(row_same_values(&row, &set->rows[i]));
        assert_true(amount_equal(&row.adj_close, &set->rows[i].adj_close));
        assert_int_equal(row.trade_date, set->rows[i].trade_date);
        assert_int_equal(row.revision, set->rows[i].revision);
        assert_int_equal(row.session, set->rows[i].session);
    }
    assert_int_equal(block_next(&reader, &row), 0);
}

static void a_block_gives_back_the_rows_that_went_in(void **state)
{
    auto_row_set RowSet set = {0};
    auto_buf Buf block = BUF_INIT(1 << 20), lines = BUF_INIT(1 << 20);
    uint32_t indices[] = {0, 1, 2, 3};
    uint64_t size;
    Row *odd;

    add_bar(&set, "삼성 \"전자\"", T0, "258.1");
    odd = add_bar(&set, "삼성 \"전자\"", T0 + 1, "0.5");
    odd->revision = 70000;
    odd->is_final = false;
    odd->session = SESSION_NONE;
    odd = add_bar(&set, "삼성 \"전자\"", -5 * (int64_t)DAY, "-7");
    odd->kind = ROW_SPLIT;
    odd->ratio_num = amount("4");
    odd->ratio_den = amount("1");
    add_bar(&set, "삼성 \"전자\"", T0 + (int64_t)DAY, "99999999999999999999999999999999999999");
    assert_int_equal(block_encode(set.rows, indices, 4, &block), 0);
    assert_comes_back(&set, &block);

    assert_int_equal(block_expand(block.data, block.size, "0123456789012345678901", &lines), 0);
    assert_int_equal(block_lines_size(set.rows, indices, 4, &size), 0);
    assert_int_equal(size, lines.size);
    assert_contains(lines.data, "\"symbol\":\"삼성 \\\"전자\\\"\"");
    assert_contains(lines.data, "\"low\":\"-0.000000001\"");
    assert_contains(lines.data, "\"ts\":\"2026-10-07T00:00:00.000001Z\"");
    assert_contains(lines.data, "\"batch_id\":\"0123456789012345678901\"}\n");
}

/* Never the same twice in a row, and the same in every run. */
static uint64_t draw(uint64_t *state, uint64_t below)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (*state >> 33) % below;
}

/* As a source sends them: cents, a close that is the next open, trailing zeros gone. */
static void a_minute_bar_is_small_on_disk(void **state)
{
    auto_row_set RowSet set = {0};
    auto_buf Buf block = BUF_INIT(1 << 20);
    uint64_t seed = 7, cents = 25810;

    for (size_t i = 0; i < 390; i++) {
        Row *row = add_bar(&set, "AAPL", T0 + (int64_t)(i * MINUTE), "0");
        uint64_t opened = cents;
        char text[32];

        cents = cents + draw(&seed, 61) - 30;
#define CENTS(value)                                                                               \
    ((void)snprintf(text, sizeof(text), "%.2f", (double)(value) / 100), amount(text))
        row->open = CENTS(opened);
        row->high = CENTS(MAX_OF(opened, cents) + draw(&seed, 9));
        row->low = CENTS(MIN_OF(opened, cents) - draw(&seed, 9));
        row->close = CENTS(cents);
        row->volume = amount_from_i64((int64_t)draw(&seed, 1000000));
#undef CENTS
    }
    encode(&set, &block);
    assert_comes_back(&set, &block);
    assert_true(block.size < 390 * 10);
}

/* Scales that grow, numbers of 38 digits, trailing zeros that nobody strips, columns that come and
 * go, days and revisions: what is told from the row before, and what is not. */
static void rows_of_any_shape_come_back(void **state)
{
    auto_row_set RowSet set = {0};
    auto_buf Buf block = BUF_INIT(4 << 20);
    uint64_t seed = 1;
    int64_t ts = T0;

    for (size_t i = 0; i < BLOCK_ROWS_MAX; i++) {
        Row *row = add_bar(&set, "AAPL", ts, "1");
        Amount *const amounts[] = {&row->open,   &row->high,      &row->low,
                                   &row->close,  &row->volume,    &row->adj_close,
                                   &row->amount, &row->ratio_num, &row->ratio_den};

        for (size_t k = 0; k < ELEMENTS(amounts); k++) {
            AmountMantissa mantissa = (AmountMantissa)draw(&seed, UINT64_C(1) << draw(&seed, 32));

            for (uint64_t n = draw(&seed, 50) == 0 ? draw(&seed, 30) : 0; n > 0; n--)
                mantissa = mantissa * 10 % ((AmountMantissa)1 << 120) + (AmountMantissa)n;
            *amounts[k] = draw(&seed, 4) == 0
                              ? AMOUNT_ABSENT
                              : (Amount){.mantissa = draw(&seed, 5) == 0 ? -mantissa : mantissa,
                                         .scale = (uint8_t)draw(&seed, 1 + i * 38 / BLOCK_ROWS_MAX),
                                         .present = true};
        }
        row->trade_date += (int32_t)draw(&seed, 40) / 39;
        row->revision = draw(&seed, 40) == 0 ? (uint32_t)draw(&seed, UINT32_MAX) : 0;
        row->is_final = draw(&seed, 9) != 0;
        row->kind = (RowKind)draw(&seed, draw(&seed, 9) == 0 ? 4 : 1);
        ts += draw(&seed, 9) == 0 ? -(int64_t)draw(&seed, UINT32_MAX) : (int64_t)MINUTE;
    }
    encode(&set, &block);
    assert_comes_back(&set, &block);
}

static void a_damaged_block_is_refused_wherever_it_is_hurt(void **state)
{
    auto_row_set RowSet set = {0};
    auto_buf Buf block = BUF_INIT(1 << 20), lines = BUF_INIT(16 << 20);
    uint32_t indices[] = {0, 1};
    char again[1024];
    uint64_t sum;
    int r;

    add_bar(&set, "AAPL", T0, "258.1");
    add_bar(&set, "AAPL", T0 + (int64_t)MINUTE, "258.1");
    assert_int_equal(block_encode(set.rows, indices, 2, &block), 0);
    assert_true(block.size < sizeof(again));
    for (size_t size = 0; size < block.size; size++)
        assert_true(block_expand(block.data, size, "0123456789012345678901", &lines) < 0);
    for (size_t at = 0; at < block.size; at++)
        for (unsigned bit = 0; bit < 8; bit++) {
            block.data[at] = (char)(block.data[at] ^ (1 << bit));
            buf_clear(&lines);
            r = block_expand(block.data, block.size, "0123456789012345678901", &lines);
            assert_int_equal(r, -EBADMSG);
            assert_int_equal(lines.size, 0);
            /* Its sum made right: refused or read, and nothing else. The sanitizers watch. */
            sum = htole64(block_sum(block.data, block.size - sizeof(sum)));
            memcpy(again, block.data, block.size);
            memcpy(again + block.size - sizeof(sum), &sum, sizeof(sum));
            r = block_expand(again, block.size, "0123456789012345678901", &lines);
            assert_true(r == 0 || r == -EBADMSG || r == -EFBIG);
            block.data[at] = (char)(block.data[at] ^ (1 << bit));
        }
}

TEST_MAIN(cmocka_unit_test(a_block_gives_back_the_rows_that_went_in),
          cmocka_unit_test(a_minute_bar_is_small_on_disk),
          cmocka_unit_test(rows_of_any_shape_come_back),
          cmocka_unit_test(a_damaged_block_is_refused_wherever_it_is_hurt))
