/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Declarations shared by the files of the refault NIC's driver.
 *
 * The device ABI (every struct refault_* that is not defined here) comes from
 * refault_abi.h, which the crate refault-abi generates.
 */
#ifndef REFAULT_H
#define REFAULT_H

#include <linux/completion.h>
#include <linux/if_ether.h>
#include <linux/if_vlan.h>
#include <linux/llist.h>
#include <linux/mmu_notifier.h>
#include <linux/pci.h>
#include <linux/spinlock.h>
#include <linux/mutex.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <rdma/ib_umem.h>
#include <rdma/ib_verbs.h>
#include <rdma/uverbs_ioctl.h>

#include "compat.h"
#include "refault_abi.h"

#define REFAULT_DRV_NAME "refault_rdma"

/* Longest message of any queue pair, in bytes. */
#define REFAULT_MAX_MESSAGE BIT(31)
/* Pages of a region for fast registration: its table is a page of addresses. */
#define REFAULT_MAX_FAST_PAGES 512

struct iommu_sva;
struct refault_dev;
struct refault_fault;
struct refault_odp;

/*
 * A command ring. Lane 0 is used under a mutex and may sleep; lane 1 is used
 * under a spinlock and never sleeps. See cmd.c.
 */
struct refault_lane {
	struct refault_command_slot *slots;
	dma_addr_t dma;
	u32 producer;
	u32 token;
	unsigned int doorbell;
};

/* An event queue and its MSI-X vector. */
struct refault_eq {
	struct refault_dev *dev;
	struct refault_eqe *ring;
	dma_addr_t dma;
	u32 consumer;
	u32 eqn;
	int irq;
	char name[48];
};

enum refault_state_bit {
	/* The NIC was silenced: no DMA is in flight, it gets no more commands. */
	REFAULT_DEAD,
	/* The ib_device is registered: events can be dispatched. */
	REFAULT_REGISTERED,
	/* The reason why contexts have no PASID was logged. */
	REFAULT_NO_PASID_LOGGED,
	/* That a PASID mode region was refused for that reason was logged. */
	REFAULT_PASID_REFUSED,
};

struct refault_dev {
	struct ib_device ibdev;
	struct pci_dev *pdev;
	void __iomem *regs;
	phys_addr_t doorbells;
	u64 doorbell_pages;
	unsigned long state;
	spinlock_t silence_lock;	/* Held until REFAULT_DEAD is true. */
	struct refault_device_caps caps;

	struct mutex lane0_lock;	/* Serialises lane 0. */
	struct refault_lane lane0;
	spinlock_t lane1_lock;		/* Serialises lane 1. */
	struct refault_lane lane1;

	struct refault_eq *eqs;
	unsigned int num_eqs;
	unsigned int num_comp_vectors;
	struct refault_eq *fault_eq;	/* Points into eqs. */

	/* Page faults; see odp_fault.c. */
	struct refault_fault *faults;
	struct llist_head spare_faults;
	struct workqueue_struct *fault_wq;
	struct workqueue_struct *odp_wq;	/* Prefetch and cleanup. */
	atomic_t num_odps;

	/* Bonds whose files were closed; see bond.c. */
	struct workqueue_struct *bond_wq;
	wait_queue_head_t leave_wait;	/* Also for the last of num_odps. */
	atomic_t leaving;

	/* The kernel's context; see kernel.c. No doorbell: there is none. */
	u32 kernel_context;
	void __iomem *kernel_doorbell;
	struct work_struct dead_work;

	/* The network interface of an Ethernet port, once it is made. */
	struct net_device *netdev;
	spinlock_t netdev_lock;	/* For events and refault_die(). */
	struct notifier_block port_notifier;
	enum ib_port_state port_state;	/* As the RDMA core knows it. */

	/* Objects by the number or key that the NIC gave them. */
	struct xarray contexts;
	struct xarray cqs;
	struct xarray qps;
	struct xarray srqs;
	struct xarray mrs;
};

/* The page table through which the NIC reaches a pinned umem. */
struct refault_pbl {
	struct refault_page_table table;
	u32 first_offset;
	unsigned int num_tables;
	struct refault_pbl_page {
		__le64 *entries;
		dma_addr_t dma;
	} *tables;
};

struct refault_mmap_entry {
	struct rdma_user_mmap_entry rdma_entry;
	phys_addr_t address;
};

/* What a context has on the NIC and in the IOMMU; see bond.c. */
struct refault_bond {
	struct refault_dev *dev;
	struct mm_struct *mm;	/* mmgrab(): the pointer is not reused. */
	struct iommu_sva *sva;	/* NULL: no PASID. */
	u32 pasid;
	bool on_nic;		/* The NIC has a context with this id. */
	u32 id;

