/* SPDX-License-Identifier: Apache-2.0 */

/* The rules of single texts: names, paths, ports, references. Each check returns NULL, or what is
 * expected. */

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "agent/base/parse.h"
#include "agent/plan/plan-internal.h"

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGIT "0123456789"
#define ALNUM LOWER UPPER DIGIT
#define HEX   DIGIT "abcdefABCDEF"

static bool one_of(char c, const char *set)
{
    return c && strchr(set, c);
}

/* The first byte of `first`, the others of `rest`, `least` to `most` bytes. */
static bool is_made_of(const char *s, const char *first, const char *rest, size_t least,
                       size_t most)
{
    size_t size = strlen(s);

    return size >= least && size <= most && one_of(*s, first) && !s[1 + strspn(s + 1, rest)];
}

const char *check_name(const char *s)
{
    return is_made_of(s, ALNUM, ALNUM "_-", 1, 63)
               ? NULL
               : "a name of at most 63 letters, digits, '-' and '_', with a letter or digit first";
}

const char *check_container_name(const char *s)
{
    return is_made_of(s, ALNUM, ALNUM "_-", 2, 63)
               ? NULL
               : "a name of 2 to 63 letters, digits, '-' and '_', with a letter or digit first";
}

/* Whether s[0 … size) is an absolute path without empty, "." or ".." parts or control characters.
 */
static bool is_path(const char *s, size_t size)
{
    size_t at = 0;

    if (size == 0)
        return false;
    while (at < size) {
        size_t from = at + 1;

        if (s[at] != '/')
            return false;
        for (at = from; at < size && s[at] != '/'; at++) {
            if (iscntrl((unsigned char)s[at]) && s[at] != 0x7F)
                return false;
        }
        if (at == from || (at - from <= 2 && strspn(s + from, ".") >= at - from))
            return false;
    }
    return true;
}

const char *check_path(const char *s)
{
    return is_path(s, strlen(s)) ? NULL
                                 : "an absolute path without \".\", \"..\" or a '/' at the end";
}

const char *check_workdir(const char *s)
{
    return streq(s, "/") ? NULL : check_path(s);
}

const char *check_timezone(const char *s)
{
    static const char expected[] = "a time zone such as \"Asia/Seoul\" or \"UTC\"";

    while (true) {
        size_t n = strspn(s, ALNUM "_+-");

        if (n == 0 || (s[n] && s[n] != '/'))
            return expected;
        if (!s[n])
            return NULL;
        s += n + 1;
    }
}

const char *check_owner(const char *s)
{
    bool is_name = is_made_of(s, LOWER "_", LOWER DIGIT "_-", 1, 32);
    bool is_number = is_made_of(s, DIGIT, DIGIT, 1, 10);

    return is_name || is_number ? NULL : "the name or number of a user or group";
}

const char *check_script(const char *s)
{
    const char *interpreter = startswith(s, "#!");
    size_t n = strcspn(s, "\r\n");

    /* The kernel would look for an interpreter whose name ends in it. */
    if (s[n] == '\r')
        return "a script whose lines end as on Unix: save it without carriage returns";
    if (interpreter && interpreter[strspn(interpreter, " ")] == '/')
        return NULL;
    return "a script that begins with \"#!\" and the path of its interpreter";
}

const char *check_remote(const char *s)
{
    return is_made_of(s, ALNUM "_./:+=@-", ALNUM "_./:+=@-", 1, 512)
               ? NULL
               : "the name that the cloud's secret store knows";
}

const char *check_version(const char *s)
{
    return is_made_of(s, ALNUM "_-", ALNUM "_-", 1, 64) ? NULL : "\"latest\" or a version";
}

/* One part of a repository: lower case letters and digits, joined by '.', '_', "__" or dashes. */
static bool is_repository_part(const char *s, size_t size)
{
    size_t at = 0;

    while (true) {
        size_t from = at, joint;

        while (at < size && one_of(s[at], LOWER DIGIT))
            at++;
        if (at == from)
            return false;
        if (at == size)
            return true;
        joint = at;
        if (s[at] == '-')
            at += strspn(s + at, "-");
        else if (s[at] == '_')
            at += s[at + 1] == '_' ? 2 : 1;
        else if (s[at] == '.')
            at++;
        if (at == joint || at >= size)
            return false;
    }
}

/* Whether the first part of a reference names a registry, as the engine decides it. */
static bool is_registry(const char *s, size_t size)
{
    return memchr(s, '.', size) || memchr(s, ':', size) || *s == '[' ||
           (size == 9 && strncmp(s, "localhost", 9) == 0);
}

