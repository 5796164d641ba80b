/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>

#include "agent/agentd/reconcile.h"
#include "agent/base/time.h"
#include "agent/io/loop.h"

/* Kinds of our own in place of those of the program: what is declared, how each behaves and what
 * was done to it is written here. */

#define FAKES_MAX 8

typedef struct Fake {
    const char *name;
    bool declared, required;
    bool differs; /* check() says so until apply() ended well */
    bool later;   /* apply() ends when fake_end() says so */
    int code;     /* how apply() ends; 0 well */
    ErrorKind kind;
    const char *uses; /* a secret */
    unsigned checked, applied, removed, cancelled;
    Resource *at_work;
} Fake;

static Fake fakes[FAKES_MAX];
static char work[512]; /* names in the order of apply() and remove() */

static void note(const char *verb, const Fake *fake)
{
    size_t used = strlen(work);

    (void)snprintf(work + used, sizeof(work) - used, "%s%s%s", used ? " " : "", verb, fake->name);
}

static Fake *fake_of(const Resource *resource)
{
    return resource->item;
}

static int fake_check(Resource *resource, char **ret_difference, Error *err)
{
    Fake *fake = fake_of(resource);

    fake->checked++;
    if (!fake->differs)
        return 0;
    *ret_difference = str_printf("do %s", fake->name);
    return 1;
}

static void end(Resource *resource, int code)
{
    Fake *fake = fake_of(resource);
    auto_error Error err = {0};

    fake->at_work = NULL;
    if (code < 0)
        (void)error_set(&err, code, fake->kind, "%s failed", fake->name);
    else
        fake->differs = false;
    resource_finish(resource, code < 0 ? &err : NULL);
}

static void fake_apply(Resource *resource)
{
    Fake *fake = fake_of(resource);

    fake->applied++;
    note("", fake);
    fake->at_work = resource;
    if (!fake->later)
        end(resource, fake->code);
}

static void fake_remove(Resource *resource)
{
    Fake *fake = fake_of(resource);

    fake->removed++;
    note("-", fake);
    fake->at_work = resource;
    if (!fake->later)
        end(resource, 0);
}

static void fake_cancel(Resource *resource)
{
    fake_of(resource)->cancelled++;
    fake_of(resource)->at_work = NULL;
}

static bool fake_uses_secret(const Resource *resource, const char *name)
{
    return streq_ptr(fake_of(resource)->uses, name);
}

static int declare(ResourceContext *context, const ResourceOps *ops, char first, Error *err)
{
    for (Fake *fake = fakes; fake < fakes + FAKES_MAX; fake++)
        if (fake->declared && fake->name[0] == first) {
            int r = resource_add(context, ops, fake->name, fake->required, fake, err);

            if (r < 0)
                return r;
        }
    return 0;
}

#define KIND(first, stage_, ordered_)                                                              \
    static const ResourceOps kind_##first;                                                         \
    static int declare_##first(ResourceContext *context, const Plan *plan, Error *err)             \
    {                                                                                              \
        return declare(context, &kind_##first, #first[0], err);                                    \
    }                                                                                              \
    static const ResourceOps kind_##first = {.kind = #first,                                       \
                                             .stage = stage_,                                      \
                                             .ordered = ordered_,                                  \
                                             .declare = declare_##first,                           \
                                             .check = fake_check,                                  \
                                             .apply = fake_apply,                                  \
                                             .remove = fake_remove,                                \
                                             .uses_secret = fake_uses_secret,                      \
                                             .cancel = fake_cancel}

KIND(f, STAGE_SYSTEM, false);
KIND(s, STAGE_SYSTEM, true);
KIND(k, STAGE_SECRETS, false);
KIND(c, STAGE_CONTAINERS, false);

const ResourceOps *const resource_kinds[] = {&kind_f, &kind_s, &kind_k, &kind_c, NULL};

/* --- A reconciler ------------------------------------------------------------------------------
 */

