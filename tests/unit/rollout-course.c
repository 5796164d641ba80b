/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/rollout-course.h"

#include <stdlib.h>

#include "agent/resource/container.h"

static void check_text(const char *name, const char *what, const char *is, const char *should)
{
    if (!streq_ptr(is, should))
        fail_msg("%s: %s is\n%s\nand should be\n%s", name, what, is, should);
}

static void check_message(const char *name, const World *w, const char *part)
{
    const char *is = w->error.code < 0 ? error_text(&w->error) : NULL;

    if (!part && is)
        fail_msg("%s: it complains: %s", name, is);
    if (part && (!is || !strstr(is, part)))
        fail_msg("%s: the message is \"%s\" and should have \"%s\"", name, is ? is : "", part);
}

static void check_course(const Course *course)
{
    auto_(world_freep) World *w = world_new(course->plan, strstr(course->plan, JOB) != NULL);
    auto_free char *boxes = NULL, *state = NULL, *quarantine = NULL;

    if (course->before)
        world_do(w, course->before);
    w->trace.size = w->ready.size = 0;
    world_do(w, course->words);
    boxes = world_boxes(w);
    state = world_state(w);
    quarantine = world_quarantine(w);
    if (course->trace)
        check_text(course->name, "what the engine was told",
                   w->trace.size ? buf_str(&w->trace) : "", course->trace);
    if (course->ready)
        check_text(course->name, "where it was ready", w->ready.size ? buf_str(&w->ready) : "",
                   course->ready);
    check_text(course->name, "what is there", boxes, course->boxes);
    check_text(course->name, "the state", state, course->state);
    check_text(course->name, "the quarantine", quarantine, course->quarantine);
    check_message(course->name, w, course->message);
    if (container_is_ready(w->resource) == course->not_ready)
        fail_msg("%s: it is %sready", course->name, course->not_ready ? "" : "not ");
}

void check_courses(const Course *courses, size_t n)
{
    for (size_t i = 0; i < n; i++)
        check_course(&courses[i]);
}
