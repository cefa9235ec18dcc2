// SPDX-License-Identifier: Apache-2.0
// Reads a domain's configuration in JSON by Xen's libxl, and writes it again: the oracle of `xl list -l`. libxl wants a
// hypervisor only when it is asked for something else: what opens it is replaced.
#include <libxl.h>
#include <stdio.h>
#include <stdlib.h>

void *xc_interface_open(void) { return calloc(1, 4096); }
int xc_interface_close(void) { return 0; }
void *xs_open(void) { return calloc(1, 4096); }
void xs_close(void) {}

int main(int argc, char **argv)
{
    static char text[1 << 20];
    libxl_ctx *ctx = NULL;
    libxl_domain_config config;
    FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;

    if (!file || libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, NULL))
        return 3;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    libxl_domain_config_init(&config);
    if (libxl_domain_config_from_json(ctx, &config, text))
        return 1;
    puts(libxl_domain_config_to_json(ctx, &config));
    return 0;
}
