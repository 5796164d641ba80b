/* SPDX-License-Identifier: Apache-2.0 */

/* agentctl doctor: what is seen without the network. */

#include <errno.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agentctl/doctor-internal.h"
#include "agent/base/file.h"
#include "agent/base/parse.h"
#include "agent/base/str.h"

#define MEMINFO_MAX (64U << 10)
#define SMALL_MEMORY_BYTES                                                                         \
    (UINT64_C(2) << 30)        /* below it, without swap, a pull may end a service */
#define LITTLE_MEMORY_SHARE 20 /* less than 1/20 left is little */
#define INODES_HIGH_PERCENT 95
#define DISK_HIGH_PERCENT   85 /* where no plan says it */
#define UNITS_OUTPUT_MAX    (64U << 10)
#define UNITS_TIMEOUT_USEC  (5 * SECOND)
#define DOCKER_UNIT         "docker.service"

/* Then nothing is asked of the engine. A plan that nobody knows may have some. */
static bool has_no_containers(const Doctor *doctor)
{
    return doctor->plan && doctor->plan->containers.n == 0;
}

/* ---- The engine ---- */

static void on_engine(EngineOp *op, const EngineReply *reply, const Error *err, void *userdata)
{
    Probe *probe = userdata;
    Doctor *doctor = probe->doctor;

    if (err && has_no_containers(doctor)) {
        probe_skip(probe, "not needed: the plan names no container");
        return;
    }
    if (err) {
        probe_failed(probe, err,
                     err->code == -EACCES ? "sudo agentctl doctor"
                                          : "sudo systemctl restart docker; journalctl -u docker");
        return;
    }
    if (str_set(&doctor->engine_root, reply->info->root_dir) < 0)
        doctor->memory_is_out = true;
    probe_ok(probe, "version %s, API 1.%u, %s, images under %s", reply->info->server_version,
             engine_api_version(doctor->engine), reply->info->storage_driver,
             reply->info->root_dir);
}

void check_engine(Doctor *doctor)
{
    Probe *probe = probe_new(doctor, "engine");
    auto_error Error err = {0};

    if (probe)
        probe_began(probe, engine_info(doctor->engine, on_engine, probe, &probe->engine_op, &err),
                    &err);
}

/* ---- Disks ---- */

static unsigned used_percent(uint64_t total, uint64_t available)
{
    return total == 0 ? 0 : (unsigned)(100 - MIN_OF(available, total) * 100 / total);
}

static void judge_disk(Doctor *doctor, const char *path, const struct statvfs *disk, unsigned high)
{
    Probe *space = probe_new(doctor, "disk.%s", path);
    Probe *inodes = probe_new(doctor, "inodes.%s", path);
    unsigned used = used_percent(disk->f_blocks, disk->f_bavail);
    unsigned inodes_used = used_percent(disk->f_files, disk->f_favail);
    auto_free char *larger = cloud_cure(doctor->cloud, CLOUD_TROUBLE_DISK_FULL);
    auto_free char *remedy =
        str_printf("sudo agentctl cleanup%s%s", larger ? "; " : "", larger ? larger : "");
    char left[PARSE_TEXT_MAX];

    if (!space || !inodes)
        return;
    (void)format_size_human(left, (uint64_t)disk->f_bavail * disk->f_frsize);
    if (used >= high)
        probe_wrong(space, remedy, "the disk of %s is %u %% full, %s are left", path, used, left);
    else
        probe_ok(space, "%s: %u %% used, %s are left", path, used, left);
    if (inodes_used >= INODES_HIGH_PERCENT)
        probe_wrong(inodes, "sudo agentctl cleanup", "%u %% of the inodes of %s are used",
                    inodes_used, path);
    else
        probe_ok(inodes, "%s: %u %% used", path, inodes_used);
}

