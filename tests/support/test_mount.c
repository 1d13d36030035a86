/* test_mount.c - small file systems for tests of full and read-only disks. */
#include "test_support.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

static bool write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t written = write(fd, text, strlen(text));
    close(fd);
    return written == (ssize_t)strlen(text);
}

/* Root of a user namespace of its own may mount there, whoever one is outside. */
static bool become_root(void)
{
    char uids[64];
    char gids[64];

    (void)snprintf(uids, sizeof(uids), "0 %u 1", (unsigned)geteuid());
    (void)snprintf(gids, sizeof(gids), "0 %u 1", (unsigned)getegid());
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 &&
           write_file("/proc/self/setgroups", "deny") && write_file("/proc/self/uid_map", uids) &&
           write_file("/proc/self/gid_map", gids);
}

void test_mount_allow(void)
{
    /* In a chroot "/" is no mount point (EINVAL); there the tests' own umount() has to do. */
    if ((unshare(CLONE_NEWNS) != 0 && !become_root()) ||
        (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 && errno != EINVAL)) {
        (void)fprintf(stderr,
                      "this test mounts small file systems, and may not: %s; run it as root with "
                      "CAP_SYS_ADMIN, or where user namespaces are allowed\n",
                      strerror(errno));
        exit(1);
    }
}

void test_mount_tmpfs(const char *at, const char *options)
{
    if (mount("tmpfs", at, "tmpfs", 0, options) != 0)
        fail_msg("mount a tmpfs on %s: %s", at, strerror(errno));
}
