/* A megabyte kept aside: where the disk is full, even a DELETE needs room in the log. */
#include "retention.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RESERVE_BYTES = 1 << 20 };

void outbox_retention_reserve_make(const char *path)
{
    struct stat st;

    if (stat(path, &st) == 0 && st.st_size >= RESERVE_BYTES)
        return;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return;
    bool made = posix_fallocate(fd, 0, RESERVE_BYTES) == 0;
    (void)close(fd);
    if (!made)
        (void)unlink(path); /* half a reserve takes from those who need it now */
}

void outbox_retention_reserve_free(const char *path)
{
    (void)unlink(path);
}
