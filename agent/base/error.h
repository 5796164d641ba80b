/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_BASE_ERROR_H
#define AGENT_BASE_ERROR_H

/* A failure in three parts: the number says what happened, the kind what the program can do, the
 * message what a person should know, and the remedy what a person can type. Policy reads the kind,
 * never the text. */

#include <stdarg.h>
#include <stdint.h>

#include "agent/base/cleanup.h"

typedef enum ErrorKind {
    ERROR_INTERNAL,  /* our own bug, or memory */
    ERROR_INVALID,   /* wrong input or plan: a person must act */
    ERROR_TEMPORARY, /* may work later: back off and repeat */
    ERROR_THROTTLED, /* may work after retry_after_usec: the peer said so */
    ERROR_DENIED,    /* refresh credentials once, then say which scope, role or API is missing */
    ERROR_CORRUPT,   /* contradicts its digest, checksum or schema: quarantine, do not retry */
    ERROR_KIND_MAX,
} ErrorKind;

typedef struct Error {
    int code; /* negative errno, as the function returned it; 0 while there is no error */
    ErrorKind kind;
    uint64_t retry_after_usec; /* a duration; 0 unless the peer named one */
    char *message; /* outermost context first: "container mervis: pull: registry: HTTP 503" */
    char *remedy;  /* a command to run or a sentence, or NULL */
} Error;

/* Every function below returns `code` and accepts a NULL `err`. error_set() expects an unset Error:
 * release one before reusing it. Code 0 is our own mistake and is asserted. */

int error_set(Error *err, int code, ErrorKind kind, const char *format, ...) printf_like(4, 5);
int error_setv(Error *err, int code, ErrorKind kind, const char *format, va_list args)
    printf_like(4, 0);

/* For a failed system call: appends strerror and chooses the kind (memory INTERNAL; ENOSPC, EAGAIN,
 * EINTR, network trouble TEMPORARY; EACCES, EPERM DENIED; the rest INVALID). `error_number` may be
 * positive or negative. */
int error_errno(Error *err, int error_number, const char *format, ...) printf_like(3, 4);

/* Puts "context: " before the message. */
int error_prefix(Error *err, int code, const char *format, ...) printf_like(3, 4);

/* Sets the remedy, replacing a former one. */
int error_remedy(Error *err, int code, const char *format, ...) printf_like(3, 4);

/* -ENOMEM with a message; the one error that allocates nothing. */
int error_oom(Error *err);

/* Moves `from` (emptied) into `to` (which must be unset or NULL: then it is released). Returns the
 * code. */
int error_move(Error *to, Error *from);
int error_copy(Error *to, const Error *from);

/* Frees the contents and unsets it; safe on an unset one, usable as auto_(error_done). */
void error_done(Error *err);

/* The message, or strerror(code) when there is none; never NULL. */
const char *error_text(const Error *err);
const char *error_kind_name(ErrorKind kind);
/* The kind of that name, or -EINVAL. */
int error_kind_from_name(const char *name);
/* Whether repeating the same thing later may succeed without a person. */
int error_is_transient(const Error *err);

#define auto_error auto_(error_done)

#if defined(__clang_analyzer__) && !defined(ERROR_IMPLEMENTATION)
/* The analyzer sees one file at a time and would believe that a failure may return 0. */
#define error_set(err, code, ...)    ((void)(error_set)(err, code, __VA_ARGS__), (code))
#define error_setv(err, code, ...)   ((void)(error_setv)(err, code, __VA_ARGS__), (code))
#define error_prefix(err, code, ...) ((void)(error_prefix)(err, code, __VA_ARGS__), (code))
#define error_remedy(err, code, ...) ((void)(error_remedy)(err, code, __VA_ARGS__), (code))
#define error_errno(err, ...)        ((void)(error_errno)(err, __VA_ARGS__), -1)
#define error_oom(err)               ((void)(error_oom)(err), -1)
#endif

#endif
