/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_IO_GZIP_H
#define AGENT_IO_GZIP_H

/* zlib for whole pieces in memory: gzip members that may be put one after the other. */

#include <stddef.h>

#include "agent/base/buf.h"

/* Appends one gzip member; `level` 1 to 9. -EFBIG past the buffer's ceiling. */
int gzip_add(Buf *buf, const void *data, size_t size, int level) must_check;
/* Appends what one or more members hold. -EBADMSG for anything else; -EFBIG past the ceiling. */
int gunzip_add(Buf *buf, const void *data, size_t size) must_check;

#endif
