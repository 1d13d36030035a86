/* options.c - what users write, as nats.c wants it. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nats_bus.h"

#define URL_DEFAULT "nats://127.0.0.1:4222"
#define SERVERS_MAX 32
#define IO_BUFFER   (64 * 1024)

/* ---- URLs ------------------------------------------------------------------------------------ */

static const char *urls_of(const struct event_bus_nats_options *options)
{
    return options->url != NULL && *options->url != '\0' ? options->url : URL_DEFAULT;
}

char *event_bus_nats_redact(const char *urls)
{
    struct wb_buf out = {0};

    while (*urls != '\0') {
        size_t len = strcspn(urls, ",");
        const char *scheme = strstr(urls, "://");
        const char *begin = scheme != NULL && scheme < urls + len ? scheme + 3 : urls;
        const char *at = memrchr(begin, '@', (size_t)(urls + len - begin));
        if (at != NULL) {
            wb_buf_add(&out, urls, (size_t)(begin - urls));
            wb_buf_str(&out, "***");
            wb_buf_add(&out, at, (size_t)(urls + len - at));
        } else {
            wb_buf_add(&out, urls, len);
        }
        if (urls[len] == ',')
            wb_buf_str(&out, ",");
        urls += len + (urls[len] == ',');
    }
    if (out.failed) {
        wb_buf_free(&out);
        return NULL;
    }
    return out.ptr != NULL ? out.ptr : strdup("");
}

static bool has_blank(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (isspace((unsigned char)text[i]) || iscntrl((unsigned char)text[i]))
            return true;
    return false;
}

static bool check_port(const char *begin, const char *end)
{
    uint64_t port;

    return wb_str_to_u64(wb_str_n(begin, (size_t)(end - begin)), &port) && port > 0 && port < 65536;
}

/* One URL: [nats://|tls://][user[:password]@]host[:port] */
static bool check_url(const char *url, size_t len)
{
    const char *end = url + len;
    const char *scheme = strstr(url, "://");

    if (scheme != NULL && scheme < end) {
        size_t kind = (size_t)(scheme - url);
        if (!(kind == 4 && memcmp(url, "nats", 4) == 0) &&
            !(kind == 3 && memcmp(url, "tls", 3) == 0))
            return false;
        url = scheme + 3;
    }
    const char *at = memrchr(url, '@', (size_t)(end - url));
    const char *host = at != NULL ? at + 1 : url;
    const char *colon = memrchr(host, ':', (size_t)(end - host));
    const char *bracket = memrchr(host, ']', (size_t)(end - host));
    if (bracket != NULL && colon != NULL && colon < bracket)
        colon = NULL; /* it belongs to an IPv6 address */
    const char *host_end = colon != NULL ? colon : end;
    if (host == host_end || has_blank(url, (size_t)(end - url)))
        return false;
    return colon == NULL || check_port(colon + 1, end);
}

static wb_err check_urls(const char *urls, struct wb_why *why)
{
    char *shown = event_bus_nats_redact(urls);
    wb_err err = WB_OK;
    size_t count = 0;

    for (const char *at = urls; err == WB_OK; at++) {
        size_t len = strcspn(at, ",");
        if (++count > SERVERS_MAX || !check_url(at, len))
            err = wb_fail(why, WB_INVALID,
                          "NATS URL '%s': expected nats://host:port or tls://host:port, at most %d "
                          "of them separated by commas",
                          shown != NULL ? shown : "?", SERVERS_MAX);
        at += len;
        if (*at == '\0')
            break;
    }
    free(shown);
    return err;
}

static wb_err check_file(const char *what, const char *path, struct wb_why *why)
{
    if (path != NULL && access(path, R_OK) != 0)
        return wb_fail(why, WB_INVALID, "%s '%s' cannot be read: %s; check the path and its rights",
                       what, path, strerror(errno));
    return WB_OK;
}

wb_err event_bus_nats_options_check(const struct event_bus_nats_options *o, struct wb_why *why)
{
    const struct {
        const char *what;
        const char *path;
    } files[] = {{"creds file", o->creds_file},
                 {"nkey seed file", o->nkey_seed_file},
                 {"TLS CA file", o->tls_ca_file},
                 {"TLS certificate", o->tls_cert_file},
                 {"TLS key", o->tls_key_file}};
    char key[57];
    wb_err err = check_urls(urls_of(o), why);

    for (size_t i = 0; err == WB_OK && i < sizeof(files) / sizeof(files[0]); i++)
        err = check_file(files[i].what, files[i].path, why);
    if (err == WB_OK && (o->tls_cert_file == NULL) != (o->tls_key_file == NULL))
        err =
            wb_fail(why, WB_INVALID, "a TLS certificate needs its key, and a key its certificate");
    if (err == WB_OK && o->nkey_seed_file != NULL)
        err = event_bus_nats_nkey_public(o->nkey_seed_file, key, why);
    return err;
}

