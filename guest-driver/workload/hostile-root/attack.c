// SPDX-License-Identifier: Apache-2.0 OR MIT
/* What a hostile root writes, and where. */
#include <unistd.h>

#include "hostile.h"
#include "refault_abi.h"

#define FIRST_BAR	0x10
#define END_OF_BARS	0x28
#define MSIX_ENTRY	16
#define LOCAL_APIC	0xfee00000u
/* Vectors that the kernel gives to devices: below are exceptions, above its own interrupts. */
#define FIRST_VECTOR	0x30
#define NUM_VECTORS	0xb0
/* The longest ring of any kind that a device is given in the scratch memory. */
#define RING		(HUGE_BLOCK / 4)

#define PICK(rng, list)	((list)[rng_below(rng, sizeof(list) / sizeof((list)[0]))])

/* A ring's address, with room for it. */
static uint64_t ring_address(struct attack *attack)
{
	return attack->scratch->physical + rng_below(&attack->rng, HUGE_BLOCK / RING) * RING;
}

/* An interrupt's address, data and mask, of which one is at `place`: such that the kernel just finds it odd. */
static uint32_t spare_interrupt(struct attack *attack, unsigned int place, uint32_t value)
{
	switch (place) {
	case 0:
		return value % 4 ? LOCAL_APIC | (value & 0xff000) : (uint32_t)scratch_address(attack->scratch, &attack->rng);
	case 1:
		return 0;
	default:
		return FIRST_VECTOR + value % NUM_VECTORS;
	}
}

/* An event block's register. */
static uint32_t spare_event(struct attack *attack, unsigned int at, uint32_t value)
{
	switch (at / 4) {
	case 0:
		return value;
	case 1:
		return spare_interrupt(attack, 2, value);
	default:
		return spare_interrupt(attack, at / 4 - 2, value);
	}
}

/* What may be written to the IOMMU without harm to the kernel that runs the attack; false if nothing may. */
static bool spare_unit(struct attack *attack, size_t at, uint32_t *value)
{
	static const size_t events[] = { UNIT_FAULT_EVENT, UNIT_COMPLETION_EVENT, UNIT_PAGE_EVENT };

	for (unsigned int i = 0; i < 3; i++)
		if (at >= events[i] && at < events[i] + 16)
			*value = spare_event(attack, (unsigned int)(at - events[i]), *value);
	if (at == UNIT_GCMD)
		*value |= UNIT_GCMD_QIE;
	if (at == UNIT_PQA)
		*value = (uint32_t)ring_address(attack) | (*value & 7);
	if (at == UNIT_PQA + 4)
		*value = (uint32_t)(attack->scratch->physical >> 32);
	/* The kernel waits for the invalidation queue with interrupts off, and for ever. */
	return at < UNIT_IQH || at >= UNIT_IQA_END;
}

static void attack_unit(struct attack *attack)
{
	static const uint16_t registers[] = {
		UNIT_GCMD, UNIT_GCMD, UNIT_RTADDR, UNIT_RTADDR, UNIT_CCMD, UNIT_CCMD + 4, UNIT_FSTS,
		UNIT_FAULT_EVENT, UNIT_FAULT_EVENT + 4, UNIT_FAULT_EVENT + 8, UNIT_IQH, UNIT_IQH + 8, UNIT_IQH + 8,
		UNIT_IQA_END - 8, 0x9c, UNIT_COMPLETION_EVENT, UNIT_COMPLETION_EVENT + 4, UNIT_COMPLETION_EVENT + 8,
		UNIT_PQH, UNIT_PQT, UNIT_PQA, UNIT_PRS, UNIT_PAGE_EVENT, UNIT_PAGE_EVENT + 4, UNIT_PAGE_EVENT + 8,
		0xf0, 0xf8, 0xfc, 0x220, 0x22c, 0x29c,
	};
	struct rng *rng = &attack->rng;
	size_t at = rng_below(rng, 4) ? PICK(rng, registers) : rng_below(rng, 4096 - 8) & ~UINT64_C(3);
	uint32_t halves[2] = { (uint32_t)odd_value(attack->scratch, rng), (uint32_t)(odd_value(attack->scratch, rng) >> 32) };
	unsigned int width = rng_below(rng, 2) ? 4 : 8;

	if (!rng_below(rng, 16)) {
		/* A shape that the unit ignores. */
		window_write(&attack->targets->unit, at | 1, halves[0], rng_below(rng, 2) ? 1 : 2);
		return;
	}
	/* Hosts may cut a write of eight bytes that is not aligned in two. */
	for (unsigned int half = 0; attack->sparing && half < width / 4; half++)
		if (!spare_unit(attack, at + 4 * half, &halves[half]))
			return;
	window_write(&attack->targets->unit, at, (uint64_t)halves[1] << 32 | halves[0], width);
}

