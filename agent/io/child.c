/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/time.h"
#include "agent/io/loop.h"

#define CHILD_KILL_USEC (5 * SECOND) /* from SIGTERM to SIGKILL */

struct Child {
    sd_event *event;
    sd_event_source *exited;
    sd_event_source *readable;
    Timer *limit;
    ChildHandler handler;
    void *userdata;
    pid_t pid;
    int pid_fd;
    int output_fd;
    bool timed_out;
    bool reaped;
    Buf output;
};

/* Takes what is there now. A pipe that a grandchild holds open never ends, so nobody waits for its
 * end. */
static void drain(Child *child)
{
    char data[4096];
    ssize_t n;

    for (unsigned i = 0; child->output_fd >= 0 && i < 256; i++) {
        n = read(child->output_fd, data, sizeof(data));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            child->readable = sd_event_source_disable_unref(child->readable);
            child->output_fd = close_fd(child->output_fd);
            return;
        }
        /* Over the ceiling the rest is dropped, but still read: a full pipe would stop the child.
         */
        size_t room = child->output.max - child->output.size;
        (void)!buf_add(&child->output, data, MIN_OF((size_t)n, room));
    }
}

static int on_readable(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    drain(userdata);
    return 0;
}

static int on_exited(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    Child *child = userdata;
    int status = 0;

    if (waitpid(child->pid, &status, WNOHANG) == 0)
        return 0;

    child->reaped = true;
    child->exited = sd_event_source_disable_unref(child->exited);
    timer_cancel(child->limit);
    drain(child);
    child->readable = sd_event_source_disable_unref(child->readable);
    child->output_fd = close_fd(child->output_fd);

    child->handler(status, child->timed_out, &child->output, child->userdata);
    return 0;
}

static void on_limit(void *userdata)
{
    Child *child = userdata;

    (void)kill(-child->pid, child->timed_out ? SIGKILL : SIGTERM);
    if (!child->timed_out)
        (void)timer_set(child->limit, CHILD_KILL_USEC, 0);
    child->timed_out = true;
}