/* ---- options of a connection ----------------------------------------------------------------- */

static natsStatus set_servers(natsOptions *out, const char *urls)
{
    const char *servers[SERVERS_MAX];
    int count = 0;
    char *copy = strdup(urls);

    if (copy == NULL)
        return NATS_NO_MEMORY;
    for (char *at = copy; at != NULL && count < SERVERS_MAX;) {
        char *comma = strchr(at, ',');
        if (comma != NULL)
            *comma = '\0';
        servers[count++] = at;
        at = comma != NULL ? comma + 1 : NULL;
    }
    natsStatus s = natsOptions_SetServers(out, servers, count);
    free(copy);
    return s;
}

static bool wants_tls(const struct event_bus_nats_options *o)
{
    return o->tls || o->tls_ca_file != NULL || o->tls_cert_file != NULL ||
           strstr(urls_of(o), "tls://") != NULL;
}

/* nats.c ignores the scheme tls:// and would talk in plain text. */
static natsStatus set_tls(natsOptions *out, const struct event_bus_nats_options *o)
{
    natsStatus s = NATS_OK;

    if (!wants_tls(o))
        return NATS_OK;
    s = natsOptions_SetSecure(out, true);
    if (s == NATS_OK && o->tls_ca_file != NULL)
        s = natsOptions_LoadCATrustedCertificates(out, o->tls_ca_file);
    if (s == NATS_OK && o->tls_cert_file != NULL)
        s = natsOptions_LoadCertificatesChain(out, o->tls_cert_file, o->tls_key_file);
    return s;
}

static natsStatus set_credentials(natsOptions *out, const struct event_bus_nats_options *o)
{
    char key[57];
    natsStatus s = NATS_OK;

    if (o->user != NULL)
        s = natsOptions_SetUserInfo(out, o->user, o->password != NULL ? o->password : "");
    if (s == NATS_OK && o->token != NULL)
        s = natsOptions_SetToken(out, o->token);
    if (s == NATS_OK && o->creds_file != NULL)
        s = natsOptions_SetUserCredentialsFromFiles(out, o->creds_file, NULL);
    if (s == NATS_OK && o->nkey_seed_file != NULL) {
        if (event_bus_nats_nkey_public(o->nkey_seed_file, key, NULL) != WB_OK)
            return NATS_INVALID_ARG;
        s = natsOptions_SetNKeyFromSeed(out, key, o->nkey_seed_file);
    }
    return s;
}

static int64_t ms_or(int64_t ns, int64_t fallback_ms)
{
    int64_t ms = ns / WB_MS;

    return ns == 0 ? fallback_ms : ms > 0 ? ms : 1;
}

/* The options as one ladder: the first that fails ends it. */
static natsStatus set_behaviour(natsOptions *out, const struct event_bus_nats_options *o,
                                const char *role)
{
    char name[128];

    (void)snprintf(name, sizeof(name), "%s %s", o->name != NULL ? o->name : "waybill", role);
    natsStatus s = natsOptions_SetName(out, name);
    if (s == NATS_OK)
        s = natsOptions_SetTimeout(out, ms_or(o->connect_timeout_ns, 2000));
    /* Without it a send over TLS to a stopped server blocks for as long as that is stopped. */
    if (s == NATS_OK)
        s = natsOptions_SetWriteDeadline(out, ms_or(o->write_deadline_ns, 2000));
    if (s == NATS_OK)
        s = natsOptions_SetFailRequestsOnDisconnect(out, true);
    if (s == NATS_OK)
        s = natsOptions_SetIOBufSize(out, IO_BUFFER);
    return s;
}

wb_err event_bus_nats_connection_options(const struct event_bus_nats_options *o, const char *role,
                                         natsOptions **ret_options, struct wb_why *why)
{
    natsOptions *out = NULL;

    natsStatus s = natsOptions_Create(&out);
    if (s == NATS_OK)
        s = set_servers(out, urls_of(o));
    if (s == NATS_OK)
        s = set_behaviour(out, o, role);
    if (s == NATS_OK)
        s = set_tls(out, o);
    if (s == NATS_OK)
        s = set_credentials(out, o);
    if (s == NATS_OK) {
        *ret_options = out;
        return WB_OK;
    }
    natsOptions_Destroy(out);
    if (s == NATS_NO_MEMORY)
        return wb_fail(why, WB_NOMEM, "NATS connection: out of memory");
    return wb_fail(why, WB_INVALID,
                   "NATS connection: %s; check URL, credentials and certificate files",
                   natsStatus_GetText(s));
}
