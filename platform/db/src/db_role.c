#include <waybill/db.h>

#include <assert.h>
#include <stdlib.h>

#include "db_lock.h"

struct db_role {
    struct db_lock lock;
    char *path;
};

wb_err db_role_open(const char *path, struct db_role **ret_role, struct wb_why *why)
{
    assert(path != NULL);
    assert(ret_role != NULL);

    struct db_role *role = calloc(1, sizeof(*role));
    if (role == NULL)
        return wb_fail(why, WB_NOMEM, "out of memory opening the role file %s", path);
    role->lock.fd = -1;
    role->path = wb_str_dup(wb_str(path));
    wb_err err = role->path != NULL
                     ? db_lock_open(&role->lock, path, why)
                     : wb_fail(why, WB_NOMEM, "out of memory opening the role file %s", path);
    if (err != WB_OK) {
        db_role_close(role);
        return err;
    }
    *ret_role = role;
    return WB_OK;
}

void db_role_close(struct db_role *role)
{
    if (role == NULL)
        return;
    db_lock_close(&role->lock);
    free(role->path);
    free(role);
}

wb_err db_role_try(struct db_role *role, struct wb_why *why)
{
    assert(role != NULL);
    if (role->lock.held)
        return WB_OK;
    wb_err err = db_lock_try(&role->lock, why);
    if (err == WB_BUSY)
        return wb_fail(why, WB_BUSY,
                       "the role %s is taken: its holder is another process or thread; wait for "
                       "its end",
                       role->path);
    return err;
}

void db_role_release(struct db_role *role)
{
    assert(role != NULL);
    db_lock_release(&role->lock);
}
