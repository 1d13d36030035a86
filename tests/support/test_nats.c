/*
 * test_nats.c - a nats-server for one test: own port on loopback, own directory, ended by its pid.
 *
 * The server gets PR_SET_PDEATHSIG, so that it dies with the test, even when that is killed. The
 * signal comes when the thread that forked ends, so one thread, which never does, forks for all.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test_support.h"

#define START_TIMEOUT_MS 20000

static struct sockaddr_in loopback(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static uint16_t free_port(void)
{
    struct sockaddr_in address = loopback(0);
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        fail_msg("no free port on 127.0.0.1");
    (void)close(fd);
    return ntohs(address.sin_port);
}

static void write_conf(const struct test_nats *server, const struct test_nats_options *options)
{
    FILE *file = fopen(server->conf, "w");

    if (file == NULL)
        fail_msg("cannot write %s", server->conf);
    (void)fprintf(file, "listen: \"127.0.0.1:%u\"\nlog_file: \"%s/log\"\n", server->port,
                  server->dir);
    if (!options->no_jetstream)
        (void)fprintf(file,
                      "jetstream: { store_dir: \"%s/store\", max_memory_store: 256MB, "
                      "max_file_store: 16GB }\n",
                      server->dir);
    if (options->conf != NULL)
        (void)fprintf(file, "%s\n", options->conf);
    assert_int_equal(fclose(file), 0);
}

/* PATH first; Debian keeps the server in /usr/sbin, which a user's PATH may lack. */
static const char *server_binary(char path[512])
{
    const char *dirs = getenv("PATH");

    while (dirs != NULL && *dirs != '\0') {
        size_t len = strcspn(dirs, ":");
        (void)snprintf(path, 512, "%.*s/nats-server", (int)len, dirs);
        if (access(path, X_OK) == 0)
            return path;
        dirs += len + (dirs[len] == ':');
    }
    return "/usr/sbin/nats-server";
}

/* Read the INFO line that the server sends first. false: nobody answers (yet). */
static bool read_info(uint16_t port, char *out, size_t size)
{
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t len = 0;

    if (fd < 0)
        return false;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        while (len + 1 < size && poll(&ready, 1, 1000) > 0) {
            ssize_t got = recv(fd, out + len, size - 1 - len, 0);
            if (got <= 0 || memchr(out + len, '\n', (size_t)got) != NULL) {
                len += got > 0 ? (size_t)got : 0;
                break;
            }
            len += (size_t)got;
        }
    }
    (void)close(fd);
    out[len] = '\0';
    return len > 0;
}

struct start {
    struct test_nats *server;
    bool jetstream; /* must answer that it has it */
};

static bool has_started(void *ctx)
{
    const struct start *start = ctx;
    char info[4096];

    if (waitpid(start->server->pid, NULL, WNOHANG) == start->server->pid) {
        start->server->pid = 0;
        return true; /* it has ended: wait no longer */
    }
    if (!read_info(start->server->port, info, sizeof(info)))
        return false;
    return strncmp(info, "INFO ", 5) == 0 &&
           (!start->jetstream || strstr(info, "\"jetstream\":true") != NULL);
}

/* ---- the thread that forks ------------------------------------------------------------------- */

static struct {
    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t changed;
    bool running;
    const char *binary; /* not NULL: to be started */
    const char *conf;
    pid_t pid; /* not 0: the answer */
} forker = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static pid_t fork_server(const char *binary, const char *conf)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    int null = open("/dev/null", O_RDWR);
    if (getppid() != parent || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
        _exit(126);
    execl(binary, binary, "-c", conf, (char *)NULL);
    _exit(127);
}

static void *fork_for_all(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&forker.mutex);
    for (;;) {
        while (forker.binary == NULL)
            pthread_cond_wait(&forker.changed, &forker.mutex);
        forker.pid = fork_server(forker.binary, forker.conf);
        forker.binary = NULL;
        pthread_cond_broadcast(&forker.changed);
    }
    return NULL;
}

/* One caller at a time asks: tests start servers one after another. */
static pid_t ask_forker(const char *binary, const char *conf)
{
    pthread_t thread;

    pthread_mutex_lock(&forker.mutex);
    if (!forker.running && pthread_create(&thread, NULL, fork_for_all, NULL) == 0)
        forker.running = pthread_detach(thread) == 0;
    forker.conf = conf;
    forker.binary = binary;
    forker.pid = 0;
    pthread_cond_broadcast(&forker.changed);
    while (forker.running && forker.pid == 0)
        pthread_cond_wait(&forker.changed, &forker.mutex);
    pid_t pid = forker.pid;
    pthread_mutex_unlock(&forker.mutex);
    return pid;
}

