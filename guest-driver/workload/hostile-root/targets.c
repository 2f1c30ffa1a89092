// SPDX-License-Identifier: Apache-2.0 OR MIT
/* Finding the devices: the IOMMU by the DMAR table, the NIC by sysfs, configuration space by the MCFG table. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hostile.h"
#include "refault_abi.h"

#define DEVICES	"/sys/bus/pci/devices"
#define TABLES	"/sys/firmware/acpi/tables"

static void map(struct window *window, const char *path, off_t offset, size_t length)
{
	int fd = open(path, O_RDWR | O_SYNC | O_CLOEXEC);
	void *at = MAP_FAILED;

	if (fd >= 0)
		at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
	if (at == MAP_FAILED)
		die("mapping %s at %#llx: %s; is iomem=relaxed on the kernel's command line?", path,
		    (unsigned long long)offset, strerror(errno));
	close(fd);
	*window = (struct window){ .at = at, .length = length };
}

static void map_physical(struct window *window, uint64_t address, size_t length)
{
	map(window, "/dev/mem", (off_t)address, length);
}

static size_t read_table(const char *name, char *table, size_t room)
{
	char path[100];
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), TABLES "/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	length = fd < 0 ? -1 : read(fd, table, room);
	if (length < 0)
		die("%s: %s", path, strerror(errno));
	close(fd);
	return (size_t)length;
}

static uint64_t field(const char *table, size_t at, size_t bytes)
{
	uint64_t value = 0;

	memcpy(&value, table + at, bytes);
	return value;
}

/* The first DRHD structure (VT-d specification, 8.3): type 0, its length, and the register base at byte 8. */
static uint64_t unit_address(void)
{
	char table[4096];
	size_t length = read_table("DMAR", table, sizeof(table)), at = 48;

	while (at + 16 <= length && field(table, at, 2) != 0 && field(table, at + 2, 2) != 0)
		at += field(table, at + 2, 2);
	if (at + 16 > length)
		die("the DMAR table has no unit");
	return field(table, at + 8, 8);
}

/* The base of the first segment (PCI Firmware Specification 3.3, table 4-3). */
static uint64_t ecam_address(void)
{
	char table[4096];

	if (read_table("MCFG", table, sizeof(table)) < 60)
		die("the MCFG table has no segment");
	return field(table, 44, 8);
}

static unsigned long number_in(const char *folder, const char *file)
{
	char path[300], text[32] = "";
	FILE *stream;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	stream = fopen(path, "r");
	if (stream && !fgets(text, sizeof(text), stream))
		text[0] = '\0';
	if (stream)
		fclose(stream);
	return strtoul(text, NULL, 0);
}

static void find_nic(char *folder, size_t room)
{
	DIR *devices = opendir(DEVICES);
	struct dirent *entry;

	while (devices && (entry = readdir(devices))) {
		snprintf(folder, room, DEVICES "/%.100s", entry->d_name);
		if (entry->d_name[0] != '.' && number_in(folder, "vendor") == REFAULT_PCI_VENDOR_ID &&
		    number_in(folder, "device") == REFAULT_PCI_DEVICE_ID) {
			closedir(devices);
			return;
		}
	}
	die("there is no NIC below " DEVICES);
}

static uint32_t config_word(const struct targets *targets, size_t at)
{
	uint32_t word = 0;

	if (pread(targets->config, &word, sizeof(word), (off_t)at) != sizeof(word))
		die("configuration space cannot be read: %s", strerror(errno));
	return word;
}

static void find_capabilities(struct targets *targets)
{
	size_t at = config_word(targets, 0x34) & 0xfc;

	/* Those in the first 256 bytes have the offset of the next in bits 15:8, the others in bits 31:20. */
	for (; at && targets->num_capabilities < CAPABILITIES; at = config_word(targets, at) >> 8 & 0xfc)
		targets->capabilities[targets->num_capabilities++] = at;
	for (at = 0x100; at && targets->num_capabilities < CAPABILITIES; at = config_word(targets, at) >> 20 & 0xffc)
		targets->capabilities[targets->num_capabilities++] = at;
}

void targets_open(struct targets *targets)
{
	unsigned int bus, device, function;
	char path[300];

	*targets = (struct targets){ 0 };
	find_nic(targets->folder, sizeof(targets->folder));
	snprintf(path, sizeof(path), "%s/config", targets->folder);
	targets->config = open(path, O_RDWR | O_CLOEXEC);
	if (targets->config < 0)
		die("%s: %s", path, strerror(errno));
	find_capabilities(targets);
	for (unsigned int bar = 0; bar < BARS; bar++) {
		struct stat info;

		snprintf(path, sizeof(path), "%s/resource%u", targets->folder, bar);
		if (stat(path, &info) == 0)
			map(&targets->bars[bar], path, 0, (size_t)info.st_size);
	}
	map_physical(&targets->unit, unit_address(), 4096);
	if (sscanf(strrchr(targets->folder, '/'), "/%*x:%x:%x.%x", &bus, &device, &function) != 3)
		die("%s is not the name of a PCI function", targets->folder);
	map_physical(&targets->ecam, ecam_address() + (bus << 20 | device << 15 | function << 12), CONFIG_BYTES);
}

void window_write(const struct window *window, size_t offset, uint64_t value, unsigned int width)
{
	volatile void *at = window->at + offset;

	switch (width) {
	case 1:
		*(volatile uint8_t *)at = (uint8_t)value;
		break;
	case 2:
		*(volatile uint16_t *)at = (uint16_t)value;
		break;
	case 4:
		*(volatile uint32_t *)at = (uint32_t)value;
		break;
	default:
		*(volatile uint64_t *)at = value;
	}
}

uint64_t window_read(const struct window *window, size_t offset, unsigned int width)
{
	volatile void *at = window->at + offset;

	return width == 4 ? *(volatile uint32_t *)at : *(volatile uint64_t *)at;
}
