/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as a block of the spool: refused, or rows that go in and come out again as they are,
 * and as many lines as rows, of the size that was foretold. */

#include <endian.h>
#include <string.h>

#include "crawler/spool/block.h"
#include "crawler/spool/keys.h"
#include "tests/fuzz/fuzz.h"

#define ROWS_MAX 64
static const char batch_id[] = "0123456789012345678901";

static void check_again(const Row *rows, size_t n, const Buf *again)
{
    auto_block BlockReader reader = {0};
    Row row;

    FUZZ_CHECK(block_open(&reader, again->data, again->size) >= 0);
    for (size_t i = 0; i < n; i++)
        FUZZ_CHECK(block_next(&reader, &row) > 0 && row_same_identity(&row, &rows[i]) &&
                   row_same_values(&row, &rows[i]) && row.trade_date == rows[i].trade_date &&
                   row.revision == rows[i].revision && row.session == rows[i].session &&
                   amount_equal(&row.adj_close, &rows[i].adj_close));
    FUZZ_CHECK(block_next(&reader, &row) == 0);
}

static void check_rows(const Row *rows, size_t n)
{
    auto_buf Buf again = BUF_INIT(BLOCK_BYTES_MAX), lines = BUF_INIT(16U << 20);
    uint32_t indices[ROWS_MAX];
    uint64_t size = 0;
    size_t newlines = 0;

    for (uint32_t i = 0; i < n; i++)
        indices[i] = i;
    if (block_encode(rows, indices, n, &again) < 0)
        return;
    check_again(rows, n, &again);
    if (block_expand(again.data, again.size, batch_id, &lines) < 0)
        return; /* a string that is not UTF-8 */
    FUZZ_CHECK(block_lines_size(rows, indices, n, &size) >= 0 && size == lines.size);
    for (size_t i = 0; i < lines.size; i++)
        newlines += lines.data[i] == '\n';
    FUZZ_CHECK(newlines == n);
}

static void check_keys(const uint8_t *data, size_t size)
{
    auto_(keys_done) Keys keys = {0}, again = {0};
    auto_buf Buf bytes = BUF_INIT(16U << 20);

    if (keys_load(&keys, data, size) < 0)
        return;
    FUZZ_CHECK(keys_format(&keys, &bytes) >= 0);
    FUZZ_CHECK(keys_load(&again, bytes.data, bytes.size) >= 0 && again.n == keys.n);
    for (size_t i = 0; i < keys.n; i++)
        FUZZ_CHECK(keys.items[i].ts_usec == again.items[i].ts_usec &&
                   keys.items[i].hash == again.items[i].hash &&
                   keys.items[i].revision == again.items[i].revision &&
                   keys.items[i].kind == again.items[i].kind &&
                   keys.items[i].not_final == again.items[i].not_final);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_block BlockReader reader = {0};
    auto_buf Buf block = BUF_INIT(16U << 20);
    uint64_t sum = htole64(block_sum(data, size));
    Row rows[ROWS_MAX];
    size_t n = 0;
    int r;

    check_keys(data, size);
    /* What is read lies behind a sum that chance never finds. */
    if (buf_add(&block, data, size) < 0 || buf_add(&block, &sum, sizeof(sum)) < 0 ||
        block_open(&reader, block.data, block.size) < 0)
        return 0;
    while ((r = block_next(&reader, &rows[n])) > 0)
        if (++n == ROWS_MAX)
            break;
    if (r >= 0 && n > 0)
        check_rows(rows, n);
    return 0;
}
