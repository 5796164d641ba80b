/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_AGENTD_NOTIFY_H
#define AGENT_AGENTD_NOTIFY_H

/* Tells people about events: a webhook as Slack has it, its URL a secret of the plan. Events gather
 * for some seconds and go as one message, at most one in half a minute; what cannot be sent is
 * tried again with growing pauses, in bounded memory. Nothing waits for it. */

#include <systemd/sd-event.h>

#include "agent/base/log.h"
#include "agent/cloud/cloud.h"
#include "agent/plan/plan.h"

#define NOTIFY_GATHER_USEC  (5 * SECOND)
#define NOTIFY_PAUSE_USEC   (30 * SECOND) /* between two messages to one address */
#define NOTIFY_WAITING_MAX  50            /* events; of more, the oldest are only counted */
#define NOTIFY_RETRY_CAP    (5 * MINUTE)
#define NOTIFY_TIMEOUT_USEC (15 * SECOND)

typedef struct Notifier Notifier;

/* All are borrowed and outlive it. */
int notifier_new(sd_event *event, HttpClient *http, Cloud *cloud, Notifier **ret, Error *err)
    must_check;
Notifier *notifier_free(Notifier *notifier);
DEFINE_AUTO(Notifier, notifier_free)

/* Whom to tell what, and in which language. Events that wait for an address that is still there
 * go on waiting. */
int notifier_set_plan(Notifier *notifier, const Plan *plan, Error *err) must_check;
/* Something happened; `text` is the event's own sentence, `message_id` that of its catalog entry or
 * NULL. */
void notifier_event(Notifier *notifier, LogLevel level, const char *event, const char *message_id,
                    const char *text);

/* What an event is called in that language ("" for an event without an entry), and what a person
 * can do (""). Both static. */
void notify_texts(const char *message_id, PlanLocale locale, const char **ret_subject,
                  const char **ret_remedy);
/* An event as it is sent: what the receiver would read as markup escaped, and cut where it is too
 * long, between characters. free(); NULL when memory is out. */
char *notify_line(PlanLocale locale, const char *message_id, const char *text);

#endif
