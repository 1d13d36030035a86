#include "http_server_internal.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HTTP_PORT 80 /* the one a Host header may leave out */

static wb_err add(struct http_server *server, const char *name, bool with_port)
{
    char **grown = realloc(server->hosts, (server->host_count + 1) * sizeof(*grown));
    struct wb_buf text = {0};

    if (grown == NULL)
        return WB_NOMEM;
    server->hosts = grown;
    wb_buf_str(&text, name);
    if (with_port)
        wb_buf_printf(&text, ":%u", (unsigned)server->port);
    if (text.failed) {
        wb_buf_free(&text);
        return WB_NOMEM;
    }
    server->hosts[server->host_count++] = text.ptr;
    return WB_OK;
}

/* A name of this machine: with the port, which may be left out only if it is HTTP's own. */
static wb_err add_local(struct http_server *server, const char *name)
{
    wb_err err = add(server, name, true);

    if (err == WB_OK && server->port == HTTP_PORT)
        err = add(server, name, false);
    return err;
}

/* A configured name: as it stands; without a port it may also come with ours. */
static wb_err add_configured(struct http_server *server, const char *name)
{
    const char *bracket = strchr(name, ']');
    bool has_port = strchr(bracket == NULL ? name : bracket, ':') != NULL;
    wb_err err = add(server, name, false);

    return err == WB_OK && !has_port ? add(server, name, true) : err;
}

static wb_err add_address(struct http_server *server, const struct sockaddr *address)
{
    char text[INET6_ADDRSTRLEN] = "", name[INET6_ADDRSTRLEN + 2];
    bool any;

    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;
        any = IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr);
        (void)inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
        (void)snprintf(name, sizeof(name), "[%s]", any ? "::1" : text);
    } else {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
        any = v4->sin_addr.s_addr == htonl(INADDR_ANY);
        (void)inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
        (void)snprintf(name, sizeof(name), "%s", any ? "127.0.0.1" : text);
    }
    return add_local(server, name);
}

wb_err http_hosts_build(struct http_server *server, const struct http_options *options,
                        const struct sockaddr *address)
{
    wb_err err = add_address(server, address);

    if (err == WB_OK)
        err = add_local(server, "localhost");
    for (size_t i = 0; err == WB_OK && options->hosts != NULL && options->hosts[i] != NULL; i++)
        err = add_configured(server, options->hosts[i]);
    return err;
}

bool http_hosts_allow(const struct http_server *server, struct wb_str host)
{
    for (size_t i = 0; i < server->host_count; i++)
        if (wb_str_case_eq(wb_str(server->hosts[i]), host))
            return true;
    return false;
}

void http_hosts_free(struct http_server *server)
{
    for (size_t i = 0; i < server->host_count; i++)
        free(server->hosts[i]);
    free(server->hosts);
}
