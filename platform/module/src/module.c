#include <waybill/module.h>

#include <assert.h>

struct wb_str module_request_header(const struct module_request *request, const char *name)
{
    assert(request != NULL);
    assert(name != NULL);
    for (size_t i = 0; i < request->header_count; i++)
        if (wb_str_case_eq(request->headers[i].name, wb_str(name)))
            return request->headers[i].value;
    return (struct wb_str){NULL, 0};
}

void module_respond_error(struct module_response *response, int status, const char *error,
                          const char *next)
{
    assert(response != NULL);
    assert(error != NULL);
    response->status = status;
    response->content_type = "application/json";
    wb_buf_clear(&response->body); /* what was written before it failed is not part of the answer */
    wb_buf_str(&response->body, "{\"error\":");
    wb_buf_json_str(&response->body, wb_str(error));
    if (next != NULL) {
        wb_buf_str(&response->body, ",\"next\":");
        wb_buf_json_str(&response->body, wb_str(next));
    }
    wb_buf_str(&response->body, "}\n");
}
