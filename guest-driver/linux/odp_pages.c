// SPDX-License-Identifier: GPL-2.0
/*
 * Bringing pages of an on-demand region in, and taking them away.
 *
 * A word of the table is set exactly while its page is mapped for DMA; both
 * change under umem_mutex only. The pages are looked up in a buffer of our own
 * and then taken over, rather than by ib_umem_odp_map_dma_and_lock(): that one
 * lets hmm_range_fault() write into the umem's list without the mutex, where
 * the "mapped" flags of pages are that an invalidation clears, and it counts
 * huge pages of a list differently from ib_umem_odp_unmap_dma_pages().
 */

#include <linux/sched/mm.h>

#include "odp.h"

/* Pages that are looked up at a time: what the stack bears. */
#define REFAULT_CHUNK 64
#define REFAULT_CHUNK_BYTES (REFAULT_CHUNK * PAGE_SIZE)

#define REFAULT_LOOKUP_TIMEOUT msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT)

/* Number of a page within its umem. */
static size_t refault_page_index(const struct refault_odp_part *part,
				 u64 address)
{
	return (address - ib_umem_start(part->umem)) >> part->umem->page_shift;
}

/* The word of a page, and those behind it up to the end of its table. */
static __le64 *refault_part_words(struct refault_odp_part *part, u64 address,
				  bool grow)
{
	size_t index = refault_page_index(part, address);
	struct refault_odp_table *table = part->leaf;
	struct refault_odp *odp = part->odp;

	if (!table)
		table = refault_odp_table_at(odp,
					     address - ib_umem_start(part->umem),
					     odp->page_level, grow);
	if (!table)
		return NULL;
	return &table->words[index & (REFAULT_WORDS_PER_TABLE - 1)];
}

/*
 * Whether the NIC may write a page. Reading never asks for it: that would
 * break copy-on-write, fill holes of files and dirty pages.
 */
static bool refault_grants_write(const struct refault_odp_part *part,
				 unsigned long pfn, enum refault_bring how)
{
	return pfn & HMM_PFN_WRITE && part->umem->umem.writable &&
	       how != REFAULT_BRING_READ;
}

/* Sets one word. Returns whether it gave the NIC something, or an error. */
static int refault_set_word(struct refault_odp_part *part, __le64 *word,
			    size_t index, unsigned long pfn, bool writable)
{
	u64 old = le64_to_cpu(READ_ONCE(*word));
	dma_addr_t address;
	u64 bits;

	if (old & REFAULT_ODP_PRESENT) {
		/* Only an invalidation takes a right away. */
		if (!writable || old & REFAULT_ODP_WRITABLE)
			return 0;
		refault_umem_set_writable(part->umem, index);
		WRITE_ONCE(*word, cpu_to_le64(old | REFAULT_ODP_WRITABLE));
		return 1;
	}
	address = refault_umem_map(part->umem, index, pfn, writable);
	if (address == DMA_MAPPING_ERROR)
		return -EFAULT;
	bits = REFAULT_ODP_PRESENT | (writable ? REFAULT_ODP_WRITABLE : 0);
	WRITE_ONCE(*word, cpu_to_le64(address | bits));
	return 1;
}

/* Takes over what was found from @address on. Returns the pages gained. */
static int refault_set_words(struct refault_odp_part *part, __le64 *words,
			     u64 address, const unsigned long *pfns,
			     unsigned int count, enum refault_bring how)
{
	size_t index = refault_page_index(part, address);
	unsigned int order = part->umem->page_shift - PAGE_SHIFT;
	int gained = 0, ret;
	unsigned int i;

	for (i = 0; i < count; i++) {
		if (!(pfns[i] & HMM_PFN_VALID))
			continue;
		/* Registered as huge pages, and is none. */
		if (hmm_pfn_to_map_order(pfns[i]) < order)
			return -EINVAL;
		ret = refault_set_word(part, &words[i], index + i, pfns[i],
				       refault_grants_write(part, pfns[i], how));
		if (ret < 0)
			return ret;
		gained += ret;
	}
	return gained;
}

