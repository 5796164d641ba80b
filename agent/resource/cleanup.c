/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/resource/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/engine/reference.h"
#include "agent/resource/release.h"

const char *cleanup_verdict_name(CleanupVerdict verdict)
{
    static const char *const names[CLEANUP_VERDICT_MAX] = {
        [CLEANUP_REMOVE] = "remove",   [CLEANUP_FOREIGN] = "foreign",   [CLEANUP_IN_USE] = "in use",
        [CLEANUP_CURRENT] = "current", [CLEANUP_PREVIOUS] = "previous", [CLEANUP_YOUNG] = "young",
        [CLEANUP_SHARED] = "shared",   [CLEANUP_PARENT] = "parent",
    };

    return names[verdict];
}

void cleanup_plan_done(CleanupPlan *plan)
{
    free(plan->verdicts);
    free(plan->images);
    free(plan->containers);
    *plan = (CleanupPlan){0};
}

/* ---- Names ---------------------------------------------------------------------------------- */

#define FOREACH_NAME(name, list) for (const char *const *name = (list); name && *name; name++)

/* "nginx:1", "nginx@sha256:…" → "docker.io/library/nginx"; NULL for what is no reference. Of the
 * digest nothing is asked: engines may know algorithms that we do not. */
static char *repository_of(const char *name)
{
    auto_free char *bare = strndup(name, strcspn(name, "@"));
    auto_(reference_freep) Reference *reference = NULL;

    if (!bare || reference_parse(bare, &reference, NULL) < 0)
        return NULL;

    return reference_repository(reference);
}

static bool is_managed_name(const CleanupFacts *facts, const char *name)
{
    auto_free char *repository = repository_of(name);

    FOREACH_NAME(ours, facts->repositories)
    if (repository && streq(repository, *ours))
        return true;

    return false;
}

static bool is_dangling(const EngineImage *image)
{
    return !(image->repo_tags && image->repo_tags[0]) &&
           !(image->repo_digests && image->repo_digests[0]);
}

/* What remains when nothing forbids it. */
static CleanupVerdict judge_names(const CleanupFacts *facts, const EngineImage *image)
{
    bool ours = false, foreign = false;

    if (facts->all_unused || is_dangling(image))
        return CLEANUP_REMOVE;

    FOREACH_NAME(name, image->repo_tags)
    *(is_managed_name(facts, *name) ? &ours : &foreign) = true;
    FOREACH_NAME(name, image->repo_digests)
    *(is_managed_name(facts, *name) ? &ours : &foreign) = true;

    return !ours ? CLEANUP_FOREIGN : foreign ? CLEANUP_SHARED : CLEANUP_REMOVE;
}

static bool has_digest(const EngineImage *image, const char *digest)
{
    /* The containerd store: the id is the digest. */
    if (streq(image->id, digest))
        return true;

    FOREACH_NAME(name, image->repo_digests)
    {
        const char *at = strrchr(*name, '@');

        if (at && streq(at + 1, digest))
            return true;
    }

    return false;
}

char **cleanup_names(const EngineImage *image)
{
    auto_(strv_freep) char **names = NULL;
    auto_free char *first = NULL;
    size_t n_tags = 0;
    bool one_repository = true;

    FOREACH_NAME(name, image->repo_tags)
    {
        auto_free char *repository = repository_of(*name);

        n_tags++;
        if (!first)
            first = take_ptr(repository);
        else if (!repository || !streq(repository, first))
            one_repository = false;
    }
    FOREACH_NAME(name, image->repo_digests)
    {
        auto_free char *repository = repository_of(*name);

        if (!first)
            first = take_ptr(repository);
        else if (!repository || !streq(repository, first))
            one_repository = false;
    }

    /* The engine removes by id what has one tag at most, in one repository. */
    if (one_repository && n_tags <= 1)
        return strv_push(&names, image->id) < 0 ? NULL : take_ptr(names);

    FOREACH_NAME(name, image->repo_tags)
    if (strv_push(&names, *name) < 0)
        return NULL;
    FOREACH_NAME(name, image->repo_digests)
    if (strv_push(&names, *name) < 0)
        return NULL;

    return take_ptr(names);
}

/* ---- Containers ----------------------------------------------------------------------------- */

static bool has_ended(const EngineContainer *container)
{
    return container->state == ENGINE_STATE_CREATED || container->state == ENGINE_STATE_EXITED ||
           container->state == ENGINE_STATE_DEAD;
}

static bool is_young(const CleanupFacts *facts, uint64_t since)
{
    /* A clock that was set back makes all young: the safe mistake. */
    return since > facts->now || facts->now - since < facts->min_age_usec;
}

/* Ours, stopped, and no release that counts: left behind by a crash in the middle of a switch, or
 * by an older version. What the rollout still needs is current, next or previous of its slot. */
