// SPDX-License-Identifier: GPL-2.0
/*
 * A module whose text is known to the byte. Between users_text_start and users_text_end there are no relocations, static
 * keys, ftrace sites or alternatives, so what was loaded is what lies in users_text.ko. It is several pages long, no two
 * instructions are the same, and it is run when the module is loaded.
 */
#include <linux/errno.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/stringify.h>

#define NR_INSTRUCTIONS	1200
#define STEP		0x0123456789abcdef

/* Loads the first NR_INSTRUCTIONS multiples of STEP, one after the other: movabs, 10 bytes each. Returns the last. */
static noinline __noclone u64 users_text(void)
{
	u64 value;

	asm volatile(".globl users_text_start, users_text_end\n"
		     "users_text_start:\n"
		     ".set users_value, 0\n"
		     ".rept " __stringify(NR_INSTRUCTIONS) "\n"
		     ".set users_value, users_value + " __stringify(STEP) "\n"
		     ".byte 0x48, 0xb8\n"
		     ".quad users_value\n"
		     ".endr\n"
		     "users_text_end:\n"
		     : "=a" (value));

	return value;
}

static int __init users_text_init(void)
{
	return users_text() == NR_INSTRUCTIONS * (u64)STEP ? 0 : -EILSEQ;
}
module_init(users_text_init);

static void __exit users_text_exit(void)
{
}
module_exit(users_text_exit);

MODULE_DESCRIPTION("Text that can be compared with what was loaded");
MODULE_LICENSE("GPL");
