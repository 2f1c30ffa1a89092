// SPDX-License-Identifier: GPL-2.0
/*
 * Page buffer lists: tables with the DMA addresses of pinned memory.
 *
 * Pages that are contiguous in DMA address space need no table. Everything else
 * gets a tree of 4 KiB tables of 64-bit addresses, with at most three levels:
 * enough for 2^27 pages.
 */

#include <linux/dma-mapping.h>
#include <rdma/iter.h>

#include "refault.h"

#define REFAULT_TABLE_BYTES SZ_4K
#define REFAULT_TABLE_ENTRIES (REFAULT_TABLE_BYTES / sizeof(__le64))
#define REFAULT_MAX_LEVELS 3

/* Whether the pages are contiguous in DMA address space. */
static bool refault_is_contiguous(struct ib_umem *umem)
{
	struct scatterlist *sg;
	dma_addr_t next = 0;
	int i;

	for_each_sgtable_dma_sg(&umem->sgt_append.sgt, sg, i) {
		if (i && sg_dma_address(sg) != next)
			return false;
		next = sg_dma_address(sg) + sg_dma_len(sg);
	}
	return true;
}

static unsigned int refault_tables_for(size_t entries)
{
	return DIV_ROUND_UP(entries, REFAULT_TABLE_ENTRIES);
}

/* Allocates the tables of all levels, leaves first and the root last. */
static int refault_alloc_tables(struct refault_dev *dev,
				struct refault_pbl *pbl, size_t pages)
{
	size_t entries = pages;
	unsigned int total = 0;

	pbl->table.levels = 0;
	do {
		if (++pbl->table.levels > REFAULT_MAX_LEVELS)
			return -EFBIG;
		entries = refault_tables_for(entries);
		total += entries;
	} while (entries > 1);

	pbl->tables = kvcalloc(total, sizeof(*pbl->tables),
			       GFP_KERNEL_ACCOUNT);
	if (!pbl->tables)
		return -ENOMEM;
	while (pbl->num_tables < total) {
		struct refault_pbl_page *table = &pbl->tables[pbl->num_tables];

		table->entries = dma_alloc_coherent(&dev->pdev->dev,
						    REFAULT_TABLE_BYTES,
						    &table->dma,
						    GFP_KERNEL_ACCOUNT);
		if (!table->entries)
			return -ENOMEM;
		pbl->num_tables++;
		cond_resched();
	}
	return 0;
}

/* Sets entry @index of the level whose first table is number @first. */
static void refault_set_entry(struct refault_pbl *pbl, unsigned int first,
			      size_t index, dma_addr_t address)
{
	struct refault_pbl_page *table =
		&pbl->tables[first + index / REFAULT_TABLE_ENTRIES];

	table->entries[index % REFAULT_TABLE_ENTRIES] = cpu_to_le64(address);
}

static void refault_fill_leaves(struct refault_pbl *pbl, struct ib_umem *umem,
				unsigned long page_size)
{
	struct ib_block_iter biter;
	size_t index = 0;

	rdma_umem_for_each_dma_block(umem, &biter, page_size)
		refault_set_entry(pbl, 0, index++,
				  rdma_block_iter_dma_address(&biter));
}

/* Links every table into the level above it, up to the root. */
static void refault_link_tables(struct refault_pbl *pbl, size_t pages)
{
	unsigned int first = 0, count = refault_tables_for(pages), i;

	while (count > 1) {
		for (i = 0; i < count; i++)
			refault_set_entry(pbl, first + count, i,
					  pbl->tables[first + i].dma);
		first += count;
		count = refault_tables_for(count);
	}
	pbl->table.root = cpu_to_le64(pbl->tables[first].dma);
}

/**
 * refault_pbl_init() - Build the page buffer list of pinned memory.
 * @dev: the NIC
 * @pbl: the list to fill in
 * @umem: the memory
 * @page_sizes: the page sizes to choose from; SZ_4K must be one
 * @virt: the address that requests use for the first byte
 *
 * Return: 0 or an errno; on error nothing is left to free.
 */
