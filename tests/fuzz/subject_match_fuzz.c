/*
 * Lines as patterns and subjects: the index finds what comparing one by one finds, and what two
 * patterns have in common is what both match.
 */
#include <stdint.h>
#include <stdlib.h>

#include <waybill/subject.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LINES_MAX 24

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

struct lines {
    struct wb_str all[LINES_MAX];
    size_t count;
};

static void split(const uint8_t *data, size_t size, struct lines *ret_lines)
{
    const char *text = (const char *)data;
    size_t start = 0;

    ret_lines->count = 0;
    for (size_t i = 0; i <= size && ret_lines->count < LINES_MAX; i++) {
        if (i < size && text[i] != '\n')
            continue;
        ret_lines->all[ret_lines->count++] = wb_str_n(text + start, i - start);
        start = i + 1;
    }
}

static bool is_pattern(struct wb_str line)
{
    struct wb_why why;

    return subject_pattern_check(line, &why) == WB_OK;
}

static bool is_subject(struct wb_str line)
{
    bool valid = subject_check(line, NULL) == WB_OK;

    MUST(!valid || (is_pattern(line) && !subject_has_wildcard(line)));
    return valid;
}

static void count(void *ctx, void *value)
{
    (*(size_t **)ctx)[(uintptr_t)value]++;
}

/* Each pattern of the lines that matches is found once, and no other. */
static void compare(const struct subject_index *index, const struct lines *lines,
                    const bool *present, struct wb_str subject)
{
    size_t counts[LINES_MAX] = {0};
    size_t *ctx = counts;
    size_t total = 0;
    size_t found = subject_index_match(index, subject, count, &ctx);

    for (size_t i = 0; i < lines->count; i++) {
        bool expected = present[i] && subject_matches(lines->all[i], subject);
        MUST(counts[i] == (expected ? 1 : 0));
        total += expected ? 1 : 0;
    }
    MUST(found == total);
}

static void compare_all(const struct subject_index *index, const struct lines *lines,
                        const bool *present)
{
    for (size_t i = 0; i < lines->count; i++)
        if (is_subject(lines->all[i]))
            compare(index, lines, present, lines->all[i]);
}

static void check_index(const struct lines *lines)
{
    struct subject_index *index;
    bool present[LINES_MAX] = {false};

    MUST(subject_index_create(&index) == WB_OK);
    for (uintptr_t i = 0; i < lines->count; i++) {
        present[i] = is_pattern(lines->all[i]);
        MUST(!present[i] || subject_index_add(index, lines->all[i], (void *)i) == WB_OK);
    }
    compare_all(index, lines, present);
    for (uintptr_t i = 0; i < lines->count; i += 2) {
        MUST(!present[i] || subject_index_remove(index, lines->all[i], (void *)i) == WB_OK);
        present[i] = false;
    }
    compare_all(index, lines, present);
    subject_index_destroy(index);
}

static void check_pair(struct wb_str a, struct wb_str b, const struct lines *lines)
{
    char text[SUBJECT_MAX + 1];
    bool has_both = subject_intersect(a, b, text);
    struct wb_str both = has_both ? wb_str(text) : (struct wb_str){NULL, 0};

    MUST(subject_overlap(a, b) == subject_overlap(b, a));
    MUST(!has_both || (subject_overlap(a, b) && is_pattern(both)));
    MUST(!has_both || (subject_includes(a, both) && subject_includes(b, both)));
    MUST(!subject_includes(a, b) || (has_both && wb_str_eq(both, b)));
    for (size_t i = 0; i < lines->count; i++) {
        if (!is_subject(lines->all[i]))
            continue;
        bool in_both = subject_matches(a, lines->all[i]) && subject_matches(b, lines->all[i]);
        MUST(in_both == (has_both && subject_matches(both, lines->all[i])));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lines lines;

    split(data, size, &lines);
    check_index(&lines);
    for (size_t i = 0; i + 1 < lines.count; i++)
        if (is_pattern(lines.all[i]) && is_pattern(lines.all[i + 1]))
            check_pair(lines.all[i], lines.all[i + 1], &lines);
    return 0;
}
