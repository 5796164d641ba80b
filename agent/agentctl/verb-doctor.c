/* SPDX-License-Identifier: Apache-2.0 */

/* agentctl doctor */

#include <unistd.h>

#include "agent/agentctl/doctor.h"
#include "agent/agentctl/verb.h"
#include "agent/base/time.h"
#include "agent/io/daemon.h"
#include "agent/io/json.h"

#define STATE_DIR "/var/lib/mervis-agent"
#define PAGE_MAX  (4U << 20)

static const char *arg_json, *arg_root = "/", *arg_state_dir = STATE_DIR,
                             *arg_engine = DAEMON_ENGINE_SOCKET;

const VerbOption doctor_options[] = {
    {"json", NULL, &arg_json, "print the lines as JSON", 0},
    {"root", "DIR", &arg_root, "where the system is looked at (/)", 0},
    {"state-dir", "DIR", &arg_state_dir, "agentd's state (" STATE_DIR ")", 0},
    {"engine", "SOCKET", &arg_engine, "the container engine (" DAEMON_ENGINE_SOCKET ")", 0},
    {0},
};

int verb_doctor(char *const *operands)
{
    const DoctorOptions options = {
        .root = arg_root, .state_dir = arg_state_dir, .engine = arg_engine};
    const View view = render_view_of(STDOUT_FILENO);
    auto_buf Buf page = BUF_INIT(PAGE_MAX);
    json_auto_t *report = NULL;
    auto_error Error err = {0};
    int r;

    if (doctor_run(&options, &report, &err) < 0)
        return verb_fail(&err, EXIT_DEGRADED);
    if (doctor_view(report, &view, &page) < 0)
        return verb_fail((error_oom(&err), &err), EXIT_DEGRADED);
    r = arg_json ? verb_print_json(json_incref(report)) : verb_print(buf_str(&page));
    return r != EXIT_WELL || !json_flag(report, "ok") ? EXIT_DEGRADED : EXIT_WELL;
}
