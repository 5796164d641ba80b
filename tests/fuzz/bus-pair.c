/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/bus-pair.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/base/str.h"
#include "agent/io/bus.h"

#define TURNS_MAX     1000
#define ARGUMENTS_MAX 16

static BusPair *current;

int __wrap_bus_open(sd_event *event, sd_bus **ret, Error *err) must_check;
int __wrap_bus_serve(sd_bus *bus, const char *name, const char *path, const char *interface,
                     const sd_bus_vtable *vtable, void *userdata, Error *err) must_check;

int __wrap_bus_open(sd_event *event, sd_bus **ret, Error *err)
{
    *ret = sd_bus_ref(current->daemon);
    return 0;
}

int __wrap_bus_serve(sd_bus *bus, const char *name, const char *path, const char *interface,
                     const sd_bus_vtable *vtable, void *userdata, Error *err)
{
    current->path = path;
    current->interface = interface;
    return sd_bus_add_object_vtable(bus, NULL, path, interface, vtable, userdata);
}

static sd_bus *one_end(sd_event *event, int fd, bool is_server)
{
    sd_id128_t id = SD_ID128_MAKE(a1, a2, a3, a4, a5, a6, a7, a8, a9, aa, ab, ac, ad, ae, af, a0);
    sd_bus *bus = NULL;

    FUZZ_CHECK(sd_bus_new(&bus) >= 0 && sd_bus_set_fd(bus, fd, fd) >= 0);
    if (is_server)
        FUZZ_CHECK(sd_bus_set_server(bus, true, id) >= 0);
    FUZZ_CHECK(sd_bus_start(bus) >= 0 && sd_bus_attach_event(bus, event, 0) >= 0);
    return bus;
}

void bus_pair_init(BusPair *pair)
{
    int fds[2];

    *pair = (BusPair){0};
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    FUZZ_CHECK(sd_event_new(&pair->event) >= 0);
    pair->daemon = one_end(pair->event, fds[0], true);
    pair->caller = one_end(pair->event, fds[1], false);
    current = pair;
}

void bus_pair_done(BusPair *pair)
{
    current = NULL;
    (void)sd_bus_close_unref(pair->caller);
    (void)sd_bus_close_unref(pair->daemon);
    sd_event_unref(pair->event);
}

static int add_argument(sd_bus_message *call, char type, const char *text)
{
    uint64_t number = strlen(text);

    switch (type) {
    case SD_BUS_TYPE_STRING:
    case SD_BUS_TYPE_OBJECT_PATH:
    case SD_BUS_TYPE_SIGNATURE:
        return sd_bus_message_append_basic(call, type, text);
    case SD_BUS_TYPE_UINT64:
    case SD_BUS_TYPE_UINT32:
    case SD_BUS_TYPE_BYTE:
    case SD_BUS_TYPE_BOOLEAN:
        return sd_bus_message_append_basic(call, type, &number);
    case SD_BUS_TYPE_ARRAY:
        return sd_bus_message_append(call, "as", 1, text);
    case SD_BUS_TYPE_VARIANT:
        return sd_bus_message_append(call, "v", "s", text);
    default:
        return -EINVAL;
    }
}

static int on_reply(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
    const sd_bus_error *error = sd_bus_message_get_error(reply);
    auto_error Error err = {0};
    const char *text = NULL;

    *(bool *)userdata = true;
    if (!error) {
        FUZZ_CHECK(*sd_bus_message_get_signature(reply, true) == '\0' ||
                   sd_bus_message_read(reply, "s", &text) > 0);
        return 1;
    }
    FUZZ_CHECK(bus_error_to(error, -EIO, "the call", &err) < 0);
    FUZZ_CHECK(err.message && str_is_utf8(err.message, strlen(err.message)));
    return 1;
}

/* 0 when the input spells no message. */
static int make_call(BusPair *pair, const char *method, char *lines, sd_bus_message **ret)
{
    sd_bus_message *call = NULL;
    int n = 0;

    FUZZ_CHECK(sd_bus_message_new_method_call(pair->caller, &call, NULL, pair->path,
                                              pair->interface, method) >= 0);
    for (char *line = lines, *next; line && *line && n < ARGUMENTS_MAX; line = next, n++) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        if (*line && add_argument(call, *line, line + 1) < 0) {
            sd_bus_message_unref(call);
            return 0;
        }
    }
    *ret = call;
    return 1;
}

void bus_pair_call(BusPair *pair, const char *const *methods, size_t n_methods, const uint8_t *data,
                   size_t size)
{
    auto_free char *lines = size > 0 ? strndup((const char *)data + 1, size - 1) : NULL;
    sd_bus_message *call = NULL;
    sd_bus_slot *slot = NULL;
    bool done = false;

    if (!lines || make_call(pair, methods[data[0] % n_methods], lines, &call) <= 0)
        return;
    FUZZ_CHECK(sd_bus_call_async(pair->caller, &slot, call, on_reply, &done, 0) >= 0);
    for (int i = 0; i < TURNS_MAX && !done; i++)
        FUZZ_CHECK(sd_event_run(pair->event, UINT64_C(1000000)) >= 0);
    FUZZ_CHECK(done);
    sd_bus_slot_unref(slot);
    sd_bus_message_unref(call);
}
