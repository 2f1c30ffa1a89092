// SPDX-License-Identifier: GPL-2.0
/*
 * Tables of on-demand regions, allocated as they are needed.
 *
 * The NIC may read a table at any time. So a table is zeroed before it is
 * linked, words change by single stores, and the tables of a whole region stay
 * until the region is destroyed. The page tables of a sparse region belong to
 * its children, which are freed when empty; the levels above them stay.
 *
 * Tables are only allocated to bring pages in, never during an invalidation,
 * which may run in reclaim.
 */

#include <linux/dma-mapping.h>

#include "odp.h"

static unsigned int refault_index(u64 offset, unsigned int level)
{
	return (offset >> (PAGE_SHIFT + level * REFAULT_WORDS_SHIFT)) &
	       (REFAULT_WORDS_PER_TABLE - 1);
}

struct refault_odp_table *refault_odp_table_alloc(struct refault_odp *odp,
						  bool of_tables)
{
	struct device *dev = &odp->dev->pdev->dev;
	struct refault_odp_table *table;

	table = kzalloc_obj(*table, GFP_KERNEL_ACCOUNT);
	if (!table)
		return NULL;
	if (of_tables) {
		table->below = kzalloc_objs(*table->below,
					    REFAULT_WORDS_PER_TABLE,
					    GFP_KERNEL_ACCOUNT);
		if (!table->below)
			goto err_free;
	}
	table->words = dma_alloc_coherent(dev, SZ_4K, &table->dma,
					  GFP_KERNEL_ACCOUNT);
	if (!table->words)
		goto err_free;
	atomic_inc(&odp->num_tables);
	return table;

err_free:
	kfree(table->below);
	kfree(table);
	return NULL;
}

/* The table must be unlinked, and the NIC's cache invalidated. */
void refault_odp_table_free(struct refault_odp *odp,
			    struct refault_odp_table *table)
{
	dma_free_coherent(&odp->dev->pdev->dev, SZ_4K, table->words,
			  table->dma);
	atomic_dec(&odp->num_tables);
	kfree(table->below);
	kfree(table);
}

static void refault_free_below(struct refault_odp *odp,
			       struct refault_odp_table *table)
{
	unsigned int i;

	if (table->below)
		for (i = 0; i < REFAULT_WORDS_PER_TABLE; i++)
			if (table->below[i])
				refault_free_below(odp, table->below[i]);
	refault_odp_table_free(odp, table);
}

/* Frees a destroyed region's tables, except those that belong to children. */
void refault_odp_tables_free(struct refault_odp *odp)
{
	refault_free_below(odp, odp->top);
}

/*
 * Links @below into @table at @offset, or clears the link if NULL. Call with
 * tables_lock held. There are two observers: lockless walks and the NIC.
 */
void refault_odp_table_set(struct refault_odp_table *table, u64 offset,
			   unsigned int level, struct refault_odp_table *below)
{
	unsigned int index = refault_index(offset, level);
	u64 word = below ? below->dma | REFAULT_ODP_TABLE : 0;

	/* The new table's contents, before a walk of refault_odp_table_below() finds it. */
	smp_store_release(&table->below[index], below);
	/* Its zeroed words, before the NIC sees the word that links it. */
	dma_wmb();
	WRITE_ONCE(table->words[index], cpu_to_le64(word));
}

/* The table below @table, a table of @level, for @offset; NULL if none. */
struct refault_odp_table *
refault_odp_table_below(const struct refault_odp_table *table, u64 offset,
			unsigned int level)
{
	/* Pairs with the release in refault_odp_table_set(). */
	return smp_load_acquire(&table->below[refault_index(offset, level)]);
}

static struct refault_odp_table *
refault_grow_below(struct refault_odp *odp, struct refault_odp_table *table,
		   u64 offset, unsigned int level)
{
	struct refault_odp_table *below;

	mutex_lock(&odp->tables_lock);
	below = refault_odp_table_below(table, offset, level);
	if (!below) {
		below = refault_odp_table_alloc(odp,
						level - 1 > odp->page_level);
		if (below)
			refault_odp_table_set(table, offset, level, below);
	}
	mutex_unlock(&odp->tables_lock);
	return below;
}

/**
 * refault_odp_table_at() - Find the table of a level for an offset.
 * @odp: the region
 * @offset: bytes from the start of what the tables cover
 * @level: 0 for the last one, of 4 KiB pages
 * @grow: allocate missing tables on the way; takes tables_lock and may sleep
 *
 * Return: the table, or NULL if there is none or no memory for it.
 */
struct refault_odp_table *refault_odp_table_at(struct refault_odp *odp,
					       u64 offset, unsigned int level,
					       bool grow)
{
	struct refault_odp_table *table = odp->top, *below;
	unsigned int at;

	for (at = odp->levels - 1; at > level; at--) {
		below = refault_odp_table_below(table, offset, at);
		if (!below && grow)
			below = refault_grow_below(odp, table, offset, at);
		if (!below)
			return NULL;
		table = below;
	}
	return table;
}
