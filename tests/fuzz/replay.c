/* SPDX-License-Identifier: Apache-2.0 */

/* main() of a fuzz-NAME without libFuzzer: gives it every file of corpus/NAME (or the files that
 * are named as arguments, or those of one directory) and reports in TAP. */

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

#define INPUT_MAX (4u << 20)

/* A copy of its exact size, so that a read past the end is seen by the sanitizers. */
static int replay(const char *path)
{
    uint8_t *whole = malloc(INPUT_MAX), *exact = NULL;
    FILE *file = fopen(path, "re");
    size_t size = 0;
    int r = -1;

    if (whole && file)
        size = fread(whole, 1, INPUT_MAX, file);
    if (whole && file && !ferror(file))
        exact = malloc(size > 0 ? size : 1);
    if (exact) {
        memcpy(exact, whole, size);
        r = LLVMFuzzerTestOneInput(exact, size);
    }
    if (file)
        (void)fclose(file);
    free(exact);
    free(whole);
    return r;
}

static int is_seed(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* The corpus beside the sources: builddir/tests/fuzz/fuzz-NAME has srcdir/tests/fuzz/corpus/NAME.
 */
static int corpus_path(const char *program, char *path, size_t size)
{
    const char *name = strstr(program, "fuzz-"), *srcdir = getenv("srcdir");

    for (const char *next = name; next; next = strstr(next + 1, "fuzz-"))
        name = next;
    if (!name)
        return -EINVAL;
    return snprintf(path, size, "%s/tests/fuzz/corpus/%s", srcdir ? srcdir : ".", name + 5);
}

static int replay_corpus(const char *directory)
{
    struct dirent **entries = NULL;
    int n, bad = 0;

    n = scandir(directory, &entries, is_seed, alphasort);
    if (n <= 0) {
        printf("Bail out! %s: no corpus\n", directory);
        return EXIT_FAILURE;
    }
    printf("1..%d\n", n);
    for (int i = 0; i < n; i++) {
        char path[4096 + 256 + 2];
        int r;

        (void)snprintf(path, sizeof(path), "%s/%s", directory, entries[i]->d_name);
        /* Said before, so that a crash has a name. */
        printf("# %s\n", path);
        (void)fflush(stdout);
        r = replay(path);
        printf("%s %d - %s\n", r == 0 ? "ok" : "not ok", i + 1, entries[i]->d_name);
        bad += r != 0;
        free(entries[i]);
    }
    free(entries);
    return bad > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    char directory[4096];
    struct stat st;
    int bad = 0;

    if (argc == 2 && stat(argv[1], &st) == 0 && S_ISDIR(st.st_mode))
        return replay_corpus(argv[1]);
    for (int i = 1; i < argc; i++) {
        printf("# %s\n", argv[i]);
        (void)fflush(stdout);
        bad += replay(argv[i]) != 0;
    }
    if (argc > 1)
        return bad > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    if (corpus_path(argv[0], directory, sizeof(directory)) < 0)
        return EXIT_FAILURE;
    return replay_corpus(directory);
}