	struct mmu_notifier notifier;	/* Only with a PASID. */
	struct completion released;	/* The process' memory is going. */
	struct delayed_work leave;
	int pause;
};

/* An open device file: a doorbell page, and a PASID where there are any. */
struct refault_ucontext {
	struct ib_ucontext ibucontext;
	struct refault_mmap_entry *doorbell;
	struct refault_bond *bond;
};

struct refault_pd {
	struct ib_pd ibpd;
	u32 id;
};

/* Coherent memory of a queue of the kernel. */
struct refault_memory {
	void *address;		/* NULL: the queue is a process'. */
	dma_addr_t dma;
	size_t size;
};

/* The ring of a CQ of the kernel; see rings.c and poll.c. */
struct refault_cq_ring {
	struct refault_memory memory;
	struct refault_cqe *entries;
	struct refault_cq_doorbell_record *record;
	spinlock_t lock;	/* Protects what follows, and the QPs' tails. */
	u32 consumer;
	u32 log_size;
	struct list_head senders;
	struct list_head receivers;
};

struct refault_cq {
	struct ib_cq ibcq;
	struct ib_umem *umem;
	struct refault_pbl pbl;
	struct refault_eq *eq;
	u32 cqn;
	struct refault_cq_ring ring;
};

/*
 * A send or receive queue of the kernel. Both indices are free-running. Posting
 * advances the head, polling the CQ advances the tail.
 */
struct refault_queue {
	spinlock_t lock;	/* Protects the head. */
	void *ring;
	u32 size;
	u32 head;
	u32 tail;
};

/* The rings of a QP of the kernel; see rings.c and post.c. */
struct refault_qp_rings {
	struct refault_memory memory;
	struct refault_qp_doorbell_record *record;
	struct refault_queue sq;
	struct refault_queue rq;
	struct list_head sender;	/* In the ring of the send CQ. */
	struct list_head receiver;	/* In the ring of the receive CQ. */
};

struct refault_qp {
	struct ib_qp ibqp;
	struct ib_umem *umem;
	struct refault_pbl pbl;
	struct mutex lock;	/* One modification at a time. */
	struct ib_qp_cap cap;
	u32 qpn;		/* The NIC's number: in ibqp, that of GSI is 1. */
	bool signal_all;
	bool sqd_notify;
	struct refault_qp_rings rings;
};

struct refault_srq {
	struct ib_srq ibsrq;
	struct ib_umem *umem;
	struct refault_pbl pbl;
	u32 max_wr;
	u32 srqn;
};

/* The destination of datagrams, on RoCE; see ah.c. */
struct refault_ah {
	struct ib_ah ibah;
	u8 dgid[16];
	u8 dmac[ETH_ALEN];
	u8 sgid_index;
	u8 hop_limit;
	u32 flow_label;
	u8 traffic_class;
	u8 sl;
	u16 source_port;
};

struct refault_mr {
	struct ib_mr ibmr;
	struct ib_umem *umem;	/* Pinned regions; else NULL. */
	struct refault_odp *odp;	/* Regions with a table; else NULL. */
	struct refault_pbl pbl;
	u64 start;
	u64 length;
	u32 access;		/* REFAULT_ACCESS_* */
	u32 key;		/* Of the creation: ULPs change that of ibmr. */
	u32 filled;		/* Entries of the table of a fast region. */
	u8 mode;		/* REFAULT_MR_* */
};

static inline struct refault_dev *to_rdev(struct ib_device *ibdev)
{
	return container_of(ibdev, struct refault_dev, ibdev);
}

static inline struct refault_ucontext *to_rucontext(struct ib_ucontext *uc)
{
	return container_of(uc, struct refault_ucontext, ibucontext);
}

/* The context of a user space call; NULL for a call by a kernel ULP. */
static inline struct refault_ucontext *
refault_udata_context(struct ib_udata *udata)
{
	return rdma_udata_to_drv_context(udata, struct refault_ucontext,
					 ibucontext);
}

static inline struct refault_pd *to_rpd(struct ib_pd *ibpd)
{
	return container_of(ibpd, struct refault_pd, ibpd);
}

static inline struct refault_cq *to_rcq(struct ib_cq *ibcq)
{
	return container_of(ibcq, struct refault_cq, ibcq);
}

static inline struct refault_qp *to_rqp(struct ib_qp *ibqp)
{
	return container_of(ibqp, struct refault_qp, ibqp);
}

