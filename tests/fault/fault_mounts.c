/* fault_mounts.c - see fault_mounts.h. */
#include "fault_mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault.h"
#include "test_support.h"

/* Source: fs/ext4/ext4.h of Linux; 2 is EXT4_GOING_FLAGS_NOLOGFLUSH. */
#define EXT4_SHUTDOWN        _IOR('X', 125, uint32_t)
#define SHUTDOWN_NO_LOGFLUSH 2

bool fault_run(const char *const *args)
{
    union {
        const char *const *constant;
        char *const *given;
    } argv = {.constant = args};
    pid_t pid;
    int status = 0;

    return posix_spawnp(&pid, args[0], NULL, NULL, argv.given, environ) == 0 &&
           waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- what this machine allows ---------------------------------------------------------------- */

/* In a process of its own, so that ours stays where it is. Its exit code is the answer. */
static int probe(int (*try_it)(void))
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0)
        _exit(try_it());
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return 1;
    return WEXITSTATUS(status);
}

static int try_namespace(void)
{
    return unshare(CLONE_NEWNS) == 0 &&
                   (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 || errno == EINVAL)
               ? 0
               : 1;
}

static int try_tmpfs(void)
{
    char dir[256];

    if (try_namespace() != 0)
        return 1;
    test_dir_make(dir);
    int result = mount("tmpfs", dir, "tmpfs", 0, "size=1m") == 0 ? 0 : 2;
    if (result == 0)
        (void)umount(dir);
    test_dir_remove(dir);
    return result;
}

static int try_ext4(void)
{
    char dir[256], image[300], at[300];
    const int flag = SHUTDOWN_NO_LOGFLUSH;
    int result = 3;

    if (try_namespace() != 0)
        return 1;
    test_dir_make(dir);
    (void)snprintf(image, sizeof(image), "%s/image", dir);
    (void)snprintf(at, sizeof(at), "%s/at", dir);
    if (mkdir(at, 0700) == 0 && fault_run((const char *[]){"truncate", "-s", "8M", image, NULL}) &&
        fault_run((const char *[]){"mkfs.ext4", "-q", "-F", image, NULL})) {
        result = fault_run((const char *[]){"mount", "-o", "loop", image, at, NULL}) ? 4 : 2;
        int fd = result == 4 ? open(at, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
        if (fd >= 0 && ioctl(fd, EXT4_SHUTDOWN, &flag) == 0)
            result = 0;
        if (fd >= 0)
            (void)close(fd);
        (void)umount(at);
    }
    test_dir_remove(dir);
    return result;
}

static const char *const missing[] = {
    "", "no mount namespace of one's own: run it as root, with CAP_SYS_ADMIN",
    "the file system cannot be mounted", "mkfs.ext4 or truncate is missing",
    "ext4 does not know the shutdown ioctl"};

bool fault_can_fill(const char **ret_why)
{
    *ret_why = missing[probe(try_tmpfs)];
    return **ret_why == '\0';
}

bool fault_can_cut(const char **ret_why)
{
    *ret_why = missing[probe(try_ext4)];
    return **ret_why == '\0';
}

void fault_mounts_begin(void)
{
    fault_must(try_namespace() == 0, "%s", missing[1]);
}

/* ---- a disk that gets full ------------------------------------------------------------------- */

void fault_tmpfs_mount(const char *at, size_t bytes)
{
    char options[48];

    (void)snprintf(options, sizeof(options), "size=%zu", bytes);
    fault_must((mkdir(at, 0700) == 0 || errno == EEXIST) &&
                   mount("tmpfs", at, "tmpfs", 0, options) == 0,
               "mount a tmpfs on %s: %s", at, strerror(errno));
}

static void filler_of(const char *at, char path[320])
{
    (void)snprintf(path, 320, "%s/filler", at);
}

void fault_fill(const char *at, size_t left)
{
    static const char block[4096] = "filler";
    char path[320];
    struct statvfs room;

    filler_of(at, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    fault_must(fd >= 0 || errno == ENOSPC, "fill %s: %s", at, strerror(errno));
    while (fd >= 0 && statvfs(at, &room) == 0 && room.f_bavail * room.f_frsize > left)
        if (write(fd, block, sizeof(block)) < 0)
            break;
    if (fd >= 0)
        (void)close(fd);
}

void fault_free(const char *at)
{
    char path[320];

    filler_of(at, path);
    (void)unlink(path);
}

/* ---- a disk that loses its power ------------------------------------------------------------- */

void fault_ext4_mount(const char *image, const char *at, size_t bytes)
{
    char size[32];

    (void)snprintf(size, sizeof(size), "%zu", bytes);
    fault_must(mkdir(at, 0700) == 0 || errno == EEXIST, "make %s: %s", at, strerror(errno));
    if (access(image, F_OK) != 0)
        fault_must(fault_run((const char *[]){"truncate", "-s", size, image, NULL}) &&
                       fault_run((const char *[]){"mkfs.ext4", "-q", "-F", image, NULL}),
                   "make an ext4 in %s", image);
    fault_must(fault_run((const char *[]){"mount", "-o", "loop", image, at, NULL}),
               "mount %s on %s", image, at);
}

void fault_ext4_cut(const char *at)
{
    const int flag = SHUTDOWN_NO_LOGFLUSH;
    int fd = open(at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    fault_must(fd >= 0 && ioctl(fd, EXT4_SHUTDOWN, &flag) == 0, "cut the power of %s: %s", at,
               strerror(errno));
    (void)close(fd);
}

void fault_sync(const char *at)
{
    int fd = open(at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    fault_must(fd >= 0 && syncfs(fd) == 0, "sync %s: %s", at, strerror(errno));
    (void)close(fd);
}

void fault_unmount(const char *at)
{
    for (int i = 0; i < 200 && umount(at) != 0; i++) {
        fault_must(errno == EBUSY, "unmount %s: %s", at, strerror(errno));
        fault_rest(5 * WB_MS); /* who was killed may not be quite gone */
    }
}
