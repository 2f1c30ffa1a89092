/* SPDX-License-Identifier: GPL-2.0 */
/*
 * On-demand regions that the NIC translates with a table of the region's own.
 *
 * Locks, outermost first:
 *   tables_lock	links between tables; held across allocations
 *   umem_mutex		the words of one umem's pages, and their DMA mappings
 *   xa_lock of children
 *   lane1_lock		the invalidation command
 *
 * Direct reclaim can call the MMU notifier, which takes umem_mutex. Hence no
 * memory is allocated under umem_mutex, and the notifier never takes
 * tables_lock, whose holder may itself be in reclaim.
 */
#ifndef REFAULT_ODP_H
#define REFAULT_ODP_H

#include <linux/completion.h>
#include <linux/llist.h>
#include <linux/refcount.h>
#include <linux/workqueue.h>
#include <rdma/ib_umem_odp.h>

#include "refault.h"

#define REFAULT_WORDS_PER_TABLE 512
#define REFAULT_WORDS_SHIFT 9

/* A child of a sparse region covers what one table of pages covers: 2 MiB. */
#define REFAULT_CHILD_SHIFT (PAGE_SHIFT + REFAULT_WORDS_SHIFT)
#define REFAULT_CHILD_BYTES BIT_ULL(REFAULT_CHILD_SHIFT)

/*
 * The longest explicit region with a single umem, which has per-page arrays of
 * the region's full size. Longer regions are sparse.
 */
#define REFAULT_WHOLE_BYTES SZ_4G

/* A table that the NIC walks. */
struct refault_odp_table {
	__le64 *words;
	dma_addr_t dma;
	/* The table behind each word. NULL in a table of pages. */
	struct refault_odp_table **below;
};

/* Counted in pages; *_handled count the events or commands. See docs/nic.md. */
struct refault_odp_stats {
	atomic64_t faults;
	atomic64_t faults_handled;
	atomic64_t invalidations;
	atomic64_t invalidations_handled;
	atomic64_t prefetch;
};

/* A umem and the words for its pages: a whole region, or a child. */
struct refault_odp_part {
	struct refault_odp *odp;
	struct ib_umem_odp *umem;
	/* A child's only table. NULL: the words are in the region's tables. */
	struct refault_odp_table *leaf;
	/* Children only: one reference per user, and one of odp->children. */
	refcount_t users;
	struct completion unused;
	struct work_struct destroy;
};

/* The on-demand side of a memory region. */
struct refault_odp {
	struct refault_dev *dev;
	/* Of the region, which may go first. */
	u64 start;
	u64 length;
	u32 key;
	/* One reference of the region, one per user that found it by key. */
	refcount_t users;
	struct work_struct free;
	/* The NIC does not know the region any more: bring no pages in. */
	bool leaving;

	/* Held to change links between tables. */
	struct mutex tables_lock;
	struct refault_odp_table *top;
	u8 levels;
	u8 page_level;		/* Level of leaf words: 0, or 1 for 2 MiB. */
	atomic_t num_tables;

	/* Process addresses of the region's and the table's first byte. */
	u64 first;
	u64 base;

	struct refault_odp_part whole;	/* Unless sparse. */
	struct ib_umem_odp *anchor;	/* Sparse; else NULL. */
	struct xarray children;		/* Sparse: by address in 2 MiB units. */

	struct refault_odp_stats stats;
};

/* For what access pages are brought in. */
enum refault_bring {
	REFAULT_BRING_READ,
	REFAULT_BRING_WRITE,
	/* Only pages that are present, with the rights they have. */
	REFAULT_BRING_PRESENT,
};

/* Faults to inject into the answering of page faults; see odp_break.c. */
enum refault_break {
	REFAULT_BREAK_NONE,
	REFAULT_BREAK_NEVER,
	REFAULT_BREAK_TWICE,
	REFAULT_BREAK_LATE,
	REFAULT_BREAK_REFUSE,
};

static inline bool refault_has_odp(const struct refault_dev *dev)
{
	return le32_to_cpu(dev->caps.features) & REFAULT_CAP_ODP &&
	       dev->caps.page_faults;
}

/* odp_table.c */
struct refault_odp_table *refault_odp_table_alloc(struct refault_odp *odp,
						  bool of_tables);
void refault_odp_table_free(struct refault_odp *odp,
			    struct refault_odp_table *table);
void refault_odp_tables_free(struct refault_odp *odp);
struct refault_odp_table *refault_odp_table_at(struct refault_odp *odp,
					       u64 offset, unsigned int level,
					       bool grow);
struct refault_odp_table *
refault_odp_table_below(const struct refault_odp_table *table, u64 offset,
			unsigned int level);
void refault_odp_table_set(struct refault_odp_table *table, u64 offset,
			   unsigned int level,
			   struct refault_odp_table *below);

/* odp_unmap.c */
void refault_umem_unmap(struct ib_umem_odp *umem, u64 start, u64 end);
void refault_umem_release(struct ib_umem_odp *umem);

/* odp_pages.c */
int refault_part_bring(struct refault_odp_part *part, u64 address, u64 length,
		       enum refault_bring how, u64 *pages);
void refault_odp_forget(struct refault_odp *odp, u64 address, u64 length);
extern const struct mmu_interval_notifier_ops refault_odp_notifier_ops;

/* odp_child.c */
int refault_children_bring(struct refault_odp *odp, u64 address, u64 length,
			   enum refault_bring how, u64 *pages);
void refault_child_empty(struct refault_odp_part *child);
void refault_children_free(struct refault_odp *odp);

/* odp_break.c */
enum refault_break refault_next_break(void);

/* odp.c */
int refault_odp_create(struct refault_dev *dev, struct refault_mr *mr,
		       u64 address, int access);
void refault_odp_leave(struct refault_odp *odp);
struct refault_odp *refault_odp_get(struct refault_dev *dev, u32 key);
void refault_odp_put(struct refault_odp *odp);
int refault_odp_bring(struct refault_odp *odp, u64 address, u64 length,
		      enum refault_bring how, u64 *pages);

#endif