/* Of each file system once: state and images are often on the same. */
void check_disk(Doctor *doctor)
{
    const char *const paths[] = {doctor->options->state_dir, doctor->engine_root,
                                 doctor->options->root};
    unsigned high = doctor->plan ? (unsigned)doctor->plan->images.disk_high : DISK_HIGH_PERCENT;
    unsigned long seen[ELEMENTS(paths)] = {0};
    size_t n_seen = 0;

    for (size_t i = 0; i < ELEMENTS(paths); i++) {
        struct statvfs disk;
        bool again = false;

        if (!paths[i] || statvfs(paths[i], &disk) < 0)
            continue;
        for (size_t j = 0; j < n_seen; j++)
            again = again || seen[j] == disk.f_fsid;
        if (again)
            continue;
        seen[n_seen++] = disk.f_fsid;
        judge_disk(doctor, paths[i], &disk, high);
    }
}

/* ---- Memory and swap ---- */

/* "MemTotal:       1000 kB" of /proc/meminfo in bytes; 0 when it is not there. */
static uint64_t meminfo_bytes(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    uint64_t kib;
    size_t size;

    if (!at)
        return 0;
    at += strlen(name);
    at += strspn(at, ": \t");
    size = strspn(at, "0123456789");
    return parse_u64_n(at, size, &kib) < 0 ? 0 : kib << 10;
}

void check_memory(Doctor *doctor)
{
    auto_free char *path = path_join(doctor->options->root, "proc/meminfo");
    Probe *probe = probe_new(doctor, "memory");
    auto_buf Buf text = BUF_INIT(MEMINFO_MAX);
    char total_text[PARSE_TEXT_MAX], free_text[PARSE_TEXT_MAX], swap_text[PARSE_TEXT_MAX];
    uint64_t total, available, swap, swap_free;

    if (!probe)
        return;
    if ((!path || file_read(path, MEMINFO_MAX, &text, NULL) < 0) &&
        file_read("/proc/meminfo", MEMINFO_MAX, &text, NULL) < 0) {
        probe_skip(probe, "/proc/meminfo cannot be read");
        return;
    }
    total = meminfo_bytes(buf_str(&text), "MemTotal");
    available = meminfo_bytes(buf_str(&text), "MemAvailable");
    swap = meminfo_bytes(buf_str(&text), "SwapTotal");
    swap_free = meminfo_bytes(buf_str(&text), "SwapFree");
    (void)format_size_human(total_text, total);
    (void)format_size_human(free_text, available);
    (void)format_size_human(swap_text, swap);
    if (swap == 0 && total < SMALL_MEMORY_BYTES)
        probe_wrong(probe,
                    "put \"swap\": {\"size\": \"1GiB\", \"path\": \"/swapfile\"} into \"system\" "
                    "of the plan",
                    "%s of memory and no swap: a pull or a peak may end a service", total_text);
    else if (available < total / LITTLE_MEMORY_SHARE &&
             (swap == 0 || swap_free < swap / LITTLE_MEMORY_SHARE))
        probe_wrong(probe, "docker stats --no-stream; ps aux --sort=-rss | head",
                    "%s of %s of memory are left, and no swap", free_text, total_text);
    else
        probe_ok(probe, "%s of %s are available, swap %s", free_text, total_text, swap_text);
}

/* ---- Time zones ---- */

void check_timezones(Doctor *doctor)
{
    /* What the plan says, and where the built-in calendars and recipes are at home. */
    const char *const names[] = {doctor->plan ? doctor->plan->system.timezone : NULL, "Asia/Seoul",
                                 "America/New_York", "Europe/Berlin"};
    Probe *probe = probe_new(doctor, "time-zones");
    size_t n = 0;

    if (!probe)
        return;
    for (size_t i = 0; i < ELEMENTS(names); i++) {
        auto_free char *below = names[i] ? str_printf("usr/share/zoneinfo/%s", names[i]) : NULL;
        auto_free char *path = below ? path_join(doctor->options->root, below) : NULL;

        if (!path)
            continue;
        if (access(path, R_OK) < 0) {
            probe_wrong(probe, "sudo apt-get install --reinstall tzdata",
                        "the data of time zone %s is not there", names[i]);
            return;
        }
        n++;
    }
    probe_ok(probe, "the data of all %zu in use is there", n);
}

/* ---- Units ---- */

typedef struct UnitState {
    char *name, *load, *active, *file, *reload;
} UnitState;

