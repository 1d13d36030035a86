/* test_support.c - directories, files and waiting for the tests; see test_nats.c for the server. */
#include "test_support.h"

#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void test_dir_make(char path[256])
{
    const char *base = getenv("TMPDIR");

    int len = snprintf(path, 256, "%s/waybill-test-XXXXXX", base != NULL ? base : "/tmp");
    if (len < 0 || len >= 256 || mkdtemp(path) == NULL)
        fail_msg("cannot make the temporary directory %s", path);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    (void)remove(path);
    return 0;
}

void test_dir_remove(const char *path)
{
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

char *test_file_read(const char *path, size_t *ret_len)
{
    FILE *file = fopen(path, "rb");
    struct stat st = {0};

    if (file == NULL || fstat(fileno(file), &st) != 0)
        fail_msg("cannot read %s", path);
    char *text = malloc((size_t)st.st_size + 1);
    assert_non_null(text);
    size_t len = fread(text, 1, (size_t)st.st_size, file);
    (void)fclose(file);
    text[len] = '\0';
    if (ret_len != NULL)
        *ret_len = len;
    return text;
}

bool test_wait(bool (*condition)(void *ctx), void *ctx, int timeout_ms)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    struct timespec start;
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    while (!condition(ctx)) {
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        int64_t passed_ms =
            (now.tv_sec - start.tv_sec) * INT64_C(1000) + (now.tv_nsec - start.tv_nsec) / 1000000;
        if (passed_ms >= timeout_ms)
            return condition(ctx);
        (void)nanosleep(&pause, NULL);
    }
    return true;
}
