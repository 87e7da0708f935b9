/* notify.h: what a service manager wants to hear (sd_notify's datagrams).
 *
 * Speaks to the socket that $NOTIFY_SOCKET names, or to nobody. One state for the
 * process; loop thread. */
#ifndef LIGHTHOUSE_NOTIFY_H
#define LIGHTHOUSE_NOTIFY_H

#include <stdint.h>

/* Takes NOTIFY_SOCKET and WATCHDOG_USEC out of the environment: they are this
 * process's, not its children's. Gives how often to send "WATCHDOG=1", a third of
 * what the manager allows; 0 when it does not watch. */
int64_t lh_notify_open(void);
/* Puts them back, for the program that this process becomes. */
void lh_notify_hand_on(void);
/* "READY=1", "WATCHDOG=1", "STOPPING=1"; failures are logged once. */
void lh_notify(const char *text);

#endif
