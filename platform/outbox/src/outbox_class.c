/* The class of a row: the first one with a pattern that matches its subject. */
#include <waybill/outbox.h>

#include <waybill/subject.h>

const struct outbox_class *outbox_class_of(const struct outbox_class *classes, size_t count,
                                           struct wb_str subject)
{
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < classes[i].pattern_count; j++)
            if (subject_matches(wb_str(classes[i].patterns[j]), subject))
                return &classes[i];
    return NULL;
}