static int refault_look_up(struct hmm_range *range, struct mm_struct *mm)
{
	int ret;

	memset(range->hmm_pfns, 0, REFAULT_CHUNK * sizeof(*range->hmm_pfns));
	range->notifier_seq = mmu_interval_read_begin(range->notifier);
	mmap_read_lock(mm);
	ret = hmm_range_fault(range);
	mmap_read_unlock(mm);
	return ret;
}

static unsigned long refault_hmm_flags(enum refault_bring how)
{
	switch (how) {
	case REFAULT_BRING_WRITE:
		return HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE;
	case REFAULT_BRING_READ:
		return HMM_PFN_REQ_FAULT;
	default:
		return 0;
	}
}

/* @count pages from @address on, in one table. A huge page's first 4 KiB do. */
static int refault_bring_chunk(struct refault_odp_part *part, u64 address,
			       unsigned int count, enum refault_bring how)
{
	unsigned long deadline = jiffies + REFAULT_LOOKUP_TIMEOUT;
	struct ib_umem_odp *umem = part->umem;
	unsigned long pfns[REFAULT_CHUNK];
	struct hmm_range range = {
		.notifier = &umem->notifier,
		.start = address,
		.end = address + count * PAGE_SIZE,
		.hmm_pfns = pfns,
		.default_flags = refault_hmm_flags(how),
	};
	__le64 *words;
	int ret;

	words = refault_part_words(part, address, true);
	if (!words)
		return -ENOMEM;
	do {
		ret = refault_look_up(&range, umem->umem.owning_mm);
		if (ret == -EBUSY)
			continue;
		if (ret)
			return ret;
		mutex_lock(&umem->umem_mutex);
		if (mmu_interval_read_retry(range.notifier,
					    range.notifier_seq))
			ret = -EBUSY;
		else
			ret = refault_set_words(part, words, address, pfns,
						count, how);
		mutex_unlock(&umem->umem_mutex);
	} while (ret == -EBUSY && time_before(jiffies, deadline));
	return ret;
}

/**
 * refault_part_bring() - Bring pages in.
 * @part: where
 * @address: the process' address of the first byte
 * @length: bytes, all within the part
 * @how: for what
 * @pages: what the NIC has gained is added here, in 4 KiB pages
 *
 * Return: 0; -EBUSY or -ENOMEM if it may be tried again; -ENOENT if the region is
 * about to go; else the pages, or the process, are not there.
 */
int refault_part_bring(struct refault_odp_part *part, u64 address, u64 length,
		       enum refault_bring how, u64 *pages)
{
	unsigned int shift = part->umem->page_shift;
	u64 step = shift == PAGE_SHIFT ? REFAULT_CHUNK_BYTES : BIT_ULL(shift);
	struct mm_struct *mm = part->umem->umem.owning_mm;
	u64 end = ALIGN(address + length, BIT_ULL(shift));
	u64 at = ALIGN_DOWN(address, BIT_ULL(shift));
	int ret = 0;

	if (how == REFAULT_BRING_WRITE && !part->umem->umem.writable)
		return -EFAULT;
	if (!mmget_not_zero(mm))
		return -EINVAL;
	while (at < end) {
		if (READ_ONCE(part->odp->leaving)) {
			ret = -ENOENT;
			break;
		}
		/* Chunks do not cross the end of a table. */
		u64 offset = at - ib_umem_start(part->umem);
		u64 next = min(end, at + step - offset % step);
		unsigned int count = shift == PAGE_SHIFT ?
					     (next - at) >> PAGE_SHIFT : 1;

		ret = refault_bring_chunk(part, at, count, how);
		if (ret < 0)
			break;
		*pages += (u64)ret << (shift - PAGE_SHIFT);
		ret = 0;
		at = next;
		cond_resched();
	}
	/* The last one to go would wait for notifiers, and so for us. */
	mmput_async(mm);
	return ret;
}

