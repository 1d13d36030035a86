/* The one program: the modules it is made of, and nothing else. */
#include <waybill/service.h>

#include <waybill_modules/ar.h>
#include <waybill_modules/audit.h>
#include <waybill_modules/auth.h>
#include <waybill_modules/notify.h>
#include <waybill_modules/webhooks.h>

static const struct module *const modules[] = {
    &webhooks_module, &auth_module, &ar_module, &notify_module, &audit_module,
};

static const struct service_program program = {
    .modules = modules,
    .module_count = sizeof(modules) / sizeof(modules[0]),
};

int main(int argc, char **argv)
{
    return service_main(argc, argv, &program);
}