static bool is_registry_well_formed(const char *s, size_t size)
{
    const char *end = s + size, *colon;

    if (*s == '[') {
        const char *close = memchr(s, ']', size);

        if (!close || close == s + 1 || strspn(s + 1, HEX ":") < (size_t)(close - s - 1))
            return false;
        s = close + 1;
        colon = s < end ? s : NULL;
        if (colon && *colon != ':')
            return false;
    } else {
        colon = memchr(s, ':', size);
        if (strspn(s, ALNUM ".-") < (size_t)((colon ? colon : end) - s) || colon == s)
            return false;
    }
    return !colon || (colon + 1 < end && strspn(colon + 1, DIGIT) >= (size_t)(end - colon - 1));
}

static const char *check_digest(const char *s)
{
    const char *hex = startswith(s, "sha256:");

    return hex && strlen(hex) == 64 && strspn(hex, DIGIT "abcdef") == 64
               ? NULL
               : "a digest \"sha256:\" and 64 hexadecimal digits after '@'";
}

/* The light check: agent/engine has the whole grammar. */
const char *check_image(const char *s)
{
    static const char expected[] =
        "an image reference such as \"HOST/PROJECT/REPOSITORY/IMAGE:TAG\"";
    const char *at = strchr(s, '@'), *end = at ? at : s + strlen(s), *slash, *tag = NULL;
    size_t n;

    if (strstr(s, "://"))
        return "an image reference without \"https://\"";
    if (at && check_digest(at + 1))
        return check_digest(at + 1);
    slash = memchr(s, '/', (size_t)(end - s));
    if (slash && is_registry(s, (size_t)(slash - s))) {
        if (!is_registry_well_formed(s, (size_t)(slash - s)))
            return "a registry \"HOST[:PORT]/\" before the repository";
        s = slash + 1;
    }
    tag = memchr(s, ':', (size_t)(end - s));
    n = strcspn(s, ":@");
    for (size_t i = 0; i < n; i++) {
        if (one_of(s[i], UPPER))
            return "a repository in lower case";
    }
    for (const char *part = s; part <= s + n;) {
        size_t size = strcspn(part, "/:@");

        if (!is_repository_part(part, size))
            return expected;
        part += size + 1;
    }
    if (!tag)
        return NULL;
    n = (size_t)(end - tag - 1);
    if (n < 1 || n > 128 || !one_of(tag[1], ALNUM "_") || strspn(tag + 1, ALNUM "_.-") < n)
        return "a tag of at most 128 letters, digits, '_', '.' and '-' after ':'";
    return NULL;
}

const char *check_user(const char *s)
{
    size_t n = strspn(s, ALNUM "_.-");

    if (n > 0 && !s[n])
        return NULL;
    if (n > 0 && s[n] == ':' && s[n + 1] && !s[n + 1 + strspn(s + n + 1, ALNUM "_.-")])
        return NULL;
    return "a user, or \"USER:GROUP\"";
}

const char *check_env(const char *s)
{
    return is_made_of(s, LOWER UPPER "_", ALNUM "_.-", 1, 256)
               ? NULL
               : "letters, digits and '_', with no digit first";
}

/* A numeric address of `family` in s[0 … size). */
static bool is_address(int family, const char *s, size_t size, char ret[static 46])
{
    unsigned char bytes[16];
    char text[46];

    if (size >= sizeof(text))
        return false;
    memcpy(text, s, size);
    text[size] = '\0';
    if (inet_pton(family, text, bytes) != 1)
        return false;
    memcpy(ret, text, size + 1);
    return true;
}

/* Digits up to `stop`, 1 to 65535. */
static bool take_port(const char **s, uint16_t *ret)
{
    size_t n = strspn(*s, DIGIT);
    uint64_t value;

    if (n > 5 || parse_u64_n(*s, n, &value) < 0 || value < 1 || value > UINT16_MAX)
        return false;
    *ret = (uint16_t)value;
    *s += n;
    return true;
}

/* "127.0.0.1:" or "[::1]:" before the ports; moves behind it. */
static bool take_address(const char **s, char ret[static 46])
{
    const char *close;

    if (**s == '[') {
        close = strchr(*s, ']');
        if (!close || close[1] != ':' ||
            !is_address(AF_INET6, *s + 1, (size_t)(close - *s - 1), ret))
            return false;
        *s = close + 2;
        return true;
    }
    close = strchr(*s, ':');
    if (!close || !memchr(*s, '.', (size_t)(close - *s)))
        return true;
    if (!is_address(AF_INET, *s, (size_t)(close - *s), ret))
        return false;
    *s = close + 1;
    return true;
}

