/* SPDX-License-Identifier: Apache-2.0 */
/* "crawlerd recipe …" alone, so that its tests need neither the daemon nor what it links. */
#include "crawler/crawlerd/verb-recipe.h"

int main(int argc, char **argv)
{
    return verb_recipe(argc, argv);
}
