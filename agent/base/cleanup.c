/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/base/cleanup.h"

#include <errno.h>
#include <unistd.h>

int close_fd(int fd)
{
    if (fd >= 0) {
        int saved = errno;

        (void)close(fd);
        errno = saved;
    }
    return -EBADF;
}

void close_fdp(const int *fd)
{
    (void)close_fd(*fd);
}

int take_fd(int *fd)
{
    int taken = *fd;

    *fd = -EBADF;
    return taken;
}
