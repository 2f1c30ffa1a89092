
/*
 * Mistakes that .ci/debug-kernel plants at the end of its copy of device.c: one for each of the kernel's checkers, made
 * when its name is written to the module's parameter.
 */
#include <linux/moduleparam.h>
#include <linux/slab.h>

static DEFINE_MUTEX(refault_planted_first);
static DEFINE_MUTEX(refault_planted_second);
static unsigned int refault_planted_bits = 40;
static volatile unsigned int refault_planted_sink;

static void refault_planted_work(struct work_struct *work)
{
}

static noinline void refault_planted_use_after_free(void)
{
	volatile unsigned int *freed = kzalloc(64, GFP_KERNEL);

	kfree((void *)freed);
	refault_planted_sink = freed[2];
}

static noinline void refault_planted_lock_order(void)
{
	mutex_lock(&refault_planted_first);
	mutex_lock(&refault_planted_second);
	mutex_unlock(&refault_planted_second);
	mutex_unlock(&refault_planted_first);
	mutex_lock(&refault_planted_second);
	mutex_lock(&refault_planted_first);
	mutex_unlock(&refault_planted_first);
	mutex_unlock(&refault_planted_second);
}

static noinline void refault_planted_leak(void)
{
	refault_planted_sink = (unsigned long)kzalloc(192, GFP_KERNEL);
}

static noinline void refault_planted_shift(void)
{
	refault_planted_sink = 1U << READ_ONCE(refault_planted_bits);
}

static noinline void refault_planted_sleep(void)
{
	static DEFINE_SPINLOCK(lock);

	spin_lock(&lock);
	kfree(kzalloc(64, GFP_KERNEL));
	spin_unlock(&lock);
}

static noinline void refault_planted_object(void)
{
	struct delayed_work *work = kzalloc(sizeof(*work), GFP_KERNEL);

	INIT_DELAYED_WORK(work, refault_planted_work);
	schedule_delayed_work(work, HZ);
	kfree(work);
}

static int refault_planted_set(const char *name, const struct kernel_param *param)
{
	if (sysfs_streq(name, "use-after-free"))
		refault_planted_use_after_free();
	else if (sysfs_streq(name, "lock-order"))
		refault_planted_lock_order();
	else if (sysfs_streq(name, "leak"))
		refault_planted_leak();
	else if (sysfs_streq(name, "shift"))
		refault_planted_shift();
	else if (sysfs_streq(name, "sleep"))
		refault_planted_sleep();
	else if (sysfs_streq(name, "object"))
		refault_planted_object();
	else
		return -EINVAL;
	return 0;
}

static const struct kernel_param_ops refault_planted_ops = { .set = refault_planted_set };
module_param_cb(planted, &refault_planted_ops, NULL, 0200);
