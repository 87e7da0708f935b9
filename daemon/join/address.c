/* address.c: see address.h. */
#include "join/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORT_MAX = 65535, BACKLOG = 64, CONNECT_MS = 5000,
       IDLE_S = 2, PROBE_S = 1, PROBES = 3, LOST_MS = 5000 };

int lh_address_check(const char *address, struct lh_err *err)
{
	const char *colon = strchr(address, ':');
	size_t digits = colon ? strspn(colon + 1, "0123456789") : 0;
	int port = digits && digits < 6 && !colon[1 + digits] ? atoi(colon + 1) : 0;

	if (colon && colon > address && strcspn(address, " \t\n/") == strlen(address) &&
	    port > 0 && port <= PORT_MAX && strlen(address) < LH_ADDRESS_MAX_BYTES)
		return 0;
	lh_err_set(err, LH_EINVAL, "found '%.200s', HOST:PORT is allowed", address);
	return lh_err_hint(err, "an IPv4 address of lhd's host or its name, and a free "
			   "port");
}

int lh_address_resolve(struct sockaddr_in *to, const char *address, struct lh_err *err)
{
	struct addrinfo want = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *found;
	char host[LH_ADDRESS_MAX_BYTES];
	int rc = lh_address_check(address, err);
	const char *colon;

	if (rc)
		return rc;
	colon = strchr(address, ':');
	snprintf(host, sizeof(host), "%.*s", (int)(colon - address), address);
	rc = getaddrinfo(host, colon + 1, &want, &found);
	if (rc)
		return lh_err_set(err, LH_EUNREACHABLE, "there is no host '%s': %s", host,
				  gai_strerror(rc));
	memcpy(to, found->ai_addr, sizeof(*to));
	freeaddrinfo(found);
	return 0;
}

int lh_address_listen(const char *address, struct lh_err *err)
{
	struct sockaddr_in a;
	int rc = lh_address_resolve(&a, address, err), on = 1, fd;

	if (rc)
		return rc;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) &&
	    !bind(fd, (struct sockaddr *)&a, sizeof(a)) && !listen(fd, BACKLOG))
		return fd;
	lh_err_set(err, LH_EIO, "cannot listen at '%s': %s", address, strerror(errno));
	lh_err_hint(err, "the job's join: is an address of lhd's host, and a port that "
		    "nobody else has");
	if (fd >= 0)
		close(fd);
	return err->code;
}

/* Of a socket that does not block yet. */
static int wait_connected(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	socklen_t bytes = sizeof(int);
	int failed = 0;

	if (poll(&p, 1, CONNECT_MS) != 1)
		return ETIMEDOUT;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &bytes);
	return failed;
}

int lh_address_connect(const char *address, struct lh_err *err)
{
	struct sockaddr_in a;
	int rc = lh_address_resolve(&a, address, err), failed, fd;

	if (rc)
		return rc;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return lh_err_set(err, LH_EIO, "no socket: %s", strerror(errno));
	failed = connect(fd, (struct sockaddr *)&a, sizeof(a)) ? errno : 0;
	if (failed == EINPROGRESS)
		failed = wait_connected(fd);
	if (!failed) {
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
		return fd;
	}
	close(fd);
	return lh_err_set(err, LH_EUNREACHABLE, "nobody answers at '%s': %s", address,
			  strerror(failed));
}

void lh_address_keep_alive(int fd)
{
	static const struct {
		int level, option, value;
	} options[] = {
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, IDLE_S },
		{ IPPROTO_TCP, TCP_KEEPINTVL, PROBE_S },
		{ IPPROTO_TCP, TCP_KEEPCNT, PROBES },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, LOST_MS },
	};

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		setsockopt(fd, options[i].level, options[i].option, &options[i].value,
			   sizeof(options[i].value));
}

void lh_address_peer(int fd, char *text, size_t bytes)
{
	struct sockaddr_in a = { 0 };
	socklen_t n = sizeof(a);

	getpeername(fd, (struct sockaddr *)&a, &n);
	inet_ntop(AF_INET, &a.sin_addr, text, (socklen_t)bytes);
}

void lh_address_interface(int fd, char name[LH_INTERFACE_BYTES])
{
	struct sockaddr_in own = { 0 };
	socklen_t n = sizeof(own);
	struct ifaddrs *all = NULL;

	*name = '\0';
	getsockname(fd, (struct sockaddr *)&own, &n);
	if (getifaddrs(&all))
		return;
	for (const struct ifaddrs *i = all; i && !*name; i = i->ifa_next) {
		const struct sockaddr_in *a = (const void *)i->ifa_addr;

		if (a && a->sin_family == AF_INET &&
		    a->sin_addr.s_addr == own.sin_addr.s_addr)
			snprintf(name, LH_INTERFACE_BYTES, "%s", i->ifa_name);
	}
	freeifaddrs(all);
}
