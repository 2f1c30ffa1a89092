/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Declarations shared by the files of the refault NIC's libibverbs provider.
 *
 * All C files of this folder are linked into one shared object. It is built
 * against the private headers of the rdma-core version that the guest's
 * libibverbs comes from, laid out as in rdma-core's build (infiniband/, ccan/,
 * util/, rdma/, kernel-abi/, and a config.h that is included first), and
 * against refault_abi.h, which the crate in guest-driver/abi prints:
 *
 *   cc -shared -fPIC -include config.h -I... *.c -libverbs
 *      -Wl,--version-script=provider.map -Wl,-z,defs
 *      -o librefault-rdmav<private ABI>.so
 *
 * Install the object in libibverbs' provider folder, and refault.driver in
 * /etc/libibverbs.d.
 */
#ifndef REFAULT_PROVIDER_H
#define REFAULT_PROVIDER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ccan/container_of.h>
#include <infiniband/driver.h>

#include "refault_abi.h"

/* QPNs have 24 bits: a two-level table, whose leaves are allocated on use. */
#define QP_TABLE_BITS 12
#define QP_TABLE_SIZE (1U << QP_TABLE_BITS)

struct refault_device {
	struct verbs_device vdev;
};

/* A queue's memory. The kernel pins it while the queue exists. */
struct refault_buffer {
	void *base;
	size_t length;
};

struct refault_context {
	struct verbs_context vctx;
	void *doorbell;
	size_t doorbell_length;
	/* Queue pairs by number: writers hold the lock, readers do not. */
	pthread_mutex_t qp_table_lock;
	_Atomic(struct refault_qp *_Atomic *) qp_table[QP_TABLE_SIZE];
};

struct refault_cq {
	struct verbs_cq vcq;
	/* The entry that ibv_start_poll() or ibv_next_poll() took last. */
	const struct refault_cqe *current;
	struct refault_buffer buffer;
	struct refault_cqe *ring;
	struct refault_cq_doorbell_record *record;
	pthread_spinlock_t lock;	/* Protects consumer and current. */
	bool single_threaded;		/* The application does the locking. */
	uint32_t log_size;
	uint32_t consumer;
	uint32_t cqn;
};

/*
 * A send or receive queue. Both indices are free-running. Posting advances the
 * head under the lock; polling the completion queue advances the tail.
 */
struct refault_queue {
	void *ring;
	pthread_spinlock_t lock;
	uint32_t size;
	uint32_t head;
	_Atomic uint32_t tail;
};

struct refault_srq {
	struct ibv_srq ibsrq;
	struct refault_buffer buffer;
	struct refault_srq_doorbell_record *record;
	/* Its tail is a copy of the consumer index in the record. */
	struct refault_queue queue;
	uint32_t srqn;
};

/* The address of a datagram, copied into each work request. */
struct refault_ah {
	struct ibv_ah ibah;
	uint16_t dlid;
	uint8_t sl;
	bool has_grh;
	uint8_t dgid[16];
	/* RoCE, else zero: MAC address, index of the own GID, hop limit. */
	uint8_t next_hop[8];
	uint32_t flow_class;	/* Flow label and traffic class. */
	uint16_t source_port;
};

/* Requests since ibv_wr_start(); ibv_wr_complete() posts all or none. */
struct refault_batch {
	uint32_t start;			/* Head of the send queue before it. */
	struct refault_sq_wqe *wqe;	/* The current request, or NULL. */
	int err;			/* The first error, an errno. */
};

struct refault_qp {
	struct verbs_qp vqp;
	struct refault_batch batch;
	struct refault_buffer buffer;
	struct refault_qp_doorbell_record *record;
	struct refault_queue sq;
	struct refault_queue rq;
	/* An error completion was polled: the NIC stopped the queue pair. */
	atomic_bool failed;
};

static inline struct refault_context *to_context(struct ibv_context *context)
{
	return container_of(context, struct refault_context, vctx.context);
}

static inline struct refault_cq *to_cq(struct ibv_cq *cq)
{
	return container_of(cq, struct refault_cq, vcq.cq);
}

static inline struct refault_srq *to_srq(struct ibv_srq *srq)
{
	return container_of(srq, struct refault_srq, ibsrq);
}

static inline struct refault_ah *to_ah(struct ibv_ah *ah)
{
	return container_of(ah, struct refault_ah, ibah);
}

static inline struct refault_qp *to_qp(struct ibv_qp *qp)
{
	return container_of(qp, struct refault_qp, vqp.qp);
}

/* log2 of `value`, rounded up. */
static inline uint32_t log2_up(uint32_t value)
{
	return value > 1 ? 32 - __builtin_clz(value - 1) : 0;
}

/* doorbell.c */
void ring_doorbell(struct refault_context *context, uint64_t kind,
		   uint32_t number, uint32_t argument);

/* buffer.c */
int buffer_alloc(struct refault_buffer *buffer, size_t length);
void buffer_free(struct refault_buffer *buffer);

/* device.c */
int refault_query_device_ex(struct ibv_context *context,
			    const struct ibv_query_device_ex_input *input,
			    struct ibv_device_attr_ex *attr, size_t attr_size);
