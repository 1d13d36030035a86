/* Who sleeps, and where they listen: a page of memory beside the database, and datagram sockets. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "waybill/outbox_impl.h"

enum { PAGE_SIZE = 4096 };

/*
 * The file. Zeros say that nobody sleeps, so a new one needs no setting up; and what a crash leaves
 * behind costs one datagram that nobody takes.
 */
struct outbox_wake_page {
    _Atomic(uint64_t) sleepers; /* bit n: the one in slot n sleeps, or is about to */
};

_Static_assert(sizeof(struct outbox_wake_page) <= PAGE_SIZE, "the page holds it");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "shared between processes, so there can be no lock");

wb_err outbox_wake_address(const char *path, unsigned slot, struct sockaddr_un *ret_address,
                           socklen_t *ret_length, struct wb_why *why)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat st;
    int n;

    assert(slot < OUTBOX_WAKE_SLOTS);
    /* stat() only: opening and closing the file by hand would drop SQLite's locks on it. */
    if (stat(path, &st) != 0)
        return wb_fail(why, WB_IO, "look at database %s: %s", path, strerror(errno));
    n = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "waybill-outbox-%llx-%llx-%u",
                 (unsigned long long)st.st_dev, (unsigned long long)st.st_ino, slot);
    *ret_address = address;
    *ret_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    return WB_OK;
}

/* A page without a block on the disk would end the process (SIGBUS) at the first touch of a full
 * disk: it is allocated before it is used. */
static wb_err page_map(const char *path, int fd, struct outbox_wake_page **ret_page,
                       struct wb_why *why)
{
    int code = posix_fallocate(fd, 0, PAGE_SIZE);

    if (code != 0)
        return wb_fail(why, code == ENOSPC ? WB_DISK_FULL : WB_IO, "make %s: %s", path,
                       strerror(code));
    void *page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return wb_fail(why, WB_IO, "map %s: %s", path, strerror(errno));
    *ret_page = page;
    return WB_OK;
}

wb_err outbox_wake_open(const char *path, struct outbox_wake_page **ret_page, struct wb_why *why)
{
    struct wb_buf name = {0};

    wb_buf_printf(&name, "%s-wake", path);
    if (name.failed) {
        wb_buf_free(&name);
        return wb_fail(why, WB_NOMEM, "open the wake-up page of %s: out of memory", path);
    }
    int fd = open(name.ptr, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    wb_err err = fd >= 0 ? page_map(name.ptr, fd, ret_page, why)
                         : wb_fail(why, WB_IO, "open %s: %s", name.ptr, strerror(errno));
    if (fd >= 0)
        (void)close(fd); /* the mapping stays */
    wb_buf_free(&name);
    return err;
}

void outbox_wake_close(struct outbox_wake_page *page)
{
    if (page != NULL)
        (void)munmap(page, PAGE_SIZE);
}

/*
 * Sleeper and writer both change the same word, so one of them comes second and sees what the other
 * did before: the writer the bit, or the sleeper the committed row.
 */
void outbox_wake_sleeping(struct outbox_wake_page *page, unsigned slot)
{
    (void)atomic_fetch_or(&page->sleepers, UINT64_C(1) << slot);
}

void outbox_wake_awake(struct outbox_wake_page *page, unsigned slot)
{
    (void)atomic_fetch_and(&page->sleepers, ~(UINT64_C(1) << slot));
}

uint64_t outbox_wake_take(struct outbox_wake_page *page)
{
    return atomic_exchange(&page->sleepers, 0);
}
