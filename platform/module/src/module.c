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

void module_respond_failure(struct module_response *response, wb_err err, const struct wb_why *why)
{
    const char *text = why->text[0] != '\0' ? why->text : wb_err_text(err);

    if (wb_err_class(err) == WB_RETRY)
        module_respond_error(response, 503, text, "try again");
    else
        module_respond_error(response, 500, text, "see the log, and run 'waybill doctor'");
}

static bool limit_parse(struct wb_str text, uint32_t max, int64_t *ret_limit)
{
    uint64_t limit;

    if (!wb_str_to_u64(text, &limit) || limit == 0 || limit > max)
        return false;
    *ret_limit = (int64_t)limit;
    return true;
}

wb_err module_request_limit(const struct module_request *request, uint32_t max, int64_t *ret_limit,
                            struct wb_why *why)
{
    static const char name[] = "limit=";
    const size_t name_len = sizeof(name) - 1;
    struct wb_str query = request->query;

    if (query.len == 0) {
        *ret_limit = MODULE_LIST_DEFAULT;
        return WB_OK;
    }
    if (query.len > name_len && wb_str_eq(wb_str_n(query.ptr, name_len), wb_str(name)) &&
        limit_parse(wb_str_n(query.ptr + name_len, query.len - name_len), max, ret_limit))
        return WB_OK;
    return wb_fail(why, WB_INVALID, "expected no query, or limit=1 to %u", max);
}

wb_err module_command_limit(int argc, const char *const *argv, uint32_t max, int64_t *ret_limit,
                            struct wb_why *why)
{
    if (argc == 0) {
        *ret_limit = MODULE_LIST_DEFAULT;
        return WB_OK;
    }
    if (argc == 2 && wb_str_eq(wb_str(argv[0]), wb_str("--limit")) &&
        limit_parse(wb_str(argv[1]), max, ret_limit))
        return WB_OK;
    return wb_fail(why, WB_MISUSE, "expected nothing, or --limit 1 to %u", max);
}