/* "Key=value" at `line` into the member of that key. */
static void read_property(UnitState *unit, char *line)
{
    const struct {
        const char *key;
        char **value;
    } members[] = {{"Id=", &unit->name},
                   {"LoadState=", &unit->load},
                   {"ActiveState=", &unit->active},
                   {"UnitFileState=", &unit->file},
                   {"NeedDaemonReload=", &unit->reload}};

    for (size_t i = 0; i < ELEMENTS(members); i++) {
        const char *value = startswith(line, members[i].key);

        if (value)
            *members[i].value = line + (value - line);
    }
}

/* The others are started by these, or by hand. */
static bool must_be_enabled(const char *name)
{
    return streq(name, "agentd.service") || streq(name, "statusd.socket");
}

static void judge_unit(Doctor *doctor, const UnitState *unit)
{
    Probe *probe = probe_new(doctor, "unit.%s", unit->name);
    auto_free char *remedy = NULL;

    if (!probe)
        return;
    if (streq_ptr(unit->load, "masked")) {
        remedy = str_printf("sudo systemctl unmask --now %s", unit->name);
        probe_wrong(probe, remedy, "is masked");
    } else if (!streq_ptr(unit->load, "loaded")) {
        probe_wrong(probe,
                    streq(unit->name, DOCKER_UNIT)
                        ? "sudo apt-get install docker.io"
                        : "sudo apt-get install --reinstall mervis-agent",
                    "is %s", unit->load ? unit->load : "not there");
    } else if (streq_ptr(unit->active, "failed")) {
        remedy =
            str_printf("journalctl -u %s -n 50; sudo systemctl restart %s", unit->name, unit->name);
        probe_wrong(probe, remedy, "has failed");
    } else if (streq_ptr(unit->reload, "yes")) {
        remedy = str_printf("sudo systemctl daemon-reload; sudo systemctl restart %s", unit->name);
        probe_wrong(probe, remedy, "was changed on disk after systemd read it");
    } else if (streq_ptr(unit->file, "disabled") && must_be_enabled(unit->name)) {
        remedy = str_printf("sudo systemctl enable --now %s", unit->name);
        probe_wrong(probe, remedy, "is not enabled: it is not there after a boot");
    } else {
        probe_ok(probe, "%s", unit->active ? unit->active : "loaded");
    }
}

/* Blocks of properties, an empty line between. */
static void on_units(int status, bool timed_out, const Buf *output, void *userdata)
{
    Probe *probe = userdata;
    auto_free char *text = strdup(buf_str(output));
    UnitState unit = {0};
    size_t n = 0;

    if (!text || timed_out || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        probe_wrong(probe, "systemctl status", "systemctl %s",
                    timed_out ? "does not answer" : "cannot say how the units are");
        return;
    }
    for (char *line = text, *end; line; line = end) {
        end = strchr(line, '\n');
        if (end)
            *end++ = '\0';
        read_property(&unit, line);
        if (!*line && unit.name) {
            judge_unit(probe->doctor, &unit);
            unit = (UnitState){0};
            n++;
        }
    }
    if (unit.name) {
        judge_unit(probe->doctor, &unit);
        n++;
    }
    probe_ok(probe, "%zu looked at", n);
}

void check_units(Doctor *doctor)
{
    const char *argv[] = {"systemctl",
                          "show",
                          "--property=Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload",
                          "agentd.service",
                          "statusd.service",
                          "statusd.socket",
                          NULL,
                          NULL,
                          NULL};
    size_t n = ELEMENTS(argv) - 3;
    const ChildSpec spec = {
        .argv = argv, .timeout_usec = UNITS_TIMEOUT_USEC, .max_output = UNITS_OUTPUT_MAX};
    auto_free char *booted = path_join(doctor->options->root, "run/systemd/system");
    Probe *probe = probe_new(doctor, "units");
    auto_error Error err = {0};

    if (!has_no_containers(doctor))
        argv[n++] = DOCKER_UNIT;
    if (doctor->plan && doctor->plan->crawl)
        argv[n] = "crawlerd.service";
    if (!probe)
        return;
    if (!booted || access(booted, F_OK) < 0)
        probe_skip(probe, "systemd does not run here");
    else
        probe_began(probe, child_spawn(doctor->event, &spec, on_units, probe, &probe->child, &err),
                    &err);
}
