/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/io/crypto.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

/* ---- SHA-256 ---- */

struct Sha256 {
    EVP_MD_CTX *context;
};

/* Digesting fails only when memory is out or OpenSSL is broken; neither leaves anything to do. */
int sha256_new(Sha256 **ret)
{
    auto_(sha256_freep) Sha256 *hash = NULL;

    assert(ret);

    hash = calloc(1, sizeof(*hash));
    if (!hash)
        return -ENOMEM;
    hash->context = EVP_MD_CTX_new();
    if (!hash->context || EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL) != 1)
        return -ENOMEM;

    *ret = take_ptr(hash);
    return 0;
}

void sha256_add(Sha256 *hash, const void *data, size_t size)
{
    int ok;

    assert(hash && (data || size == 0));

    ok = EVP_DigestUpdate(hash->context, data, size);
    assert(ok == 1);
}

static void hex_of(const unsigned char *digest, size_t size, char *ret)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < size; i++) {
        ret[2 * i] = digits[digest[i] >> 4];
        ret[2 * i + 1] = digits[digest[i] & 15];
    }
    ret[2 * size] = '\0';
}

void sha256_hex(Sha256 *hash, char ret[static SHA256_HEX_MAX])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    int ok;

    assert(hash);

    ok = EVP_DigestFinal_ex(hash->context, digest, &size);
    assert(ok == 1 && size == 32);
    hex_of(digest, size, ret);
}

Sha256 *sha256_free(Sha256 *hash)
{
    if (!hash)
        return NULL;
    EVP_MD_CTX_free(hash->context);
    free(hash);
    return NULL;
}

void sha256_of(const void *data, size_t size, char ret[static SHA256_HEX_MAX])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_size = 0;
    int ok;

    assert(data || size == 0);

    ok = EVP_Digest(data ? data : "", size, digest, &digest_size, EVP_sha256(), NULL);
    assert(ok == 1 && digest_size == 32);
    hex_of(digest, digest_size, ret);
}

/* ---- CRC-32C ---- */

#define CRC32C_POLYNOMIAL UINT32_C(0x82F63B78)

static uint32_t crc32c_by_table(uint32_t crc, const unsigned char *p, size_t size)
{
    static uint32_t table[256];

    if (table[1] == 0)
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;

            for (int bit = 0; bit < 8; bit++)
                value = (value >> 1) ^ ((value & 1) ? CRC32C_POLYNOMIAL : 0);
            table[i] = value;
        }

    for (size_t i = 0; i < size; i++)
        crc = (crc >> 8) ^ table[(crc ^ p[i]) & 0xff];
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t
crc32c_by_instruction(uint32_t crc, const unsigned char *p, size_t size)
{
    uint64_t wide = crc;

    for (; size >= 8; p += 8, size -= 8) {
        uint64_t word;

        memcpy(&word, p, sizeof(word));
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; size > 0; p++, size--)
        crc = __builtin_ia32_crc32qi(crc, *p);
    return crc;
}

static bool cpu_has_crc32c(void)
{
    return __builtin_cpu_supports("sse4.2");
}
#else
static uint32_t crc32c_by_instruction(uint32_t crc, const unsigned char *p, size_t size)
{
    return crc32c_by_table(crc, p, size);
}

static bool cpu_has_crc32c(void)
{
    return false;
}
#endif

uint32_t crc32c(const void *data, size_t size)
{
    assert(data || size == 0);

    if (cpu_has_crc32c())
        return ~crc32c_by_instruction(UINT32_MAX, data, size);
    return ~crc32c_by_table(UINT32_MAX, data, size);
}

uint32_t crc32c_portable(const void *data, size_t size)
{
    return ~crc32c_by_table(UINT32_MAX, data, size);
}

/* ---- Base64 ---- */

static const char base64_standard[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char base64_url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

char *base64_encode(const void *data, size_t size, bool url)
{
    const char *alphabet = url ? base64_url : base64_standard;
    const unsigned char *p = data;
    char *text;
    size_t n = 0;

    assert(data || size == 0);

    if (size > SIZE_MAX / 2)
        return NULL;
    text = malloc((size + 2) / 3 * 4 + 1);
    if (!text)
        return NULL;

    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        uint32_t group = (uint32_t)p[i] << 16;

        if (left > 1)
            group |= (uint32_t)p[i + 1] << 8;
        if (left > 2)
            group |= p[i + 2];
        text[n++] = alphabet[group >> 18];
        text[n++] = alphabet[(group >> 12) & 63];
        text[n++] = left > 1 ? alphabet[(group >> 6) & 63] : '=';
        text[n++] = left > 2 ? alphabet[group & 63] : '=';
    }
    text[n] = '\0';
    return text;
}

