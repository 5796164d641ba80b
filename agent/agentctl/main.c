/* SPDX-License-Identifier: Apache-2.0 */
#include <locale.h>
#include <signal.h>

#include "agent/agentctl/verb.h"

int main(int argc, char **argv)
{
    /* How wide letters are is known by locale; numbers stay as they are in every one. */
    (void)setlocale(LC_CTYPE, "");
    (void)signal(SIGPIPE, SIG_IGN);
    return agentctl_main(argc, argv);
}