/* The last reader of a child that was killed unasked: it only takes the exit status away. */
static int on_orphan(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    siginfo_t info;

    (void)waitid(P_PIDFD, (id_t)fd, &info, WEXITED | WNOHANG);
    (void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
    (void)sd_event_source_set_floating(source, 0);
    return 0;
}

/* A killed process may need a moment (or a disk) to die, and the loop waits for nobody. */
static void reap(Child *child)
{
    auto_(sd_event_source_unrefp) sd_event_source *source = NULL;
    siginfo_t info = {0};

    (void)kill(-child->pid, SIGKILL);
    if (waitid(P_PIDFD, (id_t)child->pid_fd, &info, WEXITED | WNOHANG) < 0 || info.si_pid)
        return;

    if (sd_event_add_io(child->event, &source, child->pid_fd, EPOLLIN, on_orphan, NULL) < 0)
        return;
    (void)sd_event_source_set_floating(source, 1);
    (void)sd_event_source_set_io_fd_own(source, 1);
    child->pid_fd = -EBADF;
}

Child *child_free(Child *child)
{
    if (!child)
        return NULL;

    child->exited = sd_event_source_disable_unref(child->exited);
    child->readable = sd_event_source_disable_unref(child->readable);
    timer_free(child->limit);
    if (child->pid > 0 && !child->reaped)
        reap(child);
    close_fd(child->pid_fd);
    close_fd(child->output_fd);
    buf_done(&child->output);
    sd_event_unref(child->event);
    free(child);
    return NULL;
}

pid_t child_pid(const Child *child)
{
    return child->pid;
}

static int child_new(sd_event *event, ChildHandler handler, void *userdata, Child **ret)
{
    Child *child;

    child = calloc(1, sizeof(*child));
    if (!child)
        return -ENOMEM;

    child->event = sd_event_ref(event);
    child->handler = handler;
    child->userdata = userdata;
    child->pid_fd = child->output_fd = -EBADF;
    *ret = child;
    return 0;
}

/* From the moment there is a process: whatever fails, child_free() kills and reaps it. */
static int child_watch(Child *child, uint64_t timeout_usec)
{
    int r;

    child->pid_fd = pidfd_open(child->pid, 0);
    if (child->pid_fd < 0) {
        r = -errno;
        (void)kill(-child->pid, SIGKILL);
        (void)waitpid(child->pid, NULL, 0);
        child->reaped = true;
        return r;
    }

    r = sd_event_add_io(child->event, &child->exited, child->pid_fd, EPOLLIN, on_exited, child);
    if (r < 0)
        return r;
    if (child->output_fd >= 0) {
        r = sd_event_add_io(child->event, &child->readable, child->output_fd, EPOLLIN, on_readable,
                            child);
        if (r < 0)
            return r;
        /* What was written before the end belongs to the output. */
        r = sd_event_source_set_priority(child->exited, SD_EVENT_PRIORITY_NORMAL + 1);
        if (r < 0)
            return r;
    }
    if (timeout_usec == 0)
        return 0;

    r = timer_new(child->event, on_limit, child, &child->limit);
    if (r < 0)
        return r;
    return timer_set(child->limit, timeout_usec, 0);
}

/* The input in a file of its own that has no name: nothing has to be pumped. */
static int input_open(const ChildSpec *spec)
{
    auto_close int fd = -EBADF;
    int r;

    if (!spec->input) {
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return fd < 0 ? -errno : take_fd(&fd);
    }

    fd = memfd_create("input", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    r = fd_write_all(fd, spec->input, spec->input_size);
    if (r < 0)
        return r;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return -errno;
    return take_fd(&fd);
}

/* The daemon blocks and ignores signals; its children begin with none of that. */
static int spawn_attributes(posix_spawnattr_t *attr)
{
    sigset_t none, defaults;
    int r;

    (void)sigemptyset(&none);
    (void)sigemptyset(&defaults);
    (void)sigaddset(&defaults, SIGPIPE);

    r = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                           POSIX_SPAWN_SETSIGDEF);
    if (r == 0)
        r = posix_spawnattr_setpgroup(attr, 0);
    if (r == 0)
        r = posix_spawnattr_setsigmask(attr, &none);
    if (r == 0)
        r = posix_spawnattr_setsigdefault(attr, &defaults);
    return -r;
}

static int spawn_files(posix_spawn_file_actions_t *actions, int input_fd, int output_fd)
{
    int r;

    r = posix_spawn_file_actions_adddup2(actions, input_fd, STDIN_FILENO);
    if (r == 0)
        r = posix_spawn_file_actions_adddup2(actions, output_fd, STDOUT_FILENO);
    if (r == 0 && output_fd != STDERR_FILENO)
        r = posix_spawn_file_actions_adddup2(actions, output_fd, STDERR_FILENO);
    return -r;
}

static void spawnattr_done(posix_spawnattr_t *attr)
{
    (void)posix_spawnattr_destroy(attr);
}

static void actions_done(posix_spawn_file_actions_t *actions)
{
    (void)posix_spawn_file_actions_destroy(actions);
}

static int spawn(const ChildSpec *spec, int input_fd, int output_fd, pid_t *ret_pid)
{
    auto_(spawnattr_done) posix_spawnattr_t attr;
    auto_(actions_done) posix_spawn_file_actions_t actions;
    int r;

    (void)posix_spawnattr_init(&attr);
    (void)posix_spawn_file_actions_init(&actions);

    r = spawn_attributes(&attr);
    if (r < 0)
        return r;
    r = spawn_files(&actions, input_fd, output_fd);
    if (r < 0)
        return r;
    return -posix_spawnp(ret_pid, spec->argv[0], &actions, &attr, (char *const *)spec->argv,
                         spec->env ? (char *const *)spec->env : environ);
}

int child_spawn(sd_event *event, const ChildSpec *spec, ChildHandler handler, void *userdata,
                Child **ret, Error *err)
{
    auto_(child_freep) Child *child = NULL;
    auto_close int input_fd = -EBADF, write_fd = -EBADF;
    int pipe_fds[2], r;

    assert(event && spec && spec->argv && spec->argv[0] && handler && ret);

    r = child_new(event, handler, userdata, &child);
    if (r < 0)
        return error_oom(err);
    child->output.max = spec->max_output;

    input_fd = input_open(spec);
    if (input_fd < 0)
        return error_errno(err, input_fd, "%s: input", spec->argv[0]);
    if (spec->max_output > 0) {
        if (pipe2(pipe_fds, O_CLOEXEC) < 0)
            return error_errno(err, errno, "%s: pipe", spec->argv[0]);
        child->output_fd = pipe_fds[0];
        write_fd = pipe_fds[1];
        if (fcntl(child->output_fd, F_SETFL, O_NONBLOCK) < 0)
            return error_errno(err, errno, "%s: pipe", spec->argv[0]);
    }

    r = spawn(spec, input_fd, write_fd >= 0 ? write_fd : STDERR_FILENO, &child->pid);
    if (r < 0) {
        child->pid = 0;
        return error_errno(err, r, "start %s", spec->argv[0]);
    }
    r = child_watch(child, spec->timeout_usec);
    if (r < 0)
        return error_errno(err, r, "watch %s", spec->argv[0]);

    *ret = take_ptr(child);
    return 0;
}

int child_fork(sd_event *event, int (*fn)(void *arg), void *arg, uint64_t timeout_usec,
               ChildHandler handler, void *userdata, Child **ret, Error *err)
{
    auto_(child_freep) Child *child = NULL;
    sigset_t none;
    pid_t pid;
    int r;

    assert(event && fn && handler && ret);

    r = child_new(event, handler, userdata, &child);
    if (r < 0)
        return error_oom(err);

    pid = fork();
    if (pid < 0)
        return error_errno(err, errno, "fork");
    if (pid == 0) {
        (void)setpgid(0, 0);
        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        _exit(fn(arg));
    }

    /* In both, so that neither is too late for a kill of the group. */
    (void)setpgid(pid, pid);
    child->pid = pid;
    r = child_watch(child, timeout_usec);
    if (r < 0)
        return error_errno(err, r, "watch a child process");

    *ret = take_ptr(child);
    return 0;
}
