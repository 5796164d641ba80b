/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_ENGINE_REFERENCE_H
#define AGENT_ENGINE_REFERENCE_H

/* Image references, "[HOST[:PORT]/]PATH[:TAG][@sha256:HEX]", normalized the way the container
 * engine does it: no host is Docker Hub, one path component there is "library/…", neither tag nor
 * digest is "latest". */

#include <stdbool.h>

#include "agent/base/error.h"

#define REFERENCE_DIGEST_SIZE 71 /* "sha256:" and 64 hex digits */
#define REFERENCE_NAME_MAX    255
#define REFERENCE_TAG_MAX     128

typedef struct Reference {
    char *host; /* "docker.io", "asia-northeast3-docker.pkg.dev", "127.0.0.1:5000", "[::1]:5000" */
    char *path; /* "library/nginx", "proj/repo/mervis" */
    char *tag;  /* "latest"; NULL only where there is a digest and no tag was given */
    char *digest;        /* "sha256:…" or NULL */
    bool tag_is_implied; /* nobody wrote "latest": it was filled in */
} Reference;

/* -EINVAL, kind INVALID: the message names the position (1-based) and what is wrong there. */
int reference_parse(const char *text, Reference **ret, Error *err) must_check;
Reference *reference_free(Reference *reference);
DEFINE_AUTO(Reference, reference_free)

/* Each returns a text to free(), NULL when memory is out: the canonical whole
 * ("docker.io/library/nginx:latest@sha256:…"); the repository ("docker.io/library/nginx"); and the
 * repository with a digest, which is how we pull and run. */
char *reference_text(const Reference *reference);
char *reference_repository(const Reference *reference);
char *reference_by_digest(const Reference *reference, const char *digest);

/* Where the registry API of that host is: Docker Hub's is not its name. Borrowed. */
const char *reference_api_host(const Reference *reference);
/* A registry on loopback is spoken to without TLS, as the engine does. */
bool reference_host_is_loopback(const Reference *reference);
bool reference_same_repository(const Reference *a, const Reference *b);

/* "sha256:" and exactly 64 lower-case hex digits. */
bool digest_is_valid(const char *digest);

#endif
