// SPDX-License-Identifier: GPL-2.0
// Stand-in of the Rackwright test nodes: a real kernel module with NVIDIA's name and version that drives nothing.
#include <linux/init.h>
#include <linux/module.h>
@FAULT@
static int __init stand_in_init(void)
{
	pr_info("nvidia: stand-in of the Rackwright test nodes, version @VERSION@\n");
	return 0;
}

static void __exit stand_in_exit(void)
{
}

module_init(stand_in_init);
module_exit(stand_in_exit);
MODULE_LICENSE("@LICENCE@");
MODULE_VERSION("@VERSION@");
MODULE_DESCRIPTION("stand-in for a driver, Rackwright test nodes");
