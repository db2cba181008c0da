// SPDX-License-Identifier: GPL-2.0
/*
 * Those who use secret memory, and abuse it, for guest/stress.sh. Prints rows "row ok|WHAT|TIMES|RESULT", or for "hold" which
 * blocks of memory it has.
 */
#include "stress.h"

int main(int argc, char *argv[])
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "hold") && argc == 3)
		hold(atol(argv[2]) * MIB / PAGE);
	else if (!strcmp(what, "anonymous") && argc == 3)
		anonymous(atol(argv[2]) * MIB / PAGE);
	else if (!strcmp(what, "churn"))
		churn();
	else if (!strcmp(what, "poison"))
		poison();
	else if (!strcmp(what, "faults"))
		faults();
	else if (!strcmp(what, "abuse"))
		abuse();
	else if (!strcmp(what, "access"))
		access_all();
	else if (!strcmp(what, "secrets"))
		secrets();
	else if (!strcmp(what, "pressure"))
		pressure();
	else if (!strcmp(what, "absent"))
		printf("%ld\n", absent_kib());
	else if (!strcmp(what, "nothing"))
		return 0;
	else
		errx(1, "usage: stress hold MIB | anonymous MIB | churn | poison | faults | abuse | access | secrets | pressure | absent | nothing");
	return 0;
}
