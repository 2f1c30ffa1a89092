// SPDX-License-Identifier: GPL-2.0
/*
 * Unmapping pages of an on-demand region for DMA, range by range.
 *
 * ib_umem_odp_unmap_dma_pages() unlinks page by page, and dma_iova_unlink()
 * waits for an IOTLB flush each time: truncating 64 MiB waits 16,384 times with
 * umem_mutex held, which blocks all faults of the region. But the umem's pages
 * are in one contiguous IOVA range, so adjacent pages can be unlinked together
 * with a single flush. The core function then handles the remaining pages, e.g.
 * peer-to-peer ones.
 */

#include "odp.h"

#ifdef REFAULT_HAVE_UMEM_IOVA

static bool refault_is_linked(const struct ib_umem_odp *umem, size_t index)
{
	unsigned long pfn = umem->map.pfn_list[index];

	return (pfn & (HMM_PFN_VALID | HMM_PFN_DMA_MAPPED | HMM_PFN_P2PDMA |
		       HMM_PFN_P2PDMA_BUS)) ==
	       (HMM_PFN_VALID | HMM_PFN_DMA_MAPPED);
}

/* The accounting that ib_umem_odp_unmap_dma_pages() does for unlinked pages. */
static void refault_count_unlinked(struct ib_umem_odp *umem, size_t first,
				   size_t end)
{
	unsigned long *pfns = umem->map.pfn_list;
	size_t i;

	for (i = first; i < end; i++) {
		if (pfns[i] & HMM_PFN_WRITE)
			set_page_dirty(compound_head(hmm_pfn_to_page(pfns[i])));
		pfns[i] &= ~HMM_PFN_FLAGS;
		umem->npages--;
	}
}

static void refault_unlink_runs(struct ib_umem_odp *umem, size_t index,
				size_t end)
{
	size_t size = umem->map.dma_entry_size;
	size_t first;

	while (index < end) {
		if (!refault_is_linked(umem, index)) {
			index++;
			continue;
		}
		for (first = index; index < end; index++)
			if (!refault_is_linked(umem, index))
				break;
		dma_iova_unlink(umem->umem.ibdev->dma_device, &umem->map.state,
				first * size, (index - first) * size,
				DMA_BIDIRECTIONAL, DMA_ATTR_REQUIRE_COHERENT);
		refault_count_unlinked(umem, first, index);
	}
}

#endif

/**
 * refault_umem_unmap() - Unmap the pages of a range for DMA.
 * @umem: the umem; its umem_mutex is held
 * @start: the process' address of the first byte, page aligned
 * @end: one past the last byte
 *
 * Neither sleeps nor allocates.
 */
void refault_umem_unmap(struct ib_umem_odp *umem, u64 start, u64 end)
{
#ifdef REFAULT_HAVE_UMEM_IOVA
	u64 base = ib_umem_start(umem);

	if (dma_use_iova(&umem->map.state))
		refault_unlink_runs(umem, (start - base) >> umem->page_shift,
				    (end - base) >> umem->page_shift);
#endif
	ib_umem_odp_unmap_dma_pages(umem, start, end);
}

/**
 * refault_umem_release() - Unmap all pages of a umem, and free it.
 * @umem: of a part without users
 *
 * ib_umem_odp_release() alone would unmap the pages one by one.
 */
void refault_umem_release(struct ib_umem_odp *umem)
{
	mutex_lock(&umem->umem_mutex);
	if (umem->npages)
		refault_umem_unmap(umem, ib_umem_start(umem),
				   ib_umem_end(umem));
	mutex_unlock(&umem->umem_mutex);
	ib_umem_odp_release(umem);
}
