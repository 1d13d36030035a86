/* The parser alone: the same bytes give the same result, however they are split. */
#include "test_support.h"

#include <stdio.h>

#include "http_parser.h"

/* All that can be seen of a stream of requests, as text. */
static void describe(const struct http_parser *p, struct wb_buf *out)
{
    wb_buf_printf(out, "%.*s <%.*s> <%.*s> <%.*s> %zu%s%s\n", (int)p->method.len, p->method.ptr,
                  (int)p->path.len, p->path.ptr, (int)p->query.len,
                  p->query.ptr == NULL ? "" : p->query.ptr, (int)p->host.len, p->host.ptr,
                  p->content_length, p->wants_close ? " close" : "",
                  p->expects_continue ? " continue" : "");
    for (size_t i = 0; i < p->header_count; i++)
        wb_buf_printf(out, " %.*s=<%.*s>\n", (int)p->headers[i].name.len, p->headers[i].name.ptr,
                      (int)p->headers[i].value.len, p->headers[i].value.ptr);
}

/* Feed in pieces whose length the generator chooses; NULL: all at once. */
static void read_stream(const char *bytes, size_t len, struct wb_rng *rng, struct wb_buf *out)
{
    struct http_parser parser;
    size_t at = 0, used = 0;
    http_step step = HTTP_MORE;

    http_parser_init(&parser, 512, 5);
    while (at < len && step != HTTP_REFUSED) {
        size_t piece = rng == NULL ? len - at : 1 + wb_rng_below(rng, len - at);
        if (rng != NULL && wb_rng_below(rng, 2) == 0)
            piece = 1;
        step = http_parser_feed(&parser, bytes + at, piece, &used);
        at += used;
        if (step == HTTP_HEAD)
            describe(&parser, out);
        if (step == HTTP_DONE)
            wb_buf_printf(out, "body <%.*s>\n", (int)parser.body.len, parser.body.ptr);
        if (step == HTTP_REFUSED)
            wb_buf_printf(out, "%d %s at %zu\n", parser.status, parser.error, at);
        if (step == HTTP_DONE || (step == HTTP_HEAD && parser.content_length == 0))
            http_parser_reset(&parser);
    }
    wb_buf_printf(out, "used %zu, started %d\n", at, http_parser_started(&parser));
    http_parser_reset(&parser);
}

static void expect_reading(const char *bytes, const char *expected)
{
    struct wb_buf got = {0};

    read_stream(bytes, strlen(bytes), NULL, &got);
    if (strcmp(got.ptr, expected) != 0)
        fail_msg("<<%s>>\n  expected %s\n  got      %s", bytes, expected, got.ptr);
    wb_buf_free(&got);
}

static void request_is_read_into_its_parts(void **state)
{
    (void)state;
    expect_reading("POST /a%20b?c=%20d HTTP/1.1\r\nHost: h\r\nX:\t a  b \t\r\nEmpty:\r\n"
                   "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nxyz"
                   "GET / HTTP/1.1\r\nhOST: [::1]:80\r\nConnection: a,close\r\n\r\n",
                   "POST </a b> <c=%20d> <h> 3 continue\n"
                   " Host=<h>\n X=<a  b>\n Empty=<>\n Expect=<100-continue>\n Content-Length=<3>\n"
                   "body <xyz>\n"
                   "GET </> <> <[::1]:80> 0 close\n"
                   " hOST=<[::1]:80>\n Connection=<a,close>\n"
                   "used 159, started 0\n");
}

static void refusal_comes_at_the_first_bad_byte_and_uses_no_more(void **state)
{
    (void)state;
    expect_reading("GET / HTTP/1.1\r\nA: b\nX",
                   "400 a line ends with LF alone at 21\nused 21, started 1\n");
    expect_reading("G(T / ", "400 a method consists of letters at 2\nused 2, started 1\n");
    expect_reading("HEAD /", "405 this method is not served at 5\nused 5, started 1\n");
}

static void refused_parser_stays_refused(void **state)
{
    struct http_parser parser;
    size_t used = 9;

    (void)state;
    http_parser_init(&parser, 512, 5);
    assert_int_equal(http_parser_feed(&parser, "\n", 1, &used), HTTP_REFUSED);
    assert_int_equal(used, 1);
    assert_int_equal(http_parser_feed(&parser, "GET / HTTP/1.1\r\n", 16, &used), HTTP_REFUSED);
    assert_int_equal(used, 0);
    assert_int_equal(parser.status, 400);
    http_parser_reset(&parser);
}

static void announced_length_alone_takes_no_memory(void **state)
{
    static const char head[] =
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 999999999999999999\r\n\r\n";
    struct http_parser parser;
    size_t used;

    (void)state;
    http_parser_init(&parser, 512, 5);
    assert_null(parser.head);
    assert_int_equal(http_parser_feed(&parser, head, sizeof(head) - 1, &used), HTTP_HEAD);
    assert_int_equal(parser.content_length, 999999999999999999);
    assert_int_equal(http_parser_feed(&parser, "x", 1, &used), HTTP_MORE);
    assert_true(parser.body.capacity < 4096);
    http_parser_reset(&parser);
    assert_null(parser.head);
    assert_null(parser.headers);
}

