/* demo_stage.c - what both stages begin and end with: a directory, a configuration, a free port. */
#include "demo.h"

#include <arpa/inet.h>
#include <ftw.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

uint16_t demo_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    uint16_t port = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return 0;
    if (bind(fd, (const struct sockaddr *)&address, len) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &len) == 0)
        port = ntohs(address.sin_port);
    close(fd);
    return port;
}

static wb_err set_config(struct demo_stage *stage, const char *bus, struct wb_why *why)
{
    char listen[32];
    char data[300];
    char secret[33];
    uint8_t random[16];

    (void)snprintf(listen, sizeof(listen), "127.0.0.1:%u", (unsigned)stage->http_port);
    (void)snprintf(data, sizeof(data), "%s/data", stage->dir);
    wb_random_fill(random, sizeof(random));
    wb_hex_encode(random, sizeof(random), secret);
    const struct {
        const char *name, *value;
    } settings[] = {{"bus", bus},
                    {"data", data},
                    {"http.listen", listen},
                    {"log.level", "error"},
                    {"webhooks.secret", secret}};
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        wb_err err = config_set(stage->config, settings[i].name, settings[i].value, "demo", why);
        if (err != WB_OK)
            return err;
    }
    return WB_OK;
}

wb_err demo_stage_prepare(struct demo_stage *stage, const char *bus, struct wb_why *why)
{
    const char *base = getenv("TMPDIR");

    (void)snprintf(stage->dir, sizeof(stage->dir), "%s/waybill-demo-XXXXXX",
                   base != NULL ? base : "/tmp");
    if (mkdtemp(stage->dir) == NULL) {
        stage->dir[0] = '\0';
        return wb_fail(why, WB_IO, "make a temporary directory under %s",
                       base != NULL ? base : "/tmp");
    }
    stage->http_port = demo_free_port();
    wb_err err = service_config_create(program_modules, program_module_count, &stage->config);
    return err == WB_OK ? set_config(stage, bus, why) : err;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

void demo_stage_finish(struct demo_stage *stage)
{
    config_destroy(stage->config);
    if (stage->dir[0] != '\0')
        (void)nftw(stage->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(stage);
}
