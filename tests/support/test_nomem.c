/* test_nomem.c - the linker sends allocations here (-Wl,--wrap=malloc and so on). */
#include "test_nomem.h"

#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *ptr, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *ptr, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

static int left = -1;    /* until one fails; -1: none does */
static bool once;        /* that one only */
static bool counting;    /* all that come through here */
static uint64_t counted; /* while counting */
static uint64_t failed;  /* since _after() or _once() */

void test_nomem_after(int count)
{
    left = count;
    once = false;
    counting = false;
    failed = 0;
}

void test_nomem_once(int count)
{
    test_nomem_after(count);
    once = true;
}

void test_nomem_count_from_here(void)
{
    test_nomem_after(-1);
    counting = true;
    counted = 0;
}

uint64_t test_nomem_count(void)
{
    return counted;
}

uint64_t test_nomem_failures(void)
{
    return failed;
}

bool test_nomem_fails(void)
{
    if (counting)
        counted++;
    if (left < 0)
        return false;
    if (left > 0) {
        left--;
        return false;
    }
    if (once)
        left = -1;
    failed++;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return test_nomem_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return test_nomem_fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *ptr, size_t size)
{
    return test_nomem_fails() ? NULL : __real_realloc(ptr, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return test_nomem_fails() ? NULL : __real_aligned_alloc(alignment, size);
}
