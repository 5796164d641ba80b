/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_MODEL_AMOUNT_H
#define CRAWLER_MODEL_AMOUNT_H

/* A decimal as the source wrote it: mantissa and scale, value = mantissa / 10^scale. Never a binary
 * fraction, from the reply's text to the sink. Always canonical (no trailing zeros in the
 * fraction), so that two equal amounts are equal member by member.
 *
 * What a reply's number text becomes (amount_parse):
 * - with AMOUNT_FLOAT32, text that is exactly a float32 widened to double ("73.72000122070312") is
 *   the shortest text that reads back to that float32 ("73.72"); prices only, a volume is a count;
 * - with AMOUNT_BINARY (a JSON number: some double was printed), 16 or more significant digits that
 *   still do not fit the scale are the double's noise and are rounded half to even;
 * - everything else that does not fit is -ERANGE: a dead letter, never rounded. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/cleanup.h"

typedef __int128 AmountMantissa;

typedef struct Amount {
    AmountMantissa mantissa;
    uint8_t scale; /* 0 to AMOUNT_SCALE_MAX */
    bool present;  /* false: null, and then the rest is 0 */
} Amount;

#define AMOUNT_ABSENT                 ((Amount){0})
#define AMOUNT_DIGITS_MAX             38 /* of the mantissa: BigQuery's NUMERIC and what an int128 holds */
#define AMOUNT_SCALE_NUMERIC          9  /* prices and amounts are NUMERIC */
#define AMOUNT_SCALE_MAX              38 /* volume is BIGNUMERIC */
/* Integer digits that NUMERIC holds (38 - 9). */
#define AMOUNT_INTEGER_DIGITS_NUMERIC 29

typedef enum AmountFlags {
    AMOUNT_BINARY = 1 << 0,    /* the text is a JSON number */
    AMOUNT_FLOAT32 = 1 << 1,   /* and may be a float32 widened to double */
    AMOUNT_THOUSANDS = 1 << 2, /* "1,234,567.5": commas between groups of three are skipped */
    AMOUNT_SIGN = 1 << 3,      /* a leading '+' is allowed */
} AmountFlags;

/* Reads the whole text: optional '-', digits, optional fraction, optional exponent ("1.2E-5").
 * `scale_max` is AMOUNT_SCALE_NUMERIC or AMOUNT_SCALE_MAX. -EINVAL: no number (NaN, Infinity, "");
 * -ERANGE: does not fit. Allocates nothing, does not depend on the locale. */
int amount_parse(const char *text, size_t size, unsigned flags, unsigned scale_max, Amount *ret)
    must_check;
/* A NUL-terminated decimal text of our own: amount_parse(…, 0, AMOUNT_SCALE_MAX, …). */
int amount_from_text(const char *text, Amount *ret) must_check;
Amount amount_from_i64(int64_t value);

/* Multiplies by 10^exponent (units: "in thousands", basis points): exact or -ERANGE. */
int amount_shift(const Amount *amount, int exponent, unsigned scale_max, Amount *ret) must_check;

/* a - b, exact or -ERANGE; both must be present. */
int amount_subtract(const Amount *a, const Amount *b, Amount *ret) must_check;

/* Canonical text: no exponent, no trailing zeros, no "-0". Returns the length, without a NUL. */
#define AMOUNT_TEXT_MAX 48
size_t amount_format(const Amount *amount, char buf[static AMOUNT_TEXT_MAX]);
/* What amount_format() will return, without the text. */
size_t amount_text_size(const Amount *amount);

bool amount_equal(const Amount *a, const Amount *b);
/* Whether it fits a column of that scale with 38 - 9 integer digits (NUMERIC) or any (BIGNUMERIC).
 */
bool amount_fits(const Amount *amount, unsigned scale_max);
/* < 0, 0, > 0; both must be present. */
int amount_compare(const Amount *a, const Amount *b);
bool amount_is_zero(const Amount *amount); /* present and zero */
bool amount_is_negative(const Amount *amount);

#endif
