/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/base/str.h"
#include "agent/io/crypto.h"

static void sha256_gives_the_published_digests(void **state)
{
    static const struct {
        const char *text, *digest;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_(sha256_freep) Sha256 *hash = NULL;
        size_t size = strlen(cases[i].text);
        char hex[SHA256_HEX_MAX];

        sha256_of(cases[i].text, size, hex);
        assert_string_equal(hex, cases[i].digest);

        assert_int_equal(sha256_new(&hash), 0);
        for (size_t k = 0; k < size; k++)
            sha256_add(hash, cases[i].text + k, 1);
        sha256_hex(hash, hex);
        assert_string_equal(hex, cases[i].digest);
    }
}

/* Secret Manager sends the sum as a decimal number: the same vectors in the same form. */
static void crc32c_gives_the_sums_that_secret_manager_sends(void **state)
{
    unsigned char zeros[32] = {0}, ones[32], counting[32];

    memset(ones, 0xff, sizeof(ones));
    for (unsigned i = 0; i < sizeof(counting); i++)
        counting[i] = (unsigned char)i;

    const struct {
        const void *data;
        size_t size;
        uint32_t sum;
    } cases[] = {
        {"", 0, 0},
        {"a", 1, 3251651376U},
        {"123456789", 9, 0xE3069283U},
        {"hunter2\n", 8, 3250045932U},
        {zeros, 32, 2324772522U},
        {ones, 32, 1655221059U},
        {counting, 32, 1188919630U},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        assert_int_equal(crc32c(cases[i].data, cases[i].size), cases[i].sum);
        assert_int_equal(crc32c_portable(cases[i].data, cases[i].size), cases[i].sum);
    }
}

static void crc32c_is_the_same_with_and_without_the_instruction(void **state)
{
    unsigned char data[300];
    uint32_t next = 1;

    for (size_t i = 0; i < sizeof(data); i++) {
        next = next * 1664525U + 1013904223U;
        data[i] = (unsigned char)(next >> 24);
    }
    for (size_t from = 0; from < 9; from++)
        for (size_t size = 0; from + size <= sizeof(data); size++)
            assert_int_equal(crc32c(data + from, size), crc32c_portable(data + from, size));
}

static void base64_goes_there_and_back(void **state)
{
    static const struct {
        const char *plain, *text;
    } cases[] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        size_t size = strlen(cases[i].plain);
        auto_free char *text = base64_encode(cases[i].plain, size, /* url= */ false);
        auto_buf Buf back = BUF_INIT(64);

        assert_string_equal(text, cases[i].text);
        assert_int_equal(base64_decode(text, strlen(text), &back), 0);
        assert_int_equal(back.size, size);
        assert_string_equal(buf_str(&back), cases[i].plain);
    }
}

static void base64_carries_every_byte_in_both_alphabets(void **state)
{
    unsigned char bytes[256];

    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(255 - i);

    for (int url = 0; url < 2; url++) {
        auto_free char *text = base64_encode(bytes, sizeof(bytes), url);
        auto_buf Buf back = BUF_INIT(sizeof(bytes));

        assert_true((strpbrk(text, "+/") != NULL) == !url);
        assert_true((strpbrk(text, "-_") != NULL) == url);
        assert_int_equal(base64_decode(text, strlen(text), &back), 0);
        assert_int_equal(back.size, sizeof(bytes));
        assert_memory_equal(back.data, bytes, sizeof(bytes));
    }
}

static void base64_refuses_what_is_not_exactly_base64(void **state)
{
    static const char *const bad[] = {
        "Z",    "Zg",       "Zg=",      "Zg===",  "=g==",
        "Z===", "====",     "Zg==Zg==", "Zm9v\n", "Zm 9",
        "Zm9*", "Zm9v+-aa", "Zh==",     "Zm9=",   "Zm9vYg==\n\n\n\n",
    };

    for (size_t i = 0; i < ELEMENTS(bad); i++) {
        auto_buf Buf out = BUF_INIT(64);

        assert_int_equal(buf_add_str(&out, "kept"), 0);
        if (base64_decode(bad[i], strlen(bad[i]), &out) != -EBADMSG)
            fail_msg("\"%s\" was taken", bad[i]);
        assert_string_equal(buf_str(&out), "kept");
    }
}

static void base64_keeps_to_the_ceiling_of_the_buffer(void **state)
{
    auto_buf Buf out = BUF_INIT(4);

    assert_int_equal(base64_decode("Zm9vYmFy", 8, &out), -EFBIG);
    assert_int_equal(out.size, 0);
}

static void secret_bytes_keep_nul_and_are_terminated(void **state)
{
    auto_(secret_bytes_freep) SecretBytes *secret = NULL;

    assert_int_equal(secret_bytes_new("a\0b", 3, &secret), 0);
    assert_int_equal(secret->size, 3);
    assert_memory_equal(secret->data, "a\0b", 4);
    secret_bytes_free(take_ptr(secret));

    assert_int_equal(secret_bytes_new(NULL, 0, &secret), 0);
    assert_string_equal(secret->data, "");
}

static void cleansing_leaves_no_byte(void **state)
{
    char text[] = "hunter2";
    static const char zeros[sizeof(text)] = {0};
    Buf buf = BUF_INIT(64);

    cleanse(text, sizeof(text));
    assert_memory_equal(text, zeros, sizeof(text));

    cleanse(NULL, 0);
    cleanse_free(NULL);
    buf_cleanse_done(&buf);
    assert_int_equal(buf_add_str(&buf, "hunter2"), 0);
    buf_cleanse_done(&buf);
    assert_null(buf.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_gives_the_published_digests),
        cmocka_unit_test(crc32c_gives_the_sums_that_secret_manager_sends),
        cmocka_unit_test(crc32c_is_the_same_with_and_without_the_instruction),
        cmocka_unit_test(base64_goes_there_and_back),
        cmocka_unit_test(base64_carries_every_byte_in_both_alphabets),
        cmocka_unit_test(base64_refuses_what_is_not_exactly_base64),
        cmocka_unit_test(base64_keeps_to_the_ceiling_of_the_buffer),
        cmocka_unit_test(secret_bytes_keep_nul_and_are_terminated),
        cmocka_unit_test(cleansing_leaves_no_byte),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