static bool is_zombie(const CleanupFacts *facts, const EngineContainer *container)
{
    const char *name = engine_container_label(container, LABEL_CONTAINER);
    const char *release = engine_container_label(container, LABEL_RELEASE);

    if (!name || !release || !has_ended(container) || is_young(facts, container->created_usec))
        return false;

    for (size_t i = 0; i < facts->n_releases; i++) {
        const CleanupRelease *known = &facts->releases[i];

        if (streq(known->container, name) && streq(known->id, release) &&
            (known->is_current || known->is_next || known->is_previous))
            return false;
    }

    return true;
}

static bool is_picked(const CleanupPlan *plan, size_t container)
{
    for (size_t i = 0; i < plan->n_containers; i++)
        if (plan->containers[i] == container)
            return true;

    return false;
}

/* By id; and by name for engines that show a name there (Podman), or where the tag moved. */
static bool container_uses(const EngineContainer *container, const EngineImage *image)
{
    if (streq(container->image_id, image->id) || streq(container->image, image->id))
        return true;

    FOREACH_NAME(name, image->repo_tags)
    if (streq(container->image, *name) || streq(container->image_id, *name))
        return true;
    FOREACH_NAME(name, image->repo_digests)
    if (streq(container->image, *name) || streq(container->image_id, *name))
        return true;

    return false;
}

static bool is_in_use(const CleanupFacts *facts, const CleanupPlan *plan, const EngineImage *image)
{
    for (size_t i = 0; i < facts->n_containers; i++)
        if (!is_picked(plan, i) && container_uses(&facts->containers[i], image))
            return true;

    return false;
}

/* ---- Releases ------------------------------------------------------------------------------- */

static bool is_of_current(const CleanupFacts *facts, const EngineImage *image)
{
    for (size_t i = 0; i < facts->n_releases; i++)
        if ((facts->releases[i].is_current || facts->releases[i].is_next) &&
            has_digest(image, facts->releases[i].digest))
            return true;

    return false;
}

static const char *current_digest(const CleanupFacts *facts, const char *container)
{
    for (size_t i = 0; i < facts->n_releases; i++)
        if (facts->releases[i].is_current && streq(facts->releases[i].container, container))
            return facts->releases[i].digest;

    return NULL;
}

/* A release that a rollback could go to, by another digest than the one that serves. */
static bool is_proved_before(const CleanupFacts *facts, const CleanupRelease *release)
{
    const char *current = current_digest(facts, release->container);

    return release->proved_at > 0 && !release->is_quarantined &&
           !(current && streq(release->digest, current));
}

/* When a release with that digest of that container was last proved; 0: never. */
static uint64_t digest_proved_at(const CleanupFacts *facts, const char *container,
                                 const char *digest)
{
    uint64_t at = 0;

    for (size_t i = 0; i < facts->n_releases; i++) {
        const CleanupRelease *release = &facts->releases[i];

        if (streq(release->container, container) && streq(release->digest, digest) &&
            is_proved_before(facts, release))
            at = MAX_OF(at, release->proved_at);
    }

    return at;
}

/* Whether `release`'s digest was first seen at that index: each digest counts once. */
static bool is_first_of_digest(const CleanupFacts *facts, size_t index)
{
    for (size_t i = 0; i < index; i++)
        if (streq(facts->releases[i].container, facts->releases[index].container) &&
            streq(facts->releases[i].digest, facts->releases[index].digest))
            return false;

    return true;
}

/* Among the `keep_previous` digests of its container that were proved last. */
static bool is_kept(const CleanupFacts *facts, const CleanupRelease *release)
{
    uint64_t mine = digest_proved_at(facts, release->container, release->digest);
    uint64_t newer = 0;

    if (mine == 0)
        return false;
    for (size_t i = 0; i < facts->n_releases; i++) {
        const CleanupRelease *other = &facts->releases[i];

        if (streq(other->container, release->container) && is_first_of_digest(facts, i) &&
            digest_proved_at(facts, other->container, other->digest) > mine)
            newer++;
    }

    return newer < facts->keep_previous;
}

static bool is_of_previous(const CleanupFacts *facts, const EngineImage *image)
{
    for (size_t i = 0; i < facts->n_releases; i++)
        if (has_digest(image, facts->releases[i].digest) && is_kept(facts, &facts->releases[i]))
            return true;

    return false;
}

/* ---- Age and order -------------------------------------------------------------------------- */

static const CleanupSeen *find_seen(const CleanupFacts *facts, const EngineImage *image)
{
    for (size_t i = 0; i < facts->n_seen; i++)
        if (streq(facts->seen[i].id, image->id))
            return &facts->seen[i];

    return NULL;
}

uint64_t cleanup_last_used(const CleanupFacts *facts, const EngineImage *image)
{
    const CleanupSeen *seen = find_seen(facts, image);

    return seen ? MAX_OF(seen->first_seen_at, seen->last_used_at) : facts->now;
}

