/* test_support.h - for tests of all kinds: cmocka with its includes, directories, nats-server. */
#ifndef TEST_SUPPORT_H
#define TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <waybill/base.h>

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        wb_err assert_ok_err = (call);                                                             \
        if (assert_ok_err != WB_OK)                                                                \
            fail_msg("%s: %s", #call, wb_err_name(assert_ok_err));                                 \
    } while (0)

#define assert_err(call, expected)                                                                 \
    do {                                                                                           \
        wb_err assert_err_got = (call);                                                            \
        if (assert_err_got != (expected))                                                          \
            fail_msg("%s: %s, expected %s", #call, wb_err_name(assert_err_got),                    \
                     wb_err_name(expected));                                                       \
    } while (0)

/** A new empty directory under TMPDIR or /tmp; path holds 256 bytes. Fails the test on error. */
void test_dir_make(char path[256]);
/** Remove a directory with all it contains. */
void test_dir_remove(const char *path);
/** The whole file, NUL-terminated, to be freed; fails the test on error. */
char *test_file_read(const char *path, size_t *ret_len);

/**
 * Wait until condition(ctx) is true, looking every millisecond, at most timeout_ms; the result is
 * the condition's last answer. For events that have no descriptor to wait on.
 */
bool test_wait(bool (*condition)(void *ctx), void *ctx, int timeout_ms);

/**
 * First line of main() in a test that mounts: a mount namespace of its own, so that nothing is left
 * behind however the test ends; for others than root a user namespace, too. Ends the program with a
 * message where neither is allowed.
 */
void test_mount_allow(void);
/** Mount a tmpfs, for example "size=2m"; umount() it, or leave it to the end of the program. */
void test_mount_tmpfs(const char *at, const char *options);

/* ---- a nats-server of one's own -------------------------------------------------------------- */

struct test_nats {
    int pid;
    uint16_t port;
    char url[64];   /* nats://127.0.0.1:PORT */
    char dir[256];  /* store and log; removed by test_nats_stop() */
    char conf[300]; /* configuration file */
    bool keep_dir;  /* dir was given by the test */
    bool jetstream; /* must be there after a start */
};

struct test_nats_options {
    bool no_jetstream;
    uint16_t port;    /* 0: a free one */
    const char *dir;  /* NULL: a new one; otherwise it is used again and not removed */
    const char *conf; /* further lines of the server's configuration file; NULL: none */
};

/** Start and wait until it answers. Fails the test when there is no nats-server. NULL options:
 * defaults. */
void test_nats_start(struct test_nats *server, const struct test_nats_options *options);
void test_nats_kill(struct test_nats *server);    /* SIGKILL; the store stays */
void test_nats_term(struct test_nats *server);    /* SIGTERM and wait; the store stays */
void test_nats_restart(struct test_nats *server); /* same port, store and configuration */
void test_nats_pause(struct test_nats *server);   /* SIGSTOP */
void test_nats_resume(struct test_nats *server);  /* SIGCONT */
void test_nats_stop(struct test_nats *server);    /* end it and remove its directory */

/** One request to the server's API over a connection of its own; false: no answer within 5 s. */
bool test_nats_request(const struct test_nats *server, const char *subject, const char *body,
                       char *answer, size_t size);
/** Delete one message, as an operator or a damaged store would. Fails the test when it cannot. */
void test_nats_delete(const struct test_nats *server, const char *stream, uint64_t sequence);

#endif /* TEST_SUPPORT_H */
