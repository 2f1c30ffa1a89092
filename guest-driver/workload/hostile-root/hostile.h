/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* A hostile root in the guest: what it reaches of the devices, what it writes there, and whom it must not deceive. */
#ifndef HOSTILE_ROOT_HOSTILE_H
#define HOSTILE_ROOT_HOSTILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util.h"

#define CONFIG_BYTES	4096
#define BARS		6
#define CAPABILITIES	16

/* Offsets of the IOMMU's registers that have a meaning here (VT-d specification, 11.4). An event block is four
 * registers of 32 bits: control, data, address, upper address. */
enum unit_register {
	UNIT_ECAP = 0x10, UNIT_GCMD = 0x18, UNIT_RTADDR = 0x20, UNIT_CCMD = 0x28, UNIT_FSTS = 0x34,
	UNIT_FAULT_EVENT = 0x38, UNIT_IQH = 0x80, UNIT_IQA_END = 0x98, UNIT_COMPLETION_EVENT = 0xa0,
	UNIT_PQH = 0xc0, UNIT_PQT = 0xc8, UNIT_PQA = 0xd0, UNIT_PRS = 0xdc, UNIT_PAGE_EVENT = 0xe0,
};

#define UNIT_GCMD_TE	(1u << 31)
#define UNIT_GCMD_SRTP	(1u << 30)
#define UNIT_GCMD_QIE	(1u << 26)

/* Registers in this process' memory. */
struct window {
	volatile char *at;
	size_t length;
};

/* All that a hostile root reaches. */
struct targets {
	char folder[200];		/* the NIC in sysfs */
	int config;			/* its configuration space there */
	struct window unit;		/* the IOMMU's registers */
	struct window bars[BARS];	/* the NIC's; empty where there is none */
	struct window ecam;		/* the NIC's configuration space in memory */
	size_t capabilities[CAPABILITIES];	/* where they begin there */
	unsigned int num_capabilities;
};

/* Finds and maps everything, or exits. */
void targets_open(struct targets *targets);

/* An access of 1, 2, 4 or 8 bytes. */
void window_write(const struct window *window, size_t offset, uint64_t value, unsigned int width);
uint64_t window_read(const struct window *window, size_t offset, unsigned int width);

/* Memory whose physical address is known, for rings and tables that the devices are sent to. */
struct scratch {
	uint64_t *memory;
	uint64_t physical;
	size_t length;
};

/* One large page, which the kernel does not move; or exits. */
void scratch_open(struct scratch *scratch);

/* Fills it with what tables, descriptors, commands and rings might look like, most of which point to itself. */
void scratch_fill(const struct scratch *scratch, struct rng *rng);

/* The address of somewhere in it, with low bits that may mean something. */
uint64_t scratch_address(const struct scratch *scratch, struct rng *rng);

/* A value that is likely to matter somewhere. */
uint64_t odd_value(const struct scratch *scratch, struct rng *rng);

/* What can be attacked. */
enum place {
	PLACE_UNIT,		/* the IOMMU's registers */
	PLACE_REGISTERS,	/* the NIC's */
	PLACE_DOORBELLS,
	PLACE_VECTORS,		/* the NIC's MSI-X table */
	PLACE_CONFIG,		/* the NIC's configuration space */
	PLACE_COMMANDS,		/* rings of commands in the scratch memory */
	PLACES
};

/* What an attack needs. */
struct attack {
	const struct targets *targets;
	const struct scratch *scratch;
	struct rng rng;
	/* A bit for each place: after some attacks others reach nothing, as the NIC has lost its objects. */
	unsigned int places;
	/* Spare the guest's own kernel: its memory, its interrupt vectors, its invalidation queue. */
	bool sparing;
};

/* One write, or a few that belong together; or none, if the place is not attacked. */
void attack_once(struct attack *attack);

/* The registers and the configuration space as the guest's kernel has set them up. */
struct saved;

struct saved *save_registers(const struct targets *targets);
void restore_registers(const struct targets *targets, const struct saved *saved);

/* What the neighbour has seen, in memory shared with it. */
struct neighbour {
	uint64_t right;		/* requests that moved the right bytes */
	uint64_t failed;	/* requests that completed with an error */
	bool wrong;		/* a request said that it succeeded, and the bytes are wrong */
	bool stop;
};

/* Moves bytes through the NIC and checks them until it is stopped or a request fails. Never returns. */
void be_neighbour(struct neighbour *seen) __attribute__((noreturn));

#endif
