/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as the metadata tree, and as a refusal of one of the APIs: read into a whole state or
 * refused, and every refusal has words. */

#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/cloud/cloud-gce.h"
#include "tests/fuzz/fuzz.h"

static void check_tree(const char *data, size_t size)
{
    auto_(cloud_state_unrefp) CloudState *state = NULL;
    auto_free char *raw_path = NULL;
    auto_error Error error = {0};
    int r = gce_parse_root(data, size, &state, &raw_path, &error);

    if (r < 0) {
        FUZZ_CHECK(!state && !raw_path && error.code == r && error.kind == ERROR_CORRUPT);
        return;
    }
    FUZZ_CHECK(state->identity.instance_id && state->identity.zone && state->identity.scopes);
    FUZZ_CHECK(state->plan_where && *state->plan_where);
    FUZZ_CHECK((state->plan_source == CLOUD_PLAN_NONE) == !state->plan);
    FUZZ_CHECK(!state->plan || (strlen(state->plan) == state->plan_size &&
                                str_is_utf8(state->plan, state->plan_size)));
    FUZZ_CHECK(!state->plan == !*state->plan_sha256);
    FUZZ_CHECK(!raw_path || strstr(state->plan, "\xef\xbf\xbd"));
    FUZZ_CHECK(cloud_state_compare(state, state) == 0);
}

static void check_refusal(const char *data, size_t size, long status)
{
    const CloudNeed need = {.what = "secret KEY"};
    HttpResponse response = {.status = status, .content_type = "", .body = BUF_INIT(size + 1)};
    auto_error Error error = {0};

    FUZZ_CHECK(buf_add(&response.body, data, size) == 0);
    FUZZ_CHECK(gce_judge_with(NULL, NULL, &response, &need, &error) < 0);
    FUZZ_CHECK(startswith(error_text(&error), "secret KEY"));
    FUZZ_CHECK(str_is_utf8(error.message, strlen(error.message)));
    FUZZ_CHECK(error.kind != ERROR_DENIED || error.remedy);
    buf_done(&response.body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_tree((const char *)data, size);
    check_refusal((const char *)data, size, 403);
    check_refusal((const char *)data, size, 400);
    return 0;
}
