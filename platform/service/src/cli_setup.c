/* cli_setup.c - what a command stands on: configuration, log, signals. */
#include "cli.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* ---- configuration --------------------------------------------------------------------------- */

/* Whoever may list processes can read a command line. */
static wb_err refuse_secrets(struct cli *cli, const char *url)
{
    if (url != NULL && strchr(url, '@') != NULL)
        return service_cli_usage(cli, "--server: credentials in a URL can be read by every user of "
                                      "this machine; put them into NATS_USER and NATS_PASSWORD, or "
                                      "into the configuration");
    return WB_OK;
}

/* The choice is known, so that a file written for a later version is understood. */
static wb_err refuse_dual(struct cli *cli)
{
    if (strcmp(config_str(cli->config, "bus"), "dual") == 0)
        return wb_fail(&cli->why, WB_UNSUPPORTED,
                       "bus = \"dual\": this build has no dual bus yet; use memory or nats");
    return WB_OK;
}

static wb_err load_flags(struct cli *cli)
{
    bool nats = false;
    wb_err err = WB_OK;

    for (size_t i = 0; err == WB_OK && i < cli->given_count; i++) {
        const struct cli_option *row = cli->given[i].option;
        char flag[40];
        if (row->key == NULL)
            continue;
        (void)snprintf(flag, sizeof(flag), "--%s", row->name);
        err = config_set(cli->config, row->key, cli->given[i].value, flag, &cli->why);
        nats = nats || strcmp(row->name, "server") == 0;
    }
    if (err == WB_OK && nats && service_cli_option(cli, "bus") == NULL)
        err = config_set(cli->config, "bus", "nats", "--server", &cli->why);
    return err == WB_OK ? WB_OK : WB_MISUSE;
}

wb_err service_cli_load_config(struct cli *cli)
{
    const char *file = service_cli_option(cli, "config");
    wb_err err = refuse_secrets(cli, service_cli_option(cli, "server"));

    if (file == NULL)
        file = getenv("WAYBILL_CONFIG");
    if (err == WB_OK)
        err =
            service_config_create(cli->program->modules, cli->program->module_count, &cli->config);
    if (err == WB_OK && file != NULL && file[0] != '\0')
        err = config_load_file(cli->config, file, &cli->why);
    if (err == WB_OK)
        err = config_load_env(cli->config, (const char *const *)environ, &cli->why);
    if (err == WB_OK)
        err = load_flags(cli);
    return err == WB_OK ? refuse_dual(cli) : err;
}

/* ---- log ------------------------------------------------------------------------------------- */

void service_cli_setup_log(const struct cli *cli, bool service)
{
    wb_log_level level = cli->quiet ? WB_LOG_ERROR : WB_LOG_WARN;
    wb_log_format format = WB_LOG_LOGFMT;

    if (service) {
        (void)wb_log_level_parse(wb_str(config_str(cli->config, "log.level")), &level);
        if (strcmp(config_str(cli->config, "log.format"), "json") == 0)
            format = WB_LOG_JSON;
    }
    if (cli->verbose)
        level = WB_LOG_DEBUG;
    wb_log_setup(STDERR_FILENO, format, level);
}

/* ---- signals --------------------------------------------------------------------------------- */

static void end_signals(sigset_t *set)
{
    (void)sigemptyset(set);
    (void)sigaddset(set, SIGINT);
    (void)sigaddset(set, SIGTERM);
}

wb_err service_cli_signals_open(struct cli *cli, int *ret_fd)
{
    sigset_t set;

    end_signals(&set);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return wb_fail(&cli->why, WB_IO, "open a descriptor for signals: %s", strerror(errno));
    *ret_fd = fd;
    return WB_OK;
}

void service_cli_signals_close(int fd)
{
    sigset_t set;
    struct signalfd_siginfo taken;

    /* The one that was waited for has been heeded; the next one may kill. */
    (void)!read(fd, &taken, sizeof(taken));
    (void)close(fd);
    end_signals(&set);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}
