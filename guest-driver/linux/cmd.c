// SPDX-License-Identifier: GPL-2.0
/*
 * Commands to the NIC.
 *
 * There are two lanes. Lane 0 is for everything that creates, modifies or
 * destroys objects: one command at a time, and the caller sleeps. Lane 1 is for
 * the few commands that must not wait for lane 0 and may be issued with locks
 * held, e.g. from the MMU notifier: the caller spins, and nothing is allocated.
 * The NIC never waits for a page fault before it answers, and usually answers
 * before the doorbell write has returned.
 */

#include <linux/delay.h>
#include <linux/io-64-nonatomic-lo-hi.h>

#include "refault.h"

#define REFAULT_LOG_SLOTS 4
#define REFAULT_RING_BYTES (REFAULT_CMD_SLOT_SIZE << REFAULT_LOG_SLOTS)

/*
 * Lane 0 polls memory this many times before it starts to sleep, and then the
 * status register this many times before it declares the NIC dead. The timeout
 * counts register reads rather than time: each read was answered by the NIC, so
 * a virtual machine that was paused, or is slow, does not time out.
 */
#define REFAULT_EAGER_LOOKS 100
#define REFAULT_LANE0_LOOKS 200000
/* The same for lane 1, which reads the register once per millisecond. */
#define REFAULT_LANE1_LOOKS 5000

static int refault_status_to_errno(u16 status)
{
	switch (status) {
	case REFAULT_STATUS_OK:
		return 0;
	case REFAULT_STATUS_BAD_OPCODE:
		return -EOPNOTSUPP;
	case REFAULT_STATUS_BAD_PARAMETER:
	case REFAULT_STATUS_BAD_STATE:
		return -EINVAL;
	case REFAULT_STATUS_NO_OBJECT:
		return -ENOENT;
	case REFAULT_STATUS_BUSY:
		return -EBUSY;
	case REFAULT_STATUS_NO_RESOURCES:
		return -ENOMEM;
	case REFAULT_STATUS_BAD_MEMORY:
		return -EFAULT;
	default:
		return -EIO;
	}
}

static struct refault_command_slot *
refault_submit(struct refault_dev *dev, struct refault_lane *lane, u16 opcode,
	       const void *in, size_t in_len)
{
	u32 index = lane->producer++ & (BIT(REFAULT_LOG_SLOTS) - 1);
	struct refault_command_slot *slot = &lane->slots[index];

	if (!++lane->token)
		lane->token = 1;
	memset(&slot->request, 0, sizeof(slot->request));
	slot->request.opcode = cpu_to_le16(opcode);
	slot->request.token = cpu_to_le32(lane->token);
	if (in_len)
		memcpy(slot->request.body, in, in_len);

	/* writel() orders the stores to the slot before the doorbell. */
	writel(lane->producer, dev->regs + lane->doorbell);
	return slot;
}

static bool refault_answered(const struct refault_lane *lane,
			     const struct refault_command_slot *slot)
{
	if (READ_ONCE(slot->response.token) != cpu_to_le32(lane->token))
		return false;
	/* The NIC writes the token last: read it before the rest. */
	dma_rmb();
	return true;
}

/* Whether the NIC still serves commands. Reads of a removed device are ~0. */
static bool refault_serves(struct refault_dev *dev)
{
	u32 status = readl(dev->regs + REFAULT_REG_STATUS);

	return status != ~0U && (status & REFAULT_STATUS_READY) &&
	       !(status & REFAULT_STATUS_FATAL);
}

static int refault_wait_sleeping(struct refault_dev *dev,
				 const struct refault_lane *lane,
				 const struct refault_command_slot *slot)
{
	unsigned int looks;

	for (looks = 0; looks < REFAULT_EAGER_LOOKS; looks++) {
		if (refault_answered(lane, slot))
			return 0;
		cpu_relax();
	}
	for (looks = 0; looks < REFAULT_LANE0_LOOKS; looks++) {
		if (refault_answered(lane, slot))
			return 0;
		if (!refault_serves(dev)) {
			refault_die(dev, "the NIC stopped serving commands");
			return -EIO;
		}
		usleep_range(50, 200);
	}
	refault_die(dev, "a command was not answered");
	return -EIO;
}

static int refault_wait_spinning(struct refault_dev *dev,
				 const struct refault_lane *lane,
				 const struct refault_command_slot *slot)
{
	unsigned int looks, us;

	for (looks = 0; looks < REFAULT_LANE1_LOOKS; looks++) {
		/* Poll memory: a register read would exit to the hypervisor. */
		for (us = 0; us < USEC_PER_MSEC; us++) {
			if (refault_answered(lane, slot))
				return 0;
			udelay(1);
		}
		if (!refault_serves(dev)) {
			refault_die(dev, "the NIC stopped serving commands");
			return -EIO;
		}
	}
	refault_die(dev, "an urgent command was not answered");
	return -EIO;
}

/**
 * refault_cmd() - Execute a command in lane 0. Sleeps.
 * @dev: the NIC
 * @opcode: REFAULT_CMD_*
 * @in: body of the request
 * @in_len: its length in bytes, 0 if the command has none
 * @out: where the body of the response goes
 * @out_len: its length in bytes, 0 to ignore the body
 *
 * Return: 0, -EIO if the NIC is dead, or its status as an errno.
 */
