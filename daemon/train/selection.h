/* selection.h: is what Lighthouse attention selects in good health?
 *
 * Looks at the entries that the heads of a model's Lighthouse layers choose on one
 * sequence, which is the same at every look. Of each level above the finest:
 *
 *   expanded   share of its entries that a head expands (by the geometry k / N_l)
 *   any_head   share that at least one head of a layer expands
 *   heads      overlap between heads of a layer: the share of what one head expands
 *              that another one does, too; 1: all are alike
 *   kept       share of what a head expands that it did at the look before; null at
 *              the first
 *
 * each a mean over layers and heads. And the share of all tokens that no head of any
 * layer chose, at the finest level, in the last LH_SELECTION_WINDOW looks: places that
 * are starved. Looks are remembered in memory alone: another worker, and a phase of
 * another geometry, begin with none.
 *
 * A look is begin, add for each layer, json. Plain memory; one thread.
 */
#ifndef LIGHTHOUSE_SELECTION_H
#define LIGHTHOUSE_SELECTION_H

#include <jansson.h>

#include "lighthouse/lighthouse.h"

#define LH_SELECTION_WINDOW 8

struct lh_selection;

/* The geometry is copied. `layers`: all of the model, dense ones too. */
struct lh_selection *lh_selection_new(const struct lh_lighthouse *g, int layers, int heads);
void lh_selection_free(struct lh_selection *s); /* NULL is allowed */
bool lh_selection_is_of(const struct lh_selection *s, const struct lh_lighthouse *g);

void lh_selection_begin(struct lh_selection *s);
/* index (heads, S): flat indices of the pyramid, as lighthouse_select gives them. */
void lh_selection_add(struct lh_selection *s, int layer, const int32_t *index);
/* {layers, window, never, levels: [{level, expanded, any_head, heads, kept}]}, from
 * the coarsest on; window: looks that `never` is about. */
json_t *lh_selection_json(const struct lh_selection *s);

#endif
