/*
 * server_info.c - the version of the server.
 *
 * nats.c reads it and keeps it to itself, and servers before 2.10 tell it nowhere else, so it is
 * read from the INFO line that a server sends to whoever connects, in plain text, before TLS.
 */
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jansson.h>

#include "nats_bus.h"

#define TIMEOUT_MS 1000

/* "scheme://user:pass@host:port" -> host and port. */
static bool split_url(const char *url, char *host, size_t host_size, char *port, size_t port_size)
{
    const char *begin = strstr(url, "://");
    const char *at = strrchr(url, '@');

    begin = at != NULL ? at + 1 : begin != NULL ? begin + 3 : url;
    const char *colon = strrchr(begin, ':');
    const char *end = colon;
    if (*begin == '[') { /* an IPv6 address */
        begin++;
        end = strchr(begin, ']');
        colon = end != NULL && end[1] == ':' ? end + 1 : NULL;
    }
    size_t len = end != NULL ? (size_t)(end - begin) : strlen(begin);
    if (len == 0 || len >= host_size)
        return false;
    memcpy(host, begin, len);
    host[len] = '\0';
    (void)snprintf(port, port_size, "%s", colon != NULL ? colon + 1 : "4222");
    return true;
}

static int connect_to(const char *host, const char *port)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *addresses = NULL;
    int fd = -1;

    if (getaddrinfo(host, port, &hints, &addresses) != 0)
        return -1;
    for (struct addrinfo *a = addresses; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
        if (fd < 0)
            continue;
        struct pollfd writable = {.fd = fd, .events = POLLOUT};
        int error = 0;
        socklen_t len = sizeof(error);
        (void)connect(fd, a->ai_addr, a->ai_addrlen); /* the outcome shows below */
        if (poll(&writable, 1, TIMEOUT_MS) <= 0 ||
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0) {
            (void)close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(addresses);
    return fd;
}

static bool read_line(int fd, char *out, size_t size)
{
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    size_t len = 0;

    while (len + 1 < size && poll(&readable, 1, TIMEOUT_MS) > 0) {
        ssize_t got = recv(fd, out + len, size - 1 - len, 0);
        if (got <= 0)
            return false;
        len += (size_t)got;
        out[len] = '\0';
        if (strchr(out, '\n') != NULL)
            return true;
    }
    return false;
}

static bool read_version(char *info, char *out, size_t size)
{
    if (strncmp(info, "INFO ", 5) != 0)
        return false;
    json_t *json = json_loads(info + 5, JSON_DISABLE_EOF_CHECK, NULL);
    const char *version = json_string_value(json_object_get(json, "version"));
    bool found = version != NULL && strlen(version) < size;
    if (found)
        (void)snprintf(out, size, "%s", version);
    json_decref(json);
    return found;
}

bool event_bus_nats_server_version(const char *url, char *out, size_t size)
{
    char host[256];
    char port[16];
    char info[8192];

    if (!split_url(url, host, sizeof(host), port, sizeof(port)))
        return false;
    int fd = connect_to(host, port);
    if (fd < 0)
        return false;
    bool found = read_line(fd, info, sizeof(info)) && read_version(info, out, size);
    (void)close(fd);
    return found;
}
