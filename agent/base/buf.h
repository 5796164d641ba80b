/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_BASE_BUF_H
#define AGENT_BASE_BUF_H

/* A growable byte buffer with a ceiling: the one place where bytes from outside pile up. `data` is
 * always followed by a NUL that `size` does not count, so text can be read in place. */

#include <stddef.h>
#include <stdint.h>

#include "agent/base/cleanup.h"

typedef struct Buf {
    char *data; /* NULL while nothing was ever added */
    size_t size;
    size_t allocated;
    size_t max; /* the most bytes it takes; growing past it is -EFBIG */
} Buf;

#define BUF_INIT(max_bytes) ((Buf){.max = (max_bytes)})

/* Room for `size` more bytes; -EFBIG past the ceiling, -ENOMEM. The content stays as it was on
 * failure. */
int buf_reserve(Buf *buf, size_t size) must_check;
int buf_add(Buf *buf, const void *data, size_t size) must_check;
int buf_add_str(Buf *buf, const char *s) must_check;
int buf_add_char(Buf *buf, char c) must_check;
int buf_printf(Buf *buf, const char *format, ...) printf_like(2, 3) must_check;
/* Drops the first `size` bytes. */
void buf_consume(Buf *buf, size_t size);
/* Empties it and keeps the memory. */
void buf_clear(Buf *buf);
/* The text, "" when empty; borrowed. */
const char *buf_str(const Buf *buf);
/* Hands the text over (never NULL but for -ENOMEM → NULL) and empties the buffer. */
char *buf_take(Buf *buf);
void buf_done(Buf *buf);

#define auto_buf auto_(buf_done)

#endif