static void attack_registers(struct attack *attack, const struct window *bar)
{
	static const uint16_t registers[] = {
		REFAULT_REG_CONTROL, REFAULT_REG_CMD0_BASE, REFAULT_REG_CMD0_BASE + 4, REFAULT_REG_CMD0_LOG,
		REFAULT_REG_CMD0_DOORBELL, REFAULT_REG_CMD1_BASE, REFAULT_REG_CMD1_BASE + 4, REFAULT_REG_CMD1_LOG,
		REFAULT_REG_CMD1_DOORBELL, REFAULT_REG_EQ_DOORBELL, REFAULT_REG_EQ_DOORBELL + 4,
	};
	struct rng *rng = &attack->rng;
	size_t at = rng_below(rng, 4) ? PICK(rng, registers) : rng_below(rng, bar->length - 8);
	uint64_t value = odd_value(attack->scratch, rng);
	unsigned int width = 1u << rng_below(rng, 4);

	/* Where commands come from, and their answers go to. */
	if (attack->sparing && at + width > REFAULT_REG_CMD0_BASE && at < REFAULT_REG_CMD1_LOG) {
		at = rng_below(rng, 2) ? REFAULT_REG_CMD0_BASE : REFAULT_REG_CMD1_BASE;
		value = ring_address(attack);
		width = 8;
	}
	window_write(bar, at, value, width);
}

/* Resets the NIC and has it take commands from the scratch memory, without translation if the IOMMU lets it. */
static void drive(struct attack *attack, const struct window *bar)
{
	static const uint16_t bases[] = { REFAULT_REG_CMD0_BASE, REFAULT_REG_CMD1_BASE };
	struct rng *rng = &attack->rng;

	window_write(&attack->targets->unit, UNIT_GCMD, UNIT_GCMD_QIE, 4);
	window_write(bar, REFAULT_REG_CONTROL, REFAULT_CONTROL_RESET, 4);
	for (unsigned int lane = 0; lane < 2; lane++) {
		window_write(bar, bases[lane], ring_address(attack), 8);
		window_write(bar, bases[lane] + 8, rng_below(rng, REFAULT_CMD_MAX_LOG_SLOTS + 1), 4);
	}
	window_write(bar, REFAULT_REG_CONTROL, REFAULT_CONTROL_ENABLE, 4);
	for (unsigned int lane = 0; lane < 2; lane++)
		window_write(bar, bases[lane] + 12, rng_below(rng, (1u << REFAULT_CMD_MAX_LOG_SLOTS) + 1), 4);
}

static void attack_doorbells(struct attack *attack, const struct window *bar)
{
	struct rng *rng = &attack->rng;
	size_t pages = bar->length / REFAULT_DOORBELL_PAGE_SIZE;
	size_t page = rng_below(rng, rng_below(rng, 4) ? 4 : pages) % pages;
	size_t at = rng_below(rng, rng_below(rng, 4) ? 64 : BLOCK - 8);

	window_write(bar, page * REFAULT_DOORBELL_PAGE_SIZE + at, odd_value(attack->scratch, rng), 1u << rng_below(rng, 4));
}

static void attack_vectors(struct attack *attack, const struct window *bar)
{
	struct rng *rng = &attack->rng;
	size_t at = rng_below(rng, rng_below(rng, 4) ? 8 * MSIX_ENTRY : bar->length - 8) & ~UINT64_C(3);
	uint64_t value = odd_value(attack->scratch, rng);
	unsigned int width = attack->sparing ? 4 : 1u << rng_below(rng, 4);

	if (attack->sparing && at % MSIX_ENTRY != 12)
		value = spare_interrupt(attack, at % MSIX_ENTRY / 4, (uint32_t)value);
	window_write(bar, at, value, width);
}

/*
 * A BAR's register, with an address where nothing is. QEMU lets a BAR cover the IOMMU's registers, and then the kernel
 * waits for ever for an invalidation that never reached the IOMMU.
 */
static void spare_bar(size_t *at, uint64_t *value, unsigned int *width)
{
	*at &= ~UINT64_C(3);
	*width = 4;
	/* All BARs have 64 bits. */
	if (*at % 8 == 0)
		*value |= 1u << 30;
}

static void attack_config(struct attack *attack)
{
	/* Command, the six BARs, the ROM. */
	static const uint16_t registers[] = { 4, 4, 4, FIRST_BAR, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30 };
	const struct targets *targets = attack->targets;
	struct rng *rng = &attack->rng;
	uint64_t value = odd_value(attack->scratch, rng);
	unsigned int width = 1u << rng_below(rng, 3);
	size_t at;

	switch (rng_below(rng, 4)) {
	case 0:
		at = PICK(rng, registers);
		break;
	case 1:
		at = rng_below(rng, CONFIG_BYTES - 4);
		break;
	default:
		at = targets->capabilities[rng_below(rng, targets->num_capabilities)] + rng_below(rng, 24);
	}
	at &= ~(size_t)(width - 1);
	if (attack->sparing && at >= FIRST_BAR && at < END_OF_BARS)
		spare_bar(&at, &value, &width);
	if (rng_below(rng, 2))
		window_write(&targets->ecam, at, value, width);
	else if (pwrite(targets->config, &value, width, (off_t)at) < 0)
		die("configuration space cannot be written");
}

static void attack_place(struct attack *attack, enum place place)
{
	const struct window *bars = attack->targets->bars;

	switch (place) {
	case PLACE_UNIT:
		attack_unit(attack);
		break;
	case PLACE_REGISTERS:
		attack_registers(attack, &bars[0]);
		break;
	case PLACE_DOORBELLS:
		attack_doorbells(attack, &bars[2]);
		break;
	case PLACE_VECTORS:
		attack_vectors(attack, &bars[4]);
		break;
	case PLACE_CONFIG:
		attack_config(attack);
		break;
	case PLACE_COMMANDS:
		drive(attack, &bars[0]);
		break;
	case PLACES:
		break;
	}
}

void attack_once(struct attack *attack)
{
	enum place place = (enum place)rng_below(&attack->rng, PLACES);

	if (attack->places & 1u << place)
		attack_place(attack, place);
}
