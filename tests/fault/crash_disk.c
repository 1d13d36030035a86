/* crash_disk.c - see crash_disk.h. */
#include "crash_disk.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"

enum { FILES_MAX = 32 };

/* A write of data, or a truncation to size `at` when data is NULL. */
struct change {
    void *data; /* owned */
    size_t len;
    int64_t at;
};

struct crash_file {
    dev_t device;
    ino_t inode;
    char *synced; /* owned */
    size_t size, room;
    struct change *changes; /* owned: since the last sync */
    size_t count, capacity;
    unsigned names; /* in `names` below, as now or as synced */
};

/* What a name leads to, and what it leads to after a cut if chance is against us. */
static struct name {
    char path[300];
    struct crash_file *now, *synced; /* NULL: no such file */
} names[FILES_MAX];
static size_t name_count;

/* ---- files ----------------------------------------------------------------------------------- */

static void changes_clear(struct crash_file *file)
{
    for (size_t i = 0; i < file->count; i++)
        free(file->changes[i].data);
    file->count = 0;
}

static void file_drop(struct crash_file *file)
{
    if (file == NULL || --file->names > 0)
        return;
    changes_clear(file);
    free(file->changes);
    free(file->synced);
    free(file);
}

static struct crash_file *file_hold(struct crash_file *file)
{
    if (file != NULL)
        file->names++;
    return file;
}

static void file_resize(struct crash_file *file, size_t size)
{
    if (size > file->room) {
        file->room = 2 * size;
        file->synced = realloc(file->synced, file->room);
        fault_must(file->synced != NULL, "crash disk: no memory");
    }
    if (size > file->size)
        memset(file->synced + file->size, 0, size - file->size);
    file->size = size;
}

static size_t end_of(const struct change *change)
{
    return (size_t)change->at + change->len;
}

static void change_apply(struct crash_file *file, const struct change *change)
{
    if (change->data == NULL) {
        file_resize(file, (size_t)change->at);
        return;
    }
    if (end_of(change) > file->size)
        file_resize(file, end_of(change));
    memcpy(file->synced + change->at, change->data, change->len);
}

static void change_add(struct crash_file *file, struct change change)
{
    if (file->count == file->capacity) {
        file->capacity = file->capacity == 0 ? 16 : 2 * file->capacity;
        file->changes = realloc(file->changes, file->capacity * sizeof(*file->changes));
        fault_must(file->changes != NULL, "crash disk: no memory");
    }
    file->changes[file->count++] = change;
}

void crash_disk_write(struct crash_file *file, const void *data, size_t len, int64_t at)
{
    struct change change = {.data = malloc(len), .len = len, .at = at};

    fault_must(change.data != NULL, "crash disk: no memory");
    memcpy(change.data, data, len);
    change_add(file, change);
}

void crash_disk_truncate(struct crash_file *file, int64_t size)
{
    change_add(file, (struct change){.at = size});
}

void crash_disk_sync(struct crash_file *file)
{
    for (size_t i = 0; i < file->count; i++)
        change_apply(file, &file->changes[i]);
    changes_clear(file);
}

/* ---- names ----------------------------------------------------------------------------------- */

static struct name *name_of(const char *path)
{
    for (size_t i = 0; i < name_count; i++)
        if (strcmp(names[i].path, path) == 0)
            return &names[i];
    return NULL;
}

struct crash_file *crash_disk_file(const char *path)
{
    struct name *name = name_of(path);
    struct stat st;

    if (name != NULL && name->now != NULL)
        return name->now;
    if (name == NULL) {
        fault_must(name_count < FILES_MAX && strlen(path) < sizeof(name->path),
                   "crash disk: no room for %s", path);
        name = &names[name_count++];
        *name = (struct name){.now = NULL};
        memcpy(name->path, path, strlen(path) + 1);
    }
    fault_must(stat(path, &st) == 0, "crash disk: %s is not there", path);
    name->now = calloc(1, sizeof(*name->now));
    fault_must(name->now != NULL, "crash disk: no memory");
    name->now->device = st.st_dev;
    name->now->inode = st.st_ino;
    name->now->names = 1;
    return name->now;
}

struct crash_file *crash_disk_find(int fd)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return NULL;
    for (size_t i = 0; i < name_count; i++)
        if (names[i].now != NULL && names[i].now->inode == st.st_ino &&
            names[i].now->device == st.st_dev)
            return names[i].now;
    return NULL;
}

void crash_disk_remove(const char *path)
{
    struct name *name = name_of(path);

    if (name == NULL)
        return;
    file_drop(name->now);
    name->now = NULL;
}

void crash_disk_sync_names(void)
{
    for (size_t i = 0; i < name_count; i++) {
        struct crash_file *before = names[i].synced;
        names[i].synced = file_hold(names[i].now);
        file_drop(before);
    }
}

void crash_disk_forget(void)
{
    for (size_t i = 0; i < name_count; i++) {
        file_drop(names[i].now);
        file_drop(names[i].synced);
    }
    name_count = 0;
}

size_t crash_disk_unsynced(void)
{
    size_t bytes = 0;

    for (size_t i = 0; i < name_count; i++)
        for (size_t j = 0; names[i].now != NULL && j < names[i].now->count; j++)
            bytes += names[i].now->changes[j].len;
    return bytes;
}

/* ---- the cut --------------------------------------------------------------------------------- */

