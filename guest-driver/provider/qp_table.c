// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Queue pairs by number. Polling looks them up with only the completion queue
 * locked. That is safe, since a queue pair is removed with the locks of both of
 * its completion queues held. Releases pair with the acquires of lookups, which
 * then see initialised leaves and queue pairs.
 */

#include <errno.h>
#include <stdlib.h>

#include "provider.h"

#define LEAF_MASK (QP_TABLE_SIZE - 1)

static struct refault_qp *_Atomic *table_leaf(struct refault_context *context,
					      uint32_t qpn)
{
	return atomic_load_explicit(
		&context->qp_table[(qpn >> QP_TABLE_BITS) & LEAF_MASK],
		memory_order_acquire);
}

/* Returns 0 or an errno. */
int qp_table_add(struct refault_context *context, struct refault_qp *qp)
{
	uint32_t qpn = qp->vqp.qp.qp_num;
	struct refault_qp *_Atomic *leaf;

	pthread_mutex_lock(&context->qp_table_lock);
	leaf = table_leaf(context, qpn);
	if (!leaf) {
		leaf = calloc(QP_TABLE_SIZE, sizeof(*leaf));
		if (leaf)
			atomic_store_explicit(
				&context->qp_table[(qpn >> QP_TABLE_BITS) &
						   LEAF_MASK],
				leaf, memory_order_release);
	}
	if (leaf)
		atomic_store_explicit(&leaf[qpn & LEAF_MASK], qp,
				      memory_order_release);
	pthread_mutex_unlock(&context->qp_table_lock);
	return leaf ? 0 : ENOMEM;
}

void qp_table_remove(struct refault_context *context, uint32_t qpn)
{
	struct refault_qp *_Atomic *leaf = table_leaf(context, qpn);

	if (leaf)
		atomic_store_explicit(&leaf[qpn & LEAF_MASK], NULL,
				      memory_order_release);
}

struct refault_qp *qp_table_find(struct refault_context *context, uint32_t qpn)
{
	struct refault_qp *_Atomic *leaf = table_leaf(context, qpn);

	return leaf ? atomic_load_explicit(&leaf[qpn & LEAF_MASK],
					   memory_order_acquire) : NULL;
}

void qp_table_free(struct refault_context *context)
{
	size_t i;

	for (i = 0; i < QP_TABLE_SIZE; i++)
		free((void *)atomic_load(&context->qp_table[i]));
}