/* How long it is here, not how old its build is: one that was never seen came just now. */
static bool image_is_young(const CleanupFacts *facts, const EngineImage *image)
{
    const CleanupSeen *seen = find_seen(facts, image);

    return is_young(facts, seen ? seen->first_seen_at : facts->now);
}

static bool is_parent_of(const EngineImage *parent, const EngineImage *child)
{
    return child->parent_id && child->parent_id[0] && streq(child->parent_id, parent->id);
}

/* What is built upon a thing that stays, stays; and so on down the chain. */
static void keep_parents(const CleanupFacts *facts, CleanupVerdict *verdicts)
{
    bool again = true;

    while (again) {
        again = false;
        for (size_t i = 0; i < facts->n_images; i++)
            for (size_t k = 0; verdicts[i] == CLEANUP_REMOVE && k < facts->n_images; k++)
                if (verdicts[k] != CLEANUP_REMOVE &&
                    is_parent_of(&facts->images[i], &facts->images[k])) {
                    verdicts[i] = CLEANUP_PARENT;
                    again = true;
                }
    }
}

typedef struct Order {
    size_t image;
    uint64_t last_used; /* of it, or of a child that goes before it */
    unsigned height;    /* over its children */
    uint64_t created;
    const char *id;
} Order;

static int compare_orders(const void *a, const void *b)
{
    const Order *x = a, *y = b;

    if (x->last_used != y->last_used)
        return x->last_used < y->last_used ? -1 : 1;
    if (x->height != y->height)
        return x->height < y->height ? -1 : 1;
    if (x->created != y->created)
        return x->created < y->created ? -1 : 1;

    return strcmp(x->id, y->id);
}

/* Children lift their parents above them. A chain is never longer than there are images. */
static void lift_parents(const CleanupFacts *facts, Order *orders, size_t n)
{
    bool again = true;

    for (size_t round = 0; again && round <= n; round++) {
        again = false;
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < n; k++) {
                Order *parent = &orders[i];
                const Order *child = &orders[k];

                if (i == k ||
                    !is_parent_of(&facts->images[parent->image], &facts->images[child->image]) ||
                    (parent->last_used >= child->last_used && parent->height > child->height))
                    continue;
                parent->last_used = MAX_OF(parent->last_used, child->last_used);
                parent->height = MAX_OF(parent->height, child->height + 1);
                again = true;
            }
    }
}

static int order_images(const CleanupFacts *facts, CleanupPlan *plan)
{
    auto_free Order *orders = calloc(facts->n_images + 1, sizeof(*orders));
    size_t n = 0;

    if (!orders)
        return -ENOMEM;
    for (size_t i = 0; i < facts->n_images; i++)
        if (plan->verdicts[i] == CLEANUP_REMOVE)
            orders[n++] = (Order){.image = i,
                                  .last_used = cleanup_last_used(facts, &facts->images[i]),
                                  .created = facts->images[i].created_usec,
                                  .id = facts->images[i].id};
    lift_parents(facts, orders, n);
    qsort(orders, n, sizeof(*orders), compare_orders);
    for (size_t i = 0; i < n; i++)
        plan->images[plan->n_images++] = orders[i].image;

    return 0;
}

/* ---- The whole ------------------------------------------------------------------------------ */

/* The strongest reason to keep it comes first. */
static CleanupVerdict judge(const CleanupFacts *facts, const CleanupPlan *plan,
                            const EngineImage *image)
{
    CleanupVerdict verdict;

    if (is_of_current(facts, image))
        return CLEANUP_CURRENT;
    if (is_in_use(facts, plan, image))
        return CLEANUP_IN_USE;
    if (is_of_previous(facts, image))
        return CLEANUP_PREVIOUS;
    verdict = judge_names(facts, image);
    if (verdict == CLEANUP_REMOVE && image_is_young(facts, image))
        return CLEANUP_YOUNG;

    return verdict;
}

int cleanup_select(const CleanupFacts *facts, CleanupPlan *ret, Error *err)
{
    auto_(cleanup_plan_done) CleanupPlan plan = {
        .verdicts = calloc(facts->n_images + 1, sizeof(*plan.verdicts)),
        .images = calloc(facts->n_images + 1, sizeof(*plan.images)),
        .containers = calloc(facts->n_containers + 1, sizeof(*plan.containers)),
    };

    if (!plan.verdicts || !plan.images || !plan.containers)
        return error_oom(err);

    for (size_t i = 0; i < facts->n_containers; i++)
        if (is_zombie(facts, &facts->containers[i]))
            plan.containers[plan.n_containers++] = i;
    for (size_t i = 0; i < facts->n_images; i++)
        plan.verdicts[i] = judge(facts, &plan, &facts->images[i]);
    keep_parents(facts, plan.verdicts);
    if (order_images(facts, &plan) < 0)
        return error_oom(err);

    *ret = plan;
    plan = (CleanupPlan){0};
    return 0;
}