int plan_port_parse(const char *text, PlanPort *ret)
{
    PlanPort port = {0};

    assert(text && ret);

    if (!take_address(&text, port.address) || !take_port(&text, &port.host_port) ||
        *text++ != ':' || !take_port(&text, &port.container_port))
        return -EINVAL;
    if (streq(text, "/udp"))
        port.udp = true;
    else if (*text && !streq(text, "/tcp"))
        return -EINVAL;
    *ret = port;
    return 0;
}

const char *check_port(const char *s)
{
    PlanPort port;

    return plan_port_parse(s, &port) < 0
               ? "\"[ADDRESS:]HOSTPORT:PORT[/tcp|/udp]\" such as \"8080:8080\", one port each"
               : NULL;
}

int plan_volume_parse(const char *text, PlanVolume *ret)
{
    auto_free char *source = NULL, *target = NULL;
    size_t source_size, target_size;
    const char *rest, *flag;
    bool is_bind;

    assert(text && ret);

    is_bind = *text == '/';
    source_size = strcspn(text, ":");
    if (text[source_size] != ':')
        return -EINVAL;
    rest = text + source_size + 1;
    target_size = strcspn(rest, ":");
    flag = rest + target_size;
    if (*flag && !streq(flag, ":ro") && !streq(flag, ":rw"))
        return -EINVAL;
    source = strndup(text, source_size);
    target = strndup(rest, target_size);
    if (!source || !target)
        return -ENOMEM;
    if (!is_path(target, target_size))
        return -EINVAL;
    if (is_bind ? !is_path(source, source_size) : !is_made_of(source, ALNUM, ALNUM "_.-", 2, 255))
        return -EINVAL;
    *ret = (PlanVolume){.is_bind = is_bind,
                        .source = take_ptr(source),
                        .target = take_ptr(target),
                        .read_only = streq(flag, ":ro")};
    return 0;
}

void plan_volume_done(PlanVolume *volume)
{
    free(volume->source);
    free(volume->target);
    *volume = (PlanVolume){0};
}

const char *check_volume(const char *s)
{
    PlanVolume volume = {0};
    int r;

    r = plan_volume_parse(s, &volume);
    plan_volume_done(&volume);
    return r == -EINVAL
               ? "\"/HOST/PATH:/PATH[:ro]\" or \"NAME:/PATH[:ro]\", the name of at least 2 letters"
               : NULL;
}

int plan_tmpfs_parse(const char *text, PlanTmpfs *ret)
{
    size_t path_size;
    uint64_t bytes = 0;
    char *path;

    assert(text && ret);

    path_size = strcspn(text, ":");
    if (!is_path(text, path_size))
        return -EINVAL;
    if (text[path_size] && (parse_size(text + path_size + 1, &bytes) < 0 || bytes == 0))
        return -EINVAL;
    path = strndup(text, path_size);
    if (!path)
        return -ENOMEM;
    *ret = (PlanTmpfs){.path = path, .size_bytes = bytes};
    return 0;
}

void plan_tmpfs_done(PlanTmpfs *tmpfs)
{
    free(tmpfs->path);
    *tmpfs = (PlanTmpfs){0};
}

const char *check_tmpfs(const char *s)
{
    PlanTmpfs tmpfs = {0};
    int r;

    r = plan_tmpfs_parse(s, &tmpfs);
    plan_tmpfs_done(&tmpfs);
    return r == -EINVAL ? "\"/PATH[:SIZE]\" such as \"/tmp:64MiB\"" : NULL;
}

const char *check_network(const char *s)
{
    return is_made_of(s, ALNUM, ALNUM "_.-", 1, 128)
               ? NULL
               : "\"bridge\", \"host\", \"none\" or the name of a network";
}

int plan_extra_host_parse(const char *text, char **ret_name, char **ret_address)
{
    auto_free char *name = NULL, *address = NULL;
    const char *from;
    char numeric[46];
    size_t n;

    assert(text && ret_name && ret_address);

    n = strcspn(text, ":");
    if (text[n] != ':')
        return -EINVAL;
    from = text + n + 1;
    name = strndup(text, n);
    /* Without the brackets that an IPv6 address may have. */
    n = strlen(from);
    if (n >= 2 && from[0] == '[' && from[n - 1] == ']')
        address = strndup(from + 1, n - 2);
    else
        address = strdup(from);
    if (!name || !address)
        return -ENOMEM;
    n = strlen(address);
    if (!is_made_of(name, ALNUM, ALNUM "_.-", 1, 253) ||
        (!streq(address, "host-gateway") && !is_address(AF_INET, address, n, numeric) &&
         !is_address(AF_INET6, address, n, numeric)))
        return -EINVAL;
    *ret_name = take_ptr(name);
    *ret_address = take_ptr(address);
    return 0;
}

