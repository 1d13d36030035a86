/* crash.c - ends the process at a named place, for the fault tests. */
#include <waybill/base.h>

#ifdef WAYBILL_CRASHPOINTS

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KILLED 137 /* what a shell reports of a process that SIGKILL ended */

static _Atomic(void (*)(const char *)) passed;

void wb_crash_hook(void (*hook)(const char *name))
{
    atomic_store(&passed, hook);
}

void wb_crash_point(const char *name)
{
    static atomic_ulong passages;
    const char *wanted = getenv("WAYBILL_CRASH");
    void (*hook)(const char *) = atomic_load(&passed);

    if (hook != NULL)
        hook(name);
    if (wanted == NULL)
        return;
    size_t len = strlen(name);
    if (strncmp(wanted, name, len) != 0 || (wanted[len] != ':' && wanted[len] != '\0'))
        return;
    unsigned long target = wanted[len] == ':' ? strtoul(wanted + len + 1, NULL, 10) : 1;
    if (atomic_fetch_add(&passages, 1) + 1 == target)
        _exit(KILLED);
}

#else
/* ISO C wants a declaration in every file. */
typedef int crash_points_are_off;
#endif