static inline struct refault_srq *to_rsrq(struct ib_srq *ibsrq)
{
	return container_of(ibsrq, struct refault_srq, ibsrq);
}

static inline struct refault_ah *to_rah(struct ib_ah *ibah)
{
	return container_of(ibah, struct refault_ah, ibah);
}

static inline struct refault_mr *to_rmr(struct ib_mr *ibmr)
{
	return container_of(ibmr, struct refault_mr, ibmr);
}

/* Whether a region is the implicit one, over the whole address space. */
static inline bool refault_is_implicit(const struct refault_mr *mr, u64 address)
{
	return !address && mr->length == U64_MAX;
}

static inline bool refault_is_dead(const struct refault_dev *dev)
{
	return test_bit(REFAULT_DEAD, &dev->state);
}

static inline bool refault_has_pasid(const struct refault_dev *dev)
{
	return le32_to_cpu(dev->caps.features) & REFAULT_CAP_PASID;
}

static inline bool refault_has_ethernet(const struct refault_dev *dev)
{
	return le32_to_cpu(dev->caps.features) & REFAULT_CAP_ETHERNET;
}

static inline bool refault_has_kernel(const struct refault_dev *dev)
{
	return dev->kernel_doorbell;
}

static inline bool refault_is_kernel_cq(const struct refault_cq *cq)
{
	return cq->ring.memory.address;
}

static inline bool refault_is_kernel_qp(const struct refault_qp *qp)
{
	return qp->rings.memory.address;
}

static inline bool refault_has_roce(const struct refault_dev *dev)
{
	return le32_to_cpu(dev->caps.features) & REFAULT_CAP_ROCE;
}

/* The event queue for asynchronous events of QPs and SRQs. */
static inline struct refault_eq *refault_async_eq(struct refault_dev *dev)
{
	return &dev->eqs[0];
}

/* reset.c */
bool refault_silence(struct refault_dev *dev);
void refault_die(struct refault_dev *dev, const char *why);
int refault_await(struct refault_dev *dev, unsigned int offset, u32 mask,
		  u32 value);
int refault_reset(struct refault_dev *dev);

/* start.c */
struct refault_dev *refault_up(struct pci_dev *pdev, void __iomem *regs);
void refault_down(struct refault_dev *dev);

/* device.c */
extern const struct attribute_group refault_attr_group;
int refault_device_register(struct refault_dev *dev);
void refault_device_unregister(struct refault_dev *dev);

/* cmd.c */
int refault_cmd_init(struct refault_dev *dev);
void refault_cmd_free(struct refault_dev *dev);
int refault_cmd(struct refault_dev *dev, u16 opcode, const void *in,
		size_t in_len, void *out, size_t out_len);
int refault_cmd_create(struct refault_dev *dev, u16 opcode, const void *in,
		       size_t in_len, u32 *id);
int refault_cmd_destroy(struct refault_dev *dev, u16 opcode, u32 id);
int refault_cmd_atomic(struct refault_dev *dev, u16 opcode, const void *in,
		       size_t in_len);

/* eq.c */
int refault_eqs_init(struct refault_dev *dev);
void refault_eqs_free(struct refault_dev *dev);
struct refault_eq *refault_comp_eq(struct refault_dev *dev, u32 comp_vector);

/* pbl.c */
int refault_pbl_init(struct refault_dev *dev, struct refault_pbl *pbl,
		     struct ib_umem *umem, unsigned long page_sizes, u64 virt);
int refault_pbl_alloc(struct refault_dev *dev, struct refault_pbl *pbl,
		      u32 pages);
void refault_pbl_set(struct refault_pbl *pbl, u32 page, dma_addr_t address);
void refault_pbl_free(struct refault_dev *dev, struct refault_pbl *pbl);
int refault_pin_ring(struct refault_dev *dev, u64 address, u64 length,
		     struct ib_umem **umem, struct refault_pbl *pbl);
void refault_unpin_ring(struct refault_dev *dev, struct ib_umem *umem,
			struct refault_pbl *pbl);

/* bond.c */
struct refault_bond *refault_bond_make(struct refault_dev *dev, int *no_pasid);
void refault_bond_leave(struct refault_bond *bond);
int refault_bonds_init(struct refault_dev *dev);
void refault_bonds_free(struct refault_dev *dev);

/* context.c */
int refault_alloc_ucontext(struct ib_ucontext *ibucontext,
			   struct ib_udata *udata);
