/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between the kernels that the driver is built for: all of it is
 * here, in the terms of the newest.
 */
#ifndef REFAULT_COMPAT_H
#define REFAULT_COMPAT_H

#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 2, 0)
#error "refault_rdma needs Linux 7.2 or later"
#endif

#include <linux/hmm.h>
#include <linux/pci-p2pdma.h>
#include <rdma/ib_umem_odp.h>

/*
 * Pages of an on-demand umem. An index counts pages of the umem's own size;
 * umem_mutex is held. What ib_umem_odp_unmap_dma_pages() needs to know of a
 * page is kept as it expects it.
 */

/* Maps a page for DMA. DMA_MAPPING_ERROR if that fails. */
static inline dma_addr_t refault_umem_map(struct ib_umem_odp *umem,
					  size_t index, unsigned long pfn,
					  bool writable)
{
	struct device *dma_device = umem->umem.ibdev->dma_device;
	struct pci_p2pdma_map_state p2pdma = {};
	dma_addr_t address;

	pfn &= ~(HMM_PFN_WRITE | HMM_PFN_DMA_MAPPED | HMM_PFN_P2PDMA |
		 HMM_PFN_P2PDMA_BUS);
	umem->map.pfn_list[index] = writable ? pfn | HMM_PFN_WRITE : pfn;
	address = hmm_dma_map_pfn(dma_device, &umem->map, index, &p2pdma);
	if (dma_mapping_error(dma_device, address)) {
		umem->map.pfn_list[index] = 0;
		return DMA_MAPPING_ERROR;
	}
	umem->npages++;
	return address;
}

/* Remembers that the NIC may write a page: it gets dirty when it is unmapped. */
static inline void refault_umem_set_writable(struct ib_umem_odp *umem,
					     size_t index)
{
	umem->map.pfn_list[index] |= HMM_PFN_WRITE;
}

#endif