/**
 * refault_odp_forget() - Have the NIC forget words that were taken away.
 * @odp: the region
 * @address: the process' address of the first byte
 * @length: bytes
 *
 * Afterwards no access that used them is under way. Neither sleeps, nor waits
 * for a page fault.
 */
void refault_odp_forget(struct refault_odp *odp, u64 address, u64 length)
{
	const struct refault_mr *mr = odp->mr;
	u64 start = max(address, odp->first);
	/* All of memory is one byte less than 64 bits can count. */
	u64 left = min(address + length - start, mr->length - (start - odp->first));
	struct refault_invalidate_mr cmd = {
		.key = cpu_to_le32(mr->ibmr.lkey),
		.start = cpu_to_le64(mr->start + (start - odp->first)),
		.length = cpu_to_le64(left),
	};
	int ret;

	ret = refault_cmd_atomic(odp->dev, REFAULT_CMD_INVALIDATE_MR, &cmd,
				 sizeof(cmd));
	/* A region that is being destroyed is not accessed any more. */
	if (ret && ret != -ENOENT)
		refault_die(odp->dev, "pages could not be taken back");
}

/* Makes holes of all words in the range. Returns how many there were. */
static u64 refault_clear_words(struct refault_odp_part *part, u64 start,
			       u64 end)
{
	unsigned int shift = part->umem->page_shift;
	u64 block = BIT_ULL(shift + REFAULT_WORDS_SHIFT);
	u64 at, next, i, cleared = 0;
	__le64 *words;

	for (at = start; at < end; at = next) {
		next = min(end, at + block -
				(at - ib_umem_start(part->umem)) % block);
		words = refault_part_words(part, at, false);
		if (!words)
			continue;
		for (i = 0; i < (next - at) >> shift; i++) {
			if (!READ_ONCE(words[i]))
				continue;
			WRITE_ONCE(words[i], 0);
			cleared++;
		}
	}
	return cleared;
}

/* In this order: the words go, the NIC forgets them, the pages are let go. */
static void refault_take_away(struct refault_odp_part *part, u64 start, u64 end)
{
	struct refault_odp_stats *stats = &part->odp->stats;
	unsigned int shift = part->umem->page_shift;
	u64 cleared;

	start = ALIGN_DOWN(max_t(u64, start, ib_umem_start(part->umem)),
			   BIT_ULL(shift));
	end = ALIGN(min_t(u64, end, ib_umem_end(part->umem)), BIT_ULL(shift));
	cleared = refault_clear_words(part, start, end);
	if (!cleared)
		return;
	refault_odp_forget(part->odp, start, end - start);
	atomic64_add(cleared << (shift - PAGE_SHIFT), &stats->invalidations);
	atomic64_inc(&stats->invalidations_handled);
	refault_umem_unmap(part->umem, start, end);
	if (part->leaf)
		refault_child_empty(part);
}

/*
 * The process' page table is about to change. May be called from reclaim:
 * allocates nothing, and waits for nothing that waits for memory.
 */
static bool refault_odp_invalidate(struct mmu_interval_notifier *notifier,
				   const struct mmu_notifier_range *range,
				   unsigned long sequence)
{
	struct ib_umem_odp *umem =
		container_of(notifier, struct ib_umem_odp, notifier);

	if (!mmu_notifier_range_blockable(range))
		return false;
	mutex_lock(&umem->umem_mutex);
	mmu_interval_set_seq(notifier, sequence);
	/* Before the first page came, ->private may not be set either. */
	if (umem->npages)
		refault_take_away(umem->private, range->start, range->end);
	mutex_unlock(&umem->umem_mutex);
	return true;
}

const struct mmu_interval_notifier_ops refault_odp_notifier_ops = {
	.invalidate = refault_odp_invalidate,
};
