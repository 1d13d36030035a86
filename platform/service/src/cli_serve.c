/* cli_serve.c - the service, until a signal. */
#include "cli.h"

#include <errno.h>
#include <poll.h>

static void wait_for_signal(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    while (poll(&ready, 1, -1) < 0 && errno == EINTR)
        ;
}

static void say_where(const struct cli *cli, const struct service *service)
{
    const char *listen = config_str(cli->config, "http.listen");
    const char *bus = config_str(cli->config, "bus");
    size_t host_len = 0;

    if (service_http_port(service) == 0) {
        service_cli_talk(cli, "waybill serves: HTTP off, bus %s (Ctrl-C to stop)", bus);
        return;
    }
    for (size_t i = 0; listen[i] != '\0'; i++)
        if (listen[i] == ':')
            host_len = i;
    service_cli_talk(cli, "waybill serves: http://%.*s:%u, bus %s (Ctrl-C to stop)", (int)host_len,
                     listen, (unsigned)service_http_port(service), bus);
}

wb_err service_cli_serve(struct cli *cli)
{
    struct service *service;
    int signals;
    wb_err err = service_cli_signals_open(cli, &signals);

    if (err != WB_OK)
        return err;
    err = service_start(cli->config, NULL, cli->program->modules, cli->program->module_count,
                        &service, &cli->why);
    if (err == WB_OK) {
        say_where(cli, service);
        wait_for_signal(signals);
    }
    service_cli_signals_close(signals);
    if (err == WB_OK)
        service_stop(service);
    return err;
}
