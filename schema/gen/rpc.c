/* rpc.c: rpc/METHOD.json -> rpc_table.h and rpc_table.c. */
#include "gen.h"

void gen_rpc(const char *schema, const char *out)
{
	(void)schema;
	gen_close(gen_open(out, "rpc_table.h"));
	gen_close(gen_open(out, "rpc_table.c"));
}