static void limits_are_exact(void **state)
{
    struct wb_buf request = {0}, got = {0};

    (void)state;
    expect_reading("GET / HTTP/1.1\r\nHost: h\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n",
                   "GET </> <> <h> 0\n Host=<h>\n A=<>\n A=<>\n A=<>\n A=<>\nused 43, started 0\n");
    expect_reading("GET / HTTP/1.1\r\nHost: h\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n",
                   "431 too many header lines at 43\nused 43, started 1\n");
    wb_buf_str(&request, "GET / HTTP/1.1\r\nHost: h\r\nA: ");
    while (request.len < 512 - 4)
        wb_buf_str(&request, "a");
    wb_buf_str(&request, "\r\n\r\n");
    read_stream(request.ptr, request.len, NULL, &got);
    assert_non_null(strstr(got.ptr, "used 512, started 0"));
    wb_buf_clear(&got);
    wb_buf_free(&request);
    wb_buf_str(&request, "GET / HTTP/1.1\r\nHost: h\r\nA: ");
    while (request.len < 513 - 4)
        wb_buf_str(&request, "a");
    wb_buf_str(&request, "\r\n\r\n");
    read_stream(request.ptr, request.len, NULL, &got);
    assert_string_equal(got.ptr,
                        "431 the head of the request is too large at 513\nused 513, started 1\n");
    wb_buf_free(&request);
    wb_buf_free(&got);
}

/* Good requests with bytes changed, in random pieces: the same as in one piece. */
static void any_split_of_any_mutation_reads_the_same(void **state)
{
    static const char *const seeds[] = {
        ("POST /echo?a=%20 HTTP/1.1\r\nHost: h:80\r\nContent-Length: 5\r\n\r\nhello"
         "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
        "GET /%41/b HTTP/1.1\r\nHost: [::1]:8\r\nExpect: 100-continue\r\nA : b\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 00\r\n\r\n",
    };
    static const char spice[] = "\r\n\t :%/.?\0\x7f\xff"
                                "0Aa,";
    struct wb_rng rng;
    size_t differing = 0;

    (void)state;
    wb_rng_seed(&rng, 7);
    for (size_t n = 0; n < 20000; n++) {
        const char *seed = seeds[n % 3];
        size_t len = strlen(seed);
        char *bytes = malloc(len); /* exactly: AddressSanitizer guards the end */
        struct wb_buf whole = {0}, split = {0};
        assert_non_null(bytes);
        memcpy(bytes, seed, len);
        for (uint64_t changes = wb_rng_below(&rng, 4); changes > 0; changes--)
            bytes[wb_rng_below(&rng, len)] = spice[wb_rng_below(&rng, sizeof(spice) - 1)];
        read_stream(bytes, len, NULL, &whole);
        read_stream(bytes, len, &rng, &split);
        if (whole.len != split.len || memcmp(whole.ptr, split.ptr, whole.len) != 0)
            fail_msg("<<%.*s>>\n  whole %s\n  split %s", (int)len, bytes, whole.ptr, split.ptr);
        differing += strstr(whole.ptr, "400 ") != NULL;
        free(bytes);
        wb_buf_free(&whole);
        wb_buf_free(&split);
    }
    assert_true(differing > 1000); /* the mutations do reach the refusals */
}

struct host_case {
    const char *host;
    bool valid;
};

static const struct host_case hosts[] = {
    {"h", true},
    {"a.b-c_d.example", true},
    {"h:1", true},
    {"h:65535", true},
    {"127.0.0.1:80", true},
    {"[::1]", true},
    {"[::1]:80", true},
    {"h.", true},
    {"[fe80::1.2.3.4]", true},
    {"", false},
    {":80", false},
    {"h:", false},
    {"h:0", false},
    {"h:65536", false},
    {"h:000080", false},
    {"h:8a", false},
    {"h:80:80", false},
    {"::1", false},
    {"[::1", false},
    {"[::1]80", false},
    {"[]", false},
    {"[h]", false},
    {"h h", false},
    {"u@h", false},
    {"h/", false},
    {"h?", false},
    {"h#", false},
    {"h,h", false},
    {"*", false},
    {"h%41", false},
    {"[fe80::1%25eth0]", false},
    {"h\\", false},
};

static void host_is_valid_in_form_or_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++)
        if (http_host_valid(wb_str(hosts[i].host)) != hosts[i].valid)
            fail_msg("%s", hosts[i].host);
    assert_false(http_host_valid(wb_str_n("h\0h", 3)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_is_read_into_its_parts),
        cmocka_unit_test(refusal_comes_at_the_first_bad_byte_and_uses_no_more),
        cmocka_unit_test(refused_parser_stays_refused),
        cmocka_unit_test(announced_length_alone_takes_no_memory),
        cmocka_unit_test(limits_are_exact),
        cmocka_unit_test(any_split_of_any_mutation_reads_the_same),
        cmocka_unit_test(host_is_valid_in_form_or_not),
    };
    return cmocka_run_group_tests_name("http_parser", tests, NULL, NULL);
}
