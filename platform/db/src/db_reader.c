/*
 * Names the process whose snapshot keeps the log from being emptied.
 *
 * A reader holds a shared POSIX lock on one of five bytes of -shm, and the index beside them says
 * which state of the log each stands for. Source: SQLite WAL-mode file format, sections 2.1.2 and
 * 2.3. -shm is never opened here, since closing a descriptor of it would drop SQLite's own locks in
 * this process: the index is read through SQLite's mapping, the locks from /proc/locks.
 */
#include "db_log.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum {
    SHM_REGION = 32768,      /* bytes SQLite maps at once */
    SHM_LAST_FRAME = 16 / 4, /* 32-bit words from the start: frames in the log, */
    SHM_IN_FILE = 96 / 4,    /* how many of them are in the file, */
    SHM_MARKS = 100 / 4,     /* and up to which frame each of the five kinds of reader reads */
    SHM_READER_LOCK = 123,   /* byte of the first of five locks */
    READERS = 5
};

struct log_index {
    uint32_t last_frame, in_file, marks[READERS];
};

static bool index_read(struct db *db, struct log_index *ret_index)
{
    sqlite3_file *file = NULL;
    void volatile *map = NULL;

    if (sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_FILE_POINTER, &file) != SQLITE_OK ||
        file == NULL || file->pMethods == NULL || file->pMethods->iVersion < 2 ||
        file->pMethods->xShmMap(file, 0, SHM_REGION, 0, &map) != SQLITE_OK || map == NULL)
        return false;
    const volatile uint32_t *words = map;
    ret_index->last_frame = words[SHM_LAST_FRAME];
    ret_index->in_file = words[SHM_IN_FILE];
    for (int i = 0; i < READERS; i++)
        ret_index->marks[i] = words[SHM_MARKS + i];
    return true;
}

/* A lock of /proc/locks on the index: "1: POSIX  ADVISORY  READ 4711 08:01:1234 124 124". */
struct index_lock {
    int pid;
    long long first, last;
};

/* The words of a line. */
enum { WORD_KIND = 1, WORD_PID = 4, WORD_FILE, WORD_FIRST, WORD_LAST, WORD_COUNT };

static bool file_is(const char *word, const struct stat *st)
{
    char *end = NULL;
    unsigned long device_major = strtoul(word, &end, 16);
    unsigned long device_minor = *end == ':' ? strtoul(end + 1, &end, 16) : 0;
    unsigned long long inode = *end == ':' ? strtoull(end + 1, NULL, 10) : 0;

    return inode == st->st_ino && device_major == major(st->st_dev) &&
           device_minor == minor(st->st_dev);
}

static bool lock_parse(char *line, const struct stat *st, struct index_lock *ret_lock)
{
    const char *words[WORD_COUNT] = {NULL};
    char *rest = NULL;
    size_t count = 0;

    for (char *word = strtok_r(line, " \n", &rest); word != NULL && count < WORD_COUNT;
         word = strtok_r(NULL, " \n", &rest))
        words[count++] = word; /* "->" as the kind: somebody who only waits for a lock */
    if (count < WORD_COUNT || strcmp(words[WORD_KIND], "POSIX") != 0 ||
        !file_is(words[WORD_FILE], st))
        return false;
    ret_lock->pid = (int)strtol(words[WORD_PID], NULL, 10);
    ret_lock->first = strtoll(words[WORD_FIRST], NULL, 10);
    ret_lock->last =
        strcmp(words[WORD_LAST], "EOF") == 0 ? INT64_MAX : strtoll(words[WORD_LAST], NULL, 10);
    return true;
}

/* The reader with the smallest mark among those that hold a lock; NULL index fields were read. */
static bool oldest_of(FILE *locks, const struct stat *st, const struct log_index *index,
                      struct db_log_reader *ret_reader)
{
    char line[256];
    uint32_t oldest = index->last_frame;
    bool found = false;

    while (fgets(line, sizeof(line), locks) != NULL) {
        struct index_lock lock;
        if (!lock_parse(line, st, &lock))
            continue;
        for (int i = 0; i < READERS; i++) {
            /* The first kind reads the file alone, which nobody may then write to. */
            uint32_t mark = i == 0 ? 0 : index->marks[i];
            if (lock.first > SHM_READER_LOCK + i || lock.last < SHM_READER_LOCK + i ||
                mark >= oldest)
                continue;
            oldest = mark;
            found = true;
            ret_reader->pid = lock.pid > 0 ? lock.pid : 0;
        }
    }
    return found;
}

static void command_read(struct db_log_reader *reader)
{
    char path[64];
    FILE *file = NULL;

    reader->command[0] = '\0';
    (void)snprintf(path, sizeof(path), "/proc/%d/comm", reader->pid);
    if (reader->pid > 0)
        file = fopen(path, "re");
    if (file == NULL)
        return;
    if (fgets(reader->command, sizeof(reader->command), file) != NULL)
        reader->command[strcspn(reader->command, "\n")] = '\0';
    (void)fclose(file);
}

bool db_log_oldest_reader(struct db *db, struct db_log_reader *ret_reader)
{
    struct log_index index;
    struct db_log_reader reader = {0};
    struct stat st;
    char *shm_path = db_path_with(db->path, "-shm");
    bool known = shm_path != NULL && stat(shm_path, &st) == 0 && index_read(db, &index);

    free(shm_path);
    if (!known || index.in_file >= index.last_frame)
        return false;
    FILE *locks = fopen("/proc/locks", "re");
    if (locks == NULL)
        return false;
    bool found = oldest_of(locks, &st, &index, &reader);
    (void)fclose(locks);
    if (!found)
        return false;
    command_read(&reader);
    *ret_reader = reader;
    return true;
}
