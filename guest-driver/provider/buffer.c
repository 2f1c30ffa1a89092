// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Memory of queues, in pages of its own, so that no other data is pinned.
 */

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "provider.h"

/*
 * Returns 0 or an errno. The memory is zeroed and page aligned. A fork() must
 * not turn it copy-on-write: the NIC would keep the pages that the parent lost.
 */
int buffer_alloc(struct refault_buffer *buffer, size_t length)
{
	size_t page = sysconf(_SC_PAGESIZE);
	int err;

	buffer->length = (length + page - 1) / page * page;
	buffer->base = mmap(NULL, buffer->length, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffer->base == MAP_FAILED)
		return errno;
	err = ibv_dontfork_range(buffer->base, buffer->length);
	if (err)
		munmap(buffer->base, buffer->length);
	return err;
}

void buffer_free(struct refault_buffer *buffer)
{
	ibv_dofork_range(buffer->base, buffer->length);
	munmap(buffer->base, buffer->length);
}
