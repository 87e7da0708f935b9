/* address.h: where ranks meet: "HOST:PORT", an IPv4 address or a name of one.
 *
 * MPICH's launcher knows no other protocol. Resolving may block for as long as a name
 * server takes: not on lhd's loop.
 */
#ifndef LIGHTHOUSE_ADDRESS_H
#define LIGHTHOUSE_ADDRESS_H

#include <netinet/in.h>

#include "lighthouse/err.h"

enum { LH_ADDRESS_MAX_BYTES = 256, LH_INTERFACE_BYTES = 16 };

/* Whether it is written as one; LH_EINVAL. */
int lh_address_check(const char *address, struct lh_err *err);
/* LH_EINVAL as above; LH_EUNREACHABLE: there is no such host. */
int lh_address_resolve(struct sockaddr_in *to, const char *address, struct lh_err *err);

/* A socket there that listens, not blocking. LH_EIO: it is not an address of this host, or
 * somebody listens. */
int lh_address_listen(const char *address, struct lh_err *err);
/* One attempt: a connected socket. LH_EUNREACHABLE. */
int lh_address_connect(const char *address, struct lh_err *err);

/* A peer whose host is gone is one within seconds. */
void lh_address_keep_alive(int fd);

/* Of a connected socket: the peer as "1.2.3.4", and the interface that leads there; "" if
 * it is none of this host's. */
void lh_address_peer(int fd, char *text, size_t bytes);
void lh_address_interface(int fd, char name[LH_INTERFACE_BYTES]);

#endif
