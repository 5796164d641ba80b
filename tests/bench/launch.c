/* SPDX-License-Identifier: Apache-2.0 */

/* launch FD COMMAND [ARGUMENT]...: run it, write its peak memory and the bytes it wrote to disk to
 * FD, as "KIBIBYTES BYTES", and end with its status.
 *
 * A child's ru_maxrss begins with that of the program that made it. This one is so small that the
 * figure is the command's own, to its last instant, which polling from outside would miss. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/parse.h"
#include "agent/base/str.h"

static unsigned long long written_by(pid_t pid)
{
    unsigned long long written = 0;
    char path[64], line[128];
    FILE *io;

    (void)snprintf(path, sizeof(path), "/proc/%d/io", (int)pid);
    io = fopen(path, "re");
    while (io && fgets(line, sizeof(line), io))
        if (startswith(line, "write_bytes: "))
            written = strtoull(line + strlen("write_bytes: "), NULL, 10);
    if (io)
        (void)fclose(io);
    return written;
}

int main(int argc, char **argv)
{
    unsigned long long written;
    struct rusage usage;
    siginfo_t ended;
    uint64_t fd;
    int status;
    pid_t pid;

    if (argc < 3 || parse_u64(argv[1], &fd) < 0) {
        (void)fprintf(stderr, "usage: launch FD COMMAND [ARGUMENT]...\n");
        return 64;
    }
    pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close((int)fd);
        (void)execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    /* The dead still have /proc/PID/io until they are waited for. */
    if (pid < 0 || waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOWAIT) < 0)
        return 126;
    written = written_by(pid);
    if (wait4(pid, &status, 0, &usage) != pid)
        return 126;
    (void)dprintf((int)fd, "%ld %llu\n", usage.ru_maxrss, written);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
