/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Small things every file needs: time, random numbers, sizes, fatal errors. */
#ifndef COMMON_UTIL_H
#define COMMON_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KIB		UINT64_C(1024)
#define MIB		(1024 * KIB)
#define BLOCK		UINT64_C(4096)	/* the filesystem's block and the small page */
#define HUGE_BLOCK	(2 * MIB)	/* the large page */

/* A wait this long is a hang, not a slow machine. */
#define HANG_NS	(300ull * 1000000000ull)

#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Prints a reason and exits with 2: for set-up that cannot fail on a healthy guest. */
void die(const char *fmt, ...) PRINTF(1, 2) __attribute__((noreturn));

/* Monotonic nanoseconds. */
uint64_t now_ns(void);
double seconds_since(uint64_t start_ns);
void sleep_ms(unsigned int ms);

/* A small generator with a period of 2^64; each thread owns one. */
struct rng {
	uint64_t state;
};

uint64_t rng_next(struct rng *rng);
uint64_t rng_below(struct rng *rng, uint64_t bound);

/* Spreads every bit of the input over all bits of the output. */
uint64_t mix64(uint64_t x);

/* "64M" -> 67108864; false if it is not a size. */
bool parse_size(const char *text, uint64_t *bytes);

/*
 * Reads the arguments [COUNT [SEED]] over what is there already, and prints the seed; prints the usage and exits with 2
 * if they are something else.
 */
void parse_count_and_seed(int argc, char **argv, const char *usage, uint64_t *count, uint64_t *seed);

/* Zeroed memory, or exits. */
void *xcalloc(size_t count, size_t size);

/* Zeroed memory shared with forked children, page aligned, or exits. */
void *xshared(size_t size);

/* Runs a command without a shell, its output to ours; 0 if it succeeded. */
int run_command(char *const argv[]);

#endif
