/* power_disk.h: the disk of power.h: what calls made of its files, and what of that is
 * safe. Calls are done in order; what was not synced is kept apart. */
#ifndef LIGHTHOUSE_TEST_POWER_DISK_H
#define LIGHTHOUSE_TEST_POWER_DISK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "lighthouse/err.h"

enum { POWER_CALLS = 8192, POWER_NODES = 1024, POWER_CHANGES = 64, POWER_PENDING = 14,
       POWER_ENTRIES = 32, POWER_FILES = 256 };

enum power_kind { POWER_OPEN, POWER_WRITE, POWER_CUT, POWER_SYNC, POWER_MKDIR,
		  POWER_RENAME, POWER_EXCHANGE, POWER_REMOVE };

struct power_call {
	enum power_kind kind;
	int moment;
	int file;          /* number of the open */
	char *path, *to;   /* below the root; path NULL: outside it */
	bool create, empty;
	char *data;
	size_t bytes;
	off_t at;
};

struct power_node;

struct power_entry {
	char name[64];
	struct power_node *node; /* NULL: nothing of that name */
};

struct power_list {
	struct power_entry entry[POWER_ENTRIES];
	int count;
};

struct power_node {
	bool is_dir, dirty, reached;
	struct power_list now, safe;       /* of a directory */
	char *data, *safe_data;            /* of a file */
	size_t bytes, safe_bytes;
};

struct power_change {
	struct power_node *dir;
	struct power_entry set[2];
	int count;
};

static struct {
	struct power_node *node[POWER_NODES], *file[POWER_CALLS];
	int nodes;
	struct power_change pending[POWER_CHANGES];
	int pendings;
} disk;

static inline struct power_node *disk_node(bool is_dir)
{
	struct power_node *n = lh_calloc(1, sizeof(*n));

	if (disk.nodes == POWER_NODES)
		abort();
	n->is_dir = is_dir;
	return disk.node[disk.nodes++] = n;
}

static inline struct power_node *disk_get(const struct power_list *l, const char *name)
{
	for (int i = 0; i < l->count; i++)
		if (!strcmp(l->entry[i].name, name))
			return l->entry[i].node;
	return NULL;
}

static inline void disk_set(struct power_list *l, const struct power_entry *e)
{
	int i = 0;

	while (i < l->count && strcmp(l->entry[i].name, e->name))
		i++;
	if (i == POWER_ENTRIES)
		abort();
	l->entry[i] = *e;
	l->count += i == l->count;
	if (!e->node)
		l->entry[i] = l->entry[--l->count];
}

/* The directory a path stands in, and its last name; "" is the root itself. */
static inline struct power_node *disk_parent(const char *path, const char **name)
{
	struct power_node *dir = disk.node[0];
	const char *slash;
	char part[64];

	while ((slash = strchr(path, '/'))) {
		snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		dir = disk_get(&dir->now, part);
		assert_non_null(dir);
		path = slash + 1;
	}
	*name = path;
	return dir;
}

static inline struct power_entry disk_entry(const char *name, struct power_node *node)
{
	struct power_entry e = { .node = node };

	snprintf(e.name, sizeof(e.name), "%s", name);
	return e;
}

static inline void disk_change(struct power_node *dir, struct power_entry a,
			       const struct power_entry *b)
{
	struct power_change *p = &disk.pending[disk.pendings++];

	if (disk.pendings == POWER_CHANGES)
		abort();
	*p = (struct power_change){ .dir = dir, .set = { a }, .count = b ? 2 : 1 };
	if (b)
		p->set[1] = *b;
	for (int i = 0; i < p->count; i++)
		disk_set(&dir->now, &p->set[i]);
}

static inline void disk_reach(struct power_node *n)
{
	if (n->reached)
		return;
	n->reached = true;
	for (int i = 0; i < n->safe.count; i++)
		disk_reach(n->safe.entry[i].node);
	for (int i = 0; i < disk.pendings; i++)
		for (int k = 0; disk.pending[i].dir == n && k < disk.pending[i].count; k++)
			if (disk.pending[i].set[k].node)
				disk_reach(disk.pending[i].set[k].node);
}

