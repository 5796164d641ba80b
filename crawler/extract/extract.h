/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_EXTRACT_EXTRACT_H
#define CRAWLER_EXTRACT_EXTRACT_H

/* One reply into rows, by a recipe. Every reply is exactly one of four things, and never a crash or
 * a wrong row: rows, a well-recognised empty answer, an error that the source reported, or a
 * document that is refused with the reason. Pure: no clock, no files but tzdata, no host zone. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/error.h"
#include "crawler/model/bar.h"
#include "crawler/recipe/recipe.h"

typedef enum ExtractVerdict {
    EXTRACT_ROWS,
    EXTRACT_EMPTY,        /* the source has nothing for this range, and said so in its own way */
    EXTRACT_SOURCE_ERROR, /* the source reported an error: `kind` and `text` */
    EXTRACT_REFUSED,      /* not what the recipe says: keep the document, back off */
    EXTRACT_VERDICT_MAX,
} ExtractVerdict;

typedef struct ExtractRequest {
    const char *symbol;         /* NULL: the reply's own */
    const char *interval;       /* NULL: the reply's own, else "1d" */
    int64_t from_usec, to_usec; /* asked for; CURSOR_NEVER and INT64_MAX: unknown */
    int64_t now_usec;           /* when the reply came, wall clock: what ends later is not final */
} ExtractRequest;

typedef struct ExtractOutcome {
    ExtractVerdict verdict;
    ErrorKind kind;            /* of EXTRACT_SOURCE_ERROR */
    char *text;                /* the source's words, or the reason of a refusal; never NULL then */
    uint64_t retry_after_usec; /* 0: the source named none in its body */
    bool nothing;    /* an error that says no more than that there is nothing: read on past it */
    RecipePage page; /* for recipe_advance() */
    size_t dropped;  /* rows without any price (gaps), not dead */
} ExtractOutcome;

/* Once, before recipes are compiled: lends libxml2 and the fixups to the compiler. */
void extract_init(void);

void extract_outcome_done(ExtractOutcome *outcome);
#define auto_extract_outcome auto_(extract_outcome_done)
const char *extract_verdict_name(ExtractVerdict verdict);

/* Appends to `rows`; rows that cannot be made whole go to its dead rows. `content_type` is the
 * header's value, "" where the reply had none, NULL where nobody knows (it is not checked then).
 * Returns 0 whatever the document is; < 0 only for memory and our own
 * mistakes. */
int extract_run(const Recipe *recipe, const ExtractRequest *request, const void *body, size_t size,
                long status, const char *content_type, RowSet *rows, ExtractOutcome *ret,
                Error *err) must_check;

#endif
