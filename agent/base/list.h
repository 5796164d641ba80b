/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_BASE_LIST_H
#define AGENT_BASE_LIST_H

/* Intrusive doubly linked list: a head pointer in the parent, two links in the member. */

#include "agent/base/cleanup.h"

#define LIST_FIELDS(type, name) type *name##_next, *name##_prev

#define LIST_PREPEND(name, head, item)                                                             \
    do {                                                                                           \
        (item)->name##_prev = NULL;                                                                \
        (item)->name##_next = (head);                                                              \
        if ((head))                                                                                \
            (head)->name##_prev = (item);                                                          \
        (head) = (item);                                                                           \
    } while (0)

/* Walks to the end: for short lists. */
#define LIST_APPEND(name, head, item)                                                              \
    do {                                                                                           \
        __typeof__(&(head)) list_at_ = &(head);                                                    \
        __typeof__(head) list_prev_ = NULL;                                                        \
        while (*list_at_) {                                                                        \
            list_prev_ = *list_at_;                                                                \
            list_at_ = &(*list_at_)->name##_next;                                                  \
        }                                                                                          \
        (item)->name##_prev = list_prev_;                                                          \
        (item)->name##_next = NULL;                                                                \
        *list_at_ = (item);                                                                        \
    } while (0)

#define LIST_REMOVE(name, head, item)                                                              \
    do {                                                                                           \
        if ((item)->name##_next)                                                                   \
            (item)->name##_next->name##_prev = (item)->name##_prev;                                \
        if ((item)->name##_prev)                                                                   \
            (item)->name##_prev->name##_next = (item)->name##_next;                                \
        else                                                                                       \
            (head) = (item)->name##_next;                                                          \
        (item)->name##_next = (item)->name##_prev = NULL;                                          \
    } while (0)

#ifdef __cppcheck__ /* it cannot parse __typeof__ in a for, nor two declarations there */
#define LIST_FOREACH(name, i, head)      for (auto i = (head); i; i = i->name##_next)
#define LIST_FOREACH_SAFE(name, i, head) LIST_FOREACH (name, i, head)
#else
/* The type is written as that of an rvalue: in a const parent the head itself is const. */
#define LIST_FOREACH(name, i, head) for (__typeof__(&*(head)) i = (head); i; i = i->name##_next)

/* The body may remove and free `i`. */
#define LIST_FOREACH_SAFE(name, i, head)                                                           \
    for (__typeof__(&*(head)) i = (head), i##_next_ = i ? i->name##_next : NULL; i;                \
         i = i##_next_, i##_next_ = i ? i->name##_next : NULL)
#endif

#endif
