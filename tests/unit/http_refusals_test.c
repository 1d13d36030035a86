/* Bad requests, each with the status it must get, whole and byte by byte, on a real connection. */
#include "http_test_client.h"

/* {H} is the server's own host:port, {P} its port. */
struct bad {
    const char *bytes;
    size_t len;
    int status;
};
#define BAD(status, bytes)                                                                         \
    {                                                                                              \
        (bytes), sizeof(bytes) - 1, (status)                                                       \
    }
#define GET_OK    "GET /ok HTTP/1.1\r\n"
#define POST_ECHO "POST /echo HTTP/1.1\r\n"
#define HOST      "Host: {H}\r\n"

static const struct bad bad_requests[] = {
    /* two readers, two lengths */
    BAD(400, POST_ECHO HOST "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    BAD(400, POST_ECHO HOST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: 5\r\ncontent-length: 6\r\n\r\nhello!"),
    BAD(400, POST_ECHO HOST "Content-Length: 5, 5\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: 5,6\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: +5\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: -5\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: -0\r\n\r\n"),
    BAD(400, POST_ECHO HOST "Content-Length: 0x5\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: 5f\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: 5 6\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: 5.0\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: 1e1\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: \"5\"\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: 05\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length:\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: \t \r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: 18446744073709551621\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: 10000000000000000005\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: 5\0\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Content-Length: \xd9\xa5\r\n\r\nhello"),
    BAD(411, POST_ECHO HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    BAD(411, POST_ECHO HOST "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"),
    BAD(411, GET_OK HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD(501, POST_ECHO HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    BAD(501, POST_ECHO HOST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    BAD(501, POST_ECHO HOST "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    BAD(501, POST_ECHO HOST "Transfer-Encoding: identity\r\n\r\n"),
    BAD(501, POST_ECHO HOST "Transfer-Encoding:\r\n\r\n"),
    BAD(400, POST_ECHO HOST "Transfer-Encoding: \x0c"
                            "chunked\r\n\r\n0\r\n\r\n"),
    BAD(400,
        POST_ECHO HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD(400, POST_ECHO HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD(400, POST_ECHO HOST "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"),
    BAD(400, POST_ECHO HOST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    BAD(400, POST_ECHO HOST "Content-Length : 5\r\n\r\nhello"),
    BAD(413, POST_ECHO HOST "Content-Length: 4097\r\n\r\n"),
    BAD(413, POST_ECHO HOST "Content-Length: 999999999999999999\r\n\r\n"),
    BAD(413, "POST /upload HTTP/1.1\r\n" HOST "Content-Length: 1048577\r\n\r\n"),
    BAD(413, GET_OK HOST "Content-Length: 1\r\n\r\nx"),
    BAD(413, POST_ECHO HOST "Content-Length: 4097\r\nExpect: 100-continue\r\n\r\n"),
    /* lines */
    BAD(400, "GET /ok HTTP/1.1\nHost: {H}\r\n\r\n"),
    BAD(400, GET_OK "Host: {H}\n\n"),
    BAD(400, GET_OK HOST "A: b\nC: d\r\n\r\n"),
    BAD(400, GET_OK HOST "\n"),
    BAD(400, GET_OK HOST "\r\r\n"),
    BAD(400, GET_OK HOST "A: b\rC: d\r\n\r\n"),
    BAD(400, GET_OK HOST "A: b\r\rC: d\r\n\r\n"),
    BAD(400, GET_OK HOST "\rX"),
    BAD(400, "GET /ok HTTP/1.1\r" HOST "\r\n"),
    BAD(400, "\r\n" GET_OK HOST "\r\n"),
    BAD(400, "\n" GET_OK HOST "\r\n"),
    BAD(400, " " GET_OK HOST "\r\n"),
    BAD(400, GET_OK " Host: {H}\r\n\r\n"),
    BAD(400, GET_OK HOST "A: b\r\n c\r\n\r\n"),
    BAD(400, GET_OK HOST "A: b\r\n\tc\r\n\r\n"),
    BAD(400, GET_OK HOST "Content-Length: 5\r\n 6\r\n\r\n"),
    BAD(400, GET_OK HOST "A : b\r\n\r\n"),
    BAD(400, GET_OK HOST "A\t: b\r\n\r\n"),
    BAD(400, GET_OK HOST "A B: c\r\n\r\n"),
    BAD(400, GET_OK HOST ": b\r\n\r\n"),
    BAD(400, GET_OK HOST "nocolon\r\n\r\n"),
    BAD(400, GET_OK HOST "A\0: b\r\n\r\n"),
    BAD(400, GET_OK HOST "A(: b\r\n\r\n"),
    BAD(400, GET_OK HOST "\"A\": b\r\n\r\n"),
    BAD(400, GET_OK HOST "\xc3\xa9: b\r\n\r\n"),
    BAD(400, GET_OK HOST "A: b\0c\r\n\r\n"),
    BAD(400, GET_OK HOST "A: b\x01\r\n\r\n"),
    BAD(400, GET_OK HOST "A: \x7f\r\n\r\n"),
    BAD(400, GET_OK HOST "A: \x0b\r\n\r\n"),
    /* whom it is for */
    BAD(400, GET_OK "\r\n"),
    BAD(400, GET_OK HOST HOST "\r\n"),
    BAD(400, GET_OK HOST "Host: evil.example\r\n\r\n"),
    BAD(400, GET_OK "Host: evil.example\r\n" HOST "\r\n"),
    BAD(400, GET_OK "Host:\r\n\r\n"),
    BAD(400, GET_OK "Host: {H},{H}\r\n\r\n"),
    BAD(400, GET_OK "Host: {H} evil\r\n\r\n"),
    BAD(400, GET_OK "Host: user@{H}\r\n\r\n"),
    BAD(400, GET_OK "Host: http://{H}\r\n\r\n"),
    BAD(400, GET_OK "Host: {H}/\r\n\r\n"),
    BAD(400, GET_OK "Host: 127.0.0.1:\r\n\r\n"),
    BAD(400, GET_OK "Host: 127.0.0.1:0\r\n\r\n"),
    BAD(400, GET_OK "Host: 127.0.0.1:65536\r\n\r\n"),
    BAD(400, GET_OK "Host: 127.0.0.1:+80\r\n\r\n"),
    BAD(400, GET_OK "Host: :{P}\r\n\r\n"),
    BAD(400, GET_OK "Host: [::1\r\n\r\n"),
    BAD(400, GET_OK "Host: []:{P}\r\n\r\n"),
    BAD(400, GET_OK "Host: [::1]x:{P}\r\n\r\n"),
    BAD(400, GET_OK "Host: local%68ost:{P}\r\n\r\n"),
    BAD(400, GET_OK "Host: \xc3\xa9:{P}\r\n\r\n"),
    BAD(421, GET_OK "Host: evil.example\r\n\r\n"),
    BAD(421, GET_OK "Host: evil.example:{P}\r\n\r\n"),
    BAD(421, GET_OK "Host: localhost.evil.example:{P}\r\n\r\n"),
    BAD(421, GET_OK "Host: 127.0.0.1.evil.example:{P}\r\n\r\n"),
    BAD(421, GET_OK "Host: localhost.:{P}\r\n\r\n"),
    BAD(421, GET_OK "Host: evil.localhost:{P}\r\n\r\n"),
    BAD(421, GET_OK "Host: 127.0.0.1\r\n\r\n"),
    BAD(421, GET_OK "Host: localhost\r\n\r\n"),
    BAD(421, GET_OK "Host: 127.0.0.1:1\r\n\r\n"),
    BAD(421, GET_OK "Host: 127.1:{P}\r\n\r\n"),
    BAD(421, GET_OK "Host: 0177.0.0.1:{P}\r\n\r\n"),
    BAD(421, GET_OK "Host: 2130706433:{P}\r\n\r\n"),
    BAD(421, GET_OK "Host: 0.0.0.0:{P}\r\n\r\n"),
    BAD(421, GET_OK "Host: [::1]:{P}\r\n\r\n"),
    BAD(421, GET_OK "Host: [::ffff:127.0.0.1]:{P}\r\n\r\n"),
    BAD(421, POST_ECHO "Host: evil.example\r\nContent-Length: 5\r\n\r\nhello"),
    /* targets */
    BAD(400, "GET http://evil.example/ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET http://{H}/ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET http://{H}/ok HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
    BAD(400, "GET ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET * HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET ?a=b HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET {H} HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET \\ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /../ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /a/../ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /.. HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /./ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /%2e%2e/ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /.%2E/ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /a%2fok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /a%2Fok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /a%5cok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /a\\ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /ok%00 HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /ok%0d%0aA:b HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /ok%7f HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /ok\0 HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /ok\t HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /\xc3\xa9 HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /%ff HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /%c0%ae%c0%ae/ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /ok%2 HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /ok%zz HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /ok?a=%z1 HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /ok?a=% HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /ok#top HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /ok?a#top HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /<ok> HTTP/1.1\r\n" HOST "\r\n"),
    BAD(404, "GET /OK HTTP/1.1\r\n" HOST "\r\n"),
    BAD(404, "GET //ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(404, "GET /ok/ HTTP/1.1\r\n" HOST "\r\n"),
    BAD(404, "GET / HTTP/1.1\r\n" HOST "\r\n"),
    BAD(404, "GET /ok%3fa=b HTTP/1.1\r\n" HOST "\r\n"),
    BAD(404, "POST /absent HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello"),
    /* methods and versions */
    BAD(405, "HEAD /ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(405, "PUT /ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(405, "DELETE /ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(405, "PATCH /ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(405, "OPTIONS * HTTP/1.1\r\n" HOST "\r\n"),
    BAD(405, "TRACE /ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(405, "CONNECT evil.example:443 HTTP/1.1\r\n" HOST "\r\n"),
    BAD(405, "POST /ok HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello"),
    BAD(405, "GET /echo HTTP/1.1\r\n" HOST "\r\n"),
    BAD(501, "get /ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(501, "BREW /ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(501, "ABCDEFGHIJKLMNOPQRSTUVWXYZ /ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(501, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    BAD(400, "GE\0T /ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET\t/ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), /* TLS */
    BAD(400, "GET  /ok HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /ok  HTTP/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /ok HTTP/1.1 \r\n" HOST "\r\n"),
    BAD(400, "GET /ok HTTP/1.1 x\r\n" HOST "\r\n"),
    BAD(400, "GET /ok\r\n\r\n"),
    BAD(400, "GET\r\n\r\n"),
    BAD(400, "GET /ok HTTP/1\r\n" HOST "\r\n"),
    BAD(400, "GET /ok HTTP/1.10\r\n" HOST "\r\n"),
    BAD(400, "GET /ok HTTP/11\r\n" HOST "\r\n"),
    BAD(400, "GET /ok http/1.1\r\n" HOST "\r\n"),
    BAD(400, "GET /ok FTP/1.1\r\n" HOST "\r\n"),
    BAD(505, "GET /ok HTTP/1.0\r\n" HOST "\r\n"),
    BAD(505, "GET /ok HTTP/2.0\r\n" HOST "\r\n"),
    BAD(505, "GET /ok HTTP/0.9\r\n" HOST "\r\n"),
    BAD(505, "GET /ok HTTP/1.2\r\n" HOST "\r\n"),
    BAD(417, POST_ECHO HOST "Content-Length: 5\r\nExpect: 200-ok\r\n\r\nhello"),
    BAD(417,
        POST_ECHO HOST "Content-Length: 5\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n"),
};

static struct fixture f; /* one server for all of them */

static void replace(struct wb_buf *out, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (len - i >= 3 && memcmp(bytes + i, "{H}", 3) == 0) {
            wb_buf_str(out, f.host);
            i += 2;
        } else if (len - i >= 3 && memcmp(bytes + i, "{P}", 3) == 0) {
            wb_buf_str(out, strchr(f.host, ':') + 1);
            i += 2;
        } else {
            wb_buf_add(out, bytes + i, 1);
        }
    }
}

/* Exactly one answer, of that status, in our form; then the end. */
static void expect_refusal(const struct wb_buf *request, const struct wb_buf *answer, int status)
{
    bool head = strncmp(request->ptr, "HEAD ", 5) == 0;
    const char *body = answer->len == 0 ? NULL : strstr(answer->ptr, "\r\n\r\n");
    char expected[32];

    (void)snprintf(expected, sizeof(expected), "HTTP/1.1 %d ", status);
    if (body == NULL || strncmp(answer->ptr, expected, strlen(expected)) != 0) {
        fail_msg("<<%s>>\n  expected %d, got <<%s>>", request->ptr, status,
                 answer->len == 0 ? "" : answer->ptr);
        return; /* not reached, but not every reader of the code knows */
    }
    assert_non_null(strstr(answer->ptr, "\r\nConnection: close\r\n"));
    assert_non_null(strstr(answer->ptr, "\r\nX-Content-Type-Options: nosniff\r\n"));
    assert_non_null(strstr(answer->ptr, "\r\nCache-Control: no-store\r\n"));
    assert_non_null(strstr(answer->ptr, "\r\nContent-Type: application/json\r\n"));
    assert_int_equal(status == 405, strstr(answer->ptr, "\r\nAllow: ") != NULL);
    body += 4;
    if (head) {
        assert_string_equal(body, "");
        return;
    }
    assert_int_equal(strncmp(body, "{\"error\":\"", 10), 0);
    assert_non_null(strstr(body, ",\"next\":\""));
    assert_string_equal(body + strlen(body) - 3, "\"}\n");
    assert_int_equal(strtoul(strstr(answer->ptr, "Content-Length: ") + 16, NULL, 10), strlen(body));
}

/* Send it, with a good request behind it that must not be seen, and look at the answer. */
static void try_bad(const struct wb_buf *request, int status, size_t piece)
{
    int fd = client_connect(&f), before = atomic_load(&f.handled);
    struct wb_buf bytes = {0}, answer = {0};

    wb_buf_add(&bytes, request->ptr, request->len);
    wb_buf_printf(&bytes, "GET /ok HTTP/1.1\r\nHost: %s\r\n\r\n", f.host);
    for (size_t at = 0; at < bytes.len; at += piece)
        if (!client_send(fd, bytes.ptr + at, piece < bytes.len - at ? piece : bytes.len - at))
            break; /* it hung up early, as it may */
    client_read_to_end(fd, &answer);
    expect_refusal(request, &answer, status);
    assert_int_equal(atomic_load(&f.handled), before);
    assert_int_equal(close(fd), 0);
    wb_buf_free(&bytes);
    wb_buf_free(&answer);
}

static void try_table(size_t piece)
{
    assert_true(sizeof(bad_requests) / sizeof(bad_requests[0]) >= 80);
    for (size_t i = 0; i < sizeof(bad_requests) / sizeof(bad_requests[0]); i++) {
        struct wb_buf request = {0};
        replace(&request, bad_requests[i].bytes, bad_requests[i].len);
        try_bad(&request, bad_requests[i].status, piece);
        wb_buf_free(&request);
    }
}

static void bad_request_sent_whole_gets_its_status_and_nothing_else(void **state)
{
    (void)state;
    try_table(SIZE_MAX);
}

static void bad_request_sent_byte_by_byte_gets_the_same_status(void **state)
{
    (void)state;
    try_table(1);
}

static void target_of_more_than_4096_bytes_gets_414(void **state)
{
    struct wb_buf request = {0};

    (void)state;
    wb_buf_str(&request, "GET /ok?");
    for (int i = 0; i < 4096; i++)
        wb_buf_str(&request, "a");
    try_bad(&request, 414, SIZE_MAX);
    try_bad(&request, 414, 7);
    wb_buf_free(&request);
}

static void head_of_more_than_8_kibibytes_gets_431(void **state)
{
    struct wb_buf request = {0};

    (void)state;
    wb_buf_printf(&request, "GET /ok HTTP/1.1\r\nHost: %s\r\nA: ", f.host);
    while (request.len < 8192 - 4)
        wb_buf_str(&request, "a");
    wb_buf_str(&request, "\r\n\r\n"); /* 8192: still good */
    int fd = client_connect(&f);
    struct wb_buf answer = {0};
    assert_true(client_send(fd, request.ptr, request.len));
    expect_response(fd, &answer, "HTTP/1.1 200 ", "GET /ok? 0");
    assert_int_equal(close(fd), 0);
    wb_buf_free(&answer);

    request.len -= 4;
    wb_buf_str(&request, "a\r\n\r\n"); /* 8193 */
    try_bad(&request, 431, SIZE_MAX);
    try_bad(&request, 431, 11);
    wb_buf_free(&request);
}

static void more_than_100_headers_get_431(void **state)
{
    struct wb_buf request = {0};

    (void)state;
    wb_buf_printf(&request, "GET /ok HTTP/1.1\r\nHost: %s\r\n", f.host);
    for (int i = 0; i < 100; i++)
        wb_buf_printf(&request, "A%d: b\r\n", i);
    wb_buf_str(&request, "\r\n");
    try_bad(&request, 431, SIZE_MAX);
    try_bad(&request, 431, 1);
    wb_buf_free(&request);
}

/* Good requests with bytes changed, lost and repeated: any answer will do, but one it must be. */
static void two_thousand_mutated_requests_leave_the_server_alive(void **state)
{
    static const char *const seeds[] = {
        "GET /ok?a=b HTTP/1.1\r\nHost: {H}\r\nAccept: */*\r\n\r\n",
        "POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nHost: {H}\r\nContent-Length: 2\r\n\r\nhi",
        "GET /%2e/a%20b HTTP/1.1\r\nHost: [::1]:{P}\r\nConnection: keep-alive, close\r\n\r\n",
    };
    struct wb_rng rng;

    (void)state;
    wb_rng_seed(&rng, 20260102);
    for (size_t n = 0; n < 2000; n++) {
        struct wb_buf request = {0}, answer = {0};
        const char *seed = seeds[n % 3];
        int fd = client_connect(&f);
        replace(&request, seed, strlen(seed));
        for (uint64_t changes = 1 + wb_rng_below(&rng, 4); changes > 0; changes--)
            request.ptr[wb_rng_below(&rng, request.len)] = (char)wb_rng_below(&rng, 256);
        request.len -= wb_rng_below(&rng, 3) == 0 ? wb_rng_below(&rng, request.len) : 0;
        (void)client_send(fd, request.ptr, request.len);
        (void)shutdown(fd, SHUT_WR);
        client_read_to_end(fd, &answer);
        if (answer.len > 0 && strncmp(answer.ptr, "HTTP/1.1 ", 9) != 0)
            fail_msg("<<%s>> got <<%s>>", request.ptr, answer.ptr);
        assert_int_equal(close(fd), 0);
        wb_buf_free(&request);
        wb_buf_free(&answer);
    }
    int fd = client_connect(&f);
    struct wb_buf input = {0}, request = {0};
    wb_buf_printf(&request, "GET /ok HTTP/1.1\r\nHost: %s\r\n\r\n", f.host);
    client_say(fd, request.ptr);
    expect_response(fd, &input, "HTTP/1.1 200 ", "GET /ok? 0");
    assert_int_equal(close(fd), 0);
    wb_buf_free(&input);
    wb_buf_free(&request);
}

static void refusals_are_counted_by_reason(void **state)
{
    (void)state;
    assert_true(observe_value(observe_series(f.observe, OBSERVE_HTTP_REFUSED, "malformed")) > 0);
    assert_true(observe_value(observe_series(f.observe, OBSERVE_HTTP_REFUSED, "host")) > 0);
    assert_true(observe_value(observe_series(f.observe, OBSERVE_HTTP_REQUESTS, "431")) >= 4);
}

static int start_server(void **state)
{
    (void)state;
    fixture_start(&f, (struct http_options){0});
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    fixture_stop(&f);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_request_sent_whole_gets_its_status_and_nothing_else),
        cmocka_unit_test(bad_request_sent_byte_by_byte_gets_the_same_status),
        cmocka_unit_test(target_of_more_than_4096_bytes_gets_414),
        cmocka_unit_test(head_of_more_than_8_kibibytes_gets_431),
        cmocka_unit_test(more_than_100_headers_get_431),
        cmocka_unit_test(two_thousand_mutated_requests_leave_the_server_alive),
        cmocka_unit_test(refusals_are_counted_by_reason),
    };
    return cmocka_run_group_tests_name("http_refusals", tests, start_server, stop_server);
}
