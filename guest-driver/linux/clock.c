// SPDX-License-Identifier: GPL-2.0
/*
 * The sysfs attribute device_clock, for correlating timestamps of the NIC with
 * the kernel's. It shows CLOCK_MONOTONIC, the NIC's clock, and CLOCK_MONOTONIC
 * again, in nanoseconds and in the order in which they were read: the reading
 * of the NIC's clock was taken between the other two.
 */

#include <linux/device.h>
#include <linux/io.h>
#include <linux/ktime.h>
#include <linux/preempt.h>
#include <linux/sysfs.h>

#include "refault.h"

/* Readings per show; the one with the smallest window is reported. */
#define REFAULT_CLOCK_TRIES 32

struct refault_clock_pair {
	u64 before;
	u64 device;
	u64 after;
};

static void refault_read_clocks(struct refault_dev *dev,
				struct refault_clock_pair *pair)
{
	preempt_disable();
	pair->before = ktime_get_ns();
	pair->device = readq(dev->regs + REFAULT_REG_TIME_NS);
	pair->after = ktime_get_ns();
	preempt_enable();
}

static ssize_t device_clock_show(struct device *device,
				 struct device_attribute *attr, char *buf)
{
	struct refault_dev *dev =
		rdma_device_to_drv_device(device, struct refault_dev, ibdev);
	struct refault_clock_pair best, next;
	unsigned int i;

	if (refault_is_dead(dev))
		return -ENODEV;
	refault_read_clocks(dev, &best);
	for (i = 1; i < REFAULT_CLOCK_TRIES; i++) {
		refault_read_clocks(dev, &next);
		if (next.after - next.before < best.after - best.before)
			best = next;
	}
	return sysfs_emit(buf, "%llu %llu %llu\n", best.before, best.device,
			  best.after);
}
static DEVICE_ATTR_RO(device_clock);

static struct attribute *refault_attrs[] = {
	&dev_attr_device_clock.attr,
	NULL,
};

const struct attribute_group refault_attr_group = {
	.attrs = refault_attrs,
};