typedef struct Fixture {
    sd_event *event;
    ResourceContext context;
    Reconciler *reconciler;
    unsigned settled, well, left, events;
} Fixture;

static void on_settled(bool well, void *userdata)
{
    Fixture *f = userdata;

    f->settled++;
    f->well += well;
}

static void on_left(void *userdata)
{
    Fixture *f = userdata;

    f->left++;
}

static void on_event(LogLevel level, const char *event, const char *const *fields, const char *text,
                     void *userdata)
{
    Fixture *f = userdata;

    f->events++;
}

static int setup(void **state)
{
    static const ReconcilerHandlers handlers = {
        .settled = on_settled, .left = on_left, .event = on_event};
    Fixture *f = calloc(1, sizeof(*f));
    auto_error Error err = {0};

    assert_non_null(f);
    memset(fakes, 0, sizeof(fakes));
    work[0] = '\0';
    assert_ok(loop_new(&f->event, &err), &err);
    f->context = (ResourceContext){.event = f->event};
    assert_ok(reconciler_new(&f->context, &handlers, f, &f->reconciler, &err), &err);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    reconciler_free(f->reconciler);
    sd_event_unref(f->event);
    free(f);
    return 0;
}

static Fake *declare_fake(unsigned i, const char *name)
{
    fakes[i] =
        (Fake){.name = name, .declared = true, .differs = true, .code = 0, .kind = ERROR_TEMPORARY};
    return &fakes[i];
}

static Plan *plan_new(void)
{
    auto_field_errors FieldErrors errors = {0};
    Plan *plan = NULL;

    assert_int_equal(plan_parse("{\"version\": 1}", 14, &plan, &errors), 0);
    return plan;
}

static void set_plan(Fixture *f)
{
    auto_error Error err = {0};

    assert_ok(reconciler_set_plan(f->reconciler, plan_new(), 1, &err), &err);
}

/* Everything that is due now, and what comes within `usec`. */
static void turn(Fixture *f, uint64_t usec)
{
    uint64_t until = now_boottime_usec() + usec;

    do {
        while (sd_event_run(f->event, 5 * MSEC) > 0)
            ;
    } while (now_boottime_usec() < until);
}

static void end_later(Fake *fake, int code)
{
    assert_non_null(fake->at_work);
    end(fake->at_work, code);
}

/* Turns the loop until the fake is at work, and says how that ends. A retry has full jitter, so
 * that it may come at once as well as in a second: a test that counts tries ends each of them
 * itself. */
static void end_next(Fixture *f, Fake *fake, int code)
{
    uint64_t until = now_boottime_usec() + MINUTE;

    while (!fake->at_work && now_boottime_usec() < until)
        assert_true(sd_event_run(f->event, SECOND) >= 0);
    end_later(fake, code);
}

static void stages_come_one_after_the_other_and_a_second_pass_does_nothing(void **state)
{
    Fixture *f = *state;

    declare_fake(0, "c");
    declare_fake(1, "k");
    declare_fake(2, "s1");
    declare_fake(3, "s2");
    set_plan(f);
    turn(f, 0);
    assert_string_equal(work, "s1 s2 k c");
    assert_int_equal(f->well, 1);
    reconciler_look_at_all(f->reconciler);
    turn(f, 0);
    assert_string_equal(work, "s1 s2 k c");
    assert_int_equal(f->well, 2);
    assert_int_equal(fakes[0].checked, 2);
}

static void what_is_at_work_holds_the_next_stage_and_ordered_ones_wait_for_each_other(void **state)
{
    Fixture *f = *state;

    declare_fake(0, "s1")->later = true;
    declare_fake(1, "s2");
    declare_fake(2, "k");
    set_plan(f);
    turn(f, 0);
    assert_string_equal(work, "s1");
    assert_int_equal(f->settled, 0);
    end_later(&fakes[0], 0);
    turn(f, 0);
    assert_string_equal(work, "s1 s2 k");
}

