/* SPDX-License-Identifier: GPL-2.0 */
/*
 * All differences between the kernels that the driver supports. The other
 * files are written for the newest.
 */
#ifndef REFAULT_COMPAT_H
#define REFAULT_COMPAT_H

#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0)
#error "refault_rdma needs Linux 6.12 or later"
#endif

#include <linux/hmm.h>
#include <linux/netdevice.h>
#include <linux/overflow.h>
#include <linux/pci-p2pdma.h>
#include <linux/slab.h>
#include <rdma/ib_umem.h>
#include <rdma/ib_umem_odp.h>
#include <rdma/uverbs_ioctl.h>

/*
 * Pages of an on-demand umem, by index in units of the umem's page size. Call
 * with umem_mutex held. These helpers keep the per-page state that
 * ib_umem_odp_unmap_dma_pages() relies on.
 */

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0)

/* With a translating IOMMU, a umem's pages are in one contiguous IOVA range. */
#define REFAULT_HAVE_UMEM_IOVA

/* Maps a page for DMA. Returns DMA_MAPPING_ERROR on failure. */
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

/* Records that the NIC may write the page, so that unmapping sets it dirty. */
static inline void refault_umem_set_writable(struct ib_umem_odp *umem,
					     size_t index)
{
	umem->map.pfn_list[index] |= HMM_PFN_WRITE;
}

#else /* Before 7.2: DMA addresses and rights are in a separate dma_list. */

static inline dma_addr_t refault_umem_map(struct ib_umem_odp *umem,
					  size_t index, unsigned long pfn,
					  bool writable)
{
	u64 rights = ODP_READ_ALLOWED_BIT | (writable ? ODP_WRITE_ALLOWED_BIT : 0);
	unsigned int order = umem->page_shift - PAGE_SHIFT;
	dma_addr_t address;

	address = ib_dma_map_page(umem->umem.ibdev, hmm_pfn_to_page(pfn), 0,
				  BIT(umem->page_shift), DMA_BIDIRECTIONAL);
	if (ib_dma_mapping_error(umem->umem.ibdev, address))
		return DMA_MAPPING_ERROR;
	umem->pfn_list[index << order] = pfn;
	umem->dma_list[index] = address | rights;
	umem->npages++;
	return address;
}

static inline void refault_umem_set_writable(struct ib_umem_odp *umem,
					     size_t index)
{
	umem->dma_list[index] |= ODP_WRITE_ALLOWED_BIT;
}

#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0)

/* The core sends port events itself, by what the port's netdev does. */
#define REFAULT_CORE_WATCHES_PORT true
/* The core calls ->ufile_hw_cleanup() when the device file is closed. */
#define REFAULT_HAVE_UFILE_CLEANUP
/* The core requires a driver to declare that it checks udata lengths. */
#define REFAULT_HAVE_ROBUST_UDATA
#define refault_reg_user_mr_op refault_reg_user_mr
/* The IOMMU driver enables PASID, ATS and PRI when it probes the device. */
#define REFAULT_HAVE_SVA IS_ENABLED(CONFIG_IOMMU_SVA)

#else

#define REFAULT_CORE_WATCHES_PORT false

/* Since 6.12.64, iommu_sva_bind_device() is compiled out on x86. */
#define REFAULT_HAVE_SVA false

static inline enum ib_port_state ib_get_curr_port_state(struct net_device *netdev)
{
	return netif_running(netdev) && netif_carrier_ok(netdev) ?
		IB_PORT_ACTIVE : IB_PORT_DOWN;
}

/* The values that libibverbs uses. */
#define IB_ODP_SUPPORT_FLUSH BIT(6)
#define IB_ODP_SUPPORT_ATOMIC_WRITE BIT(7)

static inline struct ib_umem *ib_umem_get_va(struct ib_device *ibdev,
					     unsigned long address, size_t size,
					     int access)
{
	return ib_umem_get(ibdev, address, size, access);
}

static inline dma_addr_t ib_umem_start_dma_addr(struct ib_umem *umem)
{
	return sg_dma_address(umem->sgt_append.sgt.sgl) + ib_umem_offset(umem);
}

/* Driver-private input must be empty, or zero. */
static inline int ib_is_udata_in_empty(struct ib_udata *udata)
{
	if (!udata || !udata->inlen ||
	    ib_is_udata_cleared(udata, 0, udata->inlen))
		return 0;
	return -EOPNOTSUPP;
}

static inline int ib_no_udata_io(struct ib_udata *udata)
{
	int ret = ib_is_udata_in_empty(udata);

	if (!ret && udata && udata->outlen &&
	    clear_user(udata->outbuf, udata->outlen))
		ret = -EFAULT;
	return ret;
}

static inline int refault_copy_in(struct ib_udata *udata, void *to,
				  size_t size, size_t least)
{
	if (udata->inlen < least)
		return -EINVAL;
	if (udata->inlen > size &&
	    !ib_is_udata_cleared(udata, size, udata->inlen - size))
		return -EOPNOTSUPP;
	memset(to, 0, size);
	return ib_copy_from_udata(to, udata, min(size, udata->inlen));
}

#define ib_copy_validate_udata_in(udata, to, last) \
	refault_copy_in(udata, &(to), sizeof(to), offsetofend(typeof(to), last))

#define ib_respond_udata(udata, from) \
	ib_copy_to_udata(udata, &(from), min(sizeof(from), (udata)->outlen))

/* ->reg_user_mr() has no dmah argument (TPH steering tags) yet. */
struct ib_dmah;
struct ib_mr *refault_reg_user_mr(struct ib_pd *ibpd, u64 start, u64 length,
				  u64 virt_addr, int access,
				  struct ib_dmah *dmah, struct ib_udata *udata);

static inline struct ib_mr *
refault_reg_user_mr_op(struct ib_pd *ibpd, u64 start, u64 length, u64 virt_addr,
		       int access, struct ib_udata *udata)
{
	return refault_reg_user_mr(ibpd, start, length, virt_addr, access, NULL,
				   udata);
}

#endif

#endif
