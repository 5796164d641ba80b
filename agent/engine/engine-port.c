/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/buf.h"
#include "agent/base/file.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"
#include "agent/engine/engine-internal.h"

/* Who has the port: /proc/net/tcp says which socket listens there, /proc/PID/fd whose it is. */

#define PROC_NET_MAX (8U << 20)
#define STATE_LISTEN 0x0a
#define COLUMN_LOCAL 1
#define COLUMN_STATE 3
#define COLUMN_INODE 9

uint16_t port_in_message(const char *message)
{
    /* "Bind for 0.0.0.0:8080 failed: port is …", "listen tcp4 0.0.0.0:8080: bind: address …" */
    static const char *const marks[] = {" failed: port is already allocated", ": bind: address",
                                        " failed: address already in use"};

    for (size_t i = 0; i < ELEMENTS(marks); i++) {
        const char *end = strstr(message, marks[i]), *digit = end;
        uint64_t port = 0;

        while (digit && digit > message && isdigit((unsigned char)digit[-1]))
            digit--;
        if (digit && digit > message && digit[-1] == ':' &&
            parse_u64_n(digit, (size_t)(end - digit), &port) >= 0 && port <= UINT16_MAX)
            return (uint16_t)port;
    }

    return 0;
}

/* The inode of the socket in that line of /proc/net/tcp, if it listens at the port; else 0. */
static uint64_t inode_of_line(char *line, uint16_t port)
{
    auto_(strv_freep) char **columns = str_split(line, " ");
    const char *colon;
    uint64_t number = 0, state = 0, inode = 0;

    if (strv_length(columns) <= COLUMN_INODE)
        return 0;
    colon = strrchr(columns[COLUMN_LOCAL], ':');
    if (!colon || parse_hex_u64(colon + 1, &number) < 0 || number != port ||
        parse_hex_u64(columns[COLUMN_STATE], &state) < 0 || state != STATE_LISTEN ||
        parse_u64(columns[COLUMN_INODE], &inode) < 0)
        return 0;

    return inode;
}

static uint64_t find_inode(const char *table, uint16_t port)
{
    auto_buf Buf text = BUF_INIT(PROC_NET_MAX);
    uint64_t inode = 0;

    if (file_read(table, PROC_NET_MAX, &text, NULL) < 0)
        return 0;
    /* A busy machine has ten thousand lines: where they stand, not copied. */
    for (char *line = text.data, *next; line && *line && !inode; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        inode = inode_of_line(line, port);
    }

    return inode;
}

static bool holds_socket(const char *pid, const char *wanted)
{
    auto_free char *path = str_printf("/proc/%s/fd", pid);
    DIR *dir = path ? opendir(path) : NULL;
    bool found = false;

    if (!dir)
        return false;
    for (struct dirent *entry; !found && (entry = readdir(dir));) {
        char target[64];
        ssize_t size = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

        if (size < 0)
            continue;
        target[size] = '\0';
        found = streq(target, wanted);
    }
    (void)closedir(dir);

    return found;
}

static char *process_text(const char *pid)
{
    auto_buf Buf name = BUF_INIT(256);
    auto_free char *path = str_printf("/proc/%s/comm", pid);
    auto_free char *shown = NULL;

    if (path && file_read(path, 255, &name, NULL) >= 0 && name.size > 0)
        shown = str_escape(name.data, name.size - (name.data[name.size - 1] == '\n'), 64);

    return shown ? str_printf("%s (pid %s)", shown, pid) : str_printf("process %s", pid);
}

int port_owner(uint16_t port, char **ret)
{
    uint64_t inode = find_inode("/proc/net/tcp", port);
    auto_free char *wanted = NULL;
    char *owner = NULL;
    DIR *dir;

    if (!inode)
        inode = find_inode("/proc/net/tcp6", port);
    wanted = inode ? str_printf("socket:[%" PRIu64 "]", inode) : NULL;
    if (!wanted)
        return 0;

    dir = opendir("/proc");
    if (!dir)
        return 0;
    for (struct dirent *entry; !owner && (entry = readdir(dir));)
        if (isdigit((unsigned char)entry->d_name[0]) && holds_socket(entry->d_name, wanted))
            owner = process_text(entry->d_name);
    (void)closedir(dir);
    if (!owner)
        return 0;

    *ret = owner;
    return 1;
}
