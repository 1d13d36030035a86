/* A megabyte kept aside: where the disk is full, even a DELETE needs room in the log. */
#include "retention.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    RESERVE_BYTES = 1 << 20,
    FREE_FOR_OTHERS =
        4 /* times as much is left when it is made: it must not fill the disk itself */
};

bool outbox_retention_reserve_make(const char *path)
{
    struct statvfs space;
    struct stat st;

    if (stat(path, &st) == 0 && st.st_size >= RESERVE_BYTES)
        return true;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    bool made =
        fstatvfs(fd, &space) == 0 &&
        space.f_bavail * space.f_frsize >= (FREE_FOR_OTHERS + 1) * (uint64_t)RESERVE_BYTES &&
        posix_fallocate(fd, 0, RESERVE_BYTES) == 0;
    (void)close(fd);
    if (!made)
        (void)unlink(path);
    return made;
}

void outbox_retention_reserve_free(const char *path)
{
    (void)unlink(path);
}
