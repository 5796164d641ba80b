/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/str.h"
#include "agent/cloud/cloud-gce.h"

/* Guest attributes are meant for some ten requests a minute, for all of a VM's programs together.
 */
#define PUBLISH_GAP_USEC   (10 * SECOND)
#define PUBLISH_RETRY_USEC (60 * SECOND)
#define PUBLISH_OFF_USEC   (15 * MINUTE) /* somebody may have switched them on meanwhile */

struct Publication {
    LIST_FIELDS(Publication, all);
    char *key;
    char *wanted, *sending, *there; /* the last text asked for, on its way, and confirmed */
};

static void publish_next(Gce *gce);

static void publish_after(Gce *gce, uint64_t delay_usec)
{
    if (!timer_is_set(gce->publish_timer))
        (void)timer_set(gce->publish_timer, delay_usec, SECOND);
}

static void on_published(HttpOp *op, const HttpResponse *response, const Error *err, void *userdata)
{
    Gce *gce = userdata;
    bool done = !err && response->status >= 200 && response->status < 300;
    bool off = !err && (response->status == 403 || response->status == 404);

    for (Publication *publication = gce->publications; publication;
         publication = publication->all_next) {
        if (!publication->sending)
            continue;
        if (done) {
            free(publication->there);
            publication->there = take_ptr(publication->sending);
        }
        free(publication->sending);
        publication->sending = NULL;
    }
    gce->published_usec = now_boottime_usec();
    gce->publish_is_off = off;
    gce->publish_request = http_op_free(gce->publish_request);
    publish_after(gce, done ? PUBLISH_GAP_USEC : off ? PUBLISH_OFF_USEC : PUBLISH_RETRY_USEC);
}

static int publish_start(Gce *gce, Publication *publication)
{
    auto_free char *key = url_escape(publication->key, NULL), *path = NULL, *url = NULL;
    HttpRequest request;

    path = key ? str_printf("instance/guest-attributes/mervis/%s", key) : NULL;
    publication->sending = strdup(publication->wanted);
    if (!path || !publication->sending || gce_request(gce, path, &request, &url) < 0)
        return -ENOMEM;
    request.method = "PUT";
    request.body = publication->sending;
    request.body_size = strlen(publication->sending);
    request.copy_body = true;
    request.retry.tries = 1;
    return http_start(gce->cloud.http, &request, on_published, gce, &gce->publish_request, NULL);
}

/* The next text that differs from what is there, one at a time. */
static void publish_next(Gce *gce)
{
    if (gce->publish_request)
        return;
    for (Publication *publication = gce->publications; publication;
         publication = publication->all_next) {
        if (streq_ptr(publication->wanted, publication->there))
            continue;
        if (publish_start(gce, publication) < 0) {
            free(publication->sending);
            publication->sending = NULL;
            publish_after(gce, PUBLISH_RETRY_USEC);
        }
        return;
    }
}

static void on_publish_timer(void *userdata)
{
    publish_next(userdata);
}

static Publication *publication_of(Gce *gce, const char *key)
{
    Publication *publication;

    for (Publication *i = gce->publications; i; i = i->all_next)
        if (streq(i->key, key))
            return i;

    publication = calloc(1, sizeof(*publication));
    if (!publication)
        return NULL;
    publication->key = strdup(key);
    if (!publication->key) {
        free(publication);
        return NULL;
    }
    LIST_PREPEND(all, gce->publications, publication);
    return publication;
}

/* Cut between two characters. */
static char *shortened(const char *text)
{
    size_t size = strnlen(text, CLOUD_STATUS_MAX);

    while (text[size] && size > 0 && ((unsigned char)text[size] & 0xc0) == 0x80)
        size--;
    return strndup(text, size);
}

/* It was off, and the attributes say that it is not any more. */
static bool was_switched_on(const Gce *gce)
{
    const CloudIdentity *identity = cloud_identity_peek(&gce->cloud);

    return gce->publish_is_off && identity && identity->publishes &&
           now_boottime_usec() - gce->published_usec >= PUBLISH_RETRY_USEC;
}

void gce_publish(Cloud *cloud, const char *key, const char *text)
{
    Gce *gce = gce_of(cloud);
    Publication *publication = publication_of(gce, key);
    char *copy = shortened(text);

    if (!publication || !copy ||
        (!gce->publish_timer &&
         timer_new(cloud->event, on_publish_timer, gce, &gce->publish_timer) < 0)) {
        free(copy);
        return;
    }
    free(publication->wanted);
    publication->wanted = copy;
    if (was_switched_on(gce))
        timer_cancel(gce->publish_timer);
    /* The first at once; what comes soon after it is gathered. */
    if (!gce->publish_request)
        publish_after(gce, 0);
}

void gce_publish_close(Gce *gce)
{
    gce->publish_request = http_op_free(gce->publish_request);
    gce->publish_timer = timer_free(gce->publish_timer);
    while (gce->publications) {
        Publication *publication = gce->publications;

        LIST_REMOVE(all, gce->publications, publication);
        free(publication->key);
        free(publication->wanted);
        free(publication->sending);
        free(publication->there);
        free(publication);
    }
}
