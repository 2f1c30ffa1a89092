// SPDX-License-Identifier: GPL-2.0
/*
 * Bringing pages of an on-demand region in, and invalidating them.
 *
 * A word of the table is set exactly while its page is mapped for DMA; both
 * change under umem_mutex only. The pages are looked up into a buffer on the
 * stack and then copied, instead of with ib_umem_odp_map_dma_and_lock(). That
 * function lets hmm_range_fault() write into the umem's pfn_list without the
 * mutex, which races with an invalidation that clears the "mapped" flags there.
 * It also counts huge pages differently from ib_umem_odp_unmap_dma_pages().
 */

#include <linux/sched/mm.h>

#include "odp.h"

/* Pages per lookup: 512 bytes of pfns on the stack. */
#define REFAULT_CHUNK 64
#define REFAULT_CHUNK_BYTES (REFAULT_CHUNK * PAGE_SIZE)

#define REFAULT_LOOKUP_TIMEOUT msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT)

/* Number of a page within its umem. */
static size_t refault_page_index(const struct refault_odp_part *part,
				 u64 address)
{
	return (address - ib_umem_start(part->umem)) >> part->umem->page_shift;
}

/* The word of a page; those of the next pages follow, up to the table's end. */
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
 * Whether the NIC may write a page. A read fault does not ask for write access,
 * which would break copy-on-write and fill holes of files. Nor is it granted if
 * the page is writable anyway: unmapping would then set a clean page dirty.
 */
static bool refault_grants_write(const struct refault_odp_part *part,
				 unsigned long pfn, enum refault_bring how)
{
	return pfn & HMM_PFN_WRITE && part->umem->umem.writable &&
	       how != REFAULT_BRING_READ;
}

/* Sets one word. Returns 1 if the NIC gained rights, 0 if not, or an errno. */
static int refault_set_word(struct refault_odp_part *part, __le64 *word,
			    size_t index, unsigned long pfn, bool writable)
{
	u64 old = le64_to_cpu(READ_ONCE(*word));
	dma_addr_t address;
	u64 bits;

	if (old & REFAULT_ODP_PRESENT) {
		/* Rights are only removed by an invalidation. */
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

/* Sets the words for a lookup that began at @address. Returns pages gained. */
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
		/* IB_ACCESS_HUGETLB, but not a huge page. */
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

/*
 * Brings in @count pages at @address, all in one table; for a huge page, count
 * is 1 and the lookup covers its first 4 KiB. The standard HMM loop: look up
 * without locks, then check the sequence under umem_mutex, which the notifier
 * holds while it bumps the sequence, and retry if an invalidation came between.
 */
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
 * @how: the access wanted
 * @pages: incremented by the 4 KiB pages that the NIC gained
 *
 * Return: 0; -EBUSY or -ENOMEM if a retry may succeed; -ENOENT if the region is
 * being deregistered; else an error because the pages, or the process, do not
 * exist or do not allow the access.
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
 * refault_odp_forget() - Have the NIC drop cached words that were cleared.
 * @odp: the region
 * @address: the process' address of the first byte
 * @length: bytes
 *
 * On return no access that used them is in flight. Does not sleep, and does not
 * wait for page faults.
 */
void refault_odp_forget(struct refault_odp *odp, u64 address, u64 length)
{
	u64 start = max(address, odp->first);
	/* The implicit region's length is U64_MAX, one byte short of 2^64. */
	u64 left = min(address + length - start, odp->length - (start - odp->first));
	struct refault_invalidate_mr cmd = {
		.key = cpu_to_le32(odp->key),
		.start = cpu_to_le64(odp->start + (start - odp->first)),
		.length = cpu_to_le64(left),
	};
	int ret;

	/* The NIC may know another region by the key. */
	if (READ_ONCE(odp->leaving))
		return;
	ret = refault_cmd_atomic(odp->dev, REFAULT_CMD_INVALIDATE_MR, &cmd,
				 sizeof(cmd));
	/* -ENOENT: the region was destroyed, so the NIC does not access it. */
	if (ret && ret != -ENOENT)
		refault_die(odp->dev, "pages could not be invalidated");
}

/* Clears all words in the range. Returns how many were set. */
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

/*
 * The order matters. First clear the words, so that the NIC cannot read them
 * again; then the invalidation, which drops cached copies and waits for
 * accesses in flight; then unmap, after which the pages may be reused.
 */
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
 * The process' page table is about to change. May be called from reclaim, so
 * this must not allocate, nor wait for anything that does. The sequence is set
 * under umem_mutex, so that refault_bring_chunk() sees it before it sets words.
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
	/* ->private is set after the notifier is live, but before any page. */
	if (umem->npages)
		refault_take_away(umem->private, range->start, range->end);
	mutex_unlock(&umem->umem_mutex);
	return true;
}

const struct mmu_interval_notifier_ops refault_odp_notifier_ops = {
	.invalidate = refault_odp_invalidate,
};
