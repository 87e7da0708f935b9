/* screen.c: see screen.h. */
#include "screen.h"

#include <langinfo.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "ctl.h"

/* The other page and back; the cursor away and back. */
#define ENTER "\x1b[?1049h\x1b[?25l"
#define LEAVE "\x1b[0m\x1b[?25h\x1b[?1049l"

static volatile sig_atomic_t entered, quit, suspend;
static struct termios manner; /* the terminal's own */
static bool has_keys;

bool ctl_screen_usable(void)
{
	const char *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb");
}

bool ctl_screen_utf8(void)
{
	return !strcmp(nl_langinfo(CODESET), "UTF-8");
}

/* All of it, or as much as the terminal takes. */
static void put(const char *text, size_t n)
{
	while (n) {
		ssize_t done = write(STDOUT_FILENO, text, n);

		if (done <= 0)
			return;
		text += done;
		n -= (size_t)done;
	}
}

/* In a signal handler too. */
void ctl_screen_leave(void)
{
	if (!entered)
		return;
	entered = 0;
	put(LEAVE, strlen(LEAVE));
	if (has_keys)
		tcsetattr(STDIN_FILENO, TCSANOW, &manner);
}

static void on_signal(int signum)
{
	if (signum == SIGTSTP)
		suspend = 1;
	else if (signum != SIGWINCH)
		quit = 1;
}

/* SA_RESETHAND: the second time it does what it does. */
static void on_fault(int signum)
{
	ctl_screen_leave();
	raise(signum);
}

static void catch_signals(void)
{
	static const int asked[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH };
	static const int faults[] = { SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	struct sigaction sa = { .sa_handler = on_signal };

	for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++)
		sigaction(asked[i], &sa, NULL);
	sa.sa_handler = on_fault;
	sa.sa_flags = (int)SA_RESETHAND;
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		sigaction(faults[i], &sa, NULL);
}

void ctl_screen_enter(void)
{
	static bool prepared;
	struct termios raw;

	if (!prepared) {
		prepared = true;
		has_keys = !tcgetattr(STDIN_FILENO, &manner);
		atexit(ctl_screen_leave);
		catch_signals();
	}
	entered = 1;
	if (has_keys) {
		raw = manner;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		raw.c_cc[VMIN] = 0; /* reading never waits */
		raw.c_cc[VTIME] = 0;
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	put(ENTER, strlen(ENTER));
}

int ctl_screen_keys(void)
{
	return has_keys ? STDIN_FILENO : -1;
}

bool ctl_screen_quit(void)
{
	char keys[64];
	ssize_t n = 0;

	if (suspend) {
		suspend = 0;
		ctl_screen_leave();
		raise(SIGSTOP);
		ctl_screen_enter();
	}
	if (has_keys && entered)
		n = read(STDIN_FILENO, keys, sizeof(keys));
	for (ssize_t i = 0; i < n; i++)
		quit |= keys[i] == 'q' || keys[i] == 'Q';
	return quit;
}

/* ---- pages ----------------------------------------------------------------- */

static void append(struct ctl_page *p, const char *text, size_t n)
{
	if (p->used + n > p->cap) {
		p->cap = 2 * (p->used + n);
		p->text = lh_realloc(p->text, p->cap);
	}
	memcpy(p->text + p->used, text, n);
	p->used += n;
}

static void append_text(struct ctl_page *p, const char *text)
{
	append(p, text, strlen(text));
}

void ctl_page_begin(struct ctl_page *p)
{
	struct winsize size = { 0 };

	memset(p, 0, sizeof(*p));
	ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
	p->rows = size.ws_row ? size.ws_row : 24;
	p->columns = size.ws_col ? size.ws_col : 80;
	append_text(p, "\x1b[H");
}

void ctl_page_line(struct ctl_page *p, enum ctl_style style, const char *fmt, ...)
{
	char text[4096];
	va_list ap;

	if (p->used_rows == p->rows)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* Not after the last: that would scroll. Erased first: behind a full line the
	 * cursor still stands on its last character. */
	append_text(p, p->used_rows++ ? "\r\n\x1b[K" : "\x1b[K");
	append_text(p, style == CTL_BOLD ? "\x1b[1m" : style == CTL_DIM ? "\x1b[2m" : "");
	append(p, text, ctl_fit(text, p->columns));
	append_text(p, "\x1b[0m");
}

void ctl_page_show(struct ctl_page *p)
{
	append_text(p, p->used_rows < p->rows ? "\r\n\x1b[J" : "");
	put(p->text, p->used);
	free(p->text);
	p->text = NULL;
}