static void a_required_one_that_fails_holds_a_first_boot_and_no_later_one(void **state)
{
    Fixture *f = *state;
    Fake *fake = declare_fake(0, "s1");

    fake->required = true;
    fake->code = -EIO;
    fake->kind = ERROR_INVALID;
    declare_fake(1, "k");
    declare_fake(2, "c");
    f->context.first_boot = true;
    set_plan(f);
    turn(f, 0);
    assert_string_equal(work, "s1");
    f->context.first_boot = false;
    reconciler_look_at_all(f->reconciler);
    turn(f, 0);
    assert_string_equal(work, "s1 s1 k c");
    assert_false(reconciler_is_well(f->reconciler));
}

static void
one_that_waits_lets_secrets_come_but_keeps_its_place_and_holds_the_first_containers(void **state)
{
    Fixture *f = *state;
    Fake *fake = declare_fake(0, "s1");

    fake->required = true;
    fake->code = -EINPROGRESS;
    declare_fake(1, "s2");
    declare_fake(2, "k");
    declare_fake(3, "c");
    f->context.first_boot = true;
    set_plan(f);
    turn(f, 0);
    assert_string_equal(work, "s1 k");
    fake->code = 0;
    resource_wants_attention(reconciler_find(f->reconciler, "s", "s1"));
    turn(f, 0);
    assert_string_equal(work, "s1 k s1 s2 c");
}

static void
one_that_fails_while_another_waits_lets_secrets_come_and_holds_the_containers(void **state)
{
    Fixture *f = *state;
    Fake *fake = declare_fake(0, "s1");

    fake->required = true;
    fake->code = -EIO;
    fake->kind = ERROR_INVALID;
    declare_fake(1, "f")->code = -EINPROGRESS;
    declare_fake(2, "k");
    declare_fake(3, "c");
    f->context.first_boot = true;
    set_plan(f);
    turn(f, 0);
    assert_string_equal(work, "f s1 k");
    fakes[1].code = fake->code = 0;
    resource_wants_attention(reconciler_find(f->reconciler, "f", "f"));
    turn(f, 0);
    assert_string_equal(work, "f s1 k f");
    resource_wants_attention(reconciler_find(f->reconciler, "s", "s1"));
    turn(f, 0);
    assert_string_equal(work, "f s1 k f s1 c");
}

static void a_failure_is_tried_again_by_its_own_timer_and_told_once(void **state)
{
    Fixture *f = *state;
    Fake *fake = declare_fake(0, "k");

    fake->later = true;
    set_plan(f);
    end_next(f, fake, -EIO);
    assert_int_equal(f->events, 1);
    assert_int_equal(reconciler_find(f->reconciler, "k", "k")->state, RESOURCE_FAILED);
    end_next(f, fake, -EIO);
    end_next(f, fake, -EIO);
    assert_int_equal(fake->applied, 3);
    assert_int_equal(f->events, 1);
    end_next(f, fake, 0);
    assert_int_equal(f->events, 2); /* well again */
    assert_true(reconciler_is_well(f->reconciler));
    turn(f, 0);
    assert_int_equal(fake->applied, 4);
    assert_int_equal(f->events, 2);
}

static void what_waits_for_a_person_is_not_tried_again(void **state)
{
    Fixture *f = *state;
    Fake *fake = declare_fake(0, "k");

    fake->code = -EINVAL;
    fake->kind = ERROR_INVALID;
    set_plan(f);
    turn(f, 1300 * MSEC);
    assert_int_equal(fake->applied, 1);
}

