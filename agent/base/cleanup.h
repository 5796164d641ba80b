/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_BASE_CLEANUP_H
#define AGENT_BASE_CLEANUP_H

/* Ownership by scope. Every local that owns something carries auto_…, is initialised (NULL,
 * -EBADF), and is handed over with take_ptr() or take_fd() on the last lines of the function. */

#include <stdio.h>
#include <stdlib.h>

#define auto_(fn)         __attribute__((cleanup(fn)))
#define must_check        __attribute__((warn_unused_result))
#define printf_like(f, a) __attribute__((format(printf, f, a)))
#define fallthrough_      __attribute__((fallthrough))
#define noreturn_         __attribute__((noreturn))
#define unused_           __attribute__((unused))

#define auto_free         auto_(free_voidp)
#define auto_close        auto_(close_fdp)
#define auto_fclose       auto_(fclose_filep)

/* The pointer, and NULL in its place: the scope no longer owns it. */
#define take_ptr(p)                                                                                \
    ({                                                                                             \
        __typeof__(p) *const take_at_ = &(p);                                                      \
        __typeof__(p) take_p_ = *take_at_;                                                         \
        *take_at_ = NULL;                                                                          \
        take_p_;                                                                                   \
    })

/* DEFINE_AUTO(Release, release_free) gives release_freep() for auto_(release_freep). */
#define DEFINE_AUTO(type, fn)                                                                      \
    static inline unused_ void fn##p(type **p)                                                     \
    {                                                                                              \
        if (*p)                                                                                    \
            (void)fn(*p);                                                                          \
    }

static inline void free_voidp(void *p)
{
    free(*(void **)p);
}

static inline void fclose_filep(FILE **f)
{
    if (*f)
        (void)fclose(*f);
}

/* Close unless negative; keeps errno. Returns -EBADF, so that `fd = close_fd(fd)` forgets it. */
int close_fd(int fd);
void close_fdp(const int *fd);
int take_fd(int *fd);

#define ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))
#ifdef __cppcheck__ /* it cannot parse statement expressions in every place */
#define MIN_OF(a, b) ((a) < (b) ? (a) : (b))
#define MAX_OF(a, b) ((a) > (b) ? (a) : (b))
#else
#define MIN_OF(a, b)                                                                               \
    ({                                                                                             \
        __typeof__(a) min_a_ = (a);                                                                \
        __typeof__(b) min_b_ = (b);                                                                \
        min_a_ < min_b_ ? min_a_ : min_b_;                                                         \
    })
#define MAX_OF(a, b)                                                                               \
    ({                                                                                             \
        __typeof__(a) max_a_ = (a);                                                                \
        __typeof__(b) max_b_ = (b);                                                                \
        max_a_ > max_b_ ? max_a_ : max_b_;                                                         \
    })
#endif
#define container_of(ptr, type, member)                                                            \
    ((type *)(void *)((char *)(ptr) - __builtin_offsetof(type, member)))

#endif