int refault_query_port(struct ibv_context *context, uint8_t port,
		       struct ibv_port_attr *attr);

/* memory.c */
struct ibv_pd *refault_alloc_pd(struct ibv_context *context);
int refault_dealloc_pd(struct ibv_pd *pd);
struct ibv_mr *refault_reg_mr(struct ibv_pd *pd, void *addr, size_t length,
			      uint64_t hca_va, int access);
int refault_dereg_mr(struct verbs_mr *vmr);

/* cq.c */
struct ibv_cq *refault_create_cq(struct ibv_context *context, int cqe,
				 struct ibv_comp_channel *channel,
				 int comp_vector);
struct ibv_cq_ex *refault_create_cq_ex(struct ibv_context *context,
				       struct ibv_cq_init_attr_ex *attr);
int refault_modify_cq(struct ibv_cq *ibcq, struct ibv_modify_cq_attr *attr);
int refault_destroy_cq(struct ibv_cq *ibcq);
int refault_req_notify_cq(struct ibv_cq *ibcq, int solicited_only);

/* poll.c */
int refault_poll_cq(struct ibv_cq *ibcq, int count, struct ibv_wc *wc);
void cq_lock(struct refault_cq *cq);
void cq_unlock(struct refault_cq *cq);
const struct refault_cqe *cq_take(struct refault_cq *cq);
void cq_publish_consumer(struct refault_cq *cq);
enum ibv_wc_opcode cqe_opcode(const struct refault_cqe *cqe);
unsigned int cqe_wc_flags(const struct refault_cqe *cqe);
__be32 cqe_imm_data(const struct refault_cqe *cqe);
uint8_t cqe_sl(const struct refault_cqe *cqe);
void cq_lock_pair(struct refault_cq *a, struct refault_cq *b);
void cq_unlock_pair(struct refault_cq *a, struct refault_cq *b);
void cq_forget_qp(struct refault_cq *cq, uint32_t qpn);

/* cq_ex.c */
int cq_ex_init(struct refault_cq *cq, uint64_t wc_flags);

/* qp_table.c */
int qp_table_add(struct refault_context *context, struct refault_qp *qp);
void qp_table_remove(struct refault_context *context, uint32_t qpn);
struct refault_qp *qp_table_find(struct refault_context *context, uint32_t qpn);
void qp_table_free(struct refault_context *context);

/* qp.c */
struct ibv_qp *refault_create_qp(struct ibv_pd *pd,
				 struct ibv_qp_init_attr *attr);
struct ibv_qp *refault_create_qp_ex(struct ibv_context *context,
				    struct ibv_qp_init_attr_ex *attr);
int refault_modify_qp(struct ibv_qp *ibqp, struct ibv_qp_attr *attr, int mask);
int refault_query_qp(struct ibv_qp *ibqp, struct ibv_qp_attr *attr, int mask,
		     struct ibv_qp_init_attr *init_attr);
int refault_destroy_qp(struct ibv_qp *ibqp);

/* wr.c */
int wr_init(struct refault_qp *qp, enum ibv_qp_type type, uint64_t ops);

/* srq.c */
struct ibv_srq *refault_create_srq(struct ibv_pd *pd,
				   struct ibv_srq_init_attr *attr);
int refault_modify_srq(struct ibv_srq *ibsrq, struct ibv_srq_attr *attr,
		       int mask);
int refault_query_srq(struct ibv_srq *ibsrq, struct ibv_srq_attr *attr);
int refault_destroy_srq(struct ibv_srq *ibsrq);
int refault_post_srq_recv(struct ibv_srq *ibsrq, struct ibv_recv_wr *wr,
			  struct ibv_recv_wr **bad_wr);

/* ah.c */
struct ibv_ah *refault_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr);
int refault_destroy_ah(struct ibv_ah *ibah);

/* wqe.c */
bool queue_is_full(struct refault_queue *queue);
void *queue_slot(struct refault_queue *queue, size_t entry_size);
void publish_producer(__le32 *index, uint32_t value);
void ring_send(struct refault_qp *qp);
uint8_t wqe_flags(unsigned int send_flags);
void wqe_set_sges(struct refault_sge *to, const struct ibv_sge *from,
		  int count);
int wqe_add_inline(struct refault_sq_wqe *wqe, const void *from, size_t length);
void wqe_set_remote(struct refault_sq_wqe *wqe, uint64_t addr, uint32_t rkey);
void wqe_set_imm(struct refault_sq_wqe *wqe, __be32 imm);
void wqe_set_ud(struct refault_sq_wqe *wqe, const struct refault_ah *ah,
		uint32_t qpn, uint32_t qkey);
int wqe_fill_recv(struct refault_rq_wqe *wqe, const struct ibv_recv_wr *wr);

/* post.c */
int refault_post_send(struct ibv_qp *ibqp, struct ibv_send_wr *wr,
		      struct ibv_send_wr **bad_wr);
int refault_post_recv(struct ibv_qp *ibqp, struct ibv_recv_wr *wr,
		      struct ibv_recv_wr **bad_wr);

#endif