static void spawn(struct test_nats *server, bool jetstream)
{
    char path[512];
    const char *binary = server_binary(path);
    struct start start = {.server = server, .jetstream = jetstream};

    server->pid = ask_forker(binary, server->conf);
    assert_true(server->pid > 0);
    if (!test_wait(has_started, &start, START_TIMEOUT_MS) || server->pid == 0) {
        test_nats_kill(server);
        fail_msg("%s -c %s did not start; see %s/log", binary, server->conf, server->dir);
    }
}

void test_nats_start(struct test_nats *server, const struct test_nats_options *options)
{
    static const struct test_nats_options defaults;

    if (options == NULL)
        options = &defaults;
    *server = (struct test_nats){.port = options->port != 0 ? options->port : free_port()};
    server->keep_dir = options->dir != NULL;
    server->jetstream = !options->no_jetstream;
    if (options->dir != NULL)
        (void)snprintf(server->dir, sizeof(server->dir), "%s", options->dir);
    else
        test_dir_make(server->dir);
    (void)snprintf(server->url, sizeof(server->url), "nats://127.0.0.1:%u", server->port);
    (void)snprintf(server->conf, sizeof(server->conf), "%s/nats.conf", server->dir);
    write_conf(server, options);
    spawn(server, server->jetstream);
}

static void end(struct test_nats *server, int signal_number)
{
    if (server->pid <= 0)
        return;
    (void)kill(server->pid, signal_number);
    while (waitpid(server->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    server->pid = 0;
}

void test_nats_kill(struct test_nats *server)
{
    end(server, SIGKILL);
}

void test_nats_term(struct test_nats *server)
{
    end(server, SIGTERM);
}

void test_nats_restart(struct test_nats *server)
{
    test_nats_kill(server);
    spawn(server, server->jetstream);
}

void test_nats_pause(struct test_nats *server)
{
    int status = 0;

    assert_int_equal(kill(server->pid, SIGSTOP), 0);
    /* Its threads stop one after another; only then it answers no more. */
    while (waitpid(server->pid, &status, WUNTRACED) < 0 && errno == EINTR)
        ;
    assert_true(WIFSTOPPED(status));
}

void test_nats_resume(struct test_nats *server)
{
    assert_int_equal(kill(server->pid, SIGCONT), 0);
}

void test_nats_stop(struct test_nats *server)
{
    test_nats_kill(server);
    if (!server->keep_dir)
        test_dir_remove(server->dir);
}

/* ---- its API, by hand ------------------------------------------------------------------------ */

/* Collect what the server sends until `until` is in it, or for 5 s. */
static bool read_until(int fd, const char *until, char *out, size_t size)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    size_t len = 0;

    out[0] = '\0';
    while (len + 1 < size && strstr(out, until) == NULL) {
        ssize_t got = poll(&ready, 1, 5000) > 0 ? recv(fd, out + len, size - 1 - len, 0) : 0;
        if (got <= 0)
            return false;
        len += (size_t)got;
        out[len] = '\0';
    }
    return strstr(out, until) != NULL;
}

bool test_nats_request(const struct test_nats *server, const char *subject, const char *body,
                       char *answer, size_t size)
{
    struct sockaddr_in address = loopback(server->port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char line[1024];
    int len = snprintf(line, sizeof(line),
                       "CONNECT {\"verbose\":false}\r\nSUB test.answer 1\r\n"
                       "PUB %s test.answer %zu\r\n%s\r\n",
                       subject, strlen(body), body);
    bool ok = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
              len > 0 && (size_t)len < sizeof(line) && read_until(fd, "\r\n", answer, size) &&
              send(fd, line, (size_t)len, MSG_NOSIGNAL) == len &&
              read_until(fd, "}\r\n", answer, size);

    if (fd >= 0)
        (void)close(fd);
    return ok;
}

void test_nats_delete(const struct test_nats *server, const char *stream, uint64_t sequence)
{
    char subject[128];
    char body[64];
    char answer[1024];

    (void)snprintf(subject, sizeof(subject), "$JS.API.STREAM.MSG.DELETE.%s", stream);
    (void)snprintf(body, sizeof(body), "{\"seq\":%llu}", (unsigned long long)sequence);
    if (!test_nats_request(server, subject, body, answer, sizeof(answer)) ||
        strstr(answer, "\"success\":true") == NULL)
        fail_msg("delete message %llu of %s: %s", (unsigned long long)sequence, stream, answer);
}
