/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/resource/switch.h"

#include <assert.h>
#include <stdio.h>

#include "agent/base/str.h"

#define SUFFIX_NEXT     ".next"
#define SUFFIX_PREVIOUS ".previous"
#define SUFFIX_EARLIER  ".earlier"

/* The slot sorted out: who is who among its containers. */
typedef struct Cast {
    const SwitchQuery *query;
    const SlotContainer *all;
    size_t n;
    const SlotContainer *old;  /* of `current` */
    const SlotContainer *new_; /* of `next` */
    const SlotContainer *spared;
    char next_name[SWITCH_NAME_MAX], previous_name[SWITCH_NAME_MAX], earlier_name[SWITCH_NAME_MAX];
} Cast;

static const SwitchStep done = {.verb = SWITCH_DONE};
static const SwitchStep lost = {.verb = SWITCH_LOST};

static const char *const verb_names[] = {
    [SWITCH_DONE] = "done", [SWITCH_CREATE] = "create", [SWITCH_START] = "start",
    [SWITCH_STOP] = "stop", [SWITCH_RENAME] = "rename", [SWITCH_REMOVE] = "remove",
    [SWITCH_LOST] = "lost",
};

const char *switch_verb_name(SwitchVerb verb)
{
    assert((size_t)verb < ELEMENTS(verb_names));
    return verb_names[verb];
}

const SlotContainer *slot_find(const char *name, const char *release,
                               const SlotContainer *containers, size_t n)
{
    const SlotContainer *found = NULL;

    for (size_t i = 0; i < n; i++) {
        if (!streq(containers[i].release, release))
            continue;
        if (streq(containers[i].name, name))
            return containers + i;
        if (!found)
            found = containers + i;
    }
    return found;
}

static const SlotContainer *named(const Cast *cast, const char *name)
{
    for (size_t i = 0; i < cast->n; i++)
        if (streq(cast->all[i].name, name))
            return cast->all + i;
    return NULL;
}

static void cast_init(Cast *cast, const SwitchQuery *query, const SlotContainer *containers,
                      size_t n)
{
    *cast = (Cast){.query = query, .all = containers, .n = n};
    (void)snprintf(cast->next_name, sizeof(cast->next_name), "%s" SUFFIX_NEXT, query->name);
    (void)snprintf(cast->previous_name, sizeof(cast->previous_name), "%s" SUFFIX_PREVIOUS,
                   query->name);
    (void)snprintf(cast->earlier_name, sizeof(cast->earlier_name), "%s" SUFFIX_EARLIER,
                   query->name);

    if (query->next)
        cast->new_ = slot_find(query->name, query->next, containers, n);
    /* The release that serves may be made anew (its container was deleted): then there is no old
     * one. */
    if (query->current && !streq_ptr(query->current, query->next))
        cast->old = slot_find(query->name, query->current, containers, n);
    if (!cast->old && !streq_ptr(query->current, query->next)) {
        const SlotContainer *serving = named(cast, query->name);

        cast->old = serving != cast->new_ ? serving : NULL;
    }
    if (query->spare && !streq_ptr(query->spare, query->next) &&
        !streq_ptr(query->spare, query->current))
        cast->spared = slot_find(cast->previous_name, query->spare, containers, n);
    if (cast->spared == cast->old)
        cast->spared = NULL;
}

static SwitchStep act(SwitchVerb verb, const SlotContainer *target)
{
    return (SwitchStep){.verb = verb, .target = target};
}

static SwitchStep rename_to(const SlotContainer *target, const char *name)
{
    SwitchStep step = act(SWITCH_RENAME, target);

    (void)snprintf(step.new_name, sizeof(step.new_name), "%s", name);
    return step;
}

static bool wants_start(const Cast *cast, const SlotContainer *container)
{
    return !container->running && !cast->query->started;
}

/* One that the engine is about to start again is refused to be removed, too. */
static bool is_up(const SlotContainer *container)
{
    return container->running || container->restarting;
}

/* Stops it first: nothing is removed by force. */
static SwitchStep take_away(const SlotContainer *container)
{
    return act(is_up(container) ? SWITCH_STOP : SWITCH_REMOVE, container);
}

static bool has_a_part(const Cast *cast, const SlotContainer *container)
{
    return container == cast->old || container == cast->new_ || container == cast->spared;
}

/* The first container that has no part in it; DONE when there is none. */
static SwitchStep clear_others(const Cast *cast)
{
    for (size_t i = 0; i < cast->n; i++)
        if (!has_a_part(cast, cast->all + i))
            return take_away(cast->all + i);
    return done;
}

/* Renames to `name`, clearing the way: whoever else has the name is a leftover, but for the spared
 * one, which steps aside. */
static SwitchStep move_to(const Cast *cast, const SlotContainer *container, const char *name)
{
    const SlotContainer *in_the_way = named(cast, name);

    if (in_the_way && in_the_way == cast->spared && container != cast->spared) {
        const SlotContainer *earlier = named(cast, cast->earlier_name);

        return earlier && !has_a_part(cast, earlier) ? take_away(earlier)
                                                     : rename_to(in_the_way, cast->earlier_name);
    }
    if (in_the_way && in_the_way != container && !has_a_part(cast, in_the_way))
        return take_away(in_the_way);
    return rename_to(container, name);
}