void refault_dealloc_ucontext(struct ib_ucontext *ibucontext);
void refault_disassociate_ucontext(struct ib_ucontext *ibucontext);
void refault_ufile_hw_cleanup(struct ib_uverbs_file *ufile);
void refault_stop_contexts(struct refault_dev *dev);
int refault_mmap(struct ib_ucontext *ibucontext, struct vm_area_struct *vma);
void refault_mmap_free(struct rdma_user_mmap_entry *rdma_entry);

/* pd.c */
int refault_alloc_pd(struct ib_pd *ibpd, struct ib_udata *udata);
int refault_dealloc_pd(struct ib_pd *ibpd, struct ib_udata *udata);

/* kernel.c */
void refault_kernel_alloc(struct refault_dev *dev);
int refault_kernel_init(struct refault_dev *dev);
void refault_kernel_free(struct refault_dev *dev);
void refault_kernel_ring(struct refault_dev *dev, u64 kind, u32 number,
			 u32 argument);
int refault_kernel_pd(struct refault_dev *dev, u32 *id);
void refault_cover_dma(struct refault_mr *mr);

/* rings.c */
int refault_cq_ring_alloc(struct refault_dev *dev, struct refault_cq *cq,
			  u32 log_size);
void refault_cq_ring_free(struct refault_dev *dev, struct refault_cq *cq);
int refault_qp_rings_alloc(struct refault_dev *dev, struct refault_qp *qp,
			   struct refault_uverbs_create_qp *layout);
void refault_qp_rings_link(struct refault_qp *qp, struct refault_cq *send_cq,
			   struct refault_cq *recv_cq);
void refault_qp_rings_unlink(struct refault_qp *qp, struct refault_cq *send_cq,
			     struct refault_cq *recv_cq);
void refault_qp_rings_free(struct refault_dev *dev, struct refault_qp *qp);
void refault_qp_rings_reset(struct refault_qp *qp);

/* poll.c */
const struct refault_cqe *refault_cq_take(struct refault_cq *cq);
void refault_cq_publish(struct refault_cq *cq);
void refault_cq_arm(struct refault_cq *cq, u64 kind);
void refault_cq_forget(struct refault_cq *cq, u32 qpn);
void refault_queue_retire(struct refault_queue *queue,
			  const struct refault_cqe *cqe);
int refault_poll_cq(struct ib_cq *ibcq, int count, struct ib_wc *wc);
int refault_req_notify_cq(struct ib_cq *ibcq, enum ib_cq_notify_flags flags);

/* post.c */
void refault_ring_send(struct refault_qp *qp);
void refault_ring_recv(struct refault_qp *qp);
int refault_post_send(struct ib_qp *ibqp, const struct ib_send_wr *wr,
		      const struct ib_send_wr **bad_wr);
int refault_post_recv(struct ib_qp *ibqp, const struct ib_recv_wr *wr,
		      const struct ib_recv_wr **bad_wr);

/* cq.c */
int refault_cq_make(struct refault_dev *dev, struct refault_cq *cq,
		    u32 log_size, u32 comp_vector);
int refault_create_cq(struct ib_cq *ibcq, const struct ib_cq_init_attr *attr,
		      struct uverbs_attr_bundle *attrs);
int refault_destroy_cq(struct ib_cq *ibcq, struct ib_udata *udata);
int refault_modify_cq(struct ib_cq *ibcq, u16 count, u16 period_us);
void refault_cq_complete(struct refault_dev *dev, u32 cqn);
void refault_cq_error(struct refault_dev *dev, u32 cqn);

/* qp.c */
int refault_qp_make(struct refault_dev *dev, struct refault_qp *qp,
		    struct ib_qp_init_attr *attr);
int refault_create_qp(struct ib_qp *ibqp, struct ib_qp_init_attr *attr,
		      struct ib_udata *udata);
int refault_destroy_qp(struct ib_qp *ibqp, struct ib_udata *udata);
void refault_qp_event(struct refault_dev *dev, u32 qpn, u8 code);

/* qp_modify.c */
int refault_qp_move(struct refault_qp *qp, enum ib_qp_state to);
int refault_modify_qp(struct ib_qp *ibqp, struct ib_qp_attr *attr, int mask,
		      struct ib_udata *udata);
int refault_query_qp(struct ib_qp *ibqp, struct ib_qp_attr *attr, int mask,
		     struct ib_qp_init_attr *init_attr);

/* srq.c */
int refault_create_srq(struct ib_srq *ibsrq, struct ib_srq_init_attr *attr,
		       struct ib_udata *udata);
int refault_modify_srq(struct ib_srq *ibsrq, struct ib_srq_attr *attr,
		       enum ib_srq_attr_mask mask, struct ib_udata *udata);
