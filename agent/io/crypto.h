/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_IO_CRYPTO_H
#define AGENT_IO_CRYPTO_H

/* Digests, checksums, encodings, and bytes that must not be left in memory. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/error.h"

#define SHA256_HEX_MAX 65
typedef struct Sha256 Sha256;
int sha256_new(Sha256 **ret) must_check;
void sha256_add(Sha256 *hash, const void *data, size_t size);
/* Lower-case hex and NUL. The hash can take no more. */
void sha256_hex(Sha256 *hash, char ret[static SHA256_HEX_MAX]);
Sha256 *sha256_free(Sha256 *hash);
DEFINE_AUTO(Sha256, sha256_free)
void sha256_of(const void *data, size_t size, char ret[static SHA256_HEX_MAX]);

/* CRC-32C (Castagnoli, reflected, init and final xor 0xFFFFFFFF), as Secret Manager sends it.
 * crc32c("123456789") is 0xE3069283. */
uint32_t crc32c(const void *data, size_t size);
/* The same without the CPU's own instruction: what machines without one run, and what tests compare
 * with. */
uint32_t crc32c_portable(const void *data, size_t size);

/* Base64 with padding; `url` uses '-' and '_'. Decoding appends to `ret` and is strict: one
 * alphabet, never both in a text; padding required; no blanks or line ends; unused bits zero.
 * -EBADMSG, -EFBIG over the buffer's ceiling, and `ret` is then as it was. */
char *base64_encode(const void *data, size_t size, bool url);
int base64_decode(const char *text, size_t size, Buf *ret) must_check;

/* A secret's bytes: cleansed when freed, never logged. `data` is followed by a NUL that size does
 * not count. */
typedef struct SecretBytes {
    char *data;
    size_t size;
} SecretBytes;
int secret_bytes_new(const void *data, size_t size, SecretBytes **ret) must_check;
SecretBytes *secret_bytes_free(SecretBytes *secret);
DEFINE_AUTO(SecretBytes, secret_bytes_free)
/* Overwrites in a way that the compiler may not drop. */
void cleanse(void *data, size_t size);
/* Cleanses, then frees a string or a buffer's content. */
void cleanse_free(char *s);
/* free() and realloc() for a library that copies secrets about: nothing of what it held stays. */
void wiping_free(void *data);
void *wiping_realloc(void *data, size_t size);
void cleanse_freep(char **s);
void buf_cleanse_done(Buf *buf);
#define auto_secret_str auto_(cleanse_freep)
#define auto_secret_buf auto_(buf_cleanse_done)

#endif
