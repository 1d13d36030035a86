/* Roles: one holder at a time, and none that is dead. */
#include "test_support.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <waybill/db.h>

static char dir[256];
static char path[300];

static int setup(void **state)
{
    (void)state;
    test_dir_make(dir);
    snprintf(path, sizeof(path), "%s/role", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_dir_remove(dir);
    return 0;
}

static void db_role_has_one_holder_even_within_a_process(void **state)
{
    struct db_role *one = NULL, *two = NULL;
    struct wb_why why = {""};
    struct stat st;

    (void)state;
    assert_ok(db_role_open(path, &one, NULL));
    assert_ok(db_role_open(path, &two, NULL));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_ok(db_role_try(one, NULL));
    assert_ok(db_role_try(one, NULL));
    assert_err(db_role_try(two, &why), WB_BUSY);
    assert_non_null(strstr(why.text, path));
    db_role_release(one);
    db_role_release(one);
    assert_ok(db_role_try(two, NULL));
    db_role_close(two);
    assert_ok(db_role_try(one, NULL));
    db_role_close(one);
    db_role_close(NULL);
}

static bool taken(void *role)
{
    return db_role_try(role, NULL) == WB_OK;
}

static void db_role_of_a_killed_holder_is_free_at_once(void **state)
{
    struct db_role *standby = NULL;
    int ready[2];
    char byte;

    (void)state;
    assert_int_equal(pipe(ready), 0);
    pid_t holder = fork();
    assert_true(holder >= 0);
    if (holder == 0) {
        struct db_role *role = NULL;
        if (db_role_open(path, &role, NULL) == WB_OK && db_role_try(role, NULL) == WB_OK &&
            write(ready[1], "x", 1) == 1)
            for (;;)
                pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_ok(db_role_open(path, &standby, NULL));
    wb_err while_alive = db_role_try(standby, NULL);
    kill(holder, SIGKILL);
    bool got_it = test_wait(taken, standby, 2000);
    waitpid(holder, NULL, 0);
    db_role_close(standby);
    close(ready[0]);
    close(ready[1]);
    assert_int_equal(while_alive, WB_BUSY);
    assert_true(got_it);
}

static void db_role_whose_file_was_removed_is_opened_anew_and_free(void **state)
{
    struct db_role *stopped = NULL, *standby = NULL, *third = NULL;

    (void)state;
    assert_ok(db_role_open(path, &stopped, NULL));
    assert_ok(db_role_open(path, &standby, NULL));
    assert_ok(db_role_try(stopped, NULL));
    assert_err(db_role_try(standby, NULL), WB_BUSY);
    assert_int_equal(unlink(path), 0);
    assert_ok(db_role_try(standby, NULL));
    assert_ok(
        db_role_try(stopped, NULL)); /* it believes in its role: its lock is of the old file */
    db_role_release(stopped);
    assert_err(db_role_try(stopped, NULL), WB_BUSY);
    assert_ok(db_role_open(path, &third, NULL));
    assert_err(db_role_try(third, NULL), WB_BUSY);
    db_role_release(standby);
    assert_ok(db_role_try(stopped, NULL));
    db_role_close(stopped);
    db_role_close(standby);
    db_role_close(third);
}

static bool readable(struct db_role *role)
{
    struct pollfd one = {.fd = db_role_fd(role), .events = POLLIN};

    return poll(&one, 1, 0) == 1;
}

static void db_role_descriptor_tells_of_release_death_and_removal(void **state)
{
    struct db_role *holder = NULL, *standby = NULL;

    (void)state;
    assert_ok(db_role_open(path, &holder, NULL));
    assert_ok(db_role_open(path, &standby, NULL));
    assert_ok(db_role_try(holder, NULL));
    assert_true(db_role_fd(standby) >= 0);
    assert_err(db_role_try(standby, NULL), WB_BUSY);
    assert_false(readable(standby));
    db_role_release(holder);
    assert_true(readable(standby));
    assert_ok(db_role_try(holder, NULL));
    assert_err(db_role_try(standby, NULL), WB_BUSY);
    assert_false(readable(standby));
    db_role_close(holder); /* as the kernel does when its process ends */
    assert_true(readable(standby));
    assert_ok(db_role_try(standby, NULL));
    assert_ok(db_role_open(path, &holder, NULL));
    assert_true(db_role_fd(holder) >= 0);
    assert_err(db_role_try(holder, NULL), WB_BUSY);
    assert_int_equal(unlink(path), 0);
    assert_true(readable(holder));
    assert_ok(db_role_try(holder, NULL));
    db_role_close(holder);
    db_role_close(standby);
}

static void db_role_open_in_an_absent_directory_is_not_found(void **state)
{
    struct db_role *role = NULL;
    char deep[320];

    (void)state;
    snprintf(deep, sizeof(deep), "%s/none/role", dir);
    assert_err(db_role_open(deep, &role, NULL), WB_NOT_FOUND);
    assert_null(role);
}

static void db_role_open_refuses_a_symbolic_link(void **state)
{
    struct db_role *role = NULL;
    char target[300];

    (void)state;
    snprintf(target, sizeof(target), "%s/target", dir);
    assert_int_equal(symlink(target, path), 0);
    assert_err(db_role_open(path, &role, NULL), WB_INVALID);
    assert_int_equal(access(target, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(db_role_has_one_holder_even_within_a_process),
        T(db_role_of_a_killed_holder_is_free_at_once),
        T(db_role_whose_file_was_removed_is_opened_anew_and_free),
        T(db_role_descriptor_tells_of_release_death_and_removal),
        T(db_role_open_in_an_absent_directory_is_not_found),
        T(db_role_open_refuses_a_symbolic_link),
#undef T
    };
    return cmocka_run_group_tests_name("db_role", tests, NULL, NULL);
}
