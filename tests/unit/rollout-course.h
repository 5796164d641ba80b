/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_ROLLOUT_COURSE_H
#define TESTS_UNIT_ROLLOUT_COURSE_H

#include "tests/unit/rollout-world.h"

/* What happens, and what follows. */
typedef struct Course {
    const char *name;
    const char *plan;   /* of the container */
    const char *before; /* what led to it; not looked at */
    const char *words;
    const char *trace; /* of `words`; NULL: not looked at */
    const char *ready; /* at each call of them; NULL: not looked at */
    const char *boxes;
    const char *state;      /* recorded */
    const char *quarantine; /* "" none */
    const char *message;    /* a part of it; NULL: there is none */
    bool not_ready;
} Course;

/* Each of them in a world of its own; a difference fails the test and is shown. */
void check_courses(const Course *courses, size_t n);

#endif
