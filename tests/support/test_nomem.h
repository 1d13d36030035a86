/*
 * test_nomem.h - allocation failure, made instead of imagined.
 *
 * A test named *_nomem_test.c is linked so that malloc, calloc, realloc and aligned_alloc of the
 * code under test come through here. One thread.
 */
#ifndef TEST_NOMEM_H
#define TEST_NOMEM_H

/** The next count allocations succeed, all later ones fail; -1: none fails. */
void test_nomem_after(int count);

#endif /* TEST_NOMEM_H */
