/* notify.c: see notify.h. */
#include "base/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"

static struct {
	struct sockaddr_un address;
	socklen_t bytes; /* 0: nobody listens */
	char *path, *watchdog_us; /* as they were in the environment, or NULL */
} manager;

static void keep(char **copy, const char *value)
{
	free(*copy);
	*copy = value ? lh_strdup(value) : NULL;
}

int64_t lh_notify_open(void)
{
	const char *path = getenv("NOTIFY_SOCKET"), *us = getenv("WATCHDOG_USEC");
	const char *pid = getenv("WATCHDOG_PID");
	struct sockaddr_un *a = &manager.address;
	int64_t watchdog_us = us ? strtoll(us, NULL, 10) : 0;

	manager.bytes = 0;
	if (path && *path && strlen(path) < sizeof(a->sun_path)) {
		a->sun_family = AF_UNIX;
		strcpy(a->sun_path, path);
		manager.bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
					    strlen(path));
		if (path[0] == '@') /* no file: an abstract name */
			a->sun_path[0] = '\0';
	}
	/* Meant for a parent that started us. */
	if (pid && strtol(pid, NULL, 10) != getpid())
		watchdog_us = 0;
	keep(&manager.path, path);
	keep(&manager.watchdog_us, watchdog_us > 0 ? us : NULL);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
	return manager.bytes && watchdog_us > 0 ? watchdog_us / 3000 + 1 : 0;
}

void lh_notify_hand_on(void)
{
	if (manager.path)
		setenv("NOTIFY_SOCKET", manager.path, 1);
	if (manager.watchdog_us)
		setenv("WATCHDOG_USEC", manager.watchdog_us, 1);
}

void lh_notify(const char *text)
{
	int fd;

	if (!manager.bytes)
		return;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&manager.address,
		   manager.bytes) < 0) {
		lh_warn("the service manager cannot be told '%s': %s", text,
			strerror(errno));
		manager.bytes = 0;
	}
	if (fd >= 0)
		close(fd);
}