typedef enum chance_mode { NOTHING, EVERYTHING, PREFIX, EACH_SECTOR } chance_mode;

/* How chance treats what is not synced. */
struct chance {
    chance_mode mode;
    uint64_t salt;
    size_t sector;
    bool garbage; /* in what was never written, instead of zeros */
};

static struct chance chance_draw(struct wb_rng *rng)
{
    static const chance_mode modes[] = {NOTHING,     NOTHING,    EVERYTHING,  PREFIX,
                                        PREFIX,      PREFIX,     EACH_SECTOR, EACH_SECTOR,
                                        EACH_SECTOR, EACH_SECTOR};

    return (struct chance){
        .mode = modes[wb_rng_below(rng, sizeof(modes) / sizeof(modes[0]))],
        .salt = wb_rng_next(rng),
        .sector = wb_rng_below(rng, 2) == 0 ? 512 : 4096,
        .garbage = wb_rng_below(rng, 4) == 0,
    };
}

/* How many of `count` changes reached a sector; `which` tells sectors and the length apart. */
static size_t reached(const struct chance *chance, size_t count, uint64_t which)
{
    const uint64_t seed[2] = {chance->salt, which};
    uint64_t hash = wb_hash(seed, sizeof(seed));

    hash ^= hash >> 29;
    switch (chance->mode) {
    case NOTHING:
        return 0;
    case EVERYTHING:
        return count;
    case PREFIX:
        return (size_t)(wb_hash(&chance->salt, sizeof(chance->salt)) % (count + 1));
    case EACH_SECTOR:
        break;
    }
    if (hash % 4 == 0)
        return 0;
    return hash % 4 == 1 ? count : (size_t)((hash >> 8) % (count + 1));
}

/*
 * A truncation happens or not, as a whole, and what was written behind one that did not happen did
 * not either: its blocks were new ones. Returns how many changes may have happened at all.
 */
static size_t possible(const struct chance *chance, const struct crash_file *file)
{
    size_t done = reached(chance, file->count, UINT64_MAX - 1);

    for (; done < file->count; done++)
        if (file->changes[done].data == NULL)
            break;
    return done;
}

static size_t longest(const struct crash_file *file, size_t count)
{
    size_t most = file->size;

    for (size_t i = 0; i < count; i++)
        most = end_of(&file->changes[i]) > most ? end_of(&file->changes[i]) : most;
    return most;
}

static size_t length_left(const struct chance *chance, const struct crash_file *file, size_t count)
{
    size_t done = reached(chance, count, UINT64_MAX);
    size_t length = file->size;

    for (size_t i = 0; i < count; i++) {
        const struct change *change = &file->changes[i];
        if (change->data == NULL)
            length = (size_t)change->at;
        else if (i < done && end_of(change) > length)
            length = end_of(change);
    }
    return length;
}

static void sectors_write(const struct chance *chance, const struct change *change, size_t index,
                          size_t count, char *image)
{
    for (size_t at = (size_t)change->at; at < end_of(change);) {
        size_t sector = at / chance->sector;
        size_t next = (sector + 1) * chance->sector;
        next = next < end_of(change) ? next : end_of(change);
        if (index < reached(chance, count, sector))
            memcpy(image + at, (char *)change->data + (at - (size_t)change->at), next - at);
        at = next;
    }
}

/* The file becomes what survives of it, all synced. */
static void file_cut(struct crash_file *file, struct wb_rng *rng)
{
    struct chance chance = chance_draw(rng);
    size_t count = possible(&chance, file);
    size_t room = longest(file, count);
    char *image = calloc(1, room + 1);

    fault_must(image != NULL, "crash disk: no memory");
    for (size_t i = file->size; chance.garbage && i < room; i++)
        image[i] = (char)wb_rng_next(rng);
    if (file->size > 0)
        memcpy(image, file->synced, file->size);
    for (size_t i = 0; i < count; i++)
        if (file->changes[i].data != NULL)
            sectors_write(&chance, &file->changes[i], i, count, image);
        else if ((size_t)file->changes[i].at < room)
            memset(image + file->changes[i].at, 0, room - (size_t)file->changes[i].at);
    file->size = length_left(&chance, file, count);
    changes_clear(file);
    free(file->synced);
    file->synced = image;
    file->room = room + 1;
}

static void name_write(struct name *name)
{
    struct stat st;

    (void)unlink(name->path);
    if (name->now == NULL)
        return;
    int fd = open(name->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    fault_must(fd >= 0 && fstat(fd, &st) == 0, "crash disk: make %s", name->path);
    for (size_t done = 0; done < name->now->size;) {
        ssize_t wrote = write(fd, name->now->synced + done, name->now->size - done);
        fault_must(wrote > 0, "crash disk: write %s", name->path);
        done += (size_t)wrote;
    }
    (void)close(fd);
    name->now->device = st.st_dev;
    name->now->inode = st.st_ino;
}

void crash_disk_cut(struct wb_rng *rng)
{
    for (size_t i = 0; i < name_count; i++) {
        struct name *name = &names[i];
        if (name->now != name->synced && wb_rng_below(rng, 2) == 0) {
            file_drop(name->now);
            name->now = file_hold(name->synced);
        }
    }
    crash_disk_sync_names();
    for (size_t i = 0; i < name_count; i++) {
        if (names[i].now != NULL)
            file_cut(names[i].now, rng);
        name_write(&names[i]);
    }
}
