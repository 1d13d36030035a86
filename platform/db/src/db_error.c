/* What SQLite and the kernel answer, in the words of the house. */
#include "db_internal.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static wb_err errno_to_err(int number)
{
    switch (number) {
    case ENOENT:
    case ENOTDIR:
        return WB_NOT_FOUND;
    case EACCES:
    case EPERM:
        return WB_DENIED;
    case ELOOP:
    case EISDIR:
    case ENAMETOOLONG:
        return WB_INVALID;
    case EROFS:
        return WB_READ_ONLY;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return WB_DISK_FULL;
    case ENOMEM:
        return WB_NOMEM;
    default:
        return WB_IO;
    }
}

static const char *next_step(wb_err err)
{
    switch (err) {
    case WB_NOT_FOUND:
        return "check the path; its directory must exist";
    case WB_DENIED:
        return "give this user the right to read and write the file and its directory";
    case WB_READ_ONLY:
        return "make the file, its directory and the file system writable, or open it read only";
    case WB_DISK_FULL:
        return "free space on its file system; work then goes on by itself";
    case WB_BUSY:
        return "another writer holds it; try again, or look for a transaction left open";
    case WB_CORRUPT:
        return "check the path; if it is the right file, keep a copy of it, run "
               "'PRAGMA integrity_check' and restore from a backup";
    case WB_IO:
        return "check the disk and the system log, then try again";
    case WB_NOMEM:
        return "free memory, then try again";
    case WB_INVALID:
        return "correct the statement, the values or the path";
    case WB_TOO_BIG:
        return "store less in one row";
    case WB_MISUSE:
        return "this is a bug in the calling code";
    default:
        return "see the text of SQLite";
    }
}

wb_err db_errno(int number, const char *attempted, const char *path, struct wb_why *why)
{
    wb_err err = errno_to_err(number);
    char text[128];

    return wb_fail(why, err, "cannot %s %s: %s; %s", attempted, path,
                   strerror_r(number, text, sizeof(text)), next_step(err));
}

/* I/O errors hide what the kernel said; a full disk must not look like a broken one. */
static wb_err io_to_err(struct sqlite3 *handle, int code)
{
    int number = handle != NULL ? sqlite3_system_errno(handle) : 0;

    if (code == SQLITE_IOERR_NOMEM)
        return WB_NOMEM;
    if (number == 0)
        return WB_IO;
    wb_err err = errno_to_err(number);
    bool told = (code & 0xff) == SQLITE_CANTOPEN || err == WB_DISK_FULL || err == WB_NOMEM;
    return told ? err : WB_IO;
}

static wb_err code_to_err(struct sqlite3 *handle, int code)
{
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return WB_OK;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return WB_BUSY;
    case SQLITE_FULL:
        return WB_DISK_FULL;
    case SQLITE_READONLY:
        return WB_READ_ONLY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return WB_CORRUPT;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
        return io_to_err(handle, code);
    case SQLITE_NOMEM:
        return WB_NOMEM;
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return WB_DENIED;
    case SQLITE_TOOBIG:
        return WB_TOO_BIG;
    case SQLITE_MISUSE:
        return WB_MISUSE;
    case SQLITE_ERROR:
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_RANGE:
    case SQLITE_SCHEMA:
        return WB_INVALID;
    default:
        return WB_INTERNAL;
    }
}

wb_err db_error(struct sqlite3 *handle, int code, const char *attempted, struct wb_why *why)
{
    wb_err err = code_to_err(handle, code);

    if (err == WB_OK || why == NULL)
        return err;

    const char *path = handle != NULL ? sqlite3_db_filename(handle, "main") : NULL;
    /* The handle has the text of its own last error only. */
    bool own = handle != NULL && (sqlite3_errcode(handle) & 0xff) == (code & 0xff);
    const char *text = own ? sqlite3_errmsg(handle) : sqlite3_errstr(code);
    return wb_fail(why, err, "cannot %s in %s: %s (SQLite code %d); %s", attempted,
                   path != NULL && path[0] != '\0' ? path : "the database", text, code,
                   next_step(err));
}

char *db_path_with(const char *path, const char *suffix)
{
    size_t size = strlen(path) + strlen(suffix) + 1;
    char *joined = malloc(size);

    if (joined != NULL)
        snprintf(joined, size, "%s%s", path, suffix);
    return joined;
}