int refault_cmd(struct refault_dev *dev, u16 opcode, const void *in,
		size_t in_len, void *out, size_t out_len)
{
	struct refault_command_slot *slot;
	int ret = -EIO;

	mutex_lock(&dev->lane0_lock);
	if (refault_is_dead(dev))
		goto out_unlock;
	slot = refault_submit(dev, &dev->lane0, opcode, in, in_len);
	ret = refault_wait_sleeping(dev, &dev->lane0, slot);
	if (ret)
		goto out_unlock;
	ret = refault_status_to_errno(le16_to_cpu(slot->response.status));
	if (!ret && out_len)
		memcpy(out, slot->response.body, out_len);
out_unlock:
	mutex_unlock(&dev->lane0_lock);
	return ret;
}

/* Executes a lane 0 command whose response is the number of an object. */
int refault_cmd_create(struct refault_dev *dev, u16 opcode, const void *in,
		       size_t in_len, u32 *id)
{
	struct refault_object_id object;
	int ret;

	ret = refault_cmd(dev, opcode, in, in_len, &object, sizeof(object));
	if (ret)
		return ret;
	*id = le32_to_cpu(object.id);
	return 0;
}

/*
 * Destroys an object. Succeeds if the NIC is dead or does not know the object,
 * so that the caller frees its memory: the NIC cannot access it any more.
 */
int refault_cmd_destroy(struct refault_dev *dev, u16 opcode, u32 id)
{
	struct refault_object_id object = { .id = cpu_to_le32(id) };
	int ret;

	ret = refault_cmd(dev, opcode, &object, sizeof(object), NULL, 0);
	if (ret && refault_is_dead(dev))
		return 0;
	if (ret == -ENOENT) {
		dev_warn_ratelimited(&dev->pdev->dev,
				     "command %#x: the NIC has no object %#x\n",
				     opcode, id);
		return 0;
	}
	return ret;
}

/**
 * refault_cmd_atomic() - Execute a command in lane 1. Never sleeps or allocates.
 * @dev: the NIC
 * @opcode: one of the REFAULT_CMD_* of lane 1
 * @in: body of the request
 * @in_len: its length in bytes
 *
 * Return: as refault_cmd().
 */
int refault_cmd_atomic(struct refault_dev *dev, u16 opcode, const void *in,
		       size_t in_len)
{
	struct refault_command_slot *slot;
	int ret = -EIO;

	spin_lock(&dev->lane1_lock);
	if (refault_is_dead(dev))
		goto out_unlock;
	slot = refault_submit(dev, &dev->lane1, opcode, in, in_len);
	ret = refault_wait_spinning(dev, &dev->lane1, slot);
	if (!ret)
		ret = refault_status_to_errno(le16_to_cpu(slot->response.status));
out_unlock:
	spin_unlock(&dev->lane1_lock);
	return ret;
}

static int refault_lane_init(struct refault_dev *dev, struct refault_lane *lane,
			     unsigned int base, unsigned int log,
			     unsigned int doorbell)
{
	lane->slots = dma_alloc_coherent(&dev->pdev->dev, REFAULT_RING_BYTES,
					 &lane->dma, GFP_KERNEL);
	if (!lane->slots)
		return -ENOMEM;
	lane->doorbell = doorbell;
	writeq(lane->dma, dev->regs + base);
	writel(REFAULT_LOG_SLOTS, dev->regs + log);
	return 0;
}

static void refault_lane_free(struct refault_dev *dev, struct refault_lane *lane)
{
	if (!lane->slots)
		return;
	dma_free_coherent(&dev->pdev->dev, REFAULT_RING_BYTES, lane->slots,
			  lane->dma);
	lane->slots = NULL;
}

/*
 * Sets up both lanes and enables the NIC, which must have been reset. On error,
 * free what there is with refault_cmd_free().
 */
int refault_cmd_init(struct refault_dev *dev)
{
	int ret;

	ret = refault_lane_init(dev, &dev->lane0, REFAULT_REG_CMD0_BASE,
				REFAULT_REG_CMD0_LOG,
				REFAULT_REG_CMD0_DOORBELL);
	if (ret)
		return ret;
	ret = refault_lane_init(dev, &dev->lane1, REFAULT_REG_CMD1_BASE,
				REFAULT_REG_CMD1_LOG,
				REFAULT_REG_CMD1_DOORBELL);
	if (ret)
		return ret;

	writel(REFAULT_CONTROL_ENABLE, dev->regs + REFAULT_REG_CONTROL);
	ret = refault_await(dev, REFAULT_REG_STATUS, REFAULT_STATUS_READY,
			    REFAULT_STATUS_READY);
	if (ret)
		dev_err(&dev->pdev->dev, "did not become ready (status %#x)\n",
			readl(dev->regs + REFAULT_REG_STATUS));
	return ret;
}

/* Frees both lanes. The NIC must have been silenced. */
void refault_cmd_free(struct refault_dev *dev)
{
	refault_lane_free(dev, &dev->lane1);
	refault_lane_free(dev, &dev->lane0);
}