const char *check_extra_host(const char *s)
{
    auto_free char *name = NULL, *address = NULL;

    return plan_extra_host_parse(s, &name, &address) == -EINVAL
               ? "\"NAME:ADDRESS\" such as \"db:10.0.0.5\""
               : NULL;
}

const char *check_label(const char *s)
{
    if (startswith(s, "io.mervis."))
        return "a label that does not begin with \"io.mervis.\": those are ours";
    return is_made_of(s, ALNUM, ALNUM "._/-", 1, 255)
               ? NULL
               : "letters, digits, '.', '_', '/' and '-', with a letter or digit first";
}

const char *check_cap(const char *s)
{
    return is_made_of(s, UPPER, UPPER "_", 1, 64) ? NULL
                                                  : "\"ALL\" or a capability such as \"NET_ADMIN\"";
}

const char *check_signal(const char *s)
{
    return is_made_of(s, UPPER, UPPER DIGIT "+-", 1, 16) && !streq(s, "SIG")
               ? NULL
               : "a signal such as \"SIGTERM\"";
}

const char *check_ulimit(const char *s)
{
    static const char *const names[] = {"core",    "cpu",      "data",   "fsize",      "locks",
                                        "memlock", "msgqueue", "nice",   "nofile",     "nproc",
                                        "rss",     "rtprio",   "rttime", "sigpending", "stack"};

    for (size_t i = 0; i < ELEMENTS(names); i++) {
        if (streq(names[i], s))
            return NULL;
    }
    return "a limit such as \"nofile\", \"nproc\", \"memlock\" or \"core\"";
}

/* ":PORT" if there is one; moves behind it. */
static bool take_url_port(const char **s)
{
    uint16_t port;

    if (**s != ':')
        return true;
    (*s)++;
    return take_port(s, &port);
}

const char *check_health(const char *s)
{
    static const char expected[] =
        "\"http://{container}:PORT/PATH\" or \"http://127.0.0.1:PORT/PATH\"";
    static const char *const hosts[] = {HEALTH_CONTAINER_HOST, "127.0.0.1", "localhost", "[::1]"};
    const char *rest = NULL;

    s = startswith(s, "http://");
    for (size_t i = 0; s && !rest && i < ELEMENTS(hosts); i++)
        rest = startswith(s, hosts[i]);
    if (!rest || !take_url_port(&rest) || (*rest && *rest != '/'))
        return expected;
    for (; *rest; rest++) {
        if (*rest < '!' || *rest > '~')
            return expected;
    }
    return NULL;
}

static size_t host_size(const char *s)
{
    size_t n = strspn(s, ALNUM ".-");

    return n > 0 && n <= 253 && one_of(*s, ALNUM) && one_of(s[n - 1], ALNUM) ? n : 0;
}

const char *check_host(const char *s)
{
    size_t n = host_size(s);

    return n > 0 && !s[n] ? NULL : "a host name such as \"registry.example.com\"";
}

/* Behind "localhost", 127.0.0.0/8 or [::1]; NULL for any other host. */
static const char *after_loopback(const char *s)
{
    const char *rest;
    char address[46];
    size_t n;

    rest = startswith(s, "localhost");
    if (!rest)
        rest = startswith(s, "[::1]");
    if (rest)
        return rest;
    n = strspn(s, DIGIT ".");
    return startswith(s, "127.") && is_address(AF_INET, s, n, address) ? s + n : NULL;
}

const char *check_base_url(const char *s)
{
    static const char expected[] =
        "an \"https://HOST[:PORT][/PATH]\", or \"http://\" and a loopback address";
    const char *rest = startswith(s, "http://"), *tls = startswith(s, "https://");

    if (rest)
        rest = after_loopback(rest);
    else if (tls && *tls == '[')
        rest = strchr(tls, ']') && strspn(tls + 1, HEX ":") == (size_t)(strchr(tls, ']') - tls - 1)
                   ? strchr(tls, ']') + 1
                   : NULL;
    else if (tls && host_size(tls) > 0)
        rest = tls + host_size(tls);
    if (!rest || !take_url_port(&rest) || (*rest && *rest != '/'))
        return expected;
    return rest[strspn(rest, ALNUM "._~/%-")] ? expected : NULL;
}
