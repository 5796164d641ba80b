/* SPDX-License-Identifier: Apache-2.0 */

/* io.mervis.Crawler1: any arguments to any method. A back-fill that is taken has a range of time,
 * and is recorded under a job that exists. Jobs, dates and the fetcher are the daemon's own; what
 * reaches the spool is a double. */

#include <errno.h>
#include <string.h>

#include "agent/base/str.h"
#include "crawler/crawlerd/manager-private.h"
#include "tests/fuzz/bus-pair.h"

json_t *__wrap_manager_describe(Manager *m);
int __wrap_manager_reload(Manager *m, Error *err);
int __wrap_manager_flush(Manager *m, Error *err);
json_t *__wrap_manager_dead_letters(Manager *m, Error *err);
int __wrap_manager_replay(Manager *m, json_t **ret, Error *err);

json_t *__wrap_manager_describe(Manager *m)
{
    return json_object();
}

int __wrap_manager_reload(Manager *m, Error *err)
{
    return error_set(err, -EINVAL, ERROR_INVALID, "the document is refused");
}

int __wrap_manager_flush(Manager *m, Error *err)
{
    return 0;
}

json_t *__wrap_manager_dead_letters(Manager *m, Error *err)
{
    return json_object();
}

int __wrap_manager_replay(Manager *m, json_t **ret, Error *err)
{
    *ret = json_object();
    return 0;
}

static int cursor_load(void *userdata, const char *job, const char *symbol, const char *range,
                       Cursor *ret, Error *err)
{
    return 0;
}

static int cursors_forget(void *userdata, const char *job, const char *range, Error *err)
{
    return 0;
}

static int text_load(void *userdata, const char *name, char **ret, Error *err)
{
    return 0;
}

static int text_save(void *userdata, const char *name, const char *text, bool now, Error *err)
{
    const char *job = startswith(name, "backfill:");
    const char *to;

    if (!job)
        return 0;
    FUZZ_CHECK(streq(job, "us-1m") && text && (to = strchr(text, ' ')));
    FUZZ_CHECK(atoll(text) < atoll(to + 1));
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const methods[] = {"Backfill", "RunJob", "Describe",    "Reload",
                                          "Flush",    "Replay", "DeadLetters", "Nothing"};
    static const FetchMemory memory = {cursor_load, cursors_forget, text_load, text_save, NULL};
    static const FetchHandlers handlers = {0};
    static char symbol[] = "AAPL";
    static char *symbols[] = {symbol, NULL};
    static Recipe *recipe;
    Manager m = {.phase = PHASE_RUNNING};
    BusPair pair;

    fuzz_use_built_in_recipes();
    if (!recipe)
        FUZZ_CHECK(recipe_load("yahoo-chart", &recipe, NULL) >= 0);
    const FetchJob job = {.name = "us-1m",
                          .recipe = recipe,
                          .symbols = symbols,
                          .n_symbols = 1,
                          .interval = "1m",
                          .every_usec = UINT64_C(60000000)};
    const FetchConfig config = {.jobs = &job, .n_jobs = 1, .connections = 1, .nat_ports = 64};

    bus_pair_init(&pair);
    m.event = pair.event;
    FUZZ_CHECK(http_client_new(pair.event, "mervis-fuzz/1", &m.http, NULL) >= 0);
    FUZZ_CHECK(fetcher_new(pair.event, m.http, &memory, &handlers, &m.fetcher, NULL) >= 0);
    fetcher_hold(m.fetcher, "nothing leaves");
    FUZZ_CHECK(fetcher_configure(m.fetcher, &config, NULL) >= 0);
    FUZZ_CHECK(manager_serve_bus(&m, NULL) >= 0 && m.bus);
    bus_pair_call(&pair, methods, ELEMENTS(methods), data, size);
    crawl_event_listen(NULL, NULL);
    m.turn = sd_event_source_disable_unref(m.turn);
    m.fetcher = fetcher_free(m.fetcher);
    m.http = http_client_free(m.http);
    m.bus = sd_bus_unref(m.bus);
    bus_pair_done(&pair);
    return 0;
}
