/* The one program: the modules it is made of, and nothing else. */
#include <waybill/service.h>

#include <waybill_modules/ar.h>
#include <waybill_modules/audit.h>
#include <waybill_modules/auth.h>
#include <waybill_modules/notify.h>
#include <waybill_modules/webhooks.h>

#include "demo.h"

const struct module *const program_modules[] = {
    &webhooks_module, &auth_module, &ar_module, &notify_module, &audit_module,
};
const size_t program_module_count = sizeof(program_modules) / sizeof(program_modules[0]);

int main(int argc, char **argv)
{
    const struct service_program program = {
        .modules = program_modules,
        .module_count = program_module_count,
        .commands = &demo_command,
        .command_count = 1,
    };
    return service_main(argc, argv, &program);
}