/* Changes within what can come back in no way matter no more. */
static inline void disk_prune(void)
{
	int kept = 0;

	for (int i = 0; i < disk.nodes; i++)
		disk.node[i]->reached = false;
	disk_reach(disk.node[0]);
	for (int i = 0; i < disk.pendings; i++)
		if (disk.pending[i].dir->reached)
			disk.pending[kept++] = disk.pending[i];
	disk.pendings = kept;
}

static inline void disk_sync(struct power_node *n)
{
	int kept = 0;

	if (!n->is_dir) {
		free(n->safe_data);
		n->safe_data = memcpy(lh_alloc(n->bytes), n->data ? n->data : "", n->bytes);
		n->safe_bytes = n->bytes;
		n->dirty = false;
		return;
	}
	for (int i = 0; i < disk.pendings; i++) {
		struct power_change *p = &disk.pending[i];

		for (int k = 0; p->dir == n && k < p->count; k++)
			disk_set(&n->safe, &p->set[k]);
		if (p->dir != n)
			disk.pending[kept++] = *p;
	}
	disk.pendings = kept;
	disk_prune();
}

static inline void disk_resize(struct power_node *n, size_t bytes)
{
	n->data = lh_realloc(n->data, bytes);
	if (bytes > n->bytes)
		memset(n->data + n->bytes, 0, bytes - n->bytes);
	n->bytes = bytes;
	n->dirty = true;
}

static inline void disk_open(const struct power_call *c)
{
	const char *name;
	struct power_node *dir = disk_parent(c->path, &name);
	struct power_node *n = *name ? disk_get(&dir->now, name) : dir;

	if (!n && c->create) {
		n = disk_node(false);
		disk_change(dir, disk_entry(name, n), NULL);
	}
	if (n && c->empty && n->bytes)
		disk_resize(n, 0);
	disk.file[c->file] = n;
}

static inline void disk_move(const struct power_call *c)
{
	const char *from, *to;
	struct power_node *dir = disk_parent(c->path, &from);
	struct power_entry b;

	assert_ptr_equal(disk_parent(c->to, &to), dir);
	b = disk_entry(to, disk_get(&dir->now, from));
	disk_change(dir, disk_entry(from, c->kind == POWER_EXCHANGE ?
						  disk_get(&dir->now, to) : NULL), &b);
}

static inline void disk_do(const struct power_call *c)
{
	struct power_node *dir, *n = c->path ? NULL : disk.file[c->file];
	const char *name;

	if (!c->path && (!n || c->kind == POWER_OPEN))
		return; /* outside */
	switch (c->kind) {
	case POWER_OPEN:
		disk_open(c);
		break;
	case POWER_WRITE:
		if (n->bytes < (size_t)c->at + c->bytes)
			disk_resize(n, (size_t)c->at + c->bytes);
		memcpy(n->data + c->at, c->data, c->bytes);
		n->dirty = true;
		break;
	case POWER_CUT:
		disk_resize(n, (size_t)c->at);
		break;
	case POWER_SYNC:
		disk_sync(n);
		break;
	case POWER_MKDIR:
	case POWER_REMOVE:
		dir = disk_parent(c->path, &name);
		n = c->kind == POWER_MKDIR ? disk_node(true) : NULL;
		disk_change(dir, disk_entry(name, n), NULL);
		break;
	case POWER_RENAME:
	case POWER_EXCHANGE:
		disk_move(c);
		break;
	}
}

static inline void disk_begin(void)
{
	memset(&disk, 0, sizeof(disk));
	disk_node(true); /* the root */
}

static inline void disk_end(void)
{
	for (int i = 0; i < disk.nodes; i++) {
		free(disk.node[i]->data);
		free(disk.node[i]->safe_data);
		free(disk.node[i]);
	}
}

#endif
