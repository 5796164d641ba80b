/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_BASE_CRASH_H
#define AGENT_BASE_CRASH_H

/* Places where tests end the process as a power cut would: MERVIS_CRASH_AT=name, or name:3 for the
 * third time it is reached; MERVIS_CRASH_COUNT=5 is the fifth one that is reached, whatever its
 * name, so that a loop of tests comes by all of them. Always compiled in; where the variable is
 * unset it costs one comparison. */

void crash_point(const char *name);

#endif
