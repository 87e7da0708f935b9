/* joinfile.h: what a rank has to know before it can join: STATE/jobs/ID/join.
 *
 * lhd writes it when the job is submitted, and it holds for all attempts. Whoever has it
 * may be a rank of the job: it is of mode 0600, and refused where others may read it. A
 * rank of another host gets a copy, by a shared home, scp, or Slurm's sbcast.
 */
#ifndef LIGHTHOUSE_JOINFILE_H
#define LIGHTHOUSE_JOINFILE_H

#include <stdint.h>

#include "join/address.h"
#include "join/sealed.h"
#include "lighthouse/err.h"
#include "lighthouse/job.h"

struct lh_joinfile {
	int64_t job;
	enum lh_device device;
	int devices;
	char address[LH_ADDRESS_MAX_BYTES];
	char token[LH_TOKEN_TEXT_BYTES];
};

/* Writes PATH, with a new token, for a job that is joined. */
int lh_joinfile_write(const char *path, int64_t id, const struct lh_job *job,
		      struct lh_err *err);
/* LH_ENOTFOUND, LH_EIO; LH_EDENIED: others may read it; LH_ECORRUPT. */
int lh_joinfile_read(struct lh_joinfile *f, const char *path, struct lh_err *err);

#endif