/* At its own start the engine starts whatever last ended with a failure, and takes one that was
 * stopped (143, 137) for that (moby#47846): the copy to go back to would run, too, and may have the
 * port. */
static SwitchStep stop_others(const Cast *cast, const SlotContainer *serving)
{
    for (size_t i = 0; i < cast->n; i++)
        if (cast->all + i != serving && is_up(cast->all + i))
            return act(SWITCH_STOP, cast->all + i);
    return done;
}

static SwitchStep goal_run(const Cast *cast)
{
    SwitchStep step;

    if (!cast->old)
        return lost;
    if (!streq(cast->old->name, cast->query->name))
        return move_to(cast, cast->old, cast->query->name);
    step = stop_others(cast, cast->old);
    if (step.verb != SWITCH_DONE)
        return step;
    if (wants_start(cast, cast->old))
        return act(SWITCH_START, cast->old);
    return done;
}

static SwitchStep goal_prepare(const Cast *cast)
{
    SwitchStep step = clear_others(cast);

    if (step.verb != SWITCH_DONE)
        return step;
    /* One that ran before (the tag moved back to what was replaced) would not be proved from its
     * first start on. */
    if (cast->new_ && !cast->new_->never_started)
        return take_away(cast->new_);
    if (!cast->new_) {
        step = (SwitchStep){.verb = SWITCH_CREATE};
        (void)snprintf(step.new_name, sizeof(step.new_name), "%s", cast->next_name);
        return step;
    }
    return done;
}

static SwitchStep goal_beside(const Cast *cast)
{
    if (!cast->new_)
        return lost;
    return wants_start(cast, cast->new_) ? act(SWITCH_START, cast->new_) : done;
}

/* Names first, so that nothing but the stop and the start lies between the old one and the new one;
 * but for one in a crash loop, which serves nobody, and which the engine does not rename. */
static SwitchStep goal_forward(const Cast *cast)
{
    const SlotContainer *old = cast->old, *new_ = cast->new_;

    if (!new_)
        return lost;
    if (old && old->restarting)
        return act(SWITCH_STOP, old);
    if (old && !streq(old->name, cast->previous_name))
        return move_to(cast, old, cast->previous_name);
    if (!streq(new_->name, cast->query->name))
        return move_to(cast, new_, cast->query->name);
    if (old && old->running)
        return act(SWITCH_STOP, old);
    if (wants_start(cast, new_) && (new_->never_started || cast->query->start_again))
        return act(SWITCH_START, new_);
    return done;
}

/* The new one stops before the old one starts: they may want the same port; and before it is
 * renamed: the engine renames none that it is about to restart. It is removed last: its end may
 * still be looked at. */
static SwitchStep goal_back(const Cast *cast)
{
    const SlotContainer *old = cast->old, *new_ = cast->new_;

    if (!old && !cast->query->leave_stopped)
        return lost;
    if (new_ && is_up(new_))
        return act(SWITCH_STOP, new_);
    if (new_ && streq(new_->name, cast->query->name))
        return move_to(cast, new_, cast->next_name);
    if (old && !streq(old->name, cast->query->name))
        return move_to(cast, old, cast->query->name);
    if (!cast->query->leave_stopped && wants_start(cast, old))
        return act(SWITCH_START, old);
    if (new_)
        return act(SWITCH_REMOVE, new_);
    if (cast->spared && !streq(cast->spared->name, cast->previous_name))
        return move_to(cast, cast->spared, cast->previous_name);
    return done;
}

static SwitchStep goal_settle(const Cast *cast)
{
    if (!cast->new_)
        return lost;
    for (size_t i = 0; i < cast->n; i++)
        if (cast->all + i != cast->new_)
            return take_away(cast->all + i);
    if (!streq(cast->new_->name, cast->query->name))
        return rename_to(cast->new_, cast->query->name);
    return done;
}

static SwitchStep goal_stopped(const Cast *cast)
{
    return stop_others(cast, NULL);
}

static SwitchStep goal_gone(const Cast *cast)
{
    return cast->n > 0 ? take_away(cast->all) : done;
}

static SwitchStep (*const goals[])(const Cast *) = {
    [SWITCH_RUN] = goal_run,         [SWITCH_PREPARE] = goal_prepare, [SWITCH_BESIDE] = goal_beside,
    [SWITCH_FORWARD] = goal_forward, [SWITCH_BACK] = goal_back,       [SWITCH_SETTLE] = goal_settle,
    [SWITCH_STOPPED] = goal_stopped, [SWITCH_GONE] = goal_gone,
};

SwitchStep switch_next(const SwitchQuery *query, const SlotContainer *containers, size_t n)
{
    Cast cast;

    assert((size_t)query->goal < ELEMENTS(goals));
    cast_init(&cast, query, containers, n);
    return goals[query->goal](&cast);
}
