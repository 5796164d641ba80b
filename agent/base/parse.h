/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_BASE_PARSE_H
#define AGENT_BASE_PARSE_H

/* Text to values, whole or not at all: no leading or trailing blanks, no sign where none belongs,
 * no overflow. All return 0 or -EINVAL / -ERANGE and leave the output alone on failure. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/base/cleanup.h"

int parse_u64(const char *s, uint64_t *ret) must_check;
int parse_i64(const char *s, int64_t *ret) must_check;
int parse_u64_n(const char *s, size_t size, uint64_t *ret) must_check;
int parse_u16(const char *s, uint16_t *ret) must_check;
/* Hexadecimal digits, no prefix. */
int parse_hex_u64(const char *s, uint64_t *ret) must_check;
/* A plain decimal fraction ("0.045"), at most 15 digits; no exponent. */
int parse_fraction(const char *s, double *ret) must_check;
int parse_bool(const char *s, bool *ret) must_check;
/* "5m", "1h30m", "250ms", "10s", "2d"; units us ms s m h d; at least one unit; descending order not
 * needed. */
int parse_duration(const char *s, uint64_t *ret_usec) must_check;
/* "512MiB", "1GiB", "64KiB", "1000" (bytes), "2GB" (10^9). One number, one unit, whole bytes
 * ("1.5GiB" is fine). */
int parse_size(const char *s, uint64_t *ret_bytes) must_check;
/* "0644": octal, up to 07777. */
int parse_mode(const char *s, mode_t *ret) must_check;

/* The shortest text that parses back: "1h30m", "64MiB". */
#define PARSE_TEXT_MAX 48
char *format_duration(char buf[static PARSE_TEXT_MAX], uint64_t usec);
char *format_size(char buf[static PARSE_TEXT_MAX], uint64_t bytes);
/* For people: "1.4 GiB". */
char *format_size_human(char buf[static PARSE_TEXT_MAX], uint64_t bytes);

#endif
