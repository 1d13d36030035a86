/* replay.c - run a fuzz target over the files of a folder, where libFuzzer is not at hand. */
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Run one file; false when it cannot be read. */
static bool replay(const char *path)
{
    bool done = false;
    FILE *file = fopen(path, "rb");
    struct stat info;

    if (file == NULL)
        return false;
    if (fstat(fileno(file), &info) == 0) {
        size_t size = (size_t)info.st_size;
        uint8_t *data = malloc(size + 1); /* exactly the bytes, so that one too far is found */
        done = data != NULL && fread(data, 1, size, file) == size;
        uint8_t *exact = done ? realloc(data, size == 0 ? 1 : size) : NULL;
        if (exact != NULL)
            (void)LLVMFuzzerTestOneInput(exact, size);
        free(exact != NULL ? exact : data);
    }
    (void)fclose(file);
    return done;
}

int main(int argc, char **argv)
{
    DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
    int files = 0;

    if (dir == NULL) {
        (void)fprintf(stderr, "usage: %s FOLDER (there is none '%s')\n", argv[0],
                      argc == 2 ? argv[1] : "");
        return 2;
    }
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        char path[4096];
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof(path), "%s/%s", argv[1], entry->d_name);
        if (!replay(path)) {
            (void)fprintf(stderr, "%s: cannot be read\n", path);
            return 1;
        }
        files++;
    }
    (void)closedir(dir);
    (void)printf("%d files\n", files);
    return files > 0 ? 0 : 1;
}
