/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_IO_GZIP_H
#define AGENT_IO_GZIP_H

/* zlib for gzip members that may be put one after the other: whole pieces in memory, and streams.
 */

#include <stdbool.h>
#include <stddef.h>

#include "agent/base/buf.h"
#include "agent/base/cleanup.h"

/* What is put in with gunzip_feed() comes out at the handler, piece by piece. */
typedef struct Gunzip Gunzip;

/* A piece of the plain text. A negative return ends the feed that called it, with that code. */
typedef int (*GunzipHandler)(const void *data, size_t size, void *userdata);

/* Appends one gzip member; `level` 1 to 9. -EFBIG past the buffer's ceiling. */
int gzip_add(Buf *buf, const void *data, size_t size, int level) must_check;
/* Appends what one or more members hold. -EBADMSG for anything else; -EFBIG past the ceiling. */
int gunzip_add(Buf *buf, const void *data, size_t size) must_check;

int gunzip_new(GunzipHandler handler, void *userdata, Gunzip **ret) must_check;
Gunzip *gunzip_free(Gunzip *g);
DEFINE_AUTO(Gunzip, gunzip_free)
/* -EBADMSG for what is no gzip; a wrong checksum is told at the end of its member, when its text is
 * long with the handler. After a failure nothing more may be fed. */
int gunzip_feed(Gunzip *g, const void *data, size_t size) must_check;
/* Whether what was fed may end here: nothing at all, or whole members. A stream that was cut short
 * shows here and nowhere else. */
bool gunzip_is_whole(const Gunzip *g);

#endif
