/* An owned copy holds all of a message and nothing of the original's memory. */
#include <waybill/message.h>

#include "test_nomem.h"
#include "test_support.h"

static void copy_outlives_its_original(void **state)
{
    char subject[] = "a.b";
    char payload[] = "pay\0load";
    char name[] = "Name";
    char value[] = "value";
    char id[] = "id-1";
    struct message_header headers[] = {{wb_str(name), wb_str(value)}, {wb_str(name), wb_str(id)}};
    const struct message msg = {.subject = wb_str(subject),
                                .payload = {payload, 8},
                                .headers = headers,
                                .header_count = 2,
                                .msg_id = wb_str(id)};

    (void)state;
    struct message *copy = message_copy(&msg, 0, NULL);
    assert_non_null(copy);
    memset(subject, '#', 3);
    memset(payload, '#', 8);
    memset(name, '#', 4);
    memset(value, '#', 5);
    memset(id, '#', 4);
    memset(headers, 0, sizeof(headers));

    assert_string_equal(copy->subject.ptr, "a.b"); /* NUL-terminated */
    assert_int_equal(copy->subject.len, 3);
    assert_int_equal(copy->payload.len, 8);
    assert_memory_equal(copy->payload.ptr, "pay\0load", 9);
    assert_int_equal(copy->header_count, 2);
    assert_string_equal(copy->headers[0].name.ptr, "Name");
    assert_string_equal(copy->headers[0].value.ptr, "value");
    assert_int_equal(copy->headers[1].value.len, 4);
    assert_string_equal(copy->headers[1].value.ptr, "id-1");
    assert_string_equal(copy->msg_id.ptr, "id-1");
    free(copy);
}

static void copy_of_an_empty_message_is_empty(void **state)
{
    const struct message msg = {.subject = wb_str("a")};

    (void)state;
    struct message *copy = message_copy(&msg, 0, NULL);
    assert_non_null(copy);
    assert_null(copy->payload.ptr);
    assert_null(copy->headers);
    assert_null(copy->msg_id.ptr);
    assert_int_equal(copy->header_count, 0);
    free(copy);
}

static void copy_with_extra_leaves_aligned_room_for_it(void **state)
{
    (void)state;
    for (size_t len = 0; len < 20; len++) {
        struct message msg = {.payload = {"01234567890123456789", len}};
        void *extra = NULL;
        struct message *copy = message_copy(&msg, 24, &extra);
        assert_non_null(copy);
        assert_int_equal((uintptr_t)extra % 8, 0);
        memset(extra, 0xff, 24); /* one byte too far is a finding of AddressSanitizer */
        assert_memory_equal(copy->payload.ptr, msg.payload.ptr, len);
        free(copy);
    }
}

static void copy_without_memory_is_none(void **state)
{
    const struct message msg = {.subject = wb_str("a")};
    void *extra = &extra;

    (void)state;
    test_nomem_after(0);
    struct message *copy = message_copy(&msg, 8, &extra);
    test_nomem_after(-1);
    assert_null(copy);
    assert_ptr_equal(extra, &extra);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copy_outlives_its_original),
        cmocka_unit_test(copy_of_an_empty_message_is_empty),
        cmocka_unit_test(copy_with_extra_leaves_aligned_room_for_it),
        cmocka_unit_test(copy_without_memory_is_none),
    };
    return cmocka_run_group_tests_name("message_copy", tests, NULL, NULL);
}
