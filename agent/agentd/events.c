/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentd/events.h"

#include "agent/base/cleanup.h"
#include "agent/base/str.h"

/* clang-format off */
const EventKind event_kinds[] = {
    {"agentd-started", "21088ef9943b7d809d6edc75ab337210"},
    {"agentd-stopping", "ce25baef341a1ddedf1be52c4d35d54a"},
    {"plan-accepted", "243341d1ed83299e14618a91263e8b83"},
    {"plan-refused", "7812478ccd5ca5de2a4570280f662b4c"},
    {"plan-removed", "e9a153f65d5b331e63a45017a546f50c"},
    {"plan-applied", "f0ce44b27045cc755f8e598e94301afb"},
    {"resource-failed", "dbe08b06073db457c0d416e03e199520"},
    {"resource-recovered", "2a81cec22494938133e9cff5d24e1a02"},
    {"metadata-unreachable", "95a39ab1dcf2358bd0a4862a3971d0f6"},
    {"metadata-back", "a514c5630302ebb2058be421bec3451e"},
    {"secret-fetched", "26be322c28d49b284a3c6727890b8f69"},
    {"secret-changed", "8f3463a8027a56a25dd9d9fe014f1bec"},
    {"secret-stale", "aece550db9b7075b951aafc38601ce86"},
    {"container-started", "181a53f978ac435c015eb6d76bdf98c3"},
    {"rolled-out", "a2a3573cbdb5d20292b1328aac12c018"},
    {"rolled-back", "fc997cde8aa586de224d2a4e41a370cb"},
    {"release-failed", "55b2e0de47951f1745e7219f69df0ff6"},
    {"update-held", "507e83e4e659623d1d65293c97b4ea84"},
    {"secret-baked", "4cafd611526e8903fdfabf539ac2292b"},
    {"job-done", "3f04f4e4be56e886ee131d7e4c2c5ab9"},
    {"job-failed", "e49d64bb9d670d9ede4f8720233c8984"},
    {"container-removed", "e3e84a40d1ee5a7ba88da0a2b4cd865c"},
    {"images-removed", "09a870687d40f0da8022ab92d699c5f5"},
    {"engine-unreachable", "6c874345bf4cda8fca54297835a75c57"},
    {"engine-back", "4e5ca50f18d051ad7197b822c413d520"},
    {"preempted", "7c0dbbd9c61bf2547d41c529eb5f5948"},
    {"maintenance", "f0eca3b5eadaddc0bbf597f87d0d40ec"},
    {"draining", "a253fad5580cfe6e5c37625f7cd3c5aa"},
    {"drained", "1ccc388fe917bc5a2801f66960efa8e7"},
    {"state-rebuilt", "e702a7fc51b01efbddfca2c72793024e"},
    {"instance-changed", "cfacd642b396effbbd1ac2ccf08f8d6d"},
    {"degraded", "d301d6aa115da83428e7e3b5cf3d4764"},
    {"well", "e13e0d901706d79083a7ac488f67bc0f"},
    {"script-ended", "522944ec76a18ed5781674982352d2cc"},
    {"left-alone", "9987e9fac2c39a9ceab1547f8a9f1536"},
};
/* clang-format on */

const size_t n_event_kinds = ELEMENTS(event_kinds);

const EventKind *event_kind(const char *name)
{
    for (size_t i = 0; i < n_event_kinds; i++)
        if (streq(event_kinds[i].name, name))
            return event_kinds + i;
    return NULL;
}
