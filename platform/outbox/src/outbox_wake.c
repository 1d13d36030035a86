/* Where a publisher listens. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "waybill/outbox_impl.h"

wb_err outbox_wake_address(const char *path, struct sockaddr_un *ret_address, socklen_t *ret_length,
                           struct wb_why *why)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat st;
    int n;

    /* stat() only: opening and closing the file by hand would drop SQLite's locks on it. */
    if (stat(path, &st) != 0)
        return wb_fail(why, WB_IO, "look at database %s: %s", path, strerror(errno));
    n = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "waybill-outbox-%llx-%llx",
                 (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    *ret_address = address;
    *ret_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    return WB_OK;
}