int refault_pbl_init(struct refault_dev *dev, struct refault_pbl *pbl,
		     struct ib_umem *umem, unsigned long page_sizes, u64 virt)
{
	unsigned long page_size;
	size_t pages;
	int ret;

	memset(pbl, 0, sizeof(*pbl));
	if (refault_is_contiguous(umem)) {
		page_size = SZ_4K;
		umem->iova = virt;
		pbl->table.root = cpu_to_le64(ib_umem_start_dma_addr(umem) &
					      PAGE_MASK);
	} else {
		page_size = ib_umem_find_best_pgsz(umem, page_sizes, virt);
	}
	if (!page_size)
		return -EINVAL;
	pages = ib_umem_num_dma_blocks(umem, page_size);
	if (pages > U32_MAX)
		return -EFBIG;

	pbl->table.pages = cpu_to_le32(pages);
	pbl->table.page_shift = ilog2(page_size);
	pbl->first_offset = virt & (page_size - 1);
	if (pbl->table.root)
		return 0;

	ret = refault_alloc_tables(dev, pbl, pages);
	if (ret) {
		refault_pbl_free(dev, pbl);
		return ret;
	}
	refault_fill_leaves(pbl, umem, page_size);
	refault_link_tables(pbl, pages);
	return 0;
}

/**
 * refault_pbl_alloc() - Make a page buffer list that is filled later.
 * @dev: the NIC
 * @pbl: the list to fill in
 * @pages: most pages of 4 KiB that it will have
 *
 * Return: 0 or an errno; on error nothing is left to free.
 */
int refault_pbl_alloc(struct refault_dev *dev, struct refault_pbl *pbl,
		      u32 pages)
{
	int ret;

	memset(pbl, 0, sizeof(*pbl));
	pbl->table.pages = cpu_to_le32(pages);
	pbl->table.page_shift = ilog2(SZ_4K);
	ret = refault_alloc_tables(dev, pbl, pages);
	if (ret) {
		refault_pbl_free(dev, pbl);
		return ret;
	}
	refault_link_tables(pbl, pages);
	return 0;
}

/* Sets the DMA address of a page of such a list. */
void refault_pbl_set(struct refault_pbl *pbl, u32 page, dma_addr_t address)
{
	refault_set_entry(pbl, 0, page, address);
}

void refault_pbl_free(struct refault_dev *dev, struct refault_pbl *pbl)
{
	while (pbl->num_tables) {
		struct refault_pbl_page *table = &pbl->tables[--pbl->num_tables];

		dma_free_coherent(&dev->pdev->dev, REFAULT_TABLE_BYTES,
				  table->entries, table->dma);
	}
	kvfree(pbl->tables);
	pbl->tables = NULL;
}

/**
 * refault_pin_ring() - Pin the memory of a queue, which the process provides.
 * @dev: the NIC
 * @address: the process' address of it; must be page aligned
 * @length: in bytes
 * @umem: returns the pinned memory
 * @pbl: returns its page buffer list
 *
 * Return: 0 or an errno.
 */
int refault_pin_ring(struct refault_dev *dev, u64 address, u64 length,
		     struct ib_umem **umem, struct refault_pbl *pbl)
{
	int ret;

	if (offset_in_page(address))
		return -EINVAL;
	*umem = ib_umem_get_va(&dev->ibdev, address, length,
			       IB_ACCESS_LOCAL_WRITE);
	if (IS_ERR(*umem))
		return PTR_ERR(*umem);
	ret = refault_pbl_init(dev, pbl, *umem, SZ_4K, address);
	if (ret)
		ib_umem_release(*umem);
	return ret;
}

void refault_unpin_ring(struct refault_dev *dev, struct ib_umem *umem,
			struct refault_pbl *pbl)
{
	refault_pbl_free(dev, pbl);
	ib_umem_release(umem);
}