int refault_query_srq(struct ib_srq *ibsrq, struct ib_srq_attr *attr);
int refault_destroy_srq(struct ib_srq *ibsrq, struct ib_udata *udata);
void refault_srq_event(struct refault_dev *dev, u32 srqn, u8 code);

/* ah.c */
int refault_create_user_ah(struct ib_ah *ibah, struct rdma_ah_init_attr *attr,
			   struct ib_udata *udata);
int refault_create_ah(struct ib_ah *ibah, struct rdma_ah_init_attr *attr,
		      struct ib_udata *udata);
int refault_destroy_ah(struct ib_ah *ibah, u32 flags);

/* mr.c */
u32 refault_access(int ib_access);
int refault_ib_access(u32 access);
struct ib_mr *refault_reg_user_mr(struct ib_pd *ibpd, u64 start, u64 length,
				  u64 virt_addr, int access,
				  struct ib_dmah *dmah, struct ib_udata *udata);
struct ib_mr *refault_get_dma_mr(struct ib_pd *ibpd, int access);
int refault_create_mr(struct refault_dev *dev, struct refault_mr *mr, u32 pd);
int refault_dereg_mr(struct ib_mr *ibmr, struct ib_udata *udata);

/* mr_fast.c */
struct ib_mr *refault_alloc_mr(struct ib_pd *ibpd, enum ib_mr_type type,
			       u32 max_pages);
int refault_map_mr_sg(struct ib_mr *ibmr, struct scatterlist *sg, int sg_nents,
		      unsigned int *sg_offset);
int refault_fill_register(struct refault_sq_wqe *wqe,
			  const struct ib_reg_wr *wr);

/* odp_fault.c */
int refault_faults_init(struct refault_dev *dev);
void refault_faults_free(struct refault_dev *dev);
void refault_page_fault(struct refault_dev *dev, const struct refault_eqe *eqe);

/* odp_mode.c */
int refault_odp_mode_init(void);
bool refault_odp_by_table(const struct refault_dev *dev);
int refault_choose_mode(struct refault_dev *dev,
			const struct refault_ucontext *uctx,
			const struct refault_mr *mr, u64 address, int access);

/* advise.c */
int refault_advise_mr(struct ib_pd *ibpd,
		      enum ib_uverbs_advise_mr_advice advice, u32 flags,
		      struct ib_sge *sg_list, u32 num_sge,
		      struct uverbs_attr_bundle *attrs);

/* query.c */
int refault_query_device(struct ib_device *ibdev, struct ib_device_attr *attr,
			 struct ib_udata *udata);
int refault_query_port(struct ib_device *ibdev, u32 port,
		       struct ib_port_attr *attr);
int refault_query_pkey(struct ib_device *ibdev, u32 port, u16 index, u16 *pkey);
int refault_query_gid(struct ib_device *ibdev, u32 port, int index,
		      union ib_gid *gid);
int refault_get_port_immutable(struct ib_device *ibdev, u32 port,
			       struct ib_port_immutable *immutable);
enum rdma_link_layer refault_get_link_layer(struct ib_device *ibdev, u32 port);
void refault_get_dev_fw_str(struct ib_device *ibdev, char *str);

/* roce.c */
int refault_add_gid(const struct ib_gid_attr *attr, void **context);
int refault_del_gid(const struct ib_gid_attr *attr, void **context);
int refault_roce_query_port(struct ib_device *ibdev, u32 port,
			    struct ib_port_attr *attr);
int refault_roce_get_port_immutable(struct ib_device *ibdev, u32 port,
				    struct ib_port_immutable *immutable);
enum rdma_link_layer refault_roce_get_link_layer(struct ib_device *ibdev,
						 u32 port);
void refault_port_watch(struct refault_dev *dev);
void refault_port_unwatch(struct refault_dev *dev);

/* counters.c */
struct rdma_hw_stats *refault_alloc_hw_port_stats(struct ib_device *ibdev,
						  u32 port);
int refault_get_hw_stats(struct ib_device *ibdev, struct rdma_hw_stats *stats,
			 u32 port, int index);

/* netdev.c */
int refault_netdev_register(struct refault_dev *dev);
void refault_netdev_unregister(struct refault_dev *dev);

/* carrier.c */
void refault_port_event(struct refault_dev *dev, u8 code);
void refault_netdev_dead(struct refault_dev *dev);

/* restrack.c */
int refault_fill_res_mr_entry(struct sk_buff *msg, struct ib_mr *ibmr);
int refault_fill_stat_mr_entry(struct sk_buff *msg, struct ib_mr *ibmr);

#endif
