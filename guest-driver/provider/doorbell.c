// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Doorbells: one 64-bit write to the context's page.
 */

#include <util/mmio.h>
#include <util/udma_barrier.h>

#include "provider.h"

/* The barrier makes earlier stores visible to the NIC before the doorbell. */
void ring_doorbell(struct refault_context *context, uint64_t kind,
		   uint32_t number, uint32_t argument)
{
	uint64_t value = kind << REFAULT_DOORBELL_KIND_SHIFT |
			 (uint64_t)number << REFAULT_DOORBELL_NUMBER_SHIFT |
			 argument;

	udma_to_device_barrier();
	mmio_write64_le(context->doorbell, htole64(value));
}
