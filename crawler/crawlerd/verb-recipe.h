/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRAWLER_CRAWLERD_VERB_RECIPE_H
#define CRAWLER_CRAWLERD_VERB_RECIPE_H

/* crawlerd recipe list|show NAME|test NAME_OR_FILE --reply BODY …; needs no daemon and no network.
 * argv[0] is "recipe". Returns the exit status: 0 rows or a well-recognised empty answer, 3 an error
 * that the source reported, 4 a refused document, 64 wrong usage, 1 anything else. */
int verb_recipe(int argc, char **argv);

#endif