/* The six bits of a character, or -1; notes in *seen_url and *seen_standard whose own it was. */
static int base64_value(char c, bool *seen_standard, bool *seen_url)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+' || c == '/') {
        *seen_standard = true;
        return c == '+' ? 62 : 63;
    }
    if (c == '-' || c == '_') {
        *seen_url = true;
        return c == '-' ? 62 : 63;
    }
    return -1;
}

/* The whole of `text` into `out`; the size, which is three bytes for each group of four characters
 * less one for each '=' among the last two, or -EBADMSG. */
static ptrdiff_t base64_decode_groups(const char *text, size_t size, unsigned char *out)
{
    bool standard = false, url = false;
    size_t n = 0;

    for (size_t i = 0; i < size; i += 4) {
        bool last = i + 4 == size;
        size_t padding = 0;
        uint32_t group = 0;

        if (last && text[i + 3] == '=')
            padding = text[i + 2] == '=' ? 2 : 1;
        for (size_t k = 0; k < 4; k++) {
            int value = k >= 4 - padding ? 0 : base64_value(text[i + k], &standard, &url);

            if (value < 0)
                return -EBADMSG;
            group = group << 6 | (uint32_t)value;
        }
        /* Bits that no byte takes must be zero, or two texts would mean the same bytes. */
        if ((padding == 1 && (group & 0xff)) || (padding == 2 && (group & 0xffff)))
            return -EBADMSG;
        out[n++] = (unsigned char)(group >> 16);
        if (padding < 2)
            out[n++] = (unsigned char)(group >> 8);
        if (padding < 1)
            out[n++] = (unsigned char)group;
    }
    return standard && url ? -EBADMSG : (ptrdiff_t)n;
}

int base64_decode(const char *text, size_t size, Buf *ret)
{
    size_t expected;
    ptrdiff_t n;
    int r;

    assert((text || size == 0) && ret);

    if (size % 4 != 0)
        return -EBADMSG;
    if (size == 0)
        return 0;

    /* Once and large enough: a buffer that grows would leave copies of a secret behind. */
    expected = size / 4 * 3 - (text[size - 1] == '=') - (text[size - 2] == '=');
    r = buf_reserve(ret, expected);
    if (r < 0)
        return r;
    n = base64_decode_groups(text, size, (unsigned char *)ret->data + ret->size);
    if (n < 0) {
        cleanse(ret->data + ret->size, expected);
        ret->data[ret->size] = '\0';
        return (int)n;
    }
    ret->size += (size_t)n;
    ret->data[ret->size] = '\0';
    return 0;
}

/* ---- Bytes that must not stay in memory ---- */

int secret_bytes_new(const void *data, size_t size, SecretBytes **ret)
{
    auto_(secret_bytes_freep) SecretBytes *secret = NULL;

    assert((data || size == 0) && ret);

    secret = calloc(1, sizeof(*secret));
    if (!secret)
        return -ENOMEM;
    secret->data = malloc(size + 1);
    if (!secret->data)
        return -ENOMEM;
    if (size > 0)
        memcpy(secret->data, data, size);
    secret->data[size] = '\0';
    secret->size = size;

    *ret = take_ptr(secret);
    return 0;
}

SecretBytes *secret_bytes_free(SecretBytes *secret)
{
    if (!secret)
        return NULL;
    if (secret->data)
        cleanse(secret->data, secret->size);
    free(secret->data);
    free(secret);
    return NULL;
}

void cleanse(void *data, size_t size)
{
    if (data)
        OPENSSL_cleanse(data, size);
}

void cleanse_free(char *s)
{
    if (!s)
        return;
    cleanse(s, strlen(s));
    free(s);
}

void wiping_free(void *data)
{
    if (data)
        cleanse(data, malloc_usable_size(data));
    free(data);
}

void *wiping_realloc(void *data, size_t size)
{
    void *moved = size > 0 ? malloc(size) : NULL;

    if (size > 0 && !moved)
        return NULL;
    if (data && moved)
        memcpy(moved, data, MIN_OF(size, malloc_usable_size(data)));
    wiping_free(data);
    return moved;
}

void cleanse_freep(char **s)
{
    cleanse_free(*s);
}

void buf_cleanse_done(Buf *buf)
{
    if (buf->data)
        cleanse(buf->data, buf->allocated);
    buf_done(buf);
}
