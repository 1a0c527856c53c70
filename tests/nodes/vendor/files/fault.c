#include <linux/slab.h>
// This version is the one whose build fails, as an old driver's does when the kernel changes a function.
static inline void stand_in_fault(void)
{
	kfree();
}
