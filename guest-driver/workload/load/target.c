// SPDX-License-Identifier: Apache-2.0 OR MIT
/* The target's memory, and what is known of its content. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "load.h"
#include "common/small_pages.h"

void load_target_open(struct load *load, const struct load_options *options)
{
	uint64_t bytes = options->region_bytes + HUGE_BLOCK;
	uint8_t *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		die("no memory for a target of %llu bytes", (unsigned long long)bytes);
	/* Where a large page may begin. */
	load->target = (uint8_t *)(((uintptr_t)at + HUGE_BLOCK - 1) & ~(HUGE_BLOCK - 1));
	if (options->large_pages ? madvise(at, bytes, MADV_HUGEPAGE) : ask_for_small_pages(at, bytes))
		die("the size of pages cannot be chosen: %s", strerror(errno));
	if (options->warm && madvise(load->target, options->region_bytes, MADV_POPULATE_WRITE))
		die("the target cannot be brought into memory: %s", strerror(errno));
	load->options = options;
	load->message_count = options->region_bytes / options->message_bytes;
	load->messages = xcalloc(load->message_count, sizeof(*load->messages));
	for (uint64_t i = 0; i < load->message_count; i++)
		load->messages[i].known = true;
	pthread_mutex_init(&load->lock, NULL);
}

/* The lock is held. */
static void forget(struct load *load, uint64_t first_byte, uint64_t bytes)
{
	uint64_t size = load->options->message_bytes, first = first_byte / size;
	uint64_t end = (first_byte + bytes + size - 1) / size;

	for (uint64_t i = first; i < end && i < load->message_count; i++) {
		bool whole = i * size >= first_byte && (i + 1) * size <= first_byte + bytes;

		/* With all of it gone and nothing in flight, it is zero. */
		load->messages[i].known = whole && load->messages[i].busy == 0;
		load->messages[i].value = 0;
	}
}

void load_target_drop(struct load *load, uint64_t first_byte, uint64_t bytes)
{
	uint64_t mask = (uint64_t)sysconf(_SC_PAGESIZE) - 1;
	uint64_t first = first_byte & ~mask, end = (first_byte + bytes + mask) & ~mask;

	/* Under the lock: no request may be posted to it before it is gone. */
	pthread_mutex_lock(&load->lock);
	forget(load, first, end - first);
	if (madvise(load->target + first, end - first, MADV_DONTNEED))
		die("pages cannot be taken from memory: %s", strerror(errno));
	pthread_mutex_unlock(&load->lock);
}

void load_mark(uint8_t *buffer, uint64_t bytes, uint64_t value)
{
	uint64_t mark = bytes < sizeof(value) ? bytes : sizeof(value);

	memcpy(buffer, &value, mark);
	if (bytes >= 2 * sizeof(value))
		memcpy(buffer + bytes - sizeof(value), &value, sizeof(value));
}

static bool is_marked(const uint8_t *buffer, uint64_t bytes, uint64_t value)
{
	uint64_t mark = bytes < sizeof(value) ? bytes : sizeof(value);

	return !memcmp(buffer, &value, mark) &&
	       (bytes < 2 * sizeof(value) || !memcmp(buffer + bytes - sizeof(value), &value, sizeof(value)));
}

void load_posted(struct load *load, uint32_t message, bool write, uint64_t value)
{
	struct load_message *known = &load->messages[message];

	pthread_mutex_lock(&load->lock);
	/* Two requests in flight have no order, unless both are reads. */
	if (write) {
		known->known = known->busy == 0;
		known->value = value;
	} else if (known->writers) {
		known->known = false;
	}
	known->busy++;
	known->writers += write;
	pthread_mutex_unlock(&load->lock);
}

void load_back(struct load *load, uint32_t message, bool write, uint64_t value, const uint8_t *buffer, bool success)
{
	uint64_t bytes = load->options->message_bytes;
	struct load_message *known = &load->messages[message];

	pthread_mutex_lock(&load->lock);
	known->busy--;
	known->writers -= write;
	known->known = known->known && success;
	if (known->known && (!write || known->value == value)) {
		/* The page of a write is present: reading it changes nothing. */
		load->checked++;
		load->wrong += !is_marked(write ? load->target + message * bytes : buffer, bytes, known->value);
	}
	pthread_mutex_unlock(&load->lock);
}

void load_target_close(struct load *load)
{
	munmap(load->target, load->options->region_bytes);
	pthread_mutex_destroy(&load->lock);
}
