/* SPDX-License-Identifier: Apache-2.0 */
/* Xen's own parser of disk specifications, libxlutil: a line each in, what it understood out. */
#include <libxl.h>
#include <libxlutil.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    static char line[65536];
    XLU_Config *config = xlu_cfg_init(fopen("/dev/null", "w"), "oracle");
    while (fgets(line, sizeof(line), stdin)) {
        const char *spec = line;
        libxl_device_disk disk;
        line[strcspn(line, "\n")] = 0;
        libxl_device_disk_init(&disk);
        if (xlu_disk_parse(config, 1, &spec, &disk))
            puts("refused");
        else
            printf("%s|%d|%s|%d|%d|%d|%s\n", disk.pdev_path ? disk.pdev_path : "", disk.format,
                   disk.vdev ? disk.vdev : "", disk.readwrite, disk.is_cdrom,
                   libxl_defbool_is_default(disk.discard_enable) || libxl_defbool_val(disk.discard_enable),
                   disk.script ? disk.script : "");
        libxl_device_disk_dispose(&disk);
    }
    return 0;
}
