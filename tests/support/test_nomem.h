/*
 * test_nomem.h - allocation failure, made instead of imagined.
 *
 * A test named *_nomem_test.c is linked so that malloc, calloc, realloc and aligned_alloc of the
 * code under test come through here. One thread.
 */
#ifndef TEST_NOMEM_H
#define TEST_NOMEM_H

#include <stdbool.h>
#include <stdint.h>

/** The next count allocations succeed, all later ones fail; -1: none fails. */
void test_nomem_after(int count);

/** The next count allocations succeed, the one behind them fails, later ones succeed. */
void test_nomem_once(int count);

/** Count from 0 again, and how many there were since; nothing fails meanwhile. */
void test_nomem_count_from_here(void);
uint64_t test_nomem_count(void);

/** How many failed since _after() or _once(). */
uint64_t test_nomem_failures(void);

/** One more allocation, of somebody whose own do not come through here: shall it fail? */
bool test_nomem_fails(void);

#endif /* TEST_NOMEM_H */
