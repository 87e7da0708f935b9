/* screen.h: a terminal as a page that is drawn again and again.
 *
 * Plain ANSI sequences, which every terminal of today obeys; no library. Between
 * enter and leave the terminal shows another page, without a cursor, and keys come
 * at once. It gets its own page and manner back when the program leaves, exits, is
 * stopped (Ctrl-Z), aborts or is killed by a signal it can know of; Ctrl-C, a hang-up
 * and the like do not end the program but are told by ctl_screen_quit.
 *
 * One screen a process.
 */
#ifndef LIGHTHOUSE_SCREEN_H
#define LIGHTHOUSE_SCREEN_H

#include <stdbool.h>

/* Whether stdout is a terminal that can be drawn on. */
bool ctl_screen_usable(void);
void ctl_screen_enter(void);
void ctl_screen_leave(void); /* harmless when not entered */

/* Whether 'q' was pressed or a signal asks to end. Also carries out Ctrl-Z. */
bool ctl_screen_quit(void);
/* The fd that keys come from, -1 if there is none. */
int ctl_screen_keys(void);
/* Whether characters beyond ASCII can be shown. */
bool ctl_screen_utf8(void);

/* A page: begin, lines from the top, show. Lines are cut at the right edge and
 * those below the bottom edge dropped; text must be safe already. */
enum ctl_style { CTL_PLAIN, CTL_BOLD, CTL_DIM };
struct ctl_page {
	int rows, columns;  /* of the terminal now */
	int used_rows;
	char *text;         /* private, from here down */
	unsigned long used, cap;
};
void ctl_page_begin(struct ctl_page *p);
void ctl_page_line(struct ctl_page *p, enum ctl_style style, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void ctl_page_show(struct ctl_page *p); /* and frees */

#endif
