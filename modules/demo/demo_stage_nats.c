/*
 * demo_stage_nats.c - a nats-server of the demo's own and the service in a process of its own, so
 * that both can really be killed.
 */
#include "demo.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <waybill/event_bus_factory.h>

struct nats_stage {
    struct demo_stage base; /* first */
    uint16_t nats_port;
    pid_t server;
    pid_t service;
};

/* ---- the server ------------------------------------------------------------------------------ */

static wb_err write_conf(const struct nats_stage *self, char path[300], struct wb_why *why)
{
    (void)snprintf(path, 300, "%s/nats.conf", self->base.dir);
    FILE *file = fopen(path, "we");
    if (file == NULL)
        return wb_fail(why, WB_IO, "write %s: %s", path, strerror(errno));
    int written = fprintf(file,
                          "listen: 127.0.0.1:%u\njetstream { store_dir: \"%s/nats\" }\n"
                          "log_file: \"%s/nats.log\"\n",
                          (unsigned)self->nats_port, self->base.dir, self->base.dir);
    return fclose(file) == 0 && written > 0 ? WB_OK : wb_fail(why, WB_IO, "write %s", path);
}

static void run_server(const char *conf)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    execlp("nats-server", "nats-server", "-c", conf, (char *)NULL);
    execl("/usr/sbin/nats-server", "nats-server", "-c", conf, (char *)NULL);
    _exit(127);
}

static wb_err start_server(struct nats_stage *self, struct wb_why *why)
{
    char conf[300];
    int status;
    wb_err err = write_conf(self, conf, why);

    if (err != WB_OK)
        return err;
    self->server = fork();
    if (self->server == 0)
        run_server(conf);
    if (self->server < 0)
        return wb_fail(why, WB_NOMEM, "start nats-server: %s", strerror(errno));
    usleep(100000); /* long enough for exec to have failed */
    if (waitpid(self->server, &status, WNOHANG) == self->server) {
        self->server = 0;
        return wb_fail(why, WB_NOT_FOUND,
                       "start nats-server: it ended at once; install it (Debian: "
                       "apt install nats-server), or use --bus memory");
    }
    return WB_OK;
}

static void end_process(pid_t *pid, int signal)
{
    if (*pid <= 0)
        return;
    (void)kill(*pid, signal);
    (void)waitpid(*pid, NULL, 0);
    *pid = 0;
}

/* ---- the service, in a child ----------------------------------------------------------------- */

static void run_service(const struct nats_stage *self)
{
    struct service *service;
    struct wb_why why = {""};
    sigset_t signals;
    int signal;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    wb_log_setup(STDERR_FILENO, WB_LOG_LOGFMT, WB_LOG_ERROR);
    if (service_start(self->base.config, NULL, program_modules, program_module_count, &service,
                      &why) != WB_OK) {
        (void)fprintf(stderr, "demo: service: %s\n", why.text);
        _exit(1);
    }
    (void)sigwait(&signals, &signal);
    service_stop(service);
    _exit(0);
}

static wb_err start_service(struct nats_stage *self, struct wb_why *why)
{
    self->service = fork();
    if (self->service == 0)
        run_service(self);
    return self->service > 0 ? WB_OK : wb_fail(why, WB_NOMEM, "start the service: fork failed");
}

/* ---- the stage ------------------------------------------------------------------------------- */

static wb_err bus_down(struct demo_stage *stage, struct wb_why *why)
{
    (void)why;
    end_process(&((struct nats_stage *)stage)->server, SIGKILL);
    return WB_OK;
}

static wb_err bus_up(struct demo_stage *stage, struct wb_why *why)
{
    return start_server((struct nats_stage *)stage, why);
}

static wb_err kill_publisher(struct demo_stage *stage, struct wb_why *why)
{
    struct nats_stage *self = (struct nats_stage *)stage;

    end_process(&self->service, SIGKILL);
    return start_service(self, why);
}

static wb_err open_bus(struct demo_stage *stage, struct wb_why *why)
{
    return stage->bus != NULL
               ? WB_OK
               : event_bus_factory_create(stage->config, NULL, true, &stage->bus, why);
}

static void destroy(struct demo_stage *stage)
{
    struct nats_stage *self = (struct nats_stage *)stage;

    event_bus_destroy(stage->bus);
    end_process(&self->service, SIGTERM);
    end_process(&self->server, SIGTERM);
    demo_stage_finish(stage);
}

wb_err demo_stage_nats_create(struct demo_stage **ret_stage, struct wb_why *why)
{
    struct nats_stage *self = calloc(1, sizeof(*self));
    char url[64];

    if (self == NULL)
        return WB_NOMEM;
    self->base = (struct demo_stage){.kill_text = "SIGKILL to the whole service",
                                     .bus_down = bus_down,
                                     .bus_up = bus_up,
                                     .kill_publisher = kill_publisher,
                                     .open_bus = open_bus,
                                     .destroy = destroy};
    self->nats_port = demo_free_port();
    (void)snprintf(url, sizeof(url), "nats://127.0.0.1:%u", (unsigned)self->nats_port);
    wb_err err = demo_stage_prepare(&self->base, "nats", why);
    if (err == WB_OK)
        err = config_set(self->base.config, "nats.url", url, "demo", why);
    if (err == WB_OK)
        err = start_server(self, why);
    if (err == WB_OK)
        err = start_service(self, why);
    if (err != WB_OK) {
        destroy(&self->base);
        return err;
    }
    *ret_stage = &self->base;
    return WB_OK;
}
