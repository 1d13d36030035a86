/* service_http.c - which request goes where: the platform's own pages, then the modules' routes. */
#include "service_impl.h"

#include <stdlib.h>
#include <string.h>

#define NO_ROUTE     SIZE_MAX
#define OTHER_METHOD (SIZE_MAX - 1)

struct service_http {
    struct service *service;
    struct http_server *server;
    struct service_scope **scopes; /* one for each module, used by the HTTP thread alone */
    char *host_text;               /* the words of http.hosts, NUL-separated */
    const char **hosts;
};

/* ---- the platform's own pages ---------------------------------------------------------------- */

static void get_livez(struct service *service, const struct module_request *request,
                      struct module_response *response)
{
    (void)service;
    (void)request;
    response->content_type = "text/plain; charset=utf-8";
    wb_buf_str(&response->body, "ok\n");
}

static void get_readyz(struct service *service, const struct module_request *request,
                       struct module_response *response)
{
    (void)request;
    response->content_type = "text/plain; charset=utf-8";
    response->status = service_ready(service, &response->body) ? 200 : 503;
}

static void get_metrics(struct service *service, const struct module_request *request,
                        struct module_response *response)
{
    (void)request;
    response->content_type = "text/plain; version=0.0.4; charset=utf-8";
    observe_render(service->observe, &response->body);
}

static void post_publish(struct service *service, const struct module_request *request,
                         struct module_response *response)
{
    service_api_publish(service->api, request, response);
}

static void post_subscribe(struct service *service, const struct module_request *request,
                           struct module_response *response)
{
    service_api_subscribe(service->api, request, response);
}

static void get_next(struct service *service, const struct module_request *request,
                     struct module_response *response)
{
    service_api_next(service->api, request, response);
}

static const struct own_route {
    const char *method;
    const char *path;
    size_t max_body;
    void (*handle)(struct service *service, const struct module_request *request,
                   struct module_response *response);
} own_routes[] = {
    {"GET", "/livez", 0, get_livez},
    {"GET", "/readyz", 0, get_readyz},
    {"GET", "/metrics", 0, get_metrics},
    {"POST", "/bus/publish", MESSAGE_PAYLOAD_MAX, post_publish},
    {"POST", "/bus/subscriptions", 16384, post_subscribe},
    {"GET", "/bus/subscriptions/next", 0, get_next},
};

/* ---- routing --------------------------------------------------------------------------------- */

struct found {
    const struct own_route *own;
    const struct module_route *route;
    size_t module; /* with route: whose it is */
    bool other_method;
};

static bool matches(struct wb_str method, struct wb_str path, const char *route_method,
                    const char *route_path, struct found *found)
{
    if (!wb_str_eq(path, wb_str(route_path)))
        return false;
    if (wb_str_eq(method, wb_str(route_method)))
        return true;
    found->other_method = true;
    return false;
}

static struct found find_route(const struct service *service, struct wb_str method,
                               struct wb_str path)
{
    struct found found = {0};

    for (size_t i = 0; i < sizeof(own_routes) / sizeof(own_routes[0]); i++)
        if (matches(method, path, own_routes[i].method, own_routes[i].path, &found)) {
            found.own = &own_routes[i];
            return found;
        }
    for (size_t i = 0; i < service->module_count; i++)
        for (size_t j = 0; j < service->modules[i]->route_count; j++) {
            const struct module_route *route = &service->modules[i]->routes[j];
            if (matches(method, path, route->method, route->path, &found)) {
                found.route = route;
                found.module = i;
                return found;
            }
        }
    return found;
}

static size_t body_limit(void *ctx, struct wb_str method, struct wb_str path)
{
    const struct service_http *self = ctx;
    struct found found = find_route(self->service, method, path);

    if (found.own != NULL)
        return found.own->max_body;
    if (found.route != NULL)
        return found.route->max_body;
    return found.other_method ? OTHER_METHOD : NO_ROUTE;
}

