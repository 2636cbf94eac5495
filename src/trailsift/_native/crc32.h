/* CRC-32 as zlib computes it. See crc32.c. */
#ifndef TRAILSIFT_CRC32_H
#define TRAILSIFT_CRC32_H

#include "text.h"

/* Prepare the table and look at the processor; call it once. Return whether crc32_of may be called: without carry-less
 * multiplication Python's own function is the faster one. */
int prepare_crc32(int simd);

uint32_t crc32_of(Slice text);

#endif