static void what_leaves_is_removed_before_what_comes_and_a_failed_removal_is_repeated(void **state)
{
    Fixture *f = *state;
    Fake *old = declare_fake(0, "c-old");

    set_plan(f);
    turn(f, 0);
    assert_int_equal(f->left, 1);
    old->declared = false;
    old->later = true;
    declare_fake(1, "c-new");
    set_plan(f);
    assert_string_equal(work, "c-old -c-old");
    turn(f, 0);
    assert_string_equal(work, "c-old -c-old"); /* what makes room goes first */
    end_later(old, -EIO);
    assert_int_equal(f->left, 1);
    assert_int_equal(reconciler_next_leaving(f->reconciler, NULL)->state, RESOURCE_FAILED);
    end_next(f, old, 0);
    assert_int_equal(old->removed, 2);
    assert_int_equal(f->left, 2);
    assert_null(reconciler_next_leaving(f->reconciler, NULL));
    turn(f, 0);
    assert_int_equal(fakes[1].applied, 1);
}

static void what_leaves_at_once_does_not_speak_for_what_leaves_later(void **state)
{
    Fixture *f = *state;
    Fake *slow;

    declare_fake(0, "c-at-once");
    slow = declare_fake(1, "c-later");
    declare_fake(2, "c-at-once-too");
    set_plan(f);
    turn(f, 0);
    assert_int_equal(f->left, 1);
    for (size_t i = 0; i < 3; i++)
        fakes[i].declared = false;
    slow->later = true;
    set_plan(f);
    turn(f, 0);
    assert_int_equal(fakes[0].removed + fakes[1].removed + fakes[2].removed, 3);
    assert_int_equal(f->left,
                     1); /* recorded now, a kill would leave the slow one behind for ever */
    assert_true(reconciler_is_leaving(f->reconciler));
    end_later(slow, 0);
    assert_int_equal(f->left, 2);
    assert_false(reconciler_is_leaving(f->reconciler));
}

static void one_that_comes_back_while_it_leaves_is_not_there_twice(void **state)
{
    Fixture *f = *state;
    Fake *fake = declare_fake(0, "c");

    set_plan(f);
    turn(f, 0);
    fake->declared = false;
    fake->later = true;
    set_plan(f);
    turn(f, 0);
    assert_int_equal(fake->removed, 1);
    fake->declared = fake->differs = true;
    fake->later = false;
    set_plan(f);
    turn(f, 0);
    assert_int_equal(fake->cancelled, 1);
    assert_string_equal(work, "c -c c");
    assert_false(reconciler_is_busy(f->reconciler));
}

static void what_an_earlier_plan_had_is_undone_after_a_restart(void **state)
{
    Fixture *f = *state;
    auto_error Error err = {0};

    declare_fake(0, "c-kept");
    set_plan(f);
    turn(f, 0);
    declare_fake(1, "c-gone");
    assert_ok(reconciler_retire_plan(f->reconciler, plan_new(), 1, &err), &err);
    turn(f, 0);
    assert_string_equal(work, "c-kept -c-gone");
    assert_int_equal(fakes[0].removed, 0);
}

