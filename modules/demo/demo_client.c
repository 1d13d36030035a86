/* demo_client.c - the smallest HTTP client: one POST, one answer, one connection. */
#include "demo.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int dial(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 5};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool send_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t sent = send(fd, data, len, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        data += sent;
        len -= (size_t)sent;
    }
    return true;
}

/* The status of "HTTP/1.1 202 ..."; 0 when the connection ended before it. */
static int read_status(int fd)
{
    char answer[4096];
    size_t len = 0;
    ssize_t got;

    while (len < sizeof(answer) - 1 &&
           (got = recv(fd, answer + len, sizeof(answer) - 1 - len, 0)) > 0)
        len += (size_t)got;
    answer[len] = '\0';
    return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? (int)strtol(answer + 9, NULL, 10) : 0;
}

wb_err demo_post(uint16_t port, const char *path, const char *headers, struct wb_str body,
                 int *ret_status)
{
    struct wb_buf request = {0};
    int status = 0;
    int fd = dial(port);

    if (fd < 0)
        return WB_UNREACHABLE;
    wb_buf_printf(&request,
                  "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nContent-Type: application/json\r\n"
                  "Connection: close\r\nContent-Length: %zu\r\n%s\r\n",
                  path, (unsigned)port, body.len, headers);
    wb_buf_add(&request, body.ptr, body.len);
    if (!request.failed && send_all(fd, request.ptr, request.len))
        status = read_status(fd);
    wb_buf_free(&request);
    close(fd);
    if (status == 0)
        return WB_UNREACHABLE;
    *ret_status = status;
    return WB_OK;
}