/*
 * A page of somebody else's in the operator's browser can send requests to a loopback address. The
 * browser says where they come from; programs that are no browsers send neither header.
 */
static bool from_a_foreign_page(const struct module_request *request)
{
    struct wb_str site = module_request_header(request, "sec-fetch-site");
    struct wb_str origin = module_request_header(request, "origin");
    struct wb_str host = module_request_header(request, "host");

    if (site.len > 0 && !wb_str_eq(site, wb_str("same-origin")) && !wb_str_eq(site, wb_str("none")))
        return true;
    if (origin.len == 0)
        return false;
    size_t scheme = strlen("http://");
    return origin.len <= scheme || memcmp(origin.ptr, "http://", scheme) != 0 ||
           !wb_str_eq(wb_str_n(origin.ptr + scheme, origin.len - scheme), host);
}

static void handle(void *ctx, const struct module_request *request,
                   struct module_response *response)
{
    struct service_http *self = ctx;
    struct found found = find_route(self->service, request->method, request->path);

    if (wb_str_eq(request->method, wb_str("POST")) && from_a_foreign_page(request))
        module_respond_error(response, 403, "this request comes from another site's page",
                             "send it from a program, or from a page of this server");
    else if (found.own != NULL)
        found.own->handle(self->service, request, response);
    else if (found.route != NULL)
        found.route->handle(service_scope_of(self->scopes[found.module]), request, response);
    else
        module_respond_error(response, 404, "no such page", NULL);
}

/* ---- start and stop -------------------------------------------------------------------------- */

static wb_err open_scopes(struct service_http *self, struct wb_why *why)
{
    struct service *service = self->service;

    self->scopes = calloc(service->module_count + 1, sizeof(struct service_scope *));
    if (self->scopes == NULL)
        return WB_NOMEM;
    for (size_t i = 0; i < service->module_count; i++) {
        wb_err err = service_scope_open(service->config, service->modules[i], service->classes,
                                        &self->scopes[i], why);
        if (err != WB_OK)
            return err;
    }
    return WB_OK;
}

static wb_err split_hosts(struct service_http *self)
{
    const char *text = config_str(self->service->config, "http.hosts");
    size_t count = 0;
    char *rest;

    self->host_text = wb_str_dup(wb_str(text));
    self->hosts = calloc(strlen(text) / 2 + 2, sizeof(char *));
    if (self->host_text == NULL || self->hosts == NULL)
        return WB_NOMEM;
    for (char *word = strtok_r(self->host_text, " ", &rest); word != NULL;
         word = strtok_r(NULL, " ", &rest))
        self->hosts[count++] = word;
    return WB_OK;
}

wb_err service_http_start(struct service *service, struct service_http **ret_http,
                          struct wb_why *why)
{
    struct service_http *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return WB_NOMEM;
    self->service = service;
    wb_err err = open_scopes(self, why);
    if (err == WB_OK)
        err = split_hosts(self);
    if (err == WB_OK) {
        const struct http_options options = {.listen = config_str(service->config, "http.listen"),
                                             .hosts = self->hosts,
                                             .max_body = MESSAGE_PAYLOAD_MAX,
                                             .observe = service->observe,
                                             .body_limit = body_limit,
                                             .handle = handle,
                                             .ctx = self};
        err = http_server_start(&options, &self->server, why);
    }
    if (err != WB_OK) {
        service_http_stop(self);
        return err;
    }
    *ret_http = self;
    return WB_OK;
}

void service_http_stop(struct service_http *self)
{
    if (self == NULL)
        return;
    http_server_stop(self->server);
    for (size_t i = 0; self->scopes != NULL && i < self->service->module_count; i++)
        service_scope_close(self->scopes[i]);
    free(self->scopes);
    free(self->hosts);
    free(self->host_text);
    free(self);
}

uint16_t service_http_listen_port(const struct service_http *self)
{
    return http_server_port(self->server);
}
