/* transfer.c: see transfer.h. */
#include "transfer.h"

#include <stdio.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"

enum { EVERY_US = 200000 };

void ctl_transfer_moved(void *transfer, int64_t done_bytes, int64_t all_bytes)
{
	struct ctl_transfer *t = transfer;
	int64_t now = lh_clock_us();

	if (!t->began_us)
		t->began_us = now;
	if (!isatty(STDERR_FILENO) || now < t->shown_us + EVERY_US)
		return;
	t->shown_us = now;
	fprintf(stderr, "\r%.2f of %.2f GB", (double)done_bytes / 1e9, (double)all_bytes / 1e9);
	if (now > t->began_us + EVERY_US)
		fprintf(stderr, ", %.2f GB/s ", (double)done_bytes / 1e3 /
						       (double)(now - t->began_us));
	fflush(stderr);
}

void ctl_transfer_left_out(const struct lh_err *why)
{
	char safe[1200];

	if (!why->code)
		return;
	fprintf(stderr, "without its tokenizer: %s\n", lh_escape(safe, sizeof(safe), why->text));
	if (*why->hint)
		fprintf(stderr, "hint: %s\n", lh_escape(safe, sizeof(safe), why->hint));
}

void ctl_transfer_end(const struct ctl_transfer *t)
{
	if (t->shown_us)
		fputs("\r\x1b[K", stderr);
}