static void another_version_of_a_secret_is_a_matter_of_those_who_use_it(void **state)
{
    Fixture *f = *state;

    declare_fake(0, "s-uses")->uses = "k-key";
    declare_fake(1, "s-other")->uses = "k-other";
    declare_fake(2, "s-none");
    declare_fake(3, "k-key");
    set_plan(f);
    turn(f, 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(fakes[i].checked, 1);
    f->context.host->secret_changed(reconciler_find(f->reconciler, "k", "k-key"),
                                    f->context.host_userdata);
    turn(f, 0);
    assert_int_equal(fakes[0].checked, 2);
    for (size_t i = 1; i < 4; i++)
        assert_int_equal(fakes[i].checked, 1);
}

static void a_script_that_left_and_still_runs_holds_nobody_up(void **state)
{
    Fixture *f = *state;
    Fake *fake = declare_fake(0, "s1"); /* of the kind that keeps an order, as scripts do */

    set_plan(f);
    turn(f, 0);
    fake->declared = false;
    fake->later = true;
    declare_fake(1, "s2");
    declare_fake(2, "c");
    set_plan(f);
    turn(f, 0);
    assert_string_equal(work, "s1 -s1 s2 c");
    assert_true(reconciler_is_leaving(f->reconciler));
    assert_false(reconciler_is_busy(f->reconciler));
    assert_int_equal(f->left, 1); /* but a restart takes it up again */
    end_later(fake, 0);
    assert_int_equal(f->left, 2);
}

static void what_somebody_changed_is_put_right_at_the_next_look(void **state)
{
    static const ReconcilerHandlers often = {.drift_usec = 20 * MSEC};
    auto_(reconciler_freep) Reconciler *reconciler = NULL;
    Fixture *f = *state;
    Fake *fake = declare_fake(0, "k");
    auto_error Error err = {0};
    uint64_t until = now_boottime_usec() + MINUTE;

    assert_ok(reconciler_new(&f->context, &often, f, &reconciler, &err), &err);
    assert_ok(reconciler_set_plan(reconciler, plan_new(), 1, &err), &err);
    while (fake->applied < 1 && now_boottime_usec() < until)
        (void)sd_event_run(f->event, SECOND);
    fake->differs = true; /* nobody says so */
    while (fake->applied < 2 && now_boottime_usec() < until)
        (void)sd_event_run(f->event, SECOND);
    assert_int_equal(fake->applied, 2);
    assert_false(fake->differs);
}

static void a_dry_run_says_what_would_change_and_does_nothing(void **state)
{
    Fixture *f = *state;
    json_auto_t *list = NULL;

    declare_fake(0, "s1");
    declare_fake(1, "k");
    set_plan(f);
    turn(f, 0);
    fakes[0].differs = true;
    list = reconciler_dry_run(f->reconciler);
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "action")),
                        "change");
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "what")),
                        "do s1");
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 1), "action")),
                        "none");
    turn(f, 0);
    assert_int_equal(fakes[0].applied, 1);
}

static void nothing_new_is_begun_while_the_machine_drains(void **state)
{
    Fixture *f = *state;

    declare_fake(0, "s1");
    f->context.draining = true;
    set_plan(f);
    turn(f, 0);
    assert_string_equal(work, "");
}

static void a_plan_that_is_replaced_at_work_is_cancelled_and_the_next_one_goes_on(void **state)
{
    Fixture *f = *state;
    Fake *fake = declare_fake(0, "k");

    fake->later = true;
    set_plan(f);
    turn(f, 0);
    fake->later = false;
    set_plan(f);
    turn(f, 0);
    assert_int_equal(fake->applied, 2);
    assert_true(reconciler_is_well(f->reconciler));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

TEST_MAIN(TEST(stages_come_one_after_the_other_and_a_second_pass_does_nothing),
          TEST(what_is_at_work_holds_the_next_stage_and_ordered_ones_wait_for_each_other),
          TEST(a_required_one_that_fails_holds_a_first_boot_and_no_later_one),
          TEST(one_that_waits_lets_secrets_come_but_keeps_its_place_and_holds_the_first_containers),
          TEST(one_that_fails_while_another_waits_lets_secrets_come_and_holds_the_containers),
          TEST(a_failure_is_tried_again_by_its_own_timer_and_told_once),
          TEST(what_waits_for_a_person_is_not_tried_again),
          TEST(what_leaves_is_removed_before_what_comes_and_a_failed_removal_is_repeated),
          TEST(what_leaves_at_once_does_not_speak_for_what_leaves_later),
          TEST(one_that_comes_back_while_it_leaves_is_not_there_twice),
          TEST(what_an_earlier_plan_had_is_undone_after_a_restart),
          TEST(another_version_of_a_secret_is_a_matter_of_those_who_use_it),
          TEST(a_script_that_left_and_still_runs_holds_nobody_up),
          TEST(what_somebody_changed_is_put_right_at_the_next_look),
          TEST(a_dry_run_says_what_would_change_and_does_nothing),
          TEST(nothing_new_is_begun_while_the_machine_drains),
          TEST(a_plan_that_is_replaced_at_work_is_cancelled_and_the_next_one_goes_on))
